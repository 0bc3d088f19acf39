//! The table of open files and directories: the kernel's fh to what it stands for.

use std::sync::atomic::{AtomicU64, Ordering};

use ladrillo_translator::fop::File;
use ladrillo_translator::{FdId, Gfid};

/// An open file or directory.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile {
    /// Its inode.
    pub gfid: Gfid,
    /// Its name in the graph.
    pub fd: FdId,
    /// open(2) flags.
    pub flags: u32,
}

impl OpenFile {
    /// How fops name it.
    pub fn file(&self) -> File {
        File { gfid: self.gfid, fd: Some(self.fd) }
    }
}

/// What the kernel has open. Bounded by the kernel: every entry is a `struct file` there.
#[derive(Default)]
pub struct OpenFiles {
    files: papaya::HashMap<u64, OpenFile>,
    last: AtomicU64,
}

impl OpenFiles {
    /// A fresh id: never used twice in a process.
    pub fn fresh(&self) -> FdId {
        FdId(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Notes an open file; its fh is the number of its [`FdId`].
    pub fn insert(&self, file: OpenFile) -> u64 {
        self.files.pin().insert(file.fd.0, file);
        file.fd.0
    }

    /// The open file behind `fh`.
    pub fn get(&self, fh: u64) -> Option<OpenFile> {
        self.files.pin().get(&fh).copied()
    }

    /// The kernel has closed it.
    pub fn remove(&self, fh: u64) -> Option<OpenFile> {
        self.files.pin().remove(&fh).copied()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
