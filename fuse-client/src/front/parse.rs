//! The one parser of FUSE requests: bytes from the kernel into [`Call`]s, for every front end.
//!
//! What the kernel sends is checked like anything else from outside: a request that is cut short or holds an impossible
//! name gives an errno, never a panic. File data is not touched: [`Call::Write`] says where in the body it lies.

use std::ops::Range;

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Flock, LockType, Name};
use ladrillo_translator::{LockOwner, Timespec};

use super::abi::{self, IN_HEADER_BYTES, lock, opcode};

/// Longest name of an entry, in bytes (NAME_MAX).
const NAME_MAX_BYTES: usize = 255;
/// Longest name of an xattr, in bytes (XATTR_NAME_MAX).
const XATTR_NAME_MAX_BYTES: usize = 255;
/// Longest target of a symlink, in bytes (PATH_MAX without its NUL).
const TARGET_MAX_BYTES: usize = 4095;

/// `struct fuse_in_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the whole request in bytes.
    pub len: u32,
    /// What is asked.
    pub opcode: u32,
    /// Names the request in its answer.
    pub unique: u64,
    /// Inode it is about.
    pub nodeid: u64,
    /// Caller.
    pub uid: u32,
    /// Caller's group.
    pub gid: u32,
    /// Caller's thread; 0 for the kernel itself.
    pub pid: u32,
}

/// What a SETATTR sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SetattrCall {
    /// FATTR_* bits.
    pub valid: u32,
    pub fh: Option<u64>,
    pub size_bytes: u64,
    pub lock_owner: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A request. Inodes and open files are the kernel's numbers for them (nodeid, fh).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the system calls' arguments
pub enum Call {
    Lookup {
        name: Name,
    },
    /// (nodeid, how many lookups are forgotten); no answer.
    Forget(Vec<(u64, u64)>),
    Getattr {
        fh: Option<u64>,
    },
    /// As Getattr, with the time of birth.
    Statx {
        fh: Option<u64>,
    },
    /// Create an unnamed file.
    Tmpfile,
    Setattr(Box<SetattrCall>),
    Readlink,
    Symlink {
        name: Name,
        target: Bytes,
    },
    Mknod {
        name: Name,
        mode: u32,
        rdev: u32,
        umask: u32,
    },
    Mkdir {
        name: Name,
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: Name,
    },
    Rmdir {
        name: Name,
    },
    Rename {
        name: Name,
        new_parent: u64,
        new_name: Name,
        flags: u32,
    },
    /// The header's nodeid is the new parent.
    Link {
        nodeid: u64,
        name: Name,
    },
    Open {
        flags: u32,
    },
    Create {
        name: Name,
        flags: u32,
        mode: u32,
        umask: u32,
    },
    Read {
        fh: u64,
        offset: u64,
        size_bytes: u32,
        flags: u32,
        lock_owner: Option<u64>,
    },
    /// `data` lies there in the body's second part (see [`parse`]).
    Write {
        fh: u64,
        offset: u64,
        flags: u32,
        lock_owner: Option<u64>,
        data: Range<usize>,
    },
    Statfs,
    Release {
        fh: u64,
        flags: u32,
        flock_owner: Option<u64>,
    },
    Fsync {
        fh: u64,
        datasync: bool,
    },
    Setxattr {
        name: Bytes,
        value: Bytes,
        flags: u32,
    },
    Getxattr {
        name: Bytes,
        size_bytes: u32,
    },
    Listxattr {
        size_bytes: u32,
    },
    Removexattr {
        name: Bytes,
    },
    Flush {
        fh: u64,
        lock_owner: u64,
    },
    Opendir {
        flags: u32,
    },
    Readdir {
        fh: u64,
        offset: u64,
        size_bytes: u32,
        plus: bool,
    },
    Releasedir {
        fh: u64,
    },
    Fsyncdir {
        fh: u64,
        datasync: bool,
    },
    Getlk {
        fh: u64,
        flock: Flock,
    },
    Setlk {
        fh: u64,
        flock: Flock,
        wait: bool,
    },
    Access {
        mask: u32,
    },
    /// The request of this unique is to end early; no answer.
    Interrupt {
        unique: u64,
    },
    Lseek {
        fh: u64,
        offset: u64,
        whence: u32,
    },
    Fallocate {
        fh: u64,
        offset: u64,
        len: u64,
        mode: u32,
    },
    CopyFileRange {
        fh: u64,
        offset: u64,
        to_nodeid: u64,
        to_fh: u64,
        to_offset: u64,
        len: u64,
        flags: u64,
    },
    Destroy,
}

/// Reads the header; `None` when there is not even that.
pub fn parse_header(request: &[u8]) -> Option<Header> {
    let mut fields = Fields(request.get(..IN_HEADER_BYTES)?);
    Some(Header {
        len: fields.u32().ok()?,
        opcode: fields.u32().ok()?,
        unique: fields.u64().ok()?,
        nodeid: fields.u64().ok()?,
        uid: fields.u32().ok()?,
        gid: fields.u32().ok()?,
        pid: fields.u32().ok()?,
    })
}

/// Size in bytes of the fixed part of an opcode's arguments: what FUSE over io_uring puts beside the header. On the
/// device the rest (names, data) follows it. `None` for what we do not speak.
pub fn fixed_bytes(code: u32) -> Option<usize> {
    Some(match code {
        opcode::LOOKUP
        | opcode::READLINK
        | opcode::SYMLINK
        | opcode::UNLINK
        | opcode::RMDIR
        | opcode::STATFS
        | opcode::REMOVEXATTR
        | opcode::DESTROY => 0,
        opcode::FORGET
        | opcode::MKDIR
        | opcode::RENAME
        | opcode::LINK
        | opcode::OPEN
        | opcode::OPENDIR
        | opcode::SETXATTR
        | opcode::GETXATTR
        | opcode::LISTXATTR
        | opcode::ACCESS
        | opcode::INTERRUPT
        | opcode::BATCH_FORGET => 8,
        opcode::GETATTR
        | opcode::MKNOD
        | opcode::RENAME2
        | opcode::FSYNC
        | opcode::FSYNCDIR
        | opcode::CREATE
        | opcode::TMPFILE => 16,
        opcode::RELEASE | opcode::RELEASEDIR | opcode::FLUSH | opcode::LSEEK | opcode::STATX => 24,
        opcode::FALLOCATE => 32,
        opcode::READ | opcode::WRITE | opcode::READDIR | opcode::READDIRPLUS => 40,
        opcode::GETLK | opcode::SETLK | opcode::SETLKW => 48,
        opcode::COPY_FILE_RANGE => 56,
        opcode::SETATTR => 88,
        _ => return None,
    })
}

/// Parses the arguments of a request: `fixed` is what [`fixed_bytes`] counts, `rest` what follows (names, data).
///
/// # Errors
/// The errno to answer: ENOSYS for what we do not speak, EINVAL for what is cut short or impossible, ENAMETOOLONG.
pub fn parse(header: &Header, fixed: &[u8], rest: &[u8]) -> Result<Call, i32> {
    let mut arg = Fields(fixed);
    let mut rest_fields = Fields(rest);
    Ok(match header.opcode {
        opcode::LOOKUP => Call::Lookup { name: rest_fields.entry_name()? },
        opcode::FORGET => Call::Forget(vec![(header.nodeid, arg.u64()?)]),
        opcode::BATCH_FORGET => {
            let count = arg.u32()? as usize;
            // Bounded by what is there, not by what is claimed.
            let mut forgets = Vec::with_capacity(count.min(rest.len() / 16));
            for _ in 0..count {
                forgets.push((rest_fields.u64()?, rest_fields.u64()?));
            }
            Call::Forget(forgets)
        }
        opcode::GETATTR => {
            let flags = arg.u32()?;
            arg.skip(4)?;
            let fh = arg.u64()?;
            Call::Getattr { fh: (flags & abi::GETATTR_FH != 0).then_some(fh) }
        }
        opcode::STATX => {
            let flags = arg.u32()?;
            arg.skip(4)?;
            let fh = arg.u64()?;
            Call::Statx { fh: (flags & abi::GETATTR_FH != 0).then_some(fh) }
        }
        opcode::TMPFILE => Call::Tmpfile,
        opcode::SETATTR => Call::Setattr(Box::new(setattr(&mut arg)?)),
        opcode::READLINK => Call::Readlink,
        opcode::SYMLINK => {
            let name = rest_fields.entry_name()?;
            let target = rest_fields.text(TARGET_MAX_BYTES)?;
            Call::Symlink { name, target }
        }
        opcode::MKNOD => {
            let (mode, rdev, umask) = (arg.u32()?, arg.u32()?, arg.u32()?);
            Call::Mknod { name: rest_fields.entry_name()?, mode, rdev, umask }
        }
        opcode::MKDIR => {
            let (mode, umask) = (arg.u32()?, arg.u32()?);
            Call::Mkdir { name: rest_fields.entry_name()?, mode, umask }
        }
        opcode::UNLINK => Call::Unlink { name: rest_fields.entry_name()? },
        opcode::RMDIR => Call::Rmdir { name: rest_fields.entry_name()? },
        opcode::RENAME | opcode::RENAME2 => {
            let new_parent = arg.u64()?;
            let flags = if header.opcode == opcode::RENAME2 { arg.u32()? } else { 0 };
            let name = rest_fields.entry_name()?;
            Call::Rename { name, new_parent, new_name: rest_fields.entry_name()?, flags }
        }
        opcode::LINK => Call::Link { nodeid: arg.u64()?, name: rest_fields.entry_name()? },
        opcode::OPEN => Call::Open { flags: arg.u32()? },
        opcode::OPENDIR => Call::Opendir { flags: arg.u32()? },
        opcode::CREATE => {
            let (flags, mode, umask) = (arg.u32()?, arg.u32()?, arg.u32()?);
            Call::Create { name: rest_fields.entry_name()?, flags, mode, umask }
        }
        opcode::READ | opcode::READDIR | opcode::READDIRPLUS => {
            let (fh, offset, size_bytes, io_flags) = (arg.u64()?, arg.u64()?, arg.u32()?, arg.u32()?);
            let (owner, flags) = (arg.u64()?, arg.u32()?);
            if header.opcode != opcode::READ {
                return Ok(Call::Readdir { fh, offset, size_bytes, plus: header.opcode == opcode::READDIRPLUS });
            }
            let lock_owner = (io_flags & abi::IO_LOCKOWNER != 0).then_some(owner);
            Call::Read { fh, offset, size_bytes, flags, lock_owner }
        }
        opcode::WRITE => {
            let (fh, offset, size, io_flags) = (arg.u64()?, arg.u64()?, arg.u32()? as usize, arg.u32()?);
            let (owner, flags) = (arg.u64()?, arg.u32()?);
            if size > rest.len() {
                return Err(errno::EINVAL);
            }
            let lock_owner = (io_flags & abi::IO_LOCKOWNER != 0).then_some(owner);
            Call::Write { fh, offset, flags, lock_owner, data: 0..size }
        }
        opcode::STATFS => Call::Statfs,
        opcode::RELEASE | opcode::RELEASEDIR => {
            let (fh, flags, release_flags, owner) = (arg.u64()?, arg.u32()?, arg.u32()?, arg.u64()?);
            if header.opcode == opcode::RELEASEDIR {
                return Ok(Call::Releasedir { fh });
            }
            let flock_owner = (release_flags & abi::RELEASE_FLOCK_UNLOCK != 0).then_some(owner);
            Call::Release { fh, flags, flock_owner }
        }
        opcode::FSYNC => Call::Fsync { fh: arg.u64()?, datasync: arg.u32()? & abi::FSYNC_DATASYNC != 0 },
        opcode::FSYNCDIR => Call::Fsyncdir { fh: arg.u64()?, datasync: arg.u32()? & abi::FSYNC_DATASYNC != 0 },
        opcode::SETXATTR => {
            let (size, flags) = (arg.u32()? as usize, arg.u32()?);
            let name = rest_fields.xattr_name()?;
            Call::Setxattr { name, value: Bytes::copy_from_slice(rest_fields.take(size)?), flags }
        }
        opcode::GETXATTR => {
            let size_bytes = arg.u32()?;
            Call::Getxattr { name: rest_fields.xattr_name()?, size_bytes }
        }
        opcode::LISTXATTR => Call::Listxattr { size_bytes: arg.u32()? },
        opcode::REMOVEXATTR => Call::Removexattr { name: rest_fields.xattr_name()? },
        opcode::FLUSH => {
            let fh = arg.u64()?;
            arg.skip(8)?;
            Call::Flush { fh, lock_owner: arg.u64()? }
        }
        opcode::GETLK | opcode::SETLK | opcode::SETLKW => {
            let (fh, flock) = file_lock(&mut arg)?;
            match header.opcode {
                opcode::GETLK => Call::Getlk { fh, flock },
                code => Call::Setlk { fh, flock, wait: code == opcode::SETLKW },
            }
        }
        opcode::ACCESS => Call::Access { mask: arg.u32()? },
        opcode::INTERRUPT => Call::Interrupt { unique: arg.u64()? },
        opcode::LSEEK => Call::Lseek { fh: arg.u64()?, offset: arg.u64()?, whence: arg.u32()? },
        opcode::FALLOCATE => Call::Fallocate { fh: arg.u64()?, offset: arg.u64()?, len: arg.u64()?, mode: arg.u32()? },
        opcode::COPY_FILE_RANGE => Call::CopyFileRange {
            fh: arg.u64()?,
            offset: arg.u64()?,
            to_nodeid: arg.u64()?,
            to_fh: arg.u64()?,
            to_offset: arg.u64()?,
            len: arg.u64()?,
            flags: arg.u64()?,
        },
        opcode::DESTROY => Call::Destroy,
        _ => return Err(errno::ENOSYS),
    })
}

/// Parses a request as /dev/fuse gives it, in one piece; a [`Call::Write`]'s data range counts from its beginning.
///
/// # Errors
/// As [`parse`].
pub fn parse_contiguous(header: &Header, request: &[u8]) -> Result<Call, i32> {
    if header.len as usize != request.len() {
        return Err(errno::EINVAL);
    }
    let fixed = fixed_bytes(header.opcode).ok_or(errno::ENOSYS)?;
    let body = request.get(IN_HEADER_BYTES..).ok_or(errno::EINVAL)?;
    let (fixed, rest) = body.split_at_checked(fixed).ok_or(errno::EINVAL)?;
    let mut call = parse(header, fixed, rest)?;
    if let Call::Write { data, .. } = &mut call {
        let start = IN_HEADER_BYTES + fixed.len();
        *data = data.start + start..data.end + start;
    }
    Ok(call)
}

/// Reads fields in host byte order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], i32> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(errno::EINVAL)?;
        self.0 = rest;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), i32> {
        self.take(count).map(|_| ())
    }

    fn u32(&mut self) -> Result<u32, i32> {
        self.take(4)?.try_into().map(u32::from_ne_bytes).map_err(|_| errno::EINVAL)
    }

    fn u64(&mut self) -> Result<u64, i32> {
        self.take(8)?.try_into().map(u64::from_ne_bytes).map_err(|_| errno::EINVAL)
    }

    /// Up to the next NUL, which must be there.
    fn text(&mut self, max_bytes: usize) -> Result<Bytes, i32> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(errno::EINVAL)?;
        if end > max_bytes {
            return Err(errno::ENAMETOOLONG);
        }
        let text = Bytes::copy_from_slice(self.take(end)?);
        self.skip(1)?;
        Ok(text)
    }

    fn entry_name(&mut self) -> Result<Name, i32> {
        let name = self.text(NAME_MAX_BYTES)?;
        if name.is_empty() || name.contains(&b'/') {
            return Err(errno::EINVAL);
        }
        Ok(name)
    }

    fn xattr_name(&mut self) -> Result<Bytes, i32> {
        let name = self.text(XATTR_NAME_MAX_BYTES)?;
        if name.is_empty() { Err(errno::EINVAL) } else { Ok(name) }
    }
}

fn setattr(arg: &mut Fields<'_>) -> Result<SetattrCall, i32> {
    let valid = arg.u32()?;
    arg.skip(4)?;
    let fh = arg.u64()?;
    let size_bytes = arg.u64()?;
    let lock_owner = arg.u64()?;
    let seconds = [arg.u64()?, arg.u64()?, arg.u64()?];
    let nanos = [arg.u32()?, arg.u32()?, arg.u32()?];
    let time = |n: usize| Timespec { seconds: seconds[n] as i64, nanos: nanos[n].min(999_999_999) };
    let mode = arg.u32()?;
    arg.skip(4)?;
    let (uid, gid) = (arg.u32()?, arg.u32()?);
    Ok(SetattrCall {
        valid,
        fh: (valid & abi::fattr::FH != 0).then_some(fh),
        size_bytes,
        lock_owner,
        atime: time(0),
        mtime: time(1),
        ctime: time(2),
        mode,
        uid,
        gid,
    })
}

/// `struct fuse_lk_in`: the file and the lock asked for (its pid is the caller's to fill in, 0 where it gave none).
fn file_lock(arg: &mut Fields<'_>) -> Result<(u64, Flock), i32> {
    let (fh, owner, start, end, kind, pid) = (arg.u64()?, arg.u64()?, arg.u64()?, arg.u64()?, arg.u32()?, arg.u32()?);
    let kind = match kind {
        lock::READ => LockType::Read,
        lock::WRITE => LockType::Write,
        lock::UNLOCK => LockType::Unlock,
        _ => return Err(errno::EINVAL),
    };
    if end < start || end > lock::END {
        return Err(errno::EINVAL);
    }
    // Inclusive end to length; the end of all offsets is GlusterFS's length 0. Flags (flock) change nothing: such a
    // lock comes as one over the whole file, by its own owner.
    let len = if end == lock::END { 0 } else { end - start + 1 };
    Ok((fh, Flock { kind, whence: 0, start, len, pid, owner: LockOwner::from_u64(owner) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((IN_HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(77u64.to_ne_bytes());
        bytes.extend(5u64.to_ne_bytes());
        bytes.extend([1u32, 2, 3, 0].iter().flat_map(|n| n.to_ne_bytes()));
        bytes.extend(body);
        bytes
    }

    fn parsed(code: u32, body: &[u8]) -> Result<Call, i32> {
        let bytes = request(code, body);
        parse_contiguous(&parse_header(&bytes).unwrap(), &bytes)
    }

    #[test]
    fn requests_become_calls() {
        let bytes = request(opcode::LOOKUP, b"name\0");
        let header = parse_header(&bytes).unwrap();
        assert_eq!((header.unique, header.nodeid, header.uid, header.gid, header.pid), (77, 5, 1, 2, 3));
        assert_eq!(parse_contiguous(&header, &bytes), Ok(Call::Lookup { name: Bytes::from_static(b"name") }));

        let mut write = Vec::new();
        write.extend(9u64.to_ne_bytes());
        write.extend(4096u64.to_ne_bytes());
        write.extend(5u32.to_ne_bytes());
        write.extend(2u32.to_ne_bytes()); // the owner counts
        write.extend(0xabcdu64.to_ne_bytes());
        write.extend([0o2001u32, 0].iter().flat_map(|n| n.to_ne_bytes()));
        write.extend(b"hello");
        let whole = request(opcode::WRITE, &write);
        let Ok(Call::Write { fh: 9, offset: 4096, flags: 0o2001, lock_owner: Some(0xabcd), data }) =
            parsed(opcode::WRITE, &write)
        else {
            panic!("not a write")
        };
        assert_eq!(&whole[data], b"hello");

        let rename = [&6u64.to_ne_bytes()[..], &[0; 8], b"a\0b\0"].concat();
        assert_eq!(
            parsed(opcode::RENAME2, &rename),
            Ok(Call::Rename { name: "a".into(), new_parent: 6, new_name: "b".into(), flags: 0 })
        );
        let forgets = [&2u32.to_ne_bytes()[..], &[0; 4], &[1; 8], &[2; 8], &[3; 8], &[4; 8]].concat();
        let Ok(Call::Forget(list)) = parsed(opcode::BATCH_FORGET, &forgets) else { panic!("not a forget") };
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn locks_have_lengths() {
        let body = |start: u64, end: u64, kind: u32| {
            [&1u64.to_ne_bytes()[..], &7u64.to_ne_bytes(), &start.to_ne_bytes(), &end.to_ne_bytes()]
                .concat()
                .into_iter()
                .chain([kind, 42, 1, 0].iter().flat_map(|n| n.to_ne_bytes()))
                .collect::<Vec<u8>>()
        };
        let Ok(Call::Setlk { flock, wait: true, .. }) = parsed(opcode::SETLKW, &body(10, 19, 1)) else { panic!() };
        assert_eq!((flock.start, flock.len, flock.kind, flock.pid), (10, 10, LockType::Write, 42));
        let Ok(Call::Getlk { flock, .. }) = parsed(opcode::GETLK, &body(0, lock::END, 0)) else { panic!() };
        assert_eq!((flock.start, flock.len), (0, 0));
        assert_eq!(parsed(opcode::SETLK, &body(5, 4, 1)), Err(errno::EINVAL));
        assert_eq!(parsed(opcode::SETLK, &body(0, u64::MAX, 1)), Err(errno::EINVAL));
        assert_eq!(parsed(opcode::SETLK, &body(0, 1, 9)), Err(errno::EINVAL));
    }

    #[test]
    fn what_is_cut_short_or_impossible_is_refused() {
        assert!(parse_header(&[0; 39]).is_none());
        assert_eq!(parsed(opcode::LOOKUP, b"no end"), Err(errno::EINVAL));
        assert_eq!(parsed(opcode::LOOKUP, b"\0"), Err(errno::EINVAL));
        assert_eq!(parsed(opcode::LOOKUP, b"a/b\0"), Err(errno::EINVAL));
        assert_eq!(parsed(opcode::LOOKUP, &[&[b'x'; 256][..], b"\0"].concat()), Err(errno::ENAMETOOLONG));
        assert_eq!(parsed(opcode::INIT, &[0; 64]), Err(errno::ENOSYS));
        assert_eq!(parsed(9999, &[]), Err(errno::ENOSYS));
        let huge_write = [&[0; 16][..], &u32::MAX.to_ne_bytes(), &[0; 20]].concat();
        assert_eq!(parsed(opcode::WRITE, &huge_write), Err(errno::EINVAL));
        let huge_forget = [&u32::MAX.to_ne_bytes()[..], &[0; 20]].concat();
        assert_eq!(parsed(opcode::BATCH_FORGET, &huge_forget), Err(errno::EINVAL));
        let huge_xattr = [&u32::MAX.to_ne_bytes()[..], &[0; 4], b"user.x\0v"].concat();
        assert_eq!(parsed(opcode::SETXATTR, &huge_xattr), Err(errno::EINVAL));
        let mut lying = request(opcode::READLINK, &[]);
        lying[0] = 200;
        assert_eq!(parse_contiguous(&parse_header(&lying).unwrap(), &lying), Err(errno::EINVAL));
    }

    /// Every opcode, with every length of every kind of garbage: an answer, never a panic.
    #[test]
    fn garbage_never_panics() {
        let mut seed = 0x1234_5678_u64;
        for code in 0..60 {
            for length in 0..130 {
                for round in 0..4 {
                    let body: Vec<u8> = (0..length)
                        .map(|_| {
                            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            if round == 0 { 0 } else { (seed >> 33) as u8 }
                        })
                        .collect();
                    if let Err(errno) = parsed(code, &body) {
                        assert!([errno::EINVAL, errno::ENOSYS, errno::ENAMETOOLONG].contains(&errno));
                    }
                }
            }
        }
    }
}
