//! `cluster/replicate`: every file on every child (GlusterFS's AFR: its locks, its marks, its order).
//!
//! A change locks the inode or name on all children, marks it dirty where it may end half done, is sent to all at once,
//! and is answered when every child that is up has answered and a quorum has it. Children that missed it are accused
//! in `trusted.afr.*` on the others *before* the answer, so that no later reader or healer takes them for good. Reads
//! go to one copy that nobody accuses. The format is GlusterFS 10.3's, so that stock clients, bricks and heal daemons
//! share a volume with this code; docs/replication.md says what differs and why.

pub(crate) mod changelog;
mod children;
mod choice;
mod fd;
mod fops;
mod inode;
mod local;
mod locks;
mod lookup;
mod mask;
mod quorum;
mod read;
mod readdir;
mod refresh;
mod settings;
mod steps;
#[cfg(test)]
pub(crate) mod tests;
mod transaction;
mod virtual_xattr;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::future::join_all;
use ladrillo_translator::error::errno::{ECANCELED, EIO, ENOTCONN, EPROTO, ETIMEDOUT};
use ladrillo_translator::fop::{Entry, FopKind};
use ladrillo_translator::option::{OptionError, Options};
use ladrillo_translator::{
    Context, FdId, Fop, FopError, FopFuture, FopResult, LocalFuture, LockOwner, Parent, Runtime, Translator,
};
use parking_lot::{Mutex, RwLock};

pub(crate) use changelog::{Changelog, Keys, Marks, Segment};
pub(crate) use mask::Mask;
pub use settings::{FavoriteChild, HealAlgorithm, OPTIONS, Settings};

use super::work::Work;
use crate::translators::held::HeldLocks;
use children::ChildStates;
use fd::OpenFile;
pub(crate) use fops::successes;
pub(crate) use inode::Inode;
use inode::InodeTable;
pub(crate) use refresh::Copy as SeenCopy;
pub(crate) use transaction::lock::{Lockee, METADATA_START};
pub(crate) use transaction::postop::Target;

/// Bugs the simulator plants to prove that it would catch them. Settable in code only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Children that missed an operation are not accused, and dirty marks are cleared all the same.
    SkipPostOp,
    /// Heals copy from an accused copy to a good one.
    HealFromWrongSource,
    /// An operation counts as done when one copy has it.
    AckAtOneCopy,
}

type ParentSlot = Option<(Weak<dyn Parent>, usize)>;
type Listener = Box<dyn Fn(usize, bool) + Send + Sync>;

/// The translator.
pub struct Replicate {
    name: String,
    pub(crate) children: Vec<Arc<dyn Translator>>,
    settings: RwLock<Arc<Settings>>,
    pub(crate) runtime: Arc<dyn Runtime>,
    this: Weak<Replicate>,
    parent: Mutex<ParentSlot>,
    states: Mutex<ChildStates>,
    listeners: Mutex<Vec<Listener>>,
    inodes: InodeTable,
    choices: parking_lot::Mutex<choice::Choices>,
    files: Mutex<HashMap<FdId, Arc<OpenFile>>>,
    sabotage: Mutex<Option<Sabotage>>,
    /// Whether some brick's index held entries when last heard.
    backlog: AtomicBool,
    local_child: Mutex<Option<usize>>,
    background_heals: AtomicUsize,
    /// Names of which some child may have what others do not, unmarked: looked at when all children are back.
    doubtful_names: Mutex<Vec<Entry>>,
    /// Steps that ride in the next message to a child.
    later: steps::Later,
    /// Sessions that are to end.
    closing: transaction::closing::Closing,
    /// Transactions, and what follows releases.
    work: Arc<Work>,
    /// Applications' locks, each with the children that have it.
    held: HeldLocks<Mask>,
    /// Some are being taken on children that came back.
    restoring_locks: AtomicBool,
    /// Some open file is spoiled, or was.
    spoiled: AtomicBool,
    stopped: AtomicBool,
}

/// Heals that lookups may have started and that are not done.
const MAX_BACKGROUND_HEALS: usize = 8;

/// The answer of one child, beside its number.
pub(crate) type ChildReply = (usize, FopResult);

impl Replicate {
    /// A replica set of `children`, named `name` in the volfile (also the domain of its locks). The caller makes it the
    /// parent of its children: [`Translator::set_parent`] of each with this and its index.
    ///
    /// # Errors
    /// An option's value is bad, there are too few or too many children, or the volfile asks for a thin arbiter.
    pub fn new(
        name: &str,
        children: Vec<Arc<dyn Translator>>,
        options: &Options,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Arc<Replicate>, OptionError> {
        let settings = {
            let names: Vec<&str> = children.iter().map(|child| child.name()).collect();
            Settings::read(options, &names)?
        };
        // The top bit stays clear: the number travels as a signed one in some peers' logs.
        let first_owner = runtime.random() >> 1;
        Ok(Arc::new_cyclic(|this| Replicate {
            name: name.to_owned(),
            children,
            settings: RwLock::new(Arc::new(settings)),
            runtime,
            this: this.clone(),
            parent: Mutex::new(None),
            states: Mutex::default(),
            listeners: Mutex::default(),
            inodes: InodeTable::new(first_owner),
            choices: parking_lot::Mutex::default(),
            files: Mutex::default(),
            sabotage: Mutex::new(None),
            backlog: AtomicBool::new(false),
            local_child: Mutex::new(None),
            background_heals: AtomicUsize::new(0),
            doubtful_names: Mutex::default(),
            later: steps::Later::default(),
            closing: transaction::closing::Closing::default(),
            work: Arc::default(),
            held: HeldLocks::default(),
            restoring_locks: AtomicBool::new(false),
            spoiled: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }))
    }

    /// What the options say at the moment.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    /// Plants a bug, for the simulator.
    pub fn sabotage(&self, bug: Sabotage) {
        *self.sabotage.lock() = Some(bug);
    }

    pub(crate) fn is_sabotaged(&self, bug: Sabotage) -> bool {
        *self.sabotage.lock() == Some(bug)
    }

    /// The children, in volfile order.
    pub fn children(&self) -> &[Arc<dyn Translator>] {
        &self.children
    }

    /// Whether child number `child` is up.
    pub fn is_up(&self, child: usize) -> bool {
        self.view().up.has(child)
    }

    /// Domain of this set's locks.
    pub(crate) fn domain(&self) -> Bytes {
        Bytes::copy_from_slice(self.name.as_bytes())
    }

    /// This translator, shared.
    pub(crate) fn arc(&self) -> Option<Arc<Replicate>> {
        self.this.upgrade()
    }

    /// A lock owner nobody else has.
    pub(crate) fn fresh_owner(&self) -> u64 {
        self.inodes.fresh_owner()
    }

    /// What is known of the copies of `gfid` is out of date.
    pub(crate) fn distrust(&self, gfid: ladrillo_translator::Gfid) {
        if let Some(inode) = self.inodes.get(&gfid) {
            inode.distrust();
        }
    }

    /// Leave to start a heal beside the fops; give it back with [`Replicate::end_background_heal`].
    pub(crate) fn begin_background_heal(&self) -> bool {
        let more = |running: usize| (running < MAX_BACKGROUND_HEALS).then_some(running + 1);
        self.background_heals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn end_background_heal(&self) {
        self.background_heals.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn up(&self) -> Mask {
        self.view().up
    }

    pub(crate) fn everyone(&self) -> Mask {
        self.settings().everyone()
    }

    /// Children without contents.
    pub(crate) fn arbiters(&self) -> Mask {
        self.settings().arbiters
    }

    pub(crate) fn has_quorum(&self, have: Mask) -> bool {
        if self.is_sabotaged(Sabotage::AckAtOneCopy) {
            return !have.is_empty();
        }
        self.settings().quorum.met(have)
    }

    /// # Errors
    /// ENOTCONN: too few children are up (what GlusterFS answers when client quorum is not met).
    fn need_quorum(&self) -> FopResult<Mask> {
        let up = self.up();
        if self.has_quorum(up) { Ok(up) } else { Err(self.no_quorum()) }
    }

    fn no_quorum(&self) -> FopError {
        FopError::new(ENOTCONN, format!("{}: quorum is not met", self.name))
    }

    /// Who this translator is when it works for itself (locks, marks); `owner` of its locks.
    pub(crate) fn root_context(&self, owner: u64) -> Context {
        Context { birth: self.runtime.wall_clock(), ..Context::root().with_lock_owner(LockOwner::from_u64(owner)) }
    }

    /// Sends to each of `to` what `make` says, all at once; waits for all.
    pub(crate) async fn send(&self, to: Mask, context: &Context, make: impl Fn(usize) -> Fop) -> Vec<ChildReply> {
        join_all(to.iter().filter_map(|child| {
            let target = self.children.get(child)?;
            let fop = make(child);
            Some(async move { (child, target.submit(context, fop).await) })
        }))
        .await
    }

    /// [`Replicate::send`] of `fop`, with files not open on a child made anonymous for it; a child that cannot take it
    /// so fails.
    async fn send_all(&self, to: Mask, context: &Context, fop: &Fop) -> Vec<ChildReply> {
        join_all(to.iter().filter_map(|child| {
            let target = self.children.get(child)?;
            let fop = self.for_child(fop, child);
            Some(async move {
                let reply = match fop {
                    Ok(fop) => target.submit(context, fop).await,
                    Err(error) => Err(error),
                };
                (child, reply)
            })
        }))
        .await
    }

    /// Runs `work` to its end whatever happens to the caller; the answer is what `work` sends.
    fn detached<'a, F>(&'a self, work: F) -> FopFuture<'a>
    where
        F: FnOnce(Arc<Replicate>, Answer) -> LocalFuture<'static, ()>,
    {
        let (sender, receiver) = futures::channel::oneshot::channel();
        let Some(this) = self.this.upgrade() else {
            return Box::pin(async { Err(FopError::new(ENOTCONN, "the graph is going away")) });
        };
        let guard = self.work.begin();
        let work = work(this, Answer(Some(sender)));
        self.runtime.spawn(Box::pin(async move {
            let _guard = guard;
            work.await;
        }));
        Box::pin(async move {
            receiver.await.unwrap_or_else(|_| Err(FopError::new(ECANCELED, "the operation was abandoned")))
        })
    }
}

/// Where a transaction's outcome goes, once.
struct Answer(Option<futures::channel::oneshot::Sender<FopResult>>);

impl Answer {
    /// Answers; later answers are dropped. False: nobody waits for it any more.
    fn give(&mut self, outcome: FopResult) -> bool {
        match self.0.take() {
            Some(sender) => sender.send(outcome).is_ok(),
            None => false,
        }
    }

    /// Whether the caller has gone before it was answered.
    fn is_abandoned(&self) -> bool {
        self.0.as_ref().is_some_and(|sender| sender.is_canceled())
    }
}

impl Translator for Replicate {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        if let Err(error) = self.refuse_spoiled(&fop) {
            return Box::pin(std::future::ready(Err(error)));
        }
        match fop.kind() {
            FopKind::Lookup => Box::pin(self.lookup(context, fop)),
            FopKind::Stat
            | FopKind::Fstat
            | FopKind::Readlink
            | FopKind::Read
            | FopKind::Access
            | FopKind::Getxattr
            | FopKind::Fgetxattr
            | FopKind::Rchecksum
            | FopKind::Seek => Box::pin(self.read(context, fop)),
            FopKind::Readdir | FopKind::Readdirp => Box::pin(self.readdir(context, fop)),
            FopKind::Open | FopKind::Opendir => Box::pin(self.open(context, fop)),
            FopKind::Release | FopKind::Releasedir => Box::pin(self.release(context, fop)),
            FopKind::Flush => Box::pin(self.flush(context, fop)),
            FopKind::Fsyncdir => Box::pin(self.fsyncdir(context, fop)),
            FopKind::Statfs => Box::pin(self.statfs(context, fop)),
            FopKind::Ipc => Box::pin(self.ipc(context, fop)),
            FopKind::Write
            | FopKind::Truncate
            | FopKind::Ftruncate
            | FopKind::Fallocate
            | FopKind::Discard
            | FopKind::Zerofill
            | FopKind::CopyFileRange
            | FopKind::Fsync => self.data_transaction(context, fop),
            FopKind::Setxattr if choice::is_order(&fop) => Box::pin(self.order(fop)),
            FopKind::Setattr
            | FopKind::Fsetattr
            | FopKind::Setxattr
            | FopKind::Fsetxattr
            | FopKind::Removexattr
            | FopKind::Fremovexattr
            | FopKind::Xattrop
            | FopKind::Fxattrop => self.metadata_transaction(context, fop),
            FopKind::Create
            | FopKind::Mknod
            | FopKind::Mkdir
            | FopKind::Symlink
            | FopKind::Link
            | FopKind::Unlink
            | FopKind::Rmdir
            | FopKind::Rename => self.entry_transaction(context, fop),
            FopKind::Lk | FopKind::Inodelk | FopKind::Finodelk | FopKind::Entrylk | FopKind::Fentrylk => {
                self.lock(context, fop)
            }
            // AFR has no transaction for these, and nothing that stands above it sends them.
            FopKind::Lease
            | FopKind::Getactivelk
            | FopKind::Setactivelk
            | FopKind::Icreate
            | FopKind::Namelink
            | FopKind::Put => {
                let what = format!("{} of a replicated file", fop.kind().name());
                Box::pin(async move { Err(FopError::new(ladrillo_translator::error::errno::EOPNOTSUPP, what)) })
            }
        }
    }

    fn reconfigure(&self, options: &Options) -> Result<bool, OptionError> {
        let new = {
            let names: Vec<&str> = self.children.iter().map(|child| child.name()).collect();
            Settings::read(options, &names)?
        };
        let mut settings = self.settings.write();
        if settings.keys != new.keys || settings.arbiters != new.arbiters {
            return Ok(false);
        }
        *settings = Arc::new(new);
        Ok(true)
    }

    fn state(&self) -> Vec<(Cow<'static, str>, String)> {
        let up = self.up();
        let mut state = vec![("child_count".into(), self.children.len().to_string())];
        // Scripts find a child by its mark, in the line below its state.
        for (number, key) in self.settings().keys.pending.iter().enumerate() {
            state.push((format!("child_up[{number}]").into(), u8::from(up.has(number)).to_string()));
            state.push((format!("pending_key[{number}]").into(), String::from_utf8_lossy(key).into_owned()));
        }
        state.extend([
            ("inodes".into(), self.inodes.len().to_string()),
            ("fds".into(), self.files.lock().len().to_string()),
            ("inodes-with-transactions".into(), self.inodes.with_sessions().len().to_string()),
            ("background-heals".into(), self.background_heals.load(Ordering::Relaxed).to_string()),
            ("backlog".into(), self.backlog.load(Ordering::Relaxed).to_string()),
        ]);
        state
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        *self.parent.lock() = Some((parent, child_index));
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.release_all_sessions();
    }
}

/// The lock domain of a replica set.
pub(crate) fn domain_of(replicate: &Replicate) -> String {
    replicate.name.clone()
}

/// Whether an error does not say if the operation was carried out: no answer came (connection lost, frame-timeout), or
/// one that was not understood. protocol/client makes these itself.
fn leaves_unknown(error: &FopError) -> bool {
    matches!(error.errno, ENOTCONN | ETIMEDOUT | EPROTO)
}

/// An answer that makes no sense for its request.
fn strange_reply(what: &str) -> FopError {
    FopError::new(EIO, format!("a brick's answer to {what} is of another kind"))
}
