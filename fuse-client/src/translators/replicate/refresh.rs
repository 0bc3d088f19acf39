//! Which copies of an inode may be read: asked of all children that are up, judged by their marks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ladrillo_translator::error::errno::{EIO, ENODATA, ENOENT, ENOSPC, ENOTCONN, ESTALE, ETIMEDOUT};
use ladrillo_translator::fop::File;
use ladrillo_translator::{Dict, Fop, FopError, FopResult, Iatt, Reply, Value};

use super::changelog::{Marks, Segment};
use super::children::View;
use super::inode::{Inode, Readable};
use super::mask::Mask;
use super::{ChildReply, Replicate};

/// What one child says of an inode.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub child: usize,
    pub iatt: Iatt,
    pub marks: Marks,
    /// Quarantined by the brick (bit rot).
    pub bad: bool,
    /// Inodelks held on it, where the brick told.
    pub inodelks: i64,
}

impl Copy {
    /// What can be read from a Lookup's or Fstat's answer.
    pub fn of(replicate: &Replicate, child: usize, iatt: &Iatt, xdata: &Dict) -> Copy {
        Copy {
            child,
            iatt: iatt.clone(),
            marks: replicate.settings().keys.parse(xdata),
            bad: xdata.contains("glusterfs.bad-inode"),
            inodelks: xdata.int("glusterfs.inodelk-count").unwrap_or(0),
        }
    }
}

impl Replicate {
    /// What every look at an inode asks for.
    pub(crate) fn request_marks(&self, xdata: &mut Dict) {
        self.settings().keys.request(xdata);
        xdata.set("glusterfs.inodelk-dom-count", Value::Str(self.domain()));
        xdata.set("link-count", Value::Str("glusterfs.xattrop_index_count".into()));
    }

    /// Notes from the answers whether any brick's index has entries.
    pub(super) fn note_backlog(&self, replies: &[ChildReply]) {
        let mut any = replies.len() < self.children.len();
        for (_, reply) in replies {
            let xdata = match reply {
                Ok(reply) => Some(reply.xdata()),
                Err(error) => error.xdata.as_deref(),
            };
            any |= xdata.and_then(|xdata| xdata.int("link-count")) != Some(0);
        }
        self.backlog.store(any, Ordering::Relaxed);
    }

    /// Judges copies: a copy that another (or itself) accuses is not to be read, nor is one the brick calls bad. Of
    /// files nobody writes to, a copy smaller than the biggest unaccused one has missed something as well: a crash can
    /// leave that behind before any mark is written.
    pub(super) fn judge(&self, inode: &Inode, copies: &[Copy], view: &View) -> Readable {
        let kind = copies.iter().find_map(|copy| copy.iatt.file_type());
        let contents = Segment::of_contents(kind);
        let mut good: Mask = copies.iter().filter(|copy| !copy.bad).map(|copy| copy.child).collect();
        if contents == Segment::Data {
            // An arbiter's copy says nothing of the contents, nor of the size. Its directories count: they have the names.
            good -= self.arbiters();
        }
        let mut data = good;
        let mut metadata = good;
        for copy in copies.iter().filter(|copy| !copy.bad) {
            data -= copy.marks.accused(contents);
            metadata -= copy.marks.accused(Segment::Metadata);
        }
        let quiet = copies.iter().all(|copy| copy.inodelks == 0) && inode.session.lock().is_idle();
        if contents == Segment::Data && quiet {
            let sizes = || copies.iter().filter(|copy| data.has(copy.child));
            let biggest = sizes().map(|copy| copy.iatt.size_bytes).max().unwrap_or(0);
            let small: Mask = sizes().filter(|copy| copy.iatt.size_bytes < biggest).map(|copy| copy.child).collect();
            data -= small;
        }
        Readable { data, metadata, generation: view.generation, kind }
    }

    /// Learns anew which copies of `inode` may be read, through `file` where it is open (it may have no name any more).
    ///
    /// # Errors
    /// Fewer than a quorum answered; ENOENT or ESTALE where it is gone.
    pub(super) async fn refresh(&self, inode: &Inode, file: Option<&File>) -> FopResult<Readable> {
        let view = self.view();
        let moment = self.inodes.moment();
        let mut xdata = Dict::new();
        self.request_marks(&mut xdata);
        let context = self.root_context(inode.lock_owner);
        let fop = match file {
            Some(file) if file.fd.is_some() => {
                self.reopen(file, view.up).await;
                Fop::Fstat { file: *file, xdata }
            }
            _ => Fop::Lookup { gfid: inode.gfid, entry: None, xdata },
        };
        let replies = self.send_all(view.up, &context, &fop).await;
        let copies: Vec<Copy> = replies
            .iter()
            .filter_map(|(child, reply)| match reply {
                Ok(Reply::Lookup { iatt, xdata, .. } | Reply::Iatt { iatt, xdata }) => {
                    Some(Copy::of(self, *child, iatt, xdata))
                }
                _ => None,
            })
            .collect();
        let answered: Mask = copies.iter().map(|copy| copy.child).collect();
        if !self.has_quorum(answered) {
            return Err(self.weigh_errors(&replies));
        }
        let readable = self.judge(inode, &copies, &view);
        inode.learn(readable, moment);
        Ok(readable)
    }

    /// The readable copies of an inode, learnt if need be.
    pub(super) async fn readable(&self, inode: &Arc<Inode>, file: Option<&File>) -> FopResult<Readable> {
        let known = inode.readable();
        let view = self.view();
        if known.generation == view.generation && known.generation != 0 && !(known.both() & view.up).is_empty() {
            return Ok(known);
        }
        self.refresh(inode, file).await
    }

    /// The error to answer when none of `replies` is good enough: ENODATA, ENOENT, ESTALE, ENOSPC before others, as
    /// GlusterFS ranks them; "quorum is not met" where there is none.
    pub(super) fn weigh_errors(&self, replies: &[ChildReply]) -> FopError {
        let rank = |errno: i32| match errno {
            ENODATA => 5,
            ENOENT => 4,
            ESTALE => 3,
            ENOSPC => 2,
            ENOTCONN | ETIMEDOUT => 0,
            _ => 1,
        };
        let errors = replies.iter().filter_map(|(_, reply)| reply.as_ref().err());
        match errors.max_by_key(|error| rank(error.errno)) {
            Some(error) => error.clone(),
            None => self.no_quorum(),
        }
    }

    /// EIO: every copy is accused by another.
    pub(super) fn split_brain(&self, inode: &Inode) -> FopError {
        FopError::new(EIO, format!("{}: {} is in split-brain", self.name, inode.gfid))
    }
}
