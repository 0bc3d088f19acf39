//! Distribute over in-memory bricks.

mod bench;
mod directories;
mod down;
mod files;
mod model;
mod replicated;
mod vectors;
