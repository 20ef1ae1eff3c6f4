//! One run from its beginning to its end.

use jiff::SignedDuration;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use world::Model;

use crate::swarm::agenda::Due;
use crate::swarm::faults::Fault;
use crate::swarm::outcome::{Options, Outcome};
use crate::swarm::seed::Swarm;
use crate::swarm::shape::Shape;
use crate::universe::Universe;

/// Whether a seed has a pool with shapes, unless the options leave it out.
pub(super) fn has_market(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

/// Runs one seed.
pub fn run(options: &Options) -> Outcome {
    let mut rng = SmallRng::seed_from_u64(options.seed);
    let with_shapes = options.shapes && has_market(options.seed);
    let shape = Shape::of(&mut rng, options.jobs, options.seed, with_shapes);
    let universe =
        Universe::with(options.seed, shape.pools.clone(), shape.ec2.clone(), shape.github.clone(), options.mistake);
    universe.store.collect_violations();
    universe.steps.schedule();
    universe.secrets_take_time();
    let mut swarm = Swarm::new(&universe, options, &shape, rng);
    while !swarm.over && swarm.violation.is_none() {
        swarm.step();
    }
    swarm.outcome()
}

impl Swarm<'_> {
    /// Jumps to the time of the next event, and performs it.
    pub(super) fn step(&mut self) {
        let next = self.agenda.next_at();
        let mut state = self.universe.state();
        let models = [state.ec2.next_due(), state.github.next_due()].into_iter().flatten().min();
        let at = models.map_or(next, |at| at.min(next)).max(self.now);
        self.now = at;
        state.now = at;
        let machines = state.ec2.advance(at);
        let github = state.github.advance(at);
        drop(state);
        self.steps += 1;
        self.mix(at.as_microsecond() as u64);
        for happening in machines {
            self.ec2_happened(happening);
        }
        for happening in github {
            self.github_happened(happening);
        }
        if next <= at
            && let Some(due) = self.agenda.next_by(at)
        {
            self.happen(due);
        }
        self.report_states();
        for violation in self.universe.store.take_violations() {
            // An invocation that read the table before it was lost may replace an item of the same revision that was written since.
            let is_excused = violation.starts_with("S4") && self.universe.configuration().is_none();
            if !is_excused {
                self.violate(violation);
            }
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Call { invocation, ticket } => self.at_call(invocation, ticket),
            Due::Timeout(invocation) => {
                if self.invocations.contains_key(&invocation) {
                    self.end(invocation, "runs into its time limit");
                }
            }
            Due::Receive => self.receive(),
            Due::Janitor => {
                self.plan_in(SignedDuration::from_mins(1), Due::Janitor);
                if self.dice.strikes(Fault::JanitorMissed) {
                    self.log_world(|| "the schedule does not start the janitor".to_owned());
                } else {
                    self.start_janitor();
                    if self.dice.strikes(Fault::JanitorTwice) {
                        self.start_janitor();
                    }
                }
                self.watch();
            }
            Due::Arrival(index) => self.arrive(index),
            Due::Webhook(delivery) => self.ingest(&delivery),
            Due::PickUp(offer) => self.pick_up(&offer),
            Due::Finish(runner, job, how) => self.finish_job(runner, job, how),
            Due::Rerun(job) => self.rerun(job),
            Due::Approve(job) => {
                self.log_world(|| format!("job {job} is approved"));
                self.universe.github(|github, now| github.approve(job, now));
            }
            Due::Install(owner) => {
                self.uninstalled.retain(|login| *login != owner);
                self.log_world(|| format!("{owner} installs the app again"));
                self.universe.state().install(owner);
            }
            Due::Include(repository) => {
                self.log_world(|| format!("repository {repository:?} is in the app's installation again"));
                self.universe.github(|github, _| github.include_repository(repository));
            }
            Due::Release(machine) => {
                self.log_world(|| format!("an operator releases {machine}"));
                self.universe.release(&machine);
            }
            Due::Rotated => self.finish_rotation(),
            Due::Undrain => self.undrain(),
            Due::ApplyAgain => self.apply_again(),
            Due::PoolRestored => self.restore_pool(),
            Due::Redeployed => self.redeploy(),
            Due::NewTable => self.new_table(),
            Due::Machine(instance, doing) => self.machine_does(instance, doing),
            Due::LateLaunch(launch) => {
                let answer = self.universe.launch_now(&launch);
                self.log_world(|| {
                    format!("the call of an invocation that has ended reaches EC2: {}: {answer:?}", launch.tag)
                });
            }
            Due::Weather => self.weather(),
            Due::Reclaim(index) => self.reclaim(index),
            Due::Incidents => self.incidents(),
            Due::Calm => self.calm(),
            Due::InOrder => self.in_order(),
            Due::Started => self.started(),
            Due::Over => self.over(),
        }
    }
}
