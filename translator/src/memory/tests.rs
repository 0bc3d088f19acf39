use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::LocalFuture;
use crate::fop::XattropKind;

struct Still;

impl Runtime for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn wall_clock(&self) -> Timespec {
        Timespec { seconds: 1000, nanos: 0 }
    }

    fn sleep(&self, _: Duration) -> LocalFuture<'static, ()> {
        Box::pin(async {})
    }

    fn spawn(&self, _: LocalFuture<'static, ()>) {}

    fn random(&self) -> u64 {
        4
    }
}

fn brick() -> Arc<Memory> {
    Memory::new("brick", Arc::new(Still))
}

fn ask(brick: &Memory, fop: Fop) -> FopResult {
    brick.submit(&Context::root(), fop).now_or_never().expect("a memory brick answers at once")
}

fn code(brick: &Memory, fop: Fop) -> i32 {
    ask(brick, fop).map_or_else(|error| error.errno, |_| 0)
}

fn gfid(n: u8) -> Gfid {
    Gfid([n; 16])
}

fn entry(parent: Gfid, name: &str) -> Entry {
    Entry { parent, name: Bytes::copy_from_slice(name.as_bytes()) }
}

fn req(gfid: Gfid) -> Dict {
    Dict::new().with("gfid-req", Value::Gfid(gfid))
}

fn mkdir(parent: Gfid, name: &str, new: Gfid) -> Fop {
    Fop::Mkdir { entry: entry(parent, name), mode: 0o755, umask: 0, xdata: req(new) }
}

fn mknod(parent: Gfid, name: &str, new: Gfid) -> Fop {
    Fop::Mknod { entry: entry(parent, name), mode: 0o100644, rdev: 0, umask: 0, xdata: req(new) }
}

fn unlink(parent: Gfid, name: &str) -> Fop {
    Fop::Unlink { entry: entry(parent, name), flags: 0, xdata: Dict::new() }
}

fn rmdir(parent: Gfid, name: &str) -> Fop {
    Fop::Rmdir { entry: entry(parent, name), flags: 0, xdata: Dict::new() }
}

fn rename(from: Entry, to: Entry) -> Fop {
    Fop::Rename { from, to, xdata: Dict::new() }
}

fn lookup(parent: Gfid, name: &str) -> Fop {
    Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(parent, name)), xdata: Dict::new() }
}

fn anonymous(gfid: Gfid) -> File {
    File { gfid, fd: None }
}

fn write(file: File, offset: u64, data: &'static [u8]) -> Fop {
    let data = Payload::from_bytes(Bytes::from_static(data));
    Fop::Write { file, offset, data, flags: 0, xdata: Dict::new() }
}

fn read(brick: &Memory, file: File) -> Vec<u8> {
    match ask(brick, Fop::Read { file, offset: 0, size_bytes: 1 << 20, flags: 0, xdata: Dict::new() }) {
        Ok(Reply::Read { data, .. }) => data.as_slice().to_vec(),
        other => panic!("{other:?}"),
    }
}

fn xattrop(gfid: Gfid, key: &'static str, counters: [u32; 3], xdata: Dict) -> Fop {
    let bytes: Vec<u8> = counters.iter().flat_map(|counter| counter.to_be_bytes()).collect();
    let xattrs = Dict::new().with(key, Value::Ptr(bytes.into()));
    Fop::Xattrop { gfid, kind: XattropKind::AddArray, xattrs, xdata }
}

fn names(brick: &Memory, gfid: Gfid) -> Vec<String> {
    let mut names = Vec::new();
    let mut offset = 0;
    loop {
        // Room for one entry at a time: offsets have to carry on.
        let fop = Fop::Readdir { file: anonymous(gfid), offset, size_bytes: 1, xdata: Dict::new() };
        let Ok(Reply::Entries { entries, .. }) = ask(brick, fop) else { panic!("no listing") };
        let Some(last) = entries.last() else { return names };
        offset = last.offset;
        names.extend(entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()));
    }
}

#[test]
fn names_fail_as_on_a_brick() {
    let brick = brick();
    let (root, dir, file) = (Gfid::ROOT, gfid(2), gfid(3));
    assert_eq!(code(&brick, mkdir(root, "d", dir)), 0);
    assert_eq!(code(&brick, mknod(root, "f", file)), 0);
    for (fop, expected) in [
        (mkdir(root, "d", gfid(9)), errno::EEXIST),
        (mkdir(root, "e", dir), errno::EEXIST),
        (mkdir(file, "e", gfid(9)), errno::ENOTDIR),
        (mkdir(gfid(8), "e", gfid(9)), errno::ESTALE),
        (mkdir(root, "a/b", gfid(9)), errno::EINVAL),
        (mkdir(root, &"n".repeat(256), gfid(9)), errno::ENAMETOOLONG),
        (Fop::Mkdir { entry: entry(root, "x"), mode: 0o755, umask: 0, xdata: Dict::new() }, errno::EPERM),
        (lookup(root, "none"), errno::ENOENT),
        (lookup(file, "none"), errno::ENOTDIR),
        (Fop::Stat { gfid: gfid(9), xdata: Dict::new() }, errno::ESTALE),
        (unlink(root, "d"), errno::EISDIR),
        (rmdir(root, "f"), errno::ENOTDIR),
        (unlink(root, "none"), errno::ENOENT),
        (Fop::Link { gfid: dir, entry: entry(root, "l"), xdata: Dict::new() }, errno::EPERM),
        (Fop::Link { gfid: file, entry: entry(root, "d"), xdata: Dict::new() }, errno::EEXIST),
        (rename(entry(root, "d"), entry(dir, "below")), errno::EINVAL),
        (rename(entry(root, "d"), entry(root, "f")), errno::ENOTDIR),
        (rename(entry(root, "f"), entry(root, "d")), errno::EISDIR),
        (rename(entry(root, "none"), entry(root, "x")), errno::ENOENT),
        (write(anonymous(dir), 0, b"x"), errno::EISDIR),
        (write(anonymous(file), u64::MAX, b"x"), errno::EINVAL),
        (write(anonymous(file), MAX_FILE_BYTES, b"x"), errno::EFBIG),
        (write(File { gfid: file, fd: Some(FdId(77)) }, 0, b"x"), errno::EBADFD),
        (Fop::Readlink { gfid: file, size_bytes: 9, xdata: Dict::new() }, errno::EINVAL),
    ] {
        let shown = format!("{fop:?}");
        assert_eq!(code(&brick, fop), expected, "{shown}");
    }
    assert_eq!(code(&brick, mknod(dir, "inner", gfid(4))), 0);
    assert_eq!(code(&brick, rmdir(root, "d")), errno::ENOTEMPTY);
    assert_eq!(names(&brick, root), [".", "..", "d", "f"]);
    let all = Fop::Rmdir { entry: entry(root, "d"), flags: 1, xdata: Dict::new() };
    assert_eq!(code(&brick, all), 0);
    assert_eq!(names(&brick, root), [".", "..", "f"]);
    assert_eq!(code(&brick, Fop::Stat { gfid: gfid(4), xdata: Dict::new() }), errno::ESTALE);
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let brick = brick();
    let file = File { gfid: gfid(2), fd: Some(FdId(1)) };
    let create = Fop::Create {
        entry: entry(Gfid::ROOT, "f"),
        flags: 0o2 | O_EXCL,
        mode: 0o666,
        umask: 0o22,
        fd: FdId(1),
        xdata: req(gfid(2)),
    };
    assert_eq!(code(&brick, create), 0);
    assert_eq!(code(&brick, write(file, 0, b"hello")), 0);
    assert_eq!(code(&brick, unlink(Gfid::ROOT, "f")), 0);
    assert_eq!(read(&brick, file), b"hello");
    assert_eq!(code(&brick, Fop::Stat { gfid: gfid(2), xdata: Dict::new() }), errno::ESTALE);
    // A healer brings the name back: a new inode of the same gfid; who has the old one open keeps it.
    assert_eq!(code(&brick, mknod(Gfid::ROOT, "f", gfid(2))), 0);
    assert_eq!(code(&brick, write(anonymous(gfid(2)), 0, b"new")), 0);
    assert_eq!((read(&brick, file), read(&brick, anonymous(gfid(2)))), (b"hello".to_vec(), b"new".to_vec()));
    assert_eq!(code(&brick, Fop::Release { file }), 0);
    assert_eq!(code(&brick, write(file, 0, b"x")), errno::EBADFD);
    assert_eq!(brick.state.lock().inodes.len(), 2);
}

#[test]
fn a_crash_loses_what_was_not_synced() {
    let brick = brick();
    let file = anonymous(gfid(2));
    assert_eq!(code(&brick, mknod(Gfid::ROOT, "f", gfid(2))), 0);
    assert_eq!(code(&brick, write(file, 0, b"aaaa")), 0);
    assert_eq!(code(&brick, Fop::Fsync { file, datasync: true, xdata: Dict::new() }), 0);
    assert_eq!(code(&brick, write(file, 0, b"bb")), 0);
    assert_eq!(code(&brick, write(file, 3, b"cc")), 0);
    assert_eq!(read(&brick, file), b"bbacc");
    let mut keep = [false, true].into_iter();
    brick.crash(&mut || keep.next().unwrap());
    assert_eq!(read(&brick, file), b"aaacc");
    brick.crash(&mut || panic!("nothing is unsynced"));
    assert_eq!(read(&brick, file), b"aaacc");
    let sync = Fop::Write {
        file,
        offset: 0,
        data: Payload::from_bytes(Bytes::from_static(b"z")),
        flags: O_DSYNC,
        xdata: Dict::new(),
    };
    assert_eq!(code(&brick, sync), 0);
    brick.crash(&mut || false);
    assert_eq!(read(&brick, file), b"zaacc");
}

#[test]
fn marks_make_an_index() {
    let brick = brick();
    const CLIENT: &str = "trusted.afr.gv0-client-1";
    const DIRTY: &str = "trusted.afr.dirty";
    assert_eq!(code(&brick, mknod(Gfid::ROOT, "f", gfid(2))), 0);
    assert_eq!(code(&brick, xattrop(gfid(2), DIRTY, [1, 0, 0], Dict::new())), 0);
    assert_eq!(code(&brick, xattrop(gfid(2), CLIENT, [0, 0, 0], Dict::new())), 0);
    let get = |name: &'static str| {
        let fop = Fop::Getxattr { gfid: Gfid::ROOT, name: name.into(), xdata: Dict::new() };
        match ask(&brick, fop) {
            Ok(Reply::Xattrs { xattrs, .. }) => xattrs.gfid(name).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let (pending, dirty) = (get(index::key::PENDING_GFID), get(index::key::DIRTY_GFID));
    assert_eq!((names(&brick, pending).len(), names(&brick, dirty)), (0, vec![gfid(2).to_string()]));
    assert_eq!(brick.marks().len(), 1, "asking creates no mark");
    assert_eq!(code(&brick, xattrop(gfid(2), CLIENT, [1, 0, 0], Dict::new())), 0);
    assert_eq!(code(&brick, xattrop(gfid(2), DIRTY, [u32::MAX, 0, 0], Dict::new())), 0);
    assert_eq!((names(&brick, pending), names(&brick, dirty).len()), (vec![gfid(2).to_string()], 0));
    let count = Fop::Lookup {
        gfid: Gfid::ROOT,
        entry: None,
        xdata: Dict::new().with("link-count", Value::Str(index::key::PENDING_COUNT.into())),
    };
    assert_eq!(ask(&brick, count).unwrap().xdata().int("link-count"), Some(1));
    // The entry outlives the inode, until a healer takes it out.
    assert_eq!(code(&brick, unlink(Gfid::ROOT, "f")), 0);
    assert_eq!(brick.indexed(), [gfid(2)]);
    assert_eq!(code(&brick, unlink(pending, &gfid(2).to_string())), 0);
    assert_eq!(brick.indexed(), []);
}

#[test]
fn changed_names_are_listed_for_healers() {
    let brick = brick();
    const CLIENT: &str = "trusted.afr.gv0-client-1";
    assert_eq!(code(&brick, mkdir(Gfid::ROOT, "d", gfid(2))), 0);
    let note = Dict::new().with(index::key::ENTRY_IN, Value::Str("new".into()));
    assert_eq!(code(&brick, xattrop(gfid(2), CLIENT, [0, 0, 1], note)), 0);
    let fop = Fop::Getxattr { gfid: Gfid::ROOT, name: index::key::ENTRY_CHANGES_GFID.into(), xdata: Dict::new() };
    let Ok(Reply::Xattrs { xattrs, .. }) = ask(&brick, fop) else { panic!("no gfid") };
    let changes = xattrs.gfid(index::key::ENTRY_CHANGES_GFID).unwrap();
    assert_eq!(names(&brick, changes), [gfid(2).to_string()]);
    let Ok(Reply::Lookup { iatt, .. }) = ask(&brick, lookup(changes, &gfid(2).to_string())) else { panic!("none") };
    assert_eq!(names(&brick, iatt.gfid), ["new"]);
    assert_eq!(code(&brick, unlink(iatt.gfid, "new")), 0);
    assert_eq!(names(&brick, iatt.gfid).len(), 0);
    assert_eq!(code(&brick, rmdir(changes, &gfid(2).to_string())), 0);
    assert_eq!(names(&brick, changes).len(), 0);
}

#[test]
fn xattrops_count() {
    let brick = brick();
    let op = |kind, value: &'static [u8]| {
        let xattrs = Dict::new().with("trusted.n", Value::Ptr(Bytes::from_static(value)));
        match ask(&brick, Fop::Xattrop { gfid: Gfid::ROOT, kind, xattrs, xdata: Dict::new() }) {
            Ok(Reply::Xattrs { xattrs, .. }) => {
                xattrs.bytes("trusted.n").map(|bytes| bytes.to_vec()).unwrap_or_default()
            }
            Err(error) => vec![error.errno as u8],
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(op(XattropKind::AddArray, &[0, 0, 0, 1]), [0, 0, 0, 1]);
    assert_eq!(op(XattropKind::AddArray, &[255, 255, 255, 255]), [0, 0, 0, 0]);
    assert_eq!(op(XattropKind::AddArrayWithDefault, &[0, 0, 0, 1, 0, 0, 0, 5]), [0, 0, 0, 6]);
    assert_eq!(op(XattropKind::AddArrayWithDefault, &[0, 0, 0, 1, 0, 0, 0, 5]), [0, 0, 0, 7]);
    assert_eq!(op(XattropKind::OrArray, &[8, 0, 0, 0]), [8, 0, 0, 7]);
    assert_eq!(op(XattropKind::AndArray, &[0, 0, 0, 3]), [0, 0, 0, 3]);
    assert_eq!(op(XattropKind::GetAndSet, &[1]), [0, 0, 0, 3]);
    assert_eq!(op(XattropKind::AddArray64, &[0, 0, 0, 0, 0, 0, 0, 1])[1..], [0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(op(XattropKind::AddArray, &[0, 0, 0, 1]), [errno::ERANGE as u8]);
}

#[test]
fn a_healer_recreates_a_second_name_as_a_link() {
    let brick = brick();
    assert_eq!(code(&brick, mknod(Gfid::ROOT, "a", gfid(2))), 0);
    assert_eq!(code(&brick, mknod(Gfid::ROOT, "b", gfid(2))), errno::EEXIST);
    let xdata = req(gfid(2)).with("glusterfs-internal-fop", Value::Str("yes".into()));
    let again = Fop::Mknod { entry: entry(Gfid::ROOT, "b"), mode: 0o100644, rdev: 0, umask: 0, xdata };
    assert_eq!(code(&brick, again), 0);
    assert_eq!(brick.snapshot().nodes[b"/b".as_slice()].nlink, 2);
}

proptest! {
    /// After any work on names, every count is what the tree says.
    #[test]
    fn counts_agree_with_the_tree(
        steps in proptest::collection::vec((0u8..6, 0usize..5, 0u8..4, 0usize..5, 0u8..4), 1..80)
    ) {
        let brick = brick();
        let mut next = 10_u8;
        let mut directories = vec![Gfid::ROOT];
        let mut files = Vec::new();
        for (what, one, name_one, two, name_two) in steps {
            let (from, to) = (directories[one % directories.len()], directories[two % directories.len()]);
            let (name, other) = (format!("n{name_one}"), format!("n{name_two}"));
            next += 1;
            let fop = match what {
                0 => mkdir(from, &name, gfid(next)),
                1 => mknod(from, &name, gfid(next)),
                2 => unlink(from, &name),
                3 => rmdir(from, &name),
                4 => rename(entry(from, &name), entry(to, &other)),
                _ => {
                    let Some(file) = files.get(two % files.len().max(1)) else { continue };
                    Fop::Link { gfid: *file, entry: entry(from, &name), xdata: Dict::new() }
                }
            };
            if ask(&brick, fop).is_ok() {
                match what {
                    0 => directories.push(gfid(next)),
                    1 => files.push(gfid(next)),
                    _ => {}
                }
            }
        }
        let nodes = brick.snapshot().nodes;
        let mut found: HashMap<Gfid, u32> = HashMap::new();
        for (path, node) in &nodes {
            let is_dir = node.mode & S_IFMT == FileType::Directory.mode_bits();
            *found.entry(node.gfid).or_default() += if is_dir { 2 } else { 1 };
            let parent = match path.iter().rposition(|byte| *byte == b'/') {
                Some(0) => b"/".as_slice(),
                at => &path[..at.unwrap_or(0)],
            };
            if is_dir && path.len() > 1 {
                *found.entry(nodes[parent].gfid).or_default() += 1;
            }
        }
        for node in nodes.values() {
            prop_assert_eq!(node.nlink, found[&node.gfid], "{}", node);
        }
        prop_assert_eq!(brick.state.lock().inodes.len(), found.len(), "no inode without a name is kept");
    }
}
