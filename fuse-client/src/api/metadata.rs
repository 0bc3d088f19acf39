//! What is known of a file, and of the volume's space.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ladrillo_translator::fop::Statfs;
use ladrillo_translator::{FileType, Gfid, Iatt, Timespec};

/// The kind of a file.
pub type FileKind = FileType;

/// Attributes of a file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    iatt: Box<Iatt>,
}

impl Metadata {
    pub(super) fn new(iatt: Box<Iatt>) -> Metadata {
        Metadata { iatt }
    }

    /// Size in bytes.
    #[allow(clippy::len_without_is_empty)] // as std's
    pub fn len(&self) -> u64 {
        self.iatt.size_bytes
    }

    /// Its kind; `None` where the brick named none that is known.
    pub fn kind(&self) -> Option<FileKind> {
        self.iatt.file_type()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.iatt.is_dir()
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.iatt.is_regular()
    }

    /// Whether it is a symlink.
    pub fn is_symlink(&self) -> bool {
        self.kind() == Some(FileKind::Symlink)
    }

    /// Type and permission bits, as `st_mode`.
    pub fn mode(&self) -> u32 {
        self.iatt.mode
    }

    /// Permission bits, set-id and sticky bits included.
    pub fn permissions(&self) -> u32 {
        self.iatt.permissions()
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        self.iatt.uid
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        self.iatt.gid
    }

    /// Hard links.
    pub fn nlink(&self) -> u32 {
        self.iatt.nlink
    }

    /// Inode number: the same on every client.
    pub fn ino(&self) -> u64 {
        self.iatt.gfid.ino()
    }

    /// GlusterFS's identity of the inode.
    pub fn gfid(&self) -> Gfid {
        self.iatt.gfid
    }

    /// Device number of a device node.
    pub fn rdev(&self) -> u64 {
        self.iatt.rdev
    }

    /// Allocated space in units of 512 bytes.
    pub fn blocks(&self) -> u64 {
        self.iatt.blocks
    }

    /// Last access.
    pub fn accessed(&self) -> SystemTime {
        system_time(self.iatt.atime)
    }

    /// Last change of contents.
    pub fn modified(&self) -> SystemTime {
        system_time(self.iatt.mtime)
    }

    /// Last change of the inode.
    pub fn changed(&self) -> SystemTime {
        system_time(self.iatt.ctime)
    }
}

/// The space of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// Not used, in bytes.
    pub free_bytes: u64,
    /// What users other than root can still use, in bytes.
    pub available_bytes: u64,
    /// Inodes there can be.
    pub files: u64,
    /// Inodes there can still be.
    pub files_free: u64,
}

impl From<Statfs> for Space {
    fn from(statfs: Statfs) -> Space {
        let unit = if statfs.fragment_size_bytes == 0 { statfs.block_size_bytes } else { statfs.fragment_size_bytes };
        Space {
            total_bytes: statfs.blocks.saturating_mul(unit),
            free_bytes: statfs.blocks_free.saturating_mul(unit),
            available_bytes: statfs.blocks_available.saturating_mul(unit),
            files: statfs.files,
            files_free: statfs.files_free,
        }
    }
}

fn system_time(time: Timespec) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let base = if time.seconds >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// A time as fops carry it.
pub(super) fn timespec(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => {
            Timespec { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
        }
        Err(before) => {
            let before = before.duration();
            let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => Timespec { seconds, nanos: 0 },
                nanos => Timespec { seconds: seconds.saturating_sub(1), nanos: 1_000_000_000 - nanos },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways() {
        for time in [
            Timespec { seconds: 1_700_000_000, nanos: 5 },
            Timespec { seconds: 0, nanos: 0 },
            Timespec { seconds: -3, nanos: 999_999_999 },
            Timespec { seconds: -3, nanos: 0 },
        ] {
            assert_eq!(timespec(system_time(time)), time);
        }
        // What a brick may send at worst: no panic, whatever the platform makes of it.
        assert!(system_time(Timespec { seconds: i64::MIN, nanos: 0 }) <= UNIX_EPOCH);
    }
}
