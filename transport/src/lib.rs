//! How a fop crosses machines: XDR, ONC-RPC records, credentials, the GlusterFS programs, and transports.
//!
//! The codecs do no I/O and know no runtime. A [`Transport`] moves whole RPC records; engine, fuse-client and mgmt each
//! bring one over TCP on their own runtime, tests and the simulator use the in-memory one, verbs and sdp come beside them.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod credential;
pub mod dict;
pub mod memory;
pub mod program;
pub mod record;
pub mod rpc;
pub mod xdr;

pub use credential::Credential;
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
}

/// A connection that carries whole RPC records, in order, both ways.
pub trait Transport: Send + Sync {
    /// Queues `message` and completes when the kernel (or NIC) has taken it. Records of concurrent callers leave in the
    /// order of the calls and are never interleaved. The queue is bounded: a full one makes callers wait.
    fn send<'a>(&'a self, message: Message) -> LocalFuture<'a, io::Result<()>>;

    /// The next record, whole and contiguous, from the xid on (payloads are sliced out of it, not copied). One caller
    /// at a time. `UnexpectedEof` when the peer has closed; `InvalidData` when what came was no record.
    fn recv<'a>(&'a self) -> LocalFuture<'a, io::Result<Bytes>>;

    /// Ends the connection at once; pending and later calls fail with `ConnectionAborted`.
    fn close(&self);

    /// The peer, for logs (`10.77.1.1:49152`).
    fn peer(&self) -> String;

    /// Our end, for logs and for SETVOLUME.
    fn local(&self) -> String;
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
