//! GlusterFS 4.x v1, the file-operation program: [`Fop`] and [`Reply`](ladrillo_translator::Reply) in XDR, both ways.
//! Source: glusterfs4-xdr.x of 10.3, checked against a capture of its traffic (tests/capture.rs).
//!
//! - The data of WRITE and of READ's reply comes after the XDR body, xdata included, without padding. It rides in
//!   [`Message::payload`] on the way out and is sliced out of the record on the way in: never copied.
//! - File descriptors travel as the number in [`FdId`]; -2 is the anonymous one (`File::fd` `None`).
//! - Requests of CREATE, OPEN and OPENDIR carry no descriptor (decoding gives `FdId(0)`); replies carry the one the
//!   brick chose.

mod numbers;
mod reply;
mod request;
mod times;

use bytes::Bytes;
use ladrillo_translator::{FdId, Fop, FopKind, FopResult, Gfid};

pub use numbers::{open_flags_from_wire, open_flags_to_wire};
pub use reply::write_reply;
pub use request::write_request;
pub(crate) use request::{read_flock, write_flock};
pub use times::time_flags;

use crate::Message;
use crate::xdr::{DecodeError, EncodeError, Reader, Writer};

/// Program number.
pub const PROGRAM: u32 = 1298437;
/// Version of the program this module speaks.
pub const VERSION: u32 = 400;
/// Name as DUMP lists it.
pub const NAME: &str = "GlusterFS 4.x v1";

/// The anonymous descriptor.
const ANONYMOUS_FD: i64 = -2;
/// Longest name of a directory entry in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Longest target of a symbolic link in bytes.
const MAX_TARGET_BYTES: usize = 4096;
/// Longest xattr name or lock domain in bytes: stock has virtual xattrs whose names carry arguments.
const MAX_TEXT_BYTES: usize = 4096;
/// Longest lock owner in bytes (GF_MAX_LOCK_OWNER_LEN).
const MAX_LOCK_OWNER_BYTES: usize = 1024;
/// Most entries in one READDIR(P) reply.
const MAX_ENTRIES: usize = 65_536;

/// The procedure and body of a request. [`write_request`] does it behind an RPC header without copying.
///
/// # Errors
/// A name or text that the wire or the brick cannot take.
pub fn encode_request(fop: &Fop) -> Result<(u32, Message), EncodeError> {
    let mut writer = Writer::with_capacity(request::size_hint(fop));
    let payload = write_request(&mut writer, fop)?;
    Ok((fop.kind().procedure(), Message { header: writer.finish(), payload, padding: 0 }))
}

/// A request from its procedure and body.
///
/// # Errors
/// What is malformed; [`DecodeError::errno`] says how to answer. `UnknownProcedure`: answer PROC_UNAVAIL.
pub fn decode_request(procedure: u32, body: Bytes) -> Result<Fop, DecodeError> {
    let kind = FopKind::from_procedure(procedure).ok_or(DecodeError::UnknownProcedure(procedure))?;
    request::read(kind, &mut Reader::new(body))
}

/// The body of a reply. `opened` is the descriptor a successful CREATE, OPEN or OPENDIR has opened.
/// [`write_reply`] does it behind an RPC header without copying.
pub fn encode_reply(kind: FopKind, result: &FopResult, opened: Option<FdId>) -> Message {
    let mut writer = Writer::with_capacity(reply::size_hint(result));
    let payload = write_reply(&mut writer, kind, result, opened);
    Message { header: writer.finish(), payload, padding: 0 }
}

/// A reply from the kind of its request and its body, and the descriptor that the brick has opened.
///
/// # Errors
/// What is malformed. A fop that failed on the brick is not: that is `Ok((Err(..), None))`.
pub fn decode_reply(kind: FopKind, body: Bytes) -> Result<(FopResult, Option<FdId>), DecodeError> {
    reply::read(kind, &mut Reader::new(body))
}

fn read_gfid(reader: &mut Reader) -> Result<Gfid, DecodeError> {
    Ok(Gfid(reader.array("gfid")?))
}

fn is_valid_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|b| matches!(b, 0 | b'/'))
}
