//! features/arbiter: the third brick of an arbiter volume, which has names and marks but no contents.
//!
//! Promises: what would change or move a file's contents succeeds and does nothing, so that replicate's transaction goes
//! its way and its marks are kept; what would read contents fails with ENOSYS, as nobody may take an empty file for the
//! data. Everything else is storage's. Source of the rules: features/arbiter of GlusterFS 10.3.

use std::sync::{Arc, Weak};

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{File, PrePost};
use ladrillo_translator::{Context, Dict, Fop, FopError, FopFuture, FopResult, Iatt, Parent, Reply, Translator, Value};

/// xdata keys that the answer of an inode's STAT may carry too.
const COUNTS: [&str; 2] = ["glusterfs.open-fd-count", "glusterfs.open-active-fd-count"];

/// The translator.
pub struct Arbiter {
    name: String,
    child: Arc<dyn Translator>,
}

impl Arbiter {
    /// Over `child`.
    pub fn new(name: &str, child: Arc<dyn Translator>) -> Arbiter {
        Arbiter { name: name.to_owned(), child }
    }

    /// What a change of contents is answered with: attributes as they are, before and after.
    async fn unchanged(&self, context: &Context, file: File, written: usize, xdata: &Dict) -> FopResult {
        let mut counts = Dict::new();
        for key in COUNTS {
            if let Some(value) = xdata.get(key) {
                counts.set(key, value.clone());
            }
        }
        let fop = match file.fd {
            Some(_) => Fop::Fstat { file, xdata: counts },
            None => Fop::Stat { gfid: file.gfid, xdata: counts },
        };
        let Reply::Iatt { iatt, xdata: counts } = self.child.submit(context, fop).await? else {
            return Err(FopError::new(errno::EIO, "STAT answered with something else"));
        };
        let mut out = Dict::new();
        for key in COUNTS {
            if let Some(value) = counts.get(key) {
                out.set(key, value.clone());
            }
        }
        // Replicate asks whether a write was at the end of the file: here no end is known, and 1 never keeps it from
        // believing another brick that says otherwise.
        if xdata.contains("glusterfs.write-is-append") {
            out.set("glusterfs.write-is-append", Value::Uint(1));
        }
        let iatt: Iatt = *iatt;
        Ok(Reply::PrePost {
            attrs: Box::new(PrePost { pre: iatt.clone(), post: iatt }),
            written: u32::try_from(written).unwrap_or(u32::MAX),
            xdata: out,
        })
    }
}

impl Translator for Arbiter {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        match fop {
            Fop::Write { file, data, xdata, .. } => {
                Box::pin(async move { self.unchanged(context, file, data.len(), &xdata).await })
            }
            Fop::Truncate { gfid, xdata, .. } => {
                Box::pin(async move { self.unchanged(context, File { gfid, fd: None }, 0, &xdata).await })
            }
            Fop::Ftruncate { file, xdata, .. }
            | Fop::Fallocate { file, xdata, .. }
            | Fop::Discard { file, xdata, .. }
            | Fop::Zerofill { file, xdata, .. } => {
                Box::pin(async move { self.unchanged(context, file, 0, &xdata).await })
            }
            Fop::Read { .. } | Fop::Seek { .. } => {
                let what = format!("{} on an arbiter, which has no contents", fop.kind().name());
                Box::pin(async move { Err(FopError::new(errno::ENOSYS, what)) })
            }
            fop => self.child.submit(context, fop),
        }
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translators::testing::{Bench, create, lookup};
    use ladrillo_translator::fop::SeekWhat;
    use ladrillo_translator::{FdId, Gfid, Payload};

    #[test]
    fn writes_succeed_and_leave_no_data() {
        let Some(bench) = Bench::new(|storage| Arc::new(Arbiter::new("arbiter", storage))) else { return };
        let (gfid, fd) = (Gfid::random(), FdId(9));
        bench.run(create(Gfid::ROOT, "file", gfid, fd)).unwrap();
        let file = File { gfid, fd: Some(fd) };
        let asks = Dict::new()
            .with("glusterfs.write-is-append", Value::Uint(1))
            .with("glusterfs.open-fd-count", Value::Uint(0));
        let data = Payload::from_bytes(vec![7u8; 5000].into());
        let write = Fop::Write { file, offset: 100, data, flags: 0, xdata: asks };
        let Reply::PrePost { attrs, written, xdata } = bench.run(write).unwrap() else { panic!("no pre and post") };
        assert_eq!((written, attrs.pre.size_bytes, attrs.post.size_bytes, attrs.post.gfid), (5000, 0, 0, gfid));
        assert_eq!(xdata.int("glusterfs.write-is-append"), Some(1));
        assert_eq!(xdata.int("glusterfs.open-fd-count"), Some(1));
        let anonymous = File { gfid, fd: None };
        let x = Dict::new;
        for fop in [
            Fop::Truncate { gfid, size_bytes: 1 << 20, xdata: x() },
            Fop::Ftruncate { file, size_bytes: 1 << 20, xdata: x() },
            Fop::Fallocate { file: anonymous, flags: 0, offset: 0, len: 4096, xdata: x() },
            Fop::Discard { file, offset: 0, len: 4096, xdata: x() },
            Fop::Zerofill { file, offset: 0, len: 4096, xdata: x() },
        ] {
            let Reply::PrePost { attrs, .. } = bench.run(fop).unwrap() else { panic!("no pre and post") };
            assert_eq!(attrs.post.size_bytes, 0);
        }
        assert_eq!(std::fs::metadata(bench.path.join("file")).unwrap().len(), 0);
        let read = Fop::Read { file, offset: 0, size_bytes: 10, flags: 0, xdata: x() };
        assert_eq!(bench.run(read).unwrap_err().errno, errno::ENOSYS);
        let seek = Fop::Seek { file, offset: 0, what: SeekWhat::Data, xdata: x() };
        assert_eq!(bench.run(seek).unwrap_err().errno, errno::ENOSYS);
        // Names and marks are kept as anywhere.
        let xattrs = Dict::new().with("trusted.afr.gv0-client-0", Value::Ptr(vec![0u8; 12].into()));
        bench.run(Fop::Setxattr { gfid, xattrs, flags: 0, xdata: x() }).unwrap();
        assert_eq!(bench.run(lookup(Gfid::ROOT, "file")).map(|_| ()).ok(), Some(()));
        // A descriptor nobody opened is an error here as well.
        let stranger = File { gfid, fd: Some(FdId(12345)) };
        let write = Fop::Write { file: stranger, offset: 0, data: Payload::empty(), flags: 0, xdata: x() };
        assert_eq!(bench.run(write).unwrap_err().errno, errno::EBADF);
    }
}
