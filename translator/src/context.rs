//! Who asks: the identity every fop carries (AUTH_GLUSTERFS v3 on the wire).

use std::sync::Arc;

use bytes::Bytes;

use crate::Timespec;

/// Owner of a lock: up to 1024 opaque bytes; equality is the owner's identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockOwner(pub Bytes);

impl LockOwner {
    /// From a number (FUSE's lock owner, a transaction's id), as GlusterFS encodes it: 8 bytes, native order.
    pub fn from_u64(owner: u64) -> LockOwner {
        LockOwner(Bytes::copy_from_slice(&owner.to_le_bytes()))
    }
}

/// Which client session a fop came from, as a brick's server numbers them. 0 is the process itself. Locks belong to
/// (client, [`LockOwner`]) and go with the client. It does not travel on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

impl ClientId {
    /// The process itself.
    pub const LOCAL: ClientId = ClientId(0);
}

/// The caller of a fop.
#[derive(Clone, Debug)]
pub struct Context {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
    /// Process id of the caller; negative for GlusterFS's own clients (heal is [`Context::PID_SELF_HEALD`]).
    pub pid: i32,
    /// Owner of locks this request takes or must respect.
    pub lock_owner: LockOwner,
    /// When the request was born on the client: becomes ctime/mtime, equal on all copies. Zero seconds = not given.
    pub birth: Timespec,
    /// On a brick: the session it came by (set by the server). [`ClientId::LOCAL`] elsewhere.
    pub client: ClientId,
}

impl Context {
    /// GF_CLIENT_PID_SELF_HEALD: heal traffic, which bricks must neither mark nor block on quota.
    pub const PID_SELF_HEALD: i32 = -6;
    /// GF_CLIENT_PID_GLFS_HEAL: `heal info`.
    pub const PID_HEAL_INFO: i32 = -7;
    /// GF_CLIENT_PID_NO_ROOT_SQUASH.
    pub const PID_NO_ROOT_SQUASH: i32 = -4;
    /// GF_CLIENT_PID_DEFRAG: rebalance.
    pub const PID_REBALANCE: i32 = -3;

    /// Root, without groups, for what the system does itself.
    pub fn root() -> Context {
        Context {
            uid: 0,
            gid: 0,
            groups: Arc::from([]),
            pid: 0,
            lock_owner: LockOwner::default(),
            birth: Timespec::default(),
            client: ClientId::LOCAL,
        }
    }

    /// The same caller under another lock owner.
    pub fn with_lock_owner(&self, owner: LockOwner) -> Context {
        Context { lock_owner: owner, ..self.clone() }
    }

    /// The same caller as of client session `client` of this brick.
    pub fn with_client(&self, client: ClientId) -> Context {
        Context { client, ..self.clone() }
    }

    /// Whether GlusterFS's own services ask (negative pid).
    pub fn is_internal(&self) -> bool {
        self.pid < 0
    }
}
