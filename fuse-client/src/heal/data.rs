//! Heals contents: copies what differs from a good copy to the others, a piece at a time under lock, makes it durable,
//! and takes the accusations back.

use ladrillo_translator::error::errno::{EIO, ENOTCONN};
use ladrillo_translator::fop::File;
use ladrillo_translator::{Context, Dict, Fop, FopError, Gfid, Payload, Reply, Translator};

use super::direction::direction;
use super::healer::{HealResult, Healed, Healer, Look, Trouble};
use crate::translators::replicate::{ChildReply, HealAlgorithm, Lockee, Mask, Sabotage, Segment, successes};

struct Plan {
    look: Look,
    source: usize,
    sinks: Mask,
    /// Copies that nobody accuses and on all of which something was under way: each may lack what its brick lost with its
    /// power, so that most of them decide. Empty where the source alone does.
    voters: Mask,
}

impl Healer {
    pub(crate) async fn heal_data(&self, gfid: Gfid) -> HealResult {
        let context = self.context();
        let whole = Lockee::Range { gfid, start: 0, len: 0 };
        self.lock_out_healers(&context, &whole).await?;
        let outcome = self.heal_data_alone(&context, gfid, &whole).await;
        self.unlock(&context, &self.heal_domain(), &whole).await;
        outcome
    }

    async fn heal_data_alone(&self, context: &Context, gfid: Gfid, whole: &Lockee) -> HealResult {
        let domain = self.replicate.name().to_owned();
        self.lock(context, &domain, whole).await?;
        let plan = self.plan_data(context, gfid).await;
        self.unlock(context, &domain, whole).await;
        let Some(plan) = plan? else { return Ok(Healed::Nothing) };
        tracing::info!(%gfid, source = plan.source, sinks = ?plan.sinks, "healing data");
        let healed = self.copy_data(context, gfid, &plan).await?;
        // Where they voted the source may have been written to as well.
        let source = if plan.voters.is_empty() { Mask::NONE } else { Mask::only(plan.source) };
        let synced = self.sync_sinks(context, gfid, healed | source).await;
        if !(source - synced).is_empty() {
            return Err(not_all_healed());
        }
        self.restore_times(context, &plan.look, plan.source, synced).await;
        let healed = healed & synced;
        self.lock(context, &domain, whole).await?;
        let outcome = async {
            self.still_good(context, gfid, &plan).await?;
            self.undo_marks(context, gfid, &plan.look, Segment::Data, plan.sinks, healed).await
        }
        .await;
        self.unlock(context, &domain, whole).await;
        outcome?;
        if healed == plan.sinks { Ok(Healed::Done) } else { Err(not_all_healed()) }
    }

    /// Under the lock of the whole file: who is the source, who are the sinks; sinks get the source's size.
    async fn plan_data(&self, context: &Context, gfid: Gfid) -> HealResult<Option<Plan>> {
        let look = self.look(context, gfid).await?;
        let everyone = self.replicate.everyone();
        let judged = direction(&look.marks, Segment::Data, everyone, self.replicate.settings().quorum.needed());
        let arbiters = self.replicate.arbiters();
        let mut sources = judged.sources - arbiters;
        if sources.is_empty() && !judged.sources.is_empty() {
            // Nobody has what the arbiter saw. Where there is nothing to be had, there is nothing lost.
            if look.copies.iter().all(|copy| copy.iatt.size_bytes == 0) {
                sources = self.replicate.everyone() - arbiters;
            }
        }
        if sources.is_empty()
            && let Some(child) = self.chosen(&look.copies, Segment::Data)?
        {
            tracing::warn!(%gfid, child, choice = ?self.choice, "split-brain of data decided");
            sources = Mask::only(child);
        }
        if sources.is_empty() {
            return Err(Trouble::SplitBrain(format!("{gfid}: all copies of its data are accused")));
        }
        let of_sources = || look.copies.iter().filter(|copy| sources.has(copy.child));
        let sizes: Vec<u64> = of_sources().map(|copy| copy.iatt.size_bytes).collect();
        let sizes_differ = sizes.windows(2).any(|pair| pair[0] != pair[1]);
        let witnessed = sources.iter().any(|child| judged.witness.get(child).is_some_and(|count| *count != 0));
        let mut voters = Mask::NONE;
        if sizes_differ || witnessed {
            if sources.count() > 2 && !self.replicate.is_sabotaged(Sabotage::HealFromWrongSource) {
                voters = sources;
            }
            // Something was under way on the good copies: the biggest, then the one that saw most, then the newest.
            let best = of_sources().max_by_key(|copy| {
                let witness = judged.witness.get(copy.child).copied().unwrap_or(0);
                (copy.iatt.size_bytes, witness, copy.iatt.ctime)
            });
            sources = best.map(|copy| Mask::only(copy.child)).unwrap_or_default();
        }
        let Some(source) = self.replicate.pick_reader(gfid, sources) else { return Ok(None) };
        // An arbiter that nobody accuses has missed nothing.
        let (source, sinks) = self.twist(source, everyone - sources - (judged.sources & arbiters));
        if sinks.is_empty() {
            return Ok(None);
        }
        let size_bytes = look.copy(source).map(|copy| copy.iatt.size_bytes).unwrap_or(0);
        let file = File { gfid, fd: None };
        let cut = Fop::Ftruncate { file, size_bytes, xdata: Dict::new() };
        let replies = self.replicate.send(sinks, context, |_| cut.clone()).await;
        if successes(&replies) != sinks {
            return Err(not_all_healed());
        }
        Ok(Some(Plan { look, source, sinks, voters }))
    }

    /// Copies what differs. Answers the sinks that took all of it.
    async fn copy_data(&self, context: &Context, gfid: Gfid, plan: &Plan) -> HealResult<Mask> {
        let domain = self.replicate.name().to_owned();
        let size = plan.look.copy(plan.source).map(|copy| copy.iatt.size_bytes).unwrap_or(0);
        let window = self.replicate.settings().heal_window_bytes.max(4096);
        // An arbiter has no contents to be brought to: its marks are taken back with the others'.
        let spared = plan.sinks & self.replicate.arbiters();
        let mut healed = plan.sinks - spared;
        if healed.is_empty() && plan.voters.is_empty() {
            return Ok(spared);
        }
        let mut offset = 0;
        while offset < size && !healed.is_empty() {
            let piece = Lockee::Range { gfid, start: offset, len: window };
            self.lock(context, &domain, &piece).await?;
            let outcome = async {
                self.still_good(context, gfid, plan).await?;
                self.copy_piece(context, gfid, plan, offset, window, &mut healed).await
            }
            .await;
            self.unlock(context, &domain, &piece).await;
            outcome?;
            offset += window;
        }
        if healed.is_empty() { Err(not_all_healed()) } else { Ok(healed | spared) }
    }

    async fn copy_piece(
        &self,
        context: &Context,
        gfid: Gfid,
        plan: &Plan,
        offset: u64,
        window: u64,
        healed: &mut Mask,
    ) -> HealResult<()> {
        let file = File { gfid, fd: None };
        let len = u32::try_from(window).unwrap_or(u32::MAX);
        let mut differ = *healed;
        let had_data = |child: usize| plan.look.copy(child).map(|copy| copy.iatt.size_bytes).unwrap_or(0);
        if !plan.voters.is_empty() {
            return self.vote_on_piece(context, file, offset, len, plan, healed).await;
        }
        let compare: Mask = match self.replicate.settings().heal_algorithm {
            HealAlgorithm::Full => Mask::NONE,
            HealAlgorithm::Diff => differ,
            HealAlgorithm::Dynamic => differ.iter().filter(|child| had_data(*child) > offset).collect(),
        };
        if !compare.is_empty() {
            let fop = Fop::Rchecksum { file, offset, len, xdata: Dict::new() };
            let replies = self.replicate.send(compare | Mask::only(plan.source), context, |_| fop.clone()).await;
            let sum = |wanted: usize| {
                replies.iter().find_map(|(child, reply)| match reply {
                    Ok(Reply::Rchecksum { strong, .. }) if *child == wanted && !strong.is_empty() => Some(strong),
                    _ => None,
                })
            };
            let right = sum(plan.source);
            let same: Mask = compare.iter().filter(|child| right.is_some() && sum(*child) == right).collect();
            differ -= same;
        }
        if differ.is_empty() {
            return Ok(());
        }
        let read = Fop::Read { file, offset, size_bytes: len, flags: 0, xdata: Dict::new() };
        let replies = self.replicate.send(Mask::only(plan.source), context, |_| read.clone()).await;
        let data = match replies.into_iter().next() {
            Some((_, Ok(Reply::Read { data, .. }))) => data,
            Some((_, Err(error))) => return Err(error.into()),
            _ => return Err(FopError::new(EIO, "a brick's answer to a read is of another kind").into()),
        };
        if data.is_empty() {
            return Ok(());
        }
        // Past its old end a sink reads zeros already: holes stay holes.
        if data.as_slice().iter().all(|byte| *byte == 0) {
            differ = differ.iter().filter(|child| had_data(*child) > offset).collect();
        }
        *healed -= differ - self.write_piece(context, file, offset, &data, differ).await;
        Ok(())
    }

    /// Brings a piece to what most of the voters have, byte by byte; where no value has a majority, to the source's.
    async fn vote_on_piece(
        &self,
        context: &Context,
        file: File,
        offset: u64,
        len: u32,
        plan: &Plan,
        healed: &mut Mask,
    ) -> HealResult<()> {
        let others = *healed - plan.voters;
        let sum = Fop::Rchecksum { file, offset, len, xdata: Dict::new() };
        let sums = self.replicate.send(plan.voters | others, context, |_| sum.clone()).await;
        let strong = |reply: &ChildReply| match reply {
            (_, Ok(Reply::Rchecksum { strong, .. })) if !strong.is_empty() => Some(strong.clone()),
            _ => None,
        };
        let first = sums.first().and_then(strong);
        if first.is_some() && sums.iter().all(|reply| strong(reply) == first) {
            return Ok(());
        }
        let read = Fop::Read { file, offset, size_bytes: len, flags: 0, xdata: Dict::new() };
        let mut pieces: Vec<(usize, Payload)> = Vec::new();
        for (child, reply) in self.replicate.send(plan.voters, context, |_| read.clone()).await {
            match reply? {
                Reply::Read { data, .. } => pieces.push((child, data)),
                _ => return Err(FopError::new(EIO, "a brick's answer to a read is of another kind").into()),
            }
        }
        // The source's first: it decides where there is no majority.
        pieces.sort_by_key(|(child, _)| *child != plan.source);
        let voted = majority(&pieces.iter().map(|(_, data)| data.as_slice()).collect::<Vec<_>>());
        let differ: Mask =
            pieces.iter().filter(|(_, data)| data.as_slice() != voted.as_slice()).map(|(child, _)| *child).collect();
        let targets = (differ & (*healed | Mask::only(plan.source))) | others;
        if voted.is_empty() || targets.is_empty() {
            return Ok(());
        }
        let missed =
            targets - self.write_piece(context, file, offset, &Payload::from_bytes(voted.into()), targets).await;
        if missed.has(plan.source) {
            return Err(not_all_healed());
        }
        *healed -= missed;
        Ok(())
    }

    async fn write_piece(&self, context: &Context, file: File, offset: u64, data: &Payload, sinks: Mask) -> Mask {
        let write = Fop::Write { file, offset, data: data.clone(), flags: 0, xdata: Dict::new() };
        let replies = self.replicate.send(sinks, context, |_| write.clone()).await;
        replies
            .iter()
            .filter(|(_, reply)| matches!(reply, Ok(Reply::PrePost { written, .. }) if *written as usize == data.len()))
            .map(|(child, _)| *child)
            .collect()
    }

    /// Under lock: the source has not been accused since the heal began; what it has may be copied.
    async fn still_good(&self, context: &Context, gfid: Gfid, plan: &Plan) -> HealResult<()> {
        let now = self.look(context, gfid).await?;
        let count = |look: &Look, by: usize| {
            look.marks
                .get(by)
                .and_then(|marks| marks.pending.get(plan.source))
                .map(|log| log.get(Segment::Data))
                .unwrap_or(0)
        };
        let accused = (0..now.marks.len()).any(|by| count(&now, by) != count(&plan.look, by));
        if accused {
            return Err(Trouble::NotNow(FopError::new(EIO, format!("{gfid}: its source missed something meanwhile"))));
        }
        Ok(())
    }

    async fn sync_sinks(&self, context: &Context, gfid: Gfid, sinks: Mask) -> Mask {
        if !self.replicate.settings().ensure_durability {
            return sinks;
        }
        let fop = Fop::Fsync { file: File { gfid, fd: None }, datasync: false, xdata: Dict::new() };
        successes(&self.replicate.send(sinks, context, |_| fop.clone()).await)
    }
}

/// Byte by byte what most of `copies` have, else what the first has; where a copy ends it has zeros.
fn majority(copies: &[&[u8]]) -> Vec<u8> {
    let len = copies.iter().map(|copy| copy.len()).max().unwrap_or(0);
    let at = |copy: &[u8], index: usize| copy.get(index).copied().unwrap_or(0);
    let vote = |index: usize| {
        let agree = |byte: u8| copies.iter().filter(|copy| at(copy, index) == byte).count();
        let mut values = copies.iter().map(|copy| at(copy, index));
        let winner = values.find(|byte| agree(*byte) * 2 > copies.len());
        winner.or_else(|| copies.first().map(|copy| at(copy, index))).unwrap_or(0)
    };
    (0..len).map(vote).collect()
}

fn not_all_healed() -> Trouble {
    Trouble::NotNow(FopError::new(ENOTCONN, "not all copies could be healed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_decide_each_byte() {
        assert_eq!(majority(&[b"old old", b"new!old", b"new!"]), b"new!old");
        assert_eq!(majority(&[b"a", b"b", b"c"]), b"a");
        assert_eq!(majority(&[b"ab", b"a", b"a"]), b"a\0");
        assert!(majority(&[]).is_empty());
    }
}
