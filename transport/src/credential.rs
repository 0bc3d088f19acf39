//! Who calls: the credential of an RPC call. AUTH_NONE for handshakes between strangers, AUTH_GLUSTERFS v2 and v3 for
//! everything else. Source: GlusterFS 10.3, rpc-lib (auth-glusterfs, rpc-clnt) and glusterfs4-xdr.x.

use std::sync::Arc;

use bytes::Bytes;
use ladrillo_translator::{ClientId, Context, LockOwner, Timespec};

use crate::xdr::{DecodeError, EncodeError, Reader, Writer, padding};

/// Largest body of a credential or verifier (RFC 5531 section 8.2).
pub const MAX_AUTH_BYTES: usize = 400;

const AUTH_NONE: u32 = 0;
const AUTH_GLUSTERFS_V2: u32 = 390039;
const AUTH_GLUSTERFS_V3: u32 = 390040;

/// 4-byte units that groups and lock owner may take together, as GlusterFS counts them (a *byte* of lock owner counts
/// as a unit; peers truncate the group list by the same rule).
const SHARED_UNITS_V2: usize = 95;
const SHARED_UNITS_V3: usize = 91;

/// The credential of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credential {
    /// AUTH_NONE (0).
    #[default]
    None,
    /// AUTH_GLUSTERFS v2 (390039): handshake, portmap, dump.
    GlusterfsV2(Caller),
    /// AUTH_GLUSTERFS v3 (390040): file operations.
    GlusterfsV3(Caller),
    /// Another flavor, or one of ours that does not decode: refuse the call with AUTH_REJECTEDCRED.
    Unknown {
        /// Its number.
        flavor: u32,
        /// Its undecoded body.
        body: Bytes,
    },
}

/// What AUTH_GLUSTERFS says of the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Process id, negative for GlusterFS's own services.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
    /// Lock owner.
    pub lock_owner: Bytes,
    /// Which times the request moves (v3): see [`crate::program::fop4::time_flags`]. 0 = none, whatever `birth` says.
    pub flags: u32,
    /// Birth of the request on the client (v3).
    pub birth: Timespec,
}

impl Credential {
    /// AUTH_GLUSTERFS v3 for a caller. Without a lock owner GlusterFS sends the pid as one, in 4 bytes; so do we.
    pub fn v3(context: &Context) -> Credential {
        Credential::GlusterfsV3(Caller::of(context))
    }

    /// AUTH_GLUSTERFS v2 for a caller.
    pub fn v2(context: &Context) -> Credential {
        Credential::GlusterfsV2(Caller::of(context))
    }

    /// The caller as fops carry it: root without groups for AUTH_NONE, `None` where the credential is not understood.
    pub fn context(&self, client: ClientId) -> Option<Context> {
        match self {
            Credential::None => Some(Context { client, ..Context::root() }),
            Credential::GlusterfsV2(caller) | Credential::GlusterfsV3(caller) => Some(Context {
                uid: caller.uid,
                gid: caller.gid,
                groups: caller.groups.clone(),
                pid: caller.pid,
                lock_owner: LockOwner(caller.lock_owner.clone()),
                birth: caller.birth,
                client,
            }),
            Credential::Unknown { .. } => None,
        }
    }

    /// Writes flavor, length and body.
    ///
    /// # Errors
    /// A lock owner that does not fit in the 400 bytes. Groups that do not fit are left out, as GlusterFS does.
    pub fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Credential::None => {
                writer.u32(AUTH_NONE);
                writer.u32(0);
                Ok(())
            }
            Credential::GlusterfsV2(caller) => caller.write(writer, AUTH_GLUSTERFS_V2, SHARED_UNITS_V2),
            Credential::GlusterfsV3(caller) => caller.write(writer, AUTH_GLUSTERFS_V3, SHARED_UNITS_V3),
            Credential::Unknown { flavor, body } => {
                check_length(body.len(), MAX_AUTH_BYTES)?;
                writer.u32(*flavor);
                writer.opaque(body);
                Ok(())
            }
        }
    }

    /// Reads flavor, length and body. A body that does not decode gives [`Credential::Unknown`], so that the caller
    /// can be told.
    ///
    /// # Errors
    /// Truncated data, or more than 400 bytes.
    pub fn read(reader: &mut Reader) -> Result<Credential, DecodeError> {
        let flavor = reader.u32("credential flavor")?;
        let body = reader.opaque("credential", MAX_AUTH_BYTES)?;
        let decoded = match flavor {
            AUTH_NONE => Some(Credential::None),
            AUTH_GLUSTERFS_V2 => Caller::read(&body, false).ok().map(Credential::GlusterfsV2),
            AUTH_GLUSTERFS_V3 => Caller::read(&body, true).ok().map(Credential::GlusterfsV3),
            _ => None,
        };
        Ok(decoded.unwrap_or(Credential::Unknown { flavor, body }))
    }
}

impl Caller {
    fn of(context: &Context) -> Caller {
        let lock_owner = match context.lock_owner.0.is_empty() {
            true => Bytes::copy_from_slice(&context.pid.to_le_bytes()),
            false => context.lock_owner.0.clone(),
        };
        Caller {
            pid: context.pid,
            uid: context.uid,
            gid: context.gid,
            groups: context.groups.clone(),
            lock_owner,
            flags: 0,
            birth: context.birth,
        }
    }

    fn write(&self, writer: &mut Writer, flavor: u32, shared_units: usize) -> Result<(), EncodeError> {
        check_length(self.lock_owner.len(), shared_units)?;
        let groups = &self.groups[..self.groups.len().min(shared_units - self.lock_owner.len())];
        let v3 = flavor == AUTH_GLUSTERFS_V3;
        let variable_bytes = 4 * groups.len() + self.lock_owner.len() + padding(self.lock_owner.len());
        let fixed_bytes = if v3 { 36 } else { 20 };
        writer.u32(flavor);
        writer.u32((fixed_bytes + variable_bytes) as u32);
        writer.i32(self.pid);
        writer.u32(self.uid);
        writer.u32(self.gid);
        if v3 {
            writer.u32(self.flags);
            writer.u32(self.birth.nanos);
            writer.i64(self.birth.seconds);
        }
        writer.u32(groups.len() as u32);
        for group in groups {
            writer.u32(*group);
        }
        writer.opaque(&self.lock_owner);
        Ok(())
    }

    fn read(body: &Bytes, v3: bool) -> Result<Caller, DecodeError> {
        let mut reader = Reader::new(body.clone());
        let mut caller =
            Caller { pid: reader.i32("pid")?, uid: reader.u32("uid")?, gid: reader.u32("gid")?, ..Caller::default() };
        if v3 {
            caller.flags = reader.u32("credential flags")?;
            let nanos = reader.u32("birth nanoseconds")?.min(999_999_999);
            caller.birth = Timespec { seconds: reader.i64("birth seconds")?, nanos };
        }
        let count = reader.u32("group count")? as usize;
        if count > reader.left() / 4 {
            return Err(DecodeError::TooLong { what: "groups", length: count, limit: reader.left() / 4 });
        }
        caller.groups = (0..count).map(|_| reader.u32("group")).collect::<Result<_, _>>()?;
        caller.lock_owner = reader.opaque("lock owner", MAX_AUTH_BYTES)?;
        Ok(caller)
    }
}

fn check_length(length: usize, limit: usize) -> Result<(), EncodeError> {
    if length > limit {
        return Err(EncodeError::TooLong { what: "credential", length, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(credential: &Credential) -> Credential {
        let mut writer = Writer::default();
        credential.write(&mut writer).unwrap();
        let mut reader = Reader::new(writer.finish());
        let back = Credential::read(&mut reader).unwrap();
        assert_eq!(reader.left(), 0);
        back
    }

    fn caller(groups: usize, owner: usize) -> Caller {
        Caller {
            pid: -6,
            uid: 1000,
            gid: 100,
            groups: (0..groups as u32).collect(),
            lock_owner: Bytes::from(vec![7; owner]),
            flags: 0,
            birth: Timespec::default(),
        }
    }

    #[test]
    fn both_versions_round_trip() {
        let mut v3 = caller(5, 8);
        v3.birth = Timespec { seconds: 1_795_401_411, nanos: 999_999_999 };
        assert_eq!(round_trip(&Credential::GlusterfsV3(v3.clone())), Credential::GlusterfsV3(v3));
        assert_eq!(round_trip(&Credential::GlusterfsV2(caller(0, 0))), Credential::GlusterfsV2(caller(0, 0)));
        assert_eq!(round_trip(&Credential::None), Credential::None);
    }

    #[test]
    fn too_many_groups_are_cut_as_stock_peers_do() {
        let Credential::GlusterfsV3(back) = round_trip(&Credential::GlusterfsV3(caller(200, 8))) else { panic!() };
        assert_eq!((back.groups.len(), back.lock_owner.len()), (83, 8));
        let mut writer = Writer::default();
        assert!(Credential::GlusterfsV3(caller(0, 92)).write(&mut writer).is_err());
    }

    #[test]
    fn garbage_is_named_not_trusted() {
        let mut writer = Writer::default();
        writer.u32(AUTH_GLUSTERFS_V3);
        writer.opaque(&[0xff; 40]);
        let read = Credential::read(&mut Reader::new(writer.finish())).unwrap();
        assert!(matches!(read, Credential::Unknown { flavor: AUTH_GLUSTERFS_V3, .. }));
        assert!(read.context(ClientId::LOCAL).is_none());
        let mut writer = Writer::default();
        writer.u32(1);
        writer.opaque(&[0; 404]);
        assert!(Credential::read(&mut Reader::new(writer.finish())).is_err());
    }

    #[test]
    fn no_lock_owner_means_the_pid() {
        let context = Context { pid: 0x0102, ..Context::root() };
        let Credential::GlusterfsV3(caller) = Credential::v3(&context) else { panic!() };
        assert_eq!(&caller.lock_owner[..], &[2, 1, 0, 0]);
    }
}
