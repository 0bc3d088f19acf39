//! The contract every translator keeps, on clients and on bricks.
//!
//! Translators form a graph. A fop goes down through [`Translator::submit`]; events come up through [`Parent`].
//! They know no runtime: time and tasks come from a [`Runtime`] handed to them when the graph is built, so the same
//! code runs in the FUSE client, the heal service, rebalance, a brick and the simulator. Futures are `!Send` and run to
//! completion on the thread that submitted them; translators themselves are shared by all threads of the process, so
//! what they keep lives in concurrent maps or behind short, uncontended locks, never held across an `.await`.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;

use crate::fop::Name;
use crate::option::{OptionError, Options};
use crate::steps::{Step, StepsFuture};
use crate::{Context, Fop, FopResult, Gfid, Timespec};

/// Names an open file or directory within a client graph (or within one client's session on a brick). The opener picks
/// a fresh one; ids are never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdId(pub u64);

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A fop under way.
pub type FopFuture<'a> = LocalFuture<'a, FopResult>;

/// A node of the graph.
pub trait Translator: Send + Sync {
    /// The volfile's name of it (`gv0-client-0`).
    fn name(&self) -> &str;

    /// Carries out `fop` for `context`. Dropping the future does not undo what was sent; whoever needs an operation to
    /// run to its end whatever happens to the caller spawns it on the [`Runtime`].
    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a>;

    /// Carries out `steps` one after the other and answers each, in one message where this and whoever is at the other end
    /// can do so. As with [`Translator::submit`], dropping the future does not undo what was sent.
    fn submit_steps(&self, steps: Vec<Step>) -> StepsFuture<'_> {
        Box::pin(crate::steps::one_by_one(self, steps))
    }

    /// Whether [`Translator::submit_steps`] is one message at the moment.
    fn takes_steps(&self) -> bool {
        false
    }

    /// Says who hears this translator's events; called once, when the graph is built, before [`Translator::start`].
    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize);

    /// Takes changed options while it runs, all of them or none. `false`: it cannot take these, a new translator has to be
    /// made for them.
    ///
    /// # Errors
    /// An option's value.
    fn reconfigure(&self, options: &Options) -> Result<bool, OptionError> {
        let _ = options;
        Ok(false)
    }

    /// What it holds, for state dumps: names and values.
    fn state(&self) -> Vec<(Cow<'static, str>, String)> {
        Vec::new()
    }

    /// Begins to work: connections, timers. Called on a thread of the runtime, children first.
    fn start(&self) {}

    /// Ends connections and timers; pending fops fail with ENOTCONN. Called on a thread of the runtime.
    fn stop(&self) {}
}

/// Hears the events of its children: every translator with children, and the top of the graph.
pub trait Parent: Send + Sync {
    /// `child_index` says which child, in volfile order.
    fn child_event(&self, child_index: usize, event: Event);
}

/// What a child tells its parents.
#[derive(Clone, Debug)]
pub enum Event {
    /// Ready for fops.
    Up,
    /// No longer reachable; fops fail with ENOTCONN.
    Down,
    /// Still trying for the first time; sent once so that the top knows the child has been heard of.
    Connecting,
    /// Another client waits for an inodelk this client holds (upcall).
    InodelkContention {
        /// Locked inode.
        gfid: Gfid,
        /// Lock domain (`gv0-replicate-0`).
        domain: Bytes,
    },
    /// Another client waits for an entrylk this client holds (upcall).
    EntrylkContention {
        /// Locked directory.
        gfid: Gfid,
        /// Lock domain.
        domain: Bytes,
        /// Locked name.
        name: Option<Name>,
    },
    /// Someone else changed this inode: forget what is cached (upcall; flags are GlusterFS's UP_* bits).
    Invalidate {
        /// Changed inode.
        gfid: Gfid,
        /// UP_* bits.
        flags: u32,
    },
    /// The management daemon has a new volfile.
    VolfileChanged,
}

/// Clock and spawner, as the process that runs the graph provides them.
pub trait Runtime: Send + Sync {
    /// Time that only goes forward, from an arbitrary start.
    fn now(&self) -> Duration;

    /// Wall clock.
    fn wall_clock(&self) -> Timespec;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()>;

    /// Runs `task` to its end on the current thread.
    fn spawn(&self, task: LocalFuture<'static, ()>);

    /// Random bits (from the seed, in simulation).
    fn random(&self) -> u64;
}

/// [`Translator::submit`] that owns what it needs: for tasks that outlive their caller and for sets of futures.
pub async fn call(child: Arc<dyn Translator>, context: Arc<Context>, fop: Fop) -> FopResult {
    child.submit(&context, fop).await
}
