//! The result of a sweep.

use std::collections::BTreeMap;

use domain::log::What;
use domain::policy::sweep::Plan;
use serde::{Serialize, Serializer};

/// The janitor's answer, and its line in the log.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Instances and registrations that should not exist.
    pub found: usize,
    /// How many of them were removed, by reason.
    pub reaped: BTreeMap<&'static str, usize>,
    /// How many had ended by themselves.
    pub already_gone: usize,
    /// Instances that an operator holds.
    pub held: usize,
    /// How many removals and readings failed: the next sweep tries again.
    #[serde(rename = "failed", serialize_with = "count")]
    pub failures: Vec<String>,
    /// Safety limits that applied, as sentences.
    #[serde(rename = "fused")]
    pub safety_limits: Vec<String>,
    /// Failed deliveries that were requested again.
    #[serde(skip_serializing_if = "is_zero")]
    pub redelivered: usize,
    /// Jobs found whose webhook never came.
    #[serde(skip_serializing_if = "is_zero")]
    pub recovered: usize,
    /// Items of the table and of GitHub's lists that could not be read and were left out.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable: usize,
}

/// The janitor's answer has the number of failures. Their reasons are in the log and in the janitor's item.
fn count<S: Serializer>(failures: &[String], to: S) -> Result<S::Ok, S::Error> {
    failures.len().serialize(to)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Report {
    pub(super) fn add_plan(&mut self, plan: &Plan) {
        self.found = plan.reaps.len();
        self.held = plan.held;
        self.safety_limits.clone_from(&plan.safety_limits);
        for limit in &plan.safety_limits {
            tracing::error!("safety limit: {limit}");
        }
    }

    /// Counts a reading or a removal that failed, and keeps the reason.
    pub(super) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    /// The event; None if the sweep found nothing. `kept` is the part of the failures that is stored.
    pub(super) fn describe(&self, kept: &[String]) -> Option<What> {
        (*self != Self::default()).then(|| What::Swept {
            found: self.found,
            reaped: self.reaped.iter().map(|(why, times)| ((*why).to_owned(), *times)).collect(),
            already_gone: self.already_gone,
            held: self.held,
            failed: self.failures.len(),
            failures: kept.to_vec(),
            safety_limits: self.safety_limits.clone(),
            redelivered: self.redelivered,
            recovered: self.recovered,
            unreadable: self.unreadable,
        })
    }
}
