# Debian's replicate over three bricks of ours: one is killed under load, comes back, and Debian's heal daemon brings it
# up to date; afterwards the three are identical.
. "$(dirname "$0")/environment.sh"
for i in 1 2 3; do new_brick $i && start_brick $i; done
replicate "option quorum-type auto" "volume gv0
    type features/utime
    subvolumes gv0-replicate-0
end-volume" > "$T/client.vol"
replicate "option iam-self-heal-daemon yes
    option self-heal-daemon enable
    option data-self-heal on
    option metadata-self-heal on
    option entry-self-heal on
    option heal-timeout 5" "volume glustershd
    type debug/io-stats
    subvolumes gv0-replicate-0
end-volume" > "$T/shd.vol"
mount_client "$T/client.vol"
cd "$T/mnt"
tar -C /usr/include -cf "$T/tree.tar" linux/usb linux/netfilter linux/can linux/dvb
mkdir before && tar -xf "$T/tree.tar" -C before
mkdir old && (cd old && for n in $(seq 20); do echo "$n" > "f$n"; done)
ln old/f1 old/hard

# Killed under a running untar.
mkdir during
tar -xf "$T/tree.tar" -C during & writer=$!
sleep 0.5 && kill -9 "$(cat /run/b3.pid)"
wait "$writer" || fail "the untar stopped with the brick"
mv before after && rm -rf after/linux/usb
echo changed > old/f2 && rm old/f3 && mv old/f4 old/moved && chmod 600 old/f5 && chown 5:6 old/f6 && ln old/f7 old/also
rm old/hard && ln -s target old/soft && setfattr -n user.k -v v old/f8 && mkfifo old/pipe && mknod old/dev b 7 1
dd if=/dev/urandom of=fresh bs=1M count=4 status=none && truncate -s 100 old/f9
printf patch | dd of=fresh bs=1 seek=1000000 conv=notrunc status=none
backlog() { for i in 1 2 3; do ls "$T/b$i/.glusterfs/indices/xattrop" | grep -vc '^xattrop-' || true; done | paste -sd' '; }
[ "$(backlog | cut -d' ' -f1)" -gt 0 ] || fail "nothing in the index: $(backlog)"

start_brick 3
glusterfs -f "$T/shd.vol" -p /run/shd.pid --log-file="$T/log/shd.log" --process-name glustershd --client-pid=-6 \
    --xlator-option '*replicate*.node-uuid=8f1b7c3e-0d6a-4c55-9a6e-aaaaaaaaaaaa'
healed() { [ "$(backlog)" = "0 0 0" ]; }
within 90 healed
# What heal has parked counts among the links of what is left, until it is removed.
unparked() { [ -z "$(find "$T"/b*/.glusterfs-anonymous-inode-* -type f)" ]; }
within 30 unparked
kill "$(cat /run/shd.pid)"
sleep 1

# (Not where heal parks what it removes: `.glusterfs-anonymous-inode-*` is emptied later.)
# Same names, kinds, sizes, modes, owners, targets; contents; xattrs but for marks and the client's own times of access.
picture() {
    cd "$T/b$1"
    find . -path './.glusterfs*' -prune -o ! -type d -printf '%P %y %m %U:%G %s %n %l\n' | sort
    find . -path './.glusterfs*' -prune -o -type d -printf '%P %y %m %U:%G\n' | sort
    find . -path './.glusterfs*' -prune -o -type f -print0 | sort -z | xargs -0 md5sum
    find . -path './.glusterfs*' -prune -o -print0 | sort -z | xargs -0 getfattr -h -d -m . -e hex 2>/dev/null |
        grep -v -e trusted.afr -e trusted.glusterfs.mdata
}
for i in 1 2 3; do (picture $i) > "$T/picture$i"; done
diff "$T/picture1" "$T/picture2" > "$T/difference" || fail "bricks 1 and 2 differ: $(head -5 "$T/difference")"
diff "$T/picture1" "$T/picture3" > "$T/difference" || fail "bricks 1 and 3 differ: $(head -5 "$T/difference")"
# (Not the time of a file that was being written when the brick died: where nobody could mark that, stock's heal may take
# the copy that missed tar's utimes as the source, and its time with it.)
tar -df "$T/tree.tar" -C "$T/b3/during" > "$T/archive" 2>&1 || true
grep -v ': Mod time differs$' "$T/archive" && fail "brick 3 has other contents than the archive"
[ "$(wc -l < "$T/archive")" -le 3 ] || fail "brick 3 has other times than the archive: $(head -3 "$T/archive")"
grep -q ' moved\|old/moved' "$T/picture3" || fail "the picture is empty"
# Marks are zero everywhere.
for i in 1 2 3; do
    find "$T/b$i" -path "$T/b$i/.glusterfs" -prune -o -print0 | xargs -0 getfattr -h -d -m trusted.afr -e hex 2>/dev/null |
        grep '^trusted.afr' | grep -v '=0x0*$' && fail "a mark is left on brick $i"
done
umount -l "$T/mnt"
echo PASSED
