//! The thread that watches all rsockets of the process.
//!
//! An rsocket is no descriptor that io_uring or epoll could wait for: only the library's own poll can. So one thread
//! polls them all, receives records straight into their buffers and wakes who waits for them; what is sent goes from
//! the sender's thread, and only what did not go at once is left to this one. Before a connection is closed it leaves
//! this thread: the library waits for the peer then, on a thread of its own.
//!
//! One thread, and never with a time limit, for two reasons more. Whenever the library's poll returns in one thread it
//! wakes all others that poll. And up to rdma-core 62 (fixed in March 2026) a poll that runs into its limit is counted
//! as polling for ever: from then on polls spin.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::sys::{self, Interest};

/// What can be watched.
pub trait Watched: Send + Sync {
    /// What the thread is to look for; `None` while not even the end is of interest (polls always report that).
    fn interest(&self) -> Option<Interest>;

    /// It has found something. Must not wait.
    fn ready(&self, found: i16);

    /// Whether it is to be watched no longer.
    fn is_over(&self) -> bool;

    /// What is to be done then, on a thread of its own.
    fn end(&self) {}
}

/// The watching thread, as others see it.
pub struct Driver {
    /// Rings when there is something new to watch.
    bell: OwnedFd,
    new: Mutex<Vec<Arc<dyn Watched>>>,
    /// Watched, or being closed.
    count: std::sync::atomic::AtomicUsize,
}

impl Driver {
    /// The process's.
    ///
    /// # Errors
    /// No thread or descriptor can be had.
    pub fn get() -> io::Result<&'static Driver> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
        let make = || {
            let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
            let bell = rustix::event::eventfd(0, flags).map_err(|e| format!("eventfd: {e}"))?;
            Ok(Driver { bell, new: Mutex::default(), count: 0.into() })
        };
        let driver = DRIVER.get_or_init(make).as_ref().map_err(|e| io::Error::other(e.clone()))?;
        let start = || {
            let thread = std::thread::Builder::new().name("rsockets".to_owned());
            thread.spawn(|| driver.run()).map(drop).map_err(|e| format!("the thread of rsockets: {e}"))
        };
        STARTED.get_or_init(start).as_ref().map_err(|e| io::Error::other(e.clone()))?;
        Ok(driver)
    }

    /// Watches an rsocket until it is over.
    ///
    /// # Errors
    /// There are too many.
    pub fn watch(&self, watched: Arc<dyn Watched>) -> io::Result<()> {
        use std::sync::atomic::Ordering;
        let most = sys::max_rsockets()?;
        if self.count.fetch_add(1, Ordering::AcqRel) >= most {
            self.count.fetch_sub(1, Ordering::AcqRel);
            return Err(io::Error::other(format!("{most} rsockets are open: no more are taken")));
        }
        self.new.lock().push(watched);
        self.ring();
        Ok(())
    }

    /// Has the thread look at what connections want anew.
    pub fn ring(&self) {
        // A full counter rings as well.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn run(&'static self) {
        let mut all: Vec<Arc<dyn Watched>> = Vec::new();
        let mut polled: Vec<usize> = Vec::new();
        let mut interests = Vec::new();
        loop {
            all.append(&mut self.new.lock());
            all.retain(|watched| {
                if watched.is_over() {
                    self.end(watched.clone());
                    return false;
                }
                true
            });
            interests.clear();
            interests.push(Interest { number: self.bell.as_raw_fd(), wanted: libc::POLLIN, found: 0 });
            polled.clear();
            for (index, watched) in all.iter().enumerate() {
                if let Some(interest) = watched.interest() {
                    interests.push(interest);
                    polled.push(index);
                }
            }
            if let Err(error) = sys::poll(&mut interests)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "rpoll");
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            if interests.first().is_some_and(|bell| bell.found != 0) {
                let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
            }
            for (index, interest) in polled.iter().zip(interests.iter().skip(1)) {
                if interest.found != 0
                    && let Some(watched) = all.get(*index)
                {
                    watched.ready(interest.found);
                }
            }
        }
    }

    /// Closes what the thread no longer watches. The library may wait for a peer that is gone: it counts until that is done, so
    /// that no more threads wait than there may be rsockets.
    fn end(&'static self, watched: Arc<dyn Watched>) {
        let again = watched.clone();
        let thread = std::thread::Builder::new().name("rsocket-close".to_owned());
        let close = move |watched: Arc<dyn Watched>| {
            watched.end();
            // The last owner drops it, here at the latest.
            drop(watched);
            self.count.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        };
        if let Err(error) = thread.spawn(move || close(watched)) {
            tracing::warn!(%error, "closing an rsocket on the thread of all");
            close(again);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// Its end takes until it is told.
    struct Slow(Mutex<Receiver<()>>);

    impl Watched for Slow {
        fn interest(&self) -> Option<Interest> {
            None
        }

        fn ready(&self, _found: i16) {}

        fn is_over(&self) -> bool {
            true
        }

        fn end(&self) {
            let _ = self.0.lock().recv();
        }
    }

    #[test]
    fn what_is_being_closed_counts() {
        let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        let driver: &'static Driver = Box::leak(Box::new(Driver { bell, new: Mutex::default(), count: 1.into() }));
        let (go, wait) = channel();
        driver.end(Arc::new(Slow(Mutex::new(wait))));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(driver.count.load(Ordering::Acquire), 1);
        go.send(()).unwrap();
        let begun = std::time::Instant::now();
        while driver.count.load(Ordering::Acquire) > 0 {
            assert!(begun.elapsed() < std::time::Duration::from_secs(10), "never counted down");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
