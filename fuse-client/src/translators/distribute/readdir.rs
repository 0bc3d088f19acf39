//! Listings: subvolume after subvolume. A file is listed where its data is, a directory by the subvolume its name hashes
//! to, linkto files not at all.

use ladrillo_translator::error::errno::ENOTCONN;
use ladrillo_translator::fop::{DirEntry, Entry, File};
use ladrillo_translator::{Context, Dict, Fop, FopResult, Reply, Value};

use super::Distribute;
use super::layout::Layout;
use super::linkto::is_missing;
use super::merge;
use super::offset::Offsets;

/// xdata: leave directories out.
const SKIP_DIRECTORIES: &str = "readdir-filter-directories";

impl Distribute {
    /// READDIR and READDIRP: both with attributes below, which tell linkto files.
    pub(super) async fn readdir(&self, context: &Context, fop: Fop) -> FopResult {
        let (file, offset, size_bytes, xdata, plus) = match fop {
            Fop::Readdir { file, offset, size_bytes, xdata } => (file, offset, size_bytes, xdata, false),
            Fop::Readdirp { file, offset, size_bytes, xdata } => (file, offset, size_bytes, xdata, true),
            _ => return Err(super::strange_fop("a listing")),
        };
        let layout = self.layout_of(file.gfid).await?;
        let offsets = Offsets::new(self.count());
        let first_up = self.first_up().ok_or_else(|| self.nobody_up())?;
        let mut request = xdata.clone();
        request.set(self.keys.linkto.clone(), Value::Uint(256));
        let (mut child, mut own) = offsets.inward(offset);
        while child < self.count() {
            let mut listed = self.list_on(context, file, child, own, size_bytes, &request, first_up).await?;
            self.tell_linkto_files(file, child, &mut listed).await;
            let last = listed.last().map(|entry| entry.offset);
            let mut entries: Vec<DirEntry> =
                listed.into_iter().filter(|entry| self.is_listed_by(child, entry, &layout, first_up)).collect();
            if entries.is_empty() {
                match last {
                    Some(last) if last != own => own = last,
                    _ => (child, own) = (child + 1, 0),
                }
                continue;
            }
            for entry in &mut entries {
                self.dress_entry(file, child, entry, &xdata, plus);
                entry.offset = offsets.outward(entry.offset, child);
            }
            return Ok(Reply::Entries { entries, xdata: Dict::new() });
        }
        Ok(Reply::Entries { entries: Vec::new(), xdata: Dict::new() })
    }

    #[allow(clippy::too_many_arguments)]
    async fn list_on(
        &self,
        context: &Context,
        file: File,
        child: usize,
        offset: u64,
        size_bytes: u32,
        request: &Dict,
        first_up: usize,
    ) -> FopResult<Vec<DirEntry>> {
        let mut xdata = request.clone();
        if self.settings().readdir_optimize && child != first_up {
            xdata.set(SKIP_DIRECTORIES, Value::Int(1));
        }
        let mut fop = Fop::Readdirp { file, offset, size_bytes, xdata };
        self.adapt_directory(&mut fop, child);
        match self.ask(child, context, fop).await {
            Ok(Reply::Entries { entries, .. }) => Ok(entries),
            Ok(_) => Err(super::strange_reply("a listing")),
            // The others go on without a subvolume that is down, or has not got the directory yet.
            Err(error) if error.errno == ENOTCONN || is_missing(&error) => {
                tracing::debug!(child = self.child_name(child), %error, "not listed");
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the attributes of what may be linkto files where the listing came without (replicate leaves them out where
    /// they may be stale): a file that rebalance moves has the xattr, too.
    async fn tell_linkto_files(&self, file: File, child: usize, listed: &mut [DirEntry]) {
        let key = &self.keys.linkto;
        let doubtful = listed.iter_mut().filter(|entry| entry.iatt.is_none() && entry.xdata.contains(key));
        futures::future::join_all(doubtful.map(|entry| async move {
            let name = Entry { parent: file.gfid, name: entry.name.clone() };
            let request = Dict::new().with(key.clone(), Value::Uint(256));
            if let Ok(seen) = self.look(child, &self.system(), &name, request).await {
                entry.iatt = Some(seen.iatt);
                entry.xdata = seen.xdata;
            }
        }))
        .await;
    }

    fn is_listed_by(&self, child: usize, entry: &DirEntry, layout: &Layout, first_up: usize) -> bool {
        let is_dir = match &entry.iatt {
            Some(iatt) if self.is_linkto(iatt, &entry.xdata) => return false,
            Some(iatt) => iatt.is_dir(),
            None => entry.d_type == ladrillo_translator::FileType::Directory.d_type(),
        };
        if !is_dir || self.count() == 1 {
            return true;
        }
        if self.settings().readdir_optimize {
            return child == first_up;
        }
        match layout.search(self.settings().hasher.hash(&entry.name)) {
            Some(hashed) if self.is_up(hashed) => child == hashed,
            _ => child == first_up,
        }
    }

    fn dress_entry(&self, file: File, child: usize, entry: &mut DirEntry, asked: &Dict, plus: bool) {
        self.hide_own(&mut entry.xdata, asked);
        let is_dot = matches!(entry.name.as_ref(), b"." | b"..");
        let Some(iatt) = &mut entry.iatt else { return };
        merge::hide_migration(iatt);
        merge::fix_directory(iatt);
        if !is_dot && !iatt.gfid.is_null() {
            let name = Entry { parent: file.gfid, name: entry.name.clone() };
            if iatt.is_dir() {
                self.learn_name(&name, iatt.gfid, None);
            } else if iatt.file_type().is_some() {
                self.learn_name(&name, iatt.gfid, Some(child));
                self.table.learn_file(iatt.gfid, child);
            }
        }
        // A directory's attributes are the marked subvolume's, which need not be this one: to be looked up.
        if !plus || (iatt.is_dir() && self.count() > 1 && !is_dot) {
            entry.iatt = None;
        }
    }
}
