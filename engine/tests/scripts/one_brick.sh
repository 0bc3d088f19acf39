# Debian's FUSE client on one brick of ours: every kind of operation.
. "$(dirname "$0")/environment.sh"
new_brick 1
start_brick 1
{
    client_volfile 1
    printf 'volume gv0\n type features/utime\n subvolumes gv0-client-0\nend-volume\n'
} > "$T/client.vol"
mount_client "$T/client.vol"
cd "$T/mnt"

# Contents.
dd if=/dev/urandom of=big bs=1M count=24 status=none
cp big copy && cmp big copy
same "$(md5sum < big)" "$(md5sum < "$T/b1/big")" "checksum on the brick"
echo hello > a && echo more >> a
same "$(cat a)" "$(printf 'hello\nmore')" "append"
truncate -s 3 a && same "$(cat a)" hel "truncate"
truncate -s 70000 a && same "$(stat -c %s a)" 70000 "grow"
dd if=/dev/zero of=direct bs=4096 count=10 oflag=direct status=none
dd if=direct of=/dev/null bs=4096 iflag=direct status=none || fail "O_DIRECT"
fallocate -l 10000 space && same "$(stat -c %s space)" 10000 fallocate
fallocate -p -o 0 -l 4096 space && fallocate -z -o 0 -l 20000 space
same "$(stat -c %s space)" 20000 zerofill

# Names.
mkdir -p d/e/f && echo x > d/e/f/file && mv d/e g && same "$(cat g/f/file)" x "rename of a directory"
ln a hard && same "$(stat -c %h a)" 2 "links" && rm a && same "$(stat -c %h hard)" 1 "links left"
same "$(getfattr -n glusterfs.gfidtopath --only-values hard)" /hard "paths of a file"
ln -s g/f/file soft && same "$(cat soft)" x symlink && same "$(readlink soft)" g/f/file readlink
mkfifo pipe && mknod null c 1 3 && same "$(stat -c '%F %t %T' null)" "character special file 1 3" mknod
echo old > victim && echo new > winner && mv winner victim && same "$(cat victim)" new "rename over a file"
mkdir empty full && touch full/x
mv -T empty full 2>/dev/null && fail "rename over a full directory"
rmdir full 2>/dev/null && fail "rmdir of a full directory"
mkdir -p loop/in && mv loop loop/in/ 2>/dev/null && fail "a directory into itself"
exec 5<> hard && rm hard && echo 12345 >&5 && exec 5>&-
# The kernel sends RELEASE after close() has returned.
within 5 sh -c "[ -z \"\$(ls '$T/b1/.glusterfs/unlink')\" ]" || fail "an unlinked file stays after its close"

# Attributes.
touch f && chmod 4751 f && same "$(stat -c %a f)" 4751 chmod
chown 12:13 f && same "$(stat -c %u:%g f)" 12:13 chown && same "$(stat -c %u:%g "$T/b1/f")" 12:13 "owner on the brick"
touch -d '2001-02-03 04:05:06.789' f && same "$(stat -c %y f)" "2001-02-03 04:05:06.789000000 +0000" utimes
setfattr -n user.colour -v blue f && same "$(getfattr -n user.colour --only-values f)" blue xattr
setfattr -x user.colour f && getfattr -n user.colour f 2>/dev/null && fail "an xattr that was removed"
getfattr -d -m . f | grep -q trusted.gfid && fail "trusted.gfid is shown"
mkdir -m 2775 set && chgrp 4321 set && chmod g+s set && mkdir set/in && touch set/in/file
same "$(stat -c '%a %g' set/in)" "2755 4321" "inherited group"

# Permissions, also with supplementary groups.
mkdir -m 700 private && mkdir -m 1777 sticky && touch sticky/roots && mkdir -m 770 team && chgrp 2000 team
user() { setpriv --reuid 1000 --regid 1000 --groups 2000 bash -c "$1" 2>/dev/null; }
user 'touch nope' && fail "a user creates in root's directory"
user 'ls private' && fail "a user reads a private directory"
user 'rm -f sticky/roots' && fail "a user removes from a sticky directory"
user 'echo x > sticky/mine && chmod 600 sticky/mine && mv sticky/mine sticky/still' || fail "a user's own file"
user 'chown 0 sticky/still' && fail "a user gives a file away"
user 'echo y > team/file' || fail "a group's directory"
same "$(stat -c %u:%g team/file)" 1000:1000 "owner of a new file"

# Many.
mkdir many && (cd many && seq 1 10000 | xargs -n 500 touch)
same "$(ls many | wc -l)" 10000 "listing"
rm -rf many && [ ! -e many ] || fail "removing many"

# The process.
same "$(ls "$T/b1/.glusterfs/landfill" | wc -l)" 0 landfill
cp "$T/b1.vol" "$T/foreign.vol" && sed -i 's/option volume-id .*/option volume-id 00000000-0000-0000-0000-0000000000ff/' "$T/foreign.vol"
if "$BRICK" -f "$T/foreign.vol" -l "$T/log/foreign.log" 2> "$T/said"; then fail "a brick of another volume starts"; fi
grep -q "already part of the volume" "$T/said" || fail "no reason given: $(cat "$T/said")"
"$BRICK" -f "$T/b1.vol" -p /run/b1.pid -l "$T/log/twice.log" 2>/dev/null && fail "two processes with one pid file"
before=$(awk '{print $14+$15}' "/proc/$(cat /run/b1.pid)/stat"); sleep 2
after=$(awk '{print $14+$15}' "/proc/$(cat /run/b1.pid)/stat")
[ $((after - before)) -lt 20 ] || fail "an idle brick uses $((after - before)) ticks in 2 s"
mv "$T/log/b1.log" "$T/log/b1.old" && kill -HUP "$(cat /run/b1.pid)" && within 5 test -s "$T/log/b1.log"
cd / && umount "$T/mnt"
pid=$(cat /run/b1.pid) && kill "$pid"
within 10 test ! -e "/proc/$pid"
[ ! -e /run/b1.pid ] && [ ! -e /run/b1.socket ] || fail "left behind after SIGTERM"
# A disk that fails ends its brick.
new_brick 2
sed -i 's/option fips-mode-rchecksum on/&\n    option health-check-interval 1/' "$T/b2.vol"
start_brick 2
pid=$(cat /run/b2.pid)
rm -f "$T/b2/.glusterfs/health_check" && mkdir "$T/b2/.glusterfs/health_check"
within 20 test ! -e "/proc/$pid"
grep -q "health check failed" "$T/log/b2.log" || fail "no reason in the log"
echo PASSED
