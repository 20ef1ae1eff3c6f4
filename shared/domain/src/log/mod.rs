//! The event log, and the transactions that write items together with their event.

mod event;
mod transaction;

pub use event::{
    After, Cause, Event, KEEP_EVENTS, Said, Stream, VERSION as EVENT_VERSION, What, describe, fold, lifecycle,
};
pub use transaction::Transaction;
