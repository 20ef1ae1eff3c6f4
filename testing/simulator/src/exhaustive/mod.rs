//! Every order of calls in a small world.
//!
//! Two jobs wait, three scalers have received messages about them, and there are two zones. At most one scaler crashes, at
//! any call. At most two launches lose their answer, and EC2 may not show their machines either. One launch is refused for
//! lack of capacity. Once, so much time passes that every lease expires.
//!
//! The engine itself runs. A state consists of what the table, EC2 and GitHub hold and of the answers that each scaler has
//! received. A state is reached again by making the same choices from the beginning; two ways to one state count once.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Write;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use domain::state::{Config, Key};
use domain::wire::{MESSAGE_VERSION as VERSION, Message};
use jiff::SignedDuration;
use world::{LostReply, ec2, github};

use crate::call::Call;
use crate::digest::Digest;
use crate::mistakes::Mistake;
use crate::steps::Side;
use crate::universe::{Universe, pool};

/// The number of jobs that wait.
const JOBS: usize = 2;

/// The number of scalers.
const ACTORS: usize = 3;

/// Longer than [`Choice::Later`].
const HIDDEN_FOR: Duration = Duration::from_secs(3600);

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A scaler makes its next call. A launch takes two steps: the call and its answer.
    Step(usize),
    /// A scaler ends.
    Crash(usize),
    /// A scaler launches and gets no answer.
    Lose(usize, LostReply),
    /// A scaler launches and gets no answer, and EC2 never shows the machines: only the client token reveals them.
    Hide(usize),
    /// A scaler launches and EC2 has no capacity.
    Refuse(usize),
    /// So much time passes that every lease expires and every invocation ends.
    Later,
}

/// The result of an exploration.
#[derive(Debug)]
pub struct Explored {
    /// The number of different states.
    pub states: usize,
    pub transitions: usize,
    /// The number of states in which nothing more can happen.
    pub ends: usize,
    /// Choices that violate an invariant, and the violation.
    pub counterexample: Option<(Vec<Choice>, String)>,
}

struct Actor<'u> {
    future: Option<Pin<Box<dyn Future<Output = ()> + 'u>>>,
    started: bool,
    /// The parts that have come to a call, by ticket.
    waiting: BTreeMap<u64, (Side, Call, Waker)>,
    /// A digest of its calls and their answers.
    answers: Digest,
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

/// How to reach a state, and the answers that each scaler has received by then.
#[derive(Default)]
struct Way {
    choices: Vec<Choice>,
    answers: [Digest; ACTORS],
}

/// What is left to explore.
struct Frontier {
    known: HashSet<u64>,
    /// First in, first out: short counterexamples are found first.
    ways: VecDeque<Way>,
    /// The number of threads that explore a way, which may add further ways.
    exploring: usize,
    explored: Explored,
}

/// Explores the whole world, or until an invariant breaks. Drover makes the mistake, if there is one. Calls `progress` with
/// the number of states, every thousand.
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
                    in_a_world(mistake, |world| follow(world, way, &frontier, &more, &progress));
                    lock(&frontier).exploring -= 1;
                    more.notify_all();
                }
            });
        }
    });
    let frontier = frontier.into_inner().expect("no thread panicked while it held the lock");
    Explored { states: frontier.known.len(), ..frontier.explored }
}

fn is_launch(call: &Call) -> bool {
    matches!(call, Call::RunInstances(_))
}

fn lock(frontier: &Mutex<Frontier>) -> MutexGuard<'_, Frontier> {
    frontier.lock().expect("no thread panics while it holds the lock")
}

/// None if everything is explored, or a counterexample was found.
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
        frontier = more.wait(frontier).expect("no thread panics while it holds the lock");
    }
}

/// Follows a way and goes on from its end as long as the states are new: with one choice at once, with the others later,
/// from the beginning.
fn follow(
    world: &mut World<'_>,
    Way { choices: mut way, answers }: Way,
    frontier: &Mutex<Frontier>,
    more: &Condvar,
    progress: &(impl Fn(usize) + Sync),
) {
    for choice in &way {
        world.choose(*choice);
    }
    for (actor, answers) in world.actors.iter_mut().zip(answers) {
        actor.answers = answers;
    }
    world.universe.steps.digest_answers();
    loop {
        let (violation, digest, mut choices) = (world.violation(), world.digest(), world.choices());
        let mut frontier = lock(frontier);
        frontier.explored.transitions += 1;
        if let Some(violation) = violation {
            frontier.explored.counterexample.get_or_insert((way, violation));
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
        let answers = std::array::from_fn(|number| world.actors[number].answers);
        for choice in choices {
            frontier.ways.push_back(Way { choices: way.iter().copied().chain([choice]).collect(), answers });
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
    universe.store.collect_violations();
    universe.steps.schedule();
    record(&universe, &config, &messages);
    let actor = || Actor { future: None, started: false, waiting: BTreeMap::new(), answers: Digest::default() };
    let actors = (0..ACTORS).map(|_| actor()).collect();
    let mut world =
        World { universe: &universe, config: &config, actors, crashes: 1, losses: 2, refusals: 1, later: true };
    run(&mut world)
}

/// Runs a scaler that records the jobs and ends before it decides anything.
fn record(universe: &Universe, config: &Config, messages: &[Message]) {
    let scale = async |context: &engine::context::Context<'_>| drop(universe.consume(context, config, messages).await);
    let mut scaler = std::pin::pin!(universe.invocation(scale));
    let mut context = Context::from_waker(Waker::noop());
    while scaler.as_mut().poll(&mut context).is_pending() {
        for arrival in universe.steps.arrivals() {
            // META and the record of a nudge, before the pool is read.
            if matches!(arrival.call, Call::GetMany(_)) {
                return;
            }
            universe.steps.release(arrival.ticket);
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
            let next = actor.waiting.values().next();
            let launches = next.is_some_and(|(side, call, _)| *side == Side::Before && is_launch(call));
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
                // EC2 answers a repeated launch like the first one even without capacity, and leaves the refusal in place.
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
        actor.waiting.clear();
        // The answers of a scaler that has ended make no difference.
        actor.answers = Digest::default();
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
        // The order of calls that no other scaler's calls depend on makes no difference: they are made at once.
        let is_independent = |call: &Call| matches!(call, Call::Get(Key::Limit(_)) | Call::GenerateJitConfig(_));
        while self.actors[number]
            .waiting
            .values()
            .next()
            .is_some_and(|(side, call, _)| *side == Side::Before && is_independent(call))
        {
            self.advance(number);
        }
    }

    /// Makes one call of the scaler, or one half of a launch.
    fn advance(&mut self, number: usize) {
        let Some((ticket, (side, call, waker))) = self.actors[number].waiting.pop_first() else { return };
        self.universe.steps.release(ticket);
        waker.wake();
        self.poll(number);
        if side == Side::After {
            return;
        }
        let answer = self.universe.steps.answer();
        let actor = &mut self.actors[number];
        write!(actor.answers, "{call} {answer:x};").expect("writing to a digest does not fail");
        // Only a launch takes long enough for others to act meanwhile.
        if is_launch(&call) {
            return;
        }
        let answered = actor.waiting.iter().find(|(_, (side, at, _))| *side == Side::After && *at == call);
        if let Some(ticket) = answered.map(|(ticket, _)| *ticket)
            && let Some((_, _, waker)) = actor.waiting.remove(&ticket)
        {
            self.universe.steps.release(ticket);
            waker.wake();
            self.poll(number);
        }
    }

    fn poll(&mut self, number: usize) {
        let actor = &mut self.actors[number];
        let Some(future) = &mut actor.future else { return };
        let done = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        for arrival in self.universe.steps.arrivals() {
            actor.waiting.insert(arrival.ticket, (arrival.side, arrival.call, arrival.waker));
        }
        if let Poll::Ready(()) = done {
            self.end(number);
        }
    }

    /// A violation: one that the table or EC2 shows, two scalers in the same launch, or more machines than jobs.
    fn violation(&self) -> Option<String> {
        if let Some(violation) = self.universe.store.take_violations().into_iter().next() {
            return Some(violation);
        }
        let launching = self.actors.iter().filter_map(|actor| {
            let mut waiting = actor.waiting.values();
            waiting.find(|(side, call, _)| *side == Side::After && is_launch(call))
        });
        let mut launches: Vec<&Call> = Vec::new();
        for (_, call, _) in launching {
            if launches.contains(&call) {
                return Some(format!("S2: two scalers are in {call} at the same time"));
            }
            launches.push(call);
        }
        let launched = self.universe.ec2(|ec2, _| ec2.launches());
        (launched > JOBS as u64).then(|| format!("S3: {launched} machines for {JOBS} jobs"))
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        let mut add =
            |what: std::fmt::Arguments<'_>| digest.write_fmt(what).expect("writing to a digest does not fail");
        add(format_args!("{} {} {} {} ", self.crashes, self.losses, self.refusals, self.later));
        for actor in &self.actors {
            add(format_args!("{} {} {:x} ", actor.started, actor.future.is_some(), actor.answers.value()));
            for (side, call, _) in actor.waiting.values() {
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
