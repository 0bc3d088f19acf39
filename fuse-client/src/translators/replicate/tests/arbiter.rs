//! Two copies and an arbiter.

use std::time::Duration;

use ladrillo_translator::error::errno::{EIO, ENOSPC, ENOTCONN};
use ladrillo_translator::fop::File;
use ladrillo_translator::option::Options;
use ladrillo_translator::{Dict, Fop, Gfid, Reply};

use super::bench::{Client, arbiter_bricks, pass, run};

const SETTLE: Duration = Duration::from_secs(3);

fn options() -> Options {
    Options::new().with("arbiter-count", "1")
}

async fn size(client: &Client, gfid: Gfid) -> u64 {
    match client.ask(Fop::Stat { gfid, xdata: Dict::new() }).await.unwrap() {
        Reply::Iatt { iatt, .. } => iatt.size_bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn contents_go_to_the_two_copies_and_come_from_them() {
    let world = arbiter_bricks();
    let client = world.client(options());
    run(async {
        for n in 0..16 {
            let file = client.create(Gfid::ROOT, &format!("f{n}")).await.unwrap();
            client.write(file, 0, b"hello").await.unwrap();
            client.write(file, 5, b" world").await.unwrap();
            // Whatever the read hash says, and with one copy gone too.
            assert_eq!(client.read(file.gfid).await.unwrap(), b"hello world");
            assert_eq!(size(&client, file.gfid).await, 11);
            pass(SETTLE).await;
            client.wires[n % 2].cut();
            assert_eq!(client.read(file.gfid).await.unwrap(), b"hello world");
            assert_eq!(client.lookup(Gfid::ROOT, &format!("f{n}")).await.unwrap(), file.gfid);
            client.wires[n % 2].mend();
            pass(SETTLE).await;
        }
        let copy = client.create(Gfid::ROOT, "copy").await.unwrap();
        let from = client.create(Gfid::ROOT, "from").await.unwrap();
        client.write(from, 0, b"copied").await.unwrap();
        let fop =
            Fop::CopyFileRange { from, from_offset: 0, to: copy, to_offset: 0, len: 6, flags: 0, xdata: Dict::new() };
        if let Ok(Reply::CopyFileRange { copied, .. }) = client.ask(fop).await {
            assert_eq!((copied, client.read(copy.gfid).await.unwrap()), (6, b"copied".to_vec()));
        }
        pass(SETTLE).await;
    });
    assert_eq!(world.marks(), Vec::<String>::new());
}

#[test]
fn the_arbiter_keeps_a_stale_copy_from_being_taken_for_good() {
    let world = arbiter_bricks();
    let client = world.client(options());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        client.write(file, 0, b"one").await.unwrap();
        pass(SETTLE).await;
        client.wires[0].cut();
        client.write(file, 0, b"two").await.unwrap();
        pass(SETTLE).await;
        client.wires[0].mend();
        client.wires[1].cut();
        pass(SETTLE).await;
        // The first brick missed a write, and the arbiter knows; it has no contents itself.
        assert_eq!(client.read(file.gfid).await.unwrap_err().errno, EIO);
        let error = client.write(File { gfid: file.gfid, fd: None }, 0, b"six").await.unwrap_err();
        assert!([ENOTCONN, EIO].contains(&error.errno), "{error}");
        client.wires[1].mend();
        pass(SETTLE).await;
        assert_eq!(client.read(file.gfid).await.unwrap(), b"two");
        // Without the arbiter the two copies are a quorum.
        client.wires[2].cut();
        client.write(file, 0, b"all").await.unwrap();
        assert_eq!(client.read(file.gfid).await.unwrap(), b"all");
        // One copy and no arbiter are none.
        client.wires[0].cut();
        assert_eq!(client.write(file, 0, b"x").await.unwrap_err().errno, ENOTCONN);
    });
}

#[test]
fn what_both_copies_refuse_is_refused_whatever_the_arbiter_says() {
    let world = arbiter_bricks();
    let client = world.client(options());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        for wire in &client.wires[..2] {
            wire.refuse.lock().push(("WRITE", ENOSPC));
        }
        assert_eq!(client.write(file, 0, b"x").await.unwrap_err().errno, ENOSPC);
        pass(SETTLE).await;
    });
    assert_eq!(world.marks(), Vec::<String>::new());
}

#[test]
fn room_is_that_of_the_copies() {
    let world = arbiter_bricks();
    let client = world.client(options());
    run(async {
        client.ask(Fop::Statfs { gfid: Gfid::ROOT, xdata: Dict::new() }).await.unwrap();
    });
    assert!(!client.wires[2].log.lock().iter().any(|kind| kind == "STATFS"));
}
