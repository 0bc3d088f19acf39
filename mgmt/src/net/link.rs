//! Calls to other glusterds: one connection for each address, kept open, many calls on it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ladrillo_transport::Message;
use ladrillo_transport::rpc::{AcceptStatus, Incoming, decode_record};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::record::{self, MAX_RECORD_BYTES};
use super::rpc;
use super::socket::{self, Stream};

/// Most calls waiting for one connection; beyond it callers are refused.
const QUEUE: usize = 256;
/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// After a failed connect, callers are refused for this long rather than each trying again.
const RETRY_AFTER: Duration = Duration::from_millis(300);

struct Job {
    program: u32,
    body: Message,
    answer: oneshot::Sender<io::Result<Bytes>>,
}

type Queues = HashMap<(String, u16), mpsc::Sender<Job>>;

type Pending = Rc<RefCell<HashMap<u32, oneshot::Sender<io::Result<Bytes>>>>>;

/// An open connection: its stream, the calls that wait on it, whether it still lives.
type Open = (Rc<dyn Stream>, Pending, Rc<RefCell<bool>>);

/// The links of one glusterd. A handle: cheap to clone, may be used from any task.
#[derive(Clone)]
pub struct Links {
    open: mpsc::UnboundedSender<(String, u16, mpsc::Receiver<Job>)>,
    queues: Arc<Mutex<Queues>>,
}

impl Links {
    /// Starts the links; connections leave from `source` where one is given. Must be called on the io_uring runtime.
    pub fn start(source: Option<IpAddr>) -> Links {
        // Bounded by the number of different addresses, which is the number of peers.
        let (open, mut opened) = mpsc::unbounded_channel::<(String, u16, mpsc::Receiver<Job>)>();
        tokio::task::spawn_local(async move {
            while let Some((host, port, jobs)) = opened.recv().await {
                tokio::task::spawn_local(serve(host, port, source, jobs));
            }
        });
        Links { open, queues: Arc::default() }
    }

    /// Calls our one procedure of `program` at `host:port`.
    ///
    /// # Errors
    /// The connection's, `TimedOut` after `timeout`, `InvalidData` when the answer is no answer.
    pub async fn call(&self, host: &str, port: u16, program: u32, json: &[u8], timeout: Duration) -> io::Result<Bytes> {
        let queue = {
            let mut queues = self.queues.lock();
            match queues.get(&(host.to_owned(), port)) {
                Some(queue) if !queue.is_closed() => queue.clone(),
                _ => {
                    let (queue, jobs) = mpsc::channel(QUEUE);
                    self.open.send((host.to_owned(), port, jobs)).map_err(|_| ended())?;
                    queues.insert((host.to_owned(), port), queue.clone());
                    queue
                }
            }
        };
        let (answer, answered) = oneshot::channel();
        queue
            .try_send(Job { program, body: rpc::wrap(json), answer })
            .map_err(|_| io::Error::new(io::ErrorKind::WouldBlock, format!("too many calls wait for {host}")))?;
        match tokio::time::timeout(timeout, answered).await {
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{host} did not answer in time"))),
            Ok(Err(_)) => Err(ended()),
            Ok(Ok(answer)) => rpc::unwrap(answer?, MAX_RECORD_BYTES)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Closes the link to `host:port` (a peer that left).
    pub fn forget(&self, host: &str, port: u16) {
        self.queues.lock().remove(&(host.to_owned(), port));
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection ended")
}

/// Serves one address until its queue is dropped.
async fn serve(host: String, port: u16, source: Option<IpAddr>, mut jobs: mpsc::Receiver<Job>) {
    let mut connection: Option<Open> = None;
    let mut failed: Option<(Instant, io::ErrorKind, String)> = None;
    let mut xid = 0u32;
    while let Some(job) = jobs.recv().await {
        if connection.as_ref().is_some_and(|(_, _, alive)| !*alive.borrow()) {
            connection = None;
        }
        if connection.is_none() {
            if let Some((at, kind, message)) = &failed
                && at.elapsed() < RETRY_AFTER
            {
                let _ = job.answer.send(Err(io::Error::new(*kind, message.clone())));
                continue;
            }
            match socket::connect(&host, port, source, CONNECT_TIMEOUT).await {
                Ok(stream) => {
                    let pending = Pending::default();
                    let alive = Rc::new(RefCell::new(true));
                    tokio::task::spawn_local(receive(stream.clone(), pending.clone(), alive.clone()));
                    connection = Some((stream, pending, alive));
                    failed = None;
                }
                Err(error) => {
                    failed = Some((Instant::now(), error.kind(), error.to_string()));
                    let _ = job.answer.send(Err(error));
                    continue;
                }
            }
        }
        let Some((stream, pending, alive)) = &connection else { continue };
        // Answers nobody waits for any more (their callers timed out) leave the table here, so it stays bounded.
        pending.borrow_mut().retain(|_, answer| !answer.is_closed());
        xid = xid.wrapping_add(1);
        pending.borrow_mut().insert(xid, job.answer);
        let sent = match rpc::call(xid, job.program, rpc::OWN_VERSION, rpc::OWN_CALL, job.body) {
            Ok(record) => match tokio::time::timeout(Duration::from_secs(10), stream.write_all(record)).await {
                Ok(sent) => sent,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            if let Some(answer) = pending.borrow_mut().remove(&xid) {
                let _ = answer.send(Err(error));
            }
            stream.shutdown();
            *alive.borrow_mut() = false;
        }
    }
    if let Some((stream, ..)) = connection {
        stream.shutdown();
    }
}

async fn receive(stream: Rc<dyn Stream>, pending: Pending, alive: Rc<RefCell<bool>>) {
    let mut reader = record::Reader::new(stream.clone(), MAX_RECORD_BYTES);
    while let Ok(Some(record)) = reader.next().await {
        let Ok(Incoming::Reply(header, body)) = decode_record(record) else { break };
        if let Some(answer) = pending.borrow_mut().remove(&header.xid) {
            let _ = answer.send(match header.status {
                AcceptStatus::Success => Ok(body),
                AcceptStatus::ProgUnavail => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the glusterd there does not speak our peer program (is it GlusterFS's own?)",
                )),
                status => Err(io::Error::new(io::ErrorKind::InvalidData, format!("refused: {status:?}"))),
            });
        }
    }
    *alive.borrow_mut() = false;
    stream.shutdown();
    for (_, answer) in pending.borrow_mut().drain() {
        let _ = answer.send(Err(ended()));
    }
}
