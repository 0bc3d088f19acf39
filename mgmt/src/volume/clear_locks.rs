//! `volume clear-locks`: a client of the volume, the `glusterfs` beside us, gives the order to the bricks.

use std::process::Stdio;
use std::time::Duration;

use crate::api::{Answer, Failure, Outcome};
use crate::brick::process::program;
use crate::daemon::node::Node;
use crate::state::model::Status;

/// How long the client may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Node {
    /// `volume clear-locks V PATH kind KIND LOCK [ONLY]`.
    pub async fn clear_locks(&self, name: &str, path: &str, kind: &str, lock: &str, only: Option<&str>) -> Outcome {
        let volume = self.volume(name)?;
        if volume.status != Status::Started {
            return Err(Failure::new(libc::EINVAL, format!("Volume {name} is not started")));
        }
        let known = |word: &str, words: [&str; 3]| words.contains(&word);
        if !known(kind, ["blocked", "granted", "all"]) || !known(lock, ["inode", "entry", "posix"]) {
            return Err(Failure::new(libc::EINVAL, format!("clear-locks: kind {kind}, type {lock}")));
        }
        let only = only.map(|only| format!(".{only}")).unwrap_or_default();
        let order = format!("glusterfs.clrlk.t{lock}.k{kind}{only}");
        let failed = |reason: &dyn std::fmt::Display| {
            Failure::new(libc::EIO, format!("clear-locks getxattr command failed. Reason: {reason}"))
        };
        let client = tokio::process::Command::new(program("glusterfs"))
            .arg("--volfile-server-transport=unix")
            .arg(format!("--volfile-server={}", self.config.socket_file.display()))
            .args(["--heal-info", name, "--", "getxattr", path, &order])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(PATIENCE, client).await {
            Ok(output) => output.map_err(|error| failed(&error))?,
            Err(_) => return Err(failed(&"the bricks do not answer")),
        };
        if output.status.success() {
            return Ok(Answer::Text(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()));
        }
        let reason = String::from_utf8_lossy(&output.stderr);
        Err(failed(&reason.trim_end()))
    }
}
