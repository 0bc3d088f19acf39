//! The operations both file systems are asked for, and their answers.

use std::collections::BTreeMap;

use proptest::prelude::*;

/// Open files at once.
pub const SLOTS: usize = 4;

/// One operation. `mount` is the number of the mount it is done on; paths are below the directory of the run.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are those of the system calls of the same names")]
pub enum Op {
    Mkdir {
        mount: usize,
        path: String,
        mode: u32,
    },
    Create {
        mount: usize,
        path: String,
        mode: u32,
        exclusive: bool,
    },
    Mkfifo {
        mount: usize,
        path: String,
        mode: u32,
    },
    Symlink {
        mount: usize,
        path: String,
        target: String,
    },
    Link {
        mount: usize,
        from: String,
        to: String,
    },
    Unlink {
        mount: usize,
        path: String,
    },
    Rmdir {
        mount: usize,
        path: String,
    },
    Rename {
        mount: usize,
        from: String,
        to: String,
    },
    Readdir {
        mount: usize,
        path: String,
    },
    Readlink {
        mount: usize,
        path: String,
    },
    Stat {
        mount: usize,
        path: String,
    },
    Chmod {
        mount: usize,
        path: String,
        mode: u32,
    },
    Chown {
        mount: usize,
        path: String,
        uid: u32,
        gid: u32,
    },
    Utimens {
        mount: usize,
        path: String,
        seconds: i64,
    },
    Truncate {
        mount: usize,
        path: String,
        size: u64,
    },
    Setxattr {
        mount: usize,
        path: String,
        name: String,
        value: Vec<u8>,
        how: XattrHow,
    },
    Removexattr {
        mount: usize,
        path: String,
        name: String,
    },
    Xattrs {
        mount: usize,
        path: String,
    },
    /// Opens, writes everything, closes.
    Write {
        mount: usize,
        path: String,
        offset: u64,
        len: usize,
        seed: u8,
    },
    /// The same with O_APPEND.
    Append {
        mount: usize,
        path: String,
        len: usize,
        seed: u8,
    },
    /// Opens, reads everything, closes.
    Read {
        mount: usize,
        path: String,
    },
    /// Into a slot, whose former file is closed.
    Open {
        mount: usize,
        path: String,
        slot: usize,
        append: bool,
        truncate: bool,
    },
    Close {
        slot: usize,
    },
    SlotWrite {
        slot: usize,
        offset: u64,
        len: usize,
        seed: u8,
    },
    SlotRead {
        slot: usize,
        offset: u64,
        len: usize,
    },
    SlotTruncate {
        slot: usize,
        size: u64,
    },
    SlotFallocate {
        slot: usize,
        how: FallocateHow,
        offset: u64,
        len: u64,
    },
    SlotSync {
        slot: usize,
        data_only: bool,
    },
    SlotStat {
        slot: usize,
    },
    SlotSeek {
        slot: usize,
        offset: u64,
        hole: bool,
    },
    SlotCopy {
        from: usize,
        from_offset: u64,
        to: usize,
        to_offset: u64,
        len: usize,
    },
}

/// setxattr(2)'s flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum XattrHow {
    Any,
    Create,
    Replace,
}

/// fallocate(2)'s modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FallocateHow {
    Extend,
    KeepSize,
    PunchHole,
    ZeroRange,
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Answer {
    Done,
    Data(Vec<u8>),
    Count(usize),
    Names(Vec<String>),
    Target(String),
    Xattrs(BTreeMap<String, Vec<u8>>),
    Stat(Stat),
    /// Of a seek, or `None` for ENXIO: checked against the contents, since a file system may keep holes or not.
    Seek(Option<u64>),
}

/// What stat(2) says, as far as it is not the file system's own choice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stat {
    pub kind: &'static str,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of directories 0: what they count there differs.
    pub nlink: u64,
    /// Of directories 0.
    pub size: u64,
    /// Where it was set and not changed since.
    pub mtime_s: Option<i64>,
}

/// The answer, or the errno.
pub type Outcome = Result<Answer, i32>;

/// The bytes a write with `seed` writes: every byte depends on its place.
pub fn pattern(seed: u8, offset: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (((offset + i) * 31 + (offset + i) / 251) as u8).wrapping_add(seed) | 1).collect()
}

fn path() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d"]);
    prop_oneof![
        4 => name().prop_map(str::to_owned),
        4 => (name(), name()).prop_map(|(a, b)| format!("{a}/{b}")),
        1 => (name(), name(), name()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}")),
    ]
}

/// Offsets at, beside and between page and block boundaries.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        0..200u64,
        (0..40u64, 0..3u64).prop_map(|(page, beside)| (page * 4096 + beside).saturating_sub(1)),
        0..150_000u64,
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1..200usize, Just(4096), 1..10_000usize, 1..140_000usize]
}

/// Any operation, on one of `mounts` mounts.
pub fn arbitrary_op(mounts: usize) -> impl Strategy<Value = Op> {
    let on = move || 0..mounts;
    let mode = || prop::sample::select(vec![0o644u32, 0o600, 0o755, 0o700, 0o1777, 0o444, 0]);
    let slot = || 0..SLOTS;
    let how = || prop::sample::select(vec![XattrHow::Any, XattrHow::Create, XattrHow::Replace]);
    let alloc = || {
        use FallocateHow::{Extend, KeepSize, PunchHole, ZeroRange};
        prop::sample::select(vec![Extend, KeepSize, PunchHole, ZeroRange])
    };
    let xattr = || prop::sample::select(vec!["user.a".to_owned(), "user.b".to_owned()]);
    let value = || prop_oneof![prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 200..300)];
    let names = prop_oneof![
        6 => (on(), path(), mode()).prop_map(|(mount, path, mode)| Op::Mkdir { mount, path, mode: mode | 0o700 }),
        6 => (on(), path(), mode(), any::<bool>())
            .prop_map(|(mount, path, mode, exclusive)| Op::Create { mount, path, mode, exclusive }),
        1 => (on(), path(), mode()).prop_map(|(mount, path, mode)| Op::Mkfifo { mount, path, mode }),
        2 => (on(), path(), "x[a-z]{0,30}").prop_map(|(mount, path, target)| Op::Symlink { mount, path, target }),
        4 => (on(), path(), path()).prop_map(|(mount, from, to)| Op::Link { mount, from, to }),
        4 => (on(), path()).prop_map(|(mount, path)| Op::Unlink { mount, path }),
        3 => (on(), path()).prop_map(|(mount, path)| Op::Rmdir { mount, path }),
        8 => (on(), path(), path()).prop_map(|(mount, from, to)| Op::Rename { mount, from, to }),
    ];
    let attributes = prop_oneof![
        4 => (on(), path()).prop_map(|(mount, path)| Op::Readdir { mount, path }),
        1 => (on(), path()).prop_map(|(mount, path)| Op::Readlink { mount, path }),
        4 => (on(), path()).prop_map(|(mount, path)| Op::Stat { mount, path }),
        2 => (on(), path(), mode()).prop_map(|(mount, path, mode)| Op::Chmod { mount, path, mode }),
        1 => (on(), path(), 0..3u32, 0..3u32).prop_map(|(mount, path, uid, gid)| Op::Chown { mount, path, uid, gid }),
        2 => (on(), path(), 0..4_000_000_000i64).prop_map(|(mount, path, seconds)| Op::Utimens { mount, path, seconds }),
        3 => (on(), path(), xattr(), value(), how())
            .prop_map(|(mount, path, name, value, how)| Op::Setxattr { mount, path, name, value, how }),
        2 => (on(), path(), xattr()).prop_map(|(mount, path, name)| Op::Removexattr { mount, path, name }),
        2 => (on(), path()).prop_map(|(mount, path)| Op::Xattrs { mount, path }),
    ];
    let contents = prop_oneof![
        2 => (on(), path(), offset()).prop_map(|(mount, path, size)| Op::Truncate { mount, path, size }),
        4 => (on(), path(), offset(), length(), any::<u8>())
            .prop_map(|(mount, path, offset, len, seed)| Op::Write { mount, path, offset, len, seed }),
        4 => (on(), path(), length(), any::<u8>())
            .prop_map(|(mount, path, len, seed)| Op::Append { mount, path, len, seed }),
        4 => (on(), path()).prop_map(|(mount, path)| Op::Read { mount, path }),
        6 => (on(), path(), slot(), prop::bool::weighted(0.3), prop::bool::weighted(0.1))
            .prop_map(|(mount, path, slot, append, truncate)| Op::Open { mount, path, slot, append, truncate }),
        1 => slot().prop_map(|slot| Op::Close { slot }),
        6 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, offset, len, seed)| Op::SlotWrite { slot, offset, len, seed }),
        6 => (slot(), offset(), length()).prop_map(|(slot, offset, len)| Op::SlotRead { slot, offset, len }),
        2 => (slot(), offset()).prop_map(|(slot, size)| Op::SlotTruncate { slot, size }),
        3 => (slot(), alloc(), offset(), length())
            .prop_map(|(slot, how, offset, len)| Op::SlotFallocate { slot, how, offset, len: len as u64 }),
        1 => (slot(), any::<bool>()).prop_map(|(slot, data_only)| Op::SlotSync { slot, data_only }),
        3 => slot().prop_map(|slot| Op::SlotStat { slot }),
        3 => (slot(), offset(), any::<bool>()).prop_map(|(slot, offset, hole)| Op::SlotSeek { slot, offset, hole }),
        2 => (slot(), offset(), slot(), offset(), length())
            .prop_map(|(from, from_offset, to, to_offset, len)| Op::SlotCopy { from, from_offset, to, to_offset, len }),
    ];
    prop_oneof![4 => names, 3 => attributes, 5 => contents]
}

/// Any operation on the contents of one open file, whose slots `0..SLOTS` are open; none closes a slot.
pub fn arbitrary_contents_op() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    use FallocateHow::{Extend, KeepSize, PunchHole, ZeroRange};
    prop_oneof![
        8 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, offset, len, seed)| Op::SlotWrite { slot, offset, len, seed }),
        8 => (slot(), offset(), length()).prop_map(|(slot, offset, len)| Op::SlotRead { slot, offset, len }),
        3 => (slot(), offset()).prop_map(|(slot, size)| Op::SlotTruncate { slot, size }),
        2 => (slot(), prop::sample::select(vec![Extend, KeepSize, PunchHole, ZeroRange]), offset(), length())
            .prop_map(|(slot, how, offset, len)| Op::SlotFallocate { slot, how, offset, len: len as u64 }),
        1 => (slot(), any::<bool>()).prop_map(|(slot, data_only)| Op::SlotSync { slot, data_only }),
        3 => slot().prop_map(|slot| Op::SlotStat { slot }),
        2 => (slot(), offset(), any::<bool>()).prop_map(|(slot, offset, hole)| Op::SlotSeek { slot, offset, hole }),
        1 => (slot(), offset(), slot(), offset(), length())
            .prop_map(|(from, from_offset, to, to_offset, len)| Op::SlotCopy { from, from_offset, to, to_offset, len }),
    ]
}

/// A run of at most `most` operations.
pub fn arbitrary_ops(mounts: usize, most: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(arbitrary_op(mounts), 1..most)
}
