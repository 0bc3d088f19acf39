//! POSIX ACLs as text: `glusterfs.posix.acl` and `glusterfs.posix.default_acl`, by which gfapi's glfs_h_acl_get and
//! glfs_h_acl_set (NFS and SMB servers) work. The file has the kernel's form (`system.posix_acl_*`).
//!
//! Text: entries `u:1234:rw-` separated by commas or line ends, numeric ids. Source: acl(5), acl_to_any_text(3) with
//! TEXT_ABBREVIATE and TEXT_NUMERIC_IDS. Binary: version 2, then entries of tag, permissions, id (posix_acl_xattr.h).

use std::fmt::Write;

/// The key of the ACL by which access is decided.
pub const ACCESS_TEXT: &str = "glusterfs.posix.acl";
/// The key of the ACL that a directory's new entries get.
pub const DEFAULT_TEXT: &str = "glusterfs.posix.default_acl";

/// The owner.
pub const USER_OBJ: u16 = 0x01;
/// A user named by id.
pub const USER: u16 = 0x02;
/// The file's group.
pub const GROUP_OBJ: u16 = 0x04;
/// A group named by id.
pub const GROUP: u16 = 0x08;
/// The most that named users and groups are given.
pub const MASK: u16 = 0x10;
/// All others.
pub const OTHER: u16 = 0x20;
/// The id of entries that have none.
const NO_ID: u32 = u32::MAX;
/// Most entries. Source: our bound; ext4 has room for some hundreds.
const MAX_ENTRIES: usize = 4096;

/// One entry of an ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Whom it is about: [`USER_OBJ`] and so on.
    pub tag: u16,
    /// 4 read, 2 write, 1 execute or search.
    pub permissions: u16,
    /// Of named users and groups.
    pub id: u32,
}

/// The entries of the kernel's form, in its order; `None` where it is none.
pub fn entries(raw: &[u8]) -> Option<impl Iterator<Item = AclEntry>> {
    let (entries, rest) = raw.strip_prefix(&2u32.to_le_bytes())?.as_chunks::<8>();
    rest.is_empty().then(|| {
        entries.iter().map(|[tag_low, tag_high, bits_low, bits_high, id @ ..]| AclEntry {
            tag: u16::from_le_bytes([*tag_low, *tag_high]),
            permissions: u16::from_le_bytes([*bits_low, *bits_high]),
            id: u32::from_le_bytes(*id),
        })
    })
}

/// The kernel's xattr behind one of these keys; `None` for any other key.
pub fn kernel_key(text_key: &[u8]) -> Option<&'static str> {
    match text_key {
        key if key == ACCESS_TEXT.as_bytes() => Some("system.posix_acl_access"),
        key if key == DEFAULT_TEXT.as_bytes() => Some("system.posix_acl_default"),
        _ => None,
    }
}

/// The kernel's form of a text, a trailing NUL allowed; `None` where it is none. An empty text is an ACL without entries.
pub fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text.strip_suffix(b"\0").unwrap_or(text)).ok()?;
    let mut entries = Vec::new();
    for entry in text.split([',', '\n']).map(|e| e.split('#').next().unwrap_or_default().trim()) {
        if entry.is_empty() {
            continue;
        }
        let mut parts = entry.split(':').map(str::trim);
        let (tag, id) = (parts.next()?, parts.next()?);
        // The short forms of mask and other may leave the empty id out.
        let (id, permissions) = match parts.next() {
            Some(permissions) => (id, permissions),
            None if matches!(tag, "m" | "mask" | "o" | "other") => ("", id),
            None => return None,
        };
        if parts.next().is_some() || entries.len() == MAX_ENTRIES {
            return None;
        }
        let (tag, id) = match (tag, id) {
            ("u" | "user", "") => (USER_OBJ, NO_ID),
            ("u" | "user", id) => (USER, id.parse().ok()?),
            ("g" | "group", "") => (GROUP_OBJ, NO_ID),
            ("g" | "group", id) => (GROUP, id.parse().ok()?),
            ("m" | "mask", "") => (MASK, NO_ID),
            ("o" | "other", "") => (OTHER, NO_ID),
            _ => return None,
        };
        let mut bits = 0u16;
        for letter in permissions.chars() {
            bits |= match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                '-' => 0,
                _ => return None,
            };
        }
        entries.push((tag, id, bits));
    }
    // The kernel takes them in this order only.
    entries.sort_unstable();
    let mut raw = 2u32.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        raw.extend_from_slice(&tag.to_le_bytes());
        raw.extend_from_slice(&bits.to_le_bytes());
        raw.extend_from_slice(&id.to_le_bytes());
    }
    Some(raw)
}

/// The text of the kernel's form; `None` where it is none.
pub fn to_text(raw: &[u8]) -> Option<String> {
    let mut text = String::new();
    for AclEntry { tag, permissions: bits, id } in entries(raw)? {
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a String cannot fail.
        let _ = match tag {
            USER_OBJ => write!(text, "u::"),
            USER => write!(text, "u:{id}:"),
            GROUP_OBJ => write!(text, "g::"),
            GROUP => write!(text, "g:{id}:"),
            MASK => write!(text, "m::"),
            OTHER => write!(text, "o::"),
            _ => return None,
        };
        permissions(&mut text, bits);
    }
    Some(text)
}

/// The text of a file that has no ACL: its mode.
pub fn text_of_mode(mode: u32) -> String {
    let mut text = String::new();
    for (tag, shift) in [("u::", 6), (",g::", 3), (",o::", 0)] {
        text.push_str(tag);
        permissions(&mut text, (mode >> shift & 7) as u16);
    }
    text
}

fn permissions(text: &mut String, bits: u16) {
    for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
        text.push(if bits & bit != 0 { letter } else { '-' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_what_the_kernel_takes_and_back() {
        let raw = from_text(b"o::---,m::r--,u:7:r--,g::r--,u::rw-,u:5:rwx\0").unwrap();
        assert_eq!(raw.len(), 4 + 6 * 8);
        assert_eq!(to_text(&raw).unwrap(), "u::rw-,u:5:rwx,u:7:r--,g::r--,m::r--,o::---");
        let long = from_text(b"user::rw-\ngroup::r--\nmask:rwx # all\nother::---\n").unwrap();
        assert_eq!(to_text(&long).unwrap(), "u::rw-,g::r--,m::rwx,o::---");
        assert_eq!(from_text(b"").unwrap(), 2u32.to_le_bytes());
        assert_eq!(text_of_mode(0o100640), "u::rw-,g::r--,o::---");
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        for text in ["u", "u:1", "x::rwx", "u::rwz", "u:name:r--", "m:1:rwx", "u:1:2:3", "u:-1:r--", "u:99999999999:r"]
        {
            assert_eq!(from_text(text.as_bytes()), None, "{text}");
        }
        assert_eq!(from_text(b"u::r\xff"), None);
        assert_eq!(from_text("u:1:r,".repeat(MAX_ENTRIES + 1).as_bytes()), None);
        assert_eq!(to_text(&[2, 0, 0]), None);
        assert_eq!(to_text(&[2, 0, 0, 0, 1]), None);
        assert_eq!(to_text(&[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(to_text(&[1, 0, 0, 0]), None);
    }
}
