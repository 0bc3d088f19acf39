//! The promise: what applications of several mounts rely on: locks, appends, ACLs, set-id and sticky bits, device nodes,
//! long directories and big files, as on a local file system.

use ladrillo_tests::posix::number;
use ladrillo_tests::{Cluster, Node};

/// Runs a script on a machine, with a line that says which command failed.
#[track_caller]
fn must(node: &Node, script: &str) {
    let script = format!("set -e; trap 'echo \"failed: $BASH_COMMAND\"' ERR; umask 022; {script}");
    node.sh_within(std::time::Duration::from_secs(400), &script).must();
}

/// Two mounts of one volume on two machines, which see each other's changes at once; with `-o acl` on `/mnt/acl`.
fn cluster() -> Cluster {
    let cluster = Cluster::builder(3).build();
    cluster.form_pool();
    cluster.create_replicated("gv0");
    for (on, directory, option) in [(1, "gv0", ""), (2, "gv0", ""), (1, "acl", ",acl"), (2, "acl", ",acl")] {
        let options = format!("attribute-timeout=0,entry-timeout=0{option}");
        let mount = format!("mkdir -p /mnt/{directory}; mount -t glusterfs -o {options} debian1:/gv0 /mnt/{directory}");
        cluster.node(on).sh(&mount).must();
    }
    cluster
}

/// As user 65534 (nobody) or 1 (daemon), with no other groups.
const AS: &str = "as() { local u=$1; shift; setpriv --reuid $u --regid $u --clear-groups -- \"$@\"; };
     no() { if \"$@\" 2>/run/said; then echo \"should have failed: $*\"; false; fi; };";

#[test]
fn what_applications_rely_on() {
    let cluster = cluster();
    let (one, two) = (cluster.node(1), cluster.node(2));
    let start = std::time::Instant::now();
    let done = |what: &str| println!("{what}: {} s after the start", start.elapsed().as_secs());
    acls(one, two);
    done("ACLs");
    bits(one);
    done("modes");
    locks(&cluster);
    done("locks");
    appends(&cluster);
    done("appends");
    directories(one, two);
    done("directories");
    big_file(one, two);
    done("a big file");
}

/// Whether this is the long form: with 10,000 names in a directory, and a file of 1 GiB.
fn long() -> bool {
    number("LADRILLO_POSIX_SECONDS", 30) >= 600
}

fn acls(one: &Node, two: &Node) {
    must(
        one,
        &format!(
            "{AS} cd /mnt/acl; mkdir d; chmod 755 d; cd d
             echo secret > f; chmod 600 f; no as 1 cat f
             setfacl -m u:1:r f; as 1 cat f > /dev/null; no as 1 sh -c 'echo x >> f'; no as 65534 cat f
             getfacl -cn f > /run/acl; grep -qx 'user:1:r--' /run/acl; grep -qx 'mask::r--' /run/acl
             setfacl -m u:1:rw f; as 1 sh -c 'echo x >> f'; test $(stat -c %a f) = 660
             chmod 640 f; no as 1 sh -c 'echo x >> f'; as 1 cat f > /dev/null  # the mask is the mode's group
             chgrp 65534 f; setfacl -m g::- f; no as 65534 cat f
             echo open > g; chmod 644 g; setfacl -m u:1:- g; no as 1 cat g; as 65534 cat g > /dev/null
             setfacl -b f; test $(getfattr -dm- f 2>/dev/null | grep -c posix_acl) = 0
             mkdir inherit; setfacl -d -m u:1:rwx,g::-,o::- inherit; touch inherit/child; mkdir inherit/sub
             getfacl -cn inherit/child | grep -q 'user:1:rwx'; getfacl -cn inherit/sub | grep -q 'default:user:1:rwx'
             test $(stat -c %a inherit/child) = 660
             mkdir hidden; echo x > hidden/f; cat hidden/f > /dev/null; chmod 700 hidden; no as 1 cat hidden/f
             setfacl -m u:1:x hidden; as 1 cat hidden/f > /dev/null; no as 1 ls hidden
             no as 1 setfacl -m u:1:rwx hidden"
        ),
    );
    // The other machine goes by the same ACLs, and the plain mount cannot set any.
    must(
        two,
        &format!(
            "{AS} cd /mnt/acl/d; no as 1 cat g; as 1 cat hidden/f > /dev/null; as 1 sh -c 'echo y >> inherit/child'
             cd /mnt/gv0/d; no setfacl -m u:1:r f; no as 1 cat g; rm -r /mnt/acl/d"
        ),
    );
}

fn bits(node: &Node) {
    for mount in ["/mnt/gv0", "/mnt/acl"] {
        must(
            node,
            &format!(
                "{AS} mkdir {mount}/bits; cd {mount}/bits
                 mkdir sticky; chmod 1777 sticky; as 1 touch sticky/f; no as 65534 rm -f sticky/f; no as 65534 mv sticky/f sticky/g
                 grep -q 'not permitted' /run/said; as 65534 touch sticky/own; as 65534 mv -f sticky/own sticky/own2; as 1 rm sticky/f
                 mkdir group; chgrp 65534 group; chmod 2777 group; as 1 touch group/f; test $(stat -c %g group/f) = 65534
                 as 1 mkdir group/d; test \"$(stat -c '%g %a' group/d)\" = '65534 2755'
                 touch setid; chmod 6777 setid; as 1 sh -c 'echo x >> setid'; test $(stat -c %a setid) = 777
                 touch setid2; chmod 6777 setid2; chown 1:1 setid2; test $(stat -c %a setid2) = 777
                 mknod null c 1 3; mknod block b 7 200; test \"$(stat -c '%F %t %T' null)\" = 'character special file 1 3'
                 test \"$(stat -c '%F %t %T' block)\" = 'block special file 7 c8'; echo nothing > null; test -z \"$(cat null)\"
                 no as 1 mknod mine c 1 3; mkfifo p; (echo through > p &) ; test \"$(cat p)\" = through
                 cd ..; rm -r bits"
            ),
        );
    }
}

fn locks(cluster: &Cluster) {
    let (one, two) = (cluster.node(1), cluster.node(2));
    must(one, "head -c 1000 /dev/zero > /mnt/gv0/lock");
    // flock(1) takes the whole file; python's lockf is fcntl's.
    for (take, refused) in [
        ("flock -n /mnt/gv0/lock", "flock -n -E 77 /mnt/gv0/lock true; test $? = 77"),
        (
            "python3 -c 'import fcntl,os,subprocess,sys; f=open(\"/mnt/gv0/lock\",\"r+\"); \
             fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 100, 50); sys.exit(subprocess.call(sys.argv[1:]))'",
            "python3 -c 'import fcntl
f=open(\"/mnt/gv0/lock\",\"r+\")
fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 50, 0)
fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 0, 150)
try:
    fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 1, 149)
except OSError as e:
    raise SystemExit(0 if e.errno in (11, 13) else 1)
raise SystemExit(1)'",
        ),
    ] {
        must(one, "rm -f /mnt/gv0/held /mnt/gv0/go");
        let holder = one.spawn(&format!(
            "{take} sh -c 'touch /mnt/gv0/held; for i in $(seq 250); do [ -e /mnt/gv0/go ] && exit 0; sleep 0.1; done; exit 9'"
        ));
        must(two, "for i in $(seq 200); do [ -e /mnt/gv0/held ] && exit 0; sleep 0.1; done; false");
        two.sh(refused).must();
        // One that waits gets it when the holder goes.
        let waiter = two.spawn("flock -w 30 /mnt/gv0/lock true");
        must(two, "touch /mnt/gv0/go");
        holder.finish(std::time::Duration::from_secs(40)).must();
        waiter.finish(std::time::Duration::from_secs(40)).must();
    }
    // Locks of one machine and the other count to the same sum.
    must(one, "echo 0 > /mnt/gv0/count");
    let add = "for i in $(seq 25); do flock /mnt/gv0/count sh -c 'n=$(cat /mnt/gv0/count); echo $((n + 1)) > /mnt/gv0/count'; done";
    let both = [one.spawn(add), two.spawn(add)];
    both.into_iter().for_each(|run| drop(run.finish(std::time::Duration::from_secs(100)).must()));
    must(one, "test $(cat /mnt/gv0/count) = 50");
}

fn appends(cluster: &Cluster) {
    let append = |name: &str| {
        format!(
            "python3 -c 'import os
fd = os.open(\"/mnt/gv0/log\", os.O_WRONLY|os.O_APPEND|os.O_CREAT)
for i in range(200):
    line = (\"{name} %d \" % i).ljust(97, \"x\") + \"\\n\"
    assert os.write(fd, line.encode()) == len(line)'"
        )
    };
    let both = [cluster.node(1).spawn(&append("one")), cluster.node(2).spawn(&append("two"))];
    both.into_iter().for_each(|run| drop(run.finish(std::time::Duration::from_secs(100)).must()));
    // No line is lost, torn or overwritten, and each writer's are in order.
    for node in &cluster.servers()[..2] {
        must(
            node,
            "cd /mnt/gv0; test $(stat -c %s log) = 39200; test $(grep -c '^one [0-9]* x*$' log) = 200
             for w in one two; do awk -v w=$w '$1 == w {print $2}' log | cmp - <(seq 0 199); done",
        );
    }
}

fn directories(one: &Node, two: &Node) {
    let files = if long() { 10_000 } else { 1_000 };
    must(
        one,
        &format!(
            "mkdir /mnt/gv0/long; cd /mnt/gv0/long
             python3 -c 'import os
for i in range(1, {files} + 1): os.mknod(\"a-name-of-some-length-%05d\" % i)'"
        ),
    );
    must(
        two,
        &format!(
            "cd /mnt/gv0/long; ls | cmp - <(seq -f 'a-name-of-some-length-%05g' {files})
             test $(ls -f | sort -u | wc -l) = $(({files} + 2)); test $(ls -f | wc -l) = $(({files} + 2))
             test $(find . -type f | wc -l) = {files}"
        ),
    );
    // telldir(3) and seekdir(3): from any place, what follows is what followed the first time.
    must(
        one,
        &format!("python3 - /mnt/gv0/long {files} <<'END'
import ctypes, sys
c = ctypes.CDLL('libc.so.6', use_errno=True)
class Dirent(ctypes.Structure):
    _fields_ = [('ino', ctypes.c_ulong), ('off', ctypes.c_long), ('len', ctypes.c_ushort), ('type', ctypes.c_ubyte), ('name', ctypes.c_char * 256)]
c.opendir.restype = ctypes.c_void_p
c.readdir.restype = ctypes.POINTER(Dirent)
c.readdir.argtypes = c.rewinddir.argtypes = [ctypes.c_void_p]
c.telldir.restype = ctypes.c_long
c.telldir.argtypes = [ctypes.c_void_p]
c.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
d = c.opendir(sys.argv[1].encode())
def rest():
    found = []
    while True:
        at = c.telldir(d)
        e = c.readdir(d)
        if not e:
            return found
        found.append((at, e.contents.name))
all = rest()
n = int(sys.argv[2]) + 2
assert len(all) == n and len(set(n for _, n in all)) == n, len(all)
assert len(set(a for a, _ in all)) == n, 'places are not unique'
for i in (0, 1, 2, 17, n // 2, n * 9 // 10, n - 2, n - 1):
    c.seekdir(d, all[i][0])
    assert [n for _, n in rest()] == [n for _, n in all[i:]], i
c.rewinddir(d)
assert [n for _, n in rest()] == [n for _, n in all]
END"),
    );
    // Removing while reading skips none.
    must(two, "rm -r /mnt/gv0/long; test ! -e /mnt/gv0/long");
}

fn big_file(one: &Node, two: &Node) {
    let blocks = if long() { 1024 } else { 64 };
    must(
        one,
        &format!(
            "cd /mnt/gv0; test $(df --output=avail -B1M /mnt/gv0 | tail -1) -gt 1200 || {{ df -h; exit 1; }}
         python3 - > /run/sum <<'END'
import hashlib, random
h, r = hashlib.sha256(), random.Random(1)
with open('/mnt/gv0/big', 'wb') as f:
    for i in range({blocks}):
        block = (b'%08d' % i + r.randbytes(1016)) * 1024
        f.write(block); h.update(block)
print(h.hexdigest())
END
         test $(stat -c %s big) = $(({blocks} << 20))"
        ),
    );
    let sum = one.sh("cat /run/sum").must().stdout;
    must(two, &format!("test $(sha256sum < /mnt/gv0/big | cut -d' ' -f1) = {}", sum.trim()));
    must(
        two,
        "cd /mnt/gv0; truncate -s 5G sparse; echo end >> sparse; test $(stat -c %s sparse) = 5368709124
         test $(du -m sparse | cut -f1) -lt 2; tail -c 4 sparse | grep -qx end; rm big sparse",
    );
}
