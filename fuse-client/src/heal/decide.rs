//! Split-brain decided by a person: `volume heal V split-brain ...` and `replica.split-brain-heal-finalize`. The words for
//! what cannot be decided are GlusterFS 10.3's (afr-self-heal.h).

use std::sync::Arc;

use ladrillo_translator::fop::Entry;
use ladrillo_translator::{FileType, Gfid, Iatt};

use super::direction::direction;
use super::favorite::{favorite, greatest};
use super::healer::{HealResult, Healer, Look, Trouble};
use crate::heal::entry::NameOutcome;
use crate::translators::replicate::{Replicate, SeenCopy, Segment};

/// Which copy is to be the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The biggest.
    Bigger,
    /// The one written to last.
    LatestMtime,
    /// This child's.
    Child(usize),
}

/// Nothing is decided while a copy cannot be looked at.
pub(crate) const NOT_ALL_UP: &str =
    "Failed to obtain replies from all bricks of the replica (are they up?). Cannot resolve split-brain.";
const NOT_SPLIT: &str = "File not in split-brain";
const NO_BIGGER: &str = "No bigger file";
const SAME_MTIME: &str = "No difference in mtime";
const METADATA: &str = "Use source-brick option to heal metadata split-brain";
const ARBITER: &str = "The brick is an arbiter: it has no data";
const NOT_THERE: &str = "Error getting the source brick";

/// Heals what is in split-brain of `gfid` from the copy that was chosen; nothing else. For a directory its entries are
/// merged. `None`: the replica set does not have it.
///
/// # Errors
/// Why not, in GlusterFS's words.
pub(crate) async fn decide(replicate: &Arc<Replicate>, gfid: Gfid, choice: Choice) -> Option<Result<(), String>> {
    let healer = Healer::choosing(replicate.clone(), choice);
    let all_up = replicate.up() == replicate.everyone();
    let look = match healer.look_leniently(&healer.context(), gfid).await {
        Ok(look) => look?,
        Err(_) if !all_up => return Some(Err(NOT_ALL_UP.to_owned())),
        Err(trouble) => return Some(Err(words(trouble))),
    };
    let split = |segment| healer.is_split(&look, segment);
    if look.kind() == Some(FileType::Directory) {
        if look.marks.iter().any(|marks| marks.any(Segment::Entry)) {
            return Some(healer.heal_entries(gfid).await.map(|_| ()).map_err(words));
        }
        return Some(if split(Segment::Metadata) {
            healer.heal_metadata(gfid).await.map(|_| ()).map_err(words)
        } else {
            Err(NOT_SPLIT.to_owned())
        });
    }
    let (data, metadata) = (split(Segment::Data), split(Segment::Metadata));
    if !data && !metadata {
        return Some(Err(NOT_SPLIT.to_owned()));
    }
    let mut outcome = Ok(());
    if data {
        outcome = healer.heal_data(gfid).await.map(|_| ());
    }
    if metadata {
        // One of them may be decided where the other cannot.
        outcome = outcome.and(healer.heal_metadata(gfid).await.map(|_| ()));
    }
    Some(outcome.map_err(words))
}

/// Decides which inode a name is, where bricks have different ones. `None`: they have not.
///
/// # Errors
/// Why not, in GlusterFS's words.
pub(crate) async fn decide_name(
    replicate: &Arc<Replicate>,
    entry: &Entry,
    choice: Choice,
) -> Option<Result<(), String>> {
    let healer = Healer::choosing(replicate.clone(), choice);
    let context = healer.context();
    if replicate.up() != replicate.everyone() {
        return Some(Err("All the bricks should be up to resolve the gfid split brain".to_owned()));
    }
    match healer.gfids_differ(&context, entry).await {
        Ok(false) => None,
        Ok(true) => Some(match healer.heal_name(&context, entry).await {
            Ok(NameOutcome::Agreed) => Ok(()),
            Ok(NameOutcome::Later | NameOutcome::Mismatch) => Err(NOT_THERE.to_owned()),
            Err(trouble) => Err(words(trouble)),
        }),
        Err(trouble) => Some(Err(words(trouble))),
    }
}

fn words(trouble: Trouble) -> String {
    match trouble {
        Trouble::SplitBrain(why) => why,
        Trouble::NotNow(error) => super::info::describe(error.errno),
    }
}

impl Healer {
    /// Whether nobody's copy of a file's `segment` is good.
    fn is_split(&self, look: &Look, segment: Segment) -> bool {
        let (everyone, quorum) = (self.replicate.everyone(), self.replicate.settings().quorum.needed());
        let sources = direction(&look.marks, segment, everyone, quorum).sources;
        match segment {
            Segment::Data => {
                let arbiters = self.replicate.arbiters();
                let empty = look.copies.iter().all(|copy| copy.iatt.size_bytes == 0);
                (sources - arbiters).is_empty() && (sources.is_empty() || !empty)
            }
            _ => sources.is_empty(),
        }
    }

    /// The copy whose `segment` is to be taken for good where all are accused: by the person's choice, else by
    /// `favorite-child-policy`. `None`: nobody says.
    pub(crate) fn chosen(&self, copies: &[SeenCopy], segment: Segment) -> HealResult<Option<usize>> {
        let arbiters = self.replicate.arbiters();
        let cannot = |why: &str| Err(Trouble::SplitBrain(why.to_owned()));
        let candidates: Vec<&SeenCopy> = copies.iter().filter(|copy| !arbiters.has(copy.child)).collect();
        match (self.choice, segment) {
            (None, _) => Ok(favorite(self.replicate.settings().favorite_child, copies, arbiters)),
            (Some(Choice::Child(child)), Segment::Data) if arbiters.has(child) => cannot(ARBITER),
            (Some(Choice::Child(child)), _) => Ok(Some(child)),
            (Some(_), Segment::Metadata) => cannot(METADATA),
            (Some(Choice::Bigger), _) => match greatest(&candidates, |copy| copy.iatt.size_bytes) {
                Some((_, child)) => Ok(Some(child)),
                None => cannot(NO_BIGGER),
            },
            (Some(Choice::LatestMtime), _) => match greatest(&candidates, |copy| copy.iatt.mtime) {
                Some((_, child)) => Ok(Some(child)),
                None => cannot(SAME_MTIME),
            },
        }
    }

    /// The child whose inode a name is to be, where nobody can tell; `None`: no person said.
    pub(crate) fn chosen_name(&self, seen: &[Option<Iatt>]) -> HealResult<Option<usize>> {
        let cannot = |why: &str| Err(Trouble::SplitBrain(why.to_owned()));
        let arbiters = self.replicate.arbiters();
        let present = || seen.iter().enumerate().filter_map(|(child, iatt)| Some((child, iatt.as_ref()?)));
        // Copies of one inode count as one: the first of them.
        let best = |value: &dyn Fn(&Iatt) -> (u64, i128)| -> Option<usize> {
            let candidates = || present().filter(|(child, _)| !arbiters.has(*child));
            let most = candidates().map(|(_, iatt)| value(iatt)).max()?;
            let mut winners = candidates().filter(|(_, iatt)| value(iatt) == most);
            let (child, first) = winners.next()?;
            winners.all(|(_, iatt)| iatt.gfid == first.gfid).then_some(child)
        };
        match self.choice {
            None => Ok(None),
            Some(Choice::Child(child)) if seen.get(child).is_some_and(Option::is_some) => Ok(Some(child)),
            Some(Choice::Child(_)) => cannot(NOT_THERE),
            Some(Choice::Bigger) => match best(&|iatt| (iatt.size_bytes, 0)) {
                Some(child) => Ok(Some(child)),
                None => cannot(NO_BIGGER),
            },
            Some(Choice::LatestMtime) => {
                let nanos = |iatt: &Iatt| i128::from(iatt.mtime.seconds) * 1_000_000_000 + i128::from(iatt.mtime.nanos);
                match best(&|iatt| (0, nanos(iatt))) {
                    Some(child) => Ok(Some(child)),
                    None => cannot(SAME_MTIME),
                }
            }
        }
    }
}
