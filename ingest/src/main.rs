//! Starts ingest.

use ingest::{Answer, Ingest, Request};
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use platform::environment::{parsed, required};
use platform::ingest_metrics::IngestMetrics;
use platform::queue::Queue;
use platform::secrets::{Secret, WebhookSecret};
use platform::telemetry;
use tracing::Instrument;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let aws = platform::aws::config().await?;
    let secret = WebhookSecret::new(Secret::new(&aws, required("DROVER_WEBHOOK_SECRET")?));
    let queue = Queue::new(&aws, required("DROVER_QUEUE_URL")?);
    let ingest = &Ingest::new(secret, queue, IngestMetrics::new(&parsed("DROVER_STACK")?));
    // Not `lambda_runtime::run`: that opens a span of its own with the same id under another name.
    Runtime::new(service_fn(|event: LambdaEvent<Request>| {
        let span = telemetry::invocation_span(&event.context.request_id);
        async move { Ok::<Answer, Error>(ingest.receive(event.payload).await) }.instrument(span)
    }))
    .run()
    .await
}
