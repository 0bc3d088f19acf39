//! `volume heal V info`: a client of its own, the `glusterfs` beside us, walks the bricks' indices.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Session, Status, xml};
use crate::api::{Answer, Request};
use crate::client::Target;

/// What of the backlog to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Info {
    Entries,
    Summary,
    SplitBrain,
}

/// The arguments for `glusterfs`.
pub(super) fn arguments(session: &Session, volume: &str, info: Info) -> Vec<String> {
    let mut arguments = Vec::new();
    match session.options.target() {
        Target::Unix(path) => {
            arguments.push("--volfile-server-transport=unix".to_owned());
            arguments.push(format!("--volfile-server={}", path.display()));
        }
        Target::Tcp { host, port } => {
            arguments.push(format!("--volfile-server={host}"));
            arguments.push(format!("--volfile-server-port={port}"));
        }
    }
    if session.options.no_log {
        arguments.push("--log-level=NONE".to_owned());
    }
    arguments.push("--heal-info".to_owned());
    arguments.push(volume.to_owned());
    match info {
        Info::Entries => {}
        Info::Summary => arguments.push("summary".to_owned()),
        Info::SplitBrain => arguments.push("split-brain".to_owned()),
    }
    arguments
}

/// Runs it; its output and exit status are ours.
pub(super) fn info(session: &mut Session, volume: &str, info: Info) -> Status {
    let program = program();
    let arguments = arguments(session, volume, info);
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null());
    if session.options.xml {
        return info_as_xml(session, volume, command);
    }
    let status = match command.status() {
        Ok(status) => status.code().unwrap_or(1),
        Err(error) => {
            session.console.err(format_args!("{}: {error}", program.display()));
            1
        }
    };
    if status != 0 && !session.options.xml {
        session.console.out("Volume heal failed.");
    }
    status
}

fn info_as_xml(session: &mut Session, volume: &str, mut command: Command) -> Status {
    let output = match command.stderr(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(error) => {
            session.console.err(format_args!("{}: {error}", command.get_program().display()));
            return 1;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let status = output.status.code().unwrap_or(1);
    let bricks = parse(&text);
    if status != 0 && bricks.is_empty() {
        // GlusterFS's errno here is that of the volume it could not reach.
        session.console.write(xml::Document::new(-1, 2, text.trim()).finish());
        return status;
    }
    let hosts = match session.ask(&Request::VolumeInfo { name: Some(volume.to_owned()) }) {
        Ok(Ok(Answer::VolumeInfo(volumes))) => volumes.into_iter().flat_map(|v| v.bricks).collect(),
        _ => Vec::new(),
    };
    session.console.write(xml::heal_info(&bricks, &hosts));
    status
}

/// A brick's part of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// `HOST:PATH`
    pub(super) name: String,
    /// Paths, or `<gfid:...>`; without the remarks behind them.
    pub(super) files: Vec<String>,
    pub(super) status: String,
    /// The counts, by what GlusterFS calls them in XML; `-` of a brick that does not answer.
    pub(super) counts: Vec<(&'static str, String)>,
}

/// Takes `heal info`'s text apart.
fn parse(text: &str) -> Vec<Backlog> {
    const COUNTS: [(&str, &str); 5] = [
        ("Number of entries in heal pending: ", "numberOfEntriesInHealPending"),
        ("Number of entries in split-brain: ", "numberOfEntriesInSplitBrain"),
        ("Number of entries possibly healing: ", "numberOfEntriesPossiblyHealing"),
        ("Total Number of entries: ", "totalNumberOfEntries"),
        ("Number of entries: ", "numberOfEntries"),
    ];
    let mut bricks: Vec<Backlog> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("Brick ") {
            bricks.push(Backlog { name: name.to_owned(), ..Backlog::default() });
            continue;
        }
        let Some(brick) = bricks.last_mut() else { continue };
        if let Some(status) = line.strip_prefix("Status: ") {
            brick.status = status.to_owned();
        } else if let Some((value, name)) = COUNTS.iter().find_map(|(t, n)| line.strip_prefix(t).map(|v| (v, n))) {
            // Of a listing of split-brain, XML has the one count under the plain name.
            brick.counts.push((name, value.trim().to_owned()));
        } else if line.starts_with(['/', '<']) {
            let file = line.trim_end();
            let file = file.strip_suffix(" - Is in split-brain").unwrap_or(file);
            let file = file.strip_suffix(" - Possibly undergoing heal").unwrap_or(file);
            brick.files.push(file.trim_end().to_owned());
        }
    }
    bricks
}

/// `glusterfs`: the one installed beside us, else the first in `PATH`.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|d| d.join("glusterfs")));
    beside.filter(|path| Path::is_file(path)).unwrap_or_else(|| PathBuf::from("glusterfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_taken_apart() {
        let text = "Brick a:/b\n/dir/file \n<gfid:00000000-0000-0000-0000-000000000007> - Is in split-brain\n\
                    /x - Possibly undergoing heal\nStatus: Connected\nNumber of entries: 3\n\n\
                    Brick c:/d\nStatus: Transport endpoint is not connected\nNumber of entries: -\n\n";
        let bricks = parse(text);
        let files = ["/dir/file", "<gfid:00000000-0000-0000-0000-000000000007>", "/x"].map(str::to_owned);
        assert_eq!(bricks.len(), 2);
        assert_eq!(bricks[0].files, files);
        assert_eq!(bricks[0].counts, [("numberOfEntries", "3".to_owned())]);
        assert_eq!(bricks[1].status, "Transport endpoint is not connected");
        assert_eq!(bricks[1].counts, [("numberOfEntries", "-".to_owned())]);
        assert!(parse("nonsense\nStatus: x\n").is_empty());
    }
}
