//! Has the kernel hand out requests that it has queued while a queue had no entry left.
//!
//! It looks at what is queued only when an answer is given on that queue (Linux 6.18, `fuse_uring_next_fuse_req`): to
//! register another entry does not suffice. So a request is made that needs no brick for its answer: a thread on the
//! queue's CPU asks for a virtual xattr of the mount's root.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::CpuSet;

/// What it asks for. A `trusted` one: the kernel then needs no attributes of the root, which may be a stalled brick's to tell.
pub const XATTR: &[u8] = b"trusted.glusterfs.ladrillo.kick";

/// Most kicks under way; each that is answered hands out one request more.
const MAX_KICKS: usize = 64;

/// Kicks queues.
pub struct Kicker {
    shared: Arc<Shared>,
}

struct Shared {
    mount_point: CString,
    under_way: AtomicUsize,
}

impl Kicker {
    /// For what is mounted at `mount_point`.
    ///
    /// # Errors
    /// The path holds a NUL.
    pub fn new(mount_point: &Path) -> io::Result<Kicker> {
        let mount_point = CString::new(mount_point.as_os_str().as_bytes())?;
        Ok(Kicker { shared: Arc::new(Shared { mount_point, under_way: AtomicUsize::new(0) }) })
    }

    /// Has a request made on the queue of that number, which is its CPU's. From a thread of its own: should another request
    /// be faster, this one is queued, too.
    pub fn kick(&self, number: u16) {
        if self.shared.under_way.fetch_add(1, Ordering::Relaxed) >= MAX_KICKS {
            self.shared.under_way.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let shared = self.shared.clone();
        let spawned = std::thread::Builder::new().name("fuse-kick".into()).spawn(move || {
            if let Err(error) = ask(&shared.mount_point, usize::from(number)) {
                tracing::trace!(queue = number, "kick: {error}");
            }
            shared.under_way.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = spawned {
            self.shared.under_way.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(queue = number, "kick: {error}");
        }
    }
}

fn ask(mount_point: &CString, cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    rustix::thread::sched_setaffinity(None, &cpus)?;
    let mut value = [0u8; 8];
    rustix::fs::lgetxattr(mount_point.as_c_str(), XATTR, &mut value[..])?;
    Ok(())
}
