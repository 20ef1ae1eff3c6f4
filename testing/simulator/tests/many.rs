//! What a sweep does about many machines at once. The parts of the sweep take turns at each call.

mod story;

use std::collections::BTreeMap;

use engine::sweep::Report;
use jiff::SignedDuration;
use simulator::{Universe, pool};
use story::everything_is_over;
use world::ec2::{Market, RunInstances, TemplateRef};
use world::github::{DEFAULT_GROUP, JitRequest, JobId, Scope};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const MANY: usize = 40;

/// One sweep, with how often each call was made, by the beginning of its line in a trace.
fn recorded_sweep(universe: &Universe) -> (Report, impl Fn(&str) -> usize) {
    universe.steps.record();
    let report = universe.sweep();
    let calls: Vec<String> = universe.steps.recorded().iter().map(ToString::to_string).collect();
    (report, move |begins: &str| calls.iter().filter(|call| call.starts_with(begins)).count())
}

/// Time passes, and no function runs.
fn pass(universe: &Universe, time: SignedDuration) {
    (0..time.as_secs()).for_each(|_| universe.tick());
}

fn alive(universe: &Universe) -> usize {
    universe.ec2(|ec2, _| ec2.alive().count())
}

#[test]
fn one_sweep_stops_every_machine_that_did_not_come_up() {
    let universe = Universe::new(401, vec![pool("linux", 100)]);
    universe.ec2(|ec2, _| ec2.faults.boot_failures = 1.0);
    let jobs: Vec<_> = (0..MANY).map(|_| universe.queue_job(&["linux"], MINUTE)).collect();
    universe.run(MINUTE * 7);
    assert_eq!(alive(&universe), MANY);
    universe.github(|github, now| jobs.iter().for_each(|job| github.cancel(JobId(job.0), now)));
    pass(&universe, MINUTE * 2);
    let (report, calls) = recorded_sweep(&universe);
    assert_eq!((report.reaped.get("boot_failure"), report.failures.len()), (Some(&MANY), 0), "{report:?}");
    assert_eq!(calls("commit Stopped"), MANY, "no claim is lost to another of the same sweep");
    assert_eq!(calls("TerminateInstances"), MANY);
    assert!(calls("query linux") <= 5, "{} readings of the pool", calls("query linux"));
    let meta = universe.store.view(&"linux".parse().expect("a pool")).meta;
    assert_eq!(meta.boot_failures as usize, MANY, "each counts");
    universe.ec2(|ec2, _| ec2.faults.boot_failures = 0.0);
    everything_is_over(&universe);
}

/// Machines of one launch that is not in the table, each with an idle runner.
fn lost_launch(universe: &Universe) {
    let tags = [("drover:stack", "sim"), ("drover:pool", "linux"), ("drover:batch", "linux.zz9.7.1")];
    let tags: BTreeMap<String, String> =
        tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    universe.ec2(|ec2, now| {
        let request = RunInstances {
            template: TemplateRef::Name("runner".to_owned()),
            template_version: None,
            min_count: MANY as u32,
            max_count: MANY as u32,
            subnet: "subnet-a".into(),
            instance_type: None,
            market: Market::OnDemand,
            client_token: None,
            tags,
            volume_tags: BTreeMap::new(),
        };
        ec2.run_instances(request, now).expect("there is room")
    });
    universe.github(|github, now| {
        let installation = github.find_owner("octo-org").and_then(|owner| owner.installation).expect("it is installed");
        for n in 0..MANY {
            let name = format!("drover_sim_linux_zz9_7_{n}_1");
            let request = JitRequest { name, group: DEFAULT_GROUP, labels: vec!["linux".to_owned()] };
            let scope = Scope::organization("octo-org");
            let made = github.generate_jit(installation, &scope, request, now).expect("a free name");
            github.connect(&made.secret, now).expect("its secret");
        }
    });
}

#[test]
fn each_runner_of_a_lost_launch_is_deregistered_once() {
    let universe = Universe::new(402, vec![pool("linux", 100)]);
    lost_launch(&universe);
    pass(&universe, MINUTE * 11);
    for _ in 0..2 {
        let (report, _) = recorded_sweep(&universe);
        assert_eq!((report.reaped.len(), report.failures.len()), (0, 0), "one list may lack a busy runner: {report:?}");
        pass(&universe, MINUTE);
    }
    let (report, calls) = recorded_sweep(&universe);
    assert_eq!((report.reaped.get("orphan"), report.failures.len()), (Some(&MANY), 0), "{report:?}");
    assert_eq!((calls("delete runner"), calls("list runners named")), (MANY, 0), "GitHub's limits are for all pools");
    assert_eq!((calls("commit Condemned"), calls("TerminateInstances")), (MANY, MANY));
    everything_is_over(&universe);
}
