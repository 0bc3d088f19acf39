//! The promise: what pjdfstest asks of a file system a mount answers as local ext4 does, in every form of volume.

use ladrillo_tests::Cluster;
use ladrillo_tests::posix::{PjdfsTest, pjdfstest};

/// Tests that fail on a mount and not on ext4, each with its reason in docs/posix.md. None does.
const EXPLAINED: &[&str] = &[];

/// Those without an answer: pathconf(_PC_LINK_MAX) of FUSE says nothing.
const SKIPPED: &[&str] = &["link::link_count_max"];

fn check(what: &str, local: &PjdfsTest, mount: &PjdfsTest) {
    let fails: Vec<_> = mount
        .failed
        .iter()
        .filter(|(name, _)| !local.failed.contains_key(*name) && !EXPLAINED.contains(&name.as_str()))
        .collect();
    println!("{what}: {} passed, {} failed, skipped {:?}", mount.passed, mount.failed.len(), mount.skipped);
    assert!(fails.is_empty(), "{what}: {} tests fail that pass on ext4: {fails:#?}", fails.len());
    let all = |run: &PjdfsTest| run.passed + run.failed.len() + run.skipped.len();
    assert!(mount.passed > 300 && all(mount) >= all(local), "{what}: only {} of {}", all(mount), all(local));
    assert!(mount.skipped.iter().all(|name| SKIPPED.contains(&name.as_str())), "{what}: {:?}", mount.skipped);
}

#[test]
fn a_mount_answers_as_ext4() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let node = cluster.node(1);
    node.sh("set -e; mkdir -p /mnt/second /mnt/local; mount -t tmpfs none /mnt/second
         truncate -s 500M /run/local.img; mkfs.ext4 -q -F -I 512 /run/local.img; mount -o loop /run/local.img /mnt/local")
        .must();
    let local = pjdfstest(node, "/mnt/local", "/mnt/second");
    println!("ext4: {} passed, failed: {:?}, skipped {:?}", local.passed, local.failed, local.skipped);
    assert!(local.passed > 300 && local.failed.is_empty(), "not the ext4 this was written against: {local:#?}");
    check("replica 3", &local, &pjdfstest(node, "/mnt/gv0", "/mnt/second"));

    node.sh("mkdir /mnt/acl && mount -t glusterfs -o acl debian1:/gv0 /mnt/acl").must();
    check("replica 3, -o acl", &local, &pjdfstest(node, "/mnt/acl", "/mnt/second"));

    for (volume, bricks) in [("one", 1), ("spread", 3)] {
        let list: Vec<_> = (1..=bricks).map(|n| format!("debian{n}:/mnt/brick1/{volume}")).collect();
        node.gluster(&format!("volume create {volume} {}", list.join(" "))).must();
        node.gluster(&format!("volume start {volume}")).must();
        cluster.wait_online(volume, bricks);
        let directory = format!("/mnt/{volume}");
        cluster.mount(1, volume, &directory);
        check(&format!("distribute {bricks}"), &local, &pjdfstest(node, &directory, "/mnt/second"));
    }
}
