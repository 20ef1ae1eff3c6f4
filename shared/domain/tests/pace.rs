//! How many launches a pool decides, and how often it is read meanwhile.

mod common;

use common::{job, noon, pool, slot, turn, view};
use domain::config::Pool;
use domain::ids::{JobId, SlotId};
use domain::policy::PoolView;
use domain::policy::decide::{decide, resumes_at};
use domain::policy::nudge::paused_until;
use domain::state::{Item, Slot, WaitingJob};
use jiff::SignedDuration;
use serde_json::json;

fn large() -> Pool {
    Pool { max: 20_000, ..pool() }
}

/// So many waiting jobs, beside launches that were decided so many milliseconds before noon.
fn read(jobs: u64, launches: impl IntoIterator<Item = i64>) -> PoolView {
    let waiting = (1..=jobs).map(|id| {
        let repository = format!("octo/widgets-{}", id / 1000).parse().expect("a repository");
        WaitingJob { id: JobId(id), repository, ..job(5) }.into()
    });
    let planned = launches.into_iter().zip(1..).map(|(milliseconds, version)| {
        let planned_at = noon() - SignedDuration::from_millis(milliseconds);
        let planned = slot("planned", 0, json!({ "revision": 1 }));
        Item::from(Slot { id: SlotId { version, index: 0 }, planned_at, ..planned })
    });
    let mut read = view(waiting.chain(planned));
    read.meta.config_hash = large().config_hash();
    read
}

fn launches(read: &PoolView) -> bool {
    decide(&large(), read, &turn()).is_some_and(|decision| decision.batch.is_some())
}

#[test]
fn a_pool_decides_five_launches_in_two_and_a_half_seconds() {
    assert!(launches(&read(300, [10, 20, 30, 40])));
    let full = read(300, [10, 20, 30, 40, 2499]);
    assert!(!launches(&full));
    assert_eq!(resumes_at(&large(), &full, &turn()), Some(noon() + SignedDuration::from_millis(1)));
    assert!(launches(&read(300, [10, 20, 30, 40, 2500])));
}

#[test]
fn a_large_pool_decides_as_many_launches_as_ec2_accepts_until_it_is_read_again() {
    // With 7,000 items it is not read again for 3.5 seconds.
    let (one_more, full) = (read(6994, [10; 6]), read(6993, [10; 7]));
    assert!(launches(&one_more));
    assert!(!launches(&full));
    assert_eq!(resumes_at(&large(), &full, &turn()), Some(noon() + SignedDuration::from_millis(3490)));
}

#[test]
fn a_reading_that_launches_nothing_yet_is_noted_so_that_others_wait() {
    let read = read(595, [10, 20, 30, 40, 50]);
    let noted = decide(&large(), &read, &turn()).expect("the reading is noted");
    assert!(noted.batch.is_none() && noted.slots.is_empty() && noted.jobs.is_empty());
    assert_eq!(paused_until(&noted.meta, noon()), Some(noon() + SignedDuration::from_millis(300)));
    let again = PoolView { meta: noted.meta, ..read };
    assert!(decide(&large(), &again, &turn()).is_none(), "noted once");
}

#[test]
fn a_reading_is_not_noted_if_the_pool_is_small_or_can_launch_before_the_pause_ends() {
    assert!(decide(&large(), &read(200, [10, 20, 30, 40, 50]), &turn()).is_none());
    let soon = read(595, [2201, 2202, 2203, 2204, 2205]);
    assert!(decide(&large(), &soon, &turn()).is_none());
    assert_eq!(resumes_at(&large(), &soon, &turn()), Some(noon() + SignedDuration::from_millis(295)));
}
