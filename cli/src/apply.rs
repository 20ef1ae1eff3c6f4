//! `drover pools apply`: the pool file becomes the item that scaler and janitor follow.

use std::collections::BTreeMap;

use domain::config::Pool;
use domain::ids::{Epoch, PoolName};
use domain::log::Transaction;
use domain::state::{Config, FORMAT, Item, Key, Meta};
use engine::ports::Store;
use jiff::Timestamp;
use platform::ec2::Ec2;
use platform::github::GitHubApp;
use rand::Rng;
use serde_json::json;

use crate::output::{Failure, Output};
use crate::pool_file::{PoolFile, Written, by_name};
use crate::read::config_if_any;
use crate::runner_groups;

/// METAs of new pools in one transaction.
const METAS_A_WRITE: usize = 50;

/// Applies a file without errors. What is resolved here (a template's version, the subnets) stays as it is until the next
/// time: nothing that is launched changes by itself.
///
/// A runner group that admits more than its pool is an error like one of the file.
///
/// # Errors
/// When AWS cannot be asked, or somebody else applied at the same moment.
pub async fn apply(
    mut file: PoolFile,
    table: &impl Store,
    ec2: &Ec2,
    github: Result<&GitHubApp, String>,
    now: Timestamp,
) -> Result<Output, Failure> {
    if file.errors.is_empty() {
        let pools: Vec<_> = file.pools.iter().map(Into::into).collect();
        let fence = runner_groups::check(&pools, github).await;
        file.errors.extend(fence.errors);
        file.warnings.extend(fence.warnings);
    }
    if !file.errors.is_empty() {
        return Ok(file.report());
    }
    let before = config_if_any(table).await?;
    let wanted = by_name(&file.pools);
    let mut pools = Vec::new();
    let mut changes: BTreeMap<PoolName, &str> = BTreeMap::new();
    for (name, written) in &wanted {
        let pool = resolve(written, ec2).await?;
        let known = before.as_ref().and_then(|config| config.pool(name));
        let change = match known {
            None => "added",
            Some(known) if *known == pool => "unchanged",
            Some(_) => "changed",
        };
        changes.insert((*name).clone(), change);
        pools.push(pool);
    }
    let gone = before.iter().flat_map(|config| &config.pools).filter(|pool| !wanted.contains_key(&pool.name));
    for pool in gone {
        let busy = table.partition(&pool.name).await?.iter().any(is_open);
        changes.insert(pool.name.clone(), if busy { "draining" } else { "removed" });
        if busy {
            pools.push(Pool { draining: true, ..pool.clone() });
        }
    }

    // METAs first: a pool that is configured without one cannot be decided about.
    let mut metas = Vec::new();
    for pool in pools.iter().filter(|pool| !pool.draining) {
        // A pool that comes back finds the META that it had; its versions go on.
        if table.get(&Key::Meta(pool.name.clone())).await?.is_none() {
            metas.push(Meta::new(pool.name.clone(), epoch()));
        }
    }
    for some in metas.chunks(METAS_A_WRITE) {
        table.commit(&Transaction::new().put_all(some.iter().cloned())).await?;
    }
    let revision = before.map_or(0, |config| config.revision);
    table
        .commit(&Transaction::new().put(Config { format: FORMAT, pools: pools.clone(), applied_at: now, revision }))
        .await?;

    let mut text: String = file.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    for (name, change) in &changes {
        text += &format!("{name}: {change}\n");
    }
    for pool in pools.iter().filter(|pool| !pool.draining) {
        let (template, subnets) = (&pool.launch_template, pool.subnets.len());
        text += &format!(
            "{}: {} version {} ({}), {subnets} subnets\n",
            pool.name, template.name, template.version, template.id
        );
    }
    text += "in force within a minute\n";
    let json = json!({ "changes": changes, "pools": pools, "warnings": file.warnings });
    Ok(Output { yes: true, text, json })
}

fn is_open(item: &Item) -> bool {
    match item {
        Item::Slot(_) | Item::Batch(_) | Item::Waiting(_) | Item::CheckRun(_) | Item::Rerun(_) => true,
        Item::Meta(_)
        | Item::Nudge(_)
        | Item::Job(_)
        | Item::Instance(_)
        | Item::Config(_)
        | Item::Limit(_)
        | Item::Janitor(_) => false,
    }
}

async fn resolve(written: &Written, ec2: &Ec2) -> Result<Pool, Failure> {
    let launch_template = ec2.resolve_template(&written.launch_template, written.launch_template_version).await?;
    let subnets = match written.subnets.is_empty() {
        false => written.subnets.clone(),
        true => ec2.tagged_subnets().await?,
    };
    if subnets.is_empty() {
        return Err(Failure::Usage(format!(
            "pool {:?}: no subnets are given and none has the stack's tag drover:stack",
            written.name.as_str()
        )));
    }
    Ok(Pool { launch_template, subnets, ..written.unresolved() })
}

/// Six random characters: two tables of one stack never have the same.
fn epoch() -> Epoch {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    let word: String = (0..6).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    word.parse().expect("letters and digits make an epoch")
}
