//! Peers and volumes: glusterd and the gluster command.

pub mod api;
pub mod client;
pub mod net;
