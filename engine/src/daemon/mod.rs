//! The process around a brick: command line, volfile from glusterd, portmap, signals.

pub mod admin;
pub mod args;
pub mod endpoints;
pub mod operations;
pub mod process;
pub mod rpc;
pub mod statedump;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Parser;
use ladrillo_translator::Dict;
use ladrillo_translator::volfile::Volfile;
use ladrillo_transport::program::{callback, handshake, portmap};

use crate::graph::Graph;
use crate::runtime::{GlommioRuntime, Pool};
use crate::server::{Endpoint, Observer, Server, ServerConfig};
use args::{Args, split_option};
use operations::Operations;
use process::{Log, PidFile, Report};
use rpc::{Client, Glusterd};

/// How long glusterd may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a brick started by hand waits for its port.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to reach glusterd again.
const AGAIN: Duration = Duration::from_secs(3);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The program. Returns the exit code.
pub fn main() -> i32 {
    let mut args = Args::parse();
    if let Some(text) = args.printed() {
        println!("{text}");
        return 0;
    }
    // The daemon leaves the working directory.
    for path in [&mut args.volfile, &mut args.pid_file, &mut args.socket_file, &mut args.log_file].into_iter().flatten()
    {
        if path.as_os_str() != "-"
            && let Ok(absolute) = std::path::absolute(&*path)
        {
            *path = absolute;
        }
    }
    if let Err(e) = args.check() {
        eprintln!("glusterfsd: {e}");
        return 1;
    }
    let mut report = if args.foreground() {
        Report::nobody()
    } else {
        match process::daemonize() {
            Ok(report) => report,
            Err(e) => {
                eprintln!("glusterfsd: going to the background: {e}");
                return 1;
            }
        }
    };
    match run(&args, &mut report) {
        Ok(()) => 0,
        Err(e) => {
            tracing::error!("{e}");
            report.failed(&e.to_string());
            1
        }
    }
}

fn start_log(args: &Args) -> Result<Log, Failure> {
    let path = match (&args.log_file, args.debug) {
        (_, true) => None,
        (Some(path), _) => Some(path.clone()),
        (None, _) if args.foreground() => None,
        (None, _) => Some(PathBuf::from("/var/log/glusterfs/bricks/glusterfsd.log")),
    };
    let log = Log::open(path.as_deref()).map_err(|e| format!("opening the log {path:?}: {e}"))?;
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(args.level().unwrap_or(tracing_subscriber::filter::LevelFilter::INFO))
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // A second subscriber can only be a test's.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(log)
}

fn run(args: &Args, report: &mut Report) -> Result<(), Failure> {
    let log = start_log(args)?;
    // A thread that panics would leave a brick that answers some clients and not others: better none, so that they turn
    // to the other copies and glusterd starts it anew.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}");
        std::process::abort();
    }));
    tracing::info!(version = args::VERSION.lines().last().unwrap_or(""), "starting");
    process::raise_file_limit();
    rustix::process::umask(rustix::fs::Mode::empty());
    let glusterd = glusterd_of(args);
    let pid_file = match &args.pid_file {
        Some(path) => Some(PidFile::create(path).map_err(|e| format!("pid file {}: {e}", path.display()))?),
        None => None,
    };
    let text = volfile_text(args, glusterd.as_ref())?;
    let mut volfile = Volfile::parse(&text)?;
    override_options(&mut volfile, &args.xlator_option)?;
    let graph = Arc::new(Graph::build(&volfile, Arc::new(Pool), Arc::new(GlommioRuntime::default()))?);
    for passed in &graph.passed {
        tracing::debug!("{passed} is off and was passed over");
    }
    let options = graph.server_options();
    let executors = match ["event-threads", "server.event-threads"].iter().find_map(|key| options.get(key)) {
        Some(text) => {
            text.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(|| format!("event-threads {text:?}"))?
        }
        None => 0,
    };
    let config = ServerConfig { endpoints: endpoints::of(&options, args.brick_port)?, executors };
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
        signal_hook::consts::SIGUSR1,
    ])?;
    let server = start_server(&graph, &config, args.volfile.is_some())?;
    let ports = Ports::of(&server.local);
    let addresses: Vec<String> = server.local.iter().map(ToString::to_string).collect();
    tracing::info!(?addresses, brick = %graph.brick().path.display(), "serving");
    let operations = Operations { graph: graph.clone(), observer: server.observer() };
    let admin = match &args.socket_file {
        Some(path) => Some(
            admin::Admin::start(path, Arc::new(operations.clone()))
                .map_err(|e| format!("socket {}: {e}", path.display()))?,
        ),
        None => None,
    };
    watch_health(&graph, stop.clone())?;
    let janitor = keep_clean(&graph, stop.clone());
    let portmap = match (&glusterd, brick_name(args)) {
        (Some(glusterd), Some(brick)) => {
            let changes = Changes { args: args.clone(), graph: graph.clone(), observer: server.observer(), volfile };
            Some(keep_signed_in(glusterd.clone(), brick, ports, stop.clone(), changes)?)
        }
        _ => None,
    };
    report.ready();
    for signal in signals.forever() {
        match signal {
            signal_hook::consts::SIGHUP => match log.reopen() {
                Ok(()) => tracing::info!("log opened anew"),
                Err(e) => tracing::error!(error = %e, "opening the log anew"),
            },
            signal_hook::consts::SIGUSR1 => match operations.dump() {
                Ok(path) => tracing::info!(path = %path.display(), "state dumped"),
                Err(e) => tracing::error!(error = %e, "dumping the state"),
            },
            _ => break,
        }
    }
    tracing::info!("ending");
    stop.store(true, Ordering::Release);
    drop(admin);
    server.stop();
    for thread in [janitor, portmap].into_iter().flatten() {
        thread.thread().unpark();
        let _ = thread.join();
    }
    graph.brick().save_times();
    drop(pid_file);
    tracing::info!("ended");
    Ok(())
}

/// Starts to serve. A brick started by hand (from a file, on the port the file says) waits for whoever held its port a moment ago
/// to let go of it; glusterd picks another port instead.
fn start_server(graph: &Arc<Graph>, config: &ServerConfig, by_hand: bool) -> io::Result<Server> {
    let begun = std::time::Instant::now();
    loop {
        match Server::start(graph.clone(), config) {
            Err(e) if by_hand && e.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PORT_PATIENCE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            outcome => return outcome,
        }
    }
}

fn brick_name(args: &Args) -> Option<String> {
    args.brick_name.clone()
}

fn glusterd_of(args: &Args) -> Option<Glusterd> {
    let server = args.volfile_server.clone()?;
    Some(if args.volfile_server_transport == "unix" || server.starts_with('/') {
        Glusterd::Unix(server.into())
    } else {
        Glusterd::Tcp(server, args.volfile_server_port)
    })
}

fn volfile_text(args: &Args, glusterd: Option<&Glusterd>) -> Result<Vec<u8>, Failure> {
    if let Some(path) = &args.volfile {
        return Ok(std::fs::read(path).map_err(|e| format!("volfile {}: {e}", path.display()))?);
    }
    let (Some(glusterd), Some(key)) = (glusterd, &args.volfile_id) else {
        return Err("no volfile: neither -f nor -s with --volfile-id".into());
    };
    let fail = |e: io::Error| format!("volfile {key} from glusterd at {glusterd}: {e}");
    let mut client = Client::connect(glusterd, PATIENCE).map_err(fail)?;
    let mut xdata = Dict::new();
    xdata.set_int("min-op-version", 1);
    xdata.set_int("max-op-version", 100_000);
    xdata.set_str("brick_name", args.brick_name.clone().unwrap_or_default());
    let request = handshake::Getspec { flags: 0, key: key.clone(), xdata };
    let body =
        client.call(handshake::PROGRAM, handshake::VERSION, handshake::PROC_GETSPEC, request.encode()).map_err(fail)?;
    let reply = handshake::GetspecReply::decode(body).map_err(|e| format!("volfile {key} from {glusterd}: {e}"))?;
    if reply.op_ret < 0 {
        let error = io::Error::from_raw_os_error(reply.op_errno);
        return Err(format!("glusterd at {glusterd} has no volfile {key}: {error}").into());
    }
    Ok(reply.spec.to_vec())
}

/// Applies `--xlator-option`: to all volumes whose name matches.
fn override_options(volfile: &mut Volfile, options: &[String]) -> Result<(), Failure> {
    for option in options {
        let (volume, key, value) = split_option(option)?;
        for node in &mut volfile.nodes {
            if crate::storage::matches_pattern(volume.as_bytes(), node.name.as_bytes()) {
                node.options.set(key, value);
            }
        }
    }
    Ok(())
}

/// Whether the process (or the machine) lacks something for the moment: that says nothing about the disk.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN))
}

/// Writes and reads `.glusterfs/health_check` now and then; a disk that fails ends the brick, so that clients turn to
/// the other copies.
///
/// Nobody waits for the thread: where the disk hangs, it is what ends the process after all.
fn watch_health(graph: &Arc<Graph>, stop: Arc<AtomicBool>) -> io::Result<()> {
    let brick = graph.brick().clone();
    let path = brick.path.clone();
    let watch = move || {
        while !stop.load(Ordering::Acquire) {
            let tuned = brick.tuned();
            if tuned.health_check_interval_s == 0 {
                // It may be turned on.
                std::thread::park_timeout(Duration::from_secs(5));
                continue;
            }
            let patience = Duration::from_secs(tuned.health_check_timeout_s.max(1));
            let (done, outcome) = std::sync::mpsc::channel();
            let checked = path.clone();
            // In a thread of its own: a disk that hangs keeps whoever touches it.
            let check = move || drop(done.send(crate::storage::brick::health_check(&checked)));
            let failure = match std::thread::Builder::new().name("health-check".to_owned()).spawn(check) {
                Ok(_) => match outcome.recv_timeout(patience) {
                    Ok(result) => result.err(),
                    Err(_) => Some(io::Error::from(io::ErrorKind::TimedOut)),
                },
                Err(e) => Some(e),
            };
            if let Some(error) = failure.as_ref().filter(|error| is_shortage(error)) {
                tracing::warn!(brick = %path.display(), %error, "health check put off");
                std::thread::park_timeout(Duration::from_secs(tuned.health_check_interval_s.min(5)));
                continue;
            }
            if let Some(error) = failure {
                tracing::error!(brick = %path.display(), %error, "health check failed: ending the brick");
                let _ = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
                // A clean end may wait for that disk for ever.
                std::thread::sleep(patience);
                std::process::exit(1);
            }
            // In small steps: the interval may change.
            let interval = tuned.health_check_interval_s;
            for _ in 0..interval {
                std::thread::park_timeout(Duration::from_secs(1));
                if brick.tuned().health_check_interval_s != interval || stop.load(Ordering::Acquire) {
                    break;
                }
            }
        }
    };
    std::thread::Builder::new().name("health".to_owned()).spawn(watch).map(drop)
}

/// Stores the times of files written to, every second; takes apart what heal put into `landfill`, now and then.
fn keep_clean(graph: &Arc<Graph>, stop: Arc<AtomicBool>) -> Option<JoinHandle<()>> {
    let brick = graph.brick().clone();
    let clean = move || {
        loop {
            for _ in 0..brick.tuned().janitor_interval_s.max(1) {
                std::thread::park_timeout(Duration::from_secs(1));
                if stop.load(Ordering::Acquire) {
                    return;
                }
                brick.save_times();
            }
            if brick.tuned().keep_landfill {
                continue;
            }
            match brick.clean_landfill(&|| stop.load(Ordering::Acquire)) {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "landfill emptied"),
                Err(e) => tracing::warn!(error = %e, "emptying landfill"),
            }
        }
    };
    std::thread::Builder::new().name("janitor".to_owned()).spawn(clean).ok()
}

/// Tells glusterd's portmapper our port, and again whenever glusterd comes back; signs out at the end.
///
/// The first attempt is made before this returns, so that clients find the brick as soon as the start is reported.
fn keep_signed_in(
    glusterd: Glusterd,
    brick: String,
    ports: Ports,
    stop: Arc<AtomicBool>,
    mut changes: Changes,
) -> io::Result<JoinHandle<()>> {
    let first = sign_in(&glusterd, &brick, &ports);
    if let Err(e) = &first {
        tracing::warn!(%glusterd, error = %e, "signing in at glusterd; trying again");
    }
    let keep = move || {
        let mut connection = first.ok();
        while !stop.load(Ordering::Acquire) {
            let Some(client) = &mut connection else {
                std::thread::park_timeout(AGAIN);
                if !stop.load(Ordering::Acquire) {
                    connection = sign_in(&glusterd, &brick, &ports).ok();
                    if connection.is_some()
                        && let Err(e) = changes.take(&glusterd)
                    {
                        tracing::error!(%glusterd, error = %e, "taking the changes of the volume's options");
                    }
                }
                continue;
            };
            match client.listen(Duration::from_millis(500)) {
                Ok(Some((callback::PROGRAM, _))) => {
                    if let Err(e) = changes.take(&glusterd) {
                        tracing::error!(%glusterd, error = %e, "taking the changes of the volume's options");
                    }
                }
                Ok(_) => {}
                Err(e) => {
                    tracing::info!(%glusterd, error = %e, "lost glusterd; the brick goes on, signing in again later");
                    connection = None;
                }
            }
        }
        if let Some(mut client) = connection {
            for (suffix, port) in &ports.0 {
                let request = portmap::Signout {
                    brick: format!("{brick}{suffix}"),
                    port: i32::from(*port),
                    rdma_port: if suffix.is_empty() { 0 } else { i32::from(*port) },
                };
                let _ = client.call(portmap::PROGRAM, portmap::VERSION, portmap::PROC_SIGNOUT, request.encode());
            }
        }
    };
    std::thread::Builder::new().name("portmap".to_owned()).spawn(keep)
}

/// What is needed to take a changed volfile while the brick runs.
struct Changes {
    args: Args,
    graph: Arc<Graph>,
    observer: Observer,
    volfile: Volfile,
}

impl Changes {
    fn take(&mut self, glusterd: &Glusterd) -> Result<(), Failure> {
        if self.args.volfile_id.is_none() || self.args.volfile.is_some() {
            return Ok(());
        }
        let mut new = Volfile::parse(volfile_text(&self.args, Some(glusterd))?)?;
        override_options(&mut new, &self.args.xlator_option)?;
        if new == self.volfile {
            return Ok(());
        }
        let outcome = self.graph.reconfigure(&self.volfile, &new);
        let cut_off = self.observer.cut_refused();
        self.volfile = new;
        for error in &outcome.errors {
            tracing::error!(%error, "an option that cannot be: what it would change stays as it was");
        }
        tracing::info!(next_start = ?outcome.waiting, cut_off, "the volume's options have changed");
        Ok(())
    }
}

/// A brick's ports, each with what its name ends with at the portmapper.
struct Ports(Vec<(&'static str, u16)>);

impl Ports {
    fn of(endpoints: &[Endpoint]) -> Ports {
        let mut ports: Vec<(&'static str, u16)> = Vec::new();
        for Endpoint { kind, address } in endpoints {
            if !ports.iter().any(|(suffix, _)| *suffix == kind.portmap_suffix()) {
                ports.push((kind.portmap_suffix(), address.port()));
            }
        }
        Ports(ports)
    }
}

fn sign_in(glusterd: &Glusterd, brick: &str, ports: &Ports) -> io::Result<Client> {
    let mut client = Client::connect(glusterd, PATIENCE)?;
    for (suffix, port) in &ports.0 {
        let brick = format!("{brick}{suffix}");
        let request = portmap::Signin { brick, port: i32::from(*port), pid: std::process::id() as i32 };
        let body = client.call(portmap::PROGRAM, portmap::VERSION, portmap::PROC_SIGNIN, request.encode())?;
        let status =
            portmap::Status::decode(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        if status.op_ret < 0 {
            return Err(io::Error::from_raw_os_error(status.op_errno));
        }
    }
    Ok(client)
}
