//! Locks held while entries change: which name leads where, and how many names an inode has, are decided and changed
//! in one piece.
//!
//! Promises: no deadlock, as names come before inodes and each kind is taken in the order of its shards; held for a few
//! system calls, never over an await.

use std::hash::{BuildHasher, RandomState};

use ladrillo_translator::Gfid;
use ladrillo_translator::fop::Entry;
use parking_lot::{Mutex, MutexGuard};

/// Locks of each kind; names and inodes that fall together wait for each other. Source: our bound.
const SHARDS: usize = 1024;

/// One lock, or two.
pub type Held<'a> = (MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>);

/// The locks of a brick.
pub struct EntryLocks {
    names: Vec<Mutex<()>>,
    inodes: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for EntryLocks {
    fn default() -> EntryLocks {
        let shards = || (0..SHARDS).map(|_| Mutex::new(())).collect();
        EntryLocks { names: shards(), inodes: shards(), hasher: RandomState::new() }
    }
}

impl EntryLocks {
    /// Keeps others from making, replacing or removing this name.
    pub fn name(&self, parent: Gfid, name: &[u8]) -> MutexGuard<'_, ()> {
        self.names[self.shard(parent, name)].lock()
    }

    /// The same for two names, which may be one.
    pub fn names(&self, one: &Entry, other: &Entry) -> Held<'_> {
        pair(&self.names, self.shard(one.parent, &one.name), self.shard(other.parent, &other.name))
    }

    /// Keeps others from adding or taking away names and handle of this inode. Taken after the names.
    pub fn inode(&self, gfid: Gfid) -> MutexGuard<'_, ()> {
        self.inodes[self.shard(gfid, b"")].lock()
    }

    /// The same for two inodes, which may be one.
    pub fn inodes(&self, one: Gfid, other: Gfid) -> Held<'_> {
        pair(&self.inodes, self.shard(one, b""), self.shard(other, b""))
    }

    fn shard(&self, gfid: Gfid, name: &[u8]) -> usize {
        self.hasher.hash_one((gfid.0, name)) as usize % SHARDS
    }
}

fn pair(locks: &[Mutex<()>], one: usize, other: usize) -> Held<'_> {
    let first = locks[one.min(other)].lock();
    let second = (one != other).then(|| locks[one.max(other)].lock());
    (first, second)
}
