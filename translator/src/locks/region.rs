//! What inodelk and entrylk lock.

use super::queue::Region;
use crate::fop::{Flock, LockType, Name};

/// The last byte of an unbounded range (LLONG_MAX, as GlusterFS keeps it).
pub(super) const END_OF_FILE: u64 = i64::MAX as u64;

/// Bytes of an inode, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub start: u64,
    pub end: u64,
    pub exclusive: bool,
}

impl Range {
    /// From what the wire carries; `None` for a range that no file can have.
    pub fn from_flock(flock: &Flock) -> Option<Range> {
        if flock.start > END_OF_FILE || flock.len > END_OF_FILE {
            return None;
        }
        let end = match flock.len {
            0 => END_OF_FILE,
            len => (flock.start + (len - 1)).min(END_OF_FILE),
        };
        Some(Range { start: flock.start, end, exclusive: flock.kind == LockType::Write })
    }

    pub fn overlaps(&self, other: &Range) -> bool {
        self.end >= other.start && other.end >= self.start
    }

    /// Its length as the wire has it: 0 = to the end.
    pub fn wire_len(&self) -> u64 {
        if self.end >= END_OF_FILE { 0 } else { self.end - self.start + 1 }
    }
}

impl Region for Range {
    fn conflicts(&self, other: &Range) -> bool {
        self.overlaps(other) && (self.exclusive || other.exclusive)
    }

    fn releases(&self, held: &Range) -> bool {
        self.start == held.start && self.end == held.end
    }
}

/// A name in a directory, or all names. Reading and writing locks exclude each other alike: GlusterFS never asks for
/// shared entry locks, and its bricks do not share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryName {
    pub name: Option<Name>,
    pub kind: LockType,
}

impl Region for EntryName {
    fn conflicts(&self, other: &EntryName) -> bool {
        match (&self.name, &other.name) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        }
    }

    fn releases(&self, held: &EntryName) -> bool {
        self == held
    }
}
