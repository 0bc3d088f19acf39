//! ONC-RPC version 2 (RFC 5531): call and reply headers.

use bytes::Bytes;

use crate::Message;
use crate::credential::{Credential, MAX_AUTH_BYTES};
use crate::xdr::{DecodeError, EncodeError, Reader, Writer};

const CALL: u32 = 0;
const REPLY: u32 = 1;
const RPC_VERSION: u32 = 2;

const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;

const RPC_MISMATCH: u32 = 0;
const AUTH_ERROR: u32 = 1;

/// `auth_stat` AUTH_REJECTEDCRED: the credential is not understood.
pub const AUTH_REJECTEDCRED: u32 = 2;
/// `auth_stat` AUTH_TOOWEAK: not allowed for this caller.
pub const AUTH_TOOWEAK: u32 = 5;

/// Header of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallHeader {
    /// The caller's number of this call; the reply repeats it.
    pub xid: u32,
    /// Program.
    pub program: u32,
    /// Its version.
    pub version: u32,
    /// Procedure in it.
    pub procedure: u32,
    /// Who calls.
    pub credential: Credential,
}

/// Header of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// Number of the call it answers.
    pub xid: u32,
    /// What became of the call; a body follows [`AcceptStatus::Success`] only.
    pub status: AcceptStatus,
}

/// What the RPC layer of the answering side made of a call (`accept_stat`, and the two ways to deny it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptStatus {
    /// Executed: the body is the procedure's result.
    Success,
    /// No such program here.
    ProgUnavail,
    /// Program known, version not.
    ProgMismatch {
        /// Lowest version there is.
        low: u32,
        /// Highest version there is.
        high: u32,
    },
    /// No such procedure.
    ProcUnavail,
    /// The arguments did not decode.
    GarbageArgs,
    /// The answering side failed (out of memory, not ready).
    SystemErr,
    /// MSG_DENIED, RPC_MISMATCH: another version of ONC-RPC.
    DeniedVersion {
        /// Lowest version there is.
        low: u32,
        /// Highest version there is.
        high: u32,
    },
    /// MSG_DENIED, AUTH_ERROR with its `auth_stat` ([`AUTH_REJECTEDCRED`], [`AUTH_TOOWEAK`], ...).
    DeniedAuth(u32),
}

/// A record that arrived, header decoded, body not.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// A call and its arguments.
    Call(CallHeader, Bytes),
    /// A reply and its result.
    Reply(ReplyHeader, Bytes),
}

/// Starts a call: the header, to which the body is appended. Avoids the copy of [`encode_call`].
///
/// # Errors
/// A lock owner that does not fit the credential.
pub fn write_call_header(
    writer: &mut Writer,
    xid: u32,
    program: u32,
    version: u32,
    procedure: u32,
    credential: &Credential,
) -> Result<(), EncodeError> {
    for word in [xid, CALL, RPC_VERSION, program, version, procedure] {
        writer.u32(word);
    }
    credential.write(writer)?;
    Credential::None.write(writer)
}

/// A whole call. `body` is what a program's `encode_request` made.
///
/// # Errors
/// A lock owner that does not fit the credential.
pub fn encode_call(
    xid: u32,
    program: u32,
    version: u32,
    procedure: u32,
    credential: &Credential,
    body: Message,
) -> Result<Message, EncodeError> {
    let mut writer = Writer::with_capacity(160 + body.header.len());
    write_call_header(&mut writer, xid, program, version, procedure, credential)?;
    writer.raw(&body.header);
    Ok(Message { header: writer.finish(), ..body })
}

/// Starts a reply: the header, to which the body is appended after [`AcceptStatus::Success`].
pub fn write_reply_header(writer: &mut Writer, xid: u32, status: AcceptStatus) {
    writer.u32(xid);
    writer.u32(REPLY);
    match status {
        AcceptStatus::DeniedVersion { low, high } => {
            for word in [MSG_DENIED, RPC_MISMATCH, low, high] {
                writer.u32(word);
            }
            return;
        }
        AcceptStatus::DeniedAuth(reason) => {
            for word in [MSG_DENIED, AUTH_ERROR, reason] {
                writer.u32(word);
            }
            return;
        }
        _ => {}
    }
    // Verifier: AUTH_NONE, no body.
    for word in [MSG_ACCEPTED, 0, 0] {
        writer.u32(word);
    }
    match status {
        AcceptStatus::ProgUnavail => writer.u32(1),
        AcceptStatus::ProgMismatch { low, high } => {
            for word in [2, low, high] {
                writer.u32(word);
            }
        }
        AcceptStatus::ProcUnavail => writer.u32(3),
        AcceptStatus::GarbageArgs => writer.u32(4),
        AcceptStatus::SystemErr => writer.u32(5),
        AcceptStatus::Success | AcceptStatus::DeniedVersion { .. } | AcceptStatus::DeniedAuth(_) => writer.u32(0),
    }
}

/// A whole reply. `body` goes along only with [`AcceptStatus::Success`].
pub fn encode_reply(xid: u32, status: AcceptStatus, body: Message) -> Message {
    let body = if status == AcceptStatus::Success { body } else { Message::default() };
    let mut writer = Writer::with_capacity(32 + body.header.len());
    write_reply_header(&mut writer, xid, status);
    writer.raw(&body.header);
    Message { header: writer.finish(), ..body }
}

/// The header of a record as [`crate::Transport::recv`] gives it.
///
/// # Errors
/// What is no ONC-RPC version 2 message: the connection is of no further use.
pub fn decode_record(record: Bytes) -> Result<Incoming, DecodeError> {
    let mut reader = Reader::new(record);
    let xid = reader.u32("xid")?;
    match reader.u32("message type")? {
        CALL => {
            let version = reader.u32("RPC version")?;
            if version != RPC_VERSION {
                return Err(DecodeError::BadValue { what: "RPC version", value: i64::from(version) });
            }
            let (program, version) = (reader.u32("program")?, reader.u32("program version")?);
            let procedure = reader.u32("procedure")?;
            let credential = Credential::read(&mut reader)?;
            skip_verifier(&mut reader)?;
            Ok(Incoming::Call(CallHeader { xid, program, version, procedure, credential }, reader.rest()))
        }
        REPLY => {
            let status = read_reply_status(&mut reader)?;
            Ok(Incoming::Reply(ReplyHeader { xid, status }, reader.rest()))
        }
        other => Err(DecodeError::BadValue { what: "message type", value: i64::from(other) }),
    }
}

fn skip_verifier(reader: &mut Reader) -> Result<(), DecodeError> {
    reader.u32("verifier flavor")?;
    reader.opaque("verifier", MAX_AUTH_BYTES).map(drop)
}

fn read_reply_status(reader: &mut Reader) -> Result<AcceptStatus, DecodeError> {
    let bad = |what, value: u32| Err(DecodeError::BadValue { what, value: i64::from(value) });
    match reader.u32("reply status")? {
        MSG_ACCEPTED => {
            skip_verifier(reader)?;
            Ok(match reader.u32("accept status")? {
                0 => AcceptStatus::Success,
                1 => AcceptStatus::ProgUnavail,
                2 => AcceptStatus::ProgMismatch { low: reader.u32("low")?, high: reader.u32("high")? },
                3 => AcceptStatus::ProcUnavail,
                4 => AcceptStatus::GarbageArgs,
                5 => AcceptStatus::SystemErr,
                other => return bad("accept status", other),
            })
        }
        MSG_DENIED => match reader.u32("reject status")? {
            RPC_MISMATCH => Ok(AcceptStatus::DeniedVersion { low: reader.u32("low")?, high: reader.u32("high")? }),
            AUTH_ERROR => Ok(AcceptStatus::DeniedAuth(reader.u32("auth status")?)),
            other => bad("reject status", other),
        },
        other => bad("reply status", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: &'static [u8]) -> Message {
        Message { header: Bytes::from_static(bytes), ..Message::default() }
    }

    #[test]
    fn a_call_round_trips() {
        let call = encode_call(7, 1298437, 400, 27, &Credential::None, body(b"arguments...")).unwrap();
        let Ok(Incoming::Call(header, rest)) = decode_record(call.header) else { panic!("not a call") };
        assert_eq!((header.xid, header.program, header.version, header.procedure), (7, 1298437, 400, 27));
        assert_eq!(&rest[..], b"arguments...");
    }

    #[test]
    fn every_status_round_trips() {
        for status in [
            AcceptStatus::Success,
            AcceptStatus::ProgUnavail,
            AcceptStatus::ProgMismatch { low: 1, high: 3 },
            AcceptStatus::ProcUnavail,
            AcceptStatus::GarbageArgs,
            AcceptStatus::SystemErr,
            AcceptStatus::DeniedVersion { low: 2, high: 2 },
            AcceptStatus::DeniedAuth(AUTH_REJECTEDCRED),
        ] {
            let reply = encode_reply(9, status, body(b"body"));
            let Ok(Incoming::Reply(header, rest)) = decode_record(reply.header) else { panic!("not a reply") };
            assert_eq!(header, ReplyHeader { xid: 9, status });
            assert_eq!(rest.len(), if status == AcceptStatus::Success { 4 } else { 0 });
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let call = encode_call(7, 1, 2, 3, &Credential::None, Message::default()).unwrap().header;
        for end in 0..call.len() {
            assert!(decode_record(call.slice(..end)).is_err(), "{end} bytes");
        }
    }
}
