//! Drover's functions: how invocations start, go on from call to call, and end.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use domain::state::{Config, FunctionName};
use domain::wire::Message;
use engine::consume::Consumed;
use engine::pools;
use engine::sweep::{Mode, sweep};
use jiff::SignedDuration;
use rand::Rng;

use crate::call::{Call, CallKind};
use crate::old_version::{OldVersion, OldVersionStore};
use crate::steps::{Arrival, Side};
use crate::swarm::agenda::Due;
use crate::swarm::call_kinds::{self, Answerer};
use crate::swarm::faults::Fault;
use crate::swarm::invocation::{AtCall, Done, Function, Invocation};
use crate::swarm::outcome::Topic;
use crate::swarm::seed::{Swarm, VISIBILITY};
use crate::swarm::shape::BATCH;
use crate::universe::INVOCATION;

/// How long Drover waits for an answer of GitHub.
const GIVES_UP_AFTER: SignedDuration = SignedDuration::from_secs(7);

impl<'u> Swarm<'u> {
    /// Starts a scaler for each batch of messages, as long as another scaler may run.
    pub(super) fn receive(&mut self) {
        loop {
            let scalers = self.invocations.values().filter(|invocation| invocation.function == Function::Scaler);
            if scalers.count() >= self.shape.scalers {
                return;
            }
            if self.sqs.next_visible("main").is_none_or(|at| at > self.now) {
                return;
            }
            let Some(config) = self.universe.configuration() else { return };
            let mut received = Vec::new();
            while received.len() < self.shape.batch {
                let some = self.sqs.receive("main", BATCH, self.now).expect("the queue exists");
                if some.is_empty() {
                    break;
                }
                received.extend(some);
            }
            if received.is_empty() {
                return;
            }
            self.plan_in(SignedDuration::try_from(VISIBILITY).expect("some minutes"), Due::Receive);
            let messages: Vec<Message> =
                received.iter().map(|received| Message::parse(&received.body).expect("Drover's message")).collect();
            let receipts = received.into_iter().map(|received| received.receipt).collect();
            let count = messages.len();
            let old = self.old_version_of(Function::Scaler);
            let future = match old {
                Some(version) => self.old_scaler(version, messages.clone()),
                None => self.scaler(config, messages.clone()),
            };
            let number = self.start(Function::Scaler, future, messages, receipts);
            self.log(
                Topic::Routine,
                || format!("scaler {number}"),
                || format!("begins with {count} messages{}", described(old)),
            );
            self.poll(number);
        }
    }

    fn scaler(&self, config: Config, messages: Vec<Message>) -> Pin<Box<dyn Future<Output = Done> + 'u>> {
        let universe = self.universe;
        Box::pin(async move {
            Done::Scaler(universe.invocation(async |context| universe.consume(context, &config, &messages).await).await)
        })
    }

    /// A scaler of an old version. It reads the pools, as a new environment does.
    fn old_scaler(
        &self,
        version: &'static OldVersion,
        messages: Vec<Message>,
    ) -> Pin<Box<dyn Future<Output = Done> + 'u>> {
        let universe = self.universe;
        Box::pin(async move {
            let consumed = universe.invocation(async |context| {
                let table = OldVersionStore::new(universe, context, version);
                let old = table.context(context);
                match pools::read(&old, FunctionName::Scaler).await {
                    Ok(config) => universe.consume(&old, &config, &messages).await,
                    Err(error) => {
                        let failed = (0..messages.len()).map(|index| (index, error.to_string()));
                        Consumed { failed: failed.collect(), ..Consumed::default() }
                    }
                }
            });
            Done::Scaler(consumed.await)
        })
    }

    pub(super) fn start_janitor(&mut self) {
        let universe = self.universe;
        let old = self.old_version_of(Function::Janitor);
        let future = Box::pin(async move {
            let swept = universe.invocation(async |context| Done::Janitor {
                old,
                request: context.request.to_owned(),
                report: match old {
                    Some(version) => {
                        let table = OldVersionStore::new(universe, context, version);
                        sweep(&table.context(context), Mode::Repair).await
                    }
                    None => sweep(context, Mode::Repair).await,
                },
            });
            swept.await
        });
        let number = self.start(Function::Janitor, future, Vec::new(), Vec::new());
        self.log(Topic::Routine, || format!("janitor {number}"), || format!("begins{}", described(old)));
        self.poll(number);
    }

    fn start(
        &mut self,
        function: Function,
        future: Pin<Box<dyn Future<Output = Done> + 'u>>,
        messages: Vec<Message>,
        receipts: Vec<String>,
    ) -> u64 {
        self.invoked += 1;
        let invocation = Invocation { function, future, messages, receipts, waiting: BTreeMap::new() };
        self.invocations.insert(self.invoked, invocation);
        self.plan_in(INVOCATION, Due::Timeout(self.invoked));
        self.invoked
    }

    /// A part of an invocation has come to a call: the invocation ends there, or the part goes on.
    pub(super) fn at_call(&mut self, number: u64, ticket: u64) {
        let Some(invocation) = self.invocations.get_mut(&number) else { return };
        let Some(at_call) = invocation.waiting.remove(&ticket) else { return };
        let function = invocation.function;
        self.mix(number << 32 | ticket);
        let AtCall { side, call, waker, launch } = at_call;
        let kind = call.kind();
        if self.crashes(kind, side) {
            self.interrupted[kind as usize][side as usize] += 1;
            if let Some(launch) = launch
                && side == Side::Before
                && self.dice.strikes(Fault::LaunchLate)
            {
                // The call was already on its way. It arrives before the lease of its invocation has expired.
                let after = SignedDuration::from_secs(1 + self.dice.pick(Fault::LaunchLate, 20) as i64);
                self.plan_in(after, Due::LateLaunch(launch));
            }
            let side = if side == Side::Before { "before" } else { "after" };
            self.end(number, &format!("ends {side} {call}"));
            return;
        }
        if side == Side::Before {
            if kind == CallKind::RunInstances {
                self.check_alone(number, &call);
            }
            let struck = self.inject(kind);
            let topic = match struck {
                Some(_) => Topic::Event,
                None if changes_something(&call) => Topic::Change,
                None => Topic::Routine,
            };
            self.log(
                topic,
                || format!("{function} {number}"),
                || match struck {
                    Some(fault) => format!("{call} [{}]", fault.name()),
                    None => call.to_string(),
                },
            );
        }
        self.universe.steps.release(ticket);
        waker.wake();
        self.poll(number);
    }

    /// Whether an invocation ends here: in a storm at any call, and between storms at rare calls only. Otherwise
    /// calls that follow a storm by minutes would hardly ever be interrupted.
    fn crashes(&mut self, kind: CallKind, side: Side) -> bool {
        let weight = call_kinds::weight(kind, side);
        let may = self.dice.on || self.calm_since.is_none() && call_kinds::is_rare(kind);
        may && self.dice.strikes_anytime(Fault::Crash, weight)
    }

    fn poll(&mut self, number: u64) {
        let Some(invocation) = self.invocations.get_mut(&number) else { return };
        let done = poll_while_woken(invocation.future.as_mut());
        for arrival in self.universe.steps.arrivals() {
            let launch = self.universe.state().sending.take().map(Box::new);
            let takes = self.latency(&arrival) + self.paging(&arrival.call);
            let at_call = AtCall { side: arrival.side, call: arrival.call, waker: arrival.waker, launch };
            if let Some(invocation) = self.invocations.get_mut(&number) {
                invocation.waiting.insert(arrival.ticket, at_call);
            }
            self.plan_in(takes, Due::Call { invocation: number, ticket: arrival.ticket });
        }
        let (messages, handed_over) = {
            let mut state = self.universe.state();
            (std::mem::take(&mut state.messages), std::mem::take(&mut state.handed_over))
        };
        for (at, message) in messages {
            self.send(&message, at.duration_since(self.now));
        }
        for machine in handed_over {
            self.handed_over(machine);
        }
        if let Poll::Ready(done) = done {
            self.finished(number, done);
        }
    }

    fn latency(&mut self, arrival: &Arrival) -> SignedDuration {
        let kind = arrival.call.kind();
        let is_of_github = call_kinds::answerer(kind) == Answerer::GitHub;
        if self.now < self.github_hangs_until && is_of_github && arrival.side == Side::After {
            return GIVES_UP_AFTER;
        }
        let (least, most) = call_kinds::latency(kind);
        let takes = SignedDuration::from_micros(self.rng.random_range(least..most) * 500);
        if self.dice.strikes(Fault::Slow) {
            takes + SignedDuration::from_millis(self.dice.pick(Fault::Slow, 25_000) as i64)
        } else {
            takes
        }
    }

    /// The time that a large pool adds to a reading: DynamoDB returns at most 1 MB, which is about 3,000 waiting jobs, per page.
    fn paging(&self, call: &Call) -> SignedDuration {
        let (Call::Query(pool) | Call::QueryNeeded(pool)) = call else { return SignedDuration::ZERO };
        let jobs = self.universe.store.waiting_jobs(pool);
        SignedDuration::from_millis(if jobs > 500 { jobs as i64 / 20 } else { 0 })
    }

    /// An invocation ends early. What it has not written down is lost, and its messages come again.
    pub(super) fn end(&mut self, number: u64, how: &str) {
        if let Some(Invocation { function, .. }) = self.invocations.remove(&number) {
            self.log(Topic::Event, || format!("{function} {number}"), || how.to_owned());
        }
    }

    fn finished(&mut self, number: u64, done: Done) {
        let Some(invocation) = self.invocations.remove(&number) else { return };
        match done {
            Done::Scaler(consumed) => {
                for (index, receipt) in invocation.receipts.iter().enumerate() {
                    if !consumed.failed.contains_key(&index) {
                        if number > self.lost_at.max(self.undrained_at) {
                            self.check_acknowledged(&invocation.messages[index]);
                        }
                        self.sqs.delete("main", receipt).expect("the queue exists");
                    }
                }
                self.log(
                    Topic::Routine,
                    || format!("scaler {number}"),
                    || match consumed.failed.len() {
                        0 => "is done".to_owned(),
                        _ => format!("is done; failed messages by index: {:?}", consumed.failed),
                    },
                );
                self.receive();
            }
            Done::Janitor { request, report, old } => {
                if let Ok(report) = &report
                    && number > self.lost_at
                    && old.is_none_or(OldVersion::stores_failures)
                {
                    self.check_reported(&request, report);
                }
                self.log(
                    Topic::Routine,
                    || format!("janitor {number}"),
                    || match report {
                        Ok(report) => {
                            format!(
                                "is done: {:?}, {} failed, {:?}",
                                report.reaped,
                                report.failures.len(),
                                report.safety_limits
                            )
                        }
                        Err(error) => format!("fails: {error}"),
                    },
                );
            }
        }
    }
}

/// The version of an invocation, for a story.
fn described(old: Option<&OldVersion>) -> String {
    old.map_or_else(String::new, |version| format!(" in a version of format {}", version.format))
}

/// Whether a future has asked to be polled again.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls until every part waits for a call. A stream of futures asks to be polled again when many of them have gone on without a
/// call.
fn poll_while_woken<T>(mut future: Pin<&mut (dyn Future<Output = T> + '_)>) -> Poll<T> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    loop {
        let done = future.as_mut().poll(&mut Context::from_waker(&waker));
        if done.is_ready() || !woken.0.swap(false, Ordering::Relaxed) {
            return done;
        }
    }
}

/// Whether the call launches, terminates or deregisters, or writes an event.
fn changes_something(call: &Call) -> bool {
    matches!(call, Call::Commit(_) | Call::RunInstances(_) | Call::TerminateInstances(_) | Call::DeleteRunner(_))
}
