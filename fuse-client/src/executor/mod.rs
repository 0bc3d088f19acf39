//! The executor: FUSE, brick sockets and timers of one thread in one io_uring, tasks run to completion on it.
//!
//! Read first: [`Executor::block_on`] (the loop), [`op`] (an I/O operation as a future), [`tcp`] (connections).
//!
//! Each thread that runs an [`Executor`] owns a ring (single issuer, deferred task work). Futures are `!Send` and never
//! leave their thread; wakers may be used anywhere: a wake from another thread goes through a queue and an eventfd.
//! Buffers of operations in flight belong to the ring, so dropping a future never frees memory that the kernel still
//! uses.

mod connector;
mod io;
mod op;
#[cfg(feature = "verbs")]
mod rdma;
mod resolve;
mod ring;
mod runtime;
mod task;
pub mod tcp;
mod timer;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub use connector::AnyConnector;
pub use io::{WriteBuffer, driver_command, poll_readable, read, writev_detached};
pub use op::{Finished, Op};
pub use resolve::resolve;
pub use ring::Ring;
pub use runtime::{RingRuntime, wall_clock};
pub use task::Handle;
pub use tcp::TcpConnector;
pub use timer::{Elapsed, Sleep, sleep, timeout};

use task::{Remote, Shared, Task, TaskSlot};

/// Most tasks polled before the ring is looked at again.
const TASKS_PER_TURN: usize = 128;
/// How long an ending executor waits for the kernel to give back the buffers of its operations.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// What a running executor consists of; tasks reach it through the thread.
pub(crate) struct Core {
    pub(crate) ring: Ring,
    pub(crate) timers: timer::Timers,
    pub(crate) shared: Arc<Shared>,
    tasks: RefCell<slab::Slab<TaskSlot>>,
    ready: RefCell<std::collections::VecDeque<Arc<Task>>>,
    ending: Cell<bool>,
}

/// An executor, bound to the thread that made it.
pub struct Executor {
    core: Rc<Core>,
}

/// Runs `f` with this thread's executor; `None` where none runs.
pub(crate) fn with_core<R>(f: impl FnOnce(&Rc<Core>) -> R) -> Option<R> {
    let core = CURRENT.with(|current| current.borrow().clone())?;
    Some(f(&core))
}

/// Starts `task` on this thread's executor. Without one (the thread's executor has ended) the task is dropped.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    spawn_boxed(Box::pin(task));
}

/// [`spawn`] of what is boxed already.
pub fn spawn_boxed(task: Pin<Box<dyn Future<Output = ()>>>) {
    let mut task = Some(task);
    with_core(|core| {
        if !core.ending.get() {
            core.add_task(task.take());
        }
    });
    if task.is_some() {
        tracing::debug!("task dropped: this thread's executor has ended");
    }
}

/// Hands over to the tasks that are ready, once.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Executor {
    /// Makes the thread's ring.
    ///
    /// # Errors
    /// io_uring is missing or forbidden (the message names what forbids it), no descriptors or memory left, or this
    /// thread has an executor already.
    pub fn new() -> std::io::Result<Executor> {
        if CURRENT.with(|current| current.borrow().is_some()) {
            return Err(std::io::Error::other("this thread runs an executor already"));
        }
        let core = Rc::new(Core {
            ring: Ring::new()?,
            timers: timer::Timers::default(),
            shared: Shared::new()?,
            tasks: RefCell::default(),
            ready: RefCell::default(),
            ending: Cell::new(false),
        });
        CURRENT.with(|current| *current.borrow_mut() = Some(core.clone()));
        Ok(Executor { core })
    }

    /// To reach this executor from other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(self.core.shared.clone())
    }

    /// Runs `main` and every spawned task until `main` is done; then drops the tasks that are left (see [`Executor`]'s
    /// drop).
    pub fn block_on<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let main_task = Arc::new(Task::new(usize::MAX, self.core.shared.clone()));
        let waker = Waker::from(main_task.clone());
        main_task.schedule();
        loop {
            self.core.take_remote();
            for _ in 0..TASKS_PER_TURN {
                let Some(task) = self.core.ready.borrow_mut().pop_front() else { break };
                task.unqueue();
                if Arc::ptr_eq(&task, &main_task) {
                    if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return value;
                    }
                } else {
                    self.core.run(&task);
                }
            }
            self.core.turn();
        }
    }
}

impl Core {
    fn add_task(self: &Rc<Core>, future: Option<Pin<Box<dyn Future<Output = ()>>>>) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let task = Arc::new(Task::new(entry.key(), self.shared.clone()));
        entry.insert(TaskSlot { task: task.clone(), future });
        drop(tasks);
        task.schedule();
    }

    /// Queues a task on this thread.
    pub(crate) fn push_ready(&self, task: Arc<Task>) {
        self.ready.borrow_mut().push_back(task);
    }

    /// Polls one task.
    fn run(&self, task: &Arc<Task>) {
        let future = match self.tasks.borrow_mut().get_mut(task.key()) {
            Some(slot) if Arc::ptr_eq(&slot.task, task) => slot.future.take(),
            _ => None, // a late wake of a task that has ended
        };
        let Some(mut future) = future else { return };
        let waker = Waker::from(task.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(future);
            self.tasks.borrow_mut().try_remove(task.key());
        } else if let Some(slot) = self.tasks.borrow_mut().get_mut(task.key()) {
            slot.future = Some(future);
        }
    }

    /// What other threads asked for.
    fn take_remote(self: &Rc<Core>) {
        while let Some(remote) = self.shared.pop() {
            match remote {
                Remote::Wake(task) => self.push_ready(task),
                Remote::CancelOp(key) => self.ring.abandon(key),
                Remote::Spawn(make) => {
                    let future = make();
                    if !self.ending.get() {
                        self.add_task(Some(future));
                    }
                }
            }
        }
    }

    /// Fires timers, submits, waits when there is nothing else to do, and hands out completions.
    fn turn(&self) {
        self.timers.fire(Instant::now());
        if !self.ready.borrow().is_empty() {
            self.ring.submit_and_reap();
            return;
        }
        self.ring.arm_eventfd(self.shared.eventfd());
        self.shared.set_asleep(true);
        if self.shared.has_remote() {
            self.shared.set_asleep(false);
            self.ring.submit_and_reap();
            return;
        }
        let wait = self.timers.next().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        self.ring.wait_and_reap(wait);
        self.shared.set_asleep(false);
    }
}

impl Drop for Executor {
    /// Drops all tasks and waits (2 s at most) until the kernel has given back the buffers of what was in flight.
    fn drop(&mut self) {
        self.core.ending.set(true);
        loop {
            // One at a time, outside the borrow: a task's drop may wake or cancel.
            let key = self.core.tasks.borrow().iter().next().map(|(key, _)| key);
            let Some(key) = key else { break };
            let slot = self.core.tasks.borrow_mut().try_remove(key);
            drop(slot);
        }
        self.core.ready.borrow_mut().clear();
        self.core.take_remote();
        self.core.ring.drain(DRAIN_LIMIT);
        self.core.shared.close();
        CURRENT.with(|current| *current.borrow_mut() = None);
    }
}

#[cfg(test)]
mod tests;
