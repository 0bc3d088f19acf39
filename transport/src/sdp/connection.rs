//! RPC records over one rsocket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use ladrillo_translator::LocalFuture;
use parking_lot::Mutex;

use super::driver::{Driver, Watched};
use super::sys::{Interest, Rsocket};
use crate::record::{RecordReader, record_mark};
use crate::{Accepted, Message, Transport};

/// Bytes that may wait to be sent before further senders wait.
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// A peer that is further behind than that with what was posted is given up.
const MAX_POSTED_BYTES: usize = 256 << 20;
/// Bytes and records received that may wait to be taken; the rest waits in the peer.
const MAX_INBOX_BYTES: usize = 64 << 20;
const MAX_INBOX_RECORDS: usize = 4096;
/// Most buffers handed over at once.
const GATHER: usize = 64;
/// Receives for one connection before the others have their turn.
const RECEIVES_PER_TURN: usize = 16;

/// What the driver, senders and the receiver share.
pub struct Connection {
    socket: Rsocket,
    driver: &'static Driver,
    peer: String,
    local: String,
    sending: Mutex<Sending>,
    inbox: Mutex<Inbox>,
    over: AtomicBool,
    /// The library has said that nothing more comes; it says so at each poll.
    hung_up: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
}

#[derive(Default)]
struct Sending {
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// Bytes queued and bytes gone since the beginning.
    pushed: u64,
    gone: u64,
    /// Who waits until `gone` has passed a number, or for room (0).
    waiting: Vec<(u64, Waker)>,
    /// The library took less than all: the driver is to say when it takes more.
    blocked: bool,
    failed: Option<Failure>,
}

#[derive(Default)]
struct Inbox {
    reader: RecordReader,
    records: VecDeque<Bytes>,
    bytes: usize,
    /// The driver was told not to receive: whoever makes room rings.
    full: bool,
    waker: Option<Waker>,
    failed: Option<Failure>,
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

/// A connection as its user has it; dropping it ends the connection.
pub struct RsocketTransport {
    shared: Arc<Connection>,
}

impl RsocketTransport {
    /// Of a connected rsocket that does not block.
    ///
    /// # Errors
    /// There are too many.
    pub fn new(socket: Rsocket) -> io::Result<RsocketTransport> {
        let driver = Driver::get()?;
        let name = |address: Option<std::net::SocketAddr>| address.map_or_else(|| "?".to_owned(), |a| a.to_string());
        let shared = Arc::new(Connection {
            peer: name(socket.peer()),
            local: name(socket.local()),
            socket,
            driver,
            sending: Mutex::default(),
            inbox: Mutex::default(),
            over: AtomicBool::new(false),
            hung_up: AtomicBool::new(false),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        driver.watch(shared.clone())?;
        Ok(RsocketTransport { shared })
    }
}

impl Drop for RsocketTransport {
    fn drop(&mut self) {
        self.close();
    }
}

impl Transport for RsocketTransport {
    fn send<'a>(&'a self, message: Message) -> LocalFuture<'a, io::Result<()>> {
        let shared = &self.shared;
        // Queued by the call itself, not by the first poll: calls and records have one order.
        let queued = shared.push(message, MAX_QUEUED_BYTES);
        Box::pin(async move {
            let number = match queued {
                Ok(number) => number,
                Err((_, Some(error))) => return Err(error),
                Err((message, None)) => shared.push_when_there_is_room(message).await?,
            };
            std::future::poll_fn(|cx| shared.poll_gone(cx, number)).await
        })
    }

    fn recv<'a>(&'a self) -> LocalFuture<'a, io::Result<Bytes>> {
        Box::pin(std::future::poll_fn(|cx| self.shared.poll_record(cx)))
    }

    fn close(&self) {
        let text = format!("{}: the connection was closed here", self.shared.peer);
        self.shared.fail(Failure { kind: io::ErrorKind::ConnectionAborted, text });
    }

    fn peer(&self) -> String {
        self.shared.peer.clone()
    }

    fn local(&self) -> String {
        self.shared.local.clone()
    }

    fn medium(&self) -> String {
        "rsocket".to_owned()
    }
}

impl Accepted for RsocketTransport {
    fn post(&self, message: Message) -> io::Result<()> {
        match self.shared.push(message, MAX_POSTED_BYTES) {
            Ok(_) => Ok(()),
            Err((_, Some(error))) => Err(error),
            Err((_, None)) => {
                let text = format!("{}: the peer reads nothing, too much waits for it", self.shared.peer);
                let failure = Failure { kind: io::ErrorKind::ConnectionAborted, text };
                self.shared.fail(failure.clone());
                Err(failure.error())
            }
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        let mut sending = self.shared.sending.lock();
        if sending.queued_bytes < bytes || sending.failed.is_some() {
            return Poll::Ready(());
        }
        // When so much has gone that no more than that is left.
        let number = sending.gone + (sending.queued_bytes - bytes) as u64 + 1;
        sending.wait(number, cx.waker());
        Poll::Pending
    }

    fn traffic(&self) -> (u64, u64) {
        (self.shared.received.load(Ordering::Relaxed), self.shared.sent.load(Ordering::Relaxed))
    }

    fn rescue(&self, answer: &dyn Fn(&Bytes) -> Option<Message>) {
        let mut answers = Vec::new();
        let relieved;
        {
            let mut inbox = self.shared.inbox.lock();
            let mut kept = 0;
            inbox.records.retain(|record| match answer(record) {
                Some(message) => {
                    answers.push(message);
                    false
                }
                None => {
                    kept += record.len();
                    true
                }
            });
            inbox.bytes = kept;
            relieved = inbox.relieve();
        }
        if relieved {
            self.shared.driver.ring();
        }
        for message in answers {
            let _ = self.post(message);
        }
    }
}

impl Inbox {
    /// Whether the driver is to receive again: it was told not to, and half is taken.
    fn relieve(&mut self) -> bool {
        let relieved = self.full && self.bytes < MAX_INBOX_BYTES / 2 && self.records.len() < MAX_INBOX_RECORDS / 2;
        self.full &= !relieved;
        relieved
    }
}

/// What to poll for. A full inbox takes no records, and an end that is known already would end each poll at once.
fn wanted(full: bool, hung_up: bool, blocked: bool) -> Option<i16> {
    if full && hung_up {
        return None;
    }
    let receive = if full { 0 } else { libc::POLLIN };
    Some(if blocked { receive | libc::POLLOUT } else { receive })
}

impl Sending {
    fn wait(&mut self, number: u64, waker: &Waker) {
        match self.waiting.iter_mut().find(|(of, known)| *of == number && known.will_wake(waker)) {
            Some(_) => {}
            None => self.waiting.push((number, waker.clone())),
        }
    }

    fn wake_gone(&mut self) {
        let gone = self.gone;
        let (due, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|(number, _)| *number <= gone);
        self.waiting = rest;
        let due: Vec<(u64, Waker)> = due;
        for (_, waker) in due {
            waker.wake();
        }
    }
}

impl Connection {
    /// Queues a message and sends what can go; its end's number. Gives it back where `most` bytes would be passed, with
    /// the error where the connection is over.
    fn push(&self, message: Message, most: usize) -> Result<u64, (Message, Option<io::Error>)> {
        let mut sending = self.sending.lock();
        if let Some(failure) = &sending.failed {
            return Err((message, Some(failure.error())));
        }
        if !sending.queue.is_empty() && sending.queued_bytes.saturating_add(message.len()) > most {
            return Err((message, None));
        }
        let mut head = BytesMut::with_capacity(4 + message.header.len());
        head.extend_from_slice(&record_mark(message.len()));
        head.extend_from_slice(&message.header);
        let padding = Bytes::from_static(&[0; 3]).slice(..usize::from(message.padding.min(3)));
        for piece in [head.freeze(), message.payload.into_bytes(), padding] {
            if !piece.is_empty() {
                sending.queued_bytes += piece.len();
                sending.pushed += piece.len() as u64;
                sending.queue.push_back(piece);
            }
        }
        let number = sending.pushed;
        if !sending.blocked
            && let Err(error) = self.drain(&mut sending)
        {
            drop(sending);
            self.lost(&error);
        }
        Ok(number)
    }

    async fn push_when_there_is_room(&self, message: Message) -> io::Result<u64> {
        let mut message = Some(message);
        std::future::poll_fn(|cx| {
            let Some(waiting) = message.take() else { return Poll::Pending };
            match self.push(waiting, MAX_QUEUED_BYTES) {
                Ok(number) => Poll::Ready(Ok(number)),
                Err((_, Some(error))) => Poll::Ready(Err(error)),
                Err((back, None)) => {
                    message = Some(back);
                    let mut sending = self.sending.lock();
                    // Anything that goes makes some room.
                    let number = sending.gone + 1;
                    if sending.queue.is_empty() || sending.failed.is_some() {
                        cx.waker().wake_by_ref();
                    } else {
                        sending.wait(number, cx.waker());
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn poll_gone(&self, cx: &mut Context<'_>, number: u64) -> Poll<io::Result<()>> {
        let mut sending = self.sending.lock();
        if sending.gone >= number {
            return Poll::Ready(Ok(()));
        }
        if let Some(failure) = &sending.failed {
            return Poll::Ready(Err(failure.error()));
        }
        sending.wait(number, cx.waker());
        Poll::Pending
    }

    /// Sends until the queue is empty or the library takes no more.
    fn drain(&self, sending: &mut Sending) -> io::Result<()> {
        while !sending.queue.is_empty() {
            let pieces: Vec<IoSlice<'_>> = sending.queue.iter().take(GATHER).map(|piece| IoSlice::new(piece)).collect();
            let outcome = self.socket.send(&pieces);
            drop(pieces);
            match outcome {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.sent.fetch_add(sent as u64, Ordering::Relaxed);
                    sending.gone += sent as u64;
                    sending.queued_bytes = sending.queued_bytes.saturating_sub(sent);
                    consume(&mut sending.queue, sent);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !std::mem::replace(&mut sending.blocked, true) {
                        self.driver.ring();
                    }
                    sending.wake_gone();
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        sending.blocked = false;
        sending.wake_gone();
        Ok(())
    }

    fn poll_record(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut inbox = self.inbox.lock();
        if let Some(record) = inbox.records.pop_front() {
            inbox.bytes = inbox.bytes.saturating_sub(record.len());
            if inbox.relieve() {
                drop(inbox);
                self.driver.ring();
            }
            return Poll::Ready(Ok(record));
        }
        if let Some(failure) = &inbox.failed {
            return Poll::Ready(Err(failure.error()));
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Receives what is there; whether all of it was taken.
    fn receive(&self) -> io::Result<bool> {
        let mut inbox = self.inbox.lock();
        let mut dry = false;
        for _ in 0..RECEIVES_PER_TURN {
            if inbox.bytes >= MAX_INBOX_BYTES || inbox.records.len() >= MAX_INBOX_RECORDS {
                inbox.full = true;
                break;
            }
            let wanted = inbox.reader.wanted();
            match self.socket.receive(inbox.reader.buffer(), wanted) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(received) => {
                    self.received.fetch_add(received as u64, Ordering::Relaxed);
                    while let Some(record) = inbox.reader.next_record()? {
                        inbox.bytes += record.len();
                        inbox.records.push_back(record);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    dry = true;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if !inbox.records.is_empty()
            && let Some(waker) = inbox.waker.take()
        {
            drop(inbox);
            waker.wake();
        }
        Ok(dry)
    }

    fn lost(&self, error: &io::Error) {
        let text = match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("{}: the peer closed the connection", self.peer),
            _ => format!("{}: {error}", self.peer),
        };
        self.fail(Failure { kind: error.kind(), text });
    }

    /// Ends the connection: what was received may still be taken unless the end came from here, the rest fails.
    fn fail(&self, failure: Failure) {
        {
            let mut sending = self.sending.lock();
            sending.failed.get_or_insert_with(|| failure.clone());
            sending.queue.clear();
            sending.queued_bytes = 0;
            sending.blocked = false;
            for (_, waker) in sending.waiting.drain(..) {
                waker.wake();
            }
        }
        let waker = {
            let mut inbox = self.inbox.lock();
            if failure.kind == io::ErrorKind::ConnectionAborted {
                inbox.records.clear();
                inbox.bytes = 0;
            }
            inbox.failed.get_or_insert(failure);
            inbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if !self.over.swap(true, Ordering::AcqRel) {
            self.driver.ring();
        }
    }
}

impl Watched for Connection {
    fn interest(&self) -> Option<Interest> {
        let full = self.inbox.lock().full;
        let wanted = wanted(full, self.hung_up.load(Ordering::Acquire), self.sending.lock().blocked)?;
        Some(Interest { number: self.socket.number(), wanted, found: 0 })
    }

    fn ready(&self, found: i16) {
        if found & libc::POLLOUT != 0 {
            let mut sending = self.sending.lock();
            if let Err(error) = self.drain(&mut sending) {
                drop(sending);
                return self.lost(&error);
            }
        }
        let ends = found & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        if ends {
            self.hung_up.store(true, Ordering::Release);
        }
        if found & libc::POLLIN != 0 || ends {
            match self.receive() {
                Ok(true) if ends => {
                    // Nothing more comes: what the library says it died of, if it says so.
                    match self.socket.error() {
                        0 => self.lost(&io::Error::from(io::ErrorKind::UnexpectedEof)),
                        errno => self.lost(&io::Error::from_raw_os_error(errno)),
                    }
                }
                Ok(_) => {}
                Err(error) => self.lost(&error),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Tells the peer; may wait.
    fn end(&self) {
        // Nobody sends any more, and whoever was at it has finished with the lock.
        drop(self.sending.lock());
        self.socket.shut_down();
    }
}

/// Drops the first `count` bytes.
fn consume(queue: &mut VecDeque<Bytes>, mut count: usize) {
    while count > 0 {
        let Some(front) = queue.front_mut() else { return };
        if front.len() > count {
            let _ = front.split_to(count);
            return;
        }
        count -= front.len();
        queue.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_that_was_full_hears_again_when_half_is_taken() {
        let record = |inbox: &mut Inbox, count: usize| {
            inbox.records.extend(std::iter::repeat_n(Bytes::from_static(&[0; 4]), count));
            inbox.bytes += 4 * count;
        };
        let mut inbox = Inbox::default();
        record(&mut inbox, MAX_INBOX_RECORDS);
        assert!(!inbox.relieve(), "nobody was told not to receive");
        inbox.full = true;
        assert!(!inbox.relieve());
        inbox.records.truncate(MAX_INBOX_RECORDS / 2 - 1);
        assert!(inbox.relieve() && !inbox.full);
        assert!(!inbox.relieve(), "once");
    }

    #[test]
    fn a_full_inbox_of_an_ended_connection_is_not_polled() {
        assert_eq!(wanted(true, true, false), None);
        assert_eq!(wanted(true, true, true), None);
        assert_eq!(wanted(false, true, false), Some(libc::POLLIN));
        assert_eq!(wanted(true, false, false), Some(0));
        assert_eq!(wanted(true, false, true), Some(libc::POLLOUT));
        assert_eq!(wanted(false, false, true), Some(libc::POLLIN | libc::POLLOUT));
    }
}
