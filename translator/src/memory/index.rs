//! features/index: which inodes have marks that ask for healing, readable as virtual directories.
//!
//! Facts from GlusterFS 10.3: getxattr of `glusterfs.xattrop_index_gfid` (pending), `glusterfs.xattrop_dirty_gfid` and
//! `glusterfs.xattrop_entry_changes_gfid` on the root tells the virtual directory's gfid; its entries are named by the
//! marked inodes' gfids; those of entry-changes are directories whose entries are the changed names. An entry outlives
//! its inode until a healer unlinks it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::Gfid;
use crate::fop::Name;

/// Keys and names of the index (GlusterFS 10.3, glusterfs.h).
pub mod key {
    /// getxattr: gfid of the virtual directory of pending inodes.
    pub const PENDING_GFID: &str = "glusterfs.xattrop_index_gfid";
    /// getxattr: gfid of that of dirty inodes.
    pub const DIRTY_GFID: &str = "glusterfs.xattrop_dirty_gfid";
    /// getxattr: gfid of that of directories with changed names.
    pub const ENTRY_CHANGES_GFID: &str = "glusterfs.xattrop_entry_changes_gfid";
    /// getxattr: number of pending inodes.
    pub const PENDING_COUNT: &str = "glusterfs.xattrop_index_count";
    /// getxattr: number of dirty inodes.
    pub const DIRTY_COUNT: &str = "glusterfs.xattrop_dirty_count";
    /// XATTROP's xdata: note this name of the directory as changed.
    pub const ENTRY_IN: &str = "glusterfs.xattrop-entry-create";
    /// XATTROP's xdata: forget it.
    pub const ENTRY_OUT: &str = "glusterfs.xattrop-entry-delete";
    /// XATTROP's xdata: forget all changed names when nothing is pending any more.
    pub const PURGE: &str = "glusterfs.xattrop-purge-index";
}

/// The mark that says "someone is writing".
pub(super) const DIRTY: &[u8] = b"trusted.afr.dirty";
/// Marks that blame a copy, and [`DIRTY`].
pub(super) const MARKS: &[u8] = b"trusted.afr.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directory {
    Pending,
    Dirty,
    EntryChanges,
    /// Changed names of one directory.
    NamesOf(Gfid),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub pending: BTreeSet<Gfid>,
    pub dirty: BTreeSet<Gfid>,
    pub entry_changes: BTreeMap<Gfid, BTreeSet<Name>>,
}

/// What a file in a virtual directory is called.
pub(super) const FILE: Gfid = Gfid(*b"index file gfid.");
const PENDING: Gfid = Gfid(*b"index of pending");
const DIRTY_DIRECTORY: Gfid = Gfid(*b"index of unclean");
const ENTRY_CHANGES: Gfid = Gfid(*b"index of entries");

impl Index {
    /// The gfid that a virtual xattr tells.
    pub fn gfid_of(name: &[u8]) -> Option<Gfid> {
        match std::str::from_utf8(name).ok()? {
            key::PENDING_GFID => Some(PENDING),
            key::DIRTY_GFID => Some(DIRTY_DIRECTORY),
            key::ENTRY_CHANGES_GFID => Some(ENTRY_CHANGES),
            _ => None,
        }
    }

    /// Which virtual directory a gfid is.
    pub fn directory(&self, gfid: Gfid) -> Option<Directory> {
        match gfid {
            PENDING => Some(Directory::Pending),
            DIRTY_DIRECTORY => Some(Directory::Dirty),
            ENTRY_CHANGES => Some(Directory::EntryChanges),
            _ => Some(mix(gfid)).filter(|parent| self.entry_changes.contains_key(parent)).map(Directory::NamesOf),
        }
    }

    /// The gfid of what `name` is in a virtual directory.
    pub fn lookup(&self, directory: Directory, name: &Name) -> Option<Gfid> {
        if !self.names(directory).contains(name) {
            return None;
        }
        match directory {
            Directory::EntryChanges => parse(name).map(mix),
            _ => Some(FILE),
        }
    }

    /// The names in a virtual directory.
    pub fn names(&self, directory: Directory) -> BTreeSet<Name> {
        let named = |gfid: &Gfid| Bytes::from(gfid.to_string());
        match directory {
            Directory::Pending => self.pending.iter().map(named).collect(),
            Directory::Dirty => self.dirty.iter().map(named).collect(),
            Directory::EntryChanges => self.entry_changes.keys().map(named).collect(),
            Directory::NamesOf(parent) => self.entry_changes.get(&parent).cloned().unwrap_or_default(),
        }
    }

    /// Takes a name out of a virtual directory; one that is not there is no error, as on bricks.
    pub fn remove(&mut self, directory: Directory, name: &Name) {
        match (directory, parse(name)) {
            (Directory::Pending, Some(gfid)) => {
                self.pending.remove(&gfid);
            }
            (Directory::Dirty, Some(gfid)) => {
                self.dirty.remove(&gfid);
            }
            (Directory::EntryChanges, Some(gfid)) => {
                self.entry_changes.remove(&gfid);
            }
            (Directory::NamesOf(parent), _) => {
                if let Some(names) = self.entry_changes.get_mut(&parent) {
                    names.remove(name);
                }
            }
            _ => {}
        }
    }

    /// Follows the marks of an inode.
    pub fn update(&mut self, gfid: Gfid, xattrs: &BTreeMap<Bytes, Bytes>) {
        let marked = |wanted_dirty: bool| {
            xattrs.iter().any(|(key, value)| {
                key.starts_with(MARKS) && (key.as_ref() == DIRTY) == wanted_dirty && value.iter().any(|byte| *byte != 0)
            })
        };
        for (set, is_in) in [(&mut self.pending, marked(false)), (&mut self.dirty, marked(true))] {
            if is_in {
                set.insert(gfid);
            } else {
                set.remove(&gfid);
            }
        }
    }
}

fn parse(name: &Name) -> Option<Gfid> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// The gfid of the virtual directory of a directory's changed names, and back.
fn mix(gfid: Gfid) -> Gfid {
    let mut mixed = gfid.0;
    mixed.iter_mut().zip(ENTRY_CHANGES.0).for_each(|(byte, other)| *byte ^= other);
    Gfid(mixed)
}
