//! Files: where they are, and what follows from it.

use ladrillo_translator::error::errno::{EEXIST, EIO, EISDIR, ENOENT, ENOTCONN, ESTALE, EXDEV};
use ladrillo_translator::fop::{File, SeekWhat};
use ladrillo_translator::option::Options;
use ladrillo_translator::{Dict, Fop, Gfid, Reply};

use super::bench::*;
use crate::translators::replicate::tests::bench::Bricks;

const ROOT: Gfid = Gfid::ROOT;

#[test]
fn a_file_is_on_the_subvolume_of_its_name_alone() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        for brick in 0..3 {
            let name = name_on(&bricks, "/", brick, "f");
            let gfid = volume.file(ROOT, &name).await.unwrap();
            assert_eq!(places(&bricks, &format!("/{name}")), (vec![brick], vec![]));
            assert_eq!(volume.read(gfid).await.unwrap(), name);
            assert_eq!(code(volume.create(ROOT, &name).await), EEXIST);
            // Nothing of the parent's guard stays on the file.
            assert!(node(&bricks, brick, &format!("/{name}")).unwrap().xattrs.is_empty());
            volume.unlink(ROOT, &name).await.unwrap();
            assert_eq!(holders(&bricks, &format!("/{name}")), [0; 0]);
            assert_eq!(code(volume.lookup(ROOT, &name).await), ENOENT);
        }
    });
}

#[test]
fn a_renamed_file_leaves_a_linkto_file_where_its_name_hashes() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        // Every combination of the two names' subvolumes, without and with a file that is replaced.
        for from in 0..3 {
            for to in 0..3 {
                for over in [false, true] {
                    let old = name_on(&bricks, "/", from, &format!("old{from}{to}{over}"));
                    let new = name_on(&bricks, "/", to, &format!("new{from}{to}{over}"));
                    let gfid = volume.file(ROOT, &old).await.unwrap();
                    let replaced = if over { Some(volume.file(ROOT, &new).await.unwrap()) } else { None };
                    let iatt = volume.rename(at(ROOT, &old), at(ROOT, &new)).await.unwrap();
                    assert_eq!((iatt.gfid, iatt.nlink), (gfid, 1), "{from} {to} {over}");
                    assert_eq!(holders(&bricks, &format!("/{old}")), [0; 0], "{from} {to} {over}");
                    let links = if from == to { vec![] } else { vec![(to, format!("v-client-{from}"))] };
                    assert_eq!(places(&bricks, &format!("/{new}")), (vec![from], links), "{from} {to} {over}");
                    assert_eq!(volume.lookup(ROOT, &new).await.unwrap().gfid, gfid);
                    assert_eq!(volume.read(gfid).await.unwrap(), old);
                    if let Some(replaced) = replaced {
                        assert_ne!(code(volume.read(replaced).await), 0);
                    }
                    let listed = volume.names(ROOT).await;
                    assert_eq!(listed.iter().filter(|name| **name == new).count(), 1);
                    assert!(!listed.contains(&old));
                }
            }
        }
        pass(std::time::Duration::from_secs(1)).await;
        assert_eq!(locks_left(&bricks), 0, "locks are left");
    });
}

#[test]
fn a_rename_that_cannot_replace_what_is_there_is_undone() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let old = name_on(&bricks, "/", 0, "old");
        let new = name_on(&bricks, "/", 1, "new");
        let source = volume.file(ROOT, &old).await.unwrap();
        let target = volume.file(ROOT, &new).await.unwrap();
        volume.wires[1].refuse.lock().push(("RENAME", EIO));
        assert_eq!(code(volume.rename(at(ROOT, &old), at(ROOT, &new)).await), EIO);
        volume.wires[1].refuse.lock().clear();
        assert_eq!(places(&bricks, &format!("/{old}")), (vec![0], vec![]));
        assert_eq!(places(&bricks, &format!("/{new}")), (vec![1], vec![]));
        assert_eq!(volume.lookup(ROOT, &old).await.unwrap().gfid, source);
        assert_eq!(volume.lookup(ROOT, &new).await.unwrap().gfid, target);
        assert_eq!(volume.read(target).await.unwrap(), new);
        volume.rename(at(ROOT, &old), at(ROOT, &new)).await.unwrap();
        assert_eq!(volume.lookup(ROOT, &new).await.unwrap().gfid, source);
        pass(std::time::Duration::from_secs(1)).await;
        assert_eq!(locks_left(&bricks), 0);
    });
}

#[test]
fn a_moved_name_is_renamed_and_removed_with_its_linkto_file() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        for to in 0..3 {
            for over in [None, Some(0), Some(1), Some(2)] {
                let first = name_on(&bricks, "/", 0, &format!("a{to}{over:?}"));
                let second = name_on(&bricks, "/", 1, &format!("b{to}{over:?}"));
                let third = name_on(&bricks, "/", to, &format!("c{to}{over:?}"));
                let gfid = volume.file(ROOT, &first).await.unwrap();
                volume.rename(at(ROOT, &first), at(ROOT, &second)).await.unwrap();
                if let Some(over) = over {
                    // What is renamed over has its data on `over`.
                    let source = name_on(&bricks, "/", over, &format!("d{to}{over}"));
                    volume.file(ROOT, &source).await.unwrap();
                    volume.rename(at(ROOT, &source), at(ROOT, &third)).await.unwrap();
                }
                volume.rename(at(ROOT, &second), at(ROOT, &third)).await.unwrap();
                let links = if to == 0 { vec![] } else { vec![(to, "v-client-0".to_owned())] };
                assert_eq!(places(&bricks, &format!("/{third}")), (vec![0], links), "{to} {over:?}");
                assert_eq!(holders(&bricks, &format!("/{second}")), [0; 0], "{to} {over:?}");
                assert_eq!(volume.read(gfid).await.unwrap(), first);
                volume.unlink(ROOT, &third).await.unwrap();
                assert_eq!(holders(&bricks, &format!("/{third}")), [0; 0], "{to} {over:?}");
            }
        }
    });
}

#[test]
fn hard_links_have_linkto_files_of_their_own() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let first = name_on(&bricks, "/", 0, "a");
        let gfid = volume.file(ROOT, &first).await.unwrap();
        for brick in 0..3 {
            let name = name_on(&bricks, "/", brick, "l");
            volume.link(gfid, ROOT, &name).await.unwrap();
            let links = if brick == 0 { vec![] } else { vec![(brick, "v-client-0".to_owned())] };
            assert_eq!(places(&bricks, &format!("/{name}")), (vec![0], links));
            assert_eq!(volume.lookup(ROOT, &name).await.unwrap().nlink, 2 + brick as u32);
            assert_eq!(code(volume.link(gfid, ROOT, &name).await), EEXIST);
        }
        // Both names of one inode: nothing is done.
        let other = name_on(&bricks, "/", 1, "l");
        volume.rename(at(ROOT, &first), at(ROOT, &other)).await.unwrap();
        assert_eq!(volume.names(ROOT).await.len(), 4);
        volume.unlink(ROOT, &first).await.unwrap();
        assert_eq!(volume.read(gfid).await.unwrap(), first);
    });
}

#[test]
fn a_linkto_file_whose_file_is_about_to_be_made_stays() {
    use std::time::Duration;
    run(async {
        let (bricks, volume_a) = fresh(2).await;
        let first = name_on(&bricks, "/", 0, "a");
        let second = name_on(&bricks, "/", 1, "l");
        let gfid = volume_a.file(ROOT, &first).await.unwrap();
        let volume_b = volume(&bricks, Options::new());
        volume_b.root().await;
        // The linkto file is there long before the link that it leads to.
        *volume_a.wires[0].latency.lock() = Duration::from_millis(100);
        let lookup = async {
            while holders(&bricks, &format!("/{second}")) != [1] {
                pass(Duration::from_millis(1)).await;
            }
            volume_b.lookup(ROOT, &second).await
        };
        let (linked, looked) = futures::join!(volume_a.link(gfid, ROOT, &second), lookup);
        linked.unwrap();
        assert!(matches!(code(looked), 0 | ENOENT));
        assert_eq!(places(&bricks, &format!("/{second}")), (vec![0], vec![(1, "v-client-0".to_owned())]));
        pass(Duration::from_secs(1)).await;
        assert_eq!(locks_left(&bricks), 0);
    });
}

#[test]
fn a_full_subvolume_gets_linkto_files_only() {
    run(async {
        let (bricks, _) = fresh(3).await;
        // Half of each memory brick is free.
        let picky = volume(&bricks, Options::new().with("min-free-disk", "60%"));
        picky.root().await;
        pass(std::time::Duration::from_secs(2)).await;
        let name = name_on(&bricks, "/", 1, "f");
        let gfid = picky.file(ROOT, &name).await.unwrap();
        let (data, links) = places(&bricks, &format!("/{name}"));
        assert_eq!(data.len(), 1);
        // All are equally full: any will do, its own or another with a linkto file that leads there.
        assert_eq!(links.len(), usize::from(data[0] != 1));
        assert!(links.iter().all(|link| *link == (1, format!("v-client-{}", data[0]))));
        let other = volume(&bricks, Options::new());
        assert_eq!(other.lookup(ROOT, &name).await.unwrap().gfid, gfid);
        assert_eq!(other.read(gfid).await.unwrap(), name);
    });
}

#[test]
fn a_lookup_mends_linkto_files() {
    run(async {
        let (bricks, volume_a) = fresh(3).await;
        let old = name_on(&bricks, "/", 0, "a");
        let new = name_on(&bricks, "/", 1, "b");
        let gfid = volume_a.file(ROOT, &old).await.unwrap();
        volume_a.rename(at(ROOT, &old), at(ROOT, &new)).await.unwrap();
        let path = format!("/{new}");
        // Without its linkto file it is found all the same, and gets one.
        let raw = &bricks.connect()[1];
        let unlink = Fop::Unlink { entry: at(ROOT, &new), flags: 0, xdata: Dict::new() };
        use ladrillo_translator::Translator;
        raw.submit(&ladrillo_translator::Context::root(), unlink).await.unwrap();
        assert_eq!(places(&bricks, &path), (vec![0], vec![]));
        let volume_b = volume(&bricks, Options::new());
        assert_eq!(volume_b.lookup(ROOT, &new).await.unwrap().gfid, gfid);
        assert_eq!(places(&bricks, &path), (vec![0], vec![(1, "v-client-0".to_owned())]));
        // Without its data the linkto file goes.
        let raw = &bricks.connect()[0];
        let unlink = Fop::Unlink { entry: at(ROOT, &new), flags: 0, xdata: Dict::new() };
        raw.submit(&ladrillo_translator::Context::root(), unlink).await.unwrap();
        let volume_c = volume(&bricks, Options::new());
        assert_eq!(code(volume_c.lookup(ROOT, &new).await), ENOENT);
        assert_eq!(holders(&bricks, &path), [0; 0]);
        pass(std::time::Duration::from_secs(1)).await;
        assert_eq!(locks_left(&bricks), 0, "locks are left");
    });
}

#[test]
fn a_name_in_a_changed_directory_is_looked_for_everywhere() {
    run(async {
        let (bricks, volume_a) = fresh(3).await;
        // Put there behind our back, on a subvolume that its name does not hash to.
        let name = name_on(&bricks, "/", 2, "stray");
        let gfid = Gfid::random();
        use ladrillo_translator::Translator;
        let mknod = Fop::Mknod { entry: at(ROOT, &name), mode: 0o100644, rdev: 0, umask: 0, xdata: req(gfid) };
        bricks.connect()[0].submit(&ladrillo_translator::Context::root(), mknod).await.unwrap();
        // The root's layout was made by a heal: its commit hash says that names may be elsewhere.
        assert_eq!(volume_a.lookup(ROOT, &name).await.unwrap().gfid, gfid);
        assert_eq!(places(&bricks, &format!("/{name}")), (vec![0], vec![(2, "v-client-0".to_owned())]));
        // A new directory's says they are not, unless told to look.
        let directory = volume_a.mkdir(ROOT, "d").await.unwrap();
        let name = name_on(&bricks, "/d", 2, "stray");
        let gfid = Gfid::random();
        let mknod = Fop::Mknod { entry: at(directory, &name), mode: 0o100644, rdev: 0, umask: 0, xdata: req(gfid) };
        bricks.connect()[0].submit(&ladrillo_translator::Context::root(), mknod).await.unwrap();
        assert_eq!(code(volume_a.lookup(directory, &name).await), ENOENT);
        let thorough = volume(&bricks, Options::new().with("lookup-optimize", "off"));
        assert_eq!(thorough.lookup(directory, &name).await.unwrap().gfid, gfid);
        assert_eq!(volume_a.lookup(directory, &name).await.unwrap().gfid, gfid);
    });
}

#[test]
fn open_files_and_their_operations_go_to_the_data() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let old = name_on(&bricks, "/", 0, "a");
        let new = name_on(&bricks, "/", 2, "b");
        let file = volume.create(ROOT, &old).await.unwrap();
        volume.rename(at(ROOT, &old), at(ROOT, &new)).await.unwrap();
        volume.write(file, "after the rename").await.unwrap();
        volume.unlink(ROOT, &new).await.unwrap();
        volume.write(file, "AFTER").await.unwrap();
        let read = Fop::Read { file, offset: 0, size_bytes: 99, flags: 0, xdata: Dict::new() };
        match volume.ask(read).await.unwrap() {
            Reply::Read { data, .. } => assert_eq!(data.as_slice(), b"AFTER the rename"),
            reply => panic!("{reply:?}"),
        }
        let seek = Fop::Seek { file, offset: 0, what: SeekWhat::Hole, xdata: Dict::new() };
        assert!(matches!(volume.ask(seek).await.unwrap(), Reply::Seek { offset: 16, .. }));
        volume.ask(Fop::Release { file }).await.unwrap();
        assert!(bricks.disks.iter().all(|disk| disk.open_count() == 0));

        let one = volume.create(ROOT, &name_on(&bricks, "/", 0, "x")).await.unwrap();
        let two = volume.create(ROOT, &name_on(&bricks, "/", 1, "y")).await.unwrap();
        let copy = |from: File, to: File| Fop::CopyFileRange {
            from,
            from_offset: 0,
            to,
            to_offset: 0,
            len: 1,
            flags: 0,
            xdata: Dict::new(),
        };
        assert_eq!(code(volume.ask(copy(one, two)).await), EXDEV);
        assert_eq!(code(volume.ask(copy(one, one)).await), 0);
        let directory = volume.mkdir(ROOT, "d").await.unwrap();
        assert_eq!(code(volume.read(directory).await), EISDIR);
    });
}

#[test]
fn a_file_that_was_moved_is_followed() {
    run(async {
        let (bricks, volume_a) = fresh(2).await;
        let name = name_on(&bricks, "/", 0, "a");
        let file = volume_a.create(ROOT, &name).await.unwrap();
        volume_a.write(file, "x").await.unwrap();
        // Moved as rebalance does: the data on the other, a linkto file left.
        use ladrillo_translator::{Context, Payload, Translator};
        let wires = bricks.connect();
        let unlink = Fop::Unlink { entry: at(ROOT, &name), flags: 0, xdata: Dict::new() };
        wires[0].submit(&Context::root(), unlink).await.unwrap();
        let mknod = Fop::Mknod { entry: at(ROOT, &name), mode: 0o100644, rdev: 0, umask: 0, xdata: req(file.gfid) };
        wires[1].submit(&Context::root(), mknod).await.unwrap();
        let moved = File { gfid: file.gfid, fd: None };
        let data = Payload::copy_from_slice(b"moved");
        let write = Fop::Write { file: moved, offset: 0, data, flags: 0, xdata: Dict::new() };
        wires[1].submit(&Context::root(), write).await.unwrap();
        let xdata = req(file.gfid)
            .with("trusted.glusterfs.dht.linkto", ladrillo_translator::Value::Str("v-client-1".into()))
            .with("glusterfs-internal-fop", ladrillo_translator::Value::Str("yes".into()));
        let linkto = Fop::Mknod { entry: at(ROOT, &name), mode: 0o101000, rdev: 0, umask: 0, xdata };
        wires[0].submit(&Context::root(), linkto).await.unwrap();
        assert_eq!(volume_a.read(file.gfid).await.unwrap(), "moved");
        assert_eq!(volume_a.lookup(ROOT, &name).await.unwrap().size_bytes, 5);
        let stat = Fop::Stat { gfid: file.gfid, xdata: Dict::new() };
        assert!(matches!(volume_a.ask(stat).await.unwrap(), Reply::Iatt { iatt, .. } if iatt.size_bytes == 5));
    });
}

/// A linkto file at `from`, as rebalance leaves it once a file has moved to `to`.
async fn leave_linkto(bricks: &Bricks, name: &str, gfid: Gfid, from: usize, to: usize) {
    use ladrillo_translator::{Context, Translator};
    let wires = bricks.connect();
    let unlink = Fop::Unlink { entry: at(ROOT, name), flags: 0, xdata: Dict::new() };
    wires[from].submit(&Context::root(), unlink).await.unwrap();
    let mknod = Fop::Mknod { entry: at(ROOT, name), mode: 0o100644, rdev: 0, umask: 0, xdata: req(gfid) };
    wires[to].submit(&Context::root(), mknod).await.unwrap();
    let xdata = req(gfid)
        .with("trusted.glusterfs.dht.linkto", ladrillo_translator::Value::Str(format!("v-client-{to}").into()))
        .with("glusterfs-internal-fop", ladrillo_translator::Value::Str("yes".into()));
    let linkto = Fop::Mknod { entry: at(ROOT, name), mode: 0o101000, rdev: 0, umask: 0, xdata };
    wires[from].submit(&Context::root(), linkto).await.unwrap();
}

#[test]
fn a_file_that_is_being_moved_is_changed_in_both_places() {
    use ladrillo_translator::iatt::SetattrValid;
    use ladrillo_translator::{Context, Iatt, Translator, Value};
    run(async {
        let (bricks, volume) = fresh(3).await;
        let name = name_on(&bricks, "/", 0, "a");
        let path = format!("/{name}");
        let file = volume.create(ROOT, &name).await.unwrap();
        let gfid = file.gfid;
        volume.write(file, "before").await.unwrap();
        // As rebalance begins: the copy, empty so far, and the marks on what is copied.
        let wires = bricks.connect();
        let mknod = Fop::Mknod { entry: at(ROOT, &name), mode: 0o103644, rdev: 0, umask: 0, xdata: req(gfid) };
        wires[2].submit(&Context::root(), mknod).await.unwrap();
        let linkto = "trusted.glusterfs.dht.linkto";
        let xattrs = Dict::new().with(linkto, Value::Ptr("v-client-2\0".into()));
        let fop = Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() };
        wires[0].submit(&Context::root(), fop).await.unwrap();
        let iatt = Box::new(Iatt { mode: 0o3644, ..Iatt::default() });
        let valid = SetattrValid(SetattrValid::MODE);
        let fop = Fop::Setattr { gfid, iatt, valid, xdata: Dict::new() };
        wires[0].submit(&Context::root(), fop).await.unwrap();

        volume.write(file, "during").await.unwrap();
        for brick in [0, 2] {
            assert_eq!(node(&bricks, brick, &path).unwrap().data, "during", "{brick}");
        }
        volume.ask(Fop::Truncate { gfid, size_bytes: 3, xdata: Dict::new() }).await.unwrap();
        for brick in [0, 2] {
            assert_eq!(node(&bricks, brick, &path).unwrap().data, "dur", "{brick}");
        }
        volume.ask(Fop::Release { file }).await.unwrap();
        assert!(bricks.disks.iter().all(|disk| disk.open_count() == 0));
        let file = File { gfid, fd: None };
        // Half a change is no success.
        volume.wires[2].cut();
        assert_eq!(code(volume.write(file, "half").await), ENOTCONN);
        volume.wires[2].mend();
        // Given up: the copy goes.
        let unlink = Fop::Unlink { entry: at(ROOT, &name), flags: 0, xdata: Dict::new() };
        wires[2].submit(&Context::root(), unlink).await.unwrap();
        volume.write(file, "after").await.unwrap();
        assert_eq!(node(&bricks, 0, &path).unwrap().data, "after");
        // The same bits without the xattr are an application's.
        let fop = Fop::Removexattr { gfid, name: linkto.into(), xdata: Dict::new() };
        wires[0].submit(&Context::root(), fop).await.unwrap();
        volume.write(file, "AFTER").await.unwrap();
    });
}

#[test]
fn a_write_to_what_is_a_linkto_file_now_does_not_succeed_while_the_file_is_out_of_reach() {
    run(async {
        let (bricks, volume) = fresh(2).await;
        let name = name_on(&bricks, "/", 0, "a");
        let gfid = volume.file(ROOT, &name).await.unwrap();
        leave_linkto(&bricks, &name, gfid, 0, 1).await;
        volume.wires[1].cut();
        assert_eq!(code(volume.write(File { gfid, fd: None }, "lost?").await), ENOTCONN);
        volume.wires[1].mend();
        volume.write(File { gfid, fd: None }, "found").await.unwrap();
        assert_eq!(node(&bricks, 1, &format!("/{name}")).unwrap().data, "found");
    });
}

#[test]
fn an_unlinked_file_is_there_until_it_is_closed_whatever_is_forgotten() {
    run(async {
        let (bricks, volume) = fresh(2).await;
        let name = name_on(&bricks, "/", 1, "a");
        let file = volume.create(ROOT, &name).await.unwrap();
        volume.unlink(ROOT, &name).await.unwrap();
        let forget = || {
            let event = ladrillo_translator::Event::Invalidate { gfid: file.gfid, flags: 0 };
            volume.wires[0].tell(event);
        };
        forget();
        volume.write(file, "still here").await.unwrap();
        forget();
        let iatt = match volume.ask(Fop::Fstat { file, xdata: Dict::new() }).await.unwrap() {
            Reply::Iatt { iatt, .. } => *iatt,
            reply => panic!("{reply:?}"),
        };
        assert_eq!(iatt.size_bytes, 10);
        forget();
        let valid = ladrillo_translator::iatt::SetattrValid(ladrillo_translator::iatt::SetattrValid::MODE);
        volume.ask(Fop::Fsetattr { file, iatt: Box::new(iatt), valid, xdata: Dict::new() }).await.unwrap();
        volume.ask(Fop::Release { file }).await.unwrap();
        forget();
        assert_eq!(code(volume.write(file, "gone").await), ESTALE);
    });
}

#[test]
fn statfs_is_the_sum() {
    run(async {
        let (_, volume) = fresh(3).await;
        match volume.ask(Fop::Statfs { gfid: ROOT, xdata: Dict::new() }).await.unwrap() {
            Reply::Statfs { statfs, .. } => {
                assert_eq!((statfs.blocks, statfs.blocks_available), (3 << 28, 3 << 27));
            }
            reply => panic!("{reply:?}"),
        }
    });
}

#[test]
fn options_change_while_it_runs() {
    use ladrillo_translator::Translator;
    run(async {
        let (bricks, volume) = fresh(3).await;
        let directory = volume.mkdir(ROOT, "d").await.unwrap();
        let name = name_on(&bricks, "/d", 2, "stray");
        let gfid = Gfid::random();
        let mknod = Fop::Mknod { entry: at(directory, &name), mode: 0o100644, rdev: 0, umask: 0, xdata: req(gfid) };
        bricks.connect()[0].submit(&ladrillo_translator::Context::root(), mknod).await.unwrap();
        assert_eq!(code(volume.lookup(directory, &name).await), ENOENT);
        assert!(volume.distribute.reconfigure(&Options::new().with("lookup-optimize", "off")).unwrap());
        assert_eq!(volume.lookup(directory, &name).await.unwrap().gfid, gfid);
        assert!(volume.distribute.reconfigure(&Options::new().with("min-free-disk", "much")).is_err());
        // Other names of the xattrs make another volume of it.
        assert!(!volume.distribute.reconfigure(&Options::new().with("xattr-name", "trusted.other")).unwrap());
    });
}

#[test]
fn a_name_can_say_where_its_file_is_to_be() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let plain = name_on(&bricks, "/", 0, "f");
        let pinned = format!("{plain}@v-dht:v-client-2");
        assert_eq!(code(volume.lookup(ROOT, &pinned).await), ENOENT);
        let file = volume.create(ROOT, &pinned).await.unwrap();
        volume.write(file, "here").await.unwrap();
        assert_eq!(places(&bricks, &format!("/{plain}")), (vec![2], vec![(0, "v-client-2".to_owned())]));
        assert_eq!(volume.lookup(ROOT, &plain).await.unwrap().gfid, file.gfid);
        assert_eq!(volume.lookup(ROOT, &pinned).await.unwrap().gfid, file.gfid);
        // Anything else is a name like others.
        for name in ["f@v-dht:elsewhere", "f@v-client-2", "@v-dht:v-client-2", "a@b"] {
            volume.create(ROOT, name).await.unwrap();
            assert!(volume.names(ROOT).await.contains(&name.to_owned()), "{name}");
        }
    });
}
