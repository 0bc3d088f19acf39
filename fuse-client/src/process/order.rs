//! `glusterfs --heal-info V -- ORDER`: what commands have a client of the volume do, without a mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Reply};

use super::args::Args;
use crate::graph::{Ear, Graph, Heard};
use crate::heal::info::describe;

/// Longest path in bytes, Linux's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// Does it and prints what it says.
///
/// # Errors
/// Why it could not be done, for people.
pub(super) async fn run(args: &Args, graph: &Graph, ear: &Ear) -> Result<(), String> {
    let volume = args.heal_info.as_deref().unwrap_or_default();
    super::run::first_state(ear).await;
    if ear.heard() != Heard::Up {
        return Err(format!("Volume {volume} is not started (Or) All the bricks are not running."));
    }
    let words: Vec<&OsString> = args.order.iter().collect();
    match words.as_slice() {
        [order, path, name] if *order == "getxattr" => {
            let value =
                getxattr(graph, path.as_bytes(), name.as_bytes()).await.map_err(|error| describe(error.errno))?;
            println!("{}", String::from_utf8_lossy(&value).trim_end_matches('\0'));
            Ok(())
        }
        _ => Err("getxattr PATH NAME is the order that is known".to_owned()),
    }
}

/// An xattr, or an order in the form of one, of what is at `path`.
async fn getxattr(graph: &Graph, path: &[u8], name: &[u8]) -> FopResult<Bytes> {
    let gfid = resolve(graph, path).await?;
    let name = Bytes::copy_from_slice(name);
    let fop = Fop::Getxattr { gfid, name: name.clone(), xdata: Dict::new() };
    match graph.top.submit(&Context::root(), fop).await? {
        Reply::Xattrs { xattrs, .. } => {
            xattrs.bytes(&name).cloned().ok_or_else(|| FopError::new(errno::ENODATA, "no such xattr"))
        }
        _ => Err(FopError::new(errno::EIO, "another answer than to GETXATTR")),
    }
}

/// The inode at `path`, name by name; symlinks are not followed, and `..` is a name like another.
///
/// # Errors
/// Those of LOOKUP; ENAMETOOLONG.
pub(super) async fn resolve(graph: &Graph, path: &[u8]) -> FopResult<Gfid> {
    if path.len() >= MAX_PATH_BYTES {
        return Err(FopError::new(errno::ENAMETOOLONG, "the path is too long"));
    }
    let mut at = lookup(graph, Gfid::ROOT, None).await?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        at = lookup(graph, Gfid::NULL, Some(Entry { parent: at, name: Bytes::copy_from_slice(name) })).await?;
    }
    Ok(at)
}

async fn lookup(graph: &Graph, gfid: Gfid, entry: Option<Entry>) -> FopResult<Gfid> {
    match graph.top.submit(&Context::root(), Fop::Lookup { gfid, entry, xdata: Dict::new() }).await? {
        Reply::Lookup { iatt, .. } => Ok(iatt.gfid),
        _ => Err(FopError::new(errno::EIO, "another answer than to LOOKUP")),
    }
}
