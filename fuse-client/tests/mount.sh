#!/bin/bash
# Run by mount.rs in namespaces of its own: mounts one brick twice with GLUSTERFS and checks what applications see.
#   DIRECTORY   scratch: brick/, logs, volfiles
#   GLUSTERFS, GLUSTERFSD   the programs
# Every check prints "ok NAME" or "FAILED NAME" and what it said.
set -u
mount --make-rprivate /
ip link set lo up
mount -t tmpfs none /run
mount -t tmpfs none /mnt
mkdir -p /run/gluster /mnt/a /mnt/b
cd "$DIRECTORY" || exit 1
mkdir -p brick/.glusterfs/indices
setfattr -n trusted.glusterfs.volume-id -v 0x1b671a6440d5491e99b0da01ff1f3341 brick

cat > brick.vol <<END
volume b-posix
  type storage/posix
  option directory $DIRECTORY/brick
  option volume-id 1b671a64-40d5-491e-99b0-da01ff1f3341
end-volume
volume b-locks
  type features/locks
  subvolumes b-posix
end-volume
volume b-upcall
  type features/upcall
  subvolumes b-locks
end-volume
volume b-threads
  type performance/io-threads
  subvolumes b-upcall
end-volume
volume $DIRECTORY/brick
  type debug/io-stats
  subvolumes b-threads
end-volume
volume b-server
  type protocol/server
  option transport-type tcp
  option transport.address-family inet
  option transport.socket.listen-port 49152
  option auth.addr.$DIRECTORY/brick.allow *
  option auth-path $DIRECTORY/brick
  subvolumes $DIRECTORY/brick
end-volume
END
cat > client.vol <<END
volume gv0-client-0
  type protocol/client
  option remote-host 127.0.0.1
  option remote-port 49152
  option remote-subvolume $DIRECTORY/brick
  option transport-type tcp
end-volume
volume gv0-utime
  type features/utime
  subvolumes gv0-client-0
end-volume
volume gv0
  type debug/io-stats
  subvolumes gv0-utime
end-volume
END
sed 's/49152/49153/' client.vol > nobody.vol

# check NAME COMMAND...: passes when the command does, within 60 s
check() {
  local name=$1
  shift
  if timeout 60 "$@" > said 2>&1; then echo "ok $name"; else echo "FAILED $name"; head -20 said; fi
}
sh_check() { # check NAME SCRIPT, where A and B are the mounts; `no COMMAND` must fail (the shell's own ! is not heard)
  check "$1" env A=/mnt/a B=/mnt/b bash -euc 'no() { if "$@"; then echo "must fail: $*"; return 1; fi; }
'"$2"
}
py_check() {
  check "$1" python3 -c "A, B = '/mnt/a', '/mnt/b'
$2"
}
wait_for() { # wait_for SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" 2> /dev/null; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done
}

"$GLUSTERFSD" -N -f brick.vol -l "$DIRECTORY/brick.log" > brick.out 2>&1 &
brick=$!
wait_for 20 bash -c 'exec 3<> /dev/tcp/127.0.0.1/49152' || { echo "FAILED brick"; cat brick.out brick.log; exit 1; }

sh_check no-brick "no timeout 30 '$GLUSTERFS' -f nobody.vol -l $DIRECTORY/n.log \$A; no grep -q \$A /proc/mounts"
sh_check bad-volfile "echo nonsense > bad.vol; no '$GLUSTERFS' -f bad.vol -l $DIRECTORY/n.log \$A; no '$GLUSTERFS' -f /no.vol -l $DIRECTORY/n.log \$A"
for m in a b; do
  check "mount-$m" "$GLUSTERFS" -f client.vol -l "$DIRECTORY/$m.log" -p "/run/$m.pid" --fuse-mountopts=noatime "/mnt/$m"
done
sh_check listed 'grep " $A fuse.glusterfs rw,noatime,.*default_permissions,allow_other" /proc/mounts'
sh_check pid-file '[ "$(readlink /proc/$(cat /run/a.pid)/exe)" = "$(realpath $GLUSTERFS)" ]'

sh_check tree 'cp -a /usr/include/asm-generic /usr/include/linux/netfilter $A/; diff -r /usr/include/asm-generic $B/asm-generic; diff -r /usr/include/linux/netfilter $A/netfilter'
sh_check readdir 'mkdir $A/many; cd $A/many; seq -f f%g 5000 | xargs touch; [ $(ls | wc -l) = 5000 ]; [ $(ls -U $B/many | sort -u | wc -l) = 5000 ]'
sh_check inodes 'for f in many asm-generic/types.h; do [ $(stat -c %i $A/$f) = $(stat -c %i $B/$f) ]; done; [ $(stat -c %i $A) = 1 ]; [ "$(ls -i $A/asm-generic/types.h | cut -d\  -f1)" = $(stat -c %i $A/asm-generic/types.h) ]'
py_check dirent-inodes '
import os
for e in os.scandir(A + "/asm-generic"):
    assert e.inode() == os.stat(e.path).st_ino, e.name'
sh_check xattrs 'cd $A; touch x; setfattr -n user.k -v v x; [ "$(getfattr -n user.k --only-values $B/x)" = v ]; getfattr -d x | grep -q user.k; setfattr -x user.k x; no getfattr -n user.k x; no setfattr -n trusted.gfid -v 0x00 x; [ -z "$(getfattr -d -m . x | grep trusted.gfid)" ]'
py_check xattr-sizes '
import os, errno
p = A + "/xs"; open(p, "w").close()
os.setxattr(p, "user.big", b"v" * 3000)
assert os.getxattr(p, "user.big") == b"v" * 3000
try: os.getxattr(p, "security.capability"); assert 0
except OSError as e: assert e.errno == errno.ENODATA
try: os.getxattr(p, "system.posix_acl_access"); assert 0
except OSError as e: assert e.errno == errno.EOPNOTSUPP'
sh_check gfid-xattr '[ "$(getfattr -n glusterfs.gfid.string --only-values --absolute-names $A)" = 00000000-0000-0000-0000-000000000001 ]'
sh_check append 'cd $A; for i in 1 2 3; do echo $i >> ap; done; echo 4 >> $B/ap; echo 5 >> ap; [ "$(cat $B/ap | tr -d "\n")" = 12345 ]'
sh_check data 'dd if=/dev/urandom of=random bs=1M count=48 status=none; cp random $A/random; cmp random $A/random; cmp random $B/random; dd if=random of=$A/odd bs=12345 status=none; cmp random $B/odd; dd if=$A/random of=/dev/null bs=1M iflag=direct status=none; dd if=/dev/zero of=$A/direct bs=1M count=4 oflag=direct status=none'
sh_check no-copies '[ "$(getfattr -n glusterfs.ladrillo.copied-bytes --only-values --absolute-names $A)" = 0 ]; [ "$(getfattr -n glusterfs.ladrillo.front-end --only-values --absolute-names $A)" = device ]'
py_check mmap '
import mmap
f = open(A + "/mm", "w+b"); f.truncate(1 << 20)
m = mmap.mmap(f.fileno(), 1 << 20); m[5:10] = b"hello"; m[-3:] = b"end"; m.flush(); m.close(); f.close()
d = open(B + "/mm", "rb").read()
assert d[5:10] == b"hello" and d[-3:] == b"end" and len(d) == 1 << 20'
py_check unlinked-open '
import os
f = open(A + "/ul", "w+b"); f.write(b"abc"); f.flush(); os.unlink(A + "/ul"); f.write(b"def"); f.flush()
assert os.fstat(f.fileno()).st_size == 6
f.truncate(4); os.fchmod(f.fileno(), 0o600); f.seek(0)
assert f.read() == b"abcd"'
py_check concurrent-writes '
import os, threading
f = os.open(A + "/cw", os.O_RDWR | os.O_CREAT)
def go(n):
    for k in range(64): os.pwrite(f, bytes([n]) * 4096, (k * 8 + n) * 4096)
t = [threading.Thread(target=go, args=(n,)) for n in range(8)]
[x.start() for x in t]; [x.join() for x in t]; os.fsync(f)
d = open(B + "/cw", "rb").read()
assert d == b"".join(bytes([n]) * 4096 for k in range(64) for n in range(8))'
sh_check flock 'touch $A/lk; flock $A/lk sleep 2 & sleep 0.5; no flock -n $B/lk true; flock -w 10 $B/lk true; wait'
py_check fcntl '
import fcntl, os, time, signal
open(A + "/lk", "w").close()
a = open(A + "/lk", "r+")
fcntl.lockf(a, fcntl.LOCK_EX, 10, 0)
pid = os.fork()
if pid == 0:
    b = open(B + "/lk", "r+")
    try: fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 2); os._exit(1)
    except OSError as e: assert e.errno in (11, 13), e
    class Interrupted(Exception): pass
    def handler(*x): raise Interrupted()
    signal.signal(signal.SIGALRM, handler); signal.alarm(1)
    start = time.time()
    try: fcntl.lockf(b, fcntl.LOCK_EX, 5, 2); os._exit(2)
    except Interrupted: pass
    assert time.time() - start < 5
    fcntl.lockf(b, fcntl.LOCK_EX, 5, 20)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
fcntl.lockf(a, fcntl.LOCK_UN)
# the interrupted wait left nothing behind
time.sleep(0.5)
c = open(B + "/lk", "r+"); fcntl.lockf(c, fcntl.LOCK_EX | fcntl.LOCK_NB)'
py_check lock-waits '
import fcntl, os, time
a = open(A + "/lk", "r+"); fcntl.lockf(a, fcntl.LOCK_EX)
pid = os.fork()
if pid == 0:
    b = open(B + "/lk", "r+"); start = time.time(); fcntl.lockf(b, fcntl.LOCK_EX)
    os._exit(0 if time.time() - start > 0.5 else 1)
time.sleep(1); fcntl.lockf(a, fcntl.LOCK_UN)
assert os.waitpid(pid, 0)[1] == 0'
sh_check special 'cd $A; mkfifo ff; mknod dev c 1 3; python3 -c "import socket; socket.socket(socket.AF_UNIX).bind(\"sk\")"; ln -s ff sl; [ -p $B/ff ]; [ -c $B/dev ]; [ -S $B/sk ]; [ "$(stat -c %t:%T $B/dev)" = 1:3 ]; [ "$(readlink $B/sl)" = ff ]; echo x > dev; rm ff dev sk sl'
sh_check attributes 'cd $A; touch at; chown 12:34 at; chmod 4751 at; touch -d "2001-02-03 04:05:06.123456789 UTC" at; [ "$(TZ=UTC stat -c "%a %u %g %y" $B/at)" = "4751 12 34 2001-02-03 04:05:06.123456789 +0000" ]; truncate -s 12345 at; [ $(stat -c %s at) = 12345 ]'
sh_check set-id-bits 'cd $A; touch su; chmod 777 .; chmod 6777 su; setpriv --reuid 1000 --regid 1000 --clear-groups bash -c "echo x > su"; [ $(stat -c %a su) = 777 ]'
sh_check groups 'cd $A; mkdir gd; chgrp 4321 gd; chmod 770 gd; setpriv --reuid 1000 --regid 1000 --groups 4321 touch gd/f; no setpriv --reuid 1000 --regid 1000 --clear-groups touch gd/g; [ $(stat -c %u gd/f) = 1000 ]'
sh_check umask 'cd $A; umask 027; touch um; mkdir umd; mkfifo umf; [ "$(stat -c %a um umd umf | tr "\n" " ")" = "640 750 640 " ]'
sh_check space 'cd $A; fallocate -l 100000 fa; [ $(stat -c %s fa) = 100000 ]; fallocate -p -o 0 -l 4096 fa; fallocate -z -o 0 -l 8192 fa; no fallocate -c -o 0 -l 4096 fa; df $A'
py_check seek '
import os
f = os.open(A + "/sk", os.O_RDWR | os.O_CREAT)
os.pwrite(f, b"x" * 4096, 1 << 20)
assert os.lseek(f, 0, os.SEEK_DATA) <= 1 << 20
assert os.lseek(f, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 4096'
py_check copy-file-range '
import os
a = open(A + "/c1", "w+b"); a.write(b"x" * 100000); a.flush(); b = open(A + "/c2", "w+b")
assert os.copy_file_range(a.fileno(), b.fileno(), 100000, 0, 0) == 100000
assert open(B + "/c2", "rb").read() == b"x" * 100000'
sh_check renames 'cd $A; mkdir -p r1/r2; echo z > r1/z; mv r1 r3; cat r3/z; mv r3/z r3/r2/y; no mv r3 r3/r2/; echo q > q; mv -f q r3/r2/y; [ "$(cat $B/r3/r2/y)" = q ]; no rmdir r3; rm -r r3; no ls r3'
sh_check links 'cd $A; echo one > l1; ln l1 l2; [ $(stat -c %h $B/l2) = 2 ]; rm l1; [ "$(cat l2)" = one ]; [ $(stat -c %h l2) = 1 ]; no ln $A/umd l3'
sh_check names 'cd $A; n=$(printf %0255d 1); touch $n; [ -e $B/$n ]; rm $n; no touch ${n}x; touch "a b\\c"; [ -e "$B/a b\\c" ]; no ls nothing; no mkdir umd; no cat umd'
sh_check seen-by-others 'echo 1 > $A/so; [ $(cat $B/so) = 1 ]; sleep 1.1; echo 22 > $A/so; sleep 1.1; [ $(cat $B/so) = 22 ]; [ $(stat -c %s $B/so) = 3 ]'
sh_check remove 'rm -r $A/many $A/asm-generic; no ls $B/many'
sh_check read-only "mkdir -p /mnt/ro; '$GLUSTERFS' -f client.vol -l $DIRECTORY/ro.log --read-only /mnt/ro; cat /mnt/ro/so; no touch /mnt/ro/new; umount /mnt/ro"

sh_check killed 'kill -9 $(cat /run/b.pid); sleep 0.3; ls $B 2>&1 | grep -q "not connected"; umount -l $B; no grep -q " $B " /proc/mounts'
# A brick that goes: errors, not hangs. It comes back: the mount goes on, with its open files.
sh_check brick-lost "exec 3<> \$A/so; kill -9 $brick; sleep 0.5; no timeout 20 cat \$A/l2; no timeout 20 touch \$A/z; timeout 20 ls \$A 2>&1 | grep -q 'not connected'
  '$GLUSTERFSD' -N -f brick.vol -l $DIRECTORY/brick.log > brick.out 2>&1 &
  for i in \$(seq 200); do sleep 0.1; cat \$A/l2 2>/dev/null && break; done; [ \$(cat \$A/l2) = one ]; echo again >&3; exec 3>&-; grep -q again \$A/so"
sh_check terminated 'p=$(cat /run/a.pid); kill $p; for i in $(seq 80); do sleep 0.1; [ -e /proc/$p ] || break; done; no [ -e /proc/$p ]; no grep -q " $A " /proc/mounts; no [ -e /run/a.pid ]'
sh_check unmounted "'$GLUSTERFS' -f client.vol -l $DIRECTORY/c.log -p /run/c.pid \$A; p=\$(cat /run/c.pid); umount \$A; for i in \$(seq 80); do sleep 0.1; [ -e /proc/\$p ] || break; done; no [ -e /proc/\$p ]"
sh_check no-warnings "no grep -h 'refused an answer\|malformed\|panicked' $DIRECTORY/*.log"
echo done
