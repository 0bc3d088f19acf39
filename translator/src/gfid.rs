//! The 16-byte identity of an inode, equal on every brick that holds a copy.

use std::fmt;
use std::str::FromStr;

/// An inode's identity: a random (version 4) UUID, stored on bricks in the `trusted.gfid` xattr.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Gfid(pub [u8; 16]);

impl Gfid {
    /// "No gfid": what a nameless field of the wire holds.
    pub const NULL: Gfid = Gfid([0; 16]);
    /// The root directory of every volume.
    pub const ROOT: Gfid = Gfid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// A fresh random gfid.
    pub fn random() -> Gfid {
        Gfid(*uuid::Uuid::new_v4().as_bytes())
    }

    /// Builds a version 4 gfid out of 128 random bits (the simulator's, so that seeds replay).
    pub fn from_random_bits(bits: u128) -> Gfid {
        Gfid(*uuid::Builder::from_random_bytes(bits.to_be_bytes()).as_uuid().as_bytes())
    }

    /// Whether this is [`Gfid::NULL`].
    pub fn is_null(&self) -> bool {
        *self == Gfid::NULL
    }

    /// Whether this is [`Gfid::ROOT`].
    pub fn is_root(&self) -> bool {
        *self == Gfid::ROOT
    }

    /// The inode number applications see: bytes 8..15 read big-endian, as GlusterFS does (root is 1).
    pub fn ino(&self) -> u64 {
        let mut tail = [0; 8];
        tail.copy_from_slice(&self.0[8..]);
        u64::from_be_bytes(tail)
    }

    /// Takes exactly 16 bytes (an xattr's or a dict's value); `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Gfid> {
        Some(Gfid(bytes.try_into().ok()?))
    }
}

impl fmt::Display for Gfid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for Gfid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not a UUID.
#[derive(Debug, thiserror::Error)]
#[error("not a gfid: {0:?}")]
pub struct ParseGfidError(String);

impl FromStr for Gfid {
    type Err = ParseGfidError;

    fn from_str(text: &str) -> Result<Gfid, ParseGfidError> {
        match uuid::Uuid::try_parse(text) {
            Ok(uuid) => Ok(Gfid(*uuid.as_bytes())),
            Err(_) => Err(ParseGfidError(text.chars().take(64).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_inode_one_and_text_round_trips() {
        assert_eq!(Gfid::ROOT.ino(), 1);
        let gfid = Gfid::random();
        assert_eq!(gfid.to_string().parse::<Gfid>().unwrap(), gfid);
        assert!("zz".parse::<Gfid>().is_err());
    }
}
