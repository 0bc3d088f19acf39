//! DUMP: which programs a server has, and the PING that GlusterFS 7 and later sends. Source: rpc-common-xdr.x.

use bytes::Bytes;

use super::{MAX_TEXT_BYTES, body, text};
use crate::Message;
use crate::xdr::{DecodeError, Reader, Writer};

/// Program number.
pub const PROGRAM: u32 = 123451501;
/// Version.
pub const VERSION: u32 = 1;
/// Name as DUMP lists it.
pub const NAME: &str = "GF-DUMP";
/// Lists the programs.
pub const PROC_DUMP: u32 = 1;
/// Asks for a sign of life; no arguments, answered with [`PingReply`].
pub const PROC_PING: u32 = 2;

/// Most programs a list may have.
const MAX_PROGRAMS: usize = 256;
/// What stock clients send as `gfs_id`; nobody looks at it.
const GFS_ID: u64 = 0xcaed;

/// Arguments of DUMP.
pub fn encode_request() -> Message {
    let mut writer = Writer::default();
    writer.u64(GFS_ID);
    body(writer)
}

/// A program of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u64,
    /// Its version.
    pub version: u64,
}

/// Answer of DUMP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// 0, or -1 with the errno below.
    pub op_ret: i32,
    /// Errno of a failure.
    pub op_errno: i32,
    /// The programs.
    pub programs: Vec<Program>,
}

impl Reply {
    /// Whether a program is there in a version.
    pub fn has(&self, program: u32, version: u32) -> bool {
        self.programs.iter().any(|p| p.number == u64::from(program) && p.version == u64::from(version))
    }

    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut writer = Writer::default();
        writer.u64(0);
        writer.i32(self.op_ret);
        writer.i32(self.op_errno);
        for program in &self.programs {
            writer.u32(1);
            writer.opaque(program.name.as_bytes());
            writer.u64(program.number);
            writer.u64(program.version);
        }
        writer.u32(0);
        body(writer)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed, or more than 256 programs.
    pub fn decode(data: Bytes) -> Result<Reply, DecodeError> {
        let mut r = Reader::new(data);
        r.u64("gfs id")?;
        let mut reply = Reply { op_ret: r.i32("op_ret")?, op_errno: r.i32("op_errno")?, programs: Vec::new() };
        while r.present("next program")? {
            if reply.programs.len() == MAX_PROGRAMS {
                return Err(DecodeError::TooLong { what: "programs", length: MAX_PROGRAMS + 1, limit: MAX_PROGRAMS });
            }
            reply.programs.push(Program {
                name: text(&r.string("program name", MAX_TEXT_BYTES)?),
                number: r.u64("program number")?,
                version: r.u64("program version")?,
            });
        }
        Ok(reply)
    }
}

/// `gf_common_rsp` without xdata: PING's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PingReply {
    /// 0, or -1.
    pub op_ret: i32,
    /// Errno of a failure.
    pub op_errno: i32,
}

impl PingReply {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut writer = Writer::default();
        writer.i32(self.op_ret);
        writer.i32(self.op_errno);
        writer.u32(0);
        body(writer)
    }

    /// From the wire.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(data: Bytes) -> Result<PingReply, DecodeError> {
        let mut r = Reader::new(data);
        Ok(PingReply { op_ret: r.i32("op_ret")?, op_errno: r.i32("op_errno")? })
    }
}
