//! This machine's addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a list of addresses is used.
const FRESH: Duration = Duration::from_secs(1);

static KNOWN: Mutex<Option<(Instant, Arc<[IpAddr]>)>> = Mutex::new(None);

/// Whether an address is one of this machine's: of an interface, or a loopback address (the whole of 127.0.0.0/8). The
/// interfaces are asked at most once a second. That one can bind to an address would prove nothing: with
/// net.ipv4.ip_nonlocal_bind one can to all.
pub fn is_local(address: IpAddr) -> bool {
    let address = address.to_canonical();
    if address.is_unspecified() {
        return false;
    }
    address.is_loopback() || known().contains(&address)
}

fn known() -> Arc<[IpAddr]> {
    let mut known = KNOWN.lock();
    if let Some((at, addresses)) = known.as_ref()
        && at.elapsed() < FRESH
    {
        return addresses.clone();
    }
    let addresses: Arc<[IpAddr]> = match addresses() {
        Ok(addresses) => addresses.into(),
        Err(error) => {
            tracing::warn!("addresses of this machine: {error}");
            Arc::default()
        }
    };
    *known = Some((Instant::now(), addresses.clone()));
    addresses
}

/// The addresses of all interfaces, as getifaddrs(3) lists them.
///
/// # Errors
/// Those of getifaddrs.
fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `first` is writable; on success it is a list that is freed below, once.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: not null, and an entry of the list, which lives until freeifaddrs.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: not null: a socket address, of which the family can always be read.
        let family = i32::from(unsafe { (*entry.ifa_addr).sa_family });
        match family {
            libc::AF_INET => {
                // SAFETY: the family says that this is a sockaddr_in; read_unaligned asks for no alignment.
                let address = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                found.push(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into());
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that this is a sockaddr_in6; read_unaligned asks for no alignment.
                let address = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                found.push(Ipv6Addr::from(address.sin6_addr.s6_addr).into());
            }
            _ => {}
        }
    }
    // SAFETY: `first` came from getifaddrs, is freed this once, and nothing points into the list any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_addresses_are_local() {
        for local in ["127.0.0.1", "127.1.1.3", "::1", "::ffff:127.0.0.1"] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        // Addresses for documentation (RFC 5737, RFC 3849): nobody's.
        for other in ["192.0.2.1", "2001:db8::1", "0.0.0.0", "::"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
        for own in addresses().unwrap() {
            assert!(is_local(own), "{own}");
        }
    }
}
