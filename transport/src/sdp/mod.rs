//! The SDP-style transport: the same records as on TCP, on a byte stream over RDMA.
//!
//! rsockets (librdmacm) are what it is by default: user space, any RDMA device. The kernel's sockets of AF_SMC and
//! AF_INET_SDP look like TCP's and are carried by the code for those: here is only what makes and names them.

mod connection;
mod driver;
pub mod kernel;
mod opening;
#[allow(unsafe_code)]
mod sys;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::{Listener, Transport};
use sys::Rsocket;

/// Bytes of each of the two buffers that the library pins for a connection (it takes twice the number it is given).
const BUFFER_BYTES: i32 = 256 << 10;
/// A peer that is gone is noticed by messages that this often (seconds) ask nothing of it but to be there.
const KEEPALIVE_IDLE_S: i32 = 2;

/// Connects an rsocket.
///
/// # Errors
/// `Unsupported` where RDMA cannot be had; the network's.
pub async fn connect(address: SocketAddr) -> io::Result<Arc<dyn Transport>> {
    opening::connect(address).await
}

/// Listens on an rsocket.
///
/// # Errors
/// `Unsupported` where RDMA cannot be had; the address is taken or not that of an RDMA device.
pub fn listen(address: SocketAddr) -> io::Result<Box<dyn Listener>> {
    opening::listen(address)
}

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
