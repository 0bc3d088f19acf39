//! The bricks' lists of what is to be healed (`.glusterfs/indices`), read through virtual directories.

use bytes::Bytes;
use ladrillo_translator::error::errno::{EIO, ENODATA, ENOENT, EOPNOTSUPP, ESTALE};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopError, Gfid, Reply};

use super::healer::{HealResult, Healer};
use crate::translators::replicate::Mask;

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    /// Inodes whose copy here accuses another.
    Pending,
    /// Inodes on which something was under way.
    Dirty,
    /// Directories of which names are listed that others miss.
    EntryChanges,
}

impl Index {
    fn key(self) -> &'static [u8] {
        match self {
            Index::Pending => b"glusterfs.xattrop_index_gfid",
            Index::Dirty => b"glusterfs.xattrop_dirty_gfid",
            Index::EntryChanges => b"glusterfs.xattrop_entry_changes_gfid",
        }
    }
}

impl Healer {
    /// The virtual directory of `index` on `child`; `None` where the brick keeps none.
    pub(crate) async fn index_directory(
        &self,
        context: &Context,
        child: usize,
        index: Index,
    ) -> HealResult<Option<Gfid>> {
        let fop = Fop::Getxattr { gfid: Gfid::ROOT, name: Bytes::from_static(index.key()), xdata: Dict::new() };
        match self.replicate.send(Mask::only(child), context, |_| fop.clone()).await.into_iter().next() {
            Some((_, Ok(Reply::Xattrs { xattrs, .. }))) => Ok(xattrs.gfid(index.key()).filter(|gfid| !gfid.is_null())),
            Some((_, Err(error))) if matches!(error.errno, ENODATA | EOPNOTSUPP | ENOENT | ESTALE) => Ok(None),
            Some((_, Err(error))) => Err(error.into()),
            _ => Err(FopError::new(EIO, "a brick's answer to a getxattr is of another kind").into()),
        }
    }

    /// A part of a list, from `offset` on: inodes, and where to go on. Names that are no gfids are skipped.
    pub(crate) async fn read_index(
        &self,
        context: &Context,
        child: usize,
        directory: Gfid,
        offset: u64,
    ) -> HealResult<(Vec<Gfid>, Option<u64>)> {
        let names = self.list(context, child, directory, offset).await?;
        let next = names.last().map(|(_, offset)| *offset).filter(|next| *next != offset);
        let gfids = names.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok()?.parse::<Gfid>().ok()).collect();
        Ok((gfids, next))
    }

    /// Whether `child` has `gfid`.
    pub(crate) async fn exists_on(&self, context: &Context, child: usize, gfid: Gfid) -> HealResult<bool> {
        let fop = Fop::Lookup { gfid, entry: None, xdata: Dict::new() };
        match self.replicate.send(Mask::only(child), context, |_| fop.clone()).await.into_iter().next() {
            Some((_, Ok(_))) => Ok(true),
            Some((_, Err(error))) if error.errno == ENOENT || error.errno == ESTALE => Ok(false),
            Some((_, Err(error))) => Err(error.into()),
            None => Ok(false),
        }
    }

    /// Takes `gfid` out of a list: its inode is gone from that brick.
    pub(crate) async fn purge(&self, context: &Context, child: usize, directory: Gfid, gfid: Gfid, index: Index) {
        let entry = Entry { parent: directory, name: Bytes::from(gfid.to_string()) };
        let fop = if index == Index::EntryChanges {
            Fop::Rmdir { entry, flags: 1, xdata: Dict::new() }
        } else {
            Fop::Unlink { entry, flags: 0, xdata: Dict::new() }
        };
        for (_, reply) in self.replicate.send(Mask::only(child), context, |_| fop.clone()).await {
            if let Err(error) = reply
                && error.errno != ENOENT
            {
                tracing::debug!(child, %gfid, %error, "a stale index entry was not removed");
            }
        }
    }

    /// An index lists an inode without marks: adding nothing to its counters lets the brick see that it is clean.
    pub(crate) async fn touch_marks(&self, context: &Context, gfid: Gfid) {
        let keys = &self.replicate.settings().keys;
        let xattrs = keys.xattrop(
            Mask::NONE,
            crate::translators::replicate::Changelog::default(),
            Some(crate::translators::replicate::Changelog::default()),
        );
        let target = crate::translators::replicate::Target::inode(gfid);
        self.replicate.xattrop(context, self.replicate.up(), target, xattrs, Dict::new()).await;
    }
}
