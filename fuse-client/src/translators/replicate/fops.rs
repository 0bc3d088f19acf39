//! What is neither a plain read nor a change: open, release, flush, fsyncdir, statfs, ipc.

use std::time::Duration;

use ladrillo_translator::error::errno::{EIO, EPERM};
use ladrillo_translator::fop::Statfs;
use ladrillo_translator::{Context, Dict, Fop, FopResult, Reply, Step};

use super::fd::Telling;
use super::mask::Mask;
use super::{ChildReply, Replicate};

/// How long a flush waits where too many sessions are ending; bricks that are gone have been noticed by then (ping-timeout).
const FLUSH_PATIENCE: Duration = Duration::from_secs(60);

impl Replicate {
    /// Opens on all children that are up; those that are not get it when they are back. O_TRUNC becomes a transaction
    /// of its own, after the open.
    pub(super) async fn open(&self, context: &Context, fop: Fop) -> FopResult {
        let up = self.need_quorum()?;
        let (gfid, fd, flags, is_dir, fop) = match fop {
            Fop::Open { gfid, flags, fd, xdata } => {
                let kept = flags & !(libc::O_TRUNC as u32);
                (gfid, fd, flags, false, Fop::Open { gfid, flags: kept, fd, xdata })
            }
            Fop::Opendir { gfid, fd, xdata } => (gfid, fd, 0, true, Fop::Opendir { gfid, fd, xdata }),
            _ => return Err(super::strange_reply("an open")),
        };
        if !is_dir {
            let inode = self.inodes.intern(gfid);
            let readable = self.readable(&inode, None).await?;
            if readable.both().is_empty() && self.choice(gfid).is_none() {
                return Err(self.split_brain(&inode));
            }
        }
        let replies = self.send(up, context, |_| fop.clone()).await;
        let on = successes(&replies);
        if !self.has_quorum(on) {
            let error = self.weigh_errors(&replies);
            self.send(self.everyone(), context, |_| {
                let file = ladrillo_translator::fop::File { gfid, fd: Some(fd) };
                if is_dir { Fop::Releasedir { file } } else { Fop::Release { file } }
            })
            .await;
            return Err(error);
        }
        self.note_open(fd, gfid, flags, is_dir, on);
        if flags & libc::O_TRUNC as u32 != 0 && !is_dir {
            let file = ladrillo_translator::fop::File { gfid, fd: Some(fd) };
            let truncate = Fop::Ftruncate { file, size_bytes: 0, xdata: Dict::new() };
            if let Err(error) = self.data_transaction(context, truncate).await {
                self.release(context, Fop::Release { file }).await?;
                return Err(error);
            }
        }
        self.first_success(replies, gfid)
    }

    /// Ends the post-op that waits under the file's lock, then forgets the file. Answers at once.
    pub(super) async fn release(&self, context: &Context, fop: Fop) -> FopResult {
        let file = match &fop {
            Fop::Release { file } | Fop::Releasedir { file } => *file,
            _ => return Err(super::strange_reply("a release")),
        };
        let Some(fd) = file.fd else { return Ok(Reply::done()) };
        let (Some(this), Some(open)) = (self.this.upgrade(), self.open_file(fd)) else { return Ok(Reply::done()) };
        let context = context.clone();
        let guard = self.work.begin();
        self.runtime.spawn(Box::pin(async move {
            let _guard = guard;
            if let Some(inode) = &open.inode {
                this.ended_soon(inode).await;
            }
            this.files.lock().remove(&fd);
            this.forget_locks(&context, &file, true).await;
            // Also to children that are away: they must not open it again when they are back.
            for child in open.on().iter() {
                this.send_later(child, Step::new(&context, fop.clone()));
            }
        }));
        Ok(Reply::done())
    }

    /// Reports what writes could not keep since the last flush or fsync, as far as it is known, and has the file's lock and
    /// mark given up soon. It waits for no disk: who must know that what was written is durable asks with fsync.
    pub(super) async fn flush(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Flush { file, .. } = &fop else { return Err(super::strange_reply("a flush")) };
        let (file, gfid) = (*file, file.gfid);
        // The file is closed, whatever the bricks say: its locks are not to be kept, nor taken again when they are back.
        self.forget_locks(context, &file, false).await;
        let up = self.up();
        let replies = match self.inodes.may_have_locks(&gfid) {
            true => {
                self.reopen(&file, up).await;
                Some(self.send_all(up, context, &fop).await)
            }
            // A brick has nothing to do for it but to release them.
            false => None,
        };
        if !self.has_quorum(up) {
            return Err(self.no_quorum());
        }
        let inode = self.inodes.get(&gfid);
        if let (Some(this), Some(inode)) = (self.this.upgrade(), &inode)
            && inode.session.lock().has_writes()
            && !this.end_soon(inode)
        {
            // Too many are ending. It runs to its end even if the caller goes away.
            let (inode, (sender, ended)) = (inode.clone(), futures::channel::oneshot::channel::<()>());
            self.runtime.spawn(Box::pin(async move {
                this.end_session(&inode).await;
                drop(sender);
            }));
            let patience = self.runtime.sleep(FLUSH_PATIENCE);
            // Ended, or out of patience: who asks next hears of an error that comes later.
            futures::future::select(ended, patience).await;
        }
        if let Some(error) = inode.and_then(|inode| self.untold_error(&inode, Some(file), Telling::Flush)) {
            return Err(error);
        }
        match replies {
            Some(replies) => self.quorum_success(replies, gfid),
            None => Ok(Reply::done()),
        }
    }

    pub(super) async fn fsyncdir(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Fsyncdir { file, .. } = &fop else { return Err(super::strange_reply("an fsyncdir")) };
        let (file, gfid) = (*file, file.gfid);
        let up = self.need_quorum()?;
        self.reopen(&file, up).await;
        let replies = self.send_all(up, context, &fop).await;
        self.quorum_success(replies, gfid)
    }

    /// The smallest child's: a file that fits there fits everywhere.
    pub(super) async fn statfs(&self, context: &Context, fop: Fop) -> FopResult {
        // An arbiter has room for names, not for files.
        let up = self.need_quorum()? - self.arbiters();
        if up.is_empty() {
            return Err(self.no_quorum());
        }
        let replies = self.send(up, context, |_| fop.clone()).await;
        let free_bytes = |statfs: &Statfs| {
            let unit =
                if statfs.fragment_size_bytes == 0 { statfs.block_size_bytes } else { statfs.fragment_size_bytes };
            u128::from(statfs.blocks_available) * u128::from(unit)
        };
        let smallest = replies
            .iter()
            .filter_map(|(_, reply)| match reply {
                Ok(Reply::Statfs { statfs, xdata }) => Some((statfs, xdata)),
                _ => None,
            })
            .min_by_key(|(statfs, _)| free_bytes(statfs));
        match smallest {
            Some((statfs, xdata)) => Ok(Reply::Statfs { statfs: *statfs, xdata: xdata.clone() }),
            None => Err(self.weigh_errors(&replies)),
        }
    }

    pub(super) async fn ipc(&self, context: &Context, fop: Fop) -> FopResult {
        let replies = self.send(self.need_quorum()?, context, |_| fop.clone()).await;
        self.quorum_success(replies, ladrillo_translator::Gfid::ROOT)
    }

    /// The answer where a quorum succeeded.
    pub(super) fn quorum_success(&self, replies: Vec<ChildReply>, gfid: ladrillo_translator::Gfid) -> FopResult {
        if self.has_quorum(successes(&replies)) {
            self.first_success(replies, gfid)
        } else {
            Err(self.weigh_errors(&replies))
        }
    }

    /// The answer of the child reads go to, or else of the first that succeeded.
    pub(super) fn first_success(&self, replies: Vec<ChildReply>, gfid: ladrillo_translator::Gfid) -> FopResult {
        let preferred = self.pick_reader(gfid, successes(&replies));
        let speaks = |child: usize, reply: &Reply| match preferred {
            Some(preferred) => child == preferred,
            // An arbiter alone: it may tell what has nothing to do with contents.
            None => matches!(reply, Reply::Done { .. } | Reply::Lk { .. }),
        };
        replies
            .into_iter()
            .find_map(|(child, reply)| reply.ok().filter(|reply| speaks(child, reply)))
            .ok_or_else(|| ladrillo_translator::FopError::new(EIO, "no child succeeded"))
    }

    /// # Errors
    /// EPERM: callers must not write AFR's marks.
    pub(super) fn refuse_own_marks(&self, context: &Context, xattrs: &Dict) -> FopResult<()> {
        let own = xattrs.iter().any(|(key, _)| super::Keys::is_own(key));
        if own && !context.is_internal() {
            return Err(ladrillo_translator::FopError::new(EPERM, "trusted.afr.* is replication's own"));
        }
        Ok(())
    }

    /// # Errors
    /// EPERM: callers must not remove AFR's marks.
    pub(super) fn refuse_own_name(&self, context: &Context, name: &[u8]) -> FopResult<()> {
        if super::Keys::is_own(name) && !context.is_internal() {
            return Err(ladrillo_translator::FopError::new(EPERM, "trusted.afr.* is replication's own"));
        }
        Ok(())
    }
}

/// Children whose answer is a success.
pub(crate) fn successes(replies: &[ChildReply]) -> Mask {
    replies.iter().filter(|(_, reply)| reply.is_ok()).map(|(child, _)| *child).collect()
}
