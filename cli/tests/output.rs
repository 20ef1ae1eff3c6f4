//! The forms of the output: colours, tables, JSON, help, manual and completions.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use engine::ports::Clock;
use jiff::SignedDuration;
use platform::clock::SystemClock;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, Sandbox};
use sandbox::short_timings::one_pool;
use serde_json::Value;

/// `drover` without a stack.
fn alone(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut drover = std::process::Command::new(env!("CARGO_BIN_EXE_drover"));
    drover.env_clear().envs(variables.iter().copied()).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn colours_are_printed_only_on_request_where_there_is_no_terminal() {
    let failing = ["ps"];
    let colour = |arguments: &[&str], variables: &[(&str, &str)]| text(&alone(arguments, variables)).contains('\u{1b}');
    assert!(!colour(&failing, &[]));
    assert!(colour(&["ps", "--color", "always"], &[]));
    assert!(!colour(&["ps", "--color", "never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!colour(&failing, &[("NO_COLOR", "1")]));
    let json = alone(&["ps", "--color", "always", "--json"], &[]);
    assert!(serde_json::from_slice::<Value>(&json.stdout).unwrap()["error"].is_string());
}

#[test]
fn arguments_that_contradict_each_other_or_are_missing_are_refused_with_what_to_write() {
    for (arguments, part) in [
        (&["dead-letters", "redrive"][..], "--all"),
        (&["dead-letters", "delete"], "--all"),
        (&["simulate", "pools.toml"], "--history"),
        (&["lint", "ci.yml", "--repository", "o/r", "--format", "sarif", "--json"], "--format"),
        (&["lint", "ci.yml", "--repository", "o/r", "--format", "github", "-o", "jsonl"], "--format"),
        (&["cost", "--since", "90d"], "30 days"),
    ] {
        let refused = alone(arguments, &[]);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(text(&refused).contains(part) && text(&refused).contains(" -> "), "{arguments:?}: {}", text(&refused));
    }
    let help = text(&alone(&["ps", "--help"], &[]));
    let (own, global) = help.split_once("Global options:").unwrap();
    assert!(own.contains("--pool") && global.contains("--json") && !global.contains("--pool"), "{help}");
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_reader_that_stops_is_none() {
    let mut drover = std::process::Command::new(env!("CARGO_BIN_EXE_drover"));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said = drover.env_clear().args(["man"]).stdout(full).output().unwrap();
    assert_eq!(said.status.code(), Some(3));
    let line = text(&said);
    assert!(line.starts_with("drover: cannot write to standard output: ") && line.contains(" -> "), "{line}");
    let mut drover = std::process::Command::new(env!("CARGO_BIN_EXE_drover"));
    let mut drover = drover.env_clear().args(["man"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(drover.stdout.take());
    assert_eq!(drover.wait().unwrap().code(), Some(141));
}

/// The commands below a command, with its own words, as its help lists them.
fn commands_of(command: &[String]) -> Vec<Vec<String>> {
    let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = text(&alone(&arguments, &[]));
    let is_command = |line: &&str| line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  -");
    let lists = help.split("\n\n").filter(|block| command.is_empty() || block.starts_with("Commands:"));
    let lines = lists.flat_map(|block| block.lines().skip(1)).filter(is_command);
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let names = names.filter(|name| {
        *name != "help" && *name != "drover" && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    });
    names.map(|name| [command, &[name.to_owned()]].concat()).collect()
}

#[test]
fn every_command_at_every_level_has_an_example_and_a_manual_page() {
    let top = commands_of(&[]);
    assert!(top.len() >= 22, "{top:?}");
    let mut all: Vec<Vec<String>> = top.clone();
    let mut next = 0;
    while next < all.len() {
        let below = match all[next].len() {
            1 | 2 => commands_of(&all[next]),
            _ => Vec::new(),
        };
        all.extend(below);
        next += 1;
    }
    let folder = tempfile::tempdir().unwrap();
    let written = alone(&["man", "--dir", folder.path().to_str().unwrap()], &[]);
    assert!(written.status.success(), "{}", text(&written));
    let manual = text(&alone(&["man"], &[]));
    for command in &all {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = text(&alone(&arguments, &[]));
        assert!(
            help.contains("Example:") && help.contains(&format!("drover {}", command.join(" "))),
            "{command:?}: {help}"
        );
        let page = folder.path().join(format!("drover-{}.1", command.join("-")));
        assert!(page.exists(), "{}", page.display());
        assert!(manual.contains(&command.last().unwrap().replace('-', "\\-")), "{command:?}");
    }
    for nested in ["pools apply", "secrets put app", "dead-letters delete"] {
        assert!(all.iter().any(|command| command.join(" ") == nested), "{nested}: {all:?}");
    }
    let help = text(&alone(&["--help"], &[]));
    for part in ["Start with drover doctor", "Watch:", "Set up and check:", "Intervene:", "Exit codes"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

/// The fields of each command's JSON, as docs/commands.md lists them: the command, and its fields.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    let page = std::fs::read_to_string(path).unwrap();
    let section = page.split("### Fields of the JSON").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>();
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        (names(cells[1])[0].clone(), names(cells[2]).into_iter().collect())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_has_exactly_the_documented_fields_and_a_line_per_object_on_request() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("usage = true\n")).await.unwrap();
    let first = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(100));
    sandbox.running(first, PATIENCE).await.unwrap();
    sandbox.reconcile(&[first], PATIENCE).await.unwrap();
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(600));
    let machine = sandbox.running(job, PATIENCE).await.unwrap();
    let documented = documented();
    assert!(documented.len() >= 8, "{documented:?}");
    // Their tests have the files that they read.
    let reads_files = |command: &str| ["drover lint", "drover simulate"].contains(&command);
    for (command, fields) in documented.into_iter().filter(|(command, _)| !reads_files(command)) {
        let arguments = command.replace("JOB", &job.to_string()).replace("INSTANCE", machine.as_str());
        let arguments: Vec<&str> = arguments.split_whitespace().skip(1).collect();
        let said = sandbox.drover(&[&arguments[..], &["--json"]].concat()).await.unwrap();
        let json: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{command}: {error}"));
        let objects: Vec<&Value> = json.as_array().map_or_else(|| vec![&json], |all| all.iter().collect());
        assert!(!objects.is_empty(), "{command} prints nothing");
        for object in &objects {
            let printed: BTreeSet<String> = object.as_object().unwrap().keys().cloned().collect();
            assert!(printed.is_subset(&fields), "{command} prints undocumented fields: {printed:?}");
        }
        let printed: BTreeSet<String> = objects.iter().flat_map(|it| it.as_object().unwrap().keys().cloned()).collect();
        assert_eq!(printed, fields, "{command}");
        let lines = sandbox.drover(&[&arguments[..], &["-o", "jsonl"]].concat()).await.unwrap();
        let lines = String::from_utf8(lines.stdout).unwrap();
        for line in lines.lines() {
            assert!(serde_json::from_str::<Value>(line).unwrap().is_object(), "{command}: {line}");
        }
    }

    // Machines have a type, a market and a zone; finished jobs are listed on request, within a period.
    let listed = |said: Output| String::from_utf8(said.stdout).unwrap();
    let machines = listed(sandbox.drover(&["ps"]).await.unwrap());
    assert!(
        machines.contains("m7i.large") && machines.contains("on-demand") && machines.contains("eu-central-1"),
        "{machines}"
    );
    let running = listed(sandbox.drover(&["jobs"]).await.unwrap());
    assert!(!running.contains(&first.to_string()), "{running}");
    let all = listed(sandbox.drover(&["jobs", "--finished"]).await.unwrap());
    assert!(all.lines().any(|line| line.contains(&first.to_string()) && line.contains("success")), "{all}");
    let later = (SystemClock.now() + SignedDuration::from_hours(30)).to_string();
    let day_before = listed(sandbox.drover(&["jobs", "--finished", "--until", &later]).await.unwrap());
    assert!(!day_before.contains(&first.to_string()), "{day_before}");
    let before = listed(sandbox.drover(&["jobs", "--finished", "--since", "2d", "--until", "1d"]).await.unwrap());
    assert!(!before.contains(&first.to_string()), "{before}");
    let events = listed(sandbox.drover(&["events", "--since", "1h"]).await.unwrap());
    assert!(events.contains(&format!("job {first} queued")), "{events}");
    let none = sandbox.drover(&["events", "--since", "2h", "--until", "1h"]).await.unwrap();
    assert_eq!(listed(none), "no events in this period\n");
    let none = sandbox.drover(&["events", "--since", "2h", "--until", "1h", "--json"]).await.unwrap();
    assert_eq!(listed(none), "[]\n");
    for arguments in [
        &["events", "--since", "1h", "--until", "2h"][..],
        &["jobs", "--finished", "--since", "1h", "--until", "2h"],
        &["cost", "--since", "31d"],
    ] {
        let refused = sandbox.drover(arguments).await.unwrap();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(text(&refused).contains(" -> "), "{arguments:?}: {}", text(&refused));
    }
    let cost = listed(sandbox.drover(&["cost", "--since", "30d"]).await.unwrap());
    assert!(cost.contains("The last 30d, at on-demand"), "{cost}");

    // A shell completes pools and machines.
    let complete = async |words: &[&str]| {
        let index = (words.len() - 1).to_string();
        let variables = [
            ("COMPLETE", "bash"),
            ("_CLAP_COMPLETE_INDEX", index.as_str()),
            ("_CLAP_IFS", "\n"),
            ("_CLAP_COMPLETE_COMP_TYPE", "9"),
            ("_CLAP_COMPLETE_SPACE", "true"),
        ];
        let said = sandbox.drover_with(&[&["--"], words].concat(), &variables).await.unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    assert!(complete(&["drover", "drain", ""]).await.contains("linux"));
    assert!(complete(&["drover", "hold", "i-"]).await.contains(machine.as_str()));
    assert!(complete(&["drover", "dra"]).await.contains("drain"));
    assert!(text(&alone(&["completions", "bash"], &[])).contains("COMPLETE"));
}

/// The program `script` provides the terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_cut_to_the_width_of_the_terminal_and_whole_in_a_pipe() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let shell = sandbox.operators_shell().unwrap();
    let pools = async |command: &str| {
        let script = format!(". {} && {command}", shell.display());
        let said = tokio::process::Command::new("sh").args(["-c", &script]).output().await.unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    let longest = |text: &str| text.lines().map(|line| line.trim_end().chars().count()).max().unwrap();
    let whole = pools("drover pools").await;
    assert!(longest(&whole) > 40, "{whole}");
    let narrow = "script --quiet --return --command 'stty cols 40 && drover pools --color never' /dev/null";
    let cut = pools(narrow).await;
    assert!(longest(&cut) <= 40 && cut.contains("linux"), "{cut}");
    assert_eq!(cut.lines().count(), whole.lines().count(), "a row stays one line: {cut}");
    // A terminal that does not know its width.
    let unknown =
        pools("script --quiet --return --command 'stty cols 0 && drover pools --color never' /dev/null").await;
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&unknown), lines(&whole));
}
