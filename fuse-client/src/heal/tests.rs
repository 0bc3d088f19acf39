//! Heals over in-memory bricks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::fop::{Entry, File};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::option::Options;
use ladrillo_translator::{Dict, Fop, Gfid, Iatt, Value};

use super::decide::{Choice, decide, decide_name};
use super::info::{EntryStatus, info, print};
use super::service::HealService;
use crate::translators::replicate::Sabotage;
use crate::translators::replicate::tests::bench::{Bricks, Client, arbiter_bricks, at, bricks, pass, run};

const SETTLE: Duration = Duration::from_secs(3);

fn service(client: &Client) -> Arc<HealService> {
    HealService::new(client.replicate.clone(), client.replicate.runtime.clone(), |_| true)
}

/// A tree, changed in every way while brick `away` was away.
async fn change_while_away(client: &Client, away: usize) -> File {
    let root = Gfid::ROOT;
    let big = client.create(root, "big").await.unwrap();
    client.write(big, 0, &vec![b'a'; 300_000]).await.unwrap();
    let shrunk = client.create(root, "shrunk").await.unwrap();
    client.write(shrunk, 0, b"long long text").await.unwrap();
    client.create(root, "removed").await.unwrap();
    let old = client.mkdir(root, "old").await.unwrap();
    let inner = client.mkdir(old, "inner").await.unwrap();
    client.create(inner, "leaf").await.unwrap();
    let doomed = client.mkdir(root, "doomed").await.unwrap();
    client.create(doomed, "child").await.unwrap();
    let moved = client.create(old, "moved").await.unwrap();
    client.write(moved, 0, b"moved").await.unwrap();
    pass(SETTLE).await;
    client.wires[away].cut();
    client.write(big, 150_000, b"changed").await.unwrap();
    client.ask(Fop::Ftruncate { file: shrunk, size_bytes: 4, xdata: Dict::new() }).await.unwrap();
    client.ask(Fop::Unlink { entry: at(root, "removed"), flags: 0, xdata: Dict::new() }).await.unwrap();
    let new = client.mkdir(root, "new").await.unwrap();
    let fresh = client.create(new, "fresh").await.unwrap();
    client.write(fresh, 0, b"fresh").await.unwrap();
    client.ask(Fop::Rename { from: at(old, "inner"), to: at(new, "inner"), xdata: Dict::new() }).await.unwrap();
    client.ask(Fop::Rename { from: at(old, "moved"), to: at(root, "moved"), xdata: Dict::new() }).await.unwrap();
    client.ask(Fop::Link { gfid: big.gfid, entry: at(new, "link"), xdata: Dict::new() }).await.unwrap();
    client.ask(Fop::Unlink { entry: at(doomed, "child"), flags: 0, xdata: Dict::new() }).await.unwrap();
    client.ask(Fop::Rmdir { entry: at(root, "doomed"), flags: 0, xdata: Dict::new() }).await.unwrap();
    let xdata = Dict::new().with("gfid-req", Value::Gfid(Gfid::random()));
    let target = Bytes::from_static(b"../elsewhere");
    client.ask(Fop::Symlink { entry: at(new, "symlink"), target, umask: 0, xdata }).await.unwrap();
    let xdata = Dict::new().with("gfid-req", Value::Gfid(Gfid::random()));
    client.ask(Fop::Mknod { entry: at(new, "fifo"), mode: 0o010640, rdev: 0, umask: 0, xdata }).await.unwrap();
    let iatt = Box::new(Iatt { mode: 0o100600, uid: 7, gid: 8, ..Iatt::default() });
    let valid = SetattrValid(SetattrValid::MODE | SetattrValid::UID | SetattrValid::GID);
    client.ask(Fop::Setattr { gfid: shrunk.gfid, iatt, valid, xdata: Dict::new() }).await.unwrap();
    let xattrs = Dict::new().with("user.colour", Value::Ptr(Bytes::from_static(b"red")));
    client.ask(Fop::Setxattr { gfid: big.gfid, xattrs, flags: 0, xdata: Dict::new() }).await.unwrap();
    pass(SETTLE).await;
    big
}

fn assert_healed(world: &Bricks) {
    assert_eq!(world.differences(), Vec::<String>::new());
    assert_eq!(world.marks(), Vec::<String>::new());
    for disk in &world.disks {
        assert_eq!(disk.indexed(), Vec::<Gfid>::new());
    }
    assert!(world.locks.iter().all(|locks| locks.counts().granted == 0));
}

#[test]
fn a_brick_that_was_away_is_brought_up_to_date() {
    for away in 0..3 {
        for granular in ["on", "off"] {
            let world = bricks(3);
            let client = world.client(Options::new().with("granular-entry-heal", granular));
            run(async {
                change_while_away(&client, away).await;
                client.wires[away].mend();
                assert!(service(&client).heal_round().await, "brick {away}");
            });
            assert_healed(&world);
        }
    }
}

#[test]
fn with_an_arbiter_names_and_attributes_are_healed_everywhere_and_contents_where_there_are_any() {
    for away in 0..3 {
        for granular in ["on", "off"] {
            let world = arbiter_bricks();
            let client = world.client(Options::new().with("granular-entry-heal", granular).with("arbiter-count", "1"));
            run(async {
                change_while_away(&client, away).await;
                client.wires[away].mend();
                let writes = client.wires[2].log.lock().iter().filter(|kind| *kind == "WRITE").count();
                assert!(service(&client).heal_round().await, "brick {away}");
                let after = client.wires[2].log.lock().iter().filter(|kind| *kind == "WRITE").count();
                assert_eq!(writes, after, "an arbiter is not copied to");
            });
            let mut snapshots: Vec<_> = world.disks.iter().map(|disk| disk.snapshot()).collect();
            assert_eq!(snapshots[0].differences(&snapshots[1]), Vec::<String>::new());
            let arbiter = &snapshots[2];
            assert!(
                arbiter.nodes.values().all(|node| node.mode & libc::S_IFMT != libc::S_IFREG || node.data.is_empty())
            );
            for snapshot in &mut snapshots {
                for node in snapshot.nodes.values_mut().filter(|node| node.mode & libc::S_IFMT == libc::S_IFREG) {
                    node.data = Default::default();
                }
            }
            assert_eq!(snapshots[0].differences(&snapshots[2]), Vec::<String>::new(), "brick {away} was away");
            assert_eq!(world.marks(), Vec::<String>::new());
            assert!(world.locks.iter().all(|locks| locks.counts().granted == 0));
        }
    }
}

#[test]
fn the_service_heals_by_itself_when_the_brick_is_back() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let service = service(&client);
        service.start();
        pass(SETTLE).await;
        change_while_away(&client, 1).await;
        client.wires[1].mend();
        pass(Duration::from_secs(30)).await;
        assert!(service.progress().healed > 0);
        service.stop();
    });
    assert_healed(&world);
}

#[test]
fn heals_while_writes_go_on() {
    let world = bricks(3);
    let (writer, healer) = (world.client(Options::new()), world.client(Options::new()));
    run(async {
        let big = change_while_away(&writer, 2).await;
        writer.wires[2].mend();
        let service = service(&healer);
        let writes = async {
            for n in 0..200u64 {
                writer.write(big, (n * 7919) % 290_000, format!("write {n}").as_bytes()).await.unwrap();
                if n % 20 == 0 {
                    pass(Duration::from_millis(100)).await;
                }
            }
        };
        futures::join!(writes, service.heal_round());
        pass(SETTLE).await;
        assert!(service.heal_round().await);
    });
    assert_healed(&world);
}

#[test]
fn info_tells_what_is_to_be_healed_and_who_is_away() {
    let world = bricks(3);
    let client = world.client(Options::new());
    let names: Vec<String> = (0..3).map(|n| format!("h{n}:/b")).collect();
    run(async {
        change_while_away(&client, 2).await;
        let backlog = info(&client.replicate, &names).await;
        assert!(backlog[0].count >= 5, "{backlog:?}");
        assert_eq!(backlog[0].count, backlog[1].count);
        assert!(backlog[2].errno.is_some());
        assert!(backlog[0].entries.iter().all(|entry| entry.status == EntryStatus::Pending));
        client.wires[2].mend();
        service(&client).heal_round().await;
        let backlog = info(&client.replicate, &names).await;
        let empty = |host: &str| format!("Brick {host}:/b\nStatus: Connected\nNumber of entries: 0\n\n");
        assert_eq!(print(&backlog), ["h0", "h1", "h2"].map(empty).concat());
    });
}

#[test]
fn split_brain_is_told_and_not_decided() {
    let world = bricks(2);
    let none = || Options::new().with("quorum-type", "none");
    let (one, two) = (world.client(none()), world.client(none()));
    run(async {
        let file = one.create(Gfid::ROOT, "f").await.unwrap();
        pass(SETTLE).await;
        one.wires[0].cut();
        two.wires[1].cut();
        let anonymous = File { gfid: file.gfid, fd: None };
        one.write(anonymous, 0, b"one").await.unwrap();
        two.write(anonymous, 0, b"two").await.unwrap();
        pass(SETTLE).await;
        one.wires[0].mend();
        let service = service(&one);
        assert!(!service.heal_round().await);
        assert!(service.progress().split_brain > 0);
        let backlog = info(&one.replicate, &[]).await;
        assert!(backlog[0].entries.iter().any(|entry| entry.status == EntryStatus::SplitBrain), "{backlog:?}");
    });
    assert_ne!(world.differences(), Vec::<String>::new());
}

#[test]
fn a_create_that_its_client_did_not_finish_is_completed_by_the_next_lookup() {
    let world = bricks(3);
    let (dead, client) = (world.client(Options::new()), world.client(Options::new()));
    run(async {
        // It reached one brick only, and nobody marked anything.
        dead.wires[1].refuse.lock().push(("CREATE", 5));
        dead.wires[2].refuse.lock().push(("CREATE", 5));
        dead.wires[0].refuse.lock().push(("XATTROP", 5));
        dead.create(Gfid::ROOT, "half").await.unwrap_err();
        client.lookup(Gfid::ROOT, "half").await.unwrap();
        service(&client).heal_round().await;
    });
    assert_healed(&world);
}

#[test]
fn planted_bugs_show() {
    let world = bricks(3);
    let client = world.client(Options::new());
    client.replicate.sabotage(Sabotage::HealFromWrongSource);
    run(async {
        let big = change_while_away(&client, 2).await;
        client.wires[2].mend();
        service(&client).heal_round().await;
        assert_ne!(client.read(big.gfid).await.unwrap()[150_000..150_007], *b"changed");
    });
    let world = bricks(3);
    let client = world.client(Options::new());
    client.replicate.sabotage(Sabotage::SkipPostOp);
    run(async {
        change_while_away(&client, 2).await;
        client.wires[2].mend();
        service(&client).heal_round().await;
    });
    assert_ne!(world.differences(), Vec::<String>::new());
}

#[test]
fn split_brain_is_decided_by_the_rule_that_was_chosen_and_by_none_else() {
    for (policy, expected) in [("none", None), ("size", Some("longer")), ("mtime", Some("new"))] {
        let world = bricks(2);
        let client = world.client(Options::new().with("quorum-type", "none").with("favorite-child-policy", policy));
        run(async {
            let file = client.create(Gfid::ROOT, "f").await.unwrap();
            client.write(file, 0, b"old").await.unwrap();
            pass(SETTLE).await;
            for (away, data) in [(0, &b"longer"[..]), (1, b"new")] {
                client.wires[away].cut();
                let anonymous = File { gfid: file.gfid, fd: None };
                client.write(anonymous, 0, data).await.unwrap();
                pass(SETTLE).await;
                client.wires[away].mend();
                pass(SETTLE).await;
            }
            let healed = service(&client).heal_round().await;
            assert_eq!(healed, expected.is_some(), "{policy}");
            match expected {
                Some(data) => assert_eq!(client.read(file.gfid).await.unwrap(), data.as_bytes(), "{policy}"),
                None => assert!(client.read(file.gfid).await.is_err()),
            }
        });
        if expected.is_some() {
            assert_healed(&world);
        }
    }
}

/// Two copies of a file that each missed the other's write.
async fn split(client: &Client, name: &str) -> File {
    let file = client.create(Gfid::ROOT, name).await.unwrap();
    client.write(file, 0, b"old").await.unwrap();
    pass(SETTLE).await;
    for (away, data) in [(0, &b"longer"[..]), (1, b"new")] {
        client.wires[away].cut();
        client.write(File { gfid: file.gfid, fd: None }, 0, data).await.unwrap();
        pass(SETTLE).await;
        client.wires[away].mend();
        pass(SETTLE).await;
    }
    file
}

#[test]
fn a_person_decides_split_brain_of_contents() {
    let cases = [(Choice::Bigger, "longer"), (Choice::LatestMtime, "new"), (Choice::Child(1), "longer")];
    for (choice, expected) in cases {
        let world = bricks(2);
        let client = world.client(Options::new().with("quorum-type", "none"));
        run(async {
            let file = split(&client, "f").await;
            assert!(client.read(file.gfid).await.is_err());
            client.wires[0].cut();
            let refused = decide(&client.replicate, file.gfid, choice).await.unwrap().unwrap_err();
            assert!(refused.starts_with("Failed to obtain replies from all bricks"), "{refused}");
            client.wires[0].mend();
            pass(SETTLE).await;
            assert_eq!(decide(&client.replicate, file.gfid, choice).await, Some(Ok(())), "{choice:?}");
            assert_eq!(client.read(file.gfid).await.unwrap(), expected.as_bytes(), "{choice:?}");
            let again = decide(&client.replicate, file.gfid, choice).await;
            assert_eq!(again, Some(Err("File not in split-brain".to_owned())));
            assert_eq!(decide(&client.replicate, Gfid::random(), choice).await, None);
        });
        assert_healed(&world);
    }
}

#[test]
fn a_person_decides_which_inode_a_name_is() {
    for (choice, expected) in [(Choice::Bigger, 1), (Choice::LatestMtime, 0), (Choice::Child(1), 1)] {
        let world = bricks(2);
        let client = world.client(Options::new().with("quorum-type", "none"));
        run(async {
            let mut made = Vec::new();
            for (away, data) in [(0, &b"longer"[..]), (1, b"new")] {
                client.wires[away].cut();
                let file = client.create(Gfid::ROOT, "f").await.unwrap();
                client.write(file, 0, data).await.unwrap();
                pass(SETTLE).await;
                // Whoever comes back knows nothing of it.
                client.wires[away].mend();
                if away == 0 {
                    client.wires[1].cut();
                }
                pass(SETTLE).await;
                made.push(file.gfid);
            }
            client.wires[1].mend();
            pass(SETTLE).await;
            let entry = Entry { parent: Gfid::ROOT, name: "f".into() };
            assert_eq!(decide_name(&client.replicate, &entry, choice).await, Some(Ok(())), "{choice:?}");
            assert_eq!(decide_name(&client.replicate, &entry, choice).await, None);
            service(&client).heal_round().await;
            // The first was made while child 0 was away: child 1 has it.
            let survivor = if expected == 1 { made[0] } else { made[1] };
            let data = if expected == 1 { &b"longer"[..] } else { b"new" };
            assert_eq!(client.read(survivor).await.unwrap(), data, "{choice:?}");
        });
        assert_healed(&world);
    }
}

#[test]
fn a_mount_shows_one_copy_and_heals_from_it() {
    let world = bricks(2);
    let client = world.client(Options::new().with("quorum-type", "none"));
    let set = |gfid: Gfid, key: &'static str, value: &'static str| {
        let xattrs = Dict::new().with(key, Value::Ptr(Bytes::from_static(value.as_bytes())));
        client.ask(Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() })
    };
    const CHOICE: &str = "replica.split-brain-choice";
    run(async {
        let file = split(&client, "f").await;
        let whole = client.create(Gfid::ROOT, "whole").await.unwrap();
        assert!(set(whole.gfid, CHOICE, "v-client-0").await.is_err(), "it is not in split-brain");
        assert!(set(file.gfid, CHOICE, "nobody").await.is_err());
        let size = || async {
            match client.ask(Fop::Stat { gfid: file.gfid, xdata: Dict::new() }).await.unwrap() {
                ladrillo_translator::Reply::Iatt { iatt, .. } => iatt.size_bytes,
                other => panic!("{other:?}"),
            }
        };
        assert!([3, 6].contains(&size().await), "attributes are shown");
        for (child, data) in [("v-client-0", &b"new"[..]), ("v-client-1", b"longer")] {
            set(file.gfid, CHOICE, child).await.unwrap();
            assert_eq!(size().await, data.len() as u64);
            assert_eq!(client.read(file.gfid).await.unwrap(), data);
        }
        set(file.gfid, CHOICE, "none").await.unwrap();
        assert!(client.read(file.gfid).await.is_err());
        set(file.gfid, "replica.split-brain-choice-timeout", "1").await.unwrap();
        set(file.gfid, CHOICE, "v-client-0").await.unwrap();
        pass(Duration::from_secs(61)).await;
        assert!(client.read(file.gfid).await.is_err(), "the choice is over");
        set(file.gfid, "replica.split-brain-heal-finalize", "v-client-0").await.unwrap();
        assert_eq!(client.read(file.gfid).await.unwrap(), b"new");
        assert!(set(file.gfid, "replica.split-brain-heal-finalize", "v-client-0").await.is_err());
    });
    assert_healed(&world);
}
