//! Refusals by EC2 and GitHub: every job is served in the end or its author is notified, and nothing extra is launched.

mod story;

use std::time::Duration;

use domain::config::{MarketChoice, Pool};
use domain::ids::JobId;
use domain::state::Circuit;
use jiff::SignedDuration;
use simulator::{Ingest, Runners, Universe, pool};
use story::everything_is_over;
use world::LostReply;
use world::ec2::{Capacity, Code, LaunchMatch, Market, Operation, Refusal, When};
use world::github::{self, DEFAULT_GROUP, Endpoint, Group};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn linux(change: impl FnOnce(Pool) -> Pool) -> Vec<Pool> {
    vec![change(pool("linux", 100))]
}

fn universe(seed: u64) -> Universe {
    Universe::new(seed, linux(|pool| pool))
}

fn refuse(universe: &Universe, matches: LaunchMatch, code: Code, when: When) {
    universe.ec2(|ec2, _| ec2.faults.refusals.push(Refusal { matches, code, when }));
}

fn refuse_nothing(universe: &Universe) {
    universe.ec2(|ec2, _| ec2.faults.refusals.clear());
}

fn without_capacity(seed: u64) -> Universe {
    let universe = universe(seed);
    refuse(&universe, LaunchMatch::default(), Code::InsufficientInstanceCapacity, When::Chance(1.0));
    universe
}

/// EC2 has capacity again, and soon every machine is launched.
fn all_start_soon(universe: &Universe, machines: u64) {
    refuse_nothing(universe);
    universe.run(MINUTE * 3);
    assert_eq!(launches(universe), machines);
    everything_is_over(universe);
}

fn queue(universe: &Universe, jobs: usize) -> Vec<JobId> {
    (0..jobs).map(|_| universe.queue_job(&["linux"], MINUTE)).collect()
}

fn launches(universe: &Universe) -> u64 {
    universe.ec2(|ec2, _| ec2.launches())
}

fn calls_of_run_instances(universe: &Universe) -> u64 {
    universe.ec2(|ec2, _| ec2.calls().get(&Operation::RunInstances).copied().unwrap_or_default())
}

fn circuit(universe: &Universe) -> Circuit {
    universe.store.view(&"linux".parse().expect("a pool")).meta.circuit
}

/// The conclusion and the title of each check run about a job.
fn check_runs(universe: &Universe, job: JobId) -> Vec<(String, String)> {
    universe.github(|github, _| {
        let of_job = github.check_runs().filter(|run| run.now.external_id.as_deref() == Some(&job.to_string()));
        of_job
            .map(|run| {
                let title = run.now.output.as_ref().map(|output| output.title.clone());
                (run.now.conclusion.clone().unwrap_or_default(), title.unwrap_or_default())
            })
            .collect()
    })
}

#[test]
fn a_throttled_launch_is_repeated_and_nothing_is_launched_twice() {
    for code in [Code::RequestLimitExceeded, Code::Throttling] {
        let universe = universe(20);
        refuse(&universe, LaunchMatch::default(), code, When::Next(4));
        queue(&universe, 5);
        everything_is_over(&universe);
        assert_eq!(launches(&universe), 5);
    }
}

#[test]
fn a_refusal_after_a_throttled_call_leads_to_the_next_zone_at_once() {
    let universe = universe(21);
    refuse(&universe, LaunchMatch::default(), Code::RequestLimitExceeded, When::Next(1));
    refuse(&universe, LaunchMatch::default(), Code::InsufficientInstanceCapacity, When::Next(1));
    queue(&universe, 1);
    universe.run(SignedDuration::from_secs(15));
    assert_eq!((launches(&universe), calls_of_run_instances(&universe)), (1, 3));
    everything_is_over(&universe);
}

#[test]
fn a_partly_visible_launch_that_is_throttled_is_not_repeated_elsewhere() {
    let universe = universe(22);
    universe.ec2(|ec2, _| {
        ec2.faults.invisible_for = Duration::from_secs(240);
        ec2.faults.lost_replies.push_back((Operation::RunInstances, LostReply::Applied));
    });
    queue(&universe, 5);
    universe.run(SignedDuration::from_secs(4));
    universe.ec2(|ec2, _| ec2.faults.errors.extend([(Operation::RunInstances, Code::RequestLimitExceeded); 50]));
    universe.run(MINUTE * 3);
    universe.ec2(|ec2, _| ec2.faults.errors.clear());
    everything_is_over(&universe);
    assert_eq!(launches(&universe), 5);
}

#[test]
fn every_capacity_code_leads_to_the_next_zone_at_once() {
    for code in [
        Code::InsufficientInstanceCapacity,
        Code::InsufficientHostCapacity,
        Code::InsufficientReservedInstanceCapacity,
        Code::InsufficientFreeAddressesInSubnet,
        Code::UnfulfillableCapacity,
        Code::Unsupported,
        Code::SpotMaxPriceTooLow,
        Code::ReservationCapacityExceeded,
    ] {
        let universe = universe(21);
        let zone = LaunchMatch { subnet: Some("subnet-a".into()), ..LaunchMatch::default() };
        refuse(&universe, zone, code, When::Chance(1.0));
        queue(&universe, 3);
        universe.run(SignedDuration::from_secs(10));
        assert_eq!(launches(&universe), 3, "{code}");
        // The refused zone cools down: the next launches do not try it.
        queue(&universe, 3);
        let before = calls_of_run_instances(&universe);
        universe.run(SignedDuration::from_secs(10));
        assert!(calls_of_run_instances(&universe) - before <= 3, "{code}");
        assert_eq!(launches(&universe), 6, "{code}");
        everything_is_over(&universe);
    }
}

#[test]
fn jobs_start_soon_after_ec2_has_capacity_again_however_long_it_had_none() {
    let universe = without_capacity(29);
    queue(&universe, 2);
    universe.run(MINUTE * 50);
    assert_eq!(launches(&universe), 0);
    let calls = calls_of_run_instances(&universe);
    assert!(calls <= 60, "{calls}: about one per minute");
    all_start_soon(&universe, 2);
}

#[test]
fn launches_that_waited_for_capacity_are_all_resumed_once_it_is_back() {
    let universe = without_capacity(30);
    for _ in 0..25 {
        queue(&universe, 1);
        universe.run(MINUTE * 2);
    }
    all_start_soon(&universe, 25);
}

#[test]
fn a_zone_that_answers_no_launch_does_not_stop_the_pool() {
    let universe = universe(28);
    let zone = LaunchMatch { subnet: Some("subnet-a".into()), ..LaunchMatch::default() };
    refuse(&universe, zone, Code::InternalError, When::Chance(1.0));
    let jobs = queue(&universe, 3);
    universe.run(MINUTE * 10);
    assert_eq!(launches(&universe), 3, "the other zone answers");
    queue(&universe, 2);
    universe.run(SignedDuration::from_secs(10));
    assert_eq!(launches(&universe), 5, "the zone without answers cools down");
    universe.run(MINUTE * 10);
    universe.github(|github, _| {
        assert!(jobs.iter().all(|job| github.job(github::JobId(job.0)).is_some_and(github::Job::served_once)));
    });
    everything_is_over(&universe);
}

#[test]
fn a_runner_whose_every_name_is_taken_is_not_registered_without_end() {
    let universe = universe(29);
    let taken = github::Failure::Conflict("a runner of that name exists".to_owned());
    universe.github(|github, _| {
        github.faults.failures.extend(std::iter::repeat_n((Endpoint::GenerateJit, taken), 1000));
    });
    queue(&universe, 1);
    universe.run(MINUTE * 2);
    let calls = universe.github(|github, _| github.calls()[&Endpoint::GenerateJit]);
    assert!((4..10).contains(&calls), "{calls} calls: the first names at once, and then with a pause");
    universe.github(|github, _| github.faults.failures.clear());
    everything_is_over(&universe);
}

#[test]
fn spot_falls_over_to_on_demand_within_one_invocation() {
    let universe = Universe::new(22, linux(|pool| Pool { market: MarketChoice::SpotThenOnDemand, ..pool }));
    let spot = LaunchMatch { market: Some(Market::Spot), ..LaunchMatch::default() };
    refuse(&universe, spot, Code::InsufficientInstanceCapacity, When::Chance(1.0));
    queue(&universe, 2);
    while launches(&universe) == 0 {
        universe.tick();
        let before = calls_of_run_instances(&universe);
        universe.scale();
        if calls_of_run_instances(&universe) > before {
            assert!(launches(&universe) > 0, "the invocation ended without an on-demand launch");
        }
    }
    everything_is_over(&universe);
    assert_eq!(launches(&universe), 2);
    assert!(universe.ec2(|ec2, _| ec2.instances().all(|instance| instance.market == Market::OnDemand)));
}

#[test]
fn a_quota_pauses_the_market_and_not_the_zones() {
    for code in [
        Code::VcpuLimitExceeded,
        Code::InstanceLimitExceeded,
        Code::MaxSpotInstanceCountExceeded,
        Code::PendingVerification,
    ] {
        let universe = universe(23);
        refuse(&universe, LaunchMatch::default(), code, When::Next(1));
        queue(&universe, 2);
        universe.run(MINUTE);
        assert_eq!(calls_of_run_instances(&universe), 1, "{code}: other zones were tried");
        everything_is_over(&universe);
        assert_eq!(launches(&universe), 2);
    }
}

#[test]
fn a_partial_launch_is_used_and_the_rest_launched_elsewhere() {
    let universe = universe(24);
    let zone = LaunchMatch { subnet: Some("subnet-a".into()), ..LaunchMatch::default() };
    universe.ec2(|ec2, _| ec2.faults.capacity.push(Capacity { matches: zone, left: 2 }));
    queue(&universe, 5);
    everything_is_over(&universe);
    assert_eq!(launches(&universe), 5);
}

#[test]
fn a_refusal_with_any_code_leads_to_the_next_launch_option_in_the_same_invocation() {
    for code in [Code::TagPolicyViolation, Code::SpotRoleMissing, Code::NeverSeen, Code::UnauthorizedOperation] {
        let universe = Universe::new(34, linux(|pool| Pool { market: MarketChoice::SpotThenOnDemand, ..pool }));
        let spot = LaunchMatch { market: Some(Market::Spot), ..LaunchMatch::default() };
        refuse(&universe, spot, code, When::Chance(1.0));
        queue(&universe, 1);
        universe.run(SignedDuration::from_secs(10));
        assert_eq!(
            (launches(&universe), calls_of_run_instances(&universe)),
            (1, 3),
            "{code}: two zones, then on-demand"
        );
        assert_eq!(circuit(&universe), Circuit::Closed, "{code}");
        everything_is_over(&universe);
    }
}

#[test]
fn a_pool_that_cannot_launch_sends_probes_only() {
    let universe = universe(25);
    refuse(&universe, LaunchMatch::default(), Code::UnauthorizedOperation, When::Chance(1.0));
    let jobs = queue(&universe, 20);
    universe.run(SignedDuration::from_mins(55));
    let calls = calls_of_run_instances(&universe);
    assert!((4..=24).contains(&calls), "{calls} calls within an hour, two for each probe");
    assert!(matches!(circuit(&universe), Circuit::Open { cause, .. } if cause.code() == "UnauthorizedOperation"));
    let [(conclusion, title)] = &check_runs(&universe, jobs[0])[..] else {
        panic!("{:?}", check_runs(&universe, jobs[0]))
    };
    assert_eq!(conclusion, "neutral");
    assert!(title.contains("UnauthorizedOperation"), "{title}");
    universe.run(SignedDuration::from_mins(10));
    assert_eq!(check_runs(&universe, jobs[0])[0].0, "failure", "after launch_deadline, an hour");
    refuse_nothing(&universe);
    universe.run(SignedDuration::from_mins(35));
    everything_is_over(&universe);
    assert_eq!(check_runs(&universe, jobs[0])[0].0, "success", "closed once the job no longer waits");
    assert_eq!(universe.github(|github, _| github.check_runs().count()), 20, "one check run per job");
}

#[test]
fn a_zone_that_accepts_launches_without_capacity_is_left_out_and_opens_no_circuit() {
    let universe = universe(29);
    let zone = LaunchMatch { subnet: Some("subnet-a".into()), ..LaunchMatch::default() };
    universe.ec2(|ec2, _| ec2.faults.accepted_in_vain.push((zone, 1.0)));
    queue(&universe, 4);
    universe.run(MINUTE * 4);
    assert_eq!(circuit(&universe), Circuit::Closed);
    let in_vain = universe.ec2(|ec2, _| ec2.instances().filter(|machine| machine.lacked_capacity()).count());
    assert_eq!((in_vain, launches(&universe)), (4, 8), "the other zone has capacity");
    everything_is_over(&universe);
}

#[test]
fn machines_that_never_come_up_are_bounded_and_the_author_is_notified() {
    let universe = universe(26);
    universe.ec2(|ec2, _| ec2.faults.boot_failures = 1.0);
    let jobs = queue(&universe, 10);
    universe.run(SignedDuration::from_mins(65));
    let launched = launches(&universe);
    assert!(launched <= 30, "S6: {launched} machines for ten jobs within an hour");
    assert!(matches!(circuit(&universe), Circuit::Open { .. }));
    assert_eq!(check_runs(&universe, jobs[0])[0].0, "failure");
    universe.ec2(|ec2, _| ec2.faults.boot_failures = 0.0);
    universe.run(SignedDuration::from_mins(60));
    everything_is_over(&universe);
}

/// The message of the open circuit, which must have this cause.
fn circuit_message(universe: &Universe, expected: &str) -> String {
    match circuit(universe) {
        Circuit::Open { cause, message, .. } if cause.code() == expected => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn machines_that_ec2_ends_at_once_open_the_circuit_after_three() {
    let universe = universe(35);
    universe.ec2(|ec2, _| ec2.faults.ends_at_once = 1.0);
    queue(&universe, 10);
    universe.run(MINUTE * 5);
    assert!(launches(&universe) <= 13, "{} launches: ten, and probes", launches(&universe));
    let message = circuit_message(&universe, "EndedEarly");
    assert!(message.contains("Client.InvalidKMSKey.InvalidState"), "{message}");
    universe.ec2(|ec2, _| ec2.faults.ends_at_once = 0.0);
    universe.run(MINUTE * 65);
    everything_is_over(&universe);
    assert_eq!(circuit(&universe), Circuit::Closed);
}

#[test]
fn runners_that_github_refuses_open_the_circuit_after_three() {
    let universe = universe(36);
    universe.set_runners(Runners::Refused);
    queue(&universe, 10);
    universe.run(MINUTE * 5);
    assert!(launches(&universe) <= 13, "{} launches: ten, and probes", launches(&universe));
    let message = circuit_message(&universe, "EndedEarly");
    assert!(message.contains("GitHub refuses this version of the runner."), "{message}");
    universe.set_runners(Runners::Accepted);
    universe.run(MINUTE * 65);
    everything_is_over(&universe);
}

#[test]
fn machines_that_finished_jobs_without_webhooks_or_were_reclaimed_do_not_open_the_circuit() {
    let universe = universe(37);
    for _ in 0..6 {
        universe.queue_job(&["linux"], SignedDuration::from_secs(10));
    }
    universe.run(SignedDuration::from_secs(12));
    universe.set_ingest(Ingest::Down);
    universe.run(MINUTE * 8);
    assert_eq!((circuit(&universe), launches(&universe)), (Circuit::Closed, 6), "six jobs ran, and no webhook said so");
    universe.set_ingest(Ingest::Up);
    everything_is_over(&universe);

    let universe = Universe::new(38, linux(|pool| Pool { market: MarketChoice::Spot, ..pool }));
    queue(&universe, 6);
    universe.run(SignedDuration::from_secs(12));
    universe.ec2(|ec2, now| {
        let ids: Vec<_> = ec2.alive().map(|machine| machine.id.clone()).collect();
        ids.iter().for_each(|id| ec2.reclaim_without_notice(id, now));
    });
    universe.run(MINUTE * 3);
    assert_eq!((circuit(&universe), launches(&universe)), (Circuit::Closed, 12), "each is replaced once");
    everything_is_over(&universe);
}

#[test]
fn machines_that_an_operator_held_when_they_ended_are_no_failures_of_their_pool() {
    let universe = universe(39);
    queue(&universe, 3);
    universe.run(SignedDuration::from_secs(12));
    let held: Vec<_> = universe.ec2(|ec2, _| ec2.alive().map(|machine| machine.id.clone()).collect());
    universe.ec2(|ec2, _| held.iter().for_each(|id| ec2.fail_boot(id)));
    held.iter().for_each(|id| universe.hold(id));
    universe.run(MINUTE * 2);
    universe.ec2(|ec2, now| held.iter().for_each(|id| ec2.fail_host(id, now)));
    universe.run(SignedDuration::from_secs(30));
    held.iter().for_each(|id| universe.release(id));
    universe.run(MINUTE * 3);
    assert_eq!(launches(&universe), 6, "each is replaced once");
    assert_eq!(universe.store.view(&"linux".parse().expect("a pool")).meta.failures, []);
    everything_is_over(&universe);
}

fn group(universe: &Universe, allowed: bool) {
    universe.github(|github, _| {
        let owner = github.find_owner("octo-org").expect("it exists").id;
        let repositories = (!allowed).then(Default::default);
        let name = "Default".to_owned();
        github.set_group(owner, Group { id: DEFAULT_GROUP, name, repositories, allows_public: true });
    });
}

#[test]
fn a_job_that_github_gives_to_no_runner_of_the_pool_costs_few_launches() {
    let universe = universe(27);
    group(&universe, false);
    let job = queue(&universe, 1)[0];
    universe.run(SignedDuration::from_mins(20));
    let view = universe.store.view(&"linux".parse().expect("a pool"));
    assert!(view.waiting[&job].unserved.is_some());
    let [(_, title)] = &check_runs(&universe, job)[..] else { panic!("no check run") };
    assert!(title.contains("runner group 1"), "{title}");
    universe.run(SignedDuration::from_mins(100));
    let launched = launches(&universe);
    assert!(launched <= 6, "{launched} machines in two hours for a job that none of them may run");
    group(&universe, true);
    universe.run(SignedDuration::from_mins(60));
    everything_is_over(&universe);
}

#[test]
fn a_deleted_runner_group_launches_no_further_machine_and_harms_no_other_pool() {
    let other = pool("other", 10);
    let mut pools = linux(|pool| Pool { runner_group: 99, ..pool });
    pools.push(other);
    let universe = Universe::new(28, pools);
    queue(&universe, 1);
    universe.run(MINUTE);
    queue(&universe, 3);
    universe.queue_job(&["other"], MINUTE);
    universe.run(MINUTE * 5);
    assert!(matches!(circuit(&universe), Circuit::Open { cause, .. } if cause.code() == "RegistrationRefused"));
    let (mine, others): (Vec<_>, Vec<_>) = universe.ec2(|ec2, _| {
        ec2.instances().map(|instance| instance.tags["drover:pool"].clone()).partition(|pool| pool == "linux")
    });
    assert_eq!((mine.len(), others.len()), (2, 1), "one machine, one probe, and one machine of the other pool");
    let owner = universe.github(|github, _| github.find_owner("octo-org").expect("it exists").id);
    let restored =
        Group { id: world::github::GroupId(99), name: "restored".into(), repositories: None, allows_public: true };
    universe.github(|github, _| github.set_group(owner, restored));
    universe.run(MINUTE * 60);
    everything_is_over(&universe);
}

#[test]
fn a_limit_on_registrations_launches_nothing_and_the_waiting_machine_is_used() {
    let universe = universe(29);
    universe.github(|github, _| {
        for status in [500, 502, 503] {
            github.faults.broken.push_back((github::Endpoint::GenerateJit, status));
        }
    });
    queue(&universe, 2);
    everything_is_over(&universe);
    assert_eq!(launches(&universe), 2);

    let universe = Universe::new(30, linux(|pool| Pool { max: 1000, ..pool }));
    queue(&universe, 400);
    universe.run(MINUTE * 4);
    everything_is_over(&universe);
    assert_eq!(launches(&universe), 400, "GitHub registers 180 runners per minute; the machines wait");
}

#[test]
fn warm_machines_take_jobs_at_once_and_are_recycled_at_half_their_life() {
    let universe = Universe::new(31, linux(|pool| Pool { warm: 2, ..pool }));
    universe.sweep();
    universe.run(MINUTE * 5);
    assert_eq!(launches(&universe), 2);
    let job = github::JobId(queue(&universe, 1)[0].0);
    universe.run(SignedDuration::from_secs(20));
    let state = universe.github(|github, _| github.job(job).map(|job| job.state.status()));
    assert_eq!(state, Some("in_progress"), "a warm machine runs it");
    universe.run(SignedDuration::from_hours(7));
    let oldest = universe.ec2(|ec2, now| ec2.alive().map(|machine| now.duration_since(machine.launched_at)).max());
    assert!(oldest.expect("two are warm") < SignedDuration::from_mins(6 * 60 + 5), "{oldest:?}");
    assert_eq!(universe.ec2(|ec2, _| ec2.alive().count()), 2);
    assert_eq!(launches(&universe), 5, "two, one for the used one, and two at half their life");
}

#[test]
fn a_notification_that_github_refuses_is_repeated_until_github_accepts_it() {
    let universe = universe(33);
    refuse(&universe, LaunchMatch::default(), Code::InsufficientInstanceCapacity, When::Chance(1.0));
    let jobs = queue(&universe, 1);
    universe.run(MINUTE * 2);
    universe.github(|github, _| {
        let owner = github.find_owner("octo-org").expect("it exists").id;
        github.uninstall(owner);
    });
    universe.run(MINUTE * 20);
    assert!(check_runs(&universe, jobs[0]).is_empty(), "the app may not write check runs");
    universe.install_again();
    universe.run(MINUTE * 10);
    let [(conclusion, title)] = &check_runs(&universe, jobs[0])[..] else {
        panic!("{:?}", check_runs(&universe, jobs[0]))
    };
    assert_eq!(conclusion, "neutral");
    assert!(title.contains("InsufficientInstanceCapacity"), "{title}");
}

#[test]
fn an_uninstalled_app_stops_only_its_account_until_it_is_installed_again() {
    let universe = universe(32);
    queue(&universe, 2);
    universe.run(SignedDuration::from_secs(4));
    universe.github(|github, _| {
        let owner = github.find_owner("octo-org").expect("it exists").id;
        github.uninstall(owner);
    });
    universe.run(MINUTE * 10);
    // Runners that were registered before still run the jobs, but no webhook says so.
    assert!(launches(&universe) <= 6, "S6: three per job and hour");
    universe.install_again();
    universe.run(MINUTE * 40);
    everything_is_over(&universe);
}

#[test]
fn a_paused_pool_launches_nothing_and_serves_its_jobs_once_it_is_resumed() {
    let universe = Universe::new(61, linux(|pool| Pool { warm: 1, ..pool }));
    universe.run(MINUTE * 3);
    assert_eq!(launches(&universe), 1, "the warm machine");
    universe.pause_only(Some("linux"));
    let jobs = queue(&universe, 3);
    universe.run(MINUTE * 20);
    assert_eq!(launches(&universe), 1, "neither for the jobs nor to replace the warm machine");
    universe.github(|github, _| {
        let served =
            jobs.iter().filter(|job| github.job(github::JobId(job.0)).is_some_and(|job| job.served_once())).count();
        assert_eq!(served, 1, "the warm machine ran one job");
    });
    let notified = jobs
        .iter()
        .flat_map(|job| check_runs(&universe, *job))
        .filter(|(_, title)| title.contains("the pool is paused"));
    assert_eq!(notified.count(), 2, "the authors of the others know why they wait");
    universe.change_pools(|pools| pools.iter_mut().for_each(|pool| pool.warm = 0));
    universe.pause_only(None);
    everything_is_over(&universe);
    assert_eq!(launches(&universe), 3);
}

#[test]
fn a_launch_that_is_refused_after_a_pause_is_not_repeated() {
    let universe = universe(62);
    refuse(&universe, LaunchMatch::default(), Code::InsufficientInstanceCapacity, When::Chance(1.0));
    queue(&universe, 2);
    universe.run(SignedDuration::from_secs(10));
    let view = || universe.store.view(&"linux".parse().expect("a pool"));
    assert_eq!(view().batches.len(), 1, "a launch waits until its options have cooled down");
    universe.pause_only(Some("linux"));
    refuse_nothing(&universe);
    universe.run(MINUTE * 20);
    assert_eq!((launches(&universe), view().batches.len(), view().slots.len()), (0, 0, 0), "it is given up");
    universe.pause_only(None);
    everything_is_over(&universe);
    assert_eq!(launches(&universe), 2);
}
