//! The kernel's own sockets for a stream over RDMA: AF_SMC (43) and AF_INET_SDP (27).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

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

/// What a kernel socket really is: `None` for one of neither family. An SMC socket whose other end, device or path is not
/// up to it is TCP all the same, and only sock_diag says so.
pub fn medium(socket: &impl AsFd) -> Option<String> {
    let domain = rustix::net::sockopt::socket_domain(socket).ok()?.as_raw();
    match i32::from(domain) {
        AF_SMC => Some(smc_medium(socket).unwrap_or_else(|error| format!("SMC (mode unknown: {error})"))),
        AF_INET_SDP => Some("SDP".to_owned()),
        _ => None,
    }
}

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` of linux/netlink.h; `NLMSG_ERROR` and `NLMSG_DONE`.
const REQUEST_DUMP: u16 = 0x001 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Bytes of struct nlmsghdr, and where struct smc_diag_msg (linux/smc_diag.h) behind it has its mode and its inode.
const HEADER_BYTES: usize = 16;
const MODE_AT: usize = HEADER_BYTES + 2;
const INODE_AT: usize = HEADER_BYTES + 56;
/// Most answers looked at.
const MAX_ANSWERS: usize = 4096;

fn smc_medium(socket: &impl AsFd) -> io::Result<String> {
    use rustix::net::{AddressFamily, SocketType, netlink, socket as open};
    let inode = rustix::fs::fstat(socket)?.st_ino;
    let diag = open(AddressFamily::NETLINK, SocketType::DGRAM, Some(netlink::SOCK_DIAG))?;
    let limit = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&diag, limit, Some(std::time::Duration::from_secs(1)))?;
    // nlmsghdr and struct smc_diag_req: family, padding, extensions, id (48 bytes).
    let mut request = vec![0u8; HEADER_BYTES + 4 + 48];
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request[HEADER_BYTES] = AF_SMC as u8;
    rustix::net::send(&diag, &request, rustix::net::SendFlags::empty())?;
    let mut buffer = vec![0u8; 64 << 10];
    for _ in 0..MAX_ANSWERS {
        let (received, _) = rustix::net::recv(&diag, &mut buffer[..], rustix::net::RecvFlags::empty())?;
        if let Some(outcome) = find(buffer.get(..received).unwrap_or_default(), inode) {
            return outcome;
        }
    }
    Err(io::Error::other("too many SMC sockets"))
}

/// The mode of the socket `inode` in a datagram of answers; `None`: not in this one.
fn find(mut answers: &[u8], inode: u64) -> Option<io::Result<String>> {
    let short = |at: usize, bytes: &[u8]| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize, bytes: &[u8]| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    while let (Some(length), Some(kind)) = (word(0, answers), short(4, answers)) {
        let length = (length as usize).max(HEADER_BYTES);
        let message = answers.get(..length)?;
        match kind {
            NLMSG_DONE => return Some(Err(io::Error::other("sock_diag does not list it"))),
            NLMSG_ERROR => {
                let errno = word(HEADER_BYTES, message).map_or(0, |code| -(code as i32));
                return Some(Err(io::Error::from_raw_os_error(errno)));
            }
            SOCK_DIAG_BY_FAMILY if message.get(INODE_AT..INODE_AT + 8).map(to_u64) == Some(inode) => {
                // SMC_DIAG_MODE_SMCR, _FALLBACK_TCP, _SMCD.
                return Some(Ok(match message.get(MODE_AT) {
                    Some(0) => "SMC-R".to_owned(),
                    Some(1) => "TCP (SMC fell back)".to_owned(),
                    Some(2) => "SMC-D".to_owned(),
                    other => format!("SMC (mode {other:?})"),
                }));
            }
            _ => {}
        }
        answers = answers.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn to_u64(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(inode: u64, mode: u8) -> Vec<u8> {
        let mut message = vec![0; INODE_AT + 8];
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message[MODE_AT] = mode;
        message[INODE_AT..].copy_from_slice(&inode.to_ne_bytes());
        message
    }

    #[test]
    fn sock_diags_answer_is_read() {
        let two = [answer(7, 0), answer(8, 1)].concat();
        assert_eq!(find(&two, 7).unwrap().unwrap(), "SMC-R");
        assert_eq!(find(&two, 8).unwrap().unwrap(), "TCP (SMC fell back)");
        assert!(find(&two, 9).is_none());
        let mut done = vec![0; 20];
        done[0] = 20;
        done[4] = NLMSG_DONE as u8;
        assert!(find(&[two, done].concat(), 9).unwrap().is_err());
        for cut in 0..=80 {
            let _ = find(&answer(7, 0)[..cut], 7);
        }
    }

    #[test]
    fn a_tcp_socket_is_neither() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(medium(&socket), None);
    }
}
