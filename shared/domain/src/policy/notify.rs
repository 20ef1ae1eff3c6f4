//! What the author of a job is told while it waits, and why it waits.

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::JobId;
use crate::policy::PoolView;
use crate::policy::decide::RELAUNCH_LIMIT;
use crate::state::Stage;
use crate::state::{Circuit, SlotState, WaitingJob};

/// What is to be told next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It waits.
    Stage(Stage),
    /// It waits no more.
    Over,
}

/// What the job's author should know and does not.
pub fn due_notification(pool: &Pool, view: &PoolView, job: JobId, now: Timestamp) -> Option<Word> {
    let check = view.check_runs.get(&job);
    if check.is_some_and(|check| check.next_at > now) {
        return None;
    }
    let Some(waiting) = view.waiting.get(&job) else { return check.map(|_| Word::Over) };
    // A gated job waits for a person, who knows.
    if !waiting.open {
        return None;
    }
    let waited = now.duration_since(waiting.waits_since());
    let stage = if waited >= pool.timings.launch_deadline.duration() {
        Stage::Failed
    } else if waited >= pool.timings.notice_after.duration() {
        Stage::Waiting
    } else {
        return None;
    };
    let told = check.and_then(|check| check.told);
    (told < Some(stage)).then_some(Word::Stage(stage))
}

/// Why a job waits, in sentences; the first is the one to act on. Never empty.
pub fn reasons(pool: &Pool, view: &PoolView, job: &WaitingJob, now: Timestamp) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Circuit::Open { until, code, message, .. } = &view.meta.circuit {
        reasons.push(format!("the pool launches only probes: {code}: {message}; the next one after {until:.0}"));
    }
    if let Some(unserved) = &job.unserved {
        reasons.push(format!(
            "GitHub did not give it to a runner that fits and was idle: look whether runner group {} allows {}; \
             the next runner after {:.0}",
            pool.runner_group, job.repository, unserved.until
        ));
    }
    for pause in view.meta.pauses.iter().filter(|pause| pause.until > now) {
        reasons.push(format!("the account's quota: {}: {}", pause.code, pause.message));
    }
    for batch in view.batches.values() {
        for refusal in batch.refusals.iter().rev() {
            let line = format!("no {}: {}: {}", refusal.tuple, refusal.code, refusal.message);
            if !reasons.contains(&line) {
                reasons.push(line);
            }
        }
        if batch.is_stuck() {
            reasons.push(format!("EC2 has not answered launch {} clearly in {} tries", batch.tag(), batch.tries));
        }
    }
    if view.meta.is_throttled(now) {
        reasons.push("EC2 has too many calls of RunInstances from this account".to_owned());
    }
    let launched = job.launches_within(pool.timings.relaunch_window.duration(), now).count();
    if launched >= RELAUNCH_LIMIT {
        let window = pool.timings.relaunch_window;
        reasons.push(format!("{launched} machines were launched for it within {window}, and none of them ran it"));
    }
    if view.supply(now).count() < view.demand(now) && view.live() >= pool.max as usize {
        reasons.push(format!("the pool runs its maximum of {} machines", pool.max));
    }
    let unregistered = view
        .supply(now)
        .filter(|slot| slot.wanted && matches!(slot.state, SlotState::Launched(_)) && slot.registration > 1)
        .map(|slot| slot.next_at)
        .max();
    if let Some(at) = unregistered {
        reasons
            .push(format!("a machine is up, and GitHub has not registered its runner yet; the next try after {at:.0}"));
    }
    if reasons.is_empty() {
        reasons.push(match view.supply(now).count() >= view.demand(now) {
            true => "a machine is on its way".to_owned(),
            false => "a machine will be launched any moment".to_owned(),
        });
    }
    reasons
}

/// A word as GitHub shows it: one line, and Markdown.
pub fn text(pool: &Pool, word: Word, reasons: &[String], waited: SignedDuration) -> (String, String) {
    let minutes = waited.as_mins();
    let first = reasons.first().map(String::as_str).unwrap_or_default();
    let title = match word {
        Word::Stage(Stage::Waiting) => format!("Waiting for capacity: {first}"),
        Word::Stage(Stage::Failed) => format!("No machine for {minutes} minutes: {first}"),
        Word::Over => "The job waits no more".to_owned(),
    };
    let summary = match word {
        Word::Stage(_) => {
            let list: String = reasons.iter().map(|reason| format!("- {reason}\n")).collect();
            format!("The job has waited for {minutes} minutes for a runner of pool `{}`.\n\n{list}", pool.name)
        }
        Word::Over => "A runner has it, or it is over.".to_owned(),
    };
    (title.chars().take(LONGEST_TITLE).collect(), summary)
}

/// GitHub shows a title in one line.
const LONGEST_TITLE: usize = 200;
