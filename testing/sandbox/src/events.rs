//! EventBridge: what EC2 says about instances, in EC2's own form and unaltered, onto the queue that ingest writes to.
//!
//! These events name an instance and carry no tags: everything that anybody starts in the account is told of.

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::ec2::{Config, Entered, InstanceId, State};

/// The rules between the event bus and the queue. Interruption warnings always pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The states whose beginning passes.
    pub states: Vec<State>,
}

impl Default for Rules {
    /// Those of `template.yaml`.
    fn default() -> Self {
        Self { states: vec![State::ShuttingDown, State::Terminated] }
    }
}

/// `EC2 Instance State-change Notification`
pub fn state_change(entered: &Entered, config: &Config) -> Value {
    let detail = json!({ "instance-id": entered.instance.as_str(), "state": entered.state.as_str() });
    envelope("EC2 Instance State-change Notification", &entered.instance, entered.at, detail, config)
}

/// `EC2 Spot Instance Interruption Warning`
pub fn interruption(instance: &InstanceId, now: Timestamp, config: &Config) -> Value {
    let detail = json!({ "instance-id": instance.as_str(), "instance-action": "terminate" });
    envelope("EC2 Spot Instance Interruption Warning", instance, now, detail, config)
}

fn envelope(kind: &str, instance: &InstanceId, at: Timestamp, detail: Value, config: &Config) -> Value {
    let (account, region) = (&config.account, &config.region);
    let digest = hex::encode(Sha256::digest(format!("{kind} {instance} {at} {detail}")));
    let id = [&digest[..8], &digest[8..12], &digest[12..16], &digest[16..20], &digest[20..32]].join("-");
    // EventBridge's times are of whole seconds.
    let time = Timestamp::from_second(at.as_second()).unwrap_or(at);
    json!({
        "version": "0", "id": id, "detail-type": kind, "source": "aws.ec2", "account": account, "time": time,
        "region": region, "resources": [format!("arn:aws:ec2:{region}:{account}:instance/{instance}")],
        "detail": detail,
    })
}

#[cfg(test)]
mod tests {
    use domain::wire::{InstanceChange, Message};

    use super::*;

    #[test]
    fn every_event_is_one_that_the_scaler_understands() {
        let (config, instance, at) = (Config::default(), InstanceId::from("i-0123"), Timestamp::UNIX_EPOCH);
        let said = |event: Value| match Message::parse(&event.to_string()) {
            Ok(Message::Instance { id, change }) => (id.to_string(), change),
            other => panic!("{other:?}"),
        };
        for (state, change) in [
            (State::Pending, InstanceChange::Other),
            (State::Running, InstanceChange::Other),
            (State::Stopping, InstanceChange::Other),
            (State::Stopped, InstanceChange::Other),
            (State::ShuttingDown, InstanceChange::Ended),
            (State::Terminated, InstanceChange::Ended),
        ] {
            let event = state_change(&Entered { instance: instance.clone(), state, at }, &config);
            assert_eq!(event["detail"]["state"], state.as_str());
            assert_eq!(said(event), ("i-0123".to_owned(), change));
        }
        let warning = interruption(&instance, at, &config);
        assert_eq!(warning["time"], "1970-01-01T00:00:00Z");
        assert_eq!(said(warning), ("i-0123".to_owned(), InstanceChange::Interrupted));
    }
}
