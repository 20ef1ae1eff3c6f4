//! Launching a batch: what is written before and after each call of RunInstances.

use std::collections::BTreeSet;
use std::ops::Add;

use jiff::{SignedDuration, Timestamp};

use crate::config::{MicroUsd, Pool, Tuple};
use crate::ids::InstanceId;
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::charge::refund;
use crate::policy::circuit::{open_circuit, without_probe};
use crate::policy::class::within;
use crate::policy::launch_error::{ErrorClass, LACK_OF_CAPACITY, LaunchError, NO_ANSWER};
use crate::policy::retry::{backoff, throttle_backoff};
use crate::policy::tuple::{Budget, Refusals, concerns, free_options, next_free};
use crate::policy::{PoolView, early_end, stopped};
use crate::state::{
    Answer, Batch, Circuit, CircuitCause, Cooldown, Failure, Instance, Lease, Leased, Machine, Meta, Pause, Slot,
    SlotState, Throttle, bounded,
};

/// How long a tuple is not tried after EC2's first refusal. Doubles up to [`COOLDOWN_MAX`]. A tuple without answers is not tried
/// for that long at once.
pub const COOLDOWN_MIN: SignedDuration = SignedDuration::from_mins(1);

/// See [`COOLDOWN_MIN`].
pub const COOLDOWN_MAX: SignedDuration = SignedDuration::from_mins(15);

/// The most cool-downs that META keeps, about 40 kB.
const COOLDOWNS_KEPT: usize = 150;

/// How long a market is not tried after EC2 refused because of a quota. Quota becomes free when machines end.
pub const QUOTA_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// EC2's rate limit recovers within seconds: an older throttling does not lengthen the next wait.
const THROTTLE_FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// Binds instances to the batch's free slots: the lowest instance id to the lowest slot id, so that every invocation binds
/// the same instances in the same way.
///
/// `taken` are instances that have an item already: bound by another invocation, or condemned. The batch is deleted if every
/// slot has an instance; otherwise its next attempt is for the rest. None if there is nothing to bind.
pub fn bind(
    view: &PoolView,
    batch: &Batch,
    launched: &[(InstanceId, Timestamp)],
    taken: &BTreeSet<InstanceId>,
    turn: &Turn,
) -> Option<Transaction> {
    let mut instances: Vec<_> = launched.iter().filter(|(id, _)| !taken.contains(id)).collect();
    instances.sort();
    let free: Vec<&Slot> = view.planned(batch.version).collect();
    let bound: Vec<(Slot, Instance)> = free
        .iter()
        .zip(&instances)
        .map(|(slot, (id, launched_at))| {
            let machine = Machine::launched(id.clone(), *launched_at);
            let mut slot = Slot { state: SlotState::Launched(machine), ..(*slot).clone() }
                .begin_registration_if_wanted(turn.lease);
            slot.lease.tries = 0;
            let instance = Instance::bound(&slot, batch.tuple.as_ref(), id.clone(), *launched_at);
            (slot, instance)
        })
        .collect();
    if bound.is_empty() {
        return None;
    }
    let left = free.len() - bound.len();
    let what = What::Bound {
        version: batch.version,
        attempt: batch.attempt,
        instances: bound.iter().map(|(_, instance)| instance.id.clone()).collect(),
    };
    let (slots, instances): (Vec<_>, Vec<_>) = bound.into_iter().unzip();
    let writes = Transaction::new().put_all(slots).put_all(instances);
    let writes = if left == 0 {
        writes.delete(batch.clone())
    } else {
        writes.put(Batch { count: left as u32, ..next(batch, turn.now) })
    };
    Some(writes.emit(Stream::Pool(view.meta.pool.clone()), what, turn))
}

/// The batch with its next attempt, not tried yet.
fn next(batch: &Batch, now: Timestamp) -> Batch {
    let (attempt, lease) = (batch.attempt + 1, Lease::due(now));
    Batch { attempt, lease, missing_since: None, unanswered: 0, answered: 0, ..batch.clone() }
}

/// What a definitive refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedFor {
    /// EC2 has no capacity for the tuple now.
    Capacity,
    /// The account's quota for the market is used up.
    Quota,
    /// EC2 would refuse the tuple again.
    Tuple,
    /// EC2 has answered no call for the tuple.
    NoAnswer,
    /// The attempt's client token was used before, and its machines do not exist.
    Token,
}

/// A definitive refusal by EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub about: RefusedFor,
    /// EC2's error code.
    pub code: String,
    pub message: String,
}

/// Whether an earlier call of the same attempt may have gone unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    First,
    Repeated,
}

impl Attempt {
    /// For a batch that was not decided in this invocation.
    pub fn of(batch: &Batch) -> Self {
        if batch.lease.tries > batch.answered && batch.tuple.is_some() { Attempt::Repeated } else { Attempt::First }
    }
}

/// What follows from an error of RunInstances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterError {
    Refused(Refused),
    Throttled,
    /// Nothing is decided about the attempt: write this batch, and repeat the attempt when its lease ends. If instances may
    /// have been launched, they are looked up first.
    Later(Box<Batch>),
}

pub fn after_error(pool: &Pool, batch: &Batch, attempt: Attempt, error: &LaunchError, now: Timestamp) -> AfterError {
    let later = || repeated_later(pool, batch, error, now);
    let about = match (error.class, attempt) {
        (ErrorClass::Throttled, _) => return AfterError::Throttled,
        // The call may have launched instances that an earlier look-up could not find.
        (ErrorClass::Ambiguous, _) => {
            let unanswered = batch.unanswered + 1;
            return AfterError::Later(Box::new(Batch { missing_since: None, unanswered, ..later() }));
        }
        (ErrorClass::Caller, _) | (ErrorClass::TokenUsed, Attempt::First) => {
            return AfterError::Later(Box::new(later()));
        }
        (ErrorClass::Capacity, _) => RefusedFor::Capacity,
        (ErrorClass::Quota, _) => RefusedFor::Quota,
        (ErrorClass::Refusal, _) => RefusedFor::Tuple,
        (ErrorClass::TokenUsed, Attempt::Repeated) => RefusedFor::Token,
    };
    let refused = Refused { about, code: error.code.clone(), message: error.message.clone() };
    match attempt {
        Attempt::First => AfterError::Refused(refused),
        Attempt::Repeated => once_confirmed(pool, with_answer(batch, error, now), refused, now),
    }
}

/// The batch after a look-up that failed: the empty ones before it do not count any more.
pub fn after_failed_look_up(pool: &Pool, batch: &Batch, error: &LaunchError, now: Timestamp) -> Batch {
    Batch { missing_since: None, ..repeated_later(pool, batch, error, now) }
}

/// The batch with EC2's answer, due again after a back-off.
fn repeated_later(pool: &Pool, batch: &Batch, error: &LaunchError, now: Timestamp) -> Batch {
    let wait = backoff(pool, batch.lease.tries, &batch.tag().to_string());
    with_answer(batch, error, now).put_off(now + wait)
}

/// Why an attempt that is [unanswered](Batch::is_unanswered) makes no more calls.
pub fn no_answer(batch: &Batch) -> LaunchError {
    let last = batch.answers.last().map(|answer| format!(", {}: {}", answer.code, answer.message)).unwrap_or_default();
    LaunchError::unanswered(NO_ANSWER, &format!("no answer to {} calls{last}", batch.unanswered))
}

/// What follows from an empty look-up for an attempt that is [unanswered](Batch::is_unanswered). EC2 may answer for another
/// zone, so the launch goes on there.
pub fn after_empty_look_up(pool: &Pool, batch: &Batch, error: &LaunchError, now: Timestamp) -> AfterError {
    let (code, message) = (error.code.clone(), error.message.clone());
    once_confirmed(pool, batch.clone(), Refused { about: RefusedFor::NoAnswer, code, message }, now)
}

/// What follows from an empty look-up, `now`. An earlier call of the attempt may have launched instances. Only a second empty
/// look-up, `confirm_gap` after the first, rules that out.
fn once_confirmed(pool: &Pool, batch: Batch, refused: Refused, now: Timestamp) -> AfterError {
    let since = batch.missing_since.unwrap_or(now);
    let confirmed_at = since + pool.timings.confirm_gap.duration();
    if now < confirmed_at {
        let batch = Batch { missing_since: Some(since), ..batch };
        return AfterError::Later(Box::new(batch.put_off(confirmed_at)));
    }
    AfterError::Refused(refused)
}

/// The batch with EC2's answer to its present attempt.
fn with_answer(batch: &Batch, error: &LaunchError, now: Timestamp) -> Batch {
    let mut batch = batch.clone();
    if let Some(tuple) = batch.tuple.clone() {
        let answer = Answer { at: now, tuple, code: error.code.clone(), message: error.message.clone() };
        answer.keep(&mut batch.answers);
    }
    batch.answered += u32::from(error.class.launched_nothing());
    batch
}

/// Claims a batch: to repeat its present attempt, or to resume it if every tuple was cooling down.
///
/// The repeated call may launch something without an answer, and the table may then refuse to record that. So the claim
/// forgets the look-ups before the call; the invocation remembers them for the case that EC2 answers. An unanswered attempt
/// makes no call.
pub fn claim(pool: &Pool, view: &PoolView, batch: &Batch, turn: &Turn) -> Transaction {
    match &batch.tuple {
        Some(_) => {
            let missing_since = batch.missing_since.filter(|_| batch.is_unanswered());
            Transaction::new().put(Batch { missing_since, ..batch.clone() }.claimed(turn.lease))
        }
        None => resume(pool, view, batch, turn),
    }
}

/// Why a batch goes on to its next attempt.
enum NextAttempt<'a> {
    AfterRefusal(&'a Tuple, &'a Refused),
    Resumed,
}

impl NextAttempt<'_> {
    fn describe(&self, batch: &Batch, following: Option<&Batch>) -> What {
        let next = following.and_then(|batch| batch.tuple.clone());
        match self {
            NextAttempt::AfterRefusal(tuple, why) => What::Refused {
                version: batch.version,
                attempt: batch.attempt,
                tuple: (*tuple).clone(),
                code: why.code.clone(),
                message: why.message.clone(),
                next,
            },
            NextAttempt::Resumed => What::Resumed { version: batch.version, attempt: batch.attempt + 1, next },
        }
    }
}

/// Records a definitive refusal of the batch's present attempt, and continues with the next tuple, for as many slots as are
/// needed now. If no tuple is free, the batch waits. If EC2 refuses every tuple of the pool, and not for lack of capacity,
/// the batch is deleted and the pool's circuit opens.
pub fn refused(pool: &Pool, view: &PoolView, batch: &Batch, tuple: &Tuple, why: &Refused, turn: &Turn) -> Transaction {
    within(pool, view, batch.class.as_ref(), |pool, view| refused_for(pool, view, batch, tuple, why, turn))
}

fn refused_for(pool: &Pool, view: &PoolView, batch: &Batch, tuple: &Tuple, why: &Refused, turn: &Turn) -> Transaction {
    let now = turn.now;
    let mut meta = view.meta.clone();
    let mut batch = batch.clone();
    match why.about {
        RefusedFor::Capacity | RefusedFor::Tuple | RefusedFor::NoAnswer => cool_down(&mut meta, tuple, why, now),
        RefusedFor::Quota => {
            meta.pauses.retain(|pause| !pause.affects(tuple) && pause.until > now);
            meta.pauses.push(Pause {
                market: tuple.market,
                instance_type: Some(tuple.instance_type.clone()),
                until: now + QUOTA_PAUSE,
                code: why.code.clone(),
                message: why.message.clone(),
            });
        }
        // Machines that ended before Drover saw them.
        RefusedFor::Token if why.code == INSTANCE_TERMINATED => {
            let (instance, launched_at, console) = (None, batch.planned_at, String::new());
            let reason = format!("{}: {}", why.code, why.message);
            let failure = Failure { at: now, instance, launched_at, reason, console };
            meta = early_end::count(pool, &meta, &[failure], CircuitCause::EndedEarly, now);
        }
        RefusedFor::Token => {}
    }
    if is_every_tuple_refused(pool, &meta, now) {
        open_circuit(&mut meta, pool, CircuitCause::LaunchRefused(why.code.clone()), why.message.clone(), now);
    }
    let answer = Answer { at: now, tuple: tuple.clone(), code: why.code.clone(), message: why.message.clone() };
    answer.clone().keep(&mut meta.answers);
    answer.keep(&mut batch.answers);
    start_next_attempt(pool, view, meta, &batch, &NextAttempt::AfterRefusal(tuple, why), turn)
}

/// Whether EC2 refuses every tuple at present, and not for lack of capacity.
fn is_every_tuple_refused(pool: &Pool, meta: &Meta, now: Timestamp) -> bool {
    let (tuples, refusals) = (pool.tuples(), Refusals::of(pool, meta, now));
    !tuples.is_empty() && tuples.iter().all(|tuple| refusals.refuses(tuple, now))
}

/// The code of a call with the token of instances that have ended.
const INSTANCE_TERMINATED: &str = "IdempotentInstanceTerminated";

/// Continues a batch whose every tuple was cooling down.
fn resume(pool: &Pool, view: &PoolView, batch: &Batch, turn: &Turn) -> Transaction {
    within(pool, view, batch.class.as_ref(), |pool, view| {
        start_next_attempt(pool, view, view.meta.clone(), batch, &NextAttempt::Resumed, turn)
    })
}

fn start_next_attempt(
    pool: &Pool,
    view: &PoolView,
    meta: Meta,
    batch: &Batch,
    attempt: &NextAttempt<'_>,
    turn: &Turn,
) -> Transaction {
    let now = turn.now;
    let mut planned: Vec<Slot> = view.planned(batch.version).cloned().collect();
    let others = view.supply(now).count() - planned.len();
    let (warm, stopped) = stopped::asked_for(pool, batch.class.as_ref(), now);
    let preparing = stopped::missing(view, stopped);
    let missing = (view.demand(now) + warm + preparing).saturating_sub(others);
    // EC2 could not stop machines of another market.
    let is_for_stop = preparing > 0 && view.demand(now) + warm <= others && planned.iter().all(|slot| !slot.wanted);
    // Only single probes are launched while the circuit is open, also of a launch that was decided before.
    let is_held_back = matches!(view.meta.circuit, Circuit::Open { .. }) && planned.len() > 1;
    let is_given_up = is_held_back || meta.circuit != view.meta.circuit;
    let needed = if is_given_up || pool.paused { 0 } else { missing.min(planned.len()) };
    // Without what these slots were planned to cost.
    let planned_price = planned.iter().filter_map(|slot| slot.price_per_hour).fold(MicroUsd(0), MicroUsd::add);
    let budget = Budget::of(pool, MicroUsd(view.price_per_hour().0.saturating_sub(planned_price.0)));
    // A launch on demand after an interruption stays on demand as long as that is possible.
    let of_market = |last: &Tuple| free_options(pool, &meta, budget, now).find(|it| it.tuple.market == last.market);
    let same_market = batch.tuple.as_ref().and_then(of_market);
    let option = same_market.or_else(|| free_options(pool, &meta, budget, now).next().filter(|_| !is_for_stop));
    let needed = match &option {
        Some(option) => needed.min(budget.pays_for(option)),
        // Another class may use the room, and an option that the cap does not pay for is no reason to try again at once. The next sweep
        // tries again.
        None if pool.shapes.is_some() || pool.price_per_hour.is_some() || is_for_stop => 0,
        None => needed,
    };
    // The last slots are closed: warm ones come last.
    let closing = planned.split_off(needed);
    let meta = without_probe(pool, &meta, &closing, now);
    let refunds = refund(view, closing.iter().filter(|slot| slot.wanted));
    let price_per_hour = option.as_ref().and_then(|option| option.price_per_hour);
    let launched_as = option.as_ref().map(|option| option.tuple.clone());
    let following = (needed > 0).then(|| {
        let tuple = option.map(|option| option.tuple);
        let lease = match tuple {
            Some(_) => Lease::due(now).claimed(turn.lease),
            None => Lease::due(next_free(pool, &meta, budget, now).unwrap_or(now + COOLDOWN_MAX)),
        };
        Batch { count: needed as u32, lease, tuple, ..next(batch, now) }
    });
    let changed = planned.into_iter().map(|slot| {
        let warm_as = launched_as.clone().filter(|_| stopped::records_launch(pool, slot.wanted)).map(Box::new);
        (slot.price_per_hour != price_per_hour || slot.warm_as != warm_as).then_some(Slot {
            price_per_hour,
            warm_as,
            ..slot
        })
    });
    let repriced: Vec<Slot> = changed.flatten().filter(|_| following.is_some()).collect();
    let what = attempt.describe(batch, following.as_ref());
    let stream = Stream::Pool(meta.pool.clone());
    let writes = Transaction::new().put(meta).put_all(refunds).put_all(repriced);
    let writes = match following {
        Some(following) => writes.put(following),
        None => writes.delete(batch.clone()),
    };
    let writes = closing.into_iter().fold(writes, Transaction::delete);
    writes.emit(stream, what, turn)
}

/// EC2 throttled the call, so nothing was launched. The same attempt, with the same token, is due later. Until then no other
/// launch of the pool is tried.
pub fn throttled(view: &PoolView, batch: &Batch, error: &LaunchError, now: Timestamp) -> Transaction {
    let batch = with_answer(batch, error, now);
    let last = view.meta.throttled.as_ref().filter(|last| now.duration_since(last.until) < THROTTLE_FORGOTTEN_AFTER);
    // Launches that were under way at the same time are throttled together. They count once.
    if let Some(last) = last.filter(|last| last.until > now) {
        return Transaction::new().put(batch.put_off(last.until));
    }
    let times = last.map_or(1, |last| last.times.saturating_add(1));
    let until = now + throttle_backoff(times, &batch.tag().to_string());
    let meta = Meta { throttled: Some(Throttle { until, times }), ..view.meta.clone() };
    Transaction::new().put(meta).put(batch.put_off(until))
}

/// META after EC2 has ended a machine of this tuple for lack of capacity, although it had accepted the launch.
pub(super) fn lacked_capacity(mut meta: Meta, tuple: Tuple, message: &str, now: Timestamp) -> Meta {
    let (code, message) = (LACK_OF_CAPACITY.to_owned(), bounded(message));
    let why = Refused { about: RefusedFor::Capacity, code: code.clone(), message: message.clone() };
    cool_down(&mut meta, &tuple, &why, now);
    Answer { at: now, tuple, code, message }.keep(&mut meta.answers);
    meta
}

fn cool_down(meta: &mut Meta, tuple: &Tuple, why: &Refused, now: Timestamp) {
    // Expired cool-downs are kept for a while: another refusal within that time doubles the wait.
    let doubles = |cooling: &&Cooldown| now.duration_since(cooling.until) < COOLDOWN_MAX;
    let last = meta.cooldowns.iter().filter(doubles).find(|cooling| concerns(cooling, tuple));
    let seconds = match (why.about, last) {
        // To find out again takes minutes, in which the jobs wait.
        (RefusedFor::NoAnswer, _) => COOLDOWN_MAX.as_secs(),
        (_, Some(last)) => (last.seconds * 2).min(COOLDOWN_MAX.as_secs()),
        (_, None) => COOLDOWN_MIN.as_secs(),
    };
    meta.cooldowns.retain(|cooling| !concerns(cooling, tuple) && doubles(&cooling));
    if meta.cooldowns.len() >= COOLDOWNS_KEPT {
        meta.cooldowns.sort_by_key(|cooling| cooling.until);
        meta.cooldowns.drain(..=meta.cooldowns.len() - COOLDOWNS_KEPT);
    }
    meta.cooldowns.push(Cooldown {
        tuple: tuple.clone(),
        until: now + SignedDuration::from_secs(seconds),
        seconds,
        code: why.code.clone(),
    });
}
