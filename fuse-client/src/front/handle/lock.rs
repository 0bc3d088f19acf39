//! Locks of applications: fcntl and flock.
//!
//! A wait can be interrupted: it then ends with EINTR at once, the brick is asked to stop waiting, and should it grant
//! the lock all the same, the lock is given back: a lock never outlives the call that failed. Until that is settled the
//! owner's next lock on the same bytes waits, see [`super::abandoned`].

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Flock, LockCmd, LockType};
use ladrillo_translator::{Dict, Fop, FopError, FopResult, Reply};

use parking_lot::Mutex;

use super::abandoned::AbandonedWait;
use super::{Outcome, Request, unexpected};
use crate::executor;
use crate::front::Front;
use crate::front::answer::{self, Answer};
use crate::front::open::OpenFile;

/// How long a lock that is not to wait does so for an abandoned wait of its owner to be settled.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// Where an abandoned wait is noted until it is over.
type AbandonedSlot = Arc<Mutex<Option<AbandonedWait>>>;

/// The request of this unique is to end early. One that is not waiting (any more) needs nothing.
pub(super) fn interrupt(front: &Front, unique: u64) {
    // The kernel sets the lowest bit of the unique in INTERRUPT's own header only; the argument names the original.
    if let Some(waiting) = front.interrupts.lock().remove(&unique) {
        let _ = waiting.send(());
    }
}

impl Request<'_> {
    pub(super) async fn getlk(&self, fh: u64, flock: Flock) -> Outcome {
        let file = self.open_file(fh)?.file();
        let owner = owner_number(&flock);
        let reply = self.submit_as(owner, Fop::Lk { file, cmd: LockCmd::Get, flock, xdata: Dict::new() }).await?;
        match reply {
            Reply::Lk { flock, .. } => Ok(Answer::bytes(answer::file_lock(&flock))),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn setlk(&self, fh: u64, flock: Flock, wait: bool) -> Outcome {
        let file = self.open_file(fh)?;
        let wait = wait && flock.kind != LockType::Unlock;
        if !wait {
            let owner = owner_number(&flock);
            if flock.kind != LockType::Unlock {
                let over = self.front.abandoned.over(file.gfid, &flock);
                let busy = |_| FopError::new(errno::EAGAIN, "an interrupted wait of the same owner is not over yet");
                executor::timeout(SETTLE_PATIENCE, over).await.map_err(busy)?;
            }
            let fop = Fop::Lk { file: file.file(), cmd: LockCmd::Set, flock, xdata: Dict::new() };
            return done(self.submit_as(owner, fop).await);
        }
        let (interrupt, mut interrupted) = oneshot::channel();
        let unique = self.header.unique;
        self.front.interrupts.lock().insert(unique, interrupt);
        let settled = Box::pin(self.front.abandoned.over(file.gfid, &flock));
        if let Either::Right(_) = select(settled, &mut interrupted).await {
            self.front.interrupts.lock().remove(&unique);
            return Err(interrupted_wait());
        }
        let slot = AbandonedSlot::default();
        let granted = self.wait_for(file, flock.clone(), slot.clone());
        let outcome = match select(pin!(granted), interrupted).await {
            Either::Left((result, _)) => done(result.unwrap_or_else(|_| Err(gave_up()))),
            Either::Right(_) => {
                *slot.lock() = Some(self.front.abandoned.begin(file.gfid, &flock));
                self.stop_waiting(file, flock);
                Err(interrupted_wait())
            }
        };
        self.front.interrupts.lock().remove(&unique);
        outcome
    }

    /// Waits for a lock in a task of its own. The receiver gone, a lock that is granted is given back, and only then
    /// `abandoned` emptied.
    fn wait_for(
        &self,
        file: OpenFile,
        flock: Flock,
        abandoned: AbandonedSlot,
    ) -> impl Future<Output = Result<FopResult, oneshot::Canceled>> + use<> {
        let (answer, answered) = oneshot::channel();
        let (front, context) = (self.front.clone(), self.front.context(self.header, owner_number(&flock)));
        let busy = self.front.begin();
        executor::spawn(async move {
            let _busy = busy;
            let wait = Fop::Lk { file: file.file(), cmd: LockCmd::SetWait, flock: flock.clone(), xdata: Dict::new() };
            let result = front.top.submit(&context, wait).await;
            if let Err(Ok(_)) = answer.send(result) {
                let flock = Flock { kind: LockType::Unlock, ..flock };
                let unlock = Fop::Lk { file: file.file(), cmd: LockCmd::Set, flock, xdata: Dict::new() };
                if let Err(error) = front.top.submit(&context, unlock).await {
                    tracing::warn!(gfid = %file.gfid, "a lock granted after its wait was interrupted was not given back: {error}");
                }
            }
            abandoned.lock().take();
        });
        answered
    }

    /// Asks the bricks to end the wait (GlusterFS 10's virtual xattr `glusterfs.intrlk`).
    fn stop_waiting(&self, file: OpenFile, flock: Flock) {
        let (front, context) = (self.front.clone(), self.front.context(self.header, owner_number(&flock)));
        let busy = self.front.begin();
        executor::spawn(async move {
            let _busy = busy;
            let name = format!("glusterfs.intrlk.tposix.kblocked.{},{}-{}", flock.whence, flock.start, flock.len);
            let fop = Fop::Fgetxattr { file: file.file(), name: name.into(), xdata: Dict::new() };
            if let Err(error) = front.top.submit(&context, fop).await {
                tracing::debug!(gfid = %file.gfid, "intrlk: {error}");
            }
        });
    }
}

fn interrupted_wait() -> FopError {
    FopError::new(errno::EINTR, "the wait for a lock was interrupted")
}

fn gave_up() -> FopError {
    FopError::new(errno::EIO, "the wait for a lock ended without an answer")
}

fn done(result: FopResult) -> Outcome {
    match result? {
        Reply::Lk { .. } | Reply::Done { .. } => Ok(Answer::ok()),
        reply => Err(unexpected(&reply)),
    }
}

/// The lock owner as the kernel numbers it.
fn owner_number(flock: &Flock) -> Option<u64> {
    let bytes: [u8; 8] = flock.owner.0[..].try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}
