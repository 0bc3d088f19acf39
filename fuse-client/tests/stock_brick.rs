//! `protocol/client` against a brick of GlusterFS 10 (`glusterfsd`, where it is installed): every procedure on the
//! real wire. Needs root (bricks keep `trusted.*` xattrs); says so and does nothing elsewhere.
//!
//! `BRICK_PROGRAM=path cargo test --test stock_brick -- --test-threads 1` asks another program the same, over TCP port
//! 49152 of 127.0.0.1: use a network namespace of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ladrillo_fuse_client::executor::{Executor, RingRuntime, TcpConnector, sleep};
use ladrillo_fuse_client::translators::client::Client;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{DirEntry, Entry, EntrylkCmd, File, Flock, LockCmd, LockType, SeekWhat, XattropKind};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{
    Context, Dict, Event, FdId, FileType, Fop, FopResult, Gfid, Iatt, LockOwner, Options, Parent, Payload, Reply,
    Timespec, Translator, Value,
};

const GLUSTERFSD: &str = "/usr/sbin/glusterfsd";
const TCP_PORT: u16 = 49152;

/// The brick program to try instead of the stock one.
fn other_program() -> Option<PathBuf> {
    std::env::var_os("BRICK_PROGRAM").map(PathBuf::from)
}

/// A stock brick on a unix socket in a directory of its own; gone with this.
struct StockBrick {
    directory: PathBuf,
    process: Option<Child>,
}

impl StockBrick {
    fn new(name: &str) -> Option<StockBrick> {
        let root = rustix::process::geteuid().is_root();
        if !root || (other_program().is_none() && !Path::new(GLUSTERFSD).exists()) {
            eprintln!("skipped: needs root and {GLUSTERFSD}");
            return None;
        }
        let directory = std::env::temp_dir().join(format!("ladrillo-{name}-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("brick/.glusterfs/indices")).unwrap();
        let brick = StockBrick { directory, process: None };
        std::fs::write(brick.path("brick.vol"), brick.volfile()).unwrap();
        Some(brick)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn volfile(&self) -> String {
        let (store, socket) = (self.path("brick"), self.path("brick.socket"));
        let transport = match other_program() {
            Some(_) => format!("option transport-type tcp\n option transport.socket.listen-port {TCP_PORT}\n"),
            None => format!("option transport-type unix\n option transport.socket.listen-path {}\n", socket.display()),
        };
        format!(
            "volume b-posix\n type storage/posix\n option directory {store}\nend-volume\n\
             volume b-locks\n type features/locks\n option notify-contention yes\n option notify-contention-delay 0\n \
             subvolumes b-posix\nend-volume\n\
             volume b-index\n type features/index\n option index-base {store}/.glusterfs/indices\n \
             option xattrop64-watchlist trusted.afr.dirty\n subvolumes b-locks\nend-volume\n\
             volume /brick\n type debug/io-stats\n subvolumes b-index\nend-volume\n\
             volume b-server\n type protocol/server\n {transport} option auth.addr./brick.allow *\n \
             option auth-path /brick\n subvolumes /brick\nend-volume\n",
            store = store.display(),
        )
    }

    fn start(&mut self) {
        let socket = self.path("brick.socket");
        let _ = std::fs::remove_file(&socket);
        let child = Command::new(other_program().unwrap_or_else(|| GLUSTERFSD.into()))
            .arg("-N")
            .arg("-f")
            .arg(self.path("brick.vol"))
            .arg("-l")
            .arg(self.path("brick.log"))
            .args(["-L", "INFO"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(child);
        let start = Instant::now();
        let listens = || match other_program() {
            Some(_) => std::net::TcpStream::connect(("127.0.0.1", TCP_PORT)).is_ok(),
            None => socket.exists(),
        };
        while !listens() {
            assert!(start.elapsed() < Duration::from_secs(20), "glusterfsd did not come up:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("brick.log")).unwrap_or_default()
    }
}

impl Drop for StockBrick {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("log of the brick:\n{}", self.log());
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[derive(Default)]
struct Listening {
    events: parking_lot::Mutex<Vec<Event>>,
}

impl Parent for Listening {
    fn child_event(&self, _child_index: usize, event: Event) {
        self.events.lock().push(event);
    }
}

impl Listening {
    /// Waits for `count` events that `matches` says are meant.
    async fn wait(&self, count: usize, matches: impl Fn(&Event) -> bool) {
        for _ in 0..1000 {
            if self.events.lock().iter().filter(|event| matches(event)).count() >= count {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("not within 20 s; events so far: {:?}", self.events.lock());
    }
}

struct Peer {
    client: Arc<Client>,
    events: Arc<Listening>,
    context: Context,
}

impl Peer {
    async fn connect(brick: &StockBrick, owner: u64) -> Peer {
        let options = match other_program() {
            Some(_) => Options::new().with("remote-host", "127.0.0.1").with("remote-port", TCP_PORT.to_string()),
            None => Options::new()
                .with("transport-type", "unix")
                .with("transport.socket.connect-path", brick.path("brick.socket").display().to_string()),
        }
        .with("remote-subvolume", "/brick")
        .with("ping-timeout", "2")
        .with("process-name", "test");
        let client = Client::new("b-client-0", &options, Arc::new(RingRuntime::new()), Arc::new(TcpConnector)).unwrap();
        let events = Arc::new(Listening::default());
        let parent: Weak<dyn Parent> = Arc::downgrade(&(events.clone() as Arc<dyn Parent>));
        client.set_parent(parent, 0);
        client.start();
        events.wait(1, |event| matches!(event, Event::Up)).await;
        let context = Context { lock_owner: LockOwner::from_u64(owner), pid: 77, ..Context::root() };
        Peer { client, events, context }
    }

    async fn submit(&self, fop: Fop) -> FopResult {
        let kind = fop.kind();
        let result = self.client.submit(&self.context, fop).await;
        if let Err(error) = &result {
            eprintln!("{kind:?}: {error}");
        }
        result
    }

    async fn must(&self, fop: Fop) -> Reply {
        let kind = fop.kind();
        self.submit(fop).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"))
    }

    async fn errno(&self, fop: Fop) -> i32 {
        let kind = fop.kind();
        match self.submit(fop).await {
            Err(error) => error.errno,
            Ok(reply) => panic!("{kind:?} succeeded: {reply:?}"),
        }
    }

    async fn lookup(&self, name: &'static str) -> FopResult<Iatt> {
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(name)), xdata: Dict::new() };
        match self.client.submit(&self.context, fop).await? {
            Reply::Lookup { iatt, .. } => Ok(*iatt),
            other => panic!("{other:?}"),
        }
    }
}

fn entry(name: &'static str) -> Entry {
    Entry { parent: Gfid::ROOT, name: Bytes::from_static(name.as_bytes()) }
}

fn with_gfid(gfid: Gfid) -> Dict {
    Dict::new().with("gfid-req", Value::Gfid(gfid))
}

fn flock(kind: LockType) -> Flock {
    Flock { kind, whence: 0, start: 0, len: 100, pid: 77, owner: LockOwner::default() }
}

fn x() -> Dict {
    Dict::new()
}

#[test]
fn every_procedure_is_understood_by_a_stock_brick() {
    let Some(mut brick) = StockBrick::new("every-procedure") else { return };
    brick.start();
    let executor = Executor::new().unwrap();
    executor.block_on(async {
        let peer = Peer::connect(&brick, 1).await;
        entries(&peer).await;
        files(&peer).await;
        xattrs(&peer).await;
        locks(&brick, &peer).await;
        // Longer than ping-timeout: the brick answers PING.
        sleep(Duration::from_secs(3)).await;
        assert!(!peer.events.events.lock().iter().any(|event| matches!(event, Event::Down)), "PING unanswered");
        peer.client.stop();
    });
}

async fn entries(peer: &Peer) {
    let root = peer.must(Fop::Lookup { gfid: Gfid::ROOT, entry: None, xdata: x() }).await;
    let Reply::Lookup { iatt, .. } = root else { panic!("{root:?}") };
    assert!(iatt.is_dir() && iatt.gfid.is_root());
    assert_eq!(peer.lookup("missing").await.unwrap_err().errno, errno::ENOENT);

    let [dir, node, link, fifo] = [(); 4].map(|()| Gfid::random());
    let made = peer.must(Fop::Mkdir { entry: entry("dir"), mode: 0o750, umask: 0, xdata: with_gfid(dir) }).await;
    let Reply::Entry { iatt, parent, .. } = made else { panic!("{made:?}") };
    assert_eq!((iatt.gfid, iatt.permissions(), iatt.is_dir()), (dir, 0o750, true));
    assert!(parent.post.gfid.is_root());
    // device nodes and fifos
    let (mode, rdev) = (0o020600, 0x0105); // c 1 5
    peer.must(Fop::Mknod { entry: entry("zero"), mode, rdev, umask: 0, xdata: with_gfid(node) }).await;
    let iatt = peer.lookup("zero").await.unwrap();
    assert_eq!((iatt.file_type(), iatt.rdev), (Some(FileType::CharDevice), 0x0105));
    let mode = 0o010600;
    peer.must(Fop::Mknod { entry: entry("fifo"), mode, rdev: 0, umask: 0, xdata: with_gfid(fifo) }).await;
    let target = Bytes::from_static(b"dir/somewhere");
    let symlink = Fop::Symlink { entry: entry("link"), target: target.clone(), umask: 0, xdata: with_gfid(link) };
    peer.must(symlink.clone()).await;
    assert_eq!(peer.errno(symlink).await, errno::EEXIST);
    let read = peer.must(Fop::Readlink { gfid: link, size_bytes: 4096, xdata: x() }).await;
    assert!(matches!(&read, Reply::Readlink { target: t, .. } if *t == target), "{read:?}");
    let linked = peer.must(Fop::Link { gfid: fifo, entry: entry("fifo2"), xdata: x() }).await;
    assert!(matches!(&linked, Reply::Entry { iatt, .. } if iatt.gfid == fifo), "{linked:?}");
    let renamed = peer.must(Fop::Rename { from: entry("fifo2"), to: entry("fifo3"), xdata: x() }).await;
    assert!(matches!(&renamed, Reply::Rename { iatt, .. } if iatt.gfid == fifo), "{renamed:?}");
    peer.must(Fop::Unlink { entry: entry("fifo3"), flags: 0, xdata: x() }).await;

    let fd = FdId(100);
    peer.must(Fop::Opendir { gfid: Gfid::ROOT, fd, xdata: x() }).await;
    let directory = File { gfid: Gfid::ROOT, fd: Some(fd) };
    for plus in [false, true] {
        let mut seen: Vec<DirEntry> = Vec::new();
        loop {
            let (file, offset) = (directory, seen.last().map_or(0, |entry| entry.offset));
            let fop = match plus {
                false => Fop::Readdir { file, offset, size_bytes: 256, xdata: x() },
                true => Fop::Readdirp { file, offset, size_bytes: 1024, xdata: x() },
            };
            let Reply::Entries { entries, .. } = peer.must(fop).await else { panic!() };
            if entries.is_empty() {
                break;
            }
            seen.extend(entries);
        }
        let mut names: Vec<_> = seen.iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        assert_eq!(names, ["dir", "fifo", "link", "zero"]);
        let found = seen.iter().find(|e| e.name == "dir").unwrap();
        assert_eq!(found.iatt.as_ref().map(|iatt| iatt.gfid), plus.then_some(dir));
    }
    peer.must(Fop::Fsyncdir { file: directory, datasync: false, xdata: x() }).await;
    peer.must(Fop::Releasedir { file: directory }).await;
    peer.must(Fop::Rmdir { entry: entry("dir"), flags: 0, xdata: x() }).await;

    let Reply::Statfs { statfs, .. } = peer.must(Fop::Statfs { gfid: Gfid::ROOT, xdata: x() }).await else { panic!() };
    assert!(statfs.blocks > 0 && statfs.block_size_bytes >= 512 && statfs.name_max_bytes >= 255);
}

async fn files(peer: &Peer) {
    let (gfid, fd) = (Gfid::random(), FdId(200));
    let flags = (libc::O_CREAT | libc::O_EXCL | libc::O_RDWR) as u32;
    let create = Fop::Create { entry: entry("file"), flags, mode: 0o640, umask: 0o22, fd, xdata: with_gfid(gfid) };
    let created = peer.must(create).await;
    assert!(matches!(&created, Reply::Entry { iatt, .. } if iatt.gfid == gfid && iatt.is_regular()), "{created:?}");
    let file = File { gfid, fd: Some(fd) };
    let anonymous = File { gfid, fd: None };

    // Sizes that are no multiple of 4: data has no padding on the wire.
    let data: Bytes = (0..100_003u32).map(|n| n as u8).collect();
    for (file, offset) in [(file, 0), (anonymous, 100_003)] {
        let data = Payload::from_bytes(data.clone());
        let xdata = Dict::new().with("glusterfs.write-is-append", Value::Uint(0));
        let wrote = peer.must(Fop::Write { file, offset, data, flags: 0, xdata }).await;
        let Reply::PrePost { attrs, written, .. } = wrote else { panic!("{wrote:?}") };
        assert_eq!((written, attrs.post.size_bytes), (100_003, offset + 100_003));
    }
    for file in [file, anonymous] {
        let read = peer.must(Fop::Read { file, offset: 100_003, size_bytes: 131_072, flags: 0, xdata: x() }).await;
        assert!(matches!(&read, Reply::Read { data: d, .. } if *d.bytes() == data), "wrong data");
    }
    let read = peer.must(Fop::Read { file, offset: 1 << 30, size_bytes: 10, flags: 0, xdata: x() }).await;
    assert!(matches!(&read, Reply::Read { data, .. } if data.is_empty()));
    let sum = peer.must(Fop::Rchecksum { file, offset: 0, len: 4096, xdata: x() }).await;
    assert!(matches!(&sum, Reply::Rchecksum { strong, .. } if !strong.is_empty()), "{sum:?}");

    peer.must(Fop::Flush { file, xdata: x() }).await;
    peer.must(Fop::Fsync { file, datasync: true, xdata: x() }).await;
    let fstat = peer.must(Fop::Fstat { file, xdata: x() }).await;
    assert!(matches!(&fstat, Reply::Iatt { iatt, .. } if iatt.size_bytes == 200_006), "{fstat:?}");
    peer.must(Fop::Truncate { gfid, size_bytes: 150_000, xdata: x() }).await;
    peer.must(Fop::Ftruncate { file, size_bytes: 100_000, xdata: x() }).await;
    peer.must(Fop::Fallocate { file, flags: 0, offset: 0, len: 1 << 20, xdata: x() }).await;
    peer.must(Fop::Discard { file, offset: 4096, len: 4096, xdata: x() }).await;
    peer.must(Fop::Zerofill { file, offset: 8192, len: 4096, xdata: x() }).await;
    let seek = peer.must(Fop::Seek { file, offset: 0, what: SeekWhat::Hole, xdata: x() }).await;
    assert!(matches!(seek, Reply::Seek { offset: 4096, .. }), "{seek:?}");
    assert_eq!(peer.errno(Fop::Seek { file, offset: 1 << 40, what: SeekWhat::Data, xdata: x() }).await, errno::ENXIO);

    let (copy, copy_fd) = (Gfid::random(), FdId(201));
    let xdata = with_gfid(copy);
    peer.must(Fop::Create { entry: entry("copy"), flags, mode: 0o600, umask: 0, fd: copy_fd, xdata }).await;
    let to = File { gfid: copy, fd: Some(copy_fd) };
    let fop = Fop::CopyFileRange { from: file, from_offset: 0, to, to_offset: 10, len: 4000, flags: 0, xdata: x() };
    let copied = peer.must(fop).await;
    assert!(
        matches!(&copied, Reply::CopyFileRange { copied: 4000, to, .. } if to.post.size_bytes == 4010),
        "{copied:?}"
    );
    peer.must(Fop::Release { file: to }).await;

    let iatt = Box::new(Iatt {
        mode: 0o100604,
        uid: 12,
        gid: 34,
        mtime: Timespec { seconds: 1_000_000_000, nanos: 999_999_999 },
        atime: Timespec { seconds: -5, nanos: 1 },
        ..Iatt::default()
    });
    let all = SetattrValid::MODE | SetattrValid::UID | SetattrValid::GID | SetattrValid::MTIME | SetattrValid::ATIME;
    let valid = SetattrValid(all);
    let set = peer.must(Fop::Setattr { gfid, iatt: iatt.clone(), valid, xdata: x() }).await;
    let Reply::PrePost { attrs, .. } = set else { panic!("{set:?}") };
    assert_eq!((attrs.post.permissions(), attrs.post.uid, attrs.post.gid), (0o604, 12, 34));
    assert_eq!((attrs.post.mtime, attrs.post.atime.seconds), (iatt.mtime, -5));
    peer.must(Fop::Fsetattr { file, iatt, valid: SetattrValid(SetattrValid::MODE), xdata: x() }).await;
    peer.must(Fop::Stat { gfid, xdata: x() }).await;
    peer.must(Fop::Access { gfid, mask: 4, xdata: x() }).await;

    peer.must(Fop::Release { file }).await;
    let opened = Fop::Open { gfid, flags: libc::O_RDONLY as u32, fd, xdata: x() };
    peer.must(opened).await;
    peer.must(Fop::Release { file }).await;
    assert_eq!(peer.client.open_files(), 0);
    let stale = Fop::Open { gfid: Gfid::random(), flags: 0, fd, xdata: x() };
    assert!(matches!(peer.errno(stale).await, errno::ENOENT | errno::ESTALE));
}

async fn xattrs(peer: &Peer) {
    let (gfid, fd) = (peer.lookup("file").await.unwrap().gfid, FdId(300));
    peer.must(Fop::Open { gfid, flags: libc::O_RDWR as u32, fd, xdata: x() }).await;
    let file = File { gfid, fd: Some(fd) };
    let one = Bytes::from_static(b"one\0two");
    let xattrs = Dict::new().with("user.a", Value::Ptr(one.clone()));
    peer.must(Fop::Setxattr { gfid, xattrs: xattrs.clone(), flags: 0, xdata: x() }).await;
    let flags = libc::XATTR_CREATE as u32;
    assert_eq!(peer.errno(Fop::Setxattr { gfid, xattrs, flags, xdata: x() }).await, errno::EEXIST);
    let xattrs = Dict::new().with("user.b", Value::Str("text".into()));
    peer.must(Fop::Fsetxattr { file, xattrs, flags: 0, xdata: x() }).await;
    let got = peer.must(Fop::Getxattr { gfid, name: "user.a".into(), xdata: x() }).await;
    assert!(matches!(&got, Reply::Xattrs { xattrs, .. } if xattrs.bytes("user.a") == Some(&one)), "{got:?}");
    let got = peer.must(Fop::Fgetxattr { file, name: Bytes::new(), xdata: x() }).await;
    assert!(matches!(&got, Reply::Xattrs { xattrs, .. } if xattrs.contains("user.a") && xattrs.contains("user.b")));
    peer.must(Fop::Removexattr { gfid, name: "user.a".into(), xdata: x() }).await;
    peer.must(Fop::Fremovexattr { file, name: "user.b".into(), xdata: x() }).await;
    assert_eq!(peer.errno(Fop::Getxattr { gfid, name: "user.a".into(), xdata: x() }).await, errno::ENODATA);

    let change =
        Dict::new().with("trusted.afr.dirty", Value::Ptr(Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2])));
    for fop in [
        Fop::Xattrop { gfid, kind: XattropKind::AddArray, xattrs: change.clone(), xdata: x() },
        Fop::Fxattrop { file, kind: XattropKind::AddArray, xattrs: change, xdata: x() },
    ] {
        let Reply::Xattrs { xattrs, .. } = peer.must(fop).await else { panic!() };
        let after = xattrs.bytes("trusted.afr.dirty").unwrap();
        assert!(matches!(after[..], [0, 0, 0, 1 | 2, 0, 0, 0, 0, 0, 0, 0, 2 | 4]), "{after:?}");
    }
    // What a lookup asks for comes back in its xdata.
    let asked = Dict::new().with("trusted.afr.dirty", Value::Uint(0)).with("glusterfs.inodelk-count", Value::Int(0));
    let Reply::Lookup { xdata, .. } = peer.must(Fop::Lookup { gfid, entry: None, xdata: asked }).await else {
        panic!()
    };
    assert_eq!(xdata.bytes("trusted.afr.dirty").map(|b| b[3]), Some(2));
    assert_eq!(xdata.int("glusterfs.inodelk-count"), Some(0));
    peer.must(Fop::Release { file }).await;
    assert_eq!(peer.errno(Fop::Ipc { op: 99, xdata: x() }).await, errno::EOPNOTSUPP);
}

async fn locks(brick: &StockBrick, peer: &Peer) {
    let other = Peer::connect(brick, 2).await;
    let (gfid, fd) = (peer.lookup("file").await.unwrap().gfid, FdId(400));
    let file = File { gfid, fd: Some(fd) };
    for peer in [peer, &other] {
        peer.must(Fop::Open { gfid, flags: libc::O_RDWR as u32, fd, xdata: x() }).await;
    }
    let lk = |cmd, kind| Fop::Lk { file, cmd, flock: flock(kind), xdata: x() };
    peer.must(lk(LockCmd::Set, LockType::Write)).await;
    assert_eq!(other.errno(lk(LockCmd::Set, LockType::Write)).await, errno::EAGAIN);
    let Reply::Lk { flock: held, .. } = other.must(lk(LockCmd::Get, LockType::Write)).await else { panic!() };
    assert_eq!((held.kind, held.len, held.owner), (LockType::Write, 100, LockOwner::from_u64(1)));
    peer.must(lk(LockCmd::Set, LockType::Unlock)).await;
    other.must(lk(LockCmd::SetWait, LockType::Write)).await;

    let domain = Bytes::from_static(b"b-replicate-0");
    let inodelk = |cmd, kind| Fop::Inodelk { gfid, domain: domain.clone(), cmd, flock: flock(kind), xdata: x() };
    let finodelk = |cmd, kind| Fop::Finodelk { file, domain: domain.clone(), cmd, flock: flock(kind), xdata: x() };
    peer.must(inodelk(LockCmd::Set, LockType::Write)).await;
    assert_eq!(other.errno(finodelk(LockCmd::Set, LockType::Write)).await, errno::EAGAIN);
    // A waiting lock tells the holder, who gives way.
    let wait = other.must(finodelk(LockCmd::SetWait, LockType::Write));
    let give_way = async {
        peer.events.wait(1, |event| matches!(event, Event::InodelkContention { gfid: g, .. } if *g == gfid)).await;
        peer.must(inodelk(LockCmd::Set, LockType::Unlock)).await;
    };
    futures::join!(wait, give_way);
    other.must(inodelk(LockCmd::Set, LockType::Unlock)).await;

    let name = Some(Bytes::from_static(b"file"));
    let entrylk = |cmd, kind| {
        let (domain, name) = (domain.clone(), name.clone());
        Fop::Entrylk { gfid: Gfid::ROOT, domain, name, cmd, kind, xdata: x() }
    };
    peer.must(entrylk(EntrylkCmd::Lock, LockType::Write)).await;
    assert_eq!(other.errno(entrylk(EntrylkCmd::TryLock, LockType::Write)).await, errno::EAGAIN);
    // GlusterFS 10.3 tells nobody of contended entrylks (it forgets to initialise a list): the holder gives way by itself.
    let wait = other.must(entrylk(EntrylkCmd::Lock, LockType::Write));
    let give_way = async {
        sleep(Duration::from_millis(100)).await;
        peer.must(entrylk(EntrylkCmd::Unlock, LockType::Write)).await;
    };
    futures::join!(wait, give_way);
    other.must(entrylk(EntrylkCmd::Unlock, LockType::Write)).await;

    let directory = File { gfid: Gfid::ROOT, fd: Some(FdId(401)) };
    peer.must(Fop::Opendir { gfid: Gfid::ROOT, fd: FdId(401), xdata: x() }).await;
    for cmd in [EntrylkCmd::TryLock, EntrylkCmd::Unlock] {
        let (domain, kind) = (domain.clone(), LockType::Write);
        peer.must(Fop::Fentrylk { file: directory, domain, name: None, cmd, kind, xdata: x() }).await;
    }
    peer.must(Fop::Releasedir { file: directory }).await;
    other.client.stop();
}

#[test]
fn a_killed_brick_is_felt_and_found_again_with_its_files_open() {
    let Some(mut brick) = StockBrick::new("killed-brick") else { return };
    brick.start();
    let executor = Executor::new().unwrap();
    executor.block_on(async {
        let peer = Peer::connect(&brick, 1).await;
        let (gfid, fd) = (Gfid::random(), FdId(1));
        let flags = (libc::O_CREAT | libc::O_RDWR | libc::O_APPEND) as u32;
        let create = Fop::Create { entry: entry("f"), flags, mode: 0o600, umask: 0, fd, xdata: with_gfid(gfid) };
        peer.must(create).await;
        let file = File { gfid, fd: Some(fd) };
        brick.kill();
        peer.events.wait(1, |event| matches!(event, Event::Down)).await;
        assert_eq!(peer.errno(Fop::Fstat { file, xdata: x() }).await, errno::ENOTCONN);
        brick.start();
        peer.events.wait(2, |event| matches!(event, Event::Up)).await;
        let data = Payload::from_bytes(Bytes::from_static(b"after"));
        peer.must(Fop::Write { file, offset: 0, data, flags: 0, xdata: x() }).await;
        peer.must(Fop::Flush { file, xdata: x() }).await;
        assert_eq!(std::fs::read(brick.path("brick/f")).unwrap(), b"after");
        peer.client.stop();
    });
}
