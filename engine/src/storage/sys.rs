//! System calls as the brick needs them: relative to descriptors, never to a path a client wrote.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ladrillo_translator::{FopError, FopResult, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

/// Longest xattr value Linux stores (XATTR_SIZE_MAX, linux/limits.h), in bytes.
const XATTR_VALUE_MAX_BYTES: usize = 65536;

/// Turns a system call's failure into a fop's.
pub trait Explain<T> {
    /// Says what was attempted.
    fn explain(self, what: impl FnOnce() -> String) -> FopResult<T>;
}

impl<T> Explain<T> for Result<T, Errno> {
    fn explain(self, what: impl FnOnce() -> String) -> FopResult<T> {
        self.map_err(|e| failure(e, &what()))
    }
}

/// A [`FopError`] out of an errno.
pub fn failure(error: Errno, what: &str) -> FopError {
    FopError::from_io(&io::Error::from_raw_os_error(error.raw_os_error()), what)
}

/// The path under which the kernel finds what `fd` refers to, an O_PATH descriptor of a symlink included.
pub fn magic_path(fd: impl AsFd) -> String {
    let mut path = String::with_capacity(24);
    // Writing to a String cannot fail.
    let _ = write!(path, "/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    path
}

/// Opens an entry without following it, for stat, xattr and as a directory to start from.
pub fn open_path(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens for I/O what an O_PATH descriptor refers to.
pub fn reopen(fd: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(magic_path(&fd), (flags & !OFlags::NOFOLLOW) | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

/// One xattr; `None` where there is none.
pub fn get_xattr(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let path = magic_path(&fd);
    let mut small = [0u8; 256];
    match rustix::fs::getxattr(&path, name, &mut small[..]) {
        Ok(len) => return Ok(Some(small.get(..len).unwrap_or(&small).to_vec())),
        Err(Errno::NODATA) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    let mut value = vec![0u8; XATTR_VALUE_MAX_BYTES];
    match rustix::fs::getxattr(&path, name, &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A short xattr of known length; `None` where there is none or it has another length.
pub fn get_xattr_array<const N: usize>(fd: impl AsFd, name: &[u8]) -> Result<Option<[u8; N]>, Errno> {
    let mut value = [0u8; N];
    match rustix::fs::getxattr(magic_path(&fd), name, &mut value[..]) {
        Ok(len) if len == N => Ok(Some(value)),
        Ok(_) | Err(Errno::NODATA | Errno::RANGE) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sets an xattr.
pub fn set_xattr(fd: impl AsFd, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
    rustix::fs::setxattr(magic_path(&fd), name, value, flags)
}

/// Removes an xattr.
pub fn remove_xattr(fd: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::removexattr(magic_path(&fd), name)
}

/// Names of all xattrs.
pub fn list_xattrs(fd: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let path = magic_path(&fd);
    let mut buffer = vec![0u8; 1024];
    loop {
        match rustix::fs::listxattr(&path, &mut buffer[..]) {
            Ok(len) => {
                buffer.truncate(len);
                let names = buffer.split(|b| *b == 0).filter(|n| !n.is_empty());
                return Ok(names.map(<[u8]>::to_vec).collect());
            }
            Err(Errno::RANGE) if buffer.len() < XATTR_VALUE_MAX_BYTES => buffer.resize(XATTR_VALUE_MAX_BYTES, 0),
            Err(e) => return Err(e),
        }
    }
}

/// fstat, O_PATH descriptors included.
pub fn fstat(fd: impl AsFd) -> Result<Stat, Errno> {
    rustix::fs::fstat(fd)
}

/// Target of the symlink that an O_PATH descriptor refers to.
pub fn read_link(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    Ok(rustix::fs::readlinkat(fd, "", Vec::new())?.into_bytes())
}

/// chown of what `fd` refers to, an O_PATH descriptor included.
pub fn chown(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    let uid = uid.map(rustix::fs::Uid::from_raw);
    let gid = gid.map(rustix::fs::Gid::from_raw);
    rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)
}

/// chmod of what `fd` refers to; not for symlinks.
pub fn chmod(fd: impl AsFd, permissions: u32) -> Result<(), Errno> {
    rustix::fs::chmod(magic_path(&fd), Mode::from_raw_mode(permissions & 0o7777))
}

/// utimensat; `None` leaves a time as it is.
pub fn set_times(fd: impl AsFd, atime: Option<Timespec>, mtime: Option<Timespec>) -> Result<(), Errno> {
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    let time = |t: Option<Timespec>| match t {
        Some(t) => rustix::fs::Timespec { tv_sec: t.seconds, tv_nsec: i64::from(t.nanos) },
        None => rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    let times = rustix::fs::Timestamps { last_access: time(atime), last_modification: time(mtime) };
    rustix::fs::utimensat(rustix::fs::CWD, magic_path(&fd), &times, AtFlags::empty())
}

/// A read that never waits for a disk: `EAGAIN` where it would, and a short count where only the start is cached.
pub fn read_cached(fd: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>], offset: u64) -> Result<usize, Errno> {
    let Ok(offset) = libc::off_t::try_from(offset) else { return Err(Errno::INVAL) };
    let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `vector` describes `buffer`, which is ours to write for the length given and outlives the call.
    let n = unsafe { libc::preadv2(fd.as_raw_fd(), &vector, 1, offset, libc::RWF_NOWAIT) };
    usize::try_from(n).map_err(|_| last_errno())
}

fn last_errno() -> Errno {
    Errno::from_raw_os_error(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

thread_local! {
    static KEEPS_CAPABILITIES: Cell<bool> = const { Cell::new(false) };
}

/// Runs `create` so that what it creates belongs to `uid` and `gid`, as setfsuid(2) does, while this thread keeps its
/// capabilities: permissions were checked before, by the client's kernel and by access-control.
pub fn as_owner<T>(uid: u32, gid: u32, create: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    if uid == 0 && gid == 0 {
        return create();
    }
    if !KEEPS_CAPABILITIES.get() {
        // SECBIT_NO_SETUID_FIXUP of linux/securebits.h: a change of fsuid leaves the capability sets alone.
        const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
        // SAFETY: plain integers; affects this thread only.
        let set = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) };
        if set != 0 {
            return Err(last_errno());
        }
        KEEPS_CAPABILITIES.set(true);
    }
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            set_fs_ids(0, 0);
        }
    }
    let _restore = Restore;
    set_fs_ids(uid, gid);
    create()
}

fn set_fs_ids(uid: u32, gid: u32) {
    // SAFETY: the raw calls take integers and affect the calling thread alone; glibc's wrappers do the same.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// Makes an O_PATH-independent copy of a descriptor.
pub fn duplicate(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}
