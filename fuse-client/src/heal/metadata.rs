//! Heals attributes: owner, mode, xattrs and times.

use std::collections::BTreeMap;

use bytes::Bytes;
use ladrillo_translator::error::errno::{EIO, ENODATA, ENOTCONN};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Context, Dict, Fop, FopError, Gfid, Iatt, Reply, Translator, Value};

use super::direction::direction;
use super::healer::{HealResult, Healed, Healer, Look, Trouble};
use crate::translators::replicate::{Lockee, METADATA_START, Mask, Segment, successes};

/// Xattrs that belong to a brick, not to the file: never copied.
const BRICKS_OWN: &[&[u8]] = &[
    b"trusted.afr.",
    b"trusted.gfid",
    b"trusted.pgfid.",
    b"trusted.glusterfs.volume-id",
    b"trusted.glusterfs.mdata",
    b"trusted.glusterfs.xattrop",
    b"trusted.bit-rot.",
    b"security.selinux",
];

type Xattrs = BTreeMap<Bytes, Bytes>;

impl Healer {
    pub(crate) async fn heal_metadata(&self, gfid: Gfid) -> HealResult {
        let context = self.context();
        let domain = self.replicate.name().to_owned();
        let lockee = Lockee::Range { gfid, start: METADATA_START, len: 0 };
        self.lock_or_give_up(&context, &domain, &lockee).await?;
        let outcome = self.heal_metadata_locked(&context, gfid).await;
        self.unlock(&context, &domain, &lockee).await;
        outcome
    }

    async fn heal_metadata_locked(&self, context: &Context, gfid: Gfid) -> HealResult {
        let look = self.look(context, gfid).await?;
        let everyone = self.replicate.everyone();
        let judged = direction(&look.marks, Segment::Metadata, everyone, self.replicate.settings().quorum.needed());
        let xattrs = self.xattrs_of_all(context, gfid).await?;
        let alike = |a: usize, b: usize| -> bool {
            let (Some(one), Some(two)) = (look.copy(a), look.copy(b)) else { return false };
            attributes(&one.iatt) == attributes(&two.iatt) && xattrs.get(a) == xattrs.get(b)
        };
        let all_alike = everyone.iter().all(|child| alike(0, child));
        let mut sources = judged.sources;
        if sources.is_empty()
            && !all_alike
            && let Some(child) = self.chosen(&look.copies, Segment::Metadata)?
        {
            tracing::warn!(%gfid, child, choice = ?self.choice, "split-brain of attributes decided");
            sources = Mask::only(child);
        }
        if sources.is_empty() {
            if !all_alike {
                return Err(Trouble::SplitBrain(format!("{gfid}: all copies of its attributes are accused")));
            }
            sources = everyone;
        }
        let Some(source) = self.source_of_metadata(&look, sources) else {
            return Err(Trouble::SplitBrain(format!("{gfid}: no good copy of its attributes")));
        };
        let differing: Mask = sources.iter().filter(|child| !alike(source, *child)).collect();
        let (source, sinks) = self.twist(source, (everyone - sources) | differing);
        let marked = look.marks.iter().any(|marks| marks.any(Segment::Metadata));
        if sinks.is_empty() && !marked {
            return Ok(Healed::Nothing);
        }
        let mut healed = Mask::NONE;
        for sink in sinks.iter() {
            if self.copy_metadata(context, &look, &xattrs, source, sink).await? {
                healed.add(sink);
            }
        }
        self.restore_times(context, &look, source, healed).await;
        // The planted bug copies from the wrong side and declares all healed.
        self.undo_marks(context, gfid, &look, Segment::Metadata, sinks, healed).await?;
        if healed == sinks {
            Ok(Healed::Done)
        } else {
            Err(Trouble::NotNow(FopError::new(ENOTCONN, "not all copies could be healed")))
        }
    }

    /// Of copies nobody accuses that still differ (an operation ended half way), most decide, then the newest.
    fn source_of_metadata(&self, look: &Look, sources: Mask) -> Option<usize> {
        let of_sources = || look.copies.iter().filter(|copy| sources.has(copy.child));
        let votes = |iatt: &Iatt| of_sources().filter(|copy| attributes(&copy.iatt) == attributes(iatt)).count();
        of_sources()
            .max_by_key(|copy| (votes(&copy.iatt), copy.iatt.ctime, std::cmp::Reverse(copy.child)))
            .map(|copy| copy.child)
    }

    /// Whether all copies have the same xattrs, seen without a lock.
    pub(crate) async fn xattrs_agree(&self, gfid: Gfid) -> HealResult<bool> {
        let all = self.xattrs_of_all(&self.context(), gfid).await?;
        Ok(all.windows(2).all(|pair| pair[0] == pair[1]))
    }

    async fn xattrs_of_all(&self, context: &Context, gfid: Gfid) -> HealResult<Vec<Xattrs>> {
        let fop = Fop::Getxattr { gfid, name: Bytes::new(), xdata: Dict::new() };
        let mut all = Vec::new();
        for (_, reply) in self.replicate.send(self.replicate.everyone(), context, |_| fop.clone()).await {
            all.push(match reply {
                Ok(Reply::Xattrs { xattrs, .. }) => xattrs
                    .iter()
                    .filter(|(key, _)| is_healed(key))
                    .filter_map(|(key, value)| Some((key.clone(), stored(value)?)))
                    .collect(),
                Ok(_) => return Err(FopError::new(EIO, "a brick's answer to a getxattr is of another kind").into()),
                Err(error) if error.errno == ENODATA => Xattrs::new(),
                Err(error) => return Err(error.into()),
            });
        }
        Ok(all)
    }

    /// Makes `sink`'s attributes those of `source`. False: it did not take them all.
    async fn copy_metadata(
        &self,
        context: &Context,
        look: &Look,
        xattrs: &[Xattrs],
        source: usize,
        sink: usize,
    ) -> HealResult<bool> {
        let (Some(from), Some(good), Some(bad)) = (look.copy(source), xattrs.get(source), xattrs.get(sink)) else {
            return Ok(false);
        };
        let gfid = from.iatt.gfid;
        let only = Mask::only(sink);
        let valid = SetattrValid(SetattrValid::UID | SetattrValid::GID | SetattrValid::MODE);
        let fop = Fop::Setattr { gfid, iatt: Box::new(from.iatt.clone()), valid, xdata: Dict::new() };
        if successes(&self.replicate.send(only, context, |_| fop.clone()).await) != only {
            return Ok(false);
        }
        for name in bad.keys().filter(|name| !good.contains_key(*name)) {
            let fop = Fop::Removexattr { gfid, name: name.clone(), xdata: Dict::new() };
            let replies = self.replicate.send(only, context, |_| fop.clone()).await;
            let failed = replies.iter().any(|(_, reply)| matches!(reply, Err(error) if error.errno != ENODATA));
            if failed {
                return Ok(false);
            }
        }
        let missing: Dict = good
            .iter()
            .filter(|(name, value)| bad.get(*name) != Some(value))
            .map(|(name, value)| (name.clone(), Value::Ptr(value.clone())))
            .collect();
        if missing.is_empty() {
            return Ok(true);
        }
        let fop = Fop::Setxattr { gfid, xattrs: missing, flags: 0, xdata: Dict::new() };
        Ok(successes(&self.replicate.send(only, context, |_| fop.clone()).await) == only)
    }
}

/// Attributes that copies must agree in.
fn attributes(iatt: &Iatt) -> (u32, u32, u32) {
    (iatt.uid, iatt.gid, iatt.mode)
}

/// Whether an xattr belongs to the file, on all bricks alike.
pub(crate) fn is_healed(key: &[u8]) -> bool {
    let kept = [&b"user."[..], b"trusted.", b"security.", b"system.posix_acl_"];
    kept.iter().any(|prefix| key.starts_with(prefix))
        && !BRICKS_OWN.iter().any(|prefix| key.starts_with(prefix))
        && !is_quota_account(key)
}

/// Whether an xattr is what a brick counted for quotas: `size`, `dirty`, `<directory's gfid>.contri`, with or without
/// the version of the count behind it. Limits (`limit-set`, `limit-objects`) are the volume's and are healed.
/// Source: GlusterFS 10's marker-quota.
fn is_quota_account(key: &[u8]) -> bool {
    let Some(account) = key.strip_prefix(b"trusted.glusterfs.quota.") else { return false };
    let versioned = account.iter().rposition(|byte| *byte == b'.').and_then(|dot| {
        let (name, version) = (&account[..dot], &account[dot + 1..]);
        (!version.is_empty() && version.iter().all(u8::is_ascii_digit)).then_some(name)
    });
    let account = versioned.unwrap_or(account);
    account == b"size" || account == b"dirty" || account.ends_with(b".contri")
}

fn stored(value: &Value) -> Option<Bytes> {
    match value {
        Value::Str(raw) | Value::StrOld(raw) | Value::Ptr(raw) => Some(raw.clone()),
        Value::Gfid(gfid) => Some(Bytes::copy_from_slice(&gfid.0)),
        Value::Int(number) => Some(Bytes::from(number.to_string())),
        Value::Uint(number) => Some(Bytes::from(number.to_string())),
        Value::Double(_) | Value::Iatt(_) | Value::Mdata(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_healed_and_accounts_are_not() {
        for key in ["limit-set", "limit-objects", "limit-set.1"] {
            assert!(is_healed(format!("trusted.glusterfs.quota.{key}").as_bytes()), "{key}");
        }
        let contri = "00000000-0000-0000-0000-000000000001.contri";
        for key in ["size", "size.1", "dirty", "dirty.2", contri, &format!("{contri}.3")] {
            assert!(!is_healed(format!("trusted.glusterfs.quota.{key}").as_bytes()), "{key}");
        }
        assert!(is_healed(b"user.x") && !is_healed(b"trusted.gfid") && !is_healed(b"trusted.afr.dirty"));
    }
}
