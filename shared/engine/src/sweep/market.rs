//! Reads the catalogue of instance types and the spot prices again, when they are old.

use domain::config::{Catalogue, Pool};
use domain::log::Transaction;
use domain::policy::market::{are_prices_due, catalogue, is_catalogue_due, spot_prices, subnets};
use domain::state::{Config, Instance, Item};

use crate::context::Context;
use crate::ports::{CommitError, ComputeError};
use crate::sweep::report::Report;

/// A failed reading leaves what is stored, and is a failure of the sweep. `reclaimed` are machines that EC2 took back and still
/// lists, which it does for an hour.
pub(super) async fn refresh<'a>(
    context: &Context<'_>,
    config: &Config,
    reclaimed: impl Iterator<Item = &'a Instance>,
    report: &mut Report,
) {
    let pools = &config.pools;
    let machines = pools.iter().find_map(|pool| pool.machines.as_deref());
    let before = machines.map(|machines| &machines.catalogue);
    let spot = machines.and_then(|machines| machines.spot.as_ref());
    let mut known = before.cloned();
    if is_catalogue_due(pools, before, context.now()) {
        match read_catalogue(context, pools, before).await {
            Ok(read) => {
                store(context, read.clone(), report).await;
                known = Some(read);
            }
            Err(error) => report.fail(format!("the instance types cannot be read: {error}")),
        }
    }
    let Some(known) = known.filter(|_| are_prices_due(pools, spot, context.now())) else { return };
    let types = known.types.keys().cloned().collect();
    match context
        .ports
        .compute
        .spot_prices(&types, context.now())
        .await
        .map(|read| spot_prices(&known, read, reclaimed, spot, context.now()))
    {
        Ok(read) => store(context, read, report).await,
        Err(error) => report.fail(format!("the spot prices cannot be read: {error}")),
    }
}

async fn read_catalogue(
    context: &Context<'_>,
    pools: &[Pool],
    before: Option<&Catalogue>,
) -> Result<Catalogue, ComputeError> {
    let read = context.ports.compute.machines(&subnets(pools)).await?;
    Ok(catalogue(pools, read.types, read.zones, context.rates, before, context.now()))
}

async fn store(context: &Context<'_>, item: impl Into<Item>, report: &mut Report) {
    match context.ports.store.commit(&Transaction::new().put(item)).await {
        // `drover pools apply` was faster.
        Ok(()) | Err(CommitError::Conflict(_)) => {}
        Err(CommitError::Store(error)) => report.fail(format!("what EC2 offers is not stored: {error}")),
    }
}
