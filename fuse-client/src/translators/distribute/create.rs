//! Create, mknod, symlink: on the subvolume of the name, or elsewhere with a linkto file where that one is full.

use ladrillo_translator::error::errno::{EIO, ENOENT};
use ladrillo_translator::fop::{Entry, File};
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Reply, Value};

use super::Distribute;
use super::layout::Layout;
use super::linkto::made;
use super::lookup::NameLock;
use super::merge;

/// xdata: name of the xattr of the parent that must be as given, or the operation fails.
pub(super) const PREOP_KEY: &str = "glusterfs.preop.parent.key";
/// xdata of the failure: it was not.
pub(super) const PREOP_FAILED: &str = "glusterfs.preop.check.failed";

/// How often a parent's layout may change under an operation.
pub(super) const LAYOUT_RETRIES: usize = 4;

impl Distribute {
    /// CREATE, MKNOD and PUT.
    pub(super) async fn create(&self, context: &Context, mut fop: Fop) -> FopResult {
        self.refresh_disks_soon();
        let mut wanted = None;
        if let Fop::Create { entry, .. } = &mut fop
            && let Some((plain, child)) = self.pinned(entry)
        {
            *entry = plain;
            wanted = Some(child);
        }
        let entry = entry_of(&fop)?.clone();
        for _ in 0..LAYOUT_RETRIES {
            let layout = self.layout_of(entry.parent).await?;
            let hashed = self.hashed(&entry).await?;
            let target = match wanted {
                Some(child) => child,
                None if self.is_full(hashed) => self.roomiest(hashed, &layout),
                None => hashed,
            };
            if target != hashed {
                let (context, fop) = (context.clone(), fop.clone());
                return self
                    .detached(move |this| {
                        Box::pin(async move { this.create_elsewhere(&context, fop, hashed, target).await })
                    })
                    .await;
            }
            let mut guarded = fop.clone();
            if let Some(xdata) = guarded.xdata_mut().filter(|_| matches!(fop, Fop::Create { .. })) {
                self.guard_layout(xdata, &layout, hashed);
            }
            match self.ask(hashed, context, guarded).await {
                Ok(reply) => return self.created(context, &entry, &fop, hashed, reply).await,
                Err(error) if layout_changed(&error) => {
                    let fresh = self.relearn(entry.parent).await?.layout;
                    if fresh.encode(hashed) == layout.encode(hashed) {
                        return Err(error);
                    }
                }
                Err(error) if error.errno == ENOENT => {
                    // The directory may be missing on this subvolume alone.
                    let fresh = self.relearn(entry.parent).await.map_err(|_| error.clone())?;
                    if fresh.layout == layout {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(FopError::new(EIO, format!("{}: the layout of {} keeps changing", self.name, entry.parent)))
    }

    /// Makes the file on `target`, and the linkto file that leads there where its name hashes.
    async fn create_elsewhere(&self, context: &Context, fop: Fop, hashed: usize, target: usize) -> FopResult {
        let entry = entry_of(&fop)?.clone();
        let gfid = fop.xdata().and_then(|xdata| xdata.gfid("gfid-req")).ok_or_else(|| {
            FopError::new(ladrillo_translator::error::errno::EPERM, "a creating fop without gfid-req")
        })?;
        // Under the name's lock: who meets the linkto file without the file removes it.
        let held = self.lock_name(&entry, hashed).await?;
        let outcome = match self.make_linkto(&entry, gfid, hashed, target, Dict::new()).await {
            Ok(has_linkto) => {
                let outcome = self.ask(target, context, fop.clone()).await;
                if outcome.is_err() && has_linkto {
                    // What stays behind is met by a lookup.
                    let _ = self.remove_linkto(&entry, hashed).await;
                }
                outcome
            }
            Err(error) => Err(error),
        };
        self.unlock_soon(held);
        match outcome {
            Ok(reply) => {
                let reply = self.created(context, &entry, &fop, target, reply).await?;
                self.own_linkto(hashed, made(&reply)?).await;
                Ok(reply)
            }
            Err(error) => Err(error),
        }
    }

    /// Remembers a file that was made (or, without O_EXCL, opened).
    async fn created(
        &self,
        context: &Context,
        entry: &Entry,
        fop: &Fop,
        subvolume: usize,
        mut reply: Reply,
    ) -> FopResult {
        let iatt = made(&reply)?.clone();
        let opened = match fop {
            Fop::Create { flags, fd, .. } => Some((*flags, *fd)),
            _ => None,
        };
        if let Some((flags, fd)) = opened {
            self.note_open(fd, iatt.gfid, flags, [subvolume]);
            if iatt.is_regular() && iatt.permissions() == 0o1000 && iatt.size_bytes == 0 {
                // Another client's linkto file was faster: the file itself is elsewhere.
                let request = Dict::new();
                let found = self.lookup_name(context, entry, &request, NameLock::Free).await;
                if let Ok(found) = found
                    && let Some(place) = found.subvolume.filter(|place| *place != subvolume)
                {
                    self.open_on(fd, found.iatt.gfid, flags, place).await?;
                    let file = File { gfid: iatt.gfid, fd: Some(fd) };
                    let _ = self.ask(subvolume, context, Fop::Release { file }).await;
                    self.note_open(fd, found.iatt.gfid, flags, [place]);
                    if let Reply::Entry { iatt, .. } = &mut reply {
                        **iatt = found.iatt;
                    }
                    merge::dress(&mut reply);
                    return Ok(reply);
                }
            }
        }
        self.table.learn_file(iatt.gfid, subvolume);
        self.learn_name(entry, iatt.gfid, Some(subvolume));
        merge::dress(&mut reply);
        Ok(reply)
    }

    /// Always where the name hashes: a symlink takes no room.
    pub(super) async fn symlink(&self, context: &Context, fop: Fop) -> FopResult {
        let entry = entry_of(&fop)?.clone();
        let hashed = self.hashed(&entry).await?;
        let reply = self.ask(hashed, context, fop.clone()).await?;
        self.created(context, &entry, &fop, hashed, reply).await
    }

    /// Asks the brick to fail the operation if the parent's layout is not what we take it for.
    pub(super) fn guard_layout(&self, xdata: &mut Dict, layout: &Layout, hashed: usize) {
        if let Some(raw) = layout.encode(hashed) {
            let key = &self.keys.layout;
            xdata.set(PREOP_KEY, Value::Str(key.clone()));
            xdata.set(key.clone(), Value::Ptr(raw));
        }
    }
}

/// Whether the brick found another layout on the parent than the client believes in.
pub(super) fn layout_changed(error: &FopError) -> bool {
    error.xdata.as_ref().is_some_and(|xdata| xdata.contains(PREOP_FAILED))
}

fn entry_of(fop: &Fop) -> FopResult<&Entry> {
    match fop {
        Fop::Create { entry, .. } | Fop::Mknod { entry, .. } | Fop::Put { entry, .. } | Fop::Symlink { entry, .. } => {
            Ok(entry)
        }
        _ => Err(super::strange_fop("a creating operation")),
    }
}
