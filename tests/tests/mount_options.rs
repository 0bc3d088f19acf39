//! The promise: options of mounts that change what applications see do what GlusterFS's do, and a mount from a volfile of
//! its own takes a changed one.

use std::time::Duration;

use ladrillo_tests::{Cluster, wait_until};

#[test]
fn options_of_mounts_act() {
    let cluster = Cluster::builder(1).build();
    cluster.form_pool();
    let node = cluster.node(1);
    node.gluster("volume create gv0 debian1:/mnt/brick1/a debian1:/mnt/brick1/b").must();
    node.gluster("volume start gv0").must();
    cluster.wait_online("gv0", 2);
    let options = "worm,enable-ino32,aux-gfid-mount,dump-fuse=/run/dump,halo-max-latency=5";
    node.sh(&format!("mkdir -p /mnt/gv0 /mnt/file; mount -t glusterfs -o {options} debian1:/gv0 /mnt/gv0")).must();
    // Numbers of 32 bits, the same from stat and from a listing.
    node.sh("cd /mnt/gv0; mkdir -p d/e; echo text > d/f; for i in $(seq 8); do touch d/n$i; done").must();
    let numbers = node.sh("cd /mnt/gv0/d; stat -c %i f n* e; ls -Ui | awk '{print $1}'").must().stdout;
    let numbers: Vec<u64> = numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() == 20 && numbers.iter().all(|number| *number < 1 << 32), "{numbers:?}");
    assert_eq!(numbers.iter().collect::<std::collections::HashSet<_>>().len(), 10, "{numbers:?}");
    // Inodes by their gfid: files, directories and what is in them; the directory's own name goes on working.
    let script = r#"
        set -e; cd /mnt/gv0
        gfid() { getfattr --only-values -n glusterfs.gfid.string $1; }
        f=$(gfid d/f); d=$(gfid d)
        test "$(cat .gfid/$f)" = text; test "$(cat .gfid/$d/f)" = text; test -d .gfid/$d/e
        echo more >> .gfid/$f; test "$(wc -l < d/f)" = 2; touch .gfid/$d/made; test -e d/made; ls .gfid/$d | grep -q made
        (cd d && cd ../.gfid/$d && cd - > /dev/null && test -e f); test "$(readlink -f d/f)" = /mnt/gv0/d/f
        test -z "$(ls -A .gfid)"; ! mkdir .gfid/x; ! ls .gfid/00000000-1111-4222-8333-444444444444; ! test -e .gfid/abc
    "#;
    node.sh(script).must();
    // What went over /dev/fuse.
    let dump = std::fs::read(node.path("/run/dump")).unwrap();
    let records = dump.windows(8).filter(|bytes| bytes == b"GLUSTER\xf5").count();
    assert!(dump[0] == b'R' && records > 50, "{records} records");

    // A volfile of its own: without the second brick, then with it.
    let whole = "/var/lib/glusterd/vols/gv0/trusted-gv0.tcp-fuse.vol";
    let part = format!(
        "awk '/^volume gv0-client-1$/,/^end-volume$/ {{next}} {{print}}' {whole} | \
         sed 's/subvolumes gv0-client-0 gv0-client-1/subvolumes gv0-client-0/' > /run/own.vol"
    );
    node.sh(&part).must();
    node.sh("glusterfs -f /run/own.vol -p /run/own.pid -l /run/own.log /mnt/file").must();
    let count = || node.sh("ls /mnt/file/d | wc -l").must().stdout.trim().parse::<usize>().unwrap();
    assert!(count() < 11, "one brick has them all");
    node.sh(&format!("exec 9< /mnt/file/d; cp {whole} /run/own.vol; kill -HUP $(cat /run/own.pid)")).must();
    assert!(
        wait_until(Duration::from_secs(20), || count() == 11),
        "{}",
        node.sh("ls -l /mnt/file/d; cat /run/own.log")
    );
    // A state dump says what there is.
    node.sh("rm -f /var/run/gluster/glusterdump.*; kill -USR1 $(cat /run/own.pid)").must();
    let dump = || node.sh("cat /var/run/gluster/glusterdump.$(cat /run/own.pid).dump.*").stdout;
    let says = ["[xlator.protocol.client.gv0-client-1.priv]", "subvolume_status=1,1", "resident_kb=", "callpool.cnt="];
    assert!(wait_until(Duration::from_secs(10), || says.iter().all(|said| dump().contains(said))), "{}", dump());
}

#[test]
fn groups_are_looked_up_on_the_brick_where_it_manages_them() {
    let cluster = Cluster::builder(1).build();
    let node = cluster.node(1);
    // For the name service the user is in 200 groups, more than some clients can send, and not in 6300.
    let users = r#"
        set -e; cp /etc/passwd /run/passwd; cp /etc/group /run/group
        echo 'tester:x:5000:5000::/:/bin/sh' >> /run/passwd; echo 'tester:x:5000:' >> /run/group
        for i in $(seq 6001 6200); do echo "many$i:x:$i:tester" >> /run/group; done
        mount --bind /run/passwd /etc/passwd; mount --bind /run/group /etc/group
    "#;
    node.sh(users).must();
    cluster.form_pool();
    node.gluster("volume create gv0 debian1:/mnt/brick1/a").must();
    node.gluster("volume start gv0").must();
    cluster.wait_online("gv0", 1);
    node.sh("mkdir -p /mnt/gv0; mount -t glusterfs -o acl debian1:/gv0 /mnt/gv0").must();
    let files = "chmod 755 .; for g in 6150 6300; do echo of $g > $g; chgrp $g $g; chmod 640 $g; done";
    node.sh(&format!("cd /mnt/gv0; {files}")).must();
    // His process has both groups: the kernel lets him pass, the brick has the last word.
    let read = |file: u32| {
        node.sh(&format!("setpriv --reuid 5000 --regid 5000 --groups 6150,6300 cat /mnt/gv0/{file}")).stdout
    };
    assert_eq!((read(6150).as_str(), read(6300).as_str()), ("of 6150\n", "of 6300\n"));
    node.gluster("volume set gv0 server.manage-gids on").must();
    let drop_caches = || std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let denied = wait_until(Duration::from_secs(20), || {
        drop_caches();
        read(6300).is_empty()
    });
    assert!(denied, "the brick takes the client's word");
    assert_eq!(read(6150), "of 6150\n");
    node.gluster("volume set gv0 server.manage-gids off").must();
    assert!(wait_until(Duration::from_secs(20), || read(6300) == "of 6300\n"));
}
