//! The scaler's bootstrap.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use platform::control::ControlPlane;
use scaler::{Batch, Pools, handle};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    platform::telemetry::init();
    let control = &ControlPlane::from_environment(&platform::aws::config().await?)?;
    let figures = &control.figures()?;
    let pools = &Pools::default();
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Batch>| {
        let context = control.invocation(&event.context.request_id, event.context.deadline)?;
        let failures = handle(&context, pools, event.payload).await;
        figures.tell();
        Ok::<_, Error>(failures)
    }))
    .await
}
