//! One seed: the engine in a world where everything goes wrong, then in one where nothing does any more.
//!
//! Single-threaded and event-driven: time jumps to the next thing that is due. Every call of a port is two of those
//! things, before it and after it, each at a time of its own, so invocations interleave at every call. At each of them a
//! fault may strike and the invocation may end.

mod effects;
mod faults;
mod hunt;
mod judge;
mod machines;
mod shape;
mod shrink;
mod total;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use domain::config::Pool;
use domain::state::Config;
use domain::wire::Message;
use engine::consume::Consumed;
use engine::ports::{Launch, StoreError};
use engine::sweep::{Mode, Report, sweep};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use world::ec2::{self, InstanceId};
use world::github::{self, Delivery};
use world::sqs::{QueueConfig, Redrive, Sqs};
use world::{LostReply, Model};

use crate::mistakes::Mistake;
use crate::ports::TableFault;
use crate::steps::Side;
use crate::universe::Universe;

pub use effects::{EFFECTS, effect_of};
pub use faults::{Fault, VERSION};
pub use hunt::{Hunt, hunt};
pub use judge::{Convergence, Violation};
pub use shrink::{Shrunk, shrink};
pub use total::Total;

use faults::Dice;
use machines::Machine;
use shape::{ORGANIZATION, OTHER, Shape, soon};

/// How long a received message is hidden: six times what a function may take.
const VISIBILITY: Duration = Duration::from_secs(360);

/// A message that was received so often goes to the dead letters.
const RECEIVED_AT_MOST: u32 = 8;

/// Faults and jobs stop, and so long after that everything must be in order.
const CONVERGES_WITHIN: SignedDuration = SignedDuration::from_mins(20);

/// A new job starts within this time when nothing goes wrong.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_mins(3);

/// How long the last jobs and their machines may take to leave no trace.
const LEAVES_WITHIN: SignedDuration = SignedDuration::from_mins(15);

/// A job whose relaunches were used up by faults may have to wait for its hour to end.
const LATE_AT_MOST: SignedDuration = SignedDuration::from_mins(85);

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// How many jobs come.
    pub jobs: usize,
    /// Kinds of faults that are off whatever the seed says.
    pub without: Vec<Fault>,
    /// Whether to tell the story.
    pub trace: bool,
    /// Whether only what users would notice counts: a job not served, a machine left, a job killed.
    pub outcomes_only: bool,
    /// A deliberate mistake to make.
    pub mistake: Option<Mistake>,
}

/// A line of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// What.
    pub what: String,
}

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// The same for the same seed, whatever else.
    pub digest: u64,
    /// Jobs that came, re-runs among them.
    pub jobs: usize,
    /// Things that happened.
    pub steps: u64,
    /// How often each kind of fault struck.
    pub struck: Vec<u64>,
    /// How often an invocation ended at each effect, before it and after it.
    pub reach: Vec<[u64; 2]>,
    /// What was launched and for what.
    pub machines: judge::Machines,
    /// How long each served job waited.
    pub waited: Vec<SignedDuration>,
    /// Jobs that waited longer by design: their relaunches were used up, or their pool was at its maximum.
    pub late: u64,
    /// How long after the last fault everything was in order.
    pub converged: Option<Convergence>,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// The story, if it was asked for.
    pub story: Vec<Line>,
}

/// What is due.
enum Due {
    /// An invocation stands at a call.
    Point { invocation: u64, ticket: u64 },
    /// An invocation has used up its time.
    TimeIsUp(u64),
    /// There may be something on the queue.
    Receive,
    /// The schedule starts the janitor.
    Janitor,
    /// The next job comes.
    Arrival(usize),
    /// A webhook reaches ingest.
    Webhook(Box<Delivery>),
    /// A runner picks up what it was offered.
    PickUp(github::Offer),
    /// A runner's job is over.
    Finish(github::RunnerId, github::JobId, github::Conclusion),
    /// Somebody runs a job again.
    Rerun(github::JobId),
    /// Somebody approves.
    Approve(github::JobId),
    /// The app is installed again.
    Install(&'static str),
    /// The table is there again, empty but for the pools.
    TableAgain,
    /// What a machine does next.
    Machine(InstanceId, machines::Doing),
    /// The call of an invocation that is no more reaches EC2.
    LateLaunch(Box<Launch>),
    /// A storm begins or ends.
    Weather,
    /// Something bad may happen to whatever there is.
    WebhookFaults,
    /// All faults stop.
    Calm,
    /// Everything must be in order, and new jobs come.
    InOrder,
    /// The new jobs must have started.
    Started,
    /// Nothing may be left.
    Over,
}

/// What an invocation came to.
enum Done {
    Scaler(Consumed),
    Janitor(Result<Report, StoreError>),
}

struct Invocation<'u> {
    future: Pin<Box<dyn Future<Output = Done> + 'u>>,
    /// Receipts of the messages it has, by their place.
    receipts: Vec<String>,
    messages: Vec<Message>,
    ownership: BTreeMap<u64, Ownership>,
    janitor: bool,
}

/// A part of an invocation that stands at a call.
struct Ownership {
    side: Side,
    call: String,
    effect: usize,
    waker: Waker,
    launch: Option<Box<Launch>>,
}

struct Swarm<'u> {
    universe: &'u Universe,
    options: &'u Options,
    shape: &'u Shape,
    dice: Dice,
    /// The world's own chances: how long things take.
    rng: SmallRng,
    began: Timestamp,
    now: Timestamp,
    agenda: BTreeMap<(Timestamp, u64), Due>,
    planned: u64,
    sqs: Sqs,
    invocations: BTreeMap<u64, Invocation<'u>>,
    invoked: u64,
    machines: BTreeMap<InstanceId, Machine>,
    runs_on: BTreeMap<github::RunnerId, InstanceId>,
    /// Machines of somebody else.
    strangers: Vec<InstanceId>,
    uninstalled: Vec<&'static str>,
    /// How many tables there have been.
    tables: u32,
    /// The last invocation that began before the present one.
    lost_at: u64,
    /// What was applied to the one that was lost.
    pools_applied: Vec<Pool>,
    calm_since: Option<Timestamp>,
    probes: Vec<github::JobId>,
    judge: judge::Judge,
    reach: Vec<[u64; 2]>,
    digest: u64,
    steps: u64,
    story: Vec<Line>,
    violation: Option<Violation>,
    over: bool,
}

/// Runs one seed.
pub fn run(options: &Options) -> Outcome {
    let mut rng = SmallRng::seed_from_u64(options.seed);
    let shape = Shape::of(&mut rng, options.jobs);
    let universe =
        Universe::with(options.seed, shape.pools.clone(), shape.ec2.clone(), shape.github.clone(), options.mistake);
    universe.store.remember();
    universe.steps.schedule();
    let now = universe.now();
    let mut swarm = Swarm {
        universe: &universe,
        options,
        shape: &shape,
        dice: Dice::new(options.seed, &options.without),
        rng,
        began: now,
        now,
        agenda: BTreeMap::new(),
        planned: 0,
        sqs: Sqs::default(),
        invocations: BTreeMap::new(),
        invoked: 0,
        machines: BTreeMap::new(),
        runs_on: BTreeMap::new(),
        strangers: Vec::new(),
        uninstalled: Vec::new(),
        tables: 1,
        lost_at: 0,
        pools_applied: Vec::new(),
        calm_since: None,
        probes: Vec::new(),
        judge: judge::Judge::default(),
        reach: vec![[0; 2]; EFFECTS.len()],
        digest: 0xcbf2_9ce4_8422_2325,
        steps: 0,
        story: Vec::new(),
        violation: None,
        over: false,
    };
    swarm.set_up();
    while !swarm.over && swarm.violation.is_none() {
        swarm.step();
    }
    swarm.outcome()
}

impl<'u> Swarm<'u> {
    fn set_up(&mut self) {
        self.universe.github(|github, now| {
            let organization = github.find_owner(ORGANIZATION).expect("every universe has it").id;
            for repository in ["gadgets", "elsewhere"] {
                github.add_repository(organization, repository, github::Visibility::Private, now);
            }
            let other = github.add_owner(OTHER, github::OwnerKind::Organization, now);
            github.add_repository(other, "tools", github::Visibility::Private, now);
        });
        self.universe.state().install(OTHER);
        self.sqs.create_queue("dead", QueueConfig { visibility: VISIBILITY, redrive: None });
        let redrive = Some(Redrive { to: "dead".to_owned(), after: RECEIVED_AT_MOST });
        self.sqs.create_queue("main", QueueConfig { visibility: VISIBILITY, redrive });
        for (number, arrival) in self.shape.arrivals.iter().enumerate() {
            self.plan(self.began + arrival.after, Due::Arrival(number));
        }
        for (from, until) in &self.shape.stormy {
            self.plan(self.began + *from, Due::Weather);
            self.plan(self.began + *until, Due::Weather);
        }
        let calm = self.began + self.shape.calm_after;
        self.plan(calm, Due::Calm);
        self.plan(calm + CONVERGES_WITHIN, Due::InOrder);
        self.plan(self.began + SignedDuration::from_secs(37), Due::Janitor);
        self.plan(self.began + SignedDuration::from_secs(11), Due::WebhookFaults);
    }

    fn plan(&mut self, at: Timestamp, due: Due) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), due);
    }

    fn plan_in(&mut self, after: SignedDuration, due: Due) {
        self.plan(self.now + after, due);
    }

    /// Tells a line of the story.
    fn tell(&mut self, who: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if self.options.trace {
            let line = Line { at: self.now, who: who(), what: what() };
            self.story.push(line);
        }
    }

    fn world_tells(&mut self, what: impl FnOnce() -> String) {
        self.tell(|| "world".to_owned(), what);
    }

    fn mix(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn violates(&mut self, what: String) {
        if self.options.outcomes_only && what.starts_with('S') {
            return;
        }
        self.tell(|| "judge".to_owned(), || what.clone());
        if self.violation.is_none() {
            let invariant = what.split([':', ' ']).next().unwrap_or_default().to_owned();
            self.violation = Some(Violation { invariant, what, at: self.now });
        }
    }

    /// Time jumps to whatever is due next, and that happens.
    fn step(&mut self) {
        let next = self.agenda.first_key_value().map(|((at, _), _)| *at).expect("the end is always due");
        let mut state = self.universe.state();
        let models = [state.ec2.next_due(), state.github.next_due()].into_iter().flatten().min();
        let at = models.map_or(next, |at| at.min(next)).max(self.now);
        self.now = at;
        state.now = at;
        let machines = state.ec2.advance(at);
        let github = state.github.advance(at);
        drop(state);
        self.steps += 1;
        self.mix(at.as_microsecond() as u64);
        for happening in machines {
            self.ec2_happened(happening);
        }
        for happening in github {
            self.github_happened(happening);
        }
        if next <= at
            && let Some((_, due)) = self.agenda.pop_first()
        {
            self.happen(due);
        }
        for broken in self.universe.store.take_broken() {
            self.violates(broken);
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Point { invocation, ticket } => self.point(invocation, ticket),
            Due::TimeIsUp(invocation) => {
                if self.invocations.contains_key(&invocation) {
                    self.end(invocation, "has used up its time");
                }
            }
            Due::Receive => self.receive(),
            Due::Janitor => {
                self.plan_in(SignedDuration::from_mins(1), Due::Janitor);
                if self.dice.strikes(Fault::JanitorMissed) {
                    self.world_tells(|| "the schedule does not start the janitor".to_owned());
                } else {
                    self.start_janitor();
                    if self.dice.strikes(Fault::JanitorTwice) {
                        self.start_janitor();
                    }
                }
                self.watch();
            }
            Due::Arrival(number) => self.arrive(number),
            Due::Webhook(delivery) => self.ingest(&delivery),
            Due::PickUp(offer) => self.pick_up(&offer),
            Due::Finish(runner, job, how) => self.finish_job(runner, job, how),
            Due::Rerun(job) => self.rerun(job),
            Due::Approve(job) => {
                self.world_tells(|| format!("job {job} is approved"));
                self.universe.github(|github, now| github.approve(job, now));
            }
            Due::Install(owner) => {
                self.uninstalled.retain(|login| *login != owner);
                self.world_tells(|| format!("{owner} installs the app again"));
                self.universe.state().install(owner);
            }
            Due::TableAgain => self.table_again(),
            Due::Machine(instance, doing) => self.machine_does(instance, doing),
            Due::LateLaunch(launch) => {
                let answer = self.universe.launch_now(&launch);
                self.world_tells(|| {
                    format!("the call of a function that is no more reaches EC2: {}: {answer:?}", launch.tag)
                });
            }
            Due::Weather => self.weather(),
            Due::WebhookFaults => self.webhook_faults(),
            Due::Calm => self.calm(),
            Due::InOrder => self.in_order(),
            Due::Started => self.started(),
            Due::Over => self.over(),
        }
    }

    /// Faults that are a state of the world and not an occasion.
    fn weather(&mut self) {
        let on = self.calm_since.is_none() && self.shape.stormy_at(self.now.duration_since(self.began));
        self.dice.on = on;
        let mut state = self.universe.state();
        let (mut ec2, mut github) = (ec2::Faults::default(), github::Faults::default());
        if self.dice.lasts(Fault::Invisible) {
            ec2.invisible_for = Duration::from_secs_f64(120.0 * self.dice.intensity(Fault::Invisible));
        }
        if self.dice.lasts(Fault::BootFailure) {
            ec2.boot_failures = self.dice.intensity(Fault::BootFailure);
        }
        if self.dice.lasts(Fault::Stops) {
            ec2.stops = self.dice.intensity(Fault::Stops);
        }
        if self.dice.lasts(Fault::StaleList) {
            github.busy_lag = Duration::from_secs_f64(120.0 * self.dice.intensity(Fault::StaleList));
        }
        if self.dice.lasts(Fault::IdleRemoved) {
            github.idle_limit = Some(Duration::from_secs_f64(360.0 - 240.0 * self.dice.intensity(Fault::IdleRemoved)));
        }
        state.ec2.faults = ec2;
        state.github.faults = github;
        drop(state);
        if on && self.dice.intensity(Fault::ForeignRunner) > 0.0 && !self.judge.foreign_runner {
            self.judge.foreign_runner = self.dice.lasts(Fault::ForeignRunner);
            let scope = github::Scope::repository(ORGANIZATION, "gadgets");
            self.universe
                .github(|github, now| github.add_foreign_runner(scope, "somebody-elses", &["linux", "x64"], now));
            self.world_tells(|| "somebody else's runner serves gadgets, too".to_owned());
        }
        self.world_tells(|| if on { "a storm begins" } else { "it is quiet" }.to_owned());
    }

    fn calm(&mut self) {
        self.calm_since = Some(self.now);
        self.weather();
        for owner in std::mem::take(&mut self.uninstalled) {
            self.universe.state().install(owner);
        }
        self.table_again();
        let waiting: Vec<_> = self.universe.github(|github, _| {
            github.jobs().filter(|job| job.state == github::JobState::Waiting).map(|job| job.id).collect()
        });
        for job in waiting {
            self.universe.github(|github, now| github.approve(job, now));
        }
        // The operator looks at the dead letters and sends them again.
        let dead: Vec<String> = self.sqs.bodies("dead").into_iter().map(str::to_owned).collect();
        self.sqs.purge_queue("dead");
        for body in dead {
            self.send(&body, SignedDuration::ZERO);
        }
        self.world_tells(|| "all faults stop".to_owned());
    }

    /// What happens by somebody's hand, or by no hand at all.
    fn webhook_faults(&mut self) {
        self.plan_in(SignedDuration::from_secs(20), Due::WebhookFaults);
        if self.dice.strikes(Fault::Cancelled) {
            let jobs: Vec<_> = self.universe.github(|github, _| {
                github.jobs().filter(|job| job.state.conclusion().is_none()).map(|job| job.id).collect()
            });
            if !jobs.is_empty() {
                let job = jobs[self.dice.pick(Fault::Cancelled, jobs.len())];
                self.world_tells(|| format!("job {job} is cancelled"));
                self.judge.cancelled.insert(job);
                self.universe.github(|github, now| github.cancel(job, now));
            }
        }
        if self.dice.strikes(Fault::Uninstalled) {
            let owner = [ORGANIZATION, OTHER][self.dice.pick(Fault::Uninstalled, 2)];
            if !self.uninstalled.contains(&owner) {
                self.uninstalled.push(owner);
                self.world_tells(|| format!("{owner} uninstalls the app"));
                self.universe.github(|github, _| {
                    let id = github.find_owner(owner).expect("an account of this world").id;
                    github.uninstall(id);
                });
                let away = SignedDuration::from_secs(60 + self.dice.pick(Fault::Uninstalled, 300) as i64);
                self.plan_in(away, Due::Install(owner));
            }
        }
        for (fault, spot) in [(Fault::SpotTaken, true), (Fault::HostFails, false)] {
            if self.dice.strikes(fault) {
                let alive: Vec<InstanceId> = self.universe.ec2(|ec2, _| {
                    let there = ec2.alive().filter(|machine| !spot || machine.market == ec2::Market::Spot);
                    there.map(|machine| machine.id.clone()).collect()
                });
                // Every second time one that has a job, if there is one.
                let busy: Vec<InstanceId> = alive.iter().filter(|machine| self.has_job(machine)).cloned().collect();
                let alive = if busy.is_empty() || self.dice.pick(fault, 2) == 0 { alive } else { busy };
                if !alive.is_empty() {
                    let machine = alive[self.dice.pick(fault, alive.len())].clone();
                    self.world_tells(|| {
                        format!("{} {machine}", if spot { "EC2 wants back" } else { "the host fails of" })
                    });
                    self.judge.spoilt.insert(machine.clone());
                    self.universe.ec2(|ec2, now| {
                        if spot { ec2.interrupt_spot(&machine, now) } else { ec2.fail_host(&machine, now) }
                    });
                }
            }
        }
        if self.dice.strikes(Fault::ForeignMachine) {
            self.foreign_machine();
        }
        if self.dice.strikes(Fault::TableLost) {
            self.lose_table();
        }
    }

    /// Everything that was known is forgotten, and what is running has no use any more but for the jobs it has.
    fn lose_table(&mut self) {
        let Some(config) = self.universe.configured() else { return };
        self.world_tells(|| "the table is lost".to_owned());
        self.pools_applied = config.pools;
        self.tables += 1;
        self.lost_at = self.invoked;
        self.universe.store.empty();
        let alive: Vec<InstanceId> =
            self.universe.ec2(|ec2, _| ec2.alive().map(|machine| machine.id.clone()).collect());
        self.judge.spoilt.extend(alive);
        // No invocation that read the old one runs any more then.
        self.plan_in(crate::universe::INVOCATION + SignedDuration::from_secs(5), Due::TableAgain);
    }

    fn table_again(&mut self) {
        if self.universe.configured().is_some() {
            return;
        }
        self.world_tells(|| "an operator applies the pools to a new table".to_owned());
        self.universe.apply(self.pools_applied.clone(), &format!("e{}", self.tables));
        self.plan_in(SignedDuration::ZERO, Due::Receive);
    }

    /// Another stack's machine, or one that somebody made with our stack's tag and no batch.
    fn foreign_machine(&mut self) {
        let stack = ["other", "simulator", "sim"][self.dice.pick(Fault::ForeignMachine, 3)];
        let Some(template) = self.shape_template() else { return };
        let request = ec2::RunInstances {
            template: ec2::TemplateRef::Id(template),
            template_version: None,
            min_count: 1,
            max_count: 1,
            subnet: "subnet-a".into(),
            instance_type: None,
            market: ec2::Market::OnDemand,
            client_token: None,
            tags: [("drover:stack".to_owned(), stack.to_owned())].into(),
            volume_tags: ec2::Tags::new(),
        };
        let made = self.universe.ec2(|ec2, now| ec2.run_instances(request, now));
        if let Ok(made) = made {
            self.strangers.extend(made.instances.into_iter().map(|instance| instance.id));
            self.world_tells(|| format!("somebody else launches a machine of stack {stack}"));
        }
    }

    fn shape_template(&self) -> Option<ec2::TemplateId> {
        let config = self.universe.configured()?;
        Some(config.pools[0].launch_template.id.as_str().into())
    }

    fn arrive(&mut self, number: usize) {
        let arrival = self.shape.arrivals[number].clone();
        let foreign = arrival.repository.0 == ORGANIZATION && self.dice.strikes(Fault::ForeignJob);
        let repository = if foreign { (ORGANIZATION, "elsewhere") } else { arrival.repository };
        let gated = self.dice.strikes(Fault::Gated);
        let job = self.universe.github(|github, now| {
            let repository = github.find_repository(repository.0, repository.1).expect("a repository of this world").id;
            let job = github::QueueJob {
                runs_for: arrival.runs_for.unsigned_abs(),
                ..github::QueueJob::new(repository, &arrival.labels)
            };
            if gated { github.queue_gated_job(job, now) } else { github.queue_job(job, now) }
        });
        if foreign {
            self.judge.foreign.insert(job);
        }
        if gated {
            let after = SignedDuration::from_secs(60 + self.dice.pick(Fault::Gated, 600) as i64);
            self.judge.gated.insert(job);
            self.plan_in(after, Due::Approve(job));
        }
        self.world_tells(|| {
            let how = if gated { " behind a gate" } else { "" };
            format!("job {job} of {}/{} is queued{how}, for {:?}", repository.0, repository.1, arrival.labels)
        });
    }

    fn github_happened(&mut self, happening: github::Happening) {
        match happening {
            github::Happening::Deliver(delivery) => self.deliver(delivery),
            github::Happening::Offered(offer) => {
                let after = soon(&mut self.rng);
                if self.dice.strikes(Fault::NotPickedUp) {
                    self.world_tells(|| format!("runner {} does not pick up job {}", offer.runner, offer.job));
                } else {
                    self.plan_in(after, Due::PickUp(offer));
                }
            }
            github::Happening::CancelWanted { runner, job } => {
                let after = soon(&mut self.rng);
                self.plan_in(after, Due::Finish(runner, job, github::Conclusion::Cancelled));
            }
            github::Happening::RunnerRemoved { runner } => {
                if let Some(instance) = self.runs_on.remove(&runner) {
                    self.runner_ended(&instance);
                }
            }
        }
    }

    fn deliver(&mut self, delivery: Box<Delivery>) {
        if self.dice.strikes(Fault::WebhookNeverSent) {
            self.world_tells(|| {
                format!("GitHub never sends {} of job {}", delivery.event.action, delivery.event.job.id)
            });
            return;
        }
        if self.dice.strikes(Fault::WebhookFailed) {
            self.world_tells(|| {
                format!("ingest is away for {} of job {}", delivery.event.action, delivery.event.job.id)
            });
            self.universe.github(|github, now| {
                github.record_answer(delivery.id, github::Answer::Status(503), Duration::from_millis(20), now);
            });
            return;
        }
        if self.dice.strikes(Fault::WebhookTwice) {
            let after = soon(&mut self.rng);
            self.plan_in(after, Due::Webhook(delivery.clone()));
        }
        if self.dice.strikes(Fault::WebhookLate) {
            let after = SignedDuration::from_millis(self.dice.pick(Fault::WebhookLate, 600_000) as i64);
            self.plan_in(after, Due::Webhook(delivery));
        } else {
            self.ingest(&delivery);
        }
    }

    fn ingest(&mut self, delivery: &Delivery) {
        let mut notice = crate::universe::notice(&delivery.event, &delivery.guid, self.now);
        if self.dice.lasts(Fault::GithubClock) {
            let skew = SignedDuration::from_secs_f64(240.0 * self.dice.intensity(Fault::GithubClock) - 120.0);
            notice.job.created_at += skew;
            notice.job.started_at = notice.job.started_at.map(|at| at + skew);
            notice.job.completed_at = notice.job.completed_at.map(|at| at + skew);
        }
        self.universe.github(|github, now| {
            github.record_answer(delivery.id, github::Answer::Status(202), Duration::from_millis(20), now);
        });
        let body = Message::WorkflowJob(Box::new(notice)).to_body();
        self.send(&body, SignedDuration::ZERO);
    }

    fn send(&mut self, body: &str, after: SignedDuration) {
        let late = if self.dice.strikes(Fault::MessageLate) {
            SignedDuration::from_millis(self.dice.pick(Fault::MessageLate, 300_000) as i64)
        } else {
            SignedDuration::ZERO
        };
        let times = if self.dice.strikes(Fault::MessageTwice) { 2 } else { 1 };
        let delay = (after + late).unsigned_abs().min(Duration::from_secs(900));
        for _ in 0..times {
            self.sqs.send("main", body, delay, self.now).expect("a message of a valid size");
        }
        self.plan(self.now + delay, Due::Receive);
    }

    /// Starts as many scalers as there are messages for and as may run.
    fn receive(&mut self) {
        loop {
            let running = self.invocations.values().filter(|invocation| !invocation.janitor).count();
            let Some(config) = self.universe.configured().filter(|_| running < self.shape.scalers) else { return };
            let received = self.sqs.receive("main", 10, self.now).expect("the queue exists");
            if received.is_empty() {
                return;
            }
            self.plan_in(SignedDuration::try_from(VISIBILITY).expect("some minutes"), Due::Receive);
            let messages: Vec<Message> =
                received.iter().map(|received| Message::parse(&received.body).expect("a message of ours")).collect();
            let receipts = received.into_iter().map(|received| received.receipt).collect();
            let count = messages.len();
            let future = self.scaler(config, messages.clone());
            let number = self.start(future, receipts, false);
            if let Some(invocation) = self.invocations.get_mut(&number) {
                invocation.messages = messages;
            }
            self.tell(|| format!("scaler {number}"), || format!("begins with {count} messages"));
            self.poll(number);
        }
    }

    fn scaler(&self, config: Config, messages: Vec<Message>) -> Pin<Box<dyn Future<Output = Done> + 'u>> {
        let universe = self.universe;
        Box::pin(async move {
            universe.invocation(async |context| Done::Scaler(universe.consume(context, &config, &messages).await)).await
        })
    }

    fn start_janitor(&mut self) {
        let universe = self.universe;
        let future: Pin<Box<dyn Future<Output = Done> + 'u>> = Box::pin(async move {
            universe.invocation(async |context| Done::Janitor(sweep(context, Mode::Repair).await)).await
        });
        let number = self.start(future, Vec::new(), true);
        self.tell(|| format!("janitor {number}"), || "begins".to_owned());
        self.poll(number);
    }

    fn start(&mut self, future: Pin<Box<dyn Future<Output = Done> + 'u>>, receipts: Vec<String>, janitor: bool) -> u64 {
        self.invoked += 1;
        let invocation = Invocation { future, receipts, messages: Vec::new(), ownership: BTreeMap::new(), janitor };
        self.invocations.insert(self.invoked, invocation);
        self.plan_in(crate::universe::INVOCATION, Due::TimeIsUp(self.invoked));
        self.invoked
    }

    /// An invocation stands at a call: it ends there, or goes on.
    fn point(&mut self, number: u64, ticket: u64) {
        let Some(invocation) = self.invocations.get_mut(&number) else { return };
        let Some(ownership) = invocation.ownership.remove(&ticket) else { return };
        let janitor = invocation.janitor;
        self.mix(number << 32 | ticket);
        let Ownership { side, call, effect, waker, launch } = ownership;
        if self.crashes(effect, side) {
            self.reach[effect][side as usize] += 1;
            if let Some(launch) = launch
                && side == Side::Before
                && self.dice.strikes(Fault::LaunchLate)
            {
                // It was on its way already. Nothing an invocation began is on its way for longer than its lease.
                let after = SignedDuration::from_secs(1 + self.dice.pick(Fault::LaunchLate, 20) as i64);
                self.plan_in(after, Due::LateLaunch(launch));
            }
            let side = if side == Side::Before { "before" } else { "after" };
            self.end(number, &format!("ends {side} {call}"));
            return;
        }
        if side == Side::Before {
            if EFFECTS[effect] == "RunInstances" {
                self.judge_alone(number, &call);
            }
            let struck = self.inject(effect);
            let who = if janitor { "janitor" } else { "scaler" };
            self.tell(
                || format!("{who} {number}"),
                || match struck {
                    Some(fault) => format!("{call} [{}]", fault.name()),
                    None => call.clone(),
                },
            );
        }
        self.universe.steps.call(ticket);
        waker.wake();
        self.poll(number);
    }

    /// Whether a function ends there: in storms anywhere, and in the quiet between them at what happens rarely. What follows
    /// a storm by minutes would hardly ever be interrupted otherwise.
    fn crashes(&mut self, effect: usize, side: Side) -> bool {
        let weight = effects::weight(effect, side);
        let may = self.dice.on || self.calm_since.is_none() && effects::is_rare(effect);
        may && self.dice.strikes_anytime(Fault::Crash, weight)
    }

    fn poll(&mut self, number: u64) {
        let Some(invocation) = self.invocations.get_mut(&number) else { return };
        let done = invocation.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        for arrival in self.universe.steps.arrivals() {
            let effect = effect_of(&arrival.call);
            let launch = self.universe.state().sending.take().map(Box::new);
            let takes = self.latency(effect);
            let ownership = Ownership { side: arrival.side, call: arrival.call, effect, waker: arrival.waker, launch };
            if let Some(invocation) = self.invocations.get_mut(&number) {
                invocation.ownership.insert(arrival.ticket, ownership);
            }
            self.plan_in(takes, Due::Point { invocation: number, ticket: arrival.ticket });
        }
        let (messages, handed_over) = {
            let mut state = self.universe.state();
            (std::mem::take(&mut state.messages), std::mem::take(&mut state.handed_over))
        };
        for (at, message) in messages {
            self.send(&message.to_body(), at.duration_since(self.now));
        }
        for machine in handed_over {
            self.handed_over(machine);
        }
        if let Poll::Ready(done) = done {
            self.finished(number, done);
        }
    }

    fn latency(&mut self, effect: usize) -> SignedDuration {
        let (least, most) = effects::takes(effect);
        let takes = SignedDuration::from_micros(self.rng.random_range(least..most) * 500);
        if self.dice.strikes(Fault::Slow) {
            takes + SignedDuration::from_millis(self.dice.pick(Fault::Slow, 25_000) as i64)
        } else {
            takes
        }
    }

    /// What strikes the call that is about to be made.
    fn inject(&mut self, effect: usize) -> Option<Fault> {
        if !self.dice.on {
            return None;
        }
        match EFFECTS[effect] {
            "RunInstances" => self.inject_launch(),
            "TerminateInstances" => {
                let operation = ec2::Operation::TerminateInstances;
                self.universe.ec2(|ec2, _| ec2.faults.errors.clear());
                if self.dice.strikes(Fault::TerminateFails) {
                    self.universe.ec2(|ec2, _| ec2.faults.errors.push_back((operation, ec2::Code::InternalError)));
                    return Some(Fault::TerminateFails);
                }
                if self.dice.strikes(Fault::TerminateLostAfter) {
                    self.universe.ec2(|ec2, _| ec2.faults.lost_replies.push_back((operation, LostReply::Applied)));
                    return Some(Fault::TerminateLostAfter);
                }
                None
            }
            "DescribeInstances" => self.inject_look(ec2::Operation::DescribeInstances),
            "GetConsoleOutput" => self.inject_look(ec2::Operation::GetConsoleOutput),
            "generate-jitconfig" => self.inject_github(github::Endpoint::GenerateJit),
            "list runners" => self.inject_github(github::Endpoint::ListRunners),
            "DELETE runner" => self.inject_github(github::Endpoint::DeleteRunner),
            "GET job" => self.inject_github(github::Endpoint::GetJob),
            "GET jobs of run" => self.inject_github(github::Endpoint::ListRunJobs),
            "GET runs" => self.inject_github(github::Endpoint::ListRuns),
            "GET deliveries" => self.inject_github(github::Endpoint::ListDeliveries),
            "redeliver" => self.inject_github(github::Endpoint::Redeliver),
            "check run" => self.inject_github(github::Endpoint::CreateCheckRun),
            "rerun" => self.inject_github(github::Endpoint::RerunJob),
            "nudge" => self.dice.strikes(Fault::NudgeFails).then(|| {
                self.universe.state().queue_fault = true;
                Fault::NudgeFails
            }),
            "get" | "query" => self.dice.strikes(Fault::TableThrottled).then(|| {
                let fault = TableFault::Unavailable(LostReply::NotApplied);
                self.universe.state().table_fault = Some(fault);
                Fault::TableThrottled
            }),
            commit if commit.starts_with("commit") => {
                let kinds = [
                    (Fault::TableConflict, TableFault::Conflict),
                    (Fault::TableThrottled, TableFault::Unavailable(LostReply::NotApplied)),
                    (Fault::TableLostAfter, TableFault::Unavailable(LostReply::Applied)),
                ];
                let (fault, how) = kinds.into_iter().find(|(fault, _)| self.dice.strikes(*fault))?;
                self.universe.state().table_fault = Some(how);
                Some(fault)
            }
            _ => None,
        }
    }

    /// EC2 cannot be asked.
    fn inject_look(&mut self, operation: ec2::Operation) -> Option<Fault> {
        self.dice.strikes(Fault::DescribeFails).then(|| {
            self.universe.ec2(|ec2, _| ec2.faults.errors.push_back((operation, ec2::Code::Unavailable)));
            Fault::DescribeFails
        })
    }

    fn inject_launch(&mut self) -> Option<Fault> {
        use ec2::Code;
        self.universe.ec2(|ec2, _| {
            ec2.faults.refusals.clear();
            ec2.faults.capacity.clear();
        });
        let refuse = |swarm: &mut Self, fault: Fault, codes: &[Code]| {
            let code = codes[swarm.dice.pick(fault, codes.len())];
            let refusal = ec2::Refusal { matches: ec2::LaunchMatch::default(), code, when: ec2::When::Next(1) };
            swarm.universe.ec2(|ec2, _| ec2.faults.refusals.push(refusal));
            Some(fault)
        };
        for (fault, how) in
            [(Fault::LaunchLostBefore, LostReply::NotApplied), (Fault::LaunchLostAfter, LostReply::Applied)]
        {
            if self.dice.strikes(fault) {
                let lost = (ec2::Operation::RunInstances, how);
                self.universe.ec2(|ec2, _| ec2.faults.lost_replies.push_back(lost));
                return Some(fault);
            }
        }
        let refusals: [(Fault, &[Code]); 5] = [
            (
                Fault::Capacity,
                &[
                    Code::InsufficientInstanceCapacity,
                    Code::UnfulfillableCapacity,
                    Code::Unsupported,
                    Code::InsufficientFreeAddressesInSubnet,
                ],
            ),
            (Fault::Quota, &[Code::VcpuLimitExceeded, Code::MaxSpotInstanceCountExceeded]),
            (Fault::Throttled, &[Code::RequestLimitExceeded, Code::Throttling]),
            (Fault::Misconfigured, &[Code::UnauthorizedOperation, Code::InvalidAmiIdNotFound]),
            (Fault::Ec2Broken, &[Code::InternalError, Code::Unavailable]),
        ];
        for (fault, codes) in refusals {
            if self.dice.strikes(fault) {
                return refuse(self, fault, codes);
            }
        }
        if self.dice.strikes(Fault::Partial) {
            let left = 1 + self.dice.pick(Fault::Partial, 4) as u32;
            let stock = ec2::Capacity { matches: ec2::LaunchMatch::default(), left };
            self.universe.ec2(|ec2, _| ec2.faults.capacity.push(stock));
            return Some(Fault::Partial);
        }
        None
    }

    fn inject_github(&mut self, endpoint: github::Endpoint) -> Option<Fault> {
        let now = self.now;
        let kinds = [
            Fault::GithubBroken,
            Fault::GithubLostBefore,
            Fault::GithubLostAfter,
            Fault::GithubLimit,
            Fault::NameTaken,
        ];
        let fault = kinds.into_iter().find(|fault| {
            (*fault != Fault::NameTaken || endpoint == github::Endpoint::GenerateJit) && self.dice.strikes(*fault)
        })?;
        let wait = SignedDuration::from_secs(60 + self.dice.pick(Fault::GithubLimit, 180) as i64);
        self.universe.github(|github, _| match fault {
            Fault::GithubLostBefore => github.faults.lost_replies.push_back((endpoint, LostReply::NotApplied)),
            Fault::GithubLostAfter => github.faults.lost_replies.push_back((endpoint, LostReply::Applied)),
            Fault::GithubLimit => {
                github.faults.failures.push_back((endpoint, github::Failure::SecondaryLimit { until: now + wait }));
            }
            Fault::NameTaken => {
                let taken = github::Failure::Conflict("a runner of that name exists".to_owned());
                github.faults.failures.push_back((endpoint, taken));
            }
            _ => github.faults.broken.push_back((endpoint, 502)),
        });
        Some(fault)
    }

    /// The invocation is no more: what it has not written down is forgotten, its messages come again.
    fn end(&mut self, number: u64, how: &str) {
        if let Some(invocation) = self.invocations.remove(&number) {
            let who = if invocation.janitor { "janitor" } else { "scaler" };
            self.tell(|| format!("{who} {number}"), || how.to_owned());
        }
    }

    fn finished(&mut self, number: u64, done: Done) {
        let Some(invocation) = self.invocations.remove(&number) else { return };
        match done {
            Done::Scaler(consumed) => {
                for (place, receipt) in invocation.receipts.iter().enumerate() {
                    if !consumed.failed.contains_key(&place) {
                        if number > self.lost_at {
                            self.judge_acknowledged(&invocation.messages[place]);
                        }
                        self.sqs.delete("main", receipt).expect("the queue exists");
                    }
                }
                self.tell(
                    || format!("scaler {number}"),
                    || match consumed.failed.len() {
                        0 => "is done".to_owned(),
                        _ => format!("is done, but {:?} come again", consumed.failed),
                    },
                );
                self.receive();
            }
            Done::Janitor(report) => {
                self.tell(
                    || format!("janitor {number}"),
                    || match report {
                        Ok(report) => {
                            format!("is done: {:?}, {} failed, {:?}", report.reaped, report.failed, report.fused)
                        }
                        Err(error) => format!("gives up: {error}"),
                    },
                );
            }
        }
    }
}
