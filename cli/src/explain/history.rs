//! The events about a job.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Label;
use domain::ids::{InstanceId, JobId, RunnerName, SlotId};
use domain::log::{After, Event, What};
use domain::policy::PoolView;
use domain::state::{Item, Job, Key};
use engine::ports::Store;
use jiff::Timestamp;

use crate::classes::Part;
use crate::output::{Failure, one_line};
use crate::{aside, describe};

pub(super) fn history(events: &[&Event], job: JobId, machine: Option<&InstanceId>) -> String {
    let lines = events.iter().map(|event| {
        let what = match (&event.what, machine) {
            // Of a launch of many machines, only the job's own.
            (What::Bound { instances, .. }, Some(own)) if instances.contains(own) => format!("EC2 launched {own}"),
            _ => one_line(&describe::event(event, Some(job))),
        };
        format!("  {:.3}  {what}  ({})\n", event.at, describe::cause(&event.cause))
    });
    match events.is_empty() {
        true => String::new(),
        false => format!("\nhistory\n{}", lines.collect::<String>()),
    }
}

/// The classes of slots, in a pool with shapes. Events do not have them.
#[derive(Debug, Default)]
pub(super) struct Classes(BTreeMap<SlotId, Option<Label>>);

impl Classes {
    /// Of the slots that the pool added while the job waited.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(super) async fn read(
        table: &impl Store,
        view: &PoolView,
        events: &[Event],
        job: &Job,
    ) -> Result<Self, Failure> {
        let mut classes: BTreeMap<SlotId, Option<Label>> =
            view.slots.iter().map(|(id, slot)| (*id, slot.class.clone())).collect();
        let slots: BTreeSet<SlotId> = events
            .iter()
            .filter(|event| waited(job, event.at))
            .flat_map(slots)
            .filter(|id| !classes.contains_key(id))
            .collect();
        // The records of machines outlive those of their slots.
        let mut machines: BTreeMap<InstanceId, SlotId> = BTreeMap::new();
        for after in events.iter().flat_map(|event| &event.after) {
            if let (Some(slot), Some(instance)) = (slot_of(after), after.fields["instance"].as_str())
                && slots.contains(&slot)
            {
                machines.insert(instance.into(), slot);
            }
        }
        let keys: Vec<Key> = machines.keys().cloned().map(Key::Instance).collect();
        for item in table.get_many(&keys).await? {
            if let Item::Instance(instance) = item
                && let Some(slot) = machines.get(&instance.id)
            {
                classes.insert(*slot, instance.class);
            }
        }
        Ok(Self(classes))
    }

    /// Whether the event is about a launch or machines of the part's class, as far as that is known.
    fn concerns(&self, event: &Event, part: &Part) -> bool {
        let mut known = slots(event).into_iter().filter_map(|slot| self.0.get(&slot)).peekable();
        if known.peek().is_some() {
            return known.any(|class| *class == part.class);
        }
        match &event.what {
            What::Decided { tuple: Some(tuple), .. } | What::Refused { tuple, .. } => {
                part.pool.launch_options().iter().any(|option| option.tuple.is_same_machine(tuple))
            }
            _ => true,
        }
    }

    /// The slots of a launch.
    fn of_version(&self, version: u64) -> impl Iterator<Item = &Option<Label>> {
        self.0.iter().filter(move |(slot, _)| slot.version == version).map(|(_, class)| class)
    }
}

/// The slot that a part of an event is about.
fn slot_of(after: &After) -> Option<SlotId> {
    after.key.split_once(" SLOT#")?.1.parse().ok()
}

/// The slots that an event added, took into use or closed.
fn slots(event: &Event) -> Vec<SlotId> {
    match &event.what {
        What::Closed { slots, .. } => slots.clone(),
        _ => event.after.iter().filter(|after| after.fields["stop"].is_null()).filter_map(slot_of).collect(),
    }
}

fn waited(job: &Job, at: Timestamp) -> bool {
    job.first_seen_at <= at && job.started_at.or(job.completed_at).is_none_or(|end| at <= end)
}

/// The events about the job, its runner and the launch of its machine, and those about launches for its class while it waited
/// for a machine. `slot` is that of its machine, or of the machine on its way. `events` are those of its pool, oldest first.
pub(super) fn about<'a>(
    events: &'a [Event],
    job: &Job,
    slot: Option<SlotId>,
    of_class: Option<(&Classes, &Part)>,
) -> Vec<&'a Event> {
    let is_own_launch = |version: u64| slot.is_some_and(|slot| slot.version == version);
    let concerns_class = |event: &Event| {
        of_class.is_none_or(|(classes, part)| match &event.what {
            What::Refused { version, .. } | What::Resumed { version, .. } => {
                let mut known = classes.of_version(*version).peekable();
                if known.peek().is_none() { classes.concerns(event, part) } else { known.any(|it| *it == part.class) }
            }
            _ => classes.concerns(event, part),
        })
    };
    let launches = |event: &Event| matches!(&event.what, What::Decided { launch, wanted, .. } if launch + wanted > 0);
    let is_decision = |event: &&Event| waited(job, event.at) && launches(event) && concerns_class(event);
    // Later decisions are about other jobs. The first one counted this job, even if it got another machine afterwards.
    let first = events.iter().find(is_decision).map(|event| &event.sequence);
    let has_machine_since = slot.and_then(|slot| {
        let is_its_slot = |event: &&Event| launches(event) && event.after.iter().any(|it| slot_of(it) == Some(slot));
        events.iter().find(is_its_slot).map(|event| event.at)
    });
    let is_needed = |event: &Event| {
        has_machine_since.is_none_or(|since| event.at <= since) || first.is_some_and(|first| *first == event.sequence)
    };
    let select = |event: &&Event| {
        concerns(event, job)
            || match &event.what {
                What::Bound { version, .. } => is_own_launch(*version),
                What::Decided { .. } => is_decision(event) && is_needed(event),
                What::Refused { version, .. } | What::Resumed { version, .. } => {
                    is_own_launch(*version) || waited(job, event.at) && concerns_class(event) && is_needed(event)
                }
                What::CircuitOpened { .. } => waited(job, event.at),
                What::Closed { failures, .. } => waited(job, event.at) && !failures.is_empty() && concerns_class(event),
                _ => false,
            }
    };
    events.iter().filter(select).collect()
}

/// Whether an event is about the job or its runner.
fn concerns(event: &Event, job: &Job) -> bool {
    let key = Key::Job(job.id).to_string();
    let has_job = |after: &After| after.fields.get("job").and_then(|it| it.as_u64()) == Some(job.id.0);
    // Events of its machine from before GitHub reported which job the machine has.
    let runner: Option<RunnerName> = job.runner.as_ref().and_then(|runner| runner.name.parse().ok());
    let its_slot = runner.as_ref().map(|runner| Key::Slot(job.pool.clone(), runner.slot));
    if its_slot.is_some_and(|slot| aside::is_about(event, &slot)) {
        return true;
    }
    let is_its_slot = |slot: &SlotId| runner.as_ref().is_some_and(|runner| runner.slot == *slot);
    match &event.what {
        What::Decided { unserved, .. } => unserved.contains(&job.id),
        _ if event.after.iter().any(|after| after.key == key || has_job(after)) => true,
        What::Checked { job: about, .. }
        | What::Forgotten { job: about }
        | What::Transferred { job: about, .. }
        | What::Notified { job: about, .. }
        | What::Rerun { job: about, .. } => *about == job.id,
        What::HandedOver { runner_name, .. } => job.runner.as_ref().is_some_and(|runner| runner.name == *runner_name),
        What::Stopped { slot, .. } => is_its_slot(slot),
        What::Unregistered { slot, others } => is_its_slot(slot) || others.iter().any(is_its_slot),
        What::Observed { gone, .. } => gone.iter().any(is_its_slot),
        What::Refused { .. }
        | What::Resumed { .. }
        | What::CircuitOpened { .. }
        | What::Closed { .. }
        | What::Recorded { .. }
        | What::Interrupted { .. }
        | What::Bound { .. }
        | What::Condemned { .. }
        | What::Adopted { .. }
        | What::Unknown(_)
        | What::Swept { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::aside::fixtures::{event, noon, pool, slot, view};

    /// Job 7, queued at 09:00:00. With a runner, it ran in slot 2.0 from 09:01:00.
    fn job(more: &Value) -> Job {
        let mut job = json!({
            "id": 7, "pool": "linux", "repository": "acme/widgets", "public": false, "run_id": 1, "run_attempt": 1,
            "name": "build", "labels": ["linux"], "rank": "queued", "gated": false, "revision": 1,
            "queued_at": "2026-11-02T09:00:00Z", "first_seen_at": "2026-11-02T09:00:00Z",
        });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(job).unwrap()
    }

    fn decided(time: &str, slots: &[&str]) -> Event {
        let what = json!({ "type": "decided", "demand": 1, "supply": 0, "live": 0, "launch": slots.len() });
        let keys: Vec<String> = slots.iter().map(|slot| format!("POOL#linux SLOT#{slot}")).collect();
        let after: Vec<(&str, Value)> = keys.iter().map(|key| (key.as_str(), json!({ "state": "planned" }))).collect();
        let mut event = event(time, &what, &after);
        event.sequence = time.to_owned();
        event
    }

    fn bound(time: &str, version: u64, instances: &[&str]) -> Event {
        event(time, &json!({ "type": "bound", "version": version, "attempt": 1, "instances": instances }), &[])
    }

    fn times(events: &[&Event]) -> Vec<String> {
        events.iter().map(|event| event.at.to_string()[11..19].to_owned()).collect()
    }

    #[test]
    fn the_history_of_a_job_has_the_launch_of_its_machine_and_no_decision_for_other_jobs() {
        let events = [
            decided("08:59:00", &["1.0"]),
            decided("09:00:01", &["2.0", "2.1"]),
            bound("09:00:02", 2, &["i-1", "i-2", "i-3", "i-4", "i-5"]),
            decided("09:00:10", &["3.0"]),
            bound("09:00:12", 3, &["i-9"]),
            decided("09:02:00", &["4.0"]),
        ];
        let runner = json!({ "id": 9, "name": "drover_s_linux_k3v9xq_2_0_1" });
        let ran = job(&json!({ "rank": "started", "runner": runner, "started_at": "2026-11-02T09:01:00Z" }));
        let own: SlotId = "2.0".parse().unwrap();
        let about_it = about(&events, &ran, Some(own), None);
        assert_eq!(times(&about_it), ["09:00:01", "09:00:02"]);
        let text = history(&about_it, ran.id, Some(&"i-5".into()));
        assert!(text.contains("EC2 launched i-5  ("), "{text}");
        assert_eq!(times(&about(&events, &job(&json!({})), None, None)), ["09:00:01", "09:00:10", "09:02:00"]);
        let later: SlotId = "3.0".parse().unwrap();
        let about_it = about(&events, &ran, Some(later), None);
        assert_eq!(times(&about_it), ["09:00:01", "09:00:10", "09:00:12"], "it got the machine of another decision");
    }

    #[test]
    fn the_history_has_only_decisions_for_the_job_s_class() {
        let events = [decided("09:00:01", &["1.0"]), decided("09:00:02", &["2.0"]), decided("09:00:03", &["3.0"])];
        let class = |name: &str| Some(name.parse::<Label>().unwrap());
        let classes = [("1.0", class("any/8cpu")), ("2.0", class("any/2cpu")), ("3.0", None)];
        let classes = Classes(classes.into_iter().map(|(slot, class)| (slot.parse().unwrap(), class)).collect());
        let view = view([slot(9, "busy", &json!({}))]);
        let part = Part { class: class("any/2cpu"), pool: pool(""), view };
        let waiting = job(&json!({}));
        assert!(waited(&waiting, noon()));
        assert_eq!(times(&about(&events, &waiting, None, Some((&classes, &part)))), ["09:00:02"]);
    }
}
