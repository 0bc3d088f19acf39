//! From nothing to a session: portmap, connection, DUMP, SETVOLUME.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use ladrillo_translator::error::errno;
use ladrillo_translator::{Context, Dict, Runtime};
use ladrillo_transport::program::{dump, extension, fop4, handshake, portmap};
use ladrillo_transport::rpc::{self, AcceptStatus, Incoming};
use ladrillo_transport::{Address, Connector, Credential, Kind, Message, Transport};

use super::settings::{GLUSTERD_PORT, Place, Settings};

/// How long one connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long all of it may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// A brick that is ready.
pub(super) struct Connected {
    pub transport: Arc<dyn Transport>,
    pub address: Address,
    /// Whether the brick's storage is up (`child_up`).
    pub child_up: bool,
    /// Whether it speaks our own program.
    pub extended: bool,
    /// The volume's id as the brick knows it.
    pub volume_id: Option<String>,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct ConnectError {
    pub message: String,
    /// The errno of SETVOLUME, 0 when it did not come to that.
    pub errno: i32,
}

impl ConnectError {
    fn new(message: impl Into<String>) -> ConnectError {
        ConnectError { message: message.into(), errno: 0 }
    }
}

/// `last` is where the brick was reached before: tried when glusterd does not answer.
pub(super) async fn connect(
    settings: &Settings,
    runtime: &dyn Runtime,
    connector: &dyn Connector,
    last: Option<&Address>,
    setvolume: Dict,
) -> Result<Connected, ConnectError> {
    let work = std::pin::pin!(connect_unbounded(settings, connector, last, setvolume));
    match select(work, runtime.sleep(HANDSHAKE_TIMEOUT)).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => {
            Err(ConnectError::new(format!("no handshake within {} seconds", HANDSHAKE_TIMEOUT.as_secs())))
        }
    }
}

async fn connect_unbounded(
    settings: &Settings,
    connector: &dyn Connector,
    last: Option<&Address>,
    mut setvolume: Dict,
) -> Result<Connected, ConnectError> {
    let address = match &settings.place {
        Place::Known(address) => address.clone(),
        Place::Portmap(glusterd) => match (ask_portmap(settings, connector, glusterd).await, last) {
            (Ok(port), _) => settings.kind.at(settings.host.clone(), port),
            // No glusterd: a brick that somebody started by hand there.
            (Err(AskError::NoPortmap), _) => match settings.kind {
                Kind::Tcp => glusterd.clone(),
                kind => kind.at(settings.host.clone(), GLUSTERD_PORT),
            },
            // Mounts go on while every glusterd is dead: SETVOLUME tells whether the brick is still there.
            (Err(AskError::Unreachable(_)), Some(last)) => last.clone(),
            (Err(AskError::Unreachable(error) | AskError::NotRunning(error)), _) => return Err(error),
        },
    };
    let mut link = Link::open(connector, &address).await?;
    let credential = Credential::v2(&Context::root());
    let procedure = (dump::PROGRAM, dump::VERSION, dump::PROC_DUMP);
    let programs = dump::Reply::decode(link.exchange(procedure, &credential, dump::encode_request()).await?)
        .map_err(|error| ConnectError::new(format!("DUMP of {address}: {error}")))?;
    if !programs.has(fop4::PROGRAM, fop4::VERSION) {
        return Err(ConnectError::new(format!("{address} does not have the program {}", fop4::NAME)));
    }
    let extended = programs.has(extension::PROGRAM, extension::VERSION);
    if extended {
        setvolume.set_int(extension::SETVOLUME_KEY, i64::from(extension::VERSION));
    }
    let credential = Credential::v3(&Context::root());
    let procedure = (handshake::PROGRAM, handshake::VERSION, handshake::PROC_SETVOLUME);
    let request = handshake::Setvolume { dict: setvolume }.encode();
    let answer = handshake::Answer::decode(link.exchange(procedure, &credential, request).await?)
        .map_err(|error| ConnectError::new(format!("SETVOLUME of {address}: {error}")))?;
    if answer.op_ret < 0 {
        let reason = answer.dict.text("ERROR").unwrap_or("no reason given").to_owned();
        let errno = if answer.op_errno > 0 { answer.op_errno } else { errno::EIO };
        let message = format!("{address} refuses {}: {reason} (errno {errno})", settings.subvolume);
        return Err(ConnectError { message, errno });
    }
    Ok(Connected {
        transport: link.keep(),
        address,
        extended,
        child_up: answer.dict.int("child_up") != Some(0),
        volume_id: answer.dict.text("volume-id").map(str::to_owned),
    })
}

enum AskError {
    /// What answers has no such program.
    NoPortmap,
    Unreachable(ConnectError),
    NotRunning(ConnectError),
}

async fn ask_portmap(settings: &Settings, connector: &dyn Connector, glusterd: &Address) -> Result<u16, AskError> {
    // GlusterFS 7 told a brick's port of RDMA from that of TCP by the brick's name.
    let name = format!("{}{}", settings.subvolume, settings.kind.portmap_suffix());
    let ask = async {
        let mut link = Link::open(connector, glusterd).await?;
        let request = portmap::PortByBrick { brick: name.clone() }.encode();
        let procedure = (portmap::PROGRAM, portmap::VERSION, portmap::PROC_PORTBYBRICK);
        link.exchange(procedure, &Credential::v2(&Context::root()), request).await
    };
    let reply = ask.await.map_err(|error| {
        if error.errno == libc::EPROTONOSUPPORT { AskError::NoPortmap } else { AskError::Unreachable(error) }
    })?;
    let reply = portmap::PortByBrickReply::decode(reply)
        .map_err(|error| AskError::Unreachable(ConnectError::new(format!("portmap of {glusterd}: {error}"))))?;
    match u16::try_from(reply.port) {
        Ok(port) if reply.op_ret >= 0 && port > 0 => Ok(port),
        _ => Err(AskError::NotRunning(ConnectError::new(format!(
            "glusterd on {} has no {} port for brick {}: is it started, and does the volume have this transport \
             (gluster volume status)?",
            settings.host,
            settings.kind.name(),
            settings.subvolume
        )))),
    }
}

/// A connection during its handshake: one call at a time. Closed when dropped, unless kept.
struct Link {
    transport: Option<Arc<dyn Transport>>,
    last_xid: u32,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(transport) = &self.transport {
            transport.close();
        }
    }
}

impl Link {
    async fn open(connector: &dyn Connector, address: &Address) -> Result<Link, ConnectError> {
        match connector.connect(address, CONNECT_TIMEOUT).await {
            Ok(transport) => Ok(Link { transport: Some(transport), last_xid: 0 }),
            Err(error) => Err(ConnectError::new(format!("connecting to {address}: {error}"))),
        }
    }

    fn keep(mut self) -> Arc<dyn Transport> {
        self.transport.take().expect("a link has its transport until it is kept")
    }

    async fn exchange(
        &mut self,
        (program, version, procedure): (u32, u32, u32),
        credential: &Credential,
        body: Message,
    ) -> Result<Bytes, ConnectError> {
        let transport = self.transport.as_ref().expect("a link has its transport until it is kept");
        self.last_xid += 1;
        let call = rpc::encode_call(self.last_xid, program, version, procedure, credential, body)
            .map_err(|error| ConnectError::new(error.to_string()))?;
        let lost = |error: io::Error| ConnectError::new(format!("{}: {error}", transport.peer()));
        transport.send(call).await.map_err(lost)?;
        loop {
            let record = transport.recv().await.map_err(lost)?;
            match rpc::decode_record(record) {
                Ok(Incoming::Reply(header, body)) if header.xid == self.last_xid => {
                    return match header.status {
                        AcceptStatus::Success => Ok(body),
                        status => {
                            let message = format!(
                                "{} refuses program {program} procedure {procedure}: {status:?}",
                                transport.peer()
                            );
                            let unknown = program == portmap::PROGRAM && status == AcceptStatus::ProgUnavail;
                            Err(ConnectError { message, errno: if unknown { libc::EPROTONOSUPPORT } else { 0 } })
                        }
                    };
                }
                // Callbacks may come before the handshake is done.
                Ok(_) => {}
                Err(error) => return Err(ConnectError::new(format!("{}: {error}", transport.peer()))),
            }
        }
    }
}
