//! What makes a daemon of a process: going to the background, the pid file, the log.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// The child's way to tell the waiting parent how the start went.
pub struct Report {
    pipe: Option<File>,
}

impl Report {
    /// For a process that stays in the foreground: tells nobody.
    pub fn nobody() -> Report {
        Report { pipe: None }
    }

    /// The brick serves: the parent exits with 0.
    pub fn ready(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = pipe.write_all(b"+");
        }
    }

    /// The start failed: the parent prints `reason` and exits with 1.
    pub fn failed(&mut self, reason: &str) {
        match self.pipe.take() {
            Some(mut pipe) => drop(pipe.write_all(format!("-{reason}").as_bytes())),
            None => eprintln!("glusterfsd: {reason}"),
        }
    }
}

/// Goes to the background. The parent stays until the child reports, and never returns from here. Call before any
/// thread is started.
///
/// # Errors
/// The system's: no pipe, no process.
pub fn daemonize() -> io::Result<Report> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: there is one thread yet, so the child may go on as the parent would have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(read);
            rustix::process::setsid()?;
            rustix::process::chdir("/")?;
            let null = File::options().read(true).write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)?;
            Ok(Report { pipe: Some(File::from(write)) })
        }
        _ => {
            drop(write);
            let mut said = String::new();
            let _ = File::from(read).read_to_string(&mut said);
            match said.strip_prefix('-') {
                _ if said == "+" => std::process::exit(0),
                Some(reason) => {
                    eprintln!("glusterfsd: {reason}");
                    std::process::exit(1)
                }
                None => {
                    eprintln!("glusterfsd: the brick process ended before it was ready; see its log");
                    std::process::exit(1)
                }
            }
        }
    }
}

/// A pid file, locked as long as this lives, removed at its end.
pub struct PidFile {
    path: PathBuf,
    _file: File,
}

impl PidFile {
    /// Locks the file (an fcntl lock: glusterd tests it with lockf) and writes our pid.
    ///
    /// # Errors
    /// The file cannot be made, or another process has it locked.
    pub fn create(path: &Path) -> io::Result<PidFile> {
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            io::Error::new(io::ErrorKind::AddrInUse, format!("{}: locked by another process ({e})", path.display()))
        })?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        file.flush()?;
        Ok(PidFile { path: path.to_owned(), _file: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The log: a file that SIGHUP makes us open anew, or standard error.
#[derive(Clone)]
pub struct Log {
    path: Option<PathBuf>,
    file: Arc<Mutex<Option<File>>>,
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: Option<&Path>) -> io::Result<Log> {
        let path = path.filter(|p| p.as_os_str() != "-").map(Path::to_owned);
        let log = Log { path, file: Arc::default() };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file anew, after a rotation.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(path) = &self.path {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let file = File::options().create(true).append(true).open(path)?;
            *self.file.lock() = Some(file);
        }
        Ok(())
    }
}

impl Write for Log {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut *self.file.lock() {
            Some(file) => file.write(data),
            None => io::stderr().write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets the process have as many files open as the system grants.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    for wanted in [1_048_576, 65_536] {
        if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) }).is_ok() {
            return;
        }
    }
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
