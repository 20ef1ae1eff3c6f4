//! Ingest's bootstrap.

use ingest::{Ingest, Request};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use platform::environment::required;
use platform::queue::Queue;
use platform::secrets::{Secret, WebhookSecret};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    platform::telemetry::init();
    let aws = platform::aws::config().await?;
    let ingest = &Ingest {
        secret: WebhookSecret::new(Secret::new(&aws, required("DROVER_WEBHOOK_SECRET")?)),
        queue: Queue::new(&aws, required("DROVER_QUEUE_URL")?),
    };
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Request>| {
        Ok::<_, Error>(ingest.receive(event.payload).await)
    }))
    .await
}
