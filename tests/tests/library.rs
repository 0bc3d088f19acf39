//! The promise: programs use a volume through the library as mounts do. The example program copies a tree into a volume
//! and out again, a mount sees it in between, and it goes on while a brick is killed.

use std::path::PathBuf;
use std::time::Duration;

use ladrillo_tests::{Cluster, Node, wait_until, wait_until_healed};

/// `copy_tree`, which `make build` puts beside the programs.
fn copy_tree() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let target = own.parent().and_then(|deps| deps.parent()).expect("target/debug/deps");
    let program = target.join("examples/copy_tree");
    assert!(program.exists(), "{} is not built: run `make build` first", program.display());
    program
}

fn copy(node: &Node, arguments: &str) {
    let done = node.sh_within(Duration::from_secs(90), &format!("{} {arguments}", copy_tree().display())).must();
    assert!(done.stdout.contains(" files, "), "{done}");
}

#[test]
fn a_tree_goes_in_and_out_without_a_mount() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let node = cluster.node(3);
    cluster.make_tar(3, "/run/tree.tar", 300);
    node.sh("mkdir /run/in && tar xf /run/tree.tar -C /run/in && truncate -s 3M /run/in/tree/holes").must();
    copy(node, "put debian1 gv0 /run/in/tree /some/tree");
    // A mount on another machine sees it, times and permissions included.
    let list = "find . -printf '%P %y %m %s %l %T@\\n' | sort";
    let seen = cluster.node(2).sh(&format!("cd /mnt/gv0/some/tree && {list}")).must();
    // Directories' sizes are the file system's business.
    let strip = |text: &str| {
        let lines = text.lines().map(|line| {
            let mut words: Vec<&str> = line.split(' ').collect();
            if words.get(1) == Some(&"d") {
                words.remove(3);
            } else if words.get(1) == Some(&"l") {
                words.pop();
            }
            words.join(" ")
        });
        lines.filter(|line| !line.starts_with(" d")).collect::<Vec<_>>()
    };
    let local = node.sh(&format!("cd /run/in/tree && {list}")).must();
    assert_eq!(strip(&seen.stdout), strip(&local.stdout));
    // Out again, while a brick is away for half of it.
    cluster.kill_brick("gv0", 1);
    copy(node, "get debian2 gv0 /some/tree /run/out");
    copy(node, "put debian2 gv0 /run/out /again");
    node.sh("diff -r --no-dereference /run/in/tree /run/out").must();
    node.gluster("volume start gv0 force").must();
    cluster.wait_online("gv0", 3);
    wait_until_healed(node, "gv0", 3, Duration::from_secs(60));
    cluster.node(1).sh("diff -r --no-dereference /mnt/gv0/some/tree /mnt/gv0/again").must();
    cluster.wait_identical("gv0", Duration::from_secs(30));
    // What is not there is said in words.
    for wrong in ["get debian1 nothere / /run/x", "get debian1 gv0 /nothere /run/x", "get nohost gv0 / /run/x"] {
        let refused =
            node.sh_within(Duration::from_secs(60), &format!("{} {wrong}", copy_tree().display())).must_fail();
        assert!(refused.stderr.starts_with("copy_tree: ") && refused.code == 1, "{refused}");
    }
}

#[test]
fn an_open_volume_follows_its_graph() {
    let cluster = Cluster::builder(2).build();
    cluster.form_pool();
    let node = cluster.node(1);
    node.gluster("volume create gv0 debian1:/mnt/brick1/gv0").must();
    node.gluster("volume start gv0").must();
    cluster.wait_online("gv0", 1);
    cluster.make_tar(1, "/run/tree.tar", 3000);
    node.sh("mkdir /run/in && tar xf /run/tree.tar -C /run/in").must();
    let put = node.spawn(&format!("{} put debian1 gv0 /run/in/tree /tree", copy_tree().display()));
    // In the middle of it the volume gets a second brick.
    let is_at_work = || node.sh("[ $(find /mnt/brick1/gv0/tree -type f | wc -l) -gt 20 ]").ok();
    assert!(wait_until(Duration::from_secs(30), is_at_work), "{}", put.finish(Duration::from_secs(1)));
    node.sh("pkill -STOP -x copy_tree").must();
    node.gluster("volume add-brick gv0 debian2:/mnt/brick1/gv0").must();
    node.sh("pkill -CONT -x copy_tree").must();
    put.finish(Duration::from_secs(120)).must();
    let on_new = "find /mnt/brick1/gv0/tree -type f -size +0 | wc -l";
    let count: usize = cluster.node(2).sh(on_new).must().stdout.trim().parse().unwrap();
    assert!(count > 20, "{count} files are on the brick that was added");
    cluster.mount(1, "gv0", "/mnt/gv0");
    node.sh("diff -r --no-dereference /run/in/tree /mnt/gv0/tree").must();
}
