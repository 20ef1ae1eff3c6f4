//! Searching repositories for jobs whose webhook never came.
//!
//! Each account is searched on its own: an account whose calls hang does not keep the others waiting.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{JobId, Owner, PoolName, Repository, RunId};
use domain::policy::budget::{Budget, Optional, is_ample, is_scarce, may_search, pay};
use domain::policy::search::{self, advance, is_named, notices, open_accounts, round};
use domain::state::{Config, FoundJobs, Janitor, SearchRound, SearchedRepository};
use domain::wire::{FoundJob, RunsUnderWay};
use futures::future::join_all;
use jiff::Timestamp;

use crate::context::Context;
use crate::ports::{GitHubError, RunJobs};
use crate::record::{JOBS_PER_WRITE, record};
use crate::sweep::report::Report;

/// Runs whose jobs are read at the same time. GitHub asks for few concurrent requests.
const MAX_CONCURRENT_RUNS: usize = 4;

/// Runs of an account whose jobs one sweep reads. GitHub accepts 900 such calls per minute, and a limit that is reached keeps
/// runners from being registered.
const MAX_RUNS: usize = 400;

/// After this many failures an account's search of known repositories ends until the next sweep.
const MAX_FAILURES: usize = 3;

/// The search of one account's repositories.
struct Search<'a> {
    context: &'a Context<'a>,
    config: &'a Config,
    owner: Owner,
    /// Until when the account's share of the budget is used up.
    paid_until: Option<Timestamp>,
    /// Repositories that were searched: to the end, or up to a run.
    searched: Vec<(Repository, Option<RunId>)>,
    /// Repositories whose search failed, and the run after which the next search begins, if it begins later.
    unsearchable: Vec<(Repository, Option<RunId>)>,
    /// Repositories that GitHub does not know and no pool names.
    gone: Vec<Repository>,
    round: Option<SearchRound>,
    /// How many runs' jobs were read.
    runs: usize,
    touched: BTreeSet<PoolName>,
    recovered: Vec<JobId>,
    unreadable: usize,
    failures: Vec<String>,
}

/// Whether the search of an account goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoOn {
    Yes,
    No,
}

/// Searches the repositories that are due, and returns the pools to reconcile.
pub(super) async fn search(
    context: &Context<'_>,
    config: &Config,
    memory: &mut Janitor,
    report: &mut Report,
) -> BTreeSet<PoolName> {
    let now = context.now();
    let mut by_account: BTreeMap<Owner, Vec<Repository>> = BTreeMap::new();
    for owner in open_accounts(config) {
        by_account.entry(owner).or_default();
    }
    for repository in search::due(memory, config, now) {
        by_account.entry(repository.owner.clone()).or_default().push(repository);
    }
    let known = &*memory;
    let searches = join_all(by_account.into_iter().map(|(owner, due)| async move {
        let round = open_accounts(config).contains(&owner).then(|| round(known, config, &owner, now)).flatten();
        let mut search = Search {
            context,
            config,
            paid_until: known.paid_until.get(&owner).copied(),
            owner,
            searched: Vec::new(),
            unsearchable: Vec::new(),
            gone: Vec::new(),
            round,
            runs: 0,
            touched: BTreeSet::new(),
            recovered: Vec::new(),
            unreadable: 0,
            failures: Vec::new(),
        };
        search.run(due, known).await;
        search
    }))
    .await;
    let (mut touched, mut recovered) = (BTreeSet::new(), Vec::new());
    for search in searches {
        for (repository, to) in search.searched {
            if to.is_some() {
                // Otherwise the next round would begin at its first run again.
                search::remember(memory, repository.clone(), now);
            }
            if let Some(remembered) = memory.repositories.get_mut(&repository) {
                remembered.searched_to = to;
                remembered.failed_at = None;
                if to.is_none() {
                    remembered.searched_at = Some(now);
                }
            }
        }
        for (repository, to) in search.unsearchable {
            if let Some(remembered) = memory.repositories.get_mut(&repository) {
                remembered.failed_at = Some(now);
                remembered.searched_to = to.or(remembered.searched_to);
            }
        }
        memory.repositories.retain(|repository, _| !search.gone.contains(repository));
        memory.paid_until.extend(search.paid_until.map(|paid| (search.owner.clone(), paid)));
        memory.rounds.extend(search.round.map(|round| (search.owner, round)));
        touched.extend(search.touched);
        recovered.extend(search.recovered);
        report.unreadable += search.unreadable;
        report.failures.extend(search.failures);
    }
    report.recovered += recovered.len();
    if let Some(example) = recovered.first() {
        memory.found = Some(FoundJobs { at: now, jobs: recovered.len(), example: *example });
    }
    touched
}

impl Search<'_> {
    fn budget(&self) -> Option<Budget> {
        self.context.ports.github.budget(&self.owner)
    }

    /// Whether time and the account's budget allow another search.
    fn may_go_on(&self) -> bool {
        let now = self.context.now();
        !self.context.short_of_time()
            && !is_scarce(self.budget(), Optional::Search, now)
            && may_search(self.paid_until, now)
    }

    /// The same for a repository that is known to have jobs.
    fn may_go_on_with_known(&self) -> bool {
        let now = self.context.now();
        self.may_go_on() || (!self.context.short_of_time() && is_ample(self.budget(), now))
    }

    /// Charges calls to the account's share. What is beyond the share is made only while the budget is ample, and charges nothing:
    /// a repository with a thousand runs would otherwise keep the rounds from their turn for as long as its runs wait.
    fn pay(&mut self, calls: u32) {
        let now = self.context.now();
        if may_search(self.paid_until, now) {
            self.paid_until = Some(pay(self.paid_until, calls, self.budget(), now));
        }
    }

    /// Searches the repositories that are due, then those that were never seen.
    async fn run(&mut self, due: Vec<Repository>, memory: &Janitor) {
        for repository in due {
            // Those that failed before come last, and there may be many.
            if self.failures.len() >= MAX_FAILURES || self.runs >= MAX_RUNS {
                break;
            }
            let known = memory.repositories.get(&repository);
            if !self.may_go_on_with_known() || self.search(repository, known).await == GoOn::No {
                return;
            }
        }
        while let Some(round) = self.round.filter(|round| round.page > 0)
            && self.may_go_on()
        {
            if self.search_page(round, memory).await == GoOn::No {
                return;
            }
        }
    }

    /// Goes on with one page of the account's repositories.
    async fn search_page(&mut self, round: SearchRound, memory: &Janitor) -> GoOn {
        let page = match self.context.ports.github.repositories(&self.owner, round.page).await {
            Ok(page) => page,
            Err(error) => {
                self.failed(format!("the repositories of {} cannot be listed", self.owner), &error);
                return GoOn::No;
            }
        };
        self.pay(page.counted);
        self.unreadable += page.unreadable;
        let listed = page.repositories.len();
        let mut searched = round.searched;
        for repository in page.repositories.into_iter().skip(round.searched) {
            // The others are searched on their own.
            if !memory.repositories.contains_key(&repository) {
                if !self.may_go_on() {
                    break;
                }
                // Also if it cannot be searched: it must not keep the others from their turn.
                self.round = Some(advance(round, searched + 1, listed, page.total));
                if self.search(repository, None).await == GoOn::No {
                    return GoOn::No;
                }
            }
            searched += 1;
        }
        self.round = Some(advance(round, searched, listed, page.total));
        GoOn::Yes
    }

    /// Searches one repository, from where its last search ended.
    async fn search(&mut self, repository: Repository, known: Option<&SearchedRepository>) -> GoOn {
        let RunsUnderWay { runs, unreadable, counted } =
            match self.context.ports.github.runs_under_way(&repository).await {
                Ok(runs) => runs,
                Err(GitHubError::Refused(_)) if !is_named(self.config, &repository) => {
                    tracing::warn!(%repository, "GitHub does not know {repository}, which is searched no more");
                    self.gone.push(repository);
                    return GoOn::Yes;
                }
                Err(error) => return self.cannot_search(repository, None, &error),
            };
        self.pay(counted);
        self.unreadable += unreadable;
        let from = known.and_then(|known| known.searched_to);
        let left: Vec<(RunId, bool)> =
            runs.into_iter().filter(|(run, _)| from.is_none_or(|from| *run > from)).collect();
        let mut searched_to = None;
        let mut jobs = Vec::new();
        'runs: for some in left.chunks(MAX_CONCURRENT_RUNS) {
            // The next sweep goes on after the last run. A repository may have a thousand, each of which is a call.
            if searched_to.is_some() && (self.runs >= MAX_RUNS || !self.may_go_on_with_known()) {
                break;
            }
            self.runs += some.len();
            let answers = some.iter().map(|(run, _)| self.context.ports.github.run_jobs(&repository, *run));
            for ((run, public), answer) in some.iter().zip(join_all(answers).await) {
                match answer {
                    Ok(RunJobs { jobs: listed, unreadable, counted }) => {
                        self.pay(counted);
                        self.unreadable += unreadable;
                        let under_way = listed.into_iter().filter(|job| job.status != "completed");
                        jobs.extend(under_way.map(|job| FoundJob { job, public: *public }));
                    }
                    // The run was deleted after it was listed.
                    Err(GitHubError::Refused(_)) => {}
                    Err(error) => {
                        self.record_found(&repository, jobs).await;
                        // One run must not keep those after it from being searched: it is left out after two failures in a row.
                        let is_left_out = known.is_some_and(|it| it.failed_at.is_some()) && !error.concerns_account();
                        let reached = searched_to.or(is_left_out.then_some(*run));
                        return self.cannot_search(repository, reached, &error);
                    }
                }
                searched_to = Some(*run);
                // Many take long: each that is known already needs a reading.
                if jobs.len() >= JOBS_PER_WRITE {
                    self.record_found(&repository, std::mem::take(&mut jobs)).await;
                    if self.context.short_of_time() {
                        break 'runs;
                    }
                }
            }
        }
        let is_finished = left.last().is_none_or(|(last, _)| searched_to == Some(*last));
        self.record_found(&repository, jobs).await;
        self.searched.push((repository, searched_to.filter(|_| !is_finished)));
        GoOn::Yes
    }

    fn cannot_search(&mut self, repository: Repository, searched_to: Option<RunId>, error: &GitHubError) -> GoOn {
        let what = format!("{repository} cannot be searched for jobs");
        self.unsearchable.push((repository, searched_to));
        self.failed(what, error)
    }

    /// Whether the search goes on after an error.
    fn failed(&mut self, what: String, error: &GitHubError) -> GoOn {
        let what = format!("{what}: {error}");
        tracing::warn!(owner = %self.owner, "{what}");
        // If no call for the account works, listing its runners has failed too and was counted.
        if error.concerns_account() {
            return GoOn::No;
        }
        self.failures.push(what);
        // A refusal concerns one repository. Other errors may concern all, and each may take long.
        let is_refusal = matches!(error, GitHubError::Refused(_));
        if is_refusal || self.failures.len() < MAX_FAILURES { GoOn::Yes } else { GoOn::No }
    }

    async fn record_found(&mut self, repository: &Repository, jobs: Vec<FoundJob>) {
        let notices = notices(self.config, repository, jobs, self.context.now());
        let recorded = record(self.context, self.config, &notices).await;
        for (index, error) in &recorded.failed {
            let job = notices[*index].job.id;
            tracing::warn!(%job, "job {job} was found and cannot be recorded: {error}");
        }
        for job in &recorded.new {
            let why = "its webhook did not come, or was not recorded";
            tracing::warn!(%job, "job {job} was found by searching {repository}: {why}");
        }
        self.recovered.extend(recorded.new);
        self.touched.extend(recorded.touched.into_keys());
    }
}
