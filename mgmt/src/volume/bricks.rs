//! `volume add-brick` and `volume remove-brick ... force`: whole sets come and go. What was on a removed brick stays there; nothing
//! is moved.

use crate::api::{Answer, BrickName, Failure, Outcome};
use crate::daemon::node::Node;
use crate::daemon::peer::{Act, Stage};
use crate::state::command::{Command, brick_conflict};
use crate::state::model::{Brick, Status, Volume};
use crate::volume::create::{LATE_REFUSAL, MAX_BRICKS, clean_path, hosts_once, not_available};

/// A refusal before anything was checked elsewhere: GlusterFS gives it no errno.
fn early(message: impl Into<String>) -> Failure {
    Failure::new(0, message)
}

fn late(message: impl Into<String>) -> Failure {
    Failure::new(LATE_REFUSAL, message)
}

impl Node {
    /// `volume add-brick V [replica N [arbiter N]] BRICK...`.
    pub async fn add_bricks(&self, name: &str, replica: Option<u32>, bricks: &[BrickName], force: bool) -> Outcome {
        let volume = self.volume(name).map_err(|_| early(format!("Unable to get volinfo for volume name {name}")))?;
        let copies = volume.replica.max(1);
        match replica {
            Some(replica) if replica > copies => {
                return Err(Failure::new(
                    libc::EOPNOTSUPP,
                    format!("changing the replica count from {copies} to {replica} is not supported yet"),
                ));
            }
            Some(replica) if replica < copies => {
                return Err(early(format!(
                    "Incorrect replica count ({replica}) supplied. Volume already has ({copies})"
                )));
            }
            _ => {}
        }
        if bricks.is_empty() || !bricks.len().is_multiple_of(copies as usize) {
            return Err(early(format!("Incorrect number of bricks supplied {} with count {copies}", bricks.len())));
        }
        if volume.bricks.len() + bricks.len() > MAX_BRICKS {
            return Err(early(format!("a volume has {MAX_BRICKS} bricks at most")));
        }
        if copies > 1 && !force {
            self.check_spread(bricks, copies as usize).await.map_err(|failure| late(failure.message))?;
        }
        let mut named = self.name_bricks(name, bricks).await.map_err(|failure| late(failure.message))?;
        let first = next_number(&volume);
        for (brick, number) in named.iter_mut().zip(first..) {
            brick.id = format!("{name}-client-{number}");
        }
        for brick in &named {
            let conflict = self.store.with_state(|state| brick_conflict(state, brick.host_uuid, &brick.path));
            if conflict.is_some() {
                return Err(late(not_available(&brick.name())));
            }
        }
        let stages = hosts_once(named.iter().map(|brick| brick.host_uuid)).into_iter().map(|uuid| {
            let here = named.iter().filter(|brick| brick.host_uuid == uuid);
            let bricks = here.map(|brick| BrickName { host: brick.host.clone(), path: brick.path.clone() }).collect();
            (uuid, Stage::Create { volume: name.to_owned(), id: volume.id, bricks, force })
        });
        let staged = self.stage(stages.collect(), "Pre Validation failed on {}. {}").await;
        staged.map_err(|failure| late(failure.message))?;
        let command = Command::AddBricks { name: name.to_owned(), id: volume.id, bricks: named };
        let index = self.propose(command).await?;
        self.act(index, Act::Created { volume: name.to_owned() }).await?;
        self.start_new(index, &volume).await?;
        Ok(Answer::Volume { name: name.to_owned(), id: volume.id.to_string() })
    }

    /// Starts what the change of a started volume brought.
    async fn start_new(&self, index: u64, volume: &Volume) -> Result<(), Failure> {
        if volume.status == Status::Started {
            return self.act(index, Act::Started { volume: volume.name.clone() }).await;
        }
        Ok(())
    }

    /// `volume remove-brick V BRICK... force`.
    pub async fn remove_bricks(&self, name: &str, replica: Option<u32>, bricks: &[BrickName]) -> Outcome {
        let volume = self.volume(name).map_err(|failure| early(failure.message))?;
        let copies = volume.replica.max(1);
        if replica.is_some_and(|replica| replica != copies) {
            return Err(Failure::new(libc::EOPNOTSUPP, "changing the replica count is not supported yet"));
        }
        if copies > 1 && volume.bricks.len() == copies as usize {
            return Err(early(
                "Removing bricks from replicate configuration is not allowed without reducing replica count explicitly.",
            ));
        }
        if !bricks.len().is_multiple_of(copies as usize) {
            return Err(early(format!("Remove brick incorrect brick count of {} for replica {copies}", bricks.len())));
        }
        let mut positions = Vec::with_capacity(bricks.len());
        for brick in bricks {
            let path = clean_path(&brick.path);
            let found = volume
                .bricks
                .iter()
                .position(|known| known.host == brick.host && Some(known.path.as_str()) == path.as_deref())
                .ok_or_else(|| early(format!("Incorrect brick {}:{} for volume {name}", brick.host, brick.path)))?;
            if !positions.contains(&found) {
                positions.push(found);
            }
        }
        positions.sort_unstable();
        let is_set = |set: &[usize]| {
            set.first().is_some_and(|first| first % copies as usize == 0)
                && set.len() == copies as usize
                && set.windows(2).all(|pair| matches!(pair, [a, b] if a + 1 == *b))
        };
        if !positions.chunks(copies as usize).all(is_set) {
            return Err(early("Bricks not from same subvol for replica"));
        }
        if positions.len() == volume.bricks.len() {
            return Err(late("Deleting all the bricks of the volume is not allowed"));
        }
        let gone =
            positions.iter().filter_map(|index| volume.bricks.get(*index)).map(|brick| brick.id.clone()).collect();
        let index =
            self.propose(Command::RemoveBricks { name: name.to_owned(), id: volume.id, brick_ids: gone }).await?;
        self.act(index, Act::Shrunk { volume: name.to_owned() }).await?;
        Ok(Answer::Volume { name: name.to_owned(), id: volume.id.to_string() })
    }
}

/// The number the next brick's name in marks gets: never one that was given before to a brick still there.
fn next_number(volume: &Volume) -> usize {
    let number = |brick: &Brick| brick.id.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
    volume.bricks.iter().filter_map(number).max().map_or(volume.bricks.len(), |last| last.saturating_add(1))
}
