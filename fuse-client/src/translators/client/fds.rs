//! Open files: the graph's ids and the brick's numbers for them.
//!
//! A number is good within the session that opened it. After a reconnect every file is opened again, before the client
//! says that it is up; what could not be opened is tried again when it is next used.

use std::sync::Arc;
use std::time::Duration;

use ladrillo_translator::error::errno;
use ladrillo_translator::{FdId, FopError, FopKind, FopResult, Gfid};
use parking_lot::Mutex;

/// A descriptor that could not be opened again is not tried more often than this.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Flags of a file whose writes mean something else through an anonymous descriptor.
const WRITE_FLAGS: u32 = (libc::O_APPEND | libc::O_SYNC | libc::O_DSYNC) as u32;
/// Flags that are of the first open only.
const CREATION_FLAGS: u32 = (libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC) as u32;

#[derive(Default)]
pub(super) struct Fds {
    open: papaya::HashMap<FdId, Arc<OpenFd>>,
    /// Released here, and not on the brick yet: session and number.
    orphans: Mutex<Vec<(u64, Arc<OpenFd>, FdId)>>,
}

pub(super) struct OpenFd {
    pub gfid: Gfid,
    pub directory: bool,
    flags: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Session and number.
    remote: Option<(u64, FdId)>,
    reopening: bool,
    retry_at: Duration,
    released: bool,
    /// Locks held through it are lost for good: it is not to be used any more.
    bad: bool,
}

/// What to put on the wire for a descriptor.
pub(super) enum Resolved {
    /// This number (`None`: anonymous).
    Use(Option<FdId>),
    /// The same, and the file shall be opened again.
    Reopen(Arc<OpenFd>, FopResult<Option<FdId>>),
}

impl Fds {
    /// Notes that `fd` is open as `number`. Gives back a number to release: one that it had before in this session.
    pub fn opened(&self, fd: FdId, file: OpenFd, epoch: u64, number: FdId) -> Option<FdId> {
        file.state.lock().remote = Some((epoch, number));
        let open = self.open.pin();
        let before = open.insert(fd, Arc::new(file))?;
        let mut state = before.state.lock();
        state.released = true;
        state.remote.take().filter(|(session, _)| *session == epoch).map(|(_, number)| number)
    }

    /// Forgets `fd`. What it has open on the brick is for [`Fds::take_orphans`] from now on: of a file that was opened
    /// again by a session that is still opening others, the brick can be told only when that is done.
    pub fn release(&self, fd: FdId) {
        let open = self.open.pin();
        let Some(file) = open.remove(&fd) else { return };
        let mut state = file.state.lock();
        state.released = true;
        if let Some((session, number)) = state.remote.take() {
            drop(state);
            self.orphans.lock().push((session, file.clone(), number));
        }
    }

    /// [`Fds::release`] of what session `epoch` has open: its number, for the caller to release on the brick.
    pub fn close(&self, fd: FdId, epoch: u64) -> Option<FdId> {
        let open = self.open.pin();
        let file = open.remove(&fd)?;
        let mut state = file.state.lock();
        state.released = true;
        let (session, number) = state.remote.take()?;
        if session == epoch {
            return Some(number);
        }
        drop(state);
        self.orphans.lock().push((session, file.clone(), number));
        None
    }

    /// What is to be released on the brick in session `epoch`. Those of earlier sessions went with them; there are never
    /// more than files were open when the last one ended.
    pub fn take_orphans(&self, epoch: u64) -> Vec<(Arc<OpenFd>, FdId)> {
        let mut orphans = self.orphans.lock();
        let (due, later) = std::mem::take(&mut *orphans)
            .into_iter()
            .filter(|(session, ..)| *session >= epoch)
            .partition::<Vec<_>, _>(|(session, ..)| *session == epoch);
        *orphans = later;
        due.into_iter().map(|(_, file, number)| (file, number)).collect()
    }

    /// The number of `fd` in session `epoch` for a fop of `kind`.
    ///
    /// # Errors
    /// EBADFD: it is not open on this brick, and this fop needs it to be.
    pub fn resolve(&self, fd: FdId, kind: FopKind, epoch: u64, now: Duration) -> FopResult<Resolved> {
        let open = self.open.pin();
        let Some(file) = open.get(&fd) else {
            return anonymous(kind, false, 0).map(Resolved::Use);
        };
        let mut state = file.state.lock();
        match state.remote {
            Some((session, number)) if session == epoch => return Ok(Resolved::Use(Some(number))),
            _ => {}
        }
        if state.bad {
            return Err(FopError::new(errno::EBADFD, "the locks of this file were lost with its brick (strict-locks)"));
        }
        let number = anonymous(kind, file.directory, file.flags);
        if state.reopening || now < state.retry_at {
            return number.map(Resolved::Use);
        }
        state.reopening = true;
        Ok(Resolved::Reopen(file.clone(), number))
    }

    /// All files that are not open in session `epoch`, now being opened again.
    pub fn to_reopen(&self, epoch: u64) -> Vec<Arc<OpenFd>> {
        let open = self.open.pin();
        let mut files = Vec::new();
        for file in open.values() {
            let mut state = file.state.lock();
            if !state.bad && state.remote.is_none_or(|(session, _)| session != epoch) {
                state.reopening = true;
                files.push(file.clone());
            }
        }
        files
    }

    /// The number of `fd` in session `epoch`.
    pub fn number(&self, fd: FdId, epoch: u64) -> Option<FdId> {
        let open = self.open.pin();
        let state = open.get(&fd)?.state.lock();
        state.remote.filter(|(session, _)| *session == epoch).map(|(_, number)| number)
    }

    /// `fd`, if it is not open in session `epoch` and its turn to be opened again has come: now being opened.
    pub fn due(&self, fd: FdId, epoch: u64, now: Duration) -> Option<Arc<OpenFd>> {
        let open = self.open.pin();
        let file = open.get(&fd)?;
        let mut state = file.state.lock();
        let is_open = state.remote.is_some_and(|(session, _)| session == epoch);
        if is_open || state.bad || state.reopening || now < state.retry_at {
            return None;
        }
        state.reopening = true;
        Some(file.clone())
    }

    /// `fd` is of no use any more, but to be released.
    pub fn spoil(&self, fd: FdId) {
        if let Some(file) = self.open.pin().get(&fd) {
            file.state.lock().bad = true;
        }
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }
}

impl OpenFd {
    pub fn new(gfid: Gfid, flags: u32, directory: bool) -> OpenFd {
        OpenFd { gfid, directory, flags, state: Mutex::new(State::default()) }
    }

    /// The flags to open it again with.
    pub fn reopen_flags(&self) -> u32 {
        self.flags & !CREATION_FLAGS
    }

    /// The end of an attempt to open it again. Gives back the number when the file was released meanwhile: it must be
    /// released on the brick.
    pub fn reopened(&self, epoch: u64, number: Option<FdId>, now: Duration) -> Option<FdId> {
        let mut state = self.state.lock();
        state.reopening = false;
        match number {
            Some(number) if state.released => Some(number),
            // An attempt of an earlier session that ends late changes nothing.
            Some(_) if state.remote.is_some_and(|(session, _)| session >= epoch) => None,
            Some(number) => {
                state.remote = Some((epoch, number));
                None
            }
            None => {
                state.retry_at = now + RETRY_INTERVAL;
                None
            }
        }
    }
}

/// Whether a fop on a file that is not open here may go without a descriptor: the brick then opens the inode for this
/// one request. What needs the state of an open file (locks, directory streams) may not.
fn anonymous(kind: FopKind, directory: bool, flags: u32) -> FopResult<Option<FdId>> {
    use FopKind::*;
    let allowed = match kind {
        Read | Fsync | Finodelk | Fxattrop | Fstat | Fsetattr | Fgetxattr | Fsetxattr | Fremovexattr | Rchecksum
        | Seek => true,
        Write | CopyFileRange | Ftruncate | Fallocate | Discard | Zerofill => flags & WRITE_FLAGS == 0,
        _ => false,
    };
    if allowed && !directory {
        return Ok(None);
    }
    Err(FopError::new(errno::EBADFD, format!("{} on a file that is not open on this brick", kind.name())))
}
