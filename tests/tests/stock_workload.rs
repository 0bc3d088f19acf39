//! The promise: whatever GlusterFS's own clients do works on our volumes of every kind, and whatever ours does works on
//! theirs: programs with libgfapi, qemu's images, and two mounts, one of theirs and one of ours, that append to, lock
//! and list the same files. `LONG=1` for the whole sizes: 1 GiB of data, 10,000 files in a directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ladrillo_tests::{Cluster, Node, Programs};

/// The kinds of volumes and how their bricks are laid over three machines.
const VOLUMES: [(&str, &str, &[&str]); 3] = [
    ("gv0", "replica 3", &["debian1:/mnt/brick1/gv0", "debian2:/mnt/brick1/gv0", "debian3:/mnt/brick1/gv0"]),
    ("dist", "", &["debian1:/mnt/brick1/dist", "debian2:/mnt/brick1/dist", "debian3:/mnt/brick1/dist"]),
    (
        "dr",
        "replica 3",
        &[
            "debian1:/mnt/brick1/dr1",
            "debian2:/mnt/brick1/dr1",
            "debian3:/mnt/brick1/dr1",
            "debian1:/mnt/brick1/dr2",
            "debian2:/mnt/brick1/dr2",
            "debian3:/mnt/brick1/dr2",
        ],
    ),
];

fn long() -> bool {
    std::env::var("LONG").is_ok_and(|value| !value.is_empty() && value != "0")
}

fn need_stock() {
    assert!(Path::new("/usr/sbin/glusterfsd").exists(), "Debian's glusterfs-server is not installed: run tools/setup");
}

fn create_volumes(cluster: &Cluster) {
    for (volume, kind, bricks) in VOLUMES {
        let node = cluster.node(1);
        node.gluster(&format!("volume create {volume} {kind} {} force", bricks.join(" "))).must();
        node.gluster(&format!("volume start {volume}")).must();
    }
    for (volume, _, bricks) in VOLUMES {
        cluster.wait_online(volume, bricks.len());
    }
}

/// Compiles the libgfapi program of `tests/c`.
fn compile_gfapi() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/gfapi.c");
    // Not in /tmp: the machines have their own.
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ladrillo-gfapi-{}", std::process::id()));
    let compile = format!(
        "cc -Wall -Wextra -Werror -O1 -o {} {} $(pkg-config --cflags --libs glusterfs-api) -lpthread",
        program.display(),
        source.display()
    );
    let done = Command::new("bash").args(["-c", &compile]).output().expect("bash runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "libgfapi's development files? run tools/setup\n{said}");
    program
}

/// Images through qemu's gluster driver. Each of its processes needs ten seconds to let go of a volume of anybody's
/// (glfs_fini), so there are few of them, side by side.
const QEMU: &str = r#"
set -e; trap 'echo "failed: $BASH_COMMAND"; jobs -p | xargs -r kill' ERR
U=gluster://debian1/gv0; cd /run
qemu-img create -q -f qcow2 local.qcow2 64M
qemu-io -f qcow2 -c 'write -P 0x5a 1M 4M' -c 'write -P 0xa5 40M 64k' local.qcow2 > /dev/null
first() {
  qemu-img convert -f qcow2 -O qcow2 local.qcow2 $U/disk.qcow2
  qemu-img compare -f qcow2 -F qcow2 local.qcow2 $U/disk.qcow2 & local a=$!
  qemu-img check $U/disk.qcow2 & local b=$!
  wait $a; wait $b
}
second() {
  qemu-img create -q -f raw $U/disk.raw 64M
  qemu-io -f raw -c 'aio_write -P 7 0 1M' -c 'aio_write -P 8 1M 1M' -c aio_flush -c 'write -P 9 5M 1M' \
      -c 'discard 5M 512k' -c 'write -z 8M 1M' -c flush -c 'read -P 7 0 1M' $U/disk.raw > second.log
  qemu-io -f raw -c 'read -P 7 0 1M' -c 'read -P 8 1M 1M' -c 'read -P 9 5632k 512k' -c 'read -P 0 8M 1M' $U/disk.raw >> second.log
  ! grep -i 'verification failed\|error' second.log
  test $(grep -c '^read' second.log) = 5
}
third() { ! qemu-img info $U/none 2> third.log; grep -q 'No such file' third.log; }
first & a=$!; second & b=$!; third & c=$!
wait $a; wait $b; wait $c
echo images done
"#;

/// Two mounts of one volume, theirs and ours, in `$1`; this one is `$2`.
const TWO_MOUNTS: &str = r#"
import errno, fcntl, hashlib, os, sys, time
base, me, files, big = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
other = {'a': 'b', 'b': 'a'}[me]
os.chdir(base)

def turn(name):
    """Both come here before either goes on. Looks names up: what a mount has cached of a directory is not asked."""
    open(f'at-{name}-{me}', 'w').close()
    end = time.monotonic() + (60 if big == 0 else 300)
    while True:
        try: os.stat(f'at-{name}-{other}'); return
        except FileNotFoundError: pass
        assert time.monotonic() < end, f'{me}: the other did not come to {name}'
        time.sleep(0.02)

def refused(call, *args):
    try: call(*args)
    except OSError as e: assert e.errno in (errno.EAGAIN, errno.EACCES), e; return True
    return False

# Appending at once: every line is there, whole, in each writer's order.
turn('append')
log = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
for i in range(150): assert os.write(log, f'{me} {i:06d}\n'.encode()) == 9
os.close(log)
turn('appended')
time.sleep(1.1)
lines = open('log').read().splitlines()
assert len(lines) == 300, len(lines)
for who in 'ab': assert [l for l in lines if l.startswith(who)] == [f'{who} {i:06d}' for i in range(150)]

# Locks: each holds in turn, the other is refused, waits, and gets it.
for kind, lock, lock_now, unlock in (
        ('flock', lambda f: fcntl.flock(f, fcntl.LOCK_EX), lambda f: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB), lambda f: fcntl.flock(f, fcntl.LOCK_UN)),
        ('fcntl', lambda f: fcntl.lockf(f, fcntl.LOCK_EX, 10, 5), lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5), lambda f: fcntl.lockf(f, fcntl.LOCK_UN, 10, 5))):
    for holder in 'ab':
        turn(f'{kind}-{holder}-open')
        f = open('locked', 'a+')
        if me == holder:
            lock(f)
            turn(f'{kind}-{holder}-held'); turn(f'{kind}-{holder}-refused')
            time.sleep(0.3)
            open(f'released-{kind}-{holder}', 'w').close()
            unlock(f)
        else:
            turn(f'{kind}-{holder}-held')
            assert refused(lock_now, f), f'{kind}: two hold it'
            if kind == 'fcntl':
                fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 15)  # bytes beside the other's
            turn(f'{kind}-{holder}-refused')
            lock(f)
            os.stat(f'released-{kind}-{holder}')
        f.close()
        turn(f'{kind}-{holder}-done')

# Many files in one directory, half from each.
turn('many')
try: os.mkdir('many')
except FileExistsError: pass
for i in range(files // 2): open(f'many/{me}{i:06d}', 'w').close()
turn('made')
time.sleep(1.1)
names = os.listdir('many')
assert len(names) == len(set(names)) == files // 2 * 2, (len(names), len(set(names)))
turn('listed')
for i in range(files // 2): os.unlink(f'many/{other}{i:06d}')
turn('removed')
if me == 'a': time.sleep(1.1); assert os.listdir('many') == []; os.rmdir('many')

# A big file: holes and data, written by one, read by the other. Positions beyond 4 GiB.
if me == 'a':
    with open('big', 'wb') as f:
        f.truncate(5 << 30)
        step = (5 << 30) // 16 if big == 0 else 1 << 20
        for i in range(16 if big == 0 else big): f.seek(i * step); f.write(hashlib.sha512(str(i).encode()).digest() * 1024)
        os.fsync(f.fileno())
turn('written')
if me == 'b':
    with open('big', 'rb') as f:
        assert os.fstat(f.fileno()).st_size == 5 << 30
        step = (5 << 30) // 16 if big == 0 else 1 << 20
        for i in range(16 if big == 0 else big):
            f.seek(i * step); assert f.read(65536) == hashlib.sha512(str(i).encode()).digest() * 1024, i
            assert f.read(4096) == bytes(4096), i
        assert os.fstat(f.fileno()).st_blocks < (1 << 30) // 512 * 2
    os.unlink('big')
turn('read')
# Attributes, links, names and ACLs of one seen by the other.
if me == 'a':
    open('attr', 'w').write('x'); os.chmod('attr', 0o640); os.chown('attr', 7, 8); os.utime('attr', (1e9, 1.5e9))
    os.setxattr('attr', 'user.k', b'v'); os.link('attr', 'attr2'); os.symlink('attr', 'sym')
    open('old', 'w').write('old'); os.rename('old', 'new')
    assert os.system('setfacl -m u:1234:r attr') == 0
turn('attr')
if me == 'b':
    s = os.stat('attr2')
    assert (s.st_mode & 0o777, s.st_uid, s.st_gid, s.st_mtime, s.st_nlink) == (0o640, 7, 8, 1.5e9, 2), s
    assert os.getxattr('attr', 'user.k') == b'v' and os.readlink('sym') == 'attr' and open('new').read() == 'old'
    assert 'user:1234:r--' in os.popen('getfacl -n attr').read()
    assert not os.path.exists('old')
turn('end')
print('done', me)
"#;

/// Mounts `volume` on both machines and has them work on it together.
fn two_mounts(cluster: &Cluster, volume: &str, theirs: usize, ours: usize) {
    let (files, big) = if long() { (10_000, 1024) } else { (400, 0) };
    let directory = format!("/mnt/two-{volume}");
    for on in [theirs, ours] {
        let node = cluster.node(on);
        node.sh(&format!("mkdir -p {directory} && mount -t glusterfs -o acl debian1:/{volume} {directory}")).must();
        std::fs::write(node.path("/run/two.py"), TWO_MOUNTS).unwrap();
    }
    let run = |node: &Node, me: &str| node.spawn(&format!("python3 /run/two.py {directory} {me} {files} {big}"));
    let (first, second) = (run(cluster.node(theirs), "a"), run(cluster.node(ours), "b"));
    let limit = Duration::from_secs(if long() { 600 } else { 150 });
    let (first, second) = (first.finish(limit), second.finish(limit));
    assert!(
        first.stdout.contains("done a") && second.stdout.contains("done b"),
        "{volume}, a is theirs, b is ours\n{first}\n{second}"
    );
    for on in [theirs, ours] {
        cluster.node(on).sh(&format!("umount {directory}")).must();
    }
}

/// All volumes at once: most of it is waiting.
fn all_mounts(cluster: &Cluster, theirs: usize, ours: usize) {
    std::thread::scope(|scope| {
        for (volume, ..) in VOLUMES {
            scope.spawn(move || two_mounts(cluster, volume, theirs, ours));
        }
    });
}

#[test]
fn their_programs_on_our_volumes() {
    need_stock();
    let gfapi = compile_gfapi();
    let cluster = Cluster::builder(3).client(Programs::Stock).build();
    cluster.form_pool();
    create_volumes(&cluster);
    let (mib, files) = if long() { (1024, 10_000) } else { (16, 200) };
    let node = cluster.node(4);
    let images = node.spawn(QEMU);
    let programs = VOLUMES.map(|(volume, ..)| {
        let program = node.spawn(&format!("{} debian1 {volume} gfapi {mib} {files}", gfapi.display()));
        (volume, program)
    });
    let limit = Duration::from_secs(if long() { 600 } else { 150 });
    all_mounts(&cluster, 4, 1);
    for (volume, program) in programs {
        let done = program.finish(limit);
        let checks = done.stdout.lines().find_map(|l| l.strip_prefix("done ")?.parse::<u32>().ok());
        assert!(done.ok() && checks.is_some_and(|n| n > 800), "libgfapi on {volume}: {done}");
    }
    let images = images.finish(limit);
    assert!(images.ok() && images.stdout.contains("images done"), "qemu: {images}");
    let _ = std::fs::remove_file(&gfapi);
    cluster.wait_identical("gv0", Duration::from_secs(30));
}

#[test]
fn our_client_on_their_volumes() {
    need_stock();
    let cluster = Cluster::builder(3).server_programs(Programs::Stock).client(Programs::Ours).build();
    cluster.form_pool();
    create_volumes(&cluster);
    all_mounts(&cluster, 1, 4);
    cluster.wait_identical("gv0", Duration::from_secs(30));
}
