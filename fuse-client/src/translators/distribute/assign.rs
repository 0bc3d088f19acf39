//! New ranges for a directory, as GlusterFS 10.3 gives them (dht-selfheal.c): in the order of the subvolumes' names, from
//! one that the directory's path picks, in equal parts or by the size of the subvolumes.

use ladrillo_translator::error::errno::{ENOENT, ENOSPC};

use super::layout::{Layout, State};

/// What decides about the ranges beside the layout's states.
pub(crate) struct Assignment<'a> {
    /// Hash of the directory's path.
    pub path_hash: u32,
    /// Subvolumes that get a part at most; 0 = all (`directory-layout-spread`).
    pub spread: usize,
    /// Sizes of the subvolumes in MiB, where they weigh (`weighted-rebalance`); 0 = not known.
    pub weights: Option<&'a [u32]>,
    /// Subvolumes that are going away.
    pub decommissioned: &'a [usize],
    /// Names of the subvolumes.
    pub names: &'a [String],
}

impl Assignment<'_> {
    /// Gives `layout` new ranges: those whose directory is there (or will be made) get one.
    pub fn apply(&self, layout: &mut Layout) {
        layout.pieces.sort_by(|a, b| self.names.get(a.subvolume).cmp(&self.names.get(b.subvolume)));
        let parts = self.parts(layout);
        let count = layout.pieces.len();
        if count == 0 {
            return;
        }
        let gets = |state: State| matches!(state, State::Wanting | State::Failed(ENOENT));
        let weight = |subvolume: usize| self.weights.and_then(|weights| weights.get(subvolume).copied()).unwrap_or(0);
        let weights: Vec<u32> =
            layout.pieces.iter().filter(|piece| gets(piece.state)).take(parts).map(|p| weight(p.subvolume)).collect();
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let weighted = self.weights.is_some() && total > 0 && weights.iter().all(|weight| *weight > 0);
        let chunk = f64::from(u32::MAX) / if weighted { total as f64 } else { parts as f64 };
        let first = self.path_hash as usize % count;
        for piece in &mut layout.pieces {
            (piece.start, piece.stop) = (0, 0);
        }
        let commit_hash = layout.commit_hash;
        let (mut start, mut used) = (0_u32, 0);
        for step in 0..count {
            let piece = &mut layout.pieces[(step + first) % count];
            if !gets(piece.state) {
                continue;
            }
            let size = if weighted { weight(piece.subvolume) } else { 1 };
            if size == 0 {
                continue;
            }
            let range = (chunk * f64::from(size)) as u32;
            piece.start = start;
            piece.stop = start.wrapping_add(range).wrapping_sub(1);
            piece.commit_hash = commit_hash;
            used += 1;
            if used >= parts {
                piece.stop = u32::MAX;
                return;
            }
            start = start.wrapping_add(range);
        }
    }

    /// How many subvolumes get a range; those that are there are marked as wanting one.
    fn parts(&self, layout: &mut Layout) -> usize {
        let mut count = 0;
        for piece in &mut layout.pieces {
            if self.decommissioned.contains(&piece.subvolume) {
                piece.state = State::Failed(ladrillo_translator::error::errno::EINVAL);
            }
            match piece.state {
                State::Sound => piece.state = State::Wanting,
                State::Wanting | State::Failed(ENOENT) => {}
                State::Failed(_) => continue,
            }
            count += 1;
        }
        if count == 0 {
            // None has room: a directory has to have a layout all the same.
            for piece in layout.pieces.iter_mut().filter(|piece| piece.state == State::Failed(ENOSPC)) {
                piece.state = State::Wanting;
                count += 1;
            }
        }
        match self.spread {
            spread if spread > 0 && spread <= count => spread,
            _ => count.max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("v-client-{n}")).collect()
    }

    fn ranges(layout: &Layout) -> Vec<(usize, u32, u32)> {
        layout.pieces.iter().map(|piece| (piece.subvolume, piece.start, piece.stop)).collect()
    }

    fn equal(names: &[String]) -> Assignment<'_> {
        Assignment { path_hash: 0, spread: 0, weights: None, decommissioned: &[], names }
    }

    #[test]
    fn equal_parts_begin_where_the_path_says() {
        let names = names(3);
        let mut layout = Layout::blank(3);
        Assignment { path_hash: 4, ..equal(&names) }.apply(&mut layout);
        assert_eq!(
            ranges(&layout),
            [(0, 0xaaaa_aaaa, 0xffff_ffff), (1, 0, 0x5555_5554), (2, 0x5555_5555, 0xaaaa_aaa9)]
        );
        assert!(!{
            for piece in &mut layout.pieces {
                piece.state = State::Sound;
            }
            layout.anomalies().is_broken()
        });
    }

    #[test]
    fn sizes_weigh_where_all_are_known() {
        let names = names(2);
        let mut layout = Layout::blank(2);
        Assignment { weights: Some(&[100, 300]), ..equal(&names) }.apply(&mut layout);
        assert_eq!(ranges(&layout), [(0, 0, 0x3fff_fffe), (1, 0x3fff_ffff, 0xffff_ffff)]);
        let mut layout = Layout::blank(2);
        Assignment { weights: Some(&[100, 0]), ..equal(&names) }.apply(&mut layout);
        assert_eq!(ranges(&layout), [(0, 0, 0x7fff_fffe), (1, 0x7fff_ffff, 0xffff_ffff)]);
    }

    #[test]
    fn the_full_and_the_leaving_get_none() {
        let names = names(3);
        let mut layout = Layout::blank(3);
        layout.pieces[0].state = State::Failed(ENOSPC);
        Assignment { decommissioned: &[1], ..equal(&names) }.apply(&mut layout);
        assert_eq!(ranges(&layout), [(0, 0, 0), (1, 0, 0), (2, 0, u32::MAX)]);
        let mut layout = Layout::blank(3);
        for piece in &mut layout.pieces {
            piece.state = State::Failed(ENOSPC);
        }
        Assignment { spread: 2, ..equal(&names) }.apply(&mut layout);
        assert_eq!(ranges(&layout), [(0, 0, 0x7fff_fffe), (1, 0x7fff_ffff, u32::MAX), (2, 0, 0)]);
    }
}
