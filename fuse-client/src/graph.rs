//! From a volfile to a running graph of translators.
//!
//! `protocol/client`, `cluster/replicate`, `cluster/distribute` and `performance/open-behind` are translators here. What stock volfiles have above them for speed and
//! statistics (the other `performance/*`, `debug/io-stats`, `features/utime`) needs no node of its own: its options are accepted
//! and its parent talks to its child directly (times are stamped by the front end, in the context's `birth`). What would
//! change the meaning of data or of errors and is not there yet is refused by name.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ladrillo_translator::volfile::Node;
use ladrillo_translator::{Event, OptionError, Options, Parent, Runtime, Translator, Volfile};
use ladrillo_transport::Connector;
use parking_lot::Mutex;

use crate::translators::client::Client;
use crate::translators::distribute::Distribute;
use crate::translators::meta::Meta;
use crate::translators::open_behind::OpenBehind;
use crate::translators::replicate::Replicate;

/// Translators that change neither data nor errors: a graph without them means the same.
const PASS_THROUGH: [&str; 15] = [
    "debug/io-stats",
    "debug/trace",
    "features/utime",
    "features/upcall",
    "meta",
    "performance/io-cache",
    "performance/io-threads",
    "performance/md-cache",
    "performance/nl-cache",
    "performance/quick-read",
    "performance/read-ahead",
    "performance/readdir-ahead",
    "performance/stat-prefetch",
    "performance/symlink-cache",
    "performance/write-behind",
];

/// What translators get from the process.
pub struct Environment {
    /// Clock and spawner.
    pub runtime: Arc<dyn Runtime>,
    /// Makes connections.
    pub connector: Arc<dyn Connector>,
    /// `--xlator-option`: translator name or glob (`*replicate*`), option, value.
    pub overrides: Vec<(String, String, String)>,
    /// `--subdir-mount`: the directory bricks present as the root.
    pub subdir: Option<String>,
    /// `--volume-name`: the top, instead of the volfile's last volume.
    pub top: Option<String>,
    /// Permissions are checked before fops come: an open may be answered before a brick has seen it.
    pub permissions_are_checked: bool,
}

/// Why there is no graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// An option's value.
    #[error("volume '{volume}': {error}")]
    Option {
        /// The translator's name.
        volume: String,
        /// What is wrong.
        error: OptionError,
    },
    /// A type this program does not have.
    #[error("volume '{volume}': type '{kind}' is {why}")]
    Unsupported {
        /// The translator's name.
        volume: String,
        /// Its type.
        kind: String,
        /// `unknown`, or why not.
        why: &'static str,
    },
    /// The graph does not hold together.
    #[error("volume '{volume}': {message}")]
    Shape {
        /// The translator's name.
        volume: String,
        /// What is wrong.
        message: String,
    },
}

/// A graph.
pub struct Graph {
    /// Where fops enter.
    pub top: Arc<dyn Translator>,
    /// Name of the top as the volfile has it (the volume's, for clients).
    pub name: String,
    /// All `cluster/distribute` in it that have several subvolumes.
    pub distributes: Vec<Arc<Distribute>>,
    /// All `cluster/replicate` in it.
    pub replicates: Vec<Arc<Replicate>>,
    /// The bricks (`remote-host`, `remote-subvolume`) of each of `replicates`, in the order of its children; `None`
    /// where a child is no brick.
    pub bricks: Vec<Vec<Option<(String, String)>>>,
    /// All `protocol/client` in it.
    pub clients: Vec<Arc<Client>>,
    /// A `features/read-only` is in it.
    pub read_only: bool,
    /// Those with a node of their own, children first.
    translators: Vec<Arc<dyn Translator>>,
    /// What they were made of, in the same order.
    made_of: Mutex<Vec<MadeOf>>,
    /// Tops: several only in glustershd's volfiles of many volumes.
    tops: Vec<Arc<dyn Translator>>,
}

impl Graph {
    /// Builds a graph, and does not start it.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub fn build(volfile: &Volfile, environment: &Environment) -> Result<Graph, GraphError> {
        let last = match &environment.top {
            Some(name) => volfile.get(name).ok_or_else(|| shape(name, "is not in the volfile"))?,
            None => volfile.top().ok_or_else(|| shape("", "the volfile is empty"))?,
        };
        let number = GRAPHS.fetch_add(1, Ordering::Relaxed);
        let mut builder = Builder { environment, volfile, number, built: HashMap::new(), graph: Parts::default() };
        for node in &volfile.nodes {
            builder.add(node)?;
        }
        let tops = builder.built.remove(&last.name).unwrap_or_default();
        let Some(top) = tops.first().cloned() else {
            return Err(shape(&last.name, "has nothing below it that stores anything"));
        };
        let Parts { distributes, replicates, bricks, clients, translators, made_of, read_only } = builder.graph;
        // Of several, as the heal service has them, none is mounted.
        let top: Arc<dyn Translator> = match tops.len() {
            1 => Meta::over(top, volfile, &translators, environment.runtime.clone()),
            _ => top,
        };
        let (name, made_of) = (last.name.clone(), Mutex::new(made_of));
        Ok(Graph { top, name, distributes, replicates, bricks, clients, read_only, translators, made_of, tops })
    }

    /// Takes over what another volfile, from which `new` was built, says differently, if all that differs is options that
    /// translators take while they run. `false`: `new` is to take this graph's place.
    pub fn reconfigure(&self, new: &Graph) -> bool {
        let (mut ours, theirs) = (self.made_of.lock(), new.made_of.lock());
        let same_shape = self.read_only == new.read_only
            && ours.len() == theirs.len()
            && ours.iter().zip(&*theirs).all(|(old, new)| old.is_same_shape(new));
        if !same_shape {
            return false;
        }
        for ((translator, old), new) in self.translators.iter().zip(&mut *ours).zip(&*theirs) {
            if old.options == new.options {
                continue;
            }
            match translator.reconfigure(&new.options) {
                Ok(true) => {
                    tracing::info!(translator = translator.name(), "options taken over");
                    old.options = new.options.clone();
                }
                Ok(false) => return false,
                Err(error) => {
                    tracing::warn!(translator = translator.name(), %error, "options not taken over");
                    return false;
                }
            }
        }
        true
    }

    /// Joins the sessions that `old` has with the same bricks: to be called before [`Graph::start`].
    pub fn inherit(&self, old: &Graph) {
        for client in &self.clients {
            if let Some(old) = old.clients.iter().find(|old| old.brick() == client.brick()) {
                client.inherit(old);
            }
        }
    }

    /// Bricks to which `old` has a session at the moment, and this graph, which has them too, has none (yet).
    pub fn not_reached_yet(&self, old: &Graph) -> usize {
        let lacks = |old: &&Arc<Client>| {
            old.is_connected()
                && self.clients.iter().any(|client| client.brick() == old.brick() && !client.is_connected())
        };
        old.clients.iter().filter(lacks).count()
    }

    /// Says who hears the top's events, and starts all translators, children first. On an executor's thread.
    pub fn start(&self, parent: &Arc<impl Parent + 'static>) {
        for (index, top) in self.tops.iter().enumerate() {
            let weak: Weak<dyn Parent> = Arc::downgrade(&(parent.clone() as Arc<dyn Parent>));
            top.set_parent(weak, index);
        }
        for translator in &self.translators {
            translator.start();
        }
    }

    /// Waits for what is under way in the graph to end, writes' marks included. [`Graph::stop`] cuts what is left.
    pub async fn finish(&self) {
        futures::future::join_all(self.distributes.iter().map(Distribute::finish)).await;
        futures::future::join_all(self.replicates.iter().map(Replicate::finish)).await;
    }

    /// Ends all translators, parents first.
    pub fn stop(&self) {
        for translator in self.translators.iter().rev() {
            translator.stop();
        }
    }

    /// What its translators hold, in the form of GlusterFS's state dumps.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for (translator, made_of) in self.translators.iter().zip(&*self.made_of.lock()) {
            let kind = made_of.kind.replace('/', ".");
            text += &format!("\n[xlator.{kind}.{}.priv]\n", translator.name());
            for (name, value) in translator.state() {
                text += &format!("{name}={value}\n");
            }
        }
        text
    }

    /// How many tops there are.
    pub fn tops(&self) -> usize {
        self.tops.len()
    }
}

fn shape(volume: &str, message: impl Into<String>) -> GraphError {
    GraphError::Shape { volume: volume.to_owned(), message: message.into() }
}

#[derive(Default)]
struct Parts {
    distributes: Vec<Arc<Distribute>>,
    replicates: Vec<Arc<Replicate>>,
    bricks: Vec<Vec<Option<(String, String)>>>,
    clients: Vec<Arc<Client>>,
    translators: Vec<Arc<dyn Translator>>,
    made_of: Vec<MadeOf>,
    read_only: bool,
}

/// A volume of the volfile for which there is a translator.
#[derive(Clone, Debug)]
struct MadeOf {
    name: String,
    kind: String,
    options: Options,
    children: Vec<String>,
}

impl MadeOf {
    fn is_same_shape(&self, other: &MadeOf) -> bool {
        (&self.name, &self.kind, &self.children) == (&other.name, &other.kind, &other.children)
    }
}

/// Counts the graphs of this process: bricks tell sessions apart by it.
static GRAPHS: AtomicU64 = AtomicU64::new(0);

struct Builder<'a> {
    environment: &'a Environment,
    volfile: &'a Volfile,
    number: u64,
    /// What stands for each volume of the volfile: itself, or its children's where it needs no node.
    built: HashMap<String, Vec<Arc<dyn Translator>>>,
    graph: Parts,
}

impl Builder<'_> {
    /// The brick behind a `protocol/client`.
    fn brick(&self, name: &str) -> Option<(String, String)> {
        let options = &self.volfile.get(name).filter(|node| node.kind == "protocol/client")?.options;
        Some((options.get("remote-host")?.to_owned(), options.get("remote-subvolume")?.to_owned()))
    }

    fn add(&mut self, node: &Node) -> Result<(), GraphError> {
        let mut options = node.options.clone();
        for (pattern, key, value) in &self.environment.overrides {
            if glob(pattern, &node.name) {
                options.set(key.clone(), value.clone());
            }
        }
        let children: Vec<Arc<dyn Translator>> = node
            .subvolumes
            .iter()
            .flat_map(|name| self.built.get(name).map(Vec::as_slice).unwrap_or_default())
            .cloned()
            .collect();
        let made_before = self.graph.translators.len();
        let children_names = children.iter().map(|child| child.name().to_owned()).collect();
        let unsupported = |why| GraphError::Unsupported { volume: node.name.clone(), kind: node.kind.clone(), why };
        let option = |error| GraphError::Option { volume: node.name.clone(), error };
        let runtime = self.environment.runtime.clone();
        let stands: Vec<Arc<dyn Translator>> = match node.kind.as_str() {
            "protocol/client" => {
                if let Some(subdir) = &self.environment.subdir {
                    options.set("subdir-mount", subdir.clone());
                }
                options.set("graph-id", self.number.to_string());
                let connector = self.environment.connector.clone();
                let client = Client::new(&node.name, &options, runtime, connector).map_err(option)?;
                self.graph.clients.push(client.clone());
                self.graph.translators.push(client.clone());
                vec![client]
            }
            "cluster/replicate" | "cluster/afr" => {
                if children.is_empty() {
                    return Err(shape(&node.name, "has no subvolumes"));
                }
                let parent_of = children.clone();
                let strict = |name: &String| self.volfile.get(name).and_then(|node| node.options.get("strict-locks"));
                if let Some(strict) = node.subvolumes.iter().find_map(strict) {
                    options.set("strict-locks", strict.to_owned());
                }
                let replicate = Replicate::new(&node.name, children, &options, runtime).map_err(option)?;
                for (index, child) in parent_of.iter().enumerate() {
                    let weak: Weak<dyn Parent> = Arc::downgrade(&(replicate.clone() as Arc<dyn Parent>));
                    child.set_parent(weak, index);
                }
                self.graph.replicates.push(replicate.clone());
                self.graph.bricks.push(node.subvolumes.iter().map(|name| self.brick(name)).collect());
                self.graph.translators.push(replicate.clone());
                vec![replicate]
            }
            "cluster/distribute" | "cluster/dht" => match children.len() {
                0 => return Err(shape(&node.name, "has no subvolumes")),
                1 => children,
                _ => {
                    let parent_of = children.clone();
                    let distribute = Distribute::new(&node.name, children, &options, runtime).map_err(option)?;
                    for (index, child) in parent_of.iter().enumerate() {
                        let weak: Weak<dyn Parent> = Arc::downgrade(&(distribute.clone() as Arc<dyn Parent>));
                        child.set_parent(weak, index);
                    }
                    self.graph.distributes.push(distribute.clone());
                    self.graph.translators.push(distribute.clone());
                    vec![distribute]
                }
            },
            "cluster/nufa" | "cluster/switch" => match children.len() {
                1 => children,
                _ => return Err(unsupported("not supported yet with more than one subvolume")),
            },
            "features/read-only" => {
                self.graph.read_only = true;
                children
            }
            "performance/open-behind" => match children.as_slice() {
                [below] if self.environment.permissions_are_checked => {
                    let translator = OpenBehind::new(&node.name, below.clone(), &options, runtime).map_err(option)?;
                    self.graph.translators.push(translator.clone());
                    vec![translator]
                }
                [] => return Err(shape(&node.name, "has no subvolumes")),
                _ => children,
            },
            kind if PASS_THROUGH.contains(&kind) => {
                // Several below one only where nothing passes through: the top of glustershd's volfile.
                if children.is_empty() {
                    return Err(shape(&node.name, "has no subvolumes"));
                }
                children
            }
            "cluster/disperse"
            | "cluster/stripe"
            | "features/shard"
            | "features/worm"
            | "features/snapview-client"
            | "features/quiesce"
            | "features/cloudsync"
            | "encryption/crypt"
            | "features/thin-arbiter"
            | "features/gfid-access"
            | "system/posix-acl"
            | "features/selinux"
            | "features/namespace" => {
                return Err(unsupported("not supported yet"));
            }
            kind if kind.starts_with("storage/") || kind.starts_with("protocol/") => {
                return Err(unsupported("no translator of clients"));
            }
            _ => return Err(unsupported("unknown")),
        };
        if self.graph.translators.len() > made_before {
            options.remove("graph-id");
            let (name, kind) = (node.name.clone(), node.kind.clone());
            self.graph.made_of.push(MadeOf { name, kind, options, children: children_names });
        }
        self.built.insert(node.name.clone(), stands);
        Ok(())
    }
}

/// Whether `name` matches `pattern`, in which `*` stands for any text (`--xlator-option *replicate*.key=value`).
fn glob(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(first) = pieces.next() else { return false };
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

/// The top of a graph's ear: what state it is in, and who wants to know.
#[derive(Default)]
pub struct Ear {
    state: Mutex<EarState>,
}

type Listener = Box<dyn Fn(&Event) + Send + Sync>;

#[derive(Default)]
struct EarState {
    /// The tops that are up.
    up: BTreeSet<usize>,
    heard: Heard,
    waiting: Vec<std::task::Waker>,
    listeners: Vec<Listener>,
}

/// What was heard of the volume first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet.
    #[default]
    Nothing,
    /// It tries to connect.
    Connecting,
    /// Ready.
    Up,
    /// Its bricks do not answer.
    Down,
}

impl Ear {
    /// Deaf so far.
    pub fn new() -> Arc<Ear> {
        Arc::default()
    }

    /// `listener` hears every event from now on; it must not block.
    pub fn listen(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.state.lock().listeners.push(Box::new(listener));
    }

    /// Whether the volume is up: one of its tops, where there are several.
    pub fn is_up(&self) -> bool {
        !self.state.lock().up.is_empty()
    }

    /// What was heard last.
    pub fn heard(&self) -> Heard {
        self.state.lock().heard
    }

    /// Completes when anything was heard.
    pub async fn anything(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.heard != Heard::Nothing {
                return std::task::Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }

    /// Completes when it is up, or known to be down.
    pub async fn known(&self) -> Heard {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            match state.heard {
                Heard::Up | Heard::Down => std::task::Poll::Ready(state.heard),
                Heard::Nothing | Heard::Connecting => {
                    state.waiting.push(cx.waker().clone());
                    std::task::Poll::Pending
                }
            }
        })
        .await
    }
}

impl Parent for Ear {
    fn child_event(&self, child_index: usize, event: Event) {
        let waiting = {
            let mut state = self.state.lock();
            match &event {
                Event::Up => {
                    state.up.insert(child_index);
                    state.heard = Heard::Up;
                }
                Event::Down => {
                    state.up.remove(&child_index);
                    // The heal service's graph of many volumes is of use as long as one of them is up.
                    if state.up.is_empty() {
                        state.heard = Heard::Down;
                    }
                }
                Event::Connecting if state.heard == Heard::Nothing => state.heard = Heard::Connecting,
                _ => {}
            }
            for listener in &state.listeners {
                listener(&event);
            }
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{RingRuntime, TcpConnector};

    fn environment() -> Environment {
        Environment {
            runtime: Arc::new(RingRuntime::new()),
            connector: Arc::new(TcpConnector),
            overrides: Vec::new(),
            subdir: None,
            top: None,
            permissions_are_checked: true,
        }
    }

    fn client(name: &str) -> Node {
        Node::new(name, "protocol/client")
            .option("remote-host", "127.0.0.1")
            .option("remote-port", "49152")
            .option("remote-subvolume", "/brick")
    }

    fn build(nodes: Vec<Node>) -> Result<Graph, GraphError> {
        Graph::build(&Volfile { nodes }, &environment())
    }

    #[test]
    fn one_top_that_is_down_does_not_hide_another_that_is_up() {
        let ear = Ear::new();
        ear.child_event(0, Event::Up);
        ear.child_event(1, Event::Down);
        assert!(ear.is_up() && ear.heard() == Heard::Up);
        ear.child_event(0, Event::Down);
        assert!(!ear.is_up() && ear.heard() == Heard::Down);
    }

    #[test]
    fn a_stock_graph_is_built() {
        let graph = build(vec![
            client("gv0-client-0"),
            client("gv0-client-1"),
            client("gv0-client-2"),
            Node::new("gv0-replicate-0", "cluster/replicate").over(["gv0-client-0", "gv0-client-1", "gv0-client-2"]),
            Node::new("gv0-dht", "cluster/distribute").over(["gv0-replicate-0"]),
            Node::new("gv0-utime", "features/utime").over(["gv0-dht"]),
            Node::new("gv0-write-behind", "performance/write-behind").over(["gv0-utime"]),
            Node::new("gv0", "debug/io-stats").over(["gv0-write-behind"]),
        ])
        .unwrap();
        assert_eq!((graph.name.as_str(), graph.top.name(), graph.clients.len()), ("gv0", "gv0-replicate-0", 3));
        assert_eq!((graph.translators.len(), graph.tops()), (4, 1));
    }

    #[test]
    fn distribute_stands_over_several() {
        let over = |option: (&str, &str)| {
            vec![
                client("a"),
                client("b"),
                Node::new("d", "cluster/distribute").option(option.0, option.1).over(["a", "b"]),
            ]
        };
        let graph = build(over(("lookup-optimize", "off"))).unwrap();
        assert_eq!((graph.top.name(), graph.distributes.len(), graph.distributes[0].children().len()), ("d", 1, 2));
        let error = build(over(("min-free-disk", "much"))).err().unwrap().to_string();
        assert!(error.contains("'d'") && error.contains("min-free-disk"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let two = || vec![client("a"), client("b"), Node::new("d", "cluster/nufa").over(["a", "b"])];
        let error = build(two()).err().unwrap().to_string();
        assert!(error.contains("'d'") && error.contains("more than one subvolume"), "{error}");
        let error = build(vec![client("a"), Node::new("x", "features/shard").over(["a"])]).err().unwrap().to_string();
        assert!(error.contains("features/shard") && error.contains("not supported yet"), "{error}");
        let error = build(vec![client("a"), Node::new("x", "no/such").over(["a"])]).err().unwrap().to_string();
        assert!(error.contains("'no/such' is unknown"), "{error}");
        let error = build(vec![Node::new("a", "protocol/client")]).err().unwrap().to_string();
        assert!(error.contains("'a'"), "{error}");
        assert!(build(vec![Node::new("x", "debug/io-stats")]).is_err());
        assert!(build(Vec::new()).is_err());
    }

    #[test]
    fn globs_match() {
        for (pattern, name, matches) in [
            ("gv0-client-0", "gv0-client-0", true),
            ("gv0-client-0", "gv0-client-01", false),
            ("*replicate*", "gv0-replicate-0", true),
            ("*replicate*", "gv0-client-0", false),
            ("gv0*0", "gv0-client-0", true),
            ("gv0*1", "gv0-client-0", false),
            ("*", "x", true),
        ] {
            assert_eq!(glob(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn the_ear_knows_the_state() {
        let ear = Ear::new();
        assert_eq!(ear.heard(), Heard::Nothing);
        ear.child_event(0, Event::Connecting);
        assert!(!ear.is_up());
        ear.child_event(0, Event::Up);
        assert_eq!(futures::FutureExt::now_or_never(ear.known()), Some(Heard::Up));
        ear.child_event(0, Event::Down);
        assert!(!ear.is_up());
    }
}
