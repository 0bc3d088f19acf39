//! What the tests run on: virtual time, in-memory bricks with locks, connections that can be cut.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::error::errno::ENOTCONN;
use ladrillo_translator::fop::{Entry, PrePost};
use ladrillo_translator::locks::Locks;
use ladrillo_translator::memory::Memory;
use ladrillo_translator::option::Options;
use ladrillo_translator::steps::one_by_one;
use ladrillo_translator::{
    ClientId, Context, Dict, Event, FdId, Fop, FopError, FopFuture, FopResult, Gfid, LocalFuture, Parent, Payload,
    Reply, Runtime, Step, StepsFuture, Timespec, Translator, Value,
};
use parking_lot::Mutex;

use crate::translators::replicate::Replicate;

#[derive(Default)]
struct World {
    now: Duration,
    tasks: Vec<LocalFuture<'static, ()>>,
    born: Vec<LocalFuture<'static, ()>>,
    timers: Vec<Duration>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

/// Virtual time of this test's thread.
#[derive(Default)]
pub struct Clockwork(AtomicU64);

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Sleep(Duration);

impl Future for Sleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
        WORLD.with_borrow_mut(|world| {
            if world.now >= self.0 {
                return Poll::Ready(());
            }
            world.timers.push(self.0);
            Poll::Pending
        })
    }
}

impl Runtime for Clockwork {
    fn now(&self) -> Duration {
        WORLD.with_borrow(|world| world.now)
    }

    fn wall_clock(&self) -> Timespec {
        let now = self.now();
        Timespec { seconds: 1_000_000 + now.as_secs() as i64, nanos: now.subsec_nanos() }
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()> {
        Box::pin(Sleep(self.now() + duration))
    }

    fn spawn(&self, task: LocalFuture<'static, ()>) {
        WORLD.with_borrow_mut(|world| world.born.push(task));
    }

    fn random(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

/// Runs `future`, and what it spawns, until it is done; time jumps to the next timer when all wait.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut main = std::pin::pin!(future);
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut cx = TaskContext::from_waker(&waker);
    for _ in 0..2_000_000 {
        flag.0.store(false, Ordering::SeqCst);
        WORLD.with_borrow_mut(|world| world.timers.clear());
        if let Poll::Ready(value) = main.as_mut().poll(&mut cx) {
            return value;
        }
        let (mut tasks, born) =
            WORLD.with_borrow_mut(|world| (std::mem::take(&mut world.tasks), std::mem::take(&mut world.born)));
        let any_born = !born.is_empty();
        tasks.extend(born);
        let before = tasks.len();
        tasks.retain_mut(|task| task.as_mut().poll(&mut cx).is_pending());
        let any_done = tasks.len() != before;
        WORLD.with_borrow_mut(|world| {
            tasks.append(&mut world.tasks);
            world.tasks = tasks;
            if !(any_born || any_done || flag.0.load(Ordering::SeqCst) || !world.born.is_empty()) {
                let next = world.timers.iter().copied().min();
                world.now = next.unwrap_or_else(|| panic!("everybody waits for ever"));
            }
        });
    }
    panic!("no end in sight");
}

/// Lets everything that is under way go on for `time`.
pub async fn pass(time: Duration) {
    Clockwork(AtomicU64::new(0)).sleep(time).await;
}

/// A client's connection to a brick: can be cut.
pub struct Wire {
    name: String,
    brick: Arc<Locks>,
    number: AtomicU64,
    up: AtomicBool,
    parent: Mutex<Option<(Weak<dyn Parent>, usize)>>,
    /// Fops to fail with this errno, by name of their kind.
    pub refuse: Mutex<Vec<(&'static str, i32)>>,
    /// Fops that are carried out, and whose answer is this errno all the same.
    pub lose: Mutex<Vec<(&'static str, i32)>>,
    /// How long a request takes to the brick, and its answer back.
    pub latency: Mutex<Duration>,
    /// What went over it.
    pub log: Mutex<Vec<String>>,
    /// Messages that went over it.
    pub messages: AtomicU64,
    /// Takes several steps in one.
    pub together: AtomicBool,
    /// Files open through it: by whom, and in which session last.
    open: Mutex<HashMap<FdId, (Gfid, u32, u64)>>,
}

static SESSIONS: AtomicU64 = AtomicU64::new(1);

impl Wire {
    pub fn cut(&self) {
        self.up.store(false, Ordering::SeqCst);
        let session = ClientId(self.number.load(Ordering::SeqCst));
        self.brick.release_client(session);
        self.tell(Event::Down);
    }

    pub fn mend(&self) {
        self.number.store(SESSIONS.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        self.up.store(true, Ordering::SeqCst);
        self.tell(Event::Up);
    }

    pub fn tell(&self, event: Event) {
        let parent = self.parent.lock().clone();
        if let Some((parent, index)) = parent
            && let Some(parent) = parent.upgrade()
        {
            parent.child_event(index, event);
        }
    }
}

impl Wire {
    /// One fop at the brick, where its message has arrived.
    async fn carry_out(&self, context: &Context, fop: Fop) -> FopResult {
        let kind = fop.kind().name();
        self.log.lock().push(kind.clone());
        if let Some((_, errno)) = self.refuse.lock().iter().find(|(refused, _)| *refused == kind) {
            return Err(FopError::new(*errno, "refused"));
        }
        if !self.up.load(Ordering::SeqCst) {
            return Err(FopError::not_connected(&self.name));
        }
        let session = ClientId(self.number.load(Ordering::SeqCst));
        let context = context.with_client(session);
        // As protocol/client does: files are opened again in a new session.
        for fd in fop.files().into_iter().flatten().filter_map(|file| file.fd) {
            let before = self.open.lock().get(&fd).copied();
            if let Some((gfid, flags, number)) = before
                && number != session.0
            {
                let flags = flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC) as u32;
                let _ = self.brick.submit(&context, Fop::Open { gfid, flags, fd, xdata: Dict::new() }).await;
                self.open.lock().insert(fd, (gfid, flags, session.0));
            }
        }
        match &fop {
            Fop::Open { gfid, flags, fd, .. } => drop(self.open.lock().insert(*fd, (*gfid, *flags, session.0))),
            Fop::Create { flags, fd, xdata, .. } => {
                let gfid = xdata.gfid("gfid-req").unwrap_or_default();
                self.open.lock().insert(*fd, (gfid, *flags, session.0));
            }
            Fop::Release { file } => drop(file.fd.and_then(|fd| self.open.lock().remove(&fd))),
            _ => {}
        }
        let outcome = self.brick.submit(&context, fop).await;
        if !self.up.load(Ordering::SeqCst) || self.number.load(Ordering::SeqCst) != session.0 {
            return Err(FopError::new(ENOTCONN, "lost on the way back"));
        }
        if let Some((_, errno)) = self.lose.lock().iter().find(|(lost, _)| *lost == kind) {
            return Err(FopError::new(*errno, "the answer was lost"));
        }
        outcome
    }

    async fn travel(&self) {
        let latency = *self.latency.lock();
        if !latency.is_zero() {
            pass(latency).await;
        }
    }
}

impl Translator for Wire {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        Box::pin(async move {
            self.messages.fetch_add(1, Ordering::Relaxed);
            self.travel().await;
            let outcome = self.carry_out(context, fop).await;
            self.travel().await;
            match self.up.load(Ordering::SeqCst) {
                true => outcome,
                false => Err(FopError::new(ENOTCONN, "lost on the way back")),
            }
        })
    }

    fn submit_steps(&self, steps: Vec<Step>) -> StepsFuture<'_> {
        if !self.takes_steps() {
            return Box::pin(one_by_one(self, steps));
        }
        Box::pin(async move {
            self.messages.fetch_add(1, Ordering::Relaxed);
            self.travel().await;
            let mut results: Vec<FopResult> = Vec::new();
            for Step { context, fop, needs_previous } in steps {
                let failed = results.last().is_some_and(|result| result.is_err());
                results.push(match needs_previous && failed {
                    true => Err(Step::left_out()),
                    false => self.carry_out(&context, fop).await,
                });
            }
            self.travel().await;
            if !self.up.load(Ordering::SeqCst) {
                let lost = |_| Err(FopError::new(ENOTCONN, "lost on the way back"));
                results = results.into_iter().map(lost).collect();
            }
            results
        })
    }

    fn takes_steps(&self) -> bool {
        self.together.load(Ordering::SeqCst)
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        *self.parent.lock() = Some((parent, child_index));
    }
}

/// All connections, each with the number of its brick.
type Wires = Arc<Mutex<Vec<(usize, Arc<Wire>)>>>;

/// Bricks.
pub struct Bricks {
    pub disks: Vec<Arc<Memory>>,
    pub locks: Vec<Arc<Locks>>,
    runtime: Arc<dyn Runtime>,
    wires: Wires,
}

/// A client of them.
pub struct Client {
    pub replicate: Arc<Replicate>,
    pub wires: Vec<Arc<Wire>>,
    fds: AtomicU64,
}

pub fn bricks(count: usize) -> Bricks {
    bricks_of(count, false)
}

/// Two bricks and an arbiter.
pub fn arbiter_bricks() -> Bricks {
    bricks_of(3, true)
}

/// A disk of names and marks: as features/arbiter, it does nothing to contents and gives none.
struct ArbiterDisk(Arc<Memory>);

impl Translator for ArbiterDisk {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let unchanged = |gfid: Gfid, written: usize| -> FopFuture<'a> {
            Box::pin(async move {
                let Reply::Iatt { iatt, .. } = self.0.submit(context, Fop::Stat { gfid, xdata: Dict::new() }).await?
                else {
                    panic!("not a stat")
                };
                let attrs = PrePost { pre: (*iatt).clone(), post: *iatt };
                Ok(Reply::PrePost { attrs: Box::new(attrs), written: written as u32, xdata: Dict::new() })
            })
        };
        match fop {
            Fop::Write { file, data, .. } => {
                assert!(data.len() <= 1, "an arbiter needs no data");
                unchanged(file.gfid, data.len())
            }
            Fop::Truncate { gfid, .. } => unchanged(gfid, 0),
            Fop::Ftruncate { file, .. } | Fop::Fallocate { file, .. } | Fop::Discard { file, .. } => {
                unchanged(file.gfid, 0)
            }
            Fop::Zerofill { file, .. } => unchanged(file.gfid, 0),
            Fop::Read { .. } | Fop::Seek { .. } | Fop::Rchecksum { .. } | Fop::CopyFileRange { .. } => {
                panic!("{} of an arbiter", fop.kind().name())
            }
            fop => self.0.submit(context, fop),
        }
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.0.set_parent(parent, child_index);
    }
}

fn bricks_of(count: usize, arbiter: bool) -> Bricks {
    let runtime: Arc<dyn Runtime> = Arc::new(Clockwork(AtomicU64::new(7)));
    let wires: Wires = Arc::default();
    let mut all = Bricks { disks: Vec::new(), locks: Vec::new(), runtime: runtime.clone(), wires: wires.clone() };
    for number in 0..count {
        let disk = Memory::new(format!("disk-{number}"), runtime.clone());
        let child: Arc<dyn Translator> = match arbiter && number + 1 == count {
            true => Arc::new(ArbiterDisk(disk.clone())),
            false => disk.clone(),
        };
        let locks = Locks::new(format!("locks-{number}"), child, &Options::new(), runtime.clone()).unwrap();
        let wires = wires.clone();
        locks.on_contention(move |contention| {
            let holder = wires
                .lock()
                .iter()
                .find(|(brick, wire)| *brick == number && wire.number.load(Ordering::SeqCst) == contention.client.0)
                .map(|(_, wire)| wire.clone());
            if let Some(wire) = holder {
                wire.tell(contention.event());
            }
        });
        all.disks.push(disk);
        all.locks.push(locks);
    }
    all
}

impl Bricks {
    /// New connections, one to each brick, named `v-client-N`: those of one client.
    pub fn connect(&self) -> Vec<Arc<Wire>> {
        let mut wires = Vec::new();
        for (number, brick) in self.locks.iter().enumerate() {
            let wire = Arc::new(Wire {
                name: format!("v-client-{number}"),
                brick: brick.clone(),
                number: AtomicU64::new(SESSIONS.fetch_add(1, Ordering::SeqCst)),
                up: AtomicBool::new(true),
                parent: Mutex::new(None),
                refuse: Mutex::default(),
                lose: Mutex::default(),
                latency: Mutex::default(),
                log: Mutex::default(),
                messages: AtomicU64::new(0),
                together: AtomicBool::new(true),
                open: Mutex::default(),
            });
            self.wires.lock().push((number, wire.clone()));
            wires.push(wire);
        }
        wires
    }

    /// What the bricks' clients run on.
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        self.runtime.clone()
    }

    pub fn client(&self, options: Options) -> Client {
        let wires = self.connect();
        let children = wires.iter().map(|wire| wire.clone() as Arc<dyn Translator>).collect();
        let replicate = Replicate::new("v-replicate-0", children, &options, self.runtime.clone()).unwrap();
        for (index, wire) in wires.iter().enumerate() {
            let parent: Arc<dyn Parent> = replicate.clone();
            wire.set_parent(Arc::downgrade(&parent), index);
            wire.tell(Event::Up);
        }
        Client { replicate, wires, fds: AtomicU64::new(SESSIONS.fetch_add(1, Ordering::SeqCst) << 32) }
    }

    /// How the copies differ; nothing when they do not.
    pub fn differences(&self) -> Vec<String> {
        let first = self.disks[0].snapshot();
        self.disks[1..].iter().flat_map(|disk| first.differences(&disk.snapshot())).collect()
    }

    /// Marks that are not zero, per brick.
    pub fn marks(&self) -> Vec<String> {
        self.disks
            .iter()
            .enumerate()
            .flat_map(|(number, disk)| {
                disk.marks().into_iter().map(move |(gfid, key, value)| {
                    format!("{number}: {gfid} {} {value:?}", String::from_utf8_lossy(&key))
                })
            })
            .collect()
    }
}

pub fn at(parent: Gfid, name: &str) -> Entry {
    Entry { parent, name: Bytes::copy_from_slice(name.as_bytes()) }
}

impl Client {
    pub async fn ask(&self, fop: Fop) -> FopResult {
        self.replicate.submit(&Context::root(), fop).await
    }

    pub async fn create(&self, parent: Gfid, name: &str) -> FopResult<ladrillo_translator::fop::File> {
        let gfid = Gfid::random();
        let fd = FdId(self.fds.fetch_add(1, Ordering::SeqCst));
        let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
        self.ask(Fop::Create { entry: at(parent, name), flags: libc::O_RDWR as u32, mode: 0o644, umask: 0, fd, xdata })
            .await?;
        Ok(ladrillo_translator::fop::File { gfid, fd: Some(fd) })
    }

    pub async fn mkdir(&self, parent: Gfid, name: &str) -> FopResult<Gfid> {
        let gfid = Gfid::random();
        let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
        self.ask(Fop::Mkdir { entry: at(parent, name), mode: 0o755, umask: 0, xdata }).await?;
        Ok(gfid)
    }

    pub async fn write(&self, file: ladrillo_translator::fop::File, offset: u64, data: &[u8]) -> FopResult {
        let data = Payload::copy_from_slice(data);
        self.ask(Fop::Write { file, offset, data, flags: 0, xdata: Dict::new() }).await
    }

    pub async fn read(&self, gfid: Gfid) -> FopResult<Vec<u8>> {
        let file = ladrillo_translator::fop::File { gfid, fd: None };
        match self.ask(Fop::Read { file, offset: 0, size_bytes: 1 << 20, flags: 0, xdata: Dict::new() }).await? {
            Reply::Read { data, .. } => Ok(data.as_slice().to_vec()),
            other => panic!("{other:?}"),
        }
    }

    pub async fn lookup(&self, parent: Gfid, name: &str) -> FopResult<Gfid> {
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(at(parent, name)), xdata: Dict::new() };
        match self.ask(fop).await? {
            Reply::Lookup { iatt, .. } => Ok(iatt.gfid),
            other => panic!("{other:?}"),
        }
    }
}
