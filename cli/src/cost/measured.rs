//! `drover cost --advice`: which smaller machines would have been enough for measured jobs, and what they would have cost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use domain::config::{Architecture, MicroUsd, Pool, Prices, TypeFacts};
use domain::ids::{InstanceId, InstanceType, JobId, Repository};
use domain::state::Job;
use jiff::{SignedDuration, Timestamp};
use platform::ec2::known_types;
use platform::table::Table;
use serde_json::{Value, json};
use whatif::offline;

use super::advice::{Advice, FEWEST_RUNS, Measured, PricesFrom, Run, Types, Verdict, advise};
use crate::jobs::{ended, machines_of};
use crate::output::{Failure, Output, count, period, table, usd};
use crate::read::pools;

/// The question to answer.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub since: SignedDuration,
    pub prices: &'a Prices,
    pub region: &'a str,
}

/// What identifies a job of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    repository: Repository,
    workflow: Option<String>,
    job: String,
}

/// A run of a job that its machine has measured.
struct Ran<'a> {
    pool: &'a Pool,
    id: JobId,
    ended_at: Timestamp,
    labels: Vec<String>,
    run: Run,
}

/// Advises about the jobs that ended within the period.
///
/// # Errors
/// No pool measures what its jobs use, or the table cannot be read.
pub async fn advice(store: &Table, question: &Question<'_>, now: Timestamp) -> Result<Output, Failure> {
    let pools: Vec<Pool> = pools(store, None).await?.into_iter().filter(|pool| pool.usage).collect();
    if pools.is_empty() {
        let none = "no pool measures what its jobs use -> write usage = true into a pool, then drover pools apply FILE";
        return Err(Failure::Usage(none.to_owned()));
    }
    let mut jobs: BTreeMap<Name, Vec<Ran>> = BTreeMap::new();
    for pool in &pools {
        for (job, ran) in ran(store, pool, now - question.since, now).await? {
            let Job { repository, workflow, name, .. } = job;
            jobs.entry(Name { repository, workflow, job: name }).or_default().extend(ran);
        }
    }
    let list_price = |it: &InstanceType| question.prices.cost(it, question.region, SignedDuration::from_hours(1));
    let types = Types { named: named(list_price), list_price: &list_price };
    let unmeasured = jobs.values().filter(|ran| ran.is_empty()).count();
    let judged = jobs.into_iter().filter_map(|(name, ran)| {
        let job = latest(ran)?;
        let verdict = advise(&job, &types);
        Some((name, job, verdict))
    });
    Ok(output(&judged.collect::<Vec<_>>(), unmeasured, question))
}

/// The runs on the pool and the architecture of the latest one: on others, a job may need something else.
fn latest(mut ran: Vec<Ran<'_>>) -> Option<Measured<'_>> {
    ran.sort_by_key(|it| (it.ended_at, it.id));
    let last = ran.last()?;
    let (pool, labels, architecture) = (last.pool, last.labels.clone(), Architecture::of(&last.run.instance_type));
    ran.retain(|it| it.pool.name == pool.name && Architecture::of(&it.run.instance_type) == architecture);
    Some(Measured { pool, labels, runs: ran.into_iter().map(|it| it.run).collect() })
}

/// The jobs of the pool that ran and ended in the period, with what their machines have reported.
async fn ran<'a>(
    store: &Table,
    pool: &'a Pool,
    since: Timestamp,
    now: Timestamp,
) -> Result<Vec<(Job, Option<Ran<'a>>)>, Failure> {
    let ended = ended(store, pool, &(since..now)).await?;
    let instances = machines_of(store, &ended).await?;
    let measured = |job: &Job, id: &InstanceId| {
        let instance = instances.get(id)?;
        let (started_at, ended_at) = (job.started_at?, job.completed_at?);
        let run = Run {
            usage: instance.usage_of(job.id)?.clone(),
            succeeded: job.conclusion.as_deref() == Some("success"),
            lasted: ended_at.duration_since(started_at),
            instance_type: instance.instance_type.clone()?,
            price_per_hour: instance.price_per_hour,
        };
        Some(Ran { pool, id: job.id, ended_at, labels: job.labels.clone(), run })
    };
    let ended = ended.into_iter().filter_map(|(job, id)| {
        let ran = measured(&job, &id?);
        Some((job, ran))
    });
    Ok(ended.collect())
}

/// What the names of the types with a list price say.
fn named(list_price: impl Fn(&InstanceType) -> Option<MicroUsd>) -> BTreeMap<InstanceType, TypeFacts> {
    let types = offline::types(known_types(), list_price).into_iter();
    let facts = types.map(|it| {
        let name = InstanceType::from(it.name);
        let facts = TypeFacts {
            vcpus: it.vcpus,
            memory_mib: it.memory_mib,
            architecture: Architecture::of(&name),
            only_if_listed: !it.current_generation || it.burstable || it.bare_metal,
            zones: BTreeSet::new(),
            price_per_hour: None,
        };
        (name, facts)
    });
    facts.collect()
}

fn output(judged: &[(Name, Measured<'_>, Verdict)], unmeasured: usize, question: &Question<'_>) -> Output {
    let mut advised: Vec<(&Name, &Measured<'_>, &Advice)> = judged
        .iter()
        .filter_map(|(name, job, verdict)| match verdict {
            Verdict::Advised(advice) => Some((name, job, advice)),
            Verdict::TooFewRuns | Verdict::NoneCheaper | Verdict::Unpriced => None,
        })
        .collect();
    advised.sort_by_key(|(name, _, advice)| (Reverse(saving(advice)), *name));
    let number = |of: &Verdict| judged.iter().filter(|(.., verdict)| verdict == of).count();
    let [few, none_cheaper, unpriced] =
        [Verdict::TooFewRuns, Verdict::NoneCheaper, Verdict::Unpriced].map(|it| number(&it));
    let few = few + unmeasured;

    let mut text = match advised.is_empty() {
        true => format!("no smaller machine is advised for a job of the last {}\n", period(question.since)),
        false => table(
            &["JOB", "RUNS", "NOW", "NEEDS", "ENOUGH", "USD", "INSTEAD", "SAVES"],
            advised.iter().map(|(name, job, advice)| cells(name, job, advice)),
        ),
    };
    text.push('\n');
    if !advised.is_empty() {
        text += &format!(
            "USD: what the runs of the last {} cost, and what they would have cost instead",
            period(question.since)
        );
        text += &notes(&advised, question);
    }
    let have = |number: usize| if number == 1 { "has" } else { "have" };
    if none_cheaper > 0 {
        let jobs = count(none_cheaper, "job");
        text += &format!("{jobs} {} no smaller machine that is enough and cheaper\n", have(none_cheaper));
    }
    if few > 0 {
        let jobs = count(few, "job");
        text += &format!("{jobs} {} fewer than five measured runs that succeeded\n", have(few));
    }
    if unpriced > 0 {
        let jobs = count(unpriced, "job");
        text += &format!(
            "no size or price is known of the machines of {jobs} -> make prices, then drover cost --advice --prices FILE\n"
        );
    }
    let rows: Vec<Value> = advised.iter().map(|(name, job, advice)| row(name, job, advice)).collect();
    let json = json!({
        "region": question.region, "prices": question.prices.read, "fewest_runs": FEWEST_RUNS, "rows": rows,
        "too_few_runs": few, "none_cheaper": none_cheaper, "unpriced": unpriced,
    });
    Output { ok: true, text, json }
}

fn saving(advice: &Advice) -> u64 {
    advice.before.0.saturating_sub(advice.after.0)
}

/// Which prices were compared.
fn notes(advised: &[(&Name, &Measured<'_>, &Advice)], question: &Question<'_>) -> String {
    let of = |prices: PricesFrom| advised.iter().filter(|(.., advice)| advice.prices == prices).count();
    let list = format!("on-demand list prices in {} of {}", question.region, question.prices.read);
    match (of(PricesFrom::Market), of(PricesFrom::List)) {
        (0, _) => format!(", both at {list}\n"),
        (_, 0) => ": the prices at the launches, and the price now\n".to_owned(),
        (_, some) => {
            format!(": the prices at the launches, and the price now; for {}, both at {list}\n", count(some, "job"))
        }
    }
}

fn cells(name: &Name, job: &Measured<'_>, advice: &Advice) -> Vec<String> {
    let Name { repository, workflow, job: job_name } = name;
    let saves = 100.0 * saving(advice) as f64 / advice.before.0.max(1) as f64;
    vec![
        format!("{repository}: {} / {job_name}", workflow.as_deref().unwrap_or("?")),
        job.runs.len().to_string(),
        now(job),
        format!("{}, {:.1} GiB", count(advice.need.vcpus as usize, "vCPU"), f64::from(advice.need.memory_mib) / 1024.0),
        advice.label.clone().unwrap_or_else(|| advice.instance_type.to_string()),
        usd(advice.before.usd()),
        usd(advice.after.usd()),
        format!("{saves:.0} %"),
    ]
}

/// The label of a job of a pool with shapes, or the type of its last machine.
fn now(job: &Measured<'_>) -> String {
    match &job.pool.shapes {
        Some(_) => job.labels.join(", "),
        None => job.runs.last().map(|run| run.instance_type.to_string()).unwrap_or_default(),
    }
}

fn row(name: &Name, job: &Measured<'_>, advice: &Advice) -> Value {
    let lasted: SignedDuration = job.runs.iter().map(|run| run.lasted).fold(SignedDuration::ZERO, |sum, it| sum + it);
    json!({
        "repository": name.repository, "workflow": name.workflow, "name": name.job, "pool": job.pool.name,
        "runs": job.runs.len(), "seconds": lasted.as_secs(), "labels": job.labels,
        "last_instance_type": job.runs.last().map(|run| &run.instance_type),
        "needed_vcpus": advice.need.vcpus, "needed_memory_mib": advice.need.memory_mib,
        "label": advice.label, "instance_type": advice.instance_type,
        "usd": advice.before.usd(), "usd_instead": advice.after.usd(), "usd_saved": MicroUsd(saving(advice)).usd(),
        "prices_from": advice.prices,
    })
}
