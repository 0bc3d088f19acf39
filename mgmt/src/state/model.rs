//! The pool's state: peers, volumes, pool-wide options.

use std::collections::BTreeMap;

use ladrillo_transport::kind::VIA_OPTION;
use ladrillo_transport::{Kind, Via};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The operating version we report: GlusterFS 10's. Source: GD_OP_VERSION_10_0.
pub const OP_VERSION: u32 = 100_000;

/// GlusterFS's default glusterd port.
pub const GLUSTERD_PORT: u16 = 24007;

/// All a pool agrees on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Members, the local node included.
    pub peers: BTreeMap<Uuid, Peer>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Options set for `all`, newest first.
    pub global_options: Vec<(String, String)>,
    /// Counts changes of `global_options` (file `options`, global-option-version).
    pub global_version: u32,
}

/// A member of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its UUID (glusterd.info).
    pub uuid: Uuid,
    /// Its names; the first is the one to show.
    pub hostnames: Vec<String>,
    /// Where its glusterd listens.
    pub port: u16,
}

impl Peer {
    /// The name to show and to reach it by.
    pub fn name(&self) -> &str {
        self.hostnames.first().map_or("localhost", String::as_str)
    }
}

/// A volume's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Never started.
    Created,
    /// Its bricks should run.
    Started,
    /// They should not.
    Stopped,
}

impl Status {
    /// GlusterFS's number. Source: glusterd_volume_status.
    pub fn number(self) -> i32 {
        match self {
            Status::Created => 0,
            Status::Started => 1,
            Status::Stopped => 2,
        }
    }

    /// The status of that number.
    pub fn from_number(number: i64) -> Option<Status> {
        match number {
            0 => Some(Status::Created),
            1 => Some(Status::Started),
            2 => Some(Status::Stopped),
            _ => None,
        }
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its UUID, on every brick as `trusted.glusterfs.volume-id`.
    pub id: Uuid,
    /// Where it is in its life.
    pub status: Status,
    /// Copies of each file; 1 = plain.
    pub replica: u32,
    /// How many of the copies are arbiters: 0 or 1, the last of each set.
    #[serde(default)]
    pub arbiter: u32,
    /// Bricks in order; `replica` neighbours are copies of each other.
    pub bricks: Vec<Brick>,
    /// `tcp`, `rdma`, `tcp,rdma` or `sdp`.
    pub transport: String,
    /// Options set, in the order `volume info` shows them (newest first).
    pub options: Vec<(String, String)>,
    /// Counts changes (the info file's `version`).
    pub version: u32,
    /// Counts `start` and `start force`: a node whose bricks were last started for a lower count starts what is down.
    pub start_count: u64,
    /// Credentials the pool's own processes present to bricks.
    pub username: String,
    /// Their password.
    pub password: String,
}

impl Volume {
    /// GlusterFS's type number: 0 distribute, 2 replicate. Source: gf_cluster_type.
    pub fn type_number(&self) -> u32 {
        if self.replica > 1 { 2 } else { 0 }
    }

    /// The value of an option that was set.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Sets an option: one already there keeps its place, a new one comes first, as GlusterFS's dictionaries do it.
    pub fn set_option(&mut self, key: &str, value: &str) {
        match self.options.iter_mut().find(|(name, _)| name == key) {
            Some(slot) => slot.1 = value.to_owned(),
            None => self.options.insert(0, (key.to_owned(), value.to_owned())),
        }
    }

    /// Whether the brick at `index` is an arbiter: it keeps names and marks, no data.
    pub fn is_arbiter(&self, index: usize) -> bool {
        let copies = self.replica.max(1) as usize;
        self.arbiter > 0 && index % copies == copies - 1
    }

    /// What carries the transport `sdp`.
    pub fn via(&self) -> Via {
        Via::parse(self.option(VIA_OPTION)).unwrap_or_default()
    }

    /// Its transports, that of mounts that ask for none first.
    pub fn kinds(&self) -> Vec<Kind> {
        Kind::parse_list(&self.transport, self.via()).unwrap_or_else(|_| vec![Kind::Tcp])
    }

    /// Whether the volume keeps copies, so that it has a heal service.
    pub fn is_replicated(&self) -> bool {
        self.replica > 1
    }
}

/// A directory lent to a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brick {
    /// Host as the operator named it.
    pub host: String,
    /// Absolute directory.
    pub path: String,
    /// The peer it is on.
    pub host_uuid: Uuid,
    /// `VOLUME-client-N`: the name in marks (`trusted.afr.VOLUME-client-N`); stays with the brick.
    pub id: String,
}

/// A transport as a volume has it: `tcp`, `rdma`, `tcp,rdma` (whatever the order) or `sdp`; in any case, as GlusterFS
/// takes it. `None` for anything else.
pub fn transport_name(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Some("tcp"),
        "rdma" => Some("rdma"),
        "tcp,rdma" | "rdma,tcp" => Some("tcp,rdma"),
        "sdp" => Some("sdp"),
        _ => None,
    }
}

impl Brick {
    /// Its name at the portmapper on one of the volume's transports: its path, that of the first transport; the path and
    /// the transport's suffix for another.
    pub fn portmap_name(&self, volume: &Volume, kind: Kind) -> String {
        match volume.kinds().first() {
            Some(first) if *first != kind => format!("{}{}", self.path, kind.portmap_suffix()),
            _ => self.path.clone(),
        }
    }

    /// The path as file names have it: `/` becomes `-`, without the leading one. Source: GLUSTERD_REMOVE_SLASH_FROM_PATH.
    pub fn flat_path(&self) -> String {
        self.path.trim_start_matches('/').replace('/', "-")
    }

    /// `HOST:PATH`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.path)
    }
}

impl State {
    /// Whether `uuid` has a brick in any volume.
    pub fn hosts_bricks(&self, uuid: Uuid) -> bool {
        self.volumes.values().any(|volume| volume.bricks.iter().any(|brick| brick.host_uuid == uuid))
    }

    /// A pool-wide option's value.
    pub fn global_option(&self, key: &str) -> Option<&str> {
        self.global_options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}
