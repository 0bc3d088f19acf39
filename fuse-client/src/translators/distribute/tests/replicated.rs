//! Distribute over replica sets: six bricks, two sets.

use std::time::Duration;

use ladrillo_translator::error::errno::{ENOENT, ENOTCONN};
use ladrillo_translator::option::Options;
use ladrillo_translator::{Dict, Fop, Gfid, Value};

use super::bench::*;
use crate::translators::distribute::layout::DiskPiece;
use crate::translators::replicate::tests::bench::{Bricks, bricks};

const ROOT: Gfid = Gfid::ROOT;

async fn world() -> (Bricks, Volume) {
    let bricks = bricks(6);
    let volume = replicated(&bricks, Options::new());
    volume.root().await;
    (bricks, volume)
}

/// Which sets have data at a path, and which linkto files: every brick of a set the same.
fn sets(bricks: &Bricks, path: &str) -> (Vec<usize>, Vec<usize>) {
    let (data, links) = places(bricks, path);
    let links: Vec<usize> = links.into_iter().map(|(brick, _)| brick).collect();
    let whole = |bricks: Vec<usize>| -> Vec<usize> {
        let sets: Vec<usize> = (0..2).filter(|set| bricks.contains(&(set * 3))).collect();
        let expected: Vec<usize> = sets.iter().flat_map(|set| set * 3..set * 3 + 3).collect();
        assert_eq!(bricks, expected, "{path}: the bricks of a set differ");
        sets
    };
    (whole(data), whole(links))
}

#[test]
fn files_are_on_one_set_and_renamed_names_lead_there() {
    run(async {
        let (bricks, volume) = world().await;
        let old = name_on(&bricks, "/", 0, "a");
        let new = name_on(&bricks, "/", 3, "b");
        let gfid = volume.file(ROOT, &old).await.unwrap();
        pass(Duration::from_secs(3)).await;
        assert_eq!(sets(&bricks, &format!("/{old}")), (vec![0], vec![]));
        volume.rename(at(ROOT, &old), at(ROOT, &new)).await.unwrap();
        pass(Duration::from_secs(3)).await;
        assert_eq!(sets(&bricks, &format!("/{new}")), (vec![0], vec![1]));
        assert_eq!(volume.read(gfid).await.unwrap(), old);
        let directory = volume.mkdir(ROOT, "d").await.unwrap();
        assert_eq!(holders(&bricks, "/d"), [0, 1, 2, 3, 4, 5]);
        volume.file(directory, "x").await.unwrap();
        assert_eq!(volume.names(ROOT).await, [new.clone(), "d".to_owned()]);
        volume.unlink(ROOT, &new).await.unwrap();
        assert_eq!(holders(&bricks, &format!("/{new}")), [0; 0]);
        pass(Duration::from_secs(3)).await;
        assert_eq!(bricks.marks(), [""; 0], "nothing is accused");
        assert_eq!(locks_left(&bricks), 0);
    });
}

#[test]
fn a_brick_of_a_set_may_die_and_listings_show_no_linkto_files() {
    run(async {
        let (bricks, volume) = world().await;
        let mut names = Vec::new();
        for n in 0..6 {
            let old = name_on(&bricks, "/", 0, &format!("a{n}-"));
            let new = name_on(&bricks, "/", 3, &format!("b{n}-"));
            volume.file(ROOT, &old).await.unwrap();
            volume.rename(at(ROOT, &old), at(ROOT, &new)).await.unwrap();
            names.push(new);
        }
        names.sort();
        volume.wires[4].cut();
        assert_eq!(volume.names(ROOT).await, names);
        for name in &names {
            assert!(volume.lookup(ROOT, name).await.unwrap().is_regular());
        }
        volume.mkdir(ROOT, "d").await.unwrap();
        // Without its quorum a set is down, and the other goes on.
        volume.wires[5].cut();
        let there = name_on(&bricks, "/", 0, "new");
        volume.file(ROOT, &there).await.unwrap();
        assert_eq!(code(volume.create(ROOT, &name_on(&bricks, "/", 3, "new")).await), ENOTCONN);
        assert_eq!(code(volume.lookup(ROOT, &name_on(&bricks, "/", 0, "none")).await), ENOENT);
        volume.wires[4].mend();
        volume.wires[5].mend();
        volume.create(ROOT, &name_on(&bricks, "/", 3, "new")).await.unwrap();
    });
}

#[test]
fn a_layout_that_changed_is_noticed_through_replicate() {
    run(async {
        let (bricks, volume) = world().await;
        let directory = volume.mkdir(ROOT, "d").await.unwrap();
        volume.file(directory, "before").await.unwrap();
        // The two ranges change places, as a rebalance may do it.
        let key = "trusted.glusterfs.dht";
        let piece = |brick: usize| node(&bricks, brick, "/d").unwrap().xattrs[key.as_bytes()].clone();
        let (one, two) = (piece(0), piece(3));
        assert!(DiskPiece::decode(&one).is_some());
        use ladrillo_translator::{Context, Translator};
        for (brick, wire) in bricks.connect().iter().enumerate() {
            let raw = if brick < 3 { two.clone() } else { one.clone() };
            let xattrs = Dict::new().with(key, Value::Ptr(raw));
            let fop = Fop::Setxattr { gfid: directory, xattrs, flags: 0, xdata: Dict::new() };
            wire.submit(&Context::root(), fop).await.unwrap();
        }
        for n in 0..6 {
            volume.file(directory, &format!("f{n}")).await.unwrap();
            volume.mkdir(directory, &format!("d{n}")).await.unwrap();
        }
        let fresh = replicated(&bricks, Options::new());
        fresh.root().await;
        for n in 0..6 {
            // By the new layout, where a client that knows no other looks first; no linkto files were needed.
            let (data, links) = sets(&bricks, &format!("/d/f{n}"));
            assert_eq!((data.len(), links.len()), (1, 0));
            fresh.lookup(directory, &format!("f{n}")).await.unwrap();
        }
    });
}
