//! Changes of directories: create, remove, link, rename.

use std::sync::Arc;

use bytes::Bytes;
use ladrillo_translator::error::errno::{EINVAL, EIO, ENOENT, EPERM};
use ladrillo_translator::fop::{Entry, File};
use ladrillo_translator::{Context, Dict, FdId, FileType, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Reply};

use super::lock::{Locked, Lockee, in_order, lock_error};
use super::not_empty;
use super::postop::{Names, PostOp, Target};
use crate::translators::replicate::{Answer, Changelog, ChildReply, Mask, Replicate, Segment, leaves_unknown};

/// What an entry operation touches.
struct Shape {
    /// Names that change.
    entries: Vec<Entry>,
    /// Directories to be locked as a whole: removed, or replaced by a rename.
    directories: Vec<Gfid>,
    /// The file it opens.
    opens: Option<(FdId, u32)>,
    /// Whether it makes a new inode, whose missing copies are to be accused on it.
    makes_inode: bool,
}

impl Replicate {
    /// Carries out a change of a directory; it runs to its end even if the caller goes away.
    pub(in crate::translators::replicate) fn entry_transaction<'a>(
        &'a self,
        context: &'a Context,
        fop: Fop,
    ) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this, mut answer| {
            Box::pin(async move {
                if let Err(error) = this.run_entry(&context, fop, &mut answer).await {
                    answer.give(Err(error));
                }
            })
        })
    }

    async fn run_entry(self: &Arc<Self>, context: &Context, fop: Fop, answer: &mut Answer) -> FopResult<()> {
        self.need_quorum()?;
        let shape = self.entry_shape(context, &fop).await?;
        let names =
            shape.entries.iter().map(|entry| Lockee::Name { gfid: entry.parent, name: Some(entry.name.clone()) });
        let wholes = shape.directories.iter().map(|gfid| Lockee::Name { gfid: *gfid, name: None });
        let lockees = in_order(names.chain(wholes).collect());
        let own = self.root_context(self.inodes.fresh_owner());
        let locked = self.lock_all(&own, &self.name, &lockees, self.up()).await;
        let mut opened = Mask::NONE;
        let outcome = if self.has_quorum(locked.on) {
            self.entry_locked(context, &own, &fop, &shape, &locked, (&mut opened, answer)).await
        } else {
            Err(lock_error(self, &locked))
        };
        if let (Some((fd, _)), Err(_)) = (shape.opens, &outcome) {
            // Its caller will not release what it was not given.
            self.files.lock().remove(&fd);
            self.release_on(context, fd, opened).await;
        }
        self.unlock_all(&own, &self.name, &lockees, locked.on & self.up()).await;
        if let (Err(_), Some((fd, _))) = (&outcome, shape.opens) {
            // A create that failed may have opened the file on some children.
            let gfid = fop.xdata().and_then(|xdata| xdata.gfid("gfid-req")).unwrap_or_default();
            let release = Fop::Release { file: File { gfid, fd: Some(fd) } };
            self.send(locked.on, context, |_| release.clone()).await;
        }
        outcome
    }

    async fn entry_locked(
        &self,
        context: &Context,
        own: &Context,
        fop: &Fop,
        shape: &Shape,
        locked: &Locked,
        (opened, answer): (&mut Mask, &mut Answer),
    ) -> FopResult<()> {
        let optimistic = locked.on == self.everyone();
        let mut on = locked.on;
        // Per directory, the copies that nobody accuses.
        let mut good: Vec<Mask> = Vec::new();
        if !optimistic {
            for (parent, name) in parents(shape) {
                let (marked, marks, replies) =
                    self.mark_dirty(own, on, Target::inode(parent), Segment::Entry, Some(&name)).await;
                on = marked;
                good.push(self.good_copies(&marks, Segment::Entry));
                if !self.has_quorum(on) {
                    // What was marked stays so: the healer finds nothing to do and clears it.
                    return Err(self.weigh_errors(&replies));
                }
            }
        }
        let dirtied = if optimistic { 0 } else { 1 };
        if good.iter().any(|good| good.is_empty()) {
            self.entry_post_op(own, shape, on, Mask::NONE, -dirtied, Names::Leave).await;
            return Err(FopError::new(EIO, format!("{}: no good copy of a directory is up", self.name)));
        }
        if good.iter().any(|good| !(on - *good).is_empty()) && !self.can_rename(own, fop, on, &good).await {
            self.entry_post_op(own, shape, on, Mask::NONE, -dirtied, Names::Leave).await;
            return Err(self.no_quorum());
        }
        let replies = self.send_all(on, context, fop).await;
        *opened = super::super::fops::successes(&replies);
        let mut verdict = self.verdict(&replies, self.view().kept_since(&locked.since, on));
        if matches!(fop, Fop::Unlink { .. } | Fop::Rmdir { .. }) && !verdict.done.is_empty() {
            // A copy that has no such name is as it would be after the removal.
            verdict.done |= without_name(&replies) & self.view().kept_since(&locked.since, on);
        }
        if verdict.refused {
            self.entry_post_op(own, shape, on, Mask::NONE, -dirtied, Names::Leave).await;
            return Err(self.weigh_errors(&replies));
        }
        if verdict.done != self.everyone() {
            self.distrust_parents(shape);
        }
        let differ = inodes(&replies, verdict.done).windows(2).any(|pair| pair[0].1 != pair[1].1);
        if optimistic && (verdict.done != self.everyone() || differ) && self.has_quorum(verdict.done) {
            for (parent, _) in parents(shape) {
                good.push(self.read_good_copies(own, verdict.done, Target::inode(parent), Segment::Entry).await);
            }
        }
        let all_good = good.iter().fold(self.everyone(), |all, good| all & *good);
        if differ {
            // A stale copy had another inode under the name: what it did to that is not the operation.
            let found = inodes(&replies, verdict.done);
            let truth = found.iter().find(|(child, _)| all_good.has(*child)).map(|(_, gfid)| *gfid);
            verdict.done = found.iter().filter(|(_, gfid)| Some(*gfid) == truth).map(|(child, _)| *child).collect();
        }
        let has_good = good.iter().all(|good| !(*good & verdict.done).is_empty());
        if !self.has_quorum(verdict.done) || !has_good {
            // Too few have it: say so on those that are there, for the healer; accuse nobody.
            let told = self.entry_post_op(own, shape, verdict.done, Mask::NONE, 1 - dirtied, Names::Keep).await;
            if optimistic && told.is_empty() {
                self.doubt_names(&shape.entries);
            }
            // Some have it, or may: ENOENT or EEXIST of a stale copy would tell the caller that nothing happened.
            let may_have = |reply: &FopResult| reply.as_ref().map_or_else(leaves_unknown, |_| true);
            return Err(match replies.iter().any(|(_, reply)| may_have(reply)) {
                true => self.no_quorum(),
                false => self.weigh_errors(&replies),
            });
        }
        let missed = (self.everyone() - verdict.done) - not_empty(&replies);
        if let Some((fd, flags)) = shape.opens
            && let Some(gfid) = new_gfid(&replies, verdict.done)
        {
            self.note_open(fd, gfid, flags, false, verdict.done);
            self.release_on(context, fd, *opened - verdict.done).await;
        }
        if !missed.is_empty() {
            let mut told = verdict.done;
            if shape.makes_inode
                && let Some(iatt) = new_iatt(&replies, verdict.done)
            {
                told = self.accuse_of_new_inode(own, &iatt, told, missed).await;
            }
            told = told & self.entry_post_op(own, shape, told, missed, -dirtied, Names::Keep).await;
            // Who asked before the accusation was written and hears the answer later must not believe it.
            self.distrust_parents(shape);
            if !self.has_quorum(told) {
                return Err(self.no_quorum());
            }
        }
        let done = verdict.done;
        let gfid = new_gfid(&replies, done).or(shape.entries.first().map(|entry| entry.parent)).unwrap_or_default();
        // A good copy speaks for all where there is one.
        let voices = if (done & all_good).is_empty() { done } else { done & all_good };
        let replies = replies.into_iter().filter(|(child, reply)| voices.has(*child) && reply.is_ok()).collect();
        answer.give(self.first_success(replies, gfid));
        Ok(())
    }

    /// Under the names' locks, where copies in `on` are stale: whether a quorum can carry out the rename `fop` (anything
    /// else: yes). Too few would fail it, and the good copy, alone with it, would have lost the inode that it replaces:
    /// maybe the only copy with all that was written to it. `good` has the good copies of both directories.
    async fn can_rename(&self, own: &Context, fop: &Fop, on: Mask, good: &[Mask]) -> bool {
        let Fop::Rename { from, to, .. } = fop else { return true };
        let (from, to) = futures::join!(self.inodes_at(own, from, on), self.inodes_at(own, to, on));
        let at = |seen: &[(usize, Option<Iatt>)], wanted: usize| -> Option<Iatt> {
            seen.iter().find(|(child, _)| *child == wanted).and_then(|(_, iatt)| iatt.clone())
        };
        let Some(truth) = good.first().and_then(|good| good.first()).and_then(|child| at(&from, child)) else {
            // The good copy refuses, for a reason that the caller is to hear.
            return true;
        };
        let is_able = |child: &usize| {
            let Some(moved) = at(&from, *child) else { return false };
            let replaced = at(&to, *child);
            let told = to.iter().any(|(other, _)| other == child);
            told && moved.gfid == truth.gfid && replaced.is_none_or(|iatt| iatt.is_dir() == truth.is_dir())
        };
        self.has_quorum(on.iter().filter(is_able).collect())
    }

    /// What each of `children` has at `entry`; who could not tell is left out.
    async fn inodes_at(&self, context: &Context, entry: &Entry, children: Mask) -> Vec<(usize, Option<Iatt>)> {
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() };
        let told = |(child, reply): ChildReply| match reply {
            Ok(Reply::Lookup { iatt, .. }) => Some((child, Some(*iatt))),
            Err(error) if error.errno == ENOENT => Some((child, None)),
            _ => None,
        };
        self.send(children, context, |_| fop.clone()).await.into_iter().filter_map(told).collect()
    }

    /// Closes `fd` where a create opened it in vain.
    async fn release_on(&self, context: &Context, fd: FdId, children: Mask) {
        let file = File { gfid: Gfid::NULL, fd: Some(fd) };
        self.send(children, context, |_| Fop::Release { file }).await;
    }

    fn distrust_parents(&self, shape: &Shape) {
        shape.entries.iter().for_each(|entry| self.distrust(entry.parent));
    }

    /// Marks after an entry operation, on each directory it changed. Answers who has all of them.
    async fn entry_post_op(
        &self,
        own: &Context,
        shape: &Shape,
        on: Mask,
        missed: Mask,
        dirty: i32,
        names: Names,
    ) -> Mask {
        let mut told = on;
        for (parent, name) in parents(shape) {
            let marks = PostOp { segment: Segment::Entry, missed, dirty, entry: Some(&name), names };
            told = told & self.post_op(own, told, Target::inode(parent), marks).await;
        }
        told
    }

    /// Says on a new inode which children have no copy of it. Answers who has noted it.
    async fn accuse_of_new_inode(&self, own: &Context, iatt: &Iatt, on: Mask, missed: Mask) -> Mask {
        if self.is_sabotaged(super::super::Sabotage::SkipPostOp) {
            return on;
        }
        let log = Changelog::of_new_inode(iatt.file_type(), self.settings().granular);
        let xattrs = self.settings().keys.xattrop(missed, log, None);
        let replies = self.xattrop(own, on, Target::inode(iatt.gfid), xattrs, Dict::new()).await;
        super::super::fops::successes(&replies)
    }

    async fn entry_shape(&self, context: &Context, fop: &Fop) -> FopResult<Shape> {
        let plain = |entries: Vec<Entry>| Shape { entries, directories: Vec::new(), opens: None, makes_inode: false };
        let need_gfid = |xdata: &Dict| match xdata.gfid("gfid-req") {
            Some(gfid) if !gfid.is_null() => Ok(()),
            _ => Err(FopError::new(EPERM, "a new inode needs a gfid-req")),
        };
        Ok(match fop {
            Fop::Create { entry, fd, flags, xdata, .. } => {
                need_gfid(xdata)?;
                Shape { opens: Some((*fd, *flags)), makes_inode: true, ..plain(vec![entry.clone()]) }
            }
            Fop::Mknod { entry, xdata, .. } | Fop::Mkdir { entry, xdata, .. } => {
                need_gfid(xdata)?;
                Shape { makes_inode: true, ..plain(vec![entry.clone()]) }
            }
            Fop::Symlink { entry, xdata, .. } => {
                need_gfid(xdata)?;
                Shape { makes_inode: true, ..plain(vec![entry.clone()]) }
            }
            Fop::Link { entry, .. } | Fop::Unlink { entry, .. } => plain(vec![entry.clone()]),
            Fop::Rmdir { entry, .. } => {
                let directory = self.directory_at(context, entry).await?;
                Shape { directories: directory.into_iter().collect(), ..plain(vec![entry.clone()]) }
            }
            Fop::Rename { from, to, .. } => {
                let directory = self.directory_at(context, to).await?;
                Shape { directories: directory.into_iter().collect(), ..plain(vec![from.clone(), to.clone()]) }
            }
            _ => return Err(FopError::new(EINVAL, "not a change of a directory")),
        })
    }

    /// The directory that `entry` names, if it names one: it is locked as a whole against entries that others make in
    /// it meanwhile.
    async fn directory_at(&self, context: &Context, entry: &Entry) -> FopResult<Option<Gfid>> {
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() };
        let up = self.need_quorum()?;
        let replies = self.send(up, context, |_| fop.clone()).await;
        Ok(replies.iter().find_map(|(_, reply)| match reply {
            Ok(Reply::Lookup { iatt, .. }) if iatt.file_type() == Some(FileType::Directory) => Some(iatt.gfid),
            _ => None,
        }))
    }
}

/// The directories an operation changes, each once, with the name that changes.
fn parents(shape: &Shape) -> Vec<(Gfid, Bytes)> {
    // Both names of a rename within one directory are to be indexed, so that one is marked twice, as AFR does.
    shape.entries.iter().map(|entry| (entry.parent, entry.name.clone())).collect()
}

/// The inodes that `done` say the operation was on.
fn inodes(replies: &[ChildReply], done: Mask) -> Vec<(usize, Gfid)> {
    let gfid_of = |(child, reply): &ChildReply| match reply {
        Ok(Reply::Entry { iatt, .. } | Reply::Rename { iatt, .. }) if done.has(*child) && !iatt.gfid.is_null() => {
            Some((*child, iatt.gfid))
        }
        _ => None,
    };
    replies.iter().filter_map(gfid_of).collect()
}

/// Children that refused with ENOENT.
fn without_name(replies: &[ChildReply]) -> Mask {
    let lacks = |reply: &ChildReply| matches!(reply, (_, Err(error)) if error.errno == ENOENT);
    replies.iter().filter(|reply| lacks(reply)).map(|(child, _)| *child).collect()
}

fn new_iatt(replies: &[ChildReply], done: Mask) -> Option<Iatt> {
    replies.iter().find_map(|(child, reply)| match reply {
        Ok(Reply::Entry { iatt, .. }) if done.has(*child) => Some((**iatt).clone()),
        _ => None,
    })
}

fn new_gfid(replies: &[ChildReply], done: Mask) -> Option<Gfid> {
    new_iatt(replies, done).map(|iatt| iatt.gfid).filter(|gfid| !gfid.is_null())
}
