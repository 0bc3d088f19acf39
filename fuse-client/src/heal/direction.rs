//! Who is right: sources and sinks, read from the marks of all copies (source of the rules: AFR's
//! `afr_selfheal_find_direction` of 10.3).

use crate::translators::replicate::{Changelog, Marks, Mask, Segment};

/// What the marks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Direction {
    /// Copies nobody accuses.
    pub sources: Mask,
    /// Copies accused by sources.
    pub sinks: Mask,
    /// Per copy, operations that began on it and were not marked as ended.
    pub witness: Vec<i64>,
}

/// Judges `marks` (one per child) in `segment`; `locked`: children under the healer's lock.
pub(crate) fn direction(marks: &[Marks], segment: Segment, locked: Mask, quorum: usize) -> Direction {
    let count = marks.len();
    let cell = |by: usize, of: usize| -> i64 {
        marks.get(by).and_then(|marks| marks.pending.get(of)).map(|log| i64::from(log.get(segment))).unwrap_or(0)
    };
    let self_accused: Mask = (0..count).filter(|child| cell(*child, *child) != 0).collect();
    let mut accusers = vec![0usize; count];
    let mut accuses_others = Mask::NONE;
    for by in 0..count {
        for (of, accusers) in accusers.iter_mut().enumerate() {
            if cell(by, of) != 0 {
                // One that accuses itself knows that it does not know.
                if !self_accused.has(by) {
                    *accusers += 1;
                }
                if by != of {
                    accuses_others.add(by);
                }
            }
        }
    }
    let mut sources: Mask = locked.iter().filter(|child| accusers.get(*child) == Some(&0)).collect();
    let mut sinks: Mask =
        (sources - self_accused).iter().flat_map(|by| (0..count).filter(move |of| cell(by, *of) != 0)).collect();
    let mut witness = vec![0i64; count];
    for (child, witness) in witness.iter_mut().enumerate() {
        if self_accused.has(child) {
            *witness += (0..count).filter(|of| *of != child).map(|of| cell(child, of)).sum::<i64>();
        }
    }
    // All are accused, but some by too few to have been left behind: an operation failed before its quorum.
    if sources.is_empty() && segment != Segment::Entry {
        sources = locked.iter().filter(|child| accusers.get(*child).is_some_and(|by| *by < quorum)).collect();
    }
    if sources.is_empty() {
        sinks = locked;
    }
    for (child, witness) in witness.iter_mut().enumerate() {
        if self_accused.has(child) && (accuses_others.is_empty() || accuses_others.has(child)) {
            *witness += cell(child, child);
        }
        *witness += marks.get(child).map(|marks| i64::from(marks.dirty.get(segment))).unwrap_or(0);
    }
    Direction { sources, sinks, witness }
}

/// What to add to the marks of each child in `locked` after a heal of `segment`: what was there when it began is taken
/// back (operations since then stay marked); sinks that could not be healed are accused once more.
pub(crate) fn undo(
    marks: &[Marks],
    segment: Segment,
    sinks: Mask,
    healed: Mask,
    locked: Mask,
) -> Vec<(usize, Vec<Changelog>, Changelog)> {
    let unhealed = sinks - healed;
    locked
        .iter()
        .filter_map(|child| {
            let own = marks.get(child)?;
            let pending = own
                .pending
                .iter()
                .enumerate()
                .map(|(of, log)| {
                    let mut change = Changelog::default();
                    let slot = segment as usize;
                    if unhealed.has(of) {
                        change.0[slot] = 1;
                    } else if locked.has(of) {
                        change.0[slot] = log.get(segment).wrapping_neg();
                        // On directories the data counter says "needs a full crawl", which this heal was.
                        if segment == Segment::Entry {
                            change.0[Segment::Data as usize] = log.get(Segment::Data).wrapping_neg();
                        }
                    }
                    change
                })
                .collect();
            let dirty = if unhealed.has(child) { 0 } else { own.dirty.get(segment).wrapping_neg() };
            Some((child, pending, Changelog::of(segment, dirty)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(rows: [[i32; 3]; 3], dirty: [i32; 3]) -> Vec<Marks> {
        rows.iter()
            .zip(dirty)
            .map(|(row, dirty)| Marks {
                pending: row.iter().map(|count| Changelog::of(Segment::Data, *count)).collect(),
                dirty: Changelog::of(Segment::Data, dirty),
            })
            .collect()
    }

    fn judge(rows: [[i32; 3]; 3], dirty: [i32; 3]) -> Direction {
        direction(&marks(rows, dirty), Segment::Data, Mask::all(3), 2)
    }

    #[test]
    fn the_accused_are_sinks() {
        let judged = judge([[0, 0, 2], [0, 0, 2], [0, 0, 0]], [0, 0, 1]);
        assert_eq!((judged.sources, judged.sinks), (Mask::all(2), Mask::only(2)));
        assert_eq!(judged.witness, [0, 0, 1]);
    }

    #[test]
    fn all_accused_by_a_quorum_is_split_brain() {
        let judged = judge([[0, 1, 1], [1, 0, 1], [1, 1, 0]], [0; 3]);
        assert_eq!((judged.sources, judged.sinks), (Mask::NONE, Mask::all(3)));
        // Accused by one only: it was an operation that failed, not a copy left behind.
        let judged = judge([[0, 1, 0], [0, 0, 1], [1, 0, 0]], [0; 3]);
        assert_eq!(judged.sources, Mask::all(3));
    }

    #[test]
    fn undoing_leaves_what_came_later() {
        let all = marks([[0, 0, 2], [0, 0, 2], [0, 0, 0]], [0, 0, 1]);
        let changes = undo(&all, Segment::Data, Mask::only(2), Mask::only(2), Mask::all(3));
        assert_eq!(changes[0].1[2], Changelog([-2, 0, 0]));
        assert_eq!(changes[2].2, Changelog([-1, 0, 0]));
        let failed = undo(&all, Segment::Data, Mask::only(2), Mask::NONE, Mask::all(3));
        assert_eq!(failed[0].1[2], Changelog([1, 0, 0]));
    }
}
