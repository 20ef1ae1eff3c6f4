//! `drover pools apply` and `drover pools diff`: stores the pool file as the configuration that scaler and janitor follow, and
//! shows what that changes.

mod account;
mod differences;
mod installation;
mod machines;
mod plan;

use std::sync::Arc;

use domain::config::{Machines, Pool};
use domain::ids::Epoch;
use domain::log::Transaction;
use domain::policy::format;
use domain::state::{Config, Function, FunctionName, Item, Key, Meta};
use engine::ports::{Clock, CommitError, Store};
use jiff::Timestamp;
use platform::clock::SystemClock;
use platform::ec2::Ec2;
use rand::Rng;
use serde_json::{Value, json};

use self::account::{check_architectures, check_installed, check_runner_groups, may_have_traces, try_launches};
pub use self::installation::Installation;
use self::machines::{check_shapes, offered};
use self::plan::{Change, Plan};
use crate::output::{Failure, Output, count};
use crate::pool_file::PoolFile;
use crate::read::config_if_any;

/// Keeps a transaction within DynamoDB's limit.
const METAS_PER_TRANSACTION: usize = 50;

/// Whether the operator agrees that pools end or lose capacity.
pub enum Consent<'a> {
    /// `--yes`.
    Given,
    /// Shows the text and asks. True: yes.
    Ask(&'a dyn Fn(&str) -> bool),
    /// There is nobody to ask.
    Nobody,
    /// `--dry-run`: nothing is applied, so there is nothing to agree to.
    DryRun,
}

/// Applies a pool file.
///
/// A file with errors is reported and not applied. Also an error: a runner group that admits more than its pool serves, an
/// owner that has not installed the app, an image of another architecture, and a pool whose launches EC2 refuses.
///
/// # Errors
/// AWS does not answer, or another operator applied a file at the same time.
pub async fn apply<S: Store>(
    mut file: PoolFile,
    installation: &Installation<'_, S>,
    consent: Consent<'_>,
    now: Timestamp,
) -> Result<Output, Failure> {
    if !file.errors.is_empty() {
        return Ok(file.report());
    }
    check_installed(&mut file, &installation.github).await;
    check_runner_groups(&mut file, installation.github.clone()).await;
    if !file.errors.is_empty() {
        return Ok(file.report());
    }
    let before = config_if_any(installation.table).await?;
    let mut plan = Plan::of(&file, before.as_ref(), installation.table, installation.ec2, now).await?;
    for pool in before.iter().flat_map(|config| &config.pools) {
        let is_dropped = plan.pools.iter().all(|kept| kept.name != pool.name);
        if is_dropped && may_have_traces(pool, installation, now).await {
            plan.keep(pool);
        }
    }
    check_owners(&mut file, before.as_ref(), &plan);
    let mut in_file: Vec<Pool> = plan.of_file().cloned().collect();
    check_architectures(&mut file, &in_file, installation.inspect).await;
    // With what EC2 offers, the first jobs of pools with shapes need not wait for a sweep.
    let machines = offered(&plan.pools, installation, now).await?.map(Arc::new);
    for pool in in_file.iter_mut().filter(|pool| pool.needs_prices()) {
        pool.machines.clone_from(&machines);
    }
    check_shapes(&mut file, &in_file, installation.inspect.region().unwrap_or_default());
    if !file.errors.is_empty() {
        return Ok(file.report());
    }
    let old = before.as_ref().map(|config| config.pools.as_slice()).unwrap_or_default();
    try_launches(&mut file, &in_file, old, installation).await;
    if !file.errors.is_empty() {
        return Ok(file.report());
    }
    let (lowest, of_file) = (format::lowest(&plan.pools), format::lowest(plan.of_file()));
    let format = match &before {
        Some(before) if before.format > lowest => lowest.max(of_slots(before, installation.table).await?),
        Some(_) | None => lowest,
    };
    if before.is_some() {
        // Pools that end were applied already.
        let needed = if format > lowest { format } else { of_file };
        require_functions(needed, installation.table).await?;
    }
    let mut text = file.warnings_text() + &plan.text();
    if format > lowest {
        text += &format!(
            "machines that were stopped are left: the table stays in format {format} -> once they have ended, apply the file again \
             before you deploy an older version\n"
        );
    }
    if lowest > of_file {
        text += &format!(
            "pools that the file no longer has keep the table in format {format} -> once they are empty, and at least two minutes \
             from now, apply the file again before you deploy an older version\n"
        );
    }
    let json = |applied: bool, says: &str| {
        let mut json = json(&file, &plan, Some(applied));
        json["says"] = says.into();
        json
    };
    const NOT_APPLIED: &str = "nothing was applied";
    let losses: String = plan.losses.iter().map(|loss| format!("{loss}\n")).collect();
    let agreed = match consent {
        Consent::DryRun => {
            return Ok(Output { ok: true, text: format!("{text}{NOT_APPLIED}\n"), json: json(false, NOT_APPLIED) });
        }
        Consent::Given => true,
        _ if losses.is_empty() => true,
        Consent::Ask(ask) => ask(&format!("{text}\n{losses}")),
        Consent::Nobody => {
            let says =
                format!("{NOT_APPLIED}: there is no terminal to ask on -> drover pools apply {} --yes", file.name());
            return Ok(Output { ok: false, text: format!("{text}\n{losses}{says}\n"), json: json(false, &says) });
        }
    };
    if !agreed {
        return Ok(Output { ok: false, text: format!("{NOT_APPLIED}\n"), json: json(false, NOT_APPLIED) });
    }
    write_metas(&plan.pools, installation.table).await?;
    let mut writes = Transaction::new();
    if let Some(machines) = machines {
        let Machines { catalogue, spot } = Arc::unwrap_or_clone(machines);
        // With CONFIG: it has only the types that these pools allow.
        writes = writes.put(catalogue);
        match installation.table.commit(&Transaction::new().put_all(spot)).await {
            // A sweep was faster.
            Ok(()) | Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let revision = before.map_or(0, |config| config.revision);
    let removed = plan.ending.clone();
    // Not `now`: somebody may have thought about the question for minutes.
    let config = Config { format, pools: plan.pools.clone(), removed, applied_at: SystemClock.now(), revision };
    installation.table.commit(&writes.put(config)).await?;
    let says = "in force within a minute";
    Ok(Output { ok: true, text: format!("{text}{says}\n"), json: json(true, says) })
}

/// Shows what applying the file would change. The answer is no if it would change something. It does not ask GitHub, so
/// [`apply`] may still refuse the file.
///
/// # Errors
/// AWS does not answer.
pub async fn diff(mut file: PoolFile, table: &impl Store, ec2: &Ec2, now: Timestamp) -> Result<Output, Failure> {
    if !file.errors.is_empty() {
        return Ok(file.report());
    }
    let before = config_if_any(table).await?;
    let plan = Plan::of(&file, before.as_ref(), table, ec2, now).await?;
    check_owners(&mut file, before.as_ref(), &plan);
    if !file.errors.is_empty() {
        return Ok(file.report());
    }
    let is_same = plan.changes.values().all(|change| *change == Change::Unchanged);
    let losses: String = plan.losses.iter().map(|loss| format!("{loss}\n")).collect();
    let text = match is_same {
        true => format!("no differences: {} in force\n", count(plan.of_file().count(), "pool")),
        false => file.warnings_text() + &plan.text() + &losses,
    };
    Ok(Output { ok: is_same, text, json: json(&file, &plan, None) })
}

fn json(file: &PoolFile, plan: &Plan, applied: Option<bool>) -> Value {
    let warnings: Vec<String> = file.warnings.iter().map(ToString::to_string).collect();
    let mut json = json!({
        "changes": plan.changes, "differences": plan.differences, "losses": plan.losses, "pools": plan.pools,
        "warnings": warnings,
    });
    if let (Some(applied), Some(fields)) = (applied, json.as_object_mut()) {
        fields.insert("applied".to_owned(), json!(applied));
    }
    json
}

/// The owner of a pool cannot change: its runners are registered with the old one, and Drover would look for them with the new one.
fn check_owners(file: &mut PoolFile, before: Option<&Config>, plan: &Plan) {
    for pool in plan.of_file() {
        let old = before.and_then(|config| config.pool(&pool.name)).map(|old| &old.owner);
        if let Some(old) = old.filter(|old| **old != pool.owner) {
            let message = format!(
                "owner: pool {} is in force for {old}, where its runners are registered -> give the pool of {} another name; \
                 the old one finishes its jobs and ends",
                pool.name, pool.owner
            );
            file.refuse(&pool.name, "owner", message);
        }
    }
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

/// The lowest format that can hold the slots of these pools.
async fn of_slots(config: &Config, table: &impl Store) -> Result<u32, Failure> {
    let mut lowest = 1;
    for pool in &config.pools {
        let items = table.partition(&pool.name).await?.items;
        let slots = items.iter().filter_map(|item| if let Item::Slot(slot) = item { Some(slot) } else { None });
        lowest = slots.map(format::of_slot).fold(lowest, u32::max);
    }
    Ok(lowest)
}

fn function(item: Item) -> Option<Function> {
    if let Item::Function(function) = item { Some(function) } else { None }
}

/// Writes the META of each new pool. This comes before the configuration, because the scaler cannot decide about a configured
/// pool without META. A pool that was removed and comes back finds its old META, so its versions continue.
async fn write_metas(pools: &[Pool], table: &impl Store) -> Result<(), Failure> {
    let mut metas = Vec::new();
    for pool in pools {
        if table.get(&Key::Meta(pool.name.clone())).await?.is_none() {
            metas.push(Meta::new(pool.name.clone(), epoch()));
        }
    }
    for some in metas.chunks(METAS_PER_TRANSACTION) {
        table.commit(&Transaction::new().put_all(some.iter().cloned())).await?;
    }
    Ok(())
}

/// Six random characters: two tables of the same stack do not get the same epoch.
fn epoch() -> Epoch {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    let letters: String = (0..6).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    letters.parse().expect("letters and digits make an epoch")
}
