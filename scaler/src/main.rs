//! Starts the scaler.

use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use platform::control::ControlPlane;
use platform::telemetry;
use scaler::{Batch, Failures, Pools, handle};
use tracing::Instrument;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let control = &ControlPlane::from_environment(&platform::aws::config().await?)?;
    let metrics = &control.metrics()?;
    let pools = &Pools::default();
    let invoke = async |event: LambdaEvent<Batch>| {
        let context = control.invocation(&event.context.request_id, event.context.deadline)?;
        let failures = handle(&context, pools, event.payload).await;
        metrics.flush();
        Ok::<Failures, Error>(failures)
    };
    // Not `lambda_runtime::run`: that opens a span of its own with the same id under another name.
    Runtime::new(service_fn(|event: LambdaEvent<Batch>| {
        let span = telemetry::invocation_span(&event.context.request_id);
        invoke(event).instrument(span)
    }))
    .run()
    .await
}
