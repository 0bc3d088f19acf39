//! File operations: every request and answer of the GlusterFS 4.x v1 program, as Rust values.
//!
//! One enum serves FUSE, translators, the wire and the brick. A fop names its inode by gfid, an entry by
//! `(parent, name)`, an open file by the [`FdId`] that the *requester* chose when it opened it (what numbers travel
//! on the wire is the protocol translators' business). Each fop carries `xdata`, GlusterFS's side dict.

use bytes::Bytes;

use crate::iatt::SetattrValid;
use crate::{Dict, FdId, Gfid, Iatt, Payload};

/// A name in a directory: no `/`, no NUL, not empty, at most 255 bytes (checked by whoever takes it from outside).
pub type Name = Bytes;

/// What kind of lock call this is (`cmd` of INODELK and LK on the wire: GF_LK_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockCmd {
    /// Say what would block (F_GETLK).
    Get,
    /// Fail with EAGAIN when it would block (F_SETLK).
    Set,
    /// Wait (F_SETLKW).
    SetWait,
}

/// What a lock allows others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockType {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// Releases.
    Unlock,
}

/// A byte-range lock (`gf_proto_flock`). `len` 0 = to the end of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flock {
    /// Shared, exclusive or release.
    pub kind: LockType,
    /// SEEK_SET, SEEK_CUR or SEEK_END; inodelk always SEEK_SET (0).
    pub whence: u32,
    /// First byte.
    pub start: u64,
    /// Length in bytes; 0 = to the end.
    pub len: u64,
    /// Holder's process, for F_GETLK's answer.
    pub pid: u32,
    /// Holder, for F_GETLK's answer (requests take the [`crate::Context`]'s).
    pub owner: crate::LockOwner,
}

/// What LEASE asks for (`gf_proto_lease`). Numbers are the wire's: commands 1 get, 2 set, 3 unlock; types 0 none, 1 read,
/// 2 read and write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// GF_GET_LEASE and so on.
    pub cmd: u32,
    /// GF_RD_LEASE and so on.
    pub kind: u32,
    /// The lease's owner.
    pub id: [u8; 16],
    /// Flags.
    pub flags: u32,
}

/// An application's lock as GETACTIVELK and SETACTIVELK carry it: rebalance moves locks with their file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveLock {
    /// The lock and its owner.
    pub flock: Flock,
    /// The holder's process-uuid.
    pub client: Bytes,
    /// 1 = mandatory.
    pub flags: u32,
}

/// ENTRYLK's `cmd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntrylkCmd {
    /// Wait for it (ENTRYLK_LOCK).
    Lock,
    /// Release (ENTRYLK_UNLOCK).
    Unlock,
    /// EAGAIN when it would wait (ENTRYLK_LOCK_NB).
    TryLock,
}

/// XATTROP's `flags`: how values in the dict meet those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattropKind {
    /// Add 32-bit big-endian counters element by element (AFR's changelogs); result in the reply.
    AddArray,
    /// Add 64-bit big-endian counters.
    AddArray64,
    /// OR.
    OrArray,
    /// AND.
    AndArray,
    /// Set, answer the old value.
    GetAndSet,
    /// Add 32-bit, but start from the value in the dict where there is none yet (GF_XATTROP_ADD_ARRAY_WITH_DEFAULT).
    AddArrayWithDefault,
    /// The 64-bit form of it.
    AddArray64WithDefault,
}

/// RENAME, LINK and entry fops name an entry like this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Directory that holds it.
    pub parent: Gfid,
    /// Its name there.
    pub name: Name,
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq)]
pub struct DirEntry {
    /// Inode number (brick's idea of it; [`Gfid::ino`] for clients).
    pub ino: u64,
    /// Where to go on after this entry; opaque, the brick's.
    pub offset: u64,
    /// DT_* value.
    pub d_type: u32,
    /// Name.
    pub name: Name,
    /// Attributes (READDIRP only; absent where the brick could not tell).
    pub iatt: Option<Iatt>,
    /// What the READDIRP asked for in its xdata (READDIRP only).
    pub xdata: Dict,
}

/// `struct statvfs` on the wire (`gf_statfs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Statfs {
    pub block_size_bytes: u64,
    pub fragment_size_bytes: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub files_available: u64,
    pub fs_id: u64,
    pub flags: u64,
    pub name_max_bytes: u64,
}

/// What SEEK looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekWhat {
    /// The next byte that is data.
    Data,
    /// The next hole.
    Hole,
}

/// Where an operation on a file finds it: an open file, or anonymously by gfid alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct File {
    /// Its inode.
    pub gfid: Gfid,
    /// The open file, `None` = anonymous (GlusterFS's fd -2): the brick opens it for this one request.
    pub fd: Option<FdId>,
}

/// A request. The xdata of each is the last field.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // fields carry their usual POSIX meaning
pub enum Fop {
    /// By name: `entry`, then `gfid` is what the caller believes it is (or null). Nameless: `entry` is `None`.
    /// xdata asks for xattrs by key (value ignored); `gfid-req` asks the brick to set a gfid where there is none.
    Lookup {
        gfid: Gfid,
        entry: Option<Entry>,
        xdata: Dict,
    },
    Stat {
        gfid: Gfid,
        xdata: Dict,
    },
    Fstat {
        file: File,
        xdata: Dict,
    },
    Setattr {
        gfid: Gfid,
        iatt: Box<Iatt>,
        valid: SetattrValid,
        xdata: Dict,
    },
    Fsetattr {
        file: File,
        iatt: Box<Iatt>,
        valid: SetattrValid,
        xdata: Dict,
    },
    Readlink {
        gfid: Gfid,
        size_bytes: u32,
        xdata: Dict,
    },
    /// Creating fops take the new inode's gfid from xdata `gfid-req`; without it they fail with EPERM as stock bricks do.
    Mknod {
        entry: Entry,
        mode: u32,
        rdev: u64,
        umask: u32,
        xdata: Dict,
    },
    Mkdir {
        entry: Entry,
        mode: u32,
        umask: u32,
        xdata: Dict,
    },
    Symlink {
        entry: Entry,
        target: Bytes,
        umask: u32,
        xdata: Dict,
    },
    Link {
        gfid: Gfid,
        entry: Entry,
        xdata: Dict,
    },
    Unlink {
        entry: Entry,
        flags: u32,
        xdata: Dict,
    },
    Rmdir {
        entry: Entry,
        flags: u32,
        xdata: Dict,
    },
    Rename {
        from: Entry,
        to: Entry,
        xdata: Dict,
    },
    /// Creates and opens as `fd`, a fresh id of the caller's.
    Create {
        entry: Entry,
        flags: u32,
        mode: u32,
        umask: u32,
        fd: FdId,
        xdata: Dict,
    },
    Open {
        gfid: Gfid,
        flags: u32,
        fd: FdId,
        xdata: Dict,
    },
    Opendir {
        gfid: Gfid,
        fd: FdId,
        xdata: Dict,
    },
    /// Forgets an open file; always succeeds.
    Release {
        file: File,
    },
    /// Forgets an open directory; always succeeds.
    Releasedir {
        file: File,
    },
    Read {
        file: File,
        offset: u64,
        size_bytes: u32,
        flags: u32,
        xdata: Dict,
    },
    Write {
        file: File,
        offset: u64,
        data: Payload,
        flags: u32,
        xdata: Dict,
    },
    Truncate {
        gfid: Gfid,
        size_bytes: u64,
        xdata: Dict,
    },
    Ftruncate {
        file: File,
        size_bytes: u64,
        xdata: Dict,
    },
    Flush {
        file: File,
        xdata: Dict,
    },
    /// `datasync`: only the data must be durable.
    Fsync {
        file: File,
        datasync: bool,
        xdata: Dict,
    },
    Fsyncdir {
        file: File,
        datasync: bool,
        xdata: Dict,
    },
    Statfs {
        gfid: Gfid,
        xdata: Dict,
    },
    Access {
        gfid: Gfid,
        mask: u32,
        xdata: Dict,
    },
    Setxattr {
        gfid: Gfid,
        xattrs: Dict,
        flags: u32,
        xdata: Dict,
    },
    Fsetxattr {
        file: File,
        xattrs: Dict,
        flags: u32,
        xdata: Dict,
    },
    /// `name` empty = all of them.
    Getxattr {
        gfid: Gfid,
        name: Bytes,
        xdata: Dict,
    },
    Fgetxattr {
        file: File,
        name: Bytes,
        xdata: Dict,
    },
    Removexattr {
        gfid: Gfid,
        name: Bytes,
        xdata: Dict,
    },
    Fremovexattr {
        file: File,
        name: Bytes,
        xdata: Dict,
    },
    Xattrop {
        gfid: Gfid,
        kind: XattropKind,
        xattrs: Dict,
        xdata: Dict,
    },
    Fxattrop {
        file: File,
        kind: XattropKind,
        xattrs: Dict,
        xdata: Dict,
    },
    Readdir {
        file: File,
        offset: u64,
        size_bytes: u32,
        xdata: Dict,
    },
    Readdirp {
        file: File,
        offset: u64,
        size_bytes: u32,
        xdata: Dict,
    },
    /// POSIX locks (fcntl, flock) of applications.
    Lk {
        file: File,
        cmd: LockCmd,
        flock: Flock,
        xdata: Dict,
    },
    /// Translators' byte-range locks, in a domain of their own.
    Inodelk {
        gfid: Gfid,
        domain: Bytes,
        cmd: LockCmd,
        flock: Flock,
        xdata: Dict,
    },
    Finodelk {
        file: File,
        domain: Bytes,
        cmd: LockCmd,
        flock: Flock,
        xdata: Dict,
    },
    /// Translators' locks on a name in a directory; `name` `None` = on all names.
    Entrylk {
        gfid: Gfid,
        domain: Bytes,
        name: Option<Name>,
        cmd: EntrylkCmd,
        kind: LockType,
        xdata: Dict,
    },
    Fentrylk {
        file: File,
        domain: Bytes,
        name: Option<Name>,
        cmd: EntrylkCmd,
        kind: LockType,
        xdata: Dict,
    },
    Rchecksum {
        file: File,
        offset: u64,
        len: u32,
        xdata: Dict,
    },
    Fallocate {
        file: File,
        flags: u32,
        offset: u64,
        len: u64,
        xdata: Dict,
    },
    Discard {
        file: File,
        offset: u64,
        len: u64,
        xdata: Dict,
    },
    Zerofill {
        file: File,
        offset: u64,
        len: u64,
        xdata: Dict,
    },
    Seek {
        file: File,
        offset: u64,
        what: SeekWhat,
        xdata: Dict,
    },
    CopyFileRange {
        from: File,
        from_offset: u64,
        to: File,
        to_offset: u64,
        len: u64,
        flags: u32,
        xdata: Dict,
    },
    Ipc {
        op: i32,
        xdata: Dict,
    },
    /// Leases of applications (samba's, NFS's).
    Lease {
        gfid: Gfid,
        lease: Lease,
        xdata: Dict,
    },
    /// Applications' locks on a file, for rebalance to move.
    Getactivelk {
        gfid: Gfid,
        xdata: Dict,
    },
    /// The other half of it.
    Setactivelk {
        gfid: Gfid,
        locks: Vec<ActiveLock>,
        xdata: Dict,
    },
    /// An inode without a name. No stock translator carries it out.
    Icreate {
        gfid: Gfid,
        mode: u32,
        xdata: Dict,
    },
    /// A name for an inode of [`Fop::Icreate`]. No stock translator carries it out.
    Namelink {
        entry: Entry,
        xdata: Dict,
    },
    /// A file with contents and xattrs at once.
    Put {
        entry: Entry,
        mode: u32,
        umask: u32,
        flags: u32,
        offset: u64,
        data: Payload,
        xattrs: Dict,
        xdata: Dict,
    },
}

/// Attributes of a changed inode before and after.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrePost {
    /// Before.
    pub pre: Iatt,
    /// After.
    pub post: Iatt,
}

/// A successful answer. The xdata of each is the last field.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Reply {
    Lookup {
        iatt: Box<Iatt>,
        parent: Box<Iatt>,
        xdata: Dict,
    },
    /// Stat, Fstat, Icreate.
    Iatt {
        iatt: Box<Iatt>,
        xdata: Dict,
    },
    /// Setattr, Fsetattr, Write, Truncate, Ftruncate, Fsync, Fallocate, Discard, Zerofill.
    /// (`written` holds the byte count of a Write.)
    PrePost {
        attrs: Box<PrePost>,
        written: u32,
        xdata: Dict,
    },
    Readlink {
        target: Bytes,
        iatt: Box<Iatt>,
        xdata: Dict,
    },
    /// Mknod, Mkdir, Symlink, Link, Put, Create (which has opened the caller's fd).
    Entry {
        iatt: Box<Iatt>,
        parent: Box<PrePost>,
        xdata: Dict,
    },
    /// Unlink, Rmdir, Namelink.
    Removed {
        parent: Box<PrePost>,
        xdata: Dict,
    },
    Rename {
        iatt: Box<Iatt>,
        from_parent: Box<PrePost>,
        to_parent: Box<PrePost>,
        xdata: Dict,
    },
    Read {
        data: Payload,
        iatt: Box<Iatt>,
        xdata: Dict,
    },
    /// Getxattr, Fgetxattr, Xattrop, Fxattrop (values after the operation).
    Xattrs {
        xattrs: Dict,
        xdata: Dict,
    },
    Entries {
        entries: Vec<DirEntry>,
        xdata: Dict,
    },
    Statfs {
        statfs: Statfs,
        xdata: Dict,
    },
    Lk {
        flock: Flock,
        xdata: Dict,
    },
    Rchecksum {
        weak: u32,
        strong: Bytes,
        flags: u32,
        xdata: Dict,
    },
    Seek {
        offset: u64,
        xdata: Dict,
    },
    CopyFileRange {
        copied: u32,
        iatt: Box<Iatt>,
        from: Box<PrePost>,
        to: Box<PrePost>,
        xdata: Dict,
    },
    Lease {
        lease: Lease,
        xdata: Dict,
    },
    /// Getactivelk.
    Activelk {
        locks: Vec<ActiveLock>,
        xdata: Dict,
    },
    /// Whatever succeeds without a value: Open, Opendir, Release, Flush, Fsyncdir, Access, Setxattr, Inodelk, ...
    Done {
        xdata: Dict,
    },
}

macro_rules! kinds {
    ($($kind:ident = $number:literal),* $(,)?) => {
        /// The kind of a fop; the number is its procedure in the GlusterFS 4.x v1 program (GFS3_OP_*).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        #[allow(missing_docs)]
        pub enum FopKind { $($kind = $number),* }

        impl FopKind {
            /// The procedure number.
            pub fn procedure(self) -> u32 {
                self as u32
            }

            /// From a procedure number; `None` for those we do not speak.
            pub fn from_procedure(number: u32) -> Option<FopKind> {
                match number {
                    $($number => Some(FopKind::$kind),)*
                    _ => None,
                }
            }

            /// Name as in profiles and logs, upper case.
            pub fn name(self) -> String {
                match self {
                    $(FopKind::$kind => stringify!($kind).to_uppercase(),)*
                }
            }
        }

        impl Fop {
            /// Its kind.
            pub fn kind(&self) -> FopKind {
                match self {
                    $(Fop::$kind { .. } => FopKind::$kind,)*
                }
            }
        }
    };
}

kinds! {
    Stat = 1, Readlink = 2, Mknod = 3, Mkdir = 4, Unlink = 5, Rmdir = 6, Symlink = 7, Rename = 8, Link = 9,
    Truncate = 10, Open = 11, Read = 12, Write = 13, Statfs = 14, Flush = 15, Fsync = 16, Setxattr = 17,
    Getxattr = 18, Removexattr = 19, Opendir = 20, Fsyncdir = 21, Access = 22, Create = 23, Ftruncate = 24,
    Fstat = 25, Lk = 26, Lookup = 27, Readdir = 28, Inodelk = 29, Finodelk = 30, Entrylk = 31, Fentrylk = 32,
    Xattrop = 33, Fxattrop = 34, Fgetxattr = 35, Fsetxattr = 36, Rchecksum = 37, Setattr = 38, Fsetattr = 39,
    Readdirp = 40, Release = 41, Releasedir = 42, Fremovexattr = 43, Fallocate = 44, Discard = 45, Zerofill = 46,
    Ipc = 47, Seek = 48, Lease = 50, Getactivelk = 51, Setactivelk = 52, Icreate = 53, Namelink = 54, Put = 55,
    CopyFileRange = 56,
}

impl Fop {
    /// The files it works on: none, one, or COPY_FILE_RANGE's two.
    pub fn files(&self) -> [Option<File>; 2] {
        match self {
            Fop::Fstat { file, .. }
            | Fop::Fsetattr { file, .. }
            | Fop::Release { file, .. }
            | Fop::Releasedir { file, .. }
            | Fop::Read { file, .. }
            | Fop::Write { file, .. }
            | Fop::Ftruncate { file, .. }
            | Fop::Flush { file, .. }
            | Fop::Fsync { file, .. }
            | Fop::Fsyncdir { file, .. }
            | Fop::Fsetxattr { file, .. }
            | Fop::Fgetxattr { file, .. }
            | Fop::Fremovexattr { file, .. }
            | Fop::Fxattrop { file, .. }
            | Fop::Readdir { file, .. }
            | Fop::Readdirp { file, .. }
            | Fop::Lk { file, .. }
            | Fop::Finodelk { file, .. }
            | Fop::Fentrylk { file, .. }
            | Fop::Rchecksum { file, .. }
            | Fop::Fallocate { file, .. }
            | Fop::Discard { file, .. }
            | Fop::Zerofill { file, .. }
            | Fop::Seek { file, .. } => [Some(*file), None],
            Fop::CopyFileRange { from, to, .. } => [Some(*from), Some(*to)],
            _ => [None, None],
        }
    }

    /// The files it works on, to give them other descriptors (protocol translators do).
    pub fn files_mut(&mut self) -> [Option<&mut File>; 2] {
        match self {
            Fop::Fstat { file, .. }
            | Fop::Fsetattr { file, .. }
            | Fop::Release { file, .. }
            | Fop::Releasedir { file, .. }
            | Fop::Read { file, .. }
            | Fop::Write { file, .. }
            | Fop::Ftruncate { file, .. }
            | Fop::Flush { file, .. }
            | Fop::Fsync { file, .. }
            | Fop::Fsyncdir { file, .. }
            | Fop::Fsetxattr { file, .. }
            | Fop::Fgetxattr { file, .. }
            | Fop::Fremovexattr { file, .. }
            | Fop::Fxattrop { file, .. }
            | Fop::Readdir { file, .. }
            | Fop::Readdirp { file, .. }
            | Fop::Lk { file, .. }
            | Fop::Finodelk { file, .. }
            | Fop::Fentrylk { file, .. }
            | Fop::Rchecksum { file, .. }
            | Fop::Fallocate { file, .. }
            | Fop::Discard { file, .. }
            | Fop::Zerofill { file, .. }
            | Fop::Seek { file, .. } => [Some(file), None],
            Fop::CopyFileRange { from, to, .. } => [Some(from), Some(to)],
            _ => [None, None],
        }
    }

    /// The inode it names by gfid, of fops that do (one that works on a [`File`] names it there). LOOKUP's may be null.
    pub fn inode(&self) -> Option<Gfid> {
        match self {
            Fop::Lookup { gfid, .. }
            | Fop::Link { gfid, .. }
            | Fop::Stat { gfid, .. }
            | Fop::Setattr { gfid, .. }
            | Fop::Readlink { gfid, .. }
            | Fop::Open { gfid, .. }
            | Fop::Opendir { gfid, .. }
            | Fop::Truncate { gfid, .. }
            | Fop::Statfs { gfid, .. }
            | Fop::Access { gfid, .. }
            | Fop::Setxattr { gfid, .. }
            | Fop::Getxattr { gfid, .. }
            | Fop::Removexattr { gfid, .. }
            | Fop::Xattrop { gfid, .. }
            | Fop::Inodelk { gfid, .. }
            | Fop::Entrylk { gfid, .. }
            | Fop::Lease { gfid, .. }
            | Fop::Getactivelk { gfid, .. }
            | Fop::Setactivelk { gfid, .. } => Some(*gfid),
            _ => None,
        }
    }

    /// The inode it names by gfid, to put another there.
    pub fn inode_mut(&mut self) -> Option<&mut Gfid> {
        match self {
            Fop::Lookup { gfid, .. }
            | Fop::Link { gfid, .. }
            | Fop::Stat { gfid, .. }
            | Fop::Setattr { gfid, .. }
            | Fop::Readlink { gfid, .. }
            | Fop::Open { gfid, .. }
            | Fop::Opendir { gfid, .. }
            | Fop::Truncate { gfid, .. }
            | Fop::Statfs { gfid, .. }
            | Fop::Access { gfid, .. }
            | Fop::Setxattr { gfid, .. }
            | Fop::Getxattr { gfid, .. }
            | Fop::Removexattr { gfid, .. }
            | Fop::Xattrop { gfid, .. }
            | Fop::Inodelk { gfid, .. }
            | Fop::Entrylk { gfid, .. }
            | Fop::Lease { gfid, .. }
            | Fop::Getactivelk { gfid, .. }
            | Fop::Setactivelk { gfid, .. } => Some(gfid),
            _ => None,
        }
    }

    /// The names it works on: none, one, or RENAME's two.
    pub fn entries(&self) -> [Option<&Entry>; 2] {
        match self {
            Fop::Lookup { entry, .. } => [entry.as_ref(), None],
            Fop::Link { entry, .. }
            | Fop::Mknod { entry, .. }
            | Fop::Mkdir { entry, .. }
            | Fop::Symlink { entry, .. }
            | Fop::Create { entry, .. }
            | Fop::Unlink { entry, .. }
            | Fop::Rmdir { entry, .. }
            | Fop::Namelink { entry, .. }
            | Fop::Put { entry, .. } => [Some(entry), None],
            Fop::Rename { from, to, .. } => [Some(from), Some(to)],
            _ => [None, None],
        }
    }

    /// The names it works on, to put others there.
    pub fn entries_mut(&mut self) -> [Option<&mut Entry>; 2] {
        match self {
            Fop::Lookup { entry, .. } => [entry.as_mut(), None],
            Fop::Link { entry, .. }
            | Fop::Mknod { entry, .. }
            | Fop::Mkdir { entry, .. }
            | Fop::Symlink { entry, .. }
            | Fop::Create { entry, .. }
            | Fop::Unlink { entry, .. }
            | Fop::Rmdir { entry, .. }
            | Fop::Namelink { entry, .. }
            | Fop::Put { entry, .. } => [Some(entry), None],
            Fop::Rename { from, to, .. } => [Some(from), Some(to)],
            _ => [None, None],
        }
    }

    /// The id under which CREATE, OPEN and OPENDIR open.
    pub fn opens(&self) -> Option<FdId> {
        match self {
            Fop::Create { fd, .. } | Fop::Open { fd, .. } | Fop::Opendir { fd, .. } => Some(*fd),
            _ => None,
        }
    }

    /// The id under which CREATE, OPEN and OPENDIR open, to choose another.
    pub fn opens_mut(&mut self) -> Option<&mut FdId> {
        match self {
            Fop::Create { fd, .. } | Fop::Open { fd, .. } | Fop::Opendir { fd, .. } => Some(fd),
            _ => None,
        }
    }
}

impl Reply {
    /// A bare success.
    pub fn done() -> Reply {
        Reply::Done { xdata: Dict::new() }
    }

    /// Calls `change` for all attributes it carries, but those of a listing's entries.
    pub fn for_each_iatt(&mut self, mut change: impl FnMut(&mut Iatt)) {
        let both = |attrs: &mut PrePost, change: &mut dyn FnMut(&mut Iatt)| {
            change(&mut attrs.pre);
            change(&mut attrs.post);
        };
        match self {
            Reply::Lookup { iatt, parent, .. } => {
                change(iatt);
                change(parent);
            }
            Reply::Iatt { iatt, .. } | Reply::Readlink { iatt, .. } | Reply::Read { iatt, .. } => change(iatt),
            Reply::PrePost { attrs, .. } | Reply::Removed { parent: attrs, .. } => both(attrs, &mut change),
            Reply::Entry { iatt, parent, .. } => {
                change(iatt);
                both(parent, &mut change);
            }
            Reply::Rename { iatt, from_parent: from, to_parent: to, .. }
            | Reply::CopyFileRange { iatt, from, to, .. } => {
                change(iatt);
                both(from, &mut change);
                both(to, &mut change);
            }
            Reply::Xattrs { .. }
            | Reply::Entries { .. }
            | Reply::Statfs { .. }
            | Reply::Lk { .. }
            | Reply::Rchecksum { .. }
            | Reply::Seek { .. }
            | Reply::Lease { .. }
            | Reply::Activelk { .. }
            | Reply::Done { .. } => {}
        }
    }

    /// Its side dict.
    pub fn xdata(&self) -> &Dict {
        match self {
            Reply::Lookup { xdata, .. }
            | Reply::Iatt { xdata, .. }
            | Reply::PrePost { xdata, .. }
            | Reply::Readlink { xdata, .. }
            | Reply::Entry { xdata, .. }
            | Reply::Removed { xdata, .. }
            | Reply::Rename { xdata, .. }
            | Reply::Read { xdata, .. }
            | Reply::Xattrs { xdata, .. }
            | Reply::Entries { xdata, .. }
            | Reply::Statfs { xdata, .. }
            | Reply::Lk { xdata, .. }
            | Reply::Rchecksum { xdata, .. }
            | Reply::Seek { xdata, .. }
            | Reply::CopyFileRange { xdata, .. }
            | Reply::Lease { xdata, .. }
            | Reply::Activelk { xdata, .. }
            | Reply::Done { xdata } => xdata,
        }
    }

    /// Its side dict, to add to.
    pub fn xdata_mut(&mut self) -> &mut Dict {
        match self {
            Reply::Lookup { xdata, .. }
            | Reply::Iatt { xdata, .. }
            | Reply::PrePost { xdata, .. }
            | Reply::Readlink { xdata, .. }
            | Reply::Entry { xdata, .. }
            | Reply::Removed { xdata, .. }
            | Reply::Rename { xdata, .. }
            | Reply::Read { xdata, .. }
            | Reply::Xattrs { xdata, .. }
            | Reply::Entries { xdata, .. }
            | Reply::Statfs { xdata, .. }
            | Reply::Lk { xdata, .. }
            | Reply::Rchecksum { xdata, .. }
            | Reply::Seek { xdata, .. }
            | Reply::CopyFileRange { xdata, .. }
            | Reply::Lease { xdata, .. }
            | Reply::Activelk { xdata, .. }
            | Reply::Done { xdata } => xdata,
        }
    }
}

impl Fop {
    /// Its side dict; `None` for Release and Releasedir, which have none.
    pub fn xdata(&self) -> Option<&Dict> {
        match self {
            Fop::Stat { xdata, .. }
            | Fop::Readlink { xdata, .. }
            | Fop::Mknod { xdata, .. }
            | Fop::Mkdir { xdata, .. }
            | Fop::Unlink { xdata, .. }
            | Fop::Rmdir { xdata, .. }
            | Fop::Symlink { xdata, .. }
            | Fop::Rename { xdata, .. }
            | Fop::Link { xdata, .. }
            | Fop::Truncate { xdata, .. }
            | Fop::Open { xdata, .. }
            | Fop::Read { xdata, .. }
            | Fop::Write { xdata, .. }
            | Fop::Statfs { xdata, .. }
            | Fop::Flush { xdata, .. }
            | Fop::Fsync { xdata, .. }
            | Fop::Setxattr { xdata, .. }
            | Fop::Getxattr { xdata, .. }
            | Fop::Removexattr { xdata, .. }
            | Fop::Opendir { xdata, .. }
            | Fop::Fsyncdir { xdata, .. }
            | Fop::Access { xdata, .. }
            | Fop::Create { xdata, .. }
            | Fop::Ftruncate { xdata, .. }
            | Fop::Fstat { xdata, .. }
            | Fop::Lk { xdata, .. }
            | Fop::Lookup { xdata, .. }
            | Fop::Readdir { xdata, .. }
            | Fop::Inodelk { xdata, .. }
            | Fop::Finodelk { xdata, .. }
            | Fop::Entrylk { xdata, .. }
            | Fop::Fentrylk { xdata, .. }
            | Fop::Xattrop { xdata, .. }
            | Fop::Fxattrop { xdata, .. }
            | Fop::Fgetxattr { xdata, .. }
            | Fop::Fsetxattr { xdata, .. }
            | Fop::Rchecksum { xdata, .. }
            | Fop::Setattr { xdata, .. }
            | Fop::Fsetattr { xdata, .. }
            | Fop::Readdirp { xdata, .. }
            | Fop::Fremovexattr { xdata, .. }
            | Fop::Fallocate { xdata, .. }
            | Fop::Discard { xdata, .. }
            | Fop::Zerofill { xdata, .. }
            | Fop::Ipc { xdata, .. }
            | Fop::Seek { xdata, .. }
            | Fop::CopyFileRange { xdata, .. }
            | Fop::Lease { xdata, .. }
            | Fop::Getactivelk { xdata, .. }
            | Fop::Setactivelk { xdata, .. }
            | Fop::Icreate { xdata, .. }
            | Fop::Namelink { xdata, .. }
            | Fop::Put { xdata, .. } => Some(xdata),
            Fop::Release { .. } | Fop::Releasedir { .. } => None,
        }
    }

    /// Its side dict, to add to or take from.
    pub fn xdata_mut(&mut self) -> Option<&mut Dict> {
        match self {
            Fop::Stat { xdata, .. }
            | Fop::Readlink { xdata, .. }
            | Fop::Mknod { xdata, .. }
            | Fop::Mkdir { xdata, .. }
            | Fop::Unlink { xdata, .. }
            | Fop::Rmdir { xdata, .. }
            | Fop::Symlink { xdata, .. }
            | Fop::Rename { xdata, .. }
            | Fop::Link { xdata, .. }
            | Fop::Truncate { xdata, .. }
            | Fop::Open { xdata, .. }
            | Fop::Read { xdata, .. }
            | Fop::Write { xdata, .. }
            | Fop::Statfs { xdata, .. }
            | Fop::Flush { xdata, .. }
            | Fop::Fsync { xdata, .. }
            | Fop::Setxattr { xdata, .. }
            | Fop::Getxattr { xdata, .. }
            | Fop::Removexattr { xdata, .. }
            | Fop::Opendir { xdata, .. }
            | Fop::Fsyncdir { xdata, .. }
            | Fop::Access { xdata, .. }
            | Fop::Create { xdata, .. }
            | Fop::Ftruncate { xdata, .. }
            | Fop::Fstat { xdata, .. }
            | Fop::Lk { xdata, .. }
            | Fop::Lookup { xdata, .. }
            | Fop::Readdir { xdata, .. }
            | Fop::Inodelk { xdata, .. }
            | Fop::Finodelk { xdata, .. }
            | Fop::Entrylk { xdata, .. }
            | Fop::Fentrylk { xdata, .. }
            | Fop::Xattrop { xdata, .. }
            | Fop::Fxattrop { xdata, .. }
            | Fop::Fgetxattr { xdata, .. }
            | Fop::Fsetxattr { xdata, .. }
            | Fop::Rchecksum { xdata, .. }
            | Fop::Setattr { xdata, .. }
            | Fop::Fsetattr { xdata, .. }
            | Fop::Readdirp { xdata, .. }
            | Fop::Fremovexattr { xdata, .. }
            | Fop::Fallocate { xdata, .. }
            | Fop::Discard { xdata, .. }
            | Fop::Zerofill { xdata, .. }
            | Fop::Ipc { xdata, .. }
            | Fop::Seek { xdata, .. }
            | Fop::CopyFileRange { xdata, .. }
            | Fop::Lease { xdata, .. }
            | Fop::Getactivelk { xdata, .. }
            | Fop::Setactivelk { xdata, .. }
            | Fop::Icreate { xdata, .. }
            | Fop::Namelink { xdata, .. }
            | Fop::Put { xdata, .. } => Some(xdata),
            Fop::Release { .. } | Fop::Releasedir { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procedures_match_the_wire() {
        assert_eq!(FopKind::Lookup.procedure(), 27);
        assert_eq!(FopKind::from_procedure(48), Some(FopKind::Seek));
        assert_eq!(FopKind::from_procedure(49), None);
        assert_eq!(Fop::Ipc { op: 0, xdata: Dict::new() }.kind(), FopKind::Ipc);
    }
}
