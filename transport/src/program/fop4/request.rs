//! Requests.

use bytes::Bytes;
use ladrillo_translator::fop::{ActiveLock, Entry, File, Flock, Lease, LockType, Name};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Dict, FdId, Fop, FopKind, Gfid, LockOwner, Payload};

use super::numbers::*;
use super::*;
use crate::dict::{self, Empty, read_dict, read_iatt, write_dict, write_iatt};

/// Bytes to reserve for a request, so that its buffer does not grow.
pub(super) fn size_hint(fop: &Fop) -> usize {
    let dicts = match fop {
        Fop::Setxattr { xattrs, xdata, .. }
        | Fop::Fsetxattr { xattrs, xdata, .. }
        | Fop::Xattrop { xattrs, xdata, .. }
        | Fop::Fxattrop { xattrs, xdata, .. }
        | Fop::Put { xattrs, xdata, .. } => dict::size_hint(xattrs) + dict::size_hint(xdata),
        other => other.xdata().map_or(12, dict::size_hint),
    };
    160 + dicts
}

/// Writes the body of a request, and gives back the file data that follows it (WRITE).
///
/// # Errors
/// A name or text that the wire or the brick cannot take. What was written so far is of no use then.
pub fn write_request(w: &mut Writer, fop: &Fop) -> Result<Payload, EncodeError> {
    let mut payload = Payload::empty();
    match fop {
        Fop::Lookup { gfid, entry, xdata: _ } => {
            w.raw(&gfid.0);
            w.raw(&entry.as_ref().map_or(Gfid::NULL, |e| e.parent).0);
            w.u32(0); // flags
            match entry {
                Some(entry) => write_name(w, &entry.name)?,
                None => w.u32(0),
            }
        }
        Fop::Stat { gfid, .. } | Fop::Statfs { gfid, .. } | Fop::Opendir { gfid, .. } => w.raw(&gfid.0),
        Fop::Fstat { file, .. } | Fop::Flush { file, .. } | Fop::Release { file } | Fop::Releasedir { file } => {
            write_file(w, file);
        }
        Fop::Setattr { gfid, iatt, valid, .. } => {
            w.raw(&gfid.0);
            write_iatt(w, iatt);
            w.u32(valid.0);
        }
        Fop::Fsetattr { file, iatt, valid, .. } => {
            write_file(w, file);
            write_iatt(w, iatt);
            w.u32(valid.0);
        }
        Fop::Readlink { gfid, size_bytes, .. } => {
            w.raw(&gfid.0);
            w.u32(*size_bytes);
        }
        Fop::Mknod { entry, mode, rdev, umask, .. } => {
            w.raw(&entry.parent.0);
            w.u64(*rdev);
            w.u32(*mode);
            w.u32(*umask);
            write_name(w, &entry.name)?;
        }
        Fop::Mkdir { entry, mode, umask, .. } => {
            w.raw(&entry.parent.0);
            w.u32(*mode);
            w.u32(*umask);
            write_name(w, &entry.name)?;
        }
        Fop::Symlink { entry, target, umask, .. } => {
            w.raw(&entry.parent.0);
            write_name(w, &entry.name)?;
            w.u32(*umask);
            write_text(w, "link target", target, MAX_TARGET_BYTES)?;
        }
        Fop::Link { gfid, entry, .. } => {
            w.raw(&gfid.0);
            w.raw(&entry.parent.0);
            write_name(w, &entry.name)?;
        }
        Fop::Unlink { entry, flags, .. } => {
            w.raw(&entry.parent.0);
            write_name(w, &entry.name)?;
            w.u32(*flags);
        }
        Fop::Rmdir { entry, flags, .. } => {
            w.raw(&entry.parent.0);
            w.u32(*flags);
            write_name(w, &entry.name)?;
        }
        Fop::Rename { from, to, .. } => {
            w.raw(&from.parent.0);
            w.raw(&to.parent.0);
            write_name(w, &from.name)?;
            write_name(w, &to.name)?;
        }
        Fop::Create { entry, flags, mode, umask, .. } => {
            w.raw(&entry.parent.0);
            w.u32(open_flags_to_wire(*flags));
            w.u32(*mode);
            w.u32(*umask);
            write_name(w, &entry.name)?;
        }
        Fop::Open { gfid, flags, .. } => {
            w.raw(&gfid.0);
            w.u32(open_flags_to_wire(*flags));
        }
        Fop::Read { file, offset, size_bytes, flags, .. } => {
            write_file(w, file);
            w.u64(*offset);
            w.u32(*size_bytes);
            w.u32(*flags);
        }
        Fop::Write { file, offset, data, flags, .. } => {
            let size = u32::try_from(data.len()).map_err(|_| EncodeError::TooLong {
                what: "write",
                length: data.len(),
                limit: u32::MAX as usize,
            })?;
            write_file(w, file);
            w.u64(*offset);
            w.u32(size);
            w.u32(*flags);
            payload = data.clone();
        }
        Fop::Truncate { gfid, size_bytes, .. } => {
            w.raw(&gfid.0);
            w.u64(*size_bytes);
        }
        Fop::Ftruncate { file, size_bytes, .. } => {
            write_file(w, file);
            w.u64(*size_bytes);
        }
        Fop::Fsync { file, datasync, .. } | Fop::Fsyncdir { file, datasync, .. } => {
            write_file(w, file);
            w.u32(u32::from(*datasync));
        }
        Fop::Access { gfid, mask, .. } => {
            w.raw(&gfid.0);
            w.u32(*mask);
        }
        Fop::Setxattr { gfid, xattrs, flags, .. } => {
            w.raw(&gfid.0);
            w.u32(*flags);
            write_dict(w, xattrs, Empty::NoPairs);
        }
        Fop::Fsetxattr { file, xattrs, flags, .. } => {
            write_file(w, file);
            w.u32(*flags);
            write_dict(w, xattrs, Empty::NoPairs);
        }
        Fop::Getxattr { gfid, name, .. } => {
            w.raw(&gfid.0);
            write_optional_text(w, name)?;
        }
        Fop::Fgetxattr { file, name, .. } => {
            write_file(w, file);
            write_optional_text(w, name)?;
        }
        Fop::Removexattr { gfid, name, .. } => {
            w.raw(&gfid.0);
            write_text(w, "xattr name", name, MAX_TEXT_BYTES)?;
        }
        Fop::Fremovexattr { file, name, .. } => {
            write_file(w, file);
            write_text(w, "xattr name", name, MAX_TEXT_BYTES)?;
        }
        Fop::Xattrop { gfid, kind, xattrs, .. } => {
            w.raw(&gfid.0);
            w.u32(xattrop_to_wire(*kind));
            write_dict(w, xattrs, Empty::NoPairs);
        }
        Fop::Fxattrop { file, kind, xattrs, .. } => {
            write_file(w, file);
            w.u32(xattrop_to_wire(*kind));
            write_dict(w, xattrs, Empty::NoPairs);
        }
        Fop::Readdir { file, offset, size_bytes, .. } | Fop::Readdirp { file, offset, size_bytes, .. } => {
            write_file(w, file);
            w.u64(*offset);
            w.u32(*size_bytes);
        }
        Fop::Lk { file, cmd, flock, .. } => {
            write_file(w, file);
            w.u32(lock_cmd_to_wire(*cmd));
            w.u32(lock_type_to_wire(flock.kind));
            write_flock(w, flock)?;
        }
        Fop::Inodelk { gfid, domain, cmd, flock, .. } => {
            w.raw(&gfid.0);
            w.u32(lock_cmd_to_wire(*cmd));
            w.u32(lock_type_to_wire(flock.kind));
            write_flock(w, flock)?;
            write_text(w, "lock domain", domain, MAX_TEXT_BYTES)?;
        }
        Fop::Finodelk { file, domain, cmd, flock, .. } => {
            write_file(w, file);
            w.u32(lock_cmd_to_wire(*cmd));
            w.u32(lock_type_to_wire(flock.kind));
            write_flock(w, flock)?;
            write_text(w, "lock domain", domain, MAX_TEXT_BYTES)?;
        }
        Fop::Entrylk { gfid, domain, name, cmd, kind, .. } => {
            w.raw(&gfid.0);
            write_entrylk(w, domain, name.as_ref(), *cmd, *kind)?;
        }
        Fop::Fentrylk { file, domain, name, cmd, kind, .. } => {
            write_file(w, file);
            write_entrylk(w, domain, name.as_ref(), *cmd, *kind)?;
        }
        Fop::Rchecksum { file, offset, len, .. } => {
            write_file(w, file);
            w.u64(*offset);
            w.u32(*len);
            w.u32(0); // flags
        }
        Fop::Fallocate { file, flags, offset, len, .. } => {
            write_file(w, file);
            w.u32(*flags);
            w.u64(*offset);
            w.u64(*len);
        }
        Fop::Discard { file, offset, len, .. } | Fop::Zerofill { file, offset, len, .. } => {
            write_file(w, file);
            w.u64(*offset);
            w.u64(*len);
        }
        Fop::Seek { file, offset, what, .. } => {
            write_file(w, file);
            w.u64(*offset);
            w.u32(seek_to_wire(*what));
        }
        Fop::CopyFileRange { from, from_offset, to, to_offset, len, flags, .. } => {
            w.raw(&from.gfid.0);
            w.raw(&to.gfid.0);
            w.i64(fd_to_wire(from.fd));
            w.i64(fd_to_wire(to.fd));
            w.u64(*from_offset);
            w.u64(*to_offset);
            // The caller learns from the reply how much was copied and goes on from there.
            w.u32(u32::try_from(*len).unwrap_or(u32::MAX));
            w.u32(*flags);
        }
        Fop::Ipc { op, .. } => w.i32(*op),
        Fop::Lease { gfid, lease, .. } => {
            w.raw(&gfid.0);
            write_lease(w, lease);
        }
        Fop::Getactivelk { gfid, .. } => w.raw(&gfid.0),
        Fop::Setactivelk { gfid, locks, .. } => {
            w.raw(&gfid.0);
            write_active_locks(w, locks)?;
        }
        Fop::Icreate { gfid, mode, .. } => {
            w.raw(&gfid.0);
            w.u32(*mode);
        }
        Fop::Namelink { entry, .. } => {
            w.raw(&entry.parent.0);
            write_name(w, &entry.name)?;
        }
        Fop::Put { entry, mode, umask, flags, offset, data, xattrs, .. } => {
            let size = u32::try_from(data.len()).map_err(|_| EncodeError::TooLong {
                what: "put",
                length: data.len(),
                limit: u32::MAX as usize,
            })?;
            w.raw(&entry.parent.0);
            write_name(w, &entry.name)?;
            w.u32(*mode);
            w.u32(*umask);
            w.u32(open_flags_to_wire(*flags));
            w.u64(*offset);
            w.u32(size);
            write_dict(w, xattrs, Empty::NoPairs);
            payload = data.clone();
        }
    }
    match fop {
        // Stock clients never make these NULL.
        Fop::Lookup { xdata, .. } => write_dict(w, xdata, Empty::NoPairs),
        Fop::Release { .. } | Fop::Releasedir { .. } => write_dict(w, &Dict::new(), Empty::NoPairs),
        other => match other.xdata() {
            Some(xdata) => write_dict(w, xdata, Empty::Null),
            None => write_dict(w, &Dict::new(), Empty::Null),
        },
    }
    Ok(payload)
}

/// Reads the body of a request.
pub(super) fn read(kind: FopKind, r: &mut Reader) -> Result<Fop, DecodeError> {
    // Struct expressions evaluate their fields in the order they are written: the order of the wire.
    Ok(match kind {
        FopKind::Lookup => {
            let gfid = read_gfid(r)?;
            let parent = read_gfid(r)?;
            r.u32("lookup flags")?;
            let name = r.opaque("name", MAX_NAME_BYTES)?;
            // gfapi asks for the root as the entry `.` of itself: that names the directory, as no name does.
            let (gfid, entry) = match &name[..] {
                b"" => (gfid, None),
                b"." => (if parent.is_null() { gfid } else { parent }, None),
                _ => (gfid, Some(Entry { parent, name: checked_name(name)? })),
            };
            Fop::Lookup { gfid, entry, xdata: read_dict(r)? }
        }
        FopKind::Stat => Fop::Stat { gfid: read_gfid(r)?, xdata: read_dict(r)? },
        FopKind::Fstat => Fop::Fstat { file: read_file(r)?, xdata: read_dict(r)? },
        FopKind::Setattr => Fop::Setattr {
            gfid: read_gfid(r)?,
            iatt: Box::new(read_iatt(r)?),
            valid: SetattrValid(r.u32("valid")?),
            xdata: read_dict(r)?,
        },
        FopKind::Fsetattr => Fop::Fsetattr {
            file: read_file(r)?,
            iatt: Box::new(read_iatt(r)?),
            valid: SetattrValid(r.u32("valid")?),
            xdata: read_dict(r)?,
        },
        FopKind::Readlink => Fop::Readlink { gfid: read_gfid(r)?, size_bytes: r.u32("size")?, xdata: read_dict(r)? },
        FopKind::Mknod => {
            let parent = read_gfid(r)?;
            let (rdev, mode, umask) = (r.u64("rdev")?, r.u32("mode")?, r.u32("umask")?);
            Fop::Mknod { entry: read_entry(r, parent)?, mode, rdev, umask, xdata: read_dict(r)? }
        }
        FopKind::Mkdir => {
            let parent = read_gfid(r)?;
            let (mode, umask) = (r.u32("mode")?, r.u32("umask")?);
            Fop::Mkdir { entry: read_entry(r, parent)?, mode, umask, xdata: read_dict(r)? }
        }
        FopKind::Symlink => {
            let parent = read_gfid(r)?;
            let entry = read_entry(r, parent)?;
            let umask = r.u32("umask")?;
            let target = r.string("link target", MAX_TARGET_BYTES)?;
            Fop::Symlink { entry, target, umask, xdata: read_dict(r)? }
        }
        FopKind::Link => {
            let (gfid, parent) = (read_gfid(r)?, read_gfid(r)?);
            Fop::Link { gfid, entry: read_entry(r, parent)?, xdata: read_dict(r)? }
        }
        FopKind::Unlink => {
            let parent = read_gfid(r)?;
            Fop::Unlink { entry: read_entry(r, parent)?, flags: r.u32("flags")?, xdata: read_dict(r)? }
        }
        FopKind::Rmdir => {
            let parent = read_gfid(r)?;
            let flags = r.u32("flags")?;
            Fop::Rmdir { entry: read_entry(r, parent)?, flags, xdata: read_dict(r)? }
        }
        FopKind::Rename => {
            let (old, new) = (read_gfid(r)?, read_gfid(r)?);
            Fop::Rename { from: read_entry(r, old)?, to: read_entry(r, new)?, xdata: read_dict(r)? }
        }
        FopKind::Create => {
            let parent = read_gfid(r)?;
            let flags = open_flags_from_wire(r.u32("flags")?);
            let (mode, umask) = (r.u32("mode")?, r.u32("umask")?);
            Fop::Create { entry: read_entry(r, parent)?, flags, mode, umask, fd: FdId(0), xdata: read_dict(r)? }
        }
        FopKind::Open => Fop::Open {
            gfid: read_gfid(r)?,
            flags: open_flags_from_wire(r.u32("flags")?),
            fd: FdId(0),
            xdata: read_dict(r)?,
        },
        FopKind::Opendir => Fop::Opendir { gfid: read_gfid(r)?, fd: FdId(0), xdata: read_dict(r)? },
        FopKind::Release => Fop::Release { file: read_file(r)? },
        FopKind::Releasedir => Fop::Releasedir { file: read_file(r)? },
        FopKind::Read => Fop::Read {
            file: read_file(r)?,
            offset: r.u64("offset")?,
            size_bytes: r.u32("size")?,
            flags: r.u32("flags")?,
            xdata: read_dict(r)?,
        },
        FopKind::Write => {
            let (file, offset) = (read_file(r)?, r.u64("offset")?);
            let size = r.u32("size")? as usize;
            let flags = r.u32("flags")?;
            let xdata = read_dict(r)?;
            Fop::Write { file, offset, data: Payload::from_bytes(r.bytes("write data", size)?), flags, xdata }
        }
        FopKind::Truncate => Fop::Truncate { gfid: read_gfid(r)?, size_bytes: r.u64("size")?, xdata: read_dict(r)? },
        FopKind::Ftruncate => Fop::Ftruncate { file: read_file(r)?, size_bytes: r.u64("size")?, xdata: read_dict(r)? },
        FopKind::Flush => Fop::Flush { file: read_file(r)?, xdata: read_dict(r)? },
        FopKind::Fsync => Fop::Fsync { file: read_file(r)?, datasync: r.u32("datasync")? != 0, xdata: read_dict(r)? },
        FopKind::Fsyncdir => {
            Fop::Fsyncdir { file: read_file(r)?, datasync: r.u32("datasync")? != 0, xdata: read_dict(r)? }
        }
        FopKind::Statfs => Fop::Statfs { gfid: read_gfid(r)?, xdata: read_dict(r)? },
        FopKind::Access => Fop::Access { gfid: read_gfid(r)?, mask: r.u32("mask")?, xdata: read_dict(r)? },
        FopKind::Setxattr => {
            let (gfid, flags) = (read_gfid(r)?, r.u32("flags")?);
            Fop::Setxattr { gfid, xattrs: read_dict(r)?, flags, xdata: read_dict(r)? }
        }
        FopKind::Fsetxattr => {
            let (file, flags) = (read_file(r)?, r.u32("flags")?);
            Fop::Fsetxattr { file, xattrs: read_dict(r)?, flags, xdata: read_dict(r)? }
        }
        FopKind::Getxattr => Fop::Getxattr { gfid: read_gfid(r)?, name: read_optional_text(r)?, xdata: read_dict(r)? },
        FopKind::Fgetxattr => {
            Fop::Fgetxattr { file: read_file(r)?, name: read_optional_text(r)?, xdata: read_dict(r)? }
        }
        FopKind::Removexattr => Fop::Removexattr {
            gfid: read_gfid(r)?,
            name: r.string("xattr name", MAX_TEXT_BYTES)?,
            xdata: read_dict(r)?,
        },
        FopKind::Fremovexattr => Fop::Fremovexattr {
            file: read_file(r)?,
            name: r.string("xattr name", MAX_TEXT_BYTES)?,
            xdata: read_dict(r)?,
        },
        FopKind::Xattrop => Fop::Xattrop {
            gfid: read_gfid(r)?,
            kind: xattrop_from_wire(r.u32("xattrop")?)?,
            xattrs: read_dict(r)?,
            xdata: read_dict(r)?,
        },
        FopKind::Fxattrop => Fop::Fxattrop {
            file: read_file(r)?,
            kind: xattrop_from_wire(r.u32("xattrop")?)?,
            xattrs: read_dict(r)?,
            xdata: read_dict(r)?,
        },
        FopKind::Readdir => Fop::Readdir {
            file: read_file(r)?,
            offset: r.u64("offset")?,
            size_bytes: r.u32("size")?,
            xdata: read_dict(r)?,
        },
        FopKind::Readdirp => Fop::Readdirp {
            file: read_file(r)?,
            offset: r.u64("offset")?,
            size_bytes: r.u32("size")?,
            xdata: read_dict(r)?,
        },
        FopKind::Lk => {
            let file = read_file(r)?;
            let (cmd, flock) = read_lock(r)?;
            Fop::Lk { file, cmd, flock, xdata: read_dict(r)? }
        }
        FopKind::Inodelk => {
            let gfid = read_gfid(r)?;
            let (cmd, flock) = read_lock(r)?;
            let domain = r.string("lock domain", MAX_TEXT_BYTES)?;
            Fop::Inodelk { gfid, domain, cmd, flock, xdata: read_dict(r)? }
        }
        FopKind::Finodelk => {
            let file = read_file(r)?;
            let (cmd, flock) = read_lock(r)?;
            let domain = r.string("lock domain", MAX_TEXT_BYTES)?;
            Fop::Finodelk { file, domain, cmd, flock, xdata: read_dict(r)? }
        }
        FopKind::Entrylk => {
            let gfid = read_gfid(r)?;
            let (cmd, kind, name, domain) = read_entrylk(r)?;
            Fop::Entrylk { gfid, domain, name, cmd, kind, xdata: read_dict(r)? }
        }
        FopKind::Fentrylk => {
            let file = read_file(r)?;
            let (cmd, kind, name, domain) = read_entrylk(r)?;
            Fop::Fentrylk { file, domain, name, cmd, kind, xdata: read_dict(r)? }
        }
        FopKind::Rchecksum => {
            let file = read_file(r)?;
            let (offset, len) = (r.u64("offset")?, r.u32("length")?);
            r.u32("checksum flags")?;
            Fop::Rchecksum { file, offset, len, xdata: read_dict(r)? }
        }
        FopKind::Fallocate => Fop::Fallocate {
            file: read_file(r)?,
            flags: r.u32("flags")?,
            offset: r.u64("offset")?,
            len: r.u64("length")?,
            xdata: read_dict(r)?,
        },
        FopKind::Discard => {
            Fop::Discard { file: read_file(r)?, offset: r.u64("offset")?, len: r.u64("length")?, xdata: read_dict(r)? }
        }
        FopKind::Zerofill => {
            Fop::Zerofill { file: read_file(r)?, offset: r.u64("offset")?, len: r.u64("length")?, xdata: read_dict(r)? }
        }
        FopKind::Seek => Fop::Seek {
            file: read_file(r)?,
            offset: r.u64("offset")?,
            what: seek_from_wire(r.u32("seek")?)?,
            xdata: read_dict(r)?,
        },
        FopKind::CopyFileRange => {
            let (from, to) = (read_gfid(r)?, read_gfid(r)?);
            let (from_fd, to_fd) = (fd_from_wire(r.i64("fd")?), fd_from_wire(r.i64("fd")?));
            Fop::CopyFileRange {
                from: File { gfid: from, fd: from_fd },
                from_offset: r.u64("offset")?,
                to: File { gfid: to, fd: to_fd },
                to_offset: r.u64("offset")?,
                len: u64::from(r.u32("length")?),
                flags: r.u32("flags")?,
                xdata: read_dict(r)?,
            }
        }
        FopKind::Ipc => Fop::Ipc { op: r.i32("ipc")?, xdata: read_dict(r)? },
        FopKind::Lease => Fop::Lease { gfid: read_gfid(r)?, lease: read_lease(r)?, xdata: read_dict(r)? },
        FopKind::Getactivelk => Fop::Getactivelk { gfid: read_gfid(r)?, xdata: read_dict(r)? },
        FopKind::Setactivelk => {
            Fop::Setactivelk { gfid: read_gfid(r)?, locks: read_active_locks(r)?, xdata: read_dict(r)? }
        }
        FopKind::Icreate => Fop::Icreate { gfid: read_gfid(r)?, mode: r.u32("mode")?, xdata: read_dict(r)? },
        FopKind::Namelink => {
            let parent = read_gfid(r)?;
            Fop::Namelink { entry: read_entry(r, parent)?, xdata: read_dict(r)? }
        }
        FopKind::Put => {
            let parent = read_gfid(r)?;
            let entry = read_entry(r, parent)?;
            let (mode, umask) = (r.u32("mode")?, r.u32("umask")?);
            let flags = open_flags_from_wire(r.u32("flags")?);
            let offset = r.u64("offset")?;
            let size = r.u32("size")? as usize;
            let (xattrs, xdata) = (read_dict(r)?, read_dict(r)?);
            let data = Payload::from_bytes(r.bytes("put data", size)?);
            Fop::Put { entry, mode, umask, flags, offset, data, xattrs, xdata }
        }
    })
}

fn fd_to_wire(fd: Option<FdId>) -> i64 {
    fd.map_or(ANONYMOUS_FD, |fd| fd.0 as i64)
}

/// Negative numbers other than -2 name no descriptor anybody has: they fail the server's look-up, as they should.
fn fd_from_wire(number: i64) -> Option<FdId> {
    (number != ANONYMOUS_FD).then_some(FdId(number as u64))
}

fn write_file(w: &mut Writer, file: &File) {
    w.raw(&file.gfid.0);
    w.i64(fd_to_wire(file.fd));
}

fn read_file(r: &mut Reader) -> Result<File, DecodeError> {
    Ok(File { gfid: read_gfid(r)?, fd: fd_from_wire(r.i64("fd")?) })
}

fn write_name(w: &mut Writer, name: &Name) -> Result<(), EncodeError> {
    if name.len() > MAX_NAME_BYTES {
        return Err(EncodeError::TooLong { what: "name", length: name.len(), limit: MAX_NAME_BYTES });
    }
    if !is_valid_name(name) {
        return Err(EncodeError::BadName { what: "name" });
    }
    w.opaque(name);
    Ok(())
}

fn checked_name(name: Bytes) -> Result<Name, DecodeError> {
    if is_valid_name(&name) { Ok(name) } else { Err(DecodeError::BadName { what: "name" }) }
}

fn read_entry(r: &mut Reader, parent: Gfid) -> Result<Entry, DecodeError> {
    Ok(Entry { parent, name: checked_name(r.opaque("name", MAX_NAME_BYTES)?)? })
}

fn write_text(w: &mut Writer, what: &'static str, text: &Bytes, limit: usize) -> Result<(), EncodeError> {
    if text.len() > limit {
        return Err(EncodeError::TooLong { what, length: text.len(), limit });
    }
    if text.contains(&0) {
        return Err(EncodeError::BadName { what });
    }
    w.opaque(text);
    Ok(())
}

/// An xattr name with the flag in front that says whether there is one.
fn write_optional_text(w: &mut Writer, name: &Bytes) -> Result<(), EncodeError> {
    w.u32(u32::from(!name.is_empty()));
    write_text(w, "xattr name", name, MAX_TEXT_BYTES)
}

fn read_optional_text(r: &mut Reader) -> Result<Bytes, DecodeError> {
    let present = r.u32("xattr name flag")? != 0;
    let name = r.string("xattr name", MAX_TEXT_BYTES)?;
    Ok(if present { name } else { Bytes::new() })
}

/// `gf_proto_flock`.
pub(crate) fn write_flock(w: &mut Writer, flock: &Flock) -> Result<(), EncodeError> {
    let owner = &flock.owner.0;
    if owner.len() > MAX_LOCK_OWNER_BYTES {
        let (length, limit) = (owner.len(), MAX_LOCK_OWNER_BYTES);
        return Err(EncodeError::TooLong { what: "lock owner", length, limit });
    }
    w.u32(lock_type_to_wire(flock.kind));
    w.u32(flock.whence);
    w.u64(flock.start);
    w.u64(flock.len);
    w.u32(flock.pid);
    w.opaque(owner);
    Ok(())
}

/// `gf_proto_flock`.
pub(crate) fn read_flock(r: &mut Reader) -> Result<Flock, DecodeError> {
    Ok(Flock {
        kind: lock_type_from_wire(r.u32("lock type")?)?,
        whence: r.u32("whence")?,
        start: r.u64("lock start")?,
        len: r.u64("lock length")?,
        pid: r.u32("lock pid")?,
        owner: LockOwner(r.opaque("lock owner", MAX_LOCK_OWNER_BYTES)?),
    })
}

/// `gf_proto_lease`.
pub(super) fn write_lease(w: &mut Writer, lease: &Lease) {
    w.u32(lease.cmd);
    w.u32(lease.kind);
    w.raw(&lease.id);
    w.u32(lease.flags);
}

/// `gf_proto_lease`.
pub(super) fn read_lease(r: &mut Reader) -> Result<Lease, DecodeError> {
    Ok(Lease {
        cmd: r.u32("lease command")?,
        kind: r.u32("lease type")?,
        id: r.array("lease id")?,
        flags: r.u32("lease flags")?,
    })
}

/// `gfs3_locklist`: a linked list, as that of READDIR. Nothing is written where one of them does not fit.
pub(super) fn write_active_locks(w: &mut Writer, locks: &[ActiveLock]) -> Result<(), EncodeError> {
    for lock in locks {
        let (owner, client) = (lock.flock.owner.0.len(), lock.client.len());
        if owner > MAX_LOCK_OWNER_BYTES {
            return Err(EncodeError::TooLong { what: "lock owner", length: owner, limit: MAX_LOCK_OWNER_BYTES });
        }
        if client > MAX_TEXT_BYTES || lock.client.contains(&0) {
            return Err(EncodeError::TooLong { what: "client of a lock", length: client, limit: MAX_TEXT_BYTES });
        }
    }
    for lock in locks {
        w.u32(1);
        write_flock(w, &lock.flock)?;
        w.opaque(&lock.client);
        w.u32(lock.flags);
    }
    w.u32(0);
    Ok(())
}

/// `gfs3_locklist`.
pub(super) fn read_active_locks(r: &mut Reader) -> Result<Vec<ActiveLock>, DecodeError> {
    let mut locks = Vec::new();
    while r.present("next lock")? {
        if locks.len() == MAX_ENTRIES {
            return Err(DecodeError::TooLong { what: "locks", length: MAX_ENTRIES + 1, limit: MAX_ENTRIES });
        }
        let flock = read_flock(r)?;
        let client = r.string("client of a lock", MAX_TEXT_BYTES)?;
        locks.push(ActiveLock { flock, client, flags: r.u32("lock flags")? });
    }
    Ok(locks)
}

/// Command, type and flock. Servers go by the type in front, not the one in the flock.
fn read_lock(r: &mut Reader) -> Result<(ladrillo_translator::fop::LockCmd, Flock), DecodeError> {
    let cmd = lock_cmd_from_wire(r.u32("lock command")?)?;
    let kind = lock_type_from_wire(r.u32("lock type")?)?;
    let flock = read_flock(r)?;
    Ok((cmd, Flock { kind, ..flock }))
}

fn write_entrylk(
    w: &mut Writer,
    domain: &Bytes,
    name: Option<&Name>,
    cmd: ladrillo_translator::fop::EntrylkCmd,
    kind: LockType,
) -> Result<(), EncodeError> {
    w.u32(entrylk_cmd_to_wire(cmd));
    w.u32(lock_type_to_wire(kind));
    w.u64(u64::from(name.is_some()));
    match name {
        // AFR also locks by names that no directory holds (a gfid as text): any text will do.
        Some(name) => write_text(w, "name", name, MAX_NAME_BYTES)?,
        None => w.u32(0),
    }
    write_text(w, "lock domain", domain, MAX_TEXT_BYTES)
}

type Entrylk = (ladrillo_translator::fop::EntrylkCmd, LockType, Option<Name>, Bytes);

fn read_entrylk(r: &mut Reader) -> Result<Entrylk, DecodeError> {
    let cmd = entrylk_cmd_from_wire(r.u32("entrylk command")?)?;
    let kind = lock_type_from_wire(r.u32("entrylk type")?)?;
    let present = r.u64("name flag")? != 0;
    let name = r.string("name", MAX_NAME_BYTES)?;
    let domain = r.string("lock domain", MAX_TEXT_BYTES)?;
    Ok((cmd, kind, present.then_some(name), domain))
}
