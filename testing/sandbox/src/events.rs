//! EventBridge: EC2's events about instances, which the rules put on the scaler's queue unchanged.
//!
//! The events name an instance and contain no tags, so they concern every instance in the account.

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::ec2::{Config, Entered, InstanceId, State};

/// The rules between the event bus and the queue. They match all interruption warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The state changes that the rules match.
    pub states: Vec<State>,
}

impl Default for Rules {
    /// The rules of `template.yaml`.
    fn default() -> Self {
        Self { states: vec![State::ShuttingDown, State::Stopped, State::Terminated] }
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
    // EventBridge truncates times to seconds.
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
    fn the_scaler_parses_every_event() {
        let (config, instance, at) = (Config::default(), InstanceId::from("i-0123"), Timestamp::UNIX_EPOCH);
        let parsed = |event: Value| match Message::parse(&event.to_string()) {
            Ok(Message::Instance { id, change }) => (id.to_string(), change),
            other => panic!("{other:?}"),
        };
        for (state, change) in [
            (State::Pending, InstanceChange::Other),
            (State::Running, InstanceChange::Other),
            (State::Stopping, InstanceChange::Other),
            (State::Stopped, InstanceChange::Stopped),
            (State::ShuttingDown, InstanceChange::Ended),
            (State::Terminated, InstanceChange::Ended),
        ] {
            let event = state_change(&Entered { instance: instance.clone(), state, at }, &config);
            assert_eq!(event["detail"]["state"], state.as_str());
            assert_eq!(parsed(event), ("i-0123".to_owned(), change));
        }
        let warning = interruption(&instance, at, &config);
        assert_eq!(warning["time"], "1970-01-01T00:00:00Z");
        assert_eq!(parsed(warning), ("i-0123".to_owned(), InstanceChange::Interrupted(Some(at))));
    }
}
