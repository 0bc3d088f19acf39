//! glusterd.

pub mod callers;
pub mod config;
pub mod handshake;
pub mod node;
pub mod peer;
pub mod server;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use self::config::Config;
use self::node::Node;
use crate::net::socket::{self, Listener};
use crate::state::command::Command;
use crate::state::raft::{NodeId, Place};
use crate::state::store::{Store, StoreError};
use crate::state::workdir::WorkDir;

/// Runs glusterd until SIGTERM or SIGINT. `ready` is called once it listens.
///
/// # Errors
/// Why it cannot start, in words.
pub fn run(config: Config, ready: &mut dyn FnMut() -> Result<(), String>) -> Result<(), String> {
    for directory in [&config.working_directory, &config.run_directory, &config.log_directory] {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    for directory in
        [config.run_directory.join("vols"), config.run_directory.join("shd"), config.log_directory.join("bricks")]
    {
        std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    socket::block_on(run_on(config, ready))
}

async fn run_on(config: Config, ready: &mut dyn FnMut() -> Result<(), String>) -> Result<(), String> {
    let root = config.working_directory.clone();
    let work = WorkDir::open(&root, config.bind.is_some()).map_err(|error| format!("{}: {error}", root.display()))?;
    let known = work.read_uuid().map_err(|error| error.to_string())?;
    let store_path = config.store_path();
    let store = Store::open(&store_path, || known.unwrap_or_else(Uuid::new_v4)).map_err(|error| match error {
        StoreError::InUse => format!("another glusterd already runs on {}", root.display()),
        other => format!("{}: {other}", store_path.display()),
    })?;
    {
        // It holds the volumes' passwords.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&store_path, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| format!("{}: {error}", store_path.display()))?;
    }
    let local = store.local();
    if let Some(known) = known
        && known != local.uuid
    {
        return Err(format!(
            "{}/glusterd.info: line UUID={known}: this node is {} by its state store; put that line back",
            root.display(),
            local.uuid
        ));
    }
    // A start that failed half-way is done again: the mark comes last.
    let imported = if local.imported { Vec::new() } else { import(&work)? };
    store.with_state(|state| work.trust(state));

    let tcp = listen(&config).await?;
    let unix = listen_unix(&config)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;

    if config.recover_alone {
        recover_alone(&config, &store)?;
    }
    let socket_file = config.socket_file.clone();
    let node = Node::start(config, store, work).await?;
    node.forget_starts();
    // Before anybody can have us join another pool.
    introduce(&node, imported).await?;
    node.update_local(|local| local.imported = true).map_err(|error| error.to_string())?;
    if !node.store.local().joining {
        node.look_at_bricks().await;
        node.export();
    }
    tracing::info!("glusterd {} of pool {} listens", node.uuid(), node.tag().pool);
    tokio::task::spawn_local(node.clone().serve(tcp));
    tokio::task::spawn_local(node.clone().serve(unix));
    tokio::task::spawn_local(node.clone().keep_pinging());
    tokio::task::spawn_local(node.clone().keep_reconciling());
    ready()?;

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // For log rotation by copying; nothing is reopened.
            _ = hangup.recv() => {}
        }
    }
    tracing::info!("ending");
    node.ending.set(true);
    node.stop_raft().await;
    let _ = std::fs::remove_file(&socket_file);
    Ok(())
}

/// Makes this node the only voter of its pool, in a new epoch, with everything in its log.
fn recover_alone(config: &Config, store: &Store) -> Result<(), String> {
    let own = store.local().uuid;
    let host = store.with_state(|state| state.peers.get(&own).map(|peer| peer.name().to_owned()));
    let place = Place { host: host.unwrap_or_else(|| "localhost".to_owned()), port: config.port };
    let before = store.membership().membership().voter_ids().count();
    store
        .stand_alone(place, |local| {
            local.epoch += 1;
            local.opener = local.uuid;
            local.joining = false;
            local.introducers.clear();
        })
        .map_err(|error| error.to_string())?;
    tracing::warn!("RECOVERY: of {before} voters this node goes on alone, in epoch {}", store.local().epoch);
    Ok(())
}

/// Volumes of a working directory that a GlusterFS left, for a node that starts with us.
fn import(work: &WorkDir) -> Result<Vec<crate::state::model::Volume>, String> {
    let peers = work.count_peers().map_err(|error| error.to_string())?;
    let volumes = work.import_volumes().map_err(|error| error.to_string())?;
    if peers > 0 {
        return Err(format!(
            "{}: this directory is of a GlusterFS pool with {peers} other nodes; taking over a whole pool is not supported \
             yet (move the directory away to start anew; bricks keep their data)",
            work.root().display()
        ));
    }
    Ok(volumes)
}

/// A node alone enters itself, and what it took over, into its state.
async fn introduce(node: &Node, imported: Vec<crate::state::model::Volume>) -> Result<(), String> {
    let own = node.uuid();
    if node.voters() != [NodeId(own)] && !node.voters().is_empty() || node.store.local().joining {
        return Ok(());
    }
    if !node.store.with_state(|state| state.peers.contains_key(&own)) {
        node.propose(Command::PutPeer(node.own_peer())).await.map_err(|failure| failure.message)?;
    }
    for mut volume in imported {
        if node.store.with_state(|state| state.volumes.get(&volume.name).is_some_and(|known| known.id == volume.id)) {
            // Taken over by a start that went no further.
            continue;
        }
        for brick in &mut volume.bricks {
            brick.host_uuid = own;
        }
        tracing::info!("taking over volume {}", volume.name);
        node.propose(Command::CreateVolume(volume)).await.map_err(|failure| failure.message)?;
    }
    Ok(())
}

/// How long a start waits for its port. The kernel takes apart the rings of a killed process after its parent has
/// reaped it, and an accept in flight holds the listening socket until then: a glusterd started again at once finds
/// the port of its own predecessor still taken.
const PORT_WAIT: Duration = Duration::from_secs(3);

async fn listen(config: &Config) -> Result<Listener, String> {
    let address = SocketAddr::new(config.listen_address(), config.port);
    let deadline = Instant::now() + PORT_WAIT;
    loop {
        let outcome = match Listener::tcp(address) {
            // A machine without IPv6.
            Err(error) if config.bind.is_none() && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                Listener::tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), config.port))
            }
            other => other,
        };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if Instant::now() >= deadline {
                    let (port, ip) = (config.port, address.ip());
                    return Err(format!("port {port} of {ip} is in use: does another glusterd run?"));
                }
            }
            other => return other.map_err(|error| format!("{address}: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn listen_unix(config: &Config) -> Result<Listener, String> {
    let path = &config.socket_file;
    if UnixStream::connect(path).is_ok() {
        return Err(format!("{}: another glusterd answers there", path.display()));
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let listener = Listener::unix(path).map_err(|error| format!("{}: {error}", path.display()))?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(listener)
}
