//! The promise: whatever comes in from outside (the wire, the command line, the disk) gives a clear error, and harms
//! nobody else: no daemon dies, no other client waits.

use std::time::{Duration, Instant};

use ladrillo_tests::{Cluster, Node, Programs, volume_status, wait_until};

/// Sends each of a list of byte strings to HOST PORT on a connection of its own, and reads what comes back.
const ABUSE: &str = r#"
import os, random, socket, struct, sys
host, port = sys.argv[1], int(sys.argv[2])
random.seed(20)

def mark(data, last=True): return struct.pack('>I', len(data) | (0x80000000 if last else 0)) + data
def call(program, version, procedure, body=b'', rpc=2, kind=0, flavour=0, credential=b'', xid=7):
    pad = b'\0' * (-len(credential) % 4)
    head = struct.pack('>IIIIII', xid, kind, rpc, program, version, procedure)
    return mark(head + struct.pack('>II', flavour, len(credential)) + credential + pad + struct.pack('>II', 0, 0) + body)

FOP, HANDSHAKE, PORTMAP, DUMP, CLI, CBK = 1298437, 14398633, 34123456, 123451501, 1238463, 52743234
cases = [b'', b'\0', b'\x80', b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + os.urandom(200)]
cases += [os.urandom(n) for n in (1, 3, 4, 5, 40, 1000, 70000)]
cases += [struct.pack('>I', 0x80000000 | n) + b'x' * 10 for n in (0, 11, 1000, 0x100000, 0x7fffffff)]
cases += [struct.pack('>I', 0x7fffffff) + b'y' * 100000, struct.pack('>I', 0) * 50000]
cases += [mark(b'ab', False) * 3000, mark(os.urandom(64)), mark(b'\0' * 3), mark(b'\0' * 4)]
cases += [call(p, v, n) for p, v, n in ((1, 1, 1), (FOP, 399, 1), (FOP, 400, 9999), (FOP, 0xffffffff, 1), (HANDSHAKE, 2, 77),
                                         (CLI, 2, 99), (CBK, 1, 1), (0, 0, 0), (0xffffffff,) * 3)]
cases += [call(FOP, 400, 27, rpc=3), call(FOP, 400, 27, kind=1), call(FOP, 400, 27, kind=9), call(DUMP, 1, 1, flavour=77)]
cases += [call(FOP, 400, 27, flavour=390039, credential=c) for c in (b'', b'\xff' * 3, b'\xff' * 400, b'\xff' * 4000, b'\0' * 24)]
cases += [call(FOP, 400, n, os.urandom(random.choice((0, 4, 16, 60, 400)))) for n in range(0, 62)]
cases += [call(FOP, 400, n, b'\xff' * 64) for n in range(0, 62)]
cases += [call(p, v, n, b) for p, v in ((HANDSHAKE, 2), (PORTMAP, 1), (CLI, 2), (1238433, 2), (1238437, 3), (1298433, 2), (DUMP, 1))
          for n in range(0, 12) for b in (b'', b'\xff' * 16, b'\0\0\0\4' + b'abcd', b'\0\0\xff\xff' + b'z' * 40)]
# A dictionary that says it has four thousand million members, and one whose value is longer than the record.
cases += [call(HANDSHAKE, 2, 1, struct.pack('>I', 8) + b'\xff\xff\xff\xff\0\0\0\0'),
          call(HANDSHAKE, 2, 1, struct.pack('>I', 16) + struct.pack('>III', 1, 4, 0x7ffffff0) + b'keyz')]
for data in cases:
    s = socket.create_connection((host, port), 5); s.settimeout(0.05)
    try:
        s.sendall(data)
        for _ in range(4):
            if not s.recv(65536): break
    except OSError: pass
    s.close()
# Many at once that say nothing, one that never ends its record, and one that never reads its answers.
idle = [socket.create_connection((host, port), 5) for _ in range(200)]
idle[0].sendall(struct.pack('>I', 0x80000100) + b'z' * 200)
idle[1].settimeout(1)
try:
    for _ in range(20000): idle[1].sendall(call(DUMP, 1, 1))
except OSError: pass
for s in idle: s.close()
print(len(cases))
"#;

/// The processes of every machine, to see that none was replaced.
fn processes(cluster: &Cluster) -> Vec<String> {
    let list = |n: &Node| n.sh("pgrep -x 'glusterd|glusterfsd'").must().stdout;
    cluster.servers().iter().map(list).collect()
}

#[test]
fn garbage_on_the_wire_harms_nobody() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let before = processes(&cluster);
    let fio = cluster.node(2).spawn(
        "fio --name=v --directory=/mnt/gv0 --rw=randwrite --bs=4k --size=24M --rate=,2m --verify=crc32c --do_verify=1 \
         --verify_fatal=1 --end_fsync=1 --fallocate=none",
    );
    let port = volume_status(cluster.node(1), "gv0").first().and_then(|b| b.port).expect("a brick's port");
    std::fs::write(cluster.node(3).path("/run/abuse.py"), ABUSE).unwrap();
    for port in [24007, port] {
        let script = format!("python3 /run/abuse.py debian1 {port}");
        let done = cluster.node(3).sh_within(Duration::from_secs(240), &script).must();
        assert!(done.stdout.trim().parse::<usize>().is_ok_and(|sent| sent > 300), "{done}");
        // Somebody else's command is answered at once.
        let asked = Instant::now();
        cluster.node(1).gluster("volume info gv0").must();
        assert!(asked.elapsed() < Duration::from_secs(10), "glusterd took {:?}", asked.elapsed());
    }
    fio.finish(Duration::from_secs(180)).must();
    assert_eq!(processes(&cluster), before, "a daemon died of garbage");
    cluster.node(1).sh("echo fine > /mnt/gv0/after && cat /mnt/gv0/after").must();
}

#[test]
fn a_volume_or_server_that_is_not_there() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let node = cluster.node(1);
    for what in ["debian1:/nothere", "debian1:/", "nohost:/gv0", "debian1"] {
        let asked = Instant::now();
        let refused = node.sh(&format!("mkdir -p /mnt/x; mount -t glusterfs {what} /mnt/x")).must_fail();
        assert!(refused.code != 124 && asked.elapsed() < Duration::from_secs(60), "{what} hung: {refused}");
        assert!(!(refused.stderr.clone() + &refused.stdout).trim().is_empty(), "{what}: no word of it");
        node.sh("mountpoint -q /mnt/x").must_fail();
    }
    node.sh("mount -t glusterfs debian1:/gv0 /mnt/nodirectory").must_fail();
    node.sh("echo unharmed > /mnt/gv0/file").must();
}

#[test]
fn bricks_that_are_missing_or_foreign() {
    let cluster = Cluster::builder(3).build();
    cluster.form_pool();
    let node = cluster.node(1);
    let create = |name: &str, path: &str| {
        node.gluster(&format!("volume create {name} replica 3 debian1:{path} debian2:{path} debian3:{path}"))
    };
    let refused = create("v1", "/mnt/no/such/parent").must_fail();
    assert!(refused.stderr.contains("/mnt/no/such/parent"), "{refused}");
    create("gv0", "/mnt/brick1/gv0").must();
    let used = create("v2", "/mnt/brick1/gv0").must_fail();
    let said = ["already part of a volume", "contained by an existing brick"];
    assert!(said.iter().any(|s| used.stderr.contains(s)), "{used}");
    // A directory that is gone: its brick says so and stays down, whoever asks.
    cluster.node(2).sh("mv /mnt/brick1/gv0 /mnt/brick1/away").must();
    let refused = node.gluster("volume start gv0").must_fail();
    assert!(refused.stderr.contains("/mnt/brick1/gv0"), "{refused}");
    cluster.node(2).sh("mv /mnt/brick1/away /mnt/brick1/gv0").must();
    // Somebody else's brick in its place.
    let foreign = "setfattr -n trusted.glusterfs.volume-id -v 0x00112233445566778899aabbccddeeff /mnt/brick1/gv0";
    let own = "getfattr --absolute-names -n trusted.glusterfs.volume-id -e hex /mnt/brick1/gv0 | sed -n 's/.*=//p'";
    let own = cluster.node(3).sh(own).must().stdout.trim().to_owned();
    cluster.node(3).sh(foreign).must();
    let started = node.gluster("volume start gv0 force");
    let three_online = || volume_status(node, "gv0").iter().filter(|b| b.online).count() == 3;
    assert!(!wait_until(Duration::from_secs(3), three_online), "a foreign brick is served: {started}");
    cluster.node(3).sh(&format!("setfattr -n trusted.glusterfs.volume-id -v {own} /mnt/brick1/gv0")).must();
    node.gluster("volume start gv0 force").must();
    cluster.wait_online("gv0", 3);
    cluster.mount(1, "gv0", "/mnt/gv0");
    node.sh("echo works > /mnt/gv0/file").must();
}

#[test]
fn a_full_disk_is_enospc_and_nothing_worse() {
    let cluster = Cluster::builder(3).brick_size("96M").build().with_volume("gv0");
    let before = processes(&cluster);
    let node = cluster.node(1);
    node.sh("echo kept > /mnt/gv0/kept").must();
    let full = node.sh("dd if=/dev/zero of=/mnt/gv0/fill bs=1M count=200 conv=fsync").must_fail();
    assert!(full.stderr.contains("No space left on device"), "{full}");
    // Reading, and making room, still work; then writing does again, for everybody.
    assert_eq!(cluster.node(2).sh("cat /mnt/gv0/kept").must().stdout, "kept\n");
    node.sh("rm /mnt/gv0/fill").must();
    let room = wait_until(Duration::from_secs(20), || {
        cluster.node(2).sh("dd if=/dev/zero of=/mnt/gv0/again bs=1M count=8 conv=fsync").ok()
    });
    assert!(room, "{}", cluster.node(2).sh("dd if=/dev/zero of=/mnt/gv0/again bs=1M count=8 conv=fsync; df -h"));
    assert_eq!(processes(&cluster), before, "a daemon died of a full disk");
    cluster.wait_identical("gv0", Duration::from_secs(60));
}

#[test]
fn daemons_refuse_bad_arguments_and_volfiles() {
    let cluster = Cluster::builder(1).build();
    let node = cluster.node(1);
    if node.programs() == Programs::Stock {
        return;
    }
    std::fs::write(node.path("/run/bad.vol"), "volume a\n type nosuch/translator\n option\nend-volume\nvolume")
        .unwrap();
    for command in [
        "glusterfs -f /run/bad.vol /mnt/gv0",
        "glusterfs -f /run/nothere.vol /mnt/gv0",
        "glusterfs --nonsense",
        "glusterfsd -f /run/bad.vol -N",
        "glusterfsd --nonsense",
        "glusterd --nonsense",
        "glusterd --xlator-option management.working-directory=/proc/nothere -N",
    ] {
        let refused = node.sh_within(Duration::from_secs(30), command).must_fail();
        assert!(refused.code != 124 && refused.code < 128, "{refused}");
        assert!(!refused.stderr.contains("panicked"), "{refused}");
    }
}
