//! Events in words.

use domain::ids::{JobId, SlotId};
use domain::log::{Cause, Event, What};
use domain::wire::Action;

/// What happened, to that job if one is meant.
pub(crate) fn told(event: &Event, job: Option<JobId>) -> String {
    let list = |slots: &[SlotId]| slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match &event.what {
        What::Recorded { statements: said } => {
            let about = said.iter().filter(|said| job.is_none_or(|job| said.job == job));
            let words: Vec<String> = about
                .map(|said| match job {
                    Some(_) => action(said.action).to_owned(),
                    None => format!("job {} {}", said.job, action(said.action)),
                })
                .collect();
            format!("GitHub said: {}", words.join(", "))
        }
        What::Checked { job: about, status } => format!("asked GitHub about job {about}, which said: {status}"),
        What::Decided { unserved, .. } if job.is_some_and(|job| unserved.contains(&job)) => {
            "a runner that fits idled through its grace and GitHub did not give it this job: wait and ask".to_owned()
        }
        What::CircuitOpened { code, message } => format!("the pool launches no more for now: {code}: {message}"),
        What::Decided { demand, supply, launch, wanted, stop, tuple, .. } => {
            let how = tuple.as_ref().map(|tuple| format!(" {tuple}")).unwrap_or_default();
            let warm = if *wanted > 0 { format!(", {wanted} warm ones taken") } else { String::new() };
            let stop = if *stop > 0 { format!(", stop {stop}") } else { String::new() };
            format!("decided (demand {demand}, supply {supply}): launch {launch}{how}{warm}{stop}")
        }
        What::Refused { tuple, code, message, .. } => format!("EC2 refused {tuple}: {code}: {message}"),
        What::Resumed { next, .. } => match next {
            Some(tuple) => format!("the launch goes on: {tuple}"),
            None => "the launch waits: every way to launch was refused".to_owned(),
        },
        What::Bound { instances, .. } => {
            let ids: Vec<&str> = instances.iter().map(|id| id.as_str()).collect();
            format!("EC2 launched {}", ids.join(", "))
        }
        What::HandedOver { runner_name, .. } => format!("{runner_name} is registered and its machine may fetch it"),
        What::Observed { gone, .. } if !gone.is_empty() => format!("the machine of slot {} is gone", list(gone)),
        What::Observed { .. } => "the sweep saw its runner".to_owned(),
        What::Stopped { slot, why } => format!("slot {slot} is stopped: {why}"),
        What::Unregistered { slot } => format!("the runner of slot {slot} is unregistered"),
        What::Closed { slots } => format!("slot {} is closed", list(slots)),
        What::Condemned { instance, why } => format!("{instance} is being removed: {}", why.as_str()),
        What::Adopted { instance } => format!("{instance} is nobody's and has a job: left alone"),
        What::Notified { title, check_run: Some(id), .. } => format!("its author was told: {title} (check run {id})"),
        What::Notified { title, check_run: None, .. } => format!("its author could not be told: {title}"),
        What::Rerun { outcome, .. } => format!("it lost its machine to EC2: {outcome}"),
        What::Swept { found, reaped, held, failed, redelivered, recovered, .. } => {
            let counts = [("found", *found), ("removed", reaped.values().sum()), ("held", *held), ("failed", *failed)];
            let more = [("deliveries asked for again", *redelivered), ("lost jobs recovered", *recovered)];
            let all = counts.into_iter().chain(more).filter(|(_, count)| *count > 0);
            let words: Vec<String> = all.map(|(what, count)| format!("{count} {what}")).collect();
            format!("a sweep: {}", words.join(", "))
        }
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Queued => "queued",
        Action::Waiting => "waiting",
        Action::InProgress => "in progress",
        Action::Completed => "completed",
    }
}

/// What led to it.
pub(crate) fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Deliveries(deliveries) => {
            // What GitHub was asked came with no delivery.
            let ids: Vec<&str> = deliveries.iter().map(|it| it.as_str()).filter(|id| !id.is_empty()).collect();
            if ids.is_empty() { "GitHub was asked".to_owned() } else { format!("delivery {}", ids.join(", ")) }
        }
        Cause::Invocation(request) => format!("invocation {request}"),
        Cause::Operator(who) => who.clone(),
    }
}
