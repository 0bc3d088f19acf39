//! What is under way on its own, whoever asked for it: waited for before the graph goes away.

use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

/// Counts it.
#[derive(Default)]
pub(crate) struct Work {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    count: usize,
    waiting: Vec<Waker>,
}

/// Counts as work until dropped.
pub(crate) struct WorkGuard(Arc<Work>);

impl Work {
    /// Some work begins; it ends with the guard.
    pub fn begin(self: &Arc<Work>) -> WorkGuard {
        self.state.lock().count += 1;
        WorkGuard(self.clone())
    }

    /// Whether none is under way.
    pub fn is_idle(&self) -> bool {
        self.state.lock().count == 0
    }

    /// Completes when none is under way.
    pub async fn idle(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.count == 0 {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state.lock();
            state.count -= 1;
            if state.count > 0 {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}
