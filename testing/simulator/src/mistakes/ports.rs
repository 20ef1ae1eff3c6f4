//! The ports of an invocation that makes a mistake.

use std::collections::BTreeSet;
use std::sync::Mutex;

use domain::config::Timings;
use domain::ids::BatchTag;
use domain::log::Transaction;
use domain::wire::TokenMark;
use engine::ports::Ports;
use jiff::Timestamp;

use crate::mistakes::kinds::Mistake;

/// What a mistake remembers from one invocation to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Attempts of which a launch got no answer.
    pub(super) unanswered: Mutex<BTreeSet<BatchTag>>,
    /// The token of the last deregistration that was answered with 404.
    pub(super) refused: Mutex<TokenMark>,
}

/// Ports that make one mistake and are otherwise those of the world.
pub(crate) struct MistakenPorts<'a> {
    pub(super) mistake: Mistake,
    pub(super) world: Ports<'a>,
    /// The end of the leases that this invocation takes.
    pub(super) lease: Timestamp,
    pub(super) memory: &'a Memory,
    pub(super) answer: Mutex<Answer>,
}

/// The record of the nudge that this invocation answers, for `LateAnswer`.
#[derive(Debug, Default)]
pub(super) enum Answer {
    #[default]
    None,
    /// It was read.
    Read,
    /// It is deleted once the pool was read.
    Due(Box<Transaction>),
}

impl<'a> MistakenPorts<'a> {
    pub(crate) fn new(mistake: Mistake, world: Ports<'a>, deadline: Timestamp, memory: &'a Memory) -> Self {
        // The pools of a simulated world all have the default margin.
        let lease = deadline + Timings::default().lease_margin.duration();
        Self { mistake, world, lease, memory, answer: Mutex::default() }
    }

    /// These ports, for the engine.
    pub(crate) fn ports(&self) -> Ports<'_> {
        Ports { store: self, compute: self, github: self, queue: self.world.queue, clock: self.world.clock }
    }
}
