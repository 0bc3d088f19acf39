//! The graph of the moment, and its successors: what a process does when its volfile changes.
//!
//! Where only options differ that translators take while they run, they take them. Otherwise a new graph is built beside
//! the old one, and takes over when it is up. A volfile that cannot be used changes nothing but the log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use ladrillo_translator::{LocalFuture, Volfile};
use parking_lot::Mutex;

use super::spec::Source;
use crate::executor::{sleep, timeout};
use crate::graph::{Ear, Environment, Graph, Heard};

/// How long a graph may take to make durable what was written, and to take its marks back.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a new graph that is up may take to reach all bricks that the old one reaches.
const REACH_PATIENCE: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A graph that runs, and what is heard of it.
#[derive(Clone)]
pub(crate) struct Running {
    pub graph: Arc<Graph>,
    pub ear: Arc<Ear>,
}

/// Puts a new graph, which is up, in the old one's place: (old, new).
pub(crate) type Install = Box<dyn Fn(Running, Running) -> LocalFuture<'static, ()>>;

/// See the module.
pub(crate) struct Graphs {
    environment: Environment,
    /// For a mount, which has one top; the heal service's graphs have as many as there are replica sets.
    mounted: bool,
    current: Mutex<Running>,
    /// Graphs that were left and have not ended yet.
    leaving: Mutex<Vec<Arc<Graph>>>,
}

impl Graphs {
    pub fn new(environment: Environment, mounted: bool, first: Running) -> Arc<Graphs> {
        Arc::new(Graphs { environment, mounted, current: Mutex::new(first), leaving: Mutex::default() })
    }

    pub fn current(&self) -> Running {
        self.current.lock().clone()
    }

    /// Ends a graph that was left and that nobody uses any more.
    pub async fn end(&self, graph: Arc<Graph>) {
        if timeout(FINISH_TIMEOUT, graph.finish()).await.is_err() {
            tracing::warn!("the old graph did not finish in time: the rest is left for the heal service");
        }
        graph.stop();
        self.leaving.lock().retain(|leaving| !Arc::ptr_eq(leaving, &graph));
        tracing::info!("the old graph has ended");
    }

    /// Ends all graphs, those included that are still being left: files may have been written there. `false`: some bricks
    /// did not take all in time.
    pub async fn end_all(&self) -> bool {
        let graphs = self.all();
        let finished = futures::future::join_all(graphs.iter().map(|graph| graph.finish()));
        let in_time = timeout(FINISH_TIMEOUT, finished).await.is_ok();
        if !in_time {
            tracing::warn!(
                "the bricks did not take all that was under way in time: the rest is left for the heal service"
            );
        }
        graphs.iter().for_each(|graph| graph.stop());
        in_time
    }

    fn all(&self) -> Vec<Arc<Graph>> {
        let mut all = self.leaving.lock().clone();
        all.push(self.current().graph);
        all
    }

    /// `new` takes the place of the graph of the moment, which is given back.
    fn replace(&self, new: Running) -> Running {
        let old = std::mem::replace(&mut *self.current.lock(), new);
        self.leaving.lock().push(old.graph.clone());
        old
    }

    /// Takes over what the volfile's source has to say, for ever. `spec` is the volfile of the graph that runs.
    pub async fn follow(self: Arc<Self>, mut source: Source, mut spec: Bytes, install: Install) {
        let mut next = source.changed(&spec).await;
        loop {
            spec = next;
            tracing::info!("the volfile has changed");
            next = match self.successor(&spec) {
                Some(new) => {
                    let change = source.changed(&spec);
                    let ready = self.ready(new.clone());
                    match select(Box::pin(ready), Box::pin(change)).await {
                        Either::Left(((), change)) => {
                            let old = self.replace(new.clone());
                            tracing::info!("the new graph is up and takes over");
                            install(old, new).await;
                            change.await
                        }
                        Either::Right((newer, _)) => {
                            tracing::warn!("the graph of a volfile was not up before the next one came");
                            new.graph.stop();
                            newer
                        }
                    }
                }
                None => source.changed(&spec).await,
            };
        }
    }

    /// Completes when `new` is up, and reaches what the graph of the moment does: else writes under way would leave
    /// bricks behind that were there all the time.
    async fn ready(&self, new: Running) {
        new.ear.known_up().await;
        let old = self.current();
        let reached = async {
            while new.graph.not_reached_yet(&old.graph) > 0 {
                sleep(LOOK_INTERVAL).await;
            }
        };
        if timeout(REACH_PATIENCE, reached).await.is_err() {
            let bricks = new.graph.not_reached_yet(&old.graph);
            tracing::warn!(
                bricks,
                "the new graph does not reach bricks that the old one does: it is not waited for longer"
            );
        }
    }

    /// The graph for a volfile; `None` where this process cannot use it.
    fn build(&self, spec: &[u8]) -> Option<Graph> {
        let graph = match Volfile::parse(spec) {
            Ok(volfile) => Graph::build(&volfile, &self.environment).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match graph {
            Ok(graph) if self.mounted && graph.tops() > 1 => {
                tracing::error!("the new volfile has several subvolumes: this mount goes on with the old one");
                None
            }
            Ok(graph) => Some(graph),
            Err(error) => {
                tracing::error!("the new volfile cannot be used ({error}): this process goes on with the old one");
                None
            }
        }
    }

    /// The graph for a volfile, started; `None` where there is none to be had, or none needed.
    fn successor(&self, spec: &[u8]) -> Option<Running> {
        let old = self.current();
        let graph = Arc::new(self.build(spec)?);
        if old.graph.reconfigure(&graph) {
            tracing::info!("the graph stays: only options have changed");
            return None;
        }
        graph.inherit(&old.graph);
        // A mount stays with its volume: one made anew under its name is another, as for GlusterFS's mounts.
        if self.mounted
            && let Some(id) = old.graph.clients.iter().find_map(|client| client.volume_id())
        {
            graph.clients.iter().for_each(|client| client.expect_volume(id.clone()));
        }
        let ear = Ear::new();
        graph.start(&ear);
        Some(Running { graph, ear })
    }
}

impl Ear {
    /// Completes when the volume is up.
    async fn known_up(&self) {
        while self.known().await != Heard::Up {
            sleep(LOOK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use ladrillo_translator::volfile::Node;

    use super::*;
    use crate::executor::{RingRuntime, TcpConnector};

    /// A heal service's volfile of so many replica sets.
    fn volfile(sets: usize) -> Volfile {
        let mut nodes = Vec::new();
        let name = |set: usize| format!("gv0-replicate-{set}");
        for set in 0..sets {
            let clients = [0, 1, 2].map(|brick| format!("gv0-client-{}", set * 3 + brick));
            nodes.extend(clients.iter().map(|client| {
                Node::new(client.clone(), "protocol/client")
                    .option("remote-host", "127.0.0.1")
                    .option("remote-subvolume", format!("/bricks/{client}"))
            }));
            nodes.push(Node::new(name(set), "cluster/replicate").over(clients));
        }
        nodes.push(Node::new("glustershd", "debug/io-stats").over((0..sets).map(name)));
        Volfile { nodes }
    }

    fn graphs(mounted: bool) -> Arc<Graphs> {
        let environment = Environment {
            runtime: Arc::new(RingRuntime::new()),
            connector: Arc::new(TcpConnector),
            overrides: Vec::new(),
            subdir: None,
            top: None,
            permissions_are_checked: true,
        };
        let graph = Arc::new(Graph::build(&volfile(1), &environment).unwrap());
        Graphs::new(environment, mounted, Running { graph, ear: Ear::new() })
    }

    #[test]
    fn a_graph_that_was_left_is_waited_for_at_the_end_until_it_has_ended() {
        let graphs = graphs(false);
        let new = Arc::new(graphs.build(volfile(2).to_text().unwrap().as_bytes()).unwrap());
        let old = graphs.replace(Running { graph: new.clone(), ear: Ear::new() }).graph;
        let names = |graphs: &Graphs| graphs.all().iter().map(|graph| graph.tops()).collect::<Vec<_>>();
        assert_eq!(names(&graphs), [1, 2]);
        crate::executor::Executor::new().unwrap().block_on(graphs.end(old));
        assert_eq!(names(&graphs), [2]);
    }

    #[test]
    fn a_heal_service_takes_replica_sets_that_are_added_and_a_mount_takes_one_top() {
        let two = volfile(2).to_text().unwrap();
        assert_eq!(graphs(false).build(two.as_bytes()).map(|graph| graph.tops()), Some(2));
        assert!(graphs(true).build(two.as_bytes()).is_none());
        assert!(graphs(true).build(volfile(1).to_text().unwrap().as_bytes()).is_some());
    }
}
