//! The `gluster` command: GlusterFS's grammar, questions, text, XML and exit statuses.
//!
//! What the words mean and what is printed follow GlusterFS 10.3's `cli/`; the whole is compared with what that program
//! prints by `tests/tests/command_line.rs`.

mod backend;
mod commands;
mod console;
pub(crate) mod fuzzing;
mod grammar;
mod heal;
mod log;
mod options;
mod peer;
mod shell;
mod system;
mod text;
mod volume;
mod words;
mod xml;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::time::Duration;

use backend::{Backend, Glusterd};
use console::Console;
use grammar::{Found, Tree};
use options::{Options, Parsed};

use crate::api::{Outcome, Request};

/// A status as GlusterFS's functions return it: 0 for success; the process exits with its negative, in 8 bits.
type Status = i32;

/// What runs a command: with its pattern, for the usage text, and all its words.
type Handler = fn(&mut Session, &'static str, &[String]) -> Status;

/// Everything a command needs.
struct Session<'a> {
    options: Options,
    console: Console<'a>,
    backend: &'a mut dyn Backend,
    tree: Tree,
}

/// Runs `gluster ARGUMENTS` (without the program's name) on this process's standard streams. Returns its exit status.
pub fn run(arguments: &[String]) -> u8 {
    let mut console = Console::standard();
    let (options, words) = match options::parse(arguments, &mut console) {
        Ok(Parsed { options, words }) => (options, words),
        Err(status) => return exit_status(status),
    };
    let mut backend = Glusterd::new(options.target());
    let log = log::Log::open(&options, &mut console);
    let mut session = Session { options, console, backend: &mut backend, tree: Tree::new() };
    let status = if words.is_empty() {
        let terminal = io::stdin().is_terminal();
        shell::run(&mut session, terminal)
    } else {
        session.process(&words)
    };
    log.finish(status);
    exit_status(status)
}

/// `exit(-status)` of C, in the 8 bits a process has.
fn exit_status(status: Status) -> u8 {
    status.wrapping_neg().to_le_bytes()[0]
}

impl Session<'_> {
    /// One command.
    fn process(&mut self, words: &[String]) -> Status {
        let command = match self.tree.find(words) {
            Found::Command(command) => command,
            Found::Unknown { word, position } => {
                self.console.out(format_args!("unrecognized word: {word} (position {position})\n"));
                self.console.out(grammar::USAGE);
                return -1;
            }
            Found::Incomplete => {
                self.console.out("unrecognized command\n");
                self.console.out(grammar::USAGE);
                return -1;
            }
        };
        if command.needs_glusterd() && !self.backend.reachable() {
            return self.unreachable();
        }
        (command.run)(self, command.pattern, words)
    }

    fn unreachable(&mut self) -> Status {
        self.console.out("Connection failed. Please check if gluster daemon is operational.");
        -1
    }

    /// Asks glusterd. `Err` is the status of a command that got no answer, which has been said.
    fn ask(&mut self, request: &Request) -> Result<Outcome, Status> {
        let timeout = match request {
            Request::VolumeHeal { .. } => self.options.timeout.max(Duration::from_secs(600)),
            _ => self.options.timeout,
        };
        self.backend.call(request, timeout).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => {
                self.console.out("Error : Request timed out");
                -1
            }
            io::ErrorKind::InvalidData => {
                self.console.err(format_args!("{error}"));
                -1
            }
            _ => self.unreachable(),
        })
    }

    fn usage(&mut self, pattern: &str) -> Status {
        self.console.err(format_args!("\nUsage:\n{pattern}\n"));
        -1
    }

    /// Yes, unless the operator says no; never asked with `--mode=script`.
    fn confirm(&mut self, question: &str) -> bool {
        self.options.script || self.console.confirm(question)
    }

    /// The answer to what GlusterFS can do and we cannot yet.
    fn not_supported(&mut self, what: &str) -> Status {
        let message = format!("{what}: not supported yet");
        if self.options.xml {
            // EOPNOTSUPP.
            self.console.write(xml::Document::new(-1, 95, &message).finish());
        }
        self.console.err(message);
        -1
    }
}
