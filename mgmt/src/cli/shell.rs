//! `gluster` without a command: lines from a terminal or a script.

use super::{Session, Status, words};

/// Reads and runs commands until the end of input, `quit` or `exit`. From a script (no terminal) the first failure ends
/// it and nothing is asked.
pub(super) fn run(session: &mut Session, terminal: bool) -> Status {
    let prompt = if terminal { "gluster> " } else { "" };
    if !terminal {
        session.options.script = true;
        session.options.errors_are_fatal = true;
    }
    session.console.err("Welcome to gluster prompt, type 'help' to see the available commands.");
    let mut status = 0;
    loop {
        session.console.write(prompt);
        let Some(line) = session.console.line() else {
            return if terminal { 0 } else { status };
        };
        let line = words::split(&line);
        let Some(first) = line.first() else { continue };
        if line.len() == 1 && (first == "quit" || first == "exit") {
            return 0;
        }
        status = session.process(&line);
        if status != 0 && session.options.errors_are_fatal {
            return status;
        }
    }
}
