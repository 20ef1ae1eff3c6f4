//! The history of an organisation or of repositories, from GitHub's API.
//!
//! Runs are listed by the time of their creation, and each run's jobs take a call. Calls are made one after the other, as GitHub
//! asks for. Every answer goes into the [`Journal`] first, so a recording can be interrupted and continued at any time.

use std::collections::{BTreeMap, HashMap};

use domain::ids::{Owner, Repository, RunId};
use domain::wire::JobNotice;
use engine::ports::{Clock, GitHubError};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use platform::github::{History, Page};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use whatif::day;
use whatif::trace::{Header, Job, Measured, Source, Trace, VERSION};

use super::journal::Journal;
use super::plan::{Activity, Day, Listing, MOST_LISTED, Plan, Run, SECOND, days};
use super::recorded::Recorded;
use crate::output::{Failure, age, count, one_line};

/// How often a call without an answer is repeated, after 1, 2 and 4 seconds.
const REPETITIONS: u32 = 3;

/// GitHub's limits are reset every hour. A longer wait is left to the operator.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(75);

/// Calls between two reports of the progress.
const REPORT_EVERY: usize = 100;

/// The most names that a note lists.
const MOST_NAMED: usize = 10;

/// Whose history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Every repository of an organisation that the token may see.
    Organization(Owner),
    Repositories(Vec<Repository>),
}

impl Subject {
    /// As text, the same for the same repositories in any order.
    pub fn name(&self) -> String {
        match self {
            Subject::Organization(owner) => owner.as_str().to_lowercase(),
            Subject::Repositories(repositories) => {
                let mut names: Vec<String> = repositories.iter().map(|it| it.to_string().to_lowercase()).collect();
                names.sort_unstable();
                names.dedup();
                names.join(", ")
            }
        }
    }
}

/// What a recording uses.
pub struct Means<'a> {
    pub history: &'a History,
    /// Waits for GitHub's limits.
    pub clock: &'a dyn Clock,
    /// Prints a line about the progress.
    pub progress: &'a (dyn Fn(&str) + Sync),
    /// The most calls of this run.
    pub calls: usize,
}

impl std::fmt::Debug for Means<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// Reads the jobs of the journal's period.
///
/// # Errors
/// GitHub does not answer or refuses a call, the calls are used up, or the journal cannot be written. The journal keeps the answers
/// so far.
pub async fn record(means: &Means<'_>, subject: &Subject, journal: &mut Journal) -> Result<Recorded, Failure> {
    let mut caller = Caller { means, journal, made: 0, answers: 0, limited_until: None, unreadable: 0 };
    let (from, until) = caller.journal.period();
    let days = days(from, until);
    let (repositories, mut notes) = caller.activities(subject, &days).await?;
    let plan = Plan::new(&repositories, &days, caller.answers, means.calls);
    let plan = plan.map_err(|needed| budget_too_small(needed, means.calls))?;
    notes.extend(plan.note(&days, means.calls));
    (means.progress)(&format!("{}: {}", subject.name(), plan.outlook(&repositories)));

    let mut runs = Vec::new();
    for activity in &repositories {
        runs.extend(caller.runs(activity, &plan, &days).await?);
    }
    let mut jobs = Vec::new();
    let mut deleted = 0;
    for (repository, run) in runs {
        match caller.jobs(&repository, run).await? {
            Some(of_run) => jobs.extend(without_copies(of_run)),
            None => deleted += 1,
        }
    }
    if deleted > 0 {
        notes.push(format!("{} had been deleted before their jobs were read", count(deleted, "run")));
    }
    if caller.unreadable > 0 {
        notes.push(format!(
            "{} of GitHub's lists could not be read and were left out",
            count(caller.unreadable, "item")
        ));
    }
    let sampled = plan.days.clone().unwrap_or_default();
    // The jobs of a sampled day may end, and queue others, on the next one. Those would be a part of that day's jobs only.
    let is_read = |job: &Job| sampled.is_empty() || sampled.contains(&day::of(job.queued_at));
    let header = Header {
        drover_trace: VERSION,
        source: Source::GitHub,
        from,
        until,
        days: sampled.clone(),
        region: None,
        anonymous: false,
        measured: Measured::default(),
    };
    Ok(Recorded { trace: Trace::of(header, jobs.into_iter().filter(is_read)), notes })
}

fn budget_too_small(needed: usize, calls: usize) -> Failure {
    Failure::Usage(format!(
        "not even one day of this history can be read with {} -> --calls {needed}, or fewer repositories",
        count(calls, "call")
    ))
}

/// A page, as the journal keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept<T> {
    items: Vec<T>,
    unreadable: usize,
    total: Option<usize>,
    has_next: bool,
}

/// Makes calls, or takes their answers from the journal.
struct Caller<'a> {
    means: &'a Means<'a>,
    journal: &'a mut Journal,
    /// Calls of this run.
    made: usize,
    /// Answers that this run used, from GitHub or from the journal.
    answers: usize,
    limited_until: Option<Timestamp>,
    unreadable: usize,
}

impl Caller<'_> {
    /// An answer. The inner error is GitHub's refusal.
    async fn page<T: Serialize + DeserializeOwned, S>(
        &mut self,
        call: String,
        ask: impl AsyncFn(&History) -> Result<Page<S>, GitHubError>,
        keep: impl Fn(S) -> Option<T>,
    ) -> Result<Result<Kept<T>, GitHubError>, Failure> {
        let kept = match self.journal.get::<Kept<T>>(&call) {
            Some(kept) => kept,
            None => match self.answer(&ask).await? {
                Err(error) => return Ok(Err(error)),
                Ok(Page { items, unreadable, total, has_next, limited_until }) => {
                    self.limited_until = limited_until;
                    let kept =
                        Kept { items: items.into_iter().filter_map(keep).collect(), unreadable, total, has_next };
                    self.journal.put(call, &kept)?;
                    kept
                }
            },
        };
        self.answers += 1;
        self.unreadable += kept.unreadable;
        Ok(Ok(kept))
    }

    /// GitHub's answer, after waits for limits and repetitions.
    async fn answer<S>(
        &mut self,
        ask: &impl AsyncFn(&History) -> Result<Page<S>, GitHubError>,
    ) -> Result<Result<Page<S>, GitHubError>, Failure> {
        let mut repetitions = 0;
        loop {
            if let Some(until) = self.limited_until.take() {
                self.wait(until).await?;
            }
            if self.made == self.means.calls {
                let made = count(self.made, "call");
                return Err(Failure::Unreachable(format!("--calls allows no more than {made} -> {}", self.resume())));
            }
            self.made += 1;
            if self.made.is_multiple_of(REPORT_EVERY) {
                (self.means.progress)(&count(self.made, "call"));
            }
            match ask(self.means.history).await {
                Err(GitHubError::Limited { until, .. }) => self.limited_until = Some(until),
                Err(GitHubError::Unavailable { .. }) if repetitions < REPETITIONS => {
                    let clock = self.means.clock;
                    clock.sleep_until(clock.now() + SignedDuration::from_secs(1 << repetitions)).await;
                    repetitions += 1;
                }
                Err(error @ GitHubError::Unavailable { .. }) => {
                    return Err(Failure::Unreachable(format!("{error} -> {}", self.resume())));
                }
                answer => return Ok(answer),
            }
        }
    }

    async fn wait(&self, until: Timestamp) -> Result<(), Failure> {
        let left = until.duration_since(self.means.clock.now());
        if left > LONGEST_WAIT {
            let resume = self.resume();
            return Err(Failure::Unreachable(format!("GitHub allows no call before {until:.0} -> {resume}")));
        }
        if left.is_positive() {
            let resume = self.resume();
            (self.means.progress)(&format!(
                "GitHub allows the next call at {until:.0}, in {}. If you do not want to wait, press Ctrl-C: {resume}",
                age(left)
            ));
            self.means.clock.sleep_until(until).await;
        }
        Ok(())
    }

    /// How to continue later, as the end of a sentence.
    fn resume(&self) -> String {
        match self.journal.path() {
            Some(path) => format!(
                "run the same command again later; {} keeps {}",
                path.display(),
                count(self.journal.len(), "answer")
            ),
            None => "run the command again later; with --record FILE it keeps the answers".to_owned(),
        }
    }

    /// The repositories, and how many runs each had.
    async fn activities(&mut self, subject: &Subject, days: &[Day]) -> Result<(Vec<Activity>, Vec<String>), Failure> {
        let repositories = match subject {
            Subject::Repositories(repositories) => repositories.clone(),
            Subject::Organization(owner) => self.repositories(owner).await?,
        };
        let (mut activities, mut refused) = (Vec::new(), Vec::new());
        for repository in repositories {
            match (self.activity(&repository, days).await?, subject) {
                (Ok(activity), _) => activities.push(activity),
                // One repository must not hide the others.
                (Err(_), Subject::Organization(_)) => refused.push(repository.to_string()),
                (Err(error), Subject::Repositories(_)) => return Err(runs_refused(&repository, &error)),
            }
        }
        let mut notes = Vec::new();
        if !refused.is_empty() {
            let more = refused.len().saturating_sub(MOST_NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            refused.truncate(MOST_NAMED);
            notes.push(format!(
                "GITHUB_TOKEN may not read the workflow runs of {}{more}: they are left out",
                refused.join(", ")
            ));
        }
        Ok((activities, notes))
    }

    async fn repositories(&mut self, owner: &Owner) -> Result<Vec<Repository>, Failure> {
        let mut repositories = Vec::new();
        for page in 1.. {
            let call = format!("repositories {page}");
            let kept = self.page(call, async |it| it.repositories(owner, page).await, Some).await?;
            let Kept { items, has_next, .. } = kept.map_err(|error| repositories_refused(owner, &error))?;
            repositories.extend(items);
            if !has_next {
                break;
            }
        }
        Ok(repositories)
    }

    async fn activity(
        &mut self,
        repository: &Repository,
        days: &[Day],
    ) -> Result<Result<Activity, GitHubError>, Failure> {
        let period = self.journal.period();
        let Kept { items: newest, total, .. } = match self.run_page(repository, period, 1).await? {
            Ok(kept) => kept,
            Err(error) => return Ok(Err(error)),
        };
        let total = total.unwrap_or(newest.len());
        let mut per_day: BTreeMap<Date, usize> = BTreeMap::new();
        let listing = match total {
            MOST_LISTED.. => {
                for day in days {
                    match self.run_page(repository, day.span, 1).await? {
                        Ok(kept) => per_day.insert(day.date, kept.total.unwrap_or(kept.items.len())),
                        Err(error) => return Ok(Err(error)),
                    };
                }
                Listing::Days
            }
            _ if total > newest.len() => {
                per_day.extend(days.iter().map(|day| (day.date, total.div_ceil(days.len()))));
                Listing::Period(total)
            }
            _ => {
                newest.iter().for_each(|run| *per_day.entry(day::of(run.created_at)).or_default() += 1);
                Listing::OnePage
            }
        };
        Ok(Ok(Activity { repository: repository.clone(), newest, listing, per_day }))
    }

    async fn run_page(
        &mut self,
        repository: &Repository,
        span: (Timestamp, Timestamp),
        page: usize,
    ) -> Result<Result<Kept<Run>, GitHubError>, Failure> {
        let call = format!("runs {repository} {:.0} {:.0} {page}", span.0, span.1);
        let keep = |run: platform::github::ListedRun| Some(Run { id: run.id.0, created_at: run.created_at });
        self.page(call, async |it| it.runs(repository, span, page).await, keep).await
    }

    /// The runs of a repository that are read.
    async fn runs(
        &mut self,
        activity: &Activity,
        plan: &Plan,
        days: &[Day],
    ) -> Result<Vec<(Repository, RunId)>, Failure> {
        let repository = &activity.repository;
        let found = match (activity.listing, &plan.days) {
            (Listing::OnePage, _) => activity.newest.clone(),
            (Listing::Period(_), None) => self.list(repository, self.journal.period()).await?,
            (Listing::Period(_), Some(_)) | (Listing::Days, _) => {
                let mut found = Vec::new();
                for day in days.iter().filter(|day| plan.reads(day.date)) {
                    found.extend(self.list(repository, day.span).await?);
                }
                found
            }
        };
        let read = found.into_iter().filter(|run| plan.reads(day::of(run.created_at)));
        // A list can move between two of its pages.
        let ids: std::collections::BTreeSet<u64> = read.map(|run| run.id).collect();
        Ok(ids.into_iter().map(|id| (repository.clone(), RunId(id))).collect())
    }

    /// All runs that were created in a period. A period with more runs than GitHub lists is divided.
    async fn list(&mut self, repository: &Repository, span: (Timestamp, Timestamp)) -> Result<Vec<Run>, Failure> {
        let mut found = Vec::new();
        let mut spans = vec![span];
        while let Some((from, until)) = spans.pop() {
            for page in 1.. {
                let kept = self.run_page(repository, (from, until), page).await?;
                let Kept { items, total, has_next, .. } = kept.map_err(|error| runs_refused(repository, &error))?;
                if total.is_some_and(|total| total >= MOST_LISTED) && from < until {
                    let middle = from.as_second().midpoint(until.as_second());
                    let middle = Timestamp::from_second(middle).unwrap_or(from);
                    spans.extend([(from, middle), (middle + SECOND, until)]);
                    break;
                }
                found.extend(items);
                if !has_next {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// The jobs of every attempt of a run. None if the run was deleted.
    async fn jobs(&mut self, repository: &Repository, run: RunId) -> Result<Option<Vec<Job>>, Failure> {
        let mut jobs = Vec::new();
        for page in 1.. {
            let call = format!("jobs {repository} {run} {page}");
            let keep = |notice| job(repository, notice);
            match self.page(call, async |it| it.jobs(repository, run, page).await, keep).await? {
                Ok(Kept { items, has_next, .. }) => {
                    jobs.extend(items);
                    if !has_next {
                        break;
                    }
                }
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(runs_refused(repository, &error)),
            }
        }
        Ok(Some(jobs))
    }
}

/// The job, if it could have had a runner.
fn job(repository: &Repository, notice: JobNotice) -> Option<Job> {
    // GitHub skips a job without queueing it. A job without any time has this one.
    if notice.conclusion.as_deref() == Some("skipped") || notice.created_at == Timestamp::UNIX_EPOCH {
        return None;
    }
    // Re-running a job copies the others of the run, with the times of the attempt that ran them.
    if notice.completed_at.is_some_and(|ended| ended < notice.created_at) {
        return None;
    }
    // Of a job that never ran, `started_at` is the time of its creation or of its end.
    let has_run = notice.runner.is_some() || notice.conclusion.as_deref() == Some("success");
    Some(Job {
        id: notice.id.0,
        run: notice.run_id.0,
        attempt: notice.run_attempt,
        repository: repository.to_string(),
        workflow: notice.workflow,
        name: Some(notice.name).filter(|name| !name.is_empty()),
        labels: notice.labels,
        queued_at: notice.created_at,
        started_at: notice.started_at.filter(|_| has_run),
        ended_at: notice.completed_at,
        conclusion: notice.conclusion,
        after: None,
    })
}

/// Leaves out the jobs of a run's later attempts that are copies of earlier jobs, which ran only once.
fn without_copies(mut jobs: Vec<Job>) -> Vec<Job> {
    jobs.sort_by_key(|job| (job.attempt, job.id));
    let mut ran: HashMap<(Option<String>, Timestamp, Timestamp), u32> = HashMap::new();
    jobs.retain(|job| {
        let Some((started, ended)) = job.started_at.zip(job.ended_at) else { return true };
        *ran.entry((job.name.clone(), started, ended)).or_insert(job.attempt) == job.attempt
    });
    jobs
}

/// The failure if GitHub does not show an organisation's repositories.
fn repositories_refused(owner: &Owner, error: &GitHubError) -> Failure {
    refused(
        &format!("the repositories of {owner}"),
        error,
        &format!(
            "check the name; if {owner} is a user, name repositories with --repository. A fine-grained token needs {owner} as \
             its resource owner and the permission Metadata: read"
        ),
    )
}

/// The failure if GitHub does not show a repository's runs or jobs.
fn runs_refused(repository: &Repository, error: &GitHubError) -> Failure {
    refused(
        &format!("the workflow runs of {repository}"),
        error,
        "check the name. A fine-grained token needs the permission Actions: read for the repository, a classic token the scope \
         repo; with single sign-on, the organisation must have authorised the token",
    )
}

fn refused(what: &str, error: &GitHubError, remedy: &str) -> Failure {
    let is_invalid = matches!(error, GitHubError::Denied(answer) if answer.code == Some(401));
    let remedy = if is_invalid { "the token is invalid or has expired: create another one" } else { remedy };
    Failure::Unreachable(one_line(&format!("GITHUB_TOKEN may not read {what}: {error} -> {remedy}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn notice(id: u64, attempt: u32, more: &serde_json::Value) -> JobNotice {
        let mut all = serde_json::json!({
            "id": id, "run_id": 1, "run_attempt": attempt, "name": "build", "labels": ["linux"], "status": "completed",
            "conclusion": "success", "created_at": "2026-11-02T08:00:00Z", "started_at": "2026-11-02T08:00:20Z",
            "completed_at": "2026-11-02T08:05:00Z", "runner": { "id": 7, "name": "runner", "group": 1 }, "head_sha": "",
            "html_url": "",
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn read(notices: Vec<JobNotice>) -> Vec<Job> {
        let repository = "octo-org/widgets".parse().unwrap();
        without_copies(notices.into_iter().filter_map(|notice| job(&repository, notice)).collect())
    }

    #[test]
    fn a_job_that_never_had_a_runner_did_not_start() {
        let none = serde_json::Value::Null;
        let cancelled = serde_json::json!({
            "conclusion": "cancelled", "runner": none, "started_at": "2026-11-02T08:05:00Z",
        });
        let jobs = read(vec![notice(1, 1, &cancelled)]);
        assert_eq!((jobs[0].started_at, jobs[0].ended_at), (None, Some(at("2026-11-02T08:05:00Z"))));
        let queued = serde_json::json!({
            "status": "queued", "conclusion": none, "runner": none, "started_at": "2026-11-02T08:00:00Z", "completed_at": none,
        });
        let jobs = read(vec![notice(1, 1, &queued)]);
        assert_eq!((jobs[0].started_at, jobs[0].ended_at), (None, None));
        let skipped = serde_json::json!({ "conclusion": "skipped", "runner": none });
        assert_eq!(read(vec![notice(1, 1, &skipped)]), []);
    }

    #[test]
    fn a_job_that_was_copied_into_a_later_attempt_counts_once() {
        let kept = serde_json::json!({ "name": "lint" });
        let moved = serde_json::json!({ "name": "docs", "created_at": "2026-11-02T09:00:00Z" });
        let again = serde_json::json!({
            "created_at": "2026-11-02T09:00:00Z", "started_at": "2026-11-02T09:00:20Z", "completed_at": "2026-11-02T09:05:00Z",
        });
        let copies = [notice(4, 2, &kept), notice(5, 2, &moved)];
        let jobs = read(
            [copies.to_vec(), vec![notice(3, 2, &again), notice(1, 1, &serde_json::json!({})), notice(2, 1, &kept)]]
                .concat(),
        );
        let ids: Vec<u64> = jobs.iter().map(|job| job.id).collect();
        assert_eq!(ids, [1, 2, 3]);
    }

    #[test]
    fn repositories_have_the_same_name_in_any_order() {
        let named = |names: &[&str]| Subject::Repositories(names.iter().map(|it| it.parse().unwrap()).collect()).name();
        assert_eq!(named(&["b/b", "A/a", "a/A"]), named(&["a/a", "B/b"]));
    }
}
