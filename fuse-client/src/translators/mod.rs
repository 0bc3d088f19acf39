//! Client-side translators, each under the name GlusterFS gives it.

pub mod client;
pub mod distribute;
mod held;
pub mod replicate;
mod work;
