//! glusterd's sockets: io_uring under a thin layer, RPC records above it.

pub mod interfaces;
pub mod link;
pub mod record;
pub mod resolve;
pub mod rpc;
pub mod socket;
