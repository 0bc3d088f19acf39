//! Commands with a time limit, which end when the user wants the whole to end.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::cpu::children_time;

/// Whether the user asked for an end (Ctrl-C, SIGTERM, SIGHUP).
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// One that the signals set, and SIGUSR1. With `impatient`, a second signal but SIGUSR1 ends the process at once.
    ///
    /// # Errors
    /// A signal cannot be handled.
    pub fn on_signals(impatient: bool) -> std::io::Result<Stop> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
        let stop = Stop::default();
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGUSR1] {
            if impatient && signal != SIGUSR1 {
                signal_hook::flag::register_conditional_shutdown(signal, 130, stop.0.clone())?;
            }
            signal_hook::flag::register(signal, stop.0.clone())?;
        }
        Ok(stop)
    }

    /// Whether it is time to end.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks for an end.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A command that succeeded.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Standard output (its first 4 MiB).
    pub stdout: String,
    /// From start to end, seconds.
    pub seconds: f64,
    /// Processor time of it and its children, seconds.
    pub cpu_s: f64,
}

/// Kept of a command's output, bytes.
const KEPT_BYTES: u64 = 4 << 20;
/// How often a waiting harness looks whether the user wants an end.
const LOOK_MS: i64 = 100;
/// How long a killed command may take to end before it is left behind (in uninterruptible sleep).
const GRACE: Duration = Duration::from_secs(10);

/// Runs a command to its end.
///
/// # Errors
/// In words: it cannot be started, failed (with the last line of what it said), took longer than `limit` or the user
/// asked for an end; in the last two cases it and what it started were killed.
pub fn run(mut command: Command, limit: Duration, stop: &Stop) -> Result<Done, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    if stop.asked() {
        return Err("interrupted".to_owned());
    }
    let stdout = scratch()?;
    let stderr = scratch()?;
    let copy = |f: &File| f.try_clone().map(Stdio::from).map_err(|e| format!("{name}: {e}"));
    command.stdin(Stdio::null()).stdout(copy(&stdout)?).stderr(copy(&stderr)?);
    // A group of its own: killed as a whole, and Ctrl-C reaches it through us.
    command.process_group(0);
    let cpu = children_time();
    let start = Instant::now();
    let mut child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
    let ended = wait(&mut child, start + limit, stop);
    let seconds = start.elapsed().as_secs_f64();
    let status = match ended {
        Ok(status) => status,
        Err(why) => {
            kill(&mut child);
            return Err(match why {
                Early::Stopped => "interrupted".to_owned(),
                Early::Late => format!("{name}: not done after {} s", limit.as_secs()),
                Early::Failed(e) => format!("{name}: {e}"),
            });
        }
    };
    let cpu_s = children_time().saturating_sub(cpu).as_secs_f64();
    if !status.success() {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or(0)),
        };
        let said = [stderr, stdout].into_iter().filter_map(|f| last_line(&content(f))).next().unwrap_or_default();
        return Err(format!("{name}: {how}{}{said}", if said.is_empty() { "" } else { ": " }));
    }
    Ok(Done { stdout: content(stdout), seconds, cpu_s })
}

/// Like [`run`], and nothing but whether it worked.
///
/// # Errors
/// As [`run`].
pub fn run_quietly(program: &str, args: &[&std::ffi::OsStr], limit: Duration, stop: &Stop) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(args);
    run(command, limit, stop).map(|_| ())
}

enum Early {
    Stopped,
    Late,
    Failed(std::io::Error),
}

/// Memory that a command writes to: unlike a pipe it needs no reader, and a daemon left behind keeps nobody waiting.
fn scratch() -> Result<File, String> {
    let fd = rustix::fs::memfd_create("ladrillo-bench", MemfdFlags::CLOEXEC).map_err(|e| format!("memfd: {e}"))?;
    Ok(File::from(fd))
}

fn content(mut file: File) -> String {
    let mut raw = Vec::new();
    if file.seek(SeekFrom::Start(0)).is_ok() {
        // What cannot be read is missing from a message, no more.
        let _ = file.take(KEPT_BYTES).read_to_end(&mut raw);
    }
    String::from_utf8_lossy(&raw).into_owned()
}

fn last_line(text: &str) -> Option<String> {
    let line = text.lines().rev().map(str::trim).find(|l| !l.is_empty())?;
    Some(line.chars().take(300).collect())
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn wait(child: &mut Child, end: Instant, stop: &Stop) -> Result<ExitStatus, Early> {
    let failed = |e: rustix::io::Errno| Early::Failed(e.into());
    let pid = pid(child).ok_or_else(|| Early::Failed(std::io::ErrorKind::InvalidInput.into()))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    loop {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let pause = Timespec { tv_sec: 0, tv_nsec: LOOK_MS * 1_000_000 };
        match poll(&mut fds, Some(&pause)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return child.wait().map_err(Early::Failed),
            Err(e) => return Err(failed(e)),
        }
        if stop.asked() {
            return Err(Early::Stopped);
        }
        if Instant::now() >= end {
            return Err(Early::Late);
        }
    }
}

/// Kills a command and its group; a process that hangs in the kernel is left to it.
fn kill(child: &mut Child) {
    if let Some(pid) = pid(child) {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    let end = Instant::now() + GRACE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration, stop: &Stop) -> Result<Done, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, limit, stop)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_command_says_and_costs() {
        let done = sh("echo out; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done", LONG, &Stop::default()).unwrap();
        assert_eq!(done.stdout, "out\n");
        assert!(done.cpu_s > 0.0 && done.seconds > 0.0);
    }

    #[test]
    fn failures_say_why() {
        let failed = sh("echo first >&2; echo it broke >&2; exit 3", LONG, &Stop::default()).unwrap_err();
        assert_eq!(failed, "sh: exit status 3: it broke");
        assert_eq!(sh("kill -9 $$", LONG, &Stop::default()).unwrap_err(), "sh: signal 9");
        let missing = run(Command::new("/no/such/program"), LONG, &Stop::default()).unwrap_err();
        assert!(missing.starts_with("/no/such/program: "), "{missing}");
    }

    #[test]
    fn time_limits_and_interrupts_end_the_whole_group() {
        let start = Instant::now();
        let late = sh("sleep 1000 & sleep 1000", Duration::from_millis(50), &Stop::default()).unwrap_err();
        assert_eq!(late, "sh: not done after 0 s");
        let stop = Stop::default();
        let asker = stop.clone();
        let waiting = std::thread::spawn(move || sh("sleep 1000", LONG, &stop));
        std::thread::sleep(Duration::from_millis(20));
        asker.ask();
        assert_eq!(waiting.join().unwrap().unwrap_err(), "interrupted");
        assert!(start.elapsed() < LONG / 2);
    }

    #[test]
    fn a_daemon_left_behind_keeps_nobody_waiting() {
        let start = Instant::now();
        // It holds the output open, and ends by itself.
        let done = sh("setsid sleep 15 & echo started", LONG, &Stop::default()).unwrap();
        assert_eq!(done.stdout, "started\n");
        assert!(start.elapsed() < Duration::from_secs(12));
    }
}
