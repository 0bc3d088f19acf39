//! `--dump-fuse`: every request and answer of a mount as it crosses /dev/fuse, into a file.
//!
//! A record is `R` (from the kernel) or `W` (to it), a count of 3 (u32), then so many items that begin with their own
//! length (u32): the time (seconds u64, nanoseconds u32), a signature, the message. All in host byte order, nothing is
//! padded. Source: fuse-bridge.c of GlusterFS 10.3; extras/fuse-dump readers take it.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

const SIGNATURE: [u8; 8] = *b"GLUSTER\xf5";
const HEAD_BYTES: usize = 1 + 4 + 16 + 12;

/// From or to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A request.
    FromKernel = b'R' as isize,
    /// An answer.
    ToKernel = b'W' as isize,
}

/// A dump that is being written. It waits for its file's disk: for looking at a mount, not for working with it.
#[derive(Debug)]
pub struct FuseDump(Mutex<Option<File>>);

impl FuseDump {
    /// Into a new file; an old one goes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path) -> io::Result<FuseDump> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(FuseDump(Mutex::new(Some(file))))
    }

    /// Adds a message. When the file takes no more, the dump ends and the log says so.
    pub fn record(&self, way: Way, parts: &[&[u8]]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.push(way as u8);
        head.extend_from_slice(&3u32.to_ne_bytes());
        head.extend_from_slice(&16u32.to_ne_bytes());
        head.extend_from_slice(&now.as_secs().to_ne_bytes());
        head.extend_from_slice(&now.subsec_nanos().to_ne_bytes());
        head.extend_from_slice(&12u32.to_ne_bytes());
        head.extend_from_slice(&SIGNATURE);
        let all = [&head[..]].into_iter().chain(parts.iter().copied());
        let mut slices: Vec<IoSlice<'_>> = all.map(IoSlice::new).collect();
        let mut slices = &mut slices[..];
        let mut file = self.0.lock();
        let Some(to) = file.as_mut() else { return };
        while !slices.is_empty() {
            let written = match to.write_vectored(slices) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            };
            match written {
                Ok(count) => IoSlice::advance_slices(&mut slices, count),
                Err(error) => {
                    tracing::error!("the dump of FUSE messages ends here: {error}");
                    *file = None;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_glusterfs_s() {
        let path = std::env::temp_dir().join(format!("ladrillo-dump-{}", std::process::id()));
        std::fs::write(&path, "old").unwrap();
        let dump = FuseDump::create(&path).unwrap();
        dump.record(Way::FromKernel, &[b"request"]);
        dump.record(Way::ToKernel, &[b"ans", b"wer"]);
        let raw = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(raw.len(), 2 * HEAD_BYTES + 7 + 6);
        assert_eq!((raw[0], &raw[1..5], &raw[5..9]), (b'R', &3u32.to_ne_bytes()[..], &16u32.to_ne_bytes()[..]));
        assert_eq!((&raw[25..33], &raw[33..40], raw[40]), (&SIGNATURE[..], &b"request"[..], b'W'));
        assert!(raw.ends_with(b"answer"));
        assert!(FuseDump::create(Path::new("/no/such/place")).is_err());
    }
}
