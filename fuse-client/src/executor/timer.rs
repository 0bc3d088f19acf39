//! Timers of a thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::with_core;

/// Pending timers by deadline. A dropped [`Sleep`] takes its entry out, so there are never more than pending sleeps.
#[derive(Default)]
pub(crate) struct Timers {
    by_deadline: RefCell<BTreeMap<(Instant, u64), Waker>>,
    last_id: Cell<u64>,
}

/// The time is up.
#[derive(Debug, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// Completes at a point in time.
pub struct Sleep {
    deadline: Instant,
    id: Option<u64>,
}

/// Completes after `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    let now = Instant::now();
    // Instant's range is finite: what does not fit is far enough away.
    let deadline = now.checked_add(duration).unwrap_or_else(|| now + Duration::from_secs(86400 * 365 * 30));
    Sleep { deadline, id: None }
}

/// `future`, for `duration` at most.
///
/// # Errors
/// [`Elapsed`]: the future is dropped unfinished.
pub async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut future = pin!(future);
    let mut timer = sleep(duration);
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut timer).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

impl Timers {
    /// Wakes whoever's time has come.
    pub(crate) fn fire(&self, now: Instant) {
        loop {
            let due = {
                let mut timers = self.by_deadline.borrow_mut();
                match timers.first_entry() {
                    Some(entry) if entry.key().0 <= now => entry.remove(),
                    _ => return,
                }
            };
            due.wake();
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_deadline.borrow().first_key_value().map(|(key, _)| key.0)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            self.remove();
            return Poll::Ready(());
        }
        with_core(|core| {
            let id = *self.id.get_or_insert_with(|| {
                core.timers.last_id.set(core.timers.last_id.get() + 1);
                core.timers.last_id.get()
            });
            core.timers.by_deadline.borrow_mut().insert((self.deadline, id), cx.waker().clone());
        });
        Poll::Pending
    }
}

impl Sleep {
    fn remove(&mut self) {
        if let Some(id) = self.id.take() {
            with_core(|core| core.timers.by_deadline.borrow_mut().remove(&(self.deadline, id)));
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.remove();
    }
}
