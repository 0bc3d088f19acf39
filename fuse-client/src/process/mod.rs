//! The processes this crate is: a mount (`glusterfs`), the self-heal daemon (`glusterfs --process-name glustershd`) and
//! the mount helper (`mount.glusterfs`, the same program under that name).

pub mod args;
mod brick_volfile;
pub mod daemon;
pub(crate) mod graphs;
mod heal_info;
pub mod log;
pub mod mount_helper;
mod order;
mod remount;
mod run;
pub mod signals;
pub mod spec;
mod transport_check;

use std::process::ExitCode;

/// What `--version` prints first. GlusterFS's tools read the number.
pub const VERSION_TEXT: &str = concat!("glusterfs 10.3 (ladrillo ", env!("CARGO_PKG_VERSION"), ")");

/// The program: what it does depends on the name it was started by and on its arguments.
pub fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let name = arguments.first().map(std::path::Path::new).and_then(|path| path.file_name());
    // mount(8) knows a mounted volume as `fuse.glusterfs`, which it hands to mount.fuse(8), which calls
    // `glusterfs SOURCE DIRECTORY -o OPTIONS`: a remount, or `mount -t fuse.glusterfs`.
    let place = |argument: &std::ffi::OsString| !argument.as_encoded_bytes().starts_with(b"-");
    let from_mount_fuse = arguments.get(1..3).is_some_and(|places| places.iter().all(place));
    if name.is_some_and(|name| name == "mount.glusterfs" || name == "mount-glusterfs") || from_mount_fuse {
        return mount_helper::main(&arguments);
    }
    run::main(arguments)
}
