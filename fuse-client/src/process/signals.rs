//! Signals as events of the ring: blocked for all threads, read from a signalfd.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use crate::executor::{WriteBuffer, read};

/// Size of `struct signalfd_siginfo`.
const INFO_BYTES: usize = 128;

/// Where signals are read.
pub struct Signals {
    fd: Arc<OwnedFd>,
}

/// A signal this process acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: end.
    End,
    /// SIGHUP: open the log again, ask for the volfile.
    Hangup,
    /// SIGUSR1: write a state dump.
    Dump,
    /// SIGUSR2: heal what the indices list.
    Heal,
    /// SIGURG: look at every file. (A stock service ignores it, which no other free signal can say.)
    HealFull,
}

struct Info(Box<[u8; INFO_BYTES]>);

// SAFETY: the boxed array stays where it is when its owner moves, and is nobody else's.
unsafe impl WriteBuffer for Info {
    fn spare(&mut self) -> (*mut u8, usize) {
        (self.0.as_mut_ptr(), INFO_BYTES)
    }
}

impl Signals {
    /// Blocks the signals for this thread, and for those it starts from now on.
    ///
    /// # Errors
    /// signalfd(2)'s.
    pub fn block() -> io::Result<Signals> {
        // SAFETY: the set is initialised by sigemptyset before it is used, and lives through the calls.
        let fd = unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGURG] {
                libc::sigaddset(&mut set, signal);
            }
            let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            if blocked != 0 {
                return Err(io::Error::from_raw_os_error(blocked));
            }
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just returned it; nobody else owns it.
        Ok(Signals { fd: Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// The next signal.
    pub async fn next(&self) -> Signal {
        loop {
            let (result, info) = read(&self.fd, Info(Box::new([0; INFO_BYTES]))).await;
            if let Err(error) = result {
                tracing::error!("signalfd: {error}");
                return Signal::End;
            }
            let number = u32::from_ne_bytes([info.0[0], info.0[1], info.0[2], info.0[3]]) as i32;
            match number {
                libc::SIGTERM | libc::SIGINT => return Signal::End,
                libc::SIGHUP => return Signal::Hangup,
                libc::SIGUSR1 => return Signal::Dump,
                libc::SIGUSR2 => return Signal::Heal,
                libc::SIGURG => return Signal::HealFull,
                _ => {}
            }
        }
    }
}
