//! A connection to a brick after its handshake: calls under way, callbacks, signs of life.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use ladrillo_translator::error::errno;
use ladrillo_translator::{Context, FopError, Payload, Runtime};
use ladrillo_transport::program::{callback, dump};
use ladrillo_transport::rpc::{self, AcceptStatus, Incoming};
use ladrillo_transport::xdr::Writer;
use ladrillo_transport::{Credential, EncodeError, Message, Transport};
use parking_lot::Mutex;

use super::signal::Signal;

/// Most calls under way on a session; beyond it callers get ENOMEM. Front ends have far fewer requests in flight.
const MAX_CALLS: usize = 65_536;
/// How often deadlines and signs of life are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub(super) enum CallError {
    /// The connection is gone.
    Lost,
    /// No answer within frame-timeout.
    TimedOut,
    /// The RPC layer of the brick refused.
    Refused(AcceptStatus),
    /// It cannot be put on the wire.
    Unsendable(EncodeError),
    /// Too many calls under way.
    TooMany,
}

impl CallError {
    pub fn into_fop_error(self, name: &str) -> FopError {
        match self {
            CallError::Lost => FopError::not_connected(name),
            CallError::TimedOut => FopError::new(errno::ETIMEDOUT, format!("{name}: no answer within frame-timeout")),
            CallError::Refused(AcceptStatus::ProcUnavail) => {
                FopError::new(errno::EOPNOTSUPP, format!("{name}: the brick has no such procedure"))
            }
            CallError::Refused(AcceptStatus::GarbageArgs) => {
                FopError::new(errno::EINVAL, format!("{name}: the brick does not understand the arguments"))
            }
            CallError::Refused(AcceptStatus::DeniedAuth(_)) => {
                FopError::new(errno::EACCES, format!("{name}: the brick refuses the credentials"))
            }
            CallError::Refused(status) => FopError::new(errno::EIO, format!("{name}: refused: {status:?}")),
            CallError::Unsendable(error) => FopError::new(error.errno(), format!("{name}: {error}")),
            CallError::TooMany => FopError::new(errno::ENOMEM, format!("{name}: {MAX_CALLS} calls are under way")),
        }
    }
}

pub(super) struct Session {
    /// Numbers the sessions of a client: descriptors are good within one.
    pub epoch: u64,
    /// Whether the brick speaks our own program, too.
    pub extended: bool,
    transport: Arc<dyn Transport>,
    runtime: Arc<dyn Runtime>,
    calls: Mutex<Calls>,
    /// [`Runtime::now`] in nanoseconds when the brick was last heard of.
    last_heard: AtomicU64,
    pinging: AtomicBool,
    closed: Signal,
}

#[derive(Default)]
struct Calls {
    waiting: HashMap<u32, Call>,
    last_xid: u32,
    closed: bool,
}

struct Call {
    answer: oneshot::Sender<Result<Bytes, CallError>>,
    deadline: Option<Duration>,
}

/// Forgets a call whose caller is gone; its answer will be ignored.
struct Registration<'a> {
    session: &'a Session,
    xid: u32,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.session.calls.lock().waiting.remove(&self.xid);
    }
}

impl Session {
    pub fn new(epoch: u64, extended: bool, transport: Arc<dyn Transport>, runtime: Arc<dyn Runtime>) -> Arc<Session> {
        let now = runtime.now();
        Arc::new(Session {
            epoch,
            extended,
            transport,
            runtime,
            calls: Mutex::new(Calls { last_xid: 1000, ..Calls::default() }),
            last_heard: AtomicU64::new(nanos(now)),
            pinging: AtomicBool::new(false),
            closed: Signal::default(),
        })
    }

    pub fn peer(&self) -> String {
        self.transport.peer()
    }

    /// What carries it, really.
    pub fn medium(&self) -> String {
        self.transport.medium()
    }

    /// Calls a procedure, whose body `write` writes, and waits for the body of its reply, which may have a payload of
    /// `reply_bytes` (0: small, or unknown).
    pub async fn call(
        &self,
        (program, version, procedure): (u32, u32, u32),
        credential: &Credential,
        timeout: Option<Duration>,
        reply_bytes: usize,
        write: impl FnOnce(&mut Writer) -> Result<Payload, EncodeError>,
    ) -> Result<Bytes, CallError> {
        let (registration, answer) = self.register(timeout)?;
        let mut writer = Writer::with_capacity(512);
        rpc::write_call_header(&mut writer, registration.xid, program, version, procedure, credential)
            .map_err(CallError::Unsendable)?;
        let payload = write(&mut writer).map_err(CallError::Unsendable)?;
        let message = Message { header: writer.finish(), payload, padding: 0 };
        if let Err(error) = self.transport.send_expecting(message, reply_bytes).await {
            tracing::debug!(peer = %self.peer(), %error, "sending failed");
            self.close();
            return Err(CallError::Lost);
        }
        answer.await.unwrap_or(Err(CallError::Lost))
    }

    fn register(
        &self,
        timeout: Option<Duration>,
    ) -> Result<(Registration<'_>, oneshot::Receiver<Result<Bytes, CallError>>), CallError> {
        let deadline = timeout.map(|timeout| self.runtime.now() + timeout);
        let (answer, receiver) = oneshot::channel();
        let mut calls = self.calls.lock();
        if calls.closed {
            return Err(CallError::Lost);
        }
        if calls.waiting.len() >= MAX_CALLS {
            return Err(CallError::TooMany);
        }
        loop {
            calls.last_xid = calls.last_xid.wrapping_add(1);
            if !calls.waiting.contains_key(&calls.last_xid) {
                break;
            }
        }
        let xid = calls.last_xid;
        calls.waiting.insert(xid, Call { answer, deadline });
        Ok((Registration { session: self, xid }, receiver))
    }

    /// Receives until the connection ends; gives the reason. `on_callback` gets the brick's calls.
    pub async fn read(&self, on_callback: impl Fn(callback::Callback)) -> String {
        loop {
            let record = match self.transport.recv().await {
                Ok(record) => record,
                Err(error) => return error.to_string(),
            };
            self.last_heard.store(nanos(self.runtime.now()), Ordering::Relaxed);
            match rpc::decode_record(record) {
                Ok(Incoming::Reply(header, body)) => {
                    let call = self.calls.lock().waiting.remove(&header.xid);
                    let Some(call) = call else {
                        tracing::debug!(xid = header.xid, "an answer that nobody waits for");
                        continue;
                    };
                    let answer = match header.status {
                        AcceptStatus::Success => Ok(body),
                        status => Err(CallError::Refused(status)),
                    };
                    // A caller that has gone needs no answer.
                    let _ = call.answer.send(answer);
                }
                Ok(Incoming::Call(header, body)) if header.program == callback::PROGRAM => {
                    match callback::Callback::decode(header.procedure, body) {
                        Ok(Some(what)) => on_callback(what),
                        Ok(None) => {}
                        Err(error) => tracing::warn!(peer = %self.peer(), %error, "callback not understood"),
                    }
                }
                Ok(Incoming::Call(header, _)) => {
                    tracing::warn!(program = header.program, "a brick calls a program that clients do not have");
                }
                Err(error) => return format!("not an RPC record: {error}"),
            }
        }
    }

    /// Lets calls time out, and ends with the reason when the brick shows no sign of life.
    pub async fn watch(self: &Arc<Self>, ping_timeout: impl Fn() -> Option<Duration>) -> String {
        loop {
            let interval = ping_timeout().map_or(WATCH_INTERVAL, |timeout| WATCH_INTERVAL.min(timeout / 4));
            self.runtime.sleep(interval).await;
            let ping_timeout = ping_timeout();
            let now = self.runtime.now();
            self.expire_calls(now);
            let Some(ping_timeout) = ping_timeout else { continue };
            let silence = now.saturating_sub(Duration::from_nanos(self.last_heard.load(Ordering::Relaxed)));
            if silence >= ping_timeout {
                return format!("no sign of life for {} seconds (ping-timeout)", silence.as_secs());
            }
            if silence >= ping_timeout / 2 && !self.pinging.swap(true, Ordering::AcqRel) {
                let session = self.clone();
                self.runtime.spawn(Box::pin(async move { session.ping().await }));
            }
        }
    }

    async fn ping(&self) {
        let procedure = (dump::PROGRAM, dump::VERSION, dump::PROC_PING);
        let _ = self.call(procedure, &Credential::v2(&Context::root()), None, 0, |_| Ok(Payload::empty())).await;
        self.pinging.store(false, Ordering::Release);
    }

    fn expire_calls(&self, now: Duration) {
        let late: Vec<Call> = {
            let mut calls = self.calls.lock();
            let is_late = |call: &Call| call.deadline.is_some_and(|deadline| deadline <= now);
            let late: Vec<u32> = calls.waiting.iter().filter(|(_, call)| is_late(call)).map(|(xid, _)| *xid).collect();
            late.into_iter().filter_map(|xid| calls.waiting.remove(&xid)).collect()
        };
        for call in late {
            let _ = call.answer.send(Err(CallError::TimedOut));
        }
    }

    /// Ends the connection; whoever serves the session notices.
    pub fn close(&self) {
        self.transport.close();
        self.closed.raise();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_raised()
    }

    /// Completes when [`Session::close`] was called.
    pub async fn closed(&self) {
        self.closed.wait().await;
    }

    /// Fails what is under way and all that comes.
    pub fn fail_calls(&self) {
        let waiting = {
            let mut calls = self.calls.lock();
            calls.closed = true;
            std::mem::take(&mut calls.waiting)
        };
        for (_, call) in waiting {
            let _ = call.answer.send(Err(CallError::Lost));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.transport.close();
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
