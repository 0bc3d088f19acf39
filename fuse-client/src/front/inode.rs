//! The inode table: the kernel's nodeids to gfids, for as long as the kernel remembers them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ladrillo_translator::{FdId, Gfid};
use parking_lot::Mutex;

use super::abi::ROOT_NODEID;

const SHARD_BITS: u32 = 4;
const SHARDS: usize = 1 << SHARD_BITS;

/// Nodeids are never used twice, so every inode's generation is the same.
pub const GENERATION: u64 = 1;

/// Inodes looked at for each that the kernel is to do without: open ones and directories are passed over.
const LOOKS_FOR_ONE: usize = 8;

/// Names remembered of one inode, the latest learnt: others of a file with more links stay with the kernel for as long as
/// it was allowed to keep them, whatever becomes of them.
const MAX_PLACES: usize = 8;

/// Which inodes the kernel knows. An entry lives until the kernel forgets it; beyond a limit (`--lru-limit`) the kernel is
/// asked to forget files it learnt of longest ago.
pub struct Inodes {
    shards: [Mutex<Shard>; SHARDS],
    /// Numbers handed out so far; a nodeid is such a number and its shard.
    last: AtomicU64,
    known: AtomicUsize,
    /// 0: none.
    limit: usize,
    /// Files with a place, in the order in which they were learnt.
    order: Mutex<VecDeque<u64>>,
}

/// A name of an inode, to be forgotten: its directory's nodeid, and the name there.
pub type Place = (u64, Box<[u8]>);

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
    /// Where the kernel knows it, the place learnt last at the end.
    places: Vec<Place>,
}

impl Default for Inodes {
    fn default() -> Inodes {
        Inodes::with_limit(0)
    }
}

fn shard_of(gfid: &Gfid) -> usize {
    usize::from(gfid.0[15]) & (SHARDS - 1)
}

impl Inodes {
    /// A table that is to have no more than `limit` inodes if the kernel can do without the others; 0: no limit.
    pub fn with_limit(limit: usize) -> Inodes {
        Inodes {
            shards: Default::default(),
            last: AtomicU64::new(ROOT_NODEID),
            known: AtomicUsize::new(0),
            limit,
            order: Mutex::default(),
        }
    }

    /// [`Inodes::lookup`] of a file that has this name.
    pub fn lookup_at(&self, gfid: Gfid, parent: u64, name: &[u8]) -> u64 {
        let nodeid = self.lookup(gfid);
        if self.placed(gfid, parent, name) && self.limit != 0 {
            self.order.lock().push_back(nodeid);
        }
        nodeid
    }

    /// [`Inodes::lookup`] of a directory that has this name. It is never surplus: it may be somebody's working directory.
    pub fn lookup_directory_at(&self, gfid: Gfid, parent: u64, name: &[u8]) -> u64 {
        let nodeid = self.lookup(gfid);
        self.placed(gfid, parent, name);
        nodeid
    }

    /// The kernel knows an inode under this name; whether it had none before.
    pub fn placed(&self, gfid: Gfid, parent: u64, name: &[u8]) -> bool {
        let mut shard = self.shards[shard_of(&gfid)].lock();
        let shard = &mut *shard;
        let Some(inode) = shard.by_gfid.get(&gfid).and_then(|nodeid| shard.by_nodeid.get_mut(nodeid)) else {
            return false;
        };
        match inode.places.iter().position(|(at, known)| *at == parent && **known == *name) {
            Some(known) => inode.places[known..].rotate_left(1),
            None => {
                if inode.places.len() >= MAX_PLACES {
                    inode.places.remove(0);
                }
                inode.places.reserve_exact(1);
                inode.places.push((parent, name.into()));
                return inode.places.len() == 1;
            }
        }
        false
    }

    /// The names under which the kernel knows an inode.
    pub fn places(&self, gfid: &Gfid) -> Vec<Place> {
        let shard = self.shards[shard_of(gfid)].lock();
        let inode = shard.by_gfid.get(gfid).and_then(|nodeid| shard.by_nodeid.get(nodeid));
        inode.map(|inode| inode.places.clone()).unwrap_or_default()
    }

    /// Up to `most` names that the kernel is to be asked to forget, while there are more inodes than the limit: of files
    /// that are not open, those learnt longest ago. They are not named again before all others were.
    pub fn surplus(&self, most: usize) -> Vec<Place> {
        let most = most.min(self.len().saturating_sub(self.limit));
        if self.limit == 0 || most == 0 {
            return Vec::new();
        }
        let mut places = Vec::new();
        let mut order = self.order.lock();
        for _ in 0..order.len().min(most * LOOKS_FOR_ONE) {
            let Some(nodeid) = order.pop_front() else { break };
            let shard = self.shards[nodeid as usize & (SHARDS - 1)].lock();
            let Some(inode) = shard.by_nodeid.get(&nodeid) else { continue };
            if let Some(place) = inode.places.last().cloned().filter(|_| !shard.open.contains_key(&inode.gfid)) {
                places.push(place);
            }
            order.push_back(nodeid);
            if places.len() >= most {
                break;
            }
        }
        places
    }

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
            shard.by_nodeid.insert(nodeid, Inode { gfid, lookups: 0, places: Vec::new() });
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
    fn beyond_the_limit_files_learnt_longest_ago_are_named_unless_they_are_open() {
        let inodes = Inodes::with_limit(4);
        let gfids: Vec<Gfid> = (0..8).map(|_| Gfid::random()).collect();
        let nodeids: Vec<u64> = (0..8u8).map(|n| inodes.lookup_at(gfids[usize::from(n)], 1, &[b'a' + n])).collect();
        inodes.opened(gfids[0], FdId(1));
        let directory = inodes.lookup(Gfid::random());
        let names: Vec<Box<[u8]>> = inodes.surplus(100).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names.concat(), b"bcdef");
        for nodeid in &nodeids[1..7] {
            inodes.forget(*nodeid, 1);
        }
        assert_eq!((inodes.len(), inodes.surplus(100).len()), (3, 0));
        assert!(inodes.gfid(directory).is_some());
        assert!(Inodes::default().surplus(1).is_empty());
    }

    #[test]
    fn the_latest_names_of_an_inode_are_remembered() {
        let inodes = Inodes::with_limit(0);
        let gfid = Gfid::random();
        let nodeid = inodes.lookup_at(gfid, 1, b"a");
        inodes.lookup_at(gfid, 1, b"b");
        inodes.lookup_at(gfid, 1, b"a");
        let names = || inodes.places(&gfid).into_iter().map(|(_, name)| name).collect::<Vec<_>>().concat();
        assert_eq!(names(), b"ba");
        assert!((b'c'..=b'j').all(|name| !inodes.placed(gfid, 2, &[name])));
        assert_eq!(names(), b"cdefghij");
        inodes.forget(nodeid, 3);
        assert_eq!(names(), b"");
        assert!(!inodes.placed(gfid, 1, b"a"), "the kernel does not know it");
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
