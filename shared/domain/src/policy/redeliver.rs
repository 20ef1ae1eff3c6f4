//! Which failed webhook deliveries are requested again.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::ids::DeliveryId;
use crate::state::{DeliveryReading, Janitor, Undelivered};
use crate::wire::DeliveryAttempt;

/// GitHub keeps deliveries for three days.
const DELIVERIES_KEPT: SignedDuration = SignedDuration::from_hours(3 * 24);

/// How far a listing reaches back before the newest examined delivery. GitHub orders the list by the time of the attempt,
/// and an attempt may appear in it late.
const OVERLAP: SignedDuration = SignedDuration::from_mins(1);

/// After this many redeliveries, only the search of the repositories can find the job.
const MAX_REDELIVERIES: u32 = 3;

/// The wait after the first and after the second redelivery, unless another delivery has succeeded since.
const REDELIVER_AFTER: [SignedDuration; 2] = [SignedDuration::from_mins(10), SignedDuration::from_mins(60)];

/// A request costs five of GitHub's 900 points per minute.
const REDELIVERIES_PER_SWEEP: usize = 60;

/// The largest number of remembered events. They are stored in one item, and DynamoDB allows 400 KB.
const MAX_UNDELIVERED: usize = 500;

/// The time from which deliveries are listed; None while GitHub must not be called.
pub fn list_since(memory: &Janitor, now: Timestamp) -> Option<Timestamp> {
    if memory.app_backoff_until.is_some_and(|until| until > now) {
        return None;
    }
    Some(memory.examined_to.map_or(now - DELIVERIES_KEPT, |newest| newest - OVERLAP))
}

/// Remembers the events of which every attempt failed, and forgets those of which one succeeded. `attempts` is everything
/// since the time that [`list_since`] returned.
pub fn examine(memory: &mut Janitor, attempts: &[DeliveryAttempt], now: Timestamp) {
    let begun = memory.unread_deliveries.take().map(|unread| unread.newest);
    note(memory, attempts);
    let newest = attempts.iter().map(|attempt| attempt.delivered_at).max();
    memory.examined_to = memory.examined_to.max(begun.or(newest)).or(Some(now));
    let again = forget(memory, now);
    memory.examined_to = again.into_iter().chain(memory.examined_to).min();
}

/// The same for the first of several parts: the next sweep goes on at the cursor `from`. An event may be requested again
/// although a later part would show that it was delivered; that does no harm.
pub fn examine_part(memory: &mut Janitor, attempts: &[DeliveryAttempt], from: String, now: Timestamp) {
    let begun = memory.unread_deliveries.take().map(|unread| unread.newest);
    note(memory, attempts);
    let newest = attempts.iter().map(|attempt| attempt.delivered_at).max();
    let newest = begun.or(newest).unwrap_or(now);
    let newest = forget(memory, now).map_or(newest, |again| newest.min(again));
    memory.unread_deliveries = Some(DeliveryReading { from, newest });
}

fn note(memory: &mut Janitor, attempts: &[DeliveryAttempt]) {
    let mut events: BTreeMap<&DeliveryId, Vec<&DeliveryAttempt>> = BTreeMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.about_a_job) {
        events.entry(&attempt.guid).or_default().push(attempt);
    }
    for (guid, attempts) in events {
        if attempts.iter().any(|attempt| attempt.succeeded) {
            memory.undelivered.remove(guid);
        } else if let Some(first) = attempts.iter().find(|attempt| !attempt.redelivery) {
            let failed_at = first.delivered_at;
            let fresh = Undelivered { attempt: first.id, failed_at, redeliveries: 0, asked_at: None };
            memory.undelivered.entry(guid.clone()).or_insert(fresh);
        }
    }
    let succeeded = attempts.iter().filter(|attempt| attempt.succeeded).map(|attempt| attempt.delivered_at).max();
    memory.delivered_at = memory.delivered_at.max(succeeded);
}

/// Forgets events that GitHub no longer has or will not list again, and the newest ones above the limit. Returns the time from
/// which those must be listed again.
fn forget(memory: &mut Janitor, now: Timestamp) -> Option<Timestamp> {
    let listed_from = memory.examined_to.map_or(now, |newest| newest - OVERLAP);
    memory.undelivered.retain(|_, event| {
        event.failed_at >= now - DELIVERIES_KEPT
            && (event.redeliveries < MAX_REDELIVERIES || event.failed_at >= listed_from)
    });
    let mut again = None;
    while memory.undelivered.len() > MAX_UNDELIVERED {
        let newest = memory.undelivered.iter().max_by_key(|(_, event)| event.failed_at);
        let Some((guid, failed_at)) = newest.map(|(guid, event)| (guid.clone(), event.failed_at)) else { break };
        memory.undelivered.remove(&guid);
        again = Some(failed_at);
    }
    again
}

/// The events to redeliver in this sweep, oldest failure first.
pub fn due(memory: &Janitor, now: Timestamp) -> Vec<DeliveryId> {
    let mut due: Vec<(Timestamp, &DeliveryId)> = memory
        .undelivered
        .iter()
        .filter(|(_, event)| is_due(event, memory.delivered_at, now))
        .map(|(guid, event)| (event.failed_at, guid))
        .collect();
    due.sort();
    due.into_iter().take(REDELIVERIES_PER_SWEEP).map(|(_, guid)| guid.clone()).collect()
}

fn is_due(event: &Undelivered, delivered_at: Option<Timestamp>, now: Timestamp) -> bool {
    let Some(asked_at) = event.asked_at else { return event.redeliveries < MAX_REDELIVERIES };
    let Some(last) = event.redeliveries.checked_sub(1) else { return true };
    let wait = REDELIVER_AFTER.get(last as usize);
    let works_again = delivered_at.is_some_and(|at| at > asked_at + OVERLAP);
    wait.is_some_and(|wait| works_again || now.duration_since(asked_at) >= *wait)
}

impl Undelivered {
    /// A redelivery was requested.
    pub fn requested(&mut self, now: Timestamp) {
        self.redeliveries += 1;
        self.asked_at = Some(now);
    }

    /// GitHub refuses to redeliver the event. The search of the repositories finds its job.
    pub fn refused(&mut self, now: Timestamp) {
        self.redeliveries = MAX_REDELIVERIES;
        self.asked_at = Some(now);
    }
}
