//! Writing marks: before an operation ("under way here"), and after it ("that child missed it").

use bytes::Bytes;
use ladrillo_translator::fop::{File, XattropKind};
use ladrillo_translator::{Context, Dict, Fop, Gfid, Reply, Value};

use crate::translators::replicate::fops::successes;
use crate::translators::replicate::{Changelog, ChildReply, Marks, Mask, Replicate, Segment};

/// Key of an xattrop's xdata: the brick keeps `indices/entry-changes/<directory>/<name>` (granular entry heal).
const ENTRY_IN: &str = "glusterfs.xattrop-entry-create";

/// Where marks go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The inode.
    pub gfid: Gfid,
    /// Through an open file where there is one: it may have no name any more.
    pub file: Option<File>,
}

impl Target {
    /// By gfid.
    pub fn inode(gfid: Gfid) -> Target {
        Target { gfid, file: None }
    }
}

impl Replicate {
    /// Adds `xattrs` to the counters of `target` on `children`.
    pub(crate) async fn xattrop(
        &self,
        context: &Context,
        children: Mask,
        target: Target,
        xattrs: Dict,
        xdata: Dict,
    ) -> Vec<ChildReply> {
        self.send_all(children, context, &xattrop_fop(target, xattrs, xdata)).await
    }

    /// Says that an operation is under way.
    pub(super) fn dirty_fop(&self, target: Target, segment: Segment) -> Fop {
        let xattrs = self.settings().keys.xattrop(Mask::NONE, Changelog::default(), Some(Changelog::of(segment, 1)));
        xattrop_fop(target, xattrs, Dict::new())
    }

    /// What [`Replicate::post_op`] sends; `None` where that is nothing.
    pub(super) fn post_op_fop(&self, target: Target, marks: &PostOp<'_>) -> Option<Fop> {
        let mut missed = marks.missed;
        let mut dirty = marks.dirty;
        if self.is_sabotaged(super::super::Sabotage::SkipPostOp) {
            missed = Mask::NONE;
            dirty = dirty.min(0);
        }
        if missed.is_empty() && dirty == 0 {
            return None;
        }
        let xattrs = self.settings().keys.xattrop(
            missed,
            Changelog::of(marks.segment, 1),
            (dirty != 0).then(|| Changelog::of(marks.segment, dirty)),
        );
        let xdata = match marks.names {
            Names::Keep => self.entry_key(ENTRY_IN, marks.entry),
            Names::Leave => Dict::new(),
        };
        Some(xattrop_fop(target, xattrs, xdata))
    }

    /// Says on `children` that an operation is under way. Answers who has it, and what each had on disk.
    pub(crate) async fn mark_dirty(
        &self,
        context: &Context,
        children: Mask,
        target: Target,
        segment: Segment,
        entry: Option<&Bytes>,
    ) -> (Mask, Vec<(usize, Marks)>, Vec<ChildReply>) {
        let xattrs = self.settings().keys.xattrop(Mask::NONE, Changelog::default(), Some(Changelog::of(segment, 1)));
        let replies = self.xattrop(context, children, target, xattrs, self.entry_key(ENTRY_IN, entry)).await;
        let marks = self.marks_in(&replies);
        (successes(&replies), marks, replies)
    }

    /// Of `children`, the copies that none of them accuses in `segment`.
    pub(crate) async fn read_good_copies(
        &self,
        context: &Context,
        children: Mask,
        target: Target,
        segment: Segment,
    ) -> Mask {
        let nothing = self.settings().keys.xattrop(Mask::NONE, Changelog::default(), None);
        let replies = self.xattrop(context, children, target, nothing, Dict::new()).await;
        self.good_copies(&self.marks_in(&replies), segment)
    }

    /// Copies that told their marks and are accused by none of those that did, arbiters aside. An operation must reach one
    /// of them: they have all that was ever acknowledged, and whoever misses it is accused on a quorum.
    pub(crate) fn good_copies(&self, marks: &[(usize, Marks)], segment: Segment) -> Mask {
        unaccused(marks, segment) - self.arbiters()
    }

    pub(super) fn marks_in(&self, replies: &[ChildReply]) -> Vec<(usize, Marks)> {
        let parse = |reply: &ChildReply| match reply {
            (child, Ok(Reply::Xattrs { xattrs, .. })) => Some((*child, self.settings().keys.parse(xattrs))),
            _ => None,
        };
        replies.iter().filter_map(parse).collect()
    }

    /// Takes the dirty mark back, `times` over, and accuses `missed` of one operation. Answers who has it.
    pub(crate) async fn post_op(&self, context: &Context, on: Mask, target: Target, marks: PostOp<'_>) -> Mask {
        match self.post_op_fop(target, &marks) {
            Some(fop) => successes(&self.send_all(on, context, &fop).await),
            None => on,
        }
    }

    fn entry_key(&self, key: &'static str, entry: Option<&Bytes>) -> Dict {
        let mut xdata = Dict::new();
        if self.settings().granular
            && let Some(name) = entry
        {
            xdata.set(key, Value::Str(name.clone()));
        }
        xdata
    }
}

fn xattrop_fop(target: Target, xattrs: Dict, xdata: Dict) -> Fop {
    let kind = XattropKind::AddArray;
    match target.file {
        Some(file) if file.fd.is_some() => Fop::Fxattrop { file, kind, xattrs, xdata },
        _ => Fop::Xattrop { gfid: target.gfid, kind, xattrs, xdata },
    }
}

/// Copies that told their marks and are accused by none of those that did.
pub(crate) fn unaccused(marks: &[(usize, Marks)], segment: Segment) -> Mask {
    let told: Mask = marks.iter().map(|(child, _)| *child).collect();
    marks.iter().fold(told, |good, (_, marks)| good - marks.accused(segment))
}

/// What an entry's name index does with an operation's marks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// The name needs healing.
    Keep,
    /// As it is.
    Leave,
}

/// Marks after an operation.
pub(crate) struct PostOp<'a> {
    pub segment: Segment,
    /// Children to accuse.
    pub missed: Mask,
    /// What to add to the dirty counter.
    pub dirty: i32,
    /// The name of an entry operation.
    pub entry: Option<&'a Bytes>,
    pub names: Names,
}

impl PostOp<'_> {
    /// Of an operation on an inode.
    pub fn inode(segment: Segment, missed: Mask, dirty: i32) -> PostOp<'static> {
        PostOp { segment, missed, dirty, entry: None, names: Names::Leave }
    }
}
