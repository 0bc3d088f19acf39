//! What `gluster` says about a volume, parsed as scripts parse it.

use std::time::Duration;

use crate::node::Node;
use crate::wait::wait_until;

/// A brick in `volume status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrickStatus {
    /// `HOST:PATH`
    pub name: String,
    /// TCP port, where it listens.
    pub port: Option<u16>,
    /// Online is `Y`.
    pub online: bool,
    /// Process id, on its own machine.
    pub pid: Option<u32>,
}

/// The bricks in `volume status VOLUME`; empty while there is no answer.
pub fn volume_status(node: &Node, volume: &str) -> Vec<BrickStatus> {
    let mut bricks = Vec::new();
    let mut name = String::new();
    for line in node.gluster(&format!("volume status {volume}")).stdout.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // A long name breaks the line: the numbers follow on the next.
        let rest = match words.as_slice() {
            ["Brick", brick, rest @ ..] => {
                name = (*brick).to_owned();
                rest
            }
            rest if !name.is_empty() => {
                if let [more, rest @ ..] = rest
                    && rest.len() == 4
                {
                    name.push_str(more);
                    rest
                } else {
                    rest
                }
            }
            _ => continue,
        };
        if let [port, _rdma, online, pid] = rest {
            bricks.push(BrickStatus {
                name: std::mem::take(&mut name),
                port: port.parse().ok(),
                online: *online == "Y",
                pid: pid.parse().ok(),
            });
        }
    }
    bricks
}

/// The `Number of entries:` of each brick in `volume heal VOLUME info`; `None` for a brick that does not answer.
pub fn heal_counts(node: &Node, volume: &str) -> Vec<Option<u64>> {
    let text = node.gluster(&format!("volume heal {volume} info")).stdout;
    text.lines().filter_map(|l| l.strip_prefix("Number of entries: ")).map(|n| n.trim().parse().ok()).collect()
}

/// Waits until every one of `bricks` bricks answers that nothing is left to heal.
///
/// # Panics
/// When that is not so within `limit`.
pub fn wait_until_healed(node: &Node, volume: &str, bricks: usize, limit: Duration) {
    let healed = wait_until(limit, || {
        let counts = heal_counts(node, volume);
        counts.len() == bricks && counts.iter().all(|c| *c == Some(0))
    });
    assert!(healed, "not healed within {limit:?}: {}", node.gluster(&format!("volume heal {volume} info")));
}
