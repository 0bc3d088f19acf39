//! The promise: a client that speaks the protocol well and means ill (locks it never gives back, descriptors it never
//! closes, names that lead elsewhere, identities that are not there, lists without end, connections without number) gets
//! errors and costs bounded memory, and the others go on. `LONG=1`: 100,000 connections.

use std::time::{Duration, Instant};

use ladrillo_tests::{Cluster, Node, Programs, volume_status, wait_until};

/// Resident memory a brick may reach, KiB. Source: the ceiling of `limits.rs`.
const CEILING_KIB: u64 = 256 << 10;

/// hostile.py HOST PORT BRICK-PATH STEP ARGUMENT
const HOSTILE: &str = r#"
import errno, os, resource, socket, struct, sys, time
host, port, brick, step, argument = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
FOP, HANDSHAKE = (1298437, 400), (14398633, 2)
ROOT = bytes(15) + b'\1'
NO_XDATA = struct.pack('>IiI', 0, -1, 0)

def opaque(data): return struct.pack('>I', len(data)) + data + bytes(-len(data) % 4)

# AUTH_GLUSTERFS v2: root, no groups, a lock owner.
CREDENTIAL = struct.pack('>I', 390039) + opaque(struct.pack('>iIII', 1, 0, 0, 0) + opaque(b'hostile!'))

class Client:
    def __init__(self):
        self.socket = socket.create_connection((host, port), 10)
        self.socket.settimeout(60)
        self.xid, self.buffer = 0, b''
        pairs = {'process-uuid': f'hostile-{os.getpid()}-{id(self)}', 'remote-subvolume': brick, 'version': '10.3',
                 'client-version': '10.3', 'fops-version': '1298437', 'opversion': '100000', 'clnt-lk-version': '1'}
        packed = struct.pack('>I', len(pairs))
        for key, value in pairs.items():
            packed += struct.pack('>II', len(key), len(value) + 1) + key.encode() + b'\0' + value.encode() + b'\0'
        self.send(HANDSHAKE, 1, opaque(packed))
        result, error, _ = self.answer()
        assert result >= 0, f'SETVOLUME: {os.strerror(error)}'

    def send(self, program, procedure, body):
        self.xid += 1
        call = struct.pack('>IIIIII', self.xid, 0, 2, *program, procedure) + CREDENTIAL + bytes(8) + body
        self.socket.sendall(struct.pack('>I', 0x80000000 | len(call)) + call)

    def take(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(1 << 20)
            assert more, 'the brick closed the connection'
            self.buffer += more
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def answer(self):
        length = struct.unpack('>I', self.take(4))[0] & 0x7fffffff
        reply = self.take(length)
        status = struct.unpack('>I', reply[20:24])[0]
        if status != 0: return -1, -status, b''
        result, error = struct.unpack('>ii', reply[24:32])
        return result, error, reply[32:]

    def fop(self, procedure, body):
        self.send(FOP, procedure, body)
        return self.answer()

def lookup(gfid, parent, name): return 27, gfid + parent + struct.pack('>I', 0) + opaque(name) + NO_XDATA
def gfid_req(gfid): 
    value = struct.pack('>I', 8) + gfid  # GF_DATA_TYPE_GFUUID
    pair = opaque(b'gfid-req\0') + value
    return struct.pack('>Iii', len(pair), 1, 1) + pair
def mkdir(parent, name, gfid=None): return 4, parent + struct.pack('>II', 0o755, 0) + opaque(name) + gfid_req(gfid or os.urandom(16))
def create(parent, name, gfid=None): return 23, parent + struct.pack('>III', 2, 0o644, 0) + opaque(name) + gfid_req(gfid or os.urandom(16))
def unlink(parent, name): return 5, parent + opaque(name) + struct.pack('>I', 0) + NO_XDATA
def rename(parent, old, new): return 8, parent + parent + opaque(old) + opaque(new) + NO_XDATA
def flock(kind, start, length): return struct.pack('>IIQQI', kind, 0, start, length, 1) + opaque(b'')
def inodelk(gfid, start, length, cmd=1): return 29, gfid + struct.pack('>II', cmd, 1) + flock(1, start, length) + opaque(b'hostile') + NO_XDATA
def lk(gfid, fd, start, length, cmd=1): return 26, gfid + struct.pack('>q', fd) + struct.pack('>II', cmd, 1) + flock(1, start, length) + NO_XDATA

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
client = Client()
victim = bytes.fromhex(open('/run/victim').read().strip()[2:])
many, refused = argument, 0

def flood(calls):
    """Sends all, reads answers meanwhile: the errors."""
    errors, waiting = [], 0
    for procedure, body in calls:
        client.send(FOP, procedure, body); waiting += 1
        if waiting == 64:
            for _ in range(32): errors.append(client.answer()[:2])
            waiting -= 32
    for _ in range(waiting): errors.append(client.answer()[:2])
    return [error for result, error in errors if result < 0]

if step == 'locks':
    # Some on one file, the rest on identities that nobody has.
    where = lambda i: victim if i < 1000 else os.urandom(16)
    expected = {errno.ENOLCK, errno.ENOMEM, errno.EAGAIN, errno.ENOENT, errno.ESTALE}
    errors = flood(inodelk(where(i), 2 * i, 1) for i in range(many))
    assert errors and set(errors) <= expected, set(errors)
    client = Client()
    errors = flood(lk(where(i), -2, 2 * i, 1) for i in range(many))
    assert errors and set(errors) <= expected, set(errors)
    # The whole file, and then gone without a word.
    client = Client(); client.fop(*lk(victim, -2, 0, 0))
elif step == 'fds':
    errors = flood((11, victim + struct.pack('>I', 2) + NO_XDATA) for _ in range(many))
    assert set(errors) <= {errno.EMFILE, errno.ENFILE, errno.ENOMEM}, set(errors)
elif step == 'names':
    tricks = [b'..', b'../..', b'a/b', b'/', b'/etc/passwd', b'../../../../../../tmp/hostile-was-here', b'a\0b', b'\0', b'n' * 256, b'n' * 70000]
    for name in tricks:
        for call in (mkdir(ROOT, name), create(ROOT, name), unlink(ROOT, name), rename(ROOT, name, b'x'), rename(ROOT, b'file', name)):
            result, error, _ = client.fop(*call)
            assert result < 0, (name[:40], call[0])
    for name in tricks:
        assert client.fop(*lookup(bytes(16), ROOT, name))[0] < 0, name[:40]
    for call in (lookup(bytes(16), ROOT, b'.glusterfs'), mkdir(ROOT, b'.glusterfs'), unlink(ROOT, b'.glusterfs'), rename(ROOT, b'file', b'.glusterfs'), create(ROOT, b'')):
        assert client.fop(*call)[0] < 0, call
    result, error, body = client.fop(*lookup(bytes(16), ROOT, b'file'))
    assert result == 0, 'an honest lookup afterwards'
elif step == 'gfids':
    strange = os.urandom(16)
    for gfid in (strange, bytes(16), b'\xff' * 16, bytes(15) + b'\2', bytes(15) + b'\5'):
        for call in (lookup(gfid, bytes(16), b''), (1, gfid + NO_XDATA), (11, gfid + struct.pack('>I', 2) + NO_XDATA), (10, gfid + struct.pack('>Q', 5) + NO_XDATA),
                     mkdir(gfid, b'x'), create(gfid, b'x'), (20, gfid + NO_XDATA)):
            result, error, _ = client.fop(*call)
            assert result < 0, (gfid.hex(), call[0])
    # Identities that are taken, or nobody's to take.
    for gfid in (victim, ROOT, bytes(16)):
        assert client.fop(*mkdir(ROOT, b'stolen', gfid))[0] < 0, gfid.hex()
        assert client.fop(*create(ROOT, b'stolen', gfid))[0] < 0, gfid.hex()
    # Descriptors nobody opened.
    for fd in (0, 1, 99999, -1, -3, -(1 << 63), (1 << 63) - 1):
        result, error, _ = client.fop(12, victim + struct.pack('>qQII', fd, 0, 4096, 0) + NO_XDATA)
        assert result < 0, fd
elif step == 'lists':
    result, _, fd = client.fop(20, ROOT + NO_XDATA)
    assert result == 0
    sent = 0
    for size in (0, 1, 0xffffffff):
        for offset in (0, 1, 1 << 62, (1 << 64) - 1):
            for procedure in (28, 40): client.fop(procedure, ROOT + struct.pack('>qQI', -2, offset, size) + NO_XDATA)
            result, error, data = client.fop(12, victim + struct.pack('>qQII', -2, offset, size, 0) + NO_XDATA)
            assert len(data) < 20 << 20
    pair = lambda i: opaque(b'user.%06d\0' % i) + struct.pack('>I', 5) + opaque(b'v')
    for count in (1000, 20000):
        pairs = b''.join(pair(i) for i in range(count))
        client.fop(27, ROOT + bytes(16) + struct.pack('>I', 0) + opaque(b'') + struct.pack('>Iii', len(pairs), count, count) + pairs)
        client = Client()
    # Allocate what no disk has; cut at what no file can be.
    for length in (1 << 62, (1 << 64) - 1):
        assert client.fop(44, victim + struct.pack('>qIQQ', -2, 0, 0, length) + NO_XDATA)[0] < 0
        assert client.fop(10, victim + struct.pack('>Q', length) + NO_XDATA)[0] < 0
elif step == 'connections':
    addresses = os.popen("ip -4 -o addr show dev eth0 | awk '{ sub(\"/.*\", \"\", $4); print $4 }'").read().split()
    # One process may not have so many: several share the work.
    share = min(hard - 100, 15000)
    parts = [range(first, min(first + share, many)) for first in range(0, many, share)]
    read, write = os.pipe()
    mine = next((part for part in parts if os.fork() == 0), None)
    if mine is None:
        os.close(write)
        counts = b''
        while counts.count(b'\n') < len(parts):
            more = os.read(read, 4096)
            assert more, 'one of them ended'
            counts += more
        print('held', sum(int(n) for n in counts.split()), flush=True)
        for _ in parts: os.wait()
        print('done', step); sys.exit()
    held = []
    for i in mine:
        s = socket.socket()
        try:
            s.settimeout(5); s.bind((addresses[i % len(addresses)], 0)); s.connect((host, port))
            if i % 2: s.sendall(struct.pack('>I', 0x80000100) + b'z' * 40)
            held.append(s)
        except OSError: refused += 1; s.close()
    os.write(write, b'%d\n' % len(held))
    end = time.monotonic() + 120
    while not os.path.exists('/run/let-go') and time.monotonic() < end: time.sleep(0.1)
    os._exit(0)
print('done', step)
"#;

struct Brick {
    port: u16,
    pid: u32,
}

fn brick(node: &Node) -> Brick {
    let status = volume_status(node, "gv0").into_iter().find(|b| b.name.starts_with("debian1:")).expect("a brick");
    Brick { port: status.port.expect("a port"), pid: status.pid.expect("a pid") }
}

fn resident_kib(node: &Node, pid: u32) -> u64 {
    let line = node.sh(&format!("grep VmRSS /proc/{pid}/status")).must().stdout;
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("VmRSS")
}

fn long() -> bool {
    std::env::var("LONG").is_ok_and(|value| !value.is_empty() && value != "0")
}

#[test]
fn a_hostile_client_gets_errors_and_harms_nobody() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    if cluster.node(1).programs() == Programs::Stock {
        return;
    }
    let (victim, hostile) = (cluster.node(1), cluster.node(3));
    victim.sh("echo precious > /mnt/gv0/file; mkdir /mnt/gv0/directory").must();
    let gfid =
        victim.sh("getfattr --absolute-names -n trusted.gfid -e hex /mnt/brick1/gv0/file | sed -n 's/.*=//p'").must();
    std::fs::write(hostile.path("/run/victim"), gfid.stdout.trim()).unwrap();
    std::fs::write(hostile.path("/run/hostile.py"), HOSTILE).unwrap();
    let target = brick(victim);
    let fio = cluster.node(2).spawn(
        "fio --name=v --directory=/mnt/gv0 --rw=randwrite --bs=4k --size=16M --rate=,1m --verify=crc32c --do_verify=1 \
         --verify_fatal=1 --end_fsync=1 --fallocate=none",
    );
    let descriptors = || victim.sh(&format!("ls /proc/{}/fd | wc -l", target.pid)).must().stdout.trim().parse::<u64>();
    let before = descriptors().expect("a count");
    let run = |step: &str, argument: u32| {
        let command = format!("python3 /run/hostile.py debian1 {} /mnt/brick1/gv0 {step} {argument}", target.port);
        let done = hostile.sh_within(Duration::from_secs(120), &command).must();
        assert!(done.stdout.contains(&format!("done {step}")), "{done}");
        let resident = resident_kib(victim, target.pid);
        eprintln!("{resident} KiB after {step}");
        assert!(resident < CEILING_KIB, "the brick has {resident} KiB after {step}");
        // The others go on, and what it held is free again.
        let asked = Instant::now();
        victim.sh("flock -w 20 /mnt/gv0/file true && test \"$(cat /mnt/gv0/file)\" = precious").must();
        assert!(asked.elapsed() < Duration::from_secs(25), "after {step} others waited {:?}", asked.elapsed());
    };
    run("names", 0);
    run("gfids", 0);
    run("lists", 0);
    run("locks", 70_000);
    run("fds", 20_000);
    let closed = wait_until(Duration::from_secs(20), || descriptors().is_ok_and(|now| now < before + 100));
    assert!(closed, "{} descriptors were open before, {:?} now", before, descriptors());
    // Nothing came of the names, on the volume or beside it.
    assert_eq!(victim.sh("ls /mnt/gv0 | grep -v '^v\\.'").must().stdout, "directory\nfile\n");
    let bricks: Vec<_> = (1..=3).map(|n| cluster.node(n).sh("ls /mnt/brick1 /tmp/hostile-was-here").stdout).collect();
    assert!(
        bricks.iter().all(|listed| !listed.contains("passwd") && !listed.contains("hostile-was-here")),
        "{bricks:?}"
    );

    let many = if long() { 100_000 } else { 5000 };
    for extra in 0..many / 20_000 {
        hostile.sh(&format!("ip addr add 10.77.1.{}/24 dev eth0", 101 + extra)).must();
    }
    let limit = Duration::from_secs(if long() { 500 } else { 120 });
    let crowd = hostile.spawn(&format!(
        "python3 /run/hostile.py debian1 {} /mnt/brick1/gv0 connections {many} > /run/crowd 2>&1",
        target.port
    ));
    let there = wait_until(limit, || hostile.sh("grep -q held /run/crowd").ok());
    assert!(there, "{}", hostile.sh("cat /run/crowd"));
    let asked = Instant::now();
    victim.sh("echo more >> /mnt/gv0/file && ls -l /mnt/gv0 > /dev/null").must();
    victim.gluster("volume info gv0").must();
    assert!(asked.elapsed() < Duration::from_secs(20), "with {many} connections others waited {:?}", asked.elapsed());
    let resident = resident_kib(victim, target.pid);
    eprintln!("{resident} KiB with {many} connections");
    assert!(resident < CEILING_KIB, "the brick has {resident} KiB with {many} connections");
    hostile.sh("touch /run/let-go").must();
    crowd.finish(Duration::from_secs(60)).must();
    fio.finish(Duration::from_secs(180)).must();
    assert_eq!(brick(victim).pid, target.pid, "the brick died");
    cluster.node(2).sh("echo fine > /mnt/gv0/after && cat /mnt/gv0/after").must();
}
