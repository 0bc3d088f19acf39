//! A client's connection on a kernel socket (TCP, or a family that looks the same): records in, records out, neither
//! without bound.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures::AsyncWriteExt;
use futures::future::Either;
use glommio::net::TcpStream;
use ladrillo_transport::Message;
use ladrillo_transport::record::{RecordReader, record_mark};
use parking_lot::Mutex;

/// Bytes of answers that may wait for a client before its next requests do.
pub const OUTGOING_ENOUGH_BYTES: usize = 8 << 20;
/// A client that is further behind than that and all it had under way is cut off.
const OUTGOING_MAX_BYTES: usize = 256 << 20;
/// Most records that a rescue leaves to a hanging executor for one connection. Source: our bound.
const MAX_LEFT: usize = 4096;
/// Most buffers handed to one sendmsg: 1024 is Linux's limit (UIO_MAXIOV); fewer are plenty.
const GATHER: usize = 64;

/// The sending half, shared by whoever answers; any thread may send.
pub struct Outgoing {
    socket: StdTcpStream,
    peer: String,
    inbox: Mutex<Inbox>,
    state: Mutex<State>,
    closed: AtomicBool,
}

/// What was received and not yet taken. Shared, so that [`Outgoing::rescue`] finds PINGs while the executor hangs.
struct Inbox {
    reader: RecordReader,
    /// Records that a rescue has read and left to the executor, in order.
    left: VecDeque<Bytes>,
    left_bytes: usize,
    /// The task that waits for a record.
    waiter: Option<Waker>,
    /// The last receive took all there was: the next look waits for more before it asks the kernel again.
    drained: bool,
}

/// What looking for a record found.
enum Found {
    Record(Bytes),
    Nothing,
    End,
}

impl Inbox {
    fn new() -> Inbox {
        Inbox { reader: RecordReader::new(), left: VecDeque::new(), left_bytes: 0, waiter: None, drained: false }
    }

    /// A record that is here, or comes without waiting.
    fn look(&mut self, fd: RawFd) -> io::Result<Found> {
        loop {
            if let Some(record) = self.reader.next_record()? {
                return Ok(Found::Record(record));
            }
            if std::mem::take(&mut self.drained) {
                return Ok(Found::Nothing);
            }
            let wanted = self.reader.wanted();
            let buffer = self.reader.buffer();
            let room = wanted.min(buffer.capacity() - buffer.len());
            let received = receive(fd, buffer, wanted);
            self.drained = matches!(received, Ok(n) if n > 0 && n < room);
            match received {
                Ok(0) if self.reader.at_boundary() => return Ok(Found::End),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Found::Nothing),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[derive(Default)]
struct State {
    /// Pieces not yet sent, in order.
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// The task that sends what did not go at once.
    writer: Option<Waker>,
    /// The task that waits until enough has gone to take more requests.
    reader: Option<Waker>,
}

impl Outgoing {
    /// Queues a record and sends as much as the kernel takes at once. A client that reads nothing is cut off.
    pub fn send(&self, message: Message) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.lock();
        let idle = state.queue.is_empty();
        state.push(message);
        if idle {
            // Otherwise the writer is at work already.
            if let Err(e) = self.drain(&mut state) {
                drop(state);
                self.fail(&e);
                return;
            }
        }
        if state.queued_bytes > OUTGOING_MAX_BYTES {
            drop(state);
            self.fail(&io::Error::other("the client reads nothing, too many answers wait for it"));
            return;
        }
        if !state.queue.is_empty()
            && let Some(waker) = state.writer.take()
        {
            waker.wake();
        }
    }

    /// Ends the connection; the reading half notices.
    pub fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            let wakers = {
                let mut state = self.state.lock();
                [state.writer.take(), state.reader.take()]
            };
            for waker in wakers.into_iter().flatten() {
                waker.wake();
            }
        }
    }

    /// Ready when few enough answers wait, or none ever will.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.queued_bytes < OUTGOING_ENOUGH_BYTES || self.closed.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Reads what has come while the executor hangs: `answer` answers what needs no executor, the rest waits for it. Stops
    /// when `room` bytes wait; returns how many more do. The executor meets an error or the end when it goes on.
    pub fn rescue(&self, room: usize, answer: impl Fn(&Bytes) -> Option<Message>) -> usize {
        let mut answers = Vec::new();
        let mut kept = 0;
        {
            let mut inbox = self.inbox.lock();
            while kept < room && inbox.left.len() < MAX_LEFT {
                let Ok(Found::Record(record)) = inbox.look(self.socket.as_raw_fd()) else { break };
                match answer(&record) {
                    Some(message) => answers.push(message),
                    None => {
                        kept += record.len();
                        inbox.left_bytes += record.len();
                        inbox.left.push_back(record);
                    }
                }
            }
            if kept > 0
                && let Some(waiter) = inbox.waiter.take()
            {
                waiter.wake();
            }
        }
        for message in answers {
            self.send(message);
        }
        kept
    }

    /// Bytes that a rescue has read and the executor not yet taken.
    pub fn left_bytes(&self) -> usize {
        self.inbox.lock().left_bytes
    }

    /// What carries it.
    pub fn medium(&self) -> String {
        ladrillo_transport::sdp::kernel::medium(&self.socket).unwrap_or_else(|| "tcp".to_owned())
    }

    /// Bytes received from and acknowledged by the other end, as the kernel counts them; 0 where it does not say.
    pub fn traffic(&self) -> (u64, u64) {
        // Linux's struct tcp_info (linux/tcp.h): tcpi_bytes_acked and tcpi_bytes_received, since 4.1.
        const ACKED: usize = 120;
        const RECEIVED: usize = 128;
        let mut info = [0u8; 256];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the buffer lives until the call returns, and `length` is its size.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let field = |at: usize| {
            let end = at + 8;
            let known = result == 0 && end <= length as usize;
            let bytes = info.get(at..end).filter(|_| known).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        (field(RECEIVED), field(ACKED))
    }

    fn fail(&self, error: &io::Error) {
        if !self.closed.load(Ordering::Acquire) {
            tracing::info!(peer = %self.peer, %error, "connection lost while sending");
        }
        self.close();
    }

    /// Sends until the queue is empty or the kernel takes no more.
    fn drain(&self, state: &mut State) -> io::Result<()> {
        while !state.queue.is_empty() {
            let slices: Vec<IoSlice<'_>> = state.queue.iter().take(GATHER).map(|piece| IoSlice::new(piece)).collect();
            let mut header: libc::msghdr = unsafe_zeroed_header();
            header.msg_iov = slices.as_ptr().cast_mut().cast();
            header.msg_iovlen = slices.len() as _;
            // SAFETY: the header points at `slices`, which (IoSlice being an iovec) live until the call returns.
            let sent =
                unsafe { libc::sendmsg(self.socket.as_raw_fd(), &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
            drop(slices);
            match usize::try_from(sent) {
                Ok(sent) => state.consume(sent),
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        }
        Ok(())
    }
}

fn unsafe_zeroed_header() -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    unsafe { std::mem::zeroed() }
}

impl State {
    fn push(&mut self, message: Message) {
        let mut head = BytesMut::with_capacity(4 + message.header.len());
        head.extend_from_slice(&record_mark(message.len()));
        head.extend_from_slice(&message.header);
        let padding = Bytes::from_static(&[0; 3]).slice(..usize::from(message.padding.min(3)));
        for piece in [head.freeze(), message.payload.into_bytes(), padding] {
            if !piece.is_empty() {
                self.queued_bytes += piece.len();
                self.queue.push_back(piece);
            }
        }
    }

    fn consume(&mut self, mut sent: usize) {
        self.queued_bytes = self.queued_bytes.saturating_sub(sent);
        if self.queued_bytes < OUTGOING_ENOUGH_BYTES
            && let Some(waker) = self.reader.take()
        {
            waker.wake();
        }
        while sent > 0 {
            let Some(front) = self.queue.front_mut() else { return };
            if front.len() > sent {
                let _ = front.split_to(sent);
                return;
            }
            sent -= front.len();
            self.queue.pop_front();
        }
    }
}

/// The receiving half, and the task that sends what did not go at once. Lives on one executor.
pub struct Incoming {
    socket: TcpStream,
    outgoing: Arc<Outgoing>,
}

/// Makes a connection out of an accepted socket. Call on the executor that keeps it.
pub fn adopt(socket: OwnedFd, peer: String) -> io::Result<(Incoming, Arc<Outgoing>)> {
    let raw = StdTcpStream::from(socket);
    let sending = raw.try_clone()?;
    let waiting = raw.try_clone()?;
    let outgoing = Arc::new(Outgoing {
        socket: sending,
        peer,
        inbox: Mutex::new(Inbox::new()),
        state: Mutex::default(),
        closed: AtomicBool::new(false),
    });
    // SAFETY: each stream owns the descriptor that into_raw_fd gives up.
    let (rx, tx) =
        unsafe { (TcpStream::from_raw_fd(raw.into_raw_fd()), TcpStream::from_raw_fd(waiting.into_raw_fd())) };
    glommio::spawn_local(write_rest(outgoing.clone(), tx)).detach();
    Ok((Incoming { socket: rx, outgoing: outgoing.clone() }, outgoing))
}

/// Sends what the kernel did not take at once, whenever it takes more.
async fn write_rest(outgoing: Arc<Outgoing>, mut socket: TcpStream) {
    loop {
        futures::future::poll_fn(|cx| {
            let mut state = outgoing.state.lock();
            if !state.queue.is_empty() || outgoing.closed.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        if outgoing.closed.load(Ordering::Acquire) {
            return;
        }
        // Waits until the kernel takes the first piece, or a part of it; nobody else sends while the queue is not empty.
        let Some(front) = outgoing.state.lock().queue.front().cloned() else { continue };
        match socket.write(&front).await {
            Ok(sent) => {
                let mut state = outgoing.state.lock();
                state.consume(sent);
                if let Err(e) = outgoing.drain(&mut state) {
                    drop(state);
                    outgoing.fail(&e);
                }
            }
            Err(e) => outgoing.fail(&e),
        }
    }
}

impl Incoming {
    /// The next record, or `None` at the end of the connection.
    ///
    /// # Errors
    /// What is no record, or the network's.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let left = |inbox: &mut Inbox| {
                let record = inbox.left.pop_front()?;
                inbox.left_bytes -= record.len();
                Some(record)
            };
            {
                let mut inbox = self.outgoing.inbox.lock();
                if let Some(record) = left(&mut inbox) {
                    return Ok(Some(record));
                }
                match inbox.look(self.socket.as_raw_fd())? {
                    Found::Record(record) => return Ok(Some(record)),
                    Found::End => return Ok(None),
                    Found::Nothing => {}
                }
            }
            let outgoing = &self.outgoing;
            let rescued = futures::future::poll_fn(|cx| {
                let mut inbox = outgoing.inbox.lock();
                if !inbox.left.is_empty() {
                    return Poll::Ready(());
                }
                inbox.waiter = Some(cx.waker().clone());
                Poll::Pending
            });
            let mut byte = [0];
            let more = self.socket.peek(&mut byte);
            futures::pin_mut!(rescued, more);
            if let Either::Left((outcome, _)) = futures::future::select(more, rescued).await {
                outcome.map_err(io::Error::from)?;
            }
        }
    }
}

/// Receives into the spare capacity of `buffer`, without waiting.
fn receive(fd: i32, buffer: &mut BytesMut, wanted: usize) -> io::Result<usize> {
    let spare: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    let len = wanted.min(spare.len());
    // SAFETY: `spare` is ours to write for `len` bytes.
    let n = unsafe { libc::recv(fd, spare.as_mut_ptr().cast(), len, libc::MSG_DONTWAIT) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written `n` bytes behind the current length.
    unsafe { buffer.set_len(buffer.len() + n) };
    Ok(n)
}
