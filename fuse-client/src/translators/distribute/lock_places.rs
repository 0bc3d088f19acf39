//! Where locks on directories are that those above hold. They go where the directory's layout begins, so that all clients
//! agree; a layout that changes meanwhile must not send the unlock elsewhere. The place stays from the first lock to the
//! last unlock, or until the subvolume is gone, and its locks with it.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use ladrillo_translator::fop::{EntrylkCmd, File, Flock, LockCmd, LockType};
use ladrillo_translator::{FdId, Fop, Gfid, LockOwner};
use parking_lot::Mutex;

/// Directories whose place is kept, and locks that are told apart on each. Source: our bound, that of the bricks.
const MAX_ENTRIES: usize = 1 << 16;

/// One lock, or the byte-range locks of one owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Posix(LockOwner, Option<FdId>),
    Range(LockOwner, Bytes, u64, u64),
    Name(LockOwner, Bytes, Option<Bytes>),
}

/// What a fop does to the locks it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Take(Holder),
    Give(Holder),
    Nothing,
}

struct Pin {
    child: usize,
    holders: HashSet<Holder>,
}

/// The places.
#[derive(Default)]
pub(super) struct LockPlaces(Mutex<HashMap<Gfid, Pin>>);

impl Step {
    /// Of a fop of `owner`.
    pub fn of(owner: &LockOwner, fop: &Fop) -> Step {
        let range = |domain: &Bytes, cmd: LockCmd, flock: &Flock| {
            let holder = Holder::Range(owner.clone(), domain.clone(), flock.start, flock.len);
            match (cmd, flock.kind) {
                (LockCmd::Get, _) => Step::Nothing,
                (_, LockType::Unlock) => Step::Give(holder),
                _ => Step::Take(holder),
            }
        };
        let name = |domain: &Bytes, name: &Option<Bytes>, cmd: EntrylkCmd| {
            let holder = Holder::Name(owner.clone(), domain.clone(), name.clone());
            match cmd {
                EntrylkCmd::Unlock => Step::Give(holder),
                EntrylkCmd::Lock | EntrylkCmd::TryLock => Step::Take(holder),
            }
        };
        match fop {
            Fop::Lk { file: File { fd, .. }, cmd, flock, .. } => match (cmd, flock.kind) {
                (LockCmd::Get, _) => Step::Nothing,
                // The rest of what is unlocked in part is still held.
                (_, LockType::Unlock) if (flock.start, flock.len) != (0, 0) => Step::Nothing,
                (_, LockType::Unlock) => Step::Give(Holder::Posix(owner.clone(), *fd)),
                _ => Step::Take(Holder::Posix(owner.clone(), *fd)),
            },
            Fop::Inodelk { domain, cmd, flock, .. } | Fop::Finodelk { domain, cmd, flock, .. } => {
                range(domain, *cmd, flock)
            }
            Fop::Entrylk { domain, name: entry, cmd, .. } | Fop::Fentrylk { domain, name: entry, cmd, .. } => {
                name(domain, entry, *cmd)
            }
            _ => Step::Nothing,
        }
    }
}

impl LockPlaces {
    /// Where a fop goes: where locks are, else `otherwise`; and whether its lock is one that was not held before.
    pub fn enter(&self, gfid: Gfid, otherwise: usize, step: &Step) -> (usize, bool) {
        let mut pins = self.0.lock();
        let room = pins.len() < MAX_ENTRIES;
        match (pins.get_mut(&gfid), step) {
            (Some(pin), Step::Take(holder)) => {
                (pin.child, pin.holders.len() < MAX_ENTRIES && pin.holders.insert(holder.clone()))
            }
            (Some(pin), _) => (pin.child, false),
            (None, Step::Take(holder)) if room => {
                pins.insert(gfid, Pin { child: otherwise, holders: HashSet::from([holder.clone()]) });
                (otherwise, true)
            }
            (None, _) => (otherwise, false),
        }
    }

    /// A lock is not held any more.
    pub fn leave(&self, gfid: Gfid, holder: &Holder) {
        self.keep(gfid, |held| match (held, holder) {
            // Of a process all go, whatever descriptor they were taken by.
            (Holder::Posix(held, _), Holder::Posix(owner, _)) => held != owner,
            _ => held != holder,
        });
    }

    /// A directory was closed.
    pub fn close(&self, gfid: Gfid, fd: FdId) {
        self.keep(gfid, |held| !matches!(held, Holder::Posix(_, on) if *on == Some(fd)));
    }

    /// A subvolume is gone, and what was locked there.
    pub fn lose(&self, child: usize) {
        self.0.lock().retain(|_, pin| pin.child != child);
    }

    fn keep(&self, gfid: Gfid, keep: impl FnMut(&Holder) -> bool) {
        let mut pins = self.0.lock();
        let Some(pin) = pins.get_mut(&gfid) else { return };
        pin.holders.retain(keep);
        if pin.holders.is_empty() {
            pins.remove(&gfid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_stays_until_the_last_lock_is_gone() {
        let places = LockPlaces::default();
        let (gfid, owner) = (Gfid([1; 16]), LockOwner::from_u64(1));
        let posix = |fd| Holder::Posix(owner.clone(), Some(FdId(fd)));
        let range = Holder::Range(owner.clone(), Bytes::from_static(b"d"), 0, 0);
        assert_eq!(places.enter(gfid, 3, &Step::Nothing), (3, false));
        assert_eq!(places.enter(gfid, 2, &Step::Take(posix(1))), (2, true));
        assert_eq!(places.enter(gfid, 5, &Step::Take(posix(1))), (2, false));
        assert_eq!(places.enter(gfid, 5, &Step::Take(range.clone())), (2, true));
        places.leave(gfid, &posix(9));
        assert_eq!(places.enter(gfid, 5, &Step::Give(range.clone())), (2, false));
        places.leave(gfid, &range);
        assert_eq!(places.enter(gfid, 5, &Step::Take(posix(2))), (5, true));
        places.close(gfid, FdId(2));
        assert_eq!(places.enter(gfid, 6, &Step::Take(posix(2))), (6, true));
        places.lose(6);
        assert_eq!(places.enter(gfid, 7, &Step::Nothing), (7, false));
    }
}
