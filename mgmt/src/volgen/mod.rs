//! Volfiles: from a volume's bricks and options to the graphs its bricks, mounts and heal services run, as GlusterFS 10.3
//! generates them, line by line.

mod brick;
mod client;
pub mod graph;

pub use brick::{BrickContext, brick};
pub use client::{client, heal};

use crate::option;
use crate::state::model::{State, Volume};

/// Most executors of a brick.
const MAX_EVENT_THREADS: u32 = 64;

/// An option's value for a graph: the volume's, else the pool's. Not there for one without effect.
fn value<'a>(state: &'a State, volume: &'a Volume, key: &str) -> Option<&'a str> {
    if option::is_inert(key) {
        return None;
    }
    let value = volume.option(key).or_else(|| state.global_option(key))?;
    // More would only be refused by the brick; GlusterFS allows 1024.
    let is_above = key == "server.event-threads" && value.parse().is_ok_and(|count: u32| count > MAX_EVENT_THREADS);
    Some(if is_above { "64" } else { value })
}

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
