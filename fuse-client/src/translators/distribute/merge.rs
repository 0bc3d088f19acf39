//! One answer out of several: attributes of a directory's copies.

use ladrillo_translator::iatt::S_IFMT;
use ladrillo_translator::{Dict, FopResult, Iatt, Reply};

/// Size of every directory, in bytes, and its 512-byte blocks. Source: GlusterFS (DHT_DIR_STAT_SIZE, _BLOCKS): the
/// copies' own would change with every brick added.
const DIRECTORY_BYTES: u64 = 4096;
const DIRECTORY_BLOCKS: u64 = 8;

/// What a subvolume's lookup found.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub subvolume: usize,
    pub iatt: Iatt,
    pub parent: Iatt,
    pub xdata: Dict,
}

impl Seen {
    /// From a Lookup's answer.
    pub fn of(subvolume: usize, reply: FopResult) -> FopResult<Seen> {
        match reply? {
            Reply::Lookup { iatt, parent, xdata } => Ok(Seen { subvolume, iatt: *iatt, parent: *parent, xdata }),
            _ => Err(super::strange_reply("a lookup")),
        }
    }
}

/// A directory's size as all see it; other inodes are left alone.
pub(super) fn fix_directory(iatt: &mut Iatt) {
    if iatt.is_dir() {
        iatt.size_bytes = DIRECTORY_BYTES;
        iatt.blocks = DIRECTORY_BLOCKS;
    }
}

/// Attributes of a directory: those of `authority`, with the latest times of all copies.
pub(super) fn merge_directory<'a>(authority: &Iatt, copies: impl IntoIterator<Item = &'a Iatt>) -> Iatt {
    let mut merged = authority.clone();
    for copy in copies {
        merged.atime = merged.atime.max(copy.atime);
        merged.mtime = merged.mtime.max(copy.mtime);
        merged.ctime = merged.ctime.max(copy.ctime);
        merged.nlink = merged.nlink.max(copy.nlink);
    }
    fix_directory(&mut merged);
    merged
}

/// Rebalance marks files it moves with S and T: not for applications' eyes.
pub(super) fn hide_migration(iatt: &mut Iatt) {
    if iatt.is_regular() && iatt.mode & 0o3000 == 0o3000 {
        iatt.mode &= !0o3000;
    }
}

/// Whether owner, group or permissions differ.
pub(super) fn attributes_differ(a: &Iatt, b: &Iatt) -> bool {
    (a.uid, a.gid, a.mode & !S_IFMT) != (b.uid, b.gid, b.mode & !S_IFMT)
}

/// Brings an answer's attributes in the form for those above.
pub(super) fn dress(reply: &mut Reply) {
    reply.for_each_iatt(|iatt| {
        hide_migration(iatt);
        fix_directory(iatt);
    });
}

#[cfg(test)]
mod tests {
    use ladrillo_translator::Timespec;

    use super::*;

    #[test]
    fn times_are_the_latest_and_the_size_is_one() {
        let at = |seconds| Timespec { seconds, nanos: 0 };
        let one = Iatt { mode: 0o40755, uid: 1, mtime: at(5), size_bytes: 10, nlink: 2, ..Iatt::default() };
        let two = Iatt { mode: 0o40700, uid: 2, mtime: at(9), size_bytes: 99, nlink: 3, ..Iatt::default() };
        let merged = merge_directory(&one, [&one, &two]);
        assert_eq!((merged.mode, merged.uid, merged.mtime, merged.nlink), (0o40755, 1, at(9), 3));
        assert_eq!((merged.size_bytes, merged.blocks), (4096, 8));
        assert!(attributes_differ(&one, &two) && !attributes_differ(&one, &one));
    }

    #[test]
    fn marks_of_a_migration_are_hidden() {
        let mut iatt = Iatt { mode: 0o103644, ..Iatt::default() };
        hide_migration(&mut iatt);
        assert_eq!(iatt.mode, 0o100644);
        let mut sticky = Iatt { mode: 0o101644, ..Iatt::default() };
        hide_migration(&mut sticky);
        assert_eq!(sticky.mode, 0o101644);
    }
}
