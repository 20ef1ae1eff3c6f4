//! Records to begin with. "Now" is [`noon`].

#![allow(dead_code, reason = "each test file uses some of these")]

use std::collections::BTreeSet;

use domain::config::{LaunchTemplate, Order, Pool, Timings};
use domain::ids::{InstanceId, JobId, RunId, RunnerId};
use domain::log::{Cause, Transaction, Turn};
use domain::policy::PoolView;
use domain::policy::listing::{Missing, RunnerList};
use domain::state::{Config, Instance, Item, Job, Meta, Slot, WaitingJob};
use domain::wire::{
    Action, JobNotice, MESSAGE_VERSION, MachineState, Notice, ObservedInstance, ObservedRunner, RunnerNotice,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub(crate) fn noon() -> Timestamp {
    "2026-11-02T12:00:00Z".parse().expect("a time")
}

/// That many seconds before noon.
pub(crate) fn ago(seconds: i64) -> Timestamp {
    noon() - SignedDuration::from_secs(seconds)
}

/// That many seconds after noon.
pub(crate) fn later(seconds: i64) -> Timestamp {
    noon() + SignedDuration::from_secs(seconds)
}

/// A decision at noon; its effects are held for 90 seconds.
pub(crate) fn turn() -> Turn {
    Turn { now: noon(), lease: later(90), cause: Cause::Invocation("test".to_owned()) }
}

/// Pool `linux` of `octo`, with one way to launch and at most two machines.
pub(crate) fn pool() -> Pool {
    Pool {
        name: "linux".parse().expect("a pool"),
        owner: "octo".parse().expect("a scope"),
        labels: ["linux".parse().expect("a label")].into(),
        repositories: Vec::new(),
        allow_public: false,
        launch_template: LaunchTemplate { id: "lt-0".into(), name: "runner".to_owned(), version: 1, root: None },
        subnets: vec!["subnet-a".into()],
        instance_types: vec!["m7i.large".into()],
        market: Default::default(),
        order: Order::Listed,
        max: 2,
        warm: 0,
        stopped: 0,
        schedules: Vec::new(),
        priority: 100,
        runner_group: 1,
        rerun_on_interruption: false,
        usage: false,
        timings: Timings::default(),
        draining: false,
        paused: false,
        shapes: None,
        price_per_hour: None,
        machines: None,
        options: None,
    }
}

pub(crate) fn config(pools: impl IntoIterator<Item = Pool>) -> Config {
    Config {
        format: 1,
        pools: pools.into_iter().collect(),
        removed: Default::default(),
        applied_at: noon(),
        revision: 1,
    }
}

pub(crate) fn meta() -> Meta {
    Meta::new(pool().name, "e1".parse().expect("an epoch"))
}

/// A reading of pool `linux`.
pub(crate) fn view(items: impl IntoIterator<Item = Item>) -> PoolView {
    PoolView::new(meta(), items)
}

/// The reading after the writes.
pub(crate) fn after(view: &PoolView, writes: &Transaction) -> PoolView {
    let mut after = view.clone();
    after.apply(writes);
    after
}

/// The name of the first registration of slot 4.0.
pub(crate) const RUNNER: &str = "drover_ci_linux_e1_4_0_1";

/// Slot 4.0 in a state that began `since` seconds before noon, with further or other attributes.
pub(crate) fn slot(state: &str, since: i64, more: Value) -> Slot {
    let at = ago(since);
    let mut all = json!({
        "id": "4.0", "pool": "linux", "state": state, "wanted": true, "planned_at": ago(3600), "registration": 1,
        "next_at": noon(), "revision": 1, "instance": "i-1", "launched_at": at, "runner_id": 7, "runner_name": RUNNER,
        "configured_at": at, "online_at": at, "job": 5, "done_at": at,
    });
    let fields = all.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    serde_json::from_value(all).expect("a slot")
}

/// The instance of slot 4.0.
pub(crate) fn instance() -> Instance {
    let mut instance = Instance::bound(&slot("launched", 60, json!({})), None, InstanceId::from("i-1"), ago(60));
    instance.revision = 1;
    instance
}

/// Instance `i-1` in EC2's list.
pub(crate) fn listed() -> ObservedInstance {
    ObservedInstance {
        id: InstanceId::from("i-1"),
        state: MachineState::Running,
        launched_at: ago(60),
        image: None,
        pool: Some(pool().name),
        batch: Some("linux.e1.4.1".parse().expect("a tag")),
        hold: false,
        state_reason: None,
    }
}

/// Job 5, which was queued that many seconds before noon.
pub(crate) fn job(queued: i64) -> WaitingJob {
    WaitingJob {
        id: JobId(5),
        pool: pool().name,
        repository: "octo/widgets".parse().expect("a repository"),
        class: None,
        queued_at: ago(queued),
        open: true,
        check_at: later(60),
        checked_at: ago(queued),
        launches: Vec::new(),
        opened_at: None,
        unserved: None,
        run_over_at: None,
        unknown_since: None,
        attempt: None,
        asked_until: None,
        revision: 1,
    }
}

/// GitHub's description of job 5, which runs on runner 7 of slot 4.0 unless it is queued.
pub(crate) fn described(status: &str) -> JobNotice {
    let has_runner = matches!(status, "in_progress" | "completed");
    JobNotice {
        id: JobId(5),
        run_id: RunId(2),
        run_attempt: 1,
        name: "build".to_owned(),
        workflow: None,
        labels: vec!["linux".to_owned()],
        status: status.to_owned(),
        conclusion: (status == "completed").then(|| "success".to_owned()),
        runner: has_runner.then(|| RunnerNotice { id: RunnerId(7), name: RUNNER.to_owned(), group: None }),
        created_at: ago(120),
        started_at: Some(ago(60)),
        completed_at: (status == "completed").then(|| ago(1)),
        head_sha: "c0ffee".to_owned(),
        html_url: "https://github.com/octo/widgets/actions/runs/2/job/5".to_owned(),
    }
}

/// A webhook about job 5, received now.
pub(crate) fn notice(action: Action) -> Notice {
    let status = match action {
        Action::Queued => "queued",
        Action::Waiting => "waiting",
        Action::InProgress => "in_progress",
        Action::Completed => "completed",
    };
    Notice {
        v: MESSAGE_VERSION,
        delivery: status.into(),
        received_at: noon(),
        action,
        repository: "octo/widgets".parse().expect("a repository"),
        repository_id: Some(1),
        public: false,
        installation: None,
        job: described(status),
    }
}

/// The facts about job 5 after these webhooks.
pub(crate) fn facts(actions: &[Action]) -> Job {
    let first = Job::first(pool().name, &notice(actions[0]));
    let job = actions.iter().fold(first, |job, action| job.join(&notice(*action)));
    Job { revision: 1, ..job }
}

/// The written slots, with the revision that was read.
pub(crate) fn slots(writes: &Transaction) -> Vec<Slot> {
    writes.puts.iter().filter_map(|item| if let Item::Slot(slot) = item { Some(slot.clone()) } else { None }).collect()
}

pub(crate) fn instances(writes: &Transaction) -> Vec<Instance> {
    let instance = |item: &Item| if let Item::Instance(it) = item { Some(it.clone()) } else { None };
    writes.puts.iter().filter_map(instance).collect()
}

/// GitHub's whole list, whose first page was read at noon.
pub(crate) fn list(runners: impl IntoIterator<Item = ObservedRunner>) -> RunnerList {
    RunnerList {
        runners: runners.into_iter().collect(),
        unused: Vec::new(),
        listed: BTreeSet::new(),
        unnamed: 0,
        missing: Missing::Absent { since: noon() },
    }
}
