//! Queue pairs, completion queues, shared receive queues, and windows on memory.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rdma_sys::{
    ibv_access_flags, ibv_comp_channel, ibv_cq, ibv_mw, ibv_mw_bind_info, ibv_mw_type, ibv_qp, ibv_qp_type,
    ibv_recv_wr, ibv_send_flags, ibv_send_wr, ibv_sge, ibv_srq, ibv_wc, ibv_wc_opcode, ibv_wc_status, ibv_wr_opcode,
};

use super::memory::{Buffer, Device, Domain, Limits, Registered, Source};
use super::{cm::CmId, named, result, set_nonblocking};

/// Completions taken at once.
const POLL_BATCH: usize = 16;
/// Marks the work requests of receive queues.
const RECEIVE: u64 = 1 << 63;
/// Parts of one message.
const MAX_PARTS: usize = 3;
/// Windows (or exposed registrations) of one endpoint. Source: our bound, several for each call that may be under way.
const MAX_WINDOWS: usize = 1024;

/// Where completion queues of a device report that they are no longer empty.
pub struct CompletionChannel {
    raw: *mut ibv_comp_channel,
    device: Arc<Device>,
}

// SAFETY: verbs may be called from any thread.
unsafe impl Send for CompletionChannel {}
// SAFETY: as above.
unsafe impl Sync for CompletionChannel {}

impl CompletionChannel {
    /// # Errors
    /// Out of descriptors.
    pub fn new(device: Arc<Device>) -> io::Result<Arc<CompletionChannel>> {
        // SAFETY: the context is open.
        let raw = unsafe { (device.library().verbs.ibv_create_comp_channel)(device.context()) };
        if raw.is_null() {
            return Err(named("ibv_create_comp_channel", &io::Error::last_os_error()));
        }
        let channel = Arc::new(CompletionChannel { raw, device });
        set_nonblocking(channel.fd())?;
        Ok(channel)
    }

    /// Readable when there are events.
    fn fd(&self) -> RawFd {
        // SAFETY: the channel lives.
        unsafe { (*self.raw).fd }
    }

    /// The token of an endpoint that has completions, if there is one.
    pub fn next(&self) -> Option<u64> {
        let (mut cq, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
        let library = self.device.library();
        // SAFETY: the channel lives, both are written to on success.
        if unsafe { (library.verbs.ibv_get_cq_event)(self.raw, &raw mut cq, &raw mut context) } != 0 {
            return None;
        }
        // SAFETY: the queue cannot be destroyed before its event is acknowledged: here, once.
        unsafe { (library.verbs.ibv_ack_cq_events)(cq, 1) };
        Some(context as u64)
    }
}

impl AsFd for CompletionChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as the channel lives.
        unsafe { BorrowedFd::borrow_raw(self.fd()) }
    }
}

impl Drop for CompletionChannel {
    fn drop(&mut self) {
        // SAFETY: its completion queues hold it: none is left.
        unsafe { (self.device.library().verbs.ibv_destroy_comp_channel)(self.raw) };
    }
}

/// A shared receive queue: buffers posted for whoever of its endpoints is sent to.
pub struct ReceiveQueue {
    raw: *mut ibv_srq,
    domain: Arc<Domain>,
    state: Mutex<Posted>,
    buffer_bytes: usize,
}

struct Posted {
    slots: Vec<Option<Buffer>>,
    free: Vec<usize>,
    count: usize,
    target: usize,
    most: usize,
}

// SAFETY: verbs may be called from any thread.
unsafe impl Send for ReceiveQueue {}
// SAFETY: as above.
unsafe impl Sync for ReceiveQueue {}

impl ReceiveQueue {
    /// A queue that begins with `count` buffers of `buffer_bytes` and grows to `most` when they run short.
    ///
    /// # Errors
    /// The device has none, or no memory.
    pub fn new(domain: &Arc<Domain>, count: usize, most: usize, buffer_bytes: usize) -> io::Result<Arc<ReceiveQueue>> {
        let limits = domain.device.limits;
        if limits.max_srq_wr == 0 {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{} has no shared receive queues", domain.device.name),
            ));
        }
        let most = most.min(limits.max_srq_wr as usize).max(1);
        // SAFETY: all-zero is a valid ibv_srq_init_attr.
        let mut wanted: rdma_sys::ibv_srq_init_attr = unsafe { std::mem::zeroed() };
        wanted.attr.max_wr = u32::try_from(most).unwrap_or(u32::MAX);
        wanted.attr.max_sge = 1;
        // SAFETY: the domain lives; the attributes are read (and written back).
        let raw = unsafe { (domain.device.library().verbs.ibv_create_srq)(domain.raw(), &raw mut wanted) };
        if raw.is_null() {
            return Err(named("ibv_create_srq", &io::Error::last_os_error()));
        }
        let state = Posted { slots: Vec::new(), free: Vec::new(), count: 0, target: count.min(most), most };
        let queue = Arc::new(ReceiveQueue { raw, domain: domain.clone(), state: Mutex::new(state), buffer_bytes });
        queue.refill()?;
        Ok(queue)
    }

    /// Posts what is missing.
    ///
    /// # Errors
    /// No memory: what is posted stays.
    pub fn refill(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.count * 4 <= state.target && !state.slots.is_empty() {
            state.target = (state.target * 2).min(state.most);
        }
        while state.count < state.target {
            let buffer = self.domain.reserved(self.buffer_bytes)?;
            let Some(lkey) = buffer.registered().map(Registered::lkey) else { return Ok(()) };
            let index = state.free.pop().unwrap_or_else(|| {
                state.slots.push(None);
                state.slots.len() - 1
            });
            // No more than was asked for, also where the buffer is bigger: longer messages are refused by the device.
            let length = u32::try_from(self.buffer_bytes.min(buffer.len())).unwrap_or(u32::MAX);
            let mut sge = ibv_sge { addr: buffer.start() as u64, length, lkey };
            let mut request = ibv_recv_wr {
                wr_id: RECEIVE | index as u64,
                next: std::ptr::null_mut(),
                sg_list: &raw mut sge,
                num_sge: 1,
            };
            let mut bad = std::ptr::null_mut();
            // SAFETY: the queue lives; the buffer, which nobody else has, is kept until it comes back or the queue is gone.
            let code = unsafe { rdma_sys::ibv_post_srq_recv(self.raw, &raw mut request, &raw mut bad) };
            result("ibv_post_srq_recv", code)?;
            if let Some(slot) = state.slots.get_mut(index) {
                *slot = Some(buffer);
            }
            state.count += 1;
        }
        Ok(())
    }

    /// Buffers posted at the moment.
    pub fn posted(&self) -> usize {
        self.state.lock().count
    }

    /// Buffers that may be posted at once, at most.
    pub fn most(&self) -> usize {
        self.state.lock().most
    }

    fn take(&self, id: u64) -> Option<Buffer> {
        let index = usize::try_from(id & !RECEIVE).ok()?;
        let mut state = self.state.lock();
        let buffer = state.slots.get_mut(index)?.take()?;
        state.free.push(index);
        state.count -= 1;
        Some(buffer)
    }
}

impl Drop for ReceiveQueue {
    fn drop(&mut self) {
        // SAFETY: its endpoints hold it: none is left. Its buffers are dropped after.
        unsafe { (self.domain.device.library().verbs.ibv_destroy_srq)(self.raw) };
    }
}

/// Memory an endpoint keeps while the device may touch it.
pub enum Held {
    Buffer(Buffer),
    Source(Source),
}

impl Held {
    fn len(&self) -> usize {
        match self {
            Held::Buffer(buffer) => buffer.len(),
            Held::Source(source) => source.len(),
        }
    }

    fn start(&self) -> u64 {
        match self {
            Held::Buffer(buffer) => buffer.start() as u64,
            Held::Source(source) => source.start() as u64,
        }
    }

    fn registered(&self) -> Option<&Registered> {
        match self {
            Held::Buffer(buffer) => buffer.registered(),
            Held::Source(source) => Some(source.registered()),
        }
    }

    /// Address of a part of it, if it has that part.
    fn at(&self, start: usize, len: usize) -> io::Result<u64> {
        match start.checked_add(len) {
            Some(end) if end <= self.len() => Ok(self.start() + start as u64),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a part outside its buffer")),
        }
    }
}

/// A part of the `held`-th piece of memory given with the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub held: usize,
    pub start: usize,
    pub len: usize,
}

/// What the device is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Fetches from the other side's memory.
    Read { into: Part, address: u64, key: u32 },
    /// Puts into the other side's memory.
    Write { from: Vec<Part>, address: u64, key: u32 },
    /// Sends a message, and ends the use of a key of the other side.
    Send { parts: Vec<Part>, invalidate: Option<u32> },
}

/// What the other side may do with exposed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// What has completed.
pub enum Done {
    /// A message of `len` bytes has come; with it the other side has taken back the key.
    Received { buffer: Buffer, len: usize, invalidated: Option<u32> },
    /// The work posted under this token is done, with the memory it used.
    Finished { token: u64, held: Vec<Held> },
    /// Exposed memory is out of the other side's reach.
    Concealed { key: u32, held: Held },
    /// The connection is broken.
    Failed(String),
}

/// What hiding exposed memory came to.
pub enum Concealed {
    /// It is out of reach.
    Now(Held),
    /// It will be: [`Done::Concealed`].
    Later,
    /// No such key.
    Unknown,
}

struct Flight {
    last: u64,
    slots: u32,
    what: What,
}

enum What {
    Work { token: u64, held: Vec<Held> },
    Conceal { key: u32 },
}

struct Exposed {
    /// Undone before the memory is given back; none where a window does it.
    registered: Option<Registered>,
    window: Option<*mut ibv_mw>,
    held: Held,
    address: u64,
    len: usize,
    access: Access,
    invalidating: bool,
}

/// What an endpoint is made of.
pub struct EndpointConfig {
    pub token: u64,
    pub domain: Arc<Domain>,
    pub channel: Arc<CompletionChannel>,
    pub receive: Arc<ReceiveQueue>,
    /// Work requests at once.
    pub slots: u32,
    /// Completions there may be besides those of all receives that can be posted.
    pub other_entries: usize,
    /// Expose memory through windows; else by registering it each time.
    pub windows: bool,
}

/// A queue pair with its completion queue, the memory in its hands, and what it exposes.
pub struct Endpoint {
    id: CmId,
    qp: *mut ibv_qp,
    cq: *mut ibv_cq,
    config: EndpointConfig,
    free_slots: u32,
    next_id: u64,
    in_flight: VecDeque<Flight>,
    exposed: HashMap<u32, Exposed>,
    idle_windows: Vec<*mut ibv_mw>,
    all_windows: Vec<*mut ibv_mw>,
    /// Keys of windows to be bound with the next work.
    to_bind: Vec<u32>,
}

// SAFETY: verbs may be called from any thread; everything mutable needs `&mut`.
unsafe impl Send for Endpoint {}

impl Endpoint {
    /// Makes the queue pair of `id`, which must be bound to the domain's device.
    ///
    /// # Errors
    /// The device's.
    pub fn new(mut id: CmId, mut config: EndpointConfig) -> io::Result<Endpoint> {
        let domain = &config.domain;
        if !domain.device.is_of(&id) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a connection of another device"));
        }
        let limits = domain.device.limits;
        config.slots = config.slots.min(limits.max_qp_wr.max(16));
        // Whatever a peer sends, the queue cannot overflow: its completions would be lost, and the receives with them.
        let entries =
            u32::try_from(config.receive.most() + config.other_entries).unwrap_or(u32::MAX).min(limits.max_cqe);
        let library = domain.device.library();
        let context = config.token as *mut std::os::raw::c_void; // never followed
        // SAFETY: device and channel live as long as the endpoint holds them.
        let cq = unsafe {
            (library.verbs.ibv_create_cq)(domain.device.context(), entries as i32, context, config.channel.raw, 0)
        };
        if cq.is_null() {
            return Err(named("ibv_create_cq", &io::Error::last_os_error()));
        }
        // SAFETY: all-zero is a valid ibv_qp_init_attr.
        let mut wanted: rdma_sys::ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        wanted.send_cq = cq;
        wanted.recv_cq = cq;
        wanted.srq = config.receive.raw;
        wanted.cap.max_send_wr = config.slots;
        wanted.cap.max_send_sge = MAX_PARTS as u32;
        wanted.qp_type = ibv_qp_type::IBV_QPT_RC;
        // SAFETY: id, domain, queues live; the attributes are read (and written back).
        let code = unsafe { (library.cm.rdma_create_qp)(id.raw(), domain.raw(), &raw mut wanted) };
        if let Err(error) = result("rdma_create_qp", code) {
            // SAFETY: nobody uses it.
            unsafe { (library.verbs.ibv_destroy_cq)(cq) };
            return Err(error);
        }
        id.note_qp();
        // SAFETY: the id lives; rdma_create_qp has set its queue pair.
        let qp = unsafe { (*id.raw()).qp };
        let mut endpoint = Endpoint {
            qp,
            id,
            cq,
            free_slots: config.slots,
            config,
            next_id: 0,
            in_flight: VecDeque::new(),
            exposed: HashMap::new(),
            idle_windows: Vec::new(),
            all_windows: Vec::new(),
            to_bind: Vec::new(),
        };
        endpoint.arm()?;
        Ok(endpoint)
    }

    /// The connection manager's side of it.
    pub fn id(&mut self) -> &mut CmId {
        &mut self.id
    }

    /// What the device can do.
    pub fn limits(&self) -> Limits {
        self.config.domain.device.limits
    }

    /// Work requests that may be posted now.
    pub fn room(&self) -> usize {
        (self.free_slots as usize).saturating_sub(self.to_bind.len())
    }

    /// Whether work is under way.
    pub fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Asks for an event when there is another completion.
    ///
    /// # Errors
    /// The device's.
    pub fn arm(&mut self) -> io::Result<()> {
        // SAFETY: the queue lives.
        result("ibv_req_notify_cq", unsafe { rdma_sys::ibv_req_notify_cq(self.cq, 0) })
    }

    /// Lets the other side reach a part of `held`, as soon as the next work is posted: its key and address there.
    ///
    /// # Errors
    /// `WouldBlock`: too much is exposed. The system's.
    pub fn expose(&mut self, held: Held, start: usize, len: usize, access: Access) -> io::Result<(u32, u64)> {
        let address = held.at(start, len)?;
        if access == Access::Write && matches!(held, Held::Source(_)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "memory of others is not written to"));
        }
        if self.exposed.len() >= MAX_WINDOWS {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "too much memory is exposed"));
        }
        if !self.config.windows {
            let flags = match access {
                Access::Read => ibv_access_flags::IBV_ACCESS_REMOTE_READ.0,
                Access::Write => {
                    ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0 | ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0
                }
            };
            // SAFETY: `held` is kept longer than the registration (`Exposed`), the domain longer than both. Nobody reads
            // the memory until it is given back.
            let registered = unsafe { Registered::new(&self.config.domain, address as *mut u8, len, flags) }?;
            let key = registered.rkey();
            let entry =
                Exposed { registered: Some(registered), window: None, held, address, len, access, invalidating: false };
            self.exposed.insert(key, entry);
            return Ok((key, address));
        }
        let window = match self.idle_windows.pop() {
            Some(window) => window,
            None => self.new_window()?,
        };
        // SAFETY: the window lives until the endpoint is dropped.
        let key = unsafe { rdma_sys::ibv_inc_rkey((*window).rkey) };
        let entry = Exposed { registered: None, window: Some(window), held, address, len, access, invalidating: false };
        self.exposed.insert(key, entry);
        self.to_bind.push(key);
        Ok((key, address))
    }

    fn new_window(&mut self) -> io::Result<*mut ibv_mw> {
        // SAFETY: the domain lives.
        let window = unsafe { rdma_sys::ibv_alloc_mw(self.config.domain.raw(), ibv_mw_type::IBV_MW_TYPE_2) };
        let window = window.unwrap_or(std::ptr::null_mut());
        if window.is_null() {
            return Err(named("ibv_alloc_mw", &io::Error::last_os_error()));
        }
        self.all_windows.push(window);
        Ok(window)
    }

    /// What of exposed memory the key gives: address, length, what may be done.
    pub fn exposure(&self, key: u32) -> Option<(u64, usize, Access)> {
        self.exposed.get(&key).map(|exposed| (exposed.address, exposed.len, exposed.access))
    }

    /// Takes exposed memory back; `invalidated` where the other side (and the device here) has ended the use of the key.
    ///
    /// Never twice for a key: rxe's kernel panics when an unbound window is invalidated.
    ///
    /// # Errors
    /// The device's: the connection is of no more use.
    pub fn conceal(&mut self, key: u32, invalidated: bool) -> io::Result<Concealed> {
        let Some(exposed) = self.exposed.get_mut(&key) else { return Ok(Concealed::Unknown) };
        if exposed.invalidating {
            return Ok(Concealed::Later);
        }
        if exposed.window.is_some() && !invalidated && !self.to_bind.contains(&key) {
            exposed.invalidating = true;
            let mut request = request(ibv_wr_opcode::IBV_WR_LOCAL_INV);
            request.imm_data_invalidated_rkey_union.invalidated_rkey = key;
            self.post_chain(vec![request], What::Conceal { key })?;
            return Ok(Concealed::Later);
        }
        self.to_bind.retain(|bound| *bound != key);
        let Some(exposed) = self.exposed.remove(&key) else { return Ok(Concealed::Unknown) };
        self.idle_windows.extend(exposed.window);
        drop(exposed.registered);
        Ok(Concealed::Now(exposed.held))
    }

    /// Gives work to the device, after the binding of what was exposed since the last. The memory in `held` comes back with
    /// [`Done::Finished`].
    ///
    /// # Errors
    /// A part outside its memory (nothing is posted); the device's: the connection is of no more use.
    pub fn post(&mut self, work: &[Work], held: Vec<Held>, token: u64) -> io::Result<()> {
        let mut parts: Vec<Vec<ibv_sge>> = Vec::with_capacity(work.len());
        for work in work {
            let (wanted, written) = match work {
                Work::Read { into, .. } => (std::slice::from_ref(into), true),
                Work::Write { from, .. } => (from.as_slice(), false),
                Work::Send { parts, .. } => (parts.as_slice(), false),
            };
            let mut list = Vec::with_capacity(wanted.len());
            for part in wanted {
                let piece = held.get(part.held).filter(|piece| !written || matches!(piece, Held::Buffer(_)));
                let lkey = piece.and_then(Held::registered).map(Registered::lkey);
                let (Some(piece), Some(lkey)) = (piece, lkey) else {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "a part of nothing"));
                };
                let length = u32::try_from(part.len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
                list.push(ibv_sge { addr: piece.at(part.start, part.len)?, length, lkey });
            }
            if list.len() > MAX_PARTS {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many parts"));
            }
            parts.push(list);
        }
        let mut chain = Vec::with_capacity(self.to_bind.len() + work.len());
        let bound = std::mem::take(&mut self.to_bind);
        chain.extend(bound.iter().filter_map(|key| self.bind_request(*key)));
        for (work, list) in work.iter().zip(&mut parts) {
            let mut next = match work {
                Work::Read { address, key, .. } => rdma(ibv_wr_opcode::IBV_WR_RDMA_READ, *address, *key),
                Work::Write { address, key, .. } => rdma(ibv_wr_opcode::IBV_WR_RDMA_WRITE, *address, *key),
                Work::Send { invalidate: None, .. } => request(ibv_wr_opcode::IBV_WR_SEND),
                Work::Send { invalidate: Some(key), .. } => {
                    let mut next = request(ibv_wr_opcode::IBV_WR_SEND_WITH_INV);
                    next.imm_data_invalidated_rkey_union.invalidated_rkey = *key;
                    next
                }
            };
            next.sg_list = list.as_mut_ptr();
            next.num_sge = list.len() as i32;
            chain.push(next);
        }
        self.post_chain(chain, What::Work { token, held })?;
        for key in bound {
            if let Some(window) = self.exposed.get(&key).and_then(|exposed| exposed.window) {
                // Only now: the request names the key it had before.
                // SAFETY: the window lives; its next key is counted from this one.
                unsafe { (*window).rkey = key };
            }
        }
        Ok(())
    }

    /// The request that binds the window of an exposure.
    fn bind_request(&self, key: u32) -> Option<ibv_send_wr> {
        let exposed = self.exposed.get(&key)?;
        let (window, registered) = (exposed.window?, exposed.held.registered()?);
        let access = match exposed.access {
            Access::Read => ibv_access_flags::IBV_ACCESS_REMOTE_READ,
            Access::Write => ibv_access_flags::IBV_ACCESS_REMOTE_WRITE,
        };
        let mut next = request(ibv_wr_opcode::IBV_WR_BIND_MW);
        let bind_info = ibv_mw_bind_info {
            mr: registered.raw(),
            addr: exposed.address,
            length: exposed.len as u64,
            mw_access_flags: access.0,
        };
        next.bind_mw_tso_union.bind_mw = rdma_sys::bind_mw_t { mw: window, rkey: key, bind_info };
        Some(next)
    }

    fn post_chain(&mut self, mut chain: Vec<ibv_send_wr>, what: What) -> io::Result<()> {
        let slots = chain.len() as u32;
        let Some(left) = self.free_slots.checked_sub(slots) else {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the send queue is full"));
        };
        self.next_id = (self.next_id + 1) & !RECEIVE;
        let last = self.next_id;
        let mut next: *mut ibv_send_wr = std::ptr::null_mut();
        for request in chain.iter_mut().rev() {
            request.wr_id = last;
            if next.is_null() {
                request.send_flags = ibv_send_flags::IBV_SEND_SIGNALED.0;
            }
            request.next = next;
            next = request;
        }
        if next.is_null() {
            return Ok(());
        }
        self.free_slots = left;
        // Kept also when posting fails: a part of the chain may have been taken.
        self.in_flight.push_back(Flight { last, slots, what });
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair lives; chain and lists are copied by the call; the memory they name is kept in `in_flight`
        // or `exposed` until the device is done with it, or the queue pair is gone.
        result("ibv_post_send", unsafe { rdma_sys::ibv_post_send(self.qp, next, &raw mut bad) })
    }

    /// Takes what has completed; gives how many completions there were (0: the queue is empty).
    pub fn poll(&mut self, done: &mut Vec<Done>) -> usize {
        // SAFETY: all-zero is a valid ibv_wc. Zeroed anew each time: not every driver sets every field.
        let mut completions: [ibv_wc; POLL_BATCH] = unsafe { std::mem::zeroed() };
        // SAFETY: the queue lives, and has room for so many.
        let count = unsafe { rdma_sys::ibv_poll_cq(self.cq, POLL_BATCH as i32, completions.as_mut_ptr()) };
        let Ok(count) = usize::try_from(count) else {
            done.push(Done::Failed("polling the completion queue failed".to_owned()));
            return 0;
        };
        for completion in completions.iter().take(count) {
            if completion.wr_id & RECEIVE != 0 {
                self.received(completion, done);
            } else if completion.status == ibv_wc_status::IBV_WC_SUCCESS {
                self.finished(completion.wr_id, done);
            } else {
                done.push(Done::Failed(status_text(completion.status)));
            }
        }
        count
    }

    fn received(&mut self, completion: &ibv_wc, done: &mut Vec<Done>) {
        let Some(buffer) = self.config.receive.take(completion.wr_id) else {
            done.push(Done::Failed("a completion of no receive".to_owned()));
            return;
        };
        if completion.status != ibv_wc_status::IBV_WC_SUCCESS {
            done.push(Done::Failed(status_text(completion.status)));
            return;
        }
        if completion.opcode != ibv_wc_opcode::IBV_WC_RECV {
            done.push(Done::Failed("not a plain message".to_owned()));
            return;
        }
        // SAFETY: both sides of the union are plain numbers.
        let key = unsafe { completion.imm_data_invalidated_rkey_union.invalidated_rkey };
        let rxe = self.config.domain.device.limits.rxe;
        let invalidated = match invalidated_key(completion.wc_flags, key, rxe, |key| self.exposed.contains_key(&key)) {
            Ok(invalidated) => invalidated,
            Err(text) => {
                done.push(Done::Failed(text.to_owned()));
                return;
            }
        };
        let len = (completion.byte_len as usize).min(buffer.len());
        done.push(Done::Received { buffer, len, invalidated });
    }

    /// Completions come in the order of the work: all up to this one is done.
    fn finished(&mut self, id: u64, done: &mut Vec<Done>) {
        while let Some(flight) = self.in_flight.pop_front() {
            self.free_slots += flight.slots;
            match flight.what {
                What::Work { token, held } => done.push(Done::Finished { token, held }),
                What::Conceal { key } => {
                    if let Some(exposed) = self.exposed.remove(&key) {
                        self.idle_windows.extend(exposed.window);
                        done.push(Done::Concealed { key, held: exposed.held });
                    }
                }
            }
            if flight.last == id {
                return;
            }
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // The queue pair goes to its error state, windows before it (else rxe waits 50 s), its memory after it.
        self.id.disconnect();
        for window in self.all_windows.drain(..) {
            // SAFETY: freed once.
            unsafe { rdma_sys::ibv_dealloc_mw(window) };
        }
        // Buffers of the shared queue that it has used come back.
        let mut done = Vec::new();
        while self.poll(&mut done) > 0 {
            done.clear();
        }
        self.id.destroy_qp();
        let library = self.config.domain.device.library();
        // SAFETY: its queue pair is gone; waits for events to be acknowledged, which is done as they are read.
        unsafe { (library.verbs.ibv_destroy_cq)(self.cq) };
    }
}

/// The key a message has taken back, from its completion. Memory is used again on the strength of it: a number that the sender
/// chose (immediate data shares its place) must not pass for one that the device has checked.
fn invalidated_key(
    flags: u32,
    key: u32,
    rxe: bool,
    is_exposed: impl Fn(u32) -> bool,
) -> Result<Option<u32>, &'static str> {
    if flags & rdma_sys::ibv_wc_flags::IBV_WC_WITH_IMM.0 != 0 {
        return Err("a message with immediate data: not of this protocol");
    }
    let flagged = flags & rdma_sys::ibv_wc_flags::IBV_WC_WITH_INV.0 != 0;
    // rxe does not set the flag (8), but the key.
    Ok((flagged || (rxe && key != 0 && is_exposed(key))).then_some(key))
}

fn request(opcode: ibv_wr_opcode::Type) -> ibv_send_wr {
    // SAFETY: all-zero is a valid ibv_send_wr.
    let mut request: ibv_send_wr = unsafe { std::mem::zeroed() };
    request.opcode = opcode;
    request
}

fn rdma(opcode: ibv_wr_opcode::Type, remote_addr: u64, rkey: u32) -> ibv_send_wr {
    let mut request = request(opcode);
    request.wr.rdma = rdma_sys::rdma_t { remote_addr, rkey };
    request
}

/// What a completion's status means, as an operator would ask.
fn status_text(status: ibv_wc_status::Type) -> String {
    use ibv_wc_status as s;
    let text = match status {
        s::IBV_WC_LOC_LEN_ERR => "a message longer than its receive",
        s::IBV_WC_LOC_PROT_ERR => "local memory that is not registered",
        s::IBV_WC_WR_FLUSH_ERR => "the connection ended",
        s::IBV_WC_MW_BIND_ERR => "a memory window could not be bound",
        s::IBV_WC_REM_ACCESS_ERR => "the other side's memory may not be accessed: a bad key",
        s::IBV_WC_REM_INV_REQ_ERR => "the other side's queue pair refused a request",
        s::IBV_WC_REM_OP_ERR => "the other side's queue pair failed",
        s::IBV_WC_RETRY_EXC_ERR => "no answer: the link or the other side is dead",
        s::IBV_WC_RNR_RETRY_EXC_ERR => "the other side has no receive posted",
        _ => return format!("completion status {status}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_device_has_checked_is_a_key_taken_back() {
        const IMM: u32 = rdma_sys::ibv_wc_flags::IBV_WC_WITH_IMM.0;
        const INV: u32 = rdma_sys::ibv_wc_flags::IBV_WC_WITH_INV.0;
        let ours = |key| key == 7;
        for rxe in [false, true] {
            assert!(invalidated_key(IMM, 7, rxe, ours).is_err());
            assert_eq!(invalidated_key(INV, 7, rxe, ours), Ok(Some(7)));
            assert_eq!(invalidated_key(0, 0, rxe, ours), Ok(None));
            assert_eq!(invalidated_key(0, 9, rxe, ours), Ok(None));
        }
        assert_eq!(invalidated_key(0, 7, false, ours), Ok(None));
        assert_eq!(invalidated_key(0, 7, true, ours), Ok(Some(7)));
    }
}
