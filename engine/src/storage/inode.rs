//! Inodes in use: one object per gfid, holding an O_PATH descriptor, its times, and the lock that makes xattrop and
//! times atomic. The table is bounded; an inode somebody holds is never replaced by a second object.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use ladrillo_translator::iatt::Mdata;
use ladrillo_translator::{FileType, FopResult, Gfid, Iatt, Timespec};
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{Stat, XattrFlags};

use super::sys::{self, Explain};

/// The xattr that holds times equal on all copies.
pub const MDATA_KEY: &str = "trusted.glusterfs.mdata";
/// The xattr that holds the gfid.
pub const GFID_KEY: &str = "trusted.gfid";

/// An inode in use.
pub struct Inode {
    /// Identity.
    pub gfid: Gfid,
    /// O_PATH descriptor of the inode itself.
    pub path: OwnedFd,
    /// Kind, which never changes.
    pub kind: FileType,
    state: Mutex<InodeState>,
    /// Descriptors clients hold on it.
    pub opens: AtomicU32,
    /// Its last name is gone; it lives in `.glusterfs/unlink` until the last descriptor is closed.
    pub unlinked: AtomicBool,
    /// Its handle was looked at and is right.
    pub handle_seen: AtomicBool,
    /// Where [`InodeTable::by_number`] finds it.
    number: OnceLock<Number>,
    recently_used: AtomicBool,
}

/// What the inode's lock guards.
#[derive(Default)]
pub struct InodeState {
    mdata: Times,
    /// The times known are newer than those on the disk.
    unsaved: bool,
}

#[derive(Clone, Copy, Default)]
enum Times {
    #[default]
    NotRead,
    /// There is no mdata xattr: the backing file system's times count.
    Absent,
    Known(Mdata),
}

/// Which times an operation changes.
#[derive(Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Touch {
    pub atime: bool,
    pub mtime: bool,
    pub ctime: bool,
}

impl Touch {
    /// A new inode: all three.
    pub const ALL: Touch = Touch { atime: true, mtime: true, ctime: true };
    /// Contents changed, or a directory's entries.
    pub const CONTENT: Touch = Touch { atime: false, mtime: true, ctime: true };
    /// Attributes changed.
    pub const CHANGE: Touch = Touch { atime: false, mtime: false, ctime: true };
    /// It was read.
    pub const ACCESS: Touch = Touch { atime: true, mtime: false, ctime: false };
}

impl Inode {
    fn new(gfid: Gfid, path: OwnedFd, kind: FileType) -> Inode {
        Inode {
            gfid,
            path,
            kind,
            state: Mutex::default(),
            opens: AtomicU32::new(0),
            unlinked: AtomicBool::new(false),
            handle_seen: AtomicBool::new(false),
            number: OnceLock::new(),
            recently_used: AtomicBool::new(true),
        }
    }

    /// Takes the inode's lock: for a few system calls at most, never across an await.
    pub fn lock(&self) -> MutexGuard<'_, InodeState> {
        self.state.lock()
    }

    /// Whether clients hold it open.
    pub fn is_open(&self) -> bool {
        self.opens.load(Ordering::SeqCst) > 0
    }

    /// Attributes as clients see them: the handle is not counted as a link, times come from mdata where there is one.
    pub fn iatt(&self) -> FopResult<Iatt> {
        let stat = sys::fstat(&self.path).explain(|| format!("stat of {}", self.gfid))?;
        self.iatt_of(&stat)
    }

    /// The same from a stat taken before.
    pub fn iatt_of(&self, stat: &Stat) -> FopResult<Iatt> {
        let mut iatt = iatt_from_stat(self.gfid, stat);
        if let Some(mdata) = self.times(&mut self.lock())? {
            apply_times(&mut iatt, &mdata);
        }
        Ok(iatt)
    }

    /// The times in mdata, read once.
    pub fn times(&self, state: &mut InodeState) -> FopResult<Option<Mdata>> {
        if let Times::NotRead = state.mdata {
            state.mdata = match read_mdata(&self.path).explain(|| format!("{MDATA_KEY} of {}", self.gfid))? {
                Some(mdata) => Times::Known(mdata),
                None => Times::Absent,
            };
        }
        Ok(match state.mdata {
            Times::Known(mdata) => Some(mdata),
            _ => None,
        })
    }

    /// Moves times forward to `birth`, never back. Without a birth (a client that sends none) nothing is recorded.
    pub fn touch(&self, birth: Timespec, touch: Touch) -> FopResult<()> {
        self.move_times(birth, touch, false).map(drop)
    }

    /// The same, but where there are times already the disk gets them later ([`Inode::save_times`]). Answers whether they
    /// wait since now.
    pub fn touch_lazily(&self, birth: Timespec, touch: Touch) -> FopResult<bool> {
        self.move_times(birth, touch, true)
    }

    fn move_times(&self, birth: Timespec, touch: Touch, lazily: bool) -> FopResult<bool> {
        if birth.seconds == 0 {
            return Ok(false);
        }
        let mut state = self.lock();
        let before = self.times(&mut state)?;
        let mut mdata = before.unwrap_or(Mdata { atime: birth, mtime: birth, ctime: birth });
        for (change, time) in
            [(touch.atime, &mut mdata.atime), (touch.mtime, &mut mdata.mtime), (touch.ctime, &mut mdata.ctime)]
        {
            if change && *time < birth {
                *time = birth;
            }
        }
        if before == Some(mdata) {
            return Ok(false);
        }
        if lazily && before.is_some() {
            state.mdata = Times::Known(mdata);
            return Ok(!std::mem::replace(&mut state.unsaved, true));
        }
        self.store(&mut state, mdata).map(|()| false)
    }

    /// Stores times that wait for it.
    pub fn save_times(&self) -> FopResult<()> {
        self.save_times_in(&mut self.lock())
    }

    /// The same for who holds the inode's lock.
    pub fn save_times_in(&self, state: &mut InodeState) -> FopResult<()> {
        match state.mdata {
            Times::Known(mdata) if state.unsaved => self.store(state, mdata),
            _ => Ok(()),
        }
    }

    /// utimes(2) and friends: sets what is given, back in time too; ctime moves to `birth`. Only where there is mdata
    /// already: a file from before ctime was on must get it on all copies at once, through lookup.
    pub fn set_times(&self, birth: Timespec, atime: Option<Timespec>, mtime: Option<Timespec>) -> FopResult<()> {
        let mut state = self.lock();
        let Some(mut mdata) = self.times(&mut state)? else { return Ok(()) };
        mdata.atime = atime.unwrap_or(mdata.atime);
        mdata.mtime = mtime.unwrap_or(mdata.mtime);
        mdata.ctime = mdata.ctime.max(birth);
        self.store(&mut state, mdata)
    }

    /// Takes times from elsewhere (heal, rebalance, the client's own repair): the larger of each wins.
    pub fn merge_times(&self, other: Mdata) -> FopResult<()> {
        let mut state = self.lock();
        let mdata = match self.times(&mut state)? {
            None => other,
            Some(ours) => Mdata {
                atime: ours.atime.max(other.atime),
                mtime: ours.mtime.max(other.mtime),
                ctime: ours.ctime.max(other.ctime),
            },
        };
        self.store(&mut state, mdata)
    }

    fn store(&self, state: &mut InodeState, mdata: Mdata) -> FopResult<()> {
        sys::set_xattr(&self.path, MDATA_KEY.as_bytes(), &encode_mdata(&mdata), XattrFlags::empty())
            .explain(|| format!("setting {MDATA_KEY} of {}", self.gfid))?;
        *state = InodeState { mdata: Times::Known(mdata), unsaved: false };
        Ok(())
    }

    /// Forgets the times read: the xattr was removed or rewritten by other means.
    pub fn forget_times(&self) {
        *self.lock() = InodeState::default();
    }
}

/// Whoever forgets an inode stores its times.
impl Drop for Inode {
    fn drop(&mut self) {
        if let Err(error) = self.save_times() {
            tracing::warn!(gfid = %self.gfid, %error, "the last times of an inode are lost");
        }
    }
}

/// Attributes out of a stat, times being the backing file system's.
pub fn iatt_from_stat(gfid: Gfid, stat: &Stat) -> Iatt {
    let mode = stat.st_mode;
    let kind = FileType::from_mode(mode);
    let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
    // Space preallocated beyond the end (XFS), and blocks of xattrs, are no part of it.
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0).min(size_bytes.div_ceil(512));
    let time = |seconds: i64, nanos: u64| Timespec { seconds, nanos: u32::try_from(nanos).unwrap_or(0) };
    Iatt {
        flags: Iatt::VALID_BASIC & !0x800,
        gfid,
        ino: gfid.ino(),
        dev: stat.st_dev,
        rdev: stat.st_rdev,
        size_bytes,
        blocks,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        nlink: match kind {
            Some(FileType::Directory) => u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            _ => u32::try_from(stat.st_nlink.saturating_sub(1)).unwrap_or(u32::MAX),
        },
        uid: stat.st_uid,
        gid: stat.st_gid,
        block_size_bytes: u32::try_from(stat.st_blksize).unwrap_or(4096),
        mode,
        ..Iatt::default()
    }
}

/// Replaces the times of `iatt`.
pub fn apply_times(iatt: &mut Iatt, mdata: &Mdata) {
    (iatt.atime, iatt.mtime, iatt.ctime) = (mdata.atime, mdata.mtime, mdata.ctime);
}

/// Reads mdata from disk; `None` where there is none or what is there is not version 1.
pub fn read_mdata(fd: &OwnedFd) -> Result<Option<Mdata>, rustix::io::Errno> {
    Ok(sys::get_xattr_array::<MDATA_BYTES>(fd, MDATA_KEY.as_bytes())?.and_then(|raw| decode_mdata(&raw)))
}

/// Length of mdata on disk: version (1), flags (8), then ctime, mtime, atime as seconds (8) and nanoseconds (8).
pub const MDATA_BYTES: usize = 57;

/// The on-disk form: big-endian, packed; source posix-metadata-disk.h of 10.3.
pub fn encode_mdata(mdata: &Mdata) -> [u8; MDATA_BYTES] {
    let mut raw = [0; MDATA_BYTES];
    raw[0] = 1;
    for (i, time) in [mdata.ctime, mdata.mtime, mdata.atime].into_iter().enumerate() {
        let at = 9 + i * 16;
        raw[at..at + 8].copy_from_slice(&time.seconds.to_be_bytes());
        raw[at + 8..at + 16].copy_from_slice(&u64::from(time.nanos).to_be_bytes());
    }
    raw
}

/// The inverse of [`encode_mdata`]; `None` for another length or nanoseconds that are none.
pub fn decode_mdata(raw: &[u8]) -> Option<Mdata> {
    if raw.len() != MDATA_BYTES {
        return None;
    }
    let time = |i: usize| {
        let at = 9 + i * 16;
        let seconds = i64::from_be_bytes(raw.get(at..at + 8)?.try_into().ok()?);
        let nanos = u64::from_be_bytes(raw.get(at + 8..at + 16)?.try_into().ok()?);
        Some(Timespec { seconds, nanos: u32::try_from(nanos).ok().filter(|n| *n < 1_000_000_000)? })
    };
    Some(Mdata { ctime: time(0)?, mtime: time(1)?, atime: time(2)? })
}

const SHARDS: usize = 64;

/// What the backing file system calls an inode: device and inode number.
type Number = (u64, u64);

/// All inodes in use, and as many of those used lately as fit.
pub struct InodeTable {
    shards: Vec<Mutex<Shard>>,
    /// The same by number: a name leads to its inode by one stat. The descriptor an [`Inode`] holds keeps its number from
    /// being given to another.
    numbers: Vec<Mutex<HashMap<Number, Weak<Inode>>>>,
    capacity_per_shard: usize,
}

#[derive(Default)]
struct Shard {
    inodes: HashMap<Gfid, Arc<Inode>>,
    order: VecDeque<Gfid>,
}

impl InodeTable {
    /// Keeps about `capacity` inodes beyond those in use.
    pub fn new(capacity: usize) -> InodeTable {
        InodeTable {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            numbers: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity_per_shard: capacity.div_ceil(SHARDS).max(4),
        }
    }

    fn shard(&self, gfid: Gfid) -> &Mutex<Shard> {
        &self.shards[usize::from(gfid.0[15]) % SHARDS]
    }

    /// The inode, if it is known and still has a name.
    pub fn get(&self, gfid: Gfid) -> Option<Arc<Inode>> {
        let shard = self.shard(gfid).lock();
        let inode = shard.inodes.get(&gfid).filter(|i| !i.unlinked.load(Ordering::Acquire))?;
        inode.recently_used.store(true, Ordering::Relaxed);
        Some(inode.clone())
    }

    /// The inode, even when its last name is gone and only open files hold it.
    pub fn get_any(&self, gfid: Gfid) -> Option<Arc<Inode>> {
        self.shard(gfid).lock().inodes.get(&gfid).cloned()
    }

    /// The one object for `gfid`: what was there already, or one made of `path`.
    pub fn insert(&self, gfid: Gfid, path: OwnedFd, kind: FileType) -> Arc<Inode> {
        let mut shard = self.shard(gfid).lock();
        if let Some(known) = shard.inodes.get(&gfid)
            && !known.unlinked.load(Ordering::Acquire)
        {
            return known.clone();
        }
        let inode = Arc::new(Inode::new(gfid, path, kind));
        if shard.inodes.insert(gfid, inode.clone()).is_none() {
            shard.order.push_back(gfid);
        }
        let evicted = shard.evict(self.capacity_per_shard);
        drop(shard);
        evicted.iter().for_each(|inode| self.forget_number(inode));
        inode
    }

    /// The inode with the number of `stat`, if it is known by that number ([`InodeTable::note_number`]) and still has a name.
    pub fn by_number(&self, stat: &Stat) -> Option<Arc<Inode>> {
        let inode = self.numbers(stat.st_ino).lock().get(&(stat.st_dev, stat.st_ino))?.upgrade()?;
        self.get(inode.gfid).filter(|known| Arc::ptr_eq(known, &inode))
    }

    /// Makes `inode`, whose stat this is, known by its number.
    pub fn note_number(&self, inode: &Arc<Inode>, stat: &Stat) {
        let number = (stat.st_dev, stat.st_ino);
        if inode.number.set(number).is_ok() {
            self.numbers(stat.st_ino).lock().insert(number, Arc::downgrade(inode));
        }
    }

    fn numbers(&self, ino: u64) -> &Mutex<HashMap<Number, Weak<Inode>>> {
        &self.numbers[ino as usize % SHARDS]
    }

    fn forget_number(&self, inode: &Arc<Inode>) {
        let Some(number) = inode.number.get() else { return };
        let mut numbers = self.numbers(number.1).lock();
        if numbers.get(number).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(inode))) {
            numbers.remove(number);
        }
    }

    /// Forgets `inode`: it has no name any more.
    pub fn remove(&self, inode: &Arc<Inode>) {
        let mut shard = self.shard(inode.gfid).lock();
        if shard.inodes.get(&inode.gfid).is_some_and(|known| Arc::ptr_eq(known, inode)) {
            shard.inodes.remove(&inode.gfid);
            // Its place in `order` goes when eviction comes by.
        }
        drop(shard);
        self.forget_number(inode);
    }

    /// Forgets all directories: a tree was moved out of the volume as a whole, and what was below it is not there any more.
    pub fn forget_directories(&self) {
        for shard in &self.shards {
            shard.lock().inodes.retain(|_, inode| inode.kind != FileType::Directory);
        }
        for numbers in &self.numbers {
            numbers.lock().retain(|_, inode| inode.upgrade().is_some_and(|inode| inode.kind != FileType::Directory));
        }
    }

    /// How many are kept beyond those in use.
    pub fn capacity(&self) -> usize {
        self.capacity_per_shard * SHARDS
    }

    /// How many of them clients hold open.
    pub fn active(&self) -> usize {
        let open = |inode: &&Arc<Inode>| inode.opens.load(Ordering::Relaxed) > 0;
        self.shards.iter().map(|shard| shard.lock().inodes.values().filter(open).count()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().inodes.len()).sum()
    }
}

impl Shard {
    /// Second chance: those used since the last round, and those somebody holds, go to the back. Returns those that went.
    fn evict(&mut self, capacity: usize) -> Vec<Arc<Inode>> {
        let mut evicted = Vec::new();
        let mut looks = 2 * self.order.len();
        while self.order.len() > capacity && looks > 0 {
            looks -= 1;
            let Some(gfid) = self.order.pop_front() else { break };
            match self.inodes.get(&gfid) {
                None => {}
                Some(inode) if Arc::strong_count(inode) > 1 || inode.recently_used.swap(false, Ordering::Relaxed) => {
                    self.order.push_back(gfid);
                }
                Some(_) => evicted.extend(self.inodes.remove(&gfid)),
            }
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mdata_on_disk_is_the_format_of_glusterfs() {
        let mdata = Mdata {
            atime: Timespec { seconds: 3, nanos: 33 },
            mtime: Timespec { seconds: 2, nanos: 22 },
            ctime: Timespec { seconds: 1, nanos: 11 },
        };
        let raw = encode_mdata(&mdata);
        assert_eq!(&raw[..9], &[1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&raw[9..25], &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 11]);
        assert_eq!(decode_mdata(&raw), Some(mdata));
        assert_eq!(decode_mdata(&raw[1..]), None);
        let mut bad = raw;
        bad[17] = 0xff;
        assert_eq!(decode_mdata(&bad), None);
    }

    #[test]
    fn an_inode_is_known_by_its_number_as_long_as_it_is_in_the_table() {
        let table = InodeTable::new(SHARDS * 4);
        let path = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let stat = rustix::fs::fstat(&path).unwrap();
        assert!(table.by_number(&stat).is_none());
        let inode = table.insert(Gfid::ROOT, path, FileType::Directory);
        table.note_number(&inode, &stat);
        assert!(Arc::ptr_eq(&inode, &table.by_number(&stat).unwrap()));
        table.remove(&inode);
        assert!(table.by_number(&stat).is_none());
        assert!(table.numbers.iter().all(|numbers| numbers.lock().is_empty()));
    }

    #[test]
    fn the_table_is_bounded_but_keeps_what_is_held() {
        let table = InodeTable::new(SHARDS * 4);
        let open = || rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let held = table.insert(Gfid::ROOT, open(), FileType::Directory);
        for _ in 0..2000 {
            table.insert(Gfid::random(), open(), FileType::Directory);
        }
        assert!(table.len() <= SHARDS * 6, "{} inodes", table.len());
        assert!(Arc::ptr_eq(&held, &table.get(Gfid::ROOT).unwrap()));
    }
}
