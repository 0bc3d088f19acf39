//! Unlink: the file where it is, then the linkto file of its name.

use std::time::Duration;

use ladrillo_translator::error::errno::{EBUSY, EISDIR, ENOENT, ENOTCONN};
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopFuture, FopResult, Reply, Value};

use super::Distribute;
use super::linkto::is_missing;
use super::lookup::NameLock;
use super::merge;

/// xdata of UNLINK and changes of xattrs: the answer carries the inode's attributes under the same key.
pub(super) const IATT_IN_XDATA: &str = "dht-get-iatt-in-xattr";
/// What was seen of a name so lately is believed, as the kernel believes it. Source: GlusterFS's entry-timeout.
const HINT_VALIDITY: Duration = Duration::from_secs(1);

/// What an unlink found on a subvolume.
enum Unlinked {
    /// The file.
    File(Reply),
    /// Nothing of that name.
    Nothing,
    /// What looks like a linkto file, and is gone now: the name was renamed to since it was seen, or it was an empty file
    /// that happened to have the mode.
    Linkto(Reply),
}

impl Distribute {
    pub(super) fn unlink<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let context = context.clone();
        self.detached(move |this| Box::pin(async move { this.run_unlink(&context, fop).await }))
    }

    async fn run_unlink(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Unlink { entry, flags, xdata } = fop else { return Err(super::strange_fop("an unlink")) };
        let hashed = self.hashed(&entry).await.ok();
        let hint = self.recent_hint(&entry, HINT_VALIDITY).and_then(|hint| hint.subvolume);
        let mut cached = match hint {
            Some(cached) => cached,
            None => self.cached(context, &entry, hashed, false).await?,
        };
        let mut looked = hint.is_none();
        let mut reply = loop {
            let linkto = match self.unlink_data(context, &entry, flags, &xdata, cached).await? {
                Unlinked::File(reply) => break reply,
                Unlinked::Linkto(reply) => Some(reply),
                Unlinked::Nothing => None,
            };
            // What was known of the name is out of date.
            self.table.forget_name(&entry);
            if looked && linkto.is_none() {
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                return Err(FopError::new(ENOENT, format!("{name} is gone")));
            }
            looked = true;
            cached = match (self.cached(context, &entry, hashed, linkto.is_some()).await, linkto) {
                (Ok(cached), _) => cached,
                (Err(error), Some(reply)) if error.errno == ENOENT => break reply,
                (Err(error), _) => return Err(error),
            };
        };
        self.table.forget_name(&entry);
        if let Some(hashed) = hashed.filter(|hashed| *hashed != cached) {
            match self.remove_stale_linkto(&entry, hashed, Some(hashed), NameLock::Free).await {
                // The data is gone: a linkto file that stays leads nowhere, and the next lookup removes it.
                Err(error) if !matches!(error.errno, ENOTCONN | EBUSY) && !is_missing(&error) => return Err(error),
                _ => {}
            }
        }
        merge::dress(&mut reply);
        Ok(reply)
    }

    /// Where the file is; `lost` where the linkto file that led there is gone.
    async fn cached(&self, context: &Context, entry: &Entry, hashed: Option<usize>, lost: bool) -> FopResult<usize> {
        let found = match lost {
            true => {
                let request = self.request(&Dict::new());
                self.lookup_everywhere(context, entry, hashed, &request, NameLock::Free).await?
            }
            false => self.lookup_name(context, entry, &Dict::new(), NameLock::Free).await?,
        };
        found.subvolume.ok_or_else(|| FopError::new(EISDIR, "unlink of a directory"))
    }

    async fn unlink_data(
        &self,
        context: &Context,
        entry: &Entry,
        flags: u32,
        xdata: &Dict,
        child: usize,
    ) -> FopResult<Unlinked> {
        let mut asked = xdata.clone();
        asked.set(IATT_IN_XDATA, Value::Int(1));
        let fop = Fop::Unlink { entry: entry.clone(), flags, xdata: asked };
        match self.ask(child, context, fop).await {
            Ok(reply) => {
                let was_linkto = match reply.xdata().get(IATT_IN_XDATA) {
                    Some(Value::Iatt(iatt)) => {
                        iatt.is_regular() && iatt.permissions() == 0o1000 && iatt.size_bytes == 0
                    }
                    _ => false,
                };
                Ok(if was_linkto { Unlinked::Linkto(reply) } else { Unlinked::File(reply) })
            }
            Err(error) if error.errno == ENOENT => Ok(Unlinked::Nothing),
            Err(error) => Err(error),
        }
    }
}
