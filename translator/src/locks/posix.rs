//! Applications' byte-range locks (fcntl, flock) on one inode.
//!
//! An owner's locks never conflict with each other: a new one replaces what it covers (split), and joins its neighbours
//! of the same kind (merge). A waiting request first gives up what its owner holds in the range, as GlusterFS does, so
//! that two owners who both upgrade a shared lock do not wait for each other for ever.

use std::collections::VecDeque;

use futures::channel::oneshot;

use super::queue::Who;
use super::region::Range;
use crate::fop::{Flock, LockType};
use crate::{ClientId, FdId, FopResult};

#[derive(Clone, Debug)]
pub(super) struct PosixLock {
    pub who: Who,
    pub fd: Option<FdId>,
    /// The holder's process as F_GETLK reports it.
    pub pid: u32,
    /// The process whose request it was, by which an interrupt finds it.
    pub caller: i32,
    /// Others' reads and writes must respect it, too.
    pub mandatory: bool,
    pub range: Range,
}

pub(super) struct PosixWaiting {
    pub id: u64,
    pub lock: PosixLock,
    pub wake: oneshot::Sender<FopResult<()>>,
}

#[derive(Default)]
pub(super) struct PosixLocks {
    pub granted: Vec<PosixLock>,
    pub waiting: VecDeque<PosixWaiting>,
    /// Reads and writes that look again when a lock goes (mandatory locking).
    pub io: Vec<(ClientId, oneshot::Sender<FopResult<()>>)>,
}

impl PosixLocks {
    /// A lock of another owner that `lock` has to wait for.
    pub fn conflict(&self, lock: &PosixLock) -> Option<&PosixLock> {
        self.granted.iter().find(|held| {
            held.who != lock.who && held.range.overlaps(&lock.range) && (held.range.exclusive || lock.range.exclusive)
        })
    }

    /// Takes `range` from `who`, leaving what is left and right of it.
    pub fn carve(&mut self, who: &Who, range: &Range) {
        let mut rest = Vec::new();
        self.granted.retain(|held| {
            if held.who != *who || !held.range.overlaps(range) {
                return true;
            }
            if held.range.start < range.start {
                rest.push(PosixLock { range: Range { end: range.start - 1, ..held.range.clone() }, ..held.clone() });
            }
            if held.range.end > range.end {
                rest.push(PosixLock { range: Range { start: range.end + 1, ..held.range.clone() }, ..held.clone() });
            }
            false
        });
        self.granted.append(&mut rest);
    }

    /// Sets `lock`, which conflicts with nobody.
    pub fn set(&mut self, mut lock: PosixLock) {
        self.carve(&lock.who, &lock.range);
        self.granted.retain(|held| {
            let joins = held.who == lock.who
                && held.fd == lock.fd
                && held.mandatory == lock.mandatory
                && held.range.exclusive == lock.range.exclusive
                && held.range.start <= lock.range.end.saturating_add(1)
                && lock.range.start <= held.range.end.saturating_add(1);
            if joins {
                lock.range.start = lock.range.start.min(held.range.start);
                lock.range.end = lock.range.end.max(held.range.end);
            }
            !joins
        });
        self.granted.push(lock);
    }

    /// Grants whoever may go on, in order; I/O that waits looks for itself.
    pub fn serve(&mut self) -> Vec<oneshot::Sender<FopResult<()>>> {
        let mut woken: Vec<_> = std::mem::take(&mut self.io).into_iter().map(|(_, wake)| wake).collect();
        for waiting in std::mem::take(&mut self.waiting) {
            if self.conflict(&waiting.lock).is_none() {
                self.set(waiting.lock);
                woken.push(waiting.wake);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        woken
    }

    /// Takes out granted locks that `gone` says.
    pub fn remove_granted(&mut self, mut gone: impl FnMut(&PosixLock) -> bool) {
        self.granted.retain(|held| !gone(held));
    }

    /// Takes out waiters that `gone` says.
    pub fn remove_waiting(&mut self, gone: impl Fn(&PosixWaiting) -> bool) -> Vec<oneshot::Sender<FopResult<()>>> {
        let mut senders = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            match gone(&waiting) {
                true => senders.push(waiting.wake),
                false => self.waiting.push_back(waiting),
            }
        }
        senders
    }

    /// Takes out the reads and writes of `client` that wait.
    pub fn remove_io(&mut self, client: ClientId) -> Vec<oneshot::Sender<FopResult<()>>> {
        self.io.extract_if(.., |(whose, _)| *whose == client).map(|(_, wake)| wake).collect()
    }

    pub fn len(&self) -> usize {
        self.granted.len() + self.waiting.len()
    }

    /// How many of them, held and awaited, are `client`'s.
    pub fn len_of(&self, client: ClientId) -> usize {
        self.granted.iter().filter(|held| held.who.client == client).count()
            + self.waiting.iter().filter(|waiting| waiting.lock.who.client == client).count()
    }
}

impl PosixLock {
    /// As F_GETLK reports it.
    pub fn flock(&self) -> Flock {
        Flock {
            kind: if self.range.exclusive { LockType::Write } else { LockType::Read },
            whence: 0,
            start: self.range.start,
            len: self.range.wire_len(),
            pid: self.pid,
            owner: self.who.owner.clone(),
        }
    }
}
