//! The client: glusterfs.
#![warn(missing_docs)]

pub mod api;
pub mod executor;
pub mod front;
#[doc(hidden)]
pub mod fuzzing;
pub mod graph;
pub mod heal;
pub mod process;
pub mod simulate;
pub mod switch;
pub mod translators;
