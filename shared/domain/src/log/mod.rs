//! The event log, and transactions: items that are written together with the event that describes them.

mod event;
mod transaction;
mod turn;

pub use event::{
    After, Cause, Choice, Event, KEEP_EVENTS, LONGEST_NAME, Statement, Stream, VERSION as EVENT_VERSION, What,
    describe, fold, lifecycle, shortened,
};
pub use transaction::Transaction;
pub use turn::Turn;
