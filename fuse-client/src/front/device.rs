//! The device front end: a clone of /dev/fuse read and answered through the ring.
//!
//! One READ is in flight per clone; it waits by the ring's own poll (measured: one ring with one READ needs no worker
//! threads). Requests are handled as tasks of the same thread, answers go out as one vectored write on the descriptor
//! that read the request. The data of a WRITE stays where the kernel put it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ladrillo_translator::Payload;
use ladrillo_translator::error::errno;
use ladrillo_translator::payload::count_copy;

use super::answer::Answer;
use super::buffer::{Pool, Slots};
use super::dump::Way;
use super::handle::{handle, handle_at_once};
use super::parse::{Call, parse_contiguous, parse_header};
use super::{Front, abi};
use crate::executor::{poll_readable, read, spawn, writev_detached};

/// What virtual xattrs and logs call it.
pub const NAME: &str = "device";

/// Room the kernel wants beside the data of the largest write.
const REQUEST_OVERHEAD_BYTES: usize = 4096;

/// Smallest read the kernel allows (FUSE_MIN_READ_BUFFER).
const MIN_REQUEST_BYTES: usize = 8192;

/// FUSE_DEV_IOC_CLONE, `_IOR(229, 0, uint32_t)`.
const FUSE_DEV_IOC_CLONE: libc::c_ulong = 0x8004_e500;

/// A further descriptor of the mount behind `session`.
///
/// # Errors
/// /dev/fuse cannot be opened, or the session has ended.
pub fn clone_device(session: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let source = session.as_raw_fd() as u32;
    // SAFETY: the ioctl reads one u32, which lives through the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), FUSE_DEV_IOC_CLONE as _, &raw const source) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(device) }
}

/// Serves requests until the file system is unmounted (or the connection aborted).
///
/// # Errors
/// The device fails otherwise.
pub async fn serve(front: Arc<Front>, device: OwnedFd, pool: Pool, max_write_bytes: usize) -> io::Result<()> {
    let device = Arc::new(device);
    let mut slots = Slots::new(pool, request_bytes(max_write_bytes));
    loop {
        let slot = slots.next().await;
        let (result, slot) = read(&device, slot).await;
        let length = match result {
            Ok(length) => length,
            Err(error) => {
                slots.give_back(slot);
                match error.raw_os_error() {
                    // ENOENT: the request was interrupted before it was read.
                    Some(libc::EINTR | libc::ENOENT) => continue,
                    Some(libc::EAGAIN) => {
                        poll_readable(&device).await?;
                        continue;
                    }
                    Some(libc::ENODEV | libc::ECONNABORTED) => return Ok(()),
                    _ => return Err(error),
                }
            }
        };
        if let Some(dump) = front.dump() {
            dump.record(Way::FromKernel, &[slot.bytes(length)]);
        }
        let Some(header) = parse_header(slot.bytes(length)) else {
            tracing::warn!(length, "a request without a header came from the kernel");
            slots.give_back(slot);
            continue;
        };
        let (call, data) = match parse_contiguous(&header, slot.bytes(length)) {
            Ok(Call::Write { fh, offset, flags, lock_owner, data }) => {
                if slot.is_reserve() {
                    count_copy(data.len());
                }
                let bytes = slots.keep(slot, length).await;
                let payload = Payload::from_bytes(bytes.slice(data.clone()));
                (Call::Write { fh, offset, flags, lock_owner, data }, payload)
            }
            Ok(call) => {
                slots.give_back(slot);
                (call, Payload::empty())
            }
            Err(error) => {
                slots.give_back(slot);
                if error == errno::EINVAL {
                    tracing::warn!(opcode = header.opcode, unique = header.unique, "malformed request: errno {error}");
                }
                answer(&front, &device, header.unique, Answer::Error(error));
                continue;
            }
        };
        if let Some(done) = handle_at_once(&front, &call) {
            answer(&front, &device, header.unique, done);
            continue;
        }
        let last = header.opcode == abi::opcode::DESTROY;
        let (front, device, busy) = (front.clone(), device.clone(), front.begin());
        spawn(async move {
            let _busy = busy;
            let done = handle(front.clone(), header, call, data).await;
            answer(&front, &device, header.unique, done);
        });
        if last {
            return Ok(());
        }
    }
}

/// Size of the buffer a request is read to.
pub fn request_bytes(max_write_bytes: usize) -> usize {
    (max_write_bytes + REQUEST_OVERHEAD_BYTES).max(MIN_REQUEST_BYTES)
}

fn answer(front: &Front, device: &Arc<OwnedFd>, unique: u64, answer: Answer) {
    let Some((message, undo)) = answer.into_message(unique) else { return };
    if let Some(dump) = front.dump() {
        dump.record(Way::ToKernel, &message.iter().map(|part| &part[..]).collect::<Vec<_>>());
    }
    writev_detached(device, message, move |result| {
        if result >= 0 {
            return;
        }
        // ENOENT: whoever asked has gone (interrupted, killed). What the answer would have handed over is taken back.
        if !matches!(-result, libc::ENOENT | libc::ENODEV | libc::ECONNABORTED) {
            tracing::warn!(unique, "the kernel refused an answer: {}", io::Error::from_raw_os_error(-result));
        }
        if let Some(undo) = undo {
            undo();
        }
    });
}
