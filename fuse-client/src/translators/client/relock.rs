//! Locks of applications across sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::future::select;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{LockCmd, LockType};
use ladrillo_translator::{Context, Fop, FopResult, Gfid, Reply};

use super::session::Session;
use super::{Inner, REOPEN_CONCURRENCY};
use crate::translators::held::{HANDED_OVER, HeldLock, KEPT_ABOVE, Restoring, bytes_of};

/// Pauses between attempts to take a lock again that somebody else has: from, to, doubling. The first may well be our own
/// last session, which the brick has not given up yet.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

impl Inner {
    /// LK: what is granted is remembered, unless somebody above does.
    pub(super) async fn lk(self: Arc<Self>, context: &Context, mut fop: Fop) -> FopResult {
        let kept_above = fop.xdata_mut().is_some_and(|xdata| xdata.remove(KEPT_ABOVE).is_some());
        let Fop::Lk { file, cmd, flock, .. } = &fop else { return self.forward(context, fop).await };
        if fop.xdata().is_some_and(|xdata| xdata.contains(HANDED_OVER)) {
            if let Some((start, end)) = bytes_of(flock) {
                let _asking = self.locks.ask(file.gfid, &context.lock_owner).await;
                self.locks.carve(file.gfid, &context.lock_owner, start, end);
            }
            return Ok(Reply::Lk { flock: flock.clone(), xdata: Default::default() });
        }
        if kept_above || *cmd == LockCmd::Get {
            return self.forward(context, fop).await;
        }
        let gfid = file.gfid;
        let _asking = self.locks.ask(gfid, &context.lock_owner).await;
        // Without a session, too: what was given up is not to be taken again by the next one.
        if let (LockType::Unlock, Some((start, end))) = (flock.kind, bytes_of(flock)) {
            self.locks.carve(gfid, &context.lock_owner, start, end);
        }
        let session = self.session()?;
        let held = HeldLock::of(context, &fop, session.epoch);
        let reply = self.clone().forward(context, fop).await?;
        if let Some((gfid, lock)) = held {
            self.locks.insert(gfid, lock);
            let now = self.session.read().clone();
            if let Some(now) = now.filter(|now| now.epoch != session.epoch) {
                self.relock_later(now);
            }
        }
        Ok(reply)
    }

    /// FLUSH: closing any descriptor of a file gives up the process's locks on it.
    pub(super) async fn flush(self: Arc<Self>, context: &Context, fop: Fop) -> FopResult {
        let owner = &context.lock_owner;
        if let Some(file) = fop.files()[0].filter(|_| !owner.0.is_empty())
            && self.locks.any(file.gfid, |lock| lock.owner() == owner)
        {
            let _asking = self.locks.ask(file.gfid, owner).await;
            self.locks.forget_owner(file.gfid, owner);
            return self.clone().forward(context, fop).await;
        }
        self.forward(context, fop).await
    }

    /// Takes locks of earlier sessions again; tells how many are still to be.
    pub(super) async fn relock(&self, session: &Session) -> usize {
        let due = self.locks.find(|lock| lock.tag != session.epoch);
        if due.is_empty() {
            return 0;
        }
        let restoring = self.locks.restore().await;
        let one = |(gfid, lock): (Gfid, HeldLock<u64>)| self.relock_one(session, &restoring, gfid, lock);
        let attempts = futures::stream::iter(due).map(one).buffer_unordered(REOPEN_CONCURRENCY);
        let left = attempts.filter(|done| std::future::ready(!done)).count().await;
        tracing::info!(client = %self.name, left, "locks of applications taken again");
        left
    }

    /// Whether nothing is left to be done for this lock.
    async fn relock_one(
        &self,
        session: &Session,
        restoring: &Restoring<'_, u64>,
        gfid: Gfid,
        lock: HeldLock<u64>,
    ) -> bool {
        if restoring.current(gfid, &lock).is_none() {
            return false;
        }
        let mut fop = lock.request(gfid);
        if let (Fop::Lk { file, .. }, Some(fd)) = (&mut fop, lock.fd) {
            // A file that could not be opened when the session began may be by now: nobody else need use it.
            if let Some(open) = self.fds.due(fd, session.epoch, self.runtime.now()) {
                self.reopen(session, open).await;
            }
            let Some(number) = self.fds.number(fd, session.epoch) else { return false };
            file.fd = Some(number);
        }
        match self.call(session, &lock.context, &fop).await {
            Ok(_) => {
                restoring.update(gfid, &lock, |lock| {
                    lock.tag = session.epoch;
                    true
                });
                true
            }
            Err(error) if matches!(error.errno, errno::EAGAIN | errno::ENOTCONN | errno::ETIMEDOUT) => {
                tracing::debug!(client = %self.name, %gfid, %error, "lock not taken again yet");
                false
            }
            Err(error) => {
                tracing::warn!(client = %self.name, %gfid, %error, "a lock of an application is lost");
                restoring.update(gfid, &lock, |_| false);
                true
            }
        }
    }

    /// Tries again for as long as the session lasts.
    pub(super) fn relock_later(self: &Arc<Self>, session: Arc<Session>) {
        if self.relocking.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(client = %self.name, "somebody else has locks that applications here held: waiting for them");
        let inner = self.clone();
        self.runtime.spawn(Box::pin(async move {
            let mut pause = FIRST_PAUSE;
            while !session.is_closed() && !inner.stopping.is_raised() {
                select(inner.runtime.sleep(pause), std::pin::pin!(inner.stopping.wait())).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                if session.is_closed() || inner.relock(&session).await == 0 {
                    break;
                }
            }
            inner.relocking.store(false, Ordering::Release);
            // A lock that came with the session before is still to be taken.
            let now = inner.session.read().clone();
            if let Some(now) = now
                && !inner.locks.find(|lock| lock.tag != now.epoch).is_empty()
            {
                inner.relock_later(now);
            }
        }));
    }

    /// `strict-locks`: files whose locks ended with an earlier session are of no use any more.
    pub(super) fn lose_locks(&self, epoch: u64) {
        self.locks.retain(|gfid, lock| {
            if lock.tag == epoch {
                return true;
            }
            if let Some(fd) = lock.fd {
                tracing::warn!(client = %self.name, %gfid, "its locks were lost with the brick: the open file is bad (strict-locks)");
                self.fds.spoil(fd);
            }
            false
        });
    }
}
