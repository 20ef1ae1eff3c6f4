//! The pool with shapes of `--shapes`, and the labels of its jobs.

use anyhow::{Context, ensure};
use toml::{Table, Value};
use world::github::JobId;

use super::pools::{Pools, Target};
use super::pushed::{Pushed, Wrong};
use crate::pace::PATIENCE;
use crate::sandbox::Sandbox;
use crate::state::State;

/// Name of the pool.
pub(super) const POOL: &str = "any";

/// The launch template for Arm. That for x64 is the one of the first pool.
pub(crate) const ARM_TEMPLATE: &str = "drover-arm";

/// The fields of the pool that the first pool of the file does not have.
const FIELDS: &str = r#"
name = "any"
market = "spot-then-on-demand"
# Before the check runs about wrong labels, which come a minute after a job.
notice_after = "45s"

[shapes]
cpu = "1..32"
ram = "2..128"
arch = ["x64", "arm64"]
disk = "40..500"
market = ["spot", "on-demand"]
usd_per_hour = 2.0
"#;

/// Fields of the first pool that a pool with shapes must not have.
const NOT_FOR_SHAPES: [&str; 4] = ["labels", "instance_types", "launch_template", "launch_template_version"];

/// What jobs ask for, in turn. Their number has no common factor with the interval of a fault, so that each fault affects every
/// class. The eighth and the ninth label are two spellings of one shape, and so two classes. The fifth and the last are one class.
const LABELS: [&str; 13] = [
    "any/2cpu",
    "any/8cpu/32gb/on-demand",
    "any/8cpu/32gb/arm64/spot",
    "any/8cpu/16gb/200disk",
    "any/2cpu/arm64",
    "any/8cpu/64gb",
    "any/4cpu/16gb/spot",
    "any/2cpu/8gb/x64",
    "any/x64/8gb/2cpu",
    "any/arm64/on-demand/100disk",
    "any/8cpu/arm64/spot/60disk",
    "any/on-demand",
    "ANY/2CPU/ARM64",
];

/// Labels that the pool cannot serve, each with a part of the sentence that says how to correct it.
const WRONG: [(&[&str], &str); 5] = [
    (&["any/8cpus"], "write 8cpu, 32gb, 200disk, x64, arm64, spot or on-demand"),
    (&["any/64cpu/arm64"], "the pool allows 1..32 vCPUs"),
    (&["any/8cpu/4cpu"], "keep one of them"),
    (&["any/8cpu", "self-hosted"], "must be the job's only label"),
    (&["any/32cpu/128gb"], "no instance type that the pool allows satisfies any/32cpu/128gb"),
];

/// The machines that the pool may have: fewer than jobs, so that classes compete for them.
fn max(jobs: u32) -> u32 {
    jobs.div_ceil(2).max(4)
}

/// Adds the pool to a pool file. Otherwise it is like the first pool.
pub(crate) fn add_pool(file: &str, jobs: u32) -> anyhow::Result<String> {
    let mut file: Table = file.parse()?;
    let default = file.get_mut("defaults").and_then(Value::as_table_mut).and_then(|it| it.remove("launch_template"));
    let pools = file.get_mut("pool").and_then(Value::as_array_mut).context("the file has no [[pool]]")?;
    // The default of all pools is an error in a pool with shapes.
    for pool in pools.iter_mut().filter_map(Value::as_table_mut) {
        if let Some(template) = &default {
            pool.entry("launch_template").or_insert_with(|| template.clone());
        }
    }
    let mut pool = pools.first().and_then(Value::as_table).context("the file has no [[pool]]")?.clone();
    let template = pool.get("launch_template").cloned().context("the first pool has no launch_template")?;
    pool.retain(|name, _| !NOT_FOR_SHAPES.contains(&name));
    pool.extend(FIELDS.parse::<Table>()?);
    pool.insert("max".to_owned(), max(jobs).into());
    let templates = Table::from_iter([("x64".to_owned(), template), ("arm64".to_owned(), ARM_TEMPLATE.into())]);
    pool.insert("launch_templates".to_owned(), templates.into());
    pools.push(pool.into());
    Ok(file.to_string())
}

/// The target of a job that asks for a shape, by its index.
pub(super) fn target(pools: &Pools, job: usize, spot_stops: bool) -> Target {
    let labels = labels(spot_stops);
    Target { labels: vec![labels[job % labels.len()].to_owned()], ..pools.target(0) }
}

/// `spot_stops`: spot launches stop for five minutes, and a job that asks for spot would wait until then.
pub(crate) fn labels(spot_stops: bool) -> Vec<&'static str> {
    let waits = |label: &str| spot_stops && label.split('/').any(|term| term == "spot");
    LABELS.into_iter().filter(|label| !waits(label)).collect()
}

/// Whether the pool can serve jobs with this label.
pub(super) fn is_valid(label: &str) -> bool {
    LABELS.contains(&label)
}

/// Queues the jobs with wrong labels.
pub(super) fn push_wrong(sandbox: &Sandbox, pools: &Pools) -> Vec<Wrong> {
    let repository = pools.target(0).repository;
    let queue = |(labels, remedy): (&[&str], &'static str)| {
        let job = sandbox.queue(&repository, labels, |job| job);
        Wrong { job, labels: labels.join(", "), remedy }
    };
    WRONG.into_iter().map(queue).collect()
}

/// Waits until the author of each job with a wrong label can read on the commit how to correct it.
pub(super) async fn advised(sandbox: &Sandbox, pushed: &Pushed) -> anyhow::Result<()> {
    for Wrong { job, labels, remedy } in &pushed.wrong {
        let read = |state: &State| message(state, *job);
        let message = sandbox.world.until(&format!("a check run about {labels}"), PATIENCE, read).await?;
        ensure!(message.contains(remedy), "the author of {labels} reads {message:?}, which does not say: {remedy}");
    }
    Ok(())
}

/// What the author of a job reads in the check run on the job's commit.
fn message(state: &State, job: JobId) -> Option<String> {
    let (run, id) = (state.github.run(state.github.job(job)?.run)?, job.to_string());
    let mut about = state.github.check_runs().filter(|it| it.now.external_id.as_ref() == Some(&id));
    let output = about.find(|it| it.head_sha == run.head_sha)?.now.output.as_ref()?;
    Some(format!("{}\n{}", output.title, output.summary))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use drover::pool_file::PoolFile;

    use super::*;

    const POOLS: &str = include_str!("../../../../pools.toml");

    #[test]
    fn the_pool_file_with_the_pool_is_valid() {
        let text = add_pool(POOLS, 60).unwrap();
        let file = PoolFile::parse("pools.toml", &text);
        assert!(file.errors.is_empty(), "{}", file.report().text);
        let pool = file.pools.iter().find(|pool| pool.name.as_str() == POOL).unwrap();
        assert!(pool.shapes.is_some() && pool.max == 30 && pool.launch_templates.len() == 2);
        assert_eq!(file.pools.len(), 3);
    }

    #[test]
    fn few_jobs_have_many_classes_and_those_that_lose_their_machine_may_use_spot() {
        let classes: BTreeSet<String> = LABELS.iter().map(|label| label.to_lowercase()).collect();
        assert_eq!(classes.len(), 12);
        assert!(!labels(true).iter().any(|label| label.contains("spot")) && labels(true).len() >= 8);
        // `--spot-kill` of eight jobs affects the third and the seventh.
        assert!([2, 6].iter().all(|job| !LABELS[*job].contains("on-demand")));
    }
}
