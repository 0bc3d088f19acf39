//! A client whose volume is distributed over in-memory bricks with locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ladrillo_translator::fop::{DirEntry, Entry, File};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::memory::Node;
use ladrillo_translator::option::Options;
use ladrillo_translator::{
    Context, Dict, Event, FdId, Fop, FopResult, Gfid, Iatt, Parent, Payload, Reply, Translator, Value,
};

use crate::translators::distribute::Distribute;
use crate::translators::replicate::Replicate;
use crate::translators::replicate::tests::bench::{Bricks, Wire, bricks};

pub use crate::translators::replicate::tests::bench::{at, pass, run};

pub struct Volume {
    pub distribute: Arc<Distribute>,
    pub wires: Vec<Arc<Wire>>,
    fds: AtomicU64,
}

static CLIENTS: AtomicU64 = AtomicU64::new(1);

/// A client of `bricks`, which have been up for long enough that all is known of them.
pub fn volume(bricks: &Bricks, options: Options) -> Volume {
    let wires = bricks.connect();
    let children = wires.iter().map(|wire| wire.clone() as Arc<dyn Translator>).collect();
    let distribute = Distribute::new("v-dht", children, &options, bricks.runtime()).unwrap();
    for (index, wire) in wires.iter().enumerate() {
        let parent: Arc<dyn Parent> = distribute.clone();
        wire.set_parent(Arc::downgrade(&parent), index);
        wire.tell(Event::Up);
    }
    Volume { distribute, wires, fds: AtomicU64::new((1 << 60) | CLIENTS.fetch_add(1, Ordering::SeqCst) << 32) }
}

/// A client over replica sets of three bricks each.
pub fn replicated(bricks: &Bricks, options: Options) -> Volume {
    let wires = bricks.connect();
    let mut sets: Vec<Arc<dyn Translator>> = Vec::new();
    for (number, set) in wires.chunks(3).enumerate() {
        let children: Vec<Arc<dyn Translator>> = set.iter().map(|wire| wire.clone() as Arc<dyn Translator>).collect();
        let name = format!("v-replicate-{number}");
        let replicate = Replicate::new(&name, children, &Options::new(), bricks.runtime()).unwrap();
        for (index, wire) in set.iter().enumerate() {
            let parent: Arc<dyn Parent> = replicate.clone();
            wire.set_parent(Arc::downgrade(&parent), index);
        }
        sets.push(replicate);
    }
    let distribute = Distribute::new("v-dht", sets.clone(), &options, bricks.runtime()).unwrap();
    for (index, set) in sets.iter().enumerate() {
        let parent: Arc<dyn Parent> = distribute.clone();
        set.set_parent(Arc::downgrade(&parent), index);
    }
    for wire in &wires {
        wire.tell(Event::Up);
    }
    Volume { distribute, wires, fds: AtomicU64::new((1 << 60) | CLIENTS.fetch_add(1, Ordering::SeqCst) << 32) }
}

/// `count` bricks and one client, whose root has its layout.
pub async fn fresh(count: usize) -> (Bricks, Volume) {
    let bricks = bricks(count);
    let volume = volume(&bricks, Options::new());
    volume.root().await;
    (bricks, volume)
}

impl Volume {
    pub async fn ask(&self, fop: Fop) -> FopResult {
        self.distribute.submit(&Context::root(), fop).await
    }

    pub async fn root(&self) -> Iatt {
        self.look(Fop::Lookup { gfid: Gfid::ROOT, entry: None, xdata: Dict::new() }).await.unwrap()
    }

    async fn look(&self, fop: Fop) -> FopResult<Iatt> {
        match self.ask(fop).await? {
            Reply::Lookup { iatt, .. } => Ok(*iatt),
            reply => panic!("{reply:?}"),
        }
    }

    pub async fn lookup(&self, parent: Gfid, name: &str) -> FopResult<Iatt> {
        self.look(Fop::Lookup { gfid: Gfid::NULL, entry: Some(at(parent, name)), xdata: req(Gfid::random()) }).await
    }

    pub async fn mkdir(&self, parent: Gfid, name: &str) -> FopResult<Gfid> {
        let gfid = Gfid::random();
        let fop = Fop::Mkdir { entry: at(parent, name), mode: 0o755, umask: 0, xdata: req(gfid) };
        self.ask(fop).await.map(|_| gfid)
    }

    pub async fn create(&self, parent: Gfid, name: &str) -> FopResult<File> {
        let (gfid, fd) = (Gfid::random(), self.fd());
        let entry = at(parent, name);
        let flags = (libc::O_CREAT | libc::O_EXCL | libc::O_RDWR) as u32;
        self.ask(Fop::Create { entry, flags, mode: 0o644, umask: 0, fd, xdata: req(gfid) }).await?;
        Ok(File { gfid, fd: Some(fd) })
    }

    /// A file with its name as contents, closed.
    pub async fn file(&self, parent: Gfid, name: &str) -> FopResult<Gfid> {
        let file = self.create(parent, name).await?;
        self.write(file, name).await?;
        self.ask(Fop::Release { file }).await?;
        Ok(file.gfid)
    }

    pub fn fd(&self) -> FdId {
        FdId(self.fds.fetch_add(1, Ordering::SeqCst))
    }

    pub async fn write(&self, file: File, text: &str) -> FopResult<()> {
        let data = Payload::copy_from_slice(text.as_bytes());
        self.ask(Fop::Write { file, offset: 0, data, flags: 0, xdata: Dict::new() }).await.map(|_| ())
    }

    pub async fn read(&self, gfid: Gfid) -> FopResult<String> {
        let file = File { gfid, fd: None };
        match self.ask(Fop::Read { file, offset: 0, size_bytes: 4096, flags: 0, xdata: Dict::new() }).await? {
            Reply::Read { data, .. } => Ok(String::from_utf8_lossy(data.as_slice()).into_owned()),
            reply => panic!("{reply:?}"),
        }
    }

    pub async fn unlink(&self, parent: Gfid, name: &str) -> FopResult<()> {
        self.ask(Fop::Unlink { entry: at(parent, name), flags: 0, xdata: Dict::new() }).await.map(|_| ())
    }

    pub async fn rmdir(&self, parent: Gfid, name: &str) -> FopResult<()> {
        self.ask(Fop::Rmdir { entry: at(parent, name), flags: 0, xdata: Dict::new() }).await.map(|_| ())
    }

    pub async fn rename(&self, from: Entry, to: Entry) -> FopResult<Iatt> {
        match self.ask(Fop::Rename { from, to, xdata: Dict::new() }).await? {
            Reply::Rename { iatt, .. } => Ok(*iatt),
            reply => panic!("{reply:?}"),
        }
    }

    pub async fn link(&self, gfid: Gfid, parent: Gfid, name: &str) -> FopResult<()> {
        self.ask(Fop::Link { gfid, entry: at(parent, name), xdata: Dict::new() }).await.map(|_| ())
    }

    pub async fn chmod(&self, gfid: Gfid, mode: u32) -> FopResult<()> {
        let iatt = Box::new(Iatt { mode, ..Iatt::default() });
        let valid = SetattrValid(SetattrValid::MODE);
        self.ask(Fop::Setattr { gfid, iatt, valid, xdata: Dict::new() }).await.map(|_| ())
    }

    pub async fn set(&self, gfid: Gfid, key: &str, value: &str) -> FopResult<()> {
        let value = Value::Ptr(Bytes::copy_from_slice(value.as_bytes()));
        let xattrs = Dict::new().with(key.to_owned(), value);
        self.ask(Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() }).await.map(|_| ())
    }

    pub async fn get(&self, gfid: Gfid, key: &str) -> FopResult<String> {
        let name = Bytes::copy_from_slice(key.as_bytes());
        match self.ask(Fop::Getxattr { gfid, name, xdata: Dict::new() }).await? {
            Reply::Xattrs { xattrs, .. } => Ok(xattrs.text(key).unwrap_or("?").to_owned()),
            reply => panic!("{reply:?}"),
        }
    }

    /// All names of a directory, as listed with so many bytes at a time.
    pub async fn list(&self, gfid: Gfid, size_bytes: u32) -> FopResult<Vec<DirEntry>> {
        let fd = self.fd();
        self.ask(Fop::Opendir { gfid, fd, xdata: Dict::new() }).await?;
        let file = File { gfid, fd: Some(fd) };
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            match self.ask(Fop::Readdirp { file, offset, size_bytes, xdata: Dict::new() }).await? {
                Reply::Entries { entries, .. } if entries.is_empty() => break,
                Reply::Entries { entries, .. } => {
                    offset = entries.last().unwrap().offset;
                    all.extend(entries);
                }
                reply => panic!("{reply:?}"),
            }
        }
        self.ask(Fop::Releasedir { file }).await?;
        Ok(all)
    }

    pub async fn names(&self, gfid: Gfid) -> Vec<String> {
        let entries = self.list(gfid, 300).await.unwrap();
        let mut names: Vec<String> =
            entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
        names.sort();
        names.retain(|name| name != "." && name != "..");
        names
    }
}

pub fn req(gfid: Gfid) -> Dict {
    Dict::new().with("gfid-req", Value::Gfid(gfid))
}

pub fn code<T>(outcome: FopResult<T>) -> i32 {
    outcome.map_or_else(|error| error.errno, |_| 0)
}

/// What a brick has at a path.
pub fn node(bricks: &Bricks, brick: usize, path: &str) -> Option<Node> {
    bricks.disks[brick].snapshot().nodes.get(path.as_bytes()).cloned()
}

/// Which bricks have a path.
pub fn holders(bricks: &Bricks, path: &str) -> Vec<usize> {
    (0..bricks.disks.len()).filter(|brick| node(bricks, *brick, path).is_some()).collect()
}

/// Which bricks have data at a path, and which a linkto file and where to.
pub fn places(bricks: &Bricks, path: &str) -> (Vec<usize>, Vec<(usize, String)>) {
    let (mut data, mut links) = (Vec::new(), Vec::new());
    for brick in holders(bricks, path) {
        let node = node(bricks, brick, path).unwrap();
        match node.xattrs.get(&b"trusted.glusterfs.dht.linkto"[..]) {
            Some(target) => {
                assert_eq!((node.mode, node.data.len()), (0o101000, 0), "{path} on {brick}");
                links.push((brick, String::from_utf8_lossy(target).trim_end_matches('\0').to_owned()));
            }
            None => data.push(brick),
        }
    }
    (data, links)
}

/// A name that hashes to `brick` in a directory whose layout is that of `path`, starting with `prefix`.
pub fn name_on(bricks: &Bricks, path: &str, brick: usize, prefix: &str) -> String {
    let range = |brick: usize| {
        let raw = node(bricks, brick, path).unwrap().xattrs.get(&b"trusted.glusterfs.dht"[..]).cloned().unwrap();
        let piece = crate::translators::distribute::layout::DiskPiece::decode(&raw).unwrap();
        piece.start..=piece.stop
    };
    let range = range(brick);
    (0..10_000)
        .map(|n| format!("{prefix}{n}"))
        .find(|name| range.contains(&crate::translators::distribute::hash::davies_meyer(name.as_bytes())))
        .expect("some name hashes there")
}

impl Volume {
    /// A listing, or its error.
    pub async fn names_or(&self, gfid: Gfid) -> FopResult<Vec<DirEntry>> {
        self.list(gfid, 300).await
    }
}

/// Locks that are held or waited for.
pub fn locks_left(bricks: &Bricks) -> usize {
    bricks.locks.iter().map(|locks| locks.counts()).map(|counts| counts.granted + counts.waiting).sum()
}
