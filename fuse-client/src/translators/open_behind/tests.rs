//! Over a brick in memory: which opens, reads and releases reach it.

use bytes::Bytes;
use ladrillo_translator::error::errno::ENOENT;
use ladrillo_translator::fop::{Entry, Flock, LockType};
use ladrillo_translator::memory::Memory;
use ladrillo_translator::{Dict, FopError, Payload, Value};
use parking_lot::Mutex;

use super::*;
use crate::translators::replicate::tests::bench::{Clockwork, pass, run};

/// The brick, and what reached it.
struct Seen {
    brick: Arc<Memory>,
    log: Mutex<Vec<String>>,
    refuse_opens: AtomicBool,
}

impl Translator for Seen {
    fn name(&self) -> &str {
        "seen"
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let anonymous = if fop.files()[0].is_some_and(|file| file.fd.is_none()) { "-anonymous" } else { "" };
        self.log.lock().push(format!("{}{anonymous}", fop.kind().name()));
        if matches!(fop, Fop::Open { .. }) && self.refuse_opens.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(FopError::new(ENOENT, "refused"))));
        }
        self.brick.submit(context, fop)
    }

    fn set_parent(&self, _parent: Weak<dyn Parent>, _child_index: usize) {}
}

struct World {
    seen: Arc<Seen>,
    top: Arc<OpenBehind>,
    gfid: Gfid,
}

fn at(name: &str) -> Entry {
    Entry { parent: Gfid::ROOT, name: Bytes::copy_from_slice(name.as_bytes()) }
}

impl World {
    /// With a file f that says "contents".
    async fn new(options: Options) -> World {
        let runtime: Arc<dyn Runtime> = Arc::new(Clockwork::default());
        let brick = Memory::new("disk", runtime.clone());
        let seen = Arc::new(Seen { brick, log: Mutex::default(), refuse_opens: AtomicBool::new(false) });
        let top = OpenBehind::new("ob", seen.clone(), &options, runtime).unwrap();
        let gfid = Gfid::random();
        let world = World { seen, top, gfid };
        let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
        let flags = (libc::O_RDWR | libc::O_CREAT) as u32;
        world.ask(Fop::Create { entry: at("f"), flags, mode: 0o644, umask: 0, fd: FdId(1), xdata }).await.unwrap();
        let data = Payload::copy_from_slice(b"contents");
        let file = File { gfid, fd: Some(FdId(1)) };
        world.ask(Fop::Write { file, offset: 0, data, flags: 0, xdata: Dict::new() }).await.unwrap();
        world.ask(Fop::Release { file }).await.unwrap();
        world.seen.log.lock().clear();
        world
    }

    async fn ask(&self, fop: Fop) -> FopResult {
        self.top.submit(&Context::root(), fop).await
    }

    fn file(&self) -> File {
        File { gfid: self.gfid, fd: Some(FdId(2)) }
    }

    async fn open(&self, flags: i32) -> FopResult {
        self.ask(Fop::Open { gfid: self.gfid, flags: flags as u32, fd: FdId(2), xdata: Dict::new() }).await
    }

    async fn read(&self) -> Vec<u8> {
        let fop = Fop::Read { file: self.file(), offset: 0, size_bytes: 100, flags: 0, xdata: Dict::new() };
        match self.ask(fop).await {
            Ok(Reply::Read { data, .. }) => data.as_slice().to_vec(),
            other => panic!("{other:?}"),
        }
    }

    async fn close(&self) {
        self.ask(Fop::Flush { file: self.file(), xdata: Dict::new() }).await.unwrap();
        self.ask(Fop::Release { file: self.file() }).await.unwrap();
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.log.lock())
    }
}

#[test]
fn a_file_that_is_read_once_costs_one_message() {
    run(async {
        let world = World::new(Options::new()).await;
        world.open(libc::O_RDONLY).await.unwrap();
        assert_eq!(world.read().await, b"contents");
        world.ask(Fop::Fstat { file: world.file(), xdata: Dict::new() }).await.unwrap();
        world.close().await;
        assert_eq!(world.log(), ["READ-anonymous", "FSTAT-anonymous"]);
        assert_eq!((world.top.unopened.load(Ordering::Relaxed), world.top.files.len()), (0, 0));
        assert_eq!(world.seen.brick.open_count(), 0);
    });
}

#[test]
fn who_goes_on_reading_or_does_more_opens_it() {
    run(async {
        let world = World::new(Options::new()).await;
        world.open(libc::O_RDONLY).await.unwrap();
        for _ in 0..4 {
            world.read().await;
        }
        world.close().await;
        assert_eq!(world.log(), ["READ-anonymous", "READ-anonymous", "OPEN", "READ", "READ", "FLUSH", "RELEASE"]);
        world.open(libc::O_RDONLY).await.unwrap();
        world.ask(Fop::Fsync { file: world.file(), datasync: false, xdata: Dict::new() }).await.unwrap();
        world.close().await;
        assert_eq!(world.log(), ["OPEN", "FSYNC", "FLUSH", "RELEASE"]);
        assert_eq!(world.seen.brick.open_count(), 0);
    });
}

#[test]
fn writers_and_those_who_truncate_open_at_once() {
    run(async {
        let world = World::new(Options::new()).await;
        for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC, libc::O_RDONLY | libc::O_DIRECT] {
            world.open(flags).await.unwrap();
            assert_eq!(world.log(), ["OPEN"]);
            world.ask(Fop::Release { file: world.file() }).await.unwrap();
            world.log();
        }
    });
}

#[test]
fn what_is_open_outlives_its_last_name() {
    run(async {
        let world = World::new(Options::new()).await;
        world.open(libc::O_RDONLY).await.unwrap();
        world.ask(Fop::Unlink { entry: at("f"), flags: 0, xdata: Dict::new() }).await.unwrap();
        assert_eq!(world.read().await, b"contents");
        world.close().await;
        assert_eq!(world.log(), ["OPEN", "UNLINK", "READ", "FLUSH", "RELEASE"]);
    });
}

#[test]
fn after_a_second_it_is_open() {
    run(async {
        let world = World::new(Options::new()).await;
        world.open(libc::O_RDONLY).await.unwrap();
        pass(Duration::from_secs(2)).await;
        assert_eq!(world.log(), ["OPEN"]);
        world.close().await;
        assert_eq!(world.log(), ["FLUSH", "RELEASE"]);
        // The sweeper has ended, and comes back.
        pass(Duration::from_secs(2)).await;
        world.open(libc::O_RDONLY).await.unwrap();
        pass(Duration::from_secs(2)).await;
        assert_eq!(world.log(), ["OPEN"]);
        world.close().await;
    });
}

#[test]
fn an_open_that_fails_late_is_told_to_who_needs_it() {
    run(async {
        let world = World::new(Options::new()).await;
        world.seen.refuse_opens.store(true, Ordering::Relaxed);
        world.open(libc::O_RDONLY).await.unwrap();
        let fsync = || Fop::Fsync { file: world.file(), datasync: false, xdata: Dict::new() };
        assert_eq!(world.ask(fsync()).await.unwrap_err().errno, ENOENT);
        world.seen.refuse_opens.store(false, Ordering::Relaxed);
        world.ask(fsync()).await.unwrap();
        world.close().await;
        assert_eq!(world.seen.brick.open_count(), 0);
    });
}

#[test]
fn a_close_gives_up_locks_taken_by_another_descriptor() {
    run(async {
        let world = World::new(Options::new()).await;
        let other = File { gfid: world.gfid, fd: Some(FdId(3)) };
        let flags = libc::O_RDWR as u32;
        world.ask(Fop::Open { gfid: world.gfid, flags, fd: FdId(3), xdata: Dict::new() }).await.unwrap();
        let flock = Flock { kind: LockType::Write, whence: 0, start: 0, len: 0, pid: 1, owner: Default::default() };
        let _ = world.ask(Fop::Lk { file: other, cmd: LockCmd::Set, flock, xdata: Dict::new() }).await;
        world.log();
        world.open(libc::O_RDONLY).await.unwrap();
        world.close().await;
        assert_eq!(world.log(), ["OPEN", "FLUSH", "RELEASE"]);
    });
}

#[test]
fn what_is_gone_is_not_opened_over_and_over() {
    run(async {
        let world = World::new(Options::new()).await;
        world.seen.refuse_opens.store(true, Ordering::Relaxed);
        world.open(libc::O_RDONLY).await.unwrap();
        pass(Duration::from_secs(10)).await;
        assert_eq!(world.log(), ["OPEN"]);
        world.close().await;
    });
}

#[test]
fn options_turn_it_off() {
    run(async {
        for option in ["lazy-open", "pass-through"] {
            let value = if option == "lazy-open" { "no" } else { "on" };
            let world = World::new(Options::new().with(option, value)).await;
            world.open(libc::O_RDONLY).await.unwrap();
            assert_eq!(world.log(), ["OPEN"], "{option}");
        }
        let world = World::new(Options::new().with("read-after-open", "on")).await;
        world.open(libc::O_RDONLY).await.unwrap();
        world.read().await;
        assert_eq!(world.log(), ["OPEN", "READ"]);
    });
}
