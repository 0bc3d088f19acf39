//! Open directories.

use ladrillo_translator::fop::DirEntry;
use ladrillo_translator::{Dict, Fop, Reply};

use super::{Outcome, Request, stale, unexpected};
use crate::executor;
use crate::front::answer::{self, Answer, Encoder};
use crate::front::open::OpenFile;

impl Request<'_> {
    pub(super) async fn opendir(&self, flags: u32) -> Outcome {
        let gfid = self.gfid()?;
        let fd = self.front.files.fresh();
        match self.submit(Fop::Opendir { gfid, fd, xdata: Dict::new() }).await.map_err(stale)? {
            Reply::Done { .. } => {}
            reply => return Err(unexpected(&reply)),
        }
        let fh = self.front.files.insert(OpenFile { gfid, fd, flags });
        let (front, header) = (self.front.clone(), *self.header);
        let undo = Box::new(move || {
            let _ = Request { front: &front, header: &header }.releasedir(fh);
        });
        Ok(Answer::Body { parts: vec![answer::opened(fh, 0)], undo: Some(undo) })
    }

    pub(super) fn releasedir(&self, fh: u64) -> Outcome {
        if let Some(directory) = self.front.files.remove(fh) {
            let (front, context) = (self.front.clone(), self.context());
            let busy = self.front.begin();
            executor::spawn(async move {
                let _busy = busy;
                if let Err(error) = front.top.submit(&context, Fop::Releasedir { file: directory.file() }).await {
                    tracing::debug!(gfid = %directory.gfid, "releasedir: {error}");
                }
            });
        }
        Ok(Answer::ok())
    }

    pub(super) async fn fsyncdir(&self, fh: u64, datasync: bool) -> Outcome {
        let file = self.open_file(fh)?.file();
        match self.submit(Fop::Fsyncdir { file, datasync, xdata: Dict::new() }).await? {
            Reply::Done { .. } => Ok(Answer::ok()),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn readdir(&self, fh: u64, offset: u64, size_bytes: u32, plus: bool) -> Outcome {
        let file = self.open_file(fh)?.file();
        // With attributes in both cases: the inode number applications see is the gfid's, which a plain READDIR lacks.
        let entries = match self.submit(Fop::Readdirp { file, offset, size_bytes, xdata: Dict::new() }).await? {
            Reply::Entries { entries, .. } => entries,
            reply => return Err(unexpected(&reply)),
        };
        let room = size_bytes as usize;
        let mut out = Encoder::with_capacity(room.min(64 << 10));
        let mut learned = Vec::new();
        for entry in &entries {
            let head = if plus { answer::ENTRY_BYTES } else { 0 };
            if out.len() + head + answer::dirent_bytes(entry.name.len()) > room {
                break; // the kernel comes back for it with the offset of the one before
            }
            if entry.name.is_empty() || entry.name.contains(&b'/') || entry.name.contains(&0) || entry.name.len() > 255
            {
                tracing::warn!(gfid = %file.gfid, name = %entry.name.escape_ascii(), "a brick listed an impossible name");
                continue;
            }
            if plus {
                self.entry_of(&mut out, entry, &mut learned);
            }
            out.dirent(self.front.options.validity.ino(ino(entry)), entry.offset, d_type(entry), &entry.name);
        }
        self.front.trim_inodes(learned.len());
        let front = self.front.clone();
        let undo: Option<answer::Undo> = (!learned.is_empty())
            .then(|| Box::new(move || learned.iter().for_each(|n| front.inodes.forget(*n, 1))) as _);
        Ok(Answer::Body { parts: vec![out.finish()], undo })
    }

    /// What the kernel may remember of an entry; nodeid 0 (it looks the name up itself) where the brick said too little.
    fn entry_of(&self, out: &mut Encoder, entry: &DirEntry, learned: &mut Vec<u64>) {
        let validity = &self.front.options.validity;
        let itself = matches!(&entry.name[..], b"." | b"..");
        match &entry.iatt {
            Some(iatt) if !itself && !iatt.gfid.is_null() && iatt.file_type().is_some() => {
                let nodeid = match iatt.is_dir() {
                    true => self.front.inodes.lookup_directory_at(iatt.gfid, self.header.nodeid, &entry.name),
                    false => self.front.inodes.lookup_at(iatt.gfid, self.header.nodeid, &entry.name),
                };
                learned.push(nodeid);
                out.entry(nodeid, iatt, validity);
            }
            iatt => {
                out.entry(0, iatt.as_ref().unwrap_or(&Default::default()), validity);
            }
        }
    }
}

fn ino(entry: &DirEntry) -> u64 {
    match &entry.iatt {
        Some(iatt) if !iatt.gfid.is_null() => iatt.gfid.ino(),
        _ => entry.ino,
    }
}

fn d_type(entry: &DirEntry) -> u32 {
    match entry.iatt.as_ref().and_then(|iatt| iatt.file_type()) {
        Some(file_type) => file_type.d_type(),
        None => entry.d_type,
    }
}
