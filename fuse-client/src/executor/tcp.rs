//! RPC records over TCP (and unix sockets) on the ring: the client's [`Transport`].
//!
//! Records that wait to be sent leave together, each as its parts (mark, header, payload, padding): nothing is joined.
//! A big record is received straight into a buffer of its own ([`RecordReader`]).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ladrillo_translator::LocalFuture;
use ladrillo_transport::{Address, Connector, Message, RecordReader, Transport, Via, record_mark, sdp};
use parking_lot::Mutex;

use super::io::{MAX_PARTS, Received, WriteBuffer, connect_tcp, connect_unix, recv, send};
use super::op::{Finished, Op};
use super::{resolve, spawn, timeout};

/// Most records that wait to be sent; further callers wait. Source: our bound, beyond what one mount has in flight.
const MAX_QUEUED_RECORDS: usize = 4096;
/// Most bytes that wait to be sent (a record more is taken when there is nothing).
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// Most bytes handed to the kernel at once.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// A link that acknowledges nothing for so long is dead (TCP_USER_TIMEOUT).
const LINK_TIMEOUT: Duration = Duration::from_secs(5);
/// Keepalive: first probe after, and between probes; four lost in a row end the connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_PROBES: u32 = 4;

/// Makes connections on the ring of the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

/// A connection. Its operations run on the ring of whichever executor thread calls; one thread at a time receives.
struct TcpTransport {
    shared: Arc<Connection>,
}

struct Connection {
    fd: Arc<OwnedFd>,
    peer: String,
    local: String,
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
}

#[derive(Default)]
struct Sending {
    queue: VecDeque<Message>,
    queued_bytes: usize,
    /// Records queued and records taken by the kernel, since the beginning.
    pushed: u64,
    taken: u64,
    /// Whoever waits for `taken` to reach a number.
    waiting: VecDeque<(u64, Waker)>,
    /// Whoever waits for room, in order: ticket and waker.
    admission: VecDeque<(u64, Option<Waker>)>,
    last_admission: u64,
    writing: bool,
    failed: Option<Failure>,
}

#[derive(Default)]
struct Receiving {
    reader: RecordReader,
    /// In flight across callers: a dropped `recv` loses nothing.
    op: Option<Op<Received<BytesMut>>>,
    failed: Option<Failure>,
}

/// An error that can be given to many.
#[derive(Clone, Debug)]
struct Failure {
    kind: io::ErrorKind,
    errno: Option<i32>,
    message: String,
}

impl Failure {
    fn of(error: &io::Error, peer: &str) -> Failure {
        Failure { kind: error.kind(), errno: error.raw_os_error(), message: format!("{peer}: {error}") }
    }

    fn aborted(peer: &str) -> Failure {
        let message = format!("{peer}: the connection was closed here");
        Failure { kind: io::ErrorKind::ConnectionAborted, errno: None, message }
    }

    fn error(&self) -> io::Error {
        match self.errno {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(self.kind, self.message.clone()),
        }
    }
}

// SAFETY: BytesMut's memory is on the heap and stays there when the handle is moved; the spare part is nobody else's.
unsafe impl WriteBuffer for BytesMut {
    fn spare(&mut self) -> (*mut u8, usize) {
        let spare = self.spare_capacity_mut();
        (spare.as_mut_ptr().cast(), spare.len())
    }
}

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, address: &'a Address, limit: Duration) -> LocalFuture<'a, io::Result<Arc<dyn Transport>>> {
        Box::pin(async move {
            match timeout(limit, connect(address)).await {
                Ok(connected) => connected,
                Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address}: {elapsed}"))),
            }
        })
    }
}

async fn connect(address: &Address) -> io::Result<Arc<dyn Transport>> {
    match address {
        Address::Tcp { host, port } => {
            let mut last = None;
            for candidate in resolve(host, *port).await? {
                match connect_tcp(candidate, |socket| prepare(socket, candidate)).await {
                    Ok(fd) => {
                        let local = rustix::net::getsockname(&fd)
                            .ok()
                            .and_then(|local| SocketAddr::try_from(local).ok())
                            .map(|local| local.to_string());
                        return Ok(transport(fd, candidate.to_string(), local.unwrap_or_default()));
                    }
                    Err(error) => last = Some(error),
                }
            }
            let error = last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address"));
            Err(io::Error::new(error.kind(), format!("{host}:{port}: {error}")))
        }
        Address::Unix(path) => {
            let fd = connect_unix(path)
                .await
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            let name = path.display().to_string();
            Ok(transport(fd, name.clone(), name))
        }
        Address::Memory(name) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{name}: in-memory networks have their own connector"),
        )),
        Address::Rdma { .. } | Address::Sdp { .. } => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("{address}: not TCP's")))
        }
    }
}

/// Connects a stream of the kernel's over RDMA: its sockets are used as TCP's are.
pub(super) async fn connect_kernel_stream(address: SocketAddr, via: Via) -> io::Result<Arc<dyn Transport>> {
    let socket = sdp::kernel::socket(via, address)?;
    prepare(&socket, address)?;
    let fd = super::io::connect(socket, address.into()).await?;
    let local = rustix::net::getsockname(&fd).ok().and_then(|local| SocketAddr::try_from(local).ok());
    Ok(transport(fd, address.to_string(), local.map(|local| local.to_string()).unwrap_or_default()))
}

fn transport(fd: Arc<OwnedFd>, peer: String, local: String) -> Arc<dyn Transport> {
    Arc::new(TcpTransport {
        shared: Arc::new(Connection { fd, peer, local, sending: Mutex::default(), receiving: Mutex::default() }),
    })
}

fn prepare(socket: &socket2::Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(LINK_TIMEOUT)).map_err(|error| {
        tracing::warn!("{address}: TCP_USER_TIMEOUT: {error}");
        error
    })
}

impl Transport for TcpTransport {
    fn send<'a>(&'a self, message: Message) -> LocalFuture<'a, io::Result<()>> {
        let connection = &self.shared;
        // Queued by the call itself, not by the first poll: calls and records have one order.
        let place = connection.enqueue(message);
        Box::pin(connection.sent(place))
    }

    fn recv<'a>(&'a self) -> LocalFuture<'a, io::Result<Bytes>> {
        Box::pin(self.shared.receive())
    }

    fn close(&self) {
        self.shared.close();
    }

    fn peer(&self) -> String {
        self.shared.peer.clone()
    }

    fn local(&self) -> String {
        self.shared.local.clone()
    }

    fn medium(&self) -> String {
        sdp::kernel::medium(&self.shared.fd).unwrap_or_else(|| "tcp".to_owned())
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Where a record stands after `send` was called.
enum Place {
    /// It is the n-th of the connection.
    Queued(u64),
    /// The queue was full: it waits for admission.
    Outside(Message, u64),
}

impl Sending {
    fn has_room(&self, bytes: usize) -> bool {
        self.queue.is_empty()
            || (self.queue.len() < MAX_QUEUED_RECORDS && self.queued_bytes.saturating_add(bytes) <= MAX_QUEUED_BYTES)
    }

    fn push(&mut self, message: Message) -> u64 {
        self.queued_bytes += message.len();
        self.queue.push_back(message);
        self.pushed += 1;
        self.pushed
    }

    /// The next records to leave together, as parts, and how many records they are.
    fn take_batch(&mut self) -> (VecDeque<Bytes>, u64) {
        let (mut parts, mut bytes, mut records) = (VecDeque::new(), 0usize, 0u64);
        while let Some(next) = self.queue.front() {
            let enough = parts.len() + 4 > MAX_PARTS || bytes.saturating_add(next.len()) > MAX_BATCH_BYTES;
            if records > 0 && enough {
                break;
            }
            let Some(message) = self.queue.pop_front() else { break };
            bytes += message.len();
            records += 1;
            parts.push_back(Bytes::copy_from_slice(&record_mark(message.len())));
            parts.push_back(message.header);
            let padding = Bytes::from_static(&[0; 3]).slice(..usize::from(message.padding.min(3)));
            parts.extend([message.payload.into_bytes(), padding].into_iter().filter(|part| !part.is_empty()));
        }
        self.queued_bytes -= bytes;
        (parts, records)
    }

    /// Wakes the first who waits for room.
    fn admit(&mut self) {
        if let Some((_, waker)) = self.admission.front_mut()
            && let Some(waker) = waker.take()
        {
            waker.wake();
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failed.get_or_insert(failure);
        self.queue.clear();
        self.queued_bytes = 0;
        for (_, waker) in self.waiting.drain(..) {
            waker.wake();
        }
        for (_, waker) in &mut self.admission {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

impl Connection {
    fn enqueue(self: &Arc<Connection>, message: Message) -> Place {
        let mut sending = self.sending.lock();
        if !sending.admission.is_empty() || !sending.has_room(message.len()) {
            sending.last_admission += 1;
            let ticket = sending.last_admission;
            sending.admission.push_back((ticket, None));
            return Place::Outside(message, ticket);
        }
        let number = sending.push(message);
        self.start_writing(&mut sending);
        Place::Queued(number)
    }

    fn start_writing(self: &Arc<Connection>, sending: &mut Sending) {
        if !sending.writing && sending.failed.is_none() {
            sending.writing = true;
            spawn(self.clone().write());
        }
    }

    /// Completes when the record is with the kernel.
    async fn sent(self: &Arc<Connection>, place: Place) -> io::Result<()> {
        let number = match place {
            Place::Queued(number) => number,
            Place::Outside(message, ticket) => self.admitted(message, ticket).await?,
        };
        std::future::poll_fn(|cx| {
            let mut sending = self.sending.lock();
            if sending.taken >= number {
                return Poll::Ready(Ok(()));
            }
            if let Some(failure) = &sending.failed {
                return Poll::Ready(Err(failure.error()));
            }
            match sending.waiting.iter_mut().find(|(waits_for, _)| *waits_for == number) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => sending.waiting.push_back((number, cx.waker().clone())),
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for its turn and for room, then queues.
    async fn admitted(self: &Arc<Connection>, message: Message, ticket: u64) -> io::Result<u64> {
        let _turn = Turn { connection: self, ticket };
        let mut message = Some(message);
        std::future::poll_fn(|cx| {
            let mut sending = self.sending.lock();
            if let Some(failure) = &sending.failed {
                return Poll::Ready(Err(failure.error()));
            }
            let first = sending.admission.front().is_some_and(|(first, _)| *first == ticket);
            if first && sending.has_room(message.as_ref().map_or(0, Message::len)) {
                let number = sending.push(message.take().unwrap_or_default());
                self.start_writing(&mut sending);
                return Poll::Ready(Ok(number));
            }
            if let Some((_, waker)) = sending.admission.iter_mut().find(|(of, _)| *of == ticket) {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Sends until the queue is empty; a task of its own, so that no caller's end cuts a record in two.
    async fn write(self: Arc<Connection>) {
        loop {
            let (mut parts, records) = {
                let mut sending = self.sending.lock();
                if sending.queue.is_empty() {
                    sending.writing = false;
                    return;
                }
                let batch = sending.take_batch();
                sending.admit();
                batch
            };
            while !parts.is_empty() {
                match send(&self.fd, parts.iter().cloned().collect()).await {
                    Ok(0) => return self.break_down(&io::Error::from(io::ErrorKind::WriteZero)),
                    Ok(sent) => advance(&mut parts, sent),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return self.break_down(&error),
                }
            }
            let mut sending = self.sending.lock();
            sending.taken += records;
            let taken = sending.taken;
            sending.waiting.retain(|(number, waker)| {
                let done = *number <= taken;
                if done {
                    waker.wake_by_ref();
                }
                !done
            });
        }
    }

    fn break_down(&self, error: &io::Error) {
        let mut sending = self.sending.lock();
        sending.writing = false;
        sending.fail(Failure::of(error, &self.peer));
        drop(sending);
        // Half a record may have left: nothing more can be said on this connection.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }

    async fn receive(&self) -> io::Result<Bytes> {
        std::future::poll_fn(|cx| {
            let mut guard = self.receiving.lock();
            let receiving = &mut *guard;
            loop {
                if let Some(failure) = &receiving.failed {
                    return Poll::Ready(Err(failure.error()));
                }
                let mut op = match receiving.op.take() {
                    Some(op) => op,
                    None => {
                        match receiving.reader.next_record() {
                            Ok(Some(record)) => return Poll::Ready(Ok(record)),
                            Ok(None) => {}
                            Err(error) => return Poll::Ready(Err(receiving.fail(&error, &self.peer))),
                        }
                        let buffer = receiving.reader.take_buffer();
                        match recv(&self.fd, buffer) {
                            Ok(op) => op,
                            Err(error) => return Poll::Ready(Err(receiving.fail(&error, &self.peer))),
                        }
                    }
                };
                let Poll::Ready(Finished { result, resource }) = Pin::new(&mut op).poll(cx) else {
                    receiving.op = Some(op);
                    return Poll::Pending;
                };
                let mut buffer = resource.buffer;
                match result {
                    Ok(0) => {
                        let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection");
                        return Poll::Ready(Err(receiving.fail(&error, &self.peer)));
                    }
                    Ok(received) => {
                        let length = buffer.len() + received as usize;
                        assert!(length <= buffer.capacity(), "the kernel writes no more than it was given");
                        // SAFETY: the kernel has initialised `received` bytes behind the old length.
                        unsafe { buffer.set_len(length) };
                        receiving.reader.put_buffer(buffer);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => receiving.reader.put_buffer(buffer),
                    Err(error) => return Poll::Ready(Err(receiving.fail(&error, &self.peer))),
                }
            }
        })
        .await
    }

    fn close(&self) {
        let failure = Failure::aborted(&self.peer);
        self.sending.lock().fail(failure.clone());
        let mut receiving = self.receiving.lock();
        receiving.failed.get_or_insert(failure);
        drop(receiving);
        // Ends what is in flight: who waits for it wakes and finds the failure.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }
}

impl Receiving {
    fn fail(&mut self, error: &io::Error, peer: &str) -> io::Error {
        let failure = Failure::of(error, peer);
        self.failed.get_or_insert(failure).error()
    }
}

/// A place in the queue for admission, given up when done or dropped.
struct Turn<'a> {
    connection: &'a Arc<Connection>,
    ticket: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut sending = self.connection.sending.lock();
        sending.admission.retain(|(ticket, _)| *ticket != self.ticket);
        sending.admit();
    }
}

/// Drops the first `count` bytes.
fn advance(parts: &mut VecDeque<Bytes>, mut count: usize) {
    while count > 0 {
        let Some(first) = parts.front_mut() else { return };
        if first.len() <= count {
            count -= first.len();
            parts.pop_front();
        } else {
            let _ = first.split_to(count);
            return;
        }
    }
}
