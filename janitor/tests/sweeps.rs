//! The janitor as a process: what it finds, what it leaves alone, and what it only plans.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use sandbox::hurry::one_pool;
use sandbox::sandbox::{Driven, Options, Sandbox};
use serde_json::json;
use world::ec2::{EndCause, Market, RunInstances, Tags, TemplateRef};

/// What looks wrong is wrong at once.
const NO_DOUBT: &str = "orphan_grace = \"0s\"\nconfirm_gap = \"0s\"";

/// A machine with our tags that nobody of ours launched.
fn stranger(sandbox: &Sandbox, more: &[(&str, &str)]) -> String {
    let own = [("drover:stack", "sandbox"), ("drover:pool", "linux"), ("drover:batch", "linux.zz9.7.1")];
    let tags: Tags = own.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let launched = sandbox.world.act(|state, now| {
        let request = RunInstances {
            template: TemplateRef::Name("drover-runner".to_owned()),
            template_version: None,
            min_count: 1,
            max_count: 1,
            subnet: "subnet-a".into(),
            instance_type: None,
            market: Market::OnDemand,
            client_token: None,
            tags: tags.clone(),
            volume_tags: Tags::new(),
        };
        state.ec2.run_instances(request, now)
    });
    launched.unwrap().instances[0].id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphan_is_removed_a_held_machine_is_not_and_a_second_sweep_does_nothing() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool(NO_DOUBT)).await.unwrap();
    let orphan = stranger(&sandbox, &[]);
    let held = stranger(&sandbox, &[("drover:hold", "")]);
    // Two readings must agree; then it is claimed and ended.
    for _ in 0..3 {
        sandbox.sweep().await.unwrap();
    }
    let ended = sandbox.world.look(|state| state.ec2.ended().to_vec());
    assert_eq!(ended.iter().map(|it| it.instance.to_string()).collect::<Vec<_>>(), [orphan]);
    assert_eq!(ended[0].why, EndCause::TerminateCall);
    let gone = |state: &sandbox::state::State| (state.ec2.alive().count() == 1).then_some(());
    sandbox.world.until("the orphan to be gone", Duration::from_secs(10), gone).await.unwrap();
    let again = sandbox.sweep().await.unwrap();
    let expected = json!({ "found": 0, "reaped": {}, "already_gone": 0, "held": 1, "failed": 0, "fused": [] });
    assert_eq!(again, expected, "{held} stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_reading_is_not_an_empty_list() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool(NO_DOUBT)).await.unwrap();
    stranger(&sandbox, &[]);
    sandbox.world.act(|state, _| {
        // The app is uninstalled: nothing is known about the organisation's runners.
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.uninstall(owner);
    });
    for _ in 0..3 {
        let report = sandbox.sweep().await.unwrap();
        assert_eq!(report["failed"], 1, "{report}");
    }
    assert!(sandbox.world.look(|state| state.ec2.ended().is_empty()), "nothing is destroyed on doubt");
}
