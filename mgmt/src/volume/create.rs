//! `volume create` and `volume delete`; and what a node checks and marks of directories that become bricks.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::XattrFlags;
use uuid::Uuid;

use crate::api::{Answer, BrickName, Failure, Outcome};
use crate::daemon::node::Node;
use crate::daemon::peer::{Act, Stage};
use crate::state::command::{Command, brick_conflict};
use crate::state::model::{Brick, Status, Volume, transport_name};

/// The mark of a volume on the root of its bricks. Source: GF_XATTR_VOL_ID_KEY.
pub const VOLUME_ID: &str = "trusted.glusterfs.volume-id";
/// The mark of a file known by gfid. Source: GFID_XATTR_KEY.
const GFID: &str = "trusted.gfid";
/// Most bricks of a volume. Source: our bound.
pub const MAX_BRICKS: usize = 4096;
/// GlusterFS's errno for what it refuses late; early refusals of `create` have none. Source: EG_INTRNL.
pub const LATE_REFUSAL: i32 = 30800;
/// Longest volume name. Source: GD_VOLUME_NAME_MAX.
const MAX_NAME: usize = 255;

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(libc::EINVAL, message)
}

/// Checks a volume's name.
///
/// # Errors
/// GlusterFS's words for what is wrong with it.
pub fn check_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(invalid(format!("Volume name should be of 1 to {MAX_NAME} characters.")));
    }
    if name == "all" {
        return Err(invalid("\"all\" cannot be the name of a volume."));
    }
    if let Some(bad) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
        return Err(invalid(format!("Volume name should not contain \"{bad}\" character.")));
    }
    if name.starts_with('-') {
        return Err(invalid("Volume name should not start with \"-\"."));
    }
    Ok(())
}

/// A brick's path without doubled and trailing slashes and `.`; `None` when it is not absolute or has `..` or control
/// characters.
pub fn clean_path(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.len() >= libc::PATH_MAX as usize || path.chars().any(char::is_control) {
        return None;
    }
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    clean.to_str().map(str::to_owned)
}

/// How often a volume keeps each file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// Copies, an arbiter's included; 0 and 1 = plain.
    pub replica: u32,
    /// Arbiters among them.
    pub arbiter: u32,
}

impl Copies {
    /// Checks them against the number of bricks.
    fn check(self, bricks: usize) -> Result<Copies, Failure> {
        let replica = self.replica.max(1);
        if !bricks.is_multiple_of(replica as usize) {
            // GlusterFS finds it out when it cannot build the graph.
            return Err(Failure::new(LATE_REFUSAL, "Failed to create volume files"));
        }
        match (self.arbiter, replica) {
            (0, _) | (1, 3) => Ok(Copies { replica, ..self }),
            _ => Err(invalid(
                "For arbiter configuration, replica count must be 2 and arbiter count must be 1. The 3rd brick of the \
                 replica will be the arbiter",
            )),
        }
    }
}

impl Node {
    /// `volume create`.
    pub async fn create_volume(
        &self,
        name: &str,
        copies: Copies,
        bricks: &[BrickName],
        transport: &str,
        force: bool,
    ) -> Outcome {
        check_name(name)?;
        if self.store.with_state(|state| state.volumes.contains_key(name)) {
            return Err(Failure::new(libc::EEXIST, format!("Volume {name} already exists")));
        }
        if bricks.is_empty() || bricks.len() > MAX_BRICKS {
            return Err(invalid(format!("a volume has 1 to {MAX_BRICKS} bricks")));
        }
        let Copies { replica, arbiter } = copies.check(bricks.len())?;
        let transport = if transport.is_empty() { Some("tcp") } else { transport_name(transport) }
            .ok_or_else(|| invalid(format!("incorrect transport type {transport}")))?;
        let id = Uuid::new_v4();
        let volume = Volume {
            name: name.to_owned(),
            id,
            status: Status::Created,
            replica,
            arbiter,
            bricks: self.name_bricks(name, bricks).await?,
            transport: transport.to_owned(),
            options: defaults(replica > 1),
            version: 1,
            start_count: 0,
            username: Uuid::new_v4().to_string(),
            password: Uuid::new_v4().to_string(),
        };
        if replica > 1 && !force {
            let spread = self.check_spread(bricks, replica as usize).await;
            spread.map_err(|failure| Failure::new(LATE_REFUSAL, failure.message))?;
        }
        let own = self.uuid();
        for brick in &volume.bricks {
            let conflict = self.store.with_state(|state| brick_conflict(state, brick.host_uuid, &brick.path));
            if conflict.is_some() {
                let message = not_available(&brick.name());
                return Err(if brick.host_uuid == own {
                    invalid(message)
                } else {
                    invalid(format!("Staging failed on {}. Error: {message}", self.name_of(brick.host_uuid)))
                });
            }
        }
        let hosts = volume.bricks.iter().map(|brick| brick.host_uuid);
        let stages = hosts_once(hosts).into_iter().map(|uuid| {
            let bricks = volume
                .bricks
                .iter()
                .filter(|brick| brick.host_uuid == uuid)
                .map(|brick| BrickName { host: brick.host.clone(), path: brick.path.clone() })
                .collect();
            (uuid, Stage::Create { volume: name.to_owned(), id, bricks, force })
        });
        self.stage(stages.collect(), "Staging failed on {}. Error: {}").await?;
        let index = self.propose(Command::CreateVolume(volume)).await?;
        self.act(index, Act::Created { volume: name.to_owned() }).await?;
        Ok(Answer::Volume { name: name.to_owned(), id: id.to_string() })
    }

    /// The bricks with the peers they are on.
    pub(super) async fn name_bricks(&self, volume: &str, bricks: &[BrickName]) -> Result<Vec<Brick>, Failure> {
        let mut named: Vec<Brick> = Vec::with_capacity(bricks.len());
        for (index, brick) in bricks.iter().enumerate() {
            let wrong = || {
                invalid(format!(
                    "Wrong brick type: {}:{}, use <HOSTNAME>:<export-dir-abs-path>",
                    brick.host, brick.path
                ))
            };
            let path = clean_path(&brick.path).ok_or_else(wrong)?;
            if !crate::option::is_host_name(&brick.host) && brick.host.parse::<std::net::IpAddr>().is_err() {
                return Err(wrong());
            }
            let peer = match self.find_peer(&brick.host).await {
                Some(peer) => peer,
                // With an address to listen on, others of this machine's loopback are ours too unless a peer's.
                None if self.is_this_machine(&brick.host).await => self.own_peer(),
                None => {
                    return Err(invalid(format!("Host {} is not in 'Peer in Cluster' state", brick.host)));
                }
            };
            let brick =
                Brick { host: brick.host.clone(), path, host_uuid: peer.uuid, id: format!("{volume}-client-{index}") };
            if named.iter().any(|other| other.host_uuid == brick.host_uuid && other.path == brick.path) {
                return Err(invalid(format!("Found duplicate exports {}", brick.name())));
            }
            named.push(brick);
        }
        Ok(named)
    }

    /// Whether the bricks of each set are on different machines, by the addresses of the names they were given by.
    pub(super) async fn check_spread(&self, bricks: &[BrickName], copies: usize) -> Result<(), Failure> {
        use crate::daemon::node::resolve;
        for set in bricks.chunks(copies) {
            let mut seen: Vec<std::net::IpAddr> = Vec::new();
            for brick in set {
                let addresses = resolve(&brick.host).await;
                if addresses.is_empty() {
                    return Err(invalid(
                        "Failed to perform brick order check. Use 'force' at the end of the command if you want to \
                         override this behavior. ",
                    ));
                }
                if addresses.iter().any(|address| seen.contains(address)) {
                    return Err(invalid(
                        "Multiple bricks of a replicate volume are present on the same server. This setup is not \
                         optimal. Bricks should be on different nodes to have best fault tolerant configuration. Use \
                         'force' at the end of the command if you want to override this behavior. ",
                    ));
                }
                seen.extend(addresses);
            }
        }
        Ok(())
    }

    async fn is_this_machine(&self, host: &str) -> bool {
        use crate::daemon::node::resolve;
        use crate::net::interfaces::is_local;
        resolve(host).await.iter().any(|address| is_local(*address))
    }

    /// `volume delete`.
    pub async fn delete_volume(&self, name: &str) -> Outcome {
        let volume = self.volume(name)?;
        if volume.status == Status::Started {
            return Err(invalid(format!("Volume {name} has been started.Volume needs to be stopped before deletion.")));
        }
        if self.others().iter().any(|peer| !self.is_connected(peer.uuid)) {
            return Err(invalid("Some of the peers are down"));
        }
        let index = self.propose(Command::DeleteVolume { name: name.to_owned(), id: volume.id }).await?;
        self.act(index, Act::Applied).await?;
        Ok(Answer::Volume { name: name.to_owned(), id: volume.id.to_string() })
    }

    /// Checks, on this node, directories that are to become bricks; makes those that are missing.
    ///
    /// # Errors
    /// GlusterFS's words.
    pub fn stage_create(&self, bricks: &[BrickName], force: bool) -> Result<(), Failure> {
        let own = self.uuid();
        for brick in bricks {
            let name = format!("{}:{}", brick.host, brick.path);
            let path = clean_path(&brick.path).ok_or_else(|| invalid(format!("{name}: not an absolute path")))?;
            if self.store.with_state(|state| brick_conflict(state, own, &path)).is_some() {
                return Err(invalid(not_available(&name)));
            }
            check_directory(&name, Path::new(&path), force)?;
        }
        Ok(())
    }
}

/// The refusal of a path that overlaps a brick.
pub fn not_available(name: &str) -> String {
    format!("Brick: {name} not available. Brick may be containing or be contained by an existing brick.")
}

/// The options a new volume has, in the order GlusterFS 10.3 shows them.
fn defaults(replicated: bool) -> Vec<(String, String)> {
    let mut options =
        vec![("storage.fips-mode-rchecksum", "on"), ("transport.address-family", "inet"), ("nfs.disable", "on")];
    if replicated {
        options.insert(0, ("cluster.granular-entry-heal", "on"));
        options.push(("performance.client-io-threads", "off"));
    }
    options.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Each UUID once, in order of first appearance.
pub fn hosts_once(hosts: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let mut seen = Vec::new();
    for uuid in hosts {
        if !seen.contains(&uuid) {
            seen.push(uuid);
        }
    }
    seen
}

/// What GlusterFS demands of a brick directory: it can be made; without `force` it is not on the root's file system and no mount
/// point itself, and neither it nor a directory above it is part of a volume.
fn check_directory(name: &str, path: &Path, force: bool) -> Result<(), Failure> {
    let made = match std::fs::create_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => {
            return Err(invalid(format!(
                "Failed to create brick directory for brick {name}. Reason : {} ",
                reason(&error)
            )));
        }
    };
    let outcome = check_made(name, path, force);
    if outcome.is_err() && made {
        // What we made for nothing; if somebody put something in, it stays.
        let _ = std::fs::remove_dir(path);
    }
    outcome
}

fn check_made(name: &str, path: &Path, force: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| invalid(format!("lstat failed on {}. Reason : {}", path.display(), reason(&error)));
    let meta = std::fs::symlink_metadata(path).map_err(failed)?;
    if !meta.is_dir() {
        return Err(invalid(format!(
            "The provided path {} which is already present, is not a directory",
            path.display()
        )));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent_meta = std::fs::symlink_metadata(parent).map_err(failed)?;
    if !force {
        if meta.dev() != parent_meta.dev() {
            return Err(invalid(format!(
                "The brick {name} is a mount point. Please create a sub-directory under the mount point and use that as \
                 the brick directory. Or use 'force' at the end of the command if you want to override this behavior."
            )));
        }
        let root = std::fs::symlink_metadata("/").map_err(failed)?;
        if meta.dev() == root.dev() {
            return Err(invalid(format!(
                "The brick {name} is being created in the root partition. It is recommended that you don't use the \
                 system's root partition for storage backend. Or use 'force' at the end of the command if you want to \
                 override this behavior."
            )));
        }
    }
    if force { forget_mark(path) } else { check_marks(path) }
}

/// `force` takes a directory that a volume has left (or that another pool knows), as GlusterFS does; bricks of volumes of this
/// pool have been refused before.
fn forget_mark(path: &Path) -> Result<(), Failure> {
    match rustix::fs::lremovexattr(path, VOLUME_ID) {
        Ok(()) => {
            tracing::warn!("{} was a brick of another volume: taken by force", path.display());
            Ok(())
        }
        Err(rustix::io::Errno::NODATA) => Ok(()),
        Err(error) => Err(mark_failed(&path.to_string_lossy(), &error.into())),
    }
}

/// Whether the directory or one above it is in use by a volume, by GlusterFS's marks.
fn check_marks(path: &Path) -> Result<(), Failure> {
    for directory in path.ancestors() {
        for mark in [VOLUME_ID, GFID] {
            match rustix::fs::lgetxattr(directory, mark, &mut [0u8; 64]) {
                Ok(_) => {
                    let what = if directory == path { "" } else { "parent directory " };
                    return Err(invalid(if directory == path {
                        format!("{} is already part of a volume", path.display())
                    } else {
                        format!("{what}{} is already part of a volume", directory.display())
                    }));
                }
                Err(rustix::io::Errno::NODATA) => {}
                Err(rustix::io::Errno::OPNOTSUPP) if directory == path => {
                    return Err(invalid(format!(
                        "Extended attributes are not supported by the file system of {}; a brick needs them",
                        path.display()
                    )));
                }
                Err(rustix::io::Errno::RANGE) => {
                    return Err(invalid(format!("{} is already part of a volume", directory.display())));
                }
                // Above the brick, a file system without extended attributes is no brick.
                Err(_) if directory != path => {}
                Err(error) => {
                    return Err(invalid(format!(
                        "Failed to get extended attribute {mark} of {}. Reason : {}",
                        path.display(),
                        reason(&error.into())
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Marks a directory as a brick of the volume, and makes the directories in it that GlusterFS's bricks expect to find.
///
/// # Errors
/// That of setxattr or mkdir, or that it is another volume's.
pub fn mark_brick(path: &str, id: Uuid) -> Result<(), Failure> {
    set_mark(path, id)?;
    for name in [".glusterfs", ".glusterfs/indices"] {
        let directory = Path::new(path).join(name);
        match std::fs::DirBuilder::new().mode(0o600).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Failure::new(
                    error.raw_os_error().unwrap_or(libc::EIO),
                    format!("Failed to create {}. Reason : {}", directory.display(), reason(&error)),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn set_mark(path: &str, id: Uuid) -> Result<(), Failure> {
    let mut old = [0u8; 16];
    match rustix::fs::lgetxattr(path, VOLUME_ID, &mut old) {
        Ok(16) if old == *id.as_bytes() => return Ok(()),
        Ok(_) => return Err(invalid(format!("Volume id mismatch for brick {path}: it is part of another volume"))),
        Err(rustix::io::Errno::NODATA) => {}
        Err(error) => return Err(mark_failed(path, &error.into())),
    }
    rustix::fs::lsetxattr(path, VOLUME_ID, id.as_bytes(), XattrFlags::empty())
        .map_err(|error| mark_failed(path, &error.into()))
}

fn mark_failed(path: &str, error: &io::Error) -> Failure {
    Failure::new(
        error.raw_os_error().unwrap_or(libc::EIO),
        format!("Failed to set extended attribute {VOLUME_ID} on {path}. Reason : {}", reason(error)),
    )
}

/// strerror's words, without the number std appends.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_or_refused() {
        assert_eq!(clean_path("/a//b/./c/").as_deref(), Some("/a/b/c"));
        assert_eq!(clean_path("a/b"), None);
        assert_eq!(clean_path("/a/../b"), None);
        assert_eq!(clean_path("/a\nb"), None);
    }

    #[test]
    fn names_are_checked_in_glusterfs_words() {
        assert!(check_name("gv0_x-1").is_ok());
        assert_eq!(check_name("ne!w").unwrap_err().message, "Volume name should not contain \"!\" character.");
        assert!(check_name("").is_err());
        assert!(check_name("a/b").is_err());
        assert!(check_name(&"x".repeat(256)).is_err());
    }
}
