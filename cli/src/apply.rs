//! `drover pools apply`: stores the pool file as the configuration that scaler and janitor follow.

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::ids::{Epoch, PoolName};
use domain::log::Transaction;
use domain::policy::format;
use domain::state::{Config, Function, FunctionName, Item, Key, Meta};
use engine::ports::Store;
use jiff::Timestamp;
use platform::ec2::Ec2;
use platform::github::GitHubApp;
use rand::Rng;
use serde::Serialize;
use serde_json::json;

use crate::output::{Failure, Output, count};
use crate::pool_file::{PoolEntry, PoolFile, by_name};
use crate::read::config_if_any;
use crate::runner_groups;

/// Keeps a transaction within DynamoDB's limit.
const METAS_PER_TRANSACTION: usize = 50;

/// What applying the file does to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Added,
    Changed,
    Unchanged,
    /// No longer in the file, but still with jobs or machines.
    Draining,
    /// No longer in the file, and empty.
    Removed,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Changed => "changed",
            Change::Unchanged => "unchanged",
            Change::Draining => "draining",
            Change::Removed => "removed",
        }
    }
}

type Changes = BTreeMap<PoolName, Change>;

/// Applies a pool file. The launch template's version and the subnets are resolved here and stay as they are until the next
/// time, so that nothing changes without an operator.
///
/// A file with errors is reported and not applied. A runner group that admits more than its pool serves is such an error.
///
/// # Errors
/// AWS does not answer, or another operator applied a file at the same time.
pub async fn apply(
    mut file: PoolFile,
    table: &impl Store,
    ec2: &Ec2,
    github: Result<&GitHubApp, String>,
    now: Timestamp,
) -> Result<Output, Failure> {
    if file.errors.is_empty() {
        let pools: Vec<_> = file.pools.iter().map(Into::into).collect();
        let findings = runner_groups::check(&pools, github).await;
        findings.errors.iter().for_each(|it| file.refuse(&it.pool, "runner_group", &it.message));
        findings.warnings.iter().for_each(|it| file.warn(&it.pool, "runner_group", &it.message));
    }
    if !file.errors.is_empty() {
        return Ok(file.report());
    }
    let before = config_if_any(table).await?;
    let (pools, changes) = plan(&file, before.as_ref(), table, ec2).await?;
    let format = format::lowest(&pools);
    if before.is_some() {
        require_functions(format, table).await?;
    }
    write_metas(&pools, table).await?;
    let revision = before.map_or(0, |config| config.revision);
    // The pools of the file are not draining.
    let removed = pools.iter().filter(|pool| pool.draining).map(|pool| pool.name.clone()).collect();
    let config = Config { format, pools: pools.clone(), removed, applied_at: now, revision };
    table.commit(&Transaction::new().put(config)).await?;
    let json = json!({ "changes": changes, "pools": pools, "warnings": file.warnings.iter().map(ToString::to_string).collect::<Vec<_>>() });
    Ok(Output { ok: true, text: text(&file, &changes, &pools), json })
}

/// The new configuration, and how it differs from the old one.
async fn plan(
    file: &PoolFile,
    before: Option<&Config>,
    table: &impl Store,
    ec2: &Ec2,
) -> Result<(Vec<Pool>, Changes), Failure> {
    let entries = by_name(&file.pools);
    let (mut pools, mut changes) = (Vec::new(), Changes::new());
    for (name, entry) in &entries {
        let pool = resolve(entry, ec2).await?;
        let change = match before.and_then(|config| config.pool(name)) {
            None => Change::Added,
            Some(old) if *old == pool => Change::Unchanged,
            Some(_) => Change::Changed,
        };
        changes.insert((*name).clone(), change);
        pools.push(pool);
    }
    let dropped = before.into_iter().flat_map(|config| &config.pools).filter(|pool| !entries.contains_key(&pool.name));
    for pool in dropped {
        match table.partition(&pool.name).await?.items.iter().any(is_unfinished) {
            true => {
                changes.insert(pool.name.clone(), Change::Draining);
                pools.push(Pool { draining: true, ..pool.clone() });
            }
            false => drop(changes.insert(pool.name.clone(), Change::Removed)),
        }
    }
    Ok((pools, changes))
}

/// Fails if a deployed function does not support the format. On a new stack no function has run yet, and none has an older
/// version.
async fn require_functions(format: u32, table: &impl Store) -> Result<(), Failure> {
    if format <= 1 {
        return Ok(());
    }
    let keys: Vec<Key> = FunctionName::ALL.into_iter().map(Key::Function).collect();
    let recorded: Vec<_> = table.get_many(&keys).await?.into_iter().filter_map(function).collect();
    let older = format::unsupported_by(format, &recorded);
    if older.is_empty() { Ok(()) } else { Err(Failure::OlderFunctions { format, functions: older }) }
}

fn function(item: Item) -> Option<Function> {
    if let Item::Function(function) = item { Some(function) } else { None }
}

/// Writes the META of each new pool. This comes before the configuration, because the scaler cannot decide about a configured
/// pool without META. A pool that was removed and comes back finds its old META, so its versions continue.
async fn write_metas(pools: &[Pool], table: &impl Store) -> Result<(), Failure> {
    let mut metas = Vec::new();
    for pool in pools.iter().filter(|pool| !pool.draining) {
        if table.get(&Key::Meta(pool.name.clone())).await?.is_none() {
            metas.push(Meta::new(pool.name.clone(), epoch()));
        }
    }
    for some in metas.chunks(METAS_PER_TRANSACTION) {
        table.commit(&Transaction::new().put_all(some.iter().cloned())).await?;
    }
    Ok(())
}

fn text(file: &PoolFile, changes: &Changes, pools: &[Pool]) -> String {
    let mut text = file.warnings_text();
    text.extend(changes.iter().map(|(name, change)| format!("{name}: {}\n", change.as_str())));
    for pool in pools.iter().filter(|pool| !pool.draining) {
        let (template, subnets) = (&pool.launch_template, count(pool.subnets.len(), "subnet"));
        text +=
            &format!("{}: {} version {} ({}), {subnets}\n", pool.name, template.name, template.version, template.id);
    }
    text + "in force within a minute\n"
}

/// Whether the item is work that a draining pool still has to finish.
fn is_unfinished(item: &Item) -> bool {
    match item {
        Item::Slot(_) | Item::Batch(_) | Item::Waiting(_) | Item::CheckRun(_) | Item::Rerun(_) => true,
        Item::Meta(_)
        | Item::Nudge(_)
        | Item::Job(_)
        | Item::Instance(_)
        | Item::Config(_)
        | Item::Limit(_)
        | Item::Unrouted(_)
        | Item::Janitor(_)
        | Item::Function(_)
        | Item::Listing(_)
        | Item::Runner(_) => false,
    }
}

async fn resolve(entry: &PoolEntry, ec2: &Ec2) -> Result<Pool, Failure> {
    let launch_template = ec2.resolve_template(&entry.launch_template, entry.launch_template_version).await?;
    let subnets = match entry.subnets.is_empty() {
        false => entry.subnets.clone(),
        true => ec2.tagged_subnets().await?,
    };
    if subnets.is_empty() {
        return Err(Failure::Usage(format!(
            "pool {:?}: the file lists no subnets, and none has the stack's tag drover:stack",
            entry.name.as_str()
        )));
    }
    Ok(Pool { launch_template, subnets, ..entry.unresolved() })
}

/// Six random characters: two tables of the same stack do not get the same epoch.
fn epoch() -> Epoch {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    let letters: String = (0..6).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    letters.parse().expect("letters and digits make an epoch")
}
