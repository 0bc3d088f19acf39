//! The options before, between and after the words of a command.

use std::path::PathBuf;
use std::time::Duration;

use super::console::Console;
use super::{Status, grammar};
use crate::client::Target;

/// Where glusterd listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/var/run/glusterd.socket";
/// glusterd's TCP port.
const PORT: u16 = 24007;
/// Where GlusterFS's programs log.
pub(super) const LOG_DIRECTORY: &str = "/var/log/glusterfs";
const STATEDUMP_DIRECTORY: &str = "/var/run/gluster";
/// The release whose command line this is: what scripts compare.
const COMPATIBLE_VERSION: &str = "10.3";

/// What was asked for beside the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Answer every question with yes.
    pub(super) script: bool,
    /// A failed command ends the shell.
    pub(super) errors_are_fatal: bool,
    pub(super) xml: bool,
    /// `heal info` writes no log.
    pub(super) no_log: bool,
    /// Like `force` on `volume create`.
    pub(super) ignore_warnings: bool,
    pub(super) remote_host: Option<String>,
    pub(super) socket: Option<PathBuf>,
    pub(super) log_file: Option<PathBuf>,
    pub(super) log_level: Option<String>,
    pub(super) timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            script: false,
            errors_are_fatal: false,
            xml: false,
            no_log: false,
            ignore_warnings: false,
            remote_host: None,
            socket: None,
            log_file: None,
            log_level: None,
            timeout: Duration::from_secs(120),
        }
    }
}

impl Options {
    /// The glusterd to ask: the socket, when one is given, before the host.
    pub(super) fn target(&self) -> Target {
        match (&self.socket, &self.remote_host) {
            (Some(path), _) => Target::Unix(path.clone()),
            (None, Some(host)) => Target::Tcp { host: host.clone(), port: PORT },
            (None, None) => Target::Unix(PathBuf::from(DEFAULT_SOCKET)),
        }
    }
}

/// Options and what is left: the words.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) options: Options,
    pub(super) words: Vec<String>,
}

enum Kind {
    Taken,
    /// `--`: the rest are words.
    End,
}

/// Takes the options out of `arguments`. `Err` is the status to end with: of an answer already given (0) or an error.
pub(super) fn parse(arguments: &[String], console: &mut Console) -> Result<Parsed, Status> {
    let mut options = Options::default();
    let mut words = Vec::new();
    // The options of `volume geo-replication A B config` are not ours.
    let at = |i: usize| arguments.get(i).map(String::as_str).unwrap_or_default();
    if at(1).starts_with("geo") && at(4).starts_with("co") {
        return Ok(Parsed { options, words: arguments.to_vec() });
    }
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(option) = argument.strip_prefix("--") else {
            words.push(argument.clone());
            continue;
        };
        if let Kind::End = take(option, &mut options, console)? {
            words.extend(arguments.by_ref().cloned());
        }
    }
    Ok(Parsed { options, words })
}

fn take(option: &str, options: &mut Options, console: &mut Console) -> Result<Kind, Status> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    match (name, value) {
        ("", None) => return Ok(Kind::End),
        ("help", None) => {
            console.out(grammar::help_text());
            return Err(0);
        }
        ("version", None) => {
            console.out(format_args!(
                "glusterfs {COMPATIBLE_VERSION}\nLadrillo {}: GlusterFS's commands, daemons and protocols in Rust\n\
                 Licensed under MIT or Apache-2.0, at your option, with no warranty.",
                env!("CARGO_PKG_VERSION")
            ));
            return Err(0);
        }
        ("print-logdir", None) => {
            console.out(LOG_DIRECTORY);
            return Err(0);
        }
        ("print-statedumpdir", None) => {
            console.out(STATEDUMP_DIRECTORY);
            return Err(0);
        }
        ("xml", None) => options.xml = true,
        ("nolog", None) => options.no_log = true,
        ("wignore", None) => options.ignore_warnings = true,
        ("wignore-partition", None) | ("inet6", _) => {}
        ("mode", Some("script")) => options.script = true,
        ("mode", Some("interactive")) => {}
        ("remote-host", Some(host)) => options.remote_host = Some(host.to_owned()),
        ("log-file", Some(file)) => options.log_file = Some(PathBuf::from(file)),
        ("timeout", Some(seconds)) => match seconds.parse::<u32>() {
            Ok(seconds) if seconds > 0 => options.timeout = Duration::from_secs(seconds.into()),
            _ => {
                console.err("timeout value should be a positive integer");
                return Err(2);
            }
        },
        ("log-level", Some(level)) if is_log_level(level) => options.log_level = Some(level.to_ascii_uppercase()),
        ("glusterd-sock", Some(path)) => options.socket = Some(PathBuf::from(path)),
        ("secure-mgmt", Some(value)) => match value {
            "off" | "no" | "false" | "0" | "disable" => {}
            "on" | "yes" | "true" | "1" | "enable" => {
                console.err("secure-mgmt: TLS to glusterd is not supported yet");
                return Err(-1);
            }
            _ => console.err("invalid secure-mgmt value (ignored)"),
        },
        _ => {
            console.out(format_args!("unrecognized option --{option}\n"));
            console.out(grammar::USAGE);
            return Err(1);
        }
    }
    Ok(Kind::Taken)
}

fn is_log_level(level: &str) -> bool {
    ["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "TRACE", "NONE"].iter().any(|l| l.eq_ignore_ascii_case(level))
}
