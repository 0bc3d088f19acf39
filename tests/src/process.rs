//! Commands with a time limit.

use std::fmt;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a command did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command, for messages.
    pub command: String,
    /// Exit status; 128 + signal when a signal ended it, 124 when the time limit did.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Whether the exit status was 0.
    pub fn ok(&self) -> bool {
        self.code == 0
    }

    /// The outcome, when the command succeeded.
    ///
    /// # Panics
    /// When it did not: with the command and all it printed.
    #[track_caller]
    pub fn must(self) -> Outcome {
        assert!(self.ok(), "{self}");
        self
    }

    /// The outcome, when the command failed.
    ///
    /// # Panics
    /// When it succeeded.
    #[track_caller]
    pub fn must_fail(self) -> Outcome {
        assert!(!self.ok(), "should have failed: {self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` exit status {}\n{}{}", self.command, self.code, self.stdout, self.stderr)
    }
}

/// A command that runs beside the test. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    readers: Vec<thread::JoinHandle<String>>,
}

/// Output kept of a command, bytes: a runaway one must not fill the memory.
const KEPT_OUTPUT: usize = 4 << 20;

fn reader(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0_u8; 8192]);
        while let Ok(got) = from.read(&mut buffer) {
            if got == 0 {
                break;
            }
            let room = KEPT_OUTPUT.saturating_sub(kept.len());
            kept.extend_from_slice(&buffer[..got.min(room)]);
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

impl Running {
    pub(crate) fn start(name: String, mut command: Command) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start `{name}`: {e}"));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(reader(stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(reader(stderr));
        }
        Running { name, child, readers }
    }

    /// Whether it is still running.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; past `limit` it is killed and its code is 124.
    pub fn finish(mut self, limit: Duration) -> Outcome {
        let end = Instant::now() + limit;
        let mut pause = Duration::from_millis(2);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break code(status),
                Ok(None) if Instant::now() < end => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                _ => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break 124;
                }
            }
        };
        // A daemon the command left behind may hold its output open: what there is by then is enough.
        let grace = Instant::now() + Duration::from_secs(1);
        let mut outputs = Vec::new();
        for reader in std::mem::take(&mut self.readers) {
            while !reader.is_finished() && Instant::now() < grace {
                thread::sleep(Duration::from_millis(5));
            }
            outputs.push(if reader.is_finished() { reader.join().unwrap_or_default() } else { String::new() });
        }
        let stderr = outputs.pop().unwrap_or_default();
        let stdout = outputs.pop().unwrap_or_default();
        Outcome { command: std::mem::take(&mut self.name), code: status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
