//! What must hold in each state, and how a story must go on once nothing more can happen.

use domain::config::Pool;
use jiff::SignedDuration;
use world::ec2::TYPES;
use world::github;

use crate::call::Call;
use crate::exhaustive::running::{Running, is_launch};
use crate::exhaustive::worlds::SmallWorld;
use crate::steps::Side;
use crate::swarm::Asked;
use crate::universe::Universe;

/// How long the queue keeps a message from others that a function has received and not acknowledged, as in `template.yaml`.
const VISIBILITY_TIMEOUT: SignedDuration = SignedDuration::from_secs(360);

/// How soon each job must have a machine that runs it, without a sweep: the boot of a machine, and what a pool may wait for.
const SOON: SignedDuration = SignedDuration::from_secs(240);

/// When everything must be over.
const LONG: SignedDuration = SignedDuration::from_mins(20);

impl Running<'_> {
    /// A violation: one that the table, EC2 or GitHub shows, two scalers in the same launch, or more machines than the world
    /// ever needs.
    pub(super) fn violation(&self) -> Option<String> {
        if let Some(violation) = self.universe.store.take_violations().into_iter().next() {
            return Some(violation);
        }
        let launching = self.actors.iter().filter_map(|actor| {
            let mut waiting = actor.waiting.values();
            waiting.find(|(side, call, _)| *side == Side::After && is_launch(call))
        });
        let mut launches: Vec<&Call> = Vec::new();
        for (_, call, _) in launching {
            if launches.contains(&call) {
                return Some(format!("S2: two scalers are in {call} at the same time"));
            }
            launches.push(call);
        }
        too_many(self.world, self.universe).or_else(|| unsuitable(self.universe))
    }

    /// What is wrong with the rest of the story, in which nothing fails.
    ///
    /// If no function has crashed, no sweep runs at first: messages alone must be enough to serve the jobs, because a lost
    /// wake-up would cost a minute. What a crashed function has begun is left to a sweep. Then everything must end.
    pub(super) fn end(&mut self) -> Option<String> {
        let universe = self.universe;
        universe.steps.at_once();
        if self.has_crashed() {
            let visible_at = universe.now() + VISIBILITY_TIMEOUT;
            let unfinished = std::mem::take(&mut self.unfinished);
            universe.state().messages.extend(unfinished.into_iter().map(|message| (visible_at, message)));
        } else {
            for _ in 0..SOON.as_secs() {
                universe.tick();
                universe.scale();
            }
            if let Some(violation) = self.violation() {
                return Some(format!("{violation}, later"));
            }
            if let Some(job) = waiting(universe) {
                return Some(format!("L1: nothing makes a scaler look after job {job}, which waits"));
            }
        }
        universe.run(LONG);
        self.violation().map(|violation| format!("{violation}, later")).or_else(|| left(universe))
    }
}

fn too_many(world: &SmallWorld, universe: &Universe) -> Option<String> {
    let launched = universe.ec2(|ec2, _| ec2.launches());
    (launched > world.most_launched).then(|| format!("S3: {launched} machines instead of {}", world.most_launched))
}

/// S11: a machine whose runner takes jobs of a class does not satisfy it.
fn unsuitable(universe: &Universe) -> Option<String> {
    let state = universe.state();
    state.configured.iter().find_map(|(machine, runner)| {
        let label = &state.github.runner(*runner)?.labels.iter().find(|label| label.starts_with("any/"))?;
        let launched = state.ec2.instance(machine)?;
        let facts = TYPES.iter().find(|it| it.name == launched.instance_type)?;
        let wrong = !Asked::of(label).is_satisfied_by(facts);
        wrong.then(|| format!("S11: the runner for {label} is on {machine}, a {}", facts.name))
    })
}

/// A job that waits for a runner.
fn waiting(universe: &Universe) -> Option<github::JobId> {
    let is_waiting = |job: &&github::Job| matches!(job.state, github::JobState::Queued { .. });
    universe.github(|github, _| github.jobs().find(is_waiting).map(|job| job.id))
}

/// What is left or has gone wrong when everything should be over.
fn left(universe: &Universe) -> Option<String> {
    if let Some(wrong) = universe.github(|github, _| wrong_job(github)) {
        return Some(wrong);
    }
    let pools = universe.config().pools;
    let kept: usize = pools.iter().map(|pool| (pool.warm + pool.stopped) as usize).sum();
    let (alive, registered) = {
        let state = universe.state();
        (state.ec2.alive().count(), state.github.registrations().count())
    };
    if alive != kept || registered != 0 {
        return Some(format!("L2: {alive} machines and {registered} runners are left instead of {kept} and 0"));
    }
    pools.iter().find_map(|pool| left_in(universe, pool, kept))
}

fn left_in(universe: &Universe, pool: &Pool, kept: usize) -> Option<String> {
    let view = universe.store.view(&pool.name);
    let (waiting, launches, slots) = (view.waiting.len(), view.batches.len(), view.slots.len());
    let is_over = (waiting, launches, slots, view.reruns.len()) == (0, 0, kept, 0);
    (!is_over).then(|| {
        format!("L2: {waiting} jobs, {launches} launches and {slots} slots of pool {} are left in the table", pool.name)
    })
}

/// A job that was not served, or that lost its machine and was not run again.
fn wrong_job(github: &github::GitHub) -> Option<String> {
    let repeats = |first: &github::Job| {
        let later = |job: &&github::Job| job.run == first.run && job.name == first.name && job.attempt > first.attempt;
        github.jobs().filter(later).count()
    };
    let is_right = |job: &github::Job| {
        let is_cancelled =
            job.state.conclusion() == Some(github::Conclusion::Cancelled) && job.history.killed.is_none();
        job.served_once() || is_cancelled || repeats(job) == 1
    };
    let wrong = github.jobs().find(|job| !is_right(job))?;
    Some(match wrong.history.killed {
        Some(_) => format!("L5: job {} lost its machine and was re-run {} times", wrong.id, repeats(wrong)),
        None => format!("L1: job {} was not served: {:?}", wrong.id, wrong.state),
    })
}
