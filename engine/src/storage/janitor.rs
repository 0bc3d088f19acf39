//! Empties `.glusterfs/landfill`, where directories that heal removed as they were wait to be taken apart.

use std::os::fd::OwnedFd;

use ladrillo_translator::{FileType, FopResult, Gfid};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::brick::{Brick, kind_of};
use super::handle::{directory_link, gfid2path, handle_path};
use super::inode::GFID_KEY;
use super::sys::{self, Explain};

/// Deepest directory taken apart: what lies deeper is moved up into `landfill` first, and comes next time.
const MAX_DEPTH: usize = 64;

impl Brick {
    /// Takes apart what lies in `landfill`; returns how many entries went. Handles that lead into it go too, but not
    /// those of inodes that live on elsewhere in the brick.
    ///
    /// # Errors
    /// `landfill` itself cannot be read; what cannot be removed in it is logged and left.
    pub fn clean_landfill(&self, stop: &dyn Fn() -> bool) -> FopResult<usize> {
        let landfill = open_directory(&self.hidden, b"landfill").explain(|| "opening landfill".to_owned())?;
        let mut removed = 0;
        self.clean(&landfill, &landfill, Gfid::NULL, 0, &mut removed, stop);
        Ok(removed)
    }

    fn clean(
        &self,
        landfill: &OwnedFd,
        directory: &OwnedFd,
        gfid: Gfid,
        depth: usize,
        removed: &mut usize,
        stop: &dyn Fn() -> bool,
    ) {
        let Ok(entries) = rustix::fs::Dir::read_from(directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if stop() {
                return;
            }
            match self.clean_entry(landfill, directory, gfid, name, depth, removed, stop) {
                Ok(()) => *removed += 1,
                Err(e) => tracing::debug!(name = %String::from_utf8_lossy(name), error = %e, "left in landfill"),
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // a recursion's state
    fn clean_entry(
        &self,
        landfill: &OwnedFd,
        directory: &OwnedFd,
        parent: Gfid,
        name: &[u8],
        depth: usize,
        removed: &mut usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Errno> {
        let fd = sys::open_path(directory, name)?;
        let stat = sys::fstat(&fd)?;
        let kind = kind_of(&stat).map_err(|_| Errno::IO)?;
        let gfid = sys::get_xattr_array::<16>(&fd, GFID_KEY.as_bytes())?.map(Gfid);
        if kind != FileType::Directory {
            let _names_stay = gfid.map(|gfid| self.entry_locks.inode(gfid));
            let stat = sys::fstat(&fd)?;
            if let Some(gfid) = gfid
                && stat.st_nlink <= 2
            {
                // This name and the handle are all there is.
                let path = handle_path(gfid);
                let handle = rustix::fs::statat(&self.hidden, path.as_str(), AtFlags::SYMLINK_NOFOLLOW);
                if handle.is_ok_and(|h| (h.st_ino, h.st_dev) == (stat.st_ino, stat.st_dev)) {
                    let _ = self.remove_handle(gfid);
                }
                if let Some(known) = self.inodes.get(gfid)
                    && sys::fstat(&known.path).is_ok_and(|s| s.st_ino == stat.st_ino)
                {
                    self.inodes.remove(&known);
                }
            }
            if !parent.is_null() && stat.st_nlink > 2 {
                // The name is no longer one of the inode's, unless the same directory was made anew and has it again.
                let mut live = handle_path(parent).into_bytes();
                live.push(b'/');
                live.extend_from_slice(name);
                let live = rustix::fs::statat(&self.hidden, &live[..], AtFlags::SYMLINK_NOFOLLOW);
                if !live.is_ok_and(|s| (s.st_ino, s.st_dev) == (stat.st_ino, stat.st_dev)) {
                    let _ = sys::remove_xattr(&fd, gfid2path(parent, name).0.as_bytes());
                }
            }
            return rustix::fs::unlinkat(directory, name, AtFlags::empty());
        }
        if depth >= MAX_DEPTH {
            return rustix::fs::renameat(directory, name, landfill, Gfid::random().to_string());
        }
        let inner = open_directory(directory, name)?;
        self.clean(landfill, &inner, gfid.unwrap_or_default(), depth + 1, removed, stop);
        if let Some(gfid) = gfid
            && !parent.is_null()
        {
            let _handle_stays = self.entry_locks.inode(gfid);
            let handle = rustix::fs::readlinkat(&self.hidden, handle_path(gfid).as_str(), Vec::new());
            if handle.is_ok_and(|link| link.as_bytes() == directory_link(parent, name)) {
                // The same directory may have been made anew under the same parent: then the handle leads there. The
                // kernel follows it, as what we remember of it may be this one. A chain too long for it is left.
                let leads_to = rustix::fs::statat(&self.hidden, handle_path(gfid).as_str(), AtFlags::empty());
                match leads_to {
                    Ok(s) if (s.st_ino, s.st_dev) != (stat.st_ino, stat.st_dev) => {}
                    Err(e) if e != Errno::NOENT => {}
                    _ => drop(self.remove_handle(gfid)),
                }
            }
            if let Some(known) = self.inodes.get(gfid)
                && sys::fstat(&known.path).is_ok_and(|s| s.st_ino == stat.st_ino)
            {
                self.inodes.remove(&known);
            }
        }
        rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
    }
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}
