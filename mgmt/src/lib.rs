//! Peers and volumes: glusterd and the gluster command.

pub mod api;
