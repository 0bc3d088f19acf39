//! Where FUSE requests are read to, and where written data stays until the last brick has it.
//!
//! Memory comes in chunks of a bounded pool. A request is read into the free end of a chunk; the data of a write keeps
//! its part of it (as [`Bytes`], nothing is copied), and the chunk goes back to the pool when the last part is dropped.

use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::executor::WriteBuffer;

/// Parts begin at multiples of this (a cache line).
const ALIGN_BYTES: usize = 64;

/// Chunks of equal size, made when first needed, never more than fit the budget.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    chunk_bytes: usize,
    state: Mutex<State>,
}

struct State {
    free: Vec<Memory>,
    /// How many may still be made.
    left: usize,
    /// Whoever waits for a chunk.
    waiting: Vec<Waker>,
}

/// Owned memory that is written through a pointer.
struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is plain memory, owned.
unsafe impl Send for Memory {}
// SAFETY: a shared reference gives no access to it.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(len: usize) -> Memory {
        // Zeroed by the kernel when first touched.
        let memory = Box::into_raw(vec![0u8; len].into_boxed_slice());
        match NonNull::new(memory.cast::<u8>()) {
            Some(start) => Memory { start, len },
            None => unreachable!("a box is not null"),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
        // SAFETY: these are the parts of the box that `new` took apart, and nobody else owns them.
        drop(unsafe { Box::from_raw(slice) });
    }
}

/// A chunk in use.
struct Chunk {
    /// Absent only while dropped.
    memory: Option<Memory>,
    pool: Arc<Shared>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            let waiting = {
                let mut state = self.pool.state.lock();
                state.free.push(memory);
                std::mem::take(&mut state.waiting)
            };
            for waker in waiting {
                waker.wake();
            }
        }
    }
}

impl Pool {
    /// A pool of at most `budget_bytes` (one chunk at least), for requests of up to `request_bytes`.
    pub fn new(budget_bytes: usize, request_bytes: usize) -> Pool {
        // Two of the largest requests, or many small ones, before another chunk is begun.
        let chunk_bytes = request_bytes.next_multiple_of(ALIGN_BYTES).saturating_mul(2);
        let left = (budget_bytes / chunk_bytes.max(1)).max(2);
        let state = State { free: Vec::new(), left, waiting: Vec::new() };
        Pool { shared: Arc::new(Shared { chunk_bytes, state: Mutex::new(state) }) }
    }

    /// A chunk, as soon as there is one.
    async fn chunk(&self) -> Arc<Chunk> {
        std::future::poll_fn(|cx| {
            let mut state = self.shared.state.lock();
            let memory = match state.free.pop() {
                Some(memory) => memory,
                None if state.left > 0 => {
                    state.left -= 1;
                    Memory::new(self.shared.chunk_bytes)
                }
                None => {
                    if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                        state.waiting.push(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            };
            Poll::Ready(Arc::new(Chunk { memory: Some(memory), pool: self.shared.clone() }))
        })
        .await
    }
}

/// Hands out places to read requests to, one at a time.
pub struct Slots {
    pool: Pool,
    request_bytes: usize,
    /// The chunk under way, and where its free end begins.
    chunk: Option<Arc<Chunk>>,
    cursor: usize,
}

/// A place to read one request to: nobody else has this part of the chunk.
pub struct Slot {
    chunk: Arc<Chunk>,
    start: usize,
    len: usize,
}

impl Slots {
    /// For requests of up to `request_bytes`.
    pub fn new(pool: Pool, request_bytes: usize) -> Slots {
        Slots { pool, request_bytes, chunk: None, cursor: 0 }
    }

    /// A place for the next request; waits while all memory is in use. Give the one before back first
    /// ([`Slots::keep`], [`Slots::give_back`]), or its space is lost until the chunk comes round again.
    pub async fn next(&mut self) -> Slot {
        if let Some(chunk) = &self.chunk {
            if Arc::strong_count(chunk) == 1 {
                self.cursor = 0; // all that was kept of it has been dropped
            }
            if self.cursor + self.request_bytes > self.pool.shared.chunk_bytes {
                self.chunk = None;
            }
        }
        let chunk = match &self.chunk {
            Some(chunk) => chunk.clone(),
            None => {
                let chunk = self.pool.chunk().await;
                self.cursor = 0;
                self.chunk = Some(chunk.clone());
                chunk
            }
        };
        // Taken whole until the slot comes back: one that does not (its read was abandoned) is never handed out again.
        let start = self.cursor;
        self.cursor = (start + self.request_bytes).next_multiple_of(ALIGN_BYTES);
        Slot { chunk, start, len: self.request_bytes }
    }

    /// The slot's request is done with: its place is free again.
    pub fn give_back(&mut self, slot: Slot) {
        self.free_from(&slot, 0);
    }

    /// Behind the slot's first `len` bytes all is free, if nothing was handed out since.
    fn free_from(&mut self, slot: &Slot, len: usize) {
        let current = self.chunk.as_ref().is_some_and(|chunk| Arc::ptr_eq(chunk, &slot.chunk));
        let last = (slot.start + slot.len).next_multiple_of(ALIGN_BYTES) == self.cursor;
        if current && last {
            self.cursor = (slot.start + len).next_multiple_of(ALIGN_BYTES);
        }
    }

    /// Keeps the first `len` bytes of the slot, as long as the [`Bytes`] live.
    pub fn keep(&mut self, slot: Slot, len: usize) -> Bytes {
        let len = len.min(slot.len);
        self.free_from(&slot, len);
        Bytes::from_owner(Kept { chunk: slot.chunk, start: slot.start, len })
    }
}

impl Slot {
    /// The first `len` bytes.
    pub fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: this part belongs to the slot alone, and all of a chunk is initialised.
        unsafe { part(&self.chunk, self.start, len.min(self.len)) }
    }
}

/// # Safety
/// Nobody may write to this part while the slice lives.
unsafe fn part(chunk: &Chunk, start: usize, len: usize) -> &[u8] {
    let Some(memory) = &chunk.memory else { return &[] };
    if start.checked_add(len).is_none_or(|end| end > memory.len) {
        return &[];
    }
    // SAFETY: inside the chunk (just checked), initialised, and not written to (caller's promise).
    unsafe { std::slice::from_raw_parts(memory.start.as_ptr().add(start), len) }
}

// SAFETY: the chunk's memory stays where it is, and this part of it is the slot's alone.
unsafe impl WriteBuffer for Slot {
    fn spare(&mut self) -> (*mut u8, usize) {
        let Some(memory) = &self.chunk.memory else { return (NonNull::dangling().as_ptr(), 0) };
        assert!(self.start + self.len <= memory.len, "a slot lies inside its chunk");
        // SAFETY: inside the chunk, just checked.
        (unsafe { memory.start.as_ptr().add(self.start) }, self.len)
    }
}

/// A part that is read only from now on: later slots of the chunk begin behind it.
struct Kept {
    chunk: Arc<Chunk>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `Slots` hands out nothing that overlaps a kept part while the chunk has other owners than `Slots`.
        unsafe { part(&self.chunk, self.start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn fill(slot: &mut Slot, byte: u8, count: usize) {
        let (address, size) = slot.spare();
        assert!(count <= size);
        // SAFETY: as the kernel would.
        unsafe { std::ptr::write_bytes(address, byte, count) };
    }

    #[test]
    fn kept_parts_stay_as_they_are_and_memory_is_bounded() {
        let mut slots = Slots::new(Pool::new(4 * 2048, 1000), 1000);
        let mut kept = Vec::new();
        for n in 0..8u8 {
            let mut slot = slots.next().now_or_never().expect("there is room");
            fill(&mut slot, n, 900);
            assert_eq!(slot.bytes(3), [n; 3]);
            kept.push(slots.keep(slot, 900));
        }
        assert!(slots.next().now_or_never().is_none(), "the budget is used up");
        for (n, part) in kept.iter().enumerate() {
            assert_eq!(**part, [n as u8; 900]);
        }
        kept.remove(0);
        assert!(slots.next().now_or_never().is_none(), "half a chunk is still in use");
        kept.remove(0);
        assert!(slots.next().now_or_never().is_some());
    }

    #[test]
    fn small_parts_share_a_chunk_and_its_space_comes_back() {
        let mut slots = Slots::new(Pool::new(1, 1000), 1000);
        for n in 0..1000u32 {
            let mut slot = slots.next().now_or_never().expect("parts are dropped in time");
            fill(&mut slot, n as u8, 10);
            if n % 3 == 0 {
                slots.give_back(slot);
            } else {
                assert_eq!(*slots.keep(slot, 10), [n as u8; 10]);
            }
        }
    }

    #[test]
    fn a_waiter_is_woken_by_the_last_drop() {
        let executor = crate::executor::Executor::new().unwrap();
        let mut slots = Slots::new(Pool::new(1, 1000), 1000);
        executor.block_on(async {
            let mut kept = Vec::new();
            for _ in 0..4 {
                let slot = slots.next().await;
                kept.push(slots.keep(slot, 1000));
            }
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                drop(kept);
            });
            slots.next().await;
        });
    }
}
