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
mod shelves;
#[allow(unsafe_code)]
mod sys;
pub mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, LazyLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::LocalFuture;
use parking_lot::Mutex;

pub use connection::{Connection, Role};
pub use driver::{Driver, DriverConfig, Entrance, OnConnection, Windows};
pub use sys::check;

use crate::{Accepted, Listener, Message, Transport};

/// Connections that were made and not yet accepted.
const BACKLOG: usize = 1024;
/// Bytes of answers that may wait for one client before it is cut off.
const MAX_POSTED_BYTES: usize = 256 << 20;

/// A driver with a thread of its own, shared by all who use it, while there are any.
struct Shared {
    role: Role,
    driver: Mutex<Weak<Driver>>,
}

impl Shared {
    fn get(&self) -> io::Result<Arc<Driver>> {
        let mut current = self.driver.lock();
        if let Some(driver) = current.upgrade() {
            return Ok(driver);
        }
        let driver = Driver::new(DriverConfig { role: self.role, windows: Windows::from_environment() })?;
        driver.start_thread("rdma")?;
        *current = Arc::downgrade(&driver);
        Ok(driver)
    }
}

static BRICK: LazyLock<Shared> = LazyLock::new(|| Shared { role: Role::Brick, driver: Mutex::default() });
static CLIENT: LazyLock<Shared> = LazyLock::new(|| Shared { role: Role::Client, driver: Mutex::default() });

/// Listens: for bricks.
///
/// # Errors
/// `Unsupported` with the reason where RDMA cannot be had; the address is taken or not that of an RDMA device.
pub fn listen(address: SocketAddr) -> io::Result<Box<dyn Listener>> {
    let driver = BRICK.get()?;
    let (arrived, arrivals) = sync_channel::<Arc<Connection>>(BACKLOG);
    let on_connection: OnConnection = Box::new(move |connection| {
        if let Err(error) = arrived.try_send(connection.clone()) {
            tracing::warn!(peer = %connection.peer(), %error, "RDMA connection not taken");
            connection.close();
        }
    });
    let entrance = driver.listen(address, on_connection)?;
    Ok(Box::new(VerbsListener { entrance, arrivals, _driver: driver }))
}

/// Connects, for clients without a runtime of their own that could wait for a descriptor: a thread does it.
///
/// # Errors
/// `Unsupported` with the reason where RDMA cannot be had; the network's.
pub async fn connect(address: SocketAddr) -> io::Result<Arc<dyn Transport>> {
    connect_by(&CLIENT.get()?, address).await
}

/// Connects by a driver that somebody runs.
///
/// # Errors
/// The network's.
pub async fn connect_by(driver: &Arc<Driver>, address: SocketAddr) -> io::Result<Arc<dyn Transport>> {
    let transport = VerbsTransport { connection: driver.connect(address)?, _driver: driver.clone() };
    // Given up half-way, it is dropped and closed.
    std::future::poll_fn(|cx| transport.connection.poll_connected(cx)).await?;
    Ok(Arc::new(transport))
}

struct VerbsListener {
    entrance: Entrance,
    arrivals: Receiver<Arc<Connection>>,
    _driver: Arc<Driver>,
}

impl Listener for VerbsListener {
    fn accept(&self, patience: Duration) -> io::Result<Option<Arc<dyn Accepted>>> {
        match self.arrivals.recv_timeout(patience) {
            Ok(connection) => Ok(Some(Arc::new(VerbsTransport { connection, _driver: self._driver.clone() }))),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn local(&self) -> SocketAddr {
        self.entrance.local
    }
}

/// A [`Connection`] as a [`Transport`]; closed when dropped.
struct VerbsTransport {
    connection: Arc<Connection>,
    /// Lives as long as its connections.
    _driver: Arc<Driver>,
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

    fn medium(&self) -> String {
        self.connection.medium()
    }
}

impl Accepted for VerbsTransport {
    fn post(&self, message: Message) -> io::Result<()> {
        if self.connection.is_closed() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.connection.queue(message, 0);
        if self.connection.queued_bytes() > MAX_POSTED_BYTES {
            self.connection.close();
            let text = format!("{}: the peer reads nothing, too much waits for it", self.connection.peer());
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
        }
        Ok(())
    }

    fn poll_room(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        self.connection.poll_room(bytes, cx)
    }

    fn admit(&self) {
        self.connection.admit();
    }

    fn traffic(&self) -> (u64, u64) {
        self.connection.traffic()
    }

    fn rescue(&self, answer: &dyn Fn(&Bytes) -> Option<Message>) {
        self.connection.answer_waiting(answer);
    }
}
