//! How an operation on a volume fails.

use ladrillo_translator::error::errno;
use ladrillo_translator::{FopError, Reply};

/// An errno, and what failed in words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} (errno {errno})")]
pub struct Error {
    errno: i32,
    message: String,
}

/// What operations on a volume give.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(super) fn new(errno: i32, message: impl Into<String>) -> Error {
        Error { errno, message: message.into() }
    }

    /// The Linux errno.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Whether there is no such file or directory.
    pub fn is_not_found(&self) -> bool {
        self.errno == errno::ENOENT
    }

    /// The volume was closed, or its thread has ended.
    pub(super) fn ended() -> Error {
        Error::new(errno::ENOTCONN, "the volume is closed")
    }
}

impl From<FopError> for Error {
    fn from(error: FopError) -> Error {
        Error { errno: error.errno, message: error.message.into_owned() }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        let kind = std::io::Error::from_raw_os_error(error.errno).kind();
        std::io::Error::new(kind, error)
    }
}

/// A reply of a kind that does not answer the fop: a translator is wrong.
pub(super) fn unexpected(reply: &Reply) -> FopError {
    let kind = format!("{reply:?}");
    let kind = kind.split([' ', '{']).next().unwrap_or_default();
    FopError::new(errno::EIO, format!("the graph answered {kind}, which is no answer to this fop"))
}
