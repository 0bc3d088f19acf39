//! Devices, protection domains, and memory registered in them.

use std::collections::BTreeMap;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rdma_sys::{ibv_access_flags, ibv_context, ibv_mr, ibv_pd};

use super::library::Libraries;
use super::{cm::CmId, named, result};

/// Page size assumed for alignment; a larger one only costs a little.
const PAGE_BYTES: usize = 4096;
/// Small buffers are cut from slabs of so many bytes.
const SLAB_BYTES: usize = 256 << 10;
/// Buffers from here on are a slab of their own.
const BIG_BYTES: usize = 64 << 10;
/// Sizes of big buffers are multiples of this, and [`HEADROOM_BYTES`].
const BIG_STEP_BYTES: usize = 128 << 10;
const HEADROOM_BYTES: usize = 8 << 10;
/// Big buffers kept for later, in bytes.
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

    /// Whether `id` is bound to this device.
    pub fn is_of(&self, id: &CmId) -> bool {
        std::ptr::eq(self.context, id.context())
    }
}

/// A protection domain and the buffers registered in it.
pub struct Domain {
    pd: *mut ibv_pd,
    pub device: Arc<Device>,
    /// Windows will be bound to its memory.
    binds: bool,
    free: Mutex<BTreeMap<usize, Vec<Piece>>>,
    idle_bytes: AtomicUsize,
    used_bytes: AtomicUsize,
    limit_bytes: usize,
}

// SAFETY: verbs may be called from any thread.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    /// A new one, of at most `limit_bytes` of buffers; `binds` where windows are to be bound to them.
    ///
    /// # Errors
    /// The device's.
    pub fn new(device: Arc<Device>, binds: bool, limit_bytes: usize) -> io::Result<Arc<Domain>> {
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
            idle_bytes: AtomicUsize::new(0),
            used_bytes: AtomicUsize::new(0),
            limit_bytes,
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
        let class = class_of(len);
        let piece = self.free.lock().get_mut(&class).and_then(Vec::pop);
        if let Some(piece) = piece {
            if class >= BIG_BYTES {
                self.idle_bytes.fetch_sub(class, Ordering::Relaxed);
            }
            return Ok(Buffer { piece: Some(piece), len: class, domain: self.clone() });
        }
        let slab_bytes = if class >= BIG_BYTES { class } else { SLAB_BYTES };
        if self.used_bytes.load(Ordering::Relaxed).saturating_add(slab_bytes) > self.limit_bytes {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "all buffers are in use"));
        }
        let slab = Arc::new(Slab::new(self, slab_bytes)?);
        let mut pieces = (0..slab_bytes / class).map(|n| Piece { slab: slab.clone(), start: n * class });
        let first = pieces.next();
        self.free.lock().entry(class).or_default().extend(pieces);
        Ok(Buffer { piece: first, len: class, domain: self.clone() })
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
        self.free.lock().clear();
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
}

impl Slab {
    fn new(domain: &Domain, len: usize) -> io::Result<Slab> {
        let memory = Memory::new(len)?;
        let mut access = ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0;
        if domain.binds {
            access |= ibv_access_flags::IBV_ACCESS_MW_BIND.0;
        }
        // SAFETY: the slab owns the memory and drops it after the registration. Buffers hold their domain.
        let registered = unsafe { Registered::new(domain, memory.start.as_ptr(), len, access) }?;
        domain.used_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(Slab { registered, memory })
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
        if self.len >= BIG_BYTES {
            if self.domain.idle_bytes.load(Ordering::Relaxed).saturating_add(self.len) > IDLE_MAX_BYTES {
                self.domain.used_bytes.fetch_sub(self.len, Ordering::Relaxed);
                return;
            }
            self.domain.idle_bytes.fetch_add(self.len, Ordering::Relaxed);
        }
        self.domain.free.lock().entry(self.len).or_default().push(piece);
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
