//! `make bench ARGS=--growth`: what one job writes, from `queued` to the closing of its slot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use domain::state::Key;
use drover::output::table;
use engine::ports::Store;
use sandbox::calls::Written;
use sandbox::sandbox::Sandbox;
use sandbox::state::State;

use crate::growth::{LONG, complete, drain, idle, messages, repository, run, unlimited};

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
            *self.written.entry(kind).or_default() += more;
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
        let mut written = Written::default();
        step.written.values().for_each(|more| written += *more);
        let units = format!("{:.1}", step.units / JOBS as f64);
        vec![
            (*name).to_owned(),
            units,
            format!("{:.1}", per_job(written.puts)),
            format!("{:.1}", per_job(written.deletes)),
        ]
    });
    print!("{}", table(&["STEP", "WRITE UNITS", "PUTS", "DELETES"], rows));
    let units = steps.iter().map(|step| step.units).sum::<f64>() / JOBS as f64;
    let verdict = if units <= WRITE_UNITS { "" } else { ": MISSED" };
    println!("\nTogether {units:.1} write units; the target is {WRITE_UNITS}{verdict}\n");
    let mut all: BTreeMap<&str, Written> = BTreeMap::new();
    for (kind, more) in steps.iter().flat_map(|step| &step.written) {
        *all.entry(kind).or_default() += *more;
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
    let job = sandbox.queue_job(&repository(0), &["drover"], LONG);
    consumed(sandbox, queued).await?;
    run(sandbox, &idle(sandbox))?;
    consumed(sandbox, started).await?;
    complete(sandbox, job)?;
    consumed(sandbox, completed).await?;
    sandbox.calls.measure_capacity();
    sandbox.sweep().await?;
    let of_an_idle_sweep = sandbox.calls.capacity().unwrap_or_default().write;

    // No machine boots here, so none could power itself off.
    let machine = sandbox.world.act(|state, now| {
        let machine = state.ec2.alive().next().context("there is no machine")?.id.clone();
        let ends = state.ec2.terminate_instances(std::slice::from_ref(&machine), now);
        ends.ok().context("EC2 does not end the machine")?;
        Ok::<_, anyhow::Error>(machine)
    })?;
    let ended = |state: &State| {
        state.ec2.instance(&machine).is_some_and(|it| it.state == world::ec2::State::Terminated).then_some(())
    };
    sandbox.world.until("the machine has ended", Duration::from_secs(60), ended).await?;
    let mut sweeps = 0;
    sandbox.calls.measure_capacity();
    let is_closed = async || {
        drain(sandbox).await?;
        let has_slots = has_slots(sandbox).await?;
        sweeps += u32::from(has_slots);
        Ok((!has_slots).then_some(()))
    };
    sandbox.sweep_until("the slot is closed", is_closed).await?;
    closed.add(sandbox);
    closed.units -= f64::from(sweeps) * of_an_idle_sweep;
    Ok(())
}

/// Waits for the message of an event, and measures what the scaler writes because of it.
async fn consumed(sandbox: &Sandbox, step: &mut Step) -> anyhow::Result<()> {
    messages(sandbox, 1).await?;
    sandbox.calls.measure_capacity();
    drain(sandbox).await?;
    step.add(sandbox);
    Ok(())
}

async fn has_slots(sandbox: &Sandbox) -> anyhow::Result<bool> {
    let items = sandbox.table().await.partition(&"linux".parse()?).await?.items;
    Ok(items.iter().any(|item| matches!(item.key(), Key::Slot(..))))
}
