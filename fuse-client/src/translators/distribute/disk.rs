//! How full the subvolumes are: new files go elsewhere than to a full one (`min-free-disk`), sizes weigh in layouts.

use std::time::Duration;

use ladrillo_translator::fop::Statfs;
use ladrillo_translator::option::PercentOrSize;
use ladrillo_translator::{Context, Dict, Fop, Gfid, Reply, Value};

use super::Distribute;
use super::layout::{Layout, State};

/// How long what was learnt holds. Source: GlusterFS refreshes at most once a second.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// What a statfs said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disk {
    available_percent: u64,
    available_bytes: u64,
    free_inodes_percent: u64,
    /// Size in MiB.
    chunks: u32,
}

impl Disk {
    fn of(statfs: &Statfs) -> Disk {
        let percent = |part: u64, whole: u64| part.saturating_mul(100).checked_div(whole);
        // Without a number of inodes they are made as needed.
        let free_inodes_percent = percent(statfs.files_free, statfs.files).unwrap_or(100);
        let mut disk = Disk { free_inodes_percent, ..Disk::default() };
        if let Some(available) = percent(statfs.blocks_available, statfs.blocks) {
            disk.available_percent = available;
            disk.available_bytes = statfs.blocks_available.saturating_mul(statfs.fragment_size_bytes);
            let blocks_per_chunk = ((1 << 20) / statfs.block_size_bytes.max(1)).max(1);
            disk.chunks = u32::try_from(statfs.blocks.div_ceil(blocks_per_chunk)).unwrap_or(u32::MAX);
        }
        disk
    }
}

/// What is known of the subvolumes' disks.
#[derive(Debug, Default)]
pub(super) struct Disks {
    disks: Vec<Option<Disk>>,
    refreshed: Option<Duration>,
}

impl Disks {
    pub fn new(count: usize) -> Disks {
        Disks { disks: vec![None; count], refreshed: None }
    }
}

impl Distribute {
    /// Learns how full they are, in the background, unless it is known well enough.
    pub(super) fn refresh_disks_soon(&self) {
        let now = self.runtime.now();
        {
            let mut disks = self.disks.lock();
            if disks.refreshed.is_some_and(|at| now.saturating_sub(at) < REFRESH_INTERVAL) {
                return;
            }
            disks.refreshed = Some(now);
        }
        for child in 0..self.children.len() {
            self.refresh_disk_soon(child);
        }
    }

    pub(super) fn refresh_disk_soon(&self, child: usize) {
        let Some(this) = self.this.upgrade() else { return };
        let guard = self.work.begin();
        self.runtime.spawn(Box::pin(async move {
            let _guard = guard;
            this.refresh_disk(child).await;
        }));
    }

    async fn refresh_disk(&self, child: usize) {
        let xdata = Dict::new().with("ignore-deem-statfs", Value::Int(1));
        let Some(target) = self.children.get(child) else { return };
        match target.submit(&Context::root(), Fop::Statfs { gfid: Gfid::ROOT, xdata }).await {
            Ok(Reply::Statfs { statfs, .. }) => self.disks.lock().disks[child] = Some(Disk::of(&statfs)),
            Ok(_) => {}
            Err(error) => tracing::debug!(child = target.name(), %error, "statfs"),
        }
    }

    /// Sizes of all in MiB, where all are known.
    pub(super) async fn weights(&self) -> Option<Vec<u32>> {
        if !self.settings().weighted {
            return None;
        }
        let unknown: Vec<usize> = {
            let disks = self.disks.lock();
            (0..self.children.len()).filter(|child| disks.disks[*child].is_none() && self.is_up(*child)).collect()
        };
        futures::future::join_all(unknown.into_iter().map(|child| self.refresh_disk(child))).await;
        let disks = self.disks.lock();
        Some(disks.disks.iter().map(|disk| disk.map_or(0, |disk| disk.chunks)).collect())
    }

    /// Whether a subvolume should get no new files.
    pub(super) fn is_full(&self, child: usize) -> bool {
        let disk = self.disks.lock().disks.get(child).copied().flatten();
        disk.is_some_and(|disk| !self.has_room(&disk))
    }

    fn has_room(&self, disk: &Disk) -> bool {
        let space = match self.settings().min_free_disk {
            PercentOrSize::Percent(least) => disk.available_percent as f64 >= least,
            PercentOrSize::Bytes(least) => disk.available_bytes >= least,
        };
        space && disk.free_inodes_percent as f64 >= self.settings().min_free_inodes
    }

    /// Where a new file goes whose own subvolume is full: to the one with most room, if any has enough or at least more
    /// inodes and space than none.
    pub(super) fn roomiest(&self, hashed: usize, layout: &Layout) -> usize {
        let disks = self.disks.lock();
        let candidates = || {
            layout
                .pieces
                .iter()
                .filter(|piece| matches!(piece.state, State::Sound))
                .map(|piece| piece.subvolume)
                .filter(|child| !self.settings().decommissioned.contains(child) && self.is_up(*child))
                .filter_map(|child| Some((child, disks.disks.get(child).copied().flatten()?)))
        };
        let space = |disk: &Disk| match self.settings().min_free_disk {
            PercentOrSize::Percent(_) => disk.available_percent,
            PercentOrSize::Bytes(_) => disk.available_bytes,
        };
        let most = |found: Option<(usize, Disk)>| found.map(|(child, _)| child);
        most(candidates().filter(|(_, disk)| self.has_room(disk)).max_by_key(|(_, disk)| space(disk)))
            .or_else(|| {
                most(
                    candidates()
                        .filter(|(_, disk)| disk.free_inodes_percent > 0 && space(disk) > 0)
                        .max_by_key(|(_, disk)| space(disk)),
                )
            })
            .unwrap_or(hashed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_in_whole_mebibytes() {
        let statfs = Statfs {
            block_size_bytes: 4096,
            fragment_size_bytes: 4096,
            blocks: 1025,
            blocks_available: 512,
            ..Statfs::default()
        };
        let disk = Disk::of(&statfs);
        assert_eq!((disk.chunks, disk.available_percent, disk.free_inodes_percent), (5, 49, 100));
        assert_eq!(disk.available_bytes, 2 << 20);
        assert_eq!(Disk::of(&Statfs::default()).chunks, 0);
    }
}
