//! Questions to a running brick process over its unix socket. Program and dictionaries are GlusterFS 10.3's
//! (protocol-common.h, glusterd1-xdr.x), so that GlusterFS's bricks answer too.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ladrillo_translator::Dict;
use ladrillo_transport::record::RecordReader;
use ladrillo_transport::rpc::{AcceptStatus, Incoming, decode_record};
use ladrillo_transport::xdr::{DecodeError, Reader, Writer};
use ladrillo_transport::{Message, dict};

use crate::net::rpc;

/// GD_BRICK_PROGRAM and its version.
const PROGRAM: u32 = 4_867_634;
const VERSION: u32 = 2;
/// What `volume top` shows (GLUSTERD_BRICK_XLATOR_INFO).
pub const INFO: u32 = 2;
/// What `volume status` shows (GLUSTERD_BRICK_STATUS).
pub const STATUS: u32 = 4;

/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Asks and waits, blocking, at most `timeout` in all.
///
/// # Errors
/// The socket's, `TimedOut`, `InvalidData` for an answer that is none, or the brick's refusal with its words.
pub fn ask(socket: &Path, procedure: u32, name: &str, input: &Dict, timeout: Duration) -> io::Result<Dict> {
    let deadline = Instant::now() + timeout;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(timeout))?;
    let mut writer = Writer::with_capacity(256);
    writer.opaque(name.as_bytes());
    writer.i32(0);
    writer.opaque(&dict::encode_untyped(input));
    writer.opaque(b"");
    let body = Message { header: writer.finish(), ..Message::default() };
    stream.write_all(&rpc::call(1, PROGRAM, VERSION, procedure, body)?)?;
    let mut records = RecordReader::with_limit(MAX_ANSWER_BYTES);
    let mut buffer = vec![0; 16 << 10];
    let record = loop {
        if let Some(record) = records.next_record()? {
            break record;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => records.feed(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    };
    match decode_record(record).map_err(invalid)? {
        Incoming::Reply(header, body) if header.status == AcceptStatus::Success => answer(body),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the brick does not know the question")),
    }
}

/// gd1_mgmt_brick_op_rsp: op_ret, op_errno, output, op_errstr.
fn answer(body: Bytes) -> io::Result<Dict> {
    let parse = || -> Result<(i32, i32, Bytes, Bytes), DecodeError> {
        let mut reader = Reader::new(body);
        Ok((
            reader.i32("op_ret")?,
            reader.i32("op_errno")?,
            reader.opaque("output", MAX_ANSWER_BYTES)?,
            reader.opaque("op_errstr", MAX_ANSWER_BYTES)?,
        ))
    };
    let (op_ret, op_errno, output, sentence) = parse().map_err(invalid)?;
    if op_ret < 0 {
        let sentence = String::from_utf8_lossy(&sentence).into_owned();
        let error = io::Error::from_raw_os_error(op_errno);
        return Err(if sentence.is_empty() { error } else { io::Error::new(error.kind(), sentence) });
    }
    if output.is_empty() { Ok(Dict::new()) } else { dict::decode_untyped(output).map_err(invalid) }
}

fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart_and_refusals_keep_their_words() {
        let reply = |op_ret: i32, output: &[u8], sentence: &str| {
            let mut writer = Writer::with_capacity(64);
            writer.i32(op_ret);
            writer.i32(libc::EINVAL);
            writer.opaque(output);
            writer.opaque(sentence.as_bytes());
            answer(writer.finish())
        };
        let mut dict = Dict::new();
        dict.set_int("clientcount", 3);
        assert_eq!(reply(0, &dict::encode_untyped(&dict), "").unwrap().int("clientcount"), Some(3));
        assert!(reply(0, b"", "").unwrap().is_empty());
        assert_eq!(reply(-1, b"", "Unknown status op").unwrap_err().to_string(), "Unknown status op");
        assert!(answer(Bytes::from_static(b"\0\0\0")).is_err());
        assert!(reply(0, b"\xff\xff\xff\xffjunk", "").is_err());
    }
}
