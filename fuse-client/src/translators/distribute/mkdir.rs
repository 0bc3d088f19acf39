//! Mkdir: on the subvolume of the name first, which decides; then on all others; then the new directory's layout.

use bytes::Bytes;
use ladrillo_translator::error::errno::{EEXIST, EIO, ENOSPC, EPERM};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopFuture, FopResult, Reply, Value};
use std::sync::atomic::Ordering;

use super::Distribute;
use super::create::{LAYOUT_RETRIES, layout_changed};
use super::directory::merged;
use super::layout::{COMMIT_HASH_INVALID, Layout, Piece, State};
use super::linkto::made;
use super::lock::Held;
use super::merge;
use super::table::Directory;

impl Distribute {
    pub(super) fn mkdir<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this| Box::pin(async move { this.run_mkdir(&context, fop).await }))
    }

    async fn run_mkdir(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Mkdir { entry, mode, umask, xdata } = fop else { return Err(super::strange_fop("a mkdir")) };
        if xdata.gfid("gfid-req").is_none() {
            return Err(FopError::new(EPERM, "a creating fop without gfid-req"));
        }
        self.refresh_disks_soon();
        let (hashed, held, first) = self.mkdir_first(context, &entry, mode, umask, &xdata).await?;
        let generation = self.generation();
        let others = (0..self.count()).filter(|child| *child != hashed);
        let others = self
            .ask_each(others, context, |_| Fop::Mkdir { entry: entry.clone(), mode, umask, xdata: xdata.clone() })
            .await;
        self.unlock_soon(held);
        self.mkdir_finish(&entry, hashed, first, others, generation).await
    }

    /// On the subvolume of the name, under the name's lock; again if the parent's layout changed.
    async fn mkdir_first(
        &self,
        context: &Context,
        entry: &Entry,
        mode: u32,
        umask: u32,
        xdata: &Dict,
    ) -> FopResult<(usize, Held, Reply)> {
        for _ in 0..LAYOUT_RETRIES {
            let hashed = self.hashed(entry).await?;
            let layout = self.layout_of(entry.parent).await?;
            let held = self.lock_name(entry, hashed).await?;
            let mut guarded = xdata.clone();
            self.guard_layout(&mut guarded, &layout, hashed);
            if self.count() > 1 {
                guarded.set(self.keys.mds.clone(), Value::Ptr(Bytes::from_static(&[0; 4])));
            }
            let fop = Fop::Mkdir { entry: entry.clone(), mode, umask, xdata: guarded };
            let error = match self.ask(hashed, context, fop).await {
                Ok(reply) => return Ok((hashed, held, reply)),
                Err(error) => error,
            };
            self.unlock(held).await;
            if !layout_changed(&error) {
                return Err(error);
            }
            let fresh = self.relearn(entry.parent).await?.layout;
            if fresh.encode(hashed) == layout.encode(hashed) {
                return Err(FopError::new(EIO, format!("the layout of {} is not what it seems", entry.parent)));
            }
        }
        Err(FopError::new(EIO, format!("{}: the layout of {} keeps changing", self.name, entry.parent)))
    }

    async fn mkdir_finish(
        &self,
        entry: &Entry,
        hashed: usize,
        mut first: Reply,
        others: Vec<super::ChildReply>,
        generation: u64,
    ) -> FopResult {
        let gfid = made(&first)?.gfid;
        let commit_hash = match self.settings().lookup_optimize {
            true => self.commit_hash.load(Ordering::Relaxed),
            false => COMMIT_HASH_INVALID,
        };
        let mut layout = Layout { commit_hash, ..Layout::default() };
        let mut copies = vec![(hashed, made(&first)?.clone())];
        let mut add =
            |child: usize, state: State| layout.pieces.push(Piece { subvolume: child, state, ..Piece::default() });
        let room = |child: usize| if self.is_full(child) { State::Failed(ENOSPC) } else { State::Sound };
        add(hashed, room(hashed));
        for (child, reply) in others {
            match reply {
                Ok(reply) => {
                    copies.push((child, made(&reply)?.clone()));
                    add(child, room(child));
                }
                // A lookup of another client was faster to make it.
                Err(error) if error.errno == EEXIST => add(child, room(child)),
                Err(error) => {
                    tracing::warn!(child = self.child_name(child), %error, %gfid, "mkdir");
                    add(child, State::Failed(error.errno));
                }
            }
        }
        self.assign(&mut layout, gfid, Some(entry)).await;
        let layout = match self.write_layout(gfid, layout, vec![hashed]).await {
            Ok(layout) => layout,
            Err(error) => {
                // The directory is there; whoever looks it up gives it a layout.
                tracing::warn!(subvolume = %self.name, %gfid, %error, "a new directory's layout");
                self.table.forget(&gfid);
                Layout::default()
            }
        };
        if !layout.pieces.is_empty() {
            self.table.learn_directory(gfid, Directory { layout: layout.into(), mds: Some(hashed), generation });
        }
        self.learn_name(entry, gfid, None);
        if let (Reply::Entry { iatt, .. }, Some(whole)) = (&mut first, merged(Some(hashed), &copies)) {
            **iatt = whole;
        }
        merge::dress(&mut first);
        Ok(first)
    }
}
