//! What glusterd asks of a running brick: its clients, inodes, open files, memory, calls; how fast its disk is. Procedures and
//! keys are GlusterFS 10.3's (glusterfsd-mgmt.c, the dumpops of protocol/server and libglusterfs).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ladrillo_translator::Dict;

use super::admin::Brick;
use super::statedump;
use crate::graph::Graph;
use crate::server::Observer;

/// Bits of `cmd`. Source: gf_cli_status_type.
const STATUS_MASK: i64 = 0xff;
const MEM: i64 = 0x1;
const CLIENTS: i64 = 0x2;
const INODE: i64 = 0x4;
const FD: i64 = 0x8;
const CALLPOOL: i64 = 0x10;
const CLIENT_LIST: i64 = 0x80;
/// Values of `top-op`. Source: gf1_cli_top_op.
const READ_PERF: i64 = 6;
const WRITE_PERF: i64 = 7;

/// Most bytes of a block of a speed test, and of a whole one: the disk belongs to the clients.
const MAX_BLOCK_BYTES: usize = 16 << 20;
const MAX_PERF_BYTES: u64 = 4 << 30;
/// Most files of one client that are listed.
const MAX_LISTED: usize = 4096;

/// Answers glusterd's questions.
#[derive(Clone)]
pub struct Operations {
    /// The brick.
    pub graph: Arc<Graph>,
    /// Its clients.
    pub observer: Observer,
}

impl Brick for Operations {
    fn terminate(&self) {
        let _ = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
    }

    fn info(&self, request: &Dict) -> Result<Dict, String> {
        let mut answer = self.graph.translator_info(request)?;
        if request.contains("blk-size") || request.contains("blk-cnt") {
            self.measure_disk(request, &mut answer)?;
        }
        Ok(answer)
    }

    fn status(&self, request: &Dict) -> Result<Dict, String> {
        match request.int("cmd").ok_or("no cmd")? & STATUS_MASK {
            MEM => Ok(memory()),
            CLIENTS | CLIENT_LIST => Ok(self.clients()),
            INODE => Ok(self.inodes()),
            FD => Ok(self.files()),
            CALLPOOL => {
                let mut answer = Dict::new();
                answer.set_int("callpool.count", count(self.observer.pending()));
                Ok(answer)
            }
            _ => Err("Unknown status op".to_owned()),
        }
    }
}

impl Operations {
    fn clients(&self) -> Dict {
        let mut answer = Dict::new();
        let mut index = 0;
        for client in self.observer.clients() {
            for connection in &client.connections {
                let key = |what: &str| format!("client{index}.{what}");
                answer.set_str(key("hostname"), connection.peer.clone());
                answer.set_str(key("bytesread"), connection.received.to_string());
                answer.set_str(key("byteswrite"), connection.sent.to_string());
                if connection.medium != "tcp" {
                    answer.set_str(key("medium"), connection.medium.clone());
                }
                answer.set_str(key("opversion"), client.op_version.to_string());
                let name = if client.process_name.is_empty() { "unknown" } else { &client.process_name };
                answer.set_str(key("name"), name.to_owned());
                index += 1;
            }
        }
        answer.set_int("clientcount", index);
        answer
    }

    fn inodes(&self) -> Dict {
        let inodes = &self.graph.brick().inodes;
        let (known, active) = (inodes.len(), inodes.active());
        let mut answer = Dict::new();
        answer.set_int("conncount", 1);
        answer.set_int("conn0.itable.lru_limit", count(inodes.capacity()));
        answer.set_int("conn0.itable.active_size", count(active));
        answer.set_int("conn0.itable.lru_size", count(known.saturating_sub(active)));
        answer.set_int("conn0.itable.purge_size", 0);
        answer
    }

    /// One table for each client, as GlusterFS keeps them.
    fn files(&self) -> Dict {
        let mut answer = Dict::new();
        let clients = self.observer.clients();
        answer.set_int("conncount", count(clients.len()));
        for (index, client) in clients.iter().enumerate() {
            let key = |what: &str| format!("conn{index}.fdtable.{what}");
            let top = client.files.last().map_or(0, |(wire, _)| wire + 1);
            let first_free = (0..).zip(&client.files).find(|(n, (wire, _))| n != wire).map_or(top, |(n, _)| n);
            answer.set_int(key("refcount"), count(client.connections.len()));
            answer.set_str(key("maxfds"), top.to_string());
            answer.set_str(key("firstfree"), first_free.to_string());
            let listed = client.files.iter().take(MAX_LISTED);
            answer.set_int(key("openfds"), count(listed.len()));
            for (number, (_, file)) in listed.enumerate() {
                let flags = if file.directory { libc::O_DIRECTORY } else { 0 };
                answer.set_int(key(&format!("fdentry{number}.pid")), 0);
                answer.set_int(key(&format!("fdentry{number}.refcount")), 1);
                answer.set_int(key(&format!("fdentry{number}.flags")), i64::from(flags));
            }
        }
        answer
    }

    /// How fast the disk is, for `volume top read-perf|write-perf bs N count N`.
    fn measure_disk(&self, request: &Dict, answer: &mut Dict) -> Result<(), String> {
        let writes = match request.int("top-op") {
            Some(READ_PERF) => false,
            Some(WRITE_PERF) => true,
            _ => return Ok(()),
        };
        let size = request.int("blk-size").and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        let blocks = request.int("blk-cnt").and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        if size == 0 || size > MAX_BLOCK_BYTES || blocks == 0 || blocks.saturating_mul(size as u64) > MAX_PERF_BYTES {
            return Err(format!(
                "blocks of 1 to {MAX_BLOCK_BYTES} bytes are expected, {MAX_PERF_BYTES} bytes in all at most"
            ));
        }
        let seconds = speed(&self.graph.brick().path, size, blocks, writes).map_err(|e| e.to_string())?;
        let megabytes = blocks as f64 * size as f64 / 1e6;
        answer.set_str("throughput", format!("{:.6}", megabytes / seconds.max(1e-9)));
        // In microseconds.
        answer.set_str("time", format!("{:.6}", seconds * 1e6));
        Ok(())
    }

    /// Writes a state dump; answers where.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn dump(&self) -> io::Result<PathBuf> {
        let options = self.graph.server_options();
        let directory = options.get("statedump-path").unwrap_or(statedump::DIRECTORY);
        statedump::write(Path::new(directory), &self.graph, &self.observer)
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Seconds it takes to write (or, after that, to read back) `blocks` blocks of `size` bytes in the brick.
fn speed(brick: &Path, size: usize, blocks: u64, writes: bool) -> io::Result<f64> {
    let path = brick.join(".glusterfs").join(format!("perf-{}", std::process::id()));
    let outcome = measure(&path, size, blocks, writes);
    match std::fs::remove_file(&path) {
        Err(e) if outcome.is_ok() => Err(e),
        _ => outcome,
    }
}

fn measure(path: &Path, size: usize, blocks: u64, writes: bool) -> io::Result<f64> {
    let mut file: File =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut block = vec![0; size];
    let start = Instant::now();
    for _ in 0..blocks {
        file.write_all(&block)?;
    }
    let written = start.elapsed();
    if writes {
        return Ok(written.as_secs_f64());
    }
    file.sync_data()?;
    file.seek(SeekFrom::Start(0))?;
    let start = Instant::now();
    for _ in 0..blocks {
        file.read_exact(&mut block)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// The C library's figures; its allocator is ours.
pub fn memory_figures() -> [(&'static str, u64); 10] {
    // SAFETY: mallinfo2 has no preconditions.
    let info = unsafe { libc::mallinfo2() };
    [
        ("arena", info.arena as u64),
        ("ordblks", info.ordblks as u64),
        ("smblks", info.smblks as u64),
        ("hblks", info.hblks as u64),
        ("hblkhd", info.hblkhd as u64),
        ("usmblks", info.usmblks as u64),
        ("fsmblks", info.fsmblks as u64),
        ("uordblks", info.uordblks as u64),
        ("fordblks", info.fordblks as u64),
        ("keepcost", info.keepcost as u64),
    ]
}

fn memory() -> Dict {
    let mut answer = Dict::new();
    for (name, figure) in memory_figures() {
        answer.set_str(format!("mallinfo.{name}"), figure.to_string());
    }
    answer.set_int("mempool-count", 0);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_test_leaves_nothing_behind() {
        let brick = std::env::temp_dir().join(format!("ladrillo-perf-{}", std::process::id()));
        std::fs::create_dir_all(brick.join(".glusterfs")).unwrap();
        for writes in [true, false] {
            assert!(speed(&brick, 4096, 10, writes).unwrap() > 0.0);
        }
        assert_eq!(std::fs::read_dir(brick.join(".glusterfs")).unwrap().count(), 0);
        std::fs::remove_dir_all(&brick).unwrap();
        assert!(speed(&brick, 4096, 1, true).is_err());
    }
}
