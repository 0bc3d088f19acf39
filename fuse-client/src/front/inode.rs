//! The inode table: the kernel's nodeids to gfids, for as long as the kernel remembers them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ladrillo_translator::{FdId, Gfid};
use parking_lot::Mutex;

use super::abi::ROOT_NODEID;

const SHARD_BITS: u32 = 4;
const SHARDS: usize = 1 << SHARD_BITS;

/// Nodeids are never used twice, so every inode's generation is the same.
pub const GENERATION: u64 = 1;

/// Which inodes the kernel knows. An entry lives until the kernel forgets it, so the kernel's cache bounds the table.
pub struct Inodes {
    shards: [Mutex<Shard>; SHARDS],
    /// Numbers handed out so far; a nodeid is such a number and its shard.
    last: AtomicU64,
    known: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    by_nodeid: HashMap<u64, Inode>,
    by_gfid: HashMap<Gfid, u64>,
    /// Open files by inode: an inode without a name left is reached through one of them.
    open: HashMap<Gfid, Vec<FdId>>,
}

struct Inode {
    gfid: Gfid,
    lookups: u64,
}

impl Default for Inodes {
    fn default() -> Inodes {
        Inodes { shards: Default::default(), last: AtomicU64::new(ROOT_NODEID), known: AtomicUsize::new(0) }
    }
}

fn shard_of(gfid: &Gfid) -> usize {
    usize::from(gfid.0[15]) & (SHARDS - 1)
}

impl Inodes {
    /// The gfid behind a nodeid, if the kernel got it from us.
    pub fn gfid(&self, nodeid: u64) -> Option<Gfid> {
        if nodeid == ROOT_NODEID {
            return Some(Gfid::ROOT);
        }
        let shard = self.shards[nodeid as usize & (SHARDS - 1)].lock();
        shard.by_nodeid.get(&nodeid).map(|inode| inode.gfid)
    }

    /// The nodeid of an inode that the kernel knows.
    pub fn nodeid(&self, gfid: &Gfid) -> Option<u64> {
        if gfid.is_root() {
            return Some(ROOT_NODEID);
        }
        self.shards[shard_of(gfid)].lock().by_gfid.get(gfid).copied()
    }

    /// The kernel is about to learn of this inode (once more): its nodeid.
    pub fn lookup(&self, gfid: Gfid) -> u64 {
        if gfid.is_root() {
            return ROOT_NODEID;
        }
        let mut shard = self.shards[shard_of(&gfid)].lock();
        let shard = &mut *shard;
        let nodeid = *shard.by_gfid.entry(gfid).or_insert_with(|| {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            let nodeid = (number << SHARD_BITS) | shard_of(&gfid) as u64;
            self.known.fetch_add(1, Ordering::Relaxed);
            shard.by_nodeid.insert(nodeid, Inode { gfid, lookups: 0 });
            nodeid
        });
        if let Some(inode) = shard.by_nodeid.get_mut(&nodeid) {
            inode.lookups += 1;
        }
        nodeid
    }

    /// The kernel forgets `count` lookups of this inode.
    pub fn forget(&self, nodeid: u64, count: u64) {
        if nodeid == ROOT_NODEID {
            return;
        }
        let mut shard = self.shards[nodeid as usize & (SHARDS - 1)].lock();
        let Some(inode) = shard.by_nodeid.get_mut(&nodeid) else { return };
        inode.lookups = inode.lookups.saturating_sub(count);
        if inode.lookups == 0 {
            let gfid = inode.gfid;
            shard.by_nodeid.remove(&nodeid);
            shard.by_gfid.remove(&gfid);
            self.known.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many inodes the kernel knows, the root aside.
    pub fn len(&self) -> usize {
        self.known.load(Ordering::Relaxed)
    }

    /// Whether the kernel knows only the root.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `fd` is open on the inode.
    pub fn opened(&self, gfid: Gfid, fd: FdId) {
        self.shards[shard_of(&gfid)].lock().open.entry(gfid).or_default().push(fd);
    }

    /// `fd` is no longer open on the inode.
    pub fn closed(&self, gfid: Gfid, fd: FdId) {
        let mut shard = self.shards[shard_of(&gfid)].lock();
        if let Some(fds) = shard.open.get_mut(&gfid) {
            fds.retain(|open| *open != fd);
            if fds.is_empty() {
                shard.open.remove(&gfid);
            }
        }
    }

    /// Some open file of the inode.
    pub fn any_open(&self, gfid: &Gfid) -> Option<FdId> {
        self.shards[shard_of(gfid)].lock().open.get(gfid).and_then(|fds| fds.last().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_lives_until_its_lookups_are_forgotten() {
        let inodes = Inodes::default();
        let gfid = Gfid::random();
        let nodeid = inodes.lookup(gfid);
        assert_ne!(nodeid, ROOT_NODEID);
        assert_eq!(inodes.lookup(gfid), nodeid);
        assert_eq!((inodes.gfid(nodeid), inodes.nodeid(&gfid), inodes.len()), (Some(gfid), Some(nodeid), 1));
        inodes.forget(nodeid, 1);
        assert_eq!(inodes.gfid(nodeid), Some(gfid));
        inodes.forget(nodeid, 7);
        assert_eq!((inodes.gfid(nodeid), inodes.nodeid(&gfid), inodes.len()), (None, None, 0));
        inodes.forget(nodeid, 1);
        assert_ne!(inodes.lookup(gfid), nodeid, "nodeids are not used twice");
        assert_eq!(inodes.gfid(ROOT_NODEID), Some(Gfid::ROOT));
        inodes.forget(ROOT_NODEID, 1);
        assert_eq!(inodes.lookup(Gfid::ROOT), ROOT_NODEID);
    }

    #[test]
    fn open_files_are_found_by_inode() {
        let inodes = Inodes::default();
        let gfid = Gfid::random();
        inodes.opened(gfid, FdId(3));
        inodes.opened(gfid, FdId(4));
        inodes.closed(gfid, FdId(4));
        assert_eq!(inodes.any_open(&gfid), Some(FdId(3)));
        inodes.closed(gfid, FdId(3));
        assert_eq!(inodes.any_open(&gfid), None);
    }
}
