//! `peer probe`, `detach`, `status`; `pool list`.

use super::words::is_internet_address;
use super::{Session, Status, text, xml};
use crate::api::{Answer, Outcome, Request};

const DETACH_QUESTION: &str = "All clients mounted through the peer which is getting detached need to be remounted \
using one of the other active peers in the trusted storage pool to ensure client gets notification on any changes done \
on the gluster configuration and if the same has been done do you want to proceed?";

pub(super) fn probe(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let [_, _, host] = words else { return session.usage(pattern) };
    if !is_internet_address(host) {
        session.console.out(format_args!("{host} is an invalid address"));
        return session.usage(pattern);
    }
    let outcome = match session.ask(&Request::PeerProbe { host: host.clone() }) {
        Ok(outcome) => outcome,
        Err(status) => return status,
    };
    report(session, "peer probe", outcome)
}

pub(super) fn detach(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let (host, force) = match words {
        [_, _, host] => (host, false),
        [_, _, host, force] if force == "force" => (host, true),
        _ => return session.usage(pattern),
    };
    if !session.confirm(DETACH_QUESTION) {
        return 0;
    }
    let outcome = match session.ask(&Request::PeerDetach { host: host.clone(), force }) {
        Ok(outcome) => outcome,
        Err(status) => return status,
    };
    report(session, "peer detach", outcome)
}

/// GlusterFS's own numbers for a probe that had nothing to do.
fn note_errno(note: &str) -> i32 {
    if note.contains("localhost not needed") {
        1
    } else if note.contains("already in peer list") {
        2
    } else {
        0
    }
}

fn report(session: &mut Session, what: &str, outcome: Outcome) -> Status {
    match outcome {
        Ok(answer) => {
            let note = match answer {
                Answer::Done { note } => note,
                _ => None,
            };
            let note = note.unwrap_or_else(|| "success".to_owned());
            if session.options.xml {
                session.console.write(xml::Document::new(0, note_errno(&note), "").text("output", &note).finish());
            } else {
                session.console.out(format_args!("{what}: {note}"));
            }
            0
        }
        Err(failure) if session.options.xml => {
            session.console.write(xml::failure(&failure).finish());
            0
        }
        Err(failure) => {
            session.console.err(format_args!("{what}: failed: {failure}"));
            failure.op_ret
        }
    }
}

pub(super) fn status(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    list(session, pattern, words, "peer status", &Request::PeerStatus)
}

pub(super) fn pool_list(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    list(session, pattern, words, "pool list", &Request::PoolList)
}

fn list(session: &mut Session, pattern: &str, words: &[String], what: &str, request: &Request) -> Status {
    if words.len() != 2 {
        return session.usage(pattern);
    }
    match session.ask(request) {
        Ok(Ok(Answer::Peers(peers))) => {
            let text = if session.options.xml {
                xml::peers(&peers)
            } else if what == "pool list" {
                text::pool_list(&peers)
            } else {
                text::peer_status(&peers)
            };
            session.console.write(text);
            0
        }
        Ok(Err(failure)) if session.options.xml => {
            session.console.write(xml::failure(&failure).finish());
            0
        }
        Ok(outcome) => {
            if let Err(failure) = outcome
                && !failure.message.is_empty()
            {
                session.console.err(failure);
            }
            session.console.err(format_args!("{what}: failed"));
            -1
        }
        Err(status) => status,
    }
}
