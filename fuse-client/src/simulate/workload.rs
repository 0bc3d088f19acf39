//! Applications: each does what the seed says in a directory of its own and in one that all share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, File, Name};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{
    Context, Dict, FdId, Fop, FopError, FopResult, Gfid, Iatt, Payload, Reply, Runtime, Translator, Value,
};
use parking_lot::Mutex;

use super::executor::Handle;
use super::random::Random;
use super::record::{Known, Record};

/// After this long an operation counts as hung.
pub const HANG: Duration = Duration::from_secs(240);

const O_RDWR: u32 = 2;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
/// Largest offset written to.
const REACH: u64 = 3000;

/// A mount as applications use it.
#[derive(Clone)]
pub struct Mount {
    /// The graph.
    pub top: Arc<dyn Translator>,
    /// Its process.
    pub handle: Handle,
    /// What everybody did.
    pub record: Arc<Mutex<Record>>,
    /// Numbers files opened by this process.
    pub next_fd: Arc<AtomicU64>,
    /// For the log.
    pub name: String,
}

impl Mount {
    /// Carries out a fop, as long as it does not hang.
    pub async fn call(&self, fop: Fop) -> FopResult {
        let context = Context { birth: self.handle.wall_clock(), pid: 1000, ..Context::root() };
        let shown = brief(&fop);
        self.record.lock().asked += 1;
        let tick = self.handle.tick();
        self.handle.note(tick, || format!("{} #{tick} {shown}", self.name));
        let result = {
            let work = self.top.submit(&context, fop).fuse();
            let hang = self.handle.sleep(HANG).fuse();
            futures::pin_mut!(work, hang);
            futures::select_biased! {
                result = work => result,
                () = hang => {
                    self.violation(&mut self.record.lock(), format!("{}: {shown} hangs", self.name));
                    Err(FopError::new(errno::ETIMEDOUT, "hung"))
                }
            }
        };
        self.record.lock().succeeded += u64::from(result.is_ok());
        let sum = tick ^ result.as_ref().map_or_else(|error| error.errno as u64, |_| 0);
        self.handle.note(sum, || format!("{} #{tick} -> {}", self.name, outcome(&result)));
        result
    }

    fn violation(&self, record: &mut Record, what: String) {
        self.handle.note(0, || format!("VIOLATION {what}"));
        record.violation(what);
    }

    fn fresh_fd(&self) -> FdId {
        FdId(self.next_fd.fetch_add(1, Ordering::Relaxed))
    }

    /// The inode of a name.
    pub async fn lookup(&self, parent: Gfid, name: &Name) -> FopResult<Gfid> {
        let entry = Some(Entry { parent, name: name.clone() });
        match self.call(Fop::Lookup { gfid: Gfid::NULL, entry, xdata: Dict::new() }).await? {
            Reply::Lookup { iatt, .. } => Ok(iatt.gfid),
            _ => Err(FopError::new(errno::EIO, "a lookup answered by something else")),
        }
    }

    /// Makes a directory.
    pub async fn mkdir(&self, parent: Gfid, name: &Name, gfid: Gfid) -> FopResult {
        let entry = Entry { parent, name: name.clone() };
        self.call(Fop::Mkdir { entry, mode: 0o755, umask: 0, xdata: request(gfid) }).await
    }
}

pub(super) fn request(gfid: Gfid) -> Dict {
    Dict::new().with("gfid-req", Value::Gfid(gfid))
}

/// How a fop ended, for the log.
pub(super) fn outcome(result: &FopResult) -> String {
    result.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned())
}

/// A fop for the log, without its data.
pub(super) fn brief(fop: &Fop) -> String {
    let name = |entry: &Entry| format!("{}/{}", &entry.parent.to_string()[..8], String::from_utf8_lossy(&entry.name));
    let short = |gfid: &Gfid| gfid.to_string()[..8].to_owned();
    match fop {
        Fop::Lookup { entry: Some(entry), .. } => format!("lookup {}", name(entry)),
        Fop::Create { entry, xdata, .. } | Fop::Mkdir { entry, xdata, .. } => {
            let gfid = xdata.gfid("gfid-req").unwrap_or_default();
            format!("{} {} as {}", fop.kind().name(), name(entry), short(&gfid))
        }
        Fop::Rename { from, to, .. } => format!("rename {} {}", name(from), name(to)),
        Fop::Link { gfid, entry, .. } => format!("link {} {}", short(gfid), name(entry)),
        Fop::Unlink { entry, .. } | Fop::Rmdir { entry, .. } => format!("{} {}", fop.kind().name(), name(entry)),
        Fop::Write { file, offset, data, .. } => {
            let value = data.as_slice().first().copied().unwrap_or(0);
            format!("write {} {value:#04x} {offset}..{}", short(&file.gfid), offset + data.len() as u64)
        }
        Fop::Truncate { gfid, size_bytes, .. } => format!("truncate {} {size_bytes}", short(gfid)),
        Fop::Setattr { gfid, iatt, .. } => format!("setattr {} {:o}", short(gfid), iatt.mode),
        Fop::Setxattr { gfid, .. } => format!("setxattr {}", short(gfid)),
        Fop::Read { file, .. } | Fop::Fsync { file, .. } | Fop::Release { file } => {
            format!("{} {}", fop.kind().name(), short(&file.gfid))
        }
        Fop::Open { gfid, .. } => format!("open {}", short(gfid)),
        Fop::Inodelk { gfid, cmd, flock, .. } => format!("inodelk {} {cmd:?} {:?}", short(gfid), flock.kind),
        Fop::Finodelk { file, cmd, flock, .. } => format!("inodelk {} {cmd:?} {:?}", short(&file.gfid), flock.kind),
        Fop::Entrylk { gfid, name, cmd, .. } => format!("entrylk {} {name:?} {cmd:?}", short(gfid)),
        Fop::Xattrop { gfid, xattrs, .. } => format!("xattrop {} {}", short(gfid), marks(xattrs)),
        Fop::Fxattrop { file, xattrs, .. } => format!("xattrop {} {}", short(&file.gfid), marks(xattrs)),
        Fop::Lookup { gfid, entry: None, .. } => format!("lookup {}", short(gfid)),
        other => other.kind().name(),
    }
}

fn marks(xattrs: &Dict) -> String {
    let all: Vec<String> = xattrs
        .iter()
        .map(|(key, value)| {
            let bytes = match value {
                Value::Ptr(bytes) | Value::Str(bytes) | Value::StrOld(bytes) => bytes.clone(),
                _ => Bytes::new(),
            };
            let counters: Vec<i32> = bytes
                .chunks_exact(4)
                .map(|four| four.iter().fold(0_i32, |sum, byte| sum.wrapping_shl(8) | i32::from(*byte)))
                .collect();
            format!("{}{counters:?}", String::from_utf8_lossy(key))
        })
        .collect();
    all.join(" ")
}

/// One application.
pub struct Application {
    mount: Mount,
    random: Random,
    home: Gfid,
    shared: Gfid,
    /// Steps left, shared by all applications.
    steps: Arc<AtomicU64>,
    values: Arc<AtomicU64>,
}

/// Whether a failed change certainly changed nothing: the name was looked at and found unfit.
fn is_refusal(error: &FopError) -> bool {
    matches!(
        error.errno,
        errno::EEXIST | errno::ENOENT | errno::ENOTEMPTY | errno::EISDIR | errno::ENOTDIR | errno::EINVAL
    )
}

impl Application {
    /// An application at home in `home`, which nobody else changes.
    pub fn new(
        mount: Mount,
        random: Random,
        home: Gfid,
        shared: Gfid,
        steps: Arc<AtomicU64>,
        values: Arc<AtomicU64>,
    ) -> Application {
        Application { mount, random, home, shared, steps, values }
    }

    /// Works until the steps are used up.
    pub async fn run(mut self) {
        while self.take_step() {
            let pause = if self.random.chance(70) { self.random.below(20_000) } else { self.random.below(600_000) };
            self.mount.handle.sleep(Duration::from_micros(pause)).await;
            let owned = self.random.chance(55);
            let directory = if owned { self.home } else { self.shared };
            match self.random.below(100) {
                0..16 => self.create(directory, owned).await,
                16..50 => self.write(directory, owned).await,
                50..58 => self.read(directory, owned).await,
                58..63 => self.truncate(directory, owned).await,
                63..70 => self.rename(directory, owned).await,
                70..74 => self.link(directory, owned).await,
                74..82 => self.unlink(directory, owned).await,
                82..85 => self.make_directory(directory, owned).await,
                85..87 => self.remove_directory(directory, owned).await,
                87..92 => self.set_mode(directory, owned).await,
                92..97 => self.set_xattr(directory, owned).await,
                _ => self.list(directory).await,
            }
        }
    }

    fn take_step(&self) -> bool {
        self.steps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn file_name(&mut self) -> Name {
        Bytes::from(format!("f{}", self.random.below(5)))
    }

    fn gfid(&mut self) -> Gfid {
        Gfid::from_random_bits(u128::from(self.random.bits()) << 64 | u128::from(self.random.bits()))
    }

    /// Looks a name up, and checks the answer where this application alone changes the directory. `Ok(None)`: no such
    /// name; `Err`: it could not be told.
    async fn find(&mut self, directory: Gfid, name: &Name, owned: bool) -> FopResult<Option<Gfid>> {
        let found = self.mount.lookup(directory, name).await;
        if owned {
            let mut record = self.mount.record.lock();
            let shown = String::from_utf8_lossy(name).into_owned();
            let who = &self.mount.name;
            let violation = |record: &mut Record, what| self.mount.violation(record, what);
            match (record.known(directory, name), &found) {
                (Some(Known::Is(gfid)), Err(error)) if matches!(error.errno, errno::ENOENT | errno::ESTALE) => {
                    violation(
                        &mut record,
                        format!("{who}: {shown} ({gfid}) was acknowledged, and a lookup says {error}"),
                    );
                }
                (Some(Known::Is(gfid)), Ok(other)) if *other != gfid => {
                    violation(&mut record, format!("{who}: {shown} is {other} instead of {gfid}"));
                }
                (Some(Known::Absent), Ok(gfid)) => {
                    violation(&mut record, format!("{who}: {shown} was removed, and a lookup finds {gfid}"));
                }
                _ => {}
            }
        }
        match found {
            Ok(gfid) => Ok(Some(gfid)),
            Err(error) if error.errno == errno::ENOENT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Carries out a change of owned names: unknown while it is under way, then as it turned out.
    async fn change_names(&mut self, owned: bool, fop: Fop, names: &[(Gfid, Name, Known)]) -> FopResult {
        let before: Vec<Option<Known>> = {
            let mut record = self.mount.record.lock();
            let before = names.iter().map(|(directory, name, _)| record.known(*directory, name)).collect();
            if owned {
                names.iter().for_each(|(directory, name, _)| record.know(*directory, name, None));
            }
            before
        };
        let result = self.mount.call(fop).await;
        if owned {
            let mut record = self.mount.record.lock();
            for ((directory, name, after), before) in names.iter().zip(before) {
                match &result {
                    Ok(_) => record.know(*directory, name, Some(*after)),
                    Err(error) if is_refusal(error) => record.know(*directory, name, before),
                    Err(_) => {}
                }
            }
        }
        result
    }

    async fn create(&mut self, directory: Gfid, owned: bool) {
        let (name, gfid, fd) = (self.file_name(), self.gfid(), self.mount.fresh_fd());
        let _ = self.find(directory, &name, owned).await;
        let mode = 0o600 + self.random.below(0o200) as u32;
        let fop = Fop::Create {
            entry: Entry { parent: directory, name: name.clone() },
            flags: O_RDWR | O_CREAT | O_EXCL,
            mode,
            umask: 0,
            fd,
            xdata: request(gfid),
        };
        if self.change_names(owned, fop, &[(directory, name, Known::Is(gfid))]).await.is_err() {
            return;
        }
        if owned {
            let value = Bytes::from(format!("{mode:o}"));
            self.mount.record.lock().know_attribute(gfid, &Bytes::from_static(b"mode"), Some(value));
        }
        let file = File { gfid, fd: Some(fd) };
        for _ in 0..self.random.below(4) {
            self.write_once(file).await;
        }
        self.close(file).await;
    }

    /// Opens a file that a name leads to.
    async fn open(&mut self, directory: Gfid, owned: bool) -> Option<File> {
        let name = self.file_name();
        let gfid = self.find(directory, &name, owned).await.ok()??;
        let fd = self.mount.fresh_fd();
        self.mount.call(Fop::Open { gfid, flags: O_RDWR, fd, xdata: Dict::new() }).await.ok()?;
        Some(File { gfid, fd: Some(fd) })
    }

    async fn write(&mut self, directory: Gfid, owned: bool) {
        let Some(file) = self.open(directory, owned).await else { return };
        for _ in 0..self.random.between(1, 5) {
            if self.random.chance(25) {
                let (one, two) = (self.one_write(file), self.one_write(file));
                futures::join!(one, two);
            } else {
                self.write_once(file).await;
            }
            if self.random.chance(20) {
                let _ = self.mount.call(Fop::Fsync { file, datasync: true, xdata: Dict::new() }).await;
            }
            if self.random.chance(30) {
                let pause = self.random.below(1_500_000);
                self.mount.handle.sleep(Duration::from_micros(pause)).await;
            }
        }
        self.close(file).await;
    }

    /// As the kernel does on close().
    async fn close(&self, file: File) {
        let _ = self.mount.call(Fop::Flush { file, xdata: Dict::new() }).await;
        let _ = self.mount.call(Fop::Release { file }).await;
    }

    async fn write_once(&mut self, file: File) {
        self.one_write(file).await;
    }

    /// A write of a value of its own somewhere.
    fn one_write(&mut self, file: File) -> impl Future<Output = ()> + use<> {
        let (offset, len) = (self.random.below(REACH), self.random.between(1, 700) as usize);
        let value = (self.values.fetch_add(1, Ordering::Relaxed) % 255 + 1) as u8;
        let mount = self.mount.clone();
        async move {
            let now = mount.handle.tick();
            let ticket = mount.record.lock().write(file.gfid, offset, len, value, now);
            let data = Payload::from_bytes(Bytes::from(vec![value; len]));
            let result = mount.call(Fop::Write { file, offset, data, flags: 0, xdata: Dict::new() }).await;
            match result {
                Ok(Reply::PrePost { written, .. }) if written as usize == len => {
                    let now = mount.handle.tick();
                    mount.record.lock().acknowledge(ticket, now);
                }
                Ok(other) => mount.record.lock().violation(format!("a write of {len} answered {other:?}")),
                Err(_) => {}
            }
        }
    }

    async fn read(&mut self, directory: Gfid, owned: bool) {
        let Some(file) = self.open(directory, owned).await else { return };
        let offset = self.random.below(REACH);
        let fop = Fop::Read { file, offset, size_bytes: 4096, flags: 0, xdata: Dict::new() };
        if let Ok(Reply::Read { data, .. }) = self.mount.call(fop).await {
            self.mount.record.lock().check_read(file.gfid, offset, data.as_slice());
        }
        self.close(file).await;
    }

    async fn truncate(&mut self, directory: Gfid, owned: bool) {
        let name = self.file_name();
        let Ok(Some(gfid)) = self.find(directory, &name, owned).await else { return };
        let size_bytes = self.random.below(REACH);
        let now = self.mount.handle.tick();
        let ticket = self.mount.record.lock().truncate(gfid, size_bytes, now);
        if self.mount.call(Fop::Truncate { gfid, size_bytes, xdata: Dict::new() }).await.is_ok() {
            let now = self.mount.handle.tick();
            self.mount.record.lock().acknowledge(ticket, now);
        }
    }

    async fn rename(&mut self, directory: Gfid, owned: bool) {
        let (from, to) = (self.file_name(), self.file_name());
        if from == to {
            return;
        }
        let Ok(Some(gfid)) = self.find(directory, &from, owned).await else { return };
        let Ok(other) = self.find(directory, &to, owned).await else { return };
        let fop = Fop::Rename {
            from: Entry { parent: directory, name: from.clone() },
            to: Entry { parent: directory, name: to.clone() },
            xdata: Dict::new(),
        };
        // Two names of one inode: rename does nothing, both stay.
        let after = if other == Some(gfid) { Known::Is(gfid) } else { Known::Absent };
        let _ = self.change_names(owned, fop, &[(directory, from, after), (directory, to, Known::Is(gfid))]).await;
    }

    async fn link(&mut self, directory: Gfid, owned: bool) {
        let (from, to) = (self.file_name(), self.file_name());
        if from == to {
            return;
        }
        let Ok(Some(gfid)) = self.find(directory, &from, owned).await else { return };
        let fop = Fop::Link { gfid, entry: Entry { parent: directory, name: to.clone() }, xdata: Dict::new() };
        let _ = self.change_names(owned, fop, &[(directory, to, Known::Is(gfid))]).await;
    }

    async fn unlink(&mut self, directory: Gfid, owned: bool) {
        let name = self.file_name();
        let Ok(Some(_)) = self.find(directory, &name, owned).await else { return };
        let fop = Fop::Unlink { entry: Entry { parent: directory, name: name.clone() }, flags: 0, xdata: Dict::new() };
        let _ = self.change_names(owned, fop, &[(directory, name, Known::Absent)]).await;
    }

    async fn make_directory(&mut self, directory: Gfid, owned: bool) {
        let name = Bytes::from(format!("d{}", self.random.below(2)));
        let gfid = self.gfid();
        let fop = Fop::Mkdir {
            entry: Entry { parent: directory, name: name.clone() },
            mode: 0o755,
            umask: 0,
            xdata: request(gfid),
        };
        let _ = self.find(directory, &name, owned).await;
        let made = self.change_names(owned, fop, &[(directory, name, Known::Is(gfid))]).await;
        // Something in it, so that removing it fails sometimes.
        if made.is_ok() && self.random.chance(50) {
            let (inner, name) = (self.gfid(), Bytes::from_static(b"inner"));
            let fop = Fop::Mknod {
                entry: Entry { parent: gfid, name: name.clone() },
                mode: 0o100644,
                rdev: 0,
                umask: 0,
                xdata: request(inner),
            };
            let _ = self.change_names(owned, fop, &[(gfid, name, Known::Is(inner))]).await;
        }
    }

    async fn remove_directory(&mut self, directory: Gfid, owned: bool) {
        let name = Bytes::from(format!("d{}", self.random.below(2)));
        let Ok(Some(gfid)) = self.find(directory, &name, owned).await else { return };
        if self.random.chance(70) {
            let inner = Bytes::from_static(b"inner");
            let fop = Fop::Unlink { entry: Entry { parent: gfid, name: inner.clone() }, flags: 0, xdata: Dict::new() };
            let _ = self.change_names(owned, fop, &[(gfid, inner, Known::Absent)]).await;
        }
        let fop = Fop::Rmdir { entry: Entry { parent: directory, name: name.clone() }, flags: 0, xdata: Dict::new() };
        let _ = self.change_names(owned, fop, &[(directory, name, Known::Absent)]).await;
    }

    /// Changes an attribute: unknown while that is under way, then as it turned out.
    async fn change_attribute(&mut self, owned: bool, gfid: Gfid, attribute: Bytes, value: Bytes, fop: Fop) {
        if owned {
            self.mount.record.lock().know_attribute(gfid, &attribute, None);
        }
        if self.mount.call(fop).await.is_ok() && owned {
            self.mount.record.lock().know_attribute(gfid, &attribute, Some(value));
        }
    }

    async fn set_mode(&mut self, directory: Gfid, owned: bool) {
        let name = self.file_name();
        let Ok(Some(gfid)) = self.find(directory, &name, owned).await else { return };
        let mode = 0o600 + self.random.below(0o200) as u32;
        let iatt = Box::new(Iatt { mode, uid: 7, gid: 8, ..Iatt::default() });
        let owners = if self.random.chance(30) { SetattrValid::UID | SetattrValid::GID } else { 0 };
        let fop = Fop::Setattr { gfid, iatt, valid: SetattrValid(SetattrValid::MODE | owners), xdata: Dict::new() };
        let value = Bytes::from(format!("{mode:o}"));
        self.change_attribute(owned, gfid, Bytes::from_static(b"mode"), value, fop).await;
    }

    async fn set_xattr(&mut self, directory: Gfid, owned: bool) {
        let name = self.file_name();
        let Ok(Some(gfid)) = self.find(directory, &name, owned).await else { return };
        let key = Bytes::from(format!("user.k{}", self.random.below(2)));
        let value = Bytes::from(format!("v{}", self.values.fetch_add(1, Ordering::Relaxed)));
        let xattrs = Dict::new().with(key.clone(), Value::Ptr(value.clone()));
        let fop = Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() };
        self.change_attribute(owned, gfid, key, value, fop).await;
    }

    async fn list(&mut self, directory: Gfid) {
        let fd = self.mount.fresh_fd();
        let file = File { gfid: directory, fd: Some(fd) };
        if self.mount.call(Fop::Opendir { gfid: directory, fd, xdata: Dict::new() }).await.is_err() {
            return;
        }
        let fop = match self.random.chance(50) {
            true => Fop::Readdirp { file, offset: 0, size_bytes: 4096, xdata: Dict::new() },
            false => Fop::Readdir { file, offset: 0, size_bytes: 4096, xdata: Dict::new() },
        };
        let _ = self.mount.call(fop).await;
        let _ = self.mount.call(Fop::Releasedir { file }).await;
    }
}
