//! The io_uring itself: submissions, and the table of operations in flight with what they own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry128;
use io_uring::{IoUring, cqueue, opcode, types};

use super::op::{Finished, Op};
use super::with_core;

/// Entries of the submission queue; a full one is submitted at once, so this bounds batches, not operations.
const SUBMISSION_ENTRIES: u32 = 256;
/// Entries of the completion queue; the kernel keeps what does not fit.
const COMPLETION_ENTRIES: u32 = 4096;
/// `user_data` of cancellations, whose own outcome does not matter.
const IGNORED: u64 = u64::MAX;
/// `user_data` of the eventfd's read.
const EVENTFD: u64 = u64::MAX - 1;

/// What is to happen when an operation that nobody awaits is done.
pub(crate) type OnDone = Box<dyn FnOnce(i32)>;

enum State {
    /// In flight; the waker of who awaits it.
    Waiting(Option<Waker>),
    /// The kernel is done with it; nobody has asked yet.
    Done(i32),
    /// In flight, and nobody will ask.
    Orphaned(Option<OnDone>),
}

struct InFlight {
    state: State,
    /// What the kernel ends by itself only (commands of FUSE): an ending executor does not wait for it.
    endless: bool,
    /// Buffers, addresses, descriptors: alive until the kernel is done.
    keep: Option<Box<dyn Any>>,
}

/// A thread's ring. Its entries have 128 bytes, as FUSE's commands need.
pub struct Ring {
    ring: RefCell<IoUring<Entry128, cqueue::Entry>>,
    ops: RefCell<slab::Slab<InFlight>>,
    eventfd_armed: Cell<bool>,
    /// Where the eventfd's count is read to. Owned by the ring, which outlives the read (see [`Ring::drain`]).
    eventfd_value: Box<Cell<u64>>,
}

impl Ring {
    /// Sets up a ring for this thread alone.
    ///
    /// # Errors
    /// What forbids io_uring is named.
    pub(crate) fn new() -> io::Result<Ring> {
        let ring = IoUring::<Entry128, cqueue::Entry>::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)
            .map_err(explain)?;
        Ok(Ring {
            ring: RefCell::new(ring),
            ops: RefCell::default(),
            eventfd_armed: Cell::new(false),
            eventfd_value: Box::new(Cell::new(0)),
        })
    }

    /// Queues `entry`, which points into `keep`; the future gives `keep` back when the kernel is done.
    ///
    /// # Safety
    /// Every address in `entry` must stay valid as long as `keep` lives (even when `keep` is moved).
    pub(crate) unsafe fn submit<R: 'static>(&self, entry: impl Into<Entry128>, keep: Box<R>) -> Op<R> {
        // SAFETY: the caller's promise.
        unsafe { self.begin(entry.into(), keep, false) }
    }

    /// [`Ring::submit`] of what cannot be cancelled and may never be done: dropping its future leaves it with the kernel, and
    /// so does the end of the executor (`keep` is leaked then).
    ///
    /// # Safety
    /// As for [`Ring::submit`].
    pub(crate) unsafe fn submit_endless<R: 'static>(&self, entry: Entry128, keep: Box<R>) -> Op<R> {
        // SAFETY: the caller's promise.
        unsafe { self.begin(entry, keep, true) }
    }

    /// # Safety
    /// As for [`Ring::submit`].
    unsafe fn begin<R: 'static>(&self, entry: Entry128, keep: Box<R>, endless: bool) -> Op<R> {
        let op = InFlight { state: State::Waiting(None), endless, keep: Some(keep) };
        let key = self.ops.borrow_mut().insert(op);
        // SAFETY: `keep`, now in the table, holds what the entry points to until its completion (caller's promise).
        unsafe { self.push(entry.user_data(key as u64)) };
        Op::new(key)
    }

    /// Queues `entry` for nobody to await: `on_done` runs with its result (negative errno or count).
    ///
    /// # Safety
    /// As for [`Ring::submit`].
    pub(crate) unsafe fn submit_detached<R: 'static>(&self, entry: impl Into<Entry128>, keep: Box<R>, on_done: OnDone) {
        let op = InFlight { state: State::Orphaned(Some(on_done)), endless: false, keep: Some(keep) };
        let key = self.ops.borrow_mut().insert(op);
        // SAFETY: as in `submit`.
        unsafe { self.push(entry.into().user_data(key as u64)) };
    }

    /// Whether `key` is done; registers the waker otherwise. Gives back what the operation owned.
    pub(crate) fn poll_op<R: 'static>(&self, key: usize, waker: &Waker) -> Poll<Finished<R>> {
        let mut ops = self.ops.borrow_mut();
        let Some(op) = ops.get_mut(key) else { return Poll::Pending };
        match &mut op.state {
            State::Done(result) => {
                let result = outcome(*result);
                let keep = ops.remove(key).keep.and_then(|keep| keep.downcast::<R>().ok());
                match keep {
                    Some(resource) => Poll::Ready(Finished { result, resource }),
                    None => unreachable!("an operation gives back what it was given"),
                }
            }
            State::Waiting(slot) => {
                match slot {
                    Some(old) if old.will_wake(waker) => {}
                    slot => *slot = Some(waker.clone()),
                }
                Poll::Pending
            }
            State::Orphaned(_) => Poll::Pending,
        }
    }

    /// Nobody awaits `key` any more: cancels it; what it owns is freed when the kernel is done.
    pub(crate) fn abandon(&self, key: usize) {
        let mut ops = self.ops.borrow_mut();
        let Some(op) = ops.get_mut(key) else { return };
        match op.state {
            State::Done(_) => {
                let op = ops.remove(key);
                drop(ops);
                drop(op);
            }
            State::Waiting(_) => {
                op.state = State::Orphaned(None);
                let endless = op.endless;
                drop(ops);
                if !endless {
                    self.cancel(key as u64);
                }
            }
            State::Orphaned(_) => {}
        }
    }

    /// Has the eventfd read, once, so that other threads can end a wait.
    pub(crate) fn arm_eventfd(&self, eventfd: BorrowedFd<'_>) {
        if self.eventfd_armed.replace(true) {
            return;
        }
        let buffer = self.eventfd_value.as_ptr().cast::<u8>();
        let entry = opcode::Read::new(types::Fd(eventfd.as_raw_fd()), buffer, 8).build().user_data(EVENTFD);
        // SAFETY: the 8 bytes are boxed in `self`, and `drain` leaks the ring rather than free it under the kernel.
        unsafe { self.push(entry.into()) };
    }

    fn cancel(&self, user_data: u64) {
        // SAFETY: the entry points to nothing.
        unsafe { self.push(opcode::AsyncCancel::new(user_data).build().user_data(IGNORED).into()) };
    }

    /// # Safety
    /// What the entry points to must outlive the operation.
    unsafe fn push(&self, entry: Entry128) {
        let mut ring = self.ring.borrow_mut();
        // SAFETY: the caller's promise.
        while unsafe { ring.submission().push(&entry) }.is_err() {
            if let Err(error) = ring.submit() {
                if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) {
                    tracing::error!("io_uring_enter: {error}");
                }
                drop(ring);
                self.reap();
                ring = self.ring.borrow_mut();
            }
        }
    }

    /// Submits without waiting, runs the kernel's deferred work, and hands out completions.
    pub(crate) fn submit_and_reap(&self) {
        {
            let mut ring = self.ring.borrow_mut();
            let (queued, work) = {
                let submission = ring.submission();
                (submission.len() as u32, submission.taskrun() || submission.cq_overflow())
            };
            if queued > 0 || work {
                const GETEVENTS: u32 = 1; // IORING_ENTER_GETEVENTS
                // SAFETY: no argument is passed, the counts are those of the queue.
                let entered = unsafe { ring.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) };
                note(entered);
            }
        }
        self.reap();
    }

    /// Submits, waits for a completion (`wait` at most, `None` = as long as it takes) and hands out what came.
    pub(crate) fn wait_and_reap(&self, wait: Option<Duration>) {
        {
            let mut ring = self.ring.borrow_mut();
            ring.submission().sync();
            let submitter = ring.submitter();
            let entered = match wait {
                None => submitter.submit_and_wait(1),
                Some(wait) => {
                    let wait = types::Timespec::from(wait);
                    submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(&wait))
                }
            };
            note(entered);
        }
        self.reap();
    }

    /// Hands out completions.
    fn reap(&self) {
        loop {
            let completion = {
                let mut ring = self.ring.borrow_mut();
                ring.completion().next()
            };
            let Some(completion) = completion else { return };
            match completion.user_data() {
                IGNORED => {}
                EVENTFD => self.eventfd_armed.set(false),
                key => self.complete(key as usize, completion.result()),
            }
        }
    }

    fn complete(&self, key: usize, result: i32) {
        let mut ops = self.ops.borrow_mut();
        let Some(op) = ops.get_mut(key) else { return };
        match &mut op.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                op.state = State::Done(result);
                drop(ops);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Orphaned(_) => {
                let op = ops.remove(key);
                drop(ops); // what is freed, or told, may come back to this table
                let InFlight { state, keep, .. } = op;
                drop(keep);
                if let State::Orphaned(Some(on_done)) = state {
                    on_done(result);
                }
            }
            State::Done(_) => {}
        }
    }

    /// Cancels what is in flight and waits until the kernel has let go of it; what it does not let go of within
    /// `limit` is leaked.
    pub(crate) fn drain(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let in_flight = |ring: &Ring| {
            let waits = |op: &InFlight| !op.endless && !matches!(op.state, State::Done(_));
            ring.ops.borrow().iter().any(|(_, op)| waits(op)) || ring.eventfd_armed.get()
        };
        let keys: Vec<usize> = self.ops.borrow().iter().filter(|(_, op)| !op.endless).map(|(key, _)| key).collect();
        for key in keys {
            self.cancel(key as u64);
        }
        if self.eventfd_armed.get() {
            self.cancel(EVENTFD);
        }
        while in_flight(self) && Instant::now() < deadline {
            self.wait_and_reap(Some(Duration::from_millis(50)));
        }
        if in_flight(self) {
            tracing::warn!("operations are still in flight at the end: their buffers are left to the kernel");
            // The eventfd's 8 bytes may be in use as well; they belong to the thread's core, which is leaked so.
            with_core(|core| std::mem::forget(core.clone()));
        }
        // The kernel may write to what these own until it has closed the ring.
        for (_, op) in std::mem::take(&mut *self.ops.borrow_mut()) {
            match op.state {
                State::Done(_) => drop(op),
                _ => std::mem::forget(op),
            }
        }
    }
}

/// A result as the kernel gives it.
fn outcome(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()))
}

fn note(entered: io::Result<usize>) {
    if let Err(error) = entered {
        let harmless = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
        if !error.raw_os_error().is_some_and(|errno| harmless.contains(&errno)) {
            tracing::error!("io_uring_enter: {error}");
        }
    }
}

fn explain(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::EPERM) => "io_uring is forbidden here (sysctl kernel.io_uring_disabled, or a seccomp filter)",
        Some(libc::ENOSYS) => "this kernel, or its seccomp filter, has no io_uring",
        Some(libc::EINVAL) => "this kernel's io_uring is too old (6.1 is needed: SINGLE_ISSUER, DEFER_TASKRUN)",
        Some(libc::ENOMEM) => "io_uring: no memory (RLIMIT_MEMLOCK?)",
        _ => "io_uring cannot be set up",
    };
    io::Error::new(error.kind(), format!("{why}: {error}"))
}
