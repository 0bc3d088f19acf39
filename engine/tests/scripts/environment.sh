# Sourced by the other scripts, which run inside private namespaces. In: T (an empty directory), BRICK (our glusterfsd).
set -eu
mount --make-rprivate /
ip link set lo up
mount -t tmpfs none /run
# A short name for it: gluster wraps long brick paths in its tables.
mkdir -p /run/gluster /run/t "$T/log" "$T/mnt"
mount --bind "$T" /run/t
T=/run/t
mount --bind "$T/log" /var/log/glusterfs
VOLUME_ID=8f1b7c3e-0d6a-4c55-9a6e-0123456789ab

fail() {
    echo "FAILED: $*"
    for pid in /run/b*.pid; do [ ! -e "$pid" ] || kill -USR1 "$(cat "$pid")" || true; done
    sleep 0.5
    echo "--- brick logs"
    tail -n 15 "$T"/log/b*.log 2>/dev/null || true
    exit 1
}
# Runs a command until it succeeds, for at most so many seconds.
within() {
    local limit=$1 n=0
    shift
    until "$@" >/dev/null 2>&1; do
        n=$((n + 1))
        [ "$n" -lt $((limit * 10)) ] || fail "not within ${limit} s: $*"
        sleep 0.1
    done
}
# A brick's volfile as glusterd lays it out, the essential translators.
brick_volfile() { # number
    local b=$T/b$1
    cat <<V
volume gv0-posix
    type storage/posix
    option directory $b
    option fips-mode-rchecksum on
    option volume-id $VOLUME_ID
end-volume
volume gv0-access-control
    type features/access-control
    subvolumes gv0-posix
end-volume
volume gv0-locks
    type features/locks
    subvolumes gv0-access-control
end-volume
volume gv0-io-threads
    type performance/io-threads
    subvolumes gv0-locks
end-volume
volume gv0-index
    type features/index
    option index-base $b/.glusterfs/indices
    option xattrop-dirty-watchlist trusted.afr.dirty
    option xattrop-pending-watchlist trusted.afr.gv0-
    subvolumes gv0-io-threads
end-volume
volume $b
    type debug/io-stats
    subvolumes gv0-index
end-volume
volume gv0-server
    type protocol/server
    option transport-type tcp
    option auth.addr.$b.allow *
    option transport.socket.listen-port $((49151 + $1))
    subvolumes $b
end-volume
V
}
new_brick() { # number
    mkdir -p "$T/b$1"
    setfattr -n trusted.glusterfs.volume-id -v "0x${VOLUME_ID//-/}" "$T/b$1"
    brick_volfile "$1" > "$T/b$1.vol"
}
start_brick() { # number
    "$BRICK" -f "$T/b$1.vol" -l "$T/log/b$1.log" -p "/run/b$1.pid" -S "/run/b$1.socket" || fail "brick $1 does not start"
}
client_volfile() { # number of bricks
    local i
    for i in $(seq "$1"); do
        cat <<V
volume gv0-client-$((i - 1))
    type protocol/client
    option remote-host 127.0.0.1
    option remote-port $((49151 + i))
    option remote-subvolume $T/b$i
    option transport-type tcp
    option send-gids true
end-volume
V
    done
}
# Replicate over three bricks; "$1" goes into the replicate volume, "$2" is what stands on it.
replicate() {
    client_volfile 3
    cat <<V
volume gv0-replicate-0
    type cluster/replicate
    option volume-id $VOLUME_ID
    option afr-pending-xattr gv0-client-0,gv0-client-1,gv0-client-2
    option granular-entry-heal on
    option use-anonymous-inode yes
    $1
    subvolumes gv0-client-0 gv0-client-1 gv0-client-2
end-volume
$2
V
}
mount_client() { # volfile
    glusterfs -f "$1" --log-file="$T/log/client.log" "$T/mnt"
    within 15 stat "$T/mnt/."
}
same() { [ "$1" = "$2" ] || fail "$3: expected '$2', found '$1'"; }
