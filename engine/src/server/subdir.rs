//! Mounts of a directory (`server:/volume/dir`): what such a client calls the root is that directory. Source:
//! server-handshake.c and server-common.c of GlusterFS 10.3.
//!
//! As in stock this is a view, not a wall: a client that knows a gfid from elsewhere in the volume may use it.

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Iatt, Reply, Translator, Value};
use ladrillo_transport::program::callback::CacheInvalidation;

/// The way to the directory.
pub struct Subdir(Vec<Bytes>);

impl Subdir {
    /// A path as it is compared with those of `auth.allow`: `/a/b`, without empty names; the volume is `/`.
    pub fn normal(path: &str) -> String {
        let names: Vec<&str> = names(path).collect();
        format!("/{}", names.join("/"))
    }

    /// `None` for the volume's root. `..` names nothing that is found.
    pub fn parse(path: &str) -> Option<Subdir> {
        let names: Vec<Bytes> = names(path).map(|name| Bytes::copy_from_slice(name.as_bytes())).collect();
        (!names.is_empty()).then_some(Subdir(names))
    }

    /// Which directory it is.
    ///
    /// # Errors
    /// ENOENT or ENOTDIR where it is none.
    pub async fn find(&self, top: &dyn Translator) -> FopResult<Gfid> {
        let mut at = Gfid::ROOT;
        for name in &self.0 {
            let entry = Some(Entry { parent: at, name: name.clone() });
            match top.submit(&Context::root(), Fop::Lookup { gfid: Gfid::NULL, entry, xdata: Dict::new() }).await? {
                Reply::Lookup { iatt, .. } if iatt.is_dir() => at = iatt.gfid,
                _ => return Err(FopError::new(errno::ENOTDIR, "a part of the path is no directory")),
            }
        }
        Ok(at)
    }
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !matches!(*name, "" | "."))
}

/// Puts the directory where a client's request has the root.
pub fn into_volume(fop: &mut Fop, root: Gfid) {
    let put = |gfid: &mut Gfid| {
        if gfid.is_root() {
            *gfid = root;
        }
    };
    // ICREATE's gfid is a new inode's: it stays.
    if let Some(gfid) = fop.inode_mut() {
        put(gfid);
    }
    for entry in fop.entries_mut().into_iter().flatten() {
        put(&mut entry.parent);
    }
    for file in fop.files_mut().into_iter().flatten() {
        put(&mut file.gfid);
    }
}

fn put_root(iatt: &mut Iatt, root: Gfid) {
    if iatt.gfid == root {
        iatt.gfid = Gfid::ROOT;
        iatt.ino = 1;
    }
}

/// Puts the root where an upcall has the directory.
pub fn out_of_notice(what: &mut CacheInvalidation, root: Gfid) {
    if what.gfid == root {
        what.gfid = Gfid::ROOT;
    }
    for iatt in [&mut what.iatt, &mut what.parent, &mut what.old_parent] {
        put_root(iatt, root);
    }
}

/// Puts the root where an answer has the directory.
pub fn out_of_volume(reply: &mut Reply, root: Gfid) {
    let put = |iatt: &mut Iatt| put_root(iatt, root);
    reply.for_each_iatt(put);
    match reply {
        Reply::Entries { entries, .. } => {
            for entry in entries {
                if let Some(iatt) = &mut entry.iatt {
                    put(iatt);
                }
                if &entry.name[..] == b"." && entry.ino == root.ino() {
                    entry.ino = 1;
                }
            }
        }
        Reply::Xattrs { xattrs, .. } if xattrs.gfid("trusted.gfid") == Some(root) => {
            xattrs.set("trusted.gfid", Value::Ptr(Bytes::copy_from_slice(&Gfid::ROOT.0)));
        }
        _ => {}
    }
}
