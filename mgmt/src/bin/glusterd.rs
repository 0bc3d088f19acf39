//! glusterd: the management daemon.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
use ladrillo_mgmt::daemon::config::{Arguments, Config};
use ladrillo_mgmt::daemon::run;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.version {
        println!("glusterfs 10.3\nLadrillo {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match start(&arguments) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("glusterd: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<ExitCode, String> {
    let config = Config::of(arguments)?;
    let pid_file = absolute(arguments.pid_file.clone())?;
    let log_file = absolute(config.log_file(arguments))?;
    let level = level(&arguments.log_level)?;
    // Fails here rather than in the background.
    let log = log_file.as_deref().map(open_log).transpose()?;
    let ready = if arguments.no_daemon || arguments.debug { Ready::Foreground } else { go_to_background()? };
    let ready = match ready {
        Ready::Parent(code) => return Ok(code),
        other => other,
    };
    start_log(log, if arguments.debug { LevelFilter::DEBUG } else { level });
    let mut ready = Some(ready);
    let outcome = run(config, &mut || {
        if let Some(path) = &pid_file {
            std::fs::write(path, format!("{}\n", std::process::id()))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        if let Some(ready) = ready.take() {
            ready.say(Ok(()));
        }
        Ok(())
    });
    match outcome {
        Ok(()) => {
            if let Some(path) = &pid_file {
                let _ = std::fs::remove_file(path);
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            tracing::error!("{reason}");
            if let Some(ready @ Ready::Child(_)) = ready.take() {
                ready.say(Err(&reason));
                return Ok(ExitCode::FAILURE);
            }
            Err(reason)
        }
    }
}

/// Whom to tell that glusterd listens.
enum Ready {
    Foreground,
    /// This is the first process; it ends with that code.
    Parent(ExitCode),
    /// This is the daemon; the first process waits at the pipe.
    Child(std::fs::File),
}

impl Ready {
    fn say(self, outcome: Result<(), &str>) {
        if let Ready::Child(mut pipe) = self {
            // The waiting process may have been killed; the daemon goes on.
            let _ = match outcome {
                Ok(()) => pipe.write_all(b"\0"),
                Err(reason) => pipe.write_all(reason.as_bytes()),
            };
            if outcome.is_ok() {
                let_go_of_terminal();
            }
        }
    }
}

/// Splits the process: the first waits for the second's word, the second becomes a daemon.
fn go_to_background() -> Result<Ready, String> {
    let (read, write) = std::io::pipe().map_err(|error| format!("pipe: {error}"))?;
    // SAFETY: the process has one thread, so the child may go on as a whole program.
    match unsafe { libc::fork() } {
        -1 => Err(format!("fork: {}", std::io::Error::last_os_error())),
        0 => {
            drop(read);
            rustix::process::setsid().map_err(|error| format!("setsid: {error}"))?;
            rustix::process::chdir("/").map_err(|error| format!("chdir: {error}"))?;
            Ok(Ready::Child(OwnedFd::from(write).into()))
        }
        _ => {
            drop(write);
            let mut said = Vec::new();
            let heard = read.take(64 << 10).read_to_end(&mut said);
            Ok(Ready::Parent(match (heard, said.as_slice()) {
                (Ok(_), [0]) => ExitCode::SUCCESS,
                (Ok(_), []) => {
                    eprintln!("glusterd: the daemon ended before it listened; see its log");
                    ExitCode::FAILURE
                }
                (Ok(_), reason) => {
                    eprintln!("glusterd: {}", String::from_utf8_lossy(reason));
                    ExitCode::FAILURE
                }
                (Err(error), _) => {
                    eprintln!("glusterd: waiting for the daemon: {error}");
                    ExitCode::FAILURE
                }
            }))
        }
    }
}

/// Puts /dev/null in place of the terminal, so that who started us is not kept waiting for our output to end.
fn let_go_of_terminal() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        for target in 0..=2 {
            // SAFETY: both are file descriptors of ours; 0, 1 and 2 are owned by nobody in particular.
            unsafe { libc::dup2(null.as_raw_fd(), target) };
        }
    }
}

fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>, String> {
    path.map(|path| std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))).transpose()
}

fn open_log(path: &Path) -> Result<std::fs::File, String> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| format!("log file {}: {error}", path.display()))
}

fn level(name: &str) -> Result<LevelFilter, String> {
    Ok(match name.to_ascii_uppercase().as_str() {
        "NONE" => LevelFilter::OFF,
        "CRITICAL" | "ERROR" => LevelFilter::ERROR,
        "WARNING" => LevelFilter::WARN,
        "INFO" => LevelFilter::INFO,
        "DEBUG" => LevelFilter::DEBUG,
        "TRACE" => LevelFilter::TRACE,
        _ => return Err(format!("log level {name}: DEBUG, INFO, WARNING, ERROR, CRITICAL, TRACE or NONE expected")),
    })
}

fn start_log(log: Option<std::fs::File>, level: LevelFilter) {
    use tracing_subscriber::{EnvFilter, fmt};
    // Raft tells much of what is not our operator's concern.
    let filter = EnvFilter::new(format!("{level},openraft=error"));
    let builder = fmt().with_env_filter(filter).with_target(false);
    match log {
        Some(file) => builder.with_ansi(false).with_writer(Mutex::new(file)).init(),
        None => builder.with_writer(std::io::stderr).init(),
    }
}
