//! Who holds and who waits for translators' locks in one domain of one inode: the rules inodelk and entrylk share.
//!
//! Source of the rules: GlusterFS 10.3's features/locks. A lock conflicts with those of other owners only (an owner is
//! a client session and a lock owner); waiters are served in order; a lock that could be granted still waits behind a
//! conflicting waiter, so that nobody starves, unless its owner holds or awaits a lock of the domain already (a nested
//! lock must not wait for what waits for its owner).

use std::collections::VecDeque;
use std::time::Duration;

use futures::channel::oneshot;

use crate::{ClientId, FopResult, LockOwner};

/// Whose lock it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub client: ClientId,
    pub owner: LockOwner,
}

/// What is locked.
pub(super) trait Region: Clone {
    /// Whether two owners cannot have both.
    fn conflicts(&self, other: &Self) -> bool;
    /// Whether an unlock of `self` releases `held`.
    fn releases(&self, held: &Self) -> bool;
}

/// A granted lock, or one asked for.
#[derive(Clone, Debug)]
pub(super) struct Held<R> {
    pub id: u64,
    pub who: Who,
    pub pid: i32,
    pub region: R,
    /// When its holder was last told that others wait.
    pub told_at: Option<Duration>,
    /// Since when it is held.
    pub since: Duration,
}

pub(super) struct Waiting<R> {
    pub lock: Held<R>,
    pub wake: oneshot::Sender<FopResult<()>>,
}

pub(super) struct Queue<R> {
    pub granted: Vec<Held<R>>,
    pub waiting: VecDeque<Waiting<R>>,
}

/// Collects the holders to be told that others wait; at most one notice per lock and delay.
pub(super) struct Notices<R> {
    pub enabled: bool,
    pub now: Duration,
    pub delay: Duration,
    pub told: Vec<Held<R>>,
}

impl<R> Default for Queue<R> {
    fn default() -> Queue<R> {
        Queue { granted: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<R: Region> Notices<R> {
    fn tell(&mut self, holder: &mut Held<R>) {
        let due = holder.told_at.is_none_or(|at| self.now.saturating_sub(at) >= self.delay);
        if self.enabled && due {
            holder.told_at = Some(self.now);
            self.told.push(holder.clone());
        }
    }
}

impl<R: Region> Queue<R> {
    /// Grants `lock` if it may be granted now, else gives it back.
    pub fn try_grant(&mut self, lock: Held<R>, notices: &mut Notices<R>) -> Result<(), Held<R>> {
        let mut taken = false;
        for holder in &mut self.granted {
            if holder.who != lock.who && holder.region.conflicts(&lock.region) {
                taken = true;
                notices.tell(holder);
            }
        }
        let starves = |queue: &Queue<R>| queue.waiting.iter().any(|w| w.lock.region.conflicts(&lock.region));
        if taken || (starves(self) && !self.is_known(&lock.who)) {
            return Err(lock);
        }
        self.granted.push(Held { since: notices.now, ..lock });
        Ok(())
    }

    /// Releases the newest lock of `who` that an unlock of `region` names.
    pub fn unlock(&mut self, who: &Who, region: &R) -> Option<Held<R>> {
        let at = self.granted.iter().rposition(|held| held.who == *who && region.releases(&held.region))?;
        Some(self.granted.remove(at))
    }

    /// Grants whoever may go on, in order; the senders wake them.
    pub fn serve(&mut self, notices: &mut Notices<R>) -> Vec<oneshot::Sender<FopResult<()>>> {
        let mut woken = Vec::new();
        for Waiting { lock, wake } in std::mem::take(&mut self.waiting) {
            match self.try_grant(lock, notices) {
                Ok(()) => woken.push(wake),
                Err(lock) => self.waiting.push_back(Waiting { lock, wake }),
            }
        }
        woken
    }

    /// Takes out the locks, granted and awaited, that `gone` says; senders of waiters go back to the caller.
    pub fn remove(&mut self, gone: impl Fn(&Held<R>) -> bool) -> (usize, Vec<oneshot::Sender<FopResult<()>>>) {
        let before = self.granted.len();
        self.granted.retain(|held| !gone(held));
        let mut removed = before - self.granted.len();
        let mut senders = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            if gone(&waiting.lock) {
                removed += 1;
                senders.push(waiting.wake);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        (removed, senders)
    }

    /// Whether a lock in the way of `lock` is held for longer than `patience`.
    pub fn is_overdue(&self, lock: &Held<R>, now: Duration, patience: Duration) -> bool {
        self.granted.iter().any(|held| {
            held.who != lock.who && held.region.conflicts(&lock.region) && now.saturating_sub(held.since) > patience
        })
    }

    /// Granted and awaited locks.
    pub fn len(&self) -> usize {
        self.granted.len() + self.waiting.len()
    }

    fn is_known(&self, who: &Who) -> bool {
        self.granted.iter().any(|held| held.who == *who) || self.waiting.iter().any(|w| w.lock.who == *who)
    }
}
