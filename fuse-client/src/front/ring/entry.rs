//! An entry of the kernel's ring: memory that it writes requests to and reads answers from, and the two commands for it.
//!
//! Source of the layout: the kernel's `include/uapi/linux/fuse.h`, `struct fuse_uring_req_header` and
//! `struct fuse_uring_cmd_req`.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;

use crate::executor::{Finished, Op, driver_command};
use crate::front::abi::{OUT_HEADER_BYTES, uring};
use crate::front::answer::{Answer, Undo};

/// Memory of its own, from the kernel and given back to it; zeroes until it is written to.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is plain memory, owned.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives no access to it.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping wherever the kernel likes touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Mapping { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The memory of an entry: the payload, then the headers in a page of their own.
pub struct Memory {
    mapping: Mapping,
    payload_bytes: usize,
    /// Headers and payload, as REGISTER names them.
    parts: [libc::iovec; 2],
    /// A part of the payload is somebody else's to read.
    lent: AtomicBool,
    returned: AtomicWaker,
}

// SAFETY: the pointers of `parts` are into the mapping, which is owned; who may touch it when is [`Request`]'s business.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// An entry: its memory, and what it belongs to.
struct Entry {
    memory: Arc<Memory>,
    device: Arc<OwnedFd>,
    queue: u16,
}

/// An entry with the kernel: the next request will come in it.
pub struct Pending(Op<Entry>);

/// A request the kernel gave us: the entry's memory is ours until it is answered.
pub struct Request(Box<Entry>);

impl Memory {
    fn new(payload_bytes: usize) -> io::Result<Arc<Memory>> {
        let page = rustix::param::page_size();
        let payload_bytes = payload_bytes.next_multiple_of(page);
        let header_bytes = uring::HEADER_BYTES.next_multiple_of(page);
        let mapping = Mapping::new(payload_bytes + header_bytes)?;
        // SAFETY: inside the mapping, which is that much longer.
        let headers = unsafe { mapping.start.as_ptr().add(payload_bytes) };
        let parts = [
            libc::iovec { iov_base: headers.cast(), iov_len: uring::HEADER_BYTES },
            libc::iovec { iov_base: mapping.start.as_ptr().cast(), iov_len: payload_bytes },
        ];
        let (lent, returned) = (AtomicBool::new(false), AtomicWaker::new());
        Ok(Arc::new(Memory { mapping, payload_bytes, parts, lent, returned }))
    }

    fn headers(&self) -> *mut u8 {
        // SAFETY: inside the mapping, see `new`.
        unsafe { self.mapping.start.as_ptr().add(self.payload_bytes) }
    }
}

/// Registers a new entry of `queue` with payloads of up to `payload_bytes`.
///
/// # Errors
/// No memory, no executor. What the kernel says comes with the entry.
pub fn register(device: &Arc<OwnedFd>, queue: u16, payload_bytes: usize) -> io::Result<Pending> {
    let memory = Memory::new(payload_bytes)?;
    submit(Box::new(Entry { memory, device: device.clone(), queue }), uring::REGISTER, 0)
}

fn submit(entry: Box<Entry>, command: u32, commit_id: u64) -> io::Result<Pending> {
    let mut arguments = [0u8; 80];
    arguments[8..16].copy_from_slice(&commit_id.to_ne_bytes());
    arguments[16..18].copy_from_slice(&entry.queue.to_ne_bytes());
    let (device, parts) = (entry.device.as_raw_fd(), entry.memory.parts.as_ptr());
    // SAFETY: the boxed `entry` holds the two parts, the mapping they describe, and the device's descriptor.
    unsafe { driver_command(device, command, arguments, parts, 2, entry) }.map(Pending)
}

/// Completes with the next request; ENOTCONN and the like when the file system has gone.
impl Future for Pending {
    type Output = io::Result<Request>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Request>> {
        let Poll::Ready(Finished { result, resource }) = Pin::new(&mut self.0).poll(cx) else { return Poll::Pending };
        Poll::Ready(result.map(|_| Request(resource)))
    }
}

impl Request {
    fn header_part(&self, at: usize, len: usize) -> &[u8] {
        debug_assert!(at + len <= uring::HEADER_BYTES);
        // SAFETY: inside the headers' page (all callers pass constants), which is ours while this is, and only `answer`, which
        // consumes it, writes there.
        unsafe { std::slice::from_raw_parts(self.0.memory.headers().add(at), len) }
    }

    /// `struct fuse_in_header`, and spare bytes.
    pub fn header(&self) -> &[u8] {
        self.header_part(0, uring::IN_OUT_BYTES)
    }

    /// The fixed part of the opcode's arguments, and spare bytes.
    pub fn fixed(&self) -> &[u8] {
        self.header_part(uring::IN_OUT_BYTES, uring::OP_IN_BYTES)
    }

    fn ring_field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(self.header_part(uring::ENTRY_AT + at, N));
        field
    }

    /// What follows the fixed part: names, data.
    pub fn payload(&self) -> &[u8] {
        let len = u32::from_ne_bytes(self.ring_field(uring::PAYLOAD_SIZE_AT)) as usize;
        let len = len.min(self.0.memory.payload_bytes);
        // SAFETY: inside the mapping, initialised (by the kernel: with zeroes), and not written to before `answer`.
        unsafe { std::slice::from_raw_parts(self.0.memory.mapping.start.as_ptr(), len) }
    }

    /// The payload to keep beyond this borrow: the request is not answered before all of it is dropped.
    pub fn lend(&self, len: usize) -> Bytes {
        let len = len.min(self.payload().len());
        self.0.memory.lent.store(true, Ordering::Relaxed);
        Bytes::from_owner(Lent { memory: self.0.memory.clone(), len })
    }

    /// Completes when nothing is lent (any more).
    pub async fn returned(&self) {
        std::future::poll_fn(|cx| {
            if !self.0.memory.lent.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            self.0.memory.returned.register(cx.waker());
            match self.0.memory.lent.load(Ordering::Acquire) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Answers, and has the next request come in this entry. Gives what is to be undone should the kernel refuse.
    ///
    /// # Errors
    /// The executor has ended.
    ///
    /// # Panics
    /// When something is lent: see [`Request::returned`].
    pub fn answer(self, unique: u64, answer: Answer) -> io::Result<(Pending, Option<Undo>)> {
        assert!(!self.0.memory.lent.load(Ordering::Acquire), "an entry is answered when its payload is free");
        let (mut error, parts, undo) = match answer {
            Answer::Silent => (0, Vec::new(), None),
            Answer::Error(errno) => (-errno.clamp(1, 511), Vec::new(), None),
            Answer::Body { parts, undo } => (0, parts, undo),
        };
        let mut len: usize = parts.iter().map(Bytes::len).sum();
        if len > self.0.memory.payload_bytes {
            tracing::error!(unique, len, "an answer longer than the kernel's buffer for it");
            (error, len) = (-libc::EIO, 0);
        }
        if error == 0 {
            let mut at = 0;
            for part in &parts {
                // SAFETY: both inside their memory (the sum was checked); nothing is lent, so that `part` can lie in the payload
                // only by being what is there already; `copy` allows for that.
                unsafe {
                    let to = self.0.memory.mapping.start.as_ptr().add(at);
                    std::ptr::copy(part.as_ptr(), to, part.len());
                }
                at += part.len();
            }
        }
        let commit_id = u64::from_ne_bytes(self.ring_field(uring::COMMIT_ID_AT));
        let mut header = [0u8; OUT_HEADER_BYTES];
        header[..4].copy_from_slice(&((OUT_HEADER_BYTES + len) as u32).to_ne_bytes());
        header[4..8].copy_from_slice(&error.to_ne_bytes());
        header[8..].copy_from_slice(&unique.to_ne_bytes());
        // SAFETY: inside the headers' page, which nobody else has a reference to: this request is consumed.
        unsafe {
            let headers = self.0.memory.headers();
            headers.copy_from_nonoverlapping(header.as_ptr(), header.len());
            let size = headers.add(uring::ENTRY_AT + uring::PAYLOAD_SIZE_AT).cast::<u32>();
            size.write_unaligned(len as u32);
        }
        Ok((submit(self.0, uring::COMMIT_AND_FETCH, commit_id)?, undo))
    }

    /// Gives the payload's memory back to the system; it is zeroes when next used.
    pub fn release_memory(&self) {
        assert!(!self.0.memory.lent.load(Ordering::Acquire), "memory that is lent stays");
        let start = self.0.memory.mapping.start.as_ptr().cast();
        // SAFETY: the mapping's own pages, which hold nothing that is needed; they stay mapped.
        unsafe { libc::madvise(start, self.0.memory.payload_bytes, libc::MADV_DONTNEED) };
    }
}

/// The payload of a request in others' hands.
struct Lent {
    memory: Arc<Memory>,
    len: usize,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: inside the payload (`Request::lend`), and neither we nor the kernel write to it before this is dropped.
        unsafe { std::slice::from_raw_parts(self.memory.mapping.start.as_ptr(), self.len) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.memory.lent.store(false, Ordering::Release);
        self.memory.returned.wake();
    }
}
