//! Directories: their copies on all subvolumes, seen together.

use std::sync::Arc;

use ladrillo_translator::error::errno::{EIO, ENOENT, ENOTCONN};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Iatt};

use super::Distribute;
use super::assign::Assignment;
use super::layout::{Layout, State};
use super::lookup::{Found, NameLock};
use super::merge::{self, Seen};
use super::table::{Directory, Known};

/// A directory as all subvolumes show it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub gfid: Gfid,
    pub layout: Layout,
    /// The copies, one for each subvolume that has it.
    pub copies: Vec<Seen>,
    /// The subvolume that is marked as the authority for attributes.
    pub mds: Option<usize>,
    /// It is marked as having xattrs that others lack.
    pub mds_pending: bool,
    /// Count of subvolumes that had come up before it was looked at.
    generation: u64,
}

/// What all subvolumes say of a name or gfid.
enum Sight {
    Directory(Box<View>),
    /// Some subvolume has a file there.
    File,
}

impl View {
    /// The copy whose attributes count: the marked one; of the root, which has no mark, the one changed last.
    pub fn authority(&self) -> Option<&Seen> {
        if self.gfid.is_root() {
            let has_range = |seen: &&Seen| self.layout.piece(seen.subvolume).is_some_and(|piece| piece.takes_part());
            return self.copies.iter().filter(has_range).max_by_key(|seen| seen.iatt.ctime).or(self.copies.first());
        }
        let marked = |seen: &&Seen| Some(seen.subvolume) == self.mds;
        self.copies.iter().find(marked).or(self.copies.first())
    }

    /// Copies whose owner, group or permissions are not the authority's.
    pub fn differing(&self) -> Vec<usize> {
        let Some(authority) = self.authority() else { return Vec::new() };
        let differs = |seen: &&Seen| merge::attributes_differ(&seen.iatt, &authority.iatt);
        self.copies.iter().filter(differs).map(|seen| seen.subvolume).collect()
    }

    /// Whether anything is to be mended, as far as it can be seen.
    fn needs_heal(&self, count: usize) -> bool {
        let anomalies = self.layout.anomalies();
        let mark = count > 1 && !self.gfid.is_root() && (self.mds.is_none() || self.mds_pending);
        mark || anomalies.is_broken() || anomalies.missing > 0 || !self.differing().is_empty()
    }

    fn found(self) -> FopResult<Found> {
        let authority = self.authority().ok_or_else(|| FopError::new(ENOENT, "a directory without copies"))?;
        let iatt = merge::merge_directory(&authority.iatt, self.copies.iter().map(|seen| &seen.iatt));
        Ok(Found { iatt, parent: authority.parent.clone(), xdata: authority.xdata.clone(), subvolume: None })
    }
}

impl Distribute {
    /// Looks a directory up on all subvolumes, mends what is to be mended, and remembers it. `None`: there is a file.
    /// Under locks nothing is mended (that would wait for these very locks), and what is to be mended not remembered.
    ///
    /// # Errors
    /// ENOENT: none has it. ENOTCONN: none that is up has it, and some are down.
    pub(super) async fn lookup_directory(
        &self,
        context: &Context,
        entry: Option<&Entry>,
        gfid: Option<Gfid>,
        request: &Dict,
        lock: NameLock,
    ) -> FopResult<Option<Found>> {
        let mut view = match self.look_at_all(context, entry, gfid, request).await? {
            Sight::File => return Ok(None),
            Sight::Directory(view) => *view,
        };
        if view.needs_heal(self.count()) {
            if lock == NameLock::Held {
                return view.found().map(Some);
            }
            let name = entry.cloned().or_else(|| self.table.name_of(&view.gfid));
            view = self.heal_soon(name, view).await?;
        }
        self.remember_directory(&view, entry);
        view.found().map(Some)
    }

    async fn look_at_all(
        &self,
        context: &Context,
        entry: Option<&Entry>,
        gfid: Option<Gfid>,
        request: &Dict,
    ) -> FopResult<Sight> {
        let by_gfid = if entry.is_some() { Gfid::NULL } else { gfid.unwrap_or_default() };
        let fop = Fop::Lookup { gfid: by_gfid, entry: entry.cloned(), xdata: request.clone() };
        // Before: one that comes up while the others answer may be missing in what is learnt.
        let generation = self.generation();
        let replies = self.ask_all(context, |_| fop.clone()).await;
        let replies: Vec<(usize, FopResult<Seen>)> =
            replies.into_iter().map(|(child, reply)| (child, Seen::of(child, reply))).collect();
        if replies.iter().any(|(_, reply)| matches!(reply, Ok(seen) if !seen.iatt.is_dir())) {
            return Ok(Sight::File);
        }
        let expected = gfid
            .filter(|gfid| replies.iter().any(|(_, reply)| matches!(reply, Ok(seen) if seen.iatt.gfid == *gfid)))
            .or_else(|| replies.iter().find_map(|(_, reply)| reply.as_ref().ok().map(|seen| seen.iatt.gfid)));
        let Some(gfid) = expected else {
            return Err(self.weigh(replies.into_iter().filter_map(|(_, reply)| reply.err()).collect()));
        };
        let (layout, copies) = (Layout::default(), Vec::new());
        let mut view = View { gfid, layout, copies, mds: None, mds_pending: false, generation };
        for (child, reply) in replies {
            match reply {
                Ok(seen) if seen.iatt.gfid != gfid => {
                    tracing::error!(
                        child = self.child_name(child), %gfid, other = %seen.iatt.gfid, "a directory's gfids differ"
                    );
                    view.layout.add(child, Err(EIO));
                }
                Ok(seen) => {
                    self.note_commit_hash(&seen.xdata);
                    let disk = seen.xdata.bytes(&self.keys.layout);
                    view.layout.add(child, Ok(disk.map(|raw| &raw[..])));
                    if let Some(mark) = seen.xdata.bytes(&self.keys.mds) {
                        view.mds = Some(child);
                        // Negative: changes that the others may have missed.
                        view.mds_pending = mark.first().is_some_and(|byte| *byte & 0x80 != 0);
                    }
                    view.copies.push(seen);
                }
                Err(error) => view.layout.add(child, Err(error.errno)),
            }
        }
        view.layout.sort();
        Ok(Sight::Directory(Box::new(view)))
    }

    /// A directory's copies without mending anything.
    ///
    /// # Errors
    /// ENOTDIR: it is a file. ENOENT, ESTALE, ENOTCONN as of a lookup.
    pub(super) async fn view(&self, entry: Option<&Entry>, gfid: Gfid, request: &Dict) -> FopResult<View> {
        match self.look_at_all(&self.system(), entry, Some(gfid), request).await? {
            Sight::Directory(view) => Ok(*view),
            Sight::File => Err(self.not_a_directory(gfid)),
        }
    }

    pub(super) fn remember_directory(&self, view: &View, entry: Option<&Entry>) {
        // Without a mark in sight any copy may decide, unless the marked one is on a subvolume that is down.
        let is_whole = view.layout.anomalies().down == 0;
        let mds = view.mds.or_else(|| view.authority().filter(|_| is_whole).map(|seen| seen.subvolume));
        let generation = view.generation;
        self.table.learn_directory(view.gfid, Directory { layout: Arc::new(view.layout.clone()), mds, generation });
        if let Some(entry) = entry {
            self.learn_name(entry, view.gfid, None);
        }
    }

    /// What is known of a directory, learnt now if need be.
    ///
    /// # Errors
    /// ENOTDIR: it is none. Those of a lookup.
    pub(super) async fn directory(&self, gfid: Gfid) -> FopResult<Directory> {
        match self.known_directory(gfid)? {
            Some(known) => Ok(known),
            None => self.relearn(gfid).await,
        }
    }

    /// What is known of a directory and not out of date.
    fn known_directory(&self, gfid: Gfid) -> FopResult<Option<Directory>> {
        match self.table.get(&gfid) {
            Some(Known::Directory(known)) if known.generation == self.generation() || !known.layout.lacks_some() => {
                Ok(Some(known))
            }
            Some(Known::File(_)) => Err(self.not_a_directory(gfid)),
            _ => Ok(None),
        }
    }

    /// Looks at a directory anew, whatever is known.
    pub(super) async fn relearn(&self, gfid: Gfid) -> FopResult<Directory> {
        let request = self.request(&Dict::new());
        let found = self.lookup_directory(&self.system(), None, Some(gfid), &request, NameLock::Free).await?;
        match (found, self.table.get(&gfid)) {
            (Some(_), Some(Known::Directory(known))) => Ok(known),
            _ => Err(self.not_a_directory(gfid)),
        }
    }

    pub(super) async fn layout_of(&self, gfid: Gfid) -> FopResult<Arc<Layout>> {
        Ok(self.directory(gfid).await?.layout)
    }

    /// A layout for one who may hold locks on the directory: as it is, then, whatever is to be mended.
    pub(super) async fn layout_under(&self, gfid: Gfid, lock: NameLock) -> FopResult<Arc<Layout>> {
        match self.known_directory(gfid)? {
            Some(known) => Ok(known.layout),
            None if lock == NameLock::Free => Ok(self.relearn(gfid).await?.layout),
            None => Ok(Arc::new(self.view(None, gfid, &self.request(&Dict::new())).await?.layout)),
        }
    }

    /// New ranges for a directory.
    pub(super) async fn assign(&self, layout: &mut Layout, gfid: Gfid, name: Option<&Entry>) {
        let path = match name {
            _ if self.settings().randomize_by_gfid => gfid.to_string().into(),
            _ if gfid.is_root() => "/".into(),
            Some(entry) => self.table.path(entry.parent, &entry.name),
            None => format!("<gfid:{gfid}>").into(),
        };
        let weights = self.weights().await;
        Assignment {
            path_hash: self.settings().hasher.hash(&path),
            spread: self.settings().spread,
            weights: weights.as_deref(),
            decommissioned: &self.settings().decommissioned,
            names: &self.names,
        }
        .apply(layout);
    }

    /// The error that says most: a subvolume that is down may have what the others lack.
    pub(super) fn weigh(&self, errors: Vec<FopError>) -> FopError {
        let rank = |error: &FopError| match error.errno {
            ENOTCONN => 2,
            ENOENT => 1,
            _ => 0,
        };
        errors.into_iter().max_by_key(rank).unwrap_or_else(|| self.nobody_up())
    }
}

/// The states of a layout that is on disk now.
pub(super) fn settle(layout: &mut Layout) {
    for piece in &mut layout.pieces {
        if piece.state == State::Wanting {
            piece.state = State::Sound;
        }
    }
    layout.sort();
}

/// Attributes of a directory from its copies.
pub(super) fn merged(authority: Option<usize>, copies: &[(usize, Iatt)]) -> Option<Iatt> {
    let chosen = copies.iter().find(|(child, _)| Some(*child) == authority).or(copies.first())?;
    Some(merge::merge_directory(&chosen.1, copies.iter().map(|(_, iatt)| iatt)))
}
