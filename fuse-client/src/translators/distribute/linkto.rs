//! Linkto files: an empty file of mode `---------T` under a name's hash says on which subvolume the file is.

use bytes::Bytes;
use ladrillo_translator::error::errno::{EBUSY, EEXIST, ENOENT};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Dict, FileType, Fop, FopError, FopResult, Gfid, Iatt, Reply, Value};

use super::Distribute;
use super::merge::Seen;

/// Permissions of a linkto file, exactly (S_ISVTX).
const LINKTO_MODE: u32 = 0o1000;
/// xdata: a fop of the system's own.
pub(super) const INTERNAL: &str = "glusterfs-internal-fop";
/// xdata of MKNOD and LINK: a linkto file in the way is replaced.
const FORCE_REPLACE: &str = "force-replace";
/// xdata of UNLINK: EBUSY unless it is a linkto file.
const ONLY_LINKTO: &str = "unlink-only-if-dht-linkto-file";
/// xdata of UNLINK: EBUSY while it is open.
const NOT_OPEN: &str = "dont-unlink-for-open-fd";
/// xdata: quota's marker need not count this (the spelling is GlusterFS's).
pub(super) const DONT_ACCOUNT: &str = "glusters.marker.dont-account";

/// The xdata of fops of the system's own.
pub(super) fn internal() -> Dict {
    Dict::new().with(INTERNAL, Value::Str("yes".into()))
}

/// [`internal`], where a linkto file in the way is to be replaced.
pub(super) fn replacing() -> Dict {
    internal().with(FORCE_REPLACE, Value::Str("yes".into()))
}

impl Distribute {
    /// Whether a lookup (or listing) that asked for the xattr found a linkto file.
    pub(super) fn is_linkto(&self, iatt: &Iatt, xdata: &Dict) -> bool {
        iatt.is_regular() && iatt.permissions() == LINKTO_MODE && xdata.contains(&self.keys.linkto)
    }

    /// The subvolume a linkto file names, if there is one of that name.
    pub(super) fn linkto_target(&self, xdata: &Dict) -> Option<usize> {
        let raw = xdata.bytes(&self.keys.linkto)?;
        let name = raw.strip_suffix(b"\0").unwrap_or(raw);
        self.names.iter().position(|child| child.as_bytes() == name)
    }

    /// Makes a linkto file for `gfid` at `entry` on subvolume `at`; answers whether it was made (and not there already).
    ///
    /// # Errors
    /// EEXIST: something else has the name. Those of MKNOD.
    pub(super) async fn make_linkto(
        &self,
        entry: &Entry,
        gfid: Gfid,
        at: usize,
        to: usize,
        mut xdata: Dict,
    ) -> FopResult<bool> {
        // With its NUL, as C programs store and read it.
        let mut name = self.child_name(to).as_bytes().to_vec();
        name.push(0);
        xdata.set("gfid-req", Value::Gfid(gfid));
        xdata.set(INTERNAL, Value::Str("yes".into()));
        xdata.set(self.keys.linkto.clone(), Value::Ptr(name.into()));
        let mode = FileType::Regular.mode_bits() | LINKTO_MODE;
        let fop = Fop::Mknod { entry: entry.clone(), mode, rdev: 0, umask: 0, xdata };
        match self.ask(at, &self.system(), fop).await {
            Ok(_) => Ok(true),
            Err(error) if error.errno == EEXIST => {
                // Another client made it, for the same file.
                let xdata = Dict::new().with(self.keys.linkto.clone(), Value::Uint(256));
                let lookup = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata };
                let seen = Seen::of(at, self.ask(at, &self.system(), lookup).await)?;
                let same = seen.iatt.gfid == gfid && self.is_linkto(&seen.iatt, &seen.xdata);
                if same && self.linkto_target(&seen.xdata) == Some(to) { Ok(false) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a linkto file its file's owner, so that quota and permissions see it as the owner's. Best effort.
    pub(super) async fn own_linkto(&self, at: usize, iatt: &Iatt) {
        let fop = Fop::Setattr {
            gfid: iatt.gfid,
            iatt: Box::new(iatt.clone()),
            valid: SetattrValid(SetattrValid::UID | SetattrValid::GID),
            xdata: internal(),
        };
        if let Err(error) = self.ask(at, &self.system(), fop).await {
            tracing::debug!(child = self.child_name(at), %error, gfid = %iatt.gfid, "owner of a linkto file");
        }
    }

    /// Removes a linkto file, and nothing but a linkto file that nobody has open.
    ///
    /// # Errors
    /// EBUSY: it is none, or open (a file being moved there). Those of UNLINK but ENOENT.
    pub(super) async fn remove_linkto(&self, entry: &Entry, at: usize) -> FopResult<()> {
        let xdata = internal().with(ONLY_LINKTO, Value::Int(1)).with(NOT_OPEN, Value::Int(1));
        let fop = Fop::Unlink { entry: entry.clone(), flags: 0, xdata };
        match self.ask(at, &self.system(), fop).await {
            Ok(_) => Ok(()),
            Err(error) if error.errno == ENOENT => Ok(()),
            Err(error) => {
                let level_busy = error.errno == EBUSY;
                tracing::debug!(child = self.child_name(at), %error, level_busy, "removing a linkto file");
                Err(error)
            }
        }
    }

    /// Asks a lookup for what tells files, linkto files and directories from each other.
    pub(super) fn request(&self, xdata: &Dict) -> Dict {
        // Without the fresh gfid of the front: a copy without gfid would get one that the others do not have.
        let mut request: Dict =
            xdata.iter().filter(|(key, _)| key.as_ref() != b"gfid-req").map(|(k, v)| (k.clone(), v.clone())).collect();
        let keys = &self.keys;
        request.set(keys.linkto.clone(), Value::Uint(256));
        request.set(Bytes::from_static(b"glusterfs.open-fd-count"), Value::Uint(4));
        request.set(keys.layout.clone(), Value::Uint(16));
        request.set(keys.mds.clone(), Value::Uint(4));
        request.set(Bytes::from_static(b"system.posix_acl_access"), Value::Int(0));
        request.set(Bytes::from_static(b"system.posix_acl_default"), Value::Int(0));
        request
    }

    /// Takes out of an answer what only this translator reads; what the caller asked for by name stays.
    pub(super) fn hide_own(&self, xdata: &mut Dict, asked: &Dict) {
        let keys = &self.keys;
        let own: Vec<Bytes> = xdata
            .iter()
            .map(|(key, _)| key)
            .filter(|key| {
                key.starts_with(&keys.layout)
                    || (!asked.contains(key)
                        && matches!(
                            key.as_ref(),
                            b"glusterfs.open-fd-count" | b"system.posix_acl_access" | b"system.posix_acl_default"
                        ))
            })
            .cloned()
            .collect();
        if !own.is_empty() {
            *xdata = xdata.iter().filter(|(key, _)| !own.contains(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        }
    }
}

/// The inode a creating fop made.
pub(super) fn made(reply: &Reply) -> FopResult<&Iatt> {
    match reply {
        Reply::Entry { iatt, .. } => Ok(iatt),
        _ => Err(super::strange_reply("a creating operation")),
    }
}

/// Whether the subvolume has no such inode or name.
pub(super) fn is_missing(error: &FopError) -> bool {
    matches!(error.errno, ENOENT | ladrillo_translator::error::errno::ESTALE)
}
