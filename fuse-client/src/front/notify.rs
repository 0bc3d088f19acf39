//! Telling the kernel that someone else changed an inode.
//!
//! On a thread of its own: the kernel may make the notifier wait for a page that a read in flight holds, and that read
//! is ours to answer.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

/// Most inodes that wait to be invalidated; beyond, the kernel's own timeouts (1 s) do it.
const MAX_WAITING: usize = 4096;
/// Names to be forgotten that wait at a time: the same name would be given again before the kernel has heard of it.
const MAX_NAMES_WAITING: usize = 1024;

/// Sends invalidations.
#[derive(Clone)]
pub struct Invalidations {
    queue: SyncSender<What>,
    /// Names that wait to be sent.
    names: Arc<AtomicUsize>,
}

/// What the kernel is to forget.
enum What {
    /// Attributes and pages of this nodeid.
    Inode(u64),
    /// A name in the directory of this nodeid, and the inode with it if nobody uses it.
    Entry(u64, Box<[u8]>),
}

impl Invalidations {
    /// Starts the thread; it ends when the last clone is dropped. No more than `limit` wait to be sent (0: our bound).
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(notifier: fuser::Notifier, limit: usize) -> std::io::Result<Invalidations> {
        let limit = if limit == 0 { MAX_WAITING } else { limit.min(MAX_WAITING) };
        let (queue, waiting) = sync_channel::<What>(limit);
        let names = Arc::new(AtomicUsize::new(0));
        let left = names.clone();
        std::thread::Builder::new().name("fuse-notify".into()).spawn(move || {
            for what in waiting {
                let sent = match &what {
                    // Length 0: attributes, and all cached pages.
                    What::Inode(nodeid) => notifier.inval_inode(fuser::INodeNo(*nodeid), 0, 0),
                    What::Entry(parent, name) => {
                        left.fetch_sub(1, Ordering::Relaxed);
                        notifier.inval_entry(fuser::INodeNo(*parent), std::ffi::OsStr::from_bytes(name))
                    }
                };
                // ENOENT: the kernel has forgotten it already.
                if let Err(error) = sent {
                    tracing::trace!("invalidation: {error}");
                }
            }
        })?;
        Ok(Invalidations { queue, names })
    }

    /// The kernel is to forget what it cached of this inode.
    pub fn invalidate(&self, nodeid: u64) {
        self.send(What::Inode(nodeid));
    }

    /// The kernel is to forget a name.
    pub fn forget(&self, parent: u64, name: Box<[u8]>) {
        self.names.fetch_add(1, Ordering::Relaxed);
        if !self.send(What::Entry(parent, name)) {
            self.names.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether it has caught up with what it was given to forget: more can be had.
    pub fn wants_more(&self) -> bool {
        self.names.load(Ordering::Relaxed) < MAX_NAMES_WAITING
    }

    fn send(&self, what: What) -> bool {
        let sent = self.queue.try_send(what);
        if let Err(TrySendError::Full(_)) = &sent {
            tracing::debug!("too many invalidations wait: left to the kernel's timeouts");
        }
        sent.is_ok()
    }
}
