//! One thread, a clock that jumps, and tasks that run in an order the seed decides.
//!
//! Time stands still while a task runs, and jumps to the next timer when none is ready. Tasks belong to a simulated
//! process: killing it drops them wherever they are, as SIGKILL does.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ladrillo_translator::{LocalFuture, Runtime, Timespec};
use parking_lot::Mutex;

use super::random::Random;

/// A simulated process. 0 is the world itself (network, bricks, faults), which is never killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub u64);

impl Process {
    /// The world.
    pub const WORLD: Process = Process(0);
}

/// Seconds since the epoch when a simulation begins.
const EPOCH_SECONDS: i64 = 1_700_000_000;

thread_local! {
    /// Tasks handed to [`Handle::spawn`] and not yet taken by their executor: futures are not `Send`, handles are.
    static SPAWNED: RefCell<Vec<(u64, Process, LocalFuture<'static, ()>)>> = const { RefCell::new(Vec::new()) };
}

/// Numbers worlds, so that tasks find the executor they are meant for.
static WORLDS: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
struct Timer {
    at: Duration,
    order: u64,
    waker: Waker,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Timer) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Timer) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Timer) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct Inner {
    now: Duration,
    timers: BinaryHeap<Reverse<Timer>>,
    next_timer: u64,
    random: Random,
    kills: Vec<Process>,
}

struct Shared {
    world: u64,
    inner: Mutex<Inner>,
    ready: Mutex<Vec<Arc<Task>>>,
    /// Logical time: orders what applications saw.
    ticks: AtomicU64,
    log: Mutex<Log>,
}

/// What happened, as lines where they are wanted, as a checksum always.
#[derive(Default)]
struct Log {
    lines: Option<Vec<String>>,
    digest: u64,
}

struct Task {
    id: u64,
    process: Process,
    queued: AtomicBool,
    shared: Weak<Shared>,
}

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        if !self.queued.swap(true, Ordering::Relaxed)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.ready.lock().push(self);
        }
    }
}

/// Runs a world. Not `Send`.
pub struct Executor {
    shared: Arc<Shared>,
    tasks: BTreeMap<u64, (Arc<Task>, LocalFuture<'static, ()>)>,
    next_task: u64,
    polls: u64,
}

/// A process's view of the world: clock, tasks, randomness.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    process: Process,
}

/// Why a world stopped before it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Nothing is ready and no timer is set.
    Deadlock,
    /// More polls than allowed: something spins.
    Spinning,
}

impl Executor {
    /// A world at time 0, which keeps a line per event or does not.
    pub fn new(seed: u64, log: bool) -> Executor {
        let inner = Inner {
            now: Duration::ZERO,
            timers: BinaryHeap::new(),
            next_timer: 0,
            random: Random::new(seed, 0),
            kills: Vec::new(),
        };
        let shared = Arc::new(Shared {
            world: WORLDS.fetch_add(1, Ordering::Relaxed),
            inner: Mutex::new(inner),
            ready: Mutex::default(),
            ticks: AtomicU64::new(1),
            log: Mutex::new(Log { lines: log.then(Vec::new), digest: 0 }),
        });
        Executor { shared, tasks: BTreeMap::new(), next_task: 0, polls: 0 }
    }

    /// The view of `process`.
    pub fn handle(&self, process: Process) -> Handle {
        Handle { shared: Arc::clone(&self.shared), process }
    }

    /// How many times tasks were polled.
    pub fn polls(&self) -> u64 {
        self.polls
    }

    /// Runs until `main` is done.
    ///
    /// # Errors
    /// It never will be, or not within `max_polls`.
    pub fn run<T: 'static>(&mut self, max_polls: u64, main: impl Future<Output = T> + 'static) -> Result<T, Stuck> {
        let result = std::rc::Rc::new(RefCell::new(None));
        let slot = std::rc::Rc::clone(&result);
        self.add(
            Process::WORLD,
            Box::pin(async move {
                let value = main.await;
                *slot.borrow_mut() = Some(value);
            }),
        );
        let limit = self.polls.saturating_add(max_polls);
        loop {
            self.take_spawned();
            self.kill();
            if let Some(value) = result.borrow_mut().take() {
                return Ok(value);
            }
            let task = {
                let mut ready = self.shared.ready.lock();
                let at = self.shared.inner.lock().random.below(ready.len() as u64) as usize;
                if at < ready.len() { Some(ready.swap_remove(at)) } else { None }
            };
            match task {
                Some(task) => self.poll(&task),
                None if !self.jump() => return Err(Stuck::Deadlock),
                None => {}
            }
            if self.polls > limit {
                return Err(Stuck::Spinning);
            }
        }
    }

    fn add(&mut self, process: Process, future: LocalFuture<'static, ()>) {
        let id = self.next_task;
        self.next_task += 1;
        let task = Arc::new(Task { id, process, queued: AtomicBool::new(true), shared: Arc::downgrade(&self.shared) });
        self.shared.ready.lock().push(Arc::clone(&task));
        self.tasks.insert(id, (task, future));
    }

    fn take_spawned(&mut self) {
        let world = self.shared.world;
        let mine: Vec<_> = SPAWNED.with_borrow_mut(|spawned| {
            if spawned.iter().all(|(of, ..)| *of == world) {
                std::mem::take(spawned)
            } else {
                spawned.extract_if(.., |(of, ..)| *of == world).collect()
            }
        });
        for (_, process, future) in mine {
            self.add(process, future);
        }
    }

    /// Drops the tasks of killed processes; their destructors may wake and spawn others.
    fn kill(&mut self) {
        let kills = std::mem::take(&mut self.shared.inner.lock().kills);
        for process in kills {
            let dead: Vec<u64> =
                self.tasks.iter().filter(|(_, (task, _))| task.process == process).map(|(id, _)| *id).collect();
            for id in dead {
                drop(self.tasks.remove(&id));
            }
        }
    }

    fn poll(&mut self, task: &Arc<Task>) {
        task.queued.store(false, Ordering::Relaxed);
        let Some((_, future)) = self.tasks.get_mut(&task.id) else { return };
        self.polls += 1;
        let waker = Waker::from(Arc::clone(task));
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(self.tasks.remove(&task.id));
        }
    }

    /// Goes to the next timer; false when there is none.
    fn jump(&mut self) -> bool {
        let mut due = Vec::new();
        {
            let mut inner = self.shared.inner.lock();
            let Some(Reverse(first)) = inner.timers.pop() else { return false };
            inner.now = inner.now.max(first.at);
            due.push(first.waker);
            while inner.timers.peek().is_some_and(|Reverse(timer)| timer.at <= inner.now) {
                due.extend(inner.timers.pop().map(|Reverse(timer)| timer.waker));
            }
        }
        due.into_iter().for_each(Waker::wake);
        true
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // What is left may spawn while it is dropped; that is never run, and must not stay in the thread's list.
        self.tasks.clear();
        let world = self.shared.world;
        loop {
            let mine: Vec<_> =
                SPAWNED.with_borrow_mut(|spawned| spawned.extract_if(.., |(of, ..)| *of == world).collect());
            if mine.is_empty() {
                break;
            }
        }
    }
}

impl Handle {
    /// Notes an event. `line` is only made where lines are kept; `sum` goes into the checksum.
    pub fn note(&self, sum: u64, line: impl FnOnce() -> String) {
        let now = self.now();
        let mut log = self.shared.log.lock();
        log.digest = (log.digest ^ sum ^ now.as_nanos() as u64).wrapping_mul(0x100_0000_01b3).rotate_left(17);
        if let Some(lines) = &mut log.lines {
            lines.push(format!("{:>12.6} {}", now.as_secs_f64(), line()));
        }
    }

    /// Whether lines are kept.
    pub fn keeps_lines(&self) -> bool {
        self.shared.log.lock().lines.is_some()
    }

    /// The lines so far, and the checksum of all events.
    pub fn take_log(&self) -> (Vec<String>, u64) {
        let mut log = self.shared.log.lock();
        (log.lines.as_mut().map(std::mem::take).unwrap_or_default(), log.digest)
    }

    /// The next moment of logical time: larger than all before.
    pub fn tick(&self) -> u64 {
        self.shared.ticks.fetch_add(1, Ordering::Relaxed)
    }

    /// A random delay in `low..high` microseconds.
    pub async fn delay_us(&self, low: u64, high: u64) {
        let us = self.shared.inner.lock().random.between(low, high);
        self.sleep(Duration::from_micros(us)).await;
    }

    /// True `percent` times in a hundred.
    pub fn chance(&self, percent: u64) -> bool {
        self.shared.inner.lock().random.chance(percent)
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.shared.inner.lock().random.below(bound)
    }

    /// Ends a process: none of its tasks runs again.
    pub fn kill(&self, process: Process) {
        self.shared.inner.lock().kills.push(process);
    }

    /// The same world as another process sees it.
    pub fn of(&self, process: Process) -> Handle {
        Handle { shared: Arc::clone(&self.shared), process }
    }
}

struct Sleep {
    shared: Arc<Shared>,
    at: Duration,
    is_set: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = Arc::clone(&self.shared);
        let mut inner = shared.inner.lock();
        if inner.now >= self.at && self.is_set {
            return Poll::Ready(());
        }
        let order = inner.next_timer;
        inner.next_timer += 1;
        inner.timers.push(Reverse(Timer { at: self.at, order, waker: context.waker().clone() }));
        self.is_set = true;
        Poll::Pending
    }
}

impl Runtime for Handle {
    fn now(&self) -> Duration {
        self.shared.inner.lock().now
    }

    fn wall_clock(&self) -> Timespec {
        let now = self.now();
        Timespec { seconds: EPOCH_SECONDS + now.as_secs() as i64, nanos: now.subsec_nanos() }
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()> {
        let at = self.now() + duration;
        Box::pin(Sleep { shared: Arc::clone(&self.shared), at, is_set: false })
    }

    fn spawn(&self, task: LocalFuture<'static, ()>) {
        SPAWNED.with_borrow_mut(|spawned| spawned.push((self.shared.world, self.process, task)));
    }

    fn random(&self) -> u64 {
        self.shared.inner.lock().random.bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64) -> Vec<u64> {
        let mut world = Executor::new(seed, false);
        let handle = world.handle(Process::WORLD);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let result = world.run(10_000, async move {
            for n in 0..8 {
                let (seen, handle) = (Arc::clone(&all), handle.clone());
                handle.clone().spawn(Box::pin(async move {
                    handle.delay_us(0, 5).await;
                    seen.lock().push(n);
                }));
            }
            handle.sleep(Duration::from_secs(3600)).await;
            handle.now()
        });
        assert_eq!(result, Ok(Duration::from_secs(3600)));
        let seen = seen.lock();
        seen.clone()
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(order(1), order(1));
        assert_eq!(order(1).len(), 8);
        assert!((2..20).any(|seed| order(seed) != order(1)));
    }

    #[test]
    fn a_killed_process_runs_no_more_and_a_deadlock_is_found() {
        let mut world = Executor::new(1, false);
        let handle = world.handle(Process::WORLD);
        let victim = handle.of(Process(1));
        let reached = Arc::new(AtomicBool::new(false));
        let reaches = Arc::clone(&reached);
        let result = world.run(1000, async move {
            let sleeper = victim.clone();
            victim.spawn(Box::pin(async move {
                sleeper.sleep(Duration::from_secs(2)).await;
                reaches.store(true, Ordering::Relaxed);
            }));
            handle.sleep(Duration::from_secs(1)).await;
            handle.kill(Process(1));
            handle.sleep(Duration::from_secs(5)).await;
        });
        assert_eq!(result, Ok(()));
        assert!(!reached.load(Ordering::Relaxed));
        assert_eq!(world.run(1000, std::future::pending::<()>()), Err(Stuck::Deadlock));
    }
}
