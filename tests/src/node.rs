//! One machine of a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::process::{Outcome, Running};
use crate::wait::wait_until;

/// Whose programs a machine has installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// Those of this workspace, from the target directory the test itself was built into.
    Ours,
    /// Those of the installed GlusterFS packages.
    Stock,
}

/// A machine: its namespaces are held by its process number 1.
#[derive(Debug)]
pub struct Node {
    pub(crate) index: usize,
    name: String,
    programs: Programs,
    /// `unshare`, the parent of the machine's process 1.
    unshare: Child,
    /// The machine's process 1, numbered as we see it.
    pub(crate) init: u32,
    directory: PathBuf,
}

/// How long a command on a machine may take unless told otherwise.
const LIMIT: Duration = Duration::from_secs(120);

impl Node {
    /// Starts the machine inside the namespaces of the process `outer`; without a wire yet.
    pub(crate) fn start(
        outer: u32,
        index: usize,
        programs: Programs,
        base: &Path,
        hosts: &Path,
        size: &str,
        keep: bool,
    ) -> Node {
        let name = format!("debian{index}");
        let directory = base.join(&name);
        for sub in ["lib", "log", "bin"] {
            fs::create_dir_all(directory.join(sub)).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        }
        let mut script = String::from("set -e\n");
        let d = directory.display();
        script += &format!(
            "hostname {name}\nip link set lo up\n\
             groups=; [ ! -d /var/lib/glusterd/groups ] || cp -r /var/lib/glusterd/groups {d}/lib/\n\
             mount -t tmpfs none /run; mkdir -p /run/gluster /run/lock\n\
             mount -t tmpfs none /var/lib; mkdir -p /var/lib/glusterd; mount --bind {d}/lib /var/lib/glusterd\n\
             mount -t tmpfs none /var/log; mkdir -p /var/log/glusterfs; mount --bind {d}/log /var/log/glusterfs\n\
             mount --bind {h} /etc/hosts\n\
             mount -t tmpfs none /mnt; mkdir -p /mnt/brick1 /mnt/gv0\n",
            h = hosts.display()
        );
        if programs == Programs::Ours {
            for program in ["gluster", "glusterd", "glusterfs", "glusterfsd", "mount.glusterfs"] {
                // mount(8)'s helper is `glusterfs` under another name.
                let built = target_directory().join(if program == "mount.glusterfs" { "glusterfs" } else { program });
                let link = directory.join("bin").join(program);
                let _ = fs::remove_file(&link);
                let made = match fuse_front() {
                    Some(front) if program == "mount.glusterfs" => mount_helper_with(&link, &built, &front),
                    _ => std::os::unix::fs::symlink(&built, &link),
                };
                made.unwrap_or_else(|e| panic!("{}: {e}", link.display()));
            }
            // Our programs lie over those of the system as if they were installed: mount(8) looks nowhere else.
            script += &format!("mount -t overlay overlay -o lowerdir={d}/bin:/usr/sbin /usr/sbin\n");
        }
        if size.is_empty() {
            script += &format!("mkdir -p {d}/brick1; mount --bind {d}/brick1 /mnt/brick1\n");
        } else {
            script += &format!(
                "truncate -s {size} {d}/brick1.img; mkfs.ext4 -q -F -I 512 {d}/brick1.img\n\
                 mount -o loop {d}/brick1.img /mnt/brick1 || {{\n\
                   echo 'no loop devices here: the brick is a plain directory' >&2\n\
                   mkdir -p {d}/brick1; mount --bind {d}/brick1 /mnt/brick1; }}\n"
            );
        }
        // Debian's glusterd writes volfiles to fixed names in /tmp: machines that shared it failed each other's commits.
        // The test's own directory stays where it was.
        if !target_directory().starts_with("/tmp") {
            script += &format!(
                "mkdir /run/base; mount --bind {b} /run/base; mount -t tmpfs none /tmp; mkdir -p {b}\n\
                 mount --bind /run/base {b}; umount /run/base; rmdir /run/base\n",
                b = base.display()
            );
        }
        script += &format!("touch {d}/ready\n");
        // As process 1 of the machine bash reaps whatever a daemon leaves behind, and ends, taking the machine with it,
        // when the test that holds the other end of its standard input does.
        script += if keep { "while :; do sleep 1000; done\n" } else { "read -r _ || true\n" };
        let unshare = Command::new("nsenter")
            .args(["-t", &outer.to_string(), "-m", "-n", "-p", "--"])
            .args(["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["bash", "-c", &script])
            .stdin(if keep { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("init.log")).map_or(Stdio::null(), Stdio::from))
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start unshare: {e}"));
        let init = wait_for_init(unshare.id(), &directory);
        Node { index, name, programs, unshare, init, directory }
    }

    /// Its name, `debian1`...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose programs it has.
    pub fn programs(&self) -> Programs {
        self.programs
    }

    /// Its address on the test's network.
    pub fn address(&self) -> String {
        address(self.index)
    }

    /// A path of the machine as this process can open it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/{}", self.init, path.trim_start_matches('/')))
    }

    /// The directory of its logs, on this machine.
    pub fn logs(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Runs a bash command line on the machine.
    pub fn sh(&self, script: &str) -> Outcome {
        self.sh_within(LIMIT, script)
    }

    /// Runs a bash command line that may take until `limit`.
    pub fn sh_within(&self, limit: Duration, script: &str) -> Outcome {
        self.spawn_within(limit, script).finish(limit + Duration::from_secs(10))
    }

    /// Starts a bash command line beside the test; it is killed after ten minutes.
    pub fn spawn(&self, script: &str) -> Running {
        self.spawn_within(Duration::from_secs(600), script)
    }

    fn spawn_within(&self, limit: Duration, script: &str) -> Running {
        let mut command = self.enter();
        command.args(["timeout", "-k", "3", &limit.as_secs().max(1).to_string(), "bash", "-c", script]);
        Running::start(format!("{}: {script}", self.name), command)
    }

    /// Runs `gluster --mode=script ARGS`.
    pub fn gluster(&self, args: &str) -> Outcome {
        self.sh(&format!("gluster --mode=script {args}"))
    }

    /// The command that enters the machine; arguments follow.
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-n", "-u", "-p", "--"]);
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command
    }

    /// Starts glusterd and waits until it answers.
    ///
    /// # Panics
    /// When it does not within 30 seconds.
    pub fn start_glusterd(&self) {
        self.sh("glusterd --pid-file=/run/glusterd.pid").must();
        let up = wait_until(Duration::from_secs(30), || self.gluster("pool list").ok());
        assert!(up, "{}: glusterd does not answer\n{}", self.name, self.log_tails());
    }

    /// Kills glusterd with SIGKILL and waits until it is gone.
    pub fn kill_glusterd(&self) {
        let pid = self.sh("cat /run/glusterd.pid").must().stdout.trim().to_owned();
        self.kill(&pid);
    }

    /// Kills a process of the machine (numbered as the machine sees it) with SIGKILL and waits until it is gone.
    pub fn kill(&self, pid: &str) {
        self.sh(&format!("kill -9 {pid}")).must();
        let gone = wait_until(Duration::from_secs(10), || !self.sh(&format!("kill -0 {pid}")).ok());
        assert!(gone, "{}: process {pid} survives SIGKILL", self.name);
    }

    /// Mounts `VOLUME` from `server` on `directory`.
    pub fn mount(&self, server: &Node, volume: &str, directory: &str) -> Outcome {
        self.sh(&format!("mkdir -p {directory} && mount -t glusterfs {}:/{volume} {directory}", server.name()))
    }

    /// Pulls the network cable.
    pub fn cut_link(&self) {
        self.sh("ip link set eth0 down").must();
    }

    /// Plugs it back in.
    pub fn join_link(&self) {
        self.sh("ip link set eth0 up").must();
    }

    /// The ends of its logs, for the message of a failed test.
    pub fn log_tails(&self) -> String {
        let mut text = String::new();
        let mut files = vec![self.directory.join("init.log")];
        for directory in [self.logs(), self.logs().join("bricks")] {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_file() {
                    files.push(entry.path());
                }
            }
        }
        files.sort();
        for file in files {
            let Ok(all) = fs::read(&file) else { continue };
            let all = String::from_utf8_lossy(&all);
            let lines: Vec<&str> = all.lines().collect();
            let tail = &lines[lines.len().saturating_sub(25)..];
            if !tail.is_empty() {
                let name = file.strip_prefix(&self.directory).unwrap_or(&file).display().to_string();
                text += &format!("--- {} {name}\n{}\n", self.name, tail.join("\n"));
            }
        }
        text
    }

    pub(crate) fn stop(&mut self) {
        // Process 1 reads end of file and ends; the kernel ends the rest.
        drop(self.unshare.stdin.take());
        let _ = Command::new("kill").args(["-9", &self.init.to_string()]).stderr(Stdio::null()).status();
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// The front end that mounts are to have: `LADRILLO_FUSE_FRONT` (ring, device); what they choose themselves without it.
fn fuse_front() -> Option<String> {
    std::env::var("LADRILLO_FUSE_FRONT").ok().filter(|front| !front.is_empty())
}

/// A helper of mount(8) that gives the client one option more.
fn mount_helper_with(path: &Path, built: &Path, front: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let script = format!("#!/bin/bash\nexec -a mount.glusterfs {} \"$@\" -o fuse-front={front}\n", built.display());
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// The address of machine `index` on the test's network.
pub(crate) fn address(index: usize) -> String {
    format!("10.77.1.{index}")
}

/// The directory of the programs built with this test: `target/debug`, two above `target/debug/deps/TEST`.
pub(crate) fn target_directory() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let parent = own.parent().map(Path::to_path_buf).unwrap_or_default();
    if parent.ends_with("deps") { parent.parent().map(Path::to_path_buf).unwrap_or(parent) } else { parent }
}

/// The child of `parent`, once it says it is ready.
pub(crate) fn wait_for_init(parent: u32, directory: &Path) -> u32 {
    let ready = directory.join("ready");
    let up = wait_until(Duration::from_secs(60), || ready.exists() || !Path::new(&format!("/proc/{parent}")).exists());
    let log = || fs::read_to_string(directory.join("init.log")).unwrap_or_default();
    assert!(up && ready.exists(), "namespaces cannot be made (root? see tools/need-root):\n{}", log());
    let _ = fs::remove_file(&ready);
    // nsenter -p and unshare -f fork: the machine's process 1 is the last of the line.
    let mut pid = parent;
    while let Some(child) = child_of(pid) {
        pid = child;
        let own = fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        if own.is_some() && own == fs::read_link(format!("/proc/{pid}/ns/pid_for_children")).ok() && is_init(pid) {
            break;
        }
    }
    assert!(pid != parent, "the machine's process 1 is missing:\n{}", log());
    pid
}

/// Whether a process is number 1 of its innermost process namespace, and not that of ours.
fn is_init(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let Some(line) = status.lines().find(|l| l.starts_with("NSpid:")) else { return false };
    line.split_whitespace().skip(2).last() == Some("1")
}

fn child_of(parent: u32) -> Option<u32> {
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // pid (comm) state ppid ...: the name may hold anything, so count from its closing bracket.
        let Some(rest) = stat.rsplit_once(')').map(|(_, rest)| rest) else { continue };
        if rest.split_whitespace().nth(1).and_then(|p| p.parse().ok()) == Some(parent) {
            return Some(pid);
        }
    }
    None
}
