//! The promise: old clients stay mounted. Debian's GlusterFS client mounts our volume through our GETSPEC and works; it
//! and ours write at once; and our client works on Debian's GlusterFS servers.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use ladrillo_tests::{Cluster, Programs, wait_until_healed};

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(2)
}

fn need_stock() {
    assert!(Path::new("/usr/sbin/glusterfsd").exists(), "Debian's glusterfs-server is not installed: run tools/setup");
}

/// What an application does, on `/mnt/gv0` of a machine that has `/run/tree.tar`.
const WORK: &str = r#"
set -e; trap 'echo "failed: $BASH_COMMAND"' ERR
cd /mnt/gv0; mkdir work; cd work
tar xf /run/tree.tar; mkdir /run/source; tar xf /run/tree.tar -C /run/source
diff -r --no-dereference /run/source/tree tree
(cd tree && find . -type f -print0 | sort -z | xargs -0 sha256sum) > sums
(cd tree && sha256sum --quiet -c ../sums)
mv tree moved; (cd moved && sha256sum --quiet -c ../sums)
mkdir a; mv moved/link1 a/; mv a b; test -L b/link1
echo one > f1; ln f1 f2; test $(stat -c %h f1) = 2; rm f1; test "$(cat f2)" = one; mv f2 b/; ln -s b/f2 s; test "$(cat s)" = one
head -c 20000000 /dev/urandom > big; cp big big2; cmp big big2; truncate -s 1000 big2; test $(stat -c %s big2) = 1000
printf 'tail' >> big2; test $(stat -c %s big2) = 1004
setfattr -n user.a -v 1 big; test "$(getfattr --only-values -n user.a big)" = 1; setfattr -x user.a big
chmod 600 big; chown 7:8 big; test "$(stat -c '%a %u %g' big)" = '600 7 8'
flock big true; fallocate -l 100000 alloc; test $(stat -c %s alloc) = 100000
mkfifo p; mknod n c 1 3
rm -r moved; test $(ls | wc -l) = 8; df . > /dev/null
"#;

/// Every name of an extended attribute GlusterFS may leave on a brick.
const EXPLAINED: &[&str] = &[
    "trusted.gfid",
    "trusted.gfid2path.",
    "trusted.glusterfs.mdata",
    "trusted.glusterfs.volume-id",
    "trusted.glusterfs.dht",
    "trusted.glusterfs.dht.mds",
    "trusted.afr.dirty",
    "trusted.afr.gv0-client-",
    "trusted.pgfid.",
    "trusted.glusterfs.quota.",
    "security.selinux",
    "system.posix_acl_",
    "user.",
];

fn only_explained_xattrs(cluster: &Cluster) {
    let mut odd = BTreeSet::new();
    for (brick, tree) in cluster.bricks("gv0") {
        assert!(tree.entries.len() > 3, "{brick} is empty");
        for (path, entry) in tree.entries {
            for name in entry.xattrs.keys().filter(|x| !EXPLAINED.iter().any(|e| x.starts_with(e))) {
                odd.insert(format!("{brick}:{} {name}", path.display()));
            }
        }
    }
    assert!(odd.is_empty(), "unexplained attributes: {odd:#?}");
}

#[test]
fn debians_client_on_our_volume() {
    need_stock();
    let cluster = Cluster::builder(3).client(Programs::Stock).build();
    cluster.form_pool();
    cluster.create_replicated("gv0");
    cluster.mount(4, "gv0", "/mnt/gv0");
    cluster.mount(1, "gv0", "/mnt/gv0");
    cluster.make_tar(4, "/run/tree.tar", 400);
    cluster.node(4).sh_within(Duration::from_secs(300), WORK).must();
    // Ours sees what theirs wrote.
    let seen = cluster.node(1).sh("cd /mnt/gv0/work; test $(ls | wc -l) = 8; sha256sum < big; cat s").must();
    let theirs = cluster.node(4).sh("cd /mnt/gv0/work; sha256sum < big; cat s").must();
    assert_eq!(seen.stdout, theirs.stdout);
    cluster.node(4).sh("umount /mnt/gv0").must();
    cluster.wait_identical("gv0", Duration::from_secs(30));
    only_explained_xattrs(&cluster);
}

#[test]
fn our_client_on_debians_servers() {
    need_stock();
    let cluster = Cluster::builder(3).server_programs(Programs::Stock).client(Programs::Ours).build();
    cluster.form_pool();
    cluster.create_replicated("gv0");
    cluster.mount(4, "gv0", "/mnt/gv0");
    cluster.make_tar(4, "/run/tree.tar", 400);
    cluster.node(4).sh_within(Duration::from_secs(300), WORK).must();
    cluster.node(4).sh("umount /mnt/gv0").must();
    cluster.wait_identical("gv0", Duration::from_secs(30));
    only_explained_xattrs(&cluster);
    // And theirs sees what ours wrote.
    cluster.mount(1, "gv0", "/mnt/gv0");
    cluster.node(1).sh("cd /mnt/gv0/work; test $(ls | wc -l) = 8; test \"$(cat s)\" = one; rm -r b").must();
}

#[test]
fn both_clients_write_while_bricks_die() {
    need_stock();
    let cluster = Cluster::builder(3).client(Programs::Stock).build();
    cluster.form_pool();
    cluster.create_replicated("gv0");
    cluster.mount(1, "gv0", "/mnt/gv0");
    cluster.mount(4, "gv0", "/mnt/gv0");
    for round in 0..rounds() {
        let work = |who: &str| {
            format!(
                "set -e; mkdir -p /mnt/gv0/{who}; cd /mnt/gv0/{who}
                 fio --name={who}{round} --directory=. --rw=randwrite --bs=4k --size=16M --rate=,3m --verify=crc32c \
                     --do_verify=1 --verify_fatal=1 --end_fsync=1 --fallocate=none > /run/fio.log
                 for i in $(seq 40); do echo {who} $i > ../shared-{who}-{round}-$i; echo {who} >> ../both-{round}; done"
            )
        };
        let ours = cluster.node(1).spawn(&work("ours"));
        let theirs = cluster.node(4).spawn(&work("theirs"));
        sleep(Duration::from_secs(2));
        cluster.kill_brick("gv0", round % 3 + 1);
        sleep(Duration::from_secs(2));
        cluster.node(1).gluster("volume start gv0 force").must();
        ours.finish(Duration::from_secs(180)).must();
        theirs.finish(Duration::from_secs(180)).must();
        cluster.wait_online("gv0", 3);
        wait_until_healed(cluster.node(1), "gv0", 3, Duration::from_secs(120));
        for node in [cluster.node(1), cluster.node(4)] {
            let files = node.sh(&format!("ls /mnt/gv0 | grep -c -- '-{round}-'; wc -l < /mnt/gv0/both-{round}")).must();
            assert_eq!(files.stdout, "80\n80\n", "on {}", node.name());
        }
        cluster.wait_identical("gv0", Duration::from_secs(60));
    }
}
