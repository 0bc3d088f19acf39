//! Options of `cluster/distribute`, and what they say. Names, kinds and defaults are GlusterFS 10.3's (dht-shared.c).

use bytes::Bytes;
use ladrillo_translator::option::{OptionError, OptionKind, OptionSpec, Options, PercentOrSize};

use super::hash::Hasher;

const LOOKUP_UNHASHED: OptionSpec = OptionSpec::new(
    &["lookup-unhashed"],
    OptionKind::Enum(&["auto", "yes", "no", "enable", "disable", "1", "0", "on", "off", "true", "false"]),
    Some("on"),
    "Whether a name that its subvolume lacks is looked for on the others",
);
const LOOKUP_OPTIMIZE: OptionSpec = OptionSpec::new(
    &["lookup-optimize"],
    OptionKind::Bool,
    Some("on"),
    "Look on the others only where the directory's layout changed; overrides lookup-unhashed",
);
const MIN_FREE_DISK: OptionSpec = OptionSpec::new(
    &["min-free-disk"],
    OptionKind::PercentOrSize { range: None },
    Some("10%"),
    "A subvolume with less free space gets no new files while others have more",
);
const MIN_FREE_INODES: OptionSpec = OptionSpec::new(
    &["min-free-inodes"],
    OptionKind::Percent,
    Some("5%"),
    "A subvolume with fewer free inodes gets no new files while others have more",
);
const UNHASHED_STICKY_BIT: OptionSpec = OptionSpec::new(
    &["unhashed-sticky-bit"],
    OptionKind::Bool,
    Some("off"),
    "Show the sticky bit on files that are not where their name says",
);
const USE_READDIRP: OptionSpec =
    OptionSpec::new(&["use-readdirp"], OptionKind::Bool, Some("on"), "List with attributes (always done)");
const ASSERT_NO_CHILD_DOWN: OptionSpec = OptionSpec::new(
    &["assert-no-child-down"],
    OptionKind::Bool,
    Some("off"),
    "The process ends when a subvolume goes down (rebalance)",
);
const DIRECTORY_LAYOUT_SPREAD: OptionSpec = OptionSpec::new(
    &["directory-layout-spread"],
    OptionKind::Int { min: Some(1), max: None },
    None,
    "Subvolumes a new directory spreads its files over; unset: all",
);
const DECOMMISSIONED_BRICKS: OptionSpec = OptionSpec::new(
    &["decommissioned-bricks"],
    OptionKind::Str,
    None,
    "Comma separated names of subvolumes that get nothing new",
);
const REBALANCE_CMD: OptionSpec =
    OptionSpec::new(&["rebalance-cmd"], OptionKind::Int { min: None, max: None }, None, "For the rebalance process");
const COMMIT_HASH: OptionSpec =
    OptionSpec::new(&["commit-hash"], OptionKind::Int { min: None, max: None }, None, "For the rebalance process");
const NODE_UUID: OptionSpec = OptionSpec::new(&["node-uuid"], OptionKind::Str, None, "For the rebalance process");
const REBALANCE_STATS: OptionSpec =
    OptionSpec::new(&["rebalance-stats"], OptionKind::Bool, Some("off"), "For the rebalance process");
const READDIR_OPTIMIZE: OptionSpec = OptionSpec::new(
    &["readdir-optimize"],
    OptionKind::Bool,
    Some("off"),
    "Directories are listed from the first subvolume only, the others leave them out",
);
const RSYNC_HASH_REGEX: OptionSpec = OptionSpec::new(
    &["rsync-hash-regex"],
    OptionKind::Str,
    None,
    "Names that match hash as their first group; unset: rsync's temporary names; none: none",
);
const EXTRA_HASH_REGEX: OptionSpec =
    OptionSpec::new(&["extra-hash-regex"], OptionKind::Str, None, "The same, tried first; unset: none");
const REBALANCE_FILTER: OptionSpec =
    OptionSpec::new(&["rebalance-filter"], OptionKind::Str, None, "For the rebalance process");
const XATTR_NAME: OptionSpec = OptionSpec::new(
    &["xattr-name"],
    OptionKind::Str,
    Some("trusted.glusterfs.dht"),
    "Xattr of the layout, and beginning of the others' names",
);
const WEIGHTED_REBALANCE: OptionSpec = OptionSpec::new(
    &["weighted-rebalance"],
    OptionKind::Bool,
    Some("on"),
    "Larger subvolumes get larger parts of a directory",
);
const LOCAL_VOLUME_NAME: OptionSpec = OptionSpec::new(&["local-volume-name"], OptionKind::Str, None, "For nufa");
const PATTERN_SWITCH_CASE: OptionSpec = OptionSpec::new(&["pattern.switch.case"], OptionKind::Str, None, "For switch");
const RANDOMIZE_BY_GFID: OptionSpec = OptionSpec::new(
    &["randomize-hash-range-by-gfid"],
    OptionKind::Bool,
    Some("off"),
    "A directory's gfid, not its path, picks the subvolume with the first part",
);
const REBAL_THROTTLE: OptionSpec =
    OptionSpec::new(&["rebal-throttle"], OptionKind::Str, Some("normal"), "For the rebalance process");
const LOCK_MIGRATION: OptionSpec =
    OptionSpec::new(&["lock-migration"], OptionKind::Bool, Some("off"), "For the rebalance process");
const FORCE_MIGRATION: OptionSpec =
    OptionSpec::new(&["force-migration"], OptionKind::Bool, Some("off"), "For the rebalance process");
const ENSURE_DURABILITY: OptionSpec =
    OptionSpec::new(&["ensure-durability"], OptionKind::Bool, Some("on"), "For the rebalance process");

/// What a volfile may set.
pub const OPTIONS: &[OptionSpec] = &[
    LOOKUP_UNHASHED,
    LOOKUP_OPTIMIZE,
    MIN_FREE_DISK,
    MIN_FREE_INODES,
    UNHASHED_STICKY_BIT,
    USE_READDIRP,
    ASSERT_NO_CHILD_DOWN,
    DIRECTORY_LAYOUT_SPREAD,
    DECOMMISSIONED_BRICKS,
    REBALANCE_CMD,
    COMMIT_HASH,
    NODE_UUID,
    REBALANCE_STATS,
    READDIR_OPTIMIZE,
    RSYNC_HASH_REGEX,
    EXTRA_HASH_REGEX,
    REBALANCE_FILTER,
    XATTR_NAME,
    WEIGHTED_REBALANCE,
    LOCAL_VOLUME_NAME,
    PATTERN_SWITCH_CASE,
    RANDOMIZE_BY_GFID,
    REBAL_THROTTLE,
    LOCK_MIGRATION,
    FORCE_MIGRATION,
    ENSURE_DURABILITY,
];

/// When a name is looked for where it does not belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookElsewhere {
    /// Where the directory's layout changed since the last rebalance (lookup-optimize).
    WhereChanged,
    /// Always (lookup-unhashed on).
    Always,
    /// Never (lookup-unhashed off or auto).
    Never,
}

/// Names of the xattrs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// A directory's piece of the layout.
    pub layout: Bytes,
    /// Counts, on one of a directory's subvolumes, changes of xattrs the others have missed.
    pub mds: Bytes,
    /// Where the file that a linkto file stands for is.
    pub linkto: Bytes,
    /// On the root: the commit hash of the volume.
    pub commit_hash: Bytes,
}

/// What the options say.
pub struct Settings {
    pub(crate) keys: Keys,
    pub(crate) hasher: Hasher,
    pub(crate) look_elsewhere: LookElsewhere,
    pub(crate) lookup_optimize: bool,
    pub(crate) min_free_disk: PercentOrSize,
    pub(crate) min_free_inodes: f64,
    pub(crate) unhashed_sticky_bit: bool,
    pub(crate) spread: usize,
    pub(crate) decommissioned: Vec<usize>,
    pub(crate) readdir_optimize: bool,
    pub(crate) weighted: bool,
    pub(crate) randomize_by_gfid: bool,
}

impl Settings {
    /// Reads `options` for the children named `children`.
    ///
    /// # Errors
    /// A value that an option does not take, names that fit no child, a rebalance process's volfile.
    pub fn read(options: &Options, children: &[&str]) -> Result<Settings, OptionError> {
        options.check(OPTIONS)?;
        if options.int(&REBALANCE_CMD)? != 0 {
            return Err(OptionError("rebalance is not supported yet".to_owned()));
        }
        let lookup_optimize = options.bool(&LOOKUP_OPTIMIZE)?;
        let look_elsewhere = match options.str(&LOOKUP_UNHASHED)? {
            _ if lookup_optimize => LookElsewhere::WhereChanged,
            Some("auto" | "no" | "disable" | "0" | "off" | "false") => LookElsewhere::Never,
            _ => LookElsewhere::Always,
        };
        let mut decommissioned = Vec::new();
        for name in options.str(&DECOMMISSIONED_BRICKS)?.unwrap_or("").split(',').map(str::trim) {
            match children.iter().position(|child| *child == name) {
                Some(child) => decommissioned.push(child),
                None if name.is_empty() => {}
                None => {
                    return Err(OptionError(format!("decommissioned-bricks: '{name}' is none of the subvolumes")));
                }
            }
        }
        let base = options.str(&XATTR_NAME)?.unwrap_or("trusted.glusterfs.dht");
        if !base.starts_with("trusted.") {
            return Err(OptionError(format!("xattr-name: '{base}' is not in the trusted namespace")));
        }
        let key = |suffix: &str| Bytes::from(format!("{base}{suffix}"));
        let min_free_disk = match options.percent_or_size(&MIN_FREE_DISK)? {
            // Fewer than 100 bytes are a percentage, as GlusterFS reads it.
            PercentOrSize::Bytes(small) if small < 100 => PercentOrSize::Percent(small as f64),
            other => other,
        };
        Ok(Settings {
            keys: Keys { layout: key(""), mds: key(".mds"), linkto: key(".linkto"), commit_hash: key(".commithash") },
            hasher: Hasher::new(options.str(&RSYNC_HASH_REGEX)?, options.str(&EXTRA_HASH_REGEX)?)?,
            look_elsewhere,
            lookup_optimize,
            min_free_disk,
            min_free_inodes: options.percent(&MIN_FREE_INODES)?,
            unhashed_sticky_bit: options.bool(&UNHASHED_STICKY_BIT)?,
            spread: usize::try_from(options.int(&DIRECTORY_LAYOUT_SPREAD)?).unwrap_or(0),
            decommissioned,
            readdir_optimize: options.bool(&READDIR_OPTIMIZE)?,
            weighted: options.bool(&WEIGHTED_REBALANCE)?,
            randomize_by_gfid: options.bool(&RANDOMIZE_BY_GFID)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [&str; 2] = ["v-client-0", "v-client-1"];

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, OptionError> {
        let options = pairs.iter().fold(Options::new(), |options, (key, value)| options.with(*key, *value));
        Settings::read(&options, &TWO)
    }

    #[test]
    fn defaults_are_those_of_glusterfs() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.keys.linkto, "trusted.glusterfs.dht.linkto");
        assert_eq!(settings.keys.mds, "trusted.glusterfs.dht.mds");
        assert_eq!(settings.min_free_disk, PercentOrSize::Percent(10.0));
        assert_eq!(settings.min_free_inodes, 5.0);
        assert_eq!(settings.look_elsewhere, LookElsewhere::WhereChanged);
        assert!(settings.weighted && !settings.readdir_optimize && !settings.randomize_by_gfid);
    }

    #[test]
    fn values_are_read_or_refused() {
        assert_eq!(read(&[("lookup-optimize", "off")]).unwrap().look_elsewhere, LookElsewhere::Always);
        let never = read(&[("lookup-optimize", "off"), ("lookup-unhashed", "off")]).unwrap();
        assert_eq!(never.look_elsewhere, LookElsewhere::Never);
        assert_eq!(read(&[("decommissioned-bricks", "v-client-1")]).unwrap().decommissioned, [1]);
        assert_eq!(read(&[("min-free-disk", "1GB")]).unwrap().min_free_disk, PercentOrSize::Bytes(1 << 30));
        for (key, value) in [
            ("decommissioned-bricks", "elsewhere"),
            ("min-free-disk", "much"),
            ("directory-layout-spread", "0"),
            ("rsync-hash-regex", "("),
            ("lookup-unhashed", "maybe"),
            ("xattr-name", "user.x"),
            ("rebalance-cmd", "1"),
        ] {
            assert!(read(&[(key, value)]).is_err(), "{key} {value}");
        }
    }
}
