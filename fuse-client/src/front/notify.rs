//! Telling the kernel that someone else changed an inode.
//!
//! On a thread of its own: the kernel may make the notifier wait for a page that a read in flight holds, and that read
//! is ours to answer.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

/// Most inodes that wait to be invalidated; beyond, the kernel's own timeouts (1 s) do it.
const MAX_WAITING: usize = 4096;

/// Sends invalidations.
#[derive(Clone)]
pub struct Invalidations {
    queue: SyncSender<u64>,
}

impl Invalidations {
    /// Starts the thread; it ends when the last clone is dropped.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(notifier: fuser::Notifier) -> std::io::Result<Invalidations> {
        let (queue, waiting) = sync_channel::<u64>(MAX_WAITING);
        std::thread::Builder::new().name("fuse-notify".into()).spawn(move || {
            for nodeid in waiting {
                // Length 0: attributes, and all cached pages.
                if let Err(error) = notifier.inval_inode(fuser::INodeNo(nodeid), 0, 0) {
                    tracing::debug!(nodeid, "invalidation: {error}");
                }
            }
        })?;
        Ok(Invalidations { queue })
    }

    /// The kernel is to forget what it cached of this inode.
    pub fn invalidate(&self, nodeid: u64) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(nodeid) {
            tracing::debug!(nodeid, "too many invalidations wait: left to the kernel's timeouts");
        }
    }
}
