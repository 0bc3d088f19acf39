//! Extended attributes.
//!
//! Beside the volume's own there are virtual ones: `glusterfs.gfid` and `glusterfs.gfid.string` of every inode as
//! GlusterFS has them, and of the root what this mount says of itself: `glusterfs.ladrillo.front-end` (`ring` or `device`) and
//! `glusterfs.ladrillo.copied-bytes` (payload bytes this process has copied in user space: 0 is the promise).

use bytes::{Bytes, BytesMut};
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::File;
use ladrillo_translator::{Dict, Fop, FopError, FopResult, Gfid, Reply, Value};

use super::{Outcome, Request, stale, unexpected};
use crate::front::answer::{self, Answer};
use crate::front::ring::kick;

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// What a mount does not list: GlusterFS's own marks.
const HIDDEN_PREFIXES: [&[u8]; 8] = [
    b"trusted.gfid",
    b"trusted.afr.",
    b"trusted.glusterfs.",
    b"trusted.pgfid.",
    b"trusted.gfid2path.",
    b"trusted.ec.",
    b"trusted.bit-rot.",
    b"glusterfs.",
];

/// Whether an xattr is GlusterFS's own, kept from applications.
pub(crate) fn is_hidden(name: &[u8]) -> bool {
    HIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl Request<'_> {
    /// ACLs without `acl`, SELinux labels and capabilities without theirs, are answered here, without a round trip:
    /// the kernel asks for `security.capability` before every write.
    fn passes(&self, name: &[u8]) -> bool {
        let options = &self.front.options;
        match name {
            ACL_ACCESS | ACL_DEFAULT => options.acl,
            b"security.selinux" => options.selinux,
            b"security.capability" => options.capability || options.selinux,
            _ => true,
        }
    }

    pub(super) async fn getxattr(&self, name: Bytes, size_bytes: u32) -> Outcome {
        if !self.passes(&name) {
            let acl = matches!(&name[..], ACL_ACCESS | ACL_DEFAULT);
            return Ok(Answer::Error(if acl { errno::EOPNOTSUPP } else { errno::ENODATA }));
        }
        let gfid = self.gfid()?;
        if let Some(value) = self.virtual_value(&gfid, &name) {
            return Ok(answer::xattr(value, size_bytes));
        }
        let xattrs = self.get(gfid, name.clone()).await?;
        let value = xattrs.get(&name).ok_or_else(|| FopError::new(errno::ENODATA, "not in the answer"))?;
        Ok(answer::xattr(value_bytes(value), size_bytes))
    }

    pub(super) async fn listxattr(&self, size_bytes: u32) -> Outcome {
        let gfid = self.gfid()?;
        let xattrs = self.get(gfid, Bytes::new()).await?;
        let mut list = BytesMut::new();
        for (name, _) in xattrs.iter() {
            if !is_hidden(name) && self.passes(name) && !name.is_empty() && !name.contains(&0) {
                list.extend_from_slice(name);
                list.extend_from_slice(b"\0");
            }
        }
        Ok(answer::xattr(list.freeze(), size_bytes))
    }

    /// All xattrs, or one; through an open file where the inode has no name left.
    async fn get(&self, gfid: Gfid, name: Bytes) -> FopResult<Dict> {
        let reply = match self.submit(Fop::Getxattr { gfid, name: name.clone(), xdata: Dict::new() }).await {
            Err(error) if matches!(error.errno, errno::ENOENT | errno::ESTALE) => {
                let Some(fd) = self.front.inodes.any_open(&gfid) else { return Err(stale(error)) };
                let file = File { gfid, fd: Some(fd) };
                self.submit(Fop::Fgetxattr { file, name, xdata: Dict::new() }).await
            }
            reply => reply,
        };
        match reply? {
            Reply::Xattrs { xattrs, .. } => Ok(xattrs),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn setxattr(&self, name: Bytes, value: Bytes, flags: u32) -> Outcome {
        self.check_settable(&name)?;
        let gfid = self.gfid()?;
        let xattrs = Dict::new().with(name, Value::Ptr(value));
        let fop = Fop::Setxattr { gfid, xattrs: xattrs.clone(), flags, xdata: Dict::new() };
        let reply = match self.submit(fop).await {
            Err(error) if matches!(error.errno, errno::ENOENT | errno::ESTALE) => {
                let Some(fd) = self.front.inodes.any_open(&gfid) else { return Err(stale(error)) };
                let file = File { gfid, fd: Some(fd) };
                self.submit(Fop::Fsetxattr { file, xattrs, flags, xdata: Dict::new() }).await
            }
            reply => reply,
        };
        match reply? {
            Reply::Done { .. } => Ok(Answer::ok()),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn removexattr(&self, name: Bytes) -> Outcome {
        self.check_settable(&name)?;
        let gfid = self.gfid()?;
        match self.submit(Fop::Removexattr { gfid, name, xdata: Dict::new() }).await.map_err(stale)? {
            Reply::Done { .. } => Ok(Answer::ok()),
            reply => Err(unexpected(&reply)),
        }
    }

    fn virtual_value(&self, gfid: &Gfid, name: &[u8]) -> Option<Bytes> {
        match name {
            b"glusterfs.gfid" => Some(Bytes::copy_from_slice(&gfid.0)),
            b"glusterfs.gfid.string" => Some(gfid.to_string().into()),
            b"glusterfs.ladrillo.front-end" if gfid.is_root() => Some(Bytes::from_static(self.front.name().as_bytes())),
            kick::XATTR if gfid.is_root() => Some(Bytes::new()),
            b"glusterfs.ladrillo.copied-bytes" if gfid.is_root() => {
                Some(ladrillo_translator::payload::copied_bytes().to_string().into())
            }
            _ => None,
        }
    }

    fn check_settable(&self, name: &[u8]) -> FopResult<()> {
        if !self.passes(name) {
            return Err(FopError::new(errno::EOPNOTSUPP, "this mount does not have such xattrs"));
        }
        let own = matches!(name, b"trusted.gfid" | b"trusted.glusterfs.volume-id")
            || name.starts_with(b"glusterfs.ladrillo.");
        if own {
            return Err(FopError::new(errno::EPERM, "this xattr is the volume's own"));
        }
        Ok(())
    }
}

/// The value as bytes; numbers as decimal text.
pub(crate) fn value_bytes(value: &Value) -> Bytes {
    match value {
        Value::Str(bytes) | Value::Ptr(bytes) | Value::StrOld(bytes) => bytes.clone(),
        Value::Int(number) => number.to_string().into(),
        Value::Uint(number) => number.to_string().into(),
        Value::Double(number) => number.to_string().into(),
        Value::Gfid(gfid) => Bytes::copy_from_slice(&gfid.0),
        Value::Iatt(_) | Value::Mdata(_) => Bytes::new(),
    }
}
