//! The state of one run.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::config::Pool;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use world::ec2::InstanceId;
use world::github;
use world::sqs::{QueueConfig, Redrive, Sqs};

use crate::call::CallKind;
use crate::digest::Digest;
use crate::swarm::agenda::{Agenda, Due};
use crate::swarm::arrival::{ORGANIZATION, OTHER};
use crate::swarm::faults::Dice;
use crate::swarm::ground_truth::{GroundTruth, RemovedPool, Rotation};
use crate::swarm::invocation::{Invocation, Rollback};
use crate::swarm::machine::Machine;
use crate::swarm::outcome::{Line, Options, Topic, Violation};
use crate::swarm::shape::Shape;
use crate::universe::Universe;

/// How long a received message is hidden: six times the time limit of a function.
pub(super) const VISIBILITY: Duration = Duration::from_secs(360);

/// A message that was received this often goes to the dead letters.
const MAX_RECEIVES: u32 = 8;

/// How long after all faults have stopped everything must be in order.
pub(super) const CONVERGES_WITHIN: SignedDuration = SignedDuration::from_mins(20);

pub(super) struct Swarm<'u> {
    pub(super) universe: &'u Universe,
    pub(super) options: &'u Options,
    pub(super) shape: &'u Shape,
    pub(super) dice: Dice,
    /// Decides how long things take.
    pub(super) rng: SmallRng,
    pub(super) began: Timestamp,
    pub(super) now: Timestamp,
    pub(super) agenda: Agenda,
    pub(super) sqs: Sqs,
    /// By number.
    pub(super) invocations: BTreeMap<u64, Invocation<'u>>,
    /// The number of the last invocation.
    pub(super) invoked: u64,
    pub(super) machines: BTreeMap<InstanceId, Machine>,
    pub(super) runs_on: BTreeMap<github::RunnerId, InstanceId>,
    /// Machines that somebody else launched.
    pub(super) foreign_machines: Vec<InstanceId>,
    pub(super) uninstalled: Vec<&'static str>,
    /// What is left to do of a rotation of the app's key.
    pub(super) rotation: Option<Rotation>,
    /// An old version that is deployed.
    pub(super) rollback: Option<Rollback>,
    /// The number of tables that there have been.
    pub(super) tables: u32,
    /// The last invocation that may have used the table that was lost.
    pub(super) lost_at: u64,
    /// The last invocation that may have seen pools that take no jobs, although they do now.
    pub(super) undrained_at: u64,
    /// A pool that the pool file does not have at present.
    pub(super) removed: Option<RemovedPool>,
    /// When the table was lost last.
    pub(super) table_lost_at: Option<Timestamp>,
    /// The pools of the table that was lost.
    pub(super) lost_pools: Vec<Pool>,
    /// Until when GitHub answers no call.
    pub(super) github_hangs_until: Timestamp,
    pub(super) calm_since: Option<Timestamp>,
    /// Jobs that are queued after all faults have stopped, one for each pool.
    pub(super) probes: Vec<github::JobId>,
    pub(super) truth: GroundTruth,
    pub(super) interrupted: Vec<[u64; 2]>,
    pub(super) digest: Digest,
    pub(super) steps: u64,
    pub(super) story: Vec<Line>,
    pub(super) violation: Option<Violation>,
    pub(super) over: bool,
}

impl<'u> Swarm<'u> {
    pub(super) fn new(universe: &'u Universe, options: &'u Options, shape: &'u Shape, rng: SmallRng) -> Self {
        let now = universe.now();
        let mut swarm = Self {
            universe,
            options,
            shape,
            dice: Dice::new(options.seed, &options.without, options.mistake),
            rng,
            began: now,
            now,
            agenda: Agenda::default(),
            sqs: Sqs::default(),
            invocations: BTreeMap::new(),
            invoked: 0,
            machines: BTreeMap::new(),
            runs_on: BTreeMap::new(),
            foreign_machines: Vec::new(),
            uninstalled: Vec::new(),
            rotation: None,
            rollback: None,
            tables: 1,
            lost_at: 0,
            undrained_at: 0,
            removed: None,
            table_lost_at: None,
            lost_pools: Vec::new(),
            github_hangs_until: now,
            calm_since: None,
            probes: Vec::new(),
            truth: GroundTruth::default(),
            interrupted: vec![[0; 2]; CallKind::ALL.len()],
            digest: Digest::default(),
            steps: 0,
            story: Vec::new(),
            violation: None,
            over: false,
        };
        swarm.set_up();
        swarm
    }

    fn set_up(&mut self) {
        self.universe.github(|github, now| {
            let organization = github.find_owner(ORGANIZATION).expect("every universe has it").id;
            for repository in ["gadgets", "elsewhere"] {
                github.add_repository(organization, repository, github::Visibility::Private, now);
            }
            for (owner, repository) in self.shape.arrivals.iter().map(|arrival| arrival.repository) {
                if owner == ORGANIZATION && github.find_repository(owner, repository).is_none() {
                    github.add_repository(organization, repository, github::Visibility::Private, now);
                }
            }
            let other = github.add_owner(OTHER, github::OwnerKind::Organization, now);
            github.add_repository(other, "tools", github::Visibility::Private, now);
        });
        self.universe.state().install(OTHER);
        self.sqs.create_queue("dead", QueueConfig { visibility: VISIBILITY, redrive: None });
        let redrive = Some(Redrive { to: "dead".to_owned(), after: MAX_RECEIVES });
        self.sqs.create_queue("main", QueueConfig { visibility: VISIBILITY, redrive });
        for (index, arrival) in self.shape.arrivals.iter().enumerate() {
            self.plan(self.began + arrival.after, Due::Arrival(index));
        }
        for (from, until) in &self.shape.stormy {
            self.plan(self.began + *from, Due::Weather);
            self.plan(self.began + *until, Due::Weather);
        }
        for (index, storm) in self.shape.market.iter().flat_map(|market| &market.storms).enumerate() {
            self.plan(self.began + storm.at, Due::Reclaim(index));
        }
        let calm = self.began + self.shape.calm_after;
        self.plan(calm, Due::Calm);
        self.plan(calm + CONVERGES_WITHIN, Due::InOrder);
        self.plan(self.began + SignedDuration::from_secs(37), Due::Janitor);
        self.plan(self.began + SignedDuration::from_secs(11), Due::Incidents);
    }

    pub(super) fn plan(&mut self, at: Timestamp, due: Due) {
        self.agenda.plan(at, due);
    }

    pub(super) fn plan_in(&mut self, after: SignedDuration, due: Due) {
        self.plan(self.now + after, due);
    }

    /// Adds a line to the story.
    pub(super) fn log(&mut self, topic: Topic, who: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if self.options.trace {
            let line = Line { at: self.now, who: who(), what: what(), topic };
            self.story.push(line);
        }
    }

    /// Adds a line about something outside Drover.
    pub(super) fn log_world(&mut self, what: impl FnOnce() -> String) {
        self.log(Topic::Event, || "world".to_owned(), what);
    }

    pub(super) fn mix(&mut self, value: u64) {
        self.digest.add(&value.to_le_bytes());
    }

    /// An invariant does not hold. `what` begins with its id.
    pub(super) fn violate(&mut self, what: String) {
        if self.options.outcomes_only && what.starts_with(['S', 'P']) {
            return;
        }
        self.log(Topic::Event, || "judge".to_owned(), || what.clone());
        if self.violation.is_none() {
            let invariant = what.split([':', ' ']).next().unwrap_or_default().to_owned();
            self.violation = Some(Violation { invariant, what, at: self.now });
        }
    }
}
