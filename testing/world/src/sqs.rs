//! A model of SQS's standard queues: visibility, delays, redrive. What a consumer can rely on, and what it cannot: a
//! message that was received and not deleted comes again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// SQS's limit of a message.
const LARGEST_MESSAGE: usize = 1 << 20;

/// SQS's limit of one ReceiveMessage.
const LARGEST_RECEIVE: usize = 10;

/// SQS's longest delay of one message.
const LONGEST_DELAY: Duration = Duration::from_secs(15 * 60);

/// How a queue is set up.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// How long a received message is hidden, unless the receiver says otherwise.
    pub visibility: Duration,
    /// Where a message goes that was received so often and never deleted.
    pub redrive: Option<Redrive>,
}

/// A redrive policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// The dead-letter queue's name.
    pub to: String,
    /// `maxReceiveCount`.
    pub after: u32,
}

/// Why SQS refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No queue of this name.
    #[error("The specified queue does not exist.")]
    NoSuchQueue,
    /// A parameter makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// A message as a receiver gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The message's id, the same each time.
    pub id: String,
    /// This reception's handle: what deletes it.
    pub receipt: String,
    /// What was sent.
    pub body: String,
    /// `ApproximateReceiveCount`, this one included.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
}

/// How many messages a queue has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Can be received now.
    pub visible: usize,
    /// Received and not deleted.
    pub in_flight: usize,
    /// Sent with a delay that is not over.
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
    /// Adds a queue, or changes its set-up.
    pub fn create_queue(&mut self, name: &str, config: QueueConfig) {
        let queue = self.queues.entry(name.to_owned());
        queue.and_modify(|queue| queue.config = config.clone()).or_insert(Queue { config, messages: Vec::new() });
    }

    /// Deletes a queue with all that is in it.
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

    /// SendMessage; answers with the message's id.
    pub fn send(&mut self, queue: &str, body: &str, delay: Duration, now: Timestamp) -> Result<String, Failure> {
        let id = self.fresh_id("message");
        let queue = self.queue(queue)?;
        if body.is_empty() || body.len() > LARGEST_MESSAGE {
            return Err(Failure::Invalid("A message has 1 to 1,048,576 bytes.".to_owned()));
        }
        if delay > LONGEST_DELAY {
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

    /// ReceiveMessage: at most ten, oldest first, hidden from now on. What was received too often goes to the dead letters
    /// instead.
    pub fn receive(&mut self, name: &str, most: usize, now: Timestamp) -> Result<Vec<Received>, Failure> {
        self.receive_hidden_for(name, most, None, now)
    }

    /// The same, with a visibility timeout of the receiver's own.
    pub fn receive_hidden_for(
        &mut self,
        name: &str,
        most: usize,
        hidden_for: Option<Duration>,
        now: Timestamp,
    ) -> Result<Vec<Received>, Failure> {
        let mut received = Vec::new();
        let mut dead = Vec::new();
        let mut handles: Vec<String> = (0..LARGEST_RECEIVE).map(|_| self.fresh_id("receipt")).collect();
        let queue = self.queue(name)?;
        let config = queue.config.clone();
        let mut place = 0;
        while place < queue.messages.len() && received.len() < most.min(LARGEST_RECEIVE) {
            let message = &mut queue.messages[place];
            if message.visible_at > now {
                place += 1;
                continue;
            }
            if config.redrive.as_ref().is_some_and(|redrive| message.receive_count >= redrive.after) {
                dead.push(queue.messages.remove(place));
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
            place += 1;
        }
        if let Some(redrive) = config.redrive
            && let Ok(letters) = self.queue(&redrive.to)
        {
            letters.messages.extend(dead.into_iter().map(|letter| Message {
                receive_count: 0,
                receipt: None,
                ..letter
            }));
        }
        Ok(received)
    }

    /// DeleteMessage: only the handle of the latest reception deletes; an older one is accepted and does nothing.
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

    /// When there will be something to receive that there is not now; None if never, as it stands.
    pub fn next_visible(&self, queue: &str) -> Option<Timestamp> {
        self.queues.get(queue)?.messages.iter().map(|message| message.visible_at).min()
    }

    /// How a queue is set up.
    pub fn config(&self, queue: &str) -> Result<&QueueConfig, Failure> {
        self.queues.get(queue).map(|queue| &queue.config).ok_or(Failure::NoSuchQueue)
    }

    /// How many messages a queue has.
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

    /// What is in a queue, whether it can be received or not.
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
    fn what_is_not_deleted_comes_again_and_then_is_dead() {
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
    fn a_delayed_message_waits_and_a_large_one_is_refused() {
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
