//! A client as the brick knows it: all connections with the same process-uuid, the files they have open, their locks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::File;
use ladrillo_translator::{ClientId, Dict, FdId, Fop, FopError, FopResult, Gfid};
use parking_lot::Mutex;

use super::auth::Refusal;
use super::connection::Outgoing;
use super::handshake::Admitted;
use super::{ClientView, ConnectionView};

/// Most descriptors of one client: a quarter of what the process may have (one takes two where it is O_DIRECT), so that
/// one client that closes none leaves some to the others. Source: our bound.
fn max_fds() -> usize {
    static MOST: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *MOST.get_or_init(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
        usize::try_from(limit / 4).unwrap_or(usize::MAX).clamp(256, 1 << 18)
    })
}

/// Wire numbers of descriptors are below this: FdId(u64::MAX - 1) and the like mean "anonymous" to some clients.
static NEXT_FD: AtomicU64 = AtomicU64::new(1);

/// A fresh id for an open file, never used before in this process.
pub fn next_fd() -> FdId {
    FdId(NEXT_FD.fetch_add(1, Ordering::Relaxed))
}

/// An open file of a client.
#[derive(Clone, Copy, Debug)]
pub struct OpenFd {
    /// Its id in the graph.
    pub id: FdId,
    /// Its inode.
    pub gfid: Gfid,
    /// Opened by OPENDIR.
    pub directory: bool,
}

/// One of a client's connections.
struct Connection {
    outgoing: Arc<Outgoing>,
    /// What it said who it is: judged again when `auth.*` changes.
    proof: Dict,
}

/// One client.
pub struct Session {
    /// Its number, never used twice.
    pub id: ClientId,
    /// Its process-uuid.
    pub uid: String,
    /// The translator it is bound to (remote-subvolume).
    pub subvolume: String,
    /// The directory it mounts, `/` where that is the volume.
    pub subdir: String,
    /// That directory, which the client believes to be the root.
    pub root: Option<Gfid>,
    /// It gave the pool's own name and password.
    pub trusted: bool,
    /// What its process calls itself; empty when it does not say.
    process_name: String,
    op_version: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: Vec<Connection>,
    fds: HashMap<u64, OpenFd>,
    free: Vec<u64>,
    next_wire: u64,
    ended: bool,
}

impl Session {
    /// A session with its first connection.
    pub fn new(id: ClientId, admitted: &Admitted, root: Option<Gfid>) -> Session {
        let Admitted { uid, subvolume, trusted, .. } = admitted;
        let subdir = admitted.subdir().to_owned();
        let (uid, subvolume) = (uid.clone(), subvolume.clone());
        let (process_name, op_version) = (admitted.process_name.clone(), admitted.op_version);
        let trusted = *trusted;
        Session { id, uid, subvolume, subdir, root, trusted, process_name, op_version, state: Mutex::default() }
    }

    /// Whether a connection that says this of itself is one of ours.
    pub fn is_of(&self, admitted: &Admitted) -> bool {
        (&*self.uid, &*self.subvolume, &*self.subdir, self.trusted)
            == (&*admitted.uid, &*admitted.subvolume, admitted.subdir(), admitted.trusted)
    }

    /// Adds a connection and what it said who it is; `false` when the session is ending.
    pub fn join(&self, connection: &Arc<Outgoing>, proof: &Dict) -> bool {
        let mut state = self.state.lock();
        if state.ended {
            return false;
        }
        if !state.connections.iter().any(|c| Arc::ptr_eq(&c.outgoing, connection)) {
            state.connections.push(Connection { outgoing: connection.clone(), proof: proof.clone() });
        }
        true
    }

    /// Takes a connection away. When it was the last, the session ends: the files to close are returned.
    pub fn leave(&self, connection: &Arc<Outgoing>) -> Option<Vec<OpenFd>> {
        let mut state = self.state.lock();
        state.connections.retain(|c| !Arc::ptr_eq(&c.outgoing, connection));
        if state.connections.is_empty() && !state.ended {
            state.ended = true;
            return Some(state.fds.drain().map(|(_, fd)| fd).collect());
        }
        None
    }

    /// Whether its last connection has gone.
    pub fn is_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// What is to be seen of it.
    pub fn view(&self) -> ClientView {
        let state = self.state.lock();
        let connections = state.connections.iter().map(|Connection { outgoing, .. }| {
            let (received, sent) = outgoing.traffic();
            ConnectionView { peer: outgoing.peer().to_owned(), medium: outgoing.medium(), received, sent }
        });
        let mut files: Vec<(u64, OpenFd)> = state.fds.iter().map(|(wire, fd)| (*wire, *fd)).collect();
        files.sort_unstable_by_key(|(wire, _)| *wire);
        ClientView {
            id: self.id,
            uid: self.uid.clone(),
            process_name: self.process_name.clone(),
            op_version: self.op_version,
            connections: connections.collect(),
            files,
        }
    }

    /// A connection to tell the client something on.
    pub fn connection(&self) -> Option<Arc<Outgoing>> {
        self.state.lock().connections.first().map(|connection| connection.outgoing.clone())
    }

    /// Its connections that `admits` (given the other end's address and what the connection said) no longer lets in, or
    /// as somebody else: trusted or not.
    pub fn refused(
        &self,
        admits: impl Fn(Option<SocketAddr>, &Dict) -> Result<bool, Refusal>,
    ) -> Vec<(Arc<Outgoing>, String)> {
        let state = self.state.lock();
        let judge = |connection: &Connection| {
            let why = match admits(connection.outgoing.peer().parse().ok(), &connection.proof) {
                Ok(trusted) if trusted == self.trusted => return None,
                Ok(_) => "it is to come in as somebody else".to_owned(),
                Err((_, sentence)) => sentence,
            };
            Some((connection.outgoing.clone(), why))
        };
        state.connections.iter().filter_map(judge).collect()
    }

    /// Registers an open file; answers its number on the wire. ENOTCONN when the session ended meanwhile.
    pub fn opened(&self, fd: OpenFd) -> FopResult<u64> {
        let mut state = self.state.lock();
        if state.ended {
            return Err(FopError::new(errno::ENOTCONN, "the client has gone"));
        }
        if state.fds.len() >= max_fds() {
            return Err(FopError::new(libc::EMFILE, format!("{} has {} files open", self.uid, state.fds.len())));
        }
        let wire = match state.free.pop() {
            Some(wire) => wire,
            None => {
                state.next_wire += 1;
                state.next_wire - 1
            }
        };
        state.fds.insert(wire, fd);
        Ok(wire)
    }

    /// Forgets an open file.
    pub fn closed(&self, wire: u64) -> Option<OpenFd> {
        let mut state = self.state.lock();
        let fd = state.fds.remove(&wire)?;
        state.free.push(wire);
        Some(fd)
    }

    /// How many files it has open.
    pub fn open_count(&self) -> usize {
        self.state.lock().fds.len()
    }

    /// The graph's id for a wire number.
    ///
    /// # Errors
    /// EBADF for a number that is not open.
    pub fn file(&self, file: File) -> FopResult<File> {
        let Some(FdId(wire)) = file.fd else { return Ok(file) };
        match self.state.lock().fds.get(&wire) {
            Some(open) => Ok(File { gfid: open.gfid, fd: Some(open.id) }),
            None => Err(FopError::new(errno::EBADF, format!("{} has no descriptor {wire}", self.uid))),
        }
    }

    /// Replaces wire numbers in `fop` by the graph's ids.
    ///
    /// # Errors
    /// EBADF for a number that is not open.
    pub fn translate(&self, fop: &mut Fop) -> FopResult<()> {
        // What closes a descriptor was taken care of before: it has no number any more.
        if !matches!(fop, Fop::Release { .. } | Fop::Releasedir { .. }) {
            for file in fop.files_mut().into_iter().flatten() {
                *file = self.file(*file)?;
            }
        }
        Ok(())
    }
}
