//! The heal service's rounds: when to look at the indices, how many files at once, what was done.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::{Either, select};
use ladrillo_translator::{Context, Dict, Fop, Gfid, Reply, Runtime};
use parking_lot::Mutex;

use super::healer::{HealResult, Healed, Healer, Trouble};
use super::index::Index;
use crate::translators::replicate::{Mask, Replicate};

/// Rounds in a row that may heal something before the service waits again.
const MAX_ROUNDS: usize = 64;
/// How soon a round that left something undone is repeated.
const RETRY: Duration = Duration::from_secs(10);
/// How long a brick that came back may settle before it is healed: its mates connect too.
const SETTLE: Duration = Duration::from_millis(500);
/// Directories of a full crawl waiting to be read.
const MAX_CRAWL: usize = 1 << 16;

/// What the service has done since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files and directories brought up to date.
    pub healed: u64,
    /// Attempts that came to nothing for now.
    pub failed: u64,
    /// Inodes found in split-brain (each time they were met).
    pub split_brain: u64,
    /// Looks at the indices.
    pub rounds: u64,
}

/// The service for one replica set.
pub struct HealService {
    healer: Arc<Healer>,
    runtime: Arc<dyn Runtime>,
    /// Children whose indices are read here; the others' heal services read theirs.
    mine: Mask,
    wake: Mutex<Wake>,
    stopped: AtomicBool,
    healed: AtomicU64,
    failed: AtomicU64,
    split_brain: AtomicU64,
    rounds: AtomicU64,
}

/// An inode in a brick's index.
struct Listed {
    child: usize,
    directory: Gfid,
    gfid: Gfid,
    index: Index,
    /// Met before in this round.
    again: bool,
}

#[derive(Default)]
struct Wake {
    waiter: Option<oneshot::Sender<()>>,
    wanted: bool,
    full: bool,
}

impl HealService {
    /// A service that reads the indices of the children `mine` says (all of them: `|_| true`).
    pub fn new(replicate: Arc<Replicate>, runtime: Arc<dyn Runtime>, mine: impl Fn(usize) -> bool) -> Arc<HealService> {
        let mine = replicate.everyone().iter().filter(|child| mine(*child)).collect();
        Arc::new(HealService {
            healer: Arc::new(Healer::new(replicate)),
            runtime,
            mine,
            wake: Mutex::default(),
            stopped: AtomicBool::new(false),
            healed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            split_brain: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
        })
    }

    /// Begins to heal: now, whenever a child comes back, and every `heal-timeout`. Called on a thread of the runtime.
    pub fn start(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.healer.replicate.on_change(Box::new(move |_, up| {
            if up && let Some(service) = weak.upgrade() {
                service.heal_now(false);
            }
        }));
        let service = self.clone();
        self.runtime.spawn(Box::pin(async move { service.run().await }));
    }

    /// Heals now: what the indices list, or (`full`) every file there is.
    pub fn heal_now(&self, full: bool) {
        let mut wake = self.wake.lock();
        wake.wanted = true;
        wake.full |= full;
        if let Some(waiter) = wake.waiter.take() {
            // A service that is not waiting looks at `wanted` by itself.
            let _ = waiter.send(());
        }
    }

    /// Ends the service after the files it is at.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.heal_now(false);
    }

    /// What has been done.
    pub fn progress(&self) -> Progress {
        Progress {
            healed: self.healed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            split_brain: self.split_brain.load(Ordering::Relaxed),
            rounds: self.rounds.load(Ordering::Relaxed),
        }
    }

    /// One look at all indices of this service's children, repeated as long as it heals something. True: nothing is
    /// left that could be healed. (For tests and for `glusterfs --heal-once`; [`HealService::start`] does it by itself.)
    pub async fn heal_round(&self) -> bool {
        for _ in 0..MAX_ROUNDS {
            let before = self.progress();
            let complete = self.sweep_all().await;
            let after = self.progress();
            let troubled = after.failed != before.failed || after.split_brain != before.split_brain || !complete;
            if after.healed == before.healed || self.is_stopped() {
                return !troubled;
            }
        }
        false
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    async fn run(self: Arc<Self>) {
        let timeout = self.healer.replicate.settings().heal_timeout;
        let mut pause = SETTLE;
        while !self.is_stopped() {
            self.wait(pause).await;
            if self.is_stopped() {
                return;
            }
            let full = {
                let mut wake = self.wake.lock();
                wake.wanted = false;
                std::mem::take(&mut wake.full)
            };
            let replicate = &self.healer.replicate;
            if !replicate.settings().self_heal_daemon || replicate.up().count() < 2 {
                pause = timeout;
                continue;
            }
            if full {
                self.full_crawl().await;
            }
            let done = self.heal_round().await;
            let able = replicate.up() == replicate.everyone();
            pause = if done || !able { timeout } else { RETRY.min(timeout) };
        }
    }

    /// Waits for `pause`, or for somebody who wants a heal (a moment longer then, so that a brick's mates are up too).
    async fn wait(&self, pause: Duration) {
        let waiter = {
            let mut wake = self.wake.lock();
            let (sender, receiver) = oneshot::channel();
            if wake.wanted {
                None
            } else {
                wake.waiter = Some(sender);
                Some(receiver)
            }
        };
        if let Some(waiter) = waiter
            && let Either::Left(_) = select(self.runtime.sleep(pause), waiter).await
        {
            return;
        }
        self.runtime.sleep(SETTLE).await;
    }

    /// Reads all indices once. False: one could not be read.
    async fn sweep_all(&self) -> bool {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        let mut complete = true;
        let mut seen: HashSet<Gfid> = HashSet::new();
        for child in self.mine.iter() {
            if !self.healer.replicate.up().has(child) {
                complete = false;
                continue;
            }
            for index in [Index::Pending, Index::Dirty, Index::EntryChanges] {
                if self.is_stopped() {
                    return false;
                }
                if let Err(trouble) = self.sweep(child, index, &mut seen).await {
                    tracing::warn!(child, ?index, ?trouble, "an index could not be read to its end");
                    complete = false;
                }
            }
        }
        complete
    }

    async fn sweep(&self, child: usize, index: Index, seen: &mut HashSet<Gfid>) -> HealResult<()> {
        let context = self.healer.context();
        let Some(directory) = self.healer.index_directory(&context, child, index).await? else { return Ok(()) };
        let parallel = self.healer.replicate.settings().heal_parallel.max(1);
        let most = self.healer.replicate.settings().heal_queue.max(1);
        let mut offset = 0;
        loop {
            let (gfids, next) = self.healer.read_index(&context, child, directory, offset).await?;
            for batch in gfids.chunks(most) {
                let (context, met) = (&context, &*seen);
                let work = batch.iter().map(|gfid| {
                    // An inode that several bricks list is healed once a round.
                    let listed = Listed { child, directory, gfid: *gfid, index, again: met.contains(gfid) };
                    self.heal_listed(context, listed)
                });
                futures::stream::iter(work).buffer_unordered(parallel).collect::<Vec<()>>().await;
                if seen.len() < MAX_CRAWL {
                    seen.extend(batch);
                }
            }
            match next {
                Some(next) if !self.is_stopped() => offset = next,
                _ => return Ok(()),
            }
        }
    }

    async fn heal_listed(&self, context: &Context, listed: Listed) {
        let Listed { child, directory, gfid, index, again } = listed;
        match self.healer.exists_on(context, child, gfid).await {
            Ok(true) if again => return,
            Ok(true) => {}
            Ok(false) => return self.healer.purge(context, child, directory, gfid, index).await,
            Err(trouble) => return self.count(gfid, Err(trouble)),
        }
        let outcome = self.healer.heal(gfid).await;
        match &outcome {
            Ok(Healed::Gone) => self.healer.purge(context, child, directory, gfid, index).await,
            Ok(Healed::Nothing) if index != Index::EntryChanges => self.healer.touch_marks(context, gfid).await,
            _ => {}
        }
        self.count(gfid, outcome);
    }

    fn count(&self, gfid: Gfid, outcome: HealResult) {
        match outcome {
            Ok(Healed::Done) => {
                self.healed.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Healed::Nothing | Healed::Gone) => {}
            Err(Trouble::SplitBrain(why)) => {
                tracing::error!(%gfid, why, "split-brain");
                self.split_brain.fetch_add(1, Ordering::Relaxed);
            }
            Err(Trouble::NotNow(error)) => {
                tracing::debug!(%gfid, %error, "not healed for now");
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Visits every file from the root down, as this service's first child lists them, and heals it and its name.
    pub async fn full_crawl(&self) {
        let context = self.healer.context();
        let everyone = self.healer.replicate.everyone();
        let mut left = vec![Gfid::ROOT];
        while let Some(directory) = left.pop() {
            if self.is_stopped() {
                return;
            }
            self.count(directory, self.healer.heal_thoroughly(directory).await);
            for child in everyone.iter() {
                if let Err(trouble) = self.crawl_directory(&context, child, directory, &mut left).await {
                    self.count(directory, Err(trouble));
                }
            }
        }
    }

    async fn crawl_directory(
        &self,
        context: &Context,
        child: usize,
        directory: Gfid,
        left: &mut Vec<Gfid>,
    ) -> HealResult<()> {
        let first = self.healer.replicate.everyone().first() == Some(child);
        let mut offset = 0;
        loop {
            let names = self.healer.list(context, child, directory, offset).await?;
            let Some((_, next)) = names.last() else { return Ok(()) };
            let next = *next;
            for (name, _) in names {
                if matches!(name.as_ref(), b"." | b"..") {
                    continue;
                }
                let entry = ladrillo_translator::fop::Entry { parent: directory, name };
                let seen = self.look_up(context, child, &entry).await;
                self.healer.heal_name_if_needed(context, &entry).await?;
                if let (true, Some((gfid, is_dir))) = (first, seen) {
                    if is_dir && left.len() < MAX_CRAWL {
                        left.push(gfid);
                    } else {
                        self.count(gfid, self.healer.heal_thoroughly(gfid).await);
                    }
                }
            }
            if next == offset {
                return Ok(());
            }
            offset = next;
        }
    }

    async fn look_up(
        &self,
        context: &Context,
        child: usize,
        entry: &ladrillo_translator::fop::Entry,
    ) -> Option<(Gfid, bool)> {
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() };
        match self.healer.replicate.send(Mask::only(child), context, |_| fop.clone()).await.into_iter().next() {
            Some((_, Ok(Reply::Lookup { iatt, .. }))) => Some((iatt.gfid, iatt.is_dir())),
            _ => None,
        }
    }
}
