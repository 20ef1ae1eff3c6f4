//! Faults of machines: some never boot, and EC2 reclaims some while their jobs run.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;
use world::ec2::{InstanceId, Market};
use world::github::{JobId, JobState};

use crate::pace::PATIENCE;
use crate::sandbox::Sandbox;
use crate::state::State;

/// The run time of a job that is run again.
const AGAIN_RUNS_FOR: Duration = Duration::from_secs(1);

/// Lets some of the launched machines never boot.
pub(super) struct Saboteur {
    task: JoinHandle<()>,
    broken: Arc<Mutex<BTreeSet<InstanceId>>>,
}

impl Saboteur {
    /// The second of every four launched machines fails, up to the limit.
    pub(super) fn start(sandbox: &Sandbox, limit: usize) -> Self {
        let (world, broken) = (sandbox.world.clone(), Arc::default());
        let of_task: Arc<Mutex<BTreeSet<InstanceId>>> = Arc::clone(&broken);
        let task = tokio::spawn(async move {
            let mut changed = world.changed();
            let mut checked = 0;
            while changed.changed().await.is_ok() {
                let fresh: Vec<InstanceId> = world
                    .look(|state| state.ec2.instances().skip(checked).map(|instance| instance.id.clone()).collect());
                for id in fresh {
                    checked += 1;
                    let mut broken = of_task.lock().expect("nobody panics while holding it");
                    if checked % 4 == 2 && broken.len() < limit {
                        broken.insert(id.clone());
                        drop(broken);
                        world.act(|state, _| state.ec2.fail_boot(&id));
                    }
                }
            }
        });
        Self { task, broken }
    }

    /// How many machines never booted.
    pub(super) fn broken(&self) -> usize {
        self.broken.lock().expect("nobody panics while holding it").len()
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// EC2 reclaims the machines of these jobs as soon as they run on spot machines.
pub(super) async fn interrupt(sandbox: &Sandbox, victims: &[JobId]) -> anyhow::Result<()> {
    let mut left: BTreeSet<JobId> = victims.iter().copied().collect();
    while !left.is_empty() {
        let some = |state: &State| {
            let has_started = |id: &JobId| state.github.job(*id).is_some_and(|job| has_started(&job.state));
            left.iter().any(has_started).then_some(())
        };
        let some = sandbox.world.until("a job to interrupt", PATIENCE, some).await;
        some.context("no job to interrupt has started")?;
        interrupt_running(sandbox, &mut left);
    }
    Ok(())
}

/// EC2 reclaims the machines of those of these jobs that run on spot machines. Only jobs that have not started are left.
pub(crate) fn interrupt_running(sandbox: &Sandbox, victims: &mut BTreeSet<JobId>) {
    let hosts: Vec<(JobId, Option<InstanceId>)> = sandbox.world.look(|state| {
        let host = |id: &JobId| match &state.github.job(*id)?.state {
            JobState::InProgress { runner } => Some((*id, sandbox.host_of(runner.id))),
            // Ended before the interruption, for example because it was cancelled.
            JobState::Completed { .. } => Some((*id, None)),
            JobState::Waiting | JobState::Queued { .. } => None,
        };
        victims.iter().filter_map(host).collect()
    });
    for (job, host) in hosts {
        victims.remove(&job);
        if let Some(host) = host {
            let spot = |state: &State| state.ec2.instance(&host).is_some_and(|it| it.market == Market::Spot);
            match sandbox.world.look(spot) {
                true => sandbox.world.act(|state, now| {
                    state.github.set_runs_for(job, AGAIN_RUNS_FOR);
                    state.ec2.interrupt_spot(&host, now);
                }),
                // EC2 interrupts no on-demand machine.
                false => sandbox.finish(job),
            }
        }
    }
}

fn has_started(state: &JobState) -> bool {
    match state {
        JobState::InProgress { .. } | JobState::Completed { .. } => true,
        JobState::Waiting | JobState::Queued { .. } => false,
    }
}
