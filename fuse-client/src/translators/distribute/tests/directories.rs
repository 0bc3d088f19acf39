//! Directories: on all subvolumes, with layouts, attributes and xattrs that agree.

use ladrillo_translator::error::errno::{EEXIST, ENODATA, ENOENT, ENOTCONN, ENOTEMPTY, EOPNOTSUPP};
use ladrillo_translator::option::Options;
use ladrillo_translator::{Context, Dict, Fop, Gfid, Reply, Translator, Value};

use super::bench::*;
use crate::translators::distribute::layout::{DiskPiece, Layout};

const ROOT: Gfid = Gfid::ROOT;
const LAYOUT: &[u8] = b"trusted.glusterfs.dht";
const MDS: &[u8] = b"trusted.glusterfs.dht.mds";

fn layout(bricks: &crate::translators::replicate::tests::bench::Bricks, path: &str) -> Layout {
    let mut layout = Layout::default();
    for brick in 0..bricks.disks.len() {
        let node = node(bricks, brick, path);
        let raw = node.as_ref().map(|node| node.xattrs.get(LAYOUT).map(|raw| &raw[..]));
        layout.add(brick, raw.ok_or(ENOENT));
    }
    layout
}

#[test]
fn a_directory_is_everywhere_with_a_whole_layout() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let root = layout(&bricks, "/");
        assert_eq!(root.anomalies(), Default::default());
        assert_eq!(root.commit_hash, 1);
        let gfid = volume.mkdir(ROOT, "d").await.unwrap();
        let below = volume.mkdir(gfid, "e").await.unwrap();
        for (path, gfid) in [("/d", gfid), ("/d/e", below)] {
            let layout = layout(&bricks, path);
            assert_eq!(layout.anomalies(), Default::default(), "{path}");
            assert!(layout.pieces.iter().all(|piece| piece.commit_hash == 0 && piece.takes_part()));
            let marked: Vec<usize> =
                (0..3).filter(|brick| node(&bricks, *brick, path).unwrap().xattrs.contains_key(MDS)).collect();
            assert_eq!(marked.len(), 1, "{path}");
            assert!((0..3).all(|brick| node(&bricks, brick, path).unwrap().gfid == gfid));
        }
        assert_eq!(code(volume.mkdir(ROOT, "d").await), EEXIST);
        assert_eq!(volume.names(ROOT).await, ["d"]);
        assert_eq!(code(volume.rmdir(ROOT, "d").await), ENOTEMPTY);
        volume.rmdir(gfid, "e").await.unwrap();
        volume.rmdir(ROOT, "d").await.unwrap();
        assert_eq!(holders(&bricks, "/d"), [0; 0]);
        assert_eq!(code(volume.lookup(ROOT, "d").await), ENOENT);
        pass(std::time::Duration::from_secs(1)).await;
        assert_eq!(locks_left(&bricks), 0);
    });
}

#[test]
fn listings_show_every_name_once_and_can_be_taken_up_anywhere() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let mut expected = Vec::new();
        for n in 0..40 {
            let name = format!("n{n:02}");
            match n % 4 {
                0 => drop(volume.mkdir(ROOT, &name).await.unwrap()),
                1 => {
                    volume.file(ROOT, &format!("{name}-before")).await.unwrap();
                    volume.rename(at(ROOT, &format!("{name}-before")), at(ROOT, &name)).await.unwrap();
                }
                _ => drop(volume.file(ROOT, &name).await.unwrap()),
            }
            expected.push(name);
        }
        assert!(holders(&bricks, "/n01").len() + holders(&bricks, "/n05").len() > 2, "some linkto files");
        for size_bytes in [1, 500, 100_000] {
            let entries = volume.list(ROOT, size_bytes).await.unwrap();
            let mut names: Vec<String> =
                entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
            names.sort();
            assert_eq!(names.iter().filter(|name| name.starts_with('.')).count(), 2, "the dots");
            names.retain(|name| !name.starts_with('.'));
            assert_eq!(names, expected);
            // From each offset on, the rest follows.
            let file = ladrillo_translator::fop::File { gfid: ROOT, fd: None };
            for (index, entry) in entries.iter().enumerate() {
                let fop = Fop::Readdir { file, offset: entry.offset, size_bytes: 100, xdata: Dict::new() };
                let Reply::Entries { entries: rest, .. } = volume.ask(fop).await.unwrap() else { panic!() };
                assert_eq!(rest.first().map(|next| &next.name), entries.get(index + 1).map(|next| &next.name));
                assert!(rest.iter().all(|next| next.iatt.is_none()), "a plain listing has no attributes");
            }
        }
        let optimized = super::bench::volume(&bricks, Options::new().with("readdir-optimize", "on"));
        assert_eq!(optimized.names(ROOT).await, expected);
    });
}

#[test]
fn missing_copies_and_attributes_are_mended_by_a_lookup() {
    run(async {
        let (bricks, volume_a) = fresh(3).await;
        let gfid = volume_a.mkdir(ROOT, "d").await.unwrap();
        volume_a.set(gfid, "user.colour", "blue").await.unwrap();
        volume_a.chmod(gfid, 0o711).await.unwrap();
        let marked = (0..3).find(|brick| node(&bricks, *brick, "/d").unwrap().xattrs.contains_key(MDS)).unwrap();
        let other = (marked + 1) % 3;
        let wires = bricks.connect();
        let rmdir = Fop::Rmdir { entry: at(ROOT, "d"), flags: 0, xdata: Dict::new() };
        wires[other].submit(&Context::root(), rmdir).await.unwrap();
        let third = (marked + 2) % 3;
        let iatt = Box::new(ladrillo_translator::Iatt { mode: 0o700, ..Default::default() });
        let valid = ladrillo_translator::iatt::SetattrValid(ladrillo_translator::iatt::SetattrValid::MODE);
        let chmod = Fop::Setattr { gfid, iatt, valid, xdata: Dict::new() };
        wires[third].submit(&Context::root(), chmod).await.unwrap();

        let volume_b = volume(&bricks, Options::new());
        volume_b.root().await;
        let iatt = volume_b.lookup(ROOT, "d").await.unwrap();
        assert_eq!((iatt.gfid, iatt.mode), (gfid, 0o40711));
        for brick in 0..3 {
            let node = node(&bricks, brick, "/d").unwrap();
            assert_eq!((node.gfid, node.mode), (gfid, 0o40711), "{brick}");
            assert_eq!(node.xattrs.get(&b"user.colour"[..]).map(|raw| &raw[..]), Some(&b"blue"[..]), "{brick}");
        }
        // The layout was whole: the new copy takes no part in it.
        let healed = layout(&bricks, "/d");
        assert!(!healed.anomalies().is_broken());
        assert!(!healed.piece(other).unwrap().takes_part() || healed.pieces.iter().all(|piece| piece.takes_part()));
        volume_b.file(gfid, "f").await.unwrap();
        assert_eq!(volume_a.names(gfid).await, ["f"]);
    });
}

#[test]
fn broken_layouts_are_assigned_anew() {
    run(async {
        let (bricks, volume_a) = fresh(3).await;
        let gfid = volume_a.mkdir(ROOT, "d").await.unwrap();
        let mut files = Vec::new();
        for n in 0..10 {
            files.push((format!("f{n}"), volume_a.file(gfid, &format!("f{n}")).await.unwrap()));
        }
        // Two answer for the same range, nobody for another.
        let piece = DiskPiece { commit_hash: 0, hash_type: Default::default(), start: 0, stop: 0x7fff_ffff };
        let wires = bricks.connect();
        for wire in &wires[..2] {
            let xattrs = Dict::new().with(LAYOUT, Value::Ptr(piece.encode()));
            let fop = Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() };
            wire.submit(&Context::root(), fop).await.unwrap();
        }
        assert!(layout(&bricks, "/d").anomalies().is_broken());
        let volume_b = volume(&bricks, Options::new());
        volume_b.root().await;
        volume_b.lookup(ROOT, "d").await.unwrap();
        let mended = layout(&bricks, "/d");
        assert_eq!((mended.anomalies(), mended.commit_hash), (Default::default(), 1));
        // Whoever knew the old layout notices when it makes something, and all files are still found.
        for n in 10..20 {
            files.push((format!("f{n}"), volume_a.file(gfid, &format!("f{n}")).await.unwrap()));
            volume_a.mkdir(gfid, &format!("d{n}")).await.unwrap();
        }
        for volume in [&volume_a, &volume_b] {
            for (name, gfid_of_file) in &files {
                assert_eq!(volume.lookup(gfid, name).await.unwrap().gfid, *gfid_of_file, "{name}");
            }
        }
    });
}

#[test]
fn changes_that_a_subvolume_missed_are_counted_and_spread() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let gfid = volume.mkdir(ROOT, "d").await.unwrap();
        let marked = (0..3).find(|brick| node(&bricks, *brick, "/d").unwrap().xattrs.contains_key(MDS)).unwrap();
        let mark = || node(&bricks, marked, "/d").unwrap().xattrs.get(MDS).unwrap().to_vec();
        volume.set(gfid, "user.a", "1").await.unwrap();
        assert_eq!(mark(), [0; 4]);
        let other = (marked + 1) % 3;
        volume.wires[other].cut();
        volume.set(gfid, "user.a", "2").await.unwrap();
        volume.set(gfid, "user.b", "3").await.unwrap();
        assert_eq!(mark(), (-2_i32).to_be_bytes());
        assert_eq!(volume.get(gfid, "user.a").await.unwrap(), "2");
        volume.wires[other].mend();
        let value = |brick: usize, key: &'static [u8]| {
            node(&bricks, brick, "/d").unwrap().xattrs.get(key).map(|raw| raw.to_vec())
        };
        assert_eq!(value(other, b"user.a"), Some(b"1".to_vec()));
        volume.lookup(ROOT, "d").await.unwrap();
        assert_eq!(mark(), [0; 4]);
        for brick in 0..3 {
            assert_eq!(value(brick, b"user.a"), Some(b"2".to_vec()), "{brick}");
            assert_eq!(value(brick, b"user.b"), Some(b"3".to_vec()), "{brick}");
        }
        let remove = Fop::Removexattr { gfid, name: "user.a".into(), xdata: Dict::new() };
        volume.ask(remove.clone()).await.unwrap();
        assert_eq!((0..3).filter(|brick| value(*brick, b"user.a").is_some()).count(), 0);
        assert_eq!(code(volume.ask(remove).await), ENODATA);
        assert_eq!(mark(), [0; 4]);
    });
}

/// A client that never saw the marked copy took the next one for it: a second mark, and by the next lookup the older value
/// of the two had won.
#[test]
fn while_the_marked_copy_is_away_a_directory_is_not_changed() {
    run(async {
        let (bricks, volume_a) = fresh(3).await;
        let gfid = volume_a.mkdir(ROOT, "d").await.unwrap();
        volume_a.set(gfid, "user.a", "1").await.unwrap();
        let has_mark = |brick: &usize| node(&bricks, *brick, "/d").unwrap().xattrs.contains_key(MDS);
        let marked: Vec<usize> = (0..3).filter(has_mark).collect();
        let volume_b = volume(&bricks, Options::new());
        volume_b.wires[marked[0]].cut();
        volume_b.root().await;
        volume_b.lookup(ROOT, "d").await.unwrap();
        assert_eq!(volume_b.get(gfid, "user.a").await.unwrap(), "1");
        assert_eq!(code(volume_b.set(gfid, "user.a", "2").await), ENOTCONN);
        assert_eq!(code(volume_b.chmod(gfid, 0o700).await), ENOTCONN);
        assert_eq!((0..3).filter(has_mark).collect::<Vec<_>>(), marked);
        volume_b.wires[marked[0]].mend();
        volume_b.set(gfid, "user.a", "2").await.unwrap();
        assert_eq!((0..3).filter(has_mark).collect::<Vec<_>>(), marked);
        assert_eq!(volume_a.get(gfid, "user.a").await.unwrap(), "2");
    });
}

#[test]
fn distributes_own_xattrs_are_not_for_applications() {
    run(async {
        let (_, volume) = fresh(2).await;
        let gfid = volume.mkdir(ROOT, "d").await.unwrap();
        for key in ["trusted.glusterfs.dht", "trusted.glusterfs.dht.mds", "distribute.fix.layout"] {
            assert_eq!(code(volume.set(gfid, key, "x").await), EOPNOTSUPP, "{key}");
        }
        assert_eq!(code(volume.get(gfid, "trusted.glusterfs.dht.mds").await), EOPNOTSUPP);
        assert_eq!(code(volume.get(gfid, "trusted.glusterfs.dht").await), ENODATA);
        volume.set(gfid, "user.a", "1").await.unwrap();
        let all = Fop::Getxattr { gfid, name: Default::default(), xdata: Dict::new() };
        let Reply::Xattrs { xattrs, .. } = volume.ask(all).await.unwrap() else { panic!() };
        let keys: Vec<_> = xattrs.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(keys, ["user.a"]);
        assert_eq!(volume.get(ROOT, "dht.subvol.status").await.unwrap(), "1");
        let hashed = volume.get(ROOT, "dht.file.hashed-subvol.some").await.unwrap();
        assert!(hashed.starts_with("v-client-"), "{hashed}");
    });
}

#[test]
fn directories_are_renamed_everywhere_or_nowhere() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let gfid = volume.mkdir(ROOT, "a").await.unwrap();
        volume.file(gfid, "f").await.unwrap();
        let target = volume.mkdir(ROOT, "full").await.unwrap();
        volume.file(target, "x").await.unwrap();
        volume.mkdir(ROOT, "empty").await.unwrap();
        assert_eq!(code(volume.rename(at(ROOT, "a"), at(ROOT, "full")).await), ENOTEMPTY);
        assert_eq!(code(volume.rename(at(ROOT, "a"), at(gfid, "inside")).await), 22);
        volume.rename(at(ROOT, "a"), at(ROOT, "empty")).await.unwrap();
        assert_eq!(holders(&bricks, "/a"), [0; 0]);
        assert!((0..3).all(|brick| node(&bricks, brick, "/empty").unwrap().gfid == gfid));
        // One that fails on the way is undone.
        let hashed = volume.get(ROOT, "dht.file.hashed-subvol.b").await.unwrap();
        let refusing = volume.wires.iter().find(|wire| wire.name() != hashed).unwrap();
        refusing.refuse.lock().push(("RENAME", 28));
        assert_eq!(code(volume.rename(at(ROOT, "empty"), at(ROOT, "b")).await), 28);
        refusing.refuse.lock().clear();
        assert_eq!(holders(&bricks, "/b"), [0; 0]);
        assert_eq!(holders(&bricks, "/empty"), [0, 1, 2]);
        assert_eq!(volume.names(gfid).await, ["f"]);
        pass(std::time::Duration::from_secs(1)).await;
        assert_eq!(locks_left(&bricks), 0);
    });
}

#[test]
fn a_rename_does_not_wait_for_its_own_locks() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let gfid = volume.mkdir(ROOT, "d").await.unwrap();
        let old = name_on(&bricks, "/d", 0, "a");
        let new = name_on(&bricks, "/d", 1, "b");
        let file = volume.file(gfid, &old).await.unwrap();
        // While its locks are taken, the directory's layout breaks, and is forgotten.
        for wire in &volume.wires {
            *wire.latency.lock() = std::time::Duration::from_millis(10);
        }
        let breaking = async {
            let locked = || volume.wires[1].log.lock().iter().any(|kind| kind == "ENTRYLK");
            while !locked() {
                pass(std::time::Duration::from_millis(1)).await;
            }
            let wire = &bricks.connect()[2];
            let fop = Fop::Removexattr { gfid, name: LAYOUT.into(), xdata: Dict::new() };
            wire.submit(&Context::root(), fop).await.unwrap();
            let event = ladrillo_translator::Event::Invalidate { gfid, flags: 0 };
            volume.wires[2].tell(event);
        };
        let (renamed, ()) = futures::join!(volume.rename(at(gfid, &old), at(gfid, &new)), breaking);
        assert_eq!(renamed.unwrap().gfid, file);
        assert_eq!(volume.lookup(gfid, &new).await.unwrap().gfid, file);
        pass(std::time::Duration::from_secs(1)).await;
        assert_eq!(layout(&bricks, "/d").anomalies(), Default::default(), "mended without the locks");
        assert_eq!(locks_left(&bricks), 0);
    });
}

#[test]
fn an_unlock_goes_where_the_lock_is_though_the_layout_changed() {
    use ladrillo_translator::LockOwner;
    use ladrillo_translator::fop::{File, Flock, LockCmd, LockType};
    run(async {
        let (bricks, volume) = fresh(2).await;
        let gfid = volume.mkdir(ROOT, "d").await.unwrap();
        let fd = volume.fd();
        volume.ask(Fop::Opendir { gfid, fd, xdata: Dict::new() }).await.unwrap();
        let file = File { gfid, fd: Some(fd) };
        let context = Context::root().with_lock_owner(LockOwner::from_u64(7));
        let lk = |kind| {
            let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 1, owner: LockOwner::from_u64(7) };
            volume.distribute.submit(&context, Fop::Lk { file, cmd: LockCmd::Set, flock, xdata: Dict::new() })
        };
        pass(std::time::Duration::from_secs(1)).await;
        lk(LockType::Write).await.unwrap();
        assert_eq!(locks_left(&bricks), 1);
        // The halves change places.
        let raw: Vec<_> =
            (0..2).map(|brick| node(&bricks, brick, "/d").unwrap().xattrs.get(LAYOUT).unwrap().clone()).collect();
        for (wire, raw) in bricks.connect().iter().zip(raw.iter().rev()) {
            let xattrs = Dict::new().with(LAYOUT, Value::Ptr(raw.clone()));
            wire.submit(&Context::root(), Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() }).await.unwrap();
        }
        volume.wires[0].tell(ladrillo_translator::Event::Invalidate { gfid, flags: 0 });
        lk(LockType::Unlock).await.unwrap();
        assert_eq!(locks_left(&bricks), 0);
    });
}

#[test]
fn an_rmdir_takes_stale_linkto_files_along() {
    run(async {
        let (bricks, volume_a) = fresh(3).await;
        let gfid = volume_a.mkdir(ROOT, "d").await.unwrap();
        let old = name_on(&bricks, "/d", 0, "a");
        let new = name_on(&bricks, "/d", 1, "b");
        volume_a.file(gfid, &old).await.unwrap();
        volume_a.rename(at(gfid, &old), at(gfid, &new)).await.unwrap();
        assert_eq!(code(volume_a.rmdir(ROOT, "d").await), ENOTEMPTY);
        let unlink = Fop::Unlink { entry: at(gfid, &new), flags: 0, xdata: Dict::new() };
        bricks.connect()[0].submit(&Context::root(), unlink).await.unwrap();
        assert_eq!(holders(&bricks, &format!("/d/{new}")), [1]);
        volume_a.rmdir(ROOT, "d").await.unwrap();
        assert_eq!(holders(&bricks, "/d"), [0; 0]);
    });
}

#[test]
fn an_rmdir_that_fails_half_way_is_undone() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let gfid = volume.mkdir(ROOT, "d").await.unwrap();
        let hashed = volume.get(ROOT, "dht.file.hashed-subvol.d").await.unwrap();
        let refusing = volume.wires.iter().find(|wire| wire.name() != hashed).unwrap();
        refusing.refuse.lock().push(("RMDIR", 5));
        assert_eq!(code(volume.rmdir(ROOT, "d").await), 5);
        refusing.refuse.lock().clear();
        assert_eq!(holders(&bricks, "/d"), [0, 1, 2]);
        assert!((0..3).all(|brick| node(&bricks, brick, "/d").unwrap().gfid == gfid));
        assert!(!layout(&bricks, "/d").anomalies().is_broken());
        volume.rmdir(ROOT, "d").await.unwrap();
        assert_eq!(holders(&bricks, "/d"), [0; 0]);
    });
}
