//! From paths to inodes, name by name, on the volume's thread.

use std::collections::VecDeque;

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Dict, FileType, Fop, FopError, FopResult, Gfid, Iatt, Reply, Value};

use super::error::unexpected;
use super::worker::Local;

/// How often a path that is stale is looked up again.
const STALE_ATTEMPTS: u32 = 2;
/// Longest path in bytes, Linux's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;
/// Longest name in bytes, Linux's NAME_MAX.
const MAX_NAME_BYTES: usize = 255;
/// Most symlinks followed on one path, as Linux.
const MAX_LINKS: usize = 40;
/// ELOOP on Linux.
const ELOOP: i32 = 40;

/// A path's names.
pub(super) type Names = VecDeque<Bytes>;

/// What a path leads to.
pub(super) enum Found {
    /// This inode.
    Inode(Box<Iatt>),
    /// Nothing, but its directory is there.
    Missing(Entry),
}

/// The names of a path, empty ones and `.` left out.
///
/// # Errors
/// ENAMETOOLONG; EINVAL for a NUL; ENOENT for the empty path.
pub(super) fn names(path: &[u8]) -> FopResult<Names> {
    let long = |what: &str| FopError::new(errno::ENAMETOOLONG, format!("a {what} of {} bytes", path.len()));
    if path.is_empty() {
        return Err(FopError::new(errno::ENOENT, "the path is empty"));
    }
    if path.len() >= MAX_PATH_BYTES {
        return Err(long("path"));
    }
    if path.contains(&0) {
        return Err(FopError::new(errno::EINVAL, "the path has a NUL in it"));
    }
    let names: Names =
        path.split(|b| *b == b'/').filter(|n| !matches!(*n, b"" | b".")).map(Bytes::copy_from_slice).collect();
    match names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
        true => Err(long("name in a path")),
        false => Ok(names),
    }
}

impl Local {
    /// The inode of a path; of the symlink itself where the last name is one and `follow` is not set.
    pub(super) async fn inode(&self, names: Names, follow: bool) -> FopResult<Box<Iatt>> {
        match self.find(names, follow).await? {
            Found::Inode(iatt) => Ok(iatt),
            Found::Missing(entry) => {
                Err(FopError::new(errno::ENOENT, format!("{} is not there", entry.name.escape_ascii())))
            }
        }
    }

    /// The directory and the last name of a path. EINVAL where it has no last name (the root, `..`).
    pub(super) async fn entry(&self, mut names: Names) -> FopResult<Entry> {
        let no_name = || FopError::new(errno::EINVAL, "the path does not end with a name");
        let name = names.pop_back().filter(|name| name != "..").ok_or_else(no_name)?;
        let parent = self.inode(names, true).await?;
        if !parent.is_dir() {
            return Err(FopError::new(errno::ENOTDIR, "the path goes through what is no directory"));
        }
        Ok(Entry { parent: parent.gfid, name })
    }

    /// What a path leads to. A directory that is stale half way (the graph has changed, and the new one does not know it by
    /// its gfid yet) is looked up from the root again, as kernels do.
    pub(super) async fn find(&self, names: Names, follow: bool) -> FopResult<Found> {
        for _ in 0..STALE_ATTEMPTS {
            match self.find_once(names.clone(), follow).await {
                Err(error) if error.errno == errno::ESTALE => {}
                outcome => return outcome,
            }
        }
        self.find_once(names, follow).await
    }

    async fn find_once(&self, mut names: Names, follow: bool) -> FopResult<Found> {
        // The directories passed, below the root.
        let mut passed: Vec<Box<Iatt>> = Vec::new();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                passed.pop();
                continue;
            }
            let parent = passed.last().map_or(Gfid::ROOT, |directory| directory.gfid);
            let last = names.is_empty();
            let entry = Entry { parent, name };
            let iatt = match self.lookup(entry.clone()).await {
                Err(error) if error.errno == errno::ENOENT && last => return Ok(Found::Missing(entry)),
                result => result?,
            };
            match iatt.file_type() {
                Some(FileType::Symlink) if follow || !last => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(FopError::new(ELOOP, "too many symlinks on the path"));
                    }
                    let target = self.read_link(iatt.gfid).await?;
                    if target.starts_with(b"/") {
                        passed.clear();
                    }
                    for name in self::names(&target)?.into_iter().rev() {
                        names.push_front(name);
                    }
                    if names.len() > MAX_PATH_BYTES {
                        return Err(FopError::new(errno::ENAMETOOLONG, "symlinks make the path too long"));
                    }
                }
                Some(FileType::Directory) => passed.push(iatt),
                _ if last => return Ok(Found::Inode(iatt)),
                _ => return Err(FopError::new(errno::ENOTDIR, "the path goes through what is no directory")),
            }
        }
        match passed.pop() {
            Some(directory) => Ok(Found::Inode(directory)),
            None => Ok(Found::Inode(self.root().await?)),
        }
    }

    async fn root(&self) -> FopResult<Box<Iatt>> {
        self.looked_up(Fop::Lookup { gfid: Gfid::ROOT, entry: None, xdata: Dict::new() }).await
    }

    async fn lookup(&self, entry: Entry) -> FopResult<Box<Iatt>> {
        // Where a brick finds a file without a gfid (put there behind our back), it gives it this one.
        let xdata = Dict::new().with("gfid-req", Value::Gfid(Gfid::random()));
        self.looked_up(Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry), xdata }).await
    }

    async fn looked_up(&self, fop: Fop) -> FopResult<Box<Iatt>> {
        match self.submit(fop).await? {
            Reply::Lookup { iatt, .. } if !iatt.gfid.is_null() && iatt.file_type().is_some() => Ok(iatt),
            reply => Err(unexpected(&reply)),
        }
    }

    /// A symlink's target.
    pub(super) async fn read_link(&self, gfid: Gfid) -> FopResult<Bytes> {
        match self.submit(Fop::Readlink { gfid, size_bytes: MAX_PATH_BYTES as u32, xdata: Dict::new() }).await? {
            Reply::Readlink { target, .. } => Ok(target),
            reply => Err(unexpected(&reply)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_names() {
        let of = |path: &str| names(path.as_bytes()).map(|n| n.into_iter().collect::<Vec<_>>());
        assert_eq!(of("/a//b/./c/").unwrap(), ["a", "b", "c"]);
        assert_eq!(of("a/../b").unwrap(), ["a", "..", "b"]);
        assert!(of("/").unwrap().is_empty());
        assert_eq!(of("").unwrap_err().errno, errno::ENOENT);
        assert_eq!(of("a\0b").unwrap_err().errno, errno::EINVAL);
        assert_eq!(of(&"n".repeat(256)).unwrap_err().errno, errno::ENAMETOOLONG);
        assert_eq!(of(&"n/".repeat(2048)).unwrap_err().errno, errno::ENAMETOOLONG);
        assert!(of(&"n".repeat(255)).is_ok());
    }
}
