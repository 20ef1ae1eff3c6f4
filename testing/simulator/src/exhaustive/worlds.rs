//! The small worlds.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use domain::config::{MarketChoice, Pool};
use domain::log::Transaction;
use domain::state::Nudge;
use domain::wire::{MESSAGE_VERSION as VERSION, Message};
use engine::ports::Store;
use futures::executor::block_on;
use jiff::SignedDuration;
use world::github::QueueJob;
use world::{ec2, github};

use crate::call::Call;
use crate::mistakes::Mistake;
use crate::steps::Side;
use crate::universe::{Universe, pool, shapes_pool};

/// A world that is small enough to be explored completely.
#[derive(Debug)]
pub struct SmallWorld {
    pub name: &'static str,
    /// What happens in it, as a sentence.
    pub about: &'static str,
    /// Mistakes that break an invariant in it.
    pub mistakes: &'static [Mistake],
    /// The pool.
    pub(super) begin: fn(Option<Mistake>) -> Universe,
    /// What has happened when the exploration begins.
    pub(super) prepare: fn(&Universe),
    pub(super) functions: &'static [Function],
    /// What GitHub and EC2 do, in this order and at any moment.
    pub(super) events: &'static [Event],
    /// How many functions may end at any call.
    pub(super) crashes: usize,
    /// How many launches may get no answer.
    pub(super) losses: usize,
    /// How many launches EC2 may refuse for lack of capacity.
    pub(super) refusals: usize,
    /// Whether once so much time may pass that every lease expires.
    pub(super) later: bool,
    /// The most machines that are ever needed.
    pub(super) most_launched: u64,
}

/// A function that runs once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// A scaler that a nudge has reached.
    Nudged,
    /// A scaler that receives one of the messages on the queue.
    Receiver,
    Janitor,
}

/// Something that happens outside Drover.
#[derive(Debug)]
pub(super) struct Event {
    /// As a sentence.
    pub(super) text: &'static str,
    /// Whether it may happen now.
    pub(super) may: fn(&Universe) -> bool,
    pub(super) happen: fn(&Universe),
}

/// Every small world.
pub const WORLDS: &[SmallWorld] = &[LAUNCH, STEALING, INTERRUPTION, DOORBELL, STOPPED, CLASS];

/// The world of that name.
pub fn world(name: &str) -> Option<&'static SmallWorld> {
    WORLDS.iter().find(|world| world.name == name)
}

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

const LAUNCH: SmallWorld = SmallWorld {
    name: "launch",
    about: "Two jobs wait, and three scalers launch machines for them. One scaler may crash, two launches may get no answer, \
            one may be refused, and once every lease may expire.",
    mistakes: &[Mistake::NoLease, Mistake::NoVersionCheck, Mistake::NoClientToken],
    begin: |mistake| with(pool("linux", 100), ec2::Config::default(), github::Config::default(), mistake),
    prepare: |universe| {
        for _ in 0..2 {
            universe.queue_job(&["linux"], MINUTE);
        }
        seconds(universe, 5);
        let messages = universe.receive();
        // META and the record of a nudge, before the pool is read: the jobs are recorded, and nothing is decided.
        crash_before(universe, &messages, |call| matches!(call, Call::GetMany(_)));
    },
    functions: &[Function::Nudged; 3],
    events: &[],
    crashes: 1,
    losses: 2,
    refusals: 1,
    later: true,
    most_launched: 2,
};

const STEALING: SmallWorld = SmallWorld {
    name: "stealing",
    about: "A machine is idle, because the job that it was launched for was cancelled. Scalers end it, and GitHub gives it \
            another job, at any moment. One function may crash.",
    mistakes: &[Mistake::TerminateFirst, Mistake::StaleBusy],
    begin: |mistake| with(pool("linux", 100), quick(), prompt(), mistake),
    prepare: |universe| {
        let job = universe.queue_job(&["linux"], MINUTE);
        until(universe, |universe| !universe.state().configured.is_empty());
        universe.github(|github, now| github.cancel(github::JobId(job.0), now));
        until(universe, |universe| universe.github(|github, _| github.registrations().all(|runner| runner.online)));
        universe.sweep();
        // Until the machine is surplus.
        pass(universe, 150);
        universe.receive();
        universe.send([nudge(universe), nudge(universe)]);
    },
    functions: &[Function::Receiver; 3],
    events: &[Event {
        text: "a second job is queued, and GitHub gives it to a runner that is idle",
        may: |_| true,
        happen: |universe| {
            universe.queue_job(&["linux"], MINUTE);
            seconds(universe, 2);
        },
    }],
    crashes: 1,
    losses: 0,
    refusals: 0,
    later: false,
    most_launched: 2,
};

const INTERRUPTION: SmallWorld = SmallWorld {
    name: "interruption",
    about: "A job's spot machine waits for its JIT config. While scalers hand it over, EC2 announces that it reclaims the \
            machine, and reclaims it.",
    mistakes: &[Mistake::NoRerun],
    begin: |mistake| {
        let pool = Pool { market: MarketChoice::Spot, rerun_on_interruption: true, ..pool("linux", 100) };
        let ec2 = ec2::Config { spot_notice: Duration::from_secs(5), ..quick() };
        with(pool, ec2, github::Config { lost_runner: Duration::from_secs(2), ..prompt() }, mistake)
    },
    prepare: |universe| {
        universe.queue(&["linux"], |job| QueueJob { runs_for: Duration::from_secs(600), ..job });
        seconds(universe, 1);
        let messages = universe.receive();
        crash_before(universe, &messages, |call| matches!(call, Call::GenerateJitConfig(_)));
        // Until the lease of the crashed scaler is over.
        pass(universe, 100);
        universe.receive();
        universe.send([nudge(universe)]);
    },
    functions: &[Function::Receiver; 2],
    events: &[
        Event {
            text: "EC2 announces that it reclaims the first machine",
            may: |_| true,
            happen: |universe| {
                universe.ec2(|ec2, now| {
                    let first = ec2.instances().next().map(|machine| machine.id.clone());
                    first.iter().for_each(|machine| ec2.interrupt_spot(machine, now));
                });
                seconds(universe, 2);
            },
        },
        Event {
            text: "EC2 reclaims it, and GitHub fails its job, if it has one",
            may: |_| true,
            happen: |universe| seconds(universe, 8),
        },
    ],
    crashes: 0,
    losses: 0,
    refusals: 0,
    later: false,
    most_launched: 2,
};

const DOORBELL: SmallWorld = SmallWorld {
    name: "doorbell",
    about: "Two jobs are queued while a nudge is on its way. Scalers record the jobs, answer the nudge, lose the race of two \
            decisions and send a nudge.",
    mistakes: &[Mistake::NoDoorbell, Mistake::LateAnswer],
    begin: |mistake| with(pool("linux", 100), quick(), prompt(), mistake),
    prepare: |universe| {
        for _ in 0..2 {
            universe.queue_job(&["linux"], MINUTE);
        }
        seconds(universe, 1);
        let pool = universe.config().pools[0].name.clone();
        let sent = Nudge { pool, due_at: universe.now(), revision: 0 };
        block_on(universe.store.commit(&Transaction::new().put(sent))).expect("nobody else writes it");
        universe.send([nudge(universe)]);
    },
    functions: &[Function::Receiver; 3],
    events: &[],
    crashes: 0,
    losses: 0,
    refusals: 0,
    later: false,
    most_launched: 2,
};

const STOPPED: SmallWorld = SmallWorld {
    name: "stopped",
    about: "A machine has prepared itself and is to be stopped until a job needs it. The janitor sets it aside and stops it \
            while a job is queued; scalers start it or launch another one.",
    mistakes: &[Mistake::StopUnclaimed],
    begin: |mistake| {
        let pool = Pool { stopped: 1, market: MarketChoice::OnDemand, ..pool("linux", 100) };
        with(pool, quick(), prompt(), mistake)
    },
    prepare: |universe| {
        universe.sweep();
        // It boots and prepares itself.
        seconds(universe, 12);
        pass(universe, 60);
        universe.receive();
        universe.queue_job(&["linux"], MINUTE);
        seconds(universe, 1);
    },
    functions: &[Function::Janitor, Function::Receiver, Function::Receiver],
    events: &[Event {
        text: "EC2 has stopped the machine",
        may: |universe| universe.ec2(|ec2, _| ec2.alive().any(|machine| machine.state == ec2::State::Stopping)),
        happen: |universe| seconds(universe, 2),
    }],
    crashes: 0,
    losses: 0,
    refusals: 0,
    later: false,
    most_launched: 2,
};

const CLASS: SmallWorld = SmallWorld {
    name: "class",
    about: "Two jobs ask for machines of different sizes. Two scalers launch them, EC2 may refuse a launch or not answer one, \
            and a scaler may crash.",
    mistakes: &[Mistake::SmallFallback],
    begin: |mistake| with(shapes_pool("any", 100), quick(), prompt(), mistake),
    prepare: |universe| {
        universe.sweep();
        universe.receive();
        for label in ["any/2cpu/4gb", "any/8cpu/32gb"] {
            universe.queue_job(&[label], MINUTE);
        }
        seconds(universe, 1);
    },
    functions: &[Function::Receiver; 2],
    events: &[],
    crashes: 1,
    losses: 1,
    refusals: 1,
    later: false,
    most_launched: 2,
};

fn with(pool: Pool, ec2: ec2::Config, github: github::Config, mistake: Option<Mistake>) -> Universe {
    Universe::with(1, vec![pool], ec2, github, mistake)
}

/// GitHub, with webhooks that arrive at once. The queue changes their order.
fn prompt() -> github::Config {
    github::Config { webhook_delay: (Duration::ZERO, Duration::ZERO), ..github::Config::default() }
}

/// EC2, with machines that boot and stop soon.
fn quick() -> ec2::Config {
    let second = Duration::from_secs(1);
    let (pending, boot, stopping) = (second, second, second);
    ec2::Config { pending, boot, stopping, start_pending: second, start_boot: second, ..ec2::Config::default() }
}

fn nudge(universe: &Universe) -> Message {
    Message::Nudge { v: VERSION, pool: universe.config().pools[0].name.clone() }
}

/// Time passes outside Drover.
fn seconds(universe: &Universe, seconds: u32) {
    for _ in 0..seconds {
        universe.tick();
    }
}

/// Time jumps.
fn pass(universe: &Universe, seconds: i64) {
    universe.pass(SignedDuration::from_secs(seconds));
    universe.tick();
}

/// Time passes, and the scaler consumes messages, until something is true.
fn until(universe: &Universe, holds: impl Fn(&Universe) -> bool) {
    for _ in 0..60 {
        if holds(universe) {
            return;
        }
        universe.tick();
        universe.scale();
    }
}

/// Runs a scaler, which ends before it makes such a call.
fn crash_before(universe: &Universe, messages: &[Message], at: impl Fn(&Call) -> bool) {
    let config = universe.config();
    universe.steps.schedule();
    let scale = async |context: &engine::context::Context<'_>| drop(universe.consume(context, &config, messages).await);
    let mut scaler = pin!(universe.invocation(scale));
    let mut context = Context::from_waker(Waker::noop());
    let mut is_over = false;
    while !is_over && scaler.as_mut().poll(&mut context).is_pending() {
        for arrival in universe.steps.arrivals() {
            is_over |= arrival.side == Side::Before && at(&arrival.call);
            universe.steps.release(arrival.ticket);
            arrival.waker.wake();
        }
    }
    universe.steps.at_once();
}
