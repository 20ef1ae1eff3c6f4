//! `drover simulate` with small traces.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use drover::output::{Failure, Output};
use drover::simulate::{Jobs, Request, simulate};

const HEADER: &str =
    r#"{"drover_trace":1,"source":"generated","from":"2026-11-02T08:00:00Z","until":"2026-11-02T09:00:00Z"}"#;

const JOB: &str = r#"{"id":1,"run":1,"repository":"octo-org/secret","labels":["linux"],"queued_at":"2026-11-02T08:10:00Z","started_at":"2026-11-02T08:10:09Z","ended_at":"2026-11-02T08:15:09Z"}"#;

const POOLS: &str = "[[pool]]\nname = \"linux\"\nowner = \"octo-org\"\nlabels = [\"linux\"]\n\
    launch_template = \"runner\"\ninstance_types = [\"m7i.large\"]\nmax = 10\n";

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn simulated(pools: &[&str], trace: &str) -> Result<Output, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let files = pools.iter().zip(1..).map(|(text, number)| written(folder.path(), &format!("{number}.toml"), text));
    let request = Request {
        files: files.collect(),
        jobs: Jobs::File(written(folder.path(), "trace.jsonl", trace)),
        region: None,
        labels: Vec::new(),
        spot_share: 0.4,
        interruptions: 0.0,
        html: None,
    };
    simulate(&request, &|_| {})
}

#[test]
fn two_pool_files_are_shown_side_by_side() {
    let warm = format!("{POOLS}warm = 1\n");
    let output = simulated(&[POOLS, &warm], &format!("{HEADER}\n{JOB}\n")).unwrap();
    let wait = |file: usize| output.json["files"][file]["wait_seconds"]["p50"].as_f64().unwrap();
    assert!(output.ok && wait(0) > 25.0 && wait(1) < 10.0, "{:#}", output.json);
    // Five minutes of a runner with two cores.
    assert_eq!(output.json["files"][0]["hosted_usd"], 0.03);
    assert_eq!(output.json["files"][0]["platform_charge_usd"], 0.01);
    for text in [
        "queue time p50",
        "1.toml",
        "2.toml",
        "us-east-1",
        "40 %",
        "EC2 reclaims none.",
        "GitHub's announced charge, USD",
    ] {
        assert!(output.text.contains(text), "{text} is not in {}", output.text);
    }
    assert!(!output.text.contains("secret"));
    // tests/output.rs compares the fields of commands that read no files.
    let commands = std::fs::read_to_string("../docs/commands.md").unwrap();
    let row = commands.lines().find(|line| line.starts_with("| `drover simulate` |")).unwrap();
    let documented: BTreeSet<&str> = row.split('`').skip(3).step_by(2).collect();
    let printed: BTreeSet<&str> = output.json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(printed, documented);
}

#[test]
fn a_broken_trace_is_refused_with_its_line() {
    let error = simulated(&[POOLS], &format!("{HEADER}\n{{}}\n")).unwrap_err();
    assert!(matches!(error, Failure::Usage(_)), "exit code 2");
    assert!(error.to_string().contains("trace.jsonl:2: this is not a job of a trace"), "{error}");
}

#[test]
fn a_region_without_prices_is_refused_with_those_that_have_some() {
    let header = HEADER.replace("}", r#","region":"mars-1"}"#);
    let error = simulated(&[POOLS], &format!("{header}\n{JOB}\n")).unwrap_err().to_string();
    assert!(error.starts_with("no prices are known in mars-1 -> --region with one of "), "{error}");
    assert!(error.contains("eu-central-1") && error.contains("us-east-1"), "{error}");
}

#[test]
fn a_pool_file_with_errors_is_reported_and_not_simulated() {
    let output = simulated(&[&POOLS.replace("max = 10", "max = 0")], &format!("{HEADER}\n{JOB}\n")).unwrap();
    assert!(!output.ok && output.text.contains("max: must be at least 1"), "{}", output.text);
}

/// Returns the terminal's text and the page.
fn page_of(name: &str, trace: &str, labels: &[(&str, &str)]) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("page.html");
    let request = Request {
        files: vec![
            written(folder.path(), name, POOLS),
            written(folder.path(), "warm.toml", &format!("{POOLS}warm = 1\n")),
        ],
        jobs: Jobs::File(written(folder.path(), "trace.jsonl", trace)),
        region: None,
        labels: labels.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect(),
        spot_share: 0.4,
        interruptions: 0.0,
        html: Some(html.clone()),
    };
    let text = simulate(&request, &|_| {}).unwrap().text;
    (text, std::fs::read_to_string(html).unwrap())
}

#[test]
fn the_page_has_the_numbers_of_the_table_and_loads_nothing() {
    let (text, page) = page_of("cold.toml", &format!("{HEADER}\n{JOB}\n"), &[]);
    let table = text.split("\n\n").nth(1).unwrap();
    let cells: Vec<&str> = table.lines().skip(1).flat_map(|line| line.split("  ")).map(str::trim).collect();
    for cell in cells.into_iter().filter(|cell| !cell.is_empty()) {
        let escaped = cell.replace('&', "&amp;");
        assert!(page.contains(&format!(">{escaped}</t")), "{cell} is not in the page");
    }
    for loads in ["src=", "@import", "url(", "<link", "<script", "<iframe", "<object"] {
        assert!(!page.contains(loads), "{loads} is in the page");
    }
    assert_eq!(
        page.matches("http").count(),
        page.matches("http-equiv").count() + 2 * page.matches("href=\"http").count()
    );
    assert_eq!(page.matches("role=\"img\"").count(), page.matches("<desc").count());
    assert!(page.contains("Assumed: a launch takes"));
}

#[test]
fn names_are_escaped_in_the_page() {
    let trace = format!("{HEADER}\n{}\n", JOB.replace("[\"linux\"]", "[\"<script>label\"]"));
    let (_, page) = page_of("<script>file.toml", &trace, &[("<script>label", "linux")]);
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("&lt;script&gt;file.toml") && page.contains("&lt;script&gt;label"));
}

#[test]
fn the_days_that_were_read_are_named() {
    let header = HEADER.replace("}", r#","days":["2026-11-02"]}"#);
    let (text, page) = page_of("cold.toml", &format!("{header}\n{JOB}\n"), &[]);
    let days = "Only these UTC days were read: 2026-11-02.";
    assert!(text.contains(days) && page.contains(days), "{text}");
}
