//! Names that some children have and some do not, met by a lookup: brought to agreement before it is answered.

use ladrillo_translator::fop::Entry;

use super::entry::NameOutcome;
use super::healer::Healer;
use crate::translators::replicate::Replicate;

/// Brings one name to all children, or takes it from all, as the directory's marks say; where that cannot be done now
/// (a brick is away, a lock fails) nothing happens, and the lookup judges by the marks alone. False: not done.
pub(crate) async fn heal_name(replicate: &Replicate, entry: &Entry) -> bool {
    let Some(replicate) = replicate.arc() else { return false };
    if replicate.up() != replicate.everyone() {
        return false;
    }
    let healer = Healer::new(replicate);
    let context = healer.context();
    match healer.heal_name(&context, entry).await {
        Ok(outcome) => outcome == NameOutcome::Agreed,
        Err(trouble) => {
            tracing::debug!(parent = %entry.parent, ?trouble, "a name was not healed");
            false
        }
    }
}
