//! Xattrs: of files where they are; of directories on all subvolumes. Changes of shared ones are counted on the marked
//! subvolume while they are under way, so that one that others missed is seen and spread by the next lookup.

use bytes::Bytes;
use ladrillo_translator::error::errno::{ENODATA, ENOTCONN, EOPNOTSUPP};
use ladrillo_translator::fop::XattropKind;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Reply, Value};

use super::Distribute;
use super::fd::gfid_of;
use super::linkto::is_missing;
use super::selfheal::is_shared;

/// Orders to the rebalance of GlusterFS.
const FIX_LAYOUT: &[u8] = b"distribute.fix.layout";
const MIGRATE_DATA: &[u8] = b"trusted.distribute.migrate-data";

impl Distribute {
    /// SETXATTR, REMOVEXATTR, XATTROP and their twins on open files.
    pub(super) async fn change_xattr(&self, context: &Context, fop: Fop) -> FopResult {
        let gfid = gfid_of(&fop).ok_or_else(|| super::strange_fop("a change of xattrs"))?;
        self.refuse_own(&fop)?;
        if self.place_for(&fop, gfid).await?.is_some() {
            return self.on_file(context, fop).await;
        }
        let context = context.clone();
        self.detached(move |this| Box::pin(async move { this.change_directory(&context, fop, gfid).await })).await
    }

    fn refuse_own(&self, fop: &Fop) -> FopResult<()> {
        let keys: Vec<&[u8]> = match fop {
            Fop::Setxattr { xattrs, .. }
            | Fop::Fsetxattr { xattrs, .. }
            | Fop::Xattrop { xattrs, .. }
            | Fop::Fxattrop { xattrs, .. } => xattrs.iter().map(|(key, _)| &key[..]).collect(),
            Fop::Removexattr { name, .. } | Fop::Fremovexattr { name, .. } => vec![&name[..]],
            _ => Vec::new(),
        };
        for key in keys {
            let text = String::from_utf8_lossy(key);
            if key.starts_with(&self.keys.layout) {
                return Err(FopError::new(EOPNOTSUPP, format!("{text} is distribute's own")));
            }
            if key == FIX_LAYOUT || key == MIGRATE_DATA {
                return Err(FopError::new(EOPNOTSUPP, format!("{text}: rebalance is not supported yet")));
            }
        }
        Ok(())
    }

    async fn change_directory(&self, context: &Context, fop: Fop, gfid: Gfid) -> FopResult {
        let shared = match &fop {
            Fop::Setxattr { xattrs, .. } | Fop::Fsetxattr { xattrs, .. } => {
                xattrs.iter().any(|(key, _)| is_shared(key))
            }
            Fop::Removexattr { name, .. } | Fop::Fremovexattr { name, .. } => is_shared(name),
            _ => false,
        };
        let send = self.adapted(&fop);
        if !shared || gfid.is_root() || self.count() == 1 {
            let replies = self.ask_all(context, send).await;
            return self.any_success(replies);
        }
        let first = self.authority_of(gfid).await?;
        self.count_pending(gfid, first, -1).await?;
        let reply = match self.ask(first, context, send(first)).await {
            Ok(reply) => reply,
            Err(error) => {
                // Nothing was changed. (GlusterFS leaves the mark: its next lookup copies what is equal.)
                let _ = self.count_pending(gfid, first, 1).await;
                return Err(error);
            }
        };
        let others = (0..self.count()).filter(|child| *child != first);
        let replies = self.ask_each(others, context, send).await;
        let is_removal = matches!(fop, Fop::Removexattr { .. } | Fop::Fremovexattr { .. });
        let missed = replies.iter().any(|(_, reply)| match reply {
            Ok(_) => false,
            Err(error) => !(is_removal && error.errno == ENODATA),
        });
        if !missed {
            // A mark that stays costs a lookup some copying.
            let _ = self.count_pending(gfid, first, 1).await;
        }
        Ok(reply)
    }

    /// Counts a change under way on the marked subvolume.
    async fn count_pending(&self, gfid: Gfid, mds: usize, step: i32) -> FopResult<()> {
        let raw = Bytes::copy_from_slice(&step.to_be_bytes());
        let xattrs = Dict::new().with(self.keys.mds.clone(), Value::Ptr(raw));
        let fop = Fop::Xattrop { gfid, kind: XattropKind::AddArray, xattrs, xdata: Dict::new() };
        self.ask(mds, &self.system(), fop).await.map(|_| ())
    }

    /// GETXATTR and FGETXATTR.
    pub(super) async fn getxattr(&self, context: &Context, fop: Fop) -> FopResult {
        let gfid = gfid_of(&fop).ok_or_else(|| super::strange_fop("a getxattr"))?;
        let name = match &fop {
            Fop::Getxattr { name, .. } | Fop::Fgetxattr { name, .. } => name.clone(),
            _ => return Err(super::strange_fop("a getxattr")),
        };
        if name == self.keys.mds {
            return Err(FopError::new(EOPNOTSUPP, "the mark of distribute's metadata subvolume"));
        }
        if let Some(outcome) = self.virtual_xattr(context, gfid, &name, &fop).await {
            return outcome;
        }
        let mut reply = match self.place_for(&fop, gfid).await? {
            Some(_) => self.on_file(context, fop).await?,
            None => self.getxattr_of_directory(context, gfid, fop).await?,
        };
        if let Reply::Xattrs { xattrs, .. } = &mut reply {
            let own = |key: &Bytes| key.starts_with(&self.keys.layout);
            if !context.is_internal() && xattrs.iter().any(|(key, _)| own(key)) {
                *xattrs = xattrs.iter().filter(|(key, _)| !own(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            }
            if xattrs.is_empty() && !name.is_empty() {
                return Err(FopError::new(ENODATA, format!("no {}", String::from_utf8_lossy(&name))));
            }
        }
        Ok(reply)
    }

    /// From the marked subvolume, or while it is down from another.
    async fn getxattr_of_directory(&self, context: &Context, gfid: Gfid, fop: Fop) -> FopResult {
        let known = self.directory(gfid).await?;
        let first = known.mds.filter(|mds| self.is_up(*mds)).or_else(|| self.first_up()).unwrap_or(0);
        let mut last = self.nobody_up();
        for child in std::iter::once(first).chain((0..self.count()).filter(|child| *child != first)) {
            match self.ask(child, context, self.adapted(&fop)(child)).await {
                Err(error) if error.errno == ENOTCONN || is_missing(&error) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }
}
