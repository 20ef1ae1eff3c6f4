//! What a run of chaos measures besides the verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use drover::output::table;
use world::github::JobId;

use super::jobs::MACHINES;
use super::weather::{Service, Weather};
use crate::demo::seconds;
use crate::sandbox::Sandbox;

/// The template's `MemorySize` of each function, in MB.
const FUNCTIONS: [(&str, f64); 3] = [("ingest", 256.0), ("scaler", 512.0), ("janitor", 512.0)];

/// What is sampled while the run lasts.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    /// The most memory that a process of a function has used, in MB.
    memory: BTreeMap<&'static str, f64>,
    machines: usize,
    waiting: usize,
}

impl Peaks {
    /// Called once per second.
    pub(super) fn sample(&mut self, sandbox: &Sandbox) {
        for (function, _) in FUNCTIONS {
            let processes = sandbox.calls.processes(function);
            let used = processes.into_iter().filter_map(|process| peak_memory(&process.to_string(), function));
            let peak = self.memory.entry(function).or_default();
            *peak = used.fold(*peak, f64::max);
        }
        self.machines = self.machines.max(sandbox.world.look(|state| state.ec2.alive().count()));
    }

    pub(super) fn waited(&mut self, waiting: usize) {
        self.waiting = self.waiting.max(waiting);
    }
}

/// The most resident memory that a process has had, in MB. None if it has ended, and another program may have its id.
fn peak_memory(process: &str, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    if !name.is_empty() && value("Name:") != Some(name) {
        return None;
    }
    let kilobytes: f64 = value("VmHWM:")?.trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// The figures of a run.
#[derive(Debug)]
pub(super) struct Figures {
    rate: f64,
    /// Seconds from queued to started, sorted, by the weather in which the job was queued.
    waits: [(&'static str, Vec<f64>); 3],
    refused: Vec<(Service, u64)>,
    calls: u64,
    started: usize,
    peaks: Peaks,
    own_memory: f64,
    /// From the end of the faults until all jobs had ended, and until nothing was left.
    pub(super) served_after: Option<Duration>,
    pub(super) ordered_after: Option<Duration>,
}

impl Figures {
    pub(super) fn of(sandbox: &Sandbox, rate: f64, queued: &[(JobId, Weather)], peaks: Peaks) -> Self {
        let waits_in = |fits: fn(&Weather) -> bool| {
            sandbox.world.look(|state| {
                let jobs = queued.iter().filter(|(_, weather)| fits(weather));
                let histories = jobs.filter_map(|(id, _)| state.github.job(*id)).map(|job| &job.history);
                let both = histories.filter_map(|it| it.queued.first().zip(it.started.first()));
                let mut waits: Vec<f64> = both.map(|(from, to)| to.at.duration_since(*from).as_secs_f64()).collect();
                waits.sort_by(f64::total_cmp);
                waits
            })
        };
        let doors = sandbox.doors.as_ref();
        let refused = |service: Service| Some((service, service.door(doors?).refused()));
        Self {
            rate,
            waits: [
                ("in calm", waits_in(|weather| *weather == Weather::Calm)),
                ("in storms", waits_in(|weather| matches!(weather, Weather::Storm(_)))),
                ("in outages", waits_in(|weather| matches!(weather, Weather::Outage(_)))),
            ],
            refused: Service::ALL.into_iter().filter_map(refused).collect(),
            calls: sandbox.calls.counts().values().sum(),
            started: [&sandbox.ingest, &sandbox.scaler, &sandbox.janitor].map(|it| it.started()).iter().sum(),
            peaks,
            own_memory: peak_memory("self", "").unwrap_or_default(),
            served_after: None,
            ordered_after: None,
        }
    }

    /// # Errors
    /// A bound is exceeded, or nothing was refused although a door was closed.
    pub(super) fn judge(&self, closed: &[Service]) -> anyhow::Result<()> {
        let machines = self.peaks.machines;
        ensure!(machines <= MACHINES, "{machines} machines at a time, although the pools allow {MACHINES}");
        for (function, most) in FUNCTIONS {
            let used = self.peaks.memory.get(function).copied().unwrap_or_default();
            ensure!(used <= most, "{function} has used {used:.0} MB, and the template gives it {most} MB");
        }
        for (service, refused) in &self.refused {
            let name = service.describe();
            ensure!(
                *refused > 0 || !closed.contains(service),
                "nobody tried to reach {name} while its door was closed"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![vec!["jobs queued per second".to_owned(), format!("{:.1}", self.rate)]];
        for (when, waits) in &self.waits {
            let both = format!("{}, {}", seconds(waits, 0.5), seconds(waits, 0.99));
            rows.push(vec![format!("queue time p50, p99 of {} jobs queued {when}", waits.len()), both]);
        }
        rows.push(vec!["most jobs that waited".to_owned(), self.peaks.waiting.to_string()]);
        rows.push(vec!["most machines at a time".to_owned(), self.peaks.machines.to_string()]);
        for (service, refused) in &self.refused {
            rows.push(vec![format!("connections refused by {}", service.describe()), refused.to_string()]);
        }
        rows.push(vec!["calls of functions and machines".to_owned(), self.calls.to_string()]);
        rows.push(vec!["processes of functions started".to_owned(), self.started.to_string()]);
        for (function, megabytes) in &self.peaks.memory {
            rows.push(vec![format!("peak memory of {function}"), format!("{megabytes:.0} MB")]);
        }
        rows.push(vec!["peak memory of the models and emulators".to_owned(), format!("{:.0} MB", self.own_memory)]);
        let after = |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.0} s", time.as_secs_f64()));
        rows.push(vec!["from the last fault until all jobs had ended".to_owned(), after(self.served_after)]);
        rows.push(vec!["from the last fault until nothing was left".to_owned(), after(self.ordered_after)]);
        write!(f, "{}", table(&["FIGURE", ""], rows))
    }
}
