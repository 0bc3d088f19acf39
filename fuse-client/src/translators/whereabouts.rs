//! Xattrs by which a volume says where an inode is: their names, and the form of the answers. Source: GlusterFS 10.3
//! (glusterfs.h: GF_XATTR_PATHINFO_KEY, GF_XATTR_NODE_UUID_KEY, GF_XATTR_LIST_NODE_UUIDS_KEY).

use bytes::Bytes;
use ladrillo_translator::{Dict, FopResult, Reply, Value};

/// Which bricks have it, at which paths.
pub(crate) const PATHINFO: [&[u8]; 2] = [b"trusted.glusterfs.pathinfo", b"glusterfs.pathinfo"];
/// Which node has it.
pub(crate) const NODE_UUID: &[u8] = b"trusted.glusterfs.node-uuid";
/// Which nodes have it.
pub(crate) const NODE_UUIDS: &[u8] = b"trusted.glusterfs.list-node-uuids";

/// The answer to a GETXATTR of one name that nothing stores.
pub(crate) fn answer(name: &Bytes, text: impl Into<Bytes>) -> FopResult {
    let xattrs = Dict::new().with(name.clone(), Value::Str(text.into()));
    Ok(Reply::Xattrs { xattrs, xdata: Dict::new() })
}
