//! A brick on a real file system, used as the graph uses it. Needs root: `trusted.*` xattrs are root's.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, File, PrePost, XattropKind};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Context, Dict, FdId, FileType, Fop, FopResult, Gfid, Iatt, Payload, Reply, Timespec, Value};
use proptest::prelude::*;

use super::brick::{Brick, BrickError, VOLUME_ID_KEY};
use super::handle::{gfid2path, handle_path, parse_gfid2path};
use super::inode::{GFID_KEY, MDATA_KEY, decode_mdata};
use super::options::StorageOptions;
use super::sys;

static NEXT: AtomicU64 = AtomicU64::new(1);

struct TempBrick {
    path: PathBuf,
    brick: Arc<Brick>,
}

impl Drop for TempBrick {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn directory() -> PathBuf {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ladrillo-brick-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A fresh brick, or `None` (said aloud) where trusted xattrs cannot be set.
fn brick() -> Option<TempBrick> {
    let path = directory();
    match Brick::open("posix", StorageOptions::new(&path)) {
        Ok(brick) => Some(TempBrick { path, brick: Arc::new(brick) }),
        Err(e) if !rustix::process::geteuid().is_root() => {
            eprintln!("skipped: trusted xattrs need root ({e})");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

impl TempBrick {
    fn run(&self, fop: Fop) -> FopResult {
        self.brick.execute(&at(1_700_000_000), fop)
    }

    fn reopen(&mut self) {
        self.brick = Arc::new(Brick::open("posix", StorageOptions::new(&self.path)).unwrap());
    }

    fn make(&self, parent: Gfid, name: &str) -> FopResult<Gfid> {
        let gfid = Gfid::random();
        let fop = Fop::Mknod { entry: entry(parent, name), mode: 0o100_644, rdev: 0, umask: 0, xdata: request(gfid) };
        self.run(fop).map(|_| gfid)
    }

    fn mkdir(&self, parent: Gfid, name: &str) -> FopResult<Gfid> {
        let gfid = Gfid::random();
        let fop = Fop::Mkdir { entry: entry(parent, name), mode: 0o755, umask: 0, xdata: request(gfid) };
        self.run(fop).map(|_| gfid)
    }

    fn lookup(&self, parent: Gfid, name: &str) -> FopResult<Iatt> {
        match self.run(Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(parent, name)), xdata: Dict::new() })? {
            Reply::Lookup { iatt, .. } => Ok(*iatt),
            other => panic!("{other:?}"),
        }
    }

    fn stat(&self, gfid: Gfid) -> FopResult<Iatt> {
        match self.run(Fop::Stat { gfid, xdata: Dict::new() })? {
            Reply::Iatt { iatt, .. } => Ok(*iatt),
            other => panic!("{other:?}"),
        }
    }

    fn list(&self, gfid: Gfid, budget: u32) -> Vec<(String, Option<Iatt>)> {
        let fd = FdId(NEXT.fetch_add(1, Ordering::Relaxed));
        self.run(Fop::Opendir { gfid, fd, xdata: Dict::new() }).unwrap();
        let file = File { gfid, fd: Some(fd) };
        let mut all = Vec::new();
        let mut offset = 0;
        loop {
            let reply = self.run(Fop::Readdirp { file, offset, size_bytes: budget, xdata: Dict::new() }).unwrap();
            let Reply::Entries { entries, .. } = reply else { panic!("no entries") };
            let Some(last) = entries.last() else { break };
            offset = last.offset;
            all.extend(entries.into_iter().map(|e| (String::from_utf8(e.name.to_vec()).unwrap(), e.iatt)));
        }
        self.run(Fop::Releasedir { file }).unwrap();
        all.retain(|(name, _)| name != "." && name != "..");
        all
    }
}

fn at(seconds: i64) -> Context {
    Context { birth: Timespec { seconds, nanos: 5 }, ..Context::root() }
}

fn entry(parent: Gfid, name: &str) -> Entry {
    Entry { parent, name: Bytes::copy_from_slice(name.as_bytes()) }
}

fn request(gfid: Gfid) -> Dict {
    Dict::new().with("gfid-req", Value::Gfid(gfid))
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let fd = rustix::fs::open(path, rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW, rustix::fs::Mode::empty());
    sys::get_xattr(fd.unwrap(), name.as_bytes()).unwrap()
}

#[test]
fn a_file_has_gfid_handle_name_and_times() {
    let Some(t) = brick() else { return };
    let gfid = t.make(Gfid::ROOT, "f").unwrap();
    let path = t.path.join("f");
    assert_eq!(xattr(&path, GFID_KEY), Some(gfid.0.to_vec()));
    let handle = t.path.join(".glusterfs").join(handle_path(gfid));
    assert_eq!(handle.metadata().unwrap().ino(), path.metadata().unwrap().ino());
    let (key, value) = gfid2path(Gfid::ROOT, b"f");
    assert_eq!(xattr(&path, &key), Some(value));
    let mdata = decode_mdata(&xattr(&path, MDATA_KEY).unwrap()).unwrap();
    assert_eq!(mdata.mtime, Timespec { seconds: 1_700_000_000, nanos: 5 });
    let iatt = t.lookup(Gfid::ROOT, "f").unwrap();
    assert_eq!((iatt.nlink, iatt.gfid, iatt.ctime), (1, gfid, mdata.ctime));
    // The parent's times moved with it.
    assert_eq!(t.stat(Gfid::ROOT).unwrap().mtime.seconds, 1_700_000_000);
}

#[test]
fn gfid2path_keys_are_those_of_glusterfs() {
    // As GlusterFS 10.3 writes it for a file `f` in the root (seen with getfattr on its brick).
    assert_eq!(gfid2path(Gfid::ROOT, b"f").0, "trusted.gfid2path.b97d7fe3f22e5a40");
}

#[test]
fn every_kind_of_inode_is_made_and_owned_by_its_caller() {
    let Some(t) = brick() else { return };
    let caller = Context { uid: 1234, gid: 4321, ..at(1_700_000_001) };
    let kinds = [("fifo", 0o010_600, 0), ("sock", 0o140_600, 0), ("chr", 0o020_600, 0x103), ("blk", 0o060_600, 0x107)];
    for (name, mode, rdev) in kinds {
        let fop = Fop::Mknod { entry: entry(Gfid::ROOT, name), mode, rdev, umask: 0, xdata: request(Gfid::random()) };
        let Reply::Entry { iatt, .. } = t.brick.execute(&caller, fop).unwrap() else { panic!() };
        assert_eq!((iatt.mode, iatt.rdev, iatt.uid, iatt.gid, iatt.nlink), (mode, rdev, 1234, 4321, 1), "{name}");
    }
    assert!(t.path.join("fifo").symlink_metadata().unwrap().file_type().is_fifo());
    let fop = Fop::Symlink {
        entry: entry(Gfid::ROOT, "link"),
        target: Bytes::from_static(b"../../etc/passwd"),
        umask: 0,
        xdata: request(Gfid::random()),
    };
    let Reply::Entry { iatt, .. } = t.brick.execute(&caller, fop).unwrap() else { panic!() };
    assert_eq!((iatt.file_type(), iatt.nlink, iatt.uid), (Some(FileType::Symlink), 1, 1234));
    let reply = t.run(Fop::Readlink { gfid: iatt.gfid, size_bytes: 4096, xdata: Dict::new() }).unwrap();
    let Reply::Readlink { target, .. } = reply else { panic!() };
    assert_eq!(&target[..], b"../../etc/passwd");
    // Inheritance of a setgid directory.
    let fop = Fop::Mkdir { entry: entry(Gfid::ROOT, "d"), mode: 0o2755, umask: 0, xdata: request(Gfid::random()) };
    let Reply::Entry { iatt: d, .. } = t.brick.execute(&caller, fop).unwrap() else { panic!() };
    let other = Context { uid: 7, gid: 7, ..at(1) };
    let fop = Fop::Mkdir { entry: entry(d.gfid, "e"), mode: 0o755, umask: 0o022, xdata: request(Gfid::random()) };
    let Reply::Entry { iatt, .. } = t.brick.execute(&other, fop).unwrap() else { panic!() };
    assert_eq!((iatt.permissions(), iatt.uid, iatt.gid), (0o2755, 7, 4321));
}

#[test]
fn directories_are_found_by_gfid_however_deep_and_after_renames() {
    let Some(mut t) = brick() else { return };
    let mut chain = vec![Gfid::ROOT];
    for level in 0..80 {
        let parent = *chain.last().unwrap();
        chain.push(t.mkdir(parent, &format!("level{level}")).unwrap());
    }
    let deepest = *chain.last().unwrap();
    let file = t.make(deepest, "f").unwrap();
    t.run(Fop::Rename { from: entry(Gfid::ROOT, "level0"), to: entry(Gfid::ROOT, "moved"), xdata: Dict::new() })
        .unwrap();
    t.reopen();
    assert!(t.stat(deepest).unwrap().is_dir());
    assert_eq!(t.lookup(deepest, "f").unwrap().gfid, file);
    assert!(t.brick.directory_path(deepest).unwrap().starts_with(b"/moved/level1/"));
    let handle = std::fs::read_link(t.path.join(".glusterfs").join(handle_path(chain[1]))).unwrap();
    assert_eq!(handle, Path::new("../../00/00/00000000-0000-0000-0000-000000000001/moved"));
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let Some(t) = brick() else { return };
    let gfid = Gfid::random();
    let fd = FdId(NEXT.fetch_add(1, Ordering::Relaxed));
    let fop = Fop::Create {
        entry: entry(Gfid::ROOT, "f"),
        flags: libc::O_RDWR as u32,
        mode: 0o600,
        umask: 0,
        fd,
        xdata: request(gfid),
    };
    t.run(fop).unwrap();
    let file = File { gfid, fd: Some(fd) };
    t.run(Fop::Unlink { entry: entry(Gfid::ROOT, "f"), flags: 0, xdata: Dict::new() }).unwrap();
    let aside = t.path.join(".glusterfs/unlink").join(gfid.to_string());
    assert!(aside.exists());
    let write = |offset| Fop::Write {
        file,
        offset,
        data: Payload::copy_from_slice(b"still here"),
        flags: 0,
        xdata: Dict::new(),
    };
    t.run(write(0)).unwrap();
    let Reply::Read { data, .. } =
        t.run(Fop::Read { file, offset: 6, size_bytes: 100, flags: 0, xdata: Dict::new() }).unwrap()
    else {
        panic!()
    };
    assert_eq!(data.as_slice(), b"here");
    assert_eq!(t.stat(gfid).unwrap_err().errno, errno::ENOENT);
    // The same gfid may be used again meanwhile, as heal does.
    let again = Fop::Mknod { entry: entry(Gfid::ROOT, "f"), mode: 0o100_600, rdev: 0, umask: 0, xdata: request(gfid) };
    t.run(again).unwrap();
    t.run(write(0)).unwrap();
    assert_eq!(t.stat(gfid).unwrap().size_bytes, 0);
    t.run(Fop::Release { file }).unwrap();
    assert!(!aside.exists());
    assert_eq!(t.run(write(0)).unwrap_err().errno, errno::EBADF);
    assert_eq!(t.lookup(Gfid::ROOT, "f").unwrap().gfid, gfid);
}

#[test]
fn what_a_crash_leaves_is_completed_by_a_lookup() {
    let Some(mut t) = brick() else { return };
    // Between the name and the gfid.
    std::fs::write(t.path.join("f"), b"data").unwrap();
    std::fs::create_dir(t.path.join("d")).unwrap();
    assert_eq!(t.lookup(Gfid::ROOT, "f").unwrap_err().errno, errno::ENODATA);
    let wanted = Gfid::random();
    let heal = |name: &str, gfid| {
        t.run(Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(Gfid::ROOT, name)), xdata: request(gfid) })
    };
    assert_eq!(heal("f", wanted).unwrap_err().errno, errno::ENOENT, "younger than a second: someone is at it");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    heal("f", wanted).unwrap();
    assert_eq!(t.lookup(Gfid::ROOT, "f").unwrap().gfid, wanted);
    let dir = Gfid::random();
    heal("d", dir).unwrap();
    // Between the gfid and the handle.
    for gfid in [wanted, dir] {
        std::fs::remove_file(t.path.join(".glusterfs").join(handle_path(gfid))).unwrap();
    }
    t.reopen();
    assert_eq!(t.stat(wanted).unwrap_err().errno, errno::ENOENT);
    assert_eq!(t.lookup(Gfid::ROOT, "f").unwrap().gfid, wanted);
    assert_eq!(t.lookup(Gfid::ROOT, "d").unwrap().gfid, dir);
    t.reopen();
    assert_eq!(t.stat(wanted).unwrap().nlink, 1);
    assert!(t.stat(dir).unwrap().is_dir());
    // Between a directory's rename and its handle's.
    std::fs::rename(t.path.join("d"), t.path.join("renamed")).unwrap();
    t.reopen();
    assert_eq!(t.stat(dir).unwrap_err().errno, errno::ENOENT);
    assert_eq!(t.lookup(Gfid::ROOT, "renamed").unwrap().gfid, dir);
    check_invariants_but_names(&t);
}

#[test]
fn nothing_leads_out_of_the_brick_or_into_its_housekeeping() {
    let Some(t) = brick() else { return };
    for name in ["..", ".", "", "a/b", "../x", "a\0b"] {
        for fop in [
            Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(Gfid::ROOT, name)), xdata: Dict::new() },
            Fop::Unlink { entry: entry(Gfid::ROOT, name), flags: 0, xdata: Dict::new() },
            Fop::Rmdir { entry: entry(Gfid::ROOT, name), flags: 1, xdata: Dict::new() },
            Fop::Mkdir { entry: entry(Gfid::ROOT, name), mode: 0o755, umask: 0, xdata: request(Gfid::random()) },
            Fop::Rename { from: entry(Gfid::ROOT, "f"), to: entry(Gfid::ROOT, name), xdata: Dict::new() },
        ] {
            assert_eq!(t.run(fop.clone()).unwrap_err().errno, errno::EINVAL, "{fop:?}");
        }
    }
    for fop in [
        Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(Gfid::ROOT, ".glusterfs")), xdata: Dict::new() },
        Fop::Rmdir { entry: entry(Gfid::ROOT, ".glusterfs"), flags: 1, xdata: Dict::new() },
        Fop::Rename { from: entry(Gfid::ROOT, ".glusterfs"), to: entry(Gfid::ROOT, "x"), xdata: Dict::new() },
    ] {
        assert_eq!(t.run(fop).unwrap_err().errno, errno::EPERM);
    }
    // A handle somebody forged: it must not be followed to where it points.
    let gfid = Gfid::random();
    let handle = t.path.join(".glusterfs").join(handle_path(gfid));
    std::fs::create_dir_all(handle.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/etc", &handle).unwrap();
    assert_eq!(t.lookup(gfid, "passwd").unwrap_err().errno, errno::ENOTDIR);
    let missing = Gfid::random();
    assert_eq!(t.stat(missing).unwrap_err().errno, errno::ENOENT);
    assert_eq!(t.lookup(missing, "x").unwrap_err().errno, errno::ESTALE);
    assert_eq!(t.stat(Gfid::NULL).unwrap_err().errno, errno::EINVAL);
}

#[test]
fn clients_neither_see_nor_change_what_is_the_bricks() {
    let Some(t) = brick() else { return };
    let gfid = t.make(Gfid::ROOT, "f").unwrap();
    let set = |key: &str| {
        let xattrs = Dict::new().with(key.to_owned(), Value::Ptr(Bytes::from_static(b"0123456789abcdef")));
        t.run(Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() })
    };
    set(GFID_KEY).unwrap();
    assert_eq!(xattr(&t.path.join("f"), GFID_KEY), Some(gfid.0.to_vec()), "left out without a word, as stock does");
    assert_eq!(set("trusted.gfid2path.0011223344556677").unwrap_err().errno, errno::EOPNOTSUPP);
    assert_eq!(set("glusterfs.pathinfo").unwrap_err().errno, errno::EACCES);
    set("user.mine").unwrap();
    let remove = |name: &'static str| {
        t.run(Fop::Removexattr { gfid, name: Bytes::from_static(name.as_bytes()), xdata: Dict::new() })
    };
    assert_eq!(remove(GFID_KEY).unwrap_err().errno, errno::EPERM);
    assert_eq!(remove("user.other").unwrap_err().errno, errno::ENODATA);
    let Reply::Xattrs { xattrs, .. } = t.run(Fop::Getxattr { gfid, name: Bytes::new(), xdata: Dict::new() }).unwrap()
    else {
        panic!()
    };
    let seen: Vec<_> = xattrs.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(seen, ["user.mine"]);
    // Without a name, all keys of xdata go, and the brick's own stay.
    let keys = Dict::new().with("user.mine", Value::Int(0)).with(GFID_KEY, Value::Int(0));
    t.run(Fop::Removexattr { gfid, name: Bytes::new(), xdata: keys }).unwrap();
    assert_eq!((xattr(&t.path.join("f"), "user.mine"), t.stat(gfid).is_ok()), (None, true));
    assert!(xattr(&t.path.join("f"), GFID_KEY).is_some());
}

#[test]
fn a_listing_of_ten_thousand_gives_each_once_whatever_the_budget() {
    let Some(t) = brick() else { return };
    let dir = t.mkdir(Gfid::ROOT, "many").unwrap();
    for n in 0..10_000 {
        // Made beside the brick's back for speed; listed without attributes, which are not the point.
        std::fs::write(t.path.join("many").join(format!("file{n}")), b"").unwrap();
    }
    for budget in [4096, 131_072] {
        let names: BTreeSet<String> = t.list(dir, budget).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 10_000);
        assert_eq!(t.list(dir, budget).len(), 10_000);
    }
    t.make(Gfid::ROOT, "seen").unwrap();
    let root = t.list(Gfid::ROOT, 4096);
    let names: BTreeSet<&str> = root.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["many", "seen"]), ".glusterfs is hidden");
    assert!(root.iter().all(|(_, iatt)| iatt.is_some()));
}

#[test]
fn xattrops_of_many_threads_lose_none() {
    let Some(t) = brick() else { return };
    let gfid = t.make(Gfid::ROOT, "f").unwrap();
    const KEY: &str = "trusted.afr.gv0-client-0";
    let add: Vec<u8> = [1i32, 0, 2].iter().flat_map(|n| n.to_be_bytes()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    let xattrs = Dict::new().with(KEY, Value::Ptr(add.clone().into()));
                    t.run(Fop::Xattrop { gfid, kind: XattropKind::AddArray, xattrs, xdata: Dict::new() }).unwrap();
                }
            });
        }
    });
    let expected: Vec<u8> = [1000i32, 0, 2000].iter().flat_map(|n| n.to_be_bytes()).collect();
    assert_eq!(xattr(&t.path.join("f"), KEY), Some(expected));
}

#[test]
fn marks_of_a_file_without_names_are_taken_back() {
    let Some(t) = brick() else { return };
    let gfid = t.make(Gfid::ROOT, "f").unwrap();
    let mark = |by: i32| {
        let value: Vec<u8> = [by, 0, 0].iter().flat_map(|n| n.to_be_bytes()).collect();
        let xattrs = Dict::new().with("trusted.afr.dirty", Value::Ptr(value.into()));
        t.run(Fop::Xattrop { gfid, kind: XattropKind::AddArray, xattrs, xdata: Dict::new() })
    };
    let fd = FdId(77);
    t.run(Fop::Open { gfid, flags: 2, fd, xdata: Dict::new() }).unwrap();
    mark(1).unwrap();
    let entry = Entry { parent: Gfid::ROOT, name: "f".into() };
    t.run(Fop::Unlink { entry, flags: 0, xdata: Dict::new() }).unwrap();
    let Reply::Xattrs { xattrs, .. } = mark(-1).unwrap() else { panic!() };
    assert_eq!(xattrs.bytes("trusted.afr.dirty").map(|value| value.to_vec()), Some(vec![0; 12]));
    t.run(Fop::Release { file: File { gfid, fd: Some(fd) } }).unwrap();
    assert!(mark(1).is_err());
}

#[test]
fn times_only_move_forward_unless_set() {
    let Some(t) = brick() else { return };
    let gfid = t.make(Gfid::ROOT, "f").unwrap();
    let write = |seconds| {
        let fop = Fop::Write {
            file: File { gfid, fd: None },
            offset: 0,
            data: Payload::copy_from_slice(b"x"),
            flags: 0,
            xdata: Dict::new(),
        };
        let Reply::PrePost { attrs, .. } = t.brick.execute(&at(seconds), fop).unwrap() else { panic!() };
        let PrePost { post, .. } = *attrs;
        post
    };
    assert_eq!(write(1_800_000_000).mtime.seconds, 1_800_000_000);
    assert_eq!(write(1_750_000_000).mtime.seconds, 1_800_000_000, "an older write that comes late");
    let iatt = Iatt { mtime: Timespec { seconds: 5, nanos: 6 }, ..Iatt::default() };
    let fop = Fop::Setattr { gfid, iatt: Box::new(iatt), valid: SetattrValid(SetattrValid::MTIME), xdata: Dict::new() };
    t.brick.execute(&at(1_900_000_000), fop).unwrap();
    let iatt = t.stat(gfid).unwrap();
    assert_eq!((iatt.mtime, iatt.ctime.seconds), (Timespec { seconds: 5, nanos: 6 }, 1_900_000_000));
}

#[test]
fn a_brick_of_another_volume_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: trusted xattrs need root");
        return;
    }
    let path = directory();
    let wanted = Gfid::random();
    let options = || StorageOptions { volume_id: Some(wanted), ..StorageOptions::new(&path) };
    let open = || Brick::open("posix", options());
    assert!(matches!(open(), Err(BrickError::Foreign { what, .. }) if what.contains("absent")));
    assert!(!path.join(".glusterfs").exists(), "nothing is written to a directory that is no brick");
    let set = |value: &[u8]| {
        let fd = rustix::fs::open(&path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        sys::set_xattr(fd, VOLUME_ID_KEY.as_bytes(), value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set(&Gfid::random().0);
    assert!(matches!(open(), Err(BrickError::Foreign { what, .. }) if what.contains("already part")));
    set(b"short");
    assert!(matches!(open(), Err(BrickError::Foreign { what, .. }) if what.contains("5 bytes")));
    set(&wanted.0);
    drop(open().unwrap());
    // A directory within a brick is no brick.
    std::fs::create_dir(path.join("inner")).unwrap();
    let inner = StorageOptions::new(path.join("inner"));
    let fd = rustix::fs::open(path.join("inner"), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    sys::set_xattr(fd, GFID_KEY.as_bytes(), &Gfid::random().0, rustix::fs::XattrFlags::empty()).unwrap();
    assert!(matches!(Brick::open("posix", inner), Err(BrickError::Foreign { .. })));
    assert!(matches!(Brick::open("posix", StorageOptions::new(path.join("none"))), Err(BrickError::Io { .. })));
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn landfill_is_emptied_and_what_moved_on_keeps_its_handle() {
    let Some(t) = brick() else { return };
    let dir = t.mkdir(Gfid::ROOT, "d").unwrap();
    let inner = t.mkdir(dir, "inner").unwrap();
    let gone = t.make(inner, "gone").unwrap();
    let kept = t.make(inner, "kept").unwrap();
    t.run(Fop::Link { gfid: kept, entry: entry(Gfid::ROOT, "kept"), xdata: Dict::new() }).unwrap();
    t.run(Fop::Rmdir { entry: entry(Gfid::ROOT, "d"), flags: 1, xdata: Dict::new() }).unwrap();
    assert_eq!(t.lookup(Gfid::ROOT, "d").unwrap_err().errno, errno::ENOENT);
    // Heal makes the same directories anew, with the same gfids, elsewhere.
    for (parent, name, gfid) in [(Gfid::ROOT, "e", dir), (dir, "inner", inner)] {
        t.run(Fop::Mkdir { entry: entry(parent, name), mode: 0o755, umask: 0, xdata: request(gfid) }).unwrap();
    }
    assert_eq!(t.brick.clean_landfill(&|| false).unwrap(), 4);
    assert_eq!(std::fs::read_dir(t.path.join(".glusterfs/landfill")).unwrap().count(), 0);
    assert!(t.stat(inner).unwrap().is_dir());
    assert_eq!(t.stat(gone).unwrap_err().errno, errno::ENOENT);
    assert_eq!(t.stat(kept).unwrap().nlink, 1);
    check_invariants(&t);
}

/// Handles only: what was made behind the brick's back has no gfid2path.
fn check_invariants_but_names(t: &TempBrick) {
    for name in ["f", "renamed"] {
        let gfid = Gfid::from_slice(&xattr(&t.path.join(name), GFID_KEY).unwrap()).unwrap();
        let handle = t.path.join(".glusterfs").join(handle_path(gfid));
        assert_eq!(handle.metadata().unwrap().ino(), t.path.join(name).metadata().unwrap().ino());
    }
}

/// What must hold of every brick at rest (docs/brick-format.md): handles and names belong to each other, both ways.
fn check_invariants(t: &TempBrick) {
    let mut by_gfid: BTreeMap<Gfid, Vec<(Gfid, String)>> = BTreeMap::new();
    let mut work = vec![(t.path.clone(), Gfid::ROOT)];
    while let Some((path, gfid)) = work.pop() {
        for found in std::fs::read_dir(&path).unwrap() {
            let found = found.unwrap();
            let name = found.file_name().into_string().unwrap();
            if gfid.is_root() && name == ".glusterfs" {
                continue;
            }
            let child = Gfid::from_slice(&xattr(&found.path(), GFID_KEY).expect("a gfid")).expect("16 bytes");
            by_gfid.entry(child).or_default().push((gfid, name.clone()));
            let meta = found.path().symlink_metadata().unwrap();
            let handle = t.path.join(".glusterfs").join(handle_path(child));
            if meta.is_dir() {
                let link = std::fs::read_link(&handle).expect("a directory's handle");
                assert_eq!(link.to_str().unwrap(), format!("../../{}/{name}", handle_path(gfid)));
                work.push((found.path(), child));
            } else {
                assert_eq!(handle.symlink_metadata().expect("a file's handle").ino(), meta.ino());
            }
        }
    }
    for (gfid, names) in &by_gfid {
        let handle = t.path.join(".glusterfs").join(handle_path(*gfid));
        let meta = handle.symlink_metadata().unwrap();
        let fd = rustix::fs::open(
            &handle,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        let recorded: BTreeSet<(Gfid, Vec<u8>)> = sys::list_xattrs(&fd)
            .unwrap()
            .iter()
            .filter(|key| key.starts_with(b"trusted.gfid2path."))
            .map(|key| {
                let value = sys::get_xattr(&fd, key).unwrap().unwrap();
                let (parent, name) = parse_gfid2path(&value).expect("a name");
                assert_eq!(gfid2path(parent, name).0.as_bytes(), &key[..]);
                (parent, name.to_vec())
            })
            .collect();
        let is_directory = t.stat(*gfid).unwrap().is_dir();
        if !is_directory {
            let expected: BTreeSet<_> = names.iter().map(|(p, n)| (*p, n.clone().into_bytes())).collect();
            assert_eq!(recorded, expected, "names recorded for {gfid}");
            assert_eq!(meta.nlink() as usize, names.len() + 1);
        } else {
            assert_eq!(names.len(), 1);
        }
    }
    // No handle without a name.
    for first in std::fs::read_dir(t.path.join(".glusterfs")).unwrap().flatten() {
        if first.file_name().len() != 2 {
            continue;
        }
        for second in std::fs::read_dir(first.path()).unwrap().flatten() {
            for handle in std::fs::read_dir(second.path()).unwrap().flatten() {
                let gfid: Gfid = handle.file_name().to_str().unwrap().parse().expect("only handles here");
                assert!(gfid.is_root() || by_gfid.contains_key(&gfid), "{gfid} has a handle but no name");
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Make(u8, u8),
    Mkdir(u8, u8),
    Symlink(u8, u8),
    Link(u8, u8, u8, u8),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename(u8, u8, u8, u8),
    Write(u8, u8, u16, u8),
    Truncate(u8, u8, u16),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let d = 0..4u8;
    let n = 0..5u8;
    prop_oneof![
        3 => (d.clone(), n.clone()).prop_map(|(a, b)| Step::Make(a, b)),
        3 => (d.clone(), n.clone()).prop_map(|(a, b)| Step::Mkdir(a, b)),
        1 => (d.clone(), n.clone()).prop_map(|(a, b)| Step::Symlink(a, b)),
        2 => (d.clone(), n.clone(), d.clone(), n.clone()).prop_map(|(a, b, c, e)| Step::Link(a, b, c, e)),
        2 => (d.clone(), n.clone()).prop_map(|(a, b)| Step::Unlink(a, b)),
        2 => (d.clone(), n.clone()).prop_map(|(a, b)| Step::Rmdir(a, b)),
        4 => (d.clone(), n.clone(), d.clone(), n.clone()).prop_map(|(a, b, c, e)| Step::Rename(a, b, c, e)),
        3 => (d.clone(), n.clone(), 0..9000u16, any::<u8>()).prop_map(|(a, b, o, v)| Step::Write(a, b, o, v)),
        1 => (d, n, 0..9000u16).prop_map(|(a, b, s)| Step::Truncate(a, b, s)),
        1 => Just(Step::Reopen),
    ]
}

/// The reference: a plain directory of the same file system beside the brick. Directory 0 is the root, the others are
/// whatever directories exist, in order of their making.
fn play(steps: &[Step]) {
    let Some(mut t) = brick() else { return };
    let model = directory();
    // Where directories are: gfid and path in the model, kept right through renames by asking the brick.
    let mut dirs: Vec<Gfid> = vec![Gfid::ROOT];
    for step in steps {
        let place = |t: &TempBrick, d: u8, n: u8| {
            let gfid = dirs[usize::from(d) % dirs.len()];
            let path = String::from_utf8(t.brick.directory_path(gfid).ok()?).unwrap();
            Some((entry(gfid, &format!("n{n}")), model.join(path.trim_start_matches('/')).join(format!("n{n}"))))
        };
        let io = |r: std::io::Result<()>| r.map_err(|e| e.raw_os_error().unwrap_or(0));
        let same = |ours: FopResult, theirs: Result<(), i32>| {
            let ours = ours.map(drop).map_err(|e| e.errno);
            assert_eq!(ours, theirs, "{step:?}");
        };
        match *step {
            Step::Make(d, n) => {
                let Some((entry, path)) = place(&t, d, n) else { continue };
                let theirs = io(std::fs::File::options().create_new(true).write(true).open(path).map(drop));
                let xdata = request(Gfid::random());
                same(t.run(Fop::Mknod { entry, mode: 0o100_644, rdev: 0, umask: 0, xdata }), theirs);
            }
            Step::Mkdir(d, n) => {
                let Some((entry, path)) = place(&t, d, n) else { continue };
                let gfid = Gfid::random();
                let theirs = io(std::fs::create_dir(path));
                let ours = t.run(Fop::Mkdir { entry, mode: 0o755, umask: 0, xdata: request(gfid) });
                if ours.is_ok() {
                    dirs.push(gfid);
                }
                same(ours, theirs);
            }
            Step::Symlink(d, n) => {
                let Some((entry, path)) = place(&t, d, n) else { continue };
                let theirs = io(std::os::unix::fs::symlink("target", path));
                let target = Bytes::from_static(b"target");
                same(t.run(Fop::Symlink { entry, target, umask: 0, xdata: request(Gfid::random()) }), theirs);
            }
            Step::Link(d, n, d2, n2) => {
                let (Some((from, path)), Some((entry, to))) = (place(&t, d, n), place(&t, d2, n2)) else { continue };
                let Ok(iatt) = t.run_lookup(&from) else { continue };
                if iatt.is_dir() {
                    continue;
                }
                same(t.run(Fop::Link { gfid: iatt.gfid, entry, xdata: Dict::new() }), io(std::fs::hard_link(path, to)));
            }
            Step::Unlink(d, n) => {
                let Some((entry, path)) = place(&t, d, n) else { continue };
                same(t.run(Fop::Unlink { entry, flags: 0, xdata: Dict::new() }), io(std::fs::remove_file(path)));
            }
            Step::Rmdir(d, n) => {
                let Some((entry, path)) = place(&t, d, n) else { continue };
                same(t.run(Fop::Rmdir { entry, flags: 0, xdata: Dict::new() }), io(std::fs::remove_dir(path)));
            }
            Step::Rename(d, n, d2, n2) => {
                let (Some((from, path)), Some((to, new))) = (place(&t, d, n), place(&t, d2, n2)) else { continue };
                let theirs = io(std::fs::rename(path, new));
                same(t.run(Fop::Rename { from, to, xdata: Dict::new() }), theirs);
            }
            Step::Write(d, n, offset, value) => {
                let Some((entry, path)) = place(&t, d, n) else { continue };
                let Ok(iatt) = t.run_lookup(&entry) else { continue };
                if !iatt.is_regular() {
                    continue;
                }
                use std::os::unix::fs::FileExt;
                let data = vec![value; usize::from(value) * 8];
                std::fs::File::options().write(true).open(path).unwrap().write_all_at(&data, offset.into()).unwrap();
                let file = File { gfid: iatt.gfid, fd: None };
                let data = Payload::copy_from_slice(&data);
                t.run(Fop::Write { file, offset: offset.into(), data, flags: 0, xdata: Dict::new() }).unwrap();
            }
            Step::Truncate(d, n, size) => {
                let Some((entry, path)) = place(&t, d, n) else { continue };
                let Ok(iatt) = t.run_lookup(&entry) else { continue };
                if !iatt.is_regular() {
                    continue;
                }
                std::fs::File::options().write(true).open(path).unwrap().set_len(size.into()).unwrap();
                t.run(Fop::Truncate { gfid: iatt.gfid, size_bytes: size.into(), xdata: Dict::new() }).unwrap();
            }
            Step::Reopen => t.reopen(),
        }
        dirs.retain(|gfid| t.stat(*gfid).is_ok());
    }
    check_invariants(&t);
    compare(&t, Gfid::ROOT, &model);
    std::fs::remove_dir_all(&model).unwrap();
}

impl TempBrick {
    fn run_lookup(&self, entry: &Entry) -> FopResult<Iatt> {
        self.lookup(entry.parent, std::str::from_utf8(&entry.name).unwrap())
    }
}

fn compare(t: &TempBrick, gfid: Gfid, model: &Path) {
    let ours: BTreeMap<String, Iatt> =
        t.list(gfid, 131_072).into_iter().map(|(name, iatt)| (name, iatt.expect("attributes"))).collect();
    let theirs: BTreeMap<String, std::fs::Metadata> = std::fs::read_dir(model)
        .unwrap()
        .flatten()
        .map(|e| (e.file_name().into_string().unwrap(), e.path().symlink_metadata().unwrap()))
        .collect();
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{}", model.display());
    for (name, iatt) in ours {
        let meta = &theirs[&name];
        assert_eq!(iatt.mode & 0o170_000, meta.mode() & 0o170_000, "{name}");
        if iatt.is_dir() {
            compare(t, iatt.gfid, &model.join(&name));
            continue;
        }
        assert_eq!(u64::from(iatt.nlink), meta.nlink(), "{name}");
        if iatt.is_regular() {
            assert_eq!(iatt.size_bytes, meta.len());
            let file = File { gfid: iatt.gfid, fd: None };
            let read = Fop::Read { file, offset: 0, size_bytes: 1 << 20, flags: 0, xdata: Dict::new() };
            let Reply::Read { data, .. } = t.run(read).unwrap() else { panic!() };
            assert_eq!(data.as_slice(), std::fs::read(model.join(&name)).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_brick_behaves_like_the_file_system_beneath_it(steps in prop::collection::vec(step(), 1..60)) {
        play(&steps);
    }
}

/// Runs both at once, as two clients do.
fn together(a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    let barrier = std::sync::Barrier::new(2);
    let barrier = &barrier;
    std::thread::scope(|scope| {
        for job in [Box::new(a) as Box<dyn FnOnce() + Send>, Box::new(b)] {
            scope.spawn(move || {
                barrier.wait();
                job();
            });
        }
    });
}

#[test]
fn entry_operations_on_one_inode_at_once_keep_handle_and_names_agreeing() {
    let Some(t) = brick() else { return };
    let unlink = |name: &str| t.run(Fop::Unlink { entry: entry(Gfid::ROOT, name), flags: 0, xdata: Dict::new() });
    let link = |gfid, name: &str| t.run(Fop::Link { gfid, entry: entry(Gfid::ROOT, name), xdata: Dict::new() });
    let rename = |from: &str, to: &str| {
        t.run(Fop::Rename { from: entry(Gfid::ROOT, from), to: entry(Gfid::ROOT, to), xdata: Dict::new() })
    };
    let handle = |gfid| t.path.join(".glusterfs").join(handle_path(gfid));
    for round in 0..400 {
        // The last two names go at once: the handle with them.
        let gfid = t.make(Gfid::ROOT, "a").unwrap();
        link(gfid, "b").unwrap();
        together(|| drop(unlink("a").unwrap()), || drop(unlink("b").unwrap()));
        assert!(!handle(gfid).exists(), "round {round}: data nobody has a name for");

        // A new name comes while the last one goes: handle and name stay, or both go.
        let gfid = t.make(Gfid::ROOT, "a").unwrap();
        together(|| drop(unlink("a").unwrap()), || drop(link(gfid, "b")));
        assert_eq!(t.path.join("b").exists(), handle(gfid).exists(), "round {round}: link against unlink");
        assert_eq!(t.stat(gfid).is_ok(), handle(gfid).exists(), "round {round}");
        let _ = unlink("b");
        assert!(!handle(gfid).exists(), "round {round}");

        // One name is replaced while the other is removed.
        let gfid = t.make(Gfid::ROOT, "a").unwrap();
        link(gfid, "b").unwrap();
        let other = t.make(Gfid::ROOT, "c").unwrap();
        together(|| drop(rename("c", "a").unwrap()), || drop(unlink("b").unwrap()));
        assert!(!handle(gfid).exists() && handle(other).exists(), "round {round}: rename against unlink");
        unlink("a").unwrap();

        // One directory goes two ways.
        let dir = t.mkdir(Gfid::ROOT, "d").unwrap();
        let carry = |to: &str| {
            for from in ["d", "d1", "d2"] {
                let _ = rename(from, to);
            }
        };
        together(|| carry("d1"), || carry("d2"));
        let at = ["d", "d1", "d2"].into_iter().find(|name| t.path.join(name).exists()).unwrap();
        let led = std::fs::read_link(handle(dir)).unwrap();
        assert_eq!(led.file_name().unwrap(), at, "round {round}: the handle of a renamed directory");
        t.run(Fop::Rmdir { entry: entry(Gfid::ROOT, at), flags: 0, xdata: Dict::new() }).unwrap();
        assert!(!handle(dir).exists(), "round {round}");
    }
    assert_eq!(std::fs::read_dir(t.path.join(".glusterfs/unlink")).unwrap().count(), 0);
}

#[test]
fn a_listing_is_bounded_whatever_is_asked_of_its_entries() {
    let Some(t) = brick() else { return };
    let mut made = BTreeSet::new();
    for i in 0..600 {
        let name = format!("f{i}");
        t.make(Gfid::ROOT, &name).unwrap();
        std::fs::write(t.path.join(&name), vec![7; 16 << 10]).unwrap();
        let fd = rustix::fs::open(t.path.join(&name), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        sys::set_xattr(fd, b"user.large", &[b'x'; 2500], rustix::fs::XattrFlags::empty()).unwrap();
        made.insert(name);
    }
    let fd = FdId(NEXT.fetch_add(1, Ordering::Relaxed));
    t.run(Fop::Opendir { gfid: Gfid::ROOT, fd, xdata: Dict::new() }).unwrap();
    let file = File { gfid: Gfid::ROOT, fd: Some(fd) };
    let xdata = Dict::new().with("glusterfs.content", Value::Uint(1 << 20)).with("list-xattr", Value::Uint(1));
    let (mut offset, mut answers) = (0, 0);
    loop {
        let fop = Fop::Readdirp { file, offset, size_bytes: 1 << 20, xdata: xdata.clone() };
        assert!(super::answer_bytes(&fop) >= 1 << 20);
        let Reply::Entries { entries, .. } = t.run(fop).unwrap() else { panic!("no entries") };
        let Some(last) = entries.last() else { break };
        offset = last.offset;
        answers += 1;
        let bytes = |entry: &ladrillo_translator::fop::DirEntry| -> usize {
            entry.xdata.iter().filter_map(|(_, value)| super::xattr::value_bytes(value)).map(|raw| raw.len()).sum()
        };
        assert!(entries.iter().map(bytes).sum::<usize>() <= 1 << 20);
        for entry in &entries {
            assert!(!entry.xdata.contains("glusterfs.content"));
            let name = std::str::from_utf8(&entry.name).unwrap();
            assert!(matches!(name, "." | "..") || made.remove(name), "{name} twice");
            assert_eq!(entry.xdata.contains("user.large"), !matches!(name, "." | ".."), "{name}");
        }
    }
    assert!(made.is_empty() && answers > 1, "{made:?} not listed in {answers} answers");
    // A lookup has contents, and they are counted.
    let lookup = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(Gfid::ROOT, "f0")), xdata };
    assert!(super::answer_bytes(&lookup) >= 2 << 20);
    assert_eq!(t.run(lookup).unwrap().xdata().bytes("glusterfs.content").unwrap().len(), 16 << 10);
}

/// Runs in place and counts what was sent away.
#[derive(Default)]
struct Counting(AtomicU64);

impl super::Offload for Counting {
    fn run(&self, job: super::Job) -> ladrillo_translator::LocalFuture<'static, FopResult> {
        self.0.fetch_add(1, Ordering::Relaxed);
        super::InPlace.run(job)
    }
}

#[test]
fn what_frees_blocks_never_runs_on_the_executor() {
    use ladrillo_translator::Translator;
    let Some(t) = brick() else { return };
    let pool = Arc::new(Counting::default());
    let storage = super::Storage::open("posix", StorageOptions::new(&t.path), pool.clone()).unwrap();
    let sent_away = |fop: Fop| {
        let before = pool.0.load(Ordering::Relaxed);
        futures::executor::block_on(storage.submit(&at(1), fop)).unwrap();
        pool.0.load(Ordering::Relaxed) > before
    };
    let create = |name: &str, flags: i32, fd| Fop::Create {
        entry: entry(Gfid::ROOT, name),
        flags: (libc::O_RDWR | flags) as u32,
        mode: 0o600,
        umask: 0,
        fd,
        xdata: request(Gfid::random()),
    };
    let fds: Vec<FdId> = (0..3).map(|_| FdId(NEXT.fetch_add(1, Ordering::Relaxed))).collect();
    storage.brick().execute(&at(1), create("a", 0, fds[0])).unwrap();
    assert!(sent_away(create("a", libc::O_TRUNC, fds[1])), "CREATE that empties");
    let gfid = storage.brick().files.get(fds[0]).unwrap().inode.gfid;
    let open = Fop::Open { gfid, flags: (libc::O_WRONLY | libc::O_TRUNC) as u32, fd: fds[2], xdata: Dict::new() };
    assert!(sent_away(open), "OPEN that empties");
    t.make(Gfid::ROOT, "b").unwrap();
    t.make(Gfid::ROOT, "c").unwrap();
    let rename = |from: &str, to: &str| Fop::Rename {
        from: entry(Gfid::ROOT, from),
        to: entry(Gfid::ROOT, to),
        xdata: Dict::new(),
    };
    assert!(!sent_away(rename("c", "d")), "RENAME over nothing");
    assert!(!sent_away(rename("d", "b")), "RENAME over an empty file");
    let large = File { gfid, fd: Some(fds[0]) };
    let fill = Fop::Fallocate { file: large, flags: 0, offset: 0, len: 4 << 20, xdata: Dict::new() };
    storage.brick().execute(&at(1), fill).unwrap();
    assert!(sent_away(rename("b", "a")), "RENAME over a large file");
    let unlink = Fop::Unlink { entry: entry(Gfid::ROOT, "a"), flags: 0, xdata: Dict::new() };
    assert!(!sent_away(unlink), "UNLINK of an empty file");
    for fd in fds {
        assert!(sent_away(Fop::Release { file: File { gfid, fd: Some(fd) } }), "RELEASE of a file without a name");
    }
}

#[test]
fn an_empty_file_has_empty_content() {
    let Some(t) = brick() else { return };
    t.make(Gfid::ROOT, "empty").unwrap();
    let xdata = Dict::new().with("glusterfs.content", Value::Uint(1 << 20));
    let reply = t.run(Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(Gfid::ROOT, "empty")), xdata }).unwrap();
    assert!(reply.xdata().bytes("glusterfs.content").unwrap().is_empty());
}

#[test]
fn acls_are_set_and_read_as_text() {
    let Some(t) = brick() else { return };
    let gfid = t.make(Gfid::ROOT, "f").unwrap();
    const KEY: &str = "glusterfs.posix.acl";
    let get = || match t.run(Fop::Getxattr { gfid, name: KEY.into(), xdata: Dict::new() }).unwrap() {
        Reply::Xattrs { xattrs, .. } => xattrs.text(KEY).unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(get(), "u::rw-,g::r--,o::r--");
    let set = |text: &'static str| {
        let xattrs = Dict::new().with(KEY, Value::Ptr(Bytes::from_static(text.as_bytes())));
        t.run(Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() })
    };
    let reply = set("u::rw-,u:1234:r--,g::r--,m::r--,o::---\0").unwrap();
    assert_eq!(reply.xdata().bytes("system.posix_acl_access").unwrap().len(), 4 + 5 * 8);
    assert_eq!(get(), "u::rw-,u:1234:r--,g::r--,m::r--,o::---");
    assert_eq!(t.lookup(Gfid::ROOT, "f").unwrap().mode & 0o777, 0o640);
    assert_eq!(set("nonsense").unwrap_err().errno, errno::EINVAL);
}

#[test]
fn a_default_acl_takes_the_umasks_place() {
    let Some(b) = brick() else { return };
    let d = b.mkdir(Gfid::ROOT, "d").unwrap();
    // u::rwx,u:1:rwx,g::---,m::rwx,o::---
    let mut raw = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in
        [(0x01u16, 7u16, u32::MAX), (0x02, 7, 1), (0x04, 0, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)]
    {
        raw.extend_from_slice(&tag.to_le_bytes());
        raw.extend_from_slice(&bits.to_le_bytes());
        raw.extend_from_slice(&id.to_le_bytes());
    }
    let xattrs = Dict::new().with("system.posix_acl_default", Value::Ptr(raw.into()));
    b.run(Fop::Setxattr { gfid: d, xattrs, flags: 0, xdata: Dict::new() }).unwrap();
    let permissions = |parent, name: &str, mode: u32, told: bool| {
        // As clients send it: the umask is applied, and those with ACLs tell the mode before it.
        let mut xdata = request(Gfid::random());
        if told {
            xdata.set_int("mode", i64::from(mode));
            xdata.set_int("umask", 0o022);
        }
        let fop = Fop::Mkdir { entry: entry(parent, name), mode: mode & !0o022, umask: 0o022, xdata };
        let Reply::Entry { iatt, .. } = b.run(fop).unwrap() else { panic!("no entry") };
        iatt.permissions()
    };
    assert_eq!(permissions(d, "told", 0o777, true), 0o770);
    assert_eq!(permissions(d, "untold", 0o777, false), 0o750);
    assert_eq!(permissions(d, "set-id", 0o3770, true), 0o3770);
    assert_eq!(permissions(d, "less", 0o1707, true), 0o1700, "no more than the ACL and the mode both grant");
    assert_eq!(permissions(Gfid::ROOT, "no-acl", 0o777, true), 0o755);
}

#[test]
fn put_makes_a_whole_file_at_once() {
    let Some(b) = brick() else { return };
    let gfid = Gfid::random();
    let put = |name: &str, gfid: Gfid| Fop::Put {
        entry: entry(Gfid::ROOT, name),
        mode: 0o640,
        umask: 0o022,
        flags: 0,
        offset: 3,
        data: Payload::copy_from_slice(b"data"),
        xattrs: Dict::new().with("user.colour", Value::Ptr("red".into())),
        xdata: request(gfid),
    };
    let Reply::Entry { iatt, .. } = b.run(put("a", gfid)).unwrap() else { panic!("no entry") };
    assert_eq!((iatt.gfid, iatt.size_bytes, iatt.permissions()), (gfid, 7, 0o640));
    assert_eq!(std::fs::read(b.path.join("a")).unwrap(), b"\0\0\0data");
    let Reply::Xattrs { xattrs, .. } =
        b.run(Fop::Getxattr { gfid, name: "user.colour".into(), xdata: Dict::new() }).unwrap()
    else {
        panic!("no xattrs")
    };
    assert_eq!(xattrs.bytes("user.colour").map(|v| &v[..]), Some(&b"red"[..]));
    assert!(b.brick.files.is_empty(), "nothing stays open");
    assert_eq!(b.run(put("a", Gfid::random())).unwrap_err().errno, errno::EEXIST);
    // What stock's bricks refuse, too.
    let lease = Fop::Lease { gfid, lease: Default::default(), xdata: Dict::new() };
    assert_eq!(b.run(lease).unwrap_err().errno, errno::ENOSYS);
    assert_eq!(
        b.run(Fop::Icreate { gfid: Gfid::random(), mode: 0o600, xdata: Dict::new() }).unwrap_err().errno,
        errno::EOPNOTSUPP
    );
}

#[test]
fn options_change_while_the_brick_is_open() {
    let Some(b) = brick() else { return };
    let options = || StorageOptions::new(&b.path);
    let statfs = || match b.run(Fop::Statfs { gfid: Gfid::ROOT, xdata: Dict::new() }).unwrap() {
        Reply::Statfs { statfs, .. } => statfs,
        other => panic!("{other:?}"),
    };
    let whole = statfs();
    b.brick.tune(StorageOptions { shared_brick_count: 4, ..options() }).unwrap();
    assert_eq!(statfs().blocks, whole.blocks / 4);
    b.brick.tune(StorageOptions { export_statfs: false, ..options() }).unwrap();
    assert_eq!((statfs().blocks, statfs().files, statfs().block_size_bytes), (0, 0, whole.block_size_bytes));
    let full = ladrillo_translator::option::PercentOrSize::Percent(100.0);
    b.brick.tune(StorageOptions { reserve: full, ..options() }).unwrap();
    assert_eq!(b.make(Gfid::ROOT, "f").unwrap_err().errno, errno::ENOSPC);
    assert_eq!(statfs().blocks_free, 0);
    let parsed = ladrillo_translator::option::Options::new()
        .with("directory", b.path.to_str().unwrap())
        .with("create-mask", "0750")
        .with("force-create-mode", "0004")
        .with("brick-uid", "1234")
        .with("max-hardlinks", "2");
    assert!(!b.brick.tune(StorageOptions::parse(&parsed).unwrap()).unwrap());
    let gfid = Gfid::random();
    let mode = 0o104_777;
    let fop = Fop::Mknod { entry: entry(Gfid::ROOT, "f"), mode, rdev: 0, umask: 0, xdata: request(gfid) };
    b.run(fop).unwrap();
    assert_eq!(b.lookup(Gfid::ROOT, "f").unwrap().permissions(), 0o4754, "set-uid is not the masks' business");
    let iatt = Box::new(Iatt { mode: 0o777, ..Iatt::default() });
    let valid = SetattrValid(SetattrValid::MODE);
    b.run(Fop::Setattr { gfid, iatt, valid, xdata: Dict::new() }).unwrap();
    assert_eq!(b.lookup(Gfid::ROOT, "f").unwrap().permissions(), 0o754);
    assert_eq!(std::fs::metadata(&b.path).unwrap().uid(), 1234);
    let link = |name: &str| b.run(Fop::Link { gfid, entry: entry(Gfid::ROOT, name), xdata: Dict::new() });
    link("g").unwrap();
    assert_eq!(link("h").unwrap_err().errno, errno::EMLINK);
    assert!(b.brick.tune(StorageOptions { ctime: false, ..options() }).unwrap(), "waits for the next start");
}

#[test]
fn a_linkto_file_gives_way_to_another_of_its_own_gfid() {
    let Some(t) = brick() else { return };
    let gfid = Gfid::random();
    let key = "trusted.glusterfs.dht.linkto";
    let make = |to: &'static str| {
        let xdata = request(gfid)
            .with("glusterfs-internal-fop", Value::Str("yes".into()))
            .with("force-replace", Value::Str("yes".into()))
            .with(key, Value::Ptr(to.into()));
        t.run(Fop::Mknod { entry: entry(Gfid::ROOT, "f"), mode: 0o101_000, rdev: 0, umask: 0, xdata })
    };
    make("v-client-1\0").unwrap();
    // It leads elsewhere now.
    make("v-client-2\0").unwrap();
    assert_eq!(t.lookup(Gfid::ROOT, "f").unwrap().gfid, gfid);
    assert_eq!(t.stat(gfid).unwrap().nlink, 1);
    let Reply::Xattrs { xattrs, .. } = t.run(Fop::Getxattr { gfid, name: key.into(), xdata: Dict::new() }).unwrap()
    else {
        panic!()
    };
    assert_eq!(xattrs.bytes(key).map(|raw| &raw[..]), Some(&b"v-client-2\0"[..]));
}

/// What the disk says of a file's mtime, in seconds.
fn mtime_on_disk(t: &TempBrick, name: &str) -> i64 {
    decode_mdata(&xattr(&t.path.join(name), MDATA_KEY).unwrap()).unwrap().mtime.seconds
}

#[test]
fn times_of_writes_are_stored_before_anybody_could_miss_them() {
    let Some(mut t) = brick() else { return };
    let gfid = t.make(Gfid::ROOT, "f").unwrap();
    let file = File { gfid, fd: None };
    let write = |t: &TempBrick, second: i64, flags: i32| {
        let data = Payload::copy_from_slice(b"x");
        let fop = Fop::Write { file, offset: 0, data, flags: flags as u32, xdata: Dict::new() };
        t.brick.execute(&at(second), fop).unwrap();
        assert_eq!(t.lookup(Gfid::ROOT, "f").unwrap().mtime.seconds, second, "a client sees it at once");
    };
    let born = mtime_on_disk(&t, "f");
    let dirty = || Dict::new().with("trusted.afr.dirty", Value::Ptr(Bytes::copy_from_slice(&[0; 12])));
    type Storer<'a> = (&'a str, &'a dyn Fn(&TempBrick));
    let storers: [Storer<'_>; 6] = [
        ("a second passes", &|t| t.brick.save_times()),
        ("fsync", &|t| drop(t.run(Fop::Fsync { file, datasync: true, xdata: Dict::new() }).unwrap())),
        ("close", &|t| drop(t.run(Fop::Flush { file, xdata: Dict::new() }).unwrap())),
        ("marks change", &|t| {
            let kind = XattropKind::AddArray;
            t.run(Fop::Xattrop { gfid, kind, xattrs: dirty(), xdata: Dict::new() }).unwrap();
        }),
        ("attributes change", &|t| {
            let (iatt, valid) = (Box::new(Iatt { mode: 0o600, ..Iatt::default() }), SetattrValid(SetattrValid::MODE));
            t.brick.execute(&at(1_800_000_000), Fop::Setattr { gfid, iatt, valid, xdata: Dict::new() }).unwrap();
        }),
        ("heal reads it", &|t| {
            let fop = Fop::Lookup { gfid, entry: None, xdata: Dict::new().with(MDATA_KEY, Value::Int(0)) };
            t.run(fop).unwrap();
        }),
    ];
    let mut second = born;
    for (what, store) in storers {
        second += 10;
        write(&t, second, 0);
        assert_eq!(mtime_on_disk(&t, "f"), if second == born + 10 { born } else { second - 10 }, "before {what}");
        store(&t);
        assert_eq!(mtime_on_disk(&t, "f"), second, "{what}");
    }
    second += 10;
    write(&t, second, libc::O_SYNC);
    assert_eq!(mtime_on_disk(&t, "f"), second, "O_SYNC");
    write(&t, second + 10, 0);
    t.reopen();
    assert_eq!(mtime_on_disk(&t, "f"), second + 10, "the brick ends");
}
