//! Changes of directories: create, remove, link, rename.

use std::sync::Arc;

use bytes::Bytes;
use ladrillo_translator::error::errno::{EINVAL, EIO, ENOENT, EPERM};
use ladrillo_translator::fop::{Entry, File};
use ladrillo_translator::iatt::Mdata;
use ladrillo_translator::{
    Context, Dict, FdId, FileType, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Reply, Step, Value,
};

use super::lock::{Locked, Lockee, in_order, lock_error};
use super::not_empty;
use super::postop::{Names, PostOp, Target};
use crate::translators::replicate::children::View;
use crate::translators::replicate::fops::successes;
use crate::translators::replicate::inode::Readable;
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

/// What became of an attempt with one message to each child.
enum AtOnce {
    /// It was the operation.
    Ended(FopResult<()>),
    /// Nothing is left of it but the times it gave to the directory on some children.
    Undone(Option<Mdata>),
}

impl Shape {
    /// Names that change, without more.
    fn plain(entries: Vec<Entry>) -> Shape {
        Shape { entries, directories: Vec::new(), opens: None, makes_inode: false }
    }

    /// What is to be locked, in order.
    fn lockees(&self) -> Vec<Lockee> {
        let of_name = |entry: &Entry| Lockee::Name { gfid: entry.parent, name: Some(entry.name.clone()) };
        let wholes = self.directories.iter().map(|gfid| Lockee::Name { gfid: *gfid, name: None });
        in_order(self.entries.iter().map(of_name).chain(wholes).collect())
    }
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
        let own = self.root_context(self.inodes.fresh_owner());
        let (shape, locked) = match self.lock_rename(context, &own, &fop).await {
            Some((shape, locked)) => (shape, Some(locked)),
            None => (self.entry_shape(context, &fop).await?, None),
        };
        let lockees = shape.lockees();
        let mut moved = None;
        if shape.makes_inode && self.all_take_steps() {
            match self.make_at_once(context, &own, &fop, &shape, &lockees, answer).await {
                AtOnce::Ended(outcome) => return outcome,
                AtOnce::Undone(times) => moved = times,
            }
        }
        let locked = match locked {
            Some(locked) => locked,
            None => self.lock_all(&own, &self.name, &lockees, self.up()).await,
        };
        let mut opened = Mask::NONE;
        let outcome = if self.has_quorum(locked.on) {
            self.entry_locked(context, &own, &fop, &shape, &locked, (&mut opened, answer)).await
        } else {
            Err(lock_error(self, &locked))
        };
        if let Some(times) = moved {
            self.even_times(context, &own, &shape, times).await;
        }
        self.end_entry(context, &own, &fop, &shape, &lockees, (locked.on, opened), &outcome).await;
        outcome
    }

    /// Makes an inode with one message to each child, which locks the name and makes it: that is what the transaction does
    /// where nobody else has the lock, in fewer messages. Where somebody has it on some child, what was made on others is
    /// undone, and the transaction is to be run.
    async fn make_at_once(
        self: &Arc<Self>,
        context: &Context,
        own: &Context,
        fop: &Fop,
        shape: &Shape,
        lockees: &[Lockee],
        answer: &mut Answer,
    ) -> AtOnce {
        let [name] = lockees else { return AtOnce::Undone(None) };
        let make = |_| Ok(vec![Step::then(context, fop.clone())]);
        let moment = self.inodes.moment();
        let Some(joined) = self.lock_and(own, name, self.everyone(), make).await else { return AtOnce::Undone(None) };
        self.unlock_unknown(own, &self.name, lockees, &joined.outcome()).await;
        let held = joined.locked();
        let replies = joined.replies(0);
        if joined.is_contended() {
            self.unmake(context, own, fop, shape, lockees, held, &replies).await;
            return AtOnce::Undone(moved_times(context, &replies));
        }
        // Who refused the lock for another reason, or was lost, has refused the whole.
        let locked = Locked { on: self.everyone(), since: joined.since, error: None };
        let opened = successes(&replies);
        self.learn_new_inode(fop, &replies, &joined.since, moment);
        let outcome = self.entry_done(context, own, fop, shape, &locked, (Vec::new(), 0), replies, answer).await;
        self.end_entry(context, own, fop, shape, lockees, (held, opened), &outcome).await;
        AtOnce::Ended(outcome)
    }

    /// Gives all copies of the directory the times that it has where something was made in vain: where the transaction did
    /// nothing, the others do not have them.
    async fn even_times(&self, context: &Context, own: &Context, shape: &Shape, times: Mdata) {
        let Some(gfid) = shape.entries.first().map(|entry| entry.parent) else { return };
        let xattrs = Dict::new().with("trusted.glusterfs.mdata", Value::Mdata(times));
        let fop = Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() };
        let own = Context { birth: context.birth, ..own.clone() };
        let told = successes(&self.send_all(self.up(), &own, &fop).await);
        if told != self.everyone() {
            // For the healer, as after any change of attributes that some have not.
            let target = Target::inode(gfid);
            self.post_op(&own, told, target, PostOp::inode(Segment::Metadata, Mask::NONE, 1)).await;
        }
    }

    /// A new inode that all have made has copies that nobody accuses.
    fn learn_new_inode(&self, fop: &Fop, replies: &[ChildReply], since: &View, moment: u64) {
        let Some(gfid) = fop.xdata().and_then(|xdata| xdata.gfid("gfid-req")) else { return };
        let made = inodes(replies, successes(replies));
        let all = self.everyone();
        if since.up != all || made.len() != all.count() || made.iter().any(|(_, made)| *made != gfid) {
            return;
        }
        let kind = new_iatt(replies, all).and_then(|iatt| iatt.file_type());
        let good = if kind == Some(FileType::Directory) { all } else { all - self.arbiters() };
        let readable = Readable { data: good, metadata: good, generation: since.generation, kind };
        self.inodes.intern(gfid).learn(readable, moment);
    }

    /// Takes back, under the lock on `held`, what was made there; a name that has another inode than ours is not ours. Lets
    /// go of the lock.
    #[allow(clippy::too_many_arguments)]
    async fn unmake(
        &self,
        context: &Context,
        own: &Context,
        fop: &Fop,
        shape: &Shape,
        lockees: &[Lockee],
        held: Mask,
        replies: &[ChildReply],
    ) {
        let gfid = fop.xdata().and_then(|xdata| xdata.gfid("gfid-req"));
        let made: Mask = replies
            .iter()
            .filter(|(_, reply)| matches!(reply, Ok(Reply::Entry { iatt, .. }) if Some(iatt.gfid) == gfid))
            .map(|(child, _)| *child)
            .collect();
        let unknown = replies.iter().any(|(_, reply)| matches!(reply, Err(error) if leaves_unknown(error)));
        let Some(entry) = shape.entries.first().cloned() else { return };
        let xdata = Dict::new();
        let remove = match fop {
            Fop::Mkdir { .. } => Fop::Rmdir { entry, flags: 0, xdata },
            _ => Fop::Unlink { entry, flags: 0, xdata },
        };
        // Of the same moment: the directory's times stay those that the others get when it is made there.
        let undo = Context { birth: context.birth, ..own.clone() };
        let removed = self.steps_to_all(made & held, None, |_| vec![Step::new(&undo, remove.clone())]).await;
        if let Some((fd, _)) = shape.opens {
            self.release_on(context, fd, successes(replies)).await;
        }
        let failed = |results: &Vec<FopResult>| {
            results.iter().any(|result| matches!(result, Err(error) if error.errno != ENOENT))
        };
        if unknown || removed.iter().any(|(_, results)| failed(results)) {
            self.doubt_names(&shape.entries);
        }
        self.unlock_all(own, &self.name, lockees, held & self.up()).await;
    }

    /// Closes what was opened in vain, and lets go of the names on `held`: of success with the next message.
    #[allow(clippy::too_many_arguments)]
    async fn end_entry(
        &self,
        context: &Context,
        own: &Context,
        fop: &Fop,
        shape: &Shape,
        lockees: &[Lockee],
        (held, opened): (Mask, Mask),
        outcome: &FopResult<()>,
    ) {
        if outcome.is_ok() {
            self.unlock_later(own, &self.name, lockees, held & self.up());
            return;
        }
        if let Some((fd, _)) = shape.opens {
            // Its caller will not release what it was not given.
            self.files.lock().remove(&fd);
            self.release_on(context, fd, opened).await;
        }
        self.unlock_all(own, &self.name, lockees, held & self.up()).await;
        if let Some((fd, _)) = shape.opens {
            // A create that failed may have opened the file on some children.
            let gfid = fop.xdata().and_then(|xdata| xdata.gfid("gfid-req")).unwrap_or_default();
            let release = Fop::Release { file: File { gfid, fd: Some(fd) } };
            self.send(held, context, |_| release.clone()).await;
        }
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
        *opened = successes(&replies);
        let locked = Locked { on, since: locked.since, error: None };
        self.entry_done(context, own, fop, shape, &locked, (good, dirtied), replies, answer).await
    }

    /// Judges what the children in `locked` answered to the operation, and says on those that have it who does not. `good`:
    /// per directory, the copies that nobody accuses, where they were asked; `dirtied`: how often they were marked.
    #[allow(clippy::too_many_arguments)]
    async fn entry_done(
        &self,
        context: &Context,
        own: &Context,
        fop: &Fop,
        shape: &Shape,
        locked: &Locked,
        (mut good, dirtied): (Vec<Mask>, i32),
        replies: Vec<ChildReply>,
        answer: &mut Answer,
    ) -> FopResult<()> {
        let on = locked.on;
        let optimistic = dirtied == 0;
        let opened = successes(&replies);
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
            self.release_on(context, fd, opened - verdict.done).await;
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
        successes(&replies)
    }

    async fn entry_shape(&self, context: &Context, fop: &Fop) -> FopResult<Shape> {
        let plain = Shape::plain;
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

    /// The locks of a rename that replaces no directory, taken with the message that asks what it replaces. `None`: it
    /// replaces one, which is to be locked as well, or somebody has a lock; nothing is held.
    async fn lock_rename(&self, context: &Context, own: &Context, fop: &Fop) -> Option<(Shape, Locked)> {
        let Fop::Rename { from, to, .. } = fop else { return None };
        let all = self.everyone();
        if !self.all_take_steps() {
            return None;
        }
        let shape = Shape::plain(vec![from.clone(), to.clone()]);
        let lockees = shape.lockees();
        let look = Fop::Lookup { gfid: Gfid::NULL, entry: Some(to.clone()), xdata: Dict::new() };
        let since = self.view();
        let tried = self.try_and(own, &lockees, all, &[Step::new(context, look)]).await;
        let mut outcome = Vec::new();
        let mut is_plain = true;
        for (child, mut results) in tried {
            let seen = results.pop();
            is_plain &= match seen {
                Some(Ok(Reply::Lookup { iatt, .. })) => iatt.file_type() != Some(FileType::Directory),
                Some(Err(error)) => error.errno == ENOENT,
                _ => false,
            };
            outcome.extend(results.into_iter().enumerate().map(|(lockee, result)| (lockee, child, result.err())));
        }
        if is_plain && outcome.iter().all(|(_, _, error)| error.is_none()) {
            return Some((shape, Locked { on: all, since, error: None }));
        }
        self.let_go(own, &lockees, &outcome).await;
        None
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

/// The times that making something in vain gave to the directory it was made in; `None`: it moved none.
fn moved_times(context: &Context, replies: &[ChildReply]) -> Option<Mdata> {
    let touched = |(_, reply): &ChildReply| match reply {
        Ok(Reply::Entry { parent, .. }) => Some(&parent.post).filter(|post| post.ctime == context.birth).cloned(),
        _ => None,
    };
    let post = replies.iter().find_map(touched)?;
    Some(Mdata { atime: post.atime, mtime: post.mtime, ctime: post.ctime })
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
