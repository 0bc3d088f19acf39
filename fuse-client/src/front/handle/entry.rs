//! Names: lookup, create, link, rename, remove.

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, Name};
use ladrillo_translator::{Dict, Fop, FopError, FopResult, Gfid, Iatt, Reply, Value};

use super::{Outcome, Request, stale, unexpected};
use crate::executor;
use crate::front::answer::{self, Answer};
use crate::front::open::OpenFile;

const GFID_REQ: &str = "gfid-req";

impl Request<'_> {
    fn entry(&self, name: Name) -> FopResult<Entry> {
        Ok(Entry { parent: self.gfid()?, name })
    }

    /// xdata of a creating fop: the new inode's gfid; with ACLs the mode before the umask as well, which a default ACL
    /// replaces.
    fn new_inode(&self, mode: u32, umask: u32) -> Dict {
        let mut xdata = Dict::new().with(GFID_REQ, Value::Gfid(Gfid::random()));
        if self.front.options.acl {
            xdata.set_int("umask", i64::from(umask));
            xdata.set_int("mode", i64::from(mode));
        }
        xdata
    }

    pub(super) async fn lookup(&self, name: Name) -> Outcome {
        let (at, entry) = (name.clone(), self.entry(name)?);
        // Where a brick finds a file without a gfid (put there behind our back), it gives it this one.
        let xdata = Dict::new().with(GFID_REQ, Value::Gfid(Gfid::random()));
        // A name without a gfid (ENODATA, of GlusterFS's bricks) is one that somebody is making.
        let looked_up =
            self.submit(Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry), xdata }).await.map_err(|error| match error
                .errno
            {
                errno::ENODATA => FopError { errno: errno::ENOENT, ..error },
                _ => error,
            });
        match looked_up {
            Ok(Reply::Lookup { iatt, .. }) => self.known_entry(&iatt, &at),
            Ok(reply) => Err(unexpected(&reply)),
            Err(error) if error.errno == errno::ENOENT && !self.front.options.validity.negative.is_zero() => {
                Ok(Answer::bytes(answer::negative_entry(&self.front.options.validity)))
            }
            Err(error) => Err(error),
        }
    }

    /// The kernel learns of an inode; undone if it does not take the answer.
    fn known_entry(&self, iatt: &Iatt, name: &Name) -> Outcome {
        let nodeid = self.learn(iatt, name)?;
        let front = self.front.clone();
        Ok(Answer::Body {
            parts: vec![answer::entry(nodeid, iatt, &self.front.options.validity)],
            undo: Some(Box::new(move || front.inodes.forget(nodeid, 1))),
        })
    }

    fn learn(&self, iatt: &Iatt, name: &Name) -> FopResult<u64> {
        if iatt.gfid.is_null() || iatt.file_type().is_none() {
            return Err(FopError::new(errno::EIO, "the answer describes no inode (null gfid or no file type)"));
        }
        if iatt.is_dir() {
            return Ok(self.front.inodes.lookup_directory_at(iatt.gfid, self.header.nodeid, name));
        }
        let nodeid = self.front.inodes.lookup_at(iatt.gfid, self.header.nodeid, name);
        self.front.trim_inodes(1);
        Ok(nodeid)
    }

    async fn new_entry(&self, at: Name, fop: Fop) -> Outcome {
        match self.submit(fop).await.map_err(stale)? {
            Reply::Entry { iatt, .. } => self.known_entry(&iatt, &at),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn mknod(&self, name: Name, mode: u32, rdev: u32, umask: u32) -> Outcome {
        let at = name.clone();
        let (entry, xdata) = (self.entry(name)?, self.new_inode(mode, umask));
        self.new_entry(at, Fop::Mknod { entry, mode: mode & !umask, rdev: u64::from(rdev), umask, xdata }).await
    }

    pub(super) async fn mkdir(&self, name: Name, mode: u32, umask: u32) -> Outcome {
        let at = name.clone();
        let (entry, xdata) = (self.entry(name)?, self.new_inode(mode, umask));
        self.new_entry(at, Fop::Mkdir { entry, mode: mode & !umask, umask, xdata }).await
    }

    pub(super) async fn symlink(&self, name: Name, target: Bytes) -> Outcome {
        let at = name.clone();
        let (entry, xdata) = (self.entry(name)?, self.new_inode(0o777, 0));
        self.new_entry(at, Fop::Symlink { entry, target, umask: 0, xdata }).await
    }

    pub(super) async fn link(&self, nodeid: u64, name: Name) -> Outcome {
        let (at, gfid, entry) = (name.clone(), self.gfid_of(nodeid)?, self.entry(name)?);
        self.new_entry(at, Fop::Link { gfid, entry, xdata: Dict::new() }).await
    }

    pub(super) async fn create(&self, name: Name, flags: u32, mode: u32, umask: u32) -> Outcome {
        let at = name.clone();
        let (entry, xdata) = (self.entry(name)?, self.new_inode(mode, umask));
        let fd = self.front.files.fresh();
        let fop = Fop::Create { entry, flags, mode: mode & !umask, umask, fd, xdata };
        let iatt = match self.submit(fop).await.map_err(stale)? {
            Reply::Entry { iatt, .. } => iatt,
            reply => return Err(unexpected(&reply)),
        };
        let file = OpenFile { gfid: iatt.gfid, fd, flags };
        let nodeid = match self.learn(&iatt, &at) {
            Ok(nodeid) => nodeid,
            Err(error) => {
                self.release_later(file);
                return Err(error);
            }
        };
        let fh = self.front.files.insert(file);
        self.front.inodes.opened(file.gfid, fd);
        let options = &self.front.options;
        let open_flags = answer::open_flags(options.direct_io, options.keep_cache, flags);
        let body = answer::created(nodeid, &iatt, &options.validity, fh, open_flags);
        let (front, header) = (self.front.clone(), *self.header);
        let undo = Box::new(move || {
            front.inodes.forget(nodeid, 1);
            Request { front: &front, header: &header }.close(fh);
        });
        Ok(Answer::Body { parts: vec![body], undo: Some(undo) })
    }

    pub(super) async fn unlink(&self, name: Name) -> Outcome {
        let entry = self.entry(name)?;
        match self.submit(Fop::Unlink { entry, flags: 0, xdata: Dict::new() }).await? {
            Reply::Removed { .. } => Ok(Answer::ok()),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn rmdir(&self, name: Name) -> Outcome {
        let entry = self.entry(name)?;
        match self.submit(Fop::Rmdir { entry, flags: 0, xdata: Dict::new() }).await? {
            Reply::Removed { .. } => Ok(Answer::ok()),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn rename(&self, name: Name, new_parent: u64, new_name: Name, flags: u32) -> Outcome {
        if flags != 0 {
            // Neither GlusterFS's wire nor its bricks have RENAME_NOREPLACE, _EXCHANGE and _WHITEOUT. The kernel makes
            // it EINVAL, and does not ask again.
            return Err(FopError::new(errno::ENOSYS, format!("rename flags {flags:#x} are not supported")));
        }
        let from = self.entry(name)?;
        let to = Entry { parent: self.gfid_of(new_parent)?, name: new_name.clone() };
        match self.submit(Fop::Rename { from, to, xdata: Dict::new() }).await? {
            Reply::Rename { iatt, .. } => {
                self.front.inodes.placed(iatt.gfid, new_parent, &new_name);
                Ok(Answer::ok())
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// Closes a file in the graph, awaited by nobody.
    pub(super) fn release_later(&self, file: OpenFile) {
        let (front, context) = (self.front.clone(), self.context());
        let busy = self.front.begin();
        executor::spawn(async move {
            let _busy = busy;
            if let Err(error) = front.top.submit(&context, Fop::Release { file: file.file() }).await {
                tracing::debug!(gfid = %file.gfid, "release: {error}");
            }
        });
    }
}
