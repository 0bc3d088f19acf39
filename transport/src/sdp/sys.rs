//! rsockets of librdmacm, loaded when first asked for: a program that runs on TCP needs no RDMA library.
//!
//! All that is unsafe about them is here. An rsocket's number is no descriptor to be used with system calls; only the
//! library's functions, which look like the socket calls, take it (librdmacm's rsocket(7)).

use std::ffi::{c_int, c_void};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::OnceLock;

use bytes::BytesMut;
use libc::{iovec, pollfd, sockaddr, sockaddr_storage, socklen_t};

/// The library, by the name it has had since 2010.
const LIBRARY: &str = "librdmacm.so.1";

type NumberAddress = unsafe extern "C" fn(c_int, *const sockaddr, socklen_t) -> c_int;
type NumberName = unsafe extern "C" fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int;

/// The library's functions (rdma/rsocket.h).
struct Library {
    rsocket: unsafe extern "C" fn(c_int, c_int, c_int) -> c_int,
    rbind: NumberAddress,
    rconnect: NumberAddress,
    rlisten: unsafe extern "C" fn(c_int, c_int) -> c_int,
    raccept: NumberName,
    rgetpeername: NumberName,
    rgetsockname: NumberName,
    rshutdown: unsafe extern "C" fn(c_int, c_int) -> c_int,
    rclose: unsafe extern "C" fn(c_int) -> c_int,
    rrecv: unsafe extern "C" fn(c_int, *mut c_void, usize, c_int) -> isize,
    rwritev: unsafe extern "C" fn(c_int, *const iovec, c_int) -> isize,
    rpoll: unsafe extern "C" fn(*mut pollfd, libc::nfds_t, c_int) -> c_int,
    rsetsockopt: unsafe extern "C" fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    rgetsockopt: unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int,
    rfcntl: unsafe extern "C" fn(c_int, c_int, ...) -> c_int,
    /// Keeps it loaded.
    _loaded: libloading::Library,
}

impl Library {
    fn load() -> Result<Library, String> {
        let missing = |e: libloading::Error| {
            format!("{LIBRARY} cannot be used ({e}): install librdmacm1 (rdma-core), or use transport tcp")
        };
        // SAFETY: librdmacm's initialisers do nothing but set up its own tables.
        let loaded = unsafe { libloading::Library::new(LIBRARY) }.map_err(missing)?;
        // SAFETY: each name is asked for with the type that rdma/rsocket.h gives it; the pointers live in the struct
        // that keeps the library loaded.
        unsafe {
            Ok(Library {
                rsocket: *loaded.get(b"rsocket\0").map_err(missing)?,
                rbind: *loaded.get(b"rbind\0").map_err(missing)?,
                rconnect: *loaded.get(b"rconnect\0").map_err(missing)?,
                rlisten: *loaded.get(b"rlisten\0").map_err(missing)?,
                raccept: *loaded.get(b"raccept\0").map_err(missing)?,
                rgetpeername: *loaded.get(b"rgetpeername\0").map_err(missing)?,
                rgetsockname: *loaded.get(b"rgetsockname\0").map_err(missing)?,
                rshutdown: *loaded.get(b"rshutdown\0").map_err(missing)?,
                rclose: *loaded.get(b"rclose\0").map_err(missing)?,
                rrecv: *loaded.get(b"rrecv\0").map_err(missing)?,
                rwritev: *loaded.get(b"rwritev\0").map_err(missing)?,
                rpoll: *loaded.get(b"rpoll\0").map_err(missing)?,
                rsetsockopt: *loaded.get(b"rsetsockopt\0").map_err(missing)?,
                rgetsockopt: *loaded.get(b"rgetsockopt\0").map_err(missing)?,
                rfcntl: *loaded.get(b"rfcntl\0").map_err(missing)?,
                _loaded: loaded,
            })
        }
    }

    fn get() -> io::Result<&'static Library> {
        static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
        match LOADED.get_or_init(Library::load) {
            Ok(library) => Ok(library),
            Err(reason) => Err(io::Error::new(io::ErrorKind::Unsupported, reason.clone())),
        }
    }
}

/// An rsocket that does not block; closed when dropped (which may wait for the peer: do it where that is no harm).
pub struct Rsocket {
    number: c_int,
    library: &'static Library,
}

/// What [`poll`] looks for, and has found.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// An rsocket's number, or a descriptor of the kernel's.
    pub number: c_int,
    /// `POLLIN`, `POLLOUT`.
    pub wanted: i16,
    /// What there is, `POLLERR` and `POLLHUP` among it.
    pub found: i16,
}

impl Rsocket {
    /// A new one for addresses like `address`.
    ///
    /// # Errors
    /// `Unsupported`, with the reason, where the library or an RDMA device is missing.
    pub fn new(address: SocketAddr) -> io::Result<Rsocket> {
        let library = Library::get()?;
        library.stretch();
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: plain numbers.
        let number = unsafe { (library.rsocket)(family, libc::SOCK_STREAM, 0) };
        if number < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ENODEV | libc::ENOENT | libc::ENOSYS | libc::EPERM | libc::EACCES) => io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!(
                        "no RDMA device can be used here ({error}): look at `rdma link` and /dev/infiniband/rdma_cm, load \
                         the card's driver (or rdma_rxe for software RDMA), or use transport tcp"
                    ),
                ),
                _ => error,
            });
        }
        Ok(Rsocket { number, library })
    }

    /// Its number, for [`poll`].
    pub fn number(&self) -> c_int {
        self.number
    }

    /// Sets an option that is a number.
    ///
    /// # Errors
    /// The library's.
    pub fn set_option(&self, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
        let length = size_of::<c_int>() as socklen_t;
        // SAFETY: the value lives until the call returns, and `length` is its size.
        check(unsafe { (self.library.rsetsockopt)(self.number, level, option, (&raw const value).cast(), length) })
            .map(drop)
    }

    /// The error it is in, 0 for none (SO_ERROR).
    pub fn error(&self) -> c_int {
        let mut value: c_int = 0;
        let mut length = size_of::<c_int>() as socklen_t;
        // SAFETY: both live until the call returns, and `length` is the value's size.
        let result = unsafe {
            (self.library.rgetsockopt)(
                self.number,
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        if result == 0 { value } else { 0 }
    }

    /// From now on nothing waits.
    ///
    /// # Errors
    /// The library's.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        // SAFETY: F_SETFL takes one int.
        check(unsafe { (self.library.rfcntl)(self.number, libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
    }

    /// Takes an address.
    ///
    /// # Errors
    /// It is taken, or not that of an RDMA device.
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        let address = socket2::SockAddr::from(address);
        // SAFETY: the address lives until the call returns, and the length is its own.
        check(unsafe { (self.library.rbind)(self.number, address.as_ptr().cast(), address.len()) }).map(drop)
    }

    /// Waits for connections.
    ///
    /// # Errors
    /// The library's.
    pub fn listen(&self, backlog: c_int) -> io::Result<()> {
        // SAFETY: plain numbers.
        check(unsafe { (self.library.rlisten)(self.number, backlog) }).map(drop)
    }

    /// Connects; `WouldBlock`, where it does not block: [`poll`] goes on with it.
    ///
    /// # Errors
    /// The library's.
    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        let address = socket2::SockAddr::from(address);
        // SAFETY: the address lives until the call returns, and the length is its own.
        let result = unsafe { (self.library.rconnect)(self.number, address.as_ptr().cast(), address.len()) };
        match check(result) {
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Err(io::ErrorKind::WouldBlock.into()),
            other => other.map(drop),
        }
    }

    /// The next connection, which does not block either; `WouldBlock` when there is none.
    ///
    /// # Errors
    /// The library's; the next may be fine.
    pub fn accept(&self) -> io::Result<Rsocket> {
        // SAFETY: null pointers: the address is asked for later.
        let number = check(unsafe { (self.library.raccept)(self.number, std::ptr::null_mut(), std::ptr::null_mut()) })?;
        let accepted = Rsocket { number, library: self.library };
        accepted.set_nonblocking()?;
        Ok(accepted)
    }

    /// The other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.name(self.library.rgetpeername)
    }

    /// This end.
    pub fn local(&self) -> Option<SocketAddr> {
        self.name(self.library.rgetsockname)
    }

    fn name(&self, ask: NumberName) -> Option<SocketAddr> {
        let mut storage = MaybeUninit::<sockaddr_storage>::zeroed();
        let mut length = size_of::<sockaddr_storage>() as socklen_t;
        // SAFETY: the storage lives until the call returns, and `length` is its size.
        check(unsafe { ask(self.number, storage.as_mut_ptr().cast(), &raw mut length) }).ok()?;
        // SAFETY: all of it was zeroed, which is a valid address of no family; the library wrote a part.
        let storage = unsafe { storage.assume_init() };
        match c_int::from(storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: an address of this family has this shape, and the storage is bigger and aligned for it.
                let v4 = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in>() };
                Some(SocketAddr::new(u32::from_be(v4.sin_addr.s_addr).to_be_bytes().into(), u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in6>() };
                Some(SocketAddr::new(v6.sin6_addr.s6_addr.into(), u16::from_be(v6.sin6_port)))
            }
            _ => None,
        }
    }

    /// Receives into the spare capacity of `buffer`, at most `wanted` bytes; 0 at the end. `WouldBlock` when nothing is
    /// there.
    ///
    /// # Errors
    /// The connection's.
    pub fn receive(&self, buffer: &mut BytesMut, wanted: usize) -> io::Result<usize> {
        let spare = buffer.spare_capacity_mut();
        let room = wanted.min(spare.len());
        // SAFETY: `spare` is ours to write for `room` bytes.
        let received = unsafe { (self.library.rrecv)(self.number, spare.as_mut_ptr().cast(), room, 0) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        assert!(received <= room, "no more than was asked for");
        // SAFETY: the library has written `received` bytes behind the current length.
        unsafe { buffer.set_len(buffer.len() + received) };
        Ok(received)
    }

    /// Sends what can go at once. `WouldBlock` when nothing can.
    ///
    /// # Errors
    /// The connection's.
    pub fn send(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = c_int::try_from(pieces.len()).unwrap_or(c_int::MAX);
        // SAFETY: an IoSlice is an iovec; they and what they point to live until the call returns.
        let sent = unsafe { (self.library.rwritev)(self.number, pieces.as_ptr().cast(), count) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Tells the peer that this is the end. May wait until the peer has all that was sent or is found to be gone.
    pub fn shut_down(&self) {
        // SAFETY: plain numbers.
        unsafe { (self.library.rshutdown)(self.number, libc::SHUT_RDWR) };
    }
}

impl Drop for Rsocket {
    fn drop(&mut self) {
        // SAFETY: the number is ours, and nobody uses it after this.
        unsafe { (self.library.rclose)(self.number) };
    }
}

/// Waits until one of `interests` has what it wants. There is no time limit: see `driver`.
///
/// # Errors
/// The library's.
pub fn poll(interests: &mut [Interest]) -> io::Result<usize> {
    let library = Library::get()?;
    let mut fds: Vec<pollfd> =
        interests.iter().map(|i| pollfd { fd: i.number, events: i.wanted, revents: 0 }).collect();
    // SAFETY: the list lives until the call returns, and the number is its length.
    let count = unsafe { (library.rpoll)(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    for (interest, fd) in interests.iter_mut().zip(&fds) {
        interest.found = fd.revents;
    }
    Ok(count)
}

/// Most rsockets a process may have: each is looked at on every turn, and pins its buffers. Source: our bound.
const MAX_RSOCKETS: usize = 4096;
/// Since this version of rdma-core the library's own thread may watch any number of rsockets: before it goes on with
/// freed memory when its list grows under it (there: "rsockets: Fix for cm_svc_run thread", July 2024).
const GROWS_SINCE: u32 = 53;
/// How often the list is made longer beforehand with an older one, by how many at a time (4 in its source).
const STRETCHES: usize = 96;
const STRETCH: usize = 4;

/// How many rsockets this process may have at once.
///
/// # Errors
/// The library cannot be used.
pub fn max_rsockets() -> io::Result<usize> {
    Ok(if Library::get()?.grows() { MAX_RSOCKETS } else { STRETCHES * STRETCH - 2 })
}

impl Library {
    /// Whether its thread may watch any number: what it calls itself is `librdmacm.so.1.3.VERSION.N`.
    fn grows(&self) -> bool {
        static GROWS: OnceLock<bool> = OnceLock::new();
        *GROWS.get_or_init(|| {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
            let line = maps.lines().find(|line| line.contains("/librdmacm.so."));
            let version = line.and_then(|line| line.rsplit_once(".so.1.3.")).and_then(|(_, v)| v.split('.').next());
            version.and_then(|version| version.parse::<u32>().ok()).is_some_and(|version| version >= GROWS_SINCE)
        })
    }

    /// Makes the list of an old library's thread long before it is used. The thread begins with the first rsocket that
    /// connects and ends with the last; each time it begins it lengthens the list, which never shrinks.
    fn stretch(&'static self) {
        static DONE: OnceLock<()> = OnceLock::new();
        if self.grows() {
            return;
        }
        DONE.get_or_init(|| {
            let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
            for _ in 0..STRETCHES {
                // SAFETY: plain numbers.
                let number = unsafe { (self.rsocket)(libc::AF_INET, libc::SOCK_STREAM, 0) };
                if number < 0 {
                    return;
                }
                let socket = Rsocket { number, library: self };
                // Under way is all it has to be.
                let _ = socket.set_nonblocking().and_then(|()| socket.connect(nowhere));
            }
        });
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
