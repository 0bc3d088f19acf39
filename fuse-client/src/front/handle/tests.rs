//! Requests against a brick in memory: what becomes of buffers, counts and errors on the way.

use std::sync::Arc;

use bytes::Bytes;
use ladrillo_translator::locks::Locks;
use ladrillo_translator::memory::Memory;
use ladrillo_translator::{Context, Fop, FopFuture, Parent, Payload, Reply, Runtime, Translator};
use parking_lot::Mutex;

use super::*;
use crate::executor::{self, Executor, RingRuntime};
use crate::front::Options;
use crate::front::abi::{ROOT_NODEID, fattr};
use crate::front::answer::Undo;
use crate::front::parse::SetattrCall;

/// A brick that remembers where the data of writes lay, and answers reads with a buffer of its own.
struct Watched {
    brick: Arc<Memory>,
    locks: Arc<Locks>,
    written_at: Mutex<Vec<*const u8>>,
    served: Bytes,
    fail: Mutex<Option<i32>>,
}

// SAFETY: the pointers are compared, never followed.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

impl Translator for Watched {
    fn name(&self) -> &str {
        "watched"
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        if let Some(errno) = *self.fail.lock() {
            return Box::pin(async move { Err(FopError::new(errno, "told to fail")) });
        }
        if let Fop::Write { data, .. } = &fop {
            self.written_at.lock().push(data.as_slice().as_ptr());
        }
        let read = matches!(fop, Fop::Read { .. });
        Box::pin(async move {
            let reply = self.locks.submit(context, fop).await?;
            Ok(match reply {
                Reply::Read { iatt, xdata, .. } if read => {
                    Reply::Read { data: Payload::from_bytes(self.served.clone()), iatt, xdata }
                }
                reply => reply,
            })
        })
    }

    fn set_parent(&self, _parent: std::sync::Weak<dyn Parent>, _child_index: usize) {}
}

struct Mounted {
    front: Arc<Front>,
    brick: Arc<Watched>,
}

fn mounted(options: Options) -> Mounted {
    let runtime: Arc<dyn Runtime> = Arc::new(RingRuntime::new());
    let brick = Memory::new("memory", runtime.clone());
    let locks = Locks::new("locks", brick.clone(), &Default::default(), runtime).unwrap();
    let brick = Arc::new(Watched {
        brick,
        locks,
        written_at: Mutex::default(),
        served: Bytes::from(vec![7u8; 100]),
        fail: Mutex::default(),
    });
    Mounted { front: Arc::new(Front::new(brick.clone(), options)), brick }
}

fn run(test: impl Future<Output = ()>) {
    Executor::new().unwrap().block_on(test);
}

impl Mounted {
    async fn ask(&self, nodeid: u64, call: Call) -> Result<(Vec<Bytes>, Option<Undo>), i32> {
        self.ask_with(nodeid, call, Payload::empty()).await
    }

    async fn ask_with(&self, nodeid: u64, call: Call, data: Payload) -> Result<(Vec<Bytes>, Option<Undo>), i32> {
        let header = Header { len: 0, opcode: 0, unique: 2, nodeid, uid: 0, gid: 0, pid: 0 };
        match handle(self.front.clone(), header, call, data).await {
            Answer::Body { parts, undo } => Ok((parts, undo)),
            Answer::Error(errno) => Err(errno),
            Answer::Silent => Ok((Vec::new(), None)),
        }
    }

    /// Creates a file: nodeid and fh.
    async fn create(&self, name: &'static str) -> (u64, u64) {
        let call = Call::Create { name: name.into(), flags: 2, mode: 0o100666, umask: 0o022 };
        let (parts, _) = self.ask(ROOT_NODEID, call).await.unwrap();
        assert_eq!(parts[0].len(), 144);
        (number(&parts[0], 0), number(&parts[0], 128))
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn mode_of(entry: &[u8], attr_at: usize) -> u32 {
    u32::from_ne_bytes(entry[attr_at + 60..attr_at + 64].try_into().unwrap())
}

#[test]
fn data_passes_in_the_buffer_it_came_in() {
    run(async {
        let mount = mounted(Options::default());
        let (nodeid, fh) = mount.create("f").await;
        let data = Payload::from_bytes(Bytes::from(vec![1u8; 4096]));
        let before = ladrillo_translator::payload::copied_bytes();
        let pointer = data.as_slice().as_ptr();
        let write = Call::Write { fh, offset: 0, flags: 0, lock_owner: None, data: 0..4096 };
        let (parts, _) = mount.ask_with(nodeid, write, data).await.unwrap();
        assert_eq!(parts[0][..4], 4096u32.to_ne_bytes());
        assert_eq!(*mount.brick.written_at.lock(), [pointer]);
        // What the brick sent goes out as it is, cut to what was asked for.
        let read = Call::Read { fh, offset: 0, size_bytes: 10, flags: 0, lock_owner: None };
        let (parts, _) = mount.ask(nodeid, read).await.unwrap();
        assert_eq!((parts.len(), parts[0].len()), (1, 10));
        assert_eq!(parts[0].as_ptr(), mount.brick.served.as_ptr());
        assert_eq!(ladrillo_translator::payload::copied_bytes(), before);
    });
}

#[test]
fn an_answer_the_kernel_does_not_take_is_undone() {
    run(async {
        let mount = mounted(Options::default());
        let call = Call::Create { name: "f".into(), flags: 2, mode: 0o100644, umask: 0 };
        let (_, undo) = mount.ask(ROOT_NODEID, call).await.unwrap();
        assert_eq!((mount.front.inodes.len(), mount.front.files.len(), mount.brick.brick.open_count()), (1, 1, 1));
        undo.unwrap()();
        mount.front.idle().await;
        assert_eq!((mount.front.inodes.len(), mount.front.files.len(), mount.brick.brick.open_count()), (0, 0, 0));
        let (_, undo) = mount.ask(ROOT_NODEID, Call::Lookup { name: "f".into() }).await.unwrap();
        undo.unwrap()();
        assert!(mount.front.inodes.is_empty());
    });
}

#[test]
fn the_umask_is_applied_here() {
    run(async {
        let mount = mounted(Options::default());
        mount.create("f").await;
        let (parts, _) = mount.ask(ROOT_NODEID, Call::Lookup { name: "f".into() }).await.unwrap();
        assert_eq!(mode_of(&parts[0], 40), 0o100644);
        let mkdir = Call::Mkdir { name: "d".into(), mode: 0o777, umask: 0o027 };
        let (parts, _) = mount.ask(ROOT_NODEID, mkdir).await.unwrap();
        assert_eq!(mode_of(&parts[0], 40), 0o040750);
    });
}

#[test]
fn errors_keep_their_errno_and_unknown_numbers_have_one() {
    run(async {
        let mount = mounted(Options::default());
        let lookup = || Call::Lookup { name: "nothing".into() };
        assert_eq!(mount.ask(ROOT_NODEID, lookup()).await.err(), Some(errno::ENOENT));
        assert_eq!(mount.ask(12345, lookup()).await.err(), Some(errno::ESTALE));
        assert_eq!(mount.ask(12345, Call::Getattr { fh: Some(9) }).await.err(), Some(errno::ESTALE));
        let read = Call::Read { fh: 99, offset: 0, size_bytes: 1, flags: 0, lock_owner: None };
        assert_eq!(mount.ask(ROOT_NODEID, read).await.err(), Some(errno::EBADF));
        let (nodeid, fh) = mount.create("f").await;
        let rename = Call::Rename { name: "f".into(), new_parent: ROOT_NODEID, new_name: "g".into(), flags: 1 };
        assert_eq!(mount.ask(ROOT_NODEID, rename).await.err(), Some(errno::ENOSYS));
        assert_eq!(mount.ask(nodeid, Call::Lseek { fh, offset: 0, whence: 0 }).await.err(), Some(errno::EINVAL));
        let collapse = Call::Fallocate { fh, offset: 0, len: 1, mode: 8 };
        assert_eq!(mount.ask(nodeid, collapse).await.err(), Some(errno::EOPNOTSUPP));
        *mount.brick.fail.lock() = Some(errno::ENOTCONN);
        assert_eq!(mount.ask(ROOT_NODEID, lookup()).await.err(), Some(errno::ENOTCONN));
        assert_eq!(mount.ask(nodeid, Call::Flush { fh, lock_owner: 1 }).await.err(), Some(errno::ENOTCONN));
        assert_eq!(mount.ask(nodeid, Call::Fsync { fh, datasync: true }).await.err(), Some(errno::ENOTCONN));
        // Closing always succeeds.
        assert!(mount.ask(nodeid, Call::Release { fh, flags: 0, flock_owner: None }).await.is_ok());
        mount.front.idle().await;
        assert!(mount.front.files.is_empty());
    });
}

#[test]
fn an_absent_name_may_be_remembered() {
    run(async {
        let mut options = Options::default();
        options.validity.negative = std::time::Duration::from_secs(5);
        let mount = mounted(options);
        let (parts, _) = mount.ask(ROOT_NODEID, Call::Lookup { name: "nothing".into() }).await.unwrap();
        assert_eq!((number(&parts[0], 0), number(&parts[0], 16), parts[0].len()), (0, 5, 128));
    });
}

#[test]
fn a_read_only_mount_changes_nothing() {
    run(async {
        let mount = mounted(Options { read_only: true, ..Options::default() });
        for call in [
            Call::Mkdir { name: "d".into(), mode: 0o755, umask: 0 },
            Call::Unlink { name: "d".into() },
            Call::Open { flags: 1 },
            Call::Setattr(Box::default()),
            Call::Removexattr { name: "user.x".into() },
        ] {
            assert_eq!(mount.ask(ROOT_NODEID, call).await.err(), Some(errno::EROFS));
        }
        assert!(mount.ask(ROOT_NODEID, Call::Getattr { fh: None }).await.is_ok());
    });
}

#[test]
fn sizes_and_modes_are_set_together() {
    run(async {
        let mount = mounted(Options::default());
        let (nodeid, fh) = mount.create("f").await;
        let call = SetattrCall {
            valid: fattr::MODE | fattr::SIZE | fattr::FH,
            fh: Some(fh),
            size_bytes: 4321,
            mode: 0o600,
            ..SetattrCall::default()
        };
        let (parts, _) = mount.ask(nodeid, Call::Setattr(Box::new(call))).await.unwrap();
        assert_eq!((number(&parts[0], 16 + 8), mode_of(&parts[0], 16)), (4321, 0o100600));
    });
}

#[test]
fn times_of_birth_are_told_and_files_without_a_name_are_not_made() {
    run(async {
        let mount = mounted(Options::default());
        let (nodeid, fh) = mount.create("f").await;
        for fh in [None, Some(fh)] {
            let (parts, _) = mount.ask(nodeid, Call::Statx { fh }).await.unwrap();
            assert_eq!(parts[0].len(), 288);
            let (attributes, _) = mount.ask(nodeid, Call::Getattr { fh }).await.unwrap();
            // ino, and size.
            assert_eq!(number(&parts[0], 32 + 32), number(&attributes[0], 16));
            assert_eq!(number(&parts[0], 32 + 40), number(&attributes[0], 16 + 8));
        }
        assert_eq!(mount.ask(ROOT_NODEID, Call::Tmpfile).await.err(), Some(errno::ENOSYS));
    });
}

#[test]
fn listings_end_where_the_kernel_has_no_more_room() {
    run(async {
        let mount = mounted(Options::default());
        for name in ["a", "b", "c"] {
            mount.create(name).await;
        }
        let (parts, _) = mount.ask(ROOT_NODEID, Call::Opendir { flags: 0 }).await.unwrap();
        let fh = number(&parts[0], 0);
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            // Room for one entry (160 bytes with attributes) at a time.
            let call = Call::Readdir { fh, offset, size_bytes: 170, plus: true };
            let (parts, _) = mount.ask(ROOT_NODEID, call).await.unwrap();
            if parts[0].is_empty() {
                break;
            }
            assert!(parts[0].len() <= 170);
            offset = number(&parts[0], 128 + 8);
            let length = u32::from_ne_bytes(parts[0][144..148].try_into().unwrap()) as usize;
            names.push(parts[0].slice(152..152 + length));
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
    });
}

#[test]
fn an_interrupted_wait_for_a_lock_leaves_no_lock() {
    use ladrillo_translator::LockOwner;
    use ladrillo_translator::fop::{Flock, LockType};
    run(async {
        let mount = mounted(Options::default());
        let (nodeid, fh) = mount.create("f").await;
        let flock =
            |owner: u64, kind| Flock { kind, whence: 0, start: 0, len: 0, pid: 1, owner: LockOwner::from_u64(owner) };
        let set = |owner, kind, wait| Call::Setlk { fh, flock: flock(owner, kind), wait };
        mount.ask(nodeid, set(1, LockType::Write, false)).await.unwrap();
        assert_eq!(mount.ask(nodeid, set(2, LockType::Write, false)).await.err(), Some(errno::EAGAIN));
        let mut waiting = Box::pin(mount.ask(nodeid, set(2, LockType::Write, true)));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(handle_at_once(&mount.front, &Call::Interrupt { unique: 2 }).is_some());
        assert_eq!(waiting.await.err(), Some(errno::EINTR));
        // The holder lets go: the wait that nobody wants is granted, and given back.
        mount.ask(nodeid, set(1, LockType::Unlock, false)).await.unwrap();
        mount.front.idle().await;
        mount.ask(nodeid, set(3, LockType::Write, false)).await.unwrap();
    });
}

#[test]
fn an_interrupted_wait_for_more_leaves_what_was_held_before() {
    use ladrillo_translator::LockOwner;
    use ladrillo_translator::fop::{Flock, LockType};
    run(async {
        let mount = mounted(Options::default());
        let (nodeid, fh) = mount.create("f").await;
        let set = |owner: u64, kind, start, len, wait| {
            let flock = Flock { kind, whence: 0, start, len, pid: 1, owner: LockOwner::from_u64(owner) };
            Call::Setlk { fh, flock, wait }
        };
        mount.ask(nodeid, set(1, LockType::Read, 10, 10, false)).await.unwrap();
        mount.ask(nodeid, set(2, LockType::Read, 0, 0, false)).await.unwrap();
        let mut upgrade = Box::pin(mount.ask(nodeid, set(1, LockType::Write, 0, 0, true)));
        assert!(futures::poll!(&mut upgrade).is_pending());
        executor::sleep(std::time::Duration::from_millis(5)).await;
        assert!(handle_at_once(&mount.front, &Call::Interrupt { unique: 2 }).is_some());
        assert_eq!(upgrade.await.err(), Some(errno::EINTR));
        mount.ask(nodeid, set(2, LockType::Unlock, 0, 0, false)).await.unwrap();
        mount.front.idle().await;
        // Still shared, still ten bytes.
        assert_eq!(mount.ask(nodeid, set(3, LockType::Write, 19, 1, false)).await.err(), Some(errno::EAGAIN));
        mount.ask(nodeid, set(3, LockType::Read, 10, 10, false)).await.unwrap();
        mount.ask(nodeid, set(3, LockType::Write, 0, 10, false)).await.unwrap();
        mount.ask(nodeid, set(3, LockType::Write, 20, 0, false)).await.unwrap();
        // And given up when asked to.
        mount.ask(nodeid, set(1, LockType::Unlock, 0, 0, false)).await.unwrap();
        mount.ask(nodeid, set(3, LockType::Write, 0, 0, false)).await.unwrap();
    });
}

#[test]
fn a_lock_taken_after_an_interrupted_wait_is_kept() {
    use ladrillo_translator::LockOwner;
    use ladrillo_translator::fop::{Flock, LockType};
    run(async {
        let mount = mounted(Options::default());
        let (nodeid, fh) = mount.create("f").await;
        let flock =
            |owner: u64, kind| Flock { kind, whence: 0, start: 0, len: 0, pid: 1, owner: LockOwner::from_u64(owner) };
        let set = |owner, kind, wait| Call::Setlk { fh, flock: flock(owner, kind), wait };
        mount.ask(nodeid, set(1, LockType::Write, false)).await.unwrap();
        let mut waiting = Box::pin(mount.ask(nodeid, set(2, LockType::Write, true)));
        assert!(futures::poll!(&mut waiting).is_pending());
        // The wait is with the brick.
        executor::sleep(std::time::Duration::from_millis(5)).await;
        assert!(handle_at_once(&mount.front, &Call::Interrupt { unique: 2 }).is_some());
        assert_eq!(waiting.await.err(), Some(errno::EINTR));
        // The same owner tries again, and gets it.
        let mut again = Box::pin(mount.ask(nodeid, set(2, LockType::Write, true)));
        assert!(futures::poll!(&mut again).is_pending());
        mount.ask(nodeid, set(1, LockType::Unlock, false)).await.unwrap();
        again.await.unwrap();
        mount.front.idle().await;
        assert_eq!(mount.ask(nodeid, set(3, LockType::Write, false)).await.err(), Some(errno::EAGAIN));
    });
}

#[test]
fn virtual_xattrs_say_what_the_mount_is() {
    run(async {
        let mount = mounted(Options::default());
        let get = |name: &'static str| Call::Getxattr { name: name.into(), size_bytes: 100 };
        let (parts, _) = mount.ask(ROOT_NODEID, get("glusterfs.ladrillo.front-end")).await.unwrap();
        assert_eq!(parts[0], "device");
        let (parts, _) = mount.ask(ROOT_NODEID, get("glusterfs.gfid.string")).await.unwrap();
        assert_eq!(parts[0], "00000000-0000-0000-0000-000000000001");
        assert_eq!(mount.ask(ROOT_NODEID, get("security.capability")).await.err(), Some(errno::ENODATA));
        assert_eq!(mount.ask(ROOT_NODEID, get("system.posix_acl_access")).await.err(), Some(errno::EOPNOTSUPP));
        let set = Call::Setxattr { name: "trusted.gfid".into(), value: Bytes::new(), flags: 0 };
        assert_eq!(mount.ask(ROOT_NODEID, set).await.err(), Some(errno::EPERM));
    });
}
