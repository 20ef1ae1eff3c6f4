//! When a machine was set aside and started again, as the event log shows it.

use domain::log::{After, Event};
use domain::state::Key;
use jiff::{SignedDuration, Timestamp};

/// The time for which a machine was kept stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Aside {
    /// When it was decided to stop the machine. None if it was not.
    pub(crate) stopped_at: Option<Timestamp>,
    /// When it was decided to start it for a job.
    pub(crate) started_at: Option<Timestamp>,
}

impl Aside {
    /// Of a slot's machine. The events are those of the slot's pool, oldest first.
    pub(crate) fn of<'a>(events: impl IntoIterator<Item = &'a Event>, slot: &Key) -> Self {
        let key = slot.to_string();
        let steps = events.into_iter().flat_map(|event| event.after.iter().map(|after| (after, event.at)));
        steps.filter(|(after, _)| after.key == key).fold(Self::default(), |aside, (after, at)| aside.with(after, at))
    }

    /// With what an event says about the slot. Earlier events come first.
    pub(crate) fn with(self, slot: &After, at: Timestamp) -> Self {
        match slot.fields["state"].as_str() {
            Some("prepared") => Self { stopped_at: self.stopped_at.or(Some(at)), ..self },
            Some("started") => Self { started_at: self.started_at.or(Some(at)), ..self },
            _ => self,
        }
    }

    /// How much of a period the machine was stopped for.
    pub(crate) fn within(&self, from: Timestamp, until: Timestamp) -> SignedDuration {
        let Some(stopped) = self.stopped_at else { return SignedDuration::ZERO };
        let end = self.started_at.map_or(until, |started| started.min(until));
        end.duration_since(stopped.max(from)).max(SignedDuration::ZERO)
    }

    /// A sentence about a machine that was stopped.
    pub(crate) fn sentence(&self) -> Option<String> {
        let stopped = self.stopped_at?;
        Some(match self.started_at {
            Some(started) => {
                format!("Its machine was kept stopped from {stopped:.0} until a job needed it at {started:.0}.")
            }
            None => format!("Its machine has been kept stopped since {stopped:.0}."),
        })
    }
}

/// Whether the event set the slot's machine aside, shows that it is stopped, or started it.
pub(crate) fn is_about(event: &Event, slot: &Key) -> bool {
    let key = slot.to_string();
    let is_step = |after: &After| matches!(after.fields["state"].as_str(), Some("prepared" | "stopped" | "started"));
    event.after.iter().any(|after| after.key == key && is_step(after))
}

#[cfg(test)]
pub(crate) mod fixtures {
    use domain::config::Pool;
    use domain::policy::PoolView;
    use domain::state::{Item, Meta, Slot};
    use serde_json::{Value, json};

    use super::*;
    use crate::pool_file::PoolFile;

    pub(crate) fn noon() -> Timestamp {
        "2026-11-02T12:00:00Z".parse().expect("a time")
    }

    /// Pool `linux` with at most nine machines, and with these lines.
    pub(crate) fn pool(more: &str) -> Pool {
        let text = format!(
            "[[pool]]\nname = \"linux\"\nowner = \"acme\"\nlabels = [\"linux\"]\nlaunch_template = \"runner\"\n\
             instance_types = [\"m7i.large\"]\nmax = 9\n{more}\n"
        );
        let file = PoolFile::parse("pools.toml", &text);
        assert!(file.errors.is_empty(), "{:?}", file.errors);
        file.pools[0].unresolved()
    }

    /// Slot `<version>.0` of `linux` in a state, launched an hour before noon, with further attributes.
    pub(crate) fn slot(version: u64, state: &str, more: &Value) -> Slot {
        let mut all = json!({
            "id": format!("{version}.0"), "pool": "linux", "state": state, "wanted": false, "revision": 1, "registration": 0,
            "planned_at": "2026-11-02T11:00:00Z", "next_at": "2026-11-02T12:00:00Z", "instance": format!("i-{version}"),
            "launched_at": "2026-11-02T11:00:00Z", "runner_id": 7, "runner_name": "runner",
            "configured_at": "2026-11-02T11:59:00Z", "job": 5,
        });
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        serde_json::from_value(all).expect("a slot")
    }

    pub(crate) fn view(slots: impl IntoIterator<Item = Slot>) -> PoolView {
        let meta = Meta::new("linux".parse().expect("a pool"), "e1".parse().expect("an epoch"));
        PoolView::new(meta, slots.into_iter().map(Item::Slot))
    }

    /// An event of pool `linux` at a time of that day, with the items that it wrote.
    pub(crate) fn event(time: &str, what: &Value, after: &[(&str, Value)]) -> Event {
        let after: Vec<Value> =
            after.iter().map(|(key, fields)| json!({ "key": key, "revision": 1, "is": fields })).collect();
        let mut event = json!({
            "v": 1, "stream": "linux", "sequence": "1", "at": format!("2026-11-02T{time}Z"),
            "cause": { "invocation": "1" }, "after": after, "expires_at": 0,
        });
        event.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
        serde_json::from_value(event).expect("an event")
    }

    /// The life of the machine `i-3` in slot 3.0: launched at 08:00, set aside at 08:01, started at 11:00 and closed at 11:10.
    pub(crate) fn life() -> Vec<Event> {
        let decided = |wanted, set_aside| {
            json!({
                "type": "decided", "demand": 0, "supply": 1, "live": 1, "launch": 0, "wanted": wanted,
                "set_aside": set_aside,
            })
        };
        let slot = |state: &str| ("POOL#linux SLOT#3.0", json!({ "state": state, "instance": "i-3" }));
        let instance = |more: Value| {
            let mut fields =
                json!({ "pool": "linux", "slot": "3.0", "instance_type": "m7i.large", "market": "on-demand" });
            fields.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            ("INSTANCE#i-3 STATE", fields)
        };
        let ready = json!({ "type": "seen", "online": [], "gone": [], "unregistered": [], "ready": ["3.0"] });
        let bound = json!({ "type": "bound", "version": 3, "attempt": 1, "instances": ["i-3"] });
        let handed = json!({ "type": "handed_over", "slot": "3.0", "runner_name": "runner" });
        let closed = json!({ "type": "closed", "slots": ["3.0"] });
        vec![
            event("08:00:00", &bound, &[slot("launched"), instance(json!({}))]),
            event("08:01:00", &decided(0, 1), &[slot("prepared")]),
            event("08:01:40", &ready, &[slot("stopped")]),
            event("11:00:00", &decided(1, 0), &[slot("started")]),
            event("11:00:04", &handed, &[slot("configured"), instance(json!({}))]),
            event(
                "11:10:00",
                &closed,
                &[("POOL#linux SLOT#3.0", Value::Null), instance(json!({ "closed_at": "2026-11-02T11:10:00Z" }))],
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn only_the_time_between_stop_and_start_counts_as_stopped() {
        let never = Aside::default();
        assert_eq!(never.within(at(0), at(100)), SignedDuration::ZERO);
        let seconds = |aside: Aside, from, until| aside.within(at(from), at(until)).as_secs();
        let still = Aside { stopped_at: Some(at(40)), started_at: None };
        assert_eq!((seconds(still, 0, 100), seconds(still, 60, 100), seconds(still, 0, 30)), (60, 40, 0));
        let used = Aside { started_at: Some(at(70)), ..still };
        assert_eq!((seconds(used, 0, 100), seconds(used, 50, 60), seconds(used, 80, 100)), (30, 10, 0));
    }

    #[test]
    fn the_log_says_when_a_machine_was_set_aside_and_started() {
        let (events, pool) = (fixtures::life(), || "linux".parse().expect("a pool"));
        let slot = Key::Slot(pool(), "3.0".parse().expect("a slot"));
        let sentence = Aside::of(&events, &slot).sentence();
        let expected =
            "Its machine was kept stopped from 2026-11-02T08:01:00Z until a job needed it at 2026-11-02T11:00:00Z.";
        assert_eq!(sentence.as_deref(), Some(expected));
        let sentence = Aside::of(&events[..3], &slot).sentence();
        assert_eq!(sentence.as_deref(), Some("Its machine has been kept stopped since 2026-11-02T08:01:00Z."));
        let other = Key::Slot(pool(), "3.1".parse().expect("a slot"));
        assert_eq!(Aside::of(&events, &other).sentence(), None);
        let about: Vec<bool> = events.iter().map(|event| is_about(event, &slot)).collect();
        assert_eq!(about, [false, true, true, true, false, false]);
    }
}
