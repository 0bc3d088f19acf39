//! Where FUSE requests are read to, and where written data stays until the last brick has it.
//!
//! Memory comes in chunks of a bounded pool. A request is read into the free end of a chunk; the data of a write keeps
//! its part of it (as [`Bytes`], nothing is copied), and the chunk goes back to the pool when the last part is dropped.
//!
//! When writes that stall have used the pool up, requests are read into a reserve, so that others go on; the data of further
//! writes is then moved out of it, to memory of its exact size, half as much in all as the pool has.

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
    /// How many bytes may still be moved out of the reserve.
    spill_left: usize,
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
    /// Where it goes back to; the reserve belongs to nobody.
    pool: Option<Arc<Shared>>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let (Some(memory), Some(pool)) = (self.memory.take(), &self.pool) {
            pool.give_back(|state| state.free.push(memory));
        }
    }
}

impl Shared {
    fn give_back(&self, what: impl FnOnce(&mut State)) {
        let waiting = {
            let mut state = self.state.lock();
            what(&mut state);
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }
}

impl State {
    fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    fn take_chunk(&mut self, chunk_bytes: usize) -> Option<Memory> {
        match self.free.pop() {
            Some(memory) => Some(memory),
            None if self.left > 0 => {
                self.left -= 1;
                Some(Memory::new(chunk_bytes))
            }
            None => None,
        }
    }
}

impl Pool {
    /// A pool of at most `budget_bytes` (one chunk at least), for requests of up to `request_bytes`.
    pub fn new(budget_bytes: usize, request_bytes: usize) -> Pool {
        // Two of the largest requests, or many small ones, before another chunk is begun.
        let chunk_bytes = request_bytes.next_multiple_of(ALIGN_BYTES).saturating_mul(2);
        let left = (budget_bytes / chunk_bytes.max(1)).max(2);
        let spill_left = (left * chunk_bytes / 2).max(request_bytes);
        let state = State { free: Vec::new(), left, spill_left, waiting: Vec::new() };
        Pool { shared: Arc::new(Shared { chunk_bytes, state: Mutex::new(state) }) }
    }

    /// A chunk, if there is one.
    fn chunk(&self) -> Option<Arc<Chunk>> {
        let memory = self.shared.state.lock().take_chunk(self.shared.chunk_bytes)?;
        Some(Arc::new(Chunk { memory: Some(memory), pool: Some(self.shared.clone()) }))
    }

    /// A chunk, as soon as there is one.
    async fn next_chunk(&self) -> Arc<Chunk> {
        let memory = std::future::poll_fn(|cx| {
            let mut state = self.shared.state.lock();
            let memory = state.take_chunk(self.shared.chunk_bytes);
            if memory.is_none() {
                state.wait(cx.waker());
            }
            memory.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        Arc::new(Chunk { memory: Some(memory), pool: Some(self.shared.clone()) })
    }

    /// `data` in memory of its own, as soon as there may be that much.
    async fn spill(&self, data: &[u8]) -> Bytes {
        std::future::poll_fn(|cx| {
            let mut state = self.shared.state.lock();
            if state.spill_left < data.len() {
                state.wait(cx.waker());
                return Poll::Pending;
            }
            state.spill_left -= data.len();
            Poll::Ready(())
        })
        .await;
        Bytes::from_owner(Spilled { data: data.into(), pool: self.shared.clone() })
    }
}

/// What was moved out of the reserve.
struct Spilled {
    data: Box<[u8]>,
    pool: Arc<Shared>,
}

impl AsRef<[u8]> for Spilled {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        self.pool.give_back(|state| state.spill_left += self.data.len());
    }
}

/// Hands out places to read requests to, one at a time.
pub struct Slots {
    pool: Pool,
    request_bytes: usize,
    /// The chunk under way, and where its free end begins.
    chunk: Option<Arc<Chunk>>,
    cursor: usize,
    /// Memory for one request, made when the pool is first used up.
    reserve: Option<Arc<Chunk>>,
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
        Slots { pool, request_bytes, chunk: None, cursor: 0, reserve: None }
    }

    /// A place for the next request. Give the one before back first ([`Slots::keep`], [`Slots::give_back`]), or its space is
    /// lost until the chunk comes round again.
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
                let chunk = match self.pool.chunk() {
                    Some(chunk) => chunk,
                    None => match self.reserve() {
                        Some(reserve) => return Slot { chunk: reserve, start: 0, len: self.request_bytes },
                        None => self.pool.next_chunk().await,
                    },
                };
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

    /// The reserve, unless a read that was abandoned still has it.
    fn reserve(&mut self) -> Option<Arc<Chunk>> {
        let reserve = self
            .reserve
            .get_or_insert_with(|| Arc::new(Chunk { memory: Some(Memory::new(self.request_bytes)), pool: None }));
        (Arc::strong_count(reserve) == 1).then(|| reserve.clone())
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

    /// Keeps the first `len` bytes of the slot, as long as the [`Bytes`] live. What is in the reserve waits until there is
    /// room to move it to.
    pub async fn keep(&mut self, slot: Slot, len: usize) -> Bytes {
        let len = len.min(slot.len);
        if slot.is_reserve() {
            return self.pool.spill(slot.bytes(len)).await;
        }
        self.free_from(&slot, len);
        Bytes::from_owner(Kept { chunk: slot.chunk, start: slot.start, len })
    }
}

impl Slot {
    /// Whether keeping it copies it.
    pub fn is_reserve(&self) -> bool {
        self.chunk.pool.is_none()
    }

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

    fn next(slots: &mut Slots) -> Slot {
        slots.next().now_or_never().expect("there is always a place to read to")
    }

    fn keep(slots: &mut Slots, slot: Slot, len: usize) -> Bytes {
        slots.keep(slot, len).now_or_never().expect("there is room")
    }

    #[test]
    fn kept_parts_stay_as_they_are_and_memory_is_bounded() {
        let mut slots = Slots::new(Pool::new(4 * 2048, 1000), 1000);
        let mut kept = Vec::new();
        for n in 0..8u8 {
            let mut slot = next(&mut slots);
            fill(&mut slot, n, 900);
            assert_eq!(slot.bytes(3), [n; 3]);
            kept.push(keep(&mut slots, slot, 900));
        }
        // The pool is used up. What carries no data goes on for ever...
        for n in 0..20u8 {
            let mut slot = next(&mut slots);
            fill(&mut slot, n, 1000);
            assert_eq!(slot.bytes(1000), [n; 1000]);
            slots.give_back(slot);
        }
        // ... what does, half as long again.
        for n in 8..12u8 {
            let mut slot = next(&mut slots);
            fill(&mut slot, n, 900);
            kept.push(keep(&mut slots, slot, 900));
        }
        let mut slot = next(&mut slots);
        fill(&mut slot, 12, 900);
        let mut waiting = Box::pin(slots.keep(slot, 900));
        assert!((&mut waiting).now_or_never().is_none(), "there is an end to it");
        for (n, part) in kept.iter().enumerate() {
            assert_eq!(**part, [n as u8; 900]);
        }
        kept.pop();
        assert_eq!(*waiting.now_or_never().expect("there is room again"), [12; 900]);
        // Half a chunk is no chunk: it is still the reserve that is read to.
        kept.remove(0);
        let slot = next(&mut slots);
        assert!(slot.is_reserve());
        slots.give_back(slot);
        kept.remove(0);
        assert!(!next(&mut slots).is_reserve());
    }

    #[test]
    fn small_parts_share_a_chunk_and_its_space_comes_back() {
        let mut slots = Slots::new(Pool::new(1, 1000), 1000);
        for n in 0..1000u32 {
            let mut slot = next(&mut slots);
            fill(&mut slot, n as u8, 10);
            if n % 3 == 0 {
                slots.give_back(slot);
            } else {
                assert_eq!(*keep(&mut slots, slot, 10), [n as u8; 10]);
            }
        }
        assert!(slots.reserve.is_none(), "never needed");
    }

    #[test]
    fn an_abandoned_read_keeps_the_reserve() {
        let mut slots = Slots::new(Pool::new(1, 1000), 1000);
        let kept: Vec<Bytes> = (0..4)
            .map(|_| {
                let slot = next(&mut slots);
                keep(&mut slots, slot, 1000)
            })
            .collect();
        let abandoned = next(&mut slots);
        assert!(abandoned.is_reserve());
        assert!(slots.next().now_or_never().is_none(), "the kernel may still write there");
        drop(abandoned);
        assert!(next(&mut slots).is_reserve());
        drop(kept);
    }

    #[test]
    fn a_waiter_is_woken_by_the_last_drop() {
        let executor = crate::executor::Executor::new().unwrap();
        let mut slots = Slots::new(Pool::new(1, 1000), 1000);
        executor.block_on(async {
            let mut kept = Vec::new();
            for _ in 0..6 {
                let slot = slots.next().await;
                kept.push(slots.keep(slot, 1000).await);
            }
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                drop(kept);
            });
            let slot = slots.next().await;
            slots.keep(slot, 1000).await;
        });
    }
}
