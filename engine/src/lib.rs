//! The brick: glusterfsd.
//!
//! [`storage`] is the directory on disk, [`translators`] stand over it, [`graph`] stacks them as a volfile says,
//! [`server`] lets clients in, [`daemon`] is the process around it.
#![warn(missing_docs)]

pub mod daemon;
pub mod graph;
pub mod host_names;
pub mod runtime;
pub mod server;
pub mod storage;
pub mod translators;
