//! `volume status`.

use super::super::words::unambiguous;
use super::super::{Session, Status, text, xml};
use super::about::{self, Table};
use crate::api::{Answer, Outcome, ProcessStatus, Request, VolumeStatus};

/// What can be asked about bricks beside whether they run.
const DETAILS: [&str; 8] = ["detail", "mem", "clients", "fd", "inode", "callpool", "tasks", "client-list"];

/// Which processes to show.
#[derive(Clone, Copy)]
enum Of<'w> {
    All,
    SelfHeal,
    /// `HOST:PATH`
    Brick(&'w str),
}

/// What to show of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// Whether they run.
    Processes,
    /// Only the tasks.
    Tasks,
    Table(Table),
}

fn what(word: &str) -> Option<What> {
    match unambiguous(word, DETAILS)? {
        "tasks" => Some(What::Tasks),
        other => Table::named(other).map(What::Table),
    }
}

pub(in super::super) fn status(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let rest: Vec<&str> = words.iter().skip(2).map(String::as_str).collect();
    let wrong = |session: &mut Session, message: String| {
        session.console.err(message);
        session.usage(pattern)
    };
    let (name, of, what) = match rest.as_slice() {
        [] | ["all"] => (None, Of::All, What::Processes),
        [name] => (Some(*name), Of::All, What::Processes),
        [name, word] => {
            let name = (*name != "all").then_some(*name);
            match (name, what(word), *word) {
                (_, Some(what), _) => (name, Of::All, what),
                (None, None, word) => return wrong(session, format!("{word} is not a valid status option")),
                (_, None, "shd") => (name, Of::SelfHeal, What::Processes),
                (_, None, "quotad") => {
                    return refused(
                        session,
                        &format!("Volume {} does not have quota enabled", name.unwrap_or_default()),
                    );
                }
                // There is none: what is there is shown, as GlusterFS does.
                (_, None, "nfs") => (name, Of::All, What::Processes),
                (_, None, "snapd" | "bitd" | "scrub") => {
                    return session.not_supported(&format!("volume status {word}"));
                }
                (_, None, brick) => (name, Of::Brick(brick), What::Processes),
            }
        }
        ["all", _, _] => return wrong(session, "Cannot specify brick/nfs for \"all\"".to_owned()),
        [name, of, word] => {
            let Some(what) = what(word) else {
                return wrong(session, format!("{word} is not a valid status option"));
            };
            match *of {
                "shd" if matches!(what, What::Table(Table::Mem | Table::Inode | Table::Callpool)) => {
                    return session.not_supported(&format!("volume status shd {word}"));
                }
                "shd" => {
                    return wrong(
                        session,
                        "Detail/FD/Clients/Tasks status not available for Self-heal Daemons".to_owned(),
                    );
                }
                "nfs" | "quotad" | "snapd" | "bitd" | "scrub" => {
                    return session.not_supported(&format!("volume status {of} {word}"));
                }
                brick => (Some(*name), Of::Brick(brick), what),
            }
        }
        _ => return session.usage(pattern),
    };
    match name {
        Some(name) => one(session, name, of, what),
        None => all(session, what),
    }
}

fn ask(session: &mut Session, name: &str, of: Of, what: What) -> Result<Outcome, Status> {
    let about = if let What::Table(table) = what { Some(table.question()) } else { None };
    let brick = if let Of::Brick(brick) = of { Some(brick.to_owned()) } else { None };
    session.ask(&Request::VolumeStatus { name: Some(name.to_owned()), about, brick })
}

/// A refusal in GlusterFS's words.
fn refused(session: &mut Session, message: &str) -> Status {
    if session.options.xml {
        let failure = crate::api::Failure::new(libc::EINVAL, message);
        session.console.write(xml::sentence(xml::failure(&failure), "volStatus", message));
        return 0;
    }
    session.console.err(message);
    -1
}

fn one(session: &mut Session, name: &str, of: Of, what: What) -> Status {
    let volumes = match ask(session, name, of, what) {
        Ok(Ok(Answer::Status(volumes))) => volumes,
        Ok(outcome) => {
            let message = outcome.err().map(|failure| failure.message).filter(|message| !message.is_empty());
            let message = message.unwrap_or_else(|| "Unable to obtain volume status information.".to_owned());
            return refused(session, &message);
        }
        Err(status) => return status,
    };
    let volumes: Vec<VolumeStatus> = volumes.iter().map(|volume| filtered(volume, of)).collect();
    if let Of::Brick(brick) = of
        && volumes.iter().all(|volume| volume.processes.is_empty())
    {
        return refused(session, &format!("No brick {brick} in volume {name}"));
    }
    show(session, &volumes, of, what);
    0
}

/// One volume after the other, as GlusterFS asks: one that is not started is said and passed over.
fn all(session: &mut Session, what: What) -> Status {
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
        match ask(session, &name, Of::All, what) {
            Ok(Ok(Answer::Status(volumes))) => {
                if session.options.xml {
                    together.extend(volumes);
                } else {
                    show(session, &volumes, Of::All, what);
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
        show(session, &together, Of::All, what);
    }
    0
}

fn filtered(volume: &VolumeStatus, of: Of) -> VolumeStatus {
    let keep = |p: &&ProcessStatus| match of {
        Of::All => true,
        Of::SelfHeal => p.kind == "Self-heal Daemon",
        Of::Brick(brick) => p.kind == "Brick" && format!("{}:{}", p.host, p.path) == brick,
    };
    let processes = volume.processes.iter().filter(keep).cloned().collect();
    VolumeStatus { name: volume.name.clone(), processes }
}

fn show(session: &mut Session, volumes: &[VolumeStatus], of: Of, what: What) {
    if session.options.xml {
        let text = match what {
            What::Tasks => xml::volume_tasks(volumes),
            What::Processes => xml::volume_status(volumes, matches!(of, Of::All)),
            What::Table(table) => xml::volume_table(volumes, table, matches!(of, Of::All)),
        };
        session.console.write(text);
        return;
    }
    for volume in volumes {
        match what {
            What::Table(table) => session.console.write(about::text(volume, table)),
            What::Processes => session.console.write(text::volume_status(volume)),
            What::Tasks => {}
        }
        if what == What::Tasks || what == What::Processes && matches!(of, Of::All) {
            session.console.write(text::volume_tasks(&volume.name));
        }
    }
}
