//! `volume clear-locks`.

use super::super::{Session, Status};
use crate::api::{Answer, Request};

pub(in super::super) fn clear_locks(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let words: Vec<&str> = words.iter().skip(2).map(String::as_str).collect();
    let (name, path, kind, lock, only) = match words.as_slice() {
        [
            name,
            path,
            "kind",
            kind @ ("blocked" | "granted" | "all"),
            lock @ ("inode" | "entry" | "posix"),
            rest @ ..,
        ] if rest.len() <= 1 => (name, path, kind, lock, rest.first()),
        [_, _, _, _, _] | [_, _, _, _, _, _] => {
            session.console.out("Error parsing options");
            return session.usage(pattern);
        }
        _ => return session.usage(pattern),
    };
    let request = Request::ClearLocks {
        name: (*name).to_owned(),
        path: (*path).to_owned(),
        kind: (*kind).to_owned(),
        lock: (*lock).to_owned(),
        only: only.map(|only| (*only).to_owned()),
    };
    match session.ask(&request) {
        Ok(Ok(Answer::Text(report))) => {
            session.console.out("Volume clear-locks successful");
            session.console.out(report);
            0
        }
        Ok(Ok(_)) => {
            session.console.err("Possibly no locks cleared");
            0
        }
        Ok(Err(failure)) => {
            session.console.err("Volume clear-locks unsuccessful");
            session.console.err(&failure);
            failure.op_ret
        }
        Err(status) => status,
    }
}
