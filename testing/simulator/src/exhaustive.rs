//! Every order of a small world: two jobs wait, three scalers were told so, two zones, at most one crash anywhere, at most
//! two launches whose answers are lost, whose machines EC2 may not show either, one that is refused for want of machines,
//! and at any time so long a pause that every lease is over.
//!
//! It is the engine itself that runs, not a model of it. A state is what the table, EC2 and GitHub have, and what each
//! scaler has been answered so far; it is reached again by making the same choices from the beginning, and two ways to the
//! same state are one.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Write;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use domain::state::Config;
use domain::wire::{MESSAGE_VERSION as VERSION, Message};
use jiff::SignedDuration;
use world::{LostReply, ec2, github};

use crate::mistakes::Mistake;
use crate::steps::{Digest, Side};
use crate::universe::{Universe, pool};

/// Jobs that wait.
const JOBS: usize = 2;

/// Scalers that come to serve them.
const ACTORS: usize = 3;

/// Longer than [`Choice::Later`].
const HIDDEN_FOR: Duration = Duration::from_secs(3600);

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A scaler makes its next call; of a launch, hears the answer.
    Step(usize),
    /// A scaler ends.
    Crash(usize),
    /// A scaler launches, and never hears what came of it.
    Lose(usize, LostReply),
    /// The same, and EC2 describes none of its machines for longer than all of this lasts: only the token tells of them.
    Hide(usize),
    /// A scaler launches where there are no machines now.
    Refuse(usize),
    /// So much time passes that every lease is over, and with it every invocation.
    Later,
}

/// What was found.
#[derive(Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Choices made in them.
    pub transitions: usize,
    /// States in which nothing more happens.
    pub ends: usize,
    /// A way to something that must not be.
    pub counterexample: Option<(Vec<Choice>, String)>,
}

struct Actor<'u> {
    future: Option<Pin<Box<dyn Future<Output = ()> + 'u>>>,
    started: bool,
    ownership: BTreeMap<u64, (Side, String, Waker)>,
    /// What it has asked and was answered.
    heard: Digest,
}

struct World<'u> {
    universe: &'u Universe,
    config: &'u Config,
    actors: Vec<Actor<'u>>,
    crashes: usize,
    losses: usize,
    refusals: usize,
    later: bool,
}

/// How to come to a state, and what each scaler has heard by then: it need not listen on the way.
#[derive(Default)]
struct Way {
    choices: Vec<Choice>,
    heard: [Digest; ACTORS],
}

/// Where there is more to explore.
struct Frontier {
    known: HashSet<u64>,
    /// The first first: what needs little to go wrong is found soon.
    ways: VecDeque<Way>,
    /// How many explore a way just now, which may lead to more of them.
    exploring: usize,
    explored: Explored,
}

/// Explores all of it, or until something is wrong, while Drover makes that mistake. Calls `progress` with the number of
/// states, every thousand.
pub fn explore(mistake: Option<Mistake>, progress: impl Fn(usize) + Sync) -> Explored {
    let frontier = Mutex::new(Frontier {
        known: HashSet::new(),
        ways: [Way::default()].into(),
        exploring: 0,
        explored: Explored { states: 0, transitions: 0, ends: 0, counterexample: None },
    });
    let more = Condvar::new();
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(way) = next_way(&frontier, &more) {
                    in_a_world(mistake, |world| go_on(world, way, &frontier, &more, &progress));
                    lock(&frontier).exploring -= 1;
                    more.notify_all();
                }
            });
        }
    });
    let frontier = frontier.into_inner().expect("nobody panicked while holding it");
    Explored { states: frontier.known.len(), ..frontier.explored }
}

fn lock(frontier: &Mutex<Frontier>) -> MutexGuard<'_, Frontier> {
    frontier.lock().expect("nobody panics while holding it")
}

/// None if all is explored, or something was found.
fn next_way(frontier: &Mutex<Frontier>, more: &Condvar) -> Option<Way> {
    let mut frontier = lock(frontier);
    loop {
        if frontier.explored.counterexample.is_some() {
            return None;
        }
        if let Some(way) = frontier.ways.pop_front() {
            frontier.exploring += 1;
            return Some(way);
        }
        if frontier.exploring == 0 {
            return None;
        }
        frontier = more.wait(frontier).expect("nobody panics while holding it");
    }
}

/// Goes that way, and on from there as long as it is new: one choice at once, the others later, from the beginning.
fn go_on(
    world: &mut World<'_>,
    Way { choices: mut way, heard }: Way,
    frontier: &Mutex<Frontier>,
    more: &Condvar,
    progress: &(impl Fn(usize) + Sync),
) {
    for choice in &way {
        world.choose(*choice);
    }
    for (actor, heard) in world.actors.iter_mut().zip(heard) {
        actor.heard = heard;
    }
    world.universe.steps.listen();
    loop {
        let (wrong, digest, mut choices) = (world.wrong(), world.digest(), world.choices());
        let mut frontier = lock(frontier);
        frontier.explored.transitions += 1;
        if let Some(wrong) = wrong {
            frontier.explored.counterexample.get_or_insert((way, wrong));
            return;
        }
        if !frontier.known.insert(digest) {
            return;
        }
        if frontier.known.len().is_multiple_of(1000) {
            progress(frontier.known.len());
        }
        let Some(next) = choices.pop() else {
            frontier.explored.ends += 1;
            return;
        };
        let heard = std::array::from_fn(|number| world.actors[number].heard);
        for choice in choices {
            frontier.ways.push_back(Way { choices: way.iter().copied().chain([choice]).collect(), heard });
            more.notify_one();
        }
        drop(frontier);
        way.push(next);
        world.choose(next);
    }
}

fn in_a_world<T>(mistake: Option<Mistake>, run: impl FnOnce(&mut World<'_>) -> T) -> T {
    let (ec2, github) = (ec2::Config::default(), github::Config::default());
    let universe = Universe::with(1, vec![pool("linux", 100)], ec2, github, mistake);
    for _ in 0..JOBS {
        universe.queue_job(&["linux"], SignedDuration::from_mins(1));
    }
    for _ in 0..5 {
        universe.tick();
    }
    let messages = universe.receive();
    let config = universe.config();
    universe.store.remember();
    universe.steps.schedule();
    record(&universe, &config, &messages);
    let actor = || Actor { future: None, started: false, ownership: BTreeMap::new(), heard: Digest::default() };
    let actors = (0..ACTORS).map(|_| actor()).collect();
    let mut world =
        World { universe: &universe, config: &config, actors, crashes: 1, losses: 2, refusals: 1, later: true };
    run(&mut world)
}

/// The jobs are known; the scaler that wrote them down ended before it decided anything.
fn record(universe: &Universe, config: &Config, messages: &[Message]) {
    let scale = async |context: &engine::context::Context<'_>| drop(universe.consume(context, config, messages).await);
    let mut scaler = std::pin::pin!(universe.invocation(scale));
    let mut context = Context::from_waker(Waker::noop());
    while scaler.as_mut().poll(&mut context).is_pending() {
        for arrival in universe.steps.arrivals() {
            if arrival.call.ends_with("META") {
                return;
            }
            universe.steps.call(arrival.ticket);
            arrival.waker.wake();
        }
    }
}

impl World<'_> {
    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let running = self.actors.iter().any(|actor| actor.future.is_some());
        if self.later && running {
            choices.push(Choice::Later);
        }
        for (number, actor) in self.actors.iter().enumerate() {
            if actor.started && actor.future.is_none() {
                continue;
            }
            if actor.started && self.crashes > 0 {
                choices.push(Choice::Crash(number));
            }
            let next = actor.ownership.values().next();
            let launches =
                next.is_some_and(|(side, call, _)| *side == Side::Before && call.starts_with("RunInstances"));
            if launches && self.losses > 0 {
                choices.push(Choice::Lose(number, LostReply::Applied));
                choices.push(Choice::Lose(number, LostReply::NotApplied));
                choices.push(Choice::Hide(number));
            }
            if launches && self.refusals > 0 {
                choices.push(Choice::Refuse(number));
            }
            choices.push(Choice::Step(number));
        }
        choices
    }

    fn choose(&mut self, choice: Choice) {
        match choice {
            Choice::Step(number) => self.step(number),
            Choice::Crash(number) => {
                self.crashes -= 1;
                self.end(number);
            }
            Choice::Lose(number, how) => self.lose(number, how),
            Choice::Hide(number) => {
                let shown = self.universe.ec2(|ec2, _| std::mem::replace(&mut ec2.faults.invisible_for, HIDDEN_FOR));
                self.lose(number, LostReply::Applied);
                self.universe.ec2(|ec2, _| ec2.faults.invisible_for = shown);
            }
            Choice::Refuse(number) => {
                self.refusals -= 1;
                let (matches, code) = (ec2::LaunchMatch::default(), ec2::Code::InsufficientInstanceCapacity);
                let refusal = ec2::Refusal { matches, code, when: ec2::When::Next(1) };
                self.universe.ec2(|ec2, _| ec2.faults.refusals.push(refusal));
                self.step(number);
                // A call that repeats a launch is answered like it, whatever machines there are now.
                self.universe.ec2(|ec2, _| ec2.faults.refusals.clear());
            }
            Choice::Later => {
                self.later = false;
                for number in 0..ACTORS {
                    if self.actors[number].started {
                        self.end(number);
                    }
                }
                self.universe.state().now += SignedDuration::from_mins(5);
            }
        }
    }

    fn lose(&mut self, number: usize, how: LostReply) {
        self.losses -= 1;
        let lost = (ec2::Operation::RunInstances, how);
        self.universe.ec2(|ec2, _| ec2.faults.lost_replies.push_back(lost));
        self.step(number);
    }

    fn end(&mut self, number: usize) {
        let actor = &mut self.actors[number];
        actor.future = None;
        actor.ownership.clear();
        // What a scaler that is no more had heard makes no difference.
        actor.heard = Digest::default();
    }

    fn step(&mut self, number: usize) {
        if !self.actors[number].started {
            let (universe, config) = (self.universe, self.config);
            let messages = [Message::Nudge { v: VERSION, pool: config.pools[0].name.clone() }];
            self.actors[number].started = true;
            self.actors[number].future = Some(Box::pin(async move {
                let scale = async |context: &engine::context::Context<'_>| {
                    drop(universe.consume(context, config, &messages).await)
                };
                universe.invocation(scale).await;
            }));
            self.poll(number);
            return;
        }
        self.advance(number);
        // What touches nothing that another scaler looks at may as well happen at once: no order of it makes a difference.
        while self.actors[number].ownership.values().next().is_some_and(|(side, call, _)| {
            *side == Side::Before
                && (call.starts_with("get GITHUB#")
                    || call.starts_with("generate-jitconfig")
                    || call.ends_with("NUDGE"))
        }) {
            self.advance(number);
        }
    }

    /// One call of the scaler; of a launch one half.
    fn advance(&mut self, number: usize) {
        let Some((ticket, (side, call, waker))) = self.actors[number].ownership.pop_first() else { return };
        self.universe.steps.call(ticket);
        waker.wake();
        self.poll(number);
        if side == Side::After {
            return;
        }
        let heard = self.universe.steps.heard();
        let actor = &mut self.actors[number];
        write!(actor.heard, "{call} {heard:x};").expect("a digest takes everything");
        // Only a launch is under way long enough for others to act meanwhile.
        if call.starts_with("RunInstances") {
            return;
        }
        let answered = actor.ownership.iter().find(|(_, (side, at, _))| *side == Side::After && *at == call);
        if let Some(ticket) = answered.map(|(ticket, _)| *ticket)
            && let Some((_, _, waker)) = actor.ownership.remove(&ticket)
        {
            self.universe.steps.call(ticket);
            waker.wake();
            self.poll(number);
        }
    }

    fn poll(&mut self, number: usize) {
        let actor = &mut self.actors[number];
        let Some(future) = &mut actor.future else { return };
        let done = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        for arrival in self.universe.steps.arrivals() {
            actor.ownership.insert(arrival.ticket, (arrival.side, arrival.call, arrival.waker));
        }
        if let Poll::Ready(()) = done {
            self.end(number);
        }
    }

    /// What must not be: an invariant that the table or EC2 shows broken, two scalers in the same launch, or more machines
    /// than jobs.
    fn wrong(&self) -> Option<String> {
        if let Some(broken) = self.universe.store.take_broken().into_iter().next() {
            return Some(broken);
        }
        let launching = self.actors.iter().filter_map(|actor| {
            let mut ownership = actor.ownership.values();
            ownership.find(|(side, call, _)| *side == Side::After && call.starts_with("RunInstances"))
        });
        let mut seen = HashSet::new();
        for (_, call, _) in launching {
            if !seen.insert(call) {
                return Some(format!("S2: two scalers are in {call} at the same time"));
            }
        }
        let launched = self.universe.ec2(|ec2, _| ec2.launches());
        (launched > JOBS as u64).then(|| format!("S3: {launched} machines for {JOBS} jobs"))
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        let mut add = |what: std::fmt::Arguments<'_>| digest.write_fmt(what).expect("a digest takes everything");
        add(format_args!("{} {} {} {} ", self.crashes, self.losses, self.refusals, self.later));
        for actor in &self.actors {
            add(format_args!("{} {} {:x} ", actor.started, actor.future.is_some(), actor.heard.value()));
            for (side, call, _) in actor.ownership.values() {
                add(format_args!("{side:?} {call} "));
            }
        }
        for item in self.universe.store.items() {
            add(format_args!("{item:?}"));
        }
        let state = self.universe.state();
        for machine in state.ec2.instances() {
            add(format_args!("{} {:?} {}", machine.id, machine.client_token, machine.visible_at));
        }
        for runner in state.github.registrations() {
            add(format_args!("{} {}", runner.id, runner.name));
        }
        digest.value()
    }
}
