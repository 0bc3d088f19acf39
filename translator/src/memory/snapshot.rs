//! What a brick holds, in a form that compares: how copies are checked against each other and against a model.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::index::MARKS;
use super::state::{Content, State};
use crate::Gfid;

/// One name of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Identity.
    pub gfid: Gfid,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names.
    pub nlink: u32,
    /// Device number.
    pub rdev: u64,
    /// A file's data or a symlink's target.
    pub data: Bytes,
    /// Extended attributes but for AFR's marks.
    pub xattrs: BTreeMap<Bytes, Bytes>,
}

/// A brick's tree by path, without AFR's marks and times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Path (`/` is the root) to what is there.
    pub nodes: BTreeMap<Bytes, Node>,
}

/// AFR's marks that are not zero: (inode, xattr, value).
pub type Marks = Vec<(Gfid, Bytes, Bytes)>;

impl Snapshot {
    pub(super) fn of(state: &State) -> Snapshot {
        let mut nodes = BTreeMap::new();
        let mut left = vec![(Bytes::from_static(b"/"), Gfid::ROOT)];
        while let Some((path, gfid)) = left.pop() {
            let Some(inode) = state.inodes.get(&gfid) else { continue };
            let data = match &inode.content {
                Content::File { data, .. } => Bytes::copy_from_slice(data),
                Content::Symlink(target) => target.clone(),
                Content::Special => Bytes::new(),
                Content::Directory(directory) => {
                    for (name, (_, child)) in &directory.names {
                        let mut below = path.to_vec();
                        if !below.ends_with(b"/") {
                            below.push(b'/');
                        }
                        below.extend_from_slice(name);
                        left.push((below.into(), *child));
                    }
                    Bytes::new()
                }
            };
            let xattrs = inode
                .xattrs
                .iter()
                .filter(|(key, _)| !key.starts_with(MARKS))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            let node = Node {
                gfid,
                mode: inode.mode,
                uid: inode.uid,
                gid: inode.gid,
                nlink: inode.nlink,
                rdev: inode.rdev,
                data,
                xattrs,
            };
            nodes.insert(path, node);
        }
        Snapshot { nodes }
    }

    /// How two bricks differ, a line for each path; empty when they hold the same.
    pub fn differences(&self, other: &Snapshot) -> Vec<String> {
        let paths: std::collections::BTreeSet<&Bytes> = self.nodes.keys().chain(other.nodes.keys()).collect();
        let mut lines = Vec::new();
        for path in paths {
            let shown = String::from_utf8_lossy(path);
            match (self.nodes.get(path), other.nodes.get(path)) {
                (Some(one), Some(two)) if one != two => lines.push(format!("{shown}: {one} / {two}")),
                (Some(one), None) => lines.push(format!("{shown}: {one} / absent")),
                (None, Some(two)) => lines.push(format!("{shown}: absent / {two}")),
                _ => {}
            }
        }
        lines
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sum = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.data.iter() {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        write!(
            f,
            "{} mode {:o} owner {}:{} nlink {} {} bytes #{:08x}",
            self.gfid,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.data.len(),
            sum as u32
        )?;
        for (key, value) in &self.xattrs {
            write!(f, " {}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))?;
        }
        Ok(())
    }
}
