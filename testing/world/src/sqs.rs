//! A model of SQS standard queues: visibility, delays, redrive. A message that was received but not deleted becomes visible
//! again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// The longest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The maximum number of messages of one ReceiveMessage.
const MAX_RECEIVED: usize = 10;

/// The longest delay of a message.
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);

/// Attributes of a queue.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// How long a received message is hidden if the receiver does not choose a time.
    pub visibility: Duration,
    /// When messages go to a dead-letter queue.
    pub redrive: Option<Redrive>,
}

/// A redrive policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// Name of the dead-letter queue.
    pub to: String,
    /// `maxReceiveCount`.
    pub after: u32,
}

/// An error of SQS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no queue of this name.
    #[error("The specified queue does not exist.")]
    NoSuchQueue,
    /// A parameter is invalid.
    #[error("{0}")]
    Invalid(String),
}

/// A message as a receiver gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Id of the message, the same at each reception.
    pub id: String,
    /// Handle of this reception, which deletes the message.
    pub receipt: String,
    pub body: String,
    /// `ApproximateReceiveCount`, this one included.
    pub receive_count: u32,
    pub sent_at: Timestamp,
}

/// Numbers of messages in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Messages that can be received now.
    pub visible: usize,
    /// Messages that were received, are hidden and not deleted.
    pub in_flight: usize,
    /// Messages whose delay has not ended.
    pub delayed: usize,
}

/// The queues of an account.
#[derive(Debug, Default)]
pub struct Sqs {
    queues: BTreeMap<String, Queue>,
    last_id: u64,
}

#[derive(Debug)]
struct Queue {
    config: QueueConfig,
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    id: String,
    body: String,
    sent_at: Timestamp,
    visible_at: Timestamp,
    receive_count: u32,
    receipt: Option<String>,
}

impl Sqs {
    /// Adds a queue or changes its attributes.
    pub fn create_queue(&mut self, name: &str, config: QueueConfig) {
        let queue = self.queues.entry(name.to_owned());
        queue.and_modify(|queue| queue.config = config.clone()).or_insert(Queue { config, messages: Vec::new() });
    }

    /// Deletes a queue and its messages.
    pub fn delete_queue(&mut self, name: &str) {
        self.queues.remove(name);
    }

    /// PurgeQueue.
    pub fn purge_queue(&mut self, name: &str) {
        if let Ok(queue) = self.queue(name) {
            queue.messages.clear();
        }
    }

    fn queue(&mut self, name: &str) -> Result<&mut Queue, Failure> {
        self.queues.get_mut(name).ok_or(Failure::NoSuchQueue)
    }

    fn fresh_id(&mut self, kind: &str) -> String {
        self.last_id += 1;
        format!("{kind}-{:08}", self.last_id)
    }

    /// SendMessage. Returns the message's id.
    pub fn send(&mut self, queue: &str, body: &str, delay: Duration, now: Timestamp) -> Result<String, Failure> {
        let id = self.fresh_id("message");
        let queue = self.queue(queue)?;
        if body.is_empty() || body.len() > MAX_MESSAGE_BYTES {
            return Err(Failure::Invalid("A message has 1 to 1,048,576 bytes.".to_owned()));
        }
        if delay > MAX_DELAY {
            return Err(Failure::Invalid("DelaySeconds is at most 900.".to_owned()));
        }
        let message = Message {
            id: id.clone(),
            body: body.to_owned(),
            sent_at: now,
            visible_at: now + delay,
            receive_count: 0,
            receipt: None,
        };
        queue.messages.push(message);
        Ok(id)
    }

    /// ReceiveMessage: at most ten messages, oldest first, which are hidden from now on. Messages that were received too
    /// often go to the dead-letter queue instead.
    pub fn receive(&mut self, name: &str, max: usize, now: Timestamp) -> Result<Vec<Received>, Failure> {
        self.receive_hidden_for(name, max, None, now)
    }

    /// ReceiveMessage with a visibility timeout chosen by the receiver.
    pub fn receive_hidden_for(
        &mut self,
        name: &str,
        max: usize,
        hidden_for: Option<Duration>,
        now: Timestamp,
    ) -> Result<Vec<Received>, Failure> {
        let mut received = Vec::new();
        let mut dead = Vec::new();
        let mut handles: Vec<String> = (0..MAX_RECEIVED).map(|_| self.fresh_id("receipt")).collect();
        let queue = self.queue(name)?;
        let config = queue.config.clone();
        let mut index = 0;
        while index < queue.messages.len() && received.len() < max.min(MAX_RECEIVED) {
            let message = &mut queue.messages[index];
            if message.visible_at > now {
                index += 1;
                continue;
            }
            if config.redrive.as_ref().is_some_and(|redrive| message.receive_count >= redrive.after) {
                dead.push(queue.messages.remove(index));
                continue;
            }
            let Some(receipt) = handles.pop() else { break };
            message.receive_count += 1;
            message.visible_at = now + hidden_for.unwrap_or(config.visibility);
            message.receipt = Some(receipt.clone());
            received.push(Received {
                id: message.id.clone(),
                receipt,
                body: message.body.clone(),
                receive_count: message.receive_count,
                sent_at: message.sent_at,
            });
            index += 1;
        }
        if let Some(redrive) = config.redrive
            && let Ok(dead_letters) = self.queue(&redrive.to)
        {
            dead_letters.messages.extend(dead.into_iter().map(|message| Message {
                receive_count: 0,
                receipt: None,
                ..message
            }));
        }
        Ok(received)
    }

    /// DeleteMessage. Only the handle of the latest reception deletes the message; an older one has no effect.
    pub fn delete(&mut self, queue: &str, receipt: &str) -> Result<(), Failure> {
        let queue = self.queue(queue)?;
        queue.messages.retain(|message| message.receipt.as_deref() != Some(receipt));
        Ok(())
    }

    /// ChangeMessageVisibility.
    pub fn change_visibility(
        &mut self,
        queue: &str,
        receipt: &str,
        hidden_for: Duration,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let queue = self.queue(queue)?;
        let mut messages = queue.messages.iter_mut();
        match messages.find(|message| message.receipt.as_deref() == Some(receipt)) {
            Some(message) => message.visible_at = now + hidden_for,
            None => return Err(Failure::Invalid("The receipt handle is not valid.".to_owned())),
        }
        Ok(())
    }

    /// When the next message is or becomes visible.
    pub fn next_visible(&self, queue: &str) -> Option<Timestamp> {
        self.queues.get(queue)?.messages.iter().map(|message| message.visible_at).min()
    }

    /// Attributes of a queue.
    pub fn config(&self, queue: &str) -> Result<&QueueConfig, Failure> {
        self.queues.get(queue).map(|queue| &queue.config).ok_or(Failure::NoSuchQueue)
    }

    /// Numbers of messages in a queue.
    pub fn depth(&self, queue: &str, now: Timestamp) -> Depth {
        let mut depth = Depth::default();
        for message in self.queues.get(queue).iter().flat_map(|queue| &queue.messages) {
            match (message.visible_at <= now, message.receive_count) {
                (true, _) => depth.visible += 1,
                (false, 0) => depth.delayed += 1,
                (false, _) => depth.in_flight += 1,
            }
        }
        depth
    }

    /// Bodies of all messages in a queue, visible or not.
    pub fn bodies(&self, queue: &str) -> Vec<&str> {
        self.queues.get(queue).iter().flat_map(|queue| &queue.messages).map(|message| message.body.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn queue() -> Sqs {
        let mut sqs = Sqs::default();
        sqs.create_queue("dead", QueueConfig { visibility: Duration::from_secs(30), redrive: None });
        let redrive = Some(Redrive { to: "dead".to_owned(), after: 2 });
        sqs.create_queue("main", QueueConfig { visibility: Duration::from_secs(30), redrive });
        sqs
    }

    #[test]
    fn a_message_that_is_not_deleted_becomes_visible_again_and_then_a_dead_letter() {
        let mut sqs = queue();
        sqs.send("main", "a", Duration::ZERO, at(0)).unwrap();
        assert_eq!(sqs.receive("main", 10, at(0)).unwrap().len(), 1);
        assert!(sqs.receive("main", 10, at(29)).unwrap().is_empty(), "hidden");
        assert_eq!(sqs.receive("main", 10, at(30)).unwrap()[0].receive_count, 2);
        assert!(sqs.receive("main", 10, at(60)).unwrap().is_empty());
        assert_eq!(sqs.bodies("dead"), ["a"]);
        assert_eq!(sqs.depth("main", at(60)), Depth::default());
    }

    #[test]
    fn only_the_latest_handle_deletes() {
        let mut sqs = queue();
        sqs.send("main", "a", Duration::ZERO, at(0)).unwrap();
        let first = sqs.receive("main", 10, at(0)).unwrap().remove(0);
        let second = sqs.receive("main", 10, at(30)).unwrap().remove(0);
        sqs.delete("main", &first.receipt).unwrap();
        assert_eq!(sqs.bodies("main"), ["a"]);
        sqs.delete("main", &second.receipt).unwrap();
        assert!(sqs.bodies("main").is_empty());
    }

    #[test]
    fn a_delayed_message_is_hidden_and_a_long_one_is_refused() {
        let mut sqs = queue();
        sqs.send("main", "a", Duration::from_secs(10), at(0)).unwrap();
        assert_eq!(sqs.depth("main", at(0)).delayed, 1);
        assert!(sqs.receive("main", 10, at(9)).unwrap().is_empty());
        assert_eq!(sqs.next_visible("main"), Some(at(10)));
        assert_eq!(sqs.receive("main", 10, at(10)).unwrap().len(), 1);
        assert!(sqs.send("main", &"x".repeat((1 << 20) + 1), Duration::ZERO, at(0)).is_err());
        assert_eq!(sqs.send("none", "x", Duration::ZERO, at(0)), Err(Failure::NoSuchQueue));
    }
}
