//! Extended attributes: what clients may see and set, GlusterFS's virtual ones, and xattrop.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::XattropKind;
use ladrillo_translator::{Context, Dict, FileType, FopError, FopResult, Gfid, Iatt, Reply, Value};
use rustix::fs::{OFlags, XattrFlags};

use super::acl;
use super::brick::{Brick, VOLUME_ID_KEY};
use super::file::fill_open_count;
use super::handle::{GFID2PATH_PREFIX, handle_path, parse_gfid2path};
use super::inode::{GFID_KEY, Inode, MDATA_KEY, Touch, decode_mdata};
use super::sys::{self, Explain};

/// Most bytes of a file a lookup carries (`glusterfs.content`). Source: our bound; quick-read asks for at most 1 MiB.
pub const CONTENT_MAX_BYTES: u64 = 1 << 20;
/// Most bytes of xattrs one answer carries beside contents. Source: our bound; XFS keeps 64 KiB under each of any number
/// of names.
pub const ANSWER_MAX_BYTES: usize = 1 << 20;
/// Most bytes of xattrs a whole list has, which is never cut short. Source: our bound, what fits in a record.
pub const LIST_MAX_BYTES: usize = 16 << 20;
/// Largest value of an xattr. Source: XATTR_SIZE_MAX of Linux.
pub const VALUE_MAX_BYTES: usize = 64 << 10;
/// Most bytes of one xattropped value. Source: our bound; AFR's have 12, disperse's 16.
const XATTROP_MAX_BYTES: usize = 4096;

/// xdata of SETXATTR: the answer is to carry the inode's attributes under the same key.
const IATT_IN_XDATA: &str = "dht-get-iatt-in-xattr";

/// Keys of a request's xdata that ask for no xattr.
const NOT_XATTRS: [&str; 9] = [
    "gfid-req",
    "glusterfs-internal-fop",
    "glusterfs.entrylk-count",
    "glusterfs.inodelk-count",
    "glusterfs.posixlk-count",
    "glusterfs.parent-entrylk",
    "gfidless-lookup",
    "glusterfs.inodelk-dom-count",
    "list-xattr",
];

impl Brick {
    /// Answers what a lookup's (readdirp's, write's...) xdata asks of an inode: keys by name first, then patterns and
    /// lists, until [`ANSWER_MAX_BYTES`] are spent.
    pub fn answer_xdata(&self, inode: &Inode, iatt: &Iatt, request: &Dict) -> Dict {
        let mut out = Dict::new();
        let mut names: Option<Vec<Vec<u8>>> = None;
        let mut patterns: Vec<&Bytes> = Vec::new();
        let mut room = ANSWER_MAX_BYTES;
        for (key, value) in request.iter() {
            let text = std::str::from_utf8(key).unwrap_or("");
            if NOT_XATTRS.contains(&text) {
                continue;
            }
            match text {
                "glusterfs.content" => {
                    let limit =
                        request.int(key).and_then(|n| u64::try_from(n).ok()).unwrap_or(0).min(CONTENT_MAX_BYTES);
                    if iatt.is_regular() && iatt.size_bytes <= limit {
                        self.answer_content(inode, iatt.size_bytes, &mut out);
                    }
                }
                "glusterfs.open-fd-count" | "glusterfs.open-active-fd-count" => {
                    let opens = inode.opens.load(Ordering::Relaxed);
                    out.set(key.clone(), Value::Uint(u64::from(opens)));
                }
                "gf_request_link_count" => out.set(key.clone(), value.clone()),
                "get-size" if iatt.is_regular() => out.set(key.clone(), Value::Uint(iatt.size_bytes)),
                "glusterfs.ancestry.path" => {
                    if let Ok(path) = self.volume_path(inode) {
                        out.set(key.clone(), Value::Str(path.into()));
                    }
                }
                _ if key.contains(&b'*') || key.contains(&b'?') => patterns.push(key),
                _ => {
                    let names = names.get_or_insert_with(|| sys::list_xattrs(&inode.path).unwrap_or_default());
                    if let Some(name) = names.iter().find(|name| name[..] == key[..]) {
                        add_xattr(inode, name, &mut out, &mut room);
                    }
                }
            }
        }
        if !patterns.is_empty() {
            let names = names.get_or_insert_with(|| sys::list_xattrs(&inode.path).unwrap_or_default());
            for name in names.iter().filter(|name| patterns.iter().any(|pattern| matches_pattern(pattern, name))) {
                add_xattr(inode, name, &mut out, &mut room);
            }
        }
        if request.contains("list-xattr") {
            let names = names.unwrap_or_else(|| sys::list_xattrs(&inode.path).unwrap_or_default());
            for name in names {
                let hidden = is_own(&name) || name == b"security.selinux" || is_georep(&name) || is_marker(&name);
                if !hidden {
                    add_xattr(inode, &name, &mut out, &mut room);
                }
            }
        }
        out
    }

    fn answer_content(&self, inode: &Inode, size_bytes: u64, out: &mut Dict) {
        if size_bytes == 0 {
            out.set("glusterfs.content", Value::Ptr(Bytes::new()));
            return;
        }
        let mut content = Vec::with_capacity(size_bytes as usize);
        let read = sys::reopen(&inode.path, OFlags::RDONLY)
            .and_then(|fd| rustix::io::pread(&fd, rustix::buffer::spare_capacity(&mut content), 0));
        match read {
            Ok(n) if n as u64 == size_bytes => out.set("glusterfs.content", Value::Ptr(content.into())),
            // It changed meanwhile, or cannot be read: the client reads as usual.
            _ => {}
        }
    }

    /// GETXATTR, FGETXATTR.
    pub fn getxattr(&self, context: &Context, inode: &Arc<Inode>, name: &[u8], xdata: &Dict) -> FopResult {
        if context.is_internal() {
            // It may read mdata itself.
            inode.save_times()?;
        }
        let answer =
            |value: Value| Ok(Reply::Xattrs { xattrs: Dict::new().with(name.to_vec(), value), xdata: Dict::new() });
        let absent =
            || FopError::new(errno::ENODATA, format!("{} has no {}", inode.gfid, String::from_utf8_lossy(name)));
        if name.is_empty() {
            return self.list(context, inode, xdata);
        }
        if is_georep(name) && context.pid != -1
            || name == MDATA_KEY.as_bytes() && !context.is_internal()
            || name.starts_with(GFID2PATH_PREFIX.as_bytes())
        {
            return Err(absent());
        }
        match std::str::from_utf8(name).unwrap_or("") {
            "glusterfs.open-fd-count" => answer(Value::Uint(u64::from(inode.is_open()))),
            "glusterfs.pathinfo" | "trusted.glusterfs.pathinfo" => {
                let node = match self.options.node_uuid {
                    Some(uuid) if self.tuned().node_uuid_pathinfo => uuid.to_string(),
                    _ => self.options.hostname.clone(),
                };
                let mut text = format!("<POSIX({}):{node}:{}", self.path.display(), self.path.display()).into_bytes();
                match self.volume_path(inode) {
                    Ok(path) => text.extend_from_slice(&path),
                    Err(_) => text.extend_from_slice(format!("/.glusterfs/{}", handle_path(inode.gfid)).as_bytes()),
                }
                text.push(b'>');
                answer(Value::Str(text.into()))
            }
            "trusted.glusterfs.node-uuid" => match self.options.node_uuid {
                Some(uuid) => answer(Value::Str(uuid.to_string().into())),
                None => Err(absent()),
            },
            "glusterfs.gfidtopath" if !self.options.gfid2path => Err(absent()),
            "glusterfs.gfidtopath" => answer(Value::Str(self.all_paths(inode)?.into())),
            "glusterfs.gfid2path" | "glusterfs.ancestry.path" => answer(Value::Str(self.volume_path(inode)?.into())),
            text if text.starts_with("glusterfs.get_real_filename:") => {
                let wanted = text.strip_prefix("glusterfs.get_real_filename:").unwrap_or("");
                answer(Value::Str(self.real_filename(inode, wanted)?.into()))
            }
            _ if acl::kernel_key(name).is_some() => answer(Value::Str(acl_text(inode, name)?.into())),
            _ => match sys::get_xattr(&inode.path, name) {
                Ok(Some(value)) => answer(Value::Ptr(value.into())),
                Ok(None) => Err(absent()),
                Err(e) => Err(sys::failure(e, &format!("{} of {}", String::from_utf8_lossy(name), inode.gfid))),
            },
        }
    }

    fn list(&self, context: &Context, inode: &Inode, xdata: &Dict) -> FopResult {
        let names = sys::list_xattrs(&inode.path).explain(|| format!("xattrs of {}", inode.gfid))?;
        let mut xattrs = Dict::new();
        let mut bytes = 0;
        for name in names {
            let hidden = is_own(&name) || is_georep(&name) || name == MDATA_KEY.as_bytes() && !context.is_internal();
            if !hidden
                && let Some(value) = sys::get_xattr(&inode.path, &name)
                    .explain(|| format!("{} of {}", String::from_utf8_lossy(&name), inode.gfid))?
            {
                bytes += name.len() + value.len();
                if bytes > LIST_MAX_BYTES {
                    let what = format!("{} has more than {LIST_MAX_BYTES} bytes of xattrs", inode.gfid);
                    return Err(FopError::new(libc::E2BIG, what));
                }
                xattrs.set(name, Value::Ptr(value.into()));
            }
        }
        let mut out = Dict::new();
        fill_open_count(inode, xdata, &mut out);
        Ok(Reply::Xattrs { xattrs, xdata: out })
    }

    /// One path of an inode within the volume.
    pub fn volume_path(&self, inode: &Inode) -> FopResult<Vec<u8>> {
        match inode.kind {
            FileType::Directory => self.directory_path(inode.gfid),
            _ => self
                .file_paths(inode)?
                .into_iter()
                .next()
                .ok_or_else(|| FopError::new(errno::ENODATA, format!("no path is recorded for {}", inode.gfid))),
        }
    }

    fn file_paths(&self, inode: &Inode) -> FopResult<Vec<Vec<u8>>> {
        let names = sys::list_xattrs(&inode.path).explain(|| format!("xattrs of {}", inode.gfid))?;
        let mut paths = Vec::new();
        for name in names.iter().filter(|n| n.starts_with(GFID2PATH_PREFIX.as_bytes())) {
            let Ok(Some(value)) = sys::get_xattr(&inode.path, name) else { continue };
            let Some((parent, name)) = parse_gfid2path(&value) else { continue };
            let mut path = self.directory_path(parent)?;
            if path != b"/" {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            paths.push(path);
        }
        Ok(paths)
    }

    fn all_paths(&self, inode: &Inode) -> FopResult<Vec<u8>> {
        if inode.kind == FileType::Directory {
            return self.directory_path(inode.gfid);
        }
        let paths = self.file_paths(inode)?;
        if paths.is_empty() {
            return Err(FopError::new(errno::ENODATA, format!("no path is recorded for {}", inode.gfid)));
        }
        Ok(paths.join(&b':'))
    }

    fn real_filename(&self, directory: &Inode, wanted: &str) -> FopResult<Vec<u8>> {
        let what = || format!("searching {} for {wanted:?}", directory.gfid);
        let fd = sys::reopen(&directory.path, OFlags::RDONLY | OFlags::DIRECTORY).explain(what)?;
        for entry in rustix::fs::Dir::read_from(&fd).explain(what)? {
            let entry = entry.explain(what)?;
            if entry.file_name().to_bytes().eq_ignore_ascii_case(wanted.as_bytes()) {
                return Ok(entry.file_name().to_bytes().to_vec());
            }
        }
        Err(FopError::new(errno::ENODATA, format!("{} has no entry like {wanted:?}", directory.gfid)))
    }

    /// SETXATTR, FSETXATTR.
    pub fn setxattr(&self, context: &Context, inode: &Inode, xattrs: &Dict, flags: u32, xdata: &Dict) -> FopResult {
        if let Some(Value::Mdata(mdata)) = xdata.get("set-ctime-mdata").or_else(|| xattrs.get("set-ctime-mdata")) {
            inode.merge_times(*mdata)?;
        }
        let flags = XattrFlags::from_bits(flags)
            .ok_or_else(|| FopError::new(errno::EINVAL, format!("setxattr with flags {flags:#x}")))?;
        if xdata.int("sync_backend_xattrs").is_some_and(|sync| sync != 0) {
            self.drop_other_shared(inode, xattrs)?;
        }
        for (key, value) in xattrs.iter() {
            self.set_pair(inode, key, value, flags)?;
        }
        self.touch(context, inode, Touch::CHANGE);
        let mut out = Dict::new();
        for (key, _) in xattrs.iter() {
            // Whoever keeps the ACL in the kernel's form learns it from the answer.
            if let Some(kernel_key) = acl::kernel_key(key)
                && let Ok(Some(raw)) = sys::get_xattr(&inode.path, kernel_key.as_bytes())
            {
                out.set(kernel_key, Value::Ptr(raw.into()));
            }
        }
        fill_open_count(inode, xdata, &mut out);
        if xdata.contains(IATT_IN_XDATA) {
            out.set(IATT_IN_XDATA, Value::Iatt(Box::new(inode.iatt()?)));
        }
        Ok(Reply::Done { xdata: out })
    }

    /// Distribute's heal: of the xattrs that a directory's copies share, only those in `kept` stay.
    fn drop_other_shared(&self, inode: &Inode, kept: &Dict) -> FopResult<()> {
        let what = || format!("bringing the xattrs of {} in line", inode.gfid);
        for name in sys::list_xattrs(&inode.path).explain(what)? {
            if is_shared(&name) && !kept.contains(&name[..]) {
                match sys::remove_xattr(&inode.path, &name) {
                    Ok(()) | Err(rustix::io::Errno::NODATA) => {}
                    Err(e) => return Err(sys::failure(e, &what())),
                }
            }
        }
        Ok(())
    }

    /// Sets one xattr as a client asks; keys that are requests, not xattrs, and those only the brick sets are left out.
    pub fn set_pair(&self, inode: &Inode, key: &Bytes, value: &Value, flags: XattrFlags) -> FopResult<()> {
        let text = std::str::from_utf8(key).unwrap_or("");
        let refuse = |errno: i32| Err(FopError::new(errno, format!("{text} cannot be set by clients")));
        match text {
            GFID_KEY | VOLUME_ID_KEY | "trusted.io-stats-dump" | "set-ctime-mdata" => return Ok(()),
            "glusterfs.pathinfo" | "trusted.glusterfs.pathinfo" => return refuse(errno::EACCES),
            MDATA_KEY => {
                return match value {
                    Value::Mdata(mdata) => inode.merge_times(*mdata),
                    _ => match value_bytes(value).and_then(|raw| decode_mdata(&raw)) {
                        Some(mdata) => inode.merge_times(mdata),
                        None => Err(FopError::new(errno::EINVAL, format!("{MDATA_KEY} of a wrong form"))),
                    },
                };
            }
            _ if text.starts_with(GFID2PATH_PREFIX) => return refuse(errno::EOPNOTSUPP),
            _ if text.starts_with("glusterfs.internal-ctx") || text.starts_with("force-replace") => return Ok(()),
            _ => {}
        }
        if let Some(kernel_key) = acl::kernel_key(key) {
            let raw = value_bytes(value).and_then(|text| acl::from_text(&text));
            let raw = raw.ok_or_else(|| FopError::new(errno::EINVAL, format!("the value of {text} is no ACL")))?;
            return sys::set_xattr(&inode.path, kernel_key.as_bytes(), &raw, flags)
                .explain(|| format!("setting {text} of {}", inode.gfid));
        }
        if !is_xattr_name(key) {
            return match text.starts_with("glusterfs.") {
                // Requests to translators that are not here.
                true => refuse(errno::EOPNOTSUPP),
                false => Err(FopError::new(errno::EOPNOTSUPP, format!("{text:?} is in no namespace of xattrs"))),
            };
        }
        let Some(raw) = stored_bytes(value) else {
            return Err(FopError::new(errno::EINVAL, format!("the value of {text} is of a type that no xattr has")));
        };
        sys::set_xattr(&inode.path, key, &raw, flags).explain(|| format!("setting {text} of {}", inode.gfid))
    }

    /// REMOVEXATTR, FREMOVEXATTR. Without a name: all keys of xdata at once, as heal does to make a copy's metadata
    /// what the source's is; those that are not there, and those that are the brick's own, are passed over.
    pub fn removexattr(&self, context: &Context, inode: &Inode, name: &[u8], xdata: &Dict) -> FopResult {
        if name.is_empty() {
            for (key, _) in xdata.iter() {
                let ours = is_own(key) || key.as_ref() == MDATA_KEY.as_bytes();
                if is_xattr_name(key) && !ours {
                    match sys::remove_xattr(&inode.path, key) {
                        Ok(()) | Err(rustix::io::Errno::NODATA) => {}
                        Err(e) => {
                            return Err(sys::failure(
                                e,
                                &format!("removing {} of {}", String::from_utf8_lossy(key), inode.gfid),
                            ));
                        }
                    }
                }
            }
            self.touch(context, inode, Touch::CHANGE);
            return Ok(Reply::done());
        }
        let text = String::from_utf8_lossy(name);
        if is_own(name) {
            return Err(FopError::new(errno::EPERM, format!("{text} cannot be removed by clients")));
        }
        if !is_xattr_name(name) {
            return Err(FopError::new(errno::ENODATA, format!("{} has no {text}", inode.gfid)));
        }
        sys::remove_xattr(&inode.path, name).explain(|| format!("removing {text} of {}", inode.gfid))?;
        if name == MDATA_KEY.as_bytes() {
            inode.forget_times();
        } else {
            self.touch(context, inode, Touch::CHANGE);
        }
        Ok(Reply::done())
    }

    /// XATTROP, FXATTROP: all keys under the inode's lock, so that no two operations mix.
    pub fn xattrop(&self, inode: &Inode, kind: XattropKind, xattrs: &Dict, xdata: &Dict) -> FopResult {
        let mut changed = Dict::new();
        let mut state = inode.lock();
        inode.save_times_in(&mut state)?;
        for (key, value) in xattrs.iter() {
            let text = String::from_utf8_lossy(key).into_owned();
            let what = || format!("xattrop of {text} of {}", inode.gfid);
            if !is_xattr_name(key) || key.as_ref() == GFID_KEY.as_bytes() || key.as_ref() == VOLUME_ID_KEY.as_bytes() {
                return Err(FopError::new(errno::EPERM, format!("{text} takes no xattrop")));
            }
            let Some(operand) = value_bytes(value).filter(|v| v.len() <= XATTROP_MAX_BYTES) else {
                return Err(FopError::new(errno::EINVAL, format!("{}: a value of a wrong type or size", what())));
            };
            let stored = sys::get_xattr(&inode.path, key).explain(what)?;
            let outcome = combine(kind, stored.as_deref(), &operand).ok_or_else(|| {
                FopError::new(errno::EINVAL, format!("{}: a value of {} bytes", what(), operand.len()))
            })?;
            if let Some(store) = outcome.store {
                sys::set_xattr(&inode.path, key, &store, XattrFlags::empty()).explain(what)?;
            }
            if let Some(answer) = outcome.answer {
                changed.set(key.clone(), Value::Ptr(answer.into()));
            }
        }
        drop(state);
        let mut out = Dict::new();
        fill_open_count(inode, xdata, &mut out);
        if let Ok(iatt) = inode.iatt()
            && !xdata.is_empty()
        {
            for (key, value) in self.answer_xdata(inode, &iatt, xdata).iter() {
                out.set(key.clone(), value.clone());
            }
        }
        Ok(Reply::Xattrs { xattrs: changed, xdata: out })
    }
}

/// Adds an xattr to an answer, unless it is there already or there is no room for it.
fn add_xattr(inode: &Inode, name: &[u8], out: &mut Dict, room: &mut usize) {
    if *room == 0 || out.contains(name) {
        return;
    }
    if name == MDATA_KEY.as_bytes() && inode.save_times().is_err() {
        return;
    }
    let Ok(Some(value)) = sys::get_xattr(&inode.path, name) else { return };
    match room.checked_sub(name.len() + value.len()) {
        Some(left) => {
            *room = left;
            out.set(name.to_vec(), Value::Ptr(value.into()));
        }
        None => {
            *room = 0;
            tracing::debug!(gfid = %inode.gfid, "more xattrs than one answer carries: some were left out");
        }
    }
}

/// What an xattrop does: what is stored (`None` = nothing changes) and what is answered.
struct Outcome {
    store: Option<Vec<u8>>,
    answer: Option<Vec<u8>>,
}

/// Meets `operand` with what is stored. An operand of zeros only reads; a key that is not there reads as zeros.
/// `None` = the operand's length does not fit the kind.
fn combine(kind: XattropKind, stored: Option<&[u8]>, operand: &[u8]) -> Option<Outcome> {
    let (width, with_default) = match kind {
        XattropKind::GetAndSet => {
            return Some(Outcome { store: Some(operand.to_vec()), answer: stored.map(<[u8]>::to_vec) });
        }
        XattropKind::AddArray => (4, false),
        XattropKind::AddArray64 => (8, false),
        XattropKind::AddArrayWithDefault => (4, true),
        XattropKind::AddArray64WithDefault => (8, true),
        XattropKind::OrArray | XattropKind::AndArray => (1, false),
    };
    // With a default the first half is added and the second is where to start from.
    let len = if with_default { operand.len() / 2 } else { operand.len() };
    if len == 0 || !len.is_multiple_of(width) || (with_default && !operand.len().is_multiple_of(2)) {
        return None;
    }
    let (delta, default) = operand.split_at(len);
    let mut array = match stored {
        Some(found) => found.to_vec(),
        None => vec![0; len],
    };
    array.resize(len, 0);
    if operand.iter().all(|b| *b == 0) {
        return Some(Outcome { store: None, answer: Some(array) });
    }
    for (i, (slot, delta)) in array.chunks_exact_mut(width).zip(delta.chunks_exact(width)).enumerate() {
        let start = if with_default && slot.iter().all(|b| *b == 0) {
            default.get(i * width..(i + 1) * width)?.to_vec()
        } else {
            slot.to_vec()
        };
        match kind {
            XattropKind::OrArray => slot.copy_from_slice(&[start.first()? | delta.first()?]),
            XattropKind::AndArray => slot.copy_from_slice(&[start.first()? & delta.first()?]),
            _ if width == 4 => {
                let sum =
                    i32::from_be_bytes(start.try_into().ok()?).wrapping_add(i32::from_be_bytes(delta.try_into().ok()?));
                slot.copy_from_slice(&sum.to_be_bytes());
            }
            _ => {
                let sum =
                    i64::from_be_bytes(start.try_into().ok()?).wrapping_add(i64::from_be_bytes(delta.try_into().ok()?));
                slot.copy_from_slice(&sum.to_be_bytes());
            }
        }
    }
    Some(Outcome { store: Some(array.clone()), answer: Some(array) })
}

/// An ACL as text, a file's mode where it has none.
fn acl_text(inode: &Inode, text_key: &[u8]) -> FopResult<String> {
    let what = || format!("{} of {}", String::from_utf8_lossy(text_key), inode.gfid);
    let key = acl::kernel_key(text_key).unwrap_or_default();
    match sys::get_xattr(&inode.path, key.as_bytes()).explain(what)? {
        Some(raw) => acl::to_text(&raw).ok_or_else(|| FopError::new(errno::EINVAL, what())),
        None if text_key == acl::ACCESS_TEXT.as_bytes() => {
            Ok(acl::text_of_mode(sys::fstat(&inode.path).explain(what)?.st_mode))
        }
        None => Ok(String::new()),
    }
}

/// The bytes an xattr gets from a value.
pub fn value_bytes(value: &Value) -> Option<Bytes> {
    Some(match value {
        Value::Str(b) | Value::StrOld(b) | Value::Ptr(b) => b.clone(),
        Value::Gfid(gfid) => Bytes::copy_from_slice(&gfid.0),
        Value::Int(n) => Bytes::from(n.to_string()),
        Value::Uint(n) => Bytes::from(n.to_string()),
        Value::Mdata(mdata) => Bytes::copy_from_slice(&super::inode::encode_mdata(mdata)),
        Value::Double(_) | Value::Iatt(_) => return None,
    })
}

/// What an xattr of that value holds on disk: text with its NUL, as bricks of GlusterFS store what C programs send them
/// and read back (a linkto file's target).
pub fn stored_bytes(value: &Value) -> Option<Bytes> {
    match value {
        Value::Str(text) => Some([&text[..], b"\0"].concat().into()),
        other => value_bytes(other),
    }
}

/// What distribute makes equal on all subvolumes' copies of a directory (GlusterFS 10.3, common-utils.c).
fn is_shared(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || matches!(
            name,
            b"system.posix_acl_access"
                | b"system.posix_acl_default"
                | b"trusted.glusterfs.quota.limit-set"
                | b"trusted.glusterfs.quota.limit-objects"
                | b"security.selinux"
        )
}

/// What only the brick itself sets and removes.
fn is_own(name: &[u8]) -> bool {
    name == GFID_KEY.as_bytes() || name == VOLUME_ID_KEY.as_bytes() || name.starts_with(GFID2PATH_PREFIX.as_bytes())
}

/// Whether `name` is in one of Linux's namespaces.
pub fn is_xattr_name(name: &[u8]) -> bool {
    [&b"trusted."[..], b"user.", b"security.", b"system."]
        .iter()
        .any(|space| name.len() > space.len() && name.starts_with(space))
}

/// Geo-replication's marks, kept from everybody but its own worker.
fn is_georep(name: &[u8]) -> bool {
    [
        "*.glusterfs.*.stime",
        "*.glusterfs.*.xtime",
        "*.glusterfs.lockinfo",
        "*.glusterfs.*.entry_stime",
        "*.glusterfs.volume-mark.*",
    ]
    .iter()
    .any(|pattern| matches_pattern(pattern.as_bytes(), name))
}

fn is_marker(name: &[u8]) -> bool {
    ["trusted.glusterfs.quota.*", "trusted.glusterfs.*.xtime"].iter().any(|p| matches_pattern(p.as_bytes(), name))
}

/// fnmatch(3) with `*` and `?` only: all that GlusterFS's own patterns use.
pub fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, matched)) => {
                    star = Some((at, matched + 1));
                    p = at + 1;
                    n = matched + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'*')
}

/// The gfid a creating fop must bring.
pub fn gfid_request(xdata: &Dict) -> FopResult<Gfid> {
    match xdata.gfid("gfid-req") {
        Some(gfid) if gfid.is_null() || gfid.is_root() => {
            Err(FopError::new(errno::EINVAL, format!("gfid-req {gfid} is no new inode's gfid")))
        }
        Some(gfid) => Ok(gfid),
        None => Err(FopError::new(errno::EPERM, "a creating fop without gfid-req")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn be(numbers: &[i32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    #[test]
    fn counters_add_and_zeros_only_read() {
        let outcome = combine(XattropKind::AddArray, Some(&be(&[1, 2, 3])), &be(&[1, -2, 0])).unwrap();
        assert_eq!(outcome.store, Some(be(&[2, 0, 3])));
        assert_eq!(outcome.answer, Some(be(&[2, 0, 3])));
        let outcome = combine(XattropKind::AddArray, None, &be(&[0, 0, 0])).unwrap();
        assert_eq!((outcome.store, outcome.answer), (None, Some(be(&[0, 0, 0]))));
        assert!(combine(XattropKind::AddArray, None, &[1, 2, 3]).is_none());
        assert!(combine(XattropKind::AddArray64, None, &be(&[1])).is_none());
        assert!(combine(XattropKind::AddArray, None, &[]).is_none());
    }

    #[test]
    fn defaults_and_get_and_set() {
        let outcome = combine(XattropKind::AddArrayWithDefault, None, &be(&[1, 10])).unwrap();
        assert_eq!(outcome.store, Some(be(&[11])));
        let outcome = combine(XattropKind::AddArrayWithDefault, Some(&be(&[5])), &be(&[1, 10])).unwrap();
        assert_eq!(outcome.store, Some(be(&[6])));
        let outcome = combine(XattropKind::GetAndSet, Some(b"old"), b"new").unwrap();
        assert_eq!((outcome.store, outcome.answer), (Some(b"new".to_vec()), Some(b"old".to_vec())));
    }

    #[test]
    fn patterns() {
        assert!(matches_pattern(b"trusted.afr.*", b"trusted.afr.gv0-client-0"));
        assert!(matches_pattern(b"*.glusterfs.*.stime", b"trusted.glusterfs.x.y.stime"));
        assert!(!matches_pattern(b"user.a", b"user.ab"));
        assert!(matches_pattern(b"*", b""));
    }
}
