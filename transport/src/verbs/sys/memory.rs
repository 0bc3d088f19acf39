//! Devices, protection domains, and memory registered in them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rdma_sys::{ibv_access_flags, ibv_context, ibv_mr, ibv_pd};

use super::super::shelves::Shelves;
use super::library::Libraries;
use super::{cm::CmId, named, result, set_nonblocking};

/// Page size assumed for alignment; a larger one only costs a little.
const PAGE_BYTES: usize = 4096;
/// Small buffers are cut from slabs of so many bytes.
const SLAB_BYTES: usize = 256 << 10;
/// Buffers from here on are a slab of their own.
const BIG_BYTES: usize = 64 << 10;
/// Sizes of big buffers are multiples of this, and [`HEADROOM_BYTES`].
const BIG_STEP_BYTES: usize = 128 << 10;
const HEADROOM_BYTES: usize = 8 << 10;
/// Slabs kept for later of which nothing is used, in bytes.
const IDLE_MAX_BYTES: usize = 64 << 20;

/// The vendor rxe gives itself (Linux, drivers/infiniband/sw/rxe/rxe_param.h).
const RXE_VENDOR_ID: u32 = 0x00ff_ffff;

/// What a device can do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_qp_wr: u32,
    pub max_cqe: u32,
    pub max_srq_wr: u32,
    /// RDMA reads of the other side that may be under way.
    pub responder_resources: u8,
    /// Ours.
    pub initiator_depth: u8,
    /// Type-2 memory windows, local invalidation, send with invalidate.
    pub windows: bool,
    /// It is rxe, the kernel's device in software.
    pub rxe: bool,
}

/// A device, open as long as the process lives (librdmacm keeps it).
pub struct Device {
    context: *mut ibv_context,
    library: &'static Libraries,
    pub name: String,
    pub limits: Limits,
}

// SAFETY: verbs may be called from any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

pub(super) fn device_name(library: &Libraries, context: *mut ibv_context) -> String {
    // SAFETY: the context is open, and the name is a string inside its device.
    unsafe {
        let name = (library.verbs.ibv_get_device_name)((*context).device);
        if name.is_null() { "?".to_owned() } else { std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

impl Device {
    /// The device an id is bound to.
    ///
    /// # Errors
    /// It is bound to none; the device does not answer.
    pub fn of(id: &CmId) -> io::Result<Arc<Device>> {
        let (context, library) = (id.context(), id.library());
        if context.is_null() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "no RDMA device for this address"));
        }
        // SAFETY: all-zero is a valid ibv_device_attr.
        let mut found: rdma_sys::ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open; `found` is written to.
        result("ibv_query_device", unsafe { (library.verbs.ibv_query_device)(context, &raw mut found) })?;
        let positive = |n: i32| u32::try_from(n).unwrap_or(0);
        let small = |n: i32| u8::try_from(n.clamp(0, 16)).unwrap_or(0);
        use rdma_sys::ibv_device_cap_flags as flags;
        let has = |flag: flags| found.device_cap_flags & flag.0 != 0;
        let limits = Limits {
            max_qp_wr: positive(found.max_qp_wr),
            max_cqe: positive(found.max_cqe),
            max_srq_wr: if found.max_srq > 0 { positive(found.max_srq_wr) } else { 0 },
            responder_resources: small(found.max_qp_rd_atom),
            initiator_depth: small(found.max_qp_init_rd_atom),
            windows: has(flags::IBV_DEVICE_MEM_MGT_EXTENSIONS)
                && (has(flags::IBV_DEVICE_MEM_WINDOW_TYPE_2A) || has(flags::IBV_DEVICE_MEM_WINDOW_TYPE_2B))
                && found.max_mw > 0,
            rxe: found.vendor_id == RXE_VENDOR_ID,
        };
        Ok(Arc::new(Device { context, library, name: device_name(library, context), limits }))
    }

    pub(super) fn context(&self) -> *mut ibv_context {
        self.context
    }

    pub(super) fn library(&self) -> &'static Libraries {
        self.library
    }

    /// Makes [`Device::next_event`] and waiting for it possible.
    ///
    /// # Errors
    /// The system's.
    pub fn watch_events(&self) -> io::Result<()> {
        // SAFETY: the context is open.
        set_nonblocking(unsafe { (*self.context).async_fd })
    }

    /// What the device says of itself and its queues, if there is something; without waiting after [`Device::watch_events`].
    pub fn next_event(&self) -> Option<DeviceEvent> {
        let mut event = MaybeUninit::<rdma_sys::ibv_async_event>::zeroed();
        // SAFETY: the context is open; the event is written to on success.
        if unsafe { (self.library.verbs.ibv_get_async_event)(self.context, event.as_mut_ptr()) } != 0 {
            return None;
        }
        // Read as a number: newer libraries have kinds that the enumeration lacks.
        // SAFETY: the field is a C enumeration, as wide as u32; the event is ours.
        let kind = unsafe { (&raw const (*event.as_ptr()).event_type).cast::<u32>().read() };
        // At once: queues cannot be destroyed before.
        // SAFETY: the event was got, and is acknowledged once.
        unsafe { (self.library.verbs.ibv_ack_async_event)(event.as_mut_ptr()) };
        Some(DeviceEvent::of(kind))
    }

    /// Whether `id` is bound to this device.
    pub fn is_of(&self, id: &CmId) -> bool {
        std::ptr::eq(self.context, id.context())
    }
}

impl AsFd for Device {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as the process lives, as the context is.
        unsafe { BorrowedFd::borrow_raw((*self.context).async_fd) }
    }
}

/// Something that has happened to a device or one of its queues.
pub struct DeviceEvent {
    pub name: String,
    pub is_error: bool,
}

impl DeviceEvent {
    /// Of a number of verbs.h (enum ibv_event_type).
    fn of(kind: u32) -> DeviceEvent {
        use rdma_sys::ibv_event_type as e;
        let known = [
            (e::IBV_EVENT_CQ_ERR, "a completion queue has overflown"),
            (e::IBV_EVENT_QP_FATAL, "a queue pair has failed"),
            (e::IBV_EVENT_SRQ_ERR, "a shared receive queue has failed"),
            (e::IBV_EVENT_DEVICE_FATAL, "the device has failed"),
            (e::IBV_EVENT_PORT_ERR, "the link is down"),
        ];
        match known.into_iter().find(|(known, _)| *known as u32 == kind) {
            Some((_, name)) => DeviceEvent { name: name.to_owned(), is_error: true },
            None => DeviceEvent { name: format!("event {kind}"), is_error: false },
        }
    }
}

/// A protection domain and the buffers registered in it.
pub struct Domain {
    pd: *mut ibv_pd,
    pub device: Arc<Device>,
    /// Windows will be bound to its memory.
    binds: bool,
    free: Mutex<Shelves<Piece>>,
    /// Bytes of all slabs.
    used_bytes: Arc<AtomicUsize>,
    next_slab: AtomicU64,
    limit_bytes: usize,
    reserve_bytes: usize,
}

// SAFETY: verbs may be called from any thread.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    /// A new one, of at most `limit_bytes` of buffers, the last `reserve_bytes` of them for [`Domain::reserved`]; `binds` where
    /// windows are to be bound to them.
    ///
    /// # Errors
    /// The device's.
    pub fn new(device: Arc<Device>, binds: bool, limit_bytes: usize, reserve_bytes: usize) -> io::Result<Arc<Domain>> {
        // SAFETY: the context is open.
        let pd = unsafe { (device.library.verbs.ibv_alloc_pd)(device.context) };
        if pd.is_null() {
            return Err(named("ibv_alloc_pd", &io::Error::last_os_error()));
        }
        Ok(Arc::new(Domain {
            pd,
            device,
            binds,
            free: Mutex::default(),
            used_bytes: Arc::default(),
            next_slab: AtomicU64::new(0),
            limit_bytes,
            reserve_bytes,
        }))
    }

    pub(super) fn raw(&self) -> *mut ibv_pd {
        self.pd
    }

    /// A buffer of at least `len` bytes, to be written here or by the device.
    ///
    /// # Errors
    /// `WouldBlock` when the domain has all it may have; `OutOfMemory` names the limit of the system.
    pub fn buffer(self: &Arc<Domain>, len: usize) -> io::Result<Buffer> {
        self.buffer_within(len, self.limit_bytes.saturating_sub(self.reserve_bytes))
    }

    /// [`Domain::buffer`] for what must not wait for those who hold the others: messages, answers, receives.
    ///
    /// # Errors
    /// As there.
    pub fn reserved(self: &Arc<Domain>, len: usize) -> io::Result<Buffer> {
        self.buffer_within(len, self.limit_bytes)
    }

    /// Whether more than half of what there may be is in use: nobody is to take much.
    pub fn is_tight(&self) -> bool {
        let idle = self.free.lock().whole_bytes();
        self.used_bytes.load(Ordering::Relaxed).saturating_sub(idle) > self.limit_bytes / 2
    }

    fn buffer_within(self: &Arc<Domain>, len: usize, limit: usize) -> io::Result<Buffer> {
        let class = class_of(len);
        let buffer = |piece, len| Buffer { piece: Some(piece), len, domain: self.clone() };
        let free = self.free.lock().take(class);
        if let Some(piece) = free {
            return Ok(buffer(piece, class));
        }
        let slab_bytes = if class >= BIG_BYTES { class } else { SLAB_BYTES };
        if !self.make_room(slab_bytes, limit) {
            // A piece of a slab that others use as well is better than none.
            let bigger = self.free.lock().take_bigger(class);
            let Some((piece, len)) = bigger else {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "all buffers are in use"));
            };
            return Ok(buffer(piece, len));
        }
        let number = self.next_slab.fetch_add(1, Ordering::Relaxed);
        let slab = Arc::new(Slab::new(self, number, slab_bytes)?);
        let per_slab = slab_bytes / class;
        let mut free = self.free.lock();
        for n in 1..per_slab {
            free.put(class, number, per_slab, Piece { slab: slab.clone(), start: n * class });
        }
        drop(free);
        Ok(buffer(Piece { slab, start: 0 }, class))
    }

    /// Whether a slab of so many bytes may be made, after giving back what nobody uses.
    fn make_room(&self, slab_bytes: usize, limit: usize) -> bool {
        loop {
            if self.used_bytes.load(Ordering::Relaxed).saturating_add(slab_bytes) <= limit {
                return true;
            }
            // Undone when the lock is free again.
            let unused = self.free.lock().take_whole();
            if unused.is_none() {
                return false;
            }
        }
    }

    /// Registers the memory of `bytes` for sending it, or for windows that read it.
    ///
    /// # Errors
    /// The system's: read-only memory, the limit on locked memory.
    pub fn source(self: &Arc<Domain>, bytes: Bytes) -> io::Result<Source> {
        let access = if self.binds { ibv_access_flags::IBV_ACCESS_MW_BIND.0 } else { 0 };
        // SAFETY: `bytes`, which stays where it is, is kept longer than the registration (field order).
        let registered = unsafe { Registered::new(self, bytes.as_ptr().cast_mut(), bytes.len(), access) }?;
        Ok(Source { registered, bytes })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        *self.free.lock() = Shelves::default();
        // SAFETY: everything registered or made in it holds the domain: nothing is left.
        unsafe { (self.device.library.verbs.ibv_dealloc_pd)(self.pd) };
    }
}

/// The size of buffer that is used for `len` bytes.
fn class_of(len: usize) -> usize {
    if len <= BIG_BYTES / 2 {
        len.next_power_of_two().max(PAGE_BYTES)
    } else {
        len.saturating_sub(HEADROOM_BYTES).next_multiple_of(BIG_STEP_BYTES).max(BIG_STEP_BYTES) + HEADROOM_BYTES
    }
}

/// A registration, undone when dropped.
///
/// Its domain must outlive it: whoever keeps one keeps the domain.
pub struct Registered {
    raw: *mut ibv_mr,
    library: &'static Libraries,
}

// SAFETY: verbs may be called from any thread.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl Registered {
    /// # Safety
    /// The memory stays valid until the registration is dropped, and the domain until after that. Where `access` lets a
    /// device write, nobody reads it meanwhile.
    pub(super) unsafe fn new(domain: &Domain, start: *mut u8, len: usize, access: u32) -> io::Result<Registered> {
        let library = domain.device.library;
        // SAFETY: the domain lives; the rest is the caller's promise.
        let raw = unsafe { (library.verbs.ibv_reg_mr)(domain.pd, start.cast(), len, access as i32) };
        if raw.is_null() {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ENOMEM | libc::EAGAIN | libc::EPERM) => io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    format!("registering {len} bytes for RDMA: {error}: raise the limit on locked memory (ulimit -l)"),
                ),
                _ => named("ibv_reg_mr", &error),
            });
        }
        Ok(Registered { raw, library })
    }

    pub(super) fn raw(&self) -> *mut ibv_mr {
        self.raw
    }

    pub(super) fn lkey(&self) -> u32 {
        // SAFETY: the registration lives.
        unsafe { (*self.raw).lkey }
    }

    pub(super) fn rkey(&self) -> u32 {
        // SAFETY: the registration lives.
        unsafe { (*self.raw).rkey }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: undone once; windows on it are unbound before (`Endpoint`).
        unsafe { (self.library.verbs.ibv_dereg_mr)(self.raw) };
    }
}

/// Zeroed, page-aligned memory.
struct Memory {
    start: NonNull<u8>,
    layout: std::alloc::Layout,
}

// SAFETY: plain memory, owned.
unsafe impl Send for Memory {}
// SAFETY: a shared reference gives no access to it.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(len: usize) -> io::Result<Memory> {
        let layout = std::alloc::Layout::from_size_align(len.max(1), PAGE_BYTES)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the layout has a size.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Memory { start, layout })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Registered memory that buffers are cut from. Fields are dropped in this order.
struct Slab {
    registered: Registered,
    memory: Memory,
    number: u64,
    len: usize,
    /// Of the domain, where it is counted as long as it is there.
    used_bytes: Arc<AtomicUsize>,
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.used_bytes.fetch_sub(self.len, Ordering::Relaxed);
    }
}

impl Slab {
    fn new(domain: &Domain, number: u64, len: usize) -> io::Result<Slab> {
        let memory = Memory::new(len)?;
        let mut access = ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0;
        if domain.binds {
            access |= ibv_access_flags::IBV_ACCESS_MW_BIND.0;
        }
        // SAFETY: the slab owns the memory and drops it after the registration. Buffers hold their domain.
        let registered = unsafe { Registered::new(domain, memory.start.as_ptr(), len, access) }?;
        domain.used_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(Slab { registered, memory, number, len, used_bytes: domain.used_bytes.clone() })
    }
}

struct Piece {
    slab: Arc<Slab>,
    start: usize,
}

/// Registered memory with one owner. While a device may touch it, the owner is the queue it was given to.
pub struct Buffer {
    /// Absent only while dropped.
    piece: Option<Piece>,
    len: usize,
    domain: Arc<Domain>,
}

impl Buffer {
    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    pub(super) fn start(&self) -> *mut u8 {
        match &self.piece {
            // SAFETY: pieces lie inside their slab.
            Some(piece) => unsafe { piece.slab.memory.start.as_ptr().add(piece.start) },
            None => NonNull::dangling().as_ptr(),
        }
    }

    pub(super) fn registered(&self) -> Option<&Registered> {
        self.piece.as_ref().map(|piece| &piece.slab.registered)
    }

    /// To write to.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = if self.piece.is_some() { self.len } else { 0 };
        // SAFETY: inside the slab, initialised, and ours alone: no device touches a buffer that is not in a queue.
        unsafe { std::slice::from_raw_parts_mut(self.start(), len) }
    }

    /// A part of it as [`Bytes`]; the buffer goes back to its domain with the last of them.
    pub fn into_bytes(self, start: usize, end: usize) -> Bytes {
        let end = end.min(self.len);
        Bytes::from_owner(self).slice(start.min(end)..end)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        let len = if self.piece.is_some() { self.len } else { 0 };
        // SAFETY: as in `as_mut_slice`.
        unsafe { std::slice::from_raw_parts(self.start(), len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(piece) = self.piece.take() else { return };
        let (number, per_slab) = (piece.slab.number, piece.slab.len / self.len.max(1));
        let mut free = self.domain.free.lock();
        free.put(self.len, number, per_slab, piece);
        let unused = if free.whole_bytes() > IDLE_MAX_BYTES { free.take_whole() } else { None };
        drop(free);
        // The kernel is asked without the lock.
        drop(unused);
    }
}

/// Somebody else's memory, registered as long as it is needed. Fields are dropped in this order.
pub struct Source {
    registered: Registered,
    bytes: Bytes,
}

impl Source {
    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn start(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub(super) fn registered(&self) -> &Registered {
        &self.registered
    }
}
