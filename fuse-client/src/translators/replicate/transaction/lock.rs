//! The locks of a transaction. All children at once without waiting; where one is taken, let go of all and wait for
//! them one after the other in volfile order, so that two clients never hold what the other waits for.

use futures::future::join_all;
use ladrillo_translator::error::errno::{EAGAIN, ENOTCONN};
use ladrillo_translator::fop::{EntrylkCmd, Flock, LockCmd, LockType, Name};
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, LocalFuture, LockOwner, Step};

use crate::translators::replicate::children::View;
use crate::translators::replicate::{ChildReply, Mask, Replicate, leaves_unknown};

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
enum Ask {
    Try,
    Wait,
    Unlock,
}

impl Lockee {
    fn fop(&self, domain: bytes::Bytes, step: Ask) -> Fop {
        match self {
            Lockee::Range { gfid, start, len } => Fop::Inodelk {
                gfid: *gfid,
                domain,
                cmd: if step == Ask::Wait { LockCmd::SetWait } else { LockCmd::Set },
                flock: Flock {
                    kind: if step == Ask::Unlock { LockType::Unlock } else { LockType::Write },
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
                    Ask::Try => EntrylkCmd::TryLock,
                    Ask::Wait => EntrylkCmd::Lock,
                    Ask::Unlock => EntrylkCmd::Unlock,
                },
                kind: LockType::Write,
                xdata: Dict::new(),
            },
        }
    }

    /// The inode, where it is bytes of one.
    fn inode(&self) -> Option<Gfid> {
        match self {
            Lockee::Range { gfid, .. } => Some(*gfid),
            Lockee::Name { .. } => None,
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
        let tried = self.lock_step(context, domain, lockees, children, Ask::Try).await;
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
                if number == 0 {
                    since.losses[child] = self.view().losses[child];
                }
                let wait = Step::new(context, lockee.fop(domain.to_owned().into(), Ask::Wait));
                let answer = self.steps(child, vec![wait], lockee.inode()).await.pop();
                waited.push((number, child, answer.and_then(Result::err)));
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
        let tried = self.lock_step(context, domain, lockees, children, Ask::Try).await;
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
        step: Ask,
    ) -> Vec<(usize, usize, Option<FopError>)> {
        let ask = |lockee: &Lockee| Step::new(context, lockee.fop(domain.to_owned().into(), step));
        let inode = lockees.first().and_then(Lockee::inode);
        let sent = children.iter().map(|child| async move {
            let together = self.children.get(child).is_some_and(|target| target.takes_steps());
            let results = match together {
                true => self.steps(child, lockees.iter().map(ask).collect(), inode).await,
                // All at once where each is a message of its own.
                false => {
                    let single = |lockee| self.steps(child, vec![ask(lockee)], inode);
                    join_all(lockees.iter().map(single)).await.into_iter().flatten().collect()
                }
            };
            let answers = results.into_iter().enumerate();
            answers.map(move |(number, result)| (number, child, result.err())).collect::<Vec<_>>()
        });
        join_all(sent).await.into_iter().flatten().collect()
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
    pub(super) async fn unlock_unknown(
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
        let children: Mask = held.iter().map(|(_, child)| *child).collect();
        let unlock = |child: usize| {
            let of_child = held.iter().filter(move |(_, holder)| *holder == child);
            let lockees = of_child.filter_map(|(lockee, _)| lockees.get(*lockee));
            lockees.map(|lockee| Step::new(context, lockee.fop(domain.to_owned().into(), Ask::Unlock))).collect()
        };
        for (child, results) in self.steps_to_all(children, None, unlock).await {
            for error in results.into_iter().filter_map(Result::err).filter(|error| error.errno != ENOTCONN) {
                tracing::debug!(subvolume = %self.name, child, %error, "unlock failed");
            }
        }
    }

    /// Tries to lock all `lockees`, and carries out `then` whatever became of that, in one message to each child.
    pub(super) async fn try_and(
        &self,
        own: &Context,
        lockees: &[Lockee],
        children: Mask,
        then: &[Step],
    ) -> Vec<(usize, Vec<FopResult>)> {
        let lock = |lockee: &Lockee| Step::new(own, lockee.fop(self.domain(), Ask::Try));
        self.steps_to_all(children, None, |_| lockees.iter().map(lock).chain(then.iter().cloned()).collect()).await
    }

    /// Lets go of what is held, or may be, after locks were tried.
    pub(super) async fn let_go(&self, own: &Context, lockees: &[Lockee], outcome: &[(usize, usize, Option<FopError>)]) {
        let held: Vec<(usize, usize)> = outcome
            .iter()
            .filter(|(_, _, error)| error.is_none())
            .map(|(lockee, child, _)| (*lockee, *child))
            .collect();
        self.unlock_some(own, &self.name, lockees, &held).await;
        self.unlock_unknown(own, &self.name, lockees, outcome).await;
    }

    /// Lets go of `lockee`.
    pub(super) fn unlock_step(&self, context: &Context, lockee: &Lockee) -> Step {
        Step::new(context, lockee.fop(self.domain(), Ask::Unlock))
    }

    /// Lets go of `lockees` on `children` with the next message to each, soon.
    pub(crate) fn unlock_later(&self, context: &Context, domain: &str, lockees: &[Lockee], children: Mask) {
        for child in children.iter() {
            for lockee in lockees {
                self.send_later(child, Step::new(context, lockee.fop(domain.to_owned().into(), Ask::Unlock)));
            }
        }
    }

    /// Locks `lockee` on `children` where nobody has it and carries out there what `then` says, in one message each.
    /// `None`: a child cannot take it so, nothing was sent.
    pub(super) async fn lock_and(
        &self,
        own: &Context,
        lockee: &Lockee,
        children: Mask,
        then: impl Fn(usize) -> FopResult<Vec<Step>>,
    ) -> Option<Joined> {
        let mut all = Vec::new();
        for child in children.iter() {
            let mut steps = vec![Step::new(own, lockee.fop(self.domain(), Ask::Try))];
            steps.extend(then(child).ok()?);
            all.push((child, steps));
        }
        let since = self.view();
        let sent = all.into_iter().map(|(child, steps)| async move {
            let mut results = self.steps(child, steps, lockee.inode()).await;
            let locked = if results.is_empty() { Err(self.no_quorum()) } else { results.remove(0) };
            (child, locked.map(|_| results))
        });
        Some(Joined { since, answers: join_all(sent).await })
    }
}

/// What became of [`Replicate::lock_and`].
pub(super) struct Joined {
    /// Children as they were before they were asked.
    pub since: View,
    /// What each answered to what came behind the lock, or why it did not give that.
    pub answers: Vec<(usize, FopResult<Vec<FopResult>>)>,
}

impl Joined {
    /// Children that gave the lock.
    pub fn locked(&self) -> Mask {
        self.answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(child, _)| *child).collect()
    }

    /// Whether somebody else has the lock on some child.
    pub fn is_contended(&self) -> bool {
        self.answers.iter().any(|(_, answer)| matches!(answer, Err(error) if error.errno == EAGAIN))
    }

    /// For [`Replicate::unlock_unknown`]: what each child said to the lock.
    pub fn outcome(&self) -> Vec<(usize, usize, Option<FopError>)> {
        self.answers.iter().map(|(child, answer)| (0, *child, answer.as_ref().err().cloned())).collect()
    }

    /// The answers to the `number`th step behind the lock; where there was no lock, its error.
    pub fn replies(&self, number: usize) -> Vec<ChildReply> {
        let reply = |answer: &FopResult<Vec<FopResult>>| match answer {
            Ok(results) => results.get(number).cloned().unwrap_or_else(|| Err(Step::left_out())),
            Err(error) => Err(error.clone()),
        };
        self.answers.iter().map(|(child, answer)| (*child, reply(answer))).collect()
    }
}

/// Why a transaction cannot go on with too few locks.
pub(crate) fn lock_error(replicate: &Replicate, locked: &Locked) -> FopError {
    match &locked.error {
        Some(error) => error.clone(),
        None => replicate.no_quorum(),
    }
}
