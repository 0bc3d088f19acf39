//! The thread of an open volume, and how calls reach it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{Either, select};
use ladrillo_translator::error::errno;
use ladrillo_translator::{Context, FdId, Fop, FopError, FopResult, Translator, Volfile};
use parking_lot::Mutex;

use super::error::{Error, Result};
use super::gate::Gate;
use super::volume::Identity;
use crate::executor::{AnyConnector, Executor, Handle, RingRuntime, sleep, spawn, timeout, wall_clock};
use crate::front::handle::abandoned::AbandonedWaits;
use crate::graph::{Ear, Environment, Graph, Heard};
use crate::process::graphs::{Graphs, Install, Running};
use crate::process::spec::{self, Servers};
use crate::switch::Switch;

/// Most operations of one volume under way at once; further ones wait. Waits for locks are counted apart.
pub const MAX_CALLS: usize = 256;
/// Most waits for locks under way at once; further ones fail with ENOLCK.
const MAX_LOCK_WAITS: usize = 4096;

/// Where a volume's volfile comes from.
pub(super) enum Source {
    /// These management daemons.
    Servers(Servers),
    /// The caller.
    Text(Bytes),
}

/// What [`start`] needs.
pub(super) struct Plan {
    pub(super) source: Source,
    pub(super) overrides: Vec<(String, String, String)>,
    pub(super) subdir: Option<String>,
    /// How long bricks may take to be reached.
    pub(super) patience: Duration,
}

/// An open volume's thread. It ends when the last handle of the volume is dropped.
pub(super) struct Worker {
    handle: Handle,
    /// Over the graph of the moment.
    top: Arc<Switch>,
    pub(super) name: String,
    read_only: AtomicBool,
    calls: Arc<Gate>,
    lock_waits: Arc<Gate>,
    last_fd: AtomicU64,
    /// Waits for locks whose futures were dropped and that are not settled yet.
    pub(super) abandoned: Arc<AbandonedWaits>,
    /// Dropped, or told, it ends the thread.
    stop: Mutex<Option<oneshot::Sender<oneshot::Sender<bool>>>>,
}

/// What runs on the volume's thread has of it.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) worker: Arc<Worker>,
    pub(super) context: Context,
}

type Opened = std::result::Result<Arc<Worker>, Error>;

/// Starts a thread and opens a volume on it.
pub(super) async fn start(plan: Plan) -> Result<Arc<Worker>> {
    let (answer, opened) = oneshot::channel();
    let thread = std::thread::Builder::new().name("volume".into());
    thread
        .spawn(move || match Executor::new() {
            Ok(executor) => {
                let handle = executor.handle();
                executor.block_on(run(plan, handle, answer));
            }
            Err(error) => {
                let _ = answer.send(Err(Error::new(error.raw_os_error().unwrap_or(errno::EIO), error.to_string())));
            }
        })
        .map_err(|error| Error::new(error.raw_os_error().unwrap_or(errno::EAGAIN), format!("no thread: {error}")))?;
    opened.await.unwrap_or_else(|_| Err(Error::new(errno::EIO, "the volume's thread has ended")))
}

async fn run(plan: Plan, handle: Handle, mut answer: oneshot::Sender<Opened>) {
    let (stop, stopped) = oneshot::channel();
    let opened = match select(Box::pin(open(plan, handle, stop)), answer.cancellation()).await {
        Either::Left((opened, _)) => opened,
        Either::Right(_) => return, // nobody waits for it any more
    };
    let graphs = match opened {
        Ok(Open { worker, graphs, servers }) => {
            if let Some((servers, spec)) = servers {
                let install = installer(&worker, &graphs);
                spawn(graphs.clone().follow(spec::Source::Servers(servers), spec, install));
            }
            // Should nobody want it, it is dropped here, which ends the wait below.
            let _ = answer.send(Ok(worker));
            graphs
        }
        Err(error) => {
            let _ = answer.send(Err(error));
            return;
        }
    };
    let asked = stopped.await.ok();
    let finished = graphs.end_all().await;
    if let Some(asked) = asked {
        let _ = asked.send(finished);
    }
}

/// What [`open`] has made.
struct Open {
    worker: Arc<Worker>,
    graphs: Arc<Graphs>,
    /// Who says when the volfile, which this was, changes.
    servers: Option<(Servers, Bytes)>,
}

/// What is to be done when the volume's graph changes. It does not keep the volume open.
fn installer(worker: &Arc<Worker>, graphs: &Arc<Graphs>) -> Install {
    let (worker, graphs) = (Arc::downgrade(worker), graphs.clone());
    Box::new(move |old, new| {
        let (worker, graphs) = (worker.clone(), graphs.clone());
        Box::pin(async move {
            let Some(worker) = worker.upgrade() else { return };
            worker.read_only.store(new.graph.read_only, Ordering::Release);
            worker.top.set_strict_locks(new.graph.clients.iter().any(|client| client.has_strict_locks()));
            let left = worker.top.switch(new.graph.top.clone()).await;
            spawn(async move {
                left.done().await;
                graphs.end(old.graph).await;
            });
        })
    })
}

/// Ends a graph that is not to be used, however its opening ends.
struct StopGuard(Option<Graph>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        if let Some(graph) = &self.0 {
            graph.stop();
        }
    }
}

async fn open(plan: Plan, handle: Handle, stop: oneshot::Sender<oneshot::Sender<bool>>) -> Result<Open> {
    let (spec, servers) = match plan.source {
        Source::Text(text) => (text, None),
        Source::Servers(mut servers) => {
            let fetched = servers.fetch(1).await;
            (fetched.map_err(|error| Error::new(errno::ENOTCONN, error.to_string()))?, Some(servers))
        }
    };
    let bad = |reason: String| Error::new(errno::EINVAL, reason);
    let volfile = Volfile::parse(&spec).map_err(|error| bad(format!("the volfile cannot be used: {error}")))?;
    let runtime = Arc::new(RingRuntime::new());
    let environment = Environment {
        runtime: runtime.clone(),
        connector: Arc::new(AnyConnector),
        overrides: plan.overrides,
        subdir: plan.subdir,
        top: None,
        permissions_are_checked: false,
    };
    let graph = Graph::build(&volfile, &environment).map_err(|error| bad(error.to_string()))?;
    if graph.tops() > 1 {
        return Err(bad(format!("volume '{}' has several subvolumes: it cannot be opened", graph.name)));
    }
    let ear = Ear::new();
    graph.start(&ear);
    let mut guard = StopGuard(Some(graph));
    // A brick that is away has been heard of at once, and may still come: known is what all of them said.
    let heard = timeout(plan.patience, ear.known()).await.unwrap_or(ear.heard());
    let Some(graph) = guard.0.take_if(|_| heard == Heard::Up) else {
        let name = guard.0.as_ref().map_or_else(String::new, |graph| graph.name.clone());
        let reason = format!("volume '{name}': no brick (or no quorum of bricks) can be reached");
        // Connections that are being made are given up on this thread.
        drop(guard);
        sleep(Duration::ZERO).await;
        return Err(Error::new(errno::ENOTCONN, reason));
    };
    let worker = Arc::new(Worker {
        handle,
        top: Switch::new(graph.name.clone(), graph.top.clone(), runtime),
        name: graph.name.clone(),
        read_only: AtomicBool::new(graph.read_only),
        calls: Gate::new(MAX_CALLS),
        lock_waits: Gate::new(MAX_LOCK_WAITS),
        last_fd: AtomicU64::new(0),
        abandoned: Arc::default(),
        stop: Mutex::new(Some(stop)),
    });
    worker.top.set_strict_locks(graph.clients.iter().any(|client| client.has_strict_locks()));
    let graphs = Graphs::new(environment, true, Running { graph: Arc::new(graph), ear });
    Ok(Open { worker, graphs, servers: servers.map(|servers| (servers, spec)) })
}

impl Worker {
    /// Runs `make`'s future on the volume's thread, to its end even when the caller's is dropped.
    pub(super) async fn run<T, F, Fut>(self: &Arc<Worker>, identity: &Identity, make: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Local) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = FopResult<T>> + 'static,
    {
        self.run_or_undo(identity, make, |_, _| {}).await
    }

    /// The same; what comes out of it is given to `undo` when the caller is gone.
    pub(super) async fn run_or_undo<T, F, Fut, U>(
        self: &Arc<Worker>,
        identity: &Identity,
        make: F,
        undo: U,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Local) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = FopResult<T>> + 'static,
        U: FnOnce(&Arc<Worker>, T) + Send + 'static,
    {
        let permit = self.calls.enter().await;
        // What was found on one graph may be stale on the next, until it is looked up there by its path.
        let make = move |local: Local| async move {
            match make.clone()(local.clone()).await {
                Err(error) if error.errno == errno::ESTALE => make(local).await,
                outcome => outcome,
            }
        };
        self.start(identity.context(), permit, make, undo).await
    }

    /// The same for a wait for a lock, which may take for ever and is counted apart.
    pub(super) async fn wait<T, F, Fut, U>(self: &Arc<Worker>, context: Context, make: F, undo: U) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Local) -> Fut + Send + 'static,
        Fut: Future<Output = FopResult<T>> + 'static,
        U: FnOnce(&Arc<Worker>, T) + Send + 'static,
    {
        let too_many = || Error::new(errno::ENOLCK, format!("{MAX_LOCK_WAITS} waits for locks are under way already"));
        let permit = self.lock_waits.try_enter().ok_or_else(too_many)?;
        self.start(context, permit, make, undo).await
    }

    async fn start<T, F, Fut, U>(
        self: &Arc<Worker>,
        context: Context,
        permit: super::gate::Permit,
        make: F,
        undo: U,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Local) -> Fut + Send + 'static,
        Fut: Future<Output = FopResult<T>> + 'static,
        U: FnOnce(&Arc<Worker>, T) + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let worker = self.clone();
        self.handle.spawn(move || {
            Box::pin(async move {
                let result = make(Local { worker: worker.clone(), context }).await;
                drop(permit);
                // Undone where it is dropped: here when the caller is gone, or with the channel when it goes later.
                let _ = answer.send(result.map(|value| Delivery { worker, value: Some(value), undo: Some(undo) }));
            })
        });
        match answered.await {
            Ok(delivery) => delivery?.take().ok_or_else(Error::ended),
            Err(_) => Err(Error::ended()),
        }
    }

    /// Runs `make`'s future on the volume's thread, awaited by nobody.
    pub(super) fn detached<F, Fut>(self: &Arc<Worker>, context: Context, make: F)
    where
        F: FnOnce(Local) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let worker = self.clone();
        self.handle.spawn(move || Box::pin(make(Local { worker, context })));
    }

    /// Ends the thread, after what was written is as durable as it gets. `false`: some bricks did not take all in time.
    pub(super) async fn close(&self) -> Result<bool> {
        let stop = self.stop.lock().take().ok_or_else(Error::ended)?;
        let (answer, answered) = oneshot::channel();
        stop.send(answer).map_err(|_| Error::ended())?;
        answered.await.map_err(|_| Error::ended())
    }
}

/// What a call came to, on its way to the caller: undone if it is not taken.
struct Delivery<T, U: FnOnce(&Arc<Worker>, T)> {
    worker: Arc<Worker>,
    value: Option<T>,
    undo: Option<U>,
}

impl<T, U: FnOnce(&Arc<Worker>, T)> Delivery<T, U> {
    fn take(mut self) -> Option<T> {
        self.value.take()
    }
}

impl<T, U: FnOnce(&Arc<Worker>, T)> Drop for Delivery<T, U> {
    fn drop(&mut self) {
        if let (Some(value), Some(undo)) = (self.value.take(), self.undo.take()) {
            undo(&self.worker, value);
        }
    }
}

impl Local {
    /// A fop of the caller's.
    pub(super) async fn submit(&self, fop: Fop) -> FopResult {
        self.worker.top.submit(&self.context, fop).await
    }

    /// A fresh number for an open file or directory.
    pub(super) fn fresh_fd(&self) -> FdId {
        FdId(self.worker.last_fd.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Refuses a change where nothing may be changed.
    pub(super) fn writable(&self) -> FopResult<()> {
        match self.worker.read_only.load(Ordering::Acquire) {
            true => Err(FopError::new(errno::EROFS, format!("volume '{}' is read-only", self.worker.name))),
            false => Ok(()),
        }
    }
}

impl Identity {
    /// The caller of fops.
    pub(super) fn context(&self) -> Context {
        Context {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            birth: wall_clock(),
            ..Context::root()
        }
    }
}
