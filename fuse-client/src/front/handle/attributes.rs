//! Attributes of inodes, and of the file system.

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::File;
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Iatt, Reply};

use super::{Outcome, Request, stale, unexpected};
use crate::front::abi::fattr;
use crate::front::answer::{self, Answer};
use crate::front::parse::SetattrCall;

/// Longest target of a symlink asked for, in bytes. Source: GlusterFS asks for 4096.
const READLINK_BYTES: u32 = 4096;

impl Request<'_> {
    fn attributes(&self, iatt: &Iatt) -> Answer {
        Answer::bytes(answer::attributes(iatt, &self.front.options.validity))
    }

    /// The open file of `fh`, or any of the inode: one without a name left is reached no other way.
    fn some_open(&self, gfid: Gfid, fh: Option<u64>) -> Option<File> {
        if let Some(file) = fh.and_then(|fh| self.front.files.get(fh)) {
            return Some(file.file());
        }
        self.front.inodes.any_open(&gfid).map(|fd| File { gfid, fd: Some(fd) })
    }

    /// The first fop; where the inode is not found by its gfid, the second on an open file of it, if there is one.
    async fn by_gfid_or_fd(
        &self,
        context: &Context,
        gfid: Gfid,
        first: Fop,
        by_fd: impl FnOnce(File) -> Fop,
    ) -> FopResult {
        match self.front.top.submit(context, first).await {
            Err(error) if matches!(error.errno, errno::ENOENT | errno::ESTALE) => match self.some_open(gfid, None) {
                Some(file) => self.front.top.submit(context, by_fd(file)).await.map_err(stale),
                None => Err(stale(error)),
            },
            result => result,
        }
    }

    pub(super) async fn getattr(&self, fh: Option<u64>) -> Outcome {
        Ok(self.attributes(&*self.attributes_of(fh).await?))
    }

    pub(super) async fn statx(&self, fh: Option<u64>) -> Outcome {
        let iatt = self.attributes_of(fh).await?;
        Ok(Answer::bytes(answer::statx(&iatt, &self.front.options.validity)))
    }

    async fn attributes_of(&self, fh: Option<u64>) -> FopResult<Box<Iatt>> {
        let gfid = self.gfid()?;
        let fop = match self.some_open(gfid, fh) {
            // As GlusterFS's mount does: asking by name brings what a stat does not (healing, a first look).
            _ if gfid.is_root() => Fop::Lookup { gfid, entry: None, xdata: Dict::new() },
            Some(file) => Fop::Fstat { file, xdata: Dict::new() },
            None => Fop::Stat { gfid, xdata: Dict::new() },
        };
        match self.submit(fop).await.map_err(stale)? {
            Reply::Iatt { iatt, .. } | Reply::Lookup { iatt, .. } => Ok(iatt),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn setattr(&self, call: SetattrCall) -> Outcome {
        let gfid = self.gfid()?;
        let valid = fattr_to_gf(call.valid);
        let mut latest = None;
        if valid.0 & !SetattrValid::SIZE != 0 {
            latest = Some(self.set_fields(gfid, &call, SetattrValid(valid.0 & !SetattrValid::SIZE)).await?);
        }
        if valid.has(SetattrValid::SIZE) {
            latest = Some(self.truncate(gfid, &call).await?);
        }
        match latest {
            Some(iatt) => Ok(self.attributes(&iatt)),
            None => self.getattr(call.fh).await,
        }
    }

    async fn set_fields(&self, gfid: Gfid, call: &SetattrCall, valid: SetattrValid) -> FopResult<Box<Iatt>> {
        let iatt = Box::new(Iatt {
            gfid,
            mode: call.mode,
            uid: call.uid,
            gid: call.gid,
            size_bytes: call.size_bytes,
            atime: call.atime,
            mtime: call.mtime,
            ctime: call.ctime,
            ..Iatt::default()
        });
        let times = SetattrValid::ATIME | SetattrValid::MTIME | SetattrValid::CTIME;
        let xdata = Dict::new();
        let mut context = self.context();
        // What is set to "now" is now by the kernel's clock: the change of the inode is of the same moment.
        match () {
            () if valid.has(SetattrValid::ATIME_NOW) => context.birth = call.atime,
            () if valid.has(SetattrValid::MTIME_NOW) => context.birth = call.mtime,
            () => {}
        }
        let open = call.fh.and_then(|fh| self.front.files.get(fh)).filter(|_| !valid.has(times));
        let reply = match open {
            Some(open) => {
                let fop = Fop::Fsetattr { file: open.file(), iatt, valid, xdata };
                self.front.top.submit(&context, fop).await.map_err(stale)?
            }
            None => {
                let again = iatt.clone();
                let by_fd = |file| Fop::Fsetattr { file, iatt: again, valid, xdata: Dict::new() };
                self.by_gfid_or_fd(&context, gfid, Fop::Setattr { gfid, iatt, valid, xdata }, by_fd).await?
            }
        };
        post(reply)
    }

    async fn truncate(&self, gfid: Gfid, call: &SetattrCall) -> FopResult<Box<Iatt>> {
        let size_bytes = call.size_bytes;
        let owner = (call.valid & fattr::LOCKOWNER != 0).then_some(call.lock_owner);
        let ftruncate = |file| Fop::Ftruncate { file, size_bytes, xdata: Dict::new() };
        let reply = match call.fh.and_then(|fh| self.front.files.get(fh)) {
            Some(open) => self.submit_as(owner, ftruncate(open.file())).await.map_err(stale)?,
            None => {
                let first = Fop::Truncate { gfid, size_bytes, xdata: Dict::new() };
                self.by_gfid_or_fd(&self.context(), gfid, first, ftruncate).await?
            }
        };
        post(reply)
    }

    pub(super) async fn readlink(&self) -> Outcome {
        let gfid = self.gfid()?;
        match self
            .submit(Fop::Readlink { gfid, size_bytes: READLINK_BYTES, xdata: Dict::new() })
            .await
            .map_err(stale)?
        {
            Reply::Readlink { target, .. } => Ok(Answer::bytes(target)),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn access(&self, mask: u32) -> Outcome {
        let gfid = self.gfid()?;
        match self.submit(Fop::Access { gfid, mask, xdata: Dict::new() }).await.map_err(stale)? {
            Reply::Done { .. } => Ok(Answer::ok()),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn statfs(&self) -> Outcome {
        let gfid = self.gfid()?;
        match self.submit(Fop::Statfs { gfid, xdata: Dict::new() }).await.map_err(stale)? {
            Reply::Statfs { statfs, .. } => Ok(Answer::bytes(answer::statfs(&statfs))),
            reply => Err(unexpected(&reply)),
        }
    }
}

fn post(reply: Reply) -> Result<Box<Iatt>, FopError> {
    match reply {
        Reply::PrePost { attrs, .. } => Ok(Box::new(attrs.post)),
        reply => Err(unexpected(&reply)),
    }
}

/// FATTR_* bits as GF_SET_ATTR_* bits.
fn fattr_to_gf(valid: u32) -> SetattrValid {
    let bits = [
        (fattr::MODE, SetattrValid::MODE),
        (fattr::UID, SetattrValid::UID),
        (fattr::GID, SetattrValid::GID),
        (fattr::SIZE, SetattrValid::SIZE),
        (fattr::ATIME, SetattrValid::ATIME),
        (fattr::MTIME, SetattrValid::MTIME),
        (fattr::CTIME, SetattrValid::CTIME),
        (fattr::ATIME_NOW, SetattrValid::ATIME_NOW),
        (fattr::MTIME_NOW, SetattrValid::MTIME_NOW),
    ];
    SetattrValid(bits.iter().filter(|(kernel, _)| valid & kernel != 0).fold(0, |bits, (_, gluster)| bits | gluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_bits_map() {
        assert_eq!(fattr_to_gf(fattr::MODE | fattr::SIZE | fattr::FH | fattr::LOCKOWNER).0, 0x9);
        assert_eq!(fattr_to_gf(fattr::ATIME | fattr::ATIME_NOW | fattr::MTIME | fattr::MTIME_NOW).0, 0x1b0);
        assert_eq!(fattr_to_gf(fattr::CTIME).0, 0x40);
        assert_eq!(fattr_to_gf(0).0, 0);
    }
}
