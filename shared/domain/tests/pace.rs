//! How many launches a pool decides, and how often it is read meanwhile.

mod common;

use common::{job, noon, pool, slot, turn, view};
use domain::config::Pool;
use domain::ids::{JobId, SlotId};
use domain::policy::PoolView;
use domain::policy::decide::{decide, resumes_at};
use domain::policy::nudge::{paused_until, reading};
use domain::state::{Item, LastReading, Slot, WaitingJob};
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
fn a_pool_decides_five_launches_at_once_and_two_more_per_second() {
    assert!(launches(&read(300, [10, 20, 30, 40])));
    let full = read(300, [10, 20, 30, 40, 1499]);
    assert!(!launches(&full));
    assert_eq!(resumes_at(&large(), &full, &turn()), Some(noon() + SignedDuration::from_millis(1)));
    assert!(launches(&read(300, [10, 20, 30, 40, 1500])));
    // One each half second, after the first five.
    let steady: Vec<i64> = (1..=20).map(|number| 500 * number).collect();
    let since = |more: &[i64]| read(300, more.iter().chain(&steady).copied());
    assert!(launches(&since(&[])) && launches(&since(&[100])));
    assert!(!launches(&since(&[100, 200, 300])));
}

#[test]
fn a_launch_in_the_future_of_a_clock_counts_as_one_of_now() {
    let ahead = read(300, [-120_000; 5]);
    assert_eq!(resumes_at(&large(), &ahead, &turn()), Some(noon() + SignedDuration::from_millis(1500)));
}

#[test]
fn a_large_pool_decides_as_many_launches_as_ec2_accepts_until_it_is_read_again() {
    // With 7,000 items it is not read again for 3.5 seconds.
    let (one_more, full) = (read(6989, [10; 11]), read(6988, [10; 12]));
    assert!(launches(&one_more));
    assert!(!launches(&full));
    assert_eq!(resumes_at(&large(), &full, &turn()), Some(noon() + SignedDuration::from_millis(1490)));
    // After 20 launches at once, EC2 needs as long as before for those beyond the first.
    let many = read(6980, [10; 20]);
    assert_eq!(resumes_at(&large(), &many, &turn()), Some(noon() + SignedDuration::from_millis(5490)));
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
fn a_large_pool_is_announced_as_read_while_its_size_is_known() {
    let mut meta = read(0, []).meta;
    assert_eq!(reading(&meta, noon()), None);
    let seconds_ago = |seconds| Some(LastReading { at: noon() - SignedDuration::from_secs(seconds), items: 2000 });
    meta.last_reading = seconds_ago(20);
    assert_eq!(paused_until(&meta, noon()), None);
    let announced = reading(&meta, noon()).expect("it is large");
    assert_eq!(paused_until(&announced, noon()), Some(noon() + SignedDuration::from_secs(1)));
    meta.last_reading = seconds_ago(40);
    assert_eq!(reading(&meta, noon()), None);
}

#[test]
fn others_do_not_wait_for_a_pool_that_was_large() {
    let said = |items, jobs, launches: &[i64]| {
        let mut read = read(jobs, launches.iter().copied());
        read.meta.last_reading = Some(LastReading { at: noon(), items });
        decide(&large(), &read, &turn()).map(|decision| decision.meta.last_reading)
    };
    assert_eq!(said(20_000, 0, &[]), Some(None));
    // META is not written again for every job that ends.
    assert_eq!(said(1100, 595, &[10, 20, 30, 40, 50]), None);
    assert_eq!(said(1300, 595, &[10, 20, 30, 40, 50]), Some(Some(LastReading { at: noon(), items: 600 })));
}

#[test]
fn a_reading_is_not_noted_if_the_pool_is_small_or_can_launch_before_the_pause_ends() {
    assert!(decide(&large(), &read(200, [10, 20, 30, 40, 50]), &turn()).is_none());
    let soon = read(595, [1201, 1202, 1203, 1204, 1205]);
    assert!(decide(&large(), &soon, &turn()).is_none());
    assert_eq!(resumes_at(&large(), &soon, &turn()), Some(noon() + SignedDuration::from_millis(295)));
}
