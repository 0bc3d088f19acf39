//! The header in front of each message on a verbs connection, in the manner of RFC 8166. No I/O.
//!
//! Words of 32 bits, big-endian: xid, version, credit, kind, then two lists: chunks of the sender's memory to be read, chunks
//! to be (or that were) written. A list is `1 chunk` for each, and `0`; a chunk is position, handle, length, address (two words).
//! What differs from RFC 8166: docs/wire.md, "RPC over RDMA".

use bytes::{BufMut, BytesMut};

use crate::MAX_RECORD_BYTES;

/// Version of this protocol, in headers and in private data.
pub const VERSION: u32 = 1;
/// Most chunks in a list; more is no header of ours.
pub const MAX_CHUNKS: usize = 4;
/// Length of a header without chunks, in bytes.
pub const FIXED_BYTES: usize = 6 * 4;
/// What a chunk adds to it, the word that announces it included.
pub const CHUNK_BYTES: usize = 6 * 4;
/// The kind's bit that marks the answer to a call.
const ANSWER: u32 = 1 << 31;
/// First word of the connection manager's private data: "LdrV".
const MAGIC: u32 = 0x4c64_7256;
/// Understands that the other side ends the use of its keys (send with invalidate).
const FLAG_INVALIDATE: u8 = 1;
/// Length of the private data, in bytes.
pub const HELLO_BYTES: usize = 16;
/// Smallest message every side takes, in bytes.
pub const MIN_INLINE_BYTES: u32 = 1024;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A record follows the header, but for what is in chunks (RDMA_MSG).
    Message,
    /// All of the record is in chunks (RDMA_NOMSG).
    Chunks,
    /// Only the credit counts.
    Credit,
    /// A record waits for a chunk of the length in the write list to be put into; the xid is the sender's number for it.
    Need,
    /// The chunk for a [`Kind::Need`] of that number.
    Offer,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Kind::Message => 0,
            Kind::Chunks => 1,
            Kind::Credit => 16,
            Kind::Need => 17,
            Kind::Offer => 18,
        }
    }

    fn from_number(number: u32) -> Option<Kind> {
        [Kind::Message, Kind::Chunks, Kind::Credit, Kind::Need, Kind::Offer]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// A piece of the client's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where in the record its data belongs.
    pub position: u32,
    /// The key.
    pub handle: u32,
    /// Bytes.
    pub length: u32,
    /// Where it is in the client's address space.
    pub address: u64,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the call, or the number of a [`Kind::Need`] and its [`Kind::Offer`].
    pub xid: u32,
    /// How many messages the sender is ready to receive, counted since the connection began.
    pub credit: u32,
    /// What it is.
    pub kind: Kind,
    /// The record is the answer to the other side's call of this xid.
    pub answer: bool,
    /// To be read.
    pub reads: Vec<Chunk>,
    /// To be written, or written.
    pub writes: Vec<Chunk>,
}

/// Why a message is none of this protocol: it ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It ends before its header does.
    #[error("a header cut short")]
    Short,
    /// Another version.
    #[error("version {0} of the header, {VERSION} is spoken here")]
    Version(u32),
    /// No such kind.
    #[error("message of unknown kind {0}")]
    Kind(u32),
    /// A list with a broken end, or too long.
    #[error("a malformed chunk list")]
    List,
    /// A chunk that cannot be.
    #[error("a chunk that cannot be: {0}")]
    Chunk(&'static str),
    /// More messages than were allowed.
    #[error("more messages than credits")]
    Credits,
    /// Well-formed, but not from this side, or not now.
    #[error("unexpected: {0}")]
    Unexpected(&'static str),
}

impl Header {
    /// Length on the wire, in bytes.
    pub fn len(&self) -> usize {
        FIXED_BYTES + CHUNK_BYTES * (self.reads.len() + self.writes.len())
    }

    /// Never: a header has fixed words.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.xid);
        out.put_u32(VERSION);
        out.put_u32(self.credit);
        out.put_u32(self.kind.number() | if self.answer { ANSWER } else { 0 });
        for list in [&self.reads, &self.writes] {
            for chunk in list {
                out.put_u32(1);
                out.put_u32(chunk.position);
                out.put_u32(chunk.handle);
                out.put_u32(chunk.length);
                out.put_u64(chunk.address);
            }
            out.put_u32(0);
        }
    }

    /// Reads one from the front of a message, and gives its length.
    ///
    /// # Errors
    /// What is no header; a chunk of no or too many bytes, one that wraps around the address space.
    pub fn decode(message: &[u8]) -> Result<(Header, usize), Violation> {
        let mut words = Words { rest: message };
        let (xid, version, credit, kind) = (words.next()?, words.next()?, words.next()?, words.next()?);
        if version != VERSION {
            return Err(Violation::Version(version));
        }
        let number = kind & !ANSWER;
        let known = Kind::from_number(number).ok_or(Violation::Kind(number))?;
        let (reads, writes) = (words.list()?, words.list()?);
        let header = Header { xid, credit, kind: known, answer: kind & ANSWER != 0, reads, writes };
        Ok((header, message.len() - words.rest.len()))
    }
}

struct Words<'a> {
    rest: &'a [u8],
}

impl Words<'_> {
    fn next(&mut self) -> Result<u32, Violation> {
        let (word, rest) = self.rest.split_first_chunk::<4>().ok_or(Violation::Short)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*word))
    }

    fn list(&mut self) -> Result<Vec<Chunk>, Violation> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                0 => return Ok(list),
                1 if list.len() < MAX_CHUNKS => {}
                _ => return Err(Violation::List),
            }
            let (position, handle, length) = (self.next()?, self.next()?, self.next()?);
            let address = u64::from(self.next()?) << 32 | u64::from(self.next()?);
            if length == 0 || length as usize > MAX_RECORD_BYTES || position as usize > MAX_RECORD_BYTES {
                return Err(Violation::Chunk("its length or position"));
            }
            if address.checked_add(u64::from(length)).is_none() {
                return Err(Violation::Chunk("its address"));
            }
            list.push(Chunk { position, handle, length, address });
        }
    }
}

/// What each side says of itself in the connection manager's private data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Longest message it takes, header and all, in bytes.
    pub inline_bytes: u32,
    /// Messages it is ready to receive from the beginning.
    pub credits: u32,
    /// Whether the other side may end the use of its keys with a message.
    pub invalidate: bool,
}

impl Hello {
    /// As private data.
    pub fn encode(self) -> [u8; HELLO_BYTES] {
        let mut data = [0; HELLO_BYTES];
        let flags = if self.invalidate { FLAG_INVALIDATE } else { 0 };
        let mut out = &mut data[..];
        out.put_u32(MAGIC);
        out.put_u8(VERSION as u8);
        out.put_u8(flags);
        out.put_u16(0);
        out.put_u32(self.inline_bytes);
        out.put_u32(self.credits);
        data
    }

    /// From private data, which the connection manager may have made longer.
    ///
    /// # Errors
    /// Another protocol or version.
    pub fn decode(data: &[u8]) -> Result<Hello, Violation> {
        let mut words = Words { rest: data };
        if words.next()? != MAGIC {
            return Err(Violation::Unexpected("the other side does not speak Ladrillo's RPC over RDMA"));
        }
        let [version, flags, _, _] = words.next()?.to_be_bytes();
        if u32::from(version) != VERSION {
            return Err(Violation::Version(u32::from(version)));
        }
        let (inline_bytes, credits) = (words.next()?, words.next()?);
        if inline_bytes < MIN_INLINE_BYTES || credits == 0 {
            return Err(Violation::Unexpected("no room for messages"));
        }
        Ok(Hello { inline_bytes, credits, invalidate: flags & FLAG_INVALIDATE != 0 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(header: &Header) -> BytesMut {
        let mut out = BytesMut::new();
        header.encode(&mut out);
        out
    }

    fn chunk() -> impl Strategy<Value = Chunk> {
        (0..1u32 << 20, any::<u32>(), 1..1u32 << 20, 0..1u64 << 60)
            .prop_map(|(position, handle, length, address)| Chunk { position, handle, length, address })
    }

    proptest! {
        #[test]
        fn headers_survive_the_wire(
            xid: u32, credit: u32, kind in 0..5usize, answer: bool,
            reads in prop::collection::vec(chunk(), 0..=MAX_CHUNKS),
            writes in prop::collection::vec(chunk(), 0..=MAX_CHUNKS),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let kind = [Kind::Message, Kind::Chunks, Kind::Credit, Kind::Need, Kind::Offer][kind];
            let header = Header { xid, credit, kind, answer, reads, writes };
            let mut message = encoded(&header);
            let len = message.len();
            prop_assert_eq!(len, header.len());
            for cut in 0..len {
                prop_assert_eq!(Header::decode(&message[..cut]), Err(Violation::Short));
            }
            message.extend_from_slice(&rest);
            prop_assert_eq!(Header::decode(&message), Ok((header, len)));
        }

        #[test]
        fn anything_is_decoded_or_refused(message in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((header, len)) = Header::decode(&message) {
                prop_assert_eq!(&encoded(&header)[..], &message[..len]);
            }
            let _ = Hello::decode(&message);
        }
    }

    #[test]
    fn chunks_that_cannot_be_are_refused() {
        let good = Chunk { position: 0, handle: 1, length: 1, address: 0 };
        let with = |chunk| Header {
            xid: 1,
            credit: 1,
            kind: Kind::Message,
            answer: false,
            reads: vec![chunk],
            writes: vec![],
        };
        assert!(Header::decode(&encoded(&with(good))).is_ok());
        for bad in [
            Chunk { length: 0, ..good },
            Chunk { length: u32::MAX, ..good },
            Chunk { position: u32::MAX, ..good },
            Chunk { address: u64::MAX, ..good },
        ] {
            assert!(matches!(Header::decode(&encoded(&with(bad))), Err(Violation::Chunk(_))), "{bad:?}");
        }
        let many = Header { reads: vec![good; MAX_CHUNKS + 1], ..with(good) };
        assert_eq!(Header::decode(&encoded(&many)), Err(Violation::List));
    }

    #[test]
    fn hello() {
        let hello = Hello { inline_bytes: 4096, credits: 64, invalidate: true };
        let mut data = hello.encode().to_vec();
        data.resize(56, 0);
        assert_eq!(Hello::decode(&data), Ok(hello));
        data[0] = 0;
        assert!(Hello::decode(&data).is_err());
        assert_eq!(Hello::decode(&data[..3]), Err(Violation::Short));
    }
}
