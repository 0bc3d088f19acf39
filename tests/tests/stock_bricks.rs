//! The promise: a brick is a plain directory in GlusterFS's layout. Bricks written by Debian's glusterfsd under Debian's
//! glusterd are served by ours, which takes the volume over from its working directory, and go back: contents, gfids,
//! handles and extended attributes stay as they were, and nothing has to be crawled or healed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ladrillo_tests::{BrickTree, Cluster, Node, Programs, volume_status, wait_until, wait_until_healed};

const VOLUMES: [(&str, &str, usize); 3] = [("rep", "replica 3", 3), ("dist", "", 2), ("dr", "replica 3", 6)];

/// What one owner makes in a volume; checked by `CHECK` under every later owner.
const MAKE: &str = r#"
set -e; trap 'echo "failed: $BASH_COMMAND"' ERR
mkdir $1; cd $1
mkdir -p d/e/f many; for i in $(seq 60); do echo "content $i" > many/$i; done
head -c 3000000 /dev/urandom > big; ln big hard; ln -s big soft; mkfifo fifo; mknod node c 1 3
setfattr -n user.key -v value big; chmod 4751 big; chown 7:8 big; touch -d @1500000000.5 big
truncate -s 50M sparse; mkdir gone; touch gone/x; rm -r gone; mv d/e moved; : > empty
find . -type f -print0 | sort -z | xargs -0 sha256sum > /run/sums-$2-$1
find . -exec stat -c '%n %F %a %u %g %h %s %i %Y' {} + | grep -v '^. ' | sort > /run/stat-$2-$1
"#;
const CHECK: &str = r#"
set -e; trap 'echo "failed: $BASH_COMMAND"' ERR
cd $1; sha256sum --quiet -c /run/sums-$2-$1
find . -exec stat -c '%n %F %a %u %g %h %s %i %Y' {} + | grep -v '^. ' | sort > /run/stat.now
diff /run/stat-$2-$1 /run/stat.now
test "$(getfattr --only-values -n user.key big)" = value; test "$(readlink soft)" = big
test $(ls many | wc -l) = 60
"#;

fn brick(volume: &str, index: usize) -> String {
    format!("/mnt/brick1/{volume}{index}")
}

/// Every brick as it is on disk, without what an owner's reading may change (access times are not compared anyway).
fn bricks(node: &Node) -> BTreeMap<String, BrickTree> {
    let mut trees = BTreeMap::new();
    for (volume, _, count) in VOLUMES {
        for index in 0..count {
            let path = brick(volume, index);
            trees.insert(path.clone(), BrickTree::read(&node.path(&path)));
        }
    }
    trees
}

/// What of the trees of `before` below `directory` is other now.
fn changes(before: &BTreeMap<String, BrickTree>, now: &BTreeMap<String, BrickTree>, directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (path, tree) in before {
        let Some(other) = now.get(path) else { continue };
        let below = |p: &&PathBuf| p.starts_with(directory);
        for name in tree.entries.keys().chain(other.entries.keys()).filter(below) {
            if tree.entries.get(name) != other.entries.get(name) {
                let (was, is) = (tree.entries.get(name), other.entries.get(name));
                found.push(format!("{path}/{}: {was:x?}\n  now {is:x?}", name.display()));
            }
        }
        found
            .extend(tree.handles.difference(&other.handles).map(|h| format!("{path}: handle {} is gone", h.display())));
    }
    found
}

fn work(node: &Node, script: &str, owner: &str) {
    for (volume, ..) in VOLUMES {
        node.sh(&format!("cd /mnt/{volume}; set -- {owner} {volume}; {script}")).must();
    }
}

fn start(node: &Node) {
    node.start_glusterd();
    for (volume, _, count) in VOLUMES {
        let online = || volume_status(node, volume).iter().filter(|b| b.online).count() == count;
        let up = wait_until(Duration::from_secs(40), online);
        assert!(up, "{volume}: {}\n{}", node.gluster(&format!("volume status {volume}")), node.log_tails());
        node.mount(node, volume, &format!("/mnt/{volume}")).must();
    }
}

fn stop(node: &Node) {
    for (volume, ..) in VOLUMES {
        node.sh(&format!("umount /mnt/{volume}")).must();
    }
    node.sh("pkill -x glusterd; for i in $(seq 100); do pgrep -x 'glusterd' > /dev/null || break; sleep 0.1; done")
        .must();
    // The bricks and the heal service, in order: a client that leaves first takes its marks back.
    node.sh("pkill -x 'glusterfs|glusterfsd'; for i in $(seq 100); do pgrep -x 'glusterfs|glusterfsd' || break; sleep 0.1; done")
        .must();
    let left = node.sh("pgrep -a gluster");
    assert!(!left.ok(), "still there: {left}");
}

#[test]
fn bricks_change_owner() {
    assert!(Path::new("/usr/sbin/glusterfsd").exists(), "Debian's glusterfs-server is not installed: run tools/setup");
    let cluster = Cluster::builder(1).server_programs(Programs::Ours).build();
    let node = cluster.node(1);
    // Our programs lie over Debian's: theirs show when the cover is taken away.
    let theirs = || node.sh("umount /usr/sbin && glusterd --version | grep -q '^glusterfs 10'").must();
    let ours = || {
        let bin = node.logs().with_file_name("bin");
        node.sh(&format!("mount -t overlay overlay -o lowerdir={}:/usr/sbin /usr/sbin", bin.display())).must()
    };
    theirs();
    node.start_glusterd();
    for (volume, kind, count) in VOLUMES {
        let paths: Vec<String> = (0..count).map(|index| format!("debian1:{}", brick(volume, index))).collect();
        node.gluster(&format!("volume create {volume} {kind} {} force", paths.join(" "))).must();
        node.gluster(&format!("volume start {volume}")).must();
        node.mount(node, volume, &format!("/mnt/{volume}")).must();
    }
    work(node, MAKE, "stock");
    stop(node);
    let written = bricks(node);

    ours();
    start(node);
    work(node, CHECK, "stock");
    wait_until_healed(node, "rep", 3, Duration::from_secs(30));
    let served = bricks(node);
    let found = changes(&written, &served, "stock");
    assert!(found.is_empty(), "serving changed {} things:\n{}", found.len(), found[..found.len().min(10)].join("\n"));
    work(node, MAKE, "ladrillo");
    // Old directories go on being used.
    work(
        node,
        "echo new > stock/many/new; rm stock/many/1; mv stock/many/2 stock/many/1; mv stock/many/1 stock/many/2; rm stock/many/new; echo 'content 1' > stock/many/1",
        "stock",
    );
    stop(node);
    let left = bricks(node);

    theirs();
    start(node);
    work(node, "cd ladrillo; sha256sum --quiet -c /run/sums-$2-ladrillo", "ladrillo");
    work(node, CHECK, "ladrillo");
    work(node, "cd stock; sha256sum --quiet -c /run/sums-$2-stock", "stock");
    wait_until_healed(node, "rep", 3, Duration::from_secs(30));
    wait_until_healed(node, "dr", 6, Duration::from_secs(30));
    let found = changes(&left, &bricks(node), "ladrillo");
    assert!(found.is_empty(), "GlusterFS changed {} things:\n{}", found.len(), found[..found.len().min(10)].join("\n"));
    work(node, "rm -r stock ladrillo; test -z \"$(ls)\"", "-");
    stop(node);
}
