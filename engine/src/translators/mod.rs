//! Brick-side translators, each named with GlusterFS's own word.

pub mod access_control;
pub mod index;
