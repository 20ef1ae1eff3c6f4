//! `drover explain`: a job's facts, why it waits or how it ended, the state of its pool, and its history.

use std::str::FromStr;

use domain::config::{MicroUsd, Pool};
use domain::ids::{InstanceId, JobId, Repository, RunnerName, SlotId};
use domain::log::{After, Event, Stream, What};
use domain::policy::PoolView;
use domain::policy::decide::tuple_free_at;
use domain::policy::notify::{Reader, reasons};
use domain::policy::route::{Routable, route};
use domain::policy::unrouted::reason;
use domain::state::{Answer, Config, Item, Job, Key, Limit, Meta, Rank, Slot, SlotState, UnroutedJob, WaitingJob};
use domain::wire::Notice;
use engine::ports::Store;
use jiff::Timestamp;
use platform::table::Table;
use serde::Serialize;
use serde_json::json;

use crate::describe;
use crate::output::{Failure, Output, age, count};
use crate::ps::state;
use crate::read::{config, view};

/// How many of the pool's newest events are searched for the job.
const EVENTS: usize = 2000;

/// Of the machines on their way, how many are listed: the job gets one of them.
const MAX_MACHINES_LISTED: usize = 3;

/// A job, named by its id or by the URL of its page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReference {
    id: JobId,
    /// Known only from a URL.
    repository: Option<Repository>,
}

impl JobReference {
    pub fn id(&self) -> JobId {
        self.id
    }
}

impl FromStr for JobReference {
    type Err = &'static str;

    /// A job id, or `https://HOST/OWNER/REPOSITORY/actions/runs/RUN/job/JOB` with any query and fragment.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Ok(id) = text.parse() {
            return Ok(Self { id: JobId(id), repository: None });
        }
        let path = text.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let path = path.strip_prefix("https://").and_then(|address| address.split_once('/')).map(|(_, path)| path);
        let parts: Vec<&str> = path.unwrap_or_default().split('/').collect();
        match parts[..] {
            [owner, name, "actions", "runs", _, "job", id] => {
                let id = id.parse().map_err(|_| "the URL does not end in a job id")?;
                let repository = format!("{owner}/{name}")
                    .parse()
                    .map_err(|_| "the URL does not contain a valid repository name")?;
                Ok(Self { id: JobId(id), repository: Some(repository) })
            }
            [_, _, "actions", "runs", _] => Err("this is the URL of a run: open the job and use the URL of its page"),
            _ => Err("must be a job id, or the URL of a job's page on GitHub"),
        }
    }
}

/// Explains a job.
///
/// # Errors
/// The table cannot be read.
pub async fn explain(table: &Table, reference: &JobReference, now: Timestamp) -> Result<Output, Failure> {
    let config = config(table).await?;
    let Some(Item::Job(job)) = table.get(&Key::Job(reference.id)).await? else {
        return match table.get(&Key::Unrouted(reference.id)).await? {
            Some(Item::Unrouted(job)) => Ok(unrouted(&job, &config)),
            _ => Ok(unknown(reference, &config)),
        };
    };
    let view = view(table, &job.pool).await?;
    let configured = config.pool(&job.pool);
    let max = configured.map_or(0, |pool| pool.max);
    let mut events = table.events(&Stream::Pool(job.pool.clone()), EVENTS).await?;
    events.reverse();
    let machine = machine(&events, &job);
    let parts = parts(&events, &job);
    events.retain(|event| concerns(event, &job));

    let waiting = view.waiting.get(&job.id);
    let sentences = match waiting {
        Some(waiting) => {
            let limit = limit(table, &job, now).await?;
            why_it_waits(&job, waiting, &view, configured, limit.as_ref(), now)
        }
        None => {
            let cost = match &machine {
                Some(id) => cost(table, id).await?,
                None => None,
            };
            how_it_ran(&job, machine.as_ref(), cost, &parts, now)
        }
    };
    let mut text = facts(&job, now);
    text += "\n";
    text.extend(sentences.iter().map(|sentence| format!("{sentence}\n")));
    text += &pool(&view, max, now);
    text += &history(&events, job.id);
    let json = json!({
        "job": *job, "waiting": waiting, "says": sentences, "instance": machine, "parts": parts, "meta": view.meta,
        "demand": view.demand(now), "supply": view.supply(now).count(), "live": view.live(), "max": max,
        "batches": view.batches.values().collect::<Vec<_>>(),
        "slots": view.slots.values().collect::<Vec<_>>(),
        "events": events,
    });
    Ok(Output { ok: true, text, json })
}

/// The rate limit of the job's owner, if it is in effect.
async fn limit(table: &impl Store, job: &Job, now: Timestamp) -> Result<Option<Limit>, Failure> {
    match table.get(&Key::Limit(job.repository.owner.clone())).await? {
        Some(Item::Limit(limit)) if limit.backoff_until > now => Ok(Some(limit)),
        _ => Ok(None),
    }
}

/// A job that was queued, and that no pool accepts.
fn unrouted(job: &UnroutedJob, config: &Config) -> Output {
    let Notice { job: described, repository, received_at, .. } = &job.notice;
    let says = match route(&config.pools, &Routable::of(&job.notice)) {
        Ok(pool) => format!("Pool {} accepts it now; the janitor routes it within a minute.", pool.name),
        Err(why) => format!(
            "No pool accepts it: {} -> correct the workflow or the pool file; if a pool accepts the job within a day \
             after it arrived, it is run",
            reason(&config.pools, &job.notice, why)
        ),
    };
    let text = format!(
        "job {} of {repository}: queued, and ignored\n  name       {}\n  labels     {}\n  arrived    {received_at:.0}\n\n{says}\n",
        described.id,
        described.name,
        described.labels.join(", ")
    );
    Output { ok: false, json: json!({ "job": null, "unrouted": job, "says": says }), text }
}

fn unknown(reference: &JobReference, config: &Config) -> Output {
    let JobReference { id, repository } = reference;
    let text = match repository {
        Some(repository) if !config.pools.iter().any(|pool| pool.serves(repository)) => format!(
            "no pool serves {repository}, so Drover does not handle job {id} -> add the repository to a pool, then \
             drover pools apply FILE\n"
        ),
        _ => format!(
            "Drover has no record of job {id}: no delivery about it arrived, no pool has its labels, or it ended more \
             than a week ago -> run drover lint on its workflow, and look at the app's recent deliveries on GitHub\n"
        ),
    };
    Output { ok: false, json: json!({ "job": null, "says": text.trim_end() }), text }
}

fn history(events: &[Event], job: JobId) -> String {
    let lines = events.iter().map(|event| {
        format!("  {:.3}  {}  ({})\n", event.at, describe::event(event, Some(job)), describe::cause(&event.cause))
    });
    match events.is_empty() {
        true => String::new(),
        false => format!("\nhistory\n{}", lines.collect::<String>()),
    }
}

fn facts(job: &Job, now: Timestamp) -> String {
    let rank = match job.rank {
        Rank::Queued => "queued",
        Rank::Started => "running",
        Rank::Done => "done",
    };
    let mut text = format!("job {} of {}: {rank}\n", job.id, job.repository);
    let workflow = job.workflow.as_deref().unwrap_or("-");
    text +=
        &format!("  name       {} (workflow {workflow}, run {}, attempt {})\n", job.name, job.run_id, job.run_attempt);
    text += &format!("  labels     {}\n", job.labels.join(", "));
    text += &format!("  pool       {}\n", job.pool);
    text += &format!("  queued     {:.0}, {} ago\n", job.queued_at, age(now.duration_since(job.queued_at)));
    if let Some(at) = job.started_at {
        let waited = age(at.duration_since(job.queued_at));
        text += &format!("  started    {at:.0}, after {waited}\n");
    }
    if let Some(runner) = &job.runner {
        text += &format!("  runner     {}\n", runner.name);
    }
    if let Some(at) = job.completed_at {
        text += &format!("  completed  {at:.0}, {}\n", job.conclusion.as_deref().unwrap_or("-"));
    }
    text
}

/// The reasons why a job waits, the one to act on first, and the machines on their way.
fn why_it_waits(
    job: &Job,
    waiting: &WaitingJob,
    view: &PoolView,
    pool: Option<&Pool>,
    limit: Option<&Limit>,
    now: Timestamp,
) -> Vec<String> {
    if let Some(since) = waiting.unknown_since {
        let repository = &job.repository;
        return vec![format!(
            "GitHub has not known the job since {since:.0}: {repository} was deleted or transferred to another owner, or the \
             app lost access to it. If it was transferred and a pool of the new owner accepts the job, the janitor finds it \
             there and the job moves to that pool."
        )];
    }
    if !waiting.open && job.gated {
        return vec!["Waiting for an approval on GitHub.".to_owned()];
    }
    if !waiting.open {
        return vec!["Drover is asking GitHub whether the job is still queued.".to_owned()];
    }
    let Some(pool) = pool else { return vec![format!("Pool {} is no longer configured.", job.pool)] };
    if waiting.given_up(now).is_some() {
        let why = reasons(pool, view, waiting, Reader::Operator, now).join("; ");
        return vec![
            format!("Nothing is launched for it any more: {why}."),
            format!("drover forget {} removes it from Drover's lists.", job.id),
        ];
    }
    let mut sentences: Vec<String> =
        reasons(pool, view, waiting, Reader::Operator, now).iter().map(|why| format!("Waiting: {why}.")).collect();
    if let Some(limit) = limit {
        let (owner, until) = (&limit.owner, limit.backoff_until);
        sentences.push(format!("Waiting: GitHub accepts no calls for {owner} until {until:.0}: {}.", limit.why));
    }
    let options = pool.tuples();
    let free = options.iter().map(|tuple| tuple_free_at(&view.meta, tuple, now)).min().unwrap_or(now);
    if free > now && view.supply(now).count() < view.demand(now) {
        let all = count(options.len(), "launch option");
        sentences.push(format!("The pool has {all}, and none can be used before {free:.0}."));
    }
    sentences.extend(
        view.supply(now)
            .filter(|slot| slot.wanted)
            .map(|slot| on_its_way(slot, view, pool, now))
            .take(MAX_MACHINES_LISTED),
    );
    sentences
}

/// How far a machine is that the job may get.
fn on_its_way(slot: &Slot, view: &PoolView, pool: &Pool, now: Timestamp) -> String {
    let ago = |at: Timestamp| age(now.duration_since(at));
    match &slot.state {
        SlotState::Planned => match view.batches.get(&slot.id.version) {
            Some(batch) if batch.tuple.is_none() => {
                format!("A launch is waiting for a launch option until {:.0}.", batch.lease.next_at)
            }
            _ => format!("A launch was decided {} ago; EC2 has not confirmed it yet.", ago(slot.planned_at)),
        },
        SlotState::Launched(machine) => {
            format!(
                "{} was launched {} ago; its runner is being registered.",
                machine.instance,
                ago(machine.launched_at)
            )
        }
        SlotState::Configured { machine, runner } => format!(
            "{} is booting: it was launched {} ago; its runner was registered {} ago and has {} to come online.",
            machine.instance,
            ago(machine.launched_at),
            ago(runner.configured_at),
            pool.timings.boot_grace
        ),
        SlotState::Online { machine, online_at, .. } => {
            format!(
                "The runner on {} has been online for {} and has no job yet; GitHub assigns one.",
                machine.instance,
                ago(*online_at)
            )
        }
        SlotState::Busy { machine, .. } | SlotState::Done { machine, .. } => format!("{} has a job.", machine.instance),
    }
}

/// What the machine cost; None before its end, or if its price is unknown.
async fn cost(table: &impl Store, id: &InstanceId) -> Result<Option<MicroUsd>, Failure> {
    match table.get(&Key::Instance(id.clone())).await? {
        Some(Item::Instance(instance)) => Ok(instance.cost_micro_usd),
        _ => Ok(None),
    }
}

/// Where and how long the job ran, what its wait consisted of, and what its machine cost.
fn how_it_ran(
    job: &Job,
    machine: Option<&InstanceId>,
    cost: Option<MicroUsd>,
    parts: &[Part],
    now: Timestamp,
) -> Vec<String> {
    let on = match (&job.runner, machine) {
        (Some(_), Some(instance)) => format!("on {instance}"),
        (Some(runner), None) => {
            format!("on {}, which is not one of Drover's runners of the last month", runner.name)
        }
        (None, _) => "without a runner".to_owned(),
    };
    let conclusion = job.conclusion.as_deref().unwrap_or("no conclusion");
    let mut sentences = vec![match (job.started_at, job.completed_at) {
        (Some(started), None) => format!("The job has been running {on} for {}.", age(now.duration_since(started))),
        (Some(started), Some(ended)) if job.runner.is_some() => {
            format!("The job ran {on} for {}: {conclusion}.", age(ended.duration_since(started)))
        }
        (_, Some(_)) => format!("The job ended before a runner took it: {conclusion}."),
        (None, None) => format!("The job is running {on}."),
    }];
    if !parts.is_empty() {
        let parts: Vec<String> =
            parts.iter().map(|part| format!("{:.1} s until {}", part.seconds, part.until)).collect();
        sentences.push(format!("It waited {}.", parts.join(", ")));
    }
    sentences.extend(cost.map(|cost| format!("Its machine cost {cost} at the on-demand list price.")));
    sentences
}

/// A part of a job's wait, up to an event.
#[derive(Debug, Serialize)]
struct Part {
    until: &'static str,
    seconds: f64,
}

/// The parts of the job's wait, if it ran on one of Drover's runners.
fn parts(events: &[Event], job: &Job) -> Vec<Part> {
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
    let marks = [
        ("Drover recorded it", Some(job.first_seen_at)),
        ("EC2 launched the machine", bound),
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
fn machine(events: &[Event], job: &Job) -> Option<InstanceId> {
    let after = events.iter().rev().flat_map(|event| &event.after);
    let of_job = |after: &&After| after.fields["job"].as_u64() == Some(job.id.0);
    after.filter(of_job).find_map(|after| {
        let id = after.key.strip_prefix("INSTANCE#")?.strip_suffix(" STATE")?;
        Some(InstanceId(id.to_owned()))
    })
}

fn pool(view: &PoolView, max: u32, now: Timestamp) -> String {
    let Meta { pool, revision, .. } = &view.meta;
    let mut text = format!(
        "\npool {pool}, version {revision}: demand {}, supply {}, live {} of {max}\n",
        view.demand(now),
        view.supply(now).count(),
        view.live()
    );
    for batch in view.batches.values() {
        let how = batch.tuple.as_ref().map_or_else(|| "no launch option".to_owned(), ToString::to_string);
        let stuck = if batch.is_stuck() { ", stuck" } else { "" };
        text += &format!(
            "  launch {}: {} x {how}, attempt {}, try {}{stuck}, next at {:.0}\n",
            batch.version, batch.count, batch.attempt, batch.lease.tries, batch.lease.next_at
        );
    }
    for Answer { at, tuple, code, message } in view.latest_answers(now) {
        text += &format!("  EC2's answer {at:.0}: {tuple}: {code}: {message}\n");
    }
    for failure in view.latest_failures(now) {
        text += &format!("  did not come online {:.0}: {}\n", failure.at, describe::failure(failure));
    }
    for cooldown in &view.meta.cooldowns {
        text += &format!("  cooling down until {:.0}: {}: {}\n", cooldown.until, cooldown.tuple, cooldown.code);
    }
    for slot in view.slots.values() {
        let instance = slot.machine().map_or("-", |machine| machine.instance.as_str());
        text += &format!("  slot {}: {} {instance}\n", slot.id, state(slot));
    }
    text
}

/// Whether an event is about the job or its runner, or about a launch of its pool while the job waited.
fn concerns(event: &Event, job: &Job) -> bool {
    let key = Key::Job(job.id).to_string();
    let slot_of = |after: &After| after.fields.get("job").and_then(|it| it.as_u64()) == Some(job.id.0);
    if event.after.iter().any(|after| after.key == key || slot_of(after)) {
        return true;
    }
    // Events of its machine from before GitHub reported which job the machine has.
    let runner: Option<RunnerName> = job.runner.as_ref().and_then(|runner| runner.name.parse().ok());
    let is_its_slot = |slot: &SlotId| runner.as_ref().is_some_and(|runner| runner.slot == *slot);
    let waited = job.first_seen_at <= event.at && job.started_at.or(job.completed_at).is_none_or(|at| event.at <= at);
    match &event.what {
        What::Checked { job: about, .. }
        | What::Forgotten { job: about }
        | What::Transferred { job: about, .. }
        | What::Notified { job: about, .. }
        | What::Rerun { job: about, .. } => *about == job.id,
        What::HandedOver { runner_name, .. } => job.runner.as_ref().is_some_and(|runner| runner.name == *runner_name),
        What::Decided { launch, wanted, unserved, .. } => waited && launch + wanted > 0 || unserved.contains(&job.id),
        What::Refused { .. } | What::Resumed { .. } | What::CircuitOpened { .. } => waited,
        What::Stopped { slot, .. } | What::Unregistered { slot } => is_its_slot(slot),
        What::Observed { gone, .. } => gone.iter().any(is_its_slot),
        What::Closed { failures, .. } => waited && !failures.is_empty(),
        What::Recorded { .. }
        | What::Interrupted { .. }
        | What::Bound { .. }
        | What::Condemned { .. }
        | What::Adopted { .. }
        | What::Unknown(_)
        | What::Swept { .. } => false,
    }
}
