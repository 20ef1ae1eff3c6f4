//! Reading the three sources. A list that cannot be read to the end is left out: it is unknown, not empty.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::{InstanceId, Scope};
use domain::policy::PoolView;
use domain::policy::sweep::unowned_instances;
use domain::state::{Config, Instance, Item, Key};
use domain::wire::{ObservedInstance, ObservedRunner};
use futures::stream::{self, StreamExt};

use crate::context::{Context, MAX_CONCURRENT_POOLS};
use crate::ports::StoreError;
use crate::sweep::report::Report;
use crate::table::read_pool;

/// GitHub's list of runners for each scope.
pub(super) async fn list_runners(
    context: &Context<'_>,
    config: &Config,
    report: &mut Report,
) -> BTreeMap<Scope, Vec<ObservedRunner>> {
    let scopes: BTreeSet<&Scope> = config.pools.iter().map(|pool| &pool.owner).collect();
    let mut lists = BTreeMap::new();
    for scope in scopes {
        match context.ports.github.runners(scope, context.stack).await {
            Ok(list) => drop(lists.insert(scope.clone(), list)),
            Err(error) => {
                let what = format!("the runners of {scope} cannot be listed, and none is judged: {error}");
                tracing::error!(%scope, "{what}");
                report.fail(what);
            }
        }
    }
    lists
}

/// EC2's list of instances.
pub(super) async fn list_instances(context: &Context<'_>, report: &mut Report) -> Option<Vec<ObservedInstance>> {
    match context.ports.compute.census().await {
        Ok(machines) => Some(machines),
        Err(error) => {
            let what = format!("instances cannot be listed, and none is judged: {error}");
            tracing::error!("{what}");
            report.fail(what);
            None
        }
    }
}

/// The pools that can be read.
pub(super) async fn read_pools(context: &Context<'_>, config: &Config, report: &mut Report) -> Vec<(Pool, PoolView)> {
    let readings: Vec<_> = stream::iter(&config.pools)
        .map(|pool| async move { (pool, read_pool(context, &pool.name).await) })
        .buffered(MAX_CONCURRENT_POOLS)
        .collect()
        .await;
    let mut pools = Vec::new();
    for (pool, reading) in readings {
        match reading {
            Ok(view) => pools.push((pool.clone(), view)),
            Err(error) => {
                let what = format!("pool {} cannot be read, and is not judged: {error}", pool.name);
                tracing::error!(pool = %pool.name, "{what}");
                report.fail(what);
            }
        }
    }
    pools
}

/// The records of the instances that belong to no open slot.
pub(super) async fn read_unowned(
    context: &Context<'_>,
    machines: &[ObservedInstance],
    pools: &[(Pool, PoolView)],
) -> Result<BTreeMap<InstanceId, Instance>, StoreError> {
    let keys: Vec<Key> = unowned_instances(machines, pools).into_iter().map(Key::Instance).collect();
    let items = if keys.is_empty() { Vec::new() } else { context.ports.store.get_many(&keys).await? };
    Ok(items
        .into_iter()
        .filter_map(|item| match item {
            Item::Instance(instance) => Some((instance.id.clone(), instance)),
            _ => None,
        })
        .collect())
}
