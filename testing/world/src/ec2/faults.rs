//! Injected faults of EC2.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Code, Failure, Market, Operation, RunInstances, SubnetId};
use crate::LostReply;

/// Injected faults. There are none by default. A test may change them between two calls.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Refusals of RunInstances. The first one that matches and is not used up applies.
    pub refusals: Vec<Refusal>,
    /// Limited capacity. The first entry that matches a launch applies; without one, capacity is unlimited. If fewer than
    /// MinCount machines are left, the answer is `InsufficientInstanceCapacity`; if fewer than MaxCount, the launch is partial.
    pub capacity: Vec<Capacity>,
    /// Lost replies, in the order of the calls of each operation.
    pub lost_replies: VecDeque<(Operation, LostReply)>,
    /// Errors, in the order of the calls of each operation.
    pub errors: VecDeque<(Operation, Code)>,
    /// Eventual consistency: how long after its launch an instance is only in the answer to RunInstances.
    pub invisible_for: Duration,
    /// The share of machines that reach `running` but whose programs never start, from 0 to 1.
    pub boot_failures: f64,
    /// The share of machines that EC2 accepts and then ends before they run, from 0 to 1.
    pub ends_at_once: f64,
    /// The share of machines that stop instead of terminating when they power off, from 0 to 1.
    pub stops: f64,
}

/// The launches that a fault affects. `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchMatch {
    pub subnet: Option<SubnetId>,
    pub instance_type: Option<String>,
    pub market: Option<Market>,
}

/// An error for RunInstances.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub matches: LaunchMatch,
    pub code: Code,
    pub when: When,
}

/// Which of the matching launches fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// The next launches, up to this number.
    Next(u32),
    /// Each launch with this probability, from 0 to 1.
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
        mut random: impl FnMut() -> f64,
    ) -> Option<Failure> {
        let code = self
            .refusals
            .iter_mut()
            .filter(|refusal| refusal.matches.covers(&request.subnet, request.market, instance_type))
            .find_map(|refusal| {
                let applies = match &mut refusal.when {
                    When::Next(left) => {
                        let applies = *left > 0;
                        *left = left.saturating_sub(1);
                        applies
                    }
                    When::Chance(chance) => random() < *chance,
                };
                applies.then_some(refusal.code)
            })?;
        Some(Failure::new(code, format!("injected fault: launch of {instance_type} in {} refused", request.subnet)))
    }

    /// The number of machines that a launch gets, which reduces the capacity.
    pub(super) fn draw(&mut self, request: &RunInstances, instance_type: &str) -> Result<u32, Failure> {
        let Some(capacity) = self
            .capacity
            .iter_mut()
            .find(|capacity| capacity.matches.covers(&request.subnet, request.market, instance_type))
        else {
            return Ok(request.max_count);
        };
        let granted = request.max_count.min(capacity.left);
        if granted < request.min_count {
            return Err(Failure::new(
                Code::InsufficientInstanceCapacity,
                format!("there is no sufficient {instance_type} capacity in {}", request.subnet),
            ));
        }
        capacity.left -= granted;
        Ok(granted)
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
