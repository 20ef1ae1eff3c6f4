//! Jobs whose machine EC2 reclaimed: each is re-run once, on demand if the pool may, whatever order the reports come in.

use std::time::Duration;

use domain::config::{MarketChoice, Pool};
use domain::ids::{RunId, RunnerId};
use domain::log::{Stream, What};
use domain::wire::{Action, JobNotice, MESSAGE_VERSION, Message, Notice, RunnerNotice};
use jiff::SignedDuration;
use simulator::{Universe, pool};
use world::ec2::{self, InstanceId};
use world::github::{self, Endpoint, JobId, QueueJob};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// A pool that re-runs interrupted jobs. GitHub gives a runner up so soon that the times alone do not show that its machine
/// ended before the job.
fn universe(seed: u64, market: MarketChoice) -> Universe {
    let pool = Pool { market, rerun_on_interruption: true, ..pool("linux", 10) };
    let github = github::Config { lost_runner: Duration::from_secs(5), ..github::Config::default() };
    Universe::with_github(seed, vec![pool], github)
}

fn queue(universe: &Universe) -> JobId {
    JobId(universe.queue_job(&["linux"], MINUTE * 30).0)
}

fn until(universe: &Universe, what: &str, holds: impl Fn(&Universe) -> bool) {
    for _ in 0..3600 {
        if holds(universe) {
            return;
        }
        universe.run(SECOND);
    }
    panic!("{what} does not happen within an hour");
}

fn until_running(universe: &Universe, job: JobId) {
    let starts = |universe: &Universe| {
        universe.github(|github, _| github.job(job).is_some_and(|job| job.state.runner().is_some()))
    };
    until(universe, "the start of the job", starts);
}

/// The job runs, and Drover knows it.
fn running(universe: &Universe) -> JobId {
    let job = queue(universe);
    until_running(universe, job);
    universe.run(SECOND * 5);
    job
}

fn alive(universe: &Universe) -> Vec<InstanceId> {
    universe.ec2(|ec2, _| ec2.alive().map(|machine| machine.id.clone()).collect())
}

fn interrupt_all(universe: &Universe) {
    let machines = alive(universe);
    universe.ec2(|ec2, now| machines.iter().for_each(|id| ec2.interrupt_spot(id, now)));
}

/// How each job of a later attempt ended that was run, and not only copied.
fn repeated(universe: &Universe) -> Vec<(String, bool)> {
    universe.github(|github, _| {
        let run = github.jobs().filter(|job| job.attempt > 1 && !job.history.queued.is_empty());
        run.map(|job| (job.name.clone(), job.served_once())).collect()
    })
}

/// What happened to due re-runs, in order.
fn outcomes(universe: &Universe) -> Vec<String> {
    let mut log = universe.store.events(&Stream::Pool("linux".parse().expect("a pool")), 10_000);
    log.reverse();
    log.into_iter()
        .filter_map(|event| if let What::Rerun { outcome, .. } = event.what { Some(outcome) } else { None })
        .collect()
}

fn is_finished(universe: &Universe) {
    let view = universe.store.view(&"linux".parse().expect("a pool"));
    assert!(view.reruns.is_empty() && view.slots.is_empty() && view.waiting.is_empty(), "{view:#?}");
    universe.store.check_log();
}

#[test]
fn an_interruption_that_only_ec2s_list_shows_re_runs_the_job() {
    let universe = universe(50, MarketChoice::Spot);
    running(&universe);
    universe.ec2(|ec2, now| {
        let machine = ec2.alive().next().expect("one machine").id.clone();
        ec2.reclaim_without_notice(&machine, now);
    });
    universe.run(MINUTE * 45);
    assert_eq!(repeated(&universe), [("build".to_owned(), true)]);
    is_finished(&universe);
}

#[test]
fn a_repository_that_the_app_cannot_see_for_a_while_does_not_end_the_re_run() {
    let universe = universe(59, MarketChoice::Spot);
    let first = running(&universe);
    let machines = alive(&universe);
    let run = universe.github(|github, _| github.job(first).map(|job| job.run));
    let other = |job| QueueJob { name: "other".to_owned(), runs_for: Duration::from_secs(1200), run, ..job };
    until_running(&universe, JobId(universe.queue(&["linux"], other).0));
    universe.ec2(|ec2, now| machines.iter().for_each(|id| ec2.interrupt_spot(id, now)));
    let is_owed = |universe: &Universe| !universe.store.view(&"linux".parse().expect("a pool")).reruns.is_empty();
    until(&universe, "the record of the re-run, which waits for the end of the run", is_owed);
    let repository = universe.github(|github, _| github.find_repository("octo-org", "widgets").expect("one").id);
    universe.github(|github, _| github.exclude_repository(repository));
    universe.run(MINUTE * 10);
    assert!(is_owed(&universe), "GitHub answers 404: {:?}", outcomes(&universe));
    universe.github(|github, _| github.include_repository(repository));
    universe.run(MINUTE * 90);
    assert_eq!(repeated(&universe), [("build".to_owned(), true)]);
    is_finished(&universe);
}

#[test]
fn each_interrupted_job_of_a_run_is_re_run() {
    let universe = universe(51, MarketChoice::Spot);
    let queue = |name: &str, run| {
        let job = |job| QueueJob { name: name.to_owned(), runs_for: Duration::from_secs(600), run, ..job };
        JobId(universe.queue(&["linux"], job).0)
    };
    let first = queue("first", None);
    let run = universe.github(|github, _| github.job(first).map(|job| job.run));
    let second = queue("second", run);
    until_running(&universe, first);
    until_running(&universe, second);
    universe.run(SECOND * 5);
    interrupt_all(&universe);
    universe.run(MINUTE * 90);
    let mut served = repeated(&universe);
    served.sort();
    assert_eq!(served, [("first".to_owned(), true), ("second".to_owned(), true)]);
    is_finished(&universe);
}

#[test]
fn webhooks_that_come_after_the_slot_was_closed_still_find_the_interruption() {
    hears_late_of_an_interrupted_job(&universe(52, MarketChoice::Spot), |_, _| ());
}

#[test]
fn jobs_that_pose_as_those_of_an_interrupted_runner_do_not_take_its_jobs_re_run() {
    hears_late_of_an_interrupted_job(&universe(57, MarketChoice::Spot), |universe, job| {
        let Message::WorkflowJob(mut forged) = completed(universe, job) else { panic!("a notice about a job") };
        forged.repository = "octo-org/elsewhere".parse().expect("a repository");
        (forged.job.id, forged.job.labels) = (domain::ids::JobId(1), vec!["forged".to_owned()]);
        forged.job.conclusion = Some("success".to_owned());
        universe.send([Message::WorkflowJob(forged)]);
    });
}

/// EC2 reclaims the machine of a job. Something else happens before that, and Drover hears of the job's end only after the
/// slot was closed. The job is re-run.
fn hears_late_of_an_interrupted_job(universe: &Universe, happens: impl FnOnce(&Universe, JobId)) {
    let job = queue(universe);
    universe.run(SECOND * 5);
    // From now on Drover learns nothing about the job: its webhooks are late, and GitHub does not answer about it.
    universe.github(|github, _| {
        github.faults.never_attempted = 1.0;
        for endpoint in [Endpoint::GetJob, Endpoint::ListRuns] {
            github.faults.broken.extend(std::iter::repeat_n((endpoint, 500), 1000));
        }
    });
    until_running(universe, job);
    let machine = alive(universe).remove(0);
    happens(universe, job);
    interrupt_all(universe);
    let is_closed = |universe: &Universe| {
        let view = universe.store.view(&"linux".parse().expect("a pool"));
        view.slots.values().all(|slot| slot.machine().is_none_or(|it| it.instance.as_str() != machine.as_str()))
    };
    until(universe, "the end of the slot", is_closed);
    universe.github(|github, _| {
        github.faults.never_attempted = 0.0;
        github.faults.broken.clear();
    });
    assert_eq!(outcomes(universe), [""; 0]);
    universe.send([completed(universe, job)]);
    universe.run(MINUTE * 60);
    assert_eq!(repeated(universe), [("build".to_owned(), true)]);
    is_finished(universe);
}

/// The webhook `completed` about a job.
fn completed(universe: &Universe, id: JobId) -> Message {
    let now = universe.now();
    universe.github(|github, _| {
        let job = github.job(id).expect("a job");
        let runner = job.history.started.last().expect("it was started");
        let job = JobNotice {
            id: domain::ids::JobId(job.id.0),
            run_id: RunId(job.run.0),
            run_attempt: 1,
            name: job.name.clone(),
            workflow: None,
            labels: job.labels.clone(),
            status: "completed".to_owned(),
            conclusion: job.state.conclusion().map(|conclusion| conclusion.as_str().to_owned()),
            runner: Some(RunnerNotice { id: RunnerId(runner.runner.0), name: runner.name.clone(), group: None }),
            created_at: job.created_at,
            started_at: job.started_at,
            completed_at: job.completed_at,
            head_sha: String::new(),
            html_url: String::new(),
        };
        Message::WorkflowJob(Box::new(Notice {
            v: MESSAGE_VERSION,
            delivery: "late".into(),
            received_at: now,
            action: Action::Completed,
            repository: "octo-org/widgets".parse().expect("a repository"),
            public: false,
            installation: None,
            repository_id: None,
            job,
        }))
    })
}

#[test]
fn a_re_run_gets_a_machine_on_demand_and_other_jobs_do_not() {
    let universe = universe(53, MarketChoice::SpotThenOnDemand);
    running(&universe);
    interrupt_all(&universe);
    until(&universe, "the re-run", |universe| !repeated(universe).is_empty());
    for _ in 0..2 {
        queue(&universe);
    }
    universe.run(MINUTE * 2);
    let markets: Vec<ec2::Market> = universe.ec2(|ec2, _| ec2.instances().map(|machine| machine.market).collect());
    let count = |wanted| markets.iter().filter(|market| **market == wanted).count();
    assert_eq!((count(ec2::Market::Spot), count(ec2::Market::OnDemand)), (3, 1), "{markets:?}");
    let view = universe.store.view(&"linux".parse().expect("a pool"));
    assert!(view.reruns.is_empty(), "the job of the next attempt is recorded: {:#?}", view.reruns);
    universe.run(MINUTE * 60);
    is_finished(&universe);
}

#[test]
fn a_re_run_in_a_pool_without_machines_on_demand_gets_a_spot_machine() {
    let universe = universe(54, MarketChoice::Spot);
    running(&universe);
    interrupt_all(&universe);
    universe.run(MINUTE * 60);
    assert_eq!(repeated(&universe), [("build".to_owned(), true)]);
    universe.ec2(|ec2, _| assert!(ec2.instances().all(|machine| machine.market == ec2::Market::Spot)));
    is_finished(&universe);
}

#[test]
fn a_job_that_is_cancelled_because_of_the_interruption_is_re_run() {
    let universe = universe(55, MarketChoice::Spot);
    let job = running(&universe);
    interrupt_all(&universe);
    universe.run(SECOND * 10);
    universe.github(|github, now| github.cancel(job, now));
    universe.run(MINUTE * 60);
    assert_eq!(repeated(&universe), [("build".to_owned(), true)]);
    assert_eq!(outcomes(&universe), ["re-run requested"]);
    is_finished(&universe);
}

#[test]
fn a_job_of_a_run_that_somebody_cancelled_is_not_re_run() {
    let universe = universe(56, MarketChoice::Spot);
    let first = running(&universe);
    let run = universe.github(|github, _| github.job(first).map(|job| job.run));
    // It waits for a runner that no pool has.
    let other = JobId(universe.queue(&["elsewhere"], |job| QueueJob { run, ..job }).0);
    interrupt_all(&universe);
    universe.run(SECOND * 10);
    universe.github(|github, now| [first, other].into_iter().for_each(|job| github.cancel(job, now)));
    universe.run(MINUTE * 60);
    assert_eq!(repeated(&universe), []);
    let why = "not re-run: other jobs of the run were cancelled, so a user may have cancelled it";
    assert_eq!(outcomes(&universe), [why]);
    is_finished(&universe);
}
