//! `heal info`: what is to be healed, per brick, in GlusterFS's words (source: glfs-heal.c of 10.3).

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use ladrillo_translator::error::errno::{EIO, ENOENT, ENOTCONN, ESTALE};
use ladrillo_translator::{Context, Dict, FileType, Fop, FopError, Gfid, Reply, Value};

use super::direction::direction;
use super::healer::{Healer, Trouble};
use super::index::Index;
use crate::translators::replicate::{Mask, Replicate, SeenCopy, Segment};

/// Entries listed of one brick; more are only counted.
const MAX_LISTED: usize = 1 << 20;

/// What an entry waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryStatus {
    /// To be healed.
    Pending,
    /// Copies accuse each other.
    SplitBrain,
    /// Somebody is healing it.
    Healing,
}

/// An inode that a brick's index lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogEntry {
    /// Its path on the volume, or `<gfid:...>` where the brick cannot tell.
    pub path: String,
    /// Identity.
    pub gfid: Gfid,
    /// What it waits for.
    pub status: EntryStatus,
}

/// What one brick lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrickBacklog {
    /// `HOST:PATH`.
    pub brick: String,
    /// Why it could not be asked, or not to the end: an errno.
    pub errno: Option<i32>,
    /// What is to be healed.
    pub entries: Vec<BacklogEntry>,
    /// How many that are.
    pub count: u64,
}

/// Asks all bricks what is to be healed. `bricks`: their names (`HOST:PATH`), in the order of the children.
pub async fn info(replicate: &Arc<Replicate>, bricks: &[String]) -> Vec<BrickBacklog> {
    let healer = Healer::new(replicate.clone());
    let mut all = Vec::new();
    for child in replicate.everyone().iter() {
        let brick = bricks.get(child).cloned().unwrap_or_else(|| "-".to_owned());
        let mut backlog = BrickBacklog { brick, errno: None, entries: Vec::new(), count: 0 };
        let outcome = if replicate.is_up(child) {
            list_brick(&healer, child, &mut backlog).await
        } else {
            Err(FopError::new(ENOTCONN, "not connected"))
        };
        backlog.errno = outcome.err().map(|error| error.errno);
        all.push(backlog);
    }
    all
}

/// The inodes that a brick's indices list as marked, in split-brain or not: each once, at most [`MAX_LISTED`].
pub(crate) async fn listed(replicate: &Arc<Replicate>, child: usize) -> Result<Vec<Gfid>, FopError> {
    if !replicate.is_up(child) {
        return Err(FopError::new(ENOTCONN, "not connected"));
    }
    let healer = Healer::new(replicate.clone());
    let context = Context { pid: Context::PID_HEAL_INFO, ..healer.context() };
    let (mut seen, mut all) = (HashSet::new(), Vec::new());
    for index in [Index::Pending, Index::Dirty] {
        let Some(directory) = plain(healer.index_directory(&context, child, index).await)? else { continue };
        let mut offset = 0;
        loop {
            let (gfids, next) = plain(healer.read_index(&context, child, directory, offset).await)?;
            all.extend(gfids.into_iter().filter(|gfid| seen.len() < MAX_LISTED && seen.insert(*gfid)));
            match next {
                Some(next) => offset = next,
                None => break,
            }
        }
    }
    Ok(all)
}

async fn list_brick(healer: &Healer, child: usize, backlog: &mut BrickBacklog) -> Result<(), FopError> {
    let context = Context { pid: Context::PID_HEAL_INFO, ..healer.context() };
    let mut seen: HashSet<Gfid> = HashSet::new();
    for index in [Index::Pending, Index::Dirty] {
        let Some(directory) = plain(healer.index_directory(&context, child, index).await)? else { continue };
        let mut offset = 0;
        loop {
            let (gfids, next) = plain(healer.read_index(&context, child, directory, offset).await)?;
            for gfid in gfids {
                if seen.len() < MAX_LISTED && !seen.insert(gfid) {
                    continue;
                }
                let Some(status) = status_of(healer, &context, gfid).await else { continue };
                let Some(path) = path_of(healer, &context, child, gfid).await else {
                    healer.purge(&context, child, directory, gfid, index).await;
                    continue;
                };
                backlog.count += 1;
                if backlog.entries.len() < MAX_LISTED {
                    backlog.entries.push(BacklogEntry { path, gfid, status });
                }
            }
            match next {
                Some(next) => offset = next,
                None => break,
            }
        }
    }
    Ok(())
}

fn plain<T>(outcome: Result<T, Trouble>) -> Result<T, FopError> {
    outcome.map_err(|trouble| match trouble {
        Trouble::NotNow(error) => error,
        Trouble::SplitBrain(why) => FopError::new(EIO, why),
    })
}

/// What `gfid` waits for; `None`: nothing (it is merely being written to, or was healed meanwhile).
async fn status_of(healer: &Healer, context: &Context, gfid: Gfid) -> Option<EntryStatus> {
    let replicate = &healer.replicate;
    let look = |domain: String| {
        let mut xdata = Dict::new();
        replicate.request_marks(&mut xdata);
        xdata.set("glusterfs.inodelk-dom-count", Value::Str(Bytes::from(domain)));
        let fop = Fop::Lookup { gfid, entry: None, xdata };
        async move {
            let replies = replicate.send(replicate.up(), context, |_| fop.clone()).await;
            let copies: Vec<SeenCopy> = replies
                .iter()
                .filter_map(|(child, reply)| match reply {
                    Ok(Reply::Lookup { iatt, xdata, .. }) => Some(SeenCopy::of(replicate, *child, iatt, xdata)),
                    _ => None,
                })
                .collect();
            copies
        }
    };
    let copies = look(super::super::translators::replicate::domain_of(replicate)).await;
    let first = copies.first()?;
    let kind = first.iatt.file_type();
    let contents = if kind == Some(FileType::Directory) { Segment::Entry } else { Segment::Data };
    let segments = [contents, Segment::Metadata];
    let pending = segments.iter().any(|segment| copies.iter().any(|copy| !copy.marks.accused(*segment).is_empty()));
    let dirty = segments.iter().any(|segment| copies.iter().any(|copy| copy.marks.dirty.get(*segment) != 0));
    let in_use = copies.iter().any(|copy| copy.inodelks > 0);
    if !pending && (!dirty || in_use) {
        return None;
    }
    if look(healer.heal_domain()).await.iter().any(|copy| copy.inodelks > 0) {
        return Some(EntryStatus::Healing);
    }
    let everyone = replicate.everyone();
    // Also of a directory whose copies accuse each other: its names can be healed, but GlusterFS calls it so.
    if copies.len() == replicate.children().len() {
        let marks: Vec<_> = copies.iter().map(|copy| copy.marks.clone()).collect();
        let quorum = replicate.settings().quorum.needed();
        let split = segments.iter().any(|segment| direction(&marks, *segment, everyone, quorum).sources.is_empty());
        if split {
            return Some(EntryStatus::SplitBrain);
        }
    }
    Some(EntryStatus::Pending)
}

/// Where `gfid` is on the volume; `None`: the brick does not have it any more.
async fn path_of(healer: &Healer, context: &Context, child: usize, gfid: Gfid) -> Option<String> {
    const KEY: &[u8] = b"glusterfs.gfidtopath";
    let unknown = || format!("<gfid:{gfid}>");
    if gfid.is_root() {
        return Some("/".to_owned());
    }
    let fop = Fop::Getxattr { gfid, name: Bytes::from_static(KEY), xdata: Dict::new() };
    match healer.replicate.send(Mask::only(child), context, |_| fop.clone()).await.into_iter().next() {
        Some((_, Ok(Reply::Xattrs { xattrs, .. }))) => Some(match xattrs.text(KEY) {
            Some(path) if !path.is_empty() => path.to_owned(),
            _ => unknown(),
        }),
        Some((_, Err(error))) if error.errno == ENOENT || error.errno == ESTALE => None,
        _ => Some(unknown()),
    }
}

/// `gluster volume heal V info`.
pub fn print(backlogs: &[BrickBacklog]) -> String {
    print_list(backlogs, "Number of entries:", |entry| {
        Some(match entry.status {
            EntryStatus::Pending => " ",
            EntryStatus::SplitBrain => " - Is in split-brain",
            EntryStatus::Healing => " - Possibly undergoing heal",
        })
    })
}

/// `gluster volume heal V info split-brain`.
pub fn print_split_brain(backlogs: &[BrickBacklog]) -> String {
    print_list(backlogs, "Number of entries in split-brain:", |entry| {
        (entry.status == EntryStatus::SplitBrain).then_some("")
    })
}

fn print_list(
    backlogs: &[BrickBacklog],
    count_words: &str,
    show: impl Fn(&BacklogEntry) -> Option<&'static str>,
) -> String {
    let mut text = String::new();
    for backlog in backlogs {
        let shown: Vec<_> = backlog.entries.iter().filter_map(|entry| Some((&entry.path, show(entry)?))).collect();
        let beyond = backlog.count - backlog.entries.len() as u64;
        let count = shown.len() as u64 + beyond;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "Brick {}", backlog.brick);
        for (path, suffix) in shown {
            let _ = writeln!(text, "{path}{suffix}");
        }
        let _ = match backlog.errno {
            None => writeln!(text, "Status: Connected\n{count_words} {count}\n"),
            Some(errno) if count == 0 => writeln!(text, "Status: {}\n{count_words} -\n", describe(errno)),
            Some(errno) => writeln!(
                text,
                "Status: Failed to process entries completely. ({})\n{count_words} {count}\n",
                describe(errno)
            ),
        };
    }
    text
}

/// `gluster volume heal V info summary`.
pub fn print_summary(backlogs: &[BrickBacklog]) -> String {
    let mut text = String::new();
    for backlog in backlogs {
        let of = |status: EntryStatus| backlog.entries.iter().filter(|entry| entry.status == status).count();
        let _ = writeln!(text, "Brick {}", backlog.brick);
        let _ = match backlog.errno {
            Some(errno) if backlog.count == 0 => writeln!(
                text,
                "Status: {}\nTotal Number of entries: -\nNumber of entries in heal pending: -\n\
                 Number of entries in split-brain: -\nNumber of entries possibly healing: -\n",
                describe(errno)
            ),
            Some(errno) => writeln!(
                text,
                "Status: Failed to process entries completely. ({})\nTotal Number of entries: {}\n",
                describe(errno),
                backlog.count
            ),
            None => writeln!(
                text,
                "Status: Connected\nTotal Number of entries: {}\nNumber of entries in heal pending: {}\n\
                 Number of entries in split-brain: {}\nNumber of entries possibly healing: {}\n",
                backlog.count,
                of(EntryStatus::Pending),
                of(EntryStatus::SplitBrain),
                of(EntryStatus::Healing)
            ),
        };
    }
    text
}

/// The C library's words for an errno.
pub(crate) fn describe(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(errno: Option<i32>, status: &[EntryStatus]) -> BrickBacklog {
        let entries: Vec<_> = status
            .iter()
            .enumerate()
            .map(|(n, status)| BacklogEntry { path: format!("/f{n}"), gfid: Gfid::NULL, status: *status })
            .collect();
        BrickBacklog { brick: "debian1:/b".to_owned(), errno, count: entries.len() as u64, entries }
    }

    #[test]
    fn it_reads_as_glfsheal_prints_it() {
        let some = backlog(None, &[EntryStatus::Pending, EntryStatus::SplitBrain]);
        assert_eq!(
            print(&[some.clone(), backlog(Some(ENOTCONN), &[])]),
            "Brick debian1:/b\n/f0 \n/f1 - Is in split-brain\nStatus: Connected\nNumber of entries: 2\n\n\
             Brick debian1:/b\nStatus: Transport endpoint is not connected\nNumber of entries: -\n\n"
        );
        assert_eq!(
            print_split_brain(&[some]),
            "Brick debian1:/b\n/f1\nStatus: Connected\nNumber of entries in split-brain: 1\n\n"
        );
    }
}
