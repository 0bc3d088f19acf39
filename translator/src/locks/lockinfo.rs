//! `trusted.glusterfs.lockinfo`: how a client that opens a file anew (another graph after `volume set`) takes the locks
//! of its old descriptor along. FGETXATTR on the old one gives a dict of brick -> token, FSETXATTR on the new one moves the
//! locks. Source: pl_fgetxattr_handle_lockinfo and pl_migrate_locks of GlusterFS 10.3, whose token is the descriptor's
//! address; ours is a keyed hash of its number, so that nobody takes locks he was not told of.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};

use super::*;

/// The xattr.
pub(super) const KEY: &str = "trusted.glusterfs.lockinfo";

/// Longest dict taken, in bytes. Source: our bound; a client sends one pair for each brick of a volume.
const MAX_BYTES: usize = 1 << 20;

/// Makes tokens of descriptors, and knows what the brick is called in the dict.
#[derive(Default)]
pub(super) struct Tokens {
    key: RandomState,
    brick: OnceLock<String>,
}

impl Tokens {
    /// Never 0, which means "no locks".
    fn of(&self, fd: FdId) -> u64 {
        self.key.hash_one(fd.0) | 1
    }
}

impl Locks {
    pub(super) async fn tell_lockinfo(&self, context: &Context, file: File) -> FopResult {
        let mut xattrs = Dict::new();
        let mine = |held: &PosixLock| held.who.client == context.client && held.fd == file.fd;
        let has_locks = self.peek(file.gfid, |inode| inode.posix.granted.iter().any(mine)).unwrap_or(false);
        if let (Some(fd), true) = (file.fd, has_locks) {
            let pair = [(self.lockinfo_key().await?, self.lockinfo.of(fd).to_string())];
            xattrs.set(KEY, Value::Ptr(encode(&pair)));
        }
        Ok(Reply::Xattrs { xattrs, xdata: Dict::new() })
    }

    pub(super) async fn take_lockinfo(&self, context: &Context, file: File, info: Option<Value>) -> FopResult<()> {
        let wrong = || FopError::new(errno::EINVAL, format!("{KEY} of a wrong form"));
        let raw = match info {
            Some(Value::Ptr(raw) | Value::Str(raw) | Value::StrOld(raw)) if raw.len() <= MAX_BYTES => raw,
            _ => return Err(wrong()),
        };
        let key = self.lockinfo_key().await?;
        let pairs = decode(&raw).ok_or_else(wrong)?;
        let Some((_, token)) = pairs.into_iter().find(|(name, _)| *name == key) else { return Ok(()) };
        let token: u64 = token.parse().map_err(|_| wrong())?;
        if token == 0 {
            return Ok(());
        }
        let (gfid, client) = (file.gfid, context.client);
        self.on_inode(gfid, |inode, _, _| {
            for held in &mut inode.posix.granted {
                if held.fd.is_some_and(|fd| self.lockinfo.of(fd) == token) {
                    if held.who.client != client {
                        self.charge(client, gfid)?;
                        self.discharge(held.who.client, gfid, 1);
                        held.who.client = client;
                    }
                    held.fd = file.fd;
                }
            }
            Ok(())
        })
    }

    /// `<POSIX(/brick):HOST`: what storage says where a file is, less the file.
    async fn lockinfo_key(&self) -> FopResult<String> {
        if let Some(known) = self.lockinfo.brick.get() {
            return Ok(known.clone());
        }
        let info = self.pathinfo().await;
        let key = info
            .as_deref()
            .and_then(|info| info.rsplit_once(':'))
            .map(|(key, _)| key.to_owned())
            .ok_or_else(|| FopError::new(errno::EIO, "storage does not say where the brick is"))?;
        Ok(self.lockinfo.brick.get_or_init(|| key).clone())
    }
}

/// GlusterFS's serialized dict: count, then for each pair lengths of key and value, key, NUL, value (with its NUL).
fn encode(pairs: &[(String, String)]) -> Bytes {
    let mut raw = BytesMut::new();
    raw.put_u32(u32::try_from(pairs.len()).unwrap_or(0));
    for (key, value) in pairs {
        raw.put_u32(u32::try_from(key.len()).unwrap_or(0));
        raw.put_u32(u32::try_from(value.len() + 1).unwrap_or(0));
        raw.put_slice(key.as_bytes());
        raw.put_u8(0);
        raw.put_slice(value.as_bytes());
        raw.put_u8(0);
    }
    raw.freeze()
}

fn decode(raw: &[u8]) -> Option<Vec<(String, String)>> {
    let number = |at: &mut &[u8]| {
        let (head, rest) = at.split_first_chunk::<4>()?;
        *at = rest;
        usize::try_from(u32::from_be_bytes(*head)).ok()
    };
    let text = |at: &mut &[u8], len: usize| {
        let (head, rest) = at.split_at_checked(len)?;
        *at = rest;
        Some(String::from_utf8_lossy(head.strip_suffix(b"\0").unwrap_or(head)).into_owned())
    };
    let mut at = raw;
    let count = number(&mut at)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let (key, value) = (number(&mut at)?, number(&mut at)?);
        pairs.push((text(&mut at, key.checked_add(1)?)?, text(&mut at, value)?));
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dicts_round_trip_and_nonsense_is_refused() {
        let pairs = vec![("<POSIX(/b):host".to_owned(), "123".to_owned()), ("other".to_owned(), "5".to_owned())];
        let raw = encode(&pairs);
        assert_eq!(decode(&raw), Some(pairs));
        assert_eq!(&raw[..8], &[0, 0, 0, 2, 0, 0, 0, 15]);
        assert_eq!(decode(&raw[..raw.len() - 1]), None);
        assert_eq!(decode(&[0xff; 40]), None);
        assert_eq!(decode(b""), None);
    }
}
