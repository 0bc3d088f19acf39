//! Free pieces of slabs, by size: which is taken next, and which slabs nobody uses any more. No I/O.

use std::collections::BTreeMap;

/// Pieces that are free. Slabs are known by number; all pieces of a slab have one size.
pub struct Shelves<P> {
    sizes: BTreeMap<usize, Shelf<P>>,
    /// Bytes of slabs all of whose pieces are here.
    whole_bytes: usize,
}

struct Shelf<P> {
    per_slab: usize,
    /// Slabs some of whose pieces are in use: taken from first, the oldest before others, so that the rest becomes whole.
    partly: BTreeMap<u64, Vec<P>>,
    whole: BTreeMap<u64, Vec<P>>,
}

impl<P> Default for Shelves<P> {
    fn default() -> Shelves<P> {
        Shelves { sizes: BTreeMap::new(), whole_bytes: 0 }
    }
}

impl<P> Shelves<P> {
    /// A piece of `size` bytes.
    pub fn take(&mut self, size: usize) -> Option<P> {
        let shelf = self.sizes.get_mut(&size)?;
        if shelf.partly.is_empty() {
            let (slab, pieces) = shelf.whole.pop_first()?;
            self.whole_bytes = self.whole_bytes.saturating_sub(size * shelf.per_slab);
            shelf.partly.insert(slab, pieces);
        }
        let mut slab = shelf.partly.first_entry()?;
        let piece = slab.get_mut().pop();
        if slab.get().is_empty() {
            slab.remove();
        }
        piece
    }

    /// A piece of more than `size` bytes, the smallest, and its size: for want of a better one.
    pub fn take_bigger(&mut self, size: usize) -> Option<(P, usize)> {
        let sizes: Vec<usize> = self.sizes.range(size + 1..).map(|(size, _)| *size).collect();
        sizes.into_iter().find_map(|size| Some((self.take(size)?, size)))
    }

    /// Puts a piece of `size` bytes, one of `per_slab` of its slab, back.
    pub fn put(&mut self, size: usize, slab: u64, per_slab: usize, piece: P) {
        let shelf = self.sizes.entry(size).or_insert_with(|| Shelf {
            per_slab,
            partly: BTreeMap::new(),
            whole: BTreeMap::new(),
        });
        let pieces = shelf.partly.entry(slab).or_default();
        pieces.push(piece);
        if pieces.len() >= shelf.per_slab
            && let Some(pieces) = shelf.partly.remove(&slab)
        {
            shelf.whole.insert(slab, pieces);
            self.whole_bytes += size * shelf.per_slab;
        }
    }

    /// Bytes of slabs that nobody uses.
    pub fn whole_bytes(&self) -> usize {
        self.whole_bytes
    }

    /// All pieces of a slab that nobody uses, of the biggest size there is, the youngest.
    pub fn take_whole(&mut self) -> Option<Vec<P>> {
        let (size, shelf) = self.sizes.iter_mut().rev().find(|(_, shelf)| !shelf.whole.is_empty())?;
        let (_, pieces) = shelf.whole.pop_last()?;
        self.whole_bytes = self.whole_bytes.saturating_sub(size * shelf.per_slab);
        Some(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(shelves: &mut Shelves<(u64, usize)>, size: usize, slab: u64, per_slab: usize) {
        for n in 0..per_slab {
            shelves.put(size, slab, per_slab, (slab, n));
        }
    }

    #[test]
    fn slabs_of_any_size_come_back_once_nobody_uses_them() {
        let mut shelves = Shelves::default();
        fill(&mut shelves, 4, 1, 8);
        fill(&mut shelves, 32, 2, 1);
        assert_eq!(shelves.whole_bytes(), 64);
        let used = shelves.take(4).unwrap();
        assert_eq!(shelves.whole_bytes(), 32);
        assert_eq!(shelves.take_whole(), Some(vec![(2, 0)]));
        assert_eq!(shelves.take_whole(), None, "one of its pieces is in use");
        shelves.put(4, used.0, 8, used);
        assert_eq!(shelves.take_whole().map(|pieces| pieces.len()), Some(8));
        assert_eq!((shelves.whole_bytes(), shelves.take(4)), (0, None));
    }

    #[test]
    fn slabs_in_use_are_taken_from_first() {
        let mut shelves = Shelves::default();
        fill(&mut shelves, 4, 1, 2);
        fill(&mut shelves, 4, 2, 2);
        let first = shelves.take(4).unwrap();
        assert_eq!(shelves.take(4).unwrap().0, first.0);
        let other = shelves.take(4).unwrap();
        assert_ne!(other.0, first.0);
        shelves.put(4, first.0, 2, first);
        assert_eq!(shelves.take(4), Some(first), "the older one");
    }

    #[test]
    fn a_bigger_one_serves_for_want_of_a_better() {
        let mut shelves = Shelves::default();
        fill(&mut shelves, 16, 1, 1);
        fill(&mut shelves, 8, 2, 2);
        assert_eq!(shelves.take_bigger(4).map(|(piece, size)| (piece.0, size)), Some((2, 8)));
        assert_eq!(shelves.take_bigger(8), Some(((1, 0), 16)));
        assert_eq!(shelves.take_bigger(8), None);
    }
}
