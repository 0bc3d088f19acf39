//! How a fop fails: an errno for the application, a sentence for the log, a dict for the caller.

use std::borrow::Cow;

use crate::{Dict, Reply};

/// Linux errno values this project names. On the wire GlusterFS sends its own numbers, equal to Linux's.
#[allow(missing_docs)]
pub mod errno {
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const EINTR: i32 = 4;
    pub const EIO: i32 = 5;
    pub const ENXIO: i32 = 6;
    pub const EBADF: i32 = 9;
    pub const EAGAIN: i32 = 11;
    pub const ENOMEM: i32 = 12;
    pub const EACCES: i32 = 13;
    pub const EBUSY: i32 = 16;
    pub const EEXIST: i32 = 17;
    pub const EXDEV: i32 = 18;
    pub const ENODEV: i32 = 19;
    pub const ENOTDIR: i32 = 20;
    pub const EISDIR: i32 = 21;
    pub const EINVAL: i32 = 22;
    pub const EFBIG: i32 = 27;
    pub const ENOSPC: i32 = 28;
    pub const EROFS: i32 = 30;
    pub const EMLINK: i32 = 31;
    pub const ERANGE: i32 = 34;
    pub const EDEADLK: i32 = 35;
    pub const ENAMETOOLONG: i32 = 36;
    pub const ENOLCK: i32 = 37;
    pub const ENOSYS: i32 = 38;
    pub const ENOTEMPTY: i32 = 39;
    pub const ENODATA: i32 = 61;
    pub const EPROTO: i32 = 71;
    pub const EOVERFLOW: i32 = 75;
    pub const EBADFD: i32 = 77;
    pub const EMSGSIZE: i32 = 90;
    pub const EOPNOTSUPP: i32 = 95;
    pub const ECONNABORTED: i32 = 103;
    pub const ENOTCONN: i32 = 107;
    pub const ETIMEDOUT: i32 = 110;
    pub const ESTALE: i32 = 116;
    pub const EDQUOT: i32 = 122;
    pub const ECANCELED: i32 = 125;
}

/// A failed fop.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} (errno {errno})")]
pub struct FopError {
    /// What the application gets (a positive Linux errno).
    pub errno: i32,
    /// What the log says: what failed, where.
    pub message: Cow<'static, str>,
    /// What the failing side sent along (pre/post attributes, link-counts, ...); boxed, as it is rare.
    pub xdata: Option<Box<Dict>>,
}

/// The outcome of a fop.
pub type FopResult<T = Reply> = Result<T, FopError>;

impl FopError {
    /// An errno and what failed.
    pub fn new(errno: i32, message: impl Into<Cow<'static, str>>) -> FopError {
        debug_assert!(errno > 0, "errno {errno} is not positive");
        FopError { errno, message: message.into(), xdata: None }
    }

    /// The same with the dict of the side that failed.
    pub fn with_xdata(mut self, xdata: Dict) -> FopError {
        if !xdata.is_empty() {
            self.xdata = Some(Box::new(xdata));
        }
        self
    }

    /// From a system call's failure; EIO where the system gave no errno.
    pub fn from_io(error: &std::io::Error, what: &str) -> FopError {
        FopError::new(error.raw_os_error().filter(|e| *e > 0).unwrap_or(errno::EIO), format!("{what}: {error}"))
    }

    /// A child or peer that is not connected.
    pub fn not_connected(who: &str) -> FopError {
        FopError::new(errno::ENOTCONN, format!("{who} is not connected"))
    }
}
