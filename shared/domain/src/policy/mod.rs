//! Every decision, as a pure function of the stored records, the configuration and the observations.

pub mod admit;
pub mod budget;
pub mod charge;
pub mod check;
pub mod circuit;
pub mod close;
pub mod decide;
pub mod due;
pub mod early_end;
pub mod format;
pub mod interruption;
pub mod launch;
pub mod launch_error;
pub mod listing;
pub mod notify;
pub mod nudge;
pub mod observe;
pub mod polling;
pub mod reap;
pub mod record;
pub mod redeliver;
pub mod register;
pub mod rerun;
pub mod retire;
pub mod retry;
pub mod route;
pub mod search;
pub mod secret;
pub mod sweep;
pub mod tuple;
pub mod unread;
pub mod unrouted;
mod view;

pub use view::{MAX_DEMAND_PER_REPOSITORY, PoolView};
