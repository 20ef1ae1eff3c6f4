//! Ingest: verifies one delivery of GitHub's webhook and puts what it says on the queue.
//!
//! **Architecture Invariant:** ingest has no table, no EC2 and no pools. Whether a job is ours is not its business, so a
//! wrong pool file can never lose a delivery.
//!
//! Retry policy: GitHub never repeats a delivery by itself, but shows which failed. So whatever may succeed later is a 503,
//! and 2xx means that the message is on the queue or that nobody will ever want it.

mod delivery;
mod request;
mod verify;

use domain::wire::Message;
use engine::ports::Clock;
use jiff::SignedDuration;
use platform::clock::SystemClock;
use platform::queue::Queue;
use platform::secrets::WebhookSecret;

pub use delivery::{Delivered, Malformed, parse};
pub use request::{Answer, Request};
pub use verify::{Signature, Verified};

/// The largest body that is looked at. A `workflow_job` has 8 to 14 KB, an SQS message at most 1 MiB.
pub const LARGEST_BODY: usize = 1 << 20;

/// The function: where the secret is, and where messages go.
#[derive(Debug)]
pub struct Ingest {
    /// What GitHub signs with.
    pub secret: WebhookSecret,
    /// What the scaler reads.
    pub queue: Queue,
}

impl Ingest {
    /// Handles one request. Every outcome is an answer; each is logged once, without body and signature.
    pub async fn receive(&self, request: Request) -> Answer {
        let delivery = request.delivery_id();
        let answer = self.answer(request).await;
        let (status, result, reason) = (answer.status, answer.result, answer.reason.as_str());
        let (delivery, job) = (delivery.as_str(), answer.job.map(|job| job.0));
        let sentence = format!("delivery {delivery}: {status} {result} {reason}");
        match status {
            500.. => tracing::error!(delivery.id = delivery, job.id = job, status, result, reason, "{sentence}"),
            400..500 => tracing::warn!(delivery.id = delivery, job.id = job, status, result, reason, "{sentence}"),
            _ => tracing::info!(delivery.id = delivery, job.id = job, status, result, reason, "{sentence}"),
        }
        answer
    }

    async fn answer(&self, request: Request) -> Answer {
        let (event, delivery) = (request.event(), request.delivery_id());
        let (signature, is_form) = (request.signature(), request.is_form());
        let Some(body) = request.body() else {
            return Answer::rejected(400, "the body is not valid base64");
        };
        if body.len() > LARGEST_BODY {
            return Answer::rejected(413, "the body is larger than 1 MiB");
        }
        // One answer for a signature that is missing, doubled or wrong: a forger learns nothing from it.
        let Some(signature) = signature else {
            return Answer::rejected(401, "signature");
        };
        let now = SystemClock.now();
        let body = match Verified::check(&self.secret, body, &signature, now).await {
            Ok(Some(body)) => body,
            Ok(None) => return Answer::rejected(401, "signature"),
            Err(error) => {
                tracing::error!("{error}");
                return Answer::rejected(503, "the webhook secret cannot be read");
            }
        };
        if is_form {
            return Answer::rejected(400, "the webhook's content type must be application/json");
        }
        match parse(&event, &body, delivery, now) {
            Ok(Delivered::Ignored(why)) => Answer::ignored(why),
            Ok(Delivered::Notice(notice)) => {
                let job = notice.job.id;
                match self.queue.send(&Message::WorkflowJob(notice), SignedDuration::ZERO).await {
                    Ok(()) => Answer::enqueued(job),
                    Err(error) => {
                        tracing::error!("{error}");
                        Answer { job: Some(job), ..Answer::rejected(503, "the queue cannot be used") }
                    }
                }
            }
            Err(malformed) => Answer::rejected(400, malformed.to_string()),
        }
    }
}
