//! SQS: what we send, and what an operator does about dead letters.

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

/// SQS's longest delay of a message.
const LONGEST_DELAY: SignedDuration = SignedDuration::from_mins(15);

/// A dead letter that is being looked at is hidden for so long. One that is not given back, because whoever looked at it
/// was interrupted, is there again after it.
const LOOKED_AT_FOR: i32 = 60;

/// A receive that waits asks all of SQS's servers; one that does not may miss letters that are there.
const WAIT_SECONDS: i32 = 1;

/// SQS's largest answer to a receive.
const A_RECEIVE: i32 = 10;

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

/// The dead letters of a queue. SQS has no way to look at a message without receiving it: it is hidden meanwhile, and given
/// back afterwards.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    client: Client,
    queue: String,
    url: String,
}

/// A dead letter that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// SQS's id of the message.
    pub id: String,
    /// What was sent.
    pub body: String,
    /// When it was sent to the main queue.
    pub sent_at: Option<Timestamp>,
    receipt: String,
}

impl DeadLetters {
    /// The dead letters of the queue of that URL, as its redrive policy names them.
    ///
    /// # Errors
    /// When SQS cannot be asked, or the queue has none.
    pub async fn of(aws: &SdkConfig, queue: String) -> Result<Self, QueueError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Policy {
            dead_letter_target_arn: String,
        }
        let client = Client::new(aws);
        let policy = QueueAttributeName::RedrivePolicy;
        let asked = client.get_queue_attributes().queue_url(&queue).attribute_names(policy.clone()).send().await;
        let attributes = asked.map_err(failed)?.attributes.unwrap_or_default();
        let none = || QueueError::new(format!("{queue} has no redrive policy, and with it no dead letters"));
        let policy: Policy =
            attributes.get(&policy).and_then(|policy| serde_json::from_str(policy).ok()).ok_or_else(none)?;
        let mut parts = policy.dead_letter_target_arn.rsplit(':');
        let (name, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let asked = client.get_queue_url().queue_name(name).queue_owner_aws_account_id(account).send().await;
        let url = asked.map_err(failed)?.queue_url.ok_or_else(none)?;
        Ok(Self { client, queue, url })
    }

    /// At most ten letters that nobody looks at now; none if there are no others.
    ///
    /// # Errors
    /// When SQS cannot be asked.
    pub async fn receive(&self) -> Result<Vec<Letter>, QueueError> {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(A_RECEIVE)
            .visibility_timeout(LOOKED_AT_FOR)
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

    /// Lets others see a letter again, at once.
    ///
    /// # Errors
    /// When SQS does not confirm it; it is seen again a minute later all the same.
    pub async fn give_back(&self, letter: &Letter) -> Result<(), QueueError> {
        let shown = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(&letter.receipt);
        shown.visibility_timeout(0).send().await.map(drop).map_err(failed)
    }

    /// Sends a letter to the main queue, and only then deletes it. Interrupted between the two, it is in both: what the
    /// scaler does with a message twice is what it does with it once.
    ///
    /// # Errors
    /// When SQS does not confirm both.
    pub async fn redrive(&self, letter: &Letter) -> Result<(), QueueError> {
        let sent = self.client.send_message().queue_url(&self.queue).message_body(&letter.body).send().await;
        sent.map_err(failed)?;
        let deleted = self.client.delete_message().queue_url(&self.url).receipt_handle(&letter.receipt).send().await;
        deleted.map(drop).map_err(failed)
    }
}
