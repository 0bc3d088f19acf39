//! The client against a small brick of this file's own, over the in-memory network, in virtual time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use ladrillo_translator::fop::{Entry, Flock, LockType};
use ladrillo_translator::{FopKind, Gfid, Iatt, LocalFuture, Timespec};
use ladrillo_transport::memory::{Listener, Network};
use ladrillo_transport::program::{dump, extension, handshake, portmap};
use ladrillo_transport::rpc::{self, AcceptStatus, Incoming};
use ladrillo_transport::{Message, Transport};

use super::*;

thread_local! {
    static SPAWNED: RefCell<Vec<LocalFuture<'static, ()>>> = const { RefCell::new(Vec::new()) };
}

/// A clock that moves when nothing else can.
#[derive(Clone, Default)]
struct VirtualTime {
    state: Arc<Mutex<VirtualState>>,
}

#[derive(Default)]
struct VirtualState {
    now: Duration,
    timers: BTreeMap<(Duration, u64), Waker>,
    counter: u64,
}

struct Sleep {
    time: VirtualTime,
    until: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let time = self.time.clone();
        let mut state = time.state.lock();
        if let Some(key) = self.key.take() {
            state.timers.remove(&key);
        }
        if state.now >= self.until {
            return Poll::Ready(());
        }
        state.counter += 1;
        let key = (self.until, state.counter);
        state.timers.insert(key, cx.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.time.state.lock().timers.remove(&key);
        }
    }
}

impl Runtime for VirtualTime {
    fn now(&self) -> Duration {
        self.state.lock().now
    }

    fn wall_clock(&self) -> Timespec {
        Timespec { seconds: self.now().as_secs() as i64, nanos: 0 }
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()> {
        Box::pin(Sleep { time: self.clone(), until: self.now() + duration, key: None })
    }

    fn spawn(&self, task: LocalFuture<'static, ()>) {
        SPAWNED.with(|spawned| spawned.borrow_mut().push(task));
    }

    fn random(&self) -> u64 {
        7
    }
}

/// Runs `test` to its end; panics when it would wait for ever.
fn run<T: 'static>(time: &VirtualTime, test: impl Future<Output = T> + 'static) -> T {
    let mut pool = LocalPool::new();
    let result = Rc::new(RefCell::new(None));
    let out = result.clone();
    pool.spawner().spawn_local(async move { *out.borrow_mut() = Some(test.await) }).unwrap();
    for _ in 0..1_000_000 {
        for task in SPAWNED.with(|spawned| std::mem::take(&mut *spawned.borrow_mut())) {
            pool.spawner().spawn_local(task).unwrap();
        }
        pool.run_until_stalled();
        if let Some(result) = result.borrow_mut().take() {
            return result;
        }
        if SPAWNED.with(|spawned| !spawned.borrow().is_empty()) {
            continue;
        }
        let mut state = time.state.lock();
        let Some(((when, _), waker)) = state.timers.pop_first() else { panic!("nothing left to wait for") };
        state.now = state.now.max(when);
        drop(state);
        waker.wake();
    }
    panic!("no end in sight at {:?}", time.now());
}

/// What the fake brick does and has seen.
#[derive(Default)]
struct Brick {
    sessions: Vec<Dict>,
    fops: Vec<Fop>,
    pings: u32,
    connections: Vec<Arc<dyn Transport>>,
    open: BTreeMap<u64, Gfid>,
    last_fd: u64,
    /// Answers nothing any more.
    hung: bool,
    /// Answers no fop of this kind.
    silent: Option<FopKind>,
    /// OPEN and OPENDIR fail with this.
    refuse_open: Option<i32>,
    /// How many LKs fail with EAGAIN.
    refuse_lock: u32,
    volume_id: &'static str,
    /// Speaks our own program.
    extended: bool,
    /// How many records with steps came.
    together: usize,
}

type SharedBrick = Rc<RefCell<Brick>>;

impl Brick {
    fn answer(&mut self, fop: Fop) -> Option<(FopResult, Option<FdId>)> {
        self.fops.push(fop.clone());
        if self.silent == Some(fop.kind()) {
            return None;
        }
        for file in fop.files().into_iter().flatten() {
            if let Some(fd) = file.fd
                && !self.open.contains_key(&fd.0)
            {
                return Some((Err(FopError::new(errno::EBADF, "no such descriptor")), None));
            }
        }
        let done = (Ok(Reply::done()), None);
        Some(match fop {
            Fop::Open { .. } | Fop::Opendir { .. } if self.refuse_open.is_some() => {
                (Err(FopError::new(self.refuse_open.unwrap_or(errno::EIO), "refused")), None)
            }
            Fop::Open { gfid, .. } | Fop::Opendir { gfid, .. } => {
                self.last_fd += 1;
                self.open.insert(self.last_fd, gfid);
                (Ok(Reply::done()), Some(FdId(self.last_fd)))
            }
            Fop::Create { .. } => {
                self.last_fd += 1;
                self.open.insert(self.last_fd, GFID);
                let iatt = Box::new(Iatt { gfid: GFID, mode: 0o100644, ..Iatt::default() });
                let reply = Reply::Entry { iatt, parent: Box::default(), xdata: Dict::new() };
                (Ok(reply), Some(FdId(self.last_fd)))
            }
            Fop::Release { file } | Fop::Releasedir { file } => {
                self.open.remove(&file.fd.unwrap().0);
                done
            }
            Fop::Write { data, .. } => {
                let written = data.len() as u32;
                (Ok(Reply::PrePost { attrs: Box::default(), written, xdata: Dict::new() }), None)
            }
            Fop::Stat { .. } | Fop::Fstat { .. } => {
                (Ok(Reply::Iatt { iatt: Box::default(), xdata: Dict::new() }), None)
            }
            Fop::Lookup { .. } => {
                let iatt = Box::new(Iatt { gfid: GFID, mode: 0o100644, ..Iatt::default() });
                (Ok(Reply::Lookup { iatt, parent: Box::default(), xdata: Dict::new() }), None)
            }
            Fop::Lk { flock, .. } if self.refuse_lock > 0 && flock.kind != LockType::Unlock => {
                self.refuse_lock -= 1;
                (Err(FopError::new(errno::EAGAIN, "taken")), None)
            }
            Fop::Lk { flock, .. } => (Ok(Reply::Lk { flock, xdata: Dict::new() }), None),
            Fop::Unlink { .. } => (Err(FopError::new(errno::ENOENT, "not there")), None),
            _ => done,
        })
    }
}

const GFID: Gfid = Gfid([9; 16]);

fn glusterd() -> Address {
    Address::Tcp { host: "node1".into(), port: 24007 }
}

fn brick_address() -> Address {
    Address::Tcp { host: "node1".into(), port: 49152 }
}

async fn serve_connection(brick: SharedBrick, transport: Arc<dyn Transport>) {
    while let Ok(record) = transport.recv().await {
        let Ok(Incoming::Call(header, body)) = rpc::decode_record(record) else { panic!("clients only call") };
        if brick.borrow().hung {
            continue;
        }
        let reply = match (header.program, header.procedure) {
            (portmap::PROGRAM, portmap::PROC_PORTBYBRICK) => {
                let asked = portmap::PortByBrick::decode(body).unwrap();
                let port = match asked.brick.as_str() {
                    "/bricks/b1" => 49152,
                    "/bricks/b1.rdma" => 49153,
                    "/bricks/b1.sdp" => 49154,
                    other => panic!("{other} is not asked for"),
                };
                portmap::PortByBrickReply { port, ..Default::default() }.encode()
            }
            (dump::PROGRAM, dump::PROC_DUMP) => {
                let number = u64::from(fop4::PROGRAM);
                let mut programs = vec![dump::Program { name: fop4::NAME.into(), number, version: 400 }];
                if brick.borrow().extended {
                    let number = u64::from(extension::PROGRAM);
                    programs.push(dump::Program { name: extension::NAME.into(), number, version: 1 });
                }
                dump::Reply { programs, ..Default::default() }.encode()
            }
            (dump::PROGRAM, dump::PROC_PING) => {
                brick.borrow_mut().pings += 1;
                dump::PingReply::default().encode()
            }
            (handshake::PROGRAM, handshake::PROC_SETVOLUME) => {
                let request = handshake::Setvolume::decode(body).unwrap();
                let mut brick = brick.borrow_mut();
                brick.sessions.push(request.dict);
                let mut dict = Dict::new();
                dict.set_str("volume-id", brick.volume_id);
                dict.set_int("child_up", 1);
                handshake::Answer { dict, ..Default::default() }.encode()
            }
            (fop4::PROGRAM, procedure) => {
                let fop = fop4::decode_request(procedure, body).unwrap();
                let kind = fop.kind();
                let Some((result, opened)) = brick.borrow_mut().answer(fop) else { continue };
                fop4::encode_reply(kind, &result, opened)
            }
            (extension::PROGRAM, extension::PROC_STEPS) => {
                let mut brick = brick.borrow_mut();
                assert_eq!(brick.sessions.last().unwrap().int(extension::SETVOLUME_KEY), Some(1));
                brick.together += 1;
                let mut done: Vec<extension::Done> = Vec::new();
                for step in extension::decode_request(body).unwrap() {
                    let failed = done.last().is_some_and(|done| done.result.is_err());
                    done.push(if step.needs_previous && failed {
                        extension::Done { kind: None, result: Err(Step::left_out()), opened: None }
                    } else {
                        let fop = fop4::decode_request(step.procedure, step.body).unwrap();
                        let kind = Some(fop.kind());
                        let (result, opened) = brick.answer(fop).unwrap();
                        extension::Done { kind, result, opened }
                    });
                }
                let mut writer = ladrillo_transport::xdr::Writer::default();
                let payload = extension::write_reply(&mut writer, &done);
                Message { header: writer.finish(), payload, padding: 0 }
            }
            other => panic!("{other:?} is not for bricks"),
        };
        let _ = transport.send(rpc::encode_reply(header.xid, AcceptStatus::Success, reply)).await;
    }
    brick.borrow_mut().open.clear();
}

async fn serve(time: VirtualTime, brick: SharedBrick, listener: Listener) {
    loop {
        let transport = listener.accept().await;
        brick.borrow_mut().connections.push(transport.clone());
        time.spawn(Box::pin(serve_connection(brick.clone(), transport)));
    }
}

#[derive(Default)]
struct Listening {
    events: Mutex<Vec<String>>,
}

impl Parent for Listening {
    fn child_event(&self, child_index: usize, event: Event) {
        assert_eq!(child_index, 3);
        self.events.lock().push(format!("{event:?}"));
    }
}

struct World {
    time: VirtualTime,
    network: Network,
    brick: SharedBrick,
    client: Arc<Client>,
    parent: Arc<Listening>,
    context: Context,
}

fn options() -> Options {
    Options::new()
        .with("remote-host", "node1")
        .with("remote-subvolume", "/bricks/b1")
        .with("username", "u")
        .with("volfile-key", "/gv0")
}

impl World {
    fn new(time: &VirtualTime, options: &Options) -> World {
        let network = Network::new();
        let client =
            Client::new("gv0-client-3", options, Arc::new(time.clone()), network.connector()).expect("good options");
        let parent = Arc::new(Listening::default());
        let weak: Weak<dyn Parent> = Arc::downgrade(&(parent.clone() as Arc<dyn Parent>));
        client.set_parent(weak, 3);
        let brick = Rc::new(RefCell::new(Brick { volume_id: "v1", ..Brick::default() }));
        World { time: time.clone(), network, brick, client, parent, context: Context::root() }
    }

    fn listen(&self, address: Address) {
        let listener = self.network.listen(address);
        self.time.spawn(Box::pin(serve(self.time.clone(), self.brick.clone(), listener)));
    }

    /// A running brick and a client that has reached it.
    async fn connected(time: &VirtualTime) -> World {
        let world = World::new(time, &options());
        world.listen(glusterd());
        world.listen(brick_address());
        world.client.start();
        world.wait_for("Up", 1).await;
        world
    }

    /// The same, with a glusterd that answers one connection, the first, and is dead then.
    async fn connected_once(time: &VirtualTime) -> World {
        let world = World::new(time, &options());
        let listener = world.network.listen(glusterd());
        world.listen(brick_address());
        world.client.start();
        let portmap = listener.accept().await;
        time.spawn(Box::pin(serve_connection(world.brick.clone(), portmap)));
        world.wait_for("Up", 1).await;
        world
    }

    /// Waits for the `count`th event of a name.
    async fn wait_for(&self, event: &str, count: usize) {
        for _ in 0..10_000 {
            if self.parent.events.lock().iter().filter(|seen| seen.starts_with(event)).count() >= count {
                return;
            }
            self.time.sleep(Duration::from_millis(10)).await;
        }
        panic!("no {event} number {count}: {:?}", self.parent.events.lock());
    }

    async fn submit(&self, fop: Fop) -> FopResult {
        self.client.submit(&self.context, fop).await
    }

    async fn open(&self, fd: u64, flags: i32) -> FopResult {
        self.submit(Fop::Open { gfid: GFID, flags: flags as u32, fd: FdId(fd), xdata: Dict::new() }).await
    }

    async fn write(&self, fd: Option<u64>) -> FopResult {
        let file = File { gfid: GFID, fd: fd.map(FdId) };
        let data = ladrillo_translator::Payload::from_bytes(Bytes::from_static(b"data"));
        self.submit(Fop::Write { file, offset: 0, data, flags: 0, xdata: Dict::new() }).await
    }

    fn last_fop(&self) -> Fop {
        self.brick.borrow().fops.last().cloned().expect("a fop has come")
    }

    fn last_fd(&self) -> Option<FdId> {
        self.last_fop().files()[0].expect("a file").fd
    }
}

fn stat() -> Fop {
    Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() }
}

fn test<F: Future<Output = ()> + 'static>(body: impl FnOnce(VirtualTime) -> F) {
    let time = VirtualTime::default();
    run(&time, body(time.clone()));
}

#[test]
fn options_are_checked() {
    let time: Arc<dyn Runtime> = Arc::new(VirtualTime::default());
    for bad in [
        Options::new(),
        Options::new().with("remote-host", "h"),
        options().with("ping-timeout", "soon"),
        options().with("remote-port", "70000"),
        options().with("transport-type", "pigeon"),
    ] {
        let error = Client::new("c", &bad, time.clone(), Network::new().connector()).err().expect("refused");
        assert!(error.0.starts_with("c: "), "{error}");
    }
}

/// glusterd stays on TCP; only the brick is on the other transport.
#[test]
fn a_brick_is_reached_on_the_transport_of_its_volume() {
    use ladrillo_transport::{Kind, Via};
    for (list, kind, port) in [("rdma,tcp", Kind::Rdma, 49153), ("sdp", Kind::Sdp(Via::Smc), 49154)] {
        test(|time| async move {
            let world = World::new(&time, &options().with("transport-type", list).with("transport.sdp.via", "smc"));
            world.listen(glusterd());
            world.listen(kind.at("node1", port));
            world.client.start();
            world.wait_for("Up", 1).await;
            world.submit(stat()).await.unwrap();
        });
    }
}

#[test]
fn it_connects_as_stock_clients_do_and_carries_fops() {
    test(|time| async move {
        let world = World::connected(&time).await;
        {
            let brick = world.brick.borrow();
            let said = &brick.sessions[0];
            assert_eq!(said.int("fops-version"), Some(1298437));
            assert_eq!(said.text("remote-subvolume"), Some("/bricks/b1"));
            assert_eq!((said.text("username"), said.text("volfile-key")), (Some("u"), Some("/gv0")));
            let identity = said.text("process-uuid").unwrap();
            assert!(identity.starts_with("CTX_ID:") && identity.ends_with("-PC_NAME:gv0-client-3-RECON_NO:-0"));
        }
        assert!(matches!(world.submit(stat()).await, Ok(Reply::Iatt { .. })));
        let entry = Entry { parent: Gfid::ROOT, name: "gone".into() };
        let error = world.submit(Fop::Unlink { entry, flags: 0, xdata: Dict::new() }).await.unwrap_err();
        assert_eq!(error.errno, errno::ENOENT);
        let entry = Entry { parent: Gfid::ROOT, name: "a/b".into() };
        let error = world.submit(Fop::Unlink { entry, flags: 0, xdata: Dict::new() }).await.unwrap_err();
        assert_eq!(error.errno, errno::EINVAL);
    });
}

#[test]
fn a_lookup_that_finds_another_inode_is_stale() {
    test(|time| async move {
        let world = World::connected(&time).await;
        let lookup = |gfid| {
            let entry = Some(Entry { parent: Gfid::ROOT, name: "f".into() });
            world.submit(Fop::Lookup { gfid, entry, xdata: Dict::new() })
        };
        assert!(lookup(Gfid::NULL).await.is_ok() && lookup(GFID).await.is_ok());
        let error = lookup(Gfid([1; 16])).await.unwrap_err();
        assert_eq!(error.errno, errno::ESTALE);
        assert_eq!(error.xdata.expect("the reason").int("gfid-changed"), Some(1));
    });
}

#[test]
fn without_a_brick_it_says_so_and_goes_on_trying() {
    test(|time| async move {
        let world = World::new(&time, &options());
        assert_eq!(world.submit(stat()).await.unwrap_err().errno, errno::ENOTCONN);
        world.client.start();
        world.wait_for("Connecting", 1).await;
        time.sleep(Duration::from_secs(20)).await;
        world.listen(glusterd());
        world.listen(brick_address());
        let before = time.now();
        world.wait_for("Up", 1).await;
        assert!(time.now() - before <= Duration::from_secs(4), "tried again within the longest pause");
        assert_eq!(*world.parent.events.lock(), ["Connecting", "Up"]);
    });
}

#[test]
fn a_cut_link_fails_what_is_under_way_at_once_and_is_mended() {
    test(|time| async move {
        let world = World::connected(&time).await;
        world.brick.borrow_mut().silent = Some(FopKind::Stat);
        let cut = async {
            time.sleep(Duration::from_millis(50)).await;
            world.network.cut(&brick_address());
            time.now()
        };
        let (result, cut_at) = futures::join!(world.submit(stat()), cut);
        assert_eq!(result.unwrap_err().errno, errno::ENOTCONN);
        assert_eq!(time.now(), cut_at, "at once");
        assert_eq!(world.submit(stat()).await.unwrap_err().errno, errno::ENOTCONN);
        world.brick.borrow_mut().silent = None;
        world.wait_for("Up", 2).await;
        assert!(time.now() - cut_at < Duration::from_millis(500), "mended after {:?}", time.now() - cut_at);
        assert!(world.submit(stat()).await.is_ok());
        assert_eq!(*world.parent.events.lock(), ["Up", "Down", "Up"]);
        let brick = world.brick.borrow();
        assert_ne!(brick.sessions[0].text("process-uuid"), brick.sessions[1].text("process-uuid"));
    });
}

#[test]
fn the_brick_is_found_again_while_glusterd_is_dead() {
    test(|time| async move {
        let world = World::connected_once(&time).await;
        world.network.cut(&brick_address());
        world.wait_for("Up", 2).await;
    });
}

#[test]
fn descriptors_survive_a_reconnect() {
    test(|time| async move {
        let world = World::connected(&time).await;
        world.brick.borrow_mut().last_fd = 40;
        world.open(7, libc::O_RDWR | libc::O_TRUNC).await.unwrap();
        world.submit(Fop::Opendir { gfid: Gfid::ROOT, fd: FdId(8), xdata: Dict::new() }).await.unwrap();
        let entry = Entry { parent: Gfid::ROOT, name: "new".into() };
        let (flags, xdata) = ((libc::O_CREAT | libc::O_EXCL | libc::O_RDWR) as u32, Dict::new());
        world.submit(Fop::Create { entry, flags, mode: 0o644, umask: 0, fd: FdId(9), xdata }).await.unwrap();
        world.write(Some(7)).await.unwrap();
        assert_eq!(world.last_fd(), Some(FdId(41)));

        world.network.cut(&brick_address());
        world.brick.borrow_mut().fops.clear();
        world.wait_for("Up", 2).await;
        let opens = world.brick.borrow().fops.clone();
        assert_eq!(opens.len(), 3, "all were opened again before Up: {opens:?}");
        for open in &opens {
            if let Fop::Open { flags, .. } = open {
                assert_eq!(*flags, libc::O_RDWR as u32, "without O_TRUNC, O_CREAT, O_EXCL");
            }
        }
        world.write(Some(7)).await.unwrap();
        let Some(FdId(number)) = world.last_fd() else { panic!("not anonymous") };
        assert!(number > 43);

        for fd in [7, 8, 9] {
            world.submit(Fop::Release { file: File { gfid: GFID, fd: Some(FdId(fd)) } }).await.unwrap();
        }
        assert!(world.brick.borrow().open.is_empty(), "all released on the brick");
        assert_eq!(world.client.open_files(), 0);
    });
}

#[test]
fn what_is_released_while_others_are_opened_again_is_closed_on_the_brick() {
    test(|time| async move {
        let world = World::connected(&time).await;
        world.open(7, libc::O_RDWR).await.unwrap();
        world.submit(Fop::Opendir { gfid: Gfid::ROOT, fd: FdId(8), xdata: Dict::new() }).await.unwrap();
        world.brick.borrow_mut().silent = Some(FopKind::Opendir);
        world.network.cut(&brick_address());
        while world.brick.borrow().open.len() != 1 {
            time.sleep(Duration::from_millis(10)).await;
        }
        time.sleep(Duration::from_millis(100)).await;
        let ups = || world.parent.events.lock().iter().filter(|event| event.starts_with("Up")).count();
        assert_eq!(ups(), 1, "the directory is still being opened");
        world.submit(Fop::Release { file: File { gfid: GFID, fd: Some(FdId(7)) } }).await.unwrap();
        while ups() < 2 {
            time.sleep(Duration::from_secs(10)).await;
        }
        time.sleep(Duration::from_secs(1)).await;
        assert!(world.brick.borrow().open.is_empty(), "released on the brick");
        assert_eq!(world.client.open_files(), 1);
    });
}

#[test]
fn what_cannot_be_opened_again_goes_anonymously_or_says_so() {
    test(|time| async move {
        let world = World::connected(&time).await;
        world.open(1, libc::O_RDWR).await.unwrap();
        world.open(2, libc::O_RDWR | libc::O_APPEND).await.unwrap();
        world.network.cut(&brick_address());
        world.brick.borrow_mut().refuse_open = Some(errno::EIO);
        world.wait_for("Up", 2).await;
        world.write(Some(1)).await.unwrap();
        assert_eq!(world.last_fd(), None, "anonymous");
        assert_eq!(world.write(Some(2)).await.unwrap_err().errno, errno::EBADFD, "O_APPEND forbids it");
        let flush = Fop::Flush { file: File { gfid: GFID, fd: Some(FdId(1)) }, xdata: Dict::new() };
        assert_eq!(world.submit(flush.clone()).await.unwrap_err().errno, errno::EBADFD);
        // Unknown here: opened while the brick was away.
        world.write(Some(77)).await.unwrap();
        assert_eq!(world.last_fd(), None);

        world.brick.borrow_mut().refuse_open = None;
        time.sleep(Duration::from_secs(2)).await;
        let _ = world.submit(flush.clone()).await;
        time.sleep(Duration::from_millis(1)).await;
        assert!(world.submit(flush).await.is_ok(), "opened again by its use");
        assert!(world.last_fd().is_some());
    });
}

#[test]
fn an_abandoned_open_leaks_no_descriptor() {
    test(|time| async move {
        let world = World::connected(&time).await;
        {
            let mut open = world
                .client
                .submit(&world.context, Fop::Open { gfid: GFID, flags: 0, fd: FdId(5), xdata: Dict::new() });
            assert!(futures::poll!(&mut open).is_pending());
        }
        time.sleep(Duration::from_millis(10)).await;
        let brick = world.brick.borrow();
        assert_eq!(brick.fops.iter().map(Fop::kind).collect::<Vec<_>>(), [FopKind::Open, FopKind::Release]);
        assert!(brick.open.is_empty());
    });
}

#[test]
fn a_hung_brick_is_given_up_after_ping_timeout() {
    test(|time| async move {
        let world = World::connected(&time).await;
        time.sleep(Duration::from_secs(300)).await;
        assert!(world.brick.borrow().pings > 5, "an idle brick is asked for signs of life");
        assert_eq!(*world.parent.events.lock(), ["Up"]);
        world.brick.borrow_mut().hung = true;
        let before = time.now();
        assert_eq!(world.submit(stat()).await.unwrap_err().errno, errno::ENOTCONN);
        let after = time.now() - before;
        assert!(after > Duration::from_secs(15) && after <= Duration::from_secs(43), "{after:?}");
        assert_eq!(*world.parent.events.lock(), ["Up", "Down"]);
    });
}

#[test]
fn calls_have_a_deadline_and_lock_waits_have_none() {
    test(|time| async move {
        let world = World::connected(&time).await;
        world.brick.borrow_mut().silent = Some(FopKind::Stat);
        let before = time.now();
        assert_eq!(world.submit(stat()).await.unwrap_err().errno, errno::ETIMEDOUT);
        assert_eq!((time.now() - before).as_secs(), 1800);
        world.brick.borrow_mut().silent = Some(FopKind::Inodelk);
        let flock = ladrillo_translator::fop::Flock {
            kind: ladrillo_translator::fop::LockType::Write,
            whence: 0,
            start: 0,
            len: 0,
            pid: 0,
            owner: Default::default(),
        };
        let (cmd, domain, xdata) = (LockCmd::SetWait, "d".into(), Dict::new());
        let mut wait = world.client.submit(&world.context, Fop::Inodelk { gfid: GFID, domain, cmd, flock, xdata });
        let late = select(&mut wait, time.sleep(Duration::from_secs(4000))).await;
        assert!(matches!(late, Either::Right(_)), "still waiting");
    });
}

#[test]
fn callbacks_become_events() {
    test(|time| async move {
        let world = World::connected(&time).await;
        let callback = Callback::EntrylkContention {
            gfid: GFID,
            kind: 1,
            pid: 5,
            name: Some("n".into()),
            domain: "gv0-replicate-0".into(),
            xdata: Dict::new(),
        };
        let (procedure, body) = callback.encode().unwrap();
        let (program, version) = (ladrillo_transport::program::callback::PROGRAM, 1);
        let call = rpc::encode_call(1, program, version, procedure, &Credential::None, body).unwrap();
        let connection = world.brick.borrow().connections.last().cloned().unwrap();
        connection.send(call).await.unwrap();
        // One that does not decode is ignored.
        let broken = Message { header: Bytes::from_static(b"x"), ..Message::default() };
        let call = rpc::encode_call(2, program, version, procedure, &Credential::None, broken).unwrap();
        connection.send(call).await.unwrap();
        world.wait_for("EntrylkContention", 1).await;
        assert!(world.submit(stat()).await.is_ok());
    });
}

#[test]
fn garbage_ends_the_session_not_the_client() {
    test(|time| async move {
        let world = World::connected(&time).await;
        let connection = world.brick.borrow().connections.last().cloned().unwrap();
        let garbage = Message { header: Bytes::from_static(&[0xff; 64]), ..Message::default() };
        connection.send(garbage).await.unwrap();
        world.wait_for("Up", 2).await;
        assert!(world.submit(stat()).await.is_ok());
    });
}

#[test]
fn another_volumes_brick_is_refused() {
    test(|time| async move {
        let world = World::connected(&time).await;
        world.brick.borrow_mut().volume_id = "v2";
        world.network.cut(&brick_address());
        time.sleep(Duration::from_secs(30)).await;
        assert_eq!(*world.parent.events.lock(), ["Up", "Down"]);
        world.brick.borrow_mut().volume_id = "v1";
        world.wait_for("Up", 2).await;
    });
}

#[test]
fn stop_ends_everything() {
    test(|time| async move {
        let world = World::connected(&time).await;
        world.brick.borrow_mut().silent = Some(FopKind::Stat);
        let stop = async {
            time.sleep(Duration::from_millis(5)).await;
            world.client.stop();
        };
        let (result, ()) = futures::join!(world.submit(stat()), stop);
        assert_eq!(result.unwrap_err().errno, errno::ENOTCONN);
        let connected = world.network.connected();
        time.sleep(Duration::from_secs(60)).await;
        assert_eq!(world.network.connected(), connected, "no more attempts");
        assert!(!world.client.is_connected());
    });
}

fn lock(fd: u64, kind: LockType, start: u64, len: u64) -> Fop {
    let owner = ladrillo_translator::LockOwner::from_u64(9);
    let flock = Flock { kind, whence: 0, start, len, pid: 3, owner };
    Fop::Lk { file: File { gfid: GFID, fd: Some(FdId(fd)) }, cmd: LockCmd::Set, flock, xdata: Dict::new() }
}

/// What locks the brick was asked for from fop number `since` on: descriptor, first byte, length.
fn locks_asked(world: &World, since: usize) -> Vec<(Option<FdId>, u64, u64)> {
    let brick = world.brick.borrow();
    let asked = brick.fops.iter().skip(since).filter_map(|fop| match fop {
        Fop::Lk { file, flock, .. } if flock.kind != LockType::Unlock => Some((file.fd, flock.start, flock.len)),
        _ => None,
    });
    let mut asked: Vec<_> = asked.collect();
    asked.sort();
    asked
}

#[test]
fn locks_are_taken_again_before_it_is_up() {
    test(|time| async move {
        let mut world = World::connected(&time).await;
        world.context = world.context.with_lock_owner(ladrillo_translator::LockOwner::from_u64(9));
        world.open(1, libc::O_RDWR).await.unwrap();
        world.open(2, libc::O_RDWR).await.unwrap();
        world.submit(lock(1, LockType::Write, 0, 100)).await.unwrap();
        world.submit(lock(1, LockType::Unlock, 10, 10)).await.unwrap();
        world.submit(lock(2, LockType::Read, 200, 0)).await.unwrap();
        world.brick.borrow_mut().refuse_lock = 2;
        let since = world.brick.borrow().fops.len();
        world.brick.borrow().connections.last().unwrap().close();
        world.wait_for("Down", 1).await;
        // Given up without a brick to tell, with what the same owner has behind it.
        assert_eq!(world.submit(lock(1, LockType::Unlock, 90, 0)).await.unwrap_err().errno, errno::ENOTCONN);
        world.wait_for("Up", 2).await;
        assert!(!locks_asked(&world, since).is_empty());
        // Somebody else had two of them for a while.
        time.sleep(Duration::from_secs(5)).await;
        let mut asked = locks_asked(&world, since);
        asked.dedup();
        let ranges: std::collections::BTreeSet<_> = asked.iter().map(|(_, start, len)| (*start, *len)).collect();
        assert_eq!(Vec::from_iter(ranges), [(0, 10), (20, 70)]);
        assert!(asked.iter().all(|(fd, ..)| fd.is_some_and(|fd| world.brick.borrow().open.contains_key(&fd.0))));
        // What is closed is not locked again.
        world.submit(Fop::Flush { file: File { gfid: GFID, fd: Some(FdId(1)) }, xdata: Dict::new() }).await.unwrap();
        world.submit(lock(2, LockType::Read, 300, 5)).await.unwrap();
        world.submit(Fop::Release { file: File { gfid: GFID, fd: Some(FdId(2)) } }).await.unwrap();
        let since = world.brick.borrow().fops.len();
        world.brick.borrow().connections.last().unwrap().close();
        world.wait_for("Up", 3).await;
        time.sleep(Duration::from_secs(5)).await;
        assert_eq!(locks_asked(&world, since), []);
    });
}

#[test]
fn with_strict_locks_a_file_whose_locks_are_lost_is_bad() {
    test(|time| async move {
        let mut world = World::new(&time, &options().with("strict-locks", "on"));
        world.context = world.context.with_lock_owner(ladrillo_translator::LockOwner::from_u64(9));
        world.listen(glusterd());
        world.listen(brick_address());
        world.client.start();
        world.wait_for("Up", 1).await;
        world.open(1, libc::O_RDWR).await.unwrap();
        world.open(2, libc::O_RDWR).await.unwrap();
        world.submit(lock(1, LockType::Write, 0, 0)).await.unwrap();
        world.brick.borrow().connections.last().unwrap().close();
        world.wait_for("Up", 2).await;
        assert_eq!(world.write(Some(1)).await.unwrap_err().errno, errno::EBADFD);
        world.write(Some(2)).await.unwrap();
        world.submit(Fop::Release { file: File { gfid: GFID, fd: Some(FdId(1)) } }).await.unwrap();
        assert_eq!(world.client.open_files(), 1);
    });
}

#[test]
fn a_lock_that_another_graph_has_now_is_forgotten_and_the_brick_is_not_told() {
    test(|time| async move {
        let mut world = World::connected(&time).await;
        world.context = world.context.with_lock_owner(ladrillo_translator::LockOwner::from_u64(9));
        world.open(1, libc::O_RDWR).await.unwrap();
        world.submit(lock(1, LockType::Write, 0, 0)).await.unwrap();
        let since = world.brick.borrow().fops.len();
        let mut forget = lock(1, LockType::Unlock, 0, 0);
        forget.xdata_mut().unwrap().set_int(crate::translators::held::HANDED_OVER, 1);
        world.submit(forget).await.unwrap();
        assert_eq!(world.brick.borrow().fops.len(), since);
        world.brick.borrow().connections.last().unwrap().close();
        world.wait_for("Up", 2).await;
        assert_eq!(locks_asked(&world, since), []);
    });
}

#[test]
fn a_lock_is_taken_again_once_its_file_can_be_opened_again() {
    test(|time| async move {
        let mut world = World::connected(&time).await;
        world.context = world.context.with_lock_owner(ladrillo_translator::LockOwner::from_u64(9));
        world.open(1, libc::O_RDWR).await.unwrap();
        world.submit(lock(1, LockType::Write, 0, 0)).await.unwrap();
        let since = world.brick.borrow().fops.len();
        world.brick.borrow_mut().refuse_open = Some(errno::EIO);
        world.brick.borrow().connections.last().unwrap().close();
        world.wait_for("Up", 2).await;
        time.sleep(Duration::from_secs(3)).await;
        assert_eq!(locks_asked(&world, since), []);
        world.brick.borrow_mut().refuse_open = None;
        time.sleep(Duration::from_secs(20)).await;
        assert_eq!(locks_asked(&world, since).len(), 1, "nobody has used the file meanwhile");
    });
}

#[test]
fn the_client_of_a_new_graph_finds_the_brick_while_glusterd_is_dead() {
    test(|time| async move {
        let world = World::connected_once(&time).await;
        let new = |name| Client::new(name, &options(), Arc::new(time.clone()), world.network.connector()).unwrap();
        let (heir, stranger) = (new("heir"), new("stranger"));
        heir.inherit(&world.client);
        heir.start();
        stranger.start();
        time.sleep(Duration::from_secs(10)).await;
        assert_eq!((heir.is_connected(), stranger.is_connected()), (true, false));
    });
}

#[test]
fn steps_go_in_one_record_where_the_brick_speaks_our_program() {
    for extended in [true, false] {
        let time = VirtualTime::default();
        let inner = time.clone();
        run(&time, async move {
            let world = World::new(&inner, &options());
            world.brick.borrow_mut().extended = extended;
            world.listen(glusterd());
            world.listen(brick_address());
            world.client.start();
            world.wait_for("Up", 1).await;
            let (context, xdata) = (&world.context, Dict::new());
            let entry = |name: &str| Entry { parent: Gfid::ROOT, name: Bytes::copy_from_slice(name.as_bytes()) };
            let create =
                Fop::Create { entry: entry("a"), flags: 2, mode: 0o644, umask: 0, fd: FdId(77), xdata: xdata.clone() };
            let unlink = Fop::Unlink { entry: entry("b"), flags: 0, xdata: xdata.clone() };
            let stat = Fop::Stat { gfid: GFID, xdata: xdata.clone() };
            let steps = vec![
                Step::new(context, create),
                Step::then(context, unlink),
                Step::then(context, stat.clone()),
                Step::new(&Context { uid: 5, ..context.clone() }, stat.clone()),
            ];
            let results = world.client.submit_steps(steps).await;
            let errnos: Vec<_> = results.iter().map(|r| r.as_ref().err().map(|e| e.errno)).collect();
            assert_eq!(errnos, [None, Some(errno::ENOENT), Some(errno::ECANCELED), None]);
            assert_eq!(world.brick.borrow().together, usize::from(extended));
            assert_eq!(world.brick.borrow().fops.len(), 3);
            // What the first opened is open, under the caller's number.
            let file = File { gfid: GFID, fd: Some(FdId(77)) };
            let fstat = Fop::Fstat { file, xdata: xdata.clone() };
            let results = world
                .client
                .submit_steps(vec![Step::new(context, fstat.clone()), Step::new(context, stat.clone())])
                .await;
            assert!(results.iter().all(Result::is_ok));
            assert_eq!(world.brick.borrow().together, 2 * usize::from(extended));
            assert!(matches!(world.brick.borrow().fops[3], Fop::Fstat { file: File { fd: Some(FdId(1)), .. }, .. }));
            // One that cannot be sent, or whose file is not open there, fails alone.
            let long = Fop::Unlink { entry: entry(&"x".repeat(300)), flags: 0, xdata: xdata.clone() };
            let unknown =
                Fop::Readdir { file: File { gfid: GFID, fd: Some(FdId(5)) }, offset: 0, size_bytes: 1, xdata };
            for (bad, errno) in [(long, errno::ENAMETOOLONG), (unknown, errno::EBADFD)] {
                let steps =
                    vec![Step::new(context, fstat.clone()), Step::new(context, bad), Step::new(context, stat.clone())];
                let results = world.client.submit_steps(steps).await;
                let errnos: Vec<_> = results.iter().map(|r| r.as_ref().err().map(|e| e.errno)).collect();
                assert_eq!(errnos, [None, Some(errno), None]);
            }
            // What is closed is closed on the brick in the same message; what is not open there needs no message.
            let before = world.brick.borrow().together;
            let open = world.brick.borrow().open.len();
            let nowhere = Fop::Release { file: File { gfid: GFID, fd: Some(FdId(5)) } };
            let steps = vec![
                Step::new(context, Fop::Release { file }),
                Step::new(context, nowhere),
                Step::new(context, stat.clone()),
            ];
            let results = world.client.submit_steps(steps).await;
            assert!(results.len() == 3 && results.iter().all(Result::is_ok));
            assert_eq!(world.brick.borrow().open.len(), open - 1);
            assert_eq!(world.brick.borrow().together, before + usize::from(extended));
            assert_eq!(world.client.open_files(), 0);
            // Without a connection each has its answer.
            world.client.stop();
            let results =
                world.client.submit_steps(vec![Step::new(context, stat.clone()), Step::then(context, stat)]).await;
            assert!(results.iter().all(Result::is_err) && results.len() == 2);
        });
    }
}
