//! The thin layer over tokio-uring: a byte stream, TCP or unix, and its listener.
//!
//! Everything that knows tokio-uring's types is in this file; the rest of glusterd sees [`Stream`] and [`Listener`].

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::LocalFuture;
use socket2::{Domain, Protocol, Socket, Type};

/// Runs a future on an io_uring-driven current-thread runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio_uring::start(future)
}

/// A connected byte stream.
pub trait Stream {
    /// Reads up to `buffer.len()` bytes; 0 at the end of the stream.
    fn read(&self, buffer: Vec<u8>) -> LocalFuture<'_, (io::Result<usize>, Vec<u8>)>;
    /// Writes all of `data`.
    fn write_all(&self, data: Bytes) -> LocalFuture<'_, io::Result<()>>;
    /// Ends both directions; reads in flight return.
    fn shutdown(&self);
    /// The other end's address; `None` on a unix socket.
    fn peer(&self) -> Option<IpAddr>;
}

struct Tcp {
    stream: tokio_uring::net::TcpStream,
    peer: SocketAddr,
}

impl Stream for Tcp {
    fn read(&self, buffer: Vec<u8>) -> LocalFuture<'_, (io::Result<usize>, Vec<u8>)> {
        Box::pin(self.stream.read(buffer))
    }
    fn write_all(&self, data: Bytes) -> LocalFuture<'_, io::Result<()>> {
        Box::pin(async move { self.stream.write_all(data).await.0 })
    }
    fn shutdown(&self) {
        // Failing means it is already closed, which is what was asked for.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
    fn peer(&self) -> Option<IpAddr> {
        Some(self.peer.ip())
    }
}

struct Unix {
    stream: tokio_uring::net::UnixStream,
}

impl Stream for Unix {
    fn read(&self, buffer: Vec<u8>) -> LocalFuture<'_, (io::Result<usize>, Vec<u8>)> {
        Box::pin(self.stream.read(buffer))
    }
    fn write_all(&self, data: Bytes) -> LocalFuture<'_, io::Result<()>> {
        Box::pin(async move { self.stream.write_all(data).await.0 })
    }
    fn shutdown(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
    fn peer(&self) -> Option<IpAddr> {
        None
    }
}

/// A listening socket.
pub enum Listener {
    /// TCP.
    Tcp(tokio_uring::net::TcpListener),
    /// Unix. tokio-uring 0.5 makes its unix listeners of a type that cannot listen: tokio's own accepts for it.
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// Those of socket, bind and listen; `AddrInUse` when another process has the port.
    pub fn tcp(address: SocketAddr) -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // The unspecified IPv6 address takes IPv4 callers too.
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(Listener::Tcp(tokio_uring::net::TcpListener::from_std(socket.into())))
    }

    /// Listens on a unix socket at `path`, replacing what is there. The caller has made sure nobody else serves it.
    ///
    /// # Errors
    /// Those of unlink, bind and listen.
    pub fn unix(path: &Path) -> io::Result<Listener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Listener::Unix(tokio::net::UnixListener::bind(path)?))
    }

    /// The next connection.
    ///
    /// # Errors
    /// Those of accept; most pass (EMFILE, ECONNABORTED).
    pub async fn accept(&self) -> io::Result<Rc<dyn Stream>> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Latency option only: a socket without it still works.
                let _ = stream.set_nodelay(true);
                Ok(Rc::new(Tcp { stream, peer }))
            }
            Listener::Unix(listener) => {
                let stream = listener.accept().await?.0.into_std()?;
                // The ring waits by itself; on a nonblocking socket it would answer EAGAIN.
                stream.set_nonblocking(false)?;
                Ok(Rc::new(Unix { stream: tokio_uring::net::UnixStream::from_std(stream) }))
            }
        }
    }
}

/// Connects to `host:port` from `source` (or whatever address the kernel picks), trying each address the name has.
///
/// # Errors
/// The resolver's, the last connect's, or `TimedOut`.
pub async fn connect(host: &str, port: u16, source: Option<IpAddr>, timeout: Duration) -> io::Result<Rc<dyn Stream>> {
    let name = host.to_owned();
    // getaddrinfo blocks, and io_uring's connect cannot be bounded as simply as this: both run off the loop.
    let (stream, peer) = tokio::task::spawn_blocking(move || connect_blocking(&name, port, source, timeout))
        .await
        .map_err(io::Error::other)??;
    Ok(Rc::new(Tcp { stream: tokio_uring::net::TcpStream::from_std(stream), peer }))
}

/// The blocking form of [`connect`], for programs without a runtime.
///
/// # Errors
/// As [`connect`].
pub fn connect_blocking(
    host: &str,
    port: u16,
    source: Option<IpAddr>,
    timeout: Duration,
) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    use std::net::ToSocketAddrs;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()?.take(8) {
        match connect_one(address, source, timeout) {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_one(address: SocketAddr, source: Option<IpAddr>, timeout: Duration) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if let Some(source) = source
        && source.is_ipv4() == address.is_ipv4()
    {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&address.into(), timeout)?;
    socket.set_tcp_nodelay(true)?;
    // A peer whose machine died is noticed within seconds, not hours.
    socket.set_tcp_user_timeout(Some(Duration::from_secs(10)))?;
    socket.set_keepalive(true)?;
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2)),
    )?;
    Ok(socket.into())
}
