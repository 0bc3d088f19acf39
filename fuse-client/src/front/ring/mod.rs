//! The ring front end: FUSE over io_uring (Linux 6.14 and later, turned on by `enable_uring`).
//!
//! The kernel has a queue for each possible CPU and puts a request into an entry of the queue of the caller's CPU; a task of
//! ours has each entry, handles the request to its end, and hands the answer back with the entry. All queues are served by
//! one thread, the one that has the brick sockets: with a thread for each, an answer from a brick would have to wake another
//! thread, which costs more than a request. FORGET and INTERRUPT stay on /dev/fuse, see [`super::device`].
//!
//! The data of a WRITE stays in its entry until every replica has it. A queue whose entries are all held up (by locks that are
//! waited for, by a brick that stalls) gets more of them, within bounds: requests that have nothing to do with it go on.

mod entry;
pub mod kick;
mod plan;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, FutureExt, select};
use ladrillo_translator::Payload;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::LockType;
use ladrillo_translator::payload::count_copy;

pub use plan::{Plan, is_offered};

use super::Front;
use super::answer::{Answer, Undo};
use super::handle::{handle, handle_at_once};
use super::mount::Mount;
use super::parse::{Call, fixed_bytes, parse, parse_header};
use crate::executor::{sleep, spawn};
use entry::{Pending, Request};
use kick::Kicker;

/// What virtual xattrs and logs call it.
pub const NAME: &str = "ring";

/// Entries of all queues, at most: bounds how many locks are waited for at a time. An entry that was not written to takes
/// no memory but a page.
const MAX_ENTRIES: usize = 1024;
/// How long all entries of a queue are held up before it gets another one.
const RELIEF_AFTER: Duration = Duration::from_millis(20);
/// The longest it goes without looking again.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// Payload memory up to this size is not worth giving back.
const SMALL_PAYLOAD_BYTES: usize = 64 << 10;
/// How often a registration is tried again while the kernel is not ready for it, and how long it has to look at one.
const REGISTER_TRIES: usize = 500;
const REGISTER_PAUSE: Duration = Duration::from_millis(1);
/// Smallest payload buffer the kernel takes (FUSE_MIN_READ_BUFFER).
const MIN_PAYLOAD_BYTES: usize = 8192;

/// A queue of the kernel's.
#[derive(Default)]
struct Queue {
    entries: Cell<usize>,
    /// Entries that wait for a request.
    idle: Cell<usize>,
    /// Requests answered so far.
    answered: Cell<u64>,
    /// Entries that have been added and have not had a request yet.
    fresh: Cell<usize>,
    /// It had no entry left: the kernel may have queued requests, and hands them out only when an answer is given.
    starved: Cell<bool>,
    /// It is about to be kicked.
    kicked: Cell<bool>,
    /// Somebody looks whether it needs another entry.
    watched: Cell<bool>,
}

struct Rings {
    front: Arc<Front>,
    device: Arc<OwnedFd>,
    plan: Plan,
    budget_bytes: usize,
    queues: Vec<Queue>,
    /// Payload of the requests under way.
    held_bytes: Cell<usize>,
    /// Payload memory that entries have been using since they last gave it back.
    used_bytes: Cell<usize>,
    kicker: Kicker,
    failed: Cell<Option<oneshot::Sender<io::Error>>>,
}

/// The entries are with the kernel: requests may come.
pub struct Ring {
    rings: Rc<Rings>,
    entries: Vec<(u16, First)>,
    failed: oneshot::Receiver<io::Error>,
}

/// What an entry's task begins with.
enum First {
    Pending(Pending),
    Request(Request),
}

/// Registers the entries of every queue. Until that is done the kernel holds every request back; when it fails, the file
/// system cannot be used but must be unmounted.
///
/// # Errors
/// The kernel refuses (too old, turned off), or there is no memory.
pub async fn register(front: Arc<Front>, mount: &Mount, plan: Plan, budget_bytes: usize) -> io::Result<Ring> {
    let device = mount.device()?;
    let kicker = Kicker::new(mount.path())?;
    let (sender, failed) = oneshot::channel();
    let rings = Rc::new(Rings {
        front,
        device: Arc::new(device),
        plan,
        budget_bytes,
        queues: (0..plan.queues).map(|_| Queue::default()).collect(),
        held_bytes: Cell::new(0),
        used_bytes: Cell::new(0),
        kicker,
        failed: Cell::new(Some(sender)),
    });
    let wanted: Vec<u16> = (0..plan.queues).flat_map(|number| (0..plan.depth).map(move |_| number)).collect();
    let entries = rings.register(wanted).await?;
    Ok(Ring { rings, entries, failed })
}

impl Ring {
    /// Serves requests until the file system is unmounted; `device` serves what comes by /dev/fuse, and ends then.
    ///
    /// # Errors
    /// That of `device`, or the kernel refuses an entry.
    pub async fn serve(self, device: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        for (number, first) in self.entries {
            self.rings.clone().start(number, first, false);
        }
        let failed = self.failed.then(|failed| async move {
            match failed {
                Ok(error) => error,
                Err(_) => std::future::pending().await, // the last entry has gone, and so will the device
            }
        });
        match select(pin!(device), pin!(failed)).await {
            Either::Left((ended, _)) => ended,
            Either::Right((error, _)) => Err(error),
        }
    }
}

impl Rings {
    /// Registers an entry of each queue named, and waits until the kernel has taken them.
    async fn register(&self, mut wanted: Vec<u16>) -> io::Result<Vec<(u16, First)>> {
        let (mut entries, mut tries) = (Vec::new(), 0);
        while !wanted.is_empty() {
            let register = |number| entry::register(&self.device, number, self.payload_bytes()).map(|p| (number, p));
            let pending = std::mem::take(&mut wanted).into_iter().map(register).collect::<io::Result<Vec<_>>>()?;
            // The kernel looks at them when they are submitted.
            sleep(REGISTER_PAUSE).await;
            tries += 1;
            for (number, mut pending) in pending {
                match (&mut pending).now_or_never() {
                    None => entries.push((number, First::Pending(pending))),
                    Some(Ok(request)) => entries.push((number, First::Request(request))),
                    Some(Err(error)) if error.raw_os_error() == Some(libc::EAGAIN) && tries < REGISTER_TRIES => {
                        wanted.push(number);
                    }
                    Some(Err(error)) => return Err(error),
                }
            }
        }
        Ok(entries)
    }

    fn payload_bytes(&self) -> usize {
        (self.plan.max_write_bytes as usize).max(MIN_PAYLOAD_BYTES)
    }

    fn queue(&self, number: u16) -> &Queue {
        // Numbers come from `plan.queues`, which `queues` was made from.
        &self.queues[usize::from(number)]
    }

    fn entries(&self) -> usize {
        self.queues.iter().map(|queue| queue.entries.get()).sum()
    }

    /// Starts the task of an entry.
    fn start(self: Rc<Rings>, number: u16, first: First, fresh: bool) {
        let queue = self.queue(number);
        queue.entries.set(queue.entries.get() + 1);
        queue.idle.set(queue.idle.get() + 1);
        queue.fresh.set(queue.fresh.get() + usize::from(fresh));
        spawn(async move {
            let Err(error) = self.run(number, first, fresh).await;
            let queue = self.queue(number);
            queue.entries.set(queue.entries.get() - 1);
            let gone = [libc::ENOTCONN, libc::ECONNABORTED, libc::ENODEV, libc::ECANCELED];
            if error.raw_os_error().is_some_and(|errno| gone.contains(&errno)) {
                return;
            }
            tracing::error!(queue = number, "FUSE over io_uring: {error}");
            // Without an entry whoever runs on that CPU would wait for ever.
            if queue.entries.get() == 0
                && let Some(failed) = self.failed.take()
            {
                let _ = failed.send(error);
            }
        });
    }

    /// Serves what comes in an entry, until the kernel has no more.
    async fn run(self: &Rc<Rings>, number: u16, first: First, mut fresh: bool) -> io::Result<Infallible> {
        let queue = self.queue(number);
        let mut used = Used { rings: self, bytes: 0 };
        let mut undo: Option<Undo> = None;
        let mut next = first;
        loop {
            let came = match next {
                First::Request(request) => Ok(request),
                First::Pending(pending) => pending.await,
            };
            queue.idle.set(queue.idle.get() - 1);
            queue.fresh.set(queue.fresh.get() - usize::from(std::mem::take(&mut fresh)));
            if came.is_err()
                && let Some(undo) = undo
            {
                // Should the answer before have been refused: what it handed over is taken back. Where the whole file system
                // has gone that does no harm.
                undo();
            }
            let request = came?;
            if queue.idle.get() == 0 {
                queue.starved.set(true);
                self.watch(number);
            }
            let Served { unique, answer, held, is_data } = self.serve(number, &request).await;
            request.returned().await;
            drop(held);
            used.grow(request.payload().len());
            if self.used_bytes.get() > self.budget_bytes && used.bytes > SMALL_PAYLOAD_BYTES {
                request.release_memory();
                used.clear();
            }
            used.grow(answer.len());
            if is_data {
                count_copy(answer.len());
            }
            let pending;
            (pending, undo) = request.answer(unique, answer)?;
            next = First::Pending(pending);
            queue.idle.set(queue.idle.get() + 1);
            queue.answered.set(queue.answered.get().wrapping_add(1));
        }
    }

    async fn serve(self: &Rc<Rings>, number: u16, request: &Request) -> Served<'_> {
        let refuse =
            |unique, error| Served { unique, answer: Answer::Error(error), held: Held::new(self, 0), is_data: false };
        let Some(header) = parse_header(request.header()) else { return refuse(0, errno::EIO) };
        let unique = header.unique;
        let fixed = fixed_bytes(header.opcode).unwrap_or(0);
        let call = match parse(&header, request.fixed().get(..fixed).unwrap_or_default(), request.payload()) {
            Ok(call) => call,
            Err(error) => {
                if error == errno::EINVAL {
                    tracing::warn!(opcode = header.opcode, unique, "malformed request: errno {error}");
                }
                return refuse(unique, error);
            }
        };
        let waits = matches!(&call, Call::Setlk { wait: true, flock, .. } if flock.kind != LockType::Unlock);
        if waits && self.queue(number).starved.get() {
            // It will be long, and who holds the lock must be able to give it up.
            let relieved = self.queue(number).idle.get() > 0 || self.add(number);
            if !relieved && self.entries() >= MAX_ENTRIES {
                tracing::warn!("more than {MAX_ENTRIES} requests wait for locks");
                return refuse(unique, errno::ENOLCK);
            }
            self.kick_soon(number);
        }
        let (bytes, data) = match &call {
            Call::Write { data, .. } => {
                let lent = request.lend(data.end);
                (data.len(), Payload::from_bytes(lent.slice(data.clone())))
            }
            Call::Read { size_bytes, .. } => (*size_bytes as usize, Payload::empty()),
            _ => (0, Payload::empty()),
        };
        let held = Held::new(self, bytes);
        let is_data = matches!(call, Call::Read { .. });
        if let Some(answer) = handle_at_once(&self.front, &call) {
            return Served { unique, answer, held, is_data };
        }
        let _busy = self.front.begin();
        let answer = handle(self.front.clone(), header, call, data).await;
        Served { unique, answer, held, is_data }
    }

    /// Gives a queue another entry, within bounds.
    fn add(self: &Rc<Rings>, number: u16) -> bool {
        let within = self.held_bytes.get().saturating_add(self.payload_bytes()) <= self.budget_bytes;
        if self.entries() >= MAX_ENTRIES || !within {
            return false;
        }
        match entry::register(&self.device, number, self.payload_bytes()) {
            Ok(pending) => {
                self.clone().start(number, First::Pending(pending), true);
                true
            }
            Err(error) => {
                tracing::warn!("another entry of FUSE over io_uring: {error}");
                false
            }
        }
    }

    /// Kicks a queue, see [`kick`], when the kernel has taken the entry that was just added.
    fn kick_soon(self: &Rc<Rings>, number: u16) {
        if self.queue(number).kicked.replace(true) {
            return;
        }
        let rings = self.clone();
        spawn(async move {
            sleep(REGISTER_PAUSE).await;
            rings.queue(number).kicked.set(false);
            rings.kicker.kick(number);
        });
    }

    /// Looks after a queue that has had no entry left, until the kernel has nothing queued for it: if none of its entries
    /// comes back, it gets another one.
    fn watch(self: &Rc<Rings>, number: u16) {
        if self.queue(number).watched.replace(true) {
            return;
        }
        let rings = self.clone();
        spawn(async move {
            let (queue, mut pause) = (rings.queue(number), RELIEF_AFTER);
            while queue.entries.get() > 0 {
                let before = queue.answered.get();
                sleep(pause).await;
                let idle = queue.idle.get();
                if idle > queue.fresh.get() {
                    // It was answered in, and the kernel had nothing for it.
                    queue.starved.set(false);
                    break;
                }
                let progress = queue.answered.get() != before;
                if idle > 0 {
                    rings.kicker.kick(number);
                }
                let relieved = progress || idle > 0 || rings.add(number);
                pause = if relieved { RELIEF_AFTER } else { (pause * 2).min(MAX_PAUSE) };
            }
            queue.watched.set(false);
        });
    }
}

/// What came of a request.
struct Served<'a> {
    unique: u64,
    answer: Answer,
    held: Held<'a>,
    /// The answer is file data.
    is_data: bool,
}

/// Payload of a request under way.
struct Held<'a> {
    rings: &'a Rings,
    bytes: usize,
}

impl Held<'_> {
    fn new(rings: &Rings, bytes: usize) -> Held<'_> {
        rings.held_bytes.set(rings.held_bytes.get() + bytes);
        Held { rings, bytes }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.rings.held_bytes.set(self.rings.held_bytes.get() - self.bytes);
    }
}

/// Payload memory that an entry has been using.
struct Used<'a> {
    rings: &'a Rings,
    bytes: usize,
}

impl Used<'_> {
    fn grow(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.rings.used_bytes.set(self.rings.used_bytes.get() + more);
    }

    fn clear(&mut self) {
        self.rings.used_bytes.set(self.rings.used_bytes.get() - self.bytes);
        self.bytes = 0;
    }
}

impl Drop for Used<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}
