//! `drover explain`: a job's facts, its pool's demand and supply, what is owed, and what happened.

use domain::event::{After, Cause, Event, Stream, What};
use domain::ids::{JobId, SlotId};
use domain::item::{Item, Key, Meta};
use domain::job::{Job, Rank, WaitingJob};
use domain::notice::Action;
use domain::pool::Pool;
use domain::telling::reasons;
use domain::view::PoolView;
use engine::ports::Store;
use jiff::Timestamp;
use serde_json::json;

use crate::output::{Failure, Output, age};
use crate::ps::{config, state};

/// How far back a pool's log is searched for the job.
const EVENTS: usize = 2000;

/// Explains a job.
///
/// # Errors
/// When the table cannot be read.
pub async fn explain(table: &impl Store, id: JobId, now: Timestamp) -> Result<Output, Failure> {
    let Some(Item::Job(job)) = table.get(&Key::Job(id)).await? else {
        let text = format!(
            "Drover has never recorded job {id}. No delivery about it arrived (see the app's recent deliveries on \
             GitHub), no pool serves its labels and repository, or it ended more than a week ago.\n"
        );
        return Ok(Output { yes: false, text, json: json!({ "job": null }) });
    };
    let config = config(table).await?;
    let meta = match table.get(&Key::Meta(job.pool.clone())).await? {
        Some(Item::Meta(meta)) => meta,
        _ => return Err(Failure::Usage(format!("pool {} has no state: run `drover pools apply`", job.pool))),
    };
    let view = PoolView::new(meta, table.partition(&job.pool).await?);
    let configured = config.pool(&job.pool);
    let max = configured.map_or(0, |pool| pool.max);
    let mut events = table.events(&Stream::Pool(job.pool.clone()), EVENTS).await?;
    events.retain(|event| concerns(event, &job));
    events.reverse();

    let waiting = view.waiting.get(&id);
    let mut text = facts(&job, now);
    text += &verdict(&job, waiting, &view, configured, now);
    text += &pool(&view, max, now);
    if !events.is_empty() {
        text += "\nhistory\n";
    }
    for event in &events {
        text += &format!("  {:.3}  {}  ({})\n", event.at, told(event, id), cause(&event.cause));
    }
    let json = json!({
        "job": *job, "waiting": waiting, "meta": view.meta,
        "demand": view.demand(now), "supply": view.supply(now).count(), "live": view.live(), "max": max,
        "batches": view.batches.values().collect::<Vec<_>>(),
        "slots": view.slots.values().collect::<Vec<_>>(),
        "events": events,
    });
    Ok(Output { yes: true, text, json })
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

/// What somebody whose job waits wants to read.
fn verdict(job: &Job, waiting: Option<&WaitingJob>, view: &PoolView, pool: Option<&Pool>, now: Timestamp) -> String {
    let Some(waiting) = waiting else { return String::new() };
    let sentence = if !waiting.open && job.gated {
        "It waits for an approval on GitHub.".to_owned()
    } else if !waiting.open {
        "Drover is asking GitHub whether it is still queued.".to_owned()
    } else {
        let Some(pool) = pool else { return "\nIts pool is not configured any more.\n".to_owned() };
        let sentences: String =
            reasons(pool, view, waiting, now).iter().map(|why| format!("It waits: {why}.\n")).collect();
        return format!("\n{sentences}");
    };
    format!("\n{sentence}\n")
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
        let how = batch.tuple.as_ref().map_or_else(|| "no way free".to_owned(), ToString::to_string);
        let stuck = if batch.is_stuck() { ", stuck" } else { "" };
        text += &format!(
            "  launch {}: {} x {how}, attempt {}, try {}{stuck}, next at {:.0}\n",
            batch.version, batch.count, batch.attempt, batch.tries, batch.next_at
        );
        for refusal in &batch.refusals {
            text +=
                &format!("    refused {:.0}: {}: {}: {}\n", refusal.at, refusal.tuple, refusal.code, refusal.message);
        }
    }
    for cooldown in &view.meta.cooldowns {
        text += &format!("  not tried before {:.0}: {}: {}\n", cooldown.until, cooldown.tuple, cooldown.code);
    }
    for slot in view.slots.values() {
        let instance = slot.machine().map_or("-", |machine| machine.instance.as_str());
        text += &format!("  slot {}: {} {instance}\n", slot.id, state(slot));
    }
    text
}

/// Whether an event is about the job or its runner, or is a launch of its pool while it waited.
fn concerns(event: &Event, job: &Job) -> bool {
    let key = Key::Job(job.id).to_string();
    let slot_of = |after: &After| after.is.get("job").and_then(|it| it.as_u64()) == Some(job.id.0);
    if event.after.iter().any(|after| after.key == key || slot_of(after)) {
        return true;
    }
    let waited = job.first_seen_at <= event.at && job.started_at.or(job.completed_at).is_none_or(|at| event.at <= at);
    match &event.what {
        What::Checked { job: about, .. } | What::Told { job: about, .. } | What::Rerun { job: about, .. } => {
            *about == job.id
        }
        What::HandedOver { runner_name, .. } => job.runner.as_ref().is_some_and(|runner| runner.name == *runner_name),
        What::Decided { launch, wanted, unserved, .. } => waited && launch + wanted > 0 || unserved.contains(&job.id),
        What::Refused { .. } | What::Resumed { .. } | What::CircuitOpened { .. } => waited,
        What::Recorded { .. }
        | What::Bound { .. }
        | What::Seen { .. }
        | What::Stopped { .. }
        | What::Unregistered { .. }
        | What::Closed { .. }
        | What::Condemned { .. }
        | What::Adopted { .. }
        | What::Swept { .. } => false,
    }
}

fn told(event: &Event, job: JobId) -> String {
    let list = |slots: &[SlotId]| slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match &event.what {
        What::Recorded { said } => {
            let about = said.iter().filter(|said| said.job == job);
            let words: Vec<&str> = about.map(|said| action(said.action)).collect();
            format!("GitHub said: {}", words.join(", "))
        }
        What::Checked { status, .. } => format!("asked GitHub, which said: {status}"),
        What::Decided { unserved, .. } if unserved.contains(&job) => {
            "a runner that fits idled through its grace and GitHub did not give it this job: wait and ask".to_owned()
        }
        What::CircuitOpened { code, message } => format!("the pool launches no more for now: {code}: {message}"),
        What::Decided { demand, supply, launch, wanted, tuple, .. } => {
            let how = tuple.as_ref().map(|tuple| format!(" {tuple}")).unwrap_or_default();
            let warm = if *wanted > 0 { format!(", {wanted} warm ones taken") } else { String::new() };
            format!("decided (demand {demand}, supply {supply}): launch {launch}{how}{warm}")
        }
        What::Refused { tuple, code, message, .. } => format!("EC2 refused {tuple}: {code}: {message}"),
        What::Resumed { next, .. } => match next {
            Some(tuple) => format!("the launch goes on: {tuple}"),
            None => "the launch waits: every way to launch was refused".to_owned(),
        },
        What::Bound { instances, .. } => {
            let ids: Vec<&str> = instances.iter().map(|id| id.as_str()).collect();
            format!("EC2 launched {}", ids.join(", "))
        }
        What::HandedOver { runner_name, .. } => format!("{runner_name} is registered and its machine may fetch it"),
        What::Seen { gone, .. } if !gone.is_empty() => format!("the machine of slot {} is gone", list(gone)),
        What::Seen { .. } => "the sweep saw its runner".to_owned(),
        What::Stopped { slot, why } => format!("slot {slot} is stopped: {why}"),
        What::Unregistered { slot } => format!("the runner of slot {slot} is unregistered"),
        What::Closed { slots } => format!("slot {} is closed", list(slots)),
        What::Condemned { instance, why } => format!("{instance} is being removed: {}", why.as_str()),
        What::Adopted { instance } => format!("{instance} is nobody's and has a job: left alone"),
        What::Told { title, check_run: Some(id), .. } => format!("its author was told: {title} (check run {id})"),
        What::Told { title, check_run: None, .. } => format!("its author could not be told: {title}"),
        What::Rerun { outcome, .. } => format!("it lost its machine to EC2: {outcome}"),
        What::Swept { found, .. } => format!("a sweep found {found} things that should not be there"),
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Queued => "queued",
        Action::Waiting => "waiting",
        Action::InProgress => "in progress",
        Action::Completed => "completed",
    }
}

fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Deliveries(deliveries) => {
            let ids: Vec<&str> = deliveries.iter().map(|delivery| delivery.as_str()).collect();
            format!("delivery {}", ids.join(", "))
        }
        Cause::Invocation(request) => format!("invocation {request}"),
        Cause::Operator(who) => who.clone(),
    }
}
