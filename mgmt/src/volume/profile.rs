//! `volume profile V start|stop`: options of io-stats. What it counts is asked with [`About::Profile`].

use crate::api::{About, Answer, Failure, Outcome};
use crate::daemon::node::Node;
use crate::daemon::peer::Act;
use crate::option::parse_bool;
use crate::state::command::Command;
use crate::state::model::{Status, Volume};

/// What a profile consists of, in the order GlusterFS sets them.
const OPTIONS: [&str; 2] = ["diagnostics.latency-measurement", "diagnostics.count-fop-hits"];

fn is_profiled(volume: &Volume) -> bool {
    OPTIONS.iter().all(|key| volume.option(key).and_then(parse_bool) == Some(true))
}

fn not_started(volume: &Volume) -> Failure {
    Failure::new(libc::EINVAL, format!("Profile on Volume {} is not started", volume.name))
}

impl Node {
    /// `volume profile V start` or `stop`.
    pub async fn profile_volume(&self, name: &str, on: bool) -> Outcome {
        let volume = self.volume(name)?;
        let id = volume.id;
        let command = match (on, is_profiled(&volume)) {
            (true, true) => {
                let message = format!("Profile on Volume {name} is already started");
                return Err(Failure::new(libc::EINVAL, message));
            }
            (false, false) => return Err(not_started(&volume)),
            (true, false) => {
                let options = OPTIONS.map(|key| (key.to_owned(), "on".to_owned())).to_vec();
                Command::SetOptions { name: name.to_owned(), id, options }
            }
            (false, true) => {
                let keys = OPTIONS.map(str::to_owned).to_vec();
                Command::ResetOptions { name: name.to_owned(), id, defaults: Vec::new(), keys }
            }
        };
        let index = self.propose(command).await?;
        self.act(index, Act::Applied).await?;
        Ok(Answer::Volume { name: name.to_owned(), id: id.to_string() })
    }
}

/// Whether `about` can be asked about the volume.
///
/// # Errors
/// GlusterFS's words.
pub fn check_question(volume: &Volume, about: Option<&About>) -> Result<(), Failure> {
    if matches!(about, Some(About::Profile { .. })) && !is_profiled(volume) {
        return Err(not_started(volume));
    }
    if matches!(about, Some(About::HealCount)) && !volume.is_replicated() {
        let message = format!("Volume {} is not of type replicate/disperse", volume.name);
        return Err(Failure::new(libc::EINVAL, message));
    }
    if volume.status != Status::Started {
        // The full stop is these commands' own.
        let stop =
            if matches!(about, Some(About::Profile { .. } | About::Top { .. } | About::ClearTop | About::HealCount)) {
                "."
            } else {
                ""
            };
        return Err(Failure::new(libc::EINVAL, format!("Volume {} is not started{stop}", volume.name)));
    }
    Ok(())
}
