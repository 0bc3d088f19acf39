//! Changing graphs over bricks in memory.

use std::future::Future;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Either, select};
use ladrillo_translator::error::errno::EIO;
use ladrillo_translator::fop::{Entry, Flock};
use ladrillo_translator::locks::Locks;
use ladrillo_translator::memory::Memory;
use ladrillo_translator::{ClientId, Dict, LockOwner, Payload, Timespec};

use super::*;
use crate::translators::replicate::tests::bench::{Clockwork, pass, run};

/// A graph: a client session of the brick.
struct Session {
    brick: Arc<Locks>,
    client: ClientId,
    /// The brick's numbers for open files begin here, as each connection has its own.
    base: u64,
    /// Fops, by name of their kind.
    log: Mutex<Vec<String>>,
    /// Fops of this kind fail.
    refuse: Mutex<Option<(&'static str, i32)>>,
}

impl Translator for Session {
    fn name(&self) -> &str {
        "session"
    }

    fn submit<'a>(&'a self, context: &'a Context, mut fop: Fop) -> FopFuture<'a> {
        self.log.lock().push(fop.kind().name());
        if let Some((kind, errno)) = *self.refuse.lock()
            && fop.kind().name() == kind
        {
            return Box::pin(std::future::ready(Err(FopError::new(errno, "refused"))));
        }
        for file in fop.files_mut().into_iter().flatten() {
            file.fd = file.fd.map(|fd| FdId(fd.0 + self.base));
        }
        if let Some(fd) = fop.opens_mut() {
            fd.0 += self.base;
        }
        if fop.xdata().is_some_and(|xdata| xdata.contains(HANDED_OVER)) {
            // As protocol/client: not the brick's business.
            self.log.lock().push(HANDED_OVER.to_owned());
            return Box::pin(std::future::ready(Ok(Reply::done())));
        }
        Box::pin(async move { self.brick.submit(&context.with_client(self.client), fop).await })
    }

    fn set_parent(&self, _parent: Weak<dyn Parent>, _child_index: usize) {}
}

impl Session {
    fn count(&self, kind: &str) -> usize {
        self.log.lock().iter().filter(|seen| *seen == kind).count()
    }
}

struct World {
    disk: Arc<Memory>,
    brick: Arc<Locks>,
    switch: Arc<Switch>,
    first: Arc<Session>,
}

fn world() -> World {
    let runtime: Arc<dyn Runtime> = Arc::new(Clockwork::default());
    let disk = Memory::new("disk", runtime.clone());
    let brick = Locks::new("locks", disk.clone(), &Default::default(), runtime.clone()).unwrap();
    let first = Arc::new(Session {
        brick: brick.clone(),
        client: ClientId(1),
        base: 0,
        log: Mutex::default(),
        refuse: Mutex::default(),
    });
    let switch = Switch::new("switch", first.clone(), runtime);
    World { disk, brick, switch, first }
}

impl World {
    fn graph(&self, client: u64) -> Arc<Session> {
        Arc::new(Session {
            brick: self.brick.clone(),
            client: ClientId(client),
            base: 1000,
            log: Mutex::default(),
            refuse: Mutex::default(),
        })
    }

    async fn ask(&self, fop: Fop) -> FopResult {
        self.switch.submit(&owner(1), fop).await
    }

    async fn create(&self, name: &str, fd: u64) -> File {
        let gfid = Gfid::random();
        let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
        let (flags, fd) = ((libc::O_RDWR | libc::O_CREAT | libc::O_EXCL) as u32, FdId(fd));
        self.ask(Fop::Create { entry: at(name), flags, mode: 0o644, umask: 0, fd, xdata }).await.unwrap();
        File { gfid, fd: Some(fd) }
    }

    fn held(&self) -> usize {
        self.brick.dump().iter().filter(|lock| lock.granted).count()
    }
}

fn at(name: &str) -> Entry {
    Entry { parent: Gfid::ROOT, name: Bytes::copy_from_slice(name.as_bytes()) }
}

fn owner(number: u64) -> Context {
    let birth = Timespec { seconds: 1, nanos: 0 };
    Context { birth, ..Context::root().with_lock_owner(LockOwner::from_u64(number)) }
}

fn lk(file: File, kind: LockType, cmd: LockCmd) -> Fop {
    let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 1, owner: LockOwner::default() };
    Fop::Lk { file, cmd, flock, xdata: Dict::new() }
}

fn write(file: File, offset: u64, data: &'static [u8]) -> Fop {
    let data = Payload::from_bytes(Bytes::from_static(data));
    Fop::Write { file, offset, data, flags: 0, xdata: Dict::new() }
}

async fn within(seconds: u64, future: impl Future<Output = ()>) -> bool {
    let patience = Box::pin(pass(Duration::from_secs(seconds)));
    matches!(select(Box::pin(future), patience).await, Either::Left(_))
}

#[test]
fn files_stay_open_and_locked_across_a_change() {
    // As one client for the brick, and as two.
    for client in [1, 2] {
        let world = world();
        run(async {
            let file = world.create("f", 7).await;
            world.ask(write(file, 0, b"before")).await.unwrap();
            world.ask(lk(file, LockType::Write, LockCmd::Set)).await.unwrap();
            let second = world.graph(client);
            let left = world.switch.switch(second.clone()).await;
            world.ask(write(file, 6, b" after")).await.unwrap();
            assert_eq!((world.first.count("WRITE"), second.count("WRITE")), (1, 1));
            assert_eq!(world.first.count(HANDED_OVER), usize::from(client == 1));
            assert!(within(10, left.done()).await, "nothing keeps the old graph");
            assert_eq!(world.switch.graphs(), 1);
            if client != 1 {
                world.brick.release_client(ClientId(1));
            }
            assert_eq!((world.held(), world.first.count("RELEASE")), (1, 1), "the lock has moved");
            let thief = Fop::Lk {
                file: File { gfid: file.gfid, fd: None },
                cmd: LockCmd::Set,
                flock: Flock { kind: LockType::Read, whence: 0, start: 5, len: 1, pid: 2, owner: LockOwner::default() },
                xdata: Dict::new(),
            };
            let error = world.brick.submit(&owner(9).with_client(ClientId(9)), thief).await.unwrap_err();
            assert_eq!(error.errno, EAGAIN);
            world.ask(Fop::Release { file }).await.unwrap();
            assert_eq!((world.held(), world.disk.open_count(), world.switch.open_files()), (0, 0, 0));
            let data = world.disk.snapshot().nodes.get(b"/f".as_slice()).map(|node| node.data.clone());
            assert_eq!(data, Some(Bytes::from_static(b"before after")));
        });
    }
}

#[test]
fn what_is_under_way_ends_where_it_began() {
    let world = world();
    run(async {
        let file = world.create("f", 7).await;
        let other = owner(9).with_client(ClientId(9));
        let theirs = File { gfid: file.gfid, fd: None };
        world.brick.submit(&other, lk(theirs, LockType::Write, LockCmd::Set)).await.unwrap();
        let me = owner(1);
        let mut wait = Box::pin(world.switch.submit(&me, lk(file, LockType::Write, LockCmd::SetWait)).fuse());
        assert!(!within(1, (&mut wait).map(|_| ())).await);
        let second = world.graph(1);
        let left = world.switch.switch(second.clone()).await;
        world.ask(write(file, 0, b"x")).await.unwrap();
        let mut done = Box::pin(left.done().fuse());
        assert!(!within(60, &mut done).await, "somebody waits on the old graph");
        world.brick.submit(&other, lk(theirs, LockType::Unlock, LockCmd::Set)).await.unwrap();
        assert!(within(5, wait.map(|granted| drop(granted.unwrap()))).await);
        assert!(within(60, done).await);
        assert_eq!((world.held(), second.count("LK")), (1, 1), "granted by the old graph, taken over by the new");
        world.ask(lk(file, LockType::Unlock, LockCmd::Set)).await.unwrap();
        assert_eq!(world.held(), 0);
    });
}

#[test]
fn a_listing_half_read_goes_on_where_it_began_and_a_new_one_does_not() {
    let world = world();
    run(async {
        for n in 0..10 {
            let file = world.create(&format!("f{n}"), 100 + n).await;
            world.ask(Fop::Release { file }).await.unwrap();
        }
        let fd = FdId(7);
        world.ask(Fop::Opendir { gfid: Gfid::ROOT, fd, xdata: Dict::new() }).await.unwrap();
        let file = File { gfid: Gfid::ROOT, fd: Some(fd) };
        let readdir = |offset| Fop::Readdir { file, offset, size_bytes: 200, xdata: Dict::new() };
        let Reply::Entries { entries, .. } = world.ask(readdir(0)).await.unwrap() else { panic!() };
        let offset = entries.last().unwrap().offset;
        let second = world.graph(1);
        let left = world.switch.switch(second.clone()).await;
        world.ask(readdir(offset)).await.unwrap();
        assert_eq!((world.first.count("READDIR"), second.count("READDIR")), (2, 0));
        let mut done = Box::pin(left.done().fuse());
        assert!(!within(10, &mut done).await);
        world.ask(readdir(0)).await.unwrap();
        assert_eq!(second.count("READDIR"), 1);
        assert!(within(10, done).await);
        world.ask(Fop::Releasedir { file }).await.unwrap();
        assert_eq!(world.disk.open_count(), 0);
    });
}

#[test]
fn a_file_the_new_graph_cannot_open_keeps_the_old_one_until_it_is_closed() {
    let world = world();
    run(async {
        let file = world.create("f", 7).await;
        // Another brick, which has no such file.
        let runtime: Arc<dyn Runtime> = Arc::new(Clockwork::default());
        let disk = Memory::new("other", runtime.clone());
        let brick = Locks::new("others", disk, &Default::default(), runtime).unwrap();
        let second = Arc::new(Session {
            brick,
            client: ClientId(1),
            base: 1000,
            log: Mutex::default(),
            refuse: Mutex::default(),
        });
        let left = world.switch.switch(second).await;
        world.ask(write(file, 0, b"kept")).await.unwrap();
        let mut done = Box::pin(left.done().fuse());
        assert!(!within(60, &mut done).await);
        assert_eq!(world.switch.graphs(), 2);
        world.ask(Fop::Release { file }).await.unwrap();
        assert!(within(10, done).await);
        assert_eq!((world.switch.graphs(), world.disk.open_count()), (1, 0));
    });
}

#[test]
fn what_the_old_graph_could_not_keep_is_reported_once() {
    // While it is being left, and after.
    for left_first in [false, true] {
        let world = world();
        run(async {
            let (file, untouched) = (world.create("f", 7).await, world.create("g", 8).await);
            let flush = |file| Fop::Flush { file, xdata: Dict::new() };
            let fsync = |file| Fop::Fsync { file, datasync: false, xdata: Dict::new() };
            world.ask(write(file, 0, b"x")).await.unwrap();
            // A flush waits for no disk: that it succeeds says nothing.
            world.ask(flush(file)).await.unwrap();
            world.ask(lk(file, LockType::Write, LockCmd::Set)).await.unwrap();
            world.ask(write(untouched, 0, b"x")).await.unwrap();
            world.ask(fsync(untouched)).await.unwrap();
            *world.first.refuse.lock() = Some((if left_first { "FSYNC" } else { "FLUSH" }, EIO));
            let left = world.switch.switch(world.graph(1)).await;
            if left_first {
                assert!(within(10, left.done()).await);
                assert_eq!(world.held(), 1, "nothing but what was written is settled");
                assert_eq!(world.ask(fsync(file)).await.unwrap_err().errno, EIO);
            } else {
                // Whoever closes the file hears of it, and takes it from nobody.
                assert_eq!(world.ask(flush(file)).await.unwrap_err().errno, EIO);
                assert_eq!(world.held(), 0, "the new graph was told all the same");
                assert_eq!(world.ask(fsync(file)).await.unwrap_err().errno, EIO);
            }
            world.ask(fsync(file)).await.unwrap();
            world.ask(flush(file)).await.unwrap();
            world.ask(flush(untouched)).await.unwrap();
        });
    }
}

#[test]
fn a_lock_that_the_new_graph_does_not_get_yet_keeps_the_old_one() {
    let world = world();
    run(async {
        let file = world.create("f", 7).await;
        world.ask(lk(file, LockType::Write, LockCmd::Set)).await.unwrap();
        let second = world.graph(1);
        *second.refuse.lock() = Some(("LK", EIO));
        let left = world.switch.switch(second.clone()).await;
        let mut done = Box::pin(left.done().fuse());
        assert!(!within(60, &mut done).await, "the lock is nowhere else");
        *second.refuse.lock() = None;
        assert!(within(10, done).await);
        assert_eq!((world.held(), world.first.count(HANDED_OVER)), (1, 1));
    });
}

#[test]
fn a_lock_that_the_new_graph_never_gets_does_not_keep_the_old_one_for_ever() {
    let world = world();
    run(async {
        let file = world.create("f", 7).await;
        world.ask(lk(file, LockType::Write, LockCmd::Set)).await.unwrap();
        let second = world.graph(1);
        *second.refuse.lock() = Some(("LK", EIO));
        let left = world.switch.switch(second).await;
        assert!(within(600, left.done()).await);
        assert_eq!(world.switch.graphs(), 1);
    });
}

#[test]
fn a_lock_left_behind_while_its_owner_asked_for_more_follows_at_once() {
    let world = world();
    run(async {
        let file = world.create("f", 7).await;
        world.ask(lk(file, LockType::Write, LockCmd::Set)).await.unwrap();
        let second = world.graph(1);
        *second.refuse.lock() = Some(("LK", EIO));
        let _left = world.switch.switch(second.clone()).await;
        *second.refuse.lock() = None;
        let more = Fop::Lk {
            file,
            cmd: LockCmd::Set,
            flock: Flock { kind: LockType::Read, whence: 0, start: 5, len: 1, pid: 1, owner: LockOwner::default() },
            xdata: Dict::new(),
        };
        world.ask(more).await.unwrap();
        assert_eq!(world.first.count(HANDED_OVER), 2, "what was left and right of it");
    });
}

#[test]
fn a_file_whose_strict_lock_somebody_else_got_at_the_change_is_bad() {
    for strict in [true, false] {
        let world = world();
        world.switch.set_strict_locks(strict);
        run(async {
            let file = world.create("f", 7).await;
            world.ask(lk(file, LockType::Write, LockCmd::Set)).await.unwrap();
            let (brick, gfid) = (world.brick.clone(), file.gfid);
            // Another client for the brick, and one that waits for the lock already.
            let thief = async move {
                let theirs = File { gfid, fd: None };
                let wait = lk(theirs, LockType::Write, LockCmd::SetWait);
                brick.submit(&owner(9).with_client(ClientId(9)), wait).await.unwrap();
            };
            let (_left, ()) = futures::join!(
                async {
                    pass(Duration::from_millis(10)).await;
                    world.switch.switch(world.graph(2)).await
                },
                thief
            );
            let written = world.ask(write(file, 0, b"x")).await.map_err(|error| error.errno);
            assert_eq!(written.err(), strict.then_some(EBADF));
            world.ask(Fop::Flush { file, xdata: Dict::new() }).await.unwrap();
            world.ask(Fop::Release { file }).await.unwrap();
            assert_eq!(world.disk.open_count(), 0);
        });
    }
}
