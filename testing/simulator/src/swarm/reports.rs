//! Boot reports: what machines and jobs write, and L6.

use domain::state::{BootReport, StoredReport, Usage};
use jiff::SignedDuration;
use world::ec2::{self, InstanceId};

use crate::swarm::faults::Fault;
use crate::swarm::seed::Swarm;

/// Sweeps are a minute apart. One may run at the time of a report, and the next one records it.
const RECORDED_WITHIN: SignedDuration = SignedDuration::from_mins(4);

/// The default `boot_grace`, and as long as a sweep may take to stop a machine after that.
const REPLACED_WITHIN: SignedDuration = SignedDuration::from_mins(8 + 4);

/// What a job of that many seconds may have used.
fn used(seconds: u32) -> Usage {
    Usage {
        seconds,
        vcpus: 2,
        memory_mib: 7_800,
        disk_mib: 39_500,
        cpu_mean: 500,
        cpu_peak: 2_000,
        cpu_beyond: vec![0],
        memory_mean_mib: 900,
        memory_peak_mib: 1_200,
        disk_peak_mib: 8_000,
        received_mib: 120,
        sent_mib: 1,
        cpu_chart: vec![25],
        memory_chart: vec![12],
    }
}

impl Swarm<'_> {
    /// The agent reports that its machine has booted, and later that it is prepared.
    pub(super) fn report_boot(&mut self, id: &InstanceId, is_prepared: bool) {
        if self.dice.strikes(Fault::ReportLost) {
            return self.log_world(|| format!("the report of {id} is lost"));
        }
        let mut report =
            BootReport { reported_at: self.now, uptime_seconds: 12, prepared_at: is_prepared.then_some(self.now) };
        let mut is_right = true;
        if self.dice.strikes(Fault::ReportClock) {
            let wrong = SignedDuration::from_mins(self.dice.pick(Fault::ReportClock, 360) as i64 - 180);
            self.log_world(|| format!("the clock of {id} is wrong by {wrong:#}"));
            report.reported_at += wrong;
            is_right = false;
        }
        let mut stored = report.stored();
        if self.dice.strikes(Fault::ReportMalformed) {
            self.log_world(|| format!("the report of {id} has an unknown form"));
            stored.uptime_seconds = None;
            is_right = false;
        }
        if self.universe.write_report(id, &self.universe.report_key(id), stored).is_err() {
            self.violate(format!("L6: {id} may not write its own report"));
        }
        if is_right {
            self.truth.reported.insert(id.clone(), self.now);
        }
    }

    /// A job with root rewrites the report of its machine, and tries those of others.
    pub(super) fn forge_reports(&mut self, id: &InstanceId) {
        let text = |text: &str| Some(text.to_owned());
        let honest = BootReport { reported_at: self.now, uptime_seconds: 1, prepared_at: Some(self.now) }.stored();
        let forged = [
            StoredReport::default(),
            StoredReport { reported_at: text(&"9".repeat(300 * 1024)), ..honest.clone() },
            StoredReport { reported_at: text(&"9".repeat(1 << 20)), ..honest.clone() },
            StoredReport { reported_at: text("9999-12-30T00:00:00Z"), ..honest.clone() },
            StoredReport { reported_at: text("1970-01-01T00:00:00Z"), ..honest.clone() },
            StoredReport { prepared_at: text("9999-12-30T00:00:00Z"), ..honest.clone() },
            StoredReport { uptime_seconds: text("-1"), ..honest.clone() },
            StoredReport { uptime_seconds: text("99999999"), ..honest.clone() },
            honest,
        ];
        let choice = self.dice.pick(Fault::ReportForged, forged.len());
        let usages =
            [None, text("{}"), text(&"9".repeat(300 * 1024)), text(&used(1).text()), text(&used(u32::MAX).text())];
        let forged = StoredReport { usage: usages[choice % usages.len()].clone(), ..forged[choice].clone() };
        self.log_world(|| format!("a job on {id} forges the report of its machine"));
        // The model refuses one that is too large.
        let _ = self.universe.write_report(id, &self.universe.report_key(id), forged.clone());
        let others: Vec<InstanceId> =
            self.universe.ec2(|ec2, _| ec2.alive().map(|machine| machine.id.clone()).collect());
        let other = others[self.dice.pick(Fault::ReportForged, others.len())].clone();
        if other != *id && self.universe.write_report(id, &self.universe.report_key(&other), forged).is_ok() {
            self.violate(format!("P223: a job on {id} wrote the report of {other}"));
        }
    }

    /// A machine has lost its power.
    pub(super) fn note_dead_end(&mut self, id: &InstanceId) {
        if !self.truth.booted.contains(id) {
            let image = self.universe.ec2(|ec2, _| ec2.instance(id).map(|machine| machine.image.clone()));
            self.truth.dead_ended.extend(image.map(|image| (image, self.now)));
        }
    }

    /// Every minute without faults: notes which images have a machine whose report must be recorded by now, before the machine
    /// has a runner.
    pub(super) fn note_reporting(&mut self) {
        let Some(calm) = self.calm_since else { return };
        if self.now.duration_since(calm) < RECORDED_WITHIN {
            return;
        }
        let state = self.universe.state();
        let mut found = Vec::new();
        for machine in state.ec2.alive().filter(|machine| self.is_unregistered(machine, &state.configured)) {
            if let Some(at) = self.truth.reported.get(&machine.id)
                && self.now.duration_since(*at) >= RECORDED_WITHIN
            {
                found.push((machine.image.clone(), *at));
            }
        }
        drop(state);
        for (image, at) in found {
            let latest = self.truth.reporting.entry(image).or_insert(at);
            *latest = at.max(*latest);
        }
    }

    /// L6: machines without a runner that never came up although others of their image did, and that should have been replaced.
    /// One report ends one machine, so a report from before the end of another machine does not count.
    pub(super) fn unreplaced(&self) -> Vec<String> {
        let state = self.universe.state();
        let is_owed = |machine: &&ec2::Instance| {
            let reported = self.truth.reporting.get(&machine.image);
            let is_expected =
                reported.is_some_and(|at| self.truth.dead_ended.get(&machine.image).is_none_or(|ended| at > ended));
            is_expected
                && self.is_unregistered(machine, &state.configured)
                && !self.truth.booted.contains(&machine.id)
                && self.now.duration_since(machine.launched_at) >= REPLACED_WITHIN
        };
        let owed = state.ec2.alive().filter(is_owed);
        owed.map(|machine| format!("{} of {} never came up and is still there", machine.id, machine.image)).collect()
    }

    /// Whether it is a machine of this table that was given no JIT config and that no operator holds.
    fn is_unregistered<T>(
        &self,
        machine: &ec2::Instance,
        configured: &std::collections::BTreeMap<InstanceId, T>,
    ) -> bool {
        !configured.contains_key(&machine.id)
            && machine.tags.contains_key("drover:pool")
            && !machine.tags.contains_key("drover:hold")
            && !self.is_of_lost_table(machine)
            && !self.foreign_machines.contains(&machine.id)
    }
}
