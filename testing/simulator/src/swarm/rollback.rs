//! Rollbacks: an old version of a function is deployed, and the present one again some minutes later.

use domain::state::FORMAT;
use jiff::SignedDuration;

use crate::old_version::OldVersion;
use crate::swarm::agenda::Due;
use crate::swarm::faults::Fault;
use crate::swarm::invocation::{Function, Rollback};
use crate::swarm::seed::Swarm;

impl Swarm<'_> {
    /// Somebody deploys an old version. Half of the time it supports the format of the table, if one does.
    pub(super) fn roll_back(&mut self) {
        if self.rollback.is_some() {
            return;
        }
        let fault = Fault::OldVersion;
        let lowest = self.universe.configuration().map_or(1, |config| config.format);
        let formats = if self.dice.pick(fault, 2) == 0 && lowest < FORMAT { lowest..FORMAT } else { 1..FORMAT };
        let format = formats.start + self.dice.pick(fault, formats.len()) as u32;
        let function = [None, Some(Function::Scaler), Some(Function::Janitor)][self.dice.pick(fault, 3)];
        let is_partial = self.dice.pick(fault, 2) == 0;
        self.rollback = Some(Rollback { version: OldVersion::of_format(format), function, is_partial });
        self.log_world(|| {
            let what = function.map_or_else(|| "functions".to_owned(), |function| function.to_string());
            let how = if is_partial { ", in some environments" } else { "" };
            format!("an old version of the {what} is deployed, of format {format}{how}")
        });
        let after = SignedDuration::from_secs(60 + self.dice.pick(fault, 240) as i64);
        self.plan_in(after, Due::Redeployed);
    }

    /// The present version is deployed.
    pub(super) fn redeploy(&mut self) {
        if self.rollback.take().is_some() {
            self.log_world(|| "the present version of the functions is deployed".to_owned());
        }
    }

    /// The version that an invocation gets, if it is an old one.
    pub(super) fn old_version_of(&mut self, function: Function) -> Option<&'static OldVersion> {
        let rollback = self.rollback?;
        let concerns = rollback.function.is_none_or(|only| only == function);
        let is_old = concerns && (!rollback.is_partial || self.dice.pick(Fault::OldVersion, 2) == 0);
        is_old.then_some(rollback.version)
    }
}
