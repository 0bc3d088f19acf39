//! The tree of command words, and the help texts made from it.

use super::commands::COMMANDS;
use super::{Handler, Session, Status, words};

/// Printed after a word that is not known.
pub(super) const USAGE: &str = " Usage: gluster [options] <help> <peer> <pool> <volume>\n Options:\n \
--help  Shows the help information\n --version  Shows the version\n --print-logdir  Shows the log directory\n \
--print-statedumpdir Shows the state dump directory\n";

/// Which help a command is listed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Peer,
    Volume,
    Bitrot,
    Quota,
    Snapshot,
    Global,
    System,
    /// In none: `help`, `quit`, `exit`.
    Shell,
}

/// A command.
pub(super) struct Command {
    pub(super) group: Group,
    /// Its words, then what follows them; what usage texts show.
    pub(super) pattern: &'static str,
    /// Empty for one that no help lists.
    pub(super) description: &'static str,
    pub(super) run: Handler,
}

static SHELL_COMMANDS: &[Command] = &[
    Command { group: Group::Shell, pattern: "quit", description: "quit", run: quit },
    Command { group: Group::Shell, pattern: "exit", description: "exit", run: quit },
    Command { group: Group::Shell, pattern: "help [all]", description: "display help for command classes", run: help },
];

impl Command {
    /// The words every use of it begins with: those before the first bracket.
    fn words(&self) -> impl Iterator<Item = &'static str> {
        let fixed = self.pattern.find(['<', '>', '[', ']', '{', '}', '(', ')', '|']).unwrap_or(self.pattern.len());
        self.pattern.get(..fixed).unwrap_or_default().split(' ').filter(|w| !w.is_empty())
    }

    /// Whether glusterd must be there before its words are even looked at.
    pub(super) fn needs_glusterd(&self) -> bool {
        self.group != Group::Shell && self.words().last() != Some("help")
    }
}

/// What a line of words turned out to be.
pub(super) enum Found {
    Command(&'static Command),
    Unknown {
        word: String,
        /// Counted from 0.
        position: usize,
    },
    /// Good words, but no command yet.
    Incomplete,
}

#[derive(Default)]
struct Word {
    text: &'static str,
    next: Vec<Word>,
    command: Option<&'static Command>,
}

/// The words, by what may follow what.
pub(super) struct Tree {
    root: Word,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let mut root = Word::default();
        for command in COMMANDS.iter().chain(SHELL_COMMANDS) {
            let mut at = &mut root;
            for text in command.words() {
                let index = match at.next.iter().position(|w| w.text == text) {
                    Some(index) => index,
                    None => {
                        at.next.push(Word { text, ..Word::default() });
                        at.next.len() - 1
                    }
                };
                at = &mut at.next[index];
            }
            at.command = Some(command);
        }
        Tree { root }
    }

    /// Follows words, each of which may be shortened to what only one word begins with, to the first command.
    pub(super) fn find(&self, typed: &[String]) -> Found {
        let mut at = &self.root;
        for (position, word) in typed.iter().enumerate() {
            let next = words::unambiguous(word, at.next.iter().map(|w| w.text));
            let Some(next) = next.and_then(|text| at.next.iter().find(|w| w.text == text)) else {
                return Found::Unknown { word: word.clone(), position };
            };
            if let Some(command) = next.command {
                return Found::Command(command);
            }
            at = next;
        }
        Found::Incomplete
    }
}

fn group(group: Group) -> Vec<&'static Command> {
    COMMANDS.iter().filter(|c| c.group == group && !c.description.is_empty()).collect()
}

/// `help`: the help commands of each group.
pub(super) fn help_text() -> String {
    use Group::{Bitrot, Global, Peer, Quota, Snapshot, Volume};
    let mut text = String::new();
    for name in [Peer, Volume, Bitrot, Quota, Snapshot, Global] {
        for command in group(name).iter().filter(|c| c.pattern.contains("help")) {
            text += &format!(" {:<25}- {}\n", command.pattern, command.description);
        }
    }
    text
}

fn list(session: &mut Session, name: Group) {
    let mut commands = group(name);
    commands.sort_by_key(|c| c.pattern);
    for command in commands {
        session.console.out(format_args!("{} - {}", command.pattern, command.description));
    }
}

fn titled(session: &mut Session, name: Group, title: &str, rule: usize) -> Status {
    session.console.out(format_args!("\ngluster {title} commands\n{}\n", "=".repeat(rule)));
    list(session, name);
    session.console.out("\n");
    0
}

fn help(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    if words.len() == 2 {
        for run in [peer_help, volume_help, bitrot_help, quota_help, snapshot_help, global_help] {
            run(session, pattern, words);
        }
    } else {
        session.console.write(help_text());
    }
    session.console.out("\n");
    0
}

/// Words after `quit` or `exit` do not keep it from ending; the shell has taken the plain ones.
fn quit(_: &mut Session, _: &'static str, _: &[String]) -> Status {
    std::process::exit(0)
}

pub(super) fn peer_help(session: &mut Session, _: &'static str, _: &[String]) -> Status {
    titled(session, Group::Peer, "peer", 22)
}

pub(super) fn volume_help(session: &mut Session, _: &'static str, _: &[String]) -> Status {
    titled(session, Group::Volume, "volume", 24)
}

pub(super) fn bitrot_help(session: &mut Session, _: &'static str, _: &[String]) -> Status {
    titled(session, Group::Bitrot, "bitrot", 24)
}

pub(super) fn quota_help(session: &mut Session, _: &'static str, _: &[String]) -> Status {
    titled(session, Group::Quota, "quota", 23)
}

pub(super) fn snapshot_help(session: &mut Session, _: &'static str, _: &[String]) -> Status {
    titled(session, Group::Snapshot, "snapshot", 25)
}

pub(super) fn global_help(session: &mut Session, _: &'static str, _: &[String]) -> Status {
    titled(session, Group::Global, "global", 24)
}

pub(super) fn system_help(session: &mut Session, _: &'static str, _: &[String]) -> Status {
    list(session, Group::System);
    0
}

/// `volume bitrot ...`: its words end before `help`, so that one comes here too.
pub(super) fn bitrot(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    with_help(session, pattern, words, bitrot_help)
}

/// `volume quota ...`
pub(super) fn quota(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    with_help(session, pattern, words, quota_help)
}

fn with_help(session: &mut Session, pattern: &'static str, words: &[String], help: Handler) -> Status {
    match words.get(2).map(String::as_str) {
        Some("help") if words.len() == 3 => help(session, pattern, words),
        None => session.usage(pattern),
        Some(_) => unsupported(session, pattern, words),
    }
}

/// A command of GlusterFS's that we do not have yet.
pub(super) fn unsupported(session: &mut Session, pattern: &'static str, _: &[String]) -> Status {
    let name: Vec<&str> = pattern
        .split(' ')
        .take_while(|w| w.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == ':'))
        .collect();
    session.not_supported(&name.join(" "))
}
