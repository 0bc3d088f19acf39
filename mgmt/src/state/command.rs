//! The entries of the log: what can change the pool's state. Applying one is a pure function of state and command, so every
//! node comes to the same state; whoever proposes has checked what needs the outside world.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::{Brick, Peer, State, Status, Volume, transport_name};
use crate::api::Failure;

/// A change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Command {
    /// Adds a peer or replaces what is known of it.
    PutPeer(Peer),
    RemovePeer(Uuid),
    CreateVolume(Volume),
    /// Starts (or, already started, starts what is down) a volume.
    StartVolume {
        name: String,
        id: Uuid,
        force: bool,
    },
    StopVolume {
        name: String,
        id: Uuid,
        force: bool,
    },
    DeleteVolume {
        name: String,
        id: Uuid,
    },
    /// Appends whole sets of bricks.
    AddBricks {
        name: String,
        id: Uuid,
        bricks: Vec<Brick>,
    },
    /// Takes whole sets of bricks out, by their ids.
    RemoveBricks {
        name: String,
        id: Uuid,
        brick_ids: Vec<String>,
    },
    /// Sets options under their full names; validated by the proposer.
    SetOptions {
        name: String,
        id: Uuid,
        options: Vec<(String, String)>,
    },
    /// Puts options back to their defaults: the listed names.
    ResetOptions {
        name: String,
        id: Uuid,
        keys: Vec<String>,
        /// Set in their place.
        #[serde(default)]
        defaults: Vec<(String, String)>,
    },
    SetGlobalOptions {
        options: Vec<(String, String)>,
    },
    ResetGlobalOptions {
        keys: Vec<String>,
    },
    /// Merges what a node decided alone while its only peer was away: per volume the higher version wins.
    Merge(Box<State>),
}

/// The outcome of a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Why the state refused it, if it did.
    pub outcome: Result<(), Failure>,
    /// Objects whose loser was put aside by a merge, for the log.
    pub losers: Vec<String>,
}

impl Default for Applied {
    fn default() -> Applied {
        Applied { outcome: Ok(()), losers: Vec::new() }
    }
}

/// Longest option value and list we keep, in bytes and entries.
const MAX_OPTIONS: usize = 1024;

/// Applies `command`. A refused command changes nothing.
pub fn apply(state: &mut State, command: Command) -> Applied {
    let mut losers = Vec::new();
    let outcome = change(state, command, &mut losers);
    Applied { outcome, losers }
}

fn change(state: &mut State, command: Command, losers: &mut Vec<String>) -> Result<(), Failure> {
    match command {
        Command::PutPeer(peer) => {
            state.peers.insert(peer.uuid, peer);
        }
        Command::RemovePeer(uuid) => {
            if state.hosts_bricks(uuid) {
                let name = state.peers.get(&uuid).map_or_else(|| uuid.to_string(), |peer| peer.name().to_owned());
                return Err(hosts_bricks(&name));
            }
            state.peers.remove(&uuid);
        }
        Command::CreateVolume(volume) => {
            if state.volumes.contains_key(&volume.name) {
                return Err(Failure::new(libc::EEXIST, format!("Volume {} already exists", volume.name)));
            }
            check_bricks(state, &volume.bricks)?;
            state.volumes.insert(volume.name.clone(), volume);
        }
        Command::StartVolume { name, id, force } => {
            let volume = volume(state, &name, id)?;
            if volume.status == Status::Started && !force {
                return Err(Failure::new(libc::EINVAL, format!("Volume {name} already started")));
            }
            if volume.status != Status::Started {
                volume.version += 1;
            }
            volume.status = Status::Started;
            volume.start_count += 1;
        }
        Command::StopVolume { name, id, force } => {
            let volume = volume(state, &name, id)?;
            if volume.status != Status::Started && !force {
                return Err(Failure::new(libc::EINVAL, format!("Volume {name} is not in the started state")));
            }
            if volume.status == Status::Started {
                volume.version += 1;
                volume.status = Status::Stopped;
            }
        }
        Command::DeleteVolume { name, id } => {
            let found = volume(state, &name, id)?;
            if found.status == Status::Started {
                return Err(Failure::new(
                    libc::EINVAL,
                    format!("Volume {name} has been started.Volume needs to be stopped before deletion."),
                ));
            }
            state.volumes.remove(&name);
        }
        Command::AddBricks { name, id, bricks } => {
            check_bricks(state, &bricks)?;
            let volume = volume(state, &name, id)?;
            if !bricks.len().is_multiple_of(volume.replica.max(1) as usize) {
                return Err(Failure::new(libc::EINVAL, "the number of bricks is no multiple of the replica count"));
            }
            refuse_known_ids(volume, &bricks)?;
            volume.bricks.extend(bricks);
            volume.version += 1;
            // What is new has to be started.
            volume.start_count += u64::from(volume.status == Status::Started);
        }
        Command::RemoveBricks { name, id, brick_ids } => {
            let volume = volume(state, &name, id)?;
            let left = volume.bricks.iter().filter(|brick| !brick_ids.contains(&brick.id)).count();
            if left == 0 || !left.is_multiple_of(volume.replica.max(1) as usize) {
                return Err(Failure::new(libc::EINVAL, "the bricks that are left are no whole sets"));
            }
            volume.bricks.retain(|brick| !brick_ids.contains(&brick.id));
            volume.version += 1;
        }
        Command::SetOptions { name, id, options } => {
            let volume = volume(state, &name, id)?;
            for (key, value) in &options {
                volume.set_option(key, value);
                if key == "config.transport"
                    && let Some(transport) = transport_name(value)
                {
                    volume.transport = transport.to_owned();
                }
            }
            if volume.options.len() > MAX_OPTIONS {
                volume.options.truncate(MAX_OPTIONS);
            }
            volume.version += 1;
        }
        Command::ResetOptions { name, id, keys, defaults } => {
            let volume = volume(state, &name, id)?;
            volume.options.retain(|(key, _)| !keys.contains(key));
            for (key, value) in &defaults {
                volume.set_option(key, value);
            }
            volume.version += 1;
        }
        Command::SetGlobalOptions { options } => {
            for (key, value) in options {
                match state.global_options.iter_mut().find(|(name, _)| *name == key) {
                    Some(slot) => slot.1 = value,
                    None => state.global_options.insert(0, (key, value)),
                }
            }
            state.global_options.truncate(MAX_OPTIONS);
            state.global_version += 1;
        }
        Command::ResetGlobalOptions { keys } => {
            state.global_options.retain(|(key, _)| !keys.contains(key));
            state.global_version += 1;
        }
        Command::Merge(other) => merge(state, *other, losers),
    }
    Ok(())
}

/// Ids are given by the proposer, from the volume as it saw it: of two that add bricks at once, the second is refused, or
/// two bricks would share an id, by which clients mark copies and `remove-brick` takes bricks out.
fn refuse_known_ids(volume: &Volume, bricks: &[Brick]) -> Result<(), Failure> {
    match bricks.iter().any(|brick| volume.bricks.iter().any(|known| known.id == brick.id)) {
        true => {
            Err(Failure::new(libc::EAGAIN, "Another transaction is in progress. Please try again after some time."))
        }
        false => Ok(()),
    }
}

/// Whether bricks can be lent: their nodes are of the pool, and their directories free.
fn check_bricks(state: &State, bricks: &[Brick]) -> Result<(), Failure> {
    for brick in bricks {
        let refuse = |message: String| Err(Failure::new(libc::EINVAL, message));
        if !state.peers.contains_key(&brick.host_uuid) {
            return refuse(format!("Host {} is not in 'Peer in Cluster' state", brick.host));
        }
        if let Some(taken) = brick_conflict(state, brick.host_uuid, &brick.path) {
            return refuse(format!(
                "Brick: {taken} not available. Brick may be containing or be contained by an existing brick."
            ));
        }
    }
    Ok(())
}

/// Takes over each volume of `other` that is newer than ours or unknown to us; a loser is named in `losers`.
fn merge(state: &mut State, other: State, losers: &mut Vec<String>) {
    for (name, theirs) in other.volumes {
        match state.volumes.get(&name) {
            None => {
                losers.push(format!("volume {name}: taken over from the returning node"));
                state.volumes.insert(name, theirs);
            }
            Some(ours) if *ours == theirs => {}
            Some(ours) if (theirs.version, theirs.start_count) > (ours.version, ours.start_count) => {
                losers.push(format!(
                    "volume {name}: version {} of the returning node replaces ours ({}, {:?}, options {:?})",
                    theirs.version, ours.version, ours.status, ours.options
                ));
                state.volumes.insert(name, theirs);
            }
            Some(ours) => losers.push(format!(
                "volume {name}: our version {} stays, the returning node's is dropped ({}, {:?}, options {:?})",
                ours.version, theirs.version, theirs.status, theirs.options
            )),
        }
    }
    if other.global_version > state.global_version {
        losers.push("pool-wide options: the returning node's replace ours".to_owned());
        state.global_options = other.global_options;
        state.global_version = other.global_version;
    }
}

/// The refusal to detach a node with bricks, in GlusterFS's words.
pub fn hosts_bricks(name: &str) -> Failure {
    // The one refusal whose op_ret is 1: the command line exits with 255.
    let message = format!(
        "Peer {name} hosts one or more bricks. If the peer is in not recoverable state then use either replace-brick or \
         remove-brick command with force to remove all bricks from the peer and attempt the peer detach again."
    );
    Failure { op_ret: 1, op_errno: libc::EINVAL, message }
}

/// The brick of `uuid` that contains, equals, or is contained by `path`.
pub fn brick_conflict(state: &State, uuid: Uuid, path: &str) -> Option<String> {
    state
        .volumes
        .values()
        .flat_map(|volume| &volume.bricks)
        .find(|brick| brick.host_uuid == uuid && overlaps(&brick.path, path))
        .map(|brick| format!("{}:{path}", brick.host))
}

fn overlaps(left: &str, right: &str) -> bool {
    let (left, right) = (left.trim_end_matches('/'), right.trim_end_matches('/'));
    left == right
        || left.strip_prefix(right).is_some_and(|rest| rest.starts_with('/'))
        || right.strip_prefix(left).is_some_and(|rest| rest.starts_with('/'))
}

fn volume<'a>(state: &'a mut State, name: &str, id: Uuid) -> Result<&'a mut Volume, Failure> {
    state
        .volumes
        .get_mut(name)
        .filter(|volume| volume.id == id)
        .ok_or_else(|| Failure::new(libc::EINVAL, format!("Volume {name} does not exist")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_bricks_of_a_volume_have_one_id() {
        let brick = |path: &str, number: u32| Brick {
            host: "h".to_owned(),
            path: path.to_owned(),
            host_uuid: Uuid::nil(),
            id: format!("gv0-client-{number}"),
        };
        let mut volume = Volume {
            name: "gv0".to_owned(),
            id: Uuid::nil(),
            status: Status::Started,
            replica: 1,
            arbiter: 0,
            bricks: vec![brick("/a", 0), brick("/b", 1)],
            transport: "tcp".to_owned(),
            options: Vec::new(),
            version: 1,
            start_count: 1,
            username: String::new(),
            password: String::new(),
        };
        let (first, second) = ([brick("/c", 2)], [brick("/d", 2)]);
        refuse_known_ids(&volume, &first).unwrap();
        volume.bricks.extend(first);
        assert_eq!(refuse_known_ids(&volume, &second).unwrap_err().op_errno, libc::EAGAIN);
        refuse_known_ids(&volume, &[brick("/d", 3)]).unwrap();
    }

    #[test]
    fn paths_overlap_only_at_component_borders() {
        assert!(overlaps("/a/b", "/a/b/"));
        assert!(overlaps("/a/b", "/a/b/c"));
        assert!(overlaps("/a", "/a/b/c"));
        assert!(!overlaps("/a/b", "/a/bc"));
    }
}
