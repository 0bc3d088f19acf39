//! RPC records on a byte stream (RFC 5531 section 11): a 4-byte mark, the top bit for the last fragment.

use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};

use super::socket::Stream;

/// Largest record glusterd takes, in bytes. A volfile of a very large volume is some hundred KiB, a snapshot of the pool's
/// state a few MiB.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// Most fragments a record may come in: more is an attack, not a peer.
const MAX_FRAGMENTS: usize = 1024;

const READ_BYTES: usize = 64 << 10;

/// Reads whole records from a stream.
pub struct Reader {
    stream: Rc<dyn Stream>,
    pending: BytesMut,
    limit_bytes: usize,
}

impl Reader {
    /// A reader that refuses records over `limit_bytes`.
    pub fn new(stream: Rc<dyn Stream>, limit_bytes: usize) -> Reader {
        Reader { stream, pending: BytesMut::new(), limit_bytes }
    }

    /// The next record, without its mark; `None` when the peer has closed between records.
    ///
    /// # Errors
    /// `InvalidData` for an oversized or over-fragmented record, `UnexpectedEof` inside one, and the socket's own.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut record = BytesMut::new();
        for fragment in 0..MAX_FRAGMENTS {
            if !self.fill(4).await? {
                return if fragment == 0 && self.pending.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            let mark = self.pending.get_u32();
            let length = (mark & 0x7fff_ffff) as usize;
            if length > self.limit_bytes || record.len() + length > self.limit_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a record of {} bytes is over our limit of {}", record.len() + length, self.limit_bytes),
                ));
            }
            if !self.fill(length).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let body = self.pending.split_to(length);
            if mark & 0x8000_0000 != 0 {
                if record.is_empty() {
                    return Ok(Some(body.freeze()));
                }
                record.extend_from_slice(&body);
                return Ok(Some(record.freeze()));
            }
            record.extend_from_slice(&body);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a record in too many fragments"))
    }

    /// Reads until `length` bytes are pending; false at the end of the stream.
    async fn fill(&mut self, length: usize) -> io::Result<bool> {
        while self.pending.len() < length {
            let (result, buffer) = self.stream.read(Vec::with_capacity(READ_BYTES)).await;
            let read = result?;
            if read == 0 {
                return Ok(false);
            }
            self.pending.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
        Ok(true)
    }
}

/// `body` with its mark before it, as one last fragment.
///
/// # Errors
/// `InvalidInput` when it does not fit a fragment.
pub fn mark(body: &[u8]) -> io::Result<Bytes> {
    let length = u32::try_from(body.len()).ok().filter(|length| length >> 31 == 0);
    let Some(length) = length else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a record of 2 GiB or more"));
    };
    let mut record = Vec::with_capacity(4 + body.len());
    record.extend_from_slice(&(length | 0x8000_0000).to_be_bytes());
    record.extend_from_slice(body);
    Ok(record.into())
}
