//! Bursts under EC2's published limits, in virtual time: five calls of RunInstances and five of StartInstances at once, then two per
//! second.

use domain::config::{MarketChoice, Pool};
use jiff::SignedDuration;
use simulator::swarm::{Burst, Launched, burst};
use simulator::{pool, shapes_pool};

const JOBS: usize = 1000;

fn run(pool: Pool, labels: Vec<String>) -> Launched {
    let (begins, within) = (SignedDuration::from_secs(150), SignedDuration::from_secs(10));
    let lasts = SignedDuration::from_mins(4);
    let launched = burst(&Burst { seed: 1, pool, labels, jobs: JOBS, begins, within, lasts });
    let last = launched.after.last();
    println!("{} calls, {} machines, the last one after {last:?}", launched.calls, launched.after.len());
    assert!(launched.violation.is_none(), "{:?}", launched.violation);
    assert_eq!(launched.after.len(), JOBS, "a machine for each job");
    launched
}

#[test]
fn a_thousand_jobs_of_twenty_classes_have_their_machines_within_a_minute() {
    let of_cpus = |cpus| [2, 4, 8, 16, 32].map(|gib| format!("any/{cpus}cpu/{gib}gb"));
    let labels: Vec<String> = [1, 2, 4, 8].into_iter().flat_map(of_cpus).collect();
    let Launched { calls, after, .. } = run(shapes_pool("any", 2000), labels);
    assert!(calls <= 80, "{calls} calls");
    assert!(after.last().is_some_and(|last| *last <= SignedDuration::from_mins(1)), "{:?}", after.last());
}

#[test]
fn a_thousand_jobs_of_a_pool_without_shapes_have_their_machines_within_half_a_minute() {
    let Launched { calls, after, .. } = run(pool("linux", 2000), vec!["linux".to_owned()]);
    assert!(calls <= 45, "{calls} calls");
    assert!(after.last().is_some_and(|last| *last <= SignedDuration::from_secs(30)), "{:?}", after.last());
}

#[test]
fn twenty_four_stopped_machines_are_started_and_registered_within_six_seconds() {
    const KEPT: u32 = 24;
    let pool = Pool { stopped: KEPT, market: MarketChoice::OnDemand, ..pool("linux", 100) };
    let (begins, within) = (SignedDuration::from_mins(8), SignedDuration::from_millis(500));
    let (labels, jobs, lasts) = (vec!["linux".to_owned()], KEPT as usize, SignedDuration::from_mins(1));
    let launched = burst(&Burst { seed: 1, pool, labels, jobs, begins, within, lasts });
    assert!(launched.violation.is_none(), "{:?}", launched.violation);
    println!("registered after {:?}", launched.registered);
    assert_eq!(launched.registered.len(), jobs);
    assert!(launched.registered.last().is_some_and(|last| *last <= SignedDuration::from_secs(6)));
}
