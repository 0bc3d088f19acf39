//! Split-brain looked into and decided on a mount: orders in the form of xattrs that are set. Names and rules are GlusterFS
//! 10.3's (afr-inode-write.c).

use std::time::Duration;

use ladrillo_translator::error::errno::{EAGAIN, EINVAL, EIO};
use ladrillo_translator::{Dict, Fop, FopError, FopResult, Gfid, LocalFuture, Reply};

use super::Replicate;
use crate::heal::decide::{Choice, NOT_ALL_UP, decide};

/// Shows one copy's contents: the value names the child, `none` ends it.
const CHOICE: &[u8] = b"replica.split-brain-choice";
/// For how many minutes.
const TIMEOUT: &[u8] = b"replica.split-brain-choice-timeout";
/// Heals from one copy.
const FINALIZE: &[u8] = b"replica.split-brain-heal-finalize";
/// How long a copy is shown unless told.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// Most minutes that are taken.
const MAX_MINUTES: u64 = 1 << 20;
/// Most inodes that a copy is chosen of at once.
const MAX_CHOICES: usize = 1024;

/// The copies that are shown of inodes in split-brain, for a while.
#[derive(Default)]
pub(super) struct Choices {
    of: Vec<(Gfid, usize, Duration)>,
    timeout: Option<Duration>,
}

/// Whether a SETXATTR is such an order.
pub(super) fn is_order(fop: &Fop) -> bool {
    let Fop::Setxattr { xattrs, .. } = fop else { return false };
    [CHOICE, TIMEOUT, FINALIZE].iter().any(|key| xattrs.contains(key))
}

impl Replicate {
    /// The copy that a person wants to see of an inode in split-brain.
    pub(super) fn choice(&self, gfid: Gfid) -> Option<usize> {
        let now = self.runtime.now();
        let choices = self.choices.lock();
        choices.of.iter().find(|(of, _, until)| *of == gfid && now < *until).map(|(_, child, _)| *child)
    }

    fn choose(&self, gfid: Gfid, child: Option<usize>) -> FopResult<()> {
        let now = self.runtime.now();
        let mut choices = self.choices.lock();
        choices.of.retain(|(of, _, until)| *of != gfid && now < *until);
        let Some(child) = child else { return Ok(()) };
        if choices.of.len() >= MAX_CHOICES {
            return Err(FopError::new(EAGAIN, "copies of too many files are chosen already"));
        }
        let until = now.saturating_add(choices.timeout.unwrap_or(DEFAULT_TIMEOUT));
        choices.of.push((gfid, child, until));
        Ok(())
    }

    /// Does what such a SETXATTR says.
    pub(super) async fn order(&self, fop: Fop) -> FopResult {
        let Fop::Setxattr { gfid, xattrs, .. } = fop else { return Err(super::strange_reply("an order")) };
        let said = |key: &[u8]| xattrs.text(key).map(|text| text.trim_end_matches('\0').to_owned());
        let child_named = |name: &str| {
            let child = self.children.iter().position(|child| child.name() == name);
            child.ok_or_else(|| FopError::new(EINVAL, format!("{name}: no copy has that name")))
        };
        if let Some(minutes) = said(TIMEOUT) {
            let minutes = minutes.parse::<u64>().ok().filter(|minutes| *minutes <= MAX_MINUTES);
            let Some(minutes) = minutes else { return Err(FopError::new(EINVAL, "a number of minutes is expected")) };
            self.choices.lock().timeout = Some(Duration::from_secs(minutes * 60));
        }
        if let Some(name) = said(CHOICE) {
            let child = if name == "none" { None } else { Some(child_named(&name)?) };
            if self.up() != self.everyone() {
                return Err(FopError::new(EAGAIN, NOT_ALL_UP));
            }
            let inode = self.inodes.intern(gfid);
            let readable = self.refresh(&inode, None).await?;
            if !readable.data.is_empty() && !readable.metadata.is_empty() {
                return Err(FopError::new(EINVAL, format!("{gfid} is not in data/metadata split-brain")));
            }
            self.choose(gfid, child)?;
        }
        if let Some(name) = said(FINALIZE) {
            let child = child_named(&name)?;
            // Over in any case: what it showed is good now, or misleads.
            self.choose(gfid, None)?;
            let Some(this) = self.arc() else { return Err(FopError::new(EIO, "the volume is going away")) };
            // Boxed: heals use what is defined here.
            let decided: LocalFuture<'_, _> = Box::pin(decide(&this, gfid, Choice::Child(child)));
            let outcome: Option<Result<(), String>> = decided.await;
            self.inodes.intern(gfid).distrust();
            match outcome {
                Some(Ok(())) => {}
                Some(Err(why)) => return Err(FopError::new(EIO, format!("{gfid}: {why}"))),
                None => return Err(FopError::new(ladrillo_translator::error::errno::ESTALE, "no brick has it")),
            }
        }
        Ok(Reply::Done { xdata: Dict::new() })
    }
}
