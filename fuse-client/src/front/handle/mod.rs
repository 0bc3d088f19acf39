//! From a [`Call`] to fops, and from their replies to an [`Answer`], as GlusterFS's mount does it.

pub mod abandoned;
mod attributes;
mod directory;
mod entry;
mod file;
mod lock;
#[cfg(test)]
mod tests;
pub(crate) mod xattr;

use std::sync::Arc;

use ladrillo_translator::error::errno;
use ladrillo_translator::{Context, Fop, FopError, FopResult, Gfid, Payload, Reply};

use super::Front;
use super::answer::Answer;
use super::open::OpenFile;
use super::parse::{Call, Header};

/// Handles one request to its answer. `data` is what a [`Call::Write`] writes.
pub async fn handle(front: Arc<Front>, header: Header, call: Call, data: Payload) -> Answer {
    let request = Request { front: &front, header: &header };
    match request.run(call, data).await {
        Ok(answer) => answer,
        Err(error) => {
            let (unique, code, nodeid) = (header.unique, header.opcode, header.nodeid);
            tracing::debug!(unique, opcode = code, nodeid, "{error}");
            error.into()
        }
    }
}

/// Handles what needs no waiting and no order: FORGET and INTERRUPT. `None`: not one of these.
pub fn handle_at_once(front: &Front, call: &Call) -> Option<Answer> {
    match call {
        Call::Forget(forgets) => {
            for (nodeid, count) in forgets {
                front.inodes.forget(*nodeid, *count);
            }
            Some(Answer::Silent)
        }
        Call::Interrupt { unique } => {
            lock::interrupt(front, *unique);
            Some(Answer::Silent)
        }
        _ => None,
    }
}

struct Request<'a> {
    front: &'a Arc<Front>,
    header: &'a Header,
}

type Outcome = Result<Answer, FopError>;

/// A reply of a kind that does not answer the fop: a translator below is wrong.
fn unexpected(reply: &Reply) -> FopError {
    let kind = format!("{reply:?}");
    let kind = kind.split([' ', '{']).next().unwrap_or_default();
    FopError::new(errno::EIO, format!("the graph answered {kind}, which is no answer to this fop"))
}

/// A fop on an inode that is gone says ESTALE: the kernel then looks the path up again.
fn stale(error: FopError) -> FopError {
    if error.errno == errno::ENOENT { FopError { errno: errno::ESTALE, ..error } } else { error }
}

impl Request<'_> {
    async fn run(&self, call: Call, data: Payload) -> Outcome {
        if self.front.options.read_only && changes(&call) {
            return Err(FopError::new(errno::EROFS, "mounted read-only"));
        }
        match call {
            Call::Lookup { name } => self.lookup(name).await,
            Call::Forget(_) | Call::Interrupt { .. } => Ok(handle_at_once(self.front, &call).unwrap_or(Answer::Silent)),
            Call::Getattr { fh } => self.getattr(fh).await,
            Call::Statx { fh } => self.statx(fh).await,
            // The kernel answers EOPNOTSUPP for ENOSYS, and does not ask again.
            Call::Tmpfile => Err(FopError::new(errno::ENOSYS, "there are no files without a name")),
            Call::Setattr(what) => self.setattr(*what).await,
            Call::Readlink => self.readlink().await,
            Call::Symlink { name, target } => self.symlink(name, target).await,
            Call::Mknod { name, mode, rdev, umask } => self.mknod(name, mode, rdev, umask).await,
            Call::Mkdir { name, mode, umask } => self.mkdir(name, mode, umask).await,
            Call::Unlink { name } => self.unlink(name).await,
            Call::Rmdir { name } => self.rmdir(name).await,
            Call::Rename { name, new_parent, new_name, flags } => self.rename(name, new_parent, new_name, flags).await,
            Call::Link { nodeid, name } => self.link(nodeid, name).await,
            Call::Open { flags } => self.open(flags).await,
            Call::Create { name, flags, mode, umask } => self.create(name, flags, mode, umask).await,
            Call::Read { fh, offset, size_bytes, flags, lock_owner } => {
                self.read(fh, offset, size_bytes, flags, lock_owner).await
            }
            Call::Write { fh, offset, flags, lock_owner, .. } => self.write(fh, offset, flags, lock_owner, data).await,
            Call::Statfs => self.statfs().await,
            Call::Release { fh, flock_owner, .. } => self.release(fh, flock_owner),
            Call::Fsync { fh, datasync } => self.fsync(fh, datasync).await,
            Call::Setxattr { name, value, flags } => self.setxattr(name, value, flags).await,
            Call::Getxattr { name, size_bytes } => self.getxattr(name, size_bytes).await,
            Call::Listxattr { size_bytes } => self.listxattr(size_bytes).await,
            Call::Removexattr { name } => self.removexattr(name).await,
            Call::Flush { fh, lock_owner } => self.flush(fh, lock_owner).await,
            Call::Opendir { flags } => self.opendir(flags).await,
            Call::Readdir { fh, offset, size_bytes, plus } => self.readdir(fh, offset, size_bytes, plus).await,
            Call::Releasedir { fh } => self.releasedir(fh),
            Call::Fsyncdir { fh, datasync } => self.fsyncdir(fh, datasync).await,
            Call::Getlk { fh, flock } => self.getlk(fh, flock).await,
            Call::Setlk { fh, flock, wait } => self.setlk(fh, flock, wait).await,
            Call::Access { mask } => self.access(mask).await,
            Call::Lseek { fh, offset, whence } => self.lseek(fh, offset, whence).await,
            Call::Fallocate { fh, offset, len, mode } => self.fallocate(fh, offset, len, mode).await,
            Call::CopyFileRange { fh, offset, to_fh, to_offset, len, flags, .. } => {
                self.copy_file_range(fh, offset, to_fh, to_offset, len, flags).await
            }
            Call::Destroy => Ok(Answer::ok()),
        }
    }

    fn context(&self) -> Context {
        self.front.context(self.header, None)
    }

    async fn submit(&self, fop: Fop) -> FopResult {
        self.front.top.submit(&self.context(), fop).await
    }

    async fn submit_as(&self, lock_owner: Option<u64>, fop: Fop) -> FopResult {
        self.front.top.submit(&self.front.context(self.header, lock_owner), fop).await
    }

    /// The gfid behind a nodeid.
    fn gfid_of(&self, nodeid: u64) -> FopResult<Gfid> {
        let known = self.front.inodes.gfid(nodeid);
        known.ok_or_else(|| FopError::new(errno::ESTALE, format!("nodeid {nodeid} is not known")))
    }

    /// The gfid the request is about.
    fn gfid(&self) -> FopResult<Gfid> {
        self.gfid_of(self.header.nodeid)
    }

    fn open_file(&self, fh: u64) -> FopResult<OpenFile> {
        self.front.files.get(fh).ok_or_else(|| FopError::new(errno::EBADF, format!("fh {fh} is not open")))
    }
}

/// Whether a call is refused on a read-only mount.
fn changes(call: &Call) -> bool {
    const O_ACCMODE: u32 = 3;
    match call {
        Call::Open { flags } => flags & O_ACCMODE != 0,
        Call::Setattr(_)
        | Call::Symlink { .. }
        | Call::Mknod { .. }
        | Call::Mkdir { .. }
        | Call::Unlink { .. }
        | Call::Rmdir { .. }
        | Call::Rename { .. }
        | Call::Link { .. }
        | Call::Create { .. }
        | Call::Write { .. }
        | Call::Setxattr { .. }
        | Call::Removexattr { .. }
        | Call::Fallocate { .. }
        | Call::CopyFileRange { .. } => true,
        _ => false,
    }
}
