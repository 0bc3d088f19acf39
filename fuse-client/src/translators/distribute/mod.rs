//! `cluster/distribute`: every file on one subvolume, chosen by the hash of its name; every directory on all (GlusterFS's
//! DHT: its hash, its layouts and linkto files, its locks).
//!
//! A directory's layout says which subvolume answers for which part of the hash. A file that is elsewhere than its name
//! says (renamed, or put aside for lack of space) leaves a linkto file where the name hashes, which names its place.
//! Operations on names hold locks on the subvolume of the name, so that clients agree. When a subvolume is down, the
//! names that hash to it and the files on it answer ENOTCONN; all others go on. Format, locks and marks are GlusterFS
//! 10.3's, so that stock clients, bricks and rebalance share a volume with this code.

mod assign;
mod attributes;
mod children;
mod create;
mod directory;
mod disk;
mod everywhere;
mod fd;
#[doc(hidden)]
pub mod hash;
pub(crate) mod layout;
mod link;
mod linkto;
mod lock;
mod lock_places;
mod lookup;
mod merge;
mod migration;
mod mkdir;
mod offset;
mod readdir;
mod rename;
mod rename_directory;
mod rmdir;
mod selfheal;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod unlink;
mod virtual_xattr;
mod xattr;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use futures::future::join_all;
use ladrillo_translator::error::errno::{ECANCELED, EINVAL, EIO, ENOTCONN, EOPNOTSUPP};
use ladrillo_translator::fop::FopKind;
use ladrillo_translator::option::{OptionError, Options};
use ladrillo_translator::{
    Context, FdId, Fop, FopError, FopFuture, FopResult, LocalFuture, Parent, Runtime, Translator,
};
use parking_lot::{Mutex, RwLock};

pub use settings::{OPTIONS, Settings};

use super::work::Work;
use children::ChildStates;
use disk::Disks;
use fd::OpenFile;
use lock_places::LockPlaces;
use settings::Keys;
use table::Table;

/// Most subvolumes. Source: our bound; GlusterFS's users have some hundreds.
const MAX_CHILDREN: usize = 1 << 16;

type ParentSlot = Option<(Weak<dyn Parent>, usize)>;

/// The translator.
pub struct Distribute {
    name: String,
    children: Vec<Arc<dyn Translator>>,
    /// Names of the children.
    names: Vec<String>,
    /// Names of the xattrs: the one thing that never changes while it runs.
    keys: Keys,
    settings: RwLock<Arc<Settings>>,
    runtime: Arc<dyn Runtime>,
    this: Weak<Distribute>,
    parent: Mutex<ParentSlot>,
    states: Mutex<ChildStates>,
    table: Table,
    files: Mutex<HashMap<FdId, Arc<OpenFile>>>,
    lock_places: LockPlaces,
    disks: Mutex<Disks>,
    /// The volume's commit hash, as its root says.
    commit_hash: AtomicU32,
    next_owner: AtomicU64,
    work: Arc<Work>,
}

/// The answer of one subvolume, beside its number.
type ChildReply = (usize, FopResult);

impl Distribute {
    /// Over `children`, named `name` in the volfile. The caller makes it the parent of its children.
    ///
    /// # Errors
    /// An option's value is bad, or there are no children.
    pub fn new(
        name: &str,
        children: Vec<Arc<dyn Translator>>,
        options: &Options,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Arc<Distribute>, OptionError> {
        let names: Vec<String> = children.iter().map(|child| child.name().to_owned()).collect();
        if !(1..=MAX_CHILDREN).contains(&children.len()) {
            return Err(OptionError(format!(
                "distribute takes 1 to {MAX_CHILDREN} subvolumes, not {}",
                children.len()
            )));
        }
        let settings = Settings::read(options, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
        // The top bit stays clear: the number travels as a signed one in some peers' logs.
        let first_owner = runtime.random() >> 1;
        Ok(Arc::new_cyclic(|this| Distribute {
            name: name.to_owned(),
            states: Mutex::new(ChildStates::new(children.len())),
            disks: Mutex::new(Disks::new(children.len())),
            children,
            names,
            keys: settings.keys.clone(),
            settings: RwLock::new(Arc::new(settings)),
            runtime,
            this: this.clone(),
            parent: Mutex::new(None),
            table: Table::new(),
            files: Mutex::default(),
            lock_places: LockPlaces::default(),
            commit_hash: AtomicU32::new(0),
            next_owner: AtomicU64::new(first_owner),
            work: Arc::default(),
        }))
    }

    /// The children, in volfile order.
    pub fn children(&self) -> &[Arc<dyn Translator>] {
        &self.children
    }

    /// Waits until nothing is under way any more.
    pub async fn finish(self: &Arc<Distribute>) {
        self.work.idle().await;
    }

    fn count(&self) -> usize {
        self.children.len()
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    fn child_name(&self, child: usize) -> &str {
        self.names.get(child).map_or("", String::as_str)
    }

    fn fresh_owner(&self) -> u64 {
        self.next_owner.fetch_add(1, Ordering::Relaxed)
    }

    /// Who this translator is when it works for itself.
    fn system(&self) -> Context {
        Context { birth: self.runtime.wall_clock(), ..Context::root() }
    }

    /// Sends to one subvolume.
    async fn ask(&self, child: usize, context: &Context, fop: Fop) -> FopResult {
        match self.children.get(child) {
            Some(target) => target.submit(context, fop).await,
            None => Err(FopError::new(EINVAL, format!("{}: there is no subvolume {child}", self.name))),
        }
    }

    /// Sends to each of `to` what `make` says, all at once; waits for all. Answers are in the order of `to`.
    async fn ask_each(
        &self,
        to: impl IntoIterator<Item = usize>,
        context: &Context,
        make: impl Fn(usize) -> Fop,
    ) -> Vec<ChildReply> {
        join_all(to.into_iter().map(|child| {
            let fop = make(child);
            async move { (child, self.ask(child, context, fop).await) }
        }))
        .await
    }

    /// [`Distribute::ask_each`] of all subvolumes.
    async fn ask_all(&self, context: &Context, make: impl Fn(usize) -> Fop) -> Vec<ChildReply> {
        self.ask_each(0..self.count(), context, make).await
    }

    /// Runs `work` to its end whatever happens to the caller.
    fn detached<'a, F, T>(&'a self, work: F) -> LocalFuture<'a, FopResult<T>>
    where
        F: FnOnce(Arc<Distribute>) -> LocalFuture<'static, FopResult<T>>,
        T: 'static,
    {
        let Some(this) = self.this.upgrade() else {
            return Box::pin(async { Err(FopError::new(ENOTCONN, "the graph is going away")) });
        };
        let (sender, receiver) = futures::channel::oneshot::channel();
        let guard = self.work.begin();
        let work = work(this);
        self.runtime.spawn(Box::pin(async move {
            let _guard = guard;
            // Nobody waits for it any more: it was done all the same.
            let _ = sender.send(work.await);
        }));
        Box::pin(async move {
            receiver.await.unwrap_or_else(|_| Err(FopError::new(ECANCELED, "the operation was abandoned")))
        })
    }
}

impl Translator for Distribute {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        match fop.kind() {
            FopKind::Lookup => Box::pin(self.lookup(context, fop)),
            FopKind::Create | FopKind::Mknod | FopKind::Put => Box::pin(self.create(context, fop)),
            FopKind::Symlink => Box::pin(self.symlink(context, fop)),
            FopKind::Mkdir => self.mkdir(context, fop),
            FopKind::Rmdir => self.rmdir(context, fop),
            FopKind::Unlink => self.unlink(context, fop),
            FopKind::Link => self.link(context, fop),
            FopKind::Rename => self.rename(context, fop),
            FopKind::Open => Box::pin(self.open(context, fop)),
            FopKind::Opendir => Box::pin(self.opendir(context, fop)),
            FopKind::Release | FopKind::Releasedir => Box::pin(self.release(context, fop)),
            FopKind::Readdir | FopKind::Readdirp => Box::pin(self.readdir(context, fop)),
            FopKind::Fsyncdir => Box::pin(self.fsyncdir(context, fop)),
            FopKind::Statfs => Box::pin(self.statfs(context, fop)),
            FopKind::Stat | FopKind::Fstat => Box::pin(self.stat(context, fop)),
            FopKind::Setattr | FopKind::Fsetattr => Box::pin(self.setattr(context, fop)),
            FopKind::Getxattr | FopKind::Fgetxattr => Box::pin(self.getxattr(context, fop)),
            FopKind::Setxattr
            | FopKind::Fsetxattr
            | FopKind::Removexattr
            | FopKind::Fremovexattr
            | FopKind::Xattrop
            | FopKind::Fxattrop => Box::pin(self.change_xattr(context, fop)),
            FopKind::Access
            | FopKind::Lease
            | FopKind::Getactivelk
            | FopKind::Setactivelk
            | FopKind::Lk
            | FopKind::Inodelk
            | FopKind::Finodelk
            | FopKind::Entrylk
            | FopKind::Fentrylk => Box::pin(self.on_any(context, fop)),
            FopKind::CopyFileRange => Box::pin(self.copy_file_range(context, fop)),
            FopKind::Ipc => Box::pin(self.ipc(context, fop)),
            FopKind::Icreate | FopKind::Namelink => {
                let name = fop.kind().name();
                Box::pin(async move { Err(FopError::new(EOPNOTSUPP, format!("{name} is not supported"))) })
            }
            FopKind::Readlink
            | FopKind::Read
            | FopKind::Write
            | FopKind::Truncate
            | FopKind::Ftruncate
            | FopKind::Flush
            | FopKind::Fsync
            | FopKind::Rchecksum
            | FopKind::Fallocate
            | FopKind::Discard
            | FopKind::Zerofill
            | FopKind::Seek => Box::pin(self.on_file(context, fop)),
        }
    }

    fn reconfigure(&self, options: &Options) -> Result<bool, OptionError> {
        let new = Settings::read(options, &self.names.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut settings = self.settings.write();
        if self.keys != new.keys {
            return Ok(false);
        }
        *settings = Arc::new(new);
        Ok(true)
    }

    fn state(&self) -> Vec<(Cow<'static, str>, String)> {
        let states = (0..self.count()).map(|child| if self.is_up(child) { "1" } else { "0" });
        vec![
            ("subvolume_cnt".into(), self.count().to_string()),
            ("subvolume_status".into(), states.collect::<Vec<_>>().join(",")),
            ("inodes".into(), self.table.len().to_string()),
            ("fds".into(), self.files.lock().len().to_string()),
        ]
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        *self.parent.lock() = Some((parent, child_index));
    }
}

/// An answer that makes no sense for its request.
fn strange_reply(what: &str) -> FopError {
    FopError::new(EIO, format!("a subvolume's answer to {what} is of another kind"))
}

/// A fop that came to the wrong place.
fn strange_fop(what: &str) -> FopError {
    FopError::new(EINVAL, format!("not {what}"))
}
