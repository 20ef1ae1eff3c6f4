//! Boot reports: warm machines that do not come up are replaced, and nothing that a machine writes does harm.

#[path = "story/steps.rs"]
mod steps;
mod story;

use std::pin::pin;

use domain::config::Pool;
use domain::state::{BootReport, Circuit, Instance, Item, Key, StoredReport, Usage};
use engine::sweep::{Mode, sweep};
use jiff::SignedDuration;
use simulator::{Denied, Reports, Universe, pool};
use steps::steps;
use story::everything_is_over;
use world::ec2::{EndCause, InstanceId};
use world::github;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// A pool with `count` warm machines, which have booted and reported.
fn warm(seed: u64, count: u32) -> Universe {
    let universe = Universe::new(seed, vec![Pool { warm: count, ..pool("linux", 20) }]);
    universe.run(MINUTE * 3);
    assert_eq!(alive(&universe).len(), count as usize);
    universe
}

fn alive(universe: &Universe) -> Vec<InstanceId> {
    universe.ec2(|ec2, _| ec2.alive().map(|machine| machine.id.clone()).collect())
}

fn boot_failures(universe: &Universe, chance: f64) {
    universe.ec2(|ec2, _| ec2.faults.boot_failures = chance);
}

/// Somebody terminates a machine.
fn lose(universe: &Universe, machine: &InstanceId) {
    universe.ec2(|ec2, now| drop(ec2.terminate_instances(std::slice::from_ref(machine), now)));
}

/// A warm machine is lost, and its replacement does not come up.
fn with_a_dead_machine(seed: u64) -> (Universe, InstanceId) {
    let universe = warm(seed, 2);
    let before = alive(&universe);
    boot_failures(&universe, 1.0);
    lose(&universe, &before[0]);
    universe.run(MINUTE * 3);
    boot_failures(&universe, 0.0);
    let dead = alive(&universe).into_iter().find(|machine| !before.contains(machine)).expect("a replacement");
    (universe, dead)
}

#[test]
fn a_warm_machine_that_never_came_up_is_replaced_before_a_job_needs_it() {
    let (universe, dead) = with_a_dead_machine(301);
    universe.run(MINUTE * 4);
    assert!(alive(&universe).contains(&dead), "it may still boot");
    universe.run(MINUTE * 6);
    assert!(!alive(&universe).contains(&dead), "its boot grace is over");
    let ended = universe.ec2(|ec2, _| ec2.ended().iter().find(|ended| ended.instance == dead).map(|it| it.why));
    assert_eq!(ended, Some(EndCause::TerminateCall));
    assert_eq!(alive(&universe).len(), 2);
    let view = universe.store.view(&"linux".parse().expect("a pool"));
    assert_eq!(view.meta.boot_failures, 1, "it counts as a boot failure");
    // Both machines work: two jobs start at once.
    let jobs = [(); 2].map(|()| universe.queue_job(&["linux"], MINUTE));
    universe.run(SignedDuration::from_secs(30));
    for job in jobs {
        let started = universe
            .github(|github, _| github.job(github::JobId(job.0)).is_some_and(|job| !job.history.started.is_empty()));
        assert!(started, "a job waits for a machine that never came up");
    }
}

#[test]
fn machines_without_reports_are_left_alone_until_one_of_their_image_reports() {
    let universe = Universe::new(302, vec![Pool { warm: 2, ..pool("linux", 20) }]);
    // The image is older than reports, or the stack has no table for them.
    universe.send_reports(Reports::Lost);
    universe.run(MINUTE * 60);
    assert_eq!(universe.ec2(|ec2, _| (ec2.launches(), ec2.ended().len())), (2, 0));
}

#[test]
fn lost_reports_end_one_machine_and_not_one_after_the_other() {
    let universe = warm(303, 3);
    universe.send_reports(Reports::Lost);
    for machine in alive(&universe) {
        lose(&universe, &machine);
    }
    universe.run(MINUTE * 60);
    let ended = universe.ec2(|ec2, _| ec2.ended().len());
    assert_eq!(ended, 3 + 1, "the machines work, and no other report came");
    let view = universe.store.view(&"linux".parse().expect("a pool"));
    assert_eq!(view.meta.circuit, Circuit::Closed);
}

#[test]
fn a_job_that_reports_from_an_image_without_reports_ends_no_warm_machine() {
    let universe = Universe::new(304, vec![Pool { warm: 2, ..pool("linux", 20) }]);
    universe.send_reports(Reports::Lost);
    universe.run(MINUTE * 3);
    let idle = alive(&universe);
    universe.queue_job(&["linux"], MINUTE * 30);
    universe.run(MINUTE);
    let busy = universe.github(|github, _| github.registrations().filter(|runner| runner.job.is_some()).count());
    assert_eq!(busy, 1);
    let now = universe.now();
    let forged = BootReport { reported_at: now, uptime_seconds: 1, prepared_at: Some(now) }.stored();
    for machine in &idle {
        // The model does not know which of the two has the job. Only that one may write its report.
        if universe.is_busy(machine) {
            assert_eq!(universe.write_report(machine, &universe.report_key(machine), forged.clone()), Ok(()));
        }
    }
    universe.run(MINUTE * 20);
    let ended = universe.ec2(|ec2, _| ec2.ended().len());
    assert_eq!(ended, 0, "what a job reports shows nothing about its image");
}

#[test]
fn a_forged_report_changes_nothing_but_the_boot_time_of_its_own_machine() {
    let text = |text: &str| Some(text.to_owned());
    let outcome = |forged: Option<StoredReport>| {
        let universe = warm(305, 1);
        let machine = alive(&universe).remove(0);
        universe.queue_job(&["linux"], MINUTE * 4);
        universe.run(MINUTE * 2);
        if let Some(forged) = forged {
            let others = universe.report_key(&"i-0123".into());
            assert_eq!(universe.write_report(&machine, &others, forged.clone()), Err(Denied), "another machine's key");
            let _ = universe.write_report(&machine, &universe.report_key(&machine), forged.clone());
            let _ = universe.write_report(&machine, &universe.report_key(&machine), forged);
        }
        universe.run(MINUTE * 10);
        let Some(Item::Instance(closed)) = universe.item(&Key::Instance(machine.as_str().into())) else {
            panic!("the machine has a record");
        };
        (universe.ec2(|ec2, _| (ec2.launches(), ec2.ended().to_vec())), closed)
    };
    let honest = outcome(None);
    for forged in [
        StoredReport::default(),
        StoredReport {
            reported_at: text(&"9".repeat(1 << 20)),
            uptime_seconds: text("1"),
            prepared_at: text("2026-11-02T12:00:20Z"),
            usage: text("{}"),
        },
        StoredReport {
            reported_at: text("9999-12-30T00:00:00Z"),
            uptime_seconds: text("-1"),
            ..StoredReport::default()
        },
        StoredReport {
            reported_at: text("2026-11-02T12:00:20Z"),
            uptime_seconds: text("1"),
            ..StoredReport::default()
        },
    ] {
        assert_eq!(outcome(Some(forged)), honest, "it was recorded before the job began");
    }
}

#[test]
fn the_boot_of_a_machine_that_was_never_warm_is_recorded_at_its_end() {
    let universe = Universe::new(306, vec![pool("linux", 20)]);
    universe.queue_job(&["linux"], MINUTE);
    universe.run(SignedDuration::from_secs(50));
    let machine = alive(&universe).remove(0);
    universe.run(MINUTE * 8);
    let Some(Item::Instance(closed)) = universe.item(&Key::Instance(machine.as_str().into())) else {
        panic!("the machine has a record");
    };
    let report = closed.boot.expect("its boot is known");
    let took = report.reported_at.duration_since(closed.launched_at);
    assert!(took > SignedDuration::ZERO && took < MINUTE, "{took:#}");
    everything_is_over(&universe);
}

#[test]
fn a_janitor_that_crashes_at_any_call_replaces_a_dead_machine_all_the_same() {
    // When the living machine's report is recorded, when the dead one is stopped, and when its slot is closed.
    for stage in [0, 5, 6] {
        let mut step = 0;
        loop {
            let (universe, dead) = with_a_dead_machine(307);
            universe.run(MINUTE * stage);
            universe.steps.record();
            let finished = {
                let janitor = pin!(universe.invocation(async |context| sweep(context, Mode::Repair).await));
                steps(janitor, step)
            };
            universe.steps.recorded();
            universe.run(MINUTE * 12);
            assert!(!alive(&universe).contains(&dead), "after a crash at step {step} of stage {stage}");
            assert_eq!(alive(&universe).len(), 2, "after a crash at step {step} of stage {stage}");
            if finished {
                break;
            }
            step += 1;
        }
        assert!(step > 10, "at every call: {step}");
    }
}

/// What a job of two minutes used.
fn used() -> Usage {
    Usage {
        seconds: 120,
        vcpus: 2,
        memory_mib: 7_800,
        disk_mib: 39_500,
        cpu_mean: 500,
        cpu_peak: 2_000,
        cpu_beyond: vec![15_000],
        memory_mean_mib: 900,
        memory_peak_mib: 1_200,
        disk_peak_mib: 8_000,
        received_mib: 120,
        sent_mib: 1,
        cpu_chart: vec![25, 50],
        memory_chart: vec![12, 15],
    }
}

/// The record of the machine of the first job of a pool, whose machine reports this at the end of the job.
fn record_after(usage: bool, reported: Option<&str>) -> Instance {
    let universe = Universe::new(306, vec![Pool { usage, ..pool("linux", 20) }]);
    universe.queue_job(&["linux"], MINUTE * 2);
    universe.run(MINUTE * 2);
    let machine = alive(&universe).remove(0);
    assert!(universe.is_busy(&machine));
    if let Some(reported) = reported {
        let boot = BootReport { reported_at: universe.now(), uptime_seconds: 20, prepared_at: None }.stored();
        let report = StoredReport { usage: Some(reported.to_owned()), ..boot };
        assert_eq!(universe.write_report(&machine, &universe.report_key(&machine), report), Ok(()));
    }
    universe.run(MINUTE * 10);
    let Some(Item::Instance(closed)) = universe.item(&Key::Instance(machine.as_str().into())) else {
        panic!("the machine has a record");
    };
    everything_is_over(&universe);
    closed
}

#[test]
fn what_a_job_used_is_recorded_if_its_pool_asks_for_it() {
    assert_eq!(record_after(true, Some(&used().text())).usage, Some(used()));
    assert_eq!(record_after(false, Some(&used().text())).usage, None);
}

#[test]
fn a_forged_usage_changes_nothing_else_and_is_not_recorded_if_it_is_impossible() {
    let honest = record_after(true, Some(&used().text()));
    let without = Instance { usage: None, ..honest };
    let longer_than_the_machine = Usage { seconds: 100_000, ..used() }.text();
    for forged in ["", "{}", &"9".repeat(1 << 10), &longer_than_the_machine] {
        assert_eq!(record_after(true, Some(forged)), without, "{forged:.40}");
    }
    // One that is possible is believed, and nothing but the report follows from it.
    let possible = Usage { cpu_mean: 0, memory_peak_mib: 1_000, ..used() };
    assert_eq!(record_after(true, Some(&possible.text())), Instance { usage: Some(possible), ..without });
}
