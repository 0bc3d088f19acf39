//! Unlink: the file where it is, then the linkto file of its name.

use ladrillo_translator::error::errno::{EBUSY, ENOENT, ENOTCONN};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopFuture, FopResult};

use super::Distribute;
use super::lookup::NameLock;
use super::merge;
use super::table::Hint;

impl Distribute {
    pub(super) fn unlink<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this| Box::pin(async move { this.run_unlink(&context, fop).await }))
    }

    async fn run_unlink(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Unlink { entry, flags, xdata } = fop else { return Err(super::strange_fop("an unlink")) };
        let hashed = self.hashed(&entry).await.ok();
        let hint = self.table.hint(&entry).and_then(|hint: Hint| hint.subvolume);
        let (mut cached, mut is_certain) = match hint {
            Some(cached) => (cached, false),
            None => (self.cached(context, &entry).await?, true),
        };
        let mut reply = loop {
            match self.unlink_data(context, &entry, flags, &xdata, cached).await {
                Ok(Some(reply)) => break reply,
                // Not there, or only a linkto file: what was known of the name is out of date.
                Ok(None) if !is_certain => {
                    self.table.forget_name(&entry);
                    (cached, is_certain) = (self.cached(context, &entry).await?, true);
                }
                Ok(None) => {
                    let name = String::from_utf8_lossy(&entry.name).into_owned();
                    return Err(ladrillo_translator::FopError::new(ENOENT, format!("{name} is gone")));
                }
                Err(error) => return Err(error),
            }
        };
        self.table.forget_name(&entry);
        if let Some(hashed) = hashed.filter(|hashed| *hashed != cached) {
            match self.remove_linkto(&entry, hashed).await {
                // The data is gone: a linkto file that stays leads nowhere, and the next lookup removes it.
                Err(error) if !matches!(error.errno, ENOTCONN | EBUSY) => return Err(error),
                _ => {}
            }
        }
        merge::dress(&mut reply);
        Ok(reply)
    }

    async fn cached(&self, context: &Context, entry: &Entry) -> FopResult<usize> {
        let found = self.lookup_name(context, entry, &Dict::new(), NameLock::Free).await?;
        found.subvolume.ok_or_else(|| {
            ladrillo_translator::FopError::new(ladrillo_translator::error::errno::EISDIR, "unlink of a directory")
        })
    }

    /// Unlinks on `child`; `None`: there was nothing but perhaps a linkto file, which is gone, too.
    async fn unlink_data(
        &self,
        context: &Context,
        entry: &Entry,
        flags: u32,
        xdata: &Dict,
        child: usize,
    ) -> FopResult<Option<ladrillo_translator::Reply>> {
        let mut asked = xdata.clone();
        asked.set("dht-get-iatt-in-xattr", ladrillo_translator::Value::Int(1));
        let fop = Fop::Unlink { entry: entry.clone(), flags, xdata: asked };
        match self.ask(child, context, fop).await {
            Ok(reply) => {
                let was_linkto = match reply.xdata().get("dht-get-iatt-in-xattr") {
                    Some(ladrillo_translator::Value::Iatt(iatt)) => {
                        iatt.is_regular() && iatt.permissions() == 0o1000 && iatt.size_bytes == 0
                    }
                    _ => false,
                };
                Ok((!was_linkto || self.count() == 1).then_some(reply))
            }
            Err(error) if error.errno == ENOENT => Ok(None),
            Err(error) => Err(error),
        }
    }
}
