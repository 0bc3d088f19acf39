//! Two mounts that one program drives: an operation on one of a few names ends, the next begins at once on either mount, while
//! locks of the one before are still on their way back. Nothing breaks, so each answer must be that of a model, an in-memory
//! brick on which the same is done; sometimes both mounts want a name at the same time, and one must get it. In the end
//! names, attributes and the times of directories are the same on all bricks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::fop::{Entry, File, Name};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::memory::Memory;
use ladrillo_translator::{Context, Dict, FdId, Fop, FopResult, Gfid, Iatt, Payload, Runtime, Translator, Value};

use super::workload::{Mount, brief, outcome, request};
use super::{Client, Random, World};

const O_RDWR: u32 = 2;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
const MODE: u32 = 0o644;
const S_IFREG: u32 = 0o100_000;
const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;

/// The turns of one seed.
struct Turns<'a> {
    world: &'a World,
    mounts: Vec<Mount>,
    model: Arc<Memory>,
    random: Random,
}

impl World {
    /// Does what the module says with the mounts of `clients`.
    pub(super) async fn take_turns(&self, clients: &[Client]) {
        let model = Memory::new("model", Arc::new(self.handle.clone()));
        let mounts = clients.iter().map(|client| client.mount.clone()).collect();
        let mut turns = Turns { world: self, mounts, model, random: Random::new(self.seed, 7) };
        for _ in 0..self.plan.steps {
            if turns.random.chance(35) {
                let pause = turns.random.below(3000);
                self.handle.sleep(Duration::from_micros(pause)).await;
            }
            match turns.random.chance(15) {
                true => turns.race().await,
                false => turns.turn().await,
            }
        }
        // Sessions end, locks come home.
        self.handle.sleep(Duration::from_secs(5)).await;
        turns.compare();
    }
}

impl Turns<'_> {
    fn violation(&self, what: String) {
        self.world.handle.note(0, || format!("VIOLATION {what}"));
        self.world.record.lock().violation(what);
    }

    fn mount(&mut self) -> Mount {
        let at = self.random.below(self.mounts.len() as u64) as usize;
        self.mounts[at].clone()
    }

    /// Inodes of the model that have a name: directories, or others.
    fn inodes(&self, directories: bool) -> Vec<Gfid> {
        let nodes = self.model.snapshot().nodes.into_values();
        nodes.filter(|node| (node.mode & S_IFMT == S_IFDIR) == directories).map(|node| node.gfid).collect()
    }

    fn directory(&mut self) -> Gfid {
        let all = self.inodes(true);
        self.random.pick(&all).copied().unwrap_or(Gfid::ROOT)
    }

    fn entry(&mut self) -> Entry {
        let name: Name = Bytes::from(format!("n{}", self.random.below(4)));
        Entry { parent: self.directory(), name }
    }

    fn gfid(&mut self) -> Gfid {
        Gfid::from_random_bits(u128::from(self.random.bits()) << 64 | u128::from(self.random.bits()))
    }

    /// Something that makes an inode at `entry`, and the file it opens.
    fn make(&mut self, entry: Entry) -> (Fop, Option<File>) {
        let (gfid, umask) = (self.gfid(), 0);
        let xdata = request(gfid);
        match self.random.below(5) {
            0 | 1 => (Fop::Mkdir { entry, mode: 0o755, umask, xdata }, None),
            2 => (Fop::Mknod { entry, mode: S_IFREG | MODE, rdev: 0, umask, xdata }, None),
            3 => (Fop::Symlink { entry, target: Bytes::from_static(b"x"), umask, xdata }, None),
            _ => {
                let fd = FdId(self.world.next_fd.fetch_add(1, Ordering::Relaxed));
                let flags = O_RDWR | O_CREAT | O_EXCL;
                (Fop::Create { entry, flags, mode: MODE, umask, fd, xdata }, Some(File { gfid, fd: Some(fd) }))
            }
        }
    }

    async fn ask_model(&self, fop: Fop) -> FopResult {
        self.model.submit(&Context { birth: self.world.handle.wall_clock(), ..Context::root() }, fop).await
    }

    /// One operation on one mount, and on the model.
    async fn turn(&mut self) {
        let mount = self.mount();
        let (mut made, xdata) = (None, Dict::new());
        let fop = match self.random.below(100) {
            0..30 => {
                let entry = self.entry();
                let (fop, file) = self.make(entry);
                made = file;
                fop
            }
            30..55 => Fop::Rename { from: self.entry(), to: self.entry(), xdata },
            55..70 => Fop::Unlink { entry: self.entry(), flags: 0, xdata },
            70..78 => Fop::Rmdir { entry: self.entry(), flags: 0, xdata },
            78..84 => {
                let files = self.inodes(false);
                let Some(gfid) = self.random.pick(&files).copied() else { return };
                Fop::Link { gfid, entry: self.entry(), xdata }
            }
            84..90 => {
                let all = [self.inodes(true), self.inodes(false)].concat();
                let Some(gfid) = self.random.pick(&all).copied() else { return };
                let iatt = Box::new(Iatt { mode: 0o700 + self.random.below(0o77) as u32, ..Iatt::default() });
                Fop::Setattr { gfid, iatt, valid: SetattrValid(SetattrValid::MODE), xdata }
            }
            90..94 => {
                let all = [self.inodes(true), self.inodes(false)].concat();
                let Some(gfid) = self.random.pick(&all).copied() else { return };
                let value = Value::Ptr(Bytes::from(format!("v{}", self.random.below(1000))));
                Fop::Setxattr { gfid, xattrs: Dict::new().with("user.k", value), flags: 0, xdata }
            }
            _ => Fop::Lookup { gfid: Gfid::NULL, entry: Some(self.entry()), xdata },
        };
        let shown = brief(&fop);
        let wanted = self.ask_model(fop.clone()).await;
        let found = mount.call(fop).await;
        let errno = |result: &FopResult| result.as_ref().err().map_or(0, |error| error.errno);
        if errno(&wanted) != errno(&found) {
            self.violation(format!("{}: {shown}: {}, of the model {}", mount.name, outcome(&found), outcome(&wanted)));
        }
        if let (Some(file), Ok(_)) = (made, &found) {
            self.write_and_close(&mount, file).await;
        }
        if let (Some(file), Ok(_)) = (made, &wanted) {
            let _ = self.ask_model(Fop::Release { file }).await;
        }
    }

    async fn write_and_close(&mut self, mount: &Mount, file: File) {
        if self.random.chance(50) {
            let write = |data| Fop::Write { file, offset: 0, data, flags: 0, xdata: Dict::new() };
            let data = || Payload::from_bytes(Bytes::from_static(b"written"));
            if let Err(error) = mount.call(write(data())).await {
                self.violation(format!("{}: a write: {error}", mount.name));
            }
            let _ = self.ask_model(write(data())).await;
            let _ = mount.call(Fop::Flush { file, xdata: Dict::new() }).await;
        }
        let _ = mount.call(Fop::Release { file }).await;
    }

    /// Both mounts make an inode of one name at the same time: one has it made, unless the name was taken.
    async fn race(&mut self) {
        let entry = self.entry();
        let makes: Vec<(Fop, Option<File>)> = (0..self.mounts.len()).map(|_| self.make(entry.clone())).collect();
        let delays: Vec<u64> = makes.iter().map(|_| self.random.below(400)).collect();
        let handle = &self.world.handle;
        let calls = self.mounts.iter().zip(&makes).zip(delays).map(|((mount, (fop, _)), delay)| async move {
            handle.sleep(Duration::from_micros(delay)).await;
            mount.call(fop.clone()).await
        });
        let results = futures::future::join_all(calls).await;
        let winners: Vec<usize> = (0..results.len()).filter(|at| results[*at].is_ok()).collect();
        let shown = || results.iter().map(outcome).collect::<Vec<_>>().join(", ");
        let mut model = None;
        for at in winners.iter().chain([&0]).take(1) {
            model = Some(self.ask_model(makes[*at].0.clone()).await);
        }
        let is_taken = matches!(model, Some(Err(_)));
        if winners.len() != usize::from(!is_taken) {
            let what = brief(&makes[0].0);
            self.violation(format!("{what} by all at once, taken: {is_taken}: {}", shown()));
        }
        for at in winners {
            if let Some(file) = makes[at].1 {
                let _ = self.mounts[at].call(Fop::Release { file }).await;
                let _ = self.ask_model(Fop::Release { file }).await;
            }
        }
    }

    fn compare(&self) {
        let wanted = self.model.snapshot();
        for brick in &self.world.bricks {
            for line in wanted.differences(&brick.memory.snapshot()) {
                self.violation(format!("the model and brick {} differ at {line}", brick.number));
            }
        }
        let times = self.world.bricks[0].memory.directory_times();
        for brick in &self.world.bricks[1..] {
            for (path, found) in brick.memory.directory_times() {
                if times.get(&path).is_some_and(|times| *times != found) {
                    let path = String::from_utf8_lossy(&path).into_owned();
                    self.violation(format!("{path}: other times on brick {} than on brick 0", brick.number));
                }
            }
        }
    }
}
