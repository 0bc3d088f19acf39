//! Which children are there: their events, and what the parent is told of them.

use std::time::Duration;

use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Event, Parent};

use super::Replicate;
use super::mask::{MAX_CHILDREN, Mask};

/// How long the first child that is up waits for those still connecting before the parent hears "up".
const STARTUP_GRACE: Duration = Duration::from_millis(1500);

/// Names in doubt that are remembered.
const MAX_DOUBTFUL_NAMES: usize = 1024;

/// The children at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    /// Reachable.
    pub up: Mask,
    /// Counts changes: what was learnt of copies at another generation is to be learnt anew.
    pub generation: u64,
    /// Counts, per child, how often it was lost.
    pub losses: [u64; MAX_CHILDREN],
}

impl View {
    /// Those of `among` that were not lost since `then`.
    pub fn kept_since(&self, then: &View, among: Mask) -> Mask {
        among.iter().filter(|child| self.up.has(*child) && self.losses[*child] == then.losses[*child]).collect()
    }
}

#[derive(Debug, Default)]
pub(super) struct ChildStates {
    view: View,
    /// Told something final (up or down).
    heard: Mask,
    /// What the parent was told.
    told_up: Option<bool>,
    grace_running: bool,
}

impl Replicate {
    pub(crate) fn view(&self) -> View {
        self.states.lock().view
    }

    pub(super) fn on_child_event(&self, child: usize, event: Event) {
        match event {
            Event::Up | Event::Down => self.on_child_state(child, matches!(event, Event::Up)),
            Event::Connecting => {
                // Heard of, and not there: nobody need wait for it to know the state of the set.
                self.on_child_state(child, false);
                self.tell_parent(Event::Connecting);
            }
            Event::InodelkContention { gfid, ref domain } => {
                if domain.as_ref() == self.name.as_bytes() {
                    self.send_waiting_of(gfid);
                    self.on_contention(gfid);
                } else {
                    self.tell_parent(event);
                }
            }
            // Unlocks that wait go at once; locks of transactions under way end with these.
            Event::EntrylkContention { gfid, .. } => self.send_waiting_of(gfid),
            Event::Invalidate { gfid, .. } => {
                if let Some(inode) = self.inodes.get(&gfid) {
                    inode.distrust();
                }
                self.tell_parent(event);
            }
            Event::VolfileChanged => self.tell_parent(event),
        }
    }

    fn on_child_state(&self, child: usize, up: bool) {
        if child >= self.children.len() {
            return;
        }
        let (tell, start_grace) = {
            let mut states = self.states.lock();
            let was_up = states.view.up.has(child);
            states.heard.add(child);
            if up != was_up {
                states.view.generation += 1;
                if up {
                    states.view.up.add(child);
                } else {
                    states.view.up.take(child);
                    states.view.losses[child] += 1;
                }
            }
            let any_up = !states.view.up.is_empty();
            let all_heard = states.heard == self.settings().everyone();
            match (any_up, states.told_up) {
                (true, Some(true)) | (false, Some(false)) => (None, false),
                (true, _) if all_heard => {
                    states.told_up = Some(true);
                    (Some(Event::Up), false)
                }
                (true, _) => {
                    let start = !states.grace_running;
                    states.grace_running = true;
                    (None, start)
                }
                (false, Some(true)) => {
                    states.told_up = Some(false);
                    (Some(Event::Down), false)
                }
                (false, None) if all_heard => {
                    states.told_up = Some(false);
                    (Some(Event::Down), false)
                }
                (false, None) => (None, false),
            }
        };
        tracing::info!(subvolume = %self.name, child = self.children[child].name(), up, "child changed");
        if start_grace {
            self.start_grace();
        }
        if let Some(event) = tell {
            self.tell_parent(event);
        }
        self.end_sessions_soon();
        if !up {
            self.lose_locks(child);
        }
        if up {
            self.restore_locks_soon();
            self.find_out_whether_local(child);
            self.settle_doubtful_names();
        }
        for listener in self.listeners.lock().iter() {
            listener(child, up);
        }
    }

    /// Remembers names that an operation left in doubt without being able to mark their directory. The list is bounded:
    /// beyond it a name is met by the next lookup only.
    pub(super) fn doubt_names(&self, entries: &[Entry]) {
        let mut doubtful = self.doubtful_names.lock();
        for entry in entries {
            if doubtful.len() < MAX_DOUBTFUL_NAMES && !doubtful.contains(entry) {
                doubtful.push(entry.clone());
            }
        }
    }

    /// Once all children are up: brings names in doubt to agreement.
    fn settle_doubtful_names(&self) {
        if self.up() != self.everyone() || self.doubtful_names.lock().is_empty() {
            return;
        }
        let Some(this) = self.this.upgrade() else { return };
        self.runtime.spawn(Box::pin(async move {
            let entries = std::mem::take(&mut *this.doubtful_names.lock());
            for entry in entries {
                if !crate::heal::name::heal_name(&this, &entry).await {
                    this.doubt_names(std::slice::from_ref(&entry));
                }
            }
        }));
    }

    fn start_grace(&self) {
        let Some(this) = self.this.upgrade() else { return };
        self.runtime.spawn(Box::pin(async move {
            this.runtime.sleep(STARTUP_GRACE).await;
            let tell = {
                let mut states = this.states.lock();
                states.grace_running = false;
                let tell = !states.view.up.is_empty() && states.told_up != Some(true);
                if tell {
                    states.told_up = Some(true);
                }
                tell
            };
            if tell {
                this.tell_parent(Event::Up);
            }
        }));
    }

    pub(super) fn tell_parent(&self, event: Event) {
        let parent = self.parent.lock().clone();
        if let Some((parent, index)) = parent
            && let Some(parent) = parent.upgrade()
        {
            parent.child_event(index, event);
        }
    }

    /// Calls `listener` with (child, up) on every change of a child from now on (the heal service's wake-up).
    pub fn on_change(&self, listener: Box<dyn Fn(usize, bool) + Send + Sync>) {
        self.listeners.lock().push(listener);
    }
}

impl Parent for Replicate {
    fn child_event(&self, child_index: usize, event: Event) {
        self.on_child_event(child_index, event);
    }
}
