//! Jobs of a pool with shapes: each runs on a machine that its label asks for, at a good price.

mod story;

use std::collections::BTreeMap;

use domain::config::{MarketChoice, MicroUsd, Pool};
use domain::state::Circuit;
use jiff::SignedDuration;
use simulator::{Universe, shapes_pool};
use story::everything_is_over;
use world::ec2::{self, Code, LaunchMatch, Refusal, TYPES, TypeInfo, When};
use world::github::JobId;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The number of launched machines of each type.
fn launched(universe: &Universe) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    universe.ec2(|ec2, _| {
        for machine in ec2.instances() {
            *counts.entry(machine.instance_type.clone()).or_default() += 1;
        }
    });
    counts
}

#[test]
fn each_job_gets_a_machine_that_its_label_asks_for() {
    let universe = Universe::new(70, vec![shapes_pool("any", 20)]);
    universe.sweep();
    let labels = ["any/8cpu/32gb", "any/8cpu/32gb", "any/2cpu/arm64", "any/8cpu/64gb/on-demand"];
    let jobs: Vec<JobId> = labels.iter().map(|label| JobId(universe.queue_job(&[label], MINUTE).0)).collect();
    universe.run(MINUTE * 5);
    for job in jobs {
        assert!(universe.github(|github, _| github.job(job).is_some_and(|job| job.served_once())));
    }
    everything_is_over(&universe);
    let launched = launched(&universe);
    assert_eq!(launched.values().sum::<usize>(), 4, "{launched:?}");
    // Also for the others, if its spot price is the lowest.
    assert!(launched.contains_key("r7i.2xlarge"), "the only one with 64 GiB: {launched:?}");
    assert!(launched.keys().all(|name| !name.starts_with("t3") && !name.contains("metal")), "{launched:?}");
    assert_eq!(launched.keys().filter(|name| name.contains("8g.")).count(), 1, "{launched:?}");
}

/// Refuses each launch of these types and this market.
fn refuse(universe: &Universe, is_refused: impl Fn(&TypeInfo) -> bool, market: Option<ec2::Market>, code: Code) {
    for it in TYPES.iter().filter(|it| is_refused(it)) {
        let matches = LaunchMatch { instance_type: Some(it.name.to_owned()), market, subnet: None };
        universe.ec2(|ec2, _| ec2.faults.refusals.push(Refusal { matches, code, when: When::Chance(1.0) }));
    }
}

fn queue(universe: &Universe, label: &str) -> JobId {
    JobId(universe.queue_job(&[label], MINUTE).0)
}

fn is_served(universe: &Universe, job: JobId) -> bool {
    universe.github(|github, _| github.job(job).is_some_and(|job| job.served_once()))
}

#[test]
fn a_broken_launch_template_of_one_architecture_stops_no_other() {
    let universe = Universe::new(71, vec![shapes_pool("any", 20)]);
    universe.sweep();
    refuse(&universe, |it| it.architecture == "arm64", None, Code::InvalidAmiIdNotFound);
    let arm: Vec<JobId> = ["any/2cpu/arm64", "any/8cpu/arm64"].map(|label| queue(&universe, label)).into();
    universe.run(MINUTE * 3);
    let x64: Vec<JobId> = (0..4).map(|_| queue(&universe, "any/2cpu")).collect();
    universe.run(SignedDuration::from_secs(20));
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 4, "more than a probe");
    universe.run(MINUTE * 3);
    assert!(x64.iter().all(|job| is_served(&universe, *job)));
    assert!(!arm.iter().any(|job| is_served(&universe, *job)));
    let meta = universe.store.view(&"any".parse().expect("a pool")).meta;
    let open = meta.circuits().filter(|(_, circuit)| **circuit != Circuit::Closed);
    let open: Vec<String> = open.map(|(class, _)| class.map_or_else(String::new, ToString::to_string)).collect();
    assert_eq!(open, ["any/2cpu/arm64", "any/8cpu/arm64"]);
    assert!(meta.has_open_circuit(), "counted by the metric OpenCircuits");
    universe.ec2(|ec2, _| ec2.faults.refusals.clear());
    everything_is_over(&universe);
}

#[test]
fn a_quota_that_is_used_up_stops_only_the_types_that_share_it() {
    let universe = Universe::new(72, vec![Pool { market: MarketChoice::OnDemand, ..shapes_pool("any", 20) }]);
    universe.sweep();
    refuse(&universe, |it| it.name.starts_with('g'), None, Code::VcpuLimitExceeded);
    // First choice of nobody: the others are cheaper. Without capacity for them it is the only one that is left.
    refuse(&universe, |it| !it.name.starts_with('g') && it.vcpus == 8, None, Code::InsufficientInstanceCapacity);
    let large = queue(&universe, "any/8cpu/32gb");
    universe.run(MINUTE * 2);
    let meta = universe.store.view(&"any".parse().expect("a pool")).meta;
    assert_eq!(meta.pauses.len(), 1, "{meta:#?}");
    let small = queue(&universe, "any/2cpu");
    universe.run(MINUTE * 4);
    assert!(is_served(&universe, small) && !is_served(&universe, large));
    universe.ec2(|ec2, _| ec2.faults.refusals.clear());
    everything_is_over(&universe);
}

#[test]
fn a_class_whose_machines_end_early_holds_up_no_other() {
    let universe = Universe::new(79, vec![shapes_pool("any", 20)]);
    universe.sweep();
    universe.ec2(|ec2, _| ec2.faults.ends_at_once = 1.0);
    let failing: Vec<JobId> = (0..3).map(|_| queue(&universe, "any/4cpu")).collect();
    let is_open = |universe: &Universe| {
        let meta = universe.store.view(&"any".parse().expect("a pool")).meta;
        meta.circuits().any(|(_, circuit)| *circuit != Circuit::Closed)
    };
    for _ in 0..60 {
        if !is_open(&universe) {
            universe.run(SignedDuration::from_secs(10));
        }
    }
    assert!(is_open(&universe));
    universe.ec2(|ec2, _| ec2.faults.ends_at_once = 0.0);
    let launches = |universe: &Universe| universe.ec2(|ec2, _| ec2.launches());
    let before = launches(&universe);
    let others: Vec<JobId> = (0..4).map(|_| queue(&universe, "any/2cpu")).collect();
    universe.run(SignedDuration::from_secs(10));
    assert!(launches(&universe) >= before + 4, "each of the four has a machine");
    universe.run(MINUTE * 30);
    assert!(failing.iter().chain(&others).all(|job| is_served(&universe, *job)));
    everything_is_over(&universe);
}

#[test]
fn several_classes_that_fail_with_one_template_let_others_only_probe() {
    let universe = Universe::new(73, vec![shapes_pool("any", 40)]);
    universe.sweep();
    universe.ec2(|ec2, _| ec2.faults.ends_at_once = 1.0);
    let labels = ["any/2cpu", "any/4cpu", "any/8cpu"];
    let failing: Vec<JobId> = labels.iter().flat_map(|label| [label; 3]).map(|label| queue(&universe, label)).collect();
    let is_open = |universe: &Universe| {
        let meta = universe.store.view(&"any".parse().expect("a pool")).meta;
        meta.circuits().filter(|(_, circuit)| **circuit != Circuit::Closed).count() == 3
    };
    for _ in 0..60 {
        if !is_open(&universe) {
            universe.run(SignedDuration::from_secs(10));
        }
    }
    assert!(is_open(&universe));
    let launches = |universe: &Universe| universe.ec2(|ec2, _| ec2.launches());
    let before = launches(&universe);
    let late: Vec<JobId> = (0..5).map(|_| queue(&universe, "any/2cpu/8gb")).collect();
    universe.run(SignedDuration::from_secs(20));
    assert!(launches(&universe) <= before + 1, "a probe at most");
    universe.ec2(|ec2, _| ec2.faults.ends_at_once = 0.0);
    universe.run(MINUTE * 60);
    assert!(failing.iter().chain(&late).all(|job| is_served(&universe, *job)));
    everything_is_over(&universe);
}

#[test]
fn no_class_starves_at_the_maximum_or_at_the_cap() {
    // One machine at a time, or what the cap pays for: four small machines or a large one.
    let one = Pool { price_per_hour: Some(MicroUsd(500_000)), market: MarketChoice::OnDemand, ..shapes_pool("any", 8) };
    for pool in [shapes_pool("any", 1), one] {
        let universe = Universe::new(74, vec![pool]);
        universe.sweep();
        for number in 1..=4 {
            universe.queue_job(&["any/2cpu"], SignedDuration::from_secs(40 * number));
        }
        universe.run(SignedDuration::from_secs(20));
        let large = queue(&universe, "any/8cpu/32gb");
        // Somebody always wants a small machine.
        for number in 0..80 {
            universe.run(SignedDuration::from_secs(15));
            // Their machines end one by one, not together.
            universe.queue_job(&["any/2cpu"], SignedDuration::from_secs(40 + number * 7 % 50));
        }
        assert!(is_served(&universe, large));
        universe.run(MINUTE * 360);
        everything_is_over(&universe);
    }
}

#[test]
fn a_warm_machine_is_given_to_a_class_that_it_suits() {
    let universe = Universe::new(75, vec![Pool { warm: 1, ..shapes_pool("any", 8) }]);
    universe.run(MINUTE * 3);
    let before = universe.ec2(|ec2, _| ec2.launches());
    assert_eq!(before, 1);
    let job = queue(&universe, "any/1cpu");
    universe.run(SignedDuration::from_secs(20));
    let started = universe.github(|github, _| github.job(job).is_some_and(|job| !job.history.started.is_empty()));
    assert!(started, "no machine boots within 20 seconds");
    // It suits no job for another architecture.
    let other = queue(&universe, "any/2cpu/arm64");
    universe.run(MINUTE * 4);
    assert!(is_served(&universe, job) && is_served(&universe, other));
    universe.change_pools(|pools| pools[0].warm = 0);
    everything_is_over(&universe);
}

#[test]
fn a_queued_job_takes_the_room_of_a_warm_machine_that_does_not_suit_it() {
    let universe = Universe::new(76, vec![Pool { warm: 1, ..shapes_pool("any", 1) }]);
    universe.run(MINUTE * 3);
    let job = queue(&universe, "any/2cpu/arm64");
    universe.run(MINUTE * 8);
    assert!(is_served(&universe, job));
    universe.change_pools(|pools| pools[0].warm = 0);
    everything_is_over(&universe);
}

#[test]
fn an_author_reads_within_a_minute_what_is_wrong_with_a_label() {
    let universe = Universe::new(77, vec![shapes_pool("any", 8)]);
    universe.sweep();
    let job = universe.queue_job(&["any/8cpus"], MINUTE);
    universe.run(SignedDuration::from_secs(61));
    let texts: Vec<String> = universe.github(|github, _| {
        let of_job = github.check_runs().filter(|run| run.now.external_id.as_deref() == Some(&job.to_string()));
        of_job.filter_map(|run| run.now.output.as_ref().map(|output| output.summary.clone())).collect()
    });
    assert!(texts.iter().any(|text| text.contains(r#""8cpus" is no term"#)), "{texts:?}");
    universe.github(|github, now| github.cancel(JobId(job.0), now));
    universe.run(MINUTE * 5);
}

#[test]
fn a_type_that_ec2_reclaimed_comes_last_for_an_hour() {
    let universe = Universe::new(78, vec![Pool { market: MarketChoice::Spot, ..shapes_pool("any", 8) }]);
    universe.sweep();
    universe.queue_job(&["any/2cpu"], MINUTE * 30);
    universe.run(SignedDuration::from_secs(50));
    let machine =
        universe.ec2(|ec2, _| ec2.alive().next().map(|it| (it.id.clone(), it.instance_type.clone(), it.zone.clone())));
    let (machine, name, zone) = machine.expect("a machine");
    universe.ec2(|ec2, now| ec2.interrupt_spot(&machine, now));
    universe.run(MINUTE * 12);
    let next = queue(&universe, "any/2cpu");
    universe.run(MINUTE * 3);
    assert!(is_served(&universe, next));
    let chosen = universe.ec2(|ec2, _| ec2.instances().last().map(|it| (it.instance_type.clone(), it.zone.clone())));
    assert_ne!(chosen, Some((name, zone)));
    universe.run(MINUTE * 20);
}
