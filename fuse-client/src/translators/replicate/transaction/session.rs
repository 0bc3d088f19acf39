//! A file's eager lock, and the writes under it.
//!
//! The first write locks the whole file and marks it dirty; writes that follow use both, as long as they do not overlap
//! (two overlapping writes reach all bricks in one order: the later waits). The session ends a second after the last
//! write, or at once when another client wants the lock, a child comes or goes, or something failed: then every brick
//! that took writes makes them durable, is marked clean, and unlocked.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use ladrillo_translator::error::errno::{EIO, ENOENT, ENOTCONN, ESTALE};
use ladrillo_translator::fop::File;
use ladrillo_translator::{Context, Dict, FdId, Fop, FopError, FopResult, Gfid, Step, Value};

use super::lock::{Lockee, lock_error};
use super::postop::{PostOp, Target, unaccused};
use crate::translators::replicate::children::View;
use crate::translators::replicate::fops::successes;
use crate::translators::replicate::inode::Inode;
use crate::translators::replicate::mask::MAX_CHILDREN;
use crate::translators::replicate::{ChildReply, Marks, Mask, Replicate, Sabotage, Segment};

/// Bytes an operation touches: `start..=end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub start: u64,
    pub end: u64,
}

impl Range {
    /// `len` bytes from `start`; 0 = to the end of the file.
    pub fn new(start: u64, len: u64) -> Range {
        Range { start, end: if len == 0 { u64::MAX } else { start.saturating_add(len - 1) } }
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// Somebody takes the lock.
    Opening,
    Held,
    /// Somebody ends it.
    Closing,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Session {
    pub(super) phase: Phase,
    /// Which session this is: timers of an earlier one do nothing.
    pub(super) number: u64,
    /// Children as they were when it began.
    pub(super) began: View,
    /// Locked, and marked dirty.
    pub(super) on: Mask,
    /// Of those, copies that nobody accused when it began.
    pub(super) good: Mask,
    /// Arbiters among them that nobody accused: not in `good`, as they have no contents.
    witnesses: Mask,
    /// Missed something.
    pub(super) failed: Mask,
    /// Accused of it on all others already.
    pub(super) accused: Mask,
    /// A write may have been done by too few: the dirty marks stay for the healer.
    pub(super) torn: bool,
    /// Something was written with success.
    pub(super) wrote: bool,
    /// Writes answered, and how many of them each child has made durable.
    pub(super) writes: u64,
    pub(super) durable: [u64; MAX_CHILDREN],
    /// An open file to reach the inode by.
    pub(super) fd: Option<FdId>,
    pub(super) ending: bool,
    pub(super) active: Vec<(u64, Range)>,
    queue: Vec<(u64, Range)>,
    waiters: Vec<oneshot::Sender<()>>,
    next_ticket: u64,
    idle_since: Duration,
    /// The session whose timer runs.
    timer_of: u64,
    /// Another client wanted the lock while it was being taken.
    contended: bool,
    /// What could not be kept, the last of `errors`.
    error: Option<FopError>,
    errors: u64,
    /// Of `errors`, those that some fsync has reported.
    seen: u64,
    /// Waits to be ended with others.
    pub(super) is_queued: bool,
}

impl Session {
    /// Whether no write is or was under way under a lock still held.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether something was written, or is being written, that may not be durable yet.
    pub fn has_writes(&self) -> bool {
        self.phase != Phase::Idle && (self.wrote || !self.active.is_empty())
    }

    /// How many times what was written could not be kept, and of them how many somebody heard of from an fsync.
    pub fn errors(&self) -> (u64, u64) {
        (self.errors, self.seen)
    }

    /// The last error, where there are more than the `told` of somebody.
    pub fn error_after(&self, told: u64) -> Option<FopError> {
        self.error.clone().filter(|_| self.errors > told)
    }

    /// An fsync reports all errors there were.
    pub fn all_seen(&mut self) {
        self.seen = self.errors;
    }

    pub(super) fn fail(&mut self, error: FopError) {
        self.errors += 1;
        self.error = Some(error);
    }

    pub(super) fn wake(&mut self) {
        for waiter in self.waiters.drain(..) {
            // A waiter that is gone needs no waking.
            let _ = waiter.send(());
        }
    }

    pub(super) fn wait(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.push(sender);
        receiver
    }

    fn admits(&self, ticket: u64, range: &Range) -> bool {
        !self.active.iter().any(|(_, other)| other.overlaps(range))
            && !self.queue.iter().any(|(other, its)| *other < ticket && its.overlaps(range))
    }

    fn is_admitted(&self, ticket: u64) -> bool {
        self.active.iter().any(|(other, _)| *other == ticket)
    }

    /// Lets in all that waited for the lock and do not overlap. A lock wanted by others the moment it is granted must
    /// serve those who took it before it goes on, or two clients would hand it to and fro and neither would write.
    fn admit_queued(&mut self) {
        for (ticket, range) in self.queue.clone() {
            if self.admits(ticket, &range) {
                self.active.push((ticket, range));
            }
        }
    }
}

/// Leave to operate under a session.
pub(super) struct Permit {
    pub ticket: u64,
    /// Children to send the operation to.
    pub on: Mask,
    /// Of them, copies nobody accuses.
    pub good: Mask,
    /// Arbiters that nobody accuses.
    pub witnesses: Mask,
    /// Children as they were when the session began.
    pub began: View,
}

enum Next {
    Go(Permit),
    Open,
    Close,
    Wait(oneshot::Receiver<()>),
}

impl Replicate {
    /// Waits until `range` of `inode` may be written, opening a session where there is none.
    ///
    /// # Errors
    /// Too few children are up or let themselves be locked or marked.
    pub(super) async fn enter(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        range: Range,
        file: Option<File>,
    ) -> FopResult<Permit> {
        let ticket = {
            let mut session = inode.session.lock();
            session.next_ticket += 1;
            let ticket = session.next_ticket;
            session.queue.push((ticket, range));
            ticket
        };
        let outcome = loop {
            match self.next_step(inode, ticket, range, file) {
                Next::Go(permit) => break Ok(permit),
                Next::Wait(turn) => {
                    // Cancelled: the session's owner is gone with the process.
                    let _ = turn.await;
                }
                Next::Close => self.close_session(inode).await,
                Next::Open => {
                    if let Err(error) = self.open_session(inode, file).await {
                        break Err(error);
                    }
                }
            }
        };
        let mut session = inode.session.lock();
        session.queue.retain(|(other, _)| *other != ticket);
        if outcome.is_err() {
            session.wake();
        }
        outcome
    }

    fn next_step(&self, inode: &Inode, ticket: u64, range: Range, file: Option<File>) -> Next {
        let generation = self.view().generation;
        let mut session = inode.session.lock();
        match session.phase {
            Phase::Idle => {
                session.phase = Phase::Opening;
                session.contended = false;
                Next::Open
            }
            Phase::Held => {
                if session.began.generation != generation {
                    session.ending = true;
                }
                if session.ending && session.active.is_empty() {
                    session.phase = Phase::Closing;
                    return Next::Close;
                }
                let admitted = session.is_admitted(ticket);
                if admitted || (!session.ending && session.admits(ticket, &range)) {
                    if !admitted {
                        session.active.push((ticket, range));
                    }
                    if let Some(fd) = file.and_then(|file| file.fd) {
                        session.fd = Some(fd);
                    }
                    let Session { on, good, witnesses, began, .. } = *session;
                    return Next::Go(Permit { ticket, on, good, witnesses, began });
                }
                Next::Wait(session.wait())
            }
            Phase::Opening | Phase::Closing => Next::Wait(session.wait()),
        }
    }

    /// Locks the file and marks it dirty. Called in phase Opening; leaves Held, or Idle with an error.
    async fn open_session(self: &Arc<Self>, inode: &Arc<Inode>, file: Option<File>) -> FopResult<()> {
        let view = self.view();
        let context = self.root_context(inode.lock_owner);
        let mut opened = None;
        if self.all_take_steps() && self.knows_all_good(inode, &view) {
            opened = self.open_with(inode, &context, file).await;
        }
        let opened = match opened {
            Some(opened) => opened,
            None => self.lock_and_mark(inode, &context, &view, file).await,
        };
        let mut session = inode.session.lock();
        let outcome = match opened {
            Ok((on, unaccused, since)) => {
                session.phase = Phase::Held;
                session.number += 1;
                session.began = View { generation: view.generation, ..since };
                session.on = on;
                session.good = unaccused - self.arbiters();
                session.witnesses = unaccused & self.arbiters();
                session.failed = Mask::NONE;
                session.accused = Mask::NONE;
                session.torn = false;
                session.wrote = false;
                session.writes = 0;
                session.durable = [0; MAX_CHILDREN];
                session.fd = file.and_then(|file| file.fd);
                session.admit_queued();
                session.ending = session.contended;
                session.idle_since = self.runtime.now();
                Ok(())
            }
            Err(error) => {
                session.phase = Phase::Idle;
                Err(error)
            }
        };
        session.wake();
        outcome
    }

    /// Whether all copies were good when last asked, and nothing happened since that one would know of.
    fn knows_all_good(&self, inode: &Inode, view: &View) -> bool {
        let known = inode.readable();
        known.generation == view.generation && (known.data | self.arbiters()) == self.everyone()
    }

    /// Locks the file and marks it dirty, with one message to each child. `None`: somebody has the lock on some child, nothing
    /// is held. The write does not go along: where others hold the lock it would have to be marked without one, and a healer
    /// takes such a mark for a dead writer's.
    async fn open_with(
        &self,
        inode: &Inode,
        context: &Context,
        file: Option<File>,
    ) -> Option<FopResult<(Mask, Mask, View)>> {
        if let Some(file) = &file {
            self.reopen(file, self.everyone()).await;
        }
        let whole = [whole_file(inode.gfid)];
        let target = Target { gfid: inode.gfid, file };
        let mark = self.dirty_fop(target, Segment::Data);
        let then = |child| Ok(vec![Step::then(context, self.for_child(&mark, child)?)]);
        let joined = self.lock_and(context, &whole[0], self.everyone(), then).await?;
        self.unlock_unknown(context, &self.name, &whole, &joined.outcome()).await;
        let locked = joined.locked();
        let marked = joined.replies(0);
        if joined.is_contended() {
            // Healers take a mark beside a free lock for a dead writer's: ours go with the lock.
            let clean = self.post_op_fop(target, &PostOp::inode(Segment::Data, Mask::NONE, -1));
            let ours = successes(&marked);
            // One that went and came back is clean already: a healer found the mark beside a free lock.
            let kept = self.view().kept_since(&joined.since, locked);
            self.steps_to_all(kept, None, |child| {
                let fop = clean.as_ref().filter(|_| ours.has(child)).and_then(|fop| self.for_child(fop, child).ok());
                let clean = fop.map(|fop| Step::new(context, fop));
                clean.into_iter().chain([self.unlock_step(context, &whole[0])]).collect()
            })
            .await;
            return None;
        }
        let on = successes(&marked) & locked;
        if let Some(problem) = self.cannot_write(inode, on, &marked) {
            // Nothing was written: the marks can go.
            let marked = self.view().kept_since(&joined.since, on);
            self.post_op(context, marked, target, PostOp::inode(Segment::Data, Mask::NONE, -1)).await;
            self.unlock_all(context, &self.name, &whole, locked & self.up()).await;
            return Some(Err(problem));
        }
        self.unlock_all(context, &self.name, &whole, locked - on).await;
        Some(Ok((on, unaccused(&self.marks_in(&marked), Segment::Data), joined.since)))
    }

    async fn lock_and_mark(
        &self,
        inode: &Inode,
        context: &Context,
        view: &View,
        file: Option<File>,
    ) -> FopResult<(Mask, Mask, View)> {
        if !self.has_quorum(view.up) {
            return Err(self.no_quorum());
        }
        let whole = [whole_file(inode.gfid)];
        let locked = self.lock_all(context, &self.name, &whole, view.up).await;
        if !self.has_quorum(locked.on) {
            self.unlock_all(context, &self.name, &whole, locked.on).await;
            return Err(lock_error(self, &locked));
        }
        let target = Target { gfid: inode.gfid, file };
        let (_, _, replies) = self.mark_dirty(context, locked.on, target, Segment::Data, None).await;
        let marked = successes(&replies);
        let unaccused = unaccused(&self.marks_in(&replies), Segment::Data);
        let problem = self.cannot_write(inode, marked, &replies);
        let Some(problem) = problem else {
            // Those that could not be marked take no part; the others accuse them with the first write.
            self.unlock_all(context, &self.name, &whole, locked.on - marked).await;
            return Ok((marked, unaccused, locked.since));
        };
        // Nothing was written: the marks can go.
        let marked = self.view().kept_since(&locked.since, marked);
        self.post_op(context, marked, target, PostOp::inode(Segment::Data, Mask::NONE, -1)).await;
        self.unlock_all(context, &self.name, &whole, locked.on).await;
        Err(problem)
    }

    /// Why a file whose copies answered `replies` to their dirty mark cannot be written.
    fn cannot_write(&self, inode: &Inode, marked: Mask, replies: &[ChildReply]) -> Option<FopError> {
        let marks = self.marks_in(replies);
        let unaccused = unaccused(&marks, Segment::Data);
        let good = unaccused - self.arbiters();
        if !self.has_quorum(marked) {
            Some(self.weigh_errors(replies))
        } else if good.is_empty() && !unaccused.is_empty() {
            Some(FopError::new(ENOTCONN, format!("{}: an arbiter alone has no copy of {}", self.name, inode.gfid)))
        } else if good.is_empty() {
            Some(FopError::new(EIO, format!("{}: no good copy of {} is up", self.name, inode.gfid)))
        } else if self.may_be_incomplete(&marks, good) {
            let why =
                format!("{}: {} was left dirty, and a brick that may have more of it is away", self.name, inode.gfid);
            Some(FopError::new(EIO, why))
        } else {
            None
        }
    }

    /// Under the lock nobody else writes: a dirty mark beside ours was left by a writer that died, or that lost its
    /// quorum. Good copies that all have one may lack what was acknowledged but not durable when a machine lost power,
    /// and a brick that is away and not accused may have it.
    fn may_be_incomplete(&self, marks: &[(usize, Marks)], good: Mask) -> bool {
        let told: Mask = marks.iter().map(|(child, _)| *child).collect();
        let accused = marks.iter().fold(Mask::NONE, |all, (_, marks)| all | marks.accused(Segment::Data));
        let away = self.everyone() - told - accused - self.arbiters();
        let left_dirty =
            |child: usize| marks.iter().any(|(other, marks)| *other == child && marks.dirty.get(Segment::Data) > 1);
        self.settings().quorum.is_majority() && !away.is_empty() && good.iter().all(left_dirty)
    }

    /// Notes what an operation under the session did, and accuses those that missed it, before anybody hears of its
    /// success. `done` have it; `unstable`: it is not durable there yet.
    ///
    /// # Errors
    /// Too few have it, or too few could note who does not.
    pub(super) async fn account(
        &self,
        inode: &Inode,
        permit: &Permit,
        done: Mask,
        unstable: bool,
        file: Option<File>,
    ) -> FopResult<()> {
        let torn = !self.has_quorum(done) || (done & permit.good).is_empty();
        if torn {
            let mut session = inode.session.lock();
            session.torn = true;
            session.ending = true;
            return Err(self.no_quorum());
        }
        let newly = {
            let mut session = inode.session.lock();
            session.wrote = true;
            session.failed |= permit.on - done;
            session.ending |= !(permit.on - done).is_empty();
            if unstable {
                session.writes += 1;
            }
            (self.everyone() - done) - session.accused
        };
        if newly.is_empty() {
            return Ok(());
        }
        inode.discredit(newly, true, false);
        if self.is_sabotaged(Sabotage::AckAtOneCopy) {
            return Ok(());
        }
        let context = self.root_context(inode.lock_owner);
        let target = Target { gfid: inode.gfid, file };
        let mut newly = newly;
        let mut on = done;
        loop {
            let told = self.post_op(&context, on, target, PostOp::inode(Segment::Data, newly, 0)).await;
            let lost = on - told;
            {
                let mut session = inode.session.lock();
                session.failed |= lost;
                session.ending |= !lost.is_empty();
                if lost.is_empty() {
                    // Who asked before the accusation was written and hears the answer later must not believe it.
                    inode.discredit(newly, true, false);
                    session.accused |= newly;
                    return Ok(());
                }
                if !self.has_quorum(told) || (told & permit.good).is_empty() {
                    session.torn = true;
                    return Err(self.no_quorum());
                }
            }
            // Some were lost while they took the accusation: they are to be accused as well.
            on = told;
            newly = lost;
        }
    }

    /// Ends an operation's part in the session; ends the session with it when it is to end, else starts its timer.
    pub(super) async fn leave(self: &Arc<Self>, inode: &Arc<Inode>, permit: Permit, may_linger: bool) {
        let close = {
            let mut session = inode.session.lock();
            session.active.retain(|(ticket, _)| *ticket != permit.ticket);
            session.idle_since = self.runtime.now();
            session.ending |= !may_linger || self.settings().post_op_delay.is_zero();
            session.ending |= session.began.generation != self.view().generation;
            let close = session.phase == Phase::Held && session.active.is_empty() && session.ending;
            if close {
                session.phase = Phase::Closing;
            } else if session.timer_of != session.number {
                session.timer_of = session.number;
                self.start_timer(inode.clone(), session.number);
            }
            session.wake();
            close
        };
        if close {
            self.close_session(inode).await;
        }
    }

    /// Ends session `number` once it has been idle for the post-op delay.
    fn start_timer(self: &Arc<Self>, inode: Arc<Inode>, number: u64) {
        let this = self.clone();
        self.runtime.spawn(Box::pin(async move {
            let delay = this.settings().post_op_delay;
            let mut left = delay;
            loop {
                this.runtime.sleep(left).await;
                {
                    let mut session = inode.session.lock();
                    if session.number != number || session.phase != Phase::Held {
                        return;
                    }
                    left = delay.saturating_sub(this.runtime.now().saturating_sub(session.idle_since));
                    if session.active.is_empty() && left.is_zero() {
                        session.phase = Phase::Closing;
                    } else if left.is_zero() {
                        left = delay;
                    }
                    if session.phase == Phase::Held {
                        continue;
                    }
                }
                this.close_session(&inode).await;
                return;
            }
        }));
    }

    /// fdatasync on `children`; answers those that have it. A file without names left needs no durability.
    pub(super) async fn sync_children(
        &self,
        inode: &Inode,
        context: &Context,
        children: Mask,
        file: Option<File>,
    ) -> Mask {
        if children.is_empty() {
            return children;
        }
        let replies = self.send_all(children, context, &sync_fop(inode, file)).await;
        self.synced(inode, children, &replies)
    }

    /// Which of `children` have made durable what they were asked to.
    pub(super) fn synced(&self, inode: &Inode, children: Mask, replies: &[ChildReply]) -> Mask {
        for (child, reply) in replies {
            if let Err(error) = reply {
                tracing::warn!(subvolume = %self.name, child, gfid = %inode.gfid, %error, "fsync of a write failed");
            }
        }
        let gone = |error: &FopError| error.errno == ENOENT || error.errno == ESTALE;
        if replies.iter().all(|(_, reply)| matches!(reply, Err(error) if gone(error))) {
            return children;
        }
        successes(replies)
    }

    /// Notes that `synced` have made durable what had been written when `writes` were counted.
    pub(super) fn note_durable(&self, inode: &Inode, synced: Mask, writes: u64) {
        let mut session = inode.session.lock();
        for child in synced.iter() {
            if let Some(durable) = session.durable.get_mut(child) {
                *durable = (*durable).max(writes);
            }
        }
    }

    /// Writes answered in the session so far.
    pub(super) fn writes_so_far(&self, inode: &Inode) -> u64 {
        inode.session.lock().writes
    }

    /// Another client waits for a lock of ours: end the session now, or after the writes under way.
    pub(in crate::translators::replicate) fn on_contention(&self, gfid: Gfid) {
        let (Some(this), Some(inode)) = (self.this.upgrade(), self.inodes.get(&gfid)) else { return };
        let close = {
            let mut session = inode.session.lock();
            if session.phase != Phase::Held {
                session.contended = true;
                return;
            }
            session.ending = true;
            let close = session.active.is_empty();
            if close {
                session.phase = Phase::Closing;
            }
            close
        };
        if close {
            self.runtime.spawn(Box::pin(async move { this.close_session(&inode).await }));
        }
    }

    /// A child came or went: end all sessions, so that what a lost child may not have made durable is known soon, and
    /// one that came takes part.
    pub(in crate::translators::replicate) fn end_sessions_soon(&self) {
        for inode in self.inodes.with_sessions() {
            self.on_contention(inode.gfid);
        }
    }

    /// Somebody else may wait for the lock (the bricks count more inodelks than ours): end the session after the writes
    /// under way.
    pub(super) fn suspect_contention(&self, inode: &Inode) {
        inode.session.lock().ending = true;
    }

    /// Ends the session and waits for it, if there is one.
    pub(in crate::translators::replicate) async fn end_session(self: &Arc<Self>, inode: &Arc<Inode>) {
        let number = inode.session.lock().number;
        loop {
            let turn = {
                let mut session = inode.session.lock();
                match session.phase {
                    Phase::Idle => return,
                    _ if session.number != number => return,
                    Phase::Held if session.active.is_empty() => {
                        session.phase = Phase::Closing;
                        None
                    }
                    Phase::Opening => return,
                    Phase::Held => {
                        session.ending = true;
                        Some(session.wait())
                    }
                    Phase::Closing => Some(session.wait()),
                }
            };
            match turn {
                // Cancelled: nobody is left to wake us.
                Some(turn) => {
                    if turn.await.is_err() {
                        return;
                    }
                }
                None => {
                    self.close_session(inode).await;
                    return;
                }
            }
        }
    }

    /// Waits until all that is under way has ended, and all sessions with it: afterwards the graph can go away without
    /// leaving marks or locks behind. It takes as long as the bricks do.
    pub async fn finish(self: &Arc<Self>) {
        loop {
            let sessions = self.inodes.with_sessions();
            if sessions.is_empty() && self.work.is_idle() {
                return;
            }
            futures::future::join_all(sessions.iter().map(|inode| self.end_session(inode))).await;
            // Those that are being opened are of transactions: ended with the next round.
            self.work.idle().await;
        }
    }

    /// Ends all sessions (the graph is going away).
    pub(in crate::translators::replicate) fn release_all_sessions(&self) {
        let Some(this) = self.this.upgrade() else { return };
        for inode in self.inodes.with_sessions() {
            let this = this.clone();
            self.runtime.spawn(Box::pin(async move { this.end_session(&inode).await }));
        }
    }
}

/// Makes what was written durable.
pub(super) fn sync_fop(inode: &Inode, file: Option<File>) -> Fop {
    let file = file.unwrap_or(File { gfid: inode.gfid, fd: None });
    let xdata = Dict::new().with("batch-fsync", Value::Int(1)).with("glusterfs-internal-fop", Value::Str("yes".into()));
    Fop::Fsync { file, datasync: true, xdata }
}

pub(super) fn whole_file(gfid: Gfid) -> Lockee {
    Lockee::Range { gfid, start: 0, len: 0 }
}
