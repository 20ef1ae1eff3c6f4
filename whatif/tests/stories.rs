//! Stories about recorded jobs that run with other pools.

mod week;

use domain::config::{MarketChoice, Pool, Rates};
use domain::policy::route::Unrouted;
use jiff::{SignedDuration, Timestamp};
use simulator::{pool, shapes_pool};
use whatif::offline;
use whatif::replay::{Assumptions, Outcome, Scenario, replay};
use whatif::trace::{Header, Job, Measured, Source, Trace, VERSION};

const REGION: &str = "us-east-1";

/// The longest way of a webhook, and the time until the janitor has seen what the scaler has not.
const WEBHOOK: f64 = 3.0;

/// What a job waits for on a machine that is launched for it, with the default assumptions.
const COLD: f64 = 1.0 + 21.0 + 3.7;
/// The same on a machine that is booted.
const WARM: f64 = 0.7 + 3.7;
/// The same on a machine that is stopped.
const STOPPED: f64 = 1.0 + 12.0 + 3.7;

fn at(minute: i64) -> Timestamp {
    let begin: Timestamp = "2026-11-02T08:00:00Z".parse().expect("a time");
    begin + SignedDuration::from_mins(minute)
}

/// A job that was queued at that minute, started ten seconds later, and ran for `runs_for` seconds.
fn job(id: u64, minute: i64, runs_for: i64) -> Job {
    let started_at = at(minute) + SignedDuration::from_secs(10);
    Job {
        id,
        run: id,
        attempt: 1,
        repository: "octo-org/widgets".to_owned(),
        workflow: None,
        name: None,
        labels: vec!["linux".to_owned()],
        queued_at: at(minute),
        started_at: Some(started_at),
        ended_at: Some(started_at + SignedDuration::from_secs(runs_for)),
        conclusion: Some("success".to_owned()),
        after: None,
    }
}

/// Two hours with these jobs.
fn trace(jobs: Vec<Job>) -> Trace {
    let header = Header {
        drover_trace: VERSION,
        source: Source::Generated,
        from: at(0),
        until: at(120),
        days: Vec::new(),
        region: None,
        anonymous: false,
        measured: Measured::default(),
    };
    Trace { header, jobs }
}

fn scenario(pools: Vec<Pool>) -> Scenario {
    let types = offline::types(&["m7i.large", "m7i.xlarge", "c7i.2xlarge", "r7i.4xlarge"], |it| {
        Rates::of(REGION.to_owned()).hour(it)
    });
    let assumptions = Assumptions::default();
    Scenario { pools, region: REGION.to_owned(), types, labels: Vec::new(), assumptions }
}

fn run(jobs: Vec<Job>, pools: Vec<Pool>) -> Outcome {
    replay(&trace(jobs), &scenario(pools), &|_| {})
}

#[track_caller]
fn assert_waits(outcome: &Outcome, least: f64) {
    let longest = outcome.waits.longest;
    assert!((least..least + WEBHOOK + 0.1).contains(&longest), "{longest} s instead of {least} s");
}

#[test]
fn a_job_waits_for_launch_boot_and_runner() {
    let outcome = run(vec![job(1, 10, 300)], vec![pool("linux", 5)]);
    assert_eq!((outcome.started, outcome.machines()), (1, 1));
    assert_waits(&outcome, COLD);
}

#[test]
fn measured_times_take_the_place_of_the_assumed_ones() {
    let mut trace = trace(vec![job(1, 10, 300)]);
    trace.header.measured = Measured { boot_seconds: Some(50.0), start_seconds: None, runner_seconds: Some(10.0) };
    let scenario =
        Scenario { assumptions: Assumptions::with(&trace.header.measured), ..scenario(vec![pool("linux", 5)]) };
    assert_waits(&replay(&trace, &scenario, &|_| {}), 60.0);
}

#[test]
fn a_warm_machine_shortens_the_wait_and_costs_money() {
    let cold = run(vec![job(1, 10, 300)], vec![pool("linux", 5)]);
    let warm = run(vec![job(1, 10, 300)], vec![Pool { warm: 1, ..pool("linux", 5) }]);
    assert_waits(&warm, WARM);
    assert!(warm.usd() > 5.0 * cold.usd(), "{} USD and {} USD", warm.usd(), cold.usd());
    assert!(warm.idle_share() > 0.9);
}

#[test]
fn a_stopped_machine_is_between_the_two() {
    let stopped = run(vec![job(1, 30, 300)], vec![Pool { stopped: 1, ..pool("linux", 5) }]);
    assert_waits(&stopped, STOPPED);
    let warm = run(vec![job(1, 30, 300)], vec![Pool { warm: 1, ..pool("linux", 5) }]);
    assert!(stopped.machine_hours() < warm.machine_hours() / 3.0, "{} h", stopped.machine_hours());
    assert!(stopped.volume_usd() > 0.0);
}

#[test]
fn max_makes_jobs_wait_for_each_other() {
    let outcome = run((1..=3).map(|id| job(id, 10, 300)).collect(), vec![pool("linux", 1)]);
    assert_eq!(outcome.started, 3);
    assert!(outcome.waits.longest > 600.0, "{} s", outcome.waits.longest);
    assert!(outcome.waits.p50 > 300.0);
}

#[test]
fn a_job_that_needs_another_is_queued_after_its_end() {
    let first = job(1, 10, 600);
    let ended_at = first.ended_at.unwrap();
    let (begin, gap) = (ended_at + SignedDuration::from_secs(5), SignedDuration::from_secs(5));
    let second = Job {
        after: Some(1),
        queued_at: begin,
        started_at: Some(begin + gap),
        ended_at: Some(begin + gap * 13),
        ..job(2, 0, 0)
    };
    // The first job waits for hours, and the second is queued after it, so neither waits for the other.
    let outcome = run(vec![first, second], vec![pool("linux", 1)]);
    assert_eq!(outcome.started, 2);
    assert!(outcome.waits.longest < COLD + 60.0, "{} s", outcome.waits.longest);
}

#[test]
fn what_follows_a_job_that_no_pool_accepts_is_queued_when_it_was_recorded() {
    let elsewhere = Job { labels: vec!["windows".to_owned()], ..job(1, 10, 600) };
    let queued_at = elsewhere.ended_at.unwrap() + SignedDuration::from_secs(5);
    let second = Job {
        after: Some(1),
        queued_at,
        started_at: Some(queued_at),
        ended_at: Some(queued_at + SignedDuration::from_mins(1)),
        ..job(2, 0, 0)
    };
    let outcome = run(vec![elsewhere, second], vec![pool("linux", 1)]);
    assert_eq!((outcome.started, outcome.refused.get(&Unrouted::Labels)), (1, Some(&1)));
}

#[test]
fn a_job_that_was_cancelled_in_time_needs_no_runner() {
    let cancelled = |seconds| Job {
        started_at: None,
        ended_at: Some(at(10) + SignedDuration::from_secs(seconds)),
        conclusion: Some("cancelled".to_owned()),
        ..job(1, 10, 0)
    };
    let at_once = run(vec![cancelled(5)], vec![pool("linux", 5)]);
    assert_eq!((at_once.started, at_once.never_started), (0, 1));
    // With these pools it had begun to run by then.
    let later = run(vec![cancelled(120)], vec![pool("linux", 5)]);
    assert_eq!((later.started, later.never_started), (1, 0));
    let hours = later.pools[0].job_hours;
    assert!(hours < 120.0 / 3600.0, "it is cancelled all the same: {hours} h");
}

#[test]
fn a_job_without_an_end_runs_as_long_as_others_of_its_name() {
    let named = |id, name: &str, runs_for| Job { name: Some(name.to_owned()), ..job(id, id as i64, runs_for) };
    let jobs = vec![
        named(1, "a", 60),
        named(2, "a", 120),
        named(3, "a", 180),
        named(4, "b", 2000),
        Job { started_at: None, ended_at: None, conclusion: None, ..named(5, "a", 0) },
    ];
    let outcome = run(jobs, vec![pool("linux", 10)]);
    let seconds = outcome.pools[0].job_hours * 3600.0;
    assert!((seconds - f64::from(60 + 120 + 180 + 2000 + 120)).abs() < 1.0, "{seconds} s");
}

#[test]
fn jobs_that_no_pool_accepts_are_counted_by_reason() {
    let jobs = vec![
        job(1, 1, 60),
        Job { labels: vec!["windows".to_owned()], ..job(2, 2, 60) },
        Job { labels: vec!["gpu".to_owned()], ..job(3, 3, 60) },
        Job { repository: "mona-inc/tools".to_owned(), ..job(4, 4, 60) },
    ];
    let outcome = run(jobs, vec![pool("linux", 5)]);
    assert_eq!((outcome.started, outcome.refused()), (1, 3));
    assert_eq!(outcome.commonest_refusal(), Some((Unrouted::Labels, 2)));
}

#[test]
fn a_label_can_count_as_another_one() {
    let hosted = Job { labels: vec!["Ubuntu-Latest".to_owned()], ..job(1, 1, 60) };
    let renamed =
        Scenario { labels: vec![("ubuntu-latest".to_owned(), "linux".to_owned())], ..scenario(vec![pool("linux", 5)]) };
    let outcome = replay(&trace(vec![hosted]), &renamed, &|_| {});
    assert_eq!((outcome.started, outcome.refused()), (1, 0));
}

#[test]
fn spot_machines_cost_their_share_of_the_list_price() {
    let spot = run(vec![job(1, 10, 3000)], vec![Pool { market: MarketChoice::Spot, ..pool("linux", 5) }]);
    let on_demand = run(vec![job(1, 10, 3000)], vec![pool("linux", 5)]);
    assert!((spot.usd() / spot.list_usd() - 0.4).abs() < 0.001);
    assert!((spot.list_usd() - on_demand.usd()).abs() < 0.001);
    assert_eq!(spot.interruptions(), 0);
}

#[test]
fn interrupted_jobs_are_run_again_if_the_pool_asks_for_it() {
    let spot = Pool { market: MarketChoice::Spot, rerun_on_interruption: true, ..pool("linux", 50) };
    let assumptions = Assumptions { interruptions_per_hour: 2.0, ..Assumptions::default() };
    let scenario = Scenario { assumptions, ..scenario(vec![spot]) };
    let outcome = replay(&trace((1..=20).map(|id| job(id, 10, 1800)).collect()), &scenario, &|_| {});
    assert!(outcome.interruptions() > 3, "{}", outcome.interruptions());
    assert!(outcome.machines() > 20 && outcome.started == 20, "{} machines", outcome.machines());
}

#[test]
fn a_pool_with_shapes_launches_machines_of_the_size_that_a_job_asks_for() {
    let shaped = |id, label: &str| Job { labels: vec![label.to_owned()], ..job(id, 10, 3600) };
    let outcome = run(vec![shaped(1, "any/8cpu/spot"), shaped(2, "any/64cpu")], vec![shapes_pool("any", 5)]);
    assert_eq!((outcome.started, outcome.refused.get(&Unrouted::Shape)), (1, Some(&1)));
    // An hour of a c7i.2xlarge, which has 8 vCPUs. GitHub's runner of that size costs 0.022 USD per minute.
    let list = outcome.list_usd() / outcome.machine_hours();
    assert!((list - 0.357).abs() < 0.001, "{list} USD per hour");
    assert!((outcome.hosted_usd() - 60.0 * 0.022).abs() < 1e-6);
}

#[test]
fn a_trace_without_names_finds_the_same_pools() {
    let open = trace(vec![job(1, 1, 60), Job { repository: "octo-org/other".to_owned(), ..job(2, 2, 60) }]);
    let listed = Pool { repositories: vec!["Octo-Org/Widgets".parse().unwrap()], ..pool("linux", 5) };
    let scenario = scenario(vec![listed]);
    let expected = replay(&open, &scenario, &|_| {});
    let hidden = replay(&open.clone().anonymous(), &scenario, &|_| {});
    assert_eq!((hidden.started, hidden.refused()), (expected.started, expected.refused()));
    assert_eq!(hidden.started, 1);
}

#[test]
fn the_same_input_gives_the_same_outcome() {
    let mut week = week::week();
    week.jobs.truncate(300);
    week.jobs.iter_mut().for_each(|job| job.after = None);
    let end = week.jobs.last().unwrap().queued_at + SignedDuration::from_hours(1);
    week.header.until = end;
    let spot = Pool { market: MarketChoice::SpotThenOnDemand, warm: 2, ..pool("linux", 20) };
    let scenario = scenario(vec![spot, pool("large", 5)]);
    assert_eq!(replay(&week, &scenario, &|_| {}), replay(&week, &scenario, &|_| {}));
}

/// The bounds follow from the trace alone: each job has a machine of its own, which runs from its launch until a second after the job.
#[test]
fn without_a_limit_the_machines_run_for_the_jobs_and_their_overhead() {
    let jobs: Vec<Job> = (0..100).map(|id| job(id + 1, (id % 50) as i64 * 2, 40 + (id as i64 * 37) % 600)).collect();
    let of_jobs: i64 =
        jobs.iter().map(|job| job.ended_at.unwrap().duration_since(job.started_at.unwrap()).as_secs()).sum();
    let count = jobs.len() as f64;
    let outcome = run(jobs, vec![pool("linux", 1000)]);
    assert_eq!((outcome.started, outcome.machines()), (100, 100));
    // From EC2's answer to the job, and from the end of the job to the power-off.
    let overhead = (COLD - 1.0) + 1.0;
    let expected = (of_jobs as f64 + count * overhead) / 3600.0;
    let hours = outcome.machine_hours();
    assert!((hours - expected).abs() < 0.01 * expected, "{hours} h instead of {expected} h");
    assert!((outcome.pools[0].job_hours * 3600.0 - of_jobs as f64).abs() < 1.0);
    let usd = hours * 0.1008;
    assert!((outcome.usd() - usd).abs() < 0.01 * usd, "{} USD instead of {usd} USD", outcome.usd());
    assert_waits(&outcome, COLD);
}

/// Nothing is known of the days that were not read, so a machine that waits then costs nothing.
#[test]
fn a_warm_machine_is_counted_only_on_the_days_that_were_read() {
    let mut trace = trace(vec![job(1, 60, 300), job(2, 48 * 60, 300)]);
    trace.header.from = "2026-11-02T00:00:00Z".parse().unwrap();
    trace.header.until = "2026-11-06T00:00:00Z".parse().unwrap();
    trace.header.days = ["2026-11-02", "2026-11-04"].map(|day| day.parse().unwrap()).to_vec();
    let outcome = replay(&trace, &scenario(vec![Pool { warm: 1, ..pool("linux", 5) }]), &|_| {});
    assert_eq!((outcome.started, outcome.waits.longest < WARM + WEBHOOK + 0.1), (2, true));
    // Each job has its own machine while the next one boots and waits.
    let hours = outcome.machine_hours();
    assert!((47.9..48.5).contains(&hours), "{hours} h");
    assert!((outcome.usd() - hours * 0.1008).abs() < 0.05, "{} USD", outcome.usd());
    let running: f64 = outcome.pools[0].running.iter().sum::<f64>() * outcome.step_seconds as f64 / 3600.0;
    assert!((running - hours).abs() < 0.01, "{running} h in the chart");
    let month = 40.0 * 0.08 / 730.0;
    assert!((outcome.volume_usd() - hours * month).abs() < 0.05 * month * hours);
}

#[test]
fn every_job_that_ran_counts_for_the_announced_charge() {
    let outcome = run(vec![job(1, 10, 300), job(2, 20, 61)], vec![pool("linux", 5)]);
    assert_eq!(outcome.pools[0].job_minutes, 7);
    assert!((outcome.platform_charge_usd() - 0.014).abs() < 1e-9);
}
