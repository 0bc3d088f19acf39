//! Xattrs that no brick stores: where the copies are, who accuses whom, orders to the bricks' locks. Names, and the form of
//! the values, are GlusterFS 10.3's (afr-inode-read.c).

use bytes::Bytes;
use ladrillo_translator::error::errno::EAGAIN;
use ladrillo_translator::{Context, Fop, FopError, FopResult, Gfid, Reply};

use super::Replicate;
use crate::translators::whereabouts::{NODE_UUID, NODE_UUIDS, PATHINFO, answer};

/// Stands for a brick that did not answer.
const NO_NODE: &str = "00000000-0000-0000-0000-000000000000";
/// Orders to clear locks, and to end a wait for one.
const LOCK_ORDERS: [&[u8]; 2] = [b"glusterfs.clrlk", b"glusterfs.intrlk"];
const SPLIT_BRAIN_STATUS: &[u8] = b"replica.split-brain-status";

impl Replicate {
    /// The answer to a GETXATTR or FGETXATTR of a name that is no stored xattr; `None`: it is one.
    pub(super) async fn virtual_xattr(
        &self,
        context: &Context,
        gfid: Gfid,
        name: &Bytes,
        fop: &Fop,
    ) -> Option<FopResult> {
        let name_is = |names: &[&[u8]]| names.contains(&&name[..]);
        if name_is(&PATHINFO) {
            let told = self.told_by_all(context, name, fop).await;
            return Some(told.and_then(|told| {
                let copies: Vec<&str> = told.iter().filter_map(|text| text.as_deref()).collect();
                answer(name, format!("(<REPLICATE:{}> {})", self.name, copies.join(" ")))
            }));
        }
        if name_is(&[NODE_UUIDS]) {
            let told = self.told_by_all(context, name, fop).await;
            return Some(told.and_then(|told| {
                let nodes: Vec<&str> = told.iter().map(|text| text.as_deref().unwrap_or(NO_NODE)).collect();
                answer(name, nodes.join(" "))
            }));
        }
        if name_is(&[NODE_UUID]) {
            let told = self.told_by_all(context, name, fop).await;
            return Some(told.and_then(|told| answer(name, told.into_iter().flatten().next().unwrap_or_default())));
        }
        if LOCK_ORDERS.iter().any(|order| name.starts_with(order)) {
            // Each brick has locks of its own.
            let told = self.told_by_all(context, name, fop).await;
            return Some(told.and_then(|told| {
                let reports: Vec<String> = told.into_iter().flatten().collect();
                answer(name, reports.join("\n"))
            }));
        }
        if name_is(&[SPLIT_BRAIN_STATUS]) {
            return Some(self.split_brain_status(gfid).await.and_then(|status| answer(name, status)));
        }
        None
    }

    /// What each child answers, as text, in volfile order; `None` where it does not.
    ///
    /// # Errors
    /// None does.
    async fn told_by_all(&self, context: &Context, name: &Bytes, fop: &Fop) -> FopResult<Vec<Option<String>>> {
        let up = self.up();
        let replies = self.send_all(up, context, fop).await;
        let mut told = vec![None; self.children.len()];
        for (child, reply) in &replies {
            if let (Ok(Reply::Xattrs { xattrs, .. }), Some(slot)) = (reply, told.get_mut(*child)) {
                let text = xattrs.bytes(name).map(|raw| String::from_utf8_lossy(raw).trim_end_matches('\0').to_owned());
                *slot = text;
            }
        }
        if told.iter().all(Option::is_none) {
            return Err(self.weigh_errors(&replies));
        }
        Ok(told)
    }

    /// # Errors
    /// EAGAIN: not all children are there to be asked.
    async fn split_brain_status(&self, gfid: Gfid) -> FopResult<String> {
        if self.up() != self.everyone() {
            let message =
                "Failed to obtain replies from all bricks of the replica (are they up?). Cannot resolve split-brain.";
            return Err(FopError::new(EAGAIN, message));
        }
        let inode = self.inodes.intern(gfid);
        let readable = self.refresh(&inode, None).await?;
        if !readable.data.is_empty() && !readable.metadata.is_empty() {
            return Ok("The file is not under data or metadata split-brain".to_owned());
        }
        let yes_or_no = |is_split: bool| if is_split { "yes" } else { "no" };
        let choices: Vec<&str> = self.children.iter().map(|child| child.name()).collect();
        Ok(format!(
            "data-split-brain:{}    metadata-split-brain:{}    Choices:{}",
            yes_or_no(readable.data.is_empty()),
            yes_or_no(readable.metadata.is_empty()),
            choices.join(",")
        ))
    }
}
