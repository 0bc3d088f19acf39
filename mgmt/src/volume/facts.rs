//! What is known of the file systems of this node's bricks. A disk that hangs holds up a thread of its own, not glusterd.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::oneshot;

use crate::daemon::node::Node;
use crate::state::workdir::{BrickFact, BrickFacts};

/// How often a brick is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long the answer is waited for; a later one is taken too.
const WAIT: Duration = Duration::from_secs(1);

/// The last answers.
#[derive(Clone, Default)]
pub struct Facts {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Default)]
struct Inner {
    known: BTreeMap<String, (Instant, Option<BrickFact>)>,
    /// One thread for each brick at most, however long it takes.
    looking: BTreeSet<String>,
}

impl Facts {
    /// What is known.
    pub fn known(&self) -> BrickFacts {
        let inner = self.inner.borrow();
        inner.known.iter().filter_map(|(path, (_, fact))| Some((path.clone(), (*fact)?))).collect()
    }

    /// Looks at those of `paths` that are due with `look` and forgets all others. Waits a moment for the answers.
    async fn refresh(&self, paths: Vec<String>, look: fn(&str) -> Option<BrickFact>) {
        self.inner.borrow_mut().known.retain(|path, _| paths.contains(path));
        let mut answers = Vec::new();
        for path in paths {
            {
                let mut inner = self.inner.borrow_mut();
                // A brick that was not there may be made any time.
                let is_fresh = |(at, fact): &(Instant, Option<BrickFact>)| fact.is_some() && at.elapsed() < LOOK_EVERY;
                if inner.known.get(&path).is_some_and(is_fresh) || !inner.looking.insert(path.clone()) {
                    continue;
                }
            }
            let (answer, answered) = oneshot::channel();
            let at = path.clone();
            // Not of the runtime's pool, which is waited for at the end.
            let spawned = std::thread::Builder::new().name("brick-facts".to_owned()).spawn(move || {
                // Nobody waits any more when glusterd ends.
                let _ = answer.send(look(&at));
            });
            let facts = self.clone();
            let done = tokio::task::spawn_local(async move {
                let found = answered.await;
                let mut inner = facts.inner.borrow_mut();
                inner.looking.remove(&path);
                if let Ok(fact) = found {
                    inner.known.insert(path, (Instant::now(), fact));
                }
            });
            match spawned {
                Ok(_) => answers.push(done),
                Err(error) => tracing::warn!("a thread to look at a brick: {error}"),
            }
        }
        // Late ones are taken when they come.
        let _ = tokio::time::timeout(WAIT, join_all(answers)).await;
    }
}

impl Node {
    /// Looks at the file systems of this node's bricks, those not looked at of late.
    pub async fn look_at_bricks(&self) {
        let own = self.uuid();
        let paths = self.store.with_state(|state| {
            let bricks = state.volumes.values().flat_map(|volume| &volume.bricks);
            bricks.filter(|brick| brick.host_uuid == own).map(|brick| brick.path.clone()).collect()
        });
        self.facts.refresh(paths, BrickFact::of).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &str) -> Option<BrickFact> {
        if path == "/hangs" {
            std::thread::sleep(Duration::from_secs(600));
        }
        Some(BrickFact { device: 1, file_system_id: 2 })
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let facts = Facts::default();
            let paths = || vec!["/hangs".to_owned(), "/well".to_owned()];
            for _ in 0..2 {
                let asked = Instant::now();
                facts.refresh(paths(), look).await;
                assert!(asked.elapsed() < WAIT * 5);
                assert_eq!(facts.known().keys().collect::<Vec<_>>(), ["/well"]);
                assert_eq!(facts.inner.borrow().looking.len(), 1);
            }
            facts.refresh(Vec::new(), look).await;
            assert!(facts.known().is_empty());
        });
    }
}
