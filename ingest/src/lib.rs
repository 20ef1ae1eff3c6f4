//! Ingest: verifies one delivery of GitHub's webhook and sends its content to the queue.
//!
//! **Architecture Invariant:** ingest uses no table and no EC2, and knows no pools. It does not decide whether a job belongs
//! to Drover, so a mistake in the pool file can never lose a delivery.
//!
//! Retry policy: GitHub never repeats a delivery by itself, but lists the failed ones, and the janitor requests them again.
//! Therefore a failure that may be temporary is answered with 503. 2xx means that the message is on the queue or that
//! Drover has no use for the event. An event that GitHub signed and that cannot be used is one of those: delivered again, it
//! would be the same.

mod delivery;
mod rejections;
mod request;
mod verify;

use domain::wire::Message;
use engine::ports::Clock;
use jiff::SignedDuration;
use platform::clock::SystemClock;
use platform::ingest_metrics::IngestMetrics;
use platform::queue::Queue;
use platform::secrets::WebhookSecret;

pub use delivery::{Delivered, NotJson, Unusable, parse};
use rejections::Rejections;
pub use request::{Answer, Request};
pub use verify::{Checked, Signature, Verified};

/// The largest accepted body. A `workflow_job` event has 8 to 14 KB, and an SQS message at most 1 MiB.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// What the function uses.
#[derive(Debug)]
pub struct Ingest {
    pub secret: WebhookSecret,
    /// The queue that the scaler reads.
    pub queue: Queue,
    pub metrics: IngestMetrics,
    rejections: Rejections,
}

impl Ingest {
    pub fn new(secret: WebhookSecret, queue: Queue, metrics: IngestMetrics) -> Self {
        Self { secret, queue, metrics, rejections: Rejections::default() }
    }

    /// Handles one request. Every request gets an answer. Each answer is logged once, without body and signature, except that
    /// of the rejected signatures one in ten seconds is logged: a flood of them must not become a flood of log lines.
    pub async fn receive(&self, request: Request) -> Answer {
        let delivery = request.delivery_id();
        let answer = self.answer(request).await;
        let (status, result, reason) = (answer.status, answer.result, answer.reason.as_str());
        let (delivery, job) = (delivery.as_str(), answer.job.map(|job| job.0));
        let sentence = format!("delivery {delivery}: {status} {result} {reason}");
        match status {
            500.. => tracing::error!(delivery, job, status, result, reason, "{sentence}"),
            401 => {
                if let Some(rejected) = self.rejections.add(SystemClock.now()) {
                    self.metrics.signatures_rejected(rejected);
                    let sentence = format!("{sentence} ({rejected} since the last line about a signature)");
                    tracing::warn!(delivery, status, result, reason, rejected, "{sentence}");
                }
            }
            400..500 => tracing::warn!(delivery, job, status, result, reason, "{sentence}"),
            _ => tracing::info!(delivery, job, status, result, reason, "{sentence}"),
        }
        answer
    }

    /// The signature's form is checked first: a request without one costs neither a decoding nor a read of the secret.
    async fn answer(&self, request: Request) -> Answer {
        // A missing, repeated or wrong signature gets the same answer, so that a forger learns nothing from it.
        let Some(signature) = request.signature() else {
            return Answer::rejected(401, "signature");
        };
        let (event, delivery, is_form) = (request.event(), request.delivery_id(), request.is_form());
        if request.is_larger_than(MAX_BODY_BYTES) {
            return Answer::rejected(413, "the body is larger than 1 MiB");
        }
        let Some(body) = request.body() else {
            return Answer::rejected(400, "the body is not valid base64");
        };
        if body.len() > MAX_BODY_BYTES {
            return Answer::rejected(413, "the body is larger than 1 MiB");
        }
        let now = SystemClock.now();
        let body = match Verified::check(&self.secret, body, &signature, now).await {
            Checked::Signed(body) => body,
            Checked::Forged => return Answer::rejected(401, "signature"),
            Checked::Unknown(error) => {
                tracing::error!("the delivery cannot be verified: {error}");
                return Answer::rejected(503, "the webhook secret cannot be read");
            }
        };
        if is_form {
            return Answer::rejected(400, "the webhook's content type must be application/json");
        }
        match parse(&event, &body, delivery, now) {
            Ok(Delivered::Ignored(why)) => Answer::ignored(why),
            Ok(Delivered::Unusable(why)) => {
                self.metrics.delivery_unusable();
                Answer::ignored(&why.to_string())
            }
            Ok(Delivered::Notice(notice)) => {
                let job = notice.job.id;
                match self.queue.send(&Message::WorkflowJob(notice), SignedDuration::ZERO).await {
                    Ok(()) => Answer::enqueued(job),
                    Err(error) => {
                        tracing::error!("the delivery cannot be enqueued: {error}");
                        Answer { job: Some(job), ..Answer::rejected(503, "the queue cannot be used") }
                    }
                }
            }
            Err(not_json) => Answer::rejected(400, not_json.to_string()),
        }
    }
}
