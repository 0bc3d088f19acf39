//! `volume heal V info`: a client of its own, the `glusterfs` beside us, walks the bricks' indices.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Session, Status};
use crate::api::{About, Answer, BrickInfo, Request};
use crate::client::Target;

/// What of the backlog to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Info {
    Entries,
    Summary,
    SplitBrain,
}

/// The arguments for `glusterfs` to ask about a volume.
fn begin(session: &Session, volume: &str) -> Vec<String> {
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
    arguments
}

/// The arguments for what `info` shows.
pub(super) fn arguments(session: &Session, volume: &str, info: Info) -> Vec<String> {
    let mut arguments = begin(session, volume);
    match info {
        Info::Entries => {}
        Info::Summary => arguments.push("summary".to_owned()),
        Info::SplitBrain => arguments.push("split-brain".to_owned()),
    }
    arguments
}

/// Runs it; its output (text or XML) and exit status are ours.
pub(super) fn info(session: &mut Session, volume: &str, info: Info) -> Status {
    let program = program();
    let mut command = Command::new(&program);
    command.args(arguments(session, volume, info)).stdin(Stdio::null());
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
    if status != 0 {
        session.console.out("Volume heal failed.");
    }
    status
}

/// Has it do something about a volume: `split-brain ...`, `granular-entry-heal`. Its words and exit status are ours, as XML is
/// asked for or not.
pub(super) fn order(session: &mut Session, volume: &str, words: &[&str]) -> Status {
    let program = program();
    let mut command = Command::new(&program);
    command.args(begin(session, volume)).arg("--").args(words).stdin(Stdio::null());
    let status = match command.output() {
        Ok(output) => {
            session.console.write(String::from_utf8_lossy(&output.stdout));
            // glusterd's refusal: on standard output, as glfsheal has it.
            session.console.write(String::from_utf8_lossy(&output.stderr));
            -output.status.code().unwrap_or(1)
        }
        Err(error) => {
            session.console.err(format_args!("{}: {error}", program.display()));
            -1
        }
    };
    if status != 0 && !session.options.xml {
        session.console.out("Volume heal failed.");
    }
    status
}

/// `statistics heal-count [replica BRICK]`.
pub(super) fn count(session: &mut Session, volume: &str, replica: Option<&str>) -> Status {
    let which = if replica.is_some() { " per replica" } else { "" };
    let what = format!("Gathering count of entries to be healed{which} on volume {volume} has been");
    let about = Some(About::HealCount);
    let request = Request::VolumeStatus { name: Some(volume.to_owned()), about, brick: None };
    let processes = match session.ask(&request) {
        Ok(Ok(Answer::Status(volumes))) => volumes.into_iter().flat_map(|volume| volume.processes).collect::<Vec<_>>(),
        Ok(Ok(_)) => Vec::new(),
        Ok(Err(failure)) => {
            session.console.err(format_args!("{what} unsuccessful:\n{failure}"));
            return failure.op_ret;
        }
        Err(status) => return status,
    };
    // The bricks of the replica set that one of them names.
    let set = match session.ask(&Request::VolumeInfo { name: Some(volume.to_owned()) }) {
        Ok(Ok(Answer::VolumeInfo(volumes))) => volumes.into_iter().next().map(|volume| {
            let size = volume.replica.max(1) as usize;
            let names: Vec<String> =
                volume.bricks.iter().map(|brick| format!("{}:{}", brick.host, brick.path)).collect();
            let sets = names.chunks(size);
            let mut wanted = sets.filter(|set| replica.is_none_or(|brick| set.iter().any(|name| name == brick)));
            match replica {
                None => names.clone(),
                Some(_) => wanted.next().unwrap_or_default().to_vec(),
            }
        }),
        _ => None,
    };
    let set = set.unwrap_or_default();
    session.console.out(format_args!("{what} successful "));
    for brick in processes.iter().filter(|process| process.kind == "Brick") {
        let name = format!("{}:{}", brick.host, brick.path);
        session.console.out(format_args!("\nBrick {name}"));
        let asked = set.contains(&name);
        if asked && !brick.online {
            session.console.out("Status: Brick is not connected");
        }
        match brick.facts.get("hardlinks").filter(|_| asked) {
            Some(count) => session.console.out(format_args!("Number of entries: {count}")),
            None => session.console.out("No gathered input for this brick"),
        }
    }
    0
}

fn info_as_xml(session: &mut Session, volume: &str, mut command: Command) -> Status {
    let output = match command.arg("--xml").stderr(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(error) => {
            session.console.err(format_args!("{}: {error}", command.get_program().display()));
            return 1;
        }
    };
    let bricks = match session.ask(&Request::VolumeInfo { name: Some(volume.to_owned()) }) {
        Ok(Ok(Answer::VolumeInfo(volumes))) => volumes.into_iter().flat_map(|volume| volume.bricks).collect(),
        _ => Vec::new(),
    };
    session.console.write(with_hosts(&String::from_utf8_lossy(&output.stdout), &bricks));
    output.status.code().unwrap_or(1)
}

/// A client does not know whose bricks it talks to: fills in the hosts of those that are connected.
fn with_hosts(text: &str, bricks: &[BrickInfo]) -> String {
    let mut out = String::with_capacity(text.len() + 64 * bricks.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<brick hostUuid=\"-\">") {
        let part = after.split("</brick>").next().unwrap_or_default();
        let name = part.split_once("<name>").and_then(|(_, name)| name.split("</name>").next()).unwrap_or_default();
        let host = bricks.iter().find(|brick| format!("{}:{}", brick.host, brick.path) == name);
        let uuid =
            host.filter(|_| part.contains("<status>Connected</status>")).map_or("-", |host| host.host_uuid.as_str());
        out.push_str(before);
        out.push_str(&format!("<brick hostUuid=\"{uuid}\">"));
        rest = after;
    }
    out + rest
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
    fn connected_bricks_get_their_hosts() {
        let bricks = [("a", "U1"), ("c", "U2")].map(|(host, uuid)| BrickInfo {
            host: host.to_owned(),
            path: "/b".to_owned(),
            host_uuid: uuid.to_owned(),
        });
        let brick = |uuid: &str, name: &str, status: &str| {
            format!("<brick hostUuid=\"{uuid}\">\n<name>{name}</name>\n<status>{status}</status>\n</brick>\n")
        };
        let lost = "Transport endpoint is not connected";
        let text =
            |a: &str| brick(a, "a:/b", "Connected") + &brick("-", "c:/b", lost) + &brick("-", "x:/b", "Connected");
        assert_eq!(with_hosts(&text("-"), &bricks), text("U1"));
        assert_eq!(with_hosts("nothing", &bricks), "nothing");
    }
}
