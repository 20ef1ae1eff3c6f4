//! The invariants that are checked against facts of the models that Drover does not know.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::config::Pool;
use domain::ids::{JobId, Owner};
use domain::policy::budget::{Optional, is_scarce};
use domain::policy::charge::RELAUNCH_LIMIT;
use domain::policy::route::{Routable, route};
use domain::state::{Circuit, Item, Key, Rank, WaitingJob};
use domain::wire::Message;
use engine::ports::GitHub;
use engine::sweep::Report;
use jiff::SignedDuration;
use world::{ec2, github};

use crate::call::Call;
use crate::rules::LEASE_MARGIN;
use crate::steps::Side;
use crate::swarm::agenda::Due;
use crate::swarm::arrival::{LONGEST_IDLE_GRACE, ORGANIZATION, OTHER};
use crate::swarm::faults::Fault;
use crate::swarm::market;
use crate::swarm::outcome::{Convergence, MachineCounts, Outcome};
use crate::swarm::seed::Swarm;

/// A new job starts within this time when no fault strikes.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_mins(3);

/// A pool has the machines that it keeps warm within this time.
const WARM_WITHIN: SignedDuration = SignedDuration::from_mins(8);

/// How long the last jobs and their machines may take to leave no trace.
const LEAVES_WITHIN: SignedDuration = SignedDuration::from_mins(15);

/// A job whose launches were used up by faults may have to wait until its hour is over.
const LATE_JOBS_WITHIN: SignedDuration = SignedDuration::from_mins(85);

/// The default of `notice_after`, and five minutes more.
const AUTHORS_KNOW_WITHIN: SignedDuration = SignedDuration::from_mins(20);

/// Drover asks about a job that a gate holds every five minutes, the default of `job_check`, and about thirty of a pool's
/// jobs per minute. A seed has 200 jobs.
const GATE_SEEN_WITHIN: SignedDuration = SignedDuration::from_mins(5 + 7);

/// With so much of an account's hourly limit, registering and removing runners may use up what questions, lists and check runs leave
/// at the end of the hour.
const RUNNERS_PERCENT: u64 = 40;

/// GitHub fails a job that was queued for a day, and ends a run after 35.
const DAY: SignedDuration = SignedDuration::from_hours(24);
const MAX_AGE: SignedDuration = SignedDuration::from_hours(35 * 24);

/// The pools of a simulated world all have the default `relaunch_window`.
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Three launches for one job that fail follow each other within this time.
const MOST_BETWEEN_LAUNCHES: SignedDuration = SignedDuration::from_mins(10);

impl Swarm<'_> {
    /// The jobs that wait for one of Drover's runners, each with its pool.
    pub(super) fn waiting(&self) -> Vec<(github::JobId, String)> {
        let waiting: Vec<(github::JobId, String)> = self.universe.github(|github, _| {
            let queued = github.jobs().filter(|job| {
                !self.truth.foreign.contains(&job.id)
                    && job.immortal.is_none()
                    && matches!(job.state, github::JobState::Queued { .. } | github::JobState::Waiting)
            });
            queued
                .filter_map(|job| {
                    let repository = github.repository(job.repository)?;
                    let pool = self.shape.pool_for((&repository.owner_login, &repository.name), &job.labels)?;
                    Some((job.id, pool.name.to_string()))
                })
                .collect()
        });
        // Drover keeps a job in the pool that accepted it first. Another may accept it now, or none any more.
        let kept = |job: github::JobId| match self.universe.item(&Key::Job(JobId(job.0))) {
            Some(Item::Job(job)) => Some(job.pool.to_string()),
            _ => None,
        };
        let in_its_pool = |(job, pool): (github::JobId, String)| match kept(job) {
            Some(pool) => Some((job, pool)),
            None => self.is_in_file(&pool).then_some((job, pool)),
        };
        waiting.into_iter().filter_map(in_its_pool).collect()
    }

    /// Whether the pool file has the pool at present.
    fn is_in_file(&self, pool: &str) -> bool {
        self.removed.as_ref().is_none_or(|removed| removed.pool.name.as_str() != pool)
    }

    /// Every minute: notes which pools are full, and whether everything is in order after the faults.
    pub(super) fn watch(&mut self) {
        for pool in &self.shape.pools {
            if self.is_full(pool.name.as_str()) {
                self.truth.full_at.insert(pool.name.to_string(), self.now);
            }
        }
        self.watch_warm_machines();
        self.note_reporting();
        let Some(since) = self.calm_since.filter(|_| self.truth.converged.is_none()) else { return };
        if self.waiting().is_empty() && self.unused_for(LONGEST_IDLE_GRACE).is_empty() {
            self.truth.converged = Some(Convergence(self.now.duration_since(since)));
        }
    }

    /// S2: no two invocations make the same call at the same time, if their clocks differ by no more than leases allow for.
    pub(super) fn check_alone(&mut self, number: u64, call: &Call) {
        if self.universe.state().clocks_differ_by > LEASE_MARGIN {
            return;
        }
        let other = self.invocations.iter().find(|(other, invocation)| {
            **other != number && invocation.waiting.values().any(|at| at.side == Side::After && at.call == *call)
        });
        if let Some((other, _)) = other {
            let other = *other;
            self.violate(format!("S2: invocations {other} and {number} are in {call} at the same time"));
        }
    }

    /// S4: what was acknowledged is in the table.
    pub(super) fn check_acknowledged(&mut self, message: &Message) {
        let Message::WorkflowJob(notice) = message else { return };
        let config = self.universe.config();
        let is_served = route(&config.pools, &Routable::of(notice)).is_ok();
        let known = match self.universe.item(&Key::Job(notice.job.id)) {
            Some(Item::Job(job)) => Some(job.rank),
            // The pools may have changed since the scaler read them. The janitor routes the job again.
            _ => self.universe.item(&Key::Unrouted(notice.job.id)).map(|_| Rank::Queued),
        };
        let reported = Rank::from(notice.action);
        if is_served && known.is_none_or(|known| known < reported) {
            let stored = known.map_or_else(|| "nothing".to_owned(), |known| format!("{known:?}"));
            let what =
                format!("S4: {reported:?} of job {} was acknowledged, and the table has {stored}", notice.job.id);
            self.violate(what);
        }
    }

    /// V1: the janitor's item says what failed in the last sweep. Doctor reads it there.
    pub(super) fn check_reported(&mut self, request: &str, report: &Report) {
        let Some(Item::Janitor(janitor)) = self.universe.item(&Key::Janitor) else { return };
        // Otherwise the sweep's last write has failed, or another sweep has begun.
        let is_of_this_sweep = janitor.holder == request && janitor.unfinished_since.is_none();
        let failed = report.failures.len();
        if is_of_this_sweep && failed > 0 && (janitor.failed != failed || janitor.failures.is_empty()) {
            self.violate(format!("V1: {failed} failures of a sweep are not in the janitor's item"));
        }
    }

    /// L4: whether the author of a job can see why it waits.
    fn is_explained(&self, job: github::JobId) -> bool {
        self.universe.github(|github, _| {
            let external_id = job.to_string();
            github.check_runs().any(|run| run.now.external_id.as_deref() == Some(&external_id))
        })
    }

    /// Jobs that GitHub calls queued although their run may be over, and that Drover has found and must not serve, with the
    /// pool that they are meant for.
    fn given_up(&self) -> Vec<github::JobId> {
        let state = self.universe.state();
        let is_too_old = |job: &&github::Job| {
            let age = self.now.duration_since(job.created_at);
            let late = state.queued_webhooks.get(&job.id);
            let since = late.copied().filter(|at| at.duration_since(job.created_at) >= DAY).unwrap_or(job.created_at);
            age >= MAX_AGE || self.now.duration_since(since) >= DAY
        };
        // Drover has forgotten the webhooks that came before the table was lost.
        let has_webhook = |job: &github::Job| {
            let received = state.queued_webhooks.get(&job.id);
            received.is_some_and(|at| self.table_lost_at.is_none_or(|lost| *at > lost))
        };
        let immortal = state.github.jobs().filter(|job| {
            // A search does not find the jobs of a run that is over.
            job.immortal == Some(github::Immortal::RunUnderWay) || job.immortal.is_some() && has_webhook(job)
        });
        let theirs = immortal.filter(|job| !self.truth.foreign.contains(&job.id)).filter(is_too_old);
        // A search ignores a job that GitHub would have ended weeks ago.
        // The webhook of another may have failed, and a search ignores a job that GitHub would have ended. One that GitHub
        // did not know for a while is closed: its repository was out of the app's reach.
        let is_waiting = |job: &github::Job| match self.universe.item(&Key::Job(JobId(job.id.0))) {
            Some(Item::Job(job)) => job.rank == Rank::Queued,
            _ => false,
        };
        theirs.filter(|job| is_waiting(job)).map(|job| job.id).collect()
    }

    /// Whether the account of the job's repository has used up the part of its hourly limit that is not reserved for
    /// registering and removing runners.
    fn is_budget_scarce(&self, job: github::JobId) -> bool {
        let owner = self.account(job).and_then(|login| login.parse().ok());
        owner.is_some_and(|owner| is_scarce(self.universe.budget(&owner), Optional::Notice, self.now))
    }

    /// The pools whose account has used up its hourly limit, and most of what is not for lists and questions for registering and
    /// removing runners. GitHub refuses every call for them until the hour is over.
    fn pools_without_github(&self) -> BTreeSet<String> {
        let has_used_up = |owner: &Owner| {
            let mut state = self.universe.state();
            let caller = github::Caller::Installation(state.installation_of(owner.as_str()));
            let rate = state.github.rate(caller, self.now);
            rate.used >= rate.limit && state.github.counted_for_runners(caller) >= rate.limit * RUNNERS_PERCENT / 100
        };
        let pools = self.shape.pools.iter().filter(|pool| has_used_up(pool.owner.owner()));
        pools.map(|pool| pool.name.to_string()).collect()
    }

    fn is_searched_for_long(&self, job: github::JobId) -> bool {
        self.account(job).is_some_and(|login| self.truth.searched_for_long.contains(&login))
    }

    /// The login of the account of the job's repository.
    fn account(&self, job: github::JobId) -> Option<String> {
        self.universe.github(|github, _| {
            let repository = github.job(job)?.repository;
            Some(github.repository(repository)?.owner_login.clone())
        })
    }

    /// How long it has been queued. A job that is run again may have been queued after all faults stopped. GitHub does not say
    /// when a gate opened: if the webhook was lost, Drover counts from the answer that shows it, and must have asked in time.
    fn waits_for(&self, job: github::JobId, pool: &str) -> SignedDuration {
        let queued = self.universe.github(|github, _| github.job(job)?.history.queued.last().copied());
        let Some(queued) = queued else { return SignedDuration::ZERO };
        let seen = self.waiting_job(job, pool).and_then(|waiting| waiting.opened_at);
        let seen = seen.filter(|_| self.truth.gated.contains(&job)).unwrap_or(queued);
        let latest = queued.max(self.calm_since.unwrap_or(queued)) + GATE_SEEN_WITHIN;
        self.now.duration_since(queued.max(seen.min(latest)))
    }

    fn waiting_job(&self, job: github::JobId, pool: &str) -> Option<WaitingJob> {
        self.universe.store.view(&pool.parse().expect("a pool of this world")).waiting.get(&JobId(job.0)).cloned()
    }

    /// L4: the author of a job that waits by design can see why, unless little of the account's budget is left.
    fn check_explained(&mut self, job: github::JobId, pool: &str) {
        let is_late = self.waits_for(job, pool) >= AUTHORS_KNOW_WITHIN && !self.is_budget_scarce(job);
        if is_late && !self.is_explained(job) {
            self.violate(format!(
                "L4: job {job} of pool {pool} has waited for 20 minutes, and its author cannot see why"
            ));
        }
    }

    /// Whether the job's launches of the last hour are used up. Then it waits by design (S6). Those that are older than an hour are
    /// forgotten with the next launch: if that was a moment ago, only some of them are left.
    fn used_up(&self, job: github::JobId, pool: &str) -> bool {
        self.waiting_job(job, pool).is_some_and(|waiting| {
            let ages: Vec<SignedDuration> = waiting.launches.iter().map(|at| self.now.duration_since(*at)).collect();
            let is_new = ages.iter().any(|age| *age < STARTS_WITHIN);
            let were_used_up = ages.iter().any(|age| *age > HOUR - MOST_BETWEEN_LAUNCHES);
            ages.iter().filter(|age| **age < HOUR).count() >= RELAUNCH_LIMIT || is_new && were_used_up
        })
    }

    /// Whether the pool has as many machines as its maximum, or nearly. Then jobs wait for machines to end.
    fn is_full(&self, pool: &str) -> bool {
        if self.is_at_cap(pool) {
            return true;
        }
        let most =
            self.shape.pools.iter().find(|known| known.name.as_str() == pool).map_or(0, |pool| pool.max as usize);
        self.universe.ec2(|ec2, _| {
            let counted = ec2.instances().filter(|machine| machine.state != ec2::State::Terminated);
            counted.filter(|machine| machine.tags.get("drover:pool").is_some_and(|tag| tag == pool)).count() * 5
                >= most * 4
        })
    }

    /// Whether the pool was full within the last five minutes.
    fn was_full(&self, pool: &str) -> bool {
        self.truth.full_at.get(pool).is_some_and(|at| self.now.duration_since(*at) <= SignedDuration::from_mins(5))
    }

    /// Whether the pool has a warm machine that never came up. Until a machine of its image has reported, Drover notices that
    /// only when a job needs the machine.
    fn has_a_dead_machine(&self, pool: &str) -> bool {
        let state = self.universe.state();
        state.ec2.alive().any(|machine| {
            machine.tags.get("drover:pool").is_some_and(|tag| tag == pool)
                && !self.truth.booted.contains(&machine.id)
                && self.now.duration_since(machine.launched_at) >= STARTS_WITHIN
        })
    }

    /// Every minute: notes which pools have the machines that they keep warm.
    fn watch_warm_machines(&mut self) {
        if self.universe.configuration().is_none() {
            return;
        }
        let since_start = self.now.duration_since(self.began);
        for (pool, timetable) in self.shape.timetables() {
            let name = pool.name.as_str();
            if !self.is_in_file(name) {
                continue;
            }
            let wanted = (timetable.fewest(pool, since_start - WARM_WITHIN, since_start) + pool.stopped) as usize;
            let meta = self.universe.store.view(&pool.name).meta;
            // A failing pool launches probes only, and machines that were never registered do not show that it works again.
            let is_excused = meta.circuit != Circuit::Closed || self.is_full(name);
            if is_excused || self.idle_machines(name) >= wanted {
                self.truth.warm_at.insert(name.to_owned(), self.now);
            }
        }
    }

    /// P220: a pool has the machines that it keeps warm or stopped, if they have been asked for long enough.
    fn check_warm_machines(&mut self) {
        let Some(calm) = self.calm_since else { return };
        for pool in self.shape.pools.iter().filter(|pool| self.is_in_file(pool.name.as_str())) {
            let last = self.truth.warm_at.get(pool.name.as_str()).copied().unwrap_or(self.began);
            if self.now.duration_since(last.max(calm)) >= WARM_WITHIN {
                let idle = self.idle_machines(pool.name.as_str());
                let meta = self.universe.store.view(&pool.name).meta;
                return self.violate(format!(
                    "P220: pool {} has had too few warm or stopped machines since {last}, now {idle}: {meta:?}",
                    pool.name
                ));
            }
        }
    }

    /// The number of a pool's machines without a job.
    fn idle_machines(&self, pool: &str) -> usize {
        let state = self.universe.state();
        let is_busy = |machine: &ec2::Instance| {
            let runner = state.configured.get(&machine.id).and_then(|runner| state.github.runner(*runner));
            runner.is_some_and(|runner| runner.job.is_some())
        };
        let of_pool = state.ec2.alive().filter(|it| it.tags.get("drover:pool").is_some_and(|tag| tag == pool));
        of_pool.filter(|machine| !is_busy(machine)).count()
    }

    /// Whether an older job waits in the pool that no runner will ever get, and that is still young enough to be demand. Its
    /// machines may be launched instead of those for a new job.
    fn launches_for_an_immortal_job(&self, pool: &str) -> bool {
        let view = self.universe.store.view(&pool.parse().expect("a pool of this world"));
        self.universe.github(|github, now| {
            let is_immortal = |job: &JobId| github.job(github::JobId(job.0)).is_some_and(|job| job.immortal.is_some());
            view.waiting.values().any(|job| job.given_up(now).is_none() && is_immortal(&job.id))
        })
    }

    /// L1, L2 and L4, and a new job for each pool.
    pub(super) fn in_order(&mut self) {
        self.watch();
        let without_github = self.pools_without_github();
        self.truth.without_github.clone_from(&without_github);
        for (job, pool) in self.waiting() {
            if self.is_searched_for_long(job) || without_github.contains(&pool) {
                self.truth.late.insert(job);
            } else if self.used_up(job, &pool) || self.was_full(&pool) {
                self.truth.late.insert(job);
                self.check_explained(job, &pool);
            } else {
                let view = self.universe.store.view(&pool.parse().expect("a pool of this world"));
                let (stored, meta) = (view.waiting.get(&JobId(job.0)), &view.meta);
                self.violate(format!(
                    "L1: job {job} of pool {pool} still waits, 20 minutes after all faults stopped: {stored:?}, {meta:?}"
                ));
            }
        }
        self.check_warm_machines();
        for job in self.given_up() {
            if !self.is_explained(job) && !self.is_budget_scarce(job) {
                self.violate(format!("L4: nothing is launched for job {job}, and its author cannot see why"));
            }
        }
        if let Some(left) = self.left_over(&without_github).into_iter().next() {
            self.violate(format!("L2: {left} is still there, 20 minutes after all faults stopped"));
        }
        for dead in self.unreplaced() {
            self.violate(format!("L6: {dead}"));
        }
        let late: BTreeSet<String> =
            self.waiting().into_iter().map(|(_, pool)| pool).chain(without_github.iter().cloned()).collect();
        for pool in self.shape.pools.clone() {
            let name = pool.name.as_str();
            let is_late =
                late.contains(name) || self.has_a_dead_machine(name) || self.launches_for_an_immortal_job(name);
            if is_late || !self.is_in_file(name) {
                // An older job would take the new job's machine, the new job is the first to need the dead machine, or GitHub
                // registers no runner for it.
                continue;
            }
            let class = self.shape.market.as_ref().map_or("", |market| market.classes[0].as_str());
            let (repository, labels) = match pool.name.as_str() {
                market::POOL => ((ORGANIZATION, "widgets"), vec![class]),
                "linux" => ((ORGANIZATION, "widgets"), vec!["linux"]),
                "big" => ((ORGANIZATION, "widgets"), vec!["big"]),
                _ => ((OTHER, "tools"), vec!["arm"]),
            };
            let job = self.universe.github(|github, now| {
                let repository = github.find_repository(repository.0, repository.1).expect("of this world").id;
                let runs_for = Duration::from_secs(20);
                github.queue_job(github::QueueJob { runs_for, ..github::QueueJob::new(repository, &labels) }, now)
            });
            self.log_world(|| format!("job {job} is queued as a probe of pool {}", pool.name));
            self.probes.push(job);
        }
        self.plan_in(STARTS_WITHIN, Due::Started);
    }

    /// L3.
    pub(super) fn started(&mut self) {
        for probe in self.probes.clone() {
            let started =
                self.universe.github(|github, _| github.job(probe).is_some_and(|job| !job.history.started.is_empty()));
            if !started {
                self.violate(format!("L3: job {probe} has not started within 3 minutes, though no fault strikes"));
            }
        }
        self.plan_in(LEAVES_WITHIN + self.truth.more_for_the_lost, Due::Over);
    }

    /// L1, L2, L4 and the log: every job is over, nothing is left, and the event log agrees with the table.
    pub(super) fn over(&mut self) {
        let late = self.waiting();
        for (job, pool) in &late {
            self.check_explained(*job, pool);
        }
        let give_up_at = self.calm_since.expect("all faults have stopped") + LATE_JOBS_WITHIN;
        if !late.is_empty() && self.now < give_up_at {
            self.plan_in(SignedDuration::from_mins(5), Due::Over);
            return;
        }
        for (job, pool) in late {
            let view = self.universe.store.view(&pool.parse().expect("a pool of this world"));
            let stored = view.waiting.get(&JobId(job.0));
            let meta = &view.meta;
            self.violate(format!("L1: job {job} of pool {pool} was never served: {stored:?}, {meta:?}"));
        }
        if let Some(left) = self.left_over(&BTreeSet::new()).into_iter().next() {
            self.violate(format!("L2: {left} is still there when everything is over"));
        }
        let killed = self.universe.github(|github, _| {
            let mut killed = github
                .killed()
                .filter(|job| !self.truth.foreign.contains(&job.id))
                .filter(|job| !job.history.started.iter().any(|start| self.truth.ended_by_ec2.contains(&start.runner)));
            killed.next().map(|job| job.id)
        });
        if let Some(job) = killed {
            self.violate(format!("L1: job {job} lost its machine, and not to EC2"));
        }
        if let Some(job) = self.owed_a_rerun() {
            self.violate(format!("L5: EC2 reclaimed the machine of job {job}, and it was not re-run"));
        }
        if let Some(difference) = self.universe.store.log_differences().into_iter().next() {
            self.violate(format!("log: {difference}"));
        }
        self.over = true;
    }

    /// A job whose machine EC2 reclaimed and whose machine's pool asks for a re-run, in a run without a later attempt. Where the
    /// table lost something, Drover may have forgotten the job.
    fn owed_a_rerun(&self) -> Option<github::JobId> {
        let excuses = [Fault::TableLost, Fault::Malformed];
        if excuses.iter().any(|fault| self.dice.struck[*fault as usize] > 0) {
            return None;
        }
        let is_recorded = |job: &github::Job| {
            let recorded = self.universe.item(&Key::Job(JobId(job.id.0)));
            matches!(recorded, Some(Item::Job(recorded)) if recorded.rank == Rank::Done)
        };
        let asks = |job: &github::Job| {
            let runner = job.history.started.last().map_or("", |start| &start.name);
            let is_of = |pool: &&Pool| runner.starts_with(&format!("drover_sim_{}_", pool.name));
            is_recorded(job) && self.shape.pools.iter().find(is_of).is_some_and(|pool| pool.rerun_on_interruption)
        };
        self.universe.github(|github, _| {
            let mut owed = github.killed().filter(|job| {
                let on_reclaimed =
                    job.history.started.last().is_some_and(|it| self.truth.reclaimed.contains(&it.runner));
                let is_last = github.run(job.run).is_some_and(|run| run.attempt == job.attempt);
                job.attempt == 1 && on_reclaimed && is_last && !self.truth.foreign.contains(&job.id) && asks(job)
            });
            owed.next().map(|job| job.id)
        })
    }

    pub(super) fn outcome(mut self) -> Outcome {
        // Invocations borrow the universe; they end before it does.
        self.invocations.clear();
        let machines = self.count_machines();
        let (jobs, waited) = self.universe.github(|github, _| {
            let waited = github
                .jobs()
                .filter(|job| !self.truth.foreign.contains(&job.id) && !self.truth.gated.contains(&job.id))
                .filter_map(|job| Some(job.history.started.first()?.at.duration_since(*job.history.queued.first()?)))
                .collect();
            (github.jobs().count(), waited)
        });
        Outcome {
            seed: self.options.seed,
            digest: self.digest.value(),
            jobs,
            steps: self.steps,
            struck: self.dice.struck,
            interrupted: self.interrupted,
            machines,
            waited,
            converged: self.truth.converged,
            costs: self.truth.costs,
            late: self.truth.late.len() as u64,
            without_github: self.truth.without_github.len() as u64,
            violation: self.violation,
            story: self.story,
        }
    }

    fn count_machines(&self) -> MachineCounts {
        let state = self.universe.state();
        let mut machines = MachineCounts::default();
        for machine in state.ec2.instances() {
            let Some(pool) = self
                .shape
                .pools
                .iter()
                .find(|pool| machine.tags.get("drover:pool").map(String::as_str) == Some(pool.name.as_str()))
            else {
                continue;
            };
            machines.launched += 1;
            let configured = state.configured.contains_key(&machine.id);
            if self.truth.used.contains(&machine.id) {
                machines.used += 1;
            } else if machine.end == Some(ec2::EndCause::Ec2)
                || self.truth.spoilt.contains(&machine.id)
                || (configured && !self.truth.booted.contains(&machine.id))
            {
                machines.spoilt += 1;
            } else if (pool.warm > 0 || !pool.schedules.is_empty()) && !configured {
                machines.warm += 1;
            }
        }
        for job in state.github.jobs() {
            let on_drovers = job.history.started.iter().any(|start| start.name.starts_with("drover_sim_"));
            let elsewhere = !job.history.started.is_empty() && !on_drovers;
            let cancelled = self.truth.cancelled.contains(&job.id) && job.history.started.is_empty();
            if !self.truth.foreign.contains(&job.id) && (elsewhere || cancelled) {
                machines.excused += 1;
            }
        }
        let idle = machines.launched - machines.used - machines.spoilt - machines.warm;
        machines.extra = idle.saturating_sub(machines.excused);
        machines
    }
}
