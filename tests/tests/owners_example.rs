//! The promise: on three machines, a replicated volume is made and mounted with GlusterFS's commands, and files of every
//! kind written on one mount are read on another and are equal on all three bricks.

use std::time::Duration;

use ladrillo_tests::{Cluster, wait_until};

/// The commands as an operator types them.
fn bring_up() -> Cluster {
    let cluster = Cluster::builder(3).build();
    for node in cluster.servers() {
        node.start_glusterd();
    }
    let first = cluster.node(1);
    let probed = first.sh("gluster peer probe debian2 && gluster peer probe debian3").must();
    assert_eq!(probed.stdout, "peer probe: success\npeer probe: success\n");
    let both = wait_until(Duration::from_secs(30), || {
        first.sh("gluster peer status").stdout.matches("State: Peer in Cluster (Connected)").count() == 2
    });
    assert!(both, "{}", first.sh("gluster peer status"));
    let created = first
        .sh("gluster volume create gv0 replica 3 debian1:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 debian3:/mnt/brick1/gv0")
        .must();
    assert_eq!(created.stdout, "volume create: gv0: success: please start the volume to access data\n");
    assert_eq!(first.sh("gluster volume start gv0").must().stdout, "volume start: gv0: success\n");
    for node in cluster.servers() {
        node.sh("mount -t glusterfs debian1:/gv0 /mnt/gv0").must();
    }
    cluster
}

const WRITE: &str = r#"
set -e; trap 'echo "failed: $BASH_COMMAND"' ERR
cd /mnt/gv0
mkdir -p d/deep/er; chmod 2775 d; chown 12:34 d/deep
echo hello > small; chmod 640 small; chown 1000:1001 small
: > empty
head -c 33333333 /dev/urandom > big; cksum < big > big.sum
truncate -s 1G sparse; printf end | dd of=sparse bs=1 seek=1073741000 conv=notrunc status=none
ln -s small link; ln -s /nowhere/at/all dangling; ln -s "$(head -c 255 /dev/zero | tr '\0' x)" longlink
ln small d/hard
mkfifo fifo; chmod 600 fifo
mknod null c 1 3; mknod block b 7 99
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
setfattr -n user.colour -v brick small
setfattr -n user.binary -v 0x000102ff d
setfattr -n trusted.own -v kept small
touch -d '2001-02-03 04:05:06.789' old
python3 - <<'P'
import os
name = 'é ü\n\t"' + 'n' * 200
open(name, 'w').write('odd name')
fd = os.open('appended', os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
for i in range(100): os.write(fd, b'%03d\n' % i)
os.fsync(fd); os.close(fd)
P
mkdir many; for i in $(seq 1 300); do echo $i > many/$i; done
echo was > moved; mv moved d/moved; echo gone > unlinked; rm unlinked; mkdir rd; rmdir rd
echo one > replaced; echo two > replaced.new; mv replaced.new replaced
"#;

const READ: &str = r#"
set -e; trap 'echo "failed: $BASH_COMMAND"' ERR
cd /mnt/gv0
test "$(cat small)" = hello
test "$(stat -c '%a %u:%g %h' small)" = '640 1000:1001 2'
test "$(stat -c '%a %F' d)" = '2775 directory'
test "$(stat -c '%u:%g' d/deep)" = 12:34
test "$(stat -c '%s' empty)" = 0
test "$(cksum < big)" = "$(cat big.sum)"
test "$(stat -c '%s' sparse)" = 1073741824
test "$(dd if=sparse bs=1 skip=1073741000 count=3 status=none)" = end
test "$(head -c 1000000 sparse | tr -d '\0' | wc -c)" = 0
test $(stat -c '%b' sparse) -lt 100000
test "$(readlink link)" = small; test "$(cat link)" = hello; test "$(readlink dangling)" = /nowhere/at/all
test "$(readlink longlink | wc -c)" = 256
test d/hard -ef small
test -p fifo; test "$(stat -c %a fifo)" = 600; test -S sock
test "$(stat -c '%F %t %T' null)" = 'character special file 1 3'
test "$(stat -c '%F %t %T' block)" = 'block special file 7 63'
test "$(getfattr --only-values -n user.colour small)" = brick
test "$(getfattr --only-values -n user.colour d/hard)" = brick
getfattr -e hex -n user.binary d | grep -q '^user.binary=0x000102ff$'
test "$(getfattr --only-values -n trusted.own small)" = kept
test "$(stat -c %y old | cut -c1-23)" = '2001-02-03 04:05:06.789'
test "$(cat *nnnn)" = 'odd name'
test "$(wc -l < appended) $(tail -n 1 appended)" = '100 099'
test $(ls many | wc -l) = 300; test "$(cat many/* | sort -n | tail -n 1)" = 300
test "$(cat d/moved)" = was; test ! -e moved; test ! -e unlinked; test ! -e rd; test "$(cat replaced)" = two
test $(find . -mindepth 1 -maxdepth 1 -printf x | wc -c) = 18
"#;

#[test]
fn files_of_every_kind_are_the_same_everywhere() {
    let cluster = bring_up();
    cluster.node(1).sh(WRITE).must();
    cluster.node(2).sh(READ).must();
    cluster.node(3).sh(READ).must();
    // And in the other direction, over what the first mount may have cached.
    cluster.node(3).sh("cd /mnt/gv0; echo changed > small; rm -r many; echo back > d/back").must();
    let seen = wait_until(Duration::from_secs(10), || {
        cluster.node(1).sh("cd /mnt/gv0; test $(cat small) = changed -a $(cat d/back) = back -a ! -e many").ok()
    });
    assert!(seen, "{}", cluster.node(1).sh("cd /mnt/gv0; cat small d/back; ls -la"));
    for node in cluster.servers() {
        node.sh("umount /mnt/gv0").must();
    }
    cluster.wait_identical("gv0", Duration::from_secs(30));
    // A brick is a plain directory: the file can be read there without us.
    assert_eq!(cluster.node(2).sh("cat /mnt/brick1/gv0/small").must().stdout, "changed\n");
}

#[test]
fn stop_and_delete_leave_the_files() {
    let cluster = bring_up();
    cluster.node(1).sh("echo kept > /mnt/gv0/file; umount /mnt/gv0").must();
    cluster.node(2).sh("umount /mnt/gv0").must();
    let first = cluster.node(1);
    assert_eq!(first.gluster("volume stop gv0").must().stdout, "volume stop: gv0: success\n");
    assert!(first.gluster("volume info gv0").must().stdout.contains("\nStatus: Stopped\n"));
    assert_eq!(first.gluster("volume delete gv0").must().stdout, "volume delete: gv0: success\n");
    first.gluster("volume info gv0").must_fail();
    assert_eq!(cluster.node(2).sh("cat /mnt/brick1/gv0/file").must().stdout, "kept\n");
    let left = cluster.node(3).sh("pgrep -x glusterfsd; true");
    assert_eq!(left.stdout, "", "a brick process outlives its volume");
    // A mount that was left behind does not go over to another volume of that name.
    let bricks: Vec<String> =
        cluster.servers().iter().map(|node| format!("{}:/mnt/brick1/other", node.name())).collect();
    first.gluster(&format!("volume create gv0 replica 3 {} force", bricks.join(" "))).must();
    first.gluster("volume start gv0").must();
    cluster.wait_online("gv0", 3);
    first.sh("mount -t glusterfs debian1:/gv0 /mnt/gv0 && echo new > /mnt/gv0/other").must();
    let log = "grep -c 'brick of another volume' /var/log/glusterfs/mnt-gv0.log";
    assert!(wait_until(Duration::from_secs(20), || cluster.node(3).sh(log).stdout.trim() != "0"));
    cluster.node(3).sh("ls /mnt/gv0").must_fail();
    cluster.node(3).sh("umount -l /mnt/gv0").must();
}
