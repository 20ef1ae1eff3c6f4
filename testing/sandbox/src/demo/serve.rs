//! Keeps the sandbox running for a user with `curl` and `drover`.

use std::time::Duration;

use anyhow::Context;
use world::ec2::EndCause;

use super::pools::Pools;
use super::progress::Progress;
use crate::sandbox::Sandbox;
use crate::state::State;

/// Prints how to post a delivery and what happens then, until Ctrl-C.
pub(super) async fn serve(sandbox: &Sandbox, pools: &Pools) -> anyhow::Result<()> {
    println!(
        "In another shell, load the operator's environment and run drover:\n\n. {}\ndrover dashboard\n\n(or drover ps, explain, doctor, ...)\n",
        sandbox.operators_shell()?.display()
    );
    let progress = Progress::start(sandbox.world.clone(), 1);
    let mut number = 0;
    loop {
        let target = pools.target(number);
        let labels: Vec<&str> = target.labels.iter().map(String::as_str).collect();
        let job = sandbox.queue_job(&target.repository, &labels, Duration::from_secs(2));
        let delivery = sandbox.webhooks.withhold(job).context("the model of GitHub has no delivery for the job")?;
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
        tokio::select! {
            _ = sandbox.world.until("the delivery", Duration::from_secs(365 * 24 * 3600), over) => number += 1,
            pressed = tokio::signal::ctrl_c() => {
                progress.finish().await;
                return pressed.context("cannot listen to Ctrl-C");
            }
        }
    }
}
