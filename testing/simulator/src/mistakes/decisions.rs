//! Mistakes in decisions. `mistakes.patch` adds them to a copy of the source, and replaces these functions, which do nothing
//! without the patch.

use domain::config::Pool;
use domain::wire::Message;

use crate::mistakes::kinds::Mistake;

/// Whether this build can make the mistake.
pub fn is_included(mistake: Mistake) -> bool {
    !matches!(mistake, Mistake::PerJobPairing | Mistake::Counters | Mistake::OneReading)
}

/// From now on the decisions of this thread make this mistake, or none.
pub(crate) fn switch_to(_: Option<Mistake>) {}

/// The messages have been recorded. `Counters` counts them.
pub(crate) fn recorded(_: &[Pool], _: &[Message]) {}
