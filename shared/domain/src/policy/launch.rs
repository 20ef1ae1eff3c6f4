//! What follows from what EC2 answered to a launch.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::config::{Pool, Tuple};
use crate::ids::InstanceId;
use crate::log::{Cause, Stream, Transaction, What};
use crate::policy::PoolView;
use crate::policy::decide::{choose_tuple, tuple_free_at};
use crate::policy::due::throttle_backoff;
use crate::state::{
    Batch, Circuit, Cooldown, Instance, Machine, Meta, Pause, REFUSALS_KEPT, Refusal, Slot, SlotState, Throttle,
    WaitingJob,
};

/// How long a way to launch is left alone after EC2's first refusal; doubles up to [`COOLDOWN_MAX`].
pub const COOLDOWN_MIN: SignedDuration = SignedDuration::from_mins(1);

/// See [`COOLDOWN_MIN`].
pub const COOLDOWN_MAX: SignedDuration = SignedDuration::from_mins(15);

/// How long a market is left alone after a quota refusal: quotas free up when machines end or a person raises them.
pub const QUOTA_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// EC2's bucket is full again after some seconds: a throttling that long ago says nothing about the next call.
const THROTTLE_FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// Binds instances to the batch's free slots, lowest to lowest, so that everybody who looks at the same instances binds
/// them alike.
///
/// `taken` are those that have an `INSTANCE#` item already: bound by somebody else, or condemned. None if there is nothing
/// to bind. The batch is over when no slot is left without an instance; else its next attempt is for the rest.
pub fn bind(
    view: &PoolView,
    batch: &Batch,
    launched: &[(InstanceId, Timestamp)],
    taken: &BTreeSet<InstanceId>,
    cause: Cause,
    now: Timestamp,
    lease: Timestamp,
) -> Option<Transaction> {
    let mut instances: Vec<_> = launched.iter().filter(|(id, _)| !taken.contains(id)).collect();
    instances.sort();
    let free: Vec<&Slot> = view.planned(batch.version).collect();
    let bound: Vec<(Slot, Instance)> = free
        .iter()
        .zip(&instances)
        .map(|(slot, (id, launched_at))| {
            let machine = Machine { instance: id.clone(), launched_at: *launched_at };
            let mut slot = Slot { state: SlotState::Launched(machine), ..(*slot).clone() }.owing_registration(lease);
            slot.tries = 0;
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
        writes.put(Batch { count: left as u32, ..next(batch, now) })
    };
    Some(writes.told(Stream::Pool(view.meta.pool.clone()), cause, what, now))
}

/// The batch's next attempt, untried.
fn next(batch: &Batch, now: Timestamp) -> Batch {
    Batch { attempt: batch.attempt + 1, tries: 0, next_at: now, missing_since: None, ..batch.clone() }
}

/// EC2's error codes, by what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// Not here, not now: try another tuple.
    Capacity,
    /// The account's limit: no other zone will help.
    Quota,
    /// Too many calls: the same call again, later.
    Throttled,
    /// It cannot work as configured.
    Configuration,
    /// Perhaps it did launch. Everything that is not known to be one of the others.
    Ambiguous,
}

impl ErrorClass {
    /// What follows from an error code of RunInstances. The codes are those of EC2's API reference ("Error codes for the
    /// Amazon EC2 API"); whatever is not known to be a refusal may have launched.
    pub fn of(code: &str) -> Self {
        match code {
            "InsufficientInstanceCapacity"
            | "InsufficientHostCapacity"
            | "InsufficientReservedInstanceCapacity"
            | "InsufficientFreeAddressesInSubnet"
            | "InsufficientCapacity"
            | "UnfulfillableCapacity"
            | "Unsupported"
            | "SpotMaxPriceTooLow"
            | "ReservationCapacityExceeded" => ErrorClass::Capacity,
            "VcpuLimitExceeded" | "InstanceLimitExceeded" | "MaxSpotInstanceCountExceeded" | "PendingVerification" => {
                ErrorClass::Quota
            }
            "RequestLimitExceeded" => ErrorClass::Throttled,
            "UnauthorizedOperation"
            | "OptInRequired"
            | "Blocked"
            | "AuthFailure"
            | "MissingParameter"
            | "InvalidSubnetID.NotFound"
            | "InvalidGroup.NotFound"
            | "InvalidKeyPair.NotFound"
            | "InvalidUserData.Malformed" => ErrorClass::Configuration,
            _ if code.starts_with("Throttling") => ErrorClass::Throttled,
            _ if ["InvalidAMIID.", "InvalidLaunchTemplate", "InvalidParameter", "InvalidBlockDeviceMapping"]
                .iter()
                .any(|prefix| code.starts_with(prefix)) =>
            {
                ErrorClass::Configuration
            }
            _ => ErrorClass::Ambiguous,
        }
    }
}

/// What a definitive refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedFor {
    /// This way to launch has no machines now.
    Capacity,
    /// The account's quota for the market is used up.
    Quota,
    /// It cannot work as configured.
    Configuration,
}

/// What EC2 said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it is about.
    pub about: RefusedFor,
    /// EC2's code.
    pub code: String,
    /// EC2's message.
    pub message: String,
}

/// Follows a definitive refusal of the batch's present attempt: remembers it, and goes on with the next way to launch, for
/// as many as are needed now. Where no way is left for now the batch waits; where it can never work it is given up and the
/// pool's circuit opens.
#[expect(clippy::too_many_arguments, reason = "each is another thing; a struct of them would be used here only")]
pub fn refused(
    pool: &Pool,
    view: &PoolView,
    batch: &Batch,
    tuple: &Tuple,
    why: Refused,
    cause: Cause,
    now: Timestamp,
    lease: Timestamp,
) -> Transaction {
    let mut meta = view.meta.clone();
    let mut batch = batch.clone();
    match why.about {
        RefusedFor::Capacity => cool_down(&mut meta, tuple, &why, now),
        RefusedFor::Quota => {
            meta.pauses.retain(|pause| pause.market != tuple.market);
            meta.pauses.push(Pause {
                market: tuple.market,
                until: now + QUOTA_PAUSE,
                code: why.code.clone(),
                message: why.message.clone(),
            });
        }
        RefusedFor::Configuration => open_circuit(&mut meta, pool, why.code.clone(), why.message.clone(), now),
    }
    batch.refusals.push(Refusal {
        at: now,
        tuple: tuple.clone(),
        code: why.code.clone(),
        message: why.message.clone(),
    });
    let excess = batch.refusals.len().saturating_sub(REFUSALS_KEPT);
    batch.refusals.drain(..excess);
    let told = |next: Option<&Batch>| What::Refused {
        version: batch.version,
        attempt: batch.attempt,
        tuple: tuple.clone(),
        code: why.code.clone(),
        message: why.message.clone(),
        next: next.and_then(|batch| batch.tuple.clone()),
    };
    go_on(pool, view, meta, &batch, why.about != RefusedFor::Configuration, told, cause, now, lease)
}

/// Goes on with a batch whose every way was cooling down when it was last looked at. None while nothing has changed.
pub fn resumed(
    pool: &Pool,
    view: &PoolView,
    batch: &Batch,
    cause: Cause,
    now: Timestamp,
    lease: Timestamp,
) -> Transaction {
    let told = |next: Option<&Batch>| What::Resumed {
        version: batch.version,
        attempt: batch.attempt + 1,
        next: next.and_then(|batch| batch.tuple.clone()),
    };
    go_on(pool, view, view.meta.clone(), batch, true, told, cause, now, lease)
}

#[expect(clippy::too_many_arguments, reason = "the two callers above are the whole of its interface")]
fn go_on(
    pool: &Pool,
    view: &PoolView,
    meta: Meta,
    batch: &Batch,
    worth_trying: bool,
    told: impl FnOnce(Option<&Batch>) -> What,
    cause: Cause,
    now: Timestamp,
    lease: Timestamp,
) -> Transaction {
    let mut planned: Vec<Slot> = view.planned(batch.version).cloned().collect();
    let others = view.supply(now).count() - planned.len();
    let warm = if pool.draining { 0 } else { pool.warm as usize };
    let needed = if worth_trying { (view.demand(now) + warm).saturating_sub(others).min(planned.len()) } else { 0 };
    // The last ones go: those are the warm ones, if there are any.
    let closing = planned.split_off(needed);
    let refunds = refund(view, batch, closing.iter().filter(|slot| slot.wanted).count());
    let following = (needed > 0).then(|| {
        let tuple = choose_tuple(pool, &meta, now);
        let next_at = if tuple.is_some() { lease } else { next_free(pool, &meta, now) };
        Batch { count: needed as u32, tries: u32::from(tuple.is_some()), tuple, next_at, ..next(batch, now) }
    });
    let what = told(following.as_ref());
    let stream = Stream::Pool(meta.pool.clone());
    let writes = Transaction::new().put(meta).put_all(refunds);
    let writes = match following {
        Some(following) => writes.put(following),
        None => writes.delete(batch.clone()),
    };
    let writes = closing.into_iter().fold(writes, Transaction::delete);
    writes.told(stream, cause, what, now)
}

/// EC2 had too many calls. Nothing was launched: the same attempt, with the same token, is due later, and until then no
/// other launch of the pool is tried either.
pub fn throttled(view: &PoolView, batch: &Batch, now: Timestamp) -> Transaction {
    let last = view.meta.throttled.as_ref().filter(|last| now.duration_since(last.until) < THROTTLE_FORGOTTEN_AFTER);
    // Launches that were under way together are refused together: that is one throttling and not several.
    if let Some(last) = last.filter(|last| last.until > now) {
        return Transaction::new().put(Batch { next_at: last.until, ..batch.clone() });
    }
    let times = last.map_or(1, |last| last.times.saturating_add(1));
    let until = now + throttle_backoff(times, &batch.tag().to_string());
    let meta = Meta { throttled: Some(Throttle { until, times }), ..view.meta.clone() };
    Transaction::new().put(meta).put(Batch { next_at: until, ..batch.clone() })
}

fn next_free(pool: &Pool, meta: &Meta, now: Timestamp) -> Timestamp {
    pool.tuples().iter().map(|tuple| tuple_free_at(meta, tuple, now)).min().unwrap_or(now + COOLDOWN_MAX)
}

fn cool_down(meta: &mut Meta, tuple: &Tuple, why: &Refused, now: Timestamp) {
    let last = meta.cooldowns.iter().find(|cooling| cooling.tuple == *tuple);
    let seconds = last.map_or(COOLDOWN_MIN.as_secs(), |last| (last.seconds * 2).min(COOLDOWN_MAX.as_secs()));
    // A cool-down is remembered as long again as the longest one lasts: what it must double is the last one of a bad time.
    meta.cooldowns.retain(|cooling| cooling.tuple != *tuple && now.duration_since(cooling.until) < COOLDOWN_MAX);
    meta.cooldowns.push(Cooldown {
        tuple: tuple.clone(),
        until: now + SignedDuration::from_secs(seconds),
        seconds,
        code: why.code.clone(),
    });
}

/// Opens the pool's circuit, or keeps it open for twice as long as the last time.
pub fn open_circuit(meta: &mut Meta, pool: &Pool, code: String, message: String, now: Timestamp) {
    let (since, backoff_seconds) = match &meta.circuit {
        Circuit::Closed => (now, pool.timings.backoff_min.duration().as_secs()),
        Circuit::Open { since, backoff_seconds, .. } => (*since, *backoff_seconds),
    };
    let until = now + SignedDuration::from_secs(backoff_seconds);
    meta.circuit = Circuit::Open { until, backoff_seconds, since, code, message };
}

/// Gives back what slots that were never launched were charged.
fn refund(view: &PoolView, batch: &Batch, slots: usize) -> Vec<WaitingJob> {
    let mut charged: Vec<&WaitingJob> =
        view.waiting.values().filter(|job| job.launches.contains(&batch.planned_at)).collect();
    charged.sort_by_key(|job| std::cmp::Reverse((job.queued_at, job.id)));
    charged
        .into_iter()
        .take(slots)
        .map(|job| {
            let mut job = job.clone();
            job.launches.retain(|at| *at != batch.planned_at);
            job
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::ErrorClass;

    #[test]
    fn every_code_has_its_class_and_an_unknown_one_may_have_launched() {
        let classes = [
            (
                ErrorClass::Capacity,
                "InsufficientInstanceCapacity InsufficientHostCapacity \
                InsufficientReservedInstanceCapacity InsufficientFreeAddressesInSubnet UnfulfillableCapacity \
                Unsupported SpotMaxPriceTooLow ReservationCapacityExceeded",
            ),
            (
                ErrorClass::Quota,
                "VcpuLimitExceeded InstanceLimitExceeded MaxSpotInstanceCountExceeded PendingVerification",
            ),
            (ErrorClass::Throttled, "RequestLimitExceeded Throttling ThrottlingException"),
            (
                ErrorClass::Configuration,
                "InvalidAMIID.NotFound InvalidAMIID.Unavailable InvalidLaunchTemplateId.NotFound \
                InvalidLaunchTemplateName.NotFoundException InvalidLaunchTemplateId.VersionNotFound \
                UnauthorizedOperation InvalidParameterValue InvalidParameterCombination OptInRequired Blocked",
            ),
            (
                ErrorClass::Ambiguous,
                "InternalError Unavailable ServiceUnavailable IdempotentParameterMismatch TimedOut \
                NotSent SomethingNewIn2031",
            ),
        ];
        for (expected, codes) in classes {
            for code in codes.split_whitespace() {
                assert_eq!(ErrorClass::of(code), expected, "{code}");
            }
        }
    }
}
