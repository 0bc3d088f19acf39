//! `volume set`, `volume reset`, `volume get`.

use crate::api::{Answer, Failure, Outcome};
use crate::daemon::node::Node;
use crate::daemon::peer::Act;
use crate::option::{self, FORCE, GLOBAL, LISTED, NEVER_RESET, OPTIONS};
use crate::state::command::Command;
use crate::state::model::{OP_VERSION, Volume};
use crate::volume::option_rules;

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
        let note = options.iter().any(|(key, _)| key == "debug.trace").then(|| {
            "debug.trace translator has been added to the server volume file. Please restart the volume for enabling the \
             translator"
                .to_owned()
        });
        Ok(Answer::Done { note })
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
        self.store.with_state(|state| option_rules::check_scope(state, volume, entry, value))?;
        option_rules::check(volume, entry.key, value)?;
        entry.validate(value)?;
        option_rules::check_supported(entry.key, value)?;
        Ok((entry.key.to_owned(), value.to_owned()))
    }

    /// `volume reset V [KEY] [force]`; V may be `all`.
    pub async fn reset_options(&self, name: &str, key: Option<&str>, force: bool) -> Outcome {
        let volume = if name == "all" { None } else { Some(self.volume(name)?) };
        let set: Vec<String> = match &volume {
            Some(volume) => volume.options.iter().map(|(key, _)| key.clone()).collect(),
            None => self.store.with_state(|state| state.global_options.iter().map(|(key, _)| key.clone()).collect()),
        };
        let mut note = "reset volume successful";
        let keys = match key {
            Some(key) if set.iter().any(|known| known == key) && option::is_users(key) => vec![key.to_owned()],
            Some(key) => {
                let entry = option::find(key).ok_or_else(|| {
                    let failure = option::unknown(key);
                    // The same words with another beginning.
                    invalid(failure.message.replacen("option : ", "Option ", 1))
                })?;
                if matches!(entry.key, "features.quota" | "features.inode-quota") {
                    return Err(invalid(format!(
                        "'gluster volume reset <VOLNAME> {}' is deprecated. Use 'gluster volume quota <VOLNAME> disable' \
                         instead.",
                        entry.key
                    )));
                }
                if entry.is(FORCE) && !force && set.iter().any(|known| known == entry.key) {
                    return Err(invalid(format!("'{}' is protected. To reset use 'force'.", entry.key)));
                }
                vec![entry.key.to_owned()]
            }
            None => {
                let is_kept = |key: &&String, flag| option::find(key).is_some_and(|entry| entry.is(flag));
                if !force && set.iter().any(|key| is_kept(&key, FORCE)) {
                    note = "All unprotected fields were reset. To reset the protected fields, use 'force'.";
                }
                set.iter()
                    .filter(|key| !is_kept(key, NEVER_RESET) && (force || !is_kept(key, FORCE)))
                    .cloned()
                    .collect()
            }
        };
        let command = match &volume {
            Some(volume) => {
                let defaults = REPLACED.iter().filter(|(name, _)| keys.iter().any(|key| key == name));
                Command::ResetOptions {
                    name: name.to_owned(),
                    id: volume.id,
                    defaults: defaults.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                    keys,
                }
            }
            None => Command::ResetGlobalOptions { keys },
        };
        let index = self.propose(command).await?;
        self.act(index, Act::Applied).await?;
        Ok(Answer::Done { note: Some(note.to_owned()) })
    }

    /// `volume get V KEY`; either may be `all`.
    pub fn get_options(&self, name: &str, key: &str) -> Outcome {
        let volume = if name == "all" { None } else { Some(self.volume(name)?) };
        let volume = volume.as_ref();
        let options = if key == "all" {
            let mut listed: Vec<(String, String)> = OPTIONS
                .iter()
                .filter(|entry| volume.is_some() && entry.is(LISTED))
                .map(|entry| (entry.key.to_owned(), self.shown(volume, entry)))
                .collect();
            if volume.is_none() {
                let entries = POOL_WIDE.iter().filter_map(|key| option::find(key));
                listed.extend(entries.map(|entry| (entry.key.to_owned(), self.shown(None, entry))));
            }
            if let Some(volume) = volume {
                listed.extend(volume.options.iter().filter(|(key, _)| option::is_users(key)).cloned());
            }
            listed
        } else if volume.is_none() && option::find(key).is_some_and(|entry| !entry.is(GLOBAL)) {
            return Err(invalid("Not a valid option for all volumes"));
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
            // In the list of a volume, GlusterFS shows the pool's defaults as if they were set.
            (Some(default), _) if volume.is_some() && entry.is(GLOBAL) => default.to_owned(),
            (default, _) => format!("{} (DEFAULT)", default.unwrap_or("(null)")),
        })
    }
}

/// The pool's options, in the order `volume get all all` lists them. Source: valid_all_vol_opts.
const POOL_WIDE: [&str; 10] = [
    "cluster.server-quorum-ratio",
    "cluster.enable-shared-storage",
    "cluster.op-version",
    "cluster.max-op-version",
    "cluster.brick-multiplex",
    "cluster.max-bricks-per-process",
    "glusterd.vol_count_per_thread",
    "cluster.localtime-logging",
    "cluster.daemon-log-level",
    "cluster.brick-graceful-cleanup",
];

/// What a reset puts in the place of what it took away: options `create` sets for every volume.
const REPLACED: [(&str, &str); 3] =
    [("nfs.disable", "on"), ("transport.address-family", "inet"), ("storage.fips-mode-rchecksum", "on")];
