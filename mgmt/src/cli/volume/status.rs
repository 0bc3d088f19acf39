//! `volume status`.

use super::super::words::unambiguous;
use super::super::{Session, Status, text, xml};
use crate::api::{Answer, Outcome, ProcessStatus, Request, VolumeStatus};

/// What can be asked about bricks beside whether they run.
const DETAILS: [&str; 8] = ["detail", "mem", "clients", "fd", "inode", "callpool", "tasks", "client-list"];

/// Which processes to show.
enum Of<'w> {
    All,
    SelfHeal,
    /// `HOST:PATH`
    Brick(&'w str),
    /// Only the tasks.
    Tasks,
}

pub(in super::super) fn status(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let rest: Vec<&str> = words.iter().skip(2).map(String::as_str).collect();
    let wrong = |session: &mut Session, message: String| {
        session.console.err(message);
        session.usage(pattern)
    };
    let (name, of) = match rest.as_slice() {
        [] | ["all"] => (None, Of::All),
        [name] => (Some(*name), Of::All),
        [name, what] => {
            let name = (*name != "all").then_some(*name);
            match (name, unambiguous(what, DETAILS), *what) {
                (_, Some("tasks"), _) => (name, Of::Tasks),
                (_, Some(detail), _) => return session.not_supported(&format!("volume status {detail}")),
                (None, None, what) => return wrong(session, format!("{what} is not a valid status option")),
                (_, None, "shd") => (name, Of::SelfHeal),
                (_, None, "nfs" | "quotad" | "snapd" | "bitd" | "scrub") => {
                    return session.not_supported(&format!("volume status {what}"));
                }
                (_, None, brick) => (name, Of::Brick(brick)),
            }
        }
        ["all", _, _] => return wrong(session, "Cannot specify brick/nfs for \"all\"".to_owned()),
        [_, _, what] => match unambiguous(what, DETAILS) {
            Some(detail) => return session.not_supported(&format!("volume status {detail}")),
            None => return wrong(session, format!("{what} is not a valid status option")),
        },
        _ => return session.usage(pattern),
    };
    match name {
        Some(name) => one(session, name, &of),
        None => all(session, &of),
    }
}

fn ask(session: &mut Session, name: &str) -> Result<Outcome, Status> {
    session.ask(&Request::VolumeStatus { name: Some(name.to_owned()) })
}

fn one(session: &mut Session, name: &str, of: &Of) -> Status {
    let volumes = match ask(session, name) {
        Ok(Ok(Answer::Status(volumes))) => volumes,
        Ok(outcome) => {
            let failure = outcome.err();
            let message = failure.as_ref().map(|f| f.message.clone()).filter(|m| !m.is_empty());
            let message = message.unwrap_or_else(|| "Unable to obtain volume status information.".to_owned());
            return match failure {
                Some(failure) if session.options.xml => {
                    session.console.write(xml::sentence(xml::failure(&failure), "volStatus", &message));
                    0
                }
                _ => {
                    session.console.err(message);
                    -1
                }
            };
        }
        Err(status) => return status,
    };
    let volumes: Vec<VolumeStatus> = volumes.iter().map(|v| filtered(v, of)).collect();
    if let Of::Brick(brick) = of
        && volumes.iter().all(|v| v.processes.is_empty())
    {
        let message = format!("No brick {brick} in volume {name}");
        if session.options.xml {
            let document = xml::Document::new(-1, 0, &message);
            session.console.write(xml::sentence(document, "volStatus", &message));
            return 0;
        }
        session.console.err(message);
        return -1;
    }
    show(session, &volumes, of);
    0
}

/// One volume after the other, as GlusterFS asks: one that is not started is said and passed over.
fn all(session: &mut Session, of: &Of) -> Status {
    let names = match session.ask(&Request::VolumeList) {
        Ok(Ok(Answer::Names(names))) => names,
        Ok(outcome) => return super::failed(session, outcome, "Failed to get names of volumes"),
        Err(status) => return status,
    };
    if names.is_empty() && !session.options.xml {
        session.console.err("No volumes present");
        return 0;
    }
    let mut together = Vec::new();
    for name in names {
        match ask(session, &name) {
            Ok(Ok(Answer::Status(volumes))) => {
                let volumes: Vec<VolumeStatus> = volumes.iter().map(|v| filtered(v, of)).collect();
                if session.options.xml {
                    together.extend(volumes);
                } else {
                    show(session, &volumes, of);
                }
            }
            Ok(Err(failure)) if !session.options.xml => {
                session.console.err(failure);
                session.console.out(" ");
            }
            Ok(_) => {}
            Err(status) => return status,
        }
    }
    if session.options.xml {
        show(session, &together, of);
    }
    0
}

fn filtered(volume: &VolumeStatus, of: &Of) -> VolumeStatus {
    let keep = |p: &&ProcessStatus| match of {
        Of::All | Of::Tasks => true,
        Of::SelfHeal => p.kind == "Self-heal Daemon",
        Of::Brick(brick) => p.kind == "Brick" && format!("{}:{}", p.host, p.path) == *brick,
    };
    let processes = volume.processes.iter().filter(keep).cloned().collect();
    VolumeStatus { name: volume.name.clone(), processes }
}

fn show(session: &mut Session, volumes: &[VolumeStatus], of: &Of) {
    let tasks_only = matches!(of, Of::Tasks);
    if session.options.xml {
        let text = if tasks_only { xml::volume_tasks(volumes) } else { xml::volume_status(volumes) };
        session.console.write(text);
        return;
    }
    for volume in volumes {
        if !tasks_only {
            session.console.write(text::volume_status(volume));
        }
        if tasks_only || matches!(of, Of::All) {
            session.console.write(text::volume_tasks(&volume.name));
        }
    }
}
