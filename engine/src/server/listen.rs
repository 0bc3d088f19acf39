//! Where clients come in: TCP, and the transports beside it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use ladrillo_transport::{Accepted, Kind, Listener, Via, sdp};

use super::connection::Arrival;

/// Where to listen, and on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The transport.
    pub kind: Kind,
    /// Address and port; port 0: any that is free.
    pub address: SocketAddr,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.address, self.kind)
    }
}

/// An open entrance.
pub enum Entrance {
    /// Of kernel sockets.
    Sockets(TcpListener),
    /// Of anything else.
    Transports(Box<dyn Listener>),
}

/// Listens.
///
/// # Errors
/// The address is taken or not ours; the transport cannot be had here, with the reason and what to do.
pub fn open(endpoint: Endpoint) -> io::Result<Entrance> {
    let Endpoint { kind, address } = endpoint;
    let opened = match kind {
        Kind::Tcp => {
            let family = socket2::Domain::for_address(address);
            socket2::Socket::new(family, socket2::Type::STREAM, Some(socket2::Protocol::TCP))
                .and_then(|socket| listen_on(socket, address))
                .map(Entrance::Sockets)
        }
        Kind::Rdma => ladrillo_transport::verbs::listen(address).map(Entrance::Transports),
        Kind::Sdp(Via::Rsocket) => sdp::listen(address).map(Entrance::Transports),
        Kind::Sdp(via) => {
            sdp::kernel::socket(via, address).and_then(|socket| listen_on(socket, address)).map(Entrance::Sockets)
        }
    };
    opened.map_err(|e| io::Error::new(e.kind(), format!("listening on {address} ({kind}): {e}")))
}

/// Listens on all of `endpoints`. One of several transports that cannot be had on this machine is left out, and the log
/// says why; the last one left must work.
///
/// # Errors
/// As [`open`].
pub fn open_all(endpoints: &[Endpoint]) -> io::Result<Vec<(Endpoint, Entrance)>> {
    let mut opened = Vec::new();
    let mut missing = None;
    for endpoint in endpoints {
        match open(*endpoint) {
            Ok(entrance) => {
                let address = entrance.local()?;
                opened.push((Endpoint { address, ..*endpoint }, entrance));
            }
            Err(e) if endpoint.kind != Kind::Tcp && e.kind() == io::ErrorKind::Unsupported => {
                tracing::error!("{e}; the brick is not served on it");
                missing = Some(e);
            }
            Err(e) => return Err(e),
        }
    }
    match missing {
        Some(e) if opened.is_empty() => Err(e),
        _ => Ok(opened),
    }
}

fn listen_on(socket: socket2::Socket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

impl Entrance {
    /// Where it listens.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Entrance::Sockets(listener) => listener.local_addr(),
            Entrance::Transports(listener) => Ok(listener.local()),
        }
    }

    /// Who comes next, or `None` when nobody does within `patience`.
    ///
    /// # Errors
    /// The network's; it says nothing about the next.
    pub fn accept(&self, patience: Duration) -> io::Result<Option<Arrival>> {
        match self {
            Entrance::Sockets(listener) => {
                let mut poll = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
                let patience = rustix::event::Timespec {
                    tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(patience.subsec_nanos()),
                };
                match rustix::event::poll(&mut poll, Some(&patience)) {
                    Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
                    Ok(_) => {}
                    Err(e) => return Err(e.into()),
                }
                let (socket, _) = listener.accept()?;
                tune(&socket);
                Ok(Some(Arrival::Socket(OwnedFd::from(socket))))
            }
            Entrance::Transports(listener) => {
                let arrival: Option<std::sync::Arc<dyn Accepted>> = listener.accept(patience)?;
                Ok(arrival.map(Arrival::Transport))
            }
        }
    }
}

/// A dead client is noticed by keepalive and unanswered data within a minute.
fn tune(socket: &std::net::TcpStream) {
    let socket = socket2::SockRef::from(socket);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(20))
        .with_interval(Duration::from_secs(2))
        .with_retries(9);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(42)));
}
