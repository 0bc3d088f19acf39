//! The translator over in-memory bricks.

mod arbiter;
pub(crate) mod bench;
mod locks;
mod steps;

use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::error::errno::{EIO, ENOENT, ENOSPC, ENOTCONN, ETIMEDOUT};
use ladrillo_translator::fop::File;
use ladrillo_translator::option::Options;
use ladrillo_translator::{Dict, FdId, Fop, Gfid, Reply, Value};

use bench::{at, bricks, pass, run};

const SETTLE: Duration = Duration::from_secs(3);

#[test]
fn a_write_reaches_every_brick_and_leaves_no_mark() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        client.write(file, 0, b"hello").await.unwrap();
        client.write(file, 5, b" world").await.unwrap();
        assert_eq!(client.read(file.gfid).await.unwrap(), b"hello world");
        pass(SETTLE).await;
    });
    assert_eq!(world.differences(), Vec::<String>::new());
    assert_eq!(world.marks(), Vec::<String>::new());
    assert_eq!(world.locks[0].counts().granted, 0);
    // One lock, one mark, two writes, one sync, one mark, one unlock: the eager lock works.
    let log: Vec<String> = client.wires[0].log.lock().iter().filter(|kind| *kind != "LOOKUP").cloned().collect();
    let data: Vec<&str> = log.iter().skip_while(|kind| *kind != "INODELK").map(String::as_str).collect();
    let data: Vec<&str> = data.into_iter().filter(|kind| *kind != "READ").collect();
    assert_eq!(data, ["INODELK", "FXATTROP", "WRITE", "WRITE", "FSYNC", "FXATTROP", "INODELK"]);
}

#[test]
fn a_brick_that_was_away_is_accused_before_the_answer() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        client.write(file, 0, b"one").await.unwrap();
        client.wires[2].cut();
        client.write(file, 0, b"two").await.unwrap();
        let accusing = world.marks().iter().filter(|mark| mark.contains("trusted.afr.v-client-2")).count();
        assert_eq!(accusing, 2, "{:?}", world.marks());
        client.wires[2].mend();
        pass(SETTLE).await;
        for _ in 0..5 {
            assert_eq!(client.read(file.gfid).await.unwrap(), b"two");
        }
        // With the others away, the stale copy is no answer.
        client.wires[0].cut();
        assert_eq!(client.read(file.gfid).await.unwrap(), b"two");
        client.wires[1].cut();
        assert_eq!(client.read(file.gfid).await.unwrap_err().errno, ENOTCONN);
    });
}

#[test]
fn without_a_quorum_nothing_is_written() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        client.wires[1].cut();
        client.wires[2].cut();
        assert_eq!(client.write(file, 0, b"x").await.unwrap_err().errno, ENOTCONN);
        assert_eq!(client.create(Gfid::ROOT, "g").await.unwrap_err().errno, ENOTCONN);
        assert_eq!(client.lookup(Gfid::ROOT, "f").await.unwrap_err().errno, ENOTCONN);
    });
}

#[test]
fn a_refusal_by_all_is_the_answer_and_leaves_no_mark() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        for wire in &client.wires {
            wire.refuse.lock().push(("WRITE", ENOSPC));
        }
        assert_eq!(client.write(file, 0, b"x").await.unwrap_err().errno, ENOSPC);
        pass(SETTLE).await;
    });
    assert_eq!(world.marks(), Vec::<String>::new());
}

#[test]
fn a_write_that_one_brick_refused_is_read_from_the_others() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        client.wires[0].refuse.lock().push(("WRITE", ENOSPC));
        client.write(file, 0, b"kept").await.unwrap();
        client.wires[0].refuse.lock().clear();
        pass(SETTLE).await;
        assert_eq!(client.read(file.gfid).await.unwrap(), b"kept");
        client.wires[1].cut();
        // The good one and the accused one are a quorum; the good one answers.
        assert_eq!(client.read(file.gfid).await.unwrap(), b"kept");
    });
}

#[test]
fn names_made_while_a_brick_was_away_are_seen_and_those_removed_are_not() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        client.create(Gfid::ROOT, "old").await.unwrap();
        client.wires[0].cut();
        let new = client.create(Gfid::ROOT, "new").await.unwrap();
        client.ask(Fop::Unlink { entry: at(Gfid::ROOT, "old"), flags: 0, xdata: Dict::new() }).await.unwrap();
        client.wires[0].mend();
        client.wires[1].cut();
        assert_eq!(client.lookup(Gfid::ROOT, "new").await.unwrap(), new.gfid);
        assert_eq!(client.lookup(Gfid::ROOT, "old").await.unwrap_err().errno, ENOENT);
    });
}

#[test]
fn a_rename_that_a_stale_copy_cannot_do_replaces_nothing() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let target = client.create(Gfid::ROOT, "target").await.unwrap();
        client.write(target, 0, b"old").await.unwrap();
        client.wires[1].cut();
        client.create(Gfid::ROOT, "new").await.unwrap();
        client.write(target, 0, b"all").await.unwrap();
        pass(SETTLE).await;
        client.wires[1].mend();
        client.wires[2].cut();
        pass(SETTLE).await;
        // The first brick is the only good copy of both; the second has no "new".
        let rename = || Fop::Rename { from: at(Gfid::ROOT, "new"), to: at(Gfid::ROOT, "target"), xdata: Dict::new() };
        assert_eq!(client.ask(rename()).await.unwrap_err().errno, ENOTCONN);
        let kept =
            world.disks[0].snapshot().nodes.get(b"/target".as_slice()).map(|node| (node.gfid, node.data.clone()));
        assert_eq!(kept, Some((target.gfid, "all".into())));
        // What all that are there can do is done.
        client.wires[2].mend();
        client.wires[1].cut();
        pass(SETTLE).await;
        client.ask(rename()).await.unwrap();
    });
}

#[test]
fn virtual_xattrs_tell_of_all_copies() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        let ask = |name: &'static str| {
            let fop = Fop::Getxattr { gfid: file.gfid, name: name.into(), xdata: Dict::new() };
            let client = &client;
            async move {
                let Reply::Xattrs { xattrs, .. } = client.ask(fop).await? else { panic!() };
                Ok::<_, ladrillo_translator::FopError>(xattrs.text(name).unwrap_or_default().to_owned())
            }
        };
        let status = "replica.split-brain-status";
        assert_eq!(ask(status).await.unwrap(), "The file is not under data or metadata split-brain");
        // All accuse each other.
        for (one, two) in [(0, 1), (1, 2), (2, 0)] {
            let mark = Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
            let xattrs = Dict::new().with(format!("trusted.afr.v-client-{two}"), Value::Ptr(mark));
            let fop = Fop::Setxattr { gfid: file.gfid, xattrs, flags: 0, xdata: Dict::new() };
            let context = ladrillo_translator::Context { pid: -6, ..ladrillo_translator::Context::root() };
            let wire: &dyn ladrillo_translator::Translator = &*client.wires[one];
            wire.submit(&context, fop).await.unwrap();
        }
        let told = "data-split-brain:yes    metadata-split-brain:no    Choices:v-client-0,v-client-1,v-client-2";
        assert_eq!(ask(status).await.unwrap(), told);
        client.wires[1].cut();
        assert_eq!(ask(status).await.unwrap_err().errno, ladrillo_translator::error::errno::EAGAIN);
        client.wires[1].mend();
        // An order to the locks goes to all bricks.
        let before: Vec<usize> = client.wires.iter().map(|wire| wire.log.lock().len()).collect();
        let _ = ask("glusterfs.intrlk.tposix.kblocked.0,0-0").await;
        let sent = client.wires.iter().zip(before).map(|(wire, before)| wire.log.lock().len() - before);
        assert_eq!(sent.collect::<Vec<_>>(), [1, 1, 1]);
    });
}

#[test]
fn contention_ends_the_eager_lock_at_once() {
    let world = bricks(3);
    let (one, two) = (world.client(Options::new()), world.client(Options::new()));
    run(async {
        let file = one.create(Gfid::ROOT, "f").await.unwrap();
        one.write(file, 0, b"one").await.unwrap();
        let anonymous = ladrillo_translator::fop::File { gfid: file.gfid, fd: None };
        two.write(anonymous, 0, b"two").await.unwrap();
        assert_eq!(one.read(file.gfid).await.unwrap(), b"two");
        pass(Duration::from_millis(1)).await;
        one.write(file, 0, b"six").await.unwrap();
        assert_eq!(two.read(file.gfid).await.unwrap(), b"six");
        pass(SETTLE).await;
    });
    assert_eq!(world.marks(), Vec::<String>::new());
    assert_eq!(world.differences(), Vec::<String>::new());
    assert_eq!(world.locks[1].counts().granted, 0);
}

#[test]
fn a_listing_survives_its_brick() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        for n in 0..40 {
            client.create(Gfid::ROOT, &format!("file-{n}")).await.unwrap();
        }
        let fd = ladrillo_translator::FdId(1);
        client.ask(Fop::Opendir { gfid: Gfid::ROOT, fd, xdata: Dict::new() }).await.unwrap();
        let file = ladrillo_translator::fop::File { gfid: Gfid::ROOT, fd: Some(fd) };
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let fop = Fop::Readdir { file, offset, size_bytes: 512, xdata: Dict::new() };
            let Reply::Entries { entries, .. } = client.ask(fop).await.unwrap() else { panic!() };
            let Some(last) = entries.last() else { break };
            offset = last.offset;
            names.extend(entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()));
            if names.len() > 10 && names.len() < 25 {
                let open = client.replicate.open_file(fd).unwrap();
                let child = open.listing.lock().child.unwrap();
                client.wires[child].cut();
            }
        }
        let mut files: Vec<_> = names.into_iter().filter(|name| name.starts_with("file")).collect();
        let all = files.len();
        files.sort();
        files.dedup();
        assert_eq!((files.len(), all), (40, 40));
    });
}

#[test]
fn mutual_accusation_is_split_brain() {
    let world = bricks(2);
    let none = || Options::new().with("quorum-type", "none");
    let (one, two) = (world.client(none()), world.client(none()));
    run(async {
        let file = one.create(Gfid::ROOT, "f").await.unwrap();
        pass(SETTLE).await;
        one.wires[0].cut();
        two.wires[1].cut();
        let anonymous = ladrillo_translator::fop::File { gfid: file.gfid, fd: None };
        one.write(anonymous, 0, b"one").await.unwrap();
        two.write(anonymous, 0, b"two").await.unwrap();
        pass(SETTLE).await;
        one.wires[0].mend();
        assert_eq!(one.read(file.gfid).await.unwrap_err().errno, EIO);
    });
}

/// All requests of `client` take `millis` there and as long back.
fn slow(client: &bench::Client, millis: u64) {
    for wire in &client.wires {
        *wire.latency.lock() = Duration::from_millis(millis);
    }
}

#[test]
fn writers_that_contend_all_get_their_turn() {
    let world = bricks(3);
    let (one, two) = (world.client(Options::new()), world.client(Options::new()));
    run(async {
        let file = one.create(Gfid::ROOT, "f").await.unwrap();
        slow(&one, 2);
        slow(&two, 3);
        let anonymous = ladrillo_translator::fop::File { gfid: file.gfid, fd: None };
        let write = async |client: &bench::Client, file| {
            for n in 0..20u64 {
                client.write(file, n * 10, b"something").await.unwrap();
            }
        };
        let work = async { futures::join!(write(&one, file), write(&two, anonymous)) };
        let late = pass(Duration::from_secs(20));
        let done = futures::future::select(Box::pin(work), Box::pin(late)).await;
        assert!(matches!(done, futures::future::Either::Left(_)), "they starve each other");
        pass(SETTLE).await;
    });
    assert_eq!(world.marks(), Vec::<String>::new());
    assert_eq!(world.differences(), Vec::<String>::new());
}

#[test]
fn a_writer_and_a_healer_both_get_on() {
    let world = bricks(3);
    let (one, two) = (world.client(Options::new()), world.client(Options::new()));
    run(async {
        let file = one.create(Gfid::ROOT, "f").await.unwrap();
        slow(&one, 2);
        slow(&two, 1);
        let write = async {
            for n in 0..30u64 {
                one.write(file, n * 10, b"something").await.unwrap();
            }
        };
        // As the healer does, piece by piece.
        let heal = async {
            let healer = &two.replicate;
            let context = healer.root_context(healer.fresh_owner());
            let piece = [super::Lockee::Range { gfid: file.gfid, start: 0, len: 0 }];
            for _ in 0..30 {
                let locked = healer.lock_all(&context, healer.name.as_str(), &piece, healer.everyone()).await;
                assert_eq!(locked.on, healer.everyone());
                healer.unlock_all(&context, healer.name.as_str(), &piece, locked.on).await;
            }
        };
        let work = async { futures::join!(write, heal) };
        let done = futures::future::select(Box::pin(work), Box::pin(pass(Duration::from_secs(20)))).await;
        assert!(matches!(done, futures::future::Either::Left(_)), "they starve each other");
        pass(SETTLE).await;
    });
    assert_eq!(world.marks(), Vec::<String>::new());
}

#[test]
fn a_close_reports_what_could_not_be_made_durable() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        client.write(file, 0, b"volatile").await.unwrap();
        for wire in &client.wires[..2] {
            wire.refuse.lock().push(("FSYNC", EIO));
        }
        let flush = || Fop::Flush { file, xdata: Dict::new() };
        // It does not wait for the disks, and tells what they said before.
        client.ask(flush()).await.unwrap();
        pass(SETTLE).await;
        assert_eq!(client.ask(flush()).await.unwrap_err().errno, EIO);
        // Once.
        client.ask(flush()).await.unwrap();
    });
}

/// A child process that inherited the file closes it, a reader closes his: their flushes took the error, and the writer's
/// fsync succeeded.
#[test]
fn each_open_file_hears_of_a_loss_from_an_fsync_of_its_own() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let (writer, reader) = (client.create(Gfid::ROOT, "f").await.unwrap(), FdId(900));
        let open = |fd| Fop::Open { gfid: writer.gfid, flags: 0, fd, xdata: Dict::new() };
        client.ask(open(reader)).await.unwrap();
        client.write(writer, 0, b"volatile").await.unwrap();
        for wire in &client.wires[..2] {
            wire.refuse.lock().push(("FSYNC", EIO));
        }
        let reader = File { gfid: writer.gfid, fd: Some(reader) };
        let flush = |file| client.ask(Fop::Flush { file, xdata: Dict::new() });
        let fsync = |file| client.ask(Fop::Fsync { file, datasync: false, xdata: Dict::new() });
        flush(reader).await.unwrap();
        pass(SETTLE).await;
        client.wires.iter().for_each(|wire| wire.refuse.lock().clear());
        for file in [reader, writer] {
            assert_eq!(flush(file).await.unwrap_err().errno, EIO);
        }
        client.ask(open(FdId(901))).await.unwrap();
        let later = File { gfid: writer.gfid, fd: Some(FdId(901)) };
        for file in [reader, writer, later] {
            assert_eq!(fsync(file).await.unwrap_err().errno, EIO);
            fsync(file).await.unwrap();
        }
        // Who opens it now has lost nothing.
        client.ask(open(FdId(902))).await.unwrap();
        fsync(File { gfid: writer.gfid, fd: Some(FdId(902)) }).await.unwrap();
    });
}

#[test]
fn an_fsync_reports_what_the_session_before_could_not_make_durable() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        client.write(file, 0, b"volatile").await.unwrap();
        slow(&client, 10);
        for wire in &client.wires[..2] {
            wire.refuse.lock().push(("FSYNC", EIO));
        }
        // Another client wants the lock: the post-op begins, and its syncs fail.
        client.replicate.on_contention(file.gfid);
        let recover = async {
            pass(Duration::from_millis(15)).await;
            client.wires.iter().for_each(|wire| wire.refuse.lock().clear());
        };
        let fsync = client.ask(Fop::Fsync { file, datasync: false, xdata: Dict::new() });
        let (fsync, ()) = futures::join!(fsync, recover);
        assert_eq!(fsync.unwrap_err().errno, EIO);
    });
}

#[test]
fn no_answer_in_time_is_no_refusal() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        for wire in &client.wires {
            wire.lose.lock().push(("WRITE", ETIMEDOUT));
        }
        client.write(file, 0, b"perhaps").await.unwrap_err();
        client.wires.iter().for_each(|wire| wire.lose.lock().clear());
        pass(SETTLE).await;
    });
    // It may be on some only: the healer is to look.
    assert_eq!(world.marks().len(), 3, "{:?}", world.marks());
}

#[test]
fn a_lock_whose_answer_came_too_late_is_let_go() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        client.wires[0].lose.lock().push(("INODELK", ETIMEDOUT));
        client.write(file, 0, b"written").await.unwrap();
        client.wires[0].lose.lock().clear();
        pass(SETTLE).await;
        assert_eq!(client.read(file.gfid).await.unwrap(), b"written");
    });
    for locks in &world.locks {
        assert_eq!(locks.counts().granted, 0);
    }
}

#[test]
fn an_append_never_goes_to_an_offset() {
    let world = bricks(3);
    let client = world.client(Options::new());
    let other = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "log").await.unwrap();
        client.write(file, 0, b"long line\n").await.unwrap();
        pass(SETTLE).await;
        let fd = ladrillo_translator::FdId(77);
        let flags = (libc::O_WRONLY | libc::O_APPEND) as u32;
        other.wires[0].refuse.lock().push(("OPEN", EIO));
        other.ask(Fop::Open { gfid: file.gfid, flags, fd, xdata: Dict::new() }).await.unwrap();
        let log = ladrillo_translator::fop::File { gfid: file.gfid, fd: Some(fd) };
        // The offset is stale, as an application's view may be.
        other.write(log, 0, b"more\n").await.unwrap();
        pass(SETTLE).await;
        assert_eq!(other.read(file.gfid).await.unwrap(), b"long line\nmore\n");
        assert!(world.marks().iter().any(|mark| mark.contains("trusted.afr.v-client-0")), "{:?}", world.marks());
        // It is opened there later.
        other.wires[0].refuse.lock().clear();
        other.write(log, 0, b"last\n").await.unwrap();
        assert!(other.replicate.open_file(fd).unwrap().on().has(0));
    });
}

#[test]
fn the_end_of_a_client_leaves_nothing_behind() {
    let world = bricks(3);
    let client = world.client(Options::new());
    run(async {
        let file = client.create(Gfid::ROOT, "f").await.unwrap();
        let other = client.create(Gfid::ROOT, "g").await.unwrap();
        slow(&client, 20);
        client.write(file, 0, b"last words").await.unwrap();
        client.write(other, 0, b"more").await.unwrap();
        client.ask(Fop::Release { file: other }).await.unwrap();
        client.replicate.finish().await;
        assert_eq!(world.marks(), Vec::<String>::new());
        assert!(world.locks.iter().all(|locks| locks.counts().granted == 0));
    });
    assert_eq!(world.differences(), Vec::<String>::new());
}
