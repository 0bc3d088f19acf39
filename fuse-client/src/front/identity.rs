//! Who the caller is: supplementary groups, which FUSE does not carry, from /proc, kept for gid-timeout.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Most callers remembered.
const MAX_CALLERS: usize = 4096;
/// Most groups of one caller. Source: Linux's NGROUPS_MAX.
const MAX_GROUPS: usize = 65536;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Caller {
    pid: u32,
    uid: u32,
    gid: u32,
}

struct Known {
    groups: Arc<[u32]>,
    since: Instant,
}

/// The groups of callers.
pub struct Groups {
    timeout: Duration,
    none: Arc<[u32]>,
    known: Mutex<HashMap<Caller, Known>>,
}

impl Groups {
    /// Remembers a caller's groups for `timeout`; zero asks /proc every time.
    pub fn new(timeout: Duration) -> Groups {
        Groups { timeout, none: Arc::from([]), known: Mutex::default() }
    }

    /// Supplementary groups of a caller; none for the kernel itself (pid 0) or a process that has ended.
    pub fn of(&self, pid: u32, uid: u32, gid: u32) -> Arc<[u32]> {
        if pid == 0 {
            return self.none.clone();
        }
        let caller = Caller { pid, uid, gid };
        if !self.timeout.is_zero()
            && let Some(known) = self.known.lock().get(&caller)
            && known.since.elapsed() < self.timeout
        {
            return known.groups.clone();
        }
        let groups = self.read(pid);
        if !self.timeout.is_zero() {
            let mut known = self.known.lock();
            if known.len() >= MAX_CALLERS {
                let timeout = self.timeout;
                known.retain(|_, entry| entry.since.elapsed() < timeout);
                if known.len() >= MAX_CALLERS {
                    known.clear();
                }
            }
            known.insert(caller, Known { groups: groups.clone(), since: Instant::now() });
        }
        groups
    }

    fn read(&self, pid: u32) -> Arc<[u32]> {
        match std::fs::read_to_string(format!("/proc/{pid}/status")) {
            Ok(status) => parse(&status).unwrap_or_else(|| self.none.clone()),
            Err(_) => self.none.clone(),
        }
    }
}

/// The `Groups:` line of a /proc/PID/status.
fn parse(status: &str) -> Option<Arc<[u32]>> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"))?;
    Some(line.split_ascii_whitespace().take(MAX_GROUPS).filter_map(|group| group.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_from_proc() {
        assert_eq!(*parse("Name:\tx\nGroups:\t4 24 1000 \nVmSize:\t1\n").unwrap(), [4, 24, 1000]);
        assert_eq!(*parse("Groups:\t \n").unwrap(), []);
        assert!(parse("no such line").is_none());
        let groups = Groups::new(Duration::from_secs(300));
        let own = rustix::process::getgroups().unwrap().len();
        let pid = std::process::id();
        assert_eq!(groups.of(pid, 0, 0).len(), own);
        assert_eq!(groups.of(pid, 0, 0).len(), own);
        assert_eq!(groups.of(0, 0, 0).len(), 0);
        assert_eq!(groups.of(u32::MAX, 0, 0).len(), 0);
    }

    #[test]
    fn the_cache_is_bounded() {
        let groups = Groups::new(Duration::from_secs(300));
        for uid in 0..MAX_CALLERS as u32 + 10 {
            groups.of(u32::MAX, uid, 0);
        }
        assert!(groups.known.lock().len() <= MAX_CALLERS);
    }
}
