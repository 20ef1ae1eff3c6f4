//! `make bench ARGS=--growth`: what one job writes, from `queued` to the closing of its slot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use domain::ids::InstanceId;
use domain::state::Key;
use drover::output::table;
use engine::ports::Store;
use sandbox::calls::Written;
use sandbox::sandbox::{QUEUE, Sandbox};
use sandbox::state::State;

use crate::growth::{drain, enqueue, idle, run, unlimited};

/// How many jobs are measured, one after the other.
const JOBS: usize = 30;

/// The most write units that a job may cost.
const WRITE_UNITS: f64 = 20.0;

/// What one step of a job consumed.
#[derive(Debug, Default)]
struct Step {
    units: f64,
    written: BTreeMap<String, Written>,
}

impl Step {
    fn add(&mut self, sandbox: &Sandbox) {
        self.units += sandbox.calls.capacity().unwrap_or_default().write;
        for (kind, more) in sandbox.calls.written() {
            let written = self.written.entry(kind).or_default();
            written.puts += more.puts;
            written.bytes += more.bytes;
            written.deletes += more.deletes;
        }
    }
}

/// Prints what each step of a job writes, and how large the items are.
pub(crate) async fn life() -> anyhow::Result<()> {
    let sandbox = unlimited(JOBS).await?;
    // The first job is not measured: it creates what later ones find.
    one(&sandbox, &mut Default::default()).await?;
    let mut steps: [Step; 4] = Default::default();
    for _ in 0..JOBS {
        one(&sandbox, &mut steps).await?;
    }
    let per_job = |count: u64| count as f64 / JOBS as f64;
    println!("\nWrites: one job after the other, {JOBS} of them, until the slot is closed. Means per job\n");
    let names = ["queued", "in_progress", "completed", "closing"];
    let rows = names.iter().zip(&steps).map(|(name, step)| {
        let written = step.written.values();
        let (puts, deletes) = written.fold((0, 0), |(puts, deletes), it| (puts + it.puts, deletes + it.deletes));
        let units = format!("{:.1}", step.units / JOBS as f64);
        vec![(*name).to_owned(), units, format!("{:.1}", per_job(puts)), format!("{:.1}", per_job(deletes))]
    });
    print!("{}", table(&["STEP", "WRITE UNITS", "PUTS", "DELETES"], rows));
    let units = steps.iter().map(|step| step.units).sum::<f64>() / JOBS as f64;
    let verdict = if units <= WRITE_UNITS { "" } else { ": MISSED" };
    println!("\nTogether {units:.1} write units; the target is {WRITE_UNITS}{verdict}\n");
    let mut all: BTreeMap<&str, Written> = BTreeMap::new();
    for (kind, more) in steps.iter().flat_map(|step| &step.written) {
        let written = all.entry(kind).or_default();
        written.puts += more.puts;
        written.bytes += more.bytes;
        written.deletes += more.deletes;
    }
    let rows = all.iter().map(|(kind, written)| {
        let bytes = written.bytes.checked_div(written.puts).map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        vec![
            (*kind).to_owned(),
            format!("{:.1}", per_job(written.puts)),
            format!("{:.1}", per_job(written.deletes)),
            bytes,
        ]
    });
    print!("{}", table(&["ITEM", "PUTS", "DELETES", "BYTES"], rows));
    Ok(())
}

/// One job, from `queued` until its slot is closed.
async fn one(sandbox: &Sandbox, [queued, started, completed, closed]: &mut [Step; 4]) -> anyhow::Result<()> {
    enqueue(sandbox, 1).await?;
    measured(sandbox, queued, drain(sandbox)).await?;
    let runners = idle(sandbox);
    run(sandbox, &runners)?;
    measured(sandbox, started, arrived(sandbox)).await?;
    let machine = sandbox.world.act(|state, now| {
        let runner = runners.first().context("no runner is registered")?;
        let job = state.github.runner(*runner).and_then(|runner| runner.job).context("the runner has no job")?;
        let ended = state.github.complete(*runner, job, world::github::Conclusion::Success, now);
        ended.ok().context("the job does not run")?;
        let machine = state.ec2.alive().next().context("there is no machine")?.id.clone();
        Ok::<_, anyhow::Error>(machine)
    })?;
    measured(sandbox, completed, arrived(sandbox)).await?;
    sandbox.calls.measure_capacity();
    sandbox.sweep().await?;
    let of_an_idle_sweep = sandbox.calls.capacity().unwrap_or_default().write;
    // No machine boots here, so none could power itself off.
    let ends = sandbox.world.act(|state, now| state.ec2.terminate_instances(std::slice::from_ref(&machine), now));
    ends.ok().context("EC2 does not end the machine")?;
    let ended = |state: &State| {
        state.ec2.instance(&machine).is_some_and(|it| it.state == world::ec2::State::Terminated).then_some(())
    };
    sandbox.world.until("the machine has ended", Duration::from_secs(60), ended).await?;
    let key = Key::Instance(InstanceId(machine.as_str().to_owned()));
    let mut sweeps = 0;
    sandbox.calls.measure_capacity();
    drain(sandbox).await?;
    while has_slots(sandbox).await? {
        ensure!(sweeps < 10, "{key} is not closed");
        sweeps += 1;
        sandbox.sweep().await?;
        drain(sandbox).await?;
    }
    closed.add(sandbox);
    closed.units -= f64::from(sweeps) * of_an_idle_sweep;
    Ok(())
}

/// Waits for the message of an event, and lets the scaler consume it.
async fn arrived(sandbox: &Sandbox) -> anyhow::Result<()> {
    let arrived = |state: &State| (!state.sqs.bodies(QUEUE).is_empty()).then_some(());
    sandbox.world.until("a message on the queue", Duration::from_secs(60), arrived).await?;
    drain(sandbox).await
}

async fn measured(
    sandbox: &Sandbox,
    step: &mut Step,
    doing: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    sandbox.calls.measure_capacity();
    doing.await?;
    step.add(sandbox);
    Ok(())
}

async fn has_slots(sandbox: &Sandbox) -> anyhow::Result<bool> {
    let items = sandbox.table().await.partition(&"linux".parse()?).await?.items;
    Ok(items.iter().any(|item| matches!(item.key(), Key::Slot(..))))
}
