//! Bricks that die and links that break: what stands between a client graph and the copies.
//!
//! A [`Link`] stands for protocol/client and protocol/server: it is the child translator of replicate. Requests and
//! replies are delayed and overtake each other. A link is cut (its client knows at once, the brick some time later,
//! and what is under way may still be carried out), or goes silent (what is sent waits; after five seconds each side
//! for itself gives the other up). A new session reopens files before the client hears that the brick is back.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::channel::oneshot;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{File, FopKind};
use ladrillo_translator::locks::Locks;
use ladrillo_translator::memory::Memory;
use ladrillo_translator::steps::one_by_one;
use ladrillo_translator::{
    ClientId, Context, Dict, Event, FdId, Fop, FopError, FopFuture, FopResult, Gfid, Options, Parent, Runtime, Step,
    StepsFuture, Translator,
};
use parking_lot::Mutex;

use super::executor::{Handle, Process};
use super::workload::{brief, outcome};

/// After how long a silent peer is given up (TCP_USER_TIMEOUT).
const GIVE_UP: Duration = Duration::from_secs(5);

/// A brick process and the disk below it.
pub struct Brick {
    /// Its number, from 0.
    pub number: usize,
    /// Its disk.
    pub memory: Arc<Memory>,
    world: Handle,
    state: Mutex<BrickState>,
}

struct BrickState {
    is_up: bool,
    locks: Arc<Locks>,
    sessions: BTreeMap<ClientId, Weak<Link>>,
    next_session: u64,
}

impl Brick {
    /// A running brick with an empty disk.
    pub fn new(number: usize, world: &Handle) -> Arc<Brick> {
        let world = world.of(Process::WORLD);
        let memory = Memory::new(format!("brick-{number}"), Arc::new(world.clone()));
        let locks = locks_over(&memory, &world);
        let state = BrickState { is_up: true, locks, sessions: BTreeMap::new(), next_session: 1 };
        let brick = Arc::new(Brick { number, memory, world, state: Mutex::new(state) });
        brick.hear_contention();
        brick
    }

    /// Whether the process runs.
    pub fn is_up(&self) -> bool {
        self.state.lock().is_up
    }

    /// Its lock tables.
    pub fn locks(&self) -> Arc<Locks> {
        Arc::clone(&self.state.lock().locks)
    }

    fn hear_contention(self: &Arc<Brick>) {
        let brick = Arc::downgrade(self);
        self.locks().on_contention(move |contention| {
            let Some(brick) = brick.upgrade() else { return };
            let Some(link) = brick.state.lock().sessions.get(&contention.client).and_then(Weak::upgrade) else {
                return;
            };
            let world = brick.world.clone();
            brick.world.spawn(Box::pin(async move {
                world.delay_us(50, 3_000).await;
                if link.is_of(contention.client) {
                    link.tell(contention.event());
                }
            }));
        });
    }

    /// The process ends at once. `keeps` says of each unsynced write whether the disk has it (a killed process loses
    /// none: the kernel has them).
    pub fn crash(&self, keeps: &mut dyn FnMut() -> bool) {
        let (locks, sessions) = {
            let mut state = self.state.lock();
            state.is_up = false;
            (Arc::clone(&state.locks), std::mem::take(&mut state.sessions))
        };
        // What waits in it is gone: its answers reach nobody, for no session is known any more.
        for session in sessions.keys() {
            locks.release_client(*session);
        }
        self.memory.crash(keeps);
        for link in sessions.into_values().filter_map(|link| link.upgrade()) {
            let world = self.world.clone();
            self.world.spawn(Box::pin(async move {
                world.delay_us(20, 2_000).await;
                link.lose();
            }));
        }
    }

    /// The process starts again on the same disk.
    pub fn restart(self: &Arc<Brick>) {
        {
            let mut state = self.state.lock();
            if state.is_up {
                return;
            }
            state.is_up = true;
            state.locks = locks_over(&self.memory, &self.world);
        }
        self.hear_contention();
    }

    fn connect(&self, link: &Arc<Link>) -> Option<ClientId> {
        let mut state = self.state.lock();
        if !state.is_up {
            return None;
        }
        let session = ClientId(state.next_session);
        state.next_session += 1;
        state.sessions.insert(session, Arc::downgrade(link));
        Some(session)
    }

    /// The locks and disk that serve a session; `None` where it is not known (any more).
    fn serving(&self, session: ClientId) -> Option<Arc<Locks>> {
        let state = self.state.lock();
        (state.is_up && state.sessions.contains_key(&session)).then(|| Arc::clone(&state.locks))
    }

    /// The brick learns that a session has ended.
    fn forget(&self, session: ClientId) {
        let locks = {
            let mut state = self.state.lock();
            if state.sessions.remove(&session).is_none() {
                return;
            }
            Arc::clone(&state.locks)
        };
        self.world.note(4, || format!("    brick {} forgets session {}", self.number, session.0));
        locks.release_client(session);
        self.memory.release_client(session);
    }
}

fn locks_over(memory: &Arc<Memory>, world: &Handle) -> Arc<Locks> {
    match Locks::new("locks", Arc::clone(memory) as _, &Options::new(), Arc::new(world.clone())) {
        Ok(locks) => locks,
        Err(error) => unreachable!("no option is given: {error}"),
    }
}

/// A client's connection to a brick, and its place in the client's graph.
pub struct Link {
    this: Weak<Link>,
    name: String,
    /// For the log.
    process: u64,
    brick: Arc<Brick>,
    world: Handle,
    /// Its brick is one that takes one fop in a message.
    one_by_one: bool,
    state: Mutex<LinkState>,
}

struct LinkState {
    session: Option<ClientId>,
    parent: Option<(Weak<dyn Parent>, usize)>,
    pending: BTreeMap<u64, oneshot::Sender<FopResult<Vec<FopResult>>>>,
    next_request: u64,
    files: BTreeMap<FdId, Opened>,
    is_silent: bool,
    silences: u64,
    /// Its client is no more.
    is_dead: bool,
    is_connecting: bool,
}

#[derive(Clone, Copy)]
struct Opened {
    gfid: Gfid,
    flags: u32,
    is_dir: bool,
    /// Could not be opened again by the present session.
    is_bad: bool,
}

/// Flags that a reopen does not repeat: O_CREAT, O_EXCL, O_TRUNC.
const ONCE: u32 = 0o100 | 0o200 | 0o1000;

impl Link {
    /// A link that is not connected yet.
    pub fn new(name: impl Into<String>, process: u64, brick: &Arc<Brick>, world: &Handle) -> Arc<Link> {
        let state = LinkState {
            session: None,
            parent: None,
            pending: BTreeMap::new(),
            next_request: 0,
            files: BTreeMap::new(),
            is_silent: false,
            silences: 0,
            is_dead: false,
            is_connecting: false,
        };
        Arc::new_cyclic(|this| Link {
            this: this.clone(),
            name: name.into(),
            process,
            brick: Arc::clone(brick),
            world: world.of(Process::WORLD),
            one_by_one: world.chance(25),
            state: Mutex::new(state),
        })
    }

    /// Connects, and reconnects until it succeeds or the client is dead.
    pub fn connect(self: &Arc<Link>) {
        {
            let mut state = self.state.lock();
            if state.is_dead || state.is_connecting || state.session.is_some() {
                return;
            }
            state.is_connecting = true;
        }
        let link = Arc::clone(self);
        self.world.spawn(Box::pin(async move {
            while !link.try_connect().await {
                link.world.delay_us(50_000, 600_000).await;
            }
            link.state.lock().is_connecting = false;
        }));
    }

    /// One try; true when there is nothing more to try.
    async fn try_connect(self: &Arc<Link>) -> bool {
        self.world.delay_us(100, 5_000).await;
        {
            let state = self.state.lock();
            if state.is_dead {
                return true;
            }
            if state.is_silent {
                return false;
            }
        }
        let Some(session) = self.brick.connect(self) else { return false };
        let files: Vec<(FdId, Opened)> = self.state.lock().files.iter().map(|(fd, open)| (*fd, *open)).collect();
        let context = Context::root().with_client(session);
        let mut reopened = Vec::new();
        for (fd, open) in files {
            self.world.delay_us(50, 500).await;
            let Some(locks) = self.brick.serving(session) else { return false };
            let fop = match open.is_dir {
                true => Fop::Opendir { gfid: open.gfid, fd, xdata: Dict::new() },
                false => Fop::Open { gfid: open.gfid, flags: open.flags & !ONCE, fd, xdata: Dict::new() },
            };
            let is_bad = locks.submit(&context, fop).await.is_err();
            if let Some(known) = self.state.lock().files.get_mut(&fd) {
                known.is_bad = is_bad;
            }
            reopened.push((fd, open));
        }
        // A release goes to the brick from when the session is there; what was released before that is closed here.
        let (is_dead, released) = {
            let mut state = self.state.lock();
            if !state.is_dead {
                state.session = Some(session);
            }
            reopened.retain(|(fd, _)| !state.files.contains_key(fd));
            (state.is_dead, reopened)
        };
        for (fd, open) in released {
            let Some(locks) = self.brick.serving(session) else { break };
            let file = File { gfid: open.gfid, fd: Some(fd) };
            let fop = if open.is_dir { Fop::Releasedir { file } } else { Fop::Release { file } };
            // A brick that is gone has forgotten the file as well.
            let _ = locks.submit(&context, fop).await;
        }
        if is_dead || self.brick.serving(session).is_none() {
            self.brick.forget(session);
            self.state.lock().session = None;
            return is_dead;
        }
        self.world.note(2, || format!("    process {} reached brick {}", self.process, self.brick.number));
        self.tell(Event::Up);
        true
    }

    /// Whether it is connected.
    pub fn is_up(&self) -> bool {
        self.state.lock().session.is_some()
    }

    fn is_of(&self, session: ClientId) -> bool {
        self.state.lock().session == Some(session)
    }

    fn tell(&self, event: Event) {
        let parent = self.state.lock().parent.clone();
        if let Some((parent, index)) = parent
            && let Some(parent) = parent.upgrade()
        {
            parent.child_event(index, event);
        }
    }

    /// Cuts the connection: the client knows now, the brick in `notice`. What is under way may still arrive until then.
    pub fn cut(self: &Arc<Link>, notice: Duration) {
        let Some(session) = self.state.lock().session else { return };
        self.lose_with(session, notice);
    }

    /// The client finds its connection gone.
    fn lose(self: &Arc<Link>) {
        let session = self.state.lock().session;
        if let Some(session) = session {
            self.lose_with(session, Duration::from_millis(self.world.below(20)));
        }
    }

    /// The client knows that `session` is over; the brick hears of it after `notice`, once messages get through.
    fn lose_with(self: &Arc<Link>, session: ClientId, notice: Duration) {
        let pending = {
            let mut state = self.state.lock();
            if state.session != Some(session) {
                return;
            }
            state.session = None;
            std::mem::take(&mut state.pending)
        };
        let link = Arc::clone(self);
        self.world.spawn(Box::pin(async move {
            link.world.sleep(notice).await;
            while link.state.lock().is_silent {
                link.world.sleep(Duration::from_millis(100)).await;
            }
            link.brick.forget(session);
        }));
        self.world.note(3, || format!("    process {} lost brick {}", self.process, self.brick.number));
        // Requests fail before or after the event, as it happens in practice.
        let event_first = self.world.chance(50);
        if event_first {
            self.tell(Event::Down);
        }
        for request in pending.into_values() {
            let _ = request.send(Err(FopError::not_connected(&self.name)));
        }
        if !event_first {
            self.tell(Event::Down);
        }
        self.connect();
    }

    /// Nothing gets through for a while; each side gives the other up after [`GIVE_UP`].
    pub fn silence(self: &Arc<Link>, how_long: Duration) {
        let (session, silence) = {
            let mut state = self.state.lock();
            if state.is_silent {
                return;
            }
            state.is_silent = true;
            state.silences += 1;
            (state.session, state.silences)
        };
        let link = Arc::clone(self);
        self.world.spawn(Box::pin(async move {
            link.world.sleep(how_long).await;
            link.state.lock().is_silent = false;
        }));
        let Some(session) = session else { return };
        for at_the_client in [true, false] {
            let link = Arc::clone(self);
            self.world.spawn(Box::pin(async move {
                link.world.sleep(GIVE_UP).await;
                link.world.delay_us(0, 300_000).await;
                {
                    let state = link.state.lock();
                    if !state.is_silent || state.silences != silence {
                        return;
                    }
                }
                match at_the_client {
                    true if link.is_of(session) => link.lose(),
                    true => {}
                    false => link.brick.forget(session),
                }
            }));
        }
    }

    /// Ends what ails it.
    pub fn repair(&self) {
        self.state.lock().is_silent = false;
    }

    /// Its client was killed: the kernel closes the connection.
    pub fn die(self: &Arc<Link>) {
        let session = {
            let mut state = self.state.lock();
            state.is_dead = true;
            state.parent = None;
            state.pending.clear();
            state.session.take()
        };
        if let Some(session) = session {
            let (brick, world) = (Arc::clone(&self.brick), self.world.clone());
            self.world.spawn(Box::pin(async move {
                world.delay_us(20, 100_000).await;
                brick.forget(session);
            }));
        }
    }

    /// A message on its way; false when it will not arrive.
    async fn travel(&self) -> bool {
        // Most messages take what a local network takes, some wait in a queue.
        match self.world.below(50) {
            0 => self.world.delay_us(5_000, 60_000).await,
            _ => self.world.delay_us(30, 1_500).await,
        }
        let mut waited = Duration::ZERO;
        while self.state.lock().is_silent {
            if waited > GIVE_UP * 2 {
                return false;
            }
            let nap = Duration::from_millis(200);
            self.world.sleep(nap).await;
            waited += nap;
        }
        true
    }

    /// Takes `steps` to the brick in one message, where each is carried out: the brick may die, or give the session up,
    /// between two of them.
    async fn carry(self: Arc<Link>, session: ClientId, request: u64, steps: Vec<Step>) {
        if !self.travel().await {
            return;
        }
        let mut results: Vec<FopResult> = Vec::with_capacity(steps.len());
        let mut opened = Vec::new();
        for Step { context, fop, needs_previous } in steps {
            if !results.is_empty() && self.world.chance(20) {
                self.world.delay_us(1, 2_000).await;
            }
            if needs_previous && results.last().is_some_and(|result| result.is_err()) {
                results.push(Err(Step::left_out()));
                continue;
            }
            let Some(locks) = self.brick.serving(session) else {
                // The brick has given this session up: a reset.
                if self.is_of(session) {
                    self.lose();
                }
                return;
            };
            let opens = opened_by(&fop);
            let shown = self.world.keeps_lines().then(|| brief(&fop));
            let result = locks.submit(&context.with_client(session), fop).await;
            if let Some(shown) = shown {
                let (process, number) = (self.process, self.brick.number);
                let line = || format!("    process {process} on brick {number}: {shown} -> {}", outcome(&result));
                self.world.note(0, line);
            }
            if let (Ok(reply), Some((fd, open))) = (&result, opens) {
                let gfid = match reply {
                    ladrillo_translator::Reply::Entry { iatt, .. } => iatt.gfid,
                    _ => open.gfid,
                };
                opened.push((fd, Opened { gfid, ..open }));
            }
            results.push(result);
        }
        let arrives = self.travel().await;
        let mut state = self.state.lock();
        if !arrives || state.session != Some(session) {
            return;
        }
        state.files.extend(opened);
        if let Some(sender) = state.pending.remove(&request) {
            drop(state);
            let _ = sender.send(Ok(results));
        }
    }

    /// Whether the brick can be asked `fop` in this session.
    fn check(&self, state: &LinkState, fop: &Fop) -> FopResult<()> {
        // The brick of this session does not have the file open.
        let fd = file_of(fop).and_then(|file| file.fd);
        if fd.is_some_and(|fd| state.files.get(&fd).is_none_or(|open| open.is_bad)) {
            return Err(FopError::new(errno::EBADFD, format!("{}: the file is not open there", self.name)));
        }
        Ok(())
    }

    /// Sends `steps`; the receiver hears their answers, or that the connection was lost.
    fn post(&self, steps: Vec<Step>) -> FopResult<oneshot::Receiver<FopResult<Vec<FopResult>>>> {
        let mut state = self.state.lock();
        for step in &steps {
            if let Fop::Release { file } | Fop::Releasedir { file } = &step.fop
                && let Some(fd) = file.fd
            {
                state.files.remove(&fd);
            }
        }
        let session = state.session.ok_or_else(|| FopError::not_connected(&self.name))?;
        steps.iter().try_for_each(|step| self.check(&state, &step.fop))?;
        let request = state.next_request;
        state.next_request += 1;
        let (sender, answer) = oneshot::channel();
        state.pending.insert(request, sender);
        drop(state);
        if let Some(this) = self.this.upgrade() {
            self.world.spawn(Box::pin(this.carry(session, request, steps)));
        }
        Ok(answer)
    }
}

fn opened_by(fop: &Fop) -> Option<(FdId, Opened)> {
    match fop {
        Fop::Open { gfid, flags, fd, .. } => {
            Some((*fd, Opened { gfid: *gfid, flags: *flags, is_dir: false, is_bad: false }))
        }
        Fop::Opendir { gfid, fd, .. } => Some((*fd, Opened { gfid: *gfid, flags: 0, is_dir: true, is_bad: false })),
        Fop::Create { flags, fd, .. } => {
            Some((*fd, Opened { gfid: Gfid::NULL, flags: *flags, is_dir: false, is_bad: false }))
        }
        _ => None,
    }
}

/// The open file a fop needs. A copy between two goes where either is open, and releasing one that is not open is fine.
fn file_of(fop: &Fop) -> Option<File> {
    match fop.kind() {
        FopKind::Release | FopKind::Releasedir | FopKind::CopyFileRange => None,
        _ => fop.files()[0],
    }
}

impl Translator for Link {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let posted = self.post(vec![Step::new(context, fop)]);
        Box::pin(async move {
            match posted?.await {
                Ok(results) => results?.pop().unwrap_or_else(|| Err(FopError::not_connected(&self.name))),
                Err(_) => Err(FopError::not_connected(&self.name)),
            }
        })
    }

    fn submit_steps(&self, steps: Vec<Step>) -> StepsFuture<'_> {
        // Stock bricks take them one by one: seeds differ in this.
        let fits = {
            let state = self.state.lock();
            steps.iter().all(|step| self.check(&state, &step.fop).is_ok())
        };
        if self.one_by_one || !fits {
            return Box::pin(one_by_one(self, steps));
        }
        let count = steps.len();
        let posted = self.post(steps);
        Box::pin(async move {
            let lost = || FopError::not_connected(&self.name);
            let answer = match posted {
                Ok(posted) => posted.await.unwrap_or_else(|_| Err(lost())),
                Err(error) => Err(error),
            };
            answer.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
        })
    }

    fn takes_steps(&self) -> bool {
        !self.one_by_one
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.state.lock().parent = Some((parent, child_index));
    }
}
