//! What a driver needs that jumps from event to event instead of calling [`Universe::tick`].

use std::time::Duration;

use domain::wire::{InstanceChange, Message};
use jiff::{SignedDuration, Timestamp};
use world::Model;
use world::ec2::{self, Entered, InstanceId};
use world::github::{self, Answer, Delivery};

use crate::universe::notices::notice;
use crate::universe::{ROLE, Universe};

/// What happened in the models, in order.
#[derive(Debug)]
pub struct Happenings {
    pub ec2: Vec<ec2::Happening>,
    pub github: Vec<github::Happening>,
}

/// Runs whose last job ended this long ago are forgotten. Drover asks about none of them any more.
const KEEP_RUNS: SignedDuration = SignedDuration::from_hours(2);

impl Universe {
    /// When something is due in one of the models.
    pub fn next_due(&self) -> Option<Timestamp> {
        let state = self.state();
        [state.ec2.next_due(), state.github.next_due()].into_iter().flatten().min()
    }

    /// Time jumps to that moment, which is not earlier than the present one.
    pub fn advance_to(&self, at: Timestamp) -> Happenings {
        let mut state = self.state();
        state.now = at;
        Happenings { ec2: state.ec2.advance(at), github: state.github.advance(at) }
    }

    /// A webhook reaches ingest, which puts its message on the queue.
    pub fn deliver(&self, delivery: &Delivery) {
        let mut state = self.state();
        let now = state.now;
        let message = Message::WorkflowJob(Box::new(notice(&delivery.event, &delivery.guid, now)));
        state.messages.push_back((now, message));
        state.github.record_answer(delivery.id, Answer::Status(202), Duration::from_millis(20), now);
    }

    /// When the next message can be received.
    pub fn next_message_at(&self) -> Option<Timestamp> {
        self.state().messages.iter().map(|(at, _)| *at).min()
    }

    /// Takes at most that many of the messages that can be received, oldest first.
    pub fn receive_some(&self, most: usize) -> Vec<Message> {
        let mut state = self.state();
        let now = state.now;
        let mut received = Vec::new();
        let mut index = 0;
        while received.len() < most && index < state.messages.len() {
            match state.messages[index].0 <= now {
                true => received.extend(state.messages.remove(index).map(|(_, message)| message)),
                false => index += 1,
            }
        }
        received
    }

    /// A scaler consumes messages. Those that failed go back to the queue.
    pub fn scale_with(&self, messages: &[Message]) {
        let failed = self.invoke(async |context| self.scaler(context, messages).await);
        self.send(failed.into_iter().map(|index| messages[index].clone()));
    }

    /// EventBridge reports a change of an instance.
    pub fn report_change(&self, instance: &InstanceId, change: InstanceChange) {
        self.send([Message::Instance { id: instance.as_str().into(), change }]);
    }

    /// EventBridge sends EC2's state changes since the last call, as far as the template's rule names them.
    pub fn report_states(&self) {
        let mut state = self.state();
        let now = state.now;
        state.report_states(now);
    }

    /// Takes the machines that were given a JIT config since the last call.
    pub fn take_handed_over(&self) -> Vec<InstanceId> {
        std::mem::take(&mut self.state().handed_over)
    }

    /// Forgets what is over, in the models and in the table. Returns the state changes of instances since the last call.
    pub fn forget(&self) -> Vec<Entered> {
        let mut state = self.state();
        let now = state.now;
        self.store.expire(ROLE, now);
        state.github.forget(now - KEEP_RUNS);
        // These are for checks.
        state.secrets.clear();
        state.launched_attempts.clear();
        state.refused.clear();
        state.ec2.forget(now)
    }
}
