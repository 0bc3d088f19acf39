//! `volume add-brick`, `remove-brick`.

use super::super::words::brick;
use super::super::{Session, Status, xml};
use crate::api::{BrickName, Outcome, Request};

const FORCE_QUESTION: &str = "Remove-brick force will not migrate files from the removed bricks, so they will no longer be \
available on the volume.\nDo you want to continue?";
const SHARED_QUESTION: &str = "Removing brick from the shared storage volume(gluster_shared_storage), will affect features \
like snapshot scheduler, geo-replication and NFS-Ganesha. Do you still want to continue?";

/// Bricks, `None` after a word that is none has been named.
fn bricks(session: &mut Session, words: &[String]) -> Option<Vec<BrickName>> {
    let mut named: Vec<BrickName> = Vec::new();
    for word in words {
        let Some(parsed) = brick(word) else {
            session.console.err(format_args!("Wrong brick type: {word}, use <HOSTNAME>:<export-dir-abs-path>"));
            return None;
        };
        if named.contains(&parsed) {
            session.console.err(format_args!("Found duplicate exports {word}"));
            return None;
        }
        named.push(parsed);
    }
    Some(named)
}

/// `replica N`, and what follows.
fn replica(words: &[String]) -> Option<(Option<u32>, &[String])> {
    match words {
        [word, count, rest @ ..] if word == "replica" => Some((Some(count.parse().ok().filter(|n| *n >= 1)?), rest)),
        rest => Some((None, rest)),
    }
}

pub(in super::super) fn add(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let (Some(name), Some(rest)) = (words.get(2), words.get(3..)) else { return session.usage(pattern) };
    let Some((replica, mut rest)) = replica(rest) else { return session.usage(pattern) };
    if rest.first().is_some_and(|word| word == "arbiter") {
        return session.not_supported("volume add-brick with an arbiter");
    }
    let force = rest.last().is_some_and(|word| word == "force");
    if force {
        rest = rest.split_last().map_or(rest, |(_, before)| before);
    }
    if rest.is_empty() {
        return session.usage(pattern);
    }
    let Some(bricks) = bricks(session, rest) else { return session.usage(pattern) };
    let request =
        Request::AddBricks { name: name.clone(), replica, bricks, force: force || session.options.ignore_warnings };
    match session.ask(&request) {
        Ok(outcome) => say_add(session, outcome),
        Err(status) => status,
    }
}

fn say_add(session: &mut Session, outcome: Outcome) -> Status {
    match outcome {
        Ok(_) if session.options.xml => {
            let document = xml::Document::new(0, 0, "");
            session.console.write(xml::sentence(document, "volAddBrick", "Add Brick successful"));
            0
        }
        Ok(_) => {
            session.console.out("volume add-brick: success");
            0
        }
        Err(failure) if session.options.xml => {
            session.console.write(xml::sentence(xml::failure(&failure), "volAddBrick", &failure.message));
            0
        }
        Err(failure) => {
            session.console.err(format_args!("volume add-brick: failed: {failure}"));
            failure.op_ret
        }
    }
}

pub(in super::super) fn remove(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let (Some(name), Some(rest)) = (words.get(2), words.get(3..)) else { return session.usage(pattern) };
    let Some((replica, rest)) = replica(rest) else { return session.usage(pattern) };
    let Some((command, rest)) = rest.split_last() else { return session.usage(pattern) };
    match command.as_str() {
        "force" => {}
        "start" | "stop" | "status" | "commit" => {
            return session.not_supported(&format!("volume remove-brick {command}"));
        }
        _ => return session.usage(pattern),
    }
    let Some(bricks) = bricks(session, rest) else { return session.usage(pattern) };
    if bricks.is_empty() {
        session.console.err("No bricks specified");
        return session.usage(pattern);
    }
    let question = if name == super::SHARED_STORAGE { SHARED_QUESTION } else { FORCE_QUESTION };
    if !session.confirm(question) {
        return 0;
    }
    match session.ask(&Request::RemoveBricks { name: name.clone(), replica, bricks }) {
        Ok(outcome) if session.options.xml => {
            let (document, status) = match &outcome {
                Ok(_) => (xml::Document::new(0, 0, ""), 0),
                Err(failure) => (xml::failure(failure), 0),
            };
            session.console.write(document.open("volRemoveBrick").finish());
            status
        }
        Ok(Ok(_)) => {
            session.console.out("volume remove-brick commit force: success");
            0
        }
        Ok(Err(failure)) => {
            session.console.err(format_args!("volume remove-brick commit force: failed: {failure}"));
            failure.op_ret
        }
        Err(status) => status,
    }
}
