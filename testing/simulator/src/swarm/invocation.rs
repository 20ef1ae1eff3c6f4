//! An invocation under way.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::task::Waker;

use domain::wire::Message;
use engine::consume::Consumed;
use engine::pools::PoolsError;
use engine::ports::Launch;
use engine::sweep::Report;

use crate::call::Call;
use crate::old_version::OldVersion;
use crate::steps::Side;

/// One of Drover's functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Scaler,
    Janitor,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Function::Scaler => "scaler",
            Function::Janitor => "janitor",
        })
    }
}

/// An old version that is deployed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rollback {
    pub(super) version: &'static OldVersion,
    /// None: both.
    pub(super) function: Option<Function>,
    /// Whether environments of the present version still answer half of the time.
    pub(super) is_partial: bool,
}

/// What an invocation returns.
pub(super) enum Done {
    Scaler(Consumed),
    Janitor {
        request: String,
        report: Result<Report, PoolsError>,
        /// Its version, if it was an old one.
        old: Option<&'static OldVersion>,
    },
}

pub(super) struct Invocation<'u> {
    pub(super) function: Function,
    pub(super) future: Pin<Box<dyn Future<Output = Done> + 'u>>,
    /// The scaler's messages and, at the same index, their receipts.
    pub(super) messages: Vec<Message>,
    pub(super) receipts: Vec<String>,
    /// The parts that have come to a call, by ticket.
    pub(super) waiting: BTreeMap<u64, AtCall>,
}

/// A part of an invocation that has come to a call.
pub(super) struct AtCall {
    pub(super) side: Side,
    pub(super) call: Call,
    pub(super) waker: Waker,
    /// The launch that it is about to make.
    pub(super) launch: Option<Box<Launch>>,
}
