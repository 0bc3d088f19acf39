//! Volfiles: from a volume's bricks and options to the graphs its bricks, mounts and heal services run, as GlusterFS 10.3
//! generates them, line by line.

mod brick;
mod client;
pub mod graph;

pub use brick::{BrickContext, brick};
pub use client::{client, heal};

/// The names of a volume's files in its directory.
pub mod names {
    use crate::state::model::{Brick, Volume};

    /// Key and file (without `.vol`) of a brick's volfile: `V.HOST.a-b-c`.
    pub fn brick(volume: &Volume, brick: &Brick) -> String {
        format!("{}.{}.{}", volume.name, brick.host, brick.flat_path())
    }
}

#[cfg(test)]
mod tests;
