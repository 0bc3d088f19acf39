//! The client side: what a mount runs, and what the heal service runs.

use ladrillo_transport::Kind;
use ladrillo_transport::kind::VIA_OPTION;

use super::graph::Graph;
use crate::option::{self, OPTIONS};
use crate::state::model::{State, Volume};

/// How a graph's value for an option comes about: the volume's, else the pool's.
fn lookup<'a>(state: &'a State, volume: &'a Volume) -> impl Fn(&str) -> Option<&'a str> {
    move |key| super::value(state, volume, key)
}

fn is_on(value: Option<&str>, default: bool) -> bool {
    value.and_then(option::parse_bool).unwrap_or(default)
}

/// What a mount runs that reaches bricks by `kind`. `trusted` adds the credentials only the pool's own hosts get.
pub fn client(state: &State, volume: &Volume, kind: Kind, trusted: bool) -> String {
    let value = lookup(state, volume);
    let mut graph = Graph::default();
    let clusters = clusters(&mut graph, volume, kind, trusted);
    let kind = if is_on(value("cluster.nufa"), false) { "cluster/nufa" } else { "cluster/distribute" };
    graph.add(kind, format!("{}-dht", volume.name), clusters);
    if is_on(value("features.shard"), false) {
        graph.stack("features/shard", &volume.name);
    }
    if is_on(value("features.ctime"), true) {
        graph.stack("features/utime", &volume.name);
    }
    for entry in OPTIONS.iter().filter(|entry| entry.option == "!perf") {
        if is_on(value(entry.key).or(entry.written), false) {
            graph.stack(entry.translator, &volume.name);
        }
    }
    io_stats(&mut graph, &volume.name, &value);
    // A brick that resolves groups itself wants none sent; a client otherwise always sends them.
    let send_gids = if is_on(value("server.manage-gids"), false) { "false" } else { "true" };
    // A squashed user must not read through an open that was answered without asking the brick.
    let read_after_open = is_on(value("server.root-squash"), false).then_some("yes");
    graph.apply_options(
        |key| match key {
            "client.send-gids" => Some(send_gids),
            "performance.read-after-open" => read_after_open.or(value(key)),
            _ => value(key),
        },
        &[],
    );
    graph.render()
}

/// What the heal service of a volume runs.
pub fn heal(state: &State, volume: &Volume) -> String {
    let value = lookup(state, volume);
    let mut graph = Graph::default();
    let kind = volume.kinds().first().copied().unwrap_or(Kind::Tcp);
    let clusters = clusters(&mut graph, volume, kind, true);
    graph.apply_options(
        |key| {
            value(key).or(match key {
                "cluster.background-self-heal-count" => Some("0"),
                "cluster.metadata-self-heal" | "cluster.data-self-heal" | "cluster.entry-self-heal" => Some("on"),
                "cluster.self-heal-daemon" => Some("enable"),
                _ => None,
            })
        },
        &["cluster.self-heal-daemon", "cluster.heal-timeout"],
    );
    for node in graph.nodes.iter_mut().filter(|node| node.kind == "cluster/replicate") {
        node.set("iam-self-heal-daemon", "yes");
    }
    io_stats(&mut graph, &volume.name, &value);
    if let Some(top) = graph.nodes.last_mut() {
        top.subvolumes = clusters;
    }
    graph.render()
}

/// One client for each brick, and the replicate translators over them; the names of the topmost.
fn clusters(graph: &mut Graph, volume: &Volume, kind: Kind, trusted: bool) -> Vec<String> {
    for (index, brick) in volume.bricks.iter().enumerate() {
        let node = graph.add("protocol/client", format!("{}-client-{index}", volume.name), Vec::new());
        node.set("ping-timeout", "42");
        node.set("remote-host", &brick.host);
        node.set("remote-subvolume", &brick.path);
        node.set("transport-type", kind.name());
        if let Kind::Sdp(via) = kind {
            node.set(VIA_OPTION, via.name());
        }
        if let Some(family) = volume.option("transport.address-family") {
            node.set("transport.address-family", family);
        }
        if trusted {
            node.set("username", &volume.username);
            node.set("password", &volume.password);
        }
    }
    let clients: Vec<String> =
        (0..volume.bricks.len()).map(|index| format!("{}-client-{index}", volume.name)).collect();
    if !volume.is_replicated() {
        return clients;
    }
    let copies = volume.replica.max(1) as usize;
    let sets = clients.chunks(copies).zip(volume.bricks.chunks(copies));
    sets.enumerate()
        .map(|(index, (clients, bricks))| {
            let name = format!("{}-replicate-{index}", volume.name);
            let marks: Vec<&str> = bricks.iter().map(|brick| brick.id.as_str()).collect();
            graph
                .add("cluster/replicate", name.clone(), clients.to_vec())
                .set("afr-pending-xattr", &marks.join(","))
                .set("volume-id", &volume.id.to_string());
            if volume.arbiter > 0
                && let Some(node) = graph.nodes.last_mut()
            {
                node.set("arbiter-count", &volume.arbiter.to_string());
            }
            name
        })
        .collect()
}

/// The top, named as the volume.
fn io_stats<'a>(graph: &mut Graph, name: &str, value: &impl Fn(&str) -> Option<&'a str>) {
    let node = graph.stack_as("debug/io-stats", name.to_owned());
    for entry in OPTIONS.iter().filter(|entry| entry.translator == "debug/io-stats") {
        // Those with a mark that are the client's by name; the rest are copied with all others.
        if entry.option.starts_with('!')
            && entry.key.contains("client")
            && let Some(value) = value(entry.key).or(entry.written)
        {
            node.set(entry.name(), value);
        }
    }
}
