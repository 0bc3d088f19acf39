//! Front ends: from FUSE requests to fops and back, one parser and one handler for all of them.
//!
//! Read first: [`parse`] (bytes to calls), [`handle`] (calls to fops to answers), [`device`] (the loop over /dev/fuse),
//! [`ring`] (FUSE over io_uring), [`mount`] (mounting, unmounting), [`start`] (which of the two).

pub mod abi;
pub mod answer;
pub mod buffer;
pub mod device;
pub mod dump;
pub mod handle;
pub mod identity;
pub mod inode;
pub mod mount;
pub mod notify;
pub mod open;
pub mod parse;
pub mod ring;
pub mod start;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::channel::oneshot;
use ladrillo_translator::{Context, Fop, FopResult, Gfid, LockOwner, Reply, Translator};
use parking_lot::Mutex;

use crate::executor;
use crate::translators::held::HeldLocks;
use answer::Validity;
use dump::FuseDump;
use handle::abandoned::AbandonedWaits;
use identity::Groups;
use inode::Inodes;
use notify::Invalidations;
use open::OpenFiles;
use parse::Header;

/// UP_NLINK, UP_RENAME and UP_FORGET: an inode's names may be others now. Source: GlusterFS 10.3, upcall-utils.h.
const UP_NAMES: u32 = 0x1 | 0x80 | 0x100;

/// Whether files bypass the kernel's page cache (`--direct-io-mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectIo {
    /// Always.
    Always,
    /// Only where the application says so (O_DIRECT).
    Never,
    /// As `Never`, and those opened with O_APPEND: the kernel writes other big requests whole through its cache.
    #[default]
    Auto,
}

/// How a mount behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the kernel keeps attributes, names and their absence.
    pub validity: Validity,
    /// How long a caller's groups are remembered.
    pub gid_timeout: Duration,
    /// See [`DirectIo`].
    pub direct_io: DirectIo,
    /// Keep cached pages across opens.
    pub keep_cache: bool,
    /// POSIX ACLs are the bricks' business, not the kernel's.
    pub acl: bool,
    /// `security.selinux` is passed on.
    pub selinux: bool,
    /// `security.capability` is passed on.
    pub capability: bool,
    /// Refuse what changes anything.
    pub read_only: bool,
    /// Inodes the kernel is to know at most; 0: as many as it likes.
    pub lru_limit: usize,
    /// Pid that fops carry instead of the caller's (`--client-pid`).
    pub client_pid: Option<i32>,
    /// Where messages go that cross /dev/fuse (`--dump-fuse`).
    pub dump: Option<Arc<FuseDump>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            validity: Validity::default(),
            gid_timeout: Duration::from_secs(300),
            direct_io: DirectIo::default(),
            keep_cache: false,
            acl: false,
            selinux: false,
            capability: false,
            read_only: false,
            lru_limit: 0,
            client_pid: None,
            dump: None,
        }
    }
}

/// What all front ends of a mount share: the graph below, and the kernel's numbers for inodes and files.
pub struct Front {
    top: Arc<dyn Translator>,
    options: Options,
    /// Inodes the kernel knows.
    pub inodes: Inodes,
    /// Files the kernel has open.
    pub files: OpenFiles,
    notify: OnceLock<Invalidations>,
    /// What serves it: see [`Front::served_by`].
    name: OnceLock<&'static str>,
    groups: Groups,
    /// Requests that can be interrupted, by their unique.
    interrupts: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    abandoned: Arc<AbandonedWaits>,
    /// Locks of applications: what an interrupted wait for more is to leave as it was.
    held: HeldLocks<()>,
    busy: Mutex<Busy>,
}

/// How many requests (and releases after them) are under way, and who waits for them to end.
#[derive(Default)]
struct Busy {
    count: usize,
    waiting: Vec<Waker>,
}

/// Counts as a request under way until dropped.
pub struct BusyGuard {
    front: Arc<Front>,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        let mut busy = self.front.busy.lock();
        busy.count -= 1;
        if busy.count == 0 {
            for waker in busy.waiting.drain(..) {
                waker.wake();
            }
        }
    }
}

impl Front {
    /// A front end over `top`.
    pub fn new(top: Arc<dyn Translator>, options: Options) -> Front {
        Front {
            top,
            groups: Groups::new(options.gid_timeout),
            inodes: Inodes::with_limit(options.lru_limit),
            notify: OnceLock::new(),
            name: OnceLock::new(),
            files: OpenFiles::default(),
            interrupts: Mutex::default(),
            abandoned: Arc::default(),
            held: HeldLocks::default(),
            busy: Mutex::default(),
            options,
        }
    }

    /// How the kernel is told to forget what exceeds the limit on inodes.
    pub fn notify_by(&self, invalidations: Invalidations) {
        // A second one is as good as the first.
        let _ = self.notify.set(invalidations);
    }

    /// Someone else changed an inode (flags are GlusterFS's UP_* bits): the kernel is to forget what it keeps of it.
    pub fn invalidate(&self, gfid: &Gfid, flags: u32) {
        let (Some(notify), Some(nodeid)) = (self.notify.get(), self.inodes.nodeid(gfid)) else { return };
        notify.invalidate(nodeid);
        if flags & UP_NAMES != 0 {
            for (parent, name) in self.inodes.places(gfid) {
                notify.forget(parent, name);
            }
        }
    }

    /// Which front end serves the mount, as its virtual xattr says.
    pub fn served_by(&self, name: &'static str) {
        // It does not change.
        let _ = self.name.set(name);
    }

    /// See [`Front::served_by`].
    pub fn name(&self) -> &'static str {
        self.name.get().copied().unwrap_or(device::NAME)
    }

    /// Asks the kernel to forget inodes beyond the limit, after it has learnt of so many.
    fn trim_inodes(&self, learnt: usize) {
        let Some(notify) = self.notify.get() else { return };
        if notify.wants_more() {
            for (parent, name) in self.inodes.surplus(learnt + 1) {
                notify.forget(parent, name);
            }
        }
    }

    /// Where messages go that cross /dev/fuse, if they are to.
    pub fn dump(&self) -> Option<&Arc<FuseDump>> {
        self.options.dump.as_ref()
    }

    /// A request begins; it ends with the guard.
    pub fn begin(self: &Arc<Front>) -> BusyGuard {
        self.busy.lock().count += 1;
        BusyGuard { front: self.clone() }
    }

    /// How many requests are under way.
    pub fn pending(&self) -> usize {
        self.busy.lock().count
    }

    /// Completes when no request is under way.
    pub async fn idle(&self) {
        std::future::poll_fn(|cx| {
            let mut busy = self.busy.lock();
            if busy.count == 0 {
                return Poll::Ready(());
            }
            busy.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Asks the graph for the root: whether the volume is there.
    ///
    /// # Errors
    /// ENOTCONN without bricks, ENOENT where `--subdir-mount` names nothing, whatever the graph says.
    pub async fn check_root(&self) -> FopResult<()> {
        let gfid = ladrillo_translator::Gfid::ROOT;
        let context = Context { birth: executor::wall_clock(), ..Context::root() };
        let lookup = Fop::Lookup { gfid, entry: None, xdata: Default::default() };
        match self.top.submit(&context, lookup).await? {
            Reply::Lookup { iatt, .. } if iatt.is_dir() => Ok(()),
            _ => Err(ladrillo_translator::FopError::new(libc::ENOTDIR, "the volume's root is no directory")),
        }
    }

    /// The caller, as fops carry it.
    fn context(&self, header: &Header, lock_owner: Option<u64>) -> Context {
        Context {
            uid: header.uid,
            gid: header.gid,
            groups: self.groups.of(header.pid, header.uid, header.gid),
            pid: self.options.client_pid.unwrap_or(header.pid as i32),
            lock_owner: match lock_owner {
                None | Some(0) => LockOwner::default(),
                Some(owner) => LockOwner::from_u64(owner),
            },
            birth: executor::wall_clock(),
            ..Context::root()
        }
    }
}
