//! Keeps the sandbox running for a user with `curl` and `drover`.

use std::time::Duration;

use world::ec2::EndCause;

use super::arguments::Arguments;
use super::pools::Pools;
use super::progress::Progress;
use super::push::push;
use crate::sandbox::Sandbox;
use crate::state::State;

/// Far longer than anyone serves.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Pushes the jobs that were asked for, then prints how to post a delivery and what happens then, without end.
pub(super) async fn serve(sandbox: &Sandbox, pools: &Pools, arguments: &Arguments) -> anyhow::Result<()> {
    println!(
        "In another shell, load the operator's environment and run drover:\n\n. {}\ndrover dashboard\n\n(or drover ps, explain, doctor, ...)\n",
        sandbox.operators_shell()?.display()
    );
    let progress = Progress::start(sandbox.world.clone(), arguments.jobs.unwrap_or(1));
    let served = offer_jobs(sandbox, pools, arguments).await;
    progress.finish().await;
    served
}

async fn offer_jobs(sandbox: &Sandbox, pools: &Pools, arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.jobs.is_some() {
        push(sandbox, pools, arguments).await?;
    }
    for number in 0.. {
        let target = pools.target(number);
        let labels: Vec<&str> = target.labels.iter().map(String::as_str).collect();
        let job = sandbox.queue_job(&target.repository, &labels, Duration::from_secs(2));
        let Some(delivery) = sandbox.webhooks.withhold(job) else {
            println!(
                "GitHub sends nothing about {}: no app is installed there. drover init sets one up; this goes on once it is \
                 installed.\n\n(Press Ctrl-C to stop)",
                target.repository
            );
            let (owner, name) = target.repository.split_once('/').unwrap_or_default();
            let installed = |state: &State| {
                let repository = state.github.find_repository(owner, name)?;
                state.github.sends_jobs_of(repository).then_some(())
            };
            sandbox.world.until("the app to be installed", FOREVER, installed).await?;
            continue;
        };
        let file = sandbox.folder().join(format!("queued-{job}.json"));
        std::fs::write(&file, &delivery.body)?;
        println!(
            "Job {job} is queued on GitHub, but its delivery was not sent. To send it:\n\n\
             curl -i {} -H 'content-type: application/json' -H 'x-github-event: workflow_job' \
             -H 'x-github-delivery: {}' -H 'x-hub-signature-256: {}' --data-binary @{}\n\n(Press Ctrl-C to stop)",
            sandbox.webhooks.url,
            delivery.guid,
            delivery.signature,
            file.display()
        );
        let over = |state: &State| {
            let ended = state.github.job(job).is_some_and(|job| job.completed_at.is_some());
            (ended && state.ec2.ended().iter().any(|it| it.why == EndCause::PowerOff)).then_some(())
        };
        sandbox.world.until("the end of the job", FOREVER, over).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use clap::Parser;

    use super::*;
    use crate::pace::PATIENCE;
    use crate::sandbox::{Driven, Options};

    const POOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pools.toml");

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn serving_goes_on_without_an_app_and_begins_with_the_jobs_that_were_asked_for() -> anyhow::Result<()> {
        let arguments = Arguments::try_parse_from(["demo", "--pools", POOLS, "--serve", "--jobs", "4"])?;
        let pools = Pools::read(&arguments.pools, &arguments.fields())?;
        let searched = pools.with_short_timings.matches("poll_interval = \"10m\"").count();
        anyhow::ensure!(
            searched == 2,
            "no search finds a job before its delivery was sent: {}",
            pools.with_short_timings
        );
        let options = Options {
            driven: Driven::ByHand,
            repositories: pools.repositories(),
            groups: pools.groups(),
            launch_templates: pools.launch_templates(),
            subnets: pools.subnets(),
            ..Options::default()
        };
        let sandbox = Sandbox::start(options).await?;
        sandbox.forget_app();
        let owners: Vec<String> =
            pools.repositories().iter().map(|repository| repository.owner.as_str().to_owned()).collect();
        let offering = async {
            offer_jobs(&sandbox, &pools, &arguments).await.context("serving has ended")?;
            Ok(())
        };
        let queued = |jobs: usize| {
            sandbox.world.until("the jobs", PATIENCE, move |state| (state.github.jobs().count() >= jobs).then_some(()))
        };
        let notified = async {
            // Those that were asked for, and one that has no delivery.
            queued(5).await?;
            sandbox.world.act(|state, now| {
                for owner in &owners {
                    if let Some(id) = state.github.find_owner(owner).map(|owner| owner.id) {
                        state.github.install(id, now);
                    }
                }
            });
            queued(6).await
        };
        tokio::select! {
            ended = offering => ended,
            notified = notified => notified,
        }
    }
}
