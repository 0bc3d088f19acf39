//! Locks of distribute on the subvolumes' inodes and names, as GlusterFS 10.3 takes them (dht-lock.c): stock clients and
//! rebalance take the same.

use bytes::Bytes;
use futures::future::join_all;
use ladrillo_translator::error::errno::{EIO, ENOENT, ESTALE};
use ladrillo_translator::fop::{Entry, EntrylkCmd, Flock, LockCmd, LockType};
use ladrillo_translator::{Context, Dict, Fop, FopResult, Gfid, LockOwner};

use super::Distribute;

/// Domain of locks on a directory's layout.
pub(super) const LAYOUT_DOMAIN: &[u8] = b"dht.layout.heal";
/// Domain of locks on names.
pub(super) const ENTRY_DOMAIN: &[u8] = b"dht.entry.sync";
/// Domain of locks on files that are moved.
pub(super) const MIGRATE_DOMAIN: &[u8] = b"dht.file.migrate";

/// Locks that are held. Not released by dropping: give them to [`Distribute::unlock`].
#[derive(Default)]
#[must_use]
pub(super) struct Held {
    locks: Vec<(usize, Context, Fop)>,
}

impl Held {
    /// Both.
    pub fn and(mut self, other: Held) -> Held {
        self.locks.extend(other.locks);
        self
    }
}

/// One inode to lock.
pub(super) struct Wanted {
    pub subvolume: usize,
    pub gfid: Gfid,
    /// It may have gone meanwhile: no error.
    pub optional: bool,
}

impl Distribute {
    fn inodelk(&self, gfid: Gfid, domain: &'static [u8], cmd: LockCmd, kind: LockType) -> Fop {
        let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 0, owner: LockOwner::default() };
        Fop::Inodelk { gfid, domain: Bytes::from_static(domain), cmd, flock, xdata: Dict::new() }
    }

    /// Locks inodes, one after the other in the order of the subvolumes' names (and gfids).
    pub(super) async fn lock_inodes(
        &self,
        domain: &'static [u8],
        kind: LockType,
        mut wanted: Vec<Wanted>,
    ) -> FopResult<Held> {
        wanted.sort_by(|a, b| (self.child_name(a.subvolume), a.gfid).cmp(&(self.child_name(b.subvolume), b.gfid)));
        wanted.dedup_by(|a, b| (a.subvolume, a.gfid) == (b.subvolume, b.gfid));
        let context = self.locker();
        let mut held = Held::default();
        for want in wanted {
            let fop = self.inodelk(want.gfid, domain, LockCmd::SetWait, kind);
            match self.ask(want.subvolume, &context, fop).await {
                Ok(_) => {
                    let unlock = self.inodelk(want.gfid, domain, LockCmd::Set, LockType::Unlock);
                    held.locks.push((want.subvolume, context.clone(), unlock));
                }
                Err(error) if want.optional && matches!(error.errno, ENOENT | ESTALE | EIO) => {}
                Err(error) => {
                    self.unlock(held).await;
                    return Err(error);
                }
            }
        }
        Ok(held)
    }

    /// Guards a name: the directory's layout stays, and nobody else works on the name. On the subvolume it hashes to.
    pub(super) async fn lock_name(&self, entry: &Entry, hashed: usize) -> FopResult<Held> {
        let layout = vec![Wanted { subvolume: hashed, gfid: entry.parent, optional: false }];
        let mut held = self.lock_inodes(LAYOUT_DOMAIN, LockType::Read, layout).await?;
        let context = self.locker();
        let entrylk = |cmd| Fop::Entrylk {
            gfid: entry.parent,
            domain: Bytes::from_static(ENTRY_DOMAIN),
            name: Some(entry.name.clone()),
            cmd,
            kind: LockType::Write,
            xdata: Dict::new(),
        };
        match self.ask(hashed, &context, entrylk(EntrylkCmd::Lock)).await {
            Ok(_) => {
                held.locks.push((hashed, context, entrylk(EntrylkCmd::Unlock)));
                Ok(held)
            }
            Err(error) => {
                self.unlock(held).await;
                Err(error)
            }
        }
    }

    /// Guards the two names of a rename, in the order all clients take them.
    pub(super) async fn lock_names(&self, from: (&Entry, usize), to: (&Entry, usize)) -> FopResult<Held> {
        let order = |(entry, hashed): (&Entry, usize)| {
            (self.child_name(hashed).to_owned(), format!("{}", entry.parent).into_bytes(), entry.name.clone())
        };
        if from == to {
            return self.lock_name(from.0, from.1).await;
        }
        let (first, second) = if order(from) <= order(to) { (from, to) } else { (to, from) };
        let held = self.lock_name(first.0, first.1).await?;
        match self.lock_name(second.0, second.1).await {
            Ok(more) => Ok(held.and(more)),
            Err(error) => {
                self.unlock(held).await;
                Err(error)
            }
        }
    }

    /// Releases all; what a subvolume that is gone held went with it.
    pub(super) async fn unlock(&self, held: Held) {
        join_all(held.locks.into_iter().rev().map(|(subvolume, context, fop)| async move {
            if let Err(error) = self.ask(subvolume, &context, fop).await {
                tracing::debug!(child = self.child_name(subvolume), %error, "unlock");
            }
        }))
        .await;
    }

    /// Releases all without waiting for it.
    pub(super) fn unlock_soon(&self, held: Held) {
        let Some(this) = self.this.upgrade() else { return };
        let guard = self.work.begin();
        self.runtime.spawn(Box::pin(async move {
            let _guard = guard;
            this.unlock(held).await;
        }));
    }

    /// The translator itself, under a lock owner of its own.
    fn locker(&self) -> Context {
        self.system().with_lock_owner(LockOwner::from_u64(self.fresh_owner()))
    }
}
