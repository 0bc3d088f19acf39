//! How a fop crosses machines: XDR, ONC-RPC records, credentials, the GlusterFS programs, and transports.
//!
//! The codecs do no I/O and know no runtime. A [`Transport`] moves whole RPC records; engine, fuse-client and mgmt each
//! bring one over TCP on their own runtime, tests and the simulator use the in-memory one, verbs and sdp come beside them: those two have threads or
//! completion queues of their own and work under any runtime.
#![deny(unsafe_code)] // sdp/sys.rs and verbs/sys.rs call C libraries; nothing else may
#![warn(missing_docs)]

pub mod credential;
pub mod dict;
pub mod kind;
pub mod memory;
pub mod program;
pub mod record;
pub mod rpc;
pub mod sdp;
#[cfg(feature = "verbs")]
pub mod verbs;
#[cfg(not(feature = "verbs"))]
#[path = "verbs/left_out.rs"]
pub mod verbs;
pub mod xdr;

pub use credential::Credential;
pub use kind::{Kind, Via};
pub use record::{RecordReader, record_mark};
pub use xdr::{DecodeError, EncodeError};

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ladrillo_translator::{LocalFuture, Payload};

/// One RPC record on its way out: what was encoded, and the file data behind it, sent with vectored I/O (never joined).
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// RPC header and XDR body, from the xid on (a byte-stream transport adds the record mark itself).
    pub header: Bytes,
    /// File data; its XDR padding is in `padding`.
    pub payload: Payload,
    /// 0..=3 zero bytes after the payload.
    pub padding: u8,
}

impl Message {
    /// Length of the record in bytes.
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.len() + usize::from(self.padding)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Host name or IP address, and TCP port.
    Tcp {
        /// Name or literal address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A unix socket's path.
    Unix(std::path::PathBuf),
    /// A name in an in-memory network.
    Memory(String),
    /// RPC over RDMA: a host that an RDMA device reaches, and rdma_cm's port.
    Rdma {
        /// Name or literal address.
        host: String,
        /// Port, of rdma_cm's TCP port space.
        port: u16,
    },
    /// A byte stream over RDMA.
    Sdp {
        /// Name or literal address.
        host: String,
        /// Port: of rdma_cm for rsockets, of TCP for the kernel's sockets.
        port: u16,
        /// What carries it.
        via: Via,
    },
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Rdma { host, port } => write!(f, "rdma:{host}:{port}"),
            Address::Sdp { host, port, .. } => write!(f, "sdp:{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Memory(name) => f.write_str(name),
        }
    }
}

/// A connection that carries whole RPC records, in order, both ways.
pub trait Transport: Send + Sync {
    /// Queues `message` and completes when the kernel (or NIC) has taken it. Records of concurrent callers leave in the
    /// order of the calls and are never interleaved. The queue is bounded: a full one makes callers wait.
    fn send<'a>(&'a self, message: Message) -> LocalFuture<'a, io::Result<()>>;

    /// [`Transport::send`] of a call whose answer's payload has at most `reply_bytes` (0 = unknown, or small): a transport that
    /// needs memory for it beforehand has it ready. An answer that is longer comes all the same.
    fn send_expecting<'a>(&'a self, message: Message, reply_bytes: usize) -> LocalFuture<'a, io::Result<()>> {
        let _ = reply_bytes;
        self.send(message)
    }

    /// The next record, whole and contiguous, from the xid on (payloads are sliced out of it, not copied). One caller
    /// at a time. `UnexpectedEof` when the peer has closed; `InvalidData` when what came was no record.
    fn recv<'a>(&'a self) -> LocalFuture<'a, io::Result<Bytes>>;

    /// Ends the connection at once; pending and later calls fail with `ConnectionAborted`.
    fn close(&self);

    /// The peer, for logs (`10.77.1.1:49152`).
    fn peer(&self) -> String;

    /// Our end, for logs and for SETVOLUME.
    fn local(&self) -> String;

    /// What the connection really is, for logs and `volume status`: `tcp`, `rsocket`, `SMC-R`, ...
    fn medium(&self) -> String {
        "tcp".to_owned()
    }
}

/// A connection that a server has accepted: answers are posted from any thread, and nobody waits for them.
pub trait Accepted: Transport {
    /// Queues `message` in the order of the calls. What does not leave at once leaves by and by. An error is the
    /// connection's end; so is a peer that takes so little that the implementation's bound is passed.
    ///
    /// # Errors
    /// `ConnectionAborted` and the network's own.
    fn post(&self, message: Message) -> io::Result<()>;

    /// Ready when fewer than `bytes` of what was posted wait, or none ever will leave.
    fn poll_room(&self, cx: &mut std::task::Context<'_>, bytes: usize) -> std::task::Poll<()>;

    /// The peer has been let in (SETVOLUME): until then a transport may refuse what takes much memory.
    fn admit(&self) {}

    /// Bytes received and bytes sent since the beginning.
    fn traffic(&self) -> (u64, u64);

    /// Answers what has been received and not yet taken with [`Transport::recv`], where `answer` has an answer; the
    /// rest stays. For whoever stands in for a receiver that hangs.
    fn rescue(&self, answer: &dyn Fn(&Bytes) -> Option<Message>) {
        let _ = answer;
    }
}

/// Where connections come in.
pub trait Listener: Send {
    /// The next connection, or `None` when none comes within `patience`. Blocks its thread. An error says nothing about
    /// the next.
    ///
    /// # Errors
    /// The network's.
    fn accept(&self, patience: std::time::Duration) -> io::Result<Option<Arc<dyn Accepted>>>;

    /// Where it listens.
    fn local(&self) -> std::net::SocketAddr;
}

/// Makes connections.
pub trait Connector: Send + Sync {
    /// Connects, within `timeout`.
    fn connect<'a>(
        &'a self,
        address: &'a Address,
        timeout: std::time::Duration,
    ) -> LocalFuture<'a, io::Result<Arc<dyn Transport>>>;
}

/// Largest RPC record we take: a 16 MiB payload and room for its header. Source: our bound; stock bricks send 1 MiB and less.
pub const MAX_RECORD_BYTES: usize = (16 << 20) + (256 << 10);
