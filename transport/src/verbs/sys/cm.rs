//! The connection manager: addresses to queue pairs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::Arc;

use rdma_sys::{rdma_cm_event, rdma_cm_event_type as kind, rdma_cm_id, rdma_conn_param, rdma_port_space};

use super::library::Libraries;
use super::{loaded, named, result, set_nonblocking};

/// Where the connection manager reports what happens to its ids.
pub struct EventChannel {
    raw: *mut rdma_sys::rdma_event_channel,
    library: &'static Libraries,
}

// SAFETY: librdmacm's functions may be called from any thread.
unsafe impl Send for EventChannel {}
// SAFETY: as above.
unsafe impl Sync for EventChannel {}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmEventKind {
    AddressResolved,
    RouteResolved,
    ConnectRequest,
    Established,
    /// Not reached, not resolved, rejected, gone: with the connection manager's word for it.
    Failed(&'static str),
    Disconnected,
    DeviceRemoved,
    Other,
}

/// An event, copied and acknowledged.
pub struct CmEvent {
    pub kind: CmEventKind,
    /// Token of the id it is about; of the listener for [`CmEventKind::ConnectRequest`].
    pub token: u64,
    /// The new id of a [`CmEventKind::ConnectRequest`].
    pub request: Option<CmId>,
    /// What the other side said with its request, acceptance or rejection.
    pub private_data: Vec<u8>,
    pub parameters: Parameters,
    /// Negative errno, or the reason of a rejection.
    pub status: i32,
}

/// How many RDMA reads may be under way at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Of the other side, answered here.
    pub responder_resources: u8,
    /// Ours.
    pub initiator_depth: u8,
}

impl EventChannel {
    /// # Errors
    /// No library, no /dev/infiniband/rdma_cm.
    pub fn new() -> io::Result<Arc<EventChannel>> {
        let library = loaded()?;
        // SAFETY: no arguments.
        let raw = unsafe { (library.cm.rdma_create_event_channel)() };
        if raw.is_null() {
            return Err(named("rdma_create_event_channel", &io::Error::last_os_error()));
        }
        let channel = Arc::new(EventChannel { raw, library });
        set_nonblocking(channel.fd())?;
        Ok(channel)
    }

    /// Readable when there are events.
    fn fd(&self) -> RawFd {
        // SAFETY: the channel lives.
        unsafe { (*self.raw).fd }
    }

    /// The next event, if there is one.
    pub fn next(self: &Arc<EventChannel>) -> Option<CmEvent> {
        let mut raw: *mut rdma_cm_event = std::ptr::null_mut();
        // SAFETY: the channel lives; `raw` is written to on success.
        if unsafe { (self.library.cm.rdma_get_cm_event)(self.raw, &raw mut raw) } != 0 || raw.is_null() {
            return None;
        }
        // SAFETY: a valid event until it is acknowledged below.
        let event = unsafe { &*raw };
        let is_request = event.event == kind::RDMA_CM_EVENT_CONNECT_REQUEST;
        let about = if is_request { event.listen_id } else { event.id };
        // SAFETY: ids live until they are destroyed, which waits for their events to be acknowledged.
        let token = unsafe { (*about).context } as u64;
        // SAFETY: of the union's two sides this is the one of reliable connections.
        let parameters = unsafe { &event.param.conn };
        let carries_data = matches!(
            event.event,
            kind::RDMA_CM_EVENT_CONNECT_REQUEST
                | kind::RDMA_CM_EVENT_ESTABLISHED
                | kind::RDMA_CM_EVENT_CONNECT_RESPONSE
                | kind::RDMA_CM_EVENT_REJECTED
        );
        let private_data = if carries_data && !parameters.private_data.is_null() {
            let (data, len) = (parameters.private_data.cast::<u8>(), usize::from(parameters.private_data_len));
            // SAFETY: the library's buffer of that length, valid until the acknowledgement.
            unsafe { std::slice::from_raw_parts(data, len) }.to_vec()
        } else {
            Vec::new()
        };
        let copied = CmEvent {
            kind: kind_of(event.event),
            token,
            // Its channel is the listener's: this one.
            request: is_request.then(|| CmId { raw: event.id, channel: self.clone(), has_qp: false }),
            private_data,
            parameters: Parameters {
                responder_resources: parameters.responder_resources,
                initiator_depth: parameters.initiator_depth,
            },
            status: event.status,
        };
        // SAFETY: acknowledged once; nothing of it is used after.
        unsafe { (self.library.cm.rdma_ack_cm_event)(raw) };
        Some(copied)
    }
}

fn kind_of(event: kind::Type) -> CmEventKind {
    match event {
        kind::RDMA_CM_EVENT_ADDR_RESOLVED => CmEventKind::AddressResolved,
        kind::RDMA_CM_EVENT_ROUTE_RESOLVED => CmEventKind::RouteResolved,
        kind::RDMA_CM_EVENT_CONNECT_REQUEST => CmEventKind::ConnectRequest,
        kind::RDMA_CM_EVENT_ESTABLISHED => CmEventKind::Established,
        kind::RDMA_CM_EVENT_ADDR_ERROR => CmEventKind::Failed("address not resolved"),
        kind::RDMA_CM_EVENT_ROUTE_ERROR => CmEventKind::Failed("no route"),
        kind::RDMA_CM_EVENT_CONNECT_ERROR => CmEventKind::Failed("connecting failed"),
        kind::RDMA_CM_EVENT_UNREACHABLE => CmEventKind::Failed("unreachable"),
        kind::RDMA_CM_EVENT_REJECTED => CmEventKind::Failed("rejected"),
        kind::RDMA_CM_EVENT_DISCONNECTED => CmEventKind::Disconnected,
        kind::RDMA_CM_EVENT_DEVICE_REMOVAL => CmEventKind::DeviceRemoved,
        _ => CmEventKind::Other,
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as the channel lives.
        unsafe { BorrowedFd::borrow_raw(self.fd()) }
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        // SAFETY: every id holds the channel, so none is left.
        unsafe { (self.library.cm.rdma_destroy_event_channel)(self.raw) };
    }
}

/// A communication identifier: a listener, or one end of a connection.
pub struct CmId {
    raw: *mut rdma_cm_id,
    channel: Arc<EventChannel>,
    has_qp: bool,
}

// SAFETY: librdmacm's functions may be called from any thread.
unsafe impl Send for CmId {}

impl CmId {
    /// A new one; its events carry `token`.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub fn new(channel: &Arc<EventChannel>, token: u64) -> io::Result<CmId> {
        let mut raw = std::ptr::null_mut();
        let context = token as *mut std::os::raw::c_void; // never followed
        // SAFETY: the channel lives as long as the id holds it; `raw` is written to on success.
        let code = unsafe {
            (channel.library.cm.rdma_create_id)(channel.raw, &raw mut raw, context, rdma_port_space::RDMA_PS_TCP)
        };
        result("rdma_create_id", code)?;
        Ok(CmId { raw, channel: channel.clone(), has_qp: false })
    }

    /// From now on its events carry `token`.
    pub fn set_token(&mut self, token: u64) {
        // SAFETY: the id lives; the library does not use this field.
        unsafe { (*self.raw).context = token as *mut std::os::raw::c_void };
    }

    pub(super) fn raw(&self) -> *mut rdma_cm_id {
        self.raw
    }

    pub(super) fn library(&self) -> &'static Libraries {
        self.channel.library
    }

    /// The device it is bound to, if it is.
    pub(super) fn context(&self) -> *mut rdma_sys::ibv_context {
        // SAFETY: the id lives.
        unsafe { (*self.raw).verbs }
    }

    /// # Errors
    /// The address is not here, or taken.
    pub fn listen(&mut self, address: SocketAddr, backlog: i32) -> io::Result<()> {
        let address = socket2::SockAddr::from(address);
        let raw = address.as_ptr().cast_mut().cast();
        // SAFETY: the address is copied by the call.
        result("rdma_bind_addr", unsafe { (self.library().cm.rdma_bind_addr)(self.raw, raw) })?;
        // SAFETY: the id lives.
        result("rdma_listen", unsafe { (self.library().cm.rdma_listen)(self.raw, backlog) })
    }

    /// Starts to look for the device and address behind `address`.
    ///
    /// # Errors
    /// Refused at once; more may come as an event.
    pub fn resolve_address(&mut self, address: SocketAddr, timeout_ms: i32) -> io::Result<()> {
        let address = socket2::SockAddr::from(address);
        let (none, raw) = (std::ptr::null_mut(), address.as_ptr().cast_mut().cast());
        // SAFETY: the address is copied by the call.
        let code = unsafe { (self.library().cm.rdma_resolve_addr)(self.raw, none, raw, timeout_ms) };
        result("rdma_resolve_addr", code)
    }

    /// Starts to look for the way there.
    ///
    /// # Errors
    /// Refused at once; more may come as an event.
    pub fn resolve_route(&mut self, timeout_ms: i32) -> io::Result<()> {
        // SAFETY: the id lives.
        result("rdma_resolve_route", unsafe { (self.library().cm.rdma_resolve_route)(self.raw, timeout_ms) })
    }

    pub(super) fn note_qp(&mut self) {
        self.has_qp = true;
    }

    /// Asks for the connection.
    ///
    /// # Errors
    /// Refused at once; more may come as an event.
    pub fn connect(&mut self, parameters: Parameters, private_data: &[u8]) -> io::Result<()> {
        let mut conn = conn_param(parameters, private_data)?;
        // SAFETY: parameters and data are copied by the call.
        result("rdma_connect", unsafe { (self.library().cm.rdma_connect)(self.raw, &raw mut conn) })
    }

    /// Takes a request.
    ///
    /// # Errors
    /// The other side has gone.
    pub fn accept(&mut self, parameters: Parameters, private_data: &[u8]) -> io::Result<()> {
        let mut conn = conn_param(parameters, private_data)?;
        // SAFETY: parameters and data are copied by the call.
        result("rdma_accept", unsafe { (self.library().cm.rdma_accept)(self.raw, &raw mut conn) })
    }

    /// Refuses a request.
    pub fn reject(self, private_data: &[u8]) {
        let len = u8::try_from(private_data.len()).unwrap_or(0);
        // SAFETY: the data is copied by the call.
        unsafe { (self.library().cm.rdma_reject)(self.raw, private_data.as_ptr().cast(), len) };
    }

    /// Moves the queue pair to its error state and tells the other side.
    pub fn disconnect(&mut self) {
        // SAFETY: the id lives.
        unsafe { (self.library().cm.rdma_disconnect)(self.raw) };
    }

    /// Destroys the queue pair, if there is one: the device touches none of its memory after.
    pub(super) fn destroy_qp(&mut self) {
        if std::mem::take(&mut self.has_qp) {
            // SAFETY: the id has a queue pair, made by rdma_create_qp.
            unsafe { (self.library().cm.rdma_destroy_qp)(self.raw) };
        }
    }

    /// Our end and the other.
    pub fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        // SAFETY: the id lives; all of a sockaddr_storage is initialised by the library (it allocates zeroed).
        let addresses = unsafe { &(*self.raw).route.addr };
        // SAFETY: as above.
        let (local, peer) = unsafe { (&addresses.src_addr_union.src_storage, &addresses.dst_addr_union.dst_storage) };
        (socket_address(local), socket_address(peer))
    }
}

fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let raw: *const libc::sockaddr_storage = storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says so, and the storage is large enough.
            let v4 = unsafe { &*raw.cast::<libc::sockaddr_in>() };
            Some(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))),
                u16::from_be(v4.sin_port),
            ))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*raw.cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

/// Retries of a message that is not acknowledged: 7 is the most, each after the time the connection manager chose.
const RETRIES: u8 = 7;
/// "For ever": the other side has promised a receive, it is only late.
const RNR_RETRIES: u8 = 7;

fn conn_param(parameters: Parameters, private_data: &[u8]) -> io::Result<rdma_conn_param> {
    // SAFETY: all-zero is a valid rdma_conn_param.
    let mut conn: rdma_conn_param = unsafe { std::mem::zeroed() };
    conn.private_data = private_data.as_ptr().cast();
    conn.private_data_len =
        u8::try_from(private_data.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    conn.responder_resources = parameters.responder_resources;
    conn.initiator_depth = parameters.initiator_depth;
    conn.retry_count = RETRIES;
    conn.rnr_retry_count = RNR_RETRIES;
    Ok(conn)
}

impl Drop for CmId {
    fn drop(&mut self) {
        self.destroy_qp();
        // SAFETY: destroyed once; waits for events that are not acknowledged, which `EventChannel::next` does at once.
        unsafe { (self.library().cm.rdma_destroy_id)(self.raw) };
    }
}
