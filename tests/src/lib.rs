//! Whole clusters on one machine, for the tests in `tests/` and for `make demo`.
//!
//! A [`Cluster`] is a handful of "machines", each with network, mount, host name and process namespaces of its own, a
//! wire to a common switch, the standard paths and ports, and names `debian1`, `debian2`... All of them live inside one
//! outer namespace of the test, so that runs side by side, and the user's own networks and daemons, never meet. When
//! the test ends, however it ends, the kernel takes all of it down.
//!
//! Nothing in here knows our own crates: the tests use the finished programs, and can use a stock GlusterFS instead.

mod brick;
mod cluster;
mod front_end;
pub mod holder;
mod node;
pub mod posix;
mod process;
mod volume;
mod wait;

pub use brick::{BrickTree, Entry, compare_bricks};
pub use cluster::{Cluster, ClusterBuilder};
pub use front_end::{RingAllowed, for_each_front_end};
pub use node::{Node, Programs};
pub use process::{Outcome, Running};
pub use volume::{BrickStatus, heal_counts, volume_status, wait_until_healed};
pub use wait::{wait_for, wait_until};
