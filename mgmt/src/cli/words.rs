//! Words: splitting lines, prefixes that mean one word only, names and addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::api::BrickName;

/// The words of a line of the shell.
pub(super) fn split(line: &str) -> Vec<String> {
    line.split([' ', '\t', '\r', '\n']).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// The one choice that `word` is, or is the beginning of.
pub(super) fn unambiguous<'c>(word: &str, choices: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.is_empty() {
        return None;
    }
    let mut found = None;
    let mut matches = 0;
    for choice in choices {
        if choice == word {
            return Some(choice);
        }
        if choice.starts_with(word) {
            found = Some(choice);
            matches += 1;
        }
    }
    found.filter(|_| matches == 1)
}

/// Longest host name, bytes (`_POSIX_HOST_NAME_MAX`).
const HOST_NAME_BYTES: usize = 255;

/// Whether GlusterFS takes `address` for an IPv4 or IPv6 address or a host name.
pub(super) fn is_internet_address(address: &str) -> bool {
    let without_scope = address.split('%').next().unwrap_or_default();
    address.parse::<Ipv4Addr>().is_ok() || without_scope.parse::<Ipv6Addr>().is_ok() || is_host_name(address)
}

fn is_host_name(name: &str) -> bool {
    let label =
        |l: &str| l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !l.starts_with('-') && !l.ends_with('-');
    (1..=HOST_NAME_BYTES).contains(&name.len())
        && !name.contains("..")
        && name.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.split('.').filter(|l| !l.is_empty()).all(label)
}

/// `HOST:/absolute/path`, the path without doubled and trailing slashes; the last colon counts (IPv6 has others).
pub(super) fn brick(word: &str) -> Option<BrickName> {
    let (host, path) = word.rsplit_once(':')?;
    if host.is_empty() || !path.starts_with('/') {
        return None;
    }
    let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Some(BrickName { host: host.to_owned(), path: format!("/{}", path.join("/")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_one_word_is_that_word() {
        let choices = ["start", "stop", "status", "set"];
        assert_eq!(unambiguous("sta", choices), None);
        assert_eq!(unambiguous("star", choices), Some("start"));
        assert_eq!(unambiguous("se", choices), Some("set"));
        assert_eq!(unambiguous("", choices), None);
        assert_eq!(unambiguous("reset", ["reset", "reset-brick"]), Some("reset"));
    }

    #[test]
    fn addresses() {
        for good in ["debian1", "10.1.2.3", "::1", "fe80::1%eth0", "a.b-c.example"] {
            assert!(is_internet_address(good), "{good}");
        }
        for bad in ["", "a_b", "bad_name!", "-a", "a-", "a..b", "a/b", "ü", &"x".repeat(256)] {
            assert!(!is_internet_address(bad), "{bad}");
        }
    }

    #[test]
    fn bricks() {
        let parsed = brick("h:/a//b/").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.path.as_str()), ("h", "/a/b"));
        assert_eq!(brick("::1:/a").unwrap().host, "::1");
        for bad in ["h", "h:", ":/a", "h:a", ""] {
            assert_eq!(brick(bad), None, "{bad}");
        }
    }
}
