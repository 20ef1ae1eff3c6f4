//! A small world in some state, and how a choice leads to the next one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use domain::state::{Config, Key};
use domain::wire::{MESSAGE_VERSION as VERSION, Message};
use engine::sweep::{Mode, sweep};
use jiff::SignedDuration;
use world::{LostReply, ec2};

use crate::call::Call;
use crate::digest::Digest;
use crate::exhaustive::choice::Choice;
use crate::exhaustive::worlds::{Function, SmallWorld};
use crate::mistakes::Mistake;
use crate::steps::Side;
use crate::universe::Universe;

/// Longer than [`Choice::Later`].
const HIDDEN_FOR: Duration = Duration::from_secs(3600);

/// A function that runs, or will.
pub(super) struct Actor<'u> {
    pub(super) function: Function,
    future: Option<Pin<Box<dyn Future<Output = ()> + 'u>>>,
    pub(super) started: bool,
    /// The message that a receiver has not acknowledged yet.
    message: Option<Message>,
    /// The parts that have come to a call, by ticket.
    pub(super) waiting: BTreeMap<u64, (Side, Call, Waker)>,
    /// A digest of its calls and their answers.
    answers: Digest,
}

pub(super) struct Running<'u> {
    pub(super) world: &'u SmallWorld,
    pub(super) universe: &'u Universe,
    config: &'u Config,
    pub(super) actors: Vec<Actor<'u>>,
    /// How often each may still happen.
    crashes: usize,
    losses: usize,
    refusals: usize,
    later: bool,
    /// The number of events that have happened.
    pub(super) happened: usize,
    /// The messages of scalers that have ended before they acknowledged them.
    pub(super) unfinished: Vec<Message>,
}

pub(super) fn in_a_world<T>(
    world: &SmallWorld,
    mistake: Option<Mistake>,
    run: impl FnOnce(&mut Running<'_>) -> T,
) -> T {
    let universe = (world.begin)(mistake);
    universe.store.collect_violations();
    (world.prepare)(&universe);
    let config = universe.config();
    universe.steps.schedule();
    let actor = |function: &Function| Actor {
        function: *function,
        future: None,
        started: false,
        message: None,
        waiting: BTreeMap::new(),
        answers: Digest::default(),
    };
    let mut running = Running {
        world,
        universe: &universe,
        config: &config,
        actors: world.functions.iter().map(actor).collect(),
        crashes: world.crashes,
        losses: world.losses,
        refusals: world.refusals,
        later: world.later,
        happened: 0,
        unfinished: Vec::new(),
    };
    run(&mut running)
}

pub(super) fn is_launch(call: &Call) -> bool {
    matches!(call, Call::RunInstances(_))
}

/// The messages that can be received, each once, with their places on the queue.
pub(super) fn receivable(universe: &Universe) -> Vec<(u8, Message)> {
    let state = universe.state();
    let mut found: Vec<(u8, Message)> = Vec::new();
    for (place, (at, message)) in state.messages.iter().enumerate() {
        if *at <= state.now && found.iter().all(|(_, other)| other != message) {
            found.push((place as u8, message.clone()));
        }
    }
    found
}

impl<'u> Running<'u> {
    pub(super) fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let is_running = self.actors.iter().any(|actor| actor.future.is_some());
        if self.later && is_running {
            choices.push(Choice::Later);
        }
        if self.world.events.get(self.happened).is_some_and(|event| (event.may)(self.universe)) {
            choices.push(Choice::Happen);
        }
        let mut messages = receivable(self.universe);
        for (number, actor) in (0..).zip(&self.actors) {
            if !actor.started && actor.function == Function::Receiver {
                // It makes no difference which of them it is: the first one.
                choices.extend(messages.drain(..).map(|(place, _)| Choice::Receive(number, place)));
                continue;
            }
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

    pub(super) fn choose(&mut self, choice: Choice) {
        match choice {
            Choice::Step(number) => self.step(number.into()),
            Choice::Receive(number, place) => {
                let message = self.universe.state().messages.remove(place.into());
                self.actors[usize::from(number)].message = message.map(|(_, message)| message);
                self.step(number.into());
            }
            Choice::Crash(number) => {
                self.crashes -= 1;
                self.crash(number.into());
            }
            Choice::Lose(number, how) => self.lose(number.into(), how),
            Choice::Hide(number) => {
                let shown = self.universe.ec2(|ec2, _| std::mem::replace(&mut ec2.faults.invisible_for, HIDDEN_FOR));
                self.lose(number.into(), LostReply::Applied);
                self.universe.ec2(|ec2, _| ec2.faults.invisible_for = shown);
            }
            Choice::Refuse(number) => {
                self.refusals -= 1;
                let (matches, code) = (ec2::LaunchMatch::default(), ec2::Code::InsufficientInstanceCapacity);
                let refusal = ec2::Refusal { matches, code, when: ec2::When::Next(1) };
                self.universe.ec2(|ec2, _| ec2.faults.refusals.push(refusal));
                self.step(number.into());
                // EC2 answers a repeated launch like the first one even without capacity, and leaves the refusal in place.
                self.universe.ec2(|ec2, _| ec2.faults.refusals.clear());
            }
            Choice::Later => {
                self.later = false;
                for number in 0..self.actors.len() {
                    if self.actors[number].started {
                        self.crash(number);
                    }
                }
                self.universe.state().now += SignedDuration::from_mins(5);
            }
            Choice::Happen => {
                (self.world.events[self.happened].happen)(self.universe);
                self.happened += 1;
            }
        }
    }

    fn lose(&mut self, number: usize, how: LostReply) {
        self.losses -= 1;
        let lost = (ec2::Operation::RunInstances, how);
        self.universe.ec2(|ec2, _| ec2.faults.lost_replies.push_back(lost));
        self.step(number);
    }

    /// Whether a function has ended in the middle of its work.
    pub(super) fn has_crashed(&self) -> bool {
        self.crashes < self.world.crashes || self.later != self.world.later
    }

    /// A function ends without acknowledging its message.
    fn crash(&mut self, number: usize) {
        self.unfinished.extend(self.actors[number].message.take());
        self.end_function(number);
    }

    fn end_function(&mut self, number: usize) {
        let actor = &mut self.actors[number];
        actor.future = None;
        actor.message = None;
        actor.waiting.clear();
        // The answers of a function that has ended make no difference.
        actor.answers = Digest::default();
    }

    fn step(&mut self, number: usize) {
        if !self.actors[number].started {
            self.start(number);
            return;
        }
        self.advance(number);
        // The order of calls that no other function's calls depend on makes no difference: they are made at once.
        let is_independent = |call: &Call| {
            matches!(
                call,
                Call::Get(Key::Limit(_))
                    | Call::GenerateJitConfig(_)
                    | Call::ListDeliveries
                    | Call::ListRepositories(_)
                    | Call::DescribeInstanceTypes
                    | Call::DescribeSpotPriceHistory
            )
        };
        while self.actors[number]
            .waiting
            .values()
            .next()
            .is_some_and(|(side, call, _)| *side == Side::Before && is_independent(call))
        {
            self.advance(number);
        }
    }

    fn start(&mut self, number: usize) {
        let (universe, config) = (self.universe, self.config);
        let actor = &mut self.actors[number];
        actor.started = true;
        actor.future = Some(match (actor.function, actor.message.clone()) {
            (Function::Janitor, _) => Box::pin(async move {
                let sweep = async |context: &engine::context::Context<'_>| drop(sweep(context, Mode::Repair).await);
                universe.invocation(sweep).await;
            }),
            (Function::Receiver, Some(message)) => Box::pin(async move {
                let messages = [message];
                let scale = async |context: &engine::context::Context<'_>| {
                    universe.consume(context, config, &messages).await.failed
                };
                let failed = universe.invocation(scale).await;
                universe.send(failed.into_keys().map(|index| messages[index].clone()));
            }),
            (Function::Nudged | Function::Receiver, _) => Box::pin(async move {
                let messages = [Message::Nudge { v: VERSION, pool: config.pools[0].name.clone() }];
                let scale = async |context: &engine::context::Context<'_>| {
                    drop(universe.consume(context, config, &messages).await)
                };
                universe.invocation(scale).await;
            }),
        });
        self.poll(number);
    }

    /// Makes one call of the function, or one half of a launch.
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
            self.end_function(number);
        }
    }

    /// The answers that each function has received.
    pub(super) fn answers(&self) -> Vec<Digest> {
        self.actors.iter().map(|actor| actor.answers).collect()
    }

    pub(super) fn set_answers(&mut self, answers: &[Digest]) {
        for (actor, answers) in self.actors.iter_mut().zip(answers) {
            actor.answers = *answers;
        }
    }

    /// A digest of the state.
    pub(super) fn digest(&self) -> u64 {
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
        add(format_args!("{:x}", self.lasting()));
        digest.value()
    }

    /// A digest of what remains when every function has ended.
    pub(super) fn lasting(&self) -> u64 {
        let mut digest = Digest::default();
        let mut add =
            |what: std::fmt::Arguments<'_>| digest.write_fmt(what).expect("writing to a digest does not fail");
        for item in self.universe.store.items() {
            add(format_args!("{item:?}"));
        }
        let state = self.universe.state();
        for machine in state.ec2.instances() {
            add(format_args!("{} {:?} {}", machine.id, machine.client_token, machine.visible_at));
            add(format_args!("{:?} {:?}", machine.state, machine.reclaimed_at));
        }
        for runner in state.github.registrations() {
            add(format_args!("{} {} {} {:?}", runner.id, runner.name, runner.online, runner.job));
        }
        for job in state.github.jobs() {
            add(format_args!("{} {:?}", job.id, job.state));
        }
        add(format_args!("{} {} {:?} {:?}", self.happened, state.now, state.messages, self.unfinished));
        digest.value()
    }
}
