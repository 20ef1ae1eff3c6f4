//! Requests to `drover dashboard`, as a browser makes them.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::time::Duration;

use reqwest::{Client, StatusCode};
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Follower, Options, QUEUE, Sandbox};
use sandbox::short_timings::{one_pool, with_short_timings};
use sandbox::state::State;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;

const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";

async fn read(http: &Client, url: &str) -> (StatusCode, String) {
    let answer = http.get(url).send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    (answer.status(), answer.text().await.unwrap())
}

async fn dashboard(sandbox: &Sandbox) -> (Follower, String) {
    let mut dashboard = sandbox.follow(&["dashboard", "--port", "0"]).unwrap();
    let line = dashboard.line().await.unwrap();
    let url = line.split_whitespace().next().unwrap().to_owned();
    (dashboard, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_what_happens_and_escapes_all_text() {
    let mut sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    let (_dashboard, url) = dashboard(&sandbox).await;
    let http = Client::builder().tls_certs_only([]).build().unwrap();

    let (status, page) = read(&http, &url).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.contains("drover pools apply"), "the page shows the error and its remedy: {page}");
    sandbox.apply(&one_pool("")).await.unwrap();

    // A job waits. Anyone who can open a pull request chooses its name.
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(300));
    let arrived =
        |state: &State| state.sqs.bodies(QUEUE).first().map(|body| serde_json::from_str::<Value>(body).unwrap());
    let mut message = sandbox.world.until("the delivery", PATIENCE, arrived).await.unwrap();
    message["job"]["name"] = json!(HOSTILE);
    sandbox.world.act(|state, now| {
        for received in state.sqs.receive(QUEUE, 10, now).unwrap() {
            state.sqs.delete(QUEUE, &received.receipt).unwrap();
        }
        state.sqs.send(QUEUE, &message.to_string(), Duration::ZERO, now).unwrap();
    });
    sandbox.scale().await.unwrap();
    let (status, page) = read(&http, &url).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("Waiting jobs (1)") && page.contains("Machines (1)"), "{page}");
    assert!(
        page.contains("&lt;script&gt;alert(1)&lt;/script&gt;")
            && page.contains("EC2 launched <a href=\"/machine?id=i-"),
        "{page}"
    );
    let (_, story) = read(&http, &format!("{url}job?job={job}")).await;
    assert!(story.contains("Waiting: ") && story.contains("&lt;script&gt;"), "{story}");
    for text in [&page, &story] {
        assert!(!text.contains("<script>") && !text.contains("<img"), "{text}");
    }

    // The job runs, and its wait is shown.
    assert!(page.contains("Wait p50\">-"), "{page}");
    sandbox.go_live();
    sandbox.reconcile(&[job], PATIENCE).await.unwrap();
    // A page is kept for a second.
    let began = Instant::now();
    loop {
        let (_, story) =
            read(&http, &format!("{url}job?job=https://github.com/octo-org/widgets/actions/runs/1/job/{job}")).await;
        if story.contains("success") && story.contains("the runner took the job") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{story}");
    }
    // Waits are cached for a minute: a new dashboard computes them again.
    let (_another, fresh) = dashboard(&sandbox).await;
    let (_, page) = read(&http, &fresh).await;
    assert!(page.contains("Jobs started\">1<") && !page.contains("Wait p50\">-"), "{page}");
    assert_eq!(read(&http, &format!("{url}job?job=nonsense")).await.0, StatusCode::BAD_REQUEST);
    let (_, script) = read(&http, &format!("{url}dashboard.js")).await;
    assert!(script.contains("fetch(location.href)") && !script.contains("innerHTML"), "{script}");

    // DNS rebinding: a foreign page gets no content.
    let rebound = http.get(&url).header("host", "evil.example:4780").send().await.unwrap();
    assert_eq!(rebound.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(!rebound.text().await.unwrap().contains("octo-org"));

    // Nor does one that the operator's browser has open, whatever it loads. Links to the page work.
    for site in ["cross-site", "same-site"] {
        for mode in ["no-cors", "cors", "websocket"] {
            let foreign = http.get(&url).header("sec-fetch-site", site).header("sec-fetch-mode", mode);
            let answer = foreign.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN);
            assert_eq!(answer.headers()["cross-origin-resource-policy"], "same-origin");
        }
        let framed = http.get(&url).header("sec-fetch-site", site).header("sec-fetch-mode", "navigate");
        assert_eq!(framed.header("sec-fetch-dest", "iframe").send().await.unwrap().status(), StatusCode::FORBIDDEN);
        let link = http.get(&url).header("sec-fetch-site", site).header("sec-fetch-mode", "navigate");
        assert_eq!(link.header("sec-fetch-dest", "document").send().await.unwrap().status(), StatusCode::OK);
    }

    // A forwarded port may be left out of the header.
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(http.get(&url).header("host", host).send().await.unwrap().status(), StatusCode::OK);
    }
    let rebound = http.get(&url).header("host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_links_to_cloudwatchs_dashboard_unless_aws_is_emulated() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let http = Client::builder().tls_certs_only([]).build().unwrap();
    // With an endpoint of its own, only the table is emulated.
    let real = [("AWS_ENDPOINT_URL", ""), ("AWS_ENDPOINT_URL_DYNAMODB", sandbox.aws_url.as_str())];
    let link = "<a href=\"https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1\
                #dashboards/dashboard/sandbox\" rel=\"noreferrer\">";
    for (variables, links) in [(&real[..], 1), (&[], 0)] {
        let mut dashboard = sandbox.follow_with(&["dashboard", "--port", "0"], variables).unwrap();
        let line = dashboard.line().await.unwrap();
        let url = line.split_whitespace().next().unwrap();
        for path in ["", "pool?name=linux"] {
            let (status, page) = read(&http, &format!("{url}{path}")).await;
            assert_eq!((status, page.matches(link).count()), (StatusCode::OK, links), "{page}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_read_the_table_once_a_second() {
    // Nothing else reads the table: the functions do not run.
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let (_dashboard, url) = dashboard(&sandbox).await;
    let http = Client::builder().tls_certs_only([]).build().unwrap();
    let queries = || sandbox.calls.counts().get(&("DynamoDB", "Query".to_owned())).copied().unwrap_or_default();

    let before = queries();
    assert_eq!(read(&http, &url).await.0, StatusCode::OK);
    let for_one_page = queries() - before;
    assert!(for_one_page > 0);
    let (before, began) = (queries(), Instant::now());
    for _ in 0..100 {
        assert_eq!(read(&http, &url).await.0, StatusCode::OK);
    }
    let pages = began.elapsed().as_secs() + 1;
    let made = queries() - before;
    assert!(made <= for_one_page * pages, "{made} queries, {for_one_page} for one page");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_state_stays_on_the_page_while_aws_does_not_answer() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let (_dashboard, url) = dashboard(&sandbox).await;
    let http = Client::builder().tls_certs_only([]).build().unwrap();
    let (status, page) = read(&http, &url).await;
    assert!(
        status == StatusCode::OK && page.contains("Waiting jobs (0)") && !page.contains("role=\"alert\""),
        "{page}"
    );
    sandbox.lose_table().await.unwrap();
    let began = Instant::now();
    // A page is kept for a second.
    let page = loop {
        let (status, page) = read(&http, &format!("{url}?pool=linux")).await;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            break page;
        }
        assert!(began.elapsed() < PATIENCE, "{page}");
    };
    for part in ["role=\"alert\"", "This is the state of ", "Waiting jobs (0)", "Machines (0)"] {
        assert!(page.contains(part), "no {part}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drover_works_in_a_shell_that_sources_the_sandboxs_file() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let script = format!(". {} && drover pools", sandbox.operators_shell().unwrap().display());
    let said = Command::new("sh").args(["-c", &script]).env("AWS_SESSION_TOKEN", "another").output().await.unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success() && text.contains("linux"), "{text}{}", String::from_utf8_lossy(&said.stderr));
}

const SHAPES: &str = r#"[[pool]]
name = "any"
owner = "octo-org"
repositories = ["octo-org/widgets"]
launch_templates = { x64 = "drover-runner" }
max = 10
usd_per_hour = 4.0
[pool.shapes]
cpu = "2..8"
ram = "4..64"
arch = ["x64"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_with_shapes_show_their_price_per_hour_and_the_class_of_jobs_and_machines() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let (_before, url) = dashboard(&sandbox).await;
    let http = Client::builder().tls_certs_only([]).build().unwrap();
    let (_, plain) = read(&http, &url).await;
    assert!(!plain.contains("USD per hour") && !plain.contains(">Class<"), "{plain}");

    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&with_short_timings(SHAPES).unwrap()).await.unwrap();
    sandbox.queue_job("octo-org/widgets", &["any/8cpu/32gb"], Duration::from_secs(600));
    let arrived = |state: &State| (!state.sqs.bodies(QUEUE).is_empty()).then_some(());
    sandbox.world.until("the delivery", PATIENCE, arrived).await.unwrap();
    sandbox.scale().await.unwrap();
    let (_dashboard, url) = dashboard(&sandbox).await;
    let (_, page) = read(&http, &url).await;
    // The list price of m7i.2xlarge and its volume.
    assert!(page.contains("data-title=\"USD per hour\">0.4") && page.contains("/4.00<"), "{page}");
    assert_eq!(page.matches("data-title=\"Class\">any/8cpu/32gb<").count(), 2, "a job and a machine: {page}");
}
