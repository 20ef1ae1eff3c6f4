//! Bursts under EC2's published limits, in virtual time: five calls of RunInstances and five of StartInstances at once, then two per
//! second.

use domain::config::{MarketChoice, Pool};
use jiff::SignedDuration;
use simulator::swarm::{Burst, Launched, burst};
use simulator::{pool, shapes_pool};

const JOBS: usize = 1000;

fn run(pool: Pool, labels: Vec<String>, jobs: usize, is_limited: bool) -> Launched {
    let (begins, within) = (SignedDuration::from_secs(150), SignedDuration::from_secs(10));
    let lasts = SignedDuration::from_mins(4);
    let launched = burst(&Burst { seed: 1, pool, labels, jobs, begins, within, lasts, is_limited });
    let (machines, last) = (launched.after.len(), launched.after.last());
    println!(
        "{} calls, {} items read, {machines} machines, the last one after {last:?}",
        launched.calls, launched.items_read
    );
    assert!(launched.violation.is_none(), "{:?}", launched.violation);
    assert_eq!(machines, jobs, "a machine for each job");
    launched
}

#[test]
fn a_thousand_jobs_of_twenty_classes_have_their_machines_within_a_minute() {
    let of_cpus = |cpus| [2, 4, 8, 16, 32].map(|gib| format!("any/{cpus}cpu/{gib}gb"));
    let labels: Vec<String> = [1, 2, 4, 8].into_iter().flat_map(of_cpus).collect();
    let Launched { calls, after, .. } = run(shapes_pool("any", 2000), labels, JOBS, true);
    assert!(calls <= 80, "{calls} calls");
    assert!(after.last().is_some_and(|last| *last <= SignedDuration::from_mins(1)), "{:?}", after.last());
}

#[test]
fn a_thousand_jobs_of_a_pool_without_shapes_have_their_machines_within_half_a_minute() {
    let Launched { calls, after, .. } = run(pool("linux", 2000), vec!["linux".to_owned()], JOBS, true);
    assert!(calls <= 45, "{calls} calls");
    assert!(after.last().is_some_and(|last| *last <= SignedDuration::from_secs(30)), "{:?}", after.last());
}

#[test]
fn what_a_job_reads_does_not_grow_with_the_burst() {
    let items_read = |jobs| {
        let launched = run(pool("linux", 20_000), vec!["linux".to_owned()], jobs, false);
        launched.items_read as f64 / jobs as f64
    };
    let [of_1000, of_5000] = [1000, 5000].map(items_read);
    println!("{of_1000:.1} and {of_5000:.1} items per job");
    assert!(of_1000 <= 36.0, "{of_1000}");
    assert!(of_5000 <= 1.3 * of_1000, "{of_5000} instead of {of_1000}");
}

#[test]
fn twenty_four_stopped_machines_are_started_and_registered_within_seven_seconds() {
    const KEPT: u32 = 24;
    for seed in 1..=20 {
        let pool = Pool { stopped: KEPT, market: MarketChoice::OnDemand, ..pool("linux", 100) };
        let (begins, within) = (SignedDuration::from_mins(8), SignedDuration::from_millis(500));
        let (labels, jobs, lasts) = (vec!["linux".to_owned()], KEPT as usize, SignedDuration::from_mins(1));
        let launched = burst(&Burst { seed, pool, labels, jobs, begins, within, lasts, is_limited: true });
        assert!(launched.violation.is_none(), "{:?}", launched.violation);
        assert_eq!(launched.registered.len(), jobs);
        let last = launched.registered.last();
        println!("seed {seed}: the last registration after {last:?}");
        assert!(last.is_some_and(|last| *last <= SignedDuration::from_secs(7)), "seed {seed}");
    }
}
