//! Xattrs that describe the volume: where an inode is (`pathinfo`), on which nodes (`node-uuid`), whether all subvolumes
//! are up.

use bytes::Bytes;
use ladrillo_translator::error::errno::{ENODATA, ENOTCONN};
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Reply, Value};

use super::Distribute;
use super::linkto::is_missing;
use super::merge::Seen;
use crate::translators::whereabouts::{NODE_UUID, NODE_UUIDS, PATHINFO, answer};

const REAL_FILENAME: &[u8] = b"glusterfs.get_real_filename:";
/// Whether all subvolumes are up: "1" or "0".
const SUBVOLUME_STATUS: &[u8] = b"dht.subvol.status";
/// Where the linkto file of a file is.
const LINKINFO: &[u8] = b"trusted.distribute.linkinfo";
/// Which subvolume a name in this directory hashes to.
const HASHED_SUBVOLUME: &[u8] = b"dht.file.hashed-subvol.";

impl Distribute {
    /// The answer for names that are no stored xattrs; `None` for those that are.
    pub(super) async fn virtual_xattr(
        &self,
        context: &Context,
        gfid: Gfid,
        name: &Bytes,
        fop: &Fop,
    ) -> Option<FopResult> {
        if name == SUBVOLUME_STATUS {
            let status = if self.all_up() { "1" } else { "0" };
            return Some(answer(name, status.as_bytes().to_vec()));
        }
        if let Some(wanted) = name.strip_prefix(HASHED_SUBVOLUME).filter(|wanted| !wanted.is_empty()) {
            let entry = ladrillo_translator::fop::Entry { parent: gfid, name: Bytes::copy_from_slice(wanted) };
            let hashed = self.hashed(&entry).await;
            return Some(hashed.and_then(|hashed| answer(name, self.child_name(hashed).as_bytes().to_vec())));
        }
        if name == LINKINFO {
            return Some(self.linkinfo(context, gfid, name).await);
        }
        let is_pathinfo = PATHINFO.contains(&&name[..]);
        if is_pathinfo || name == NODE_UUID || name == NODE_UUIDS {
            return Some(self.whereabouts(context, gfid, name, fop, is_pathinfo).await);
        }
        if name.starts_with(REAL_FILENAME) {
            return match self.place(gfid).await {
                Ok(None) => Some(self.real_filename(context, fop).await),
                Ok(Some(_)) => None,
                Err(error) => Some(Err(error)),
            };
        }
        None
    }

    /// What each subvolume that has the inode says, put together.
    async fn whereabouts(
        &self,
        context: &Context,
        gfid: Gfid,
        name: &Bytes,
        fop: &Fop,
        is_pathinfo: bool,
    ) -> FopResult {
        let place = self.place(gfid).await?;
        let (children, layout): (Vec<usize>, String) = match place {
            Some(child) => (vec![child], String::new()),
            None => {
                let layout = self.layout_of(gfid).await?;
                let ranges: Vec<String> = layout
                    .pieces
                    .iter()
                    .map(|piece| format!("({} {} {})", self.child_name(piece.subvolume), piece.start, piece.stop))
                    .collect();
                (layout.pieces.iter().map(|piece| piece.subvolume).collect(), ranges.join(" "))
            }
        };
        let replies = self.ask_each(children, context, self.adapted(fop)).await;
        let (mut parts, mut errors): (Vec<Vec<u8>>, Vec<FopError>) = Default::default();
        for (_, reply) in replies {
            match reply {
                Ok(Reply::Xattrs { xattrs, .. }) => {
                    if let Some(raw) = xattrs.bytes(name) {
                        parts.push(raw.strip_suffix(b"\0").unwrap_or(raw).to_vec());
                    }
                }
                Ok(_) => return Err(super::strange_reply("a getxattr")),
                Err(error) if error.errno == ENOTCONN || is_missing(&error) => errors.push(error),
                Err(error) => return Err(error),
            }
        }
        if parts.is_empty() {
            return Err(match errors.is_empty() {
                true => FopError::new(ENODATA, "no subvolume says where it is"),
                false => self.weigh(errors),
            });
        }
        let joined = parts.join(&b' ');
        if !is_pathinfo {
            return answer(name, joined);
        }
        let own = &self.name;
        let joined = String::from_utf8_lossy(&joined);
        let text = match place {
            Some(_) => format!("(<DISTRIBUTE:{own}> {joined})"),
            None => format!("((<DISTRIBUTE:{own}> {joined}) ({own}-layout {layout}))"),
        };
        answer(name, text.into_bytes())
    }

    /// pathinfo of the linkto file; ENODATA where the file is where its name says.
    async fn linkinfo(&self, context: &Context, gfid: Gfid, name: &Bytes) -> FopResult {
        let cached = self.file_place(gfid).await?;
        let key = self.keys.linkto.clone();
        for child in (0..self.count()).filter(|child| *child != cached) {
            let xdata = Dict::new().with(key.clone(), Value::Uint(256));
            let lookup = Fop::Lookup { gfid, entry: None, xdata };
            match Seen::of(child, self.ask(child, context, lookup).await) {
                Ok(seen) if self.is_linkto(&seen.iatt, &seen.xdata) => {
                    let pathinfo = Bytes::from_static(PATHINFO[0]);
                    let fop = Fop::Getxattr { gfid, name: pathinfo.clone(), xdata: Dict::new() };
                    let Reply::Xattrs { xattrs, .. } = self.ask(child, context, fop).await? else {
                        return Err(super::strange_reply("a getxattr"));
                    };
                    let raw = xattrs.bytes(&pathinfo).cloned().unwrap_or_default();
                    return answer(name, raw.to_vec());
                }
                _ => {}
            }
        }
        Err(FopError::new(ENODATA, format!("{gfid} has no linkto file")))
    }

    /// A name in any case: whichever subvolume has it.
    async fn real_filename(&self, context: &Context, fop: &Fop) -> FopResult {
        let replies = self.ask_all(context, self.adapted(fop)).await;
        let mut errors = Vec::new();
        for (_, reply) in replies {
            match reply {
                Ok(reply) => return Ok(reply),
                Err(error) => errors.push(error),
            }
        }
        Err(self.weigh(errors))
    }
}
