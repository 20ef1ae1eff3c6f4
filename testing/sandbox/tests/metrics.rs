//! The metrics in the functions' logs: every listed metric is recorded, no other is, and the docs list them all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use engine::metrics::ALL;
use sandbox::deliveries::{WebhookFaults, signature};
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, FOREIGN_REPOSITORY, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;
use serde_json::Value;
use world::ec2::{Code, LaunchMatch, Refusal, When};
use world::github::{Endpoint, QueueJob, Webhooks};

const SECOND: Duration = Duration::from_secs(1);

/// A metric's unit and dimensions, by its name.
type Shapes = BTreeMap<String, (String, Vec<String>)>;

fn listed() -> Shapes {
    let shape = |dimensions: &[&str]| dimensions.iter().map(|name| (*name).to_owned()).collect();
    ALL.iter()
        .map(|it| {
            (it.name.to_owned(), (it.unit.map_or(String::new(), |unit| format!("{unit:?}")), shape(it.dimensions)))
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The metrics that the functions have recorded so far, and the sum of each metric's values.
fn recorded(sandbox: &Sandbox) -> anyhow::Result<(Shapes, BTreeMap<String, f64>)> {
    let (mut shapes, mut sums) = (Shapes::new(), BTreeMap::new());
    for entry in std::fs::read_dir(sandbox.folder().join("functions"))? {
        for line in std::fs::read_to_string(entry?.path())?.lines().filter(|line| line.contains("_aws")) {
            let line: Value = serde_json::from_str(line)?;
            for directive in line["_aws"]["CloudWatchMetrics"].as_array().context("directives")? {
                assert_eq!(directive["Namespace"], "Drover/sandbox");
                let dimensions: Vec<String> =
                    directive["Dimensions"][0].as_array().context("a set of dimensions")?.iter().map(text).collect();
                for metric in directive["Metrics"].as_array().context("metrics")? {
                    let name = text(&metric["Name"]);
                    let value = &line[&name];
                    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                    let sum: f64 = values.iter().filter_map(Value::as_f64).sum();
                    *sums.entry(name.clone()).or_default() += sum;
                    assert!(values.iter().all(|value| value.as_f64().is_some_and(|it| it >= 0.0)), "{line}");
                    for dimension in &dimensions {
                        assert!(line[dimension].is_string(), "{dimension} has a value: {line}");
                    }
                    shapes.insert(name, (text(&metric["Unit"]), dimensions.clone()));
                }
            }
        }
    }
    Ok((shapes, sums))
}

/// The number of values of a metric in the functions' logs.
fn values(sandbox: &Sandbox, name: &str) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(sandbox.folder().join("functions"))? {
        for line in std::fs::read_to_string(entry?.path())?.lines().filter(|line| line.contains("_aws")) {
            let line: Value = serde_json::from_str(line)?;
            let value = &line[name];
            count += value.as_array().map_or(usize::from(!value.is_null()), Vec::len);
        }
    }
    Ok(count)
}

/// Waits for this many messages, and runs the scaler until the queue is empty.
async fn consume(sandbox: &Sandbox, messages: usize) -> anyhow::Result<()> {
    let arrived = |state: &sandbox::state::State| (state.sqs.bodies(QUEUE).len() >= messages).then_some(());
    sandbox.world.until("the messages on the queue", PATIENCE, arrived).await?;
    while let Some(next) = sandbox.world.look(|state| state.sqs.next_visible(QUEUE)) {
        sandbox::state::until(Some(next)).await;
        ensure!(sandbox.scale().await?.failed == 0, "a message failed");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_of_a_batch_of_hundreds_of_jobs_is_lost() -> anyhow::Result<()> {
    const JOBS: usize = 300;
    let mut options = Options { driven: Driven::ByHand, batch_size: JOBS, ..Options::default() };
    options.ec2.throttle = false;
    options.ec2.pending = Duration::from_secs(3600);
    options.github.limits.enforced = false;
    let sandbox = Sandbox::start(options).await?;
    sandbox.apply(&one_pool("max = 1000\nidle_grace = \"1h\"\n")).await?;
    for _ in 0..JOBS {
        sandbox.queue_job("octo-org/widgets", &["drover"], SECOND);
    }
    consume(&sandbox, JOBS).await?;
    // Every runner receives a job, whose start is reported.
    let runners: Vec<_> = sandbox.world.look(|state| state.github.registrations().map(|runner| runner.id).collect());
    assert_eq!(runners.len(), JOBS);
    for runner in runners {
        let job = sandbox.world.act(|state, now| state.github.run_without_process(runner, now));
        assert!(job.is_ok_and(|job| job.is_some()), "the runner receives a job");
    }
    consume(&sandbox, JOBS).await?;
    for name in ["WebhookTime", "LaunchTime", "RegisterTime"] {
        assert_eq!(values(&sandbox, name)?, JOBS, "{name}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_listed_metric_is_recorded_and_no_other() -> anyhow::Result<()> {
    let webhook_faults = WebhookFaults { lose_every: Some(5), ..WebhookFaults::default() };
    let sandbox = Sandbox::start(Options { sweep_every: SECOND, webhook_faults, ..Options::default() }).await?;
    let types = one_pool("usage = true\n").replace("\"m7i.large\"", "\"m7i.large\", \"m7a.large\"");
    sandbox.apply(&types).await?;
    sandbox.unowned(&[]);
    // One of the two needs an operator.
    let refusals = [Code::InsufficientInstanceCapacity, Code::InvalidParameterValue].map(|code| Refusal {
        matches: LaunchMatch::default(),
        code,
        when: When::Next(1),
    });
    sandbox.world.act(|state, _| {
        state.ec2.faults.refusals.extend(refusals);
        state.github.faults.broken.push_back((Endpoint::ListRunners, 502));
    });
    // A job of a foreign repository waits longest and takes the first runner. Each fifth delivery is lost, which is none of its
    // deliveries.
    sandbox.open_groups();
    sandbox.queue_job(&format!("octo-org/{FOREIGN_REPOSITORY}"), &["drover"], SECOND);
    let mut jobs = vec![sandbox.queue_job("octo-org/widgets", &["drover"], SECOND)];
    sandbox.reconcile(&jobs, PATIENCE).await?;
    // No pool serves the first job, and GitHub sends no webhook for the third.
    sandbox.queue_job("octo-org/widgets", &["windows"], SECOND);
    jobs.push(sandbox.queue_job("octo-org/widgets", &["drover"], SECOND));
    jobs.push(sandbox.queue("octo-org/widgets", &["drover"], |job| QueueJob {
        webhooks: Webhooks::NeverAttempted,
        runs_for: SECOND,
        ..job
    }));
    sandbox.reconcile(&jobs, PATIENCE).await?;
    let given_up = sandbox.queue_job("octo-org/widgets", &["drover"], SECOND);
    let launched = |state: &sandbox::state::State| (state.ec2.alive().count() == 1).then_some(());
    sandbox.world.until("a machine for it", PATIENCE, launched).await?;
    sandbox.world.act(|state, now| state.github.cancel(given_up, now));
    sandbox.reconcile(&[], PATIENCE).await?;

    // A forged delivery, and one that GitHub signed and that Drover cannot use.
    let unusable = r#"{"action":"queued","workflow_job":null}"#;
    for secret in ["forged", "It's a Secret to Everybody"] {
        let request = reqwest::Client::new().post(&sandbox.webhooks.url).header("x-github-event", "workflow_job");
        let signed = request.header("x-hub-signature-256", signature(secret, unusable.as_bytes()));
        signed.body(unusable).send().await?;
    }

    let pool = one_pool("stopped = 1\nusage = true\n")
        .replace("repositories = [\"octo-org/widgets\"]\n", "allow_public = true\n");
    sandbox.apply(&pool).await?;
    let (mut shapes, mut sums) = recorded(&sandbox)?;
    let all = async || {
        (shapes, sums) = recorded(&sandbox)?;
        Ok((shapes.len() == ALL.len()).then_some(()))
    };
    // If one is missing, the comparison names it.
    let _ = sandbox.sweep_until("every metric", all).await;
    assert_eq!(shapes, listed());
    let sum = |name: &str| sums.get(name).copied().unwrap_or_default();
    assert_eq!(sum("JobsCompleted"), jobs.len() as f64 + 1.0, "{sums:?}");
    assert_eq!((sum("SignaturesRejected"), sum("DeliveriesUnusable")), (1.0, 1.0), "{sums:?}");
    assert_eq!((sum("LaunchesRefused"), sum("JobsStolen"), sum("Reaped")), (1.0, 1.0, 1.0), "{sums:?}");
    Ok(())
}

#[test]
fn the_docs_list_every_metric() {
    let docs = include_str!("../../../docs/metrics.md");
    let mut rows = Shapes::new();
    for line in docs.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, unit, dimensions, _] = cells[..] else { panic!("{line}") };
        let names = dimensions.split(',').map(|name| name.trim().trim_matches('`').to_owned());
        rows.insert(
            name.trim_matches('`').to_owned(),
            (unit.to_owned(), names.filter(|name| !name.is_empty()).collect()),
        );
    }
    assert_eq!(rows, listed());
    let dimensions: BTreeSet<&str> = ALL.iter().flat_map(|it| it.dimensions).copied().collect();
    assert_eq!(dimensions, ["Outcome", "Owner", "Pool", "Reason", "Result"].into(), "each must have few values");
}
