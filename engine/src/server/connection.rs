//! One connection of a client, whatever carries it: a kernel socket ([`socket`]), which the executor's ring serves, or a
//! transport that looks after itself ([`Accepted`]: rsockets, verbs).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use ladrillo_transport::{Accepted, Message};

use super::socket::{self, OUTGOING_ENOUGH_BYTES};

/// What an executor is handed.
pub enum Arrival {
    /// A kernel socket.
    Socket(OwnedFd),
    /// Anything else.
    Transport(Arc<dyn Accepted>),
}

/// The sending half, shared by whoever answers; any thread may send.
pub struct Outgoing {
    way: Way,
    peer: String,
    /// The executor that keeps the connection.
    executor: usize,
    closed: AtomicBool,
}

enum Way {
    Socket(Arc<socket::Outgoing>),
    Transport(Arc<dyn Accepted>),
}

/// The receiving half. Lives on one executor.
pub enum Incoming {
    /// Of a kernel socket.
    Socket(socket::Incoming),
    /// Of anything else.
    Transport(Arc<dyn Accepted>),
}

/// Makes a connection out of what was accepted. Call on the executor that keeps it.
///
/// # Errors
/// No descriptors left.
pub fn adopt(arrival: Arrival, peer: String, executor: usize) -> io::Result<(Incoming, Arc<Outgoing>)> {
    let (incoming, way) = match arrival {
        Arrival::Socket(socket) => {
            let (incoming, outgoing) = socket::adopt(socket, peer.clone())?;
            (Incoming::Socket(incoming), Way::Socket(outgoing))
        }
        Arrival::Transport(transport) => (Incoming::Transport(transport.clone()), Way::Transport(transport)),
    };
    Ok((incoming, Arc::new(Outgoing { way, peer, executor, closed: AtomicBool::new(false) })))
}

impl Outgoing {
    /// Queues a record and sends as much as can go at once. A client that reads nothing is cut off.
    pub fn send(&self, message: Message) {
        match &self.way {
            Way::Socket(socket) => socket.send(message),
            Way::Transport(transport) => {
                if self.closed.load(Ordering::Acquire) {
                    return;
                }
                if let Err(error) = transport.post(message) {
                    if !self.closed.load(Ordering::Acquire) {
                        tracing::info!(peer = %self.peer, %error, "connection lost while sending");
                    }
                    self.close();
                }
            }
        }
    }

    /// Ends the connection; the receiving half notices.
    pub fn close(&self) {
        match &self.way {
            Way::Socket(socket) => socket.close(),
            Way::Transport(transport) => {
                if !self.closed.swap(true, Ordering::AcqRel) {
                    transport.close();
                }
            }
        }
    }

    /// Ready when few enough answers wait, or none ever will.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.way {
            Way::Socket(socket) => socket.poll_room(cx),
            Way::Transport(transport) => transport.poll_room(cx, OUTGOING_ENOUGH_BYTES),
        }
    }

    /// The client has been let in: it may use more memory from now on.
    pub fn admit(&self) {
        if let Way::Transport(transport) = &self.way {
            transport.admit();
        }
    }

    /// The executor that keeps the connection.
    pub fn executor(&self) -> usize {
        self.executor
    }

    /// Answers what needs no executor while that hangs: see [`socket::Outgoing::rescue`]. What is left in a transport
    /// that receives by itself is bounded there.
    pub fn rescue(&self, room: usize, answer: impl Fn(&Bytes) -> Option<Message>) -> usize {
        match &self.way {
            Way::Socket(socket) => socket.rescue(room, answer),
            Way::Transport(transport) => {
                transport.rescue(&answer);
                0
            }
        }
    }

    /// Bytes that a rescue has read and the executor not yet taken.
    pub fn left_bytes(&self) -> usize {
        match &self.way {
            Way::Socket(socket) => socket.left_bytes(),
            Way::Transport(_) => 0,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// What carries it, really.
    pub fn medium(&self) -> String {
        match &self.way {
            Way::Socket(socket) => socket.medium(),
            Way::Transport(transport) => transport.medium(),
        }
    }

    /// Bytes received from and taken by the other end; 0 where nobody counts.
    pub fn traffic(&self) -> (u64, u64) {
        match &self.way {
            Way::Socket(socket) => socket.traffic(),
            Way::Transport(transport) => transport.traffic(),
        }
    }
}

impl Incoming {
    /// The next record, or `None` at the end of the connection.
    ///
    /// # Errors
    /// What is no record, or the network's.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Incoming::Socket(socket) => socket.next().await,
            Incoming::Transport(transport) => match transport.recv().await {
                Ok(record) => Ok(Some(record)),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(e) => Err(e),
            },
        }
    }
}
