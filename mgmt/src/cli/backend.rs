//! The way to glusterd, and what stands in for it in tests.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::api::{Outcome, Request};
use crate::client::{self, Target};

/// Who answers commands.
pub(super) trait Backend {
    /// Whether a connection can be made at all: known before a command's words are looked at.
    fn reachable(&mut self) -> bool;

    /// Asks, and waits at most `timeout`.
    fn call(&mut self, request: &Request, timeout: Duration) -> io::Result<Outcome>;
}

/// A real glusterd.
pub(super) struct Glusterd {
    target: Target,
}

impl Glusterd {
    pub(super) fn new(target: Target) -> Glusterd {
        Glusterd { target }
    }
}

impl Backend for Glusterd {
    fn reachable(&mut self) -> bool {
        match &self.target {
            Target::Unix(path) => UnixStream::connect(path).is_ok(),
            Target::Tcp { host, port } => (host.as_str(), *port).to_socket_addrs().is_ok_and(|mut addresses| {
                addresses.any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(10)).is_ok())
            }),
        }
    }

    fn call(&mut self, request: &Request, timeout: Duration) -> io::Result<Outcome> {
        client::call(&self.target, request, timeout)
    }
}
