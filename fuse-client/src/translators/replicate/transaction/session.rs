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
use ladrillo_translator::{Context, Dict, FdId, Fop, FopError, FopResult, Gfid, Value};

use super::lock::{Lockee, lock_error};
use super::postop::{PostOp, Target, unaccused};
use crate::translators::replicate::children::View;
use crate::translators::replicate::fops::successes;
use crate::translators::replicate::inode::Inode;
use crate::translators::replicate::mask::MAX_CHILDREN;
use crate::translators::replicate::{Marks, Mask, Replicate, Sabotage, Segment};

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
enum Phase {
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
    phase: Phase,
    /// Which session this is: timers of an earlier one do nothing.
    number: u64,
    /// Children as they were when it began.
    began: View,
    /// Locked, and marked dirty.
    on: Mask,
    /// Of those, copies that nobody accused when it began.
    good: Mask,
    /// Arbiters among them that nobody accused: not in `good`, as they have no contents.
    witnesses: Mask,
    /// Missed something.
    failed: Mask,
    /// Accused of it on all others already.
    accused: Mask,
    /// A write may have been done by too few: the dirty marks stay for the healer.
    torn: bool,
    /// Something was written with success.
    wrote: bool,
    /// Writes answered, and how many of them each child has made durable.
    writes: u64,
    durable: [u64; MAX_CHILDREN],
    /// An open file to reach the inode by.
    fd: Option<FdId>,
    ending: bool,
    active: Vec<(u64, Range)>,
    queue: Vec<(u64, Range)>,
    waiters: Vec<oneshot::Sender<()>>,
    next_ticket: u64,
    idle_since: Duration,
    /// The session whose timer runs.
    timer_of: u64,
    /// Another client wanted the lock while it was being taken.
    contended: bool,
    error: Option<FopError>,
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

    /// What could not be made durable since this was last asked.
    pub fn take_error(&mut self) -> Option<FopError> {
        self.error.take()
    }

    fn wake(&mut self) {
        for waiter in self.waiters.drain(..) {
            // A waiter that is gone needs no waking.
            let _ = waiter.send(());
        }
    }

    fn wait(&mut self) -> oneshot::Receiver<()> {
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
        let opened = self.lock_and_mark(inode, &context, &view, file).await;
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
        let (marked, marks, replies) = self.mark_dirty(context, locked.on, target, Segment::Data, None).await;
        let unaccused = unaccused(&marks, Segment::Data);
        let good = unaccused - self.arbiters();
        let problem = if !self.has_quorum(marked) {
            Some(self.weigh_errors(&replies))
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
        };
        let Some(problem) = problem else {
            // Those that could not be marked take no part; the others accuse them with the first write.
            self.unlock_all(context, &self.name, &whole, locked.on - marked).await;
            return Ok((marked, unaccused, locked.since));
        };
        // Nothing was written: the marks can go.
        self.post_op(context, marked, target, PostOp::inode(Segment::Data, Mask::NONE, -1)).await;
        self.unlock_all(context, &self.name, &whole, locked.on).await;
        Err(problem)
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

    /// Makes writes durable, clears the dirty marks, unlocks. Called in phase Closing; leaves Idle.
    async fn close_session(&self, inode: &Arc<Inode>) {
        let (on, began, torn, wrote, writes, durable, fd, already) = {
            let session = inode.session.lock();
            (
                session.on,
                session.began,
                session.torn,
                session.wrote,
                session.writes,
                session.durable,
                session.fd,
                (session.failed, session.accused),
            )
        };
        let (mut failed, accused) = already;
        let context = self.root_context(inode.lock_owner);
        let file = fd.map(|fd| File { gfid: inode.gfid, fd: Some(fd) });
        // Lost since: its lock and perhaps what it had not made durable are gone.
        failed |= on - self.view().kept_since(&began, on);
        let mut live = on - failed;
        if self.settings().ensure_durability && wrote {
            let unstable: Mask = live.iter().filter(|child| durable[*child] < writes).collect();
            let synced = self.sync_children(inode, &context, unstable, file).await;
            failed |= unstable - synced;
            live -= failed;
        }
        failed |= live - self.view().kept_since(&began, live);
        live = on - failed;
        let mut error = None;
        // Stale copies alone are no reason to accuse the good one that was lost: nobody would be left to heal from.
        let good = inode.session.lock().good;
        let certain = self.has_quorum(live) && !(live & good).is_empty();
        if wrote && (torn || !certain) {
            // What was acknowledged is for certain on these alone: whoever may have lost it is not to be healed from.
            self.accuse_unsure(inode, &context, live, accused, file).await;
        }
        if torn {
            tracing::warn!(subvolume = %self.name, gfid = %inode.gfid, "a write was done by too few: left for the healer");
        } else if !wrote || certain {
            let missed = if wrote { (self.everyone() - live) - accused } else { Mask::NONE };
            if !missed.is_empty() {
                inode.discredit(missed, true, false);
            }
            let target = Target { gfid: inode.gfid, file };
            let told = self.post_op(&context, live, target, PostOp::inode(Segment::Data, missed, -1)).await;
            if !missed.is_empty() {
                inode.discredit(missed, true, false);
            }
            if !missed.is_empty() && !self.has_quorum(told) {
                error = Some(self.no_quorum());
            }
        } else {
            // Too few hold what was written for certain: all stay dirty, and whoever asks next hears of it.
            error = Some(FopError::new(EIO, format!("{}: {} could not be made durable", self.name, inode.gfid)));
        }
        self.unlock_all(&context, &self.name, &[whole_file(inode.gfid)], on & self.up()).await;
        let mut session = inode.session.lock();
        session.phase = Phase::Idle;
        session.on = Mask::NONE;
        if error.is_some() {
            session.error = error;
        }
        session.wake();
    }

    /// Accuses, on `live`, all others that are not `accused` yet. The dirty marks stay.
    async fn accuse_unsure(&self, inode: &Inode, context: &Context, live: Mask, accused: Mask, file: Option<File>) {
        let unsure = (self.everyone() - live) - accused;
        let good = inode.session.lock().good;
        if unsure.is_empty() || (live & good).is_empty() {
            return;
        }
        inode.discredit(unsure, true, false);
        let target = Target { gfid: inode.gfid, file };
        self.post_op(context, live, target, PostOp::inode(Segment::Data, unsure, 0)).await;
        inode.discredit(unsure, true, false);
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
        let file = file.unwrap_or(File { gfid: inode.gfid, fd: None });
        let xdata =
            Dict::new().with("batch-fsync", Value::Int(1)).with("glusterfs-internal-fop", Value::Str("yes".into()));
        let fop = Fop::Fsync { file, datasync: true, xdata };
        let replies = self.send_all(children, context, &fop).await;
        for (child, reply) in &replies {
            if let Err(error) = reply {
                tracing::warn!(subvolume = %self.name, child, gfid = %inode.gfid, %error, "fsync of a write failed");
            }
        }
        let gone = |error: &FopError| error.errno == ENOENT || error.errno == ESTALE;
        if replies.iter().all(|(_, reply)| matches!(reply, Err(error) if gone(error))) {
            return children;
        }
        successes(&replies)
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

fn whole_file(gfid: Gfid) -> Lockee {
    Lockee::Range { gfid, start: 0, len: 0 }
}
