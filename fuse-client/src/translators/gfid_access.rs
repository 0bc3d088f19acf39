//! features/gfid-access: `.gfid/GFID` below a mount's root is the inode of that gfid (`--aux-gfid-mount`), for tools that
//! know inodes by nothing else, as geo-replication does. `.gfid` itself lists nothing, and nothing can be made in it.
//!
//! A directory cannot have two names in a kernel: there it has another gfid, its own with another version number (of
//! UUIDs), which is put right on the way down. The interface by which geo-replication makes files with a given gfid
//! (`glusterfs.gfid.newfile`) is not there.

use std::sync::{Arc, Weak};

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Parent, Reply, Translator};

const DIRECTORY_NAME: &[u8] = b".gfid";
/// GF_AUX_GFID. Source: GlusterFS 10.3, glusterfs.h.
const DIRECTORY: Gfid = Gfid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0d]);

/// Versions of directories' gfids, and what stands for them there. GlusterFS makes random ones (4); the root's is 0.
const ALIASES: [(u8, u8); 2] = [(4, 0xe), (0, 0xd)];

/// The translator.
pub struct GfidAccess {
    child: Arc<dyn Translator>,
}

fn with_version(gfid: Gfid, version: u8) -> Gfid {
    let mut raw = gfid.0;
    raw[6] = (raw[6] & 0x0f) | (version << 4);
    Gfid(raw)
}

/// What a directory is called below `.gfid`.
fn alias(gfid: Gfid) -> Gfid {
    let version = gfid.0[6] >> 4;
    ALIASES.iter().find(|(own, _)| *own == version).map_or(gfid, |(_, other)| with_version(gfid, *other))
}

/// The gfid behind an alias.
fn real(gfid: Gfid) -> Gfid {
    let version = gfid.0[6] >> 4;
    ALIASES.iter().find(|(_, other)| *other == version).map_or(gfid, |(own, _)| with_version(gfid, *own))
}

impl GfidAccess {
    /// Over `child`.
    pub fn new(child: Arc<dyn Translator>) -> Arc<GfidAccess> {
        Arc::new(GfidAccess { child })
    }

    /// `.gfid` looks like the root.
    async fn directory(&self, context: &Context) -> FopResult<Iatt> {
        match self.child.submit(context, Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() }).await? {
            Reply::Iatt { iatt, .. } => Ok(Iatt { gfid: DIRECTORY, ino: DIRECTORY.ino(), ..*iatt }),
            _ => Err(FopError::new(errno::EIO, "the answer to a stat is of another kind")),
        }
    }

    async fn lookup_directory(&self, context: &Context) -> FopResult {
        let iatt = self.directory(context).await?;
        let parent = Iatt { gfid: Gfid::ROOT, ino: 1, ..iatt.clone() };
        Ok(Reply::Lookup { iatt: Box::new(iatt), parent: Box::new(parent), xdata: Dict::new() })
    }

    async fn lookup_gfid(&self, context: &Context, name: &[u8], mut xdata: Dict) -> FopResult {
        let gfid = std::str::from_utf8(name).ok().filter(|name| name.len() == 36).and_then(|name| name.parse().ok());
        let gfid: Gfid = gfid.ok_or_else(|| FopError::new(errno::ENOENT, "the name is no gfid"))?;
        // Nothing is to be made.
        xdata.remove("gfid-req");
        let found = self.child.submit(context, Fop::Lookup { gfid, entry: None, xdata }).await;
        let mut reply = found.map_err(|error| match error.errno {
            // As in GlusterFS: there is no such name.
            errno::ESTALE => FopError { errno: errno::ENOENT, ..error },
            _ => error,
        })?;
        if let Reply::Lookup { iatt, .. } = &mut reply
            && iatt.is_dir()
        {
            iatt.gfid = alias(iatt.gfid);
            iatt.ino = iatt.gfid.ino();
        }
        Ok(reply)
    }

    async fn on_directory(&self, context: &Context, fop: Fop) -> FopResult {
        match fop {
            Fop::Stat { .. } | Fop::Fstat { .. } => {
                Ok(Reply::Iatt { iatt: Box::new(self.directory(context).await?), xdata: Dict::new() })
            }
            Fop::Lookup { .. } => self.lookup_directory(context).await,
            Fop::Access { mask, xdata, .. } => {
                self.child.submit(context, Fop::Access { gfid: Gfid::ROOT, mask, xdata }).await
            }
            Fop::Statfs { xdata, .. } => self.child.submit(context, Fop::Statfs { gfid: Gfid::ROOT, xdata }).await,
            Fop::Opendir { .. } | Fop::Releasedir { .. } | Fop::Fsyncdir { .. } | Fop::Flush { .. } => {
                Ok(Reply::done())
            }
            Fop::Readdir { .. } | Fop::Readdirp { .. } => {
                Ok(Reply::Entries { entries: Vec::new(), xdata: Dict::new() })
            }
            Fop::Getxattr { name, .. } | Fop::Fgetxattr { name, .. } if name.is_empty() => {
                Ok(Reply::Xattrs { xattrs: Dict::new(), xdata: Dict::new() })
            }
            Fop::Getxattr { .. } | Fop::Fgetxattr { .. } => Err(FopError::new(errno::ENODATA, ".gfid has no xattrs")),
            _ => Err(FopError::new(errno::EPERM, format!("{}: .gfid is not to be changed", fop.kind().name()))),
        }
    }

    async fn pass(&self, context: &Context, mut fop: Fop) -> FopResult {
        let mut aliases: Vec<Gfid> = Vec::new();
        let mut put = |gfid: &mut Gfid| {
            let is = real(*gfid);
            if is != *gfid {
                aliases.push(*gfid);
                *gfid = is;
            }
        };
        fop.inode_mut().into_iter().for_each(&mut put);
        fop.files_mut().into_iter().flatten().for_each(|file| put(&mut file.gfid));
        // What is below such a directory has its own gfid.
        fop.entries_mut().into_iter().flatten().for_each(|entry| entry.parent = real(entry.parent));
        let mut reply = self.child.submit(context, fop).await?;
        if !aliases.is_empty() {
            reply.for_each_iatt(|iatt| {
                if let Some(alias) = aliases.iter().find(|alias| real(**alias) == iatt.gfid) {
                    iatt.gfid = *alias;
                    iatt.ino = alias.ino();
                }
            });
        }
        Ok(reply)
    }
}

fn is_in(entry: &Entry, directory: Gfid) -> bool {
    entry.parent == directory
}

impl Translator for GfidAccess {
    fn name(&self) -> &str {
        self.child.name()
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        if let Fop::Lookup { entry: Some(entry), .. } = &fop
            && is_in(entry, Gfid::ROOT)
            && entry.name == DIRECTORY_NAME
        {
            return Box::pin(self.lookup_directory(context));
        }
        if fop.entries().into_iter().flatten().any(|entry| is_in(entry, DIRECTORY)) {
            return match fop {
                Fop::Lookup { entry: Some(entry), xdata, .. } => {
                    Box::pin(async move { self.lookup_gfid(context, &entry.name, xdata).await })
                }
                _ => Box::pin(async move { Err(FopError::new(errno::EPERM, ".gfid is not to be changed")) }),
            };
        }
        let files = fop.files();
        if fop.inode() == Some(DIRECTORY) || files.into_iter().flatten().any(|file| file.gfid == DIRECTORY) {
            return Box::pin(self.on_directory(context, fop));
        }
        Box::pin(self.pass(context, fop))
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use parking_lot::Mutex;

    use super::*;

    /// Remembers what came; every inode is a directory.
    #[derive(Default)]
    struct Below(Mutex<Vec<Fop>>);

    impl Translator for Below {
        fn name(&self) -> &str {
            "below"
        }

        fn submit<'a>(&'a self, _: &'a Context, fop: Fop) -> FopFuture<'a> {
            self.0.lock().push(fop.clone());
            let gfid = match &fop {
                Fop::Lookup { entry: Some(_), .. } => Gfid([7; 16]),
                _ => fop.inode().unwrap_or_default(),
            };
            let iatt = Box::new(Iatt { gfid, mode: 0o40755, ..Iatt::default() });
            Box::pin(async move {
                Ok(match fop {
                    Fop::Lookup { .. } => Reply::Lookup { iatt, parent: Box::default(), xdata: Dict::new() },
                    _ => Reply::Iatt { iatt, xdata: Dict::new() },
                })
            })
        }

        fn set_parent(&self, _: Weak<dyn Parent>, _: usize) {}
    }

    #[test]
    fn directories_have_another_gfid_there_and_it_leads_back() {
        let below = Arc::new(Below::default());
        let top = GfidAccess::new(below.clone());
        let context = Context::root();
        let ask = |fop| block_on(top.submit(&context, fop));
        let lookup = |parent, name: &str| Fop::Lookup {
            gfid: Gfid::NULL,
            entry: Some(Entry { parent, name: name.to_owned().into() }),
            xdata: Dict::new(),
        };
        let found = |reply: FopResult| match reply.unwrap() {
            Reply::Lookup { iatt, .. } | Reply::Iatt { iatt, .. } => iatt.gfid,
            other => panic!("{other:?}"),
        };
        assert_eq!(found(ask(lookup(Gfid::ROOT, ".gfid"))), DIRECTORY);
        let gfid = Gfid::random();
        let seen = found(ask(lookup(DIRECTORY, &gfid.to_string())));
        assert!(seen != gfid && real(seen) == gfid);
        assert_eq!(found(ask(Fop::Stat { gfid: seen, xdata: Dict::new() })), seen);
        let asked = below.0.lock().pop().unwrap();
        assert_eq!(asked.inode(), Some(gfid));
        assert_eq!(found(ask(lookup(seen, "child"))), Gfid([7; 16]));
        assert_eq!(below.0.lock().pop().unwrap().entries()[0].unwrap().parent, gfid);
        assert_eq!(real(found(ask(lookup(DIRECTORY, &Gfid::ROOT.to_string())))), Gfid::ROOT);
        for name in ["x", "00000000", ""] {
            assert_eq!(ask(lookup(DIRECTORY, name)).unwrap_err().errno, errno::ENOENT);
        }
        let entry = Entry { parent: DIRECTORY, name: "new".into() };
        let mkdir = Fop::Mkdir { entry, mode: 0o755, umask: 0, xdata: Dict::new() };
        assert_eq!(ask(mkdir).unwrap_err().errno, errno::EPERM);
        ask(Fop::Access { gfid: DIRECTORY, mask: 4, xdata: Dict::new() }).unwrap();
    }
}
