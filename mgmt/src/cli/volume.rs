//! `volume` commands.

pub(super) mod about;
mod bricks;
mod create;
mod locks;
mod options;
mod profile;
mod status;
mod top;

pub(super) use bricks::{add, remove};
pub(super) use create::create;
pub(super) use locks::clear_locks;
pub(super) use options::{get, reset, set};
pub(super) use profile::profile;
pub(super) use status::status;
pub(super) use top::{statedump, top};

use super::heal::{self, Info};
use super::{Session, Status, text, xml};
use crate::api::{Answer, Failure, Outcome, Request, VolumeInfo};
use crate::volume::create::LATE_REFUSAL;

/// Longest volume name GlusterFS looks for, bytes.
const NAME_BYTES: usize = 256;
/// GlusterFS's errno for a volume that is not there (`EG_NOVOL`).
const NO_VOLUME: i32 = 30806;
/// The volume other features keep their state in; stopping it deserves another question.
const SHARED_STORAGE: &str = "gluster_shared_storage";

/// Says how a command on one volume went: `volume start: gv0: success`.
fn report(
    session: &mut Session,
    what: &str,
    element: &'static str,
    name: &str,
    success: &str,
    outcome: Outcome,
) -> Status {
    match outcome {
        Ok(answer) if session.options.xml => {
            let text = match answer {
                Answer::Volume { name, id } => xml::volume(element, &name, &id),
                _ => xml::Document::new(0, 0, "").finish(),
            };
            session.console.write(text);
            0
        }
        Ok(_) => {
            session.console.out(format_args!("{what}: {name}: {success}"));
            0
        }
        Err(mut failure) if session.options.xml => {
            if element == "volCreate" && failure.op_errno != LATE_REFUSAL {
                // GlusterFS fills in no errno for early refusals of this one command.
                failure.op_errno = 0;
            }
            session.console.write(xml::failure(&failure).finish());
            0
        }
        Err(failure) => {
            let separator = if failure.message.is_empty() { "" } else { ": " };
            session.console.err(format_args!("{what}: {name}: failed{separator}{failure}"));
            failure.op_ret
        }
    }
}

/// `VOLNAME [force]` after the two words of a command.
fn name_and_force(words: &[String]) -> Option<(&String, bool)> {
    match words {
        [_, _, name] => Some((name, false)),
        [_, _, name, force] if force == "force" => Some((name, true)),
        _ => None,
    }
}

pub(super) fn start(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let Some((name, force)) = name_and_force(words) else { return session.usage(pattern) };
    match session.ask(&Request::VolumeStart { name: name.clone(), force }) {
        Ok(outcome) => report(session, "volume start", "volStart", name, "success", outcome),
        Err(status) => status,
    }
}

pub(super) fn stop(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let Some((name, force)) = name_and_force(words) else { return session.usage(pattern) };
    let question = if name == SHARED_STORAGE {
        "Stopping the shared storage volume(gluster_shared_storage), will affect features like snapshot scheduler, \
         geo-replication and NFS-Ganesha. Do you still want to continue?"
    } else {
        "Stopping volume will make its data inaccessible. Do you want to continue?"
    };
    if !session.confirm(question) {
        return 0;
    }
    match session.ask(&Request::VolumeStop { name: name.clone(), force }) {
        Ok(outcome) => report(session, "volume stop", "volStop", name, "success", outcome),
        Err(status) => status,
    }
}

pub(super) fn delete(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let [_, _, name] = words else { return session.usage(pattern) };
    let question = if name == SHARED_STORAGE {
        "Deleting the shared storage volume(gluster_shared_storage), will affect features like snapshot scheduler, \
         geo-replication and NFS-Ganesha. Do you still want to continue?"
    } else {
        "Deleting volume will erase all information about the volume. Do you want to continue?"
    };
    if !session.confirm(question) {
        return 0;
    }
    match session.ask(&Request::VolumeDelete { name: name.clone() }) {
        Ok(outcome) => report(session, "volume delete", "volDelete", name, "success", outcome),
        Err(status) => status,
    }
}

pub(super) fn list(session: &mut Session, _: &'static str, _: &[String]) -> Status {
    match session.ask(&Request::VolumeList) {
        Ok(Ok(Answer::Names(names))) => {
            if session.options.xml {
                session.console.write(xml::volume_list(&names));
            } else if names.is_empty() {
                session.console.err("No volumes present in cluster");
            } else {
                for name in names {
                    session.console.out(name);
                }
            }
            0
        }
        Ok(outcome) => failed(session, outcome, "Volume list failed"),
        Err(status) => status,
    }
}

/// A failure in its own words, or an answer that makes no sense.
fn failed(session: &mut Session, outcome: Outcome, otherwise: &str) -> Status {
    match outcome {
        Err(failure) if session.options.xml => {
            session.console.write(xml::failure(&failure).finish());
            0
        }
        Err(failure) if !failure.message.is_empty() => {
            session.console.err(&failure);
            failure.op_ret
        }
        _ => {
            session.console.err(otherwise);
            -1
        }
    }
}

pub(super) fn info(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let name = match words {
        [_, _] => None,
        [_, _, all] if all == "all" => None,
        [_, _, name] => Some(name),
        _ => return session.usage(pattern),
    };
    if name.is_some_and(|name| name.len() > NAME_BYTES) {
        session.console.out("Invalid volume name");
        session.console.out("Getting Volume information failed!");
        return -1;
    }
    match session.ask(&Request::VolumeInfo { name: name.cloned() }) {
        Ok(Ok(Answer::VolumeInfo(volumes))) => show_info(session, &volumes),
        Ok(Err(failure)) if session.options.xml => {
            let missing = is_missing(&failure);
            let document = if missing {
                xml::Document::new(-1, NO_VOLUME, "Volume does not exist")
            } else {
                xml::failure(&failure)
            };
            session.console.write(xml::volume_info(document, &[]));
            0
        }
        Ok(Err(failure)) => {
            match name {
                Some(name) if is_missing(&failure) => {
                    session.console.err(format_args!("Volume {name} does not exist"));
                }
                _ => session.console.err(failure),
            }
            -1
        }
        Ok(Ok(_)) => {
            session.console.out("Getting Volume information failed!");
            -1
        }
        Err(status) => status,
    }
}

fn is_missing(failure: &Failure) -> bool {
    failure.op_errno == NO_VOLUME || failure.message.ends_with("does not exist") || failure.message.is_empty()
}

fn show_info(session: &mut Session, volumes: &[VolumeInfo]) -> Status {
    if session.options.xml {
        session.console.write(xml::volume_info(xml::Document::new(0, 0, ""), volumes));
    } else if volumes.is_empty() {
        session.console.err("No volumes present");
    } else {
        for volume in volumes {
            session.console.write(text::volume_info(volume));
        }
    }
    0
}

pub(super) fn heal(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((name, rest)) = words.get(2..).and_then(|w| w.split_first()) else { return session.usage(pattern) };
    match rest {
        [] => launch(session, name, false),
        ["full"] => launch(session, name, true),
        ["info"] => heal::info(session, name, Info::Entries),
        ["info", "summary"] => heal::info(session, name, Info::Summary),
        ["info", "split-brain"] => heal::info(session, name, Info::SplitBrain),
        ["enable"] => switch(session, name, true),
        ["disable"] => switch(session, name, false),
        ["split-brain", "bigger-file" | "latest-mtime", _] => heal::order(session, name, rest),
        ["split-brain", "source-brick", brick] | ["split-brain", "source-brick", brick, _] => {
            if !is_brick(session, brick) {
                return session.usage(pattern);
            }
            heal::order(session, name, rest)
        }
        ["statistics"] => session.not_supported("volume heal statistics"),
        ["statistics", "heal-count"] => heal::count(session, name, None),
        ["statistics", "heal-count", "replica", brick] => {
            if !is_brick(session, brick) {
                return session.usage(pattern);
            }
            heal::count(session, name, Some(*brick))
        }
        ["granular-entry-heal", "enable"] => match heal::order(session, name, &["granular-entry-heal"]) {
            0 => set_granular(session, name, true),
            status => status,
        },
        ["granular-entry-heal", "disable"] => set_granular(session, name, false),
        _ => session.usage(pattern),
    }
}

/// Whether the word is `HOST:/PATH`; says so if not.
fn is_brick(session: &mut Session, word: &str) -> bool {
    let is_brick = super::words::brick(word).is_some();
    if !is_brick {
        session.console.err(format_args!("Wrong brick type: {word}, use <HOSTNAME>:<export-dir-abs-path>"));
    }
    is_brick
}

fn set_granular(session: &mut Session, name: &str, on: bool) -> Status {
    let what = format!("{} granular entry heal on volume {name}", if on { "Enable" } else { "Disable" });
    let outcome = session.ask(&Request::GranularEntryHeal { name: name.to_owned(), on });
    say_heal(session, &what, "", outcome)
}

fn launch(session: &mut Session, name: &str, full: bool) -> Status {
    let kind = if full { "full" } else { "index" };
    let what = format!("Launching heal operation to perform {kind} self heal on volume {name}");
    let outcome = session.ask(&Request::VolumeHeal { name: name.to_owned(), full });
    say_heal(session, &what, "\nUse heal info commands to check status.", outcome)
}

fn switch(session: &mut Session, name: &str, on: bool) -> Status {
    let what = format!("{} heal on volume {name}", if on { "Enable" } else { "Disable" });
    let value = if on { "on" } else { "off" };
    let options = vec![("cluster.self-heal-daemon".to_owned(), value.to_owned())];
    let outcome = session.ask(&Request::VolumeSet { name: name.to_owned(), options });
    say_heal(session, &what, "", outcome)
}

fn say_heal(session: &mut Session, what: &str, advice: &str, outcome: Result<Outcome, Status>) -> Status {
    match outcome {
        Ok(Ok(_)) => {
            session.console.out(format_args!("{what} has been successful {advice}"));
            0
        }
        Ok(Err(failure)) => {
            if !failure.message.is_empty() {
                session.console.err(format_args!("{what} has been unsuccessful:\n{failure}"));
            }
            failure.op_ret
        }
        Err(status) => status,
    }
}
