//! The promise: with `features.cache-invalidation` on, mounts that keep attributes and names for ten minutes see what
//! another one changes at once, ours and Debian's side by side.

use std::path::Path;
use std::time::{Duration, Instant};

use ladrillo_tests::{Cluster, Programs, wait_until};

/// Well below all timeouts of the mounts; on a quiet machine it takes milliseconds.
const SOON: Duration = Duration::from_secs(10);

/// Runs `change` on one machine; whether `is` holds on another before long, having not held before.
fn is_seen(cluster: &Cluster, by: usize, change: &str, on: usize, is: &str) {
    cluster.node(on).sh(is).must_fail();
    cluster.node(by).sh(change).must();
    let start = Instant::now();
    let seen = wait_until(SOON, || cluster.node(on).sh(is).ok());
    assert!(seen, "machine {on} does not see what {by} did: {change}; wanted: {is}");
    println!("seen after {:?}: {change}", start.elapsed());
}

#[test]
fn what_one_mount_changes_others_see_at_once() {
    assert!(Path::new("/usr/sbin/glusterfsd").exists(), "Debian's glusterfs-server is not installed: run tools/setup");
    let cluster = Cluster::builder(3).client(Programs::Stock).build();
    cluster.form_pool();
    cluster.create_replicated("gv0");
    for option in [
        "features.cache-invalidation on",
        "features.cache-invalidation-timeout 600",
        "performance.cache-invalidation on",
        "performance.md-cache-timeout 600",
    ] {
        cluster.node(1).gluster(&format!("volume set gv0 {option}")).must();
    }
    let keep = "attribute-timeout=600,entry-timeout=600";
    for on in [1, 2] {
        cluster.node(on).sh(&format!("mkdir -p /mnt/gv0; mount -t glusterfs -o {keep} debian1:/gv0 /mnt/gv0")).must();
    }
    cluster.mount(4, "gv0", "/mnt/gv0");
    for (by, on) in [(1, 2), (1, 4), (4, 1)] {
        let d = format!("/mnt/gv0/{by}{on}");
        cluster.node(by).sh(&format!("mkdir -p {d}/dir; cd {d}; echo one > f; echo old > a; touch b gone")).must();
        let look = format!("cd {d}; stat . dir f a b gone; cat f a; ls -l; ls -l dir");
        cluster.node(on).sh(&look).must();
        let check = |change: &str, is: &str| {
            is_seen(&cluster, by, &format!("cd {d}; {change}"), on, &format!("cd {d}; {is}"));
        };
        check("echo three > f", "[ $(stat -c %s f) = 6 ] && [ \"$(cat f)\" = three ]");
        check("chmod 600 f", "[ $(stat -c %a f) = 600 ]");
        check("truncate -s 2 f", "[ $(stat -c %s f) = 2 ]");
        check("rm gone", "! stat gone");
        // The old name first: by the inode it is still known to Debian's md-cache once the new one was looked up.
        check("mv a b", "! stat a && [ \"$(cat b)\" = old ]");
        check("mv dir moved", "! stat dir && stat moved");
        check("touch moved/new", "stat moved/new");
        check("ln f g", "[ $(stat -c %h f) = 2 ]");
    }
}
