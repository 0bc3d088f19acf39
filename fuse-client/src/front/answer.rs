//! Answers as the kernel wants them: an out header, and parts that are written together.

use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::fop::{Flock, LockType, Statfs};
use ladrillo_translator::{FopError, Iatt};

use super::abi::{self, OUT_HEADER_BYTES, lock};
use super::inode::GENERATION;

/// `st_blksize` of every inode. Source: GlusterFS's page size, 128 KiB.
const BLOCK_SIZE_BYTES: u32 = 128 << 10;

/// What is undone when the kernel does not take the answer (the caller was killed): a lookup, an open file.
pub type Undo = Box<dyn FnOnce()>;

/// What a request is answered.
pub enum Answer {
    /// Nothing at all (FORGET, INTERRUPT).
    Silent,
    /// An errno.
    Error(i32),
    /// A body, in parts; the data of a read is a part of its own.
    Body {
        /// The parts, without the header.
        parts: Vec<Bytes>,
        /// See [`Undo`].
        undo: Option<Undo>,
    },
}

/// How the kernel learns of inodes, and how long it may keep it.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// Attributes.
    pub attributes: Duration,
    /// Names.
    pub entry: Duration,
    /// The absence of names.
    pub negative: Duration,
    /// Inode numbers of 32 bits (`--enable-ino32`).
    pub ino32: bool,
}

impl Default for Validity {
    /// GlusterFS's: 1 s, 1 s, 0.
    fn default() -> Validity {
        let second = Duration::from_secs(1);
        Validity { attributes: second, entry: second, negative: Duration::ZERO, ino32: false }
    }
}

impl Validity {
    /// An inode number as applications see it. Source of the shorter form: GF_FUSE_SQUASH_INO of GlusterFS.
    pub fn ino(&self, ino: u64) -> u64 {
        if self.ino32 { (ino & 0xffff_ffff) ^ (ino >> 32) } else { ino }
    }
}

impl Answer {
    /// Success without a value.
    pub fn ok() -> Answer {
        Answer::Body { parts: Vec::new(), undo: None }
    }

    /// One part.
    pub fn bytes(body: impl Into<Bytes>) -> Answer {
        Answer::Body { parts: vec![body.into()], undo: None }
    }

    /// Size of its body in bytes.
    pub fn len(&self) -> usize {
        match self {
            Answer::Body { parts, .. } => parts.iter().map(Bytes::len).sum(),
            Answer::Silent | Answer::Error(_) => 0,
        }
    }

    /// Whether it has no body.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message to write: header first. `None` when there is no answer.
    pub fn into_message(self, unique: u64) -> Option<(Vec<Bytes>, Option<Undo>)> {
        let (error, parts, undo) = match self {
            Answer::Silent => return None,
            Answer::Error(errno) => (-errno.clamp(1, 511), Vec::new(), None),
            Answer::Body { parts, undo } => (0, parts, undo),
        };
        let body: usize = parts.iter().map(Bytes::len).sum();
        let mut header = Encoder::with_capacity(OUT_HEADER_BYTES);
        header.u32((OUT_HEADER_BYTES + body) as u32).u32(error as u32).u64(unique);
        let mut message = Vec::with_capacity(1 + parts.len());
        message.push(header.finish());
        message.extend(parts.into_iter().filter(|part| !part.is_empty()));
        Some((message, undo))
    }
}

impl From<FopError> for Answer {
    fn from(error: FopError) -> Answer {
        Answer::Error(error.errno)
    }
}

/// Writes fields in host byte order.
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Encoder {
        Encoder(Vec::with_capacity(bytes))
    }

    /// A 32-bit field.
    pub fn u32(&mut self, value: u32) -> &mut Encoder {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// A 64-bit field.
    pub fn u64(&mut self, value: u64) -> &mut Encoder {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// What was written.
    pub fn finish(self) -> Bytes {
        self.0.into()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// `struct fuse_attr`, 88 bytes.
    fn attr(&mut self, iatt: &Iatt, validity: &Validity) -> &mut Encoder {
        self.u64(validity.ino(iatt.gfid.ino())).u64(iatt.size_bytes).u64(iatt.blocks);
        for time in [iatt.atime, iatt.mtime, iatt.ctime] {
            self.u64(time.seconds as u64);
        }
        for time in [iatt.atime, iatt.mtime, iatt.ctime] {
            self.u32(time.nanos.min(999_999_999));
        }
        // The kernel's 32-bit device numbers are the lower half of Linux's 64-bit ones.
        self.u32(iatt.mode).u32(iatt.nlink).u32(iatt.uid).u32(iatt.gid).u32(iatt.rdev as u32);
        self.u32(BLOCK_SIZE_BYTES).u32(0)
    }

    /// `struct fuse_entry_out`, 128 bytes.
    pub fn entry(&mut self, nodeid: u64, iatt: &Iatt, validity: &Validity) -> &mut Encoder {
        self.u64(nodeid).u64(GENERATION).u64(validity.entry.as_secs()).u64(validity.attributes.as_secs());
        self.u32(validity.entry.subsec_nanos()).u32(validity.attributes.subsec_nanos()).attr(iatt, validity)
    }

    /// `struct fuse_open_out`, 16 bytes.
    pub fn open(&mut self, fh: u64, flags: u32) -> &mut Encoder {
        self.u64(fh).u32(flags).u32(0)
    }

    /// `struct fuse_dirent` with its name, padded to 8 bytes.
    pub fn dirent(&mut self, ino: u64, offset: u64, d_type: u32, name: &[u8]) -> &mut Encoder {
        self.u64(ino).u64(offset).u32(name.len() as u32).u32(d_type);
        self.0.extend_from_slice(name);
        let padded = self.0.len().next_multiple_of(8);
        self.0.resize(padded, 0);
        self
    }
}

/// Size in bytes of a dirent with a name of so many bytes.
pub fn dirent_bytes(name_bytes: usize) -> usize {
    (24 + name_bytes).next_multiple_of(8)
}

/// Size in bytes of what precedes the dirent in READDIRPLUS.
pub const ENTRY_BYTES: usize = 128;

/// `struct fuse_entry_out` alone.
pub fn entry(nodeid: u64, iatt: &Iatt, validity: &Validity) -> Bytes {
    let mut out = Encoder::with_capacity(ENTRY_BYTES);
    out.entry(nodeid, iatt, validity);
    out.finish()
}

/// "There is no such name, and you may remember it": nodeid 0.
pub fn negative_entry(validity: &Validity) -> Bytes {
    let validity = Validity { entry: validity.negative, attributes: Duration::ZERO, ..*validity };
    entry(0, &Iatt::default(), &validity)
}

/// `struct fuse_attr_out`.
pub fn attributes(iatt: &Iatt, validity: &Validity) -> Bytes {
    let mut out = Encoder::with_capacity(104);
    out.u64(validity.attributes.as_secs()).u32(validity.attributes.subsec_nanos()).u32(0).attr(iatt, validity);
    out.finish()
}

/// `struct fuse_statx_out`, 288 bytes.
pub fn statx(iatt: &Iatt, validity: &Validity) -> Bytes {
    let has_birth = iatt.btime.seconds != 0;
    let mask = abi::STATX_BASIC_STATS | if has_birth { abi::STATX_BTIME } else { 0 };
    let mut out = Encoder::with_capacity(288);
    out.u64(validity.attributes.as_secs()).u32(validity.attributes.subsec_nanos()).u32(0).u64(0).u64(0);
    out.u32(mask).u32(BLOCK_SIZE_BYTES).u64(0).u32(iatt.nlink).u32(iatt.uid).u32(iatt.gid);
    // A 16-bit mode, and 16 bits that are spare.
    out.u32(u32::from_ne_bytes({
        let [low, high] = (iatt.mode as u16).to_ne_bytes();
        [low, high, 0, 0]
    }));
    out.u64(validity.ino(iatt.gfid.ino())).u64(iatt.size_bytes).u64(iatt.blocks).u64(0);
    for time in [iatt.atime, iatt.btime, iatt.ctime, iatt.mtime] {
        out.u64(time.seconds as u64).u32(time.nanos.min(999_999_999)).u32(0);
    }
    out.u32(libc::major(iatt.rdev)).u32(libc::minor(iatt.rdev)).u32(0).u32(0);
    for _ in 0..14 {
        out.u64(0);
    }
    out.finish()
}

/// `struct fuse_entry_out` and `struct fuse_open_out`.
pub fn created(nodeid: u64, iatt: &Iatt, validity: &Validity, fh: u64, flags: u32) -> Bytes {
    let mut out = Encoder::with_capacity(ENTRY_BYTES + 16);
    out.entry(nodeid, iatt, validity).open(fh, flags);
    out.finish()
}

/// `struct fuse_open_out`.
pub fn opened(fh: u64, flags: u32) -> Bytes {
    let mut out = Encoder::with_capacity(16);
    out.open(fh, flags);
    out.finish()
}

/// `struct fuse_write_out`, also COPY_FILE_RANGE's; and `struct fuse_getxattr_out`.
pub fn count(bytes: u32) -> Bytes {
    let mut out = Encoder::with_capacity(8);
    out.u32(bytes).u32(0);
    out.finish()
}

/// `struct fuse_lseek_out`.
pub fn offset(offset: u64) -> Bytes {
    let mut out = Encoder::with_capacity(8);
    out.u64(offset);
    out.finish()
}

/// `struct fuse_statfs_out`.
pub fn statfs(statfs: &Statfs) -> Bytes {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut out = Encoder::with_capacity(80);
    out.u64(statfs.blocks).u64(statfs.blocks_free).u64(statfs.blocks_available);
    out.u64(statfs.files).u64(statfs.files_free);
    out.u32(small(statfs.block_size_bytes)).u32(small(statfs.name_max_bytes)).u32(small(statfs.fragment_size_bytes));
    for _ in 0..7 {
        out.u32(0);
    }
    out.finish()
}

/// `struct fuse_lk_out`.
pub fn file_lock(flock: &Flock) -> Bytes {
    let end = match flock.len {
        0 => lock::END,
        len => flock.start.saturating_add(len - 1).min(lock::END),
    };
    let kind = match flock.kind {
        LockType::Read => lock::READ,
        LockType::Write => lock::WRITE,
        LockType::Unlock => lock::UNLOCK,
    };
    let mut out = Encoder::with_capacity(24);
    out.u64(flock.start).u64(end).u32(kind).u32(flock.pid);
    out.finish()
}

/// The value of an xattr, or the list of names, to a caller with room for `room_bytes` (0: only asks for the size).
pub fn xattr(value: Bytes, room_bytes: u32) -> Answer {
    const XATTR_MAX_BYTES: usize = 64 << 10; // Linux's XATTR_SIZE_MAX
    if value.len() > XATTR_MAX_BYTES {
        Answer::Error(libc::E2BIG)
    } else if room_bytes == 0 {
        Answer::bytes(count(value.len() as u32))
    } else if value.len() > room_bytes as usize {
        Answer::Error(libc::ERANGE)
    } else {
        Answer::bytes(value)
    }
}

/// FOPEN_* bits of a file opened with `flags`. (With O_DIRECT the kernel bypasses its cache by itself.)
pub fn open_flags(direct_io: super::DirectIo, keep_cache: bool, flags: u32) -> u32 {
    let mut bits = 0;
    // Through its cache the kernel cuts a write in two at a page it does not have whole: between the halves of an append
    // another mount's may come.
    let appends = flags & libc::O_APPEND as u32 != 0 && direct_io == super::DirectIo::Auto;
    if direct_io == super::DirectIo::Always || appends {
        bits |= abi::FOPEN_DIRECT_IO | abi::FOPEN_PARALLEL_DIRECT_WRITES;
    }
    if keep_cache {
        bits |= abi::FOPEN_KEEP_CACHE;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_bypass_the_cache() {
        use crate::front::DirectIo;
        let append = (libc::O_APPEND | libc::O_WRONLY) as u32;
        let direct = |mode, flags| open_flags(mode, false, flags) & abi::FOPEN_DIRECT_IO != 0;
        assert!(direct(DirectIo::Auto, append) && !direct(DirectIo::Auto, libc::O_RDWR as u32));
        assert!(direct(DirectIo::Always, 0) && !direct(DirectIo::Never, append));
    }

    #[test]
    fn layouts_have_the_kernels_sizes() {
        let (iatt, validity) = (Iatt::default(), Validity::default());
        assert_eq!(entry(1, &iatt, &validity).len(), 128);
        assert_eq!(attributes(&iatt, &validity).len(), 104);
        assert_eq!(statx(&iatt, &validity).len(), 32 + 256);
        assert_eq!(created(1, &iatt, &validity, 1, 0).len(), 144);
        assert_eq!(statfs(&Statfs::default()).len(), 80);
        let mut dirent = Encoder::with_capacity(0);
        dirent.dirent(1, 2, 8, b"name");
        assert_eq!((dirent.len(), dirent_bytes(4)), (32, 32));
    }

    #[test]
    fn messages_have_lengths_and_errors_are_negative() {
        let (message, _) = Answer::Error(2).into_message(7).unwrap();
        assert_eq!(message.len(), 1);
        assert_eq!(message[0][..4], 16u32.to_ne_bytes());
        assert_eq!(message[0][4..8], (-2i32).to_ne_bytes());
        let (message, _) = Answer::bytes("data").into_message(7).unwrap();
        assert_eq!((message.len(), &message[0][..4]), (2, &20u32.to_ne_bytes()[..]));
        assert!(Answer::Silent.into_message(7).is_none());
    }

    #[test]
    fn xattrs_fit_or_say_so() {
        let value = Bytes::from_static(b"abc");
        assert!(matches!(xattr(value.clone(), 2), Answer::Error(libc::ERANGE)));
        assert!(matches!(xattr(value.clone(), 3), Answer::Body { .. }));
        assert!(matches!(xattr(vec![0; 70_000].into(), 70_000), Answer::Error(libc::E2BIG)));
    }

    #[test]
    fn locks_to_the_end_come_back_as_such() {
        let mut flock = ladrillo_translator::fop::Flock {
            kind: LockType::Write,
            whence: 0,
            start: 10,
            len: 0,
            pid: 3,
            owner: Default::default(),
        };
        assert_eq!(file_lock(&flock)[8..16], lock::END.to_ne_bytes());
        flock.len = 5;
        assert_eq!(file_lock(&flock)[8..16], 14u64.to_ne_bytes());
    }
}
