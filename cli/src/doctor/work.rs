//! Checks of the pools at work: circuits, refusals, stuck launches, jobs that wait too long, and GitHub's rate limits.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::PoolName;
use domain::policy::PoolView;
use domain::policy::due::is_being_retired;
use domain::policy::launch_error::is_lack_of_capacity;
use domain::state::{Answer, Circuit, Config, Item, Key, Slot, SlotState};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;

use super::report::{Group, Level};
use super::subject::{MaybeConfig, Subject};
use crate::classes::{Part, parts};
use crate::describe;
use crate::output::{age, count};
use crate::read;

/// EC2 stops a machine within this time.
const STOPS_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// A machine that is to end and is not busy ends within this time.
const ENDS_WITHIN: SignedDuration = SignedDuration::from_mins(15);

const CHECKS: &[&str] = &[
    "state",
    "circuits",
    "quota",
    "capacity",
    "EC2's answers",
    "machines",
    "launches",
    "paused pools",
    "waiting jobs",
    "ending machines",
    "GitHub's limits",
];

pub(super) fn none() -> Group {
    Group::new("pools at work", CHECKS)
}

/// The state of each pool, or why it cannot be read. Nothing if no pool is known.
pub(super) type Views = BTreeMap<PoolName, Result<PoolView, String>>;

pub(super) async fn views(subject: &Subject<'_>, config: MaybeConfig<'_>) -> Views {
    let mut views = Views::new();
    let (Ok(table), Some(config)) = (subject.table.as_ref(), config) else { return views };
    for pool in &config.pools {
        let view = match read::state(*table, &pool.name).await {
            Ok(view) => view.ok_or_else(|| "it has no state".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        views.insert(pool.name.clone(), view);
    }
    views
}

pub(super) async fn work(subject: &Subject<'_>, config: MaybeConfig<'_>, views: &Views) -> Group {
    let mut group = none();
    let Some(config) = config else { return group };
    if let Ok(table) = &subject.table {
        let mut problems = Problems::new();
        for pool in &config.pools {
            match views.get(&pool.name) {
                Some(Ok(view)) => problems.add(pool, view, subject.now),
                Some(Err(why)) => problems.unread.push(format!("pool {}: {why}", pool.name)),
                None => {}
            }
        }
        problems.report(&mut group, config.pools.len());
        limits(&mut group, subject, table, config).await;
    }
    group
}

/// Problems of all pools, by check.
struct Problems {
    /// Of EC2's refusals: a failure if jobs wait because of them.
    refusals: Level,
    unread: Vec<String>,
    circuits: Vec<String>,
    quota: Vec<String>,
    capacity: Vec<String>,
    answers: Vec<String>,
    machines: Vec<String>,
    launches: Vec<String>,
    /// Pools with waiting jobs that launch nothing because an operator paused them.
    paused: BTreeMap<PoolName, String>,
    waiting: Vec<String>,
    ending: Vec<String>,
    /// Machines that are not stopped. None if no pool keeps any.
    stopped: Option<Vec<String>>,
}

impl Problems {
    fn new() -> Self {
        Self {
            refusals: Level::Warn,
            unread: Vec::new(),
            circuits: Vec::new(),
            quota: Vec::new(),
            capacity: Vec::new(),
            answers: Vec::new(),
            machines: Vec::new(),
            launches: Vec::new(),
            paused: BTreeMap::new(),
            waiting: Vec::new(),
            ending: Vec::new(),
            stopped: None,
        }
    }

    fn add(&mut self, pool: &Pool, view: &PoolView, now: Timestamp) {
        let name = &pool.name;
        let parts = parts(pool, view);
        for part in &parts {
            if let Circuit::Open { since, cause, message, .. } = &part.view.meta.circuit {
                let title = part.title();
                self.circuits.push(format!("{title} launches only probes since {since:.0}: {cause}: {message}"));
            }
            self.add_answers(part, now);
        }
        for pause in view.meta.pauses.iter().filter(|pause| pause.until > now) {
            self.quota.push(format!("pool {name}: {}: {}", pause.code, pause.message));
        }
        for cooldown in view.meta.cooldowns.iter().filter(|cooldown| cooldown.until > now) {
            self.capacity
                .push(format!("pool {name}: {}: {} until {:.0}", cooldown.tuple, cooldown.code, cooldown.until));
        }
        let is_refused = view.meta.cooldowns.iter().any(|cooldown| cooldown.until > now);
        let waits_for =
            |part: &Part| part.view.is_short(now) && (is_refused || !part.view.latest_answers(now).is_empty());
        if parts.iter().any(waits_for) {
            self.refusals = Level::Fail;
        }
        for batch in view.batches.values().filter(|batch| batch.is_stuck()) {
            self.launches.push(format!("launch {} was tried {} times", batch.tag(), batch.lease.tries));
        }
        let is_blocked = pool.paused && view.is_short(now);
        if is_blocked {
            let jobs = view.waiting.values().filter(|job| job.is_demand(now)).count();
            let jobs = format!("{} {}", count(jobs, "job"), if jobs == 1 { "waits" } else { "wait" });
            self.paused.insert(name.clone(), format!("pool {name} is paused, and {jobs}"));
        }
        let too_long = pool.timings.notice_after.duration();
        for job in view.waiting.values().filter(|job| job.given_up(now).is_some()) {
            let (id, repository) = (job.id, &job.repository);
            self.waiting.push(format!("nothing is launched any more for job {id} of {repository} in pool {name}"));
        }
        let waiting = view.waiting.values().filter(|job| job.given_up(now).is_none());
        // In a paused pool only its resumption helps.
        for job in waiting.filter(|job| !is_blocked && job.open && now.duration_since(job.waits_since()) >= too_long) {
            let waited = age(now.duration_since(job.waits_since()));
            self.waiting.push(format!("job {} of {} in pool {name}, for {waited}", job.id, job.repository));
        }
        self.add_not_stopped(pool, view, now);
        for slot in view.slots.values().filter(|slot| is_being_retired(slot)) {
            let (Some(stop), Some(machine)) = (&slot.stop, slot.machine()) else { continue };
            let tried = now.duration_since(stop.at);
            if tried >= ENDS_WITHIN {
                self.ending.push(format!(
                    "{} of pool {name}, {} for {}: GitHub does not confirm that its runner is deregistered, or EC2 does not end it",
                    machine.instance, stop.why, age(tried)
                ));
            }
        }
    }

    /// Machines that were set aside, and that EC2 does not show as stopped.
    fn add_not_stopped(&mut self, pool: &Pool, view: &PoolView, now: Timestamp) {
        let since = |slot: &Slot| match &slot.state {
            SlotState::Prepared(machine) => machine.stopped_at,
            SlotState::Planned
            | SlotState::Launched(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_)
            | SlotState::Configured { .. }
            | SlotState::Online { .. }
            | SlotState::Busy { .. }
            | SlotState::Done { .. } => None,
        };
        let open = view.slots.values().filter(|slot| slot.is_live() && slot.stop.is_none() && !slot.held);
        let late: Vec<Timestamp> =
            open.filter_map(since).filter(|at| now.duration_since(*at) >= STOPS_WITHIN).collect();
        if pool.has_stopped() || !late.is_empty() {
            let problems = self.stopped.get_or_insert_default();
            problems.extend(late.iter().min().map(|oldest| {
                let (machines, longest) = (count(late.len(), "machine"), age(now.duration_since(*oldest)));
                format!("pool {}: EC2 has not stopped {machines}, for up to {longest}", pool.name)
            }));
        }
    }

    /// EC2's refusals, and machines that did not come online.
    fn add_answers(&mut self, part: &Part, now: Timestamp) {
        let (title, view) = (part.title(), &part.view);
        let refusals = view.latest_answers(now).into_iter().filter(|answer| !is_lack_of_capacity(&answer.code));
        for Answer { at, tuple, code, message } in refusals {
            let ago = age(now.duration_since(*at));
            self.answers.push(format!("{title}: {tuple}: {code}: {message} ({ago} ago)"));
        }
        for failure in view.latest_failures(now) {
            let ago = age(now.duration_since(failure.at));
            self.machines.push(format!("{title}, {ago} ago: {}", describe::failure(failure)));
        }
    }

    fn report(self, group: &mut Group, pools: usize) {
        let fine = format!("{} read", count(pools, "pool"));
        group.conclude("state", Level::Fail, &self.unread, fine, "drover pools apply FILE");
        let remedy = "fix what the message says, then drover resume POOL launches a probe at once";
        group.conclude("circuits", Level::Fail, &self.circuits, "closed", remedy);
        let remedy = "request a higher quota (Service Quotas, EC2), then drover resume POOL; or lower the pool's max";
        group.conclude("quota", Level::Fail, &self.quota, "no recent refusals by EC2", remedy);
        let remedy = "if it persists, give the pool more instance types or subnets";
        group.conclude("capacity", self.refusals, &self.capacity, "no recent refusals by EC2", remedy);
        let remedy = "fix what the message says; meanwhile the other launch options are tried";
        group.conclude("EC2's answers", self.refusals, &self.answers, "no other refusals in the last hour", remedy);
        let remedy = "fix what EC2 says or the console shows; drover logs INSTANCE has the whole console";
        group.conclude("machines", Level::Warn, &self.machines, "none failed to come online in the last hour", remedy);
        let remedy = "drover pools shows EC2's answer";
        group.conclude("launches", Level::Fail, &self.launches, "none stuck", remedy);
        let pool = self.paused.keys().next().filter(|_| self.paused.len() == 1);
        let remedy = format!("drover resume {}", pool.map_or("POOL", |pool| pool.as_str()));
        let paused: Vec<String> = self.paused.into_values().collect();
        group.conclude("paused pools", Level::Warn, &paused, "none with waiting jobs", &remedy);
        group.conclude(
            "waiting jobs",
            Level::Warn,
            &self.waiting,
            "none waits too long",
            "drover explain JOB says why; drover forget JOB removes a job that GitHub calls queued for ever",
        );
        let remedy = "the scaler's log says why; the machine is ended at max_life in any case, or now with drover retire \
                      INSTANCE --force";
        group.conclude("ending machines", Level::Warn, &self.ending, "none is stuck", remedy);
        let remedy = "the scaler's log has EC2's answer; if the permission ec2:StopInstances is missing, run make infrastructure \
                      and make deploy";
        if let Some(stopped) = &self.stopped {
            group.conclude("stopped machines", Level::Warn, stopped, "EC2 stops them in time", remedy);
        }
    }
}

async fn limits(group: &mut Group, subject: &Subject<'_>, table: &Table, config: &Config) {
    let owners: BTreeSet<_> = config.pools.iter().map(|pool| pool.owner.owner()).collect();
    let mut problems = Vec::new();
    for owner in owners {
        match table.get(&Key::Limit(owner.clone())).await {
            Ok(Some(Item::Limit(limit))) if limit.backoff_until > subject.now => {
                problems.push(format!("no calls for {owner} until {:.0}: {}", limit.backoff_until, limit.why));
            }
            Ok(_) => {}
            Err(error) => problems.push(format!("{owner}: {error}")),
        }
    }
    let remedy = "wait; if it happens again, check whether other software uses this app, or whether one account has more \
                  jobs than one app can serve";
    group.conclude("GitHub's limits", Level::Warn, &problems, "not reached", remedy);
}

#[cfg(test)]
mod tests {
    use domain::state::Slot;
    use serde_json::json;

    use super::*;
    use crate::aside::fixtures::{noon, pool, slot, view};

    fn not_stopped(more: &str, slots: &[Slot]) -> Option<Vec<String>> {
        let mut problems = Problems::new();
        problems.add(&pool(more), &view(slots.to_vec()), noon());
        problems.stopped
    }

    #[test]
    fn machines_that_ec2_does_not_stop_are_reported_after_ten_minutes() {
        let since = |version, state: &str, at: &str| slot(version, state, &json!({ "stopped_at": at }));
        let slots = [
            since(1, "prepared", "2026-11-02T11:50:01Z"),
            since(2, "stopped", "2026-11-02T11:30:00Z"),
            since(3, "prepared", "2026-11-02T11:50:00Z"),
            since(4, "prepared", "2026-11-02T11:45:00Z"),
        ];
        assert_eq!(not_stopped("stopped = 5", &slots[..2]), Some(vec![]));
        let expected = "pool linux: EC2 has not stopped 2 machines, for up to 15m 0s";
        assert_eq!(not_stopped("stopped = 5", &slots), Some(vec![expected.to_owned()]));
        assert_eq!(not_stopped("", &slots), Some(vec![expected.to_owned()]), "the pool keeps none any more");
        assert_eq!(not_stopped("warm = 1", &[]), None, "the check is left out");
        let held = slot(4, "prepared", &json!({ "stopped_at": "2026-11-02T11:45:00Z", "held": true }));
        assert_eq!(not_stopped("stopped = 5", &[held]), Some(vec![]));
    }
}
