//! Extended attributes of an in-memory brick, counters included.

use bytes::Bytes;

use super::index::{self, Index};
use super::state::Inode;
use super::{Brick, Content};
use crate::error::errno;
use crate::fop::XattropKind;
use crate::{Dict, FopError, FopResult, Gfid, Reply, Value};

const XATTR_CREATE: u32 = 1;
const XATTR_REPLACE: u32 = 2;
/// Times that all copies share.
const MDATA_KEY: &[u8] = b"trusted.glusterfs.mdata";
/// Longest value, as Linux has it.
const MAX_VALUE_BYTES: usize = 65_536;

/// Whether a brick keeps this key in an inode (others are questions or orders to the brick itself).
pub(super) fn is_storable(key: &[u8]) -> bool {
    let kept = [&b"trusted."[..], b"user.", b"security.", b"system.posix_acl"].iter().any(|ns| key.starts_with(ns));
    kept && key != b"trusted.gfid"
}

/// What distribute makes equal on all subvolumes' copies of a directory.
pub(super) fn is_shared(key: &[u8]) -> bool {
    key.starts_with(b"user.") || key.starts_with(b"system.posix_acl")
}

/// The bytes of a value as they are stored.
pub(super) fn value_of(value: &Value) -> FopResult<Bytes> {
    let bytes = match value {
        Value::Str(bytes) | Value::StrOld(bytes) | Value::Ptr(bytes) => bytes.clone(),
        Value::Gfid(gfid) => Bytes::copy_from_slice(&gfid.0),
        Value::Int(number) => Bytes::from(number.to_string()),
        Value::Uint(number) => Bytes::from(number.to_string()),
        Value::Double(_) | Value::Iatt(_) | Value::Mdata(_) => {
            return Err(FopError::new(errno::EINVAL, "an xattr of a type that cannot be stored"));
        }
    };
    match bytes.len() {
        0..=MAX_VALUE_BYTES => Ok(bytes),
        _ => Err(FopError::new(errno::ENOSPC, "an xattr over 64 KiB")),
    }
}

impl Brick<'_> {
    /// Answers what a fop's xdata asks about an inode.
    pub(super) fn fill(&self, inode: &Inode, wanted: &Dict) -> Dict {
        let mut answer = Dict::new();
        for (key, value) in wanted.iter() {
            match key.as_ref() {
                b"list-xattr" => {
                    for (name, value) in &inode.xattrs {
                        answer.set(name.clone(), Value::Ptr(value.clone()));
                    }
                }
                b"link-count" => {
                    let pending = !self.state.index.pending.is_empty();
                    answer.set(key.clone(), Value::Int(i64::from(pending)));
                }
                b"glusterfs.open-fd-count" | b"glusterfs.open-active-fd-count" => {
                    answer.set(key.clone(), Value::Uint(u64::from(inode.open_count)));
                }
                b"trusted.gfid" => answer.set(key.clone(), Value::Ptr(Bytes::copy_from_slice(&inode.gfid.0))),
                b"glusterfs.content" => {
                    if let (Content::File { data, .. }, Some(limit)) = (&inode.content, int_of(value))
                        && data.len() as u64 <= limit
                    {
                        answer.set(key.clone(), Value::Ptr(Bytes::copy_from_slice(data)));
                    }
                }
                _ => {
                    if let Some(value) = inode.xattrs.get(key) {
                        answer.set(key.clone(), Value::Ptr(value.clone()));
                    }
                }
            }
        }
        answer
    }

    pub(super) fn setxattr(&mut self, gfid: Gfid, xattrs: &Dict, flags: u32) -> FopResult {
        let now = self.now;
        let inode = self.inode_mut(gfid)?;
        let mut changes = Vec::new();
        for (key, value) in xattrs.iter() {
            if let (MDATA_KEY, Value::Mdata(times)) = (key.as_ref(), value) {
                // The client's own repair of times: the later of each wins.
                inode.atime = inode.atime.max(times.atime);
                inode.mtime = inode.mtime.max(times.mtime);
                inode.ctime = inode.ctime.max(times.ctime);
                return Ok(Reply::done());
            }
            if !is_storable(key) || key.len() > 255 {
                return Err(FopError::new(errno::EOPNOTSUPP, format!("xattr {}", String::from_utf8_lossy(key))));
            }
            match (flags, inode.xattrs.contains_key(key)) {
                (XATTR_CREATE, true) => return Err(FopError::new(errno::EEXIST, "the xattr exists")),
                (XATTR_REPLACE, false) => return Err(FopError::new(errno::ENODATA, "no such xattr")),
                _ => changes.push((key.clone(), value_of(value)?)),
            }
        }
        inode.xattrs.extend(changes);
        inode.ctime = inode.ctime.max(now);
        Ok(Reply::done())
    }

    pub(super) fn getxattr(&self, gfid: Gfid, name: &[u8]) -> FopResult {
        let index = &self.state.index;
        let single = |value| {
            let xattrs = Dict::new().with(Bytes::copy_from_slice(name), value);
            Ok(Reply::Xattrs { xattrs, xdata: Dict::new() })
        };
        if let Some(directory) = Index::gfid_of(name) {
            return single(Value::Ptr(Bytes::copy_from_slice(&directory.0)));
        }
        if name == index::key::PENDING_COUNT.as_bytes() {
            return single(Value::Uint(index.pending.len() as u64));
        }
        if name == index::key::DIRTY_COUNT.as_bytes() {
            return single(Value::Uint(index.dirty.len() as u64));
        }
        let inode = self.inode(gfid)?;
        if name.is_empty() {
            let all = inode.xattrs.iter().map(|(key, value)| (key.clone(), Value::Ptr(value.clone()))).collect();
            return Ok(Reply::Xattrs { xattrs: all, xdata: Dict::new() });
        }
        match inode.xattrs.get(name) {
            Some(value) => single(Value::Ptr(value.clone())),
            None => Err(FopError::new(errno::ENODATA, "no such xattr")),
        }
    }

    pub(super) fn removexattr(&mut self, gfid: Gfid, name: &[u8]) -> FopResult {
        let now = self.now;
        let inode = self.inode_mut(gfid)?;
        if inode.xattrs.remove(name).is_none() {
            return Err(FopError::new(errno::ENODATA, "no such xattr"));
        }
        inode.ctime = inode.ctime.max(now);
        Ok(Reply::done())
    }

    pub(super) fn xattrop(&mut self, gfid: Gfid, kind: XattropKind, wanted: &Dict, xdata: &Dict) -> FopResult {
        let inode = self.inode(gfid)?;
        let (mut answer, mut changes) = (Dict::new(), Vec::new());
        for (key, operand) in wanted.iter() {
            let operand = match operand {
                Value::Str(bytes) | Value::StrOld(bytes) | Value::Ptr(bytes) => bytes,
                _ => return Err(FopError::new(errno::EINVAL, "an xattrop without bytes")),
            };
            if operand.len() > MAX_VALUE_BYTES || !is_storable(key) {
                return Err(FopError::new(errno::EINVAL, "an xattrop that cannot be stored"));
            }
            let before = inode.xattrs.get(key);
            let (result, stored) = apply(kind, before, operand)?;
            if let Some(result) = result {
                answer.set(key.clone(), Value::Ptr(result));
            }
            if let Some(stored) = stored {
                changes.push((key.clone(), stored));
            }
        }
        let is_counting = matches!(kind, XattropKind::AddArray | XattropKind::AddArray64);
        let inode = self.inode_mut(gfid)?;
        inode.xattrs.extend(changes);
        if is_counting {
            let xattrs = inode.xattrs.clone();
            self.follow(gfid, &xattrs, xdata);
        }
        let filled = self.fill(self.inode(gfid)?, xdata);
        Ok(Reply::Xattrs { xattrs: answer, xdata: filled })
    }

    /// Brings the index in line with an inode's marks.
    fn follow(&mut self, gfid: Gfid, xattrs: &std::collections::BTreeMap<Bytes, Bytes>, xdata: &Dict) {
        let index = &mut self.state.index;
        index.update(gfid, xattrs);
        if let Some(name) = xdata.text(index::key::ENTRY_IN) {
            index.entry_changes.entry(gfid).or_default().insert(Bytes::copy_from_slice(name.as_bytes()));
        }
        if let Some(name) = xdata.text(index::key::ENTRY_OUT)
            && let Some(names) = index.entry_changes.get_mut(&gfid)
        {
            names.remove(name.as_bytes());
        }
        if xdata.int(index::key::PURGE).is_some_and(|purge| purge != 0) && !index.pending.contains(&gfid) {
            index.entry_changes.remove(&gfid);
        }
    }
}

fn int_of(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Uint(number) => Some(*number),
        _ => None,
    }
}

/// What an xattrop answers and what it stores.
fn apply(kind: XattropKind, before: Option<&Bytes>, operand: &Bytes) -> FopResult<(Option<Bytes>, Option<Bytes>)> {
    let with_default = matches!(kind, XattropKind::AddArrayWithDefault | XattropKind::AddArray64WithDefault);
    let len = if with_default { operand.len() / 2 } else { operand.len() };
    if kind == XattropKind::GetAndSet {
        return Ok((before.cloned(), Some(operand.clone())));
    }
    let mut value = match before {
        Some(before) if before.len() > len => {
            return Err(FopError::new(errno::ERANGE, "an xattrop shorter than what is stored"));
        }
        Some(before) => before.to_vec(),
        None => Vec::new(),
    };
    value.resize(len, 0);
    if kind != XattropKind::AndArray && operand.iter().all(|byte| *byte == 0) {
        // Asking, not changing: nothing is created.
        return Ok((Some(value.into()), None));
    }
    let (added, default) = operand.split_at(len);
    match kind {
        XattropKind::AddArray | XattropKind::AddArrayWithDefault => add::<4>(&mut value, added, default),
        XattropKind::AddArray64 | XattropKind::AddArray64WithDefault => add::<8>(&mut value, added, default),
        XattropKind::OrArray => value.iter_mut().zip(added).for_each(|(byte, other)| *byte |= other),
        XattropKind::AndArray => value.iter_mut().zip(added).for_each(|(byte, other)| *byte &= other),
        XattropKind::GetAndSet => {}
    }
    let value = Bytes::from(value);
    Ok((Some(value.clone()), Some(value)))
}

/// Adds big-endian counters of `WIDTH` bytes, wrapping; where one is zero also its default.
fn add<const WIDTH: usize>(value: &mut [u8], added: &[u8], default: &[u8]) {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    for (at, counter) in value.chunks_exact_mut(WIDTH).enumerate() {
        let range = at * WIDTH..(at + 1) * WIDTH;
        let before = number(counter);
        let mut sum = before.wrapping_add(added.get(range.clone()).map_or(0, number));
        if before == 0 {
            sum = sum.wrapping_add(default.get(range).map_or(0, number));
        }
        counter.copy_from_slice(&sum.to_be_bytes()[8 - WIDTH..]);
    }
}
