//! A stack in a model of the world: the table, EC2, GitHub and the queue in memory, and virtual time.
//!
//! [`Universe`] implements the engine's ports on the models that the sandbox serves over HTTP. Its own methods are for
//! tests of single stories; the random worlds of [`swarm`](crate::swarm) advance the models themselves.

mod compute;
mod driver;
mod early_ends;
mod github;
mod invocation;
mod notices;
mod process;
mod queue;
mod reports;
mod state;
mod store;
mod time;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use domain::config::{
    Architecture, LaunchTemplate, Market, MarketChoice, Order, Pool, Rates, RootVolume, ShapePolicy, Shapes, Timings,
};
use domain::ids::{Epoch, JobId, PoolName, Repository, StackName};
use domain::log::Transaction;
use domain::policy::format;
use domain::policy::removal::{Left, has_traces, known_for, stays_in_force};
use domain::state::{Config, FunctionName, Item, Key, Meta};
use domain::wire::Message;
use engine::consume::{Consumed, consume};
use engine::context::Context;
use engine::memory::MemoryStore;
use engine::pools;
use engine::ports::Store;
use engine::sweep::{Mode, Report, sweep};
use futures::executor::block_on;
use jiff::{SignedDuration, Timestamp};
use world::ec2::{self, Ec2, OnPowerOff, Tags, TemplateData};
use world::github::{App, FIRST_KEY, GitHub, OwnerKind, QueueJob, RunnerId, Scope, Visibility};

use crate::mistakes::{self, Memory, Mistake, settings};
use crate::rules::{Checked, Checks};
use crate::steps::Steps;
use state::State;

pub(crate) use compute::ec2_market;
pub use driver::Happenings;
pub(crate) use notices::notice;
use process::Process;
pub use reports::Denied;
pub(crate) use state::TableFault;
pub use state::{Ingest, Reports, Runners};

/// The unique id of the runner machines' role.
pub const ROLE: &str = "AROAVIRTUAL";

/// How long an invocation may take. Virtual time stands still during an invocation unless a test moves it.
pub(crate) const INVOCATION: SignedDuration = SignedDuration::from_secs(60);

/// A stack and its world: one organization with one repository, and one region of EC2 with two zones.
#[derive(Debug)]
pub struct Universe {
    state: Mutex<State>,
    /// The table. Every write is checked against the invariants.
    pub store: Checked,
    /// Holds invocations up at each call of a port.
    pub steps: Steps,
    stack: StackName,
    rates: Rates,
    mistake: Option<Mistake>,
    memory: Memory,
    /// Processes of the functions that are between two invocations.
    idle: Mutex<Vec<Arc<Process>>>,
}

/// The subnets of every universe, each in a zone of its own.
pub const SUBNETS: [&str; 2] = ["subnet-a", "subnet-b"];

/// What a universe begins with.
#[derive(Debug, Clone)]
pub struct World {
    /// Determines every id and random decision of the models.
    pub seed: u64,
    pub began: Timestamp,
    pub ec2: ec2::Config,
    pub github: world::github::Config,
    /// Private repositories, whose owners have installed the app. At least one.
    pub repositories: Vec<Repository>,
    pub checks: Checks,
}

/// A pool of the organization `octo-org` with its own name as its label and at most `max` machines.
pub fn pool(name: &str, max: u32) -> Pool {
    let valid = "the constants here are valid names";
    Pool {
        name: name.parse().expect(valid),
        owner: "octo-org".parse().expect(valid),
        labels: [name.parse().expect(valid)].into(),
        repositories: Vec::new(),
        allow_public: true,
        launch_template: LaunchTemplate { id: "lt-0".into(), name: "runner".to_owned(), version: 1, root: None },
        subnets: SUBNETS.map(Into::into).into(),
        instance_types: vec!["m7i.large".into()],
        market: Default::default(),
        order: Default::default(),
        max,
        warm: 0,
        stopped: 0,
        schedules: Vec::new(),
        priority: 100,
        runner_group: 1,
        rerun_on_interruption: false,
        usage: false,
        timings: Timings::default(),
        draining: false,
        paused: false,
        shapes: None,
        price_per_hour: None,
        machines: None,
        options: None,
    }
}

/// Like [`pool`], with shapes in place of labels and instance types.
pub fn shapes_pool(name: &str, max: u32) -> Pool {
    let valid = "a constant that is valid";
    let root = RootVolume {
        device: "/dev/sda1".to_owned(),
        gib: 40,
        kind: "gp3".to_owned(),
        iops: None,
        throughput: None,
        initialize_at: None,
        kms_key: None,
    };
    // The model has one template for both architectures.
    let template = LaunchTemplate { id: "lt-0".into(), name: "runner".to_owned(), version: 1, root: Some(root) };
    let architectures = [Architecture::X64, Architecture::Arm64];
    let policy = ShapePolicy {
        cpu: "1..32".parse().expect(valid),
        ram: "2..128".parse().expect(valid),
        architectures: architectures.into(),
        families: Vec::new(),
        disk: Some("40..500".parse().expect(valid)),
        markets: vec![Market::Spot, Market::OnDemand],
        price_per_hour: None,
    };
    let launch_templates = architectures.map(|it| (it, template.clone())).into();
    Pool {
        labels: BTreeSet::new(),
        instance_types: Vec::new(),
        market: MarketChoice::SpotThenOnDemand,
        order: Order::Price,
        shapes: Some(Shapes { policy, launch_templates }),
        ..pool(name, max)
    }
}

/// Creation.
impl Universe {
    /// A new universe at noon in which these pools are applied.
    pub fn new(seed: u64, pools: Vec<Pool>) -> Self {
        Self::with(seed, pools, ec2::Config::default(), world::github::Config::default(), None)
    }

    /// A new universe in which GitHub is configured.
    pub fn with_github(seed: u64, pools: Vec<Pool>, github: world::github::Config) -> Self {
        Self::with(seed, pools, ec2::Config::default(), github, None)
    }

    /// A new universe in which EC2 and GitHub are configured, and in which Drover makes a mistake.
    pub(crate) fn with(
        seed: u64,
        pools: Vec<Pool>,
        ec2: ec2::Config,
        github: world::github::Config,
        mistake: Option<Mistake>,
    ) -> Self {
        let world = World {
            seed,
            began: "2026-11-02T12:00:00Z".parse().expect("a time"),
            ec2,
            github,
            repositories: vec!["octo-org/widgets".parse().expect("a repository")],
            checks: Checks::On,
        };
        Self::of(world, pools, mistake)
    }

    /// A universe for a run of weeks: the given world, in which these pools are applied.
    pub fn in_world(world: World, pools: Vec<Pool>) -> Self {
        Self::of(world, pools, None)
    }

    fn of(world: World, pools: Vec<Pool>, mistake: Option<Mistake>) -> Self {
        mistakes::switch_to(mistake);
        let pools = settings(mistake, pools);
        let World { seed, began: now, ec2, github, repositories, checks } = world;
        let region = ec2.region.clone();
        let mut ec2 = Ec2::new(ec2, seed);
        for (subnet, zone) in SUBNETS.iter().zip(["a", "b"]) {
            ec2.add_subnet(subnet, &format!("{region}{zone}"), Tags::new());
        }
        let data = TemplateData {
            image: "ami-0".to_owned(),
            instance_type: "m7i.large".to_owned(),
            on_power_off: OnPowerOff::Terminate,
        };
        let template = ec2.create_launch_template("runner", data, Tags::new(), now).expect("a new region");
        let app = App::new(1, "drover", "Drover", now);
        let mut github = GitHub::new(github, app, seed);
        let (mut installations, mut first) = (BTreeMap::new(), None);
        for repository in repositories {
            let login = repository.owner.as_str();
            let owner = github.find_owner(login).map(|owner| owner.id);
            let owner = owner.unwrap_or_else(|| github.add_owner(login, OwnerKind::Organization, now));
            installations.entry(login.to_ascii_lowercase()).or_insert_with(|| github.install(owner, now));
            let added = github.add_repository(owner, repository.name(), Visibility::Private, now);
            first.get_or_insert(added);
        }
        let universe = Self {
            state: Mutex::new(State {
                now,
                ec2,
                github,
                installations,
                repository: first.expect("a world has a repository"),
                messages: VecDeque::new(),
                machines: BTreeMap::new(),
                ingest: Ingest::Up,
                invocations: 0,
                processes: 0,
                clock_error: SignedDuration::ZERO,
                clocks_differ_by: SignedDuration::ZERO,
                table_fault: None,
                limits: BTreeMap::new(),
                tags: BTreeMap::new(),
                unreadable: BTreeSet::new(),
                on_no_page: None,
                queue_fault: false,
                secret_fault: false,
                stored_key: FIRST_KEY,
                key_accepted_since: Some(now),
                secrets_take_time: false,
                sending: None,
                random_tokens: (mistake == Some(Mistake::NoClientToken)).then_some(0),
                launched_attempts: BTreeSet::new(),
                refused: Vec::new(),
                queued_webhooks: BTreeMap::new(),
                secrets: BTreeMap::new(),
                configured: BTreeMap::new(),
                handed_over: Vec::new(),
                connected: BTreeSet::new(),
                early_ends: BTreeMap::new(),
                settings: BTreeMap::new(),
                set_aside: BTreeSet::new(),
                classes: BTreeMap::new(),
                runners: Runners::Accepted,
                re_run: BTreeSet::new(),
                forged: BTreeMap::new(),
                held: BTreeMap::new(),
                released: BTreeSet::new(),
                reported: BTreeMap::new(),
                prepared: BTreeSet::new(),
                reports: Reports::Sent,
                max_life: pools.iter().map(|pool| (pool.name.to_string(), pool.timings.max_life.duration())).collect(),
            }),
            store: Checked::new(MemoryStore::default(), checks),
            steps: Steps::default(),
            stack: "sim".parse().expect("a stack's name"),
            rates: Rates::of(region),
            mistake,
            memory: Memory::default(),
            idle: Mutex::default(),
        };
        let pools = pools
            .into_iter()
            .map(|mut pool| {
                let templates = pool.shapes.iter_mut().flat_map(|shapes| shapes.launch_templates.values_mut());
                for named in templates.chain([&mut pool.launch_template]) {
                    named.id = template.id.as_str().into();
                }
                pool
            })
            .collect();
        universe.apply(pools, "e1");
        universe
    }

    /// Does what `drover pools apply` does to an empty table.
    pub fn apply(&self, pools: Vec<Pool>, epoch: &str) {
        let epoch: Epoch = epoch.parse().expect("an epoch");
        let metas: Vec<Meta> = pools.iter().map(|pool| Meta::new(pool.name.clone(), epoch.clone())).collect();
        let config = Config {
            format: format::lowest(&pools),
            pools,
            removed: Default::default(),
            applied_at: self.now(),
            revision: 0,
        };
        let writes = Transaction::new().put(config).put_all(metas);
        block_on(self.store.commit(&writes)).expect("an empty table");
        self.state().early_ends.clear();
    }
}

impl Universe {
    /// Does what `drover pools apply` does to a table with pools.
    pub fn change_pools(&self, change: impl FnOnce(&mut Vec<Pool>)) {
        self.change_configuration(|config| change(&mut config.pools));
    }

    fn change_configuration(&self, change: impl FnOnce(&mut Config)) {
        let Some(mut config) = self.configuration() else { return };
        change(&mut config);
        let slots = self.store.items().into_iter().filter_map(|item| match item {
            Item::Slot(slot) => Some(format::of_slot(&slot)),
            _ => None,
        });
        config.format = slots.fold(format::lowest(&config.pools), u32::max);
        let epoch: Epoch = "e1".parse().expect("an epoch");
        let new = config.pools.iter().filter(|pool| self.item(&Key::Meta(pool.name.clone())).is_none());
        let metas: Vec<Meta> = new.map(|pool| Meta::new(pool.name.clone(), epoch.clone())).collect();
        let writes = Transaction::new().put(config).put_all(metas);
        block_on(self.store.commit(&writes)).expect("nobody else changes the pools");
    }

    /// An operator pauses this pool and no other.
    pub fn pause_only(&self, paused: Option<&str>) {
        self.change_pools(|pools| {
            pools.iter_mut().for_each(|pool| pool.paused = Some(pool.name.as_str()) == paused);
        });
    }

    /// An operator drains this pool and no other.
    pub fn drain_only(&self, drained: Option<&str>) {
        self.change_configuration(|config| {
            let removed = &config.removed;
            let others = config.pools.iter_mut().filter(|pool| !removed.contains(&pool.name));
            others.for_each(|pool| pool.draining = Some(pool.name.as_str()) == drained);
        });
    }

    /// Does what `drover pools apply` does with a file that no longer has this pool. Whether the pool is still in force.
    pub(crate) fn apply_without(&self, name: &PoolName) -> bool {
        let items = self.store.items();
        let left = Left::of(items.iter().filter(|item| item.key().pool() == Some(name)));
        self.change_configuration(|config| {
            let known_for = match self.mistake {
                Some(Mistake::DroppedAtOnce) => Some(SignedDuration::MAX),
                _ => known_for(config, name, self.now()),
            };
            let has_traces = self.mistake != Some(Mistake::DroppedUnseen) && self.has_traces(name);
            let stays = stays_in_force(known_for, left) || has_traces;
            config.pools.retain(|pool| stays || pool.name != *name);
            config.pools.iter_mut().filter(|pool| pool.name == *name).for_each(|pool| pool.draining = true);
            config.removed = config.pools.iter().map(|pool| pool.name.clone()).filter(|it| it == name).collect();
            config.applied_at = self.now();
        });
        self.configuration().is_some_and(|config| config.pool(name).is_some())
    }

    /// Whether EC2 or GitHub shows an operator something of the pool.
    fn has_traces(&self, pool: &PoolName) -> bool {
        let mut state = self.state();
        let machines = state.own_machines().expect("no fault strikes an operator's call");
        has_traces(pool, &machines, &state.listed_runners())
    }

    /// Does what `drover pools apply` does with a file that has this pool again.
    pub(crate) fn apply_with(&self, pool: &Pool) {
        self.change_configuration(|config| {
            config.removed.remove(&pool.name);
            config.pools.retain(|other| other.name != pool.name);
            config.pools.push(Pool { draining: false, ..pool.clone() });
            config.applied_at = self.now();
        });
    }
}

/// The world outside Drover.
impl Universe {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }

    pub fn now(&self) -> Timestamp {
        self.state().now
    }

    /// Reads or changes EC2's model.
    pub fn ec2<T>(&self, access: impl FnOnce(&mut Ec2, Timestamp) -> T) -> T {
        let mut state = self.state();
        let now = state.now;
        access(&mut state.ec2, now)
    }

    /// Reads or changes GitHub's model.
    pub fn github<T>(&self, access: impl FnOnce(&mut GitHub, Timestamp) -> T) -> T {
        let mut state = self.state();
        let now = state.now;
        access(&mut state.github, now)
    }

    /// Queues a job with these labels that runs for `runs_for`.
    pub fn queue_job(&self, labels: &[&str], runs_for: SignedDuration) -> JobId {
        self.queue(labels, |job| QueueJob { runs_for: runs_for.unsigned_abs(), ..job })
    }

    /// Queues a job with these labels, after `change`.
    pub fn queue(&self, labels: &[&str], change: impl FnOnce(QueueJob) -> QueueJob) -> JobId {
        let job = change(QueueJob::new(self.state().repository, labels));
        JobId(self.github(|github, now| github.queue_job(job, now)).0)
    }

    /// Queues a job that waits for an approval.
    pub fn queue_gated_job(&self, labels: &[&str]) -> JobId {
        let repository = self.state().repository;
        JobId(self.github(|github, now| github.queue_gated_job(QueueJob::new(repository, labels), now)).0)
    }

    /// The organization installs the app again.
    pub fn install_again(&self) {
        self.state().install("octo-org");
    }

    pub fn set_runners(&self, runners: Runners) {
        self.state().runners = runners;
    }

    /// The admin of a repository of the organization registers a runner with the name and id of one of Drover's. It takes
    /// jobs with this label.
    pub fn forge_runner(&self, victim: RunnerId, repository: &str, label: &str) {
        let mut state = self.state();
        let now = state.now;
        let Some(name) = state.github.runner(victim).map(|runner| runner.name.clone()) else { return };
        let scope = Scope::repository("octo-org", repository);
        let forged = state.github.add_foreign_runner(scope, &name, &[label], now);
        state.forged.insert(forged, victim);
    }

    /// An operator puts the tag that protects a machine on it by hand.
    pub fn hold(&self, machine: &ec2::InstanceId) {
        let mut state = self.state();
        let (now, tags) = (state.now, [("drover:hold".to_owned(), "by hand".to_owned())].into());
        if state.ec2.create_tags(&[machine.to_string()], &tags, now).is_ok() {
            state.held.insert(machine.clone(), now);
        }
    }

    /// The operator removes the tag.
    pub fn release(&self, machine: &ec2::InstanceId) {
        let mut state = self.state();
        let now = state.now;
        let removed = state.ec2.delete_tags(&[machine.to_string()], &["drover:hold".to_owned()], now);
        if removed.is_ok() {
            state.held.remove(machine);
            state.released.insert(machine.clone());
        }
    }

    /// Another organisation installs the app.
    pub fn add_account(&self, login: &str) {
        self.github(|github, now| github.add_owner(login, OwnerKind::Organization, now));
        self.state().install(login);
    }

    /// Time passes while a call is under way. Nothing else happens.
    pub fn pass(&self, time: SignedDuration) {
        self.state().now += time;
    }

    /// The item has an unknown form until it is written again, or until [`Universe::repair_items`].
    pub fn malform_item(&self, key: Key) {
        self.state().unreadable.insert(key);
    }

    /// An operator repairs all malformed items.
    pub fn repair_items(&self) {
        self.state().unreadable.clear();
    }

    pub fn set_ingest(&self, ingest: Ingest) {
        self.state().ingest = ingest;
    }
}

/// Drover's functions.
impl Universe {
    /// The configuration. Panics if no pools are applied.
    pub fn config(&self) -> Config {
        self.configuration().expect("the pools are applied")
    }

    /// The configuration as the functions read it; None if the table was lost.
    pub(crate) fn configuration(&self) -> Option<Config> {
        let Some(Item::Config(config)) = self.item(&Key::Config) else { return None };
        let offered = [Key::Catalogue, Key::SpotPrices].iter().filter_map(|key| self.item(key));
        Some(engine::pools::with_machines(config, offered))
    }

    pub fn item(&self, key: &Key) -> Option<Item> {
        block_on(self.store.get(key)).expect("the table in memory can be read")
    }

    /// Runs one invocation of a function to its end.
    pub fn invoke<T>(&self, run: impl AsyncFnOnce(&Context<'_>) -> T) -> T {
        block_on(self.invocation(run))
    }

    /// Whether functions of old versions check the format of the table. Not doing so is a deliberate mistake.
    pub(crate) fn old_versions_check_the_format(&self) -> bool {
        self.mistake != Some(Mistake::FormatUnchecked)
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

    /// Takes the messages that are due from the queue, oldest first.
    pub fn receive(&self) -> Vec<Message> {
        let mut state = self.state();
        let now = state.now;
        let (due, later) = std::mem::take(&mut state.messages).into_iter().partition(|(at, _)| *at <= now);
        state.messages = later;
        let due: VecDeque<_> = due;
        due.into_iter().map(|(_, message)| message).collect()
    }

    /// Puts messages on the queue.
    pub fn send(&self, messages: impl IntoIterator<Item = Message>) {
        let mut state = self.state();
        let now = state.now;
        state.messages.extend(messages.into_iter().map(|message| (now, message)));
    }

    /// The scaler consumes the messages that are due. Those that failed go back to the queue.
    pub fn scale(&self) {
        self.scale_in(async |context, messages| self.scaler(context, messages).await);
    }

    /// Like [`Universe::scale`], with another scaler. It returns the indices of the messages that failed.
    pub fn scale_in(&self, scaler: impl AsyncFnOnce(&Context<'_>, &[Message]) -> Vec<usize>) {
        let messages = self.receive();
        if messages.is_empty() {
            return;
        }
        let failed = self.invoke(async |context| scaler(context, &messages).await);
        self.send(failed.into_iter().map(|index| messages[index].clone()));
    }

    /// One invocation of the scaler that has not cached the pools. Returns the indices of the messages that failed.
    pub async fn scaler(&self, context: &Context<'_>, messages: &[Message]) -> Vec<usize> {
        match pools::read(context, FunctionName::Scaler).await {
            Ok(config) => self.consume(context, &config, messages).await.failed.into_keys().collect(),
            Err(_) => (0..messages.len()).collect(),
        }
    }

    /// The janitor sweeps once.
    pub fn sweep(&self) -> Report {
        self.invoke(async |context| sweep(context, Mode::Repair).await).expect("the table can be read")
    }

    /// Lets time pass, second by second: the models move, machines boot and work, the scaler consumes messages, and the
    /// janitor sweeps every minute.
    pub fn run(&self, time: SignedDuration) {
        for _ in 0..time.as_secs() {
            self.tick();
            self.scale();
            if self.now().as_second() % 60 == 0 {
                self.sweep();
            }
        }
    }
}
