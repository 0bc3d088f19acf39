//! Open files.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{self, LockCmd, LockType, SeekWhat};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Iatt, LockOwner, Payload, Reply, Value};

use parking_lot::Mutex;

use super::error::{Error, Result, unexpected};
use super::lock::{LockKind, LockRange};
use super::metadata::Metadata;
use super::path::{Found, Names};
use super::volume::{Identity, Volume, new_inode};
use super::worker::{Local, Worker};
use crate::executor::timeout;
use crate::front::handle::abandoned;
use crate::front::handle::xattr::value_bytes;

/// Most bytes of one read or write on the wire; longer ones are done in pieces. Source: GlusterFS's FUSE asks for at
/// most 1 MiB.
const MAX_IO_BYTES: usize = 1 << 20;
/// How long a lock that is not to wait does so for a wait of its file that was dropped to be settled.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);
/// How often an open that creates tries again when others create and remove the file meanwhile.
const MAX_RACES: usize = 8;

/// How a file is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    sync: bool,
    create: Option<u32>,
    create_new: Option<u32>,
}

impl OpenOptions {
    /// To do nothing yet.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// To be read.
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.read = read;
        self
    }

    /// To be written.
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.write = write;
        self
    }

    /// Every write goes to the file's end, whoever else writes (O_APPEND).
    pub fn append(&mut self, append: bool) -> &mut OpenOptions {
        self.append = append;
        self
    }

    /// Emptied first.
    pub fn truncate(&mut self, truncate: bool) -> &mut OpenOptions {
        self.truncate = truncate;
        self
    }

    /// A write ends when it is durable on a quorum of bricks (O_SYNC).
    pub fn sync(&mut self, sync: bool) -> &mut OpenOptions {
        self.sync = sync;
        self
    }

    /// Made with these permissions where it is not there.
    pub fn create(&mut self, mode: u32) -> &mut OpenOptions {
        self.create = Some(mode);
        self
    }

    /// Made with these permissions; EEXIST where it is there.
    pub fn create_new(&mut self, mode: u32) -> &mut OpenOptions {
        self.create_new = Some(mode);
        self
    }

    fn flags(&self) -> FopResult<u32> {
        let writes = self.write || self.append;
        let mut flags = match (self.read, writes) {
            (true, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
            (false, false) => return Err(FopError::new(errno::EINVAL, "neither read, write nor append is asked for")),
        };
        if !writes && (self.truncate || self.create.is_some() || self.create_new.is_some()) {
            return Err(FopError::new(errno::EINVAL, "truncate and create need write or append"));
        }
        if self.append {
            flags |= libc::O_APPEND;
        }
        if self.sync {
            flags |= libc::O_SYNC;
        }
        Ok(flags as u32)
    }
}

/// An open file. Dropping it closes it; [`File::close`] says whether all went well.
pub struct File {
    worker: Arc<Worker>,
    identity: Identity,
    file: fop::File,
    /// Its locks belong to it, whoever else of this process has the file open.
    owner: LockOwner,
    closed: bool,
}

fn post(reply: Reply) -> FopResult<()> {
    match reply {
        Reply::PrePost { .. } | Reply::Done { .. } => Ok(()),
        reply => Err(unexpected(&reply)),
    }
}

impl File {
    pub(super) async fn open(volume: &Volume, names: Names, options: &OpenOptions) -> Result<File> {
        let (worker, identity) = (volume.worker.clone(), volume.identity.clone());
        let (flags, options) = (options.flags()?, options.clone());
        // Owners are opaque bytes, which no two openers of the volume may share.
        let owner = LockOwner(Bytes::copy_from_slice(&Gfid::random().0));
        let of_closed = owner.clone();
        let opened = worker.run_or_undo(
            &identity,
            move |local| async move {
                if flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32 {
                    local.writable()?;
                }
                open(&local, names, flags, &options).await
            },
            move |worker, file| release(worker, Identity::of_process().context(), file, of_closed),
        );
        let file = opened.await?;
        Ok(File { worker, identity, file, owner, closed: false })
    }

    async fn submit(&self, make: impl FnOnce(fop::File) -> Fop) -> Result<Reply> {
        let (fop, owner) = (make(self.file), self.owner.clone());
        let run = self.worker.run(&self.identity, move |mut local| async move {
            local.context.lock_owner = owner;
            local.submit(fop).await
        });
        run.await
    }

    async fn change(&self, make: impl FnOnce(fop::File) -> Fop) -> Result<()> {
        Ok(post(self.submit(make).await?)?)
    }

    /// GlusterFS's identity of the file.
    pub fn gfid(&self) -> Gfid {
        self.file.gfid
    }

    /// Up to `length` bytes from `offset` on, in one request: fewer at the file's end, and at most 1 MiB. Empty at or
    /// beyond the end.
    ///
    /// # Errors
    /// EBADF when it is not open for reading; EIO, ENOTCONN.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let size_bytes = length.min(MAX_IO_BYTES) as u32;
        match self.submit(|file| Fop::Read { file, offset, size_bytes, flags: 0, xdata: Dict::new() }).await? {
            Reply::Read { data, .. } => Ok(data.slice(0, size_bytes as usize).into_bytes()),
            reply => Err(unexpected(&reply).into()),
        }
    }

    /// Fills `buffer` from `offset` on; how much of it was filled is less only at the file's end.
    ///
    /// # Errors
    /// As [`File::read_at`].
    pub async fn read_full_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let data = self.read_at(offset.saturating_add(filled as u64), rest.len()).await?;
            if data.is_empty() {
                break;
            }
            for (to, from) in rest.iter_mut().zip(&data) {
                *to = *from;
            }
            filled += data.len();
        }
        Ok(filled)
    }

    /// Writes up to 1 MiB of `data` at `offset` (at the end, where the file is open for appending) in one request, and
    /// says how much of it was written. The buffer is not copied.
    ///
    /// # Errors
    /// EBADF, ENOSPC, EFBIG, EDQUOT, EROFS; EIO, ENOTCONN: fewer than a quorum of bricks took it.
    pub async fn write_at(&self, offset: u64, data: impl Into<Bytes>) -> Result<usize> {
        let mut data: Bytes = data.into();
        data.truncate(MAX_IO_BYTES);
        let length = data.len();
        if length == 0 {
            return Ok(0);
        }
        let payload = Payload::from_bytes(data);
        match self.submit(|file| Fop::Write { file, offset, data: payload, flags: 0, xdata: Dict::new() }).await? {
            Reply::PrePost { written, .. } if written as usize <= length => Ok(written as usize),
            reply => Err(unexpected(&reply).into()),
        }
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// As [`File::write_at`]; what was written before the failure stays.
    pub async fn write_all_at(&self, offset: u64, data: impl Into<Bytes>) -> Result<()> {
        let mut data: Bytes = data.into();
        let mut at = offset;
        while !data.is_empty() {
            let written = self.write_at(at, data.clone()).await?;
            if written == 0 {
                return Err(Error::new(errno::EIO, "a brick wrote nothing of what was sent"));
            }
            at = at.saturating_add(written as u64);
            data = data.split_off(written);
        }
        Ok(())
    }

    /// Attributes.
    ///
    /// # Errors
    /// ENOTCONN, EIO, ESTALE. So may all other calls below fail.
    pub async fn metadata(&self) -> Result<Metadata> {
        match self.submit(|file| Fop::Fstat { file, xdata: Dict::new() }).await? {
            Reply::Iatt { iatt, .. } => Ok(Metadata::new(iatt)),
            reply => Err(unexpected(&reply).into()),
        }
    }

    /// Waits until contents and attributes are durable on a quorum of bricks.
    ///
    /// # Errors
    /// Also those of earlier writes.
    pub async fn sync_all(&self) -> Result<()> {
        self.change(|file| Fop::Fsync { file, datasync: false, xdata: Dict::new() }).await
    }

    /// Waits until contents are durable on a quorum of bricks.
    ///
    /// # Errors
    /// Also those of earlier writes.
    pub async fn sync_data(&self) -> Result<()> {
        self.change(|file| Fop::Fsync { file, datasync: true, xdata: Dict::new() }).await
    }

    /// Cuts or extends it.
    ///
    /// # Errors
    /// EINVAL, EBADF, EFBIG, ENOSPC.
    pub async fn set_len(&self, size_bytes: u64) -> Result<()> {
        self.change(|file| Fop::Ftruncate { file, size_bytes, xdata: Dict::new() }).await
    }

    /// Sets permission bits.
    ///
    /// # Errors
    /// EPERM.
    pub async fn set_permissions(&self, permissions: u32) -> Result<()> {
        let iatt = Box::new(Iatt { gfid: self.file.gfid, mode: permissions & 0o7777, ..Iatt::default() });
        let valid = SetattrValid(SetattrValid::MODE);
        self.change(|file| Fop::Fsetattr { file, iatt, valid, xdata: Dict::new() }).await
    }

    /// Reserves space; `keep_size`: the file does not become longer.
    ///
    /// # Errors
    /// ENOSPC, EOPNOTSUPP, EINVAL.
    pub async fn allocate(&self, offset: u64, length: u64, keep_size: bool) -> Result<()> {
        let flags = if keep_size { libc::FALLOC_FL_KEEP_SIZE as u32 } else { 0 };
        self.change(|file| Fop::Fallocate { file, flags, offset, len: length, xdata: Dict::new() }).await
    }

    /// Makes a hole: its bytes read as zero and take no space.
    ///
    /// # Errors
    /// EOPNOTSUPP, EINVAL.
    pub async fn punch_hole(&self, offset: u64, length: u64) -> Result<()> {
        self.change(|file| Fop::Discard { file, offset, len: length, xdata: Dict::new() }).await
    }

    /// Makes bytes zero, and the file longer where they reach beyond its end.
    ///
    /// # Errors
    /// ENOSPC, EOPNOTSUPP, EINVAL.
    pub async fn zero_range(&self, offset: u64, length: u64) -> Result<()> {
        self.change(|file| Fop::Zerofill { file, offset, len: length, xdata: Dict::new() }).await
    }

    /// Where data begins, at `offset` or after it; `None` where there is none any more.
    ///
    /// # Errors
    /// As [`File::metadata`].
    pub async fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        self.seek(offset, SeekWhat::Data).await
    }

    /// Where a hole begins, at `offset` or after it (the file's end is one); `None` beyond the end.
    ///
    /// # Errors
    /// As [`File::metadata`].
    pub async fn next_hole(&self, offset: u64) -> Result<Option<u64>> {
        self.seek(offset, SeekWhat::Hole).await
    }

    async fn seek(&self, offset: u64, what: SeekWhat) -> Result<Option<u64>> {
        match self.submit(|file| Fop::Seek { file, offset, what, xdata: Dict::new() }).await {
            Ok(Reply::Seek { offset, .. }) => Ok(Some(offset)),
            Ok(reply) => Err(unexpected(&reply).into()),
            Err(error) if error.errno() == errno::ENXIO => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the bricks copy a range to another file of the volume, and says how much was copied.
    ///
    /// # Errors
    /// EINVAL, EXDEV or EOPNOTSUPP where the bricks cannot: then read and write.
    pub async fn copy_range_to(&self, offset: u64, to: &File, to_offset: u64, length: u64) -> Result<u64> {
        if !Arc::ptr_eq(&self.worker, &to.worker) {
            return Err(Error::new(errno::EXDEV, "the files are of two volumes"));
        }
        let to = to.file;
        let len = length.min(u64::from(u32::MAX) & !0xfff);
        let fop = move |from| Fop::CopyFileRange {
            from,
            from_offset: offset,
            to,
            to_offset,
            len,
            flags: 0,
            xdata: Dict::new(),
        };
        match self.submit(fop).await? {
            Reply::CopyFileRange { copied, .. } => Ok(u64::from(copied)),
            reply => Err(unexpected(&reply).into()),
        }
    }

    /// The value of an extended attribute; `None` where there is none of that name.
    ///
    /// # Errors
    /// As [`File::metadata`].
    pub async fn xattr(&self, name: &str) -> Result<Option<Bytes>> {
        let key = Bytes::copy_from_slice(name.as_bytes());
        match self.submit(|file| Fop::Fgetxattr { file, name: key, xdata: Dict::new() }).await {
            Ok(Reply::Xattrs { xattrs, .. }) => Ok(xattrs.get(name).map(value_bytes)),
            Ok(reply) => Err(unexpected(&reply).into()),
            Err(error) if error.errno() == errno::ENODATA => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// EPERM, EOPNOTSUPP, ENOSPC, ERANGE.
    pub async fn set_xattr(&self, name: &str, value: impl Into<Bytes>) -> Result<()> {
        let xattrs = Dict::new().with(name.to_owned(), Value::Ptr(value.into()));
        self.change(|file| Fop::Fsetxattr { file, xattrs, flags: 0, xdata: Dict::new() }).await
    }

    /// Locks a range, waiting until it can be had. Locks of one `File` never conflict with each other; they end with
    /// [`File::unlock`], or when it is closed. A wait whose future is dropped leaves no lock.
    ///
    /// # Errors
    /// EDEADLK, ENOLCK, EINVAL, EBADF.
    pub async fn lock(&self, kind: LockKind, range: LockRange) -> Result<()> {
        let flock = range.flock(kind.into(), &self.owner)?;
        let back = fop::Flock { kind: LockType::Unlock, ..flock.clone() };
        let (file, context) = (self.file, self.context());
        let undo_context = context.clone();
        let wait = LockWait::default();
        let settle = Settle(wait.clone());
        let (waiting, asked) = (wait.clone(), flock.clone());
        let waited = self.worker.wait(
            context,
            move |local| async move {
                // A wait of this file for some of the same bytes that was dropped may yet be granted, and is then given
                // back: for the bricks both are one lock.
                local.worker.abandoned.over(file.gfid, &asked).await;
                if !waiting.begin() {
                    return Err(FopError::new(errno::ECANCELED, "nobody waits any more"));
                }
                local.submit(Fop::Lk { file, cmd: LockCmd::SetWait, flock: asked, xdata: Dict::new() }).await?;
                Ok(settle)
            },
            move |worker, settle| {
                // Granted after nobody wanted it any more.
                worker.detached(undo_context, move |local| async move {
                    let unlock = Fop::Lk { file, cmd: LockCmd::Set, flock: back, xdata: Dict::new() };
                    if let Err(error) = local.submit(unlock).await {
                        tracing::warn!(gfid = %file.gfid, "a lock granted too late was not given back: {error}");
                    }
                    drop(settle);
                });
            },
        );
        let waited = std::pin::pin!(waited);
        // Declared after `waited`, so dropped before it: the wait is noted as abandoned before it can be undone.
        let mut guard = Abandon { of: self, flock: Some(flock), wait };
        let result = waited.await;
        guard.flock = None;
        result.map(drop)
    }

    /// Locks a range if that can be done at once: whether it was.
    ///
    /// # Errors
    /// As [`File::lock`].
    pub async fn try_lock(&self, kind: LockKind, range: LockRange) -> Result<bool> {
        let flock = range.flock(kind.into(), &self.owner)?;
        let (file, owner) = (self.file, self.owner.clone());
        let tried = self.worker.run(&self.identity, move |mut local| async move {
            local.context.lock_owner = owner;
            let busy = |_| FopError::new(errno::EAGAIN, "a wait of the same file that was dropped is not over yet");
            timeout(SETTLE_PATIENCE, local.worker.abandoned.over(file.gfid, &flock)).await.map_err(busy)?;
            local.submit(Fop::Lk { file, cmd: LockCmd::Set, flock, xdata: Dict::new() }).await
        });
        match tried.await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.errno(), errno::EAGAIN | errno::EACCES) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives up the locks on a range.
    ///
    /// # Errors
    /// As [`File::lock`].
    pub async fn unlock(&self, range: LockRange) -> Result<()> {
        let flock = range.flock(LockType::Unlock, &self.owner)?;
        self.submit(|file| Fop::Lk { file, cmd: LockCmd::Set, flock, xdata: Dict::new() }).await.map(drop)
    }

    /// Whether somebody else's lock is in the way of this one.
    ///
    /// # Errors
    /// As [`File::lock`].
    pub async fn is_locked(&self, kind: LockKind, range: LockRange) -> Result<bool> {
        let flock = range.flock(kind.into(), &self.owner)?;
        match self.submit(|file| Fop::Lk { file, cmd: LockCmd::Get, flock, xdata: Dict::new() }).await? {
            Reply::Lk { flock, .. } => Ok(flock.kind != LockType::Unlock),
            reply => Err(unexpected(&reply).into()),
        }
    }

    /// Closes it, and says whether everything written has reached a quorum of bricks.
    ///
    /// # Errors
    /// Those of writes that were answered early. It is closed all the same.
    pub async fn close(mut self) -> Result<()> {
        let flushed = self.submit(|file| Fop::Flush { file, xdata: Dict::new() }).await;
        let flushed = flushed.and_then(|reply| Ok(post(reply)?));
        self.closed = true;
        let (file, owner) = (self.file, self.owner.clone());
        let released = self.worker.run(&self.identity, move |mut local| async move {
            local.context.lock_owner = owner;
            local.submit(Fop::Release { file }).await.map(drop)
        });
        released.await?;
        flushed
    }

    fn context(&self) -> Context {
        Context { lock_owner: self.owner.clone(), ..self.identity.context() }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.closed {
            release(&self.worker, self.identity.context(), self.file, self.owner.clone());
        }
    }
}

/// Where a wait for a lock is; shared by its future and its task.
#[derive(Clone, Default)]
struct LockWait(Arc<Mutex<WaitState>>);

#[derive(Default)]
enum WaitState {
    /// Not with the bricks yet.
    #[default]
    Queued,
    /// With the bricks.
    Waiting,
    /// Its future was dropped; the bricks still have it.
    Abandoned(#[allow(dead_code)] abandoned::AbandonedWait),
    /// Its future was dropped before the bricks had it, or it is over.
    Over,
}

impl LockWait {
    /// It goes to the bricks, unless nobody wants it any more.
    fn begin(&self) -> bool {
        let mut state = self.0.lock();
        let wanted = matches!(*state, WaitState::Queued);
        if wanted {
            *state = WaitState::Waiting;
        }
        wanted
    }
}

/// Ends a wait when dropped.
struct Settle(LockWait);

impl Drop for Settle {
    fn drop(&mut self) {
        *self.0.0.lock() = WaitState::Over;
    }
}

/// A wait for a lock; dropped before its end, it is noted as abandoned, and the bricks are asked to stop waiting
/// (GlusterFS 10's virtual xattr `glusterfs.intrlk`).
struct Abandon<'a> {
    of: &'a File,
    flock: Option<fop::Flock>,
    wait: LockWait,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let Some(flock) = self.flock.take() else { return };
        let file = self.of.file;
        {
            let mut state = self.wait.0.lock();
            *state = match *state {
                WaitState::Waiting => WaitState::Abandoned(self.of.worker.abandoned.begin(file.gfid, &flock)),
                _ => WaitState::Over,
            };
            if !matches!(*state, WaitState::Abandoned(_)) {
                return;
            }
        }
        self.of.worker.detached(self.of.context(), move |local| async move {
            let name = format!("glusterfs.intrlk.tposix.kblocked.{},{}-{}", flock.whence, flock.start, flock.len);
            if let Err(error) = local.submit(Fop::Fgetxattr { file, name: name.into(), xdata: Dict::new() }).await {
                tracing::debug!(gfid = %file.gfid, "intrlk: {error}");
            }
        });
    }
}

/// Closes a file, awaited by nobody. The flush gives up the owner's locks.
fn release(worker: &Arc<Worker>, context: Context, file: fop::File, owner: LockOwner) {
    let context = Context { lock_owner: owner, ..context };
    worker.detached(context, move |local| async move {
        for fop in [Fop::Flush { file, xdata: Dict::new() }, Fop::Release { file }] {
            if let Err(error) = local.submit(fop).await {
                tracing::debug!(gfid = %file.gfid, "release: {error}");
            }
        }
    });
}

async fn open(local: &Local, names: Names, flags: u32, options: &OpenOptions) -> FopResult<fop::File> {
    if let Some(mode) = options.create_new {
        let entry = local.entry(names).await?;
        return create(local, entry, flags, mode).await;
    }
    for _ in 0..MAX_RACES {
        let found = match (local.find(names.clone(), true).await?, options.create) {
            (Found::Inode(iatt), _) => iatt,
            (Found::Missing(entry), Some(mode)) => match create(local, entry, flags, mode).await {
                Err(error) if error.errno == errno::EEXIST => continue, // somebody else was quicker
                result => return result,
            },
            (Found::Missing(entry), None) => {
                return Err(FopError::new(errno::ENOENT, format!("{} is not there", entry.name.escape_ascii())));
            }
        };
        if found.is_dir() {
            return Err(FopError::new(errno::EISDIR, "a directory"));
        }
        let (gfid, fd) = (found.gfid, local.fresh_fd());
        match local.submit(Fop::Open { gfid, flags, fd, xdata: Dict::new() }).await {
            Ok(Reply::Done { .. }) => {}
            Ok(reply) => return Err(unexpected(&reply)),
            Err(error) if matches!(error.errno, errno::ENOENT | errno::ESTALE) && options.create.is_some() => continue,
            Err(error) => return Err(error),
        }
        let file = fop::File { gfid, fd: Some(fd) };
        if options.truncate
            && let Err(error) = local.submit(Fop::Ftruncate { file, size_bytes: 0, xdata: Dict::new() }).await
        {
            let _ = local.submit(Fop::Release { file }).await;
            return Err(error);
        }
        return Ok(file);
    }
    Err(FopError::new(errno::EAGAIN, "others keep making and removing the file"))
}

async fn create(local: &Local, entry: fop::Entry, flags: u32, mode: u32) -> FopResult<fop::File> {
    let fd = local.fresh_fd();
    let flags = flags | (libc::O_CREAT | libc::O_EXCL) as u32;
    let fop = Fop::Create { entry, flags, mode: mode & 0o7777, umask: 0, fd, xdata: new_inode() };
    match local.submit(fop).await? {
        Reply::Entry { iatt, .. } => Ok(fop::File { gfid: iatt.gfid, fd: Some(fd) }),
        reply => Err(unexpected(&reply)),
    }
}
