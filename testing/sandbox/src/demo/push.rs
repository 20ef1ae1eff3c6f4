//! Pushes the jobs, with the faults that were asked for.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use world::github::{JobId, QueueJob, Webhooks};

use super::arguments::ONE_IN;
use super::arguments::{Arguments, every};
use super::faults::{Spell, VICTIM_RUNS_FOR};
use super::pools::{Pools, Target};
use super::pushed::Pushed;
use super::saboteur::interrupt;
use super::shapes;
use crate::names::FOREIGN_REPOSITORY;
use crate::pace::PATIENCE;
use crate::sandbox::Sandbox;
use crate::state::State;

/// Pushes the jobs, some of them during each lasting fault, and injects the faults of single jobs.
pub(super) async fn push(sandbox: &Sandbox, pools: &Pools, arguments: &Arguments) -> anyhow::Result<Pushed> {
    let mut random = SmallRng::seed_from_u64(arguments.seed());
    let mut pushed = Pushed::default();
    let (jobs, spells) = (arguments.jobs() as usize, arguments.spells());
    for (index, spell) in spells.iter().enumerate() {
        spell.cast(sandbox, &pushed.ours).await?;
        let (from, to) = (jobs * index / spells.len(), jobs * (index + 1) / spells.len());
        let already = pushed.victims.len();
        if arguments.shapes && *spell == Spell::None {
            pushed.wrong = shapes::push_wrong(sandbox, pools);
        }
        for job in from..to {
            let target = match arguments.asks_for_shape(job) {
                true => shapes::target(pools, job, arguments.quota),
                false => pools.target(job),
            };
            push_one(sandbox, &target, arguments, job, &mut random, &mut pushed).await?;
        }
        spell.lift(sandbox).await?;
        pushed.uninstalled += usize::from(*spell == Spell::Uninstalled);
        interrupt(sandbox, &pushed.victims[already..]).await?;
    }
    Ok(pushed)
}

async fn push_one(
    sandbox: &Sandbox,
    target: &Target,
    arguments: &Arguments,
    job: usize,
    random: &mut SmallRng,
    pushed: &mut Pushed,
) -> anyhow::Result<()> {
    let jobs = arguments.jobs() as usize;
    let labels: Vec<&str> = target.labels.iter().map(String::as_str).collect();
    // Each fault affects a different job, if there are enough of them.
    let strikes =
        |every: Option<usize>, first: usize| every.is_some_and(|every| job % every == first.min(jobs - 1) % every);
    let asked = |flag: bool| flag.then_some(ONE_IN);
    let mut runs_for = Duration::from_millis(random.random_range(300..1500));
    let is_cancelled = strikes(every(arguments.cancel), 0);
    let is_victim = !is_cancelled && strikes(asked(arguments.spot_kill), 2);
    let is_unsent = !is_cancelled && strikes(asked(arguments.never_sent), 3);
    if is_victim {
        runs_for = VICTIM_RUNS_FOR;
    }
    if strikes(every(arguments.steal), 1) {
        pushed.rivals.push(rival(sandbox, target, &labels));
    }
    let id = sandbox.queue(&target.repository, &labels, |queued| QueueJob {
        runs_for,
        webhooks: if is_unsent { Webhooks::NeverAttempted } else { Webhooks::Sent },
        ..queued
    });
    pushed.ours.push(id);
    pushed.unsent += usize::from(is_unsent);
    if is_victim {
        pushed.victims.push(id);
    }
    if is_cancelled {
        // There is no delivery for an account without the app.
        let delivered = |state: &State| {
            let mut deliveries = state.github.deliveries().filter(|it| it.event.job.id == id).peekable();
            (deliveries.peek().is_none() || deliveries.any(|it| it.attempted.is_some())).then_some(())
        };
        sandbox.world.until("a delivery for the job to cancel", PATIENCE, delivered).await?;
        sandbox.world.act(|state, now| state.github.cancel(id, now));
        pushed.cancelled.push(id);
    }
    Ok(())
}

/// Queues a job with the same labels for which Drover launches no machine: one of a repository that the pool does not
/// serve, or, if the pool serves all repositories, one without webhooks.
fn rival(sandbox: &Sandbox, target: &Target, labels: &[&str]) -> JobId {
    let runs_for = Duration::from_millis(500);
    match target.serves_all {
        false => {
            let owner = target.repository.split('/').next().unwrap_or_default();
            sandbox.queue_job(&format!("{owner}/{FOREIGN_REPOSITORY}"), labels, runs_for)
        }
        true => sandbox.queue(&target.repository, labels, |job| QueueJob {
            runs_for,
            webhooks: Webhooks::NeverAttempted,
            ..job
        }),
    }
}
