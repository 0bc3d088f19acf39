//! Operations on descriptors, each owning what the kernel uses.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use io_uring::squeue::Entry128;
use io_uring::{opcode, types};

use super::op::{Finished, Op};
use super::with_core;

/// Most parts of a vectored send or write (Linux takes 1024).
pub(super) const MAX_PARTS: usize = 256;

/// A buffer the kernel may write to while it is owned by an operation.
///
/// # Safety
/// The memory of [`WriteBuffer::spare`] must stay where it is when the owner is moved, and must not be touched by
/// anybody else while the operation is in flight.
pub unsafe trait WriteBuffer: 'static {
    /// Where to put data: address and size in bytes.
    fn spare(&mut self) -> (*mut u8, usize);
}

fn no_executor() -> io::Error {
    io::Error::other("no executor on this thread")
}

struct Reading<B> {
    buffer: B,
    _fd: Arc<OwnedFd>,
}

/// Reads once from `fd` (a device, socket or pipe: at no offset) into `buffer`.
///
/// # Errors
/// What read(2) says; the buffer comes back in any case.
pub async fn read<B: WriteBuffer>(fd: &Arc<OwnedFd>, mut buffer: B) -> (io::Result<usize>, B) {
    let raw = fd.as_raw_fd();
    let (address, size) = buffer.spare();
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let entry = opcode::Read::new(types::Fd(raw), address, size).offset(u64::MAX).build();
    let keep = Box::new(Reading { buffer, _fd: fd.clone() });
    let mut keep = Some(keep);
    // SAFETY: `keep` owns the buffer, whose memory stays where it is (WriteBuffer's promise), and the descriptor.
    let op = with_core(|core| keep.take().map(|keep| unsafe { core.ring.submit(entry, keep) })).flatten();
    match (op, keep) {
        (Some(op), _) => {
            let Finished { result, resource } = op.await;
            (result.map(|n| n as usize), resource.buffer)
        }
        (None, Some(keep)) => (Err(no_executor()), keep.buffer),
        (None, None) => unreachable!("a resource is in one place"),
    }
}

/// Begins to receive from a socket into `buffer`: the operation can be kept and awaited later.
pub(super) fn recv<B: WriteBuffer>(fd: &Arc<OwnedFd>, mut buffer: B) -> io::Result<Op<Received<B>>> {
    let (address, size) = buffer.spare();
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let entry = opcode::Recv::new(types::Fd(fd.as_raw_fd()), address, size).build();
    let keep = Box::new(Received { buffer, _fd: fd.clone() });
    // SAFETY: as in `read`.
    with_core(|core| unsafe { core.ring.submit(entry, keep) }).ok_or_else(no_executor)
}

/// The buffer of a [`recv`].
pub(super) struct Received<B> {
    pub(super) buffer: B,
    _fd: Arc<OwnedFd>,
}

/// Parts to send or write as one, in order: nothing is joined.
struct Vectored {
    parts: Vec<libc::iovec>,
    header: libc::msghdr,
    _data: Vec<Bytes>,
    _fd: Arc<OwnedFd>,
}

fn vectored(fd: &Arc<OwnedFd>, data: Vec<Bytes>) -> Box<Vectored> {
    let parts = data
        .iter()
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
        .collect::<Vec<_>>();
    // SAFETY: a msghdr of zeroes is a valid, empty one.
    let header = unsafe { std::mem::zeroed::<libc::msghdr>() };
    let mut keep = Box::new(Vectored { parts, header, _data: data, _fd: fd.clone() });
    keep.header.msg_iov = keep.parts.as_mut_ptr();
    keep.header.msg_iovlen = keep.parts.len() as _;
    keep
}

/// Sends `data`, as much as the kernel takes at once.
pub(super) async fn send(fd: &Arc<OwnedFd>, data: Vec<Bytes>) -> io::Result<usize> {
    let keep = vectored(fd, data);
    let entry = opcode::SendMsg::new(types::Fd(fd.as_raw_fd()), &raw const keep.header)
        .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32)
        .build();
    // SAFETY: the boxed `keep` owns message header, part list, data and descriptor.
    let op = with_core(|core| unsafe { core.ring.submit(entry, keep) }).ok_or_else(no_executor)?;
    op.await.result.map(|n| n as usize)
}

/// Writes `data` to `fd` in one piece, awaited by nobody; `on_done` hears the result (negative errno, or a count).
pub fn writev_detached(fd: &Arc<OwnedFd>, data: Vec<Bytes>, on_done: impl FnOnce(i32) + 'static) {
    let keep = vectored(fd, data);
    let count = keep.parts.len() as u32;
    let entry = opcode::Writev::new(types::Fd(fd.as_raw_fd()), keep.parts.as_ptr(), count).offset(u64::MAX).build();
    // SAFETY: the boxed `keep` owns part list, data and descriptor.
    with_core(|core| unsafe { core.ring.submit_detached(entry, keep, Box::new(on_done)) });
}

/// Completes when `fd` can be read, or has an error or hang-up: the POLL* bits that are set.
///
/// # Errors
/// What poll(2) says.
pub async fn poll_readable(fd: &Arc<OwnedFd>) -> io::Result<u32> {
    let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32).build();
    // SAFETY: the entry points to nothing; the descriptor is kept open.
    let op = with_core(|core| unsafe { core.ring.submit(entry, Box::new(fd.clone())) }).ok_or_else(no_executor)?;
    op.await.result
}

/// Where a submission has its length (`struct io_uring_sqe`): the crate leaves it 0, drivers go by it.
const SQE_LEN_OFFSET: usize = 24;

/// Gives the driver behind `fd` a command of its own (IORING_OP_URING_CMD): `parts` pieces of memory at `iovec`. It cannot be
/// cancelled; dropped, it stays with the driver until that ends it.
///
/// # Errors
/// This thread has no executor. What the driver says comes with the future.
///
/// # Safety
/// `iovec` points to `parts` pieces, both they and the descriptors of them valid as long as `keep` lives.
pub unsafe fn driver_command<R: 'static>(
    fd: i32,
    command: u32,
    arguments: [u8; 80],
    iovec: *const libc::iovec,
    parts: u32,
    keep: Box<R>,
) -> io::Result<Op<R>> {
    let mut entry = opcode::UringCmd80::new(types::Fd(fd), command).cmd(arguments).addr(Some(iovec as u64)).build();
    // SAFETY: an Entry128 is the kernel's 128 bytes of a submission, and nothing but plain numbers.
    unsafe { (&raw mut entry).cast::<u8>().add(SQE_LEN_OFFSET).cast::<u32>().write_unaligned(parts) };
    const { assert!(size_of::<Entry128>() == 128) };
    // SAFETY: the caller's promise.
    with_core(|core| unsafe { core.ring.submit_endless(entry, keep) }).ok_or_else(no_executor)
}

struct Connecting {
    address: socket2::SockAddr,
    _fd: Arc<OwnedFd>,
}

pub(super) async fn connect(socket: socket2::Socket, address: socket2::SockAddr) -> io::Result<Arc<OwnedFd>> {
    let fd = Arc::new(OwnedFd::from(socket));
    let raw: RawFd = fd.as_raw_fd();
    let keep = Box::new(Connecting { address, _fd: fd.clone() });
    let entry = opcode::Connect::new(types::Fd(raw), keep.address.as_ptr().cast(), keep.address.len()).build();
    // SAFETY: the boxed `keep` owns the address and the descriptor.
    let op = with_core(|core| unsafe { core.ring.submit(entry, keep) }).ok_or_else(no_executor)?;
    op.await.result?;
    Ok(fd)
}

/// Connects over TCP; `prepare` sets the socket's options first.
pub(super) async fn connect_tcp(
    address: SocketAddr,
    prepare: impl FnOnce(&socket2::Socket) -> io::Result<()>,
) -> io::Result<Arc<OwnedFd>> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.cloexec(), Some(socket2::Protocol::TCP))?;
    prepare(&socket)?;
    connect(socket, address.into()).await
}

/// Connects to a unix socket.
pub(super) async fn connect_unix(path: &Path) -> io::Result<Arc<OwnedFd>> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM.cloexec(), None)?;
    connect(socket, socket2::SockAddr::unix(path)?).await
}
