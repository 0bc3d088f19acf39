//! What can be seen of the clients of a brick while it serves: for `volume status` and state dumps; and their judgement
//! by rules that have changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ladrillo_translator::ClientId;

use super::Shared;
use super::session::OpenFd;

/// Sees a running server's clients.
#[derive(Clone)]
pub struct Observer {
    pub(super) shared: Arc<Shared>,
}

/// A client.
#[derive(Clone, Debug)]
pub struct ClientView {
    /// Its number on this brick.
    pub id: ClientId,
    /// Its process-uuid.
    pub uid: String,
    /// What its process calls itself (`fuse`, `glustershd`); empty when it did not say.
    pub process_name: String,
    /// The operating version it reported, 0 when it did not.
    pub op_version: u32,
    /// Its connections.
    pub connections: Vec<ConnectionView>,
    /// Its open files with their numbers on the wire, in order.
    pub files: Vec<(u64, OpenFd)>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// Address and port of the other end.
    pub peer: String,
    /// What carries it, really: `tcp`, `rsocket`, `SMC-R`...
    pub medium: String,
    /// Bytes that came in.
    pub received: u64,
    /// Bytes that went out.
    pub sent: u64,
}

impl Observer {
    /// The clients, in the order they came.
    pub fn clients(&self) -> Vec<ClientView> {
        let sessions: Vec<_> = self.shared.sessions.lock().values().flatten().cloned().collect();
        let mut views: Vec<ClientView> = sessions.iter().map(|session| session.view()).collect();
        views.sort_by_key(|view| view.id.0);
        views
    }

    /// After a change of the graph's options: ends the connections that `auth.*` no longer admits; answers how many.
    pub fn cut_refused(&self) -> usize {
        let sessions: Vec<_> = self.shared.sessions.lock().values().flatten().cloned().collect();
        self.shared.cut_refused(&sessions)
    }

    /// How many file operations are under way.
    pub fn pending(&self) -> usize {
        self.shared.pending.load(Ordering::Relaxed)
    }
}
