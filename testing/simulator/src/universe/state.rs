//! Everything in a universe that changes: the models, the messages under way, and the machines of [`tick`].
//!
//! [`tick`]: crate::Universe::tick

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use domain::config::{Label, Tuple};
use domain::ids::{BatchTag, Owner, PoolName, RunnerId};
use domain::state::Key;
use domain::wire::{JobNotice, Message};
use engine::ports::Launch;
use jiff::{SignedDuration, Timestamp};
use world::LostReply;
use world::ec2::{Ec2, InstanceId};
use world::github::{self, GitHub, InstallationId, RepositoryId};

use crate::rules::Part;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) now: Timestamp,
    pub(crate) ec2: Ec2,
    pub(crate) github: GitHub,
    pub(super) installations: BTreeMap<String, InstallationId>,
    pub(super) repository: RepositoryId,
    pub(crate) messages: VecDeque<(Timestamp, Message)>,
    pub(super) machines: BTreeMap<InstanceId, Machine>,
    pub(super) ingest: Ingest,
    /// How many invocations there have been.
    pub(super) invocations: u64,
    /// How many processes of functions there have been.
    pub(super) processes: u64,
    /// By how much the clocks of functions may be wrong.
    pub(crate) clock_error: SignedDuration,
    /// By how much the clocks of two functions may have differed so far.
    pub(crate) clocks_differ_by: SignedDuration,
    /// How the table fails its next call.
    pub(crate) table_fault: Option<TableFault>,
    /// The limits of accounts in the table: when each was written, and until when it forbids calls.
    pub(crate) limits: BTreeMap<Owner, (Timestamp, Timestamp)>,
    /// The tags of the answers that Drover has read, by account and path.
    pub(crate) tags: BTreeMap<(Owner, String), u64>,
    /// Items whose form is unknown to Drover.
    pub(crate) unreadable: BTreeSet<Key>,
    /// A runner that the next page of a list of runners lacks.
    pub(crate) on_no_page: Option<github::RunnerId>,
    /// Whether the queue fails its next call.
    pub(crate) queue_fault: bool,
    /// Whether Secrets Manager fails its next call.
    pub(crate) secret_fault: bool,
    /// The number of the app's key that is stored in Secrets Manager.
    pub(super) stored_key: u32,
    /// Since when GitHub accepts the stored key. None while it does not.
    pub(super) key_accepted_since: Option<Timestamp>,
    /// Whether reading a secret is a call with a duration, which faults may strike.
    pub(super) secrets_take_time: bool,
    /// The launch whose call has just begun.
    pub(crate) sending: Option<Launch>,
    /// How many random client tokens were used; None if a token is a function of its attempt.
    pub(crate) random_tokens: Option<u64>,
    /// The attempts that have launched something.
    pub(crate) launched_attempts: BTreeSet<BatchTag>,
    /// What EC2 refused to launch, and when.
    pub(crate) refused: Vec<(Timestamp, Tuple)>,
    /// When the first webhook `queued` of a job reached ingest.
    pub(crate) queued_webhooks: BTreeMap<github::JobId, Timestamp>,
    /// The runner of each JIT config.
    pub(crate) secrets: BTreeMap<String, github::RunnerId>,
    /// The runner whose JIT config a machine was given.
    pub(crate) configured: BTreeMap<InstanceId, github::RunnerId>,
    /// Machines whose runner has connected.
    pub(crate) connected: BTreeSet<InstanceId>,
    /// When the machines were launched that ended early, by pool. Only those of closed slots.
    pub(super) early_ends: BTreeMap<Part, BTreeMap<InstanceId, Timestamp>>,
    /// The settings with which each pool was last decided about, as META has them.
    pub(super) settings: BTreeMap<PoolName, String>,
    /// Machines that are stopped, or being stopped, until a job needs them.
    pub(super) set_aside: BTreeSet<InstanceId>,
    /// The class of each machine, as Drover recorded it last.
    pub(super) classes: BTreeMap<InstanceId, Label>,
    pub(super) runners: Runners,
    /// The jobs that Drover re-ran, by run and name.
    pub(super) re_run: BTreeSet<(github::RunId, String)>,
    /// Machines that were given a JIT config since the swarm last took them.
    pub(crate) handed_over: Vec<InstanceId>,
    /// Other people's runners that pose as one of Drover's: GitHub counts ids per scope, the model does not.
    pub(crate) forged: BTreeMap<github::RunnerId, github::RunnerId>,
    /// Since when machines have had the tag that protects them.
    pub(crate) held: BTreeMap<InstanceId, Timestamp>,
    /// Machines whose tag was removed, until Drover records it while they run.
    pub(super) released: BTreeSet<InstanceId>,
    /// Machines of [`tick`](crate::Universe::tick) that have reported that they booted, and when.
    pub(super) reported: BTreeMap<InstanceId, Timestamp>,
    /// Those that have reported that they are prepared.
    pub(super) prepared: BTreeSet<InstanceId>,
    /// Whether their reports reach the table.
    pub(super) reports: Reports,
    /// `max_life` by pool.
    pub(crate) max_life: BTreeMap<String, SignedDuration>,
}

/// What runs on a machine of [`tick`](crate::Universe::tick).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Machine {
    /// The agent looks for its boot item.
    Waiting,
    /// The runner is connected.
    Runner(github::RunnerId),
    /// The runner has a job: when the job ends, and with which conclusion.
    Busy(github::RunnerId, github::JobId, Timestamp, github::Conclusion),
}

/// Whether GitHub accepts the version of the machines' runners. A refused runner ends, and its machine powers off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runners {
    Accepted,
    Refused,
}

/// Whether the boot reports of machines reach the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reports {
    Sent,
    Lost,
}

/// Whether ingest accepts webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingest {
    Up,
    /// It answers every webhook with 503.
    Down,
}

/// How the table fails one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableFault {
    /// Another transaction is changing the same items.
    Conflict,
    /// Throttled, slow or unavailable.
    Unavailable(LostReply),
}

impl State {
    /// The report with the id that a forged runner has in its own scope.
    pub(crate) fn with_forged_id(&self, mut job: JobNotice) -> JobNotice {
        if let Some(runner) = &mut job.runner
            && let Some(victim) = self.forged.get(&github::RunnerId(runner.id.0))
        {
            runner.id = RunnerId(victim.0);
        }
        job
    }

    /// The app's installation on an account, or an id that GitHub does not know if the app was never installed there.
    pub(crate) fn installation_of(&self, owner: &str) -> InstallationId {
        self.installations.get(&owner.to_ascii_lowercase()).copied().unwrap_or(InstallationId(0))
    }

    /// A webhook has reached ingest.
    pub(crate) fn received(&mut self, event: &github::JobEvent, now: Timestamp) {
        if event.action == "queued" {
            self.queued_webhooks.entry(event.job.id).or_insert(now);
        }
    }

    /// The account installs the app (again).
    pub(crate) fn install(&mut self, login: &str) {
        let owner = self.github.find_owner(login).expect("an account of this world").id;
        let installation = self.github.install(owner, self.now);
        self.installations.insert(login.to_owned(), installation);
    }
}
