//! Changes of a file's contents.

use std::sync::Arc;

use ladrillo_translator::error::errno::EINVAL;
use ladrillo_translator::fop::File;
use ladrillo_translator::{Context, Fop, FopError, FopFuture, FopResult, Gfid, Value};

use super::session::{Permit, Range};
use crate::translators::replicate::fd::Telling;
use crate::translators::replicate::inode::Inode;
use crate::translators::replicate::{Answer, ChildReply, Mask, Replicate, Sabotage};

/// What a data operation does, as far as the transaction cares.
struct Shape {
    gfid: Gfid,
    file: Option<File>,
    /// Bytes it touches; `None`: it orders nothing (fsync).
    range: Option<Range>,
    /// Whether writes may go on under its lock afterwards.
    lingers: bool,
}

impl Replicate {
    /// Carries out a change of contents; it runs to its end even if the caller goes away.
    pub(in crate::translators::replicate) fn data_transaction<'a>(
        &'a self,
        context: &'a Context,
        fop: Fop,
    ) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this, answer| Box::pin(async move { this.run_data(context, fop, answer).await }))
    }

    async fn run_data(self: Arc<Self>, context: Context, mut fop: Fop, mut answer: Answer) {
        let shape = match self.shape_of(&fop) {
            Ok(shape) => shape,
            Err(error) => {
                answer.give(Err(error));
                return;
            }
        };
        if let Err(error) = self.need_quorum() {
            answer.give(Err(error));
            return;
        }
        let inode = self.inodes.intern(shape.gfid);
        let is_fsync = matches!(fop, Fop::Fsync { .. });
        if is_fsync && let Some(error) = self.untold_error(&inode, shape.file, Telling::Fsync) {
            answer.give(Err(error));
            return;
        }
        // Where a brick counts the inodelks of our domain, others who wait for ours show.
        if let Some(xdata) = fop.xdata_mut() {
            xdata.set("glusterfs.inodelk-dom-count", Value::Str(self.domain()));
        }
        let range = shape.range.unwrap_or(Range { start: u64::MAX, end: u64::MAX });
        let permit = match self.enter(&inode, range, shape.file).await {
            Ok(permit) => permit,
            Err(error) => {
                answer.give(Err(error));
                return;
            }
        };
        if let Some(file) = &shape.file {
            self.reopen(file, permit.on).await;
        }
        let writes = self.writes_so_far(&inode);
        let replies = self.send_writes(&context, &fop, &permit, &mut answer).await;
        let mut outcome = self.judge_data(&inode, &fop, &permit, replies, writes, shape.file).await;
        // The session before, which had the writes, may have ended while this waited to enter.
        if is_fsync && let Some(error) = self.untold_error(&inode, shape.file, Telling::Fsync) {
            outcome = Err(error);
        }
        // The data is its giver's again with the answer: a front end waits for that.
        drop(fop);
        answer.give(outcome);
        self.leave(&inode, permit, shape.lingers).await;
    }

    async fn send_writes(&self, context: &Context, fop: &Fop, permit: &Permit, answer: &mut Answer) -> Vec<ChildReply> {
        if !self.is_sabotaged(Sabotage::AckAtOneCopy) {
            return self.send_all(permit.on, context, fop).await;
        }
        // The bug the simulator must catch: answered when the first copy has it.
        let mut replies = Vec::new();
        for child in permit.on.iter() {
            let mut one = self.send_all(Mask::only(child), context, fop).await;
            if let Some((_, Ok(reply))) = one.first() {
                answer.give(Ok(reply.clone()));
            }
            replies.append(&mut one);
        }
        replies
    }

    async fn judge_data(
        &self,
        inode: &Arc<Inode>,
        fop: &Fop,
        permit: &Permit,
        replies: Vec<ChildReply>,
        writes: u64,
        file: Option<File>,
    ) -> FopResult {
        let kept = self.kept(permit);
        let verdict = self.verdict(&replies, kept);
        if verdict.refused || self.contents_refused(&replies, permit.on) {
            return Err(self.weigh_errors(&replies));
        }
        let is_fsync = matches!(fop, Fop::Fsync { .. });
        let unstable = !is_fsync && !self.is_stable(fop);
        if let Err(error) = self.account(inode, permit, verdict.done, unstable, file).await {
            let given = self.weigh_errors(&replies);
            return Err(if replies.iter().any(|(_, reply)| reply.is_err()) { given } else { error });
        }
        if is_fsync {
            self.note_durable(inode, verdict.done, writes);
        }
        let firm = verdict.done & permit.good;
        if unstable && self.settings().ensure_durability && !self.has_quorum(firm | (verdict.done & permit.witnesses)) {
            // Too few of those that have it have everything: the good ones make it durable before it is acknowledged,
            // as none of the others could stand in for them after a power cut.
            let so_far = self.writes_so_far(inode);
            let synced = self.sync_children(inode, &self.root_context(inode.lock_owner), firm, file).await;
            self.note_durable(inode, synced, so_far);
            if synced.is_empty() {
                return Err(self.no_quorum());
            }
        }
        let contended = replies.iter().any(
            |(_, reply)| matches!(reply, Ok(reply) if reply.xdata().int("glusterfs.inodelk-count").unwrap_or(0) > 1),
        );
        if contended {
            self.suspect_contention(inode);
        }
        // The attributes of a stale copy are nobody's business: a good one speaks.
        let whole: Vec<ChildReply> = replies.into_iter().filter(|(child, _)| firm.has(*child)).collect();
        self.first_success(whole, inode.gfid)
    }

    /// Children of the permit that have not been lost since the session began.
    fn kept(&self, permit: &Permit) -> Mask {
        self.view().kept_since(&permit.began, permit.on)
    }

    /// Whether a brick that answered `fop` has it on disk.
    fn is_stable(&self, fop: &Fop) -> bool {
        const SYNC: u32 = (libc::O_SYNC | libc::O_DSYNC) as u32;
        match fop {
            Fop::Write { file, flags, .. } => {
                let opened = file.fd.and_then(|fd| self.open_file(fd)).map(|open| open.flags).unwrap_or(0);
                (flags | opened) & SYNC != 0
            }
            _ => false,
        }
    }

    fn shape_of(&self, fop: &Fop) -> FopResult<Shape> {
        let to_the_end = |start| Some(Range::new(start, 0));
        let (gfid, file, range, lingers) = match fop {
            Fop::Write { file, offset, data, .. } => {
                let flags = file.fd.and_then(|fd| self.open_file(fd)).map(|open| open.flags).unwrap_or(0);
                // With O_APPEND the brick, not the offset, decides where the data goes.
                let range = if flags & libc::O_APPEND as u32 != 0 {
                    to_the_end(0)
                } else {
                    Some(Range::new(*offset, (data.len() as u64).max(1)))
                };
                (file.gfid, Some(*file), range, true)
            }
            Fop::Truncate { gfid, size_bytes, .. } => (*gfid, None, to_the_end(*size_bytes), false),
            Fop::Ftruncate { file, size_bytes, .. } => (file.gfid, Some(*file), to_the_end(*size_bytes), false),
            Fop::Fallocate { file, offset, len, .. }
            | Fop::Discard { file, offset, len, .. }
            | Fop::Zerofill { file, offset, len, .. } => {
                (file.gfid, Some(*file), Some(Range::new(*offset, *len)), false)
            }
            Fop::CopyFileRange { to, to_offset, len, .. } => {
                (to.gfid, Some(*to), Some(Range::new(*to_offset, *len)), false)
            }
            Fop::Fsync { file, .. } => (file.gfid, Some(*file), None, true),
            _ => return Err(FopError::new(EINVAL, "not a change of contents")),
        };
        Ok(Shape { gfid, file, range, lingers })
    }
}
