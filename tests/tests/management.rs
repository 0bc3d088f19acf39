//! The promise: the data path does not need glusterd. Killed and started again it finds its bricks running; a cut link
//! is noticed within seconds and healed after.

use std::time::{Duration, Instant};

use ladrillo_tests::{Cluster, Programs, volume_status, wait_until, wait_until_healed};

#[test]
fn bricks_and_mounts_go_on_without_glusterd() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let node = cluster.node(1);
    node.gluster("volume set gv0 network.ping-timeout 20").must();
    let before = volume_status(node, "gv0");
    assert!(before.len() == 3 && before.iter().all(|b| b.pid.is_some()), "{before:?}");
    let fio = cluster.node(2).spawn(
        "fio --name=v --directory=/mnt/gv0 --rw=randwrite --bs=4k --size=24M --rate=,3m --verify=crc32c --do_verify=1 \
         --verify_fatal=1 --end_fsync=1 --fallocate=none",
    );
    for server in cluster.servers() {
        server.kill_glusterd();
    }
    node.sh("cd /mnt/gv0; mkdir without; echo glusterd > without/file; cat without/file").must();
    for server in cluster.servers() {
        server.start_glusterd();
    }
    let same = wait_until(Duration::from_secs(30), || volume_status(node, "gv0") == before);
    assert!(same, "bricks were not adopted: {before:?} became {:?}", volume_status(node, "gv0"));
    fio.finish(Duration::from_secs(120)).must();
    // All that was set is still there, on every machine.
    for server in cluster.servers() {
        let info = server.gluster("volume info gv0").must().stdout;
        assert!(info.contains("Status: Started") && info.contains("network.ping-timeout: 20"), "{info}");
    }
    // And the adopted bricks obey.
    for on in 1..=2 {
        cluster.node(on).sh("umount /mnt/gv0").must();
    }
    node.gluster("volume stop gv0").must();
    for server in cluster.servers() {
        let gone = wait_until(Duration::from_secs(10), || !server.sh("pgrep -x glusterfsd").ok());
        assert!(gone, "a brick on {} survives volume stop", server.name());
    }
}

#[test]
fn a_killed_glusterd_starts_killed_bricks() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    cluster.node(3).kill_glusterd();
    let pid = cluster.node(3).sh("pgrep -x glusterfsd").must().stdout.trim().to_owned();
    cluster.node(3).kill(&pid);
    cluster.node(1).sh("echo meanwhile > /mnt/gv0/file").must();
    cluster.node(3).start_glusterd();
    cluster.wait_online("gv0", 3);
    wait_until_healed(cluster.node(1), "gv0", 3, Duration::from_secs(60));
    cluster.wait_identical("gv0", Duration::from_secs(30));
}

#[test]
fn a_cut_link_is_noticed_within_seconds_and_healed_after() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let ours = cluster.node(1).programs() == Programs::Ours;
    let node = cluster.node(1);
    node.sh("echo before > /mnt/gv0/before").must();
    cluster.node(3).cut_link();
    let cut = Instant::now();
    node.sh("echo during > /mnt/gv0/during; dd if=/dev/zero of=/mnt/gv0/big bs=1M count=8 conv=fsync").must();
    let waited = cut.elapsed();
    // GlusterFS waits for its ping-timeout of 42 s, more than once; TCP_USER_TIMEOUT is 5 s.
    let limit = Duration::from_secs(if ours { 15 } else { 110 });
    assert!(waited < limit, "writes hung for {waited:?} after the link was cut");
    let noticed = wait_until(limit, || {
        node.gluster("peer status").stdout.contains("Hostname: debian3\n")
            && node.gluster("peer status").stdout.contains("(Disconnected)")
    });
    assert!(noticed, "{}", node.gluster("peer status"));
    if ours {
        // A majority can change things, a minority says that it cannot.
        node.gluster("volume set gv0 network.ping-timeout 30").must();
        let refused = cluster.node(3).gluster("volume set gv0 network.ping-timeout 31").must_fail();
        assert!(!refused.stderr.is_empty(), "{refused}");
    }
    cluster.node(3).join_link();
    for server in cluster.servers() {
        let joined = wait_until(Duration::from_secs(60), || {
            server.gluster("peer status").stdout.matches("Peer in Cluster (Connected)").count() == 2
        });
        assert!(joined, "{}: {}", server.name(), server.gluster("peer status"));
    }
    if ours {
        let same = wait_until(Duration::from_secs(30), || {
            cluster.node(3).gluster("volume info gv0").stdout.contains("network.ping-timeout: 30\n")
        });
        assert!(same, "{}", cluster.node(3).gluster("volume info gv0"));
    }
    wait_until_healed(node, "gv0", 3, Duration::from_secs(120));
    cluster.wait_identical("gv0", Duration::from_secs(30));
}
