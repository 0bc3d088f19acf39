//! Events of the connection manager and of completion queues, for all verbs connections of one side of a process.
//!
//! Whoever runs it waits until [`Driver`]'s descriptor is readable and calls [`Driver::progress`]: a task of the client's
//! executor, or a thread ([`Driver::start_thread`]) where an executor cannot wait for a descriptor.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::connection::{Connection, INLINE_BYTES, Role, WINDOW};
use super::sys::{
    CmEvent, CmEventKind, CmId, CompletionChannel, Device, Domain, Endpoint, EndpointConfig, EventChannel, Parameters,
    ReceiveQueue,
};
use super::wire::Hello;

/// Work requests of a connection at once.
const SLOTS: u32 = 256;
/// Receives posted in the beginning for all connections of a device, and at most.
const FIRST_RECEIVES: usize = 256;
const MOST_RECEIVES: usize = 4096 - OTHER_ENTRIES;
/// Entries of a completion queue besides those for receives: one peer that ignores its credits may take all that are posted.
const OTHER_ENTRIES: usize = SLOTS as usize + 16;
/// Registered buffers of a device, at most.
const BUFFERS_MAX_BYTES: usize = 1 << 30;
/// Of them, those kept for messages, answers and receives.
const BUFFERS_RESERVE_BYTES: usize = 64 << 20;
/// Patience of the connection manager's look-ups.
const RESOLVE_MS: i32 = 5000;
/// Requests not yet accepted.
const BACKLOG: i32 = 256;
/// Connections that have queues already and are not made yet.
const MOST_HALF_OPEN: usize = 256;
/// Events of one kind taken before others have their turn.
const EVENTS_PER_TURN: usize = 64;
/// Looks at a queue that has just had completions before it is left to events, where CPUs are to spare.
const SPINS: usize = 200;
/// CPUs from which on there are some to spare.
const SPARE_CPUS: usize = 3;

/// Of a call to [`Driver::listen`]: gets each connection that is made.
pub type OnConnection = Box<dyn Fn(Arc<Connection>) + Send + Sync>;

/// What to make a driver of.
#[derive(Clone, Copy, Debug)]
pub struct DriverConfig {
    /// Which side.
    pub role: Role,
    /// Whether clients expose memory through windows.
    pub windows: Windows,
}

/// Whether clients expose memory through windows, or register it each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Windows {
    /// Windows where the device has them and they can be relied on. rxe's cannot (Linux 6.1): a packet sent again while windows are
    /// bound can stop the connection for ever, their bounds are not enforced, and the kernel panics when one is invalidated twice.
    #[default]
    Auto,
    /// Where the device has them.
    Always,
    /// Never.
    Never,
}

impl Windows {
    /// What the environment variable `LADRILLO_RDMA_WINDOWS` (auto, always, never) says: for tests.
    pub fn from_environment() -> Windows {
        match std::env::var("LADRILLO_RDMA_WINDOWS").as_deref() {
            Ok("always") => Windows::Always,
            Ok("never") => Windows::Never,
            _ => Windows::Auto,
        }
    }
}

/// See the module.
pub struct Driver {
    this: Weak<Driver>,
    config: DriverConfig,
    epoll: OwnedFd,
    timer: OwnedFd,
    cm: Arc<EventChannel>,
    devices: Mutex<Vec<DeviceState>>,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    listeners: Mutex<HashMap<u64, Arc<ListenerState>>>,
    next_token: AtomicU64,
    half_open: Arc<AtomicUsize>,
    /// Connections that had more completions than their turn was long; the bell is rung for them.
    again: Mutex<Vec<u64>>,
    bell: OwnedFd,
    spins: usize,
    ending: AtomicBool,
}

/// One of the connections that are not made yet, while it is there.
pub(super) struct HalfOpen(Arc<AtomicUsize>);

impl HalfOpen {
    /// One more, unless there are `most`.
    fn enter(count: &Arc<AtomicUsize>, most: usize) -> Option<HalfOpen> {
        let entered = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < most).then_some(n + 1));
        entered.ok().map(|_| HalfOpen(count.clone()))
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Clone)]
struct DeviceState {
    device: Arc<Device>,
    channel: Arc<CompletionChannel>,
    /// Shared by the connections; with registrations each time, every connection has its own.
    domain: Arc<Domain>,
    receive: Arc<ReceiveQueue>,
}

struct ListenerState {
    on_connection: OnConnection,
    _id: Mutex<CmId>,
}

/// Listens until it is dropped.
pub struct Entrance {
    token: u64,
    driver: Weak<Driver>,
    /// Where.
    pub local: SocketAddr,
}

impl Drop for Entrance {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.upgrade() {
            let state = driver.listeners.lock().remove(&self.token);
            drop(state);
        }
    }
}

impl AsFd for Driver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Driver {
    /// # Errors
    /// `Unsupported` with the reason where there is no library or device; out of descriptors.
    pub fn new(config: DriverConfig) -> io::Result<Arc<Driver>> {
        super::check().map_err(|reason| {
            io::Error::new(io::ErrorKind::Unsupported, format!("RDMA is not available here: {reason}"))
        })?;
        let cm = EventChannel::new()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let every = Itimerspec { it_interval: second, it_value: second };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &*cm, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        let bell = rustix::event::eventfd(0, flags)?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(2), epoll::EventFlags::IN)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Arc::new_cyclic(|this| Driver {
            this: this.clone(),
            config,
            epoll,
            timer,
            cm,
            devices: Mutex::default(),
            connections: Mutex::default(),
            listeners: Mutex::default(),
            next_token: AtomicU64::new(2),
            half_open: Arc::default(),
            again: Mutex::default(),
            bell,
            spins: if cpus >= SPARE_CPUS { SPINS } else { 0 },
            ending: AtomicBool::new(false),
        }))
    }

    /// A thread that runs it until the last handle to the driver is gone, or [`Driver::end`].
    ///
    /// # Errors
    /// No thread.
    pub fn start_thread(self: &Arc<Driver>, name: &str) -> io::Result<std::thread::JoinHandle<()>> {
        let weak = Arc::downgrade(self);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(driver) = weak.upgrade() {
                if driver.ending.load(Ordering::Acquire) {
                    return;
                }
                let mut poll = [rustix::event::PollFd::new(&driver.epoll, rustix::event::PollFlags::IN)];
                let quarter = rustix::event::Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
                if rustix::event::poll(&mut poll, Some(&quarter)).is_ok_and(|ready| ready > 0) {
                    driver.progress();
                }
            }
        })
    }

    /// The state of all connections, a line for each.
    pub fn describe(&self) -> Vec<String> {
        let all: Vec<Arc<Connection>> = self.connections.lock().values().cloned().collect();
        all.iter().map(|connection| connection.describe()).collect()
    }

    /// Closes all connections, and ends the thread.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        let all: Vec<Arc<Connection>> = self.connections.lock().values().cloned().collect();
        for connection in all {
            connection.close();
        }
    }

    /// Whether [`Driver::end`] was called.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Does all there is to do, without waiting.
    pub fn progress(&self) {
        let mut expired = [0; 8];
        if rustix::io::read(&self.timer, &mut expired).is_ok() {
            let now = Instant::now();
            let all: Vec<Arc<Connection>> = self.connections.lock().values().cloned().collect();
            for connection in all {
                connection.tick(now);
            }
        }
        // Not until there are none: what is left makes the descriptors readable again.
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.cm.next() else { break };
            self.handle(event);
        }
        let devices: Vec<DeviceState> = self.devices.lock().clone();
        let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
        for token in std::mem::take(&mut *self.again.lock()) {
            self.complete(token);
        }
        for state in devices {
            while let Some(event) = state.device.next_event() {
                if event.is_error {
                    tracing::error!(device = %state.device.name, event = %event.name, "RDMA device");
                } else {
                    tracing::debug!(device = %state.device.name, event = %event.name, "RDMA device");
                }
            }
            for _ in 0..EVENTS_PER_TURN {
                let Some(token) = state.channel.next() else { break };
                self.complete(token);
            }
        }
    }

    fn complete(&self, token: u64) {
        let connection = self.connections.lock().get(&token).cloned();
        if connection.is_some_and(|connection| connection.complete(self.spins)) {
            self.again.lock().push(token);
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    fn token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts to connect; [`Connection::poll_connected`] tells how it went.
    ///
    /// # Errors
    /// What fails at once.
    pub fn connect(self: &Arc<Driver>, address: SocketAddr) -> io::Result<Arc<Connection>> {
        let token = self.token();
        let connection = Arc::new(Connection::new(token, self.config.role, Arc::downgrade(self)));
        let id = CmId::new(&self.cm, token)?;
        self.connections.lock().insert(token, connection.clone());
        let started = connection.with(|inner| inner.id.insert(id).resolve_address(address, RESOLVE_MS));
        if let Err(error) = started {
            connection.fail(error.kind(), &error.to_string());
            self.forget(token);
            return Err(error);
        }
        Ok(connection)
    }

    /// Listens on every RDMA device behind `address`.
    ///
    /// # Errors
    /// The address is taken, or not here.
    pub fn listen(self: &Arc<Driver>, address: SocketAddr, on_connection: OnConnection) -> io::Result<Entrance> {
        let token = self.token();
        let mut id = CmId::new(&self.cm, token)?;
        id.listen(address, BACKLOG)
            .map_err(|error| io::Error::new(error.kind(), format!("listening on {address} over RDMA: {error}")))?;
        let local = id.addresses().0.unwrap_or(address);
        self.listeners.lock().insert(token, Arc::new(ListenerState { on_connection, _id: Mutex::new(id) }));
        Ok(Entrance { token, driver: Arc::downgrade(self), local })
    }

    pub(super) fn forget(&self, token: u64) {
        let connection = self.connections.lock().remove(&token);
        drop(connection);
    }

    fn uses_windows(&self, device: &Device) -> bool {
        let wanted = match self.config.windows {
            Windows::Auto => !device.limits.rxe,
            Windows::Always => true,
            Windows::Never => false,
        };
        self.config.role == Role::Client && wanted && device.limits.windows
    }

    fn device_of(&self, id: &CmId) -> io::Result<DeviceState> {
        let mut devices = self.devices.lock();
        if let Some(state) = devices.iter().find(|state| state.device.is_of(id)) {
            return Ok(state.clone());
        }
        let device = Device::of(id)?;
        let channel = CompletionChannel::new(device.clone())?;
        let windows = self.uses_windows(&device);
        let (domain, receive) = domain_of(&device, windows)?;
        epoll::add(&self.epoll, &*channel, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
        device.watch_events()?;
        epoll::add(&self.epoll, &*device, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
        match self.config.role {
            Role::Client if windows => {
                tracing::info!(device = %device.name, "RDMA: memory is exposed through type-2 windows, one for each request");
            }
            Role::Client => tracing::info!(
                device = %device.name,
                why = if device.limits.windows { "its memory windows are not used" } else { "it has no type-2 memory windows" },
                "RDMA: memory is registered for each request, in a protection domain per connection"
            ),
            Role::Brick => tracing::info!(device = %device.name, "RDMA device in use"),
        }
        let state = DeviceState { device, channel, domain, receive };
        devices.push(state.clone());
        Ok(state)
    }

    /// Gives a connection its queue pair.
    fn equip(&self, connection: &Connection, id: CmId) -> io::Result<()> {
        let state = self.device_of(&id)?;
        let windows = self.uses_windows(&state.device);
        let (domain, receive) = match self.config.role {
            Role::Client if !windows => domain_of(&state.device, false)?,
            _ => (state.domain, state.receive),
        };
        connection.with(|inner| {
            inner.note_addresses(&id);
            inner.medium = format!("verbs on {}", state.device.name);
            inner.domain = Some(domain.clone());
            inner.receive = Some(receive.clone());
        });
        let config = EndpointConfig {
            token: connection.token,
            domain,
            channel: state.channel,
            receive,
            slots: SLOTS,
            other_entries: OTHER_ENTRIES,
            windows,
        };
        let endpoint = Endpoint::new(id, config)?;
        connection.with(|inner| inner.endpoint = Some(endpoint));
        Ok(())
    }

    fn hello(&self) -> [u8; super::wire::HELLO_BYTES] {
        // Every device that can be used understands it: the kernel checks the key.
        let invalidate = {
            let devices = self.devices.lock();
            self.config.role == Role::Client
                && !devices.is_empty()
                && devices.iter().all(|state| self.uses_windows(&state.device))
        };
        Hello { inline_bytes: INLINE_BYTES as u32, credits: WINDOW, invalidate }.encode()
    }

    fn handle(&self, event: CmEvent) {
        if event.kind == CmEventKind::ConnectRequest {
            return self.requested(event);
        }
        let connection = self.connections.lock().get(&event.token).cloned();
        let Some(connection) = connection else { return };
        let result = match event.kind {
            CmEventKind::AddressResolved => {
                connection.with(|inner| inner.id.as_mut().map_or(Ok(()), |id| id.resolve_route(RESOLVE_MS)))
            }
            CmEventKind::RouteResolved => self.route_resolved(&connection),
            CmEventKind::Established => self.established(&connection, &event),
            CmEventKind::Failed(what) => {
                let kind = match what {
                    "rejected" => io::ErrorKind::ConnectionRefused,
                    _ => io::ErrorKind::HostUnreachable,
                };
                let said = String::from_utf8_lossy(&event.private_data).trim_matches('\0').to_owned();
                let reason = if said.is_empty() { format!("status {}", event.status) } else { said };
                Err(io::Error::new(kind, format!("RDMA: {what} ({reason})")))
            }
            CmEventKind::Disconnected => {
                connection.fail(io::ErrorKind::UnexpectedEof, "the peer closed the connection");
                Ok(())
            }
            CmEventKind::DeviceRemoved => Err(io::Error::other("the RDMA device was removed")),
            CmEventKind::ConnectRequest | CmEventKind::Other => Ok(()),
        };
        if let Err(error) = result {
            connection.fail(error.kind(), &error.to_string());
        }
    }

    fn route_resolved(&self, connection: &Connection) -> io::Result<()> {
        let Some(id) = connection.with(|inner| inner.id.take()) else { return Ok(()) };
        self.equip(connection, id)?;
        let hello = self.hello();
        connection.with(|inner| {
            let Some(endpoint) = inner.endpoint.as_mut() else { return Ok(()) };
            let limits = endpoint.limits();
            let parameters = Parameters {
                responder_resources: limits.responder_resources,
                initiator_depth: 1.min(limits.initiator_depth),
            };
            endpoint.id().connect(parameters, &hello)
        })
    }

    fn established(&self, connection: &Arc<Connection>, event: &CmEvent) -> io::Result<()> {
        match self.config.role {
            Role::Client => {
                let hello = Hello::decode(&event.private_data)?;
                connection.with(|inner| {
                    inner.hear_hello(hello);
                    inner.set_established();
                });
            }
            Role::Brick => {
                let listener = connection.with(|inner| {
                    inner.set_established();
                    inner.listener.take()
                });
                let listener = listener.and_then(|token| self.listeners.lock().get(&token).cloned());
                match listener {
                    Some(listener) => (listener.on_connection)(connection.clone()),
                    None => connection.close(),
                }
            }
        }
        Ok(())
    }

    /// A client asks for a connection.
    fn requested(&self, event: CmEvent) {
        let Some(mut id) = event.request else { return };
        let (_, peer) = id.addresses();
        let refuse = |id: CmId, why: &str| {
            tracing::warn!(?peer, why, "RDMA connection refused");
            id.reject(why.as_bytes().get(..why.len().min(100)).unwrap_or_default());
        };
        let hello = match Hello::decode(&event.private_data) {
            Ok(hello) => hello,
            Err(error) => return refuse(id, &error.to_string()),
        };
        if self.is_ending() || !self.listeners.lock().contains_key(&event.token) {
            return refuse(id, "ending");
        }
        let Some(half_open) = HalfOpen::enter(&self.half_open, MOST_HALF_OPEN) else {
            return refuse(id, "too many connections at once");
        };
        let token = self.token();
        id.set_token(token);
        let connection = Arc::new(Connection::new(token, Role::Brick, self.this.clone()));
        connection.with(|inner| {
            inner.hear_hello(hello);
            inner.listener = Some(event.token);
            inner.half_open = Some(half_open);
        });
        self.connections.lock().insert(token, connection.clone());
        let accepted = self.equip(&connection, id).and_then(|()| {
            let hello = self.hello();
            connection.with(|inner| {
                let Some(endpoint) = inner.endpoint.as_mut() else { return Ok(()) };
                let limits = endpoint.limits();
                let parameters = Parameters {
                    // Clients read nothing of ours.
                    responder_resources: 1.min(limits.responder_resources),
                    initiator_depth: event.parameters.initiator_depth.min(limits.initiator_depth).max(1),
                };
                endpoint.id().accept(parameters, &hello)
            })
        });
        if let Err(error) = accepted {
            tracing::warn!(?peer, %error, "RDMA connection not accepted");
            connection.fail(error.kind(), &error.to_string());
            self.forget(token);
        }
    }
}

fn domain_of(device: &Arc<Device>, binds: bool) -> io::Result<(Arc<Domain>, Arc<ReceiveQueue>)> {
    let domain = Domain::new(device.clone(), binds, BUFFERS_MAX_BYTES, BUFFERS_RESERVE_BYTES)?;
    let most = MOST_RECEIVES.min((device.limits.max_cqe as usize).saturating_sub(OTHER_ENTRIES));
    let receive = ReceiveQueue::new(&domain, FIRST_RECEIVES, most, INLINE_BYTES)?;
    Ok((domain, receive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_not_made_yet_are_limited() {
        let count = Arc::default();
        let first = HalfOpen::enter(&count, 2);
        let second = HalfOpen::enter(&count, 2);
        assert!(first.is_some() && second.is_some());
        assert!(HalfOpen::enter(&count, 2).is_none());
        drop(first);
        assert!(HalfOpen::enter(&count, 2).is_some());
        drop(second);
        assert_eq!(count.load(Ordering::Acquire), 0);
    }
}
