//! An operation of the ring as a future.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::task::{Remote, Shared};
use super::with_core;

/// An operation in flight. Dropping it cancels the operation; what it owns lives until the kernel is done with it.
///
/// May be kept in shared state and dropped on any thread; polled only on the thread that made it.
#[must_use = "an operation is cancelled when dropped"]
pub struct Op<R> {
    key: Option<usize>,
    shared: Option<Arc<Shared>>,
    resource: PhantomData<fn() -> R>,
}

/// What came of an operation, and what it owned.
pub struct Finished<R> {
    /// Count of bytes (or whatever the operation counts), or the error.
    pub result: io::Result<u32>,
    /// Buffers and the like, as given.
    pub resource: Box<R>,
}

impl<R: 'static> Op<R> {
    pub(crate) fn new(key: usize) -> Op<R> {
        Op { key: Some(key), shared: with_core(|core| core.shared.clone()), resource: PhantomData }
    }
}

impl<R: 'static> Future for Op<R> {
    type Output = Finished<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished<R>> {
        let Some(key) = self.key else { return Poll::Pending };
        let polled = with_core(|core| {
            let here = self.shared.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, &core.shared));
            assert!(here, "an operation is polled on the thread that made it");
            core.ring.poll_op(key, cx.waker())
        });
        match polled {
            Some(Poll::Ready(finished)) => {
                self.key = None;
                Poll::Ready(finished)
            }
            _ => Poll::Pending,
        }
    }
}

impl<R> Drop for Op<R> {
    fn drop(&mut self) {
        let (Some(key), Some(shared)) = (self.key.take(), self.shared.take()) else { return };
        let here = with_core(|core| {
            let here = Arc::ptr_eq(&shared, &core.shared);
            if here {
                core.ring.abandon(key);
            }
            here
        });
        if here != Some(true) {
            shared.push(Remote::CancelOp(key));
        }
    }
}
