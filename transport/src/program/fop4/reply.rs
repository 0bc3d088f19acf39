//! Replies: `op_ret`, `op_errno`, xdata, then what the procedure answers; zeros there when it failed.

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{DirEntry, PrePost, Statfs};
use ladrillo_translator::{Dict, FdId, FopError, FopKind, FopResult, Iatt, Payload, Reply};

use super::numbers::*;
use super::request::{read_active_locks, read_flock, read_lease, write_active_locks, write_flock, write_lease};
use super::*;
use crate::dict::{self, Empty, read_dict, read_iatt, write_dict, write_iatt};

/// Longest checksum of RCHECKSUM in bytes (SHA-256 has 32).
const MAX_CHECKSUM_BYTES: usize = 256;

/// The shapes of replies: several procedures share one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `gfx_common_rsp`.
    Done,
    /// `gfx_common_iatt_rsp`.
    Iatt,
    /// `gfx_common_2iatt_rsp` of LOOKUP: the inode and its parent.
    Lookup,
    /// `gfx_common_2iatt_rsp`: an inode before and after.
    PrePost,
    /// `gfx_common_2iatt_rsp`: the parent before and after.
    Removed,
    /// `gfx_common_3iatt_rsp`.
    Entry,
    Create,
    Open,
    Readlink,
    Rename,
    Read,
    /// `gfx_common_dict_rsp`.
    Xattrs,
    Readdir,
    Readdirp,
    Statfs,
    Lk,
    Rchecksum,
    Seek,
    /// `gfx_common_3iatt_rsp`: the source, the target before and after.
    CopyFileRange,
    Lease,
    Activelk,
}

fn shape(kind: FopKind) -> Shape {
    use FopKind::*;
    match kind {
        Stat | Fstat | Icreate => Shape::Iatt,
        Lookup => Shape::Lookup,
        Setattr | Fsetattr | Write | Truncate | Ftruncate | Fsync | Fallocate | Discard | Zerofill => Shape::PrePost,
        Unlink | Rmdir | Namelink => Shape::Removed,
        Mknod | Mkdir | Symlink | Link | Put => Shape::Entry,
        Create => Shape::Create,
        Open | Opendir => Shape::Open,
        Readlink => Shape::Readlink,
        Rename => Shape::Rename,
        Read => Shape::Read,
        Getxattr | Fgetxattr | Xattrop | Fxattrop => Shape::Xattrs,
        Readdir => Shape::Readdir,
        Readdirp => Shape::Readdirp,
        Statfs => Shape::Statfs,
        Lk => Shape::Lk,
        Rchecksum => Shape::Rchecksum,
        Seek => Shape::Seek,
        CopyFileRange => Shape::CopyFileRange,
        Lease => Shape::Lease,
        Getactivelk => Shape::Activelk,
        Release | Releasedir | Flush | Fsyncdir | Access | Setxattr | Fsetxattr | Removexattr | Fremovexattr
        | Inodelk | Finodelk | Entrylk | Fentrylk | Ipc | Setactivelk => Shape::Done,
    }
}

/// Bytes to reserve for a reply, so that its buffer rarely grows.
pub(super) fn size_hint(result: &FopResult) -> usize {
    let body = match result {
        Ok(Reply::Entries { entries, .. }) => {
            entries.iter().map(|e| 220 + e.name.len() + dict::size_hint(&e.xdata)).sum()
        }
        Ok(Reply::Xattrs { xattrs, .. }) => dict::size_hint(xattrs) + 2 * 148,
        _ => 5 * 148,
    };
    let xdata = match result {
        Ok(reply) => dict::size_hint(reply.xdata()),
        Err(error) => error.xdata.as_deref().map_or(12, dict::size_hint),
    };
    64 + body + xdata
}

/// Writes the body of a reply, and gives back the file data that follows it (READ). A reply that is not of this
/// kind's shape (a translator's bug) is sent as EPROTO.
pub fn write_reply(w: &mut Writer, kind: FopKind, result: &FopResult, opened: Option<FdId>) -> Payload {
    let shape = shape(kind);
    match result {
        Ok(reply) => {
            let start = w.len();
            if let Some(payload) = write_success(w, kind, shape, reply, opened) {
                return payload;
            }
            debug_assert_eq!(w.len(), start, "a misfit is found before anything is written");
            tracing::error!(fop = %kind.name(), "reply of another kind of fop: sent as EPROTO");
            write_failure(w, shape, errno::EPROTO, &Dict::new());
        }
        Err(error) => {
            static NONE: Dict = Dict::new();
            write_failure(w, shape, error.errno, error.xdata.as_deref().unwrap_or(&NONE));
        }
    }
    Payload::empty()
}

fn write_status(w: &mut Writer, op_ret: usize, xdata: &Dict) {
    w.i32(i32::try_from(op_ret).unwrap_or(i32::MAX));
    w.i32(0);
    write_dict(w, xdata, Empty::Null);
}

fn write_pre_post(w: &mut Writer, attrs: &PrePost) {
    write_iatt(w, &attrs.pre);
    write_iatt(w, &attrs.post);
}

/// `None`, with nothing written, where reply and shape do not fit.
fn write_success(w: &mut Writer, kind: FopKind, shape: Shape, reply: &Reply, opened: Option<FdId>) -> Option<Payload> {
    match (shape, reply) {
        (Shape::Done, Reply::Done { xdata }) => write_status(w, 0, xdata),
        (Shape::Open, Reply::Done { xdata }) => {
            write_status(w, 0, xdata);
            w.u64(opened?.0);
        }
        (Shape::Iatt, Reply::Iatt { iatt, xdata }) => {
            write_status(w, 0, xdata);
            write_iatt(w, iatt);
        }
        (Shape::Lookup, Reply::Lookup { iatt, parent, xdata }) => {
            write_status(w, 0, xdata);
            write_iatt(w, iatt);
            write_iatt(w, parent);
        }
        (Shape::PrePost, Reply::PrePost { attrs, written, xdata }) => {
            let op_ret = if kind == FopKind::Write { *written as usize } else { 0 };
            write_status(w, op_ret, xdata);
            write_pre_post(w, attrs);
        }
        (Shape::Removed, Reply::Removed { parent, xdata }) => {
            write_status(w, 0, xdata);
            write_pre_post(w, parent);
        }
        (Shape::Entry, Reply::Entry { iatt, parent, xdata }) => {
            write_status(w, 0, xdata);
            write_iatt(w, iatt);
            write_pre_post(w, parent);
        }
        (Shape::Create, Reply::Entry { iatt, parent, xdata }) => {
            let fd = opened?;
            write_status(w, 0, xdata);
            write_iatt(w, iatt);
            w.u64(fd.0);
            write_pre_post(w, parent);
        }
        (Shape::Readlink, Reply::Readlink { target, iatt, xdata }) => {
            write_status(w, target.len(), xdata);
            write_iatt(w, iatt);
            w.opaque(target);
        }
        (Shape::Rename, Reply::Rename { iatt, from_parent, to_parent, xdata }) => {
            write_status(w, 0, xdata);
            write_iatt(w, iatt);
            write_pre_post(w, from_parent);
            write_pre_post(w, to_parent);
        }
        (Shape::Read, Reply::Read { data, iatt, xdata }) => {
            w.i32(i32::try_from(data.len()).ok()?);
            w.i32(0);
            write_iatt(w, iatt);
            w.u32(data.len() as u32);
            write_dict(w, xdata, Empty::Null);
            return Some(data.clone());
        }
        (Shape::Xattrs, Reply::Xattrs { xattrs, xdata }) => {
            write_status(w, 0, xdata);
            write_dict(w, xattrs, Empty::NoPairs);
            write_pre_post(w, &PrePost::default());
        }
        (Shape::Readdir, Reply::Entries { entries, xdata }) => {
            write_entries_status(w, entries, xdata);
            for entry in entries {
                write_entry_head(w, entry);
            }
            w.u32(0);
        }
        (Shape::Readdirp, Reply::Entries { entries, xdata }) => {
            write_entries_status(w, entries, xdata);
            let unknown = Iatt::default();
            for entry in entries {
                write_entry_head(w, entry);
                write_iatt(w, entry.iatt.as_ref().unwrap_or(&unknown));
                write_dict(w, &entry.xdata, Empty::Null);
            }
            w.u32(0);
        }
        (Shape::Statfs, Reply::Statfs { statfs, xdata }) => {
            write_status(w, 0, xdata);
            write_statfs(w, statfs);
        }
        (Shape::Lk, Reply::Lk { flock, xdata }) => {
            if flock.owner.0.len() > MAX_LOCK_OWNER_BYTES {
                return None;
            }
            write_status(w, 0, xdata);
            write_flock(w, flock).ok()?;
        }
        (Shape::Rchecksum, Reply::Rchecksum { weak, strong, flags, xdata }) => {
            write_status(w, 0, xdata);
            w.u32(*flags);
            w.u32(*weak);
            w.opaque(strong);
        }
        (Shape::Seek, Reply::Seek { offset, xdata }) => {
            write_status(w, 0, xdata);
            w.u64(*offset);
        }
        (Shape::CopyFileRange, Reply::CopyFileRange { copied, iatt, to, xdata, .. }) => {
            write_status(w, *copied as usize, xdata);
            write_iatt(w, iatt);
            write_pre_post(w, to);
        }
        (Shape::Lease, Reply::Lease { lease, xdata }) => {
            write_status(w, 0, xdata);
            write_lease(w, lease);
        }
        (Shape::Activelk, Reply::Activelk { locks, xdata }) => {
            let mut list = Writer::with_capacity(64 * locks.len() + 4);
            write_active_locks(&mut list, locks).ok()?;
            write_status(w, locks.len(), xdata);
            w.raw(&list.finish());
        }
        _ => return None,
    }
    Some(Payload::empty())
}

/// An empty listing means the end of the directory, which stock clients take from ENOENT beside success.
fn write_entries_status(w: &mut Writer, entries: &[DirEntry], xdata: &Dict) {
    w.i32(entries.len() as i32);
    w.i32(if entries.is_empty() { errno::ENOENT } else { 0 });
    write_dict(w, xdata, Empty::Null);
}

/// `gfx_dirlist` is a linked list: each entry is announced, and a 0 ends it. Depth-first XDR puts the announcement of
/// the next entry behind the fields of this one.
fn write_entry_head(w: &mut Writer, entry: &DirEntry) {
    w.u32(1);
    w.u64(entry.ino);
    w.u64(entry.offset);
    w.u32(entry.name.len() as u32);
    w.u32(entry.d_type);
    w.opaque(&entry.name);
}

fn write_statfs(w: &mut Writer, s: &Statfs) {
    for number in [
        s.block_size_bytes,
        s.fragment_size_bytes,
        s.blocks,
        s.blocks_free,
        s.blocks_available,
        s.files,
        s.files_free,
        s.files_available,
        s.fs_id,
        s.flags,
        s.name_max_bytes,
    ] {
        w.u64(number);
    }
}

fn write_failure(w: &mut Writer, shape: Shape, errno: i32, xdata: &Dict) {
    w.i32(-1);
    w.i32(errno_to_wire(errno));
    if shape == Shape::Read {
        write_zeros(w, 148 + 4);
    }
    write_dict(w, xdata, Empty::Null);
    let zeros = match shape {
        Shape::Done | Shape::Read => 0,
        Shape::Iatt => 148,
        Shape::Lookup | Shape::PrePost | Shape::Removed => 2 * 148,
        Shape::Entry | Shape::CopyFileRange => 3 * 148,
        Shape::Create => 3 * 148 + 8,
        Shape::Open | Shape::Seek => 8,
        Shape::Readlink => 148 + 4,
        Shape::Rename => 5 * 148,
        // An empty dict, two iatts.
        Shape::Xattrs => 12 + 2 * 148,
        Shape::Readdir | Shape::Readdirp => 4,
        Shape::Statfs => 11 * 8,
        Shape::Lk => 4 + 4 + 8 + 8 + 4 + 4,
        Shape::Rchecksum => 12,
        Shape::Lease => 4 + 4 + 16 + 4,
        Shape::Activelk => 4,
    };
    write_zeros(w, zeros);
}

fn write_zeros(w: &mut Writer, count: usize) {
    static ZEROS: [u8; 5 * 148] = [0; 5 * 148];
    w.raw(ZEROS.get(..count).unwrap_or(&ZEROS));
}

/// Reads the body of a reply.
pub(super) fn read(kind: FopKind, r: &mut Reader) -> Result<(FopResult, Option<FdId>), DecodeError> {
    let shape = shape(kind);
    let op_ret = r.i32("op_ret")?;
    let op_errno = r.i32("op_errno")?;
    if op_ret < 0 {
        if shape == Shape::Read {
            r.bytes("failed read", 148 + 4)?;
        }
        // What follows the xdata of a failure means nothing.
        let xdata = read_dict(r)?;
        let error = FopError::new(errno_from_wire(op_errno), format!("{} failed on the brick", kind.name()));
        return Ok((Err(error.with_xdata(xdata)), None));
    }
    // READ alone has its xdata at the end.
    let xdata = if shape == Shape::Read { Dict::new() } else { read_dict(r)? };
    let mut opened = None;
    let reply = match shape {
        Shape::Done => Reply::Done { xdata },
        Shape::Open => {
            opened = Some(FdId(r.u64("fd")?));
            Reply::Done { xdata }
        }
        Shape::Iatt => Reply::Iatt { iatt: read_boxed(r)?, xdata },
        Shape::Lookup => Reply::Lookup { iatt: read_boxed(r)?, parent: read_boxed(r)?, xdata },
        Shape::PrePost => {
            let written = if kind == FopKind::Write { op_ret as u32 } else { 0 };
            Reply::PrePost { attrs: read_pre_post(r)?, written, xdata }
        }
        Shape::Removed => Reply::Removed { parent: read_pre_post(r)?, xdata },
        Shape::Entry => Reply::Entry { iatt: read_boxed(r)?, parent: read_pre_post(r)?, xdata },
        Shape::Create => {
            let iatt = read_boxed(r)?;
            opened = Some(FdId(r.u64("fd")?));
            Reply::Entry { iatt, parent: read_pre_post(r)?, xdata }
        }
        Shape::Readlink => {
            let iatt = read_boxed(r)?;
            Reply::Readlink { target: r.string("link target", MAX_TARGET_BYTES)?, iatt, xdata }
        }
        Shape::Rename => {
            Reply::Rename { iatt: read_boxed(r)?, from_parent: read_pre_post(r)?, to_parent: read_pre_post(r)?, xdata }
        }
        // The two iatts behind the dict are never filled in.
        Shape::Xattrs => Reply::Xattrs { xattrs: read_dict(r)?, xdata },
        Shape::Readdir => Reply::Entries { entries: read_entries(r, false)?, xdata },
        Shape::Readdirp => Reply::Entries { entries: read_entries(r, true)?, xdata },
        Shape::Statfs => Reply::Statfs { statfs: read_statfs(r)?, xdata },
        Shape::Lk => Reply::Lk { flock: read_flock(r)?, xdata },
        Shape::Rchecksum => {
            let (flags, weak) = (r.u32("checksum flags")?, r.u32("weak checksum")?);
            Reply::Rchecksum { weak, strong: r.opaque("strong checksum", MAX_CHECKSUM_BYTES)?, flags, xdata }
        }
        Shape::Seek => Reply::Seek { offset: r.u64("offset")?, xdata },
        Shape::Lease => Reply::Lease { lease: read_lease(r)?, xdata },
        Shape::Activelk => Reply::Activelk { locks: read_active_locks(r)?, xdata },
        Shape::CopyFileRange => {
            let iatt = read_boxed(r)?;
            let from = Box::new(PrePost { pre: (*iatt).clone(), post: (*iatt).clone() });
            Reply::CopyFileRange { copied: op_ret as u32, iatt, from, to: read_pre_post(r)?, xdata }
        }
        Shape::Read => {
            let iatt = read_boxed(r)?;
            let size = r.u32("read size")? as usize;
            let xdata = read_dict(r)?;
            Reply::Read { data: Payload::from_bytes(r.bytes("read data", size)?), iatt, xdata }
        }
    };
    Ok((Ok(reply), opened))
}

fn read_boxed(r: &mut Reader) -> Result<Box<Iatt>, DecodeError> {
    read_iatt(r).map(Box::new)
}

fn read_pre_post(r: &mut Reader) -> Result<Box<PrePost>, DecodeError> {
    Ok(Box::new(PrePost { pre: read_iatt(r)?, post: read_iatt(r)? }))
}

fn read_entries(r: &mut Reader, plus: bool) -> Result<Vec<DirEntry>, DecodeError> {
    let mut entries = Vec::new();
    while r.present("next entry")? {
        if entries.len() == MAX_ENTRIES {
            return Err(DecodeError::TooLong { what: "entries", length: MAX_ENTRIES + 1, limit: MAX_ENTRIES });
        }
        let ino = r.u64("ino")?;
        let offset = r.u64("entry offset")?;
        r.u32("name length")?;
        let d_type = r.u32("d_type")?;
        let name = r.opaque("name", MAX_NAME_BYTES)?;
        if !is_valid_name(&name) && !matches!(&name[..], b"." | b"..") {
            return Err(DecodeError::BadName { what: "directory entry" });
        }
        let (iatt, xdata) = match plus {
            true => (Some(read_iatt(r)?).filter(|iatt| iatt.mode != 0), read_dict(r)?),
            false => (None, Dict::new()),
        };
        entries.push(DirEntry { ino, offset, d_type, name, iatt, xdata });
    }
    Ok(entries)
}

fn read_statfs(r: &mut Reader) -> Result<Statfs, DecodeError> {
    let mut next = || r.u64("statfs");
    Ok(Statfs {
        block_size_bytes: next()?,
        fragment_size_bytes: next()?,
        blocks: next()?,
        blocks_free: next()?,
        blocks_available: next()?,
        files: next()?,
        files_free: next()?,
        files_available: next()?,
        fs_id: next()?,
        flags: next()?,
        name_max_bytes: next()?,
    })
}
