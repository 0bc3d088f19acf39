//! Client quorum: how many copies an operation needs before it may be acknowledged.

use super::mask::Mask;

/// The rule (`quorum-type`, `quorum-count`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    children: usize,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    None,
    Auto,
    Fixed(usize),
}

impl Quorum {
    /// A majority; of an even number, half is enough with the first child in it.
    pub fn auto(children: usize) -> Quorum {
        Quorum { children, rule: Rule::Auto }
    }

    /// One copy is enough.
    pub fn none(children: usize) -> Quorum {
        Quorum { children, rule: Rule::None }
    }

    /// `count` copies.
    pub fn fixed(children: usize, count: usize) -> Quorum {
        Quorum { children, rule: Rule::Fixed(count) }
    }

    /// Whether `have` are enough.
    pub fn met(self, have: Mask) -> bool {
        match self.rule {
            Rule::None => !have.is_empty(),
            Rule::Fixed(count) => have.count() >= count,
            Rule::Auto if have.count() * 2 == self.children => have.has(0),
            Rule::Auto => have.count() > self.children / 2,
        }
    }

    /// Whether any two quorums have a copy in common.
    pub fn is_majority(self) -> bool {
        self.needed() * 2 > self.children
    }

    /// How many copies make it (for messages, and for AFR's weighing of accusations).
    pub fn needed(self) -> usize {
        match self.rule {
            Rule::None => 1,
            Rule::Fixed(count) => count,
            Rule::Auto => self.children / 2 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_and_for_pairs_the_first() {
        let three = Quorum::auto(3);
        assert!(!three.met(Mask::only(0)) && three.met(Mask::all(2)));
        let two = Quorum::auto(2);
        assert!(two.met(Mask::only(0)) && !two.met(Mask::only(1)) && two.met(Mask::all(2)));
        assert!(!Quorum::none(2).met(Mask::NONE) && Quorum::none(2).met(Mask::only(1)));
        assert!(!Quorum::fixed(3, 3).met(Mask::all(2)) && Quorum::fixed(3, 3).met(Mask::all(3)));
    }
}
