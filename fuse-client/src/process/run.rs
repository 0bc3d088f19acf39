//! What `glusterfs` does: from the command line to a live mount (or service), and to its end.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::{Either, select};
use ladrillo_translator::{Event, Translator, Volfile};
use ladrillo_transport::Address;
use parking_lot::Mutex;

use super::args::{self, Args};
use super::brick_volfile::{self, Kind, LocalBrick};
use super::daemon::{PidFile, Reporter, Side, daemonize};
use super::graphs::{Graphs, Install, Running};
use super::signals::{Signal, Signals};
use super::spec::{Servers, Source, SpecError};
use super::{heal_info, log, order};
use crate::executor::{AnyConnector, Executor, RingRuntime, resolve, sleep, spawn, timeout};
use crate::front::dump::FuseDump;
use crate::front::mount::MountOptions;
use crate::front::notify::Invalidations;
use crate::front::start::FrontEnd;
use crate::front::{Front, Options, answer, start};
use crate::graph::{Ear, Environment, Graph, Heard};
use crate::heal::HealService;
use crate::switch::Switch;
use crate::translators::gfid_access::GfidAccess;

/// How long a mount waits for its bricks before it gives up.
const FIRST_STATE_TIMEOUT: Duration = Duration::from_secs(40);
/// How long it waits on when something below has been heard of that is not there (yet).
const CONNECTING_GRACE: Duration = Duration::from_secs(12);
/// How long requests under way may take when the process ends.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Where state dumps go. Source: GlusterFS's default statedump path.
const STATEDUMP_DIRECTORY: &str = "/var/run/gluster";

/// The program, under its own name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut args = match args::parse(arguments) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS }; // EX_USAGE, as argp does
        }
    };
    if let Some(code) = print_and_exit(&args) {
        return code;
    }
    if args.debug {
        args.no_daemon = true;
        args.log_level = "DEBUG".into();
        args.log_file = Some("-".into());
    }
    let kind = args.volfile.as_deref().map_or(Kind::Client, brick_volfile::kind);
    if let (Kind::Brick, Some(volfile)) = (kind, &args.volfile) {
        let error = brick_volfile::become_brick(&args, volfile);
        eprintln!("glusterfs: {error}");
        return ExitCode::FAILURE;
    }
    if let Some(place) = &args.rdma_check {
        return super::transport_check::main(place, "rdma", None);
    }
    if let Some(place) = &args.transport_check {
        return super::transport_check::main(place, &args.check_transport, args.sdp_via.as_deref());
    }
    if let Err(reason) = check(&args) {
        eprintln!("glusterfs: {reason}");
        return ExitCode::from(64);
    }
    let mut local = None;
    if let (Kind::Local, Some(volfile)) = (kind, &args.volfile) {
        match LocalBrick::start(volfile) {
            Ok((brick, volfile)) => {
                args.volfile = Some(volfile);
                local = Some(brick);
            }
            Err(reason) => {
                eprintln!("glusterfs: {reason}");
                return ExitCode::FAILURE;
            }
        }
    }
    let foreground = args.no_daemon || args.heal_info.is_some();
    let mut reporter = if foreground {
        Reporter::foreground()
    } else {
        match daemonize() {
            Ok(Side::Parent(code)) => {
                // It is the worker's.
                std::mem::forget(local);
                return code;
            }
            Ok(Side::Worker(reporter)) => reporter,
            Err(error) => {
                eprintln!("glusterfs: daemonization failed: {error}");
                return ExitCode::FAILURE;
            }
        }
    };
    let (heal_info, xml) = (args.heal_info.is_some(), args.xml);
    let outcome = work(args, &mut reporter);
    drop(local);
    match outcome {
        Ok(code) => code,
        Err(reason) => {
            tracing::error!("{reason}");
            if xml {
                print!("{}", heal_info::xml_failure(&reason));
                return ExitCode::FAILURE;
            }
            let prefix = if heal_info { "" } else { "glusterfs: " };
            reporter.failed(&format!("{prefix}{reason}"));
            ExitCode::FAILURE
        }
    }
}

fn print_and_exit(args: &Args) -> Option<ExitCode> {
    let text = if args.version {
        super::VERSION_TEXT
    } else if args.print_logdir {
        log::LOG_DIRECTORY
    } else if args.print_statedumpdir {
        STATEDUMP_DIRECTORY
    } else if args.print_libexecdir {
        libexec_directory()
    } else if args.print_xlatordir {
        "(translators are built in)"
    } else {
        return None;
    };
    println!("{text}");
    Some(ExitCode::SUCCESS)
}

/// Where GlusterFS's helper programs are on this machine: Debian has them below the machine's library directory.
fn libexec_directory() -> &'static str {
    const PLACES: [&str; 3] =
        ["/usr/libexec/glusterfs", "/usr/lib/x86_64-linux-gnu/glusterfs", "/usr/lib/aarch64-linux-gnu/glusterfs"];
    PLACES.into_iter().find(|place| std::path::Path::new(place).is_dir()).unwrap_or("/usr/libexec/glusterfs")
}

fn check(args: &Args) -> Result<(), String> {
    if log::level(&args.log_level).is_none() {
        return Err(format!("unknown log level {:?}", args.log_level));
    }
    if args.heal_info.is_none() && args.volfile.is_none() && args.volfile_servers.is_empty() {
        return Err("nothing to do: give --volfile-server and --volfile-id, or --volfile".into());
    }
    if args.volfile.is_none() && args.volfile_id.is_none() && args.heal_info.is_none() {
        return Err("--volfile-id is missing: which volfile shall the server send?".into());
    }
    if args.mount_point.is_none() && args.process_name.is_none() && args.heal_info.is_none() {
        return Err("no mount point is given".into());
    }
    if let Some(path) = args.mount_point.as_ref().filter(|_| args.heal_info.is_none()) {
        let is_directory = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
        if !is_directory {
            return Err(format!("{}: no such directory to mount on", path.display()));
        }
    }
    Ok(())
}

fn work(args: Args, reporter: &mut Reporter) -> Result<ExitCode, String> {
    // Before any thread is started: all of them are to leave signals to the ring.
    let signals = Signals::block().map_err(|error| format!("signals: {error}"))?;
    let file = match (&args.log_file, args.heal_info.is_some()) {
        (Some(path), _) => Some(path.clone()),
        (None, true) => None,
        (None, false) => Some(log::default_file(args.mount_point.as_deref())),
    };
    let level = match args.heal_info {
        Some(_) if args.log_file.is_none() => Some(tracing_subscriber::filter::LevelFilter::OFF),
        _ => log::level(&args.log_level),
    };
    let log = log::start(file.as_deref(), level.unwrap_or(tracing_subscriber::filter::LevelFilter::INFO))
        .map_err(|error| format!("failed to open logfile {:?}: {error}", file.unwrap_or_default()))?;
    // The console is gone by then: the log is where a panic is looked for.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let _pid_file = match &args.pid_file {
        Some(path) => Some(PidFile::create(path).map_err(|error| format!("pid file: {error}"))?),
        None => None,
    };
    if let Some(score) = args.oom_score_adj
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        return Err(format!("failed to set oom_score_adj to {score}: {error}"));
    }
    tracing::info!("{} started: {}", super::VERSION_TEXT, std::env::args().collect::<Vec<_>>().join(" "));
    let executor = Executor::new().map_err(|error| error.to_string())?;
    executor.block_on(run(args, signals, log, reporter))
}

async fn run(args: Args, signals: Signals, log: log::Log, reporter: &mut Reporter) -> Result<ExitCode, String> {
    let (spec, source, again) = load(&args).await?;
    let volfile = Volfile::parse(&spec).map_err(|error| format!("the volfile cannot be used: {error}"))?;
    let runtime = Arc::new(RingRuntime::new());
    let environment = Environment {
        runtime: runtime.clone(),
        connector: Arc::new(AnyConnector),
        overrides: args.xlator_options.clone(),
        subdir: args.subdir_mount.clone(),
        top: args.volume_name.clone(),
        permissions_are_checked: !args.acl,
    };
    let graph = Arc::new(Graph::build(&volfile, &environment).map_err(|error| error.to_string())?);
    drop(volfile);
    if args.heal_info.is_some() {
        let ear = Ear::new();
        graph.start(&ear);
        let result = match args.order.is_empty() {
            true => heal_info::run(&args, &graph, &ear).await.map(|()| ExitCode::SUCCESS),
            false => order::run(&args, &graph, &ear).await,
        };
        graph.stop();
        return result;
    }
    if args.mount_point.is_some() && graph.tops() > 1 {
        return Err(format!("volume '{}' has several subvolumes: it cannot be mounted", graph.name));
    }
    let ear = Ear::new();
    graph.start(&ear);
    let graphs = Graphs::new(environment, args.mount_point.is_some(), Running { graph, ear });
    let source = (source, spec);
    let hangup = move || {
        log.reopen();
        if let Some(again) = &again {
            // One that waits already is enough.
            let _ = again.clone().try_send(());
        }
    };
    match args.mount_point.clone() {
        Some(path) => mount(&args, &path, &graphs, source, &runtime, &signals, &hangup, reporter).await?,
        None => serve(&args, &graphs, source, &runtime, &signals, &hangup, reporter).await?,
    }
    graphs.end_all().await;
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// The volfile, where newer ones come from, and how that is told to look again, where it has to be told.
async fn load(args: &Args) -> Result<(Bytes, Source, Option<mpsc::Sender<()>>), String> {
    if let Some(path) = args.volfile.as_ref().filter(|_| args.volfile_servers.is_empty()) {
        let text = std::fs::read(path).map_err(|error| format!("volfile {}: {error}", path.display()))?;
        let (sender, again) = mpsc::channel(1);
        return Ok((text.into(), Source::File { path: path.clone(), again }, Some(sender)));
    }
    let unix = match args.volfile_server_transport.as_str() {
        // Of RDMA is what the bricks are reached by: management stays on TCP.
        "socket" | "tcp" | "inet" | "inet6" | "rdma" | "sdp" => false,
        "unix" => true,
        other => return Err(format!("volfile server transport {other:?} is not supported (tcp, unix, rdma, sdp)")),
    };
    let servers = args.volfile_servers.iter().map(|server| match unix {
        true => Address::Unix(server.into()),
        false => Address::Tcp { host: server.clone(), port: args.volfile_server_port },
    });
    let mut key = args.volfile_id.clone().or_else(|| args.heal_info.clone()).unwrap_or_default();
    if let asked @ ("rdma" | "sdp") = args.volfile_server_transport.as_str()
        && !key.ends_with(&format!(".{asked}"))
    {
        key = format!("{key}.{asked}");
    }
    if args.thin_client {
        // What glusterd calls it; one without gfproxyd says that there is none.
        key = format!("gfproxy-client/{}", key.trim_start_matches('/'));
    }
    let mut servers = Servers::new(servers.collect(), key);
    let spec =
        servers.fetch(args.volfile_max_fetch_attempts).await.map_err(|error| match (&args.heal_info, &error) {
            (Some(volume), SpecError::Refused { .. }) => format!("Volume {volume} does not exist"),
            (Some(volume), SpecError::Unreachable { .. }) => {
                format!("{volume}: Not able to fetch volfile from glusterd")
            }
            (None, error) => error.to_string(),
        })?;
    Ok((spec, Source::Servers(servers), None))
}

fn source(args: &Args) -> String {
    match (&args.volfile, args.volfile_servers.first()) {
        (_, Some(server)) => {
            let id = args.volfile_id.as_deref().unwrap_or_default().trim_start_matches('/');
            let subdir = args.subdir_mount.as_deref().unwrap_or_default();
            format!("{server}:/{id}{subdir}")
        }
        (Some(path), None) => path.display().to_string(),
        (None, None) => "glusterfs".to_owned(),
    }
}

#[allow(clippy::too_many_arguments)] // what one process has once
async fn mount(
    args: &Args,
    path: &Path,
    graphs: &Arc<Graphs>,
    (source_of_spec, spec): (Source, Bytes),
    runtime: &Arc<RingRuntime>,
    signals: &Signals,
    hangup: &impl Fn(),
    reporter: &mut Reporter,
) -> Result<(), String> {
    let Running { graph, ear } = graphs.current();
    match select(Box::pin(first_state(&ear)), Box::pin(ended(signals, hangup))).await {
        Either::Left(_) => {}
        Either::Right(_) => return Err("ended by a signal before it was mounted".into()),
    }
    if ear.heard() != Heard::Up {
        return Err(format!(
            "volume '{}': no brick (or no quorum of bricks) can be reached: the log says why",
            graph.name
        ));
    }
    let read_only = args.read_only || graph.read_only;
    if args.worm {
        tracing::warn!("--worm alone makes nothing write-once, as in GlusterFS 10: set features.worm of the volume");
    }
    let fuse_dump = match &args.dump_fuse {
        Some(path) => match FuseDump::create(path) {
            Ok(dump) => Some(Arc::new(dump)),
            Err(error) => return Err(format!("--dump-fuse {}: {error}", path.display())),
        },
        None => None,
    };
    let options = Options {
        validity: answer::Validity {
            attributes: args.attribute_timeout,
            entry: args.entry_timeout,
            negative: args.negative_timeout,
            ino32: args.enable_ino32,
        },
        gid_timeout: args.gid_timeout,
        direct_io: args.direct_io_mode,
        keep_cache: args.fopen_keep_cache,
        acl: args.acl,
        selinux: args.selinux,
        capability: args.capability,
        read_only,
        lru_limit: usize::try_from(args.lru_limit).unwrap_or(usize::MAX),
        dump: fuse_dump,
        client_pid: args.client_pid.or(args.no_root_squash.then_some(ladrillo_translator::Context::PID_NO_ROOT_SQUASH)),
    };
    let switch = Switch::new(graph.name.clone(), graph.top.clone(), runtime.clone());
    let top: Arc<dyn Translator> = match args.aux_gfid_mount {
        true => GfidAccess::new(switch.clone()),
        false => switch.clone(),
    };
    let front = Arc::new(Front::new(top, options));
    front.check_root().await.map_err(|error| format!("volume '{}': its root cannot be read: {error}", graph.name))?;
    let mount_options = MountOptions {
        source: source(args),
        kernel: args.fuse_mountopts.clone(),
        read_only,
        acl: args.acl,
        background: args.background_qlen,
        congestion_threshold: args.congestion_threshold,
        readdirplus: args.use_readdirp,
        auto_invalidation: args.auto_invalidation,
        writeback_cache: args.kernel_writeback_cache,
        time_granularity_ns: args.attr_times_granularity,
        ..MountOptions::default()
    };
    // A dump has what crosses /dev/fuse: all has to.
    let front_end = if args.dump_fuse.is_some() { FrontEnd::Device } else { args.fuse_front };
    let failed = |error: std::io::Error| format!("mounting on {} failed: {error}", path.display());
    let mounted = start::mount(front.clone(), front_end, path, &mount_options).await.map_err(failed)?;
    let (mounted, serving) = mounted.serve().map_err(failed)?;
    let limit = usize::try_from(args.invalidate_limit).unwrap_or(usize::MAX);
    let listening = Invalidations::start(mounted.notifier(), limit).map(|invalidations| {
        front.notify_by(invalidations);
        let listener = front.clone();
        let listen = move |ear: &Ear| {
            let listener = listener.clone();
            ear.listen(move |event| {
                if let Event::Invalidate { gfid, flags } = event {
                    listener.invalidate(gfid, *flags);
                }
            });
        };
        listen(&ear);
        let (switch, leaving) = (switch.clone(), graphs.clone());
        let install: Install = Box::new(move |old, new| {
            listen(&new.ear);
            let (switch, leaving) = (switch.clone(), leaving.clone());
            Box::pin(async move {
                switch.set_strict_locks(new.graph.clients.iter().any(|client| client.has_strict_locks()));
                let left = switch.switch(new.graph.top.clone()).await;
                spawn(async move {
                    left.done().await;
                    leaving.end(old.graph).await;
                });
            })
        });
        spawn(graphs.clone().follow(source_of_spec, spec, install));
    });
    if let Err(error) = listening {
        let _ = mounted.unmount();
        return Err(failed(error));
    }
    tracing::info!(front_end = front.name(), source = mount_options.source, "mounted on {}", path.display());
    reporter.live();
    let mut serving = serving;
    loop {
        match select(&mut serving, Box::pin(signals.next())).await {
            Either::Left((result, _)) => {
                if let Err(error) = result {
                    tracing::error!("FUSE: {error}");
                    let _ = mounted.unmount();
                }
                break;
            }
            Either::Right((Signal::End, _)) => {
                tracing::info!("asked to end: unmounting {}", path.display());
                if let Err(error) = mounted.unmount() {
                    tracing::error!("unmounting {}: {error}", path.display());
                }
                // Whatever is still open elsewhere loses us: its calls fail with ENOTCONN.
                let _ = timeout(END_TIMEOUT, &mut serving).await;
                break;
            }
            Either::Right((Signal::Hangup, _)) => hangup(),
            Either::Right((Signal::Heal | Signal::HealFull, _)) => {}
            Either::Right((Signal::Dump, _)) => dump(&graphs.current(), Some(&front)),
        }
    }
    let _ = timeout(END_TIMEOUT, front.idle()).await;
    Ok(())
}

/// Completes at SIGTERM.
async fn ended(signals: &Signals, hangup: &impl Fn()) {
    loop {
        match signals.next().await {
            Signal::End => return,
            Signal::Hangup => hangup(),
            Signal::Dump | Signal::Heal | Signal::HealFull => {}
        }
    }
}

/// Waits until the volume is known to be up or down; not for ever.
pub(super) async fn first_state(ear: &Ear) {
    let grace = async {
        ear.anything().await;
        sleep(CONNECTING_GRACE).await;
    };
    let known = Box::pin(timeout(FIRST_STATE_TIMEOUT, ear.known()));
    select(known, Box::pin(grace)).await;
}

/// A process without a mount: the self-heal daemon.
async fn serve(
    args: &Args,
    graphs: &Arc<Graphs>,
    (source_of_spec, spec): (Source, Bytes),
    runtime: &Arc<RingRuntime>,
    signals: &Signals,
    hangup: &impl Fn(),
    reporter: &mut Reporter,
) -> Result<(), String> {
    let name = args.process_name.as_deref().unwrap_or_default();
    if name != "glustershd" {
        return Err(format!("process name {name:?} without a mount point: only glustershd is a service"));
    }
    let Running { graph, .. } = graphs.current();
    if graph.replicates.is_empty() {
        return Err(format!("volume '{}' has nothing to heal: no cluster/replicate", graph.name));
    }
    let services = Arc::new(Mutex::new(start_services(&graph, runtime).await));
    drop(graph);
    let (serving, runtime, leaving) = (services.clone(), runtime.clone(), graphs.clone());
    let install: Install = Box::new(move |old, new| {
        let (services, runtime, leaving) = (serving.clone(), runtime.clone(), leaving.clone());
        Box::pin(async move {
            let before = std::mem::take(&mut *services.lock());
            before.iter().for_each(|service| service.stop());
            let started = start_services(&new.graph, &runtime).await;
            *services.lock() = started;
            spawn(async move { leaving.end(old.graph).await });
        })
    });
    spawn(graphs.clone().follow(source_of_spec, spec, install));
    reporter.live();
    loop {
        match signals.next().await {
            Signal::End => break,
            Signal::Hangup => hangup(),
            Signal::HealFull => services.lock().iter().for_each(|service| service.heal_now(true)),
            Signal::Heal => services.lock().iter().for_each(|service| service.heal_now(false)),
            Signal::Dump => dump(&graphs.current(), None),
        }
    }
    services.lock().iter().for_each(|service| service.stop());
    Ok(())
}

/// A heal service for each replica set.
async fn start_services(graph: &Graph, runtime: &Arc<RingRuntime>) -> Vec<Arc<HealService>> {
    let mut services = Vec::new();
    for (replicate, bricks) in graph.replicates.iter().zip(&graph.bricks) {
        let mut mine = Vec::new();
        for brick in bricks {
            mine.push(match brick {
                Some((host, _)) => is_here(host).await,
                None => false,
            });
        }
        tracing::info!(
            replicate = ladrillo_translator::Translator::name(&**replicate),
            ?mine,
            "heals the bricks of this machine"
        );
        let service =
            HealService::new(replicate.clone(), runtime.clone(), |child| mine.get(child).copied().unwrap_or(false));
        service.start();
        services.push(service);
    }
    services
}

/// Whether a host name stands for this machine: one of its addresses can be bound here.
async fn is_here(host: &str) -> bool {
    match resolve(host, 0).await {
        Ok(addresses) => addresses.iter().any(|address| std::net::UdpSocket::bind(address).is_ok()),
        Err(error) => {
            tracing::warn!("{error}: its brick is taken for another machine's");
            false
        }
    }
}

/// SIGUSR1: what this process holds, in GlusterFS's place for it.
fn dump(running: &Running, front: Option<&Front>) {
    let Running { graph, ear } = running;
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let path = Path::new(STATEDUMP_DIRECTORY).join(format!(
        "glusterdump.{}.dump.{}",
        std::process::id(),
        since_epoch.as_secs()
    ));
    // Scripts wait for the last line.
    let moment = || {
        let now = crate::executor::wall_clock();
        format!("{}.{:06}", now.seconds, now.nanos / 1000)
    };
    let mut text = format!("DUMP-START-TIME: {}\n\n[global.glusterfs]\n", moment());
    text += &format!("volume={}\nup={}\n{}", graph.name, ear.is_up(), memory());
    if let Some(front) = front {
        let (inodes, open, pending) = (front.inodes.len(), front.files.len(), front.pending());
        text += &format!(
            "\n[xlator.mount.fuse.priv]\ninodes={inodes}\nopen={open}\n\n[global.callpool]\ncallpool.cnt={pending}\n"
        );
    }
    text += &graph.dump();
    text += &format!("\nDUMP-END-TIME: {}\n", moment());
    if let Err(error) = std::fs::write(&path, text) {
        tracing::warn!("state dump {}: {error}", path.display());
    }
}

/// What the kernel says about this process's memory, in kB.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next());
    let line = |(name, key)| of(key).map(|size| format!("{name}={size}\n"));
    [("resident_kb", "VmRSS:"), ("resident_peak_kb", "VmHWM:")].into_iter().filter_map(line).collect()
}
