//! How many may go on at once; the others wait in order.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::channel::oneshot;
use parking_lot::Mutex;

/// Lets a fixed number through at once.
pub(super) struct Gate {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// Each is one future of a caller, who holds its memory.
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// One of those that were let through; dropping it lets the next one in.
pub(super) struct Permit {
    gate: Arc<Gate>,
}

impl Gate {
    pub(super) fn new(limit: usize) -> Arc<Gate> {
        Arc::new(Gate { state: Mutex::new(State { free: limit, waiting: VecDeque::new() }) })
    }

    /// At once, or not at all.
    pub(super) fn try_enter(self: &Arc<Gate>) -> Option<Permit> {
        let mut state = self.state.lock();
        state.free = state.free.checked_sub(1)?;
        Some(Permit { gate: self.clone() })
    }

    /// Waits its turn.
    pub(super) async fn enter(self: &Arc<Gate>) -> Permit {
        loop {
            let turn = {
                let mut state = self.state.lock();
                if let Some(free) = state.free.checked_sub(1) {
                    state.free = free;
                    return Permit { gate: self.clone() };
                }
                let (sender, turn) = oneshot::channel();
                state.waiting.push_back(sender);
                turn
            };
            if let Ok(permit) = turn.await {
                return permit;
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let next = {
            let mut state = self.gate.state.lock();
            // Those whose future was dropped are passed over.
            loop {
                match state.waiting.pop_front() {
                    Some(next) if next.is_canceled() => {}
                    Some(next) => break Some(next),
                    None => {
                        state.free += 1;
                        break None;
                    }
                }
            }
        };
        if let Some(next) = next {
            // A receiver that is gone by now drops the permit with the message: the one after it is let in.
            let _ = next.send(Permit { gate: self.gate.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_fixed_number_is_let_through_and_dropped_waits_are_passed_over() {
        let gate = Gate::new(2);
        let (first, second) = (gate.enter().now_or_never().unwrap(), gate.try_enter().unwrap());
        assert!(gate.try_enter().is_none());
        let mut third = Box::pin(gate.enter());
        let mut fourth = Box::pin(gate.enter());
        assert!(third.as_mut().now_or_never().is_none() && fourth.as_mut().now_or_never().is_none());
        drop(third);
        drop(first);
        let fourth = fourth.now_or_never().unwrap();
        assert!(gate.try_enter().is_none());
        drop((second, fourth));
        assert!(gate.try_enter().is_some() && gate.try_enter().is_some());
    }
}
