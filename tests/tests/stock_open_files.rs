//! The promise: what applications have open and locked outlives a volume that gets another graph, on Debian's GlusterFS
//! 10.3: its replica count grows as it does on stock volumes.

use std::thread::sleep;
use std::time::Duration;

use ladrillo_tests::holder::{holder, is_locked};
use ladrillo_tests::{Cluster, Programs, wait_until};

#[test]
fn open_files_and_locks_go_over_to_the_graph_of_a_volume_that_grew() {
    assert!(std::path::Path::new("/usr/sbin/glusterd").exists(), "Debian's glusterfs-server is needed");
    let cluster = Cluster::builder(3).server_programs(Programs::Stock).client(Programs::Ours).build();
    cluster.form_pool();
    let (server, client) = (cluster.node(1), cluster.node(4));
    let brick = |n: usize| format!("{}:/mnt/brick1/gv1", cluster.node(n).name());
    server.gluster(&format!("volume create gv1 replica 2 {} {} force", brick(1), brick(2))).must();
    server.gluster("volume start gv1").must();
    // 10.3 fails the commit of add-brick on a node whose heal service is still starting.
    let healers = || server.sh("gluster volume status gv1 shd | grep -c 'Self-heal Daemon.* Y '").stdout == "3\n";
    assert!(wait_until(Duration::from_secs(30), healers), "{}", server.gluster("volume status gv1").stdout);
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
