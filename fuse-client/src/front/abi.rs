//! Numbers of the FUSE protocol (version 7), as the kernel's `include/uapi/linux/fuse.h` names them.
#![allow(missing_docs)]

/// `struct fuse_in_header`.
pub const IN_HEADER_BYTES: usize = 40;
/// `struct fuse_out_header`.
pub const OUT_HEADER_BYTES: usize = 16;
/// nodeid of the root directory.
pub const ROOT_NODEID: u64 = 1;

pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    /// An unnamed file (O_TMPFILE): neither GlusterFS's wire nor its bricks have that.
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
    // Answered with ENOSYS, as GlusterFS does; the kernel then does without, and does not ask again: BMAP (37, block
    // devices), IOCTL (39), POLL (40), NOTIFY_REPLY (41), SETUPMAPPING and REMOVEMAPPING (48, 49: DAX), SYNCFS (50: sent to
    // virtiofs only).
}

/// FATTR_*: which fields a SETATTR sets.
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const LOCKOWNER: u32 = 1 << 9;
    pub const CTIME: u32 = 1 << 10;
}

/// STATX_BASIC_STATS and STATX_BTIME (statx(2)): what attributes hold.
pub const STATX_BASIC_STATS: u32 = 0x7ff;
/// See [`STATX_BASIC_STATS`].
pub const STATX_BTIME: u32 = 0x800;
/// FUSE_GETATTR_FH: the request names an open file.
pub const GETATTR_FH: u32 = 1;
/// FUSE_READ_LOCKOWNER, FUSE_WRITE_LOCKOWNER: the lock owner is given.
pub const IO_LOCKOWNER: u32 = 1 << 1;
/// FUSE_RELEASE_FLOCK_UNLOCK: the file may hold a flock(2) lock.
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// FUSE_FSYNC_FDATASYNC.
pub const FSYNC_DATASYNC: u32 = 1;
/// FOPEN_DIRECT_IO: bypass the page cache.
pub const FOPEN_DIRECT_IO: u32 = 1 << 0;
/// FOPEN_KEEP_CACHE: do not drop cached pages at open.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// FOPEN_PARALLEL_DIRECT_WRITES: direct writes of one file need no lock in the kernel.
pub const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

/// `fuse_file_lock.type`: fcntl's F_RDLCK, F_WRLCK, F_UNLCK.
pub mod lock {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const UNLOCK: u32 = 2;
    /// `end` of a lock that goes to the end of the file (OFFSET_MAX).
    pub const END: u64 = i64::MAX as u64;
}

/// FUSE over io_uring (Linux 6.14): `struct fuse_uring_req_header`, `struct fuse_uring_cmd_req`.
pub mod uring {
    /// Take this entry, and give me a request in it.
    pub const REGISTER: u32 = 1;
    /// Here is the answer; give me the next request.
    pub const COMMIT_AND_FETCH: u32 = 2;
    /// `in_out`: the in header, later the out header.
    pub const IN_OUT_BYTES: usize = 128;
    /// `op_in`: the fixed part of the opcode's arguments.
    pub const OP_IN_BYTES: usize = 128;
    /// Where `struct fuse_uring_ent_in_out` begins.
    pub const ENTRY_AT: usize = IN_OUT_BYTES + OP_IN_BYTES;
    /// Its `commit_id`, a u64.
    pub const COMMIT_ID_AT: usize = 8;
    /// Its `payload_sz`, a u32.
    pub const PAYLOAD_SIZE_AT: usize = 16;
    /// All of it.
    pub const HEADER_BYTES: usize = ENTRY_AT + 32;
}
