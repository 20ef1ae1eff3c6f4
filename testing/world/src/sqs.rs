//! A model of SQS standard queues: visibility, delays, redrive, message groups. A message that was received but not deleted
//! becomes visible again.
//!
//! Queues are fair: a message of a group with many messages in flight waits behind those of groups with fewer. SQS does so
//! approximately.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// The longest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The longest `MessageGroupId`.
const MAX_GROUP_LENGTH: usize = 128;

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
    /// `MessageGroupId`, if the sender stated one.
    pub group: Option<String>,
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
    /// In the order of their arrival.
    messages: BTreeMap<u64, Message>,
    /// The number of the last one that arrived.
    arrived: u64,
    /// The message of each receipt handle that is valid.
    receipts: HashMap<String, u64>,
}

/// The messages of one group at the time of a ReceiveMessage.
#[derive(Debug, Default)]
struct Group {
    /// Those that were received and are neither deleted nor visible again.
    in_flight: usize,
    visible: VecDeque<u64>,
}

impl Queue {
    fn new(config: QueueConfig) -> Self {
        Self { config, messages: BTreeMap::new(), arrived: 0, receipts: HashMap::new() }
    }

    fn push(&mut self, message: Message) {
        self.arrived += 1;
        self.messages.insert(self.arrived, message);
    }

    fn remove(&mut self, number: u64) -> Option<Message> {
        let message = self.messages.remove(&number)?;
        if let Some(receipt) = &message.receipt {
            self.receipts.remove(receipt);
        }
        Some(message)
    }

    /// One pass over the messages. To look for each of the ten would make a long queue slow, which then becomes longer.
    fn groups(&self, now: Timestamp) -> HashMap<Option<Arc<str>>, Group> {
        let mut groups: HashMap<_, Group> = HashMap::new();
        for (number, message) in &self.messages {
            if message.visible_at <= now {
                groups.entry(message.group.clone()).or_default().visible.push_back(*number);
            } else if message.receive_count > 0 {
                groups.entry(message.group.clone()).or_default().in_flight += 1;
            }
        }
        groups
    }
}

fn numbered(kind: &str, number: u64) -> String {
    format!("{kind}-{number:08}")
}

#[derive(Debug)]
struct Message {
    id: String,
    group: Option<Arc<str>>,
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
        queue.and_modify(|queue| queue.config = config.clone()).or_insert_with(|| Queue::new(config));
    }

    /// Deletes a queue and its messages.
    pub fn delete_queue(&mut self, name: &str) {
        self.queues.remove(name);
    }

    /// PurgeQueue.
    pub fn purge_queue(&mut self, name: &str) {
        if let Ok(queue) = self.queue(name) {
            queue.messages.clear();
            queue.receipts.clear();
        }
    }

    fn queue(&mut self, name: &str) -> Result<&mut Queue, Failure> {
        self.queues.get_mut(name).ok_or(Failure::NoSuchQueue)
    }

    fn fresh_id(&mut self, kind: &str) -> String {
        self.last_id += 1;
        numbered(kind, self.last_id)
    }

    /// SendMessage without a group. Returns the message's id.
    pub fn send(&mut self, queue: &str, body: &str, delay: Duration, now: Timestamp) -> Result<String, Failure> {
        self.send_in_group(queue, body, None, delay, now)
    }

    /// SendMessage.
    pub fn send_in_group(
        &mut self,
        queue: &str,
        body: &str,
        group: Option<&str>,
        delay: Duration,
        now: Timestamp,
    ) -> Result<String, Failure> {
        let id = self.fresh_id("message");
        let queue = self.queue(queue)?;
        if body.is_empty() || body.len() > MAX_MESSAGE_BYTES {
            return Err(Failure::Invalid("A message has 1 to 1,048,576 bytes.".to_owned()));
        }
        if delay > MAX_DELAY {
            return Err(Failure::Invalid("DelaySeconds is at most 900.".to_owned()));
        }
        let is_valid = |group: &str| {
            (1..=MAX_GROUP_LENGTH).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if group.is_some_and(|group| !is_valid(group)) {
            return Err(Failure::Invalid(
                "MessageGroupId has 1 to 128 letters, digits and punctuation marks.".to_owned(),
            ));
        }
        let message = Message {
            id: id.clone(),
            group: group.map(Arc::from),
            body: body.to_owned(),
            sent_at: now,
            visible_at: now + delay,
            receive_count: 0,
            receipt: None,
        };
        queue.push(message);
        Ok(id)
    }

    /// ReceiveMessage: at most ten messages, which are hidden from now on: those of groups with few messages in flight
    /// first, then the oldest. Messages that were received too often go to the dead-letter queue instead.
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
        let mut number = self.last_id;
        self.last_id += MAX_RECEIVED as u64;
        let queue = self.queue(name)?;
        let config = queue.config.clone();
        let mut groups = queue.groups(now);
        while received.len() < max.min(MAX_RECEIVED) {
            // Of the groups with the fewest messages in flight, the oldest message.
            let left = groups.values_mut().filter_map(|group| Some((group.in_flight, *group.visible.front()?, group)));
            let Some((_, at, group)) = left.min_by_key(|(in_flight, oldest, _)| (*in_flight, *oldest)) else { break };
            group.visible.pop_front();
            let Some(message) = queue.messages.get_mut(&at) else { continue };
            if config.redrive.as_ref().is_some_and(|redrive| message.receive_count >= redrive.after) {
                dead.extend(queue.remove(at));
                continue;
            }
            number += 1;
            let receipt = numbered("receipt", number);
            message.receive_count += 1;
            message.visible_at = now + hidden_for.unwrap_or(config.visibility);
            if let Some(former) = message.receipt.replace(receipt.clone()) {
                queue.receipts.remove(&former);
            }
            queue.receipts.insert(receipt.clone(), at);
            group.in_flight += 1;
            received.push(Received {
                id: message.id.clone(),
                group: message.group.as_deref().map(str::to_owned),
                receipt,
                body: message.body.clone(),
                receive_count: message.receive_count,
                sent_at: message.sent_at,
            });
        }
        if let Some(redrive) = config.redrive
            && let Ok(dead_letters) = self.queue(&redrive.to)
        {
            for message in dead {
                dead_letters.push(Message { receive_count: 0, receipt: None, ..message });
            }
        }
        Ok(received)
    }

    /// DeleteMessage. Only the handle of the latest reception deletes the message; an older one has no effect.
    pub fn delete(&mut self, queue: &str, receipt: &str) -> Result<(), Failure> {
        let queue = self.queue(queue)?;
        if let Some(number) = queue.receipts.get(receipt).copied() {
            queue.remove(number);
        }
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
        match queue.receipts.get(receipt).and_then(|number| queue.messages.get_mut(number)) {
            Some(message) => message.visible_at = now + hidden_for,
            None => return Err(Failure::Invalid("The receipt handle is not valid.".to_owned())),
        }
        Ok(())
    }

    /// When the next message is or becomes visible.
    pub fn next_visible(&self, queue: &str) -> Option<Timestamp> {
        self.queues.get(queue)?.messages.values().map(|message| message.visible_at).min()
    }

    /// Attributes of a queue.
    pub fn config(&self, queue: &str) -> Result<&QueueConfig, Failure> {
        self.queues.get(queue).map(|queue| &queue.config).ok_or(Failure::NoSuchQueue)
    }

    /// Numbers of messages in a queue.
    pub fn depth(&self, queue: &str, now: Timestamp) -> Depth {
        let mut depth = Depth::default();
        for message in self.queues.get(queue).iter().flat_map(|queue| queue.messages.values()) {
            match (message.visible_at <= now, message.receive_count) {
                (true, _) => depth.visible += 1,
                (false, 0) => depth.delayed += 1,
                (false, _) => depth.in_flight += 1,
            }
        }
        depth
    }

    /// The groups of all messages in a queue, in the order of [`Self::bodies`].
    pub fn groups(&self, queue: &str) -> Vec<Option<&str>> {
        self.queues.get(queue).iter().flat_map(|queue| queue.messages.values()).map(|it| it.group.as_deref()).collect()
    }

    /// Bodies of all messages in a queue, visible or not.
    pub fn bodies(&self, queue: &str) -> Vec<&str> {
        self.queues
            .get(queue)
            .iter()
            .flat_map(|queue| queue.messages.values())
            .map(|message| message.body.as_str())
            .collect()
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
    fn a_message_of_a_quiet_group_is_received_before_the_backlog_of_a_noisy_one() {
        let mut sqs = queue();
        for number in 0..100 {
            sqs.send_in_group("main", &number.to_string(), Some("noisy"), Duration::ZERO, at(0)).unwrap();
        }
        let bodies = |received: Vec<Received>| received.into_iter().map(|it| it.body).collect::<Vec<_>>();
        assert_eq!(bodies(sqs.receive("main", 2, at(0)).unwrap()), ["0", "1"], "the oldest first");
        sqs.send_in_group("main", "quiet", Some("quiet"), Duration::ZERO, at(1)).unwrap();
        assert_eq!(bodies(sqs.receive("main", 2, at(1)).unwrap()), ["quiet", "2"]);
        for wrong in ["", "a b", &"x".repeat(129)] {
            assert!(sqs.send_in_group("main", "x", Some(wrong), Duration::ZERO, at(1)).is_err(), "{wrong:?}");
        }
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
