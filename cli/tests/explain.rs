//! What `drover explain` says about jobs and runs, and how it refuses what it cannot mean.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::time::Duration;

use domain::log::Transaction;
use domain::state::{Item, Job, Key, Rank, Slot, SlotState};
use domain::wire::RunnerNotice;
use engine::ports::Store;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use serde_json::Value;
use world::ec2::{Code, LaunchMatch, Refusal, When};

const LONG: Duration = Duration::from_secs(600);
const REPOSITORY: &str = "octo-org/widgets";

async fn drover(sandbox: &Sandbox, arguments: &[&str]) -> (Option<i32>, String) {
    let output = sandbox.drover(arguments).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

async fn says(sandbox: &Sandbox, arguments: &[&str], code: i32, parts: &[&str]) -> String {
    let (exit, text) = drover(sandbox, arguments).await;
    assert_eq!(exit, Some(code), "{arguments:?}: {text}");
    assert!(parts.iter().all(|part| text.contains(part)), "{arguments:?}: {parts:?}: {text}");
    text
}

/// Queues jobs and runs the scaler once for all of them.
async fn queued(sandbox: &Sandbox, jobs: usize) -> Vec<world::github::JobId> {
    let jobs: Vec<_> = (0..jobs).map(|_| sandbox.queue_job(REPOSITORY, &["drover"], LONG)).collect();
    let arrived = |state: &State| (state.sqs.bodies(QUEUE).len() >= jobs.len()).then_some(());
    sandbox.world.until("the deliveries", PATIENCE, arrived).await.unwrap();
    while !sandbox.world.look(|state| state.sqs.bodies(QUEUE).is_empty()) {
        sandbox.scale().await.unwrap();
    }
    jobs
}

async fn job(sandbox: &Sandbox, id: u64) -> Job {
    match sandbox.table().await.get(&Key::Job(domain::ids::JobId(id))).await.unwrap() {
        Some(Item::Job(job)) => *job,
        other => panic!("no job: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_explained_with_its_place_its_slot_and_what_happens_next() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let jobs = queued(&sandbox, 3).await;
    let last = jobs[2].0.to_string();
    let text = says(&sandbox, &["explain", &last], 0, &["It is number 3 of 3 jobs that need a machine"]).await;
    let lines: Vec<&str> = text.lines().take(6).collect();
    assert!(lines[1].starts_with("Waiting: "), "the reason comes first: {text}");
    assert!(lines.iter().any(|line| line.starts_with("Its slot ")), "{text}");
    let next = lines.iter().find(|line| line.starts_with("Next: ")).unwrap_or_else(|| panic!("{text}"));
    assert!(next.contains(", at 20") && next.contains("Z, in "), "{next}");
    assert!(text.contains("other slots: 2 ") && !text.contains("\n  slot "), "others are counted: {text}");
    let all = says(&sandbox, &["explain", &last, "--all"], 0, &[]).await;
    assert_eq!(all.lines().filter(|line| line.starts_with("  slot ")).count(), 3, "{all}");

    // A time that has passed is overdue.
    let pool = "linux".parse().unwrap();
    let table = sandbox.table().await;
    let slots = table.partition(&pool).await.unwrap().items.into_iter();
    for item in slots {
        let Item::Slot(mut slot) = item else { continue };
        let SlotState::Configured { runner, .. } = &mut slot.state else { panic!("{slot:?}") };
        runner.configured_at -= jiff::SignedDuration::from_hours(1);
        table.commit(&Transaction::new().put(slot)).await.unwrap();
    }
    let text = says(&sandbox, &["explain", &last], 0, &["overdue since 20"]).await;
    assert!(text.lines().any(|line| line.starts_with("Next: ") && line.contains("overdue since")), "{text}");
}

/// The log of a busy pool is longer than what is searched for a job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machine_of_a_running_job_is_known_without_the_log() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let id = queued(&sandbox, 1).await[0].0;
    let (table, found) = (sandbox.table().await, job(&sandbox, id).await);
    let (mut writes, mut instance) = (Transaction::new(), String::new());
    for item in table.partition(&found.pool).await.unwrap().items {
        match item {
            Item::Slot(slot) => {
                let SlotState::Configured { machine, runner } = slot.state.clone() else { panic!("{slot:?}") };
                instance = machine.instance.to_string();
                let of_job = RunnerNotice { id: runner.runner_id, name: runner.runner_name.clone(), group: None };
                let started_at = Some(found.queued_at);
                let running = Job { rank: Rank::Started, runner: Some(of_job), started_at, ..found.clone() };
                let state = SlotState::Busy { machine, runner, job: found.id };
                writes = writes.put(running).put(Slot { state, ..slot });
            }
            Item::Waiting(waiting) => writes = writes.delete(waiting),
            _ => {}
        }
    }
    table.commit(&writes).await.unwrap();
    says(&sandbox, &["explain", &id.to_string()], 0, &[&format!("running on {instance} for ")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_or_a_url_of_a_run_explains_its_jobs_and_a_url_of_another_repository_is_refused() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let jobs = queued(&sandbox, 2).await;
    let (first, run) = (jobs[0].0, job(&sandbox, jobs[0].0).await.run_id.0);
    for url in [
        format!("https://github.com/{REPOSITORY}/actions/runs/{run}/job/{first}"),
        format!("https://github.com/{REPOSITORY}/actions/runs/{run}/attempts/1/job/{first}"),
        format!("https://api.github.com/repos/{REPOSITORY}/actions/jobs/{first}"),
        format!("{}/repos/{REPOSITORY}/actions/jobs/{first}", sandbox.github_url),
    ] {
        says(&sandbox, &["explain", &url], 0, &[&format!("job {first} of {REPOSITORY}: queued")]).await;
    }
    for reference in [
        run.to_string(),
        format!("https://github.com/{REPOSITORY}/actions/runs/{run}"),
        format!("{}/repos/{REPOSITORY}/actions/runs/{run}", sandbox.github_url),
    ] {
        let (heading, job) = (format!("run {run} of {REPOSITORY}: "), format!("job {first} of {REPOSITORY}: queued"));
        says(&sandbox, &["explain", &reference], 0, &[&heading, &job]).await;
    }
    let foreign = format!("https://github.com/octo-org/gadgets/actions/runs/{run}/job/{first}");
    let refusal = format!("job {first} belongs to {REPOSITORY}, not to octo-org/gadgets ->");
    let text = says(&sandbox, &["explain", &foreign], 1, &[&refusal]).await;
    assert_eq!(text.lines().count(), 1, "{text}");
    let foreign = format!("https://github.com/octo-org/gadgets/actions/runs/{run}");
    says(&sandbox, &["explain", &foreign], 1, &[&format!("run {run} belongs to {REPOSITORY} ->")]).await;

    // Several at once.
    let (one, two) = (first.to_string(), jobs[1].0.to_string());
    let parts = [format!("job {one} of"), format!("job {two} of")];
    says(&sandbox, &["explain", &one, &two], 0, &[&parts[0], &parts[1]]).await;
    let (_, json) = drover(&sandbox, &["explain", &one, &two, "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2, "{json:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_break_in_a_name_forges_no_line() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let id = queued(&sandbox, 1).await[0].0;
    let forged = "FORGED";
    let name = format!("build\n{forged} pool ok\r\n{forged}\u{2028}{forged}");
    let found = job(&sandbox, id).await;
    let labels = found.labels.iter().map(|label| format!("{label}\n{forged}")).collect();
    let written = Job { name: name.clone(), workflow: Some(name), labels, ..found };
    sandbox.table().await.commit(&Transaction::new().put(written)).await.unwrap();
    let id = id.to_string();
    for command in [&["explain", &id][..], &["jobs"], &["ps"], &["status"], &["events", "--job", &id]] {
        let (_, text) = drover(&sandbox, command).await;
        let is_forged = |line: &str| line.trim_start().starts_with(forged);
        assert!(!text.lines().any(is_forged) && !text.contains('\u{2028}'), "{command:?}: {text}");
    }
    says(&sandbox, &["explain", &id], 0, &["build FORGED pool ok"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_cannot_be_one_is_refused_before_any_call() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    let calls = sandbox.calls.counts();
    for arguments in [
        &["explain", "banana"][..],
        &["explain", "https://github.com/octo-org/widgets/pull/7"],
        &["explain", "12", "-3"],
        &["events", "--job", "banana"],
        &["events", "--pool", "No Pool"],
        &["forget", "banana"],
        &["hold", "banana"],
        &["hold", "i-0123456789abcdef0", "i-xyz"],
        &["release", "0123456789abcdef0"],
        &["retire", "I-0123456789ABCDEF0"],
        &["logs", "../etc"],
        &["drain", "a pool"],
        &["dead-letters", "show", "a b"],
        &["dead-letters", "delete", "a/b"],
    ] {
        let (code, text) = drover(&sandbox, arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
    }
    assert_eq!(sandbox.calls.counts(), calls, "no call to AWS or GitHub");

    sandbox.apply(&one_pool("")).await.unwrap();
    let known = queued(&sandbox, 1).await[0].to_string();
    let none = ["no event about job", "in this period -> an earlier --since, or drover explain"];
    let text = says(
        &sandbox,
        &["events", "--job", &known, "--since", "2025-12-31T00:00:00Z", "--until", "2026-01-01T00:00:00Z"],
        0,
        &none,
    )
    .await;
    assert!(!text.contains("newest"), "{text}");
    says(&sandbox, &["events", "--job", "77"], 1, &["Drover has no record of job 77 ->"]).await;
    let two = ["i-0123456789abcdef0", "i-0123456789abcdef1"];
    for command in ["hold", "release", "retire"] {
        says(&sandbox, &[command, two[0], two[1]], 1, &two).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_on_one_screen_which_pool_cannot_serve_its_jobs_and_why() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    sandbox.sweep().await.unwrap();
    let quiet =
        ["stack sandbox in eu-central-1", "no job waits", "no failures in the last hour", "cost today: 0.00 USD"];
    let text = says(&sandbox, &["status"], 0, &quiet).await;
    assert!(text.lines().any(|line| line.contains("linux") && line.trim_end().ends_with(" ok")), "{text}");

    let (matches, code) = (LaunchMatch::default(), Code::InsufficientInstanceCapacity);
    sandbox.world.act(|state, _| state.ec2.faults.refusals.push(Refusal { matches, code, when: When::Chance(1.0) }));
    let jobs = queued(&sandbox, 30).await;
    let oldest = format!("oldest waiting job: {} of octo-org/widgets in linux, for ", jobs[0]);
    let parts =
        ["EC2 refuses: ", "InsufficientInstanceCapacity", &oldest, "Insufficient", "failures of the last hour:"];
    let text = says(&sandbox, &["status"], 0, &parts).await;
    assert!(text.lines().count() <= 24, "one screen: {text}");
    says(&sandbox, &["pools"], 0, &["EC2 refuses"]).await;
    let doctor = says(&sandbox, &["doctor"], 1, &["FAIL  capacity: ", "InsufficientInstanceCapacity"]).await;
    assert!(doctor.lines().next().unwrap().starts_with("FAIL"), "{doctor}");
    let (_, json) = drover(&sandbox, &["status", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["pools"][0]["state"], &json["pools"][0]["demand"]),
        (&"EC2 refuses".into(), &30.into()),
        "{json:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_jobs_machine_and_its_re_run_are_in_the_first_lines() {
    let mut options = Options::default();
    options.ec2.spot_notice = Duration::from_millis(200);
    let sandbox = Sandbox::start(options).await.unwrap();
    sandbox.apply(&one_pool("market = \"spot\"\nrerun_on_interruption = true")).await.unwrap();
    let job = sandbox.queue_job(REPOSITORY, &["drover"], LONG);
    let machine = sandbox.running(job, PATIENCE).await.unwrap();
    sandbox.world.act(|state, now| state.ec2.interrupt_spot(&machine, now));
    let again = |state: &State| state.github.jobs().find(|it| it.id != job).map(|it| it.id);
    let again = sandbox.world.until("the re-run", PATIENCE, again).await.unwrap();
    sandbox.serve(&[again]).await.unwrap();
    let text = says(&sandbox, &["explain", &job.to_string()], 0, &[]).await;
    let first: Vec<&str> = text.lines().skip(1).take(3).collect();
    assert!(first[0].starts_with(&format!("The job ran on {machine} for ")), "{text}");
    assert!(first[1].starts_with("EC2 reclaimed the machine at 20"), "{text}");
    assert!(first[2].starts_with("Its machine was lost: re-run requested"), "{text}");
    let other = says(&sandbox, &["explain", &again.to_string()], 0, &[]).await;
    assert!(!other.contains("reclaimed") && !other.contains("lost"), "{other}");
}
