//! Rules for options beyond the type of their value: those that have a command of their own, those that depend on the volume,
//! and those our bricks do not keep yet. Words and order are GlusterFS's (glusterd-volume-set.c, glusterd-op-sm.c).

use std::path::Path;

use ladrillo_transport::Via;
use ladrillo_transport::kind::VIA_OPTION;

use crate::api::Failure;
use crate::option::{self, GLOBAL, VolumeOption, parse_bool, parse_size};
use crate::state::model::{OP_VERSION, State, Status, Volume, transport_name};

/// Options that promise what our bricks do not keep yet: refused when they are on, so that nobody believes in them.
const NOT_YET: [&str; 3] = ["client.ssl", "cluster.switch", "server.ssl"];

/// What GlusterFS says when its volfile generator stumbles over a value.
pub const STUMBLED: &str = "Error, Validation Failed";

fn refused(message: impl Into<String>) -> Result<(), Failure> {
    Err(Failure::new(libc::EINVAL, message))
}

/// Checks all of them for a value to be set on `volume`, or on the pool.
///
/// # Errors
/// GlusterFS's words.
pub fn check(volume: Option<&Volume>, key: &str, value: &str) -> Result<(), Failure> {
    check_commands(key, value)?;
    match volume {
        Some(volume) => check_volume(volume, key, value)?,
        None => check_pool(key, value)?,
    }
    Ok(())
}

/// Whether the option is the pool's or a volume's, as it is set; before that, what GlusterFS looks at even earlier.
///
/// # Errors
/// GlusterFS's words when it is not.
pub fn check_scope(state: &State, volume: Option<&Volume>, entry: &VolumeOption, value: &str) -> Result<(), Failure> {
    check_boolean(entry.key, value)?;
    check_multiplex(state, entry.key)?;
    check_counts(entry.key, value)?;
    match volume {
        _ if entry.key == "cluster.max-op-version" => refused("Not a valid option to set"),
        Some(_) if entry.key == "cluster.op-version" => {
            refused("Option \"cluster.op-version\" is not valid for a single volume")
        }
        Some(_) if entry.is(GLOBAL) => refused("Not a valid option for single volume"),
        None if !entry.is(GLOBAL) => refused("Not a valid option for all volumes"),
        _ => Ok(()),
    }
}

fn check_multiplex(state: &State, key: &str) -> Result<(), Failure> {
    let needs_it = matches!(key, "cluster.max-bricks-per-process" | "glusterd.vol_count_per_thread");
    if needs_it && state.global_option("cluster.brick-multiplex").and_then(parse_bool) != Some(true) {
        return refused(
            "Brick-multiplexing is not enabled. Please enable brick multiplexing before trying to set this option.",
        );
    }
    Ok(())
}

/// Limits of the pool-wide counts.
fn check_counts(key: &str, value: &str) -> Result<(), Failure> {
    if !matches!(key, "cluster.max-bricks-per-process" | "glusterd.vol_count_per_thread") {
        return Ok(());
    }
    match value.parse::<u32>() {
        Err(_) => refused(format!("{value} is not a valid count. {key} expects an unsigned integer.")),
        Ok(count) if key == "glusterd.vol_count_per_thread" && !(5..=200).contains(&count) => refused(
            "Please set this option to a value between 5 and 200 tooptimize processing large numbers of volumes in \
             parallel.",
        ),
        Ok(1) => refused(
            "Brick-multiplexing is enabled. Please set this option to a value other than 1 to make use of the \
             brick-multiplexing feature.",
        ),
        Ok(_) => Ok(()),
    }
}

/// Options that have a command of their own.
fn check_commands(key: &str, value: &str) -> Result<(), Failure> {
    let instead = |what: &str, how: &str| refused(format!(" 'gluster volume set <VOLNAME> {what}' is {how} instead."));
    match key {
        "features.quota" | "features.inode-quota" if parse_bool(value).is_none() => refused(STUMBLED),
        "features.quota" | "features.inode-quota" => {
            let command = match parse_bool(value) {
                Some(true) if key == "features.quota" => "quota <VOLNAME> enable",
                Some(true) => "inode-quota <VOLNAME> enable",
                _ => "quota <VOLNAME> disable",
            };
            instead(&format!("{key} {value}"), &format!("deprecated. Use 'gluster volume {command}'"))
        }
        "features.bitrot" => instead(key, "invalid command. Use 'gluster volume bitrot <VOLNAME> {enable|disable}'"),
        "features.scrub" => instead(key, "invalid command. Use 'gluster volume bitrot <VOLNAME> scrub {pause|resume}'"),
        "features.scrub-throttle" => instead(
            key,
            "invalid command. Use 'gluster volume bitrot <VOLNAME> scrub-throttle  {lazy|normal|aggressive}'",
        ),
        "features.scrub-freq" => instead(
            key,
            "invalid command. Use 'gluster volume bitrot <VOLNAME> scrub-frequency \
             {hourly|daily|weekly|biweekly|monthly}'",
        ),
        "ganesha.enable" if parse_bool(value).is_none() => {
            refused("Invalid value for volume set command. Use on/off only.")
        }
        "ganesha.enable" => refused("The option nfs-ganesha should be enabled before setting ganesha.enable."),
        _ => Ok(()),
    }
}

/// Options whose boolean is looked at before any translator is.
fn check_boolean(key: &str, value: &str) -> Result<(), Failure> {
    const EARLY: [&str; 12] = [
        "client.strict-locks",
        "features.worm",
        "features.worm-file-level",
        "features.worm-files-deletable",
        "cluster.brick-multiplex",
        "cluster.brick-graceful-cleanup",
        "cluster.localtime-logging",
        "features.ctime",
        "ctime.noatime",
        "features.enforce-mandatory-lock",
        "features.uss",
        "performance.parallel-readdir",
    ];
    if EARLY.contains(&key) && parse_bool(value).is_none() {
        return refused(format!("{value} is not a valid boolean value. {key} expects a valid boolean value."));
    }
    Ok(())
}

fn check_pool(key: &str, value: &str) -> Result<(), Failure> {
    match key {
        "cluster.op-version" => match value.parse::<u32>() {
            Ok(version) if version > OP_VERSION => refused(format!(
                "Required op_version ({version}) is not supported. Max supported op version is {OP_VERSION}"
            )),
            Ok(version) => refused(format!(
                "Required op-version ({version}) should not be equal or lower than current cluster op-version \
                 ({OP_VERSION})."
            )),
            Err(_) => refused(format!("invalid number format \"{value}\" in option \"cluster.op-version\"")),
        },
        _ => Ok(()),
    }
}

fn check_volume(volume: &Volume, key: &str, value: &str) -> Result<(), Failure> {
    let copies = volume.replica.max(1) as usize;
    match key {
        "cluster.granular-entry-heal" if parse_bool(value).is_none() => {
            refused(format!("option granular-entry-heal {value}: '{value}' is not a valid boolean value"))
        }
        "cluster.granular-entry-heal" if volume.is_replicated() && volume.status == Status::Started => refused(
            " 'gluster volume set <VOLNAME> cluster.granular-entry-heal {enable, disable}' is not supported. Use 'gluster \
             volume heal <VOLNAME> granular-entry-heal {enable, disable}' instead.",
        ),
        "cluster.metadata-self-heal"
        | "cluster.data-self-heal"
        | "cluster.entry-self-heal"
        | "cluster.shd-max-threads"
            if !volume.is_replicated() =>
        {
            refused(format!("Cannot set {key} for a non-replicate volume."))
        }
        "cluster.self-heal-daemon" if !volume.is_replicated() => {
            refused(format!("Volume {} is not of replicate type", volume.name))
        }
        "disperse.quorum-count" if value.parse::<i64>().is_err() => {
            refused(format!("{value} is not an integer. {key} expects a valid integer value."))
        }
        "disperse.shd-max-threads" | "disperse.quorum-count" => {
            refused(format!("Cannot set {key} for a non-disperse volume."))
        }
        "cluster.disperse-self-heal-daemon" => refused(format!("Volume {} is not of disperse type", volume.name)),
        "cluster.quorum-count" if volume.is_replicated() => match value.parse::<i64>().map(as_c_int) {
            Ok(count) if (1..=i64::from(volume.replica)).contains(&count) => Ok(()),
            Ok(count) => refused(format!("{count} in {key} {count} is out of range [1 - {}]", volume.replica)),
            Err(_) => refused(format!("{value} is not an integer. {key} expects a valid integer value.")),
        },
        "cluster.subvols-per-directory" => {
            let sets = i64::try_from(volume.bricks.len() / copies).unwrap_or(i64::MAX);
            // As atoi reads it: what comes before the first other character.
            let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
            match value.get(..digits).and_then(|digits| digits.parse::<i64>().ok()).map(as_c_int) {
                Some(count) if count > sets => {
                    refused(format!("subvols-per-directory({count}) is greater than the number of subvolumes({sets})."))
                }
                _ => Ok(()),
            }
        }
        "cluster.rebal-throttle" if !matches!(value, "lazy" | "normal" | "aggressive") => {
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
            match value.parse::<i64>() {
                Ok(count) if usize::try_from(count).is_ok_and(|count| count <= cores) => Ok(()),
                Ok(_) => refused(format!(
                    "{key} should be within range of 0 and maximum number of cores available (cores available - {cores})"
                )),
                Err(_) => refused(format!(
                    "{key} should be {{lazy|normal|aggressive}} or a number up to number of cores available (cores \
                     available - {cores})"
                )),
            }
        }
        "features.snapshot-directory" => check_snapshot_directory(key, value),
        "features.default-retention-period" | "features.auto-commit-period" if value.parse::<u64>().is_err() => {
            refused(format!("{value} is not a valid uint64_t value. {key} expects a valid uint64_t value."))
        }
        "config.memory-accounting" | "config.gfproxyd" if parse_bool(value).is_none() => {
            refused("Commit failed on localhost. Please check the log file for more details.")
        }
        "config.transport" => match transport_name(value) {
            None => refused(format!("transport-type {value} does not exist")),
            Some(name) if name != volume.transport && volume.status == Status::Started => refused(format!(
                "Volume {} is started: its transport can be changed only while it is stopped (gluster volume stop {})",
                volume.name, volume.name
            )),
            Some(_) => Ok(()),
        },
        VIA_OPTION if Via::parse(Some(value)).is_err() => {
            refused(format!("{key} {value} does not exist: it is rsocket, smc or sdp"))
        }
        VIA_OPTION if volume.status == Status::Started && Via::parse(Some(value)) != Ok(volume.via()) => {
            refused(format!(
                "Volume {} is started: what carries its transport can be changed only while it is stopped (gluster volume \
                 stop {})",
                volume.name, volume.name
            ))
        }
        "features.trash-dir" if volume.option("features.trash").and_then(parse_bool) != Some(true) => {
            refused(format!("Trash translator is not enabled. Use volume set {} trash on", volume.name))
        }
        "cluster.lock-migration" if volume.is_replicated() => {
            refused("Lock migration is a experimental feature. Currently works with pure distribute volume only")
        }
        "cluster.lock-migration" if parse_bool(value).is_none() => {
            refused("Invalid value for volume set command. Use on/off only.")
        }
        "cluster.read-subvolume" => {
            let is_client = (0..volume.bricks.len()).any(|index| value == format!("{}-client-{index}", volume.name));
            if is_client {
                return Ok(());
            }
            refused(format!("option read-subvolume {value}: '{value}' is not a valid volume name"))
        }
        "locks.mandatory-locking" if !matches!(value, "off" | "file" | "forced" | "optimal") => refused(format!(
            "Invalid option value '{value}': Available options are 'off', 'file', 'forced' or 'optimal'"
        )),
        "features.retention-mode" if !matches!(value, "relax" | "enterprise") => refused(format!(
            "The value of retention mode should be either relax or enterprise. But the value of {key} is {value}"
        )),
        "features.read-only" | "features.worm" => {
            let other = if key == "features.worm" { "features.read-only" } else { "features.worm" };
            let is_on = |value: Option<&str>| value.and_then(parse_bool) == Some(true);
            if is_on(Some(value)) && is_on(volume.option(other)) {
                return refused(STUMBLED);
            }
            Ok(())
        }
        "features.quota-deem-statfs" => refused(format!("Cannot set {key}. Enable quota first.")),
        "auth.allow" | "auth.reject" => check_addresses(volume, key, value),
        "performance.cache-min-file-size" | "performance.cache-max-file-size" => {
            let of = |other: &str| if key == other { Some(value) } else { volume.option(other) };
            let (min, max) = (of("performance.cache-min-file-size"), of("performance.cache-max-file-size"));
            let (Some(low), Some(high)) = (min, max) else { return Ok(()) };
            if parse_size(low) > parse_size(high) && parse_size(high) != Some(0) {
                return refused(format!("cache-min-file-size ({low}) is greater than cache-max-file-size ({high})"));
            }
            Ok(())
        }
        "storage.linux-aio" | "storage.linux-io_uring" if volume.status == Status::Started => refused(format!(
            "Changing '{key}' is not supported when the volume is in started state. Please stop the volume first."
        )),
        "server.statedump-path" if !Path::new(value).is_dir() => refused(format!("Failed: {value} is not a directory")),
        "transport.listen-backlog" => match value.parse::<i64>() {
            Ok(count) if count >= 0 => Ok(()),
            Ok(_) => refused(format!("{value} is not a compatible value. {key} expects a positiveinteger value.")),
            Err(_) => refused(format!("{value} is not a compatible value. {key} expects an integer value.")),
        },
        _ => Ok(()),
    }
}

/// Where a number is kept in 32 bits, the rest is lost; what is said shows it.
fn as_c_int(number: i64) -> i64 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    i64::from(i32::from_le_bytes([a, b, c, d]))
}

fn check_snapshot_directory(key: &str, value: &str) -> Result<(), Failure> {
    const NAME_BYTES: usize = 255;
    if value.len() > NAME_BYTES {
        return refused(format!("value of {key} exceedes {NAME_BYTES} characters"));
    }
    if value.len() < 2 {
        return refused(format!("value of {key} too short, expects at least two characters"));
    }
    let Some(rest) = value.strip_prefix('.') else {
        return refused(format!("{key} expects value starting with '.' "));
    };
    if rest.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return Ok(());
    }
    refused(format!("{key} expects value to contain only '0-9a-z-_'"))
}

/// `ADDRESS,...` and `/SUBDIRECTORY(ADDRESS|ADDRESS),...`.
fn check_addresses(volume: &Volume, key: &str, value: &str) -> Result<(), Failure> {
    let is_good = |item: &str| match item.split_once('(') {
        Some((path, inside)) => {
            path.starts_with('/')
                && inside.strip_suffix(')').is_some_and(|list| list.split('|').all(option::is_address))
        }
        None => item == "*" || option::is_address(item),
    };
    if value.split(',').all(|item| is_good(item.trim())) {
        return Ok(());
    }
    let brick = volume.bricks.first().map_or("", |brick| brick.path.as_str());
    let name = format!("auth.addr.{brick}.{}", key.trim_start_matches("auth."));
    refused(format!("option {name} {value}: '{value}' is not a valid internet-address-list"))
}

/// Refuses what passes in GlusterFS and our bricks refuse: better now than at the volume's next start.
///
/// # Errors
/// Says so.
pub fn check_supported(key: &str, value: &str) -> Result<(), Failure> {
    let refused = |why: String| Err(Failure::new(libc::EINVAL, format!("option {key} : {value} {why}")));
    match key {
        "features.trash-dir" => {
            let name = value.trim_matches('/');
            if name.is_empty() || name.contains('/') || matches!(name, "." | ".." | ".glusterfs") {
                return refused("is not the name of a directory".to_owned());
            }
        }
        "features.default-retention-period" | "features.auto-commit-period"
            if value.parse::<u64>().is_ok_and(|seconds| i64::try_from(seconds).is_err()) =>
        {
            return refused(format!("is out of range [0 - {}] seconds", i64::MAX));
        }
        _ => {}
    }
    let is_supported = match key {
        "storage.max-hardlinks" => value.parse::<u32>().is_ok(),
        _ => !NOT_YET.contains(&key) || parse_bool(value) != Some(true),
    };
    if is_supported {
        return Ok(());
    }
    Err(Failure::new(libc::EOPNOTSUPP, format!("option {key} : {value} is not supported yet")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bricks_refuse_is_refused() {
        for key in NOT_YET {
            assert_eq!(option::find(key).map(|entry| entry.key), Some(key));
            assert!(check_supported(key, "off").is_ok(), "{key}");
            for on in ["on", "Enable", "true", "1", "yes"] {
                let failure = check_supported(key, on).unwrap_err();
                assert!(failure.message.contains(key) && failure.message.contains("not supported yet"), "{failure}");
            }
        }
        assert!(check_supported("storage.max-hardlinks", "100").is_ok());
        assert!(check_supported("storage.max-hardlinks", "99999999999").is_err());
        assert!(check_supported("network.ping-timeout", "10").is_ok());
        for bad in ["a/b", "", "/", "..", ".glusterfs"] {
            assert!(check_supported("features.trash-dir", bad).is_err(), "{bad}");
        }
        assert!(check_supported("features.trash-dir", "bin").is_ok());
        assert!(check_supported("features.default-retention-period", "9223372036854775808").is_err());
        assert!(check_supported("features.default-retention-period", "9223372036854775807").is_ok());
    }

    /// What a stock glusterd 10.3 said to seven values of every option, on a new volume of three copies (bricks in DIR/b/g1...).
    const SAID: &str = include_str!("../option/golden/set-10.3.txt");

    fn volume() -> Volume {
        let brick = |n: usize| crate::state::model::Brick {
            host: "127.1.1.1".into(),
            path: format!("DIR/b/g{n}"),
            host_uuid: uuid::Uuid::nil(),
            id: format!("gv0-client-{}", n - 1),
        };
        Volume {
            name: "gv0".into(),
            id: uuid::Uuid::nil(),
            status: Status::Created,
            replica: 3,
            arbiter: 0,
            bricks: (1..=3).map(brick).collect(),
            transport: "tcp".into(),
            options: Vec::new(),
            version: 1,
            start_count: 0,
            username: String::new(),
            password: String::new(),
        }
    }

    fn ours(volume: &Volume, key: &str, value: &str) -> Result<(), Failure> {
        let entry = option::find(key).ok_or_else(|| option::unknown(key))?;
        check_scope(&State::default(), Some(volume), entry, value)?;
        check(Some(volume), entry.key, value)?;
        entry.validate(value)
    }

    /// Without the number of cores, which is the machine's.
    fn masked(words: &str) -> &str {
        words.split("(cores available").next().unwrap_or(words)
    }

    #[test]
    fn values_pass_and_are_refused_as_in_glusterfs() {
        let volume = volume();
        let (mut compared, mut wrong, mut stricter) = (0, Vec::new(), 0);
        for line in SAID.lines() {
            let (asked, said) = line.split_once(" => ").unwrap();
            let (key, value) = asked.split_once(' ').unwrap();
            let (code, words) = said.split_once(' ').unwrap();
            compared += 1;
            match ours(&volume, key, value) {
                Ok(()) if code == "0" => {}
                Err(failure) if code != "0" && masked(words) == masked(&format!("failed: {failure}")) => {}
                // GlusterFS checks nothing of a translator that is not in the volume's graphs; we always do.
                Err(_) if code == "0" => stricter += 1,
                other => wrong.push(format!("{asked}\n  10.3: {words}\n  ours: {other:?}")),
            }
        }
        assert!(compared > 2500, "{compared}");
        assert!(wrong.is_empty(), "{} of {compared} differ ({stricter} stricter):\n{}", wrong.len(), wrong.join("\n"));
    }
}
