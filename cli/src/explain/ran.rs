//! Where and how long a job ran, what its wait consisted of, and what its machine cost.

use domain::config::{MicroUsd, Tuple};
use domain::ids::{InstanceId, JobId, PoolName, SlotId};
use domain::log::{After, Choice, Event, Stream, What};
use domain::state::{BootReport, Item, Job, Key, Ownership, Usage};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::aside::Aside;
use crate::output::{Failure, age, count};

/// The end of a machine.
#[derive(Debug, Default)]
pub(super) struct End {
    /// None before its end, or if its price is unknown.
    cost: Option<MicroUsd>,
    /// The price per hour that was recorded when its launch was decided. Only in a pool that needs prices.
    price: Option<MicroUsd>,
    /// When EC2 announced that it takes the machine.
    reclaimed_at: Option<Timestamp>,
    /// What the machine reported about its boot, and when it was launched. None before its end, and if it has not reported.
    boot: Option<(BootReport, Timestamp)>,
    /// What the machine reported that its job used. None in the same cases.
    usage: Option<Usage>,
    is_closed: bool,
}

impl End {
    pub(super) fn price(&self) -> Option<MicroUsd> {
        self.price
    }

    pub(super) fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// Why nothing is known of what the job used, in a pool whose machines measure it.
    pub(super) fn without_usage(&self, job: &Job) -> Option<&'static str> {
        let is_missing =
            self.is_closed && self.usage.is_none() && job.started_at.is_some() && job.completed_at.is_some();
        is_missing.then_some(
            "Its machine reported no usage: it ended abnormally, its image has an agent that measures nothing, the stack has \
             no reports table, its report was invalid, or usage = true was set after the machine was registered.",
        )
    }
}

pub(super) async fn end(table: &impl Store, id: &InstanceId) -> Result<End, Failure> {
    match table.get(&Key::Instance(id.clone())).await? {
        Some(Item::Instance(instance)) => {
            let (cost, price) = (instance.cost_micro_usd, instance.price_per_hour);
            let boot = instance.boot.map(|report| (report, instance.launched_at));
            let is_closed = matches!(instance.ownership, Ownership::Closed { .. });
            let (reclaimed_at, usage) = (instance.interrupted_at, instance.usage);
            Ok(End { cost, price, reclaimed_at, boot, usage, is_closed })
        }
        _ => Ok(End::default()),
    }
}

/// The outcome of the re-run of a job whose machine was lost.
pub(super) fn rerun(events: &[Event], job: JobId) -> Option<&str> {
    events.iter().rev().find_map(|event| match &event.what {
        What::Rerun { job: of, outcome } if *of == job => Some(outcome.as_str()),
        _ => None,
    })
}

/// Where the job ran. `unknown` is why no machine is known for its runner.
pub(super) fn ran_on(job: &Job, machine: Option<&InstanceId>, unknown: &str) -> String {
    match (&job.runner, machine) {
        (Some(_), Some(instance)) => format!("on {instance}"),
        (Some(runner), None) => format!("on {}, {unknown}", runner.name),
        (None, _) => "without a runner".to_owned(),
    }
}

/// Where and how long the job ran, what its wait consisted of, and what its machine cost. `on` is from [`ran_on`].
pub(super) fn how_it_ran(
    job: &Job,
    on: &str,
    end: &End,
    rerun: Option<&str>,
    parts: &[Part],
    now: Timestamp,
) -> Vec<String> {
    let conclusion = job.conclusion.as_deref().unwrap_or("no conclusion");
    let mut sentences = vec![match (job.started_at, job.completed_at) {
        (Some(started), None) => format!("The job has been running {on} for {}.", age(now.duration_since(started))),
        (Some(started), Some(ended)) if job.runner.is_some() => {
            format!("The job ran {on} for {}: {conclusion}.", age(ended.duration_since(started)))
        }
        (_, Some(_)) => format!("The job ended before a runner took it: {conclusion}."),
        (None, None) => format!("The job is running {on}."),
    }];
    // An interruption that comes after the end of the job did it no harm.
    let reclaimed_at = end.reclaimed_at.filter(|at| job.completed_at.is_none_or(|ended| *at <= ended));
    sentences.extend(reclaimed_at.map(|at| format!("EC2 reclaimed the machine at {at:.0}.")));
    sentences.extend(rerun.map(|outcome| format!("Its machine was lost: {outcome}.")));
    if !parts.is_empty() {
        let parts: Vec<String> =
            parts.iter().map(|part| format!("{:.1} s until {}", part.seconds, part.until)).collect();
        sentences.push(format!("It waited {}.", parts.join(", ")));
    }
    sentences.extend(end.boot.map(|(report, launched_at)| {
        format!(
            "Its machine reported {} after its launch that it had booted, {} after its kernel began.",
            age(report.reported_at.duration_since(launched_at).max(SignedDuration::ZERO)),
            age(SignedDuration::from_secs(report.uptime_seconds.into())),
        )
    }));
    sentences.extend(end.cost.map(|cost| match end.price {
        Some(price) => format!("Its machine cost {cost}, at {price} per hour when its launch was decided."),
        None => format!("Its machine cost {cost} at the on-demand list price."),
    }));
    sentences
}

/// The launch option that the job's machine was launched with.
#[derive(Clone, Copy)]
pub(super) struct LaunchedAs<'a> {
    pub(super) tuple: &'a Tuple,
    /// How the first option was chosen.
    choice: Option<&'a Choice>,
    /// How many options EC2 refused before this one.
    refused: usize,
}

impl LaunchedAs<'_> {
    /// The option with the recorded price of its machine, and why it was tried before others.
    pub(super) fn described(&self, price: Option<MicroUsd>) -> String {
        let Self { tuple, choice, refused } = self;
        let price = price.map(|price| format!(", {price} per hour")).unwrap_or_default();
        let why = match (choice, refused) {
            (_, 1..) => format!(", after EC2 refused {}", count(*refused, "other")),
            (Some(Choice { options: 1, .. }), _) => ", the only launch option".to_owned(),
            (Some(Choice { options, passed: 0, .. }), _) => format!(", the first of {options} launch options"),
            (Some(Choice { options, passed, .. }), _) => {
                format!(", number {} of {options} launch options", passed + 1)
            }
            (None, _) => String::new(),
        };
        format!("{tuple}{price}{why}")
    }
}

/// None if the job did not run on one of Drover's runners, or its events are gone.
pub(super) fn launched_as<'a>(events: &'a [Event], slot: SlotId) -> Option<LaunchedAs<'a>> {
    let own = Key::Slot(events.first().and_then(pool_of)?, slot).to_string();
    // An attempt that EC2 refused was followed by one with another option.
    let until_bound = events.iter().take_while(|event| !is_bound(event, slot));
    until_bound.fold(None, |last: Option<LaunchedAs<'a>>, event| match &event.what {
        What::Decided { tuple: Some(tuple), choice, launch: 1.., .. } if event.after.iter().any(|it| it.key == own) => {
            Some(LaunchedAs { tuple, choice: choice.as_ref(), refused: 0 })
        }
        What::Refused { version, next, .. } if *version == slot.version => last.map(|last| LaunchedAs {
            tuple: next.as_ref().unwrap_or(last.tuple),
            refused: last.refused + 1,
            ..last
        }),
        What::Resumed { version, next: Some(tuple), .. } if *version == slot.version => {
            last.map(|last| LaunchedAs { tuple, ..last })
        }
        _ => last,
    })
}

fn pool_of(event: &Event) -> Option<PoolName> {
    match &event.stream {
        Stream::Pool(pool) => Some(pool.clone()),
        Stream::Stack => None,
    }
}

fn is_bound(event: &Event, slot: SlotId) -> bool {
    matches!(&event.what, What::Bound { version, .. } if *version == slot.version)
}

/// A part of a job's wait, up to an event.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    until: &'static str,
    seconds: f64,
}

/// The parts of the job's wait, if it ran on one of Drover's runners.
pub(super) fn parts(events: &[Event], job: &Job) -> Vec<Part> {
    let Some(runner) = &job.runner else { return Vec::new() };
    let registered = events.iter().find_map(|event| match &event.what {
        What::HandedOver { slot, runner_name } if *runner_name == runner.name => Some((event.at, *slot)),
        _ => None,
    });
    let Some((registered_at, slot)) = registered else { return Vec::new() };
    let bound = events.iter().find_map(|event| match &event.what {
        What::Bound { version, .. } if *version == slot.version => Some(event.at),
        _ => None,
    });
    let started = Aside::of(events, &Key::Slot(job.pool.clone(), slot)).started_at;
    let marks = [
        ("Drover recorded it", Some(job.first_seen_at)),
        ("EC2 launched the machine", bound),
        ("Drover started the stopped machine", started),
        ("the runner was registered", Some(registered_at)),
        ("the runner took the job", job.started_at),
    ];
    let mut since = job.queued_at;
    let mut parts = Vec::new();
    for (until, at) in marks {
        // A machine that was ready before the job was queued did not delay it.
        let Some(at) = at.filter(|at| *at > since) else { continue };
        parts.push(Part { until, seconds: at.duration_since(since).as_secs_f64() });
        since = at;
    }
    parts
}

/// The machine that runs or ran the job.
pub(super) fn machine(events: &[Event], job: &Job) -> Option<InstanceId> {
    let after = events.iter().rev().flat_map(|event| &event.after);
    let of_job = |after: &&After| after.fields["job"].as_u64() == Some(job.id.0);
    after.filter(of_job).find_map(|after| {
        let id = after.key.strip_prefix("INSTANCE#")?.strip_suffix(" STATE")?;
        Some(InstanceId::from(id))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::aside::fixtures::life;

    fn tuple(instance_type: &str) -> Value {
        json!({ "template": "lt-0", "template_version": 1, "subnet": "subnet-a", "instance_type": instance_type, "market": "spot" })
    }

    fn event(after: &Value, what: Value) -> Event {
        let mut event = json!({
            "v": 1, "stream": "any", "sequence": "1", "at": "2026-11-02T12:00:00Z", "cause": { "invocation": "1" },
            "after": after, "expires_at": 0,
        });
        let (fields, what) = (event.as_object_mut().unwrap(), what.as_object().unwrap());
        fields.extend(what.iter().map(|(name, value)| (name.clone(), value.clone())));
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn the_wait_for_a_stopped_machine_has_the_start_of_the_machine_as_a_part() {
        let job: Job = serde_json::from_value(json!({
            "id": 5, "pool": "linux", "repository": "acme/app", "run_id": 1, "run_attempt": 1, "name": "build",
            "labels": ["linux"], "html_url": "https://github.com/acme/app/actions/runs/1/job/5", "rank": "done",
            "gated": false, "public": false, "runner": { "id": 7, "name": "runner" }, "queued_at": "2026-11-02T10:59:58Z",
            "first_seen_at": "2026-11-02T10:59:59.5Z", "started_at": "2026-11-02T11:00:12Z", "revision": 1,
        }))
        .unwrap();
        let parts: Vec<_> = parts(&life(), &job).into_iter().map(|part| (part.until, part.seconds)).collect();
        let expected = [
            ("Drover recorded it", 1.5),
            ("Drover started the stopped machine", 0.5),
            ("the runner was registered", 4.0),
            ("the runner took the job", 8.0),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_launch_that_waited_for_a_refused_option_is_not_described_as_the_first_choice() {
        let slot: SlotId = "3.0".parse().unwrap();
        let key = Key::Slot("any".parse().unwrap(), slot).to_string();
        let decided = json!({
            "type": "decided", "demand": 1, "supply": 0, "live": 0, "launch": 1, "tuple": tuple("m7i.large"),
            "choice": { "options": 3, "passed": 0 },
        });
        let mut events = vec![event(&json!([{ "key": key, "revision": 1, "is": {} }]), decided)];
        let described = |events: &[Event]| launched_as(events, slot).unwrap().described(None);
        assert_eq!(described(&events), "m7i.large spot in subnet-a, the first of 3 launch options");
        let refused = json!({
            "type": "refused", "version": 3, "attempt": 1, "tuple": tuple("m7i.large"),
            "code": "InsufficientInstanceCapacity", "message": "none",
        });
        events.push(event(&json!([]), refused));
        let resumed = json!({ "type": "resumed", "version": 3, "attempt": 2, "next": tuple("m7a.large") });
        events.push(event(&json!([]), resumed));
        assert_eq!(described(&events), "m7a.large spot in subnet-a, after EC2 refused 1 other");
    }
}
