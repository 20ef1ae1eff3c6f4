//! What follows from the settings of a pool.

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use common::{noon, pool};
use domain::config::{Market, MicroUsd, Order, Pool, Rates, RootVolume, Schedule, Tuple};
use domain::ids::RepositoryPattern;
use jiff::SignedDuration;

fn night() -> Schedule {
    let stored = serde_json::json!({
        "days": ["mon", "sun"], "from": "22:00", "to": "06:00", "time_zone": "Europe/Berlin", "warm": 1,
    });
    serde_json::from_value(stored).expect("a schedule")
}

fn volume() -> RootVolume {
    let stored = serde_json::json!({ "device": "/dev/sda1", "gib": 100, "kind": "gp3" });
    serde_json::from_value(stored).expect("a volume")
}

#[test]
fn the_hash_changes_with_what_launches_depend_on_and_not_with_a_pause_a_drain_or_measuring() {
    let hash = pool().config_hash();
    assert_ne!(Pool { max: 3, ..pool() }.config_hash(), hash);
    assert_ne!(Pool { subnets: vec!["subnet-b".into()], ..pool() }.config_hash(), hash);
    for same in [
        Pool { usage: true, ..pool() },
        Pool { draining: true, ..pool() },
        Pool { paused: true, ..pool() },
        Pool { usage: true, draining: true, paused: true, ..pool() },
    ] {
        assert_eq!(same.config_hash(), hash);
    }
}

#[test]
fn a_pool_needs_the_format_of_the_newest_setting_that_it_uses() {
    let in_stopped = Schedule { stopped: 1, ..night() };
    let cases = [
        (pool(), 1),
        (Pool { order: Order::Price, ..pool() }, 3),
        (Pool { price_per_hour: Some(MicroUsd(1)), ..pool() }, 3),
        (shapes::pool(), 3),
        (Pool { schedules: vec![night()], ..pool() }, 4),
        (Pool { stopped: 1, ..pool() }, 5),
        (Pool { schedules: vec![night(), in_stopped], ..pool() }, 5),
    ];
    for (pool, format) in cases {
        assert_eq!(pool.lowest_format(), format, "{pool:?}");
    }
}

#[test]
fn a_machine_may_run_jobs_of_the_listed_repositories_or_of_all_that_the_owner_has() {
    let owner = "octo".parse().expect("a scope");
    assert_eq!(pool().repository_patterns(), [RepositoryPattern::all_of(&owner)]);
    let listed = ["octo/widgets", "octo/gadgets"].map(|it| it.parse().expect("a repository"));
    let patterns = Pool { repositories: listed.to_vec(), ..pool() }.repository_patterns();
    assert_eq!(patterns, listed.each_ref().map(RepositoryPattern::only));
}

#[test]
fn machines_are_alike_if_every_attribute_that_matters_is_the_same() {
    let tuple = pool().tuples().remove(0);
    let other_version = Tuple { template_version: 2, ..tuple.clone() };
    let other_template = Tuple { template: "lt-1".into(), ..tuple.clone() };
    let other_volume = Tuple { root: Some(volume()), ..tuple.clone() };
    let others = [
        Tuple { subnet: "subnet-b".into(), ..tuple.clone() },
        Tuple { instance_type: "c7i.large".into(), ..tuple.clone() },
        Tuple { market: Market::Spot, ..tuple.clone() },
    ];
    assert!(tuple.serves_like(&tuple) && tuple.is_same_machine(&tuple));
    for other in others {
        assert!(!tuple.serves_like(&other) && !tuple.is_same_machine(&other), "{other:?}");
    }
    for other in [other_version, other_template] {
        assert!(tuple.serves_like(&other) && !tuple.is_same_machine(&other), "{other:?}");
    }
    assert!(!tuple.serves_like(&other_volume) && tuple.is_same_machine(&other_volume));
    assert_eq!(tuple.to_string(), "m7i.large on-demand in subnet-a");
}

#[test]
fn a_schedule_is_shown_as_the_pool_file_has_it() {
    assert_eq!(night().to_string(), "mon sun 22:00-06:00 Europe/Berlin");
    let clock = night().time_zone.clock(noon()).expect("a time");
    assert_eq!(clock.to_string(), "2026-11-02T13:00:00");
}

#[test]
fn amounts_are_read_as_aws_writes_them() {
    assert_eq!(MicroUsd::parse("0.100800"), Some(MicroUsd(100_800)));
    assert_eq!(MicroUsd::parse("0"), Some(MicroUsd(0)));
    for none in ["", "a", "-0.1", "inf", "NaN", "1e9"] {
        assert_eq!(MicroUsd::parse(none), None, "{none:?}");
    }
}

#[test]
fn each_size_of_a_family_has_its_price() {
    let rates = Rates::of("us-east-1".to_owned());
    let large = rates.hour(&"m7i.large".into()).expect("a price");
    assert_eq!(large, MicroUsd(100_800));
    assert_eq!(rates.hour(&"m7i.xlarge".into()), Some(MicroUsd(2 * 100_800)));
    assert_eq!(rates.hour(&"m7g.large".into()).map(|it| it.0 / 2), rates.hour(&"m7g.medium".into()).map(|it| it.0));
    assert_eq!(large.during(SignedDuration::from_mins(30)), MicroUsd(50_400));
}
