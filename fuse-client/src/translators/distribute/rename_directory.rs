//! Rename of directories: on all subvolumes, the new name's own first; undone where it fails half way.

use ladrillo_translator::error::errno::ENOTCONN;
use ladrillo_translator::{Dict, Fop, FopError, FopResult};

use super::Distribute;
use super::merge;
use super::rename::Renaming;

impl Distribute {
    pub(super) async fn rename_directory(&self, renaming: Renaming) -> FopResult {
        if !self.all_up() {
            return Err(FopError::new(ENOTCONN, "a directory is renamed only while all subvolumes are up"));
        }
        let from = (&renaming.from, renaming.from_hashed);
        let held = self.lock_names(from, (&renaming.to, renaming.to_hashed)).await?;
        let outcome = self.rename_directory_locked(&renaming).await;
        self.unlock_soon(held);
        let mut reply = outcome?;
        self.table.forget_name(&renaming.from);
        self.learn_name(&renaming.to, renaming.gfid(), None);
        if let Some(target) = &renaming.target {
            self.table.forget(&target.iatt.gfid);
        }
        merge::dress(&mut reply);
        Ok(reply)
    }

    async fn rename_directory_locked(&self, renaming: &Renaming) -> FopResult {
        let Renaming { context, from, to, to_hashed, .. } = renaming;
        if let Some(target) = &renaming.target {
            self.check_empty(&self.system(), to, target.iatt.gfid).await?;
        }
        let fop = Fop::Rename { from: from.clone(), to: to.clone(), xdata: Dict::new() };
        let reply = self.ask(*to_hashed, context, fop.clone()).await?;
        let others = (0..self.count()).filter(|child| child != to_hashed);
        let replies = self.ask_each(others, context, |_| fop.clone()).await;
        let failed = replies.iter().find_map(|(_, reply)| reply.as_ref().err().cloned());
        let Some(error) = failed else { return Ok(reply) };
        tracing::warn!(gfid = %renaming.gfid(), %error, "a directory's rename is undone");
        let mut undo: Vec<usize> = replies.iter().filter(|(_, reply)| reply.is_ok()).map(|(child, _)| *child).collect();
        undo.push(*to_hashed);
        let back = Fop::Rename { from: to.clone(), to: from.clone(), xdata: Dict::new() };
        for (child, reply) in self.ask_each(undo, &self.system(), |_| back.clone()).await {
            if let Err(error) = reply {
                tracing::error!(child = self.child_name(child), %error, gfid = %renaming.gfid(), "undoing a rename");
            }
        }
        Err(error)
    }

    /// Whether the new name is in the directory itself, as far as names are known; bricks check what they see.
    pub(super) fn is_below(&self, renaming: &Renaming) -> bool {
        let mut at = renaming.to.parent;
        for _ in 0..1024 {
            if at == renaming.gfid() {
                return true;
            }
            match self.table.name_of(&at) {
                Some(entry) if !at.is_root() => at = entry.parent,
                _ => return false,
            }
        }
        false
    }
}
