//! Volumes for programs, without a mount: what libgfapi is to GlusterFS.
//!
//! [`Volume`] is the way in: open one by server and name, then use its files ([`File`]) and directories ([`ReadDir`]).
//! The futures here are `Send` and know no runtime: await them in tokio, in smol, or in
//! `futures::executor::block_on`; [`blocking`] has the same without futures. Each open volume has one thread of its own,
//! on which the graph of translators runs (replication, placement, connections to bricks).
//!
//! ```no_run
//! # async fn example() -> ladrillo_fuse_client::api::Result<()> {
//! use ladrillo_fuse_client::api::{OpenOptions, Volume};
//!
//! let volume = Volume::open("server1", "gv0").await?;
//! volume.create_dir_all("/projects/a", 0o755).await?;
//! let file = volume.open_with("/projects/a/notes", OpenOptions::new().read(true).write(true).create(0o644)).await?;
//! file.write_all_at(0, "first line\n").await?;
//! file.sync_all().await?; // durable on a quorum of bricks
//! assert_eq!(file.read_at(6, 100).await?, "line\n");
//! file.close().await?; // says what a write that was answered early came to
//!
//! let mut entries = volume.read_dir("/projects").await?;
//! while let Some(entry) = entries.next_entry().await? {
//!     println!("{} {}", entry.file_name().display(), entry.metadata().map_or(0, |m| m.len()));
//! }
//! volume.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What holds here: a future that is dropped does not undo what it asked for, and leaves nothing open or locked behind
//! it; at most [`MAX_CALLS`] operations of a volume are under way at once, further ones wait their turn; paths are
//! looked up on the bricks each time (nothing is cached), symlinks within the volume are followed, `..` ends at its root.

pub mod blocking;
mod directory;
mod error;
mod file;
mod gate;
mod lock;
mod metadata;
mod path;
mod volume;
mod worker;

pub use directory::{DirEntry, ReadDir};
pub use error::{Error, Result};
pub use file::{File, OpenOptions};
pub use lock::{LockKind, LockRange};
pub use metadata::{FileKind, Metadata, Space};
pub use volume::{Identity, Volume, VolumeBuilder};
pub use worker::MAX_CALLS;
