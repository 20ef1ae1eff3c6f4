//! Starts the janitor: one sweep per invocation. The event's content does not matter.

use engine::sweep::{Mode, Report, sweep};
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use platform::control::ControlPlane;
use platform::environment::optional;
use platform::telemetry;
use serde::de::IgnoredAny;
use tracing::Instrument;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let aws = platform::aws::config().await?;
    let reports = optional("DROVER_REPORTS_TABLE").filter(|name| !name.is_empty());
    let control = &ControlPlane::from_environment(&aws)?.with_reports(&aws, reports);
    let metrics = &control.metrics()?;
    let mode = match platform::environment::flag("DROVER_DRY_RUN")? {
        true => Mode::DryRun,
        false => Mode::Repair,
    };
    let invoke = async |event: LambdaEvent<IgnoredAny>| {
        let context = control.invocation(&event.context.request_id, event.context.deadline)?;
        let report = sweep(&context, mode).await?;
        log_report(&report);
        metrics.record_image_ages(context.now()).await;
        metrics.flush();
        Ok::<Report, Error>(report)
    };
    // Not `lambda_runtime::run`: that opens a span of its own with the same id under another name.
    Runtime::new(service_fn(|event: LambdaEvent<IgnoredAny>| {
        let span = telemetry::invocation_span(&event.context.request_id);
        invoke(event).instrument(span)
    }))
    .run()
    .await
}

fn log_report(report: &Report) {
    tracing::info!(
        found = report.found, reaped = ?report.reaped, already_gone = report.already_gone, held = report.held,
        failed = report.failures.len(), fused = ?report.safety_limits,
        "sweep finished: {} found", report.found
    );
}
