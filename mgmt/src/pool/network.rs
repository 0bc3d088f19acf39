//! Raft's messages over the peer program.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, Timeout as TimeoutError, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};

use crate::daemon::peer::{PeerAnswer, PeerCall, PoolTag, Refusal};
use crate::net::link::Links;
use crate::net::rpc::PEER_PROGRAM;
use crate::state::raft::{NodeId, Place, Types};
use crate::state::store::Store;

/// Calls a peer.
///
/// # Errors
/// The link's, and `InvalidData` when the answer does not decode.
pub async fn call(links: &Links, place: &Place, call: &PeerCall, timeout: Duration) -> io::Result<PeerAnswer> {
    let json = serde_json::to_vec(call).map_err(io::Error::other)?;
    let answer = links.call(&place.host, place.port, PEER_PROGRAM, &json, timeout).await?;
    serde_json::from_slice(&answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Makes Raft's connections.
#[derive(Clone)]
pub struct Network {
    /// The links.
    pub links: Links,
    /// The node this is.
    pub own: NodeId,
    /// Where members are, by name: what Raft's membership says may be older.
    pub store: Store,
    /// The pool and epoch this Raft runs in.
    pub tag: Arc<PoolTag>,
}

/// Raft's way to one node.
pub struct Way {
    network: Network,
    target: NodeId,
    place: Place,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: NodeId, node: &Place) -> Way {
        Way { network: self.clone(), target, place: node.clone() }
    }
}

impl Way {
    async fn call<E: std::error::Error>(
        &self,
        message: PeerCall,
        kind: RPCTypes,
        timeout: Duration,
    ) -> Result<PeerAnswer, RPCError<NodeId, Place, E>> {
        let place = self.network.store.with_state(|state| {
            state
                .peers
                .get(&self.target.0)
                .filter(|peer| !peer.hostnames.is_empty())
                .map_or_else(|| self.place.clone(), |peer| Place { host: peer.name().to_owned(), port: peer.port })
        });
        match call(&self.network.links, &place, &message, timeout).await {
            Ok(PeerAnswer::Refused(refusal)) => Err(RPCError::Unreachable(Unreachable::new(&refusal))),
            Ok(answer) => Ok(answer),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(RPCError::Timeout(TimeoutError {
                action: kind,
                id: self.network.own,
                target: self.target,
                timeout,
            })),
            Err(error) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        }
    }

    fn unexpected<E: std::error::Error>(&self) -> RPCError<NodeId, Place, E> {
        RPCError::Network(NetworkError::new(&Refusal::Other("an answer to another question".into())))
    }
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, Place, RaftError<NodeId>>> {
        let call = PeerCall::Append { tag: *self.network.tag, from: self.network.own, request };
        match self.call(call, RPCTypes::AppendEntries, option.hard_ttl()).await? {
            PeerAnswer::Append(answer) => Ok(answer),
            _ => Err(self.unexpected()),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, RPCError<NodeId, Place, RaftError<NodeId, InstallSnapshotError>>> {
        let call = PeerCall::Snapshot { tag: *self.network.tag, from: self.network.own, request };
        match self.call(call, RPCTypes::InstallSnapshot, option.hard_ttl()).await? {
            PeerAnswer::Snapshot(answer) => Ok(answer),
            _ => Err(self.unexpected()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, Place, RaftError<NodeId>>> {
        let call = PeerCall::Vote { tag: *self.network.tag, from: self.network.own, request };
        match self.call(call, RPCTypes::Vote, option.hard_ttl()).await? {
            PeerAnswer::Vote(answer) => Ok(answer),
            _ => Err(self.unexpected()),
        }
    }
}
