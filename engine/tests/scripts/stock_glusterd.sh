# Debian's glusterd starts our brick processes with its own volfiles, and its tools see them work.
. "$(dirname "$0")/environment.sh"
mkdir -p "$T/lib" "$T/sbin"
# Debian has one binary for three programs; ours takes the place of glusterfsd alone.
cp -a /usr/sbin/. "$T/sbin/"
for name in glusterd glusterfs; do rm -f "$T/sbin/$name" && cp -L /usr/sbin/glusterfsd "$T/sbin/$name"; done
rm -f "$T/sbin/glusterfsd" && cp "$BRICK" "$T/sbin/glusterfsd"
cp -a /var/lib/glusterd/. "$T/lib/" 2>/dev/null || true
rm -rf "$T/lib/vols" "$T/lib/peers" "$T/lib/glusterd.info"
mount --bind "$T/lib" /var/lib/glusterd
mount --bind "$T/sbin" /usr/sbin
cp /etc/hosts "$T/hosts" && echo "127.0.0.1 debian1" >> "$T/hosts" && mount --bind "$T/hosts" /etc/hosts
hostname debian1
glusterd
g() { gluster --mode=script "$@"; }
within 20 g pool list
mkdir -p "$T/b1" "$T/b2" "$T/b3"
g volume create gv0 replica 3 "debian1:$T/b1" "debian1:$T/b2" "debian1:$T/b3" force
g volume start gv0 || fail "volume start"
online() { [ "$(g volume status gv0 | grep '^Brick' | awk '{print $(NF-1)}' | paste -sd' ')" = "$1" ]; }
within 15 online "Y Y Y"
mount -t glusterfs debian1:/gv0 "$T/mnt"
cd "$T/mnt"
echo one > f && mkdir d && tar -C /usr/include -cf - linux/usb | tar -xf - && diff -r linux/usb /usr/include/linux/usb

# glusterd's death and return disturb no brick, and the brick signs in again.
pids=$(pgrep -x glusterfsd | paste -sd' ')
pkill -9 -x glusterd && echo two > g && same "$(cat g)" two "without glusterd"
glusterd && within 20 online "Y Y Y"
same "$(pgrep -x glusterfsd | paste -sd' ')" "$pids" "brick processes after glusterd's return"

# A changed option reaches running bricks: who may connect. The volfile is that of a client outside the pool, which has no
# password. The client that was there stays.
g volume set gv0 auth.allow 10.99.99.99
mkdir -p "$T/other"
taken() { grep -q "options have changed" "$T"/log/bricks/*-b1.log; }
within 10 taken
glusterfs -f "$T/lib/vols/gv0/gv0.tcp-fuse.vol" --log-file="$T/log/other.log" "$T/other" || true
refused() { grep -q 'client refused.*Authentication failed' "$T"/log/bricks/*-b1.log; }
within 10 refused
stat "$T/other/f" 2>/dev/null && fail "a client that is not allowed gets in"
umount -l "$T/other" 2>/dev/null || true
same "$(cat f)" one "the client that was there"
g volume reset gv0 auth.allow
same "$(pgrep -x glusterfsd | paste -sd' ')" "$pids" "brick processes after volume set"

# What glusterd asks bricks for its commands, and options that they take while they run.
g volume profile gv0 start || fail "volume profile start"
counting() { [ "$(cat "$T"/log/bricks/*-b1.log | grep -c 'options have changed')" -ge 3 ]; }
within 10 counting
dd if=/dev/zero of=f bs=8192 count=4 oflag=sync 2> "$T/dd" || fail "$(cat "$T/dd")"
profile=$(g volume profile gv0 info cumulative)
echo "$profile" | grep -Eq ' [0-9.]+ +[0-9.]+ ns +[0-9.]+ ns +[0-9.]+ ns +[0-9]+ +WRITE$' || fail "no WRITE in: $profile"
g volume top gv0 write brick "debian1:$T/b1" list-cnt 3 | grep -Eq '^[0-9]+[[:space:]]+/f' || fail "volume top does not know /f"
g volume profile gv0 stop
g volume clear-locks gv0 /f kind all inode | grep -q 'No locks cleared\|blocked locks=0 granted locks=' || fail "clear-locks"
g volume set gv0 features.read-only on
read_only() { touch "$T/mnt/new" 2>&1 | grep -q 'Read-only file system'; }
within 10 read_only
g volume set gv0 features.read-only off
writable() { touch "$T/mnt/new"; }
within 10 writable
rm new && echo one > f

# A mount of a directory; users made nobody; a trash with the same names and gfids on all bricks.
mount -t glusterfs debian1:/gv0/d "$T/other" || fail "mounting a directory"
echo part > "$T/other/p"
same "$(cat "$T/b1/d/p") $(ls "$T/other" | paste -sd' ')" "part p" "what is made in a mounted directory"
umount "$T/other"
# (Stock's mount says so only when it looks before the client has given up.)
mount -t glusterfs debian1:/gv0/none "$T/other" 2>/dev/null || true
unmounted() { ! mountpoint -q "$T/other"; }
within 10 unmounted
grep -q 'client refused.*"/none" is not found' "$T"/log/bricks/*.log || fail "a directory that is not there is mounted"
chmod 777 d
g volume set gv0 server.root-squash on
squashed() { rm -f d/s; touch d/s 2>/dev/null && [ "$(stat -c %U:%u d/s)" = nobody:65534 ]; }
within 10 squashed
touch s 2>/dev/null && fail "root writes where nobody may"
g volume set gv0 server.root-squash off
roots() { rm -f d/s; touch d/s && [ "$(stat -c %u d/s)" = 0 ]; }
within 10 roots
g volume set gv0 features.trash on
trashing() { echo gone > d/s && rm d/s && ls .trashcan/d/s_*; }
within 10 trashing
within 10 [ -n "$(ls "$T/b3/.trashcan/d")" ]
for b in b2 b3; do
    same "$(cd "$T/$b/.trashcan" && find . | sort)" "$(cd "$T/b1/.trashcan" && find . | sort)" "the trash of $b"
    same "$(getfattr -h -e hex -n trusted.gfid "$T/$b/.trashcan/d" 2>/dev/null | tail -2)" \
        "$(getfattr -h -e hex -n trusted.gfid "$T/b1/.trashcan/d" 2>/dev/null | tail -2)" "gfid in the trash of $b"
done
grep -q gone "$T"/b2/.trashcan/d/s_* || fail "the trash has no contents"
g volume set gv0 features.trash off
rm -rf d/p .trashcan/*

# A brick dies, is started by force, and heals.
kill -9 "$(cat /run/gluster/vols/gv0/debian1-*-b3.pid)"
within 10 online "Y Y N"
echo three > h && rm -rf linux && mkdir e
g volume heal gv0 info | grep -q 'Number of entries: [1-9]' || fail "heal info shows no backlog"
g volume start gv0 force
within 15 online "Y Y Y"
healed() { ! g volume heal gv0 info | grep 'Number of entries' | grep -qv ': 0$'; }
within 60 healed
same "$(ls -A "$T/b3" | grep -v '^.glusterfs' | paste -sd' ')" ".trashcan d e f g h" "names on the healed brick"
cd / && umount "$T/mnt"
g volume stop gv0 || fail "volume stop"
gone() { ! pgrep -x glusterfsd; }
within 15 gone
echo PASSED
