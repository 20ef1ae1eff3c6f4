//! A pool's own state.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{Label, Market, MicroUsd, Tuple, share_quota};
use crate::ids::{Epoch, InstanceId, InstanceType, PoolName, SlotId};
use crate::state::batch::Answer;

/// A pool's own state: the item `POOL#<pool>`, `META`. Its revision is the pool's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub pool: PoolName,
    pub epoch: Epoch,
    /// The hash of the configuration that the last decision used.
    #[serde(default)]
    pub config_hash: String,
    pub circuit: Circuit,
    /// The number of machines in a row that did not come online.
    #[serde(default)]
    pub boot_failures: u32,
    /// Those of them that were launched last, in the order of their launches, at most `FAILURES_KEPT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// EC2's latest refusals, newest last. They outlive their batches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// Tuples that EC2 refused recently.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cooldowns: Vec<Cooldown>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
    /// Set if EC2 throttled RunInstances recently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Throttle>,
    /// Whether some waiting jobs are no demand yet because too many of their repository wait. Then each job that starts makes
    /// room for the demand of another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_jobs_behind: bool,
    /// The last reading, if it was of many items. Other invocations wait a moment before they read as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reading: Option<LastReading>,
    /// The slots that decisions need not read. None in a small pool, and if an older version wrote the last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<UnreadSlots>,
    /// What is known of each class of a pool with shapes, in place of the fields of the same names. A class of which nothing is
    /// known has no entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<Label, ClassState>,
    /// The pool's version.
    pub revision: u64,
}

/// See [`Meta::classes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassState {
    #[serde(default)]
    pub circuit: Circuit,
    #[serde(default)]
    pub boot_failures: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
}

/// The size of what META remembers of classes, in bytes of text. DynamoDB allows 400 KB for the item.
const KEPT_OF_CLASSES: usize = 200_000;

/// How long a class without jobs and machines is remembered.
const CLASS_KEPT_FOR: SignedDuration = SignedDuration::from_hours(1);

impl ClassState {
    /// When something about the class happened last, or will happen.
    fn latest(&self) -> Option<Timestamp> {
        let until = match &self.circuit {
            Circuit::Open { until, .. } => Some(*until),
            Circuit::Closed => None,
        };
        let failed = self.failures.iter().map(|failure| failure.at);
        failed.chain(self.answers.iter().map(|answer| answer.at)).chain(until).max()
    }

    /// The approximate size in bytes.
    fn size(&self) -> usize {
        const FIELDS: usize = 200;
        let circuit = match &self.circuit {
            Circuit::Open { message, .. } => FIELDS + message.len(),
            Circuit::Closed => FIELDS,
        };
        let failures = self.failures.iter().map(|it| FIELDS + it.reason.len() + it.console.len());
        let answers = self.answers.iter().map(|answer| 2 * FIELDS + answer.message.len());
        circuit + failures.chain(answers).sum::<usize>()
    }

    /// Whether nothing is known.
    fn is_new(&self) -> bool {
        self.circuit == Circuit::Closed
            && self.boot_failures == 0
            && self.failures.is_empty()
            && self.answers.is_empty()
    }
}

impl Meta {
    /// META as a decision about one class sees it.
    #[must_use]
    pub fn of_class(&self, class: &Label) -> Self {
        let of_class = self.classes.get(class).cloned();
        let ClassState { circuit, boot_failures, failures, answers } = of_class.unwrap_or_else(|| ClassState {
            circuit: Circuit::Closed,
            boot_failures: 0,
            failures: Vec::new(),
            answers: Vec::new(),
        });
        Self { circuit, boot_failures, failures, answers, ..self.clone() }
    }

    /// Forgets classes: those of which nothing was heard for an hour and that are not among `present`, and if there are too many,
    /// those of which nothing was heard for the longest time.
    pub fn forget_classes(&mut self, present: &BTreeSet<Option<&Label>>, now: Timestamp) {
        let is_recent = |state: &ClassState| state.latest().is_some_and(|at| now.duration_since(at) < CLASS_KEPT_FOR);
        self.classes.retain(|label, state| present.contains(&Some(label)) || is_recent(state));
        while self.classes.values().map(ClassState::size).sum::<usize>() > KEPT_OF_CLASSES {
            let oldest = self.classes.iter().min_by_key(|(label, state)| (state.latest(), *label));
            let Some(oldest) = oldest.map(|(label, _)| label.clone()) else { break };
            self.classes.remove(&oldest);
        }
    }

    /// META after a decision about one class, from [`Meta::of_class`].
    #[must_use]
    pub fn with_class(&self, class: &Label, decided: Meta) -> Self {
        let state = ClassState {
            circuit: decided.circuit,
            boot_failures: decided.boot_failures,
            failures: decided.failures,
            answers: decided.answers,
        };
        let mut meta = Meta {
            circuit: self.circuit.clone(),
            boot_failures: self.boot_failures,
            failures: self.failures.clone(),
            answers: self.answers.clone(),
            ..decided
        };
        match state.is_new() {
            true => drop(meta.classes.remove(class)),
            false => drop(meta.classes.insert(class.clone(), state)),
        }
        meta
    }
}

impl Meta {
    /// The state before the first decision.
    pub fn new(pool: PoolName, epoch: Epoch) -> Self {
        Self {
            pool,
            epoch,
            config_hash: String::new(),
            circuit: Circuit::Closed,
            boot_failures: 0,
            failures: Vec::new(),
            answers: Vec::new(),
            cooldowns: Vec::new(),
            pauses: Vec::new(),
            throttled: None,
            has_jobs_behind: false,
            last_reading: None,
            unread: None,
            classes: BTreeMap::new(),
            revision: 0,
        }
    }

    /// Whether a runner that takes the job it was launched for leaves nothing to decide: a failing pool may work again, and
    /// jobs that were no demand may be.
    pub fn is_settled(&self) -> bool {
        self.works() && !self.has_jobs_behind
    }

    /// Whether nothing is known of a launch or a machine that failed and would not work the next time.
    pub fn works(&self) -> bool {
        let works = |circuit: &Circuit, failures: u32| *circuit == Circuit::Closed && failures == 0;
        works(&self.circuit, self.boot_failures) && self.classes.values().all(|it| works(&it.circuit, it.boot_failures))
    }

    /// The pool's circuit, without a label, and those of its classes.
    pub fn circuits(&self) -> impl Iterator<Item = (Option<&Label>, &Circuit)> {
        let of_classes = self.classes.iter().map(|(label, state)| (Some(label), &state.circuit));
        std::iter::once((None, &self.circuit)).chain(of_classes)
    }

    /// Whether the pool, or a class of it, launches only probes.
    pub fn has_open_circuit(&self) -> bool {
        self.circuits().any(|(_, circuit)| *circuit != Circuit::Closed)
    }

    /// Whether RunInstances must not be called now.
    pub fn is_throttled(&self, now: Timestamp) -> bool {
        self.throttled.as_ref().is_some_and(|throttled| throttled.until > now)
    }
}

/// See [`Meta::last_reading`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReading {
    /// When it began, or a decision was made from it.
    pub at: Timestamp,
    /// The number of items.
    pub items: u32,
}

/// Slots of jobs that run or have run. No job waits for them, and that never changes, so a decision needs only their number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadSlots {
    /// The slots of earlier versions than this one, except those of `except`.
    pub before: u64,
    /// The earlier slots that a job may still be given to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<SlotId>,
    /// How many of them counted towards the pool's `max` when they were last read. Since then there can only be fewer.
    pub live: u32,
    /// What these cost per hour.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub price_per_hour: MicroUsd,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_nothing(price: &MicroUsd) -> bool {
    *price == MicroUsd::default()
}

impl UnreadSlots {
    /// Whether it is one of them.
    pub fn contains(&self, slot: SlotId) -> bool {
        slot.version < self.before && !self.except.contains(&slot)
    }
}

/// A machine that did not come online.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When it was counted.
    pub at: Timestamp,
    /// None if EC2 did not say which machine it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// When it was launched, or, for a stopped machine, started.
    pub launched_at: Timestamp,
    /// EC2's `StateReason`, or what Drover observed.
    pub reason: String,
    /// The last lines of its console. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub console: String,
}

/// See [`Meta::failures`].
const FAILURES_KEPT: usize = 3;

impl Failure {
    /// Adds the failure, and keeps those of the machines that were launched last.
    pub fn keep(self, latest: &mut Vec<Failure>) {
        latest.push(self);
        latest.sort_by_key(|failure| failure.launched_at);
        let excess = latest.len().saturating_sub(FAILURES_KEPT);
        latest.drain(..excess);
        // A console is long, and that of the last machine is shown.
        let older = latest.len().saturating_sub(1);
        latest[..older].iter_mut().for_each(|failure| failure.console.clear());
    }
}

/// No invocation calls RunInstances for the pool before `until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    pub until: Timestamp,
    /// How often in a row EC2 has throttled. Each wait is longer than the last.
    pub times: u32,
}

/// Stops a pool whose machines cannot work from launching more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Circuit {
    #[default]
    Closed,
    /// Nothing is launched before `until`, then one probe: a machine that shows whether the pool works again.
    Open {
        until: Timestamp,
        /// The length of the last wait. The next one is twice as long.
        backoff_seconds: i64,
        /// When the circuit opened.
        since: Timestamp,
        #[serde(rename = "code")]
        cause: CircuitCause,
        /// EC2's or GitHub's message, or what an operator should look at.
        message: String,
    },
}

/// Why a circuit is open. Stored as text: EC2's error code, `BootFailures`, `EndedEarly` or `RegistrationRefused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum CircuitCause {
    /// Configured runners in a row never came online.
    BootFailures,
    /// Machines in a row ended before their runner came online.
    EndedEarly,
    /// GitHub refuses to register runners, for example because the runner group was deleted.
    RegistrationRefused,
    /// EC2 refuses every launch option of the pool, the last one with this code.
    LaunchRefused(String),
}

const BOOT_FAILURES: &str = "BootFailures";
const ENDED_EARLY: &str = "EndedEarly";
const REGISTRATION_REFUSED: &str = "RegistrationRefused";

impl CircuitCause {
    /// The text that is stored and shown. None of EC2's codes is equal to one of Drover's.
    pub fn code(&self) -> &str {
        match self {
            CircuitCause::BootFailures => BOOT_FAILURES,
            CircuitCause::EndedEarly => ENDED_EARLY,
            CircuitCause::RegistrationRefused => REGISTRATION_REFUSED,
            CircuitCause::LaunchRefused(code) => code,
        }
    }
}
impl From<String> for CircuitCause {
    fn from(code: String) -> Self {
        match code.as_str() {
            BOOT_FAILURES => CircuitCause::BootFailures,
            ENDED_EARLY => CircuitCause::EndedEarly,
            REGISTRATION_REFUSED => CircuitCause::RegistrationRefused,
            _ => CircuitCause::LaunchRefused(code),
        }
    }
}
impl From<CircuitCause> for String {
    fn from(cause: CircuitCause) -> String {
        cause.code().to_owned()
    }
}
impl std::fmt::Display for CircuitCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

/// A tuple that EC2 refused, for lack of capacity or for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    pub tuple: Tuple,
    pub until: Timestamp,
    /// The length of this wait. The next one is twice as long.
    pub seconds: i64,
    /// EC2's error code.
    pub code: String,
}

/// A quota that the account has used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub market: Market,
    /// The type that EC2 refused. Only types that share its quota are affected. None: every type, written by an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<InstanceType>,
    pub until: Timestamp,
    /// EC2's error code.
    pub code: String,
    pub message: String,
}

impl Pause {
    /// Whether launches of the tuple wait for its end.
    pub fn affects(&self, tuple: &Tuple) -> bool {
        let is_counted_with = |it: &InstanceType| share_quota(it, &tuple.instance_type);
        self.market == tuple.market && self.instance_type.as_ref().is_none_or(is_counted_with)
    }
}
