//! The same without futures: every call waits for its end.
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! use ladrillo_fuse_client::api::blocking::Volume;
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let volume = Volume::open("server1", "gv0")?;
//! let mut file = volume.create_file("/greeting")?;
//! file.write_all(b"hello")?;
//! file.close()?;
//! let mut text = String::new();
//! volume.open_file("/greeting")?.read_to_string(&mut text)?;
//! volume.close()?;
//! # Ok(())
//! # }
//! ```

use std::future::Future;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;

use super::{DirEntry, Error, Identity, LockKind, LockRange, Metadata, OpenOptions, Result, Space, VolumeBuilder};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

/// Waits for a future of this library on the calling thread.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// An open volume, see [`super::Volume`].
#[derive(Clone)]
pub struct Volume {
    volume: super::Volume,
}

/// The calls of [`super::Volume`] of the same names.
#[allow(missing_docs, clippy::missing_errors_doc)] // each is that of super::Volume
impl Volume {
    pub fn open(server: &str, volume: &str) -> Result<Volume> {
        Ok(Volume { volume: wait(super::Volume::open(server, volume))? })
    }

    pub fn open_with_builder(builder: VolumeBuilder) -> Result<Volume> {
        Ok(Volume { volume: wait(builder.open())? })
    }

    pub fn with_identity(&self, identity: Identity) -> Volume {
        Volume { volume: self.volume.with_identity(identity) }
    }

    /// The one with futures.
    pub fn as_async(&self) -> &super::Volume {
        &self.volume
    }

    pub fn close(&self) -> Result<()> {
        wait(self.volume.close())
    }

    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        wait(self.volume.metadata(path))
    }

    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        wait(self.volume.symlink_metadata(path))
    }

    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        wait(self.volume.exists(path))
    }

    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        Ok(File::new(wait(self.volume.open_file(path))?))
    }

    pub fn create_file(&self, path: impl AsRef<Path>) -> Result<File> {
        Ok(File::new(wait(self.volume.create_file(path))?))
    }

    pub fn open_with(&self, path: impl AsRef<Path>, options: &OpenOptions) -> Result<File> {
        Ok(File::new(wait(self.volume.open_with(path, options))?))
    }

    pub fn read(&self, path: impl AsRef<Path>, limit_bytes: usize) -> Result<Vec<u8>> {
        wait(self.volume.read(path, limit_bytes))
    }

    pub fn write(&self, path: impl AsRef<Path>, content: impl Into<Bytes>) -> Result<()> {
        wait(self.volume.write(path, content))
    }

    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<ReadDir> {
        Ok(ReadDir { entries: wait(self.volume.read_dir(path))?, ended: false })
    }

    pub fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        wait(self.volume.create_dir(path, mode))
    }

    pub fn create_dir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        wait(self.volume.create_dir_all(path, mode))
    }

    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        wait(self.volume.symlink(target, path))
    }

    pub fn hard_link(&self, existing: impl AsRef<Path>, new: impl AsRef<Path>) -> Result<()> {
        wait(self.volume.hard_link(existing, new))
    }

    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        wait(self.volume.read_link(path))
    }

    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<()> {
        wait(self.volume.remove_file(path))
    }

    pub fn remove_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        wait(self.volume.remove_dir(path))
    }

    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        wait(self.volume.rename(from, to))
    }

    pub fn truncate(&self, path: impl AsRef<Path>, size_bytes: u64) -> Result<()> {
        wait(self.volume.truncate(path, size_bytes))
    }

    pub fn set_permissions(&self, path: impl AsRef<Path>, permissions: u32) -> Result<()> {
        wait(self.volume.set_permissions(path, permissions))
    }

    pub fn space(&self) -> Result<Space> {
        wait(self.volume.space())
    }

    pub fn xattr(&self, path: impl AsRef<Path>, name: &str) -> Result<Option<Bytes>> {
        wait(self.volume.xattr(path, name))
    }

    pub fn set_xattr(&self, path: impl AsRef<Path>, name: &str, value: impl Into<Bytes>) -> Result<()> {
        wait(self.volume.set_xattr(path, name, value))
    }
}

/// A directory that is being listed, see [`super::ReadDir`].
pub struct ReadDir {
    entries: super::ReadDir,
    ended: bool,
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry>;

    /// The next entry; nothing after an error.
    fn next(&mut self) -> Option<Result<DirEntry>> {
        if self.ended {
            return None;
        }
        let next = wait(self.entries.next_entry()).transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// An open file with a position, see [`super::File`].
pub struct File {
    file: super::File,
    position: u64,
}

impl File {
    fn new(file: super::File) -> File {
        File { file, position: 0 }
    }

    /// The one with futures.
    pub fn as_async(&self) -> &super::File {
        &self.file
    }

    /// See [`super::File::metadata`].
    ///
    /// # Errors
    /// As there.
    pub fn metadata(&self) -> Result<Metadata> {
        wait(self.file.metadata())
    }

    /// See [`super::File::sync_all`].
    ///
    /// # Errors
    /// As there.
    pub fn sync_all(&self) -> Result<()> {
        wait(self.file.sync_all())
    }

    /// See [`super::File::set_len`].
    ///
    /// # Errors
    /// As there.
    pub fn set_len(&self, size_bytes: u64) -> Result<()> {
        wait(self.file.set_len(size_bytes))
    }

    /// See [`super::File::lock`].
    ///
    /// # Errors
    /// As there.
    pub fn lock(&self, kind: LockKind, range: LockRange) -> Result<()> {
        wait(self.file.lock(kind, range))
    }

    /// See [`super::File::unlock`].
    ///
    /// # Errors
    /// As there.
    pub fn unlock(&self, range: LockRange) -> Result<()> {
        wait(self.file.unlock(range))
    }

    /// See [`super::File::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(self) -> Result<()> {
        wait(self.file.close())
    }
}

impl io::Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let data = wait(self.file.read_at(self.position, buffer.len()))?;
        for (to, from) in buffer.iter_mut().zip(&data) {
            *to = *from;
        }
        self.position += data.len() as u64;
        Ok(data.len())
    }
}

impl io::Write for File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // The borrowed slice must outlive this call: the bricks may still be reading it then.
        let some = data.get(..data.len().min(1 << 20)).unwrap_or_default();
        let written = wait(self.file.write_at(self.position, Bytes::copy_from_slice(some)))?;
        self.position += written as u64;
        Ok(written)
    }

    /// Nothing is kept back here; see [`File::sync_all`] for durability.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let bad = || Error::new(libc::EINVAL, format!("seek to {to:?}"));
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.metadata()?.len().checked_add_signed(by),
        };
        self.position = position.filter(|position| i64::try_from(*position).is_ok()).ok_or_else(bad)?;
        Ok(self.position)
    }
}
