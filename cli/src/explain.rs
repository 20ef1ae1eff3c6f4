//! `drover explain`: a job's facts, its pool's demand and supply, what is owed, and what happened.

use domain::event::{Cause, Event, Stream, What};
use domain::ids::JobId;
use domain::item::{Circuit, Item, Key, Meta};
use domain::job::{Job, Rank, WaitingJob};
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
    let max = config.pool(&job.pool).map_or(0, |pool| pool.max);
    let mut events = table.events(&Stream::Pool(job.pool.clone()), EVENTS).await?;
    events.retain(|event| concerns(event, id));
    events.reverse();

    let waiting = view.waiting.get(&id);
    let mut text = facts(&job, now);
    text += &verdict(&job, waiting, &view, max, now);
    text += &pool(&view, max, now);
    if !events.is_empty() {
        text += "\nhistory\n";
    }
    for event in &events {
        text += &format!("  {:.3}  {}  ({})\n", event.at, told(event, id), cause(&event.cause));
    }
    let json = json!({
        "job": *job, "waiting": waiting, "meta": view.meta,
        "demand": view.demand(), "supply": view.supply(now).count(), "live": view.live(), "max": max,
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

/// The one sentence that somebody whose job waits wants to read.
fn verdict(job: &Job, waiting: Option<&WaitingJob>, view: &PoolView, max: u32, now: Timestamp) -> String {
    let Some(waiting) = waiting else { return String::new() };
    let sentence = if !waiting.open && job.gated {
        "It waits for an approval on GitHub.".to_owned()
    } else if !waiting.open {
        "Drover is asking GitHub whether it is still queued.".to_owned()
    } else if let Circuit::Open { until, code, message, .. } = &view.meta.circuit {
        format!("The pool's machines do not work: {code}: {message}. The next try is at {until:.0}.")
    } else if let Some(batch) = view.batches.values().find(|batch| batch.tuple.is_none()) {
        let why = batch.refusals.last().map(|refusal| format!("{}: {}", refusal.code, refusal.message));
        format!("EC2 has no machine: {}. The next try is at {:.0}.", why.unwrap_or_default(), batch.next_at)
    } else if view.supply(now).count() >= view.demand() {
        "A machine is on its way.".to_owned()
    } else if view.live() >= max as usize {
        format!("The pool runs its maximum of {max} machines; it is next when one of them ends.")
    } else {
        "A machine will be launched any moment.".to_owned()
    };
    format!("\n{sentence}\n")
}

fn pool(view: &PoolView, max: u32, now: Timestamp) -> String {
    let Meta { pool, revision, .. } = &view.meta;
    let mut text = format!(
        "\npool {pool}, version {revision}: demand {}, supply {}, live {} of {max}\n",
        view.demand(),
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

/// Whether an event is about the job, or about what was decided and launched while it waited for that.
fn concerns(event: &Event, job: JobId) -> bool {
    let key = Key::Job(job).to_string();
    let named = event
        .after
        .iter()
        .any(|after| after.key == key || after.is.get("job").and_then(|it| it.as_u64()) == Some(job.0));
    named || matches!(&event.what, What::Checked { job: checked, .. } if *checked == job)
}

fn told(event: &Event, job: JobId) -> String {
    match &event.what {
        What::Recorded { said } => {
            let said = said.iter().filter(|said| said.job == job);
            let words: Vec<String> = said.map(|said| format!("GitHub said {:?}", said.action).to_lowercase()).collect();
            words.join(", ")
        }
        What::Checked { status, .. } => format!("asked GitHub: {status}"),
        what => {
            let json = serde_json::to_value(what).unwrap_or_default();
            json.get("type").and_then(|kind| kind.as_str()).unwrap_or("?").replace('_', " ")
        }
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
