//! Rmdir: empty on all subvolumes, linkto files that lead nowhere aside; then removed from all, the name's own last.

use ladrillo_translator::error::errno::{EACCES, ENOENT, ENOTDIR, ENOTEMPTY};
use ladrillo_translator::fop::{DirEntry, Entry, File};
use ladrillo_translator::{Context, Dict, Fop, FopError, FopFuture, FopResult, Gfid, Reply, Value};

use super::Distribute;
use super::linkto::is_missing;
use super::lookup::NameLock;
use super::merge;

/// Size of one listing in bytes.
const LISTING_BYTES: u32 = 128 << 10;

impl Distribute {
    pub(super) fn rmdir<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this| Box::pin(async move { this.run_rmdir(&context, fop).await }))
    }

    async fn run_rmdir(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Rmdir { entry, flags, xdata } = fop else { return Err(super::strange_fop("an rmdir")) };
        if matches!(entry.name.as_ref(), b"." | b"..") {
            // The brick has the right errno for either.
            let child = self.first_up().ok_or_else(|| self.nobody_up())?;
            return self.ask(child, context, Fop::Rmdir { entry, flags, xdata }).await;
        }
        // What is known of the name may be out of date, and another directory may be there by now.
        let found = self.lookup_name(context, &entry, &Dict::new(), NameLock::Free).await?;
        if found.subvolume.is_some() {
            return Err(FopError::new(ENOTDIR, "rmdir of a file"));
        }
        let gfid = found.iatt.gfid;
        if flags == 0 {
            self.check_empty(context, &entry, gfid).await?;
        }
        let hashed = self.hashed(&entry).await?;
        let held = self.lock_name(&entry, hashed).await?;
        let outcome = self.rmdir_locked(context, &entry, flags, hashed).await;
        self.unlock_soon(held);
        let needs_heal = match &outcome {
            Ok(_) => false,
            Err((_, needs_heal)) => *needs_heal,
        };
        if needs_heal {
            // Some copies are gone and some are not: they are made again.
            self.table.forget(&gfid);
            let request = self.request(&Dict::new());
            if let Err(error) =
                self.lookup_directory(&self.system(), Some(&entry), None, &request, NameLock::Free).await
            {
                tracing::warn!(subvolume = %self.name, %gfid, %error, "an rmdir that failed was not undone");
            }
        }
        match outcome {
            Ok(mut reply) => {
                self.table.forget(&gfid);
                self.table.forget_name(&entry);
                merge::dress(&mut reply);
                Ok(reply)
            }
            Err((error, _)) => Err(error),
        }
    }

    /// The errors say whether copies were removed before.
    async fn rmdir_locked(
        &self,
        context: &Context,
        entry: &Entry,
        flags: u32,
        hashed: usize,
    ) -> Result<Reply, (FopError, bool)> {
        let fop = Fop::Rmdir { entry: entry.clone(), flags, xdata: Dict::new() };
        let others = (0..self.count()).filter(|child| *child != hashed);
        let replies = self.ask_each(others, context, |_| fop.clone()).await;
        let any_removed = replies.iter().any(|(_, reply)| reply.is_ok());
        for (child, reply) in replies {
            match reply {
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => {
                    tracing::debug!(child = self.child_name(child), %error, "rmdir");
                    let needs_heal = any_removed && error.errno != EACCES;
                    return Err((error, needs_heal));
                }
            }
        }
        self.ask(hashed, context, fop).await.map_err(|error| {
            let needs_heal = any_removed && error.errno != EACCES && !is_missing(&error);
            (error, needs_heal)
        })
    }

    /// # Errors
    /// ENOTEMPTY: a subvolume has something in the directory that is no stale linkto file.
    pub(super) async fn check_empty(&self, context: &Context, entry: &Entry, gfid: Gfid) -> FopResult<()> {
        let checks = (0..self.count()).map(|child| self.check_empty_on(context, entry, gfid, child));
        for outcome in futures::future::join_all(checks).await {
            outcome?;
        }
        Ok(())
    }

    async fn check_empty_on(&self, context: &Context, entry: &Entry, gfid: Gfid, child: usize) -> FopResult<()> {
        let request = Dict::new().with(self.keys.linkto.clone(), Value::Uint(256));
        let file = File { gfid, fd: None };
        let mut offset = 0;
        loop {
            let xdata = request.clone();
            let fop = Fop::Readdirp { file, offset, size_bytes: LISTING_BYTES, xdata };
            let entries = match self.ask(child, context, fop).await {
                Ok(Reply::Entries { entries, .. }) => entries,
                Ok(_) => return Err(super::strange_reply("a listing")),
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            let Some(last) = entries.last().map(|listed| listed.offset) else { return Ok(()) };
            for listed in entries.iter().filter(|listed| !matches!(listed.name.as_ref(), b"." | b"..")) {
                self.clear_linkto(gfid, listed, child, &request).await.map_err(|error| match error.errno {
                    ENOTEMPTY => {
                        FopError::new(ENOTEMPTY, format!("{} is not empty", String::from_utf8_lossy(&entry.name)))
                    }
                    _ => error,
                })?;
            }
            if last == offset {
                return Ok(());
            }
            offset = last;
        }
    }

    /// Removes a listed linkto file that leads nowhere; anything else is ENOTEMPTY.
    async fn clear_linkto(&self, parent: Gfid, listed: &DirEntry, child: usize, request: &Dict) -> FopResult<()> {
        let not_empty = || FopError::new(ENOTEMPTY, "not empty");
        let Some(iatt) = &listed.iatt else { return Err(not_empty()) };
        if !self.is_linkto(iatt, &listed.xdata) {
            return Err(not_empty());
        }
        let entry = Entry { parent, name: listed.name.clone() };
        if let Some(target) = self.linkto_target(&listed.xdata).filter(|target| *target != child) {
            match self.look(target, &self.system(), &entry, request.clone()).await {
                Ok(seen) if !self.is_linkto(&seen.iatt, &seen.xdata) => return Err(not_empty()),
                Ok(_) => {}
                Err(error) if error.errno == ENOENT => {}
                Err(error) => return Err(error),
            }
        }
        self.remove_linkto(&entry, child).await.map_err(|_| not_empty())
    }
}
