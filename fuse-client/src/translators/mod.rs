//! Client-side translators, each under the name GlusterFS gives it.

pub mod client;
pub mod distribute;
pub mod gfid_access;
pub(crate) mod held;
pub mod meta;
pub mod open_behind;
pub mod replicate;
pub(crate) mod whereabouts;
pub(crate) mod work;
