//! libibverbs and librdmacm made safe: the only unsafe code of the transport.
//!
//! What makes it safe: memory that a device may touch belongs to the object that let it ([`Endpoint`], [`ReceiveQueue`])
//! and comes back with the completion that says the device is done, or after the queue pair is gone. Nothing here knows
//! the protocol.

mod cm;
mod library;
mod memory;
mod queue;

pub use cm::{CmEvent, CmEventKind, CmId, EventChannel, Parameters};
pub use memory::{Buffer, Device, Domain};
pub use queue::{Access, CompletionChannel, Concealed, Done, Endpoint, EndpointConfig, Held, Part, ReceiveQueue, Work};

use std::io;

use library::{Libraries, libraries};

/// Whether verbs can be used here: the libraries are there, and a device. The text says what is missing and what to do.
///
/// # Errors
/// Why not.
pub fn check() -> Result<Vec<String>, String> {
    let library = libraries().map_err(|e| format!("{e}: install libibverbs1, librdmacm1 and ibverbs-providers"))?;
    let mut count = 0;
    // SAFETY: `count` is written to; the list ends with a null pointer.
    let list = unsafe { (library.cm.rdma_get_devices)(&raw mut count) };
    if list.is_null() {
        let error = io::Error::last_os_error();
        return Err(format!("no RDMA device ({error}): see `rdma link`, and whether rdma_cm and ib_uverbs are loaded"));
    }
    let mut names = Vec::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the list has `count` entries, valid until it is freed.
        let context = unsafe { *list.add(index) };
        if !context.is_null() {
            names.push(memory::device_name(library, context));
        }
    }
    // SAFETY: the list is the library's, not used after.
    unsafe { (library.cm.rdma_free_devices)(list) };
    if names.is_empty() {
        return Err("no RDMA device: see `rdma link`".to_owned());
    }
    Ok(names)
}

fn loaded() -> io::Result<&'static Libraries> {
    libraries().map_err(|e| io::Error::new(io::ErrorKind::Unsupported, e))
}

/// What a function that gives -1 or an errno has said.
fn result(what: &str, code: i32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code if code > 0 => Err(named(what, &io::Error::from_raw_os_error(code))),
        _ => Err(named(what, &io::Error::last_os_error())),
    }
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Makes a descriptor of the libraries non-blocking.
fn set_nonblocking(fd: i32) -> io::Result<()> {
    // SAFETY: plain calls on a descriptor that is open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
