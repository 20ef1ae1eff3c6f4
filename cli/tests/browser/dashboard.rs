//! The pages of the dashboard in a browser, with 400 waiting jobs and 100 machines. With `DROVER_SCREENSHOTS=FOLDER`, pictures of
//! them are written there.

use std::time::Duration;

use domain::state::{Item, SlotState};
use engine::ports::{Clock, Store};
use jiff::SignedDuration;
use platform::clock::SystemClock;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use serde_json::{Value, json};

use crate::common::Visitor;

const POOLS: &str = "[defaults]\nowner = \"octo-org\"\nlaunch_template = \"drover-runner\"\ninstance_types = [\"m7i.large\"]\n\
    [[pool]]\nname = \"linux\"\nlabels = [\"linux\"]\nmax = 40\n[[pool]]\nname = \"large\"\nlabels = [\"large\"]\nmax = 30\n\
    [[pool]]\nname = \"build\"\nlabels = [\"build\"]\nmax = 30\n";

/// What a screen reader or a keyboard cannot use, and text that is hard to read. The rules are a part of WCAG 2.2, level AA.
const AUDIT: &str = include_str!("../data/audit.js");

fn notice(job: u64, pool: &str, action: &str, more: Value) -> Value {
    let created = SystemClock.now() - SignedDuration::from_secs(600 - i64::try_from(job).unwrap());
    let mut notice = json!({
        "v": 1, "kind": "workflow_job", "action": action, "delivery": "ec03c102-1402-3484-26c5-746d4caa16a8",
        "public": false, "received_at": SystemClock.now(), "repository": "octo-org/widgets",
        "job": {
            "id": job, "run_id": 7, "run_attempt": 1, "name": format!("test {job}"), "labels": [pool], "status": action,
            "created_at": created, "head_sha": "6f4de38408d73bc77d5227eccb8e066a3859a14d", "html_url": "",
        },
    });
    let fields = notice["job"].as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    notice
}

/// The scaler processes these messages.
async fn process(sandbox: &Sandbox, messages: &[Value]) {
    sandbox.world.act(|state, now| {
        for message in messages {
            state.sqs.send(QUEUE, &message.to_string(), Duration::ZERO, now).unwrap();
        }
    });
    while sandbox.world.look(|state| !state.sqs.bodies(QUEUE).is_empty()) {
        sandbox.scale().await.unwrap();
    }
}

async fn audited(visitor: &Visitor, what: &str) {
    for scheme in ["light", "dark"] {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        visitor.emulate("Emulation.setEmulatedMedia", media).await;
        for (screen, width, height) in [("desktop", 1400, 900), ("phone", 390, 844)] {
            let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
            visitor.emulate("Emulation.setDeviceMetricsOverride", metrics).await;
            let Some(found) = visitor.script(AUDIT).await else { return };
            assert_eq!(found, json!([]), "{what}, {screen}, {scheme}");
            visitor.picture(&format!("{what}-{screen}-{scheme}")).await;
        }
    }
    let desktop = json!({ "width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    visitor.emulate("Emulation.setDeviceMetricsOverride", desktop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_followed_through_the_pages_while_three_hundred_wait() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(POOLS).await.unwrap();
    let pool = |job: u64| ["linux", "large", "build"][usize::try_from(job % 3).unwrap()];
    let queued: Vec<Value> = (0..400).map(|job| notice(job, pool(job), "queued", json!({}))).collect();
    process(&sandbox, &queued).await;

    let mut dashboard = sandbox.follow(&["dashboard", "--port", "0"]).unwrap();
    let line = dashboard.line().await.unwrap();
    let url = line.split_whitespace().next().unwrap();
    let mut visitor = Visitor::start().await;
    visitor.open(url).await;
    let page = visitor.wait_for("Waiting jobs (400)").await;
    for part in ["Machines (100)", "the pool runs its maximum of 40 machines", "Page 1 of 16", "at max", "Cost today"] {
        assert!(page.contains(part), "no {part}");
    }
    let order = ["Stack", "<h2>Pools", "Waiting jobs", "Machines (", "<h2>Events"].map(|part| page.find(part).unwrap());
    assert!(order.is_sorted(), "{order:?}");
    if let Some(top) = visitor.script("return document.querySelector('#machines').getBoundingClientRect().top").await {
        assert!(top.as_f64().unwrap() < 2500.0, "the machines are {top} pixels down the page");
    }
    audited(&visitor, "overview").await;
    let wrong = "document.querySelector('main').insertAdjacentHTML('beforeend', \
        '<input><h4>left out</h4><p style=\"color: #999; background: #fff\">pale</p>');";
    if let Some(found) = visitor.script(&format!("{wrong} {AUDIT}")).await {
        assert_eq!(
            found.as_array().unwrap().len(),
            3,
            "the audit finds a missing label, heading and contrast: {found}"
        );
    }

    // The job waits, runs and ends; its machine has a page, too.
    visitor.open(&format!("{url}job?job=3")).await;
    assert!(visitor.wait_for("test 3").await.contains("Waiting: "));
    let slot = sandbox.table().await.partition(&"linux".parse().unwrap()).await.unwrap().items.into_iter();
    let (machine, runner) = slot
        .filter_map(|item| if let Item::Slot(slot) = item { Some(slot.state) } else { None })
        .find_map(|state| match state {
            SlotState::Configured { machine, runner } | SlotState::Online { machine, runner, .. } => {
                Some((machine, runner))
            }
            _ => None,
        })
        .unwrap();
    let runner =
        json!({ "runner": { "id": runner.runner_id, "name": runner.runner_name }, "started_at": SystemClock.now() });
    process(&sandbox, &[notice(3, "linux", "in_progress", runner.clone())]).await;
    visitor.open(&format!("{url}job?job=3")).await;
    visitor.wait_for("has been running on i-").await;
    let mut ended = runner;
    ended
        .as_object_mut()
        .unwrap()
        .extend([("completed_at".to_owned(), json!(SystemClock.now())), ("conclusion".to_owned(), json!("success"))]);
    process(&sandbox, &[notice(3, "linux", "completed", ended)]).await;
    visitor.open(&format!("{url}job?job=3")).await;
    let page = visitor.wait_for("success").await;
    for phase in ["queued", "registered", "running"] {
        assert!(page.contains(&format!("phase {phase}")), "no {phase}: {page}");
    }
    audited(&visitor, "job").await;
    visitor.open(&format!("{url}machine?id={}", machine.instance)).await;
    let page = visitor.wait_for("phase running").await;
    assert!(page.contains("m7i.large") && page.contains("/job?job=3"), "{page}");
    audited(&visitor, "machine").await;
    visitor.open(&format!("{url}pool?name=large")).await;
    let page = visitor.wait_for("Pool large").await;
    assert!(page.contains("Machines (30)") && !page.contains("/pool?name=linux\">linux"), "{page}");
    audited(&visitor, "pool").await;

    // The address selects.
    visitor.open(&format!("{url}?find=test+12&jobs=99")).await;
    visitor.wait_for("Waiting jobs (11)").await;
    visitor.open(&format!("{url}?pool=build&machines=2")).await;
    assert!(visitor.wait_for("Machines (30)").await.contains("Page 2 of 2"));
    visitor.leave().await;
}
