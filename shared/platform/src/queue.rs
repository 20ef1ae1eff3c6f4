//! SQS: sending messages, and handling dead letters.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use domain::ids::PoolName;
use domain::wire::{MESSAGE_VERSION as VERSION, Message};
use engine::ports::QueueError;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::aws::CallError;

/// The longest delay of a message that SQS allows.
const MAX_DELAY: SignedDuration = SignedDuration::from_mins(15);

/// How long a received dead letter is hidden from other receivers, in seconds. If `drover` is interrupted before it gives
/// the letter back, the letter reappears after this time.
const VISIBILITY_SECONDS: i32 = 60;

/// A receive that waits asks all of SQS's servers. Without waiting, it can miss letters.
const WAIT_SECONDS: i32 = 1;

/// The most messages that SQS returns at once.
const MAX_MESSAGES: i32 = 10;

/// The queue between ingest and the scaler.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    /// The queue with this URL.
    pub fn new(aws: &SdkConfig, url: String) -> Self {
        Self { client: Client::new(aws), url }
    }

    /// Sends a message that is delivered after a delay of at most 15 minutes. Makes one call. Standard queues are fair
    /// between message groups.
    ///
    /// # Errors
    /// If SQS does not confirm the message. It may have been sent.
    pub async fn send(&self, message: &Message, after: SignedDuration) -> Result<(), QueueError> {
        let delay = after.clamp(SignedDuration::ZERO, MAX_DELAY);
        let delay = (delay.as_millis() as i32 + 999) / 1000;
        self.client
            .send_message()
            .queue_url(&self.url)
            .message_body(message.to_body())
            .message_group_id(message.group())
            .set_delay_seconds((delay > 0).then_some(delay))
            .send()
            .await
            .map(drop)
            .map_err(failed)
    }
}

fn failed<E: ProvideErrorMetadata + std::error::Error + 'static>(error: E) -> QueueError {
    CallError::from_sdk(error).into()
}

#[async_trait]
impl engine::ports::Queue for Queue {
    async fn nudge(&self, pool: &PoolName, after: SignedDuration) -> Result<(), QueueError> {
        self.send(&Message::Nudge { v: VERSION, pool: pool.clone() }, after).await
    }
}

/// The dead-letter queue of a queue. In SQS, a message can only be read by receiving it, which hides it from others until
/// it is given back.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    client: Client,
    queue: String,
    url: String,
}

/// A received dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// SQS's id of the message.
    pub id: String,
    pub body: String,
    /// When the message was sent to the main queue.
    pub sent_at: Option<Timestamp>,
    receipt: String,
}

impl DeadLetters {
    /// The dead-letter queue that a queue's redrive policy names.
    ///
    /// # Errors
    /// If SQS does not answer, or the queue has no dead-letter queue.
    pub async fn of(aws: &SdkConfig, queue: String) -> Result<Self, QueueError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Policy {
            dead_letter_target_arn: String,
        }
        let client = Client::new(aws);
        let policy = QueueAttributeName::RedrivePolicy;
        let answer = client.get_queue_attributes().queue_url(&queue).attribute_names(policy.clone()).send().await;
        let attributes = answer.map_err(failed)?.attributes.unwrap_or_default();
        let none = || QueueError::new(format!("{queue} has no redrive policy and therefore no dead-letter queue"));
        let policy: Policy =
            attributes.get(&policy).and_then(|policy| serde_json::from_str(policy).ok()).ok_or_else(none)?;
        let mut parts = policy.dead_letter_target_arn.rsplit(':');
        let (name, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let answer = client.get_queue_url().queue_name(name).queue_owner_aws_account_id(account).send().await;
        let url = answer.map_err(failed)?.queue_url.ok_or_else(none)?;
        Ok(Self { client, queue, url })
    }

    /// Receives at most ten letters that are not hidden.
    ///
    /// # Errors
    /// If SQS does not answer.
    pub async fn receive(&self) -> Result<Vec<Letter>, QueueError> {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(MAX_MESSAGES)
            .visibility_timeout(VISIBILITY_SECONDS)
            .wait_time_seconds(WAIT_SECONDS)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(failed)?;
        let letters = received.messages.unwrap_or_default().into_iter().filter_map(|message| {
            let sent = message.attributes.as_ref().and_then(|it| it.get(&MessageSystemAttributeName::SentTimestamp));
            let sent_at = sent.and_then(|sent| Timestamp::from_millisecond(sent.parse().ok()?).ok());
            let body = message.body.unwrap_or_default();
            Some(Letter { id: message.message_id?, body, sent_at, receipt: message.receipt_handle? })
        });
        Ok(letters.collect())
    }

    /// Makes a letter visible to others again, at once.
    ///
    /// # Errors
    /// If SQS does not confirm it. The letter reappears by itself within a minute.
    pub async fn give_back(&self, letter: &Letter) -> Result<(), QueueError> {
        let shown = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(&letter.receipt);
        shown.visibility_timeout(0).send().await.map(drop).map_err(failed)
    }

    /// Sends a letter to the main queue, then deletes it. If interrupted in between, the letter is in both queues, which is
    /// harmless: processing a message twice has the effect of processing it once.
    ///
    /// # Errors
    /// If SQS does not confirm both calls.
    pub async fn redrive(&self, letter: &Letter) -> Result<(), QueueError> {
        // What Drover cannot read has a group of its own.
        let group = Message::parse(&letter.body).map_or_else(|_| "unreadable".to_owned(), |message| message.group());
        let message = self.client.send_message().queue_url(&self.queue).message_body(&letter.body);
        message.message_group_id(group).send().await.map_err(failed)?;
        self.delete(letter).await
    }

    /// Deletes a letter.
    ///
    /// # Errors
    /// If SQS does not confirm it.
    pub async fn delete(&self, letter: &Letter) -> Result<(), QueueError> {
        let deleted = self.client.delete_message().queue_url(&self.url).receipt_handle(&letter.receipt).send().await;
        deleted.map(drop).map_err(failed)
    }
}
