//! ONC-RPC headers (RFC 5531) as glusterd needs them: calls without credentials, and replies.

use bytes::{Buf, Bytes};

/// The command line's program: one procedure, JSON of [`crate::api`] both ways as XDR opaque. Ours ("LADC").
pub const CLI_PROGRAM: u32 = 0x4c41_4443;
/// The program between glusterds: one procedure, JSON both ways as XDR opaque. Ours ("LADP").
pub const PEER_PROGRAM: u32 = 0x4c41_4450;
/// Version of both our programs.
pub const OWN_VERSION: u32 = 1;
/// The one procedure of our programs.
pub const OWN_CALL: u32 = 1;

/// GlusterFS handshake, version 2. Source: GLUSTER_HNDSK_PROGRAM, protocol-common.h.
pub const HANDSHAKE_PROGRAM: u32 = 14_398_633;
/// GlusterFS portmap, version 1. Source: GLUSTER_PMAP_PROGRAM.
pub const PORTMAP_PROGRAM: u32 = 34_123_456;
/// GlusterFS callbacks, version 1. Source: GLUSTER_CBK_PROGRAM.
pub const CALLBACK_PROGRAM: u32 = 52_743_234;
/// GlusterFS dump, version 1. Source: GLUSTER_DUMP_PROGRAM.
pub const DUMP_PROGRAM: u32 = 123_451_501;

/// Why a record is not what it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Garbage(pub &'static str);

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Names the call in its reply.
    pub xid: u32,
    /// Program number.
    pub program: u32,
    /// Program version.
    pub version: u32,
    /// Procedure number.
    pub procedure: u32,
    /// XDR arguments.
    pub body: Bytes,
}

/// What came in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A call (or callback).
    Call(Call),
    /// An answer.
    Reply(Reply),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The call's.
    pub xid: u32,
    /// Accept status: 0 = success, and then `body` has the results. Denied replies come as [`DENIED`].
    pub status: u32,
    /// XDR results.
    pub body: Bytes,
}

/// Status of a reply that was denied (not an RFC number: the RFC keeps denied apart from accepted).
pub const DENIED: u32 = u32::MAX;
/// Accept status: program unknown.
pub const PROG_UNAVAIL: u32 = 1;
/// Accept status: version unknown.
pub const PROG_MISMATCH: u32 = 2;
/// Accept status: procedure unknown.
pub const PROC_UNAVAIL: u32 = 3;
/// Accept status: arguments do not decode.
pub const GARBAGE_ARGS: u32 = 4;

const MAX_AUTH_BYTES: usize = 400 + 65536;

/// Encodes a call without credentials.
pub fn encode_call(xid: u32, program: u32, version: u32, procedure: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + body.len());
    for word in [xid, 0, 2, program, version, procedure, 0, 0, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(body);
    out
}

/// Encodes an accepted reply. A status other than 0 carries no body (and version range 0..0 for PROG_MISMATCH).
pub fn encode_reply(xid: u32, status: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + body.len());
    for word in [xid, 1, 0, 0, 0, status] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    match status {
        0 => out.extend_from_slice(body),
        PROG_MISMATCH => out.extend_from_slice(&[0; 8]),
        _ => {}
    }
    out
}

/// Decodes a record.
///
/// # Errors
/// [`Garbage`] for anything that is no ONC-RPC version 2 message.
pub fn decode(record: Bytes) -> Result<Incoming, Garbage> {
    let mut input = Input(record);
    let xid = input.u32()?;
    match input.u32()? {
        0 => {
            if input.u32()? != 2 {
                return Err(Garbage("not RPC version 2"));
            }
            let (program, version, procedure) = (input.u32()?, input.u32()?, input.u32()?);
            for _ in 0..2 {
                input.u32()?;
                input.opaque(MAX_AUTH_BYTES)?;
            }
            Ok(Incoming::Call(Call { xid, program, version, procedure, body: input.0 }))
        }
        1 => {
            if input.u32()? != 0 {
                return Ok(Incoming::Reply(Reply { xid, status: DENIED, body: Bytes::new() }));
            }
            input.u32()?;
            input.opaque(MAX_AUTH_BYTES)?;
            let status = input.u32()?;
            Ok(Incoming::Reply(Reply { xid, status, body: input.0 }))
        }
        _ => Err(Garbage("neither a call nor a reply")),
    }
}

/// Reads XDR.
pub struct Input(pub Bytes);

impl Input {
    /// An unsigned integer.
    ///
    /// # Errors
    /// [`Garbage`] at the end.
    pub fn u32(&mut self) -> Result<u32, Garbage> {
        self.0.try_get_u32().map_err(|_| Garbage("a record cut short"))
    }

    /// A signed integer.
    ///
    /// # Errors
    /// [`Garbage`] at the end.
    pub fn i32(&mut self) -> Result<i32, Garbage> {
        self.0.try_get_i32().map_err(|_| Garbage("a record cut short"))
    }

    /// Variable-length opaque data and its padding.
    ///
    /// # Errors
    /// [`Garbage`] at the end or above `limit`.
    pub fn opaque(&mut self, limit: usize) -> Result<Bytes, Garbage> {
        let length = self.u32()? as usize;
        if length > limit {
            return Err(Garbage("a field longer than it may be"));
        }
        let padded = length.next_multiple_of(4);
        if padded > self.0.len() {
            return Err(Garbage("a record cut short"));
        }
        let mut field = self.0.split_to(padded);
        field.truncate(length);
        Ok(field)
    }

    /// A string.
    ///
    /// # Errors
    /// [`Garbage`] at the end, above `limit`, or when it is not UTF-8.
    pub fn string(&mut self, limit: usize) -> Result<String, Garbage> {
        let raw = self.opaque(limit)?;
        String::from_utf8(raw.to_vec()).map_err(|_| Garbage("a string that is not UTF-8"))
    }
}

/// Appends XDR opaque data (or a string) with padding.
pub fn put_opaque(out: &mut Vec<u8>, data: &[u8]) {
    // Records are bounded far below 4 GiB by their senders; the reader checks again.
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_survives_the_trip() {
        let record = encode_call(7, CLI_PROGRAM, 1, 1, b"abcd");
        match decode(record.into()) {
            Ok(Incoming::Call(call)) => {
                assert_eq!((call.xid, call.program, call.procedure), (7, CLI_PROGRAM, 1));
                assert_eq!(&call.body[..], b"abcd");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_cut_of_a_record_is_garbage_or_shorter_never_a_panic() {
        let mut body = Vec::new();
        put_opaque(&mut body, b"hello");
        let call = encode_call(7, CLI_PROGRAM, 1, 1, &body);
        for length in 0..40 {
            assert!(decode(Bytes::copy_from_slice(&call[..length])).is_err(), "{length}");
        }
        let mut cut = Input(Bytes::copy_from_slice(&body[..7]));
        assert!(cut.opaque(100).is_err());
        let mut long = Input(Bytes::copy_from_slice(&body));
        assert_eq!(long.opaque(4), Err(Garbage("a field longer than it may be")));
    }
}
