//! The effects of one pool. Each starts from the stored records, so the first run, a retry, a redelivered message and the
//! recovery from a crash are the same call.

pub(crate) mod check;
pub(crate) mod deregister;
pub(crate) mod launch;
pub(crate) mod lost_job;
pub(crate) mod notify;
pub(crate) mod register;
pub(crate) mod rerun;
pub(crate) mod retire;
pub(crate) mod stop_machine;

use jiff::Timestamp;

/// When more is due for the pool because of the effect; None if nothing is.
pub(crate) type Next = Option<Timestamp>;

/// Who holds the lease of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// This invocation, which made the decision.
    This,
    /// No invocation: claim the effect before the first call.
    None,
}
