//! Becoming a daemon whose parent waits for news: it exits 0 only when the child says that all is well.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How the child tells its parent (or, in the foreground, the console).
pub struct Reporter {
    parent: Option<File>,
}

/// Which side of the fork this is.
pub enum Side {
    /// The child, or the process itself in the foreground.
    Worker(Reporter),
    /// The parent, with what it exits with.
    Parent(ExitCode),
}

/// First byte of the child's message.
const LIVE: u8 = b'0';
const FAILED: u8 = b'1';
/// Longest reason for a failure that is passed on, in bytes.
const MAX_REASON_BYTES: u64 = 64 << 10;

impl Reporter {
    /// Stays in the foreground: failures go to the console.
    pub fn foreground() -> Reporter {
        Reporter { parent: None }
    }

    /// All is well: the parent exits 0, and this process lets go of its terminal.
    pub fn live(&mut self) {
        if let Some(mut parent) = self.parent.take() {
            let _ = parent.write_all(&[LIVE]); // a parent that was killed needs no news
            release_terminal();
        }
    }

    /// It failed: the parent (or this process) says why.
    pub fn failed(&mut self, reason: &str) {
        match self.parent.take() {
            Some(mut parent) => {
                let _ = parent.write_all(&[FAILED]);
                let _ = parent.write_all(reason.as_bytes());
            }
            None => eprintln!("{reason}"),
        }
    }
}

/// Forks. Only while the process has one thread and no ring.
///
/// # Errors
/// No process or pipe left.
pub fn daemonize() -> io::Result<Side> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the process has a single thread (the caller's promise), so the child may go on as usual.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            let _ = rustix::process::setsid(); // fails only for a group leader, which a fresh child is not
            Ok(Side::Worker(Reporter { parent: Some(File::from(writer)) }))
        }
        _ => {
            drop(writer);
            Ok(Side::Parent(wait_for(reader)))
        }
    }
}

/// The child's word, or its death.
fn wait_for(reader: OwnedFd) -> ExitCode {
    let mut message = Vec::new();
    let read = File::from(reader).take(MAX_REASON_BYTES).read_to_end(&mut message);
    match message.split_first() {
        Some((&LIVE, _)) => ExitCode::SUCCESS,
        Some((&FAILED, reason)) => {
            eprintln!("{}", String::from_utf8_lossy(reason));
            ExitCode::FAILURE
        }
        _ => {
            let why = read.err().map(|error| format!(": {error}")).unwrap_or_default();
            eprintln!("glusterfs: the daemon died before it was ready{why}");
            ExitCode::FAILURE
        }
    }
}

fn release_terminal() {
    let _ = std::env::set_current_dir("/");
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(null.as_fd());
        let _ = rustix::stdio::dup2_stdout(null.as_fd());
        let _ = rustix::stdio::dup2_stderr(null.as_fd());
    }
}

/// A pid file; removed when dropped.
pub struct PidFile {
    path: PathBuf,
    _locked: File,
}

impl PidFile {
    /// Writes this process's pid, locked as GlusterFS does, so that two daemons never share one.
    ///
    /// # Errors
    /// The file cannot be written, or a living process holds it.
    pub fn create(path: &Path) -> io::Result<PidFile> {
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::fcntl_lock(&file, lock)
            .map_err(|error| io::Error::other(format!("{} is locked by another process: {error}", path.display())))?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(PidFile { path: path.to_owned(), _locked: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
