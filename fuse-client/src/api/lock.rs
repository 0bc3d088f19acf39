//! Locks on ranges of open files.

use ladrillo_translator::LockOwner;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Flock, LockType};

use super::error::{Error, Result};

/// What a lock allows others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// To lock the same for reading.
    Shared,
    /// Nothing.
    Exclusive,
}

/// Which bytes of a file are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    /// First byte.
    pub start: u64,
    /// How many; `None` = to the end of the file, wherever that will be.
    pub length: Option<u64>,
}

impl LockRange {
    /// The whole file.
    pub const ALL: LockRange = LockRange { start: 0, length: None };

    pub(super) fn flock(self, kind: LockType, owner: &LockOwner) -> Result<Flock> {
        let bad = || Error::new(errno::EINVAL, format!("a lock of {self:?}"));
        let length = match self.length {
            None => 0,
            Some(0) => return Err(bad()),
            Some(length) => length,
        };
        // Offsets are signed on the wire's other side.
        let end = self.start.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        end.ok_or_else(bad)?;
        Ok(Flock { kind, whence: 0, start: self.start, len: length, pid: std::process::id(), owner: owner.clone() })
    }
}

impl From<LockKind> for LockType {
    fn from(kind: LockKind) -> LockType {
        match kind {
            LockKind::Shared => LockType::Read,
            LockKind::Exclusive => LockType::Write,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_no_file_has_are_refused() {
        let owner = LockOwner::from_u64(1);
        let flock = |start, length| LockRange { start, length }.flock(LockType::Read, &owner);
        assert_eq!(flock(5, Some(10)).map(|f| (f.start, f.len)).unwrap(), (5, 10));
        assert_eq!(flock(5, None).map(|f| (f.start, f.len)).unwrap(), (5, 0));
        for (start, length) in [(0, Some(0)), (1, Some(u64::MAX)), (u64::MAX, None), (1 << 62, Some(1 << 62))] {
            assert_eq!(flock(start, length).unwrap_err().errno(), errno::EINVAL);
        }
    }
}
