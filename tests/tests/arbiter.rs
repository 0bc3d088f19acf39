//! The promise: of `replica 3 arbiter 1` the third brick keeps names and attributes but no contents. One brick may go
//! away, contents never come from the arbiter, and a copy that missed a write is not read while the other one is away.
//! A directory of the volume can be mounted alone.

use std::time::Duration;

use ladrillo_tests::{Cluster, Node, wait_until_healed};

/// Names, modes and owners of everything on a brick, but its own directory.
const NAMES: &str = "cd /mnt/brick1/gv0 && find . -path ./.glusterfs -prune -o -printf '%p %M %U %G\\n' | sort";

fn names(node: &Node) -> String {
    node.sh(NAMES).must().stdout
}

#[test]
fn an_arbiter_votes_and_keeps_no_contents() {
    let cluster = Cluster::builder(3).build();
    cluster.form_pool();
    let node = cluster.node(1);
    cluster.create("gv0", "replica 3 arbiter 1");
    cluster.mount(1, "gv0", "/mnt/gv0");
    cluster.make_tar(1, "/run/tree.tar", 150);
    node.sh("mkdir /run/source && tar xf /run/tree.tar -C /run/source").must();

    // The second brick misses an untar and more.
    node.sh("mkdir /mnt/gv0/before && echo kept > /mnt/gv0/before/kept && echo old > /mnt/gv0/before/changed").must();
    cluster.kill_brick("gv0", 2);
    node.sh("set -e; cd /mnt/gv0; tar xf /run/tree.tar; echo new > before/changed; mv before/kept before/moved").must();
    node.gluster("volume start gv0 force").must();
    cluster.wait_online("gv0", 3);
    wait_until_healed(node, "gv0", 3, Duration::from_secs(120));
    node.sh("diff -r --no-dereference /run/source/tree /mnt/gv0/tree").must();
    for whole in [1, 2] {
        cluster.node(whole).sh("[ \"$(cat /mnt/brick1/gv0/before/changed)\" = new ]").must();
        assert_eq!(names(cluster.node(whole)), names(cluster.node(3)), "brick {whole} beside the arbiter");
    }
    assert_eq!(cluster.node(3).sh("cd /mnt/brick1/gv0 && find before tree -type f -size +0").must().stdout, "");

    // The first brick misses a write; with the second away only it and the arbiter are there, and it must not answer.
    cluster.kill_brick("gv0", 1);
    node.sh("echo newest > /mnt/gv0/before/changed").must();
    cluster.kill_brick("gv0", 2);
    node.sh("cat /mnt/gv0/before/changed").must_fail();
    node.sh("echo lost > /mnt/gv0/before/lost").must_fail();
    node.gluster("volume start gv0 force").must();
    cluster.wait_online("gv0", 3);
    wait_until_healed(node, "gv0", 3, Duration::from_secs(120));
    assert_eq!(node.sh("cat /mnt/brick1/gv0/before/changed /mnt/gv0/before/changed").must().stdout, "newest\nnewest\n");

    // A directory of the volume, mounted alone.
    cluster.mount(2, "gv0/before", "/mnt/part");
    assert_eq!(
        cluster.node(2).sh("cd /mnt/part && ls && cat changed && touch made").must().stdout,
        "changed\nmoved\nnewest\n"
    );
    node.sh("test -e /mnt/gv0/before/made").must();
}
