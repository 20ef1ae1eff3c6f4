//! The history of a stack, from its event log.
//!
//! The log keeps events for a month, and a job's item has its labels for a week after its end. Labels of older jobs are those of
//! a later job with the same name, or else of the pool.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::config::Pool;
use domain::ids::{InstanceId, JobId, PoolName};
use domain::log::{After, Event, Stream, What, shortened};
use domain::state::{Instance, Item, Job, Key};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::table::Table;
use serde_json::Value;
use whatif::collect::median;
use whatif::trace::{self, Header, Measured, Source, Trace, VERSION};

use super::recorded::Recorded;
use crate::aside::Aside;
use crate::output::{Failure, count};
use crate::read::{log_since, pools};

/// The jobs that were queued since a time, and what the log and the machines' reports say about the times of machines.
///
/// # Errors
/// The table cannot be read.
pub async fn record(table: &Table, region: &str, from: Timestamp, now: Timestamp) -> Result<Recorded, Failure> {
    let pools = pools(table, None).await?;
    let mut log = Log::default();
    let mut oldest = None;
    for pool in &pools {
        let mut events = log_since(table, &Stream::Pool(pool.name.clone()), from).await?;
        events.reverse();
        oldest = oldest.into_iter().chain(events.first().map(|event| event.at)).min();
        events.iter().for_each(|event| log.add(event));
    }
    let mut notes = Vec::new();
    let from = match oldest {
        Some(oldest) if oldest > from => {
            notes.push(format!("the event log begins at {oldest:.0}"));
            // A job was queued before its first event.
            log.queued().filter(|at| *at >= from).chain([oldest]).min().unwrap_or(oldest)
        }
        Some(_) | None => from,
    };
    let keys: Vec<Key> = log.jobs.keys().copied().map(Key::Job).collect();
    let machines: BTreeSet<&InstanceId> = log.machines.values().chain(log.slots.keys()).collect();
    let machine_keys: Vec<Key> = machines.into_iter().cloned().map(Key::Instance).collect();
    let mut known = Known::default();
    for item in table.get_many(&keys).await?.into_iter().chain(table.get_many(&machine_keys).await?) {
        known.add(item);
    }

    let mut labels = Labels::new(&pools, &known);
    let jobs: Vec<trace::Job> = log.jobs.iter().filter_map(|(id, facts)| job(*id, facts, &log, &mut labels)).collect();
    notes.extend(labels.note());
    let header = Header {
        drover_trace: VERSION,
        source: Source::Log,
        from,
        until: now,
        days: Vec::new(),
        region: Some(region.to_owned()).filter(|region| !region.is_empty()),
        anonymous: false,
        measured: log.measured(&known),
    };
    Ok(Recorded { trace: Trace::of(header, jobs), notes })
}

/// What the events say.
#[derive(Debug, Default)]
struct Log {
    /// The lifecycle fields of each job after its last event, with the revision.
    jobs: BTreeMap<JobId, (u64, Value)>,
    /// Workflow and name of each job, shortened.
    names: HashMap<JobId, (Option<String>, Option<String>)>,
    /// The machine of each job.
    machines: HashMap<JobId, InstanceId>,
    /// When each machine was set aside and started again.
    slots: BTreeMap<InstanceId, Aside>,
    /// When each runner's JIT config was handed over.
    handed_over: HashMap<String, Timestamp>,
}

impl Log {
    /// Earlier events come first.
    fn add(&mut self, event: &Event) {
        match &event.what {
            What::Recorded { statements } => {
                for statement in statements {
                    let (workflow, name) = self.names.entry(statement.job).or_default();
                    *workflow = workflow.take().or_else(|| statement.workflow.clone());
                    *name = name.take().or_else(|| statement.name.clone());
                }
            }
            What::HandedOver { runner_name, .. } => {
                self.handed_over.entry(runner_name.clone()).or_insert(event.at);
            }
            // They say nothing that the items after them do not say.
            What::Checked { .. }
            | What::Transferred { .. }
            | What::Forgotten { .. }
            | What::Decided { .. }
            | What::Refused { .. }
            | What::CircuitOpened { .. }
            | What::Resumed { .. }
            | What::Bound { .. }
            | What::Observed { .. }
            | What::Stopped { .. }
            | What::Interrupted { .. }
            | What::Unregistered { .. }
            | What::Closed { .. }
            | What::Notified { .. }
            | What::Rerun { .. }
            | What::Swept { .. }
            | What::Condemned { .. }
            | What::Adopted { .. }
            | What::Unknown(_) => {}
        }
        event.after.iter().for_each(|after| self.add_item(after, event.at));
    }

    fn add_item(&mut self, after: &After, at: Timestamp) {
        let (job, instance) = (after.fields["job"].as_u64().map(JobId), after.fields["instance"].as_str());
        if let Some(id) = id_of(after, "JOB#").and_then(|id| id.parse().ok()).map(JobId) {
            let newer = self.jobs.get(&id).is_none_or(|(revision, _)| *revision < after.revision);
            if newer {
                self.jobs.insert(id, (after.revision, after.fields.clone()));
            }
        } else if let Some(id) = id_of(after, "INSTANCE#") {
            self.machines.extend(job.map(|job| (job, InstanceId::from(id))));
        } else if let Some(instance) = instance.filter(|_| after.key.contains(" SLOT#")) {
            let aside = self.slots.entry(InstanceId::from(instance)).or_default();
            *aside = aside.with(after, at);
        }
    }

    /// When each job was queued.
    fn queued(&self) -> impl Iterator<Item = Timestamp> {
        self.jobs.values().filter_map(|(_, facts)| time(facts, "queued_at"))
    }

    fn measured(&self, known: &Known) -> Measured {
        let (mut boot, mut start, mut runner) = (Vec::new(), Vec::new(), Vec::new());
        for (id, instance) in &known.instances {
            let Some(report) = instance.boot else { continue };
            let started_at = self.slots.get(id).and_then(|aside| aside.started_at);
            match started_at.filter(|at| *at <= report.reported_at) {
                Some(started_at) => start.push(report.reported_at.duration_since(started_at)),
                None => boot.push(report.reported_at.duration_since(instance.launched_at)),
            }
        }
        for (id, (_, facts)) in &self.jobs {
            runner.extend(self.runner_time(facts, self.machines.get(id).and_then(|id| known.instances.get(id))));
        }
        let median =
            |times: Vec<SignedDuration>| median(times.into_iter().map(|it| it.max(SignedDuration::ZERO)).collect());
        Measured { boot_seconds: median(boot), start_seconds: median(start), runner_seconds: median(runner) }
    }

    /// From the time at which the machine could begin with the job's registration until the runner had the job. None if the runner
    /// waited for the job, or if the machine has not reported when it was ready.
    fn runner_time(&self, facts: &Value, machine: Option<&Instance>) -> Option<SignedDuration> {
        let handed_over = *self.handed_over.get(facts["runner"]["name"].as_str()?)?;
        // The registration of a machine that was launched for a job is ready before the machine.
        let begun = handed_over.max(machine?.boot?.reported_at);
        let (queued_at, started_at) = (time(facts, "queued_at")?, time(facts, "started_at")?);
        // GitHub's times have whole seconds.
        (queued_at <= begun).then(|| started_at.duration_since(begun).max(SignedDuration::ZERO))
    }
}

/// The id in an item's key.
fn id_of<'a>(after: &'a After, kind: &str) -> Option<&'a str> {
    after.key.strip_prefix(kind)?.strip_suffix(" STATE")
}

fn time(facts: &Value, field: &str) -> Option<Timestamp> {
    facts[field].as_str()?.parse().ok()
}

/// The items that the table still has.
#[derive(Debug, Default)]
struct Known {
    jobs: HashMap<JobId, Job>,
    instances: HashMap<InstanceId, Instance>,
}

impl Known {
    fn add(&mut self, item: Item) {
        match item {
            Item::Job(job) => drop(self.jobs.insert(job.id, *job)),
            Item::Instance(instance) => drop(self.instances.insert(instance.id.clone(), instance)),
            _ => {}
        }
    }
}

/// A job's repository, workflow and name.
type Named = (String, Option<String>, Option<String>);

/// The labels of jobs whose items are gone.
#[derive(Debug)]
struct Labels<'a> {
    known: &'a Known,
    /// The labels of the newest job with this name.
    of_name: HashMap<Named, (Timestamp, Vec<String>)>,
    of_pool: HashMap<PoolName, Vec<String>>,
    from_name: usize,
    from_pool: usize,
}

impl<'a> Labels<'a> {
    fn new(pools: &[Pool], known: &'a Known) -> Self {
        let mut of_name: HashMap<Named, (Timestamp, Vec<String>)> = HashMap::new();
        for job in known.jobs.values() {
            let named =
                (job.repository.to_string(), job.workflow.as_deref().map(shortened), Some(shortened(&job.name)));
            let newest = of_name.entry(named).or_insert_with(|| (job.queued_at, job.labels.clone()));
            if newest.0 < job.queued_at {
                *newest = (job.queued_at, job.labels.clone());
            }
        }
        let of_pool =
            pools.iter().map(|pool| (pool.name.clone(), pool.labels.iter().map(ToString::to_string).collect()));
        Self { known, of_name, of_pool: of_pool.collect(), from_name: 0, from_pool: 0 }
    }

    fn of(&mut self, id: JobId, named: &Named, pool: Option<&PoolName>, machine: Option<&InstanceId>) -> Vec<String> {
        if let Some(job) = self.known.jobs.get(&id) {
            return job.labels.clone();
        }
        if let Some((_, labels)) = self.of_name.get(named).filter(|_| named.2.is_some()) {
            self.from_name += 1;
            return labels.clone();
        }
        self.from_pool += 1;
        let class = machine.and_then(|id| self.known.instances.get(id)?.class.as_ref());
        let of_pool = || pool.and_then(|pool| self.of_pool.get(pool)).cloned().unwrap_or_default();
        class.map_or_else(of_pool, |class| vec![class.to_string()])
    }

    fn note(&self) -> Option<String> {
        let parts = [
            (self.from_name, "that of a later job with the same name"),
            (self.from_pool, "that of its machine or its pool"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(jobs, _)| *jobs > 0).map(|(jobs, what)| format!("{jobs} have {what}")).collect();
        let total = count(self.from_name + self.from_pool, "job");
        (!parts.is_empty())
            .then(|| format!("the table no longer has the labels of {total}: instead of its own, {}", parts.join(", ")))
    }
}

/// None if the event has an unknown form.
fn job(id: JobId, (_, facts): &(u64, Value), log: &Log, labels: &mut Labels<'_>) -> Option<trace::Job> {
    let text = |field: &str| facts[field].as_str().map(ToOwned::to_owned);
    let repository = text("repository")?;
    let known = labels.known.jobs.get(&id);
    let (workflow, name) = log.names.get(&id).cloned().unwrap_or_default();
    let workflow = known.and_then(|job| job.workflow.clone()).or(workflow);
    let name = known.map(|job| job.name.clone()).or(name);
    let named = (repository.clone(), workflow.as_deref().map(shortened), name.as_deref().map(shortened));
    let pool = facts["pool"].as_str().and_then(|pool| pool.parse().ok());
    Some(trace::Job {
        id: id.0,
        run: facts["run_id"].as_u64()?,
        attempt: facts["run_attempt"].as_u64().and_then(|attempt| attempt.try_into().ok()).unwrap_or(1),
        labels: labels.of(id, &named, pool.as_ref(), log.machines.get(&id)),
        repository,
        workflow,
        name,
        queued_at: time(facts, "queued_at")?,
        // Of a job that never ran, GitHub sends the time of its creation or of its end.
        started_at: time(facts, "started_at").filter(|_| facts["runner"].is_object()),
        ended_at: time(facts, "completed_at"),
        conclusion: text("conclusion"),
        after: None,
    })
}
