//! The vocabulary both sides share: file operations ([`Fop`]), [`Gfid`], [`Iatt`], [`Dict`], errors with their
//! errno, and the [`Translator`] contract. No I/O, no runtime, no unsafe.
//!
//! Read first: [`fop`] (what can be asked), [`translator`] (who answers), [`error`] (how it fails).
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod context;
pub mod dict;
pub mod error;
pub mod fop;
pub mod gfid;
pub mod iatt;
pub mod locks;
pub mod memory;
pub mod option;
pub mod payload;
pub mod steps;
pub mod translator;
pub mod volfile;

pub use context::{ClientId, Context, LockOwner};
pub use dict::{Dict, Value};
pub use error::{FopError, FopResult};
pub use fop::{Fop, FopKind, Reply};
pub use gfid::Gfid;
pub use iatt::{FileType, Iatt, Timespec};
pub use option::{OptionError, OptionKind, OptionSpec, Options};
pub use payload::Payload;
pub use steps::{Step, StepsFuture};
pub use translator::{Event, FdId, FopFuture, LocalFuture, Parent, Runtime, Translator};
pub use volfile::{Volfile, VolfileError};
