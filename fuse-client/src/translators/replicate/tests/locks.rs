//! Applications' locks, and bricks that come and go.

use std::time::Duration;

use futures::FutureExt;
use ladrillo_translator::error::errno::{EAGAIN, EBADF, ENOTCONN};
use ladrillo_translator::fop::{File, Flock, LockCmd, LockType};
use ladrillo_translator::option::Options;
use ladrillo_translator::{Context, Dict, Fop, FopResult, Gfid, LockOwner, Translator};

use super::bench::{Bricks, Client, bricks, pass, run};

const SETTLE: Duration = Duration::from_secs(12);

fn lk(file: File, kind: LockType, cmd: LockCmd, start: u64, len: u64) -> Fop {
    let flock = Flock { kind, whence: 0, start, len, pid: 1, owner: LockOwner::default() };
    Fop::Lk { file, cmd, flock, xdata: Dict::new() }
}

fn owner(number: u64) -> Context {
    Context::root().with_lock_owner(LockOwner::from_u64(number))
}

async fn set(client: &Client, who: u64, file: File, kind: LockType) -> FopResult {
    client.replicate.submit(&owner(who), lk(file, kind, LockCmd::Set, 0, 0)).await
}

/// The locks that applications hold on each brick.
fn held(world: &Bricks) -> Vec<usize> {
    let of = |locks: &std::sync::Arc<ladrillo_translator::locks::Locks>| {
        locks.dump().iter().filter(|lock| lock.domain.is_none() && lock.granted).count()
    };
    world.locks.iter().map(of).collect()
}

/// The file, opened by another client.
async fn open(client: &Client, gfid: Gfid, fd: u64) -> File {
    let fd = ladrillo_translator::FdId(fd);
    client.ask(Fop::Open { gfid, flags: libc::O_RDWR as u32, fd, xdata: Dict::new() }).await.unwrap();
    File { gfid, fd: Some(fd) }
}

#[test]
fn a_lock_outlives_all_bricks_being_restarted_one_by_one() {
    let world = bricks(3);
    let (one, two) = (world.client(Options::new()), world.client(Options::new()));
    run(async {
        let file = one.create(Gfid::ROOT, "f").await.unwrap();
        let theirs = open(&two, file.gfid, 77).await;
        set(&one, 5, file, LockType::Write).await.unwrap();
        for brick in 0..3 {
            one.wires[brick].cut();
            two.wires[brick].cut();
            assert_eq!(set(&two, 6, theirs, LockType::Write).await.unwrap_err().errno, EAGAIN);
            one.wires[brick].mend();
            two.wires[brick].mend();
            pass(SETTLE).await;
            assert_eq!(held(&world), [1, 1, 1], "after brick {brick} is back");
        }
        assert_eq!(set(&two, 6, theirs, LockType::Write).await.unwrap_err().errno, EAGAIN);
        set(&one, 5, file, LockType::Unlock).await.unwrap();
        assert_eq!(held(&world), [0, 0, 0]);
        set(&two, 6, theirs, LockType::Write).await.unwrap();
    });
}

#[test]
fn what_was_unlocked_while_a_brick_was_away_is_not_locked_again() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        let part = |kind, start, len| client.replicate.submit(owner_5(), lk(file, kind, LockCmd::Set, start, len));
        part(LockType::Write, 0, 100).await.unwrap();
        client.wires[1].cut();
        part(LockType::Unlock, 20, 10).await.unwrap();
        client.wires[1].mend();
        pass(SETTLE).await;
        let ranges = |brick: usize| {
            let mut all: Vec<String> = world.locks[brick].dump().into_iter().map(|lock| lock.what).collect();
            all.sort();
            all
        };
        assert_eq!(ranges(1), ranges(0));
        assert_eq!(held(&world), [2, 2, 2]);
        // Closing the file ends it everywhere, and for good.
        client.wires[2].cut();
        let flush = Fop::Flush { file, xdata: Dict::new() };
        client.replicate.submit(owner_5(), flush).await.unwrap();
        client.wires[2].mend();
        pass(SETTLE).await;
        assert_eq!(held(&world), [0, 0, 0]);
        // So does releasing what holds a flock(2).
        part(LockType::Read, 0, 0).await.unwrap();
        client.wires[0].cut();
        client.replicate.submit(owner_5(), Fop::Release { file }).await.unwrap();
        pass(SETTLE).await;
        client.wires[0].mend();
        pass(SETTLE).await;
        assert_eq!(held(&world)[0], 0);
    });
}

fn owner_5() -> &'static Context {
    static OWNER: std::sync::LazyLock<Context> = std::sync::LazyLock::new(|| owner(5));
    &OWNER
}

#[test]
fn a_brick_on_which_somebody_else_was_faster_gets_the_lock_when_that_one_gives_up() {
    let world = bricks(3);
    let (one, two) = (world.client(Options::new()), world.client(Options::new()));
    run(async {
        let file = one.create(Gfid::ROOT, "f").await.unwrap();
        let theirs = open(&two, file.gfid, 77).await;
        set(&one, 5, file, LockType::Write).await.unwrap();
        one.wires[0].cut();
        // Waits on the second brick, and has the first one.
        let waiter = owner(6);
        let mut wait =
            Box::pin(two.replicate.submit(&waiter, lk(theirs, LockType::Write, LockCmd::SetWait, 0, 0)).fuse());
        let nap = Box::pin(pass(SETTLE));
        assert!(matches!(futures::future::select(&mut wait, nap).await, futures::future::Either::Right(_)));
        one.wires[0].mend();
        pass(SETTLE).await;
        assert_eq!(held(&world), [1, 1, 1]);
        drop(wait);
        set(&one, 5, file, LockType::Unlock).await.unwrap();
        pass(SETTLE).await;
        assert_eq!(held(&world), [0, 0, 0], "who waited is gone");
    });
}

#[test]
fn strict_locks_end_with_their_quorum_and_lenient_ones_are_taken_again() {
    for strict in [false, true] {
        let world = bricks(3);
        let client = world.client(Options::new().with("strict-locks", if strict { "on" } else { "off" }));
        run(async {
            let file = client.create(Gfid::ROOT, "f").await.unwrap();
            let other = client.create(Gfid::ROOT, "g").await.unwrap();
            set(&client, 5, file, LockType::Write).await.unwrap();
            for brick in 0..2 {
                client.wires[brick].cut();
            }
            for brick in 0..2 {
                client.wires[brick].mend();
            }
            pass(SETTLE).await;
            client.write(other, 0, b"x").await.unwrap();
            match strict {
                true => {
                    assert_eq!(client.write(file, 0, b"x").await.unwrap_err().errno, EBADF);
                    assert_eq!(held(&world), [0, 0, 1], "its file is still to be closed");
                    client.replicate.submit(owner_5(), Fop::Release { file }).await.unwrap();
                    pass(SETTLE).await;
                    assert_eq!(held(&world), [0, 0, 0]);
                }
                false => {
                    client.write(file, 0, b"x").await.unwrap();
                    assert_eq!(held(&world), [1, 1, 1]);
                }
            }
        });
    }
}

#[test]
fn a_lock_that_another_graph_has_now_is_not_taken_again_and_not_given_up() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        set(&client, 5, file, LockType::Write).await.unwrap();
        let mut forget = lk(file, LockType::Unlock, LockCmd::Set, 0, 0);
        if let Some(xdata) = forget.xdata_mut() {
            xdata.set_int(crate::translators::held::HANDED_OVER, 1);
        }
        client.replicate.submit(owner_5(), forget).await.unwrap();
        assert_eq!(held(&world), [1, 1, 1]);
        client.wires[0].cut();
        client.wires[0].mend();
        pass(SETTLE).await;
        assert_eq!(held(&world), [0, 1, 1]);
    });
}

#[test]
fn what_is_closed_without_a_quorum_is_not_locked_any_more() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        set(&client, 5, file, LockType::Write).await.unwrap();
        client.wires[1].cut();
        client.wires[2].cut();
        let flush = Fop::Flush { file, xdata: Dict::new() };
        assert_eq!(client.replicate.submit(&owner(5), flush).await.unwrap_err().errno, ENOTCONN);
        assert_eq!(held(&world), [0, 0, 0], "the brick that is left was told");
        client.wires[1].mend();
        client.wires[2].mend();
        pass(SETTLE).await;
        assert_eq!(held(&world), [0, 0, 0], "and the others are not asked for it again");
    });
}
