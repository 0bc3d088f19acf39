//! Split-brain decided by a rule (`favorite-child-policy`), where somebody asked for that. The rules are GlusterFS 10.3's
//! (`afr_sh_fav_by_*`): a copy has to win alone.

use crate::translators::replicate::{FavoriteChild, Mask, SeenCopy};

/// The copy that the rule prefers among `copies`; never one of `arbiters`, which have no contents to judge by.
pub(crate) fn favorite(policy: FavoriteChild, copies: &[SeenCopy], arbiters: Mask) -> Option<usize> {
    let candidates: Vec<&SeenCopy> = copies.iter().filter(|copy| !arbiters.has(copy.child)).collect();
    match policy {
        FavoriteChild::None => None,
        FavoriteChild::Size if candidates.iter().any(|copy| copy.iatt.is_dir()) => None,
        FavoriteChild::Size => {
            greatest(&candidates, |copy| copy.iatt.size_bytes).filter(|(size, _)| *size > 0).map(|(_, child)| child)
        }
        FavoriteChild::Ctime => greatest(&candidates, |copy| copy.iatt.ctime).map(|(_, child)| child),
        FavoriteChild::Mtime => greatest(&candidates, |copy| copy.iatt.mtime).map(|(_, child)| child),
        FavoriteChild::Majority => {
            let like = |copy: &SeenCopy, other: &SeenCopy| {
                (copy.iatt.mtime.seconds, copy.iatt.size_bytes) == (other.iatt.mtime.seconds, other.iatt.size_bytes)
            };
            let votes = |copy: &SeenCopy| candidates.iter().filter(|other| like(copy, other)).count();
            candidates.iter().find(|copy| votes(copy) > copies.len() / 2).map(|copy| copy.child)
        }
    }
}

/// The greatest value, and the one copy that has it; `None` where several do.
pub(crate) fn greatest<T: Ord + Copy>(copies: &[&SeenCopy], value: impl Fn(&SeenCopy) -> T) -> Option<(T, usize)> {
    let most = copies.iter().map(|copy| value(copy)).max()?;
    let mut best = copies.iter().filter(|copy| value(copy) == most);
    let first = best.next()?;
    best.next().is_none().then_some((most, first.child))
}
