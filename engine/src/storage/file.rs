//! Files: open, read, write, truncate, space, durability.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{File, PrePost, SeekWhat};
use ladrillo_translator::{
    Context, Dict, FdId, FileType, FopError, FopResult, Gfid, Iatt, Payload, Reply, Value, payload,
};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use sha2::Digest;

use super::brick::{Brick, MAX_UNSAVED};
use super::inode::{Inode, Touch};
use super::sys::{self, Explain};

/// Most bytes one read answers; longer requests are answered short. Source: what fits in a record.
pub const READ_MAX_BYTES: usize = 16 << 20;
/// What O_DIRECT demands of offset, length and memory here; the largest logical block size in use.
const DIRECT_ALIGNMENT: usize = 4096;

/// A file or directory a client holds open.
pub struct OpenFile {
    /// Its inode.
    pub inode: Arc<Inode>,
    /// For I/O.
    pub fd: OwnedFd,
    /// The same with O_DIRECT, when the client asked for it.
    pub direct: Option<OwnedFd>,
    /// Writes go to the disk before they are answered.
    pub sync: bool,
    /// Writes go to the end.
    pub append: bool,
    /// Guards the position of a directory's descriptor.
    pub position: Mutex<()>,
}

/// Open files by id.
#[derive(Default)]
pub struct OpenFiles {
    files: RwLock<HashMap<FdId, Arc<OpenFile>>>,
}

impl OpenFiles {
    /// The open file of `id`.
    pub fn get(&self, id: FdId) -> Option<Arc<OpenFile>> {
        self.files.read().get(&id).cloned()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.files.read().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where an operation finds its file: open, or opened for this once.
pub enum Handle {
    /// A client's descriptor.
    Open(Arc<OpenFile>),
    /// An anonymous one.
    Once(Arc<Inode>, OwnedFd),
}

impl Handle {
    /// For I/O.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Handle::Open(open) => open.fd.as_fd(),
            Handle::Once(_, fd) => fd.as_fd(),
        }
    }

    /// Its inode.
    pub fn inode(&self) -> &Arc<Inode> {
        match self {
            Handle::Open(open) => &open.inode,
            Handle::Once(inode, _) => inode,
        }
    }

    fn sync(&self) -> bool {
        matches!(self, Handle::Open(open) if open.sync)
    }

    fn direct(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Handle::Open(open) => open.direct.as_ref().map(|fd| fd.as_fd()),
            Handle::Once(..) => None,
        }
    }
}

impl Brick {
    /// Registers a descriptor for a client.
    pub fn register(&self, id: FdId, inode: Arc<Inode>, fd: OwnedFd, flags: OFlags) -> FopResult<()> {
        let direct = if flags.contains(OFlags::DIRECT) && inode.kind == FileType::Regular {
            // File systems without O_DIRECT (tmpfs of old) do buffered I/O instead.
            sys::reopen(&inode.path, (flags & OFlags::ACCMODE) | OFlags::DIRECT).ok()
        } else {
            None
        };
        inode.opens.fetch_add(1, Ordering::SeqCst);
        let open = Arc::new(OpenFile {
            inode,
            fd,
            direct,
            sync: flags.intersects(OFlags::SYNC | OFlags::DSYNC),
            append: flags.contains(OFlags::APPEND),
            position: Mutex::new(()),
        });
        let mut files = self.files.files.write();
        if files.contains_key(&id) {
            drop(files);
            self.closed(&open.inode);
            return Err(FopError::new(errno::EBADFD, format!("descriptor {} is in use", id.0)));
        }
        files.insert(id, open);
        Ok(())
    }

    /// Forgets a client's descriptor.
    pub fn release(&self, id: FdId) {
        let open = self.files.files.write().remove(&id);
        if let Some(open) = open {
            self.closed(&open.inode);
        }
    }

    /// Finds the inode of a [`File`], whether it is open or not.
    pub fn inode_of(&self, file: File) -> FopResult<Arc<Inode>> {
        match file.fd {
            Some(id) => match self.files.get(id) {
                Some(open) => Ok(open.inode.clone()),
                None => Err(bad_descriptor(file)),
            },
            None => match self.resolve(file.gfid) {
                Ok(inode) => Ok(inode),
                // Anonymous I/O on a file that only open descriptors hold.
                Err(e) => self.inodes.get_any(file.gfid).ok_or(e),
            },
        }
    }

    /// Finds or opens a file for I/O.
    pub fn handle(&self, file: File, access: OFlags) -> FopResult<Handle> {
        if let Some(id) = file.fd {
            return self.files.get(id).map(Handle::Open).ok_or_else(|| bad_descriptor(file));
        }
        let inode = self.inode_of(file)?;
        if inode.kind != FileType::Regular {
            let errno = if inode.kind == FileType::Directory { errno::EISDIR } else { errno::EINVAL };
            return Err(FopError::new(errno, format!("{} is not a regular file", inode.gfid)));
        }
        let fd = sys::reopen(&inode.path, access).explain(|| format!("opening {}", inode.gfid))?;
        Ok(Handle::Once(inode, fd))
    }

    /// OPEN.
    pub fn open_file(&self, context: &Context, gfid: Gfid, flags: u32, id: FdId) -> FopResult {
        let inode = self.resolve(gfid)?;
        let mut flags = open_flags(flags);
        match inode.kind {
            FileType::Regular => {}
            FileType::Directory => return Err(FopError::new(errno::EISDIR, format!("{gfid} is a directory"))),
            FileType::Symlink => return Err(FopError::new(libc::ELOOP, format!("{gfid} is a symlink"))),
            // The client's kernel opens devices, FIFOs and sockets itself; one opened here could block for ever.
            _ => return Err(FopError::new(errno::EINVAL, format!("{gfid} is not a regular file"))),
        }
        if self.tuned().o_direct {
            flags |= OFlags::DIRECT;
        }
        let fd = sys::reopen(&inode.path, flags & !(OFlags::DIRECT | OFlags::EXCL | OFlags::CREATE))
            .explain(|| format!("opening {gfid}"))?;
        if flags.contains(OFlags::TRUNC) {
            self.touch(context, &inode, Touch::CONTENT);
        }
        self.register(id, inode, fd, flags)?;
        Ok(Reply::done())
    }

    /// Records times where ctime is on; a failure is logged, the operation itself has succeeded.
    pub fn touch(&self, context: &Context, inode: &Inode, touch: Touch) {
        if self.options.ctime
            && let Err(e) = inode.touch(context.birth, touch)
        {
            tracing::warn!(gfid = %inode.gfid, error = %e, "recording times");
        }
    }

    /// Times of a write: the disk gets them when somebody could miss them ([`Brick::save_times`]), not with every write.
    fn touch_written(&self, context: &Context, inode: &Arc<Inode>) {
        if !self.options.ctime {
            return;
        }
        match inode.touch_lazily(context.birth, Touch::CONTENT) {
            Ok(false) => {}
            Ok(true) => {
                let mut unsaved = self.unsaved.lock();
                match unsaved.len() < MAX_UNSAVED {
                    true => unsaved.push(Arc::downgrade(inode)),
                    false => {
                        drop(unsaved);
                        save_or_warn(inode);
                    }
                }
            }
            Err(e) => tracing::warn!(gfid = %inode.gfid, error = %e, "recording times"),
        }
    }

    /// Stores the times of all files written to since this was last called; called every second and at the end.
    ///
    /// Times are also stored before anything that relies on them being there: fsync, a change of marks (a file that was
    /// written to is marked dirty until then, so that healing sets the times of a copy whose brick was killed), close, and
    /// reading the xattr itself.
    pub fn save_times(&self) {
        let unsaved = std::mem::take(&mut *self.unsaved.lock());
        unsaved.iter().filter_map(std::sync::Weak::upgrade).for_each(|inode| save_or_warn(&inode));
    }

    /// READ without waiting for a disk; `None` where it would have to.
    pub fn read_cached(&self, file: File, offset: u64, size_bytes: u32) -> FopResult<Option<Reply>> {
        let Some(handle) = self.cached_handle(file)? else { return Ok(None) };
        let mut data: Vec<u8> = Vec::with_capacity((size_bytes as usize).min(READ_MAX_BYTES));
        let read = match sys::read_cached(handle.fd(), data.spare_capacity_mut(), offset) {
            Ok(n) => n,
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
            Err(e) => return Err(sys::failure(e, &format!("reading {}", handle.inode().gfid))),
        };
        let iatt = handle.inode().iatt()?;
        if read < data.capacity().min(size_bytes as usize) && offset.saturating_add(read as u64) < iatt.size_bytes {
            return Ok(None);
        }
        // SAFETY: the kernel has written the first `read` bytes, which are within the capacity.
        unsafe { data.set_len(read) };
        self.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(Some(read_reply(data, iatt)))
    }

    /// What a cached read goes through, if it is at hand: the inode of an anonymous one has to be known.
    fn cached_handle(&self, file: File) -> FopResult<Option<Handle>> {
        if let Some(id) = file.fd {
            let open = self.files.get(id).ok_or_else(|| bad_descriptor(file))?;
            return Ok(open.direct.is_none().then_some(Handle::Open(open)));
        }
        match self.inodes.get(file.gfid) {
            Some(inode) if inode.kind == FileType::Regular => self.handle(file, OFlags::RDONLY).map(Some),
            _ => Ok(None),
        }
    }

    /// READ. Access times stay as they are: stock clients run with `noatime` and ask for none.
    pub fn read(&self, file: File, offset: u64, size_bytes: u32) -> FopResult {
        let handle = self.handle(file, OFlags::RDONLY)?;
        let gfid = handle.inode().gfid;
        let wanted = (size_bytes as usize).min(READ_MAX_BYTES);
        check_range(offset, wanted as u64)?;
        let data = match handle.direct() {
            Some(fd) if offset.is_multiple_of(DIRECT_ALIGNMENT as u64) && wanted.is_multiple_of(DIRECT_ALIGNMENT) => {
                let mut buffer = AlignedBuffer::new(wanted);
                let n = rustix::io::pread(fd, buffer.as_mut(), offset).explain(|| format!("reading {gfid}"))?;
                payload::count_copy(n);
                buffer.as_ref().get(..n).unwrap_or_default().to_vec()
            }
            _ => read_full(handle.fd(), offset, wanted).explain(|| format!("reading {gfid}"))?,
        };
        self.read_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let iatt = handle.inode().iatt()?;
        Ok(read_reply(data, iatt))
    }

    /// WRITE: the data goes from the buffer it was received in to the file.
    pub fn write(
        &self,
        context: &Context,
        file: File,
        offset: u64,
        data: &Payload,
        flags: u32,
        xdata: &Dict,
    ) -> FopResult {
        self.check_space(context)?;
        check_range(offset, data.len() as u64)?;
        let handle = self.handle(file, OFlags::WRONLY)?;
        let inode = handle.inode();
        let gfid = inode.gfid;
        let pre = inode.iatt()?;
        let append = matches!(&handle, Handle::Open(open) if open.append);
        let mut out = Dict::new();
        if xdata.contains("glusterfs.write-is-append") && (append || offset == pre.size_bytes) {
            out.set("glusterfs.write-is-append", Value::Uint(1));
        }
        let what = || format!("writing {gfid}");
        let mut durable = false;
        let slice = data.as_slice();
        let written = match handle.direct() {
            Some(fd)
                if offset.is_multiple_of(DIRECT_ALIGNMENT as u64) && slice.len().is_multiple_of(DIRECT_ALIGNMENT) =>
            {
                let mut buffer = AlignedBuffer::new(slice.len());
                buffer.as_mut().copy_from_slice(slice);
                payload::count_copy(slice.len());
                write_full(fd, buffer.as_ref(), offset).explain(what)?
            }
            Some(_) => {
                // Not aligned as the device wants: written through the cache, then to the disk.
                durable = true;
                write_full(handle.fd(), slice, offset).explain(what)?
            }
            None => write_full(handle.fd(), slice, offset).explain(what)?,
        };
        let is_sync =
            durable || handle.sync() || OFlags::from_bits_retain(flags).intersects(OFlags::SYNC | OFlags::DSYNC);
        if is_sync {
            rustix::fs::fdatasync(handle.fd()).explain(|| format!("syncing {gfid}"))?;
        }
        self.written_bytes.fetch_add(written as u64, Ordering::Relaxed);
        match is_sync {
            true => self.touch(context, inode, Touch::CONTENT),
            false => self.touch_written(context, inode),
        }
        let post = inode.iatt()?;
        fill_open_count(inode, xdata, &mut out);
        Ok(Reply::PrePost {
            attrs: Box::new(PrePost { pre, post }),
            written: u32::try_from(written).unwrap_or(u32::MAX),
            xdata: out,
        })
    }

    /// TRUNCATE, FTRUNCATE.
    pub fn truncate(&self, context: &Context, file: File, size_bytes: u64) -> FopResult {
        check_range(size_bytes, 0)?;
        self.changing(context, file, Touch::CONTENT, |handle| {
            rustix::fs::ftruncate(handle.fd(), size_bytes)?;
            if handle.sync() { rustix::fs::fsync(handle.fd()) } else { Ok(()) }
        })
    }

    /// FALLOCATE; only FALLOC_FL_KEEP_SIZE is legal in `flags`.
    pub fn fallocate(&self, context: &Context, file: File, flags: u32, offset: u64, len: u64) -> FopResult {
        self.check_space(context)?;
        check_range(offset, len)?;
        let flags = FallocateFlags::from_bits_retain(flags);
        if flags & !FallocateFlags::KEEP_SIZE != FallocateFlags::empty() {
            return Err(FopError::new(errno::EOPNOTSUPP, format!("fallocate with flags {:#x}", flags.bits())));
        }
        self.changing(context, file, Touch::CONTENT, |handle| rustix::fs::fallocate(handle.fd(), flags, offset, len))
    }

    /// DISCARD: a hole.
    pub fn discard(&self, context: &Context, file: File, offset: u64, len: u64) -> FopResult {
        check_range(offset, len)?;
        self.changing(context, file, Touch::CONTENT, |handle| {
            rustix::fs::fallocate(handle.fd(), FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
        })
    }

    /// ZEROFILL: zeros that are allocated; the file grows if it must.
    pub fn zerofill(&self, context: &Context, file: File, offset: u64, len: u64) -> FopResult {
        self.check_space(context)?;
        check_range(offset, len)?;
        self.changing(context, file, Touch::CONTENT, |handle| {
            match rustix::fs::fallocate(handle.fd(), FallocateFlags::ZERO_RANGE, offset, len) {
                Err(Errno::OPNOTSUPP) => write_zeros(handle.fd(), offset, len)?,
                other => other?,
            }
            if handle.sync() { rustix::fs::fdatasync(handle.fd()) } else { Ok(()) }
        })
    }

    fn changing(
        &self,
        context: &Context,
        file: File,
        touch: Touch,
        change: impl Fn(&Handle) -> Result<(), Errno>,
    ) -> FopResult {
        let handle = self.handle(file, OFlags::RDWR)?;
        let inode = handle.inode();
        let pre = inode.iatt()?;
        rustix::io::retry_on_intr(|| change(&handle)).explain(|| format!("changing {}", inode.gfid))?;
        self.touch(context, inode, touch);
        let post = inode.iatt()?;
        Ok(Reply::PrePost { attrs: Box::new(PrePost { pre, post }), written: 0, xdata: Dict::new() })
    }

    /// FSYNC: returns when the disk has it.
    pub fn fsync(&self, file: File, datasync: bool) -> FopResult {
        let handle = self.handle(file, OFlags::RDONLY)?;
        let inode = handle.inode();
        let pre = inode.iatt()?;
        inode.save_times()?;
        match datasync {
            true => rustix::fs::fdatasync(handle.fd()),
            false => rustix::fs::fsync(handle.fd()),
        }
        .explain(|| format!("syncing {}", inode.gfid))?;
        let post = inode.iatt()?;
        Ok(Reply::PrePost { attrs: Box::new(PrePost { pre, post }), written: 0, xdata: Dict::new() })
    }

    /// FLUSH: no data is held back here, so nothing can fail but a bad descriptor, and storing the times.
    pub fn flush(&self, file: File) -> FopResult {
        self.inode_of(file)?.save_times()?;
        Ok(Reply::done())
    }

    /// SEEK.
    pub fn seek(&self, file: File, offset: u64, what: SeekWhat) -> FopResult {
        check_range(offset, 0)?;
        let handle = self.handle(file, OFlags::RDONLY)?;
        let from = match what {
            SeekWhat::Data => rustix::fs::SeekFrom::Data(offset),
            SeekWhat::Hole => rustix::fs::SeekFrom::Hole(offset),
        };
        let offset = rustix::fs::seek(handle.fd(), from).explain(|| format!("seek in {}", handle.inode().gfid))?;
        Ok(Reply::Seek { offset, xdata: Dict::new() })
    }

    /// COPY_FILE_RANGE.
    #[allow(clippy::too_many_arguments)] // the procedure's own
    pub fn copy_range(
        &self,
        context: &Context,
        from: File,
        from_offset: u64,
        to: File,
        to_offset: u64,
        len: u64,
        flags: u32,
    ) -> FopResult {
        self.check_space(context)?;
        check_range(from_offset, len)?;
        check_range(to_offset, len)?;
        if flags != 0 {
            return Err(FopError::new(errno::EINVAL, format!("copy_file_range with flags {flags:#x}")));
        }
        let source = self.handle(from, OFlags::RDONLY)?;
        let target = self.handle(to, OFlags::WRONLY)?;
        let (source_pre, target_pre) = (source.inode().iatt()?, target.inode().iatt()?);
        let (mut source_at, mut target_at) = (from_offset, to_offset);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(i32::MAX as usize & !0xfff);
        let copied =
            rustix::fs::copy_file_range(source.fd(), Some(&mut source_at), target.fd(), Some(&mut target_at), len)
                .explain(|| format!("copying from {} to {}", source.inode().gfid, target.inode().gfid))?;
        self.touch(context, target.inode(), Touch::CONTENT);
        let (source_post, target_post) = (source.inode().iatt()?, target.inode().iatt()?);
        Ok(Reply::CopyFileRange {
            copied: u32::try_from(copied).unwrap_or(u32::MAX),
            iatt: Box::new(target_post.clone()),
            from: Box::new(PrePost { pre: source_pre, post: source_post }),
            to: Box::new(PrePost { pre: target_pre, post: target_post }),
            xdata: Dict::new(),
        })
    }

    /// RCHECKSUM: Adler-32 that starts at 0 (not at 1, as zlib has it) and MD5, or SHA-256 where configured.
    pub fn rchecksum(&self, file: File, offset: u64, len: u32, xdata: &Dict) -> FopResult {
        if len as usize > READ_MAX_BYTES {
            return Err(FopError::new(errno::EINVAL, format!("checksum over {len} bytes")));
        }
        check_range(offset, u64::from(len))?;
        let handle = self.handle(file, OFlags::RDONLY)?;
        let data = read_full(handle.fd(), offset, len as usize)
            .explain(|| format!("reading {} for its checksum", handle.inode().gfid))?;
        let mut out = Dict::new();
        if xdata.contains("check-zero-filled") {
            out.set("buf-has-zeroes", Value::Uint(u64::from(data.iter().all(|b| *b == 0))));
        }
        let strong = if self.options.fips_mode_rchecksum {
            out.set_int("fips-mode-rchecksum", 1);
            Bytes::copy_from_slice(&sha2::Sha256::digest(&data))
        } else {
            Bytes::copy_from_slice(&md5::Md5::digest(&data))
        };
        Ok(Reply::Rchecksum {
            weak: weak_checksum(&data),
            strong,
            flags: u32::from(self.options.fips_mode_rchecksum),
            xdata: out,
        })
    }
}

/// What writers want to know: how many descriptors the file has.
pub fn fill_open_count(inode: &Inode, xdata: &Dict, out: &mut Dict) {
    for key in ["glusterfs.open-fd-count", "glusterfs.open-active-fd-count"] {
        if xdata.contains(key) {
            out.set(key, Value::Uint(u64::from(inode.opens.load(Ordering::Relaxed))));
        }
    }
}

/// The flags of an open as the wire has them (Linux's numbers), reduced to what makes sense on a brick.
pub fn open_flags(flags: u32) -> OFlags {
    let keep = OFlags::ACCMODE
        | OFlags::APPEND
        | OFlags::TRUNC
        | OFlags::SYNC
        | OFlags::DSYNC
        | OFlags::DIRECT
        | OFlags::EXCL
        | OFlags::NOATIME;
    OFlags::from_bits_retain(flags) & keep
}

fn save_or_warn(inode: &Inode) {
    if let Err(error) = inode.save_times() {
        tracing::warn!(gfid = %inode.gfid, %error, "recording times");
    }
}

fn bad_descriptor(file: File) -> FopError {
    FopError::new(errno::EBADF, format!("no open descriptor for {}", file.gfid))
}

fn read_reply(data: Vec<u8>, iatt: Iatt) -> Reply {
    Reply::Read { data: Payload::from_bytes(data.into()), iatt: Box::new(iatt), xdata: Dict::new() }
}

/// Refuses ranges beyond what a file can have.
pub fn check_range(offset: u64, len: u64) -> FopResult<()> {
    match offset.checked_add(len).and_then(|end| i64::try_from(end).ok()) {
        Some(_) => Ok(()),
        None => Err(FopError::new(errno::EINVAL, format!("offset {offset} and length {len} are beyond any file"))),
    }
}

/// Reads until the end of the file or `wanted` bytes.
fn read_full(fd: BorrowedFd<'_>, offset: u64, wanted: usize) -> Result<Vec<u8>, Errno> {
    let mut data: Vec<u8> = Vec::with_capacity(wanted);
    while data.len() < wanted {
        let at = offset + data.len() as u64;
        let missing = wanted - data.len();
        let spare: &mut [MaybeUninit<u8>] = data.spare_capacity_mut();
        let (read, _) = match rustix::io::pread(fd, &mut spare[..missing], at) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let read = read.len();
        if read == 0 {
            break;
        }
        // SAFETY: the kernel has written `read` more bytes into the spare capacity.
        unsafe { data.set_len(data.len() + read) };
    }
    Ok(data)
}

fn write_full(fd: BorrowedFd<'_>, mut data: &[u8], mut offset: u64) -> Result<usize, Errno> {
    let mut written = 0;
    while !data.is_empty() {
        match rustix::io::pwrite(fd, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                written += n;
                offset += n as u64;
                data = data.get(n..).unwrap_or_default();
            }
            Err(Errno::INTR) => {}
            // What the disk took is told; the client's next write meets the error.
            Err(e) if written == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(written)
}

fn write_zeros(fd: BorrowedFd<'_>, mut offset: u64, mut len: u64) -> Result<(), Errno> {
    let zeros = vec![0; 128 << 10];
    while len > 0 {
        let n = len.min(zeros.len() as u64);
        let written = write_full(fd, &zeros[..n as usize], offset)? as u64;
        offset += written;
        len -= written;
    }
    Ok(())
}

/// Adler-32 with both sums starting at 0, as GlusterFS's weak checksum has it.
fn weak_checksum(data: &[u8]) -> u32 {
    const MODULUS: u32 = 65521;
    let (mut a, mut b) = (0u32, 0u32);
    // 5552 is the longest run whose sums fit in 32 bits.
    for run in data.chunks(5552) {
        for byte in run {
            a += u32::from(*byte);
            b += a;
        }
        a %= MODULUS;
        b %= MODULUS;
    }
    b << 16 | a
}

/// Memory aligned for O_DIRECT.
struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    fn new(len: usize) -> AlignedBuffer {
        let memory = vec![0; len + DIRECT_ALIGNMENT];
        let start = memory.as_ptr().align_offset(DIRECT_ALIGNMENT).min(DIRECT_ALIGNMENT);
        AlignedBuffer { memory, start, len }
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_checksum_is_adler32_from_zero() {
        // zlib: adler32(0, "abc", 3) = (sum of running sums) << 16 | sum.
        let (a, b) = (97 + 98 + 99, 97 + (97 + 98) + (97 + 98 + 99));
        assert_eq!(weak_checksum(b"abc"), b << 16 | a);
        assert_eq!(weak_checksum(&[0; 100_000]), 0);
    }
}
