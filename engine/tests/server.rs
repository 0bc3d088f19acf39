//! A brick's server and its clients, over real sockets: what nonsense gets, and what stays when a client goes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ladrillo_engine::daemon::rpc::{Client, Glusterd};
use ladrillo_engine::graph::Graph;
use ladrillo_engine::runtime::{GlommioRuntime, Pool};
use ladrillo_engine::server::{Endpoint, Server, ServerConfig};
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, File, Flock, LockCmd, LockType};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::volfile::{Node, Volfile};
use ladrillo_translator::{Dict, FdId, Fop, FopKind, FopResult, Gfid, LockOwner, Payload, Reply, Value};
use ladrillo_transport::Credential;
use ladrillo_transport::Kind;
use ladrillo_transport::program::extension::{self, Outgoing};
use ladrillo_transport::program::{callback, dump, fop4, handshake};
use ladrillo_transport::xdr::Writer;

static NEXT: AtomicU64 = AtomicU64::new(1);
const PATIENCE: Duration = Duration::from_secs(10);

struct Brick {
    server: Option<Server>,
    graph: Arc<Graph>,
    volfile: Volfile,
    path: PathBuf,
    address: SocketAddr,
}

impl Drop for Brick {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A brick that serves, or `None` (said aloud) without the rights for it.
fn brick() -> Option<Brick> {
    brick_with(&[("auth.addr.brick.allow", "localhost")])
}

/// The same, with options of protocol/server.
fn brick_with(options: &[(&str, &str)]) -> Option<Brick> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: trusted xattrs need root");
        return None;
    }
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ladrillo-server-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    let mut server = Node::new("server", "protocol/server").over(["brick"]);
    for (key, value) in options {
        server = server.option(*key, *value);
    }
    let volfile = Volfile {
        nodes: vec![
            Node::new("posix", "storage/posix").option("directory", path.to_str().unwrap()),
            Node::new("locks", "features/locks").over(["posix"]),
            Node::new("brick", "debug/io-stats").over(["access"]),
            Node::new("access", "features/access-control").over(["locks"]),
            server,
        ],
    };
    let graph = Arc::new(Graph::build(&volfile, Arc::new(Pool), Arc::new(GlommioRuntime::default())).unwrap());
    let config = ServerConfig {
        endpoints: vec![Endpoint { kind: Kind::Tcp, address: "127.0.0.1:0".parse().unwrap() }],
        executors: 2,
    };
    let server = Server::start(graph.clone(), &config).unwrap();
    let address = server.local[0].address;
    Some(Brick { server: Some(server), graph, volfile, path, address })
}

impl Brick {
    fn connect(&self) -> Client {
        Client::connect(&Glusterd::Tcp("127.0.0.1".to_owned(), self.address.port()), PATIENCE).unwrap()
    }

    /// A client with a session.
    fn client(&self, uid: &str) -> Client {
        let mut client = self.connect();
        let answer = set_volume(&mut client, uid, "brick", i64::from(fop4::PROGRAM));
        assert_eq!((answer.op_ret, answer.dict.text("ERROR")), (0, Some("Success")), "{answer:?}");
        client
    }

    fn clients(&self) -> usize {
        self.server.as_ref().unwrap().client_count()
    }

    /// The brick still serves others.
    fn check_alive(&self) {
        let mut client = self.client("witness");
        let reply = call(&mut client, Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() }).unwrap();
        assert!(matches!(reply.0, Reply::Iatt { iatt, .. } if iatt.is_dir()));
    }
}

fn set_volume(client: &mut Client, uid: &str, subvolume: &str, version: i64) -> handshake::Answer {
    let mut dict = Dict::new();
    dict.set_str("remote-subvolume", subvolume.to_owned());
    dict.set_str("process-uuid", uid.to_owned());
    dict.set_int("fops-version", version);
    ask_volume(client, dict)
}

fn ask_volume(client: &mut Client, dict: Dict) -> handshake::Answer {
    let body = handshake::Setvolume { dict }.encode();
    let reply = client.call(handshake::PROGRAM, handshake::VERSION, handshake::PROC_SETVOLUME, body).unwrap();
    handshake::Answer::decode(reply).unwrap()
}

fn call(client: &mut Client, fop: Fop) -> FopResult<(Reply, Option<FdId>)> {
    let kind = fop.kind();
    let (procedure, body) = fop4::encode_request(&fop).unwrap();
    let reply = client.call(fop4::PROGRAM, fop4::VERSION, procedure, body).unwrap();
    let (result, opened) = fop4::decode_reply(kind, reply).unwrap();
    result.map(|reply| (reply, opened))
}

fn create(client: &mut Client, name: &'static str) -> (Gfid, FdId) {
    let gfid = Gfid::random();
    let fop = Fop::Create {
        entry: Entry { parent: Gfid::ROOT, name: Bytes::from_static(name.as_bytes()) },
        flags: 2,
        mode: 0o644,
        umask: 0,
        fd: FdId(0),
        xdata: Dict::new().with("gfid-req", Value::Gfid(gfid)),
    };
    let (_, fd) = call(client, fop).unwrap();
    (gfid, fd.expect("a descriptor"))
}

fn inodelk(gfid: Gfid, cmd: LockCmd, kind: LockType) -> Fop {
    let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 1, owner: LockOwner::default() };
    Fop::Inodelk { gfid, domain: Bytes::from_static(b"domain"), cmd, flock, xdata: Dict::new() }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends raw bytes and tells whether the brick closed the connection without a word.
fn is_cut_off(brick: &Brick, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(brick.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = [0; 64];
    let read = loop {
        match stream.read(&mut answer) {
            // The brick's executors in this process use signals.
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    match read {
        Ok(0) => true,
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => true,
        other => {
            println!("not cut off: {other:?}");
            false
        }
    }
}

#[test]
fn nonsense_is_refused_and_nobody_else_notices() {
    let Some(brick) = brick() else { return };
    // A record of 2 GiB; one that is no RPC; one of another RPC version; a reply nobody waits for, cut short.
    assert!(is_cut_off(&brick, &0xffff_ffffu32.to_be_bytes()));
    assert!(is_cut_off(&brick, b"GET / HTTP/1.1\r\nHost: brick\r\n\r\n"));
    let mut other_version = 0x8000_0028u32.to_be_bytes().to_vec();
    for word in [1u32, 0, 3, fop4::PROGRAM, fop4::VERSION, 1, 0, 0, 0, 0] {
        other_version.extend_from_slice(&word.to_be_bytes());
    }
    assert!(is_cut_off(&brick, &other_version));
    let mut short = 0x8000_0008u32.to_be_bytes().to_vec();
    short.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(is_cut_off(&brick, &short));

    // Well-formed calls of what is not there get RPC's own answers, and the connection stays.
    let mut client = brick.connect();
    let empty = ladrillo_transport::Message::default;
    for (program, version, procedure, expected) in [
        (999, 1, 1, "ProgUnavail"),
        (fop4::PROGRAM, 7, 1, "ProgMismatch"),
        (dump::PROGRAM, dump::VERSION, 99, "ProcUnavail"),
        (handshake::PROGRAM, handshake::VERSION, 77, "ProcUnavail"),
        (handshake::PROGRAM, handshake::VERSION, handshake::PROC_SETVOLUME, "GarbageArgs"),
        (fop4::PROGRAM, fop4::VERSION, 27, "DeniedAuth"),
    ] {
        let error = client.call(program, version, procedure, empty()).unwrap_err().to_string();
        assert!(error.contains(expected), "{program} {version} {procedure}: {error}");
    }
    let mut client = brick.client("one");
    for (procedure, expected) in [(27, "GarbageArgs"), (500, "ProcUnavail")] {
        let error = client.call(fop4::PROGRAM, fop4::VERSION, procedure, empty()).unwrap_err().to_string();
        assert!(error.contains(expected), "{procedure}: {error}");
    }
    // Every procedure with arguments of every kind of wrong length or content.
    for procedure in 1..60u32 {
        if FopKind::from_procedure(procedure).is_none() {
            continue;
        }
        for filler in [0x00u8, 0xff, 0x41] {
            for length in [4usize, 16, 20, 64, 400] {
                let body = ladrillo_transport::Message { header: vec![filler; length].into(), ..empty() };
                // Any answer will do; none, or a panic behind it, will not.
                let _ = client.call(fop4::PROGRAM, fop4::VERSION, procedure, body).map_err(|e| {
                    assert!(e.to_string().contains("refused"), "procedure {procedure}: {e}");
                });
            }
        }
    }
    let program = client.call(dump::PROGRAM, dump::VERSION, dump::PROC_DUMP, dump::encode_request()).unwrap();
    assert!(dump::Reply::decode(program).unwrap().has(fop4::PROGRAM, fop4::VERSION));
    let file = File { gfid: Gfid::ROOT, fd: Some(FdId(12345)) };
    assert_eq!(call(&mut client, Fop::Fstat { file, xdata: Dict::new() }).unwrap_err().errno, errno::EBADF);
    brick.check_alive();
}

/// A client with a session that speaks our own program.
fn extended(brick: &Brick, uid: &str) -> Client {
    let mut client = brick.connect();
    let mut dict = Dict::new();
    dict.set_str("remote-subvolume", "brick");
    dict.set_str("process-uuid", uid.to_owned());
    dict.set_int("fops-version", i64::from(fop4::PROGRAM));
    dict.set_int(extension::SETVOLUME_KEY, 1);
    assert_eq!(ask_volume(&mut client, dict).op_ret, 0);
    client
}

fn message(steps: &[Outgoing<'_>]) -> ladrillo_transport::Message {
    let mut writer = Writer::default();
    let payload = extension::write_request(&mut writer, steps).unwrap();
    ladrillo_transport::Message { header: writer.finish(), payload, padding: 0 }
}

fn ask_steps(client: &mut Client, steps: &[Outgoing<'_>]) -> Vec<(FopResult, Option<FdId>)> {
    let kinds: Vec<FopKind> = steps.iter().map(|step| step.fop.kind()).collect();
    let reply = client.call(extension::PROGRAM, extension::VERSION, extension::PROC_STEPS, message(steps)).unwrap();
    extension::decode_reply(&kinds, reply).unwrap()
}

fn errnos(answers: &[(FopResult, Option<FdId>)]) -> Vec<i32> {
    answers.iter().map(|(result, _)| result.as_ref().err().map_or(0, |e| e.errno)).collect()
}

#[test]
fn steps_are_carried_out_as_single_fops_are() {
    let Some(brick) = brick() else { return };
    let mut client = extended(&brick, "one");
    let gfid = Gfid::random();
    let entry = Entry { parent: Gfid::ROOT, name: Bytes::from_static(b"file") };
    let domain = Bytes::from_static(b"domain");
    let lock = Fop::Entrylk {
        gfid: Gfid::ROOT,
        domain,
        name: Some(entry.name.clone()),
        cmd: ladrillo_translator::fop::EntrylkCmd::TryLock,
        kind: LockType::Write,
        xdata: Dict::new(),
    };
    let create = Fop::Create {
        entry: entry.clone(),
        flags: 2,
        mode: 0o644,
        umask: 0,
        fd: FdId(0),
        xdata: Dict::new().with("gfid-req", Value::Gfid(gfid)),
    };
    let step = |fop, needs_previous| Outgoing { credential: None, fop, needs_previous };
    let answers = ask_steps(&mut client, &[step(&lock, false), step(&create, true)]);
    assert_eq!(errnos(&answers), [0, 0]);
    let fd = answers[1].1.expect("a descriptor");
    // Another client meets the lock; what does not need it is done all the same.
    let mut other = extended(&brick, "two");
    let unlink = Fop::Unlink { entry: entry.clone(), flags: 0, xdata: Dict::new() };
    let stat = Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() };
    let answers = ask_steps(&mut other, &[step(&lock, false), step(&unlink, true), step(&stat, false)]);
    assert_eq!(errnos(&answers), [errno::EAGAIN, errno::ECANCELED, 0]);
    // Descriptors are the session's, callers each step's.
    let file = File { gfid, fd: Some(fd) };
    let data = Payload::from_bytes(Bytes::from_static(b"hello"));
    let write = Fop::Write { file, offset: 0, data, flags: 0, xdata: Dict::new() };
    let read = Fop::Read { file, offset: 0, size_bytes: 99, flags: 0, xdata: Dict::new() };
    let chmod = Fop::Setattr {
        gfid,
        iatt: Box::new(ladrillo_translator::Iatt { mode: 0o600, ..Default::default() }),
        valid: SetattrValid(SetattrValid::MODE),
        xdata: Dict::new(),
    };
    let stranger = ladrillo_translator::Context { uid: 4711, gid: 4711, ..ladrillo_translator::Context::root() };
    let credential = Some(Credential::v3(&stranger));
    let steps = [step(&write, false), step(&read, true), Outgoing { credential, fop: &chmod, needs_previous: false }];
    let answers = ask_steps(&mut client, &steps);
    assert_eq!(errnos(&answers), [0, 0, errno::EPERM]);
    assert!(matches!(&answers[1].0, Ok(Reply::Read { data, .. }) if data.as_slice() == b"hello"));
    assert_eq!(errnos(&ask_steps(&mut other, &[step(&read, false)])), [errno::EBADF]);
    // What would wait for a lock, and what is more than a record holds, fails alone.
    let wait = inodelk(gfid, LockCmd::SetWait, LockType::Write);
    assert_eq!(errnos(&ask_steps(&mut client, &[step(&wait, false), step(&stat, false)])), [errno::EINVAL, 0]);
    let much = Fop::Read { file, offset: 0, size_bytes: u32::MAX, flags: 0, xdata: Dict::new() };
    let steps: Vec<Outgoing<'_>> = (0..64).map(|_| step(&much, false)).collect();
    let refused = errnos(&ask_steps(&mut client, &steps));
    assert_eq!((refused[0], refused[63]), (0, errno::EMSGSIZE));
    // With its connection go its locks.
    drop(client);
    until("the lock is free", || errnos(&ask_steps(&mut other, &[step(&lock, false)])) == [0]);
    brick.check_alive();
}

#[test]
fn steps_that_are_none_are_refused() {
    let Some(brick) = brick() else { return };
    let stat = Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() };
    let one = [Outgoing { credential: None, fop: &stat, needs_previous: false }];
    let ask = |client: &mut Client, procedure, body| {
        let answer = client.call(extension::PROGRAM, extension::VERSION, procedure, body);
        answer.map_or_else(|e| e.to_string(), |_| "done".to_owned())
    };
    // Who did not announce it has stock procedures only.
    assert!(ask(&mut brick.client("stock"), extension::PROC_STEPS, message(&one)).contains("DeniedAuth"));
    let mut client = extended(&brick, "ours");
    assert!(ask(&mut client, 2, message(&one)).contains("ProcUnavail"));
    let whole = message(&one).header;
    for end in 0..whole.len() {
        let cut = ladrillo_transport::Message { header: whole.slice(..end), ..Default::default() };
        let said = ask(&mut client, extension::PROC_STEPS, cut);
        assert!(said.contains("GarbageArgs"), "{end}: {said}");
    }
    for words in [vec![65u32], vec![u32::MAX], vec![1, 1, 8, 0], vec![1, 1, 0, u32::MAX], vec![2, 1, 0, 0, 1, 2, 0]] {
        let header: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let body = ladrillo_transport::Message { header: header.into(), ..Default::default() };
        assert!(ask(&mut client, extension::PROC_STEPS, body).contains("GarbageArgs"), "{words:?}");
    }
    // A procedure that is none, steps in steps among them, and arguments that are none fail alone.
    let words = [3u32, 49, 0, 0, extension::PROGRAM, 0, 0, 1, 0, 4, 0];
    let header: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    let body = ladrillo_transport::Message { header: header.into(), ..Default::default() };
    let reply = client.call(extension::PROGRAM, extension::VERSION, extension::PROC_STEPS, body).unwrap();
    let kinds = [FopKind::Stat; 3];
    let answers = extension::decode_reply(&kinds, reply).unwrap();
    assert_eq!(errnos(&answers), [errno::EOPNOTSUPP, errno::EOPNOTSUPP, errno::EINVAL]);
    brick.check_alive();
}

#[test]
fn only_those_the_volfile_admits_get_in() {
    let Some(brick) = brick() else { return };
    let version = i64::from(fop4::PROGRAM);
    for (subvolume, version, expected) in
        [("other", version, errno::ENOENT), ("brick", 1298438, errno::EINVAL), ("", version, errno::ENOENT)]
    {
        let mut client = brick.connect();
        let answer = set_volume(&mut client, "x", subvolume, version);
        assert_eq!((answer.op_ret, answer.op_errno), (-1, expected), "{answer:?}");
        assert!(answer.dict.text("ERROR").is_some_and(|e| !e.is_empty()));
        // Refused is refused: no fop gets through.
        let (procedure, body) = fop4::encode_request(&Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() }).unwrap();
        assert!(client.call(fop4::PROGRAM, fop4::VERSION, procedure, body).is_err());
    }
    assert_eq!(brick.clients(), 0);
}

#[test]
fn who_is_no_longer_admitted_is_cut_off() {
    let login = |brick: &Brick, uid: &str, password: &str| {
        let mut client = brick.connect();
        let mut dict = Dict::new();
        for (key, value) in [("remote-subvolume", "brick"), ("process-uuid", uid), ("username", "u")] {
            dict.set_str(key, value.to_owned());
        }
        dict.set_str("password", password.to_owned());
        dict.set_int("fops-version", i64::from(fop4::PROGRAM));
        (ask_volume(&mut client, dict).op_ret, client)
    };
    let rules = [("auth.addr.brick.allow", "*"), ("auth.login.brick.allow", "u"), ("auth.login.u.password", "secret")];
    let Some(brick) = brick_with(&rules) else { return };
    let change = |options: &[(&str, &str)]| {
        let mut new = brick.volfile.clone();
        let node = new.nodes.iter_mut().find(|node| node.kind == "protocol/server").unwrap();
        for (key, value) in options {
            node.options.set(*key, *value);
        }
        assert!(brick.graph.reconfigure(&brick.volfile, &new).errors.is_empty());
        brick.server.as_ref().unwrap().observer().cut_refused()
    };
    let stat = |client: &mut Client| {
        let (procedure, body) = fop4::encode_request(&Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() }).unwrap();
        client.call(fop4::PROGRAM, fop4::VERSION, procedure, body).is_ok()
    };
    let mut stranger = brick.client("stranger");
    let (admitted, mut friend) = login(&brick, "friend", "secret");
    assert_eq!(admitted, 0);
    assert_eq!(change(&[("ping-timeout", "10")]), 0, "nothing that concerns them has changed");
    assert!(stat(&mut stranger) && stat(&mut friend));
    assert_eq!(change(&[("auth.addr.brick.allow", "10.0.0.1")]), 1);
    assert!(!stat(&mut stranger) && stat(&mut friend), "who knows the password may stay");
    until("the stranger's session ends", || brick.clients() == 1);
    assert_eq!(change(&[("auth.addr.brick.allow", "*"), ("auth.login.u.password", "other")]), 1);
    assert!(!stat(&mut friend), "it has become wrong");
    until("the friend's session ends", || brick.clients() == 0);
    assert_eq!(change(&[("auth.addr.brick.reject", "127.0.0.1")]), 0);
    assert_ne!(login(&brick, "friend", "other").0, 0);
}

#[test]
fn what_a_client_held_goes_with_its_last_connection() {
    let Some(brick) = brick() else { return };
    let mut first = brick.client("holder");
    let second = brick.client("holder");
    assert_eq!(brick.clients(), 1, "two connections, one client");
    let (gfid, fd) = create(&mut first, "f");
    call(&mut first, inodelk(gfid, LockCmd::Set, LockType::Write)).unwrap();
    let unlink = Fop::Unlink {
        entry: Entry { parent: Gfid::ROOT, name: Bytes::from_static(b"f") },
        flags: 0,
        xdata: Dict::new(),
    };
    call(&mut first, unlink).unwrap();
    let aside = brick.path.join(".glusterfs/unlink").join(gfid.to_string());
    assert!(aside.exists());

    let mut other = brick.client("other");
    assert_eq!(call(&mut other, inodelk(gfid, LockCmd::Set, LockType::Write)).unwrap_err().errno, errno::EAGAIN);
    drop(first);
    // The other connection of the same client keeps all of it.
    std::thread::sleep(Duration::from_millis(200));
    assert!(aside.exists());
    assert_eq!(call(&mut other, inodelk(gfid, LockCmd::Set, LockType::Write)).unwrap_err().errno, errno::EAGAIN);
    let start = Instant::now();
    let waiter = std::thread::spawn(move || {
        call(&mut other, inodelk(gfid, LockCmd::SetWait, LockType::Write)).unwrap();
        (start.elapsed(), other)
    });
    std::thread::sleep(Duration::from_millis(300));
    drop(second);
    let (waited, mut other) = waiter.join().unwrap();
    assert!(waited >= Duration::from_millis(250), "granted while it was held: {waited:?}");
    until("the unlinked file is gone", || !aside.exists());
    // A descriptor of the client that went means nothing to another.
    let write = Fop::Write {
        file: File { gfid, fd: Some(fd) },
        offset: 0,
        data: Payload::copy_from_slice(b"x"),
        flags: 0,
        xdata: Dict::new(),
    };
    assert_eq!(call(&mut other, write).unwrap_err().errno, errno::EBADF);
    drop(other);
    until("no client is left", || brick.clients() == 0);
}

#[test]
fn a_holder_is_told_that_others_wait() {
    let Some(brick) = brick() else { return };
    let mut holder = brick.client("holder");
    let (gfid, _) = create(&mut holder, "f");
    call(&mut holder, inodelk(gfid, LockCmd::Set, LockType::Write)).unwrap();
    let mut other = brick.client("other");
    let waiter = std::thread::spawn(move || call(&mut other, inodelk(gfid, LockCmd::SetWait, LockType::Write)).is_ok());
    let heard = holder.listen(PATIENCE).unwrap().expect("a callback");
    assert_eq!(heard.0, callback::PROGRAM);
    // A blocked lock of another stalls nobody: fops and PING go on.
    call(&mut holder, Fop::Stat { gfid, xdata: Dict::new() }).unwrap();
    let ping = ladrillo_transport::Message::default();
    holder.call(dump::PROGRAM, dump::VERSION, dump::PROC_PING, ping).unwrap();
    call(&mut holder, inodelk(gfid, LockCmd::Set, LockType::Unlock)).unwrap();
    assert!(waiter.join().unwrap());
}

#[test]
fn a_client_that_does_not_read_is_held_back_and_holds_nobody_back() {
    let Some(brick) = brick() else { return };
    let mut client = brick.client("writer");
    let (gfid, fd) = create(&mut client, "big");
    let data = Payload::copy_from_slice(&vec![7; 1 << 20]);
    for n in 0..4u64 {
        let file = File { gfid, fd: Some(fd) };
        let fop = Fop::Write { file, offset: n << 20, data: data.clone(), flags: 0, xdata: Dict::new() };
        call(&mut client, fop).unwrap();
    }
    let before = resident_bytes();
    // 400 reads of 4 MiB, none of whose answers is taken.
    let mut greedy = TcpStream::connect(brick.address).unwrap();
    greedy.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let send = |stream: &mut TcpStream, xid: u32, program: u32, version: u32, procedure: u32, body: &[u8]| {
        let credential = ladrillo_transport::credential::Credential::v2(&ladrillo_translator::Context::root());
        let body = ladrillo_transport::Message { header: Bytes::copy_from_slice(body), ..Default::default() };
        let call = ladrillo_transport::rpc::encode_call(xid, program, version, procedure, &credential, body).unwrap();
        let mut record = ladrillo_transport::record::record_mark(call.len()).to_vec();
        record.extend_from_slice(&call.header);
        stream.write_all(&record)
    };
    let mut dict = Dict::new();
    dict.set_str("remote-subvolume", "brick");
    dict.set_str("process-uuid", "greedy");
    dict.set_int("fops-version", i64::from(fop4::PROGRAM));
    let body = handshake::Setvolume { dict }.encode().header;
    send(&mut greedy, 1, handshake::PROGRAM, handshake::VERSION, handshake::PROC_SETVOLUME, &body).unwrap();
    let read =
        Fop::Read { file: File { gfid, fd: None }, offset: 0, size_bytes: 4 << 20, flags: 0, xdata: Dict::new() };
    let (procedure, body) = fop4::encode_request(&read).unwrap();
    for xid in 2..402 {
        if send(&mut greedy, xid, fop4::PROGRAM, fop4::VERSION, procedure, &body.header).is_err() {
            break;
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 300 << 20, "{} MiB are held for a client that does not read", grown >> 20);
    let start = Instant::now();
    brick.check_alive();
    assert!(start.elapsed() < Duration::from_secs(5));
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn mkdir(client: &mut Client, parent: Gfid, name: &'static str) -> FopResult<Gfid> {
    let gfid = Gfid::random();
    let entry = Entry { parent, name: Bytes::from_static(name.as_bytes()) };
    let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
    call(client, Fop::Mkdir { entry, mode: 0o755, umask: 0, xdata }).map(|_| gfid)
}

#[test]
fn a_directory_is_mounted_as_the_root() {
    let Some(brick) = brick_with(&[("auth.addr.brick.allow", "/(localhost),/a/b(localhost),/secret(10.0.0.1)")]) else {
        return;
    };
    let mut whole = brick.client("whole");
    let a = mkdir(&mut whole, Gfid::ROOT, "a").unwrap();
    let b = mkdir(&mut whole, a, "b").unwrap();
    mkdir(&mut whole, Gfid::ROOT, "secret").unwrap();
    let mount = |uid: &str, path: &str| {
        let mut client = brick.connect();
        let mut dict = Dict::new();
        dict.set_str("remote-subvolume", "brick");
        dict.set_str("process-uuid", uid.to_owned());
        dict.set_int("fops-version", i64::from(fop4::PROGRAM));
        dict.set_str("subdir-mount", path.to_owned());
        let answer = ask_volume(&mut client, dict);
        (client, answer)
    };
    let (mut client, answer) = mount("part", "//a/b/");
    assert_eq!((answer.op_ret, answer.dict.text("ERROR")), (0, Some("Success")));
    let (_, reply) = (mount("other", "/a").1, mount("third", "/secret").1);
    assert_eq!(reply.op_errno, errno::EACCES, "for other addresses");
    let missing = mount("fourth", "/a/../a/b").1;
    assert_eq!((missing.op_ret, missing.op_errno), (-1, errno::EACCES), "not listed as such");
    let (gfid, _) = create(&mut client, "file");
    assert!(brick.path.join("a/b/file").exists());
    let lookup = |parent: Gfid, name: &'static str| Fop::Lookup {
        gfid: Gfid::NULL,
        entry: Some(Entry { parent, name: Bytes::from_static(name.as_bytes()) }),
        xdata: Dict::new(),
    };
    let Ok((Reply::Lookup { iatt, parent, .. }, _)) = call(&mut client, lookup(Gfid::ROOT, "file")) else {
        panic!("no lookup")
    };
    assert_eq!((iatt.gfid, parent.gfid, parent.ino), (gfid, Gfid::ROOT, 1), "the parent is the root");
    let Ok((Reply::Iatt { iatt, .. }, _)) = call(&mut client, Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() })
    else {
        panic!("no stat")
    };
    assert_eq!((iatt.gfid, iatt.ino), (Gfid::ROOT, 1));
    let Ok((Reply::Iatt { iatt, .. }, _)) = call(&mut whole, Fop::Stat { gfid: b, xdata: Dict::new() }) else {
        panic!("no stat")
    };
    assert_eq!(iatt.gfid, b, "others see it where it is");
    assert_eq!(call(&mut client, lookup(Gfid::ROOT, "a")).unwrap_err().errno, errno::ENOENT);
}

#[test]
fn a_directory_that_is_not_there_is_not_mounted() {
    let Some(brick) = brick() else { return };
    let mut client = brick.connect();
    let mut dict = Dict::new();
    dict.set_str("remote-subvolume", "brick");
    dict.set_str("process-uuid", "u");
    dict.set_int("fops-version", i64::from(fop4::PROGRAM));
    dict.set_str("subdir-mount", "/none");
    let answer = ask_volume(&mut client, dict);
    assert_eq!((answer.op_ret, answer.op_errno), (-1, errno::ENOENT));
    assert_eq!(answer.dict.text("ERROR"), Some("subdirectory for mount \"/none\" is not found"));
    assert_eq!(brick.clients(), 0);
}

#[test]
fn squashed_users_own_what_they_make() {
    use std::os::unix::fs::MetadataExt;
    let options = [
        ("auth.addr.brick.allow", "*"),
        ("auth.login.brick.allow", "pool"),
        ("auth.login.pool.password", "secret"),
        ("root-squash", "on"),
        ("anonuid", "1234"),
        ("anongid", "1235"),
    ];
    let Some(brick) = brick_with(&options) else { return };
    let mut client = brick.client("stranger");
    assert_eq!(mkdir(&mut client, Gfid::ROOT, "d").unwrap_err().errno, errno::EACCES, "the brick's root is root's");
    std::os::unix::fs::chown(&brick.path, Some(1234), Some(1235)).unwrap();
    mkdir(&mut client, Gfid::ROOT, "d").unwrap();
    let made = std::fs::metadata(brick.path.join("d")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1234, 1235));
}
