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
use ladrillo_transport::verbs::{Connection, Driver, DriverConfig, Role, check};

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

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stdout).with_ansi(false).init();
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--no-windows");
    let windows = !std::env::args().any(|a| a == "--no-windows");
    let address: SocketAddr = arguments.next().expect("ADDRESS:PORT").parse().expect("an address");
    let rounds: u32 = arguments.next().map_or(3, |n| n.parse().expect("a number"));
    println!("devices: {:?}", check());
    let bricks = Driver::new(DriverConfig { role: Role::Brick, windows: false }).expect("brick's driver");
    let _thread = bricks.start_thread("brick").unwrap();
    let (arrived, arrivals) = mpsc::channel();
    let listener = bricks.listen(address, Box::new(move |connection| drop(arrived.send(connection)))).expect("listen");
    let clients = Driver::new(DriverConfig { role: Role::Client, windows }).expect("client's driver");
    let _thread = clients.start_thread("client").unwrap();
    let connect = || -> (Arc<Connection>, Arc<Connection>) {
        let connection = clients.connect(listener.local).expect("connect");
        block_on(poll_fn(|cx| connection.poll_connected(cx))).expect("connected");
        let other = arrivals.recv_timeout(Duration::from_secs(20)).expect("accepted");
        println!("connected: {} to {}", connection.local(), connection.peer());
        (connection, other)
    };
    let (connection, other) = connect();
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
    clients.end();
    bricks.end();
    println!("PASS");
}
