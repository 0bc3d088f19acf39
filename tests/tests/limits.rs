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

/// `LONG=1`: a million files, as the promise has it; else 4,000, which are enough to see what one costs.
#[test]
fn a_client_that_has_walked_many_files_stays_small() {
    let is_long = std::env::var("LONG").is_ok_and(|value| !value.is_empty() && value != "0");
    let directories = if is_long { 100 } else { 4 };
    let (per_directory, limit) = if is_long { (10_000, 3000) } else { (1_000, 120) };
    let cluster = Cluster::builder(1).brick_size("24G").build();
    cluster.form_pool();
    let node = cluster.node(1);
    let limit = std::time::Duration::from_secs(limit);
    node.gluster("volume create gv0 debian1:/mnt/brick1/gv0").must();
    node.gluster("volume start gv0").must();
    cluster.wait_online("gv0", 1);
    let mount = "mount -t glusterfs debian1:/gv0 /mnt/gv0";
    let fill = format!(
        "import os
for d in range({directories}):
    os.mkdir(f'/mnt/gv0/d{{d}}')
    for n in range({per_directory}): os.mknod(f'/mnt/gv0/d{{d}}/a-name-of-some-length-{{n:06}}')"
    );
    node.sh_within(limit, &format!("{mount}; python3 -c \"{fill}\" && umount /mnt/gv0 && {mount}")).must();
    let resident = |program: &str| {
        let report =
            node.sh(&format!("awk '/^VmRSS|^VmHWM/ {{print $2}}' /proc/$(pgrep -x {program} | tail -1)/status"));
        let kib: Vec<u64> = report.must().stdout.lines().filter_map(|line| line.parse().ok()).collect();
        (kib[1], kib[0])
    };
    let before = (resident("glusterfs"), resident("glusterfsd"));
    let found = node.sh_within(limit, "ls -lR /mnt/gv0 | grep -c '^-'").must().stdout;
    assert_eq!(found.trim(), (directories * per_directory).to_string());
    let walked = (resident("glusterfs"), resident("glusterfsd"));
    // The kernel forgets what it does not use: so do we.
    node.sh("echo 2 > /proc/sys/vm/drop_caches; sleep 1; echo 2 > /proc/sys/vm/drop_caches").must();
    let forgotten = (resident("glusterfs"), resident("glusterfsd"));
    println!("(now, peak) KiB of client and brick: {before:?}, walked {walked:?}, forgotten {forgotten:?}");
    for ((_, peak), program) in [(forgotten.0, "client"), (forgotten.1, "brick")] {
        assert!(peak <= CEILING_KIB, "{program}: {} MiB at its peak", peak >> 10);
    }
}
