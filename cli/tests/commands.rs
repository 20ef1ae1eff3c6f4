//! Runs `drover` as a process and checks its output and exit codes.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::process::Output;
use std::time::Duration;

use domain::log::Transaction;
use domain::state::{Config, FORMAT, Item, Key};
use engine::ports::Store;
use sandbox::aws::EXPIRED_ACCESS_KEY;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{DEAD_LETTERS, Driven, FOREIGN_REPOSITORY, Options, QUEUE, Sandbox};
use sandbox::short_timings::with_short_timings;
use sandbox::state::State;
use serde_json::{Value, json};
use world::github::{DEFAULT_GROUP, Endpoint, Group};

const POOLS: &str = include_str!("../../pools.toml");

/// The example, with pools that serve one repository.
fn limited_pools() -> String {
    POOLS.replace("\nmax = ", "\nrepositories = [\"octo-org/widgets\"]\nmax = ")
}

async fn by_hand() -> Sandbox {
    Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap()
}

fn file(folder: &tempfile::TempDir, text: &str) -> String {
    let path = folder.path().join("pools.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_file_is_checked_without_an_account() {
    let (sandbox, folder) = (by_hand().await, tempfile::tempdir().unwrap());
    let calls = sandbox.calls.counts();
    let right = sandbox.drover(&["pools", "check", &file(&folder, POOLS)]).await.unwrap();
    assert_eq!((code(&right), text(&right).as_str()), (0, "2 pools, no errors\n"));
    let wrong =
        file(&folder, &POOLS.replace("max = 20", "maximum = 20").replace("\"linux\"\nlabels", "\"Linux\"\nlabels"));
    let wrong = sandbox.drover(&["pools", "check", &wrong, "--json"]).await.unwrap();
    assert_eq!(code(&wrong), 1);
    let errors: Vec<String> = serde_json::from_value(json_of(&wrong)["errors"].clone()).unwrap();
    assert_eq!(errors.len(), 3, "all errors at once: {errors:?}");
    for (error, part) in
        errors.iter().zip([":17:8: name: pool \"Linux\"", ":23:1: the pool has no max", ":28:1: unknown field maximum"])
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    let missing = sandbox.drover(&["pools", "check", "/nowhere.toml"]).await.unwrap();
    assert_eq!(code(&missing), 2, "{}", text(&missing));
    assert_eq!(code(&sandbox.drover(&["pools", "chekc"]).await.unwrap()), 2);
    assert_eq!(sandbox.calls.counts(), calls, "no call to AWS or GitHub");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lint_names_the_pool_of_each_job_of_a_workflow() {
    let (sandbox, folder) = (by_hand().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("ci.yml");
    let workflow = "on: push\njobs:\n  hosted: {runs-on: ubuntu-latest}\n  ours: {runs-on: [drover, linux]}\n  \
                    typo: {runs-on: [drover, Linxu]}\n  group: {runs-on: {group: big, labels: DROVER}}\n  \
                    called: {uses: ./.github/workflows/other.yml}\n  late: {runs-on: '${{ inputs.runner }}'}\n  \
                    some:\n    strategy:\n      matrix:\n        on: [linux, arm]\n        \
                    include: [{on: ubuntu-24.04}]\n    runs-on: [drover, '${{ matrix.on }}']\n  \
                    whole:\n    strategy: {matrix: {on: [[drover, linux], windows-2025]}}\n    runs-on: ${{ matrix.on }}\n  \
                    but:\n    strategy: {matrix: {on: [linux, arm], of: [a, b], exclude: [{on: arm}], include: [{of: a, as: gpu}]}}\n    \
                    runs-on: [drover, '${{ matrix.on }}']\n  \
                    part:\n    strategy: {matrix: {on: [linux]}}\n    runs-on: 'drover-${{ matrix.on }}'\n";
    std::fs::write(&path, workflow).unwrap();
    let (workflow, pools) = (path.to_str().unwrap(), file(&folder, POOLS));
    let offline = ["lint", workflow, "--repository", "octo-org/widgets", "--pools", &pools];
    let calls = sandbox.calls.counts();
    let linted = sandbox.drover(&offline).await.unwrap();
    let said = text(&linted).replace(workflow, "ci.yml");
    let expected = "ci.yml:3:12: hosted [ubuntu-latest]: GitHub-hosted runner\n\
                    ci.yml:4:10: ours [drover, linux]: pool linux\n\
                    ci.yml:5:28: error: typo [drover, Linxu]: no pool has the label Linxu -> did you mean linux?\n\
                    ci.yml:6:11: group [DROVER]: pool linux\n\
                    ci.yml:7:12: unknown: called: calls ./.github/workflows/other.yml, which is not beside this file in \
                    .github/workflows\n\
                    ci.yml:8:10: unknown: late [${{ inputs.runner }}]: the expression may give nothing\n\
                    ci.yml:12:21: error: some [drover, arm]: no pool has the label arm\n\
                    ci.yml:13:24: error: some [drover, ubuntu-24.04]: no pool has the label ubuntu-24.04\n\
                    ci.yml:14:5: some [drover, linux]: pool linux\n\
                    ci.yml:17:5: whole [drover, linux]: pool linux\n\
                    ci.yml:17:5: whole [windows-2025]: GitHub-hosted runner\n\
                    ci.yml:20:5: but [drover, linux]: pool linux\n\
                    ci.yml:23:5: error: part [drover-linux]: no pool has the label drover-linux -> did you mean drover-large?\n\
                    10 jobs in 1 file: 5 for pools, 2 GitHub-hosted, 4 errors, 2 unknowns\n";
    assert_eq!((code(&linted), said.as_str()), (1, expected));
    assert_eq!(sandbox.calls.counts(), calls, "no call to AWS or GitHub");

    sandbox.apply(&with_short_timings(&limited_pools()).unwrap()).await.unwrap();
    std::fs::write(&path, "jobs: {ours: {runs-on: [drover, linux]}}\n").unwrap();
    let online = async |more: &[&str]| {
        let linted = sandbox.drover(&[&["lint", workflow, "--repository"], more].concat()).await.unwrap();
        (code(&linted), text(&linted))
    };
    assert_eq!(online(&["octo-org/widgets"]).await.0, 0);
    let (exit, said) = online(&["octo-org/widgets", "--public"]).await;
    assert!(exit == 1 && said.contains("does not serve public repositories"), "{said}");
    let (exit, said) = online(&["octo-org/not-served"]).await;
    assert!(exit == 1 && said.contains("do not serve octo-org/not-served"), "{said}");
    std::fs::write(&path, "jobs: [").unwrap();
    assert_eq!(online(&["octo-org/widgets"]).await.0, 1);
    std::fs::write(&path, "jobs: {late: {runs-on: '${{ vars.RUNNER }}'}}\n").unwrap();
    let values = folder.path().join("vars");
    std::fs::write(&values, "runner=linux\n").unwrap();
    let vars = values.to_str().unwrap();
    assert_eq!(online(&["octo-org/widgets", "--strict"]).await.0, 1);
    assert_eq!(online(&["octo-org/widgets"]).await.0, 0);
    assert_eq!(online(&["octo-org/widgets", "--strict", "--vars", vars]).await.0, 0);
    let (exit, said) = online(&["octo-org/widgets", "--vars", vars, "--var", "RUNNER=big", "--format", "github"]).await;
    assert!(exit == 1 && said.starts_with("::error file="), "{said}");
    assert_eq!(online(&["octo-org/widgets", "--var", "RUNNER=big", "--hosted", "b*"]).await.0, 0);
    assert_eq!(online(&["octo-org/widgets", "--var", "RUNNER"]).await.0, 2);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(online(&["octo-org/widgets"]).await.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_are_pinned_kept_and_drained() {
    let (sandbox, folder) = (by_hand().await, tempfile::tempdir().unwrap());
    let all = file(&folder, &with_short_timings(POOLS).unwrap());
    let first = sandbox.drover(&["pools", "apply", &all, "--json"]).await.unwrap();
    assert_eq!(code(&first), 0, "{}", text(&first));
    let first = json_of(&first);
    assert_eq!(first["changes"], json!({ "large": "added", "linux": "added" }));
    let linux = first["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == "linux").unwrap();
    assert_eq!(linux["launch_template"]["version"], 1, "the default version, as a number");
    assert_eq!(linux["subnets"], json!(["subnet-a", "subnet-b"]), "those tagged with the stack");

    let again = json_of(&sandbox.drover(&["pools", "apply", &all, "--json"]).await.unwrap());
    assert_eq!(again["changes"], json!({ "large": "unchanged", "linux": "unchanged" }));

    // A pool with a job drains; an empty pool is removed.
    sandbox.queue_job("octo-org/widgets", &["drover", "linux"], Duration::from_secs(60));
    let arrived = |state: &State| (!state.sqs.bodies(QUEUE).is_empty()).then_some(());
    sandbox.world.until("the delivery on the queue", PATIENCE, arrived).await.unwrap();
    sandbox.scale().await.unwrap();
    let other = POOLS.replace("\"linux\"\nlabels", "\"other\"\nlabels").replace("\"large\"\nlabels", "\"big\"\nlabels");
    let other = file(&folder, &with_short_timings(&other.replace("[\"drover\", \"linux\"]", "[\"other\"]")).unwrap());
    let changed = json_of(&sandbox.drover(&["pools", "apply", &other, "--json", "--yes"]).await.unwrap());
    assert_eq!(
        changed["changes"],
        json!({ "big": "added", "other": "added", "linux": "draining", "large": "removed" })
    );

    let nowhere = file(&folder, &POOLS.replace("drover-runner", "no-such-template"));
    let refused = sandbox.drover(&["pools", "apply", &nowhere]).await.unwrap();
    assert_eq!(code(&refused), 2);
    for part in ["launch template \"no-such-template\": ", " -> correct the name"] {
        assert!(text(&refused).contains(part), "{}", text(&refused));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_listed_and_explained_and_its_name_cannot_control_the_terminal() {
    let sandbox = by_hand().await;
    let nothing = sandbox.drover(&["ps"]).await.unwrap();
    assert_eq!(code(&nothing), 2);
    assert!(text(&nothing).contains("drover pools apply"), "{}", text(&nothing));
    sandbox.apply(&with_short_timings(POOLS).unwrap()).await.unwrap();
    let job = sandbox.queue_job("octo-org/widgets", &["drover", "linux"], Duration::from_secs(60));
    let arrived =
        |state: &State| state.sqs.bodies(QUEUE).first().map(|body| serde_json::from_str::<Value>(body).unwrap());
    let mut message = sandbox.world.until("the delivery", PATIENCE, arrived).await.unwrap();
    sandbox.world.act(|state, now| {
        for received in state.sqs.receive(QUEUE, 10, now).unwrap() {
            state.sqs.delete(QUEUE, &received.receipt).unwrap();
        }
        message["job"]["name"] = json!("\u{1b}[2J\u{9b}31m$(reboot) \u{202e}build");
        state.sqs.send(QUEUE, &message.to_string(), Duration::ZERO, now).unwrap();
    });
    sandbox.scale().await.unwrap();

    let explained = sandbox.drover(&["explain", &job.to_string()]).await.unwrap();
    assert_eq!(code(&explained), 0);
    let said = text(&explained);
    assert!(said.contains("[2J31m$(reboot) build") && said.contains("a machine is on its way"), "{said}");
    assert!(!said.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{said:?}");
    let page = format!("https://github.com/octo-org/widgets/actions/runs/1/job/{job}?pr=7#step:3:1");
    let as_json = sandbox.drover(&["--json", "explain", &page]).await.unwrap();
    assert!(!text(&as_json).contains(['\u{1b}', '\u{9b}', '\u{202e}']));
    assert_eq!((json_of(&as_json)["demand"].as_u64(), json_of(&as_json)["supply"].as_u64()), (Some(1), Some(1)));

    let listed = json_of(&sandbox.drover(&["ps", "--json", "--pool", "linux"]).await.unwrap());
    let states: Vec<&str> = listed.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["queued", "starting"], "{listed}");
    assert_eq!(code(&sandbox.drover(&["ps", "--pool", "nowhere"]).await.unwrap()), 2);
    assert_eq!(code(&sandbox.drover(&["explain", "77"]).await.unwrap()), 1, "an unknown job");
    assert_eq!(code(&sandbox.drover(&["explain", "not-a-job"]).await.unwrap()), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_shown_and_sent_again() {
    let sandbox = by_hand().await;
    let none = sandbox.drover(&["dead-letters", "list"]).await.unwrap();
    assert_eq!((code(&none), text(&none).as_str()), (0, "no dead letters\n"));
    let poison = "\u{1b}]0;owned\u{7}not JSON \u{202e}gnp";
    let newer = json!({ "v": 99, "kind": "nudge", "pool": "linux" }).to_string();
    sandbox.world.act(|state, now| {
        state.sqs.send(DEAD_LETTERS, poison, Duration::ZERO, now).unwrap();
        state.sqs.send(DEAD_LETTERS, &newer, Duration::ZERO, now).unwrap();
        for number in 0..23 {
            let nudge = json!({ "v": 1, "kind": "nudge", "pool": format!("pool-{number}") });
            state.sqs.send(DEAD_LETTERS, &nudge.to_string(), Duration::ZERO, now).unwrap();
        }
    });
    // Twice: listing leaves the messages in the queue.
    for _ in 0..2 {
        let listed = json_of(&sandbox.drover(&["dead-letters", "list", "--json"]).await.unwrap());
        assert_eq!(listed.as_array().unwrap().len(), 25, "more than SQS returns at a time");
    }
    let shown = text(&sandbox.drover(&["dead-letters", "list"]).await.unwrap());
    assert!(shown.contains("version 99 is newer") && shown.contains("nudge for pool pool-22"), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");

    let listed = json_of(&sandbox.drover(&["dead-letters", "list", "--json"]).await.unwrap());
    let id_of = |part: &str| {
        let letter = listed.as_array().unwrap().iter().find(|it| it["what"].as_str().unwrap().contains(part));
        letter.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (bad, good) = (id_of("not a Drover message"), id_of("pool-7"));
    let whole = sandbox.drover(&["dead-letters", "show", &bad]).await.unwrap();
    assert_eq!(code(&whole), 0);
    assert!(text(&whole).contains("]0;ownednot JSON gnp") && !text(&whole).contains('\u{1b}'), "{whole:?}");
    let whole = json_of(&sandbox.drover(&["dead-letters", "show", &good, "--json"]).await.unwrap());
    assert_eq!(whole["body"]["pool"], "pool-7");
    assert_eq!(code(&sandbox.drover(&["dead-letters", "show", "nowhere"]).await.unwrap()), 1);

    let bodies = |queue: &str| sandbox.world.look(|state| state.sqs.bodies(queue).len());
    let sent = sandbox.drover(&["dead-letters", "redrive", &good, "nowhere"]).await.unwrap();
    assert_eq!(code(&sent), 1, "one of the messages does not exist: {}", text(&sent));
    assert_eq!((bodies(DEAD_LETTERS), bodies(QUEUE)), (24, 1));
    let sent = json_of(&sandbox.drover(&["dead-letters", "redrive", "--all", "--json"]).await.unwrap());
    assert_eq!(sent["redriven"].as_array().unwrap().len(), 24);
    assert_eq!((bodies(DEAD_LETTERS), bodies(QUEUE)), (0, 25));
    assert_eq!(code(&sandbox.drover(&["dead-letters", "redrive"]).await.unwrap()), 2, "neither ids nor --all");
    sandbox.world.act(|state, _| state.sqs.delete_queue(DEAD_LETTERS));
    let gone = sandbox.drover(&["dead-letters", "list"]).await.unwrap();
    assert_eq!(code(&gone), 3, "{}", text(&gone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_group_that_admits_more_than_its_pool_serves_is_refused() {
    let (sandbox, folder) = (by_hand().await, tempfile::tempdir().unwrap());
    let apply = async |pools: &str| sandbox.drover(&["pools", "apply", &file(&folder, pools), "--yes"]).await.unwrap();
    let owner = sandbox.world.look(|state| state.github.find_owner("octo-org").unwrap().id);
    let group = |repositories: &[&str], allows_public: bool| {
        sandbox.world.act(|state, _| {
            let id = |name: &&str| state.github.find_repository("octo-org", name).unwrap().id;
            let some = (!repositories.is_empty()).then(|| repositories.iter().map(id).collect());
            let group = Group { id: DEFAULT_GROUP, name: "Default".to_owned(), repositories: some, allows_public };
            state.github.set_group(owner, group);
        });
    };
    let refused = async |pools: &str, parts: &[&str]| {
        let refused = apply(pools).await;
        assert_eq!(code(&refused), 1, "{}", text(&refused));
        assert!(parts.iter().all(|part| text(&refused).contains(part)), "{}", text(&refused));
    };
    let warned = async |pools: &str, parts: &[&str]| {
        let warned = apply(pools).await;
        assert_eq!(code(&warned), 0, "{}", text(&warned));
        assert!(parts.iter().all(|part| text(&warned).contains(part)), "{}", text(&warned));
    };
    // The example works in a new organisation, whose default group admits all private repositories.
    group(&[], false);
    let example = apply(POOLS).await;
    assert_eq!((code(&example), text(&example).contains("runner_group")), (0, false), "{}", text(&example));

    let limited = limited_pools();
    group(&["widgets"], false);
    let fits = apply(&limited).await;
    assert_eq!((code(&fits), text(&fits).contains("runner_group")), (0, false), "{}", text(&fits));

    group(&[], false);
    refused(&limited, &["pool \"linux\": runner_group 1 (Default) admits more than the pool's repositories"]).await;
    // A pool without a list of repositories may use any group.
    let all = POOLS;
    assert_eq!(code(&apply(all).await), 0);
    group(&["widgets"], true);
    refused(all, &["allows public repositories, and the pool does not (allow_public)"]).await;
    assert_eq!(
        code(
            &apply(
                &all.replace("max = 100", "max = 100\nallow_public = true")
                    .replace("max = 20", "max = 20\nallow_public = true")
            )
            .await
        ),
        0
    );
    let missing = limited.replace("max = 20", "max = 20\nrunner_group = 77");
    group(&["widgets"], false);
    refused(&missing, &["pool \"large\": runner_group 77 does not exist: octo-org has 1 (Default)"]).await;

    // Two pools with different repositories in one group: each admits the other's repository.
    let foreign = format!("octo-org/{FOREIGN_REPOSITORY}");
    let two = limited.replacen("[\"octo-org/widgets\"]", &format!("[\"{foreign}\"]"), 1);
    group(&["widgets", FOREIGN_REPOSITORY], false);
    refused(&two, &["pool \"linux\"", "admits octo-org/widgets", "pool \"large\"", &format!("admits {foreign}")]).await;
    group(&["widgets"], false);
    refused(&two, &["pool \"linux\"", "admits octo-org/widgets", &format!("does not admit {foreign}")]).await;
    warned(&limited.replace("octo-org/widgets", &foreign), &[&format!("does not admit {foreign}")]).await;

    // GitHub sends webhooks about some repositories only, and every repository may use the group.
    let selects = |some: bool| sandbox.world.act(|state, _| state.github.select_repositories(owner, some));
    group(&[], false);
    selects(true);
    let sees = "app sees only some of octo-org";
    warned(all, &["admits every repository", sees, "/settings/installations/"]).await;
    group(&["widgets"], false);
    assert!(!text(&apply(all).await).contains(sees), "no other repository can use the group");
    group(&[], false);
    selects(false);
    assert!(!text(&apply(all).await).contains(sees));
    group(&["widgets"], false);

    // A failed call to GitHub is only a warning.
    for status in [403, 404, 500] {
        sandbox.world.act(|state, _| state.github.faults.broken.push_back((Endpoint::ListGroups, status)));
        warned(&limited, &["warning: ", "the runner groups of octo-org were not checked", &status.to_string()]).await;
    }
    // Runners registered with a repository serve only that repository, whatever their group.
    let own = limited.replace("owner = \"octo-org\"", "owner = \"octo-org/widgets\"");
    let own = apply(&own.replace("name = \"l", "name = \"own-l")).await;
    assert_eq!((code(&own), text(&own).contains("runner groups")), (0, false), "{}", text(&own));
    sandbox.world.act(|state, _| state.github.uninstall(owner));
    refused(&limited, &["owner: octo-org has not installed the app", "/installations/new"]).await;
}

#[test]
fn a_reader_that_stops_reading_is_not_an_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut drover = std::process::Command::new(env!("CARGO_BIN_EXE_drover"));
    let ended = drover.env_clear().arg("man").stdout(writer).stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!((code(&ended), text(&ended).as_str()), (141, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_one_line_with_a_remedy_and_has_its_own_exit_code() {
    let sandbox = by_hand().await;
    sandbox.apply(&with_short_timings(&limited_pools()).unwrap()).await.unwrap();
    let said = async |arguments: &[&str], variables: &[(&str, &str)], exit: i32, parts: &[&str]| {
        let output = sandbox.drover_with(arguments, variables).await.unwrap();
        let said = text(&output);
        assert_eq!(code(&output), exit, "{arguments:?} {variables:?}: {said}");
        assert!(said.trim_end().lines().count() == 1 && said.len() < 320, "one line: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
    };
    let ps = ["ps"];
    let log_in = "-> log in again";
    said(&ps, &[("AWS_ACCESS_KEY_ID", EXPIRED_ACCESS_KEY)], 3, &["ExpiredTokenException", log_in]).await;
    said(&ps, &[("AWS_ACCESS_KEY_ID", "AKIANOBODY")], 3, &["UnrecognizedClientException", log_in]).await;
    said(&ps, &[("AWS_ACCESS_KEY_ID", "")], 3, &[log_in]).await;
    said(&ps, &[("AWS_REGION", "us-east-1")], 3, &["not found", "-> check that AWS_REGION is the stack's region"])
        .await;
    said(&ps, &[("AWS_REGION", "")], 2, &["-> export AWS_REGION"]).await;
    said(&ps, &[("DROVER_TABLE", "no-such-stack")], 3, &["not found", "that the stack exists"]).await;
    said(
        &ps,
        &[("AWS_ACCESS_KEY_ID", "AKIAINGEST")],
        3,
        &["may not call GetItem", "-> use a role with this permission"],
    )
    .await;
    said(&ps, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")], 3, &["-> check the network"]).await;
    let letters = ["dead-letters", "list"];
    said(
        &letters,
        &[("AWS_REGION", "us-east-1")],
        3,
        &["QueueDoesNotExist", "-> check that AWS_REGION is the stack's region"],
    )
    .await;
    for name in ["DROVER_TABLE", "DROVER_BOOT_TABLE"] {
        said(&ps, &[(name, ""), ("DROVER_STACK", "nowhere")], 2, &["there is no stack nowhere", "--stack"]).await;
    }
    said(
        &letters,
        &[("DROVER_QUEUE_URL", ""), ("DROVER_STACK", "nowhere")],
        2,
        &["there is no stack nowhere", "-> name it with --stack"],
    )
    .await;
    let foreign = "https://github.com/octo-org/not-served/actions/runs/1/job/2";
    said(&["explain", foreign], &[], 1, &["no pool serves octo-org/not-served", "->"]).await;
    let run = "https://github.com/octo-org/widgets/actions/runs/1";
    said(&["explain", run], &[], 1, &["no record of run 1", "->"]).await;
    let refused = sandbox.drover(&["forget", run]).await.unwrap();
    assert_eq!((code(&refused), text(&refused).contains("open the job")), (2, true), "{}", text(&refused));

    // A table that a newer version wrote is neither read nor written.
    let table = sandbox.table().await;
    let Some(Item::Config(config)) = table.get(&Key::Config).await.unwrap() else { panic!("pools were applied") };
    let newer = Config { format: FORMAT + 1, ..config };
    table.commit(&Transaction::new().put(newer)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let found = format!("is in format {}", FORMAT + 1);
    let install = [found.as_str(), "-> a newer drover wrote it: install"];
    said(&ps, &[], 3, &install).await;
    said(&["pools", "apply", &file(&folder, POOLS)], &[], 3, &install).await;
}
