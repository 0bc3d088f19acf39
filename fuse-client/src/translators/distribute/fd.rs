//! Operations on files, and open files: on the subvolume that has the file, followed where it was moved to.

use std::sync::Arc;

use ladrillo_translator::error::errno::{EBADF, EBADFD, ENOENT, ENOTCONN, ESTALE, EXDEV};
use ladrillo_translator::fop::{File, FopKind};
use ladrillo_translator::{Context, Dict, FdId, Fop, FopError, FopResult, Gfid, Reply, Value};
use parking_lot::Mutex;

use super::Distribute;
use super::linkto::is_missing;
use super::lock_places::Step;
use super::lookup::is_a_directory;
use super::merge;
use super::unlink::IATT_IN_XDATA;

/// Open flags that must not be repeated on another open.
const ONCE_ONLY: u32 = (libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC) as u32;

/// An open file or directory.
pub(super) struct OpenFile {
    pub gfid: Gfid,
    pub flags: u32,
    is_directory: bool,
    /// Subvolumes it is open on: one of a file, unless it moved.
    on: Mutex<Vec<usize>>,
}

impl OpenFile {
    pub fn is_on(&self, child: usize) -> bool {
        self.on.lock().contains(&child)
    }
}

impl Distribute {
    pub(super) fn open_file(&self, fd: FdId) -> Option<Arc<OpenFile>> {
        self.files.lock().get(&fd).cloned()
    }

    pub(super) fn note_open(&self, fd: FdId, gfid: Gfid, flags: u32, on: impl IntoIterator<Item = usize>) {
        let open = OpenFile { gfid, flags, is_directory: false, on: Mutex::new(on.into_iter().collect()) };
        self.files.lock().insert(fd, Arc::new(open));
    }

    /// [`Distribute::place`] of what a fop is about. Once the table has forgotten a file that was unlinked while open, the
    /// descriptor alone knows where it is.
    pub(super) async fn place_for(&self, fop: &Fop, gfid: Gfid) -> FopResult<Option<usize>> {
        let error = match self.place(gfid).await {
            Err(error) if is_missing(&error) || error.errno == ENOTCONN => error,
            outcome => return outcome,
        };
        let files = fop.files().into_iter().flatten().filter(|file| file.gfid == gfid);
        let open = files.filter_map(|file| self.open_file(file.fd?)).find(|open| !open.is_directory);
        let child = open.and_then(|open| open.on.lock().last().copied()).ok_or_else(|| error.clone())?;
        if is_missing(&error) {
            self.table.learn_file(gfid, child);
        }
        Ok(Some(child))
    }

    async fn file_place_for(&self, fop: &Fop, gfid: Gfid) -> FopResult<usize> {
        self.place_for(fop, gfid).await?.ok_or_else(|| is_a_directory(gfid))
    }

    pub(super) async fn open(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Open { gfid, flags, fd, .. } = &fop else { return Err(super::strange_fop("an open")) };
        let (gfid, flags, fd) = (*gfid, *flags, *fd);
        for attempt in 0..2 {
            let child = self.file_place(gfid).await?;
            match self.ask(child, context, fop.clone()).await {
                Ok(reply) => {
                    self.note_open(fd, gfid, flags, [child]);
                    return Ok(reply);
                }
                Err(error) if attempt == 0 && is_missing(&error) => {
                    // Moved since it was seen?
                    self.table.forget(&gfid);
                    if self.file_place(gfid).await.map_err(|_| error.clone())? == child {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(FopError::new(ESTALE, format!("{gfid} keeps moving")))
    }

    /// Opens a file that is open elsewhere on `child`, too.
    pub(super) async fn open_on(&self, fd: FdId, gfid: Gfid, flags: u32, child: usize) -> FopResult<()> {
        let fop = Fop::Open { gfid, flags: flags & !ONCE_ONLY, fd, xdata: Dict::new() };
        self.ask(child, &self.system(), fop).await?;
        if let Some(open) = self.open_file(fd) {
            open.on.lock().push(child);
        }
        Ok(())
    }

    pub(super) async fn release(&self, context: &Context, fop: Fop) -> FopResult {
        let file = match &fop {
            Fop::Release { file } | Fop::Releasedir { file } => *file,
            _ => return Err(super::strange_fop("a release")),
        };
        let open = file.fd.and_then(|fd| Some((fd, self.files.lock().remove(&fd)?)));
        let Some((fd, open)) = open else { return Ok(Reply::done()) };
        if open.is_directory {
            self.lock_places.close(open.gfid, fd);
        }
        let on = open.on.lock().clone();
        self.ask_each(on, context, |_| fop.clone()).await;
        Ok(Reply::done())
    }

    /// An operation on a file.
    pub(super) async fn on_file(&self, context: &Context, fop: Fop) -> FopResult {
        let gfid = gfid_of(&fop).ok_or_else(|| super::strange_fop("an operation on a file"))?;
        let child = self.file_place_for(&fop, gfid).await?;
        self.on_file_at(context, fop, gfid, child).await
    }

    /// An operation on an inode that goes to one subvolume: a file's own, or of a directory the first that is up and has
    /// it, starting with the one that counts.
    pub(super) async fn on_any(&self, context: &Context, fop: Fop) -> FopResult {
        let gfid = gfid_of(&fop).ok_or_else(|| super::strange_fop("an operation on an inode"))?;
        if let Some(child) = self.place_for(&fop, gfid).await? {
            return self.on_file_at(context, fop, gfid, child).await;
        }
        let known = self.directory(gfid).await?;
        // All clients must agree about a lock's place: where the layout begins.
        let first = known.layout.search(0).or(known.mds).unwrap_or(0);
        if !matches!(fop.kind(), FopKind::Access) {
            let step = Step::of(&context.lock_owner, &fop);
            let (child, is_new) = self.lock_places.enter(gfid, first, &step);
            let outcome = self.on_directory_at(context, fop, child).await;
            match step {
                Step::Take(holder) if is_new && outcome.is_err() => self.lock_places.leave(gfid, &holder),
                Step::Give(holder) if outcome.is_ok() => self.lock_places.leave(gfid, &holder),
                _ => {}
            }
            return outcome;
        }
        let mut last = self.nobody_up();
        for child in std::iter::once(first).chain((0..self.count()).filter(|child| *child != first)) {
            match self.on_directory_at(context, fop.clone(), child).await {
                Err(error) if error.errno == ENOTCONN || is_missing(&error) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    async fn on_directory_at(&self, context: &Context, mut fop: Fop, child: usize) -> FopResult {
        self.adapt_directory(&mut fop, child);
        self.ask(child, context, fop).await
    }

    /// A fop as each subvolume gets it: [`Distribute::adapt_directory`] of a copy.
    pub(super) fn adapted<'a>(&'a self, fop: &'a Fop) -> impl Fn(usize) -> Fop + Copy + 'a {
        |child| {
            let mut fop = fop.clone();
            self.adapt_directory(&mut fop, child);
            fop
        }
    }

    /// Makes the files of a fop anonymous where they are not open on `child`.
    pub(super) fn adapt_directory(&self, fop: &mut Fop, child: usize) {
        for file in fop.files_mut().into_iter().flatten() {
            let is_open = file.fd.and_then(|fd| self.open_file(fd)).is_some_and(|open| open.is_on(child));
            if !is_open {
                file.fd = None;
            }
        }
    }

    async fn on_file_at(&self, context: &Context, mut fop: Fop, gfid: Gfid, child: usize) -> FopResult {
        let added = ask_for_iatt(&mut fop);
        let mut child = child;
        let mut has_moved = false;
        loop {
            let outcome = match self.open_all(&fop, child).await {
                Ok(()) => self.ask(child, context, fop.clone()).await,
                Err(error) => Err(error),
            };
            if !has_moved && self.may_have_moved(&outcome) {
                // Rebalance has moved it: where to?
                has_moved = true;
                self.table.forget(&gfid);
                match self.file_place(gfid).await {
                    Ok(place) if place != child => {
                        child = place;
                        continue;
                    }
                    // Unlinked while open: it is where it was.
                    Err(error) if is_missing(&error) => self.table.learn_file(gfid, child),
                    // What the linkto file answered counts for nothing, and where the file is cannot be said.
                    Err(error) => return Err(error),
                    Ok(_) => {}
                }
            }
            if let Ok(reply) = &outcome {
                self.repeat_where_it_goes(context, &fop, gfid, child, reply).await?;
            }
            return outcome.map(|mut reply| {
                if added {
                    reply.xdata_mut().remove(IATT_IN_XDATA);
                }
                merge::dress(&mut reply);
                reply
            });
        }
    }

    /// Opens the files of a fop on `child` where they are not open there.
    pub(super) async fn open_all(&self, fop: &Fop, child: usize) -> FopResult<()> {
        for file in fop.files().into_iter().flatten() {
            let Some(fd) = file.fd else { continue };
            let Some(open) = self.open_file(fd) else { continue };
            if !open.is_on(child) {
                self.open_on(fd, open.gfid, open.flags, child).await?;
            }
        }
        Ok(())
    }

    /// Whether an answer looks like that of a subvolume the file has left: it is gone there, or a linkto file.
    fn may_have_moved(&self, outcome: &FopResult) -> bool {
        if self.count() == 1 {
            return false;
        }
        let is_linkto = |iatt: &ladrillo_translator::Iatt| iatt.is_regular() && iatt.permissions() == 0o1000;
        match outcome {
            Err(error) => matches!(error.errno, ENOENT | ESTALE | EBADF | EBADFD),
            Ok(Reply::PrePost { attrs, .. }) => is_linkto(&attrs.post),
            Ok(Reply::Iatt { iatt, .. } | Reply::Read { iatt, .. }) => is_linkto(iatt),
            // Of changes of xattrs, where the subvolume can say it.
            Ok(reply) => matches!(reply.xdata().get(IATT_IN_XDATA), Some(Value::Iatt(iatt)) if is_linkto(iatt)),
        }
    }

    /// Between files of one subvolume; of two, the application copies itself.
    pub(super) async fn copy_file_range(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::CopyFileRange { from, to, .. } = &fop else {
            return Err(super::strange_fop("a copy"));
        };
        let into = to.gfid;
        let (from, to) = (self.file_place_for(&fop, from.gfid).await?, self.file_place_for(&fop, to.gfid).await?);
        if from != to {
            return Err(FopError::new(EXDEV, "the files are on different subvolumes"));
        }
        self.open_all(&fop, from).await?;
        let mut reply = self.ask(from, context, fop).await?;
        self.refuse_copy_into_moving(into, to, &reply).await?;
        merge::dress(&mut reply);
        Ok(reply)
    }

    pub(super) async fn opendir(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Opendir { gfid, fd, .. } = &fop else { return Err(super::strange_fop("an opendir")) };
        let (gfid, fd) = (*gfid, *fd);
        // Where it is missing for now, or the subvolume is down, the listing goes on without.
        self.directory(gfid).await?;
        let replies = self.ask_all(context, |_| fop.clone()).await;
        let on: Vec<usize> = replies.iter().filter(|(_, reply)| reply.is_ok()).map(|(child, _)| *child).collect();
        let hard = replies.iter().find_map(|(_, reply)| match reply {
            Err(error) if error.errno != ENOTCONN && !is_missing(error) => Some(error.clone()),
            _ => None,
        });
        if on.is_empty() || hard.is_some() {
            let file = File { gfid, fd: Some(fd) };
            self.ask_each(on, context, |_| Fop::Releasedir { file }).await;
            let errors = || replies.into_iter().filter_map(|(_, reply)| reply.err()).collect();
            return Err(hard.unwrap_or_else(|| self.weigh(errors())));
        }
        let open = OpenFile { gfid, flags: 0, is_directory: true, on: Mutex::new(on) };
        self.files.lock().insert(fd, Arc::new(open));
        Ok(Reply::done())
    }

    pub(super) async fn fsyncdir(&self, context: &Context, fop: Fop) -> FopResult {
        let replies = self.ask_all(context, self.adapted(&fop)).await;
        self.any_success(replies)
    }

    pub(super) async fn ipc(&self, context: &Context, fop: Fop) -> FopResult {
        let replies = self.ask_all(context, |_| fop.clone()).await;
        self.any_success(replies)
    }

    /// The first success, where nothing but absence stands against it.
    pub(super) fn any_success(&self, replies: Vec<super::ChildReply>) -> FopResult {
        let mut success = None;
        let mut errors = Vec::new();
        for (_, reply) in replies {
            match reply {
                Ok(reply) => success = success.or(Some(reply)),
                Err(error) if error.errno != ENOTCONN && !is_missing(&error) => return Err(error),
                Err(error) => errors.push(error),
            }
        }
        success.ok_or_else(|| self.weigh(errors))
    }
}

/// Has the answer to a change of xattrs carry the attributes, by which a file that has moved is known; answers whether it
/// would not have otherwise.
fn ask_for_iatt(fop: &mut Fop) -> bool {
    let is_change = matches!(
        fop.kind(),
        FopKind::Setxattr
            | FopKind::Fsetxattr
            | FopKind::Removexattr
            | FopKind::Fremovexattr
            | FopKind::Xattrop
            | FopKind::Fxattrop
    );
    match fop.xdata_mut().filter(|xdata| is_change && !xdata.contains(IATT_IN_XDATA)) {
        Some(xdata) => {
            xdata.set(IATT_IN_XDATA, Value::Int(1));
            true
        }
        None => false,
    }
}

/// The inode a fop is about.
pub(super) fn gfid_of(fop: &Fop) -> Option<Gfid> {
    fop.inode().or_else(|| fop.files()[0].map(|file| file.gfid))
}
