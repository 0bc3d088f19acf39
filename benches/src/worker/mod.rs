//! The load generator for small files: a process of its own, so that it can be killed and its processor time is known.

mod tree;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::phase::Op;
use crate::stats::percentile;

pub use tree::make_tree;

/// What a worker is told: operations on files `fileNNNNNN` in `directories` directories `dNN`.
#[derive(Clone, Debug, clap::Args)]
pub struct Orders {
    /// What to do
    #[arg(value_enum)]
    pub op: Op,
    /// Where
    pub directory: PathBuf,
    /// How many files
    #[arg(long)]
    pub files: u64,
    /// Spread over so many directories; 0: all right in DIRECTORY
    #[arg(long, default_value_t = 0)]
    pub directories: u64,
    /// Size of each file, bytes
    #[arg(long, default_value_t = 4096)]
    pub size: usize,
    /// Threads that share the files
    #[arg(long, default_value_t = 1)]
    pub threads: u64,
    /// Only so many of the files, spread evenly over all, in no order
    #[arg(long)]
    pub sample: Option<u64>,
    /// The files have the names that rename gives
    #[arg(long)]
    pub renamed: bool,
}

/// What a worker answers.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Answer {
    /// Operations done.
    pub ops: u64,
    /// How long they took, all threads together, seconds.
    pub seconds: f64,
    /// Half of the operations took no longer than this, microseconds.
    pub p50_us: f64,
    /// 99 of 100 operations took no longer than this, microseconds.
    pub p99_us: f64,
}

/// Appended to the names by rename.
const RENAMED: &str = ".r";
const APPENDED: [u8; 100] = [b'x'; 100];
/// Steps through the files in no order: it shares no factor with most counts.
const STRIDE: u64 = 7_919;

impl Orders {
    fn path(&self, index: u64) -> PathBuf {
        let directory = match self.directories {
            0 => self.directory.clone(),
            n => self.directory.join(format!("d{:02}", index.saturating_mul(n) / self.files.max(1))),
        };
        directory.join(format!("file{index:06}{}", if self.renamed { RENAMED } else { "" }))
    }

    /// The files of one thread.
    fn share(&self, thread: u64) -> Vec<(u64, PathBuf)> {
        let (count, of) = match self.sample {
            Some(sample) => (sample.min(self.files), sample.min(self.files)),
            None => (self.files, 0),
        };
        (thread..count)
            .step_by(usize::try_from(self.threads.max(1)).unwrap_or(1))
            .map(|i| if of == 0 { i } else { (i * STRIDE % of) * (self.files / of) })
            .map(|i| (i, self.path(i)))
            .collect()
    }
}

/// Carries the orders out.
///
/// # Errors
/// The first operation that failed: what, the path, the system's words.
pub fn work(orders: &Orders) -> Result<Answer, String> {
    let threads = orders.threads.clamp(1, 256);
    let barrier = Barrier::new(usize::try_from(threads).unwrap_or(1));
    let results = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || one_thread(orders, thread, barrier))
            })
            .collect();
        handles.into_iter().map(|h| h.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))).collect()
    });
    let results: Result<Vec<Share>, String> = results;
    let results = results?;
    let start = results.iter().map(|r| r.start).min();
    let end = results.iter().map(|r| r.end).max();
    let seconds = start.zip(end).map_or(0.0, |(s, e)| e.duration_since(s).as_secs_f64());
    let mut latencies: Vec<u64> = results.into_iter().flat_map(|r| r.latencies_ns).collect();
    latencies.sort_unstable();
    let us = |share| percentile(&latencies, share).unwrap_or(0) as f64 / 1e3;
    Ok(Answer { ops: latencies.len() as u64, seconds, p50_us: us(0.5), p99_us: us(0.99) })
}

struct Share {
    start: Instant,
    end: Instant,
    latencies_ns: Vec<u64>,
}

fn one_thread(orders: &Orders, thread: u64, barrier: &Barrier) -> Result<Share, String> {
    let files = orders.share(thread);
    let mut hands = Hands { contents: contents(orders.size), read: vec![0; orders.size] };
    let mut latencies_ns = Vec::with_capacity(files.len());
    barrier.wait();
    let start = Instant::now();
    let mut before = start;
    for (index, path) in &files {
        hands
            .one(orders.op, *index, path)
            .map_err(|e| format!("{:?} {}: {e}", orders.op, path.display()).to_lowercase_first())?;
        let now = Instant::now();
        latencies_ns.push(u64::try_from(now.duration_since(before).as_nanos()).unwrap_or(u64::MAX));
        before = now;
    }
    Ok(Share { start, end: before, latencies_ns })
}

trait LowercaseFirst {
    fn to_lowercase_first(self) -> String;
}

impl LowercaseFirst for String {
    fn to_lowercase_first(mut self) -> String {
        if let Some(first) = self.get_mut(0..1) {
            first.make_ascii_lowercase();
        }
        self
    }
}

/// What files contain, the same in every run and hard to compress; each file has its number in front.
fn contents(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

struct Hands {
    contents: Vec<u8>,
    read: Vec<u8>,
}

impl Hands {
    fn mark(&mut self, index: u64) {
        let size = self.contents.len().min(8);
        if let (Some(to), Some(from)) = (self.contents.get_mut(..size), index.to_le_bytes().get(..size)) {
            to.copy_from_slice(from);
        }
    }

    fn one(&mut self, op: Op, index: u64, path: &Path) -> std::io::Result<()> {
        match op {
            Op::Mkdir => fs::create_dir(path),
            Op::Rmdir => fs::remove_dir(path),
            Op::Create => {
                self.mark(index);
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
                file.write_all(&self.contents)?;
                close(file)
            }
            Op::CreateEmpty => close(OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?),
            Op::Stat => fs::metadata(path).map(|_| ()),
            Op::Read => {
                self.mark(index);
                let mut file = File::open(path)?;
                file.read_exact(&mut self.read)?;
                close(file)?;
                if self.read != self.contents {
                    return Err(std::io::Error::other("it does not hold what was written to it"));
                }
                Ok(())
            }
            Op::Append => {
                let mut file = OpenOptions::new().append(true).open(path)?;
                file.write_all(&APPENDED)?;
                close(file)
            }
            Op::Chmod => fs::set_permissions(path, fs::Permissions::from_mode(0o600)),
            Op::Rename => fs::rename(path, with(path, RENAMED)),
            Op::RenameBack => fs::rename(with(path, RENAMED), path),
            Op::Unlink => fs::remove_file(path),
        }
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// close(2), with the error that dropping a file hides: written data may be refused here.
fn close(file: File) -> std::io::Result<()> {
    let fd = std::os::fd::IntoRawFd::into_raw_fd(file);
    // SAFETY: the descriptor was this file's own, and nothing uses it after this.
    if unsafe { libc::close(fd) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(directory: &Path, op: Op) -> Orders {
        Orders {
            op,
            directory: directory.to_owned(),
            files: 103,
            directories: 4,
            size: 4096,
            threads: 4,
            sample: None,
            renamed: false,
        }
    }

    #[test]
    fn every_operation_on_every_file() {
        let base = std::env::temp_dir().join(format!("ladrillo-bench-worker-{}", std::process::id()));
        for d in 0..4 {
            fs::create_dir_all(base.join(format!("d{d:02}"))).unwrap();
        }
        let there = || walk(&base);
        for op in [Op::Create, Op::Stat, Op::Read, Op::Append, Op::Read, Op::Chmod, Op::Rename, Op::RenameBack] {
            let answer = work(&orders(&base, op)).unwrap();
            assert_eq!((answer.ops, there()), (103, 103), "{op:?}");
            assert!(answer.p50_us <= answer.p99_us && answer.seconds > 0.0);
        }
        let sampled = work(&Orders { sample: Some(10), ..orders(&base, Op::Stat) }).unwrap();
        assert_eq!(sampled.ops, 10);
        // Exclusive creation: the second one is refused, in words.
        let again = work(&orders(&base, Op::Create)).unwrap_err();
        assert!(again.starts_with("create /") && again.contains("exists"), "{again}");
        // Another's contents are noticed.
        fs::copy(base.join("d00/file000000"), base.join("d00/file000001")).unwrap();
        assert!(work(&orders(&base, Op::Read)).unwrap_err().contains("file000001"));
        work(&orders(&base, Op::Rename)).unwrap();
        work(&Orders { renamed: true, ..orders(&base, Op::Unlink) }).unwrap();
        assert_eq!(there(), 0);
        work(&Orders { directories: 0, ..orders(&base, Op::Mkdir) }).unwrap();
        work(&Orders { directories: 0, ..orders(&base, Op::Rmdir) }).unwrap();
        assert_eq!(there(), 0);
        fs::remove_dir_all(&base).unwrap();
    }

    fn walk(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().flatten().map(|d| fs::read_dir(d.path()).map_or(1, |l| l.count())).sum()
    }

    #[test]
    fn samples_are_different_files_of_all() {
        let all = Orders { files: 100_000, directories: 0, sample: Some(1000), ..orders(Path::new("/x"), Op::Stat) };
        let mut indices: Vec<u64> =
            (0..4).flat_map(|t| all.share(t)).map(|(i, _)| i).inspect(|i| assert!(*i < 100_000)).collect();
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), 1000);
        assert_eq!(indices.last(), Some(&99_900));
    }
}
