//! XDR (RFC 4506), as far as the GlusterFS programs use it. Reading never copies: variable-length data is sliced out
//! of the record. Every length is checked against what is left, so memory use is bounded by the record's size.

use bytes::{BufMut, Bytes, BytesMut};
use ladrillo_translator::error::errno;

/// Why bytes from outside were not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The data ended early.
    #[error("{what}: {needed} bytes needed, {left} left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes it needs.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A length or count beyond its bound.
    #[error("{what}: {length} is more than {limit}")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// What the sender said.
        length: usize,
        /// What we take.
        limit: usize,
    },
    /// A number outside its enumeration.
    #[error("{what}: unexpected value {value}")]
    BadValue {
        /// What was being read.
        what: &'static str,
        /// What came.
        value: i64,
    },
    /// A name that no directory can hold: empty, `.`, `..`, with `/` or NUL; text with a NUL inside.
    #[error("{what}: not a valid name")]
    BadName {
        /// What was being read.
        what: &'static str,
    },
    /// A procedure this program does not have.
    #[error("unknown procedure {0}")]
    UnknownProcedure(u32),
}

impl DecodeError {
    /// The errno for a caller who can be told (a server answers the fop with it).
    pub fn errno(&self) -> i32 {
        match self {
            DecodeError::TooLong { what: "name", .. } => errno::ENAMETOOLONG,
            DecodeError::TooLong { .. } => errno::EMSGSIZE,
            DecodeError::UnknownProcedure(_) => errno::EOPNOTSUPP,
            DecodeError::Truncated { .. } | DecodeError::BadValue { .. } | DecodeError::BadName { .. } => errno::EINVAL,
        }
    }
}

impl From<DecodeError> for std::io::Error {
    fn from(error: DecodeError) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Why a value cannot be put on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More than the wire's bound.
    #[error("{what}: {length} is more than {limit}")]
    TooLong {
        /// What was being written.
        what: &'static str,
        /// Its length.
        length: usize,
        /// What the wire takes.
        limit: usize,
    },
    /// A name that no directory can hold, or text with a NUL inside.
    #[error("{what}: not a valid name")]
    BadName {
        /// What was being written.
        what: &'static str,
    },
}

impl EncodeError {
    /// The errno the caller gets.
    pub fn errno(&self) -> i32 {
        match self {
            EncodeError::TooLong { what: "name", .. } => errno::ENAMETOOLONG,
            EncodeError::TooLong { .. } => errno::EMSGSIZE,
            EncodeError::BadName { .. } => errno::EINVAL,
        }
    }
}

/// Bytes of padding after `length` bytes of opaque data.
pub const fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

/// Reads XDR out of a shared buffer.
#[derive(Clone, Debug)]
pub struct Reader {
    data: Bytes,
    at: usize,
}

impl Reader {
    /// From the start of `data`.
    pub fn new(data: Bytes) -> Reader {
        Reader { data, at: 0 }
    }

    /// Bytes left.
    pub fn left(&self) -> usize {
        self.data.len() - self.at
    }

    /// Everything not yet read, sharing the buffer.
    pub fn rest(&self) -> Bytes {
        self.data.slice(self.at..)
    }

    fn take(&mut self, what: &'static str, length: usize) -> Result<usize, DecodeError> {
        if length > self.left() {
            return Err(DecodeError::Truncated { what, needed: length, left: self.left() });
        }
        let start = self.at;
        self.at += length;
        Ok(start)
    }

    /// A fixed number of bytes, copied out (small identities and numbers).
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let start = self.take(what, N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.data[start..start + N]);
        Ok(out)
    }

    /// Unsigned integer.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Integer.
    pub fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array(what)?))
    }

    /// Unsigned hyper.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// Hyper.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array(what)?))
    }

    /// Exactly `length` bytes without padding, sharing the buffer.
    pub fn bytes(&mut self, what: &'static str, length: usize) -> Result<Bytes, DecodeError> {
        let start = self.take(what, length)?;
        Ok(self.data.slice(start..start + length))
    }

    /// Variable-length opaque data of at most `limit` bytes, sharing the buffer; its padding is skipped, unread. The
    /// padding of the very last item may be missing (GlusterFS omits it in places).
    pub fn opaque(&mut self, what: &'static str, limit: usize) -> Result<Bytes, DecodeError> {
        let length = self.u32(what)? as usize;
        if length > limit {
            return Err(DecodeError::TooLong { what, length, limit });
        }
        let data = self.bytes(what, length)?;
        self.at += padding(length).min(self.left());
        Ok(data)
    }

    /// A string of at most `limit` bytes, without NUL inside.
    pub fn string(&mut self, what: &'static str, limit: usize) -> Result<Bytes, DecodeError> {
        let text = self.opaque(what, limit)?;
        if text.contains(&0) {
            return Err(DecodeError::BadName { what });
        }
        Ok(text)
    }

    /// The boolean before an optional item (XDR's pointer).
    pub fn present(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u32(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::BadValue { what, value: i64::from(other) }),
        }
    }
}

/// Writes XDR.
#[derive(Debug, Default)]
pub struct Writer {
    data: BytesMut,
}

impl Writer {
    /// An empty one with room for `capacity_bytes`.
    pub fn with_capacity(capacity_bytes: usize) -> Writer {
        Writer { data: BytesMut::with_capacity(capacity_bytes) }
    }

    /// What was written.
    pub fn finish(self) -> Bytes {
        self.data.freeze()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Unsigned integer.
    pub fn u32(&mut self, value: u32) {
        self.data.put_u32(value);
    }

    /// Integer.
    pub fn i32(&mut self, value: i32) {
        self.data.put_i32(value);
    }

    /// Unsigned hyper.
    pub fn u64(&mut self, value: u64) {
        self.data.put_u64(value);
    }

    /// Hyper.
    pub fn i64(&mut self, value: i64) {
        self.data.put_i64(value);
    }

    /// Bytes as they are, without length or padding.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.data.put_slice(bytes);
    }

    /// Variable-length opaque data with its padding. The caller has checked that it is shorter than 4 GiB.
    pub fn opaque(&mut self, bytes: &[u8]) {
        self.data.put_u32(bytes.len() as u32);
        self.data.put_slice(bytes);
        self.data.put_bytes(0, padding(bytes.len()));
    }

    /// [`Writer::opaque`] with a NUL appended, as GlusterFS sends keys and text values.
    pub fn opaque_with_nul(&mut self, bytes: &[u8]) {
        self.data.put_u32(bytes.len() as u32 + 1);
        self.data.put_slice(bytes);
        self.data.put_bytes(0, 1 + padding(bytes.len() + 1));
    }

    /// Writes over an integer written earlier, at `position` bytes from the start.
    pub fn patch_u32(&mut self, position: usize, value: u32) {
        self.data[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_is_shared_and_padded() {
        let mut writer = Writer::default();
        writer.opaque(b"hello");
        writer.u64(7);
        let wire = writer.finish();
        assert_eq!(wire.len(), 4 + 8 + 8);
        let mut reader = Reader::new(wire.clone());
        let text = reader.opaque("text", 5).unwrap();
        assert_eq!(text.as_ptr(), wire[4..].as_ptr());
        assert_eq!(reader.u64("number").unwrap(), 7);
        assert_eq!(reader.left(), 0);
    }

    #[test]
    fn lengths_are_checked() {
        let mut reader = Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1]));
        assert!(matches!(reader.clone().opaque("x", 16), Err(DecodeError::TooLong { .. })));
        assert!(matches!(reader.opaque("x", usize::MAX), Err(DecodeError::Truncated { .. })));
        assert!(matches!(Reader::new(Bytes::from_static(&[0, 0])).u32("x"), Err(DecodeError::Truncated { .. })));
        let nul = Bytes::from_static(&[0, 0, 0, 2, b'a', 0]);
        assert!(matches!(Reader::new(nul).string("x", 9), Err(DecodeError::BadName { .. })));
    }
}
