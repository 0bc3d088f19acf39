//! Callbacks: what bricks and glusterd tell clients unasked, as RPC calls that nobody answers. Source:
//! glusterfs3-xdr.x, glusterfs4-xdr.x, glusterfs3.h of 10.3.

use bytes::Bytes;
use ladrillo_translator::fop::{Flock, Name};
use ladrillo_translator::{Dict, Gfid, Iatt, Timespec};

use super::fop4::{read_flock, write_flock};
use super::{MAX_TEXT_BYTES, body, text};
use crate::Message;
use crate::dict::{rdev_from_wire, rdev_to_wire, read_untyped, write_untyped};
use crate::xdr::{DecodeError, EncodeError, Reader, Writer};

/// Program number.
pub const PROGRAM: u32 = 52743234;
/// Version.
pub const VERSION: u32 = 1;
/// Name.
pub const NAME: &str = "GlusterFS Callback";

const PROC_FETCHSPEC: u32 = 1;
/// glusterd's EVENT_NOTIFY: an event number (i32) and a dict. Stock processes log it and go on.
pub const PROC_EVENT_NOTIFY: u32 = 3;
const PROC_CACHE_INVALIDATION: u32 = 5;
const PROC_CHILD_UP: u32 = 6;
const PROC_CHILD_DOWN: u32 = 7;
const PROC_STATEDUMP: u32 = 9;
const PROC_INODELK_CONTENTION: u32 = 10;
const PROC_ENTRYLK_CONTENTION: u32 = 11;

/// Event of our glusterd for a heal service that fetched `shd/V`: heal what the indices name, now.
pub const EVENT_HEAL_INDEX: i32 = 0x4c48_0001;
/// Event of our glusterd for a heal service that fetched `shd/V`: look at every file of the volume, now.
pub const EVENT_HEAL_FULL: i32 = 0x4c48_0002;

/// GF_UPCALL_CACHE_INVALIDATION: the event type of [`Callback::CacheInvalidation`].
const UPCALL_CACHE_INVALIDATION: u32 = 1;

/// What a server tells its clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Callback {
    /// glusterd has a new volfile: ask for it.
    Fetchspec,
    /// Someone else changed an inode.
    CacheInvalidation(Box<CacheInvalidation>),
    /// The brick's storage is up again.
    ChildUp,
    /// The brick's storage is down: fops will fail.
    ChildDown,
    /// Write a state dump.
    Statedump {
        /// The process that shall.
        pid: u32,
    },
    /// Someone waits for an inodelk this client holds.
    InodelkContention {
        /// Locked inode.
        gfid: Gfid,
        /// The range this client holds.
        flock: Flock,
        /// The waiting process.
        pid: u32,
        /// Lock domain.
        domain: Bytes,
        /// What goes along.
        xdata: Dict,
    },
    /// Someone waits for an entrylk this client holds.
    EntrylkContention {
        /// Locked directory.
        gfid: Gfid,
        /// ENTRYLK_RDLCK 0, ENTRYLK_WRLCK 1.
        kind: u32,
        /// The waiting process.
        pid: u32,
        /// Locked name; `None` = all.
        name: Option<Name>,
        /// Lock domain.
        domain: Bytes,
        /// What goes along.
        xdata: Dict,
    },
}

/// Someone else changed an inode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheInvalidation {
    /// The inode.
    pub gfid: Gfid,
    /// UP_* bits: what changed.
    pub flags: u32,
    /// How long attributes may be cached, in seconds.
    pub expire_time_attr_seconds: u32,
    /// The inode now.
    pub iatt: Iatt,
    /// Its parent now (creating and removing fops).
    pub parent: Iatt,
    /// Its earlier parent now (rename).
    pub old_parent: Iatt,
    /// Changed xattrs.
    pub xdata: Dict,
}

impl Callback {
    /// Its procedure and body.
    ///
    /// # Errors
    /// A lock owner longer than the wire takes.
    pub fn encode(&self) -> Result<(u32, Message), EncodeError> {
        let mut w = Writer::default();
        let procedure = match self {
            Callback::Fetchspec => PROC_FETCHSPEC,
            Callback::ChildUp => PROC_CHILD_UP,
            Callback::ChildDown => PROC_CHILD_DOWN,
            Callback::Statedump { pid } => {
                w.u32(*pid);
                PROC_STATEDUMP
            }
            Callback::CacheInvalidation(what) => {
                w.opaque(what.gfid.to_string().as_bytes());
                w.u32(UPCALL_CACHE_INVALIDATION);
                w.u32(what.flags);
                w.u32(what.expire_time_attr_seconds);
                for iatt in [&what.iatt, &what.parent, &what.old_parent] {
                    write_old_iatt(&mut w, iatt);
                }
                write_untyped(&mut w, &what.xdata);
                PROC_CACHE_INVALIDATION
            }
            Callback::InodelkContention { gfid, flock, pid, domain, xdata } => {
                w.raw(&gfid.0);
                write_flock(&mut w, flock)?;
                w.u32(*pid);
                w.opaque(domain);
                write_untyped(&mut w, xdata);
                PROC_INODELK_CONTENTION
            }
            Callback::EntrylkContention { gfid, kind, pid, name, domain, xdata } => {
                w.raw(&gfid.0);
                w.u32(*kind);
                w.u32(*pid);
                w.opaque(name.as_deref().unwrap_or_default());
                w.opaque(domain);
                write_untyped(&mut w, xdata);
                PROC_ENTRYLK_CONTENTION
            }
        };
        Ok((procedure, body(w)))
    }

    /// From the wire. `Ok(None)`: one that this project does not use (leases, snapshots): ignore it.
    ///
    /// # Errors
    /// What is malformed.
    pub fn decode(procedure: u32, data: Bytes) -> Result<Option<Callback>, DecodeError> {
        let mut r = Reader::new(data);
        Ok(Some(match procedure {
            PROC_FETCHSPEC => Callback::Fetchspec,
            PROC_CHILD_UP => Callback::ChildUp,
            PROC_CHILD_DOWN => Callback::ChildDown,
            PROC_STATEDUMP => Callback::Statedump { pid: r.u32("pid")? },
            PROC_CACHE_INVALIDATION => {
                let gfid = text(&r.string("gfid", MAX_TEXT_BYTES)?);
                let gfid = gfid.parse().map_err(|_| DecodeError::BadName { what: "gfid" })?;
                let event = r.u32("upcall")?;
                if event != UPCALL_CACHE_INVALIDATION {
                    return Ok(None);
                }
                Callback::CacheInvalidation(Box::new(CacheInvalidation {
                    gfid,
                    flags: r.u32("invalidation flags")?,
                    expire_time_attr_seconds: r.u32("expire time")?,
                    iatt: read_old_iatt(&mut r)?,
                    parent: read_old_iatt(&mut r)?,
                    old_parent: read_old_iatt(&mut r)?,
                    xdata: read_untyped(&mut r)?,
                }))
            }
            PROC_INODELK_CONTENTION => Callback::InodelkContention {
                gfid: Gfid(r.array("gfid")?),
                flock: read_flock(&mut r)?,
                pid: r.u32("pid")?,
                domain: r.string("lock domain", MAX_TEXT_BYTES)?,
                xdata: read_untyped(&mut r)?,
            },
            PROC_ENTRYLK_CONTENTION => {
                let gfid = Gfid(r.array("gfid")?);
                let (kind, pid) = (r.u32("entrylk type")?, r.u32("pid")?);
                let name = Some(r.string("name", MAX_TEXT_BYTES)?).filter(|name| !name.is_empty());
                let domain = r.string("lock domain", MAX_TEXT_BYTES)?;
                Callback::EntrylkContention { gfid, kind, pid, name, domain, xdata: read_untyped(&mut r)? }
            }
            _ => return Ok(None),
        }))
    }
}

/// `gf_iatt`: the 3.x form, with 32-bit times.
fn write_old_iatt(w: &mut Writer, iatt: &Iatt) {
    w.raw(&iatt.gfid.0);
    w.u64(iatt.ino);
    w.u64(iatt.dev);
    for number in [iatt.mode, iatt.nlink, iatt.uid, iatt.gid] {
        w.u32(number);
    }
    w.u64(rdev_to_wire(iatt.rdev));
    w.u64(iatt.size_bytes);
    w.u32(iatt.block_size_bytes);
    w.u64(iatt.blocks);
    for time in [iatt.atime, iatt.mtime, iatt.ctime] {
        w.u32(time.seconds as u32);
        w.u32(time.nanos);
    }
}

fn read_old_iatt(r: &mut Reader) -> Result<Iatt, DecodeError> {
    let gfid = Gfid(r.array("gfid")?);
    let (ino, dev) = (r.u64("ino")?, r.u64("dev")?);
    let (mode, nlink) = (r.u32("mode")?, r.u32("nlink")?);
    let (uid, gid) = (r.u32("uid")?, r.u32("gid")?);
    let (rdev, size_bytes) = (rdev_from_wire(r.u64("rdev")?), r.u64("size")?);
    let (block_size_bytes, blocks) = (r.u32("block size")?, r.u64("blocks")?);
    let mut time = || -> Result<Timespec, DecodeError> {
        Ok(Timespec { seconds: i64::from(r.u32("seconds")?), nanos: r.u32("nanoseconds")? })
    };
    let (atime, mtime, ctime) = (time()?, time()?, time()?);
    Ok(Iatt {
        gfid,
        ino,
        dev,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        size_bytes,
        block_size_bytes,
        blocks,
        atime,
        mtime,
        ctime,
        flags: if mode == 0 { 0 } else { Iatt::VALID_BASIC & !0x800 },
        ..Iatt::default()
    })
}

#[cfg(test)]
mod tests {
    use ladrillo_translator::LockOwner;
    use ladrillo_translator::fop::LockType;

    use super::*;

    #[test]
    fn callbacks_round_trip_and_their_truncations_do_not_panic() {
        let iatt = Iatt { gfid: Gfid::ROOT, mode: 0o40755, flags: 0x17ff & !0x800, ..Iatt::default() };
        for callback in [
            Callback::Fetchspec,
            Callback::ChildDown,
            Callback::Statedump { pid: 7 },
            Callback::CacheInvalidation(Box::new(CacheInvalidation {
                gfid: Gfid::ROOT,
                flags: 8,
                iatt,
                ..CacheInvalidation::default()
            })),
            Callback::InodelkContention {
                gfid: Gfid::ROOT,
                flock: Flock {
                    kind: LockType::Write,
                    whence: 0,
                    start: 1,
                    len: 2,
                    pid: 3,
                    owner: LockOwner::from_u64(4),
                },
                pid: 5,
                domain: "v-replicate-0".into(),
                xdata: Dict::new(),
            },
            Callback::EntrylkContention {
                gfid: Gfid::ROOT,
                kind: 1,
                pid: 9,
                name: None,
                domain: "v-replicate-0".into(),
                xdata: Dict::new(),
            },
        ] {
            let (procedure, message) = callback.encode().unwrap();
            assert_eq!(Callback::decode(procedure, message.header.clone()).unwrap(), Some(callback));
            for end in 0..message.header.len() {
                let _ = Callback::decode(procedure, message.header.slice(..end));
            }
        }
        assert_eq!(Callback::decode(4, Bytes::new()).unwrap(), None);
    }
}
