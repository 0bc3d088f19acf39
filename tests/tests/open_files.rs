//! The promise: what applications have open and locked outlives bricks that are restarted one after the other, and
//! volumes whose options change.

use std::thread::sleep;
use std::time::Duration;

use ladrillo_tests::holder::{holder, is_locked};
use ladrillo_tests::{Cluster, wait_until};

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
