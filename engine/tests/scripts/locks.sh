# Two stock mounts: a lock that waits is interrupted on the brick, and mandatory locks hold up the other's writes.
. "$(dirname "$0")/environment.sh"
new_brick 1
sed -i 's|    type features/locks|&\n    option mandatory-locking forced|' "$T/b1.vol"
start_brick 1
client_volfile 1 > "$T/client.vol"
mount_client "$T/client.vol"
mkdir -p "$T/mnt2"
glusterfs -f "$T/client.vol" --log-file="$T/log/client2.log" "$T/mnt2"
within 15 stat "$T/mnt2/."
echo hello > "$T/mnt/f"
python3 - "$T" > "$T/said" <<'P' || fail "$(cat "$T/said")"
import errno, fcntl, os, signal, sys

top = sys.argv[1]
holder = open(top + "/mnt/f", "r+b", 0)
fcntl.lockf(holder, fcntl.LOCK_EX)
if os.fork() == 0:
    class Alarm(Exception):
        pass
    def ring(*_):
        raise Alarm()
    signal.signal(signal.SIGALRM, ring)
    signal.siginterrupt(signal.SIGALRM, True)
    waiter = open(top + "/mnt2/f", "r+b", 0)
    signal.alarm(1)
    try:
        fcntl.lockf(waiter, fcntl.LOCK_EX)
        print("locked", flush=True)
    except (Alarm, InterruptedError):
        print("interrupted", flush=True)
    os._exit(0)
os.wait()
fd = os.open(top + "/mnt2/f", os.O_RDWR | os.O_NONBLOCK)
try:
    os.write(fd, b"j")
    os.fsync(fd)
    print("written")
except OSError as e:
    print(errno.errorcode[e.errno])
fcntl.lockf(holder, fcntl.LOCK_UN)
os.write(fd, b"j")
os.fsync(fd)
P
same "$(paste -sd' ' "$T/said")" "interrupted EAGAIN" "a waiting lock, and a write in the way of one"
# The brick itself ended the wait: the client was told EINTR.
grep -q 'client4_0_lk_cbk.*errno=4' "$T/log/client2.log" || fail "the waiting lock did not end with EINTR"
same "$(cat "$T/b1/f")" jello "what was written after the unlock"
umount "$T/mnt" "$T/mnt2"
kill "$(cat /run/b1.pid)"
echo PASSED
