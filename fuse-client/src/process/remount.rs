//! `mount -o remount,...`: changes the kernel's flags of a mount (ro, nosuid, noatime...) while the client behind it goes on.
//!
//! What the client itself was told when it was mounted (`acl`, servers, timeouts) stays: mount(8) repeats it from
//! /etc/fstab or /proc/mounts, so that it is no error here.

use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, mount_remount};

/// The flags that `options` (as mount(8) merged them, the last word counts) leave set, and the words that no remount
/// changes.
fn flags<'a>(options: impl IntoIterator<Item = &'a str>) -> (MountFlags, Vec<&'a str>) {
    let (mut flags, mut others) = (MountFlags::empty(), Vec::new());
    for option in options {
        let (flag, on) = match option {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "diratime" => (MountFlags::NODIRATIME, false),
            "relatime" => (MountFlags::RELATIME, true),
            "norelatime" => (MountFlags::RELATIME, false),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "nostrictatime" => (MountFlags::STRICTATIME, false),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "async" => (MountFlags::SYNCHRONOUS, false),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "remount" | "defaults" | "" => continue,
            other => {
                others.push(other);
                continue;
            }
        };
        flags.set(flag, on);
    }
    (flags, others)
}

/// Whether a word is what the kernel itself shows of every FUSE mount, or fstab(5)'s and not the file system's.
fn is_noise(option: &str) -> bool {
    let key = option.split_once('=').map_or(option, |(key, _)| key);
    matches!(
        key,
        "user_id"
            | "group_id"
            | "default_permissions"
            | "allow_other"
            | "max_read"
            | "blksize"
            | "rootmode"
            | "_netdev"
            | "nofail"
            | "auto"
            | "noauto"
            | "user"
            | "nouser"
            | "users"
            | "owner"
            | "group"
    ) || key.starts_with("x-")
        || key.starts_with("comment")
}

/// Whether `options` ask for a remount.
pub fn asked<'a>(options: impl IntoIterator<Item = &'a str>) -> bool {
    options.into_iter().any(|option| option == "remount")
}

/// Remounts; the answer is what was asked for besides, and stays as it was.
///
/// # Errors
/// mount(2)'s: nothing is mounted there, it is busy (open for writing, on its way to read-only).
pub fn remount<'a>(mount_point: &Path, options: impl IntoIterator<Item = &'a str>) -> io::Result<Vec<String>> {
    let (flags, others) = flags(options);
    mount_remount(mount_point, flags, c"")?;
    Ok(others.into_iter().filter(|option| !is_noise(option)).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let words = |text: &'static str| flags(text.split(','));
        assert_eq!(words("rw,relatime,remount,ro"), (MountFlags::RELATIME | MountFlags::RDONLY, vec![]));
        assert_eq!(words("ro,nosuid,suid,rw").0, MountFlags::empty());
        let (set, others) = words("remount,noatime,acl,user_id=0,x-systemd.automount,attribute-timeout=0");
        assert_eq!(set, MountFlags::NOATIME);
        assert_eq!(others.into_iter().filter(|o| !is_noise(o)).collect::<Vec<_>>(), ["acl", "attribute-timeout=0"]);
        assert!(asked(["ro", "remount"]) && !asked(["ro"]));
    }

    #[test]
    fn nothing_is_mounted_there() {
        assert!(remount(Path::new("/no/such/place"), ["remount", "ro"]).is_err());
    }
}
