//! The working directory in GlusterFS's format: what scripts read, and what a downgrade starts from. It follows the store after
//! each commit; each file is replaced whole (written beside, synced, renamed) and only when its content changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use uuid::Uuid;

use super::model::{Brick, OP_VERSION, Peer, State, Status, Volume};
use super::store::Local;
use crate::volgen::{self, BrickContext};

/// Largest file we read back, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most directories of things put aside.
const MAX_REPLACED: u32 = 1000;

/// glusterd's working directory.
#[derive(Debug)]
pub struct WorkDir {
    root: PathBuf,
    bind: bool,
    /// What in the directory is known to be ours: it goes when the state drops it. Anything else is moved aside.
    ours: Mutex<Ours>,
}

#[derive(Debug, Default)]
struct Ours {
    peers: BTreeSet<String>,
    volumes: BTreeMap<String, Uuid>,
}

/// A file of the directory that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct BadFile {
    /// Which.
    pub path: PathBuf,
    /// What is wrong, with the line.
    pub reason: String,
}

impl WorkDir {
    /// The directory at `root`, made with its sub-directories. `bind`: glusterd was given an address to listen on.
    ///
    /// # Errors
    /// Those of mkdir.
    pub fn open(root: &Path, bind: bool) -> io::Result<WorkDir> {
        for name in ["vols", "peers", "glustershd", "groups", "snaps", "bitd", "quotad", "scrub", "geo-replication"] {
            std::fs::create_dir_all(root.join(name))?;
        }
        for hook in ["create", "start", "stop", "set", "reset", "delete", "add-brick", "remove-brick", "gsync-create"] {
            for when in ["pre", "post"] {
                std::fs::create_dir_all(root.join("hooks/1").join(hook).join(when))?;
            }
        }
        Ok(WorkDir { root: root.to_owned(), bind, ours: Mutex::default() })
    }

    /// Takes what `state` names for ours: what the node wrote before it was last started.
    pub fn trust(&self, state: &State) {
        let mut ours = self.ours.lock();
        ours.peers.extend(state.peers.keys().map(Uuid::to_string));
        ours.volumes.extend(state.volumes.values().map(|volume| (volume.name.clone(), volume.id)));
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The UUID glusterd.info names, if there is such a file and such a line: GlusterFS makes one up where there is none, and
    /// scripts that edit the file count on it. Here the store's is written back.
    ///
    /// # Errors
    /// When it cannot be read, or the line holds no UUID.
    pub fn read_uuid(&self) -> Result<Option<Uuid>, BadFile> {
        let path = self.root.join("glusterd.info");
        let Some(text) = read(&path)? else { return Ok(None) };
        parse_uuid(&path, &text)
    }

    /// Rewrites what differs from the state.
    ///
    /// # Errors
    /// Those of the file system; files before the failing one are written, the rest at the next call.
    pub fn export(&self, state: &State, local: &Local, facts: &BrickFacts) -> io::Result<()> {
        put(&self.root.join("glusterd.info"), &format!("UUID={}\noperating-version={OP_VERSION}\n", local.uuid))?;
        let mut options = String::new();
        for (key, value) in &state.global_options {
            let _ = writeln!(options, "{key}={value}");
        }
        let _ = writeln!(options, "global-option-version={}", state.global_version);
        put(&self.root.join("options"), &options)?;

        let peers: BTreeMap<String, &Peer> = state
            .peers
            .values()
            .filter(|peer| peer.uuid != local.uuid)
            .map(|peer| (peer.uuid.to_string(), peer))
            .collect();
        let mut ours = self.ours.lock();
        for (name, peer) in &peers {
            put(&self.root.join("peers").join(name), &peer_text(peer))?;
            ours.peers.insert(name.clone());
        }
        for name in names(&self.root.join("peers"))?.iter().filter(|name| !peers.contains_key(*name)) {
            self.drop_entry("peers", name, ours.peers.contains(name))?;
        }
        ours.peers.retain(|name| peers.contains_key(name));

        for volume in state.volumes.values() {
            let known = ours.volumes.get(&volume.name).copied();
            if known != Some(volume.id) && self.is_of_another(volume) {
                self.drop_entry("vols", &volume.name, known.is_some())?;
            }
            self.export_volume(state, volume, local, facts)?;
            ours.volumes.insert(volume.name.clone(), volume.id);
        }
        for name in names(&self.root.join("vols"))?.iter().filter(|name| !state.volumes.contains_key(*name)) {
            self.drop_entry("vols", name, ours.volumes.contains_key(name))?;
        }
        ours.volumes.retain(|name, _| state.volumes.contains_key(name));
        Ok(())
    }

    /// Whether the directory of the volume's name is of another volume.
    fn is_of_another(&self, volume: &Volume) -> bool {
        let path = self.root.join("vols").join(&volume.name).join("info");
        match read(&path) {
            Ok(None) => false,
            Ok(Some(text)) => {
                let id = text.lines().find_map(|line| line.strip_prefix("volume-id="));
                id.and_then(|id| id.trim().parse().ok()) != Some(volume.id)
            }
            Err(_) => true,
        }
    }

    /// Takes an entry that the state does not know out of `kind` (vols or peers): removes it if we wrote it, else moves it to
    /// KIND-replaced-N beside it, for the operator.
    fn drop_entry(&self, kind: &str, name: &str, is_ours: bool) -> io::Result<()> {
        let path = self.root.join(kind).join(name);
        if is_ours || is_temporary(name) {
            return remove(&path);
        }
        for number in 1..=MAX_REPLACED {
            let aside = self.root.join(format!("{kind}-replaced-{number}"));
            let target = aside.join(name);
            if target.symlink_metadata().is_ok() {
                continue;
            }
            std::fs::create_dir_all(&aside)?;
            std::fs::rename(&path, &target)?;
            tracing::warn!("{}: not of this pool: moved to {}", path.display(), target.display());
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{}: not of this pool, and {MAX_REPLACED} of its name were put aside",
            path.display()
        )))
    }

    fn export_volume(&self, state: &State, volume: &Volume, local: &Local, facts: &BrickFacts) -> io::Result<()> {
        let directory = self.root.join("vols").join(&volume.name);
        std::fs::create_dir_all(directory.join("bricks"))?;
        let shares = shares(volume, local.uuid, facts);
        let mut keep = BTreeSet::from(["info", "node_state.info", "bricks", "cksum", "snapd.info"].map(str::to_owned));
        let mut bricks = BTreeSet::new();
        for brick in &volume.bricks {
            let is_local = brick.host_uuid == local.uuid;
            let port = if is_local { local.ports.get(&brick.path).copied().unwrap_or(0) } else { 0 };
            let other = volume.kinds().get(1).map(|kind| brick.portmap_name(volume, *kind));
            let rdma_port = other.filter(|_| is_local).and_then(|name| local.ports.get(&name).copied()).unwrap_or(0);
            let fsid = facts.get(&brick.path).filter(|_| is_local).map_or(0, |fact| fact.file_system_id);
            let name = brick_file_name(brick);
            put(&directory.join("bricks").join(&name), &brick_text(brick, port, rdma_port, fsid))?;
            bricks.insert(name);
            let context = BrickContext {
                working_directory: &self.root,
                bind: self.bind,
                shared_brick_count: if is_local { shares.get(&brick.path).copied().unwrap_or(1) } else { 0 },
            };
            let name = format!("{}.vol", volgen::names::brick(volume, brick));
            put(&directory.join(&name), &volgen::brick(state, volume, brick, context))?;
            keep.insert(name);
        }
        sweep(&directory.join("bricks"), |name| bricks.contains(name))?;
        let mut volfile = |name: String, text: String| -> io::Result<()> {
            put(&directory.join(&name), &text)?;
            keep.insert(name);
            Ok(())
        };
        for kind in volume.kinds() {
            let name = format!("{}.{}-fuse.vol", volume.name, kind.name());
            volfile(format!("trusted-{name}"), volgen::client(state, volume, kind, true))?;
            volfile(name, volgen::client(state, volume, kind, false))?;
        }
        if volume.is_replicated() {
            volfile(format!("{}-shd.vol", volume.name), volgen::heal(state, volume))?;
        }
        put(&directory.join("node_state.info"), NODE_STATE)?;
        put(&directory.join("snapd.info"), "snapd-port=0\n")?;
        // Last: a volume is there for a reader once its info is.
        put(&directory.join("info"), &info_text(volume))?;
        // Volfiles of bricks that are no more; other files there are not ours.
        sweep(&directory, |name| keep.contains(name) || !(name.ends_with(".vol") || is_temporary(name)))
    }

    /// The volfile of a brick of this node as it stands on disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn brick_volfile(&self, volume: &Volume, brick: &Brick) -> io::Result<String> {
        let name = format!("{}.vol", volgen::names::brick(volume, brick));
        std::fs::read_to_string(self.root.join("vols").join(&volume.name).join(name))
    }

    /// Reads the volumes a GlusterFS (or we, before the store was lost) left in the directory.
    ///
    /// # Errors
    /// [`BadFile`] with the line that does not parse; nothing is taken over then.
    pub fn import_volumes(&self) -> Result<Vec<Volume>, BadFile> {
        let mut volumes = Vec::new();
        let vols = self.root.join("vols");
        for name in list(&vols)? {
            let directory = vols.join(&name);
            let path = directory.join("info");
            let Some(text) = read(&path)? else { continue };
            let mut volume = parse_info(&path, &name, &text)?;
            for (index, brick) in volume.bricks.iter_mut().enumerate() {
                let path = directory.join("bricks").join(brick_file_name(brick));
                let text = read(&path)?
                    .ok_or_else(|| BadFile { path: path.clone(), reason: "missing, yet info names it".into() })?;
                *brick = parse_brick(&path, &text, &format!("{name}-client-{index}"))?;
            }
            volumes.push(volume);
        }
        Ok(volumes)
    }

    /// How many peers the directory names.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn count_peers(&self) -> Result<usize, BadFile> {
        Ok(list(&self.root.join("peers"))?.len())
    }
}

/// Writes a file that only root may read.
///
/// # Errors
/// Those of the file system.
pub fn write_private(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(data)?;
    file.sync_all()
}

/// What is to be known of a brick's file system. Looking may hang with the disk: it is done elsewhere, ahead of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrickFact {
    /// The device number.
    pub device: u64,
    /// The file system's id, as statvfs has it.
    pub file_system_id: u64,
}

/// What is known of this node's bricks, by path.
pub type BrickFacts = BTreeMap<String, BrickFact>;

impl BrickFact {
    /// Looks at the file system of `path`; `None` when there is nothing. Blocks, and for as long as the disk does.
    pub fn of(path: &str) -> Option<BrickFact> {
        use std::os::unix::fs::MetadataExt;
        let device = std::fs::metadata(path).ok()?.dev();
        let file_system_id = rustix::fs::statvfs(path).map_or(0, |stat| stat.f_fsid);
        Some(BrickFact { device, file_system_id })
    }
}

/// How many local bricks of a volume share each local brick's file system.
fn shares(volume: &Volume, uuid: Uuid, facts: &BrickFacts) -> BTreeMap<String, u32> {
    let local: Vec<(&str, Option<u64>)> = volume
        .bricks
        .iter()
        .filter(|brick| brick.host_uuid == uuid)
        .map(|brick| (brick.path.as_str(), facts.get(&brick.path).map(|fact| fact.device)))
        .collect();
    local
        .iter()
        .map(|(path, device)| {
            let count = local.iter().filter(|(_, other)| device.is_some() && other == device).count();
            ((*path).to_owned(), u32::try_from(count).unwrap_or(u32::MAX).max(1))
        })
        .collect()
}

const NODE_STATE: &str = "rebalance_status=0\nstatus=0\nrebalance_op=0\n\
rebalance-id=00000000-0000-0000-0000-000000000000\nrebalanced-files=0\nsize=0\nscanned=0\nfailures=0\nskipped=0\n\
run-time=0.000000\n";

/// A brick's file name: `HOST:-path-with-dashes`.
fn brick_file_name(brick: &Brick) -> String {
    format!("{}:{}", brick.host, brick.path.replace('/', "-"))
}

fn peer_text(peer: &Peer) -> String {
    let mut text = format!("uuid={}\nstate=3\n", peer.uuid);
    for (index, name) in peer.hostnames.iter().enumerate() {
        let _ = writeln!(text, "hostname{}={name}", index + 1);
    }
    text
}

/// A volume's `info`. Source: field order of glusterd_store_volinfo_write, checked against 10.3.
pub fn info_text(volume: &Volume) -> String {
    let copies = volume.replica.max(1);
    let arbiter = if volume.arbiter > 0 { format!("arbiter_count={}\n", volume.arbiter) } else { String::new() };
    let mut text = format!(
        "type={}\ncount={}\nstatus={}\nsub_count={}\nreplica_count={copies}\n{arbiter}disperse_count=0\nredundancy_count=0\n\
         version={}\ntransport-type={}\nvolume-id={}\nusername={}\npassword={}\nop-version=40000\nclient-op-version={}\n\
         quota-version=0\ntier-enabled=0\nparent_volname=N/A\n\
         restored_from_snap=00000000-0000-0000-0000-000000000000\nsnap-max-hard-limit=256\n",
        volume.type_number(),
        volume.bricks.len(),
        volume.status.number(),
        if copies > 1 { copies } else { 0 },
        volume.version,
        transport_number(&volume.transport),
        volume.id,
        volume.username,
        volume.password,
        if copies > 1 { 30800 } else { 2 },
    );
    for (key, value) in &volume.options {
        let _ = writeln!(text, "{key}={value}");
    }
    for (index, brick) in volume.bricks.iter().enumerate() {
        let _ = writeln!(text, "brick-{index}={}", brick_file_name(brick));
    }
    text
}

/// GlusterFS's number of a transport (gf_transport_type: tcp 0, rdma 1, both 2); sdp, which it never had, is ours.
fn transport_number(transport: &str) -> u32 {
    match transport {
        "rdma" => 1,
        "tcp,rdma" => 2,
        "sdp" => SDP_NUMBER,
        _ => 0,
    }
}

/// The number of `sdp`: far from what GlusterFS counts.
const SDP_NUMBER: u32 = 100;

fn brick_text(brick: &Brick, port: u16, rdma_port: u16, fsid: u64) -> String {
    format!(
        "uuid={}\nhostname={}\npath={}\nreal_path={}\nlisten-port={port}\nrdma.listen-port={rdma_port}\ndecommissioned=0\n\
         brick-id={}\nmount_dir={}\nsnap-status=0\nbrick-fsid={fsid}\n",
        brick.host_uuid, brick.host, brick.path, brick.path, brick.id, brick.path
    )
}

/// Reads a volume's `info`; its bricks have only host and flattened path yet.
pub(crate) fn parse_info(path: &Path, name: &str, text: &str) -> Result<Volume, BadFile> {
    let bad = |reason: String| BadFile { path: path.to_owned(), reason };
    let pairs = parse(path, text)?;
    let number = |key: &str| -> Result<i64, BadFile> {
        let value = pairs.get(key).ok_or_else(|| bad(format!("no line {key}=")))?;
        value.parse().map_err(|_| bad(format!("line {key}={value}: no number")))
    };
    if !matches!(number("type")?, 0 | 2) || number("disperse_count")? != 0 {
        return Err(bad(format!("type={}: only distribute and replicate volumes yet", number("type")?)));
    }
    let count = usize::try_from(number("count")?).ok().filter(|count| (1..=100_000).contains(count));
    let count = count.ok_or_else(|| bad("line count=: out of bounds".into()))?;
    let replica = number("replica_count").or_else(|_| number("sub_count")).unwrap_or(1).max(1);
    let replica = u32::try_from(replica).map_err(|_| bad("line replica_count=: out of bounds".into()))?;
    if replica as usize > count || !count.is_multiple_of(replica as usize) {
        return Err(bad(format!("line count={count}: no multiple of replica_count={replica}")));
    }
    let arbiter = match pairs.get("arbiter_count").map_or("0", String::as_str) {
        "0" => 0,
        "1" if replica == 3 => 1,
        other => return Err(bad(format!("line arbiter_count={other}: 0 or, of three copies, 1 expected"))),
    };
    // A thin arbiter is no brick of a set: without it the volume would not keep what it promises.
    if pairs.get("thin_arbiter_count").is_some_and(|count| count != "0") {
        return Err(bad("line thin_arbiter_count=: thin arbiters are not supported".into()));
    }
    let transport = match pairs.get("transport-type").map_or("0", String::as_str) {
        "0" => "tcp",
        "1" => "rdma",
        "2" => "tcp,rdma",
        "100" => "sdp",
        other => {
            return Err(bad(format!("line transport-type={other}: 0 (tcp), 1 (rdma), 2 (both) or 100 (sdp) expected")));
        }
    };
    let id = pairs.get("volume-id").ok_or_else(|| bad("no line volume-id=".into()))?;
    let status = number("status")?;
    let mut bricks = Vec::new();
    for index in 0..count {
        let key = format!("brick-{index}");
        let value = pairs.get(&key).ok_or_else(|| bad(format!("no line {key}=")))?;
        let (host, flat) = value.split_once(':').ok_or_else(|| bad(format!("line {key}={value}: no host")))?;
        if flat.contains('/') || host.contains('/') {
            return Err(bad(format!("line {key}={value}: not a brick's file name")));
        }
        bricks.push(Brick { host: host.to_owned(), path: flat.to_owned(), host_uuid: Uuid::nil(), id: String::new() });
    }
    let options = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| {
            crate::option::OPTIONS.iter().any(|option| option.key == *key) || crate::option::is_users(key)
        })
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect();
    Ok(Volume {
        name: name.to_owned(),
        id: id.parse().map_err(|_| bad(format!("line volume-id={id}: no UUID")))?,
        status: Status::from_number(status).ok_or_else(|| bad(format!("line status={status}: unknown")))?,
        replica,
        arbiter,
        bricks,
        transport: transport.to_owned(),
        options,
        version: u32::try_from(number("version")?).map_err(|_| bad("line version=: out of bounds".into()))?,
        start_count: 1,
        username: pairs.get("username").cloned().unwrap_or_default(),
        password: pairs.get("password").cloned().unwrap_or_default(),
    })
}

/// `glusterd.info`.
fn parse_uuid(path: &Path, text: &str) -> Result<Option<Uuid>, BadFile> {
    let pairs = parse(path, text)?;
    let bad = |reason: &str| BadFile { path: path.to_owned(), reason: reason.to_owned() };
    let Some(value) = pairs.get("UUID") else {
        tracing::warn!("{}: no line UUID=", path.display());
        return Ok(None);
    };
    let uuid: Uuid = value.parse().map_err(|_| bad(&format!("line UUID={value}: no UUID")))?;
    if uuid.is_nil() { Err(bad("line UUID=: all zero")) } else { Ok(Some(uuid)) }
}

fn parse_brick(path: &Path, text: &str, default_id: &str) -> Result<Brick, BadFile> {
    let pairs = parse(path, text)?;
    let bad = |reason: String| BadFile { path: path.to_owned(), reason };
    let get = |key: &str| pairs.get(key).cloned().ok_or_else(|| bad(format!("no line {key}=")));
    let uuid = get("uuid")?;
    let brick = Brick {
        host: get("hostname")?,
        path: get("path")?,
        host_uuid: uuid.parse().map_err(|_| bad(format!("line uuid={uuid}: no UUID")))?,
        id: get("brick-id").unwrap_or_else(|_| default_id.to_owned()),
    };
    if brick.path.starts_with('/') { Ok(brick) } else { Err(bad(format!("line path={}: not absolute", brick.path))) }
}

fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, String>, BadFile> {
    let mut pairs = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (key, value) = line.split_once('=').ok_or_else(|| BadFile {
            path: path.to_owned(),
            reason: format!("line {}: `key=value` expected", number + 1),
        })?;
        pairs.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(pairs)
}

fn read(path: &Path) -> Result<Option<String>, BadFile> {
    let bad = |reason: String| BadFile { path: path.to_owned(), reason };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(error.to_string())),
        Ok(meta) if meta.len() > MAX_FILE_BYTES => return Err(bad("larger than any of GlusterFS's".into())),
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(|error| bad(error.to_string()))
}

fn list(path: &Path) -> Result<Vec<String>, BadFile> {
    let bad = |error: io::Error| BadFile { path: path.to_owned(), reason: error.to_string() };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(bad)? {
        names.push(entry.map_err(bad)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Removes what `keep` does not want.
fn sweep(directory: &Path, keep: impl Fn(&str) -> bool) -> io::Result<()> {
    for name in names(directory)?.iter().filter(|name| !keep(name)) {
        remove(&directory.join(name))?;
    }
    Ok(())
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        // We write no name that is not UTF-8, and can take none away by half of it.
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

/// Whether a file is one that [`put`] left behind in a crash.
fn is_temporary(name: &str) -> bool {
    name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).is_some_and(|name| name.len() == 16)
}

/// Replaces a file whole, durably; does nothing when it has that content already.
fn put(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = path.parent().unwrap_or(Path::new("."));
    // A brick's path may fill the name: the temporary one is short and of its own.
    let temporary = directory.join(format!(".{:016x}.tmp", crate::brick::hash(name.as_bytes())));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(directory)?.sync_all()
}

/// For the fuzz targets.
pub(crate) mod fuzzing {
    use super::{Path, brick_text, info_text, parse_brick, parse_info, parse_uuid};

    /// A file of the working directory: the first byte says which.
    ///
    /// # Panics
    /// When what was understood is not written so that it is understood the same again.
    pub fn working_directory(data: &[u8]) {
        let Some((kind, text)) = data.split_first() else { return };
        let Ok(text) = std::str::from_utf8(text) else { return };
        let path = Path::new("file");
        match kind % 3 {
            0 => drop(parse_uuid(path, text)),
            1 => {
                if let Ok(volume) = parse_info(path, "gv0", text) {
                    let again = parse_info(path, "gv0", &info_text(&volume)).expect("what was written can be read");
                    assert_eq!((again.id, again.replica, again.options), (volume.id, volume.replica, volume.options));
                }
            }
            _ => {
                if let Ok(brick) = parse_brick(path, text, "gv0-client-0") {
                    let again = parse_brick(path, &brick_text(&brick, 0, 0, 0), "gv0-client-0");
                    assert_eq!(again.expect("what was written can be read"), brick);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Volume {
        let path = Path::new("info");
        let mut volume = parse_info(path, "gv0", include_str!("golden/info")).unwrap();
        for (index, brick) in volume.bricks.iter_mut().enumerate() {
            brick.path = format!("/c/{}/bricks/gv0-0", index + 1);
        }
        volume
    }

    #[test]
    fn info_is_glusterfs_own() {
        assert_eq!(info_text(&volume()), include_str!("golden/info"));
        assert_eq!(NODE_STATE, include_str!("golden/node_state.info"));
    }

    #[test]
    fn a_brick_file_reads_back() {
        let theirs = include_str!("golden/brick");
        let brick = parse_brick(Path::new("brick"), theirs, "x").unwrap();
        assert_eq!(brick_file_name(&brick), "127.1.1.1:-c-1-bricks-gv0-0");
        let ours = brick_text(&brick, 52748, 0, 0);
        let without_fsid = |text: &str| text.lines().filter(|line| !line.starts_with("brick-fsid")).count();
        assert_eq!(without_fsid(&ours), 10);
        for (ours, theirs) in ours.lines().zip(theirs.lines()).take(10) {
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn what_is_exported_comes_back() {
        let root = std::env::temp_dir().join(format!("ladrillo-workdir-{}", Uuid::new_v4()));
        let work = WorkDir::open(&root, false).unwrap();
        let mut volume = volume();
        volume.set_option("network.ping-timeout", "10");
        volume.set_option("user.mark", "a=b");
        for (index, brick) in volume.bricks.iter_mut().enumerate() {
            brick.host_uuid = Uuid::from_u128(index as u128 + 1);
            brick.id = format!("gv0-client-{index}");
        }
        let mut state = State::default();
        let facts = BrickFacts::default();
        state.volumes.insert(volume.name.clone(), volume.clone());
        let peer = Peer { uuid: Uuid::from_u128(2), hostnames: vec!["debian2".into()], port: 24007 };
        state.peers.insert(peer.uuid, peer);
        let local = Local {
            uuid: Uuid::from_u128(1),
            pool: Uuid::nil(),
            epoch: 0,
            opener: Uuid::nil(),
            joining: false,
            started: Default::default(),
            ports: [("/c/1/bricks/gv0-0".to_owned(), 49152)].into(),
            imported: true,
            introducers: Vec::new(),
        };
        work.export(&state, &local, &facts).unwrap();
        assert_eq!(work.import_volumes().unwrap(), [volume]);
        assert_eq!(work.read_uuid().unwrap(), Some(local.uuid));
        assert_eq!(work.count_peers().unwrap(), 1);
        let full = state.clone();
        state.volumes.clear();
        state.peers.clear();
        // Another process of ours, which does not know who wrote all this: it is put aside, whole, each time.
        for round in 1..=2 {
            let info = std::fs::read_to_string(root.join("vols/gv0/info")).unwrap();
            WorkDir::open(&root, false).unwrap().export(&state, &local, &facts).unwrap();
            assert!(work.import_volumes().unwrap().is_empty());
            assert_eq!(work.count_peers().unwrap(), 0);
            let aside = root.join(format!("vols-replaced-{round}/gv0"));
            assert_eq!(std::fs::read_to_string(aside.join("info")).unwrap(), info);
            assert!(aside.join("bricks").read_dir().unwrap().count() > 0);
            assert!(root.join(format!("peers-replaced-{round}")).join(Uuid::from_u128(2).to_string()).exists());
            work.export(&full, &local, &facts).unwrap();
        }
        // Of a volume of the same name, but another, likewise; what is not ours in ours stays.
        let mut other = full.clone();
        other.volumes.get_mut("gv0").unwrap().id = Uuid::from_u128(77);
        WorkDir::open(&root, false).unwrap().export(&other, &local, &facts).unwrap();
        assert!(root.join("vols-replaced-3/gv0/info").exists());
        std::fs::write(root.join("vols/gv0/quota.conf"), "x").unwrap();
        work.export(&full, &local, &facts).unwrap();
        assert!(!root.join("vols-replaced-4").exists());
        // What it wrote itself goes.
        std::fs::write(root.join("vols/gv0/quota.conf"), "x").unwrap();
        work.export(&full, &local, &facts).unwrap();
        assert!(root.join("vols/gv0/quota.conf").exists());
        work.export(&state, &local, &facts).unwrap();
        assert!(work.import_volumes().unwrap().is_empty());
        assert_eq!(work.count_peers().unwrap(), 0);
        assert!(!root.join("vols-replaced-4").exists());
        std::fs::write(root.join("glusterd.info"), "UUID=zzz\n").unwrap();
        assert!(work.read_uuid().unwrap_err().to_string().contains("UUID=zzz"));
        std::fs::write(work.root().join("glusterd.info"), "operating-version=30500\n").unwrap();
        assert_eq!(work.read_uuid().unwrap(), None);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn bricks_of_one_file_system_are_counted() {
        let mut volume = volume();
        for brick in &mut volume.bricks {
            brick.host_uuid = Uuid::from_u128(1);
        }
        let fact = |device| BrickFact { device, file_system_id: 7 };
        let path = |index: usize| volume.bricks[index].path.clone();
        let facts = BrickFacts::from([(path(0), fact(5)), (path(1), fact(5))]);
        // Of the third nothing is known (yet): it counts alone.
        let expected = BTreeMap::from([(path(0), 2), (path(1), 2), (path(2), 1)]);
        assert_eq!(shares(&volume, Uuid::from_u128(1), &facts), expected);
        assert_eq!(BrickFact::of("/nonexistent/brick"), None);
        assert!(BrickFact::of("/").is_some());
    }
}
