//! `volume start` and `volume stop`; asking nodes to check, and to do their part.

use std::time::Duration;

use futures::future::join_all;
use uuid::Uuid;

use crate::api::{Answer, Failure, Outcome};
use crate::daemon::node::Node;
use crate::daemon::peer::{Act, PeerAnswer, PeerCall, Stage};
use crate::state::command::Command;
use crate::state::model::{Peer, Status, Volume};
use crate::volume::create::hosts_once;

/// How long a node may take to check.
const STAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one may take to start or stop its bricks.
const ACT_TIMEOUT: Duration = Duration::from_secs(90);

impl Node {
    /// The volume of that name.
    ///
    /// # Errors
    /// GlusterFS's words when there is none.
    pub fn volume(&self, name: &str) -> Result<Volume, Failure> {
        self.store
            .with_state(|state| state.volumes.get(name).cloned())
            .ok_or_else(|| Failure::new(libc::EINVAL, format!("Volume {name} does not exist")))
    }

    /// A peer's name for messages.
    pub fn name_of(&self, uuid: Uuid) -> String {
        self.store
            .with_state(|state| state.peers.get(&uuid).map_or_else(|| uuid.to_string(), |peer| peer.name().to_owned()))
    }

    fn peer(&self, uuid: Uuid) -> Option<Peer> {
        self.store.with_state(|state| state.peers.get(&uuid).cloned())
    }

    /// `volume start`.
    pub async fn start_volume(&self, name: &str, force: bool) -> Outcome {
        let volume = self.volume(name)?;
        if volume.status == Status::Started && !force {
            return Err(Failure::new(libc::EINVAL, format!("Volume {name} already started")));
        }
        let stages = hosts_once(volume.bricks.iter().map(|brick| brick.host_uuid))
            .into_iter()
            .filter(|uuid| self.is_connected(*uuid))
            .map(|uuid| (uuid, Stage::Start { volume: name.to_owned(), force }))
            .collect();
        self.stage(stages, "Pre Validation failed on {}. {}").await?;
        let index = self.propose(Command::StartVolume { name: name.to_owned(), id: volume.id, force }).await?;
        let acted = self.act(index, Act::Started { volume: name.to_owned() }).await;
        if !force {
            acted?;
        } else if let Err(failure) = acted {
            // `force` starts what can be started.
            tracing::warn!("volume start {name} force: {failure}");
        }
        Ok(Answer::Volume { name: name.to_owned(), id: volume.id.to_string() })
    }

    /// `volume stop`.
    pub async fn stop_volume(&self, name: &str, force: bool) -> Outcome {
        let volume = self.volume(name)?;
        if volume.status != Status::Started && !force {
            return Err(Failure::new(libc::EINVAL, format!("Volume {name} is not in the started state")));
        }
        let index = self.propose(Command::StopVolume { name: name.to_owned(), id: volume.id, force }).await?;
        self.act(index, Act::Stopped { volume: name.to_owned() }).await?;
        Ok(Answer::Volume { name: name.to_owned(), id: volume.id.to_string() })
    }

    /// `volume statedump`.
    pub async fn dump_volume(&self, name: &str) -> Outcome {
        let volume = self.volume(name)?;
        if volume.status != Status::Started {
            return Err(Failure::new(libc::EINVAL, format!("Volume {name} is not in the started state")));
        }
        self.act(0, Act::Dump { volume: name.to_owned() }).await?;
        Ok(Answer::Volume { name: name.to_owned(), id: volume.id.to_string() })
    }

    /// Has nodes check. `pattern` is GlusterFS's for a failure elsewhere: node, message.
    ///
    /// # Errors
    /// The first failure: as it is when it is ours, else with the node's name.
    pub async fn stage(&self, stages: Vec<(Uuid, Stage)>, pattern: &str) -> Result<(), Failure> {
        let own = self.uuid();
        let tag = self.tag();
        let results = join_all(stages.into_iter().map(|(uuid, stage)| async move {
            let outcome = if uuid == own {
                self.stage_here(&stage)
            } else {
                let Some(peer) = self.peer(uuid) else { return (uuid, Ok(())) };
                match self.call(&peer, &PeerCall::Stage { tag, stage }, STAGE_TIMEOUT).await {
                    Ok(PeerAnswer::Staged(outcome)) => outcome,
                    Ok(PeerAnswer::Refused(refusal)) => Err(Failure::new(libc::EAGAIN, refusal.to_string())),
                    Ok(_) => Err(Failure::new(libc::EPROTO, "it answered another question")),
                    Err(error) => Err(Failure::new(libc::ENOTCONN, error.to_string())),
                }
            };
            (uuid, outcome)
        }))
        .await;
        self.gather(results, pattern)
    }

    /// Has every connected node do its part after a decision.
    ///
    /// # Errors
    /// The failures, in GlusterFS's words, each with its node.
    pub async fn act(&self, index: u64, act: Act) -> Result<(), Failure> {
        let own = self.uuid();
        let tag = self.tag();
        let everybody = self.store.with_state(|state| state.peers.keys().copied().collect::<Vec<_>>());
        let connected = everybody.into_iter().filter(|uuid| self.is_connected(*uuid));
        let results = join_all(connected.map(|uuid| {
            let (act, act_kind) = (act.clone(), &act);
            async move {
                let outcome = if uuid == own {
                    self.act_here(&act).await
                } else {
                    let Some(peer) = self.peer(uuid) else { return (uuid, Ok(())) };
                    match self.call(&peer, &PeerCall::Act { tag, index, act }, ACT_TIMEOUT).await {
                        Ok(PeerAnswer::Acted(outcome)) => outcome,
                        Ok(PeerAnswer::Refused(refusal)) => Err(Failure::new(libc::EAGAIN, refusal.to_string())),
                        Ok(_) => Err(Failure::new(libc::EPROTO, "it answered another question")),
                        // Decided it is; the node does its part when it is back.
                        Err(error) if matches!(act_kind, Act::Applied | Act::Created { .. }) => {
                            tracing::warn!("{} has not applied the change yet: {error}", self.name_of(uuid));
                            Ok(())
                        }
                        Err(error) => Err(Failure::new(libc::ENOTCONN, error.to_string())),
                    }
                };
                (uuid, outcome)
            }
        }))
        .await;
        self.gather(results, "Commit failed on {}. Error: {}")
    }

    fn gather(&self, results: Vec<(Uuid, Result<(), Failure>)>, pattern: &str) -> Result<(), Failure> {
        let own = self.uuid();
        let mut messages = Vec::new();
        let mut errno = 0;
        for (uuid, outcome) in results {
            let Err(failure) = outcome else { continue };
            errno = failure.op_errno;
            messages.push(if uuid == own {
                // Our own failure leads, as it is.
                return Err(failure);
            } else {
                pattern.replacen("{}", &self.name_of(uuid), 1).replacen("{}", &failure.message, 1)
            });
        }
        if messages.is_empty() { Ok(()) } else { Err(Failure::new(errno, messages.join("\n"))) }
    }

    /// Checks on this node.
    ///
    /// # Errors
    /// GlusterFS's words.
    pub fn stage_here(&self, stage: &Stage) -> Result<(), Failure> {
        match stage {
            Stage::Create { bricks, force, .. } => self.stage_create(bricks, *force),
            Stage::Start { volume, force } => self.stage_start(volume, *force),
        }
    }
}
