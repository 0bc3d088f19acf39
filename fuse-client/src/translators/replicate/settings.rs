//! Options of `cluster/replicate`, and what they say. Names, kinds and defaults are GlusterFS 10.3's (afr.c).

use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::option::{OptionError, OptionKind, OptionSpec, Options};

use super::changelog::Keys;
use super::mask::{MAX_CHILDREN, Mask};
use super::quorum::Quorum;

const SECONDS: OptionKind = OptionKind::Int { min: Some(0), max: Some(i32::MAX as i64) };

const READ_SUBVOLUME: OptionSpec =
    OptionSpec::new(&["read-subvolume"], OptionKind::Str, None, "Child that reads go to, by name");
const READ_SUBVOLUME_INDEX: OptionSpec = OptionSpec::new(
    &["read-subvolume-index"],
    OptionKind::Int { min: Some(-1), max: None },
    Some("-1"),
    "Child that reads go to, by number; -1: none in particular",
);
const READ_HASH_MODE: OptionSpec = OptionSpec::new(
    &["read-hash-mode"],
    OptionKind::Int { min: Some(0), max: Some(5) },
    Some("1"),
    "How a read picks its child: 0 the first, 1 by gfid, 2 by gfid and process, 3 and more the one with fewest reads",
);
const CHOOSE_LOCAL: OptionSpec =
    OptionSpec::new(&["choose-local"], OptionKind::Bool, Some("true"), "Read from a brick on this machine");
const DATA_SELF_HEAL: OptionSpec = OptionSpec::new(
    &["data-self-heal"],
    OptionKind::Enum(&["1", "on", "yes", "true", "enable", "0", "off", "no", "false", "disable", "open"]),
    Some("off"),
    "Heal contents from mounts too",
);
const DATA_SELF_HEAL_ALGORITHM: OptionSpec = OptionSpec::new(
    &["data-self-heal-algorithm"],
    OptionKind::Enum(&["diff", "full"]),
    None,
    "Whether a heal compares checksums first; unset: where the sink has data",
);
const DATA_SELF_HEAL_WINDOW_SIZE: OptionSpec = OptionSpec::new(
    &["data-self-heal-window-size"],
    OptionKind::Int { min: Some(1), max: Some(1024) },
    Some("8"),
    "Size of a heal's reads, in 128 KiB",
);
const METADATA_SELF_HEAL: OptionSpec =
    OptionSpec::new(&["metadata-self-heal"], OptionKind::Bool, Some("off"), "Heal attributes from mounts too");
const ENTRY_SELF_HEAL: OptionSpec =
    OptionSpec::new(&["entry-self-heal"], OptionKind::Bool, Some("off"), "Heal directories from mounts too");
const EAGER_LOCK: OptionSpec =
    OptionSpec::new(&["eager-lock"], OptionKind::Bool, Some("on"), "Keep a write's lock for the writes that follow");
const POST_OP_DELAY_SECS: OptionSpec =
    OptionSpec::new(&["post-op-delay-secs"], SECONDS, Some("1"), "How long after the last write it is kept");
const ENSURE_DURABILITY: OptionSpec =
    OptionSpec::new(&["ensure-durability"], OptionKind::Bool, Some("on"), "fsync before a write's marks are cleared");
const QUORUM_TYPE: OptionSpec = OptionSpec::new(
    &["quorum-type"],
    OptionKind::Enum(&["none", "auto", "fixed"]),
    None,
    "Whether writes need a majority; unset: auto with three children and more",
);
const QUORUM_COUNT: OptionSpec = OptionSpec::new(
    &["quorum-count"],
    OptionKind::Int { min: Some(1), max: Some(i32::MAX as i64) },
    None,
    "How many children a write needs with quorum-type fixed",
);
const SELF_HEAL_DAEMON: OptionSpec =
    OptionSpec::new(&["self-heal-daemon"], OptionKind::Bool, Some("on"), "Whether the heal service heals");
const HEAL_TIMEOUT: OptionSpec = OptionSpec::new(
    &["heal-timeout"],
    OptionKind::Int { min: Some(5), max: Some(i32::MAX as i64) },
    Some("600"),
    "Seconds between the heal service's looks at the indices",
);
const GRANULAR_ENTRY_HEAL: OptionSpec = OptionSpec::new(
    &["granular-entry-heal"],
    OptionKind::Bool,
    Some("no"),
    "Index the names that a copy missed, not only their directory",
);
const PENDING_XATTR: OptionSpec = OptionSpec::new(
    &["afr-pending-xattr"],
    OptionKind::Str,
    None,
    "Comma separated, per child: what stands for it in the marks' names; unset: the children's names",
);
const DIRTY_XATTR: OptionSpec = OptionSpec::new(
    &["afr-dirty-xattr"],
    OptionKind::Str,
    Some("trusted.afr.dirty"),
    "Name of the mark of what is under way",
);
const SHD_MAX_THREADS: OptionSpec = OptionSpec::new(
    &["shd-max-threads"],
    OptionKind::Int { min: Some(1), max: Some(64) },
    Some("1"),
    "Files the heal service heals at once, per child",
);
const SHD_WAIT_QLENGTH: OptionSpec = OptionSpec::new(
    &["shd-wait-qlength"],
    OptionKind::Int { min: Some(1), max: Some(655_536) },
    Some("1024"),
    "Files the heal service keeps queued, per child",
);
const ARBITER_COUNT: OptionSpec = OptionSpec::new(
    &["arbiter-count"],
    OptionKind::Int { min: Some(0), max: None },
    Some("0"),
    "How many children hold no data",
);
const CONSISTENT_METADATA: OptionSpec = OptionSpec::new(
    &["consistent-metadata"],
    OptionKind::Bool,
    Some("no"),
    "Answer attributes of one copy only, whatever happens",
);

const FAVORITE_CHILD_POLICY: OptionSpec = OptionSpec::new(
    &["favorite-child-policy"],
    OptionKind::Enum(&["none", "size", "ctime", "mtime", "majority"]),
    Some("none"),
    "Which copy wins where all accuse each other: the biggest, the newest by ctime or mtime, what most have; none: nobody",
);

/// protocol/client's option, which the graph hands on when a child has it.
const STRICT_LOCKS: OptionSpec = OptionSpec::new(
    &["strict-locks"],
    OptionKind::Bool,
    Some("off"),
    "Open files whose locks too few children have are bad from then on",
);

/// What a volfile may set.
pub const OPTIONS: &[OptionSpec] = &[
    READ_SUBVOLUME,
    READ_SUBVOLUME_INDEX,
    READ_HASH_MODE,
    CHOOSE_LOCAL,
    DATA_SELF_HEAL,
    DATA_SELF_HEAL_ALGORITHM,
    DATA_SELF_HEAL_WINDOW_SIZE,
    METADATA_SELF_HEAL,
    ENTRY_SELF_HEAL,
    EAGER_LOCK,
    POST_OP_DELAY_SECS,
    ENSURE_DURABILITY,
    QUORUM_TYPE,
    QUORUM_COUNT,
    SELF_HEAL_DAEMON,
    HEAL_TIMEOUT,
    GRANULAR_ENTRY_HEAL,
    PENDING_XATTR,
    DIRTY_XATTR,
    SHD_MAX_THREADS,
    SHD_WAIT_QLENGTH,
    ARBITER_COUNT,
    CONSISTENT_METADATA,
    STRICT_LOCKS,
    FAVORITE_CHILD_POLICY,
];

/// Which copy wins where all accuse each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FavoriteChild {
    /// None: a person has to decide.
    None,
    /// The biggest.
    Size,
    /// The one changed last.
    Ctime,
    /// The one written to last.
    Mtime,
    /// One whose size and mtime most copies have.
    Majority,
}

/// How a data heal finds what to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealAlgorithm {
    /// Compare where the sink has data, else copy.
    Dynamic,
    /// Compare checksums.
    Diff,
    /// Copy all.
    Full,
}

/// What the options say.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) keys: Keys,
    pub(crate) quorum: Quorum,
    /// Children without contents: they have names, attributes and marks.
    pub(crate) arbiters: Mask,
    pub(crate) read_child: Option<usize>,
    pub(crate) read_hash_mode: i64,
    pub(crate) choose_local: bool,
    pub(crate) data_self_heal: bool,
    pub(crate) metadata_self_heal: bool,
    pub(crate) entry_self_heal: bool,
    pub(crate) heal_algorithm: HealAlgorithm,
    pub(crate) heal_window_bytes: u64,
    pub(crate) post_op_delay: Duration,
    pub(crate) ensure_durability: bool,
    pub(crate) self_heal_daemon: bool,
    pub(crate) heal_timeout: Duration,
    pub(crate) granular: bool,
    pub(crate) heal_parallel: usize,
    pub(crate) heal_queue: usize,
    pub(crate) strict_locks: bool,
    pub(crate) favorite_child: FavoriteChild,
}

impl Settings {
    /// Reads `options` for the children named `children`.
    ///
    /// # Errors
    /// A value that an option does not take, names that fit no child, arbiters elsewhere than third of three, too many children.
    pub fn read(options: &Options, children: &[&str]) -> Result<Settings, OptionError> {
        options.check(OPTIONS)?;
        let count = children.len();
        if !(2..=MAX_CHILDREN).contains(&count) {
            return Err(OptionError(format!("replicate takes 2 to {MAX_CHILDREN} subvolumes, not {count}")));
        }
        if options.get("thin-arbiter").is_some() {
            return Err(OptionError("thin arbiters are not supported yet".to_owned()));
        }
        let arbiters = match (options.int(&ARBITER_COUNT)?, count) {
            (0, _) => Mask::NONE,
            // GlusterFS 10.3 knows no other arbiter than the third of three (ARBITER_BRICK_INDEX).
            (1, 3) => Mask::only(2),
            (arbiters, _) => {
                let message = format!("arbiter-count {arbiters} with {count} subvolumes: it is 1 with three of them");
                return Err(OptionError(message));
            }
        };
        let quorum_count = usize::try_from(options.int(&QUORUM_COUNT)?).unwrap_or(0);
        let quorum = match options.str(&QUORUM_TYPE)? {
            Some("auto") => Quorum::auto(count),
            Some("none") => Quorum::none(count),
            Some("fixed") => Quorum::fixed(count, quorum_count.clamp(1, count)),
            _ if count > 2 => Quorum::auto(count),
            _ => Quorum::none(count),
        };
        let mut read_child = usize::try_from(options.int(&READ_SUBVOLUME_INDEX)?).ok();
        if let Some(name) = options.str(&READ_SUBVOLUME)? {
            read_child = Some(
                children
                    .iter()
                    .position(|child| *child == name)
                    .ok_or_else(|| OptionError(format!("read-subvolume: '{name}' is none of the subvolumes")))?,
            );
        }
        if read_child.is_some_and(|child| child >= count) {
            return Err(OptionError("read-subvolume-index: there is no such subvolume".to_owned()));
        }
        Ok(Settings {
            keys: Keys { pending: pending_keys(options, children)?, dirty: text(options.str(&DIRTY_XATTR)?) },
            quorum,
            arbiters,
            read_child,
            read_hash_mode: options.int(&READ_HASH_MODE)?,
            choose_local: options.bool(&CHOOSE_LOCAL)?,
            data_self_heal: matches!(
                options.str(&DATA_SELF_HEAL)?,
                Some("1" | "on" | "yes" | "true" | "enable" | "open")
            ),
            metadata_self_heal: options.bool(&METADATA_SELF_HEAL)?,
            entry_self_heal: options.bool(&ENTRY_SELF_HEAL)?,
            heal_algorithm: match options.str(&DATA_SELF_HEAL_ALGORITHM)? {
                Some("diff") => HealAlgorithm::Diff,
                Some("full") => HealAlgorithm::Full,
                _ => HealAlgorithm::Dynamic,
            },
            heal_window_bytes: u64::try_from(options.int(&DATA_SELF_HEAL_WINDOW_SIZE)?).unwrap_or(1) * (128 << 10),
            post_op_delay: if options.bool(&EAGER_LOCK)? {
                Duration::from_secs(u64::try_from(options.int(&POST_OP_DELAY_SECS)?).unwrap_or(0))
            } else {
                Duration::ZERO
            },
            ensure_durability: options.bool(&ENSURE_DURABILITY)?,
            self_heal_daemon: options.bool(&SELF_HEAL_DAEMON)?,
            heal_timeout: Duration::from_secs(u64::try_from(options.int(&HEAL_TIMEOUT)?).unwrap_or(600)),
            granular: options.bool(&GRANULAR_ENTRY_HEAL)?,
            heal_parallel: usize::try_from(options.int(&SHD_MAX_THREADS)?).unwrap_or(1),
            heal_queue: usize::try_from(options.int(&SHD_WAIT_QLENGTH)?).unwrap_or(1024),
            strict_locks: options.bool(&STRICT_LOCKS)?,
            favorite_child: match options.str(&FAVORITE_CHILD_POLICY)? {
                Some("size") => FavoriteChild::Size,
                Some("ctime") => FavoriteChild::Ctime,
                Some("mtime") => FavoriteChild::Mtime,
                Some("majority") => FavoriteChild::Majority,
                _ => FavoriteChild::None,
            },
        })
    }

    /// All children.
    pub(crate) fn everyone(&self) -> Mask {
        Mask::all(self.keys.pending.len())
    }
}

fn text(value: Option<&str>) -> Bytes {
    Bytes::copy_from_slice(value.unwrap_or("trusted.afr.dirty").as_bytes())
}

fn pending_keys(options: &Options, children: &[&str]) -> Result<Vec<Bytes>, OptionError> {
    let names: Vec<&str> = match options.str(&PENDING_XATTR)? {
        Some(list) => list.split(',').map(str::trim).collect(),
        None => children.to_vec(),
    };
    if names.len() < children.len() || names.iter().any(|name| name.is_empty()) {
        return Err(OptionError(format!(
            "afr-pending-xattr names {} children, there are {}",
            names.len(),
            children.len()
        )));
    }
    Ok(names.iter().take(children.len()).map(|name| Bytes::from(format!("trusted.afr.{name}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: [&str; 3] = ["v-client-0", "v-client-1", "v-client-2"];

    #[test]
    fn marks_are_named_after_the_children_or_as_told() {
        let settings = Settings::read(&Options::new(), &THREE).unwrap();
        assert_eq!(settings.keys.pending[2], "trusted.afr.v-client-2");
        assert!(!settings.quorum.met(Mask::only(0)));
        let told = Options::new().with("afr-pending-xattr", "x-0,x-1,x-2");
        assert_eq!(Settings::read(&told, &THREE).unwrap().keys.pending[1], "trusted.afr.x-1");
        let short = Options::new().with("afr-pending-xattr", "x-0");
        assert!(Settings::read(&short, &THREE).is_err());
    }

    #[test]
    fn arbiters_are_the_third_of_three_and_strange_values_are_refused() {
        assert_eq!(Settings::read(&Options::new().with("arbiter-count", "1"), &THREE).unwrap().arbiters, Mask::only(2));
        assert!(Settings::read(&Options::new().with("arbiter-count", "1"), &THREE[..2]).is_err());
        for (key, value) in
            [("arbiter-count", "2"), ("thin-arbiter", "h:/t"), ("quorum-type", "most"), ("read-subvolume", "elsewhere")]
        {
            assert!(Settings::read(&Options::new().with(key, value), &THREE).is_err(), "{key} {value}");
        }
    }
}
