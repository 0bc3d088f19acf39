//! The GlusterFS programs, both sides of each.

pub mod fop4;
