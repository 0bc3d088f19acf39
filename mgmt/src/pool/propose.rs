//! Getting a change decided: to the leader, wherever it is, within bounded time, with a clear word when there is no majority.

use std::time::{Duration, Instant};

use openraft::error::{ClientWriteError, RaftError};
use uuid::Uuid;

use crate::api::Failure;
use crate::daemon::node::Node;
use crate::daemon::peer::{PeerAnswer, PeerCall, Refusal};
use crate::pool::network;
use crate::state::command::{Applied, Command};
use crate::state::raft::{NodeId, Place};

/// How long a change may take to be decided.
const DECIDE: Duration = Duration::from_secs(20);
/// How long one may take to reach this node after that.
const APPLY: Duration = Duration::from_secs(10);

impl Node {
    /// Has `command` decided and applied here; the index it was decided at.
    ///
    /// # Errors
    /// The state's refusal, or that no majority can be reached.
    pub async fn propose(&self, command: Command) -> Result<u64, Failure> {
        self.require_majority().await?;
        let deadline = Instant::now() + DECIDE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.try_propose(command.clone(), left).await {
                Ok((index, applied)) => {
                    applied.outcome?;
                    self.wait_applied(index).await?;
                    return Ok(index);
                }
                // Nothing was put into any log: trying again cannot do it twice.
                Err(Refusal::NoLeader | Refusal::NotLeader | Refusal::NotReady) if !left.is_zero() => {
                    tokio::time::sleep(Duration::from_millis(150)).await;
                }
                Err(Refusal::Failed(failure)) => return Err(failure),
                Err(refusal) => return Err(self.no_quorum(&refusal)),
            }
        }
    }

    async fn try_propose(&self, command: Command, left: Duration) -> Result<(u64, Applied), Refusal> {
        match self.propose_here(command.clone(), left).await {
            Err((Refusal::NotLeader, Some(place))) => {
                let call = PeerCall::Propose { tag: self.tag(), command };
                match network::call(&self.links, &place, &call, left).await {
                    Ok(PeerAnswer::Proposed { index, applied }) => Ok((index, applied)),
                    Ok(PeerAnswer::Refused(refusal)) => Err(refusal),
                    Ok(_) => Err(Refusal::Other("the leader answered another question".into())),
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(Refusal::NoLeader),
                    Err(error) => Err(Refusal::Other(format!(
                        "the leader, {}, did not confirm the change ({error}); it may or may not have been made",
                        place.host
                    ))),
                }
            }
            Err((refusal, _)) => Err(refusal),
            Ok(done) => Ok(done),
        }
    }

    /// Has `command` decided by this node as the leader; otherwise says where the leader is, if it knows.
    ///
    /// # Errors
    /// [`Refusal::NotLeader`] and the like; nothing is in the log then, except for [`Refusal::Other`].
    pub async fn propose_here(
        &self,
        command: Command,
        left: Duration,
    ) -> Result<(u64, Applied), (Refusal, Option<Place>)> {
        let Some(raft) = self.raft() else { return Err((Refusal::NotReady, None)) };
        match tokio::time::timeout(left.max(Duration::from_millis(1)), raft.client_write(command)).await {
            Ok(Ok(done)) => Ok((done.log_id.index, done.data)),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                match forward
                    .leader_id
                    .filter(|id| id.0 != self.uuid())
                    .and_then(|id| Some((id.0, self.place_of(id.0)?)))
                {
                    Some((uuid, _)) if !self.is_connected(uuid) => Err((Refusal::NoLeader, None)),
                    Some((_, place)) => Err((Refusal::NotLeader, Some(place))),
                    None => Err((Refusal::NoLeader, None)),
                }
            }
            Ok(Err(error)) => Err((Refusal::Other(error.to_string()), None)),
            Err(_) => Err((
                Refusal::Other("the majority did not confirm the change in time; it may yet be made".into()),
                None,
            )),
        }
    }

    /// Where a member is.
    pub fn place_of(&self, uuid: Uuid) -> Option<Place> {
        self.store.with_state(|state| {
            let peer = state.peers.get(&uuid)?;
            Some(Place { host: peer.name().to_owned(), port: peer.port })
        })
    }

    /// Waits until this node has applied the log up to `index`.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wait_applied(&self, index: u64) -> Result<(), Failure> {
        let Some(raft) = self.raft() else {
            return Err(Failure::new(libc::EAGAIN, "this node is starting or leaving; try again"));
        };
        raft.wait(Some(APPLY)).applied_index_at_least(Some(index), "a decided change").await.map(drop).map_err(|_| {
            Failure::new(libc::ETIMEDOUT, "the change is decided but has not reached this node yet; it will")
        })
    }

    /// Asks the other voters for signs of life and refuses when too few answer: nothing is put into the log then. Of two nodes,
    /// the survivor goes on alone.
    async fn require_majority(&self) -> Result<(), Failure> {
        let voters = self.voters();
        let others = self.others();
        let pings = others.iter().filter(|peer| voters.contains(&NodeId(peer.uuid))).map(|peer| self.ping(peer));
        futures::future::join_all(pings).await;
        if self.has_majority(&self.missing_voters()) {
            return Ok(());
        }
        if voters.len() == 2 {
            return self.go_on_alone().await;
        }
        Err(self.no_quorum(&Refusal::NoLeader))
    }

    fn missing_voters(&self) -> Vec<Uuid> {
        self.voters().iter().map(|voter| voter.0).filter(|uuid| !self.is_connected(*uuid)).collect()
    }

    fn has_majority(&self, missing: &[Uuid]) -> bool {
        let voters = self.voters().len();
        voters.saturating_sub(missing.len()) * 2 > voters || voters == 0
    }

    /// The failure that says who is missing.
    pub fn no_quorum(&self, refusal: &Refusal) -> Failure {
        let missing: Vec<String> = self
            .missing_voters()
            .iter()
            .map(|uuid| {
                self.store.with_state(|state| {
                    state.peers.get(uuid).map_or_else(|| uuid.to_string(), |peer| peer.name().to_owned())
                })
            })
            .collect();
        let voters = self.voters().len();
        let message = if missing.is_empty() {
            format!("Quorum not met. Volume operation not allowed: {refusal}")
        } else {
            format!(
                "Quorum not met. Volume operation not allowed: {} of {voters} nodes of the pool answer, {} needed \
                 (not answering: {}). Check with 'peer status'",
                voters - missing.len(),
                voters / 2 + 1,
                missing.join(", ")
            )
        };
        Failure::new(libc::EAGAIN, message)
    }
}
