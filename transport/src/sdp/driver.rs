//! The thread that watches all rsockets of the process.
//!
//! An rsocket is no descriptor that io_uring or epoll could wait for: only the library's own poll can. So one thread
//! polls them all, receives records straight into their buffers and wakes who waits for them; what is sent goes from
//! the sender's thread, and only what did not go at once is left to this one. Before a connection is closed it leaves
//! this thread: the library waits for the peer then, on a thread of its own.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::connection::Connection;
use super::sys::{self, Interest};

/// Connections of a process at once: each is looked at on every turn, and pins its buffers. Source: our bound.
const MAX_CONNECTIONS: usize = 4096;
/// How long a turn waits for nothing, in milliseconds.
const TURN_MS: i32 = 1000;

/// The watching thread, as others see it.
pub struct Driver {
    /// Rings when there is something new to watch.
    bell: OwnedFd,
    new: Mutex<Vec<Arc<Connection>>>,
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

    /// Watches a connection until it ends.
    ///
    /// # Errors
    /// There are too many.
    pub fn watch(&self, connection: &Arc<Connection>) -> io::Result<()> {
        use std::sync::atomic::Ordering;
        if self.count.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            self.count.fetch_sub(1, Ordering::AcqRel);
            return Err(io::Error::other(format!("{MAX_CONNECTIONS} rsockets are open: no more are taken")));
        }
        self.new.lock().push(connection.clone());
        self.ring();
        Ok(())
    }

    /// Has the thread look at what connections want anew.
    pub fn ring(&self) {
        // A full counter rings as well.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn run(&self) {
        let mut connections: Vec<Arc<Connection>> = Vec::new();
        let mut interests = Vec::new();
        loop {
            connections.append(&mut self.new.lock());
            connections.retain(|connection| {
                if connection.is_over() {
                    self.count.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
                    close(connection.clone());
                    return false;
                }
                true
            });
            interests.clear();
            interests.push(Interest { number: self.bell.as_raw_fd(), wanted: libc::POLLIN, found: 0 });
            interests.extend(connections.iter().map(|connection| connection.interest()));
            if let Err(error) = sys::poll(&mut interests, TURN_MS)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "rpoll");
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            if interests.first().is_some_and(|bell| bell.found != 0) {
                let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
            }
            for (connection, interest) in connections.iter().zip(interests.iter().skip(1)) {
                if interest.found != 0 {
                    connection.ready(interest.found);
                }
            }
        }
    }
}

/// Closes what the thread no longer watches. The library may wait for a peer that is gone.
fn close(connection: Arc<Connection>) {
    let again = connection.clone();
    let thread = std::thread::Builder::new().name("rsocket-close".to_owned());
    if let Err(error) = thread.spawn(move || connection.shut_down()) {
        tracing::warn!(%error, "closing an rsocket on the thread of all");
        again.shut_down();
    }
}
