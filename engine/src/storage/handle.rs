//! Names under `.glusterfs`: where a gfid's handle is, and what a directory's handle says.

use ladrillo_translator::fop::Name;
use ladrillo_translator::{FopError, FopResult, Gfid, error::errno};

/// The housekeeping directory at the brick's root.
pub const HIDDEN: &str = ".glusterfs";

/// Path of a gfid's handle relative to `.glusterfs`: `aa/bb/<gfid>`, aa and bb being its first two bytes in hex.
pub fn handle_path(gfid: Gfid) -> String {
    format!("{:02x}/{:02x}/{gfid}", gfid.0[0], gfid.0[1])
}

/// What the symlink handle of a directory holds: `../../pp/qq/<parent gfid>/<name>`.
pub fn directory_link(parent: Gfid, name: &[u8]) -> Vec<u8> {
    let mut link = format!("../../{}/", handle_path(parent)).into_bytes();
    link.extend_from_slice(name);
    link
}

/// Reads a directory's symlink handle back; `None` for a link that is no such handle (an ordinary symlink's own text).
pub fn parse_directory_link(link: &[u8]) -> Option<(Gfid, Name)> {
    let rest = link.strip_prefix(b"../../")?;
    // "pp/qq/" then 36 characters of gfid, "/", name.
    let gfid: Gfid = std::str::from_utf8(rest.get(6..42)?).ok()?.parse().ok()?;
    let name = rest.get(42..)?.strip_prefix(b"/")?;
    let exact = directory_link(gfid, name);
    (exact == link && check_name(name).is_ok()).then(|| (gfid, Name::copy_from_slice(name)))
}

/// Refuses what is no name of an entry: empty, `.`, `..`, with `/` or NUL (EINVAL), or longer than 255 bytes (ENAMETOOLONG).
pub fn check_name(name: &[u8]) -> FopResult<()> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(FopError::new(
            errno::EINVAL,
            format!("{:?} is not a name in a directory", String::from_utf8_lossy(&name[..name.len().min(64)])),
        ));
    }
    if name.len() > 255 {
        return Err(FopError::new(errno::ENAMETOOLONG, format!("a name of {} bytes", name.len())));
    }
    Ok(())
}

/// Name of the xattr that records one of an inode's names: `trusted.gfid2path.` and the XXH64 (seed 0) of
/// `<parent gfid>/<name>` in hex; and its value, that same text.
pub fn gfid2path(parent: Gfid, name: &[u8]) -> (String, Vec<u8>) {
    let mut value = format!("{parent}/").into_bytes();
    value.extend_from_slice(name);
    (format!("{GFID2PATH_PREFIX}{:016x}", xxhash_rust::xxh64::xxh64(&value, 0)), value)
}

/// What names of gfid2path xattrs begin with.
pub const GFID2PATH_PREFIX: &str = "trusted.gfid2path.";

/// The parent and name a gfid2path value holds.
pub fn parse_gfid2path(value: &[u8]) -> Option<(Gfid, &[u8])> {
    let parent = std::str::from_utf8(value.get(..36)?).ok()?.parse().ok()?;
    Some((parent, value.get(36..)?.strip_prefix(b"/")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_links_round_trip_and_others_are_refused() {
        let parent: Gfid = "8f1b7c3e-0d6a-4c55-9a6e-0123456789ab".parse().unwrap();
        let link = directory_link(parent, b"some dir");
        assert_eq!(link, b"../../8f/1b/8f1b7c3e-0d6a-4c55-9a6e-0123456789ab/some dir");
        assert_eq!(parse_directory_link(&link), Some((parent, Name::from_static(b"some dir"))));
        for bad in [&b"../../etc/passwd"[..], b"", b"../../8f/1b/8f1b7c3e-0d6a-4c55-9a6e-0123456789ab/../x"] {
            assert_eq!(parse_directory_link(bad), None);
        }
        // The two levels must be the gfid's own.
        assert_eq!(parse_directory_link(b"../../00/1b/8f1b7c3e-0d6a-4c55-9a6e-0123456789ab/d"), None);
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(check_name(bad).unwrap_err().errno, errno::EINVAL);
        }
        assert_eq!(check_name(&[b'x'; 256]).unwrap_err().errno, errno::ENAMETOOLONG);
        assert!(check_name(&[b'x'; 255]).is_ok());
    }

    #[test]
    fn gfid2path_is_what_glusterfs_writes() {
        // Taken from a brick of GlusterFS 10.3 (see docs/brick-format.md).
        let (key, value) = gfid2path(Gfid::ROOT, b"file");
        assert_eq!(value, b"00000000-0000-0000-0000-000000000001/file");
        assert!(key.starts_with(GFID2PATH_PREFIX) && key.len() == GFID2PATH_PREFIX.len() + 16);
        assert_eq!(parse_gfid2path(&value), Some((Gfid::ROOT, &b"file"[..])));
    }
}
