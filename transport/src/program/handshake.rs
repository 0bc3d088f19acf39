//! Handshake: volfiles from glusterd (GETSPEC), a client's session with a brick (SETVOLUME), signs of life. Dicts here
//! are the untyped ones. Source: glusterfs3-xdr.x, client-handshake.c, server-handshake.c of 10.3.

use bytes::Bytes;
use ladrillo_translator::Dict;

use super::{MAX_TEXT_BYTES, body, text};
use crate::Message;
use crate::dict::{read_untyped, write_untyped};
use crate::xdr::{DecodeError, Reader, Writer};

/// Program number.
pub const PROGRAM: u32 = 14398633;
/// Version.
pub const VERSION: u32 = 2;
/// Name as a brick's DUMP lists it.
pub const NAME: &str = "GlusterFS Handshake";
/// Name as glusterd's DUMP lists it.
pub const NAME_GLUSTERD: &str = "Gluster Handshake";

/// Begins a session with a brick: [`Setvolume`] answered with [`Answer`].
pub const PROC_SETVOLUME: u32 = 1;
/// A volfile: [`Getspec`] answered with [`GetspecReply`].
pub const PROC_GETSPEC: u32 = 2;
/// A sign of life, no arguments (clients before 7; later ones use DUMP's): [`super::dump::PingReply`].
pub const PROC_PING: u32 = 3;
/// Obsolete lock versions: [`SetLkVer`] answered with [`SetLkVerReply`].
pub const PROC_SET_LK_VER: u32 = 4;
/// A client's event for glusterd: [`EventNotify`] answered with [`Answer`].
pub const PROC_EVENT_NOTIFY: u32 = 5;
/// A volume's id by name: [`VolumeInfo`] answered with [`VolumeInfoReply`].
pub const PROC_GET_VOLUME_INFO: u32 = 6;
/// A volume's snapshots, for the snapview server: dicts as in GET_VOLUME_INFO.
pub const PROC_GET_SNAPSHOT_INFO: u32 = 7;

/// GETSPEC's flag: the reply's xdata shall have `servers-list`.
pub const GETSPEC_SERVERS_LIST: u32 = 1;

/// Begins a session with a brick: the client's options and identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setvolume {
    /// `remote-subvolume`, `process-uuid`, `fops-version`, `username`, `password`, ...
    pub dict: Dict,
}

impl Setvolume {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        write_untyped(&mut w, &self.dict);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<Setvolume, DecodeError> {
        Ok(Setvolume { dict: read_untyped(&mut Reader::new(data))? })
    }
}

/// A result, an errno and a dict: the answer of SETVOLUME (`volume-id`, `child_up`, `ERROR`, ...) and EVENT_NOTIFY.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// 0, or -1.
    pub op_ret: i32,
    /// Errno of a failure.
    pub op_errno: i32,
    /// What goes along.
    pub dict: Dict,
}

impl Answer {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.i32(self.op_ret);
        w.i32(self.op_errno);
        write_untyped(&mut w, &self.dict);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<Answer, DecodeError> {
        let mut r = Reader::new(data);
        Ok(Answer { op_ret: r.i32("op_ret")?, op_errno: r.i32("op_errno")?, dict: read_untyped(&mut r)? })
    }
}

/// Asks for a volfile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Getspec {
    /// [`GETSPEC_SERVERS_LIST`].
    pub flags: u32,
    /// Which: `V`, `/V`, `V.HOST.brick-path`, `shd/V`, `gluster/...`, `rebalance/V`.
    pub key: String,
    /// `min-op-version`, `max-op-version`, `brick_name`, ...
    pub xdata: Dict,
}

impl Getspec {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.u32(self.flags);
        w.opaque(self.key.as_bytes());
        write_untyped(&mut w, &self.xdata);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<Getspec, DecodeError> {
        let mut r = Reader::new(data);
        let flags = r.u32("getspec flags")?;
        let key = text(&r.string("volfile key", MAX_TEXT_BYTES)?);
        Ok(Getspec { flags, key, xdata: read_untyped(&mut r)? })
    }
}

/// A volfile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GetspecReply {
    /// Length of the volfile in bytes, or -1.
    pub op_ret: i32,
    /// Errno of a failure (ENOENT: no such volume).
    pub op_errno: i32,
    /// The volfile.
    pub spec: Bytes,
    /// `servers-list`, ...
    pub xdata: Dict,
}

impl GetspecReply {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::with_capacity(self.spec.len() + 256);
        w.i32(self.op_ret);
        w.i32(self.op_errno);
        w.opaque(&self.spec);
        write_untyped(&mut w, &self.xdata);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<GetspecReply, DecodeError> {
        let mut r = Reader::new(data);
        Ok(GetspecReply {
            op_ret: r.i32("op_ret")?,
            op_errno: r.i32("op_errno")?,
            spec: r.string("volfile", usize::MAX)?,
            xdata: read_untyped(&mut r)?,
        })
    }
}

/// Obsolete: a version of the client's locks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetLkVer {
    /// The client's identity.
    pub uid: String,
    /// The version.
    pub lk_ver: i32,
}

impl SetLkVer {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.opaque(self.uid.as_bytes());
        w.i32(self.lk_ver);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<SetLkVer, DecodeError> {
        let mut r = Reader::new(data);
        Ok(SetLkVer { uid: text(&r.string("client uid", MAX_TEXT_BYTES)?), lk_ver: r.i32("lock version")? })
    }
}

/// Answer of [`SetLkVer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetLkVerReply {
    /// 0, or -1.
    pub op_ret: i32,
    /// Errno of a failure.
    pub op_errno: i32,
    /// The server's version.
    pub lk_ver: i32,
}

impl SetLkVerReply {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        for number in [self.op_ret, self.op_errno, self.lk_ver] {
            w.i32(number);
        }
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(data: Bytes) -> Result<SetLkVerReply, DecodeError> {
        let mut r = Reader::new(data);
        Ok(SetLkVerReply { op_ret: r.i32("op_ret")?, op_errno: r.i32("op_errno")?, lk_ver: r.i32("lock version")? })
    }
}

/// A client's event for glusterd (rebalance's state: GF_EN_DEFRAG_STATUS 1, ...).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventNotify {
    /// Which.
    pub op: i32,
    /// What goes along.
    pub dict: Dict,
}

impl EventNotify {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.i32(self.op);
        write_untyped(&mut w, &self.dict);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<EventNotify, DecodeError> {
        let mut r = Reader::new(data);
        Ok(EventNotify { op: r.i32("event")?, dict: read_untyped(&mut r)? })
    }
}

/// Asks about a volume by name (`volname`, `flags`), or about its snapshots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeInfo {
    /// What is asked.
    pub dict: Dict,
}

impl VolumeInfo {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        write_untyped(&mut w, &self.dict);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<VolumeInfo, DecodeError> {
        Ok(VolumeInfo { dict: read_untyped(&mut Reader::new(data))? })
    }
}

/// Answer of [`VolumeInfo`] (`volume_id`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeInfoReply {
    /// 0, or -1.
    pub op_ret: i32,
    /// Errno of a failure.
    pub op_errno: i32,
    /// What failed, in words.
    pub error: String,
    /// The answer.
    pub dict: Dict,
}

impl VolumeInfoReply {
    /// On the wire.
    pub fn encode(&self) -> Message {
        let mut w = Writer::default();
        w.i32(self.op_ret);
        w.i32(self.op_errno);
        w.opaque(self.error.as_bytes());
        write_untyped(&mut w, &self.dict);
        body(w)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(data: Bytes) -> Result<VolumeInfoReply, DecodeError> {
        let mut r = Reader::new(data);
        Ok(VolumeInfoReply {
            op_ret: r.i32("op_ret")?,
            op_errno: r.i32("op_errno")?,
            error: text(&r.string("error", MAX_TEXT_BYTES)?),
            dict: read_untyped(&mut r)?,
        })
    }
}
