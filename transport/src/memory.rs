//! An in-memory network: [`Transport`]s between tasks of one process, for tests. Any [`Address`] can be listened on;
//! connections can be cut and addresses made to refuse.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ladrillo_translator::LocalFuture;
use parking_lot::Mutex;

use crate::{Address, Connector, Message, Transport};

/// Records under way in one direction before senders wait.
const QUEUE_RECORDS: usize = 64;
/// Connections not yet accepted before connecting is refused.
const BACKLOG_CONNECTIONS: usize = 64;

/// A network of its own: addresses mean nothing outside it.
#[derive(Clone, Default)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    listeners: Mutex<HashMap<Address, Weak<Backlog>>>,
    connections: Mutex<Vec<(Address, Weak<Endpoint>)>>,
    connected: AtomicU64,
}

/// Waits for connections to an address.
pub struct Listener {
    backlog: Arc<Backlog>,
}

#[derive(Default)]
struct Backlog {
    state: Mutex<BacklogState>,
}

#[derive(Default)]
struct BacklogState {
    waiting: VecDeque<Arc<Endpoint>>,
    waker: Option<Waker>,
}

impl Network {
    /// An empty network.
    pub fn new() -> Network {
        Network::default()
    }

    /// Listens; until the listener is dropped. A second listener on an address replaces the first.
    pub fn listen(&self, address: Address) -> Listener {
        let backlog = Arc::new(Backlog::default());
        self.shared.listeners.lock().insert(address, Arc::downgrade(&backlog));
        Listener { backlog }
    }

    /// Makes connections in this network.
    pub fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(self.clone())
    }

    /// Cuts every connection that was made to `address`, at both ends; what was under way is lost.
    pub fn cut(&self, address: &Address) {
        let cut: Vec<_> = {
            let mut connections = self.shared.connections.lock();
            let (cut, rest) = std::mem::take(&mut *connections).into_iter().partition(|(to, _)| to == address);
            *connections = rest;
            cut
        };
        for endpoint in cut.iter().filter_map(|(_, endpoint)| endpoint.upgrade()) {
            endpoint.outgoing.cut();
            endpoint.incoming.cut();
        }
    }

    /// Connections made so far.
    pub fn connected(&self) -> u64 {
        self.shared.connected.load(Ordering::Relaxed)
    }

    fn connect_now(&self, address: &Address) -> io::Result<Arc<dyn Transport>> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, format!("nobody listens on {address:?}"));
        let backlog = self.shared.listeners.lock().get(address).and_then(Weak::upgrade).ok_or_else(refused)?;
        let number = self.shared.connected.fetch_add(1, Ordering::Relaxed);
        let (there, back) = (Arc::new(Pipe::default()), Arc::new(Pipe::default()));
        let names = (format!("memory client {number}"), format!("{address:?}"));
        let client = Arc::new(Endpoint {
            outgoing: there.clone(),
            incoming: back.clone(),
            local: names.0.clone(),
            peer: names.1.clone(),
        });
        let server = Arc::new(Endpoint { outgoing: back, incoming: there, local: names.1, peer: names.0 });
        {
            let mut state = backlog.state.lock();
            if state.waiting.len() == BACKLOG_CONNECTIONS {
                return Err(refused());
            }
            state.waiting.push_back(server);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
        let mut connections = self.shared.connections.lock();
        connections.retain(|(_, endpoint)| endpoint.strong_count() > 0);
        connections.push((address.clone(), Arc::downgrade(&client)));
        Ok(client)
    }
}

impl Connector for Network {
    fn connect<'a>(
        &'a self,
        address: &'a Address,
        _timeout: Duration,
    ) -> LocalFuture<'a, io::Result<Arc<dyn Transport>>> {
        Box::pin(std::future::ready(self.connect_now(address)))
    }
}

impl Listener {
    /// The next connection.
    pub async fn accept(&self) -> Arc<dyn Transport> {
        poll_fn(|cx| {
            let mut state = self.backlog.state.lock();
            match state.waiting.pop_front() {
                Some(endpoint) => Poll::Ready(endpoint as Arc<dyn Transport>),
                None => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// One end of a connection.
struct Endpoint {
    outgoing: Arc<Pipe>,
    incoming: Arc<Pipe>,
    local: String,
    peer: String,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.outgoing.end();
        self.incoming.cut();
    }
}

impl Transport for Endpoint {
    fn send<'a>(&'a self, message: Message) -> LocalFuture<'a, io::Result<()>> {
        // Takes its place in the order now, not when first polled.
        let ticket = self.outgoing.push(contiguous(message));
        Box::pin(async move {
            let ticket = ticket?;
            poll_fn(|cx| self.outgoing.poll_taken(ticket, cx)).await
        })
    }

    fn recv<'a>(&'a self) -> LocalFuture<'a, io::Result<Bytes>> {
        Box::pin(poll_fn(|cx| self.incoming.poll_next(cx)))
    }

    fn close(&self) {
        self.outgoing.end();
        self.incoming.cut();
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn local(&self) -> String {
        self.local.clone()
    }
}

/// What the kernel does for TCP: the record in one piece at the other end.
fn contiguous(message: Message) -> Bytes {
    if message.payload.is_empty() {
        return message.header;
    }
    let mut record = BytesMut::with_capacity(message.len());
    record.extend_from_slice(&message.header);
    record.extend_from_slice(message.payload.as_slice());
    record.resize(message.len(), 0);
    record.freeze()
}

/// Records in one direction.
#[derive(Default)]
struct Pipe {
    state: Mutex<PipeState>,
}

#[derive(Default)]
struct PipeState {
    records: VecDeque<Bytes>,
    pushed: u64,
    popped: u64,
    /// No more will be sent; what is there can still be read.
    ended: bool,
    /// Broken at once for both ends.
    cut: bool,
    receiver: Option<Waker>,
    senders: Vec<Waker>,
}

impl PipeState {
    fn wake_all(&mut self) {
        self.receiver.take().into_iter().chain(self.senders.drain(..)).for_each(Waker::wake);
    }
}

impl Pipe {
    fn push(&self, record: Bytes) -> io::Result<u64> {
        let mut state = self.state.lock();
        if state.ended || state.cut {
            return Err(aborted());
        }
        state.records.push_back(record);
        state.pushed += 1;
        if let Some(waker) = state.receiver.take() {
            waker.wake();
        }
        Ok(state.pushed)
    }

    /// A sender waits while more than the queue's length is before the receiver.
    fn poll_taken(&self, ticket: u64, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        if state.cut {
            return Poll::Ready(Err(aborted()));
        }
        if ticket <= state.popped + QUEUE_RECORDS as u64 {
            return Poll::Ready(Ok(()));
        }
        state.senders.push(cx.waker().clone());
        Poll::Pending
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut state = self.state.lock();
        if state.cut {
            return Poll::Ready(Err(aborted()));
        }
        if let Some(record) = state.records.pop_front() {
            state.popped += 1;
            state.senders.drain(..).for_each(Waker::wake);
            return Poll::Ready(Ok(record));
        }
        if state.ended {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        state.receiver = Some(cx.waker().clone());
        Poll::Pending
    }

    fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.wake_all();
    }

    fn cut(&self) {
        let mut state = self.state.lock();
        state.cut = true;
        state.records.clear();
        state.wake_all();
    }
}

fn aborted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::future::{join, join_all};
    use ladrillo_translator::Payload;

    use super::*;

    fn message(text: &'static str) -> Message {
        Message { header: Bytes::from_static(text.as_bytes()), ..Message::default() }
    }

    fn pair() -> (Network, Address, Arc<dyn Transport>, Arc<dyn Transport>) {
        let network = Network::new();
        let address = Address::Tcp { host: "h".into(), port: 1 };
        let listener = network.listen(address.clone());
        let client = block_on(network.connect(&address, Duration::from_secs(1))).unwrap();
        let server = block_on(listener.accept());
        (network, address, client, server)
    }

    #[test]
    fn records_arrive_whole_and_in_order_with_a_bounded_queue() {
        let (_network, _, client, server) = pair();
        let payload = Payload::from_bytes(Bytes::from_static(b"abc"));
        let first = Message { header: Bytes::from_static(b"head"), payload, padding: 1 };
        let sends = (0..300).map(|n| client.send(if n == 0 { first.clone() } else { message("x") }));
        let received = async {
            assert_eq!(server.recv().await.unwrap(), "headabc\0");
            for _ in 1..300 {
                assert_eq!(server.recv().await.unwrap(), "x");
            }
        };
        block_on(join(join_all(sends), received)).0.into_iter().for_each(|sent| sent.unwrap());
    }

    #[test]
    fn closing_cutting_and_refusing_are_felt() {
        let (network, address, client, server) = pair();
        block_on(client.send(message("last"))).unwrap();
        client.close();
        assert_eq!(block_on(server.recv()).unwrap(), "last");
        assert_eq!(block_on(server.recv()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(block_on(client.recv()).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        let refused = block_on(network.connect(&address, Duration::ZERO)).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        let (network, address, client, server) = pair();
        block_on(client.send(message("lost"))).unwrap();
        network.cut(&address);
        assert_eq!(block_on(server.recv()).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(block_on(client.send(message("x"))).is_err());
    }
}
