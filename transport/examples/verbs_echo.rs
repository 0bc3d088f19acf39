//! Verbs by themselves, both ends in one process: `verbs_echo BRICK-ADDRESS [ROUNDS] [--no-windows]`.
//!
//! Records of all shapes go to the brick and come back: inline, payloads by RDMA read and RDMA write, records longer than a
//! message both ways, answers longer than their call expected. Every byte is checked; afterwards the connection is closed
//! by either side, and garbage is sent to show that only that connection ends.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use futures::executor::block_on;
use ladrillo_translator::Payload;
use ladrillo_transport::Message;
use ladrillo_transport::verbs::wire::{Chunk, FIXED_BYTES, Header, Kind};
use ladrillo_transport::verbs::{Connection, Driver, DriverConfig, Role, Windows, check};

/// xid, call or reply, then how long an answer is wanted: header and payload.
fn call(xid: u32, header: usize, payload: usize, reply_header: usize, reply_payload: usize) -> Message {
    let mut out = BytesMut::new();
    for word in [xid, 0, reply_header as u32, reply_payload as u32] {
        out.put_u32(word);
    }
    out.put_bytes(xid as u8, header.saturating_sub(out.len()));
    Message { header: out.freeze(), payload: pattern(xid, payload), padding: u8::from(!payload.is_multiple_of(4)) }
}

fn pattern(xid: u32, len: usize) -> Payload {
    Payload::from_bytes(Bytes::from(
        (0..len).map(|n| (n as u32).wrapping_mul(31).wrapping_add(xid) as u8).collect::<Vec<u8>>(),
    ))
}

fn flat(message: &Message) -> Vec<u8> {
    let mut all = message.header.to_vec();
    all.extend_from_slice(message.payload.as_slice());
    all.resize(message.len(), 0);
    all
}

fn reply(xid: u32, header: usize, payload: usize, sum: u32) -> Message {
    let mut out = BytesMut::new();
    for word in [xid, 1, sum] {
        out.put_u32(word);
    }
    out.put_bytes(xid as u8, header.saturating_sub(out.len()));
    Message { header: out.freeze(), payload: pattern(!xid, payload), padding: 0 }
}

fn sum(record: &[u8]) -> u32 {
    record.iter().fold(7u32, |sum, byte| sum.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}

fn serve(connection: &Connection) {
    loop {
        let record = match block_on(poll_fn(|cx| connection.poll_recv(cx))) {
            Ok(record) => record,
            Err(error) => return println!("brick: connection ends: {error}"),
        };
        if record.len() < 16 {
            continue;
        }
        let word = |n: usize| u32::from_be_bytes(record[4 * n..4 * n + 4].try_into().unwrap());
        let answer = reply(word(0), word(2) as usize, word(3) as usize, sum(&record));
        connection.queue(answer, 0);
    }
}

fn exchange(connection: &Connection, message: Message, expecting: usize) -> Bytes {
    let sent = connection.queue(message, expecting);
    block_on(poll_fn(|cx| connection.poll_sent(sent, cx))).expect("sent");
    block_on(poll_fn(|cx| connection.poll_recv(cx))).expect("answered")
}

/// What no client sends: name, message, how often.
fn attacks() -> Vec<(&'static str, Vec<u8>, usize)> {
    let record = flat(&call(7, 100, 0, 100, 0));
    let header = |kind, reads: Vec<Chunk>, writes: Vec<Chunk>| {
        let mut out = BytesMut::new();
        Header { xid: 7, credit: 1 << 20, kind, answer: false, reads, writes }.encode(&mut out);
        [&out[..], &record[..]].concat()
    };
    let chunk = Chunk { position: 8, handle: 0x0123_4567, length: 5000, address: 0x1000 };
    let plain = header(Kind::Message, vec![], vec![]);
    let mut cut = header(Kind::Message, vec![chunk], vec![]);
    cut.truncate(40);
    let mut wild = header(Kind::Message, vec![chunk], vec![]);
    wild[16..20].copy_from_slice(&9u32.to_be_bytes());
    vec![
        ("garbage", b"this is no header at all, and never was".to_vec(), 1),
        ("a header cut short", cut, 1),
        ("a malformed chunk list", wild, 1),
        ("a chunk outside the record", header(Kind::Message, vec![Chunk { position: 5000, ..chunk }], vec![]), 1),
        ("a bad key", header(Kind::Message, vec![chunk], vec![]), 1),
        ("an offer for nothing", header(Kind::Offer, vec![], vec![chunk]), 1),
        ("a need", header(Kind::Need, vec![], vec![chunk]), 1),
        ("an oversized message", [&plain[..], &[0; 5000]].concat(), 1),
        ("a flood of words", header(Kind::Credit, vec![], vec![])[..FIXED_BYTES].to_vec(), 20_000),
        ("a long record of a stranger", header(Kind::Message, vec![Chunk { length: 200_000, ..chunk }], vec![]), 1),
        ("more than the credits", plain, 2000),
    ]
}

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stdout).with_ansi(false).init();
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--no-windows");
    let windows = match std::env::args().any(|a| a == "--no-windows") {
        true => Windows::Never,
        false => Windows::Always,
    };
    let address: SocketAddr = arguments.next().expect("ADDRESS:PORT").parse().expect("an address");
    let rounds: u32 = arguments.next().map_or(3, |n| n.parse().expect("a number"));
    println!("devices: {:?}", check());
    let bricks = Driver::new(DriverConfig { role: Role::Brick, windows: Windows::Never }).expect("brick's driver");
    let _thread = bricks.start_thread("brick").unwrap();
    let (arrived, arrivals) = mpsc::channel();
    let listener = bricks.listen(address, Box::new(move |connection| drop(arrived.send(connection)))).expect("listen");
    let clients = Driver::new(DriverConfig { role: Role::Client, windows }).expect("client's driver");
    let _thread = clients.start_thread("client").unwrap();
    let watched = [Arc::downgrade(&clients), Arc::downgrade(&bricks)];
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(20));
            for driver in watched.iter().filter_map(std::sync::Weak::upgrade) {
                println!("state: {:?}", driver.describe());
            }
        }
    });
    let connect = || -> (Arc<Connection>, Arc<Connection>) {
        let connection = clients.connect(listener.local).expect("connect");
        block_on(poll_fn(|cx| connection.poll_connected(cx))).expect("connected");
        let other = arrivals.recv_timeout(Duration::from_secs(20)).expect("accepted");
        println!("connected: {} to {}", connection.local(), connection.peer());
        (connection, other)
    };
    let (connection, other) = connect();
    other.admit();
    let server = std::thread::spawn(move || serve(&other));
    let mut xid = 1000;
    for round in 0..rounds {
        for (header, payload, reply_header, reply_payload, expecting) in [
            (100, 0, 100, 0, 0),
            (100, 1000, 100, 1000, 0),
            (200, 4096, 100, 0, 0),
            (200, 0, 100, 4096, 4096),
            (200, 1 << 20, 100, 0, 0),
            (200, 0, 120, 1 << 20, 1 << 20),
            (200, 100_001, 120, 333_333, 333_333),
            (20_000, 0, 100, 0, 0),
            (20_000, 30_001, 100, 0, 0),
            (200, 0, 50_000, 0, 60_000),
            (200, 0, 50_000, 0, 0),
            (200, 0, 5000, 1 << 20, 0),
            (200, 0, 120, 1 << 20, 4096),
        ] {
            xid += 1;
            let message = call(xid, header, payload, reply_header, reply_payload);
            let expected = flat(&reply(xid, reply_header, reply_payload, sum(&flat(&message))));
            let begun = Instant::now();
            let answer = exchange(&connection, message, expecting);
            assert!(answer == expected, "round {round}: {header}+{payload} -> {reply_header}+{reply_payload}");
            if round == 0 {
                println!("{header}+{payload} -> {reply_header}+{reply_payload}: good, {:?}", begun.elapsed());
            }
        }
    }
    // Many at once: more than the credits.
    let begun = Instant::now();
    let mut expected = std::collections::HashMap::new();
    for n in 0..400u32 {
        let message = call(100_000 + n, 150, (n as usize % 5) * 3000, 100, (n as usize % 7) * 2500);
        expected.insert(100_000 + n, flat(&reply(100_000 + n, 100, (n as usize % 7) * 2500, sum(&flat(&message)))));
        connection.queue(message, (n as usize % 7) * 2500);
    }
    while !expected.is_empty() {
        let answer = block_on(poll_fn(|cx| connection.poll_recv(cx))).expect("answered");
        let xid = u32::from_be_bytes(answer[..4].try_into().unwrap());
        assert!(expected.remove(&xid).is_some_and(|expected| answer == expected), "answer {xid}");
    }
    println!("400 at once: good, {:?}", begun.elapsed());
    println!("copied payload bytes: {}", ladrillo_translator::payload::copied_bytes());
    let begun = Instant::now();
    connection.close();
    server.join().unwrap();
    println!("closed by the client, seen by the brick after {:?}", begun.elapsed());
    let (connection, other) = connect();
    let begun = Instant::now();
    other.close();
    let end = block_on(poll_fn(|cx| connection.poll_recv(cx))).expect_err("closed");
    println!("closed by the brick, seen by the client after {:?}: {end}", begun.elapsed());
    let (good, other) = connect();
    other.admit();
    let server = std::thread::spawn(move || serve(&other));
    for (name, raw, times) in attacks() {
        let (bad, other) = connect();
        let hit = std::thread::spawn(move || {
            // Nothing is taken, so that no credit is given.
            while times > 1 && !other.is_closed() {
                std::thread::sleep(Duration::from_millis(5));
            }
            serve(&other);
        });
        let mut sent = 0;
        while sent < times && !bad.is_closed() {
            if bad.send_raw(&raw) {
                sent += 1;
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let end = loop {
            match block_on(poll_fn(|cx| bad.poll_recv(cx))) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        hit.join().unwrap();
        xid += 1;
        let message = call(xid, 200, 10_000, 100, 10_000);
        let expected = flat(&reply(xid, 100, 10_000, sum(&flat(&message))));
        assert!(exchange(&good, message, 10_000) == expected, "after {name}");
        println!("{name}: that connection ended ({end}), the other one goes on");
    }
    good.close();
    server.join().unwrap();
    clients.end();
    bricks.end();
    println!("PASS");
}
