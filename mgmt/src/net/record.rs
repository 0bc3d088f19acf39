//! RPC records on a [`Stream`].

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use ladrillo_transport::Message;
use ladrillo_transport::record::{RecordReader, record_mark};

use super::socket::Stream;

/// Largest record glusterd takes, in bytes. A volfile of a very large volume is some hundred KiB, a snapshot of the pool's
/// state a few MiB.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

const READ_BYTES: usize = 64 << 10;

/// Reads whole records from a stream.
pub struct Reader {
    stream: Rc<dyn Stream>,
    records: RecordReader,
}

impl Reader {
    /// A reader that refuses records over `limit_bytes`.
    pub fn new(stream: Rc<dyn Stream>, limit_bytes: usize) -> Reader {
        Reader { stream, records: RecordReader::with_limit(limit_bytes) }
    }

    /// The next record, without its mark; `None` when the peer has closed between records.
    ///
    /// # Errors
    /// `InvalidData` for an oversized record, `UnexpectedEof` inside one, and the socket's own.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(record) = self.records.next_record()? {
                return Ok(Some(record));
            }
            let (result, buffer) = self.stream.read(Vec::with_capacity(READ_BYTES)).await;
            let read = result?;
            if read == 0 {
                return if self.records.at_boundary() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            self.records.feed(buffer.get(..read).unwrap_or_default());
        }
    }
}

/// A message with its mark before it, as bytes to send.
///
/// # Errors
/// `InvalidInput` when it is over [`MAX_RECORD_BYTES`].
pub fn mark(message: &Message) -> io::Result<Bytes> {
    if message.len() > MAX_RECORD_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a record of {} bytes, at most {MAX_RECORD_BYTES} are sent", message.len()),
        ));
    }
    let mut record = Vec::with_capacity(4 + message.header.len());
    record.extend_from_slice(&record_mark(message.header.len()));
    record.extend_from_slice(&message.header);
    Ok(record.into())
}
