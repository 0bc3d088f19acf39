//! Brick directories, compared file by file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// One file of a brick as replication must keep it equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Device numbers of a device node.
    pub device: u64,
    /// Names of the file, its `.glusterfs` handle among them; 0 for directories.
    pub links: u64,
    /// Size in bytes; 0 for directories.
    pub size: u64,
    /// A hash of a regular file's content, or of a symlink's target.
    pub content: u64,
    /// Extended attributes. Change marks (`trusted.afr.*`) that are all zero count as absent.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// A whole brick: paths relative to it, `.glusterfs` apart.
#[derive(Clone, Debug, Default)]
pub struct BrickTree {
    /// Files by path.
    pub entries: BTreeMap<PathBuf, Entry>,
    /// gfid handles below `.glusterfs`.
    pub handles: BTreeSet<PathBuf>,
    /// What is left in the heal index (`indices/*`), base files apart.
    pub index: BTreeSet<PathBuf>,
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut names = vec![0_u8; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return found };
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let mut value = vec![0_u8; 64 << 10];
        let Ok(length) = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]) else { continue };
        value.truncate(length);
        if name.starts_with("trusted.afr.") && value.iter().all(|b| *b == 0) {
            continue;
        }
        found.insert(name, value);
    }
    found
}

fn content(path: &Path, metadata: &Metadata) -> u64 {
    let mut hasher = DefaultHasher::new();
    if metadata.is_symlink() {
        if let Ok(target) = fs::read_link(path) {
            hasher.write(target.as_os_str().as_bytes());
        }
    } else if metadata.is_file()
        && let Ok(mut file) = fs::File::open(path)
    {
        let mut buffer = vec![0_u8; 1 << 20];
        while let Ok(got) = file.read(&mut buffer) {
            if got == 0 {
                break;
            }
            hasher.write(&buffer[..got]);
        }
    }
    hasher.finish()
}

impl BrickTree {
    /// Reads a brick directory.
    pub fn read(root: &Path) -> BrickTree {
        let mut tree = BrickTree::default();
        tree.walk(root, Path::new(""));
        tree
    }

    /// Forgets an attribute of every file.
    pub fn forget_xattr(&mut self, name: &str) {
        for entry in self.entries.values_mut() {
            entry.xattrs.remove(name);
        }
    }

    fn walk(&mut self, root: &Path, below: &Path) {
        let path = root.join(below);
        let Ok(metadata) = fs::symlink_metadata(&path) else { return };
        let kind = metadata.file_type();
        let directory = kind.is_dir();
        let device = if kind.is_block_device() || kind.is_char_device() { metadata.rdev() } else { 0 };
        let entry = Entry {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            device,
            links: if directory { 0 } else { metadata.nlink() },
            size: if directory { 0 } else { metadata.size() },
            content: content(&path, &metadata),
            xattrs: xattrs(&path),
        };
        self.entries.insert(below.to_path_buf(), entry);
        if !directory {
            return;
        }
        for child in names(&path) {
            if below.as_os_str().is_empty() && child == ".glusterfs" {
                self.walk_handles(&path.join(".glusterfs"));
            } else {
                self.walk(root, &below.join(child));
            }
        }
    }

    fn walk_handles(&mut self, root: &Path) {
        self.walk_top(root);
        // What heal has taken away whole waits there for the janitor, with its handles.
        self.forget_handles(&root.join("landfill"));
    }

    fn forget_handles(&mut self, directory: &Path) {
        for name in names(directory) {
            let path = directory.join(name);
            if let Some(gfid) = xattrs(&path).get("trusted.gfid") {
                let hex: String = gfid.iter().map(|b| format!("{b:02x}")).collect();
                if let [Some(a), Some(b), Some(c), Some(d), Some(e)] =
                    [hex.get(..8), hex.get(8..12), hex.get(12..16), hex.get(16..20), hex.get(20..)]
                {
                    let name = format!("{a}-{b}-{c}-{d}-{e}");
                    self.handles.remove(&Path::new(&hex[..2]).join(&hex[2..4]).join(name));
                }
            }
            if path.is_dir() && !path.is_symlink() {
                self.forget_handles(&path);
            }
        }
    }

    fn walk_top(&mut self, root: &Path) {
        for first in names(root) {
            let top = root.join(&first);
            if first.len() == 2 {
                for second in names(&top) {
                    for handle in names(&top.join(&second)) {
                        self.handles.insert(Path::new(&first).join(&second).join(handle));
                    }
                }
            } else if first == "indices" {
                self.walk_index(&top);
            }
        }
    }
}

impl BrickTree {
    /// `xattrop/` and `dirty/` hold a link per file to heal. The names in `entry-changes/` only say where to look when
    /// their directory is in one of those.
    fn walk_index(&mut self, root: &Path) {
        for kind in names(root).into_iter().filter(|kind| kind != "entry-changes") {
            for entry in names(&root.join(&kind)) {
                // xattrop-UUID and the like are the base files that index entries are links of.
                if !entry.as_bytes().starts_with(kind.as_bytes()) {
                    self.index.insert(Path::new(&kind).join(entry));
                }
            }
        }
    }
}

fn names(directory: &Path) -> Vec<OsString> {
    let mut found: Vec<OsString> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    found.sort();
    found
}

impl BrickTree {
    /// Where the inode is that an entry of the index is for, and its marks; `None` where there is no such inode.
    fn marks_of(&self, index_entry: &Path) -> Option<String> {
        let gfid: Vec<u8> = {
            let hex: String = index_entry.file_name()?.to_str()?.chars().filter(|c| *c != '-').collect();
            (0..hex.len()).step_by(2).filter_map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
        };
        let (path, entry) = self.entries.iter().find(|(_, e)| e.xattrs.get("trusted.gfid") == Some(&gfid))?;
        let marks: Vec<_> = entry.xattrs.iter().filter(|(key, _)| key.starts_with("trusted.afr.")).collect();
        Some(format!("{} {marks:x?}", path.display()))
    }
}

/// Every difference between bricks that replication must keep equal, in words; empty when there is none.
pub fn compare_bricks(bricks: &[(String, BrickTree)]) -> Vec<String> {
    let mut differences = Vec::new();
    let Some(((first_name, first), others)) = bricks.split_first() else { return differences };
    for (name, tree) in others {
        let paths: BTreeSet<&PathBuf> = first.entries.keys().chain(tree.entries.keys()).collect();
        for path in paths {
            match (first.entries.get(path), tree.entries.get(path)) {
                (Some(a), Some(b)) if a != b => {
                    differences.push(format!("{}: {first_name} {a:x?}\n  but {name} {b:x?}", path.display()));
                }
                (Some(_), None) => differences.push(format!("{} is missing on {name}", path.display())),
                (None, Some(_)) => differences.push(format!("{} is on {name} only", path.display())),
                _ => {}
            }
        }
        for handle in first.handles.symmetric_difference(&tree.handles) {
            differences.push(format!("handle {} is not on both {first_name} and {name}", handle.display()));
        }
    }
    for (name, tree) in bricks {
        for entry in &tree.index {
            let marked = tree.marks_of(entry).unwrap_or_else(|| "its inode is gone".to_owned());
            differences.push(format!("{name} still has {} in its heal index: {marked}", entry.display()));
        }
        for (path, entry) in &tree.entries {
            let regular = entry.mode & 0o170_000 == 0o100_000;
            if regular && entry.links < 2 {
                differences.push(format!("{}: no handle on {name}", path.display()));
            }
            for mark in entry.xattrs.keys().filter(|x| x.starts_with("trusted.afr.")) {
                differences.push(format!("{}: {mark} is still set on {name}", path.display()));
            }
            if !entry.xattrs.contains_key("trusted.gfid") {
                differences.push(format!("{}: no trusted.gfid on {name}", path.display()));
            }
        }
    }
    differences
}
