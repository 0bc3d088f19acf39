//! Connections: who talks which program on which of them. A connection that sends garbage ends; the others go on.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ladrillo_transport::Message;
use ladrillo_transport::program::{dump, handshake, portmap};
use ladrillo_transport::rpc::{AcceptStatus, CallHeader, Incoming, decode_record, encode_reply};
use ladrillo_transport::xdr::DecodeError;
use tokio::sync::{Semaphore, mpsc};

use super::node::{Client, Node};
use super::peer::{PeerAnswer, PeerCall, Refusal};
use crate::api::{About, Answer, Failure, Outcome, ProfileInfo, Request};
use crate::net::record::{self, MAX_RECORD_BYTES, Reader};
use crate::net::rpc;
use crate::net::socket::{Listener, Stream};
use crate::volume::create::Copies;

/// Most connections of one listener at once.
const MAX_CONNECTIONS: usize = 4096;
/// So many of them are kept for nodes of the pool.
const KEPT_FOR_PEERS: usize = 512;
/// Most connections from one address that is no node of the pool.
const MAX_OF_ONE_ADDRESS: usize = 1024;
/// Most calls of one connection in work at once; further ones wait in its socket.
const MAX_CALLS: usize = 64;
/// Most records waiting for one connection to read them.
const MAX_OUTGOING: usize = 64;
/// Largest record of a caller that is no node of the pool, in bytes.
const MAX_CLIENT_RECORD_BYTES: usize = 4 << 20;
/// Most names of a pool's nodes that a node keeps while it joins.
const MAX_INTRODUCERS: usize = 1024;
/// How long a caller may take to read a record.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a call's arguments are of no use.
#[derive(Debug, thiserror::Error)]
enum Garbage {
    #[error("{0}")]
    Xdr(#[from] DecodeError),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl Node {
    /// Takes connections until the end.
    pub async fn serve(self: Rc<Self>, listener: Listener) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let strangers = Rc::new(Strangers::default());
        while !self.ending.get() {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(stream) => {
                    let address = stream.peer().map(|address| address.to_canonical());
                    let guest = match address {
                        Some(address) if !self.is_member_now(Some(address)) => match strangers.admit(address) {
                            Some(guest) => Some(guest),
                            None => {
                                tracing::debug!("connection from {address}: too many");
                                stream.shutdown();
                                continue;
                            }
                        },
                        _ => None,
                    };
                    let node = self.clone();
                    tokio::task::spawn_local(async move {
                        node.connection(stream).await;
                        drop((permit, guest));
                    });
                }
                Err(error) => {
                    tracing::warn!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self: Rc<Self>, stream: Rc<dyn Stream>) {
        let address = stream.peer();
        let (outgoing, records) = mpsc::channel(MAX_OUTGOING);
        let client = Rc::new(Client { outgoing, fetched: RefCell::default(), address });
        self.clients.borrow_mut().push(Rc::downgrade(&client));
        tokio::task::spawn_local(write(stream.clone(), records));
        let calls = Arc::new(Semaphore::new(MAX_CALLS));
        // A node whose name has not been resolved yet, or that has only just taken us in, connects again when it has more.
        let is_peer = address.is_some() && self.is_member_now(address);
        let limit = if is_peer { MAX_RECORD_BYTES } else { MAX_CLIENT_RECORD_BYTES };
        let mut reader = Reader::new(stream.clone(), limit);
        loop {
            let record = match reader.next().await {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => {
                    tracing::info!("connection from {}: {error}", name(address));
                    break;
                }
            };
            let (call, body) = match decode_record(record) {
                Ok(Incoming::Call(header, body)) => (header, body),
                // Answers to callbacks; there is nothing to do with them.
                Ok(Incoming::Reply(..)) => continue,
                Err(error) => {
                    tracing::info!("connection from {}: {error}", name(address));
                    break;
                }
            };
            let Ok(permit) = calls.clone().acquire_owned().await else { break };
            let (node, client) = (self.clone(), client.clone());
            tokio::task::spawn_local(async move {
                let reply = node.answer(call, body, &client).await;
                if let Ok(record) = record::mark(&reply) {
                    // Fails when the connection has ended.
                    let _ = client.outgoing.send(record).await;
                }
                drop(permit);
            });
        }
        stream.shutdown();
        self.clients.borrow_mut().retain(|known| !std::ptr::eq(known.as_ptr(), Rc::as_ptr(&client)));
    }

    async fn answer(self: Rc<Self>, call: CallHeader, body: Bytes, client: &Rc<Client>) -> Message {
        let (program, procedure) = (call.program, call.procedure);
        let known = match program {
            handshake::PROGRAM => handshake::VERSION,
            portmap::PROGRAM => portmap::VERSION,
            dump::PROGRAM => dump::VERSION,
            rpc::CLI_PROGRAM | rpc::PEER_PROGRAM => rpc::OWN_VERSION,
            _ => return encode_reply(call.xid, AcceptStatus::ProgUnavail, Message::default()),
        };
        if call.version != known {
            let status = AcceptStatus::ProgMismatch { low: known, high: known };
            return encode_reply(call.xid, status, Message::default());
        }
        let body = match program {
            _ if procedure == 0 => Ok(Some(Message::default())),
            handshake::PROGRAM => self.handshake(procedure, body, client).map_err(Garbage::from),
            portmap::PROGRAM => self.portmap(procedure, body, client).map_err(Garbage::from),
            dump::PROGRAM => Ok(self.dump(procedure)),
            _ if procedure != rpc::OWN_CALL => Ok(None),
            rpc::CLI_PROGRAM => self.clone().cli(body, client.address).await.map(Some),
            _ => self.clone().peer_call(body, client.address).await.map(Some),
        };
        match body {
            Ok(Some(body)) => encode_reply(call.xid, AcceptStatus::Success, body),
            Ok(None) => encode_reply(call.xid, AcceptStatus::ProcUnavail, Message::default()),
            Err(error) => {
                tracing::info!("call of {program} procedure {procedure} from {}: {error}", name(client.address));
                encode_reply(call.xid, AcceptStatus::GarbageArgs, Message::default())
            }
        }
    }

    async fn cli(self: Rc<Self>, body: Bytes, address: Option<IpAddr>) -> Result<Message, Garbage> {
        let json = rpc::unwrap(body, MAX_CLIENT_RECORD_BYTES)?;
        let request: Request = serde_json::from_slice(&json)?;
        let outcome = if address.is_some() && !is_read_only(&request) {
            Err(Failure::new(
                libc::EPERM,
                "only commands that change nothing are taken over the network; run this one on a node of the pool",
            ))
        } else {
            tracing::debug!("{request:?}");
            self.clone().execute(&request).await
        };
        if let Err(failure) = &outcome {
            tracing::info!("{request:?}: {failure}");
        }
        Ok(rpc::wrap(&serde_json::to_vec(&outcome)?))
    }

    /// Does a command.
    pub async fn execute(self: Rc<Self>, request: &Request) -> Outcome {
        match request {
            Request::PeerProbe { host } => self.probe(host).await,
            Request::PeerDetach { host, force } => self.detach(host, *force).await,
            Request::PeerStatus => self.peers(false),
            Request::PoolList => self.peers(true),
            Request::VolumeCreate { name, replica, arbiter, bricks, transport, force } => {
                self.create_volume(name, Copies { replica: *replica, arbiter: *arbiter }, bricks, transport, *force)
                    .await
            }
            Request::VolumeStart { name, force } => self.start_volume(name, *force).await,
            Request::VolumeStop { name, force } => self.stop_volume(name, *force).await,
            Request::VolumeDelete { name } => self.delete_volume(name).await,
            Request::VolumeInfo { name } => self.volume_info(name.as_deref()),
            Request::VolumeList => self.volume_names(),
            Request::VolumeStatus { name, about, brick } => {
                self.volume_status(name.as_deref(), about.as_ref(), brick.as_deref()).await
            }
            Request::VolumeProfile { name, on } => self.profile_volume(name, *on).await,
            Request::ClearLocks { name, path, kind, lock, only } => {
                self.clear_locks(name, path, kind, lock, only.as_deref()).await
            }
            Request::VolumeStatedump { name } => self.dump_volume(name).await,
            Request::AddBricks { name, replica, bricks, force } => {
                self.add_bricks(name, *replica, bricks, *force).await
            }
            Request::RemoveBricks { name, replica, bricks } => self.remove_bricks(name, *replica, bricks).await,
            Request::VolumeSet { name, options } => self.set_options(name, options).await,
            Request::VolumeReset { name, key, force } => self.reset_options(name, key.as_deref(), *force).await,
            Request::VolumeGet { name, key } => self.get_options(name, key),
            Request::GranularEntryHeal { name, on } => self.granular_entry_heal(name, *on).await,
            Request::VolumeHeal { name, full } => self.heal_volume(name, *full).await,
            Request::GetSpec { key } => match self.volfile(key, true) {
                Ok(text) => Ok(Answer::Text(text)),
                Err(reason) => Err(Failure::new(libc::ENOENT, reason)),
            },
            Request::GetWorkingDirectory => Ok(Answer::Text(self.work.root().display().to_string())),
            Request::UuidGet => Ok(Answer::Text(self.uuid().to_string())),
        }
    }

    async fn peer_call(self: Rc<Self>, body: Bytes, address: Option<IpAddr>) -> Result<Message, Garbage> {
        let json = rpc::unwrap(body, MAX_RECORD_BYTES)?;
        let call: PeerCall = serde_json::from_slice(&json)?;
        let answer = self.peer_answer(call, address).await;
        Ok(rpc::wrap(&serde_json::to_vec(&answer)?))
    }

    async fn peer_answer(self: Rc<Self>, call: PeerCall, address: Option<IpAddr>) -> PeerAnswer {
        let is_open = match &call {
            PeerCall::Hello | PeerCall::Ping { .. } => true,
            // A first join: there is nothing to lose.
            PeerCall::Join { .. } => self.is_alone().await,
            _ => false,
        };
        if !is_open && !self.is_member(address).await {
            return PeerAnswer::Refused(Refusal::Other(format!(
                "{} is not the address of a node of the pool of {}",
                name(address),
                self.own_peer().name()
            )));
        }
        let mine = self.tag();
        let tag = match &call {
            PeerCall::Hello | PeerCall::Join { .. } | PeerCall::Leave { .. } | PeerCall::Ping { .. } => None,
            PeerCall::Append { tag, .. }
            | PeerCall::Vote { tag, .. }
            | PeerCall::Snapshot { tag, .. }
            | PeerCall::Propose { tag, .. }
            | PeerCall::AddMember { tag, .. }
            | PeerCall::RemoveMember { tag, .. }
            | PeerCall::Stage { tag, .. }
            | PeerCall::Act { tag, .. }
            | PeerCall::Status { tag, .. } => Some(*tag),
        };
        // What another pool, or another epoch of ours, has to say about this pool's log is not for us.
        if tag.is_some_and(|tag| tag != mine) {
            return PeerAnswer::Refused(Refusal::OtherPool(mine));
        }
        self.checked_answer(call, address).await.unwrap_or_else(PeerAnswer::Refused)
    }

    async fn checked_answer(self: Rc<Self>, call: PeerCall, address: Option<IpAddr>) -> Result<PeerAnswer, Refusal> {
        let raft = || self.raft().ok_or(Refusal::NotReady);
        let other = |error: &dyn std::fmt::Display| Refusal::Other(error.to_string());
        Ok(match call {
            PeerCall::Hello => PeerAnswer::Hello(self.hello(caller_name(address).await).await),
            PeerCall::Join { tag, from, you, members } => {
                let names = std::iter::once(from).chain(members).flat_map(|peer| peer.hostnames);
                let address = address.map(|address| address.to_canonical().to_string());
                let introducers = address.into_iter().chain(names).take(MAX_INTRODUCERS).collect();
                PeerAnswer::Joined(Box::new(self.join(tag, &you, introducers).await?))
            }
            PeerCall::Leave { tag } => {
                self.leave(tag).await?;
                PeerAnswer::Done
            }
            PeerCall::Ping { from, .. } => {
                let leader = match self.raft() {
                    Some(raft) => raft.current_leader().await.map(|leader| leader.0),
                    None => None,
                };
                let knows_you = self.store.with_state(|state| state.peers.contains_key(&from));
                PeerAnswer::Pong(super::peer::Pong { uuid: self.uuid(), tag: self.tag(), knows_you, leader })
            }
            PeerCall::Append { request, .. } => {
                PeerAnswer::Append(raft()?.append_entries(request).await.map_err(|error| other(&error))?)
            }
            PeerCall::Vote { from, request, .. } => {
                // A node that was put out while it was away must not disturb the others with ever higher terms.
                let voters = self.voters();
                if !voters.is_empty() && !voters.contains(&from) {
                    return Err(Refusal::Other("not a member of this pool".into()));
                }
                PeerAnswer::Vote(raft()?.vote(request).await.map_err(|error| other(&error))?)
            }
            PeerCall::Snapshot { request, .. } => {
                PeerAnswer::Snapshot(raft()?.install_snapshot(request).await.map_err(|error| other(&error))?)
            }
            PeerCall::Propose { command, .. } => {
                let (index, applied) =
                    self.propose_here(command, Duration::from_secs(12)).await.map_err(|(refusal, _)| refusal)?;
                PeerAnswer::Proposed { index, applied }
            }
            call @ PeerCall::AddMember { .. } => {
                self.change_members(call).await?;
                PeerAnswer::Done
            }
            PeerCall::RemoveMember { tag, uuid } => {
                self.change_members(PeerCall::RemoveMember { tag, uuid }).await?;
                if uuid == self.uuid() {
                    let node = self.clone();
                    tokio::task::spawn_local(async move {
                        // The caller hears of it first.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        if let Err(refusal) = node.leave(tag).await {
                            tracing::error!("leaving the pool: {refusal}");
                        }
                    });
                }
                PeerAnswer::Done
            }
            PeerCall::Stage { stage, .. } => PeerAnswer::Staged(self.stage_here(&stage)),
            PeerCall::Act { index, act, .. } => {
                let outcome = match self.wait_applied(index).await {
                    Ok(()) => self.act_here(&act).await,
                    Err(failure) => Err(failure),
                };
                PeerAnswer::Acted(outcome)
            }
            PeerCall::Status { volume, about, brick, .. } => {
                PeerAnswer::Status(self.own_status(volume.as_deref(), about.as_ref(), brick.as_deref()).await)
            }
        })
    }
}

/// Connections from addresses that are no node of the pool.
#[derive(Default)]
struct Strangers {
    of_address: RefCell<HashMap<IpAddr, usize>>,
    all: Cell<usize>,
}

/// One of them; counted until it is dropped.
struct Guest {
    strangers: Rc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    /// Counts one more; `None` when there are too many.
    fn admit(self: &Rc<Self>, address: IpAddr) -> Option<Guest> {
        let mut of_address = self.of_address.borrow_mut();
        let so_far = of_address.get(&address).copied().unwrap_or(0);
        if self.all.get() >= MAX_CONNECTIONS - KEPT_FOR_PEERS || so_far >= MAX_OF_ONE_ADDRESS {
            return None;
        }
        of_address.insert(address, so_far + 1);
        self.all.set(self.all.get() + 1);
        Some(Guest { strangers: self.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.strangers.all.set(self.strangers.all.get().saturating_sub(1));
        let mut of_address = self.strangers.of_address.borrow_mut();
        if let Some(count) = of_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                of_address.remove(&self.address);
            }
        }
    }
}

/// Writes what comes, in order, until the connection or its last sender ends.
async fn write(stream: Rc<dyn Stream>, mut records: mpsc::Receiver<Bytes>) {
    while let Some(record) = records.recv().await {
        match tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(record)).await {
            Ok(Ok(())) => {}
            _ => break,
        }
    }
    stream.shutdown();
}

fn is_read_only(request: &Request) -> bool {
    if let Request::VolumeStatus {
        about: Some(About::ClearTop | About::Profile { op: ProfileInfo::Clear, .. }), ..
    } = request
    {
        return false;
    }
    matches!(
        request,
        Request::PeerStatus
            | Request::PoolList
            | Request::VolumeInfo { .. }
            | Request::VolumeList
            | Request::VolumeStatus { .. }
            | Request::VolumeGet { .. }
            | Request::GetSpec { .. }
            | Request::GetWorkingDirectory
            | Request::UuidGet
    )
}

fn name(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "the unix socket".to_owned(), |address| address.to_string())
}

/// The caller's name: what the resolver calls its address, if that name leads back to it; else the address.
async fn caller_name(address: Option<IpAddr>) -> String {
    let Some(address) = address else { return "localhost".to_owned() };
    let address = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        v4 => v4,
    };
    let looked_up = tokio::task::spawn_blocking(move || crate::net::resolve::name_of(address));
    let found = tokio::time::timeout(Duration::from_secs(3), looked_up).await;
    match found {
        Ok(Ok(Some(name))) if super::node::resolve(&name).await.contains(&address) => name,
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_room_for_peers() {
        let strangers = Rc::new(Strangers::default());
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut guests: Vec<Guest> = (0..MAX_OF_ONE_ADDRESS).filter_map(|_| strangers.admit(address(1))).collect();
        assert_eq!(guests.len(), MAX_OF_ONE_ADDRESS);
        assert!(strangers.admit(address(1)).is_none(), "one address has its share");
        for last in 2..10 {
            guests.extend((0..MAX_OF_ONE_ADDRESS).map_while(|_| strangers.admit(address(last))));
        }
        assert_eq!(guests.len(), MAX_CONNECTIONS - KEPT_FOR_PEERS);
        drop(guests);
        assert!(strangers.of_address.borrow().is_empty());
        assert!(strangers.admit(address(1)).is_some());
    }
}
