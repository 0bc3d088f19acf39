//! Locks of those above: applications' POSIX locks, and locks of translators and of other heal services.
//!
//! Taken child after child in volfile order, so that two clients that want the same lock meet on the first child and one
//! of them gets it; released on all at once. A lock that too few children grant is given back.
//!
//! Applications' locks are remembered with the children that have them, and taken on those that come back, so that they
//! outlive all bricks being restarted one after the other. One that fewer than a quorum have is in doubt: somebody else
//! may have had it meanwhile. Where locks are strict (`strict-locks`, or mandatory ones) its open file is bad from then on
//! (EBADF), as AFR has it; otherwise it is taken again as soon as it is free.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ladrillo_translator::error::errno::{EAGAIN, EBADF, EDEADLK, EINTR, EINVAL, ENOTCONN, ETIMEDOUT};
use ladrillo_translator::fop::{EntrylkCmd, File, FopKind, LockCmd, LockType};
use ladrillo_translator::{Context, Fop, FopError, FopFuture, FopResult, Gfid, Reply, Value};

use super::mask::Mask;
use super::{Answer, ChildReply, Replicate};
use crate::translators::held::{HANDED_OVER, HeldLock, KEPT_ABOVE, Restoring, bytes_of};

/// Pauses between attempts to take a lock on a child where somebody else has it: from, to, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Ask,
    Lock,
    Unlock,
}

impl Replicate {
    pub(super) fn lock<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this, answer| Box::pin(async move { this.run_kept_lock(context, fop, answer).await }))
    }

    /// [`Replicate::run_lock`], with what applications hold remembered.
    async fn run_kept_lock(self: Arc<Self>, context: Context, mut fop: Fop, mut answer: Answer) {
        let wish = wish_of(&fop);
        let Fop::Lk { file, flock, xdata, .. } = &mut fop else { return self.run_lock(context, fop, answer).await };
        if wish == Some(Wish::Ask) {
            return self.run_lock(context, fop, answer).await;
        }
        let handed_over = xdata.contains(HANDED_OVER);
        xdata.set(KEPT_ABOVE, Value::Int(1));
        let (gfid, range) = (file.gfid, bytes_of(flock));
        self.inodes.intern(gfid).locks_asked.store(true, std::sync::atomic::Ordering::Relaxed);
        let this = self.clone();
        let _asking = this.held.ask(gfid, &context.lock_owner).await;
        if let (Some(Wish::Unlock), Some((start, end))) = (wish, range) {
            self.held.carve(gfid, &context.lock_owner, start, end);
        }
        if handed_over {
            let Fop::Lk { flock, .. } = fop else { return };
            answer.give(Ok(Reply::Lk { flock, xdata: Default::default() }));
            return;
        }
        self.run_lock(context, fop, answer).await;
    }

    async fn run_lock(self: Arc<Self>, context: Context, fop: Fop, mut answer: Answer) {
        let view = self.view();
        let outcome = self.try_run_lock(&context, &fop, &answer).await;
        let granted = outcome.as_ref().ok().map(|(on, _)| *on);
        // Before the answer: a flush that follows it must find what it is to forget.
        let kept = granted.and_then(|on| HeldLock::of(&context, &fop, on));
        if let Some((gfid, lock)) = kept.clone().filter(|_| !answer.is_abandoned()) {
            self.keep_lock(gfid, lock, &view);
        }
        let delivered = answer.give(outcome.map(|(_, reply)| reply));
        // Whoever asked is gone: a lock nobody knows of must not stay.
        if !delivered
            && wish_of(&fop) == Some(Wish::Lock)
            && let (Some(on), Some(unlock)) = (granted, unlock_of(&fop))
        {
            if let Some((gfid, lock)) = kept {
                self.held.carve(gfid, lock.owner(), lock.start, lock.end);
            }
            self.send_all(on, &context, &unlock).await;
        }
    }

    fn keep_lock(&self, gfid: Gfid, lock: HeldLock<Mask>, asked: &super::children::View) {
        self.held.insert(gfid, lock.clone());
        // After it is remembered: a child that is lost from now on is taken from it by its event.
        let kept = self.view().kept_since(asked, lock.tag);
        if kept != lock.tag {
            self.held.retain(|other, held| {
                if other == gfid && held.owner() == lock.owner() && held.start == lock.start && held.end == lock.end {
                    held.tag = held.tag & kept;
                }
                true
            });
        }
        if kept != self.everyone() {
            self.restore_locks_soon();
        }
    }

    /// FLUSH, RELEASE: closing a file gives up what `owner`, or what the open file holds.
    pub(super) async fn forget_locks(&self, context: &Context, file: &File, released: bool) {
        let owner = &context.lock_owner;
        let fd = file.fd.filter(|_| released);
        let mine = |lock: &HeldLock<Mask>| match fd {
            Some(fd) => lock.fd == Some(fd),
            None => !released && lock.owner() == owner,
        };
        if !self.held.any(file.gfid, mine) {
            return;
        }
        let _asking = self.held.ask(file.gfid, owner).await;
        match fd {
            Some(fd) => self.held.forget_fd(file.gfid, fd),
            None => self.held.forget_owner(file.gfid, owner),
        }
    }

    /// `child` is lost, and with it the locks it had granted.
    pub(super) fn lose_locks(&self, child: usize) {
        if self.held.len() == 0 {
            return;
        }
        self.held.retain(|gfid, lock| {
            if !lock.tag.has(child) {
                return true;
            }
            lock.tag.take(child);
            if self.has_quorum(lock.tag) {
                return true;
            }
            let strict = self.settings().strict_locks || lock.is_mandatory();
            tracing::warn!(subvolume = %self.name, %gfid, strict, "too few bricks are left that have an application's lock: others may get it");
            if strict && let Some(open) = lock.fd.and_then(|fd| self.open_file(fd)) {
                open.spoiled.store(true, Ordering::Release);
                self.spoiled.store(true, Ordering::Release);
            }
            !strict
        });
    }

    /// # Errors
    /// EBADF: the locks of an open file that this fop uses are lost.
    pub(super) fn refuse_spoiled(&self, fop: &Fop) -> FopResult<()> {
        if !self.spoiled.load(Ordering::Acquire) {
            return Ok(());
        }
        let concerned = match fop.kind() {
            FopKind::Release | FopKind::Releasedir | FopKind::Flush => false,
            FopKind::Lk => wish_of(fop) != Some(Wish::Unlock),
            _ => true,
        };
        let is_spoiled = |file: File| {
            let open = file.fd.and_then(|fd| self.open_file(fd));
            open.is_some_and(|open| open.spoiled.load(Ordering::Acquire))
        };
        if concerned && fop.files().into_iter().flatten().any(is_spoiled) {
            return Err(FopError::new(EBADF, format!("{}: the locks of this open file are lost", self.name)));
        }
        Ok(())
    }

    /// Takes remembered locks on children that are up and do not have them, until all have.
    pub(super) fn restore_locks_soon(&self) {
        let Some(this) = self.this.upgrade() else { return };
        if self.held.len() == 0 || self.restoring_locks.swap(true, Ordering::AcqRel) {
            return;
        }
        self.runtime.spawn(Box::pin(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let before = this.view();
                if this.restore_locks().await == 0 && this.view().generation == before.generation {
                    break;
                }
                this.runtime.sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                if this.is_stopped() {
                    break;
                }
            }
            this.restoring_locks.store(false, Ordering::Release);
            if !this.is_stopped() && this.locks_to_restore() > 0 {
                this.restore_locks_soon();
            }
        }));
    }

    fn locks_to_restore(&self) -> usize {
        let up = self.up();
        self.held.find(|lock| !(up - lock.tag).is_empty()).len()
    }

    /// Tells how many are still to be taken somewhere.
    async fn restore_locks(&self) -> usize {
        let up = self.up();
        let mut left = 0;
        for (gfid, lock) in self.held.find(|lock| !(up - lock.tag).is_empty()) {
            let file = File { gfid, fd: lock.fd };
            self.reopen(&file, up - lock.tag).await;
            let restoring = self.held.restore().await;
            if !self.restore_lock(&restoring, gfid, &lock).await {
                left += 1;
            }
        }
        left
    }

    async fn restore_lock(&self, restoring: &Restoring<'_, Mask>, gfid: Gfid, lock: &HeldLock<Mask>) -> bool {
        let view = self.view();
        let Some(lock) = restoring.current(gfid, lock) else { return false };
        let missing = view.up - lock.tag;
        let mut fop = lock.request(gfid);
        if let Some(xdata) = fop.xdata_mut() {
            xdata.set(KEPT_ABOVE, Value::Int(1));
        }
        let replies = self.send_all(missing, &lock.context, &fop).await;
        let granted = super::fops::successes(&replies);
        for (child, reply) in &replies {
            if let Err(error) = reply
                && !matches!(error.errno, EAGAIN | ENOTCONN | ETIMEDOUT)
            {
                tracing::warn!(subvolume = %self.name, child, %gfid, %error, "lock not taken again");
            }
        }
        restoring.update(gfid, &lock, |lock| {
            lock.tag |= granted;
            true
        });
        // As in keep_lock: a loss before it was noted is not told by an event any more.
        let kept = self.view().kept_since(&view, granted);
        let lost = granted - kept;
        if !lost.is_empty() {
            restoring.update(gfid, &lock, |lock| {
                lock.tag -= lost;
                true
            });
        }
        tracing::info!(subvolume = %self.name, %gfid, missing = ?missing, granted = ?kept, "application's lock taken on bricks that came back");
        missing == kept
    }

    async fn try_run_lock(
        &self,
        context: &Context,
        fop: &Fop,
        answer: &Answer,
    ) -> FopResult<(Mask, ladrillo_translator::Reply)> {
        let wish = wish_of(fop).ok_or_else(|| FopError::new(EINVAL, "not a lock"))?;
        let file = file_of(fop);
        let gfid = gfid_of(fop);
        let up = self.up();
        if wish != Wish::Unlock && !self.has_quorum(up) {
            return Err(self.no_quorum());
        }
        if let Some(file) = &file {
            self.reopen(file, up).await;
        }
        match wish {
            Wish::Ask => {
                let (child, reply) = self.read_from_good_copy(context, gfid, file.as_ref(), fop).await?;
                Ok((Mask::only(child), reply))
            }
            Wish::Unlock => {
                let replies = self.send_all(up, context, fop).await;
                // What children that went away held is gone with them.
                let on = super::fops::successes(&replies);
                if on.is_empty() {
                    Err(self.weigh_errors(&replies))
                } else {
                    Ok((on, self.first_success(replies, gfid)?))
                }
            }
            Wish::Lock => self.lock_in_turn(context, fop, up, answer).await,
        }
    }

    async fn lock_in_turn(
        &self,
        context: &Context,
        fop: &Fop,
        up: Mask,
        answer: &Answer,
    ) -> FopResult<(Mask, ladrillo_translator::Reply)> {
        let view = self.view();
        let mut replies: Vec<ChildReply> = Vec::new();
        let mut refused = None;
        for child in up.iter() {
            let mut one = self.send_all(Mask::only(child), context, fop).await;
            let error = one.iter().find_map(|(_, reply)| reply.as_ref().err().cloned());
            replies.append(&mut one);
            // Others: the child has not this file (yet), or is gone. What counts is how many have the lock in the end.
            if let Some(error) = error
                && matches!(error.errno, EAGAIN | EDEADLK | EINTR | EINVAL)
            {
                refused = Some(error);
                break;
            }
            if answer.is_abandoned() {
                refused = Some(FopError::new(EAGAIN, "nobody waits for this lock any more"));
                break;
            }
        }
        let on = super::fops::successes(&replies);
        let kept = self.view().kept_since(&view, on);
        if refused.is_none() && self.has_quorum(kept) {
            return Ok((on, self.first_success(replies, gfid_of(fop))?));
        }
        if let Some(unlock) = unlock_of(fop) {
            self.send_all(on & self.up(), context, &unlock).await;
        }
        Err(refused.unwrap_or_else(|| self.weigh_errors(&replies)))
    }
}

fn wish_of(fop: &Fop) -> Option<Wish> {
    let of_range = |cmd: &LockCmd, kind: LockType| match (cmd, kind) {
        (LockCmd::Get, _) => Wish::Ask,
        (_, LockType::Unlock) => Wish::Unlock,
        _ => Wish::Lock,
    };
    match fop {
        Fop::Lk { cmd, flock, .. } | Fop::Inodelk { cmd, flock, .. } | Fop::Finodelk { cmd, flock, .. } => {
            Some(of_range(cmd, flock.kind))
        }
        Fop::Entrylk { cmd, .. } | Fop::Fentrylk { cmd, .. } => {
            Some(if *cmd == EntrylkCmd::Unlock { Wish::Unlock } else { Wish::Lock })
        }
        _ => None,
    }
}

/// The unlock that undoes `fop`.
fn unlock_of(fop: &Fop) -> Option<Fop> {
    let mut undo = fop.clone();
    match &mut undo {
        Fop::Lk { cmd, flock, .. } | Fop::Inodelk { cmd, flock, .. } | Fop::Finodelk { cmd, flock, .. } => {
            *cmd = LockCmd::Set;
            flock.kind = LockType::Unlock;
        }
        Fop::Entrylk { cmd, .. } | Fop::Fentrylk { cmd, .. } => *cmd = EntrylkCmd::Unlock,
        _ => return None,
    }
    Some(undo)
}

fn file_of(fop: &Fop) -> Option<File> {
    match fop {
        Fop::Lk { file, .. } | Fop::Finodelk { file, .. } | Fop::Fentrylk { file, .. } => Some(*file),
        _ => None,
    }
}

fn gfid_of(fop: &Fop) -> ladrillo_translator::Gfid {
    match fop {
        Fop::Inodelk { gfid, .. } | Fop::Entrylk { gfid, .. } => *gfid,
        _ => file_of(fop).map(|file| file.gfid).unwrap_or_default(),
    }
}
