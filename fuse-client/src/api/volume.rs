//! An open volume: everything that is done by path.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Dict, Fop, FopError, FopResult, Gfid, Iatt, Reply, Value};
use ladrillo_transport::Address;

use super::directory::ReadDir;
use super::error::{Error, Result, unexpected};
use super::file::{File, OpenOptions};
use super::metadata::{Metadata, Space, timespec};
use super::path::{self, Names};
use super::worker::{self, Local, Plan, Source, Worker};
use crate::front::handle::xattr::{is_hidden, value_bytes};
use crate::process::spec::Servers;

/// Port of the management daemon. Source: IANA, GlusterFS's glusterd.
const GLUSTERD_PORT: u16 = 24007;
/// How long bricks may take to be reached unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// On whose behalf a volume is used: the bricks decide by it who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
}

impl Identity {
    /// This process's effective ids.
    pub fn of_process() -> Identity {
        let groups = rustix::process::getgroups().unwrap_or_default();
        Identity {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(|group| group.as_raw()).collect(),
        }
    }
}

/// How a volume is opened.
pub struct VolumeBuilder {
    name: String,
    servers: Vec<Address>,
    volfile: Option<Bytes>,
    options: Vec<(String, String, String)>,
    subdir: Option<String>,
    patience: Duration,
}

impl VolumeBuilder {
    /// One more server to ask for the volume, glusterd's port unless told otherwise. They are asked in turn.
    pub fn server(mut self, host: impl Into<String>, port: Option<u16>) -> VolumeBuilder {
        self.servers.push(Address::Tcp { host: host.into(), port: port.unwrap_or(GLUSTERD_PORT) });
        self
    }

    /// A management daemon's unix socket.
    pub fn unix_server(mut self, path: impl Into<PathBuf>) -> VolumeBuilder {
        self.servers.push(Address::Unix(path.into()));
        self
    }

    /// The volume's description itself, instead of asking servers for it.
    pub fn volfile(mut self, text: impl Into<Bytes>) -> VolumeBuilder {
        self.volfile = Some(text.into());
        self
    }

    /// Sets an option of the translators whose name matches `pattern` (`*` stands for any text), as
    /// `--xlator-option` does for mounts.
    pub fn option(mut self, pattern: &str, key: &str, value: &str) -> VolumeBuilder {
        self.options.push((pattern.to_owned(), key.to_owned(), value.to_owned()));
        self
    }

    /// A directory of the volume as its root.
    pub fn subdir(mut self, path: impl Into<String>) -> VolumeBuilder {
        self.subdir = Some(path.into());
        self
    }

    /// How long bricks may take to be reached (20 s unless told otherwise).
    pub fn patience(mut self, patience: Duration) -> VolumeBuilder {
        self.patience = patience;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// ENOTCONN: no server, or too few bricks, can be reached, or no server knows the volume. EINVAL: the volume has a
    /// translator that is not there, or the volfile cannot be parsed. ENOSYS, EPERM: no io_uring.
    pub async fn open(self) -> Result<Volume> {
        let source = match self.volfile {
            Some(text) => Source::Text(text),
            None => Source::Servers(Servers::new(self.servers, self.name)),
        };
        let plan = Plan { source, overrides: self.options, subdir: self.subdir, patience: self.patience };
        Ok(Volume { worker: worker::start(plan).await?, identity: Identity::of_process() })
    }
}

/// An open volume. Clones share it; it is closed by [`Volume::close`], or when the last clone and the last of its files
/// and directories are dropped.
#[derive(Clone)]
pub struct Volume {
    pub(super) worker: Arc<Worker>,
    pub(super) identity: Identity,
}

fn names(path: impl AsRef<Path>) -> FopResult<Names> {
    path::names(path.as_ref().as_os_str().as_bytes())
}

fn done(reply: Reply) -> FopResult<()> {
    match reply {
        Reply::Done { .. } | Reply::Entry { .. } | Reply::Removed { .. } | Reply::Rename { .. } => Ok(()),
        Reply::PrePost { .. } => Ok(()),
        reply => Err(unexpected(&reply)),
    }
}

/// xdata of a fop that makes an inode.
pub(super) fn new_inode() -> Dict {
    Dict::new().with("gfid-req", Value::Gfid(Gfid::random()))
}

impl Volume {
    /// Opens `volume` as `server`'s pool has it.
    ///
    /// # Errors
    /// See [`VolumeBuilder::open`].
    pub async fn open(server: &str, volume: &str) -> Result<Volume> {
        Volume::builder(volume).server(server, None).open().await
    }

    /// Says how `volume` is to be opened.
    pub fn builder(volume: impl Into<String>) -> VolumeBuilder {
        VolumeBuilder {
            name: volume.into(),
            servers: Vec::new(),
            volfile: None,
            options: Vec::new(),
            subdir: None,
            patience: PATIENCE,
        }
    }

    /// The same volume on behalf of somebody else. Files that are open keep theirs.
    pub fn with_identity(&self, identity: Identity) -> Volume {
        Volume { worker: self.worker.clone(), identity }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.worker.name
    }

    /// Closes it for all clones: waits until what was written is on the bricks (30 s at most), then disconnects. Open
    /// files fail with ENOTCONN from then on.
    ///
    /// # Errors
    /// ETIMEDOUT: some brick did not take all in time (the others have it, heal does the rest). ENOTCONN: it is closed
    /// already.
    pub async fn close(&self) -> Result<()> {
        match self.worker.close().await? {
            true => Ok(()),
            false => Err(Error::new(errno::ETIMEDOUT, "some bricks did not take all that was written in time")),
        }
    }

    /// What a path leads to, symlinks followed.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, EACCES; ENOTCONN without bricks. All calls by path may fail with these.
    pub async fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.stat(names(path)?, true).await
    }

    /// The same of a symlink itself.
    ///
    /// # Errors
    /// As [`Volume::metadata`].
    pub async fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.stat(names(path)?, false).await
    }

    async fn stat(&self, names: Names, follow: bool) -> Result<Metadata> {
        let found = self.worker.run(&self.identity, move |local| async move { local.inode(names, follow).await });
        Ok(Metadata::new(found.await?))
    }

    /// Whether something is there.
    ///
    /// # Errors
    /// As [`Volume::metadata`], ENOENT excepted.
    pub async fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        match self.metadata(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a file to read it.
    ///
    /// # Errors
    /// As [`Volume::open_with`].
    pub async fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_with(path, OpenOptions::new().read(true)).await
    }

    /// Opens a file to write it, empty: made with permissions 0644 where it is not there.
    ///
    /// # Errors
    /// As [`Volume::open_with`].
    pub async fn create_file(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_with(path, OpenOptions::new().read(true).write(true).truncate(true).create(0o644)).await
    }

    /// Opens a file as told.
    ///
    /// # Errors
    /// Beside those of [`Volume::metadata`]: EEXIST, EISDIR, EACCES, EROFS, EINVAL for options that contradict.
    pub async fn open_with(&self, path: impl AsRef<Path>, options: &OpenOptions) -> Result<File> {
        File::open(self, names(path)?, options).await
    }

    /// All of a file.
    ///
    /// # Errors
    /// As [`Volume::open_with`] and [`File::read_at`]; EFBIG beyond `limit_bytes`.
    pub async fn read(&self, path: impl AsRef<Path>, limit_bytes: usize) -> Result<Vec<u8>> {
        let file = self.open_file(path).await?;
        let mut content = Vec::new();
        loop {
            let more = file.read_at(content.len() as u64, limit_bytes.saturating_add(1) - content.len()).await?;
            if more.is_empty() {
                return Ok(content);
            }
            content.extend_from_slice(&more);
            if content.len() > limit_bytes {
                return Err(Error::new(errno::EFBIG, format!("the file has more than {limit_bytes} bytes")));
            }
        }
    }

    /// Makes a file have this content and no other.
    ///
    /// # Errors
    /// As [`Volume::open_with`], [`File::write_all_at`] and [`File::close`].
    pub async fn write(&self, path: impl AsRef<Path>, content: impl Into<Bytes>) -> Result<()> {
        let file = self.create_file(path).await?;
        file.write_all_at(0, content).await?;
        file.close().await
    }

    /// Opens a directory to list it.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and ENOTDIR.
    pub async fn read_dir(&self, path: impl AsRef<Path>) -> Result<ReadDir> {
        ReadDir::open(self, names(path)?).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Volume::metadata`] of where it is to be, and EEXIST, ENOSPC, EROFS.
    pub async fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let names = names(path)?;
        self.change(move |local| async move {
            let entry = local.entry(names).await?;
            local.submit(Fop::Mkdir { entry, mode: mode & 0o7777, umask: 0, xdata: new_inode() }).await
        })
        .await
    }

    /// Makes a directory and those above it, as far as they are not there.
    ///
    /// # Errors
    /// As [`Volume::create_dir`]; EEXIST only where something else is in the way.
    pub async fn create_dir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        let mut missing = Vec::new();
        for at in path.ancestors().filter(|at| !at.as_os_str().is_empty()) {
            match self.metadata(at).await {
                Ok(found) if found.is_dir() => break,
                Ok(_) => return Err(Error::new(errno::EEXIST, format!("{} is no directory", at.display()))),
                Err(error) if error.is_not_found() => missing.push(at),
                Err(error) => return Err(error),
            }
        }
        for at in missing.into_iter().rev() {
            match self.create_dir(at, mode).await {
                Err(error) if error.errno() == errno::EEXIST => {} // somebody else was quicker
                result => result?,
            }
        }
        Ok(())
    }

    /// Makes a device node, fifo or socket: `mode` with its type bits.
    ///
    /// # Errors
    /// As [`Volume::create_dir`], and EPERM.
    pub async fn make_node(&self, path: impl AsRef<Path>, mode: u32, rdev: u64) -> Result<()> {
        let names = names(path)?;
        self.change(move |local| async move {
            let entry = local.entry(names).await?;
            local.submit(Fop::Mknod { entry, mode, rdev, umask: 0, xdata: new_inode() }).await
        })
        .await
    }

    /// Makes a symlink at `path` that says `target`.
    ///
    /// # Errors
    /// As [`Volume::create_dir`].
    pub async fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let (names, target) = (names(path)?, Bytes::copy_from_slice(target.as_ref().as_os_str().as_bytes()));
        self.change(move |local| async move {
            let entry = local.entry(names).await?;
            local.submit(Fop::Symlink { entry, target, umask: 0, xdata: new_inode() }).await
        })
        .await
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// As [`Volume::create_dir`], and EMLINK, EPERM for directories.
    pub async fn hard_link(&self, existing: impl AsRef<Path>, new: impl AsRef<Path>) -> Result<()> {
        let (existing, new) = (names(existing)?, names(new)?);
        self.change(move |local| async move {
            let gfid = local.inode(existing, false).await?.gfid;
            let entry = local.entry(new).await?;
            local.submit(Fop::Link { gfid, entry, xdata: Dict::new() }).await
        })
        .await
    }

    /// What a symlink says.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and EINVAL for what is no symlink.
    pub async fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let names = names(path)?;
        let target = self.worker.run(&self.identity, move |local| async move {
            let iatt = local.inode(names, false).await?;
            match iatt.file_type() {
                Some(ladrillo_translator::FileType::Symlink) => local.read_link(iatt.gfid).await,
                _ => Err(FopError::new(errno::EINVAL, "no symlink")),
            }
        });
        Ok(OsString::from_vec(target.await?.to_vec()).into())
    }

    /// Removes a name of what is no directory.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and EISDIR, EROFS.
    pub async fn remove_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let names = names(path)?;
        self.change(move |local| async move {
            let entry = local.entry(names).await?;
            local.submit(Fop::Unlink { entry, flags: 0, xdata: Dict::new() }).await
        })
        .await
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and ENOTEMPTY, EROFS.
    pub async fn remove_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        let names = names(path)?;
        self.change(move |local| async move {
            let entry = local.entry(names).await?;
            local.submit(Fop::Rmdir { entry, flags: 0, xdata: Dict::new() }).await
        })
        .await
    }

    /// Renames, replacing what has the new name.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and EISDIR, ENOTDIR, ENOTEMPTY, EINVAL (a directory into itself), EROFS.
    pub async fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let (from, to) = (names(from)?, names(to)?);
        self.change(move |local| async move {
            let (from, to) = (local.entry(from).await?, local.entry(to).await?);
            local.submit(Fop::Rename { from, to, xdata: Dict::new() }).await
        })
        .await
    }

    /// Cuts or extends a file.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and EISDIR, EROFS, EFBIG.
    pub async fn truncate(&self, path: impl AsRef<Path>, size_bytes: u64) -> Result<()> {
        let names = names(path)?;
        self.change(move |local| async move {
            let gfid = local.inode(names, true).await?.gfid;
            local.submit(Fop::Truncate { gfid, size_bytes, xdata: Dict::new() }).await
        })
        .await
    }

    /// Sets permission bits.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and EPERM, EROFS.
    pub async fn set_permissions(&self, path: impl AsRef<Path>, permissions: u32) -> Result<()> {
        let iatt = Iatt { mode: permissions & 0o7777, ..Iatt::default() };
        self.set(names(path)?, true, iatt, SetattrValid::MODE).await
    }

    /// Sets owner, group, or both; of a symlink itself.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and EPERM, EROFS.
    pub async fn set_owner(&self, path: impl AsRef<Path>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let valid = uid.map_or(0, |_| SetattrValid::UID) | gid.map_or(0, |_| SetattrValid::GID);
        let iatt = Iatt { uid: uid.unwrap_or(0), gid: gid.unwrap_or(0), ..Iatt::default() };
        self.set(names(path)?, false, iatt, valid).await
    }

    /// Sets the times of last access and of last change; of a symlink itself.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and EPERM, EROFS.
    pub async fn set_times(
        &self,
        path: impl AsRef<Path>,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<()> {
        let valid = accessed.map_or(0, |_| SetattrValid::ATIME) | modified.map_or(0, |_| SetattrValid::MTIME);
        let time = |time: Option<SystemTime>| time.map(timespec).unwrap_or_default();
        let iatt = Iatt { atime: time(accessed), mtime: time(modified), ..Iatt::default() };
        self.set(names(path)?, false, iatt, valid).await
    }

    async fn set(&self, names: Names, follow: bool, iatt: Iatt, valid: u32) -> Result<()> {
        self.change(move |local| async move {
            let gfid = local.inode(names, follow).await?.gfid;
            let iatt = Box::new(Iatt { gfid, ..iatt });
            local.submit(Fop::Setattr { gfid, iatt, valid: SetattrValid(valid), xdata: Dict::new() }).await
        })
        .await
    }

    /// Whether this identity may do all of `mask` (4 read, 2 write, 1 execute; 0: whether it is there), as access(2).
    ///
    /// # Errors
    /// As [`Volume::metadata`]; EACCES: it may not.
    pub async fn access(&self, path: impl AsRef<Path>, mask: u32) -> Result<()> {
        let names = names(path)?;
        let asked = self.worker.run(&self.identity, move |local| async move {
            let gfid = local.inode(names, true).await?.gfid;
            done(local.submit(Fop::Access { gfid, mask, xdata: Dict::new() }).await?)
        });
        asked.await
    }

    /// The volume's space.
    ///
    /// # Errors
    /// ENOTCONN.
    pub async fn space(&self) -> Result<Space> {
        let asked = self.worker.run(&self.identity, |local| async move {
            match local.submit(Fop::Statfs { gfid: Gfid::ROOT, xdata: Dict::new() }).await? {
                Reply::Statfs { statfs, .. } => Ok(statfs),
                reply => Err(unexpected(&reply)),
            }
        });
        Ok(asked.await?.into())
    }

    /// The value of an extended attribute; `None` where there is none of that name.
    ///
    /// # Errors
    /// As [`Volume::metadata`].
    pub async fn xattr(&self, path: impl AsRef<Path>, name: &str) -> Result<Option<Bytes>> {
        let (names, name) = (names(path)?, Bytes::copy_from_slice(name.as_bytes()));
        let asked = self.worker.run(&self.identity, move |local| async move {
            let gfid = local.inode(names, true).await?.gfid;
            match local.submit(Fop::Getxattr { gfid, name: name.clone(), xdata: Dict::new() }).await {
                Ok(Reply::Xattrs { xattrs, .. }) => Ok(xattrs.get(&name).map(value_bytes)),
                Ok(reply) => Err(unexpected(&reply)),
                Err(error) if error.errno == errno::ENODATA => Ok(None),
                Err(error) => Err(error),
            }
        });
        asked.await
    }

    /// Names of all extended attributes, GlusterFS's own left out.
    ///
    /// # Errors
    /// As [`Volume::metadata`].
    pub async fn xattrs(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>> {
        let names = names(path)?;
        let asked = self.worker.run(&self.identity, move |local| async move {
            let gfid = local.inode(names, true).await?.gfid;
            match local.submit(Fop::Getxattr { gfid, name: Bytes::new(), xdata: Dict::new() }).await? {
                Reply::Xattrs { xattrs, .. } => {
                    let seen = xattrs.iter().map(|(name, _)| name).filter(|name| !name.is_empty() && !is_hidden(name));
                    Ok(seen.map(|name| OsString::from_vec(name.to_vec())).collect())
                }
                reply => Err(unexpected(&reply)),
            }
        });
        asked.await
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and EPERM, EOPNOTSUPP (no such namespace), ENOSPC, ERANGE, EROFS.
    pub async fn set_xattr(&self, path: impl AsRef<Path>, name: &str, value: impl Into<Bytes>) -> Result<()> {
        let names = names(path)?;
        let xattrs = Dict::new().with(name.to_owned(), Value::Ptr(value.into()));
        self.change(move |local| async move {
            let gfid = local.inode(names, true).await?.gfid;
            local.submit(Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() }).await
        })
        .await
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As [`Volume::metadata`], and ENODATA, EPERM, EROFS.
    pub async fn remove_xattr(&self, path: impl AsRef<Path>, name: &str) -> Result<()> {
        let (names, name) = (names(path)?, Bytes::copy_from_slice(name.as_bytes()));
        self.change(move |local| async move {
            let gfid = local.inode(names, true).await?.gfid;
            local.submit(Fop::Removexattr { gfid, name, xdata: Dict::new() }).await
        })
        .await
    }

    /// A fop that changes something.
    async fn change<F, Fut>(&self, make: F) -> Result<()>
    where
        F: FnOnce(Local) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = FopResult> + 'static,
    {
        let run = self.worker.run(&self.identity, move |local| async move {
            local.writable()?;
            done(make(local).await?)
        });
        run.await
    }
}
