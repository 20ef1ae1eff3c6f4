//! The programs on a machine.

use jiff::Timestamp;
use world::github::RunnerId;

/// A machine whose programs have started.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) life: Life,
    /// Since when `life` is as it is.
    pub(super) since: Timestamp,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// The agent looks for its boot item.
    Waiting,
    /// The runner starts.
    Starting,
    /// The runner is connected.
    Runner(RunnerId),
    /// No program runs any more, but the machine has power.
    Dead,
}

/// What a machine does next.
#[derive(Debug)]
pub(super) enum Doing {
    /// The agent reports that the machine has booted.
    Report,
    /// The agent has found no JIT config yet, prepares its machine and reports that.
    Prepare,
    /// The agent takes its JIT config.
    Read,
    /// The runner connects with this JIT config.
    Connect(String),
    /// The runner ends without a job.
    Exit(AfterExit),
    PowerOff,
}

/// What a machine does when its runner has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterExit {
    KeepsPower,
    PowersOff,
}
