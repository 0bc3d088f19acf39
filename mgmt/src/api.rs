//! What the command line asks of glusterd, and what it answers: the contract between `gluster` and `glusterd`.
//!
//! Carried as JSON in an RPC program of our own over glusterd's unix socket (or its TCP port with `--remote-host`).
//! Answers hold facts; turning them into GlusterFS's text or XML is the command line's business.

use serde::{Deserialize, Serialize};

/// A command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Request {
    PeerProbe {
        host: String,
    },
    PeerDetach {
        host: String,
        force: bool,
    },
    /// Everybody but the node that answers.
    PeerStatus,
    /// Everybody, this node included.
    PoolList,
    VolumeCreate {
        name: String,
        /// Copies of each file, an arbiter's included; 1 = plain.
        replica: u32,
        /// 1 = the last brick of each set keeps names and marks only.
        #[serde(default)]
        arbiter: u32,
        bricks: Vec<BrickName>,
        transport: String,
        force: bool,
    },
    VolumeStart {
        name: String,
        force: bool,
    },
    VolumeStop {
        name: String,
        force: bool,
    },
    VolumeDelete {
        name: String,
    },
    /// `None` = all.
    VolumeInfo {
        name: Option<String>,
    },
    VolumeList,
    VolumeStatus {
        name: Option<String>,
        /// What else to say of each brick.
        #[serde(default)]
        about: Option<About>,
        /// Only of this brick (`HOST:PATH`).
        #[serde(default)]
        brick: Option<String>,
    },
    /// Starts or stops counting what bricks do.
    VolumeProfile {
        name: String,
        on: bool,
    },
    /// Takes locks from whoever holds or waits for them.
    ClearLocks {
        name: String,
        path: String,
        /// `blocked`, `granted` or `all`.
        kind: String,
        /// `inode`, `entry` or `posix`.
        lock: String,
        /// A range or a name, which only these locks have.
        only: Option<String>,
    },
    /// Has the volume's bricks write state dumps.
    VolumeStatedump {
        name: String,
    },
    /// Appends whole sets of bricks.
    AddBricks {
        name: String,
        replica: Option<u32>,
        bricks: Vec<BrickName>,
        force: bool,
    },
    /// Takes whole sets of bricks out, with what is on them.
    RemoveBricks {
        name: String,
        replica: Option<u32>,
        bricks: Vec<BrickName>,
    },
    VolumeSet {
        name: String,
        options: Vec<(String, String)>,
    },
    VolumeReset {
        name: String,
        key: Option<String>,
        force: bool,
    },
    VolumeGet {
        name: String,
        key: String,
    },
    /// Starts an index (or full) heal on all nodes.
    VolumeHeal {
        name: String,
        full: bool,
    },
    /// How bricks mark changed directories: by the names that changed, or as a whole.
    GranularEntryHeal {
        name: String,
        on: bool,
    },
    /// The volfile a mount of `key` would get.
    GetSpec {
        key: String,
    },
    /// This node's UUID.
    UuidGet,
    /// This node's working directory (`/var/lib/glusterd`), as [`Answer::Text`].
    GetWorkingDirectory,
}

/// What can be asked about a brick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum About {
    /// Its file system.
    Detail,
    Clients,
    Mem,
    Inode,
    Fd,
    Callpool,
    /// What is used most, of one kind.
    Top {
        /// GlusterFS's number of the list: 1 open, 2 read, 3 write, 4 opendir, 5 readdir, 6 read-perf, 7 write-perf.
        list: u32,
        /// Most members, up to 100.
        members: u32,
        /// Also how fast the brick reads (or writes) so many blocks of that size, in bytes.
        measure: Option<(u32, u32)>,
    },
    /// Nothing: the lists begin anew.
    ClearTop,
    /// What it counted while profiled.
    Profile {
        op: ProfileInfo,
        /// Without beginning a new interval.
        peek: bool,
    },
    /// How many entries its index says are to be healed.
    HealCount,
}

/// Which figures of a profile. The numbers are GlusterFS's (gf1_cli_info_op).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ProfileInfo {
    All = 1,
    Incremental = 2,
    Cumulative = 3,
    Clear = 4,
}

/// `HOST:PATH` as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BrickName {
    pub host: String,
    pub path: String,
}

/// The outcome of a command.
pub type Outcome = Result<Answer, Failure>;

/// Why a command failed, in GlusterFS's words where it has some (without the leading `volume create: V: failed: `).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[allow(missing_docs)]
pub struct Failure {
    /// GlusterFS's op_ret (-1).
    pub op_ret: i32,
    pub op_errno: i32,
    pub message: String,
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Answer {
    /// Done, with a note where GlusterFS prints one ("Host debian2 port 24007 already in peer list").
    Done {
        note: Option<String>,
    },
    Peers(Vec<PeerInfo>),
    /// Volume created/started/...: its id.
    Volume {
        name: String,
        id: String,
    },
    VolumeInfo(Vec<VolumeInfo>),
    Names(Vec<String>),
    Status(Vec<VolumeStatus>),
    Options(Vec<(String, String)>),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PeerInfo {
    pub uuid: String,
    /// First is the name to show; the rest are "Other names".
    pub hostnames: Vec<String>,
    pub connected: bool,
    /// GlusterFS's state number (3 = Peer in Cluster) and text.
    pub state: i32,
    pub state_text: String,
    /// Whether this is the node that answers (pool list shows it as `localhost`).
    pub is_self: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VolumeInfo {
    pub name: String,
    pub id: String,
    /// 0 Created, 1 Started, 2 Stopped.
    pub status: i32,
    /// Copies of each file, an arbiter's included.
    pub replica: u32,
    /// Arbiters among them: 0 or 1, the last of each set.
    #[serde(default)]
    pub arbiter: u32,
    pub bricks: Vec<BrickInfo>,
    pub transport: String,
    /// Reconfigured options, in GlusterFS's order.
    pub options: Vec<(String, String)>,
    pub snapshot_count: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BrickInfo {
    pub host: String,
    pub path: String,
    pub host_uuid: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VolumeStatus {
    pub name: String,
    pub processes: Vec<ProcessStatus>,
}

/// A line of `volume status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ProcessStatus {
    /// "Brick" or "Self-heal Daemon".
    pub kind: String,
    /// Host (`localhost` for the answering node's own services, as GlusterFS prints).
    pub host: String,
    /// Brick directory; the host for services.
    pub path: String,
    pub peer_uuid: String,
    pub online: bool,
    pub tcp_port: Option<u16>,
    /// Its port of RDMA: of the transports `rdma` and `sdp`.
    #[serde(default)]
    pub rdma_port: Option<u16>,
    pub pid: Option<u32>,
    /// What was asked about it, under GlusterFS's keys; empty when nothing was, or it did not answer.
    #[serde(default)]
    pub facts: std::collections::BTreeMap<String, String>,
}

impl Failure {
    /// A failure as GlusterFS reports most of them: op_ret -1.
    pub fn new(op_errno: i32, message: impl Into<String>) -> Failure {
        Failure { op_ret: -1, op_errno, message: message.into() }
    }
}
