//! A cluster of three daemons on this machine, of whosever programs, with a volume and a mount.
//!
//! The same for each subject: a network namespace of its own, three glusterd on three loopback addresses, one brick
//! each below one base directory, the mount's client in that namespace as well. Runs inside [`crate::namespace`].

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cpu::Daemons;
use crate::namespace::network_of;
use crate::process::{Done, Stop, run};

/// How the bricks make a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VolumeType {
    /// Three copies of everything
    Replica3,
    /// Three bricks, one copy
    Distribute,
}

/// What a cluster shall be.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The subject's name.
    pub name: String,
    /// The directory of glusterd, gluster, glusterfs.
    pub programs: PathBuf,
    /// The kind of volume.
    pub volume_type: VolumeType,
    /// `KEY=VALUE`, for `volume set`.
    pub volume_options: Vec<String>,
    /// More arguments for the mount's glusterfs.
    pub client_arguments: Vec<String>,
}

/// A running cluster. Dropping it kills its processes.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    base: PathBuf,
    /// Keeps the network namespace.
    holder: Child,
    network: String,
    mount: PathBuf,
}

const NODES: usize = 3;
const VOLUME: &str = "bench";
/// For one command.
const LIMIT: Duration = Duration::from_secs(120);
/// For a state to be reached.
const PATIENCE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Brings a cluster up below `base`.
    ///
    /// # Errors
    /// In words: the step, and what the program said.
    pub fn up(recipe: &Recipe, base: &Path, stop: &Stop) -> Result<Cluster, String> {
        for program in ["gluster", "glusterd", "glusterfs"] {
            let path = recipe.programs.join(program);
            if !path.is_file() {
                return Err(format!("{} is not there (--cluster NAME=DIRECTORY of the programs)", path.display()));
            }
        }
        let base = base.join(&recipe.name);
        let mount = base.join("mount");
        std::fs::create_dir_all(&mount).map_err(|e| format!("mkdir {}: {e}", mount.display()))?;
        let holder = Command::new("unshare")
            .args(["--net", "--", "sleep", "infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut cluster = Cluster { programs: recipe.programs.clone(), base, holder, network: String::new(), mount };
        cluster.network = cluster.own_network(stop)?;
        cluster.run_inside(Path::new("ip"), &["link", "set", "lo", "up"], stop)?;
        cluster.form_pool(stop)?;
        cluster.make_volume(recipe, stop)?;
        cluster.mount(recipe, stop)?;
        Ok(cluster)
    }

    /// Where the volume is mounted.
    pub fn directory(&self) -> &Path {
        &self.mount
    }

    /// Its processes: daemons, bricks, the mount's client.
    pub fn daemons(&self) -> Daemons {
        Daemons::Network(self.network.clone())
    }

    fn own_network(&self, stop: &Stop) -> Result<String, String> {
        let ours = network_of("self");
        let mut network = None;
        wait_until("a network namespace", stop, || {
            network = network_of(self.holder.id().to_string()).filter(|n| Some(n) != ours.as_ref());
            Ok(network.is_some())
        })?;
        network.ok_or_else(|| "no network namespace".to_owned())
    }

    fn run_inside(&self, program: &Path, args: &[&str], stop: &Stop) -> Result<Done, String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program).args(args);
        // Ours finds its bricks' program beside itself, Debian's at the path it was built for.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.programs.clone()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).map_err(|e| format!("PATH: {e}"))?);
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        run(command, LIMIT, stop).map_err(|e| format!("{name} {}: {e}", args.join(" ")))
    }

    fn node(&self, node: usize) -> PathBuf {
        self.base.join(format!("node{node}"))
    }

    fn gluster(&self, words: &str, stop: &Stop) -> Result<Done, String> {
        let socket = format!("--glusterd-sock={}", self.node(1).join("glusterd.sock").display());
        let log = format!("--log-file={}", self.base.join("cli.log").display());
        let mut args = vec!["--mode=script", "--wignore", &socket, &log];
        args.extend(words.split_whitespace());
        self.run_inside(&self.programs.join("gluster"), &args, stop)
    }

    fn form_pool(&self, stop: &Stop) -> Result<(), String> {
        for number in 1..=NODES {
            let node = self.node(number);
            for directory in ["state", "run/gluster", "log", "brick"] {
                let path = node.join(directory);
                std::fs::create_dir_all(&path).map_err(|e| format!("mkdir {}: {e}", path.display()))?;
            }
            let option =
                |name: &str, value: String| ["--xlator-option".to_owned(), format!("management.{name}={value}")];
            let at = |name: &str| node.join(name).display().to_string();
            let mut args: Vec<String> = [
                option("working-directory", at("state")),
                option("run-directory", at("run/gluster")),
                option("transport.socket.bind-address", address(number)),
                option("glusterd-sockfile", at("glusterd.sock")),
                option("logging-directory", at("log")),
            ]
            .concat();
            args.push(format!("--log-file={}", at("log/glusterd.log")));
            args.push(format!("--pid-file={}", at("glusterd.pid")));
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            self.run_inside(&self.programs.join("glusterd"), &args, stop)?;
        }
        wait_until("glusterd answers", stop, || self.gluster("volume list", stop).map(|_| true))?;
        for number in 2..=NODES {
            self.gluster(&format!("peer probe {}", address(number)), stop)?;
        }
        wait_until("all peers are connected", stop, || {
            let status = self.gluster("peer status", stop)?.stdout;
            Ok(status.matches("Peer in Cluster (Connected)").count() == NODES - 1)
        })
    }

    fn make_volume(&self, recipe: &Recipe, stop: &Stop) -> Result<(), String> {
        let kind = match recipe.volume_type {
            VolumeType::Replica3 => "replica 3",
            VolumeType::Distribute => "",
        };
        let bricks: Vec<String> = (1..=NODES)
            .map(|n| format!("{}:{}", address(n), self.node(n).join("brick").join(VOLUME).display()))
            .collect();
        self.gluster(&format!("volume create {VOLUME} {kind} {} force", bricks.join(" ")), stop)?;
        for option in &recipe.volume_options {
            let (key, value) = option.split_once('=').ok_or_else(|| format!("'{option}' is not KEY=VALUE"))?;
            self.gluster(&format!("volume set {VOLUME} {key} {value}"), stop)?;
        }
        self.gluster(&format!("volume start {VOLUME}"), stop)?;
        wait_until("all bricks are online", stop, || {
            Ok(online_bricks(&self.gluster(&format!("volume status {VOLUME} --xml"), stop)?.stdout) == NODES)
        })
    }

    fn mount(&self, recipe: &Recipe, stop: &Stop) -> Result<(), String> {
        let point = self.mount.display().to_string();
        let mut args: Vec<String> = vec![
            "--process-name".to_owned(),
            "fuse".to_owned(),
            format!("--volfile-server={}", address(1)),
            format!("--volfile-id={VOLUME}"),
            format!("--log-file={}", self.base.join("mount.log").display()),
        ];
        args.extend(recipe.client_arguments.iter().cloned());
        args.push(point.clone());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.run_inside(&self.programs.join("glusterfs"), &args, stop)?;
        let probe = self.mount.join(".ladrillo-bench-probe");
        wait_until("the mount can be written to", stop, || {
            let mounted = std::fs::read_to_string("/proc/self/mounts").is_ok_and(|t| t.contains(&format!(" {point} ")));
            if !mounted {
                return Ok(false);
            }
            std::fs::write(&probe, "probe").and_then(|()| std::fs::remove_file(&probe)).map_err(|e| e.to_string())?;
            Ok(true)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.mount, rustix::mount::UnmountFlags::DETACH);
        // Everything else in the namespace was started by us.
        if !self.network.is_empty() {
            for pid in self.daemons().pids().into_iter().filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn address(node: usize) -> String {
    format!("127.1.1.{node}")
}

/// Bricks that `volume status --xml` shows as online. Services have no absolute path there.
fn online_bricks(xml: &str) -> usize {
    xml.split("<node>").skip(1).filter(|node| node.contains("<path>/") && node.contains("<status>1</status>")).count()
}

/// Polls until `condition` holds; an error counts as not yet, and is told when time is up.
fn wait_until(what: &str, stop: &Stop, mut condition: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    let mut last = String::new();
    loop {
        match condition() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(e) => last = format!(" (last: {e})"),
        }
        if stop.asked() {
            return Err("interrupted".to_owned());
        }
        if Instant::now() >= end {
            return Err(format!("waited {} s until {what}{last}", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bricks_in_the_status() {
        let xml = "<node>\n<hostname>a</hostname><path>/b/1</path><status>1</status></node>\
                   <node><path>/b/2</path><status>0</status></node>\
                   <node><hostname>Self-heal Daemon</hostname><path>localhost</path><status>1</status></node>";
        assert_eq!(online_bricks(xml), 1);
        assert_eq!(online_bricks(""), 0);
    }
}
