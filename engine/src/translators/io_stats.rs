//! debug/io-stats: how often, how long and how much, for `gluster volume profile` and `volume top`.
//!
//! Profiles only while `count-fop-hits` or `latency-measurement` is on, as `volume profile start` sets them. Otherwise
//! opens, reads, writes and lists of directories are counted by inode, for `volume top`, and all fops pass untouched. [`IoStats::info`] answers the questions of glusterd's XLATOR_INFO with GlusterFS 10.3's
//! keys (io-stats.c). Dumps to files by setxattr are the client's alone: on bricks they were CVE-2018-14659.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::File;
use ladrillo_translator::option::Options;
use ladrillo_translator::{
    Context, Dict, Fop, FopError, FopFuture, FopKind, FopResult, Gfid, Parent, Reply, Runtime, Timespec, Translator,
    Value,
};
use parking_lot::Mutex;

use super::date::Date;
use super::read_only::flag;

/// Sizes of reads and writes are counted by powers of two.
const SIZES: usize = 32;
/// Kinds of fops, by GF_FOP_* number.
const FOPS: usize = 59;
/// Most inodes counted one by one, in all shards. Source: our bound; the lists of GlusterFS have 100 each, of those it
/// happened to keep.
const MAX_INODES: usize = 16_384;
/// So that the threads of a brick seldom meet at a lock.
const SHARDS: usize = 16;
/// So many inodes more than there is room for, and a shard forgets those seen once.
const FORGET_AFTER: usize = 1024;
/// Longest list that is answered (MAX_LIST_MEMBERS).
const MAX_LIST: usize = 100;

/// GF_FOP_* of a fop, which is not its procedure on the wire.
fn number(kind: FopKind) -> usize {
    match kind {
        FopKind::Release => 42,
        FopKind::Releasedir => 43,
        FopKind::Fremovexattr => 45,
        FopKind::Fallocate => 46,
        FopKind::Discard => 47,
        FopKind::Zerofill => 48,
        FopKind::Ipc => 49,
        FopKind::Seek => 50,
        FopKind::Lease => 51,
        FopKind::Getactivelk => 53,
        FopKind::Setactivelk => 54,
        FopKind::Put => 55,
        FopKind::Icreate => 56,
        FopKind::Namelink => 57,
        FopKind::CopyFileRange => 58,
        // The first forty agree.
        other => (other.procedure() as usize).min(40),
    }
}

/// In nanoseconds, as 10.3 tells them.
#[derive(Clone, Copy, Default)]
struct Latency {
    hits: u64,
    measured: u64,
    total_ns: u64,
    min_ns: u64,
    max_ns: u64,
}

#[derive(Clone)]
struct Stats {
    since_s: i64,
    read_bytes: u64,
    written_bytes: u64,
    reads: [u64; SIZES],
    writes: [u64; SIZES],
    fops: [Latency; FOPS],
}

impl Stats {
    fn new(since_s: i64) -> Stats {
        Stats {
            since_s,
            read_bytes: 0,
            written_bytes: 0,
            reads: [0; SIZES],
            writes: [0; SIZES],
            fops: [Latency::default(); FOPS],
        }
    }

    fn count(&mut self, fop: &Seen, took_ns: Option<u64>) {
        let latency = &mut self.fops[fop.number.min(FOPS - 1)];
        latency.hits += 1;
        if let Some(ns) = took_ns {
            latency.min_ns = if latency.measured == 0 { ns } else { latency.min_ns.min(ns) };
            latency.max_ns = latency.max_ns.max(ns);
            latency.total_ns = latency.total_ns.saturating_add(ns);
            latency.measured += 1;
        }
        let at = fop.bytes.checked_ilog2().unwrap_or(0).min(SIZES as u32 - 1) as usize;
        match fop.number {
            READ => {
                self.read_bytes = self.read_bytes.saturating_add(fop.bytes);
                self.reads[at] += 1;
            }
            WRITE => {
                self.written_bytes = self.written_bytes.saturating_add(fop.bytes);
                self.writes[at] += 1;
            }
            _ => {}
        }
    }

    fn tell(&self, interval: i64, now_s: i64, out: &mut Dict) {
        let mut put = |key: String, value: Value| out.set(key, value);
        let name = if interval == -1 { "cumulative" } else { "interval" };
        put(name.to_owned(), Value::Int(interval));
        let seconds = u64::try_from(now_s.saturating_sub(self.since_s)).unwrap_or(0);
        put(format!("{interval}-duration"), Value::Uint(seconds));
        put(format!("{interval}-total-read"), Value::Uint(self.read_bytes));
        put(format!("{interval}-total-write"), Value::Uint(self.written_bytes));
        for (what, sizes) in [("read", &self.reads), ("write", &self.writes)] {
            for (i, count) in sizes.iter().enumerate().filter(|(_, count)| **count > 0) {
                put(format!("{interval}-{what}-{}", 1u64 << i), Value::Uint(*count));
            }
        }
        for (i, fop) in self.fops.iter().enumerate().filter(|(_, fop)| fop.hits > 0) {
            put(format!("{interval}-{i}-hits"), Value::Uint(fop.hits));
            if fop.measured > 0 {
                let mean = fop.total_ns as f64 / fop.measured as f64;
                put(format!("{interval}-{i}-avglatency"), Value::Double(mean));
                put(format!("{interval}-{i}-minlatency"), Value::Double(fop.min_ns as f64));
                put(format!("{interval}-{i}-maxlatency"), Value::Double(fop.max_ns as f64));
            }
        }
    }
}

/// GF_FOP_READ and GF_FOP_WRITE.
const READ: usize = 12;
const WRITE: usize = 13;

/// What `volume top` lists: IOS_STATS_TYPE_OPEN 1, READ 2, WRITE 3, OPENDIR 4, READDIRP 5, and the highest throughput of
/// reads 6 and writes 7.
const TOPS: usize = 7;

#[derive(Clone, Copy, Default)]
struct PerInode {
    /// Calls by kind; the highest throughputs in bytes per microsecond (MB/s) at 5 and 6.
    values: [u64; TOPS],
    /// When those were reached.
    reached: [Timespec; 2],
}

struct State {
    cumulative: Stats,
    interval: Stats,
    intervals: i64,
    max_open: u64,
    max_open_at: Timespec,
}

/// Some of the inodes.
#[derive(Default)]
struct Shard {
    inodes: HashMap<Gfid, PerInode>,
    /// Calls on inodes that there was no room for.
    missed: usize,
}

impl Shard {
    /// The counts of `gfid`, unless it is new and there is no room.
    fn inode(&mut self, gfid: Gfid) -> Option<&mut PerInode> {
        if self.inodes.len() >= MAX_INODES / SHARDS && !self.inodes.contains_key(&gfid) {
            self.missed += 1;
            if self.missed < FORGET_AFTER {
                return None;
            }
            self.missed = 0;
            self.inodes.retain(|_, inode| inode.values.iter().take(5).sum::<u64>() > 1);
            if self.inodes.len() >= MAX_INODES / SHARDS {
                return None;
            }
        }
        Some(self.inodes.entry(gfid).or_default())
    }
}

/// The list a fop counts for, and its inode.
fn listed(fop: &Fop) -> Option<(usize, Gfid)> {
    match fop {
        Fop::Open { gfid, .. } => Some((0, *gfid)),
        Fop::Read { file: File { gfid, .. }, .. } => Some((1, *gfid)),
        Fop::Write { file: File { gfid, .. }, .. } => Some((2, *gfid)),
        Fop::Opendir { gfid, .. } => Some((3, *gfid)),
        Fop::Readdirp { file: File { gfid, .. }, .. } => Some((4, *gfid)),
        _ => None,
    }
}

/// What is remembered of a fop while it is under way.
struct Seen {
    number: usize,
    bytes: u64,
    top: Option<(usize, Gfid)>,
    opens: bool,
    closes: bool,
}

impl Seen {
    fn of(fop: &Fop) -> Seen {
        Seen {
            number: number(fop.kind()),
            bytes: 0,
            top: listed(fop),
            opens: matches!(fop, Fop::Open { .. } | Fop::Create { .. }),
            closes: matches!(fop, Fop::Release { .. }),
        }
    }
}

/// The translator.
pub struct IoStats {
    name: String,
    child: Arc<dyn Translator>,
    runtime: Arc<dyn Runtime>,
    count: AtomicBool,
    measure: AtomicBool,
    /// Files open, counted always: `volume top` tells how many there are.
    open: AtomicU64,
    inodes: [Mutex<Shard>; SHARDS],
    state: Mutex<State>,
}

impl IoStats {
    /// Over `child`.
    ///
    /// # Errors
    /// A sentence: a value that is no boolean.
    pub fn new(
        name: &str,
        options: &Options,
        runtime: Arc<dyn Runtime>,
        child: Arc<dyn Translator>,
    ) -> Result<IoStats, String> {
        let now = runtime.wall_clock().seconds;
        let state = State {
            cumulative: Stats::new(now),
            interval: Stats::new(now),
            intervals: 0,
            max_open: 0,
            max_open_at: Timespec::default(),
        };
        let made = IoStats {
            name: name.to_owned(),
            child,
            runtime,
            count: AtomicBool::new(false),
            measure: AtomicBool::new(false),
            open: AtomicU64::new(0),
            inodes: std::array::from_fn(|_| Mutex::default()),
            state: Mutex::new(state),
        };
        made.reconfigure(options)?;
        Ok(made)
    }

    /// Takes changed options.
    ///
    /// # Errors
    /// A value that is no boolean; nothing is changed then.
    pub fn reconfigure(&self, options: &Options) -> Result<(), String> {
        let (count, measure) = (flag(options, "count-fop-hits", false)?, flag(options, "latency-measurement", false)?);
        self.count.store(count, Ordering::Relaxed);
        self.measure.store(measure, Ordering::Relaxed);
        Ok(())
    }

    async fn counted(&self, context: &Context, fop: Fop) -> FopResult {
        let mut seen = Seen::of(&fop);
        let start = self.runtime.now();
        let outcome = self.child.submit(context, fop).await;
        let took = self.runtime.now().saturating_sub(start);
        match &outcome {
            Ok(Reply::Read { data, .. }) => seen.bytes = data.len() as u64,
            Ok(Reply::PrePost { written, .. }) => seen.bytes = u64::from(*written),
            _ => {}
        }
        self.note_open(&seen, outcome.is_ok());
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let now = self.runtime.wall_clock();
        let mut state = self.state.lock();
        if self.count.load(Ordering::Relaxed) || self.measure.load(Ordering::Relaxed) {
            let measured = self.measure.load(Ordering::Relaxed).then_some(took_ns);
            state.cumulative.count(&seen, measured);
            state.interval.count(&seen, measured);
        }
        state.max(self.open.load(Ordering::Relaxed), now);
        drop(state);
        if let (Some((kind, gfid)), true) = (seen.top, outcome.is_ok())
            && let Some(inode) = self.shard(gfid).lock().inode(gfid)
        {
            inode.values[kind] += 1;
            let throughput = seen.bytes.saturating_mul(1000).checked_div(took_ns).unwrap_or(0);
            // The first one counts even when it is less than one.
            if let 1 | 2 = kind
                && (throughput > inode.values[kind + 4] || inode.reached[kind - 1] == Timespec::default())
            {
                inode.values[kind + 4] = throughput;
                inode.reached[kind - 1] = now;
            }
        }
        outcome
    }

    fn shard(&self, gfid: Gfid) -> &Mutex<Shard> {
        // Gfids are random.
        &self.inodes[gfid.ino() as usize % SHARDS]
    }

    fn note_open(&self, seen: &Seen, succeeded: bool) {
        if seen.opens && succeeded {
            self.open.fetch_add(1, Ordering::Relaxed);
        } else if seen.closes {
            let _ = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1)));
        }
    }

    /// Answers XLATOR_INFO. `path_of` names an inode for the lists.
    ///
    /// # Errors
    /// EINVAL: a list that there is not.
    pub fn info(&self, request: &Dict, path_of: &dyn Fn(Gfid) -> String) -> FopResult<Dict> {
        let asked = |key: &str| request.text(key).and_then(ladrillo_translator::option::parse_bool).unwrap_or(false);
        let mut out = Dict::new();
        let now = self.runtime.wall_clock();
        if asked("clear-stats") {
            self.forget_inodes();
            let mut state = self.state.lock();
            self.open.store(0, Ordering::Relaxed);
            (state.max_open, state.max_open_at) = (0, Timespec::default());
            out.set("top-op", Value::Int(0));
            out.set("stats-cleared", Value::Int(1));
            return Ok(out);
        }
        if let Some(op) = request.int("top-op") {
            let kind = usize::try_from(op).ok().and_then(|op| op.checked_sub(1)).filter(|kind| *kind < TOPS);
            let Some(kind) = kind else {
                return Err(FopError::new(errno::EINVAL, format!("there is no list {op} of io-stats")));
            };
            self.top(kind, request, path_of, &mut out);
            return Ok(out);
        }
        // GF_IOS_INFO_ALL 1, INCREMENTAL 2, CUMULATIVE 3, CLEAR 4.
        let op = request.int("info-op").filter(|op| (1..=4).contains(op)).unwrap_or(1);
        out.set("info-op", Value::Int(op));
        let mut state = self.state.lock();
        if op == 4 {
            state.cumulative = Stats::new(now.seconds);
            state.interval = Stats::new(now.seconds);
            state.intervals = 0;
            out.set("stats-cleared", Value::Int(1));
            return Ok(out);
        }
        if op != 2 {
            state.cumulative.tell(-1, now.seconds, &mut out);
        }
        if op != 3 {
            state.interval.tell(state.intervals, now.seconds, &mut out);
            if !asked("peek") {
                state.intervals += 1;
                state.interval = Stats::new(now.seconds);
            }
        }
        Ok(out)
    }

    fn forget_inodes(&self) {
        for shard in &self.inodes {
            *shard.lock() = Shard::default();
        }
    }

    fn top(&self, kind: usize, request: &Dict, path_of: &dyn Fn(Gfid) -> String, out: &mut Dict) {
        let wanted = request.int("list-cnt").and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(MAX_LIST);
        if kind == 0 {
            let state = self.state.lock();
            out.set("current-open", Value::Uint(self.open.load(Ordering::Relaxed)));
            out.set("max-open", Value::Uint(state.max_open));
            let at = if state.max_open == 0 { "N/A".to_owned() } else { date(state.max_open_at) };
            out.set("max-openfd-time", Value::Str(at.into()));
        }
        let has = |inode: &PerInode| match kind {
            5 | 6 => inode.reached[kind - 5] != Timespec::default(),
            _ => inode.values[kind] > 0,
        };
        let mut list: Vec<(Gfid, PerInode)> = Vec::new();
        for shard in &self.inodes {
            list.extend(
                shard.lock().inodes.iter().filter(|(_, inode)| has(inode)).map(|(gfid, inode)| (*gfid, *inode)),
            );
        }
        list.sort_by_key(|(gfid, inode)| (std::cmp::Reverse(inode.values[kind]), *gfid));
        list.truncate(wanted);
        out.set("top-op", Value::Int(kind as i64 + 1));
        for (i, (gfid, inode)) in list.iter().enumerate() {
            let n = i + 1;
            out.set(format!("filename-{n}"), Value::Str(path_of(*gfid).into()));
            out.set(format!("value-{n}"), Value::Uint(inode.values[kind]));
            if let Some(reached) = kind.checked_sub(5).and_then(|at| inode.reached.get(at)) {
                out.set(format!("time-sec-{n}"), Value::Int(reached.seconds));
                out.set(format!("time-usec-{n}"), Value::Int(i64::from(reached.nanos / 1000)));
            }
        }
        out.set("members", Value::Int(list.len() as i64));
    }
}

impl State {
    fn max(&mut self, open: u64, now: Timespec) {
        if open > self.max_open {
            self.max_open = open;
            self.max_open_at = now;
        }
    }
}

/// `2026-11-23 08:30:00.123456 +0000`, in UTC as GlusterFS's logs.
fn date(time: Timespec) -> String {
    let Date { year, month, day, hour, minute, second } = Date::of(time.seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:06} +0000", time.nanos / 1000)
}

impl Translator for IoStats {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        if self.count.load(Ordering::Relaxed) || self.measure.load(Ordering::Relaxed) {
            return Box::pin(self.counted(context, fop));
        }
        if let Some((kind, gfid)) = listed(&fop)
            && let Some(inode) = self.shard(gfid).lock().inode(gfid)
        {
            inode.values[kind] += 1;
        }
        let seen = matches!(fop, Fop::Open { .. } | Fop::Create { .. } | Fop::Release { .. }).then(|| Seen::of(&fop));
        match seen {
            None => self.child.submit(context, fop),
            Some(seen) => Box::pin(async move {
                let outcome = self.child.submit(context, fop).await;
                self.note_open(&seen, outcome.is_ok());
                let open = self.open.load(Ordering::Relaxed);
                self.state.lock().max(open, self.runtime.wall_clock());
                outcome
            }),
        }
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translators::testing::{Bench, Clock, create, write};
    use ladrillo_translator::FdId;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds: i64| date(Timespec { seconds, nanos: 5000 });
        assert_eq!(at(0), "1970-01-01 00:00:00.000005 +0000");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00.000005 +0000");
        assert_eq!(at(1_795_421_234), "2026-11-23 08:07:14.000005 +0000");
    }

    #[test]
    fn a_full_shard_forgets_what_was_seen_once() {
        let mut shard = Shard::default();
        let often = Gfid::random();
        shard.inode(often).unwrap().values[1] = 2;
        for _ in 0..2 * MAX_INODES / SHARDS {
            if let Some(inode) = shard.inode(Gfid::random()) {
                inode.values[1] += 1;
            }
        }
        assert!(shard.inodes.len() <= MAX_INODES / SHARDS && shard.inodes.contains_key(&often));
        assert!(shard.missed < FORGET_AFTER);
    }

    #[test]
    fn profiles_count_by_kind_and_size_and_intervals_begin_anew() {
        let clock = Arc::new(Clock::now());
        let mut handle = None;
        let bench = Bench::new(|storage| {
            let made = Arc::new(IoStats::new("brick", &Options::new(), clock.clone(), storage).unwrap());
            handle = Some(made.clone());
            made
        });
        let (Some(bench), Some(stats)) = (bench, handle) else { return };
        let ask = |request: Dict| stats.info(&request, &|gfid| format!("/{gfid}")).unwrap();
        bench.file(Gfid::ROOT, "before", b"not counted");
        let on = Options::new().with("count-fop-hits", "on").with("latency-measurement", "on");
        stats.reconfigure(&on).unwrap();
        let (gfid, fd) = (Gfid::random(), FdId(3));
        let file = File { gfid, fd: Some(fd) };
        bench.run(create(Gfid::ROOT, "f", gfid, fd)).unwrap();
        bench.run(write(file, &[7; 5000])).unwrap();
        bench.run(write(file, &[7; 100])).unwrap();
        bench.run(Fop::Read { file, offset: 0, size_bytes: 4096, flags: 0, xdata: Dict::new() }).unwrap();
        clock.advance(60);
        let all = ask(Dict::new().with("info-op", Value::Int(1)));
        assert_eq!((all.int("cumulative"), all.int("interval"), all.int("info-op")), (Some(-1), Some(0), Some(1)));
        assert_eq!((all.int("-1-duration"), all.int("0-total-write")), (Some(60), Some(5100)));
        assert_eq!(
            (all.int("-1-write-4096"), all.int("-1-write-64"), all.int("-1-read-4096")),
            (Some(1), Some(1), Some(1))
        );
        assert_eq!((all.int("-1-13-hits"), all.int("-1-12-hits"), all.int("-1-23-hits")), (Some(2), Some(1), Some(1)));
        assert!(matches!(all.get("-1-13-avglatency"), Some(Value::Double(_))));
        let next = ask(Dict::new().with("info-op", Value::Int(2)));
        assert_eq!((next.int("interval"), next.int("1-13-hits"), next.get("cumulative")), (Some(1), None, None));
        let top = ask(Dict::new().with("top-op", Value::Int(3)).with("list-cnt", Value::Int(10)));
        assert_eq!((top.int("members"), top.int("value-1")), (Some(2), Some(2)));
        assert_eq!(top.text("filename-1"), Some(&*format!("/{gfid}")));
        let open = ask(Dict::new().with("top-op", Value::Int(1)));
        assert_eq!((open.int("current-open"), open.int("max-open")), (Some(1), Some(1)));
        bench.run(Fop::Release { file }).unwrap();
        assert_eq!(ask(Dict::new().with("top-op", Value::Int(1))).int("current-open"), Some(0));
        assert!(stats.info(&Dict::new().with("top-op", Value::Int(9)), &|_| String::new()).is_err());
        // Lists go on without a profile.
        stats.reconfigure(&Options::new()).unwrap();
        bench.file(Gfid::ROOT, "after", b"listed");
        let writes = || ask(Dict::new().with("top-op", Value::Int(3)).with("list-cnt", Value::Int(10)));
        assert_eq!((writes().int("members"), writes().int("value-1")), (Some(3), Some(2)));
        assert_eq!(ask(Dict::new().with("clear-stats", Value::Str("1".into()))).int("stats-cleared"), Some(1));
        assert_eq!(writes().int("members"), Some(0));
        assert_eq!(ask(Dict::new().with("top-op", Value::Int(1))).text("max-openfd-time"), Some("N/A"));
        ask(Dict::new().with("info-op", Value::Int(4)));
        assert_eq!(ask(Dict::new()).int("-1-13-hits"), None);
    }
}
