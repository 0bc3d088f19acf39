//! Open files and directories: on which children each is open, and which child a listing comes from.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::error::errno::EBADFD;
use ladrillo_translator::fop::{File, FopKind, Name};
use ladrillo_translator::{FdId, Fop, FopError, FopResult, Gfid, Payload};
use parking_lot::Mutex;

use super::Replicate;
use super::inode::Inode;
use super::mask::{MAX_CHILDREN, Mask};

/// Open flags that must not be repeated on a reopen.
const ONCE_ONLY: u32 = (libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC) as u32;

/// Flags of a file whose writes mean something else through an anonymous fd: an appending one would go to an offset.
const WRITE_FLAGS: u32 = (libc::O_APPEND | libc::O_SYNC | libc::O_DSYNC) as u32;
/// A reopen that failed is not tried again sooner.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What reports errors of writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Telling {
    Fsync = 0,
    Flush = 1,
}

/// An open file or directory.
pub(crate) struct OpenFile {
    pub gfid: Gfid,
    pub flags: u32,
    pub is_dir: bool,
    /// Locks held through it are lost: nothing but closing it works.
    pub spoiled: AtomicBool,
    /// Its inode, which is remembered as long as it is open: errors of writes are there. None of a directory.
    pub inode: Option<Arc<Inode>>,
    /// Errors of the inode's writes that its fsyncs, and its flushes, need not report (any more).
    told: Mutex<[u64; 2]>,
    opened: Mutex<Opened>,
    pub listing: Mutex<Listing>,
}

#[derive(Default)]
struct Opened {
    on: Mask,
    /// At which loss count an open was last tried on each child, plus one.
    tried: [u64; MAX_CHILDREN],
    /// When it may be tried again at the same count.
    retry_at: [Duration; MAX_CHILDREN],
}

/// A directory listing under way.
#[derive(Default)]
pub(crate) struct Listing {
    /// Child it comes from.
    pub child: Option<usize>,
    /// Offset after each entry, and its name, as handed out by `child`; dropped when it grows too long.
    pub seen: Vec<(u64, Name)>,
    /// Names handed out by a child that was lost: not to be handed out again.
    pub skip: HashSet<Name>,
    /// Too long to be continued on another child.
    pub too_long: bool,
}

impl OpenFile {
    fn new(gfid: Gfid, flags: u32, inode: Option<Arc<Inode>>, on: Mask) -> OpenFile {
        let opened = Mutex::new(Opened { on, ..Opened::default() });
        // As Linux has it: what no fsync has reported yet is for who opens the file next, too.
        let told = inode.as_ref().map_or([0; 2], |inode| {
            let (errors, seen) = inode.session.lock().errors();
            [seen, errors]
        });
        OpenFile {
            gfid,
            flags,
            is_dir: inode.is_none(),
            spoiled: AtomicBool::new(false),
            inode,
            told: Mutex::new(told),
            opened,
            listing: Mutex::default(),
        }
    }

    /// Children it is open on.
    pub fn on(&self) -> Mask {
        self.opened.lock().on
    }
}

impl Replicate {
    pub(super) fn open_file(&self, fd: FdId) -> Option<Arc<OpenFile>> {
        self.files.lock().get(&fd).cloned()
    }

    /// Remembers that `fd` is open on `on`.
    pub(super) fn note_open(&self, fd: FdId, gfid: Gfid, flags: u32, is_dir: bool, on: Mask) {
        let inode = (!is_dir).then(|| self.inodes.intern(gfid));
        self.files.lock().insert(fd, Arc::new(OpenFile::new(gfid, flags, inode, on)));
    }

    /// What the writes of `inode` could not keep and `file` has not been told by a fop of this kind: each open file is told
    /// by an fsync of its own, whatever others heard. The flush that ends one's use of a file (a child process's, a
    /// reader's) takes nothing away from it. An anonymous file is told what no fsync has reported.
    pub(super) fn untold_error(&self, inode: &Inode, file: Option<File>, telling: Telling) -> Option<FopError> {
        let open = file.and_then(|file| file.fd).and_then(|fd| self.open_file(fd));
        let mut session = inode.session.lock();
        let (errors, seen) = session.errors();
        let told = match open {
            Some(open) => std::mem::replace(&mut open.told.lock()[telling as usize], errors),
            None => seen,
        };
        let error = session.error_after(told);
        if matches!(telling, Telling::Fsync) {
            session.all_seen();
        }
        error
    }

    /// Opens `file` on those of `among` where it is not open yet (children that were down when it was opened). A
    /// child where it fails is used through an anonymous fd, or misses what cannot go that way, and asked again later.
    pub(super) async fn reopen(&self, file: &File, among: Mask) {
        let Some(fd) = file.fd else { return };
        let Some(open) = self.open_file(fd) else { return };
        let view = self.view();
        let missing: Mask = {
            let mut opened = open.opened.lock();
            let now = self.runtime.now();
            let is_due =
                |child: &usize| opened.tried[*child] != view.losses[*child] + 1 || now >= opened.retry_at[*child];
            let missing: Mask = (among - opened.on).iter().filter(is_due).collect();
            for child in missing.iter() {
                opened.tried[child] = view.losses[child] + 1;
                opened.retry_at[child] = now + RETRY_INTERVAL;
            }
            missing
        };
        if missing.is_empty() {
            return;
        }
        let fop = if open.is_dir {
            Fop::Opendir { gfid: open.gfid, fd, xdata: Default::default() }
        } else {
            Fop::Open { gfid: open.gfid, flags: open.flags & !ONCE_ONLY, fd, xdata: Default::default() }
        };
        let replies = self.send(missing, &self.root_context(0), |_| fop.clone()).await;
        if self.open_file(fd).is_none() {
            // Released meanwhile.
            let file = File { gfid: open.gfid, fd: Some(fd) };
            let release = if open.is_dir { Fop::Releasedir { file } } else { Fop::Release { file } };
            self.send(missing, &self.root_context(0), |_| release.clone()).await;
            return;
        }
        let mut opened = open.opened.lock();
        for (child, reply) in replies {
            match reply {
                Ok(_) => opened.on.add(child),
                Err(error) => tracing::debug!(child, %error, gfid = %open.gfid, "reopen failed"),
            }
        }
    }

    /// `fop` as `child` can take it: files that are not open there become anonymous.
    ///
    /// # Errors
    /// EBADFD: a write to a file whose flags matter there (O_APPEND, O_SYNC).
    pub(super) fn for_child(&self, fop: &Fop, child: usize) -> FopResult<Fop> {
        let mut fop = fop.clone();
        // The child forgets a released file by its number whether or not it was opened there.
        if matches!(fop.kind(), FopKind::Release | FopKind::Releasedir) {
            return Ok(fop);
        }
        if self.arbiters().has(child) {
            fop = without_contents(fop);
        }
        let is_write = matches!(fop.kind(), FopKind::Write | FopKind::CopyFileRange);
        // Of a copy's files the last is written.
        let mut flags = 0;
        for file in fop.files_mut().into_iter().flatten() {
            let open = file.fd.and_then(|fd| self.open_file(fd));
            let open_there = open.as_ref().is_some_and(|open| open.on().has(child));
            flags = open.map(|open| open.flags).filter(|_| !open_there).unwrap_or(0);
            if !open_there {
                file.fd = None;
            }
        }
        if is_write && flags & WRITE_FLAGS != 0 {
            return Err(FopError::new(EBADFD, format!("{}: the file is not open on child {child}", self.name)));
        }
        Ok(fop)
    }
}

/// What an arbiter gets of a change of contents: a byte stands for all of them, as in AFR.
fn without_contents(fop: Fop) -> Fop {
    let byte = || Payload::from_bytes(Bytes::from_static(&[0xff]));
    match fop {
        Fop::Write { file, offset, data, flags, xdata } if !data.is_empty() => {
            Fop::Write { file, offset, data: byte(), flags, xdata }
        }
        Fop::CopyFileRange { to, to_offset, xdata, .. } => {
            Fop::Write { file: to, offset: to_offset, data: byte(), flags: 0, xdata }
        }
        fop => fop,
    }
}
