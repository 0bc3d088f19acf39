# A brick made by Debian's glusterfsd is taken over by ours in place, and given back.
. "$(dirname "$0")/environment.sh"
new_brick 1
mkdir -p "$T/b1/.glusterfs/indices" && chmod 600 "$T/b1/.glusterfs"
{
    client_volfile 1
    printf 'volume gv0\n type features/utime\n subvolumes gv0-client-0\nend-volume\n'
} > "$T/client.vol"
stock_brick() { glusterfsd -f "$T/b1.vol" -l "$T/log/stock.log" -p /run/b1.pid; }
end_brick() {
    local pid
    umount "$T/mnt"
    pid=$(cat /run/b1.pid)
    kill "$pid"
    within 10 test ! -e "/proc/$pid"
}
cd "$T/mnt/.."
stock_brick
mount_client "$T/client.vol"
mkdir -p "$T/mnt/a/b/c" && echo x > "$T/mnt/a/b/c/f" && ln "$T/mnt/a/b/c/f" "$T/mnt/hard" && ln -s a "$T/mnt/soft"
touch -d 2001-02-03 "$T/mnt/a/old" && setfattr -n user.k -v v "$T/mnt/a/old"
picture() { (cd "$T/mnt" && find . -printf '%p %i %y %m %U:%G %s %n %l %T@ %C@\n' | sort); }
first=$(picture)
end_brick

start_brick 1
mount_client "$T/client.vol"
same "$(picture)" "$first" "what our brick shows of GlusterFS's"
same "$(cat "$T/mnt/a/b/c/f")" x contents
mv "$T/mnt/a/b" "$T/mnt/a/B" && rm "$T/mnt/hard" && echo y > "$T/mnt/a/B/c/g" && ln "$T/mnt/a/B/c/g" "$T/mnt/t"
mkdir "$T/mnt/a/B/new" && ln -s x "$T/mnt/a/link" && mkfifo "$T/mnt/pipe" && chown 7:8 "$T/mnt/a/old"
second=$(picture)
end_brick

stock_brick
mount_client "$T/client.vol"
same "$(picture)" "$second" "what GlusterFS shows of our brick"
same "$(cat "$T/mnt/a/B/c/g" "$T/mnt/a/B/c/f" | paste -sd' ')" "y x" contents
# (Names of one length: of others GlusterFS 10.3 shows the tail of the one before.)
same "$(getfattr -n glusterfs.gfidtopath --only-values "$T/mnt/t" | tr ':' '\n' | sort | paste -sd' ')" "/a/B/c/g /t" paths
rm -rf "$T"/mnt/*
# Nothing of either is left but the root's handle and the housekeeping.
left=$(find "$T/b1" -path '*/.glusterfs/indices' -prune -o ! -type d ! -name health_check -print)
same "$left" "$T/b1/.glusterfs/00/00/00000000-0000-0000-0000-000000000001" "left after everything was removed"
end_brick
echo PASSED
