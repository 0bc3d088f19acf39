//! A private place for the clusters: a process in namespaces of its own, whose end takes everything down.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::process::Stop;

/// Tells the process inside that it is, and where it may write.
const INSIDE: &str = "LADRILLO_BENCH_INSIDE";

/// How long an interrupted run may take to write what it has, and to remove what it wrote to the user's directories.
const GRACE: Duration = Duration::from_secs(150);

/// Where clusters keep their state, when this process is the one inside.
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// Runs this program again in mount, process, host name and IPC namespaces of its own, with `base` to write to; removes
/// `base` when it ended.
///
/// # Errors
/// In words: not root, or namespaces cannot be made.
pub fn run_inside(base: &Path, stop: &Stop) -> Result<ExitCode, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("bringing clusters up takes root: namespaces, FUSE mounts".to_owned());
    }
    std::fs::create_dir_all(base.parent().unwrap_or(base)).map_err(|e| format!("{}: {e}", base.display()))?;
    std::fs::create_dir(base).map_err(|e| format!("mkdir {}: {e}", base.display()))?;
    let result = start_and_wait(base, stop);
    // All that was mounted and running is gone by now.
    if let Err(e) = std::fs::remove_dir_all(base) {
        eprintln!("ladrillo-bench: {} stays: {e}", base.display());
    }
    result
}

fn start_and_wait(base: &Path, stop: &Stop) -> Result<ExitCode, String> {
    let own = std::env::current_exe().map_err(|e| format!("where is this program? {e}"))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"]);
    command.arg("--").arg(own).args(std::env::args_os().skip(1)).env(INSIDE, base);
    // SAFETY: between fork and exec it makes one system call, prctl(2), and touches no memory.
    unsafe {
        command.pre_exec(|| {
            // When this process dies, so do unshare and, by --kill-child, everything inside.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into)
        });
    }
    let mut child = command.spawn().map_err(|e| format!("unshare: {e}"))?;
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| format!("unshare: {e}"))? {
            let code = status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
            return Ok(ExitCode::from(code));
        }
        match asked {
            None if stop.asked() => {
                // A terminal's Ctrl-C reached it as well; a signal to us alone did not. Not one that, coming second, would
                // end it before it has written anything.
                signal_inside(child.id());
                asked = Some(Instant::now());
            }
            Some(at) if at.elapsed() > GRACE => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(ExitCode::from(130));
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal_inside(unshare: u32) {
    let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap_or_default();
    for pid in children.split_whitespace().filter_map(|p| p.parse().ok()).filter_map(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::USR1);
    }
}

/// Covers the paths GlusterFS's programs use whatever they are told with empty ones, and sets the limits they want.
///
/// # Errors
/// In words.
pub fn cover_standard_paths() -> Result<(), String> {
    use rustix::mount::{MountFlags, mount};
    for path in ["/run/gluster", "/var/lib/glusterd", "/var/log/glusterfs"] {
        if !path.starts_with("/run/") && !Path::new(path).exists() {
            continue;
        }
        std::fs::create_dir_all(path).map_err(|e| format!("mkdir {path}: {e}"))?;
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).map_err(|e| format!("mount {path}: {e}"))?;
    }
    Ok(())
}

/// The name of a process's network namespace, as its link in /proc says; `self` for our own.
pub fn network_of(process: impl AsRef<OsStr>) -> Option<String> {
    let link = std::fs::read_link(Path::new("/proc").join(process.as_ref()).join("ns/net")).ok()?;
    Some(link.to_string_lossy().into_owned())
}
