//! Waits for locks that were interrupted and that the bricks have not ended yet.
//!
//! Such a wait may still be granted, and is then given back. Were its owner let to lock the same bytes in between, that
//! lock would be given back with it: for the bricks both are one. So its next lock there waits for the outcome.

use std::sync::Arc;

use futures::channel::oneshot;
use ladrillo_translator::fop::Flock;
use ladrillo_translator::{Gfid, LockOwner};
use parking_lot::Mutex;

/// Those of a mount. Bounded by the requests the kernel has under way.
#[derive(Default)]
pub struct AbandonedWaits {
    waits: Mutex<Vec<Wait>>,
}

struct Wait {
    gfid: Gfid,
    owner: LockOwner,
    start: u64,
    /// Last byte.
    end: u64,
    /// Dropped when it is over.
    watchers: Vec<oneshot::Sender<()>>,
    number: Arc<()>,
}

/// An abandoned wait that is not over; dropped when it is.
pub struct AbandonedWait {
    all: Arc<AbandonedWaits>,
    number: Arc<()>,
}

impl AbandonedWaits {
    /// The wait for `flock` on `gfid` was abandoned.
    pub fn begin(self: &Arc<AbandonedWaits>, gfid: Gfid, flock: &Flock) -> AbandonedWait {
        let number = Arc::new(());
        let (start, end) = bytes_of(flock);
        let owner = flock.owner.clone();
        self.waits.lock().push(Wait { gfid, owner, start, end, watchers: Vec::new(), number: number.clone() });
        AbandonedWait { all: self.clone(), number }
    }

    /// Completes when no abandoned wait of `flock`'s owner for some of its bytes is left.
    pub async fn over(&self, gfid: Gfid, flock: &Flock) {
        let (start, end) = bytes_of(flock);
        loop {
            let over = {
                let mut waits = self.waits.lock();
                let same = |wait: &&mut Wait| {
                    wait.gfid == gfid && wait.owner == flock.owner && wait.start <= end && start <= wait.end
                };
                let Some(wait) = waits.iter_mut().find(same) else { return };
                let (sender, over) = oneshot::channel();
                wait.watchers.push(sender);
                over
            };
            // Nothing is sent: it is over when the sender is dropped.
            let _ = over.await;
        }
    }
}

impl Drop for AbandonedWait {
    fn drop(&mut self) {
        self.all.waits.lock().retain(|wait| !Arc::ptr_eq(&wait.number, &self.number));
    }
}

/// First and last byte of a lock; length 0 is to the end.
fn bytes_of(flock: &Flock) -> (u64, u64) {
    let end = if flock.len == 0 { u64::MAX } else { flock.start.saturating_add(flock.len - 1) };
    (flock.start, end)
}
