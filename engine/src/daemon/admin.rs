//! The unix socket (-S) on which glusterd asks a brick to end, and asks what it is. Program: GD_BRICK_PROGRAM of
//! GlusterFS 10.3 (protocol-common.h, glusterd1-xdr.x).

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::Dict;
use ladrillo_translator::error::errno;
use ladrillo_transport::Message;
use ladrillo_transport::dict::{decode_untyped, encode_untyped};
use ladrillo_transport::program::dump;
use ladrillo_transport::record::{RecordReader, record_mark};
use ladrillo_transport::rpc::{self, AcceptStatus, Incoming};
use ladrillo_transport::xdr::{DecodeError, Reader, Writer};

/// Number of the program.
pub const PROGRAM: u32 = 4_867_634;
/// Its version.
pub const VERSION: u32 = 2;
/// Its name, as DUMP tells it.
pub const NAME: &str = "brick operations";
/// Ends the process.
pub const PROC_TERMINATE: u32 = 1;
/// Asks io-stats: profiles and lists of what is used most.
pub const PROC_XLATOR_INFO: u32 = 2;
/// Asks for what `volume status` shows.
pub const PROC_STATUS: u32 = 4;
/// Highest procedure of the program.
const PROC_LAST: u32 = 16;

/// Connections at once; glusterd keeps one.
const MAX_CONNECTIONS: usize = 16;

/// What glusterd may ask of the brick.
pub trait Brick: Send + Sync {
    /// Ends the process.
    fn terminate(&self);

    /// Answers XLATOR_INFO.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn info(&self, request: &Dict) -> Result<Dict, String>;

    /// Answers BRICK_STATUS.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn status(&self, request: &Dict) -> Result<Dict, String>;
}

/// The listener; its socket file goes with it.
pub struct Admin {
    path: PathBuf,
}

impl Admin {
    /// Listens on `path` in a thread of its own; `brick` is asked what glusterd asks.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(path: &Path, brick: Arc<dyn Brick>) -> io::Result<Admin> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let live = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                };
                if live.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                    live.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let (brick, live) = (brick.clone(), live.clone());
                let handler = std::thread::Builder::new().name("admin-client".to_owned()).spawn(move || {
                    if let Err(e) = serve(stream, &*brick) {
                        tracing::debug!(error = %e, "connection of glusterd ended");
                    }
                    live.fetch_sub(1, Ordering::SeqCst);
                });
                if handler.is_err() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        })?;
        Ok(Admin { path: path.to_owned() })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(mut stream: UnixStream, brick: &dyn Brick) -> io::Result<()> {
    let mut reader = RecordReader::with_limit(1 << 20);
    let mut chunk = [0; 8192];
    loop {
        while let Some(record) = reader.next_record()? {
            let Incoming::Call(header, body) =
                rpc::decode_record(record).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?
            else {
                continue;
            };
            let mut ends = false;
            let (status, body) = match (header.program, header.version, header.procedure) {
                (dump::PROGRAM, dump::VERSION, dump::PROC_DUMP) => {
                    let program = |name: &str, number: u32, version: u32| dump::Program {
                        name: name.to_owned(),
                        number: u64::from(number),
                        version: u64::from(version),
                    };
                    let programs =
                        vec![program(NAME, PROGRAM, VERSION), program(dump::NAME, dump::PROGRAM, dump::VERSION)];
                    (AcceptStatus::Success, dump::Reply { op_ret: 0, op_errno: 0, programs }.encode())
                }
                (dump::PROGRAM, dump::VERSION, dump::PROC_PING) => {
                    (AcceptStatus::Success, dump::PingReply::default().encode())
                }
                (PROGRAM, VERSION, 0) => (AcceptStatus::Success, Message::default()),
                (PROGRAM, VERSION, PROC_TERMINATE) => {
                    ends = true;
                    (AcceptStatus::Success, answer(0, 0, b"", ""))
                }
                (PROGRAM, VERSION, procedure @ (PROC_XLATOR_INFO | PROC_STATUS)) => match read_request(body) {
                    Err(_) => (AcceptStatus::GarbageArgs, Message::default()),
                    Ok(request) => (
                        AcceptStatus::Success,
                        match if procedure == PROC_STATUS { brick.status(&request) } else { brick.info(&request) } {
                            Ok(output) => answer(0, 0, &encode_untyped(&output), ""),
                            Err(sentence) => answer(-1, 0, b"", &sentence),
                        },
                    ),
                },
                (PROGRAM, VERSION, procedure) if procedure <= PROC_LAST => (
                    AcceptStatus::Success,
                    answer(-1, errno::EOPNOTSUPP, b"", &format!("brick operation {procedure} is not supported yet")),
                ),
                (PROGRAM, VERSION, _) | (dump::PROGRAM, dump::VERSION, _) => {
                    (AcceptStatus::ProcUnavail, Message::default())
                }
                (PROGRAM, ..) => (AcceptStatus::ProgMismatch { low: VERSION, high: VERSION }, Message::default()),
                _ => (AcceptStatus::ProgUnavail, Message::default()),
            };
            let reply = rpc::encode_reply(header.xid, status, body);
            stream.write_all(&record_mark(reply.len()))?;
            stream.write_all(&reply.header)?;
            if ends {
                tracing::info!("glusterd asks this brick to end");
                brick.terminate();
            }
        }
        let n = match stream.read(&mut chunk) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if n == 0 {
            return Ok(());
        }
        reader.feed(chunk.get(..n).unwrap_or_default());
    }
}

/// gd1_mgmt_brick_op_req: name, op, input, dict. The input is what is asked.
fn read_request(body: Bytes) -> Result<Dict, DecodeError> {
    let mut reader = Reader::new(body);
    reader.string("name", 4096)?;
    reader.i32("op")?;
    decode_untyped(reader.opaque("input", 1 << 20)?)
}

/// gd1_mgmt_brick_op_rsp: op_ret, op_errno, output, op_errstr.
fn answer(op_ret: i32, op_errno: i32, output: &[u8], sentence: &str) -> Message {
    let mut writer = Writer::with_capacity(64);
    writer.i32(op_ret);
    writer.i32(op_errno);
    writer.opaque(output);
    writer.opaque(sentence.as_bytes());
    Message { header: writer.finish(), ..Message::default() }
}
