//! The promise: a mount behaves the same whether its requests come by /dev/fuse or by FUSE over io_uring: contents, locks,
//! stalled bricks, and every way to end it. Where the kernel has no FUSE over io_uring the tests say so and try the device.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ladrillo_tests::{Cluster, Node, for_each_front_end, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

/// A machine without a glusterd, and on it a mount right on one brick, at /mnt/gv0.
struct OneBrick {
    cluster: Cluster,
}

impl OneBrick {
    fn new(front: &str) -> OneBrick {
        let one = OneBrick { cluster: Cluster::builder(1).brick_size("").build() };
        let volfile = "volume posix\n type storage/posix\n option directory /mnt/brick1/b\nend-volume\n\
                       volume locks\n type features/locks\n subvolumes posix\nend-volume\n";
        fs::write(one.node().path("/run/b.vol"), volfile).unwrap();
        one.node()
            .sh("mkdir /mnt/brick1/b; setfattr -n trusted.glusterfs.volume-id \
                 -v 0x00112233445566778899aabbccddeeff /mnt/brick1/b")
            .must();
        one.mount(front);
        one
    }

    fn mount(&self, front: &str) {
        let mount = "glusterfs -f /run/b.vol --attribute-timeout=600 --entry-timeout=600 -p /run/mount.pid";
        self.node().sh(&format!("{mount} --fuse-front={front} /mnt/gv0")).must();
        assert_eq!(self.virtual_xattr("front-end"), front);
    }

    fn virtual_xattr(&self, name: &str) -> String {
        let get = format!("getfattr --only-values -n glusterfs.ladrillo.{name} /mnt/gv0");
        self.node().sh(&get).must().stdout
    }

    fn node(&self) -> &Node {
        self.cluster.node(1)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.node().path(&format!("/mnt/gv0/{name}"))
    }

    fn pid(&self) -> String {
        self.node().sh("cat /run/mount.pid").must().stdout.trim().to_owned()
    }

    fn wait_for_end(&self, pid: &str) {
        let ended = wait_until(LIMIT, || !self.node().sh(&format!("kill -0 {pid}")).ok());
        assert!(ended, "the client lives on");
    }

    fn is_mounted(&self) -> bool {
        self.node().sh("grep ' /mnt/gv0 ' /proc/self/mountinfo | grep -q fuse").ok()
    }
}

fn open(path: &PathBuf) -> File {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    opened.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Only this CPU for the calling thread: its requests all go to one queue of the ring.
fn on_first_cpu() {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(0);
    rustix::thread::sched_setaffinity(None, &cpus).unwrap_or_else(|e| panic!("CPU 0: {e}"));
}

/// flock(2), which waits. A signal would end the test.
fn lock(file: &File) {
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
}

/// File data is copied nowhere on its way from an application to the brick. On its way back the ring's is copied once: an
/// answer has to lie where the kernel expects it.
#[test]
fn file_data_is_copied_once_at_most() {
    for_each_front_end(|front| {
        const SIZE: usize = 8 << 20;
        let one = OneBrick::new(front);
        let path = one.file("f");
        open(&path).write_all_at(&vec![7; SIZE], 0).unwrap();
        assert_eq!(one.virtual_xattr("copied-bytes"), "0", "{front}: after writing");
        one.node().sh("umount /mnt/gv0").must();
        one.mount(front);
        assert_eq!(fs::read(&path).unwrap(), vec![7; SIZE]);
        let expected = if front == "ring" { SIZE } else { 0 };
        assert_eq!(one.virtual_xattr("copied-bytes"), expected.to_string(), "{front}: after reading");
    });
}

/// Writes and reads of 512 bytes to 1 MiB at odd places, by several threads, checked against what they wrote, before and after
/// the kernel's cache is dropped.
#[test]
fn contents_are_what_was_written() {
    for_each_front_end(|front| {
        let one = OneBrick::new(front);
        thread::scope(|scope| {
            for job in 0..4u64 {
                let path = one.file(&format!("f{job}"));
                scope.spawn(move || unaligned(&path, job));
            }
        });
    });
}

fn unaligned(path: &PathBuf, job: u64) {
    const SIZE: usize = 6 << 20;
    let (mut random, mut shadow) = (job, vec![0u8; SIZE]);
    let file = open(path);
    file.set_len(SIZE as u64).unwrap();
    let place = |random: &mut u64| {
        let len = 512 + next(random) as usize % ((1 << 20) - 511);
        (next(random) as usize % (SIZE - len), len)
    };
    let check = |file: &File, random: &mut u64, shadow: &[u8]| {
        let (at, len) = place(random);
        let mut got = vec![0; len];
        file.read_exact_at(&mut got, at as u64).unwrap();
        assert!(got == shadow[at..at + len], "job {job}: {len} bytes at {at} differ");
    };
    for _ in 0..60 {
        let (at, len) = place(&mut random);
        for chunk in shadow[at..at + len].chunks_mut(8) {
            let bytes = next(&mut random).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        file.write_all_at(&shadow[at..at + len], at as u64).unwrap();
        check(&file, &mut random, &shadow);
    }
    file.sync_all().unwrap();
    // SAFETY: no memory is passed.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    for _ in 0..60 {
        check(&file, &mut random, &shadow);
    }
}

/// Many more wait for a lock than the ring has entries, all on one CPU; whoever holds it goes on working there, and when it is
/// given up all get it.
#[test]
fn waits_for_locks_hold_nobody_else_up() {
    const WAITERS: usize = 60;
    for_each_front_end(|front| {
        let one = OneBrick::new(front);
        let path = one.file("lock");
        let got = Arc::new(AtomicUsize::new(0));
        on_first_cpu();
        let held = open(&path);
        lock(&held);
        let waiters: Vec<_> = (0..WAITERS)
            .map(|_| {
                let (path, got) = (path.clone(), got.clone());
                thread::spawn(move || {
                    on_first_cpu();
                    let file = open(&path);
                    lock(&file);
                    got.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        let (done, finished) = mpsc::channel();
        let holder = thread::spawn(move || {
            on_first_cpu();
            let start = Instant::now();
            for n in 0..200 {
                fs::write(path.with_file_name(format!("while{n}")), "x").unwrap();
            }
            done.send(start.elapsed()).unwrap();
            // Closing it gives it up.
            drop(held);
        });
        let took = finished.recv_timeout(LIMIT).expect("whoever holds the lock can work");
        println!("{front}: 200 files while {WAITERS} wait: {took:?}");
        holder.join().unwrap();
        assert!(wait_until(LIMIT, || got.load(Ordering::Relaxed) == WAITERS), "{got:?} got the lock");
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

/// A brick stalls, and with it more writes than the ring has entries at first, or the device buffers: requests that need no
/// brick are answered all the same.
#[test]
fn stalled_writes_leave_room_for_others() {
    for_each_front_end(|front| {
        let one = OneBrick::new(front);
        // The device's own buffers hold some 60 of them.
        let writes = if front == "ring" { 40 } else { 90 };
        let files: Vec<File> = (0..writes).map(|n| open(&one.file(&format!("stalled{n}")))).collect();
        one.node().sh("pkill -STOP -x glusterfsd").must();
        let writers: Vec<_> = files
            .into_iter()
            .map(|file| {
                thread::spawn(move || {
                    on_first_cpu();
                    file.write_all_at(&vec![7; 1 << 20], 0)
                })
            })
            .collect();
        let (done, finished) = mpsc::channel();
        let root = one.node().path("/mnt/gv0");
        let asks = thread::spawn(move || {
            on_first_cpu();
            // Give the writes time to be taken: one that is late only makes it easier.
            thread::sleep(Duration::from_secs(1));
            let mut value = [0u8; 8];
            let got = rustix::fs::getxattr(&root, "trusted.glusterfs.ladrillo.kick", &mut value[..]);
            let _ = done.send(got);
        });
        // Well before the connection is given up (after 5 s), which would set them free.
        let answered = finished.recv_timeout(Duration::from_secs(4));
        one.node().sh("pkill -CONT -x glusterfsd").must();
        assert!(matches!(answered, Ok(Ok(_))), "not answered while writes stall: {answered:?}");
        for writer in writers {
            // It may have failed: a brick that takes nothing for 5 s is given up.
            let _ = writer.join().unwrap();
        }
        asks.join().unwrap();
    });
}

#[test]
fn every_way_to_end_it() {
    for_each_front_end(|front| {
        let one = OneBrick::new(front);
        let pid = one.pid();
        one.node().sh("echo x > /mnt/gv0/f; umount /mnt/gv0").must();
        one.wait_for_end(&pid);

        // SIGTERM unmounts.
        one.mount(front);
        assert!(one.is_mounted());
        let pid = one.pid();
        one.node().sh(&format!("kill {pid}")).must();
        one.wait_for_end(&pid);
        assert!(!one.is_mounted());

        // Taken out of the tree, it serves what is open to the last close.
        one.mount(front);
        let pid = one.pid();
        let file = open(&one.file("f"));
        one.node().sh("umount -l /mnt/gv0").must();
        file.write_all_at(b"still here", 0).unwrap();
        assert!(one.node().sh(&format!("kill -0 {pid}")).ok());
        drop(file);
        one.wait_for_end(&pid);
        assert_eq!(fs::read(one.node().path("/mnt/brick1/b/f")).unwrap(), b"still here");

        // Killed with I/O under way: applications fail at once, and the dead mount can be taken away.
        one.mount(front);
        let pid = one.pid();
        let file = open(&one.file("f"));
        let (failed, failure) = mpsc::channel();
        let writer = thread::spawn(move || {
            let block = vec![1; 64 << 10];
            for n in 0.. {
                if let Err(error) = file.write_all_at(&block, (n % 64) << 16) {
                    let _ = failed.send(error);
                    return;
                }
            }
        });
        thread::sleep(Duration::from_millis(100));
        one.node().kill(&pid);
        let error = failure.recv_timeout(Duration::from_secs(5)).expect("the application hears of it");
        assert!(matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::ENOTCONN | libc::EIO)), "{error}");
        writer.join().unwrap();
        one.node().sh("umount /mnt/gv0").must();
        // Its brick process is left behind (docs/known-gaps.md).
        one.node().sh("pkill -x glusterfsd").must();
        one.mount(front);
        one.node().sh("test -s /mnt/gv0/f; umount /mnt/gv0").must();
    });
}

#[test]
fn it_is_told_which() {
    let one = OneBrick::new("device");
    let refused = one.node().sh("glusterfs -f /run/b.vol --fuse-front=pigeon /mnt/gv0").must_fail();
    assert!(refused.stderr.contains("pigeon"), "{refused}");
}
