# A disk that hangs holds up an executor in the middle of an operation: PINGs are answered all the same, the client keeps its
# connection, and everything goes on when the disk does.
. "$(dirname "$0")/environment.sh"
mkdir -p "$T/b1"
truncate -s 64M "$T/disk" && mkfs.ext4 -q "$T/disk"
mount -o loop "$T/disk" "$T/b1"
new_brick 1
sed -i 's|    option fips-mode-rchecksum on|&\n    option health-check-interval 0|; s|    option transport-type tcp|&\n    option event-threads 1|' "$T/b1.vol"
start_brick 1
client_volfile 1 | sed 's|    option send-gids true|&\n    option ping-timeout 4|' > "$T/client.vol"
mount_client "$T/client.vol"
echo one > "$T/mnt/f"
fsfreeze -f "$T/b1"
trap 'fsfreeze -u "$T/b1" 2>/dev/null || true' EXIT
# A new file is made inline: the executor waits for the disk now.
touch "$T/mnt/g" & touched=$!
sleep 1
kill -0 "$touched" || fail "the disk does not hang"
cat "$T/mnt/f" > "$T/read" & reading=$!
sleep 13
kill -0 "$touched" || fail "touch ended while the disk hangs"
grep 'has not responded in the last' "$T/log/client.log" && fail "the client gave the brick up"
fsfreeze -u "$T/b1"
wait "$touched" || fail "touch, after the disk went on"
wait "$reading" || fail "cat, after the disk went on"
same "$(cat "$T/read")" one "what was read meanwhile"
same "$(ls "$T/b1" | paste -sd' ')" "f g lost+found" "names on the brick"
umount "$T/mnt"
kill "$(cat /run/b1.pid)"
echo PASSED
