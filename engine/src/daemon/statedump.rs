//! State dumps (SIGUSR1): what the brick holds, in GlusterFS's form: sections of `key=value`, `DUMP-END-TIME` at the end.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::operations::memory_figures;
use crate::graph::Graph;
use crate::server::Observer;

/// Where dumps go unless `server.statedump-path` says otherwise.
pub const DIRECTORY: &str = "/var/run/gluster";
/// Most locks and files of a client that are listed.
const MAX_LISTED: usize = 10_000;

/// Writes a dump into `directory`; answers its name, `BRICK-PATH.PID.dump.SECONDS`.
///
/// # Errors
/// Those of the file system.
pub fn write(directory: &Path, graph: &Graph, observer: &Observer) -> io::Result<PathBuf> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = now();
    let brick = graph.brick();
    let name = brick.path.to_string_lossy().trim_start_matches('/').replace('/', "-");
    let path = directory.join(format!("{name}.{}.dump.{}", std::process::id(), start.as_secs()));
    let mut text = format!("DUMP-START-TIME: {}.{:06}\n\n[mallinfo]\n", start.as_secs(), start.subsec_micros());
    // Writing into a String cannot fail.
    for (key, figure) in memory_figures() {
        let _ = writeln!(text, "mallinfo_{key}={figure}");
    }
    let _ = writeln!(
        text,
        "\n[global.callpool]\ncallpool.cnt={}\n\n[xlator.storage.posix]\npath={}\ninodes={}\ninodes_active={}\n\
         open_files={}",
        observer.pending(),
        brick.path.display(),
        brick.inodes.len(),
        brick.inodes.active(),
        brick.files.len(),
    );
    let clients = observer.clients();
    let _ = writeln!(text, "\n[xlator.protocol.server]\nclients={}", clients.len());
    for (index, client) in clients.iter().enumerate() {
        let _ = writeln!(text, "\n[client.{index}]\nuid={}\nprocess_name={}", client.uid, client.process_name);
        for connection in &client.connections {
            let (received, sent) = (connection.received, connection.sent);
            let _ = writeln!(text, "connection={} received={received} sent={sent}", connection.peer);
        }
        let _ = writeln!(text, "open_files={}", client.files.len());
        for (wire, file) in client.files.iter().take(MAX_LISTED) {
            let _ = writeln!(text, "fd.{wire}={}", file.gfid);
        }
    }
    let locks = graph.locks().map(|locks| locks.dump()).unwrap_or_default();
    let _ = writeln!(text, "\n[xlator.features.locks]\nlocks={}", locks.len());
    for (index, lock) in locks.iter().take(MAX_LISTED).enumerate() {
        let domain = lock.domain.as_ref().map(|domain| String::from_utf8_lossy(domain).into_owned());
        let state = if lock.granted { "ACTIVE" } else { "BLOCKED" };
        let _ = writeln!(
            text,
            "lock[{index}]({state})={} gfid={} domain={} client={} pid={}",
            lock.what,
            lock.gfid,
            domain.as_deref().unwrap_or("-"),
            lock.client.0,
            lock.pid
        );
    }
    let end = now();
    let _ = writeln!(text, "\nDUMP-END-TIME: {}.{:06}", end.as_secs(), end.subsec_micros());
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}
