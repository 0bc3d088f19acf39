//! `volume set`, `volume reset`, `volume get`.

use crate::api::{Answer, Failure, Outcome};
use crate::daemon::node::Node;
use crate::daemon::peer::Act;
use crate::option::{self, FORCE, GLOBAL, LISTED, NEVER_RESET, OPTIONS};
use crate::state::command::Command;
use crate::state::model::{OP_VERSION, Volume};

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(libc::EINVAL, message)
}

/// Most options in one command.
const MAX_AT_ONCE: usize = 256;

impl Node {
    /// `volume set V KEY VALUE...`; V may be `all`.
    pub async fn set_options(&self, name: &str, options: &[(String, String)]) -> Outcome {
        let volume = if name == "all" { None } else { Some(self.volume(name)?) };
        if options.is_empty() || options.len() > MAX_AT_ONCE {
            return Err(invalid(format!("1 to {MAX_AT_ONCE} options at once")));
        }
        let mut full = Vec::with_capacity(options.len());
        for (key, value) in options {
            full.push(self.check_option(volume.as_ref(), key, value)?);
        }
        let command = match &volume {
            Some(volume) => Command::SetOptions { name: name.to_owned(), id: volume.id, options: full },
            None => Command::SetGlobalOptions { options: full },
        };
        let index = self.propose(command).await?;
        self.act(index, Act::Applied).await?;
        Ok(Answer::Done { note: None })
    }

    fn check_option(&self, volume: Option<&Volume>, key: &str, value: &str) -> Result<(String, String), Failure> {
        let value = value.trim();
        if option::is_users(key) && volume.is_some() {
            if key.len() > 256
                || key.contains(['=', '\n'])
                || value.len() > option::MAX_VALUE_BYTES
                || value.contains('\n')
            {
                return Err(invalid(format!("option {key}: a name and a value of one line are expected")));
            }
            return Ok((key.to_owned(), value.to_owned()));
        }
        let entry = option::find(key).ok_or_else(|| option::unknown(key))?;
        match volume {
            Some(_) if entry.is(GLOBAL) => {
                return Err(invalid(format!(
                    "option : {} is a global option. It is not valid to set it on a single volume; use 'volume set all'",
                    entry.key
                )));
            }
            None if !entry.is(GLOBAL) => {
                return Err(invalid(format!("{} is not a global option; name a volume", entry.key)));
            }
            _ => {}
        }
        entry.validate(value)?;
        check_supported(entry.key, value)?;
        if let Some(volume) = volume {
            check_against(volume, entry.key, value)?;
        }
        if entry.key == "cluster.op-version" {
            return match value.parse::<u32>() {
                Ok(version) if version == OP_VERSION => Ok((entry.key.to_owned(), value.to_owned())),
                Ok(version) if version > OP_VERSION => Err(invalid(format!(
                    "Required op_version ({version}) is not supported. Max supported op-version is {OP_VERSION}"
                ))),
                Ok(version) => Err(invalid(format!(
                    "Required op-version ({version}) should not be equal or lower than current cluster op-version \
                     ({OP_VERSION})."
                ))),
                Err(_) => Err(invalid(format!("{value} is not a valid op-version"))),
            };
        }
        Ok((entry.key.to_owned(), value.to_owned()))
    }

    /// `volume reset V [KEY] [force]`; V may be `all`.
    pub async fn reset_options(&self, name: &str, key: Option<&str>, force: bool) -> Outcome {
        let volume = if name == "all" { None } else { Some(self.volume(name)?) };
        let set: Vec<String> = match &volume {
            Some(volume) => volume.options.iter().map(|(key, _)| key.clone()).collect(),
            None => self.store.with_state(|state| state.global_options.iter().map(|(key, _)| key.clone()).collect()),
        };
        let note = Some("reset volume successful".to_owned());
        let keys = match key {
            Some(key) if set.iter().any(|known| known == key) && option::is_users(key) => vec![key.to_owned()],
            Some(key) => {
                let entry = option::find(key).ok_or_else(|| {
                    let failure = option::unknown(key);
                    // The same words with another beginning.
                    invalid(failure.message.replacen("option : ", "Option ", 1))
                })?;
                if entry.is(FORCE) && !force && set.iter().any(|known| known == entry.key) {
                    return Err(invalid(format!("'{}' is protected. To reset use 'force'.", entry.key)));
                }
                vec![entry.key.to_owned()]
            }
            None => set
                .iter()
                .filter(|key| {
                    let entry = option::find(key);
                    !entry.is_some_and(|entry| entry.is(NEVER_RESET) || (entry.is(FORCE) && !force) || keeps(entry.key))
                })
                .cloned()
                .collect(),
        };
        let command = match &volume {
            Some(volume) => Command::ResetOptions { name: name.to_owned(), id: volume.id, keys },
            None => Command::ResetGlobalOptions { keys },
        };
        let index = self.propose(command).await?;
        self.act(index, Act::Applied).await?;
        Ok(Answer::Done { note })
    }

    /// `volume get V KEY`; either may be `all`.
    pub fn get_options(&self, name: &str, key: &str) -> Outcome {
        let volume = if name == "all" { None } else { Some(self.volume(name)?) };
        let volume = volume.as_ref();
        let options = if key == "all" {
            let mut listed: Vec<(String, String)> = OPTIONS
                .iter()
                .filter(|entry| match volume {
                    Some(_) => entry.is(LISTED),
                    None => entry.is(GLOBAL) && entry.default.is_some(),
                })
                .map(|entry| (entry.key.to_owned(), self.shown(volume, entry)))
                .collect();
            if let Some(volume) = volume {
                listed.extend(volume.options.iter().filter(|(key, _)| option::is_users(key)).cloned());
            }
            listed
        } else if let Some(value) = volume.and_then(|volume| volume.option(key)).filter(|_| option::is_users(key)) {
            vec![(key.to_owned(), value.to_owned())]
        } else {
            let entry = option::find(key).ok_or_else(|| {
                invalid(
                    option::hint(key)
                        .map_or_else(|| format!("Option {key} does not exist"), |hint| format!("Did you mean {hint}?")),
                )
            })?;
            vec![(entry.key.to_owned(), self.shown(volume, entry))]
        };
        Ok(Answer::Options(options))
    }

    fn shown(&self, volume: Option<&Volume>, entry: &option::VolumeOption) -> String {
        if matches!(entry.key, "cluster.op-version" | "cluster.max-op-version") {
            return OP_VERSION.to_string();
        }
        let set = volume.and_then(|volume| volume.option(entry.key).map(str::to_owned));
        let set = set.or_else(|| self.store.with_state(|state| state.global_option(entry.key).map(str::to_owned)));
        set.unwrap_or_else(|| match (entry.default, entry.written) {
            // GlusterFS's own default for three copies and more.
            _ if entry.key == "cluster.quorum-type" && volume.is_some_and(|v| v.replica >= 3) => "auto".to_owned(),
            // What volgen writes of itself counts as set.
            (Some(default), Some(_)) if volume.is_some() && !entry.is(GLOBAL) => default.to_owned(),
            (default, _) => format!("{} (DEFAULT)", default.unwrap_or("(null)")),
        })
    }
}

/// Options a whole reset leaves alone: of those `create` set, the ones GlusterFS 10.3 leaves alone.
fn keeps(key: &str) -> bool {
    matches!(key, "storage.fips-mode-rchecksum" | "transport.address-family" | "nfs.disable")
}

/// Options our bricks do not start with when they are on.
const NOT_YET: [&str; 21] = [
    "changelog.changelog",
    "client.ssl",
    "features.barrier",
    "features.bitrot",
    "features.cache-invalidation",
    "features.enforce-mandatory-lock",
    "features.inode-quota",
    "features.leases",
    "features.quota",
    "features.read-only",
    "features.trash",
    "features.trash-internal-op",
    "features.worm",
    "features.worm-file-level",
    "geo-replication.ignore-pid-check",
    "geo-replication.indexing",
    "server.all-squash",
    "server.manage-gids",
    "server.root-squash",
    "server.ssl",
    "storage.build-pgfid",
];

/// Most event threads of a brick.
const MAX_EVENT_THREADS: i64 = 64;

/// Refuses what passes in GlusterFS and our bricks refuse: better now than at the volume's next start.
fn check_supported(key: &str, value: &str) -> Result<(), Failure> {
    let is_supported = match key {
        "locks.mandatory-locking" => value.eq_ignore_ascii_case("off"),
        "server.event-threads" => value.parse().is_ok_and(|count| (1..=MAX_EVENT_THREADS).contains(&count)),
        "storage.create-mask"
        | "storage.create-directory-mask"
        | "storage.force-create-mode"
        | "storage.force-directory-mode" => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
        "storage.max-hardlinks" => value.parse::<u32>().is_ok(),
        _ => !NOT_YET.contains(&key) || option::parse_bool(value) != Some(true),
    };
    if is_supported {
        return Ok(());
    }
    let bound = if key == "server.event-threads" { format!(" (at most {MAX_EVENT_THREADS})") } else { String::new() };
    Err(Failure::new(libc::EOPNOTSUPP, format!("option {key} : {value} is not supported yet{bound}")))
}

/// Checks that depend on the volume.
fn check_against(volume: &Volume, key: &str, value: &str) -> Result<(), Failure> {
    match key {
        "cluster.quorum-count" => {
            let max = i64::from(volume.replica);
            match value.parse::<i64>() {
                Ok(count) if (1..=max).contains(&count) => Ok(()),
                _ => Err(invalid(format!("{value} in quorum-count {value} is out of range [1 - {max}]"))),
            }
        }
        "cluster.self-heal-daemon" if !volume.is_replicated() => {
            Err(invalid(format!("Volume {} is not of replicate type", volume.name)))
        }
        "cluster.granular-entry-heal" if !volume.is_replicated() => {
            Err(invalid(format!("Cannot set {key} for a non-replicate volume.")))
        }
        "features.read-only" | "features.worm" => {
            let other = if key == "features.worm" { "features.read-only" } else { "features.worm" };
            let both = option::parse_bool(value) == Some(true)
                && volume.option(other).and_then(option::parse_bool) == Some(true);
            if both { Err(invalid("read-only and worm cannot be set together")) } else { Ok(()) }
        }
        _ => Ok(()),
    }
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
        for (key, good, bad) in [
            ("locks.mandatory-locking", "off", "forced"),
            ("server.event-threads", "64", "65"),
            ("storage.create-mask", "0755", "0789"),
            ("storage.max-hardlinks", "100", "99999999999"),
        ] {
            assert!(check_supported(key, good).is_ok(), "{key}");
            assert!(check_supported(key, bad).is_err(), "{key}");
        }
        assert!(check_supported("network.ping-timeout", "10").is_ok());
    }
}
