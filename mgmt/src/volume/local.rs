//! A node's part: its brick processes and heal services, as the decided state wants them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use ladrillo_transport::Kind;
use rustix::process::Signal;

use crate::api::Failure;
use crate::brick::process::{Daemon, free_port, is_free, program, start_on_port};
use crate::daemon::node::Node;
use crate::daemon::peer::Act;
use crate::option::parse_bool;
use crate::state::model::{Brick, Status, Volume};
use crate::volgen::names;
use crate::volume::create::{mark_brick, reason};

/// How often processes are looked after.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long a brick may take to write a state dump.
const DUMP_PATIENCE: Duration = Duration::from_secs(2);
/// How soon a brick that failed to start with its volume is tried again.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// Longest wait between restarts of a heal service that keeps dying, and of a brick that does not start.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

impl Node {
    /// The brick's process; `ports` are those of the volume's transports in their order (none where it only has to be
    /// found).
    pub fn brick_daemon(&self, volume: &Volume, brick: &Brick, ports: &[u16]) -> Daemon {
        let pid_file = self.places.brick_pid(volume, brick);
        let log_file = self.places.brick_log(brick);
        let mut arguments: Vec<OsString> = vec![
            "-s".into(),
            brick.host.clone().into(),
            "--volfile-id".into(),
            names::brick(volume, brick).into(),
            "-p".into(),
            pid_file.clone().into(),
            "-S".into(),
            self.places.socket(&pid_file).into(),
            "--brick-name".into(),
            brick.path.clone().into(),
            "-l".into(),
            log_file.clone().into(),
            "--xlator-option".into(),
            format!("*-posix.glusterd-uuid={}", self.uuid()).into(),
            "--process-name".into(),
            "brick".into(),
            "--brick-port".into(),
            ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",").into(),
        ];
        // As GlusterFS 7 did it: each transport's own option only where there are several.
        let kinds = volume.kinds();
        for (kind, port) in kinds.iter().zip(ports) {
            let option = match kind {
                _ if kinds.len() == 1 => "listen-port",
                Kind::Tcp => "transport.socket.listen-port",
                Kind::Rdma => "transport.rdma.listen-port",
                Kind::Sdp(_) => "transport.sdp.listen-port",
            };
            arguments.push("--xlator-option".into());
            arguments.push(format!("{}-server.{option}={port}", volume.name).into());
        }
        if self.config.bind.is_some() {
            arguments.push("--xlator-option".into());
            arguments.push(format!("transport.socket.bind-address={}", brick.host).into());
        }
        Daemon {
            program: program("glusterfsd"),
            arguments,
            pid_file,
            log_file,
            mark: format!("--brick-name {} ", brick.path),
        }
    }

    /// The volume's heal service on this node.
    pub fn heal_daemon(&self, volume: &str) -> Daemon {
        let pid_file = self.places.heal_pid(volume);
        let log_file = self.places.heal_log();
        let server = self.config.bind.map_or_else(|| "localhost".to_owned(), |bind| bind.to_string());
        let key = format!("shd/{volume}");
        let arguments: Vec<OsString> = vec![
            "-s".into(),
            server.into(),
            "--volfile-id".into(),
            key.clone().into(),
            "-p".into(),
            pid_file.clone().into(),
            "-l".into(),
            log_file.clone().into(),
            "-S".into(),
            self.places.socket(&pid_file).into(),
            "--xlator-option".into(),
            format!("*replicate*.node-uuid={}", self.uuid()).into(),
            "--process-name".into(),
            "glustershd".into(),
            "--client-pid=-6".into(),
        ];
        Daemon { program: program("glusterfs"), arguments, pid_file, log_file, mark: format!("--volfile-id {key} ") }
    }

    /// This node's bricks of a volume.
    pub fn own_bricks<'a>(&self, volume: &'a Volume) -> Vec<&'a Brick> {
        let own = self.uuid();
        volume.bricks.iter().filter(|brick| brick.host_uuid == own).collect()
    }

    /// Checks, on this node, that a volume can start.
    ///
    /// # Errors
    /// GlusterFS's words.
    pub fn stage_start(&self, name: &str, force: bool) -> Result<(), Failure> {
        let volume = self.volume(name)?;
        if force {
            return Ok(());
        }
        for brick in self.own_bricks(&volume) {
            if let Err(error) = std::fs::metadata(&brick.path) {
                return Err(Failure::new(
                    error.raw_os_error().unwrap_or(libc::EIO),
                    format!(
                        "Failed to find brick directory {} for volume {name}. Reason : {}",
                        brick.path,
                        reason(&error)
                    ),
                ));
            }
            mark_brick(&brick.path, volume.id)?;
        }
        Ok(())
    }

    /// Does this node's part of a decision.
    ///
    /// # Errors
    /// GlusterFS's words.
    pub async fn act_here(&self, act: &Act) -> Result<(), Failure> {
        self.look_at_bricks().await;
        self.export();
        match act {
            Act::Created { volume } => {
                let volume = self.volume(volume)?;
                self.own_bricks(&volume).into_iter().try_for_each(|brick| mark_brick(&brick.path, volume.id))
            }
            Act::Started { volume } => {
                let volume = self.volume(volume)?;
                let started = self.start_bricks(&volume).await;
                self.reconcile_heal().await;
                started
            }
            Act::Stopped { volume } => {
                let volume = self.volume(volume)?;
                let stopped = self.stop_bricks(&volume).await;
                self.stop_heal(&volume.name).await;
                stopped
            }
            Act::Shrunk { volume } => {
                let volume = self.volume(volume)?;
                let volumes: Vec<Volume> = self.store.with_state(|state| state.volumes.values().cloned().collect());
                self.stop_strays(&volumes).await;
                if volume.is_replicated() {
                    self.reconcile_heal().await;
                }
                Ok(())
            }
            Act::Dump { volume } => self.dump_here(&self.volume(volume)?).await,
            Act::Heal { volume, full } => self.heal_here(volume, *full).await,
            Act::Applied => Ok(()),
        }
    }

    /// Starts those of this node's bricks of a volume that are down.
    ///
    /// # Errors
    /// The first brick that does not start.
    pub async fn start_bricks(&self, volume: &Volume) -> Result<(), Failure> {
        let _one = self.bricks.lock().await;
        // A stop may have been decided while we waited.
        if !self.is_started(volume) {
            return Ok(());
        }
        let count = volume.start_count;
        if let Some((done, outcome)) = self.start_outcomes.borrow().get(&volume.id)
            && *done >= count
        {
            // Whoever came first for this start, the command or the reconciler, did it for both.
            return outcome.clone();
        }
        let mut first_failure = Ok(());
        for brick in self.own_bricks(volume) {
            let key = (volume.id, brick.path.clone());
            self.brick_backoff.borrow_mut().remove(&key);
            if let Err(failure) = self.start_brick(volume, brick).await {
                tracing::error!("brick {}: {failure}", brick.name());
                self.brick_backoff.borrow_mut().insert(key, (Instant::now() + FIRST_RETRY, FIRST_RETRY));
                if first_failure.is_ok() {
                    first_failure = Err(failure);
                }
            }
        }
        let id = volume.id;
        self.start_outcomes.borrow_mut().insert(id, (count, first_failure.clone()));
        if let Err(error) = self.update_local(|local| {
            local.started.insert(id, count);
        }) {
            tracing::error!("{error}");
        }
        self.export();
        first_failure
    }

    fn is_started(&self, volume: &Volume) -> bool {
        self.store.with_state(|state| {
            state.volumes.get(&volume.name).is_some_and(|now| now.status == Status::Started && now.id == volume.id)
        })
    }

    /// Tries those bricks of a started volume again that failed to start with it: a disk that is mounted late, a port
    /// that was taken. What ran and died stays down.
    async fn retry_bricks(&self, volume: &Volume) {
        let now = Instant::now();
        let waits = |brick: &Brick| self.brick_backoff.borrow().get(&(volume.id, brick.path.clone())).copied();
        let due: Vec<&Brick> =
            self.own_bricks(volume).into_iter().filter(|brick| waits(brick).is_some_and(|(at, _)| at <= now)).collect();
        if due.is_empty() {
            return;
        }
        let _one = self.bricks.lock().await;
        for brick in due {
            // A start by command may have come first, or a stop.
            let Some((_, wait)) = waits(brick).filter(|_| self.is_started(volume)) else { continue };
            let key = (volume.id, brick.path.clone());
            match self.start_brick(volume, brick).await {
                Ok(()) => {
                    self.brick_backoff.borrow_mut().remove(&key);
                }
                Err(failure) => {
                    let wait = (wait * 2).min(MAX_BACKOFF);
                    tracing::warn!("brick {}: {failure}; next try in {wait:?}", brick.name());
                    self.brick_backoff.borrow_mut().insert(key, (Instant::now() + wait, wait));
                }
            }
        }
        self.export();
    }

    async fn start_brick(&self, volume: &Volume, brick: &Brick) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(libc::EIO, format!("Unable to start brick {}: {error}", brick.name()))
        };
        let known = self.store.local().ports.get(&brick.path).copied();
        if self.brick_daemon(volume, brick, &[]).pid().is_some() {
            return Ok(());
        }
        if let Err(error) = std::fs::metadata(&brick.path) {
            return Err(failed(&reason(&error)));
        }
        mark_brick(&brick.path, volume.id)?;
        // The directory carries the volume's data: a brick that lost its mark would be started on an empty mount point.
        let address = self.brick_address();
        let ports = self.store.local().ports;
        let pick = |lost: &[u16]| {
            let taken = |port: u16| {
                lost.contains(&port) || ports.iter().any(|(path, other)| *other == port && *path != brick.path)
            };
            free_port(address, known, self.config.base_port, self.config.max_port, taken)
        };
        let others: Vec<String> = volume.kinds().iter().skip(1).map(|kind| brick.portmap_name(volume, *kind)).collect();
        // RDMA's ports are not TCP's: only the brick finds out that one is taken.
        let taken_elsewhere = std::cell::Cell::new(false);
        let start = async |port: u16| {
            let mut all = vec![port];
            for name in &others {
                let taken =
                    |port: u16| all.contains(&port) || ports.iter().any(|(n, other)| *other == port && n != name);
                let known = ports.get(name).copied();
                let port = free_port(address, known, self.config.base_port, self.config.max_port, taken);
                all.push(port.ok_or_else(|| failed(&"no free port"))?);
            }
            let names = std::iter::once(&brick.path).chain(&others);
            self.update_local(|local| local.ports.extend(names.clone().cloned().zip(all.iter().copied())))
                .map_err(|error| failed(&error))?;
            for name in names {
                self.signed_in.borrow_mut().remove(name);
            }
            let pid = self.brick_daemon(volume, brick, &all).start().await.map_err(|error| {
                taken_elsewhere.set(error.to_string().contains("Address already in use"));
                failed(&error)
            })?;
            tracing::info!("brick {} runs: pid {pid}, ports {all:?}", brick.name());
            Ok(())
        };
        start_on_port(pick, |port| is_free(address, port) && !taken_elsewhere.replace(false), start)
            .await
            .unwrap_or_else(|| Err(failed(&"no free port")))
    }

    /// The address bricks of this node listen on, to see whether a port is free.
    fn brick_address(&self) -> std::net::IpAddr {
        self.config.bind.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into())
    }

    /// Stops this node's bricks of a volume.
    ///
    /// # Errors
    /// The first that does not stop.
    pub async fn stop_bricks(&self, volume: &Volume) -> Result<(), Failure> {
        let _one = self.bricks.lock().await;
        let stops = self.own_bricks(volume).into_iter().map(|brick| async move {
            let daemon = self.brick_daemon(volume, brick, &[]);
            daemon
                .stop()
                .await
                .map_err(|error| Failure::new(libc::EIO, format!("Failed to stop brick {}: {error}", brick.name())))?;
            for kind in volume.kinds() {
                self.signed_in.borrow_mut().remove(&brick.portmap_name(volume, kind));
            }
            // Its socket, if it left it behind.
            let _ = std::fs::remove_file(self.places.socket(&daemon.pid_file));
            Ok(())
        });
        join_all(stops).await.into_iter().collect()
    }

    /// Whether this node should run a heal service for the volume.
    pub fn wants_heal(&self, volume: &Volume) -> bool {
        volume.status == Status::Started
            && volume.is_replicated()
            && volume.option("cluster.self-heal-daemon").and_then(parse_bool).unwrap_or(true)
            && !self.own_bricks(volume).is_empty()
    }

    /// Has this node's bricks of a volume write state dumps, and waits until they are there.
    async fn dump_here(&self, volume: &Volume) -> Result<(), Failure> {
        let directory = volume.option("server.statedump-path").map_or_else(|| self.places.run.clone(), PathBuf::from);
        let count = |mark: &str| {
            let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name().to_string_lossy().contains(mark)).count()
        };
        for brick in self.own_bricks(volume) {
            let daemon = self.brick_daemon(volume, brick, &[]);
            let Some(pid) = daemon.pid() else { continue };
            let mark = format!(".{pid}.dump.");
            let before = count(&mark);
            let failed =
                |error: std::io::Error| Failure::new(libc::EIO, format!("statedump of {}: {error}", brick.name()));
            if !daemon.signal(Signal::USR1).map_err(failed)? {
                continue;
            }
            let deadline = Instant::now() + DUMP_PATIENCE;
            // A second dump within one second takes the first one's place.
            while count(&mark) <= before && before == 0 && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Stops a volume's heal service on this node.
    pub async fn stop_heal(&self, volume: &str) {
        let daemon = self.heal_daemon(volume);
        if daemon.pid_file.exists() {
            if let Err(error) = daemon.stop().await {
                tracing::error!("heal service of {volume}: {error}");
            }
            let _ = std::fs::remove_file(self.places.socket(&daemon.pid_file));
        }
        self.heal_backoff.borrow_mut().remove(volume);
    }

    /// Keeps the working directory, volfiles' readers, bricks and heal services at what is decided, until the end.
    pub async fn keep_reconciling(self: Rc<Self>) {
        let mut changes = self.store.changes();
        while !self.ending.get() {
            changes.mark_unchanged();
            self.settle_membership();
            // While the log of the pool we join has not reached us, an empty state says nothing about what should run.
            if !self.store.local().joining {
                self.look_at_bricks().await;
                self.export();
                self.tell_clients();
                self.reconcile_bricks().await;
                self.reconcile_heal().await;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = self.reconcile.notified() => {}
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
        }
    }

    /// Once the log we joined names us, we are in.
    fn settle_membership(&self) {
        let local = self.store.local();
        if local.joining
            && self.voters().iter().any(|voter| voter.0 == local.uuid)
            && let Err(error) = self.update_local(|local| {
                local.joining = false;
                local.introducers.clear();
            })
        {
            tracing::error!("{error}");
        }
    }

    async fn reconcile_bricks(&self) {
        let volumes: Vec<Volume> = self.store.with_state(|state| state.volumes.values().cloned().collect());
        let started = self.store.local().started;
        for volume in &volumes {
            match volume.status {
                // Bricks that died stay down, as in GlusterFS, until the next `start force` or start of glusterd.
                Status::Started if started.get(&volume.id) != Some(&volume.start_count) => {
                    if let Err(failure) = self.start_bricks(volume).await {
                        tracing::error!("{failure}");
                    }
                }
                Status::Started => self.retry_bricks(volume).await,
                Status::Created | Status::Stopped => {
                    let running =
                        self.own_bricks(volume).iter().any(|brick| self.places.brick_pid(volume, brick).exists());
                    if running && let Err(failure) = self.stop_bricks(volume).await {
                        tracing::error!("{failure}");
                    }
                }
            }
        }
        self.stop_strays(&volumes).await;
        let stale = |path: &str| !volumes.iter().any(|volume| volume.bricks.iter().any(|brick| brick.path == path));
        let local = self.store.local();
        let gone = |id: &uuid::Uuid| !volumes.iter().any(|volume| volume.id == *id);
        self.start_outcomes.borrow_mut().retain(|id, _| !gone(id));
        let started = |id: &uuid::Uuid| volumes.iter().any(|v| v.id == *id && v.status == Status::Started);
        self.brick_backoff.borrow_mut().retain(|(id, path), _| started(id) && !stale(path));
        let names: std::collections::BTreeSet<String> = volumes
            .iter()
            .flat_map(|v| v.bricks.iter().flat_map(|b| v.kinds().into_iter().map(|kind| b.portmap_name(v, kind))))
            .collect();
        if local.ports.keys().any(|name| !names.contains(name)) || local.started.keys().any(gone) {
            let forget = self.update_local(|local| {
                local.ports.retain(|name, _| names.contains(name));
                local.started.retain(|id, _| !gone(id));
            });
            if let Err(error) = forget {
                tracing::error!("{error}");
            }
        }
    }

    /// Stops brick processes of volumes (and bricks) that are no more: this node was away when they went.
    async fn stop_strays(&self, volumes: &[Volume]) {
        let Ok(directories) = std::fs::read_dir(self.places.run.join("vols")) else { return };
        let _one = self.bricks.lock().await;
        for directory in directories.flatten() {
            let Ok(files) = std::fs::read_dir(directory.path()) else { continue };
            for pid_file in files.flatten().map(|file| file.path()) {
                let is_wanted = volumes.iter().any(|volume| {
                    self.own_bricks(volume).iter().any(|brick| self.places.brick_pid(volume, brick) == pid_file)
                });
                if is_wanted || pid_file.extension().is_none_or(|extension| extension != "pid") {
                    continue;
                }
                let daemon = stray(&pid_file);
                if daemon.pid().is_some() {
                    tracing::warn!("{}: its brick is in no volume any more: stopped", pid_file.display());
                }
                if let Err(error) = daemon.stop().await {
                    tracing::error!("{}: {error}", pid_file.display());
                    continue;
                }
                let _ = std::fs::remove_file(self.places.socket(&pid_file));
            }
            let name = directory.file_name();
            if !volumes.iter().any(|volume| name == *volume.name.as_str()) {
                // Fails while something is left in it, which is not ours.
                let _ = std::fs::remove_dir(directory.path());
            }
        }
    }

    async fn reconcile_heal(&self) {
        let _one = self.heal_services.lock().await;
        if self.store.local().joining {
            return;
        }
        let volumes: Vec<Volume> = self.store.with_state(|state| state.volumes.values().cloned().collect());
        for volume in &volumes {
            if !self.wants_heal(volume) {
                self.stop_heal(&volume.name).await;
                continue;
            }
            let daemon = self.heal_daemon(&volume.name);
            let now = Instant::now();
            if daemon.pid().is_some() {
                // Long enough alive: the next death starts from a short wait again.
                let mut backoff = self.heal_backoff.borrow_mut();
                if backoff.get(&volume.name).is_some_and(|(at, wait)| now > *at + *wait * 2) {
                    backoff.remove(&volume.name);
                }
                continue;
            }
            let wait = match self.heal_backoff.borrow().get(&volume.name) {
                Some((at, _)) if now < *at => continue,
                Some((_, wait)) => (*wait * 2).min(MAX_BACKOFF),
                None => WATCH_EVERY,
            };
            self.heal_backoff.borrow_mut().insert(volume.name.clone(), (now + wait, wait));
            match daemon.start().await {
                Ok(pid) => tracing::info!("heal service of {} runs: pid {pid}", volume.name),
                Err(error) => tracing::error!("heal service of {}: {error}; next try in {wait:?}", volume.name),
            }
        }
        // Services of volumes that are gone.
        if let Ok(entries) = std::fs::read_dir(self.places.run.join("shd")) {
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !volumes.iter().any(|volume| volume.name == name) {
                    self.stop_heal(&name).await;
                    let _ = std::fs::remove_dir(entry.path());
                }
            }
        }
    }

    /// At the start of glusterd: every started volume's bricks that are down are started, as GlusterFS does at boot. No quorum
    /// is waited for.
    pub fn forget_starts(&self) {
        if let Err(error) = self.update_local(|local| local.started.clear()) {
            tracing::error!("{error}");
        }
    }
}

/// The process that a pid file is of, known by nothing but that file: to be stopped, not started.
fn stray(pid_file: &std::path::Path) -> Daemon {
    Daemon {
        program: program("glusterfsd"),
        arguments: Vec::new(),
        pid_file: pid_file.to_owned(),
        log_file: std::path::PathBuf::new(),
        mark: format!("-p {} ", pid_file.display()),
    }
}
