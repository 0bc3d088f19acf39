//! The promise: memory is bounded, and payloads are not copied. After a mixed workload no process of ours has ever held
//! more than the ceiling, and the clients' counters of copied payload bytes are still 0 (by FUSE over io_uring: no more than
//! was read, see `front_ends.rs`).

use ladrillo_tests::Cluster;

/// Peak resident memory any process may have reached, KiB.
const CEILING_KIB: u64 = 256 << 10;

#[test]
fn memory_stays_below_the_ceiling() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let node = cluster.node(1);
    cluster.make_tar(1, "/run/tree.tar", 1500);
    let limit = std::time::Duration::from_secs(300);
    let script = "set -e; cd /mnt/gv0; dd if=/dev/zero of=big bs=1M count=300 conv=fsync status=none; mkdir t
         tar xf /run/tree.tar -C t; ls -lR t > /run/list; cat big > /dev/null; tar cf - t | cat > /dev/null
         for i in 1 2 3 4; do dd if=/dev/zero of=par$i bs=64k count=800 status=none & done; wait; rm -r t";
    node.sh_within(limit, script).must();
    cluster.node(2).sh_within(limit, "cd /mnt/gv0; ls -lR > /dev/null; cat big par* > /dev/null").must();
    // Both mounts have moved hundreds of MiB: not one byte of it was copied in user space (SEMANTICS.md).
    for index in [1, 2] {
        let get = |name: &str| {
            let get = format!("getfattr --only-values -n glusterfs.ladrillo.{name} /mnt/gv0");
            cluster.node(index).sh(&get).must().stdout.trim().to_owned()
        };
        // `big`, the tree twice at most, the four `par`, and some read ahead.
        let allowed = if get("front-end") == "ring" { 700 << 20 } else { 0 };
        let copied: u64 = get("copied-bytes").parse().expect("a number");
        assert!(copied <= allowed, "{copied} bytes copied by the mount on node {index}");
    }
    let mut seen = 0;
    for node in cluster.nodes() {
        let report = node.sh("for p in $(pgrep -f '^[^ ]*gluster(d|fs|fsd)( |$)'); do
                 echo $p $(awk '/^VmHWM/ {print $2}' /proc/$p/status) $(tr '\\0' ' ' < /proc/$p/cmdline); done");
        for line in report.must().stdout.lines() {
            let Some(peak) = line.split_whitespace().nth(1).and_then(|w| w.parse::<u64>().ok()) else { continue };
            println!("{} {line}", node.name());
            assert!(peak <= CEILING_KIB, "{}: {} MiB at its peak: {line}", node.name(), peak >> 10);
            seen += 1;
        }
    }
    // Three glusterd, three bricks, three heal services, two mounts.
    assert!(seen >= 8, "only {seen} processes were found");
}
