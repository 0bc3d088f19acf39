//! What is known of inodes: which copies may be read, and the state of writes under way. A bounded table.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ladrillo_translator::{FileType, Gfid};
use parking_lot::Mutex;

use super::mask::Mask;
use super::transaction::session::Session;

/// Inodes remembered; those in use are never forgotten.
const MAX_INODES: usize = 1 << 17;
const SHARDS: usize = 16;

/// Which copies may be read, as of a generation of the children.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Readable {
    /// Copies whose contents (a directory's: entries) nobody accuses.
    pub data: Mask,
    /// Copies whose attributes nobody accuses.
    pub metadata: Mask,
    /// When it was learnt; 0 = never.
    pub generation: u64,
    /// The inode's kind, once known.
    pub kind: Option<FileType>,
}

impl Readable {
    /// Copies good in both respects.
    pub fn both(&self) -> Mask {
        self.data & self.metadata
    }
}

/// One inode.
pub(crate) struct Inode {
    pub gfid: Gfid,
    /// Owner of this client's inodelks on it: one for all, so that a write's lock does not stop our own setattr.
    pub lock_owner: u64,
    readable: Mutex<Readable>,
    /// When the copies last came into doubt, by [`InodeTable::moment`].
    doubted: AtomicU64,
    moments: Arc<AtomicU64>,
    touched: AtomicU64,
    /// An application has asked for a lock of it: a flush is the bricks' business.
    pub locks_asked: AtomicBool,
    /// The eager lock and the writes under it.
    pub session: Mutex<Session>,
    /// Metadata transactions take turns (they share [`Inode::lock_owner`]).
    pub metadata_turn: futures::lock::Mutex<()>,
}

impl Inode {
    /// What is known of the copies.
    pub fn readable(&self) -> Readable {
        *self.readable.lock()
    }

    /// Notes what was learnt from answers asked for after `moment` ([`InodeTable::moment`]), unless the copies came into
    /// doubt since: the answers may be older than that.
    pub fn learn(&self, readable: Readable, moment: u64) {
        let mut slot = self.readable.lock();
        if self.doubted.load(Ordering::Acquire) > moment {
            slot.kind = slot.kind.or(readable.kind);
            return;
        }
        let kind = readable.kind.or(slot.kind);
        *slot = Readable { kind, ..readable };
    }

    /// What is known is doubtful: learn it again before the next read.
    pub fn distrust(&self) {
        let mut readable = self.readable.lock();
        self.doubt();
        readable.generation = 0;
    }

    fn doubt(&self) {
        self.doubted.store(self.moments.fetch_add(1, Ordering::AcqRel) + 1, Ordering::Release);
    }

    /// Copies in `bad` missed something in `data` or `metadata`.
    pub fn discredit(&self, bad: Mask, data: bool, metadata: bool) {
        let mut readable = self.readable.lock();
        self.doubt();
        if data {
            readable.data -= bad;
        }
        if metadata {
            readable.metadata -= bad;
        }
        readable.generation = 0;
    }
}

/// The table.
pub(crate) struct InodeTable {
    shards: Vec<Mutex<HashMap<Gfid, Arc<Inode>>>>,
    clock: AtomicU64,
    /// Counts doubts of all inodes.
    moments: Arc<AtomicU64>,
    /// The moment an inode was last forgotten: one that is made anew may have been in doubt until then.
    forgotten: AtomicU64,
    next_owner: AtomicU64,
    /// Some inode was forgotten that may have locks of applications.
    forgot_locks: AtomicBool,
    shard_limit: usize,
}

impl InodeTable {
    /// An empty table; lock owners count from `first_owner`, which should differ between clients' incarnations.
    pub fn new(first_owner: u64) -> InodeTable {
        InodeTable {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            clock: AtomicU64::new(1),
            moments: Arc::default(),
            forgotten: AtomicU64::new(0),
            next_owner: AtomicU64::new(first_owner),
            forgot_locks: AtomicBool::new(false),
            shard_limit: MAX_INODES / SHARDS,
        }
    }

    /// A number for a lock's owner, never given twice.
    pub fn fresh_owner(&self) -> u64 {
        self.next_owner.fetch_add(1, Ordering::Relaxed)
    }

    /// Now, for [`Inode::learn`]: to be asked before the bricks are.
    pub fn moment(&self) -> u64 {
        self.moments.load(Ordering::Acquire)
    }

    fn shard(&self, gfid: &Gfid) -> &Mutex<HashMap<Gfid, Arc<Inode>>> {
        &self.shards[usize::from(gfid.0[15]) % SHARDS]
    }

    /// What is known of `gfid`, if anything.
    pub fn get(&self, gfid: &Gfid) -> Option<Arc<Inode>> {
        self.shard(gfid).lock().get(gfid).cloned()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether applications may have locks of an inode.
    pub fn may_have_locks(&self, gfid: &Gfid) -> bool {
        let asked = self.get(gfid).is_some_and(|inode| inode.locks_asked.load(Ordering::Relaxed));
        asked || self.forgot_locks.load(Ordering::Relaxed)
    }

    /// Inodes whose session is not idle.
    pub fn with_sessions(&self) -> Vec<Arc<Inode>> {
        let busy = |inode: &&Arc<Inode>| !inode.session.lock().is_idle();
        let of_shard = |shard: &Mutex<HashMap<_, _>>| shard.lock().values().filter(busy).cloned().collect::<Vec<_>>();
        let mut all: Vec<Arc<Inode>> = self.shards.iter().flat_map(of_shard).collect();
        // In the same order in every run: the simulator replays.
        all.sort_unstable_by_key(|inode| inode.gfid);
        all
    }

    /// The inode, known from now on.
    pub fn intern(&self, gfid: Gfid) -> Arc<Inode> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(&gfid).lock();
        if let Some(inode) = shard.get(&gfid) {
            inode.touched.store(now, Ordering::Relaxed);
            return inode.clone();
        }
        if shard.len() >= self.shard_limit {
            if forget_oldest_half(&mut shard) {
                self.forgot_locks.store(true, Ordering::Relaxed);
            }
            self.forgotten.store(self.moment(), Ordering::Release);
        }
        let inode = Arc::new(Inode {
            gfid,
            lock_owner: self.fresh_owner(),
            readable: Mutex::default(),
            doubted: AtomicU64::new(self.forgotten.load(Ordering::Acquire)),
            moments: self.moments.clone(),
            touched: AtomicU64::new(now),
            locks_asked: AtomicBool::new(false),
            session: Mutex::default(),
            metadata_turn: futures::lock::Mutex::new(()),
        });
        shard.insert(gfid, inode.clone());
        inode
    }
}

/// Forgets inodes nobody holds, the longest unused half of the table. One with a session under way is held by it. Answers
/// whether one of them may have locks.
fn forget_oldest_half(shard: &mut HashMap<Gfid, Arc<Inode>>) -> bool {
    let mut ages: Vec<u64> = shard.values().map(|inode| inode.touched.load(Ordering::Relaxed)).collect();
    let middle = ages.len() / 2;
    let (_, median, _) = ages.select_nth_unstable(middle);
    let median = *median;
    let mut had_locks = false;
    shard.retain(|_, inode| {
        let stays = Arc::strong_count(inode) > 1 || inode.touched.load(Ordering::Relaxed) > median;
        had_locks |= !stays && inode.locks_asked.load(Ordering::Relaxed);
        stays
    });
    had_locks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_answers_do_not_undo_a_doubt() {
        let table = InodeTable::new(1);
        let inode = table.intern(Gfid([1; 16]));
        let all: Mask = (0..3).collect();
        let seen = Readable { data: all, metadata: all, generation: 1, kind: None };
        let asked = table.moment();
        inode.discredit(Mask::only(2), true, false);
        inode.learn(seen, asked);
        assert_eq!(inode.readable().generation, 0);
        assert!(!inode.readable().data.has(2));
        inode.learn(seen, table.moment());
        assert_eq!((inode.readable().generation, inode.readable().data), (1, all));
        let asked = table.moment();
        table.intern(Gfid([2; 16])).distrust();
        inode.learn(Readable { generation: 2, ..seen }, asked);
        assert_eq!(inode.readable().generation, 2, "another inode's doubt is not its own");
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_held() {
        let mut table = InodeTable::new(1);
        table.shard_limit = 8;
        let held = table.intern(Gfid([0; 16]));
        for n in 1..200u8 {
            let mut raw = [n; 16];
            raw[15] = 0;
            table.intern(Gfid(raw));
        }
        assert!(table.shards[0].lock().len() <= 9);
        assert!(Arc::ptr_eq(&held, &table.intern(Gfid([0; 16]))));
    }
}
