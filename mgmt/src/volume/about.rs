//! What `volume status` and `volume top` show beyond who runs: asked of the brick processes of this node, or seen on their
//! file systems. A brick or a disk that hangs holds up a thread of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ladrillo_translator::{Dict, Value};
use tokio::sync::oneshot;

use crate::api::About;
use crate::brick::ask;
use crate::daemon::node::Node;
use crate::state::model::{Brick, Volume};

/// How long a brick may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// And to measure its disk.
const PERF_PATIENCE: Duration = Duration::from_secs(60);
/// Numbers of GlusterFS's questions. Source: gf_cli_status_type.
const fn command(about: &About) -> i64 {
    match about {
        About::Mem => 0x1,
        About::Clients => 0x2,
        About::Inode => 0x4,
        About::Fd => 0x8,
        About::Callpool => 0x10,
        About::Detail => 0x20,
        About::Top { .. } | About::ClearTop | About::Profile { .. } | About::HealCount => 0,
    }
}

/// How long a node may take to answer `about`, in all.
pub fn patience(about: Option<&About>) -> Duration {
    match about {
        Some(About::Top { measure: Some(_), .. }) => PERF_PATIENCE + PATIENCE,
        _ => PATIENCE + Duration::from_secs(1),
    }
}

impl Node {
    /// What is known about a running brick of this node; empty when it does not say.
    pub async fn about_brick(&self, volume: &Volume, brick: &Brick, about: &About) -> BTreeMap<String, String> {
        let socket = self.places.socket(&self.places.brick_pid(volume, brick));
        let (about, path) = (about.clone(), brick.path.clone());
        let wait = patience(Some(&about));
        let (answer, answered) = oneshot::channel();
        let Some(asked) = self.asking.begin(&path) else {
            tracing::warn!("{path}: {MAX_ASKING} threads ask about it already and get no answer");
            return BTreeMap::new();
        };
        let look = move || {
            let _asked = asked;
            let found = look(&about, &path, &socket).unwrap_or_else(|error| {
                tracing::warn!("{path}: {error}");
                BTreeMap::new()
            });
            // Nobody waits any more after a timeout.
            let _ = answer.send(found);
        };
        if let Err(error) = std::thread::Builder::new().name("about-brick".to_owned()).spawn(look) {
            tracing::warn!("a thread to ask a brick: {error}");
            return BTreeMap::new();
        }
        match tokio::time::timeout(wait, answered).await {
            Ok(Ok(found)) => found,
            _ => BTreeMap::new(),
        }
    }
}

fn look(about: &About, path: &str, socket: &Path) -> std::io::Result<BTreeMap<String, String>> {
    match about {
        About::Detail => return file_system(path),
        About::HealCount => return heal_count(path),
        _ => {}
    }
    let mut input = Dict::new();
    let answer = match about {
        About::Top { list, members, measure } => {
            input.set_int("top-op", i64::from(*list));
            input.set_int("list-cnt", i64::from(*members));
            if let Some((block_bytes, blocks)) = measure {
                input.set_int("blk-size", i64::from(*block_bytes));
                input.set_int("blk-cnt", i64::from(*blocks));
            }
            let patience = if measure.is_some() { PERF_PATIENCE } else { PATIENCE };
            ask::ask(socket, ask::INFO, path, &input, patience)?
        }
        About::ClearTop => {
            input.set_str("clear-stats", "1");
            ask::ask(socket, ask::INFO, path, &input, PATIENCE)?
        }
        About::Profile { op, peek } => {
            input.set_int("info-op", *op as i64);
            input.set_str("peek", if *peek { "1" } else { "0" });
            ask::ask(socket, ask::INFO, path, &input, PATIENCE)?
        }
        _ => {
            input.set_int("cmd", command(about));
            input.set_str("brick-name", path.to_owned());
            ask::ask(socket, ask::STATUS, path, &input, PATIENCE)?
        }
    };
    Ok(answer.iter().filter_map(|(key, value)| Some((text(key)?, shown(value)?))).collect())
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0').to_owned())
}

/// Values without a type come as text; ours may come as numbers.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Int(number) => Some(number.to_string()),
        Value::Uint(number) => Some(number.to_string()),
        Value::Str(bytes) | Value::StrOld(bytes) | Value::Ptr(bytes) => text(bytes),
        _ => None,
    }
}

/// Where a brick lists the inodes that are to be healed, each as a link named by its gfid. Source: features/index.
const INDEX: &str = ".glusterfs/indices/xattrop";

fn heal_count(path: &str) -> std::io::Result<BTreeMap<String, String>> {
    let entries = std::fs::read_dir(Path::new(path).join(INDEX))?;
    let is_gfid = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| uuid::Uuid::try_parse(name).is_ok());
    let count = entries.filter(|entry| entry.as_ref().is_ok_and(|entry| is_gfid(&entry.file_name()))).count();
    Ok(BTreeMap::from([("hardlinks".to_owned(), count.to_string())]))
}

/// Threads that ask about one brick, at most: more would pile up while its disk hangs.
const MAX_ASKING: usize = 4;

/// How many threads ask about which brick.
#[derive(Clone, Default)]
pub struct Asking(Arc<Mutex<BTreeMap<String, usize>>>);

/// One of them; counted until it is dropped.
struct Asked {
    asking: Asking,
    path: String,
}

impl Asking {
    fn begin(&self, path: &str) -> Option<Asked> {
        let mut asking = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = asking.entry(path.to_owned()).or_default();
        if *count >= MAX_ASKING {
            return None;
        }
        *count += 1;
        Some(Asked { asking: self.clone(), path: path.to_owned() })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut asking = self.asking.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(count) = asking.get_mut(&self.path) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                asking.remove(&self.path);
            }
        }
    }
}

/// Size, device, mount options of the file system below `path`.
fn file_system(path: &str) -> std::io::Result<BTreeMap<String, String>> {
    let stat = rustix::fs::statvfs(path)?;
    let mut found: BTreeMap<String, String> = [
        ("total", stat.f_blocks.saturating_mul(stat.f_frsize)),
        ("free", stat.f_bavail.saturating_mul(stat.f_frsize)),
        ("block_size", stat.f_bsize),
        ("total_inodes", stat.f_files),
        ("free_inodes", stat.f_ffree),
    ]
    .map(|(key, figure)| (key.to_owned(), figure.to_string()))
    .into();
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    if let Some([device, point, kind, options]) = mount_of(&mounts, path) {
        found.insert("device".to_owned(), device.to_owned());
        found.insert("fs_name".to_owned(), kind.to_owned());
        found.insert("mnt_options".to_owned(), options.to_owned());
        if let Some(size) = inode_size(kind, device, point) {
            found.insert("inode_size".to_owned(), size);
        }
    }
    Ok(found)
}

/// Bytes of an inode of the file system, where its own tools tell.
fn inode_size(kind: &str, device: &str, point: &str) -> Option<String> {
    let (mut command, mark) = match kind {
        "xfs" => (Command::new("xfs_info"), "isize="),
        "ext2" | "ext3" | "ext4" => (Command::new("dumpe2fs"), "Inode size:"),
        _ => return None,
    };
    let command = if kind == "xfs" { command.arg(point) } else { command.args(["-h", device]) };
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digits = |rest: &str| rest.trim_start().split(|c: char| !c.is_ascii_digit()).next().map(str::to_owned);
    text.split_once(mark).and_then(|(_, rest)| digits(rest)).filter(|size| !size.is_empty())
}

/// Device, mount point, type, options of the mount that holds `path`: the deepest, of several the last.
fn mount_of<'m>(mounts: &'m str, path: &str) -> Option<[&'m str; 4]> {
    let holds = |point: &str| {
        let point = point.trim_end_matches('/');
        path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut best: Option<[&str; 4]> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(point), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if holds(point) && best.is_none_or(|[_, known, ..]| point.len() >= known.len()) {
            best = Some([device, point, kind, options]);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_hangs_holds_few_threads() {
        let asking = Asking::default();
        let held: Vec<_> = (0..MAX_ASKING).map(|_| asking.begin("/b").unwrap()).collect();
        assert!(asking.begin("/b").is_none());
        assert!(asking.begin("/c").is_some());
        drop(held);
        assert!(asking.begin("/b").is_some());
        assert!(asking.0.lock().unwrap().is_empty());
    }

    #[test]
    fn entries_to_be_healed_are_counted_by_their_gfids() {
        let brick = std::env::temp_dir().join(format!("ladrillo-heal-count-{}", std::process::id()));
        let index = brick.join(INDEX);
        std::fs::create_dir_all(&index).unwrap();
        for name in ["xattrop-6f0d3e0c-0000-4000-8000-000000000000", "6f0d3e0c-0000-4000-8000-000000000001", "x"] {
            std::fs::write(index.join(name), "").unwrap();
        }
        let found = heal_count(brick.to_str().unwrap());
        std::fs::remove_dir_all(&brick).unwrap();
        assert_eq!(found.unwrap()["hardlinks"], "1");
    }

    #[test]
    fn a_brick_is_on_the_deepest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\n/dev/b /d xfs rw,x 0 0\n/dev/c /data xfs ro 0 0\ntmpfs /d tmpfs rw,y 0 0\n";
        assert_eq!(mount_of(mounts, "/d/brick"), Some(["tmpfs", "/d", "tmpfs", "rw,y"]));
        assert_eq!(mount_of(mounts, "/data"), Some(["/dev/c", "/data", "xfs", "ro"]));
        assert_eq!(mount_of(mounts, "/dat"), Some(["/dev/a", "/", "ext4", "rw"]));
        assert_eq!(mount_of("junk", "/d"), None);
        let found = file_system("/").unwrap();
        assert!(found["total"].parse::<u64>().unwrap() > 0, "{found:?}");
        assert!(file_system("/nonexistent/x").is_err());
    }
}
