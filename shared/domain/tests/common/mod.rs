//! A pool to begin with.

use domain::config::{LaunchTemplate, Pool, Timings};

/// Pool `linux` of `octo`, with one way to launch and at most two machines.
pub(crate) fn pool() -> Pool {
    Pool {
        name: "linux".parse().expect("a pool"),
        owner: "octo".parse().expect("a scope"),
        labels: ["linux".parse().expect("a label")].into(),
        repositories: Vec::new(),
        allow_public: false,
        launch_template: LaunchTemplate { id: "lt-0".into(), name: "runner".to_owned(), version: 1 },
        subnets: vec!["subnet-a".into()],
        instance_types: vec!["m7i.large".into()],
        market: Default::default(),
        max: 2,
        warm: 0,
        priority: 100,
        runner_group: 1,
        rerun_on_interruption: false,
        timings: Timings::default(),
        draining: false,
    }
}
