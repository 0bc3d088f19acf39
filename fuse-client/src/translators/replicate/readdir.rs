//! Listings: a directory's offsets are one brick's, so a listing stays on the child it began on. When that child is
//! lost, the listing goes on from another: from its start, without the names handed out before. A directory too long
//! for that (its names are remembered up to [`MAX_REMEMBERED`]) answers ENOTCONN, as GlusterFS does for all.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ladrillo_translator::error::errno::ENOTCONN;
use ladrillo_translator::fop::{DirEntry, File, Name};
use ladrillo_translator::{Context, Fop, FopError, FopResult, Reply};

use super::Replicate;
use super::fd::OpenFile;
use super::lookup::hide_own_xattrs;
use super::mask::Mask;

/// Names remembered of one listing.
const MAX_REMEMBERED: usize = 65_536;

impl Replicate {
    pub(super) async fn readdir(&self, context: &Context, fop: Fop) -> FopResult {
        let (file, offset) = match &fop {
            Fop::Readdir { file, offset, .. } | Fop::Readdirp { file, offset, .. } => (*file, *offset),
            _ => return Err(super::strange_reply("a listing")),
        };
        let open = file.fd.and_then(|fd| self.open_file(fd));
        let Some(open) = open else {
            let (child, reply) = self.read_from_good_copy(context, file.gfid, Some(&file), &fop).await?;
            return Ok(self.dress(child, reply));
        };
        let begun = {
            let mut listing = open.listing.lock();
            if offset == 0 {
                *listing = Default::default();
            }
            listing.child
        };
        let Some(child) = begun else {
            let (child, reply) = self.read_from_good_copy(context, file.gfid, Some(&file), &fop).await?;
            open.listing.lock().child = Some(child);
            return Ok(self.finish_listing(&open, child, reply));
        };
        let Some(target) = self.children.get(child) else { return Err(self.no_quorum()) };
        self.reopen(&file, Mask::only(child)).await;
        let mut at = offset;
        loop {
            let outcome = target.submit(context, with_offset(self.for_child(&fop, child)?, at)).await;
            match outcome {
                Ok(reply) => {
                    let last = last_offset(&reply);
                    let reply = self.finish_listing(&open, child, reply);
                    match (is_empty_listing(&reply), last) {
                        // All of this batch had been handed out before: the next one, not "end".
                        (true, Some(last)) if last != at => at = last,
                        _ => return Ok(reply),
                    }
                }
                Err(error) if error.errno == ENOTCONN => {
                    return self.resume_elsewhere(context, &open, file, &fop, offset, error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes on with a listing whose child was lost.
    async fn resume_elsewhere(
        &self,
        context: &Context,
        open: &Arc<OpenFile>,
        file: File,
        fop: &Fop,
        offset: u64,
        lost: FopError,
    ) -> FopResult {
        let skip: HashSet<Name> = {
            let listing = open.listing.lock();
            let upto = listing.seen.iter().position(|(at, _)| *at == offset);
            match upto {
                Some(last) if !listing.too_long => {
                    let names = listing.seen.iter().take(last + 1).map(|(_, name)| name.clone());
                    names.chain(listing.skip.iter().cloned()).collect()
                }
                _ => return Err(lost),
            }
        };
        let mut at = 0;
        let mut chosen: Option<usize> = None;
        loop {
            let step = with_offset(fop.clone(), at);
            let (child, reply) = match chosen {
                None => self.read_from_good_copy(context, file.gfid, Some(&file), &step).await?,
                Some(child) => {
                    let Some(target) = self.children.get(child) else { return Err(lost) };
                    (child, target.submit(context, self.for_child(&step, child)?).await?)
                }
            };
            chosen = Some(child);
            {
                let mut listing = open.listing.lock();
                if at == 0 {
                    listing.seen.clear();
                    listing.skip.clone_from(&skip);
                    listing.child = Some(child);
                }
            }
            let last = last_offset(&reply);
            let reply = self.finish_listing(open, child, reply);
            match (is_empty_listing(&reply), last) {
                (true, Some(last)) if last != at => at = last,
                _ => return Ok(reply),
            }
        }
    }

    /// Remembers what is handed out, drops what was handed out before.
    fn finish_listing(&self, open: &OpenFile, child: usize, reply: Reply) -> Reply {
        let mut reply = self.dress(child, reply);
        if let Reply::Entries { entries, .. } = &mut reply {
            let mut listing = open.listing.lock();
            if !listing.skip.is_empty() {
                entries.retain(|entry| !listing.skip.contains(&entry.name));
            }
            if listing.seen.len() + entries.len() > MAX_REMEMBERED {
                listing.too_long = true;
                listing.seen = Vec::new();
            }
            if !listing.too_long {
                listing.seen.extend(entries.iter().map(|entry| (entry.offset, entry.name.clone())));
            }
        }
        reply
    }

    /// Takes attributes out of a listing where they may be stale: the child that lists need not have a good copy of
    /// every file. They are kept of files whose copy there is known good, and of unknown ones while no heal is due.
    fn dress(&self, child: usize, mut reply: Reply) -> Reply {
        let view = self.view();
        let calm = view.up == self.everyone() && !self.backlog.load(Ordering::Relaxed);
        if let Reply::Entries { entries, xdata } = &mut reply {
            hide_own_xattrs(xdata);
            for entry in entries.iter_mut() {
                hide_own_xattrs(&mut entry.xdata);
                let Some(iatt) = &entry.iatt else { continue };
                let trusted = match self.inodes.get(&iatt.gfid).map(|inode| inode.readable()) {
                    Some(known) if known.generation == view.generation => known.both().has(child),
                    _ => calm,
                };
                if !trusted {
                    entry.iatt = None;
                }
            }
        }
        reply
    }
}

fn with_offset(mut fop: Fop, at: u64) -> Fop {
    if let Fop::Readdir { offset, .. } | Fop::Readdirp { offset, .. } = &mut fop {
        *offset = at;
    }
    fop
}

fn entries(reply: &Reply) -> &[DirEntry] {
    match reply {
        Reply::Entries { entries, .. } => entries,
        _ => &[],
    }
}

fn last_offset(reply: &Reply) -> Option<u64> {
    entries(reply).last().map(|entry| entry.offset)
}

fn is_empty_listing(reply: &Reply) -> bool {
    entries(reply).is_empty()
}
