//! A brick's volfile, made into a graph of translators.
//!
//! storage/posix and what stands in `translators` do work here. The others of a stock brick volfile change nothing while
//! they are off and are passed over; one that is on is refused by name, so that nobody believes in a quota or a journal
//! that is not kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use ladrillo_translator::locks::Locks;
use ladrillo_translator::option::{Options, parse_bool};
use ladrillo_translator::volfile::{Node, Volfile};
use ladrillo_translator::{Dict, Event, Gfid, Parent, Runtime, Translator};
use ladrillo_transport::kind::VIA_OPTION;
use ladrillo_transport::{Kind, Via};
use parking_lot::RwLock;

use crate::host_names::HostNames;
use crate::server::auth::Squash;
use crate::server::groups::ManagedGroups;
use crate::storage::{Brick, Offload, Storage, StorageOptions};
use crate::translators::access_control::AccessControl;
use crate::translators::arbiter::Arbiter;
use crate::translators::index::Index;
use crate::translators::io_stats::IoStats;
use crate::translators::read_only::ReadOnly;
use crate::translators::trash::Trash;
use crate::translators::upcall::Upcall;
use crate::translators::worm::Worm;

/// The translators of a brick process.
pub struct Graph {
    top: Arc<dyn Translator>,
    /// All of them, children first.
    all: Vec<Arc<dyn Translator>>,
    locks: Option<Arc<Locks>>,
    io_stats: Option<Arc<IoStats>>,
    upcall: Option<Arc<Upcall>>,
    brick: Arc<Brick>,
    server_options: RwLock<Options>,
    squash: RwLock<Squash>,
    managed_groups: RwLock<Option<Arc<ManagedGroups>>>,
    hosts: HostNames,
    names: Vec<String>,
    volume_id: Option<Gfid>,
    up: Arc<Up>,
    /// By name: what takes changed options while it runs.
    tunable: HashMap<String, Tune>,
    /// What was passed over, for the log.
    pub passed: Vec<String>,
}

/// Takes changed options of one translator, or says why not and changes nothing.
type Tune = Box<dyn Fn(&Options) -> Result<(), String> + Send + Sync>;

/// What came of a changed volfile.
#[derive(Debug, Default)]
pub struct Reconfigured {
    /// The volumes whose changes wait for the next start.
    pub waiting: Vec<String>,
    /// Options that cannot be; of these volumes nothing has changed.
    pub errors: Vec<GraphError>,
}

#[derive(Default)]
struct Up(AtomicBool);

impl Parent for Up {
    fn child_event(&self, _: usize, event: Event) {
        match event {
            Event::Up => self.0.store(true, Ordering::Release),
            Event::Down => self.0.store(false, Ordering::Release),
            _ => {}
        }
    }
}

/// Why a volfile gives no brick.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A translator, and what is wrong with it.
    #[error("volume {name} ({kind}): {what}")]
    Node {
        /// Its name.
        name: String,
        /// Its type.
        kind: String,
        /// What is wrong.
        what: String,
    },
    /// The whole.
    #[error("brick volfile: {0}")]
    Whole(String),
}

/// Translators that are off unless this option is on.
const SWITCHED: [(&str, &[&str]); 10] = [
    ("features/marker", &["quota", "inode-quota", "xtime", "gsync-force-xtime"]),
    ("features/quota", &["server-quota"]),
    ("features/barrier", &["barrier"]),
    ("features/changelog", &["changelog", "active"]),
    ("features/bitrot-stub", &["bitrot"]),
    ("features/leases", &["leases"]),
    ("features/sdfs", &["pass-through-off"]),
    ("features/namespace", &[]),
    ("features/simple-quota", &["enabled"]),
    ("features/selinux", &[]),
];

/// Translators that only observe or schedule: nothing is lost without them.
const OBSERVERS: [&str; 3] = ["performance/io-threads", "debug/trace", "features/cdc"];

impl Graph {
    /// Builds the graph of a brick.
    ///
    /// # Errors
    /// [`GraphError`] names the volume and what is wrong with it.
    pub fn build(volfile: &Volfile, offload: Arc<dyn Offload>, runtime: Arc<dyn Runtime>) -> Result<Graph, GraphError> {
        let top = volfile.top().ok_or_else(|| GraphError::Whole("no volume in it".to_owned()))?;
        let mut server_options = Options::new();
        let mut node = top;
        let mut chain = Vec::new();
        let mut names = Vec::new();
        loop {
            chain.push(node);
            names.push(node.name.clone());
            if node.kind == "protocol/server" {
                server_options = node.options.clone();
            }
            match node.subvolumes.as_slice() {
                [] => break,
                [child] => {
                    node = volfile
                        .get(child)
                        .ok_or_else(|| GraphError::Whole(format!("subvolume {child} is not defined")))?;
                }
                _ => return Err(wrong(node, "several subvolumes: one brick per process is supported")),
            }
        }
        let bottom = chain.pop().ok_or_else(|| GraphError::Whole("no volume in it".to_owned()))?;
        if bottom.kind != "storage/posix" {
            return Err(wrong(bottom, "the lowest translator of a brick must be storage/posix"));
        }
        let options = StorageOptions::parse(&bottom.options).map_err(|e| wrong(bottom, e))?;
        let volume_id = options.volume_id;
        let storage =
            Storage::open(&bottom.name, options, offload.clone()).map_err(|e| wrong(bottom, e.to_string()))?;
        let brick = storage.brick().clone();
        let mut tunable: HashMap<String, Tune> = HashMap::new();
        let tuned = brick.clone();
        let tune = move |options: &Options| {
            if tuned.tune(StorageOptions::parse(options)?).map_err(|e| e.message.into_owned())? {
                tracing::warn!("some changed options of storage/posix wait for the next start of the brick");
            }
            Ok(())
        };
        tunable.insert(bottom.name.clone(), Box::new(tune));
        let mut current: Arc<dyn Translator> = Arc::new(storage);
        let mut all = vec![current.clone()];
        let mut locks = None;
        let mut io_stats = None;
        let mut upcall = None;
        let mut passed = Vec::new();
        for node in chain.iter().rev() {
            match node.kind.as_str() {
                "features/arbiter" => current = Arc::new(Arbiter::new(&node.name, current)),
                "features/trash" => {
                    let made = Trash::new(&node.name, &node.options, runtime.clone(), current);
                    let made = Arc::new(made.map_err(|e| wrong(node, e))?);
                    current = made.clone();
                    tunable.insert(node.name.clone(), Box::new(move |options| made.reconfigure(options)));
                }
                "debug/io-stats" => {
                    let made = IoStats::new(&node.name, &node.options, runtime.clone(), current);
                    let made = Arc::new(made.map_err(|e| wrong(node, e))?);
                    current = made.clone();
                    io_stats = Some(made.clone());
                    tunable.insert(node.name.clone(), Box::new(move |options| made.reconfigure(options)));
                }
                "features/read-only" => {
                    let made = Arc::new(ReadOnly::new(&node.name, &node.options, current).map_err(|e| wrong(node, e))?);
                    current = made.clone();
                    tunable.insert(node.name.clone(), Box::new(move |options| made.reconfigure(options)));
                }
                "features/worm" => {
                    let made = Worm::new(&node.name, &node.options, runtime.clone(), current);
                    let made = Arc::new(made.map_err(|e| wrong(node, e))?);
                    current = made.clone();
                    tunable.insert(node.name.clone(), Box::new(move |options| made.reconfigure(options)));
                }
                "features/locks" => {
                    let relevant = known(&node.options, ladrillo_translator::locks::OPTIONS);
                    let made = Locks::new(&*node.name, current, &relevant, runtime.clone())
                        .map_err(|e| wrong(node, e.to_string()))?;
                    locks = Some(made.clone());
                    current = made.clone();
                    let tune = move |options: &Options| {
                        made.reconfigure(&known(options, ladrillo_translator::locks::OPTIONS))
                            .map_err(|e| e.to_string())
                    };
                    tunable.insert(node.name.clone(), Box::new(tune));
                }
                "features/upcall" => {
                    let made = Upcall::new(&node.name, &node.options, runtime.clone(), current);
                    let made = Arc::new(made.map_err(|e| wrong(node, e))?);
                    current = made.clone();
                    upcall = Some(made.clone());
                    tunable.insert(node.name.clone(), Box::new(move |options| made.reconfigure(options)));
                }
                "features/index" => {
                    current = Arc::new(
                        Index::open(&node.name, &node.options, offload.clone(), current).map_err(|e| wrong(node, e))?,
                    );
                }
                "features/access-control" | "system/posix-acl" => {
                    current = Arc::new(AccessControl::new(&node.name, current));
                }
                "protocol/server" => check_server(node)?,
                kind if OBSERVERS.contains(&kind) => {
                    passed.push(format!("{} ({kind})", node.name));
                }
                kind => match SWITCHED.iter().find(|(name, _)| *name == kind) {
                    Some((_, switches)) => {
                        if let Some(switch) = switches.iter().find(|s| is_on(&node.options, s)) {
                            return Err(wrong(
                                node,
                                format!("option {switch} is on, which this brick does not support yet"),
                            ));
                        }
                        passed.push(format!("{} ({kind})", node.name));
                    }
                    None => return Err(wrong(node, "this brick does not know this type of translator")),
                },
            }
            if all.last().is_none_or(|last| !Arc::ptr_eq(last, &current)) {
                all.push(current.clone());
            }
        }
        let up = Arc::new(Up::default());
        let parent: Weak<dyn Parent> = Arc::downgrade(&(up.clone() as Arc<dyn Parent>));
        current.set_parent(parent, 0);
        let hosts = HostNames::default();
        hosts.take(&server_options);
        Ok(Graph {
            top: current,
            all,
            locks,
            io_stats,
            upcall,
            brick,
            squash: RwLock::new(Squash::parse(&server_options).map_err(GraphError::Whole)?),
            managed_groups: RwLock::new(ManagedGroups::parse(&server_options).map_err(GraphError::Whole)?),
            server_options: RwLock::new(server_options),
            hosts,
            names,
            volume_id,
            up,
            tunable,
            passed,
        })
    }

    /// Where fops go in.
    pub fn top(&self) -> Arc<dyn Translator> {
        self.top.clone()
    }

    /// features/locks, if it is there.
    pub fn locks(&self) -> Option<&Arc<Locks>> {
        self.locks.as_ref()
    }

    /// features/upcall, if it is there.
    pub fn upcall(&self) -> Option<&Arc<Upcall>> {
        self.upcall.as_ref()
    }

    /// Answers glusterd's XLATOR_INFO: `volume profile` and `volume top`.
    ///
    /// # Errors
    /// A sentence, where there is nothing that counts, or no such list.
    pub fn translator_info(&self, request: &Dict) -> Result<Dict, String> {
        let io_stats = self.io_stats.as_ref().ok_or("xlator-type debug/io-stats is not loaded")?;
        let path_of = |gfid: Gfid| {
            let path = self.brick.resolve(gfid).and_then(|inode| self.brick.volume_path(&inode));
            path.map_or_else(|_| format!("<gfid:{gfid}>"), |path| String::from_utf8_lossy(&path).into_owned())
        };
        io_stats.info(request, &path_of).map_err(|e| e.message.into_owned())
    }

    /// The brick beneath.
    pub fn brick(&self) -> &Arc<Brick> {
        &self.brick
    }

    /// Options of protocol/server.
    pub fn server_options(&self) -> Options {
        self.server_options.read().clone()
    }

    /// Who is made nobody.
    pub fn squash(&self) -> Squash {
        *self.squash.read()
    }

    /// `manage-gids`, if it is on.
    pub fn managed_groups(&self) -> Option<Arc<ManagedGroups>> {
        self.managed_groups.read().clone()
    }

    /// The hosts that options of protocol/server name.
    pub fn hosts(&self) -> &HostNames {
        &self.hosts
    }

    /// Takes what a new volfile changes in translators that can change while they run. One that cannot take its options
    /// keeps those it had and holds nobody else up: least of all who may come in, which is taken first.
    pub fn reconfigure(&self, old: &Volfile, new: &Volfile) -> Reconfigured {
        let mut outcome = Reconfigured::default();
        for node in new.nodes.iter().filter(|node| node.kind == "protocol/server") {
            if let Err(e) = check_server(node) {
                outcome.errors.push(e);
            }
            match Squash::parse(&node.options) {
                Ok(squash) => *self.squash.write() = squash,
                Err(e) => outcome.errors.push(wrong(node, e)),
            }
            match ManagedGroups::parse(&node.options) {
                Ok(managed) => *self.managed_groups.write() = managed,
                Err(e) => outcome.errors.push(wrong(node, e)),
            }
            self.hosts.take(&node.options);
            *self.server_options.write() = node.options.clone();
        }
        for node in &new.nodes {
            let kind = node.kind.as_str();
            if kind == "protocol/server" || OBSERVERS.contains(&kind) || old.get(&node.name) == Some(node) {
                continue;
            }
            match self.tunable.get(&node.name).map(|tune| tune(&node.options)) {
                Some(Ok(())) => {}
                Some(Err(e)) => outcome.errors.push(wrong(node, e)),
                None => outcome.waiting.push(node.name.clone()),
            }
        }
        outcome
    }

    /// Whether a client may bind to `name`: any translator of the graph, or the brick's path.
    pub fn exports(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name)
    }

    /// Whether storage is ready.
    pub fn is_up(&self) -> bool {
        self.up.0.load(Ordering::Acquire)
    }

    /// The volume's id, where the volfile says it.
    pub fn volume_id(&self) -> Option<Gfid> {
        self.volume_id
    }

    /// Starts the translators.
    pub fn start(&self) {
        for translator in &self.all {
            translator.start();
        }
    }

    /// Stops them.
    pub fn stop(&self) {
        for translator in self.all.iter().rev() {
            translator.stop();
        }
        self.up.0.store(false, Ordering::Release);
    }
}

fn wrong(node: &Node, what: impl Into<String>) -> GraphError {
    GraphError::Node { name: node.name.clone(), kind: node.kind.clone(), what: what.into() }
}

fn is_on(options: &Options, key: &str) -> bool {
    options.get(key).and_then(parse_bool).unwrap_or(false)
}

/// The options a translator of ours declares; stock volfiles carry others that mean nothing to it.
fn known(options: &Options, table: &[ladrillo_translator::option::OptionSpec]) -> Options {
    let mut known = Options::new();
    let values: HashMap<&str, &str> = options.iter().collect();
    for (key, value) in values {
        if table.iter().any(|spec| spec.is_named(key)) {
            known.set(key, value);
        }
    }
    known
}

/// What protocol/server cannot do must not be on.
fn check_server(node: &Node) -> Result<(), GraphError> {
    const TLS: &str = "transport.socket.ssl-enabled";
    if is_on(&node.options, TLS) {
        return Err(wrong(node, format!("option {TLS} is on, which this brick does not support yet")));
    }
    let via = Via::parse(node.options.get(VIA_OPTION)).map_err(|e| wrong(node, e))?;
    Kind::parse_list(node.options.get("transport-type").unwrap_or("tcp"), via).map_err(|e| wrong(node, e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translators::testing::Clock;

    #[test]
    fn one_bad_option_holds_no_other_up() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: trusted xattrs need root");
            return;
        }
        let path = std::env::temp_dir().join(format!("ladrillo-graph-{}-{}", std::process::id(), Gfid::random()));
        std::fs::create_dir_all(&path).unwrap();
        let volfile = |trash: &str, read_only: &str, server: &[(&str, &str)]| {
            let mut top = Node::new("server", "protocol/server").over(["trash"]);
            for (key, value) in server {
                top = top.option(*key, *value);
            }
            Volfile {
                nodes: vec![
                    Node::new("posix", "storage/posix").option("directory", path.to_str().unwrap()),
                    Node::new("read-only", "features/read-only").option("read-only", read_only).over(["posix"]),
                    Node::new("trash", "features/trash").option("trash-dir", trash).over(["read-only"]),
                    top,
                ],
            }
        };
        let old = volfile("bin", "off", &[]);
        let graph = Graph::build(&old, Arc::new(crate::storage::InPlace), Arc::new(Clock::now())).unwrap();
        let rules = [("root-squash", "on"), ("anonuid", "0x10"), ("auth.addr.trash.reject", "10.0.0.1")];
        let outcome = graph.reconfigure(&old, &volfile("a/b", "perhaps", &rules));
        assert_eq!(outcome.errors.len(), 2, "{outcome:?}");
        assert_eq!(graph.server_options().get("auth.addr.trash.reject"), Some("10.0.0.1"));
        assert_eq!(
            graph.squash(),
            Squash::parse(&Options::new().with("root-squash", "on").with("anonuid", "16")).unwrap()
        );
        let bad = [("anonuid", "somebody"), ("auth.addr.trash.reject", "10.0.0.2")];
        let outcome = graph.reconfigure(&old, &volfile("bin", "on", &bad));
        assert_eq!(outcome.errors.len(), 1, "{outcome:?}");
        assert_eq!(graph.server_options().get("auth.addr.trash.reject"), Some("10.0.0.2"), "it counts all the same");
        std::fs::remove_dir_all(&path).unwrap();
    }
}
