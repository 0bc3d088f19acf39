//! RPC records over RDMA: not in this build (cargo feature `verbs`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::{Listener, Transport};

/// Says that there are no verbs here.
///
/// # Errors
/// Always.
pub fn check() -> Result<Vec<String>, String> {
    Err("this program was built without verbs (cargo feature `verbs`)".to_owned())
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, check().err().unwrap_or_default())
}

/// Listens on nothing.
///
/// # Errors
/// Always.
pub fn listen(_address: SocketAddr) -> io::Result<Box<dyn Listener>> {
    Err(unsupported())
}

/// Connects to nothing.
///
/// # Errors
/// Always.
pub async fn connect(_address: SocketAddr) -> io::Result<Arc<dyn Transport>> {
    Err(unsupported())
}
