//! Searching repositories for jobs whose webhook never came.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{Owner, PoolName, Repository};
use domain::policy::budget::is_scarce;
use domain::policy::search::{due, notices};
use domain::state::{Config, Item, Janitor, Key};
use domain::wire::FoundJob;

use crate::context::Context;
use crate::record::record;
use crate::table::limited_until;

/// The result of a search.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Pools to reconcile.
    pub(super) touched: BTreeSet<PoolName>,
    /// Jobs whose webhook never came.
    pub(super) recovered: usize,
    /// Why repositories could not be searched.
    pub(super) failures: Vec<String>,
}

pub(super) async fn search(context: &Context<'_>, config: &Config, memory: &mut Janitor) -> Found {
    let mut found = Found::default();
    let now = context.now();
    let mut quiet: BTreeMap<Owner, bool> = BTreeMap::new();
    for repository in due(memory, config, now) {
        if context.short_of_time() {
            break;
        }
        let owner = repository.owner.clone();
        if !quiet.contains_key(&owner) {
            quiet.insert(owner.clone(), must_be_quiet(context, &owner).await);
        }
        if quiet.get(&owner) == Some(&true) {
            continue;
        }
        match context.ports.github.jobs_under_way(&repository).await {
            Ok(jobs) => {
                record_found(context, config, &repository, jobs, &mut found).await;
                if let Some(remembered) = memory.repositories.get_mut(&repository) {
                    remembered.searched_at = Some(now);
                }
            }
            Err(error) => {
                let what = format!("{repository} cannot be searched for jobs: {error}");
                tracing::warn!(%repository, "{what}");
                // If no call for the account works, listing its runners has failed too and was counted.
                let whole_account = error.concerns_account();
                found.failures.extend((!whole_account).then_some(what));
                quiet.insert(owner, whole_account);
            }
        }
    }
    found
}

/// Whether calls for this account must wait: its budget is scarce, or GitHub limits it.
async fn must_be_quiet(context: &Context<'_>, owner: &Owner) -> bool {
    if is_scarce(context.ports.github.budget(owner)) {
        return true;
    }
    match context.ports.store.get(&Key::Limit(owner.clone())).await {
        Ok(Some(Item::Limit(limit))) => limited_until(Some(&limit), context.now()).is_some(),
        Ok(_) => false,
        Err(_) => true,
    }
}

async fn record_found(
    context: &Context<'_>,
    config: &Config,
    repository: &Repository,
    jobs: Vec<FoundJob>,
    found: &mut Found,
) {
    let notices = notices(config, repository, jobs, context.now());
    let recorded = record(context, config, &notices).await;
    for (index, error) in &recorded.failed {
        let job = notices[*index].job.id;
        tracing::warn!(%job, "job {job} was found and cannot be recorded: {error}");
    }
    for job in &recorded.new {
        tracing::warn!(%job, "job {job} was found by searching {repository}: its webhook never came");
    }
    found.recovered += recorded.new.len();
    found.touched.extend(recorded.touched);
}
