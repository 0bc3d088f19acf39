//! What translators know of this executor: a clock, a spawner, randomness.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ladrillo_translator::{LocalFuture, Runtime, Timespec};

/// The [`Runtime`] of graphs that run on executors; one serves all threads.
pub struct RingRuntime {
    start: Instant,
}

impl RingRuntime {
    /// Its clock starts now.
    pub fn new() -> RingRuntime {
        RingRuntime { start: Instant::now() }
    }
}

impl Default for RingRuntime {
    fn default() -> RingRuntime {
        RingRuntime::new()
    }
}

/// The wall clock as translators carry it.
pub fn wall_clock() -> Timespec {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => {
            Timespec { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
        }
        Err(_) => Timespec::default(), // a clock before 1970: not set
    }
}

impl Runtime for RingRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_clock(&self) -> Timespec {
        wall_clock()
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()> {
        Box::pin(super::sleep(duration))
    }

    fn spawn(&self, task: LocalFuture<'static, ()>) {
        super::spawn_boxed(task);
    }

    /// splitmix64 from a seed the system gave: for jitter and identifiers, not for secrets.
    fn random(&self) -> u64 {
        thread_local! {
            static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
        }
        STATE.with(|state| {
            let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
            state.set(next);
            let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }
}
