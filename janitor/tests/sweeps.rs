//! The janitor as a process: what it removes, and what it leaves alone.

use std::time::Duration;

use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, Sandbox};
use sandbox::short_timings::one_pool;
use serde_json::json;
use tokio::time::Instant;
use world::ec2::EndCause;

/// The shortest waiting times before a finding counts: readings during two seconds must agree.
const NO_DOUBT: &str = "orphan_grace = \"0s\"\nconfirm_gap = \"1s\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphan_is_removed_a_held_machine_is_not_and_a_second_sweep_does_nothing() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool(NO_DOUBT)).await.unwrap();
    let orphan = sandbox.unowned(&[]);
    let held = sandbox.unowned(&[("drover:hold", "")]);
    let began = Instant::now();
    while sandbox.world.look(|state| state.ec2.ended().is_empty()) {
        sandbox.sweep().await.unwrap();
        assert!(began.elapsed() < PATIENCE, "the orphan is still there");
    }
    let ended = sandbox.world.look(|state| state.ec2.ended().to_vec());
    assert_eq!(ended.iter().map(|it| it.instance.to_string()).collect::<Vec<_>>(), [orphan]);
    assert_eq!(ended[0].why, EndCause::TerminateCall);
    let gone = |state: &sandbox::state::State| (state.ec2.alive().count() == 1).then_some(());
    sandbox.world.until("the orphan to be gone", PATIENCE, gone).await.unwrap();
    let again = sandbox.sweep().await.unwrap();
    let expected = json!({ "found": 0, "reaped": {}, "already_gone": 0, "held": 1, "failed": 0, "fused": [] });
    assert_eq!(again, expected, "{held} stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_reading_is_not_an_empty_list() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool(NO_DOUBT)).await.unwrap();
    sandbox.unowned(&[]);
    sandbox.world.act(|state, _| {
        // The app is uninstalled: nothing is known about the organisation's runners.
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.uninstall(owner);
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let report = sandbox.sweep().await.unwrap();
        assert_eq!(report["failed"], 1, "{report}");
    }
    assert!(
        sandbox.world.look(|state| state.ec2.ended().is_empty()),
        "nothing is terminated if a source cannot be read"
    );
}

/// L7. GitHub refuses the old key and the tokens made with it; the processes of the functions have both in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_functions_work_again_after_the_apps_key_was_replaced() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(100));
    sandbox.reconcile(&[job], PATIENCE).await.unwrap();
    sandbox.rotate_app_key().unwrap();
    sandbox.world.act(|state, now| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.uninstall(owner);
        state.github.install(owner, now);
    });
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(100));
    sandbox.reconcile(&[job], PATIENCE).await.unwrap();
    // A sweep that began before may still report a refused call.
    let began = Instant::now();
    loop {
        let report = sandbox.sweep().await.unwrap();
        if report["failed"] == 0 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{report}");
    }
    assert_eq!(sandbox.janitor.started(), 1, "the janitor was not restarted");
}
