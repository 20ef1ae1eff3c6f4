//! Who answers each kind of call, how long that takes, and how often an invocation ends there.

use crate::call::CallKind;
use crate::steps::Side;

/// Who answers a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answerer {
    Ec2,
    GitHub,
    /// The queue, and Secrets Manager.
    Small,
    Table,
}

/// The shortest and the longest time that a call takes, in milliseconds.
pub(super) fn latency(kind: CallKind) -> (i64, i64) {
    match answerer(kind) {
        Answerer::Ec2 if kind == CallKind::RunInstances => (400, 3000),
        Answerer::Ec2 => (100, 700),
        Answerer::GitHub => (100, 900),
        Answerer::Small => (5, 30),
        Answerer::Table => (2, 15),
    }
}

pub(super) fn answerer(kind: CallKind) -> Answerer {
    match kind {
        CallKind::RunInstances
        | CallKind::TerminateInstances
        | CallKind::StopInstances
        | CallKind::StartInstances
        | CallKind::DescribeInstances
        | CallKind::GetConsoleOutput
        | CallKind::DescribeInstanceTypes
        | CallKind::DescribeSpotPriceHistory => Answerer::Ec2,
        CallKind::GenerateJitConfig
        | CallKind::ListRunners
        | CallKind::DeleteRunner
        | CallKind::GetJob
        | CallKind::ListRunJobs
        | CallKind::ListRuns
        | CallKind::ListRepositories
        | CallKind::ListDeliveries
        | CallKind::Redeliver
        | CallKind::CheckRun
        | CallKind::Rerun => Answerer::GitHub,
        CallKind::Nudge | CallKind::GetSecretValue => Answerer::Small,
        CallKind::Get
        | CallKind::Query
        | CallKind::GetReports
        | CallKind::CommitRecorded
        | CallKind::CommitChecked
        | CallKind::CommitDecided
        | CallKind::CommitRefused
        | CallKind::CommitResumed
        | CallKind::CommitBound
        | CallKind::CommitHandedOver
        | CallKind::CommitObserved
        | CallKind::CommitStopped
        | CallKind::CommitInterrupted
        | CallKind::CommitUnregistered
        | CallKind::CommitClosed
        | CallKind::CommitCircuitOpened
        | CallKind::CommitNotified
        | CallKind::CommitRerun
        | CallKind::CommitSwept
        | CallKind::CommitCondemned
        | CallKind::CommitAdopted
        | CallKind::CommitUnlogged => Answerer::Table,
    }
}

/// How much more often an invocation ends at a call of this kind than at the most frequent kinds, so that the rare kinds
/// are interrupted, too. A call that was not made is repeated, so an end before the call can happen several times and an
/// end after it only once; therefore the latter is more likely.
pub(super) fn weight(kind: CallKind, side: Side) -> f64 {
    let (before, after) = weights(kind);
    match side {
        Side::Before => before,
        Side::After => after,
    }
}

/// Whether calls of this kind are so rare that storms alone would hardly ever interrupt one.
pub(super) fn is_rare(kind: CallKind) -> bool {
    weights(kind).1 > 2.0
}

fn weights(kind: CallKind) -> (f64, f64) {
    match kind {
        CallKind::Get | CallKind::Query | CallKind::CommitUnlogged => (0.5, 0.5),
        CallKind::CommitRecorded | CallKind::CommitHandedOver | CallKind::GenerateJitConfig | CallKind::GetJob => {
            (1.0, 1.0)
        }
        CallKind::ListRunners
        | CallKind::GetReports
        | CallKind::CommitBound
        | CallKind::CommitDecided
        | CallKind::CommitObserved
        | CallKind::RunInstances
        | CallKind::DescribeInstances => (2.0, 2.0),
        CallKind::ListDeliveries | CallKind::DeleteRunner | CallKind::Nudge | CallKind::GetSecretValue => (5.0, 10.0),
        CallKind::ListRunJobs
        | CallKind::CheckRun
        | CallKind::CommitNotified
        | CallKind::CommitStopped
        | CallKind::CommitUnregistered => (16.0, 32.0),
        CallKind::CommitSwept | CallKind::Redeliver | CallKind::Rerun => (30.0, 60.0),
        CallKind::CommitResumed => (40.0, 80.0),
        CallKind::CommitRerun | CallKind::CommitInterrupted => (50.0, 300.0),
        CallKind::CommitAdopted => (30.0, 400.0),
        CallKind::CommitCircuitOpened | CallKind::CommitChecked | CallKind::CommitCondemned => (37.5, 300.0),
        CallKind::CommitRefused
        | CallKind::CommitClosed
        | CallKind::TerminateInstances
        | CallKind::StopInstances
        | CallKind::StartInstances
        | CallKind::GetConsoleOutput
        | CallKind::DescribeInstanceTypes
        | CallKind::DescribeSpotPriceHistory
        | CallKind::ListRuns
        | CallKind::ListRepositories => (8.0, 16.0),
    }
}
