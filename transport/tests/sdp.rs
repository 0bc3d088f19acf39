//! rsockets, where there is an RDMA device: `RDMA_ADDRESS` names one of its addresses (tools/rdma-vm has 10.99.0.1).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::executor::block_on;
use ladrillo_translator::Payload;
use ladrillo_transport::{Accepted, Listener, Message, Transport, sdp};

fn address() -> Option<SocketAddr> {
    let text = std::env::var("RDMA_ADDRESS").ok()?;
    Some(SocketAddr::new(text.parse::<IpAddr>().expect("RDMA_ADDRESS is an address"), 0))
}

/// A listener, or why there is none here.
fn listener() -> Option<Box<dyn Listener>> {
    let Some(address) = address() else {
        println!("skipped: RDMA_ADDRESS names no address of an RDMA device");
        return None;
    };
    Some(sdp::listen(address).expect("rsockets can be used where RDMA_ADDRESS is set"))
}

fn accept(listener: &dyn Listener) -> Arc<dyn Accepted> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if let Some(accepted) = listener.accept(Duration::from_millis(250)).expect("accept") {
            return accepted;
        }
    }
    panic!("nobody came");
}

fn pair(listener: Box<dyn Listener>) -> (Arc<dyn Transport>, Arc<dyn Accepted>) {
    let address = listener.local();
    let accepting = std::thread::spawn(move || accept(&*listener));
    let client = block_on(sdp::connect(address)).expect("connect");
    (client, accepting.join().expect("accepting"))
}

fn message(header: &[u8], payload: Vec<u8>) -> Message {
    let padding = (4 - payload.len() % 4) as u8 % 4;
    Message { header: Bytes::copy_from_slice(header), payload: Payload::from_bytes(payload.into()), padding }
}

#[test]
fn without_a_device_the_reason_is_told() {
    if address().is_some() {
        println!("skipped: there is a device");
        return;
    }
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let errors = [sdp::listen(local).err(), block_on(sdp::connect(SocketAddr::from(([127, 0, 0, 1], 1)))).err()];
    for error in errors {
        let error = error.expect("no device, no rsocket");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("tcp"), "what to do: {error}");
    }
}

#[test]
fn records_cross_both_ways_whole_and_in_order() {
    let Some(listener) = listener() else { return };
    let (client, server) = pair(listener);
    assert!(server.peer().parse::<SocketAddr>().is_ok(), "{}", server.peer());
    assert_eq!(client.medium(), "rsocket");
    let sizes = [0usize, 1, 3, 4096, 65_537, 1 << 20, 5];
    let echo = std::thread::spawn(move || {
        for _ in sizes {
            let record = block_on(server.recv()).expect("a record");
            server.post(message(&record[..4], record[4..].to_vec())).expect("an answer");
        }
        (server.traffic(), server)
    });
    let mut expected = Vec::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let payload: Vec<u8> = (0..size).map(|i| (i * 7 + number) as u8).collect();
        let mut record = [&[0, 0, 0, number as u8][..], &payload].concat();
        record.resize(record.len().next_multiple_of(4), 0);
        expected.push(record);
        block_on(client.send(message(&[0, 0, 0, number as u8], payload))).expect("sent");
    }
    for record in expected {
        assert!(block_on(client.recv()).expect("an answer") == record);
    }
    let ((received, _), _server) = echo.join().expect("echo");
    assert!(received > 1 << 20);
}

#[test]
fn a_receiver_that_is_slow_holds_the_sender_back_and_loses_nothing() {
    let Some(listener) = listener() else { return };
    let (client, server) = pair(listener);
    let count = 96u32;
    let sending = std::thread::spawn(move || {
        for number in 0..count {
            block_on(client.send(message(&number.to_be_bytes(), vec![number as u8; 1 << 20]))).expect("sent");
        }
        client
    });
    std::thread::sleep(Duration::from_millis(500));
    for number in 0..count {
        let record = block_on(server.recv()).expect("a record");
        assert_eq!(record[..4], number.to_be_bytes());
        assert_eq!(record.len(), 4 + (1 << 20));
    }
    drop(sending.join());
    // What ends on one side ends on the other.
    assert_eq!(block_on(server.recv()).expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_is_closed_here_fails_at_once() {
    let Some(listener) = listener() else { return };
    let (client, server) = pair(listener);
    client.close();
    assert_eq!(block_on(client.recv()).expect_err("closed").kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(
        block_on(client.send(message(b"abcd", vec![]))).expect_err("closed").kind(),
        io::ErrorKind::ConnectionAborted
    );
    assert_eq!(block_on(server.recv()).expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
    drop(server);
    let nobody = SocketAddr::new(address().expect("set").ip(), 1);
    assert!(block_on(sdp::connect(nobody)).is_err());
}

/// CPU time of this process so far, in clock ticks (10 ms).
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

/// librdmacm before version 53 goes on with freed memory from the fourth connection on, and polls with time limits
/// make it spin: neither is met.
#[test]
fn many_connections_work_and_cost_nothing_while_nothing_happens() {
    let Some(listener) = listener() else { return };
    let address = listener.local();
    let count = 24u32;
    let accepting = std::thread::spawn(move || {
        let accepted: Vec<_> = (0..count).map(|_| accept(&*listener)).collect();
        (listener, accepted)
    });
    let clients: Vec<_> = (0..count).map(|_| block_on(sdp::connect(address)).expect("connect")).collect();
    let (listener, servers) = accepting.join().expect("accepting");
    let before = ticks();
    assert!(listener.accept(Duration::from_secs(3)).expect("accept").is_none());
    assert!(ticks() - before < 100, "{} ticks of 10 ms in 3 s", ticks() - before);
    for (number, client) in clients.iter().enumerate() {
        block_on(client.send(message(&(number as u32).to_be_bytes(), vec![1; 5000]))).expect("sent");
    }
    let mut seen: Vec<u32> = servers
        .iter()
        .map(|server| u32::from_be_bytes(block_on(server.recv()).expect("a record")[..4].try_into().expect("4 bytes")))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
    drop(clients);
    for server in servers {
        assert_eq!(block_on(server.recv()).expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
    }
}
