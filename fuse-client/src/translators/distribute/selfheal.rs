//! Mending directories: copies that are missing are made, attributes and xattrs brought in line, layouts with holes or
//! overlaps assigned anew. Under the locks GlusterFS takes for it, and after another look under them: someone else may
//! have been faster.

use bytes::Bytes;
use ladrillo_translator::error::errno::{EEXIST, ENOENT};
use ladrillo_translator::fop::{Entry, LockType};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Dict, Fop, FopError, FopResult, Gfid, Reply, Value};

use super::Distribute;
use super::directory::{View, settle};
use super::layout::{COMMIT_HASH_INVALID, DiskPiece, HashType, Layout, State};
use super::linkto::internal;
use super::lock::{LAYOUT_DOMAIN, Wanted};

/// xdata of SETXATTR: what is set replaces all xattrs of these kinds.
const SYNC_XATTRS: &str = "sync_backend_xattrs";

/// Whether an xattr of a directory is to be the same on all subvolumes (GlusterFS's list, common-utils.c).
pub(super) fn is_shared(key: &[u8]) -> bool {
    key.starts_with(b"user.")
        || matches!(
            key,
            b"system.posix_acl_access"
                | b"system.posix_acl_default"
                | b"trusted.glusterfs.quota.limit-set"
                | b"trusted.glusterfs.quota.limit-objects"
                | b"security.selinux"
        )
}

impl Distribute {
    /// [`Distribute::heal`] to its end whatever happens to the caller; where it fails the directory is as it was seen.
    ///
    /// # Errors
    /// ENOENT: it was removed meanwhile.
    pub(super) async fn heal_soon(&self, name: Option<Entry>, view: View) -> FopResult<View> {
        let seen = view.clone();
        match self.detached(move |this| Box::pin(async move { this.heal(name.as_ref(), view).await })).await {
            Ok(view) => Ok(view),
            Err(error) if error.errno == ENOENT => Err(error),
            Err(error) => {
                tracing::warn!(subvolume = %self.name, gfid = %seen.gfid, %error, "a directory could not be mended");
                Ok(seen)
            }
        }
    }

    /// Mends a directory; answers how it is now. Not while a subvolume is down: what it has is not known.
    async fn heal(&self, name: Option<&Entry>, view: View) -> FopResult<View> {
        let anomalies = view.layout.anomalies();
        if anomalies.down > 0 || anomalies.misc > 0 {
            tracing::debug!(gfid = %view.gfid, ?anomalies, "not mended");
            return Ok(view);
        }
        let mut wanted = view.layout.clone();
        if anomalies.is_broken() && wanted.hash_type == HashType::Dm {
            wanted.commit_hash = COMMIT_HASH_INVALID;
            self.assign(&mut wanted, view.gfid, name).await;
        }
        let mut view = view;
        let mut fresh = Vec::new();
        if let Some(name) = name
            && view.layout.pieces.iter().any(|piece| piece.state.is_missing())
        {
            (view, fresh) = self.make_missing(name, view).await?;
            for child in &fresh {
                if let Some(piece) = wanted.piece_mut(*child) {
                    piece.state = State::Wanting;
                }
            }
        }
        self.heal_attributes(&view, &fresh).await;
        if self.count() > 1 && !view.gfid.is_root() {
            self.heal_marks(name, &mut view).await;
        }
        if anomalies.is_broken() || anomalies.missing > 0 {
            view.layout = self.write_layout(view.gfid, wanted, (0..self.count()).collect()).await?;
        }
        Ok(view)
    }

    /// Makes the copies that are missing; answers the directory as seen under the lock, and who got one.
    async fn make_missing(&self, name: &Entry, view: View) -> FopResult<(View, Vec<usize>)> {
        let hashed = self.hashed(name).await?;
        let held = self.lock_name(name, hashed).await?;
        let outcome = self.make_missing_locked(name, &view).await;
        self.unlock_soon(held);
        outcome
    }

    async fn make_missing_locked(&self, name: &Entry, before: &View) -> FopResult<(View, Vec<usize>)> {
        let mut request = self.request(&Dict::new());
        request.set("list-xattr", Value::Int(1));
        let view = self.view(Some(name), before.gfid, &request).await?;
        if view.gfid != before.gfid {
            return Err(FopError::new(ENOENT, format!("{} is another directory now", view.gfid)));
        }
        let Some(source) = view.authority() else {
            return Err(FopError::new(ENOENT, "the directory was removed"));
        };
        let mut xdata = internal().with("gfid-req", Value::Gfid(view.gfid));
        for (key, value) in source.xdata.iter().filter(|(key, _)| is_shared(key)) {
            xdata.set(key.clone(), value.clone());
        }
        let missing: Vec<usize> =
            view.layout.pieces.iter().filter(|piece| piece.state.is_missing()).map(|piece| piece.subvolume).collect();
        let mode = source.iatt.mode;
        let fop = Fop::Mkdir { entry: name.clone(), mode, umask: 0, xdata };
        let replies = self.ask_each(missing, &self.system(), |_| fop.clone()).await;
        let mut made = Vec::new();
        for (child, reply) in replies {
            match reply {
                Ok(_) => made.push(child),
                Err(error) if error.errno == EEXIST => made.push(child),
                Err(error) => {
                    tracing::warn!(child = self.child_name(child), %error, "a missing directory could not be made");
                }
            }
        }
        Ok((view, made))
    }

    /// Owner, group and permissions as the authority has them; of fresh copies the times, too.
    async fn heal_attributes(&self, view: &View, fresh: &[usize]) {
        let Some(authority) = view.authority() else { return };
        let mut children = view.differing();
        children.extend(fresh);
        if children.is_empty() {
            return;
        }
        let basic = SetattrValid::MODE | SetattrValid::UID | SetattrValid::GID;
        let replies = self
            .ask_each(children, &self.system(), |child| {
                let times = SetattrValid::ATIME | SetattrValid::MTIME;
                let valid = SetattrValid(if fresh.contains(&child) { basic | times } else { basic });
                let iatt = Box::new(authority.iatt.clone());
                Fop::Setattr { gfid: view.gfid, iatt, valid, xdata: internal() }
            })
            .await;
        for (child, reply) in replies {
            if let Err(error) = reply {
                tracing::warn!(child = self.child_name(child), %error, gfid = %view.gfid, "attributes not mended");
            }
        }
    }

    /// The mark of the authority where there is none, and the xattrs that others missed.
    async fn heal_marks(&self, name: Option<&Entry>, view: &mut View) {
        let outcome = match view.mds {
            None => {
                // Where its name hashes: without one, a lookup by name does it.
                let Some(name) = name else { return };
                let Ok(child) = self.hashed(name).await else { return };
                let outcome = self.set_mark(view.gfid, child).await;
                if outcome.is_ok() {
                    view.mds = Some(child);
                }
                outcome
            }
            Some(mds) if view.mds_pending => self.spread_xattrs(view.gfid, mds).await,
            Some(_) => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::warn!(subvolume = %self.name, gfid = %view.gfid, %error, "marks not mended");
        }
    }

    /// Marks a subvolume's copy as the authority, with nothing pending.
    async fn set_mark(&self, gfid: Gfid, child: usize) -> FopResult<()> {
        let xattrs = Dict::new().with(self.keys.mds.clone(), Value::Ptr(Bytes::from_static(&[0; 4])));
        let fop = Fop::Setxattr { gfid, xattrs, flags: 0, xdata: internal() };
        self.ask(child, &self.system(), fop).await.map(|_| ())
    }

    /// Gives all others the xattrs that `mds` has, then takes its mark back.
    async fn spread_xattrs(&self, gfid: Gfid, mds: usize) -> FopResult<()> {
        let list = Fop::Getxattr { gfid, name: Bytes::new(), xdata: Dict::new() };
        let Reply::Xattrs { xattrs, .. } = self.ask(mds, &self.system(), list).await? else {
            return Err(super::strange_reply("a list of xattrs"));
        };
        let shared: Dict =
            xattrs.iter().filter(|(key, _)| is_shared(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let xdata = internal().with(SYNC_XATTRS, Value::Int(1));
        let fop = Fop::Setxattr { gfid, xattrs: shared, flags: 0, xdata };
        let others = (0..self.count()).filter(|child| *child != mds);
        for (_, reply) in self.ask_each(others, &self.system(), |_| fop.clone()).await {
            reply?;
        }
        self.set_mark(gfid, mds).await
    }

    /// Writes a layout under the lock of `lock_on`, unless what is on disk by then is sound; answers what is on disk
    /// afterwards.
    pub(super) async fn write_layout(&self, gfid: Gfid, wanted: Layout, lock_on: Vec<usize>) -> FopResult<Layout> {
        let locks = lock_on.into_iter().map(|subvolume| Wanted { subvolume, gfid, optional: false }).collect();
        let held = self.lock_inodes(LAYOUT_DOMAIN, LockType::Write, locks).await?;
        let outcome = self.write_layout_locked(gfid, wanted).await;
        self.unlock_soon(held);
        outcome
    }

    async fn write_layout_locked(&self, gfid: Gfid, wanted: Layout) -> FopResult<Layout> {
        let request = Dict::new().with(self.keys.layout.clone(), Value::Uint(16));
        let on_disk = self.view(None, gfid, &request).await?.layout;
        let anomalies = on_disk.anomalies();
        let mut layout = match (anomalies.is_broken(), wanted.missing_directories() > 0) {
            (true, _) => wanted,
            // Sound, but for a subvolume that is new to it: that one gets an empty range.
            (false, true) => on_disk,
            (false, false) => return Ok(on_disk),
        };
        let internal = internal().with("dht-get-iatt-in-xattr", Value::Int(1));
        let empty = DiskPiece { commit_hash: 0, hash_type: HashType::Dm, start: 0, stop: 0 }.encode();
        let due: Vec<(usize, Bytes)> = layout
            .pieces
            .iter()
            .filter(|piece| matches!(piece.state, State::Wanting | State::Sound) || piece.state == FULL)
            .filter_map(|piece| match (piece.takes_part(), piece.state) {
                (false, _) => Some((piece.subvolume, empty.clone())),
                (true, State::Wanting) => Some((piece.subvolume, layout.encode(piece.subvolume)?)),
                (true, _) => None,
            })
            .collect();
        let replies = self
            .ask_each(due.iter().map(|(child, _)| *child), &self.system(), |child| {
                let raw = due.iter().find(|(due, _)| *due == child).map(|(_, raw)| raw.clone()).unwrap_or_default();
                let xattrs = Dict::new().with(self.keys.layout.clone(), Value::Ptr(raw));
                Fop::Setxattr { gfid, xattrs, flags: 0, xdata: internal.clone() }
            })
            .await;
        for (child, reply) in replies {
            if let Err(error) = reply {
                tracing::error!(child = self.child_name(child), %error, %gfid, "a layout could not be written");
                if let Some(piece) = layout.piece_mut(child) {
                    piece.state = State::Failed(error.errno);
                    (piece.start, piece.stop) = (0, 0);
                }
            }
        }
        settle(&mut layout);
        Ok(layout)
    }
}

/// Without room for new files: it gets an empty range.
const FULL: State = State::Failed(ladrillo_translator::error::errno::ENOSPC);
