//! Which formats of the table may be written, and by whom.
//!
//! Items are rewritten whole, so a function erases attributes that it does not know, and an unknown state makes a pool
//! unreadable to it. Therefore CONFIG states the format of the table: a function that does not support it writes nothing.
//! `drover pools apply` writes the lowest format that the pools need, and none that a deployed function does not support.

use jiff::Timestamp;

use crate::config::Pool;
use crate::state::{Config, FORMAT, Function, FunctionName, Slot};

/// The version of this code.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The format of the table is newer than this program supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the table is in format {found}, and this version supports formats up to {FORMAT}: deploy the newer version again"
)]
pub struct TooNew {
    pub found: u32,
}

/// Whether this version may write the table.
pub fn check(config: &Config) -> Result<(), TooNew> {
    if config.format > FORMAT { Err(TooNew { found: config.format }) } else { Ok(()) }
}

/// The lowest format that can hold these pools.
pub fn lowest<'a>(pools: impl IntoIterator<Item = &'a Pool>) -> u32 {
    pools.into_iter().map(Pool::lowest_format).max().unwrap_or(1)
}

/// The lowest format that can hold this slot. An older function would take the age of a machine that was stopped from its launch,
/// and end it in the middle of a job.
pub fn of_slot(slot: &Slot) -> u32 {
    if slot.machine().is_some_and(|machine| machine.stopped_at.is_some()) { 5 } else { 1 }
}

/// What a function that starts reports about itself; None if the table already says so.
pub fn report(name: FunctionName, recorded: Option<&Function>, now: Timestamp) -> Option<Function> {
    let is_own = |function: &Function| function.format == FORMAT && function.version.as_deref() == Some(VERSION);
    let revision = recorded.map_or(0, |function| function.revision);
    let report = Function { name, format: FORMAT, version: Some(VERSION.to_owned()), recorded_at: now, revision };
    (!recorded.is_some_and(is_own)).then_some(report)
}

/// The deployed functions that do not support a format. A function without a record is older than these records, which
/// came with format 2.
pub fn unsupported_by(format: u32, recorded: &[Function]) -> Vec<FunctionName> {
    let supported = |name| recorded.iter().find(|function| function.name == name).map_or(1, |function| function.format);
    FunctionName::ALL.into_iter().filter(|name| supported(*name) < format).collect()
}
