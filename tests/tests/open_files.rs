//! The promise: what applications have open and locked outlives bricks that are restarted one after the other, and
//! volumes whose options change.

use std::thread::sleep;
use std::time::Duration;

use ladrillo_tests::{Cluster, Node, Programs, wait_until};

/// Whether the lock on `path` is somebody else's.
fn is_locked(node: &Node, path: &str) -> bool {
    !node.sh(&format!("flock -n {path} true")).ok()
}

/// A shell that has `directory`/f open and locked, and u as well, after `rm` to be read to its end; it goes on when
/// `directory`/finish is there.
fn holder(directory: &str, rm: &str) -> String {
    format!(
        "set -e; cd {directory}; exec 9<>f; flock -x 9; echo kept > u; exec 8<>u; {rm}; echo first >&9; touch held; \
         for i in $(seq 300); do [ -e finish ] && break; sleep 0.2; done; echo last >&9; cat <&8; flock -u 9"
    )
}

#[test]
fn locks_outlive_a_rolling_restart_and_a_changed_option() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let (here, there) = (cluster.node(1), cluster.node(2));
    let holding = there.spawn(&holder("/mnt/gv0", "true"));
    assert!(wait_until(Duration::from_secs(20), || here.sh("test -e /mnt/gv0/held").ok()));
    for victim in 1..=3 {
        cluster.kill_brick("gv0", victim);
        assert!(is_locked(here, "/mnt/gv0/f"), "without brick {victim}");
        here.gluster("volume start gv0 force").must();
        cluster.wait_online("gv0", 3);
        // Both mounts are connected again, and the lock is taken on the brick.
        sleep(Duration::from_secs(6));
    }
    assert!(is_locked(here, "/mnt/gv0/f"), "after all bricks were restarted");
    here.gluster("volume set gv0 network.ping-timeout 30").must();
    sleep(Duration::from_secs(1));
    assert!(is_locked(here, "/mnt/gv0/f"), "after an option changed");
    here.sh("touch /mnt/gv0/finish").must();
    assert_eq!(holding.finish(Duration::from_secs(60)).must().stdout, "kept\n");
    // The kernel may believe the size it saw a moment ago (attribute-timeout).
    sleep(Duration::from_secs(2));
    assert_eq!(here.sh("cat /mnt/gv0/f; flock -n /mnt/gv0/f echo free").must().stdout, "first\nlast\nfree\n");
}

/// A brick more makes another graph: on Debian's GlusterFS 10.3, as it is how stock volumes grow.
#[test]
fn open_files_and_locks_go_over_to_the_graph_of_a_volume_that_grew() {
    assert!(std::path::Path::new("/usr/sbin/glusterd").exists(), "Debian's glusterfs-server is needed");
    let cluster = Cluster::builder(3).server_programs(Programs::Stock).client(Programs::Ours).build();
    cluster.form_pool();
    let (server, client) = (cluster.node(1), cluster.node(4));
    let brick = |n: usize| format!("{}:/mnt/brick1/gv1", cluster.node(n).name());
    server.gluster(&format!("volume create gv1 replica 2 {} {} force", brick(1), brick(2))).must();
    server.gluster("volume start gv1").must();
    cluster.mount(4, "gv1", "/mnt/gv1");
    cluster.mount(4, "gv1", "/mnt/other");
    let holding = client.spawn(&holder("/mnt/gv1", "rm u"));
    assert!(wait_until(Duration::from_secs(20), || client.sh("test -e /mnt/other/held").ok()));
    server.gluster(&format!("volume add-brick gv1 replica 3 {} force", brick(3))).must();
    let taken_over = || {
        let grep = format!("grep -r 'new graph is up and takes over' {} | wc -l", client.logs().display());
        let output = std::process::Command::new("sh").args(["-c", &grep]).output();
        output.is_ok_and(|output| output.stdout == b"2\n")
    };
    assert!(wait_until(Duration::from_secs(30), taken_over), "{}", client.log_tails());
    sleep(Duration::from_secs(3));
    assert!(is_locked(client, "/mnt/other/f"), "after the graph was built anew");
    client.sh("touch /mnt/other/finish").must();
    assert_eq!(holding.finish(Duration::from_secs(60)).must().stdout, "kept\n");
    sleep(Duration::from_secs(2));
    assert_eq!(client.sh("cat /mnt/other/f; flock -n /mnt/other/f echo free").must().stdout, "first\nlast\nfree\n");
}
