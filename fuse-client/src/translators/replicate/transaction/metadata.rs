//! Changes of an inode's attributes and xattrs.
//!
//! With all children there, nothing is marked beforehand (AFR's optimistic changelog): what a crash half does is found
//! by comparing copies. With one missing, the others are marked dirty first.

use std::sync::Arc;

use ladrillo_translator::error::errno::EINVAL;
use ladrillo_translator::fop::File;
use ladrillo_translator::{Context, Fop, FopError, FopFuture, FopResult, Gfid, Step};

use super::lock::{Locked, Lockee, METADATA_START, lock_error};
use super::postop::{PostOp, Target};
use crate::translators::replicate::inode::Inode;
use crate::translators::replicate::{Answer, ChildReply, Mask, Replicate, Segment, leaves_unknown};

impl Replicate {
    /// Carries out a change of attributes; it runs to its end even if the caller goes away.
    pub(in crate::translators::replicate) fn metadata_transaction<'a>(
        &'a self,
        context: &'a Context,
        fop: Fop,
    ) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this, mut answer| {
            Box::pin(async move {
                if let Err(error) = this.run_metadata(&context, fop, &mut answer).await {
                    answer.give(Err(error));
                }
            })
        })
    }

    async fn run_metadata(self: &Arc<Self>, context: &Context, fop: Fop, answer: &mut Answer) -> FopResult<()> {
        let (gfid, file) = self.metadata_target(context, &fop)?;
        self.need_quorum()?;
        let inode = self.inodes.intern(gfid);
        let _turn = inode.metadata_turn.lock().await;
        let readable = self.readable(&inode, file.as_ref()).await?;
        if readable.metadata.is_empty() {
            return Err(self.split_brain(&inode));
        }
        let own = self.root_context(inode.lock_owner);
        let lockees = [Lockee::Range { gfid, start: METADATA_START, len: 0 }];
        let target = Target { gfid, file };
        let mut half_done = Mask::NONE;
        if is_absolute(&fop) && self.all_take_steps() {
            if let Some(file) = &file {
                self.reopen(file, self.up()).await;
            }
            let then = |child| Ok(vec![Step::then(context, self.for_child(&fop, child)?)]);
            if let Some(joined) = self.lock_and(&own, &lockees[0], self.everyone(), then).await {
                self.unlock_unknown(&own, &self.name, &lockees, &joined.outcome()).await;
                let held = joined.locked();
                let replies = joined.replies(0);
                if !joined.is_contended() {
                    // Who refused the lock for another reason, or was lost, has refused the whole.
                    let locked = Locked { on: self.everyone(), since: joined.since, error: None };
                    let outcome = self.metadata_done(&own, &inode, target, &locked, (None, 0), replies, answer).await;
                    self.end_metadata(&own, &lockees, held, &outcome).await;
                    return outcome;
                }
                let may_have = |reply: &FopResult| reply.as_ref().map_or_else(leaves_unknown, |_| true);
                half_done =
                    replies.iter().filter(|(_, reply)| may_have(reply)).map(|(child, _)| *child).collect::<Mask>();
                self.unlock_all(&own, &self.name, &lockees, held & self.up()).await;
            }
        }
        let locked = self.lock_all(&own, &self.name, &lockees, self.up()).await;
        let outcome = if self.has_quorum(locked.on) {
            self.metadata_locked(context, &own, &fop, &inode, target, &locked, answer).await
        } else {
            Err(lock_error(self, &locked))
        };
        if outcome.is_err() && !half_done.is_empty() {
            // Some have what the others may not: for the healer.
            self.post_op(&own, half_done, target, PostOp::inode(Segment::Metadata, Mask::NONE, 1)).await;
            inode.distrust();
        }
        self.end_metadata(&own, &lockees, locked.on, &outcome).await;
        outcome
    }

    /// Lets go of the lock: of success with the next message to each child.
    async fn end_metadata(&self, own: &Context, lockees: &[Lockee], held: Mask, outcome: &FopResult<()>) {
        match outcome {
            Ok(()) => self.unlock_later(own, &self.name, lockees, held & self.up()),
            Err(_) => self.unlock_all(own, &self.name, lockees, held & self.up()).await,
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn metadata_locked(
        &self,
        context: &Context,
        own: &Context,
        fop: &Fop,
        inode: &Inode,
        target: Target,
        locked: &Locked,
        answer: &mut Answer,
    ) -> FopResult<()> {
        let optimistic = locked.on == self.everyone();
        let mut on = locked.on;
        let mut good = None;
        if !optimistic {
            let (marked, marks, replies) = self.mark_dirty(own, on, target, Segment::Metadata, None).await;
            on = marked;
            let unaccused = self.good_copies(&marks, Segment::Metadata);
            good = Some(unaccused);
            if !self.has_quorum(marked) || unaccused.is_empty() {
                self.post_op(own, marked, target, PostOp::inode(Segment::Metadata, Mask::NONE, -1)).await;
                return Err(if unaccused.is_empty() { self.split_brain(inode) } else { self.weigh_errors(&replies) });
            }
        }
        if let Some(file) = &target.file {
            self.reopen(file, on).await;
        }
        let dirtied = if optimistic { 0 } else { 1 };
        let replies = self.send_all(on, context, fop).await;
        let locked = Locked { on, since: locked.since, error: None };
        self.metadata_done(own, inode, target, &locked, (good, dirtied), replies, answer).await
    }

    /// Judges what the children in `locked` answered to the change, and says on those that have it who does not. `good`: the
    /// copies that nobody accuses, where they were asked; `dirtied`: how often they were marked.
    #[allow(clippy::too_many_arguments)]
    async fn metadata_done(
        &self,
        own: &Context,
        inode: &Inode,
        target: Target,
        locked: &Locked,
        (mut good, dirtied): (Option<Mask>, i32),
        replies: Vec<ChildReply>,
        answer: &mut Answer,
    ) -> FopResult<()> {
        let on = locked.on;
        let verdict = self.verdict(&replies, self.view().kept_since(&locked.since, on));
        if verdict.refused {
            self.post_op(own, on, target, PostOp::inode(Segment::Metadata, Mask::NONE, -dirtied)).await;
            return Err(self.weigh_errors(&replies));
        }
        if good.is_none() && verdict.done != self.everyone() {
            good = Some(self.read_good_copies(own, verdict.done, target, Segment::Metadata).await);
        }
        let has_good = good.is_none_or(|good| !(good & verdict.done).is_empty());
        if !self.has_quorum(verdict.done) || !has_good {
            // Too few have it: say so on them, for the healer; accuse nobody.
            self.post_op(own, verdict.done, target, PostOp::inode(Segment::Metadata, Mask::NONE, 1 - dirtied)).await;
            inode.distrust();
            return Err(self.weigh_errors(&replies));
        }
        let missed = self.everyone() - verdict.done;
        if !missed.is_empty() {
            inode.discredit(missed, false, true);
            let post_op = PostOp::inode(Segment::Metadata, missed, -dirtied);
            let told = self.post_op(own, verdict.done, target, post_op).await;
            // Who asked before the accusation was written and hears the answer later must not believe it.
            inode.discredit(missed, false, true);
            if !self.has_quorum(told) {
                return Err(self.no_quorum());
            }
        }
        let done = verdict.done;
        let replies = replies.into_iter().filter(|(child, _)| done.has(*child)).collect();
        answer.give(self.first_success(replies, inode.gfid));
        Ok(())
    }

    fn metadata_target(&self, context: &Context, fop: &Fop) -> FopResult<(Gfid, Option<File>)> {
        Ok(match fop {
            Fop::Setattr { gfid, .. } => (*gfid, None),
            Fop::Fsetattr { file, .. } => (file.gfid, Some(*file)),
            Fop::Setxattr { gfid, xattrs, .. } | Fop::Xattrop { gfid, xattrs, .. } => {
                self.refuse_own_marks(context, xattrs)?;
                (*gfid, None)
            }
            Fop::Fsetxattr { file, xattrs, .. } | Fop::Fxattrop { file, xattrs, .. } => {
                self.refuse_own_marks(context, xattrs)?;
                (file.gfid, Some(*file))
            }
            Fop::Removexattr { gfid, name, .. } => {
                self.refuse_own_name(context, name)?;
                (*gfid, None)
            }
            Fop::Fremovexattr { file, name, .. } => {
                self.refuse_own_name(context, name)?;
                (file.gfid, Some(*file))
            }
            _ => return Err(FopError::new(EINVAL, "not a change of attributes")),
        })
    }
}

/// Whether doing it twice is as doing it once: then it may be tried before all locks are had.
fn is_absolute(fop: &Fop) -> bool {
    const CREATE: u32 = libc::XATTR_CREATE as u32;
    match fop {
        Fop::Setattr { .. } | Fop::Fsetattr { .. } => true,
        Fop::Setxattr { flags, .. } | Fop::Fsetxattr { flags, .. } => flags & CREATE == 0,
        _ => false,
    }
}
