//! `protocol/client`: one brick, over a transport.
//!
//! Promises: fops leave in the order in which they are first polled (those that open excepted); when the connection breaks, all that are under way
//! fail with ENOTCONN at once and so do later ones, until a new session stands: it is tried for from 100 ms to every
//! 3 s. Files that were open are opened again before [`Event::Up`]. A brick that shows no sign of life for
//! ping-timeout is given up. Nothing is sent twice. A LOOKUP that finds another gfid than the caller believes in fails
//! with ESTALE and `gfid-changed` in its xdata. Locks of applications, which a brick drops with the session, are taken
//! again after their files were opened; where `strict-locks` is set such files are bad instead (EBADFD), as somebody else
//! may have had the lock in between.

mod connect;
mod fds;
mod relock;
mod session;
mod settings;
mod signal;
mod steps;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{EntrylkCmd, File, LockCmd};
use ladrillo_translator::steps::one_by_one;
use ladrillo_translator::{
    Context, Dict, Event, FdId, Fop, FopError, FopFuture, FopResult, OptionError, Options, Parent, Reply, Runtime,
    Step, StepsFuture, Translator, Value,
};
use ladrillo_transport::program::callback::Callback;
use ladrillo_transport::program::fop4;
use ladrillo_transport::{Address, Connector, Credential};
use parking_lot::{Mutex, RwLock};

use crate::translators::held::HeldLocks;
use connect::{ConnectError, Connected};
use fds::{Fds, OpenFd, Resolved};
use session::Session;
pub use settings::OPTIONS;
use settings::Settings;
use signal::Signal;

/// Pauses between attempts to connect: from, to, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Files opened again at once after a reconnect.
const REOPEN_CONCURRENCY: usize = 32;

/// One brick.
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    settings: RwLock<Arc<Settings>>,
    runtime: Arc<dyn Runtime>,
    connector: Arc<dyn Connector>,
    parent: OnceLock<(Weak<dyn Parent>, usize)>,
    session: RwLock<Option<Arc<Session>>>,
    fds: Fds,
    /// Applications' locks, each with the session it was last taken in.
    locks: HeldLocks<u64>,
    /// Some are being taken again.
    relocking: AtomicBool,
    sessions: AtomicU64,
    started: AtomicBool,
    stopping: Signal,
    /// The parents have been told that it is up.
    up: AtomicBool,
    known: Mutex<Known>,
    identity: Mutex<Identity>,
}

/// Who the brick takes this client for.
#[derive(Default)]
struct Identity {
    /// In the session of the moment.
    now: Option<String>,
    /// To be in the next: another client's, whose session this one joins.
    inherited: Option<String>,
}

/// What earlier sessions have taught.
#[derive(Default)]
struct Known {
    address: Option<Address>,
    volume_id: Option<String>,
}

impl Client {
    /// A client that does nothing before [`Translator::start`]. Of `options` the translator's own are in [`OPTIONS`];
    /// all of them go to the brick in SETVOLUME, where it looks for `username`, `password`, `volfile-key`,
    /// `process-name`, `subdir-mount` and `volume-id`. `process-uuid` names the process (a random one by default),
    /// `graph-id` the graph in it.
    ///
    /// # Errors
    /// An option that is missing or malformed.
    pub fn new(
        name: &str,
        options: &Options,
        runtime: Arc<dyn Runtime>,
        connector: Arc<dyn Connector>,
    ) -> Result<Arc<Client>, OptionError> {
        let settings = Settings::new(options).map_err(|error| OptionError(format!("{name}: {error}")))?;
        Ok(Arc::new(Client {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                settings: RwLock::new(Arc::new(settings)),
                identity: Mutex::default(),
                runtime,
                connector,
                parent: OnceLock::new(),
                session: RwLock::new(None),
                fds: Fds::default(),
                locks: HeldLocks::default(),
                relocking: AtomicBool::new(false),
                sessions: AtomicU64::new(0),
                started: AtomicBool::new(false),
                stopping: Signal::default(),
                up: AtomicBool::new(false),
                known: Mutex::new(Known::default()),
            }),
        }))
    }

    /// Whether a session stands.
    pub fn is_connected(&self) -> bool {
        self.inner.session.read().is_some()
    }

    /// The brick: its machine and its path there.
    pub fn brick(&self) -> (String, String) {
        let settings = self.inner.settings();
        (settings.host.clone(), settings.subvolume.clone())
    }

    /// The volume-id that its brick told, if one has.
    pub fn volume_id(&self) -> Option<String> {
        self.inner.known.lock().volume_id.clone()
    }

    /// Bricks of another volume than this are not connected to. To be called before [`Translator::start`].
    pub fn expect_volume(&self, id: String) {
        self.inner.known.lock().volume_id = Some(id);
    }

    /// Joins the session that `old`, a client of the same brick in the graph this one takes over from, has at the moment:
    /// for the brick both are one, so that what one has locked the other has. To be called before
    /// [`Translator::start`].
    pub fn inherit(&self, old: &Client) {
        if !self.inner.settings().is_same_session(&old.inner.settings()) {
            return;
        }
        // Where the brick is reached, should its glusterd be away.
        let address = old.inner.known.lock().address.clone();
        self.inner.known.lock().address = address;
        if old.is_connected() {
            let identity = old.inner.identity.lock().now.clone();
            self.inner.identity.lock().inherited = identity;
        }
    }

    /// Where the brick was last reached (`10.77.1.1:49152`); `None` before the first session.
    pub fn peer(&self) -> Option<String> {
        self.inner.session.read().as_ref().map(|session| session.peer())
    }

    /// Whether files whose locks are lost are of no use any more (`strict-locks`).
    pub fn has_strict_locks(&self) -> bool {
        self.inner.settings().strict_locks
    }

    /// Files the graph holds open here.
    pub fn open_files(&self) -> usize {
        self.inner.fds.len()
    }
}

impl Translator for Client {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        Box::pin(async move {
            match &fop {
                Fop::Release { file } | Fop::Releasedir { file } => {
                    if let Some(fd) = file.fd {
                        self.inner.locks.forget_fd(file.gfid, fd);
                        self.inner.release(context, fd).await;
                    }
                    Ok(Reply::done())
                }
                Fop::Lk { .. } => self.inner.clone().lk(context, fop).await,
                Fop::Flush { .. } => self.inner.clone().flush(context, fop).await,
                _ if fop.opens().is_some() => self.inner.clone().open(context, fop).await,
                _ => self.inner.clone().forward(context, fop).await,
            }
        })
    }

    fn submit_steps(&self, steps: Vec<Step>) -> StepsFuture<'_> {
        let session = self.inner.session.read().clone();
        match session.filter(|session| session.extended && steps::can_go_together(&steps)) {
            Some(session) => Box::pin(self.inner.clone().submit_together(session, steps)),
            None => Box::pin(one_by_one(self, steps)),
        }
    }

    fn state(&self) -> Vec<(Cow<'static, str>, String)> {
        let brick = self.brick();
        vec![
            ("connected".into(), self.is_connected().to_string()),
            ("remote".into(), self.peer().unwrap_or_default()),
            ("remote-host".into(), brick.0),
            ("remote-subvolume".into(), brick.1),
            ("fds".into(), self.open_files().to_string()),
        ]
    }

    fn takes_steps(&self) -> bool {
        self.inner.session.read().as_ref().is_some_and(|session| session.extended)
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        if self.inner.parent.set((parent, child_index)).is_err() {
            tracing::warn!(client = %self.inner.name, "a second parent is not heard");
        }
    }

    fn reconfigure(&self, options: &Options) -> Result<bool, OptionError> {
        let name = &self.inner.name;
        let mut options = options.clone();
        if let Some(id) = self.inner.settings().graph_id() {
            options.set("graph-id", id);
        }
        let new = Settings::new(&options).map_err(|error| OptionError(format!("{name}: {error}")))?;
        let mut settings = self.inner.settings.write();
        if !settings.is_same_session(&new) {
            return Ok(false);
        }
        *settings = Arc::new(new);
        Ok(true)
    }

    fn start(&self) {
        if !self.inner.started.swap(true, Ordering::AcqRel) {
            let inner = self.inner.clone();
            self.inner.runtime.spawn(Box::pin(async move { inner.run().await }));
        }
    }

    fn stop(&self) {
        self.inner.stop();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

impl Inner {
    fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    fn stop(&self) {
        self.stopping.raise();
        let session = self.session.write().take();
        if let Some(session) = session {
            session.close();
            session.fail_calls();
        }
    }

    fn tell(&self, event: Event) {
        if let Some((parent, index)) = self.parent.get()
            && let Some(parent) = parent.upgrade()
        {
            parent.child_event(*index, event);
        }
    }

    /// Connects, serves, connects again, until stopped.
    async fn run(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        let mut said: Option<ConnectError> = None;
        let mut heard_of = false;
        while !self.stopping.is_raised() {
            let connected = {
                let attempt = std::pin::pin!(self.connect());
                match select(attempt, std::pin::pin!(self.stopping.wait())).await {
                    Either::Left((connected, _)) => connected,
                    Either::Right(_) => break,
                }
            };
            match connected {
                Ok(connected) => {
                    (pause, said, heard_of) = (FIRST_PAUSE, None, true);
                    self.serve(connected).await;
                }
                Err(error) => {
                    if said.as_ref() != Some(&error) {
                        tracing::warn!(client = %self.name, %error, "not connected");
                        if error.errno == errno::ESTALE {
                            self.tell(Event::VolfileChanged);
                        }
                        said = Some(error);
                    }
                    if !std::mem::replace(&mut heard_of, true) {
                        self.tell(Event::Connecting);
                    }
                }
            }
            // Up to a quarter more, so that clients of a brick that comes back do not come all at once.
            let jitter = pause.mul_f64((self.runtime.random() % 1024) as f64 / 4096.0);
            let wait = self.runtime.sleep(pause + jitter);
            select(wait, std::pin::pin!(self.stopping.wait())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Connected, ConnectError> {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let settings = self.settings();
        let inherited = self.identity.lock().inherited.clone();
        let identity = inherited.unwrap_or_else(|| settings.identity(&self.name, number));
        let setvolume = settings.setvolume(&identity);
        let last = self.known.lock().address.clone();
        let connected = connect::connect(&settings, &*self.runtime, &*self.connector, last.as_ref(), setvolume).await?;
        let mut known = self.known.lock();
        if let (Some(before), Some(now)) = (&known.volume_id, &connected.volume_id)
            && before != now
        {
            connected.transport.close();
            let message = format!("brick of another volume: it has volume-id {now}, this is {before}");
            return Err(ConnectError { message, errno: 0 });
        }
        *self.identity.lock() = Identity { now: Some(identity), inherited: None };
        known.address = Some(connected.address.clone());
        if connected.volume_id.is_some() {
            known.volume_id = connected.volume_id.clone();
        }
        Ok(connected)
    }

    /// A session from its beginning to its end.
    async fn serve(self: &Arc<Self>, connected: Connected) {
        let epoch = self.sessions.load(Ordering::Relaxed);
        let session = Session::new(epoch, connected.extended, connected.transport, self.runtime.clone());
        let reason = {
            let read = std::pin::pin!(session.read(|callback| self.on_callback(&session, callback)));
            let watch = std::pin::pin!(session.watch(|| self.settings().ping_timeout));
            let begin = std::pin::pin!(async {
                self.begin(&session, connected.child_up).await;
                select(std::pin::pin!(session.closed()), std::pin::pin!(self.stopping.wait())).await;
                "closed".to_owned()
            });
            match select(select(read, watch), begin).await {
                Either::Left((Either::Left((reason, _)) | Either::Right((reason, _)), _)) => reason,
                Either::Right((reason, _)) => reason,
            }
        };
        session.close();
        *self.session.write() = None;
        if self.up.swap(false, Ordering::AcqRel) {
            self.tell(Event::Down);
        }
        session.fail_calls();
        if !self.stopping.is_raised() {
            tracing::warn!(client = %self.name, peer = %session.peer(), reason, "disconnected");
        }
    }

    /// Opens what was open, then lets fops in.
    async fn begin(self: &Arc<Self>, session: &Arc<Session>, child_up: bool) {
        if self.settings().strict_locks {
            self.lose_locks(session.epoch);
        }
        let mut files = self.fds.to_reopen(session.epoch).into_iter();
        let mut reopening: FuturesUnordered<_> =
            files.by_ref().take(REOPEN_CONCURRENCY).map(|file| self.reopen(session, file)).collect();
        while reopening.next().await.is_some() {
            if let Some(file) = files.next() {
                reopening.push(self.reopen(session, file));
            }
        }
        let unlocked = self.relock(session).await;
        if session.is_closed() || self.stopping.is_raised() {
            return;
        }
        tracing::info!(client = %self.name, peer = %session.peer(), medium = %session.medium(), "connected");
        *self.session.write() = Some(session.clone());
        if unlocked > 0 {
            self.relock_later(session.clone());
        }
        if child_up {
            self.set_up(true);
        } else {
            tracing::warn!(client = %self.name, "connected, but the brick's storage is down");
            self.tell(Event::Connecting);
        }
        self.release_orphans(session, &Context::root()).await;
    }

    fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::AcqRel) != up {
            self.tell(if up { Event::Up } else { Event::Down });
        }
    }

    fn on_callback(&self, session: &Session, callback: Callback) {
        match callback {
            Callback::InodelkContention { gfid, domain, .. } => self.tell(Event::InodelkContention { gfid, domain }),
            Callback::EntrylkContention { gfid, domain, name, .. } => {
                self.tell(Event::EntrylkContention { gfid, domain, name });
            }
            Callback::CacheInvalidation(what) => {
                self.tell(Event::Invalidate { gfid: what.gfid, flags: what.flags });
            }
            Callback::Fetchspec => self.tell(Event::VolfileChanged),
            Callback::ChildUp | Callback::ChildDown => {
                let serving = self.session.read().as_ref().is_some_and(|now| now.epoch == session.epoch);
                if serving {
                    self.set_up(callback == Callback::ChildUp);
                }
            }
            Callback::Statedump { .. } => {}
        }
    }

    fn session(&self) -> FopResult<Arc<Session>> {
        self.session.read().clone().ok_or_else(|| FopError::not_connected(&self.name))
    }

    /// A fop as it is, with the brick's descriptors.
    async fn forward(self: Arc<Self>, context: &Context, mut fop: Fop) -> FopResult {
        let session = self.session()?;
        self.resolve_files(&session, &mut fop)?;
        let (reply, _) = self.call(&session, context, &fop).await?;
        self.check_identity(&fop, reply)
    }

    /// Puts the brick's descriptors in the place of the graph's.
    ///
    /// # Errors
    /// EBADFD: a file that is not open on the brick, and that the fop needs to be.
    fn resolve_files(self: &Arc<Self>, session: &Arc<Session>, fop: &mut Fop) -> FopResult<()> {
        let kind = fop.kind();
        for file in fop.files_mut().into_iter().flatten() {
            let Some(fd) = file.fd else { continue };
            file.fd = match self.fds.resolve(fd, kind, session.epoch, self.runtime.now())? {
                Resolved::Use(number) => number,
                Resolved::Reopen(open, number) => {
                    self.reopen_in_background(session, open);
                    number?
                }
            };
        }
        Ok(())
    }

    /// # Errors
    /// ESTALE: a LOOKUP has found another inode than its caller believes in.
    fn check_identity(&self, fop: &Fop, reply: Reply) -> FopResult {
        match (fop, &reply) {
            (Fop::Lookup { gfid, .. }, Reply::Lookup { iatt, .. }) if !gfid.is_null() && iatt.gfid != *gfid => {
                Err(FopError::new(errno::ESTALE, format!("{}: {gfid} is now {}", self.name, iatt.gfid))
                    .with_xdata(Dict::new().with("gfid-changed", Value::Int(1))))
            }
            _ => Ok(reply),
        }
    }

    async fn call(&self, session: &Session, context: &Context, fop: &Fop) -> FopResult<(Reply, Option<FdId>)> {
        let kind = fop.kind();
        let procedure = (fop4::PROGRAM, fop4::VERSION, kind.procedure());
        let timeout = if waits_for_lock(fop) { None } else { self.settings().frame_timeout };
        let body = session
            .call(procedure, &self.credential(context, fop), timeout, reply_bytes(fop), |writer| {
                fop4::write_request(writer, fop)
            })
            .await
            .map_err(|error| error.into_fop_error(&self.name))?;
        match fop4::decode_reply(kind, body) {
            Ok((result, opened)) => result.map(|reply| (reply, opened)),
            Err(error) => {
                let message = format!("{}: answer to {} not understood: {error}", self.name, kind.name());
                tracing::error!("{message}");
                Err(FopError::new(errno::EPROTO, message))
            }
        }
    }

    fn credential(&self, context: &Context, fop: &Fop) -> Credential {
        let mut credential = Credential::v3(context);
        if let Credential::GlusterfsV3(caller) = &mut credential {
            if !self.settings().send_gids {
                caller.groups = Arc::default();
            }
            // Heal and the like copy times themselves: theirs are not moved.
            if context.birth.seconds != 0 && !context.is_internal() {
                caller.flags = fop4::time_flags(fop);
            }
        }
        credential
    }

    /// CREATE, OPEN, OPENDIR: run to their end even when the caller goes away, lest a descriptor leaks on the brick.
    async fn open(self: Arc<Self>, context: &Context, fop: Fop) -> FopResult {
        let session = self.session()?;
        let (answer, receiver) = oneshot::channel();
        let (inner, context) = (self.clone(), context.clone());
        self.runtime.spawn(Box::pin(async move {
            let fd = fop.opens();
            let result = inner.open_now(&session, &context, fop).await;
            if let (Err(Ok(_)), Some(fd)) = (answer.send(result), fd) {
                inner.release(&context, fd).await;
            }
        }));
        receiver.await.unwrap_or_else(|_| Err(FopError::not_connected(&self.name)))
    }

    async fn open_now(&self, session: &Session, context: &Context, fop: Fop) -> FopResult {
        let (reply, opened) = self.call(session, context, &fop).await?;
        self.note_opened(session, context, &fop, &reply, opened).await;
        Ok(reply)
    }

    /// Notes what a fop that opens has opened on the brick.
    async fn note_opened(&self, session: &Session, context: &Context, fop: &Fop, reply: &Reply, opened: Option<FdId>) {
        let (file, fd) = match (fop, reply) {
            (Fop::Create { flags, fd, .. }, Reply::Entry { iatt, .. }) => (OpenFd::new(iatt.gfid, *flags, false), *fd),
            (Fop::Open { gfid, flags, fd, .. }, _) => (OpenFd::new(*gfid, *flags, false), *fd),
            (Fop::Opendir { gfid, fd, .. }, _) => (OpenFd::new(*gfid, 0, true), *fd),
            _ => return,
        };
        let (gfid, directory) = (file.gfid, file.directory);
        if let Some(number) = opened
            && let Some(before) = self.fds.opened(fd, file, session.epoch, number)
        {
            self.release_number(session, context, File { gfid, fd: Some(before) }, directory).await;
        }
    }

    /// Forgets an open file, here and on the brick.
    async fn release(&self, context: &Context, fd: FdId) {
        self.fds.release(fd);
        // Without a session the next one does it, or the brick has forgotten the file with the last.
        let session = self.session.read().clone();
        if let Some(session) = session {
            self.release_orphans(&session, context).await;
        }
    }

    async fn release_orphans(&self, session: &Session, context: &Context) {
        for (file, number) in self.fds.take_orphans(session.epoch) {
            let on_brick = File { gfid: file.gfid, fd: Some(number) };
            self.release_number(session, context, on_brick, file.directory).await;
        }
    }

    async fn release_number(&self, session: &Session, context: &Context, file: File, directory: bool) {
        let fop = if directory { Fop::Releasedir { file } } else { Fop::Release { file } };
        // A brick that is gone has forgotten the file as well.
        let _ = self.call(session, context, &fop).await;
    }

    fn reopen_in_background(self: &Arc<Self>, session: &Arc<Session>, file: Arc<OpenFd>) {
        let (inner, session) = (self.clone(), session.clone());
        self.runtime.spawn(Box::pin(async move { inner.reopen(&session, file).await }));
    }

    async fn reopen(&self, session: &Session, file: Arc<OpenFd>) {
        let (gfid, fd, xdata) = (file.gfid, FdId(0), Dict::new());
        let fop = match file.directory {
            true => Fop::Opendir { gfid, fd, xdata },
            false => Fop::Open { gfid, flags: file.reopen_flags(), fd, xdata },
        };
        let context = Context::root();
        let number = match self.call(session, &context, &fop).await {
            Ok((_, number)) => number,
            Err(error) => {
                tracing::warn!(client = %self.name, %gfid, %error, "file not opened again");
                None
            }
        };
        if let Some(orphan) = file.reopened(session.epoch, number, self.runtime.now()) {
            self.release_number(session, &context, File { gfid, fd: Some(orphan) }, file.directory).await;
        }
    }
}

/// How large the payload of the answer may be, where it may be large: what is asked for. Entries with their attributes take
/// some three times as much on the wire as the size asked for says, which counts what the kernel will get.
fn reply_bytes(fop: &Fop) -> usize {
    match fop {
        Fop::Read { size_bytes, .. } => *size_bytes as usize,
        Fop::Readdir { size_bytes, .. } => (*size_bytes as usize).saturating_mul(2),
        Fop::Readdirp { size_bytes, .. } => (*size_bytes as usize).saturating_mul(3),
        _ => 0,
    }
}

/// Whether the answer may take as long as somebody else holds a lock.
fn waits_for_lock(fop: &Fop) -> bool {
    match fop {
        Fop::Lk { cmd, .. } | Fop::Inodelk { cmd, .. } | Fop::Finodelk { cmd, .. } => *cmd == LockCmd::SetWait,
        Fop::Entrylk { cmd, .. } | Fop::Fentrylk { cmd, .. } => *cmd == EntrylkCmd::Lock,
        _ => false,
    }
}
