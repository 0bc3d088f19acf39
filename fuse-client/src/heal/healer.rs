//! What every heal does: look at all copies, lock them, write marks back. One [`Healer`] heals files of one replica set.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ladrillo_translator::error::errno::{EAGAIN, EIO, ENOENT, ENOTCONN, ESTALE};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Context, Dict, FileType, Fop, FopError, Gfid, Reply, Translator, Value};
use parking_lot::Mutex;

use super::decide::Choice;
use super::direction;
use crate::translators::replicate::{Lockee, Marks, Mask, Replicate, Sabotage, SeenCopy, Segment, Target};

/// Where bricks keep a file's times (GlusterFS's ctime feature).
const MDATA_KEY: &[u8] = b"trusted.glusterfs.mdata";

/// What came of a heal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Healed {
    /// Copies differed and are equal now.
    Done,
    /// There was nothing to do.
    Nothing,
    /// No brick has the inode (any more).
    Gone,
}

/// Why a heal came to nothing.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Copies accuse each other: a person has to decide.
    SplitBrain(String),
    /// Not now: a brick is away, a lock is taken, something failed. Marks stay; a later round tries again.
    NotNow(FopError),
}

impl From<FopError> for Trouble {
    fn from(error: FopError) -> Trouble {
        Trouble::NotNow(error)
    }
}

pub(crate) type HealResult<T = Healed> = Result<T, Trouble>;

/// Inodes that sit elsewhere on a sink than on its source, remembered while their directories are healed.
const MAX_DISPLACED: usize = 4096;

/// Heals files of one replica set.
pub(crate) struct Healer {
    pub replicate: Arc<Replicate>,
    /// Where a sink keeps an inode that its source has under another name, and how often that was found.
    pub displaced: Mutex<HashMap<(usize, Gfid), (Entry, u32)>>,
    /// What a person decided about the one file that this healer is made for.
    pub choice: Option<Choice>,
}

/// All copies of an inode at one moment, in the order of the children.
pub(crate) struct Look {
    pub copies: Vec<SeenCopy>,
    pub marks: Vec<Marks>,
}

impl Look {
    pub fn copy(&self, child: usize) -> Option<&SeenCopy> {
        self.copies.iter().find(|copy| copy.child == child)
    }

    pub fn kind(&self) -> Option<FileType> {
        self.copies.first().and_then(|copy| copy.iatt.file_type())
    }
}

impl Healer {
    pub fn new(replicate: Arc<Replicate>) -> Healer {
        Healer { replicate, displaced: Mutex::default(), choice: None }
    }

    /// One that takes the copy a person chose for good where all are accused.
    pub fn choosing(replicate: Arc<Replicate>, choice: Choice) -> Healer {
        Healer { choice: Some(choice), ..Healer::new(replicate) }
    }

    /// The heal daemon, with a fresh lock owner.
    pub fn context(&self) -> Context {
        let owner = self.replicate.fresh_owner();
        Context { pid: Context::PID_SELF_HEALD, ..self.replicate.root_context(owner) }
    }

    /// Domain in which healers exclude each other.
    pub fn heal_domain(&self) -> String {
        format!("{}:self-heal", self.replicate.name())
    }

    /// Heals whatever is to be healed of `gfid`.
    pub async fn heal(&self, gfid: Gfid) -> HealResult {
        let context = self.context();
        let Some(look) = self.look_leniently(&context, gfid).await? else { return Ok(Healed::Gone) };
        let kind = look.kind();
        let needs = |segment: Segment| look.marks.iter().any(|marks| marks.any(segment));
        let first = look.copies.first().map(|copy| &copy.iatt);
        let arbiters = self.replicate.arbiters();
        let differ = |f: fn(&ladrillo_translator::Iatt) -> (u32, u32, u32)| {
            look.copies.iter().any(|copy| Some(f(&copy.iatt)) != first.map(f))
        };
        let mut sizes = look.copies.iter().filter(|copy| !arbiters.has(copy.child)).map(|copy| copy.iatt.size_bytes);
        let first_size = sizes.next();
        let sizes_differ = sizes.any(|size| Some(size) != first_size);
        let mut done = Healed::Nothing;
        let mut trouble = None;
        if kind == Some(FileType::Regular) && (needs(Segment::Data) || sizes_differ) {
            note(self.heal_data(gfid).await, &mut done, &mut trouble);
        }
        if needs(Segment::Metadata) || differ(|iatt| (iatt.uid, iatt.gid, iatt.mode)) {
            note(self.heal_metadata(gfid).await, &mut done, &mut trouble);
        }
        if kind == Some(FileType::Directory) && needs(Segment::Entry) {
            note(self.heal_entries(gfid).await, &mut done, &mut trouble);
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None => Ok(done),
        }
    }

    /// The same for a full crawl, which looks at xattrs as well: a client that died, or lost its bricks, between a change
    /// of one and its marks left none, as with all bricks there attributes are not marked beforehand.
    pub async fn heal_thoroughly(&self, gfid: Gfid) -> HealResult {
        let done = self.heal(gfid).await?;
        if done == Healed::Gone || self.xattrs_agree(gfid).await? {
            return Ok(done);
        }
        Ok(match self.heal_metadata(gfid).await? {
            Healed::Done => Healed::Done,
            _ => done,
        })
    }

    /// Looks at `gfid` on all children. `None`: none has it.
    ///
    /// # Errors
    /// A child is away or does not have it.
    pub async fn look_leniently(&self, context: &Context, gfid: Gfid) -> HealResult<Option<Look>> {
        let replicate = &self.replicate;
        let mut xdata = Dict::new();
        replicate.request_marks(&mut xdata);
        let fop = Fop::Lookup { gfid, entry: None, xdata };
        let replies = replicate.send(replicate.up(), context, |_| fop.clone()).await;
        let gone = |error: &FopError| error.errno == ENOENT || error.errno == ESTALE;
        let all = replies.len() == replicate.children().len();
        if all && replies.iter().all(|(_, reply)| matches!(reply, Err(error) if gone(error))) {
            return Ok(None);
        }
        let mut copies = Vec::new();
        let mut error = None;
        for (child, reply) in &replies {
            match reply {
                Ok(Reply::Lookup { iatt, xdata, .. }) => copies.push(SeenCopy::of(replicate, *child, iatt, xdata)),
                Ok(_) => error = Some(FopError::new(EIO, "a brick's answer to a lookup is of another kind")),
                Err(other) => error = Some(other.clone()),
            }
        }
        if !all || copies.len() != replies.len() {
            return Err(Trouble::NotNow(error.unwrap_or_else(|| FopError::new(ENOTCONN, "not all bricks are up"))));
        }
        let kinds_differ = copies.windows(2).any(|pair| pair[0].iatt.file_type() != pair[1].iatt.file_type());
        if kinds_differ {
            return Err(Trouble::SplitBrain(format!("{gfid} is of different kinds on different bricks")));
        }
        let marks = copies.iter().map(|copy| copy.marks.clone()).collect();
        Ok(Some(Look { copies, marks }))
    }

    /// The same where the inode must be there.
    pub async fn look(&self, context: &Context, gfid: Gfid) -> HealResult<Look> {
        match self.look_leniently(context, gfid).await? {
            Some(look) => Ok(look),
            None => Err(Trouble::NotNow(FopError::new(ESTALE, format!("{gfid} is gone")))),
        }
    }

    /// Excludes other healers from `lockee`, if none is at it already.
    pub async fn lock_out_healers(&self, context: &Context, lockee: &Lockee) -> HealResult<()> {
        self.lock_or_give_up(context, &self.heal_domain(), lockee).await
    }

    /// Takes a lock on all children if it is free, or if most of it was to be had (then others that try at the same
    /// moment had less, and give up).
    pub async fn lock_or_give_up(&self, context: &Context, domain: &str, lockee: &Lockee) -> HealResult<()> {
        let replicate = &self.replicate;
        let everyone = replicate.everyone();
        let lockees = std::slice::from_ref(lockee);
        let tried = replicate.try_lock_all(context, domain, lockees, replicate.up()).await;
        if tried.on == everyone {
            return Ok(());
        }
        replicate.unlock_all(context, domain, lockees, tried.on).await;
        let contended = tried.error.as_ref().is_some_and(|error| error.errno == EAGAIN);
        if contended && tried.on.count() > everyone.count() / 2 && replicate.up() == everyone {
            return self.lock(context, domain, lockee).await;
        }
        Err(Trouble::NotNow(tried.error.unwrap_or_else(|| FopError::new(ENOTCONN, "not all bricks are up"))))
    }

    /// Takes a lock on all children, waiting for it.
    pub async fn lock(&self, context: &Context, domain: &str, lockee: &Lockee) -> HealResult<()> {
        let replicate = &self.replicate;
        let lockees = std::slice::from_ref(lockee);
        if replicate.up() != replicate.everyone() {
            return Err(Trouble::NotNow(FopError::new(ENOTCONN, "not all bricks are up")));
        }
        let locked = replicate.lock_all(context, domain, lockees, replicate.everyone()).await;
        if locked.on == replicate.everyone() {
            return Ok(());
        }
        replicate.unlock_all(context, domain, lockees, locked.on).await;
        Err(Trouble::NotNow(locked.error.unwrap_or_else(|| FopError::new(ENOTCONN, "not all bricks are up"))))
    }

    pub async fn unlock(&self, context: &Context, domain: &str, lockee: &Lockee) {
        let replicate = &self.replicate;
        replicate.unlock_all(context, domain, std::slice::from_ref(lockee), replicate.up()).await;
    }

    /// Source and sinks as chosen, or as a planted bug chooses them.
    pub fn twist(&self, source: usize, sinks: Mask) -> (usize, Mask) {
        match sinks.first() {
            Some(sink) if self.replicate.is_sabotaged(Sabotage::HealFromWrongSource) => {
                (sink, self.replicate.everyone() - Mask::only(sink))
            }
            _ => (source, sinks),
        }
    }

    /// Takes back the marks that `look` saw, under the lock.
    ///
    /// # Errors
    /// A child did not take it (what it has stays marked).
    pub async fn undo_marks(
        &self,
        context: &Context,
        gfid: Gfid,
        look: &Look,
        segment: Segment,
        sinks: Mask,
        healed: Mask,
    ) -> HealResult<()> {
        let replicate = &self.replicate;
        let changes = direction::undo(&look.marks, segment, sinks, healed, replicate.everyone());
        let mut xdata = Dict::new();
        if segment == Segment::Entry && replicate.settings().granular {
            xdata.set("glusterfs.xattrop-purge-index", Value::Int(1));
        }
        let mut error = None;
        for (child, pending, dirty) in changes {
            let mut xattrs = Dict::new();
            for (key, log) in replicate.settings().keys.pending.iter().zip(&pending) {
                xattrs.set(key.clone(), Value::Ptr(log.to_bytes()));
            }
            xattrs.set(replicate.settings().keys.dirty.clone(), Value::Ptr(dirty.to_bytes()));
            let replies =
                replicate.xattrop(context, Mask::only(child), Target::inode(gfid), xattrs, xdata.clone()).await;
            error = replies.into_iter().find_map(|(_, reply)| reply.err()).or(error);
        }
        replicate.distrust(gfid);
        match error {
            Some(error) => Err(Trouble::NotNow(error)),
            None => Ok(()),
        }
    }

    /// Gives `sinks` the times of `source`'s copy.
    pub async fn restore_times(&self, context: &Context, look: &Look, source: usize, sinks: Mask) {
        let Some(copy) = look.copy(source) else { return };
        let valid = SetattrValid(SetattrValid::ATIME | SetattrValid::MTIME | SetattrValid::CTIME);
        let gfid = copy.iatt.gfid;
        let fop = Fop::Setattr { gfid, iatt: Box::new(copy.iatt.clone()), valid, xdata: Dict::new() };
        for (child, reply) in self.replicate.send(sinks, context, |_| fop.clone()).await {
            if let Err(error) = reply {
                tracing::debug!(child, %gfid, %error, "times were not restored");
            }
        }
        self.copy_mdata(context, gfid, source, sinks).await;
    }

    /// The times GlusterFS keeps in an xattr are what applications see, ctime among them, which no setattr can set.
    pub async fn copy_mdata(&self, context: &Context, gfid: Gfid, source: usize, sinks: Mask) {
        let name = Bytes::from_static(MDATA_KEY);
        let get = Fop::Getxattr { gfid, name: name.clone(), xdata: Dict::new() };
        let replies = self.replicate.send(Mask::only(source), context, |_| get.clone()).await;
        // A source without them is one whose volume does not keep them.
        let Some((_, Ok(Reply::Xattrs { xattrs, .. }))) = replies.into_iter().next() else { return };
        let Some(value) = xattrs.iter().find(|(key, _)| key.as_ref() == MDATA_KEY).map(|(_, value)| value.clone())
        else {
            return;
        };
        let xattrs = Dict::new().with(name, value);
        let set = Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() };
        for (child, reply) in self.replicate.send(sinks, context, |_| set.clone()).await {
            if let Err(error) = reply {
                tracing::debug!(child, %gfid, %error, "kept times were not copied");
            }
        }
    }

    /// Remembers that `child` has `gfid` at `entry` while its source has it elsewhere; how often it was found so.
    pub fn displace(&self, child: usize, gfid: Gfid, entry: &Entry) -> u32 {
        let mut displaced = self.displaced.lock();
        if displaced.len() >= MAX_DISPLACED {
            displaced.clear();
        }
        let slot = displaced.entry((child, gfid)).or_insert_with(|| (entry.clone(), 0));
        slot.0.clone_from(entry);
        slot.1 += 1;
        slot.1
    }
}

/// Adds up the outcomes of the parts of a heal; split-brain outweighs other trouble.
fn note(outcome: HealResult, done: &mut Healed, trouble: &mut Option<Trouble>) {
    match outcome {
        Ok(Healed::Done) => *done = Healed::Done,
        Ok(_) => {}
        Err(new) => {
            if !matches!(trouble, Some(Trouble::SplitBrain(_))) {
                *trouble = Some(new);
            }
        }
    }
}
