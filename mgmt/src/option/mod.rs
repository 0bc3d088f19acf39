//! Volume options: what there is, what values pass, what is shown for one that nobody set.

mod help;
mod table;

pub use help::{HELP, Help};
pub use table::OPTIONS;

use crate::api::Failure;

/// An option of a volume (or of the pool).
#[derive(Clone, Copy, Debug)]
pub struct VolumeOption {
    /// Full name: `network.ping-timeout`.
    pub key: &'static str,
    /// The translator it goes to.
    pub translator: &'static str,
    /// Its name in that translator; with `!` before it, volgen treats it apart.
    pub option: &'static str,
    /// What volgen writes when nobody set it; `None` = nothing.
    pub written: Option<&'static str>,
    /// What `volume get` shows when nobody set it.
    pub default: Option<&'static str>,
    /// What passes.
    pub kind: Kind,
    /// Flags, or'ed.
    pub flags: u8,
    /// Lowest operating version that knows it.
    pub op_version: u32,
}

/// No flag.
pub const NONE: u8 = 0;
/// Takes effect in clients.
pub const CLIENT: u8 = 1;
/// Set for the pool, with `volume set all`.
pub const GLOBAL: u8 = 2;
/// Not in `volume set help`.
pub const HIDDEN: u8 = 4;
/// `volume reset` passes it by.
pub const NEVER_RESET: u8 = 8;
/// `volume reset` needs `force`.
pub const FORCE: u8 = 16;
/// Puts a translator in or takes it out.
pub const XLATOR_OPT: u8 = 32;
/// In `volume get V all`.
pub const LISTED: u8 = 64;

/// What values pass.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Kind {
    Any,
    Str(&'static [&'static str]),
    Int(Range),
    Size(Range),
    Percent,
    PercentOrSize(Range),
    Bool,
    Time(Range),
    Double(Range),
    Path,
    Address,
    AddressList,
    Xlator,
}

/// Bounds, inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Range {
    NoRange,
    Both(i64, i64),
    Min(i64),
    Max(i64),
}

/// Options that are kept and shown and have no effect on our bricks: they are given to no translator, and what clients would
/// make of them without the bricks' part is left out, too.
const INERT: [&str; 8] = [
    "changelog.changelog",
    "features.barrier",
    "features.bitrot",
    "features.inode-quota",
    "features.leases",
    "features.quota",
    "geo-replication.ignore-pid-check",
    "geo-replication.indexing",
];

/// Whether an option that is set has no effect (docs/management.md lists them).
pub fn is_inert(key: &str) -> bool {
    INERT.contains(&key)
}

/// Longest option value, in bytes. Source: our bound; GlusterFS's is a page.
pub const MAX_VALUE_BYTES: usize = 4096;

/// The option an operator means by `name`: its full name, or what follows the first dot where only one option has it.
pub fn find(name: &str) -> Option<&'static VolumeOption> {
    let full = |name: &str| OPTIONS.iter().find(|option| option.key == name);
    full(name).or_else(|| {
        let mut ends = OPTIONS.iter().filter(|option| option.key.split_once('.').is_some_and(|(_, rest)| rest == name));
        let first = ends.next()?;
        ends.all(|other| other.key == first.key).then(|| full(first.key)).flatten()
    })
}

/// Whether the name is the operator's own (`user.*`): kept, shown, given to no translator.
pub fn is_users(name: &str) -> bool {
    name.strip_prefix("user.").is_some_and(|rest| !rest.is_empty())
}

/// The failure for a name there is no option of, with the nearest names.
pub fn unknown(name: &str) -> Failure {
    let mut message = format!("option : {name} does not exist");
    if let Some(hint) = hint(name) {
        message.push_str(&format!("\nDid you mean {hint}?"));
    }
    Failure::new(libc::EINVAL, message)
}

/// The one or two names nearest to `name`, as GlusterFS finds them: of `DOMAIN.WORD` first the nearest domain, then the
/// nearest words in it; without a dot, the nearest of all second words.
pub fn hint(name: &str) -> Option<String> {
    let second = |domain: Option<&'static str>| {
        OPTIONS.iter().filter_map(move |option| {
            let mut parts = option.key.split('.');
            let first = parts.next()?;
            parts.next().filter(|_| domain.is_none_or(|domain| domain == first))
        })
    };
    let Some((domain, word)) = name.split_once('.') else {
        let (first, other) = nearest(name, second(None))?;
        return Some(other.map_or_else(|| first.to_owned(), |other| format!("{first} or {other}")));
    };
    let domains = OPTIONS.iter().filter_map(|option| option.key.split('.').next());
    let (domain, _) = nearest(domain, domains)?;
    let (first, other) = nearest(word, second(Some(domain)))?;
    Some(other.map_or_else(|| format!("{domain}.{first}"), |other| format!("{domain}.{first} or ...{other}")))
}

/// The first in order of bytes of those nearest to `word`, and the second if there is one.
fn nearest(word: &str, words: impl Iterator<Item = &'static str>) -> Option<(&'static str, Option<&'static str>)> {
    let mut near: Vec<(usize, &str)> = words.map(|other| (distance(word, other), other)).collect();
    near.sort_unstable();
    near.dedup();
    let (best, first) = *near.first().filter(|(best, _)| *best != usize::MAX)?;
    Some((first, near.get(1).filter(|(distance, _)| *distance == best).map(|(_, other)| *other)))
}

/// Levenshtein's distance; names over 128 bytes are infinitely far.
fn distance(left: &str, right: &str) -> usize {
    if left.len() > 128 || right.len() > 128 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = i;
        let mut last = i + 1;
        for (b, cell) in right.bytes().zip(row.iter_mut().skip(1)) {
            let next = (diagonal + usize::from(a != b)).min(*cell + 1).min(last + 1);
            diagonal = *cell;
            *cell = next;
            last = next;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// GlusterFS's booleans. Source: gf_string2boolean.
pub fn parse_bool(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" | "enable" => Some(true),
        "0" | "off" | "no" | "false" | "disable" => Some(false),
        _ => None,
    }
}

/// A number as C writes it: `42`, `-1`, octal `0755`, `0x1f`.
fn parse_int(value: &str) -> Option<i64> {
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, value),
    };
    // -0: no number to GlusterFS either.
    if digits.starts_with(['-', '+']) || (sign < 0 && digits == "0") {
        return None;
    }
    let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => i64::from_str_radix(hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => i64::from_str_radix(digits, 8),
        None => digits.parse(),
    };
    number.ok()?.checked_mul(sign)
}

/// A size with its unit (`64MB`, `1.5GB`, `512`), in bytes. Source: gf_string2bytesize.
pub fn parse_size(value: &str) -> Option<u64> {
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        "p" | "pb" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let fraction: f64 = number.parse().ok()?;
    let bytes = fraction * (1u64 << shift) as f64;
    // Comparing first keeps the cast exact enough and in range.
    (shift > 0 && bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// A time with its unit (`42`, `5min`, `1h`), in seconds. Source: gf_string2time.
pub fn parse_time(value: &str) -> Option<u64> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" | "hr" => 3600,
        "d" | "days" => 86_400,
        "w" | "wk" => 604_800,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

impl VolumeOption {
    /// Its name in the translator, without the mark. The brick's and the client's variant of one option have one name there.
    pub fn name(&self) -> &'static str {
        let name = self.option.trim_start_matches('!');
        match name {
            "brick-log-level" | "client-log-level" => "log-level",
            "brick-threads" | "client-threads" => "threads",
            other => other,
        }
    }

    /// Whether it has `flag`.
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Checks a value.
    ///
    /// # Errors
    /// GlusterFS's words for what is wrong with it.
    pub fn validate(&self, value: &str) -> Result<(), Failure> {
        // Where GlusterFS's volfile generator itself looks at the value, it says no more than this.
        let stumbles = self.option == "!perf"
            || matches!(
                self.key,
                "features.tag-namespaces"
                    | "network.compression"
                    | "geo-replication.indexing"
                    | "changelog.changelog"
                    | "features.shard"
                    | "performance.rda-cache-limit"
                    | "features.cloudsync"
            );
        self.check(value).map_err(|message| {
            let said = if stumbles { crate::volume::option_rules::STUMBLED.to_owned() } else { message };
            Failure::new(libc::EINVAL, said)
        })
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let name = self.name();
        if value.len() > MAX_VALUE_BYTES || value.contains(['\n', '\r', '\0']) {
            return Err(format!("option {name}: a value of one line, {MAX_VALUE_BYTES} bytes at most, is expected"));
        }
        if value.trim().is_empty() {
            return Err("Value field is empty".to_owned());
        }
        match self.kind {
            Kind::Any => Ok(()),
            Kind::Bool => match parse_bool(value) {
                Some(_) => Ok(()),
                None => Err(format!("option {name} {value}: '{value}' is not a valid boolean value")),
            },
            Kind::Str(allowed) => {
                if allowed.contains(&value) {
                    Ok(())
                } else {
                    Err(format!(
                        "option {name} {value}: '{value}' is not valid (possible options are {}.)",
                        allowed.join(", ")
                    ))
                }
            }
            Kind::Int(range) => {
                let number = parse_int(value)
                    .ok_or_else(|| format!("invalid number format \"{value}\" in option \"{name}\""))?;
                in_range(range, number, &number.to_string(), name, value)
            }
            Kind::Size(range) => {
                let size = parse_size(value)
                    .ok_or_else(|| format!("invalid number format \"{value}\" in option \"{name}\""))?;
                in_range(range, i64::try_from(size).unwrap_or(i64::MAX), &size.to_string(), name, value)
            }
            Kind::Time(range) => {
                let time =
                    parse_time(value).ok_or_else(|| format!("invalid time format \"{value}\" in \"option {name}\""))?;
                in_range(range, i64::try_from(time).unwrap_or(i64::MAX), &time.to_string(), name, value)
            }
            Kind::Percent if value.starts_with('-') => {
                Err(format!("invalid percent format \"{value}\" in \"option {name}\""))
            }
            Kind::Percent => match value.trim_end_matches('%').parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(()),
                Ok(percent) => Err(format!("'{percent:.6}' in 'option {name} {value}' is out of range [0 - 100]")),
                Err(_) => Err(format!("invalid percent format \"{value}\" in \"option {name}\"")),
            },
            Kind::PercentOrSize(range) => {
                if let Some(percent) = value.strip_suffix('%') {
                    return match percent.parse::<f64>() {
                        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(()),
                        Ok(percent) => {
                            Err(format!("'{percent:.6}' in 'option {name} {value}' is out of range [0 - 100]"))
                        }
                        Err(_) => Err(format!("invalid number format \"{value}\" in \"option {name}\"")),
                    };
                }
                let size = parse_size(value)
                    .ok_or_else(|| format!("invalid number format \"{value}\" in \"option {name}\""))?;
                in_range(range, i64::try_from(size).unwrap_or(i64::MAX), &size.to_string(), name, value)
            }
            Kind::Double(range) => {
                let number: f64 =
                    value.parse().map_err(|_| format!("invalid number format \"{value}\" in option \"{name}\""))?;
                let outside = match range {
                    Range::NoRange => !number.is_finite(),
                    Range::Both(min, max) => !(min as f64..=max as f64).contains(&number),
                    Range::Min(min) => number.is_nan() || number < min as f64,
                    Range::Max(max) => number.is_nan() || number > max as f64,
                };
                if outside { Err(format!("'{number:.6}' in 'option {name} {value}' is out of range")) } else { Ok(()) }
            }
            Kind::Path if !value.starts_with('/') => {
                Err(format!("option {name} {value}: '{value}' is not an absolute path name"))
            }
            Kind::Path if value.contains("../") => Err(format!("invalid path given '{value}'")),
            Kind::Path => Ok(()),
            Kind::Address | Kind::AddressList => {
                if value == "*" || value.split(',').all(is_address) {
                    Ok(())
                } else {
                    Err(format!("option {name} {value}: '{value}' is not a valid internet-address-list"))
                }
            }
            Kind::Xlator => Ok(()),
        }
    }
}

fn in_range(range: Range, number: i64, shown: &str, name: &str, value: &str) -> Result<(), String> {
    match range {
        Range::Both(min, max) if number < min || number > max => {
            Err(format!("'{shown}' in 'option {name} {value}' is out of range [{min} - {max}]"))
        }
        Range::Min(min) if number < min => {
            Err(format!("'{shown}' in 'option {name} {value}' is smaller than minimum value '{min}'"))
        }
        Range::Max(max) if number > max => {
            Err(format!("'{shown}' in 'option {name} {value}' is greater than maximum value '{max}'"))
        }
        _ => Ok(()),
    }
}

/// A host name, an address, a pattern of one, or a network.
pub fn is_address(text: &str) -> bool {
    let text = text.trim();
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    if let Some((address, bits)) = text.split_once('/') {
        return address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 128);
    }
    is_host_name(&text.replace(['*', '?'], "a"))
}

/// A host name: labels of letters, digits, `-` and `_`, none empty.
pub fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && !text.starts_with('-')
        && text.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &str, value: &str) -> String {
        find(key).unwrap().validate(value).unwrap_err().message
    }

    #[test]
    fn refuses_in_glusterfs_words() {
        assert_eq!(message("ping-timeout", "abc"), "invalid time format \"abc\" in \"option ping-timeout\"");
        assert_eq!(message("ping-timeout", "-1"), "invalid time format \"-1\" in \"option ping-timeout\"");
        assert_eq!(
            message("cluster.quorum-type", "zzz"),
            "option quorum-type zzz: 'zzz' is not valid (possible options are none, auto, fixed.)"
        );
        assert_eq!(
            message("performance.write-behind-window-size", "8PB"),
            "'9007199254740992' in 'option cache-size 8PB' is out of range [524288 - 1073741824]"
        );
        assert_eq!(
            message("performance.flush-behind", "maybe"),
            "option flush-behind maybe: 'maybe' is not a valid boolean value"
        );
        assert_eq!(
            message("cluster.min-free-disk", "800%"),
            "'800.000000' in 'option min-free-disk 800%' is out of range [0 - 100]"
        );
        assert_eq!(
            message("performance.io-thread-count", "70"),
            "'70' in 'option thread-count 70' is out of range [1 - 64]"
        );
        assert_eq!(message("storage.owner-uid", "x"), "invalid number format \"x\" in option \"brick-uid\"");
        assert_eq!(
            message("diagnostics.client-log-level", "FOO"),
            "option log-level FOO: 'FOO' is not valid (possible options are DEBUG, WARNING, ERROR, INFO, CRITICAL, NONE, TRACE.)"
        );
        assert_eq!(message("performance.io-cache", "blah"), "Error, Validation Failed");
    }

    #[test]
    fn takes_what_glusterfs_takes() {
        for (key, value) in [
            ("performance.cache-size", "1TB"),
            ("network.ping-timeout", "10"),
            ("cluster.min-free-disk", "5%"),
            ("storage.reserve", "5"),
            ("auth.allow", "127.*"),
            ("cluster.quorum-type", "auto"),
            ("performance.read-ahead", "on"),
        ] {
            find(key).unwrap().validate(value).unwrap();
        }
    }

    #[test]
    fn short_names_find_the_option_and_wrong_ones_a_hint() {
        assert_eq!(find("ping-timeout").unwrap().key, "network.ping-timeout");
        assert!(find("cluster.foo").is_none());
        assert!(unknown("network.ping-timeoutt").message.ends_with("Did you mean network.ping-timeout?"));
    }

    #[test]
    fn defaults_pass_their_own_check() {
        for option in OPTIONS {
            for value in [option.written, option.default]
                .into_iter()
                .flatten()
                .filter(|value| !value.is_empty() && *value != "(null)" && !value.contains("{{"))
            {
                if let Err(failure) = option.validate(value) {
                    // Outside its own bounds in GlusterFS's tables too: 0 or `off` for "not set".
                    let known = failure.message.contains("range")
                        || matches!(option.key, "cluster.server-quorum-type" | "locks.mandatory-locking");
                    assert!(known, "{}: {}", option.key, failure.message);
                }
            }
        }
    }
}
