//! The check run on a waiting job's commit: when it is published, and what it says.

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::{JobId, Repository};
use crate::log::{Stream, Transaction, Turn, What};
use crate::policy::budget::Optional;
use crate::policy::charge::RELAUNCH_LIMIT;
use crate::policy::circuit::next_probe;
use crate::policy::class::of_job;
use crate::policy::launch_error::in_plain_words;
use crate::policy::share;
use crate::policy::tuple::is_at_cap;
use crate::policy::{MAX_CLASSES_PER_REPOSITORY, MAX_DEMAND_PER_REPOSITORY, PoolView};
use crate::state::{Answer, CheckRun, Circuit, CircuitCause, GivenUp, Job, Lease, SlotState, Stage, WaitingJob};

/// What the check run must say next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notification {
    Stage(Stage),
    /// Nothing more is launched for the job, although GitHub calls it queued.
    GivenUp,
    /// The job is no longer waiting.
    Over,
}

/// How GitHub marks the check run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    Neutral,
    Failure,
    Success,
}

impl Conclusion {
    /// The text in GitHub's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Conclusion::Neutral => "neutral",
            Conclusion::Failure => "failure",
            Conclusion::Success => "success",
        }
    }
}

/// A check run to create or to update on the job's commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRunUpdate {
    pub repository: Repository,
    pub head_sha: String,
    /// The job's id.
    pub external_id: String,
    /// GitHub's id of the check run to update; None creates one.
    pub check_run: Option<u64>,
    pub conclusion: Conclusion,
    /// One line.
    pub title: String,
    /// Markdown.
    pub summary: String,
    /// The job's page on GitHub. May be empty.
    pub details_url: String,
}

/// What the check run must say and does not say yet; None if it is up to date, or must not be written now.
pub fn due_notification(pool: &Pool, view: &PoolView, job: JobId, now: Timestamp) -> Option<Notification> {
    let check = view.check_runs.get(&job);
    if check.is_some_and(|check| !check.lease.is_free(now)) {
        return None;
    }
    let Some(waiting) = view.waiting.get(&job) else { return check.map(|_| Notification::Over) };
    // A gated job waits for somebody's approval, and GitHub shows that.
    if !waiting.open {
        return None;
    }
    if waiting.given_up(now).is_some() {
        return (!check.is_some_and(|check| check.given_up)).then_some(Notification::GivenUp);
    }
    let waited = now.duration_since(waiting.waits_since());
    let stage = if waited >= pool.timings.launch_deadline.duration() {
        Stage::Failed
    } else if waited >= pool.timings.notice_after.duration() {
        Stage::Waiting
    } else {
        return None;
    };
    let published = check.and_then(|check| check.published);
    (published < Some(stage)).then_some(Notification::Stage(stage))
}

/// What the notification counts as while little of GitHub's budget is left.
pub fn optional(notification: Notification) -> Optional {
    match notification {
        Notification::Stage(_) | Notification::GivenUp => Optional::Notice,
        Notification::Over => Optional::Closing,
    }
}

/// The check run of a job that has none yet.
pub fn first_check_run(pool: &Pool, job: &Job, now: Timestamp) -> CheckRun {
    CheckRun {
        job: job.id,
        pool: pool.name.clone(),
        repository: job.repository.clone(),
        head_sha: job.head_sha.clone(),
        html_url: job.html_url.clone(),
        published: None,
        given_up: false,
        id: None,
        lease: Lease::due(now),
        revision: 0,
    }
}

/// Who reads why a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Anyone who may read the repository: error codes with sentences of our own. The messages of EC2 and GitHub contain
    /// account ids, roles and resources.
    Author,
    /// An operator, who may read the table: everything.
    Operator,
}

impl Reader {
    /// An error that EC2 or GitHub reported.
    fn error(self, code: &str, message: &str) -> String {
        match self {
            Reader::Author => format!("{}: {}", public_code(code), in_plain_words(code)),
            Reader::Operator => format!("{code}: {message}"),
        }
    }

    fn circuit(self, cause: &CircuitCause, message: &str) -> String {
        match (self, cause) {
            (Reader::Operator, _) => format!("{cause}: {message}"),
            (Reader::Author, CircuitCause::LaunchRefused(code)) => self.error(code, message),
            (Reader::Author, CircuitCause::BootFailures) => {
                format!("{cause}: machines start, and their runners do not come online")
            }
            (Reader::Author, CircuitCause::EndedEarly) => {
                format!("{cause}: machines end before they can run a job")
            }
            (Reader::Author, CircuitCause::RegistrationRefused) => {
                format!("{cause}: GitHub does not register runners for this pool")
            }
        }
    }

    fn answer(self, Answer { tuple, code, message, .. }: &Answer) -> String {
        match self {
            Reader::Author => format!("no {} {}: {}", tuple.instance_type, tuple.market, self.error(code, message)),
            Reader::Operator => format!("no {tuple}: {}", self.error(code, message)),
        }
    }
}

/// The code, if it looks like one: nothing else that EC2 sends is shown on GitHub.
fn public_code(code: &str) -> &str {
    let is_code = code.len() <= LONGEST_CODE
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b' ')
        && code.bytes().filter(u8::is_ascii_digit).count() < SHORTEST_ID;
    if is_code { code } else { "an error" }
}

const LONGEST_CODE: usize = 80;

/// No id of AWS or GitHub has fewer digits.
const SHORTEST_ID: usize = 6;

/// Why a job waits, as sentences. The first one is the most important. Never empty.
pub fn reasons(pool: &Pool, view: &PoolView, job: &WaitingJob, reader: Reader, now: Timestamp) -> Vec<String> {
    if let Some((of_class, part)) = of_job(pool, view, job) {
        let mut reasons = reasons(&of_class, &part, job, reader, now);
        if let Some(older) = comes_after(view, job, now)
            && !reasons.contains(&older)
        {
            reasons.insert(0, older);
        }
        if part.is_short(now)
            && !is_at_cap(&of_class, &part, now)
            && let Some(class) = share::comes_first(pool, view, job, now)
        {
            reasons.insert(
                0,
                format!("an older job with the label {class} comes first, and the pool's cap leaves no room for it"),
            );
        }
        return reasons;
    }
    match job.given_up(now) {
        Some(GivenUp::RunOver) => {
            let why = "GitHub still calls it queued, but its run is over: re-run the job if it is still needed";
            return vec![why.to_owned()];
        }
        Some(GivenUp::TooOld) => {
            let hours = now.duration_since(job.queued_at).as_hours();
            let how_long = if hours < 72 { format!("{hours} hours") } else { format!("{} days", hours / 24) };
            return vec![format!(
                "GitHub has called it queued for {how_long}, and nothing is launched for a job after 24 hours: cancel \
                 its run, and re-run the job if it is still needed"
            )];
        }
        None => {}
    }
    let mut reasons = Vec::new();
    if pool.options.as_ref().is_some_and(|options| options.is_empty()) {
        let label = job.class.as_ref().map(ToString::to_string).unwrap_or_default();
        reasons.push(match &pool.machines {
            None => "what EC2 offers is not known yet: the next sweep asks, within a minute".to_owned(),
            Some(_) => format!("no instance type that the pool allows satisfies {label}"),
        });
    }
    if pool.paused && view.is_short(now) {
        reasons.push("the pool is paused: it launches nothing until an operator resumes it".to_owned());
    }
    if let Circuit::Open { cause, message, .. } = &view.meta.circuit
        && let Some(at) = next_probe(pool, &view.meta, now)
    {
        let why = reader.circuit(cause, message);
        let why = why.trim_end_matches('.');
        reasons.push(format!("the pool launches only probes: {why}; next one after {at:.0}"));
    }
    if let Some(unserved) = &job.unserved {
        reasons.push(format!(
            "GitHub did not assign it to an idle runner with matching labels: check that runner group {} allows {}; \
             next runner after {:.0}",
            pool.runner_group, job.repository, unserved.until
        ));
    }
    for pause in view.meta.pauses.iter().filter(|pause| pause.until > now) {
        let why = reader.error(&pause.code, &pause.message);
        reasons.push(format!("no {} launches for now: {why}", pause.market));
    }
    for batch in view.batches.values() {
        for answer in batch.answers.iter().rev() {
            let line = reader.answer(answer);
            if !reasons.contains(&line) {
                reasons.push(line);
            }
        }
        if batch.is_stuck() {
            let launch = match reader {
                Reader::Author => "a launch".to_owned(),
                Reader::Operator => format!("launch {}", batch.tag()),
            };
            reasons.push(format!("EC2 gave no clear answer to {launch} in {} attempts", batch.lease.tries));
        }
    }
    if view.meta.is_throttled(now) {
        reasons.push("EC2 throttles RunInstances calls of this account".to_owned());
    }
    reasons.extend(comes_after(view, job, now));
    let launched = job.launches_within(pool.timings.relaunch_window.duration(), now).count();
    if launched >= RELAUNCH_LIMIT {
        let window = pool.timings.relaunch_window;
        reasons.push(format!("{launched} machines were launched for it within {window}, and none ran it"));
    }
    if view.supply(now).count() < view.demand(now) && view.live() >= pool.max as usize {
        reasons.push(format!("the pool runs its maximum of {} machines", pool.max));
    }
    if is_at_cap(pool, view, now) {
        let cap = pool.price_per_hour.unwrap_or_default().usd();
        reasons
            .push(format!("the pool's machines may cost {cap:.2} USD per hour together, and one more would cost more"));
    }
    let unregistered = view
        .supply(now)
        .filter(|slot| slot.wanted && matches!(slot.state, SlotState::Launched(_)) && slot.registration > 1)
        .map(|slot| slot.lease.next_at)
        .max();
    if let Some(at) = unregistered {
        reasons.push(format!(
            "a machine is running, but GitHub has not registered its runner yet; next attempt after {at:.0}"
        ));
    }
    if reasons.is_empty() {
        reasons.push(match view.supply(now).count() >= view.demand(now) {
            true => "a machine is on its way".to_owned(),
            false => "a machine will be launched shortly".to_owned(),
        });
    }
    reasons
}

fn comes_after(view: &PoolView, job: &WaitingJob, now: Timestamp) -> Option<String> {
    view.behind(now).contains(&job.id).then(|| {
        format!(
            "older jobs of {} come first: the pool launches for {MAX_DEMAND_PER_REPOSITORY} jobs of a repository at a \
             time, with at most {MAX_CLASSES_PER_REPOSITORY} different labels",
            job.repository
        )
    })
}

/// The check run's title: one line.
pub fn title(notification: Notification, reasons: &[String], waited: SignedDuration) -> String {
    let first = reasons.first().map(String::as_str).unwrap_or_default();
    let title = match notification {
        Notification::Stage(Stage::Waiting) => format!("Waiting for capacity: {first}"),
        Notification::Stage(Stage::Failed) => format!("No machine for {} minutes: {first}", waited.as_mins()),
        Notification::GivenUp => format!("No machine is launched any more: {first}"),
        Notification::Over => "No longer waiting".to_owned(),
    };
    shortened(&title)
}

/// The check run's text.
pub fn summary(pool: &Pool, notification: Notification, reasons: &[String], waited: SignedDuration) -> String {
    match notification {
        Notification::Stage(_) => {
            let list: String = reasons.iter().map(|reason| format!("- {reason}\n")).collect();
            let minutes = waited.as_mins();
            format!(
                "The job has waited {minutes} minutes for a runner of pool `{}`.\n\n{list}\n\
                 An operator of Drover sees more with `drover explain` and the address of the job's page.\n",
                pool.name
            )
        }
        Notification::GivenUp => {
            let list: String = reasons.iter().map(|reason| format!("- {reason}\n")).collect();
            format!("Pool `{}` launches nothing more for the job.\n\n{list}", pool.name)
        }
        Notification::Over => "The job has a runner, or it is finished.".to_owned(),
    }
}

/// GitHub shows a title in one line.
const LONGEST_TITLE: usize = 200;

/// The beginning of a title, as far as it is shown.
pub(super) fn shortened(title: &str) -> String {
    title.chars().take(LONGEST_TITLE).collect()
}

/// The check run's title and the call to GitHub. No call is needed if the wait ends before a check run exists.
pub fn update(
    pool: &Pool,
    view: &PoolView,
    check: &CheckRun,
    notification: Notification,
    now: Timestamp,
) -> (String, Option<CheckRunUpdate>) {
    let waiting = view.waiting.get(&check.job);
    let reasons = waiting.map(|waiting| reasons(pool, view, waiting, Reader::Author, now)).unwrap_or_default();
    let waited = waiting.map(|waiting| now.duration_since(waiting.waits_since())).unwrap_or_default();
    let title = title(notification, &reasons, waited);
    let conclusion = match notification {
        Notification::Stage(Stage::Waiting) => Conclusion::Neutral,
        Notification::Stage(Stage::Failed) | Notification::GivenUp => Conclusion::Failure,
        Notification::Over if check.id.is_none() => return (title, None),
        Notification::Over => Conclusion::Success,
    };
    let update = CheckRunUpdate {
        repository: check.repository.clone(),
        head_sha: check.head_sha.clone(),
        external_id: check.job.to_string(),
        check_run: check.id,
        conclusion,
        title: title.clone(),
        summary: summary(pool, notification, &reasons, waited),
        details_url: check.html_url.clone(),
    };
    (title, Some(update))
}

/// Records what was published. The end of the wait deletes the record. `id` is GitHub's id of the check run.
pub fn published(
    pool: &Pool,
    check: CheckRun,
    notification: Notification,
    id: Option<u64>,
    title: String,
    turn: &Turn,
) -> Transaction {
    let what = What::Notified { job: check.job, title, check_run: id };
    let writes = match notification {
        Notification::Over => Transaction::new().delete(check),
        Notification::GivenUp => {
            let (published, id) = (Some(Stage::Failed), id.or(check.id));
            let lease = Lease::due(turn.now);
            Transaction::new().put(CheckRun { published, given_up: true, id, lease, ..check })
        }
        Notification::Stage(stage) => {
            let id = id.or(check.id);
            Transaction::new().put(CheckRun { published: Some(stage), id, lease: Lease::due(turn.now), ..check })
        }
    };
    writes.emit(Stream::Pool(pool.name.clone()), what, turn)
}

/// Records that GitHub refused the check run. It is tried again, because the app may be installed again or receive the
/// permission. `check` has the time of the next attempt.
pub fn refused(pool: &Pool, check: CheckRun, title: String, turn: &Turn) -> Transaction {
    let what = What::Notified { job: check.job, title, check_run: None };
    Transaction::new().put(check).emit(Stream::Pool(pool.name.clone()), what, turn)
}
