# A brick whose disk fails ends by itself, so that clients turn to the other copies: one whose file system takes no more
# writes, one whose disk gives errors (where the kernel has device mapper), and one that has lost its directory.
. "$(dirname "$0")/environment.sh"
mkdir -p "$T/b1" "$T/b2"
start() { # number
    new_brick "$1"
    sed -i 's|    option fips-mode-rchecksum on|&\n    option health-check-interval 1|' "$T/b$1.vol"
    start_brick "$1"
    sleep 2.5
    kill -0 "$(cat "/run/b$1.pid")" || fail "brick $1 does not stay"
}
ended() { ! kill -0 "$1"; }
failed() { # number
    grep -q 'health check failed' "$T/log/b$1.log" || fail "brick $1 ended without saying why"
}
truncate -s 64M "$T/disk" && mkfs.ext4 -q "$T/disk"
mount -o loop "$T/disk" "$T/b1"
start 1
pid=$(cat /run/b1.pid)
mount -o remount,ro "$T/b1"
within 15 ended "$pid"
failed 1
umount "$T/b1"

start 2
pid=$(cat /run/b2.pid)
rm -rf "$T/b2/.glusterfs"
within 15 ended "$pid"
failed 2

device=$(losetup --find --show "$T/disk")
size=$(blockdev --getsz "$device")
if dmsetup create "failing$$" --table "0 $size linear $device 0" 2> "$T/dm"; then
    mkdir -p "$T/b3"
    dmsetup mknodes && mount "/dev/mapper/failing$$" "$T/b3"
    start 3
    pid=$(cat /run/b3.pid)
    dmsetup suspend --noflush "failing$$"
    dmsetup load "failing$$" --table "0 $size error" && dmsetup resume "failing$$"
    within 25 ended "$pid"
    failed 3
    umount -l "$T/b3"
    dmsetup remove "failing$$" || true
else
    echo "without device mapper: $(cat "$T/dm")"
fi
losetup -d "$device"
echo PASSED
