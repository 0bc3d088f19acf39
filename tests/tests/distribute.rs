//! The promise: a distributed volume is one file system over all bricks; a brick that is down takes its own files with it
//! and nothing else; over replica sets it takes none.

use std::path::Path;
use std::time::Duration;

use ladrillo_tests::{BrickTree, Cluster, volume_status, wait_until, wait_until_healed};

const LINKTO: &str = "trusted.glusterfs.dht.linkto";

/// What an application does in a directory of its own: names of every kind, many files, renames and links.
const WORK: &str = r#"
set -e; trap 'echo "failed: $BASH_COMMAND"' ERR
mkdir /mnt/gv0/$WHO; cd /mnt/gv0/$WHO
mkdir -p d/e/f many; for i in $(seq 60); do echo $WHO $i > many/$i; done
test $(ls many | wc -l) = 60; (cd many; sha256sum $(seq 60)) > sums
for i in $(seq 20); do mv many/$i many/moved-$i; done; for i in $(seq 20); do mv many/moved-$i many/$i; done
(cd many; sha256sum --quiet -c ../sums)
for i in $(seq 30); do mv many/$i d/e/x$i; done; for i in $(seq 30); do ln d/e/x$i many/$i; done
(cd many; sha256sum --quiet -c ../sums); test $(stat -c %h many/7) = 2; rm d/e/x*; test $(stat -c %h many/7) = 1
mv d/e e2; mv e2 d/e; rmdir d/e/f; ln -s many/1 s; test "$(cat s)" = "$WHO 1"
head -c 3000000 /dev/urandom > big; cp big big2; cmp big big2; truncate -s 10 big2; test $(stat -c %s big2) = 10
setfattr -n user.a -v 1 d; test "$(getfattr --only-values -n user.a d)" = 1; chmod 711 d; test $(stat -c %a d) = 711
flock many true; flock big true; mkfifo p
! rmdir many 2> /run/err; grep -q 'not empty' /run/err
"#;

fn work(cluster: &Cluster, on: usize, who: &str) {
    cluster.node(on).sh_within(Duration::from_secs(120), &format!("WHO={who}\n{WORK}")).must();
}

/// Data files of a path, and linkto files, by the number of the server (from 1).
fn places(bricks: &[(String, BrickTree)], path: &str) -> (Vec<usize>, Vec<usize>) {
    let (mut data, mut links) = (Vec::new(), Vec::new());
    for (number, (_, tree)) in bricks.iter().enumerate() {
        match tree.entries.get(Path::new(path)) {
            Some(entry) if entry.xattrs.contains_key(LINKTO) => links.push(number + 1),
            Some(_) => data.push(number + 1),
            None => {}
        }
    }
    (data, links)
}

#[test]
fn a_distributed_volume_is_one_file_system() {
    let cluster = Cluster::builder(3).build();
    cluster.form_pool();
    cluster.create("gv0", "");
    cluster.mount(1, "gv0", "/mnt/gv0");
    cluster.mount(2, "gv0", "/mnt/gv0");
    work(&cluster, 1, "one");
    work(&cluster, 2, "two");
    for on in [1, 2] {
        let check = "cd /mnt/gv0; for w in one two; do (cd $w/many; sha256sum --quiet -c ../sums); done; ls | wc -l";
        assert_eq!(cluster.node(on).sh(&format!("set -e; {check}")).must().stdout.trim(), "2");
    }
    // Every file is on one brick, each brick has some, linkto files are where there are files.
    let trees = cluster.bricks("gv0");
    let mut on = [0; 3];
    for n in 1..=60 {
        let (data, links) = places(&trees, &format!("one/many/{n}"));
        assert_eq!(data.len(), 1, "one/many/{n} is on {data:?}");
        assert!(links.len() <= 1 && links != data, "one/many/{n}: {links:?}");
        on[data[0] - 1] += 1;
    }
    assert!(on.iter().all(|count| *count > 5), "{on:?}");
    for (name, tree) in &trees {
        assert!(tree.entries[Path::new("one/many")].xattrs.contains_key("trusted.glusterfs.dht"), "{name}");
    }
    // One brick dies: the files of the others go on, also new ones; its own are out of reach, not gone.
    let two = |n: &usize| places(&trees, &format!("two/many/{n}")) == (vec![2], vec![]);
    let three = |n: &usize| places(&trees, &format!("two/many/{n}")) == (vec![3], vec![]);
    let (lost, kept) = ((31..=60).find(three).unwrap(), (31..=60).find(two).unwrap());
    cluster.kill_brick("gv0", 3);
    let notices = wait_until(Duration::from_secs(20), || {
        let cat = cluster.node(1).sh(&format!("cat /mnt/gv0/two/many/{lost}"));
        cat.to_string().contains("not connected")
    });
    assert!(notices, "a file of a brick that is down is not ENOTCONN");
    cluster
        .node(1)
        .sh(&format!("cd /mnt/gv0/two/many; grep -q two {kept}; echo more >> {kept}; ls > /dev/null"))
        .must();
    let script = "cd /mnt/gv0; n=0; for i in $(seq 40); do echo x 2>/dev/null > new-$i && n=$((n+1)); done; echo $n";
    let made: usize = cluster.node(1).sh(script).must().stdout.trim().parse().unwrap();
    assert!((10..40).contains(&made), "{made} of 40 new files");
    cluster.node(1).gluster("volume start gv0 force").must();
    cluster.wait_online("gv0", 3);
    let back =
        wait_until(Duration::from_secs(20), || cluster.node(1).sh(&format!("cat /mnt/gv0/two/many/{lost}")).ok());
    assert!(back, "the files of a brick that came back do not");
    cluster.node(1).sh("rm -r /mnt/gv0/one /mnt/gv0/two /mnt/gv0/new-*; test -z \"$(ls /mnt/gv0)\"").must();
    for (name, tree) in cluster.bricks("gv0") {
        let left: Vec<_> = tree.entries.keys().filter(|path| !path.as_os_str().is_empty()).collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
}

#[test]
fn over_replica_sets_a_dying_brick_stops_nothing() {
    let cluster = Cluster::builder(3).build();
    cluster.form_pool();
    let bricks: Vec<String> = ["a", "b"]
        .iter()
        .flat_map(|set| cluster.servers().iter().map(move |n| format!("{}:/mnt/brick1/gv0-{set}", n.name())))
        .collect();
    cluster.node(1).gluster(&format!("volume create gv0 replica 3 {}", bricks.join(" "))).must();
    cluster.node(1).gluster("volume start gv0").must();
    cluster.wait_online("gv0", 6);
    cluster.mount(1, "gv0", "/mnt/gv0");
    cluster.mount(2, "gv0", "/mnt/gv0");
    work(&cluster, 1, "one");
    // Both bricks of one server die in the middle of the work.
    let host = format!("{}:", cluster.node(3).name());
    let pids: Vec<u32> = volume_status(cluster.node(3), "gv0")
        .iter()
        .filter(|brick| brick.name.starts_with(&host))
        .filter_map(|brick| brick.pid)
        .collect();
    assert_eq!(pids.len(), 2);
    let working = cluster.node(1).spawn(&format!("WHO=two\n{WORK}"));
    std::thread::sleep(Duration::from_secs(1));
    pids.iter().for_each(|pid| cluster.node(3).kill(&pid.to_string()));
    working.finish(Duration::from_secs(120)).must();
    cluster.node(1).gluster("volume start gv0 force").must();
    cluster.wait_online("gv0", 6);
    wait_until_healed(cluster.node(1), "gv0", 6, Duration::from_secs(90));
    let check = "cd /mnt/gv0; for w in one two; do (cd $w/many; sha256sum --quiet -c ../sums); done; ls | wc -l";
    assert_eq!(cluster.node(2).sh(&format!("set -e; {check}")).must().stdout.trim(), "2");
    // A name is data on one set alone.
    for server in cluster.servers() {
        let count = |set: &str| {
            let find = format!("find /mnt/brick1/gv0-{set}/two/many -type f ! -perm 1000 | wc -l");
            server.sh(&find).must().stdout.trim().parse::<usize>().unwrap()
        };
        let (a, b) = (count("a"), count("b"));
        assert_eq!(a + b, 60, "{}: {a} and {b}", server.name());
        assert!(a > 5 && b > 5);
    }
}
