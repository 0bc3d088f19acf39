use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use futures::FutureExt;
use futures::task::noop_waker_ref;
use proptest::prelude::*;

use super::*;
use crate::{Iatt, LocalFuture, Timespec};

struct Below(Mutex<Vec<Fop>>);

impl Translator for Below {
    fn name(&self) -> &str {
        "below"
    }

    fn submit<'a>(&'a self, _: &'a Context, fop: Fop) -> FopFuture<'a> {
        let reply = match &fop {
            Fop::Lookup { gfid, .. } => Reply::Lookup {
                iatt: Box::new(Iatt { gfid: *gfid, ..Iatt::default() }),
                parent: Box::default(),
                xdata: Dict::new(),
            },
            Fop::Stat { .. } => {
                Reply::Iatt { iatt: Box::new(Iatt { mode: 0o102_644, ..Iatt::default() }), xdata: Dict::new() }
            }
            Fop::Getxattr { name, .. } | Fop::Fgetxattr { name, .. } => {
                let value = match &name[..] {
                    b"trusted.glusterfs.pathinfo" => Some("<POSIX(/bricks/b):node:/bricks/b/>"),
                    _ if self.0.lock().iter().any(|fop| matches!(fop, Fop::Setxattr { .. })) => Some("1"),
                    _ => None,
                };
                let xattrs = value.map(|value| Dict::new().with(name.clone(), Value::Str(value.into())));
                return Box::pin(async {
                    match xattrs {
                        Some(xattrs) => Ok(Reply::Xattrs { xattrs, xdata: Dict::new() }),
                        None => Err(FopError::new(errno::ENODATA, "no such xattr")),
                    }
                });
            }
            _ => Reply::done(),
        };
        self.0.lock().push(fop);
        Box::pin(async { Ok(reply) })
    }

    fn set_parent(&self, _: Weak<dyn Parent>, _: usize) {}
}

#[derive(Default)]
struct Clock(AtomicU64);

impl Runtime for Clock {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn wall_clock(&self) -> Timespec {
        Timespec::default()
    }

    fn sleep(&self, _: Duration) -> LocalFuture<'static, ()> {
        Box::pin(async {})
    }

    fn spawn(&self, _: LocalFuture<'static, ()>) {}

    fn random(&self) -> u64 {
        4
    }
}

struct Bench {
    locks: Arc<Locks>,
    below: Arc<Below>,
    clock: Arc<Clock>,
    told: Arc<Mutex<Vec<Contention>>>,
}

fn bench() -> Bench {
    let below = Arc::new(Below(Mutex::default()));
    let clock = Arc::new(Clock::default());
    let locks = Locks::new("locks", Arc::clone(&below) as _, &Options::new(), Arc::clone(&clock) as _).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = Arc::clone(&told);
    locks.on_contention(move |contention| tells.lock().push(contention));
    Bench { locks, below, clock, told }
}

const GFID: Gfid = Gfid::ROOT;

fn who(client: u64, owner: u64) -> Context {
    Context::root().with_client(ClientId(client)).with_lock_owner(LockOwner::from_u64(owner))
}

fn flock(kind: LockType, start: u64, len: u64) -> Flock {
    Flock { kind, whence: 0, start, len, pid: 7, owner: LockOwner::default() }
}

fn inodelk(cmd: LockCmd, kind: LockType, start: u64, len: u64) -> Fop {
    Fop::Inodelk { gfid: GFID, domain: "d".into(), cmd, flock: flock(kind, start, len), xdata: Dict::new() }
}

fn entrylk(name: Option<&'static str>, cmd: EntrylkCmd) -> Fop {
    let name = name.map(|name| Bytes::from_static(name.as_bytes()));
    Fop::Entrylk { gfid: GFID, domain: "d".into(), name, cmd, kind: LockType::Write, xdata: Dict::new() }
}

fn lk(cmd: LockCmd, kind: LockType, start: u64, len: u64, fd: u64) -> Fop {
    let file = File { gfid: GFID, fd: Some(FdId(fd)) };
    Fop::Lk { file, cmd, flock: flock(kind, start, len), xdata: Dict::new() }
}

fn errno_of(result: Option<FopResult>) -> i32 {
    match result {
        Some(Ok(_)) => 0,
        Some(Err(error)) => error.errno,
        None => -1,
    }
}

/// The outcome of a fop that is answered at once: 0, an errno, or -1 when it waits (and is withdrawn).
fn now(bench: &Bench, context: &Context, fop: Fop) -> i32 {
    errno_of(bench.locks.submit(context, fop).now_or_never())
}

fn poll(future: &mut FopFuture<'_>) -> i32 {
    match Pin::new(future).poll_unpin(&mut TaskContext::from_waker(noop_waker_ref())) {
        Poll::Ready(result) => errno_of(Some(result)),
        Poll::Pending => -1,
    }
}

use EntrylkCmd::{Lock, TryLock, Unlock as EntryUnlock};
use LockCmd::{Get, Set, SetWait};
use LockType::{Read, Unlock, Write};

#[test]
fn inodelks_conflict_between_owners_and_are_served_in_order() {
    let bench = bench();
    let (a, b, c) = (who(1, 1), who(2, 1), who(2, 2));
    assert_eq!(now(&bench, &a, inodelk(Set, Write, 0, 0)), 0);
    assert_eq!(now(&bench, &a, inodelk(Set, Write, 5, 5)), 0, "the same owner nests");
    assert_eq!(now(&bench, &b, inodelk(Set, Read, 7, 1)), errno::EAGAIN);
    let mut first = bench.locks.submit(&b, inodelk(SetWait, Write, 0, 0));
    let mut second = bench.locks.submit(&c, inodelk(SetWait, Write, 0, 0));
    assert_eq!((poll(&mut first), poll(&mut second)), (-1, -1));
    assert_eq!(now(&bench, &a, inodelk(Set, Unlock, 0, 0)), 0);
    assert_eq!(poll(&mut first), -1, "the nested lock still holds");
    assert_eq!(now(&bench, &a, inodelk(Set, Unlock, 5, 4)), errno::EINVAL, "an unlock names its range exactly");
    assert_eq!(now(&bench, &a, inodelk(Set, Unlock, 5, 5)), 0);
    assert_eq!((poll(&mut first), poll(&mut second)), (0, -1));
    assert_eq!(bench.locks.release_client(ClientId(2)), 2);
    assert_eq!(poll(&mut second), errno::EAGAIN);
    assert_eq!(bench.locks.counts(), LockCounts::default());
    assert_eq!(now(&bench, &b, inodelk(Set, Write, 0, 0)), errno::ENOTCONN, "an ended session takes no locks");
}

#[test]
fn a_waiter_is_not_starved_but_its_holder_may_nest() {
    let bench = bench();
    let (a, b, c) = (who(1, 1), who(2, 1), who(3, 1));
    assert_eq!(now(&bench, &a, inodelk(Set, Read, 0, 10)), 0);
    let mut waiter = bench.locks.submit(&b, inodelk(SetWait, Write, 0, 10));
    assert_eq!(poll(&mut waiter), -1);
    assert_eq!(now(&bench, &c, inodelk(Set, Read, 0, 10)), errno::EAGAIN, "behind the waiting writer");
    assert_eq!(now(&bench, &c, inodelk(Set, Read, 20, 10)), 0, "elsewhere");
    assert_eq!(now(&bench, &a, inodelk(Set, Read, 0, 10)), 0, "nested");
    drop(waiter);
    assert_eq!(bench.locks.counts(), LockCounts { granted: 3, waiting: 0 });
    assert_eq!(now(&bench, &c, inodelk(Set, Read, 0, 10)), 0, "the waiter left");
}

#[test]
fn a_waiter_that_leaves_after_its_grant_gives_the_lock_back() {
    let bench = bench();
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, inodelk(Set, Write, 0, 0)), 0);
    let mut waiter = bench.locks.submit(&b, inodelk(SetWait, Write, 0, 0));
    assert_eq!(poll(&mut waiter), -1);
    assert_eq!(now(&bench, &a, inodelk(Set, Unlock, 0, 0)), 0);
    drop(waiter);
    assert_eq!(bench.locks.counts(), LockCounts::default());
}

#[test]
fn bad_requests_are_refused() {
    let bench = bench();
    let a = who(1, 1);
    let nobody = Context::root().with_client(ClientId(1));
    assert_eq!(now(&bench, &nobody, inodelk(Set, Write, 0, 0)), errno::EINVAL);
    assert_eq!(now(&bench, &who(1, 0), entrylk(None, Lock)), errno::EINVAL);
    assert_eq!(now(&bench, &a, inodelk(Set, Write, u64::MAX, 1)), errno::EINVAL);
    assert_eq!(now(&bench, &a, inodelk(Set, Write, 1, u64::MAX)), errno::EINVAL);
    assert_eq!(now(&bench, &a, inodelk(Set, Write, i64::MAX as u64, i64::MAX as u64)), 0);
    assert_eq!(now(&bench, &a, inodelk(Get, Write, 0, 0)), errno::EOPNOTSUPP);
    assert_eq!(now(&bench, &a, entrylk(Some("x"), EntryUnlock)), errno::EINVAL);
    let empty =
        Fop::Entrylk { gfid: GFID, domain: Bytes::new(), name: None, cmd: Lock, kind: Write, xdata: Dict::new() };
    assert_eq!(now(&bench, &a, empty), errno::EINVAL);
    assert!(bench.below.0.lock().is_empty());
}

#[test]
fn a_whole_directory_conflicts_with_each_name() {
    let bench = bench();
    let (a, b) = (who(1, 1), who(1, 2));
    assert_eq!(now(&bench, &a, entrylk(Some("x"), TryLock)), 0);
    assert_eq!(now(&bench, &b, entrylk(Some("y"), TryLock)), 0);
    assert_eq!(now(&bench, &b, entrylk(Some("x"), TryLock)), errno::EAGAIN);
    assert_eq!(now(&bench, &b, entrylk(None, TryLock)), errno::EAGAIN);
    let mut all = bench.locks.submit(&b, entrylk(None, Lock));
    assert_eq!(poll(&mut all), -1);
    assert_eq!(now(&bench, &a, entrylk(Some("x"), EntryUnlock)), 0);
    assert_eq!(poll(&mut all), 0);
    assert_eq!(now(&bench, &a, entrylk(Some("z"), TryLock)), errno::EAGAIN);
}

#[test]
fn locks_of_one_domain_do_not_meet_those_of_another() {
    let bench = bench();
    assert_eq!(now(&bench, &who(1, 1), inodelk(Set, Write, 0, 0)), 0);
    let elsewhere =
        Fop::Inodelk { gfid: GFID, domain: "e".into(), cmd: Set, flock: flock(Write, 0, 0), xdata: Dict::new() };
    assert_eq!(now(&bench, &who(2, 1), elsewhere), 0);
    // The metadata range is a domain of its own.
    let metadata = i64::MAX as u64 - 1;
    assert_eq!(now(&bench, &who(2, 1), inodelk(Set, Write, metadata, 0)), 0);
    assert_eq!(now(&bench, &who(3, 1), inodelk(Set, Write, metadata, 0)), errno::EAGAIN);
}

#[test]
fn holders_are_told_once_per_delay() {
    let bench = bench();
    assert_eq!(now(&bench, &who(1, 1), inodelk(Set, Write, 0, 8)), 0);
    for _ in 0..3 {
        assert_eq!(now(&bench, &who(2, 1), inodelk(Set, Write, 0, 0)), errno::EAGAIN);
    }
    bench.clock.0.store(4, Ordering::Relaxed);
    assert_eq!(now(&bench, &who(2, 1), inodelk(Set, Write, 0, 0)), errno::EAGAIN);
    assert_eq!(bench.told.lock().len(), 1);
    bench.clock.0.store(5, Ordering::Relaxed);
    assert_eq!(now(&bench, &who(2, 1), inodelk(Set, Write, 0, 0)), errno::EAGAIN);
    assert_eq!(now(&bench, &who(1, 1), entrylk(Some("x"), TryLock)), 0);
    assert_eq!(now(&bench, &who(2, 1), entrylk(None, TryLock)), errno::EAGAIN);
    let told = bench.told.lock();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|contention| contention.client == ClientId(1) && contention.gfid == GFID));
    assert!(matches!(told[1].lock, ContendedLock::Inodelk(Flock { start: 0, len: 8, kind: Write, .. })));
    assert!(matches!(told[2].event(), Event::EntrylkContention { name: Some(_), .. }));
}

#[test]
fn posix_locks_split_merge_and_wait() {
    let bench = bench();
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, lk(Set, Write, 0, 100, 1)), 0);
    assert_eq!(now(&bench, &a, lk(Set, Unlock, 40, 20, 1)), 0);
    assert_eq!(now(&bench, &b, lk(Set, Write, 40, 20, 1)), 0);
    assert_eq!(now(&bench, &b, lk(Set, Read, 39, 1, 1)), errno::EAGAIN);
    let Some(Ok(Reply::Lk { flock, .. })) = bench.locks.submit(&b, lk(Get, Read, 60, 0, 1)).now_or_never() else {
        panic!("no answer")
    };
    assert_eq!((flock.kind, flock.start, flock.len, flock.pid), (Write, 60, 40, 7));
    assert_eq!(flock.owner, LockOwner::from_u64(1));
    let mut waiter = bench.locks.submit(&b, lk(SetWait, Write, 0, 10, 1));
    assert_eq!(poll(&mut waiter), -1);
    let flush = Fop::Flush { file: File { gfid: GFID, fd: Some(FdId(1)) }, xdata: Dict::new() };
    assert_eq!(now(&bench, &a, flush), 0);
    assert_eq!(poll(&mut waiter), 0);
    assert_eq!(bench.locks.counts(), LockCounts { granted: 2, waiting: 0 });
    assert_eq!(now(&bench, &b, Fop::Release { file: File { gfid: GFID, fd: Some(FdId(1)) } }), 0);
    assert_eq!(bench.locks.counts(), LockCounts::default());
}

#[test]
fn two_who_upgrade_do_not_wait_for_each_other() {
    let bench = bench();
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, lk(Set, Read, 0, 1, 1)), 0);
    assert_eq!(now(&bench, &b, lk(Set, Read, 0, 1, 1)), 0);
    let mut first = bench.locks.submit(&a, lk(SetWait, Write, 0, 1, 1));
    assert_eq!(poll(&mut first), -1);
    assert_eq!(now(&bench, &b, lk(Set, Write, 0, 1, 1)), 0, "the first gave up its shared lock");
    assert_eq!(now(&bench, &b, lk(Set, Unlock, 0, 0, 1)), 0);
    assert_eq!(poll(&mut first), 0);
}

#[test]
fn counts_are_answered_and_not_passed_on() {
    let bench = bench();
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, inodelk(Set, Write, 0, 1)), 0);
    assert_eq!(now(&bench, &a, entrylk(Some("x"), TryLock)), 0);
    assert_eq!(now(&bench, &a, lk(Set, Read, 0, 1, 1)), 0);
    let mut waiter = bench.locks.submit(&b, inodelk(SetWait, Write, 0, 0));
    assert_eq!(poll(&mut waiter), -1);
    let entry = crate::fop::Entry { parent: GFID, name: "x".into() };
    let xdata = Dict::new()
        .with(key::INODELK_COUNT, Value::Int(0))
        .with(key::ENTRYLK_COUNT, Value::Int(0))
        .with(key::POSIXLK_COUNT, Value::Int(0))
        .with(key::PARENT_ENTRYLK, Value::Int(0))
        .with(key::MULTI_DOM, Value::Int(1))
        .with("glusterfs.inodelk-dom-prefix:d", Value::Int(0))
        .with("glusterfs.inodelk-dom-prefix:e", Value::Int(0))
        .with("trusted.afr.x", Value::Int(0));
    let lookup = Fop::Lookup { gfid: GFID, entry: Some(entry), xdata };
    let reply = bench.locks.submit(&b, lookup).now_or_never().unwrap().unwrap();
    let count = |key: &str| reply.xdata().int(key);
    assert_eq!((count(key::INODELK_COUNT), count(key::ENTRYLK_COUNT)), (Some(2), Some(1)));
    assert_eq!((count(key::POSIXLK_COUNT), count(key::PARENT_ENTRYLK)), (Some(1), Some(1)));
    assert_eq!(count("glusterfs.inodelk-dom-prefix:d"), Some(2));
    assert_eq!(count("glusterfs.inodelk-dom-prefix:e"), Some(0));
    let below = bench.below.0.lock();
    let passed = below.last().unwrap().xdata().unwrap();
    assert_eq!((passed.len(), passed.contains("trusted.afr.x")), (1, true));
}

#[test]
fn a_client_cannot_hold_locks_without_bound() {
    let bench = bench();
    for n in 0..MAX_LOCKS_PER_CLIENT {
        let mut gfid = [0; 16];
        gfid[8..].copy_from_slice(&(n as u64).to_be_bytes());
        let fop = Fop::Inodelk {
            gfid: Gfid(gfid),
            domain: "d".into(),
            cmd: Set,
            flock: flock(Write, 0, 0),
            xdata: Dict::new(),
        };
        assert_eq!(now(&bench, &who(1, 1), fop), 0);
    }
    assert_eq!(now(&bench, &who(1, 1), entrylk(None, Lock)), errno::ENOLCK);
    assert_eq!(now(&bench, &who(1, 1), lk(Set, Read, 0, 1, 1)), errno::ENOLCK);
    assert_eq!(now(&bench, &who(2, 1), entrylk(None, Lock)), 0);
    assert_eq!(bench.locks.release_client(ClientId(1)), MAX_LOCKS_PER_CLIENT);
    assert_eq!(bench.locks.counts(), LockCounts { granted: 1, waiting: 0 });
}

#[derive(Clone, Debug)]
enum Step {
    Lock { who: u8, start: u64, len: u64, write: bool, wait: bool },
    Unlock { who: u8, pick: usize },
    Leave { pick: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..4, 0u64..8, 0u64..4, any::<bool>(), any::<bool>())
            .prop_map(|(who, start, len, write, wait)| Step::Lock { who, start, len, write, wait }),
        3 => (0u8..4, any::<usize>()).prop_map(|(who, pick)| Step::Unlock { who, pick }),
        1 => any::<usize>().prop_map(|pick| Step::Leave { pick }),
    ];
    proptest::collection::vec(step, 1..40)
}

type Ask = (u8, u64, u64, bool);

fn end(ask: &Ask) -> u64 {
    if ask.2 == 0 { u64::MAX } else { ask.1 + ask.2 - 1 }
}

fn meet(a: &Ask, b: &Ask) -> bool {
    a.1 <= end(b) && b.1 <= end(a) && (a.3 || b.3)
}

proptest! {
    /// Whatever happens: no two owners hold what conflicts; who waits has a reason; nothing is left at the end.
    #[test]
    fn inodelks_keep_their_promise(steps in steps()) {
        let bench = bench();
        let contexts: Vec<Context> = (0..4).map(|n| who(1 + n / 2, 1 + n)).collect();
        let mut held: Vec<Ask> = Vec::new();
        let mut waiting: Vec<(Ask, FopFuture<'_>)> = Vec::new();
        for step in steps {
            match step {
                Step::Lock { who, start, len, write, wait } => {
                    let ask = (who, start, len, write);
                    let cmd = if wait { SetWait } else { Set };
                    let kind = if write { Write } else { Read };
                    let mut future = bench.locks.submit(&contexts[usize::from(who)], inodelk(cmd, kind, start, len));
                    let taken = held.iter().any(|h| h.0 != who && meet(h, &ask));
                    let known = held.iter().any(|h| h.0 == who) || waiting.iter().any(|(w, _)| w.0 == who);
                    let behind = !known && waiting.iter().any(|(w, _)| meet(w, &ask));
                    let expected = match (taken || behind, wait) {
                        (false, _) => 0,
                        (true, true) => -1,
                        (true, false) => errno::EAGAIN,
                    };
                    prop_assert_eq!(poll(&mut future), expected);
                    match expected {
                        0 => held.push(ask),
                        -1 => waiting.push((ask, future)),
                        _ => {}
                    }
                }
                Step::Unlock { who, pick } => {
                    let mine: Vec<usize> = (0..held.len()).filter(|at| held[*at].0 == who).collect();
                    let Some(at) = (!mine.is_empty()).then(|| mine[pick % mine.len()]) else { continue };
                    let (_, start, len, _) = held[at];
                    // The newest of equal ranges goes.
                    let at = held.iter().rposition(|h| h.0 == who && h.1 == start && h.2 == len).unwrap();
                    held.remove(at);
                    prop_assert_eq!(now(&bench, &contexts[usize::from(who)], inodelk(Set, Unlock, start, len)), 0);
                }
                Step::Leave { pick } => {
                    if !waiting.is_empty() {
                        let at = pick % waiting.len();
                        drop(waiting.remove(at));
                    }
                }
            }
            let mut still = Vec::new();
            for (ask, mut future) in waiting {
                match poll(&mut future) {
                    0 => held.push(ask),
                    code => {
                        prop_assert_eq!(code, -1);
                        still.push((ask, future));
                    }
                }
            }
            waiting = still;
            for (n, a) in held.iter().enumerate() {
                prop_assert!(held[..n].iter().all(|b| a.0 == b.0 || !meet(a, b)), "{:?}", held);
            }
            for (n, (ask, _)) in waiting.iter().enumerate() {
                let reason = held.iter().any(|h| h.0 != ask.0 && meet(h, ask))
                    || waiting[..n].iter().any(|(w, _)| meet(w, ask));
                prop_assert!(reason, "{:?} waits for nothing; held {:?}", ask, held);
            }
            let counts = bench.locks.counts();
            prop_assert_eq!((counts.granted, counts.waiting), (held.len(), waiting.len()));
        }
        bench.locks.release_client(ClientId(1));
        bench.locks.release_client(ClientId(2));
        prop_assert_eq!(bench.locks.counts(), LockCounts::default());
        for (_, mut future) in waiting {
            prop_assert!(poll(&mut future) >= 0, "a waiter outlived its client");
        }
    }

    /// Byte by byte, posix locks are what a table of bytes says.
    #[test]
    fn posix_locks_are_what_each_byte_says(
        steps in proptest::collection::vec((0u8..3, 0u64..12, 0u64..6, 0u8..3), 1..60)
    ) {
        const BYTES: usize = 24;
        let bench = bench();
        let contexts: Vec<Context> = (0..3).map(|n| who(1, 1 + n)).collect();
        let mut bytes: Vec<[u8; 3]> = vec![[0; 3]; BYTES];
        for (who, start, len, kind) in steps {
            let me = usize::from(who);
            let range = start as usize..if len == 0 { BYTES } else { (start + len) as usize };
            let blocked = kind > 0
                && bytes[range.clone()].iter().any(|byte| {
                    (0..3).any(|other| other != me && byte[other] > 0 && (kind == 2 || byte[other] == 2))
                });
            let lock = match kind {
                0 => Unlock,
                1 => Read,
                _ => Write,
            };
            let outcome = now(&bench, &contexts[me], lk(Set, lock, start, len, 1));
            prop_assert_eq!(outcome, if blocked { errno::EAGAIN } else { 0 });
            if !blocked {
                bytes[range].iter_mut().for_each(|byte| byte[me] = kind);
            }
            for (at, byte) in bytes.iter().enumerate() {
                for (asks, context) in contexts.iter().enumerate() {
                    let get = bench.locks.submit(context, lk(Get, Write, at as u64, 1, 1)).now_or_never();
                    let Some(Ok(Reply::Lk { flock, .. })) = get else { panic!("no answer") };
                    let taken = (0..3).any(|other| other != asks && byte[other] > 0);
                    prop_assert_eq!(flock.kind != Unlock, taken, "byte {}", at);
                }
            }
        }
        // Merged: as many locks as the table has runs.
        let runs: usize = (0..3)
            .map(|me| {
                (0..BYTES).filter(|at| bytes[*at][me] > 0 && (*at == 0 || bytes[at - 1][me] != bytes[*at][me])).count()
            })
            .sum();
        prop_assert_eq!(bench.locks.counts().granted, runs);
        bench.locks.release_client(ClientId(1));
        prop_assert_eq!(bench.locks.counts(), LockCounts::default());
    }
}

fn tuned(options: &[(&str, &str)]) -> Bench {
    let bench = bench();
    let mut given = Options::new();
    options.iter().for_each(|(key, value)| given.set(*key, *value));
    bench.locks.reconfigure(&given).unwrap();
    bench
}

fn write(fd: Option<u64>, offset: u64, len: usize) -> Fop {
    let data = crate::Payload::from_bytes(vec![0; len].into());
    Fop::Write { file: File { gfid: GFID, fd: fd.map(FdId) }, offset, data, flags: 0, xdata: Dict::new() }
}

fn read(fd: Option<u64>, offset: u64, size_bytes: u32) -> Fop {
    Fop::Read { file: File { gfid: GFID, fd: fd.map(FdId) }, offset, size_bytes, flags: 0, xdata: Dict::new() }
}

fn mandatory(mut fop: Fop) -> Fop {
    fop.xdata_mut().unwrap().set(key::LOCK_MODE, Value::Uint(1));
    fop
}

fn text_of(bench: &Bench, context: &Context, name: &'static str) -> Result<String, i32> {
    let fop = Fop::Getxattr { gfid: GFID, name: name.into(), xdata: Dict::new() };
    match bench.locks.submit(context, fop).now_or_never().expect("at once") {
        Ok(Reply::Xattrs { xattrs, .. }) => Ok(xattrs.text(name).unwrap().to_owned()),
        Ok(other) => panic!("{other:?}"),
        Err(e) => Err(e.errno),
    }
}

#[test]
fn forced_locks_hold_up_io_of_others_until_they_go() {
    let bench = tuned(&[("mandatory-locking", "forced")]);
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, lk(Set, Read, 0, 10, 1)), 0);
    assert_eq!(now(&bench, &b, read(Some(2), 0, 5)), 0, "readers share");
    assert_eq!(now(&bench, &a, write(Some(1), 0, 5)), 0, "an owner is not held up by himself");
    assert_eq!(now(&bench, &b, write(Some(2), 10, 5)), 0, "elsewhere");
    let mut waits = bench.locks.submit(&b, write(Some(2), 9, 5));
    assert_eq!(poll(&mut waits), -1);
    assert_eq!(now(&bench, &b, Fop::Truncate { gfid: GFID, size_bytes: 5, xdata: Dict::new() }), errno::EAGAIN);
    let open = Fop::Open { gfid: GFID, flags: 0o1002, fd: FdId(3), xdata: Dict::new() };
    assert_eq!(now(&bench, &b, open), errno::EAGAIN, "truncates");
    let open = Fop::Open { gfid: GFID, flags: 0o4002, fd: FdId(4), xdata: Dict::new() };
    assert_eq!(now(&bench, &b, open), 0);
    assert_eq!(now(&bench, &b, write(Some(4), 9, 5)), errno::EAGAIN, "a descriptor that does not block");
    let heal = Context { pid: Context::PID_SELF_HEALD, ..b.clone() };
    assert_eq!(now(&bench, &heal, write(None, 0, 5)), 0);
    assert_eq!(now(&bench, &a, lk(Set, Unlock, 0, 10, 1)), 0);
    assert_eq!(poll(&mut waits), 0);
    drop(waits);
    // What a client may have waiting is bounded, so that its unlock gets through.
    assert_eq!(now(&bench, &a, lk(Set, Write, 0, 0, 1)), 0);
    let mut all: Vec<_> = (0..70).map(|_| bench.locks.submit(&b, write(Some(2), 0, 1))).collect();
    let refused = all.iter_mut().map(poll).filter(|outcome| *outcome == errno::EAGAIN).count();
    assert_eq!(refused, 70 - 64);
    assert_eq!(bench.locks.release_client(ClientId(1)), 1);
    assert!(all.iter_mut().take(64).map(poll).all(|outcome| outcome == 0));
}

#[test]
fn waiting_io_is_bounded_in_bytes_and_goes_with_its_client() {
    let bench = tuned(&[("mandatory-locking", "forced")]);
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, lk(Set, Write, 0, 0, 1)), 0);
    // 16 MiB in reads and writes; the unlock of a connection that may have 64 MiB under way gets through.
    let mut all: Vec<_> = (0..2).map(|_| bench.locks.submit(&b, write(Some(2), 0, 4 << 20))).collect();
    all.extend((0..2).map(|_| bench.locks.submit(&b, read(Some(2), 0, 4 << 20))));
    assert!(all.iter_mut().map(poll).all(|outcome| outcome == -1));
    assert_eq!(now(&bench, &b, write(Some(2), 0, 1)), errno::EAGAIN);
    // One that is given up makes room.
    drop(all.pop());
    let mut last = bench.locks.submit(&b, write(Some(2), 0, 1));
    assert_eq!(poll(&mut last), -1);
    let done = bench.below.0.lock().len();
    assert_eq!(bench.locks.release_client(ClientId(2)), 0);
    assert!(all.iter_mut().map(poll).all(|outcome| outcome == errno::EAGAIN));
    assert_eq!(now(&bench, &a, lk(Set, Unlock, 0, 0, 1)), 0);
    assert_eq!(poll(&mut last), errno::EAGAIN);
    drop((all, last));
    // Woken by the unlock, but its client goes before it looks.
    let c = who(3, 1);
    assert_eq!(now(&bench, &a, lk(Set, Write, 0, 0, 1)), 0);
    let mut late = bench.locks.submit(&c, write(Some(2), 0, 1));
    assert_eq!(poll(&mut late), -1);
    assert_eq!(now(&bench, &a, lk(Set, Unlock, 0, 0, 1)), 0);
    bench.locks.release_client(ClientId(3));
    assert_eq!(poll(&mut late), errno::ENOTCONN);
    let writes = bench.below.0.lock().iter().skip(done).filter(|fop| matches!(fop, Fop::Write { .. })).count();
    assert_eq!(writes, 0, "none was carried out");
}

#[test]
fn optimal_and_file_modes_ask_for_more_than_a_lock() {
    let bench = tuned(&[("mandatory-locking", "optimal")]);
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, lk(Set, Write, 0, 10, 1)), 0);
    assert_eq!(now(&bench, &b, write(Some(2), 0, 5)), 0, "an advisory lock");
    assert_eq!(now(&bench, &a, mandatory(lk(Set, Write, 0, 10, 1))), 0);
    let mut waits = bench.locks.submit(&b, write(Some(2), 0, 5));
    assert_eq!(poll(&mut waits), -1);
    drop(waits);
    let bench = tuned(&[("mandatory-locking", "file")]);
    assert_eq!(now(&bench, &a, lk(Set, Write, 0, 10, 1)), 0);
    let mut waits = bench.locks.submit(&b, read(Some(2), 0, 5));
    assert_eq!(poll(&mut waits), -1, "the file below has set-gid without group execution");
}

#[test]
fn a_fenced_file_is_for_who_holds_a_lock() {
    let fence = || {
        let xattrs = Dict::new().with("trusted.glusterfs.enforce-mandatory-lock", Value::Str("1".into()));
        Fop::Setxattr { gfid: GFID, xattrs, flags: 0, xdata: Dict::new() }
    };
    let bench = bench();
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, fence()), errno::EINVAL, "not while the options are off");
    let bench = tuned(&[("mandatory-locking", "optimal"), ("enforce-mandatory-lock", "on")]);
    assert_eq!(now(&bench, &a, write(Some(1), 0, 5)), 0);
    assert_eq!(now(&bench, &a, fence()), 0);
    assert_eq!(now(&bench, &a, write(Some(1), 0, 5)), errno::EBUSY);
    assert_eq!(now(&bench, &a, lk(Set, Write, 0, 0, 1)), 0);
    assert_eq!(now(&bench, &a, write(Some(1), 0, 5)), 0);
    assert_eq!(now(&bench, &b, read(Some(2), 0, 5)), errno::EAGAIN);
    assert_eq!(now(&bench, &b, lk(Set, Write, 0, 0, 2)), 0, "takes it from whoever had it");
    assert_eq!(now(&bench, &a, write(Some(1), 0, 5)), errno::EBUSY);
    assert_eq!(now(&bench, &b, write(Some(2), 0, 5)), 0);
}

#[test]
fn locks_are_cleared_and_waiters_interrupted() {
    let bench = bench();
    let process = |client: u64, owner: u64, pid: i32| Context { pid, ..who(client, owner) };
    let (a, b, c) = (process(1, 1, 10), process(2, 2, 20), process(2, 3, 30));
    assert_eq!(now(&bench, &a, lk(Set, Write, 0, 10, 1)), 0);
    let mut first = bench.locks.submit(&b, lk(SetWait, Write, 0, 10, 2));
    let mut second = bench.locks.submit(&c, lk(SetWait, Write, 0, 10, 3));
    assert_eq!((poll(&mut first), poll(&mut second)), (-1, -1));
    let interrupt = "glusterfs.intrlk.tposix.kblocked.0,0-10";
    assert_eq!(text_of(&bench, &process(3, 2, 20), interrupt).unwrap(), "No locks cleared.", "another client's");
    assert_eq!(
        text_of(&bench, &process(2, 9, 20), interrupt).unwrap(),
        "node:/bricks/b/: posix blocked locks=1 granted locks=0"
    );
    assert_eq!((poll(&mut first), poll(&mut second)), (errno::EINTR, -1));
    let user = Context { uid: 1000, ..a.clone() };
    assert_eq!(text_of(&bench, &user, "glusterfs.clrlk.tposix.kall"), Err(errno::EPERM));
    assert_eq!(text_of(&bench, &a, "glusterfs.clrlk.tposix"), Err(errno::EINVAL));
    assert!(
        text_of(&bench, &a, "glusterfs.clrlk.tposix.kgranted").unwrap().ends_with("blocked locks=0 granted locks=1")
    );
    assert_eq!(poll(&mut second), 0, "who waited for it has it now");
    assert_eq!(now(&bench, &a, inodelk(Set, Write, 0, 10)), 0);
    assert_eq!(now(&bench, &a, entrylk(Some("x"), TryLock)), 0);
    let mut waits = bench.locks.submit(&b, inodelk(SetWait, Write, 5, 1));
    assert_eq!(poll(&mut waits), -1);
    assert_eq!(text_of(&bench, &a, "glusterfs.clrlk.tinode.kall.0,7-1").unwrap(), "No locks cleared.");
    assert!(text_of(&bench, &a, "glusterfs.clrlk.tinode.kall").unwrap().ends_with("blocked locks=1 granted locks=1"));
    assert_eq!(poll(&mut waits), errno::EAGAIN);
    assert!(text_of(&bench, &a, "glusterfs.clrlk.tentry.kall.x").unwrap().ends_with("granted locks=1"));
    assert_eq!(bench.locks.release_client(ClientId(2)), 1);
    assert_eq!(bench.locks.counts(), LockCounts::default());
}

#[test]
fn overdue_locks_are_revoked() {
    let bench = tuned(&[("revocation-secs", "10"), ("revocation-clear-all", "on")]);
    let (a, b, c) = (who(1, 1), who(2, 1), who(3, 1));
    assert_eq!(now(&bench, &a, inodelk(Set, Write, 0, 0)), 0);
    let mut waits = bench.locks.submit(&b, inodelk(SetWait, Write, 0, 0));
    assert_eq!(poll(&mut waits), -1);
    bench.clock.0.store(11, Ordering::Relaxed);
    assert_eq!(now(&bench, &c, inodelk(Set, Write, 0, 0)), 0);
    assert_eq!(poll(&mut waits), errno::EAGAIN);
    assert_eq!(now(&bench, &a, inodelk(Set, Unlock, 0, 0)), errno::EINVAL, "it was taken away");
    let bench = tuned(&[("revocation-max-blocked", "1")]);
    assert_eq!(now(&bench, &a, inodelk(Set, Write, 0, 0)), 0);
    let mut waits = bench.locks.submit(&b, inodelk(SetWait, Write, 0, 0));
    assert_eq!(poll(&mut waits), -1);
    assert_eq!(now(&bench, &c, inodelk(Set, Write, 0, 0)), errno::EAGAIN, "behind the one who waited");
    assert_eq!(poll(&mut waits), 0);
}

#[test]
fn locks_move_with_their_descriptor_and_their_file() {
    let bench = bench();
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, lk(Set, Write, 0, 10, 1)), 0);
    let ask = |fd: u64| Fop::Fgetxattr {
        file: File { gfid: GFID, fd: Some(FdId(fd)) },
        name: lockinfo::KEY.into(),
        xdata: Dict::new(),
    };
    let Some(Ok(Reply::Xattrs { xattrs, .. })) = bench.locks.submit(&a, ask(1)).now_or_never() else { panic!() };
    let give = |info: Value| Fop::Fsetxattr {
        file: File { gfid: GFID, fd: Some(FdId(2)) },
        xattrs: Dict::new().with(lockinfo::KEY, info),
        flags: 0,
        xdata: Dict::new(),
    };
    assert_eq!(now(&bench, &b, give(Value::Ptr("nonsense".into()))), errno::EINVAL);
    let info = xattrs.get(lockinfo::KEY).unwrap().clone();
    assert_eq!(now(&bench, &b, give(info)), 0);
    assert_eq!(bench.locks.release_client(ClientId(1)), 0, "the locks are another client's now");
    assert_eq!(bench.locks.counts().granted, 1);
    // Another brick takes them over, by the names of their clients.
    bench.locks.name_client(ClientId(2), "client-b");
    let get = Fop::Getactivelk { gfid: GFID, xdata: Dict::new() };
    let Some(Ok(Reply::Activelk { locks, .. })) = bench.locks.submit(&b, get).now_or_never() else { panic!() };
    assert_eq!((locks.len(), &locks[0].client[..], locks[0].flock.len), (1, &b"client-b"[..], 10));
    let other = self::bench();
    let set = || Fop::Setactivelk { gfid: GFID, locks: locks.clone(), xdata: Dict::new() };
    let rebalance = Context { pid: Context::PID_REBALANCE, ..who(9, 1) };
    assert_eq!(now(&other, &b, set()), errno::EPERM);
    assert_eq!(now(&other, &rebalance, set()), errno::ENOTCONN, "nobody of that name is here");
    other.locks.name_client(ClientId(7), "client-b");
    assert_eq!(now(&other, &rebalance, set()), 0);
    assert_eq!(now(&other, &rebalance, set()), errno::EEXIST);
    assert_eq!(now(&other, &who(8, 1), lk(Set, Read, 0, 1, 1)), errno::EAGAIN);
    assert_eq!(other.locks.release_client(ClientId(7)), 1);
}

#[test]
fn a_negative_length_is_that_of_the_bytes_before() {
    let bench = bench();
    let (a, b) = (who(1, 1), who(2, 1));
    assert_eq!(now(&bench, &a, lk(Set, Write, 10, (-5i64).cast_unsigned(), 1)), 0);
    assert_eq!(now(&bench, &b, lk(Set, Write, 10, 5, 2)), 0);
    assert_eq!(now(&bench, &b, lk(Set, Write, 5, 1, 2)), errno::EAGAIN);
    assert_eq!(now(&bench, &b, lk(Set, Write, 2, (-5i64).cast_unsigned(), 2)), errno::EINVAL);
}
