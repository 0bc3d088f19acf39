//! Changes of an inode's attributes and xattrs.
//!
//! With all children there, nothing is marked beforehand (AFR's optimistic changelog): what a crash half does is found
//! by comparing copies. With one missing, the others are marked dirty first.

use std::sync::Arc;

use ladrillo_translator::error::errno::EINVAL;
use ladrillo_translator::fop::File;
use ladrillo_translator::{Context, Fop, FopError, FopFuture, FopResult, Gfid};

use super::lock::{Locked, Lockee, METADATA_START, lock_error};
use super::postop::{PostOp, Target};
use crate::translators::replicate::inode::Inode;
use crate::translators::replicate::{Answer, Mask, Replicate, Segment};

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
        let locked = self.lock_all(&own, &self.name, &lockees, self.up()).await;
        let outcome = if self.has_quorum(locked.on) {
            self.metadata_locked(context, &own, &fop, &inode, Target { gfid, file }, &locked, answer).await
        } else {
            Err(lock_error(self, &locked))
        };
        self.unlock_all(&own, &self.name, &lockees, locked.on & self.up()).await;
        outcome
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
