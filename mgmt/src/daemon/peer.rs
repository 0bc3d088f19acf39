//! What glusterds say to each other: the peer program's calls, as JSON.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::{About, BrickName, Failure, VolumeStatus};
use crate::state::command::{Applied, Command};
use crate::state::model::{Peer, State};
use crate::state::raft::{NodeId, Types};

/// Which pool, and which epoch of it, a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTag {
    /// The pool.
    pub pool: Uuid,
    /// Its epoch.
    pub epoch: u64,
    /// Who opened the epoch.
    pub opener: Uuid,
}

/// A call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum PeerCall {
    /// Who are you, and how do you see me?
    Hello,
    /// Leave your own (empty) pool, or your older epoch of mine, and wait for my log.
    Join {
        tag: PoolTag,
        from: Peer,
        you: Peer,
        /// The pool's nodes: any of them may lead before the log has come.
        #[serde(default)]
        members: Vec<Peer>,
    },
    /// You are no longer of that pool: found one of your own.
    Leave {
        tag: PoolTag,
    },
    /// Are you there?
    Ping {
        tag: PoolTag,
        from: Uuid,
    },
    Append {
        tag: PoolTag,
        from: NodeId,
        request: AppendEntriesRequest<Types>,
    },
    Vote {
        tag: PoolTag,
        from: NodeId,
        request: VoteRequest<NodeId>,
    },
    Snapshot {
        tag: PoolTag,
        from: NodeId,
        request: InstallSnapshotRequest<Types>,
    },
    /// To the leader: put this into the log.
    Propose {
        tag: PoolTag,
        command: Command,
    },
    /// To the leader: take this node in.
    AddMember {
        tag: PoolTag,
        peer: Peer,
    },
    /// To the leader: put that node out.
    RemoveMember {
        tag: PoolTag,
        uuid: Uuid,
    },
    /// Check, before anything is decided, what only you can check.
    Stage {
        tag: PoolTag,
        stage: Stage,
    },
    /// The log is decided up to `index`: do your part for the volume and say how it went.
    Act {
        tag: PoolTag,
        index: u64,
        act: Act,
    },
    /// Your lines of `volume status`.
    Status {
        tag: PoolTag,
        volume: Option<String>,
        #[serde(default)]
        about: Option<About>,
        #[serde(default)]
        brick: Option<String>,
    },
}

/// What a node checks of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Stage {
    /// These directories are to become bricks of a volume.
    Create { volume: String, id: Uuid, bricks: Vec<BrickName>, force: bool },
    /// The volume is to start.
    Start { volume: String, force: bool },
}

/// What a node does after a decision.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Act {
    /// Mark the directories as the volume's.
    Created {
        volume: String,
    },
    Started {
        volume: String,
    },
    Stopped {
        volume: String,
    },
    /// Stop bricks that were taken out.
    Shrunk {
        volume: String,
    },
    /// Have bricks write state dumps.
    Dump {
        volume: String,
    },
    /// Start an index (or full) heal.
    Heal {
        volume: String,
        full: bool,
    },
    /// Nothing but having applied the log.
    Applied,
}

/// An answer. One variant for each kind of result.
#[derive(Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum PeerAnswer {
    Hello(Hello),
    /// What the node knew before it joined, for merging.
    Joined(Box<State>),
    Done,
    Pong(Pong),
    Append(AppendEntriesResponse<NodeId>),
    Vote(VoteResponse<NodeId>),
    Snapshot(InstallSnapshotResponse<NodeId>),
    Proposed {
        index: u64,
        applied: Applied,
    },
    Staged(Result<(), Failure>),
    Acted(Result<(), Failure>),
    Status(Vec<VolumeStatus>),
    /// The call could not be taken, and why.
    Refused(Refusal),
}

/// Why a call was not taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refusal {
    #[error("that node is in another pool")]
    OtherPool(PoolTag),
    #[error("no leader: no majority of the pool's nodes is reachable")]
    NoLeader,
    #[error("another node leads")]
    NotLeader,
    #[error("{0}")]
    Failed(Failure),
    #[error("the node is starting or leaving")]
    NotReady,
    #[error("{0}")]
    Other(String),
}

/// Who a node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its pool.
    pub tag: PoolTag,
    /// Other peers it has.
    pub peers: usize,
    /// Volumes it has.
    pub volumes: usize,
    /// The caller's name as that node sees it.
    pub you: String,
}

/// A sign of life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pong {
    /// The node's UUID.
    pub uuid: Uuid,
    /// Its pool.
    pub tag: PoolTag,
    /// Whether it knows of the caller as a member.
    pub knows_you: bool,
    /// The leader it follows.
    pub leader: Option<Uuid>,
}
