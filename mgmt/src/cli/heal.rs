//! `volume heal V info`: a client of its own, the `glusterfs` beside us, walks the bricks' indices.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Session, Status};
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
    if session.options.xml {
        arguments.push("--xml".to_owned());
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
    let status = match Command::new(&program).args(arguments).status() {
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

/// `glusterfs`: the one installed beside us, else the first in `PATH`.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|d| d.join("glusterfs")));
    beside.filter(|path| Path::is_file(path)).unwrap_or_else(|| PathBuf::from("glusterfs"))
}
