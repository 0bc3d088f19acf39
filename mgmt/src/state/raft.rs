//! The Raft types of the pool.

use std::fmt;
use std::io::Cursor;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command::{Applied, Command};

/// A node of the pool, by its UUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub Uuid);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for NodeId {
    fn from(number: u64) -> NodeId {
        NodeId(Uuid::from_u64_pair(0, number))
    }
}

/// Where a node's glusterd listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

openraft::declare_raft_types!(
    /// The pool's Raft.
    pub Types:
        D = Command,
        R = Applied,
        NodeId = NodeId,
        Node = Place,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
);

/// The running Raft of a node.
pub type Raft = openraft::Raft<Types>;
