//! protocol/server: clients in, fops to the graph, answers out.
//!
//! Promises: a client that sends nonsense is answered by RPC's rules or cut off, and no other notices; PING and the
//! handshake never wait for a disk; what one connection may have under way is bounded; when the last connection of a
//! client goes, its files are closed and its locks are released.

pub mod auth;
pub mod connection;
pub mod groups;
pub mod handshake;
pub mod listen;
mod observer;
pub mod session;
mod socket;
mod steps;
mod subdir;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::AsyncReadExt;
use glommio::net::UnixStream;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::File;
use ladrillo_translator::locks::{ContendedLock, Contention};
use ladrillo_translator::{ClientId, Context, Fop, FopError, FopKind, FopResult, Gfid, Translator};
use ladrillo_transport::Message;
use ladrillo_transport::credential::Credential;
use ladrillo_transport::program::{callback, dump, extension, fop4, handshake as wire};
use ladrillo_transport::rpc::{self, AUTH_REJECTEDCRED, AUTH_TOOWEAK, AcceptStatus, CallHeader, Incoming as Record};
use ladrillo_transport::xdr::DecodeError;
use parking_lot::Mutex;

use crate::graph::Graph;
use crate::translators::upcall::Invalidation;
use connection::{Arrival, Outgoing};
use handshake::Admitted;
pub use listen::Endpoint;
use listen::Entrance;
pub use observer::{ClientView, ConnectionView, Observer};
use session::{OpenFd, Session, next_fd};
use subdir::Subdir;

/// Fops a connection may have under way; its next request waits in its socket. Blocked locks are not counted: they are
/// bounded by features/locks, and the unlock they wait for must get through.
const MAX_IN_FLIGHT: usize = 256;
/// The same in bytes of what was received and of the data that was asked for.
const MAX_IN_FLIGHT_BYTES: usize = 64 << 20;

/// GFS3_OP_COMPOUND.
const COMPOUND: u32 = 49;

/// How often executors show that they are at work.
const BEAT: Duration = Duration::from_millis(250);
/// An executor that was not seen for so long hangs. Well below any ping-timeout (1 s at least).
const HANGS: Duration = Duration::from_millis(750);
/// What may be read for executors that hang and be left to them. Source: our bound.
const RESCUE_MAX_BYTES: usize = 256 << 20;

/// Connections at once. Source: our bound; a node serves up to some thousand clients of up to 4 connections.
const MAX_CONNECTIONS: usize = 16_384;

/// [`MAX_CONNECTIONS`], or what an eighth of the descriptors the process may have is enough for: a connection takes two, and
/// files want some, too.
fn max_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 8).unwrap_or(usize::MAX).clamp(64, MAX_CONNECTIONS)
}

/// What a server runs on.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen, and on what: several, e.g. `[::]` alone takes IPv4 as well.
    pub endpoints: Vec<Endpoint>,
    /// Executors; 0 = clamp(cores, 1, 4).
    pub executors: usize,
}

/// A brick process that serves.
pub struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Where it listens, in the order of [`ServerConfig::endpoints`].
    pub local: Vec<Endpoint>,
}

struct Shared {
    graph: Arc<Graph>,
    process_uuid: String,
    /// By process-uuid; several only where a client is bound in several ways.
    sessions: Mutex<HashMap<String, Vec<Arc<Session>>>>,
    by_id: papaya::HashMap<u64, Arc<Session>>,
    next_client: AtomicU64,
    next_callback: AtomicU64,
    connections: Mutex<Vec<std::sync::Weak<Outgoing>>>,
    loads: Vec<AtomicUsize>,
    /// File operations under way, all connections together.
    pending: AtomicUsize,
    /// When each executor was last seen at work, in milliseconds since `started`.
    beats: Vec<AtomicU64>,
    started: Instant,
    stopping: AtomicBool,
}

impl Server {
    /// Listens, starts the executors and the graph. When this returns, clients are served.
    ///
    /// # Errors
    /// An address that cannot be listened on; io_uring that cannot be used, with what forbids it.
    pub fn start(graph: Arc<Graph>, config: &ServerConfig) -> io::Result<Server> {
        check_io_uring()?;
        let opened = listen::open_all(&config.endpoints)?;
        let local = opened.iter().map(|(endpoint, _)| *endpoint).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = match config.executors {
            0 => cores.clamp(1, 4),
            n => n.min(64),
        };
        let shared = Arc::new(Shared {
            graph,
            process_uuid: process_uuid(),
            sessions: Mutex::default(),
            by_id: papaya::HashMap::new(),
            next_client: AtomicU64::new(1),
            next_callback: AtomicU64::new(1),
            connections: Mutex::default(),
            loads: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            pending: AtomicUsize::new(0),
            beats: (0..count).map(|_| AtomicU64::new(0)).collect(),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
        });
        if let Some(locks) = shared.graph.locks() {
            let weak = Arc::downgrade(&shared);
            locks.on_contention(move |contention| {
                if let Some(shared) = weak.upgrade() {
                    shared.tell_contention(&contention);
                }
            });
        }
        if let Some(upcall) = shared.graph.upcall() {
            let weak = Arc::downgrade(&shared);
            upcall.on_invalidation(move |invalidation| {
                if let Some(shared) = weak.upgrade() {
                    shared.tell_invalidation(&invalidation);
                }
            });
        }
        let mut threads = Vec::new();
        let mut doors = Vec::new();
        for index in 0..count {
            let (bell, rung) = std::os::unix::net::UnixStream::pair()?;
            let arrivals = Arc::new(Mutex::new(VecDeque::new()));
            doors.push(Door { arrivals: arrivals.clone(), bell });
            let (ready, started) = std::sync::mpsc::channel();
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("brick-{index}")).spawn(move || {
                let built = LocalExecutorBuilder::new(Placement::Unbound)
                    .name(&format!("brick-{index}"))
                    .io_memory(1 << 20)
                    .ring_depth(128)
                    .blocking_thread_pool_placement(PoolPlacement::Unbound(4))
                    .make();
                let executor = match built {
                    Ok(executor) => executor,
                    Err(e) => {
                        let _ = ready.send(Err(io::Error::other(format!("starting an executor: {e}"))));
                        return;
                    }
                };
                executor.run(async move {
                    if index == 0 {
                        shared.graph.start();
                    }
                    let _ = ready.send(Ok(()));
                    run_executor(shared, index, arrivals, rung).await;
                });
            })?;
            threads.push(thread);
            started.recv().map_err(|_| io::Error::other("an executor ended before it began"))??;
        }
        let watched = shared.clone();
        threads.push(std::thread::Builder::new().name("watch".to_owned()).spawn(move || watched.watch())?);
        let doors = Arc::new(doors);
        for (_, entrance) in opened {
            let (shared, doors) = (shared.clone(), doors.clone());
            threads.push(
                std::thread::Builder::new()
                    .name("accept".to_owned())
                    .spawn(move || accept(&shared, &entrance, &doors))?,
            );
        }
        Ok(Server { shared, threads, local })
    }

    /// Stops listening, cuts all connections, releases what clients held, and waits for the threads.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::Release);
        for connection in self.shared.connections.lock().drain(..) {
            if let Some(connection) = connection.upgrade() {
                connection.close();
            }
        }
        for thread in self.threads {
            let _ = thread.join();
        }
        self.shared.graph.stop();
    }

    /// Sees the clients while the server runs.
    pub fn observer(&self) -> Observer {
        Observer { shared: self.shared.clone() }
    }

    /// How many clients there are.
    pub fn client_count(&self) -> usize {
        self.shared.sessions.lock().values().map(Vec::len).sum()
    }
}

/// Whether io_uring works, and if not, why.
fn check_io_uring() -> io::Result<()> {
    // SAFETY: a zeroed params block is valid; a descriptor that comes back is closed at once.
    let result = unsafe {
        let mut params = [0u8; 120];
        libc::syscall(libc::SYS_io_uring_setup, 1u32, params.as_mut_ptr())
    };
    if result >= 0 {
        // SAFETY: the descriptor is ours.
        drop(unsafe { OwnedFd::from_raw_fd(result as i32) });
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    Err(match (error.raw_os_error(), sysctl.trim()) {
        (Some(libc::EPERM), "1" | "2") => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("io_uring is forbidden: sysctl kernel.io_uring_disabled is {}, it must be 0", sysctl.trim()),
        ),
        (Some(libc::EPERM), _) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "io_uring is forbidden: a seccomp filter (container runtime) refuses io_uring_setup",
        ),
        (Some(libc::ENOSYS), _) => io::Error::new(io::ErrorKind::Unsupported, "this kernel has no io_uring"),
        (Some(libc::ENOMEM), _) => {
            io::Error::new(io::ErrorKind::OutOfMemory, "io_uring: the limit on locked memory (ulimit -l) is too low")
        }
        _ => error,
    })
}

/// Hands what is accepted to the least loaded executor.
fn accept(shared: &Arc<Shared>, entrance: &Entrance, doors: &[Door]) {
    let most = max_connections();
    while !shared.stopping.load(Ordering::Acquire) {
        let arrival = match entrance.accept(Duration::from_millis(250)) {
            Ok(Some(arrival)) => arrival,
            Ok(None) => continue,
            Err(e) => {
                // Out of descriptors, or gone before we looked: neither ends the listener.
                tracing::warn!(error = %e, "accept");
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        let live: usize = shared.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum();
        if live >= most {
            tracing::warn!(live, "too many connections: one more was cut");
            continue;
        }
        let index = (0..shared.loads.len()).min_by_key(|i| shared.loads[*i].load(Ordering::Relaxed)).unwrap_or(0);
        shared.loads[index].fetch_add(1, Ordering::Relaxed);
        if let Err(e) = doors[index].hand_over(arrival) {
            shared.loads[index].fetch_sub(1, Ordering::Relaxed);
            tracing::error!(error = %e, "handing a connection over");
        }
    }
    // Closing our end tells the executors to end.
    for door in doors {
        let _ = door.bell.shutdown(std::net::Shutdown::Both);
    }
}

/// The way from who accepts to an executor: what arrived, and a byte for each.
struct Door {
    arrivals: Arc<Mutex<VecDeque<Arrival>>>,
    bell: std::os::unix::net::UnixStream,
}

impl Door {
    fn hand_over(&self, arrival: Arrival) -> io::Result<()> {
        use std::io::Write;
        self.arrivals.lock().push_back(arrival);
        (&self.bell).write_all(&[1]).inspect_err(|_| {
            // Nobody comes for it: the executor has ended.
            let left = self.arrivals.lock().pop_back();
            drop(left);
        })
    }
}

async fn run_executor(
    shared: Arc<Shared>,
    index: usize,
    arrivals: Arc<Mutex<VecDeque<Arrival>>>,
    bell: std::os::unix::net::UnixStream,
) {
    // SAFETY: the stream owns the descriptor that into_raw_fd gives up.
    let mut bell = unsafe { UnixStream::from_raw_fd(bell.into_raw_fd()) };
    let live = Rc::new(Cell::new(0usize));
    let beating = shared.clone();
    glommio::spawn_local(async move {
        while !beating.stopping.load(Ordering::Acquire) {
            beating.beats[index].store(beating.now_ms(), Ordering::Release);
            glommio::timer::sleep(BEAT).await;
        }
    })
    .detach();
    let mut rings = [0];
    while bell.read_exact(&mut rings).await.is_ok() {
        let Some(arrival) = arrivals.lock().pop_front() else { continue };
        let (shared, live) = (shared.clone(), live.clone());
        live.set(live.get() + 1);
        glommio::spawn_local(async move {
            serve(&shared, arrival, index).await;
            shared.loads[index].fetch_sub(1, Ordering::Relaxed);
            live.set(live.get() - 1);
        })
        .detach();
    }
    // The connections were cut: let them clean up, for a bounded time.
    for _ in 0..200 {
        if live.get() == 0 {
            return;
        }
        glommio::timer::sleep(Duration::from_millis(10)).await;
    }
}

/// What a connection has under way.
#[derive(Default)]
struct Flight {
    fops: Cell<usize>,
    bytes: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

impl Flight {
    /// Completes when another request may be taken: few enough are under way, and few enough answers wait.
    async fn room(&self, outgoing: &Outgoing) {
        futures::future::poll_fn(|cx| {
            if outgoing.poll_room(cx).is_pending() {
                return Poll::Pending;
            }
            if self.fops.get() < MAX_IN_FLIGHT && self.bytes.get() < MAX_IN_FLIGHT_BYTES {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn enter(&self, bytes: usize) {
        self.fops.set(self.fops.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn leave(&self, bytes: usize) {
        self.fops.set(self.fops.get() - 1);
        self.bytes.set(self.bytes.get() - bytes);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

async fn serve(shared: &Arc<Shared>, arrival: Arrival, executor: usize) {
    let peer = match &arrival {
        Arrival::Socket(socket) => {
            rustix::net::getpeername(socket).ok().flatten().and_then(|a| SocketAddr::try_from(a).ok())
        }
        Arrival::Transport(transport) => transport.peer().parse().ok(),
    };
    let peer_text = peer.map_or_else(|| "?".to_owned(), |p| p.to_string());
    let (mut incoming, outgoing) = match connection::adopt(arrival, peer_text.clone(), executor) {
        Ok(pair) => pair,
        Err(e) => {
            tracing::warn!(peer = %peer_text, error = %e, "adopting a connection");
            return;
        }
    };
    {
        let mut connections = shared.connections.lock();
        connections.retain(|c| c.strong_count() > 0);
        connections.push(Arc::downgrade(&outgoing));
    }
    if shared.stopping.load(Ordering::Acquire) {
        outgoing.close();
    }
    let mut client = Client {
        shared: shared.clone(),
        outgoing: outgoing.clone(),
        peer,
        session: None,
        extended: false,
        mounting: None,
        flight: Rc::new(Flight::default()),
    };
    loop {
        client.flight.room(&outgoing).await;
        match incoming.next().await {
            Ok(Some(record)) => {
                if let Err(e) = client.handle(record) {
                    tracing::warn!(peer = %peer_text, error = %e, "not ONC-RPC: connection cut");
                    break;
                }
                if let Some(mounting) = client.mounting.take() {
                    client.mount(mounting).await;
                }
            }
            Ok(None) => break,
            Err(e) => {
                if !shared.stopping.load(Ordering::Acquire) {
                    tracing::info!(peer = %peer_text, error = %e, "connection lost");
                }
                break;
            }
        }
    }
    outgoing.close();
    if let Some(session) = client.session.take() {
        shared.leave(&session, &outgoing).await;
    }
}

/// One connection, as its task sees it.
struct Client {
    shared: Arc<Shared>,
    outgoing: Arc<Outgoing>,
    peer: Option<SocketAddr>,
    session: Option<Arc<Session>>,
    /// It speaks our own program.
    extended: bool,
    mounting: Option<Mounting>,
    flight: Rc<Flight>,
}

/// A SETVOLUME that waits for the directory it mounts to be looked up.
struct Mounting {
    xid: u32,
    subdir: Subdir,
    admitted: Admitted,
    answer: ladrillo_translator::Dict,
}

impl Client {
    fn reply(&self, xid: u32, status: AcceptStatus, body: Message) {
        self.outgoing.send(rpc::encode_reply(xid, status, body));
    }

    fn refuse(&self, xid: u32, status: AcceptStatus) {
        self.reply(xid, status, Message::default());
    }

    /// Takes a record; an error means that the stream is not RPC.
    fn handle(&mut self, record: Bytes) -> Result<(), DecodeError> {
        let size = record.len();
        let (header, body) = match rpc::decode_record(record)? {
            Record::Call(header, body) => (header, body),
            // Callbacks are not answered; a reply to one is noise.
            Record::Reply(..) => return Ok(()),
        };
        if let Credential::Unknown { .. } = header.credential {
            self.refuse(header.xid, AcceptStatus::DeniedAuth(AUTH_REJECTEDCRED));
            return Ok(());
        }
        let versions = match header.program {
            fop4::PROGRAM => fop4::VERSION,
            wire::PROGRAM => wire::VERSION,
            dump::PROGRAM => dump::VERSION,
            extension::PROGRAM => extension::VERSION,
            _ => {
                self.refuse(header.xid, AcceptStatus::ProgUnavail);
                return Ok(());
            }
        };
        if header.version != versions {
            self.refuse(header.xid, AcceptStatus::ProgMismatch { low: versions, high: versions });
            return Ok(());
        }
        match header.program {
            fop4::PROGRAM => self.fop(&header, body, size),
            wire::PROGRAM => self.handshake(&header, body),
            extension::PROGRAM => self.extension(&header, body, size),
            _ => self.dump(&header),
        }
        Ok(())
    }

    fn dump(&self, header: &CallHeader) {
        let body = match header.procedure {
            0 => Message::default(),
            dump::PROC_DUMP => {
                let program = |name: &str, number: u32, version: u32| dump::Program {
                    name: name.to_owned(),
                    number: u64::from(number),
                    version: u64::from(version),
                };
                dump::Reply {
                    op_ret: 0,
                    op_errno: 0,
                    programs: vec![
                        program(dump::NAME, dump::PROGRAM, dump::VERSION),
                        program(fop4::NAME, fop4::PROGRAM, fop4::VERSION),
                        program(wire::NAME, wire::PROGRAM, wire::VERSION),
                        program(extension::NAME, extension::PROGRAM, extension::VERSION),
                    ],
                }
                .encode()
            }
            dump::PROC_PING => dump::PingReply::default().encode(),
            _ => return self.refuse(header.xid, AcceptStatus::ProcUnavail),
        };
        self.reply(header.xid, AcceptStatus::Success, body);
    }

    fn fop(&self, header: &CallHeader, body: Bytes, size: usize) {
        let xid = header.xid;
        if header.procedure == 0 {
            return self.reply(xid, AcceptStatus::Success, Message::default());
        }
        let Some(session) = self.session.clone() else {
            tracing::warn!(peer = %self.outgoing.peer(), procedure = header.procedure, "a fop before SETVOLUME");
            return self.refuse(xid, AcceptStatus::DeniedAuth(AUTH_TOOWEAK));
        };
        let fop = match fop4::decode_request(header.procedure, body) {
            Ok(fop) => fop,
            // Compound fops are gone, their number is not: 10.3 answers like this.
            Err(DecodeError::UnknownProcedure(COMPOUND)) => return self.refuse(xid, AcceptStatus::GarbageArgs),
            Err(DecodeError::UnknownProcedure(_)) => return self.refuse(xid, AcceptStatus::ProcUnavail),
            Err(e) => {
                tracing::warn!(peer = %self.outgoing.peer(), procedure = header.procedure, error = %e, "garbage arguments");
                // What is well-formed XDR but no legal request gets an errno; the rest RPC's own answer.
                return match FopKind::from_procedure(header.procedure) {
                    Some(kind) if e.errno() != errno::EINVAL || matches!(e, DecodeError::BadName { .. }) => {
                        let failed = Err(FopError::new(e.errno(), e.to_string()));
                        self.reply(xid, AcceptStatus::Success, fop4::encode_reply(kind, &failed, None));
                    }
                    _ => self.refuse(xid, AcceptStatus::GarbageArgs),
                };
            }
        };
        let Some(context) = self.context(&header.credential, &session) else {
            return self.refuse(xid, AcceptStatus::DeniedAuth(AUTH_REJECTEDCRED));
        };
        let kind = fop.kind();
        let counted = !may_wait_for_lock(kind);
        // What the answer may hold counts too.
        let size = size + crate::storage::answer_bytes(&fop);
        let (shared, outgoing) = (self.shared.clone(), self.outgoing.clone());
        self.run(counted.then_some(size), async move {
            let (result, opened) = carry_out(&shared, &session, &context, fop).await;
            if let Err(e) = &result {
                tracing::trace!(fop = %kind.name(), client = %session.uid, error = %e, "failed");
            }
            outgoing.send(rpc::encode_reply(xid, AcceptStatus::Success, fop4::encode_reply(kind, &result, opened)));
        });
    }

    /// The caller of a fop; `None` for a credential that is not understood.
    fn context(&self, credential: &Credential, session: &Session) -> Option<Context> {
        let mut context = credential.context(session.id)?;
        if let Credential::GlusterfsV3(caller) = credential
            && caller.flags == 0
        {
            // Heal, rebalance, and clients without ctime leave recorded times alone.
            context.birth = ladrillo_translator::Timespec::default();
        }
        self.shared.graph.squash().apply(&mut context, session.trusted);
        Some(context)
    }

    /// Runs `work`, counted as so many bytes of what the connection has under way, if at all.
    fn run(&self, counted: Option<usize>, work: impl Future<Output = ()> + 'static) {
        let (shared, flight) = (self.shared.clone(), self.flight.clone());
        if let Some(size) = counted {
            flight.enter(size);
            shared.pending.fetch_add(1, Ordering::Relaxed);
        }
        let mut task = Box::pin(async move {
            work.await;
            if let Some(size) = counted {
                flight.leave(size);
                shared.pending.fetch_sub(1, Ordering::Relaxed);
            }
        });
        // Most end at once: those cost no task.
        let mut now = std::task::Context::from_waker(Waker::noop());
        if task.as_mut().poll(&mut now).is_pending() {
            glommio::spawn_local(task).detach();
        }
    }
}

/// Locks wait in the locks translator, which bounds them; the unlocks they wait for must get through.
fn may_wait_for_lock(kind: FopKind) -> bool {
    matches!(kind, FopKind::Inodelk | FopKind::Finodelk | FopKind::Entrylk | FopKind::Fentrylk | FopKind::Lk)
}

/// Runs a fop through the graph on behalf of a session.
async fn carry_out(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    context: &Context,
    mut fop: Fop,
) -> (FopResult, Option<ladrillo_translator::FdId>) {
    let managed;
    let context = match shared.graph.managed_groups() {
        Some(groups) if !context.is_internal() => {
            let ask = |uid, gid| glommio::executor().spawn_blocking(move || groups::look_up(uid, gid));
            managed = groups.resolve(context, ask).await;
            &managed
        }
        _ => context,
    };
    let Some(root) = session.root else { return dispatch(shared, session, context, fop).await };
    subdir::into_volume(&mut fop, root);
    let (mut result, opened) = dispatch(shared, session, context, fop).await;
    if let Ok(reply) = &mut result {
        subdir::out_of_volume(reply, root);
    }
    (result, opened)
}

async fn dispatch(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    context: &Context,
    mut fop: Fop,
) -> (FopResult, Option<ladrillo_translator::FdId>) {
    let top = shared.graph.top();
    match &mut fop {
        Fop::Release { file } | Fop::Releasedir { file } => {
            let open = file.fd.and_then(|wire| session.closed(wire.0));
            return match open {
                Some(open) => (release(&*top, context, open).await, None),
                None => (Err(FopError::new(errno::EBADF, "no such descriptor")), None),
            };
        }
        Fop::Create { fd, .. } | Fop::Open { fd, .. } | Fop::Opendir { fd, .. } => {
            let id = next_fd();
            *fd = id;
            let directory = matches!(fop, Fop::Opendir { .. });
            let known = match &fop {
                Fop::Open { gfid, .. } | Fop::Opendir { gfid, .. } => Some(*gfid),
                _ => None,
            };
            let result = top.submit(context, fop).await;
            let gfid = match &result {
                Ok(ladrillo_translator::Reply::Entry { iatt, .. }) => iatt.gfid,
                _ => known.unwrap_or_default(),
            };
            if result.is_err() {
                return (result, None);
            }
            let open = OpenFd { id, gfid, directory };
            return match session.opened(open) {
                Ok(wire) => (result, Some(ladrillo_translator::FdId(wire))),
                Err(e) => {
                    let _ = release(&*top, context, open).await;
                    (Err(e), None)
                }
            };
        }
        _ => {}
    }
    if let Err(e) = session.translate(&mut fop) {
        return (Err(e), None);
    }
    (top.submit(context, fop).await, None)
}

async fn release(top: &dyn Translator, context: &Context, open: OpenFd) -> FopResult {
    let file = File { gfid: open.gfid, fd: Some(open.id) };
    let fop = if open.directory { Fop::Releasedir { file } } else { Fop::Release { file } };
    top.submit(context, fop).await
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Answers PINGs of the connections of executors that hang: an operation that was to end at once may still meet a disk
    /// that does not answer, and a client that gets no PING back gives up a brick that may only be slow.
    fn watch(&self) {
        while !self.stopping.load(Ordering::Acquire) {
            std::thread::sleep(BEAT);
            let now = self.now_ms();
            let hangs: Vec<bool> = self
                .beats
                .iter()
                .map(|beat| now.saturating_sub(beat.load(Ordering::Acquire)) > HANGS.as_millis() as u64)
                .collect();
            if !hangs.contains(&true) {
                continue;
            }
            let connections: Vec<Arc<Outgoing>> = self.connections.lock().iter().filter_map(|c| c.upgrade()).collect();
            let mut room = RESCUE_MAX_BYTES.saturating_sub(connections.iter().map(|c| c.left_bytes()).sum());
            for connection in connections.iter().filter(|c| hangs.get(c.executor()) == Some(&true)) {
                room = room.saturating_sub(connection.rescue(room, ping_answer));
            }
        }
    }

    /// The session of a client, made where there is none.
    fn join(&self, admitted: &Admitted, root: Option<Gfid>, connection: &Arc<Outgoing>) -> Arc<Session> {
        let mut sessions = self.sessions.lock();
        let of_client = sessions.entry(admitted.uid.clone()).or_default();
        if let Some(session) =
            of_client.iter().find(|s| s.is_of(admitted) && s.root == root && s.join(connection, &admitted.proof))
        {
            return session.clone();
        }
        let id = ClientId(self.next_client.fetch_add(1, Ordering::Relaxed));
        let session = Arc::new(Session::new(id, admitted, root));
        session.join(connection, &admitted.proof);
        if let Some(locks) = self.graph.locks() {
            locks.name_client(id, &admitted.uid);
        }
        self.by_id.pin().insert(id.0, session.clone());
        of_client.push(session.clone());
        session
    }

    /// Ends the connections of sessions that `auth.*` no longer admits as what they are.
    fn cut_refused<'a>(&self, sessions: impl IntoIterator<Item = &'a Arc<Session>>) -> usize {
        let (options, hosts) = (self.graph.server_options(), self.graph.hosts());
        let mut cut = 0;
        for session in sessions {
            let refused = session.refused(|peer, proof| {
                auth::authenticate(&options, hosts, &session.subvolume, &session.subdir, peer, proof)
            });
            for (connection, why) in refused {
                tracing::warn!(client = %session.uid, peer = %connection.peer(), reason = %why, "client cut off");
                connection.close();
                cut += 1;
            }
        }
        cut
    }

    /// Takes a connection from its session; the last one ends it.
    async fn leave(&self, session: &Arc<Session>, connection: &Arc<Outgoing>) {
        let files = {
            let mut sessions = self.sessions.lock();
            let Some(files) = session.leave(connection) else { return };
            if let Some(of_client) = sessions.get_mut(&session.uid) {
                of_client.retain(|s| !Arc::ptr_eq(s, session));
                if of_client.is_empty() {
                    sessions.remove(&session.uid);
                }
            }
            files
        };
        self.by_id.pin().remove(&session.id.0);
        let released = self.graph.locks().map_or(0, |locks| locks.release_client(session.id));
        tracing::info!(client = %session.uid, locks = released, files = files.len(), "client gone");
        let context = Context { client: session.id, ..Context::root() };
        let top = self.graph.top();
        for open in files {
            if let Err(e) = release(&*top, &context, open).await {
                tracing::debug!(gfid = %open.gfid, error = %e, "closing a file of a client that has gone");
            }
        }
    }

    /// Tells a holder of a lock that others wait for it.
    fn tell_contention(&self, contention: &Contention) {
        let session = self.by_id.pin().get(&contention.client.0).cloned();
        let Some((session, connection)) = session.and_then(|s| s.connection().map(|c| (s, c))) else { return };
        let pid = u32::from_ne_bytes(contention.pid.to_ne_bytes());
        let gfid = if session.root == Some(contention.gfid) { Gfid::ROOT } else { contention.gfid };
        let domain = contention.domain.clone();
        let xdata = ladrillo_translator::Dict::new();
        let what = match &contention.lock {
            ContendedLock::Inodelk(flock) => {
                callback::Callback::InodelkContention { gfid, flock: flock.clone(), pid, domain, xdata }
            }
            ContendedLock::Entrylk { name, kind } => callback::Callback::EntrylkContention {
                gfid,
                kind: u32::from(*kind == ladrillo_translator::fop::LockType::Write),
                pid,
                name: name.clone(),
                domain,
                xdata,
            },
        };
        self.tell(&connection, &what);
    }

    /// Tells a client that another one has changed an inode.
    fn tell_invalidation(&self, Invalidation { client, what }: &Invalidation) {
        let session = self.by_id.pin().get(&client.0).cloned();
        let Some((session, connection)) = session.and_then(|s| s.connection().map(|c| (s, c))) else { return };
        let mut what = Box::new(callback::CacheInvalidation::clone(what));
        if let Some(root) = session.root {
            subdir::out_of_notice(&mut what, root);
        }
        self.tell(&connection, &callback::Callback::CacheInvalidation(what));
    }

    fn tell(&self, connection: &Outgoing, what: &callback::Callback) {
        let Ok((procedure, body)) = what.encode() else { return };
        let xid = self.next_callback.fetch_add(1, Ordering::Relaxed) as u32;
        match rpc::encode_call(xid, callback::PROGRAM, callback::VERSION, procedure, &Credential::None, body) {
            Ok(call) => connection.send(call),
            Err(e) => tracing::warn!(error = %e, "encoding a callback"),
        }
    }
}

/// The answer to a record that is a PING.
fn ping_answer(record: &Bytes) -> Option<Message> {
    let Ok(Record::Call(header, _)) = rpc::decode_record(record.clone()) else { return None };
    let is_ping = matches!(
        (header.program, header.version, header.procedure),
        (dump::PROGRAM, dump::VERSION, dump::PROC_PING) | (wire::PROGRAM, wire::VERSION, wire::PROC_PING)
    );
    let known = !matches!(header.credential, Credential::Unknown { .. });
    (is_ping && known)
        .then(|| rpc::encode_reply(header.xid, AcceptStatus::Success, dump::PingReply::default().encode()))
}

/// What SETVOLUME's answer calls this process.
fn process_uuid() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let gfid = ladrillo_translator::Gfid::random();
    format!("CTX_ID:{gfid}-GRAPH_ID:0-PID:{}-HOST:{host}-PC_NAME:brick-RECON_NO:-0", std::process::id())
}
