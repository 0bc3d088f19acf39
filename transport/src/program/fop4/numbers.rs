//! Enumerations of the wire and their Rust forms.

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{EntrylkCmd, LockCmd, LockType, SeekWhat, XattropKind};

use crate::xdr::DecodeError;

/// The wire's errno (GF_ERROR_CODE_*): Linux's numbers up to 1023. 0 or garbage from a failing peer becomes EIO.
pub(super) fn errno_from_wire(number: i32) -> i32 {
    if (1..1024).contains(&number) { number } else { errno::EIO }
}

pub(super) fn errno_to_wire(number: i32) -> i32 {
    errno_from_wire(number)
}

macro_rules! enumeration {
    ($to:ident, $from:ident, $type:ident, $what:literal, { $($variant:ident = $number:literal),* $(,)? }) => {
        pub(super) fn $to(value: $type) -> u32 {
            match value { $($type::$variant => $number),* }
        }

        pub(super) fn $from(number: u32) -> Result<$type, DecodeError> {
            match number {
                $($number => Ok($type::$variant),)*
                _ => Err(DecodeError::BadValue { what: $what, value: i64::from(number) }),
            }
        }
    };
}

// GF_LK_GETLK and so on. The recovery commands (3..=6) are obsolete; nobody sends them.
enumeration!(lock_cmd_to_wire, lock_cmd_from_wire, LockCmd, "lock command", { Get = 0, Set = 1, SetWait = 2 });
// GF_LK_F_RDLCK and so on; ENTRYLK_RDLCK and ENTRYLK_WRLCK have the same numbers.
enumeration!(lock_type_to_wire, lock_type_from_wire, LockType, "lock type", { Read = 0, Write = 1, Unlock = 2 });
enumeration!(entrylk_cmd_to_wire, entrylk_cmd_from_wire, EntrylkCmd, "entrylk command", {
    Lock = 0, Unlock = 1, TryLock = 2,
});
enumeration!(seek_to_wire, seek_from_wire, SeekWhat, "seek", { Data = 0, Hole = 1 });
enumeration!(xattrop_to_wire, xattrop_from_wire, XattropKind, "xattrop", {
    AddArray = 0, AddArray64 = 1, OrArray = 2, AndArray = 3, GetAndSet = 4,
    AddArrayWithDefault = 5, AddArray64WithDefault = 6,
});

/// Open flags and their numbers on the wire (GF_O_*, which are x86's, except that O_SYNC is one bit).
const OPEN_FLAGS: [(i32, u32); 13] = [
    (libc::O_CREAT, 0o100),
    (libc::O_EXCL, 0o200),
    (libc::O_NOCTTY, 0o400),
    (libc::O_TRUNC, 0o1000),
    (libc::O_APPEND, 0o2000),
    (libc::O_NONBLOCK, 0o4000),
    (libc::O_SYNC, 0o10000),
    (libc::O_ASYNC, 0o20000),
    (libc::O_DIRECT, 0o40000),
    (libc::O_DIRECTORY, 0o200000),
    (libc::O_NOFOLLOW, 0o400000),
    (libc::O_NOATIME, 0o1000000),
    (libc::O_CLOEXEC, 0o2000000),
];

/// Linux's FMODE_EXEC, which FUSE passes for programs being executed.
const FMODE_EXEC: u32 = 0o40;
const ACCESS_MODE: u32 = 0o3;

/// Linux open flags as the wire has them. Flags it does not know are dropped (O_LARGEFILE is implied).
pub fn open_flags_to_wire(flags: u32) -> u32 {
    let mut wire = flags & (ACCESS_MODE | FMODE_EXEC);
    for (ours, theirs) in OPEN_FLAGS {
        if flags & ours as u32 != 0 {
            wire |= theirs;
        }
    }
    wire
}

/// Linux open flags from the wire's.
pub fn open_flags_from_wire(wire: u32) -> u32 {
    let mut flags = wire & (ACCESS_MODE | FMODE_EXEC);
    for (ours, theirs) in OPEN_FLAGS {
        if wire & theirs != 0 {
            flags |= ours as u32;
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_round_trip() {
        for flags in [0, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, libc::O_WRONLY | libc::O_SYNC | libc::O_DIRECT] {
            assert_eq!(open_flags_from_wire(open_flags_to_wire(flags as u32)), flags as u32);
        }
        assert_eq!(open_flags_to_wire((libc::O_WRONLY | libc::O_DSYNC) as u32), 0o10001);
    }

    #[test]
    fn an_errno_is_never_zero_or_negative() {
        assert_eq!([0, -5, 2, 1024].map(errno_from_wire), [5, 5, 2, 5]);
    }
}
