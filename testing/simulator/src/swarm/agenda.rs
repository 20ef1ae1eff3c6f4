//! The events that are planned, by time.

use std::collections::BTreeMap;

use engine::ports::Launch;
use jiff::Timestamp;
use world::ec2::InstanceId;
use world::github::{self, Delivery};

use crate::swarm::machine::Doing;

/// An event that is due.
pub(super) enum Due {
    /// A part of an invocation goes on at a call, or ends there.
    Call {
        invocation: u64,
        ticket: u64,
    },
    /// An invocation has used up its time.
    Timeout(u64),
    /// There may be messages on the queue.
    Receive,
    /// The schedule starts the janitor.
    Janitor,
    /// A job is queued. The index of the arrival.
    Arrival(usize),
    /// A webhook reaches ingest.
    Webhook(Box<Delivery>),
    /// A runner picks up a job that it was offered.
    PickUp(github::Offer),
    /// A runner's job ends.
    Finish(github::RunnerId, github::JobId, github::Conclusion),
    /// A user runs a job again.
    Rerun(github::JobId),
    /// A user approves a job.
    Approve(github::JobId),
    /// An account installs the app again.
    Install(&'static str),
    /// An account adds a repository to the app's installation again.
    Include(github::RepositoryId),
    /// An operator removes the tag that protects a machine.
    Release(InstanceId),
    /// An operator finishes the rotation of the app's key.
    Rotated,
    /// An operator lets the drained pool take jobs again.
    Undrain,
    /// The pool file without a pool is applied again.
    ApplyAgain,
    /// The pool file has the removed pool again.
    PoolRestored,
    /// The present version of the functions is deployed again.
    Redeployed,
    /// An operator applies the pools to a new table.
    NewTable,
    Machine(InstanceId, Doing),
    /// The call of an invocation that has ended reaches EC2.
    LateLaunch(Box<Launch>),
    /// A storm begins or ends.
    Weather,
    /// EC2 reclaims every spot machine of one type.
    Reclaim(usize),
    /// Incidents may happen: cancellations, interruptions and the like.
    Incidents,
    /// All faults stop.
    Calm,
    /// Everything must be in order, and a new job is queued for each pool.
    InOrder,
    /// The new jobs must have started.
    Started,
    /// Nothing may be left.
    Over,
}

/// What is due, by time and then in the order in which it was planned.
#[derive(Default)]
pub(super) struct Agenda {
    planned: u64,
    due: BTreeMap<(Timestamp, u64), Due>,
}

impl Agenda {
    pub(super) fn plan(&mut self, at: Timestamp, due: Due) {
        self.planned += 1;
        self.due.insert((at, self.planned), due);
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Timestamp {
        let first = self.due.first_key_value();
        first.map(|((at, _), _)| *at).expect("the end of the run is always due")
    }

    /// Takes the next event if it is due by then.
    pub(super) fn next_by(&mut self, now: Timestamp) -> Option<Due> {
        if self.next_at() > now {
            return None;
        }
        self.due.pop_first().map(|(_, due)| due)
    }
}
