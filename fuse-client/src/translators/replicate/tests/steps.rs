//! How few messages operations take, and what happens where a message of several steps is done on some bricks only.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::error::errno::{EAGAIN, EEXIST, EIO, ENOENT, ETIMEDOUT};
use ladrillo_translator::fop::{EntrylkCmd, Flock, LockCmd, LockType};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::option::Options;
use ladrillo_translator::{Context, Dict, Fop, FopResult, Gfid, Iatt, LockOwner, Reply, Translator, Value};

use super::bench::{Bricks, Client, at, bricks, pass, run};

const SETTLE: Duration = Duration::from_secs(3);

/// Messages to all bricks since this was last asked.
fn messages(client: &Client) -> u64 {
    client.wires.iter().map(|wire| wire.messages.swap(0, Ordering::Relaxed)).sum()
}

fn chmod(gfid: Gfid, mode: u32) -> Fop {
    let iatt = Box::new(Iatt { mode, ..Iatt::default() });
    Fop::Setattr { gfid, iatt, valid: SetattrValid(SetattrValid::MODE), xdata: Dict::new() }
}

fn unlink(name: &str) -> Fop {
    Fop::Unlink { entry: at(Gfid::ROOT, name), flags: 0, xdata: Dict::new() }
}

/// Takes or releases, for another client, the lock that names or inodes are changed under, on one brick.
async fn foreign_lock(world: &Bricks, brick: usize, what: Result<&str, (Gfid, u64)>, lock: bool) -> FopResult {
    let context = Context::root().with_client(ladrillo_translator::ClientId(999_999));
    let context = context.with_lock_owner(LockOwner::from_u64(1));
    let (domain, xdata) = (Bytes::from_static(b"v-replicate-0"), Dict::new());
    let fop = match what {
        Ok(name) => Fop::Entrylk {
            gfid: Gfid::ROOT,
            domain,
            name: Some(Bytes::copy_from_slice(name.as_bytes())),
            cmd: if lock { EntrylkCmd::TryLock } else { EntrylkCmd::Unlock },
            kind: LockType::Write,
            xdata,
        },
        Err((gfid, start)) => {
            let kind = if lock { LockType::Write } else { LockType::Unlock };
            let flock = Flock { kind, whence: 0, start, len: 0, pid: 0, owner: LockOwner::default() };
            Fop::Inodelk { gfid, domain, cmd: LockCmd::Set, flock, xdata }
        }
    };
    world.locks[brick].submit(&context, fop).await
}

/// Lets go, after `millis`, of what another client holds.
async fn held_for(world: &Bricks, brick: usize, what: Result<&str, (Gfid, u64)>, millis: u64) {
    pass(Duration::from_millis(millis)).await;
    foreign_lock(world, brick, what, false).await.unwrap();
}

fn agree(world: &Bricks) {
    assert_eq!(world.differences(), Vec::<String>::new());
    assert_eq!(world.marks(), Vec::<String>::new());
    for locks in &world.locks {
        assert_eq!(locks.counts().granted, 0);
    }
}

#[test]
fn operations_take_few_messages() {
    for (together, expected) in [(true, [3, 6, 3, 3, 3, 3, 6, 6]), (false, [6, 9, 3, 6, 6, 6, 6, 6])] {
        let world = bricks(3);
        let client = world.client(Options::new());
        client.wires.iter().for_each(|wire| wire.together.store(together, Ordering::SeqCst));
        let counts = run(async {
            pass(SETTLE).await;
            messages(&client);
            let mut counts = Vec::new();
            let file = client.create(Gfid::ROOT, "f").await.unwrap();
            counts.push(messages(&client));
            client.write(file, 0, b"hello").await.unwrap();
            counts.push(messages(&client));
            client.write(file, 5, b"hello").await.unwrap();
            counts.push(messages(&client));
            client.ask(chmod(file.gfid, 0o600)).await.unwrap();
            counts.push(messages(&client));
            let xattrs = Dict::new().with("user.a", Value::Ptr(Bytes::from_static(b"1")));
            client.ask(Fop::Setxattr { gfid: file.gfid, xattrs, flags: 0, xdata: Dict::new() }).await.unwrap();
            counts.push(messages(&client));
            client.mkdir(Gfid::ROOT, "d").await.unwrap();
            counts.push(messages(&client));
            let (from, to) = (at(Gfid::ROOT, "f"), at(Gfid::ROOT, "g"));
            let rename = Fop::Link { gfid: file.gfid, entry: to, xdata: Dict::new() };
            client.ask(rename).await.unwrap();
            counts.push(messages(&client));
            client.ask(Fop::Unlink { entry: from, flags: 0, xdata: Dict::new() }).await.unwrap();
            counts.push(messages(&client));
            client.ask(Fop::Release { file }).await.unwrap();
            pass(SETTLE).await;
            counts
        });
        println!("{together}: {counts:?}");
        // Of stock bricks the unlocks are messages, some of which go beside the next operation.
        let fits = |(count, expected): (&u64, &u64)| if together { count == expected } else { count >= expected };
        assert!(counts.iter().zip(&expected).all(fits), "{together}: {counts:?}");
        agree(&world);
    }
}

#[test]
fn a_name_that_is_locked_on_one_brick_is_made_when_it_is_free() {
    for together in [true, false] {
        let world = bricks(3);
        let client = world.client(Options::new());
        client.wires.iter().for_each(|wire| wire.together.store(together, Ordering::SeqCst));
        run(async {
            for brick in 0..3 {
                let name = format!("file{brick}");
                foreign_lock(&world, brick, Ok(&name), true).await.unwrap();
                let create = client.create(Gfid::ROOT, &name);
                let (file, ()) = futures::join!(create, held_for(&world, brick, Ok(&name), 50));
                client.write(file.unwrap(), 0, b"x").await.unwrap();
                let name = format!("dir{brick}");
                foreign_lock(&world, brick, Ok(&name), true).await.unwrap();
                let mkdir = client.mkdir(Gfid::ROOT, &name);
                let (made, ()) = futures::join!(mkdir, held_for(&world, brick, Ok(&name), 50));
                assert_eq!(client.lookup(Gfid::ROOT, &name).await.unwrap(), made.unwrap());
            }
            pass(SETTLE).await;
        });
        agree(&world);
    }
}

#[test]
fn what_was_made_beside_a_foreign_lock_is_undone() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        foreign_lock(&world, 2, Ok("f"), true).await.unwrap();
        let create = client.create(Gfid::ROOT, "f");
        let look = async {
            // The first attempt is over, the transaction waits for the lock.
            pass(Duration::from_millis(20)).await;
            let count = world.disks.iter().filter(|disk| format!("{:?}", disk.snapshot()).contains("\"f\"")).count();
            // The holder makes the name its own.
            let xdata = Dict::new().with("gfid-req", Value::Gfid(Gfid([5; 16])));
            let make = Fop::Mknod { entry: at(Gfid::ROOT, "f"), mode: 0o100644, rdev: 0, umask: 0, xdata };
            for locks in &world.locks {
                locks.submit(&Context::root(), make.clone()).await.unwrap();
            }
            foreign_lock(&world, 2, Ok("f"), false).await.unwrap();
            count
        };
        let (created, count) = futures::join!(create, look);
        assert_eq!(count, 0);
        // Not exclusive: it opens what the other has made.
        created.unwrap();
        assert_eq!(client.lookup(Gfid::ROOT, "f").await.unwrap(), Gfid([5; 16]));
        assert_eq!(client.mkdir(Gfid::ROOT, "f").await.unwrap_err().errno, EEXIST);
        pass(SETTLE).await;
    });
    assert_eq!(world.differences(), Vec::<String>::new());
    assert_eq!(world.locks.iter().map(|locks| locks.counts().granted).sum::<usize>(), 0);
}

#[test]
fn a_name_that_two_want_is_made_once_and_leaves_all_directories_the_same_times() {
    for (lead, first) in (0..40).flat_map(|lead| [(lead, 0), (lead, 1)]) {
        let world = bricks(3);
        let clients = [world.client(Options::new()), world.client(Options::new())];
        for (number, client) in clients.iter().enumerate() {
            for (brick, wire) in client.wires.iter().enumerate() {
                // Each is nearer to other bricks.
                *wire.latency.lock() = Duration::from_micros([[50, 50, 170], [110, 110, 50]][number][brick]);
            }
        }
        let results = run(async {
            pass(SETTLE).await;
            let make = async |client: &Client| {
                // Times are the caller's, as a mount gives them.
                let context = Context { birth: client.replicate.runtime.wall_clock(), ..Context::root() };
                let xdata = Dict::new().with("gfid-req", Value::Gfid(Gfid::random()));
                let mkdir = Fop::Mkdir { entry: at(Gfid::ROOT, "d"), mode: 0o755, umask: 0, xdata };
                client.replicate.submit(&context, mkdir).await
            };
            let one = make(&clients[first]);
            let two = async {
                pass(Duration::from_micros(lead * 5)).await;
                make(&clients[1 - first]).await
            };
            let results = futures::join!(one, two);
            pass(SETTLE).await;
            [results.0, results.1]
        });
        assert_eq!(results.iter().filter(|made| made.is_ok()).count(), 1, "{lead}: {results:?}");
        agree(&world);
        let times: Vec<_> = world.disks.iter().map(|disk| disk.directory_times()).collect();
        assert!(times.windows(2).all(|pair| pair[0] == pair[1]), "{lead}: {times:?}");
    }
}

#[test]
fn a_foreign_name_on_one_brick_is_healed_away() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let xdata = Dict::new().with("gfid-req", Value::Gfid(Gfid([5; 16])));
        let make = Fop::Mknod { entry: at(Gfid::ROOT, "d"), mode: 0o100644, rdev: 0, umask: 0, xdata };
        world.locks[1].submit(&Context::root(), make).await.unwrap();
        let made = client.mkdir(Gfid::ROOT, "d").await.unwrap();
        pass(SETTLE).await;
        assert_eq!(client.lookup(Gfid::ROOT, "d").await.unwrap(), made);
        // The brick that has another is accused on the others.
        let accusers = world.marks().iter().filter(|mark| mark.contains("trusted.afr.v-client-1")).count();
        assert!(accusers >= 2, "{:?}", world.marks());
    });
}

#[test]
fn a_brick_lost_on_the_way_is_accused() {
    for lost in ["ENTRYLK", "MKDIR"] {
        let world = bricks(3);
        let client = world.client(Options::new());
        run(async {
            client.wires[2].lose.lock().push((lost, ETIMEDOUT));
            let made = client.mkdir(Gfid::ROOT, "d").await.unwrap();
            client.wires[2].lose.lock().clear();
            assert_eq!(client.lookup(Gfid::ROOT, "d").await.unwrap(), made);
            pass(SETTLE).await;
        });
        let accusers = world.marks().iter().filter(|mark| mark.contains("trusted.afr.v-client-2")).count();
        assert!(accusers >= 2, "{lost}: {:?}", world.marks());
        assert_eq!(world.locks.iter().map(|locks| locks.counts().granted).sum::<usize>(), 0, "{lost}");
    }
}

#[test]
fn attributes_that_are_locked_on_one_brick_change_everywhere() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        let lock = Err((file.gfid, i64::MAX as u64 - 1));
        foreign_lock(&world, 1, lock, true).await.unwrap();
        let change = client.ask(chmod(file.gfid, 0o640));
        let (changed, ()) = futures::join!(change, held_for(&world, 1, lock, 50));
        changed.unwrap();
        pass(SETTLE).await;
        // A change that fails in the end is left to the healer where it was begun.
        foreign_lock(&world, 1, lock, true).await.unwrap();
        let change = client.ask(chmod(file.gfid, 0o604));
        let cut = async {
            pass(Duration::from_millis(20)).await;
            client.wires[2].cut();
            client.wires[1].cut();
        };
        let (changed, ()) = futures::join!(change, cut);
        changed.unwrap_err();
        foreign_lock(&world, 1, lock, false).await.unwrap();
    });
    assert!(world.marks().iter().any(|mark| mark.starts_with("0: ") && mark.contains("dirty")), "{:?}", world.marks());
}

#[test]
fn a_write_that_meets_a_lock_on_one_brick_waits_for_all_of_them() {
    for brick in 0..3 {
        let world = bricks(3);
        let client = world.client(Options::new());
        run(async {
            let file = client.create(Gfid::ROOT, "f").await.unwrap();
            let lock = Err((file.gfid, 0));
            foreign_lock(&world, brick, lock, true).await.unwrap();
            let write = client.write(file, 0, b"written");
            let see = async {
                pass(Duration::from_millis(20)).await;
                // Nothing is marked without a lock: a healer would take that for a dead writer's.
                assert_eq!(world.marks(), Vec::<String>::new());
                foreign_lock(&world, brick, lock, false).await.unwrap();
            };
            let (written, ()) = futures::join!(write, see);
            written.unwrap();
            let marks = world.marks();
            assert!(
                marks.len() == 3 && marks.iter().all(|mark| mark.contains("\\x01\\0\\0\\0\\0\\0\\0\\0\\0")),
                "{marks:?}"
            );
            pass(SETTLE).await;
            assert_eq!(client.read(file.gfid).await.unwrap(), b"written");
        });
        agree(&world);
    }
}

#[test]
fn a_refusal_by_all_is_the_answer_of_steps_too() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        client.mkdir(Gfid::ROOT, "d").await.unwrap();
        assert_eq!(client.mkdir(Gfid::ROOT, "d").await.unwrap_err().errno, EEXIST);
        assert_eq!(client.ask(unlink("none")).await.unwrap_err().errno, ENOENT);
        for wire in &client.wires {
            wire.refuse.lock().push(("MKDIR", EIO));
        }
        assert_eq!(client.mkdir(Gfid::ROOT, "e").await.unwrap_err().errno, EIO);
        pass(SETTLE).await;
    });
    agree(&world);
}

#[test]
fn an_unlock_that_waits_goes_at_once_when_somebody_wants_it() {
    let world = bricks(3);
    let client = world.client(Options::new());
    let other = world.client(Options::new());
    run(async {
        client.mkdir(Gfid::ROOT, "d").await.unwrap();
        assert_eq!(foreign_lock(&world, 0, Ok("d"), true).await.unwrap_err().errno, EAGAIN);
        // Another client's transaction does not wait out the millisecond.
        let before = client.replicate.runtime.now();
        assert!(matches!(
            other.ask(chmod(Gfid::ROOT, 0o755)).await.unwrap(),
            Reply::PrePost { .. } | Reply::Done { .. } | Reply::Iatt { .. }
        ));
        other.ask(Fop::Rmdir { entry: at(Gfid::ROOT, "d"), flags: 0, xdata: Dict::new() }).await.unwrap();
        assert!(client.replicate.runtime.now() - before < Duration::from_millis(1));
        pass(SETTLE).await;
    });
    agree(&world);
}

#[test]
fn files_that_are_closed_together_share_their_messages() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        pass(SETTLE).await;
        messages(&client);
        let before = client.replicate.runtime.now();
        for number in 0..32 {
            let file = client.create(Gfid::ROOT, &format!("f{number}")).await.unwrap();
            client.write(file, 0, b"small").await.unwrap();
            client.ask(Fop::Flush { file, xdata: Dict::new() }).await.unwrap();
            client.ask(Fop::Release { file }).await.unwrap();
        }
        assert_eq!(client.replicate.runtime.now(), before, "nothing is waited for");
        pass(SETTLE).await;
        let count = messages(&client);
        assert!(count <= 32 * 9 + 2 * 6 + 12, "{count}");
    });
    let synced = client.wires[0].log.lock().iter().filter(|kind| *kind == "FSYNC").count();
    assert_eq!(synced, 32);
    agree(&world);
}

#[test]
fn a_rename_takes_two_trips_unless_it_replaces_a_directory() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        pass(SETTLE).await;
        for name in ["a", "b"] {
            let file = client.create(Gfid::ROOT, name).await.unwrap();
            client.ask(Fop::Release { file }).await.unwrap();
        }
        for name in ["d", "e"] {
            client.mkdir(Gfid::ROOT, name).await.unwrap();
        }
        pass(SETTLE).await;
        let rename = |from: &str, to: &str| Fop::Rename {
            from: at(Gfid::ROOT, from),
            to: at(Gfid::ROOT, to),
            xdata: Dict::new(),
        };
        for (from, to, most) in [("a", "c", 6), ("c", "b", 6), ("d", "e", 15)] {
            messages(&client);
            client.ask(rename(from, to)).await.unwrap();
            let count = messages(&client);
            assert!(count <= most, "{from} {to}: {count}");
            pass(SETTLE).await;
        }
        // With a name locked elsewhere it waits.
        foreign_lock(&world, 1, Ok("b"), true).await.unwrap();
        let (renamed, ()) = futures::join!(client.ask(rename("b", "x")), held_for(&world, 1, Ok("b"), 50));
        renamed.unwrap();
        pass(SETTLE).await;
    });
    agree(&world);
}
