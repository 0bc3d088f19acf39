//! Host names to addresses, on a thread of its own: the system's resolver blocks.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::channel::oneshot;

/// Most look-ups at a time; a dead name server holds each for tens of seconds.
const MAX_LOOKUPS: usize = 16;
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// The addresses of `host`, in the resolver's order.
///
/// # Errors
/// The name is unknown, the resolver fails, or too many look-ups are under way.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = literal.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if LOOKUPS.fetch_add(1, Ordering::SeqCst) >= MAX_LOOKUPS {
        LOOKUPS.fetch_sub(1, Ordering::SeqCst);
        return Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{host}: too many name look-ups under way")));
    }
    let (answer, answered) = oneshot::channel();
    let name = host.to_owned();
    let spawned = std::thread::Builder::new().name("resolver".into()).spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs().map(|addresses| addresses.collect::<Vec<_>>());
        LOOKUPS.fetch_sub(1, Ordering::SeqCst);
        let _ = answer.send(found); // who asked may have given up
    });
    if let Err(error) = spawned {
        LOOKUPS.fetch_sub(1, Ordering::SeqCst);
        return Err(error);
    }
    match answered.await {
        Ok(Ok(addresses)) if addresses.is_empty() => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("{host}: no address")))
        }
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(io::Error::new(error.kind(), format!("{host}: {error}"))),
        Err(_) => Err(io::Error::other(format!("{host}: the resolver thread died"))),
    }
}
