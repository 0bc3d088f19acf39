//! Locks that applications hold (fcntl, flock): remembered, to be taken again where a brick has forgotten them.
//!
//! Whoever asks the bricks for a lock or gives one up does so under an [`Asking`], whoever takes remembered ones again
//! under a [`Restoring`]: the two exclude each other per owner of locks on an inode, so that what was remembered a
//! moment ago never overtakes what the application wants now.

use std::collections::HashMap;

use futures::lock::{Mutex as TurnMutex, MutexGuard as TurnGuard};
use ladrillo_translator::fop::{File, Flock, LockCmd, LockType};
use ladrillo_translator::{Context, Dict, FdId, Fop, Gfid, LockOwner};
use parking_lot::Mutex;

/// Locks remembered, as many as a brick lets one client have. Those beyond are held and not taken again.
const MAX_LOCKS: usize = 1 << 16;

/// xdata of LK between replicate and protocol/client: this lock is remembered above, and not below as well. It never
/// goes on the wire.
pub(crate) const KEPT_ABOVE: &str = "ladrillo.lock-kept-above";

/// xdata of an LK that unlocks, from the switch between graphs: the lock is another graph's from now on. Who remembers it
/// forgets it, and bricks, for which both graphs are one client, are told nothing. It never goes on the wire.
pub(crate) const HANDED_OVER: &str = "ladrillo.lock-handed-over";

/// xdata of LK that asks for a mandatory lock (GF_LOCK_MODE); [`MANDATORY`] is its value.
const LOCK_MODE: &str = "glusterfs.lk.lkmode";
const MANDATORY: i64 = 1;

/// A lock, and what its keeper says of it.
#[derive(Clone, Debug)]
pub(crate) struct HeldLock<T> {
    /// Who holds it, and asked for it.
    pub context: Context,
    /// Through which open file.
    pub fd: Option<FdId>,
    pub exclusive: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; `u64::MAX`: to the end.
    pub end: u64,
    /// Process, for F_GETLK.
    pub pid: u32,
    pub xdata: Dict,
    pub tag: T,
}

impl<T> HeldLock<T> {
    /// What is remembered of a lock once it is granted; `None` for what is none, or not given from the file's beginning.
    pub fn of(context: &Context, fop: &Fop, tag: T) -> Option<(Gfid, HeldLock<T>)> {
        let Fop::Lk { file, cmd: LockCmd::Set | LockCmd::SetWait, flock, xdata } = fop else { return None };
        let (start, end) = bytes_of(flock)?;
        let exclusive = match flock.kind {
            LockType::Read => false,
            LockType::Write => true,
            LockType::Unlock => return None,
        };
        let mut xdata = xdata.clone();
        xdata.remove(KEPT_ABOVE);
        let context = context.clone();
        Some((file.gfid, HeldLock { context, fd: file.fd, exclusive, start, end, pid: flock.pid, xdata, tag }))
    }

    /// The request that takes it again, without waiting.
    pub fn request(&self, gfid: Gfid) -> Fop {
        let kind = if self.exclusive { LockType::Write } else { LockType::Read };
        let len = if self.end == u64::MAX { 0 } else { self.end - self.start + 1 };
        let owner = self.owner().clone();
        let flock = Flock { kind, whence: 0, start: self.start, len, pid: self.pid, owner };
        Fop::Lk { file: File { gfid, fd: self.fd }, cmd: LockCmd::Set, flock, xdata: self.xdata.clone() }
    }

    pub fn owner(&self) -> &LockOwner {
        &self.context.lock_owner
    }

    /// Whether bricks enforce it.
    pub fn is_mandatory(&self) -> bool {
        self.xdata.int(LOCK_MODE) == Some(MANDATORY)
    }
}

/// First and last byte of a lock; `None` where it is not counted from the file's beginning, or impossible.
pub(crate) fn bytes_of(flock: &Flock) -> Option<(u64, u64)> {
    let end = match flock.len {
        0 => u64::MAX,
        len => flock.start.checked_add(len - 1)?,
    };
    (flock.whence == 0).then_some((flock.start, end))
}

/// The locks, by inode.
pub(crate) struct HeldLocks<T> {
    state: Mutex<State<T>>,
    turn: TurnMutex<()>,
}

struct State<T> {
    inodes: HashMap<Gfid, Inode<T>>,
    count: usize,
}

struct Inode<T> {
    locks: Vec<HeldLock<T>>,
    /// Owners with requests under way, and how many.
    asking: Vec<(LockOwner, usize)>,
}

impl<T> Default for HeldLocks<T> {
    fn default() -> HeldLocks<T> {
        HeldLocks { state: Mutex::new(State { inodes: HashMap::new(), count: 0 }), turn: TurnMutex::new(()) }
    }
}

/// An owner asks for a lock on an inode, or gives one up, until this is dropped.
pub(crate) struct Asking<'a, T> {
    all: &'a HeldLocks<T>,
    gfid: Gfid,
    owner: LockOwner,
}

/// Locks may be taken again, those excepted whose owner asks for something.
pub(crate) struct Restoring<'a, T> {
    all: &'a HeldLocks<T>,
    _turn: TurnGuard<'a, ()>,
}

impl<T: Clone> HeldLocks<T> {
    /// Begins a request of `owner`; waits while locks are being taken again.
    pub async fn ask(&self, gfid: Gfid, owner: &LockOwner) -> Asking<'_, T> {
        let asking = self.begin_asking(gfid, owner);
        drop(self.turn.lock().await);
        asking
    }

    fn begin_asking(&self, gfid: Gfid, owner: &LockOwner) -> Asking<'_, T> {
        let mut state = self.state.lock();
        let inode = state.inodes.entry(gfid).or_insert_with(|| Inode { locks: Vec::new(), asking: Vec::new() });
        match inode.asking.iter_mut().find(|(asking, _)| asking == owner) {
            Some((_, count)) => *count += 1,
            None => inode.asking.push((owner.clone(), 1)),
        }
        Asking { all: self, gfid, owner: owner.clone() }
    }

    /// The right to take locks again.
    pub async fn restore(&self) -> Restoring<'_, T> {
        Restoring { all: self, _turn: self.turn.lock().await }
    }

    /// Remembers a lock: it replaces what its owner held there.
    pub fn insert(&self, gfid: Gfid, lock: HeldLock<T>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let inode = state.inodes.entry(gfid).or_insert_with(|| Inode { locks: Vec::new(), asking: Vec::new() });
        let before = inode.locks.len();
        carve(&mut inode.locks, lock.owner(), lock.start, lock.end);
        if state.count - before + inode.locks.len() < MAX_LOCKS {
            inode.locks.push(lock);
        } else {
            tracing::warn!(%gfid, "more than {MAX_LOCKS} locks: this one will not be taken again should its brick go away");
        }
        state.count = state.count - before + inode.locks.len();
        state.tidy(gfid);
    }

    /// Forgets what `owner` holds of some bytes.
    pub fn carve(&self, gfid: Gfid, owner: &LockOwner, start: u64, end: u64) {
        self.change(gfid, |locks| carve(locks, owner, start, end));
    }

    /// Forgets what `owner` holds on an inode, as closing a file does.
    pub fn forget_owner(&self, gfid: Gfid, owner: &LockOwner) {
        self.change(gfid, |locks| locks.retain(|lock| lock.owner() != owner));
    }

    /// Forgets what is held through an open file.
    pub fn forget_fd(&self, gfid: Gfid, fd: FdId) {
        self.change(gfid, |locks| locks.retain(|lock| lock.fd != Some(fd)));
    }

    fn change(&self, gfid: Gfid, change: impl FnOnce(&mut Vec<HeldLock<T>>)) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(inode) = state.inodes.get_mut(&gfid) else { return };
        let before = inode.locks.len();
        change(&mut inode.locks);
        state.count = state.count - before + inode.locks.len();
        state.tidy(gfid);
    }

    /// Looks at all locks; those for which `keep` says no are forgotten.
    pub fn retain(&self, mut keep: impl FnMut(Gfid, &mut HeldLock<T>) -> bool) {
        let mut state = self.state.lock();
        let mut count = 0;
        for (gfid, inode) in &mut state.inodes {
            inode.locks.retain_mut(|lock| keep(*gfid, lock));
            count += inode.locks.len();
        }
        state.inodes.retain(|_, inode| !inode.locks.is_empty() || !inode.asking.is_empty());
        state.count = count;
    }

    /// Locks for which `wanted` says yes.
    pub fn find(&self, wanted: impl Fn(&HeldLock<T>) -> bool) -> Vec<(Gfid, HeldLock<T>)> {
        let state = self.state.lock();
        if state.count == 0 {
            return Vec::new();
        }
        let of_inode = |(gfid, inode): (&Gfid, &Inode<T>)| {
            let (gfid, wanted) = (*gfid, &wanted);
            inode
                .locks
                .iter()
                .filter(move |lock| wanted(lock))
                .map(move |lock| (gfid, lock.clone()))
                .collect::<Vec<_>>()
        };
        state.inodes.iter().flat_map(of_inode).collect()
    }

    /// Whether an inode has locks for which `wanted` says yes.
    pub fn any(&self, gfid: Gfid, wanted: impl Fn(&HeldLock<T>) -> bool) -> bool {
        let state = self.state.lock();
        state.count > 0 && state.inodes.get(&gfid).is_some_and(|inode| inode.locks.iter().any(wanted))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state.lock().count
    }
}

impl<T: Clone> Restoring<'_, T> {
    /// The lock as it is now, if it still is, and its owner asks for nothing.
    pub fn current(&self, gfid: Gfid, lock: &HeldLock<T>) -> Option<HeldLock<T>> {
        let state = self.all.state.lock();
        let inode = state.inodes.get(&gfid)?;
        if inode.asking.iter().any(|(owner, _)| owner == lock.owner()) {
            return None;
        }
        inode.locks.iter().find(|now| same(now, lock)).cloned()
    }

    /// Changes what is said of the lock, if it still is; `change` answers whether it is to be remembered any longer.
    pub fn update(&self, gfid: Gfid, lock: &HeldLock<T>, change: impl FnOnce(&mut HeldLock<T>) -> bool) {
        let mut change = Some(change);
        self.all.change(gfid, |locks| {
            locks.retain_mut(|now| match same(now, lock) {
                true => change.take().is_none_or(|change| change(now)),
                false => true,
            });
        });
    }
}

impl<T> Drop for Asking<'_, T> {
    fn drop(&mut self) {
        let mut state = self.all.state.lock();
        if let Some(inode) = state.inodes.get_mut(&self.gfid)
            && let Some(at) = inode.asking.iter().position(|(owner, _)| *owner == self.owner)
        {
            match inode.asking.get_mut(at) {
                Some((_, count)) if *count > 1 => *count -= 1,
                _ => drop(inode.asking.swap_remove(at)),
            }
        }
        state.tidy(self.gfid);
    }
}

impl<T> State<T> {
    fn tidy(&mut self, gfid: Gfid) {
        if self.inodes.get(&gfid).is_some_and(|inode| inode.locks.is_empty() && inode.asking.is_empty()) {
            self.inodes.remove(&gfid);
        }
    }
}

fn same<T>(one: &HeldLock<T>, other: &HeldLock<T>) -> bool {
    one.owner() == other.owner()
        && (one.start, one.end, one.exclusive, one.fd) == (other.start, other.end, other.exclusive, other.fd)
}

/// Takes bytes from what `owner` holds, leaving what is left and right of them.
fn carve<T: Clone>(locks: &mut Vec<HeldLock<T>>, owner: &LockOwner, start: u64, end: u64) {
    let mut rest = Vec::new();
    locks.retain(|held| {
        if held.owner() != owner || held.end < start || end < held.start {
            return true;
        }
        if held.start < start {
            rest.push(HeldLock { end: start - 1, ..held.clone() });
        }
        if held.end > end {
            rest.push(HeldLock { start: end + 1, ..held.clone() });
        }
        false
    });
    locks.append(&mut rest);
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const GFID: Gfid = Gfid([3; 16]);

    fn lock(owner: u64, start: u64, len: u64, kind: LockType) -> (Gfid, HeldLock<u8>) {
        let context = Context::root().with_lock_owner(LockOwner::from_u64(owner));
        let flock = Flock { kind, whence: 0, start, len, pid: 1, owner: context.lock_owner.clone() };
        let file = File { gfid: GFID, fd: Some(FdId(owner)) };
        HeldLock::of(&context, &Fop::Lk { file, cmd: LockCmd::Set, flock, xdata: Dict::new() }, 0).unwrap()
    }

    fn ranges(all: &HeldLocks<u8>) -> Vec<(u64, u64, bool)> {
        let mut found: Vec<_> = all.find(|_| true).into_iter().map(|(_, l)| (l.start, l.end, l.exclusive)).collect();
        found.sort();
        found
    }

    #[test]
    fn locks_replace_split_and_go() {
        let all = HeldLocks::default();
        let add = |(gfid, lock)| all.insert(gfid, lock);
        add(lock(1, 0, 0, LockType::Read));
        add(lock(1, 10, 10, LockType::Write));
        add(lock(2, 0, 5, LockType::Read));
        assert_eq!(ranges(&all), [(0, 4, false), (0, 9, false), (10, 19, true), (20, u64::MAX, false)]);
        all.carve(GFID, &LockOwner::from_u64(1), 15, u64::MAX);
        assert_eq!(ranges(&all), [(0, 4, false), (0, 9, false), (10, 14, true)]);
        all.forget_fd(GFID, FdId(2));
        assert_eq!(all.len(), 2);
        all.forget_owner(GFID, &LockOwner::from_u64(1));
        assert_eq!(all.len(), 0);
        assert!(all.state.lock().inodes.is_empty());
    }

    #[test]
    fn what_an_owner_asks_for_and_what_is_restored_exclude_each_other() {
        let all = HeldLocks::default();
        let (gfid, held) = lock(1, 0, 0, LockType::Write);
        all.insert(gfid, held.clone());
        let asking = all.ask(GFID, held.owner()).now_or_never().unwrap();
        let restoring = all.restore().now_or_never().unwrap();
        assert!(restoring.current(GFID, &held).is_none(), "its owner asks for something");
        drop(asking);
        assert!(restoring.current(GFID, &held).is_some());
        assert!(all.ask(GFID, held.owner()).now_or_never().is_none(), "locks are being taken again");
        drop(restoring);
        assert!(all.ask(GFID, held.owner()).now_or_never().is_some());
    }
}
