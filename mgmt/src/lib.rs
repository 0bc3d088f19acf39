//! Peers and volumes: glusterd and the gluster command.

pub mod api;
pub mod cli;
pub mod client;
pub mod net;
