//! Lookup: all children are asked; names that only some have are judged by the directory's marks.

use ladrillo_translator::error::errno::{EIO, ENODATA, ENOENT, ENOTCONN};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Iatt, Reply, Value};

use super::changelog::Keys;
use super::children::View;
use super::mask::Mask;
use super::refresh::Copy;
use super::{ChildReply, Replicate, leaves_unknown};
use crate::heal;

/// The gfid for an entry that has none.
const GFID_REQ: &str = "gfid-req";

impl Replicate {
    pub(super) async fn lookup(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Lookup { gfid, entry, xdata } = fop else { return Err(super::strange_reply("a lookup")) };
        let mut healed = false;
        // A copy without a gfid gets none from a lookup: one being made would get another than its creator gives the others.
        // Where no copy has one, it was put there behind our back, and all get the same.
        let mut gives_gfid = false;
        loop {
            let view = self.view();
            let moment = self.inodes.moment();
            if !self.has_quorum(view.up) {
                return Err(self.no_quorum());
            }
            let mut request = xdata.clone();
            if !gives_gfid {
                request.remove(GFID_REQ);
            }
            self.request_marks(&mut request);
            request.set("glusterfs.parent-entrylk", Value::Uint(0));
            let fop = Fop::Lookup { gfid, entry: entry.clone(), xdata: request };
            let replies = self.send(view.up, context, |_| fop.clone()).await;
            self.note_backlog(&replies);
            if let Some(entry) = &entry
                && !healed
                && self.is_name_in_doubt(&replies)
                && !context.is_internal()
            {
                healed = true;
                heal::name::heal_name(self, entry).await;
                continue;
            }
            let found = self.present_copies(&replies);
            if found.is_empty() {
                let has_no_gfid = |reply: &FopResult| matches!(reply, Err(error) if error.errno == ENODATA);
                let nowhere = view.up == self.everyone() && replies.iter().all(|(_, reply)| has_no_gfid(reply));
                if nowhere && !gives_gfid && xdata.gfid(GFID_REQ).is_some() {
                    gives_gfid = true;
                    continue;
                }
                // A stale copy alone must not say ENOENT: whoever was lost on the way may have the name.
                let lost = |reply: &FopResult| matches!(reply, Err(error) if leaves_unknown(error));
                let answered = replies.iter().filter(|(_, reply)| !lost(reply)).map(|(child, _)| *child).collect();
                return Err(match self.has_quorum(answered) {
                    true => self.weigh_errors(&replies),
                    false => self.no_quorum(),
                });
            }
            let right = match &entry {
                Some(entry) => self.check_presence(entry, &replies, &found).await?,
                None => None,
            };
            return self.answer_lookup(&replies, found, right, &view, moment);
        }
    }

    /// The copies that the answers show, as (child, gfid).
    fn present_copies(&self, replies: &[ChildReply]) -> Vec<(usize, Gfid)> {
        replies
            .iter()
            .filter_map(|(child, reply)| match reply {
                Ok(Reply::Lookup { iatt, .. }) => Some((*child, iatt.gfid)),
                _ => None,
            })
            .collect()
    }

    /// Whether children disagree about a name: some have it and some do not, or not yet with a gfid, or they have different
    /// inodes.
    fn is_name_in_doubt(&self, replies: &[ChildReply]) -> bool {
        let found = self.present_copies(replies);
        let missing =
            replies.iter().any(|(_, reply)| matches!(reply, Err(error) if matches!(error.errno, ENOENT | ENODATA)));
        let differ = found.windows(2).any(|pair| pair[0].1 != pair[1].1);
        (!found.is_empty() && missing) || differ
    }

    /// Judges a name that not all children have, or that is different inodes on them, and answers the right inode where
    /// the copies of the directory that nobody accuses say one; where they do not agree, a quorum decides.
    ///
    /// # Errors
    /// ENOENT: it is not there. EIO: the good copies of the directory hold different inodes. ENOTCONN: no good copy.
    async fn check_presence(
        &self,
        entry: &Entry,
        replies: &[ChildReply],
        found: &[(usize, Gfid)],
    ) -> FopResult<Option<Gfid>> {
        let has: Mask = found.iter().map(|(child, _)| *child).collect();
        let missing: Mask = replies
            .iter()
            .filter(|(_, reply)| matches!(reply, Err(error) if error.errno == ENOENT))
            .map(|(child, _)| *child)
            .collect();
        let one_inode = found.windows(2).all(|pair| pair[0].1 == pair[1].1);
        if missing.is_empty() && one_inode && self.has_quorum(has) {
            return Ok(None);
        }
        let parent = self.inodes.intern(entry.parent);
        let good = self.readable(&parent, None).await.map(|readable| readable.data).unwrap_or_default();
        let among = |mask: Mask| -> Vec<Gfid> {
            found.iter().filter(|(child, _)| mask.has(*child)).map(|(_, gfid)| *gfid).collect()
        };
        let trusted = among(good);
        if trusted.windows(2).any(|pair| pair[0] != pair[1]) || (trusted.is_empty() && !one_inode) {
            return Err(FopError::new(
                EIO,
                format!(
                    "{}: {} in {} is different inodes on different bricks",
                    self.name,
                    name_of(entry),
                    entry.parent
                ),
            ));
        }
        if !(has & good).is_empty() || self.has_quorum(has) {
            return Ok(trusted.first().copied());
        }
        if !(missing & good).is_empty() || self.has_quorum(missing) {
            return Err(FopError::new(ENOENT, format!("{} is not on the good copies", name_of(entry))));
        }
        Err(FopError::new(ENOTCONN, format!("{}: no good copy of {} is up", self.name, entry.parent)))
    }

    /// `view` and `moment` are of when the children were asked.
    fn answer_lookup(
        &self,
        replies: &[ChildReply],
        found: Vec<(usize, Gfid)>,
        right: Option<Gfid>,
        view: &View,
        moment: u64,
    ) -> FopResult {
        // Where inodes differ and no good copy decides, the ones that a quorum has were let through: the most frequent.
        let frequent = || {
            let gfids = found.iter().map(|(_, gfid)| *gfid);
            gfids.max_by_key(|gfid| found.iter().filter(|(_, other)| other == gfid).count())
        };
        let gfid = right.or_else(frequent).unwrap_or_default();
        let parts = |reply: &ChildReply| -> Option<(usize, Iatt, Iatt, Dict)> {
            match reply {
                (child, Ok(Reply::Lookup { iatt, parent, xdata })) if iatt.gfid == gfid => {
                    Some((*child, (**iatt).clone(), (**parent).clone(), xdata.clone()))
                }
                _ => None,
            }
        };
        let answers: Vec<_> = replies.iter().filter_map(parts).collect();
        let copies: Vec<Copy> =
            answers.iter().map(|(child, iatt, _, xdata)| Copy::of(self, *child, iatt, xdata)).collect();
        let kinds_differ = copies.windows(2).any(|pair| pair[0].iatt.file_type() != pair[1].iatt.file_type());
        if kinds_differ {
            return Err(FopError::new(EIO, format!("{}: {gfid} is of different kinds on different bricks", self.name)));
        }
        let inode = self.inodes.intern(gfid);
        let readable = self.judge(&inode, &copies, view);
        let all: Mask = copies.iter().map(|copy| copy.child).collect();
        if self.has_quorum(all) {
            inode.learn(readable, moment);
            heal::on_lookup(self, &inode, &copies);
        }
        let good = if readable.both().is_empty() {
            // Split-brain: attributes are still shown, as GlusterFS does while a quorum answers; reads will fail.
            if !self.has_quorum(all) {
                return Err(FopError::new(ENOTCONN, format!("{}: no good copy of {gfid} is up", self.name)));
            }
            self.choice(gfid).filter(|child| all.has(*child)).map_or(all, Mask::only)
        } else {
            readable.both()
        };
        let Some(child) = self.pick_reader(gfid, good) else { return Err(self.no_quorum()) };
        let Some((_, iatt, parent, mut xdata)) = answers.into_iter().find(|answer| answer.0 == child) else {
            return Err(self.no_quorum());
        };
        hide_own_xattrs(&mut xdata);
        Ok(Reply::Lookup { iatt: Box::new(iatt), parent: Box::new(parent), xdata })
    }
}

/// Takes AFR's own marks out of what callers see.
pub(super) fn hide_own_xattrs(xattrs: &mut Dict) {
    let own: Vec<_> = xattrs.iter().map(|(key, _)| key.clone()).filter(|key| Keys::is_own(key)).collect();
    for key in own {
        xattrs.remove(key);
    }
}

pub(super) fn name_of(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.name).into_owned()
}
