//! Record marking (RFC 5531 section 11): records out of a byte stream, for any runtime.
//!
//! The runtime reads into the [`RecordReader`]'s buffer as it likes (io_uring with the buffer taken out, `read_buf`,
//! plain slices) and asks for whole records. Small records are batched: many come with one read and share its buffer.
//! A record that does not fit the batch gets a buffer of its own, of its exact size, and while big records keep coming
//! each is read mark first, body second, straight into its own buffer: nothing is copied.

use std::io;

use bytes::{Bytes, BytesMut};

use crate::MAX_RECORD_BYTES;

/// The bit that says "last fragment of the record".
const LAST_FRAGMENT: u32 = 0x8000_0000;
const MARK_BYTES: usize = 4;

/// How much is read at once while records are small.
const BATCH_BYTES: usize = 64 << 10;
/// How much is read at once until a first record has come: connections that say nothing are many and cost little.
const FIRST_BYTES: usize = 4 << 10;
/// From this size on records are read on their own.
const BIG_RECORD_BYTES: usize = BATCH_BYTES / 4;

/// The record mark in front of a record of `length_bytes`, sent as one fragment.
pub fn record_mark(length_bytes: usize) -> [u8; 4] {
    debug_assert!(length_bytes < LAST_FRAGMENT as usize);
    (LAST_FRAGMENT | length_bytes as u32).to_be_bytes()
}

/// Assembles records out of a byte stream.
#[derive(Debug)]
pub struct RecordReader {
    /// Unparsed bytes, starting at a record mark.
    buffer: BytesMut,
    /// Earlier fragments of the record under way (nobody sends several in practice).
    fragments: BytesMut,
    limit_bytes: usize,
    /// The last record was big: do not read past the end of the next one.
    exact: bool,
    /// A record has come.
    started: bool,
}

impl Default for RecordReader {
    fn default() -> RecordReader {
        RecordReader::new()
    }
}

impl RecordReader {
    /// With the limit of [`MAX_RECORD_BYTES`].
    pub fn new() -> RecordReader {
        RecordReader::with_limit(MAX_RECORD_BYTES)
    }

    /// Refuses records longer than `limit_bytes`.
    pub fn with_limit(limit_bytes: usize) -> RecordReader {
        RecordReader { buffer: BytesMut::new(), fragments: BytesMut::new(), limit_bytes, exact: false, started: false }
    }

    /// How many bytes to read next, at most; more than 0. Reading more than this is harmless but costs copies.
    pub fn wanted(&self) -> usize {
        match self.pending_length() {
            Some(length) if self.exact || length > BIG_RECORD_BYTES => {
                (MARK_BYTES + length).saturating_sub(self.buffer.len()).max(1)
            }
            None if self.exact => MARK_BYTES - self.buffer.len().min(MARK_BYTES - 1),
            _ if self.started => BATCH_BYTES,
            _ => FIRST_BYTES,
        }
    }

    /// The buffer to append to, with room for [`RecordReader::wanted`] bytes: receive into its spare capacity.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let wanted = self.wanted();
        // For a big record this moves what has come of it into a buffer that holds all of it.
        self.buffer.reserve(wanted);
        &mut self.buffer
    }

    /// [`RecordReader::buffer`], taken out: for I/O that owns its buffer while the kernel writes to it. Give it back
    /// with [`RecordReader::put_buffer`] before anything else; without that, what it held is lost.
    pub fn take_buffer(&mut self) -> BytesMut {
        std::mem::take(self.buffer())
    }

    /// Gives the buffer back, with what was received appended.
    pub fn put_buffer(&mut self, buffer: BytesMut) {
        self.buffer = buffer;
    }

    /// Appends received bytes by copying them: for callers that only have a slice.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record, if all of it has been received. Call until it gives `None`, then read more.
    ///
    /// # Errors
    /// `InvalidData` for a record beyond the limit: the stream cannot be resynchronised, close the connection.
    pub fn next_record(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(mark) = self.mark() else { return Ok(None) };
            let length = (mark & !LAST_FRAGMENT) as usize;
            let total = self.fragments.len().saturating_add(length);
            if total > self.limit_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("record of {total} bytes, at most {} are taken", self.limit_bytes),
                ));
            }
            if self.buffer.len() < MARK_BYTES + length {
                return Ok(None);
            }
            let _ = self.buffer.split_to(MARK_BYTES);
            let fragment = self.buffer.split_to(length);
            self.started = true;
            let last = mark & LAST_FRAGMENT != 0;
            if last && self.fragments.is_empty() {
                self.exact = length > BIG_RECORD_BYTES;
                return Ok(Some(fragment.freeze()));
            }
            self.fragments.extend_from_slice(&fragment);
            if last {
                self.exact = false;
                return Ok(Some(std::mem::take(&mut self.fragments).freeze()));
            }
        }
    }

    /// Whether the stream may end here: no record is half received.
    pub fn at_boundary(&self) -> bool {
        self.buffer.is_empty() && self.fragments.is_empty()
    }

    fn mark(&self) -> Option<u32> {
        let mark: [u8; MARK_BYTES] = self.buffer.get(..MARK_BYTES)?.try_into().ok()?;
        Some(u32::from_be_bytes(mark))
    }

    /// Length of the fragment under way; bounded, so that a lying mark cannot make us reserve more than the limit.
    fn pending_length(&self) -> Option<usize> {
        Some(((self.mark()? & !LAST_FRAGMENT) as usize).min(self.limit_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        [&record_mark(body.len())[..], body].concat()
    }

    #[test]
    fn records_come_out_however_they_are_cut() {
        let bodies: Vec<Vec<u8>> = [0usize, 1, 5, 100, 70_000, 3].iter().map(|n| vec![*n as u8; *n]).collect();
        let stream: Vec<u8> = bodies.iter().flat_map(|b| framed(b)).collect();
        for step in [1, 3, 4, 5, 1000, stream.len()] {
            let mut reader = RecordReader::new();
            let mut got = Vec::new();
            for piece in stream.chunks(step) {
                reader.feed(piece);
                while let Some(record) = reader.next_record().unwrap() {
                    got.push(record.to_vec());
                }
            }
            assert_eq!(got, bodies, "in pieces of {step}");
            assert!(reader.at_boundary());
        }
    }

    #[test]
    fn fragments_are_joined() {
        let mut reader = RecordReader::new();
        reader.feed(&[0, 0, 0, 3]);
        reader.feed(b"abc");
        reader.feed(&[0, 0, 0, 0]);
        assert_eq!(reader.next_record().unwrap(), None);
        assert!(!reader.at_boundary());
        reader.feed(&framed(b"defg"));
        assert_eq!(reader.next_record().unwrap().unwrap(), "abcdefg");
    }

    #[test]
    fn oversized_records_and_endless_fragments_are_refused() {
        let mut reader = RecordReader::new();
        reader.feed(&[0x7f, 0xff, 0xff, 0xff]);
        assert!(reader.wanted() <= MAX_RECORD_BYTES + 4);
        assert_eq!(reader.next_record().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut reader = RecordReader::with_limit(10);
        let mut refused = false;
        for _ in 0..5 {
            reader.feed(&[0, 0, 0, 4, 1, 2, 3, 4]);
            refused |= reader.next_record().is_err();
        }
        assert!(refused);
    }

    /// A stream of big records: each lands in a buffer of its own, read exactly.
    #[test]
    fn big_records_are_not_moved() {
        let stream: Vec<u8> = (0..4).flat_map(|_| framed(&vec![9; 128 << 10])).collect();
        let (mut at, mut reads, mut moved) = (0, 0, 0);
        let mut reader = RecordReader::new();
        let mut records = 0;
        while records < 4 {
            let wanted = reader.wanted();
            let before = reader.buffer.len();
            let pointer = reader.buffer.as_ptr();
            let buffer = reader.buffer();
            assert!(buffer.capacity() - buffer.len() >= wanted);
            if buffer.as_ptr() != pointer && records > 0 {
                moved += before.saturating_sub(MARK_BYTES);
            }
            let end = (at + wanted).min(stream.len());
            buffer.extend_from_slice(&stream[at..end]);
            at = end;
            reads += 1;
            while let Some(record) = reader.next_record().unwrap() {
                assert_eq!(record.len(), 128 << 10);
                records += 1;
            }
        }
        assert_eq!(moved, 0, "after the first big record nothing but marks is moved");
        assert!(reads <= 2 + 2 * 3, "{reads} reads");
    }
}
