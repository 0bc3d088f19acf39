//! Connections: who talks which program on which of them. A connection that sends garbage ends; the others go on.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::node::{Client, Node};
use super::peer::{PeerAnswer, PeerCall, Refusal};
use crate::api::{Answer, Failure, Outcome, Request};
use crate::net::record::{self, MAX_RECORD_BYTES, Reader};
use crate::net::rpc::{self, Call, Garbage, Incoming, Input, put_opaque};
use crate::net::socket::{Listener, Stream};

/// Most connections at once.
const MAX_CONNECTIONS: usize = 4096;
/// Most calls of one connection in work at once; further ones wait in its socket.
const MAX_CALLS: usize = 64;
/// Most records waiting for one connection to read them.
const MAX_OUTGOING: usize = 64;
/// Largest record of a caller that is no peer and no command line, in bytes.
const MAX_CLIENT_RECORD_BYTES: usize = 4 << 20;
/// How long a caller may take to read a record.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

impl Node {
    /// Takes connections until the end.
    pub async fn serve(self: Rc<Self>, listener: Listener) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while !self.ending.get() {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(stream) => {
                    let node = self.clone();
                    tokio::task::spawn_local(async move {
                        node.connection(stream).await;
                        drop(permit);
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
        let limit = if address.is_none() { MAX_CLIENT_RECORD_BYTES } else { MAX_RECORD_BYTES };
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
            let call = match rpc::decode(record) {
                Ok(Incoming::Call(call)) => call,
                // Answers to callbacks; there is nothing to do with them.
                Ok(Incoming::Reply(_)) => continue,
                Err(error) => {
                    tracing::info!("connection from {}: {error}", name(address));
                    break;
                }
            };
            let Ok(permit) = calls.clone().acquire_owned().await else { break };
            let (node, client) = (self.clone(), client.clone());
            tokio::task::spawn_local(async move {
                let reply = node.answer(call, &client).await;
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

    async fn answer(self: Rc<Self>, call: Call, client: &Rc<Client>) -> Vec<u8> {
        let (program, version, procedure) = (call.program, call.version, call.procedure);
        let known = match program {
            rpc::HANDSHAKE_PROGRAM => 2,
            rpc::PORTMAP_PROGRAM | rpc::DUMP_PROGRAM | rpc::CLI_PROGRAM | rpc::PEER_PROGRAM => 1,
            _ => return rpc::encode_reply(call.xid, rpc::PROG_UNAVAIL, b""),
        };
        if version != known {
            return rpc::encode_reply(call.xid, rpc::PROG_MISMATCH, b"");
        }
        let body = match program {
            rpc::HANDSHAKE_PROGRAM => self.handshake(procedure, call.body, client),
            rpc::PORTMAP_PROGRAM => self.portmap(procedure, call.body, client),
            rpc::DUMP_PROGRAM => self.dump(procedure, call.body),
            _ if procedure != rpc::OWN_CALL => Ok(None),
            rpc::CLI_PROGRAM => self.clone().cli(call.body, client.address).await.map(Some),
            _ => self.clone().peer_call(call.body, client.address).await.map(Some),
        };
        match body {
            Ok(Some(body)) => rpc::encode_reply(call.xid, 0, &body),
            Ok(None) => rpc::encode_reply(call.xid, rpc::PROC_UNAVAIL, b""),
            Err(error) => {
                tracing::info!("call of {program} procedure {procedure} from {}: {error}", name(client.address));
                rpc::encode_reply(call.xid, rpc::GARBAGE_ARGS, b"")
            }
        }
    }

    async fn cli(self: Rc<Self>, body: Bytes, address: Option<IpAddr>) -> Result<Vec<u8>, Garbage> {
        let json = Input(body).opaque(MAX_CLIENT_RECORD_BYTES)?;
        let request: Request = serde_json::from_slice(&json).map_err(|_| Garbage("no command of ours"))?;
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
        let json = serde_json::to_vec(&outcome).map_err(|_| Garbage("an answer that does not encode"))?;
        let mut out = Vec::with_capacity(json.len() + 8);
        put_opaque(&mut out, &json);
        Ok(out)
    }

    /// Does a command.
    pub async fn execute(self: Rc<Self>, request: &Request) -> Outcome {
        match request {
            Request::PeerProbe { host } => self.probe(host).await,
            Request::PeerDetach { host, force } => self.detach(host, *force).await,
            Request::PeerStatus => self.peers(false),
            Request::PoolList => self.peers(true),
            Request::VolumeCreate { name, replica, bricks, transport, force } => {
                self.create_volume(name, *replica, bricks, transport, *force).await
            }
            Request::VolumeStart { name, force } => self.start_volume(name, *force).await,
            Request::VolumeStop { name, force } => self.stop_volume(name, *force).await,
            Request::VolumeDelete { name } => self.delete_volume(name).await,
            Request::VolumeInfo { name } => self.volume_info(name.as_deref()),
            Request::VolumeList => self.volume_names(),
            Request::VolumeStatus { name } => self.volume_status(name.as_deref()).await,
            Request::VolumeSet { name, options } => self.set_options(name, options).await,
            Request::VolumeReset { name, key, force } => self.reset_options(name, key.as_deref(), *force).await,
            Request::VolumeGet { name, key } => self.get_options(name, key),
            Request::VolumeHeal { name, full } => self.heal_volume(name, *full).await,
            Request::GetSpec { key } => match self.volfile(key, true) {
                Ok(text) => Ok(Answer::Text(text)),
                Err(reason) => Err(Failure::new(libc::ENOENT, reason)),
            },
            Request::GetWorkingDirectory => Ok(Answer::Text(self.work.root().display().to_string())),
            Request::UuidGet => Ok(Answer::Text(self.uuid().to_string())),
        }
    }

    async fn peer_call(self: Rc<Self>, body: Bytes, address: Option<IpAddr>) -> Result<Vec<u8>, Garbage> {
        let json = Input(body).opaque(MAX_RECORD_BYTES)?;
        let call: PeerCall = serde_json::from_slice(&json).map_err(|_| Garbage("no call of a glusterd of ours"))?;
        let answer = self.peer_answer(call, address).await;
        let json = serde_json::to_vec(&answer).map_err(|_| Garbage("an answer that does not encode"))?;
        let mut out = Vec::with_capacity(json.len() + 8);
        put_opaque(&mut out, &json);
        Ok(out)
    }

    async fn peer_answer(self: Rc<Self>, call: PeerCall, address: Option<IpAddr>) -> PeerAnswer {
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
            PeerCall::Join { tag, you, .. } => PeerAnswer::Joined(Box::new(self.join(tag, &you).await?)),
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
            PeerCall::Status { volume, .. } => PeerAnswer::Status(self.own_status(volume.as_deref())),
        })
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
