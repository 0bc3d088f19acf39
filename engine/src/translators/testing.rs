//! What tests of brick-side translators share: a translator over a real brick in a temporary directory.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use ladrillo_translator::fop::{Entry, File};
use ladrillo_translator::{Context, Dict, FdId, Fop, FopResult, Gfid, Iatt, Payload, Reply, Translator, Value};

use crate::storage::{InPlace, Storage, StorageOptions};

/// A translator over storage.
pub struct Bench {
    /// The brick.
    pub path: PathBuf,
    /// The translator.
    pub top: Arc<dyn Translator>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Bench {
    /// `None` (said aloud) without the right to set trusted xattrs.
    pub fn new(over: impl FnOnce(Arc<dyn Translator>) -> Arc<dyn Translator>) -> Option<Bench> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: trusted xattrs need root");
            return None;
        }
        let path = std::env::temp_dir().join(format!("ladrillo-translator-{}-{}", std::process::id(), Gfid::random()));
        std::fs::create_dir_all(&path).unwrap();
        let storage = Storage::open("posix", StorageOptions::new(&path), Arc::new(InPlace)).unwrap();
        let top = over(Arc::new(storage));
        Some(Bench { path, top })
    }

    /// As root.
    pub fn run(&self, fop: Fop) -> FopResult {
        self.run_as(&Context { pid: 100, ..Context::root() }, fop)
    }

    /// As whoever `context` is.
    pub fn run_as(&self, context: &Context, fop: Fop) -> FopResult {
        block_on(self.top.submit(context, fop))
    }

    /// A regular file with contents, made and closed.
    pub fn file(&self, parent: Gfid, name: &str, contents: &[u8]) -> Gfid {
        let (gfid, fd) = (Gfid::random(), FdId(u64::from_le_bytes(Gfid::random().0[..8].try_into().unwrap())));
        self.run(create(parent, name, gfid, fd)).unwrap();
        let file = File { gfid, fd: Some(fd) };
        if !contents.is_empty() {
            self.run(write(file, contents)).unwrap();
        }
        self.run(Fop::Release { file }).unwrap();
        gfid
    }

    /// A directory.
    pub fn directory(&self, parent: Gfid, name: &str) -> Gfid {
        let gfid = Gfid::random();
        let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
        self.run(Fop::Mkdir { entry: entry(parent, name), mode: 0o755, umask: 0, xdata }).unwrap();
        gfid
    }

    /// What a name is.
    pub fn iatt(&self, parent: Gfid, name: &str) -> FopResult<Iatt> {
        match self.run(lookup(parent, name))? {
            Reply::Lookup { iatt, .. } => Ok(*iatt),
            other => panic!("{other:?}"),
        }
    }
}

/// An entry.
pub fn entry(parent: Gfid, name: &str) -> Entry {
    Entry { parent, name: Bytes::copy_from_slice(name.as_bytes()) }
}

/// LOOKUP by name.
pub fn lookup(parent: Gfid, name: &str) -> Fop {
    Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(parent, name)), xdata: Dict::new() }
}

/// CREATE for reading and writing.
pub fn create(parent: Gfid, name: &str, gfid: Gfid, fd: FdId) -> Fop {
    let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
    Fop::Create { entry: entry(parent, name), flags: 2, mode: 0o644, umask: 0, fd, xdata }
}

/// WRITE at the start.
pub fn write(file: File, data: &[u8]) -> Fop {
    let data = Payload::from_bytes(Bytes::copy_from_slice(data));
    Fop::Write { file, offset: 0, data, flags: 0, xdata: Dict::new() }
}

/// A wall clock that tests move; it runs nothing.
pub struct Clock(std::sync::atomic::AtomicI64);

impl Clock {
    /// At `seconds` since the epoch.
    pub fn new(seconds: i64) -> Clock {
        Clock(std::sync::atomic::AtomicI64::new(seconds))
    }

    /// At the real time.
    pub fn now() -> Clock {
        Clock::new(rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec)
    }

    /// Moves it forward.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, std::sync::atomic::Ordering::SeqCst);
    }

    /// What it says.
    pub fn seconds(&self) -> i64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl ladrillo_translator::Runtime for Clock {
    fn now(&self) -> std::time::Duration {
        std::time::Duration::from_secs(u64::try_from(self.seconds()).unwrap_or(0))
    }

    fn wall_clock(&self) -> ladrillo_translator::Timespec {
        ladrillo_translator::Timespec { seconds: self.seconds(), nanos: 0 }
    }

    fn sleep(&self, _: std::time::Duration) -> ladrillo_translator::LocalFuture<'static, ()> {
        Box::pin(async {})
    }

    fn spawn(&self, task: ladrillo_translator::LocalFuture<'static, ()>) {
        block_on(task);
    }

    fn random(&self) -> u64 {
        4
    }
}
