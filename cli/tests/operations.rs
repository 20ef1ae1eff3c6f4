//! What an operator does while jobs run: hold, release and retire machines, drain a pool, read costs and the log.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::time::Duration;

use domain::ids::{InstanceId, JobId};
use domain::log::Transaction;
use domain::state::{Batch, Instance, Item, Key, Lease, Limit, STUCK_AFTER, SlotState};
use engine::ports::{Clock, Store};
use jiff::SignedDuration;
use platform::clock::SystemClock;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use serde_json::Value;
use world::ec2::{Code, LaunchMatch, Refusal, When};
use world::github::{CheckRun, Immortal, QueueJob};

const LONG: Duration = Duration::from_secs(600);

struct Printed {
    code: i32,
    text: String,
}

async fn drover(sandbox: &Sandbox, arguments: &[&str]) -> Printed {
    let output = sandbox.drover(arguments).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains('\u{1b}'), "no colour where there is no terminal: {text:?}");
    Printed { code: output.status.code().unwrap(), text }
}

async fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let said = drover(sandbox, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&said.text).unwrap_or_else(|error| panic!("{error}: {}", said.text))
}

async fn says(sandbox: &Sandbox, arguments: &[&str], code: i32, parts: &[&str]) {
    let said = drover(sandbox, arguments).await;
    assert_eq!(said.code, code, "{arguments:?}: {}", said.text);
    assert!(parts.iter().all(|part| said.text.contains(part)), "{arguments:?}: {parts:?}: {}", said.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_held_released_and_retired_and_its_job_is_killed_only_by_force() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("warm = 1\n")).await.unwrap();
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], LONG);
    let busy = sandbox.running(job, PATIENCE).await.unwrap().to_string();
    let job = job.0;

    says(&sandbox, &["jobs"], 0, &[&job.to_string(), "running", "octo-org/widgets", &busy]).await;
    says(&sandbox, &["pools"], 0, &["linux", "/10", "ok"]).await;
    let explained = json(&sandbox, &["explain", &job.to_string()]).await;
    assert_eq!(explained["instance"], busy.as_str());
    assert!(
        explained["says"][0].as_str().unwrap().starts_with(&format!("The job has been running on {busy} for")),
        "{explained:#}"
    );
    assert!(explained["says"][1].as_str().unwrap().contains("s until the runner took the job"), "{explained:#}");

    // A machine with a job is retired only with --force.
    let refused = [&format!("{busy} runs job {job} of octo-org/widgets"), "nothing was done", "--force kills the job"];
    says(&sandbox, &["retire", &busy], 1, &refused.map(AsRef::as_ref)).await;
    says(&sandbox, &["retire", "i-0123456789abcdef0"], 1, &["no record of i-0123456789abcdef0"]).await;

    // A held machine is not retired either.
    says(&sandbox, &["hold", &busy], 0, &["is held"]).await;
    let tag = |state: &State| state.ec2.instance(&busy.as_str().into()).unwrap().tags.get("drover:hold").cloned();
    assert!(sandbox.world.look(tag).unwrap().contains("assumed-role/drover-operator"));
    says(&sandbox, &["hold", &busy], 0, &["is held already"]).await;
    says(&sandbox, &["ps"], 0, &["held by an operator"]).await;
    says(&sandbox, &["runners"], 0, &["octo-org", "busy", "drover_"]).await;
    // An empty list would mean that nothing is registered.
    sandbox.world.act(|state, _| state.github.faults.down = true);
    says(&sandbox, &["runners"], 3, &["GitHub"]).await;
    sandbox.world.act(|state, _| state.github.faults.down = false);
    says(&sandbox, &["retire", &busy, "--force"], 1, &["is held: nothing was done"]).await;
    says(&sandbox, &["hold", "i-0123456789abcdef0"], 1, &["shows no live machine"]).await;
    says(&sandbox, &["release", &busy], 0, &["is released"]).await;
    assert_eq!(sandbox.world.look(tag), None);
    says(&sandbox, &["release", &busy], 0, &["was not held"]).await;

    says(&sandbox, &["retire", &busy, "--force"], 0, &[&format!("which kills job {job} of octo-org/widgets")]).await;
    let killed = |state: &State| (state.github.killed().count() == 1).then_some(());
    sandbox.world.until("the machine to end, and its job with it", PATIENCE, killed).await.unwrap();
    assert_eq!(sandbox.killed_by_us().len(), 1, "the operator asked for it");
    says(&sandbox, &["events", "--job", &job.to_string()], 0, &[": operator", "drover retire, arn:aws:sts::"]).await;
    // The console output outlives the machine.
    says(&sandbox, &["logs", &busy], 0, &["runner"]).await;
    says(&sandbox, &["logs", "i-0123456789abcdef0"], 1, &["keeps it for an hour", "no record of i-0123456789abcdef0"])
        .await;
    // EC2 no longer has the output, but the janitor kept it.
    let table = sandbox.table().await;
    let Some(Item::Instance(known)) = table.get(&Key::Instance(InstanceId::from(busy.as_str()))).await.unwrap() else {
        panic!("{busy} is known")
    };
    let old = Instance { id: "i-0aaaaaaaaaaaaaaaa".into(), console: Some("a panic".to_owned()), revision: 0, ..known };
    table.commit(&Transaction::new().put(old)).await.unwrap();
    says(&sandbox, &["logs", "i-0aaaaaaaaaaaaaaaa"], 0, &["a panic"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_instance_type_has_a_console_too() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("").replace("m7i.large", "m4.large")).await.unwrap();
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], LONG);
    let busy = sandbox.running(job, PATIENCE).await.unwrap().to_string();
    says(&sandbox, &["logs", &busy], 0, &["runner"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_names_the_refusals_of_ec2_and_github() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let always =
        Refusal { matches: LaunchMatch::default(), code: Code::InsufficientInstanceCapacity, when: When::Chance(1.0) };
    sandbox.world.act(|state, _| state.ec2.faults.refusals.push(always));
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], LONG).to_string();
    let arrived = |state: &State| (!state.sqs.bodies(QUEUE).is_empty()).then_some(());
    sandbox.world.until("the delivery", PATIENCE, arrived).await.unwrap();
    sandbox.scale().await.unwrap();
    says(&sandbox, &["explain", &job], 0, &["Waiting: no m7i.large", "InsufficientInstanceCapacity"]).await;
    let obstacles =
        ["m7i.large on-demand in subnet-a is cooling down for ", "no launch option is free, next attempt in "];
    says(&sandbox, &["pools"], 0, &obstacles).await;

    // EC2 has not answered the launch, and GitHub limits calls.
    let (table, pool) = (sandbox.table().await, "linux".parse().unwrap());
    let items = table.partition(&pool).await.unwrap().items;
    let batch = items.into_iter().find_map(|item| match item {
        Item::Batch(batch) => Some(batch),
        _ => None,
    });
    let until = SystemClock.now() + SignedDuration::from_hours(1);
    let why = "You have exceeded a secondary rate limit".to_owned();
    let limit = Limit { owner: "octo-org".parse().unwrap(), backoff_until: until, why: why.clone(), revision: 0 };
    let stuck = Batch { lease: Lease { tries: STUCK_AFTER, next_at: SystemClock.now() }, ..batch.unwrap() };
    table.commit(&Transaction::new().put(stuck).put(limit)).await.unwrap();
    let parts =
        ["EC2 gave no clear answer to launch linux.", "in 5 attempts", "GitHub accepts no calls for octo-org", &why];
    says(&sandbox, &["explain", &job], 0, &parts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_are_grouped_by_pool_repository_workflow_and_type() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let job = || sandbox.queue_job("octo-org/widgets", &["drover"], LONG);
    let jobs = [job(), job()];
    for job in jobs {
        sandbox.running(job, PATIENCE).await.unwrap();
    }
    // A cost of zero would prove nothing.
    let two_seconds_old = |state: &State| {
        let age = |launched_at| SystemClock.now().duration_since(launched_at);
        state.ec2.alive().all(|machine| age(machine.launched_at) >= SignedDuration::from_secs(2)).then_some(())
    };
    sandbox.world.until("machines that cost something", PATIENCE, two_seconds_old).await.unwrap();
    for job in jobs {
        sandbox.finish(job);
    }
    sandbox.reconcile(&jobs, PATIENCE).await.unwrap();
    // One dollar per second.
    std::fs::write(
        sandbox.folder().join("prices.json"),
        r#"{"source": "a test", "read": "today", "families": {"m7i": {"eu-central-1": 3600}}}"#,
    )
    .unwrap();
    for by in ["pool", "repository", "workflow", "type"] {
        let arguments = ["cost", "--by", by, "--since", "1h", "--prices", "prices.json", "--json"];
        let printed: Value = serde_json::from_str(&drover(&sandbox, &arguments).await.text).unwrap();
        let rows = printed["rows"].as_array().unwrap();
        let sum = |name: &str| rows.iter().filter_map(|row| row[name].as_f64()).sum::<f64>();
        assert_eq!((sum("machines"), sum("unpriced")), (2.0, 0.0), "{printed:#}");
        assert!(sum("seconds") >= 2.0 && (sum("usd") - sum("seconds")).abs() < 0.01, "{printed:#}");
        let what: Vec<&str> = rows.iter().filter_map(|row| row["what"].as_str()).collect();
        let expected = match by {
            "pool" => "linux",
            "repository" => "octo-org/widgets",
            "workflow" => "octo-org/widgets: ",
            _ => "m7i.large",
        };
        assert!(what.iter().all(|what| what.starts_with(expected)), "{what:?}");
    }
    says(&sandbox, &["cost"], 0, &["at on-demand list prices in eu-central-1"]).await;
    // Once the machine is closed, drover explain shows what it cost.
    let job = jobs[0].0.to_string();
    let machine = json(&sandbox, &["explain", &job]).await["instance"].as_str().unwrap().to_owned();
    sandbox.closed(&machine.as_str().into()).await.unwrap();
    says(
        &sandbox,
        &["explain", &job],
        0,
        &[
            "Its machine reported ",
            " after its kernel began.",
            "Its machine cost 0.0",
            "USD at the on-demand list price",
        ],
    )
    .await;
    says(&sandbox, &["cost", "--prices", "ci.yml"], 2, &["ci.yml"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_pool_takes_no_jobs_and_retires_its_warm_machines_and_its_circuit_stays_as_it_was() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("warm = 2\n")).await.unwrap();
    let alive = |count: usize| move |state: &State| (state.ec2.alive().count() == count).then_some(());
    sandbox.world.until("the warm machines", PATIENCE, alive(2)).await.unwrap();
    let table = sandbox.table().await;
    let config = || async {
        match table.get(&Key::Config).await.unwrap() {
            Some(Item::Config(config)) => config,
            other => panic!("{other:?}"),
        }
    };
    let hash = config().await.pools[0].config_hash();

    says(&sandbox, &["drain", "linux"], 0, &["takes no new jobs", "drover drain linux --undo"]).await;
    assert_eq!(config().await.pools[0].config_hash(), hash, "a drain does not change the pool's configuration");
    says(&sandbox, &["pools"], 0, &["draining"]).await;
    sandbox.world.until("the warm machines to go", PATIENCE, alive(0)).await.unwrap();
    says(&sandbox, &["drain", "linux", "--undo"], 0, &["takes jobs again"]).await;
    says(&sandbox, &["drain", "nowhere"], 2, &["drover pools lists the pools"]).await;
    sandbox.world.until("warm machines again", PATIENCE, alive(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_surplus_machine_that_is_held_stays_until_it_is_released() {
    // No function runs between two steps of the test.
    let mut sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("warm = 1\n")).await.unwrap();
    let table = sandbox.table().await;
    let one = |state: &State| state.ec2.alive().next().map(|machine| machine.id.to_string());
    let launched = async || {
        sandbox.scale().await?;
        Ok(sandbox.world.look(one))
    };
    let machine = sandbox.sweep_until("the warm machine", launched).await.unwrap();
    let known = InstanceId::from(machine.as_str());
    while table.get(&Key::Instance(known.clone())).await.unwrap().is_none() {
        sandbox.sweep().await.unwrap();
    }
    says(&sandbox, &["hold", &machine], 0, &["is held"]).await;
    sandbox.apply(&one_pool("warm = 0\n")).await.unwrap();
    says(&sandbox, &["drain", "linux"], 0, &["takes no new jobs"]).await;
    // The tag decides: a slot that lost the mark has it again after a sweep.
    let slot = || async {
        let items = table.partition(&"linux".parse().unwrap()).await.unwrap().items;
        let mut slots = items.into_iter().filter_map(|item| match item {
            Item::Slot(slot) if slot.machine().is_some_and(|it| it.instance == known) => Some(slot),
            _ => None,
        });
        slots.next().unwrap()
    };
    let unmarked = domain::state::Slot { held: false, ..slot().await };
    let _ = table.commit(&Transaction::new().put(unmarked)).await;
    while !slot().await.held {
        sandbox.sweep().await.unwrap();
    }
    sandbox.scale().await.unwrap();
    sandbox.sweep().await.unwrap();
    assert!(matches!(slot().await.state, SlotState::Launched(_)));
    assert_eq!(sandbox.world.look(|state| state.ec2.alive().count()), 1, "hold wins");
    says(&sandbox, &["release", &machine], 0, &["is released"]).await;
    sandbox.go_live();
    let gone = |state: &State| state.ec2.alive().next().is_none().then_some(());
    sandbox.world.until("it to go", PATIENCE, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_replays_to_the_state_of_the_table_and_a_difference_is_found() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let jobs: Vec<_> =
        (0..3).map(|_| sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(100))).collect();
    sandbox.reconcile(&jobs, PATIENCE).await.unwrap();
    says(&sandbox, &["replay", "--verify"], 0, &["match the", "events of the log"]).await;
    says(&sandbox, &["replay"], 0, &[&format!("JOB#{}", jobs[0].0), "records from"]).await;
    says(&sandbox, &["explain", &jobs[0].0.to_string()], 0, &["The job ran on i-", ": success.", "It waited"]).await;

    // Change the table by hand.
    let table = sandbox.table().await;
    let Some(Item::Job(job)) = table.get(&Key::Job(JobId(jobs[1].0))).await.unwrap() else {
        panic!("the job is recorded")
    };
    let changed = domain::state::Job { conclusion: Some("failure".to_owned()), ..*job };
    table.commit(&Transaction::new().put(changed)).await.unwrap();
    says(&sandbox, &["replay", "--verify"], 1, &[&format!("JOB#{}", jobs[1].0), "\"failure\"", "\"success\""]).await;

    // Follow the log: new events appear, and none twice.
    let mut follower = sandbox.follow(&["events", "--follow", "--newest", "5"]).unwrap();
    for _ in 0..5 {
        follower.line().await.unwrap();
    }
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(100));
    let said = format!("job {} queued", job.0);
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.contains(&said)) {
        seen.push(tokio::time::timeout(PATIENCE, follower.line()).await.unwrap().unwrap());
    }
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "{seen:#?}");
    let mut watcher = sandbox.follow(&["ps", "--watch"]).unwrap();
    for _ in 0..2 {
        let line = tokio::time::timeout(PATIENCE, watcher.line()).await.unwrap().unwrap();
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_github_calls_queued_for_months_launches_nothing_and_can_be_forgotten() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let job = sandbox.world.act(|state, now| {
        let repository = state.github.find_repository("octo-org", "widgets").unwrap().id;
        let job = QueueJob::new(repository, &["drover"]);
        state.github.queue_immortal_job(job, Immortal::RunUnderWay, 98 * 24 * Duration::from_secs(3600), now)
    });
    let notified = |state: &State| {
        let of_job = |run: &&CheckRun| run.now.external_id == Some(job.to_string());
        state.github.check_runs().find(of_job)?.now.output.clone()
    };
    let output = sandbox.world.until("the author is notified", PATIENCE, notified).await.unwrap();
    assert!(output.title.contains("GitHub has called it queued for 98 days"), "{}", output.title);
    assert_eq!(sandbox.world.look(|state| state.ec2.launches()), 0);

    let job = job.0.to_string();
    says(&sandbox, &["jobs"], 0, &[&job, "given up"]).await;
    says(&sandbox, &["explain", &job], 0, &["Nothing is launched for it any more", &format!("drover forget {job}")])
        .await;
    let doctor = drover(&sandbox, &["doctor"]).await.text;
    assert!(doctor.contains(&format!("nothing is launched any more for job {job} of octo-org/widgets")), "{doctor}");
    says(&sandbox, &["forget", &job], 0, &["is forgotten"]).await;
    says(&sandbox, &["forget", &job], 1, &["is not waiting"]).await;
    says(&sandbox, &["jobs"], 0, &["no waiting or running jobs"]).await;
    says(&sandbox, &["jobs", "--finished"], 0, &[&job, "forgotten"]).await;
    says(&sandbox, &["events", "--job", &job], 0, &["gave up job"]).await;
}
