//! What is known of an inode: GlusterFS's `iatt`, as the 4.x v1 wire carries it (`gfx_iattx`).

use crate::Gfid;

/// Seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespec {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// 0..=999_999_999.
    pub nanos: u32,
}

/// The kind of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum FileType {
    Regular,
    Directory,
    Symlink,
    BlockDevice,
    CharDevice,
    Fifo,
    Socket,
}

impl FileType {
    /// From the type bits of a `st_mode`; `None` where they name no type.
    pub fn from_mode(mode: u32) -> Option<FileType> {
        Some(match mode & S_IFMT {
            0o100000 => FileType::Regular,
            0o040000 => FileType::Directory,
            0o120000 => FileType::Symlink,
            0o060000 => FileType::BlockDevice,
            0o020000 => FileType::CharDevice,
            0o010000 => FileType::Fifo,
            0o140000 => FileType::Socket,
            _ => return None,
        })
    }

    /// The type bits of a `st_mode`.
    pub fn mode_bits(self) -> u32 {
        match self {
            FileType::Regular => 0o100000,
            FileType::Directory => 0o040000,
            FileType::Symlink => 0o120000,
            FileType::BlockDevice => 0o060000,
            FileType::CharDevice => 0o020000,
            FileType::Fifo => 0o010000,
            FileType::Socket => 0o140000,
        }
    }

    /// `d_type` of a directory entry (DT_REG 8, DT_DIR 4, ...), which are the mode's type bits shifted by 12.
    pub fn d_type(self) -> u32 {
        self.mode_bits() >> 12
    }
}

/// The type bits of a `st_mode`.
pub const S_IFMT: u32 = 0o170000;

/// Attributes of an inode. `Default` is the all-zero iatt that a failed or absent answer carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Iatt {
    /// Which fields are valid (GlusterFS's IATT_* bits); bricks send [`Iatt::VALID_BASIC`].
    pub flags: u64,
    /// Identity.
    pub gfid: Gfid,
    /// Inode number; [`Gfid::ino`] of `gfid` once it left the brick.
    pub ino: u64,
    /// Device of the backing file system.
    pub dev: u64,
    /// Device number of a device node (Linux `dev_t`).
    pub rdev: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
    /// chattr-like attributes (unused, carried).
    pub attributes: u64,
    /// Mask of `attributes`.
    pub attributes_mask: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of contents.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Birth.
    pub btime: Timespec,
    /// Hard links, as applications see them (the brick's handle is not counted).
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Preferred I/O size in bytes.
    pub block_size_bytes: u32,
    /// `st_mode`: type and permission bits. 0 = no iatt.
    pub mode: u32,
}

impl Iatt {
    /// IATT_TYPE 0x1, MODE 0x2, NLINK 0x4, UID 0x8, GID 0x10, ATIME 0x20, MTIME 0x40, CTIME 0x80, INO 0x100,
    /// SIZE 0x200, BLOCKS 0x400, BTIME 0x800, GFID 0x1000: source libglusterfs/iatt.h of 10.3.
    pub const VALID_BASIC: u64 = 0x17ff;

    /// The kind, `None` for the all-zero iatt.
    pub fn file_type(&self) -> Option<FileType> {
        FileType::from_mode(self.mode)
    }

    /// Whether this describes a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == Some(FileType::Directory)
    }

    /// Whether this describes a regular file.
    pub fn is_regular(&self) -> bool {
        self.file_type() == Some(FileType::Regular)
    }

    /// Permission bits, set-id and sticky bits included.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

/// Which fields of the iatt a SETATTR sets: GlusterFS's GF_SET_ATTR_* bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetattrValid(pub u32);

impl SetattrValid {
    /// Permission bits.
    pub const MODE: u32 = 0x1;
    /// Owner.
    pub const UID: u32 = 0x2;
    /// Group.
    pub const GID: u32 = 0x4;
    /// Size (not used by the wire: truncate is its own fop).
    pub const SIZE: u32 = 0x8;
    /// Access time from the iatt.
    pub const ATIME: u32 = 0x10;
    /// Modification time from the iatt.
    pub const MTIME: u32 = 0x20;
    /// Change time from the iatt.
    pub const CTIME: u32 = 0x40;
    /// Access time := now.
    pub const ATIME_NOW: u32 = 0x80;
    /// Modification time := now.
    pub const MTIME_NOW: u32 = 0x100;

    /// Whether any of `bits` is set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

/// `trusted.glusterfs.mdata`: times equal on all copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mdata {
    /// Last access.
    pub atime: Timespec,
    /// Last change of contents.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
}
