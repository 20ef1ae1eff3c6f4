//! F1: a flood of jobs from one repository, in virtual time.

use jiff::SignedDuration;
use simulator::swarm::{Flood, Groups, MOST_DELAY, SCALERS, flood};

/// How long a launch takes without a flood: the calls before it, and half of RunInstances.
const UNDISTURBED: SignedDuration = SignedDuration::from_secs(2);

const FLOOD: Flood =
    Flood { seed: 1, jobs: 1200, lasts: SignedDuration::from_mins(25), groups: Groups::Stated, scalers: SCALERS };

#[test]
fn without_a_flood_a_launch_takes_less_than_two_seconds() {
    let quiet = flood(&Flood { jobs: 1, ..FLOOD });
    assert!(quiet.violation.is_none(), "{:?}", quiet.violation);
    assert!(quiet.longest().is_some_and(|longest| longest <= UNDISTURBED), "{:?}", quiet.waited);
}

#[test]
fn a_flood_of_one_repository_delays_launches_of_other_pools_by_at_most_five_seconds() {
    let flooded = flood(&FLOOD);
    println!("longest wait {:?}, {} calls", flooded.longest(), flooded.calls);
    assert!(flooded.violation.is_none(), "{:?}", flooded.violation);
    assert!(!flooded.limited, "GitHub limits the account after {} calls", flooded.calls);
    let longest = flooded.longest();
    assert!(longest.is_some_and(|longest| longest <= UNDISTURBED + MOST_DELAY), "{:?}", flooded.waited);
    assert_eq!(flooded.served, FLOOD.jobs, "the flood is served, too");
}

#[test]
fn without_message_groups_a_job_of_another_pool_waits_behind_the_flood() {
    // Five scalers would read so many messages before the other jobs are queued.
    let lasts = SignedDuration::from_mins(2);
    let unfair = Flood { groups: Groups::Missing, jobs: 6000, lasts, scalers: 2, ..FLOOD };
    let flooded = flood(&unfair);
    assert!(flooded.longest().is_none_or(|longest| longest > UNDISTURBED + MOST_DELAY), "{:?}", flooded.waited);
    let fair = flood(&Flood { groups: Groups::Stated, ..unfair });
    assert!(fair.longest().is_some_and(|longest| longest <= UNDISTURBED + MOST_DELAY), "{:?}", fair.waited);
}
