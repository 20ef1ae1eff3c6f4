//! `drover doctor` in a new installation: after one job, eleven faults are prepared one by one, and each is found with one
//! command.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::time::Duration;

use domain::ids::JobId;
use domain::log::Transaction;
use domain::state::{FoundJobs, Item, Janitor, Key};
use engine::ports::{Clock, Store};
use jiff::SignedDuration;
use platform::clock::SystemClock;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{DEAD_LETTERS, Driven, Options, QUEUE, Sandbox, WEBHOOK_SECRET};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use serde_json::Value;
use world::ec2::{Code, LaunchMatch, Operation, Refusal, When};
use world::github::{Group, HookConfig};

const RUNNERS: &str = "organization_self_hosted_runners";

/// The names of the failed checks of `drover doctor`, and its exit code.
async fn doctor(sandbox: &Sandbox, more: &[&str]) -> (Vec<String>, Option<i32>) {
    let said = sandbox.drover(&[&["doctor", "--json"], more].concat()).await.unwrap();
    let json: Value = serde_json::from_slice(&said.stdout).unwrap();
    let checks = json["checks"].as_array().unwrap();
    assert!(checks.len() >= 25, "{json:#}");
    let bad = checks.iter().filter(|check| check["level"] == "fail");
    let names = bad.map(|check| {
        assert!(!check["remedy"].as_str().unwrap().is_empty(), "each failure has a remedy: {check}");
        check["name"].as_str().unwrap().to_owned()
    });
    (names.collect(), said.status.code())
}

/// Breaks one part, expects the check to fail, and repairs the part.
async fn found(sandbox: &Sandbox, check: &str, break_it: impl FnOnce(&mut State), repair: impl FnOnce(&mut State)) {
    sandbox.world.act(|state, _| break_it(state));
    let (wrong, code) = doctor(sandbox, &[]).await;
    assert!(wrong.iter().any(|name| name == check), "{check} is not among {wrong:?}");
    assert_eq!(code, Some(1));
    sandbox.world.act(|state, _| repair(state));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_prepared_fault_is_found_with_one_command() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let (_, without_pools) = doctor(&sandbox, &[]).await;
    assert_eq!(without_pools, Some(1), "no pools are applied yet");
    sandbox.apply(&one_pool("")).await.unwrap();
    let labels = ["drover"];
    let job = sandbox.queue_job("octo-org/widgets", &labels, Duration::from_millis(100));
    let over = |state: &State| state.github.job(job).is_some_and(|job| job.completed_at.is_some()).then_some(());
    sandbox.world.until("the job to be over", PATIENCE, over).await.unwrap();
    assert_eq!(doctor(&sandbox, &[]).await, (Vec::new(), Some(0)), "all is well");
    let owner = sandbox.world.look(|state| state.github.find_owner("octo-org").unwrap().clone());
    let hook = sandbox.world.look(|state| state.github.hook().clone());

    // 1. The webhook points elsewhere, which --fix repairs.
    let elsewhere = HookConfig { url: "https://example.com/hook".to_owned(), ..hook.clone() };
    let no_repair = |_: &mut State| {};
    found(&sandbox, "webhook", |state| state.github.set_hook(elsewhere), no_repair).await;
    assert_eq!(doctor(&sandbox, &["--fix"]).await.1, Some(0));
    assert_eq!(sandbox.world.look(|state| state.github.hook().url.clone()), hook.url);
    // 2. The webhook's secret was never filled.
    let secret = sandbox.world.look(|state| state.secrets[WEBHOOK_SECRET].current.clone());
    let fill = |text: String| move |state: &mut State| state.secrets.get_mut(WEBHOOK_SECRET).unwrap().current = text;
    found(&sandbox, "webhook secret", fill(String::new()), fill(secret)).await;
    // 3. GitHub signs with another secret.
    let other = HookConfig { secret: Some("another".to_owned()), ..hook.clone() };
    found(&sandbox, "signature", |state| state.github.set_hook(other), |state| state.github.set_hook(hook)).await;
    // 4. The app lacks a permission.
    let permit = |level: Option<&'static str>| move |state: &mut State| state.github.set_permission(RUNNERS, level);
    found(&sandbox, "permissions", permit(None), permit(Some("write"))).await;
    // 5. The app is not subscribed to workflow_job.
    let subscribe = |events: &'static [&'static str]| move |state: &mut State| state.github.set_events(events);
    found(&sandbox, "events", subscribe(&[]), subscribe(&["workflow_job"])).await;
    // 6. The organisation uninstalled the app.
    sandbox.world.act(|state, _| state.github.uninstall(owner.id));
    assert!(doctor(&sandbox, &[]).await.0.contains(&"installed".to_owned()));
    sandbox.world.act(|state, now| {
        state.github.install(owner.id, now);
    });
    // 7. The runner group admits every repository.
    let groups = |groups: Vec<Group>| {
        move |state: &mut State| groups.into_iter().for_each(|group| state.github.set_group(owner.id, group))
    };
    let open = owner.groups.iter().map(|group| Group { repositories: None, allows_public: true, ..group.clone() });
    found(&sandbox, "runner groups", groups(open.collect()), groups(owner.groups.clone())).await;
    // 8. The subnets are full.
    let full = |addresses: Option<u32>| {
        move |state: &mut State| {
            let subnets: Vec<_> = state.ec2.subnets().cloned().collect();
            subnets.iter().for_each(|subnet| state.ec2.set_addresses(subnet, addresses));
        }
    };
    found(&sandbox, "addresses", full(Some(0)), full(None)).await;
    // 9. A message that the scaler cannot process.
    let poison = |state: &mut State| {
        let now = state.secrets[WEBHOOK_SECRET].created_at;
        drop(state.sqs.send(DEAD_LETTERS, "poison", Duration::ZERO, now).unwrap());
    };
    found(&sandbox, "dead letters", poison, no_repair).await;
    // 10. EC2 refuses to launch for a job: drover explain says so.
    sandbox.world.act(|state, _| {
        let (matches, code) = (LaunchMatch::default(), Code::InsufficientInstanceCapacity);
        state.ec2.faults.refusals.push(Refusal { matches, code, when: When::Chance(1.0) });
    });
    let waits = sandbox.queue_job("octo-org/widgets", &labels, Duration::from_millis(100));
    let refused = |state: &State| {
        state.ec2.struck().get(&Code::InsufficientInstanceCapacity).is_some_and(|times| *times >= 2).then_some(())
    };
    sandbox.world.until("EC2 to refuse in both zones", PATIENCE, refused).await.unwrap();
    let explained = sandbox.drover(&["explain", &waits.to_string()]).await.unwrap();
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(said.contains("Waiting:") && said.contains("InsufficientInstanceCapacity"), "{said}");
    // 11. The launch template is gone.
    let gone = |state: &mut State| {
        let templates: Vec<_> = state.ec2.launch_templates().map(|template| template.id.clone()).collect();
        templates.iter().for_each(|id| state.ec2.delete_launch_template(id));
    };
    found(&sandbox, "launch templates", gone, no_repair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_addresses_of_running_machines_are_not_missing() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("max = 1\n")).await.unwrap();
    sandbox.world.act(|state, _| {
        let subnets: Vec<_> = state.ec2.subnets().cloned().collect();
        subnets.iter().enumerate().for_each(|(number, id)| state.ec2.set_addresses(id, Some(u32::from(number == 0))));
    });
    let addresses = async || {
        let said = sandbox.drover(&["doctor", "--json"]).await.unwrap();
        let json: Value = serde_json::from_slice(&said.stdout).unwrap();
        json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "addresses").unwrap().to_string()
    };
    assert!(!addresses().await.contains("cannot launch"), "one address is free");
    sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(600));
    let arrived = |state: &State| (!state.sqs.bodies(QUEUE).is_empty()).then_some(());
    sandbox.world.until("the delivery", PATIENCE, arrived).await.unwrap();
    sandbox.scale().await.unwrap();
    assert_eq!(sandbox.world.look(|state| state.ec2.alive().count()), 1);
    let full = addresses().await;
    assert!(full.contains("has no free address") && !full.contains("cannot launch"), "{full}");
    assert!(full.contains("\"warn\""), "{full}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_warns_for_an_hour_of_jobs_that_only_a_search_found() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let found = async |ago: SignedDuration| {
        let before = match sandbox.table().await.get(&Key::Janitor).await.unwrap() {
            Some(Item::Janitor(before)) => before,
            _ => Janitor::default(),
        };
        let found = FoundJobs { at: SystemClock.now() - ago, jobs: 3, example: JobId(42) };
        let janitor = Janitor { found: Some(found), ..before };
        sandbox.table().await.commit(&Transaction::new().put(janitor)).await.unwrap();
        let said = sandbox.drover(&["doctor", "--json"]).await.unwrap();
        let json: Value = serde_json::from_slice(&said.stdout).unwrap();
        json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "late webhooks").unwrap().clone()
    };
    let check = found(SignedDuration::from_mins(59)).await;
    assert_eq!(check["level"], "warn", "{check}");
    assert!(check["says"].as_str().unwrap().contains("a search found 3 jobs without a recorded webhook"), "{check}");
    assert_eq!(found(SignedDuration::from_mins(61)).await["level"], "pass");
}

/// How many calls of GitHub and EC2 the models have refused.
fn refused(sandbox: &Sandbox) -> u64 {
    let refused = sandbox.calls.refused().into_iter();
    refused.filter(|((service, _), _)| ["GitHub", "EC2"].contains(service)).map(|(_, times)| times).sum()
}

/// Sweeps once. Doctor must fail if and only if the models refused a call of the sweep, and the log must have the reason.
async fn sweep_and_compare(sandbox: &Sandbox, reason: Option<&str>) {
    let before = refused(sandbox);
    sandbox.sweep().await.unwrap();
    let was_refused = refused(sandbox) > before;
    assert_eq!(was_refused, reason.is_some(), "the models know");
    let said = sandbox.drover(&["doctor", "--json"]).await.unwrap();
    let json: Value = serde_json::from_slice(&said.stdout).unwrap();
    let check = json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "last sweep").unwrap();
    assert_eq!(check["level"] == "fail", was_refused, "{check}");
    if let Some(reason) = reason {
        assert_eq!(said.status.code(), Some(1));
        assert!(check["says"].as_str().unwrap().contains(reason), "{check}");
        let events = sandbox.drover(&["events"]).await.unwrap();
        let events = String::from_utf8_lossy(&events.stdout).into_owned();
        assert!(events.lines().last().unwrap().contains(reason), "{events}");
    }
}

/// V1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_fails_exactly_as_long_as_sweeps_fail_and_events_say_why() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    // Without a machine the list of runners would be read every twelve minutes only.
    sandbox.unowned(&[("drover:hold", "")]);
    sweep_and_compare(&sandbox, None).await;
    let owner = sandbox.world.look(|state| state.github.find_owner("octo-org").unwrap().id);
    sandbox.world.act(|state, _| state.github.uninstall(owner));
    sweep_and_compare(&sandbox, Some("the app is not installed on octo-org")).await;
    sandbox.world.act(|state, now| {
        state.github.install(owner, now);
    });
    sweep_and_compare(&sandbox, None).await;
    sandbox.world.act(|state, _| state.github.faults.down = true);
    sweep_and_compare(&sandbox, Some("503")).await;
    sandbox.world.act(|state, _| state.github.faults.down = false);
    sandbox.world.act(|state, _| {
        state.ec2.faults.errors.push_back((Operation::DescribeInstances, Code::UnauthorizedOperation));
    });
    sweep_and_compare(&sandbox, Some("UnauthorizedOperation")).await;
    sweep_and_compare(&sandbox, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_the_customer_for_volumes_is_noticed() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    sandbox.sweep().await.unwrap();
    let said = async || String::from_utf8(sandbox.drover(&["doctor"]).await.unwrap().stdout).unwrap();
    assert!(said().await.contains("volume key        the one that AWS manages"), "{}", said().await);
    let key = "arn:aws:kms:eu-central-1:123456789012:key/0a1b";
    sandbox.world.act(|state, _| key.clone_into(&mut state.volume_key));
    let said = said().await;
    assert!(said.contains(&format!("warn  volume key: the account encrypts volumes with {key}")), "{said}");
    assert!(said.contains("-> set ebs_kms_key_arn"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_below_what_the_pools_can_need_are_noticed_and_unreadable_ones_are_no_fault() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    sandbox.sweep().await.unwrap();
    let said = async || String::from_utf8(sandbox.drover(&["doctor"]).await.unwrap().stdout).unwrap();
    let of_quotas = |said: &str| said.split("quotas\n").nth(1).unwrap().lines().take(2).collect::<Vec<_>>().join("\n");
    let fine = "  ok    vCPUs             on-demand: 20 of 640 can be needed\n  ok    Lambda            1000 invocations at a time";
    assert_eq!(of_quotas(&said().await), fine);

    // The quotas of a new account.
    sandbox.world.act(|state, _| state.quotas.extend([("L-1216C47A", 5.0), ("L-B99A9384", 10.0)]));
    let small = said().await;
    let vcpus =
        "warn  vCPUs: on-demand: linux can need 20 vCPUs, the quota is 5 (Running On-Demand Standard instances) -> ";
    assert!(small.contains(vcpus) && small.contains("warn  Lambda: 10 invocations at a time"), "{small}");

    // Not one machine can run.
    sandbox.world.act(|state, _| state.quotas.insert("L-1216C47A", 1.0));
    let none = said().await;
    assert!(none.contains("pool linux cannot launch a machine, because its smallest has 2 vCPUs"), "{none}");
    assert_eq!(doctor(&sandbox, &[]).await, (vec!["vCPUs".to_owned()], Some(1)));

    // A role without the permission.
    sandbox.world.act(|state, _| state.denied.insert("servicequotas:GetServiceQuota"));
    let unread = of_quotas(&said().await);
    assert!(unread.lines().all(|line| line.contains("not checked: this role may not read quotas: ")), "{unread}");
    assert_eq!(doctor(&sandbox, &[]).await, (Vec::new(), Some(0)));
    sandbox.world.act(|state, _| {
        state.denied.clear();
        state.denied.insert("ec2:DescribeInstanceTypes");
    });
    let unread = of_quotas(&said().await);
    assert!(unread.contains("vCPUs             not checked: this role may not read quotas: "), "{unread}");
}
