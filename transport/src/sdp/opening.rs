//! How rsocket connections come to be: asked for, and accepted. Both on the driver's thread, which alone polls.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use parking_lot::{Condvar, Mutex};

use super::connection::RsocketTransport;
use super::driver::{Driver, Watched};
use super::sys::{Interest, Rsocket};
use super::{explain, keep_alive, tune};
use crate::{Accepted, Listener, Transport};

/// Connections that may be under way at once.
const MAX_CONNECTING: usize = 64;
/// Accepted connections that may wait to be taken.
const MAX_ACCEPTED: usize = 128;

/// A connection under way.
struct Connecting {
    number: i32,
    socket: Mutex<Option<(Rsocket, oneshot::Sender<io::Result<Rsocket>>)>>,
    over: AtomicBool,
}

static CONNECTING: AtomicUsize = AtomicUsize::new(0);

/// Counts a connection under way while it lives, and ends it when nobody waits for it any more.
#[derive(Default)]
struct Waiting(Option<Arc<Connecting>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        CONNECTING.fetch_sub(1, Ordering::AcqRel);
        if let Some(connecting) = self.0.take()
            && !connecting.over.swap(true, Ordering::AcqRel)
            && let Ok(driver) = Driver::get()
        {
            driver.ring();
        }
    }
}

/// Connects.
pub(super) async fn connect(address: SocketAddr) -> io::Result<Arc<dyn Transport>> {
    let count = CONNECTING.fetch_add(1, Ordering::AcqRel);
    let mut waiting = Waiting::default();
    if count >= MAX_CONNECTING {
        return Err(io::Error::new(io::ErrorKind::WouldBlock, "too many rsockets are being connected"));
    }
    let driver = Driver::get()?;
    // The first rsocket of a process takes its time: not on this thread.
    let (begun, beginning) = oneshot::channel();
    std::thread::Builder::new().name("rsocket-connect".to_owned()).spawn(move || {
        let _ = begun.send(begin(address));
    })?;
    let socket = beginning.await.map_err(|_| io::Error::other("the connecting thread died"))??;
    let (answer, answered) = oneshot::channel();
    let connecting = Arc::new(Connecting {
        number: socket.number(),
        socket: Mutex::new(Some((socket, answer))),
        over: AtomicBool::new(false),
    });
    driver.watch(connecting.clone())?;
    waiting.0 = Some(connecting);
    let socket = answered.await.map_err(|_| io::Error::other("the thread of rsockets died"))??;
    keep_alive(&socket)?;
    Ok(Arc::new(RsocketTransport::new(socket)?))
}

fn begin(address: SocketAddr) -> io::Result<Rsocket> {
    let socket = Rsocket::new(address)?;
    tune(&socket)?;
    socket.set_nonblocking()?;
    match socket.connect(address) {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(explain(e)),
        _ => Ok(socket),
    }
}

impl Watched for Connecting {
    fn interest(&self) -> Option<Interest> {
        Some(Interest { number: self.number, wanted: libc::POLLOUT, found: 0 })
    }

    fn ready(&self, found: i16) {
        let Some((socket, answer)) = self.socket.lock().take() else { return };
        self.over.store(true, Ordering::Release);
        let failed = found & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        let outcome = match (failed, socket.error()) {
            (false, _) => Ok(socket),
            (true, 0) => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
            (true, errno) => Err(explain(io::Error::from_raw_os_error(errno))),
        };
        // Who asked may have given up: it is closed then.
        let _ = answer.send(outcome);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn end(&self) {
        // Given up: closed on this thread.
        drop(self.socket.lock().take());
    }
}

/// Listens.
pub(super) fn listen(address: SocketAddr) -> io::Result<Box<dyn Listener>> {
    let socket = Rsocket::new(address)?;
    tune(&socket)?;
    socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    socket.set_nonblocking()?;
    socket.bind(address)?;
    socket.listen(128)?;
    let local = socket.local().unwrap_or(address);
    let door =
        Arc::new(Door { socket, accepted: Mutex::default(), rings: Condvar::new(), over: AtomicBool::new(false) });
    Driver::get()?.watch(door.clone())?;
    Ok(Box::new(RsocketListener { door, local }))
}

struct RsocketListener {
    door: Arc<Door>,
    local: SocketAddr,
}

/// A listening rsocket, and who has come in.
struct Door {
    socket: Rsocket,
    accepted: Mutex<VecDeque<Arc<dyn Accepted>>>,
    rings: Condvar,
    over: AtomicBool,
}

impl Watched for Door {
    fn interest(&self) -> Option<Interest> {
        let full = self.accepted.lock().len() >= MAX_ACCEPTED;
        Some(Interest { number: self.socket.number(), wanted: if full { 0 } else { libc::POLLIN }, found: 0 })
    }

    fn ready(&self, _found: i16) {
        let accepted = self.socket.accept().and_then(|socket| {
            keep_alive(&socket)?;
            RsocketTransport::new(socket)
        });
        match accepted {
            Ok(transport) => {
                self.accepted.lock().push_back(Arc::new(transport));
                self.rings.notify_one();
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(error = %explain(error), "accepting an rsocket");
                // Should it say the same again and again.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Listener for RsocketListener {
    fn accept(&self, patience: Duration) -> io::Result<Option<Arc<dyn Accepted>>> {
        let mut accepted = self.door.accepted.lock();
        if accepted.is_empty() {
            self.door.rings.wait_for(&mut accepted, patience);
        }
        let was_full = accepted.len() >= MAX_ACCEPTED;
        let next = accepted.pop_front();
        drop(accepted);
        if was_full && let Ok(driver) = Driver::get() {
            driver.ring();
        }
        Ok(next)
    }

    fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for RsocketListener {
    fn drop(&mut self) {
        self.door.over.store(true, Ordering::Release);
        if let Ok(driver) = Driver::get() {
            driver.ring();
        }
    }
}
