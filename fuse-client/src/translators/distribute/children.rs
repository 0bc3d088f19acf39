//! Which subvolumes are there: their events, and what the parent is told of them.

use ladrillo_translator::{Event, Parent};

use super::Distribute;

#[derive(Debug, Default)]
pub(super) struct ChildStates {
    up: Vec<bool>,
    heard: Vec<bool>,
    /// Counts those that came up: a layout learnt before may lack their part.
    generation: u64,
    told: Option<bool>,
}

impl ChildStates {
    pub fn new(count: usize) -> ChildStates {
        ChildStates { up: vec![false; count], heard: vec![false; count], ..ChildStates::default() }
    }
}

impl Distribute {
    pub(super) fn is_up(&self, child: usize) -> bool {
        self.states.lock().up.get(child).copied().unwrap_or(false)
    }

    /// The first that is up.
    pub(super) fn first_up(&self) -> Option<usize> {
        self.states.lock().up.iter().position(|up| *up)
    }

    pub(super) fn all_up(&self) -> bool {
        self.states.lock().up.iter().all(|up| *up)
    }

    pub(super) fn generation(&self) -> u64 {
        self.states.lock().generation
    }

    fn on_child_state(&self, child: usize, is_up: bool) {
        let tell = {
            let mut states = self.states.lock();
            let (Some(up), true) = (states.up.get_mut(child), child < self.children.len()) else { return };
            let changed = *up != is_up;
            *up = is_up;
            states.heard[child] = true;
            if changed && is_up {
                states.generation += 1;
            }
            let any_up = states.up.iter().any(|up| *up);
            let all_heard = states.heard.iter().all(|heard| *heard);
            // The volume is up when all were heard of and one is there; it is down when none is.
            match states.told {
                Some(told) if told != any_up => {
                    states.told = Some(any_up);
                    Some(any_up)
                }
                None if all_heard => {
                    states.told = Some(any_up);
                    Some(any_up)
                }
                _ => None,
            }
        };
        tracing::info!(subvolume = %self.name, child = self.children[child].name(), up = is_up, "child changed");
        if !is_up {
            self.lock_places.lose(child);
        }
        if is_up {
            self.refresh_disk_soon(child);
        }
        if let Some(up) = tell {
            self.tell_parent(if up { Event::Up } else { Event::Down });
        }
    }

    fn tell_parent(&self, event: Event) {
        let parent = self.parent.lock().clone();
        if let Some((parent, index)) = parent
            && let Some(parent) = parent.upgrade()
        {
            parent.child_event(index, event);
        }
    }
}

impl Parent for Distribute {
    fn child_event(&self, child_index: usize, event: Event) {
        match event {
            Event::Up | Event::Down => self.on_child_state(child_index, matches!(event, Event::Up)),
            Event::Connecting => {
                self.on_child_state(child_index, false);
                self.tell_parent(event);
            }
            Event::Invalidate { gfid, .. } => {
                // Whoever changed it may have changed its layout, or moved it.
                self.table.forget(&gfid);
                self.tell_parent(event);
            }
            // Contention on locks of ours: they are short.
            Event::InodelkContention { .. } | Event::EntrylkContention { .. } => {}
            Event::VolfileChanged => self.tell_parent(event),
        }
    }
}
