//! Locks of those above: applications' POSIX locks, and locks of translators and of other heal services.
//!
//! Taken child after child in volfile order, so that two clients that want the same lock meet on the first child and one
//! of them gets it; released on all at once. A lock that too few children grant is given back.

use std::sync::Arc;

use ladrillo_translator::error::errno::{EAGAIN, EINVAL, ENOTCONN};
use ladrillo_translator::fop::{EntrylkCmd, File, LockCmd, LockType};
use ladrillo_translator::{Context, Fop, FopError, FopFuture, FopResult};

use super::mask::Mask;
use super::{Answer, ChildReply, Replicate};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Ask,
    Lock,
    Unlock,
}

impl Replicate {
    pub(super) fn lock<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this, answer| Box::pin(async move { this.run_lock(context, fop, answer).await }))
    }

    async fn run_lock(self: Arc<Self>, context: Context, fop: Fop, mut answer: Answer) {
        let outcome = self.try_run_lock(&context, &fop, &answer).await;
        let granted = outcome.as_ref().ok().map(|(on, _)| *on);
        let delivered = answer.give(outcome.map(|(_, reply)| reply));
        // Whoever asked is gone: a lock nobody knows of must not stay.
        if !delivered
            && wish_of(&fop) == Some(Wish::Lock)
            && let (Some(on), Some(unlock)) = (granted, unlock_of(&fop))
        {
            self.send_all(on, &context, &unlock).await;
        }
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
            if let Some(error) = error
                && error.errno != ENOTCONN
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
