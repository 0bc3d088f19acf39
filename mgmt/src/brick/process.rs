//! A daemon of ours: a program that goes to the background by itself and leaves its pid in a file.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// How long a daemon may take to say it is up.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How many ports are tried for one process.
const MAX_PORTS_TRIED: usize = 5;
/// How long one may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// What to start.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// Program.
    pub program: PathBuf,
    /// Arguments.
    pub arguments: Vec<OsString>,
    /// The file it leaves its pid in.
    pub pid_file: PathBuf,
    /// Its log: what it says before it has opened it itself goes there too.
    pub log_file: PathBuf,
    /// What its command line must contain for a pid to be taken for it.
    pub mark: String,
}

/// The program `name`: beside our own, else in PATH.
pub fn program(name: &str) -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(|directory| directory.join(name)))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}

impl Daemon {
    /// Its pid, if it runs: the pid file names a live process whose command line has the mark.
    pub fn pid(&self) -> Option<u32> {
        running(&self.pid_file, &self.mark)
    }

    /// Starts it and waits until it says it is up (its first process ends).
    ///
    /// # Errors
    /// What kept it from starting, or the code it ended with.
    pub async fn start(&self) -> io::Result<u32> {
        for path in [&self.pid_file, &self.log_file] {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
        }
        match std::fs::remove_file(&self.pid_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = OpenOptions::new().append(true).create(true).open(&self.log_file)?;
        let mut child = tokio::process::Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.program.display())))?;
        let status = match tokio::time::timeout(START_TIMEOUT, child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                child.start_kill()?;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} did not come up within {} s", self.program.display(), START_TIMEOUT.as_secs()),
                ));
            }
        };
        if !status.success() {
            return Err(io::Error::other(format!(
                "{} ended with {status}; see {}",
                self.program.display(),
                self.log_file.display()
            )));
        }
        // The pid file may come a moment after the first process has ended.
        for _ in 0..100 {
            if let Some(pid) = self.pid() {
                return Ok(pid);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(io::Error::other(format!("{} ended right away; see {}", self.program.display(), self.log_file.display())))
    }

    /// Asks it to end, waits, kills it if it does not, and removes its pid file.
    ///
    /// # Errors
    /// Those of kill.
    pub async fn stop(&self) -> io::Result<()> {
        if let Some(pid) = self.pid().and_then(to_pid) {
            kill(pid, Signal::TERM)?;
            let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
            let mut pause = Duration::from_millis(5);
            while self.pid().is_some() {
                if tokio::time::Instant::now() > deadline {
                    tracing::warn!("{} does not end on SIGTERM: killed", self.mark);
                    kill(pid, Signal::KILL)?;
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(200));
            }
        }
        match std::fs::remove_file(&self.pid_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Daemon {
    /// Sends it a signal that it takes (has a handler for, or blocks to read); whether it runs and takes it. One it does not
    /// take is not sent: it would end the process.
    ///
    /// # Errors
    /// Those of kill.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        match self.pid() {
            Some(number) if takes(number, signal) => match to_pid(number) {
                Some(pid) => kill(pid, signal).map(|()| true),
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }
}

/// Whether a process has a handler for a signal, or blocks it. Source: SigCgt and SigBlk of proc(5).
fn takes(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let bit = 1u64 << (signal.as_raw() - 1).clamp(0, 63);
    status
        .lines()
        .filter_map(|line| line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigBlk:")))
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & bit != 0)
}

fn kill(pid: Pid, signal: Signal) -> io::Result<()> {
    match rustix::process::kill_process(pid, signal) {
        // It has ended in between.
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}

fn to_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The pid in `pid_file`, if that process lives and its command line contains `mark`.
pub fn running(pid_file: &Path, mark: &str) -> Option<u32> {
    let text = std::fs::read_to_string(pid_file).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The state follows the name, which ends at the last parenthesis.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    if matches!(state, 'Z' | 'X') {
        return None;
    }
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    command.contains(mark).then_some(pid)
}

/// Whether nobody listens on a port at `address`.
pub fn is_free(address: IpAddr, port: u16) -> bool {
    TcpListener::bind(SocketAddr::new(address, port)).is_ok()
}

/// Starts something on a port that `pick` finds, given those lost so far. Another process may take the port between the two:
/// a start that fails and leaves its port taken is tried again on another, a few times. `None` when there is no port.
pub async fn start_on_port<T, E>(
    pick: impl Fn(&[u16]) -> Option<u16>,
    is_free: impl Fn(u16) -> bool,
    start: impl AsyncFn(u16) -> Result<T, E>,
) -> Option<Result<T, E>> {
    let mut lost = Vec::new();
    loop {
        let port = pick(&lost)?;
        let outcome = start(port).await;
        if outcome.is_ok() || lost.len() + 1 >= MAX_PORTS_TRIED || is_free(port) {
            return Some(outcome);
        }
        tracing::warn!("port {port} was taken by another process meanwhile: trying another");
        lost.push(port);
    }
}

/// A port nobody listens on at `address`: `preferred` if it is free, else the first from `base` that `taken` does not hold.
pub fn free_port(
    address: IpAddr,
    preferred: Option<u16>,
    base: u16,
    max: u16,
    taken: impl Fn(u16) -> bool,
) -> Option<u16> {
    let is_free = |port: u16| !taken(port) && is_free(address, port);
    preferred
        .filter(|port| *port >= base && *port <= max && is_free(*port))
        .or_else(|| (base..=max).find(|port| is_free(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signals_that_are_taken_count() {
        // The test program leaves SIGUSR2 alone; the runtime has a handler for SIGSEGV (stack overflow).
        // (All are blocked for a moment while the first thread starts another: that is not what is asked for here.)
        assert!((0..1000).any(|_| !takes(std::process::id(), Signal::USR2)));
        assert!(takes(std::process::id(), Signal::SEGV));
        assert!(!takes(u32::MAX, Signal::SEGV));
    }

    #[test]
    fn a_port_lost_to_another_is_not_the_end() {
        use std::cell::RefCell;
        let pick = |lost: &[u16]| (1..=9).find(|port| !lost.contains(port));
        let tried = RefCell::new(Vec::new());
        let start = async |port: u16| {
            tried.borrow_mut().push(port);
            if port < 3 { Err(port) } else { Ok(port) }
        };
        let outcome = |is_free: bool| futures::executor::block_on(start_on_port(pick, |_| is_free, &start));
        assert_eq!(outcome(false), Some(Ok(3)));
        assert_eq!(tried.take(), [1, 2, 3]);
        // Its port is still free: it failed for a reason of its own.
        assert_eq!(outcome(true), Some(Err(1)));
        assert_eq!(tried.take(), [1]);
        let never = async |port: u16| -> Result<(), u16> { Err(port) };
        assert_eq!(futures::executor::block_on(start_on_port(pick, |_| false, never)), Some(Err(5)));
        assert_eq!(futures::executor::block_on(start_on_port(|_| None, |_| false, never)), None);
    }

    #[test]
    fn a_pid_file_counts_for_its_own_process_only() {
        let path = std::env::temp_dir().join(format!("ladrillo-pid-{}", uuid::Uuid::new_v4()));
        assert_eq!(running(&path, ""), None);
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(running(&path, ""), Some(std::process::id()));
        assert_eq!(running(&path, "--brick-name /nowhere "), None);
        for text in ["", "abc", "-1", "999999999"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(running(&path, ""), None, "{text}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
