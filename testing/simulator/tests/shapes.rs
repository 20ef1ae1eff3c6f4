//! Jobs of a pool with shapes: each runs on a machine that its label asks for, at a good price.

mod story;

use std::collections::BTreeMap;

use domain::config::{Architecture, LaunchTemplate, Market, MarketChoice, Pool, RootVolume, ShapePolicy, Shapes};
use jiff::SignedDuration;
use simulator::{Universe, pool};
use story::everything_is_over;
use world::github::JobId;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn any(max: u32) -> Pool {
    let root = RootVolume {
        device: "/dev/sda1".to_owned(),
        gib: 40,
        kind: "gp3".to_owned(),
        iops: None,
        throughput: None,
        kms_key: None,
    };
    // The model has one template for both architectures.
    let template = LaunchTemplate { id: "lt-0".into(), name: "runner".to_owned(), version: 1, root: Some(root) };
    let policy = ShapePolicy {
        cpu: "1..32".parse().expect("a range"),
        ram: "2..128".parse().expect("a range"),
        architectures: vec![Architecture::X64, Architecture::Arm64],
        families: Vec::new(),
        disk: Some("40..500".parse().expect("a range")),
        markets: vec![Market::Spot, Market::OnDemand],
        price_per_hour: None,
    };
    let launch_templates = [Architecture::X64, Architecture::Arm64].map(|it| (it, template.clone())).into();
    Pool {
        labels: Default::default(),
        instance_types: Vec::new(),
        market: MarketChoice::SpotThenOnDemand,
        shapes: Some(Shapes { policy, launch_templates }),
        ..pool("any", max)
    }
}

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
    let universe = Universe::new(70, vec![any(20)]);
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
