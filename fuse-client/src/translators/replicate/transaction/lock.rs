//! The locks of a transaction. All children at once without waiting; where one is taken, let go of all and wait for
//! them one after the other in volfile order, so that two clients never hold what the other waits for.

use ladrillo_translator::error::errno::{EAGAIN, ENOTCONN};
use ladrillo_translator::fop::{EntrylkCmd, Flock, LockCmd, LockType, Name};
use ladrillo_translator::{Context, Dict, Fop, FopError, Gfid, LocalFuture, LockOwner};

use crate::translators::replicate::children::View;
use crate::translators::replicate::{Mask, Replicate, leaves_unknown};

/// First byte of the range that stands for an inode's metadata (LLONG_MAX - 1; the length is "to the end").
pub(crate) const METADATA_START: u64 = i64::MAX as u64 - 1;

/// What is to be locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lockee {
    /// Bytes of an inode.
    Range {
        /// Inode.
        gfid: Gfid,
        /// First byte.
        start: u64,
        /// Length in bytes; 0 = to the end.
        len: u64,
    },
    /// A name in a directory, or all names.
    Name {
        /// Directory.
        gfid: Gfid,
        /// `None` = all.
        name: Option<Name>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Try,
    Wait,
    Unlock,
}

impl Lockee {
    fn fop(&self, domain: bytes::Bytes, step: Step) -> Fop {
        match self {
            Lockee::Range { gfid, start, len } => Fop::Inodelk {
                gfid: *gfid,
                domain,
                cmd: if step == Step::Wait { LockCmd::SetWait } else { LockCmd::Set },
                flock: Flock {
                    kind: if step == Step::Unlock { LockType::Unlock } else { LockType::Write },
                    whence: 0,
                    start: *start,
                    len: *len,
                    pid: 0,
                    owner: LockOwner::default(),
                },
                xdata: Dict::new(),
            },
            Lockee::Name { gfid, name } => Fop::Entrylk {
                gfid: *gfid,
                domain,
                name: name.clone(),
                cmd: match step {
                    Step::Try => EntrylkCmd::TryLock,
                    Step::Wait => EntrylkCmd::Lock,
                    Step::Unlock => EntrylkCmd::Unlock,
                },
                kind: LockType::Write,
                xdata: Dict::new(),
            },
        }
    }

    /// The order of locking: by gfid, "all names" first, then by name.
    fn rank(&self) -> (Gfid, Option<&[u8]>, u64) {
        match self {
            Lockee::Range { gfid, start, .. } => (*gfid, None, *start),
            Lockee::Name { gfid, name } => (*gfid, name.as_deref(), 0),
        }
    }
}

/// Sorts lockees into the order every client locks in, and drops doubles.
pub(crate) fn in_order(mut lockees: Vec<Lockee>) -> Vec<Lockee> {
    lockees.sort_by(|a, b| a.rank().cmp(&b.rank()));
    lockees.dedup();
    lockees
}

/// Locks that were taken.
pub(crate) struct Locked {
    /// Children that hold all of them.
    pub on: Mask,
    /// Children as they were when each was asked: one that was lost since has lost its locks.
    pub since: View,
    /// Why others do not.
    pub error: Option<FopError>,
}

impl Replicate {
    /// Takes `lockees` (in [`in_order`]'s order) on `children`, for the lock owner of `context`.
    pub(crate) async fn lock_all(&self, context: &Context, domain: &str, lockees: &[Lockee], children: Mask) -> Locked {
        let mut since = self.view();
        let tried = self.lock_step(context, domain, lockees, children, Step::Try).await;
        let contended = tried.iter().any(|(_, _, error)| matches!(error, Some(error) if error.errno == EAGAIN));
        if !contended {
            return self.settle(context, domain, lockees, since, children, tried).await;
        }
        let held: Vec<(usize, usize)> =
            tried.iter().filter(|(_, _, error)| error.is_none()).map(|(lockee, child, _)| (*lockee, *child)).collect();
        self.unlock_some(context, domain, lockees, &held).await;
        self.unlock_unknown(context, domain, lockees, &tried).await;
        let mut waited = Vec::new();
        for (number, lockee) in lockees.iter().enumerate() {
            for child in children.iter() {
                let Some(target) = self.children.get(child) else { continue };
                if number == 0 {
                    since.losses[child] = self.view().losses[child];
                }
                let fop = lockee.fop(domain.to_owned().into(), Step::Wait);
                waited.push((number, child, target.submit(context, fop).await.err()));
            }
        }
        self.settle(context, domain, lockees, since, children, waited).await
    }

    /// Takes `lockees` on `children` only where nobody has them; a child that is taken answers EAGAIN.
    pub(crate) async fn try_lock_all(
        &self,
        context: &Context,
        domain: &str,
        lockees: &[Lockee],
        children: Mask,
    ) -> Locked {
        let since = self.view();
        let tried = self.lock_step(context, domain, lockees, children, Step::Try).await;
        self.settle(context, domain, lockees, since, children, tried).await
    }

    /// Lets go of `lockees` on `children`.
    pub(crate) async fn unlock_all(&self, context: &Context, domain: &str, lockees: &[Lockee], children: Mask) {
        let held: Vec<(usize, usize)> =
            (0..lockees.len()).flat_map(|lockee| children.iter().map(move |child| (lockee, child))).collect();
        self.unlock_some(context, domain, lockees, &held).await;
    }

    async fn lock_step(
        &self,
        context: &Context,
        domain: &str,
        lockees: &[Lockee],
        children: Mask,
        step: Step,
    ) -> Vec<(usize, usize, Option<FopError>)> {
        let steps = lockees.iter().enumerate().map(|(number, lockee)| async move {
            let replies = self.send(children, context, |_| lockee.fop(domain.to_owned().into(), step)).await;
            replies.into_iter().map(move |(child, reply)| (number, child, reply.err())).collect::<Vec<_>>()
        });
        futures::future::join_all(steps).await.into_iter().flatten().collect()
    }

    /// Keeps the children that have all lockees; lets go of what others have.
    async fn settle(
        &self,
        context: &Context,
        domain: &str,
        lockees: &[Lockee],
        since: View,
        children: Mask,
        outcome: Vec<(usize, usize, Option<FopError>)>,
    ) -> Locked {
        let lacking: Mask =
            outcome.iter().filter(|(_, _, error)| error.is_some()).map(|(_, child, _)| *child).collect();
        let on = children - lacking;
        let partial: Vec<(usize, usize)> = outcome
            .iter()
            .filter(|(_, child, error)| error.is_none() && lacking.has(*child))
            .map(|(lockee, child, _)| (*lockee, *child))
            .collect();
        self.unlock_some(context, domain, lockees, &partial).await;
        self.unlock_unknown(context, domain, lockees, &outcome).await;
        let error = outcome.into_iter().filter_map(|(_, _, error)| error).min_by_key(leaves_unknown);
        Locked { on, since, error }
    }

    /// Lets go of what may be held although no answer says so. Sent at once, in its order; a child that does not answer
    /// (a lost one has let go by itself) is not waited for.
    async fn unlock_unknown(
        &self,
        context: &Context,
        domain: &str,
        lockees: &[Lockee],
        outcome: &[(usize, usize, Option<FopError>)],
    ) {
        let perhaps: Vec<(usize, usize)> = outcome
            .iter()
            .filter(|(_, _, error)| {
                error.as_ref().is_some_and(|error| leaves_unknown(error) && error.errno != ENOTCONN)
            })
            .map(|(lockee, child, _)| (*lockee, *child))
            .collect();
        let Some(this) = self.this.upgrade().filter(|_| !perhaps.is_empty()) else { return };
        let (context, domain, lockees) = (context.clone(), domain.to_owned(), lockees.to_vec());
        let mut unlock: LocalFuture<'static, ()> =
            Box::pin(async move { this.unlock_some(&context, &domain, &lockees, &perhaps).await });
        if futures::poll!(unlock.as_mut()).is_pending() {
            self.runtime.spawn(unlock);
        }
    }

    async fn unlock_some(&self, context: &Context, domain: &str, lockees: &[Lockee], held: &[(usize, usize)]) {
        let unlocks = held.iter().filter_map(|(lockee, child)| {
            let fop = lockees.get(*lockee)?.fop(domain.to_owned().into(), Step::Unlock);
            let target = self.children.get(*child)?;
            Some(async move {
                if let Err(error) = target.submit(context, fop).await
                    && error.errno != ENOTCONN
                {
                    tracing::debug!(subvolume = %self.name, child, %error, "unlock failed");
                }
            })
        });
        futures::future::join_all(unlocks).await;
    }
}

/// Why a transaction cannot go on with too few locks.
pub(crate) fn lock_error(replicate: &Replicate, locked: &Locked) -> FopError {
    match &locked.error {
        Some(error) => error.clone(),
        None => replicate.no_quorum(),
    }
}
