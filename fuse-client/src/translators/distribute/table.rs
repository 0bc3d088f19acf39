//! What is known of inodes and names: where each file is, each directory's layout. Bounded; what was forgotten is asked
//! of the subvolumes again.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::Gfid;
use ladrillo_translator::fop::{Entry, Name};
use parking_lot::Mutex;

use super::layout::Layout;

/// Inodes remembered, and names. Source: our bound; an entry is some 200 bytes.
const MAX_ENTRIES: usize = 1 << 17;
const SHARDS: usize = 16;
/// Deepest path that is put together.
const MAX_DEPTH: usize = 1024;

/// A directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub layout: Arc<Layout>,
    /// The subvolume whose copy of the attributes counts.
    pub mds: Option<usize>,
    /// When the layout was learnt: a count of the subvolumes that came up.
    pub generation: u64,
}

/// What an inode is, and where.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// No directory: on one subvolume.
    File(usize),
    /// On all.
    Directory(Directory),
}

/// Where a name led when it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub gfid: Gfid,
    /// Subvolume of a file; `None`: a directory.
    pub subvolume: Option<usize>,
    /// When.
    pub seen: Duration,
}

/// The table.
pub(crate) struct Table {
    inodes: Sharded<Gfid, Known>,
    /// Names of directories, for paths.
    names: Sharded<Gfid, Entry>,
    hints: Sharded<(Gfid, Name), Hint>,
}

impl Table {
    pub fn new() -> Table {
        Table {
            inodes: Sharded::new(MAX_ENTRIES),
            names: Sharded::new(MAX_ENTRIES / 4),
            hints: Sharded::new(MAX_ENTRIES),
        }
    }

    /// How many inodes are known.
    pub fn len(&self) -> usize {
        self.inodes.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    pub fn get(&self, gfid: &Gfid) -> Option<Known> {
        self.inodes.get(gfid)
    }

    pub fn learn_file(&self, gfid: Gfid, subvolume: usize) {
        self.inodes.set(gfid, Known::File(subvolume));
    }

    pub fn learn_directory(&self, gfid: Gfid, directory: Directory) {
        self.inodes.set(gfid, Known::Directory(directory));
    }

    pub fn forget(&self, gfid: &Gfid) {
        self.inodes.remove(gfid);
    }

    pub fn hint(&self, entry: &Entry) -> Option<Hint> {
        self.hints.get(&(entry.parent, entry.name.clone()))
    }

    /// Remembers where a name leads, and a directory's name for its path.
    pub fn learn_name(&self, entry: &Entry, hint: Hint) {
        if hint.subvolume.is_none() {
            self.names.set(hint.gfid, entry.clone());
        }
        self.hints.set((entry.parent, entry.name.clone()), hint);
    }

    pub fn forget_name(&self, entry: &Entry) {
        self.hints.remove(&(entry.parent, entry.name.clone()));
    }

    /// The name a directory was last seen under.
    pub fn name_of(&self, gfid: &Gfid) -> Option<Entry> {
        self.names.get(gfid)
    }

    /// The path of `name` in `parent`, as GlusterFS writes it: from the root where all names on the way are known, else
    /// from the gfid of the first whose name is not.
    pub fn path(&self, parent: Gfid, name: &[u8]) -> Bytes {
        let mut parts: Vec<Bytes> = vec![Bytes::copy_from_slice(name)];
        let mut at = parent;
        while !at.is_root() {
            match self.names.get(&at) {
                Some(entry) if parts.len() < MAX_DEPTH => {
                    parts.push(entry.name);
                    at = entry.parent;
                }
                _ => break,
            }
        }
        let mut path = if at.is_root() { Vec::new() } else { format!("<gfid:{at}>").into_bytes() };
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        path.into()
    }
}

struct Sharded<K, V> {
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<K, (V, u64)>>>,
    clock: AtomicU64,
    shard_limit: usize,
}

impl<K: Hash + Eq, V: Clone> Sharded<K, V> {
    fn new(limit: usize) -> Sharded<K, V> {
        Sharded {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            clock: AtomicU64::new(1),
            shard_limit: (limit / SHARDS).max(2),
        }
    }

    fn shard(&self, key: &K) -> &Mutex<HashMap<K, (V, u64)>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn get(&self, key: &K) -> Option<V> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(key).lock();
        let (value, touched) = shard.get_mut(key)?;
        *touched = now;
        Some(value.clone())
    }

    fn set(&self, key: K, value: V) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(&key).lock();
        if shard.len() >= self.shard_limit && !shard.contains_key(&key) {
            // The half that was not used for longest.
            let mut ages: Vec<u64> = shard.values().map(|(_, touched)| *touched).collect();
            let middle = ages.len() / 2;
            let (_, median, _) = ages.select_nth_unstable(middle);
            let median = *median;
            shard.retain(|_, (_, touched)| *touched > median);
        }
        shard.insert(key, (value, now));
    }

    fn remove(&self, key: &K) {
        self.shard(key).lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gfid(n: u8) -> Gfid {
        Gfid([n; 16])
    }

    fn entry(parent: Gfid, name: &str) -> Entry {
        Entry { parent, name: Bytes::copy_from_slice(name.as_bytes()) }
    }

    #[test]
    fn paths_are_put_together_as_far_as_known() {
        let table = Table::new();
        table.learn_name(&entry(Gfid::ROOT, "a"), Hint { gfid: gfid(7), subvolume: None, seen: Duration::ZERO });
        table.learn_name(&entry(gfid(7), "b"), Hint { gfid: gfid(8), subvolume: None, seen: Duration::ZERO });
        assert_eq!(table.path(gfid(8), b"c"), "/a/b/c");
        assert_eq!(table.path(Gfid::ROOT, b"c"), "/c");
        assert_eq!(table.path(gfid(9), b"c"), format!("<gfid:{}>/c", gfid(9)));
        // A ring, as two renames seen in the wrong order leave it, ends.
        table.learn_name(&entry(gfid(8), "x"), Hint { gfid: gfid(7), subvolume: None, seen: Duration::ZERO });
        assert!(table.path(gfid(8), b"c").len() > 100);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let sharded: Sharded<u32, u32> = Sharded::new(64);
        for n in 0..10_000 {
            sharded.set(n, n);
            sharded.get(&0);
        }
        assert!(sharded.shards.iter().map(|shard| shard.lock().len()).sum::<usize>() <= 64);
        assert_eq!(sharded.get(&0), Some(0));
    }
}
