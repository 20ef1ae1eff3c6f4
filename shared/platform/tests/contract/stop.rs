//! Stopping and starting a machine.

use std::slice::from_ref;

use sandbox::pace::PATIENCE;
use world::LostReply;
use world::ec2::{Code, LaunchMatch, Operation, Refusal, State, When};

use super::*;

const WITHIN: SignedDuration = SignedDuration::from_secs(20);

/// Waits until the machine is in that state. Returns what EC2's list says of it.
async fn until(region: &Region, id: &InstanceId, state: State) -> ObservedInstance {
    if let Target::Sandbox(sandbox) = &region.target {
        let id = id.as_str().into();
        let is_in = |world: &sandbox::state::State| (world.ec2.instance(&id)?.state == state).then_some(());
        sandbox.world.until(state.as_str(), PATIENCE, is_in).await.unwrap();
    }
    // moto changes states at once.
    region.ec2.instances(from_ref(id)).await.unwrap().remove(0)
}

/// A machine that runs.
async fn running(region: &Region) -> ObservedInstance {
    let launched = region.ec2.launch(&region.launch(1, 1)).await.unwrap().remove(0);
    let listed = until(region, &launched.id, State::Running).await;
    assert_eq!(listed.state, MachineState::Running);
    listed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_stopped_and_started_and_both_may_be_repeated() {
    let region = region().await;
    let (ec2, launched) = (&region.ec2, running(&region).await);
    let id = &launched.id;
    for _ in 0..2 {
        ec2.stop(id, WITHIN).await.unwrap();
    }
    assert_eq!(until(&region, id, State::Stopped).await.state, MachineState::Stopped);
    ec2.stop(id, WITHIN).await.unwrap();
    for _ in 0..2 {
        ec2.start(from_ref(id)).await.unwrap();
    }
    let started = until(&region, id, State::Running).await;
    assert_eq!(started.state, MachineState::Running);
    assert_eq!((started.batch, started.pool), (launched.batch, launched.pool), "it keeps its tags");
    assert!(started.launched_at >= launched.launched_at);
    if let Target::Sandbox(sandbox) = &region.target {
        let starts = sandbox.world.look(|state| state.ec2.instance(&id.as_str().into()).unwrap().starts);
        assert_eq!(starts, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_starts_several_machines_or_none() {
    let region = region().await;
    let ec2 = &region.ec2;
    let ids = [running(&region).await.id, running(&region).await.id];
    for id in &ids {
        ec2.stop(id, WITHIN).await.unwrap();
        until(&region, id, State::Stopped).await;
    }
    let with_unknown = [ids[0].clone(), InstanceId::from("i-0123456789abcdef0")];
    let refused = ec2.start(&with_unknown).await.unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("InvalidInstanceID.NotFound"));
    assert_eq!(ec2.instances(&ids[..1]).await.unwrap()[0].state, MachineState::Stopped);
    ec2.start(&ids).await.unwrap();
    for id in &ids {
        assert_eq!(until(&region, id, State::Running).await.state, MachineState::Running);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_a_stop_or_a_start_has_the_code_of_ec2() {
    let region = region().await;
    let ec2 = &region.ec2;
    let unknown = InstanceId::from("i-0123456789abcdef0");
    for refused in [ec2.stop(&unknown, WITHIN).await, ec2.start(from_ref(&unknown)).await] {
        assert_eq!(refused.unwrap_err().code.as_deref(), Some("InvalidInstanceID.NotFound"));
    }
    let Target::Sandbox(sandbox) = &region.target else {
        // Known to be wrong in moto 5.2: it stops and starts machines in every state.
        return;
    };
    let id = running(&region).await.id;
    sandbox.world.act(|state, _| {
        let matches = LaunchMatch::default();
        let (code, when) = (Code::InsufficientInstanceCapacity, When::Chance(1.0));
        state.ec2.faults.start_refusals = vec![Refusal { matches, code, when }];
    });
    ec2.stop(&id, WITHIN).await.unwrap();
    until(&region, &id, State::Stopped).await;
    let refused = ec2.start(from_ref(&id)).await.unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("InsufficientInstanceCapacity"));
    ec2.terminate(&permit(&id)).await.unwrap();
    for refused in [ec2.stop(&id, WITHIN).await, ec2.start(from_ref(&id)).await] {
        assert_eq!(refused.unwrap_err().code.as_deref(), Some("IncorrectInstanceState"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_not_repeated_and_a_start_is() {
    let region = region().await;
    let Target::Sandbox(sandbox) = &region.target else { return };
    let (ec2, id) = (&region.ec2, running(&region).await.id);
    let lose = |operation| {
        sandbox.world.act(|state, _| state.ec2.faults.lost_replies.push_back((operation, LostReply::Applied)))
    };
    let calls = |operation| sandbox.world.look(|state| state.ec2.calls()[&operation]);
    lose(Operation::StopInstances);
    assert_eq!(ec2.stop(&id, WITHIN).await.unwrap_err().code, None, "EC2 did not answer");
    assert_eq!(calls(Operation::StopInstances), 1);
    until(&region, &id, State::Stopped).await;
    sandbox.world.act(|state, _| state.ec2.faults.errors.push_back((Operation::StopInstances, Code::InternalError)));
    assert_eq!(ec2.stop(&id, WITHIN).await.unwrap_err().code.as_deref(), Some("InternalError"));
    assert_eq!(calls(Operation::StopInstances), 2);
    lose(Operation::StartInstances);
    ec2.start(from_ref(&id)).await.unwrap();
    assert_eq!(calls(Operation::StartInstances), 2);
}
