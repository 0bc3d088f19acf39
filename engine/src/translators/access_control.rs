//! system/posix-acl ("access-control"): may this user do that?
//!
//! Promises: every fop of a user other than root is checked against the access ACL of the inodes it names, or their mode
//! bits where there is none, on the brick, whatever the client's kernel checked; and answers what a local file system of
//! Linux answers. Open files were checked when they were opened. Root and GlusterFS's own services are not checked.

use std::sync::{Arc, Weak};

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, File};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Parent, Reply, Translator};

use crate::storage::acl::{self, AclEntry, GROUP, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ};

/// Execute or search.
const X: u32 = 1;
/// Write.
const W: u32 = 2;
/// Read.
const R: u32 = 4;

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// Where distribute keeps a directory's layout (GlusterFS 10.3, dht-common.c).
const LAYOUT: &[u8] = b"trusted.glusterfs.dht";
const CAPABILITY: &[u8] = b"security.capability";
const SELINUX: &[u8] = b"security.selinux";

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
        if self.grants(context, &iatt, wanted).await {
            return Ok(iatt);
        }
        Err(FopError::new(
            errno::EACCES,
            format!("uid {} has no access {wanted:o} to {gfid} (mode {:o})", context.uid, iatt.mode),
        ))
    }

    /// The owner's part of an ACL is the mode's. For others an ACL can take away as well as give; without a bit in its
    /// mask, which is the mode's group, it says nothing (as in Linux).
    async fn grants(&self, context: &Context, iatt: &Iatt, wanted: u32) -> bool {
        if iatt.uid != context.uid
            && iatt.mode & 0o070 != 0
            && let Some(acl) = self.access_acl(iatt.gfid).await
        {
            return acl.allows(context, iatt, wanted);
        }
        allowed(context, iatt, wanted)
    }

    async fn access_acl(&self, gfid: Gfid) -> Option<Acl> {
        const KEY: &[u8] = b"system.posix_acl_access";
        let fop = Fop::Getxattr { gfid, name: KEY.into(), xdata: Dict::new() };
        match self.child.submit(&Context::root(), fop).await {
            Ok(Reply::Xattrs { xattrs, .. }) => xattrs.bytes(KEY).and_then(|raw| Acl::parse(raw)),
            _ => None,
        }
    }

    async fn entry_iatt(&self, entry: &Entry) -> Option<Box<Iatt>> {
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() };
        match self.child.submit(&Context::root(), fop).await {
            Ok(Reply::Lookup { iatt, .. }) => Some(iatt),
            // Absent: the fop itself says so.
            _ => None,
        }
    }

    /// Removing or replacing an entry of a sticky directory is its owner's, the entry's owner's and root's.
    async fn need_removable(&self, context: &Context, entry: &Entry) -> FopResult<()> {
        let parent = self.need(context, entry.parent, W | X).await?;
        if parent.mode & STICKY == 0 || parent.uid == context.uid {
            return Ok(());
        }
        match self.entry_iatt(entry).await {
            Some(iatt) if iatt.uid != context.uid => Err(FopError::new(
                errno::EPERM,
                format!("uid {} may not remove from the sticky directory {}", context.uid, entry.parent),
            )),
            _ => Ok(()),
        }
    }

    /// A directory that gets another parent changes itself (its `..`).
    async fn need_movable(&self, context: &Context, from: &Entry, to: &Entry) -> FopResult<()> {
        if from.parent != to.parent
            && let Some(iatt) = self.entry_iatt(from).await
            && iatt.is_dir()
        {
            self.need(context, iatt.gfid, W).await?;
        }
        Ok(())
    }

    async fn check(&self, context: &Context, fop: &mut Fop) -> FopResult<()> {
        let unnamed = |file: &File| file.fd.is_none().then_some(file.gfid);
        match fop {
            Fop::Lookup { entry: Some(entry), .. } if !entry.parent.is_null() => {
                self.need(context, entry.parent, X).await?;
            }
            Fop::Mknod { entry, .. }
            | Fop::Mkdir { entry, .. }
            | Fop::Symlink { entry, .. }
            | Fop::Link { entry, .. }
            | Fop::Put { entry, .. } => {
                self.need(context, entry.parent, W | X).await?;
            }
            Fop::Create { entry, flags, .. } => {
                let there = match *flags & libc::O_EXCL as u32 {
                    0 => self.entry_iatt(entry).await,
                    _ => None,
                };
                match there {
                    // Nothing is made: the file itself has to let him in.
                    Some(iatt) => {
                        self.need(context, entry.parent, X).await?;
                        self.need(context, iatt.gfid, wanted_by(*flags)).await?;
                    }
                    None => {
                        self.need(context, entry.parent, W | X).await?;
                    }
                }
            }
            Fop::Unlink { entry, .. } | Fop::Rmdir { entry, .. } => self.need_removable(context, entry).await?,
            Fop::Rename { from, to, .. } => {
                self.need_removable(context, from).await?;
                self.need_removable(context, to).await?;
                self.need_movable(context, from, to).await?;
            }
            Fop::Open { gfid, flags, .. } => {
                let wanted = wanted_by(*flags);
                self.need(context, *gfid, wanted).await?;
            }
            Fop::Opendir { gfid, .. } => {
                self.need(context, *gfid, R).await?;
            }
            Fop::Access { gfid, mask, .. } if *mask & 7 != 0 => {
                self.need(context, *gfid, *mask & 7).await?;
            }
            Fop::Truncate { gfid, .. } => {
                self.need(context, *gfid, W).await?;
            }
            Fop::Read { file, .. } => {
                if let Some(gfid) = unnamed(file) {
                    self.need(context, gfid, R).await?;
                }
            }
            Fop::Readdir { file, .. } | Fop::Readdirp { file, .. } | Fop::Rchecksum { file, .. } => {
                if let Some(gfid) = unnamed(file) {
                    self.need(context, gfid, R).await?;
                }
            }
            Fop::CopyFileRange { from, to, .. } => {
                for (file, wanted) in [(from, R), (to, W)] {
                    if let Some(gfid) = unnamed(file) {
                        self.need(context, gfid, wanted).await?;
                    }
                }
            }
            Fop::Write { file, .. }
            | Fop::Ftruncate { file, .. }
            | Fop::Fallocate { file, .. }
            | Fop::Discard { file, .. }
            | Fop::Zerofill { file, .. } => {
                if let Some(gfid) = unnamed(file) {
                    self.need(context, gfid, W).await?;
                }
            }
            Fop::Setattr { gfid, iatt, valid, .. } | Fop::Fsetattr { file: File { gfid, .. }, iatt, valid, .. } => {
                self.check_setattr(context, *gfid, &mut *iatt, *valid).await?;
            }
            Fop::Getxattr { gfid, name, .. } if name.starts_with(b"user.") => {
                self.need(context, *gfid, R).await?;
            }
            Fop::Setxattr { gfid, xattrs, xdata, .. }
            | Fop::Fsetxattr { file: File { gfid, .. }, xattrs, xdata, .. } => {
                if xattrs.is_empty() || xdata.contains("set-ctime-mdata") {
                    // It changes times.
                    self.need(context, *gfid, W).await?;
                }
                for (key, _) in xattrs.iter() {
                    self.check_xattr(context, *gfid, key).await?;
                }
            }
            Fop::Removexattr { gfid, name, .. } | Fop::Fremovexattr { file: File { gfid, .. }, name, .. } => {
                if name.is_empty() {
                    // All keys of xdata at once: heal's.
                    return Err(FopError::new(
                        errno::EPERM,
                        format!("uid {} may not remove xattrs without a name", context.uid),
                    ));
                }
                if &name[..] == CAPABILITY {
                    // What a writer's kernel does, in the writer's name.
                    self.need(context, *gfid, W).await?;
                } else {
                    self.check_xattr(context, *gfid, name).await?;
                }
            }
            Fop::Xattrop { xattrs, .. } | Fop::Fxattrop { xattrs, .. } => {
                // Clients' translators count in the name of whoever asked, but only in keys of their own.
                if let Some((key, _)) = xattrs.iter().find(|(key, _)| !key.starts_with(b"trusted.")) {
                    return Err(not_his(context, key));
                }
            }
            _ => {}
        }
        self.check_xdata(context, fop)
    }

    /// What rides along with a fop of a user: xattrs of a new inode, and the order to drop xattrs.
    fn check_xdata(&self, context: &Context, fop: &mut Fop) -> FopResult<()> {
        match fop {
            Fop::Mknod { xdata, .. }
            | Fop::Mkdir { xdata, .. }
            | Fop::Symlink { xdata, .. }
            | Fop::Create { xdata, .. }
            | Fop::Put { xdata, .. } => {
                let labels: Vec<_> =
                    xdata.iter().map(|(key, _)| key).filter(|key| is_privilege(key)).cloned().collect();
                for key in labels {
                    xdata.remove(&key[..]);
                }
            }
            // A heal of a client whose root is squashed adds, and takes nothing away.
            Fop::Setxattr { xdata, .. } | Fop::Fsetxattr { xdata, .. } => {
                xdata.remove("sync_backend_xattrs");
            }
            _ => {}
        }
        if let Fop::Put { xattrs, .. } = fop
            && let Some((key, _)) = xattrs.iter().find(|(key, _)| key.starts_with(b"trusted.") || is_privilege(key))
        {
            return Err(not_his(context, key));
        }
        Ok(())
    }

    /// chmod and explicit times are the owner's; "now" is whoever's may write; chown is root's, chgrp to an own group the
    /// owner's. A chmod of an owner outside the file's group takes its set-group-id bit.
    async fn check_setattr(
        &self,
        context: &Context,
        gfid: Gfid,
        wanted: &mut Iatt,
        valid: SetattrValid,
    ) -> FopResult<()> {
        let current = self.iatt(gfid).await?;
        let owner = current.uid == context.uid;
        let refuse =
            |what: &str| Err(FopError::new(errno::EPERM, format!("uid {} may not {what} {gfid}", context.uid)));
        if valid.has(SetattrValid::UID) && !(owner && wanted.uid == current.uid) {
            return refuse("change the owner of");
        }
        let group = if valid.has(SetattrValid::GID) { wanted.gid } else { current.gid };
        if valid.has(SetattrValid::GID) && !(owner && (group == current.gid || in_group(context, group))) {
            return refuse("change the group of");
        }
        if valid.has(SetattrValid::MODE) {
            if !owner {
                // What a writer's kernel does to a set-user-id or set-group-id file, in the writer's name.
                if valid.0 != SetattrValid::MODE || !drops_set_id(current.mode, wanted.mode) {
                    return refuse("change the mode of");
                }
                self.need(context, gfid, W).await?;
            } else if !in_group(context, group) {
                wanted.mode &= !SET_GROUP_ID;
            }
        }
        let now = valid.has(SetattrValid::ATIME_NOW | SetattrValid::MTIME_NOW);
        let given = valid.has(SetattrValid::ATIME) && !valid.has(SetattrValid::ATIME_NOW)
            || valid.has(SetattrValid::MTIME) && !valid.has(SetattrValid::MTIME_NOW);
        if (now || given) && !owner {
            // Times given together with a ctime are those of a kernel's write-back: no application can ask for them.
            if given && !valid.has(SetattrValid::CTIME) {
                return refuse("choose the times of");
            }
            self.need(context, gfid, W).await?;
        }
        Ok(())
    }

    /// ACLs and labels are the owner's. Everything else is for who may write; of what GlusterFS and the system keep there
    /// for themselves, only distribute's layout of a directory, which clients set in the name of who made it.
    async fn check_xattr(&self, context: &Context, gfid: Gfid, key: &[u8]) -> FopResult<()> {
        let layout = key == LAYOUT || key.strip_prefix(LAYOUT).is_some_and(|rest| rest.starts_with(b"."));
        if layout {
            // Also of a directory made without the right to write; and where there is none yet, by a client whose root is
            // squashed and that made the directory in its user's name.
            let fop = Fop::Getxattr { gfid, name: key.to_vec().into(), xdata: Dict::new() };
            let absent = matches!(self.child.submit(&Context::root(), fop).await, Err(e) if e.errno == errno::ENODATA);
            if absent || self.iatt(gfid).await?.uid == context.uid {
                return Ok(());
            }
            return self.need(context, gfid, W).await.map(drop);
        }
        if key.starts_with(b"trusted.") || is_privilege(key) {
            return Err(not_his(context, key));
        }
        if key.starts_with(b"system.posix_acl") || key.starts_with(b"glusterfs.posix.") || key == SELINUX {
            let current = self.iatt(gfid).await?;
            return match current.uid == context.uid {
                true => Ok(()),
                false => Err(FopError::new(
                    errno::EPERM,
                    format!("uid {} may not change {} of {gfid}", context.uid, String::from_utf8_lossy(key)),
                )),
            };
        }
        let current = self.need(context, gfid, W).await?;
        let of_user = key.starts_with(b"user.");
        if of_user && current.is_dir() && current.mode & STICKY != 0 && current.uid != context.uid {
            return Err(FopError::new(
                errno::EPERM,
                format!("uid {} may not change attributes of the sticky directory {gfid}", context.uid),
            ));
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
            let mut fop = fop;
            self.check(context, &mut fop).await?;
            self.child.submit(context, fop).await
        })
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

/// What flags of an open ask of a file.
fn wanted_by(flags: u32) -> u32 {
    let wanted = match flags & 3 {
        0 => R,
        1 => W,
        _ => R | W,
    };
    // __FMODE_EXEC: executing needs no read permission.
    let wanted = if flags & 0x20 != 0 { X } else { wanted };
    if flags & libc::O_TRUNC as u32 != 0 { wanted | W } else { wanted }
}

/// Whether an xattr gives what root alone may give: capabilities, integrity marks.
fn is_privilege(key: &[u8]) -> bool {
    key.starts_with(b"security.") && key != SELINUX
}

fn not_his(context: &Context, key: &[u8]) -> FopError {
    let what = format!("uid {} may not change {}", context.uid, String::from_utf8_lossy(key));
    FopError::new(errno::EPERM, what)
}

fn in_group(context: &Context, gid: u32) -> bool {
    context.gid == gid || context.groups.contains(&gid)
}

/// Whether a chmod only takes set-id bits away, at least one.
fn drops_set_id(current: u32, wanted: u32) -> bool {
    let (current, wanted) = (current & 0o7777, wanted & 0o7777);
    let dropped = current & !wanted;
    wanted & !current == 0 && dropped != 0 && dropped & !(SET_USER_ID | SET_GROUP_ID) == 0
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

/// A POSIX access ACL.
struct Acl {
    entries: Vec<AclEntry>,
}

impl Acl {
    /// Of the kernel's form.
    fn parse(raw: &[u8]) -> Option<Acl> {
        Some(Acl { entries: acl::entries(raw)?.collect() })
    }

    fn find(&self, tag: u16) -> Option<u32> {
        self.entries.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.permissions))
    }

    fn allows(&self, context: &Context, iatt: &Iatt, wanted: u32) -> bool {
        let mask = self.find(MASK).unwrap_or(7);
        let granted = |bits: u32| bits & wanted == wanted;
        if iatt.uid == context.uid {
            return self.find(USER_OBJ).is_some_and(granted);
        }
        if let Some(entry) = self.entries.iter().find(|entry| entry.tag == USER && entry.id == context.uid) {
            return granted(u32::from(entry.permissions) & mask);
        }
        let mut of_group = false;
        for entry in &self.entries {
            let gid = match entry.tag {
                GROUP_OBJ => iatt.gid,
                GROUP => entry.id,
                _ => continue,
            };
            if in_group(context, gid) {
                of_group = true;
                if granted(u32::from(entry.permissions) & mask) {
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
    use crate::translators::testing::{Bench, entry};
    use bytes::Bytes;
    use ladrillo_translator::Value;

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
    fn acl(entries: &[(u16, u16, u32)]) -> Value {
        let mut raw = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in entries {
            raw.extend_from_slice(&tag.to_le_bytes());
            raw.extend_from_slice(&bits.to_le_bytes());
            raw.extend_from_slice(&id.to_le_bytes());
        }
        Value::Ptr(raw.into())
    }

    fn setattr(gfid: Gfid, valid: u32, iatt: Iatt) -> Fop {
        Fop::Setattr { gfid, iatt: Box::new(iatt), valid: SetattrValid(valid), xdata: Dict::new() }
    }

    fn errno_of(result: FopResult) -> i32 {
        result.err().map_or(0, |error| error.errno)
    }

    fn bench() -> Option<Bench> {
        Bench::new(|storage| Arc::new(AccessControl::new("acl", storage)))
    }

    #[test]
    fn an_acl_takes_away_what_the_mode_seems_to_give() {
        let Some(bench) = bench() else { return };
        let gfid = bench.file(Gfid::ROOT, "f", b"x");
        bench
            .run(setattr(
                gfid,
                SetattrValid::MODE | SetattrValid::UID | SetattrValid::GID,
                Iatt { mode: 0o604, uid: 1, gid: 10, ..Iatt::default() },
            ))
            .unwrap();
        let entries =
            [(USER_OBJ, 6u16, !0u32), (USER, 6, 5), (USER, 0, 7), (GROUP_OBJ, 0, !0), (MASK, 6, !0), (OTHER, 4, !0)];
        let xattrs = Dict::new().with("system.posix_acl_access", acl(&entries));
        bench.run(Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() }).unwrap();
        let access = |who: Context, mask| errno_of(bench.run_as(&who, Fop::Access { gfid, mask, xdata: Dict::new() }));
        assert_eq!(access(user(5, 5, &[]), R | W), 0);
        assert_eq!(access(user(6, 10, &[]), R), errno::EACCES, "the mode's group bits are the mask, not the group's");
        assert_eq!(access(user(7, 7, &[]), R), errno::EACCES, "named, and given nothing");
        assert_eq!(access(user(8, 8, &[]), R), 0);
        assert_eq!(access(user(1, 10, &[]), R | W), 0);
    }

    #[test]
    fn attributes_are_their_owners() {
        let Some(bench) = bench() else { return };
        let gfid = bench.file(Gfid::ROOT, "f", b"x");
        let all = SetattrValid::MODE | SetattrValid::UID | SetattrValid::GID;
        let reset = |mode| bench.run(setattr(gfid, all, Iatt { mode, uid: 1, gid: 10, ..Iatt::default() })).unwrap();
        let mode = || std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(bench.path.join("f")).unwrap()) & 0o7777;
        let change = |who: &Context, valid, iatt| errno_of(bench.run_as(who, setattr(gfid, valid, iatt)));
        let (owner, member, other) = (user(1, 9, &[]), user(1, 10, &[]), user(2, 2, &[]));
        let to = |mode| Iatt { mode, ..Iatt::default() };
        // A write takes set-id bits in the writer's name; nothing else is his to change, and only his if he may write.
        reset(0o6777);
        assert_eq!(change(&other, SetattrValid::MODE, to(0o6770)), errno::EPERM);
        assert_eq!(change(&other, SetattrValid::MODE, to(0o6777)), errno::EPERM);
        assert_eq!(change(&other, SetattrValid::MODE, to(0o100_777)), 0);
        assert_eq!(mode(), 0o777);
        reset(0o4755);
        assert_eq!(change(&other, SetattrValid::MODE, to(0o755)), errno::EACCES);
        assert_eq!(change(&owner, SetattrValid::MODE, to(0o2755)), 0);
        assert_eq!(mode(), 0o755, "an owner outside the group cannot set its bit");
        assert_eq!(change(&member, SetattrValid::MODE, to(0o2755)), 0);
        assert_eq!(mode(), 0o2755);
        // Times.
        reset(0o666);
        let now = SetattrValid::ATIME_NOW | SetattrValid::MTIME_NOW;
        let given = SetattrValid::ATIME | SetattrValid::MTIME;
        assert_eq!(change(&other, given | now, Iatt::default()), 0);
        assert_eq!(change(&other, given, Iatt::default()), errno::EPERM);
        assert_eq!(change(&other, given | SetattrValid::ATIME_NOW, Iatt::default()), errno::EPERM);
        assert_eq!(change(&other, given | SetattrValid::CTIME, Iatt::default()), 0, "a kernel's write-back");
        assert_eq!(change(&owner, given, Iatt::default()), 0);
        reset(0o644);
        assert_eq!(change(&other, given | now, Iatt::default()), errno::EACCES);
        // Owner and group.
        assert_eq!(change(&owner, SetattrValid::GID, Iatt { gid: 11, ..Iatt::default() }), errno::EPERM);
        assert_eq!(change(&owner, SetattrValid::GID, Iatt { gid: 9, ..Iatt::default() }), 0);
        assert_eq!(change(&other, SetattrValid::UID, Iatt { uid: 1, ..Iatt::default() }), errno::EPERM);
        assert_eq!(change(&owner, SetattrValid::UID, Iatt { uid: 1, ..Iatt::default() }), 0);
    }

    #[test]
    fn sticky_directories_and_moved_directories() {
        let Some(bench) = bench() else { return };
        let owned = |mode, uid| (SetattrValid::MODE | SetattrValid::UID, Iatt { mode, uid, ..Iatt::default() });
        let directory = |parent, name: &str, mode, uid| {
            let gfid = bench.directory(parent, name);
            let (valid, iatt) = owned(mode, uid);
            bench.run(setattr(gfid, valid, iatt)).unwrap();
            gfid
        };
        let sticky = directory(Gfid::ROOT, "sticky", 0o1777, 1);
        let open = directory(Gfid::ROOT, "open", 0o777, 1);
        directory(open, "inner", 0o755, 1);
        let file = bench.file(sticky, "f", b"");
        let (valid, iatt) = owned(0o666, 2);
        bench.run(setattr(file, valid, iatt)).unwrap();
        let x = Dict::new;
        let unlink = || Fop::Unlink { entry: entry(sticky, "f"), flags: 0, xdata: x() };
        assert_eq!(errno_of(bench.run_as(&user(3, 3, &[]), unlink())), errno::EPERM);
        let rename = |from, to| Fop::Rename { from, to, xdata: x() };
        let other = user(3, 3, &[]);
        let mv = |a: Entry, b: Entry| errno_of(bench.run_as(&other, rename(a, b)));
        assert_eq!(mv(entry(open, "inner"), entry(sticky, "inner")), errno::EACCES, "its .. would change");
        assert_eq!(mv(entry(open, "inner"), entry(open, "other")), 0);
        let xattrs = x().with("user.a", Value::Ptr(vec![1].into()));
        let set = |gfid| Fop::Setxattr { gfid, xattrs: xattrs.clone(), flags: 0, xdata: x() };
        assert_eq!(errno_of(bench.run_as(&other, set(sticky))), errno::EPERM);
        assert_eq!(errno_of(bench.run_as(&other, set(open))), 0);
        bench.run(setattr(open, SetattrValid::MODE, Iatt { mode: 0o700, ..Iatt::default() })).unwrap();
        let get = Fop::Getxattr { gfid: open, name: b"user.a".as_slice().into(), xdata: x() };
        assert_eq!(errno_of(bench.run_as(&other, get)), errno::EACCES);
        assert_eq!(errno_of(bench.run_as(&user(2, 2, &[]), unlink())), 0);
    }

    #[test]
    fn what_names_no_descriptor_is_checked_like_an_open() {
        use crate::translators::testing::{Bench, create, entry, write};
        use ladrillo_translator::{FdId, Value};
        let Some(bench) = Bench::new(|storage| Arc::new(AccessControl::new("access", storage))) else { return };
        let secret = bench.file(Gfid::ROOT, "secret", b"text");
        let mode = |gfid: Gfid, mode: u32| {
            let iatt = Box::new(Iatt { mode, ..Iatt::default() });
            let valid = SetattrValid(SetattrValid::MODE);
            bench.run(Fop::Setattr { gfid, iatt, valid, xdata: Dict::new() }).unwrap();
        };
        mode(secret, 0o600);
        let open = bench.directory(Gfid::ROOT, "open");
        mode(open, 0o777);
        let user = user(1000, 1000, &[]);
        let unnamed = File { gfid: secret, fd: None };
        let x = Dict::new;
        let put = |parent: Gfid| Fop::Put {
            entry: entry(parent, "new"),
            mode: 0o644,
            umask: 0,
            flags: 0,
            offset: 0,
            data: ladrillo_translator::Payload::empty(),
            xattrs: x(),
            xdata: x().with("gfid-req", Value::Gfid(Gfid::random())),
        };
        for fop in [
            write(unnamed, b"bad"),
            Fop::Read { file: unnamed, offset: 0, size_bytes: 4, flags: 0, xdata: x() },
            Fop::Discard { file: unnamed, offset: 0, len: 4, xdata: x() },
            Fop::Zerofill { file: unnamed, offset: 0, len: 4, xdata: x() },
            Fop::Fallocate { file: unnamed, flags: 0, offset: 0, len: 4096, xdata: x() },
            Fop::Rchecksum { file: unnamed, offset: 0, len: 4, xdata: x() },
            Fop::CopyFileRange {
                from: unnamed,
                from_offset: 0,
                to: unnamed,
                to_offset: 0,
                len: 4,
                flags: 0,
                xdata: x(),
            },
            create(Gfid::ROOT, "secret", Gfid::random(), FdId(70)),
            put(Gfid::ROOT),
        ] {
            assert_eq!(bench.run_as(&user, fop.clone()).unwrap_err().errno, errno::EACCES, "{fop:?}");
        }
        bench.run_as(&user, put(open)).unwrap();
        // An open of what is there needs no right to make entries.
        mode(secret, 0o666);
        bench.run_as(&user, create(Gfid::ROOT, "secret", Gfid::random(), FdId(71))).unwrap();
        assert_eq!(std::fs::read(bench.path.join("secret")).unwrap(), b"text");
    }

    #[test]
    fn xattrs_of_the_system_are_not_for_users() {
        let Some(bench) = bench() else { return };
        let file = bench.file(Gfid::ROOT, "f", b"x");
        let owner =
            setattr(file, SetattrValid::UID | SetattrValid::MODE, Iatt { uid: 5, mode: 0o644, ..Iatt::default() });
        bench.run(owner).unwrap();
        let value = || Value::Ptr(vec![1].into());
        let set = |key: &str| Fop::Setxattr {
            gfid: file,
            xattrs: Dict::new().with(key.to_owned(), value()),
            flags: 0,
            xdata: Dict::new(),
        };
        let remove = |key: &str| Fop::Removexattr { gfid: file, name: key.to_owned().into(), xdata: Dict::new() };
        let (owner, other) = (user(5, 5, &[]), user(6, 6, &[]));
        let ask = |who: &Context, fop: Fop| errno_of(bench.run_as(who, fop));
        for key in
            ["trusted.afr.v-client-0", "trusted.glusterfs.x", "trusted.gfid", "security.capability", "security.ima"]
        {
            assert_eq!(ask(&owner, set(key)), errno::EPERM, "{key}");
            assert_eq!(ask(&other, set(key)), errno::EPERM, "{key}");
        }
        assert_eq!(ask(&other, set("trusted.glusterfs.dht.mds")), 0, "of a squashed client's mkdir: it has none yet");
        assert_eq!(ask(&other, set("trusted.glusterfs.dht.mds")), errno::EACCES);
        assert_eq!(ask(&owner, set("trusted.glusterfs.dht")), 0, "as mkdir of stock clients does");
        assert_eq!(ask(&other, set("trusted.glusterfs.dht")), errno::EACCES);
        assert_eq!(ask(&other, set("glusterfs.anything")), errno::EACCES);
        assert_eq!(ask(&other, set("security.selinux")), errno::EPERM);
        for key in ["trusted.glusterfs.dht", "security.capability"] {
            assert_eq!(ask(&other, remove(key)), errno::EACCES, "{key}");
        }
        bench.run(set("trusted.glusterfs.x")).unwrap();
        assert_eq!(ask(&owner, remove("trusted.glusterfs.x")), errno::EPERM);
        assert_eq!(ask(&owner, remove("security.capability")), errno::ENODATA, "let through: it is not there");
        // Nameless removal, and the order to drop what is not named.
        bench.run(set("user.a")).unwrap();
        let all = Dict::new().with("user.a", value());
        let nameless = Fop::Removexattr { gfid: file, name: Bytes::new(), xdata: all.clone() };
        assert_eq!(ask(&other, nameless.clone()), errno::EPERM);
        assert_eq!(ask(&owner, nameless), errno::EPERM);
        let sync = Dict::new().with("sync_backend_xattrs", Value::Int(1));
        let drop_all = Fop::Setxattr { gfid: file, xattrs: Dict::new(), flags: 0, xdata: sync };
        assert_eq!(ask(&other, drop_all.clone()), errno::EACCES);
        assert_eq!(ask(&owner, drop_all), 0);
        let get = || Fop::Getxattr { gfid: file, name: b"user.a".as_slice().into(), xdata: Dict::new() };
        bench.run(get()).unwrap();
        let add = |key: &str| Fop::Xattrop {
            gfid: file,
            kind: ladrillo_translator::fop::XattropKind::GetAndSet,
            xattrs: Dict::new().with(key.to_owned(), value()),
            xdata: Dict::new(),
        };
        assert_eq!(ask(&owner, add("security.capability")), errno::EPERM);
        assert_eq!(ask(&other, add("trusted.afr.dirty")), 0, "replicate counts in the name of whoever asks");
    }

    #[test]
    fn what_users_make_has_no_privileges() {
        let Some(bench) = bench() else { return };
        let open = bench.directory(Gfid::ROOT, "open");
        bench.run(setattr(open, SetattrValid::MODE, Iatt { mode: 0o777, ..Iatt::default() })).unwrap();
        let user = user(5, 5, &[]);
        let gfid = Gfid::random();
        // Version 2, effective, cap_chown.
        let capability = [1u32 | 0x0200_0000, 1, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let capability = || Value::Ptr(capability.clone().into());
        let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid)).with("security.capability", capability());
        bench.run_as(&user, Fop::Mknod { entry: entry(open, "n"), mode: 0o100_755, rdev: 0, umask: 0, xdata }).unwrap();
        let get = Fop::Getxattr { gfid, name: b"security.capability".as_slice().into(), xdata: Dict::new() };
        assert_eq!(errno_of(bench.run(get)), errno::ENODATA);
        let put = |key: &str, value: Value| Fop::Put {
            entry: entry(open, key),
            mode: 0o755,
            umask: 0,
            flags: 0,
            offset: 0,
            data: ladrillo_translator::Payload::empty(),
            xattrs: Dict::new().with(key.to_owned(), value),
            xdata: Dict::new().with("gfid-req", Value::Gfid(Gfid::random())),
        };
        assert_eq!(errno_of(bench.run_as(&user, put("security.capability", capability()))), errno::EPERM);
        assert_eq!(errno_of(bench.run_as(&user, put("trusted.x", capability()))), errno::EPERM);
        assert_eq!(errno_of(bench.run_as(&user, put("user.x", capability()))), 0);
    }
}
