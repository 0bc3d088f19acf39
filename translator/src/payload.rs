//! File data on its way between FUSE, the network and a file: counted when copied (design rule 2).

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Bytes copied in user space by this process on behalf of payloads.
static COPIED_BYTES: AtomicU64 = AtomicU64::new(0);

/// File data in the buffer the kernel or the NIC put it in. Cloning shares the buffer. A FUSE buffer or registered
/// memory becomes a payload through [`Bytes::from_owner`], whose drop gives the buffer back to its pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// No data.
    pub const fn empty() -> Payload {
        Payload(Bytes::new())
    }

    /// Shares `bytes`, copying nothing.
    pub fn from_bytes(bytes: Bytes) -> Payload {
        Payload(bytes)
    }

    /// Copies, and counts it: for callers that only have a borrowed slice.
    pub fn copy_from_slice(data: &[u8]) -> Payload {
        count_copy(data.len());
        Payload(Bytes::copy_from_slice(data))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The data.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The shared buffer itself.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The shared buffer itself.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// A part of it, sharing the buffer; clamped to what there is.
    pub fn slice(&self, start: usize, end: usize) -> Payload {
        let end = end.min(self.0.len());
        Payload(self.0.slice(start.min(end)..end))
    }
}

/// Notes that `bytes` of payload were copied in user space.
pub fn count_copy(bytes: usize) {
    COPIED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Payload bytes this process has copied so far.
pub fn copied_bytes() -> u64 {
    COPIED_BYTES.load(Ordering::Relaxed)
}
