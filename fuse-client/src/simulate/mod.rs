//! The simulator: the real replicate translator and heal service over simulated bricks, network and time.
//!
//! A seed decides everything: what applications do, how long each message takes, which link breaks, which brick is
//! killed and what its disk loses, in which order tasks run. Nothing real is touched, so a seed always replays. After the
//! work the world is repaired, the heal service does its own, and then must hold:
//!
//! - no acknowledged change is lost (one brick may lose what it did not fsync; the others keep their disks),
//! - all copies are equal: contents, modes, owners, xattrs, gfids; no mark is left and the indices are empty,
//! - no lock outlives its owner: the lock tables are empty,
//! - no operation hangs.
//!
//! docs/simulator.md says how to use it.

mod executor;
mod network;
mod random;
mod record;
mod turns;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::memory::Snapshot;
use ladrillo_translator::{Gfid, Options, Parent, Runtime, Translator};
use parking_lot::Mutex;

use crate::heal::HealService;
use crate::translators::replicate::{Replicate, Sabotage};
use executor::{Executor, Handle, Process, Stuck};
use network::{Brick, Link};
use random::Random;
use record::Record;
use workload::{Application, Mount};

/// Copies of each file.
const BRICKS: usize = 3;
/// Mounts at work.
const CLIENTS: usize = 2;
/// Applications of each mount.
const APPLICATIONS: usize = 2;
/// How long the world may take, after it was repaired, until all copies are equal.
const CONVERGE: Duration = Duration::from_secs(1800);
/// More polls than any seed needs (some 200,000 do).
const MAX_POLLS: u64 = 20_000_000;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Steps of all applications together.
    pub steps: u64,
    /// Break links and kill processes.
    pub faults: bool,
    /// A bug to plant in replicate or the heal service.
    pub bug: Option<Sabotage>,
    /// Instead of applications side by side, and without faults: operations on a few names in turn, see [`turns`].
    pub turns: bool,
    /// Keep a line per event.
    pub log: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { steps: 200, faults: true, bug: None, turns: false, log: false }
    }
}

/// What came of a seed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Broken promises; empty is good.
    pub violations: Vec<String>,
    /// Operations asked for.
    pub asked: u64,
    /// Operations that succeeded.
    pub succeeded: u64,
    /// Faults injected.
    pub faults: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Polls of tasks: the work it took.
    pub polls: u64,
    /// Equal for equal runs.
    pub digest: u64,
    /// What happened, line by line, where asked for.
    pub log: Vec<String>,
}

/// Which faults a seed brings; each seed its own mix, so that rare faults also come alone.
#[derive(Clone, Copy, Debug)]
struct Mix {
    cuts: bool,
    silences: bool,
    kills: bool,
    power_failures: bool,
    client_kills: bool,
    partitions: bool,
    /// Mean pause between faults, in milliseconds.
    pause_ms: u64,
    /// The brick whose disk may lose what was not fsynced.
    flaky: usize,
}

impl Mix {
    fn new(random: &mut Random) -> Mix {
        Mix {
            cuts: random.chance(70),
            silences: random.chance(50),
            kills: random.chance(70),
            power_failures: random.chance(40),
            client_kills: random.chance(40),
            partitions: random.chance(40),
            pause_ms: *random.pick(&[150, 500, 1500, 4000]).unwrap_or(&1000),
            flaky: random.below(BRICKS as u64) as usize,
        }
    }
}

/// A process with a graph: a mount or a heal service.
struct Client {
    process: Process,
    links: Vec<Arc<Link>>,
    mount: Mount,
    service: Option<Arc<HealService>>,
}

struct World {
    handle: Handle,
    plan: Plan,
    bricks: Vec<Arc<Brick>>,
    record: Arc<Mutex<Record>>,
    next_process: AtomicU64,
    next_fd: Arc<AtomicU64>,
    steps: Arc<AtomicU64>,
    values: Arc<AtomicU64>,
    /// Applications still at work.
    working: Arc<AtomicU64>,
    faults: AtomicU64,
    seed: u64,
}

/// Runs a seed.
pub fn simulate(seed: u64, plan: &Plan) -> Outcome {
    let mut executor = Executor::new(seed, plan.log);
    let handle = executor.handle(Process::WORLD);
    let record = Arc::new(Mutex::new(Record::default()));
    let world = Arc::new(World {
        bricks: (0..BRICKS).map(|number| Brick::new(number, &handle)).collect(),
        handle: handle.clone(),
        plan: *plan,
        record: Arc::clone(&record),
        next_process: AtomicU64::new(1),
        next_fd: Arc::new(AtomicU64::new(1)),
        steps: Arc::new(AtomicU64::new(plan.steps)),
        values: Arc::new(AtomicU64::new(0)),
        working: Arc::new(AtomicU64::new(0)),
        faults: AtomicU64::new(0),
        seed,
    });
    let run = executor.run(MAX_POLLS, Arc::clone(&world).live());
    let mut record = record.lock();
    match run {
        Ok(()) => {}
        Err(Stuck::Deadlock) => record.violation("everybody waits for ever".to_owned()),
        Err(Stuck::Spinning) => record.violation(format!("no end after {MAX_POLLS} polls")),
    }
    let (log, digest) = handle.take_log();
    Outcome {
        violations: std::mem::take(&mut record.violations),
        asked: record.asked,
        succeeded: record.succeeded,
        faults: world.faults.load(Ordering::Relaxed),
        simulated: handle.now(),
        polls: executor.polls(),
        digest,
        log,
    }
}

impl World {
    async fn live(self: Arc<World>) {
        let mut healers: Vec<Client> = (0..BRICKS).map(|number| self.start_healer(number)).collect();
        let mut clients: Vec<Client> = (0..CLIENTS).map(|number| self.start_client(number)).collect();
        self.wait_for_links(&clients).await;
        if self.plan.turns {
            self.take_turns(&clients).await;
            self.converge(&clients, &healers).await;
            self.check();
            return;
        }
        let Some(homes) = self.make_directories(&clients[0].mount).await else { return };
        for (number, client) in clients.iter().enumerate() {
            self.start_applications(client, number, 0, &homes);
        }
        let mut random = Random::new(self.seed, 1);
        let mix = Mix::new(&mut random);
        self.note(|| format!("{mix:?}"));
        self.break_things(&mut random, &mix, &mut clients, &mut healers, &homes).await;
        self.repair(&clients, &healers).await;
        self.converge(&clients, &healers).await;
        self.check();
    }

    fn note(&self, line: impl FnOnce() -> String) {
        self.handle.note(1, || format!("world {}", line()));
    }

    fn start(&self, name: &str) -> (Client, Arc<Replicate>) {
        let process = Process(self.next_process.fetch_add(1, Ordering::Relaxed));
        let handle = self.handle.of(process);
        let links: Vec<Arc<Link>> = self
            .bricks
            .iter()
            .map(|brick| Link::new(format!("gv0-client-{}", brick.number), process.0, brick, &self.handle))
            .collect();
        let children = links.iter().map(|link| Arc::clone(link) as Arc<dyn Translator>).collect();
        let options = Options::new().with("heal-timeout", "20");
        let top = match Replicate::new("gv0-replicate-0", children, &options, Arc::new(handle.clone())) {
            Ok(top) => top,
            Err(error) => unreachable!("these options are good: {error}"),
        };
        if let Some(bug) = self.plan.bug {
            top.sabotage(bug);
        }
        let parent = Arc::downgrade(&(Arc::clone(&top) as Arc<dyn Parent>));
        for (index, link) in links.iter().enumerate() {
            link.set_parent(parent.clone(), index);
            link.connect();
        }
        top.start();
        let mount = Mount {
            top: Arc::clone(&top) as _,
            handle,
            record: Arc::clone(&self.record),
            next_fd: Arc::clone(&self.next_fd),
            name: format!("{name}/{}", process.0),
        };
        (Client { process, links, mount, service: None }, top)
    }

    fn start_client(&self, number: usize) -> Client {
        self.start(&format!("client-{number}")).0
    }

    /// The heal service of the machine that brick `number` is on: it reads that brick's index.
    fn start_healer(&self, number: usize) -> Client {
        let (mut client, top) = self.start("healer");
        let service = HealService::new(top, Arc::new(client.mount.handle.clone()), move |child| child == number);
        service.start();
        client.service = Some(service);
        client
    }

    async fn wait_for_links(&self, clients: &[Client]) {
        while !clients.iter().all(|client| client.links.iter().all(|link| link.is_up())) {
            self.handle.sleep(Duration::from_millis(20)).await;
        }
    }

    /// The directory that all share, and one for each application.
    async fn make_directories(&self, mount: &Mount) -> Option<Vec<Gfid>> {
        let mut homes = Vec::new();
        for number in 0..=CLIENTS * APPLICATIONS {
            let gfid = Gfid::from_random_bits(0x1000 + number as u128);
            let name = if number == 0 { "shared".to_owned() } else { format!("home-{number}") };
            if let Err(error) = mount.mkdir(Gfid::ROOT, &Bytes::from(name.clone()), gfid).await {
                self.record.lock().violation(format!("mkdir {name}, when all is well: {error}"));
                return None;
            }
            homes.push(gfid);
        }
        Some(homes)
    }

    fn start_applications(&self, client: &Client, number: usize, generation: u64, homes: &[Gfid]) {
        for at in 0..APPLICATIONS {
            let home = number * APPLICATIONS + at + 1;
            let random = Random::new(self.seed, 100 + generation * 100 + home as u64);
            let application = Application::new(
                client.mount.clone(),
                random,
                homes[home],
                homes[0],
                Arc::clone(&self.steps),
                Arc::clone(&self.values),
            );
            let guard = Working::new(&self.working);
            client.mount.handle.spawn(Box::pin(async move {
                application.run().await;
                drop(guard);
            }));
        }
    }

    async fn break_things(
        &self,
        random: &mut Random,
        mix: &Mix,
        clients: &mut [Client],
        healers: &mut [Client],
        homes: &[Gfid],
    ) {
        let mut generation = 0;
        while self.working.load(Ordering::Relaxed) > 0 {
            let pause = random.between(mix.pause_ms / 10, mix.pause_ms * 2);
            self.handle.sleep(Duration::from_millis(pause)).await;
            if self.working.load(Ordering::Relaxed) == 0 {
                break;
            }
            if !self.plan.faults {
                continue;
            }
            let brick = random.below(BRICKS as u64) as usize;
            let who = random.below((clients.len() + healers.len()) as u64) as usize;
            let links = &clients.get(who).unwrap_or_else(|| &healers[who - clients.len()]).links;
            match random.below(6) {
                0 if mix.cuts => {
                    let notice = if random.chance(70) { random.below(20) } else { random.below(4000) };
                    self.fault(|| format!("cut {who} from brick {brick}"));
                    links[brick].cut(Duration::from_millis(notice));
                }
                1 if mix.silences => {
                    self.fault(|| format!("silence between {who} and brick {brick}"));
                    links[brick].silence(Duration::from_millis(random.between(50, 9000)));
                }
                2 if mix.kills => self.take_brick_down(random, brick, false),
                3 if mix.power_failures => self.take_brick_down(random, mix.flaky, true),
                4 if mix.client_kills && random.chance(40) => {
                    generation += 1;
                    self.fault(|| format!("kill {who}"));
                    match clients.get_mut(who) {
                        Some(client) => {
                            self.end(client);
                            *client = self.start_client(who);
                            self.start_applications(client, who, generation, homes);
                        }
                        None => {
                            let at = who - clients.len();
                            self.end(&healers[at]);
                            healers[at] = self.start_healer(at);
                        }
                    }
                }
                5 if mix.partitions => {
                    let how_long = Duration::from_millis(random.between(50, 12_000));
                    self.fault(|| format!("silence around brick {brick} for {how_long:?}"));
                    for client in clients.iter().chain(healers.iter()) {
                        client.links[brick].silence(how_long);
                    }
                }
                _ => {}
            }
        }
    }

    fn fault(&self, what: impl FnOnce() -> String) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.note(what);
    }

    fn end(&self, client: &Client) {
        self.handle.kill(client.process);
        client.links.iter().for_each(Link::die);
    }

    fn take_brick_down(&self, random: &mut Random, number: usize, power: bool) {
        let down = self.bricks.iter().filter(|brick| !brick.is_up()).count();
        let brick = &self.bricks[number];
        // Mostly one at a time; sometimes the quorum goes.
        if !brick.is_up() || (down > 0 && !random.chance(15)) {
            return;
        }
        self.fault(|| format!("brick {number} {}", if power { "loses power" } else { "is killed" }));
        let kept = random.below(101);
        let mut keeps = || !power || random.chance(kept);
        let before = power.then(|| brick.memory.snapshot());
        brick.crash(&mut keeps);
        if let Some(before) = before {
            self.expose_lost(number, &before);
        }
        let pause = Duration::from_millis(random.between(100, 8000));
        let (brick, handle) = (Arc::clone(brick), self.handle.clone());
        self.handle.spawn(Box::pin(async move {
            handle.sleep(pause).await;
            brick.restart();
        }));
    }

    /// Notes what brick `number` lost of files that had, with its own, two good copies (those nobody accuses): of two
    /// that differ and accuse nobody no mark can tell which is right.
    fn expose_lost(&self, number: usize, before: &Snapshot) {
        let mut accused: BTreeMap<Gfid, BTreeSet<usize>> = BTreeMap::new();
        for (gfid, key, value) in self.bricks.iter().flat_map(|brick| brick.memory.marks()) {
            // The first counter is the contents'.
            let missed = value.iter().take(4).any(|byte| *byte != 0);
            let whom = (0..BRICKS).find(|child| key.ends_with(format!(".gv0-client-{child}").as_bytes()));
            if let (true, Some(whom)) = (missed, whom) {
                accused.entry(gfid).or_default().insert(whom);
            }
        }
        let now = self.handle.tick();
        for (path, node) in &self.bricks[number].memory.snapshot().nodes {
            let Some(old) = before.nodes.get(path) else { continue };
            let Some(bad) = accused.get(&node.gfid) else { continue };
            if bad.contains(&number) || BRICKS - bad.len() != 2 {
                continue;
            }
            let differ = |at: &usize| node.data.get(*at) != old.data.get(*at);
            let len = node.data.len().max(old.data.len());
            if let (Some(first), Some(last)) = ((0..len).find(differ), (0..len).rfind(differ)) {
                let found = (first..=last).map(|at| node.data.get(at).copied().unwrap_or(0)).collect();
                self.note(|| format!("of two good copies brick {number} lost {first}..={last} of {}", node.gfid));
                self.record.lock().expose(node.gfid, first, found, now);
            }
        }
    }

    async fn repair(&self, clients: &[Client], healers: &[Client]) {
        self.note(|| "all is repaired".to_owned());
        self.bricks.iter().for_each(Brick::restart);
        clients.iter().chain(healers).flat_map(|client| &client.links).for_each(|link| link.repair());
        // A side that had given up a silent peer says so within this time.
        self.handle.sleep(Duration::from_secs(15)).await;
        self.wait_for_links(clients).await;
        self.wait_for_links(healers).await;
    }

    /// Waits until nothing is left to heal. What no mark tells of is found by a full crawl, as after `volume heal full`:
    /// a client that dies or loses its bricks in the midst of a change of names leaves no mark, since directories are
    /// not marked beforehand while all bricks are there (cluster.optimistic-change-log).
    async fn converge(&self, clients: &[Client], healers: &[Client]) {
        self.wait_until_clean().await;
        self.note(|| "full crawl".to_owned());
        for healer in healers {
            if let Some(service) = &healer.service {
                service.heal_now(true);
            }
        }
        self.handle.sleep(Duration::from_secs(60)).await;
        self.wait_until_clean().await;
        for brick in &self.bricks {
            let open = brick.memory.open_count();
            if open > 0 {
                let what = format!("brick {}: {open} files are open, and all were released", brick.number);
                self.record.lock().violation(what);
            }
        }
        for client in clients.iter().chain(healers) {
            self.end(client);
        }
        self.handle.sleep(Duration::from_secs(1)).await;
    }

    async fn wait_until_clean(&self) {
        let end = self.handle.now() + CONVERGE;
        while self.handle.now() < end {
            self.handle.sleep(Duration::from_secs(5)).await;
            let is_clean = self.bricks.iter().all(|brick| {
                brick.memory.marks().is_empty() && brick.memory.indexed().is_empty() && brick.locks().dump().is_empty()
            });
            if is_clean {
                break;
            }
        }
    }

    fn check(&self) {
        let mut record = self.record.lock();
        for brick in &self.bricks {
            let number = brick.number;
            for (gfid, key, value) in brick.memory.marks() {
                let key = String::from_utf8_lossy(&key).into_owned();
                record.violation(format!("brick {number}: {gfid} still has {key} = {value:02x?}"));
            }
            for gfid in brick.memory.indexed() {
                record.violation(format!("brick {number}: {gfid} is still in the index"));
            }
            for lock in brick.locks().dump() {
                record.violation(format!("brick {number}: a lock outlives its owner: {lock:?}"));
            }
            if brick.memory.open_count() > 0 {
                record.violation(format!("brick {number}: {} files are still open", brick.memory.open_count()));
            }
        }
        let first = self.bricks[0].memory.snapshot();
        for brick in &self.bricks[1..] {
            for line in first.differences(&brick.memory.snapshot()) {
                record.violation(format!("bricks 0 and {} differ at {line}", brick.number));
            }
        }
        for brick in &self.bricks {
            let before = record.violations.len();
            record.check_final(&brick.memory.snapshot());
            if record.violations.len() > before {
                break;
            }
        }
    }
}

/// Counts an application at work, until it is done or killed.
struct Working(Arc<AtomicU64>);

impl Working {
    fn new(count: &Arc<AtomicU64>) -> Working {
        count.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(count))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays() {
        let plan = Plan { steps: 150, ..Plan::default() };
        let (one, two) = (simulate(2, &plan), simulate(2, &plan));
        assert_eq!((one.digest, one.polls, one.simulated), (two.digest, two.polls, two.simulated));
        assert_ne!(one.digest, simulate(8, &plan).digest);
        assert!(one.succeeded > 100 && one.faults > 0, "{one:?}");
    }

    /// The first of `seeds` that breaks a promise with this bug planted.
    fn caught(bug: Sabotage, seeds: u64) -> Option<u64> {
        (1..=seeds).find(|seed| {
            let outcome = simulate(*seed, &Plan { bug: Some(bug), ..Plan::default() });
            !outcome.violations.is_empty() && simulate(*seed, &Plan::default()).violations.is_empty()
        })
    }

    #[test]
    fn a_skipped_post_op_is_caught() {
        assert!(caught(Sabotage::SkipPostOp, 50).is_some());
    }

    #[test]
    fn a_heal_from_the_wrong_source_is_caught() {
        assert!(caught(Sabotage::HealFromWrongSource, 50).is_some());
    }

    #[test]
    fn an_acknowledgement_at_one_copy_is_caught() {
        assert!(caught(Sabotage::AckAtOneCopy, 50).is_some());
    }

    #[test]
    fn mounts_that_take_turns_agree_with_the_model() {
        for seed in 1..=60 {
            let outcome = simulate(seed, &Plan { turns: true, ..Plan::default() });
            assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed}");
            assert!(outcome.succeeded > 50, "{outcome:?}");
        }
    }

    #[test]
    fn nothing_is_wrong_when_nothing_breaks() {
        for seed in 1..=30 {
            let outcome = simulate(seed, &Plan { steps: 150, faults: false, ..Plan::default() });
            assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed}");
            assert_eq!(outcome.faults, 0);
        }
    }
}
