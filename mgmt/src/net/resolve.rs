//! Names of addresses.

use std::ffi::CStr;
use std::mem;
use std::net::{IpAddr, SocketAddr};

/// The name the system's resolver (hosts file, then DNS) has for an address; `None` when it has none. Blocks.
pub fn name_of(address: IpAddr) -> Option<String> {
    let address = socket2::SockAddr::from(SocketAddr::new(address, 0));
    let mut name = [0 as libc::c_char; 1025];
    // SAFETY: `address` is a valid socket address of the given length, `name` is writable for its length, no service name is
    // asked for (null, 0), and getnameinfo keeps none of the pointers.
    let status = unsafe {
        libc::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            name.as_mut_ptr(),
            mem::size_of_val(&name) as libc::socklen_t,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if status != 0 {
        return None;
    }
    // SAFETY: on success the buffer holds a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_str().ok()?;
    // A loopback name says nothing to another machine.
    (name != "localhost" && crate::option::is_host_name(name)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_name_has_none() {
        assert_eq!(name_of("127.77.66.55".parse().unwrap()), None);
    }
}
