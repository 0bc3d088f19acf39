//! Who is in the pool: probing, detaching, joining, leaving; and, of two nodes, going on alone and meeting again.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use openraft::ChangeMembers;
use uuid::Uuid;

use crate::api::{Answer, Failure, Outcome};
use crate::daemon::node::Node;
use crate::daemon::peer::{Hello, PeerAnswer, PeerCall, PoolTag, Refusal};
use crate::pool::network;
use crate::state::command::{Command, hosts_bricks};
use crate::state::model::{Peer, State};
use crate::state::raft::{NodeId, Place};

/// How long a new member may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(20);
/// How long a peer may take to answer a call that changes its pool.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);

fn not_connected() -> Failure {
    Failure::new(libc::ENOTCONN, "Probe returned with Transport endpoint is not connected")
}

impl Node {
    /// `peer probe HOST`.
    pub async fn probe(&self, host: &str) -> Outcome {
        if !crate::option::is_host_name(host) && host.parse::<std::net::IpAddr>().is_err() {
            return Err(Failure::new(libc::EINVAL, format!("{host} is an invalid address")));
        }
        if self.is_self(host).await {
            return Ok(Answer::Done { note: Some("Probe on localhost not needed".to_owned()) });
        }
        let port = self.config.port;
        let known = format!("Host {host} port {port} already in peer list");
        let named = |peer: &Peer| peer.hostnames.iter().any(|name| name == host);
        if self.others().iter().any(named) {
            return Ok(Answer::Done { note: Some(known) });
        }
        let place = Place { host: host.to_owned(), port };
        let hello = match network::call(&self.links, &place, &PeerCall::Hello, Duration::from_secs(5)).await {
            Ok(PeerAnswer::Hello(hello)) => hello,
            Ok(_) => return Err(not_connected()),
            Err(error) => {
                tracing::warn!("probe of {host}: {error}");
                self.links.forget(host, port);
                return Err(match error.kind() {
                    std::io::ErrorKind::Unsupported => {
                        Failure::new(libc::EPROTONOSUPPORT, format!("Probe of {host} failed: {error}"))
                    }
                    _ => not_connected(),
                });
            }
        };
        if hello.uuid == self.uuid() {
            return Ok(Answer::Done { note: Some("Probe on localhost not needed".to_owned()) });
        }
        let tag = self.tag();
        if hello.tag.pool == tag.pool
            && let Some(mut peer) = self.store.with_state(|state| state.peers.get(&hello.uuid).cloned())
        {
            // Another name of a member.
            peer.hostnames.push(host.to_owned());
            peer.hostnames.truncate(16);
            self.propose(Command::PutPeer(peer)).await?;
            return Ok(Answer::Done { note: None });
        }
        if hello.tag.pool != tag.pool && (hello.peers > 0 || hello.volumes > 0) {
            return Err(Failure::new(
                libc::EINVAL,
                format!("{host} is either already part of another cluster or having volumes configured"),
            ));
        }
        let mut own = self.own_peer();
        if own.hostnames.is_empty() {
            own.hostnames.push(hello.you);
            self.propose(Command::PutPeer(own)).await?;
        }
        let peer = Peer { uuid: hello.uuid, hostnames: vec![host.to_owned()], port };
        self.at_leader(PeerCall::AddMember { tag, peer: peer.clone() }).await?;
        self.ping(&peer).await;
        Ok(Answer::Done { note: None })
    }

    /// `peer detach HOST [force]`.
    pub async fn detach(&self, host: &str, force: bool) -> Outcome {
        let Some(peer) = self.find_peer(host).await else {
            return Err(Failure::new(libc::EINVAL, format!("{host} is not part of cluster")));
        };
        if peer.uuid == self.uuid() {
            return Err(Failure::new(libc::EINVAL, format!("{host} is localhost")));
        }
        if self.store.with_state(|state| state.hosts_bricks(peer.uuid)) {
            return Err(hosts_bricks(host));
        }
        if !force && self.others().iter().any(|peer| !self.is_connected(peer.uuid)) {
            return Err(Failure::new(libc::ENOTCONN, "One of the peers is probably down. Check with 'peer status'"));
        }
        self.at_leader(PeerCall::RemoveMember { tag: self.tag(), uuid: peer.uuid }).await?;
        self.links.forget(peer.name(), peer.port);
        Ok(Answer::Done { note: None })
    }

    /// Has the leader, here or elsewhere, change the membership.
    async fn at_leader(&self, call: PeerCall) -> Result<(), Failure> {
        // Two tries: leadership may move while we ask.
        let mut last = Refusal::NoLeader;
        for _ in 0..20 {
            let Some(raft) = self.raft() else { return Err(Failure::new(libc::EAGAIN, "this node is changing pools")) };
            let answer = match raft.current_leader().await {
                Some(leader) if leader.0 == self.uuid() => self.change_members(call.clone()).await,
                Some(leader) if !self.is_connected(leader.0) => Err(Refusal::NoLeader),
                Some(leader) => {
                    let Some(place) = self.place_of(leader.0) else { return Err(self.no_quorum(&Refusal::NoLeader)) };
                    match network::call(&self.links, &place, &call, CATCH_UP * 2).await {
                        Ok(PeerAnswer::Done) => Ok(()),
                        Ok(PeerAnswer::Refused(refusal)) => Err(refusal),
                        Ok(_) => Err(Refusal::Other("the leader answered another question".to_owned())),
                        Err(error) => Err(Refusal::Other(error.to_string())),
                    }
                }
                None => Err(Refusal::NoLeader),
            };
            match answer {
                Ok(()) => {
                    self.catch_up_with_leader().await;
                    return Ok(());
                }
                Err(refusal @ (Refusal::NoLeader | Refusal::NotLeader)) => last = refusal,
                Err(Refusal::Failed(failure)) => return Err(failure),
                Err(refusal) => return Err(Failure::new(libc::EIO, refusal.to_string())),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Err(self.no_quorum(&last))
    }

    /// After a change made elsewhere: an empty change of our own is behind it in the log, and waited for.
    async fn catch_up_with_leader(&self) {
        let own = self.own_peer();
        if let Err(failure) = self.propose(Command::PutPeer(own)).await {
            tracing::warn!("the change is made, but has not reached this node yet: {failure}");
        }
    }

    /// Changes the membership as the leader.
    ///
    /// # Errors
    /// Why not; the membership is as before then, as far as can be reached.
    pub async fn change_members(&self, call: PeerCall) -> Result<(), Refusal> {
        let _one = self.membership.lock().await;
        match call {
            PeerCall::AddMember { peer, .. } => self.add_member(&peer).await.map(drop),
            PeerCall::RemoveMember { uuid, .. } => self.remove_member(uuid).await,
            _ => Err(Refusal::Other("no change of members".to_owned())),
        }
    }

    /// Takes a node in: it empties its own pool, follows our log, votes. What it knew before comes back.
    async fn add_member(&self, peer: &Peer) -> Result<State, Refusal> {
        let raft = self.raft().ok_or(Refusal::NotReady)?;
        let tag = self.tag();
        let members = self.others().into_iter().filter(|other| other.uuid != peer.uuid).collect();
        let join = PeerCall::Join { tag, from: self.own_peer(), you: peer.clone(), members };
        let before = match self.call(peer, &join, CHANGE_TIMEOUT).await {
            Ok(PeerAnswer::Joined(state)) => *state,
            Ok(PeerAnswer::Refused(refusal)) => return Err(refusal),
            Ok(_) => return Err(Refusal::Other(format!("{} answered another question", peer.name()))),
            Err(error) => return Err(Refusal::Other(format!("{}: {error}", peer.name()))),
        };
        match tokio::time::timeout(CATCH_UP, self.take_in(&raft, peer)).await {
            Ok(Ok(())) => Ok(before),
            failed => {
                let reason = match failed {
                    Ok(Err(reason)) => reason,
                    _ => format!("{} did not follow the pool's log in time", peer.name()),
                };
                tracing::error!("adding {}: {reason}", peer.name());
                let remove = ChangeMembers::RemoveVoters(BTreeSet::from([NodeId(peer.uuid)]));
                let _ = tokio::time::timeout(Duration::from_secs(5), raft.change_membership(remove, false)).await;
                let _ = self.call(peer, &PeerCall::Leave { tag }, CHANGE_TIMEOUT).await;
                Err(Refusal::Failed(Failure::new(libc::EIO, format!("Probe failed: {reason}"))))
            }
        }
    }

    async fn take_in(&self, raft: &crate::state::raft::Raft, peer: &Peer) -> Result<(), String> {
        let id = NodeId(peer.uuid);
        let place = Place { host: peer.name().to_owned(), port: peer.port };
        raft.add_learner(id, place, true).await.map_err(|error| error.to_string())?;
        let add = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        raft.change_membership(add, true).await.map_err(|error| error.to_string())?;
        let (_, applied) = self
            .propose_here(Command::PutPeer(peer.clone()), CATCH_UP)
            .await
            .map_err(|(refusal, _)| refusal.to_string())?;
        applied.outcome.map_err(|failure| failure.message)
    }

    async fn remove_member(&self, uuid: Uuid) -> Result<(), Refusal> {
        let raft = self.raft().ok_or(Refusal::NotReady)?;
        let tag = self.tag();
        let peer = self.store.with_state(|state| state.peers.get(&uuid).cloned());
        let (_, applied) =
            self.propose_here(Command::RemovePeer(uuid), CHANGE_TIMEOUT).await.map_err(|(refusal, _)| refusal)?;
        applied.outcome.map_err(Refusal::Failed)?;
        let remove = ChangeMembers::RemoveVoters(BTreeSet::from([NodeId(uuid)]));
        match tokio::time::timeout(CHANGE_TIMEOUT, raft.change_membership(remove, false)).await {
            Ok(Ok(_)) => {}
            failed => {
                let reason = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "no majority confirmed it in time".to_owned(),
                };
                if let Some(peer) = peer {
                    let _ = self.propose_here(Command::PutPeer(peer), Duration::from_secs(5)).await;
                }
                return Err(Refusal::Other(reason));
            }
        }
        match peer {
            // We were the leader; our caller hears of it before we go.
            Some(peer) if peer.uuid == self.uuid() => {}
            Some(peer) => {
                if let Err(error) = self.call(&peer, &PeerCall::Leave { tag }, CHANGE_TIMEOUT).await {
                    tracing::warn!("{} was not told that it left the pool: {error}", peer.name());
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Who we are, for a node that thinks of taking us in.
    pub async fn hello(&self, you: String) -> Hello {
        let own = self.uuid();
        let (peers, volumes) = self
            .store
            .with_state(|state| (state.peers.keys().filter(|uuid| **uuid != own).count(), state.volumes.len()));
        let voters = self.voters().iter().filter(|voter| voter.0 != own).count();
        Hello { uuid: own, tag: self.tag(), peers: peers.max(voters), volumes, you }
    }

    /// Whether this node has no peers and no volumes: nothing to lose by joining another pool.
    pub async fn is_alone(&self) -> bool {
        let hello = self.hello(String::new()).await;
        hello.peers == 0 && hello.volumes == 0
    }

    /// Leaves our pool for another's log, which `introducers` (names and addresses) will send. What we knew is returned when the two had gone different ways.
    ///
    /// # Errors
    /// When we have something to lose.
    pub async fn join(&self, tag: PoolTag, you: &Peer, introducers: Vec<String>) -> Result<State, Refusal> {
        let _one = self.membership.lock().await;
        let own = self.uuid();
        if you.uuid != own {
            return Err(Refusal::Other(format!("this node is {own}, not {}", you.uuid)));
        }
        let mine = self.tag();
        if mine == tag {
            return Ok(State::default());
        }
        let is_newer = mine.pool == tag.pool && (tag.epoch, tag.opener) > (mine.epoch, mine.opener);
        if !is_newer && !self.is_alone().await {
            return Err(Refusal::OtherPool(mine));
        }
        let store_failed = |error: crate::state::store::StoreError| Refusal::Other(error.to_string());
        let before = if is_newer && mine.epoch == tag.epoch && mine.opener != tag.opener {
            self.store.state_with_log().map_err(store_failed)?
        } else {
            State::default()
        };
        if before != State::default() {
            self.save_loser(&before);
        }
        self.stop_raft().await;
        let reset = self.store.reset(|local| {
            local.pool = tag.pool;
            local.epoch = tag.epoch;
            local.opener = tag.opener;
            local.joining = true;
            local.introducers = introducers;
        });
        self.start_raft().await.map_err(Refusal::Other)?;
        reset.map_err(store_failed)?;
        tracing::info!("joining pool {} (epoch {})", tag.pool, tag.epoch);
        Ok(before)
    }

    /// Leaves the pool for one of our own.
    ///
    /// # Errors
    /// When it was another pool's word, or the store fails.
    pub async fn leave(&self, tag: PoolTag) -> Result<(), Refusal> {
        let _one = self.membership.lock().await;
        if self.tag().pool != tag.pool {
            return Err(Refusal::OtherPool(self.tag()));
        }
        self.stop_raft().await;
        let reset = self.store.reset(|local| {
            local.pool = Uuid::new_v4();
            local.epoch = 0;
            local.opener = Uuid::nil();
            local.joining = false;
            local.introducers.clear();
            local.started.clear();
        });
        self.start_raft().await.map_err(Refusal::Other)?;
        reset.map_err(|error| Refusal::Other(error.to_string()))?;
        tracing::info!("left pool {}", tag.pool);
        Ok(())
    }

    /// The other of two nodes is gone: opens a new epoch of the pool with this node alone in it.
    ///
    /// # Errors
    /// When server quorum forbids it, or the store fails.
    pub async fn go_on_alone(&self) -> Result<(), Failure> {
        let forbidding = self.store.with_state(|state| {
            state
                .volumes
                .values()
                .find(|volume| volume.option("cluster.server-quorum-type") == Some("server"))
                .map(|volume| volume.name.clone())
        });
        if let Some(name) = forbidding {
            let failure = self.no_quorum(&Refusal::NoLeader);
            return Err(Failure::new(
                libc::EAGAIN,
                format!("{}; cluster.server-quorum-type of volume {name} forbids going on alone", failure.message),
            ));
        }
        let Ok(_one) = self.membership.try_lock() else {
            return Err(Failure::new(libc::EAGAIN, "the pool's membership is changing; try again"));
        };
        let own = self.own_peer();
        let place = Place { host: own.name().to_owned(), port: own.port };
        self.stop_raft().await;
        let alone = self.store.stand_alone(place, |local| {
            local.epoch += 1;
            local.opener = local.uuid;
            local.joining = false;
            local.introducers.clear();
        });
        let started = self.start_raft().await;
        alone.map_err(|error| Failure::new(libc::EIO, error.to_string()))?;
        started.map_err(|error| Failure::new(libc::EIO, error))?;
        tracing::warn!(
            "the other node of the pool does not answer: this node goes on alone in epoch {}",
            self.tag().epoch
        );
        if let Some(raft) = self.raft() {
            let leads = raft.wait(Some(Duration::from_secs(10))).current_leader(NodeId(own.uuid), "alone").await;
            leads.map_err(|error| Failure::new(libc::EIO, error.to_string()))?;
        }
        Ok(())
    }

    /// Takes back members that answer again from an epoch that lost.
    pub fn look_for_returners(self: Rc<Self>) {
        let tag = self.tag();
        let own = self.uuid();
        let voters = self.voters();
        let leads = self.raft().is_some_and(|raft| raft.metrics().borrow().current_leader == Some(NodeId(own)));
        if !leads {
            return;
        }
        for peer in self.others() {
            let Some(pong) = self.pong(peer.uuid) else { continue };
            let is_older = pong.tag.pool == tag.pool && (pong.tag.epoch, pong.tag.opener) < (tag.epoch, tag.opener);
            // A member that joined and was not taken in (a crash between the two) has our tag already.
            let is_half_in = pong.tag == tag;
            if !voters.contains(&NodeId(peer.uuid)) && (is_older || is_half_in) {
                let node = self.clone();
                tokio::task::spawn_local(async move { node.take_back(peer, pong.tag).await });
            }
        }
    }

    async fn take_back(&self, peer: Peer, theirs: PoolTag) {
        let Ok(_one) = self.membership.try_lock() else { return };
        let tag = self.tag();
        tracing::info!("{} returns from epoch {}; taking it into epoch {}", peer.name(), theirs.epoch, tag.epoch);
        match self.add_member(&peer).await {
            Ok(before) if before != State::default() => {
                match self.propose_here(Command::Merge(Box::new(before)), CHANGE_TIMEOUT).await {
                    Ok(_) => tracing::warn!(
                        "both nodes had gone on alone: of each volume the newer version stays; the other is in \
                         {}/lost-epoch-{}.json on {}",
                        self.work.root().display(),
                        theirs.epoch,
                        peer.name()
                    ),
                    Err((refusal, _)) => tracing::error!("merging what {} did alone: {refusal}", peer.name()),
                }
            }
            Ok(_) => {}
            Err(refusal) => tracing::warn!("taking {} back: {refusal}", peer.name()),
        }
    }

    /// Keeps what this node had decided alone, for the operator, before it joins the other's epoch.
    fn save_loser(&self, state: &State) {
        let path = self.work.root().join(format!("lost-epoch-{}.json", self.tag().epoch));
        let saved = serde_json::to_vec_pretty(state)
            .map_err(std::io::Error::other)
            .and_then(|text| crate::state::workdir::write_private(&path, &text));
        match saved {
            Ok(()) => {
                tracing::warn!("the other node's epoch stays; what this one decided alone is in {}", path.display())
            }
            Err(error) => tracing::error!("{}: {error}", path.display()),
        }
    }
}
