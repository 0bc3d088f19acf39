//! Our two programs, and calls of glusterd's without credentials.

use std::io;

use bytes::Bytes;
use ladrillo_transport::rpc::encode_call;
use ladrillo_transport::xdr::{DecodeError, Reader, Writer};
use ladrillo_transport::{Credential, Message};

use super::record;

/// The command line's program: one procedure, JSON of [`crate::api`] both ways as XDR opaque. Ours ("LADC").
pub const CLI_PROGRAM: u32 = 0x4c41_4443;
/// The program between glusterds: one procedure, JSON both ways as XDR opaque. Ours ("LADP").
pub const PEER_PROGRAM: u32 = 0x4c41_4450;
/// Version of both our programs.
pub const OWN_VERSION: u32 = 1;
/// The one procedure of our programs.
pub const OWN_CALL: u32 = 1;

/// A call, as a record to send.
///
/// # Errors
/// `InvalidInput` when it is too large.
pub fn call(xid: u32, program: u32, version: u32, procedure: u32, body: Message) -> io::Result<Bytes> {
    let call = encode_call(xid, program, version, procedure, &Credential::None, body).map_err(io::Error::other)?;
    record::mark(&call)
}

/// The body of our programs' calls and answers.
pub fn wrap(json: &[u8]) -> Message {
    let mut writer = Writer::with_capacity(json.len() + 8);
    writer.opaque(json);
    Message { header: writer.finish(), ..Message::default() }
}

/// The JSON in such a body.
///
/// # Errors
/// What is malformed, or over `limit_bytes`.
pub fn unwrap(body: Bytes, limit_bytes: usize) -> Result<Bytes, DecodeError> {
    Reader::new(body).opaque("JSON", limit_bytes)
}
