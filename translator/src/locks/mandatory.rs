//! Mandatory locks: reads and writes respect applications' locks of others. Source: __rw_allowable, pl_readv, pl_writev,
//! pl_truncate and pl_open in features/locks of GlusterFS 10.3.
//!
//! Two forms. Under `mandatory-locking` I/O in the way of another's lock waits (EAGAIN for descriptors that do not block,
//! and for truncate without one). A file marked by the xattr `trusted.glusterfs.enforce-mandatory-lock` ("fenced") is
//! read and written by who holds a lock on that place only: others get EBUSY (reads EAGAIN, as in stock) at once, and
//! who locks takes the place from whoever had it.

use super::*;

/// The xattr that fences a file.
const FENCE: &str = "trusted.glusterfs.enforce-mandatory-lock";

/// Most reads and writes of one client that wait for locks; more fail with EAGAIN, so that the unlock they wait for can
/// still come in. Source: our bound, a quarter of what a connection may have under way.
const MAX_WAITING_IO: usize = 64;
/// The same in bytes that they carry or ask for. Source: our bound, a quarter of what a connection may have under way.
const MAX_WAITING_BYTES: u64 = 16 << 20;

/// `mandatory-locking`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Locks are advisory.
    #[default]
    Off,
    /// Files with set-gid and without group execution, as System V has it.
    File,
    /// All locks.
    Forced,
    /// Locks that ask for it.
    Optimal,
}

impl Mode {
    pub(super) fn parse(text: &str) -> Mode {
        match text {
            "file" => Mode::File,
            "forced" => Mode::Forced,
            "optimal" => Mode::Optimal,
            _ => Mode::Off,
        }
    }
}

/// Whether a fop sets or takes the mark of a fenced file, or opens without blocking.
pub(super) fn marks(fop: &Fop) -> bool {
    match fop {
        Fop::Setxattr { xattrs, .. } | Fop::Fsetxattr { xattrs, .. } => xattrs.contains(FENCE),
        Fop::Removexattr { name, .. } | Fop::Fremovexattr { name, .. } => name == FENCE.as_bytes(),
        Fop::Open { flags, .. } | Fop::Create { flags, .. } => flags & O_NONBLOCK != 0,
        _ => false,
    }
}

/// Linux's number.
const O_NONBLOCK: u32 = 0o4000;
const O_TRUNC: u32 = 0o1000;

/// What a fop reads or changes of a file, in the terms of locks.
struct Region {
    file: File,
    range: Range,
    reads: bool,
    /// Bytes in memory while it waits: those that a write brings, those that a read's answer will hold.
    size_bytes: u64,
    /// Whether it may wait: a truncate by gfid may not.
    waits: bool,
}

fn region_of(fop: &Fop) -> Option<Region> {
    let range = |start: u64, len: u64| Range {
        start,
        end: start.saturating_add(len.max(1) - 1).min(region::END_OF_FILE),
        exclusive: true,
    };
    let to_end = |start: u64| Range { start, end: region::END_OF_FILE, exclusive: true };
    let changes = |file: &File, range: Range| Region { file: *file, range, reads: false, size_bytes: 0, waits: true };
    Some(match fop {
        Fop::Read { file, offset, size_bytes, .. } => {
            let size_bytes = u64::from(*size_bytes);
            Region { reads: true, size_bytes, ..changes(file, range(*offset, size_bytes)) }
        }
        Fop::Write { file, offset, data, .. } => {
            let size_bytes = data.len() as u64;
            Region { size_bytes, ..changes(file, range(*offset, size_bytes)) }
        }
        Fop::Discard { file, offset, len, .. } | Fop::Zerofill { file, offset, len, .. } => {
            changes(file, range(*offset, *len))
        }
        Fop::Ftruncate { file, size_bytes, .. } => changes(file, to_end(*size_bytes)),
        Fop::Truncate { gfid, size_bytes, .. } => {
            Region { waits: false, ..changes(&File { gfid: *gfid, fd: None }, to_end(*size_bytes)) }
        }
        Fop::CopyFileRange { to, to_offset, len, .. } => changes(to, range(*to_offset, *len)),
        _ => return None,
    })
}

impl Locks {
    /// Sends a fop on when the locks of others let it through.
    pub(super) async fn gated(&self, context: &Context, fop: Fop) -> FopResult {
        let settings = *self.settings.read();
        match &fop {
            Fop::Setxattr { .. } | Fop::Fsetxattr { .. } | Fop::Removexattr { .. } | Fop::Fremovexattr { .. }
                if marks(&fop) && (settings.mandatory == Mode::Off || !settings.enforce) =>
            {
                let what = format!("{FENCE} needs locks.mandatory-locking and features.enforce-mandatory-lock");
                return Err(FopError::new(errno::EINVAL, what));
            }
            Fop::Open { gfid, flags, .. } if flags & O_TRUNC != 0 && !context.is_internal() => {
                self.check_truncating_open(*gfid, settings.mandatory).await?;
            }
            _ => {}
        }
        if let Some(region) = region_of(&fop)
            && settings.mandatory != Mode::Off
            && !context.is_internal()
        {
            self.wait_for(context, &region, settings.mandatory).await?;
        }
        let opens = match &fop {
            Fop::Open { flags, fd, .. } | Fop::Create { flags, fd, .. } if flags & O_NONBLOCK != 0 => Some(*fd),
            _ => None,
        };
        let reply = self.pass(context, fop).await?;
        if let Some(fd) = opens {
            self.nonblocking.write().insert(fd);
        }
        Ok(reply)
    }

    /// Whether a file is marked to be for who holds a lock only.
    pub(super) async fn is_fenced(&self, file: File) -> FopResult<bool> {
        let settings = *self.settings.read();
        if settings.mandatory == Mode::Off || !settings.enforce {
            return Ok(false);
        }
        let (name, xdata) = (Bytes::from_static(FENCE.as_bytes()), Dict::new());
        let fop = match file.fd {
            Some(_) => Fop::Fgetxattr { file, name, xdata },
            None => Fop::Getxattr { gfid: file.gfid, name, xdata },
        };
        match self.child.submit(&Context::root(), fop).await {
            Ok(_) => Ok(true),
            Err(e) if e.errno == errno::ENODATA => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Takes conflicting locks of others away, and refuses those who wait: who locks a fenced file has it.
    pub(super) fn preempt(&self, gfid: Gfid, lock: &PosixLock) {
        let refused = self.on_inode(gfid, |inode, wake, _| {
            inode.posix.remove_granted(|held| {
                let goes = held.who != lock.who && held.range.overlaps(&lock.range);
                if goes {
                    self.discharge(held.who.client, gfid, 1);
                }
                goes
            });
            let mut refused = Senders::new();
            for waiting in std::mem::take(&mut inode.posix.waiting) {
                self.discharge(waiting.lock.who.client, gfid, 1);
                refused.push(waiting.wake);
            }
            wake.extend(inode.posix.serve());
            refused
        });
        for sender in refused {
            let _ = sender.send(Err(FopError::new(errno::EBUSY, "somebody else took the lock of a fenced file")));
        }
    }

    /// A truncating open fails while others have locks, its own included, as in stock: an open has no lock owner.
    async fn check_truncating_open(&self, gfid: Gfid, mode: Mode) -> FopResult<()> {
        let locked = match mode {
            Mode::Off => false,
            Mode::File if !self.is_set_gid(gfid).await? => false,
            Mode::File | Mode::Forced => self.peek(gfid, |inode| inode.posix.len() > 0).unwrap_or(false),
            Mode::Optimal => {
                let any = |inode: &InodeLocks| {
                    inode.posix.granted.iter().any(|held| held.mandatory)
                        || inode.posix.waiting.iter().any(|waiting| waiting.lock.mandatory)
                };
                self.peek(gfid, any).unwrap_or(false)
            }
        };
        match locked {
            true => Err(FopError::new(errno::EAGAIN, "a truncating open of a file that is locked (mandatory locking)")),
            false => Ok(()),
        }
    }

    async fn is_set_gid(&self, gfid: Gfid) -> FopResult<bool> {
        match self.child.submit(&Context::root(), Fop::Stat { gfid, xdata: Dict::new() }).await? {
            Reply::Iatt { iatt, .. } => Ok(iatt.mode & 0o2010 == 0o2000),
            _ => Err(FopError::new(errno::EIO, "STAT answered with something else")),
        }
    }

    async fn wait_for(&self, context: &Context, region: &Region, mode: Mode) -> FopResult<()> {
        let (gfid, client) = (region.file.gfid, context.client);
        let who = Who { client, owner: context.lock_owner.clone() };
        if self.is_fenced(region.file).await? {
            let holds = |inode: &InodeLocks| {
                let touching = |held: &&PosixLock| held.range.overlaps(&region.range);
                inode.posix.granted.iter().find(touching).is_some_and(|held| {
                    held.who == who && held.range.start <= region.range.start && held.range.end >= region.range.end
                })
            };
            if self.peek(gfid, holds).unwrap_or(false) {
                return Ok(());
            }
            let errno = if region.reads { errno::EAGAIN } else { errno::EBUSY };
            return Err(FopError::new(errno, "I/O without a lock on a fenced file"));
        }
        if !self.has_locks(gfid) || mode == Mode::File && !self.is_set_gid(gfid).await? {
            return Ok(());
        }
        let patient = region.waits && !region.file.fd.is_some_and(|fd| self.nonblocking.read().contains(&fd));
        loop {
            let in_the_way = |held: &PosixLock| {
                held.who != who
                    && held.range.overlaps(&region.range)
                    && (held.range.exclusive || !region.reads)
                    && (mode != Mode::Optimal || held.mandatory)
            };
            let woken = self.on_inode(gfid, |inode, _, _| {
                if !inode.posix.granted.iter().any(in_the_way) {
                    return Ok(None);
                }
                if !patient || !self.may_wait(client, gfid, region.size_bytes) {
                    return Err(FopError::new(errno::EAGAIN, "the place is locked (mandatory locking)"));
                }
                // Those who gave up waiting are forgotten here, so that the list stays as short as what waits.
                inode.posix.io.retain(|(_, sender)| !sender.is_canceled());
                let (sender, woken) = oneshot::channel();
                inode.posix.io.push((client, sender));
                Ok(Some(woken))
            })?;
            let Some(woken) = woken else { return Ok(()) };
            let _guard = Guard { undo: Some(|| self.waited(client, gfid, region.size_bytes)) };
            // Cancelled: nothing of the inode's locks is left.
            woken.await.unwrap_or(Ok(()))?;
            if self.clients_of(client).lock().gone.contains(&client) {
                return Err(FopError::not_connected("the client of a read or write that waited"));
            }
        }
    }

    /// Notes that another read or write of a client waits, unless enough do, or the client has gone.
    fn may_wait(&self, client: ClientId, gfid: Gfid, size_bytes: u64) -> bool {
        let mut clients = self.clients_of(client).lock();
        if clients.gone.contains(&client) {
            return false;
        }
        let account = clients.held.entry(client).or_default();
        let waiting_bytes: u64 = account.waiting_io.iter().map(|(_, size_bytes)| *size_bytes).sum();
        let may =
            account.waiting_io.len() < MAX_WAITING_IO && waiting_bytes.saturating_add(size_bytes) <= MAX_WAITING_BYTES;
        if may {
            account.waiting_io.push((gfid, size_bytes));
        }
        may
    }

    fn waited(&self, client: ClientId, gfid: Gfid, size_bytes: u64) {
        let mut clients = self.clients_of(client).lock();
        if let Some(account) = clients.held.get_mut(&client) {
            if let Some(at) = account.waiting_io.iter().position(|io| *io == (gfid, size_bytes)) {
                account.waiting_io.swap_remove(at);
            }
            if account.by_inode.is_empty() && account.waiting_io.is_empty() {
                clients.held.remove(&client);
            }
        }
    }
}
