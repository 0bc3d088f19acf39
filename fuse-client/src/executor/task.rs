//! Tasks, their wakers, and what reaches an executor from other threads.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use crossbeam::queue::SegQueue;

use super::with_core;

/// A future made where it is to run.
pub(crate) type MakeFuture = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What other threads ask of an executor.
pub(crate) enum Remote {
    /// Poll this task.
    Wake(Arc<Task>),
    /// The future of this operation was dropped.
    CancelOp(usize),
    /// Run this.
    Spawn(MakeFuture),
}

/// The part of an executor that other threads see.
pub(crate) struct Shared {
    /// Bounded by the number of tasks (each is queued once at a time), of operations, and by callers of [`Handle`].
    remote: SegQueue<Remote>,
    eventfd: OwnedFd,
    asleep: AtomicBool,
    closed: AtomicBool,
}

/// A task's identity; its future stays in its executor's table.
pub(crate) struct Task {
    key: usize,
    queued: AtomicBool,
    shared: Arc<Shared>,
}

pub(crate) struct TaskSlot {
    pub(crate) task: Arc<Task>,
    /// Absent while it is polled.
    pub(crate) future: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// Reaches an executor from any thread.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Shared {
    pub(crate) fn new() -> io::Result<Arc<Shared>> {
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        Ok(Arc::new(Shared {
            remote: SegQueue::new(),
            eventfd: rustix::event::eventfd(0, flags)?,
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }))
    }

    pub(crate) fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Queues for the executor's thread, and ends its wait.
    pub(crate) fn push(&self, remote: Remote) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.remote.push(remote);
        // Pairs with `set_asleep`, then `has_remote`, on the other side: one of the two sees the other's store.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes()); // fails only when the counter is full
        }
        // It ended in between: whoever waits for what was queued must hear of that.
        if self.closed.load(Ordering::SeqCst) {
            while self.remote.pop().is_some() {}
        }
    }

    pub(crate) fn pop(&self) -> Option<Remote> {
        self.remote.pop()
    }

    pub(crate) fn has_remote(&self) -> bool {
        !self.remote.is_empty()
    }

    pub(crate) fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Nobody looks at the queue any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Pairs with `push`: what is queued after this is taken out again there.
        std::sync::atomic::fence(Ordering::SeqCst);
        while self.remote.pop().is_some() {}
    }
}

impl Task {
    pub(crate) fn new(key: usize, shared: Arc<Shared>) -> Task {
        Task { key, queued: AtomicBool::new(false), shared }
    }

    pub(crate) fn key(&self) -> usize {
        self.key
    }

    /// From now on a wake queues it again.
    pub(crate) fn unqueue(&self) {
        self.queued.store(false, Ordering::SeqCst);
    }

    /// Queues it unless it is queued already.
    pub(crate) fn schedule(self: &Arc<Task>) {
        if self.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        let here = with_core(|core| {
            let here = Arc::ptr_eq(&core.shared, &self.shared);
            if here {
                core.push_ready(self.clone());
            }
            here
        });
        if here != Some(true) {
            self.shared.push(Remote::Wake(self.clone()));
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        self.schedule();
    }

    fn wake_by_ref(self: &Arc<Task>) {
        self.schedule();
    }
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared }
    }

    /// Has `make` run on the executor's thread, and its future as a task there. Dropped when the executor has ended.
    pub fn spawn(&self, make: impl FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send + 'static) {
        self.shared.push(Remote::Spawn(Box::new(make)));
    }
}
