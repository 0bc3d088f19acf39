//! A name that is not where it hashes: asked of all subvolumes. Linkto files that lead nowhere are removed on the way, one
//! that is missing is made.

use futures::future::join_all;
use ladrillo_translator::error::errno::{EBUSY, EIO, ENODATA, ENOENT, ENOTCONN, ESTALE};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, FopError, FopResult};

use super::Distribute;
use super::linkto::is_missing;
use super::lookup::{Found, NameLock};
use super::merge::Seen;

impl Distribute {
    pub(super) async fn lookup_everywhere(
        &self,
        context: &Context,
        entry: &Entry,
        hashed: Option<usize>,
        request: &Dict,
        lock: NameLock,
    ) -> FopResult<Found> {
        let replies = join_all(
            (0..self.count())
                .map(|child| async move { (child, self.look(child, context, entry, request.clone()).await) }),
        )
        .await;
        let name = || String::from_utf8_lossy(&entry.name).into_owned();
        let (mut links, mut files, mut directories): (Vec<Seen>, Vec<Seen>, usize) = Default::default();
        let (mut gfid_missing, mut hashed_lost, mut lost) = (false, None, None);
        for (child, reply) in replies {
            match reply {
                Ok(seen) if seen.iatt.is_dir() => directories += 1,
                Ok(seen) if self.is_linkto(&seen.iatt, &seen.xdata) => links.push(seen),
                Ok(seen) => files.push(seen),
                Err(error) => {
                    gfid_missing |= error.errno == ENODATA;
                    if Some(child) == hashed && error.errno != ENOENT {
                        hashed_lost = Some(error.clone());
                    }
                    if !is_missing(&error) {
                        lost = Some(error);
                    }
                }
            }
        }
        if directories > 0 {
            if files.is_empty()
                && let Some(found) = self.lookup_directory(context, Some(entry), None, request, lock).await?
            {
                return Ok(found);
            }
            let message = format!("{} in {} is a file and a directory: to be mended by hand", name(), entry.parent);
            tracing::error!(subvolume = %self.name, "{message}");
            return Err(FopError::new(EIO, message));
        }
        if files.is_empty() && gfid_missing {
            return Err(FopError::new(ENODATA, format!("{} has no gfid", name())));
        }
        if let Some(error) = lost.filter(|_| files.is_empty() && !links.is_empty()) {
            // A linkto file says that there is a file: it is where nobody could be asked. (Without one the name counts as
            // free, as in GlusterFS: else nothing could be made while a subvolume is down.)
            return Err(error);
        }
        let on_hashed = links.iter().position(|seen| Some(seen.subvolume) == hashed).map(|at| links.swap_remove(at));
        // Elsewhere than at its hash a linkto file has no meaning; one that is open may be a file being moved there.
        for stale in links.iter().filter(|seen| seen.xdata.int("glusterfs.open-fd-count") == Some(0)) {
            // What cannot be removed now is met again.
            let _ = self.remove_stale_linkto(entry, stale.subvolume, hashed, lock).await;
        }
        if files.len() > 1 {
            let on: Vec<&str> = files.iter().map(|seen| self.child_name(seen.subvolume)).collect();
            tracing::warn!(subvolume = %self.name, name = name(), parent = %entry.parent, ?on, "a file is on several");
        }
        let at_hash = files.iter().position(|seen| Some(seen.subvolume) == hashed);
        let Some(cached) = files.into_iter().nth(at_hash.unwrap_or(0)) else {
            if let Some(error) = hashed_lost {
                return Err(error);
            }
            if let (Some(_), Some(hashed)) = (on_hashed, hashed) {
                // A linkto file without its file: the answer is ENOENT whether or not it can be removed now.
                let _ = self.remove_stale_linkto(entry, hashed, Some(hashed), lock).await;
            }
            return Err(FopError::new(ENOENT, format!("{} is on no subvolume", name())));
        };
        let Some(hashed) = hashed.filter(|hashed| *hashed != cached.subvolume) else {
            return Ok(Found::file(cached));
        };
        if let Some(link) = on_hashed {
            if self.linkto_target(&link.xdata) == Some(cached.subvolume) {
                return match link.iatt.gfid == cached.iatt.gfid {
                    true => Ok(Found::file(cached)),
                    false => Err(FopError::new(ESTALE, format!("{}: its linkto file has another gfid", name()))),
                };
            }
            // It leads to a wrong place.
            match self.remove_linkto(entry, hashed).await {
                Ok(()) => {}
                Err(error) if matches!(error.errno, EBUSY | ENOTCONN) => {
                    // Perhaps it is being moved there: nobody can say which of both counts.
                    return Err(FopError::new(EIO, format!("{}: {}", name(), error.message)));
                }
                Err(_) => return Ok(Found::file(cached)),
            }
        }
        if hashed_lost.is_none() {
            self.replace_linkto(entry, hashed, &cached, lock).await;
        }
        Ok(Found::file(cached))
    }

    /// Removes a linkto file that leads nowhere, unless it has come to lead somewhere by the time the name is locked: who
    /// makes a file elsewhere makes its linkto file first.
    ///
    /// # Errors
    /// Those of the locks, of the looks and of [`Distribute::remove_linkto`].
    pub(super) async fn remove_stale_linkto(
        &self,
        entry: &Entry,
        at: usize,
        hashed: Option<usize>,
        lock: NameLock,
    ) -> FopResult<()> {
        // In a hole of the layout the name cannot be locked, and stays.
        let Some(hashed) = hashed else { return Ok(()) };
        let entry = entry.clone();
        self.detached(move |this| {
            Box::pin(async move {
                let held = match lock {
                    NameLock::Free => Some(this.lock_name(&entry, hashed).await?),
                    NameLock::Held => None,
                };
                let outcome = this.remove_stale_linkto_locked(&entry, at, hashed).await;
                if let Some(held) = held {
                    this.unlock_soon(held);
                }
                outcome
            })
        })
        .await
    }

    async fn remove_stale_linkto_locked(&self, entry: &Entry, at: usize, hashed: usize) -> FopResult<()> {
        let (system, request) = (self.system(), self.request(&Dict::new()));
        let link = match self.look(at, &system, entry, request.clone()).await {
            Ok(seen) if self.is_linkto(&seen.iatt, &seen.xdata) => seen,
            Ok(_) => return Ok(()),
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        // Elsewhere than at the hash it leads nobody anywhere.
        if at == hashed
            && let Some(target) = self.linkto_target(&link.xdata).filter(|target| *target != at)
        {
            match self.look(target, &system, entry, request).await {
                Ok(seen) if seen.iatt.gfid == link.iatt.gfid && !self.is_linkto(&seen.iatt, &seen.xdata) => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.remove_linkto(entry, at).await
    }

    /// Makes the linkto file that is missing, if things are still as they were seen. Best effort: a lookup that finds the
    /// file has succeeded.
    async fn replace_linkto(&self, entry: &Entry, hashed: usize, cached: &Seen, lock: NameLock) {
        let (entry, cached) = (entry.clone(), cached.clone());
        let outcome = self
            .detached(move |this| {
                Box::pin(async move {
                    let held = match lock {
                        NameLock::Free => Some(this.lock_name(&entry, hashed).await?),
                        NameLock::Held => None,
                    };
                    let outcome = this.replace_linkto_locked(&entry, hashed, &cached, held.is_some()).await;
                    if let Some(held) = held {
                        this.unlock_soon(held);
                    }
                    outcome
                })
            })
            .await;
        if let Err(error) = outcome {
            tracing::debug!(subvolume = %self.name, %error, "a linkto file was not made");
        }
    }

    async fn replace_linkto_locked(&self, entry: &Entry, hashed: usize, cached: &Seen, check: bool) -> FopResult<()> {
        let system = self.system();
        if check {
            match self.look(hashed, &system, entry, Dict::new()).await {
                Err(error) if error.errno == ENOENT => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
            let still = self.look(cached.subvolume, &system, entry, Dict::new()).await?;
            if still.iatt.gfid != cached.iatt.gfid {
                return Ok(());
            }
        }
        if self.make_linkto(entry, cached.iatt.gfid, hashed, cached.subvolume, Dict::new()).await? {
            self.own_linkto(hashed, &cached.iatt).await;
        }
        Ok(())
    }
}
