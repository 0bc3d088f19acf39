//! Random operations by two clients of a distributed volume, and the same on one in-memory file system: the answers and
//! the trees must be equal. Names are few, so that they collide.

use std::collections::BTreeMap;

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, File};
use ladrillo_translator::memory::Memory;
use ladrillo_translator::option::Options;
use ladrillo_translator::{Context, Dict, Fop, FopResult, Gfid, Payload, Reply, Translator};
use proptest::prelude::*;

use super::bench::*;
use crate::translators::replicate::tests::bench::{Bricks, bricks};

#[derive(Clone, Debug)]
enum Step {
    Mkdir(usize, u8),
    File(usize, u8),
    Symlink(usize, u8),
    Link(usize, usize, u8),
    Unlink(usize, u8),
    Rmdir(usize, u8),
    Rename((usize, u8), (usize, u8)),
    Write(usize, u8),
    Chmod(usize, u32),
    Lookup(usize, u8),
    List(usize),
    /// A subvolume goes away and comes back.
    Blink(usize),
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let inode = 0..64_usize;
    let name = 0..6_u8;
    let step = prop_oneof![
        3 => (inode.clone(), name.clone()).prop_map(|(parent, name)| Step::Mkdir(parent, name)),
        5 => (inode.clone(), name.clone()).prop_map(|(parent, name)| Step::File(parent, name)),
        1 => (inode.clone(), name.clone()).prop_map(|(parent, name)| Step::Symlink(parent, name)),
        2 => (inode.clone(), inode.clone(), name.clone()).prop_map(|(of, parent, name)| Step::Link(of, parent, name)),
        3 => (inode.clone(), name.clone()).prop_map(|(parent, name)| Step::Unlink(parent, name)),
        2 => (inode.clone(), name.clone()).prop_map(|(parent, name)| Step::Rmdir(parent, name)),
        6 => ((inode.clone(), name.clone()), (inode.clone(), name.clone())).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => (inode.clone(), name.clone()).prop_map(|(file, byte)| Step::Write(file, byte)),
        1 => (inode.clone(), 0..0o1000_u32).prop_map(|(inode, mode)| Step::Chmod(inode, mode)),
        2 => (inode.clone(), name).prop_map(|(parent, name)| Step::Lookup(parent, name)),
        1 => inode.clone().prop_map(Step::List),
        1 => (0..3_usize).prop_map(Step::Blink),
    ];
    proptest::collection::vec((any::<bool>(), step), 1..60)
}

/// What is at a path: identity, mode, contents.
type Seen = (Gfid, u32, Vec<u8>);

/// Both worlds.
struct Worlds {
    /// Bricks that hold the same.
    copies: usize,
    bricks: Bricks,
    clients: [Volume; 2],
    model: std::sync::Arc<Memory>,
    /// Inodes made so far; whether they are still there is for the worlds to say.
    inodes: Vec<Gfid>,
}

fn entry(parent: Gfid, name: u8) -> Entry {
    at(parent, &format!("n{name}"))
}

impl Worlds {
    fn inode(&self, number: usize) -> Gfid {
        self.inodes[number % self.inodes.len()]
    }

    /// Whether every directory that a step names is one, and what it links is there: what comes first where several things are wrong is not compared
    /// (kernels look parents up before they use them).
    fn parents_are_directories(&self, step: &Step) -> bool {
        let parents = match step {
            Step::Mkdir(parent, _)
            | Step::File(parent, _)
            | Step::Symlink(parent, _)
            | Step::Link(_, parent, _)
            | Step::Unlink(parent, _)
            | Step::Rmdir(parent, _)
            | Step::Lookup(parent, _) => vec![*parent],
            Step::Rename(from, to) => vec![from.0, to.0],
            Step::List(directory) => vec![*directory],
            Step::Write(..) | Step::Chmod(..) | Step::Blink(..) => Vec::new(),
        };
        let nodes = self.model.snapshot().nodes;
        let is_directory =
            |gfid: Gfid| nodes.values().any(|node| node.gfid == gfid && node.mode & 0o170000 == 0o040000);
        let is_there = |gfid: Gfid| nodes.values().any(|node| node.gfid == gfid);
        let linked = match step {
            Step::Link(inode, ..) | Step::Write(inode, _) | Step::Chmod(inode, _) => is_there(self.inode(*inode)),
            _ => true,
        };
        linked && parents.into_iter().all(|parent| is_directory(self.inode(parent)))
    }

    async fn both(&self, second: bool, fop: Fop) -> (FopResult, FopResult) {
        let seen = self.clients[usize::from(second)].ask(fop.clone()).await;
        (seen, self.model.submit(&Context::root(), fop).await)
    }

    /// Runs a step on both and compares the outcomes.
    async fn step(&mut self, second: bool, step: &Step) {
        let new = Gfid::random();
        let none = Dict::new;
        let fop = match step {
            Step::Mkdir(parent, name) => {
                Fop::Mkdir { entry: entry(self.inode(*parent), *name), mode: 0o755, umask: 0, xdata: req(new) }
            }
            Step::File(parent, name) => Fop::Mknod {
                entry: entry(self.inode(*parent), *name),
                mode: 0o100644,
                rdev: 0,
                umask: 0,
                xdata: req(new),
            },
            Step::Symlink(parent, name) => Fop::Symlink {
                entry: entry(self.inode(*parent), *name),
                target: "nowhere".into(),
                umask: 0,
                xdata: req(new),
            },
            Step::Link(of, parent, name) => {
                Fop::Link { gfid: self.inode(*of), entry: entry(self.inode(*parent), *name), xdata: none() }
            }
            Step::Unlink(parent, name) => {
                Fop::Unlink { entry: entry(self.inode(*parent), *name), flags: 0, xdata: none() }
            }
            Step::Rmdir(parent, name) => {
                Fop::Rmdir { entry: entry(self.inode(*parent), *name), flags: 0, xdata: none() }
            }
            Step::Rename(from, to) => Fop::Rename {
                from: entry(self.inode(from.0), from.1),
                to: entry(self.inode(to.0), to.1),
                xdata: none(),
            },
            Step::Write(file, byte) => Fop::Write {
                file: File { gfid: self.inode(*file), fd: None },
                offset: u64::from(*byte),
                data: Payload::copy_from_slice(&[*byte; 5]),
                flags: 0,
                xdata: none(),
            },
            Step::Chmod(inode, mode) => Fop::Setattr {
                gfid: self.inode(*inode),
                iatt: Box::new(ladrillo_translator::Iatt { mode: *mode, ..Default::default() }),
                valid: ladrillo_translator::iatt::SetattrValid(ladrillo_translator::iatt::SetattrValid::MODE),
                xdata: none(),
            },
            Step::Lookup(parent, name) => {
                Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry(self.inode(*parent), *name)), xdata: none() }
            }
            Step::List(inode) => {
                let gfid = self.inode(*inode);
                let expected = self.model_names(gfid).await;
                match self.clients[usize::from(second)].list(gfid, 400).await {
                    Ok(entries) => {
                        let mut names: Vec<String> =
                            entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
                        names.sort();
                        assert_eq!(Ok(names), expected);
                    }
                    Err(error) => {
                        assert!(expected.is_err(), "{error}");
                        if self.parents_are_directories(step) {
                            assert_same(&Err(error), &expected.map(|_| Reply::done()).map_err(wrap), step);
                        }
                    }
                }
                return;
            }
            Step::Blink(brick) => {
                for client in &self.clients {
                    client.wires[*brick].cut();
                    client.wires[*brick].mend();
                }
                return;
            }
        };
        let parents_are_directories = self.parents_are_directories(step);
        let (seen, modelled) = self.both(second, fop).await;
        // A directory into itself: kernels check it before all else.
        let is_loop = matches!(&modelled, Err(error) if error.errno == errno::EINVAL);
        match parents_are_directories && !is_loop {
            true => assert_same(&seen, &modelled, step),
            false => assert_eq!(seen.is_ok(), modelled.is_ok(), "{step:?}: {seen:?} / {modelled:?}"),
        }
        if modelled.is_ok() && matches!(step, Step::Mkdir(..) | Step::File(..) | Step::Symlink(..)) {
            self.inodes.push(new);
        }
        if let (Ok(Reply::Lookup { iatt: a, .. }), Ok(Reply::Lookup { iatt: b, .. })) = (&seen, &modelled) {
            let nlink = |iatt: &ladrillo_translator::Iatt| if iatt.is_dir() { 0 } else { iatt.nlink };
            assert_eq!((a.gfid, a.mode, nlink(a)), (b.gfid, b.mode, nlink(b)), "{step:?}");
        }
    }

    async fn model_names(&self, gfid: Gfid) -> Result<Vec<String>, i32> {
        let file = File { gfid, fd: None };
        let fop = Fop::Readdir { file, offset: 0, size_bytes: 1 << 20, xdata: Dict::new() };
        match self.model.submit(&Context::root(), fop).await {
            Ok(Reply::Entries { entries, .. }) => {
                let mut names: Vec<String> =
                    entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
                names.sort();
                Ok(names)
            }
            Ok(reply) => panic!("{reply:?}"),
            Err(error) => Err(error.errno),
        }
    }

    /// What the bricks hold together, linkto files aside, against the model.
    fn compare_trees(&self) {
        let mut merged: BTreeMap<String, (usize, Seen)> = BTreeMap::new();
        for (brick, disk) in self.bricks.disks.iter().enumerate() {
            for (path, node) in disk.snapshot().nodes {
                let path = String::from_utf8_lossy(&path).into_owned();
                if node.xattrs.contains_key(&b"trusted.glusterfs.dht.linkto"[..]) {
                    continue;
                }
                let seen = (node.gfid, node.mode, node.data.to_vec());
                let is_dir = node.mode & 0o170000 == 0o040000;
                match merged.insert(path.clone(), (brick, seen.clone())) {
                    Some((first, other)) => {
                        let same_set = first / self.copies == brick / self.copies;
                        assert!(is_dir || same_set, "{path} is on brick {brick} and on {first}");
                        assert_eq!(other, seen, "{path}");
                    }
                    None => assert!(is_dir || brick % self.copies == 0, "{path} is on brick {brick} alone"),
                }
            }
        }
        let expected: BTreeMap<String, Seen> = self
            .model
            .snapshot()
            .nodes
            .into_iter()
            .map(|(path, node)| {
                (String::from_utf8_lossy(&path).into_owned(), (node.gfid, node.mode, node.data.to_vec()))
            })
            .collect();
        let merged: BTreeMap<String, Seen> = merged.into_iter().map(|(path, (_, seen))| (path, seen)).collect();
        assert_eq!(merged, expected);
    }
}

fn wrap(errno: i32) -> ladrillo_translator::FopError {
    ladrillo_translator::FopError::new(errno, "the model's")
}

fn assert_same(seen: &FopResult, modelled: &FopResult, step: &Step) {
    let errno = |outcome: &FopResult| outcome.as_ref().err().map_or(0, |error| error.errno);
    // A handle that is gone is ESTALE or ENOENT, as the lookup that finds out says it.
    let fold = |errno: i32| if errno == errno::ESTALE { errno::ENOENT } else { errno };
    assert_eq!(fold(errno(seen)), fold(errno(modelled)), "{step:?}: {seen:?} / {modelled:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(150), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_clients_see_one_file_system(steps in steps()) {
        run(compare(steps, bricks(3), 1, |bricks| volume(bricks, Options::new())));
    }

    #[test]
    fn two_clients_of_replica_sets_see_one_file_system(steps in steps()) {
        run(compare(steps, bricks(6), 3, |bricks| replicated(bricks, Options::new())));
    }
}

async fn compare(steps: Vec<(bool, Step)>, bricks: Bricks, copies: usize, client: fn(&Bricks) -> Volume) {
    let model = Memory::new("model", bricks.runtime());
    let clients = [client(&bricks), client(&bricks)];
    for client in &clients {
        client.root().await;
    }
    let mut worlds = Worlds { copies, bricks, clients, model, inodes: vec![Gfid::ROOT] };
    for (second, step) in &steps {
        worlds.step(*second, step).await;
    }
    pass(std::time::Duration::from_secs(3)).await;
    worlds.compare_trees();
    assert_eq!(locks_left(&worlds.bricks), 0, "locks are left");
}
