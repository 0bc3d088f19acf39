//! What a pool knows, and how it agrees on it: the model, the commands that change it, the Raft log that orders them, the
//! store that keeps them, and the working directory that shows them in GlusterFS's format.

pub mod command;
pub mod model;
pub mod raft;
pub mod store;
pub mod workdir;
