//! Everything there is, and how it moves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use domain::config::{LaunchTemplate, Pool, Rates, Timings};
use domain::ids::{BatchTag, DeliveryId, Epoch, JobId, RunId, RunnerId, StackName};
use domain::log::Transaction;
use domain::state::{Config, FORMAT, Item, Meta};
use domain::wire::{Action, InstanceChange, JobNotice, MESSAGE_VERSION as VERSION, Message, Notice, RunnerNotice};
use engine::consume::{Consumed, consume};
use engine::context::Context;
use engine::memory::MemoryStore;
use engine::ports::{Launch, Ports, Store};
use engine::sweep::{Mode, Report, sweep};
use futures::executor::block_on;
use jiff::{SignedDuration, Timestamp};
use world::Model;
use world::ec2::{self, Ec2, InstanceId, OnPowerOff, Tags, TemplateData};
use world::github::{
    self, Answer, App, GitHub, InstallationId, JobEvent, OwnerKind, QueueJob, RepositoryId, Visibility,
};

use crate::mistakes::{self, Memory, Mistake, MistakenPorts, settings};
use crate::ports::TableFault;
use crate::rules::Checked;
use crate::steps::Step;

/// The unique id of the runner machines' role.
pub(crate) const ROLE: &str = "AROAVIRTUAL";

/// How long an invocation may take. Virtual time stands still while one runs, unless a test moves it.
pub(crate) const INVOCATION: SignedDuration = SignedDuration::from_secs(60);

/// A stack with one organisation, one repository, and all the machines in the world.
#[derive(Debug)]
pub struct Universe {
    pub(crate) state: Mutex<State>,
    /// The table, with the invariants checked at every write.
    pub store: Checked,
    /// What happens at every port call.
    pub steps: Step,
    stack: StackName,
    rates: Rates,
    mistake: Option<Mistake>,
    memory: Memory,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) now: Timestamp,
    pub(crate) ec2: Ec2,
    pub(crate) github: GitHub,
    installations: BTreeMap<String, InstallationId>,
    repository: RepositoryId,
    pub(crate) messages: VecDeque<(Timestamp, Message)>,
    machines: BTreeMap<InstanceId, Machine>,
    webhooks_refused: bool,
    calls: u64,
    /// How the table fails its next call.
    pub(crate) table_fault: Option<TableFault>,
    /// Whether the queue fails its next call.
    pub(crate) queue_fault: bool,
    /// The launch that is just being asked for.
    pub(crate) sending: Option<Launch>,
    /// How many random client tokens were used; None if a token is a function of its attempt.
    pub(crate) random_tokens: Option<u64>,
    /// What EC2 launched: when, for which attempt, how many.
    pub(crate) launched: Vec<(Timestamp, BatchTag, u64)>,
    pub(crate) launched_attempts: BTreeSet<BatchTag>,
    /// Which runner a JIT config stands for.
    pub(crate) secrets: BTreeMap<String, github::RunnerId>,
    /// Which runner's JIT config a machine was left.
    pub(crate) configured: BTreeMap<InstanceId, github::RunnerId>,
    /// Machines that were left one since this was last asked.
    pub(crate) handed_over: Vec<InstanceId>,
    /// How old a pool's machines may get.
    pub(crate) max_life: BTreeMap<String, SignedDuration>,
}

/// What runs on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Machine {
    /// The agent looks for its boot item.
    Waiting,
    /// The runner is connected.
    Runner(github::RunnerId),
    /// The runner has a job until then.
    Busy(github::RunnerId, github::JobId, Timestamp, github::Conclusion),
}

/// A pool of the organisation `octo-org` with the label `drover`, at most `max` machines.
pub fn pool(name: &str, max: u32) -> Pool {
    let valid = "the constants here are valid names";
    Pool {
        name: name.parse().expect(valid),
        owner: "octo-org".parse().expect(valid),
        labels: [name.parse().expect(valid)].into(),
        repositories: Vec::new(),
        allow_public: true,
        launch_template: LaunchTemplate { id: "lt-0".into(), name: "runner".to_owned(), version: 1 },
        subnets: vec!["subnet-a".into(), "subnet-b".into()],
        instance_types: vec!["m7i.large".into()],
        market: Default::default(),
        max,
        warm: 0,
        priority: 100,
        runner_group: 1,
        rerun_on_interruption: false,
        timings: Timings::default(),
        draining: false,
    }
}

impl Universe {
    /// A new one at noon, with these pools applied.
    pub fn new(seed: u64, pools: Vec<Pool>) -> Self {
        Self::with(seed, pools, ec2::Config::default(), github::Config::default(), None)
    }

    /// The same where EC2 and GitHub are as slow as that, and Drover makes that mistake.
    pub(crate) fn with(
        seed: u64,
        pools: Vec<Pool>,
        ec2: ec2::Config,
        github: github::Config,
        mistake: Option<Mistake>,
    ) -> Self {
        mistakes::switch_to(mistake);
        let pools = settings(mistake, pools);
        let now: Timestamp = "2026-11-02T12:00:00Z".parse().expect("a time");
        let mut ec2 = Ec2::new(ec2, seed);
        for (subnet, zone) in [("subnet-a", "eu-central-1a"), ("subnet-b", "eu-central-1b")] {
            ec2.add_subnet(subnet, zone, Tags::new());
        }
        let data = TemplateData {
            image: "ami-0".to_owned(),
            instance_type: "m7i.large".to_owned(),
            on_power_off: OnPowerOff::Terminate,
        };
        let template = ec2.create_launch_template("runner", data, Tags::new(), now).expect("a fresh region");
        let app = App::new(1, "drover", "Drover", now);
        let mut github = GitHub::new(github, app, seed);
        let owner = github.add_owner("octo-org", OwnerKind::Organization, now);
        let installation = github.install(owner, now);
        let repository = github.add_repository(owner, "widgets", Visibility::Private, now);
        let universe = Self {
            state: Mutex::new(State {
                now,
                ec2,
                github,
                installations: [("octo-org".to_owned(), installation)].into(),
                repository,
                messages: VecDeque::new(),
                machines: BTreeMap::new(),
                webhooks_refused: false,
                calls: 0,
                table_fault: None,
                queue_fault: false,
                sending: None,
                random_tokens: (mistake == Some(Mistake::NoClientToken)).then_some(0),
                launched: Vec::new(),
                launched_attempts: BTreeSet::new(),
                secrets: BTreeMap::new(),
                configured: BTreeMap::new(),
                handed_over: Vec::new(),
                max_life: pools.iter().map(|pool| (pool.name.to_string(), pool.timings.max_life.duration())).collect(),
            }),
            store: Checked::new(MemoryStore::default()),
            steps: Step::default(),
            stack: "sim".parse().expect("a stack's name"),
            rates: Rates::of("eu-central-1".to_owned()),
            mistake,
            memory: Memory::default(),
        };
        let pools = pools
            .into_iter()
            .map(|pool| Pool {
                launch_template: LaunchTemplate { id: template.id.as_str().into(), ..pool.launch_template },
                ..pool
            })
            .collect();
        universe.apply(pools, "e1");
        universe
    }

    /// Does what `drover pools apply` does to an empty table.
    pub fn apply(&self, pools: Vec<Pool>, epoch: &str) {
        let epoch: Epoch = epoch.parse().expect("an epoch");
        let metas: Vec<Meta> = pools.iter().map(|pool| Meta::new(pool.name.clone(), epoch.clone())).collect();
        let config = Config { format: FORMAT, pools, applied_at: self.now(), revision: 0 };
        let writes = Transaction::new().put(config).put_all(metas);
        block_on(self.store.commit(&writes)).expect("an empty table");
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.state().now
    }

    /// Looks at EC2's model, or turns one of its knobs.
    pub fn ec2<T>(&self, look: impl FnOnce(&mut Ec2, Timestamp) -> T) -> T {
        let mut state = self.state();
        let now = state.now;
        look(&mut state.ec2, now)
    }

    /// Looks at GitHub's model, or turns one of its knobs.
    pub fn github<T>(&self, look: impl FnOnce(&mut GitHub, Timestamp) -> T) -> T {
        let mut state = self.state();
        let now = state.now;
        look(&mut state.github, now)
    }

    /// Somebody pushes: a job with these labels is queued, and runs for so long.
    pub fn queue_job(&self, labels: &[&str], runs_for: SignedDuration) -> JobId {
        self.queue(labels, |job| QueueJob { runs_for: runs_for.unsigned_abs(), ..job })
    }

    /// The same, with everything else about the job to choose.
    pub fn queue(&self, labels: &[&str], change: impl FnOnce(QueueJob) -> QueueJob) -> JobId {
        let job = change(QueueJob::new(self.state().repository, labels));
        JobId(self.github(|github, now| github.queue_job(job, now)).0)
    }

    /// The organisation installs the app again.
    pub fn install_again(&self) {
        self.state().install("octo-org");
    }

    /// From now on ingest answers every webhook with 503, or none any more.
    pub fn refuse_webhooks(&self, refuse: bool) {
        self.state().webhooks_refused = refuse;
    }

    /// The same behind a gate.
    pub fn queue_gated_job(&self, labels: &[&str]) -> JobId {
        let repository = self.state().repository;
        JobId(self.github(|github, now| github.queue_gated_job(QueueJob::new(repository, labels), now)).0)
    }

    /// The configuration, which must be there.
    pub fn config(&self) -> Config {
        self.configured().expect("the pools are applied")
    }

    /// An item as it stands in the table.
    pub(crate) fn item(&self, key: &domain::state::Key) -> Option<Item> {
        block_on(self.store.get(key)).expect("the table in memory can be read")
    }

    /// The configuration as the functions read it.
    pub(crate) fn configured(&self) -> Option<Config> {
        match block_on(self.store.get(&domain::state::Key::Config)).expect("the table in memory can be read") {
            Some(Item::Config(config)) => Some(config),
            _ => None,
        }
    }

    /// One invocation of a function.
    pub fn invoke<T>(&self, run: impl AsyncFnOnce(&Context<'_>) -> T) -> T {
        block_on(self.invocation(run))
    }

    /// The same, to be polled, interleaved or dropped by the caller.
    pub async fn invocation<T>(&self, run: impl AsyncFnOnce(&Context<'_>) -> T) -> T {
        let (request, now) = {
            let mut state = self.state();
            state.calls += 1;
            (format!("invocation-{}", state.calls), state.now)
        };
        let deadline = now + INVOCATION;
        let world = || Ports { store: self, compute: self, github: self, queue: self, clock: self };
        let mistaken = self.mistake.map(|mistake| MistakenPorts::new(mistake, world(), deadline, &self.memory));
        let context = Context {
            ports: mistaken.as_ref().map_or_else(world, MistakenPorts::ports),
            stack: &self.stack,
            runner_role: ROLE,
            rates: &self.rates,
            request: &request,
            deadline,
        };
        run(&context).await
    }

    /// What the scaler does with a batch of messages.
    pub(crate) async fn consume(&self, context: &Context<'_>, config: &Config, messages: &[Message]) -> Consumed {
        let mut consumed = consume(context, config, messages).await;
        mistakes::recorded(&config.pools, messages);
        if self.mistake == Some(Mistake::Acknowledged) {
            consumed.failed.clear();
        }
        consumed
    }

    /// The messages that a batch would bring now, oldest first.
    pub fn receive(&self) -> Vec<Message> {
        let mut state = self.state();
        let now = state.now;
        let (due, later) = std::mem::take(&mut state.messages).into_iter().partition(|(at, _)| *at <= now);
        state.messages = later;
        let due: VecDeque<_> = due;
        due.into_iter().map(|(_, message)| message).collect()
    }

    /// Puts messages on the queue (again).
    pub fn send(&self, messages: impl IntoIterator<Item = Message>) {
        let mut state = self.state();
        let now = state.now;
        state.messages.extend(messages.into_iter().map(|message| (now, message)));
    }

    /// The scaler consumes what is on the queue; what failed comes again.
    pub fn scale(&self) {
        // Without pools no message can be understood, and all of them come again.
        let Some(config) = self.configured() else { return };
        let messages = self.receive();
        if messages.is_empty() {
            return;
        }
        let consumed = self.invoke(async |context| self.consume(context, &config, &messages).await);
        self.send(consumed.failed.into_keys().map(|place| messages[place].clone()));
    }

    /// The janitor sweeps.
    pub fn sweep(&self) -> Report {
        self.invoke(async |context| sweep(context, Mode::Repair).await).expect("the table can be read")
    }

    /// Lets so much time pass, second by second: the models move, machines boot and work, the scaler consumes what comes,
    /// and the janitor sweeps every minute.
    pub fn run(&self, time: SignedDuration) {
        for _ in 0..time.as_secs() {
            self.tick();
            self.scale();
            if self.now().as_second() % 60 == 0 {
                self.sweep();
            }
        }
    }

    /// One second passes in the world outside Drover.
    pub fn tick(&self) {
        let mut state = self.state();
        state.now += SignedDuration::from_secs(1);
        let now = state.now;
        for happening in state.ec2.advance(now) {
            state.machine_happened(happening, now);
        }
        for happening in state.github.advance(now) {
            state.github_happened(happening, now);
        }
        self.boot(&mut state);
        state.finish_jobs(now);
    }

    /// Waiting agents look for their boot item.
    fn boot(&self, state: &mut State) {
        let waiting: Vec<InstanceId> = state
            .machines
            .iter()
            .filter(|(_, machine)| **machine == Machine::Waiting)
            .map(|(id, _)| id.clone())
            .collect();
        let now = state.now;
        for id in waiting {
            let key = domain::state::boot_key(ROLE, &id.as_str().into());
            let Some(item) = self.store.take_boot_item(&key) else { continue };
            match state.github.connect(&item.jit_config, now) {
                Ok(runner) => drop(state.machines.insert(id, Machine::Runner(runner))),
                Err(_) => state.power_off(&id, now),
            }
        }
    }
}

impl State {
    /// The app's installation on that account; one that does not exist if it was never installed there.
    pub(crate) fn installation_of(&self, owner: &str) -> InstallationId {
        self.installations.get(&owner.to_ascii_lowercase()).copied().unwrap_or(InstallationId(0))
    }

    /// The account installs the app (again).
    pub(crate) fn install(&mut self, login: &str) {
        let owner = self.github.find_owner(login).expect("an account of this world").id;
        let installation = self.github.install(owner, self.now);
        self.installations.insert(login.to_owned(), installation);
    }

    fn machine_happened(&mut self, happening: ec2::Happening, now: Timestamp) {
        match happening {
            ec2::Happening::Booted { instance } => drop(self.machines.insert(instance, Machine::Waiting)),
            ec2::Happening::PowerLost { instance } => match self.machines.remove(&instance) {
                Some(Machine::Runner(runner) | Machine::Busy(runner, ..)) => self.github.disconnect(runner, now),
                Some(Machine::Waiting) | None => {}
            },
            ec2::Happening::SpotNotice { instance, .. } => {
                let id = instance.as_str().into();
                self.messages.push_back((now, Message::Instance { id, change: InstanceChange::Interrupted }));
            }
            ec2::Happening::Terminated { instance, .. } => {
                let id = instance.as_str().into();
                self.messages.push_back((now, Message::Instance { id, change: InstanceChange::Ended }));
            }
        }
    }

    fn github_happened(&mut self, happening: github::Happening, now: Timestamp) {
        match happening {
            github::Happening::Deliver(delivery) => {
                if self.webhooks_refused {
                    self.github.record_answer(delivery.id, Answer::Status(503), Duration::from_millis(20), now);
                    return;
                }
                let notice = notice(&delivery.event, &delivery.guid, now);
                self.messages.push_back((now, Message::WorkflowJob(Box::new(notice))));
                self.github.record_answer(delivery.id, Answer::Status(202), Duration::from_millis(20), now);
            }
            github::Happening::Offered(offer) => {
                if let Some(machine) = self.machine_of(offer.runner)
                    && self.github.acquire(offer.runner, offer.job, now).is_ok()
                {
                    let until = now + SignedDuration::try_from(offer.runs_for).unwrap_or_default();
                    self.machines.insert(machine, Machine::Busy(offer.runner, offer.job, until, offer.ends));
                }
            }
            github::Happening::CancelWanted { runner, job } => {
                if let Some(machine) = self.machine_of(runner) {
                    let cancelled = Machine::Busy(runner, job, now, github::Conclusion::Cancelled);
                    self.machines.insert(machine, cancelled);
                }
            }
            github::Happening::RunnerRemoved { runner } => {
                if let Some(machine) = self.machine_of(runner) {
                    self.power_off(&machine, now);
                }
            }
        }
    }

    fn machine_of(&self, wanted: github::RunnerId) -> Option<InstanceId> {
        self.machines
            .iter()
            .find(|(_, machine)| match machine {
                Machine::Runner(runner) | Machine::Busy(runner, ..) => *runner == wanted,
                Machine::Waiting => false,
            })
            .map(|(id, _)| id.clone())
    }

    fn power_off(&mut self, machine: &InstanceId, now: Timestamp) {
        self.machines.remove(machine);
        self.ec2.power_off(machine, now);
    }

    fn finish_jobs(&mut self, now: Timestamp) {
        let done: Vec<_> = self
            .machines
            .values()
            .filter_map(|machine| match machine {
                Machine::Busy(runner, job, until, ends) if *until <= now => Some((*runner, *job, *ends)),
                Machine::Busy(..) | Machine::Runner(_) | Machine::Waiting => None,
            })
            .collect();
        for (runner, job, ends) in done {
            // The removal of the ephemeral runner, which follows, powers the machine off.
            let _ = self.github.complete(runner, job, ends, now);
        }
    }
}

/// What ingest makes of the delivery.
pub(crate) fn notice(event: &JobEvent, guid: &str, now: Timestamp) -> Notice {
    let job = &event.job;
    let action = match event.action {
        "queued" => Action::Queued,
        "waiting" => Action::Waiting,
        "in_progress" => Action::InProgress,
        _ => Action::Completed,
    };
    Notice {
        v: VERSION,
        delivery: DeliveryId::from(guid),
        received_at: now,
        action,
        repository: format!("{}/{}", event.repository.owner_login, event.repository.name)
            .parse()
            .expect("a repository"),
        public: event.repository.visibility == Visibility::Public,
        installation: None,
        job: job_notice(job, &event.head_sha),
    }
}

pub(crate) fn job_notice(job: &github::Job, head_sha: &str) -> JobNotice {
    JobNotice {
        id: JobId(job.id.0),
        run_id: RunId(job.run.0),
        run_attempt: job.attempt as u32,
        name: job.name.clone(),
        workflow: None,
        labels: job.labels.clone(),
        status: job.state.status().to_owned(),
        conclusion: job.state.conclusion().map(|conclusion| conclusion.as_str().to_owned()),
        runner: job.state.runner().map(|runner| RunnerNotice { id: RunnerId(runner.id.0), name: runner.name.clone() }),
        created_at: job.created_at,
        started_at: job.started_at,
        completed_at: job.completed_at,
        head_sha: head_sha.to_owned(),
        html_url: String::new(),
    }
}
