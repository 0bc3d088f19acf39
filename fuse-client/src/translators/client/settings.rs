//! Options of `protocol/client`.

use std::sync::LazyLock;
use std::time::Duration;

use ladrillo_translator::{Dict, Gfid, OptionError, OptionKind, OptionSpec, Options, Value};
use ladrillo_transport::kind::VIA_OPTION;
use ladrillo_transport::program::fop4;
use ladrillo_transport::{Address, Kind, Via};

/// glusterd's port, where portmap answers.
pub(super) const GLUSTERD_PORT: u16 = 24007;
/// The op-version this client says it has: GlusterFS 10's.
const OP_VERSION: i64 = 100_000;
/// The version this client says it is, in bricks' logs and `volume status clients`.
const CLIENT_VERSION: &str = "10.3";

/// What the option table of the volume generator and `volume set` shares with this translator.
pub const OPTIONS: &[OptionSpec] = &[
    REMOTE_HOST,
    REMOTE_PORT,
    REMOTE_SUBVOLUME,
    TRANSPORT_TYPE,
    SDP_VIA,
    CONNECT_PATH,
    PING_TIMEOUT,
    FRAME_TIMEOUT,
    SEND_GIDS,
    STRICT_LOCKS,
];

const REMOTE_HOST: OptionSpec =
    OptionSpec::new(&["remote-host"], OptionKind::Str, None, "The machine of the brick: name or address.");
const REMOTE_PORT: OptionSpec = OptionSpec::new(
    &["remote-port", "transport.socket.remote-port", "transport.rdma.remote-port", "transport.sdp.remote-port"],
    OptionKind::Int { min: Some(1), max: Some(65535) },
    None,
    "The brick's port; without it glusterd's portmap on the same machine is asked.",
);
const REMOTE_SUBVOLUME: OptionSpec =
    OptionSpec::new(&["remote-subvolume"], OptionKind::Str, None, "The brick's path, by which its server knows it.");
const TRANSPORT_TYPE: OptionSpec = OptionSpec::new(
    &["transport-type"],
    OptionKind::Str,
    Some("tcp"),
    "How the brick is reached: tcp, rdma, sdp or unix; of several separated by commas, the first.",
);
const SDP_VIA: OptionSpec = OptionSpec::new(
    &[VIA_OPTION],
    OptionKind::Enum(&["rsocket", "smc", "sdp"]),
    Some("rsocket"),
    "What carries transport-type sdp: rsockets of librdmacm, or the kernel's sockets of AF_SMC or AF_INET_SDP.",
);
const CONNECT_PATH: OptionSpec = OptionSpec::new(
    &["transport.socket.connect-path"],
    OptionKind::Path,
    None,
    "The brick's unix socket, with transport-type unix.",
);
const PING_TIMEOUT: OptionSpec = OptionSpec::new(
    &["ping-timeout"],
    OptionKind::Time { range: Some((0, 1013)) },
    Some("42"),
    "Seconds without a sign of life after which the brick is given up; 0 = never.",
);
const FRAME_TIMEOUT: OptionSpec = OptionSpec::new(
    &["frame-timeout", "rpc-timeout"],
    OptionKind::Time { range: Some((0, 86400)) },
    Some("1800"),
    "Seconds after which a call without an answer fails; 0 = never. Waiting for a lock is exempt.",
);
const SEND_GIDS: OptionSpec = OptionSpec::new(
    &["send-gids"],
    OptionKind::Bool,
    Some("on"),
    "Send the caller's supplementary groups; off when the bricks look them up (server.manage-gids).",
);

pub(crate) const STRICT_LOCKS: OptionSpec = OptionSpec::new(
    &["strict-locks"],
    OptionKind::Bool,
    Some("off"),
    "Files whose locks were lost with their brick are not opened again: what is done with them fails.",
);

/// Where the brick listens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// At a known address.
    Known(Address),
    /// The portmap of this glusterd knows.
    Portmap(Address),
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub place: Place,
    /// On what the brick is reached; its glusterd is on TCP.
    pub kind: Kind,
    pub host: String,
    pub subvolume: String,
    pub ping_timeout: Option<Duration>,
    pub frame_timeout: Option<Duration>,
    pub send_gids: bool,
    pub strict_locks: bool,
    /// First part of the process-uuid of SETVOLUME.
    process_id: String,
    /// All options: bricks are told, as stock clients do.
    options: Options,
}

impl Settings {
    pub fn new(options: &Options) -> Result<Settings, OptionError> {
        options.check(OPTIONS)?;
        let required = |spec: &OptionSpec| match options.str(spec)?.filter(|text| !text.is_empty()) {
            Some(text) => Ok(text.to_owned()),
            None => Err(OptionError(format!("option {} is not set", spec.name()))),
        };
        let subvolume = required(&REMOTE_SUBVOLUME)?;
        let via = Via::parse(options.str(&SDP_VIA)?).map_err(OptionError)?;
        let kinds = Kind::parse_list(options.str(&TRANSPORT_TYPE)?.unwrap_or("tcp"), via).map_err(OptionError)?;
        let kind = kinds.first().copied().unwrap_or(Kind::Tcp);
        let (host, place) = if options.str(&TRANSPORT_TYPE)? == Some("unix") {
            let path = required(&CONNECT_PATH)?;
            (path.clone(), Place::Known(Address::Unix(path.into())))
        } else {
            let host = required(&REMOTE_HOST)?;
            let port = u16::try_from(options.int(&REMOTE_PORT)?)
                .map_err(|_| OptionError("remote-port is not a port".to_owned()))?;
            let place = match port {
                0 => Place::Portmap(Address::Tcp { host: host.clone(), port: GLUSTERD_PORT }),
                port => Place::Known(kind.at(host.clone(), port)),
            };
            (host, place)
        };
        let time = |spec| options.time(spec).map(|time| Some(time).filter(|time| !time.is_zero()));
        Ok(Settings {
            place,
            kind,
            host,
            subvolume,
            ping_timeout: time(&PING_TIMEOUT)?,
            frame_timeout: time(&FRAME_TIMEOUT)?,
            send_gids: options.bool(&SEND_GIDS)?,
            strict_locks: options.bool(&STRICT_LOCKS)?,
            process_id: options.get("process-uuid").map_or_else(|| PROCESS_ID.clone(), str::to_owned),
            options: options.clone(),
        })
    }

    /// Who the brick is told to be talking to. `session` counts the sessions of this client: each has an identity of its
    /// own, so that the brick never takes a new connection for one whose locks and descriptors it is still cleaning up.
    pub fn identity(&self, name: &str, session: u64) -> String {
        format!(
            "CTX_ID:{}-GRAPH_ID:{}-PID:{}-HOST:{}-PC_NAME:{name}-RECON_NO:-{session}",
            self.process_id,
            self.options.get("graph-id").unwrap_or("0"),
            std::process::id(),
            rustix::system::uname().nodename().to_string_lossy(),
        )
    }

    /// Which graph of the process this client is in.
    pub fn graph_id(&self) -> Option<&str> {
        self.options.get("graph-id")
    }

    /// Whether a session made with `other` would be the same: what differs can be taken over as it lasts.
    pub fn is_same_session(&self, other: &Settings) -> bool {
        const OF_SESSION: [&str; 9] = [
            "username",
            "password",
            "volfile-key",
            "process-name",
            "process-uuid",
            "subdir-mount",
            "volume-id",
            "transport-type",
            VIA_OPTION,
        ];
        self.place == other.place
            && self.subvolume == other.subvolume
            && OF_SESSION.iter().all(|key| self.options.get(key) == other.options.get(key))
    }

    /// The dict of SETVOLUME.
    pub fn setvolume(&self, identity: &str) -> Dict {
        let mut dict: Dict = self
            .options
            .iter()
            .map(|(key, value)| (key.to_owned().into(), Value::Str(value.to_owned().into())))
            .collect();
        dict.set_str("process-uuid", identity.to_owned());
        dict.set_int("fops-version", i64::from(fop4::PROGRAM));
        dict.set_str("client-version", CLIENT_VERSION);
        dict.set_int("clnt-lk-version", 1);
        dict.set_int("opversion", OP_VERSION);
        if !dict.contains("volfile-checksum") {
            dict.set_int("volfile-checksum", 0);
        }
        dict.remove("graph-id");
        dict
    }
}

/// One identity for all clients of the process, as bricks group them by it.
static PROCESS_ID: LazyLock<String> = LazyLock::new(|| Gfid::random().to_string());
