//! Peers and volumes: glusterd and the gluster command.

pub mod api;
pub mod brick;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod fuzzing;
pub mod net;
pub mod option;
pub mod pool;
pub mod state;
pub mod volgen;
pub mod volume;
