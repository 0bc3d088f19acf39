//! The phases: what each measures, what it needs and what it leaves.

mod catalogue;
mod select;

use serde::{Deserialize, Serialize};

pub use catalogue::PHASES;
pub use select::{Selection, select};

/// Phases that share what they work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Streams and random access, by fio
    Fio,
    /// Small files and their metadata, at 1 and 4 threads
    Small,
    /// A source tree: tar, cp, grep, git
    Tree,
    /// One directory with very many entries
    Large,
}

/// What is in the kernel's and the client's caches when a phase begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Whatever the phase before left.
    AsIs,
    /// Nothing: dropped just before.
    Cold,
    /// What the very same phase, run once unmeasured just before, left.
    Warm,
    /// As `Warm`, but older than the attribute timeout (1 s) of GlusterFS's mounts.
    Expired,
}

/// What a phase works on, in a directory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The file of the streams.
    Stream,
    /// The file of the synchronous writes.
    Sync,
    /// Directories for mkdir and rmdir, one thread.
    Dirs1,
    /// The same for four threads.
    Dirs4,
    /// Small files of the phases with one thread.
    Small1,
    /// The same for four threads.
    Small4,
    /// The unpacked source tree.
    Tree,
    /// Its copy.
    Copy,
    /// The cloned repository.
    Clone,
    /// The large directory.
    Large,
}

impl Item {
    /// All of them.
    pub const ALL: [Item; 10] = [
        Item::Stream,
        Item::Sync,
        Item::Dirs1,
        Item::Dirs4,
        Item::Small1,
        Item::Small4,
        Item::Tree,
        Item::Copy,
        Item::Clone,
        Item::Large,
    ];
}

/// How an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Not there.
    Absent,
    /// Its directories are there, with nothing in them.
    Empty,
    /// Complete.
    Full,
    /// Complete, under the names the rename phases give.
    Renamed,
}

/// How an item must be before a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Exactly so.
    Is(Shape),
    /// Complete, under whatever names.
    Complete,
}

/// What a worker does with each of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Op {
    /// mkdir
    Mkdir,
    /// rmdir
    Rmdir,
    /// Create it, write its contents, close it
    Create,
    /// Create it empty
    CreateEmpty,
    /// stat
    Stat,
    /// Open it, read and check its contents, close it
    Read,
    /// Open it, append 100 bytes, close it
    Append,
    /// chmod
    Chmod,
    /// Rename it in its directory
    Rename,
    /// Undo that
    RenameBack,
    /// unlink
    Unlink,
}

/// A random access pattern of fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// One job with 16 requests under way, around the page cache.
    Depth16,
    /// Four jobs with one request each, through the page cache.
    Jobs4,
}

/// What a script's operations are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The small files of both sets.
    Small,
    /// The entries of the tree.
    Tree,
    /// The entries of the large directory.
    Large,
}

/// What a phase does.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Operations on each of an item's files, by so many threads.
    Work(Op, Item, usize),
    /// stat of 1,000 names spread over the large directory.
    Sample(Item),
    /// fio: a stream of 1 MiB blocks.
    Stream {
        /// Writes, with an fsync at the end; else reads.
        write: bool,
    },
    /// fio: blocks of 4 KiB anywhere in the stream's file.
    Random {
        /// Writes; else reads.
        write: bool,
        /// How.
        access: Access,
    },
    /// fio: 4 KiB writes, each followed by fdatasync.
    SyncWrites,
    /// A shell script: `$1` is the directory of the subject, `$2` the tar file, `$3` the git repository.
    Script(&'static str, Count),
}

/// What a phase's rate is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Operations.
    #[serde(rename = "op")]
    Operation,
    /// 1,000,000 bytes.
    #[serde(rename = "MB")]
    Megabyte,
}

/// How much better than GlusterFS 10.3 it shall get, on replica 3 with the defaults of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Of the rate; `None` where the disk sets it.
    pub rate: Option<f64>,
    /// Of processor time per operation: 10 means a tenth.
    pub cpu: f64,
    /// The stretch target of both.
    pub stretch: Option<f64>,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Its name; the names of fsbench where it is the same measurement.
    pub name: &'static str,
    /// What it works on.
    pub group: Group,
    /// One line for people.
    pub what: &'static str,
    /// What it needs in the caches.
    pub cache: Cache,
    /// What it does.
    pub action: Action,
    /// How items must be before it.
    pub before: &'static [(Item, Want)],
    /// How it leaves them.
    pub after: &'static [(Item, Shape)],
    /// What is to be reached.
    pub target: Option<Target>,
    /// Whether the CPU ratio counts the daemons alone, because the load generator (tar, git) does much of its own.
    pub daemons_only: bool,
}

impl Phase {
    /// What the rate is counted in.
    pub fn unit(&self) -> Unit {
        if matches!(self.action, Action::Stream { .. }) { Unit::Megabyte } else { Unit::Operation }
    }

    /// Programs it needs on this machine.
    pub fn programs(&self) -> &'static [&'static str] {
        match self.action {
            Action::Stream { .. } | Action::Random { .. } | Action::SyncWrites => &["fio"],
            _ if self.before.iter().any(|(item, _)| *item == Item::Clone) => &["git", "tar"],
            Action::Script(_, Count::Tree) => &["tar"],
            _ => &[],
        }
    }
}
