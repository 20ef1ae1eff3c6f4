//! SQS, as far as we send.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use domain::ids::PoolName;
use domain::notice::{Message, VERSION};
use engine::ports::QueueError;
use jiff::SignedDuration;

use crate::aws::describe;

/// SQS's longest delay of a message.
const LONGEST_DELAY: SignedDuration = SignedDuration::from_mins(15);

/// The queue between ingest and the scaler.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    /// The queue of that URL.
    pub fn new(aws: &SdkConfig, url: String) -> Self {
        Self { client: Client::new(aws), url }
    }

    /// Puts a message on the queue, to be seen after a delay of at most 15 minutes: one SendMessage.
    ///
    /// # Errors
    /// When SQS did not confirm it; the message may be there all the same.
    pub async fn send(&self, message: &Message, after: SignedDuration) -> Result<(), QueueError> {
        let delay = after.clamp(SignedDuration::ZERO, LONGEST_DELAY);
        let delay = (delay.as_millis() as i32 + 999) / 1000;
        self.client
            .send_message()
            .queue_url(&self.url)
            .message_body(message.to_body())
            .set_delay_seconds((delay > 0).then_some(delay))
            .send()
            .await
            .map(drop)
            .map_err(|error| QueueError(describe(&error)))
    }
}

#[async_trait]
impl engine::ports::Queue for Queue {
    async fn nudge(&self, pool: &PoolName, after: SignedDuration) -> Result<(), QueueError> {
        self.send(&Message::Nudge { v: VERSION, pool: pool.clone() }, after).await
    }
}
