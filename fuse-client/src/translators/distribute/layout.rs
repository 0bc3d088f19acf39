//! The layout of a directory: which subvolume answers for which part of the 32-bit hash.
//!
//! On disk each subvolume's directory holds its own piece, `trusted.glusterfs.dht`: four big-endian words, commit hash,
//! type, first and last hash (GlusterFS 10.3, dht-layout.c). A piece whose first and last are equal takes no part.

use bytes::Bytes;
use ladrillo_translator::error::errno::{ENOENT, ENOSPC, ENOTCONN, ESTALE};

/// The commit hash of a layout that was changed: names may lie elsewhere (DHT_LAYOUT_HASH_INVALID).
pub(crate) const COMMIT_HASH_INVALID: u32 = 1;

/// How the ranges were made (DHT_HASH_TYPE_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HashType {
    /// By the translator.
    #[default]
    Dm,
    /// By somebody who set the xattr: not to be assigned anew.
    DmUser,
}

/// What is known of a subvolume's directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// It is there, and its piece is what is on disk (or it has none).
    #[default]
    Sound,
    /// It is there and is to get a range.
    Wanting,
    /// It could not be seen, or is not to get a range: an errno.
    Failed(i32),
}

impl State {
    /// The directory does not exist there.
    pub fn is_missing(self) -> bool {
        matches!(self, State::Failed(ENOENT | ESTALE))
    }
}

/// One subvolume's part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    pub subvolume: usize,
    pub state: State,
    /// First hash.
    pub start: u32,
    /// Last hash.
    pub stop: u32,
    pub commit_hash: u32,
}

impl Piece {
    /// Whether it answers for any hash.
    pub fn takes_part(&self) -> bool {
        self.start != self.stop
    }
}

/// A directory's layout: a piece for each subvolume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub hash_type: HashType,
    pub commit_hash: u32,
    pub pieces: Vec<Piece>,
}

/// What is wrong with a layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Anomalies {
    /// Stretches of the hash nobody answers for.
    pub holes: u32,
    /// Stretches with two answers.
    pub overlaps: u32,
    /// Subvolumes that lack the directory, or a range in it.
    pub missing: u32,
    /// Subvolumes that are down.
    pub down: u32,
    /// Subvolumes that failed for another reason.
    pub misc: u32,
}

/// A piece as it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskPiece {
    pub commit_hash: u32,
    pub hash_type: HashType,
    pub start: u32,
    pub stop: u32,
}

impl DiskPiece {
    /// From the xattr. `None`: not a layout, or of a type that this release does not know.
    pub fn decode(raw: &[u8]) -> Option<DiskPiece> {
        let (words, []) = raw.as_chunks::<4>() else { return None };
        let [commit_hash, hash_type, start, stop] = words else { return None };
        let hash_type = match u32::from_be_bytes(*hash_type) {
            0 => HashType::Dm,
            1 => HashType::DmUser,
            _ => return None,
        };
        Some(DiskPiece {
            commit_hash: u32::from_be_bytes(*commit_hash),
            hash_type,
            start: u32::from_be_bytes(*start),
            stop: u32::from_be_bytes(*stop),
        })
    }

    /// For the xattr.
    pub fn encode(&self) -> Bytes {
        let hash_type = match self.hash_type {
            HashType::Dm => 0_u32,
            HashType::DmUser => 1,
        };
        let words = [self.commit_hash, hash_type, self.start, self.stop];
        words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>().into()
    }
}

impl Layout {
    /// One in which each of `count` subvolumes is there without a range.
    #[cfg(test)]
    pub fn blank(count: usize) -> Layout {
        let pieces = (0..count).map(|subvolume| Piece { subvolume, ..Piece::default() }).collect();
        Layout { pieces, ..Layout::default() }
    }

    /// Adds what a subvolume says of its directory: its xattr, or the errno it failed with.
    pub fn add(&mut self, subvolume: usize, found: Result<Option<&[u8]>, i32>) {
        let mut piece = Piece { subvolume, ..Piece::default() };
        match found {
            Err(errno) => piece.state = State::Failed(errno),
            Ok(None) => {}
            Ok(Some(raw)) => match DiskPiece::decode(raw) {
                Some(disk) => {
                    if disk.hash_type == HashType::DmUser {
                        self.hash_type = HashType::DmUser;
                    }
                    piece = Piece { start: disk.start, stop: disk.stop, commit_hash: disk.commit_hash, ..piece };
                    match self.commit_hash {
                        0 => self.commit_hash = disk.commit_hash,
                        same if same == disk.commit_hash => {}
                        _ => self.commit_hash = COMMIT_HASH_INVALID,
                    }
                }
                None => tracing::error!(subvolume, "a layout that cannot be read: it is treated as absent"),
            },
        }
        self.pieces.push(piece);
    }

    /// The piece of a subvolume.
    pub fn piece(&self, subvolume: usize) -> Option<&Piece> {
        self.pieces.iter().find(|piece| piece.subvolume == subvolume)
    }

    /// The piece of a subvolume, to change it.
    pub fn piece_mut(&mut self, subvolume: usize) -> Option<&mut Piece> {
        self.pieces.iter_mut().find(|piece| piece.subvolume == subvolume)
    }

    /// A subvolume's piece as its xattr has it.
    pub fn encode(&self, subvolume: usize) -> Option<Bytes> {
        let piece = self.piece(subvolume)?;
        let hash_type = self.hash_type;
        Some(DiskPiece { commit_hash: piece.commit_hash, hash_type, start: piece.start, stop: piece.stop }.encode())
    }

    /// Who answers for `hash`.
    pub fn search(&self, hash: u32) -> Option<usize> {
        let answers = |piece: &&Piece| piece.takes_part() && (piece.start..=piece.stop).contains(&hash);
        self.pieces.iter().find(answers).map(|piece| piece.subvolume)
    }

    /// Brings the pieces in the order of their ranges.
    pub fn sort(&mut self) {
        self.pieces.sort_by_key(|piece| (piece.start, piece.stop, piece.subvolume));
    }

    /// Whether a subvolume could not be seen when this was learnt, because it was down.
    pub fn lacks_some(&self) -> bool {
        self.pieces.iter().any(|piece| piece.state == State::Failed(ENOTCONN))
    }

    /// How many subvolumes lack the directory.
    pub fn missing_directories(&self) -> usize {
        let lacks = |piece: &&Piece| {
            piece.state == State::Failed(ENOENT)
                || (piece.state == State::Wanting && piece.start == 0 && piece.stop == 0)
        };
        self.pieces.iter().filter(lacks).count()
    }

    /// What is wrong with it. The pieces need no order.
    pub fn anomalies(&self) -> Anomalies {
        let mut sorted = self.clone();
        sorted.sort();
        let mut found = Anomalies::default();
        let first = sorted.pieces.first().map_or(0, |piece| piece.start);
        let last_stop = first.wrapping_sub(1);
        let mut prev_stop = last_stop;
        let mut is_virgin = true;
        for piece in &sorted.pieces {
            match piece.state {
                State::Wanting | State::Failed(ENOENT | ESTALE) => {
                    found.missing += 1;
                    continue;
                }
                State::Failed(ENOTCONN) => {
                    found.down += 1;
                    continue;
                }
                State::Failed(ENOSPC) => continue,
                State::Failed(_) => {
                    found.misc += 1;
                    continue;
                }
                State::Sound if !piece.takes_part() => continue,
                State::Sound => {}
            }
            is_virgin = false;
            let expected = prev_stop.wrapping_add(1);
            if expected < piece.start {
                found.holes += 1;
            }
            if expected > piece.start {
                found.overlaps += 1;
            }
            prev_stop = piece.stop;
        }
        if last_stop != prev_stop || is_virgin {
            found.holes += 1;
        }
        found
    }
}

impl Anomalies {
    /// Whether names have no answer, or two.
    pub fn is_broken(&self) -> bool {
        self.holes > 0 || self.overlaps > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(ranges: &[(u32, u32)]) -> Layout {
        let mut layout = Layout::default();
        for (subvolume, (start, stop)) in ranges.iter().enumerate() {
            let disk = DiskPiece { commit_hash: 0, hash_type: HashType::Dm, start: *start, stop: *stop };
            layout.add(subvolume, Ok(Some(&disk.encode())));
        }
        layout
    }

    #[test]
    fn the_disk_form_is_four_big_endian_words() {
        let raw = [0, 0, 0, 1, 0, 0, 0, 0, 0x55, 0x55, 0x55, 0x55, 0xaa, 0xaa, 0xaa, 0xa9];
        let piece = DiskPiece::decode(&raw).unwrap();
        assert_eq!((piece.commit_hash, piece.start, piece.stop), (1, 0x5555_5555, 0xaaaa_aaa9));
        assert_eq!(piece.encode()[..], raw);
        assert_eq!(DiskPiece::decode(&raw[..15]), None);
        assert_eq!(DiskPiece::decode(&[9; 16]), None);
        assert_eq!(DiskPiece::decode(&[]), None);
    }

    #[test]
    fn a_whole_layout_is_sound() {
        let whole = layout(&[(0x8000_0000, u32::MAX), (0, 0x7fff_ffff), (0, 0)]);
        assert_eq!(whole.anomalies(), Anomalies::default());
        assert_eq!((whole.search(0), whole.search(0x7fff_ffff), whole.search(u32::MAX)), (Some(1), Some(1), Some(0)));
    }

    #[test]
    fn holes_overlaps_and_absentees_are_seen() {
        assert_eq!(layout(&[(0, 0), (0, 0)]).anomalies().holes, 1);
        assert_eq!(layout(&[(0, 9), (20, u32::MAX)]).anomalies(), Anomalies { holes: 1, ..Anomalies::default() });
        assert_eq!(layout(&[(0, 99), (20, u32::MAX)]).anomalies(), Anomalies { overlaps: 1, ..Anomalies::default() });
        let mut down = layout(&[(0, 0x7fff_ffff)]);
        down.add(1, Err(ENOTCONN));
        assert_eq!(down.anomalies(), Anomalies { holes: 1, down: 1, ..Anomalies::default() });
        assert!(down.lacks_some());
        let mut gone = layout(&[(0, u32::MAX)]);
        gone.add(1, Err(ENOENT));
        assert_eq!(gone.anomalies(), Anomalies { missing: 1, ..Anomalies::default() });
        assert_eq!(gone.missing_directories(), 1);
        let mut ill = layout(&[(0, u32::MAX)]);
        ill.add(1, Err(5));
        assert_eq!(ill.anomalies().misc, 1);
    }

    #[test]
    fn different_commit_hashes_are_none() {
        let mut layout = Layout::default();
        for (subvolume, commit_hash) in [(0, 7), (1, 7), (2, 8)] {
            let disk = DiskPiece { commit_hash, hash_type: HashType::Dm, start: 0, stop: 0 };
            layout.add(subvolume, Ok(Some(&disk.encode())));
        }
        assert_eq!(layout.commit_hash, COMMIT_HASH_INVALID);
    }
}
