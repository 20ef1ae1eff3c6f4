//! The janitor's bootstrap: one sweep an invocation, whatever woke it.

use engine::sweep::{Mode, Report, sweep};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use platform::control::ControlPlane;
use serde::de::IgnoredAny;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    platform::telemetry::init();
    let control = &ControlPlane::from_environment(&platform::aws::config().await?)?;
    let figures = &control.figures()?;
    let mode = match platform::environment::flag("DROVER_DRY_RUN")? {
        true => Mode::DryRun,
        false => Mode::Repair,
    };
    lambda_runtime::run(service_fn(async |event: LambdaEvent<IgnoredAny>| {
        let context = control.invocation(&event.context.request_id, event.context.deadline)?;
        let report = sweep(&context, mode).await?;
        tell(&report);
        figures.look_at_images(context.now()).await;
        figures.tell();
        Ok::<_, Error>(report)
    }))
    .await
}

fn tell(report: &Report) {
    tracing::info!(
        found = report.found, reaped = ?report.reaped, already_gone = report.already_gone, held = report.held,
        failed = report.failed, fused = ?report.fused,
        "swept: {} found", report.found
    );
}
