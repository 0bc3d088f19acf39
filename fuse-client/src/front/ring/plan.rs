//! How much memory the ring takes, and in what portions.

use std::io;

/// Entries of a queue, at most: more do not make anything faster (measured: reference figures are of 8).
const MAX_DEPTH: usize = 8;
/// Below this a smaller largest write costs more than the ring gains.
const MIN_WRITE_BYTES: usize = 128 << 10;
/// Which CPUs there may ever be: the kernel has a queue for each.
const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";
/// Whether the kernel's FUSE offers it.
const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";

/// Queues, entries and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One for each possible CPU.
    pub queues: u16,
    /// Entries of a queue at the beginning.
    pub depth: usize,
    /// Largest write, in bytes.
    pub max_write_bytes: u32,
}

/// Whether this kernel has FUSE over io_uring, and it is turned on.
pub fn is_offered() -> bool {
    std::fs::read_to_string(PARAMETER).is_ok_and(|value| value.trim() == "Y")
}

impl Plan {
    /// For this machine.
    ///
    /// # Errors
    /// /sys does not say how many CPUs there may be, or they are so many that the budget does not do.
    pub fn new(budget_bytes: usize, max_write_bytes: u32) -> io::Result<Plan> {
        let text = std::fs::read_to_string(POSSIBLE_CPUS)
            .map_err(|error| io::Error::new(error.kind(), format!("{POSSIBLE_CPUS}: {error}")))?;
        let cpus = count(text.trim())
            .ok_or_else(|| io::Error::other(format!("{POSSIBLE_CPUS} says {text:?}, which is no list of CPUs")))?;
        Plan::of(budget_bytes, cpus, max_write_bytes).ok_or_else(|| {
            io::Error::other(format!("{cpus} CPUs need more memory than the {} MiB there are", budget_bytes >> 20))
        })
    }

    fn of(budget_bytes: usize, cpus: usize, max_write_bytes: u32) -> Option<Plan> {
        let queues = u16::try_from(cpus).ok().filter(|queues| *queues > 0)?;
        let each = budget_bytes / cpus;
        let mut max_write = max_write_bytes as usize;
        while each < max_write && max_write / 2 >= MIN_WRITE_BYTES {
            max_write /= 2;
        }
        if each < max_write {
            return None;
        }
        let depth = (each / max_write.max(1)).clamp(1, MAX_DEPTH);
        Some(Plan { queues, depth, max_write_bytes: max_write as u32 })
    }
}

/// How many CPUs a list like `0-3,8` names.
fn count(list: &str) -> Option<usize> {
    let mut total = 0usize;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        total = total.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_shared_by_the_cpus() {
        const MIB: u32 = 1 << 20;
        let of = |cpus| Plan::of(64 << 20, cpus, MIB);
        assert_eq!(of(2), Some(Plan { queues: 2, depth: 8, max_write_bytes: MIB }));
        assert_eq!(of(16), Some(Plan { queues: 16, depth: 4, max_write_bytes: MIB }));
        assert_eq!(of(64), Some(Plan { queues: 64, depth: 1, max_write_bytes: MIB }));
        assert_eq!(of(100), Some(Plan { queues: 100, depth: 1, max_write_bytes: MIB / 2 }));
        assert_eq!(of(512), Some(Plan { queues: 512, depth: 1, max_write_bytes: MIB / 8 }));
        assert_eq!(of(513), None);
        assert_eq!(of(0), None);
        assert_eq!(Plan::of(64 << 20, 8, 4096).unwrap().depth, 8);
    }

    #[test]
    fn cpu_lists_are_counted() {
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("0-1"), Some(2));
        assert_eq!(count("0-3,8-11,16"), Some(9));
        for bad in ["", "x", "3-1", "0-18446744073709551615", "0-"] {
            assert_eq!(count(bad), None, "{bad}");
        }
    }
}
