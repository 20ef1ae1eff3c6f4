//! What goes wrong in EC2. Everything here is off by default and may be changed at any time.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Code, Failure, Market, Operation, RunInstances, SubnetId};
use crate::LostReply;

/// The knobs. Public on purpose: a driver, a test or a simulator's schedule turns them between two calls.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Refusals of RunInstances. The first that matches and is not used up answers.
    pub refusals: Vec<Refusal>,
    /// How many machines are left where. The first that matches counts; none means plenty. Less than MinCount is
    /// `InsufficientInstanceCapacity`, less than MaxCount a partial launch.
    pub capacity: Vec<Capacity>,
    /// Replies that get lost, in the order of the calls of that operation.
    pub lost_replies: VecDeque<(Operation, LostReply)>,
    /// Calls that are answered with this error, in the order of the calls of that operation.
    pub errors: VecDeque<(Operation, Code)>,
    /// Eventual consistency: for so long after its launch an instance is in no answer but that of its RunInstances.
    pub invisible_for: Duration,
    /// The share of machines that reach `running` but whose programs never start, from 0 to 1.
    pub boot_failures: f64,
    /// The share of machines that stop when they power off, whatever their launch template says, from 0 to 1.
    pub stops: f64,
}

/// Which launches a fault concerns; `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchMatch {
    /// This subnet.
    pub subnet: Option<SubnetId>,
    /// This type.
    pub instance_type: Option<String>,
    /// This market.
    pub market: Option<Market>,
}

/// An error for RunInstances.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Which launches.
    pub matches: LaunchMatch,
    /// The error they get.
    pub code: Code,
    /// How often.
    pub when: When,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// At the next so many calls.
    Next(u32),
    /// With this probability, from 0 to 1.
    Chance(f64),
}

/// A stock of machines.
#[derive(Debug, Clone)]
pub struct Capacity {
    /// Which launches draw on it.
    pub matches: LaunchMatch,
    /// How many machines are left. Ended ones do not come back by themselves.
    pub left: u32,
}

impl LaunchMatch {
    fn covers(&self, request: &RunInstances, instance_type: &str) -> bool {
        self.subnet.as_ref().is_none_or(|subnet| *subnet == request.subnet)
            && self.instance_type.as_ref().is_none_or(|wanted| wanted == instance_type)
            && self.market.is_none_or(|market| market == request.market)
    }
}

impl Faults {
    /// The refusal that strikes this launch, counted as used. `dice` is a number in 0..1.
    pub(super) fn refusal(
        &mut self,
        request: &RunInstances,
        instance_type: &str,
        mut dice: impl FnMut() -> f64,
    ) -> Option<Failure> {
        let struck =
            self.refusals.iter_mut().filter(|refusal| refusal.matches.covers(request, instance_type)).find_map(
                |refusal| {
                    let strikes = match &mut refusal.when {
                        When::Next(left) => {
                            let strikes = *left > 0;
                            *left = left.saturating_sub(1);
                            strikes
                        }
                        When::Chance(chance) => dice() < *chance,
                    };
                    strikes.then_some(refusal.code)
                },
            )?;
        Some(Failure::new(struck, format!("the model was told to refuse {instance_type} in {}", request.subnet)))
    }

    /// How many machines a launch gets, taken from the stock.
    pub(super) fn draw(&mut self, request: &RunInstances, instance_type: &str) -> Result<u32, Failure> {
        let Some(stock) = self.capacity.iter_mut().find(|stock| stock.matches.covers(request, instance_type)) else {
            return Ok(request.max_count);
        };
        let granted = request.max_count.min(stock.left);
        if granted < request.min_count {
            return Err(Failure::new(
                Code::InsufficientInstanceCapacity,
                format!("there is no sufficient {instance_type} capacity in {}", request.subnet),
            ));
        }
        stock.left -= granted;
        Ok(granted)
    }

    /// The error that this call is answered with, if it is.
    pub(super) fn error(&mut self, operation: Operation) -> Option<Failure> {
        let at = self.errors.iter().position(|(of, _)| *of == operation)?;
        let (_, code) = self.errors.remove(at)?;
        Some(Failure::new(code, format!("the model was told to refuse {}", operation.as_str())))
    }

    /// Whether the reply to this call gets lost.
    pub(super) fn lost_reply(&mut self, operation: Operation) -> Option<LostReply> {
        let at = self.lost_replies.iter().position(|(of, _)| *of == operation)?;
        self.lost_replies.remove(at).map(|(_, how)| how)
    }
}
