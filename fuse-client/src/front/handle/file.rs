//! Open files: data, its durability, its space.

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{File, Flock, LockCmd, LockType, SeekWhat};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Dict, Fop, FopError, FopResult, Iatt, LockOwner, Payload, Reply};

use super::{Outcome, Request, stale, unexpected};
use crate::executor;
use crate::front::answer::{self, Answer};
use crate::front::open::OpenFile;

impl Request<'_> {
    pub(super) async fn open(&self, flags: u32) -> Outcome {
        let gfid = self.gfid()?;
        let fd = self.front.files.fresh();
        match self.submit(Fop::Open { gfid, flags, fd, xdata: Dict::new() }).await.map_err(stale)? {
            Reply::Done { .. } => {}
            reply => return Err(unexpected(&reply)),
        }
        let fh = self.front.files.insert(OpenFile { gfid, fd, flags });
        self.front.inodes.opened(gfid, fd);
        let options = &self.front.options;
        let open_flags = answer::open_flags(options.direct_io, options.keep_cache, flags);
        let (front, header) = (self.front.clone(), *self.header);
        let undo = Box::new(move || Request { front: &front, header: &header }.close(fh));
        Ok(Answer::Body { parts: vec![answer::opened(fh, open_flags)], undo: Some(undo) })
    }

    /// The kernel, or nobody, has `fh` any more.
    pub(super) fn close(&self, fh: u64) {
        if let Some(file) = self.front.files.remove(fh) {
            self.front.held.forget_fd(file.gfid, file.fd);
            self.front.inodes.closed(file.gfid, file.fd);
            self.release_later(file);
        }
    }

    pub(super) fn release(&self, fh: u64, flock_owner: Option<u64>) -> Outcome {
        let Some(owner) = flock_owner else {
            self.close(fh);
            return Ok(Answer::ok());
        };
        // The file may hold a flock(2) lock, which ends with it: release it before the file is forgotten.
        let Some(file) = self.front.files.remove(fh) else { return Ok(Answer::ok()) };
        self.front.held.forget_fd(file.gfid, file.fd);
        self.front.inodes.closed(file.gfid, file.fd);
        let (front, context) = (self.front.clone(), self.front.context(self.header, Some(owner)));
        let busy = self.front.begin();
        executor::spawn(async move {
            let _busy = busy;
            let owner = LockOwner::from_u64(owner);
            let flock = Flock { kind: LockType::Unlock, whence: 0, start: 0, len: 0, pid: 0, owner };
            let unlock = Fop::Lk { file: file.file(), cmd: LockCmd::Set, flock, xdata: Dict::new() };
            for fop in [unlock, Fop::Release { file: file.file() }] {
                if let Err(error) = front.top.submit(&context, fop).await {
                    tracing::debug!(gfid = %file.gfid, "release: {error}");
                }
            }
        });
        Ok(Answer::ok())
    }

    pub(super) async fn read(
        &self,
        fh: u64,
        offset: u64,
        size_bytes: u32,
        flags: u32,
        lock_owner: Option<u64>,
    ) -> Outcome {
        let file = self.open_file(fh)?.file();
        let fop = Fop::Read { file, offset, size_bytes, flags, xdata: Dict::new() };
        match self.submit_as(lock_owner, fop).await? {
            Reply::Read { data, .. } => {
                // The kernel refuses an answer longer than it asked for.
                Ok(Answer::bytes(data.slice(0, size_bytes as usize).into_bytes()))
            }
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn write(
        &self,
        fh: u64,
        offset: u64,
        flags: u32,
        lock_owner: Option<u64>,
        data: Payload,
    ) -> Outcome {
        let file = self.open_file(fh)?.file();
        let written_to = file;
        let size = data.len();
        let fop = Fop::Write { file, offset, data, flags, xdata: Dict::new() };
        match self.submit_as(lock_owner, fop).await? {
            Reply::PrePost { written, attrs, .. } if written as usize <= size => {
                self.drop_set_id(written_to, &attrs.post).await?;
                Ok(Answer::bytes(answer::count(written)))
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// A write by others than root takes a file's set-id bits. The kernel sees to that itself, except where a write goes
    /// around its cache.
    async fn drop_set_id(&self, file: File, post: &Iatt) -> FopResult<()> {
        let Some(mode) = without_set_id(post.mode).filter(|_| self.header.uid != 0) else { return Ok(()) };
        let valid = SetattrValid(SetattrValid::MODE);
        let iatt = Box::new(Iatt { gfid: file.gfid, mode, ..Iatt::default() });
        self.submit(Fop::Fsetattr { file, iatt, valid, xdata: Dict::new() }).await.map(drop)
    }

    pub(super) async fn flush(&self, fh: u64, lock_owner: u64) -> Outcome {
        let file = self.open_file(fh)?.file();
        self.front.held.forget_owner(file.gfid, &LockOwner::from_u64(lock_owner));
        match self.submit_as(Some(lock_owner), Fop::Flush { file, xdata: Dict::new() }).await? {
            Reply::Done { .. } => Ok(Answer::ok()),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn fsync(&self, fh: u64, datasync: bool) -> Outcome {
        let file = self.open_file(fh)?.file();
        match self.submit(Fop::Fsync { file, datasync, xdata: Dict::new() }).await? {
            Reply::PrePost { .. } | Reply::Done { .. } => Ok(Answer::ok()),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn lseek(&self, fh: u64, offset: u64, whence: u32) -> Outcome {
        let what = match whence as i32 {
            libc::SEEK_DATA => SeekWhat::Data,
            libc::SEEK_HOLE => SeekWhat::Hole,
            _ => return Err(FopError::new(errno::EINVAL, format!("lseek whence {whence}"))),
        };
        let file = self.open_file(fh)?.file();
        match self.submit(Fop::Seek { file, offset, what, xdata: Dict::new() }).await? {
            Reply::Seek { offset, .. } => Ok(Answer::bytes(answer::offset(offset))),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn fallocate(&self, fh: u64, offset: u64, len: u64, mode: u32) -> Outcome {
        const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE as u32;
        const PUNCH_HOLE: u32 = libc::FALLOC_FL_PUNCH_HOLE as u32;
        const ZERO_RANGE: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;
        let file = self.open_file(fh)?.file();
        let xdata = Dict::new();
        let fop = match mode {
            mode if mode & PUNCH_HOLE != 0 && mode & !(PUNCH_HOLE | KEEP_SIZE) == 0 => {
                Fop::Discard { file, offset, len, xdata }
            }
            // ZEROFILL extends the file; with KEEP_SIZE it would say the wrong thing.
            ZERO_RANGE => Fop::Zerofill { file, offset, len, xdata },
            0 | KEEP_SIZE => Fop::Fallocate { file, flags: mode, offset, len, xdata },
            mode => return Err(FopError::new(errno::EOPNOTSUPP, format!("fallocate mode {mode:#x}"))),
        };
        match self.submit(fop).await? {
            Reply::PrePost { .. } => Ok(Answer::ok()),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn copy_file_range(
        &self,
        fh: u64,
        offset: u64,
        to_fh: u64,
        to_offset: u64,
        len: u64,
        flags: u64,
    ) -> Outcome {
        let (from, to) = (self.open_file(fh)?.file(), self.open_file(to_fh)?.file());
        // The answer counts in 32 bits.
        let len = len.min(u64::from(u32::MAX) & !0xfff);
        let flags = u32::try_from(flags).map_err(|_| FopError::new(errno::EINVAL, "copy_file_range flags"))?;
        let fop = Fop::CopyFileRange { from, from_offset: offset, to, to_offset, len, flags, xdata: Dict::new() };
        match self.submit(fop).await? {
            Reply::CopyFileRange { copied, .. } => Ok(Answer::bytes(answer::count(copied))),
            reply => Err(unexpected(&reply)),
        }
    }
}

/// A mode without its set-id bits, where it has any. A set-group-id bit without the group's execute bit means something
/// else (mandatory locking).
fn without_set_id(mode: u32) -> Option<u32> {
    let group = if mode & 0o010 != 0 { mode & 0o2000 } else { 0 };
    let bits = mode & 0o4000 | group;
    (bits != 0).then_some(mode & !bits)
}

#[cfg(test)]
mod tests {
    use super::without_set_id;

    #[test]
    fn set_id_bits_fall() {
        assert_eq!(without_set_id(0o106_777), Some(0o100_777));
        assert_eq!(without_set_id(0o104_644), Some(0o100_644));
        assert_eq!(without_set_id(0o102_644), None);
        assert_eq!(without_set_id(0o102_654), Some(0o100_654));
        assert_eq!(without_set_id(0o100_777), None);
    }
}
