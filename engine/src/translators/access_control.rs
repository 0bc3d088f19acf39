//! system/posix-acl ("access-control"): may this user do that?
//!
//! Promises: every fop of a user other than root is checked against the mode bits of the inodes it names, on the brick,
//! whatever the client's kernel checked; where they refuse and the inode has an access ACL, the ACL may grant. Open
//! files were checked when they were opened. Root and GlusterFS's own services are not checked.

use std::sync::{Arc, Weak};

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, File};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Parent, Reply, Translator};

/// Execute or search.
const X: u32 = 1;
/// Write.
const W: u32 = 2;
/// Read.
const R: u32 = 4;

/// The translator.
pub struct AccessControl {
    name: String,
    child: Arc<dyn Translator>,
}

impl AccessControl {
    /// Over `child`.
    pub fn new(name: &str, child: Arc<dyn Translator>) -> AccessControl {
        AccessControl { name: name.to_owned(), child }
    }

    async fn iatt(&self, gfid: Gfid) -> FopResult<Iatt> {
        match self.child.submit(&Context::root(), Fop::Stat { gfid, xdata: Dict::new() }).await? {
            Reply::Iatt { iatt, .. } => Ok(*iatt),
            _ => Err(FopError::new(errno::EIO, "STAT answered with something else")),
        }
    }

    async fn need(&self, context: &Context, gfid: Gfid, wanted: u32) -> FopResult<Iatt> {
        let iatt = self.iatt(gfid).await?;
        if allowed(context, &iatt, wanted) || self.acl_allows(context, &iatt, wanted).await {
            return Ok(iatt);
        }
        Err(FopError::new(
            errno::EACCES,
            format!("uid {} has no access {wanted:o} to {gfid} (mode {:o})", context.uid, iatt.mode),
        ))
    }

    /// Removing or replacing an entry of a sticky directory is its owner's, the entry's owner's and root's.
    async fn need_removable(&self, context: &Context, entry: &Entry) -> FopResult<()> {
        let parent = self.need(context, entry.parent, W | X).await?;
        if parent.mode & 0o1000 == 0 || parent.uid == context.uid {
            return Ok(());
        }
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() };
        match self.child.submit(&Context::root(), fop).await {
            Ok(Reply::Lookup { iatt, .. }) if iatt.uid != context.uid => Err(FopError::new(
                errno::EACCES,
                format!("uid {} may not remove from the sticky directory {}", context.uid, entry.parent),
            )),
            // Absent: the fop itself says so.
            _ => Ok(()),
        }
    }

    async fn acl_allows(&self, context: &Context, iatt: &Iatt, wanted: u32) -> bool {
        const KEY: &[u8] = b"system.posix_acl_access";
        let fop = Fop::Getxattr { gfid: iatt.gfid, name: KEY.into(), xdata: Dict::new() };
        match self.child.submit(&Context::root(), fop).await {
            Ok(Reply::Xattrs { xattrs, .. }) => {
                xattrs.bytes(KEY).and_then(|raw| Acl::parse(raw)).is_some_and(|acl| acl.allows(context, iatt, wanted))
            }
            _ => false,
        }
    }

    async fn check(&self, context: &Context, fop: &Fop) -> FopResult<()> {
        let unnamed = |file: &File| file.fd.is_none().then_some(file.gfid);
        match fop {
            Fop::Lookup { entry: Some(entry), .. } if !entry.parent.is_null() => {
                self.need(context, entry.parent, X).await?;
            }
            Fop::Mknod { entry, .. }
            | Fop::Mkdir { entry, .. }
            | Fop::Symlink { entry, .. }
            | Fop::Link { entry, .. } => {
                self.need(context, entry.parent, W | X).await?;
            }
            Fop::Create { entry, .. } => {
                self.need(context, entry.parent, W | X).await?;
            }
            Fop::Unlink { entry, .. } | Fop::Rmdir { entry, .. } => self.need_removable(context, entry).await?,
            Fop::Rename { from, to, .. } => {
                self.need_removable(context, from).await?;
                self.need_removable(context, to).await?;
            }
            Fop::Open { gfid, flags, .. } => {
                let wanted = match flags & 3 {
                    0 => R,
                    1 => W,
                    _ => R | W,
                };
                // __FMODE_EXEC: executing needs no read permission.
                let wanted = if flags & 0x20 != 0 { X } else { wanted };
                let wanted = if *flags & libc::O_TRUNC as u32 != 0 { wanted | W } else { wanted };
                self.need(context, *gfid, wanted).await?;
            }
            Fop::Opendir { gfid, .. } => {
                self.need(context, *gfid, R).await?;
            }
            Fop::Access { gfid, mask, .. } if mask & 7 != 0 => {
                self.need(context, *gfid, mask & 7).await?;
            }
            Fop::Truncate { gfid, .. } => {
                self.need(context, *gfid, W).await?;
            }
            Fop::Read { file, .. } => {
                if let Some(gfid) = unnamed(file) {
                    self.need(context, gfid, R).await?;
                }
            }
            Fop::Write { file, .. } | Fop::Ftruncate { file, .. } => {
                if let Some(gfid) = unnamed(file) {
                    self.need(context, gfid, W).await?;
                }
            }
            Fop::Setattr { gfid, iatt, valid, .. } | Fop::Fsetattr { file: File { gfid, .. }, iatt, valid, .. } => {
                self.check_setattr(context, *gfid, iatt, *valid).await?;
            }
            Fop::Setxattr { gfid, xattrs, .. } | Fop::Fsetxattr { file: File { gfid, .. }, xattrs, .. } => {
                for (key, _) in xattrs.iter() {
                    self.check_xattr(context, *gfid, key).await?;
                }
            }
            Fop::Removexattr { gfid, name, .. } | Fop::Fremovexattr { file: File { gfid, .. }, name, .. } => {
                self.check_xattr(context, *gfid, name).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// chmod and explicit times are the owner's; "now" is whoever's may write; chown is root's, chgrp to an own group the
    /// owner's.
    async fn check_setattr(&self, context: &Context, gfid: Gfid, wanted: &Iatt, valid: SetattrValid) -> FopResult<()> {
        let current = self.iatt(gfid).await?;
        let owner = current.uid == context.uid;
        let refuse =
            |what: &str| Err(FopError::new(errno::EPERM, format!("uid {} may not {what} {gfid}", context.uid)));
        if valid.has(SetattrValid::UID) && wanted.uid != current.uid {
            return refuse("change the owner of");
        }
        if valid.has(SetattrValid::GID) && wanted.gid != current.gid && !(owner && in_group(context, wanted.gid)) {
            return refuse("change the group of");
        }
        if valid.has(SetattrValid::MODE) && !owner {
            return refuse("change the mode of");
        }
        let now = SetattrValid::ATIME_NOW | SetattrValid::MTIME_NOW;
        let given = SetattrValid::ATIME | SetattrValid::MTIME;
        if valid.has(now | given) && !owner {
            if !valid.has(now) {
                // Stock clients turn "now" into a time of theirs: whoever may write may do that too.
                return self.need(context, gfid, W).await.map(drop);
            }
            self.need(context, gfid, W).await?;
        }
        Ok(())
    }

    async fn check_xattr(&self, context: &Context, gfid: Gfid, key: &[u8]) -> FopResult<()> {
        if key.starts_with(b"trusted.") || key.starts_with(b"security.") && key != b"security.selinux" {
            // Root's alone; clients' translators act as root.
            if key.starts_with(b"trusted.")
                && !key.starts_with(b"trusted.glusterfs.")
                && !key.starts_with(b"trusted.afr.")
            {
                return Err(FopError::new(
                    errno::EPERM,
                    format!("uid {} may not change {}", context.uid, String::from_utf8_lossy(key)),
                ));
            }
            return Ok(());
        }
        if key.starts_with(b"system.posix_acl") || key.starts_with(b"glusterfs.posix.") {
            let current = self.iatt(gfid).await?;
            if current.uid != context.uid {
                return Err(FopError::new(
                    errno::EPERM,
                    format!("uid {} may not change the ACL of {gfid}", context.uid),
                ));
            }
        } else if key.starts_with(b"user.") {
            self.need(context, gfid, W).await?;
        }
        Ok(())
    }
}

impl Translator for AccessControl {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        if context.uid == 0 || context.is_internal() {
            return self.child.submit(context, fop);
        }
        Box::pin(async move {
            self.check(context, &fop).await?;
            self.child.submit(context, fop).await
        })
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

fn in_group(context: &Context, gid: u32) -> bool {
    context.gid == gid || context.groups.contains(&gid)
}

/// Whether the mode bits grant all of `wanted`.
fn allowed(context: &Context, iatt: &Iatt, wanted: u32) -> bool {
    let bits = if iatt.uid == context.uid {
        iatt.mode >> 6
    } else if in_group(context, iatt.gid) {
        iatt.mode >> 3
    } else {
        iatt.mode
    };
    bits & wanted == wanted
}

/// A POSIX access ACL as Linux stores it: version 2, then entries of tag, permissions, id (acl_ea in posix_acl_xattr.h).
struct Acl {
    entries: Vec<(u16, u32, u32)>,
}

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

impl Acl {
    fn parse(raw: &[u8]) -> Option<Acl> {
        let body = raw.strip_prefix(&2u32.to_le_bytes())?;
        if !body.len().is_multiple_of(8) {
            return None;
        }
        let mut entries = Vec::new();
        for entry in body.chunks_exact(8) {
            let tag = u16::from_le_bytes(entry.get(..2)?.try_into().ok()?);
            let permissions = u16::from_le_bytes(entry.get(2..4)?.try_into().ok()?);
            entries.push((tag, u32::from(permissions), u32::from_le_bytes(entry.get(4..)?.try_into().ok()?)));
        }
        Some(Acl { entries })
    }

    fn find(&self, tag: u16) -> Option<u32> {
        self.entries.iter().find(|e| e.0 == tag).map(|e| e.1)
    }

    fn allows(&self, context: &Context, iatt: &Iatt, wanted: u32) -> bool {
        let mask = self.find(MASK).unwrap_or(7);
        let granted = |bits: u32| bits & wanted == wanted;
        if iatt.uid == context.uid {
            return self.find(USER_OBJ).is_some_and(granted);
        }
        if let Some(entry) = self.entries.iter().find(|e| e.0 == USER && e.2 == context.uid) {
            return granted(entry.1 & mask);
        }
        let mut of_group = false;
        for (tag, bits, id) in &self.entries {
            let gid = match *tag {
                GROUP_OBJ => iatt.gid,
                GROUP => *id,
                _ => continue,
            };
            if in_group(context, gid) {
                of_group = true;
                if granted(bits & mask) {
                    return true;
                }
            }
        }
        !of_group && self.find(OTHER).is_some_and(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, gid: u32, groups: &[u32]) -> Context {
        Context { uid, gid, groups: Arc::from(groups), ..Context::root() }
    }

    #[test]
    fn mode_bits_of_the_first_class_that_fits_count() {
        let iatt = Iatt { uid: 1, gid: 10, mode: 0o100_074, ..Iatt::default() };
        assert!(!allowed(&user(1, 10, &[]), &iatt, R), "the owner has nothing, whatever his group has");
        assert!(allowed(&user(2, 9, &[10]), &iatt, R | W | X));
        assert!(allowed(&user(3, 3, &[]), &iatt, R));
        assert!(!allowed(&user(3, 3, &[]), &iatt, R | W));
    }

    #[test]
    fn acls_grant_within_the_mask() {
        let mut raw = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in [(USER_OBJ, 7u16, 0u32), (USER, 7, 5), (GROUP_OBJ, 0, 0), (MASK, 5, 0), (OTHER, 0, 0)] {
            raw.extend_from_slice(&tag.to_le_bytes());
            raw.extend_from_slice(&bits.to_le_bytes());
            raw.extend_from_slice(&id.to_le_bytes());
        }
        let acl = Acl::parse(&raw).unwrap();
        let iatt = Iatt { uid: 1, gid: 10, ..Iatt::default() };
        assert!(acl.allows(&user(5, 5, &[]), &iatt, R | X));
        assert!(!acl.allows(&user(5, 5, &[]), &iatt, W));
        assert!(!acl.allows(&user(6, 6, &[]), &iatt, R));
        assert!(Acl::parse(&raw[..raw.len() - 1]).is_none());
        assert!(Acl::parse(b"").is_none());
    }
}
