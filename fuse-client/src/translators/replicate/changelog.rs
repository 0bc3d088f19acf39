//! The marks AFR leaves on files: who missed what (`trusted.afr.<child>`) and what is under way (`trusted.afr.dirty`).
//!
//! Format (source: GlusterFS 10.3, afr.h): three big-endian 32-bit counters, for data, metadata and entries. A brick's
//! copy that has a non-zero `trusted.afr.<child>` accuses that child's copy of having missed operations.

use bytes::Bytes;
use ladrillo_translator::{Dict, FileType, Value};

use super::mask::Mask;

/// Which of the three counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Contents of a regular file. On a directory: "needs a full crawl" (granular entry heal's marker).
    Data = 0,
    /// Attributes and xattrs.
    Metadata = 1,
    /// Names in a directory.
    Entry = 2,
}

impl Segment {
    /// Contents: the data of a file, the entries of a directory.
    pub fn of_contents(kind: Option<FileType>) -> Segment {
        if kind == Some(FileType::Directory) { Segment::Entry } else { Segment::Data }
    }
}

/// The three counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changelog(pub [i32; 3]);

impl Changelog {
    /// `count` in one counter.
    pub fn of(segment: Segment, count: i32) -> Changelog {
        let mut log = Changelog::default();
        log.0[segment as usize] = count;
        log
    }

    /// What a copy that never existed has missed of a new inode (source: AFR's new-entry marking).
    pub fn of_new_inode(kind: Option<FileType>, granular: bool) -> Changelog {
        let mut log = Changelog::of(Segment::Metadata, 1);
        match kind {
            Some(FileType::Regular) => log.0[Segment::Data as usize] = 1,
            Some(FileType::Directory) => {
                log.0[Segment::Entry as usize] = 1;
                log.0[Segment::Data as usize] = i32::from(granular);
            }
            _ => {}
        }
        log
    }

    /// One counter.
    pub fn get(&self, segment: Segment) -> i32 {
        self.0[segment as usize]
    }

    /// From an xattr's value; what is missing counts as zero, as GlusterFS reads short values.
    pub fn from_bytes(raw: &[u8]) -> Changelog {
        let mut log = Changelog::default();
        for (slot, chunk) in log.0.iter_mut().zip(raw.chunks_exact(4)) {
            *slot = i32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        log
    }

    /// As an xattr's value.
    pub fn to_bytes(self) -> Bytes {
        Bytes::from(self.0.iter().flat_map(|count| count.to_be_bytes()).collect::<Vec<u8>>())
    }
}

/// Names of the marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Per child.
    pub pending: Vec<Bytes>,
    /// Under way.
    pub dirty: Bytes,
}

/// The marks of one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Whom it accuses of what, per child.
    pub pending: Vec<Changelog>,
    /// What was under way.
    pub dirty: Changelog,
}

impl Keys {
    /// Asks for all marks (the value is their size, as stock clients send).
    pub fn request(&self, xdata: &mut Dict) {
        for key in self.pending.iter().chain([&self.dirty]) {
            xdata.set(key.clone(), Value::Uint(12));
        }
    }

    /// The marks in a reply; absent ones are zero.
    pub fn parse(&self, xdata: &Dict) -> Marks {
        let read = |key: &Bytes| xdata.bytes(key).map(|raw| Changelog::from_bytes(raw)).unwrap_or_default();
        Marks { pending: self.pending.iter().map(read).collect(), dirty: read(&self.dirty) }
    }

    /// Whether `name` is one of AFR's own xattrs.
    pub fn is_own(name: &[u8]) -> bool {
        name.starts_with(b"trusted.afr.")
    }

    /// What an xattrop adds: `log` for each child of `accused` (zero for the others, so that the reply tells the values
    /// on disk), and `dirty`.
    pub fn xattrop(&self, accused: Mask, log: Changelog, dirty: Option<Changelog>) -> Dict {
        let mut xattrs = Dict::new();
        for (child, key) in self.pending.iter().enumerate() {
            let value = if accused.has(child) { log } else { Changelog::default() };
            xattrs.set(key.clone(), Value::Ptr(value.to_bytes()));
        }
        if let Some(dirty) = dirty {
            xattrs.set(self.dirty.clone(), Value::Ptr(dirty.to_bytes()));
        }
        xattrs
    }
}

impl Marks {
    /// Whom it accuses in `segment`.
    pub fn accused(&self, segment: Segment) -> Mask {
        self.pending.iter().enumerate().filter(|(_, log)| log.get(segment) != 0).map(|(child, _)| child).collect()
    }

    /// Whether anything is marked in `segment`, dirty included.
    pub fn any(&self, segment: Segment) -> bool {
        self.dirty.get(segment) != 0 || !self.accused(segment).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_big_endian_and_short_values_are_padded() {
        let log = Changelog([1, 2, -3]);
        assert_eq!(&log.to_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 2, 255, 255, 255, 253]);
        assert_eq!(Changelog::from_bytes(&log.to_bytes()), log);
        assert_eq!(Changelog::from_bytes(&[0, 0, 0, 7, 1]), Changelog([7, 0, 0]));
    }

    #[test]
    fn a_new_directory_missed_everything() {
        assert_eq!(Changelog::of_new_inode(Some(FileType::Directory), true), Changelog([1, 1, 1]));
        assert_eq!(Changelog::of_new_inode(Some(FileType::Directory), false), Changelog([0, 1, 1]));
        assert_eq!(Changelog::of_new_inode(Some(FileType::Regular), true), Changelog([1, 1, 0]));
        assert_eq!(Changelog::of_new_inode(Some(FileType::Fifo), true), Changelog([0, 1, 0]));
    }
}
