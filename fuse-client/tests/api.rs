//! The library on a real volume: three bricks of a `glusterfsd` (GlusterFS's, and ours where it is built), replicated.
//! Needs root (bricks keep `trusted.*` xattrs); says so and does nothing elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use futures::executor::block_on;
use ladrillo_fuse_client::api::blocking;
use ladrillo_fuse_client::api::{FileKind, Identity, LockKind, LockRange, OpenOptions, Volume};
use ladrillo_translator::error::errno;

const BRICKS: usize = 3;

/// Bricks on free ports of 127.0.0.1, in a directory of their own; gone with this.
struct Bricks {
    directory: PathBuf,
    processes: Vec<Child>,
    ports: Vec<u16>,
}

/// A port nobody listens on just now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Drop for Bricks {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Bricks {
    fn start(program: &Path, name: &str) -> Option<Bricks> {
        if !rustix::process::geteuid().is_root() || !program.exists() {
            eprintln!("skipped: needs root and {}", program.display());
            return None;
        }
        let directory = std::env::temp_dir().join(format!("ladrillo-api-{name}-{}", std::process::id()));
        let mut bricks = Bricks { directory, processes: Vec::new(), ports: Vec::new() };
        for index in 0..BRICKS {
            let store = bricks.directory.join(format!("brick{index}"));
            std::fs::create_dir_all(store.join(".glusterfs/indices")).unwrap();
            let port = free_port();
            let volfile = format!(
                "volume b-posix\n type storage/posix\n option directory {store}\nend-volume\n\
                 volume b-acl\n type features/access-control\n subvolumes b-posix\nend-volume\n\
                 volume b-locks\n type features/locks\n subvolumes b-acl\nend-volume\n\
                 volume b-index\n type features/index\n option index-base {store}/.glusterfs/indices\n \
                 option xattrop64-watchlist trusted.afr.dirty\n subvolumes b-locks\nend-volume\n\
                 volume /brick\n type debug/io-stats\n subvolumes b-index\nend-volume\n\
                 volume b-server\n type protocol/server\n option transport-type tcp\n \
                 option transport.socket.listen-port {port}\n option rpc-auth-allow-insecure on\n option auth.addr./brick.allow *\n \
                 option auth-path /brick\n subvolumes /brick\nend-volume\n",
                store = store.display(),
            );
            let file = bricks.directory.join(format!("brick{index}.vol"));
            std::fs::write(&file, volfile).unwrap();
            let log = bricks.directory.join(format!("brick{index}.log"));
            let mut command = Command::new(program);
            command.arg("-N").arg("-f").arg(file).arg("-l").arg(&log).stdin(Stdio::null());
            bricks.processes.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
            let start = Instant::now();
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                let log = || std::fs::read_to_string(&log).unwrap_or_default();
                assert!(start.elapsed() < Duration::from_secs(20), "glusterfsd did not come up:\n{}", log());
                std::thread::sleep(Duration::from_millis(20));
            }
            bricks.ports.push(port);
        }
        Some(bricks)
    }

    /// A client's volfile.
    fn volfile(&self) -> String {
        let mut text = String::new();
        for (index, port) in self.ports.iter().enumerate() {
            text += &format!(
                "volume c{index}\n type protocol/client\n option remote-host 127.0.0.1\n \
                 option remote-port {port}\n option remote-subvolume /brick\nend-volume\n"
            );
        }
        text + "volume r\n type cluster/replicate\n subvolumes c0 c1 c2\nend-volume\n"
    }

    fn open(&self) -> Volume {
        block_on(Volume::builder("v").volfile(self.volfile()).open()).unwrap()
    }
}

fn everywhere(name: &str, test: impl Fn(&Bricks)) {
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_glusterfs")).with_file_name("glusterfsd");
    for (program, who) in [(Path::new("/usr/sbin/glusterfsd"), "stock"), (&ours, "ours")] {
        if let Some(bricks) = Bricks::start(program, &format!("{name}-{who}")) {
            test(&bricks);
        }
    }
}

/// A future of the library may go to any thread.
fn sendable<T: Send>(value: T) -> T {
    value
}

#[test]
fn names_files_and_attributes() {
    everywhere("names", |bricks| {
        let volume = bricks.open();
        block_on(sendable(async {
            volume.create_dir_all("/a/b/c", 0o755).await.unwrap();
            assert_eq!(volume.create_dir("/a", 0o755).await.unwrap_err().errno(), errno::EEXIST);
            volume.write("/a/b/f", "content").await.unwrap();
            volume.symlink("b/f", "/a/link").await.unwrap();
            volume.symlink("/a/loop", "/a/loop").await.unwrap();
            assert_eq!(volume.read("/a/link", 100).await.unwrap(), b"content");
            assert_eq!(volume.read("/a/link", 3).await.unwrap_err().errno(), errno::EFBIG);
            assert_eq!(volume.read("/a/./c/../../a/b/../link", 100).await.unwrap_err().errno(), errno::ENOENT);
            assert_eq!(volume.read("/../../a/b/c/../../link", 100).await.unwrap(), b"content");
            assert_eq!(volume.metadata("/a/loop").await.unwrap_err().errno(), 40, "ELOOP");
            assert_eq!(volume.metadata("/a/b/f/x").await.unwrap_err().errno(), errno::ENOTDIR);
            assert_eq!(volume.metadata("/a/none").await.unwrap_err().errno(), errno::ENOENT);
            assert_eq!(volume.metadata("a\0").await.unwrap_err().errno(), errno::EINVAL);
            assert!(volume.symlink_metadata("/a/link").await.unwrap().is_symlink());
            assert_eq!(volume.read_link("/a/link").await.unwrap(), Path::new("b/f"));
            assert_eq!(volume.read_link("/a/b").await.unwrap_err().errno(), errno::EINVAL);
            volume.hard_link("/a/b/f", "/a/hard").await.unwrap();
            assert_eq!(volume.metadata("/a/hard").await.unwrap().nlink(), 2);
            volume.rename("/a/hard", "/a/b/f2").await.unwrap();
            assert!(!volume.exists("/a/hard").await.unwrap());
            volume.set_permissions("/a/b/f", 0o4640).await.unwrap();
            volume.set_owner("/a/b/f", Some(7), Some(8)).await.unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 5);
            volume.set_times("/a/b/f", None, Some(time)).await.unwrap();
            let seen = volume.metadata("/a/b/f2").await.unwrap();
            assert_eq!((seen.uid(), seen.gid(), seen.modified(), seen.len()), (7, 8, time, 7));
            volume.truncate("/a/b/f", 3).await.unwrap();
            assert_eq!(volume.read("/a/b/f", 100).await.unwrap(), b"con");
            volume.set_xattr("/a/b/f", "user.x", "value").await.unwrap();
            assert_eq!(volume.xattr("/a/b/f", "user.x").await.unwrap().unwrap(), "value");
            assert_eq!(volume.xattr("/a/b/f", "user.y").await.unwrap(), None);
            assert_eq!(volume.xattrs("/a/b/f").await.unwrap(), ["user.x"]);
            volume.remove_xattr("/a/b/f", "user.x").await.unwrap();
            assert!(volume.xattrs("/a/b/f").await.unwrap().is_empty());
            volume.make_node("/a/fifo", 0o010_600, 0).await.unwrap();
            assert_eq!(volume.metadata("/a/fifo").await.unwrap().kind(), Some(FileKind::Fifo));
            assert!(volume.space().await.unwrap().total_bytes > 0);
            assert_eq!(volume.remove_dir("/a").await.unwrap_err().errno(), errno::ENOTEMPTY);
            assert_eq!(volume.remove_file("/a/b").await.unwrap_err().errno(), errno::EISDIR);
            assert_eq!(volume.remove_dir("/..").await.unwrap_err().errno(), errno::EINVAL);

            // Somebody else may not do it all.
            let other = volume.with_identity(Identity { uid: 99, gid: 99, groups: [].into() });
            volume.set_permissions("/a/b/f", 0o600).await.unwrap();
            assert_eq!(other.open_file("/a/b/f").await.err().unwrap().errno(), errno::EACCES);
            assert_eq!(other.create_dir("/a/mine", 0o755).await.unwrap_err().errno(), errno::EACCES);
            assert_eq!(other.access("/a/b/f", 4).await.unwrap_err().errno(), errno::EACCES);
            volume.access("/a/b/f", 6).await.unwrap();

            let mut names = Vec::new();
            let mut entries = volume.read_dir("/a").await.unwrap();
            while let Some(entry) = entries.next_entry().await.unwrap() {
                assert_eq!(entry.kind(), entry.metadata().unwrap().kind());
                names.push(entry.file_name().to_str().unwrap().to_owned());
            }
            names.sort();
            assert_eq!(names, ["b", "fifo", "link", "loop"]);
            assert_eq!(volume.read_dir("/a/b/f").await.err().unwrap().errno(), errno::ENOTDIR);
        }));
        block_on(volume.close()).unwrap();
        assert_eq!(block_on(volume.metadata("/")).unwrap_err().errno(), errno::ENOTCONN);
        assert_eq!(block_on(volume.close()).unwrap_err().errno(), errno::ENOTCONN);
    });
}

#[test]
fn contents_of_open_files() {
    everywhere("contents", |bricks| {
        let volume = bricks.open();
        block_on(async {
            let mut options = OpenOptions::new();
            let file = volume.open_with("/f", options.read(true).write(true).create_new(0o600)).await.unwrap();
            let again = volume.open_with("/f", options.read(true).write(true).create_new(0o600)).await;
            assert_eq!(again.err().unwrap().errno(), errno::EEXIST);
            // More than goes into one request.
            let data: Vec<u8> = (0..3_500_000_u32).map(|i| (i % 251) as u8).collect();
            file.write_all_at(10, data.clone()).await.unwrap();
            let mut got = vec![0; data.len() + 20];
            assert_eq!(file.read_full_at(0, &mut got).await.unwrap(), data.len() + 10);
            assert!(got[..10].iter().all(|b| *b == 0) && got[10..data.len() + 10] == data);
            assert!(file.read_at(1 << 40, 10).await.unwrap().is_empty());
            file.sync_all().await.unwrap();
            file.set_len(100).await.unwrap();
            file.zero_range(20, 10).await.unwrap();
            assert_eq!(file.read_at(20, 10).await.unwrap(), [0; 10][..]);
            file.allocate(0, 8192, false).await.unwrap();
            assert_eq!(file.metadata().await.unwrap().len(), 8192);
            file.punch_hole(0, 4096).await.unwrap();
            assert_eq!(file.next_data(8192).await.unwrap(), None);
            file.set_xattr("user.fd", "1").await.unwrap();
            assert_eq!(file.xattr("user.fd").await.unwrap().unwrap(), "1");
            // It lives on without a name.
            volume.remove_file("/f").await.unwrap();
            file.write_all_at(0, "still").await.unwrap();
            assert_eq!(file.read_at(0, 5).await.unwrap(), "still");
            file.close().await.unwrap();

            let a = volume.open_with("/log", OpenOptions::new().append(true).create(0o644)).await.unwrap();
            let b = volume.open_with("/log", OpenOptions::new().append(true).create(0o644)).await.unwrap();
            for _ in 0..20 {
                a.write_all_at(0, "aaaa").await.unwrap();
                b.write_all_at(0, "bbbb").await.unwrap();
            }
            let log = volume.read("/log", 1000).await.unwrap();
            assert_eq!(log, b"aaaabbbb".repeat(20));
            for bad in [OpenOptions::new(), OpenOptions::new().read(true).truncate(true).clone()] {
                assert_eq!(volume.open_with("/log", &bad).await.err().unwrap().errno(), errno::EINVAL);
            }
            volume.create_dir("/d", 0o755).await.unwrap();
            let directory = volume.open_with("/d", OpenOptions::new().write(true)).await;
            assert_eq!(directory.err().unwrap().errno(), errno::EISDIR);
            // Many at once, more than are let through.
            let all = (0..400).map(|i| {
                let volume = &volume;
                async move { volume.write(format!("/d/{i}"), format!("content {i}")).await }
            });
            futures::future::try_join_all(all).await.unwrap();
            assert_eq!(volume.read("/d/377", 100).await.unwrap(), b"content 377");
            let mut entries = volume.read_dir("/d").await.unwrap();
            let mut count = 0;
            while entries.next_entry().await.unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, 400);
            volume.close().await.unwrap();
        });
    });
}

#[test]
fn locks_of_two_clients() {
    everywhere("locks", |bricks| {
        let (one, two) = (bricks.open(), bricks.open());
        block_on(async {
            one.write("/l", "x").await.unwrap();
            let mut options = OpenOptions::new();
            let a = one.open_with("/l", options.read(true).write(true)).await.unwrap();
            let b = two.open_with("/l", options.read(true).write(true)).await.unwrap();
            let first = LockRange { start: 0, length: Some(10) };
            a.lock(LockKind::Exclusive, first).await.unwrap();
            assert!(!b.try_lock(LockKind::Shared, LockRange::ALL).await.unwrap());
            assert!(b.is_locked(LockKind::Shared, first).await.unwrap());
            assert!(b.try_lock(LockKind::Shared, LockRange { start: 10, length: None }).await.unwrap());
            b.unlock(LockRange::ALL).await.unwrap();
            // A wait that is dropped leaves nothing: the range is free when its holder lets go.
            {
                let wait = Box::pin(b.lock(LockKind::Exclusive, first));
                let soon = Box::pin(async { std::thread::sleep(Duration::from_millis(100)) });
                let _ = futures::future::select(wait, soon).await;
            }
            a.unlock(first).await.unwrap();
            // Nor does it take away a lock that is taken after it.
            assert!(b.try_lock(LockKind::Exclusive, first).await.unwrap());
            std::thread::sleep(Duration::from_millis(300));
            assert!(a.is_locked(LockKind::Shared, first).await.unwrap());
            b.unlock(first).await.unwrap();
            a.lock(LockKind::Exclusive, LockRange::ALL).await.unwrap();
            // Files of two volumes are not copied by bricks.
            assert_eq!(a.copy_range_to(0, &b, 0, 1).await.unwrap_err().errno(), errno::EXDEV);
            // A wait ends when the holder closes.
            let waiting = b.lock(LockKind::Exclusive, LockRange::ALL);
            let closing = async { a.close().await };
            let (locked, closed) = futures::future::join(waiting, closing).await;
            locked.unwrap();
            closed.unwrap();
            // Dropping lets go as well.
            drop(b);
            let c = one.open_with("/l", options.read(true).write(true)).await.unwrap();
            c.lock(LockKind::Exclusive, LockRange::ALL).await.unwrap();
        });
    });
}

#[test]
fn a_volume_that_is_not_there() {
    let start = Instant::now();
    let patience = Duration::from_secs(2);
    let refused = Volume::builder("v").server("127.0.0.1", Some(1)).patience(patience).open();
    assert_eq!(block_on(refused).err().unwrap().errno(), errno::ENOTCONN);
    for (text, errno) in [
        ("nonsense", errno::EINVAL),
        ("volume x\n type no/such\nend-volume\n", errno::EINVAL),
        (
            "volume x\n type protocol/client\n option transport-type unix\n option transport.socket.connect-path /no/such\n \
             option remote-subvolume /b\nend-volume\n",
            errno::ENOTCONN,
        ),
    ] {
        let opened = block_on(Volume::builder("v").volfile(text).patience(patience).open());
        assert_eq!(opened.err().unwrap().errno(), errno, "{text}");
    }
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn without_futures() {
    use std::io::{Read, Seek, SeekFrom, Write};
    everywhere("blocking", |bricks| {
        let volume = blocking::Volume::open_with_builder(Volume::builder("v").volfile(bricks.volfile())).unwrap();
        let mut file = volume.create_file("/f").unwrap();
        file.write_all(b"hello world").unwrap();
        file.seek(SeekFrom::Start(6)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "world");
        assert_eq!(file.seek(SeekFrom::End(-5)).unwrap(), 6);
        file.close().unwrap();
        let names: Vec<_> = volume.read_dir("/").unwrap().map(|e| e.unwrap().file_name().to_owned()).collect();
        assert_eq!(names, ["f"]);
        assert_eq!(volume.open_file("/none").err().unwrap().errno(), errno::ENOENT);
        volume.close().unwrap();
    });
}
