//! Tests of the executor against the real kernel.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use ladrillo_translator::{Payload, Runtime};
use ladrillo_transport::{Address, Connector, Message};

use super::*;

fn executor() -> Executor {
    Executor::new().expect("io_uring works here")
}

fn pipe() -> (Arc<OwnedFd>, std::fs::File) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    (Arc::new(reader), writer.into())
}

#[test]
fn tasks_timers_and_wakes_of_other_threads() {
    let executor = executor();
    let handle = executor.handle();
    let (sender, receiver) = futures::channel::oneshot::channel::<u32>();
    let order = Rc::new(Cell::new(0));
    let seen = order.clone();
    let start = Instant::now();
    let got = executor.block_on(async move {
        for n in (1..=3u64).rev() {
            let order = order.clone();
            spawn(async move {
                sleep(Duration::from_millis(n * 15)).await;
                assert_eq!(order.get(), n - 1, "timers fire in the order of their deadlines");
                order.set(n);
            });
        }
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(70));
            sender.send(7).unwrap();
            handle.spawn(|| Box::pin(async {}));
        });
        receiver.await.unwrap()
    });
    assert_eq!((got, seen.get()), (7, 3));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_timeout_ends_a_wait_and_leaves_no_timer() {
    let executor = executor();
    executor.block_on(async {
        assert!(timeout(Duration::from_millis(10), std::future::pending::<()>()).await.is_err());
        assert_eq!(timeout(Duration::from_secs(60), async { 5 }).await.unwrap(), 5);
        assert!(with_core(|core| core.timers.next()).unwrap().is_none(), "the dropped timer is gone");
    });
}

/// Counts its drops, and holds the memory a read goes to.
struct Tracked(Box<[u8; 64]>, Rc<Cell<u32>>);

impl Drop for Tracked {
    fn drop(&mut self) {
        self.1.set(self.1.get() + 1);
    }
}

// SAFETY: the boxed array does not move with its owner.
unsafe impl io::WriteBuffer for Tracked {
    fn spare(&mut self) -> (*mut u8, usize) {
        (self.0.as_mut_ptr(), self.0.len())
    }
}

#[test]
fn a_dropped_read_keeps_its_buffer_until_the_kernel_is_done() {
    let executor = executor();
    let drops = Rc::new(Cell::new(0));
    executor.block_on(async {
        let (reader, _writer) = pipe();
        let mut reading = Box::pin(read(&reader, Tracked(Box::new([0; 64]), drops.clone())));
        assert!(futures::poll!(&mut reading).is_pending());
        drop(reading);
        assert_eq!(drops.get(), 0, "freed while the kernel may still write to it");
        while drops.get() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    });
    // The same, with the executor ending while the read is in flight.
    let (reader, _writer) = pipe();
    executor.block_on(async {
        let buffer = Tracked(Box::new([0; 64]), drops.clone());
        let reader = reader.clone();
        spawn(async move {
            let _ = read(&reader, buffer).await;
        });
        yield_now().await;
        yield_now().await;
    });
    drop(executor);
    assert_eq!(drops.get(), 2);
}

#[test]
fn reads_and_writes() {
    let executor = executor();
    executor.block_on(async {
        let (reader, mut writer) = pipe();
        writer.write_all(b"hello").unwrap();
        let (result, buffer) = read(&reader, Tracked(Box::new([0; 64]), Rc::default())).await;
        assert_eq!(&buffer.0[..result.unwrap()], b"hello");
        let (reader, writer) = pipe();
        let writer = Arc::new(OwnedFd::from(writer));
        let done = Rc::new(Cell::new(None));
        let heard = done.clone();
        writev_detached(&writer, vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cd")], move |n| {
            heard.set(Some(n))
        });
        assert!(poll_readable(&reader).await.unwrap() & libc::POLLIN as u32 != 0);
        while done.get().is_none() {
            yield_now().await;
        }
        assert_eq!(done.get(), Some(4));
        let (_, buffer) = read(&reader, Tracked(Box::new([0; 64]), Rc::default())).await;
        assert_eq!(&buffer.0[..4], b"abcd");
    });
}

#[test]
fn the_runtime_of_translators() {
    let executor = executor();
    executor.block_on(async {
        let runtime = RingRuntime::new();
        let before = runtime.now();
        runtime.sleep(Duration::from_millis(5)).await;
        assert!(runtime.now() - before >= Duration::from_millis(5));
        assert!(runtime.wall_clock().seconds > 1_600_000_000);
        assert_ne!(runtime.random(), runtime.random());
    });
}

/// A peer that sends every record back, in pieces, on a thread of its own.
fn echo_server(listener: std::net::TcpListener) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 300_000];
        while let Ok(n) = socket.read(&mut buffer) {
            if n == 0 || socket.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn records_go_and_come_whole_and_in_order() {
    let executor = executor();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = echo_server(listener);
    executor.block_on(async {
        let address = Address::Tcp { host: "localhost".into(), port };
        let transport = TcpConnector.connect(&address, Duration::from_secs(5)).await.unwrap();
        let big = Bytes::from((0..1_000_003u32).map(|n| n as u8).collect::<Vec<u8>>());
        let messages: Vec<Message> = (0..40u8)
            .map(|n| {
                let payload = if n % 5 == 0 { big.slice(usize::from(n)..) } else { Bytes::new() };
                let padding = (4 - payload.len() % 4) as u8 % 4;
                Message { header: vec![n; 40].into(), payload: Payload::from_bytes(payload), padding }
            })
            .collect();
        let before = ladrillo_translator::payload::copied_bytes();
        let sending = messages.iter().map(|message| transport.send(message.clone()));
        let receiving = async {
            let mut records = Vec::new();
            for _ in 0..messages.len() {
                records.push(transport.recv().await.unwrap());
            }
            records
        };
        // A receiver that gives up loses nothing.
        assert!(transport.recv().now_or_never().is_none());
        let (sent, records) = futures::join!(futures::future::join_all(sending), receiving);
        assert!(sent.iter().all(Result::is_ok));
        for (message, record) in messages.iter().zip(&records) {
            assert_eq!(record.len(), message.len());
            assert_eq!(record[..40], message.header[..]);
            assert_eq!(record[40..40 + message.payload.len()], *message.payload.as_slice());
        }
        assert_eq!(ladrillo_translator::payload::copied_bytes(), before);
        transport.close();
        let refused = transport.send(Message::default()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionAborted);
        assert_eq!(transport.recv().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
    });
    drop(executor);
    server.join().unwrap();
}

#[test]
fn the_send_queue_is_bounded_and_a_dead_peer_fails_its_callers() {
    let executor = executor();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    executor.block_on(async {
        let address = Address::Tcp { host: "127.0.0.1".into(), port };
        let transport = TcpConnector.connect(&address, Duration::from_secs(5)).await.unwrap();
        let (peer, _) = listener.accept().unwrap();
        let payload = Payload::from_bytes(BytesMut::zeroed(16 << 20).freeze());
        // The peer reads nothing: beyond the bound callers wait outside, in order.
        let sends = (0..8).map(|_| {
            transport.send(Message { header: Bytes::from_static(b"head"), payload: payload.clone(), padding: 0 })
        });
        let sends: Vec<_> = sends.collect();
        let all = spawn_collect(sends);
        sleep(Duration::from_millis(30)).await;
        let reader = {
            let transport = transport.clone();
            async move { transport.recv().await }
        };
        drop(peer);
        let (results, received) = futures::join!(all, reader);
        assert!(results.iter().any(|result| result.is_err()));
        assert!(received.is_err());
    });
}

async fn spawn_collect<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    futures::future::join_all(futures).await
}

#[test]
fn connecting_fails_in_time_and_says_where() {
    let executor = executor();
    executor.block_on(async {
        let address = Address::Tcp { host: "127.0.0.1".into(), port: 1 };
        let error = TcpConnector.connect(&address, Duration::from_secs(5)).await.err().unwrap();
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
        let address = Address::Unix("/nonexistent/socket".into());
        let error = TcpConnector.connect(&address, Duration::from_secs(5)).await.err().unwrap();
        assert!(error.to_string().contains("/nonexistent/socket"), "{error}");
    });
}
