//! Getting volfiles from the management daemons, and hearing when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use ladrillo_translator::{Context, Dict, Value};
use ladrillo_transport::program::callback::{self, Callback};
use ladrillo_transport::program::handshake::{self, Getspec, GetspecReply};
use ladrillo_transport::rpc::{self, AcceptStatus, Incoming};
use ladrillo_transport::{Address, Connector, Credential, Transport};

use crate::executor::{TcpConnector, sleep, timeout};

/// How long a connection to a server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before the next round of attempts.
const RETRY_PAUSE: Duration = Duration::from_secs(3);
/// op-versions this client speaks, as stock 10 says it.
const MIN_OP_VERSION: i64 = 1;
const MAX_OP_VERSION: i64 = 100_000;
/// Most servers kept (those of the command line, and those the pool names).
const MAX_SERVERS: usize = 256;

/// Where volfiles come from.
pub struct Servers {
    servers: Vec<Address>,
    key: String,
    connector: TcpConnector,
    /// Which server is next.
    next: usize,
    connection: Option<Connection>,
}

struct Connection {
    transport: Arc<dyn Transport>,
    last_xid: u32,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.transport.close();
    }
}

/// Why there is no volfile.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The server knows no such volume, or refuses.
    #[error("failed to fetch volume file (key:{key}) from {server}: {reason}")]
    Refused {
        /// What was asked for.
        key: String,
        /// Who refused.
        server: String,
        /// Its reason.
        reason: String,
    },
    /// No server can be reached.
    #[error("failed to fetch volume file (key:{key}): no volfile server answers ({reasons})")]
    Unreachable {
        /// What was asked for.
        key: String,
        /// What each attempt ended with.
        reasons: String,
    },
}

impl Servers {
    /// Servers to be asked in turn for the volfile `key`.
    pub fn new(servers: Vec<Address>, key: String) -> Servers {
        Servers { servers, key, connector: TcpConnector, next: 0, connection: None }
    }

    /// The volfile, from the first server that has it; each is tried `attempts` times.
    ///
    /// # Errors
    /// Each server's reason.
    pub async fn fetch(&mut self, attempts: u32) -> Result<Bytes, SpecError> {
        let mut reasons = Vec::new();
        let mut refused = None;
        let rounds = self.servers.len().saturating_mul(attempts.clamp(1, 100) as usize);
        for _ in 0..rounds {
            match self.fetch_from_next().await {
                Ok(spec) => return Ok(spec),
                Err(Attempt::Refused(error)) => {
                    tracing::error!("{error}");
                    refused = Some(error);
                }
                Err(Attempt::Unreachable(reason)) => {
                    tracing::error!("volfile server: {reason}");
                    reasons.push(reason);
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Err(SpecError::Unreachable { key: self.key.clone(), reasons: reasons.join("; ") }),
        }
    }

    async fn fetch_from_next(&mut self) -> Result<Bytes, Attempt> {
        let Some(server) = self.servers.get(self.next % self.servers.len().max(1)).cloned() else {
            return Err(Attempt::Unreachable("no volfile server is given".into()));
        };
        self.next = self.next.wrapping_add(1);
        self.connection = None;
        let connected = self.connector.connect(&server, CONNECT_TIMEOUT).await;
        let transport = connected.map_err(|error| Attempt::Unreachable(error.to_string()))?;
        let mut connection = Connection { transport, last_xid: 0 };
        let asked = timeout(ANSWER_TIMEOUT, connection.getspec(&self.key)).await;
        let reply = match asked {
            Ok(reply) => reply?,
            Err(_) => return Err(Attempt::Unreachable(format!("{} does not answer", connection.transport.peer()))),
        };
        self.learn_servers(&reply.xdata);
        self.connection = Some(connection);
        Ok(reply.spec)
    }

    /// The pool's other servers, of which the answer may tell: `host:port` separated by spaces.
    fn learn_servers(&mut self, xdata: &Dict) {
        for word in xdata.text("servers-list").unwrap_or_default().split_ascii_whitespace() {
            let Some((host, port)) = word.rsplit_once(':') else { continue };
            let Ok(port) = port.parse() else { continue };
            let address = Address::Tcp { host: host.to_owned(), port };
            if !host.is_empty() && self.servers.len() < MAX_SERVERS && !self.servers.contains(&address) {
                self.servers.push(address);
            }
        }
    }

    /// Waits until a server says that volfiles changed, and gives the new one if it is another than `current`.
    /// Reconnects, to the next server, for as long as it takes: a mount does not need its servers.
    pub async fn changed(&mut self, current: &[u8]) -> Bytes {
        loop {
            let spec = match &mut self.connection {
                Some(connection) => match connection.wait_for_change().await {
                    Ok(()) => match timeout(ANSWER_TIMEOUT, connection.getspec(&self.key)).await {
                        Ok(Ok(reply)) => Some(reply.spec),
                        _ => None,
                    },
                    Err(reason) => {
                        tracing::warn!("volfile server: {reason}: trying the next one");
                        None
                    }
                },
                None => {
                    sleep(RETRY_PAUSE).await;
                    self.fetch_from_next().await.ok()
                }
            };
            match spec {
                Some(spec) if *spec != *current => return spec,
                Some(_) => {}
                None => self.connection = None,
            }
        }
    }
}

/// Where a process's volfile comes from.
pub enum Source {
    /// Management daemons, which say when it changes.
    Servers(Servers),
    /// A file, which is read again when the process is told to (SIGHUP).
    File {
        /// Its path.
        path: PathBuf,
        /// One for each time.
        again: mpsc::Receiver<()>,
    },
}

impl Source {
    /// Waits until there is another volfile than `current`, and gives it.
    pub async fn changed(&mut self, current: &[u8]) -> Bytes {
        let (path, again) = match self {
            Source::Servers(servers) => return servers.changed(current).await,
            Source::File { path, again } => (path, again),
        };
        loop {
            if again.next().await.is_none() {
                // Nobody tells it any more: the process ends.
                futures::future::pending::<()>().await;
            }
            match std::fs::read(&*path) {
                Ok(spec) if spec != current => return spec.into(),
                Ok(_) => tracing::info!("{}: as it was", path.display()),
                Err(error) => tracing::error!("{}: {error}: this process goes on with the old one", path.display()),
            }
        }
    }
}

enum Attempt {
    Refused(SpecError),
    Unreachable(String),
}

impl Connection {
    async fn getspec(&mut self, key: &str) -> Result<GetspecReply, Attempt> {
        let server = self.transport.peer();
        let lost = |reason: String| Attempt::Unreachable(format!("{server}: {reason}"));
        let xdata = Dict::new()
            .with("min-op-version", Value::Int(MIN_OP_VERSION))
            .with("max-op-version", Value::Int(MAX_OP_VERSION));
        let request = Getspec { flags: handshake::GETSPEC_SERVERS_LIST, key: key.to_owned(), xdata };
        self.last_xid = self.last_xid.wrapping_add(1);
        let xid = self.last_xid;
        let call = rpc::encode_call(
            xid,
            handshake::PROGRAM,
            handshake::VERSION,
            handshake::PROC_GETSPEC,
            &Credential::v2(&Context::root()),
            request.encode(),
        )
        .map_err(|error| lost(error.to_string()))?;
        self.transport.send(call).await.map_err(|error| lost(error.to_string()))?;
        loop {
            let record = self.transport.recv().await.map_err(|error| lost(error.to_string()))?;
            match rpc::decode_record(record).map_err(|error| lost(error.to_string()))? {
                Incoming::Reply(header, body) if header.xid == xid => {
                    if header.status != AcceptStatus::Success {
                        return Err(lost(format!("GETSPEC is refused: {:?}", header.status)));
                    }
                    let reply = GetspecReply::decode(body).map_err(|error| lost(error.to_string()))?;
                    if reply.op_ret < 0 {
                        return Err(Attempt::Refused(refusal(key, &server, &reply)));
                    }
                    return Ok(reply);
                }
                _ => {} // callbacks may come in between
            }
        }
    }

    /// Until FETCHSPEC comes.
    async fn wait_for_change(&mut self) -> Result<(), String> {
        loop {
            let record = self.transport.recv().await.map_err(|error| error.to_string())?;
            if let Incoming::Call(header, body) = rpc::decode_record(record).map_err(|error| error.to_string())?
                && header.program == callback::PROGRAM
                && matches!(Callback::decode(header.procedure, body), Ok(Some(Callback::Fetchspec)))
            {
                return Ok(());
            }
        }
    }
}

fn refusal(key: &str, server: &str, reply: &GetspecReply) -> SpecError {
    let reason = match (reply.op_errno, reply.xdata.text("errstr")) {
        (_, Some(text)) if !text.is_empty() => text.to_owned(),
        (libc::ENOENT, _) => "no such volume".to_owned(),
        (0, _) => "no such volume, or it may not be mounted from here".to_owned(),
        (errno, _) => std::io::Error::from_raw_os_error(errno).to_string(),
    };
    SpecError::Refused { key: key.to_owned(), server: server.to_owned(), reason }
}
