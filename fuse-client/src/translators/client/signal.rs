//! A flag that is raised once and can be waited for, from any thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use parking_lot::Mutex;

/// Raised at most once, never lowered.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Signal {
    /// Raises it and wakes whoever waits; `false` when it was raised before.
    pub fn raise(&self) -> bool {
        let mut waiting = self.waiting.lock();
        let first = !self.raised.swap(true, Ordering::AcqRel);
        let wakers = std::mem::take(&mut *waiting);
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
        first
    }

    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Completes when it is raised.
    pub async fn wait(&self) {
        std::future::poll_fn(|cx| {
            let mut waiting = self.waiting.lock();
            if self.is_raised() {
                return Poll::Ready(());
            }
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
