//! RPC records over reliable connections of RDMA devices (InfiniBand, RoCE, iWARP), in the manner of RFC 8166.
//!
//! Small records go into receives that wait for them; what is longer is read from and written to the client's memory by the
//! brick. Only clients expose memory, for the time of a request. Read first: docs/wire.md, "RPC over RDMA"; [`Driver`],
//! [`Connection`]; what is decided without I/O is in [`core`], what is on the wire in [`wire`].
//!
//! The libraries are opened at run time: without them, or without a device, [`check`] says why.

mod connection;
pub mod core;
mod driver;
#[allow(unsafe_code)]
mod sys;
pub mod wire;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ladrillo_translator::LocalFuture;

pub use connection::{Connection, Role};
pub use driver::{Driver, DriverConfig, Listener, OnConnection};
pub use sys::check;

use crate::{Message, Transport};

/// A [`Connection`] as a [`Transport`]; closed when dropped.
pub struct VerbsTransport {
    connection: Arc<Connection>,
}

impl VerbsTransport {
    /// Of a connection that is connected.
    pub fn new(connection: Arc<Connection>) -> VerbsTransport {
        VerbsTransport { connection }
    }
}

impl Drop for VerbsTransport {
    fn drop(&mut self) {
        self.connection.close();
    }
}

impl Transport for VerbsTransport {
    fn send<'a>(&'a self, message: Message) -> LocalFuture<'a, io::Result<()>> {
        self.send_expecting(message, 0)
    }

    fn send_expecting<'a>(&'a self, message: Message, reply_bytes: usize) -> LocalFuture<'a, io::Result<()>> {
        // Queued by the call itself, not by the first poll: calls and records have one order.
        let number = self.connection.queue(message, reply_bytes);
        Box::pin(std::future::poll_fn(move |cx| self.connection.poll_sent(number, cx)))
    }

    fn recv<'a>(&'a self) -> LocalFuture<'a, io::Result<Bytes>> {
        Box::pin(std::future::poll_fn(|cx| self.connection.poll_recv(cx)))
    }

    fn close(&self) {
        self.connection.close();
    }

    fn peer(&self) -> String {
        self.connection.peer()
    }

    fn local(&self) -> String {
        self.connection.local()
    }
}
