//! What the measurements were made on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cpu::MachineTime;
use crate::process::{Stop, run};

/// The machine, before anything was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// As in /proc/cpuinfo.
    pub processor: String,
    /// How many processors there are.
    pub processors: usize,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Kernel release.
    pub kernel: String,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Share of the processors that was busy during one second before the start.
    pub busy_share: f64,
    /// Whether the kernel's caches can be dropped; without it the cold phases are warm.
    pub drops_caches: bool,
    /// Versions of the programs that are used, by name.
    pub versions: Vec<(String, String)>,
}

/// More than this share of the processors busy, and results are doubtful.
const IDLE_SHARE: f64 = 0.05;
/// More than this load per processor, and results are doubtful.
const IDLE_LOAD: f64 = 0.3;

impl Machine {
    /// Looks around, for a second.
    pub fn look(keep_caches: bool, stop: &Stop) -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let before = MachineTime::now();
        std::thread::sleep(Duration::from_secs(1));
        let busy_s = MachineTime::now().busy_s - before.busy_s;
        Machine {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            processors,
            memory_mib: field(&meminfo, "MemTotal")
                .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            load: load(&fs::read_to_string("/proc/loadavg").unwrap_or_default()),
            busy_share: busy_s / processors as f64,
            drops_caches: !keep_caches && drop_caches(),
            versions: ["fio --version", "git --version", "tar --version"]
                .iter()
                .filter_map(|line| {
                    let (program, argument) = line.split_once(' ')?;
                    Some((program.to_owned(), version(Path::new(program), argument, stop)?))
                })
                .collect(),
        }
    }

    /// Why results may be doubtful.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let per_processor = self.load[0] / self.processors.max(1) as f64;
        if self.busy_share > IDLE_SHARE || per_processor > IDLE_LOAD {
            warnings.push(format!(
                "this machine is not idle: {:.0} % of its processors were busy before the start, load {:.2}; rates are \
                 unreliable, processor time per operation less so",
                self.busy_share * 100.0,
                self.load[0]
            ));
        }
        if !self.drops_caches {
            warnings.push("the kernel's caches are not dropped (it takes root): the cold phases are warm".into());
        }
        warnings
    }
}

/// Drops the kernel's caches. Returns whether that is possible.
pub fn drop_caches() -> bool {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3\n").is_ok()
}

/// The first line of what a program says of itself.
pub fn version(program: &Path, argument: &str, stop: &Stop) -> Option<String> {
    let mut command = Command::new(program);
    command.arg(argument);
    let done = run(command, Duration::from_secs(10), stop).ok()?;
    done.stdout.lines().next().map(|l| l.trim().to_owned())
}

/// Whether a program is in PATH.
pub fn has(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|d| d.join(program).is_file()))
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn load(text: &str) -> [f64; 3] {
    let mut load = [0.0; 3];
    for (slot, word) in load.iter_mut().zip(text.split_whitespace()) {
        *slot = word.parse().unwrap_or(0.0);
    }
    load
}

/// Type and source of the file system a directory is on, by the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).
pub fn file_system(mountinfo: &str, directory: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mountinfo.lines() {
        let (left, right) = line.split_once(" - ")?;
        let point = unescape(left.split(' ').nth(4)?);
        let mut words = right.split(' ');
        let (kind, source) = (words.next()?, words.next()?);
        // Of mounts on the same point the last one is seen.
        if directory.starts_with(&point) && best.as_ref().is_none_or(|(length, _)| point.len() >= *length) {
            best = Some((point.len(), format!("{kind} ({})", unescape(source))));
        }
    }
    best.map(|(_, name)| name)
}

/// Undoes the octal escapes of mount tables.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// A time as `2026-11-23 12:34:56` UTC.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files() {
        let meminfo = "MemTotal:        8039464 kB\nMemFree: 1 kB\n";
        assert_eq!(field(meminfo, "MemTotal"), Some("8039464 kB"));
        assert_eq!(field(meminfo, "Nothing"), None);
        assert_eq!(load("1.50 0.75 0.25 2/345 6789\n"), [1.5, 0.75, 0.25]);
        assert_eq!(load(""), [0.0; 3]);
    }

    #[test]
    fn the_mount_nearest_to_a_directory() {
        let table = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                     30 22 0:40 / /mnt/a\\040b rw - fuse.glusterfs host:/gv0 rw\n\
                     31 22 0:41 / /mnt rw master:3 - tmpfs tmpfs rw\n";
        assert_eq!(file_system(table, Path::new("/var/tmp")).as_deref(), Some("ext4 (/dev/vda1)"));
        assert_eq!(file_system(table, Path::new("/mnt/a b/c")).as_deref(), Some("fuse.glusterfs (host:/gv0)"));
        assert_eq!(file_system(table, Path::new("/mnt/a")).as_deref(), Some("tmpfs (tmpfs)"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn dates() {
        let at = |s| utc(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_827_696), "2000-02-29 12:34:56");
        assert_eq!(at(1_798_761_599), "2026-12-31 23:59:59");
    }

    #[test]
    fn busy_machines_are_warned_of() {
        let idle = Machine { processors: 2, busy_share: 0.01, drops_caches: true, ..Machine::default() };
        assert!(idle.warnings().is_empty());
        let busy = Machine { busy_share: 0.4, ..idle.clone() };
        assert!(busy.warnings()[0].contains("not idle: 40 %"));
        let loaded = Machine { load: [1.0, 0.0, 0.0], ..idle.clone() };
        assert_eq!(loaded.warnings().len(), 1);
        assert!(Machine { drops_caches: false, ..idle }.warnings()[0].contains("warm"));
    }
}
