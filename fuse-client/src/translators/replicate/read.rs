//! Reads: one good copy answers; when it fails, the next.

use ladrillo_translator::error::errno::{
    EACCES, EBADF, EINVAL, EISDIR, ENAMETOOLONG, ENODATA, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM, ERANGE, ESTALE,
};
use ladrillo_translator::fop::File;
use ladrillo_translator::{Context, Fop, FopError, FopResult, Gfid, Reply};

use super::Replicate;
use super::changelog::Keys;
use super::inode::Readable;
use super::lookup::hide_own_xattrs;
use super::mask::Mask;

/// Errors that any other good copy would answer as well.
const FINAL_ERRORS: &[i32] =
    &[ENODATA, EOPNOTSUPP, ERANGE, EACCES, EPERM, EINVAL, ENXIO, ENAMETOOLONG, EISDIR, ENOTDIR, EBADF];

impl Replicate {
    /// Ends a wait for a lock (`glusterfs.intrlk`): it may be with any child.
    async fn interrupt_lock(&self, context: &Context, fop: &Fop) -> FopResult {
        let replies = self.send_all(self.need_quorum()?, context, fop).await;
        match replies.iter().find_map(|(_, reply)| reply.as_ref().ok()) {
            Some(reply) => Ok(reply.clone()),
            None => Err(self.weigh_errors(&replies)),
        }
    }

    pub(super) async fn read(&self, context: &Context, fop: Fop) -> FopResult {
        let (gfid, file) = match &fop {
            Fop::Fgetxattr { name, .. } if name.starts_with(b"glusterfs.intrlk.") => {
                return self.interrupt_lock(context, &fop).await;
            }
            Fop::Stat { gfid, .. } | Fop::Readlink { gfid, .. } | Fop::Access { gfid, .. } => (*gfid, None),
            Fop::Getxattr { gfid, name, .. } => {
                self.refuse_own_xattr(name, context)?;
                (*gfid, None)
            }
            Fop::Fgetxattr { file, name, .. } => {
                self.refuse_own_xattr(name, context)?;
                (file.gfid, Some(*file))
            }
            Fop::Fstat { file, .. } | Fop::Read { file, .. } | Fop::Rchecksum { file, .. } | Fop::Seek { file, .. } => {
                (file.gfid, Some(*file))
            }
            _ => return Err(super::strange_reply("a read")),
        };
        if let Fop::Getxattr { name, .. } | Fop::Fgetxattr { name, .. } = &fop
            && let Some(answer) = self.virtual_xattr(context, gfid, name, &fop).await
        {
            return answer;
        }
        let mut outcome = self.read_from_good_copy(context, gfid, file.as_ref(), &fop).await.map(|(_, reply)| reply);
        if let Ok(Reply::Xattrs { xattrs, .. }) = &mut outcome
            && !context.is_internal()
        {
            hide_own_xattrs(xattrs);
        }
        outcome
    }

    /// Lets one good copy answer; tells which.
    ///
    /// # Errors
    /// ENOTCONN without a quorum; EIO in split-brain; what the last copy tried answered.
    pub(super) async fn read_from_good_copy(
        &self,
        context: &Context,
        gfid: Gfid,
        file: Option<&File>,
        fop: &Fop,
    ) -> FopResult<(usize, Reply)> {
        self.need_quorum()?;
        let inode = self.inodes.intern(gfid);
        let mut readable = self.readable(&inode, file).await?;
        let mut refreshed = false;
        let mut tried = Mask::NONE;
        let mut last_error: Option<FopError> = None;
        loop {
            let chosen = if readable.both().is_empty() { self.choice(gfid) } else { None };
            let candidates = chosen.map_or_else(|| self.candidates(&readable, fop), Mask::only) & self.up();
            let Some(child) = self.pick_reader(gfid, candidates - tried) else {
                if !refreshed {
                    refreshed = true;
                    readable = self.refresh(&inode, file).await?;
                    continue;
                }
                return Err(last_error.unwrap_or_else(|| self.split_brain(&inode)));
            };
            tried.add(child);
            if let Some(file) = file {
                self.reopen(file, Mask::only(child)).await;
            }
            let Some(target) = self.children.get(child) else { return Err(self.no_quorum()) };
            match target.submit(context, self.for_child(fop, child)?).await {
                Ok(reply) => return Ok((child, reply)),
                Err(error) if FINAL_ERRORS.contains(&error.errno) => return Err(error),
                Err(error) => {
                    tracing::debug!(child, %error, %gfid, "read failed, trying another copy");
                    last_error = Some(error);
                    if !refreshed {
                        refreshed = true;
                        match self.refresh(&inode, file).await {
                            Ok(fresh) => readable = fresh,
                            // The inode itself is gone: what the copy said is the answer.
                            Err(error) if error.errno == ESTALE => return Err(last_error.unwrap_or(error)),
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
        }
    }

    /// Copies good enough for `fop`: attributes of a directory may be read while its entries differ.
    fn candidates(&self, readable: &Readable, fop: &Fop) -> Mask {
        let is_dir = readable.kind == Some(ladrillo_translator::FileType::Directory);
        let both = readable.both();
        if !is_dir {
            return match fop {
                // Attributes are shown in split-brain, as by lookups: the kernel asks before it sends what resolves it.
                Fop::Stat { .. } | Fop::Fstat { .. } | Fop::Access { .. } if both.is_empty() => {
                    if readable.metadata.is_empty() { self.up() } else { readable.metadata }
                }
                _ => both,
            };
        }
        match fop {
            Fop::Stat { .. } | Fop::Fstat { .. } | Fop::Access { .. } if both.is_empty() => readable.metadata,
            _ if both.is_empty() && readable.data.is_empty() => self.up(),
            _ if both.is_empty() => readable.data,
            _ => both,
        }
    }

    /// Which of `good` reads go to: the one the volfile names, the one on this machine, else by `read-hash-mode`. Never
    /// an arbiter.
    pub(crate) fn pick_reader(&self, gfid: Gfid, good: Mask) -> Option<usize> {
        let good = good - self.arbiters();
        if let Some(child) = self.settings().read_child
            && good.has(child)
        {
            return Some(child);
        }
        if let Some(child) = *self.local_child.lock()
            && good.has(child)
        {
            return Some(child);
        }
        if self.settings().read_hash_mode == 0 {
            return good.first();
        }
        let wanted = spread(gfid) as usize % self.children.len();
        if good.has(wanted) { Some(wanted) } else { good.first() }
    }

    /// # Errors
    /// ENODATA: AFR's marks are nobody else's business.
    fn refuse_own_xattr(&self, name: &[u8], context: &Context) -> FopResult<()> {
        if Keys::is_own(name) && !context.is_internal() {
            return Err(FopError::new(ENODATA, "replication's own xattr"));
        }
        Ok(())
    }
}

/// Spreads gfids over children (FNV-1a).
fn spread(gfid: Gfid) -> u32 {
    gfid.0.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
