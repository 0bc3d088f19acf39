//! Lookup: first where the name hashes, then where the answer leads.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ladrillo_translator::error::errno::{EIO, EISDIR, ENODATA, ENOENT, ENOTCONN, ENOTDIR};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Iatt, Reply};

use super::Distribute;
use super::linkto::is_missing;
use super::merge::{self, Seen};
use super::settings::LookElsewhere;
use super::table::{Hint, Known};

/// What a name or gfid led to.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub iatt: Iatt,
    pub parent: Iatt,
    pub xdata: Dict,
    /// Subvolume of a file; `None`: a directory.
    pub subvolume: Option<usize>,
}

impl Found {
    pub fn file(seen: Seen) -> Found {
        Found { iatt: seen.iatt, parent: seen.parent, xdata: seen.xdata, subvolume: Some(seen.subvolume) }
    }
}

/// Who holds the lock on the name that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameLock {
    /// Nobody of us: a linkto file that is missing is made under a lock.
    Free,
    /// The caller.
    Held,
}

impl Distribute {
    pub(super) async fn lookup(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Lookup { gfid, entry, xdata } = fop else { return Err(super::strange_fop("a lookup")) };
        let found = match entry {
            Some(entry) if !entry.name.is_empty() => {
                let entry = self.pinned(&entry).map_or(entry, |(plain, _)| plain);
                let mut found = self.lookup_name(context, &entry, &xdata, NameLock::Free).await?;
                if self.settings().unhashed_sticky_bit
                    && found.subvolume.is_some()
                    && found.iatt.nlink == 1
                    && found.subvolume != self.hashed(&entry).await.ok()
                {
                    found.iatt.mode |= 0o1000;
                }
                if !gfid.is_null() && found.iatt.gfid != gfid {
                    let message = format!("{}: {gfid} is now {}", self.name, found.iatt.gfid);
                    return Err(FopError::new(ladrillo_translator::error::errno::ESTALE, message));
                }
                found
            }
            _ => self.lookup_inode(context, gfid, &xdata).await?,
        };
        let Found { iatt, parent, xdata: mut answered, .. } = found;
        self.hide_own(&mut answered, &xdata);
        let mut reply = Reply::Lookup { iatt: Box::new(iatt), parent: Box::new(parent), xdata: answered };
        merge::dress(&mut reply);
        Ok(reply)
    }

    /// By name; remembers what it led to.
    pub(super) async fn lookup_name(
        &self,
        context: &Context,
        entry: &Entry,
        xdata: &Dict,
        lock: NameLock,
    ) -> FopResult<Found> {
        match entry.name.as_ref() {
            b"." => return self.lookup_inode(context, entry.parent, xdata).await,
            b".." => {
                let child = self.first_up().ok_or_else(|| self.nobody_up())?;
                let seen = self.look(child, context, entry, Dict::new()).await?;
                return self.lookup_inode(context, seen.iatt.gfid, xdata).await;
            }
            _ => {}
        }
        let request = self.request(xdata);
        let outcome = self.find_name(context, entry, &request, lock).await;
        match &outcome {
            Ok(found) => {
                self.learn_name(entry, found.iatt.gfid, found.subvolume);
                if let Some(subvolume) = found.subvolume {
                    self.table.learn_file(found.iatt.gfid, subvolume);
                }
            }
            Err(error) if error.errno == ENOENT => self.table.forget_name(entry),
            Err(_) => {}
        }
        outcome
    }

    async fn find_name(&self, context: &Context, entry: &Entry, request: &Dict, lock: NameLock) -> FopResult<Found> {
        let layout = self.layout_under(entry.parent, lock).await?;
        let hashed = layout.search(self.settings().hasher.hash(&entry.name));
        match self.table.hint(entry) {
            Some(Hint { gfid, subvolume: Some(cached), .. }) if Some(cached) != hashed => {
                // Where it was: saves the way over the linkto file.
                if let Ok(seen) = self.look(cached, context, entry, request.clone()).await
                    && seen.iatt.gfid == gfid
                    && !seen.iatt.is_dir()
                    && !self.is_linkto(&seen.iatt, &seen.xdata)
                {
                    return Ok(Found::file(seen));
                }
            }
            Some(Hint { gfid, subvolume: None, .. }) => {
                if let Some(found) = self.lookup_directory(context, Some(entry), Some(gfid), request, lock).await? {
                    return Ok(found);
                }
            }
            _ => {}
        }
        let Some(hashed) = hashed else {
            // A hole: a subvolume is down, or the layout is broken. It may be a directory all the same.
            return match self.lookup_directory(context, Some(entry), None, request, lock).await? {
                Some(found) => Ok(found),
                None => self.lookup_everywhere(context, entry, None, request, lock).await,
            };
        };
        let seen = match self.look(hashed, context, entry, request.clone()).await {
            Ok(seen) => seen,
            Err(error) if error.errno == ENOENT => {
                if self.count() > 1 && self.should_look_elsewhere(layout.commit_hash) {
                    return self.lookup_everywhere(context, entry, Some(hashed), request, lock).await;
                }
                return Err(error);
            }
            Err(error) if matches!(error.errno, ENOTCONN | ENODATA) => {
                return match self.lookup_directory(context, Some(entry), None, request, lock).await? {
                    Some(found) => Ok(found),
                    None => self.lookup_everywhere(context, entry, Some(hashed), request, lock).await,
                };
            }
            Err(error) => return Err(error),
        };
        if seen.iatt.is_dir() {
            return match self.lookup_directory(context, Some(entry), Some(seen.iatt.gfid), request, lock).await? {
                Some(found) => Ok(found),
                None => self.lookup_everywhere(context, entry, Some(hashed), request, lock).await,
            };
        }
        if !self.is_linkto(&seen.iatt, &seen.xdata) {
            return Ok(Found::file(seen));
        }
        if let Some(target) = self.linkto_target(&seen.xdata).filter(|target| *target != hashed) {
            match self.look(target, context, entry, request.clone()).await {
                Ok(data)
                    if !data.iatt.is_dir()
                        && !self.is_linkto(&data.iatt, &data.xdata)
                        && data.iatt.gfid == seen.iatt.gfid =>
                {
                    return Ok(Found::file(data));
                }
                // It is there, only out of reach: the linkto file stays.
                Err(error) if error.errno == ENOTCONN => return Err(error),
                _ => {}
            }
        }
        self.lookup_everywhere(context, entry, Some(hashed), request, lock).await
    }

    /// By gfid alone: the subvolumes are all asked, as nobody knows its name.
    pub(super) async fn lookup_inode(&self, context: &Context, gfid: Gfid, xdata: &Dict) -> FopResult<Found> {
        let mut request = self.request(xdata);
        if gfid.is_root() {
            request.set(self.keys.commit_hash.clone(), ladrillo_translator::Value::Uint(4));
        }
        if let Some(Known::File(subvolume)) = self.table.get(&gfid) {
            let fop = Fop::Lookup { gfid, entry: None, xdata: request.clone() };
            let seen = Seen::of(subvolume, self.ask(subvolume, context, fop).await);
            match seen {
                Ok(seen) if !seen.iatt.is_dir() && !self.is_linkto(&seen.iatt, &seen.xdata) => {
                    return Ok(Found::file(seen));
                }
                Err(error) if !is_missing(&error) => return Err(error),
                _ => self.table.forget(&gfid),
            }
        }
        let name = if gfid.is_root() { None } else { self.table.name_of(&gfid) };
        if let Some(found) = self.lookup_directory(context, None, Some(gfid), &request, NameLock::Free).await? {
            return Ok(found);
        }
        tracing::trace!(%gfid, was_directory = name.is_some(), "no directory");
        // A file: on one of them, and perhaps with linkto files on others.
        let fop = Fop::Lookup { gfid, entry: None, xdata: request };
        let replies = self.ask_all(context, |_| fop.clone()).await;
        let mut worst = FopError::new(ENOENT, format!("{}: no subvolume has {gfid}", self.name));
        for (child, reply) in replies {
            match Seen::of(child, reply) {
                Ok(seen) if seen.iatt.is_dir() => {
                    return Err(FopError::new(EIO, format!("{}: {gfid} is a file and a directory", self.name)));
                }
                Ok(seen) if self.is_linkto(&seen.iatt, &seen.xdata) => {}
                Ok(seen) => {
                    self.table.learn_file(gfid, child);
                    return Ok(Found::file(seen));
                }
                Err(error) if worst.errno != ENOTCONN => worst = error,
                Err(_) => {}
            }
        }
        Err(worst)
    }

    /// Remembers where a name leads: to a file's subvolume, or to a directory.
    pub(super) fn learn_name(&self, entry: &Entry, gfid: Gfid, subvolume: Option<usize>) {
        self.table.learn_name(entry, Hint { gfid, subvolume, seen: self.runtime.now() });
    }

    /// Where a name led not longer than `validity` ago.
    pub(super) fn recent_hint(&self, entry: &Entry, validity: Duration) -> Option<Hint> {
        let now = self.runtime.now();
        self.table.hint(entry).filter(|hint| now.saturating_sub(hint.seen) <= validity)
    }

    /// One subvolume's view of a name.
    pub(super) async fn look(&self, child: usize, context: &Context, entry: &Entry, request: Dict) -> FopResult<Seen> {
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: request };
        let seen = Seen::of(child, self.ask(child, context, fop).await)?;
        self.note_commit_hash(&seen.xdata);
        Ok(seen)
    }

    /// The volume's commit hash, where an answer tells it.
    pub(super) fn note_commit_hash(&self, xdata: &Dict) {
        if let Some(hash) = xdata.int(&self.keys.commit_hash).and_then(|hash| u32::try_from(hash).ok()) {
            self.commit_hash.store(hash, Ordering::Relaxed);
        }
    }

    fn should_look_elsewhere(&self, commit_hash: u32) -> bool {
        match self.settings().look_elsewhere {
            LookElsewhere::WhereChanged => commit_hash != self.commit_hash.load(Ordering::Relaxed),
            LookElsewhere::Always => true,
            LookElsewhere::Never => false,
        }
    }

    /// A name that says where it is to be made, `NAME@DISTRIBUTE:SUBVOLUME`: the plain name, and the subvolume. GlusterFS
    /// has this for tests and repairs.
    pub(super) fn pinned(&self, entry: &Entry) -> Option<(Entry, usize)> {
        let at = entry.name.iter().rposition(|byte| *byte == b'@').filter(|at| *at > 0)?;
        let place = entry.name.get(at + 1..)?.strip_prefix(self.name.as_bytes())?.strip_prefix(b":")?;
        let child = self.names.iter().position(|name| name.as_bytes() == place)?;
        Some((Entry { parent: entry.parent, name: entry.name.slice(..at) }, child))
    }

    /// The subvolume that `entry` hashes to.
    ///
    /// # Errors
    /// ENOTCONN: it is down, or was when the layout was learnt. EIO: the layout has a hole there.
    pub(super) async fn hashed(&self, entry: &Entry) -> FopResult<usize> {
        let layout = self.layout_of(entry.parent).await?;
        layout.search(self.settings().hasher.hash(&entry.name)).ok_or_else(|| {
            let errno = if layout.lacks_some() { ENOTCONN } else { EIO };
            let name = String::from_utf8_lossy(&entry.name);
            FopError::new(errno, format!("{}: no subvolume answers for {name} in {}", self.name, entry.parent))
        })
    }

    /// Where an inode is: of a file its subvolume, `None` of a directory.
    pub(super) async fn place(&self, gfid: Gfid) -> FopResult<Option<usize>> {
        match self.table.get(&gfid) {
            Some(Known::File(subvolume)) => Ok(Some(subvolume)),
            Some(Known::Directory(_)) => Ok(None),
            None => Ok(self.lookup_inode(&self.system(), gfid, &Dict::new()).await?.subvolume),
        }
    }

    /// The same, of a file.
    ///
    /// # Errors
    /// EISDIR is the caller's to say: a directory is EINVAL here.
    pub(super) async fn file_place(&self, gfid: Gfid) -> FopResult<usize> {
        let place = self.place(gfid).await?;
        place.ok_or_else(|| is_a_directory(gfid))
    }

    pub(super) fn nobody_up(&self) -> FopError {
        FopError::new(ENOTCONN, format!("{}: no subvolume is up", self.name))
    }

    pub(super) fn not_a_directory(&self, gfid: Gfid) -> FopError {
        FopError::new(ENOTDIR, format!("{gfid} is not a directory"))
    }
}

pub(super) fn is_a_directory(gfid: Gfid) -> FopError {
    FopError::new(EISDIR, format!("{gfid} is a directory"))
}
