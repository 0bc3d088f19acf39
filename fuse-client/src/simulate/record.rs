//! What applications did and were told, and whether what the bricks hold agrees with it.

use std::collections::BTreeMap;

use bytes::Bytes;
use ladrillo_translator::Gfid;
use ladrillo_translator::fop::Name;
use ladrillo_translator::memory::Snapshot;

/// A change of a file's bytes: a write of one value, or a truncation (which zeroes what is behind it).
#[derive(Clone, Debug)]
struct Change {
    start: usize,
    end: usize,
    value: u8,
    invoked: u64,
    /// When it was acknowledged; `None`: it failed or its client died, so it may have happened or not, or happen yet.
    acknowledged: Option<u64>,
}

/// Bytes that may have gone back to what a disk had: see [`Record::expose`].
#[derive(Clone, Debug)]
struct Exposed {
    start: usize,
    /// What the disk has from `start` on.
    found: Vec<u8>,
    when: u64,
}

/// What an application knows of a name that it alone changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// No such name.
    Absent,
    /// This inode.
    Is(Gfid),
}

/// Names a [`Record::write`] or [`Record::truncate`] that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    gfid: Gfid,
    at: usize,
}

/// Everything of one run.
#[derive(Debug, Default)]
pub struct Record {
    changes: BTreeMap<Gfid, Vec<Change>>,
    exposed: BTreeMap<Gfid, Vec<Exposed>>,
    /// Names of directories that one application owns; what is unknown (an operation that failed midway) is not there.
    names: BTreeMap<(Gfid, Name), Known>,
    /// Attributes, by inode and attribute ("mode" or an xattr's name), of files that one application owns.
    attributes: BTreeMap<(Gfid, Bytes), Bytes>,
    /// Promises broken so far.
    pub violations: Vec<String>,
    /// Operations asked for.
    pub asked: u64,
    /// Operations that succeeded.
    pub succeeded: u64,
}

impl Record {
    /// A promise is broken.
    pub fn violation(&mut self, what: String) {
        if self.violations.len() < 50 {
            self.violations.push(what);
        }
    }

    /// A write begins.
    pub fn write(&mut self, gfid: Gfid, start: u64, len: usize, value: u8, now: u64) -> Ticket {
        let start = start as usize;
        self.change(gfid, Change { start, end: start + len, value, invoked: now, acknowledged: None })
    }

    /// A truncation begins.
    pub fn truncate(&mut self, gfid: Gfid, size_bytes: u64, now: u64) -> Ticket {
        let change = Change { start: size_bytes as usize, end: usize::MAX, value: 0, invoked: now, acknowledged: None };
        self.change(gfid, change)
    }

    fn change(&mut self, gfid: Gfid, change: Change) -> Ticket {
        let changes = self.changes.entry(gfid).or_default();
        changes.push(change);
        Ticket { gfid, at: changes.len() - 1 }
    }

    /// It was acknowledged.
    pub fn acknowledge(&mut self, ticket: Ticket, now: u64) {
        if let Some(change) = self.changes.get_mut(&ticket.gfid).and_then(|changes| changes.get_mut(ticket.at)) {
            change.acknowledged = Some(now);
        }
    }

    /// One of two good copies lost with its power what was not fsynced: `found` is what it has from `start` on now. Which
    /// of the two is right no mark can tell (docs/simulator.md), so either may be found, unless something that was
    /// acknowledged later is there.
    pub fn expose(&mut self, gfid: Gfid, start: usize, found: Vec<u8>, now: u64) {
        self.exposed.entry(gfid).or_default().push(Exposed { start, found, when: now });
    }

    /// What is known of an owned name.
    pub fn known(&self, directory: Gfid, name: &Name) -> Option<Known> {
        self.names.get(&(directory, name.clone())).copied()
    }

    /// Learns, or with `None` forgets, what an owned name is.
    pub fn know(&mut self, directory: Gfid, name: &Name, known: Option<Known>) {
        let key = (directory, name.clone());
        match known {
            Some(known) => self.names.insert(key, known),
            None => self.names.remove(&key),
        };
    }

    /// Learns, or with `None` forgets, an attribute.
    pub fn know_attribute(&mut self, gfid: Gfid, attribute: &Bytes, value: Option<Bytes>) {
        let key = (gfid, attribute.clone());
        match value {
            Some(value) => self.attributes.insert(key, value),
            None => self.attributes.remove(&key),
        };
    }

    /// Checks what a read gave: each byte must have been written there by somebody.
    pub fn check_read(&mut self, gfid: Gfid, offset: u64, data: &[u8]) {
        let changes = self.changes.get(&gfid).map(Vec::as_slice).unwrap_or_default();
        let wrong = data.iter().enumerate().find(|(at, byte)| {
            let at = offset as usize + at;
            **byte != 0 && !changes.iter().any(|c| c.start <= at && at < c.end && c.value == **byte)
        });
        if let Some((at, byte)) = wrong {
            let at = offset as usize + at;
            self.violation(format!("{gfid}: a read found {byte:#04x} at byte {at}, which nobody wrote there"));
        }
    }

    /// Checks, at the end, that what a brick holds has every acknowledged change. (After convergence any brick will do.)
    pub fn check_final(&mut self, tree: &Snapshot) {
        let mut broken = Vec::new();
        let mut by_gfid = BTreeMap::new();
        for (path, node) in &tree.nodes {
            by_gfid.entry(node.gfid).or_insert((path, node));
        }
        for (gfid, changes) in &self.changes {
            if let Some((path, node)) = by_gfid.get(gfid)
                && let Some(what) = lost_change(changes, self.exposed.get(gfid).map_or(&[], Vec::as_slice), &node.data)
            {
                broken.push(format!("{} ({gfid}): {what}", String::from_utf8_lossy(path)));
            }
        }
        let names: BTreeMap<(Gfid, &[u8]), Gfid> = tree
            .nodes
            .iter()
            .filter_map(|(path, node)| {
                let slash = path.iter().rposition(|byte| *byte == b'/')?;
                let parent = if slash == 0 { b"/".as_slice() } else { &path[..slash] };
                Some(((tree.nodes.get(parent)?.gfid, &path[slash + 1..]), node.gfid))
            })
            .collect();
        for ((directory, name), known) in &self.names {
            let shown = format!("{directory}/{}", String::from_utf8_lossy(name));
            if !by_gfid.contains_key(directory) {
                continue;
            }
            match (known, names.get(&(*directory, name.as_ref()))) {
                (Known::Is(gfid), Some(found)) if gfid == found => {}
                (Known::Is(gfid), Some(found)) => broken.push(format!("{shown} is {found} instead of {gfid}")),
                (Known::Is(gfid), None) => broken.push(format!("{shown} ({gfid}) was acknowledged and is lost")),
                (Known::Absent, Some(found)) => broken.push(format!("{shown} was removed and is back as {found}")),
                (Known::Absent, None) => {}
            }
        }
        for ((gfid, attribute), value) in &self.attributes {
            let Some((path, node)) = by_gfid.get(gfid) else { continue };
            let found = match attribute.as_ref() {
                b"mode" => Some(Bytes::from(format!("{:o}", node.mode & 0o7777))),
                xattr => node.xattrs.get(xattr).cloned(),
            };
            if found.as_ref() != Some(value) {
                broken.push(format!(
                    "{}: {} is {found:?} instead of the acknowledged {value:?}",
                    String::from_utf8_lossy(path),
                    String::from_utf8_lossy(attribute)
                ));
            }
        }
        broken.into_iter().for_each(|what| self.violation(what));
    }
}

/// Which byte is not what any order of the acknowledged and possible changes can have left.
fn lost_change(changes: &[Change], exposed: &[Exposed], data: &[u8]) -> Option<String> {
    let reach = changes.iter().filter(|c| c.end != usize::MAX).map(|c| c.end).max().unwrap_or(0);
    for at in 0..reach.max(data.len()) {
        let found = data.get(at).copied().unwrap_or(0);
        let over = || changes.iter().filter(|c| c.start <= at && at < c.end);
        // Whatever was acknowledged before the last acknowledged change began is overwritten.
        let newest = over().filter(|c| c.acknowledged.is_some()).map(|c| c.invoked).max();
        let allowed = match newest {
            None => found == 0 || over().any(|c| c.value == found),
            Some(newest) => over().any(|c| c.value == found && c.acknowledged.is_none_or(|end| end >= newest)),
        };
        let went_back = || {
            let last = over().filter_map(|c| c.acknowledged).max().unwrap_or(0);
            let there = |e: &Exposed| at.checked_sub(e.start).and_then(|at| e.found.get(at)) == Some(&found);
            exposed.iter().any(|e| last <= e.when && there(e))
        };
        if !allowed && !went_back() {
            let expected: Vec<u8> = over()
                .filter(|c| c.acknowledged.is_none_or(|end| newest.is_none_or(|newest| end >= newest)))
                .map(|c| c.value)
                .collect();
            return Some(format!("byte {at} is {found:#04x}, acknowledged was one of {expected:02x?}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(start: usize, end: usize, value: u8, invoked: u64, acknowledged: Option<u64>) -> Change {
        Change { start, end, value, invoked, acknowledged }
    }

    #[test]
    fn an_acknowledged_write_must_be_there() {
        let changes = [change(0, 2, 1, 1, Some(2)), change(1, 3, 2, 3, Some(4))];
        assert_eq!(lost_change(&changes, &[], &[1, 2, 2]), None);
        assert!(lost_change(&changes, &[], &[1, 1, 2]).is_some(), "overwritten, yet back");
        assert!(lost_change(&changes, &[], &[1, 2]).is_some(), "cut off");
        assert!(lost_change(&changes, &[], &[1, 2, 2, 9]).is_some(), "nobody wrote that");
    }

    #[test]
    fn what_overlapped_in_time_or_failed_may_be_either() {
        let changes = [change(0, 1, 1, 1, Some(4)), change(0, 1, 2, 2, Some(3))];
        assert_eq!(lost_change(&changes, &[], &[1]), None);
        assert_eq!(lost_change(&changes, &[], &[2]), None);
        assert!(lost_change(&changes, &[], &[0]).is_some());
        let changes = [change(0, 1, 1, 1, None), change(0, 1, 2, 5, Some(6))];
        assert_eq!(lost_change(&changes, &[], &[1]), None, "a failed write may happen late");
        let truncated = [change(0, 4, 1, 1, Some(2)), change(2, usize::MAX, 0, 3, Some(4))];
        assert_eq!(lost_change(&truncated, &[], &[1, 1]), None);
        assert!(lost_change(&truncated, &[], &[1, 1, 1, 1]).is_some());
    }

    #[test]
    fn what_one_of_two_good_copies_lost_may_be_found_until_it_is_overwritten() {
        let lost = [Exposed { start: 1, found: vec![1], when: 5 }];
        let changes = [change(0, 2, 1, 1, Some(2)), change(0, 2, 2, 3, Some(4))];
        assert_eq!(lost_change(&changes, &lost, &[2, 1]), None);
        assert_eq!(lost_change(&changes, &lost, &[2, 2]), None);
        assert!(lost_change(&changes, &lost, &[1, 2]).is_some(), "that byte was not lost");
        assert!(lost_change(&changes, &lost, &[2, 0]).is_some(), "the disk had something else");
        let later = [changes[0].clone(), changes[1].clone(), change(0, 2, 3, 4, Some(6))];
        assert!(lost_change(&later, &lost, &[3, 1]).is_some(), "acknowledged without the copy that lost it");
    }
}
