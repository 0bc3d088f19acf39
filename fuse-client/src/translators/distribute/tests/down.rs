//! A subvolume that is down takes its own files with it and nothing else.

use ladrillo_translator::error::errno::{EEXIST, ENOENT, ENOTCONN};
use ladrillo_translator::option::Options;
use ladrillo_translator::{Context, Dict, Fop, Gfid, Translator};

use super::bench::*;

const ROOT: Gfid = Gfid::ROOT;

#[test]
fn others_go_on() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let names: Vec<String> = (0..3).map(|brick| name_on(&bricks, "/", brick, "f")).collect();
        let mut gfids = Vec::new();
        for name in &names {
            gfids.push(volume.file(ROOT, name).await.unwrap());
        }
        let directory = volume.mkdir(ROOT, "d").await.unwrap();
        volume.wires[1].cut();
        assert_eq!(volume.get(ROOT, "dht.subvol.status").await.unwrap(), "0");
        for brick in [0, 2] {
            assert_eq!(volume.lookup(ROOT, &names[brick]).await.unwrap().gfid, gfids[brick]);
            assert_eq!(volume.read(gfids[brick]).await.unwrap(), names[brick]);
            let name = name_on(&bricks, "/", brick, "new");
            volume.file(ROOT, &name).await.unwrap();
            assert_eq!(code(volume.lookup(ROOT, &name_on(&bricks, "/", brick, "none")).await), ENOENT);
        }
        assert_eq!(code(volume.lookup(ROOT, &names[1]).await), ENOTCONN);
        assert_eq!(code(volume.read(gfids[1]).await), ENOTCONN);
        assert_eq!(code(volume.create(ROOT, &name_on(&bricks, "/", 1, "new")).await), ENOTCONN);
        assert_eq!(code(volume.mkdir(ROOT, &name_on(&bricks, "/", 1, "newdir")).await), ENOTCONN);
        assert_eq!(code(volume.rename(at(ROOT, "d"), at(ROOT, "e")).await), ENOTCONN);
        // The directory itself is there, and so are the files of the others.
        assert_eq!(volume.lookup(ROOT, "d").await.unwrap().gfid, directory);
        let listed = volume.names(ROOT).await;
        assert!(listed.contains(&names[0]) && listed.contains(&names[2]) && listed.contains(&"d".to_owned()));
        assert!(!listed.contains(&names[1]));
        volume.wires[1].mend();
        assert_eq!(volume.lookup(ROOT, &names[1]).await.unwrap().gfid, gfids[1]);
        assert_eq!(volume.names(ROOT).await.len(), 6);
    });
}

#[test]
fn a_directory_made_meanwhile_comes_to_the_one_that_returns() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let name = name_on(&bricks, "/", 0, "d");
        volume.wires[1].cut();
        let gfid = volume.mkdir(ROOT, &name).await.unwrap();
        let path = format!("/{name}");
        assert_eq!(holders(&bricks, &path), [0, 2]);
        let mut files = Vec::new();
        for n in 0..12 {
            files.push((n, volume.file(gfid, &format!("f{n}")).await.unwrap()));
        }
        volume.wires[1].mend();
        volume.lookup(ROOT, &name).await.unwrap();
        assert_eq!(holders(&bricks, &path), [0, 1, 2]);
        for (n, file) in &files {
            assert_eq!(volume.lookup(gfid, &format!("f{n}")).await.unwrap().gfid, *file);
        }
        assert_eq!(volume.names(gfid).await.len(), 12);
        assert_eq!(code(volume.mkdir(ROOT, &name).await), EEXIST);
    });
}

#[test]
fn a_client_that_starts_without_it_sees_the_rest() {
    run(async {
        let (bricks, first) = fresh(3).await;
        let names: Vec<String> = (0..3).map(|brick| name_on(&bricks, "/", brick, "f")).collect();
        for name in &names {
            first.file(ROOT, name).await.unwrap();
        }
        let late = volume(&bricks, Options::new());
        late.wires[2].cut();
        late.root().await;
        assert_eq!(late.lookup(ROOT, &names[0]).await.unwrap().permissions(), 0o644);
        assert_eq!(code(late.lookup(ROOT, &names[2]).await), ENOTCONN);
        assert_eq!(code(late.create(ROOT, &name_on(&bricks, "/", 2, "new")).await), ENOTCONN);
        // It did not take the hole for a broken layout.
        late.wires[2].mend();
        assert_eq!(late.lookup(ROOT, &names[2]).await.unwrap().permissions(), 0o644);
        late.create(ROOT, &name_on(&bricks, "/", 2, "new")).await.unwrap();
    });
}

#[test]
fn a_file_behind_a_linkto_file_is_out_of_reach_and_not_gone() {
    run(async {
        let (bricks, volume) = fresh(2).await;
        let old = name_on(&bricks, "/", 0, "a");
        let new = name_on(&bricks, "/", 1, "b");
        let gfid = volume.file(ROOT, &old).await.unwrap();
        volume.rename(at(ROOT, &old), at(ROOT, &new)).await.unwrap();
        volume.wires[0].cut();
        assert_eq!(code(volume.lookup(ROOT, &new).await), ENOTCONN);
        assert_eq!(code(volume.unlink(ROOT, &new).await), ENOTCONN);
        volume.wires[0].mend();
        assert_eq!(places(&bricks, &format!("/{new}")), (vec![0], vec![(1, "v-client-0".to_owned())]));
        assert_eq!(volume.lookup(ROOT, &new).await.unwrap().gfid, gfid);
    });
}

#[test]
fn one_that_comes_up_while_a_directory_is_looked_at_is_asked_again() {
    run(async {
        let (bricks, first) = fresh(2).await;
        let gfid = first.mkdir(ROOT, "d").await.unwrap();
        let name = name_on(&bricks, "/d", 1, "f");
        let late = volume(&bricks, Options::new());
        late.root().await;
        late.wires[1].cut();
        *late.wires[0].latency.lock() = std::time::Duration::from_millis(10);
        let returns = async {
            pass(std::time::Duration::from_millis(5)).await;
            late.wires[1].mend();
        };
        let fop = Fop::Lookup { gfid, entry: None, xdata: Dict::new() };
        let (looked, ()) = futures::join!(late.ask(fop), returns);
        looked.unwrap();
        late.create(gfid, &name).await.unwrap();
    });
}

#[test]
fn a_linkto_file_that_leads_wrong_stays_while_the_file_may_be_out_of_reach() {
    run(async {
        let (bricks, volume) = fresh(3).await;
        let old = name_on(&bricks, "/", 0, "a");
        let new = name_on(&bricks, "/", 1, "b");
        let gfid = volume.file(ROOT, &old).await.unwrap();
        volume.rename(at(ROOT, &old), at(ROOT, &new)).await.unwrap();
        // It names a subvolume that is up and does not have the file.
        let key = "trusted.glusterfs.dht.linkto";
        let xattrs = Dict::new().with(key, ladrillo_translator::Value::Ptr("v-client-2\0".into()));
        let fop = Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() };
        bricks.connect()[1].submit(&Context::root(), fop).await.unwrap();
        volume.wires[0].cut();
        assert_eq!(code(volume.lookup(ROOT, &new).await), ENOTCONN);
        assert_eq!(holders(&bricks, &format!("/{new}")), [0, 1]);
        let other = super::bench::volume(&bricks, Options::new());
        other.root().await;
        assert_eq!(other.lookup(ROOT, &new).await.unwrap().gfid, gfid);
        assert_eq!(places(&bricks, &format!("/{new}")), (vec![0], vec![(1, "v-client-0".to_owned())]));
    });
}

#[test]
fn the_volume_is_up_while_one_is() {
    run(async {
        let (_, volume) = fresh(2).await;
        let fop = || Fop::Statfs { gfid: ROOT, xdata: Dict::new() };
        for wire in &volume.wires {
            assert_eq!(code(volume.distribute.submit(&Context::root(), fop()).await), 0);
            wire.cut();
        }
        assert_eq!(code(volume.distribute.submit(&Context::root(), fop()).await), ENOTCONN);
        assert_eq!(code(volume.names_or(ROOT).await), ENOTCONN);
    });
}
