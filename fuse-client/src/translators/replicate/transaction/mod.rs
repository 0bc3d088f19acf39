//! Changes: lock, mark, do, mark, unlock.

pub(super) mod closing;
mod data;
mod entry;
pub(crate) mod lock;
mod metadata;
pub(crate) mod postop;
pub(crate) mod session;

use ladrillo_translator::error::errno::ENOTEMPTY;
use ladrillo_translator::{FopError, Reply};

use super::mask::Mask;
use super::{ChildReply, Replicate, leaves_unknown};

/// What the children made of an operation.
pub(super) struct Verdict {
    /// Have it, whole.
    pub done: Mask,
    /// All refused alike (EEXIST, ENOSPC everywhere, ...): nothing changed anywhere.
    pub refused: bool,
}

impl Replicate {
    /// Weighs the answers. Children lost since the lock was taken count as failed even where they answered: their lock
    /// is gone, and with it the order of what they did.
    fn verdict(&self, replies: &[ChildReply], kept: Mask) -> Verdict {
        let mut done = super::fops::successes(replies) & kept;
        // How much an arbiter took says nothing.
        let counted = done - self.arbiters();
        let most = replies.iter().filter(|(child, _)| counted.has(*child)).map(|(_, reply)| amount(reply)).max();
        for (child, reply) in replies {
            if counted.has(*child) && Some(amount(reply)) < most {
                done.take(*child);
            }
        }
        Verdict { done, refused: all_refused_alike(replies.iter()) }
    }

    /// Whether all children with contents refused a change of them alike: an arbiter did nothing anyway.
    fn contents_refused(&self, replies: &[ChildReply], on: Mask) -> bool {
        let asked = on - self.arbiters();
        let of_contents = || replies.iter().filter(|(child, _)| asked.has(*child));
        of_contents().count() == asked.count() && all_refused_alike(of_contents())
    }
}

/// How much of a write or copy a child took; a short one missed the rest.
fn amount(reply: &Result<Reply, FopError>) -> u32 {
    match reply {
        Ok(Reply::PrePost { written, .. }) => *written,
        Ok(Reply::CopyFileRange { copied, .. }) => *copied,
        _ => 0,
    }
}

/// Whether all answered the same error, and one that says what happened ([`leaves_unknown`]). ENOTEMPTY is no failure of
/// a copy: it leaves everything as it was.
fn all_refused_alike<'a>(replies: impl Iterator<Item = &'a ChildReply>) -> bool {
    let mut errors = replies.map(|(_, reply)| reply.as_ref().err());
    let Some(Some(first)) = errors.next() else { return false };
    !leaves_unknown(first) && errors.all(|error| error.is_some_and(|error| error.errno == first.errno))
}

/// Children that refused with ENOTEMPTY.
fn not_empty(replies: &[ChildReply]) -> Mask {
    replies
        .iter()
        .filter(|(_, reply)| matches!(reply, Err(error) if error.errno == ENOTEMPTY))
        .map(|(child, _)| *child)
        .collect()
}
