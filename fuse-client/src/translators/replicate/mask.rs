//! Sets of children, as bits.

use std::ops::{BitAnd, BitOr, BitOrAssign, Sub, SubAssign};

/// As many children as GlusterFS's AFR takes (its readable maps are 16 bits wide).
pub const MAX_CHILDREN: usize = 16;

/// A set of children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask(u16);

impl Mask {
    /// No child.
    pub const NONE: Mask = Mask(0);

    /// The first `count` children.
    pub fn all(count: usize) -> Mask {
        (0..count.min(MAX_CHILDREN)).collect()
    }

    /// Just `child`.
    pub fn only(child: usize) -> Mask {
        Mask(1u16.checked_shl(child as u32).unwrap_or(0))
    }

    /// Whether `child` is in it.
    pub fn has(self, child: usize) -> bool {
        self.0 & Mask::only(child).0 != 0
    }

    /// Puts `child` in.
    pub fn add(&mut self, child: usize) {
        self.0 |= Mask::only(child).0;
    }

    /// Takes `child` out.
    pub fn take(&mut self, child: usize) {
        self.0 &= !Mask::only(child).0;
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The lowest child.
    pub fn first(self) -> Option<usize> {
        self.iter().next()
    }

    /// Its children, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_CHILDREN).filter(move |child| self.has(*child))
    }
}

impl FromIterator<usize> for Mask {
    fn from_iter<I: IntoIterator<Item = usize>>(children: I) -> Mask {
        let mut mask = Mask::NONE;
        for child in children {
            mask.add(child);
        }
        mask
    }
}

impl BitAnd for Mask {
    type Output = Mask;
    fn bitand(self, other: Mask) -> Mask {
        Mask(self.0 & other.0)
    }
}

impl BitOr for Mask {
    type Output = Mask;
    fn bitor(self, other: Mask) -> Mask {
        Mask(self.0 | other.0)
    }
}

impl BitOrAssign for Mask {
    fn bitor_assign(&mut self, other: Mask) {
        self.0 |= other.0;
    }
}

impl Sub for Mask {
    type Output = Mask;
    fn sub(self, other: Mask) -> Mask {
        Mask(self.0 & !other.0)
    }
}

impl SubAssign for Mask {
    fn sub_assign(&mut self, other: Mask) {
        self.0 &= !other.0;
    }
}
