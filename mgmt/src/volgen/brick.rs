//! The brick side.

use std::path::Path;

use ladrillo_transport::Kind;
use ladrillo_transport::kind::VIA_OPTION;

use super::graph::Graph;
use crate::option::{self, OPTIONS};
use crate::state::model::{Brick, State, Volume};

/// What a brick's graph needs of its node.
#[derive(Clone, Copy, Debug)]
pub struct BrickContext<'a> {
    /// glusterd's working directory on the node.
    pub working_directory: &'a Path,
    /// Whether glusterd was given an address to listen on: then its bricks listen on theirs alone.
    pub bind: bool,
    /// How many of the volume's bricks share the brick's file system; 0 for a brick of another node.
    pub shared_brick_count: u32,
}

/// What the brick process runs.
pub fn brick(state: &State, volume: &Volume, brick: &Brick, context: BrickContext<'_>) -> String {
    let value = |key: &str| super::value(state, volume, key);
    let is_on = |key: &str, default: bool| value(key).and_then(option::parse_bool).unwrap_or(default);
    let name = volume.name.as_str();
    let id = volume.id.to_string();
    let mut graph = Graph::default();

    let posix = graph.stack("storage/posix", name);
    posix.set("directory", &brick.path);
    posix.set("volume-id", &id);
    if is_on("features.quota", false) || is_on("features.trash", false) {
        posix.set("update-link-count-parent", "on");
    }
    posix.set("fips-mode-rchecksum", "on");
    posix.set("shared-brick-count", &context.shared_brick_count.to_string());

    if volume.bricks.iter().position(|other| other == brick).is_some_and(|index| volume.is_arbiter(index)) {
        graph.stack("features/arbiter", name);
    }
    graph
        .stack("features/trash", name)
        .set("trash-dir", ".trashcan")
        .set("brick-path", &brick.path)
        .set("trash-internal-op", "off");
    graph
        .stack("features/changelog", name)
        .set("changelog-brick", &brick.path)
        .set("changelog-dir", &format!("{}/.glusterfs/changelogs", brick.path))
        .set("changelog-notification", "off");
    graph
        .stack("features/bitrot-stub", name)
        .set("export", &brick.path)
        .set("bitrot", value("features.bitrot").unwrap_or("disable"));
    if is_on("features.acl", true) {
        graph.stack("features/access-control", name);
    }
    graph.stack("features/locks", name);
    graph.stack("features/worm", name);
    graph.stack("features/read-only", name).set("read-only", "off");
    graph.stack("features/leases", name);
    graph.stack("features/upcall", name);
    graph.stack("performance/io-threads", name);
    graph.stack("features/selinux", name);
    let stamp = context.working_directory.join("vols").join(name).join("marker.tstamp");
    graph
        .stack("features/marker", name)
        .set("volume-uuid", &id)
        .set("timestamp-file", &stamp.to_string_lossy())
        .set("quota-version", "0");
    graph.stack("features/barrier", name);
    graph
        .stack("features/index", name)
        .set("index-base", &format!("{}/.glusterfs/indices", brick.path))
        .set("xattrop-dirty-watchlist", "trusted.afr.dirty")
        .set("xattrop-pending-watchlist", &format!("trusted.afr.{name}-"));
    graph
        .stack("features/quota", name)
        .set("volume-uuid", name)
        .set("server-quota", value("features.quota").unwrap_or("off"));
    if is_on("features.tag-namespaces", false) {
        graph.stack("features/namespace", name);
    }
    if is_on("features.sdfs", false) {
        graph.stack("features/sdfs", name).set("pass-through", "false");
    }
    graph.stack_as("debug/io-stats", brick.path.clone()).set("unique-id", &brick.path).set("volume-id", &id);

    let server = graph.stack("protocol/server", name);
    server.set("transport-type", &volume.transport);
    if volume.kinds().contains(&Kind::Sdp(volume.via())) {
        server.set(VIA_OPTION, volume.via().name());
    }
    if context.bind {
        server.set("transport.socket.bind-address", &brick.host);
    }
    if let Some(family) = volume.option("transport.address-family") {
        server.set("transport.address-family", family);
    }
    server.set(&format!("auth.login.{}.allow", brick.path), &volume.username);
    server.set(&format!("auth.login.{}.password", volume.username), &volume.password);
    server.set("auth-path", &brick.path);

    let brick_marks: Vec<&str> = OPTIONS
        .iter()
        .filter(|entry| entry.translator == "debug/io-stats" && entry.key.contains("brick"))
        .filter(|entry| entry.option.starts_with('!'))
        .map(|entry| entry.key)
        .collect();
    mark(&mut graph, &value, &brick_marks);
    for key in ["auth.allow", "auth.reject"] {
        let entry = option::find(key);
        let Some(value) = value(key).or(entry.and_then(|entry| entry.written)) else { continue };
        let which = key.trim_start_matches("auth.");
        if let Some(server) = graph.nodes.last_mut() {
            server.set(&format!("auth.addr.{}.{which}", brick.path), value);
        }
    }
    graph.apply_options(value, &[]);
    graph.render()
}

/// Copies the marked options of `keys`.
fn mark<'a>(graph: &mut Graph, value: &impl Fn(&str) -> Option<&'a str>, keys: &[&str]) {
    for entry in OPTIONS.iter().filter(|entry| keys.contains(&entry.key)) {
        let Some(value) = value(entry.key).or(entry.written) else { continue };
        for node in graph.nodes.iter_mut().filter(|node| node.kind == entry.translator) {
            node.set(entry.name(), value);
        }
    }
}
