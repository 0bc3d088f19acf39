//! GETACTIVELK and SETACTIVELK: rebalance takes applications' locks from one brick to another with their file.

use super::*;
use crate::fop::ActiveLock;

impl Locks {
    /// Applications' granted locks on a file.
    pub(super) fn active_locks(&self, gfid: Gfid) -> Reply {
        let names = self.names.read();
        let of = |inode: &InodeLocks| {
            let lock = |held: &PosixLock| ActiveLock {
                flock: held.flock(),
                client: names
                    .get(&held.who.client)
                    .map(|name| Bytes::copy_from_slice(name.as_bytes()))
                    .unwrap_or_default(),
                flags: u32::from(held.mandatory),
            };
            inode.posix.granted.iter().map(lock).collect()
        };
        Reply::Activelk { locks: self.peek(gfid, of).unwrap_or_default(), xdata: Dict::new() }
    }

    /// Gives a file that has no locks those that it had elsewhere. Only GlusterFS's own services may: anybody else could
    /// lock for others.
    pub(super) fn set_active_locks(&self, context: &Context, gfid: Gfid, locks: Vec<ActiveLock>) -> FopResult {
        if !context.is_internal() {
            return Err(FopError::new(errno::EPERM, "only rebalance moves locks"));
        }
        if locks.is_empty() {
            return Err(FopError::new(errno::EINVAL, "no locks to set"));
        }
        let mut taken = Vec::new();
        {
            let names = self.names.read();
            for lock in locks {
                let holder = names.iter().find(|(_, name)| name.as_bytes() == &lock.client[..]);
                let Some((client, _)) = holder else {
                    return Err(FopError::not_connected("the holder of a lock that moves"));
                };
                let Some(range) = Range::from_flock(&lock.flock).filter(|_| lock.flock.kind != LockType::Unlock) else {
                    return Err(FopError::new(errno::EINVAL, "a lock outside what a file can have"));
                };
                let who = Who { client: *client, owner: lock.flock.owner.clone() };
                let (pid, mandatory) = (lock.flock.pid, lock.flags & 1 != 0);
                taken.push(PosixLock { who, fd: None, pid, caller: pid.cast_signed(), mandatory, range });
            }
        }
        self.on_inode(gfid, |inode, _, _| {
            if inode.posix.len() > 0 {
                return Err(FopError::new(errno::EEXIST, format!("{gfid} has locks already")));
            }
            for lock in taken {
                self.charge(lock.who.client, gfid)?;
                inode.posix.granted.push(lock);
            }
            Ok(Reply::done())
        })
    }
}
