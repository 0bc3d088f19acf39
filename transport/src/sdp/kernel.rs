//! The kernel's own sockets for a stream over RDMA: AF_SMC (43) and AF_INET_SDP (27).

use std::io;
use std::net::SocketAddr;

use crate::Via;

/// `AF_SMC` of linux/socket.h.
const AF_SMC: i32 = 43;
/// `AF_INET_SDP` of OFED's kernels.
const AF_INET_SDP: i32 = 27;
/// `SMCPROTO_SMC6` of net/smc.h: SMC over IPv6; 0 is over IPv4.
const SMCPROTO_SMC6: i32 = 1;

/// A stream socket of the family, not connected.
///
/// # Errors
/// `Unsupported`, with the reason, where the kernel has no such family.
pub fn socket(via: Via, address: SocketAddr) -> io::Result<socket2::Socket> {
    let (family, protocol) = match via {
        Via::Smc => (AF_SMC, if address.is_ipv6() { SMCPROTO_SMC6 } else { 0 }),
        Via::InetSdp => (AF_INET_SDP, 0),
        Via::Rsocket => return Err(io::Error::other("rsockets are not the kernel's")),
    };
    let made =
        socket2::Socket::new(socket2::Domain::from(family), socket2::Type::STREAM.cloexec(), Some(protocol.into()));
    made.map_err(|error| match (error.raw_os_error(), via) {
        (Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT), Via::Smc) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel has no AF_SMC: load the module smc (kernel 4.11 and later), or use transport.sdp.via rsocket",
        ),
        (Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT), _) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel has no AF_INET_SDP, which only old OFED kernels had: use transport.sdp.via rsocket",
        ),
        _ => error,
    })
}
