//! Open directories.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{self, File};
use ladrillo_translator::{Dict, FileType, Fop, FopError, Gfid, Reply};

use super::error::{Result, unexpected};
use super::metadata::{FileKind, Metadata};
use super::path::Names;
use super::volume::{Identity, Volume};
use super::worker::Worker;

/// Bytes of entries asked for at once. Source: GlusterFS's readdir-ahead asks for 128 KiB.
const LISTING_BYTES: u32 = 128 << 10;

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    entry: fop::DirEntry,
}

impl DirEntry {
    /// Its name.
    pub fn file_name(&self) -> &OsStr {
        OsStr::from_bytes(&self.entry.name)
    }

    /// Its kind, where the brick told.
    pub fn kind(&self) -> Option<FileKind> {
        match &self.entry.iatt {
            Some(iatt) => iatt.file_type(),
            None => FileType::from_mode(self.entry.d_type << 12),
        }
    }

    /// Its attributes, where the brick sent them along (it nearly always does).
    pub fn metadata(&self) -> Option<Metadata> {
        self.entry.iatt.as_ref().filter(|iatt| !iatt.gfid.is_null()).map(|iatt| Metadata::new(Box::new(iatt.clone())))
    }

    /// Where to go on after it: for [`ReadDir::seek`].
    pub fn offset(&self) -> u64 {
        self.entry.offset
    }
}

/// A directory that is being listed. Entries come in no order; `.` and `..` are left out.
pub struct ReadDir {
    worker: Arc<Worker>,
    identity: Identity,
    file: File,
    ready: VecDeque<DirEntry>,
    /// Where the next listing starts.
    offset: u64,
    ended: bool,
}

impl ReadDir {
    pub(super) async fn open(volume: &Volume, names: Names) -> Result<ReadDir> {
        let (worker, identity) = (volume.worker.clone(), volume.identity.clone());
        let opened = worker.run_or_undo(
            &identity,
            move |local| async move {
                let directory = local.inode(names, true).await?;
                if !directory.is_dir() {
                    return Err(FopError::new(errno::ENOTDIR, "no directory"));
                }
                let (gfid, fd) = (directory.gfid, local.fresh_fd());
                match local.submit(Fop::Opendir { gfid, fd, xdata: Dict::new() }).await? {
                    Reply::Done { .. } => Ok(File { gfid, fd: Some(fd) }),
                    reply => Err(unexpected(&reply)),
                }
            },
            release,
        );
        let file = opened.await?;
        Ok(ReadDir { worker, identity, file, ready: VecDeque::new(), offset: 0, ended: false })
    }

    /// Identity of the directory.
    pub fn gfid(&self) -> Gfid {
        self.file.gfid
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// ENOTCONN, EIO, ESTALE when the directory is gone.
    pub async fn next_entry(&mut self) -> Result<Option<DirEntry>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            if self.ended {
                return Ok(None);
            }
            let (file, offset) = (self.file, self.offset);
            let listed = self.worker.run(&self.identity, move |local| async move {
                let fop = Fop::Readdirp { file, offset, size_bytes: LISTING_BYTES, xdata: Dict::new() };
                match local.submit(fop).await? {
                    Reply::Entries { entries, .. } => Ok(entries),
                    reply => Err(unexpected(&reply)),
                }
            });
            let entries = listed.await?;
            self.ended = entries.is_empty();
            if let Some(last) = entries.last() {
                if last.offset == self.offset {
                    return Err(FopError::new(errno::EIO, "a listing of the directory goes round in a circle").into());
                }
                self.offset = last.offset;
            }
            let shown = |entry: &fop::DirEntry| {
                let bad = entry.name.is_empty() || entry.name.iter().any(|b| matches!(b, 0 | b'/'));
                !bad && entry.name != "." && entry.name != ".."
            };
            self.ready.extend(entries.into_iter().filter(shown).map(|entry| DirEntry { entry }));
        }
    }

    /// Goes on after the entry with this [`DirEntry::offset`]; 0 begins anew.
    pub fn seek(&mut self, offset: u64) {
        self.ready.clear();
        self.offset = offset;
        self.ended = false;
    }
}

impl Drop for ReadDir {
    fn drop(&mut self) {
        release(&self.worker, self.file);
    }
}

fn release(worker: &Arc<Worker>, file: File) {
    worker.detached(Identity::of_process().context(), move |local| async move {
        if let Err(error) = local.submit(Fop::Releasedir { file }).await {
            tracing::debug!(gfid = %file.gfid, "releasedir: {error}");
        }
    });
}
