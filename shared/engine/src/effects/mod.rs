//! The effects of one pool. Each is performed from what is stored: a first run, a retry, a redelivered message and the
//! recovery from a crash are the same call.

pub(crate) mod check;
pub(crate) mod fate;
pub(crate) mod launch;
pub(crate) mod notify;
pub(crate) mod register;
pub(crate) mod rerun;
pub(crate) mod retire;

use jiff::Timestamp;

/// When more is due for the pool, as far as the effect knows; None if nothing is.
pub(crate) type Next = Option<Timestamp>;

/// Who holds the lease of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// This invocation, by the decision that called for the effect.
    This,
    /// Nobody: claim it before the first call.
    Nobody,
}
