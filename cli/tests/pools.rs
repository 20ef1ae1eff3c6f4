//! Changing pools: what an operator sees before, what needs an agreement, and what is refused.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::process::Output;
use std::time::Duration;

use domain::log::Transaction;
use domain::state::{Config, Item, Key};
use engine::ports::Store;
use jiff::SignedDuration;
use sandbox::sandbox::{Driven, Options, Sandbox};
use sandbox::short_timings::{one_pool, with_short_timings};
use sandbox::state::State;
use serde_json::{Value, json};
use world::ec2::{Code, LaunchMatch, Refusal, When};

const POOLS: &str = include_str!("../../pools.toml");

async fn by_hand() -> Sandbox {
    Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap()
}

/// A pool file in the sandbox's folder, as an operator writes it.
struct Files {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Files {
    async fn new() -> Self {
        Self { sandbox: by_hand().await, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs a command of `drover pools` with a file.
    async fn run(&self, command: &str, pools: &str, options: &[&str]) -> (i32, String) {
        let path = self.path("pools.toml");
        std::fs::write(&path, pools).unwrap();
        said(&self.sandbox.drover(&[&["pools", command, &path], options].concat()).await.unwrap())
    }

    async fn in_force(&self) -> Value {
        let shown = self.sandbox.drover(&["pools", "show", "--json"]).await.unwrap();
        serde_json::from_slice(&shown.stdout).unwrap()
    }

    /// The pools as the functions read them.
    async fn config(&self) -> Config {
        match self.sandbox.table().await.get(&Key::Config).await.unwrap() {
            Some(Item::Config(config)) => config,
            other => panic!("no pools: {other:?}"),
        }
    }
}

fn said(output: &Output) -> (i32, String) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), text)
}

fn has(said: &(i32, String), code: i32, parts: &[&str]) {
    let missing: Vec<&&str> = parts.iter().filter(|part| !said.1.contains(**part)).collect();
    assert!(
        said.0 == code && missing.is_empty(),
        "exit code {} instead of {code}, lacks {missing:?}:\n{}",
        said.0,
        said.1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_of_pools_or_capacity_is_shown_and_needs_an_agreement() {
    let files = Files::new().await;
    has(&files.run("diff", POOLS, &[]).await, 1, &["large: added", "linux: added"]);
    has(&files.run("apply", POOLS, &["--dry-run"]).await, 0, &["linux: added", "nothing was applied"]);
    assert_eq!(files.sandbox.drover(&["pools"]).await.unwrap().status.code(), Some(2), "no pools yet");
    // New pools need no agreement.
    has(&files.run("apply", POOLS, &[]).await, 0, &["linux: added", "in force within a minute"]);
    has(&files.run("diff", POOLS, &[]).await, 0, &["no differences: 2 pools in force"]);
    let more = POOLS.replace("max = 100", "max = 150");
    has(
        &files.run("diff", &more, &[]).await,
        1,
        &["linux: changed\n  - max = 100\n  + max = 150\n", "large: unchanged"],
    );
    has(&files.run("apply", &more, &[]).await, 0, &["  + max = 150", "in force"]);

    let less = POOLS.replace("max = 100", "max = 7");
    let asked = files.run("apply", &less, &[]).await;
    has(&asked, 1, &["linux: max falls from 150 to 7", "nothing was applied", "no terminal", "pools.toml --yes"]);
    let asked: Value = serde_json::from_str(&files.run("apply", &less, &["--json"]).await.1).unwrap();
    let says = asked["says"].as_str().unwrap();
    assert!(says.contains("no terminal") && says.contains(" -> drover pools apply "), "{asked}");
    let relabelled = files.run("apply", &more.replace("\"linux\"]", "\"linux-x64\"]"), &[]).await;
    has(&relabelled, 1, &["linux loses the label linux: jobs of this pool", "nothing was applied"]);
    let shorter = files.run("apply", &more.replace("max = 150", "max = 150\nmax_life = \"2h\""), &[]).await;
    has(
        &shorter,
        1,
        &["linux: max_life falls from 12h to 2h: machines that are older end at once", "nothing was applied"],
    );
    let large = POOLS.find("# runs-on: [drover-large]").unwrap();
    let removed = files.run("apply", &POOLS[..large].replace("max = 100", "max = 150"), &[]).await;
    has(&removed, 1, &["large is removed", "nothing was applied"]);
    assert_eq!(files.in_force().await.as_array().unwrap().len(), 2, "both pools are in force");
    has(&files.run("apply", &less, &["--dry-run"]).await, 0, &["max = 7", "nothing was applied"]);
    has(&files.run("apply", &less, &["--yes"]).await, 0, &["in force"]);
    let (code, text) = files.run("apply", &POOLS[..large].replace("max = 100", "max = 7"), &["--yes", "--json"]).await;
    let applied: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &applied["applied"], &applied["changes"]["large"]), (0, &json!(true), &json!("removed")));
}

const SCHEDULE: &str = "[[pool.schedule]]\ndays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]\nfrom = \"00:00\"\n\
     to = \"24:00\"\ntime_zone = \"utc\"\nwarm = 5\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_are_shown_and_fewer_warm_machines_than_before_need_an_agreement() {
    let files = Files::new().await;
    let always = format!("{POOLS}{SCHEDULE}");
    has(&files.run("apply", &always, &[]).await, 0, &["in force"]);
    let pools = said(&files.sandbox.drover(&["pools"]).await.unwrap());
    has(&pools, 0, &["0/5 until 24:00 UTC"]);
    let shown = files.sandbox.drover(&["pools", "--json"]).await.unwrap();
    let rows: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let large = rows.as_array().unwrap().iter().find(|row| row["pool"] == "large").unwrap();
    let schedule = &large["schedule"];
    assert_eq!(
        (&large["warm_wanted"], &schedule["until_local"], &schedule["time_zone"]),
        (&json!(5), &json!("24:00"), &json!("UTC"))
    );
    assert!(schedule["until"].as_str().unwrap().ends_with("T00:00:00Z"), "{schedule}");
    let stored = files.in_force().await;
    let large = stored.as_array().unwrap().iter().find(|pool| pool["name"] == "large").unwrap();
    assert_eq!(large["schedule"][0]["time_zone"], "UTC", "{large}");

    // What is shown is a pool file.
    let (_, shown) = said(&files.sandbox.drover(&["pools", "show"]).await.unwrap());
    has(&files.run("check", &shown, &[]).await, 0, &["2 pools, no errors"]);
    has(&files.run("diff", &shown, &[]).await, 0, &["no differences"]);

    let less = files.run("diff", &always.replace("warm = 5", "warm = 3"), &[]).await;
    let days = "schedule mon tue wed thu fri sat sun 00:00-24:00 UTC: warm";
    has(
        &less,
        1,
        &[&format!("  - {days} = 5\n  + {days} = 3\n"), "large: warm falls from 5 to 3 on ", " UTC, by a schedule"],
    );
    let removed = files.run("diff", POOLS, &[]).await;
    has(&removed, 1, &[&format!("  - {days} = 5\n"), "large: warm falls from 5 to 0 on "]);
    let (_, more) = files.run("diff", &always.replace("warm = 5", "warm = 6"), &[]).await;
    assert!(more.contains("large: changed") && !more.contains("falls"), "{more}");
    // The functions have not reported that they support the format.
    let refused = files.run("apply", &always.replace("warm = 5", "warm = 6"), &["--yes"]).await;
    has(&refused, 3, &["format 4"]);
}

/// On a terminal, which the program `script` provides, the operator is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_the_operator_is_asked() {
    let files = Files::new().await;
    has(&files.run("apply", POOLS, &[]).await, 0, &["in force"]);
    let path = files.path("pools.toml");
    std::fs::write(&path, POOLS.replace("max = 100", "max = 7")).unwrap();
    let shell = files.sandbox.operators_shell().unwrap();
    for (answer, max) in [("n", 100), ("y", 7)] {
        let command = format!(". {} && drover pools apply {path}", shell.display());
        let typed = format!("printf '{answer}\\n' | script --quiet --return --command \"{command}\" /dev/null");
        let run = tokio::process::Command::new("sh").args(["-c", &typed]).output().await.unwrap();
        let text = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(text.contains("linux: max falls from 100 to 7") && text.contains("Apply? [y/N]"), "{text}");
        let pools = files.in_force().await;
        let linux = pools.as_array().unwrap().iter().find(|pool| pool["name"] == "linux").unwrap();
        assert_eq!(linux["max"], max, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_survives_an_apply_and_the_output_says_so() {
    let files = Files::new().await;
    has(&files.run("apply", POOLS, &[]).await, 0, &["in force"]);
    has(&said(&files.sandbox.drover(&["drain", "linux"]).await.unwrap()), 0, &["takes no new jobs"]);
    has(&files.run("diff", POOLS, &[]).await, 0, &["no differences"]);
    let again = files.run("apply", &POOLS.replace("max = 100", "max = 200"), &[]).await;
    has(&again, 0, &["linux: changed, still draining -> drover drain linux --undo", "in force"]);
    has(&said(&files.sandbox.drover(&["pools"]).await.unwrap()), 0, &["draining"]);
    // A pool that returns to the file takes jobs again.
    let large = POOLS.find("# runs-on: [drover-large]").unwrap();
    has(&files.run("apply", &POOLS[..large].replace("linux", "other"), &["--yes"]).await, 0, &["linux: removed"]);
    // A scaler that still knows the old file may use the pool for a minute.
    let kept = files.config().await;
    assert!(kept.is_removed(&"linux".parse().unwrap()) && kept.pools.iter().any(|it| it.draining && it.max == 200));
    let drover = async |arguments: &[&str]| said(&files.sandbox.drover(arguments).await.unwrap());
    has(&drover(&["drain", "linux", "--undo"]).await, 2, &["linux is no longer in the pool file", "pools apply FILE"]);
    let (code, shown) = drover(&["pools", "show"]).await;
    assert!(code == 0 && shown.contains("# linux was removed") && !shown.contains("name = \"linux\""), "{shown}");
    has(&files.run("apply", POOLS, &["--yes"]).await, 0, &["linux: added"]);
    let pools = files.in_force().await;
    let drains = |pool: &&Value| pool["draining"] == true;
    let drained: Vec<&Value> = pools.as_array().unwrap().iter().filter(drains).map(|pool| &pool["name"]).collect();
    assert_eq!(drained, ["other"], "which the file does not have any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_pool_is_dropped_once_neither_ec2_nor_github_shows_anything_of_it() {
    let files = Files::new().await;
    has(&files.run("apply", POOLS, &[]).await, 0, &["in force"]);
    let without = &POOLS[..POOLS.find("# runs-on: [drover-large]").unwrap()];
    has(&files.run("apply", without, &["--yes"]).await, 0, &["large: removed"]);
    let is_in_force = async || files.config().await.pools.iter().any(|pool| pool.name.as_str() == "large");
    // Since then, a scaler may have used the pool, which it still knew.
    let later = async || {
        let mut config = files.config().await;
        config.applied_at -= SignedDuration::from_mins(5);
        files.sandbox.table().await.commit(&Transaction::new().put(config)).await.unwrap();
        has(&files.run("apply", without, &[]).await, 0, &["in force"]);
    };
    let organization = world::github::Scope::organization("octo-org");
    let name = "drover_sandbox_large_abcdef_7_0_1";
    let runner = files
        .sandbox
        .world
        .act(|state, now| state.github.add_foreign_runner(organization.clone(), name, &["drover-large"], now));
    later().await;
    assert!(is_in_force().await, "GitHub has a runner of it");
    files.sandbox.world.act(|state, now| {
        let installation = state.github.find_owner("octo-org").and_then(|owner| owner.installation).unwrap();
        state.github.delete_runner(installation, &organization, runner, now).unwrap();
    });
    later().await;
    assert!(!is_in_force().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_of_a_pool_cannot_change() {
    let files = Files::new().await;
    has(&files.run("apply", POOLS, &[]).await, 0, &["in force"]);
    let other = POOLS.replace("owner = \"octo-org\"", "owner = \"octo-org/widgets\"");
    let refused = files.run("apply", &other, &["--yes"]).await;
    has(&refused, 1, &["owner: pool linux is in force for octo-org", "octo-org/widgets another name", "pool large"]);
    has(&files.run("diff", &other, &[]).await, 1, &["owner: pool linux is in force for octo-org"]);
    let renamed = other.replace("\"linux\"\nlabels", "\"linux-2\"\nlabels").replace("\"large\"", "\"large-2\"");
    has(&files.run("apply", &renamed, &["--yes"]).await, 0, &["linux-2: added", "linux: removed"]);
    // It still has the former owner until it is dropped.
    has(&files.run("apply", &other, &["--yes"]).await, 1, &["owner: pool linux is in force for octo-org"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_pool_keeps_the_tables_format_and_the_output_says_until_when() {
    let files = Files::new().await;
    has(&files.run("apply", &format!("{POOLS}\n{SCHEDULE}"), &[]).await, 0, &["in force"]);
    let large = POOLS.find("# runs-on: [drover-large]").unwrap();
    let removed = files.run("apply", &POOLS[..large], &["--yes"]).await;
    has(
        &removed,
        0,
        &["large: removed", "keep the table in format 4 -> once they are empty, and at least two minutes"],
    );
    assert_eq!(files.config().await.format, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn launches_that_ec2_would_refuse_are_found_before_they_are_applied() {
    let files = Files::new().await;
    has(&files.run("apply", POOLS, &[]).await, 0, &["in force"]);
    let arm = POOLS.replace("\"m7i.large\", \"m7a.large\"", "\"m7g.large\", \"m6g.large\"");
    let refused = files.run("apply", &arm, &["--yes"]).await;
    has(&refused, 1, &["pools.toml:19:1: instance_types: m7g.large is arm64, but image", "is x64"]);
    // A dry run is refused with EC2's words. Launch options that are in force are not tried again.
    let subnet = POOLS.replace("max = 100", "max = 100\nsubnets = [\"subnet-nowhere\"]");
    let refused = files.run("apply", &subnet, &["--yes"]).await;
    has(&refused, 1, &["pools.toml:19:1: EC2 refuses", "subnet-nowhere", "InvalidSubnetID.NotFound"]);
    let one_of_two = POOLS.replace("max = 100", "max = 100\nsubnets = [\"subnet-a\", \"subnet-nowhere\"]");
    let refused = files.run("apply", &one_of_two, &["--yes"]).await;
    has(&refused, 1, &["InvalidSubnetID.NotFound"]);
    let more = POOLS
        .replace("\"m7i.4xlarge\"", "\"m7i.4xlarge\", \"m7i.8xlarge\"")
        .replace("\"m7i.large\"", "\"m7i.large\", \"m6i.large\"");
    let calls = |sandbox: &Sandbox| {
        sandbox
            .calls
            .counts()
            .into_iter()
            .filter(|(call, _)| call.1.contains("RunInstances"))
            .map(|(_, n)| n)
            .sum::<u64>()
    };
    let before = calls(&files.sandbox);
    has(&files.run("apply", &more, &["--yes"]).await, 0, &["in force"]);
    let tried = calls(&files.sandbox);
    assert!(tried - before >= 6, "a new type in two subnets, and one in two subnets and two markets");
    has(&files.run("apply", &more, &["--yes"]).await, 0, &["unchanged"]);
    assert_eq!(calls(&files.sandbox), tried, "nothing new is tried");
}

/// The account's calls are shared with the scaler and with an apply a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_dry_run_is_repeated() {
    let files = Files::new().await;
    has(&files.run("apply", POOLS, &[]).await, 0, &["in force"]);
    let throttled = Refusal { matches: LaunchMatch::default(), code: Code::RequestLimitExceeded, when: When::Next(4) };
    files.sandbox.world.act(|state, _| state.ec2.faults.refusals.push(throttled));
    let subnet = POOLS.replace("max = 100", "max = 100\nsubnets = [\"subnet-nowhere\"]");
    let refused = files.run("apply", &subnet, &["--yes"]).await;
    has(&refused, 1, &["InvalidSubnetID.NotFound"]);
    assert!(!refused.1.contains("was not tried"), "{}", refused.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_init_and_show_write_files_that_check_accepts() {
    let files = Files::new().await;
    let example = files.path("example.toml");
    has(
        &said(&files.sandbox.drover(&["pools", "init", "--file", &example]).await.unwrap()),
        0,
        &["drover pools check"],
    );
    has(&said(&files.sandbox.drover(&["pools", "check", &example]).await.unwrap()), 0, &["2 pools, no errors"]);
    has(&said(&files.sandbox.drover(&["pools", "init", "--file", &example]).await.unwrap()), 2, &["exists"]);
    let acme = files.path("acme.toml");
    has(&said(&files.sandbox.drover(&["pools", "init", "acme", "--file", &acme]).await.unwrap()), 0, &["acme.toml"]);
    assert!(std::fs::read_to_string(&acme).unwrap().contains("owner = \"acme\""));

    has(&files.run("apply", &with_short_timings(POOLS).unwrap(), &[]).await, 0, &["in force"]);
    let (code, shown) = said(&files.sandbox.drover(&["pools", "show"]).await.unwrap());
    assert_eq!(code, 0, "{shown}");
    has(&files.run("check", &shown, &[]).await, 0, &["2 pools, no errors"]);
    has(&files.run("diff", &shown, &[]).await, 0, &["no differences"]);
    has(&said(&files.sandbox.drover(&["pools", "show", "large"]).await.unwrap()), 0, &["name = \"large\""]);
    has(&said(&files.sandbox.drover(&["pools", "show", "none"]).await.unwrap()), 2, &["there is no pool \"none\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_pool_launches_nothing_and_each_command_says_why() {
    let sandbox = by_hand().await;
    let pools = one_pool("notice_after = \"0s\"\n");
    sandbox.apply(&pools).await.unwrap();
    has(&said(&sandbox.drover(&["pause", "linux"]).await.unwrap()), 0, &["launches nothing", "drover resume linux"]);
    has(&said(&sandbox.drover(&["pause", "nowhere"]).await.unwrap()), 2, &["drover pools lists the pools"]);
    has(&said(&sandbox.drover(&["pause", "linux"]).await.unwrap()), 0, &["linux is paused already; no job waits"]);
    // A pool file does not end the pause.
    sandbox.apply(&pools).await.unwrap();
    has(&said(&sandbox.drover(&["pools"]).await.unwrap()), 0, &["paused"]);
    has(&said(&sandbox.drover(&["status"]).await.unwrap()), 0, &["paused"]);

    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(600));
    let titled = |state: &State| {
        let titles = state.github.check_runs().filter_map(|run| Some(run.now.output.as_ref()?.title.clone()));
        titles.into_iter().any(|title| title.contains("the pool is paused")).then_some(())
    };
    let notified = async || {
        sandbox.scale().await?;
        Ok(sandbox.world.look(titled))
    };
    sandbox.sweep_until("the check run", notified).await.unwrap();
    let explained = said(&sandbox.drover(&["explain", &job.to_string()]).await.unwrap());
    has(&explained, 0, &["Waiting: the pool is paused", "Next: nothing until drover resume linux"]);
    let doctor = said(&sandbox.drover(&["doctor"]).await.unwrap());
    has(&doctor, 0, &["paused pools: pool linux is paused, and 1 job waits -> drover resume linux\n"]);
    assert!(!doctor.1.contains("drover forget"), "{}", doctor.1);
    sandbox.world.look(|state| assert_eq!(state.ec2.launches(), 0));

    has(&said(&sandbox.drover(&["resume", "linux"]).await.unwrap()), 0, &["launches again"]);
    let explained = said(&sandbox.drover(&["explain", &job.to_string()]).await.unwrap());
    has(&explained, 0, &["a machine will be launched shortly"]);
    has(&said(&sandbox.drover(&["resume", "linux"]).await.unwrap()), 0, &["linux was not paused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_paused_and_draining_shows_both_and_each_command_names_the_other() {
    let sandbox = by_hand().await;
    sandbox.apply(&one_pool("")).await.unwrap();
    let drover = async |arguments: &[&str]| said(&sandbox.drover(arguments).await.unwrap());
    has(&drover(&["drain", "linux", "--undo"]).await, 0, &["linux was not draining"]);
    has(&drover(&["pause", "linux"]).await, 0, &["no job waits, and it has no machines -> drover resume linux"]);
    let paused = "linux is also paused: it launches nothing -> drover resume linux";
    has(&drover(&["drain", "linux"]).await, 0, &["nothing is left to finish -> ", paused]);
    has(&drover(&["drain", "linux"]).await, 0, &["linux is draining already", paused]);
    has(&drover(&["pools"]).await, 0, &["draining, paused"]);
    has(&drover(&["status"]).await, 0, &["draining, paused"]);
    let rows: Value = serde_json::from_str(&drover(&["pools", "--json"]).await.1).unwrap();
    assert_eq!((&rows[0]["state"], &rows[0]["paused"]), (&json!("draining"), &json!(true)));
    let draining = "linux is still draining: it takes no new jobs -> drover drain linux --undo";
    has(&drover(&["resume", "linux"]).await, 0, &["launches again", draining]);
    has(&drover(&["pause", "linux"]).await, 0, &["linux is also draining: it takes no new jobs"]);
    let paused = "linux is still paused: it launches nothing -> drover resume linux";
    has(&drover(&["drain", "linux", "--undo"]).await, 0, &["takes jobs again", paused]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_whose_cause_of_failure_is_corrected_is_tried_again_when_an_operator_says_so() {
    let sandbox = by_hand().await;
    sandbox.apply(&one_pool("backoff_min = \"1h\"\nbackoff_max = \"2h\"\n")).await.unwrap();
    let refusal =
        Refusal { matches: LaunchMatch::default(), code: Code::UnauthorizedOperation, when: When::Chance(1.0) };
    sandbox.world.act(|state, _| state.ec2.faults.refusals.push(refusal));
    sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(600));
    let opened = async || {
        sandbox.scale().await?;
        let output = sandbox.drover(&["pools"]).await?;
        Ok(said(&output).1.contains("circuit open").then_some(()))
    };
    sandbox.sweep_until("the open circuit", opened).await.unwrap();
    sandbox.world.act(|state, _| state.ec2.faults.refusals.clear());
    sandbox.sweep().await.unwrap();
    sandbox.scale().await.unwrap();
    sandbox.world.look(|state| assert_eq!(state.ec2.launches(), 0, "the next probe is due in an hour"));

    has(&said(&sandbox.drover(&["resume", "linux"]).await.unwrap()), 0, &["is tried again", "next probe is due"]);
    sandbox.scale().await.unwrap();
    sandbox.world.look(|state| assert_eq!(state.ec2.launches(), 1));
}
