//! The calls that the engine makes through its ports.

use std::fmt;
use std::sync::Arc;

use domain::ids::{BatchTag, InstanceId, JobId, Owner, PoolName, Repository, RunId, RunnerId, RunnerName, Scope};
use domain::log::{Transaction, What};
use domain::state::Key;

/// One call of a port. `Display` is its line in a trace.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Get(Key),
    /// The number of items.
    GetMany(usize),
    /// A whole pool.
    Query(PoolName),
    /// A pool without the slots that decisions do not need.
    QueryNeeded(PoolName),
    QueryUnrouted,
    /// The number of machines.
    GetReports(usize),
    Commit(Arc<What>),
    /// A write without an event. The number of items.
    CommitUnlogged(usize),
    RunInstances(BatchTag),
    DescribeBatch(BatchTag),
    DescribeInstances,
    /// The machines whose tags are read.
    ReadTags(Vec<InstanceId>),
    TerminateInstances(InstanceId),
    StopInstances(InstanceId),
    StartInstances(Vec<InstanceId>),
    GetConsoleOutput(InstanceId),
    DescribeInstanceTypes,
    DescribeSpotPriceHistory,
    GenerateJitConfig(RunnerName),
    ListRunners(Scope),
    /// The runners of one name.
    FindRunners(String),
    DeleteRunner(RunnerId),
    GetJob(JobId),
    ListRunJobs(RunId),
    ListRuns(Repository),
    /// The run that is looked for among the completed ones.
    ListCompletedRuns(RunId),
    ListRepositories(Owner),
    ListDeliveries,
    /// The delivery attempt to repeat.
    Redeliver(u64),
    /// The check run's external id.
    CheckRun(String),
    Rerun(JobId),
    Nudge(PoolName),
    GetSecretValue,
}

macro_rules! kinds {
    ($($kind:ident = $name:literal;)*) => {
        /// The kinds of calls: the rows of the table of interrupted calls. A commit is a kind for each kind of event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CallKind { $($kind,)* }

        impl CallKind {
            /// Every kind, in the order of the enum.
            pub const ALL: &'static [CallKind] = &[$(CallKind::$kind),*];

            /// The name in reports and traces.
            pub fn name(self) -> &'static str {
                match self { $(CallKind::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    Get = "get";
    Query = "query";
    GetReports = "get reports";
    CommitRecorded = "commit Recorded";
    CommitChecked = "commit Checked";
    CommitDecided = "commit Decided";
    CommitRefused = "commit Refused";
    CommitResumed = "commit Resumed";
    CommitBound = "commit Bound";
    CommitHandedOver = "commit HandedOver";
    CommitObserved = "commit Observed";
    CommitStopped = "commit Stopped";
    CommitInterrupted = "commit Interrupted";
    CommitUnregistered = "commit Unregistered";
    CommitClosed = "commit Closed";
    CommitCircuitOpened = "commit CircuitOpened";
    CommitNotified = "commit Notified";
    CommitRerun = "commit Rerun";
    CommitSwept = "commit Swept";
    CommitCondemned = "commit Condemned";
    CommitAdopted = "commit Adopted";
    CommitUnlogged = "commit unlogged";
    RunInstances = "RunInstances";
    TerminateInstances = "TerminateInstances";
    StopInstances = "StopInstances";
    StartInstances = "StartInstances";
    DescribeInstances = "DescribeInstances";
    GetConsoleOutput = "GetConsoleOutput";
    DescribeInstanceTypes = "DescribeInstanceTypes";
    DescribeSpotPriceHistory = "DescribeSpotPriceHistory";
    GenerateJitConfig = "generate-jitconfig";
    ListRunners = "list runners";
    DeleteRunner = "delete runner";
    ListRunJobs = "list jobs of run";
    GetJob = "get job";
    ListRuns = "list runs";
    ListRepositories = "list repositories";
    ListDeliveries = "list deliveries";
    Redeliver = "redeliver";
    CheckRun = "check run";
    Rerun = "rerun";
    Nudge = "nudge";
    GetSecretValue = "get secret";
}

impl Call {
    /// The call that writes the transaction.
    pub(crate) fn commit(transaction: &Transaction) -> Self {
        match &transaction.event {
            Some(event) => Call::Commit(Arc::new(event.what.clone())),
            None => Call::CommitUnlogged(transaction.len()),
        }
    }

    pub fn kind(&self) -> CallKind {
        match self {
            Call::Get(_) | Call::GetMany(_) => CallKind::Get,
            Call::Query(_) | Call::QueryNeeded(_) | Call::QueryUnrouted => CallKind::Query,
            Call::GetReports(_) => CallKind::GetReports,
            Call::Commit(what) => commit_kind(what),
            Call::CommitUnlogged(_) => CallKind::CommitUnlogged,
            Call::RunInstances(_) => CallKind::RunInstances,
            Call::DescribeBatch(_) | Call::DescribeInstances | Call::ReadTags(_) => CallKind::DescribeInstances,
            Call::DescribeInstanceTypes => CallKind::DescribeInstanceTypes,
            Call::DescribeSpotPriceHistory => CallKind::DescribeSpotPriceHistory,
            Call::TerminateInstances(_) => CallKind::TerminateInstances,
            Call::StopInstances(_) => CallKind::StopInstances,
            Call::StartInstances(_) => CallKind::StartInstances,
            Call::GetConsoleOutput(_) => CallKind::GetConsoleOutput,
            Call::GenerateJitConfig(_) => CallKind::GenerateJitConfig,
            Call::ListRunners(_) | Call::FindRunners(_) => CallKind::ListRunners,
            Call::DeleteRunner(_) => CallKind::DeleteRunner,
            Call::GetJob(_) => CallKind::GetJob,
            Call::ListRunJobs(_) => CallKind::ListRunJobs,
            Call::ListRuns(_) | Call::ListCompletedRuns(_) => CallKind::ListRuns,
            Call::ListRepositories(_) => CallKind::ListRepositories,
            Call::ListDeliveries => CallKind::ListDeliveries,
            Call::Redeliver(_) => CallKind::Redeliver,
            Call::CheckRun(_) => CallKind::CheckRun,
            Call::Rerun(_) => CallKind::Rerun,
            Call::Nudge(_) => CallKind::Nudge,
            Call::GetSecretValue => CallKind::GetSecretValue,
        }
    }
}

fn commit_kind(what: &What) -> CallKind {
    match what {
        What::Recorded { .. } => CallKind::CommitRecorded,
        // The simulator has no operator.
        What::Checked { .. } | What::Forgotten { .. } => CallKind::CommitChecked,
        What::Transferred { .. } => CallKind::CommitRecorded,
        What::Decided { .. } => CallKind::CommitDecided,
        What::Refused { .. } => CallKind::CommitRefused,
        What::Resumed { .. } => CallKind::CommitResumed,
        What::Bound { .. } => CallKind::CommitBound,
        What::HandedOver { .. } => CallKind::CommitHandedOver,
        What::Observed { .. } => CallKind::CommitObserved,
        What::Stopped { .. } => CallKind::CommitStopped,
        What::Interrupted { .. } => CallKind::CommitInterrupted,
        What::Unregistered { .. } => CallKind::CommitUnregistered,
        What::Closed { .. } => CallKind::CommitClosed,
        What::CircuitOpened { .. } => CallKind::CommitCircuitOpened,
        What::Notified { .. } => CallKind::CommitNotified,
        What::Rerun { .. } => CallKind::CommitRerun,
        What::Swept { .. } => CallKind::CommitSwept,
        What::Condemned { .. } => CallKind::CommitCondemned,
        What::Adopted { .. } => CallKind::CommitAdopted,
        What::Unknown(_) => unreachable!("Drover writes only events that it knows"),
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind().name();
        match self {
            Call::Get(key) => write!(f, "{kind} {key}"),
            Call::GetMany(items) => write!(f, "{kind} {items} items"),
            Call::Query(pool) => write!(f, "{kind} {pool}"),
            Call::QueryNeeded(pool) => write!(f, "{kind} {pool} without busy machines"),
            Call::QueryUnrouted => write!(f, "{kind} unrouted jobs"),
            Call::GetReports(machines) => write!(f, "{kind} of {machines} machines"),
            // A long event fills the line of a trace.
            Call::Commit(what) => write!(f, "commit {:.60}", format!("{what:?}")),
            Call::CommitUnlogged(writes) => write!(f, "{kind} {writes} items"),
            Call::RunInstances(tag) | Call::DescribeBatch(tag) => write!(f, "{kind} {tag}"),
            Call::DescribeInstances
            | Call::DescribeInstanceTypes
            | Call::DescribeSpotPriceHistory
            | Call::ListDeliveries
            | Call::GetSecretValue => write!(f, "{kind}"),
            Call::ReadTags(machines) | Call::StartInstances(machines) => write!(f, "{kind} {machines:?}"),
            Call::TerminateInstances(instance) | Call::StopInstances(instance) | Call::GetConsoleOutput(instance) => {
                write!(f, "{kind} {instance}")
            }
            Call::GenerateJitConfig(name) => write!(f, "{kind} {name}"),
            Call::ListRunners(scope) => write!(f, "{kind} of {scope}"),
            Call::FindRunners(name) => write!(f, "{kind} named {name}"),
            Call::DeleteRunner(runner) => write!(f, "{kind} {runner}"),
            Call::GetJob(job) | Call::Rerun(job) => write!(f, "{kind} {job}"),
            Call::ListRunJobs(run) | Call::ListCompletedRuns(run) => write!(f, "{kind} {run}"),
            Call::ListRepositories(owner) => write!(f, "{kind} of {owner}"),
            Call::ListRuns(repository) => write!(f, "{kind} of {repository}"),
            Call::Redeliver(attempt) => write!(f, "{kind} {attempt}"),
            Call::CheckRun(external_id) => write!(f, "{kind} of {external_id}"),
            Call::Nudge(pool) => write!(f, "{kind} {pool}"),
        }
    }
}
