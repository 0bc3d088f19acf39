//! The parts of a request's way that are ours: the hash of names, the lock table and the buffer pool from 1 to 8 threads,
//! replicate's fan-out over bricks in memory.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::FutureExt;
use futures::executor::{LocalPool, LocalSpawner};
use futures::task::LocalSpawnExt;
use ladrillo_fuse_client::front::buffer::{Pool, Slots};
use ladrillo_fuse_client::translators::distribute::hash::Hasher;
use ladrillo_fuse_client::translators::replicate::Replicate;
use ladrillo_translator::fop::{Entry, File, Flock, LockCmd, LockType};
use ladrillo_translator::locks::Locks;
use ladrillo_translator::memory::Memory;
use ladrillo_translator::{
    ClientId, Context, Dict, Event, FdId, Fop, Gfid, LocalFuture, LockOwner, Options, Parent, Payload, Runtime,
    Timespec, Translator, Value,
};

const THREADS: [usize; 4] = [1, 2, 4, 8];

thread_local! {
    static SPAWNER: RefCell<Option<LocalSpawner>> = const { RefCell::new(None) };
}

/// Tasks on the thread's own pool; timers that never come: what waits for one (delayed post-ops) stays delayed.
struct Stopped(AtomicU64);

impl Runtime for Stopped {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn wall_clock(&self) -> Timespec {
        Timespec { seconds: 1_000_000, nanos: 0 }
    }
    fn sleep(&self, _: Duration) -> LocalFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
    fn spawn(&self, task: LocalFuture<'static, ()>) {
        SPAWNER.with_borrow(|spawner| spawner.as_ref().expect("a pool").spawn_local(task).expect("the pool lives"));
    }
    fn random(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

fn stopped() -> Arc<dyn Runtime> {
    Arc::new(Stopped(AtomicU64::new(7)))
}

/// Runs `iterations` of `work`, shared out to `threads`; the time from the common start to the last one's end.
fn spread<S>(
    threads: usize,
    iterations: u64,
    state: impl Fn(usize) -> S + Sync,
    work: impl Fn(&mut S, u64) + Sync,
) -> Duration {
    let barrier = Barrier::new(threads);
    let share = iterations.div_ceil(threads as u64);
    let times: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, state, work) = (&barrier, &state, &work);
                scope.spawn(move || {
                    let mut state = state(thread);
                    barrier.wait();
                    let start = Instant::now();
                    for index in 0..share {
                        work(&mut state, index);
                    }
                    (start, Instant::now())
                })
            })
            .collect();
        handles.into_iter().map(|h| h.join().expect("no panic")).collect()
    });
    let start = times.iter().map(|t| t.0).min().expect("a thread");
    let end = times.iter().map(|t| t.1).max().expect("a thread");
    end - start
}

fn hash(c: &mut Criterion) {
    let hasher = Hasher::new(None, None).expect("no expression of ours");
    let mut group = c.benchmark_group("distribute: hash of a name");
    for name in
        ["a", "file000123.txt", "a-rather-long-name-as-build-systems-make-them-0123456789.cpp.o", ".rsync.aB3dE6"]
    {
        group.bench_with_input(BenchmarkId::from_parameter(name), name, |b, name| {
            b.iter(|| hasher.hash(black_box(name.as_bytes())));
        });
    }
}

fn lock_table(c: &mut Criterion) {
    let mut group = c.benchmark_group("lock table: inodelk and its release, each thread on inodes of its own");
    group.throughput(Throughput::Elements(1));
    for threads in THREADS {
        group.bench_with_input(BenchmarkId::from_parameter(threads), &threads, |b, threads| {
            let runtime = stopped();
            let disk = Memory::new("disk", runtime.clone());
            let locks = Locks::new("locks", disk, &Options::new(), runtime).expect("no options");
            b.iter_custom(|iterations| {
                let context = |thread: usize| {
                    let root = Context { lock_owner: LockOwner::from_u64(thread as u64 + 1), ..Context::root() };
                    (thread, root.with_client(ClientId(thread as u64 + 1)))
                };
                spread(*threads, iterations, context, |(thread, context), index| {
                    let mut gfid = [1; 16];
                    gfid[..8].copy_from_slice(&(*thread as u64 ^ ((index % 256) << 8)).to_be_bytes());
                    for kind in [LockType::Write, LockType::Unlock] {
                        let owner = context.lock_owner.clone();
                        let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 1, owner };
                        let fop = Fop::Inodelk {
                            gfid: Gfid(gfid),
                            domain: Bytes::from_static(b"v-replicate-0"),
                            cmd: LockCmd::Set,
                            flock,
                            xdata: Dict::new(),
                        };
                        let done = locks.submit(context, fop).now_or_never().expect("it answers at once");
                        black_box(done.expect("nobody else locks it"));
                    }
                })
            });
        });
    }
}

fn buffer_pool(c: &mut Criterion) {
    const REQUEST_BYTES: usize = (1 << 20) + 4096;
    let mut group = c.benchmark_group("buffer pool: a slot, 4 KiB of it kept, dropped");
    group.throughput(Throughput::Elements(1));
    for threads in THREADS {
        group.bench_with_input(BenchmarkId::from_parameter(threads), &threads, |b, threads| {
            let pool = Pool::new(64 << 20, REQUEST_BYTES);
            b.iter_custom(|iterations| {
                let slots = |_| Slots::new(pool.clone(), REQUEST_BYTES);
                spread(*threads, iterations, slots, |slots, _| {
                    let slot = slots.next().now_or_never().expect("memory for all");
                    drop(black_box(slots.keep(slot, 4096)));
                })
            });
        });
    }
}

fn fan_out(c: &mut Criterion) {
    let mut pool = LocalPool::new();
    SPAWNER.set(Some(pool.spawner()));
    let runtime = stopped();
    let children: Vec<Arc<dyn Translator>> = (0..3)
        .map(|number| {
            let disk = Memory::new(format!("disk-{number}"), runtime.clone());
            let locks = Locks::new(format!("v-client-{number}"), disk, &Options::new(), runtime.clone());
            locks.expect("no options") as Arc<dyn Translator>
        })
        .collect();
    let replicate = Replicate::new("v-replicate-0", children.clone(), &Options::new(), runtime).expect("no options");
    let parent: Arc<dyn Parent> = replicate.clone();
    for (index, child) in children.iter().enumerate() {
        child.set_parent(Arc::downgrade(&parent), index);
        parent.child_event(index, Event::Up);
    }
    let context = Context { lock_owner: LockOwner::from_u64(5), ..Context::root() };
    let mut ask = |fop: Fop| {
        let reply = pool.run_until(replicate.submit(&context, fop)).expect("it works");
        pool.run_until_stalled();
        reply
    };
    let gfid = Gfid([9; 16]);
    let fd = FdId(1);
    let entry = Entry { parent: Gfid::ROOT, name: Bytes::from_static(b"file") };
    let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
    ask(Fop::Create { entry: entry.clone(), flags: 2, mode: 0o644, umask: 0, fd, xdata });
    let data = Bytes::from(vec![7; 4096]);
    let file = File { gfid, fd: Some(fd) };
    c.bench_function("replicate 3: WRITE of 4 KiB, the lock held already", |b| {
        b.iter(|| {
            let data = Payload::from_bytes(data.clone());
            ask(Fop::Write { file, offset: 4096, data, flags: 0, xdata: Dict::new() })
        });
    });
    c.bench_function("replicate 3: LOOKUP", |b| {
        b.iter(|| ask(Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() }));
    });
    SPAWNER.set(None);
}

criterion_group!(benches, hash, lock_table, buffer_pool, fan_out);
criterion_main!(benches);
