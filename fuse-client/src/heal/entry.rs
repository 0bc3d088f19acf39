//! Heals directories: gives the others the names that the good copies have, takes away those they do not.
//!
//! Without a good copy (something was under way on several) names are merged: what one has, all get; only a name that
//! is different inodes on different bricks is left for a person.

use std::collections::HashSet;

use bytes::Bytes;
use ladrillo_translator::error::errno::{EEXIST, EIO, ENOENT, ENOTCONN, ESTALE};
use ladrillo_translator::fop::{Entry, File, Name};
use ladrillo_translator::{Context, Dict, FileType, Fop, FopError, Gfid, Iatt, Reply, Translator, Value};

use super::direction::direction;
use super::healer::{HealResult, Healed, Healer, Look, Trouble};
use crate::translators::replicate::{Changelog, Lockee, Mask, Segment, Target, successes};

/// Names of one directory remembered as done, so that the next brick's listing skips them.
const MAX_REMEMBERED: usize = 1 << 18;
/// Bytes asked of a listing at once.
const LISTING_BYTES: u32 = 128 << 10;
/// Directories that GlusterFS keeps on each brick for itself.
const PRIVATE_PREFIX: &[u8] = b".glusterfs-anonymous-inode";
/// How often a heal waits for a displaced inode to be moved before it is removed.
const PATIENCE: u32 = 3;

/// Who decides about a directory's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// These copies are good; those are to be healed.
    Sources(Mask, Mask),
    /// Nobody: what one has, all get.
    Merge,
}

/// What came of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameOutcome {
    /// All copies agree (now).
    Agreed,
    /// Not yet: an inode has to be moved by another directory's heal first.
    Later,
    /// Different inodes: split-brain.
    Mismatch,
}

impl Healer {
    pub(crate) async fn heal_entries(&self, gfid: Gfid) -> HealResult {
        let context = self.context();
        let whole = Lockee::Name { gfid, name: None };
        self.lock_out_healers(&context, &whole).await?;
        let outcome = self.heal_entries_alone(&context, gfid, &whole).await;
        self.unlock(&context, &self.heal_domain(), &whole).await;
        outcome
    }

    async fn heal_entries_alone(&self, context: &Context, gfid: Gfid, whole: &Lockee) -> HealResult {
        let domain = self.replicate.name().to_owned();
        self.lock(context, &domain, whole).await?;
        let look = self.look(context, gfid).await;
        self.unlock(context, &domain, whole).await;
        let look = look?;
        let judge = self.judge_entries(&look);
        tracing::info!(%gfid, ?judge, "healing a directory");
        let everyone = self.replicate.everyone();
        let dirty = |child: usize| look.marks.get(child).is_some_and(|marks| marks.dirty.get(Segment::Entry) != 0);
        let listed = match judge {
            // What the sinks have is taken away where wrong, what a source has is brought. Sources on which something
            // was under way may differ: all are asked.
            Judge::Sources(sources, sinks) if !sources.iter().any(dirty) => {
                sinks | sources.first().map(Mask::only).unwrap_or_default()
            }
            _ => everyone,
        };
        let mut done: HashSet<Name> = HashSet::new();
        let mut worst = NameOutcome::Agreed;
        for child in listed.iter() {
            worst = worse(worst, self.heal_listing(context, gfid, child, &mut done).await?);
        }
        match worst {
            NameOutcome::Agreed => {}
            NameOutcome::Later => {
                return Err(Trouble::NotNow(FopError::new(
                    EEXIST,
                    format!("{gfid}: a directory is to be moved first"),
                )));
            }
            NameOutcome::Mismatch => {
                return Err(Trouble::SplitBrain(format!("{gfid}: a name is different inodes on different bricks")));
            }
        }
        self.lock(context, &domain, whole).await?;
        let (source, sinks) = match judge {
            Judge::Sources(sources, sinks) => (sources.first(), sinks),
            Judge::Merge => (None, everyone),
        };
        if let Some(source) = source {
            self.restore_times(context, &look, source, sinks).await;
        }
        let outcome = self.undo_marks(context, gfid, &look, Segment::Entry, sinks, sinks).await;
        self.unlock(context, &domain, whole).await;
        outcome.map(|()| Healed::Done)
    }

    /// Who decides, by the directory's marks.
    pub(crate) fn judge_entries(&self, look: &Look) -> Judge {
        let everyone = self.replicate.everyone();
        let quorum = self.replicate.settings().quorum.needed();
        let judged = direction(&look.marks, Segment::Entry, everyone, quorum);
        // What was under way on a source (dirty) does not matter: names that sources differ in are merged among them.
        if judged.sources.is_empty() || judged.sources == everyone {
            return Judge::Merge;
        }
        let sinks = everyone - judged.sources;
        match judged.sources.first() {
            Some(source) => {
                let (twisted, sinks) = self.twist(source, sinks);
                if twisted == source {
                    Judge::Sources(judged.sources, sinks)
                } else {
                    Judge::Sources(Mask::only(twisted), sinks)
                }
            }
            None => Judge::Merge,
        }
    }

    async fn heal_listing(
        &self,
        context: &Context,
        gfid: Gfid,
        child: usize,
        done: &mut HashSet<Name>,
    ) -> HealResult<NameOutcome> {
        let mut worst = NameOutcome::Agreed;
        let mut offset = 0;
        loop {
            let names = self.list(context, child, gfid, offset).await?;
            let Some((_, last)) = names.last() else { return Ok(worst) };
            let next = *last;
            for (name, _) in names {
                let private = gfid.is_root()
                    && (name.starts_with(PRIVATE_PREFIX)
                        || name.as_ref() == b".landfill"
                        || name.as_ref() == b".glusterfs");
                if matches!(name.as_ref(), b"." | b"..") || private || done.contains(&name) {
                    continue;
                }
                let entry = Entry { parent: gfid, name };
                if !self.agree(context, &entry).await? {
                    worst = worse(worst, self.heal_name(context, &entry).await?);
                }
                if done.len() < MAX_REMEMBERED {
                    done.insert(entry.name);
                }
            }
            if next == offset {
                return Err(FopError::new(EIO, format!("{gfid}: a listing does not advance")).into());
            }
            offset = next;
        }
    }

    /// Names of `directory` on `child` after `offset`, each with where to go on.
    pub(crate) async fn list(
        &self,
        context: &Context,
        child: usize,
        directory: Gfid,
        offset: u64,
    ) -> HealResult<Vec<(Name, u64)>> {
        let file = File { gfid: directory, fd: None };
        let fop = Fop::Readdir { file, offset, size_bytes: LISTING_BYTES, xdata: Dict::new() };
        match self.replicate.send(Mask::only(child), context, |_| fop.clone()).await.into_iter().next() {
            Some((_, Ok(Reply::Entries { entries, .. }))) => {
                Ok(entries.into_iter().map(|entry| (entry.name, entry.offset)).collect())
            }
            Some((_, Err(error))) if error.errno == ENOENT && offset != 0 => Ok(Vec::new()),
            Some((_, Err(error))) => Err(error.into()),
            _ => Err(FopError::new(EIO, "a brick's answer to a readdir is of another kind").into()),
        }
    }

    /// A look without lock: whether all copies have the same under a name.
    async fn agree(&self, context: &Context, entry: &Entry) -> HealResult<bool> {
        let seen = self.look_by_name(context, entry).await?;
        Ok(seen.windows(2).all(|pair| identity(&pair[0]) == identity(&pair[1])))
    }

    /// What each child has under a name.
    async fn look_by_name(&self, context: &Context, entry: &Entry) -> HealResult<Vec<Option<Iatt>>> {
        let replicate = &self.replicate;
        if replicate.up() != replicate.everyone() {
            return Err(FopError::new(ENOTCONN, "not all bricks are up").into());
        }
        let mut xdata = Dict::new();
        replicate.request_marks(&mut xdata);
        xdata.set("gfidless-lookup", Value::Int(1));
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata };
        let replies = replicate.send(replicate.everyone(), context, |_| fop.clone()).await;
        let mut seen = Vec::with_capacity(replies.len());
        for (_, reply) in replies {
            seen.push(match reply {
                Ok(Reply::Lookup { iatt, .. }) => Some(*iatt),
                Ok(_) => return Err(FopError::new(EIO, "a brick's answer to a lookup is of another kind").into()),
                Err(error) if error.errno == ENOENT => None,
                Err(error) => return Err(error.into()),
            });
        }
        Ok(seen)
    }

    /// A look without lock: whether bricks have different inodes under a name.
    pub(crate) async fn gfids_differ(&self, context: &Context, entry: &Entry) -> HealResult<bool> {
        let seen = self.look_by_name(context, entry).await?;
        let mut gfids = seen.iter().flatten().map(|iatt| iatt.gfid);
        let first = gfids.next();
        Ok(gfids.any(|gfid| Some(gfid) != first))
    }

    /// [`Healer::heal_name`] where copies disagree.
    pub(crate) async fn heal_name_if_needed(&self, context: &Context, entry: &Entry) -> HealResult<NameOutcome> {
        if self.agree(context, entry).await? { Ok(NameOutcome::Agreed) } else { self.heal_name(context, entry).await }
    }

    /// Brings one name to agreement, under its lock.
    pub(crate) async fn heal_name(&self, context: &Context, entry: &Entry) -> HealResult<NameOutcome> {
        let domain = self.replicate.name().to_owned();
        let lockee = Lockee::Name { gfid: entry.parent, name: Some(entry.name.clone()) };
        self.lock(context, &domain, &lockee).await?;
        let outcome = self.heal_name_locked(context, entry).await;
        self.unlock(context, &domain, &lockee).await;
        outcome
    }

    async fn heal_name_locked(&self, context: &Context, entry: &Entry) -> HealResult<NameOutcome> {
        let parent = self.look(context, entry.parent).await?;
        let seen = self.look_by_name(context, entry).await?;
        if seen.windows(2).all(|pair| identity(&pair[0]) == identity(&pair[1])) {
            return Ok(NameOutcome::Agreed);
        }
        let at = |child: usize| seen.get(child).and_then(Option::as_ref);
        let holders: Mask = (0..seen.len()).filter(|child| at(*child).is_some()).collect();
        let trusted = self.trusted_for_names(&parent);
        let truth = match self.truth_of_name(&parent, trusted, &seen) {
            Some(truth) => truth,
            None => match self.chosen_name(&seen)? {
                Some(child) => Some(child),
                None => return Ok(NameOutcome::Mismatch),
            },
        };
        let truth = truth.and_then(|child| at(child).cloned());
        let Some(truth) = truth else {
            // It was removed.
            let mut worst = NameOutcome::Agreed;
            for child in holders.iter() {
                if let Some(iatt) = at(child) {
                    worst = worse(worst, self.remove(context, entry, child, iatt, trusted - holders).await?);
                }
            }
            return Ok(worst);
        };
        let by_quorum = self
            .replicate
            .settings()
            .quorum
            .met(holders.iter().filter(|child| at(*child).map(identity_of) == Some(identity_of(&truth))).collect());
        if truth.is_dir() && !by_quorum && self.lives_on(context, &truth, self.replicate.everyone() - holders).await? {
            // A rename that ended half way: a directory has one name, the one that most have. It goes back there.
            for child in holders.iter() {
                self.displace(child, truth.gfid, entry);
            }
            return Ok(NameOutcome::Later);
        }
        // Good copies that lack what another good copy has are brought it too.
        let have: Mask =
            holders.iter().filter(|child| at(*child).map(identity_of) == Some(identity_of(&truth))).collect();
        let mut worst = NameOutcome::Agreed;
        for child in (self.replicate.everyone() - have).iter() {
            if let Some(wrong) = at(child) {
                let removed = self.remove(context, entry, child, wrong, have).await?;
                worst = worse(worst, removed);
                if removed != NameOutcome::Agreed {
                    continue;
                }
            }
            worst = worse(worst, self.bring(context, entry, child, &truth, have).await?);
        }
        Ok(worst)
    }

    /// Copies of a directory that have every acknowledged change of it: those nobody accuses.
    fn trusted_for_names(&self, parent: &Look) -> Mask {
        if let Judge::Sources(sources, _) = self.judge_entries(parent) {
            return sources;
        }
        let everyone = self.replicate.everyone();
        let quorum = self.replicate.settings().quorum.needed();
        let own = |child: usize| parent.marks.get(child).and_then(|marks| marks.pending.get(child));
        let unsure = everyone.iter().filter(|child| own(*child).is_some_and(|log| log.get(Segment::Entry) != 0));
        direction(&parent.marks, Segment::Entry, everyone, quorum).sources - unsure.collect()
    }

    /// Which copy is right about a name: `Some(None)` says that it is not there, `None` that nobody can tell.
    ///
    /// A change is acknowledged when a quorum has it and accuses the rest, so any copy that nobody accuses is right:
    /// what it has beyond what was acknowledged is a change that failed or whose client died, and may stay or go. Among
    /// those a name that one has wins, as in AFR's conservative merge; where they have different inodes, or all are
    /// accused, what most copies say is right, for an acknowledged state was once on most. Without a majority quorum
    /// none of that holds, and only trusted copies that agree are believed.
    fn truth_of_name(&self, parent: &Look, trusted: Mask, seen: &[Option<Iatt>]) -> Option<Option<usize>> {
        let says = |child: usize| seen.get(child).map(identity).unwrap_or_default();
        let everyone = self.replicate.everyone();
        let alike = |child: usize, among: Mask| among.iter().filter(|other| says(*other) == says(child)).count();
        let is_dirty = |child: usize| parent.marks.get(child).is_some_and(|marks| marks.dirty.get(Segment::Entry) != 0);
        let holders: Mask = trusted.iter().filter(|child| says(*child).is_some()).collect();
        match (trusted.first(), holders.first()) {
            (Some(_), None) => return Some(None),
            (Some(_), Some(first)) if alike(first, holders) == holders.count() => return Some(Some(first)),
            _ => {}
        }
        let candidates = if holders.is_empty() { everyone } else { holders };
        let quorum = self.replicate.settings().quorum.needed();
        let has_majority = everyone.iter().any(|child| alike(child, everyone) >= quorum);
        if quorum * 2 <= everyone.count() || (trusted.is_empty() && !has_majority) {
            // Copies may have gone separate ways, each with what was acknowledged: only agreement is believed.
            let holders: Mask = candidates.iter().filter(|child| says(*child).is_some()).collect();
            let first = holders.first()?;
            return (alike(first, holders) == holders.count()).then_some(Some(first));
        }
        // Present before absent, clean before dirty, then the first: all healers choose alike.
        let best = candidates.iter().max_by_key(|child| {
            (alike(*child, everyone), says(*child).is_some(), !is_dirty(*child), std::cmp::Reverse(*child))
        })?;
        Some(says(best).is_some().then_some(best))
    }

    /// Whether one of `children` has the inode (under another name than the one it is looked for under).
    async fn lives_on(&self, context: &Context, iatt: &Iatt, children: Mask) -> HealResult<bool> {
        for child in children.iter() {
            if self.exists_on(context, child, iatt.gfid).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a name from `child`. An inode that a source still has elsewhere is about to be moved or linked there by
    /// that directory's heal: it is left alone for a few rounds.
    async fn remove(
        &self,
        context: &Context,
        entry: &Entry,
        child: usize,
        iatt: &Iatt,
        sources: Mask,
    ) -> HealResult<NameOutcome> {
        let last_link = iatt.is_dir() || iatt.nlink <= 1;
        if last_link
            && let Some(source) = sources.first()
            && source != child
        {
            let fop = Fop::Lookup { gfid: iatt.gfid, entry: None, xdata: Dict::new() };
            let lives = successes(&self.replicate.send(Mask::only(source), context, |_| fop.clone()).await);
            if !lives.is_empty() && self.displace(child, iatt.gfid, entry) <= PATIENCE {
                return Ok(NameOutcome::Later);
            }
        }
        let fop = if iatt.is_dir() {
            // Flag 1: with all that is in it.
            Fop::Rmdir { entry: entry.clone(), flags: 1, xdata: Dict::new() }
        } else {
            Fop::Unlink { entry: entry.clone(), flags: 0, xdata: Dict::new() }
        };
        tracing::warn!(parent = %entry.parent, name = %show(&entry.name), gfid = %iatt.gfid, child, "removing what the good copies do not have");
        match self.replicate.send(Mask::only(child), context, |_| fop.clone()).await.into_iter().next() {
            Some((_, Err(error))) if error.errno != ENOENT => Err(error.into()),
            _ => {
                self.displaced.lock().remove(&(child, iatt.gfid));
                Ok(NameOutcome::Agreed)
            }
        }
    }

    /// Gives `child` the inode `truth` under a name, as `have` have it.
    async fn bring(
        &self,
        context: &Context,
        entry: &Entry,
        child: usize,
        truth: &Iatt,
        have: Mask,
    ) -> HealResult<NameOutcome> {
        let replicate = &self.replicate;
        let gfid = truth.gfid;
        let only = Mask::only(child);
        let Some(kind) = truth.file_type() else {
            return Err(FopError::new(EIO, format!("{gfid} is of no kind")).into());
        };
        let look = Fop::Lookup { gfid, entry: None, xdata: Dict::new() };
        let there = match replicate.send(only, context, |_| look.clone()).await.into_iter().next() {
            Some((_, Ok(_))) => true,
            Some((_, Err(error))) if error.errno == ENOENT || error.errno == ESTALE => false,
            Some((_, Err(error))) => return Err(error.into()),
            None => return Err(FopError::new(ENOTCONN, "no such child").into()),
        };
        let fop = match (there, kind) {
            (true, FileType::Directory) => {
                let from = self.displaced.lock().get(&(child, gfid)).map(|(from, _)| from.clone());
                let Some(from) = from else { return Ok(NameOutcome::Later) };
                Fop::Rename { from, to: entry.clone(), xdata: Dict::new() }
            }
            (true, _) => Fop::Link { gfid, entry: entry.clone(), xdata: Dict::new() },
            (false, _) => {
                self.accuse_newcomer(context, truth, child).await?;
                self.birth(context, entry, truth, kind, have).await?
            }
        };
        tracing::info!(parent = %entry.parent, name = %show(&entry.name), %gfid, child, "bringing what the good copies have");
        match replicate.send(only, context, |_| fop.clone()).await.into_iter().next() {
            Some((_, Ok(_))) => {
                self.displaced.lock().remove(&(child, gfid));
                if there && let Some(source) = have.first() {
                    // A rename or a link changed its ctime where it was seen.
                    self.copy_mdata(context, gfid, source, only).await;
                }
                Ok(NameOutcome::Agreed)
            }
            Some((_, Err(error))) if error.errno == ENOENT && there => {
                self.displaced.lock().remove(&(child, gfid));
                Ok(NameOutcome::Later)
            }
            Some((_, Err(error))) => Err(error.into()),
            None => Err(FopError::new(ENOTCONN, "no such child").into()),
        }
    }

    /// Before `child` gets an empty copy: says on all copies of the inode, under whatever name, what it lacks, so that
    /// nobody takes it for good.
    async fn accuse_newcomer(&self, context: &Context, truth: &Iatt, child: usize) -> HealResult<()> {
        let replicate = &self.replicate;
        let mut holders = Mask::NONE;
        for other in (replicate.everyone() - Mask::only(child)).iter() {
            if self.exists_on(context, other, truth.gfid).await? {
                holders.add(other);
            }
        }
        let log = Changelog::of_new_inode(truth.file_type(), replicate.settings().granular);
        let xattrs = replicate.settings().keys.xattrop(Mask::only(child), log, None);
        let replies = replicate.xattrop(context, holders, Target::inode(truth.gfid), xattrs, Dict::new()).await;
        match replies.into_iter().find_map(|(_, reply)| reply.err()) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// The fop that makes a copy of `truth`, empty where it has contents.
    async fn birth(
        &self,
        context: &Context,
        entry: &Entry,
        truth: &Iatt,
        kind: FileType,
        have: Mask,
    ) -> HealResult<Fop> {
        let xdata = Dict::new().with("gfid-req", Value::Gfid(truth.gfid));
        let entry = entry.clone();
        Ok(match kind {
            FileType::Directory => Fop::Mkdir { entry, mode: truth.permissions(), umask: 0, xdata },
            FileType::Symlink => {
                let read = Fop::Readlink { gfid: truth.gfid, size_bytes: 4096, xdata: Dict::new() };
                let from = have.first().map(Mask::only).unwrap_or_default();
                let target = match self.replicate.send(from, context, |_| read.clone()).await.into_iter().next() {
                    Some((_, Ok(Reply::Readlink { target, .. }))) => target,
                    Some((_, Err(error))) => return Err(error.into()),
                    _ => return Err(FopError::new(EIO, "a brick's answer to a readlink is of another kind").into()),
                };
                Fop::Symlink { entry, target, umask: 0, xdata }
            }
            _ => {
                let xdata = xdata.with("glusterfs-internal-fop", Value::Int(1));
                Fop::Mknod { entry, mode: truth.mode, rdev: truth.rdev, umask: 0, xdata }
            }
        })
    }
}

/// What makes two entries the same.
fn identity(seen: &Option<Iatt>) -> Option<(Gfid, Option<FileType>)> {
    seen.as_ref().map(identity_of)
}

fn identity_of(iatt: &Iatt) -> (Gfid, Option<FileType>) {
    (iatt.gfid, iatt.file_type())
}

fn worse(one: NameOutcome, other: NameOutcome) -> NameOutcome {
    match (one, other) {
        (NameOutcome::Mismatch, _) | (_, NameOutcome::Mismatch) => NameOutcome::Mismatch,
        (NameOutcome::Later, _) | (_, NameOutcome::Later) => NameOutcome::Later,
        _ => NameOutcome::Agreed,
    }
}

fn show(name: &Bytes) -> String {
    String::from_utf8_lossy(name).into_owned()
}
