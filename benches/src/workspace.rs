//! A subject's directory: brings its items into the shape a phase needs, unmeasured, and knows what is there.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::phase::{Access, Action, Count, Item, Op, Phase, Shape, Want};
use crate::process::{Done, Stop, run};
use crate::worker::{Answer, Orders};

/// How much is measured.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Sizes {
    /// Small files of each of the two sets.
    pub files: u64,
    /// Size of each, bytes.
    pub file_bytes: usize,
    /// Directories of each set.
    pub directories: u64,
    /// Entries of the large directory.
    pub entries: u64,
    /// Files of the source tree.
    pub tree_files: u64,
    /// Size of the stream's file, MiB.
    pub stream_mib: u64,
    /// How long each phase of random access takes, seconds.
    pub seconds: u64,
}

/// The source tree to unpack and to clone.
#[derive(Clone, Debug, Default)]
pub struct TreeData {
    /// A tar file.
    pub tar: PathBuf,
    /// A bare git repository; empty without git.
    pub git: PathBuf,
    /// Entries of the tar file.
    pub entries: u64,
}

/// Where a subject's phases work.
#[derive(Debug)]
pub struct Workspace {
    top: PathBuf,
    shapes: [Shape; Item::ALL.len()],
    limit: Duration,
}

/// What a phase did.
#[derive(Clone, Debug, Default)]
pub struct Yield {
    /// Operations, or megabytes.
    pub amount: f64,
    /// How long they took, seconds.
    pub seconds: f64,
    /// The load generator's processor time, seconds.
    pub load_cpu_s: f64,
    /// Latency: half of the operations, microseconds.
    pub p50_us: Option<f64>,
    /// Latency: 99 of 100 operations, microseconds.
    pub p99_us: Option<f64>,
}

fn index(item: Item) -> usize {
    Item::ALL.iter().position(|i| *i == item).unwrap_or(0)
}

fn directory_name(item: Item) -> &'static str {
    match item {
        Item::Stream => "stream",
        Item::Sync => "sync",
        Item::Dirs1 => "dirs1",
        Item::Dirs4 => "dirs4",
        Item::Small1 => "small1",
        Item::Small4 => "small4",
        Item::Tree => "tree",
        Item::Copy => "copy",
        Item::Clone => "clone",
        Item::Large => "large",
    }
}

/// Directories that mkdir and rmdir make and remove, at most.
const MAX_DIRS: u64 = 1000;
/// Names looked up in the large directory, at most.
const SAMPLE: u64 = 1000;

impl Workspace {
    /// Makes `DIRECTORY/ladrillo-bench.PID`.
    ///
    /// # Errors
    /// The file system's, in words.
    pub fn new(directory: &Path, limit: Duration) -> Result<Workspace, String> {
        let top = directory.join(format!("ladrillo-bench.{}", std::process::id()));
        std::fs::create_dir(&top).map_err(|e| format!("mkdir {}: {e}", top.display()))?;
        Ok(Workspace { top, shapes: [Shape::Absent; Item::ALL.len()], limit })
    }

    fn path(&self, item: Item) -> PathBuf {
        self.top.join(directory_name(item))
    }

    fn shape(&self, item: Item) -> Shape {
        self.shapes.get(index(item)).copied().unwrap_or(Shape::Absent)
    }

    fn set(&mut self, item: Item, shape: Shape) {
        if let Some(slot) = self.shapes.get_mut(index(item)) {
            *slot = shape;
        }
    }

    /// Brings everything into the shape `phase` needs.
    ///
    /// # Errors
    /// In words.
    pub fn prepare(&mut self, phase: &Phase, sizes: &Sizes, data: &TreeData, stop: &Stop) -> Result<(), String> {
        for (item, want) in phase.before {
            self.bring(*item, *want, sizes, data, stop).map_err(|e| format!("preparing: {e}"))?;
        }
        Ok(())
    }

    /// Runs `phase`, with everything in place.
    ///
    /// # Errors
    /// In words; what it worked on is then made anew before it is used again.
    pub fn perform(&mut self, phase: &Phase, sizes: &Sizes, data: &TreeData, stop: &Stop) -> Result<Yield, String> {
        let result = self.act(&phase.action, sizes, data, stop);
        match &result {
            Ok(_) => {
                for (item, shape) in phase.after {
                    self.set(*item, *shape);
                }
            }
            Err(_) if stop.asked() => {}
            Err(_) => {
                for (item, _) in phase.before {
                    // The failure that counts is the one there is already.
                    let _ = self.remove(*item, stop);
                }
            }
        }
        result
    }

    /// Removes everything of a group's phases.
    ///
    /// # Errors
    /// In words.
    pub fn clear(&mut self, stop: &Stop) -> Result<(), String> {
        Item::ALL.iter().try_for_each(|item| self.remove(*item, stop))
    }

    /// Removes the directory itself, interrupted or not.
    pub fn close(self) {
        let mut command = Command::new("rm");
        command.arg("-rf").arg(&self.top);
        if let Err(e) = run(command, Duration::from_secs(120), &Stop::default()) {
            eprintln!("ladrillo-bench: {} stays: {e}", self.top.display());
        }
    }

    fn bring(&mut self, item: Item, want: Want, sizes: &Sizes, data: &TreeData, stop: &Stop) -> Result<(), String> {
        let goal = match want {
            Want::Is(shape) => shape,
            Want::Complete if self.shape(item) == Shape::Renamed => return Ok(()),
            Want::Complete => Shape::Full,
        };
        for _ in 0..4 {
            let next = match (self.shape(item), goal) {
                (have, goal) if have == goal => return Ok(()),
                (_, Shape::Absent) => {
                    self.remove(item, stop)?;
                    Shape::Absent
                }
                (Shape::Absent, _) if !has_directories(item) => {
                    self.fill(item, sizes, data, stop)?;
                    Shape::Full
                }
                (Shape::Absent, _) => {
                    self.make_directories(item, sizes)?;
                    Shape::Empty
                }
                (Shape::Empty, _) => {
                    self.fill(item, sizes, data, stop)?;
                    Shape::Full
                }
                (Shape::Renamed, _) => {
                    self.work(Op::RenameBack, item, 4, None, sizes, stop)?;
                    Shape::Full
                }
                (Shape::Full, Shape::Renamed) => {
                    self.work(Op::Rename, item, 4, None, sizes, stop)?;
                    Shape::Renamed
                }
                (Shape::Full, _) => {
                    self.remove(item, stop)?;
                    Shape::Absent
                }
            };
            self.set(item, next);
        }
        Err(format!("{item:?} does not get {goal:?}"))
    }

    fn remove(&mut self, item: Item, stop: &Stop) -> Result<(), String> {
        if self.shape(item) != Shape::Absent || self.path(item).symlink_metadata().is_ok() {
            let mut command = Command::new("rm");
            command.arg("-rf").arg(self.path(item));
            run(command, self.limit, stop)?;
            self.set(item, Shape::Absent);
        }
        Ok(())
    }

    fn make_directories(&self, item: Item, sizes: &Sizes) -> Result<(), String> {
        let path = self.path(item);
        let make = |p: &Path| std::fs::create_dir(p).map_err(|e| format!("mkdir {}: {e}", p.display()));
        make(&path)?;
        (0..directories(item, sizes)).try_for_each(|d| make(&path.join(format!("d{d:02}"))))
    }

    /// From empty to full, by whatever makes it.
    fn fill(&self, item: Item, sizes: &Sizes, data: &TreeData, stop: &Stop) -> Result<(), String> {
        let script = |text| self.script(text, data, stop).map(|_| ());
        match item {
            Item::Dirs1 | Item::Dirs4 => self.work(Op::Mkdir, item, 4, None, sizes, stop).map(|_| ()),
            Item::Small1 | Item::Small4 => self.work(Op::Create, item, 4, None, sizes, stop).map(|_| ()),
            Item::Large => self.work(Op::CreateEmpty, item, 4, None, sizes, stop).map(|_| ()),
            Item::Tree => script("mkdir \"$1/tree\" && tar -C \"$1/tree\" -xf \"$2\""),
            Item::Copy => script("cp -a \"$1/tree\" \"$1/copy\""),
            Item::Clone => script("git clone -q \"file://$3\" \"$1/clone\""),
            Item::Stream => self.stream(true, sizes, stop).map(|_| ()),
            // Made by the phase itself.
            Item::Sync => Ok(()),
        }
    }

    fn act(&self, action: &Action, sizes: &Sizes, data: &TreeData, stop: &Stop) -> Result<Yield, String> {
        match *action {
            Action::Work(op, item, threads) => self.work(op, item, threads, None, sizes, stop),
            Action::Sample(item) => self.work(Op::Stat, item, 1, Some(SAMPLE), sizes, stop),
            Action::Stream { write } => self.stream(write, sizes, stop),
            Action::Random { write, access } => self.random(write, access, sizes, stop),
            Action::SyncWrites => self.sync_writes(sizes, stop),
            Action::Script(text, count) => {
                let done = self.script(text, data, stop)?;
                let amount = match count {
                    Count::Small => 2 * sizes.files,
                    Count::Tree => data.entries,
                    Count::Large => sizes.entries,
                } as f64;
                Ok(Yield { amount, seconds: done.seconds, load_cpu_s: done.cpu_s, ..Yield::default() })
            }
        }
    }

    fn script(&self, text: &str, data: &TreeData, stop: &Stop) -> Result<Done, String> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec >/dev/null\n{text}")).arg("sh");
        command.args([&self.top, &data.tar, &data.git]).env("LC_ALL", "C").env("GIT_CONFIG_NOSYSTEM", "1");
        // A subject's files belong to whoever runs this; no host's configuration takes part.
        command.env("GIT_CONFIG_GLOBAL", "/dev/null");
        run(command, self.limit, stop)
    }

    fn work(
        &self,
        op: Op,
        item: Item,
        threads: usize,
        sample: Option<u64>,
        sizes: &Sizes,
        stop: &Stop,
    ) -> Result<Yield, String> {
        let orders = Orders {
            op,
            directory: self.path(item),
            files: count(item, sizes),
            directories: directories(item, sizes),
            size: sizes.file_bytes,
            threads: threads as u64,
            sample,
            renamed: op == Op::Unlink && self.shape(item) == Shape::Renamed,
        };
        let done = run(orders.command()?, self.limit, stop)?;
        let answer: Answer =
            serde_json::from_str(&done.stdout).map_err(|e| format!("the worker's answer cannot be read: {e}"))?;
        Ok(Yield {
            amount: answer.ops as f64,
            seconds: answer.seconds,
            load_cpu_s: done.cpu_s,
            p50_us: Some(answer.p50_us),
            p99_us: Some(answer.p99_us),
        })
    }

    fn fio(&self, item: Item, args: &[&str], stop: &Stop) -> Result<(serde_json::Value, Done), String> {
        let mut command = Command::new("fio");
        command
            .args(["--name=job", "--output-format=json", "--group_reporting", "--randrepeat=1", "--fallocate=none"])
            .args(["--invalidate=1", "--eta=never"])
            .arg(joined("--filename=", self.path(item).as_os_str()))
            .args(args);
        let done = run(command, self.limit, stop)?;
        // Notes may stand before it.
        let json = done.stdout.find('{').and_then(|at| done.stdout.get(at..)).unwrap_or("");
        let value: serde_json::Value =
            serde_json::from_str(json).map_err(|e| format!("fio's answer cannot be read: {e}"))?;
        let job = value.pointer("/jobs/0").cloned().ok_or("fio's answer has no job")?;
        Ok((job, done))
    }

    fn stream(&self, write: bool, sizes: &Sizes, stop: &Stop) -> Result<Yield, String> {
        let size = format!("--size={}M", sizes.stream_mib);
        let mut args = vec!["--bs=1M", "--ioengine=psync", &size, if write { "--rw=write" } else { "--rw=read" }];
        if write {
            args.push("--end_fsync=1");
        }
        let (job, done) = self.fio(Item::Stream, &args, stop)?;
        let side = if write { "write" } else { "read" };
        let number = |path: &str| job.pointer(path).and_then(serde_json::Value::as_f64);
        let amount = number(&format!("/{side}/io_bytes")).ok_or("fio's answer has no bytes")? / 1e6;
        // job_runtime goes to the end of the fsync; milliseconds.
        let runtime = number(&format!("/{side}/runtime")).unwrap_or(0.0).max(number("/job_runtime").unwrap_or(0.0));
        let (p50_us, p99_us) = fio_latency(&job, &format!("/{side}/clat_ns"));
        Ok(Yield { amount, seconds: runtime / 1e3, load_cpu_s: done.cpu_s, p50_us, p99_us })
    }

    fn random(&self, write: bool, access: Access, sizes: &Sizes, stop: &Stop) -> Result<Yield, String> {
        let size = format!("--size={}M", sizes.stream_mib);
        let runtime = format!("--runtime={}", sizes.seconds);
        let mut args = vec!["--bs=4k", &size, &runtime, "--time_based"];
        args.push(if write { "--rw=randwrite" } else { "--rw=randread" });
        args.extend(match access {
            Access::Depth16 => ["--ioengine=io_uring", "--iodepth=16", "--numjobs=1", "--direct=1"],
            Access::Jobs4 => ["--ioengine=psync", "--iodepth=1", "--numjobs=4", "--direct=0"],
        });
        let (job, done) = self.fio(Item::Stream, &args, stop)?;
        let side = if write { "/write" } else { "/read" };
        let (p50_us, p99_us) = fio_latency(&job, &format!("{side}/clat_ns"));
        let (amount, seconds) = fio_operations(&job, side)?;
        Ok(Yield { amount, seconds, load_cpu_s: done.cpu_s, p50_us, p99_us })
    }

    fn sync_writes(&self, sizes: &Sizes, stop: &Stop) -> Result<Yield, String> {
        let runtime = format!("--runtime={}", sizes.seconds);
        let args =
            ["--rw=write", "--bs=4k", "--size=64M", "--ioengine=psync", "--fdatasync=1", "--time_based", &runtime];
        let (job, done) = self.fio(Item::Sync, &args, stop)?;
        let (amount, seconds) = fio_operations(&job, "/write")?;
        let (write, sync) = (fio_latency(&job, "/write/clat_ns"), fio_latency(&job, "/sync/lat_ns"));
        let sum = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a + b);
        let (p50_us, p99_us) = (sum(write.0, sync.0), sum(write.1, sync.1));
        Ok(Yield { amount, seconds, load_cpu_s: done.cpu_s, p50_us, p99_us })
    }
}

impl Orders {
    /// The command that carries them out.
    fn command(&self) -> Result<Command, String> {
        let own = std::env::current_exe().map_err(|e| format!("where is this program? {e}"))?;
        let op = clap::ValueEnum::to_possible_value(&self.op).ok_or("an operation without a name")?;
        let mut command = Command::new(own);
        command.arg("worker").arg(op.get_name()).arg(&self.directory);
        for (flag, value) in [
            ("--files", self.files),
            ("--directories", self.directories),
            ("--size", self.size as u64),
            ("--threads", self.threads),
        ] {
            command.arg(flag).arg(value.to_string());
        }
        if let Some(sample) = self.sample {
            command.arg("--sample").arg(sample.to_string());
        }
        if self.renamed {
            command.arg("--renamed");
        }
        Ok(command)
    }
}

fn has_directories(item: Item) -> bool {
    matches!(item, Item::Dirs1 | Item::Dirs4 | Item::Small1 | Item::Small4 | Item::Large)
}

fn directories(item: Item, sizes: &Sizes) -> u64 {
    if matches!(item, Item::Small1 | Item::Small4) { sizes.directories } else { 0 }
}

fn count(item: Item, sizes: &Sizes) -> u64 {
    match item {
        Item::Large => sizes.entries,
        Item::Dirs1 | Item::Dirs4 => sizes.files.min(MAX_DIRS),
        _ => sizes.files,
    }
}

fn joined(flag: &str, value: &OsStr) -> std::ffi::OsString {
    let mut whole = std::ffi::OsString::from(flag);
    // fio separates file names with colons.
    whole.push(value.to_string_lossy().replace(':', "\\:"));
    whole
}

/// Operations and seconds of a job's `/read` or `/write`.
fn fio_operations(job: &serde_json::Value, side: &str) -> Result<(f64, f64), String> {
    let number = |name: &str| job.pointer(&format!("{side}/{name}")).and_then(serde_json::Value::as_f64);
    let ops = number("total_ios").ok_or("fio's answer has no total_ios")?;
    let rate = number("iops").filter(|r| *r > 0.0).ok_or("fio did nothing")?;
    Ok((ops, ops / rate))
}

/// The median and the 99th percentile, microseconds.
fn fio_latency(job: &serde_json::Value, path: &str) -> (Option<f64>, Option<f64>) {
    let at = |share: &str| {
        let ns = job.pointer(path)?.get("percentile")?.get(share)?.as_f64()?;
        Some(ns / 1e3)
    };
    (at("50.000000"), at("99.000000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fios_answers() {
        let job = serde_json::json!({
            "write": {"total_ios": 5000, "iops": 1000.0,
                      "clat_ns": {"percentile": {"50.000000": 12_000, "99.000000": 99_500}}},
            "sync": {"lat_ns": {}}
        });
        assert_eq!(fio_operations(&job, "/write"), Ok((5000.0, 5.0)));
        assert!(fio_operations(&job, "/read").is_err());
        assert_eq!(fio_latency(&job, "/write/clat_ns"), (Some(12.0), Some(99.5)));
        assert_eq!(fio_latency(&job, "/sync/lat_ns"), (None, None));
    }

    #[test]
    fn names_with_colons_reach_fio_whole() {
        assert_eq!(joined("--filename=", OsStr::new("/a:b/c")), "--filename=/a\\:b/c");
    }
}
