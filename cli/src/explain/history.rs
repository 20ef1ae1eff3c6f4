//! The events about a job.

use domain::ids::{JobId, RunnerName, SlotId};
use domain::log::{After, Event, What};
use domain::state::{Job, Key};

use crate::output::one_line;
use crate::{aside, describe};

pub(super) fn history(events: &[&Event], job: JobId) -> String {
    let lines = events.iter().map(|event| {
        let what = one_line(&describe::event(event, Some(job)));
        format!("  {:.3}  {what}  ({})\n", event.at, describe::cause(&event.cause))
    });
    match events.is_empty() {
        true => String::new(),
        false => format!("\nhistory\n{}", lines.collect::<String>()),
    }
}

/// Whether an event is about the job or its runner, or about a launch of its pool while the job waited.
pub(super) fn concerns(event: &Event, job: &Job) -> bool {
    let key = Key::Job(job.id).to_string();
    let slot_of = |after: &After| after.fields.get("job").and_then(|it| it.as_u64()) == Some(job.id.0);
    if event.after.iter().any(|after| after.key == key || slot_of(after)) {
        return true;
    }
    // Events of its machine from before GitHub reported which job the machine has.
    let runner: Option<RunnerName> = job.runner.as_ref().and_then(|runner| runner.name.parse().ok());
    let its_slot = runner.as_ref().map(|runner| Key::Slot(job.pool.clone(), runner.slot));
    if its_slot.is_some_and(|slot| aside::is_about(event, &slot)) {
        return true;
    }
    let is_its_slot = |slot: &SlotId| runner.as_ref().is_some_and(|runner| runner.slot == *slot);
    let waited = job.first_seen_at <= event.at && job.started_at.or(job.completed_at).is_none_or(|at| event.at <= at);
    match &event.what {
        What::Checked { job: about, .. }
        | What::Forgotten { job: about }
        | What::Transferred { job: about, .. }
        | What::Notified { job: about, .. }
        | What::Rerun { job: about, .. } => *about == job.id,
        What::HandedOver { runner_name, .. } => job.runner.as_ref().is_some_and(|runner| runner.name == *runner_name),
        What::Decided { launch, wanted, unserved, .. } => waited && launch + wanted > 0 || unserved.contains(&job.id),
        What::Refused { .. } | What::Resumed { .. } | What::CircuitOpened { .. } => waited,
        What::Stopped { slot, .. } => is_its_slot(slot),
        What::Unregistered { slot, others } => is_its_slot(slot) || others.iter().any(is_its_slot),
        What::Observed { gone, .. } => gone.iter().any(is_its_slot),
        What::Closed { failures, .. } => waited && !failures.is_empty(),
        What::Recorded { .. }
        | What::Interrupted { .. }
        | What::Bound { .. }
        | What::Condemned { .. }
        | What::Adopted { .. }
        | What::Unknown(_)
        | What::Swept { .. } => false,
    }
}
