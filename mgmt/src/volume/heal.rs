//! `volume heal V [full]`: tells every node's heal service to start.

use ladrillo_transport::program::callback;
use rustix::process::Signal;

use crate::api::{Answer, Failure, Outcome};
use crate::daemon::node::Node;
use crate::daemon::peer::Act;
use crate::option::parse_bool;
use crate::state::command::Command;
use crate::state::model::Status;

impl Node {
    /// `volume heal V [full]`.
    pub async fn heal_volume(&self, name: &str, full: bool) -> Outcome {
        let volume = self.volume(name)?;
        let refuse = |message: String| Err(Failure::new(libc::EINVAL, message));
        if volume.status != Status::Started {
            return refuse(format!("Volume {name} is not started."));
        }
        if !volume.is_replicated() {
            return refuse(format!("Self-heal-daemon is disabled. Heal will not be triggered on volume {name}"));
        }
        if volume.option("cluster.self-heal-daemon").and_then(parse_bool) == Some(false) {
            return refuse(format!("Self-heal-daemon is disabled. Heal will not be triggered on volume {name}"));
        }
        self.act(0, Act::Heal { volume: name.to_owned(), full }).await?;
        Ok(Answer::Done { note: None })
    }

    /// `volume heal V granular-entry-heal enable|disable`. Whoever asks has looked that nothing is to be healed.
    pub async fn granular_entry_heal(&self, name: &str, on: bool) -> Outcome {
        let volume = self.volume(name)?;
        if !volume.is_replicated() {
            let message = format!("Volume {name} is not of type replicate");
            return Err(Failure::new(libc::EINVAL, message));
        }
        let value = if on { "enable" } else { "disable" };
        let options = vec![("cluster.granular-entry-heal".to_owned(), value.to_owned())];
        let index = self.propose(Command::SetOptions { name: name.to_owned(), id: volume.id, options }).await?;
        self.act(index, Act::Applied).await?;
        Ok(Answer::Done { note: None })
    }

    /// Tells this node's heal service of the volume to start: SIGUSR2 for the index, SIGURG for every file, where it takes
    /// them; else by an event on the connection it fetched its volfile over.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn heal_here(&self, name: &str, full: bool) -> Result<(), Failure> {
        let volume = self.volume(name)?;
        if !self.wants_heal(&volume) {
            return Ok(());
        }
        let daemon = self.heal_daemon(name);
        let (signal, event) = match full {
            true => (Signal::URG, callback::EVENT_HEAL_FULL),
            false => (Signal::USR2, callback::EVENT_HEAL_INDEX),
        };
        match daemon.signal(signal) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(Failure::new(error.raw_os_error().unwrap_or(libc::EIO), error.to_string())),
        }
        if daemon.pid().is_some() && self.tell_heal_service(name, event).await {
            return Ok(());
        }
        Err(Failure::new(libc::ENOTCONN, "Self-heal daemon is not running. Check self-heal daemon log file."))
    }
}
