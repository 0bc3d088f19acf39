//! What a connection decides, without I/O: credits, the shape of messages, how a record is put together from its parts.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::wire::{CHUNK_BYTES, Chunk, FIXED_BYTES, Violation};
use crate::MAX_RECORD_BYTES;

/// Credits of both directions. Each side says up to which number (counted from the beginning of the connection, modulo 2^32)
/// it is ready to receive messages; a lost or late word about it does no harm. Messages of kind credit and offer are not counted.
#[derive(Debug)]
pub struct Credits {
    window: u32,
    sent: u32,
    peer_limit: u32,
    received: u32,
    consumed: u32,
    advertised: u32,
    /// Messages that only speak of credits which the other side may still send.
    words: u32,
}

/// Words about credits that the other side may be ahead of their reasons.
const MOST_WORDS: u32 = 512;
/// Reasons for them that each second gives.
const WORDS_PER_SECOND: u32 = 8;

impl Credits {
    /// We are ready to receive `window` at a time, the other side begins with `peer_window`.
    pub fn new(window: u32, peer_window: u32) -> Credits {
        Credits {
            window,
            sent: 0,
            peer_limit: peer_window,
            received: 0,
            consumed: 0,
            advertised: window,
            words: MOST_WORDS / 2,
        }
    }

    /// Whether a message may be sent.
    pub fn may_send(&self) -> bool {
        (self.peer_limit.wrapping_sub(self.sent) as i32) > 0
    }

    /// One was sent.
    pub fn sent(&mut self) {
        self.sent = self.sent.wrapping_add(1);
        self.add_words(1);
    }

    fn add_words(&mut self, count: u32) {
        self.words = self.words.saturating_add(count).min(MOST_WORDS);
    }

    /// A message has come that says nothing but how many more may be sent: there is reason for one with each message that is
    /// sent or received, and for some in a second.
    ///
    /// # Errors
    /// Too many: a flood.
    pub fn word(&mut self) -> Result<(), Violation> {
        self.words = self.words.checked_sub(1).ok_or(Violation::Unexpected("a flood of words about credits"))?;
        Ok(())
    }

    /// A second has passed.
    pub fn second(&mut self) {
        self.add_words(WORDS_PER_SECOND);
    }

    /// The other side has said up to where it is ready.
    pub fn heard(&mut self, limit: u32) {
        if (limit.wrapping_sub(self.peer_limit) as i32) > 0 {
            self.peer_limit = limit;
        }
    }

    /// One has come.
    ///
    /// # Errors
    /// It was not allowed.
    pub fn received(&mut self) -> Result<(), Violation> {
        if (self.advertised.wrapping_sub(self.received) as i32) <= 0 {
            return Err(Violation::Credits);
        }
        self.received = self.received.wrapping_add(1);
        self.add_words(1);
        Ok(())
    }

    /// One that had come is out of the way.
    pub fn consumed(&mut self) {
        self.consumed = self.consumed.wrapping_add(1);
    }

    /// What goes into the next header.
    pub fn advertise(&mut self) -> u32 {
        self.advertised = self.consumed.wrapping_add(self.window);
        self.advertised
    }

    /// Whether the other side may soon have to stop for want of a header that tells it to go on.
    pub fn owes_word(&self) -> bool {
        self.consumed.wrapping_add(self.window).wrapping_sub(self.advertised) >= (self.window / 2).max(1)
    }
}

/// How long a peer may take nothing of what waits for it; as for sockets (TCP_USER_TIMEOUT, 42 s).
pub const PATIENCE: Duration = Duration::from_secs(42);

/// Since when nothing has moved though something waited for the other side.
#[derive(Debug)]
pub struct Patience {
    moved: Instant,
}

impl Patience {
    /// From now on.
    pub fn new(now: Instant) -> Patience {
        Patience { moved: now }
    }

    /// The other side has taken something.
    pub fn moved(&mut self, now: Instant) {
        self.moved = now;
    }

    /// To be asked now and then, with whether something waits for the other side: whether it has taken too long.
    pub fn is_over(&mut self, waits: bool, now: Instant) -> bool {
        if !waits {
            self.moved = now;
        }
        now.saturating_duration_since(self.moved) > PATIENCE
    }
}

/// How a record travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All of it in the message.
    Inline,
    /// Its header in the message, the payload in a chunk.
    Payload,
    /// All of it in chunks.
    Chunks,
}

/// The shape of a record in messages of at most `inline_bytes`, with `chunks` other chunks in the header.
pub fn shape(header: usize, payload: usize, padding: usize, chunks: usize, inline_bytes: usize) -> Shape {
    let room = |chunks: usize| inline_bytes.saturating_sub(FIXED_BYTES + CHUNK_BYTES * chunks);
    if header.saturating_add(payload).saturating_add(padding) <= room(chunks) {
        Shape::Inline
    } else if payload > 0 && header.saturating_add(padding) <= room(chunks + 1) {
        Shape::Payload
    } else {
        Shape::Chunks
    }
}

/// Where a part of a record comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// These bytes behind the message's header.
    Inline(Range<usize>),
    /// The chunk of that index, from that offset in it on.
    Chunk(usize, usize),
}

/// A part of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its place in the record.
    pub at: usize,
    /// Bytes.
    pub len: usize,
    /// Where they come from.
    pub from: From,
}

/// How a record is put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// Length of the record.
    pub total: usize,
    /// Its parts, in order, without gaps.
    pub pieces: Vec<Piece>,
}

impl Assembly {
    /// Of `inline` bytes behind the header and `chunks`, each of which has its place in the record; the rest goes around them.
    /// Without inline bytes (`all_chunks`) the first chunk takes their place.
    ///
    /// # Errors
    /// Chunks that leave gaps, overlap, or make too long a record.
    pub fn new(inline: usize, chunks: &[Chunk], all_chunks: bool) -> Result<Assembly, Violation> {
        let (base_len, others) = match (all_chunks, chunks.split_first()) {
            (false, _) => (inline, chunks),
            (true, Some((first, others))) if inline == 0 && first.position == 0 => (first.length as usize, others),
            (true, _) => return Err(Violation::Chunk("a record in chunks without a first one")),
        };
        let base = |offset: usize, len: usize| match all_chunks {
            true => From::Chunk(0, offset),
            false => From::Inline(offset..offset + len),
        };
        let mut assembly = Assembly { total: 0, pieces: Vec::new() };
        let mut used = 0;
        for (index, chunk) in others.iter().enumerate() {
            let gap = (chunk.position as usize)
                .checked_sub(assembly.total)
                .filter(|gap| *gap <= base_len - used)
                .ok_or(Violation::Chunk("its position"))?;
            assembly.push(gap, base(used, gap));
            used += gap;
            assembly.push(chunk.length as usize, From::Chunk(index + usize::from(all_chunks), 0));
            if assembly.total > MAX_RECORD_BYTES {
                return Err(Violation::Chunk("a record too long"));
            }
        }
        assembly.push(base_len - used, base(used, base_len - used));
        match assembly.total {
            0..=MAX_RECORD_BYTES => Ok(assembly),
            _ => Err(Violation::Chunk("a record too long")),
        }
    }

    fn push(&mut self, len: usize, from: From) {
        if len > 0 {
            self.pieces.push(Piece { at: self.total, len, from });
            self.total += len;
        }
    }

    /// Where the first chunk's data begins, if there is any.
    pub fn first_chunk_at(&self) -> Option<usize> {
        self.pieces.iter().find(|piece| matches!(piece.from, From::Chunk(..))).map(|piece| piece.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(position: usize, length: usize) -> Chunk {
        Chunk { position: position as u32, handle: 1, length: length as u32, address: 0 }
    }

    #[test]
    fn words_without_reason_are_a_flood() {
        let mut credits = Credits::new(128, 128);
        let allowed = (0..).take_while(|_| credits.word().is_ok()).count();
        assert!((100..=MOST_WORDS as usize).contains(&allowed), "{allowed}");
        assert!(credits.word().is_err());
        credits.sent();
        assert!(credits.received().is_ok());
        assert!(credits.word().is_ok() && credits.word().is_ok() && credits.word().is_err());
        for _ in 0..3600 {
            credits.second();
        }
        assert_eq!((0..).take_while(|_| credits.word().is_ok()).count(), MOST_WORDS as usize);
    }

    #[test]
    fn who_takes_nothing_of_what_waits_is_given_up() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut patience = Patience::new(begun);
        assert!(!patience.is_over(false, after(1000)), "nothing waited");
        assert!(!patience.is_over(true, after(1042)));
        patience.moved(after(1042));
        assert!(!patience.is_over(true, after(1080)));
        assert!(patience.is_over(true, after(1085)));
    }

    #[test]
    fn credits_flow() {
        let (mut us, mut them) = (Credits::new(4, 2), Credits::new(2, 4));
        for _ in 0..2 {
            assert!(us.may_send());
            us.sent();
            them.received().unwrap();
        }
        assert!(!us.may_send());
        assert_eq!(them.received(), Err(Violation::Credits), "a third is one too many");
        assert!(!them.owes_word());
        them.consumed();
        assert!(them.owes_word());
        let word = them.advertise();
        assert!(!them.owes_word());
        us.heard(word);
        us.heard(word.wrapping_sub(1));
        assert!(us.may_send());
        us.sent();
        them.received().unwrap();
        assert!(!us.may_send());
    }

    #[test]
    fn credits_go_around() {
        let (mut us, mut them) = (Credits::new(1, 3), Credits::new(3, 1));
        (us.sent, us.peer_limit) = (u32::MAX - 1, 1);
        (them.received, them.consumed, them.advertised) = (u32::MAX - 1, u32::MAX - 1, 1);
        for _ in 0..10 {
            assert!(us.may_send());
            us.sent();
            them.received().unwrap();
            them.consumed();
            us.heard(them.advertise());
        }
    }

    #[test]
    fn shapes() {
        let room = 4096 - FIXED_BYTES;
        assert_eq!(shape(room, 0, 0, 0, 4096), Shape::Inline);
        assert_eq!(shape(room + 1, 0, 0, 0, 4096), Shape::Chunks);
        assert_eq!(shape(200, 4096, 0, 0, 4096), Shape::Payload);
        assert_eq!(shape(room, 4096, 0, 0, 4096), Shape::Chunks);
        assert_eq!(shape(room - CHUNK_BYTES, 4096, 0, 0, 4096), Shape::Payload);
        assert_eq!(shape(usize::MAX, 4096, 3, 1, 4096), Shape::Chunks);
    }

    #[test]
    fn records_are_put_together() {
        let pieces = |a: Assembly| a.pieces.into_iter().map(|p| (p.at, p.len, p.from)).collect::<Vec<_>>();
        assert_eq!(pieces(Assembly::new(10, &[], false).unwrap()), [(0, 10, From::Inline(0..10))]);
        assert_eq!(
            pieces(Assembly::new(10, &[chunk(8, 100)], false).unwrap()),
            [(0, 8, From::Inline(0..8)), (8, 100, From::Chunk(0, 0)), (108, 2, From::Inline(8..10))]
        );
        assert_eq!(
            pieces(Assembly::new(0, &[chunk(0, 50), chunk(47, 5)], true).unwrap()),
            [(0, 47, From::Chunk(0, 0)), (47, 5, From::Chunk(1, 0)), (52, 3, From::Chunk(0, 47))]
        );
        for (inline, chunks, all) in [
            (10, vec![chunk(11, 1)], false),
            (10, vec![chunk(5, 5), chunk(9, 1)], false),
            (0, vec![], true),
            (1, vec![chunk(0, 1)], true),
            (0, vec![chunk(1, 1)], true),
            (0, vec![chunk(0, MAX_RECORD_BYTES), chunk(0, 1)], true),
        ] {
            assert!(Assembly::new(inline, &chunks, all).is_err(), "{inline} {chunks:?}");
        }
    }

    proptest! {
        #[test]
        fn an_assembly_has_no_gaps(
            inline in 0..5000usize,
            chunks in prop::collection::vec((0..6000usize, 1..5000usize), 0..4),
            all: bool,
        ) {
            let chunks: Vec<Chunk> = chunks.into_iter().map(|(position, length)| chunk(position, length)).collect();
            let Ok(assembly) = Assembly::new(inline, &chunks, all) else { return Ok(()) };
            let mut at = 0;
            for piece in &assembly.pieces {
                prop_assert_eq!(piece.at, at);
                at += piece.len;
                if let From::Chunk(index, offset) = piece.from {
                    prop_assert!(offset + piece.len <= chunks[index].length as usize);
                    prop_assert!(piece.len > 0);
                }
            }
            prop_assert_eq!(at, assembly.total);
            prop_assert_eq!(at, if all { 0 } else { inline } + chunks.iter().map(|c| c.length as usize).sum::<usize>());
        }
    }
}
