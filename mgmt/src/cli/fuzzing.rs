//! `gluster` with any words, and a glusterd that never answers.

use std::io;
use std::time::Duration;

use super::backend::Backend;
use super::console::Console;
use super::grammar::{Found, Tree};
use super::options::{self, Parsed};
use super::{Session, exit_status};
use crate::api::{Outcome, Request};

struct Nobody;

impl Backend for Nobody {
    fn reachable(&mut self) -> bool {
        true
    }

    fn call(&mut self, _: &Request, _: Duration) -> io::Result<Outcome> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

/// A command line: arguments stand between NULs, as in /proc. Commands that end the process or start another are only
/// looked up.
pub fn command_line(data: &[u8]) {
    let arguments: Vec<String> =
        data.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
    let mut console = Console::new(io::sink(), io::sink(), &b"y\ny\nn\n"[..]);
    let Ok(Parsed { options, words }) = options::parse(&arguments, &mut console) else { return };
    let tree = Tree::new();
    let apart = |pattern: &str| ["quit", "exit", "volume heal"].iter().any(|start| pattern.starts_with(start));
    if words.is_empty() || matches!(tree.find(&words), Found::Command(command) if apart(command.pattern)) {
        return;
    }
    let status = Session { options, console, backend: &mut Nobody, tree }.process(&words);
    let _ = exit_status(status);
}
