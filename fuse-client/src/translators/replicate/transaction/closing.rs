//! The end of sessions: many that end at about the same time share their messages, one to each brick to make durable what
//! was written, one to clear the marks and unlock.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ladrillo_translator::error::errno::EIO;
use ladrillo_translator::fop::File;
use ladrillo_translator::{Context, FopError, Step};
use parking_lot::Mutex;

use super::postop::{PostOp, Target};
use super::session::{Phase, sync_fop, whole_file};
use crate::translators::replicate::children::View;
use crate::translators::replicate::inode::Inode;
use crate::translators::replicate::{ChildReply, Mask, Replicate, Segment};

/// Sessions that end together: each takes two steps of a message, which others share.
const BATCH: usize = 16;
/// How long a session waits for others to end with.
const GATHER: Duration = Duration::from_millis(200);
/// Sessions that may wait or be under way; who closes one more file waits for its end. Source: our bound.
const MAX_UNENDED: usize = 512;

/// Sessions that are to end, in the background.
#[derive(Default)]
pub(in crate::translators::replicate) struct Closing(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Vec<Arc<Inode>>,
    has_timer: bool,
    under_way: usize,
}

/// A session that is ending.
struct Ending {
    inode: Arc<Inode>,
    context: Context,
    file: Option<File>,
    on: Mask,
    began: View,
    good: Mask,
    torn: bool,
    wrote: bool,
    accused: Mask,
    /// Of `on`, those that have all of it.
    live: Mask,
    /// Of them, those that have not made it durable.
    unstable: Mask,
}

impl Replicate {
    /// Has the session of `inode` ended soon, in the background. `false`: too many are ending; it is as it was.
    pub(in crate::translators::replicate) fn end_soon(self: &Arc<Self>, inode: &Arc<Inode>) -> bool {
        let mut queue = self.closing.0.lock();
        {
            let mut session = inode.session.lock();
            if session.is_idle() || session.is_queued {
                return true;
            }
            if queue.waiting.len() + queue.under_way >= MAX_UNENDED {
                return false;
            }
            session.is_queued = true;
        }
        queue.waiting.push(inode.clone());
        if queue.waiting.len() >= BATCH {
            let batch = std::mem::take(&mut queue.waiting);
            queue.under_way += batch.len();
            drop(queue);
            self.end_batch(batch);
        } else if !queue.has_timer {
            queue.has_timer = true;
            drop(queue);
            let (this, guard) = (self.clone(), self.work.begin());
            self.runtime.spawn(Box::pin(async move {
                this.runtime.sleep(GATHER.min(this.settings().post_op_delay)).await;
                let batch = {
                    let mut queue = this.closing.0.lock();
                    queue.has_timer = false;
                    let batch = std::mem::take(&mut queue.waiting);
                    queue.under_way += batch.len();
                    batch
                };
                this.end_batch(batch);
                drop(guard);
            }));
        }
        true
    }

    fn end_batch(self: &Arc<Self>, batch: Vec<Arc<Inode>>) {
        let (this, guard) = (self.clone(), self.work.begin());
        self.runtime.spawn(Box::pin(async move {
            let is_due = |inode: &&Arc<Inode>| {
                let mut session = inode.session.lock();
                session.is_queued = false;
                let is_due = session.phase == Phase::Held && session.active.is_empty();
                if is_due {
                    session.phase = Phase::Closing;
                } else if session.phase == Phase::Held {
                    // The last write under way ends it.
                    session.ending = true;
                }
                is_due
            };
            let due: Vec<Arc<Inode>> = batch.iter().filter(is_due).cloned().collect();
            this.close_sessions(&due).await;
            this.closing.0.lock().under_way -= batch.len();
            drop(guard);
        }));
    }

    /// Completes when the session of `inode` has ended, which it is to do soon.
    pub(in crate::translators::replicate) async fn ended_soon(self: &Arc<Self>, inode: &Arc<Inode>) {
        let number = inode.session.lock().number;
        if !self.end_soon(inode) {
            return self.end_session(inode).await;
        }
        loop {
            let turn = {
                let mut session = inode.session.lock();
                if session.phase == Phase::Idle || session.phase == Phase::Opening || session.number != number {
                    return;
                }
                session.wait()
            };
            // Cancelled: nobody is left to wake us.
            if turn.await.is_err() {
                return;
            }
        }
    }

    /// Makes writes durable, clears the dirty marks, unlocks. Called in phase Closing; leaves Idle.
    pub(super) async fn close_session(&self, inode: &Arc<Inode>) {
        self.close_sessions(std::slice::from_ref(inode)).await;
    }

    async fn close_sessions(&self, inodes: &[Arc<Inode>]) {
        let mut endings: Vec<Ending> = inodes.iter().map(|inode| self.begin_ending(inode)).collect();
        self.sync_all(&mut endings).await;
        let view = self.view();
        for ending in &mut endings {
            // Lost since: its lock, and perhaps what it had not made durable, is gone.
            ending.live = view.kept_since(&ending.began, ending.live);
        }
        let (plain, others): (Vec<Ending>, Vec<Ending>) = endings.into_iter().partition(|ending| self.is_plain(ending));
        let bad = join_all(others.iter().map(|ending| self.end_with_losses(ending)));
        futures::join!(self.end_plain(&plain), bad);
    }

    fn begin_ending(&self, inode: &Arc<Inode>) -> Ending {
        let session = inode.session.lock();
        let on = session.on;
        let live = self.view().kept_since(&session.began, on - session.failed);
        let syncs = self.settings().ensure_durability && session.wrote;
        let is_unstable = |child: &usize| syncs && session.durable[*child] < session.writes;
        Ending {
            inode: inode.clone(),
            context: self.root_context(inode.lock_owner),
            file: session.fd.map(|fd| File { gfid: inode.gfid, fd: Some(fd) }),
            on,
            began: session.began,
            good: session.good,
            torn: session.torn,
            wrote: session.wrote,
            accused: session.accused,
            live,
            unstable: live.iter().filter(is_unstable).collect(),
        }
    }

    /// fdatasync of each where it is needed. Nothing is cleared before all bricks have answered.
    async fn sync_all(&self, endings: &mut [Ending]) {
        let asked = endings.iter().fold(Mask::NONE, |all, ending| all | ending.unstable);
        if asked.is_empty() {
            return;
        }
        let steps = |child: usize| {
            let of_child = endings.iter().filter(move |ending| ending.unstable.has(child));
            let fops = of_child.map(|ending| (ending, sync_fop(&ending.inode, ending.file)));
            fops.filter_map(|(ending, fop)| Some(Step::new(&ending.context, self.for_child(&fop, child).ok()?)))
                .collect()
        };
        let answers = self.steps_to_all(asked, None, steps).await;
        let mut replies: Vec<Vec<ChildReply>> = endings.iter().map(|_| Vec::new()).collect();
        for (child, results) in answers {
            let of_child = endings.iter().zip(&mut replies).filter(|(ending, _)| ending.unstable.has(child));
            for ((_, replies), result) in of_child.zip(results) {
                replies.push((child, result));
            }
        }
        for (ending, replies) in endings.iter_mut().zip(replies).filter(|(ending, _)| !ending.unstable.is_empty()) {
            let synced = self.synced(&ending.inode, ending.unstable, &replies);
            ending.live -= ending.unstable - synced;
        }
    }

    /// Whether those that are left have what was written for certain. Stale copies alone are no reason to accuse the good
    /// one that was lost: nobody would be left to heal from.
    fn is_certain(&self, ending: &Ending) -> bool {
        self.has_quorum(ending.live) && !(ending.live & ending.good).is_empty()
    }

    /// Children to be accused of having missed it.
    fn missed(&self, ending: &Ending) -> Mask {
        if ending.wrote { (self.everyone() - ending.live) - ending.accused } else { Mask::NONE }
    }

    /// Whether there is nothing to be done but to clear the marks and unlock.
    fn is_plain(&self, ending: &Ending) -> bool {
        !ending.torn && (!ending.wrote || self.is_certain(ending)) && self.missed(ending).is_empty()
    }

    /// Clears the marks and unlocks, in one message to each child.
    async fn end_plain(&self, endings: &[Ending]) {
        if endings.is_empty() {
            return;
        }
        let up = self.up();
        let asked = endings.iter().fold(Mask::NONE, |all, ending| all | ending.on) & up;
        let steps = |child: usize| {
            let mut steps = Vec::new();
            for ending in endings.iter().filter(|ending| ending.on.has(child)) {
                let target = Target { gfid: ending.inode.gfid, file: ending.file };
                let clean = self.post_op_fop(target, &PostOp::inode(Segment::Data, Mask::NONE, -1));
                let clean = clean.filter(|_| ending.live.has(child)).and_then(|fop| self.for_child(&fop, child).ok());
                steps.extend(clean.map(|fop| Step::new(&ending.context, fop)));
                steps.push(self.unlock_step(&ending.context, &whole_file(ending.inode.gfid)));
            }
            steps
        };
        self.steps_to_all(asked, None, steps).await;
        for ending in endings {
            set_idle(&ending.inode, None);
        }
    }

    /// Ends a session of which some child has missed something.
    async fn end_with_losses(&self, ending: &Ending) {
        let Ending { inode, context, live, .. } = ending;
        let certain = self.is_certain(ending);
        let mut error = None;
        if ending.wrote && (ending.torn || !certain) {
            // What was acknowledged is for certain on these alone: whoever may have lost it is not to be healed from.
            self.accuse_unsure(ending).await;
        }
        if ending.torn {
            tracing::warn!(subvolume = %self.name, gfid = %inode.gfid, "a write was done by too few: left for the healer");
            // Writes before it were acknowledged: theirs is another error than the one its caller got.
            if ending.wrote && !certain {
                error = Some(FopError::new(EIO, format!("{}: {} could not be made durable", self.name, inode.gfid)));
            }
        } else if !ending.wrote || certain {
            let missed = self.missed(ending);
            inode.discredit(missed, true, false);
            let target = Target { gfid: inode.gfid, file: ending.file };
            let told = self.post_op(context, *live, target, PostOp::inode(Segment::Data, missed, -1)).await;
            inode.discredit(missed, true, false);
            if !self.has_quorum(told) {
                error = Some(self.no_quorum());
            }
        } else {
            // Too few hold what was written for certain: all stay dirty, and whoever asks next hears of it.
            error = Some(FopError::new(EIO, format!("{}: {} could not be made durable", self.name, inode.gfid)));
        }
        self.unlock_all(context, &self.name, &[whole_file(inode.gfid)], ending.on & self.up()).await;
        set_idle(inode, error);
    }

    /// Accuses, on those that have it, all others that are not accused yet. The dirty marks stay.
    async fn accuse_unsure(&self, ending: &Ending) {
        let Ending { inode, context, live, .. } = ending;
        let unsure = (self.everyone() - *live) - ending.accused;
        if unsure.is_empty() || (*live & ending.good).is_empty() {
            return;
        }
        inode.discredit(unsure, true, false);
        let target = Target { gfid: inode.gfid, file: ending.file };
        self.post_op(context, *live, target, PostOp::inode(Segment::Data, unsure, 0)).await;
        inode.discredit(unsure, true, false);
    }
}

fn set_idle(inode: &Inode, error: Option<FopError>) {
    let mut session = inode.session.lock();
    session.phase = Phase::Idle;
    session.on = Mask::NONE;
    if let Some(error) = error {
        session.fail(error);
    }
    session.wake();
}
