//! Injected faults of EC2.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Code, Failure, Instance, Market, Operation, RunInstances, SubnetId};
use crate::LostReply;

/// Injected faults. There are none by default. A test may change them between two calls.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Refusals of RunInstances. The first one that matches and is not used up applies.
    pub refusals: Vec<Refusal>,
    /// Refusals of StartInstances, in the same way: `matches` refers to the machine that is to be started.
    pub start_refusals: Vec<Refusal>,
    /// Limited capacity. The first entry that matches a launch applies; without one, capacity is unlimited. If fewer than
    /// MinCount machines are left, the answer is `InsufficientInstanceCapacity`; if fewer than MaxCount, the launch is partial.
    /// The start of a stopped machine takes one machine.
    pub capacity: Vec<Capacity>,
    /// Lost replies, in the order of the calls of each operation.
    pub lost_replies: VecDeque<(Operation, LostReply)>,
    /// Errors, in the order of the calls of each operation.
    pub errors: VecDeque<(Operation, Code)>,
    /// Eventual consistency: how long after its launch the last instance of a launch is only in the answer to RunInstances.
    /// Until then, more and more of the others are visible.
    pub invisible_for: Duration,
    /// The share of launches and starts whose machines reach `running` but whose programs never start, from 0 to 1.
    pub boot_failures: f64,
    /// The share of machines that EC2 accepts and then ends before they run, from 0 to 1.
    pub ends_at_once: f64,
    /// Launches that EC2 accepts and then ends for lack of capacity, each with this probability, from 0 to 1.
    pub accepted_in_vain: Vec<(LaunchMatch, f64)>,
    /// The share of starts that EC2 accepts and whose machines are stopped again before they run, from 0 to 1.
    pub failed_starts: f64,
    /// The share of machines that stop instead of terminating when they power off, from 0 to 1.
    pub stops: f64,
}

/// The launches or starts that a fault affects. `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchMatch {
    pub subnet: Option<SubnetId>,
    pub instance_type: Option<String>,
    pub market: Option<Market>,
}

/// An error for RunInstances or StartInstances.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub matches: LaunchMatch,
    pub code: Code,
    pub when: When,
}

/// Which of the matching launches or starts fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// The next ones, up to this number.
    Next(u32),
    /// Each one with this probability, from 0 to 1.
    Chance(f64),
}

/// The machines that are left for some launches.
#[derive(Debug, Clone)]
pub struct Capacity {
    pub matches: LaunchMatch,
    /// Number of machines. Terminated machines do not increase it.
    pub left: u32,
}

impl LaunchMatch {
    pub fn covers(&self, subnet: &SubnetId, market: Market, instance_type: &str) -> bool {
        self.subnet.as_ref().is_none_or(|it| it == subnet)
            && self.instance_type.as_ref().is_none_or(|it| it == instance_type)
            && self.market.is_none_or(|it| it == market)
    }
}

impl Faults {
    /// The refusal of this launch, which is then used. `random` returns a number from 0 to 1.
    pub(super) fn refusal(
        &mut self,
        request: &RunInstances,
        instance_type: &str,
        random: impl FnMut() -> f64,
    ) -> Option<Failure> {
        let covers = |it: &LaunchMatch| it.covers(&request.subnet, request.market, instance_type);
        let code = used(&mut self.refusals, covers, random)?;
        Some(Failure::new(code, format!("injected fault: launch of {instance_type} in {} refused", request.subnet)))
    }

    /// Whether EC2 ends a machine of this launch for lack of capacity. `random` returns a number from 0 to 1.
    pub(super) fn is_in_vain(&self, request: &RunInstances, instance_type: &str, random: impl FnOnce() -> f64) -> bool {
        let covers = |it: &LaunchMatch| it.covers(&request.subnet, request.market, instance_type);
        let found = self.accepted_in_vain.iter().find(|(matches, _)| covers(matches));
        found.is_some_and(|(_, chance)| random() < *chance)
    }

    /// The refusal of this start, which is then used.
    pub(super) fn start_refusal(&mut self, instance: &Instance, random: impl FnMut() -> f64) -> Option<Failure> {
        let covers = |it: &LaunchMatch| it.covers(&instance.subnet, instance.market, &instance.instance_type);
        let code = used(&mut self.start_refusals, covers, random)?;
        Some(Failure::new(code, format!("injected fault: start of {} in {} refused", instance.id, instance.subnet)))
    }

    /// The number of machines that a launch gets, which reduces the capacity.
    pub(super) fn draw(&mut self, request: &RunInstances, instance_type: &str) -> Result<u32, Failure> {
        let (least, most) = (request.min_count, request.max_count);
        let covers = |it: &LaunchMatch| it.covers(&request.subnet, request.market, instance_type);
        taken(&mut self.capacity, covers, (least, most)).ok_or_else(|| lacks(instance_type, &request.subnet))
    }

    /// A start takes one machine of the capacity.
    pub(super) fn draw_for_start(&mut self, instance: &Instance) -> Result<(), Failure> {
        let covers = |it: &LaunchMatch| it.covers(&instance.subnet, instance.market, &instance.instance_type);
        let granted = taken(&mut self.capacity, covers, (1, 1));
        granted.map(drop).ok_or_else(|| lacks(&instance.instance_type, &instance.subnet))
    }

    /// The next error of an operation, which is then used.
    pub(super) fn error(&mut self, operation: Operation) -> Option<Failure> {
        let at = self.errors.iter().position(|(of, _)| *of == operation)?;
        let (_, code) = self.errors.remove(at)?;
        Some(Failure::new(code, format!("injected fault: {} refused", operation.as_str())))
    }

    /// The next lost reply of an operation, which is then used.
    pub(super) fn lost_reply(&mut self, operation: Operation) -> Option<LostReply> {
        let at = self.lost_replies.iter().position(|(of, _)| *of == operation)?;
        self.lost_replies.remove(at).map(|(_, how)| how)
    }
}

/// The code of the first refusal that applies, which is then used.
fn used(
    refusals: &mut [Refusal],
    covers: impl Fn(&LaunchMatch) -> bool,
    mut random: impl FnMut() -> f64,
) -> Option<Code> {
    refusals.iter_mut().filter(|refusal| covers(&refusal.matches)).find_map(|refusal| {
        let applies = match &mut refusal.when {
            When::Next(left) => {
                let applies = *left > 0;
                *left = left.saturating_sub(1);
                applies
            }
            When::Chance(chance) => random() < *chance,
        };
        applies.then_some(refusal.code)
    })
}

/// Takes at most `most` machines of the capacity. None if it has fewer than `least`.
fn taken(capacity: &mut [Capacity], covers: impl Fn(&LaunchMatch) -> bool, (least, most): (u32, u32)) -> Option<u32> {
    let Some(capacity) = capacity.iter_mut().find(|capacity| covers(&capacity.matches)) else { return Some(most) };
    let granted = most.min(capacity.left);
    if granted < least {
        return None;
    }
    capacity.left -= granted;
    Some(granted)
}

fn lacks(instance_type: &str, subnet: &SubnetId) -> Failure {
    let message = format!("there is no sufficient {instance_type} capacity in {subnet}");
    Failure::new(Code::InsufficientInstanceCapacity, message)
}
