//! glommio as translators see it: clock, spawner, and the pool of threads that wait for disks.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use ladrillo_translator::{FopResult, LocalFuture, Runtime, Timespec};

use crate::storage::{Job, Offload};

/// The runtime of a brick's executors.
pub struct GlommioRuntime {
    start: Instant,
}

impl Default for GlommioRuntime {
    fn default() -> GlommioRuntime {
        GlommioRuntime { start: Instant::now() }
    }
}

impl Runtime for GlommioRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_clock(&self) -> Timespec {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timespec { seconds: t.tv_sec, nanos: u32::try_from(t.tv_nsec).unwrap_or(0) }
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()> {
        Box::pin(async move {
            glommio::timer::sleep(duration).await;
        })
    }

    fn spawn(&self, task: LocalFuture<'static, ()>) {
        glommio::spawn_local(task).detach();
    }

    fn random(&self) -> u64 {
        thread_local! {
            static COUNTER: Cell<u64> = const { Cell::new(0) };
        }
        // RandomState is seeded by the operating system; the counter makes each call another hash.
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u64(COUNTER.replace(COUNTER.get().wrapping_add(1)));
        hasher.finish()
    }
}

/// The executor's own pool of threads.
pub struct Pool;

impl Offload for Pool {
    fn run(&self, job: Job) -> LocalFuture<'static, FopResult> {
        Box::pin(glommio::executor().spawn_blocking(job))
    }
}
