//! Client-side translators, each under the name GlusterFS gives it.

pub mod client;
mod held;
pub mod replicate;
