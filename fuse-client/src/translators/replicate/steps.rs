//! Messages of several steps, and steps that wait for the next message to their child: unlocks that nobody waits for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::join_all;
use ladrillo_translator::error::errno::{EIO, ENOTCONN};
use ladrillo_translator::fop::{EntrylkCmd, LockCmd};
use ladrillo_translator::steps::MAX_STEPS;
use ladrillo_translator::{Fop, FopError, FopResult, Gfid, Step};
use parking_lot::Mutex;

use super::Replicate;
use super::mask::{MAX_CHILDREN, Mask};

/// How long a step waits for a message that it can ride in.
const LINGER: Duration = Duration::from_millis(1);
/// Steps that may wait for one child; one more sends them all.
const MAX_WAITING: usize = 24;

/// What waits, per child.
#[derive(Default)]
pub(super) struct Later {
    queues: [Mutex<Queue>; MAX_CHILDREN],
    timer: AtomicBool,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Step>,
    /// Inodes whose unlocks are on their way: a lock of the same owner must not overtake them.
    leaving: Vec<Gfid>,
    waiters: Vec<oneshot::Sender<()>>,
}

/// The inode whose bytes a step unlocks.
fn unlocked_inode(step: &Step) -> Option<Gfid> {
    match &step.fop {
        Fop::Inodelk { gfid, .. } => Some(*gfid),
        _ => None,
    }
}

impl Queue {
    fn take(&mut self) -> Vec<Step> {
        self.leaving.extend(self.waiting.iter().filter_map(unlocked_inode));
        std::mem::take(&mut self.waiting)
    }
}

/// Unlocks on their way, until dropped.
struct Leaving<'a> {
    queue: &'a Mutex<Queue>,
    gfids: Vec<Gfid>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.gfids.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        for gfid in &self.gfids {
            if let Some(place) = queue.leaving.iter().position(|leaving| leaving == gfid) {
                queue.leaving.swap_remove(place);
            }
        }
        for waiter in queue.waiters.drain(..) {
            // A waiter that is gone needs no waking.
            let _ = waiter.send(());
        }
    }
}

/// Whether it may take as long as somebody else holds a lock, or as a disk takes.
fn waits(step: &Step) -> bool {
    match &step.fop {
        Fop::Fsync { .. } => true,
        Fop::Inodelk { cmd, .. } => *cmd == LockCmd::SetWait,
        Fop::Entrylk { cmd, .. } => *cmd == EntrylkCmd::Lock,
        _ => false,
    }
}

impl Replicate {
    /// Whether all children are up and take several steps in a message.
    pub(super) fn all_take_steps(&self) -> bool {
        self.up() == self.everyone() && self.children.iter().all(|child| child.takes_steps())
    }

    /// Sends `steps` to `child`, behind what waits for it, in one message where it takes that; an answer for each.
    /// `locks`: the inode whose bytes they lock.
    pub(super) async fn steps(&self, child: usize, steps: Vec<Step>, locks: Option<Gfid>) -> Vec<FopResult> {
        let count = steps.len();
        let (Some(target), Some(queue)) = (self.children.get(child), self.later.queues.get(child)) else {
            return (0..count).map(|_| Err(self.no_quorum())).collect();
        };
        let mut all = loop {
            let turn = {
                let mut queue = queue.lock();
                if locks.is_some_and(|gfid| queue.leaving.contains(&gfid)) {
                    let (sender, turn) = oneshot::channel();
                    queue.waiters.push(sender);
                    turn
                } else {
                    break queue.take();
                }
            };
            // Cancelled: nothing is under way any more.
            let _ = turn.await;
        };
        let leaving = Leaving { queue, gfids: all.iter().filter_map(unlocked_inode).collect() };
        // Nobody is to wait for those unlocks as long as this waits, and a message holds so many.
        if !all.is_empty() && (steps.iter().any(waits) || all.len() + steps.len() > MAX_STEPS) {
            while !all.is_empty() {
                let rest = all.split_off(all.len().min(MAX_STEPS));
                let sent = std::mem::replace(&mut all, rest);
                self.hear_unlocks(child, &target.submit_steps(sent).await);
            }
            drop(leaving);
        }
        let before = all.len();
        all.extend(steps);
        let mut results = match (all.len(), all.pop()) {
            (_, None) => return Vec::new(),
            (1, Some(only)) => vec![target.submit(&only.context, only.fop).await],
            (_, Some(last)) => {
                all.push(last);
                target.submit_steps(all).await
            }
        };
        let mut own = results.split_off(before.min(results.len()));
        self.hear_unlocks(child, &results);
        own.resize_with(count, || Err(FopError::new(EIO, "a step was not answered")));
        own
    }

    fn hear_unlocks(&self, child: usize, results: &[FopResult]) {
        for error in results.iter().filter_map(|result| result.as_ref().err()).filter(|error| error.errno != ENOTCONN) {
            tracing::debug!(subvolume = %self.name, child, %error, "unlock failed");
        }
    }

    /// [`Replicate::steps`] to each of `to`, all at once.
    pub(super) async fn steps_to_all(
        &self,
        to: Mask,
        locks: Option<Gfid>,
        make: impl Fn(usize) -> Vec<Step>,
    ) -> Vec<(usize, Vec<FopResult>)> {
        join_all(to.iter().map(|child| {
            let steps = make(child);
            async move { (child, self.steps(child, steps, locks).await) }
        }))
        .await
    }

    /// Sends `step` with the next message to `child`, a millisecond from now at the latest. Nobody hears of its answer.
    pub(super) fn send_later(&self, child: usize, step: Step) {
        let (Some(target), Some(queue)) = (self.children.get(child), self.later.queues.get(child)) else { return };
        let is_full = {
            let mut queue = queue.lock();
            queue.waiting.push(step);
            queue.waiting.len() >= MAX_WAITING
        };
        if is_full || !target.takes_steps() {
            self.send_waiting(Mask::only(child));
        } else if !self.later.timer.swap(true, Ordering::AcqRel) {
            let Some(this) = self.this.upgrade() else { return };
            let guard = self.work.begin();
            self.runtime.spawn(Box::pin(async move {
                this.runtime.sleep(LINGER).await;
                this.later.timer.store(false, Ordering::Release);
                this.send_waiting(this.everyone());
                drop(guard);
            }));
        }
    }

    /// Sends at once what waits for `children`.
    pub(super) fn send_waiting(&self, children: Mask) {
        for child in children.iter() {
            let is_empty = self.later.queues.get(child).is_none_or(|queue| queue.lock().waiting.is_empty());
            let Some(this) = self.this.upgrade().filter(|_| !is_empty) else { continue };
            let guard = self.work.begin();
            self.runtime.spawn(Box::pin(async move {
                this.steps(child, Vec::new(), None).await;
                drop(guard);
            }));
        }
    }

    /// Sends at once what waits to be unlocked of `gfid`: somebody wants it.
    pub(super) fn send_waiting_of(&self, gfid: Gfid) {
        let concerns = |step: &Step| match &step.fop {
            Fop::Inodelk { gfid: locked, .. } | Fop::Entrylk { gfid: locked, .. } => *locked == gfid,
            _ => false,
        };
        let wanted = |child: &usize| self.later.queues[*child].lock().waiting.iter().any(concerns);
        self.send_waiting(self.everyone().iter().filter(wanted).collect());
    }
}
