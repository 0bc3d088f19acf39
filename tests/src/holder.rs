//! An application that has files open and locked while the volume below it changes.

use crate::Node;

/// Whether the lock on `path` is somebody else's.
pub fn is_locked(node: &Node, path: &str) -> bool {
    !node.sh(&format!("flock -n {path} true")).ok()
}

/// A shell that has `directory`/f open and locked, and u as well, after `rm` to be read to its end; it goes on when
/// `directory`/finish is there.
pub fn holder(directory: &str, rm: &str) -> String {
    format!(
        "set -e; cd {directory}; exec 9<>f; flock -x 9; echo kept > u; exec 8<>u; {rm}; echo first >&9; touch held; \
         for i in $(seq 300); do [ -e finish ] && break; sleep 0.2; done; echo last >&9; cat <&8; flock -u 9"
    )
}
