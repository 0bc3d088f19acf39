//! Directory offsets that carry the subvolume they are of, in GlusterFS 10.3's form (libglusterfs/gf-dirent.c): small
//! ones are multiplied, large ones give their lowest bits to the subvolume's number. Seeking anywhere works.

/// Marks the second form.
const TOP_BIT: u64 = 1 << 62;

/// What a listing's end looks like on some file systems; it is passed on as it is.
const LAST: u64 = u64::MAX;

/// Offsets over `count` subvolumes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offsets {
    count: u64,
    bits: u32,
}

impl Offsets {
    pub fn new(count: usize) -> Offsets {
        let count = count.max(1) as u64;
        Offsets { count, bits: count.next_power_of_two().trailing_zeros() }
    }

    /// The offset that applications see for a subvolume's own.
    pub fn outward(&self, own: u64, subvolume: usize) -> u64 {
        if own == LAST || own == 0 || self.count == 1 {
            return own;
        }
        // The bits that a product would lose.
        let high = !((u64::MAX >> 1) >> (self.bits + 1));
        let low_mask = u64::MAX << self.bits;
        match own & high {
            0 => own * self.count + subvolume as u64,
            _ => TOP_BIT | ((own >> 1) & low_mask) | subvolume as u64,
        }
    }

    /// Which subvolume an offset is of, and what it was there.
    pub fn inward(&self, seen: u64) -> (usize, u64) {
        if self.count == 1 || seen == 0 {
            return (0, seen);
        }
        let low_mask = u64::MAX << self.bits;
        let (subvolume, own) = match seen & TOP_BIT {
            0 => (seen % self.count, seen / self.count),
            _ => (seen & !low_mask, ((seen & !TOP_BIT) & low_mask) << 1),
        };
        // One that no listing gave out begins at the beginning.
        if subvolume < self.count { (subvolume as usize, own) } else { (0, 0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_offsets_come_back_as_they_were() {
        for count in [1, 2, 3, 4, 5, 100] {
            let offsets = Offsets::new(count);
            for own in [1, 2, 3, 1000, 1 << 40] {
                for subvolume in [0, count / 2, count - 1] {
                    let seen = offsets.outward(own, subvolume);
                    let expected = if count == 1 { 0 } else { subvolume };
                    assert_eq!(offsets.inward(seen), (expected, own), "{count} {own}");
                }
            }
        }
    }

    #[test]
    fn large_ones_lose_low_bits_only() {
        // ext4's offsets are hashes of 63 bits.
        let offsets = Offsets::new(3);
        let own = 0x7abc_def0_1234_5678;
        let seen = offsets.outward(own, 2);
        assert!(seen <= i64::MAX as u64);
        let (subvolume, back) = offsets.inward(seen);
        assert_eq!((subvolume, back), (2, own & !0b111));
    }

    #[test]
    fn the_ends_are_kept_and_nonsense_begins_anew() {
        let offsets = Offsets::new(3);
        assert_eq!((offsets.outward(0, 2), offsets.outward(u64::MAX, 1)), (0, u64::MAX));
        assert_eq!(offsets.inward(0), (0, 0));
        assert_eq!(offsets.inward(TOP_BIT | 3), (0, 0));
    }
}
