//! The janitor's rules. In each story one thing goes wrong, the sweeps of the following minutes repair it, and a further
//! sweep does nothing.

mod story;

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::state::{Item, Slot};
use domain::wire::Message;
use engine::sweep::{Mode, Report, sweep};
use jiff::SignedDuration;
use simulator::{Universe, pool};
use story::everything_is_over;
use world::ec2::{EndCause, InstanceId, Market, RunInstances, State, TemplateRef};
use world::github::{self, DEFAULT_GROUP, JitRequest, RunnerId, Scope};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn universe(seed: u64, change: impl FnOnce(Pool) -> Pool) -> Universe {
    Universe::new(seed, vec![change(pool("linux", 100))])
}

/// Runs until `machines` machines have a job.
fn until_busy(universe: &Universe, machines: usize) {
    for _ in 0..600 {
        let busy = |github: &mut github::GitHub| github.registrations().filter(|runner| runner.job.is_some()).count();
        if universe.github(|github, _| busy(github)) == machines {
            return;
        }
        universe.run(SignedDuration::from_secs(1));
    }
    panic!("{machines} jobs do not run");
}

/// A runner that is online and idle: its job was cancelled while the machine started.
fn idle_runner(universe: &Universe) -> (InstanceId, RunnerId) {
    let job = universe.queue_job(&["linux"], MINUTE);
    universe.run(SignedDuration::from_secs(3));
    universe.github(|github, now| github.cancel(github::JobId(job.0), now));
    for _ in 0..100 {
        let online =
            universe.github(|github, _| github.registrations().find(|it| it.connected_at.is_some()).map(|it| it.id));
        if let Some(runner) = online {
            let machine = universe.ec2(|ec2, _| ec2.alive().next().expect("its machine").id.clone());
            return (machine, runner);
        }
        universe.run(SignedDuration::from_secs(1));
    }
    panic!("no runner comes online");
}

/// Machines with the stack's tags, from a launch that is not in the table.
fn unowned_instances(universe: &Universe, count: u32, more: &[(&str, &str)]) -> Vec<InstanceId> {
    let own = [("drover:stack", "sim"), ("drover:pool", "linux"), ("drover:batch", "linux.zz9.7.1")];
    let tags: BTreeMap<String, String> =
        own.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    universe.ec2(|ec2, now| {
        let request = RunInstances {
            template: TemplateRef::Name("runner".to_owned()),
            template_version: None,
            min_count: count,
            max_count: count,
            subnet: "subnet-a".into(),
            instance_type: None,
            market: Market::OnDemand,
            client_token: None,
            tags,
            volume_tags: BTreeMap::new(),
        };
        let reservation = ec2.run_instances(request, now).expect("there is room");
        reservation.instances.into_iter().map(|instance| instance.id).collect()
    })
}

fn unowned(universe: &Universe, more: &[(&str, &str)]) -> InstanceId {
    unowned_instances(universe, 1, more).remove(0)
}

/// A registration without a slot.
fn registration(universe: &Universe, name: &str) -> RunnerId {
    universe.github(|github, now| {
        let installation = github.find_owner("octo-org").and_then(|owner| owner.installation).expect("it is installed");
        let request = JitRequest { name: name.to_owned(), group: DEFAULT_GROUP, labels: vec!["linux".to_owned()] };
        github
            .generate_jit(installation, &Scope::organization("octo-org"), request, now)
            .expect("a free name")
            .runner
            .id
    })
}

fn ended(universe: &Universe, machine: &InstanceId) -> Option<EndCause> {
    universe.ec2(|ec2, _| ec2.ended().iter().find(|it| it.instance == *machine).map(|it| it.why))
}

fn is_registered(universe: &Universe, runner: RunnerId) -> bool {
    universe.github(|github, _| github.runner(runner).is_some())
}

fn reaped(report: &Report) -> Vec<(&'static str, usize)> {
    report.reaped.iter().map(|(why, times)| (*why, *times)).collect()
}

fn nothing_more(universe: &Universe) {
    let again = universe.sweep();
    assert_eq!(
        (again.found, again.failures.len(), again.reaped.len()),
        (0, 0, 0),
        "a second sweep does nothing: {again:?}"
    );
}

#[test]
fn a_held_machine_is_reported_and_not_touched() {
    let universe = universe(60, |pool| pool);
    let held = unowned(&universe, &[("drover:hold", "")]);
    universe.run(SignedDuration::from_hours(13));
    assert_eq!(universe.sweep().held, 1);
    assert_eq!(ended(&universe, &held), None, "not even at the end of its life");
    nothing_more(&universe);
}

#[test]
fn a_machine_of_a_pool_that_does_not_exist_is_reported_and_not_touched() {
    let universe = universe(61, |pool| pool);
    let left = unowned(&universe, &[("drover:pool", "gone"), ("drover:batch", "gone.zz9.7.1")]);
    universe.run(MINUTE * 30);
    let said = universe.sweep().failures;
    assert!(matches!(&said[..], [one] if one.contains(left.as_str()) && one.contains("pool gone")), "{said:?}");
    assert_eq!(ended(&universe, &left), None);
}

#[test]
fn a_held_warm_machine_gets_no_runner_and_another_one_runs_the_job() {
    let universe = universe(88, |pool| Pool { warm: 1, ..pool });
    universe.run(MINUTE * 2);
    let held = universe.ec2(|ec2, _| ec2.alive().next().expect("the warm machine").id.clone());
    universe.hold(&held);
    universe.run(MINUTE * 2);
    universe.queue_job(&["linux"], MINUTE);
    universe.run(MINUTE * 5);
    assert!(universe.github(|github, _| github.jobs().all(|job| job.served_once())));
    let runner =
        |slot: &Slot| slot.machine().is_some_and(|it| it.instance.as_str() == held.as_str()) && slot.runner().is_some();
    let view = universe.store.view(&"linux".parse().expect("a pool"));
    assert!(!view.slots.values().any(runner), "a held machine gets no runner");
    universe.release(&held);
}

#[test]
fn a_machine_past_max_life_is_terminated_even_with_a_job() {
    let universe = universe(61, |mut pool| {
        pool.timings.max_life = "10m".parse().expect("a time");
        pool
    });
    universe.queue_job(&["linux"], MINUTE * 60);
    until_busy(&universe, 1);
    let machine = universe.ec2(|ec2, _| ec2.alive().next().expect("one machine").id.clone());
    universe.run(MINUTE * 8);
    assert_eq!(ended(&universe, &machine), None, "it has time left");
    universe.run(MINUTE * 4);
    assert_eq!(ended(&universe, &machine), Some(EndCause::TerminateCall));
    // GitHub takes ten minutes to give the runner up and the job with it.
    universe.run(MINUTE * 20);
    assert_eq!(universe.ec2(|ec2, _| ec2.alive().count()), 0);
    assert_eq!(universe.github(|github, _| github.registrations().count()), 0);
    nothing_more(&universe);
}

#[test]
fn a_machine_that_stopped_instead_of_terminating_is_deregistered_and_terminated() {
    let universe = universe(62, |pool| pool);
    universe.ec2(|ec2, _| ec2.faults.stops = 1.0);
    let (machine, runner) = idle_runner(&universe);
    universe.ec2(|ec2, now| {
        ec2.power_off(&machine, now);
        assert_eq!(ec2.instance(&machine).map(|it| it.state), Some(State::Stopping));
        ec2.faults.stops = 0.0;
    });
    universe.run(MINUTE * 3);
    assert!(!is_registered(&universe, runner));
    assert_eq!(ended(&universe, &machine), Some(EndCause::TerminateCall), "it does not stay stopped");
    everything_is_over(&universe);
    nothing_more(&universe);
}

#[test]
fn an_orphan_is_terminated_after_its_grace_and_a_machine_of_another_stack_never() {
    let universe = universe(63, |pool| pool);
    let orphan = unowned(&universe, &[]);
    let foreign = unowned(&universe, &[("drover:stack", "other")]);
    let held_by_others = unowned(&universe, &[("drover:stack", "other"), ("drover:hold", "")]);
    universe.run(MINUTE * 9);
    assert_eq!(ended(&universe, &orphan), None, "its launch may not be in the table yet");
    universe.run(MINUTE * 4);
    assert_eq!(ended(&universe, &orphan), Some(EndCause::TerminateCall));
    assert_eq!(universe.sweep().held, 0, "a held machine of another stack is not reported");
    universe.run(SignedDuration::from_hours(13));
    assert_eq!((ended(&universe, &foreign), ended(&universe, &held_by_others)), (None, None));
    nothing_more(&universe);
}

#[test]
fn a_machine_whose_job_is_done_and_that_did_not_power_off_is_terminated() {
    let universe = universe(64, |pool| pool);
    universe.ec2(|ec2, _| ec2.faults.stops = 1.0);
    universe.queue_job(&["linux"], MINUTE);
    until_busy(&universe, 1);
    let machine = universe.ec2(|ec2, _| ec2.alive().next().expect("one machine").id.clone());
    everything_is_over(&universe);
    assert_eq!(ended(&universe, &machine), Some(EndCause::TerminateCall));
    nothing_more(&universe);
}

#[test]
fn a_machine_that_never_comes_up_is_replaced_and_its_job_runs() {
    let universe = universe(65, |pool| pool);
    universe.queue_job(&["linux"], MINUTE);
    universe.run(SignedDuration::from_secs(2));
    let broken = universe.ec2(|ec2, _| {
        let id = ec2.alive().next().expect("one machine").id.clone();
        ec2.fail_boot(&id);
        id
    });
    universe.run(MINUTE * 7);
    assert_eq!(ended(&universe, &broken), None, "it may boot slowly");
    everything_is_over(&universe);
    assert_eq!(ended(&universe, &broken), Some(EndCause::TerminateCall));
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 2);
    nothing_more(&universe);
}

#[test]
fn a_machine_whose_runner_github_removed_is_terminated_and_its_job_is_served() {
    let universe = universe(66, |pool| pool);
    let (machine, runner) = idle_runner(&universe);
    universe.github(|github, now| {
        let installation = github.find_owner("octo-org").and_then(|owner| owner.installation).expect("it is installed");
        github.delete_runner(installation, &Scope::organization("octo-org"), runner, now).expect("it is idle");
    });
    universe.queue_job(&["linux"], MINUTE);
    everything_is_over(&universe);
    assert!(ended(&universe, &machine).is_some());
    nothing_more(&universe);
}

#[test]
fn a_runner_that_stays_disconnected_does_not_count_as_warm() {
    let universe = universe(75, |pool| Pool { warm: 1, ..pool });
    let (machine, runner) = idle_runner(&universe);
    universe.run(MINUTE * 3);
    assert_eq!(ended(&universe, &machine), None, "it counts as the warm machine");
    universe.ec2(|ec2, _| ec2.print(&machine, &format!("{}the disk is full\n", "a line\n".repeat(10_000))));
    universe.github(|github, now| github.disconnect(runner, now));
    universe.run(MINUTE * 6);
    assert_eq!(ended(&universe, &machine), None, "it may connect again");
    universe.run(MINUTE * 4);
    assert!(ended(&universe, &machine).is_some());
    assert!(!is_registered(&universe, runner));
    assert_eq!(universe.ec2(|ec2, _| ec2.alive().count()), 1, "another one is kept warm");
    nothing_more(&universe);
    // Its console output and its cost are in the table after EC2 has forgotten the machine.
    let items = universe.store.items();
    let of_machine = |item: &Item| matches!(item, Item::Instance(it) if it.id.as_str() == machine.as_str());
    let Some(Item::Instance(closed)) = items.into_iter().find(of_machine) else { panic!("it is known") };
    let console = closed.console.expect("it ended abnormally");
    assert!(console.len() <= 16 * 1024 && console.ends_with("the disk is full\n"), "{console}");
    assert!(
        closed.cost_micro_usd.is_some_and(|cost| (20_000..60_000).contains(&cost.0)),
        "{:?}",
        closed.cost_micro_usd
    );
}

#[test]
fn a_warm_machine_that_never_came_up_delays_a_job_by_minutes_and_not_by_the_boot_grace() {
    let universe = universe(76, |pool| Pool { warm: 3, ..pool });
    universe.ec2(|ec2, _| ec2.faults.boot_failures = 1.0);
    universe.run(MINUTE * 15);
    universe.ec2(|ec2, _| ec2.faults.boot_failures = 0.0);
    assert_eq!(universe.ec2(|ec2, _| ec2.alive().count()), 3, "nothing shows that they never booted");
    let job = universe.queue_job(&["linux"], MINUTE);
    universe.run(MINUTE * 12);
    let done = universe.github(|github, _| github.job(github::JobId(job.0)).is_some_and(github::Job::served_once));
    assert!(done, "three dead machines delay the job by at most three minutes each");
}

#[test]
fn a_surplus_runner_is_deregistered_before_its_machine_is_terminated() {
    let universe = universe(67, |pool| pool);
    let (machine, runner) = idle_runner(&universe);
    universe.run(MINUTE);
    assert_eq!((ended(&universe, &machine), is_registered(&universe, runner)), (None, true), "the next job may use it");
    universe.run(MINUTE * 4);
    assert!(!is_registered(&universe, runner));
    assert!(ended(&universe, &machine).is_some());
    everything_is_over(&universe);
    nothing_more(&universe);
}

#[test]
fn a_busy_machine_is_left_alone() {
    let universe = universe(68, |pool| pool);
    universe.queue_job(&["linux"], MINUTE * 90);
    until_busy(&universe, 1);
    for _ in 0..60 {
        universe.run(MINUTE);
        nothing_more(&universe);
    }
    universe.run(MINUTE * 40);
    everything_is_over(&universe);
}

#[test]
fn a_machine_that_an_operator_terminated_is_replaced_and_its_runner_deregistered() {
    let universe = universe(69, |pool| pool);
    let (machine, runner) = idle_runner(&universe);
    universe.ec2(|ec2, now| drop(ec2.terminate_instances(std::slice::from_ref(&machine), now)));
    universe.queue_job(&["linux"], MINUTE);
    universe.run(MINUTE * 4);
    assert!(!is_registered(&universe, runner));
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 2);
    nothing_more(&universe);
}

#[test]
fn an_unused_registration_is_removed_and_those_of_others_stay() {
    let universe = universe(70, |pool| pool);
    let stale = registration(&universe, "drover_sim_linux_zz9_7_0_1");
    let other_stack = registration(&universe, "drover_sim2_linux_zz9_7_0_1");
    let by_hand = registration(&universe, "drover_sim_linux");
    universe.run(MINUTE * 4);
    assert!(is_registered(&universe, stale), "it may be about to connect");
    universe.run(MINUTE * 4);
    assert!(!is_registered(&universe, stale));
    assert!(is_registered(&universe, other_stack) && is_registered(&universe, by_hand));
    nothing_more(&universe);
}

#[test]
fn a_machine_of_a_lost_table_that_has_a_job_is_adopted_and_finishes() {
    let universe = universe(71, |pool| pool);
    universe.queue_job(&["linux"], MINUTE * 30);
    until_busy(&universe, 1);
    let pools = universe.config().pools;
    universe.store.empty();
    universe.apply(pools, "e2");
    universe.run(MINUTE * 15);
    assert_eq!(universe.ec2(|ec2, _| ec2.ended().len()), 0, "not terminated while its job runs");
    universe.run(MINUTE * 40);
    assert_eq!(universe.github(|github, _| github.killed().count()), 0);
    assert_eq!(universe.ec2(|ec2, _| ec2.alive().count()), 0);
    nothing_more(&universe);
}

#[test]
fn at_most_ten_machines_are_terminated_in_a_sweep_without_a_deregistration() {
    let universe = universe(72, |pool| pool);
    let orphans = unowned_instances(&universe, 25, &[]);
    let gone = |universe: &Universe| orphans.iter().filter(|id| ended(universe, id).is_some()).count();
    universe.run(MINUTE * 9);
    for _ in 0..120 {
        universe.tick();
    }
    let first = universe.sweep();
    assert_eq!((first.found, first.safety_limits.len(), gone(&universe)), (10, 1, 10), "{first:?}");
    universe.run(MINUTE * 5);
    assert_eq!(gone(&universe), 25, "the others in the next sweeps");
    nothing_more(&universe);
}

#[test]
fn an_empty_list_is_not_trusted_if_many_runners_should_be_online() {
    let universe = universe(74, |pool| pool);
    let jobs = 12;
    for _ in 0..jobs {
        universe.queue_job(&["linux"], MINUTE * 30);
    }
    until_busy(&universe, jobs);
    universe.sweep();
    universe.github(|github, _| github.faults.lists_nothing = true);
    for _ in 0..10 {
        universe.run(MINUTE);
        let report = universe.sweep();
        assert_eq!((report.found, report.reaped.len(), report.safety_limits.len()), (0, 0, 1), "{report:?}");
    }
    universe.github(|github, _| github.faults.lists_nothing = false);
    universe.run(MINUTE * 25);
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), jobs as u64);
    nothing_more(&universe);
}

#[test]
fn a_dry_run_plans_and_changes_nothing() {
    let universe = universe(73, |pool| pool);
    let orphan = unowned(&universe, &[]);
    for _ in 0..700 {
        universe.tick();
    }
    // Several lists must agree that no runner with a job may run on it.
    for _ in 0..2 {
        assert_eq!(reaped(&universe.sweep()), []);
        for _ in 0..60 {
            universe.tick();
        }
    }
    let plan = |universe: &Universe| {
        universe.invoke(async |context| sweep(context, Mode::DryRun).await).expect("the table can be read")
    };
    for _ in 0..3 {
        let report = plan(&universe);
        assert_eq!((report.found, report.reaped.len()), (1, 0), "{report:?}");
        assert_eq!(ended(&universe, &orphan), None);
    }
    assert_eq!(reaped(&universe.sweep()), [("orphan", 1)]);
    universe.run(MINUTE);
    nothing_more(&universe);
}

/// Another repository's admin registers a runner with the name and id of this one, and runs a job on it.
fn forge(universe: &Universe, victim: RunnerId, runs_for: SignedDuration) {
    universe.github(|github, now| {
        let owner = github.find_owner("octo-org").expect("the organization").id;
        github.add_repository(owner, "elsewhere", github::Visibility::Private, now);
    });
    universe.forge_runner(victim, "elsewhere", "forged");
    universe.github(|github, now| {
        let elsewhere = github.find_repository("octo-org", "elsewhere").expect("it was added").id;
        let job = github::QueueJob::new(elsewhere, &["forged"]);
        github.queue_job(github::QueueJob { runs_for: runs_for.unsigned_abs(), ..job }, now)
    });
}

#[test]
fn a_forged_end_of_a_job_does_not_end_a_busy_machine() {
    let universe = universe(80, |pool| pool);
    let job = universe.queue_job(&["linux"], MINUTE * 12);
    until_busy(&universe, 1);
    let machine = universe.ec2(|ec2, _| ec2.alive().next().expect("one machine").id.clone());
    let victim = universe.github(|github, _| github.registrations().next().expect("one runner").id);
    forge(&universe, victim, SignedDuration::from_secs(5));
    universe.run(MINUTE * 10);
    assert_eq!(ended(&universe, &machine), None, "its own job still runs");
    universe.run(MINUTE * 5);
    assert_eq!(ended(&universe, &machine), Some(EndCause::PowerOff), "it powers itself off after its job");
    universe.github(|github, _| {
        assert!(github.job(github::JobId(job.0)).is_some_and(github::Job::served_once));
        assert_eq!(github.killed().count(), 0);
    });
    nothing_more(&universe);
}

#[test]
fn a_machine_that_only_a_forged_report_made_busy_is_ended() {
    let universe = universe(81, |pool| pool);
    let (machine, victim) = idle_runner(&universe);
    forge(&universe, victim, MINUTE * 600);
    universe.run(MINUTE * 4);
    assert!(!is_registered(&universe, victim), "two readings showed it idle");
    assert!(ended(&universe, &machine).is_some());
    nothing_more(&universe);
}

#[test]
fn a_runner_of_a_repository_that_left_the_installation_keeps_its_machine() {
    let universe = universe(82, |mut pool| {
        pool.owner = "octo-org/widgets".parse().expect("a scope");
        pool
    });
    let (machine, runner) = idle_runner(&universe);
    let widgets = universe.github(|github, _| github.find_repository("octo-org", "widgets").expect("it exists").id);
    universe.github(|github, _| github.exclude_repository(widgets));
    universe.run(MINUTE * 20);
    assert_eq!((ended(&universe, &machine), is_registered(&universe, runner)), (None, true), "a 404 proves nothing");
    universe.github(|github, _| github.include_repository(widgets));
    universe.run(MINUTE * 40);
    assert!(ended(&universe, &machine).is_some() && !is_registered(&universe, runner));
    nothing_more(&universe);
}

#[test]
fn a_tag_set_by_hand_protects_a_machine_that_the_table_does_not_mark() {
    let universe = universe(83, |pool| pool);
    let (machine, runner) = idle_runner(&universe);
    universe.run(SignedDuration::from_secs(61));
    universe.hold(&machine);
    // No sweep reads the tag before the scaler finds that the runner is not needed.
    for _ in 0..180 {
        universe.tick();
    }
    universe.send([Message::Nudge { v: 1, pool: "linux".parse().expect("a pool") }]);
    universe.scale();
    assert!(universe.store.view(&"linux".parse().expect("a pool")).slots.values().any(|slot| slot.stop.is_some()));
    universe.run(MINUTE * 30);
    assert_eq!((ended(&universe, &machine), is_registered(&universe, runner)), (None, true));
    universe.release(&machine);
    everything_is_over(&universe);
}
