//! Hard links: on the file's subvolume, with a linkto file where the new name hashes elsewhere.

use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopFuture, FopResult, Gfid};

use super::Distribute;
use super::linkto::{is_missing, made};
use super::merge;

impl Distribute {
    pub(super) fn link<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this| Box::pin(async move { this.run_link(&context, fop).await }))
    }

    async fn run_link(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Link { gfid, entry, xdata } = fop else { return Err(super::strange_fop("a link")) };
        let hashed = self.hashed(&entry).await?;
        let mut has_moved = false;
        loop {
            let Some(cached) = self.place(gfid).await? else {
                let message = "a hard link to a directory";
                return Err(ladrillo_translator::FopError::new(ladrillo_translator::error::errno::EPERM, message));
            };
            let link = Fop::Link { gfid, entry: entry.clone(), xdata: xdata.clone() };
            let outcome = match hashed == cached {
                true => self.ask(cached, context, link).await,
                false => self.link_elsewhere(context, link, &entry, gfid, hashed, cached).await,
            };
            match outcome {
                Ok(mut reply) => {
                    let iatt = made(&reply)?;
                    if hashed != cached {
                        self.own_linkto(hashed, iatt).await;
                    }
                    self.learn_name(&entry, gfid, Some(cached));
                    merge::dress(&mut reply);
                    return Ok(reply);
                }
                Err(error) => {
                    if has_moved || !is_missing(&error) {
                        return Err(error);
                    }
                    has_moved = true;
                    self.table.forget(&gfid);
                }
            }
        }
    }

    /// The linkto file and the name it leads to, under the name's lock: who meets one without the other removes it.
    async fn link_elsewhere(
        &self,
        context: &Context,
        link: Fop,
        entry: &Entry,
        gfid: Gfid,
        hashed: usize,
        cached: usize,
    ) -> FopResult {
        let held = self.lock_name(entry, hashed).await?;
        let outcome = match self.make_linkto(entry, gfid, hashed, cached, Dict::new()).await {
            Ok(has_linkto) => {
                let outcome = self.ask(cached, context, link).await;
                if outcome.is_err() && has_linkto {
                    // What stays behind is met by a lookup.
                    let _ = self.remove_linkto(entry, hashed).await;
                }
                outcome
            }
            Err(error) => Err(error),
        };
        self.unlock_soon(held);
        outcome
    }
}
