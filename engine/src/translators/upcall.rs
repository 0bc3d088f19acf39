//! features/upcall: clients that looked at an inode lately hear when another one changes it.
//!
//! Promises: with `cache-invalidation` on, whoever looked at an inode within `cache-invalidation-timeout` seconds is told
//! of every change of it by others before the change is answered, with GlusterFS 10.3's flags (UP_*) and attributes; what
//! is remembered is bounded, and who is forgotten early is told so (UP_FORGET). Off, fops pass as if it were not there.
//!
//! More than GlusterFS tells: of a directory also when a name in it goes or changes, of a file that a rename replaces, of
//! COPY_FILE_RANGE, and of changed xattrs that applications see though no client asked for them (as changed times).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ladrillo_translator::fop::{DirEntry, Entry, PrePost};
use ladrillo_translator::option::Options;
use ladrillo_translator::{
    ClientId, Context, Dict, Fop, FopFuture, FopKind, FopResult, Gfid, Iatt, Parent, Reply, Runtime, Translator, Value,
};
use ladrillo_transport::program::callback::CacheInvalidation;
use parking_lot::{Mutex, RwLock};

use super::read_only::flag;
use crate::storage::xattr::matches_pattern;

/// What changed. Source: GlusterFS 10.3, upcall-utils.h.
mod up {
    pub const NLINK: u32 = 0x1;
    pub const MODE: u32 = 0x2;
    pub const OWN: u32 = 0x4;
    pub const SIZE: u32 = 0x8;
    pub const TIMES: u32 = 0x10;
    pub const PERM: u32 = 0x40;
    pub const RENAME: u32 = 0x80;
    pub const FORGET: u32 = 0x100;
    pub const PARENT_TIMES: u32 = 0x200;
    pub const XATTR: u32 = 0x400;
    pub const XATTR_RM: u32 = 0x800;

    pub const WRITE: u32 = SIZE | TIMES;
    pub const ATTRIBUTES: u32 = SIZE | TIMES | OWN | MODE | PERM;
    pub const GONE: u32 = NLINK | TIMES | PARENT_TIMES;
}

/// IPC by which clients say which xattrs they keep (GF_IPC_TARGET_UPCALL).
const IPC_UPCALL: i32 = 2;
/// Most such patterns, and their longest. Source: our bounds; md-cache of GlusterFS has some ten.
const MAX_WATCHED: usize = 256;
const MAX_PATTERN_BYTES: usize = 255;
const AFR: &[u8] = b"trusted.afr.";

/// `cache-invalidation-timeout`, in seconds, where it is not set (CACHE_INVALIDATION_TIMEOUT).
const DEFAULT_TIMEOUT_S: u64 = 60;

const SHARDS: usize = 16;
/// Pairs of inode and client in one generation of a shard: some 50 MB in all. Source: our bound.
const MAX_PAIRS: usize = 16_384;
/// Clients of one inode.
const MAX_CLIENTS: usize = 4096;

/// A client is to be told that an inode has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Invalidation {
    /// Whom to tell.
    pub client: ClientId,
    /// What.
    pub what: Arc<CacheInvalidation>,
}

type Hook = Arc<dyn Fn(Invalidation) + Send + Sync>;

/// The translator.
pub struct Upcall {
    name: String,
    child: Arc<dyn Translator>,
    runtime: Arc<dyn Runtime>,
    on: AtomicBool,
    timeout_s: AtomicU64,
    shards: [Mutex<Shard>; SHARDS],
    hook: RwLock<Option<Hook>>,
    /// Patterns of the xattrs that clients keep.
    watched: RwLock<Vec<Vec<u8>>>,
}

/// Who looked at which inodes, in two generations: what nobody touched since the last change of generations goes at the
/// next, which comes when the younger is full or old enough.
#[derive(Default)]
struct Shard {
    young: HashMap<Gfid, Vec<Seen>>,
    young_pairs: usize,
    old: HashMap<Gfid, Vec<Seen>>,
    turned: Duration,
}

#[derive(Clone, Copy)]
struct Seen {
    client: ClientId,
    at: Duration,
}

/// What there is to know of a fop before it is carried out.
struct About {
    kind: FopKind,
    inode: Option<Gfid>,
    parents: [Option<Gfid>; 2],
    /// The inode whose name goes: an unlinked one, or one that a rename replaces.
    goes: Option<Gfid>,
    xattrs: Dict,
}

impl Upcall {
    /// Over `child`.
    ///
    /// # Errors
    /// A sentence: an option's value.
    pub fn new(
        name: &str,
        options: &Options,
        runtime: Arc<dyn Runtime>,
        child: Arc<dyn Translator>,
    ) -> Result<Upcall, String> {
        let made = Upcall {
            name: name.to_owned(),
            child,
            runtime,
            on: AtomicBool::new(false),
            timeout_s: AtomicU64::new(DEFAULT_TIMEOUT_S),
            shards: Default::default(),
            hook: RwLock::default(),
            watched: RwLock::default(),
        };
        made.reconfigure(options)?;
        Ok(made)
    }

    /// Takes changed options.
    ///
    /// # Errors
    /// A value that is none; nothing is changed then.
    pub fn reconfigure(&self, options: &Options) -> Result<(), String> {
        let on = flag(options, "cache-invalidation", false)?;
        let timeout_s = match options.get("cache-invalidation-timeout") {
            None => DEFAULT_TIMEOUT_S,
            Some(text) => match text.trim().parse() {
                Ok(seconds) => u64::min(seconds, u64::from(u32::MAX)),
                Err(_) => return Err(format!("option cache-invalidation-timeout {text:?}: not a number of seconds")),
            },
        };
        self.timeout_s.store(timeout_s, Ordering::Relaxed);
        if self.on.swap(on, Ordering::Relaxed) && !on {
            for shard in &self.shards {
                *shard.lock() = Shard::default();
            }
        }
        Ok(())
    }

    /// Who tells clients: the server. Called outside all locks.
    pub fn on_invalidation(&self, tell: impl Fn(Invalidation) + Send + Sync + 'static) {
        *self.hook.write() = Some(Arc::new(tell));
    }

    /// Pairs of inode and client that are remembered now.
    pub fn remembered(&self) -> usize {
        let pairs = |generation: &HashMap<Gfid, Vec<Seen>>| generation.values().map(Vec::len).sum::<usize>();
        self.shards.iter().map(|shard| shard.lock()).map(|shard| pairs(&shard.young) + pairs(&shard.old)).sum()
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s.load(Ordering::Relaxed))
    }

    /// `context`'s client has looked at the inode.
    fn looked(&self, context: &Context, gfid: Gfid) {
        self.touch(context, gfid, None);
    }

    /// `context`'s client has changed the inode: others are told.
    fn changed(&self, context: &Context, gfid: Gfid, what: CacheInvalidation) {
        self.touch(context, gfid, Some(what));
    }

    fn touch(&self, context: &Context, gfid: Gfid, what: Option<CacheInvalidation>) {
        if context.client == ClientId::LOCAL || gfid.is_null() {
            return;
        }
        let (now, timeout) = (self.runtime.now(), self.timeout());
        let (mut told, mut forgotten) = (Vec::new(), Vec::new());
        {
            let mut shard = self.shards[usize::from(gfid.0[15]) % SHARDS].lock();
            shard.turn(now, timeout, &mut forgotten);
            let shard = &mut *shard;
            let clients = match shard.young.entry(gfid) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => {
                    let before = shard.old.remove(&gfid).unwrap_or_else(|| Vec::with_capacity(1));
                    shard.young_pairs += before.len();
                    place.insert(before)
                }
            };
            let count = clients.len();
            clients.retain(|seen| seen.client == context.client || now.saturating_sub(seen.at) <= 2 * timeout);
            match clients.iter_mut().find(|seen| seen.client == context.client) {
                Some(own) => own.at = now,
                None => {
                    if clients.len() >= MAX_CLIENTS {
                        forgotten.push((gfid, clients.remove(0).client));
                    }
                    clients.push(Seen { client: context.client, at: now });
                }
            }
            shard.young_pairs = (shard.young_pairs + clients.len()).saturating_sub(count);
            if what.is_some() {
                let is_fresh = |seen: &&Seen| seen.client != context.client && now.saturating_sub(seen.at) < timeout;
                told.extend(clients.iter().filter(is_fresh).map(|seen| seen.client));
            }
        }
        if told.is_empty() && forgotten.is_empty() {
            return;
        }
        let Some(hook) = self.hook.read().clone() else { return };
        let expire_time_attr_seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        for (gfid, client) in forgotten {
            let what = CacheInvalidation { gfid, flags: up::FORGET, expire_time_attr_seconds, ..Default::default() };
            hook(Invalidation { client, what: Arc::new(what) });
        }
        if let Some(what) = what {
            let what = Arc::new(CacheInvalidation { gfid, expire_time_attr_seconds, ..what });
            for client in told {
                hook(Invalidation { client, what: what.clone() });
            }
        }
    }

    async fn gfid_of(&self, entry: &Entry) -> Option<Gfid> {
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() };
        match self.child.submit(&Context::root(), fop).await {
            Ok(Reply::Lookup { iatt, .. }) => Some(iatt.gfid),
            _ => None,
        }
    }

    async fn iatt_of(&self, gfid: Gfid) -> Option<Iatt> {
        match self.child.submit(&Context::root(), Fop::Stat { gfid, xdata: Dict::new() }).await {
            Ok(Reply::Iatt { iatt, .. }) => Some(*iatt),
            _ => None,
        }
    }

    async fn watch(&self, context: &Context, fop: Fop) -> FopResult {
        let goes = match &fop {
            Fop::Unlink { entry, .. } | Fop::Rmdir { entry, .. } => self.gfid_of(entry).await,
            Fop::Rename { to, .. } => self.gfid_of(to).await,
            _ => None,
        };
        let about = About {
            kind: fop.kind(),
            inode: match &fop {
                Fop::CopyFileRange { to, .. } => Some(to.gfid),
                _ => fop.inode().or_else(|| fop.files()[0].map(|file| file.gfid)),
            },
            parents: fop.entries().map(|entry| entry.map(|entry| entry.parent)),
            goes,
            xattrs: xattrs_of(&fop),
        };
        let reply = self.child.submit(context, fop).await?;
        self.note(context, about, &reply).await;
        Ok(reply)
    }

    async fn note(&self, context: &Context, about: About, reply: &Reply) {
        let of = |flags: u32, iatt: &Iatt| CacheInvalidation { flags, iatt: iatt.clone(), ..Default::default() };
        let directory = |parent: Option<Gfid>, attrs: &PrePost| {
            if let Some(parent) = parent {
                self.changed(context, parent, of(up::TIMES, &attrs.post));
            }
        };
        match (reply, about.inode) {
            (Reply::Entry { iatt, parent, .. }, _) => {
                directory(about.parents[0], parent);
                if about.kind == FopKind::Link {
                    let what = CacheInvalidation { parent: parent.post.clone(), ..of(up::GONE, iatt) };
                    self.changed(context, iatt.gfid, what);
                } else {
                    self.looked(context, iatt.gfid);
                }
            }
            (Reply::Removed { parent, .. }, _) => {
                directory(about.parents[0], parent);
                if let Some(gfid) = about.goes {
                    let what = CacheInvalidation { flags: up::GONE, parent: parent.post.clone(), ..Default::default() };
                    self.changed(context, gfid, what);
                }
            }
            (Reply::Rename { iatt, from_parent, to_parent, .. }, _) => {
                directory(about.parents[0], from_parent);
                if about.parents[1] != about.parents[0] {
                    directory(about.parents[1], to_parent);
                }
                if let Some(gfid) = about.goes.filter(|gfid| *gfid != iatt.gfid) {
                    let what =
                        CacheInvalidation { flags: up::GONE, parent: to_parent.post.clone(), ..Default::default() };
                    self.changed(context, gfid, what);
                }
                let what = CacheInvalidation {
                    parent: to_parent.post.clone(),
                    old_parent: from_parent.post.clone(),
                    ..of(up::RENAME | up::PARENT_TIMES, iatt)
                };
                self.changed(context, iatt.gfid, what);
            }
            (Reply::PrePost { .. }, Some(gfid)) if about.kind == FopKind::Fsync => self.looked(context, gfid),
            (Reply::PrePost { attrs, .. }, Some(gfid)) => {
                let flags = match about.kind {
                    FopKind::Setattr | FopKind::Fsetattr if attrs.pre.mode != attrs.post.mode => {
                        up::ATTRIBUTES | up::XATTR
                    }
                    FopKind::Setattr | FopKind::Fsetattr => up::ATTRIBUTES,
                    _ => up::WRITE,
                };
                self.changed(context, gfid, of(flags, &attrs.post));
            }
            (Reply::CopyFileRange { to, .. }, Some(gfid)) => self.changed(context, gfid, of(up::WRITE, &to.post)),
            (Reply::Lookup { iatt, .. }, _) => self.looked(context, iatt.gfid),
            (Reply::Entries { entries, .. }, Some(gfid)) => {
                self.looked(context, gfid);
                for DirEntry { iatt, name, .. } in entries {
                    if let Some(iatt) = iatt.as_ref().filter(|_| !matches!(&name[..], b"." | b"..")) {
                        self.looked(context, iatt.gfid);
                    }
                }
            }
            (reply, Some(gfid)) => match about.kind {
                FopKind::Setxattr | FopKind::Fsetxattr | FopKind::Removexattr | FopKind::Fremovexattr => {
                    self.xattrs_changed(context, gfid, about).await;
                }
                FopKind::Xattrop | FopKind::Fxattrop => self.counted(context, gfid, about, reply),
                FopKind::Open
                | FopKind::Opendir
                | FopKind::Stat
                | FopKind::Fstat
                | FopKind::Statfs
                | FopKind::Access
                | FopKind::Readlink
                | FopKind::Read
                | FopKind::Lk
                | FopKind::Seek
                | FopKind::Getxattr
                | FopKind::Fgetxattr => self.looked(context, gfid),
                _ => {}
            },
            _ => {}
        }
    }

    fn is_watched(&self, key: &[u8]) -> bool {
        self.watched.read().iter().any(|pattern| matches_pattern(pattern, key))
    }

    async fn xattrs_changed(&self, context: &Context, gfid: Gfid, about: About) {
        let is_removal = matches!(about.kind, FopKind::Removexattr | FopKind::Fremovexattr);
        let is_seen = |key: &[u8]| [&b"user."[..], b"system.", b"security."].iter().any(|kind| key.starts_with(kind));
        if !about.xattrs.iter().any(|(key, _)| is_seen(key) || self.is_watched(key)) {
            return;
        }
        let Some(iatt) = self.iatt_of(gfid).await else { return };
        let is_acl = about.xattrs.iter().any(|(key, _)| key.starts_with(b"system.posix_acl"));
        let mut what = CacheInvalidation { flags: up::TIMES, iatt, ..Default::default() };
        if is_acl {
            what.flags |= up::MODE | up::PERM;
        }
        what.xdata = about
            .xattrs
            .iter()
            .filter(|(key, _)| self.is_watched(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !what.xdata.is_empty() {
            what.flags |= if is_removal { up::XATTR_RM } else { up::XATTR };
        }
        self.changed(context, gfid, what);
    }

    /// Of replicate's marks clients hear when one is made on a clean inode, not of each that adds to it.
    fn counted(&self, context: &Context, gfid: Gfid, about: About, reply: &Reply) {
        let Reply::Xattrs { xattrs: now, .. } = reply else { return };
        let is_zero = |value: &Value| value_bytes(value).is_none_or(|raw| raw.iter().all(|byte| *byte == 0));
        let xdata: Dict = about
            .xattrs
            .iter()
            .filter(|(key, value)| self.is_watched(key) && !(key.starts_with(AFR) && is_zero(value)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let is_first = |(key, value): (&bytes::Bytes, &Value)| {
            !key.starts_with(AFR) || now.get(key).and_then(value_bytes) == value_bytes(value)
        };
        if !xdata.is_empty() && xdata.iter().all(is_first) {
            self.changed(context, gfid, CacheInvalidation { flags: up::XATTR, xdata, ..Default::default() });
        }
    }

    /// Takes the patterns of xattrs that a client keeps. As in GlusterFS they stay.
    fn register(&self, patterns: &Dict) -> FopResult {
        let mut watched = self.watched.write();
        for (pattern, _) in patterns.iter() {
            if pattern.len() <= MAX_PATTERN_BYTES
                && watched.len() < MAX_WATCHED
                && !watched.iter().any(|known| known == pattern)
            {
                watched.push(pattern.to_vec());
            }
        }
        Ok(Reply::done())
    }
}

impl Shard {
    /// Changes generations where it is time. Who looked lately at what is dropped is added to `forgotten`.
    fn turn(&mut self, now: Duration, timeout: Duration, forgotten: &mut Vec<(Gfid, ClientId)>) {
        let is_full = self.young_pairs >= MAX_PAIRS;
        if !is_full && now.saturating_sub(self.turned) <= 2 * timeout {
            return;
        }
        let dropped = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        (self.young_pairs, self.turned) = (0, now);
        for (gfid, clients) in dropped {
            let fresh = clients.iter().filter(|seen| now.saturating_sub(seen.at) < timeout);
            forgotten.extend(fresh.map(|seen| (gfid, seen.client)));
        }
    }
}

fn value_bytes(value: &Value) -> Option<&bytes::Bytes> {
    match value {
        Value::Str(raw) | Value::StrOld(raw) | Value::Ptr(raw) => Some(raw),
        _ => None,
    }
}

/// The xattrs that a fop changes; those it removes without values.
fn xattrs_of(fop: &Fop) -> Dict {
    match fop {
        Fop::Setxattr { xattrs, .. }
        | Fop::Fsetxattr { xattrs, .. }
        | Fop::Xattrop { xattrs, .. }
        | Fop::Fxattrop { xattrs, .. } => xattrs.clone(),
        // Without a name: those of xdata.
        Fop::Removexattr { name, xdata, .. } | Fop::Fremovexattr { name, xdata, .. } if name.is_empty() => {
            xdata.clone()
        }
        Fop::Removexattr { name, .. } | Fop::Fremovexattr { name, .. } => {
            Dict::new().with(name.clone(), Value::Str("".into()))
        }
        _ => Dict::new(),
    }
}

impl Translator for Upcall {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        match &fop {
            Fop::Ipc { op: IPC_UPCALL, xdata } => {
                let outcome = self.register(xdata);
                Box::pin(async move { outcome })
            }
            _ if !self.on.load(Ordering::Relaxed) || context.client == ClientId::LOCAL => {
                self.child.submit(context, fop)
            }
            _ => Box::pin(self.watch(context, fop)),
        }
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

#[cfg(test)]
mod tests {
    use ladrillo_translator::fop::File;
    use ladrillo_translator::iatt::SetattrValid;

    use super::*;
    use crate::translators::testing::{Bench, Clock, entry, lookup, write};

    struct World {
        bench: Bench,
        upcall: Arc<Upcall>,
        clock: Arc<Clock>,
        told: Arc<Mutex<Vec<Invalidation>>>,
    }

    impl World {
        fn new() -> Option<World> {
            let (clock, told) = (Arc::new(Clock::new(1000)), Arc::new(Mutex::new(Vec::new())));
            let mut made = None;
            let bench = Bench::new(|storage| {
                let options = Options::new().with("cache-invalidation", "on");
                let upcall = Arc::new(Upcall::new("upcall", &options, clock.clone(), storage).unwrap());
                made = Some(upcall.clone());
                upcall
            })?;
            let upcall = made?;
            let hears = told.clone();
            upcall.on_invalidation(move |what| hears.lock().push(what));
            Some(World { bench, upcall, clock, told })
        }

        fn ask(&self, client: u64, fop: Fop) -> FopResult {
            self.bench.run_as(&Context { client: ClientId(client), ..Context::root() }, fop)
        }

        /// What was told since, by client, inode and flags.
        fn told(&self) -> Vec<(u64, Gfid, u32)> {
            self.told.lock().drain(..).map(|told| (told.client.0, told.what.gfid, told.what.flags)).collect()
        }
    }

    #[test]
    fn who_looked_lately_hears_of_changes_by_others() {
        let Some(world) = World::new() else { return };
        let gfid = world.bench.file(Gfid::ROOT, "f", b"one");
        for client in [1, 2] {
            world.ask(client, lookup(Gfid::ROOT, "f")).unwrap();
        }
        assert_eq!(world.told(), []);
        let unnamed = File { gfid, fd: None };
        world.ask(1, write(unnamed, b"more")).unwrap();
        {
            let told = world.told.lock();
            let what = &told[0].what;
            assert_eq!((what.iatt.size_bytes, what.expire_time_attr_seconds), (4, 60));
        }
        assert_eq!(world.told(), [(2, gfid, up::WRITE)]);
        let mode = |mode| Fop::Setattr {
            gfid,
            iatt: Box::new(Iatt { mode, ..Iatt::default() }),
            valid: SetattrValid(SetattrValid::MODE),
            xdata: Dict::new(),
        };
        world.ask(2, mode(0o600)).unwrap();
        assert_eq!(world.told(), [(1, gfid, up::ATTRIBUTES | up::XATTR)]);
        // After a minute without a look, no more.
        world.clock.advance(59);
        world.ask(1, mode(0o640)).unwrap();
        assert_eq!(world.told().len(), 1);
        world.clock.advance(2);
        world.ask(1, mode(0o644)).unwrap();
        assert_eq!(world.told(), []);
        world.bench.run(mode(0o600)).unwrap();
        assert_eq!(world.told(), [], "the process's own work");
        // Nobody is remembered for ever.
        world.clock.advance(1000);
        for name in 0..64u8 {
            world.ask(1, Fop::Stat { gfid: Gfid([name; 16]), xdata: Dict::new() }).unwrap_err();
            world.ask(1, lookup(Gfid::ROOT, "f")).unwrap();
        }
        world.clock.advance(1000);
        world.ask(1, lookup(Gfid::ROOT, "f")).unwrap();
        assert_eq!(world.upcall.remembered(), 1);
    }

    #[test]
    fn names_that_go_and_change() {
        let Some(world) = World::new() else { return };
        let a = world.bench.file(Gfid::ROOT, "a", b"");
        let b = world.bench.file(Gfid::ROOT, "b", b"");
        let look = |name: &str| world.ask(2, lookup(Gfid::ROOT, name)).unwrap();
        world.ask(2, Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() }).unwrap();
        look("a");
        look("b");
        let x = Dict::new;
        world.ask(1, Fop::Rename { from: entry(Gfid::ROOT, "a"), to: entry(Gfid::ROOT, "b"), xdata: x() }).unwrap();
        assert_eq!(world.told(), [(2, Gfid::ROOT, up::TIMES), (2, b, up::GONE), (2, a, up::RENAME | up::PARENT_TIMES)]);
        world.ask(1, Fop::Link { gfid: a, entry: entry(Gfid::ROOT, "c"), xdata: x() }).unwrap();
        assert_eq!(world.told(), [(2, Gfid::ROOT, up::TIMES), (2, a, up::GONE)]);
        world.ask(1, Fop::Unlink { entry: entry(Gfid::ROOT, "c"), flags: 0, xdata: x() }).unwrap();
        assert_eq!(world.told(), [(2, Gfid::ROOT, up::TIMES), (2, a, up::GONE)]);
        let xdata = x().with("gfid-req", Value::Gfid(Gfid::random()));
        world.ask(1, Fop::Mkdir { entry: entry(Gfid::ROOT, "d"), mode: 0o755, umask: 0, xdata }).unwrap();
        assert_eq!(world.told(), [(2, Gfid::ROOT, up::TIMES)]);
    }

    #[test]
    fn xattrs_are_told_to_whom_they_concern() {
        let Some(world) = World::new() else { return };
        let gfid = world.bench.file(Gfid::ROOT, "f", b"");
        world.ask(2, lookup(Gfid::ROOT, "f")).unwrap();
        let set = |key: &'static str| Fop::Setxattr {
            gfid,
            xattrs: Dict::new().with(key, Value::Ptr("1".into())),
            flags: 0,
            xdata: Dict::new(),
        };
        world.ask(1, set("trusted.glusterfs.x")).unwrap();
        assert_eq!(world.told(), [], "nobody sees it");
        world.ask(1, set("user.a")).unwrap();
        assert_eq!(world.told(), [(2, gfid, up::TIMES)]);
        let xdata = Dict::new().with("user.*", Value::Int(0));
        world.ask(2, Fop::Ipc { op: IPC_UPCALL, xdata }).unwrap();
        world.ask(1, set("user.a")).unwrap();
        assert!(world.told.lock()[0].what.xdata.contains("user.a"));
        assert_eq!(world.told(), [(2, gfid, up::TIMES | up::XATTR)]);
        world.ask(1, Fop::Removexattr { gfid, name: "user.a".into(), xdata: Dict::new() }).unwrap();
        assert_eq!(world.told(), [(2, gfid, up::TIMES | up::XATTR_RM)]);
        let mark = |count: u32| Fop::Xattrop {
            gfid,
            kind: ladrillo_translator::fop::XattropKind::AddArray,
            xattrs: Dict::new().with("trusted.afr.v-client-0", Value::Ptr(mark_bytes(count))),
            xdata: Dict::new(),
        };
        let xdata = Dict::new().with("trusted.afr.v-client-0", Value::Int(0));
        world.ask(2, Fop::Ipc { op: IPC_UPCALL, xdata }).unwrap();
        for (count, heard) in [(0, 0), (1, 1), (1, 0)] {
            world.ask(1, mark(count)).unwrap();
            assert_eq!(world.told().len(), heard, "{count}");
        }
    }

    fn mark_bytes(count: u32) -> bytes::Bytes {
        [count.to_be_bytes(), [0; 4], [0; 4]].concat().into()
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_is_forgotten_hears_it() {
        let Some(world) = World::new() else { return };
        let context = |client| Context { client: ClientId(client), ..Context::root() };
        for n in 0..(2 * MAX_PAIRS as u64 + 10) {
            let mut gfid = Gfid([1; 16]);
            gfid.0[..8].copy_from_slice(&n.to_le_bytes());
            world.upcall.looked(&context(1), gfid);
        }
        let told = world.told();
        assert_eq!(told.len(), MAX_PAIRS);
        assert!(told.iter().all(|(client, _, flags)| (*client, *flags) == (1, up::FORGET)));
        assert_eq!(world.upcall.remembered(), MAX_PAIRS + 10);
        for client in 0..(MAX_CLIENTS as u64 + 5) {
            world.upcall.looked(&context(client + 1), Gfid::ROOT);
        }
        assert_eq!(world.told().len(), 5);
        // Off: all is forgotten, and nobody is asked.
        world.upcall.reconfigure(&Options::new()).unwrap();
        world.bench.file(Gfid::ROOT, "f", b"");
        world.ask(1, lookup(Gfid::ROOT, "f")).unwrap();
        assert_eq!(world.upcall.remembered(), 0);
        assert!(world.upcall.reconfigure(&Options::new().with("cache-invalidation-timeout", "soon")).is_err());
    }
}
