//! Describes events and their causes in plain text.

use std::fmt;

use domain::ids::{JobId, SlotId};
use domain::log::{Cause, Event, What};
use domain::state::Failure;
use domain::wire::Action;
use serde_json::Value;

/// Items that a list in a line has.
const MOST_ITEMS: usize = 4;

/// What happened. With a job, only what concerns that job.
pub(crate) fn event(event: &Event, job: Option<JobId>) -> String {
    match &event.what {
        What::Recorded { statements } => {
            let reports = statements.iter().filter(|it| job.is_none_or(|job| it.job == job)).map(|it| match job {
                Some(_) => action(it.action).to_owned(),
                None => format!("job {} {}", it.job, action(it.action)),
            });
            format!("GitHub reported: {}", few(reports))
        }
        What::Checked { job, status } => format!("asked GitHub about job {job}: {status}"),
        What::Transferred { job, from, to } => {
            format!("job {job} moved with its repository from {from} to {to}")
        }
        What::Forgotten { job } => format!("gave up job {job}, which GitHub calls queued"),
        What::Decided { unserved, .. } if job.is_some_and(|job| unserved.contains(&job)) => {
            "a matching runner stayed idle and GitHub did not give it this job: launch nothing, and ask GitHub"
                .to_owned()
        }
        What::Decided { demand, supply, launch, wanted, stop, set_aside, tuple, .. } => {
            let option = tuple.as_ref().map(|tuple| format!(" {tuple}")).unwrap_or_default();
            let started = started(event);
            let warm = (*wanted as usize).saturating_sub(started);
            let warm = if warm > 0 { format!(", use {warm} warm") } else { String::new() };
            let started = if started > 0 { format!(", start {started} stopped") } else { String::new() };
            let stop = if *stop > 0 { format!(", stop {stop}") } else { String::new() };
            let aside = if *set_aside > 0 { format!(", set aside {set_aside}") } else { String::new() };
            format!("decided (demand {demand}, supply {supply}): launch {launch}{option}{warm}{started}{stop}{aside}")
        }
        What::CircuitOpened { code, message } => format!("circuit opened, only probes are launched: {code}: {message}"),
        What::Refused { tuple, code, message, .. } => format!("EC2 refused {tuple}: {code}: {message}"),
        What::Resumed { next: Some(tuple), .. } => format!("the launch continues with {tuple}"),
        What::Resumed { next: None, .. } => "the launch has no launch option left for now".to_owned(),
        What::Bound { instances, .. } => {
            format!("EC2 launched {}", few(instances))
        }
        What::HandedOver { runner_name, .. } => format!("{runner_name} is registered, its JIT config is ready"),
        What::Observed { gone, .. } if !gone.is_empty() => {
            format!("EC2 no longer shows the machine of {}", slot_list(gone))
        }
        What::Observed { ready, .. } if !ready.is_empty() => {
            format!("EC2 shows the machine of {} as stopped: ready for a job", slot_list(ready))
        }
        What::Observed { .. } => "the sweep observed its runner".to_owned(),
        What::Stopped { slot, why } => format!("stopping slot {slot}: {why}"),
        What::Interrupted { instance } => format!("EC2 reclaims {instance}"),
        What::Unregistered { slot, others } if others.is_empty() => {
            format!("the runner of slot {slot} is deregistered")
        }
        What::Unregistered { slot, others } => {
            let slots: Vec<_> = [*slot].into_iter().chain(others.iter().copied()).collect();
            format!("the runners of {} are deregistered", slot_list(&slots))
        }
        What::Closed { slots, failures } => {
            let ended: String = failures.iter().map(|it| format!("; ended early: {}", failure(it))).collect();
            format!("{} closed{ended}", slot_list(slots))
        }
        What::Condemned { instance, why } => format!("removing unowned {instance}: {}", why.as_str()),
        What::Unknown(fields) => {
            let kind = fields.get("type").and_then(Value::as_str).unwrap_or("without a type");
            format!("an event that only a newer drover can describe: {kind}")
        }
        What::Adopted { instance } => format!("{instance} is unowned but has a job: left running"),
        What::Notified { title, check_run: Some(id), .. } => format!("notified its author: {title} (check run {id})"),
        What::Notified { title, check_run: None, .. } => format!("could not notify its author: {title}"),
        What::Rerun { outcome, .. } => format!("its machine was lost: {outcome}"),
        What::Swept { found, reaped, held, failed, failures, redelivered, recovered, unreadable, .. } => {
            let counts = [("found", *found), ("removed", reaped.values().sum()), ("held", *held), ("failed", *failed)];
            let jobs = if *recovered == 1 { "job recovered" } else { "jobs recovered" };
            let more = [("redelivered", *redelivered), (jobs, *recovered), ("unreadable", *unreadable)];
            let all = counts.into_iter().chain(more).filter(|(_, count)| *count > 0);
            let parts: Vec<String> = all.map(|(what, count)| format!("{count} {what}")).collect();
            let reasons: Vec<String> = failures.iter().map(|why| format!("; {why}")).collect();
            format!("sweep: {}{}", parts.join(", "), reasons.concat())
        }
    }
}

/// How many stopped machines the decision starts. They are among the wanted ones.
fn started(event: &Event) -> usize {
    event.after.iter().filter(|after| after.key.contains(" SLOT#") && after.fields["state"] == "started").count()
}

/// The machine, why it ended, and the last lines of its console.
pub(crate) fn failure(Failure { instance, reason, console, .. }: &Failure) -> String {
    let machine = instance.as_ref().map_or("a machine", |id| id.as_str());
    match console.is_empty() {
        true => format!("{machine}: {reason}"),
        false => format!("{machine}: {reason}; its console ends with: {}", console.replace('\n', " / ")),
    }
}

/// `slot 2.0`, `slots 2.0, 2.1`.
fn slot_list(slots: &[SlotId]) -> String {
    format!("{} {}", if slots.len() == 1 { "slot" } else { "slots" }, few(slots))
}

/// Of a burst, an event has dozens of ids, which would fill the screen. `--json` has all.
fn few(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.len() <= MOST_ITEMS {
        return items.join(", ");
    }
    let shown = MOST_ITEMS - 1;
    format!("{} and {} more", items[..shown].join(", "), items.len() - shown)
}

pub(crate) fn action(action: Action) -> &'static str {
    match action {
        Action::Queued => "queued",
        Action::Waiting => "waiting",
        Action::InProgress => "in progress",
        Action::Completed => "completed",
    }
}

/// The delivery, invocation or operator that caused an event.
pub(crate) fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Deliveries(deliveries) => {
            // A job that Drover found by asking GitHub has no delivery.
            let ids: Vec<&str> = deliveries.iter().map(|it| it.as_str()).filter(|id| !id.is_empty()).collect();
            if ids.is_empty() { "asked GitHub".to_owned() } else { format!("delivery {}", few(ids)) }
        }
        Cause::Invocation(request) => format!("invocation {request}"),
        Cause::Operator(who) => who.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aside::fixtures::life;

    #[test]
    fn a_list_of_a_burst_does_not_fill_the_screen() {
        assert_eq!(few(["a", "b", "c", "d"]), "a, b, c, d");
        assert_eq!(few(1..=48), "1, 2, 3 and 45 more");
        let deliveries = (0..48).map(|number| domain::ids::DeliveryId::from(number.to_string())).collect();
        assert_eq!(cause(&Cause::Deliveries(deliveries)), "delivery 0, 1, 2 and 45 more");
    }

    #[test]
    fn setting_a_machine_aside_and_starting_it_are_described() {
        let described: Vec<String> = life().iter().map(|it| event(it, None)).collect();
        let expected = [
            "EC2 launched i-3",
            "decided (demand 0, supply 1): launch 0, set aside 1",
            "EC2 shows the machine of slot 3.0 as stopped: ready for a job",
            "decided (demand 0, supply 1): launch 0, start 1 stopped",
            "runner is registered, its JIT config is ready",
            "slot 3.0 closed",
        ];
        assert_eq!(described, expected);
    }
}
