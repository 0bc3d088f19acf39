//! The SDP-style transport: the same records as on TCP, on a byte stream over RDMA.
//!
//! rsockets (librdmacm) are what it is by default: user space, any RDMA device. The kernel's sockets of AF_SMC and
//! AF_INET_SDP look like TCP's and are carried by the code for those: here is only what makes and names them.

mod connection;
mod driver;
pub mod kernel;
#[allow(unsafe_code)]
mod sys;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;

use crate::{Accepted, Listener, Transport};
use connection::RsocketTransport;
use sys::{Interest, Rsocket};

/// Bytes of each of the two buffers that the library pins for a connection (it takes twice the number it is given).
const BUFFER_BYTES: i32 = 256 << 10;
/// A peer that is gone is noticed by messages that this often (seconds) ask nothing of it but to be there.
const KEEPALIVE_IDLE_S: i32 = 2;
/// Connections that may be under way at once, each on a thread.
const MAX_CONNECTING: usize = 64;
/// How long the library may take to connect; it tries several times by itself.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);

fn tune(socket: &Rsocket) -> io::Result<()> {
    socket.set_option(libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER_BYTES / 2)?;
    socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUF, BUFFER_BYTES / 2)
}

fn keep_alive(socket: &Rsocket) -> io::Result<()> {
    socket.set_option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_S)?;
    socket.set_option(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
}

/// What a failure to pin memory means.
fn explain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!("{error}: RDMA pins its buffers, raise the limit on locked memory (ulimit -l)"),
        ),
        _ => error,
    }
}

/// Connects an rsocket, on a thread of its own that ends when it is connected or not.
///
/// # Errors
/// `Unsupported` where RDMA cannot be had; the network's.
pub async fn connect(address: SocketAddr) -> io::Result<Arc<dyn Transport>> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CONNECTING: AtomicUsize = AtomicUsize::new(0);
    if CONNECTING.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTING {
        CONNECTING.fetch_sub(1, Ordering::AcqRel);
        return Err(io::Error::new(io::ErrorKind::WouldBlock, "too many rsockets are being connected"));
    }
    let (answer, answered) = oneshot::channel();
    let spawned = std::thread::Builder::new().name("rsocket-connect".to_owned()).spawn(move || {
        let connected = connect_blocking(address);
        CONNECTING.fetch_sub(1, Ordering::AcqRel);
        // Who asked may have given up: the socket is closed here then.
        let _ = answer.send(connected);
    });
    if let Err(error) = spawned {
        CONNECTING.fetch_sub(1, Ordering::AcqRel);
        return Err(error);
    }
    let socket = answered.await.map_err(|_| io::Error::other("the connecting thread died"))??;
    Ok(Arc::new(RsocketTransport::new(socket)?))
}

fn connect_blocking(address: SocketAddr) -> io::Result<Rsocket> {
    let socket = Rsocket::new(address)?;
    tune(&socket)?;
    socket.set_nonblocking()?;
    let begun = std::time::Instant::now();
    match socket.connect(address) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => loop {
            let mut interests = [Interest { number: socket.number(), wanted: libc::POLLOUT, found: 0 }];
            sys::poll(&mut interests, 1000)?;
            match interests[0].found {
                0 if begun.elapsed() > CONNECT_PATIENCE => return Err(io::ErrorKind::TimedOut.into()),
                0 => {}
                found if found & (libc::POLLERR | libc::POLLHUP) != 0 => {
                    let errno = socket.error();
                    let errno = if errno == 0 { libc::ECONNREFUSED } else { errno };
                    return Err(explain(io::Error::from_raw_os_error(errno)));
                }
                _ => break,
            }
        },
        Err(e) => return Err(explain(e)),
    }
    keep_alive(&socket)?;
    Ok(socket)
}

/// Listens on an rsocket.
///
/// # Errors
/// `Unsupported` where RDMA cannot be had; the address is taken or not that of an RDMA device.
pub fn listen(address: SocketAddr) -> io::Result<Box<dyn Listener>> {
    let socket = Rsocket::new(address)?;
    tune(&socket)?;
    socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    socket.set_nonblocking()?;
    socket.bind(address)?;
    socket.listen(128)?;
    let local = socket.local().unwrap_or(address);
    Ok(Box::new(RsocketListener { socket, local }))
}

struct RsocketListener {
    socket: Rsocket,
    local: SocketAddr,
}

impl Listener for RsocketListener {
    fn accept(&self, patience: Duration) -> io::Result<Option<Arc<dyn Accepted>>> {
        let mut interests = [Interest { number: self.socket.number(), wanted: libc::POLLIN, found: 0 }];
        let wait = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        match sys::poll(&mut interests, wait) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(e) => return Err(e),
        }
        match self.socket.accept() {
            Ok(socket) => {
                keep_alive(&socket)?;
                Ok(Some(Arc::new(RsocketTransport::new(socket)?)))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(explain(e)),
        }
    }

    fn local(&self) -> SocketAddr {
        self.local
    }
}
