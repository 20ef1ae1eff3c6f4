//! What an operator sees in a browser. The way of a new operator: init, doctor, pools apply, a job, explain. Then the secrets:
//! stored and rotated. Then the dashboard.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;
#[path = "browser/dashboard.rs"]
mod dashboard;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use platform::github::app_secret;
use sandbox::github::AppKey;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{APP_SECRET, Options, Sandbox, WEBHOOK_SECRET};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use world::github::{Answer, Endpoint, HookConfig};

use crate::common::Visitor;

/// The address of the page and the number that a running `drover init` prints to standard error.
async fn page_and_number(child: &mut Child) -> (String, String) {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let mut page = String::new();
    loop {
        let line = lines.next_line().await.unwrap().expect("init prints an address and a number");
        if line.contains("http://127.0.0.1") {
            page = line.trim().to_owned();
        }
        if let Some((_, number)) = line.split_once("asks for this number: ") {
            return (page, number.trim().to_owned());
        }
    }
}

/// Waits until a running `drover init` prints this.
async fn until(child: &mut Child, part: &str) {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let said = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(part) {
                return;
            }
        }
        panic!("init ended without {part:?}");
    };
    tokio::time::timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("init never printed {part:?}"));
}

fn begin(sandbox: &Sandbox, arguments: &[&str]) -> Child {
    let mut command = sandbox.operator(arguments, &[]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

fn secret(sandbox: &Sandbox, name: &str) -> (String, Option<String>) {
    sandbox.world.look(|state| (state.secrets[name].current.clone(), state.secrets[name].previous.clone()))
}

/// The app's id, and its key in a file of the folder.
fn key_file(sandbox: &Sandbox, folder: &Path) -> (String, PathBuf) {
    let app: Value = serde_json::from_str(&secret(sandbox, APP_SECRET).0).unwrap();
    let file = folder.join("drover.private-key.pem");
    std::fs::write(&file, app["private_key"].as_str().unwrap()).unwrap();
    (app["app_id"].to_string(), file)
}

/// Opens the page that the only link leads to.
async fn follow_link(visitor: &mut Visitor) {
    let page = visitor.text().await;
    let (_, link) = page.split_once("href=\"").unwrap_or_else(|| panic!("no link: {page}"));
    visitor.open(link.split_once('"').unwrap().0).await;
}

async fn run_a_job(sandbox: &Sandbox) -> String {
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(100));
    let over = |state: &State| state.github.job(job).is_some_and(|job| job.completed_at.is_some()).then_some(());
    sandbox.world.until("the job to be over", PATIENCE, over).await.unwrap();
    job.to_string()
}

/// Runs a command with this standard input.
async fn drover_with_input(
    sandbox: &Sandbox,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> (String, Option<i32>) {
    let mut command = sandbox.operator(arguments, variables);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_operator_sets_up_an_app_and_runs_a_job() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.forget_app();
    let before = sandbox.drover(&["doctor"]).await.unwrap();
    assert_eq!(before.status.code(), Some(1));

    let mut init = begin(&sandbox, &["init", "octo-org", "--no-browser", "--json"]);
    let (page, number) = page_and_number(&mut init).await;
    let mut visitor = Visitor::start().await;
    visitor.open(&page).await;
    visitor.write("number", &number).await;
    visitor.press().await;
    assert!(visitor.text().await.contains("organization_self_hosted_runners"), "the page lists the permissions");
    visitor.press().await;
    assert!(visitor.text().await.contains("Create GitHub App for octo-org"), "{}", visitor.text().await);
    assert_eq!(secret(&sandbox, APP_SECRET).0, "", "the user has not confirmed yet");
    visitor.press().await;
    assert!(visitor.text().await.contains("Install it on octo-org"), "back on the page of init");
    follow_link(&mut visitor).await;
    assert!(visitor.text().await.contains("Install drover-octo-org"), "the link leads to the installation");
    visitor.open(&format!("{page}installed")).await;
    sandbox.world.act(|state, now| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.install(owner, now);
    });
    visitor.wait_for("Return to the terminal").await;
    visitor.leave().await;
    let output = tokio::time::timeout(PATIENCE, init.wait_with_output()).await.unwrap().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &said["installed"]), (Some(0), &Value::Bool(true)), "{said}");
    let (asked, hook) = sandbox.world.look(|state| (state.github.app().clone(), state.github.hook().clone()));
    assert_eq!((said["app_id"].as_u64(), hook.url.as_str()), (Some(asked.id), sandbox.webhooks.url.as_str()));
    assert_eq!(Some(secret(&sandbox, WEBHOOK_SECRET).0), hook.secret);

    let again = sandbox.drover(&["init", "octo-org", "--no-browser"]).await.unwrap();
    assert_eq!(again.status.code(), Some(2), "an app is not replaced by accident");

    sandbox.apply(&one_pool("")).await.unwrap();
    let job = run_a_job(&sandbox).await;
    let doctor = sandbox.drover(&["doctor", "--json"]).await.unwrap();
    let checks: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let bad = checks["checks"].as_array().unwrap().iter().filter(|check| check["level"] == "fail");
    assert_eq!((bad.collect::<Vec<_>>(), doctor.status.code()), (Vec::new(), Some(0)));
    let explained = sandbox.drover(&["explain", &job]).await.unwrap();
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.contains(": done") && explained.contains("GitHub reported: completed"), "{explained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_for_a_personal_repository_saves_its_key_in_a_file_if_asked_to() {
    let (sandbox, folder) = (Sandbox::start(Options::default()).await.unwrap(), tempfile::tempdir().unwrap());
    sandbox.forget_app();
    let (key, name) = (folder.path().join("drover.pem"), "my-runners");
    let file = key.to_str().unwrap();
    let arguments =
        ["init", "octo-org/widgets", "--personal", "--name", name, "--save-key", file, "--no-browser", "--json"];
    let mut init = begin(&sandbox, &arguments);
    let (page, number) = page_and_number(&mut init).await;
    let mut visitor = Visitor::start().await;
    visitor.open(&page).await;
    visitor.write("number", &number).await;
    visitor.press().await;
    let asked = visitor.text().await;
    assert!(asked.contains("administration") && !asked.contains("organization_self_hosted_runners"), "{asked}");
    visitor.press().await;
    assert!(visitor.text().await.contains("Create GitHub App for your account"), "{}", visitor.text().await);
    visitor.press().await;
    follow_link(&mut visitor).await;
    visitor.press().await;
    assert!(visitor.text().await.contains("<h1>Installed"), "{}", visitor.text().await);
    visitor.leave().await;
    let output = tokio::time::timeout(PATIENCE, init.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let stored: Value = serde_json::from_str(&secret(&sandbox, APP_SECRET).0).unwrap();
    assert_eq!(std::fs::read_to_string(&key).unwrap(), stored["private_key"].as_str().unwrap());
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "readable by its owner only");
    assert_eq!(sandbox.world.look(|state| state.github.app().slug.clone()), name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_the_page_did_not_start_is_refused() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.forget_app();
    let mut init = begin(&sandbox, &["init", "octo-org", "--no-browser"]);
    let (page, number) = page_and_number(&mut init).await;
    let http = reqwest::Client::new();
    sandbox.world.act(|state, now| state.github.add_manifest_code("theirs", now));
    let forged = http.get(format!("{page}made?code=theirs&state=guessed")).send().await.unwrap();
    assert_eq!(forged.status(), 403);
    let rebound = http.get(&page).header("host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status(), 421);
    let shown = http.get(&page).send().await.unwrap();
    assert!(
        shown.headers()["content-security-policy"].to_str().unwrap().contains("form-action 'self' http://127.0.0.1")
    );
    assert_eq!(secret(&sandbox, APP_SECRET).0, "");

    // Another user of the machine opens the page, and does not see the terminal. A browser sends a foreign page's requests, too.
    let enter = |number: &str| {
        let body = form_urlencoded::Serializer::new(String::new()).append_pair("number", number).finish();
        http.post(&page).header("content-type", "application/x-www-form-urlencoded").body(body)
    };
    let shown = shown.text().await.unwrap();
    assert!(!shown.contains("state=") && !shown.contains("manifest"), "{shown}");
    let foreign = enter(&number).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(foreign.status(), 403);
    for guess in 0..10 {
        let refused = enter(&format!("{guess}")).send().await.unwrap();
        assert_eq!(refused.status(), 403);
        assert!(!refused.text().await.unwrap().contains("state="));
    }
    let exhausted = enter(&number).send().await.unwrap();
    assert_eq!(exhausted.status(), 403, "not even the right number is accepted after ten wrong ones");
    assert_eq!(secret(&sandbox, APP_SECRET).0, "");
    until(&mut init, "Too many wrong numbers were entered").await;
    assert!(init.try_wait().unwrap().is_none(), "init still waits for its own callback");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_app_is_set_up_with_its_key() {
    let (sandbox, folder) = (Sandbox::start(Options::default()).await.unwrap(), tempfile::tempdir().unwrap());
    let (id, file) = key_file(&sandbox, folder.path());
    sandbox.forget_app();
    let elsewhere = HookConfig { url: "https://example.com/".to_owned(), secret: None, ..HookConfig::default() };
    sandbox.world.act(|state, now| {
        state.github.set_hook(elsewhere);
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.install(owner, now);
    });
    let taken = sandbox.drover(&["init", "octo-org", "--app-id", &id, "--key", file.to_str().unwrap()]).await.unwrap();
    let said = String::from_utf8([taken.stdout, taken.stderr].concat()).unwrap();
    assert_eq!(taken.status.code(), Some(0), "{said}");
    let hook = sandbox.world.look(|state| state.github.hook().clone());
    assert_eq!(
        (hook.url.as_str(), hook.secret),
        (sandbox.webhooks.url.as_str(), Some(secret(&sandbox, WEBHOOK_SECRET).0))
    );
    sandbox.apply(&one_pool("")).await.unwrap();
    run_a_job(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_reports_calls_that_fail_and_refuses_an_existing_file_before_it_opens_a_page() {
    let (sandbox, folder) = (Sandbox::start(Options::default()).await.unwrap(), tempfile::tempdir().unwrap());
    let (id, file) = key_file(&sandbox, folder.path());
    let file = file.to_str().unwrap();
    sandbox.forget_app();
    let refused = sandbox.drover(&["init", "octo-org", "--no-browser", "--save-key", file]).await.unwrap();
    let said = String::from_utf8([refused.stdout, refused.stderr].concat()).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("init replaces no file"), "{said}");
    assert!(!said.contains("http://127.0.0.1"), "no page: {said}");

    let mut init = begin(&sandbox, &["init", "octo-org", "--app-id", &id, "--key", file]);
    until(&mut init, "Waiting for the installation").await;
    sandbox.world.act(|state, _| state.github.faults.down = true);
    until(&mut init, "whether the app is installed").await;
    sandbox.world.act(|state, now| {
        state.github.faults.down = false;
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.install(owner, now);
    });
    let output = tokio::time::timeout(PATIENCE, init.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_checked_before_it_is_stored_and_a_rotation_loses_no_delivery() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let (app, _) = secret(&sandbox, APP_SECRET);
    let app: Value = serde_json::from_str(&app).unwrap();
    let (id, key) = (app["app_id"].to_string(), app["private_key"].as_str().unwrap());
    let before = [secret(&sandbox, APP_SECRET), secret(&sandbox, WEBHOOK_SECRET)];
    let put_app = ["secrets", "put", "app", "--app-id", id.as_str()];
    let foreign_key = AppKey::generate().unwrap().private;
    for (arguments, input) in [
        (&put_app[..], "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"),
        (&put_app[..], foreign_key.as_str()),
        (&["secrets", "put", "webhook"], "hunter2"),
        (&["secrets", "put", "webhook"], "two words that are long enough"),
        (&["secrets", "put", "webhook", "/nowhere"], ""),
    ] {
        let (said, code) = drover_with_input(&sandbox, arguments, &[], input).await;
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2") && !said.contains("two words"), "a secret is never printed: {said}");
    }
    assert_eq!([secret(&sandbox, APP_SECRET), secret(&sandbox, WEBHOOK_SECRET)], before, "nothing was stored");

    // The second time, the stored secret says where GitHub is.
    for url in [sandbox.github_url.as_str(), ""] {
        let (said, code) = drover_with_input(&sandbox, &put_app, &[("DROVER_GITHUB_API_URL", url)], key).await;
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            secret(&sandbox, APP_SECRET).0,
            app_secret(id.parse().unwrap(), key, Some(&sandbox.github_url.parse().unwrap())).unwrap()
        );
    }

    // Ingest has read the first secret. A job is queued right after each new one.
    run_a_job(&sandbox).await;
    let first = secret(&sandbox, WEBHOOK_SECRET).0;
    let rotated = sandbox.drover(&["secrets", "rotate", "webhook"]).await.unwrap();
    assert_eq!(rotated.status.code(), Some(0));
    let (second, previous) = secret(&sandbox, WEBHOOK_SECRET);
    assert_eq!(
        (previous, Some(&second)),
        (Some(first), sandbox.world.look(|it| it.github.hook().secret.clone()).as_ref())
    );
    run_a_job(&sandbox).await;
    let accepted = sandbox.world.look(|state| {
        let mut answers = state.github.deliveries().filter_map(|it| it.attempted.as_ref()).map(|it| it.answer);
        answers.all(|answer| answer == Answer::Status(202))
    });
    assert!(accepted, "ingest accepted each delivery on the first attempt");

    sandbox.world.act(|state, _| state.github.faults.down = true);
    let away = sandbox.drover(&["secrets", "rotate", "webhook"]).await.unwrap();
    assert_eq!(
        (away.status.code(), secret(&sandbox, WEBHOOK_SECRET).0),
        (Some(3), second.clone()),
        "nothing is stored while GitHub is unavailable"
    );

    // GitHub does not take the new secret: the error names the command that repairs it.
    sandbox.world.act(|state, _| {
        state.github.faults.down = false;
        state.github.faults.broken.extend([(Endpoint::UpdateHook, 502); 8]);
    });
    let half = sandbox.drover(&["secrets", "rotate", "webhook"]).await.unwrap();
    let said = String::from_utf8_lossy(&half.stderr).into_owned();
    assert!(half.status.code() == Some(3) && said.contains("run `drover secrets rotate webhook` again"), "{said}");
    assert_ne!(secret(&sandbox, WEBHOOK_SECRET).0, second);
    sandbox.world.act(|state, _| state.github.faults.broken.clear());
    assert_eq!(sandbox.drover(&["secrets", "rotate", "webhook"]).await.unwrap().status.code(), Some(0));
    let of_github = sandbox.world.look(|state| state.github.hook().secret.clone());
    assert_eq!(of_github, Some(secret(&sandbox, WEBHOOK_SECRET).0));
    run_a_job(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_updates_itself_and_fits_a_phone_and_dark_mode() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let mut dashboard = sandbox.follow(&["dashboard", "--port", "0"]).unwrap();
    let line = dashboard.line().await.unwrap();
    let url = line.split_whitespace().next().unwrap();
    let mut visitor = Visitor::start().await;
    visitor.open(url).await;
    assert!(visitor.wait_for("Waiting jobs (0)").await.contains("Machines (0)"));
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(300));
    sandbox.reconcile(&[job], PATIENCE).await.unwrap();
    visitor.wait_for("EC2 launched <a href=\"/machine?id=i-").await;

    // The page is not wider than a phone, and dark mode has light text.
    let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
    visitor.emulate("Emulation.setDeviceMetricsOverride", phone).await;
    if let Some(beyond) = visitor.script("return document.documentElement.scrollWidth - innerWidth").await {
        assert!(beyond.as_i64().unwrap() <= 0, "the page is {beyond} pixels wider than a phone");
    }
    let ink = "return getComputedStyle(document.body).color.match(/\\d+/g).slice(0, 3).map(Number)";
    for (scheme, is_dark) in [("light", false), ("dark", true)] {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        visitor.emulate("Emulation.setEmulatedMedia", media).await;
        if let Some(colour) = visitor.script(ink).await {
            let sum: i64 = colour.as_array().unwrap().iter().filter_map(Value::as_i64).sum();
            assert_eq!(sum > 3 * 128, is_dark, "{scheme}: the text is {colour}");
        }
    }
    visitor.leave().await;
}
