//! Connections of every kind: who asks names an address, and this knows who makes it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ladrillo_translator::LocalFuture;
use ladrillo_transport::{Address, Connector, Kind, Transport, Via, sdp, verbs};

use super::tcp::connect_kernel_stream;
use super::{TcpConnector, resolve, timeout};

/// Makes connections on whatever transport the address names.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyConnector;

impl Connector for AnyConnector {
    fn connect<'a>(&'a self, address: &'a Address, limit: Duration) -> LocalFuture<'a, io::Result<Arc<dyn Transport>>> {
        let (host, port, kind) = match address {
            Address::Rdma { host, port } => (host, *port, Kind::Rdma),
            Address::Sdp { host, port, via } => (host, *port, Kind::Sdp(*via)),
            Address::Tcp { .. } | Address::Unix(_) | Address::Memory(_) => return TcpConnector.connect(address, limit),
        };
        Box::pin(async move {
            match timeout(limit, to_first(host, port, kind)).await {
                Ok(connected) => connected.map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}"))),
                Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address}: {elapsed}"))),
            }
        })
    }
}

/// Connects to the first of the host's addresses that answers.
async fn to_first(host: &str, port: u16, kind: Kind) -> io::Result<Arc<dyn Transport>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for candidate in resolve(host, port).await? {
        let connected = match kind {
            Kind::Rdma => connect_verbs(candidate).await,
            Kind::Sdp(via) => connect_stream(candidate, via).await,
            Kind::Tcp => Err(unavailable(kind)),
        };
        match connected {
            Ok(transport) => return Ok(transport),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(feature = "verbs")]
async fn connect_verbs(address: SocketAddr) -> io::Result<Arc<dyn Transport>> {
    verbs::connect_by(&super::rdma::driver()?, address).await
}

#[cfg(not(feature = "verbs"))]
async fn connect_verbs(address: SocketAddr) -> io::Result<Arc<dyn Transport>> {
    verbs::connect(address).await
}

async fn connect_stream(address: SocketAddr, via: Via) -> io::Result<Arc<dyn Transport>> {
    match via {
        Via::Rsocket => sdp::connect(address).await,
        Via::Smc | Via::InetSdp => connect_kernel_stream(address, via).await,
    }
}

/// The error of a transport that this program was built without.
fn unavailable(kind: Kind) -> io::Error {
    let text = format!(
        "this program was built without the transport {kind}: mount with -o transport=tcp, or use a build that has it"
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}
