//! The promise: GlusterFS's client and ours agree about a distributed volume: where files are, what linkto files say, which
//! directory has which layout. On our bricks, and on Debian's.

use std::path::Path;
use std::time::Duration;

use ladrillo_tests::{Cluster, Programs};

fn need_stock() {
    assert!(Path::new("/usr/sbin/glusterfsd").exists(), "Debian's glusterfs-server is not installed: run tools/setup");
}

/// Writes a tree below `/mnt/gv0/$WHO`.
const WRITE: &str = r#"
set -e; trap 'echo "failed: $BASH_COMMAND"' ERR
mkdir -p /mnt/gv0/$WHO/d/e; cd /mnt/gv0/$WHO
for i in $(seq 80); do echo $WHO $i > d/$i; done; for i in $(seq 30); do mv d/$i d/moved-$i; done
for i in $(seq 31 50); do ln d/$i d/e/link-$i; done; mv d/e e; mv e d/e
setfattr -n user.a -v $WHO d; chmod 711 d
(cd d; find . -type f -print0 | sort -z | xargs -0 sha256sum) > sums
"#;

/// Checks the tree below `/mnt/gv0/$WHO`, then changes every part of it and removes it.
const USE: &str = r#"
set -e; trap 'echo "failed: $BASH_COMMAND"' ERR
cd /mnt/gv0/$WHO; (cd d; sha256sum --quiet -c ../sums; test $(find . -type f | wc -l) = 100)
test "$(getfattr --only-values -n user.a d)" = $WHO; test $(stat -c %a d) = 711
for i in $(seq 30); do mv d/moved-$i d/$i; done; for i in $(seq 31 50); do rm d/$i; done
for i in $(seq 31 50); do test "$(cat d/e/link-$i)" = "$WHO $i"; done
for i in $(seq 30); do test "$(cat d/$i)" = "$WHO $i"; echo again > d/$i; done
cd /mnt/gv0; rm -r $WHO; ! ls $WHO 2> /dev/null
"#;

fn both_clients(servers: Programs, client: Programs) {
    need_stock();
    let cluster = Cluster::builder(3).server_programs(servers).client(client).build();
    cluster.form_pool();
    cluster.create("gv0", "");
    // Machine 1 mounts with the servers' programs, machine 4 with the others'.
    cluster.mount(1, "gv0", "/mnt/gv0");
    cluster.mount(4, "gv0", "/mnt/gv0");
    let run = |on: usize, who: &str, script: &str| {
        cluster.node(on).sh_within(Duration::from_secs(120), &format!("WHO={who}\n{script}")).must();
    };
    run(1, "servers", WRITE);
    run(4, "client", WRITE);
    // Both wrote the same names: below directories with one layout they lie on the same bricks.
    let trees = cluster.bricks("gv0");
    let layout = |tree: &ladrillo_tests::BrickTree, path: &str| {
        tree.entries[Path::new(path)].xattrs.get("trusted.glusterfs.dht").cloned()
    };
    for (name, tree) in &trees {
        for who in ["servers", "client"] {
            let raw = layout(tree, &format!("{who}/d")).unwrap_or_else(|| panic!("{name}: {who}/d has no layout"));
            assert_eq!(raw.len(), 16);
            assert_eq!(raw[..8], [0; 8], "{name}: commit hash and type of {who}/d");
        }
        for (path, entry) in &tree.entries {
            if let Some(target) = entry.xattrs.get("trusted.glusterfs.dht.linkto") {
                assert_eq!((entry.mode & 0o7777, entry.size), (0o1000, 0), "{name}: {}", path.display());
                assert_eq!(target.last(), Some(&0), "{name}: {}: a target without its NUL", path.display());
            }
        }
    }
    run(4, "servers", USE);
    run(1, "client", USE);
    for (name, tree) in cluster.bricks("gv0") {
        let left: Vec<_> = tree.entries.keys().filter(|path| !path.as_os_str().is_empty()).collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
}

#[test]
fn on_our_bricks() {
    both_clients(Programs::Ours, Programs::Stock);
}

#[test]
fn on_debians_bricks() {
    both_clients(Programs::Stock, Programs::Ours);
}
