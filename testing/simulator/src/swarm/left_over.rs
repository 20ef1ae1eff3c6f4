//! L2: machines and registrations that nobody uses, and how long Drover may take to remove them.

use std::collections::BTreeSet;

use domain::state::{Item, Key};
use jiff::{SignedDuration, Timestamp};
use world::{ec2, github};

use crate::swarm::seed::{CONVERGES_WITHIN, Swarm};

/// A machine or a registration without use for this long is left over. A machine of a lost table is young for ten minutes, and
/// two sweeps may end twenty.
const LEFT_OVER_AFTER: SignedDuration = SignedDuration::from_mins(12);
const SWEEPS_WITHIN_THAT: i64 = 2;

/// The registrations that GitHub allows per minute. It allows as many deregistrations. When more are due, it refuses every call until
/// the minute is over, and no list can be read.
const PER_MINUTE: usize = 180;

/// How many of the machines of a lost table one sweep may end.
fn ended_by_a_sweep(machines: usize) -> usize {
    10.max(machines / 5)
}

/// How many sweeps it takes to end the machines of a lost table.
fn sweeps_to_end(mut machines: usize) -> i64 {
    let mut sweeps = 0;
    while machines > 0 {
        machines = machines.saturating_sub(ended_by_a_sweep(machines));
        sweeps += 1;
    }
    sweeps
}

impl Swarm<'_> {
    /// Whether the machine was launched for a table that was lost since. Its batch says for which.
    pub(super) fn is_of_lost_table(&self, machine: &ec2::Instance) -> bool {
        let mut parts = machine.tags.get("drover:batch").into_iter().flat_map(|batch| batch.split('.'));
        self.is_lost_epoch(parts.next(), parts.next())
    }

    /// An invocation that read the table before it was lost may write the META of that table into the new one. The pool then goes on
    /// with the epoch of the lost table.
    fn is_lost_epoch(&self, pool: Option<&str>, epoch: Option<&str>) -> bool {
        let goes_on_with = || match self.universe.item(&Key::Meta(pool?.parse().ok()?))? {
            Item::Meta(meta) => Some(meta.epoch.to_string()),
            _ => None,
        };
        epoch.is_some_and(|epoch| epoch != format!("e{}", self.tables) && Some(epoch) != goes_on_with().as_deref())
    }

    /// All faults stop: how much longer the machines of a lost table may stay than others, because a safety limit bounds what a
    /// sweep ends and GitHub bounds what is registered and deregistered.
    pub(super) fn note_the_lost(&mut self) {
        let lost = self.universe.ec2(|ec2, _| ec2.alive().filter(|machine| self.is_of_lost_table(machine)).count());
        let more_sweeps = (sweeps_to_end(lost) - SWEEPS_WITHIN_THAT).max(0);
        let refused = if more_sweeps > 0 { (self.waiting().len() + lost) / PER_MINUTE } else { 0 };
        self.truth.more_for_the_lost = SignedDuration::from_mins(more_sweeps + refused as i64);
    }

    /// Machines and registrations without use for at least that long.
    pub(super) fn unused_for(&self, patience: SignedDuration) -> Vec<String> {
        self.unused(&BTreeSet::new(), |since, _| self.now.duration_since(since) >= patience)
    }

    /// Machines and registrations that should have been removed, without those of `excused` pools.
    pub(super) fn left_over(&self, excused: &BTreeSet<String>) -> Vec<String> {
        let more = self.truth.more_for_the_lost;
        let calm_for = self.calm_since.map_or(SignedDuration::ZERO, |calm| self.now.duration_since(calm));
        self.unused(excused, |since, is_lost| {
            let unused_for = self.now.duration_since(since);
            match is_lost {
                true => unused_for >= LEFT_OVER_AFTER + more && calm_for >= CONVERGES_WITHIN + more,
                false => unused_for >= LEFT_OVER_AFTER,
            }
        })
    }

    /// Machines and registrations without use, without those of `excused` pools. `counts` decides from the time since when it has
    /// had none, and from whether its table was lost.
    fn unused(&self, excused: &BTreeSet<String>, counts: impl Fn(Timestamp, bool) -> bool) -> Vec<String> {
        let state = self.universe.state();
        let mut unused = Vec::new();
        let mut spared = BTreeSet::new();
        let since_start = self.now.duration_since(self.began);
        for (pool, timetable) in self.shape.timetables() {
            if excused.contains(pool.name.as_str()) {
                continue;
            }
            // What was warm until a moment ago is not left over yet, and stopped machines stay.
            let mut warm = timetable.most(pool, since_start - LEFT_OVER_AFTER, since_start) + pool.stopped;
            for machine in state.ec2.alive() {
                if machine.tags.get("drover:pool").map(String::as_str) != Some(pool.name.as_str()) {
                    continue;
                }
                let runner = state.configured.get(&machine.id);
                let busy =
                    runner.and_then(|runner| state.github.runner(*runner)).is_some_and(|runner| runner.job.is_some());
                let since = self.machines.get(&machine.id).map_or(machine.launched_at, |known| known.since);
                let is_lost = self.is_of_lost_table(machine);
                if busy || !counts(since, is_lost) {
                    continue;
                }
                // A connected runner without a job may count as warm. A disconnected one may not, unless it is new: a warm
                // machine connects within a quarter of the boot grace.
                let connects_within = pool.timings.boot_grace.duration() / 4;
                let may_connect = |runner: &github::Runner| {
                    runner.online || self.now.duration_since(runner.created_at) < connects_within
                };
                let serves = runner.is_none_or(|runner| state.github.runner(*runner).is_some_and(may_connect));
                if serves && warm > 0 && !is_lost {
                    warm -= 1;
                    spared.extend(runner.copied());
                    continue;
                }
                unused.push(format!("machine {} of pool {}, {} since {since}", machine.id, pool.name, machine.state));
            }
        }
        let own =
            |runner: &&github::Runner| runner.name.starts_with("drover_sim_") && !state.forged.contains_key(&runner.id);
        for runner in state.github.registrations().filter(own) {
            let at = self.runs_on.get(&runner.id).and_then(|id| self.machines.get(id));
            let since = at.map_or(runner.created_at, |machine| machine.since);
            // `drover_<stack>_<pool>_<epoch>_<version>_<index>_<registration>`
            let mut parts = runner.name.split('_').skip(2);
            let pool = parts.next();
            let is_excused = pool.is_some_and(|pool| excused.contains(pool));
            let is_lost = self.is_lost_epoch(pool, parts.next());
            if !is_excused && runner.job.is_none() && !spared.contains(&runner.id) && counts(since, is_lost) {
                unused.push(format!("registration {} ({}), idle since {since}", runner.name, runner.id));
            }
        }
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_a_lost_table_take_a_sweep_for_ten_or_for_a_fifth() {
        assert_eq!([0, 1, 20, 50, 139, 1000].map(sweeps_to_end), [0, 1, 2, 5, 10, 19]);
    }
}
