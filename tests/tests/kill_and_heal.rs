//! The promise: killing one brick of three stops nothing and loses nothing; started again it is brought up to date by
//! itself, `heal info` falls to 0, and the three bricks are the same.
//!
//! `ROUNDS` says how often each is done (2 unless told; `make test-full` does 20).

use std::thread::sleep;
use std::time::Duration;

use ladrillo_tests::{Cluster, heal_counts, wait_until, wait_until_healed};

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(2)
}

/// `volume start gv0 force`, and all that must follow from it.
fn restart_and_heal(cluster: &Cluster) {
    cluster.node(1).gluster("volume start gv0 force").must();
    cluster.wait_online("gv0", 3);
    wait_until_healed(cluster.node(1), "gv0", 3, Duration::from_secs(120));
    cluster.wait_identical("gv0", Duration::from_secs(30));
}

#[test]
fn a_brick_killed_under_fio_verify() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    for round in 0..rounds() {
        let victim = round % 3 + 1;
        let writer = cluster.node(2);
        writer.sh(&format!("mkdir /mnt/gv0/fio{round}")).must();
        let fio = writer.spawn(&format!(
            "fio --name=verify --directory=/mnt/gv0/fio{round} --rw=randrw --rwmixread=30 --bs=4k --size=20M --numjobs=2 \
             --rate=,3m --verify=crc32c --do_verify=1 --verify_fatal=1 --end_fsync=1 --fallocate=none --group_reporting"
        ));
        sleep(Duration::from_secs(2));
        cluster.kill_brick("gv0", victim);
        // What is written now, one brick does not see.
        cluster.node(1).sh(&format!("echo while-away > /mnt/gv0/new{round}; rm -f /mnt/gv0/new{}", round + 100)).must();
        sleep(Duration::from_secs(2));
        cluster.node(1).gluster("volume start gv0 force").must();
        let done = fio.finish(Duration::from_secs(120)).must();
        assert!(done.stdout.contains("err= 0"), "round {round}: {done}");
        restart_and_heal(&cluster);
        // Read back through the other mount.
        let again = cluster.node(1).sh(&format!("cat /mnt/gv0/new{round}; cksum /mnt/gv0/fio{round}/* | wc -l")).must();
        assert_eq!(again.stdout, "while-away\n2\n");
    }
}

#[test]
fn a_brick_killed_under_an_untar() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    cluster.make_tar(1, "/run/tree.tar", 600);
    cluster.node(1).sh("mkdir /run/source && tar xf /run/tree.tar -C /run/source").must();
    for round in 0..rounds() {
        let victim = (round + 1) % 3 + 1;
        let node = cluster.node(1);
        let directory = format!("/mnt/gv0/round{round}");
        node.sh(&format!("mkdir {directory}")).must();
        let mut untar = node.spawn(&format!("tar xf /run/tree.tar -C {directory}"));
        let brick = node.path(&format!("/mnt/brick1/gv0/round{round}/tree"));
        // In the middle of it: some entries are there, not all.
        wait_until(Duration::from_secs(20), || brick.read_dir().is_ok_and(|d| d.count() > 2) || !untar.running());
        cluster.kill_brick("gv0", victim);
        untar.finish(Duration::from_secs(300)).must();
        node.sh(&format!("mv {directory}/tree/link1 {directory}/tree/renamed && rm {directory}/tree/link2")).must();
        node.sh(&format!("diff -r --no-dereference -x 'link[12]' -x renamed /run/source {directory}")).must();
        restart_and_heal(&cluster);
        cluster.node(2).sh_within(Duration::from_secs(300), &format!("ls -lR {directory} | wc -l")).must();
        let left = format!("diff -r --no-dereference -x 'link[12]' -x renamed /run/source {directory} >&2");
        let source = cluster.node(1).sh_within(Duration::from_secs(300), &left).must();
        assert_eq!(source.stderr, "");
    }
}

#[test]
fn changes_of_every_kind_are_healed() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let node = cluster.node(1);
    node.sh(
        "set -e; cd /mnt/gv0; mkdir old d; echo a > old/file; echo b > gone; ln -s x link; mkdir d/emptied; echo c > grow
         echo c > shrink; echo hidden > moved; touch attr; for i in $(seq 50); do echo $i > d/$i; done; mkfifo pipe",
    )
    .must();
    cluster.wait_identical("gv0", Duration::from_secs(20));
    cluster.kill_brick("gv0", 3);
    node.sh("set -e; cd /mnt/gv0; rm -r old; rm gone link; rmdir d/emptied; head -c 3000000 /dev/urandom > grow
         truncate -s 1 shrink; mv moved d/here; chmod 600 attr; chown 5:6 attr; setfattr -n user.k -v v attr
         echo new > created; ln created d/linked; ln -s y link2; mkfifo pipe2; mknod null c 1 3; rm d/1?; mkdir -p a/b/c
         echo deep > a/b/c/file; rm pipe; mkdir pipe; touch -d 2001-02-03 d/1")
        .must();
    let pending =
        wait_until(Duration::from_secs(20), || heal_counts(node, "gv0").iter().flatten().any(|count| *count > 0));
    assert!(pending, "no backlog is shown: {}", node.gluster("volume heal gv0 info"));
    restart_and_heal(&cluster);
}

#[test]
fn without_a_quorum_writes_fail_and_nothing_is_lost() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let node = cluster.node(1);
    node.sh("echo safe > /mnt/gv0/file").must();
    cluster.kill_brick("gv0", 2);
    cluster.kill_brick("gv0", 3);
    // Noticing takes the client a moment; a write it acknowledges until then counts.
    let refused = wait_until(Duration::from_secs(30), || !node.sh("echo lost > /mnt/gv0/other").ok());
    assert!(refused, "one brick of three takes writes");
    let why = node.sh("echo lost > /mnt/gv0/more").must_fail();
    let named = ["Read-only file system", "Transport endpoint is not connected", "Input/output error"];
    assert!(named.iter().any(|n| why.stderr.contains(n)), "{why}");
    cluster.node(1).gluster("volume start gv0 force").must();
    cluster.wait_online("gv0", 3);
    let back = wait_until(Duration::from_secs(30), || node.sh("echo back > /mnt/gv0/back").ok());
    assert!(back, "writes are still refused: {}", node.sh("echo back > /mnt/gv0/back"));
    assert_eq!(node.sh("cat /mnt/gv0/file").must().stdout, "safe\n");
    restart_and_heal(&cluster);
}
