#!/bin/bash
# verbs.sh BIN-DIRECTORY: runs inside tools/rdma-vm: bricks and a mount on verbs, without glusterd. What is written is read back
# through other paths, a brick and a client are killed, the link goes down; rxe's counters prove that payloads went by RDMA,
# TCP's that none went by TCP. Ends with PASSED.
set -eu
BIN=$(realpath "$1")
COPIES=${COPIES:-3}
T=${DIR:-/mnt/disk}/verbs   # tmpfs has no user.* attributes
# Two CPUs would bring packets out of order, which rxe's windows do not survive (docs/known-gaps.md).
for q in /sys/class/net/*/queues/rx-0/rps_cpus; do echo 1 > "$q"; done
mkdir -p $T/log $T/mnt /var/run/gluster
cd $T
fail() { echo "FAILED: $*"; tail -n 12 $T/log/*.log; exit 1; }
within() { # SECONDS COMMAND...
  local n=$(($1 * 5)); shift
  until "$@" >/dev/null 2>&1; do n=$((n - 1)); [ $n -gt 0 ] || fail "not in time: $*"; sleep 0.2; done
}
# Sums of a counter over all devices.
counter() { cat /sys/class/infiniband/*/ports/1/hw_counters/"$1" 2>/dev/null | awk '{n += $1} END {print n + 0}'; }
tcp_bytes() { awk '/^TcpExt:|^IpExt:/ {if (!(h[$1])) {h[$1] = $0} else {split(h[$1], k); for (i = 2; i <= NF; i++) if (k[i] == "TCPOrigDataSent") print $i}}' /proc/net/netstat; }
brick() { # NUMBER: starts it
  local b=$T/b$1; mkdir -p $b
  [ -e $T/b$1.vol ] || {
    setfattr -n trusted.glusterfs.volume-id -v 0x8f1b7c3e0d6a4c559a6e0123456789ab $b
    cat > $T/b$1.vol <<END
volume posix
  type storage/posix
  option directory $b
  option volume-id 8f1b7c3e-0d6a-4c55-9a6e-0123456789ab
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume index
  type features/index
  option index-base $b/.glusterfs/indices
  option xattrop-dirty-watchlist trusted.afr.dirty
  option xattrop-pending-watchlist trusted.afr.gv0-
  subvolumes locks
end-volume
volume $b
  type debug/io-stats
  subvolumes index
end-volume
volume server
  type protocol/server
  option transport-type rdma
  option bind-address 10.99.0.$1
  option transport.rdma.listen-port 49152
  option listen-port 49152
  option auth.addr.$b.allow *
  option auth-path $b
  subvolumes $b
end-volume
END
  }
  "$BIN"/glusterfsd -f $T/b$1.vol -l $T/log/b$1.log -p $T/b$1.pid || fail "brick $1 does not start"
}
{
  names=
  for n in $(seq "$COPIES"); do
    names="$names gv0-client-$((n - 1))"
    printf 'volume gv0-client-%d\n type protocol/client\n option remote-host 10.99.0.%d\n option remote-port 49152\n' $((n - 1)) $n
    printf ' option remote-subvolume %s\n option transport-type rdma\n option ping-timeout 30\nend-volume\n' $T/b$n
  done
  if [ "$COPIES" -gt 1 ]; then
    printf 'volume gv0-replicate-0\n type cluster/replicate\n option afr-pending-xattr %s\n subvolumes%s\nend-volume\n' "$(echo $names | tr ' ' ,)" "$names"
    names=gv0-replicate-0
  fi
  printf 'volume gv0-utime\n type features/utime\n subvolumes %s\nend-volume\nvolume gv0\n type debug/io-stats\n subvolumes gv0-utime\nend-volume\n' $names
} > client.vol
mount_it() { "$BIN"/glusterfs -f client.vol -l $T/log/client.log $T/mnt || fail "mount"; within 60 stat $T/mnt; within 30 mountpoint -q $T/mnt; }

for n in $(seq "$COPIES"); do brick $n; done
mount_it
echo "mounted: $(grep -ho 'RDMA: .*' log/client.log | head -n 1)"
before=$(counter sent_pkts) tcp=$(tcp_bytes)
begun=$(date +%s)
head -c 1048576 /dev/urandom > one
cp one mnt/one; cmp one mnt/one || fail "a file of 1 MiB"
echo "1 MiB and back: $(($(date +%s) - begun)) s"
echo 3 > /proc/sys/vm/drop_caches; cmp one mnt/one || fail "a file of 1 MiB, read again"
for n in $(seq "$COPIES"); do cmp one b$n/one || fail "brick $n's copy"; done
after=$(counter sent_pkts)
[ $((after - before)) -gt $((256 * COPIES)) ] || fail "only $((after - before)) packets on the RDMA devices"
echo "packets on the RDMA devices: $((after - before)); TCP segments with data: $(($(tcp_bytes) - tcp))"
[ $(($(tcp_bytes) - tcp)) = 0 ] || fail "something went by TCP"

begun=$(date +%s)
(cd /usr/share && tar cf $T/tree.tar --ignore-failed-read $(find perl5 doc/bash doc/coreutils doc/libc6 -type f 2>/dev/null | head -n "${FILES:-12}") )
mkdir mnt/tree flat && tar xf tree.tar -C mnt/tree && tar xf tree.tar -C flat
echo 3 > /proc/sys/vm/drop_caches
diff -r flat mnt/tree || fail "a tree unpacked"
echo "untar of $(find flat -type f | wc -l) files, and compared: $(($(date +%s) - begun)) s"

# Sizes around the inline limit and pages, odd offsets.
begun=$(date +%s)
python3 - $T/mnt/odd <<'PY'
import os, sys, random
random.seed(5)
want = bytearray()
with open(sys.argv[1], "w+b", buffering=0) as f:
    for size in (0, 1, 3500, 3600, 3900, 4000, 4095, 4096, 4097, 8191, 65536, 131072, 131073, 262144 + 17):
        at = random.randrange(0, len(want) + 1)
        data = random.randbytes(size)
        assert os.pwrite(f.fileno(), data, at) == size
        want[at:at + size] = data
    for name in range(60):
        open(f"{sys.argv[1]}.{name:04}.{'x' * 200}", "w").close()
    os.setxattr(sys.argv[1], "user.big", random.randbytes(3700))
    assert len(os.getxattr(sys.argv[1], "user.big")) == 3700
os.system("echo 3 > /proc/sys/vm/drop_caches")
assert open(sys.argv[1], "rb").read() == want
assert len([n for n in os.listdir(os.path.dirname(sys.argv[1])) if n.startswith("odd.")]) == 60
PY
echo "odd sizes, long listings, large xattrs: $(($(date +%s) - begun)) s"

if [ "$COPIES" -gt 1 ]; then
  kill -9 "$(cat b2.pid)"
  cp one mnt/two && cmp one mnt/two || fail "with a brick killed"
  brick 2
  within 60 bash -c '[ $(grep -c ": connected client=gv0-client-1" log/client.log) -ge 2 ]'
  cp one mnt/three && cmp one mnt/three || fail "with the brick back"
  echo "a brick killed and started: good"
fi
pid=$(pgrep -f "glusterfs -f client.vol" | head -n 1)
kill -9 "$pid"; umount -l mnt || true
mount_it
cmp one mnt/one || fail "after the client was killed"
echo "the client killed and mounted again: good"
umount mnt
for n in $(seq "$COPIES"); do kill "$(cat b$n.pid)"; done
for n in $(seq "$COPIES"); do within 20 test ! -e b$n.pid; done
if grep -h "panicked\| ERROR " log/*.log; then fail "errors in the logs"; fi
echo PASSED
