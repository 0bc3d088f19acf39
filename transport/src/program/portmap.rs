//! Portmap: glusterd tells clients on which port a brick listens; bricks tell glusterd. Source: portmap-xdr.x.

use bytes::Bytes;

use super::{MAX_TEXT_BYTES, body, text};
use crate::Message;
use crate::xdr::{DecodeError, Reader, Writer};

/// Program number.
pub const PROGRAM: u32 = 34123456;
/// Version.
pub const VERSION: u32 = 1;
/// Name as DUMP lists it.
pub const NAME: &str = "Gluster Portmap";
/// A brick's port: [`PortByBrick`] answered with [`PortByBrickReply`].
pub const PROC_PORTBYBRICK: u32 = 1;
/// A port's brick: [`BrickByPort`] answered with [`BrickByPortReply`].
pub const PROC_BRICKBYPORT: u32 = 2;
/// A brick has begun to listen: [`Signin`] answered with [`Status`].
pub const PROC_SIGNIN: u32 = 4;
/// A brick has ended: [`Signout`] answered with [`Status`].
pub const PROC_SIGNOUT: u32 = 5;

/// Asks for the port of a brick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortByBrick {
    /// The brick's path (`remote-subvolume`).
    pub brick: String,
}

impl PortByBrick {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.opaque(self.brick.as_bytes());
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<PortByBrick, DecodeError> {
        Ok(PortByBrick { brick: text(&Reader::new(data).string("brick", MAX_TEXT_BYTES)?) })
    }
}

/// The port of a brick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortByBrickReply {
    /// 0, or -1: not known, not started.
    pub op_ret: i32,
    /// Errno of a failure (stock glusterd leaves 0).
    pub op_errno: i32,
    /// Whether the brick runs (stock: 0).
    pub status: i32,
    /// Its port.
    pub port: i32,
}

impl PortByBrickReply {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        for number in [self.op_ret, self.op_errno, self.status, self.port] {
            w.i32(number);
        }
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(data: Bytes) -> Result<PortByBrickReply, DecodeError> {
        let mut r = Reader::new(data);
        Ok(PortByBrickReply {
            op_ret: r.i32("op_ret")?,
            op_errno: r.i32("op_errno")?,
            status: r.i32("status")?,
            port: r.i32("port")?,
        })
    }
}

/// Asks for the brick of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrickByPort {
    /// The port.
    pub port: i32,
}

impl BrickByPort {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.i32(self.port);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(data: Bytes) -> Result<BrickByPort, DecodeError> {
        Ok(BrickByPort { port: Reader::new(data).i32("port")? })
    }
}

/// The brick of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrickByPortReply {
    /// 0, or -1.
    pub op_ret: i32,
    /// Errno of a failure.
    pub op_errno: i32,
    /// Unused by stock.
    pub status: i32,
    /// The brick's path.
    pub brick: String,
}

impl BrickByPortReply {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        for number in [self.op_ret, self.op_errno, self.status] {
            w.i32(number);
        }
        w.opaque(self.brick.as_bytes());
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<BrickByPortReply, DecodeError> {
        let mut r = Reader::new(data);
        Ok(BrickByPortReply {
            op_ret: r.i32("op_ret")?,
            op_errno: r.i32("op_errno")?,
            status: r.i32("status")?,
            brick: text(&r.string("brick", MAX_TEXT_BYTES)?),
        })
    }
}

/// A brick has begun to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signin {
    /// The brick's path.
    pub brick: String,
    /// Its port.
    pub port: i32,
    /// Its process.
    pub pid: i32,
}

impl Signin {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.opaque(self.brick.as_bytes());
        w.i32(self.port);
        w.i32(self.pid);
        body(w)
    }

    /// From the wire; bricks older than GlusterFS 8 send no pid.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<Signin, DecodeError> {
        let mut r = Reader::new(data);
        let (brick, port) = (text(&r.string("brick", MAX_TEXT_BYTES)?), r.i32("port")?);
        let pid = if r.left() == 0 { 0 } else { r.i32("pid")? };
        Ok(Signin { brick, port, pid })
    }
}

/// A brick has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signout {
    /// The brick's path.
    pub brick: String,
    /// Its port.
    pub port: i32,
    /// A port of the RDMA transport that GlusterFS once had.
    pub rdma_port: i32,
}

impl Signout {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.opaque(self.brick.as_bytes());
        w.i32(self.port);
        w.i32(self.rdma_port);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<Signout, DecodeError> {
        let mut r = Reader::new(data);
        Ok(Signout {
            brick: text(&r.string("brick", MAX_TEXT_BYTES)?),
            port: r.i32("port")?,
            rdma_port: r.i32("rdma port")?,
        })
    }
}

/// Answer of SIGNIN and SIGNOUT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// 0, or -1.
    pub op_ret: i32,
    /// Errno of a failure.
    pub op_errno: i32,
}

impl Status {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.i32(self.op_ret);
        w.i32(self.op_errno);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(data: Bytes) -> Result<Status, DecodeError> {
        let mut r = Reader::new(data);
        Ok(Status { op_ret: r.i32("op_ret")?, op_errno: r.i32("op_errno")? })
    }
}
