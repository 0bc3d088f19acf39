//! A glusterd's parts, and the tasks that keep them going.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::{Config as RaftConfig, SnapshotPolicy};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::callers::Callers;
use super::config::Config;
use super::peer::{PeerAnswer, PeerCall, Pong, PoolTag};
use crate::brick::Places;
use crate::net::interfaces::is_local;
use crate::net::link::Links;
use crate::pool::network::{self, Network};
use crate::state::model::Peer;
use crate::state::raft::{NodeId, Place, Raft};
use crate::state::store::{Store, StoreError};
use crate::state::workdir::WorkDir;
use crate::volume::facts::Facts;

/// How often peers are asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long one may take to answer.
const PING_TIMEOUT: Duration = Duration::from_millis(2500);

/// A glusterd.
pub struct Node {
    /// What it was told.
    pub config: Config,
    /// The store.
    pub store: Store,
    /// The working directory.
    pub work: WorkDir,
    /// Where daemons keep their files.
    pub places: Places,
    /// Calls to peers.
    pub links: Links,
    /// What is known of the bricks' file systems.
    pub facts: Facts,
    /// Who may call as a peer.
    pub callers: Callers,
    raft: RefCell<Option<Raft>>,
    seen: RefCell<HashMap<Uuid, Seen>>,
    /// Clients to tell of changed volfiles.
    pub clients: RefCell<Vec<Weak<Client>>>,
    /// Bricks that said they are up: port and pid by path.
    pub signed_in: RefCell<HashMap<String, u16>>,
    /// Woken to look at what should run on this node.
    pub reconcile: Notify,
    /// One change of this node's bricks at a time.
    pub bricks: tokio::sync::Mutex<()>,
    /// One change of this node's heal services at a time.
    pub heal_services: tokio::sync::Mutex<()>,
    /// How the last start of each volume went here, by the volume's count of starts.
    pub start_outcomes: RefCell<HashMap<Uuid, StartOutcome>>,
    /// One change of the pool's membership at a time.
    pub membership: tokio::sync::Mutex<()>,
    /// Set when glusterd is to end.
    pub ending: Cell<bool>,
    /// Restarts of heal services: when next, and after how long a wait.
    pub heal_backoff: RefCell<BTreeMap<String, (Instant, Duration)>>,
    /// Bricks, by volume and path, that failed to start with it: when they are tried again, and after how long a wait.
    pub brick_backoff: RefCell<BTreeMap<(Uuid, String), (Instant, Duration)>>,
    /// Threads that ask about bricks.
    pub asking: crate::volume::about::Asking,
}

/// A volume's count of starts, and how that start went on this node.
pub type StartOutcome = (u64, Result<(), crate::api::Failure>);

struct Seen {
    connected: bool,
    pong: Option<Pong>,
}

/// A connection that fetched volfiles.
pub struct Client {
    /// Records on their way to it.
    pub outgoing: mpsc::Sender<bytes::Bytes>,
    /// What it fetched, and a hash of what it got.
    pub fetched: RefCell<BTreeMap<String, u64>>,
    /// Its address; `None` on the unix socket.
    pub address: Option<IpAddr>,
}

impl Node {
    /// Puts a node together and starts its Raft.
    ///
    /// # Errors
    /// The store's and Raft's, in words.
    pub async fn start(config: Config, store: Store, work: WorkDir) -> Result<Rc<Node>, String> {
        let places = Places { run: config.run_directory.clone(), log: config.log_directory.clone() };
        let links = Links::start(config.bind);
        let node = Rc::new(Node {
            config,
            store,
            work,
            places,
            links,
            facts: Facts::default(),
            callers: Callers::default(),
            raft: RefCell::default(),
            seen: RefCell::default(),
            clients: RefCell::default(),
            signed_in: RefCell::default(),
            reconcile: Notify::new(),
            bricks: tokio::sync::Mutex::new(()),
            heal_services: tokio::sync::Mutex::new(()),
            start_outcomes: RefCell::default(),
            membership: tokio::sync::Mutex::new(()),
            ending: Cell::new(false),
            heal_backoff: RefCell::default(),
            brick_backoff: RefCell::default(),
            asking: Default::default(),
        });
        node.start_raft().await?;
        Ok(node)
    }

    /// This node's UUID.
    pub fn uuid(&self) -> Uuid {
        self.store.local().uuid
    }

    /// The pool it is in.
    pub fn tag(&self) -> PoolTag {
        let local = self.store.local();
        PoolTag { pool: local.pool, epoch: local.epoch, opener: local.opener }
    }

    /// The running Raft; `None` while the node changes pools.
    pub fn raft(&self) -> Option<Raft> {
        self.raft.borrow().clone()
    }

    /// This node as a peer, under the name the pool knows it by.
    pub fn own_peer(&self) -> Peer {
        let uuid = self.uuid();
        self.store.with_state(|state| state.peers.get(&uuid).cloned()).unwrap_or_else(|| Peer {
            uuid,
            hostnames: Vec::new(),
            port: self.config.port,
        })
    }

    /// Starts Raft on the store as it is; a node that was never in a pool founds its own.
    ///
    /// # Errors
    /// Raft's, in words.
    pub async fn start_raft(&self) -> Result<(), String> {
        let config = RaftConfig {
            cluster_name: "ladrillo".to_owned(),
            heartbeat_interval: 300,
            election_timeout_min: 900,
            election_timeout_max: 1400,
            install_snapshot_timeout: 10_000,
            max_payload_entries: 64,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(500),
            max_in_snapshot_log_to_keep: 100,
            ..RaftConfig::default()
        };
        let config = Arc::new(config.validate().map_err(|error| error.to_string())?);
        let local = self.store.local();
        let own = NodeId(local.uuid);
        let network = Network { links: self.links.clone(), store: self.store.clone(), own, tag: Arc::new(self.tag()) };
        let raft = Raft::new(own, config, network, self.store.clone(), self.store.clone())
            .await
            .map_err(|error| error.to_string())?;
        let initialized = raft.is_initialized().await.map_err(|error| error.to_string())?;
        if !initialized && !local.joining {
            let place = Place { host: self.own_peer().name().to_owned(), port: self.config.port };
            raft.initialize(BTreeMap::from([(own, place)])).await.map_err(|error| error.to_string())?;
        }
        *self.raft.borrow_mut() = Some(raft);
        Ok(())
    }

    /// Ends Raft, for a change of pools or for good.
    pub async fn stop_raft(&self) {
        let raft = self.raft.borrow_mut().take();
        if let Some(raft) = raft
            && let Err(error) = raft.shutdown().await
        {
            tracing::warn!("raft did not end cleanly: {error}");
        }
    }

    /// Whether a peer answers.
    pub fn is_connected(&self, uuid: Uuid) -> bool {
        uuid == self.uuid() || self.seen.borrow().get(&uuid).is_some_and(|seen| seen.connected)
    }

    /// The last sign of life of a peer that answers.
    pub fn pong(&self, uuid: Uuid) -> Option<Pong> {
        self.seen.borrow().get(&uuid).filter(|seen| seen.connected).and_then(|seen| seen.pong.clone())
    }

    /// The voters of the pool, this node included.
    pub fn voters(&self) -> Vec<NodeId> {
        self.store.membership().membership().voter_ids().collect()
    }

    /// Peers but this node.
    pub fn others(&self) -> Vec<Peer> {
        let own = self.uuid();
        self.store.with_state(|state| state.peers.values().filter(|peer| peer.uuid != own).cloned().collect())
    }

    /// Calls a peer.
    ///
    /// # Errors
    /// The link's.
    pub async fn call(&self, peer: &Peer, message: &PeerCall, timeout: Duration) -> io::Result<PeerAnswer> {
        let place = Place { host: peer.name().to_owned(), port: peer.port };
        network::call(&self.links, &place, message, timeout).await
    }

    /// Asks a peer for a sign of life, now.
    pub async fn ping(&self, peer: &Peer) -> bool {
        let message = PeerCall::Ping { tag: self.tag(), from: self.uuid() };
        let answer = self.call(peer, &message, PING_TIMEOUT).await;
        let pong = match answer {
            Ok(PeerAnswer::Pong(pong)) if pong.uuid == peer.uuid => Some(pong),
            _ => None,
        };
        let connected = pong.is_some();
        let before = self.seen.borrow_mut().insert(peer.uuid, Seen { connected, pong });
        if before.is_none_or(|before| before.connected != connected) {
            let word = if connected { "connected" } else { "disconnected" };
            tracing::info!("peer {} ({}) {word}", peer.name(), peer.uuid);
        }
        connected
    }

    /// Asks every peer for signs of life, until the end.
    pub async fn keep_pinging(self: Rc<Self>) {
        while !self.ending.get() {
            let others = self.others();
            self.seen.borrow_mut().retain(|uuid, _| others.iter().any(|peer| peer.uuid == *uuid));
            let pings = others.iter().map(|peer| self.ping(peer));
            futures::future::join_all(pings).await;
            self.clone().look_for_returners();
            self.refresh_callers();
            tokio::time::sleep(PING_EVERY).await;
        }
    }

    /// Whether `host` means this node.
    pub async fn is_self(&self, host: &str) -> bool {
        let own = self.own_peer();
        if own.hostnames.iter().any(|name| name == host) {
            return true;
        }
        let others = self.others();
        if others.iter().any(|peer| peer.hostnames.iter().any(|name| name == host)) {
            return false;
        }
        let bind = self.config.bind;
        resolve(host).await.iter().any(|address| match bind {
            Some(bind) => *address == bind,
            None => is_local(*address),
        })
    }

    /// The peer `host` means: by name, else by address.
    pub async fn find_peer(&self, host: &str) -> Option<Peer> {
        let peers: Vec<Peer> = self.store.with_state(|state| state.peers.values().cloned().collect());
        if let Some(peer) = peers.iter().find(|peer| peer.hostnames.iter().any(|name| name == host)) {
            return Some(peer.clone());
        }
        let wanted = resolve(host).await;
        if wanted.is_empty() {
            return None;
        }
        for peer in peers {
            for name in &peer.hostnames {
                if resolve(name).await.iter().any(|address| wanted.contains(address)) {
                    return Some(peer);
                }
            }
        }
        let local = match self.config.bind {
            Some(bind) => wanted.contains(&bind),
            None => wanted.iter().any(|address| is_local(*address)),
        };
        local.then(|| self.own_peer())
    }

    /// Writes the working directory; failures are logged, the next change tries again.
    pub fn export(&self) {
        let local = self.store.local();
        // A copy: the log must go on being applied while files are written.
        if let Err(error) = self.work.export(&self.store.state(), &local, &self.facts.known()) {
            tracing::error!("working directory {}: {error}", self.work.root().display());
        }
    }

    /// Changes what only this node knows.
    ///
    /// # Errors
    /// The store's.
    pub fn update_local(&self, change: impl FnOnce(&mut crate::state::store::Local)) -> Result<(), StoreError> {
        self.store.update_local(change)
    }
}

/// The addresses of a name; none when it has none.
pub async fn resolve(host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    let name = host.to_owned();
    let resolved = tokio::task::spawn_blocking(move || {
        use std::net::ToSocketAddrs;
        (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).take(16).collect())
    });
    match tokio::time::timeout(Duration::from_secs(10), resolved).await {
        Ok(Ok(Ok(addresses))) => addresses,
        _ => Vec::new(),
    }
}
