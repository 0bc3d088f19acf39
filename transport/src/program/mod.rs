//! The GlusterFS programs, both sides of each: what is asked and answered, as Rust values with `encode` and `decode`.

pub mod callback;
pub mod dump;
pub mod extension;
pub mod fop4;
pub mod handshake;
pub mod portmap;

use bytes::Bytes;

use crate::Message;
use crate::xdr::Writer;

/// Longest path, key or name in the small programs, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// A body without file data.
fn body(writer: Writer) -> Message {
    Message { header: writer.finish(), ..Message::default() }
}

/// Text for logs and look-ups out of wire bytes.
fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
