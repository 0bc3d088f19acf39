//! Rename of files: both names guarded, the data moved on its subvolume, linkto files brought in line.
//!
//! What can be where: the source's data (cached) and its name's subvolume (hashed), the same of the destination. The data
//! never moves between subvolumes: a new name that hashes elsewhere gets a linkto file. The new name appears before the
//! old one goes, so that the file is always to be found (GlusterFS 10.3's order, dht-rename.c).

use ladrillo_translator::error::errno::{EINVAL, EISDIR, ENOENT, ENOTDIR};
use ladrillo_translator::fop::{Entry, LockType, PrePost};
use ladrillo_translator::{Context, Dict, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Reply, Value};

use super::Distribute;
use super::linkto::{DONT_ACCOUNT, internal, is_missing, replacing};
use super::lock::{Held, MIGRATE_DOMAIN, Wanted};
use super::lookup::{Found, NameLock};
use super::merge;

/// A rename with all that is known of it.
pub(super) struct Renaming {
    pub context: Context,
    pub from: Entry,
    pub to: Entry,
    pub xdata: Dict,
    pub from_hashed: usize,
    pub to_hashed: usize,
    pub source: Found,
    pub target: Option<Found>,
}

impl Distribute {
    pub(super) fn rename<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this| Box::pin(async move { this.run_rename(context, fop).await }))
    }

    async fn run_rename(&self, context: Context, fop: Fop) -> FopResult {
        let Fop::Rename { from, to, xdata } = fop else { return Err(super::strange_fop("a rename")) };
        if [&from, &to].iter().any(|entry| matches!(entry.name.as_ref(), b"." | b"..")) {
            let child = self.first_up().ok_or_else(|| self.nobody_up())?;
            return self.ask(child, &context, Fop::Rename { from, to, xdata }).await;
        }
        let (from_hashed, to_hashed) = (self.hashed(&from).await?, self.hashed(&to).await?);
        let source = self.lookup_name(&context, &from, &Dict::new(), NameLock::Free).await?;
        let target = self.target(&context, &to, NameLock::Free).await?;
        let renaming = Renaming { context, from, to, xdata, from_hashed, to_hashed, source, target };
        if renaming.source.subvolume.is_none() && self.is_below(&renaming) {
            return Err(FopError::new(EINVAL, "rename of a directory into itself"));
        }
        renaming.check_kinds()?;
        if renaming.is_nothing() {
            return Ok(renaming.nothing());
        }
        match renaming.source.subvolume {
            None => self.rename_directory(renaming).await,
            Some(cached) => self.rename_file(renaming, cached).await,
        }
    }

    async fn target(&self, context: &Context, to: &Entry, lock: NameLock) -> FopResult<Option<Found>> {
        match self.lookup_name(context, to, &Dict::new(), lock).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn rename_file(&self, mut renaming: Renaming, cached: usize) -> FopResult {
        let held = self.lock_rename(&renaming, cached).await?;
        let outcome = self.rename_file_locked(&mut renaming, cached).await;
        self.unlock_soon(held);
        let mut reply = outcome?;
        let gfid = renaming.source.iatt.gfid;
        self.table.forget_name(&renaming.from);
        self.learn_name(&renaming.to, gfid, Some(cached));
        self.table.learn_file(gfid, cached);
        merge::dress(&mut reply);
        Ok(reply)
    }

    async fn lock_rename(&self, renaming: &Renaming, cached: usize) -> FopResult<Held> {
        // Rebalance takes these on files it moves.
        let mut files = vec![Wanted { subvolume: cached, gfid: renaming.source.iatt.gfid, optional: false }];
        if let Some(Found { subvolume: Some(subvolume), iatt, .. }) = &renaming.target {
            files.push(Wanted { subvolume: *subvolume, gfid: iatt.gfid, optional: true });
        }
        let held = self.lock_inodes(MIGRATE_DOMAIN, LockType::Write, files).await?;
        let from = (&renaming.from, renaming.from_hashed);
        match self.lock_names(from, (&renaming.to, renaming.to_hashed)).await {
            Ok(names) => Ok(held.and(names)),
            Err(error) => {
                self.unlock(held).await;
                Err(error)
            }
        }
    }

    async fn rename_file_locked(&self, renaming: &mut Renaming, cached: usize) -> FopResult {
        // Both may have changed until the locks were there.
        let request = self.request(&Dict::new());
        let source = self.look(cached, &self.system(), &renaming.from, request).await?;
        if self.is_linkto(&source.iatt, &source.xdata) || source.iatt.gfid != renaming.source.iatt.gfid {
            return Err(FopError::new(ENOENT, "the file was moved or replaced meanwhile"));
        }
        self.table.forget_name(&renaming.to);
        renaming.target = self.target(&self.system(), &renaming.to, NameLock::Held).await?;
        renaming.check_kinds()?;
        if renaming.is_nothing() {
            return Ok(renaming.nothing());
        }
        let over = renaming.target.as_ref().and_then(|found| found.subvolume);
        match over == Some(cached) {
            true => self.rename_over_neighbour(renaming, cached).await,
            false => self.rename_elsewhere(renaming, cached, over).await,
        }
    }

    /// The destination's data is where the source's is: that subvolume renames.
    async fn rename_over_neighbour(&self, renaming: &Renaming, cached: usize) -> FopResult {
        let Renaming { context, from, to, to_hashed, from_hashed, xdata, .. } = renaming;
        let gfid = renaming.source.iatt.gfid;
        if *to_hashed != cached {
            // It leads to what is renamed over, and has its gfid.
            let xdata = internal().with(DONT_ACCOUNT, Value::Str("yes".into()));
            let fop = Fop::Unlink { entry: to.clone(), flags: 0, xdata };
            match self.ask(*to_hashed, &self.system(), fop).await {
                Ok(_) => {}
                Err(error) if error.errno == ENOENT => {}
                Err(error) => return Err(error),
            }
        }
        let fop = Fop::Rename { from: from.clone(), to: to.clone(), xdata: xdata.clone() };
        let reply = match self.ask(cached, context, fop).await {
            Ok(reply) => reply,
            Err(error) => {
                // The destination is as it was; the linkto file comes back with the next lookup.
                return Err(error);
            }
        };
        if *to_hashed != cached {
            match self.make_linkto(to, gfid, *to_hashed, cached, Dict::new()).await {
                Ok(_) => self.own_linkto(*to_hashed, &renaming.source.iatt).await,
                Err(error) => tracing::warn!(%gfid, %error, "no linkto file after a rename: a lookup makes it"),
            }
        }
        if *from_hashed != cached {
            self.unlink_after(from, *from_hashed, true).await;
        }
        Ok(reply)
    }

    /// The destination's data, if any, is elsewhere.
    async fn rename_elsewhere(&self, renaming: &Renaming, cached: usize, over: Option<usize>) -> FopResult {
        let Renaming { context, from, to, to_hashed, from_hashed, xdata, .. } = renaming;
        let gfid = renaming.source.iatt.gfid;
        let rename = Fop::Rename { from: from.clone(), to: to.clone(), xdata: xdata.clone() };
        let mut reply;
        if cached == *to_hashed {
            // The data itself goes under its new name, over a linkto file if there is one.
            reply = self.ask(cached, context, rename).await?;
        } else {
            // A linkto file of the old name on the new name's subvolume, to be renamed there; a second name of the data.
            // What is renamed over stands where the new name hashes: unless it goes, it hides the new.
            let must_replace = over == Some(*to_hashed);
            let mut has_linkto = false;
            if to_hashed != from_hashed {
                has_linkto = self.make_linkto(from, gfid, *to_hashed, cached, replacing()).await?;
            } else if must_replace {
                // It may be missing. Whether it is there shows when it is renamed.
                let _ = self.make_linkto(from, gfid, *to_hashed, cached, Dict::new()).await;
            }
            let link = Fop::Link { gfid, entry: to.clone(), xdata: replacing() };
            let linked = match self.ask(cached, context, link).await {
                Ok(linked) => linked,
                Err(error) => {
                    if has_linkto {
                        let _ = self.remove_linkto(from, *to_hashed).await;
                    }
                    return Err(error);
                }
            };
            // From here on the new name is there: what fails below leaves a linkto file wrong or missing, which a lookup
            // mends.
            if let Err(error) = self.ask(*to_hashed, &self.system(), rename).await {
                if must_replace {
                    self.unlink_after(to, cached, false).await;
                    if to_hashed != from_hashed {
                        // What stays behind is met by a lookup.
                        let _ = self.remove_linkto(from, *to_hashed).await;
                    }
                    return Err(error);
                }
                tracing::info!(%gfid, %error, "a linkto file could not be renamed");
            }
            self.own_linkto(*to_hashed, &renaming.source.iatt).await;
            reply = renamed(linked)?;
        }
        if cached != *to_hashed {
            // The data's old name.
            self.unlink_after(from, cached, false).await;
            if let Reply::Rename { iatt, .. } = &mut reply {
                iatt.nlink = iatt.nlink.saturating_sub(1).max(1);
            }
        }
        if from_hashed != to_hashed && *from_hashed != cached {
            self.unlink_after(from, *from_hashed, true).await;
        }
        if let Some(over) = over.filter(|over| over != to_hashed && *over != cached) {
            self.unlink_after(to, over, false).await;
        }
        Ok(reply)
    }

    /// Removes a name that a rename has left behind. Best effort: the rename has succeeded.
    async fn unlink_after(&self, entry: &Entry, child: usize, is_linkto: bool) {
        let mut xdata = internal();
        if is_linkto {
            xdata.set(DONT_ACCOUNT, Value::Str("yes".into()));
        }
        let fop = Fop::Unlink { entry: entry.clone(), flags: 0, xdata };
        match self.ask(child, &self.system(), fop).await {
            Ok(_) => {}
            Err(error) if error.errno == ENOENT && is_linkto => {}
            Err(error) => {
                tracing::warn!(child = self.child_name(child), %error, "a name was left behind by a rename");
            }
        }
    }
}

impl Renaming {
    fn check_kinds(&self) -> FopResult<()> {
        match (self.source.subvolume, self.target.as_ref().map(|found| found.subvolume)) {
            (Some(_), Some(None)) => Err(FopError::new(EISDIR, "rename of a file over a directory")),
            (None, Some(Some(_))) => Err(FopError::new(ENOTDIR, "rename of a directory over a file")),
            _ => Ok(()),
        }
    }

    /// Both names are of one inode: POSIX wants nothing done.
    fn is_nothing(&self) -> bool {
        let same = |found: &Found| found.iatt.gfid == self.source.iatt.gfid;
        self.target.as_ref().is_some_and(same)
    }

    fn nothing(&self) -> Reply {
        let attrs = |iatt: &Iatt| Box::new(PrePost { pre: iatt.clone(), post: iatt.clone() });
        let to_parent = self.target.as_ref().map_or(&self.source.parent, |found| &found.parent);
        let mut reply = Reply::Rename {
            iatt: Box::new(self.source.iatt.clone()),
            from_parent: attrs(&self.source.parent),
            to_parent: attrs(to_parent),
            xdata: Dict::new(),
        };
        merge::dress(&mut reply);
        reply
    }

    /// The directories' gfids, for whoever logs.
    pub(super) fn gfid(&self) -> Gfid {
        self.source.iatt.gfid
    }
}

/// A rename's answer from that of the link that stood for it.
fn renamed(linked: Reply) -> FopResult {
    match linked {
        Reply::Entry { iatt, parent, xdata } => {
            Ok(Reply::Rename { iatt, from_parent: parent.clone(), to_parent: parent, xdata })
        }
        _ => Err(super::strange_reply("a link")),
    }
}
