//! All phases, in the order they run.

use super::{Access, Action, Cache, Count, Group, Item, Op, Phase, Shape, Target, Want};

const FULL: Want = Want::Is(Shape::Full);
const EMPTY: Want = Want::Is(Shape::Empty);
const ABSENT: Want = Want::Is(Shape::Absent);

const fn target(rate: f64, cpu: f64, stretch: f64) -> Option<Target> {
    Some(Target { rate: Some(rate), cpu, stretch: Some(stretch) })
}

const fn phase(name: &'static str, group: Group, what: &'static str, action: Action) -> Phase {
    Phase { name, group, what, cache: Cache::AsIs, action, before: &[], after: &[], target: None, daemons_only: false }
}

impl Phase {
    const fn cache(self, cache: Cache) -> Phase {
        Phase { cache, ..self }
    }
    const fn before(self, before: &'static [(Item, Want)]) -> Phase {
        Phase { before, ..self }
    }
    const fn after(self, after: &'static [(Item, Shape)]) -> Phase {
        Phase { after, ..self }
    }
    const fn target(self, target: Option<Target>) -> Phase {
        Phase { target, ..self }
    }
    const fn daemons_only(self) -> Phase {
        Phase { daemons_only: true, ..self }
    }
}

const fn work(name: &'static str, op: Op, item: Item, threads: usize, what: &'static str) -> Phase {
    phase(name, Group::Small, what, Action::Work(op, item, threads))
}

const fn stream(name: &'static str, write: bool, what: &'static str) -> Phase {
    phase(name, Group::Fio, what, Action::Stream { write })
}

const fn random(name: &'static str, write: bool, access: Access, what: &'static str) -> Phase {
    let cache = if write { Cache::AsIs } else { Cache::Cold };
    phase(name, Group::Fio, what, Action::Random { write, access }).cache(cache).before(&[(Item::Stream, FULL)])
}

const fn script(name: &'static str, count: Count, what: &'static str, script: &'static str) -> Phase {
    let group = match count {
        Count::Small => Group::Small,
        Count::Tree => Group::Tree,
        Count::Large => Group::Large,
    };
    phase(name, group, what, Action::Script(script, count))
}

const SMALL_1: &[(Item, Want)] = &[(Item::Small1, FULL)];
const SMALL_4: &[(Item, Want)] = &[(Item::Small4, FULL)];
const SMALL: &[(Item, Want)] = &[(Item::Small1, FULL), (Item::Small4, FULL)];
const TREE: &[(Item, Want)] = &[(Item::Tree, FULL)];
const LARGE: &[(Item, Want)] = &[(Item::Large, FULL)];

const METADATA: Option<Target> = target(10.0, 10.0, 15.0);
const CREATE: Option<Target> = Some(Target { rate: Some(10.0), cpu: 10.0, stretch: Some(20.0) });
const STAT: Option<Target> = target(8.0, 8.0, 10.0);
const WALK: Option<Target> = target(5.0, 5.0, 10.0);
const TREES: Option<Target> = target(10.0, 10.0, 15.0);
const RANDOM_WRITE: Option<Target> = target(8.0, 8.0, 12.0);
const RANDOM_READ: Option<Target> = target(5.0, 5.0, 7.0);

/// All phases, in the order they run.
pub static PHASES: &[Phase] = &[
    stream("seq_write_1m", true, "write one large file in 1 MiB blocks, then fsync")
        .before(&[(Item::Stream, ABSENT)])
        .after(&[(Item::Stream, Shape::Full)])
        .target(target(4.0, 4.0, 6.0)),
    stream("seq_read_1m_cold", false, "read it back in 1 MiB blocks, caches dropped")
        .cache(Cache::Cold)
        .before(&[(Item::Stream, FULL)])
        .target(target(2.0, 2.0, 3.0)),
    random("rand_read_4k_qd16", false, Access::Depth16, "random 4 KiB reads, O_DIRECT, 16 under way, caches dropped")
        .target(RANDOM_READ),
    random("rand_write_4k_qd16", true, Access::Depth16, "random 4 KiB writes, O_DIRECT, 16 under way")
        .target(RANDOM_WRITE),
    random("rand_read_4k_psync4", false, Access::Jobs4, "random 4 KiB reads by 4 processes, caches dropped")
        .target(RANDOM_READ),
    random("rand_write_4k_psync4", true, Access::Jobs4, "random 4 KiB writes by 4 processes").target(RANDOM_WRITE),
    phase("sync_write_4k", Group::Fio, "4 KiB writes one after the other, fdatasync after each", Action::SyncWrites)
        .before(&[(Item::Sync, ABSENT)])
        .after(&[(Item::Sync, Shape::Full)])
        .target(Some(Target { rate: None, cpu: 8.0, stretch: None })),
    work("mkdir_1t", Op::Mkdir, Item::Dirs1, 1, "make directories, 1 thread")
        .before(&[(Item::Dirs1, EMPTY)])
        .after(&[(Item::Dirs1, Shape::Full)])
        .target(METADATA),
    work("mkdir_4t", Op::Mkdir, Item::Dirs4, 4, "make directories, 4 threads")
        .before(&[(Item::Dirs4, EMPTY)])
        .after(&[(Item::Dirs4, Shape::Full)])
        .target(METADATA),
    work("rmdir_1t", Op::Rmdir, Item::Dirs1, 1, "remove them, 1 thread")
        .before(&[(Item::Dirs1, FULL)])
        .after(&[(Item::Dirs1, Shape::Empty)])
        .target(METADATA),
    work("rmdir_4t", Op::Rmdir, Item::Dirs4, 4, "remove them, 4 threads")
        .before(&[(Item::Dirs4, FULL)])
        .after(&[(Item::Dirs4, Shape::Empty)])
        .target(METADATA),
    work("create_4k_1t", Op::Create, Item::Small1, 1, "create files of 4 KiB: open, write, close, 1 thread")
        .before(&[(Item::Small1, EMPTY)])
        .after(&[(Item::Small1, Shape::Full)])
        .target(CREATE),
    work("create_4k_4t", Op::Create, Item::Small4, 4, "the same, 4 threads")
        .before(&[(Item::Small4, EMPTY)])
        .after(&[(Item::Small4, Shape::Full)])
        .target(CREATE),
    work("stat_cold_1t", Op::Stat, Item::Small1, 1, "stat each file, caches dropped, 1 thread")
        .cache(Cache::Cold)
        .before(SMALL_1)
        .target(STAT),
    work("stat_cold_4t", Op::Stat, Item::Small4, 4, "the same, 4 threads")
        .cache(Cache::Cold)
        .before(SMALL_4)
        .target(STAT),
    work(
        "stat_warm_1t",
        Op::Stat,
        Item::Small1,
        1,
        "stat each file again at once, 1 thread (mounts' attribute timeout is 1 s)",
    )
    .cache(Cache::Warm)
    .before(SMALL_1),
    work("stat_expired_1t", Op::Stat, Item::Small1, 1, "stat each file once the attributes seen before are 1 s old")
        .cache(Cache::Expired)
        .before(SMALL_1)
        .target(STAT),
    script(
        "ls_lR_cold",
        Count::Small,
        "ls -lR of all small files, caches dropped",
        "ls -lR \"$1/small1\" \"$1/small4\"",
    )
    .cache(Cache::Cold)
    .before(SMALL)
    .target(WALK),
    script("ls_lR_warm", Count::Small, "ls -lR again", "ls -lR \"$1/small1\" \"$1/small4\"")
        .cache(Cache::Warm)
        .before(SMALL)
        .target(WALK),
    script("find_cold", Count::Small, "find -type f, caches dropped", "find \"$1/small1\" \"$1/small4\" -type f")
        .cache(Cache::Cold)
        .before(SMALL)
        .target(WALK),
    script("du_cold", Count::Small, "du -s, caches dropped", "du -s \"$1/small1\" \"$1/small4\"")
        .cache(Cache::Cold)
        .before(SMALL)
        .target(WALK),
    work("read_cold_1t", Op::Read, Item::Small1, 1, "open, read, check and close each file, caches dropped, 1 thread")
        .cache(Cache::Cold)
        .before(SMALL_1),
    work("read_cold_4t", Op::Read, Item::Small4, 4, "the same, 4 threads").cache(Cache::Cold).before(SMALL_4),
    work("chmod_1t", Op::Chmod, Item::Small1, 1, "chmod each file, 1 thread").before(SMALL_1).target(METADATA),
    work("chmod_4t", Op::Chmod, Item::Small4, 4, "the same, 4 threads").before(SMALL_4).target(METADATA),
    work("append_1t", Op::Append, Item::Small1, 1, "open each file, append 100 bytes, close, 1 thread").before(SMALL_1),
    work("append_4t", Op::Append, Item::Small4, 4, "the same, 4 threads").before(SMALL_4),
    work("rename_1t", Op::Rename, Item::Small1, 1, "rename each file in its directory, 1 thread")
        .before(SMALL_1)
        .after(&[(Item::Small1, Shape::Renamed)])
        .target(METADATA),
    work("rename_4t", Op::Rename, Item::Small4, 4, "the same, 4 threads")
        .before(SMALL_4)
        .after(&[(Item::Small4, Shape::Renamed)])
        .target(METADATA),
    work("unlink_1t", Op::Unlink, Item::Small1, 1, "remove each file, 1 thread")
        .before(&[(Item::Small1, Want::Complete)])
        .after(&[(Item::Small1, Shape::Empty)])
        .target(METADATA),
    work("unlink_4t", Op::Unlink, Item::Small4, 4, "the same, 4 threads")
        .before(&[(Item::Small4, Want::Complete)])
        .after(&[(Item::Small4, Shape::Empty)])
        .target(METADATA),
    script("untar", Count::Tree, "unpack a source tree", "mkdir \"$1/tree\" && tar -C \"$1/tree\" -xf \"$2\"")
        .before(&[(Item::Tree, ABSENT)])
        .after(&[(Item::Tree, Shape::Full)])
        .target(TREES)
        .daemons_only(),
    script("tree_find_cold", Count::Tree, "find in it, caches dropped", "find \"$1/tree\"")
        .cache(Cache::Cold)
        .before(TREE)
        .target(WALK),
    script("tree_du_cold", Count::Tree, "du -s of it, caches dropped", "du -s \"$1/tree\"")
        .cache(Cache::Cold)
        .before(TREE)
        .target(WALK),
    script(
        "tree_grep_cold",
        Count::Tree,
        "grep -r through it, caches dropped",
        // 1: nothing found, as it must be.
        "grep -r nosuchstring_zz \"$1/tree\"; [ $? -eq 1 ]",
    )
    .cache(Cache::Cold)
    .before(TREE)
    .daemons_only(),
    script("tree_cp", Count::Tree, "cp -a of it, caches dropped", "cp -a \"$1/tree\" \"$1/copy\"")
        .cache(Cache::Cold)
        .before(&[(Item::Tree, FULL), (Item::Copy, ABSENT)])
        .after(&[(Item::Copy, Shape::Full)])
        .target(TREES)
        .daemons_only(),
    script(
        "tree_tarcreate_cold",
        Count::Tree,
        "pack it with tar, caches dropped",
        // A pipe, because tar reads no file when it writes to /dev/null.
        "{ tar -C \"$1/tree\" -cf - . || echo FAILED; } | tail -c 7 | { ! grep -q FAILED; }",
    )
    .cache(Cache::Cold)
    .before(TREE)
    .daemons_only(),
    script("tree_rm", Count::Tree, "rm -r of the copy", "rm -r \"$1/copy\"")
        .before(&[(Item::Tree, FULL), (Item::Copy, FULL)])
        .after(&[(Item::Copy, Shape::Absent)]),
    script(
        "git_clone",
        Count::Tree,
        "git clone of a repository with that tree",
        "git -c advice.detachedHead=false clone -q \"file://$3\" \"$1/clone\"",
    )
    .before(&[(Item::Clone, ABSENT)])
    .after(&[(Item::Clone, Shape::Full)])
    .target(TREES)
    .daemons_only(),
    script(
        "git_status_cold",
        Count::Tree,
        "git status in the clone, caches dropped",
        "git -C \"$1/clone\" status --porcelain",
    )
    .cache(Cache::Cold)
    .before(&[(Item::Clone, FULL)]),
    script("git_status_warm", Count::Tree, "git status again", "git -C \"$1/clone\" status --porcelain")
        .cache(Cache::Warm)
        .before(&[(Item::Clone, FULL)]),
    script("git_rm", Count::Tree, "rm -rf of the clone", "rm -rf \"$1/clone\"")
        .before(&[(Item::Clone, FULL)])
        .after(&[(Item::Clone, Shape::Absent)]),
    phase(
        "large_create_4t",
        Group::Large,
        "create empty files, all in one directory, 4 threads",
        Action::Work(Op::CreateEmpty, Item::Large, 4),
    )
    .before(&[(Item::Large, EMPTY)])
    .after(&[(Item::Large, Shape::Full)]),
    script("large_ls_cold", Count::Large, "ls -f of that directory (names only), caches dropped", "ls -f \"$1/large\"")
        .cache(Cache::Cold)
        .before(LARGE),
    script("large_ls_l_cold", Count::Large, "ls -l of it, caches dropped", "ls -l \"$1/large\"")
        .cache(Cache::Cold)
        .before(LARGE)
        .target(WALK),
    phase(
        "large_stat_cold",
        Group::Large,
        "stat of 1,000 of its names, caches dropped, 1 thread",
        Action::Sample(Item::Large),
    )
    .cache(Cache::Cold)
    .before(LARGE)
    .target(STAT),
    phase(
        "large_unlink_4t",
        Group::Large,
        "remove all of its files, 4 threads",
        Action::Work(Op::Unlink, Item::Large, 4),
    )
    .before(LARGE)
    .after(&[(Item::Large, Shape::Empty)]),
];
