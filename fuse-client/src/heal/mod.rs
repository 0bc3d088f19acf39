//! The heal service: brings copies up to date from the bricks' indices.
//!
//! [`HealService`] looks at the lists of marked inodes that bricks keep, when a brick comes back, every
//! `cluster.heal-timeout`, and when told to; a healer compares the marks of all copies, copies from those nobody
//! accuses to the others under the transaction's own locks, and takes the marks back. It heals only while all bricks of
//! the set are up (as GlusterFS does), never guesses in split-brain, and leaves marks alone that it did not see when it
//! began. [`info`] lists what is to be healed.

mod data;
pub mod decide;
mod direction;
mod entry;
mod favorite;
mod healer;
mod index;
pub mod info;
mod metadata;
pub(crate) mod name;
mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use service::{HealService, Progress};

use crate::translators::replicate::{Inode, Replicate, SeenCopy, Segment};

/// A lookup saw these copies of an inode. Attributes that differ without a mark (an operation ended half way) are healed
/// in the background; what is marked is the heal service's work, unless `data-self-heal` and its like say that mounts
/// heal too.
pub(crate) fn on_lookup(replicate: &Replicate, inode: &Arc<Inode>, copies: &[SeenCopy]) {
    if copies.len() != replicate.children().len() {
        return;
    }
    let marked = |segment: Segment| copies.iter().any(|copy| copy.marks.any(segment));
    let attributes = |copy: &SeenCopy| (copy.iatt.uid, copy.iatt.gid, copy.iatt.mode);
    let differ = copies.windows(2).any(|pair| attributes(&pair[0]) != attributes(&pair[1]));
    let settings = replicate.settings();
    let all = (settings.data_self_heal && marked(Segment::Data))
        || (settings.metadata_self_heal && marked(Segment::Metadata))
        || (settings.entry_self_heal && marked(Segment::Entry));
    let attributes_only = differ && !marked(Segment::Metadata);
    if !all && !attributes_only {
        return;
    }
    let (Some(replicate), gfid) = (replicate.arc(), inode.gfid) else { return };
    if !replicate.begin_background_heal() {
        return;
    }
    let runtime = replicate.runtime.clone();
    runtime.spawn(Box::pin(async move {
        let healer = healer::Healer::new(replicate.clone());
        let outcome = if all { healer.heal(gfid).await } else { healer.heal_metadata(gfid).await };
        if let Err(trouble) = outcome {
            tracing::debug!(%gfid, ?trouble, "a copy was not healed");
        }
        replicate.end_background_heal();
    }));
}
