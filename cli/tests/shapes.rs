//! A pool with shapes, as an operator sees it: how it is applied, and which machines a label asks for.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::process::Output;
use std::time::Duration;

use domain::config::Label;
use domain::log::Transaction;
use domain::state::{Circuit, CircuitCause, ClassState, Item, Key, Meta};
use engine::ports::{Clock, Store};
use jiff::SignedDuration;
use platform::clock::SystemClock;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::with_short_timings;
use sandbox::state::State;
use serde_json::{Value, json};

/// Pool `any`: up to eight vCPUs of the families that the model of EC2 has.
const POOL: &str = r#"[[pool]]
name = "any"
owner = "octo-org"
repositories = ["octo-org/widgets"]
launch_templates = { x64 = "drover-runner" }
market = "spot-then-on-demand"
max = 10
usd_per_hour = 4.0
[pool.shapes]
cpu = "2..8"
ram = "4..64"
arch = ["x64"]
usd_per_hour = 0.5
"#;

struct Stack {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Stack {
    async fn start() -> Self {
        let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
        Self { sandbox, folder: tempfile::tempdir().unwrap() }
    }

    /// Runs a command of `drover pools` with a file.
    async fn pools(&self, command: &str, pools: &str, options: &[&str]) -> (i32, String) {
        let path = self.folder.path().join("pools.toml");
        std::fs::write(&path, pools).unwrap();
        self.run(&[&["pools", command, path.to_str().unwrap()], options].concat()).await
    }

    /// Queues a job and runs both functions, which then report their version.
    async fn run_the_functions(&self) {
        self.queued("any/2cpu").await;
        self.sandbox.sweep().await.unwrap();
    }

    /// Queues a job and runs the scaler for it.
    async fn queued(&self, label: &str) -> String {
        let job = self.sandbox.queue_job("octo-org/widgets", &[label], Duration::from_secs(600));
        // A sweep may have sent a message, too.
        let is_about = |body: &str| body.contains(&job.to_string());
        let arrived = |state: &State| state.sqs.bodies(QUEUE).iter().any(|it| is_about(it)).then_some(());
        self.sandbox.world.until("the delivery", PATIENCE, arrived).await.unwrap();
        while !self.sandbox.world.look(|state| state.sqs.bodies(QUEUE).is_empty()) {
            self.sandbox.scale().await.unwrap();
        }
        job.to_string()
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        said(&self.sandbox.drover(arguments).await.unwrap())
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.sandbox.drover(&[arguments, &["--json"]].concat()).await.unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output).1))
    }
}

fn said(output: &Output) -> (i32, String) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), text)
}

#[track_caller]
fn has(said: &(i32, String), code: i32, parts: &[&str]) {
    let missing: Vec<&&str> = parts.iter().filter(|part| !said.1.contains(**part)).collect();
    assert!(said.0 == code && missing.is_empty(), "exit code {}, lacks {missing:?}:\n{}", said.0, said.1);
}

/// The types of the candidates of a label, in the order in which they are tried, each once.
fn types(shapes: &Value) -> Vec<&str> {
    let mut types: Vec<&str> = Vec::new();
    for candidate in shapes["candidates"].as_array().unwrap() {
        let name = candidate["type"].as_str().unwrap();
        if !types.contains(&name) {
            types.push(name);
        }
    }
    types
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_with_shapes_is_applied_shown_and_compared() {
    let stack = Stack::start().await;
    let pools = with_short_timings(POOL).unwrap();
    has(&stack.pools("check", &pools, &[]).await, 0, &["1 pool, no errors"]);
    has(&stack.pools("apply", &pools, &["--dry-run"]).await, 0, &["any: added", "nothing was applied"]);
    has(&stack.pools("apply", &pools, &[]).await, 0, &["any: added", "any: drover-runner version 1", "in force"]);
    has(&stack.pools("diff", &pools, &[]).await, 0, &["no differences: 1 pool in force"]);
    // What is shown is a pool file that changes nothing.
    let (code, shown) = stack.run(&["pools", "show"]).await;
    assert_eq!(code, 0, "{shown}");
    has(&stack.pools("check", &shown, &[]).await, 0, &["1 pool, no errors"]);
    has(&stack.pools("diff", &shown, &[]).await, 0, &["no differences"]);

    let other = pools.replace("\"2..8\"", "\"2..4\"").replace("usd_per_hour = 4.0", "usd_per_hour = 3.5");
    let difference = ["any: changed", "- shapes.cpu = \"2..8\"", "+ shapes.cpu = \"2..4\"", "+ usd_per_hour = 3.5"];
    has(&stack.pools("diff", &other, &[]).await, 1, &difference);
    stack.run_the_functions().await;
    let asked = stack.pools("apply", &other, &[]).await;
    has(&asked, 1, &["any: usd_per_hour falls from 4.00 to 3.50", "nothing was applied"]);
    has(&stack.pools("apply", &other, &["--yes"]).await, 0, &["in force"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_for_which_ec2_has_no_machine_is_refused_before_it_is_applied() {
    let stack = Stack::start().await;
    let pools = with_short_timings(POOL).unwrap();
    let refused = async |from: &str, to: &str, parts: &[&str]| {
        assert!(pools.contains(from), "{from}: {pools}");
        let said = stack.pools("apply", &pools.replace(from, to), &["--yes"]).await;
        has(&said, 1, parts);
        assert!(!said.1.contains("in force"), "{}", said.1);
    };
    let none =
        "shapes.arch: EC2 offers no x64 machine with 2..8 vCPUs and 65..80 GiB of the allowed families in the zones";
    refused("\"4..64\"", "\"65..80\"", &[none, "widen the ranges or the families, or remove x64"]).await;
    // The model of EC2 has only m7i.2xlarge with 8 vCPUs and 32 GiB of that family.
    let large = "ram = \"17..32\"\nfamilies = [\"m7i\"]";
    let cap = "m7i.2xlarge, the cheapest x64 machine that the pool allows, costs 0.4";
    let expensive = pools.replace("ram = \"4..64\"", large).replace("usd_per_hour = 0.5", "usd_per_hour = 0.04");
    let said = stack.pools("apply", &expensive, &["--yes"]).await;
    has(&said, 1, &["shapes.usd_per_hour: 0.0400 USD pays for no machine", cap]);
    let spot = pools.replace("ram = \"4..64\"", large).replace("usd_per_hour = 0.5", "usd_per_hour = 0.2");
    has(&stack.pools("apply", &spot, &["--yes"]).await, 0, &["0.2000 USD pays for spot machines at most", "in force"]);
    refused("x64 = \"drover-runner\"", "arm64 = \"drover-runner\"", &["launch_templates: none for x64"]).await;
    let arm = pools.replace("x64 = \"drover-runner\"", "arm64 = \"drover-runner\"").replace("[\"x64\"]", "[\"arm64\"]");
    let wrong = "launch_templates: that of arm64, drover-runner, has image ami-runner, which is x64";
    has(&stack.pools("apply", &arm, &["--yes"]).await, 1, &[wrong]);
    // A dry run of an example is refused.
    let subnet = pools.replace("max = 10", "max = 10\nsubnets = [\"subnet-nowhere\"]");
    has(&stack.pools("apply", &subnet, &["--yes"]).await, 1, &["EC2 offers no x64 machine"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_candidates_of_a_label_are_listed_with_their_prices_and_why_others_are_none() {
    let stack = Stack::start().await;
    has(&stack.run(&["shapes", "any/8cpu"]).await, 2, &["no pools are configured -> drover pools apply FILE"]);
    stack.sandbox.apply(&with_short_timings(POOL).unwrap()).await.unwrap();
    let found = stack.json(&["shapes", "any/8cpu/32gb/on-demand"]).await;
    assert_eq!((types(&found), &found["shape"]), (vec!["m7i.2xlarge"], &json!("8cpu/32gb/on-demand")), "{found:#}");
    assert!(found["pool"] == "any" && found["prices_read_at"].is_string(), "{found:#}");
    let excluded = |name: &str| {
        let all = found["excluded"].as_array().unwrap();
        all.iter().find(|it| it["type"] == name).unwrap_or_else(|| panic!("{name}: {found:#}"))["why"].clone()
    };
    assert_eq!(excluded("m7i.large"), "has fewer vCPUs");
    assert_eq!(excluded("c7i.2xlarge"), "has less memory");
    assert_eq!(excluded("r7i.2xlarge"), "costs more per hour than the pool allows for one machine");
    let (code, text) = stack.run(&["shapes", "ANY/Spot/32gb/8CPU"]).await;
    assert!(code == 0 && text.contains("TYPE "), "{text}");
    let candidates = text.split("\nnot candidates:\n").next().unwrap();
    assert!(candidates.lines().skip(1).all(|line| line.contains("spot") && line.contains("eu-central-1-")), "{text}");
    assert!(text.contains("  m7i.large has fewer vCPUs\n"), "{text}");

    // The cheapest comes first, also on-demand after spot if the label leaves that open.
    let found = stack.json(&["shapes", "any/2cpu"]).await;
    let candidates = found["candidates"].as_array().unwrap();
    let markets: Vec<&str> = candidates.iter().map(|it| it["market"].as_str().unwrap()).collect();
    assert!(markets.is_sorted_by_key(|market| *market == "on-demand") && markets.contains(&"on-demand"), "{markets:?}");
    let spot = candidates.iter().filter(|it| it["market"] == "spot");
    let prices: Vec<f64> = spot.map(|it| it["usd_per_hour"].as_f64().unwrap()).collect();
    assert!(prices.is_sorted() && prices.len() > 3 && prices[0] > 0.0, "{found:#}");
    assert!(types(&found).iter().all(|name| !name.starts_with("t3") && !name.contains("8g")), "{found:#}");

    let nothing = stack.run(&["shapes", "any/8cpu/64gb/on-demand"]).await;
    has(&nothing, 1, &["no instance type satisfies any/8cpu/64gb/on-demand", "r7i.2xlarge costs more per hour"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_label_is_refused_with_what_to_write_instead() {
    let stack = Stack::start().await;
    stack.sandbox.apply(&with_short_timings(POOL).unwrap()).await.unwrap();
    let long = format!("any/{}", "8".repeat(100));
    let cases = [
        ("any/8gpu", r#""8gpu" is no term; write 8cpu, 32gb, 200disk, x64, arm64, spot or on-demand"#),
        ("any/8cpu/4CPU", r#""8cpu" and "4CPU" are two terms of one kind; keep one of them"#),
        ("any/0cpu", r#""0cpu" has no number from 1 to 100000"#),
        ("any/1000000000cpu", r#""1000000000cpu" has no number from 1 to 100000"#),
        ("any/\u{0668}cpu", "the label has a character that is not ASCII"),
        ("any/", "remove the empty term"),
        (long.as_str(), "the label is longer than 100 characters"),
        ("any/16cpu", "pool any cannot serve any/16cpu: the pool allows 2..8 vCPUs, and the label asks for 16"),
        ("any/128gb", "the pool allows 4..64 GiB of memory, and the label asks for 128"),
        ("any/arm64", "the pool has no arm64 machines"),
        ("any/100disk", "the pool does not allow a disk in labels"),
        (
            "other/8cpu",
            r#""other/8cpu" does not begin with the name of a pool with shapes -> write a label such as any/8cpu"#,
        ),
        ("any", "does not begin with the name of a pool with shapes"),
    ];
    for (label, why) in cases {
        has(&stack.run(&["shapes", label]).await, 2, &[why]);
    }
    let refused = stack.json(&["shapes", "any/16cpu"]).await;
    assert!(refused["error"].as_str().unwrap().contains("the pool allows 2..8 vCPUs"), "{refused}");
    stack.sandbox.apply(&sandbox::short_timings::one_pool("")).await.unwrap();
    has(&stack.run(&["shapes", "linux/8cpu"]).await, 2, &["no pool has shapes"]);
}

fn line_with<'a>(text: &'a str, beginning: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(beginning)).unwrap_or_else(|| panic!("no {beginning}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_which_launch_option_was_chosen_and_ps_shows_the_class() {
    let stack = Stack::start().await;
    stack.sandbox.apply(&with_short_timings(POOL).unwrap()).await.unwrap();
    // No job needs to wait for a sweep.
    assert!(stack.json(&["shapes", "any/2cpu"]).await["prices_read_at"].is_string());
    let job = stack.queued("any/2CPU/on-demand").await;
    let explained = stack.json(&["explain", &job]).await;
    assert_eq!(explained["class"], "any/2cpu/on-demand", "{explained:#}");
    let (code, text) = stack.run(&["explain", &job]).await;
    assert!(code == 0 && text.contains("  class      any/2cpu/on-demand\n"), "{text}");
    let rows = stack.json(&["ps"]).await;
    let row = rows.as_array().unwrap().iter().find(|row| row["slot"].is_string()).unwrap();
    assert!(rows.as_array().unwrap().iter().all(|row| row["class"] == "any/2cpu/on-demand"), "{rows:#}");
    assert_eq!((&row["class"], &row["market"]), (&json!("any/2cpu/on-demand"), &json!("on-demand")), "{rows:#}");
    let price = row["usd_per_hour"].as_f64().unwrap();
    let cheapest = stack.json(&["shapes", "any/2cpu/on-demand"]).await["candidates"][0].clone();
    assert_eq!(json!(price), cheapest["usd_per_hour"], "the recorded price is that of the first candidate");
    let (_, text) = stack.run(&["ps"]).await;
    assert!(text.lines().next().unwrap().contains("CLASS") && text.contains("any/2cpu/on-demand"), "{text}");

    let pools = stack.json(&["pools"]).await;
    let row = &pools[0];
    assert_eq!((&row["usd_per_hour"], &row["max_usd_per_hour"]), (&json!(price), &json!(4.0)), "{pools:#}");
    assert_eq!((&row["machine_usd_per_hour"], &row["class_circuits"]), (&json!(0.5), &json!({})));
    let (_, text) = stack.run(&["pools"]).await;
    assert!(text.lines().next().unwrap().contains("USD/HOUR") && text.contains(&format!("{price:.4}/4.00")), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chosen_launch_option_of_a_running_job_and_its_price_are_explained_and_added_up() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&with_short_timings(POOL).unwrap()).await.unwrap();
    let stack = Stack { sandbox, folder: tempfile::tempdir().unwrap() };
    let job = stack.sandbox.queue_job("octo-org/widgets", &["any/8cpu/32gb/on-demand"], Duration::from_secs(600));
    let machine = stack.sandbox.running(job, PATIENCE).await.unwrap();
    let job = job.to_string();
    let (code, text) = stack.run(&["explain", &job]).await;
    let option = line_with(&text, "Launch option: m7i.2xlarge on-demand in subnet-");
    let price = stack.json(&["ps"]).await[0]["usd_per_hour"].as_f64().unwrap();
    assert!(price >= 0.4863, "list price and volume: {price}");
    let why = format!(", {price:.4} USD per hour, the first of 2 launch options.");
    assert!(code == 0 && option.ends_with(&why), "{option} {why}");
    let explained = stack.json(&["explain", &job]).await;
    assert_eq!(explained["launched_as"]["instance_type"], "m7i.2xlarge", "{explained:#}");
    assert_eq!(explained["may_be_tried"].as_array().unwrap().len(), 2, "{explained:#}");

    // The recorded price counts, not that of a price list, which has none.
    let prices = r#"{ "source": "test", "read": "2026-11-27", "families": {} }"#;
    std::fs::write(stack.sandbox.folder().join("none.json"), prices).unwrap();
    let row = stack.json(&["cost", "--by", "type", "--prices", "none.json"]).await["rows"][0].clone();
    assert_eq!((&row["what"], &row["unpriced"]), (&json!("m7i.2xlarge"), &json!(0)), "{row}");
    let seconds = row["seconds"].as_f64().unwrap();
    let expected = price * seconds / 3600.0;
    assert!((row["usd"].as_f64().unwrap() - expected).abs() < 1e-5, "{row} {expected}");
    has(&stack.run(&["cost"]).await, 0, &["For 1 machine, the price at the launch is used instead"]);

    has(&stack.run(&["retire", machine.as_str(), "--force"]).await, 0, &[]);
    let ended = async || {
        let (_, text) = stack.run(&["explain", &job]).await;
        Ok(text.contains("Its machine cost 0.").then_some(text))
    };
    let text = stack.sandbox.sweep_until("the end of the machine", ended).await.unwrap();
    let cost = line_with(&text, "Its machine cost 0.");
    assert!(cost.ends_with(&format!("USD, at {price:.4} USD per hour when its launch was decided.")), "{cost}");
}

/// Opens the circuit of a class.
async fn open_circuit(sandbox: &Sandbox, class: &str) {
    let table = sandbox.table().await;
    let Some(Item::Meta(meta)) = table.get(&Key::Meta("any".parse().unwrap())).await.unwrap() else {
        panic!("no META")
    };
    let now = SystemClock.now();
    let circuit = Circuit::Open {
        until: now + SignedDuration::from_hours(1),
        backoff_seconds: 60,
        since: now,
        cause: CircuitCause::LaunchRefused("TagPolicyViolation".to_owned()),
        message: "the tag is not allowed".to_owned(),
    };
    let state = ClassState { circuit, boot_failures: 0, failures: Vec::new(), answers: Vec::new() };
    let mut classes = meta.classes.clone();
    classes.insert(class.parse::<Label>().unwrap(), state);
    table.commit(&Transaction::new().put(Meta { classes, ..meta })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_open_circuit_of_a_class_is_shown_by_each_command_and_concerns_no_other_class() {
    let stack = Stack::start().await;
    stack.sandbox.apply(&with_short_timings(POOL).unwrap()).await.unwrap();
    // The first decision closes the circuits of another configuration.
    let other = stack.queued("any/2cpu").await;
    open_circuit(&stack.sandbox, "any/8cpu/32gb").await;
    let job = stack.queued("any/8cpu/32gb").await;
    let why = "TagPolicyViolation: the tag is not allowed";
    let explained = stack.run(&["explain", &job]).await;
    has(&explained, 0, &["Waiting: the pool launches only probes: TagPolicyViolation", "Next: a probe is launched"]);
    assert!(!stack.run(&["explain", &other]).await.1.contains("probe"), "another class");
    let parts = ["class circuit open", "any: any/8cpu/32gb: circuit open for ", why];
    has(&stack.run(&["pools"]).await, 0, &parts);
    has(&stack.run(&["status"]).await, 0, &["any/8cpu/32gb: circuit open for ", why]);
    let shown = "pool any, class any/8cpu/32gb launches only probes since 20";
    has(&stack.run(&["doctor"]).await, 1, &["FAIL  circuits: ", shown, why]);
    let pools = stack.json(&["pools"]).await;
    assert_eq!(pools[0]["class_circuits"]["any/8cpu/32gb"]["code"], "TagPolicyViolation", "{pools:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_at_the_cap_and_one_with_a_wrong_label_are_told_why_they_wait() {
    let stack = Stack::start().await;
    // Pays for one machine with 8 vCPUs on demand, and not for two.
    let capped = with_short_timings(&POOL.replace("usd_per_hour = 4.0", "usd_per_hour = 0.9")).unwrap();
    stack.sandbox.apply(&capped).await.unwrap();
    stack.queued("any/8cpu/32gb/on-demand").await;
    let job = stack.queued("any/8cpu/32gb/on-demand").await;
    let cap = "Waiting: the pool's machines may cost 0.90 USD per hour together, and one more would cost more.";
    let next = "Next: a machine is launched for it once another one of the pool has ended, or a price has fallen.";
    has(&stack.run(&["explain", &job]).await, 0, &[cap, next]);
    let own = "any: any/8cpu/32gb/on-demand: one more machine would cost more than the cap of 0.9000 USD per hour";
    has(&stack.run(&["pools"]).await, 0, &["at cap", own]);

    let wrong = stack.queued("any/64cpu").await;
    has(&stack.run(&["explain", &wrong]).await, 1, &["No pool accepts it: ", "2..8 vCPUs", "asks for 64"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_job_that_no_instance_type_satisfies_is_the_state_of_its_pool() {
    let stack = Stack::start().await;
    // Every machine with so much memory costs more than the policy allows.
    let label = "any/8cpu/64gb/on-demand";
    stack.sandbox.apply(&with_short_timings(POOL).unwrap()).await.unwrap();
    let job = stack.queued(label).await;
    let obstacle =
        format!("any: {label}: no instance type that the pool allows satisfies it -> drover shapes {label} says why");
    has(&stack.run(&["pools"]).await, 0, &["no type fits", &obstacle]);
    has(&stack.run(&["status"]).await, 0, &["no type fits: "]);
    has(&stack.run(&["explain", &job]).await, 0, &["Next: nothing until the pool allows an instance type that fits"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_of_a_job_has_the_launch_for_its_class_and_not_those_for_others() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&with_short_timings(POOL).unwrap()).await.unwrap();
    let queue = |label| sandbox.queue_job("octo-org/widgets", &[label], Duration::from_millis(100));
    let jobs = ["any/2cpu", "any/4cpu", "any/8cpu"].map(queue);
    sandbox.reconcile(&jobs, PATIENCE).await.unwrap();
    for job in jobs.map(|job| job.to_string()) {
        let json: Value =
            serde_json::from_slice(&sandbox.drover(&["explain", &job, "--json"]).await.unwrap().stdout).unwrap();
        let machine = json["instance"].as_str().unwrap();
        sandbox.closed(&machine.into()).await.unwrap();
        let (_, text) = said(&sandbox.drover(&["explain", &job]).await.unwrap());
        let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert_eq!((lines("decided ("), lines("  EC2 launched i-")), (1, 1), "{text}");
        assert!(text.contains(&format!("EC2 launched {machine}  (")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_warns_of_a_shared_group_and_of_old_or_missing_prices() {
    let stack = Stack::start().await;
    let linux = "[[pool]]\nname = \"linux\"\nowner = \"octo-org\"\nlabels = [\"drover\"]\n\
                 repositories = [\"octo-org/widgets\"]\nlaunch_template = \"drover-runner\"\n\
                 instance_types = [\"m7i.large\"]\nmax = 10\n";
    stack.sandbox.apply(&with_short_timings(&format!("{linux}{POOL}")).unwrap()).await.unwrap();
    let table = stack.sandbox.table().await;
    let Some(Item::SpotPrices(prices)) = table.get(&Key::SpotPrices).await.unwrap() else { panic!("no spot prices") };
    table.commit(&Transaction::new().delete(prices)).await.unwrap();
    let shared =
        "pool any has shapes and shares runner_group 1 with linux: a job that names only the group (labels: [])";
    let doctor = stack.run(&["doctor"]).await;
    assert!(doctor.1.contains(shared) && doctor.1.contains("give any a group of its own"), "{}", doctor.1);
    let missing =
        "warn  spot prices: the item MARKET is missing: spot machines of any are tried in the order of list prices -> ";
    assert!(doctor.1.contains(missing), "{}", doctor.1);
    assert!(doctor.1.contains("ok    instance types"), "{}", doctor.1);
    stack.sandbox.sweep().await.unwrap();
    let doctor = stack.run(&["doctor"]).await.1;
    assert!(doctor.contains("ok    spot prices       read ") && !doctor.contains("MARKET"), "{doctor}");

    for item in table.get_many(&[Key::Catalogue, Key::SpotPrices]).await.unwrap() {
        match item {
            Item::Catalogue(mut it) => {
                it.read_at -= SignedDuration::from_hours(49);
                table.commit(&Transaction::new().put(it)).await.unwrap();
            }
            Item::SpotPrices(mut it) => {
                it.read_at -= SignedDuration::from_mins(61);
                table.commit(&Transaction::new().put(it)).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    let doctor = stack.run(&["doctor"]).await.1;
    let old =
        ["warn  instance types: the item CATALOGUE is 2d 1h old", "warn  spot prices: the item MARKET is 1h 1m old"];
    assert!(old.iter().all(|part| doctor.contains(part)), "{doctor}");
    let Some(Item::Catalogue(catalogue)) = table.get(&Key::Catalogue).await.unwrap() else { panic!("no catalogue") };
    table.commit(&Transaction::new().delete(catalogue)).await.unwrap();
    let doctor = stack.run(&["doctor"]).await.1;
    let missing =
        "warn  instance types: the item CATALOGUE is missing: nothing is launched for any -> drover pools apply FILE";
    assert!(doctor.contains(missing), "{doctor}");
    has(
        &stack.run(&["shapes", "any/8cpu"]).await,
        2,
        &["the catalogue of instance types is missing -> drover pools apply FILE"],
    );
}
