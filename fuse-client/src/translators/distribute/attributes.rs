//! Attributes: of files where they are; of directories on all subvolumes, where the marked one counts.

use ladrillo_translator::error::errno::ENOTCONN;
use ladrillo_translator::fop::{PrePost, Statfs};
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Iatt, Reply};

use super::Distribute;
use super::directory::merged;
use super::fd::gfid_of;
use super::linkto::is_missing;

/// xdata of STATFS's answer: a quota's limit, not the disk's size.
const QUOTA_STATFS: &str = "quota-deem-statfs";

impl Distribute {
    /// STAT and FSTAT.
    pub(super) async fn stat(&self, context: &Context, fop: Fop) -> FopResult {
        let gfid = gfid_of(&fop).ok_or_else(|| super::strange_fop("a stat"))?;
        if self.place_for(&fop, gfid).await?.is_some() {
            return self.on_file(context, fop).await;
        }
        let known = self.directory(gfid).await?;
        let replies = self.ask_all(context, self.adapted(&fop)).await;
        let (mut copies, mut answered, mut errors) = (Vec::new(), None, Vec::new());
        for (child, reply) in replies {
            match reply {
                Ok(Reply::Iatt { iatt, xdata }) => {
                    copies.push((child, *iatt));
                    if answered.is_none() || Some(child) == known.mds {
                        answered = Some(xdata);
                    }
                }
                Ok(_) => return Err(super::strange_reply("a stat")),
                Err(error) if error.errno == ENOTCONN || is_missing(&error) => errors.push(error),
                Err(error) => return Err(error),
            }
        }
        match merged(known.mds, &copies) {
            Some(iatt) => Ok(Reply::Iatt { iatt: Box::new(iatt), xdata: answered.unwrap_or_default() }),
            None => {
                self.table.forget(&gfid);
                Err(self.weigh(errors))
            }
        }
    }

    /// SETATTR and FSETATTR. Of a directory the marked subvolume decides; what others miss, a lookup mends.
    pub(super) async fn setattr(&self, context: &Context, fop: Fop) -> FopResult {
        let gfid = gfid_of(&fop).ok_or_else(|| super::strange_fop("a setattr"))?;
        if self.place_for(&fop, gfid).await?.is_some() {
            return self.on_file(context, fop).await;
        }
        let (context, at) = (context.clone(), gfid);
        self.detached(move |this| Box::pin(async move { this.setattr_directory(&context, fop, at).await })).await
    }

    async fn setattr_directory(&self, context: &Context, fop: Fop, gfid: Gfid) -> FopResult {
        let first = self.authority_of(gfid).await?;
        let send = self.adapted(&fop);
        let mut reply = self.ask(first, context, send(first)).await?;
        let others = (0..self.count()).filter(|child| *child != first);
        let replies = self.ask_each(others, context, send).await;
        let Reply::PrePost { attrs, .. } = &mut reply else { return Err(super::strange_reply("a setattr")) };
        let mut pre = vec![(first, attrs.pre.clone())];
        let mut post = vec![(first, attrs.post.clone())];
        for (child, reply) in replies {
            match reply {
                Ok(Reply::PrePost { attrs, .. }) => {
                    pre.push((child, attrs.pre));
                    post.push((child, attrs.post));
                }
                Ok(_) => return Err(super::strange_reply("a setattr")),
                Err(error) => tracing::debug!(child = self.child_name(child), %error, %gfid, "setattr"),
            }
        }
        let whole = |copies: &[(usize, Iatt)]| merged(Some(first), copies).unwrap_or_default();
        **attrs = PrePost { pre: whole(&pre), post: whole(&post) };
        Ok(reply)
    }

    /// The subvolume whose copy of a directory's attributes counts.
    ///
    /// # Errors
    /// ENOTCONN: it is down.
    pub(super) async fn authority_of(&self, gfid: Gfid) -> FopResult<usize> {
        let known = self.directory(gfid).await?;
        if gfid.is_root() {
            // The one changed last counts: all are changed.
            return self.first_up().ok_or_else(|| self.nobody_up());
        }
        match known.mds {
            Some(first) if self.is_up(first) => Ok(first),
            Some(first) => Err(FopError::new(
                ENOTCONN,
                format!("{}, which decides about {gfid}, is not connected", self.child_name(first)),
            )),
            None => Err(FopError::new(
                ENOTCONN,
                format!("{}: who decides about {gfid} is on a subvolume that is not connected", self.name),
            )),
        }
    }

    /// The sum of all that are up.
    pub(super) async fn statfs(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Statfs { gfid, xdata } = fop else { return Err(super::strange_fop("a statfs")) };
        // Only directories are everywhere.
        let gfid = if self.place(gfid).await?.is_some() { Gfid::ROOT } else { gfid };
        let replies = self.ask_all(context, |_| Fop::Statfs { gfid, xdata: xdata.clone() }).await;
        let (mut all, mut answered, mut errors): (Vec<_>, Dict, Vec<FopError>) = Default::default();
        for (_, reply) in replies {
            match reply {
                Ok(Reply::Statfs { statfs, xdata }) => {
                    all.push((statfs, xdata.int(QUOTA_STATFS).is_some_and(|value| value != 0)));
                    answered = xdata;
                }
                Ok(_) => return Err(super::strange_reply("a statfs")),
                Err(error) => errors.push(error),
            }
        }
        match total(all) {
            Some(statfs) => Ok(Reply::Statfs { statfs, xdata: answered }),
            None => Err(self.weigh(errors)),
        }
    }
}

/// The sum; but where quota answers, its limit is the whole volume's already: the one with the most used. The flag says so.
fn total(all: Vec<(Statfs, bool)>) -> Option<Statfs> {
    let used = |statfs: &Statfs| statfs.blocks.saturating_sub(statfs.blocks_free);
    let limit = all.iter().filter(|(_, is_limit)| *is_limit).map(|(statfs, _)| *statfs).max_by_key(used);
    limit.or_else(|| all.into_iter().map(|(statfs, _)| statfs).reduce(add))
}

/// The sum, in the larger unit of both.
fn add(a: Statfs, b: Statfs) -> Statfs {
    let block = a.block_size_bytes.max(b.block_size_bytes);
    let fragment = a.fragment_size_bytes.max(b.fragment_size_bytes);
    let in_unit = |statfs: &Statfs, blocks: u64| {
        let own = if statfs.fragment_size_bytes == 0 { statfs.block_size_bytes } else { statfs.fragment_size_bytes };
        let unit = if fragment == 0 { block } else { fragment };
        match unit {
            0 => blocks,
            unit => (u128::from(blocks) * u128::from(own) / u128::from(unit)).min(u128::from(u64::MAX)) as u64,
        }
    };
    let sum = |take: fn(&Statfs) -> u64| in_unit(&a, take(&a)).saturating_add(in_unit(&b, take(&b)));
    Statfs {
        block_size_bytes: block,
        fragment_size_bytes: fragment,
        blocks: sum(|statfs| statfs.blocks),
        blocks_free: sum(|statfs| statfs.blocks_free),
        blocks_available: sum(|statfs| statfs.blocks_available),
        files: a.files.saturating_add(b.files),
        files_free: a.files_free.saturating_add(b.files_free),
        files_available: a.files_available.saturating_add(b.files_available),
        fs_id: b.fs_id,
        flags: b.flags,
        name_max_bytes: b.name_max_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_s_limit_counts_once() {
        let statfs = |blocks, blocks_free| Statfs { blocks, blocks_free, ..Statfs::default() };
        let (disk, limit, fuller) = (statfs(9000, 1000), statfs(100, 80), statfs(100, 30));
        assert_eq!(total(vec![(disk, false), (fuller, true), (limit, true)]), Some(fuller));
        assert_eq!(total(vec![(disk, false), (disk, false)]).unwrap().blocks, 18000);
        assert_eq!(total(vec![]), None);
    }

    #[test]
    fn sizes_are_added_in_the_larger_unit() {
        let small = Statfs {
            block_size_bytes: 1024,
            fragment_size_bytes: 1024,
            blocks: 400,
            blocks_free: 40,
            files: 3,
            ..Statfs::default()
        };
        let large = Statfs { block_size_bytes: 4096, fragment_size_bytes: 4096, blocks: 50, ..small };
        let sum = add(small, large);
        assert_eq!((sum.block_size_bytes, sum.blocks, sum.blocks_free, sum.files), (4096, 150, 50, 6));
    }
}
