//! One verbs connection: records in, records out, over messages, credits and chunks.
//!
//! Any thread may queue records; completions and events come from whoever runs the [`super::Driver`]. Everything is done under
//! one lock, held briefly; wakers are called, and a broken queue pair is torn down, after it is released.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Weak;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ladrillo_translator::payload::count_copy;
use parking_lot::Mutex;

use super::core::{Assembly, Credits, From, PATIENCE, Patience, Shape, shape};
use super::driver::{Driver, HalfOpen};
use super::sys::{Access, Buffer, CmId, Concealed, Domain, Done, Endpoint, Held, Part, Work};
use super::wire::{Chunk, Header, Hello, Kind, Violation};
use crate::{MAX_RECORD_BYTES, Message};

/// Messages of at most so many bytes go into a receive that waits for them; what is longer, by RDMA.
pub const INLINE_BYTES: usize = 4096;
/// Messages each side is ready to receive at a time.
pub const WINDOW: u32 = 128;
/// In front of the data of a chunk there is room for what comes in the message, so that the record is in one piece; a page, so
/// that the data begins at one.
const HEADROOM_BYTES: usize = INLINE_BYTES;
/// Behind it, for padding.
const TAILROOM_BYTES: usize = 64;
/// What a record is more than its payload, at most, where a chunk is asked for to take all of it.
const REPLY_HEADER_BYTES: usize = 1024;
/// Work requests that must be free for a record to leave: windows for three chunks, five transfers.
const RECORD_SLOTS: usize = 8;
/// Bytes that are fetched, or fetched and not yet taken (one record more when there is nothing).
const FETCH_MAX_BYTES: usize = 32 << 20;
/// The same, where all connections together leave little: everybody is to have a share.
const FETCH_TIGHT_BYTES: usize = 4 << 20;
/// The same, for a client that has not been let in; it may not send longer records either. SETVOLUME has some KiB.
const FETCH_STRANGER_BYTES: usize = 64 << 10;
/// Completions taken before other connections have their turn.
const COMPLETIONS_PER_TURN: usize = 512;
/// Records that may wait for a chunk at once.
const MAX_PARKED: usize = 16;
/// Calls with chunks that may wait for their answer, on the brick.
const MAX_REQUESTS: usize = 8192;
/// A side that has said nothing for so long says that it is there.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long a request may take to become a connection.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Which side this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Exposes memory, calls.
    Client,
    /// Reads and writes it, answers.
    Brick,
}

/// A connection.
pub struct Connection {
    pub(super) token: u64,
    driver: Weak<Driver>,
    inner: Mutex<Inner>,
}

/// An error that can be given to many.
#[derive(Clone, Debug)]
struct Failure {
    kind: io::ErrorKind,
    text: String,
}

impl Failure {
    fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

pub(super) struct Inner {
    role: Role,
    /// Before there is a queue pair.
    pub(super) id: Option<CmId>,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) domain: Option<std::sync::Arc<Domain>>,
    pub(super) receive: Option<std::sync::Arc<super::sys::ReceiveQueue>>,
    /// Brick: the listener it came to, until it is handed on.
    pub(super) listener: Option<u64>,
    /// Brick: counts among those that are not handed on yet.
    pub(super) half_open: Option<HalfOpen>,
    /// Brick: the client may use memory for more than introducing itself.
    admitted: bool,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    pub(super) medium: String,
    received_bytes: u64,
    sent_bytes: u64,
    born: Instant,
    established: bool,
    credits: Credits,
    /// Longest message the other side takes.
    inline_bytes: usize,
    /// The other side understands that its keys are invalidated.
    may_invalidate: bool,
    outgoing: VecDeque<Outgoing>,
    queued_bytes: usize,
    pushed: u64,
    posted: u64,
    incoming: VecDeque<Entry>,
    /// Number of the first of `incoming`.
    first_entry: u64,
    /// Of `incoming`, how many wait to be fetched.
    waiting: usize,
    /// Fetched or being fetched.
    bulk_bytes: usize,
    /// Client: what is exposed for each call.
    calls: HashMap<u32, Vec<u32>>,
    /// Client: chunks given for records that did not fit, and not yet used.
    offered: Vec<u32>,
    /// Client: records that wait for a chunk: number and length.
    needs: VecDeque<(u32, usize)>,
    /// Brick: what it may use to answer.
    requests: HashMap<u32, Request>,
    /// Brick: records that wait for a chunk.
    parked: HashMap<u32, (Instant, Outgoing)>,
    next_number: u32,
    last_sent: Instant,
    patience: Patience,
    failed: Option<Failure>,
    to_wake: Vec<Waker>,
    receiver: Option<Waker>,
    connecting: Option<Waker>,
    senders: Vec<(u64, Waker)>,
    room: Vec<(usize, Waker)>,
}

struct Outgoing {
    message: Message,
    /// Bytes the answer's payload may have.
    reply_bytes: usize,
    /// Brick: what it may use, where it is known.
    request: Option<Request>,
}

/// A record that did not leave, if it is still to, and why.
type NotSent = Box<(Option<Outgoing>, io::Error)>;

/// What a call gives its answer.
#[derive(Clone, Default)]
struct Request {
    /// To be taken back by the client; one of them by our message.
    keys: Vec<u32>,
    /// To be written to.
    chunk: Option<Chunk>,
}

/// A record on its way in; they are taken in the order in which they came.
enum Entry {
    /// It is here; so many bytes of it count as bulk.
    Ready(Bytes, usize),
    /// Brick: parts of it are to be fetched.
    Waiting(Box<Fetch>),
    /// Brick: they are being fetched, the record will be there in the buffer.
    Fetching { start: usize, end: usize },
    /// Client: it is here, but the brick could still write to it.
    Concealing(Box<Answer>),
}

struct Fetch {
    inline: Buffer,
    body: usize,
    chunks: Vec<Chunk>,
    assembly: Assembly,
}

/// An answer, all of whose keys must be out of reach before it is looked at.
struct Answer {
    pending: Vec<u32>,
    /// The chunk it was written to, and the buffer of that.
    chunk: Option<Chunk>,
    target: Option<Buffer>,
    all_chunks: bool,
    inline: Buffer,
    body: usize,
    end: usize,
}

fn violation(what: &'static str) -> io::Error {
    Violation::Unexpected(what).into()
}

impl std::convert::From<Violation> for io::Error {
    fn from(violation: Violation) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, violation)
    }
}

/// xid, and whether it is a call (RFC 5531 section 9).
fn peek(record: &[u8]) -> Option<(u32, bool)> {
    let (xid, rest) = record.split_first_chunk::<4>()?;
    let (kind, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*xid), *kind == [0; 4]))
}

impl Connection {
    pub(super) fn new(token: u64, role: Role, driver: Weak<Driver>) -> Connection {
        let now = Instant::now();
        let inner = Inner {
            role,
            id: None,
            endpoint: None,
            domain: None,
            receive: None,
            listener: None,
            half_open: None,
            admitted: role == Role::Client,
            peer: None,
            local: None,
            medium: "verbs".to_owned(),
            received_bytes: 0,
            sent_bytes: 0,
            born: now,
            established: false,
            credits: Credits::new(WINDOW, 0),
            inline_bytes: 0,
            may_invalidate: false,
            outgoing: VecDeque::new(),
            queued_bytes: 0,
            pushed: 0,
            posted: 0,
            incoming: VecDeque::new(),
            first_entry: 0,
            waiting: 0,
            bulk_bytes: 0,
            calls: HashMap::new(),
            offered: Vec::new(),
            needs: VecDeque::new(),
            requests: HashMap::new(),
            parked: HashMap::new(),
            next_number: 0,
            last_sent: now,
            patience: Patience::new(now),
            failed: None,
            to_wake: Vec::new(),
            receiver: None,
            connecting: None,
            senders: Vec::new(),
            room: Vec::new(),
        };
        Connection { token, driver, inner: Mutex::new(inner) }
    }

    /// Works under the lock; then wakes, and tears down what has failed.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        let (result, wakers, dead) = {
            let mut inner = self.inner.lock();
            let result = work(&mut inner);
            let dead = inner.failed.is_some().then(|| (inner.endpoint.take(), inner.id.take()));
            (result, std::mem::take(&mut inner.to_wake), dead)
        };
        if let Some((endpoint, id)) = dead
            && (endpoint.is_some() || id.is_some())
        {
            drop(endpoint);
            drop(id);
            if let Some(driver) = self.driver.upgrade() {
                driver.forget(self.token);
            }
        }
        for waker in wakers {
            waker.wake();
        }
        result
    }

    /// Queues a record, whatever waits already, and sends it as soon as it may be sent; gives its number for
    /// [`Connection::poll_sent`]. The answer's payload may have `reply_bytes` (0 = unknown, or small).
    pub fn queue(&self, message: Message, reply_bytes: usize) -> u64 {
        self.with(|inner| {
            if inner.failed.is_none() {
                inner.queued_bytes += message.len();
                inner.outgoing.push_back(Outgoing { message, reply_bytes, request: None });
            }
            inner.pushed += 1;
            let number = inner.pushed;
            inner.pump();
            number
        })
    }

    /// Ready when the device has taken that record.
    pub fn poll_sent(&self, number: u64, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.with(|inner| {
            if let Some(failure) = &inner.failed {
                return Poll::Ready(Err(failure.error()));
            }
            if inner.posted >= number {
                return Poll::Ready(Ok(()));
            }
            match inner.senders.iter_mut().find(|(waits_for, _)| *waits_for == number) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => inner.senders.push((number, cx.waker().clone())),
            }
            Poll::Pending
        })
    }

    /// Bytes of records that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.inner.lock().queued_bytes
    }

    /// Ready when less than `enough` bytes wait to be sent, or none ever will be.
    pub fn poll_room(&self, enough: usize, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        if inner.queued_bytes < enough || inner.failed.is_some() {
            return Poll::Ready(());
        }
        match inner.room.iter_mut().find(|(_, waker)| waker.will_wake(cx.waker())) {
            // Asked again with another bound: whichever comes first.
            Some((bound, _)) => *bound = enough.max(*bound),
            None => inner.room.push((enough, cx.waker().clone())),
        }
        Poll::Pending
    }

    /// The next record. `UnexpectedEof` when the other side has closed.
    pub fn poll_recv(&self, cx: &Context<'_>) -> Poll<io::Result<Bytes>> {
        self.with(|inner| {
            while matches!(inner.incoming.front(), Some(Entry::Ready(..)))
                && let Some(Entry::Ready(record, bulk)) = inner.incoming.pop_front()
            {
                inner.first_entry += 1;
                inner.bulk_bytes = inner.bulk_bytes.saturating_sub(bulk);
                inner.credits.consumed();
                inner.pump();
                // One that was answered meanwhile is empty.
                if !record.is_empty() {
                    inner.received_bytes += record.len() as u64;
                    return Poll::Ready(Ok(record));
                }
            }
            if let Some(failure) = &inner.failed {
                return Poll::Ready(Err(failure.error()));
            }
            inner.receiver = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// The client has been let in: what it sends may be long from now on.
    pub fn admit(&self) {
        self.with(|inner| {
            inner.admitted = true;
            inner.pump();
        });
    }

    /// Answers of what has come and is not taken, those that `answer` can: for when whoever takes records hangs.
    pub fn answer_waiting(&self, answer: impl Fn(&Bytes) -> Option<Message>) {
        self.with(|inner| {
            for entry in &mut inner.incoming {
                if let Entry::Ready(record, _) = entry
                    && let Some(message) = answer(record)
                {
                    *record = Bytes::new();
                    inner.queued_bytes += message.len();
                    inner.outgoing.push_back(Outgoing { message, reply_bytes: 0, request: None });
                    inner.pushed += 1;
                }
            }
            inner.pump();
        });
    }

    /// Ready when it is connected, or cannot be.
    pub fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.with(|inner| {
            if let Some(failure) = &inner.failed {
                return Poll::Ready(Err(failure.error()));
            }
            if inner.established {
                return Poll::Ready(Ok(()));
            }
            inner.connecting = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Ends it at once; what waits fails.
    pub fn close(&self) {
        self.fail(io::ErrorKind::ConnectionAborted, "the connection was closed here");
    }

    pub(super) fn fail(&self, kind: io::ErrorKind, text: &str) {
        self.with(|inner| inner.fail(kind, text.to_owned()));
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.inner.lock().failed.is_some()
    }

    /// The other end.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.inner.lock().peer
    }

    /// The other end, for logs.
    pub fn peer(&self) -> String {
        name(self.inner.lock().peer)
    }

    /// Our end, for logs.
    pub fn local(&self) -> String {
        name(self.inner.lock().local)
    }

    /// Sends bytes as they are, against all rules: for tests of the other side. `false` when there is no room.
    #[doc(hidden)]
    pub fn send_raw(&self, message: &[u8]) -> bool {
        self.with(|inner| {
            if !inner.has_slots() || !inner.established {
                return false;
            }
            let Ok(mut buffer) = inner.domain().and_then(|domain| domain.buffer(message.len())) else { return false };
            let copied = copy(&mut buffer, 0, message);
            copied.and_then(|()| inner.post(Vec::new(), Vec::new(), (buffer, message.len()), None)).is_ok()
        })
    }

    /// What carries it: the device.
    pub fn medium(&self) -> String {
        self.inner.lock().medium.clone()
    }

    /// Its state in one line, for dumps.
    pub fn describe(&self) -> String {
        let inner = self.inner.lock();
        let ready = inner.incoming.iter().filter(|entry| matches!(entry, Entry::Ready(..))).count();
        format!(
            "{} to {}: {} records queued, {} parked; {} here, {} on their way; {} calls and {} offers with chunks, {} needs; \
             {} work requests free, {} receives posted; {:?}; failed: {:?}",
            name(inner.local),
            name(inner.peer),
            inner.outgoing.len(),
            inner.parked.len(),
            ready,
            inner.incoming.len() - ready,
            inner.calls.len() + inner.requests.len(),
            inner.offered.len(),
            inner.needs.len(),
            inner.endpoint.as_ref().map_or(0, Endpoint::room),
            inner.receive.as_ref().map_or(0, |receive| receive.posted()),
            inner.credits,
            inner.failed.as_ref().map(|failure| &failure.text),
        )
    }

    /// Bytes of records received and taken, and sent.
    pub fn traffic(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.received_bytes, inner.sent_bytes)
    }

    /// Takes what has completed; whether it is to be called again, after others have had their turn.
    pub(super) fn complete(&self, spins: usize) -> bool {
        self.with(|inner| inner.complete(spins))
    }

    /// Once a second: tries again what could not be done, shows that it is alive, gives up what does not come to be.
    pub(super) fn tick(&self, now: Instant) {
        self.with(|inner| {
            if !inner.established && now.duration_since(inner.born) > HANDSHAKE {
                inner.fail(io::ErrorKind::TimedOut, "no handshake".to_owned());
            }
            inner.credits.second();
            inner.pump();
            if inner.takes_nothing(now) {
                let seconds = PATIENCE.as_secs();
                tracing::info!(peer = %name(inner.peer), seconds, "RDMA connection ended: the client takes nothing");
                inner.fail(io::ErrorKind::TimedOut, format!("the peer has taken nothing for {seconds} s"));
            }
            if inner.established && inner.failed.is_none() && now.duration_since(inner.last_sent) > KEEPALIVE {
                let sent = inner.control(Kind::Credit, 0, Vec::new());
                inner.check(sent);
            }
        });
    }
}

fn name(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "?".to_owned(), |address| address.to_string())
}

impl Inner {
    pub(super) fn note_addresses(&mut self, id: &CmId) {
        (self.local, self.peer) = id.addresses();
    }

    pub(super) fn hear_hello(&mut self, hello: Hello) {
        self.credits = Credits::new(WINDOW, hello.credits);
        self.inline_bytes = (hello.inline_bytes as usize).min(INLINE_BYTES);
        self.may_invalidate = hello.invalidate;
    }

    pub(super) fn set_established(&mut self) {
        self.established = true;
        self.half_open = None;
        self.to_wake.extend(self.connecting.take());
        self.pump();
    }

    pub(super) fn fail(&mut self, kind: io::ErrorKind, text: String) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(Failure { kind, text });
        self.half_open = None;
        self.outgoing.clear();
        self.parked.clear();
        self.requests.clear();
        self.queued_bytes = 0;
        // What is here may still be taken.
        let ready = self.incoming.iter().take_while(|entry| matches!(entry, Entry::Ready(..))).count();
        self.incoming.truncate(ready);
        self.to_wake.extend(self.receiver.take());
        self.to_wake.extend(self.connecting.take());
        self.to_wake.extend(self.senders.drain(..).map(|(_, waker)| waker));
        self.to_wake.extend(self.room.drain(..).map(|(_, waker)| waker));
    }

    /// Fails the connection with an error; "not now" is none.
    fn check(&mut self, result: io::Result<()>) {
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    tracing::warn!(peer = %name(self.peer), %error, "RDMA connection ended: the other side breaks the protocol");
                } else {
                    tracing::warn!(peer = %name(self.peer), %error, "RDMA connection ended");
                }
                self.fail(error.kind(), error.to_string());
            }
            Ok(()) => {}
        }
    }

    fn endpoint(&mut self) -> io::Result<&mut Endpoint> {
        self.endpoint.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))
    }

    fn domain(&self) -> io::Result<std::sync::Arc<Domain>> {
        self.domain.clone().ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))
    }

    fn has_slots(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.room() >= RECORD_SLOTS)
    }

    /// Brick: whether answers have waited too long for the client to take them. What waits for memory of ours is not its fault.
    fn takes_nothing(&mut self, now: Instant) -> bool {
        if self.role != Role::Brick || self.failed.is_some() {
            return false;
        }
        let unsent = !self.outgoing.is_empty() && !self.credits.may_send();
        let waits = unsent || self.endpoint.as_ref().is_some_and(Endpoint::is_busy);
        self.patience.is_over(waits, now)
            || self.parked.values().any(|(since, _)| now.saturating_duration_since(*since) > PATIENCE)
    }

    /// Bytes of records that may be fetched, or fetched and not yet taken.
    fn fetch_limit(&self) -> usize {
        match &self.domain {
            _ if !self.admitted => FETCH_STRANGER_BYTES,
            Some(domain) if domain.is_tight() => FETCH_TIGHT_BYTES,
            _ => FETCH_MAX_BYTES,
        }
    }

    /// Does all that can be done now.
    pub(super) fn pump(&mut self) {
        if !self.established || self.failed.is_some() {
            return;
        }
        let result = self.try_pump();
        self.check(result);
    }

    fn try_pump(&mut self) -> io::Result<()> {
        // Records leave also where there is no memory for others to come.
        unless_later(self.fetch())?;
        unless_later(self.answer_needs())?;
        unless_later(self.send_queued())?;
        if !self.room.is_empty() {
            let queued = self.queued_bytes;
            let woken = self.room.extract_if(.., |(enough, _)| queued < *enough).map(|(_, waker)| waker);
            self.to_wake.extend(woken);
        }
        if self.credits.owes_word() && self.has_slots() {
            self.control(Kind::Credit, 0, Vec::new())?;
        }
        Ok(())
    }

    /// Sends the records that may be sent now.
    fn send_queued(&mut self) -> io::Result<()> {
        while self.credits.may_send() && self.has_slots() {
            let Some(outgoing) = self.outgoing.pop_front() else { break };
            let len = outgoing.message.len();
            match self.send(outgoing) {
                Ok(true) => {
                    self.queued_bytes = self.queued_bytes.saturating_sub(len);
                    self.sent_bytes += len as u64;
                }
                Ok(false) => {}
                Err(not_sent) => {
                    let (outgoing, error) = *not_sent;
                    if let Some(outgoing) = outgoing {
                        self.outgoing.push_front(outgoing);
                    }
                    return Err(error);
                }
            }
            self.posted += 1;
            self.patience.moved(Instant::now());
            let posted = self.posted;
            let woken = self.senders.extract_if(.., |(number, _)| *number <= posted).map(|(_, waker)| waker);
            self.to_wake.extend(woken);
        }
        Ok(())
    }

    fn header(&mut self, kind: Kind, xid: u32, answer: bool, reads: Vec<Chunk>, writes: Vec<Chunk>) -> Header {
        Header { xid, credit: self.credits.advertise(), kind, answer, reads, writes }
    }

    /// A message in a registered buffer: the header and `parts`.
    fn message(&self, header: &Header, parts: &[&[u8]]) -> io::Result<(Buffer, usize)> {
        let mut buffer = self.domain()?.reserved(INLINE_BYTES)?;
        let mut encoded = BytesMut::with_capacity(header.len());
        header.encode(&mut encoded);
        let mut at = 0;
        for part in std::iter::once(&encoded[..]).chain(parts.iter().copied()) {
            copy(&mut buffer, at, part)?;
            at += part.len();
        }
        if at > self.inline_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message too long"));
        }
        Ok((buffer, at))
    }

    /// Posts a message behind other work.
    fn post(
        &mut self,
        mut work: Vec<Work>,
        mut held: Vec<Held>,
        (buffer, len): (Buffer, usize),
        invalidate: Option<u32>,
    ) -> io::Result<()> {
        work.push(Work::Send { parts: vec![Part { held: held.len(), start: 0, len }], invalidate });
        held.push(Held::Buffer(buffer));
        self.last_sent = Instant::now();
        // The room was looked at before: "full" is no "later" here.
        self.endpoint()?.post(&work, held, 0).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Sends a message that is no record.
    fn control(&mut self, kind: Kind, xid: u32, writes: Vec<Chunk>) -> io::Result<()> {
        if !self.has_slots() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let header = self.header(kind, xid, false, Vec::new(), writes);
        let message = self.message(&header, &[])?;
        self.post(Vec::new(), Vec::new(), message, None)
    }

    /// Sends a record; `false` when it waits for a chunk. With an error the record comes back if it has not left.
    fn send(&mut self, outgoing: Outgoing) -> Result<bool, NotSent> {
        let Some((xid, is_call)) = peek(&outgoing.message.header) else {
            return Err(Box::new((None, io::Error::new(io::ErrorKind::InvalidInput, "not an RPC record"))));
        };
        if outgoing.message.len() > MAX_RECORD_BYTES {
            return Err(Box::new((None, io::Error::new(io::ErrorKind::InvalidInput, "a record too long"))));
        }
        match self.role {
            Role::Client => match self.send_call(&outgoing, xid, is_call) {
                Ok(()) => Ok(true),
                Err(error) => Err(Box::new((Some(outgoing), error))),
            },
            Role::Brick => self.send_answer(outgoing, xid, is_call),
        }
    }

    /// The payload of a record as memory the device can read: registered as it is, copied only where that cannot be.
    fn payload(&self, payload: &Bytes) -> io::Result<Held> {
        let domain = self.domain()?;
        match domain.source(payload.clone()) {
            Ok(source) => Ok(Held::Source(source)),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(error),
            Err(_) => {
                let mut buffer = domain.reserved(payload.len())?;
                copy(&mut buffer, 0, payload)?;
                count_copy(payload.len());
                Ok(Held::Buffer(buffer))
            }
        }
    }

    /// Exposes memory, as a chunk.
    fn expose(&mut self, held: Held, start: usize, len: usize, position: usize, access: Access) -> io::Result<Chunk> {
        let (handle, address) = self.endpoint()?.expose(held, start, len, access)?;
        Ok(Chunk { position: position as u32, handle, length: len as u32, address })
    }

    fn send_call(&mut self, outgoing: &Outgoing, xid: u32, is_call: bool) -> io::Result<()> {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        let prepared = self.prepare_call(outgoing, xid, is_call, &mut reads, &mut writes);
        let keys: Vec<u32> = reads.iter().chain(&writes).map(|chunk| chunk.handle).collect();
        let message = match prepared {
            Ok(message) => message,
            Err(error) => {
                // Not yet bound: taken back at once.
                for key in keys {
                    self.endpoint()?.conceal(key, false)?;
                }
                return Err(error);
            }
        };
        if !keys.is_empty() {
            self.calls.insert(xid, keys);
        }
        self.credits.sent();
        self.post(Vec::new(), Vec::new(), message, None)
    }

    fn prepare_call(
        &mut self,
        outgoing: &Outgoing,
        xid: u32,
        is_call: bool,
        reads: &mut Vec<Chunk>,
        writes: &mut Vec<Chunk>,
    ) -> io::Result<(Buffer, usize)> {
        let message = &outgoing.message;
        let (head, payload) = (&message.header, message.payload.bytes());
        let padding = usize::from(message.padding.min(3));
        let wanted = outgoing.reply_bytes.saturating_add(REPLY_HEADER_BYTES).min(MAX_RECORD_BYTES);
        if is_call && wanted > INLINE_BYTES {
            let buffer = self.domain()?.buffer(HEADROOM_BYTES + wanted + TAILROOM_BYTES)?;
            writes.push(self.expose(Held::Buffer(buffer), HEADROOM_BYTES, wanted, 0, Access::Write)?);
        }
        let shape = shape(head.len(), payload.len(), padding, writes.len(), self.inline_bytes);
        let zeroes = &[0; 3][..padding];
        if shape == Shape::Chunks {
            let mut body = self.domain()?.buffer(head.len() + padding)?;
            copy(&mut body, 0, head)?;
            copy(&mut body, head.len(), zeroes)?;
            reads.push(self.expose(Held::Buffer(body), 0, head.len() + padding, 0, Access::Read)?);
        }
        if shape != Shape::Inline && !payload.is_empty() {
            let held = self.payload(payload)?;
            reads.push(self.expose(held, 0, payload.len(), head.len(), Access::Read)?);
        }
        let kind = if shape == Shape::Chunks { Kind::Chunks } else { Kind::Message };
        let header = self.header(kind, xid, !is_call, reads.clone(), writes.clone());
        match shape {
            Shape::Inline => {
                count_copy(payload.len());
                self.message(&header, &[head, payload, zeroes])
            }
            Shape::Payload => self.message(&header, &[head, zeroes]),
            Shape::Chunks => self.message(&header, &[]),
        }
    }

    fn send_answer(&mut self, mut outgoing: Outgoing, xid: u32, is_call: bool) -> Result<bool, NotSent> {
        if outgoing.request.is_none() && !is_call {
            outgoing.request = self.requests.remove(&xid);
        }
        match self.try_answer(&outgoing, xid, is_call) {
            Ok(true) => {
                self.credits.sent();
                Ok(true)
            }
            Ok(false) if self.parked.len() < MAX_PARKED => {
                self.next_number = self.next_number.wrapping_add(1);
                let number = self.next_number;
                let length = outgoing.message.len() as u32;
                let need = Chunk { position: 0, handle: 0, length, address: 0 };
                match self.control(Kind::Need, number, vec![need]) {
                    Ok(()) => {
                        self.credits.sent();
                        self.parked.insert(number, (Instant::now(), outgoing));
                        Ok(false)
                    }
                    Err(error) => Err(Box::new((Some(outgoing), error))),
                }
            }
            Ok(false) => Err(Box::new((Some(outgoing), io::ErrorKind::WouldBlock.into()))),
            Err(error) => Err(Box::new((Some(outgoing), error))),
        }
    }

    /// Sends a record if what its call gave is enough for it.
    fn try_answer(&mut self, outgoing: &Outgoing, xid: u32, is_call: bool) -> io::Result<bool> {
        let message = &outgoing.message;
        let (head, payload) = (&message.header, message.payload.bytes());
        let padding = usize::from(message.padding.min(3));
        let zeroes = &[0; 3][..padding];
        let request = outgoing.request.clone().unwrap_or_default();
        let wanted = shape(head.len(), payload.len(), padding, 0, self.inline_bytes);
        let used = match (wanted, request.chunk) {
            (Shape::Inline, _) => None,
            (Shape::Payload, Some(chunk)) if payload.len() <= chunk.length as usize => {
                Some(Chunk { position: head.len() as u32, length: payload.len() as u32, ..chunk })
            }
            (_, Some(chunk)) if message.len() <= chunk.length as usize => {
                Some(Chunk { position: 0, length: message.len() as u32, ..chunk })
            }
            _ => return Ok(false),
        };
        let invalidate =
            used.map(|chunk| chunk.handle).or(request.keys.first().copied()).filter(|_| self.may_invalidate);
        let (mut work, mut held) = (Vec::new(), Vec::new());
        let sent = match used {
            None => {
                count_copy(payload.len());
                let header = self.header(Kind::Message, xid, !is_call, Vec::new(), Vec::new());
                self.message(&header, &[head, payload, zeroes])?
            }
            Some(chunk) if wanted == Shape::Payload && chunk.position > 0 => {
                let from = vec![Part { held: 0, start: 0, len: payload.len() }];
                work.push(Work::Write { from, address: chunk.address, key: chunk.handle });
                held.push(self.payload(payload)?);
                let header = self.header(Kind::Message, xid, !is_call, Vec::new(), vec![chunk]);
                self.message(&header, &[head, zeroes])?
            }
            Some(chunk) => {
                let mut body = self.domain()?.reserved(head.len() + padding)?;
                copy(&mut body, 0, head)?;
                copy(&mut body, head.len(), zeroes)?;
                held.push(Held::Buffer(body));
                let mut from = vec![Part { held: 0, start: 0, len: head.len() }];
                if !payload.is_empty() {
                    held.push(self.payload(payload)?);
                    from.push(Part { held: 1, start: 0, len: payload.len() });
                }
                if padding > 0 {
                    from.push(Part { held: 0, start: head.len(), len: padding });
                }
                work.push(Work::Write { from, address: chunk.address, key: chunk.handle });
                let header = self.header(Kind::Chunks, xid, !is_call, Vec::new(), vec![chunk]);
                self.message(&header, &[])?
            }
        };
        self.post(work, held, sent, invalidate)?;
        Ok(true)
    }

    /// Client: gives chunks to records that need one.
    fn answer_needs(&mut self) -> io::Result<()> {
        while self.has_slots() {
            let Some((number, length)) = self.needs.front().copied() else { break };
            let buffer = self.domain()?.buffer(HEADROOM_BYTES + length + TAILROOM_BYTES)?;
            let chunk = self.expose(Held::Buffer(buffer), HEADROOM_BYTES, length, 0, Access::Write)?;
            self.offered.push(chunk.handle);
            self.needs.pop_front();
            self.control(Kind::Offer, number, vec![chunk])?;
        }
        Ok(())
    }

    /// Brick: begins to fetch what is in chunks, as much as may be under way, in order.
    fn fetch(&mut self) -> io::Result<()> {
        if self.waiting == 0 {
            return Ok(());
        }
        let limit = self.fetch_limit();
        while self.waiting > 0 && self.has_slots() {
            let Some(index) = self.incoming.iter().position(|entry| matches!(entry, Entry::Waiting(_))) else { break };
            let Some(Entry::Waiting(fetch)) = self.incoming.get(index) else { break };
            let total = fetch.assembly.total;
            if self.bulk_bytes > 0 && self.bulk_bytes.saturating_add(total) > limit {
                break;
            }
            // The first chunk's data at a page's beginning, what is in front of it before that.
            let start = HEADROOM_BYTES.saturating_sub(fetch.assembly.first_chunk_at().unwrap_or(0));
            let mut buffer = self.domain()?.buffer(start + total)?;
            let mut work = Vec::new();
            for piece in &fetch.assembly.pieces {
                match &piece.from {
                    From::Inline(range) => {
                        let body = fetch.inline.as_ref().get(fetch.body + range.start..fetch.body + range.end);
                        copy(&mut buffer, start + piece.at, body.unwrap_or_default())?;
                    }
                    From::Chunk(index, offset) => {
                        let Some(chunk) = fetch.chunks.get(*index) else { continue };
                        let into = Part { held: 0, start: start + piece.at, len: piece.len };
                        work.push(Work::Read { into, address: chunk.address + *offset as u64, key: chunk.handle });
                    }
                }
            }
            let token = self.first_entry + index as u64 + 1;
            if let Some(entry) = self.incoming.get_mut(index) {
                *entry = Entry::Fetching { start, end: start + total };
            }
            self.waiting -= 1;
            self.bulk_bytes += total;
            self.endpoint()?
                .post(&work, vec![Held::Buffer(buffer)], token)
                .map_err(|e| io::Error::other(e.to_string()))?;
        }
        Ok(())
    }

    /// Takes completions until there are none, and asks to be told of the next; or until others are to have their turn: `true`.
    fn complete(&mut self, spins: usize) -> bool {
        let mut spins = spins;
        let mut left = COMPLETIONS_PER_TURN;
        let mut armed = false;
        while self.failed.is_none() {
            let mut done = Vec::new();
            let Some(endpoint) = self.endpoint.as_mut() else { return false };
            let count = endpoint.poll(&mut done);
            if count == 0 && done.is_empty() {
                if armed {
                    break;
                }
                if spins > 0 {
                    spins -= 1;
                    std::hint::spin_loop();
                    continue;
                }
                // One more look after that: what came in between raises no event.
                let result = endpoint.arm();
                self.check(result);
                armed = true;
                continue;
            }
            armed = false;
            for done in done {
                let result = self.take(done);
                self.check(result);
                if self.failed.is_some() {
                    return false;
                }
            }
            if let Some(receive) = &self.receive
                && let Err(error) = receive.refill()
            {
                tracing::warn!(%error, "posting receives for RDMA");
            }
            self.pump();
            left = left.saturating_sub(count);
            if left == 0 {
                return self.failed.is_none();
            }
        }
        false
    }

    fn take(&mut self, done: Done) -> io::Result<()> {
        if matches!(done, Done::Finished { .. }) {
            self.patience.moved(Instant::now());
        }
        match done {
            Done::Received { buffer, len, invalidated } => self.received(buffer, len, invalidated),
            Done::Finished { token: 0, .. } => Ok(()),
            Done::Finished { token, mut held } => {
                let index = (token - 1).checked_sub(self.first_entry).and_then(|index| usize::try_from(index).ok());
                let entry = index.and_then(|index| self.incoming.get_mut(index));
                if let (Some(entry), Some(Held::Buffer(buffer))) = (entry, held.pop())
                    && let Entry::Fetching { start, end } = *entry
                {
                    *entry = Entry::Ready(buffer.into_bytes(start, end), end - start);
                    self.wake_receiver();
                }
                Ok(())
            }
            Done::Concealed { key, held } => {
                for index in 0..self.incoming.len() {
                    let Some(Entry::Concealing(answer)) = self.incoming.get_mut(index) else { continue };
                    let before = answer.pending.len();
                    answer.pending.retain(|pending| *pending != key);
                    if answer.pending.len() == before {
                        continue;
                    }
                    if let (Some(chunk), Held::Buffer(buffer)) = (answer.chunk, held)
                        && chunk.handle == key
                    {
                        answer.target = Some(buffer);
                    }
                    return self.finish_answer(index);
                }
                Ok(())
            }
            Done::Failed(text) => {
                let kind = io::ErrorKind::ConnectionAborted;
                if text.contains("bad key") {
                    tracing::warn!(peer = %name(self.peer), reason = text, "RDMA connection ended");
                }
                self.fail(kind, text);
                Ok(())
            }
        }
    }

    fn wake_receiver(&mut self) {
        if matches!(self.incoming.front(), Some(Entry::Ready(..))) {
            self.to_wake.extend(self.receiver.take());
        }
    }

    fn received(&mut self, buffer: Buffer, len: usize, invalidated: Option<u32>) -> io::Result<()> {
        let message = buffer.as_ref().get(..len).unwrap_or_default();
        let (header, body) = Header::decode(message)?;
        self.credits.heard(header.credit);
        if matches!(header.kind, Kind::Message | Kind::Chunks | Kind::Need) {
            self.credits.received()?;
        }
        if invalidated.is_some() && (self.role == Role::Brick || !header.answer) {
            return Err(violation("a key was taken back that was not to be"));
        }
        match (header.kind, self.role) {
            (Kind::Credit, _) => Ok(self.credits.word()?),
            (Kind::Message | Kind::Chunks, Role::Brick) => self.called(header, buffer, body, len),
            (Kind::Message | Kind::Chunks, Role::Client) => self.answered(&header, buffer, body, len, invalidated),
            (Kind::Need, Role::Client) => {
                self.credits.consumed();
                let [chunk] = header.writes[..] else { return Err(violation("a need without a length")) };
                if self.needs.len() + self.offered.len() >= MAX_PARKED {
                    return Err(violation("too many records that need a chunk"));
                }
                self.needs.push_back((header.xid, chunk.length as usize));
                Ok(())
            }
            (Kind::Offer, Role::Brick) => {
                let [chunk] = header.writes[..] else { return Err(violation("an offer without a chunk")) };
                let (_, parked) =
                    self.parked.remove(&header.xid).ok_or(Violation::Unexpected("an offer for nothing"))?;
                if (chunk.length as usize) < parked.message.len() {
                    return Err(violation("an offer too small"));
                }
                let mut request = parked.request.unwrap_or_default();
                request.keys.push(chunk.handle);
                request.chunk = Some(chunk);
                // It was counted as sent when its need was.
                self.posted = self.posted.saturating_sub(1);
                self.outgoing.push_front(Outgoing { request: Some(request), ..parked });
                Ok(())
            }
            (Kind::Need, Role::Brick) => Err(violation("a client that asks for memory")),
            (Kind::Offer, Role::Client) => Err(violation("a brick that offers memory")),
        }
    }

    /// Brick: a call has come.
    fn called(&mut self, header: Header, inline: Buffer, body: usize, end: usize) -> io::Result<()> {
        let Header { xid, kind, answer, reads, writes, .. } = header;
        if writes.len() > 1 || (answer && !(reads.is_empty() && writes.is_empty())) {
            return Err(violation("chunks that have no use"));
        }
        let assembly = Assembly::new(end - body, &reads, kind == Kind::Chunks)?;
        if !self.admitted && !reads.is_empty() && assembly.total > FETCH_STRANGER_BYTES {
            return Err(violation("a long record of a client that has not been let in"));
        }
        let keys: Vec<u32> = writes.iter().chain(&reads).map(|chunk| chunk.handle).collect();
        if !keys.is_empty() {
            if self.requests.len() >= MAX_REQUESTS {
                return Err(violation("too many calls with chunks"));
            }
            self.requests.insert(xid, Request { keys, chunk: writes.first().copied() });
        }
        if reads.is_empty() {
            self.incoming.push_back(Entry::Ready(inline.into_bytes(body, end), 0));
            self.wake_receiver();
        } else {
            self.incoming.push_back(Entry::Waiting(Box::new(Fetch { inline, body, chunks: reads, assembly })));
            self.waiting += 1;
        }
        Ok(())
    }

    /// Client: an answer (or a callback) has come.
    fn answered(
        &mut self,
        header: &Header,
        inline: Buffer,
        body: usize,
        end: usize,
        invalidated: Option<u32>,
    ) -> io::Result<()> {
        if !header.reads.is_empty() || header.writes.len() > 1 {
            return Err(violation("a brick that offers memory"));
        }
        let chunk = header.writes.first().copied();
        let mut keys = if header.answer { self.calls.remove(&header.xid).unwrap_or_default() } else { Vec::new() };
        if let Some(chunk) = chunk {
            if let Some(place) = self.offered.iter().position(|key| *key == chunk.handle) {
                self.offered.swap_remove(place);
                keys.push(chunk.handle);
            }
            let exposure = self.endpoint()?.exposure(chunk.handle);
            match exposure {
                Some((address, len, Access::Write))
                    if keys.contains(&chunk.handle) && address == chunk.address && chunk.length as usize <= len => {}
                _ => return Err(violation("an answer in memory that was not given for it")),
            }
        }
        let all_chunks = header.kind == Kind::Chunks;
        if all_chunks && chunk.is_none_or(|chunk| chunk.position != 0) {
            return Err(violation("a record in no chunk"));
        }
        if invalidated.is_some_and(|key| !keys.contains(&key)) {
            return Err(violation("a key was taken back that was not to be"));
        }
        let mut answer = Answer { pending: Vec::new(), chunk, target: None, all_chunks, inline, body, end };
        for key in keys {
            match self.endpoint()?.conceal(key, invalidated == Some(key))? {
                Concealed::Now(Held::Buffer(buffer)) if chunk.is_some_and(|chunk| chunk.handle == key) => {
                    answer.target = Some(buffer);
                }
                Concealed::Now(_) | Concealed::Unknown => {}
                Concealed::Later => answer.pending.push(key),
            }
        }
        self.incoming.push_back(Entry::Concealing(Box::new(answer)));
        self.finish_answer(self.incoming.len() - 1)
    }

    /// Makes the record, when nobody can change it any more.
    fn finish_answer(&mut self, index: usize) -> io::Result<()> {
        let Some(entry) = self.incoming.get_mut(index) else { return Ok(()) };
        if !matches!(entry, Entry::Concealing(answer) if answer.pending.is_empty()) {
            return Ok(());
        }
        let Entry::Concealing(answer) = std::mem::replace(entry, Entry::Ready(Bytes::new(), 0)) else { return Ok(()) };
        *entry = Entry::Ready(answer.into_record()?, 0);
        self.wake_receiver();
        Ok(())
    }
}

impl Answer {
    fn into_record(self) -> io::Result<Bytes> {
        let Some(chunk) = self.chunk else { return Ok(self.inline.into_bytes(self.body, self.end)) };
        let mut target = self.target.ok_or_else(|| violation("an answer in no buffer"))?;
        let data_end = HEADROOM_BYTES + chunk.length as usize;
        if self.all_chunks {
            return Ok(target.into_bytes(HEADROOM_BYTES, data_end));
        }
        let inline = self.inline.as_ref().get(self.body..self.end).unwrap_or_default();
        let (before, after) = inline
            .split_at_checked(chunk.position as usize)
            .ok_or_else(|| violation("data behind the end of its record"))?;
        let start = HEADROOM_BYTES - before.len().min(HEADROOM_BYTES);
        copy(&mut target, start, before)?;
        copy(&mut target, data_end, after)?;
        Ok(target.into_bytes(start, data_end + after.len()))
    }
}

/// "Not now" is no error.
fn unless_later(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) })
}

/// Copies what is no payload.
fn copy(buffer: &mut Buffer, at: usize, data: &[u8]) -> io::Result<()> {
    let place = at.checked_add(data.len()).and_then(|end| buffer.as_mut_slice().get_mut(at..end));
    place.ok_or_else(|| violation("no room for it"))?.copy_from_slice(data);
    Ok(())
}
