//! Processor time: of the whole machine, of a subject's daemons, of the load generator.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use regex::Regex;

/// Processor time of the whole machine since it started, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineTime {
    /// Not idle and not waiting for a disk: user, nice, system, interrupts.
    pub busy_s: f64,
    /// Taken away by the hypervisor.
    pub stolen_s: f64,
    /// Context switches.
    pub switches: u64,
}

impl MachineTime {
    /// Reads /proc/stat; zeros where there is none.
    pub fn now() -> MachineTime {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        MachineTime::parse(&text, rustix::param::clock_ticks_per_second()).unwrap_or_default()
    }

    /// From the text of /proc/stat (proc_stat(5)).
    pub fn parse(text: &str, ticks_per_second: u64) -> Option<MachineTime> {
        let mut fields = text.lines().find_map(|l| l.strip_prefix("cpu "))?.split_whitespace();
        let mut ticks = [0_u64; 8];
        for slot in &mut ticks {
            // Old kernels have fewer columns.
            let Some(field) = fields.next() else { break };
            *slot = field.parse().ok()?;
        }
        let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks;
        let seconds = |t: u64| t as f64 / ticks_per_second.max(1) as f64;
        let switches = text.lines().find_map(|l| l.strip_prefix("ctxt "))?.trim().parse().ok()?;
        Some(MachineTime { busy_s: seconds(user + nice + system + irq + softirq), stolen_s: seconds(steal), switches })
    }
}

/// Which processes are a subject's daemons.
#[derive(Clone, Debug)]
pub enum Daemons {
    /// None: a local disk, or nobody asked.
    None,
    /// Those whose command line matches.
    CommandLine(Regex),
    /// Those in a network namespace, by what its link in /proc/PID/ns says.
    Network(String),
}

/// Processor time of some processes, by pid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessTimes(BTreeMap<i32, Duration>);

impl ProcessTimes {
    /// What was used since `before`, seconds. Processes that ended in between are not counted.
    pub fn since(&self, before: &ProcessTimes) -> f64 {
        let used = |(pid, time): (&i32, &Duration)| {
            time.saturating_sub(before.0.get(pid).copied().unwrap_or_default()).as_secs_f64()
        };
        // Not `sum`: that of nothing is -0.0.
        self.0.iter().map(used).fold(0.0, |sum, used| sum + used)
    }

    /// How many processes there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Daemons {
    /// Their pids now, never our own.
    pub fn pids(&self) -> Vec<i32> {
        if matches!(self, Daemons::None) {
            return Vec::new();
        }
        let own = std::process::id();
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| u32::try_from(*pid) != Ok(own) && self.has(*pid))
            .collect()
    }

    fn has(&self, pid: i32) -> bool {
        match self {
            Daemons::None => false,
            Daemons::CommandLine(regex) => fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|raw| !raw.is_empty() && regex.is_match(&command_line(&raw))),
            Daemons::Network(name) => {
                fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link.as_os_str() == name.as_str())
            }
        }
    }

    /// Their processor time so far, all threads, living or not, to the nanosecond.
    pub fn times(&self) -> ProcessTimes {
        ProcessTimes(self.pids().into_iter().filter_map(|pid| Some((pid, process_time(pid)?))).collect())
    }
}

/// /proc/PID/cmdline as it was typed.
fn command_line(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).replace('\0', " ").trim_end().to_owned()
}

/// The processor time of a process by its own clock: /proc/PID/stat has it in ticks of 10 ms only, too coarse for short
/// phases of cheap operations.
fn process_time(pid: i32) -> Option<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: clock_getcpuclockid(3) writes one clockid_t through a valid pointer.
    if unsafe { libc::clock_getcpuclockid(pid, &mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec through a valid pointer; an unknown clock is an error, no more.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return None;
    }
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

/// Processor time of our children that ended and were waited for: the load generators.
pub fn children_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage(2) fills the structure the valid pointer points to; zeroes are a valid one as well.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(u64::try_from(t.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(t.tv_usec).unwrap_or(0))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_stat() {
        let text = "cpu  100 20 30 4000 50 6 4 70 0 0\ncpu0 1 2 3\nintr 5\nctxt 123456\nbtime 1\n";
        let time = MachineTime::parse(text, 100).unwrap();
        assert_eq!(time, MachineTime { busy_s: 1.6, stolen_s: 0.7, switches: 123_456 });
        assert_eq!(MachineTime::parse("cpu  1 2 3 4\nctxt 5\n", 100).unwrap().busy_s, 0.06);
        assert_eq!(MachineTime::parse("cpu  1 2 x 4\nctxt 5\n", 100), None);
        assert_eq!(MachineTime::parse("", 100), None);
        assert_eq!(MachineTime::parse("cpu  1 2 3 4\n", 100), None);
    }

    #[test]
    fn command_lines_are_matched_as_typed() {
        assert_eq!(command_line(b"/usr/sbin/glusterfsd\0-s\0debian1\0"), "/usr/sbin/glusterfsd -s debian1");
    }

    #[test]
    fn time_used_by_processes_that_stayed_and_that_came() {
        let at = |list: &[(i32, u64)]| {
            ProcessTimes(list.iter().map(|(pid, ms)| (*pid, Duration::from_millis(*ms))).collect())
        };
        let used = at(&[(1, 1500), (3, 250)]).since(&at(&[(1, 1000), (2, 700)]));
        assert!((used - 0.75).abs() < 1e-9);
        assert!(at(&[]).since(&at(&[])).is_sign_positive());
    }

    #[test]
    fn a_process_that_works_is_seen_to() {
        // Tied to this very child by its arguments.
        let mark = format!("ladrillo-bench-cpu-test-{}", std::process::id());
        let mut child =
            std::process::Command::new("sh").args(["-c", "while :; do :; done", &mark]).spawn().expect("sh runs");
        let daemons = Daemons::CommandLine(Regex::new(&mark).expect("an expression"));
        let before = daemons.times();
        let end = std::time::Instant::now() + Duration::from_secs(10);
        let mut used = 0.0;
        while used < 0.02 && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
            used = daemons.times().since(&before);
        }
        let _ = child.kill();
        let reaped = children_time();
        let _ = child.wait();
        assert!(used >= 0.02, "a busy loop used {used} s of processor time");
        assert!(children_time() > reaped, "its time is added to ours once it was waited for");
        assert_eq!(Daemons::None.times().count(), 0);
    }
}
