//! What an operator sees of the resources that jobs used, and which smaller machines are advised.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::time::Duration;

use domain::ids::JobId;
use domain::log::Transaction;
use domain::policy::format;
use domain::state::{FunctionName, Instance, Item, Job, Key, Usage};
use engine::ports::{Clock, Store};
use jiff::SignedDuration;
use platform::clock::SystemClock;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, Sandbox};
use sandbox::short_timings::with_short_timings;
use serde_json::Value;

const REPOSITORY: &str = "octo-org/widgets";

const POOL: &str = r#"[[pool]]
name = "any"
owner = "octo-org"
repositories = ["octo-org/widgets"]
launch_templates = { x64 = "drover-runner" }
max = 20
usage = true
[pool.shapes]
cpu = "2..8"
ram = "4..64"
arch = ["x64"]
"#;

/// A run of eight minutes on a machine with 8 vCPUs and 32 GiB.
fn usage() -> Usage {
    Usage {
        seconds: 480,
        vcpus: 8,
        memory_mib: 31_580,
        disk_mib: 39_500,
        cpu_mean: 1520,
        cpu_peak: 3950,
        cpu_beyond: vec![300_000, 40_000, 0],
        memory_mean_mib: 2150,
        memory_peak_mib: 5324,
        disk_peak_mib: 21_504,
        received_mib: 1229,
        sent_mib: 30,
        cpu_chart: vec![0, 20, 60, 50, 40, 10],
        memory_chart: vec![2, 5, 13, 17, 17, 9],
    }
}

async fn said(sandbox: &Sandbox, arguments: &[&str], code: i32) -> String {
    let output = sandbox.drover(arguments).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

async fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let text = said(sandbox, &[arguments, &["--json"]].concat(), 0).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

async fn job(sandbox: &Sandbox, id: u64) -> Job {
    match sandbox.table().await.get(&Key::Job(JobId(id))).await.unwrap() {
        Some(Item::Job(job)) => *job,
        other => panic!("no job: {other:?}"),
    }
}

/// The machine of a job, once it is closed.
async fn machine(sandbox: &Sandbox, job: u64) -> Instance {
    let explained = json(sandbox, &["explain", &job.to_string()]).await;
    sandbox.closed(&explained["instance"].as_str().unwrap().into()).await.unwrap()
}

/// Runs jobs with these names. Then each has run for eight minutes, and its machine has reported this.
async fn ran(sandbox: &Sandbox, jobs: &[(&str, Option<Usage>)]) -> Vec<u64> {
    let queued: Vec<_> =
        jobs.iter().map(|_| sandbox.queue_job(REPOSITORY, &["any/8cpu/32gb"], Duration::from_millis(100))).collect();
    sandbox.reconcile(&queued, PATIENCE).await.unwrap();
    let table = sandbox.table().await;
    for (id, (name, usage)) in queued.iter().zip(jobs) {
        let machine = machine(sandbox, id.0).await;
        let job = job(sandbox, id.0).await;
        let started_at = Some(job.completed_at.unwrap() - SignedDuration::from_mins(8));
        let named = Job { name: (*name).to_owned(), workflow: Some("ci".to_owned()), started_at, ..job };
        let measured = Instance { usage: usage.clone(), ..machine };
        table.commit(&Transaction::new().put(named).put(measured)).await.unwrap();
    }
    queued.iter().map(|id| id.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_usage_of_a_job_is_shown_and_a_smaller_machine_is_advised() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&with_short_timings(POOL).unwrap()).await.unwrap();
    let with_peak = |memory_peak_mib| Some(Usage { memory_peak_mib, ..usage() });
    let bursts = || Some(Usage { cpu_beyond: vec![900_000, 300_000, 0], ..usage() });
    let name = "build \u{1b}[31m<b>";
    let jobs = [
        (name, with_peak(5324)),
        (name, with_peak(4100)),
        (name, with_peak(5100)),
        (name, with_peak(5200)),
        (name, with_peak(3900)),
        ("test", bursts()),
        ("test", with_peak(5000)),
        ("test", with_peak(5000)),
        ("test", with_peak(5000)),
        ("test", with_peak(5000)),
        ("lint", None),
        ("lint", with_peak(700)),
        ("deploy", None),
    ];
    let ids = ran(&sandbox, &jobs).await;
    let (measured, unmeasured) = (ids[0].to_string(), ids[10].to_string());

    // explain
    let text = said(&sandbox, &["explain", &measured], 0).await;
    let lines = "\nused of the machine, as it reported\n\
        \u{20} CPU      mean 1.5, peak 4.0 of 8 vCPUs           ▁▂▅▄▃▁\n\
        \u{20} memory   mean 2.1 GiB, peak 5.2 GiB of 30.8 GiB  ▁▁▁▂▂▁\n\
        \u{20} disk     peak 21.0 GiB of 38.6 GiB\n\
        \u{20} network  1.2 GiB received, 30 MiB sent\n";
    assert!(text.contains(lines) && !text.contains("reported no usage"), "{text}");
    let explained = json(&sandbox, &["explain", &measured]).await;
    assert_eq!(
        (explained["usage"]["memory_peak_mib"].as_u64(), explained["usage"]["vcpus"].as_u64()),
        (Some(5324), Some(8))
    );
    let text = said(&sandbox, &["explain", &unmeasured], 0).await;
    assert!(text.contains("Its machine reported no usage: it ended abnormally, its image has an agent"), "{text}");
    assert!(
        !text.contains("used of the machine") && json(&sandbox, &["explain", &unmeasured]).await["usage"].is_null()
    );

    sandbox.apply(&with_short_timings(&POOL.replace("usage = true\n", "")).unwrap()).await.unwrap();
    let text = said(&sandbox, &["explain", &unmeasured], 0).await;
    assert!(!text.contains("usage"), "nobody asked for it: {text}");
    sandbox.apply(&with_short_timings(POOL).unwrap()).await.unwrap();

    // jobs
    let wide = said(&sandbox, &["jobs", "--finished", "-o", "wide"], 0).await;
    let row = |id: &str| {
        wide.lines().find(|line| line.trim_start().starts_with(id)).unwrap_or_else(|| panic!("{wide}")).to_owned()
    };
    assert!(wide.lines().next().unwrap().contains("CPU   MEMORY  WORKFLOW"), "{wide}");
    assert!(row(&measured).contains("  19 %  17 %    ci"), "{wide}");
    assert!(row(&unmeasured).contains("  -     -       ci"), "{wide}");
    let listed = json(&sandbox, &["jobs", "--finished"]).await;
    let row = |id: u64| listed.as_array().unwrap().iter().find(|row| row["job"] == id).unwrap();
    assert_eq!((row(ids[0])["cpu_percent"].as_f64(), row(ids[0])["memory_percent"].as_f64()), (Some(19.0), Some(16.9)));
    assert!(row(ids[10])["cpu_percent"].is_null());

    // dashboard
    let mut dashboard = sandbox.follow(&["dashboard", "--port", "0"]).unwrap();
    let url = dashboard.line().await.unwrap().split_whitespace().next().unwrap().to_owned();
    let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let page = async |path: &str| http.get(format!("{url}{path}")).send().await.unwrap().text().await.unwrap();
    let story = page(&format!("job?job={measured}")).await;
    assert!(story.contains(lines) && !story.contains("<b>") && !story.contains('\u{1b}'), "{story}");
    let machine = page(&format!("machine?id={}", explained["instance"].as_str().unwrap())).await;
    assert!(machine.contains("memory   mean 2.1 GiB, peak 5.2 GiB of 30.8 GiB  ▁▁▁▂▂▁\n"), "{machine}");

    // cost --advice
    let text = said(&sandbox, &["cost", "--advice"], 0).await;
    assert!(!text.contains('\u{1b}'), "{text}");
    let rows = json(&sandbox, &["cost", "--advice"]).await;
    let labels: Vec<_> = rows["rows"].as_array().unwrap().iter().map(|row| (&row["name"], &row["label"])).collect();
    assert_eq!(labels, [(&Value::from(name), &Value::from("any/2cpu/8gb")), (&"test".into(), &"any/4cpu/16gb".into())]);
    assert_eq!((rows["too_few_runs"].as_u64(), rows["none_cheaper"].as_u64()), (Some(2), Some(0)), "{rows:#}");
    let docs = include_str!("../../docs/usage.md");
    let plain = text.replace("build [31m<b>", "build");
    for line in plain.lines() {
        let words = |text: &str| text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
        assert!(docs.lines().any(|shown| words(shown) == words(line)), "docs/usage.md does not show {line:?}");
    }
    let nothing = said(&sandbox, &["cost", "--advice", "--since", "1s"], 0).await;
    assert!(nothing.starts_with("no smaller machine is advised"), "{nothing}");
    said(&sandbox, &["cost", "--advice", "--by", "pool"], 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_usage_the_pool_file_says_what_to_write_and_a_change_of_it_is_shown() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    let functions = FunctionName::ALL.map(|name| format::report(name, None, SystemClock.now()).unwrap());
    sandbox.table().await.commit(&Transaction::new().put_all(functions)).await.unwrap();
    let off = with_short_timings(&POOL.replace("usage = true\n", "")).unwrap();
    sandbox.apply(&off).await.unwrap();
    let text = said(&sandbox, &["cost", "--advice"], 2).await;
    assert!(text.contains("-> write usage = true into a pool, then drover pools apply FILE"), "{text}");
    assert!(!said(&sandbox, &["pools", "show"], 0).await.contains("usage"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.toml");
    std::fs::write(&path, with_short_timings(POOL).unwrap()).unwrap();
    let text = said(&sandbox, &["pools", "diff", path.to_str().unwrap()], 1).await;
    assert!(text.contains("any: changed") && text.contains("  + usage = true\n"), "{text}");
    said(&sandbox, &["pools", "apply", path.to_str().unwrap()], 0).await;
    let shown = said(&sandbox, &["pools", "show"], 0).await;
    assert!(shown.contains("\nusage = true\n"), "{shown}");
    std::fs::write(&path, shown).unwrap();
    said(&sandbox, &["pools", "diff", path.to_str().unwrap()], 0).await;
}
