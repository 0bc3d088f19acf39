//! `system::` commands, meant for programs.

use super::{Session, Status, xml};
use crate::api::{Answer, Request};

pub(super) fn getspec(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let [_, _, key] = words else { return session.usage(pattern) };
    match session.ask(&Request::GetSpec { key: key.clone() }) {
        Ok(Ok(Answer::Text(volfile))) => {
            session.console.out(volfile);
            0
        }
        Ok(Err(failure)) => {
            // GlusterFS only exits with an error here; the reason is worth a line on standard error.
            session.console.err(failure);
            -1
        }
        Ok(Ok(_)) => -1,
        Err(status) => status,
    }
}

pub(super) fn getwd(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    if words.len() != 2 {
        return session.usage(pattern);
    }
    match session.ask(&Request::GetWorkingDirectory) {
        Ok(Ok(Answer::Text(directory))) => {
            session.console.out(directory);
            0
        }
        Ok(_) => {
            session.console.err("getwd failed");
            -1
        }
        Err(status) => status,
    }
}

pub(super) fn uuid_get(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    if words.len() != 3 {
        return session.usage(pattern);
    }
    match session.ask(&Request::UuidGet) {
        Ok(Ok(Answer::Text(uuid))) => {
            if session.options.xml {
                let document = xml::Document::new(0, 0, "").open("uuidGenerate").text("uuid", &uuid).close();
                session.console.write(document.finish());
            } else {
                session.console.out(format_args!("UUID: {uuid}"));
            }
            0
        }
        Ok(Err(failure)) if session.options.xml => {
            session.console.write(xml::failure(&failure).finish());
            0
        }
        Ok(Err(failure)) if !failure.message.is_empty() => {
            session.console.err(&failure);
            failure.op_ret
        }
        Ok(_) => {
            session.console.err("Get uuid was unsuccessful");
            -1
        }
        Err(status) => status,
    }
}
