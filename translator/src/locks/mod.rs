//! features/locks: who may touch what, on a brick.
//!
//! Promises: inodelk and entrylk in domains, and applications' byte-range locks, with GlusterFS 10.3's rules; waiting
//! locks are futures, served in order; whatever a client session holds or awaits goes with it
//! ([`Locks::release_client`]); holders learn that others wait ([`Locks::on_contention`]), at most once per
//! `notify-contention-delay`; lock counts are answered to those who ask for them in xdata; a client's locks are bounded.
//!
//! Who asks is [`Context::client`] and [`Context::lock_owner`]. Not done: GlusterFS's hold of unlink while others hold
//! inodelks, and the locks that only its lock migration takes.

mod active;
mod clear;
mod lockinfo;
mod mandatory;
mod posix;
mod queue;
mod region;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::channel::oneshot;
use parking_lot::{Mutex, RwLock};

use crate::error::errno;
use crate::fop::{EntrylkCmd, File, Flock, LockCmd, LockType, Name};
use crate::option::{OptionError, OptionKind, OptionSpec, Options};
use crate::{
    ClientId, Context, Dict, Event, FdId, Fop, FopError, FopFuture, FopResult, Gfid, LockOwner, Parent, Reply, Runtime,
    Translator, Value,
};
use posix::{PosixLock, PosixLocks, PosixWaiting};
use queue::{Held, Notices, Queue, Region, Waiting, Who};
use region::{EntryName, Range};

/// Most locks, held and awaited, of one client session. Source: our bound; a self-heal daemon holds a few per heal.
pub const MAX_LOCKS_PER_CLIENT: usize = 1 << 16;
/// Longest lock domain, in bytes. Source: our bound; GlusterFS's are volume names with a suffix.
pub const MAX_DOMAIN_BYTES: usize = 4096;

const NOTIFY: OptionSpec = OptionSpec::new(
    &["notify-contention"],
    OptionKind::Bool,
    Some("yes"),
    "Tell the holder of a lock when others wait for it.",
);
const NOTIFY_DELAY: OptionSpec = OptionSpec::new(
    &["notify-contention-delay"],
    OptionKind::Int { min: Some(0), max: Some(60) },
    Some("5"),
    "Seconds between two such notices about one lock.",
);
const MANDATORY: OptionSpec = OptionSpec::new(
    &["mandatory-locking"],
    OptionKind::Enum(&["off", "file", "forced", "optimal"]),
    Some("off"),
    "Whose locks hold up reads and writes of others: nobody's, those of files with set-gid but no group execution, \
     everybody's, or those that were asked for as mandatory.",
);
const ENFORCE: OptionSpec = OptionSpec::new(
    &["enforce-mandatory-lock"],
    OptionKind::Bool,
    Some("off"),
    "Files may be marked to be read and written by who holds a lock only.",
);
const REVOCATION: OptionSpec = OptionSpec::new(
    &["revocation-secs"],
    OptionKind::Int { min: Some(0), max: Some(i32::MAX as i64) },
    Some("0"),
    "A translator's lock that others wait for is taken away after so many seconds; 0 = never.",
);
const REVOCATION_BLOCKED: OptionSpec = OptionSpec::new(
    &["revocation-max-blocked"],
    OptionKind::Int { min: Some(0), max: Some(i32::MAX as i64) },
    Some("0"),
    "Or when so many wait; 0 = never.",
);
const REVOCATION_ALL: OptionSpec = OptionSpec::new(
    &["revocation-clear-all"],
    OptionKind::Bool,
    Some("false"),
    "Those who wait are refused then, too.",
);
const MONKEY: OptionSpec = OptionSpec::new(
    &["monkey-unlocking"],
    OptionKind::Bool,
    Some("false"),
    "Forgets some of the translators' unlocks, to test what becomes of that.",
);
const TRACE: OptionSpec =
    OptionSpec::new(&["trace"], OptionKind::Bool, Some("off"), "Accepted; the log's level decides what is logged.");

/// The options of features/locks.
pub const OPTIONS: &[OptionSpec] =
    &[NOTIFY, NOTIFY_DELAY, MANDATORY, ENFORCE, REVOCATION, REVOCATION_BLOCKED, REVOCATION_ALL, MONKEY, TRACE];

/// xdata keys that ask for counts, and their answers (GlusterFS 10.3, glusterfs.h).
pub mod key {
    /// inodelks held and awaited on the inode, all domains.
    pub const INODELK_COUNT: &str = "glusterfs.inodelk-count";
    /// entrylks held and awaited on the directory.
    pub const ENTRYLK_COUNT: &str = "glusterfs.entrylk-count";
    /// Applications' locks held and awaited on the inode.
    pub const POSIXLK_COUNT: &str = "glusterfs.posixlk-count";
    /// LOOKUP by name: 1 when someone holds an entrylk on just this name of the parent.
    pub const PARENT_ENTRYLK: &str = "glusterfs.parent-entrylk";
    /// Its value is a domain; the count comes back as [`INODELK_COUNT`].
    pub const INODELK_DOM_COUNT: &str = "glusterfs.inodelk-dom-count";
    /// Asks for the count of each domain named by a key `glusterfs.inodelk-dom-prefix:DOMAIN`.
    pub const MULTI_DOM: &str = "glusterfs.multi-dom-lk-cnt-req";
    /// Prefix of those keys.
    pub const INODELK_DOM_PREFIX: &str = "glusterfs.inodelk-dom-prefix";
    /// LK: 1 = a mandatory lock.
    pub const LOCK_MODE: &str = "glusterfs.lk.lkmode";
}

/// Someone waits for a lock that `client` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Contention {
    /// The holder's session.
    pub client: ClientId,
    /// The holder's process.
    pub pid: i32,
    /// The locked inode.
    pub gfid: Gfid,
    /// The lock's domain.
    pub domain: Bytes,
    /// Which lock.
    pub lock: ContendedLock,
}

/// The lock of a [`Contention`].
#[derive(Clone, Debug, PartialEq)]
pub enum ContendedLock {
    /// An inodelk, as it was asked for.
    Inodelk(Flock),
    /// An entrylk on a name, or on all names.
    Entrylk {
        /// The name.
        name: Option<Name>,
        /// As it was asked for.
        kind: LockType,
    },
}

impl Contention {
    /// What the holder's client translator tells its parents.
    pub fn event(&self) -> Event {
        match &self.lock {
            ContendedLock::Inodelk(_) => Event::InodelkContention { gfid: self.gfid, domain: self.domain.clone() },
            ContendedLock::Entrylk { name, .. } => {
                Event::EntrylkContention { gfid: self.gfid, domain: self.domain.clone(), name: name.clone() }
            }
        }
    }
}

/// Locks of all kinds, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockCounts {
    /// Held.
    pub granted: usize,
    /// Awaited.
    pub waiting: usize,
}

/// One lock, for state dumps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// Locked inode.
    pub gfid: Gfid,
    /// Its domain; `None`: an application's lock.
    pub domain: Option<Bytes>,
    /// Whose session.
    pub client: ClientId,
    /// Whose lock.
    pub owner: LockOwner,
    /// Holder's process.
    pub pid: i32,
    /// What is locked, in words.
    pub what: String,
    /// Held, or awaited.
    pub granted: bool,
}

type Hook = Arc<dyn Fn(Contention) + Send + Sync>;

/// The translator. Made by [`Locks::new`].
pub struct Locks {
    name: String,
    child: Arc<dyn Translator>,
    runtime: Arc<dyn Runtime>,
    parent: Mutex<Option<(Weak<dyn Parent>, usize)>>,
    shards: Vec<Mutex<HashMap<Gfid, InodeLocks>>>,
    clients: Vec<Mutex<Clients>>,
    hook: RwLock<Option<Hook>>,
    next_id: AtomicU64,
    notify: AtomicBool,
    notify_delay_s: AtomicU64,
    settings: RwLock<Settings>,
    /// Clients' process-uuids.
    names: RwLock<HashMap<ClientId, Arc<str>>>,
    lockinfo: lockinfo::Tokens,
    /// Descriptors opened with O_NONBLOCK.
    nonblocking: RwLock<HashSet<FdId>>,
}

/// What is seldom looked at.
#[derive(Clone, Copy, Default)]
struct Settings {
    mandatory: mandatory::Mode,
    enforce: bool,
    revocation_s: u64,
    revocation_blocked: usize,
    revocation_all: bool,
    monkey: bool,
}

/// What a shard knows of client sessions. Taken inside an inode shard's lock, never around one.
#[derive(Default)]
struct Clients {
    held: HashMap<ClientId, Account>,
    /// Sessions that ended, so that a request of theirs still under way takes no lock; the oldest are forgotten.
    gone: HashSet<ClientId>,
    gone_order: VecDeque<ClientId>,
}

/// How many locks a session holds and awaits.
#[derive(Default)]
struct Account {
    total: usize,
    /// Reads and writes that wait for mandatory locks: of which inode, how many bytes.
    waiting_io: Vec<(Gfid, u64)>,
    by_inode: HashMap<Gfid, usize>,
}

const SHARDS: usize = 64;
const CLIENT_SHARDS: usize = 16;
const MAX_GONE: usize = 4096;

#[derive(Default)]
struct InodeLocks {
    domains: Vec<(Bytes, Domain)>,
    posix: PosixLocks,
}

#[derive(Default)]
struct Domain {
    inodelks: Queue<Range>,
    entrylks: Queue<EntryName>,
}

type Senders = Vec<oneshot::Sender<FopResult<()>>>;

impl InodeLocks {
    fn domain(&mut self, name: &Bytes) -> &mut Domain {
        let at = match self.domains.iter().position(|(n, _)| n == name) {
            Some(at) => at,
            None => {
                self.domains.push((name.clone(), Domain::default()));
                self.domains.len() - 1
            }
        };
        &mut self.domains[at].1
    }

    fn is_empty(&self) -> bool {
        self.posix.len() == 0 && self.domains.iter().all(|(_, d)| d.inodelks.len() + d.entrylks.len() == 0)
    }
}

/// The part of the code that inodelk and entrylk differ in.
trait Kind: Region + 'static {
    fn queue(domain: &mut Domain) -> &mut Queue<Self>;
    fn contended(&self, holder: &Held<Self>) -> ContendedLock;
}

impl Kind for Range {
    fn queue(domain: &mut Domain) -> &mut Queue<Range> {
        &mut domain.inodelks
    }

    fn contended(&self, holder: &Held<Range>) -> ContendedLock {
        ContendedLock::Inodelk(Flock {
            kind: if self.exclusive { LockType::Write } else { LockType::Read },
            whence: 0,
            start: self.start,
            len: self.wire_len(),
            pid: u32::from_ne_bytes(holder.pid.to_ne_bytes()),
            owner: holder.who.owner.clone(),
        })
    }
}

impl Kind for EntryName {
    fn queue(domain: &mut Domain) -> &mut Queue<EntryName> {
        &mut domain.entrylks
    }

    fn contended(&self, _: &Held<EntryName>) -> ContendedLock {
        ContendedLock::Entrylk { name: self.name.clone(), kind: self.kind }
    }
}

impl Locks {
    /// Locks over `child`.
    ///
    /// # Errors
    /// An option that cannot be.
    pub fn new(
        name: impl Into<String>,
        child: Arc<dyn Translator>,
        options: &Options,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Arc<Locks>, OptionError> {
        let locks = Arc::new(Locks {
            name: name.into(),
            child,
            runtime,
            parent: Mutex::new(None),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            clients: (0..CLIENT_SHARDS).map(|_| Mutex::default()).collect(),
            hook: RwLock::new(None),
            next_id: AtomicU64::new(1),
            notify: AtomicBool::new(true),
            notify_delay_s: AtomicU64::new(5),
            settings: RwLock::default(),
            names: RwLock::default(),
            lockinfo: lockinfo::Tokens::default(),
            nonblocking: RwLock::default(),
        });
        locks.reconfigure(options)?;
        let parent: Weak<dyn Parent> = Arc::downgrade(&(Arc::clone(&locks) as Arc<dyn Parent>));
        locks.child.set_parent(parent, 0);
        Ok(locks)
    }

    /// Takes changed options.
    ///
    /// # Errors
    /// An option that cannot be; nothing is changed then.
    pub fn reconfigure(&self, options: &Options) -> Result<(), OptionError> {
        options.check(OPTIONS)?;
        let (notify, delay_s) = (options.bool(&NOTIFY)?, options.int(&NOTIFY_DELAY)?);
        let settings = Settings {
            mandatory: mandatory::Mode::parse(options.str(&MANDATORY)?.unwrap_or("off")),
            enforce: options.bool(&ENFORCE)?,
            revocation_s: u64::try_from(options.int(&REVOCATION)?).unwrap_or(0),
            revocation_blocked: usize::try_from(options.int(&REVOCATION_BLOCKED)?).unwrap_or(0),
            revocation_all: options.bool(&REVOCATION_ALL)?,
            monkey: options.bool(&MONKEY)?,
        };
        *self.settings.write() = settings;
        self.notify.store(notify, Ordering::Relaxed);
        self.notify_delay_s.store(u64::try_from(delay_s).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Who is told of contention: the server, which sends the upcall to the holder's session. Called outside all locks,
    /// on the thread of whoever waits.
    pub fn on_contention(&self, hook: impl Fn(Contention) + Send + Sync + 'static) {
        *self.hook.write() = Some(Arc::new(hook));
    }

    /// Notes the process-uuid of a session, by which rebalance and state dumps name it. Forgotten by
    /// [`Locks::release_client`].
    pub fn name_client(&self, client: ClientId, uid: &str) {
        self.names.write().insert(client, uid.into());
    }

    /// Releases all that a session holds; what it awaits fails with EAGAIN, and later requests of it with ENOTCONN
    /// (sessions are never numbered twice). Returns how many locks that were.
    pub fn release_client(&self, client: ClientId) -> usize {
        self.names.write().remove(&client);
        let gfids: HashSet<Gfid> = {
            let mut clients = self.clients_of(client).lock();
            if client != ClientId::LOCAL && clients.gone.insert(client) {
                clients.gone_order.push_back(client);
                if clients.gone_order.len() > MAX_GONE
                    && let Some(oldest) = clients.gone_order.pop_front()
                {
                    clients.gone.remove(&oldest);
                }
            }
            let account = clients.held.get(&client);
            let waited_for = account.iter().flat_map(|account| account.waiting_io.iter().map(|(gfid, _)| *gfid));
            let held = account.iter().flat_map(|account| account.by_inode.keys().copied());
            held.chain(waited_for).collect()
        };
        let mut released = 0;
        for gfid in gfids {
            let mut refused: Senders = Vec::new();
            self.on_inode(gfid, |inode, wake, found| {
                for (domain, locks) in &mut inode.domains {
                    let mut notices = self.notices();
                    let (count, senders) = locks.inodelks.remove(|held| held.who.client == client);
                    released += count;
                    refused.extend(senders);
                    wake.extend(locks.inodelks.serve(&mut notices));
                    self.report(gfid, domain, notices, found);
                    let mut notices = self.notices();
                    let (count, senders) = locks.entrylks.remove(|held| held.who.client == client);
                    released += count;
                    refused.extend(senders);
                    wake.extend(locks.entrylks.serve(&mut notices));
                    self.report(gfid, domain, notices, found);
                }
                let before = inode.posix.len();
                inode.posix.remove_granted(|held| held.who.client == client);
                refused.extend(inode.posix.remove_waiting(|waiting| waiting.lock.who.client == client));
                released += before - inode.posix.len();
                refused.extend(inode.posix.remove_io(client));
                wake.extend(inode.posix.serve());
                self.discharge(client, gfid, usize::MAX);
            });
            for sender in refused {
                let _ = sender.send(Err(FopError::new(errno::EAGAIN, "the client of a waiting lock went away")));
            }
        }
        released
    }

    /// How many locks there are.
    pub fn counts(&self) -> LockCounts {
        let mut counts = LockCounts::default();
        for shard in &self.shards {
            for inode in shard.lock().values() {
                for (_, domain) in &inode.domains {
                    counts.granted += domain.inodelks.granted.len() + domain.entrylks.granted.len();
                    counts.waiting += domain.inodelks.waiting.len() + domain.entrylks.waiting.len();
                }
                counts.granted += inode.posix.granted.len();
                counts.waiting += inode.posix.waiting.len();
            }
        }
        counts
    }

    /// All locks, for state dumps and tests.
    pub fn dump(&self) -> Vec<LockInfo> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for (gfid, inode) in shard.lock().iter() {
                let mut add = |domain: Option<&Bytes>, who: &Who, pid: i32, what: String, granted: bool| {
                    all.push(LockInfo {
                        gfid: *gfid,
                        domain: domain.cloned(),
                        client: who.client,
                        owner: who.owner.clone(),
                        pid,
                        what,
                        granted,
                    });
                };
                for (name, domain) in &inode.domains {
                    let inodelks = domain.inodelks.granted.iter().map(|held| (held, true));
                    for (held, granted) in inodelks.chain(domain.inodelks.waiting.iter().map(|w| (&w.lock, false))) {
                        add(Some(name), &held.who, held.pid, format!("inodelk {:?}", held.region), granted);
                    }
                    let entrylks = domain.entrylks.granted.iter().map(|held| (held, true));
                    for (held, granted) in entrylks.chain(domain.entrylks.waiting.iter().map(|w| (&w.lock, false))) {
                        add(Some(name), &held.who, held.pid, format!("entrylk {:?}", held.region.name), granted);
                    }
                }
                let posix = inode.posix.granted.iter().map(|lock| (lock, true));
                for (lock, granted) in posix.chain(inode.posix.waiting.iter().map(|w| (&w.lock, false))) {
                    add(
                        None,
                        &lock.who,
                        i32::try_from(lock.pid).unwrap_or(0),
                        format!("posix {:?}", lock.range),
                        granted,
                    );
                }
            }
        }
        all
    }

    fn clients_of(&self, client: ClientId) -> &Mutex<Clients> {
        &self.clients[(client.0 % CLIENT_SHARDS as u64) as usize]
    }

    /// Works on an inode's locks, then wakes and tells whom `work` named, outside the lock.
    fn on_inode<T>(
        &self,
        gfid: Gfid,
        work: impl FnOnce(&mut InodeLocks, &mut Senders, &mut Vec<Contention>) -> T,
    ) -> T {
        let (mut wake, mut found) = (Vec::new(), Vec::new());
        let shard = &self.shards[usize::from(gfid.0[15]) % SHARDS];
        let result = {
            let mut inodes = shard.lock();
            let inode = inodes.entry(gfid).or_default();
            let result = work(inode, &mut wake, &mut found);
            inode.domains.retain(|(_, domain)| domain.inodelks.len() + domain.entrylks.len() > 0);
            if inode.is_empty() {
                inodes.remove(&gfid);
            }
            result
        };
        for sender in wake {
            let _ = sender.send(Ok(()));
        }
        if !found.is_empty()
            && let Some(hook) = self.hook.read().clone()
        {
            for contention in found {
                hook(contention);
            }
        }
        result
    }

    fn notices<R: Kind>(&self) -> Notices<R> {
        Notices {
            enabled: self.notify.load(Ordering::Relaxed),
            now: self.runtime.now(),
            delay: Duration::from_secs(self.notify_delay_s.load(Ordering::Relaxed)),
            told: Vec::new(),
        }
    }

    fn report<R: Kind>(&self, gfid: Gfid, domain: &Bytes, notices: Notices<R>, found: &mut Vec<Contention>) {
        found.extend(notices.told.into_iter().map(|held| Contention {
            client: held.who.client,
            pid: held.pid,
            gfid,
            domain: domain.clone(),
            lock: held.region.contended(&held),
        }));
    }

    /// Notes one more lock of `client`; ENOLCK over the bound, ENOTCONN when the session is gone.
    fn charge(&self, client: ClientId, gfid: Gfid) -> FopResult<()> {
        let mut clients = self.clients_of(client).lock();
        if clients.gone.contains(&client) {
            return Err(FopError::not_connected("the client of a lock"));
        }
        let account = clients.held.entry(client).or_default();
        if account.total >= MAX_LOCKS_PER_CLIENT {
            return Err(FopError::new(errno::ENOLCK, format!("a client has {MAX_LOCKS_PER_CLIENT} locks already")));
        }
        account.total += 1;
        *account.by_inode.entry(gfid).or_insert(0) += 1;
        Ok(())
    }

    fn discharge(&self, client: ClientId, gfid: Gfid, count: usize) {
        let mut clients = self.clients_of(client).lock();
        if let Some(account) = clients.held.get_mut(&client) {
            if let Some(left) = account.by_inode.get_mut(&gfid) {
                let count = count.min(*left);
                *left -= count;
                account.total -= count;
                if *left == 0 {
                    account.by_inode.remove(&gfid);
                }
            }
            if account.by_inode.is_empty() && account.waiting_io.is_empty() {
                clients.held.remove(&client);
            }
        }
    }

    /// The owner who asks; EINVAL for the null owner, as pl_is_lk_owner_valid has it.
    fn who(context: &Context) -> FopResult<Who> {
        if context.lock_owner.0.iter().all(|byte| *byte == 0) {
            return Err(FopError::new(errno::EINVAL, "a lock needs a lock owner"));
        }
        Ok(Who { client: context.client, owner: context.lock_owner.clone() })
    }

    async fn lock<R: Kind>(&self, context: &Context, gfid: Gfid, domain: Bytes, region: R, wait: bool) -> FopResult {
        let who = Locks::who(context)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let held = Held { id, who, pid: context.pid, region, told_at: None, since: Duration::ZERO };
        let settings = *self.settings.read();
        let mut refused = Senders::new();
        let waiter = self.on_inode(gfid, |inode, wake, found| {
            self.charge(context.client, gfid)?;
            let mut notices = self.notices();
            let queue = R::queue(inode.domain(&domain));
            if settings.revokes(queue, &held, notices.now) {
                tracing::warn!(%gfid, "taking locks away that others wait for");
                refused = self.take_away(gfid, queue, true, settings.revocation_all, |_| true).1;
                wake.extend(queue.serve(&mut notices));
            }
            let outcome = match queue.try_grant(held, &mut notices) {
                Ok(()) => Ok(None),
                Err(lock) if wait => {
                    let (wake, woken) = oneshot::channel();
                    queue.waiting.push_back(Waiting { lock, wake });
                    Ok(Some(woken))
                }
                Err(_) => {
                    self.discharge(context.client, gfid, 1);
                    Err(FopError::new(errno::EAGAIN, "the lock is taken"))
                }
            };
            self.report(gfid, &domain, notices, found);
            outcome
        });
        for sender in refused {
            let _ = sender.send(Err(FopError::new(errno::EAGAIN, "the lock was taken away")));
        }
        let Some(woken) = waiter? else { return Ok(Reply::done()) };
        let mut guard = Guard { undo: Some(|| self.withdraw::<R>(context.client, gfid, &domain, id)) };
        let outcome = woken.await;
        guard.undo = None;
        match outcome {
            Ok(Ok(())) => Ok(Reply::done()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(FopError::new(errno::EAGAIN, "a waiting lock was dropped")),
        }
    }

    /// Takes back a lock whose asker stopped waiting, granted meanwhile or not.
    fn withdraw<R: Kind>(&self, client: ClientId, gfid: Gfid, domain: &Bytes, id: u64) {
        self.on_inode(gfid, |inode, wake, found| {
            let mut notices = self.notices();
            let queue = R::queue(inode.domain(domain));
            let (count, _) = queue.remove(|held| held.id == id);
            if count > 0 {
                self.discharge(client, gfid, count);
                wake.extend(queue.serve(&mut notices));
            }
            self.report(gfid, domain, notices, found);
        });
    }

    /// Takes locks that `which` says out of a queue, granted and waiting ones as asked; returns how many of the former, and
    /// the latter's senders.
    fn take_away<R: Kind>(
        &self,
        gfid: Gfid,
        queue: &mut Queue<R>,
        granted: bool,
        waiting: bool,
        which: impl Fn(&Held<R>) -> bool,
    ) -> (usize, Senders) {
        let mut taken = 0;
        queue.granted.retain(|held| {
            let goes = granted && which(held);
            if goes {
                self.discharge(held.who.client, gfid, 1);
                taken += 1;
            }
            !goes
        });
        let mut senders = Senders::new();
        if waiting {
            for waiting in std::mem::take(&mut queue.waiting) {
                if which(&waiting.lock) {
                    self.discharge(waiting.lock.who.client, gfid, 1);
                    senders.push(waiting.wake);
                } else {
                    queue.waiting.push_back(waiting);
                }
            }
        }
        (taken, senders)
    }

    fn unlock<R: Kind>(&self, context: &Context, gfid: Gfid, domain: &Bytes, region: &R) -> FopResult {
        let who = Locks::who(context)?;
        if self.settings.read().monkey && self.runtime.random().is_multiple_of(20) {
            tracing::warn!(%gfid, "forgetting an unlock (monkey-unlocking)");
            return Ok(Reply::done());
        }
        self.on_inode(gfid, |inode, wake, found| {
            let mut notices = self.notices();
            let queue = R::queue(inode.domain(domain));
            if queue.unlock(&who, region).is_none() {
                return Err(FopError::new(errno::EINVAL, "an unlock without its lock"));
            }
            self.discharge(who.client, gfid, 1);
            wake.extend(queue.serve(&mut notices));
            self.report(gfid, domain, notices, found);
            Ok(Reply::done())
        })
    }

    async fn inodelk(&self, context: &Context, gfid: Gfid, domain: Bytes, cmd: LockCmd, flock: Flock) -> FopResult {
        let domain = check_domain(domain)?;
        let Some(range) = Range::from_flock(&flock) else {
            return Err(FopError::new(errno::EINVAL, "an inodelk outside what a file can have"));
        };
        // GlusterFS keeps this range for metadata locks, in a domain of their own.
        let domain = match flock.start == region::END_OF_FILE - 1 && flock.len == 0 {
            true if !domain.ends_with(b":metadata") => {
                let mut longer = BytesMut::with_capacity(domain.len() + 9);
                longer.put_slice(&domain);
                longer.put_slice(b":metadata");
                longer.freeze()
            }
            _ => domain,
        };
        match (cmd, flock.kind) {
            (LockCmd::Get, _) => Err(FopError::new(errno::EOPNOTSUPP, "inodelks cannot be asked for")),
            (_, LockType::Unlock) => self.unlock(context, gfid, &domain, &range),
            _ => self.lock(context, gfid, domain, range, cmd == LockCmd::SetWait).await,
        }
    }

    async fn entrylk(
        &self,
        context: &Context,
        gfid: Gfid,
        domain: Bytes,
        entry: EntryName,
        cmd: EntrylkCmd,
    ) -> FopResult {
        let domain = check_domain(domain)?;
        if entry.kind == LockType::Unlock {
            return Err(FopError::new(errno::EINVAL, "an entrylk is for reading or writing"));
        }
        match cmd {
            EntrylkCmd::Unlock => self.unlock(context, gfid, &domain, &entry),
            EntrylkCmd::Lock => self.lock(context, gfid, domain, entry, true).await,
            EntrylkCmd::TryLock => self.lock(context, gfid, domain, entry, false).await,
        }
    }

    async fn lk(&self, context: &Context, file: File, cmd: LockCmd, mut flock: Flock, xdata: &Dict) -> FopResult {
        let who = Locks::who(context)?;
        // A negative length is that of the bytes before, see fcntl(2).
        let len = flock.len.cast_signed();
        if len < 0
            && let Some(start) = flock.start.checked_add_signed(len)
        {
            flock = Flock { start, len: len.unsigned_abs(), ..flock };
        }
        let range = match Range::from_flock(&flock) {
            Some(range) if flock.whence == 0 => range,
            _ => return Err(FopError::new(errno::EINVAL, "a lock outside what a file can have")),
        };
        let (gfid, client) = (file.gfid, context.client);
        let mandatory = xdata.int(key::LOCK_MODE).is_some_and(|mode| mode & 1 != 0);
        let lock = PosixLock { who, fd: file.fd, pid: flock.pid, caller: context.pid, mandatory, range };
        if cmd == LockCmd::Get {
            let conflict = self.on_inode(gfid, |inode, _, _| inode.posix.conflict(&lock).map(PosixLock::flock));
            let answer = conflict.unwrap_or(Flock { kind: LockType::Unlock, ..flock });
            return Ok(Reply::Lk { flock: answer, xdata: Dict::new() });
        }
        if flock.kind != LockType::Unlock && self.is_fenced(file).await? {
            self.preempt(gfid, &lock);
        }
        let waiter = self.on_inode(gfid, |inode, wake, _| {
            let before = inode.posix.len_of(client);
            if flock.kind == LockType::Unlock {
                inode.posix.carve(&lock.who, &lock.range);
                // As in GlusterFS the answer tells whether the descriptor has locks left.
                if inode.posix.granted.iter().any(|held| held.fd == file.fd && held.who.client == client) {
                    flock.kind = LockType::Read;
                }
            } else {
                // A charge beforehand: the bound holds, and a session that ended takes no lock.
                self.charge(client, gfid)?;
                self.discharge(client, gfid, 1);
                if inode.posix.conflict(&lock).is_some() {
                    if cmd == LockCmd::Set {
                        return Err(FopError::new(errno::EAGAIN, "the lock is taken"));
                    }
                    inode.posix.carve(&lock.who, &lock.range);
                    let id = self.next_id.fetch_add(1, Ordering::Relaxed);
                    let (sender, woken) = oneshot::channel();
                    inode.posix.waiting.push_back(PosixWaiting { id, lock, wake: sender });
                    wake.extend(inode.posix.serve());
                    self.recount(client, gfid, before, inode.posix.len_of(client));
                    return Ok(Some((id, woken)));
                }
                inode.posix.set(lock);
            }
            wake.extend(inode.posix.serve());
            self.recount(client, gfid, before, inode.posix.len_of(client));
            Ok(None)
        })?;
        let done = Reply::Lk { flock, xdata: Dict::new() };
        let Some((id, woken)) = waiter else { return Ok(done) };
        let undo = || {
            self.on_inode(gfid, |inode, wake, _| {
                let before = inode.posix.len_of(client);
                inode.posix.remove_waiting(|waiting| waiting.id == id);
                wake.extend(inode.posix.serve());
                self.recount(client, gfid, before, inode.posix.len_of(client));
            });
        };
        let mut guard = Guard { undo: Some(undo) };
        let outcome = woken.await;
        guard.undo = None;
        match outcome {
            Ok(Ok(())) => Ok(done),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(FopError::new(errno::EAGAIN, "a waiting lock was dropped")),
        }
    }

    /// Charges or discharges what splitting and merging did to a session's locks.
    fn recount(&self, client: ClientId, gfid: Gfid, before: usize, after: usize) {
        if after > before {
            let mut clients = self.clients_of(client).lock();
            let account = clients.held.entry(client).or_default();
            account.total += after - before;
            *account.by_inode.entry(gfid).or_insert(0) += after - before;
        } else if before > after {
            self.discharge(client, gfid, before - after);
        }
    }

    /// Drops applications' locks of one session on one inode: those `gone` says.
    fn drop_posix(&self, client: ClientId, gfid: Gfid, waiting_too: bool, gone: impl Fn(&PosixLock) -> bool) {
        let refused = self.on_inode(gfid, |inode, wake, _| {
            let before = inode.posix.len_of(client);
            inode.posix.remove_granted(|held| held.who.client == client && gone(held));
            let refused = match waiting_too {
                true => inode.posix.remove_waiting(|w| w.lock.who.client == client && gone(&w.lock)),
                false => Vec::new(),
            };
            wake.extend(inode.posix.serve());
            self.recount(client, gfid, before, inode.posix.len_of(client));
            refused
        });
        for sender in refused {
            let _ = sender.send(Err(FopError::new(errno::EAGAIN, "the file of a waiting lock was closed")));
        }
    }

    /// Whether this inode has any lock at all: most have none, and a shard's map says so cheaply.
    fn has_locks(&self, gfid: Gfid) -> bool {
        self.shards[usize::from(gfid.0[15]) % SHARDS].lock().contains_key(&gfid)
    }

    fn drop_owner(&self, context: &Context, file: File) {
        if !self.has_locks(file.gfid) {
            return;
        }
        let owner = &context.lock_owner;
        match owner.0.is_empty() {
            // The server flushes with no owner when a session ends: all locks of the fd.
            true => self.drop_fd(context.client, file),
            false => self.drop_posix(context.client, file.gfid, false, |held| held.who.owner == *owner),
        }
    }

    fn drop_fd(&self, client: ClientId, file: File) {
        let fd: Option<FdId> = file.fd;
        if fd.is_some() && self.has_locks(file.gfid) {
            self.drop_posix(client, file.gfid, true, |held| held.fd == fd);
        }
    }

    /// Answers `wanted` for an inode, keeping the larger where another inode of the same fop was counted already.
    fn count(&self, wanted: &Wanted, gfid: Gfid, parent: Option<(Gfid, &Name)>, answer: &mut Dict) {
        let mut put = |key: &Bytes, count: usize| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            if answer.int(key).is_none_or(|known| known < count) {
                answer.set(key.clone(), Value::Int(count));
            }
        };
        if let (true, Some((parent, name))) = (wanted.parent_entrylk, parent) {
            let locked = self.peek(parent, |inode| {
                inode.domains.iter().any(|(_, domain)| {
                    domain.entrylks.granted.iter().any(|held| held.region.name.as_ref() == Some(name))
                })
            });
            put(&Bytes::from_static(key::PARENT_ENTRYLK.as_bytes()), usize::from(locked.unwrap_or(false)));
        }
        let inodelks = |domain: Option<&[u8]>| {
            let of = |inode: &InodeLocks| {
                let named = inode.domains.iter().filter(|(name, _)| domain.is_none_or(|domain| name == domain));
                named.map(|(_, locks)| locks.inodelks.len()).sum()
            };
            self.peek(gfid, of).unwrap_or(0)
        };
        if wanted.entrylks {
            let of = |inode: &InodeLocks| inode.domains.iter().map(|(_, locks)| locks.entrylks.len()).sum();
            put(&Bytes::from_static(key::ENTRYLK_COUNT.as_bytes()), self.peek(gfid, of).unwrap_or(0));
        }
        if let Some(domain) = &wanted.inodelk_domain {
            put(&Bytes::from_static(key::INODELK_COUNT.as_bytes()), inodelks(Some(domain)));
        }
        if wanted.inodelks {
            put(&Bytes::from_static(key::INODELK_COUNT.as_bytes()), inodelks(None));
        }
        if wanted.posix {
            let count = self.peek(gfid, |inode| inode.posix.len()).unwrap_or(0);
            put(&Bytes::from_static(key::POSIXLK_COUNT.as_bytes()), count);
        }
        for (key, domain) in &wanted.domains {
            put(key, inodelks(Some(domain)));
        }
    }

    fn peek<T>(&self, gfid: Gfid, look: impl FnOnce(&InodeLocks) -> T) -> Option<T> {
        self.shards[usize::from(gfid.0[15]) % SHARDS].lock().get(&gfid).map(look)
    }

    /// Sends a fop on, and counts for it what its xdata asks.
    async fn pass(&self, context: &Context, mut fop: Fop) -> FopResult {
        let wanted = fop.xdata_mut().and_then(Wanted::take);
        let Some(wanted) = wanted else { return self.child.submit(context, fop).await };
        let parents = parents_of(&fop);
        let by_name = match &fop {
            Fop::Lookup { entry: Some(entry), .. } => Some(entry.clone()),
            _ => None,
        };
        let inode = inode_of(&fop);
        let mut reply = self.child.submit(context, fop).await?;
        let subject = match &reply {
            Reply::Lookup { iatt, .. } => Some(iatt.gfid),
            _ => inode,
        };
        let answer = reply.xdata_mut();
        match subject {
            Some(gfid) => {
                self.count(&wanted, gfid, by_name.as_ref().map(|entry| (entry.parent, &entry.name)), answer);
            }
            None => parents.into_iter().for_each(|parent| self.count(&wanted, parent, None, answer)),
        }
        Ok(reply)
    }
}

impl Settings {
    fn revokes<R: Region>(&self, queue: &Queue<R>, lock: &Held<R>, now: Duration) -> bool {
        self.revocation_s > 0 && queue.is_overdue(lock, now, Duration::from_secs(self.revocation_s))
            || self.revocation_blocked > 0
                && queue.waiting.len() >= self.revocation_blocked
                && queue.granted.iter().any(|held| held.who != lock.who && held.region.conflicts(&lock.region))
    }
}

fn check_domain(domain: Bytes) -> FopResult<Bytes> {
    match domain.len() {
        1..=MAX_DOMAIN_BYTES => Ok(domain),
        len => Err(FopError::new(errno::EINVAL, format!("a lock domain of {len} bytes"))),
    }
}

/// Runs `undo` when a waiting future is dropped before its lock is settled.
struct Guard<F: FnMut()> {
    undo: Option<F>,
}

impl<F: FnMut()> Drop for Guard<F> {
    fn drop(&mut self) {
        if let Some(mut undo) = self.undo.take() {
            undo();
        }
    }
}

/// The counts a fop's xdata asks for.
#[derive(Default)]
struct Wanted {
    entrylks: bool,
    inodelks: bool,
    posix: bool,
    parent_entrylk: bool,
    inodelk_domain: Option<Bytes>,
    domains: Vec<(Bytes, Bytes)>,
}

impl Wanted {
    /// Takes the questions out of `xdata`: those below are not asked.
    fn take(xdata: &mut Dict) -> Option<Wanted> {
        if !xdata.iter().any(|(key, _)| key.starts_with(b"glusterfs.")) {
            return None;
        }
        let mut wanted = Wanted {
            entrylks: xdata.remove(key::ENTRYLK_COUNT).is_some(),
            inodelks: xdata.remove(key::INODELK_COUNT).is_some(),
            posix: xdata.remove(key::POSIXLK_COUNT).is_some(),
            parent_entrylk: xdata.remove(key::PARENT_ENTRYLK).is_some(),
            inodelk_domain: xdata.bytes(key::INODELK_DOM_COUNT).map(without_nul),
            domains: Vec::new(),
        };
        xdata.remove(key::INODELK_DOM_COUNT);
        if xdata.remove(key::MULTI_DOM).is_some() {
            let asked: Vec<Bytes> = xdata
                .iter()
                .map(|(key, _)| key.clone())
                .filter(|key| key.starts_with(key::INODELK_DOM_PREFIX.as_bytes()))
                .collect();
            for key in asked {
                xdata.remove(&key);
                let colon = key.iter().position(|byte| *byte == b':').map_or(key.len(), |at| at + 1);
                if colon < key.len() {
                    wanted.domains.push((key.clone(), key.slice(colon..)));
                }
            }
        }
        let any = wanted.entrylks
            || wanted.inodelks
            || wanted.posix
            || wanted.parent_entrylk
            || wanted.inodelk_domain.is_some()
            || !wanted.domains.is_empty();
        any.then_some(wanted)
    }
}

fn without_nul(bytes: &Bytes) -> Bytes {
    match bytes.strip_suffix(b"\0") {
        Some(rest) => bytes.slice(..rest.len()),
        None => bytes.clone(),
    }
}

/// The inode a fop is about, where it is not an entry's.
fn inode_of(fop: &Fop) -> Option<Gfid> {
    match fop {
        Fop::Lookup { .. }
        | Fop::Link { .. }
        | Fop::Lk { .. }
        | Fop::Inodelk { .. }
        | Fop::Finodelk { .. }
        | Fop::Entrylk { .. }
        | Fop::Fentrylk { .. }
        | Fop::Lease { .. }
        | Fop::Getactivelk { .. }
        | Fop::Setactivelk { .. }
        | Fop::Release { .. }
        | Fop::Releasedir { .. }
        | Fop::CopyFileRange { .. } => None,
        _ => fop.inode().or_else(|| fop.files()[0].map(|file| file.gfid)),
    }
}

/// The directories whose locks an entry fop asks about.
fn parents_of(fop: &Fop) -> Vec<Gfid> {
    match fop {
        Fop::Lookup { .. } | Fop::Namelink { .. } | Fop::Put { .. } => Vec::new(),
        _ => fop.entries().into_iter().flatten().map(|entry| entry.parent).collect(),
    }
}

impl Translator for Locks {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        Box::pin(async move {
            match fop {
                Fop::Inodelk { gfid, domain, cmd, flock, .. } => self.inodelk(context, gfid, domain, cmd, flock).await,
                Fop::Finodelk { file, domain, cmd, flock, .. } => {
                    self.inodelk(context, file.gfid, domain, cmd, flock).await
                }
                Fop::Entrylk { gfid, domain, name, cmd, kind, .. } => {
                    self.entrylk(context, gfid, domain, EntryName { name, kind }, cmd).await
                }
                Fop::Fentrylk { file, domain, name, cmd, kind, .. } => {
                    self.entrylk(context, file.gfid, domain, EntryName { name, kind }, cmd).await
                }
                Fop::Lk { file, cmd, flock, xdata } => self.lk(context, file, cmd, flock, &xdata).await,
                Fop::Flush { file, xdata } => {
                    self.drop_owner(context, file);
                    self.pass(context, Fop::Flush { file, xdata }).await
                }
                Fop::Release { file } => {
                    self.drop_fd(context.client, file);
                    if let Some(fd) = file.fd
                        && self.nonblocking.read().contains(&fd)
                    {
                        self.nonblocking.write().remove(&fd);
                    }
                    self.child.submit(context, Fop::Release { file }).await
                }
                Fop::Getxattr { gfid, name, .. } if clear::is_command(&name) => self.clear(context, gfid, &name).await,
                Fop::Fgetxattr { file, name, .. } if clear::is_command(&name) => {
                    self.clear(context, file.gfid, &name).await
                }
                Fop::Fgetxattr { file, name, .. } if name == lockinfo::KEY.as_bytes() => {
                    self.tell_lockinfo(context, file).await
                }
                Fop::Fsetxattr { file, mut xattrs, flags, xdata } if xattrs.contains(lockinfo::KEY) => {
                    let info = xattrs.remove(lockinfo::KEY);
                    self.take_lockinfo(context, file, info).await?;
                    match xattrs.is_empty() {
                        true => Ok(Reply::done()),
                        false => self.gated(context, Fop::Fsetxattr { file, xattrs, flags, xdata }).await,
                    }
                }
                Fop::Getactivelk { gfid, xdata } => {
                    self.child.submit(context, Fop::Getactivelk { gfid, xdata }).await?;
                    Ok(self.active_locks(gfid))
                }
                Fop::Setactivelk { gfid, locks, .. } => self.set_active_locks(context, gfid, locks),
                fop if self.settings.read().mandatory != mandatory::Mode::Off || mandatory::marks(&fop) => {
                    self.gated(context, fop).await
                }
                fop => self.pass(context, fop).await,
            }
        })
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        *self.parent.lock() = Some((parent, child_index));
    }
}

impl Parent for Locks {
    fn child_event(&self, _: usize, event: Event) {
        let parent = self.parent.lock().clone();
        if let Some((parent, index)) = parent
            && let Some(parent) = parent.upgrade()
        {
            parent.child_event(index, event);
        }
    }
}
