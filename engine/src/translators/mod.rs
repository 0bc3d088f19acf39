//! Brick-side translators, each named with GlusterFS's own word.

pub mod access_control;
pub mod arbiter;
mod date;
pub mod index;
pub mod io_stats;
pub mod read_only;
#[cfg(test)]
pub(crate) mod testing;
pub mod trash;
pub mod upcall;
pub mod worm;
