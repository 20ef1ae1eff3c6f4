//! `drover explain`: why a job waits or how it ended, what happens next, the state of its pool, and its history.

mod history;
mod ran;
mod reference;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use domain::config::{Label, LaunchOption, MicroUsd};
use domain::ids::{JobId, PoolName, Repository, RunId, RunnerName, SlotId};
use domain::log::{Event, Stream, What};
use domain::policy::PoolView;
use domain::policy::route::{Routable, route};
use domain::policy::unrouted::reason;
use domain::state::{Answer, Config, Item, Job, Key, Limit, Meta, Rank, Slot, SlotState, UnroutedJob, in_columns};
use domain::wire::Notice;
use engine::ports::Store;
use jiff::Timestamp;
use platform::table::Table;
use serde_json::{Value, json};

pub use self::reference::{JobReference, Reference};

use self::history::{Classes, about, history};
use self::ran::{End, end, how_it_ran, launched_as, machine, parts, ran_on, rerun};
use self::reference::Subject;
use self::waiting::{Next, Wait, why_it_waits};
use crate::aside::Aside;
use crate::classes::Part;
use crate::describe;
use crate::output::{Failure, Output, age, count, one_line, when};
use crate::ps::{short_state, state};
use crate::read::{config, view};

/// How many of a pool's newest events are searched for a job.
const EVENTS: usize = 2000;

/// How much is printed about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Without pool and history. For the jobs of a run.
    Brief,
    Normal,
    /// With every slot of the pool.
    All,
}

/// Explains jobs, in the order of the references.
///
/// # Errors
/// The table cannot be read.
pub async fn explain(
    table: &Table,
    references: &[Reference],
    detail: Detail,
    now: Timestamp,
) -> Result<Output, Failure> {
    let explainer = Explainer::new(table, now).await?;
    let mut outputs = Vec::new();
    for reference in references {
        outputs.push(explainer.explain(reference, detail).await?);
    }
    Ok(Output::blocks(outputs))
}

/// Explains one job.
///
/// # Errors
/// The table cannot be read.
pub async fn one(table: &Table, reference: &JobReference, detail: Detail, now: Timestamp) -> Result<Output, Failure> {
    Explainer::new(table, now).await?.job(reference.id(), reference.repository(), detail).await
}

struct Explainer<'a> {
    table: &'a Table,
    config: Config,
    /// What was read of each pool. The jobs of a run share it.
    readings: Mutex<BTreeMap<PoolName, Arc<Reading>>>,
    now: Timestamp,
}

/// A pool and its newest events.
struct Reading {
    view: PoolView,
    /// Oldest first.
    events: Vec<Event>,
}

impl<'a> Explainer<'a> {
    async fn new(table: &'a Table, now: Timestamp) -> Result<Self, Failure> {
        Ok(Self { table, config: config(table).await?, readings: Mutex::default(), now })
    }

    fn readings(&self) -> MutexGuard<'_, BTreeMap<PoolName, Arc<Reading>>> {
        self.readings.lock().expect("no thread panics while it holds the lock")
    }

    async fn read(&self, pool: &PoolName) -> Result<Arc<Reading>, Failure> {
        if let Some(reading) = self.readings().get(pool) {
            return Ok(reading.clone());
        }
        let view = view(self.table, pool).await?;
        let mut events = self.table.events(&Stream::Pool(pool.clone()), EVENTS).await?;
        events.reverse();
        let reading = Arc::new(Reading { view, events });
        self.readings().insert(pool.clone(), reading.clone());
        Ok(reading)
    }

    async fn explain(&self, reference: &Reference, detail: Detail) -> Result<Output, Failure> {
        let repository = reference.repository.as_ref();
        match reference.subject {
            Subject::Job(id) => self.job(id, repository, detail).await,
            Subject::Run(id) => self.run(id, repository, detail).await,
            Subject::Number(number) => {
                let job = self.job(JobId(number), repository, detail).await?;
                if job.ok || !job.json["unrouted"].is_null() {
                    return Ok(job);
                }
                let run = self.run(RunId(number), repository, detail).await?;
                Ok(if run.ok { run } else { job })
            }
        }
    }

    /// `repository` is that of the URL.
    async fn job(&self, id: JobId, repository: Option<&Repository>, detail: Detail) -> Result<Output, Failure> {
        let is_elsewhere = |own: &Repository| repository.is_some_and(|it| it != own);
        if let Some(Item::Job(job)) = self.table.get(&Key::Job(id)).await? {
            return match is_elsewhere(&job.repository) {
                true => Ok(elsewhere(id, &job.repository, repository)),
                false => self.known(&job, detail).await,
            };
        }
        match self.table.get(&Key::Unrouted(id)).await? {
            Some(Item::Unrouted(job)) if is_elsewhere(&job.notice.repository) => {
                Ok(elsewhere(id, &job.notice.repository, repository))
            }
            Some(Item::Unrouted(job)) => Ok(unrouted(&job, &self.config)),
            _ => Ok(unknown(id, repository, &self.config)),
        }
    }

    async fn known(&self, job: &Job, detail: Detail) -> Result<Output, Failure> {
        let now = self.now;
        let reading = self.read(&job.pool).await?;
        let Reading { view, events } = &*reading;
        let configured = self.config.pool(&job.pool);
        let max = configured.map_or(0, |pool| pool.max);
        let slot = view.slots.values().find(|slot| slot.job() == Some(job.id));
        let machine = slot.and_then(Slot::machine).map(|it| it.instance.clone()).or_else(|| machine(events, job));
        let unknown = match events.len() < EVENTS {
            true => "which is not one of Drover's runners of the last month".to_owned(),
            false => format!("and the newest {EVENTS} events of the pool do not say on which machine"),
        };
        let oldest = events.first().filter(|oldest| events.len() == EVENTS && job.first_seen_at < oldest.at);
        let unread = oldest.map(|oldest| {
            format!(
                "older than {:.0}: not read -> drover events --job {} --since {:.0}",
                oldest.at, job.id, job.first_seen_at
            )
        });
        let parts = parts(events, job);
        let class = configured.and_then(|pool| pool.class_of(&job.labels));
        let part = configured.filter(|it| it.needs_prices()).map(|it| Part::of(it, view, class.as_ref()));
        let runner: Option<RunnerName> = job.runner.as_ref().and_then(|runner| runner.name.parse().ok());
        let aside = runner.as_ref().map(|runner| Aside::of(events, &Key::Slot(job.pool.clone(), runner.slot)));
        let aside = aside.unwrap_or_default();
        let ran_in = runner.map(|runner| runner.slot);
        let launched = ran_in.and_then(|slot| launched_as(events, slot));

        let waiting = view.waiting.get(&job.id);
        let mut usage = None;
        let Wait { mut sentences, slot, next } = match waiting {
            Some(waiting) => {
                let limit = self.limit(job).await?;
                why_it_waits(job, waiting, view, configured, limit.as_ref(), now)
            }
            None => {
                let end = match &machine {
                    Some(id) => end(self.table, id).await?,
                    None => End::default(),
                };
                let ends_at = |slot: &Slot| match (&slot.state, configured) {
                    (SlotState::Busy { machine, .. }, Some(pool)) => {
                        let at = machine.runs_since() + pool.timings.max_life.duration();
                        Some(Next::new("the job ends, or at max_life its machine", Some(at)))
                    }
                    _ => None,
                };
                let on = ran_on(job, machine.as_ref(), &unknown);
                let mut sentences = how_it_ran(job, &on, &end, rerun(events, job.id), &parts, now);
                sentences.extend(aside.sentence());
                let is_measured = configured.is_some_and(|pool| pool.usage);
                sentences.extend(end.without_usage(job).filter(|_| is_measured).map(ToOwned::to_owned));
                usage = end.usage().cloned();
                if let Some(launched) = launched.filter(|_| part.is_some()) {
                    sentences.push(format!("Launch option: {}.", launched.described(end.price())));
                }
                Wait { sentences, slot: slot.map(|slot| slot.id), next: slot.and_then(ends_at) }
            }
        };
        sentences.extend(next.as_ref().map(|next| next.sentence(now)));
        let classes = match configured.and_then(|pool| pool.shapes.as_ref()) {
            Some(_) => Classes::read(self.table, view, events, job).await?,
            None => Classes::default(),
        };
        let of_class = part.as_ref().filter(|part| part.pool.shapes.is_some()).map(|part| (&classes, part));
        let own_slot = ran_in.or(slot);
        let on_its_way = own_slot.and_then(|slot| view.slots.get(&slot)?.machine());
        let own_machine = machine.clone().or_else(|| on_its_way.map(|it| it.instance.clone()));
        let events: Vec<&Event> = about(events, job, own_slot, of_class);
        let sentences: Vec<String> = sentences.iter().map(|sentence| one_line(sentence)).collect();
        let mut text = format!("job {} of {}: {}\n", job.id, job.repository, rank(job));
        text.extend(sentences.iter().map(|sentence| format!("{sentence}\n")));
        text += &facts(job, class.as_ref(), now);
        if let Some(usage) = &usage {
            text += "\nused of the machine, as it reported\n";
            text.extend(in_columns(&usage.lines()).iter().map(|line| format!("  {line}\n")));
        }
        if detail != Detail::Brief {
            let interest = if waiting.is_some() { Interest::Waits } else { Interest::Over };
            text += &pool(view, max, slot, interest, detail, now);
            text += &history(&events, job.id, own_machine.as_ref());
            text.extend(unread.map(|note| format!("  {note}\n")));
        }
        let mut json = json!({
            "job": job, "waiting": waiting, "says": sentences, "slot": slot, "next": next, "instance": machine,
            "parts": parts, "usage": usage, "meta": view.meta,
            "demand": view.demand(now), "supply": view.supply(now).count(), "live": view.live(), "max": max,
            "batches": view.batches.values().collect::<Vec<_>>(),
            "slots": view.slots.values().collect::<Vec<_>>(),
            "events": events,
        });
        if let (Some(part), Some(fields)) = (part, json.as_object_mut()) {
            let options = part.may_be_tried(now).into_iter().map(|LaunchOption { tuple, price_per_hour }| {
                json!({ "option": tuple, "usd_per_hour": price_per_hour.map(MicroUsd::usd) })
            });
            fields.insert("class".to_owned(), json!(class));
            fields.insert("launched_as".to_owned(), json!(launched.map(|launched| launched.tuple)));
            fields.insert("may_be_tried".to_owned(), options.collect());
            fields.insert("usd_per_hour".to_owned(), json!(view.price_per_hour().usd()));
            fields.insert("max_usd_per_hour".to_owned(), json!(part.pool.price_per_hour.map(MicroUsd::usd)));
        }
        Ok(Output { ok: true, text, json })
    }

    /// The rate limit of the job's owner, if it is in effect.
    async fn limit(&self, job: &Job) -> Result<Option<Limit>, Failure> {
        match self.table.get(&Key::Limit(job.repository.owner.clone())).await? {
            Some(Item::Limit(limit)) if limit.backoff_until > self.now => Ok(Some(limit)),
            _ => Ok(None),
        }
    }

    /// Every job of the run that Drover has handled lately. `repository` is that of the URL.
    async fn run(&self, run: RunId, repository: Option<&Repository>, detail: Detail) -> Result<Output, Failure> {
        let jobs = self.jobs_of(run).await?;
        let no = |text: String| Output { ok: false, json: json!({ "run": run, "says": text.trim_end() }), text };
        if let Some(own) = jobs.values().find(|own| repository.is_some_and(|it| it != *own)) {
            return Ok(no(format!("run {run} belongs to {own} -> use the URL of the run's page\n")));
        }
        let Some(own) = jobs.values().next() else {
            return Ok(no(format!(
                "Drover has no record of run {run}: none of its jobs waits or runs, nor is in the newest {EVENTS} events of a \
                 pool -> drover explain JOB looks up one job, and drover lint WORKFLOW --repository OWNER/NAME shows which \
                 pool it matches\n"
            )));
        };
        let detail = if detail == Detail::All { Detail::All } else { Detail::Brief };
        let mut outputs = Vec::new();
        for id in jobs.keys() {
            outputs.push(self.job(*id, None, detail).await?);
        }
        let texts: Vec<&str> = outputs.iter().map(|output| output.text.as_str()).collect();
        let text = format!("run {run} of {own}: {}\n\n{}", count(jobs.len(), "job"), texts.join("\n"));
        let jobs: Value = outputs.iter().map(|output| output.json.clone()).collect();
        Ok(Output { ok: true, text, json: json!({ "run": run, "jobs": jobs }) })
    }

    /// The jobs of a run that wait, that run, or that the newest events of a pool are about.
    async fn jobs_of(&self, run: RunId) -> Result<BTreeMap<JobId, Repository>, Failure> {
        let mut ids = BTreeSet::new();
        for pool in &self.config.pools {
            let reading = self.read(&pool.name).await?;
            let Reading { view, events } = &*reading;
            ids.extend(view.waiting.keys().copied().chain(view.slots.values().filter_map(Slot::job)));
            for event in events {
                if let What::Recorded { statements } = &event.what {
                    ids.extend(statements.iter().map(|statement| statement.job));
                }
            }
        }
        let keys: Vec<Key> = ids.into_iter().map(Key::Job).collect();
        let items = self.table.get_many(&keys).await?.into_iter();
        let of_run = items.filter_map(|item| match item {
            Item::Job(job) if job.run_id == run => Some((job.id, job.repository)),
            _ => None,
        });
        Ok(of_run.collect())
    }
}

/// The URL names another repository than the job's, so one of the two is a mistake.
fn elsewhere(id: JobId, own: &Repository, named: Option<&Repository>) -> Output {
    let named = named.map(ToString::to_string).unwrap_or_default();
    let text =
        format!("job {id} belongs to {own}, not to {named} -> use the URL of the job's page, or drover explain {id}\n");
    Output { ok: false, json: json!({ "job": null, "says": text.trim_end() }), text }
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
    let mut text = format!("job {} of {repository}: queued, and ignored\n{}\n", described.id, one_line(&says));
    text += &fact("name", &described.name);
    text += &fact("labels", &described.labels.join(", "));
    text += &fact("arrived", &format!("{received_at:.0}"));
    Output { ok: false, json: json!({ "job": null, "unrouted": job, "says": says }), text }
}

fn unknown(id: JobId, repository: Option<&Repository>, config: &Config) -> Output {
    let text = match repository {
        Some(repository) if !config.pools.iter().any(|pool| pool.serves(repository)) => format!(
            "no pool serves {repository}, so Drover does not handle job {id} -> add the repository to a pool, then \
             drover pools apply FILE\n"
        ),
        _ => format!(
            "Drover has no record of job {id}: no delivery about it arrived, no pool has its labels, or it ended more \
             than a week ago -> run drover lint WORKFLOW --repository OWNER/NAME, and look at the app's recent deliveries on GitHub\n"
        ),
    };
    Output { ok: false, json: json!({ "job": null, "says": text.trim_end() }), text }
}

fn rank(job: &Job) -> &'static str {
    match job.rank {
        Rank::Queued => "queued",
        Rank::Started => "running",
        Rank::Done => "done",
    }
}

/// A line about the job. Its users write names and labels.
fn fact(name: &str, value: &str) -> String {
    format!("  {name:<9}  {}\n", one_line(value))
}

fn facts(job: &Job, class: Option<&Label>, now: Timestamp) -> String {
    let workflow = job.workflow.as_deref().unwrap_or("-");
    let mut text = "\n".to_owned();
    text +=
        &fact("name", &format!("{} (workflow {workflow}, run {}, attempt {})", job.name, job.run_id, job.run_attempt));
    text += &fact("labels", &job.labels.join(", "));
    text += &fact("pool", job.pool.as_str());
    text += &class.map(|class| fact("class", class.as_str())).unwrap_or_default();
    text += &fact("queued", &format!("{:.0}, {} ago", job.queued_at, age(now.duration_since(job.queued_at))));
    if let Some(at) = job.started_at {
        text += &fact("started", &format!("{at:.0}, after {}", age(at.duration_since(job.queued_at))));
    }
    if let Some(runner) = &job.runner {
        text += &fact("runner", &runner.name);
    }
    if let Some(at) = job.completed_at {
        text += &fact("completed", &format!("{at:.0}, {}", job.conclusion.as_deref().unwrap_or("-")));
    }
    text
}

/// Whether the job still waits for something that the pool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interest {
    Waits,
    Over,
}

/// The pool in counts. For a waiting job also its launches and EC2's answers; with [`Detail::All`] every slot.
fn pool(view: &PoolView, max: u32, own: Option<SlotId>, interest: Interest, detail: Detail, now: Timestamp) -> String {
    let Meta { pool, revision, .. } = &view.meta;
    let mut text = format!(
        "\npool {pool}, version {revision}: demand {}, supply {}, live {} of {max}\n",
        view.demand(now),
        view.supply(now).count(),
        view.live()
    );
    let line = |text: String| format!("  {}\n", one_line(&text));
    if interest == Interest::Waits || detail == Detail::All {
        for batch in view.batches.values() {
            let how = batch.tuple.as_ref().map_or_else(|| "no launch option".to_owned(), ToString::to_string);
            let stuck = if batch.is_stuck() { ", stuck" } else { "" };
            text += &line(format!(
                "launch {}: {} x {how}, attempt {}, try {}{stuck}, {}",
                batch.version,
                batch.count,
                batch.attempt,
                batch.lease.tries,
                when(batch.lease.next_at, now)
            ));
        }
        for Answer { at, tuple, code, message } in view.latest_answers(now) {
            text += &line(format!("EC2's answer {at:.0}: {tuple}: {code}: {message}"));
        }
        for failure in view.latest_failures(now) {
            text += &line(format!("did not come online {:.0}: {}", failure.at, describe::failure(failure)));
        }
        for cooldown in view.meta.cooldowns.iter().filter(|cooldown| cooldown.until > now) {
            text += &line(format!("cooling down until {:.0}: {}: {}", cooldown.until, cooldown.tuple, cooldown.code));
        }
    }
    if detail == Detail::All {
        for slot in view.slots.values() {
            let instance = slot.machine().map_or("-", |machine| machine.instance.as_str());
            text += &line(format!("slot {}: {} {instance}", slot.id, state(slot)));
        }
        return text;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for slot in view.slots.values().filter(|slot| Some(slot.id) != own) {
        *counts.entry(short_state(slot)).or_default() += 1;
    }
    if !counts.is_empty() {
        let counts: Vec<String> = counts.iter().map(|(state, number)| format!("{number} {state}")).collect();
        text += &line(format!("other slots: {} (--all lists them)", counts.join(", ")));
    }
    text
}
