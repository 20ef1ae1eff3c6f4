//! What the pools launch, and how they fare.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::{LaunchTemplate, Pool, Tuple};
use domain::ids::SubnetId;
use domain::policy::PoolView;
use domain::state::{Circuit, Config, Item, Key};
use engine::ports::Store;
use jiff::{SignedDuration, Timestamp};
use platform::inspect::TemplateFacts;
use platform::table::Table;

use super::{Group, Level, Pools, Subject};
use crate::output::age;

/// GitHub refuses a runner 30 days after a newer one came out.
const IMAGE_WARN: SignedDuration = SignedDuration::from_hours(14 * 24);
const IMAGE_FAIL: SignedDuration = SignedDuration::from_hours(25 * 24);

/// EC2 lets an account launch five times in a row, then twice a second: the scaler must find some of them left.
const TRIALS: usize = 3;

/// Jobs that are named, of those that wait too long.
const NAMED: usize = 5;

/// All about the pools.
pub(super) async fn pools(subject: &Subject<'_>, config: Pools<'_>) -> Vec<Group> {
    let (mut launching, mut state) = (Group::new("launching"), Group::new("pools at work"));
    match config {
        Some(config) => {
            let ((), ()) = tokio::join!(launch(&mut launching, subject, config), work(&mut state, subject, config));
        }
        None => {
            for name in ["launch templates", "power-off", "image", "addresses", "trial"] {
                launching.skip(name, "no pools are known");
            }
            for name in ["circuits", "quota", "capacity", "launches", "waiting jobs", "GitHub's limits"] {
                state.skip(name, "no pools are known");
            }
        }
    }
    vec![launching, state]
}

async fn launch(group: &mut Group, subject: &Subject<'_>, config: &Config) {
    let pools: Vec<&Pool> = config.pools.iter().filter(|pool| !pool.draining).collect();
    templates(group, subject, &pools).await;
    addresses(group, subject, &pools).await;
    trial(group, subject, &pools).await;
}

async fn templates(group: &mut Group, subject: &Subject<'_>, pools: &[&Pool]) {
    let mut used: BTreeMap<(&str, u64), (&LaunchTemplate, Vec<&str>)> = BTreeMap::new();
    for pool in pools {
        let template = &pool.launch_template;
        used.entry((template.id.as_str(), template.version))
            .or_insert_with(|| (template, Vec::new()))
            .1
            .push(pool.name.as_str());
    }
    let (mut gone, mut stopping, mut facts) = (Vec::new(), Vec::new(), Vec::new());
    for (template, pools) in used.into_values() {
        let called = format!("{} version {} (pool {})", template.name, template.version, pools.join(", "));
        match subject.inspect.template(template).await {
            Ok(found) => {
                if !found.ends_by_power_off {
                    stopping.push(format!("{called} only stops machines that power themselves off"));
                }
                facts.push((called, found));
            }
            Err(error) => gone.push(format!("{called}: {error}")),
        }
    }
    let fine = format!("{} in use", facts.len());
    let remedy = "make infrastructure makes it; then drover pools apply takes it";
    group.judge("launch templates", Level::Fail, &gone, fine, remedy);
    let remedy = "set InstanceInitiatedShutdownBehavior=terminate in the template; then drover pools apply";
    match facts.is_empty() {
        true => group.skip("power-off", "no launch template is known"),
        false => group.judge("power-off", Level::Fail, &stopping, "ends a machine", remedy),
    }
    image(group, subject, &facts).await;
}

async fn image(group: &mut Group, subject: &Subject<'_>, facts: &[(String, TemplateFacts)]) {
    let used: BTreeSet<&str> = facts.iter().filter_map(|(_, facts)| facts.image.as_deref()).collect();
    if used.is_empty() {
        return group.skip("image", "no launch template names one");
    }
    let (mut wrong, mut fine, mut level) = (Vec::new(), Vec::new(), Level::Warn);
    for id in used {
        let found = match subject.inspect.image(id).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                wrong.push(format!("{id} does not exist (any more): nothing can be launched"));
                level = Level::Fail;
                continue;
            }
            Err(error) => {
                wrong.push(format!("{id}: {error}"));
                level = Level::Fail;
                continue;
            }
        };
        let since = |at: Option<Timestamp>| at.map(|at| subject.now.duration_since(at));
        let (made, released) = (since(found.created_at).unwrap_or_default(), since(found.runner_released_at));
        let published = released.map(|old| format!(", published {} ago", age(old))).unwrap_or_default();
        let runner = found.runner.map(|runner| format!(", with runner {runner}{published}")).unwrap_or_default();
        let old = made.max(released.unwrap_or_default());
        let called = format!("{id}, {} old{runner}", age(made));
        if !found.available {
            wrong.push(format!("{called}, is not available"));
            level = Level::Fail;
        } else if old >= IMAGE_WARN {
            wrong.push(format!("{called}: GitHub refuses a runner 30 days after a newer one"));
            level = if old >= IMAGE_FAIL { Level::Fail } else { level };
        } else {
            fine.push(called);
        }
    }
    // An image built anew from an old pin has the same old runner.
    let remedy = "infra/runner-version --update, make build-image, drover pools apply FILE";
    group.judge("image", level, &wrong, fine.join("\n"), remedy);
}

async fn addresses(group: &mut Group, subject: &Subject<'_>, pools: &[&Pool]) {
    let ids: BTreeSet<&SubnetId> = pools.iter().flat_map(|pool| &pool.subnets).collect();
    let ids: Vec<&SubnetId> = ids.into_iter().collect();
    let found = match subject.inspect.subnets(&ids).await {
        Ok(found) => found,
        Err(error) => return group.unanswered("addresses", &error),
    };
    let free: BTreeMap<&SubnetId, u32> = found.iter().map(|subnet| (&subnet.id, subnet.free)).collect();
    let (mut wrong, mut level) = (Vec::new(), Level::Warn);
    for id in &ids {
        match free.get(id) {
            None => wrong.push(format!("{id} does not exist (any more)")),
            Some(0) => wrong.push(format!("{id} has no free address")),
            Some(_) => {}
        }
    }
    for pool in pools {
        let all: u32 = pool.subnets.iter().filter_map(|id| free.get(id)).fold(0, |all, one| all.saturating_add(*one));
        if all == 0 {
            wrong.push(format!("pool {} can launch nothing: none of its subnets has a free address", pool.name));
            level = Level::Fail;
        } else if all < pool.max {
            wrong.push(format!(
                "pool {} may have {} machines, and its subnets have {all} free addresses",
                pool.name, pool.max
            ));
        }
    }
    let all: u64 = free.values().map(|free| u64::from(*free)).sum();
    let fine = format!("{all} free in {} subnets", free.len());
    let remedy = "give the pool more subnets (then drover pools apply), or free some";
    group.judge("addresses", level, &wrong, fine, remedy);
}

/// Would EC2 launch? Each type, market and template once, in the first subnet, as far as the account's allowance of calls
/// reaches.
async fn trial(group: &mut Group, subject: &Subject<'_>, pools: &[&Pool]) {
    let mut seen = BTreeSet::new();
    let mut ways: Vec<Tuple> = Vec::new();
    // The first choice of every pool before the second of any.
    let choices: Vec<Vec<Tuple>> = pools.iter().map(|pool| pool.tuples()).collect();
    for place in 0..choices.iter().map(Vec::len).max().unwrap_or_default() {
        for tuple in choices.iter().filter_map(|tuples| tuples.get(place)) {
            let what = (tuple.template.clone(), tuple.template_version, tuple.instance_type.clone(), tuple.market);
            if seen.insert(what) {
                ways.push(tuple.clone());
            }
        }
    }
    let untried = ways.len().saturating_sub(TRIALS);
    ways.truncate(TRIALS);
    let (mut wrong, mut level) = (Vec::new(), Level::Warn);
    for tuple in &ways {
        match subject.inspect.try_launch(tuple).await {
            Ok(()) => {}
            Err(error) if error.is_refusal() => wrong.push(format!("we may not try {tuple}: {error}")),
            Err(error) if error.is_throttled() => wrong.push(format!("{tuple} is not tried: EC2 has too many calls")),
            Err(error) => {
                wrong.push(format!("{tuple}: {error}"));
                level = Level::Fail;
            }
        }
    }
    let left = if untried > 0 { format!("; {untried} others are not tried") } else { String::new() };
    let fine = format!("EC2 would launch {} of {} ways{left}", ways.len(), ways.len() + untried);
    group.judge("trial", level, &wrong, fine, "look at the message; EC2 only tried, and launched nothing");
}

/// What the pools' own state says.
async fn work(group: &mut Group, subject: &Subject<'_>, config: &Config) {
    let Ok(table) = &subject.table else { return };
    let now = subject.now;
    let (mut unread, mut circuits, mut quota, mut capacity) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut launches, mut waiting) = (Vec::new(), Vec::new());
    for pool in &config.pools {
        let name = &pool.name;
        let view = match view(table, pool).await {
            Ok(view) => view,
            Err(why) => {
                unread.push(format!("pool {name}: {why}"));
                continue;
            }
        };
        if let Circuit::Open { since, cause: code, message, .. } = &view.meta.circuit {
            circuits.push(format!("pool {name} launches only probes since {since:.0}: {code}: {message}"));
        }
        for pause in view.meta.pauses.iter().filter(|pause| pause.until > now) {
            quota.push(format!("pool {name}: {}: {}", pause.code, pause.message));
        }
        for cooling in view.meta.cooldowns.iter().filter(|cooling| cooling.until > now) {
            capacity.push(format!("pool {name}: {}: {} until {:.0}", cooling.tuple, cooling.code, cooling.until));
        }
        for batch in view.batches.values().filter(|batch| batch.is_stuck()) {
            launches.push(format!("launch {} was tried {} times", batch.tag(), batch.lease.tries));
        }
        let long = pool.timings.notice_after.duration();
        for job in view.waiting.values().filter(|job| job.open && now.duration_since(job.waits_since()) >= long) {
            let waited = age(now.duration_since(job.waits_since()));
            waiting.push(format!("{} of {} in pool {name}, for {waited}", job.id, job.repository));
        }
    }
    let more = waiting.len().saturating_sub(NAMED);
    waiting.truncate(NAMED);
    waiting.extend((more > 0).then(|| format!("and {more} more")));
    group.judge("state", Level::Fail, &unread, format!("{} pools read", config.pools.len()), "drover pools apply");
    let remedy =
        "put right what the message says: a probe closes the circuit, or drover pools apply of another configuration";
    group.judge("circuits", Level::Fail, &circuits, "closed", remedy);
    let remedy = "ask AWS for more (Service Quotas, EC2), or lower the pool's max";
    group.judge("quota", Level::Fail, &quota, "EC2 has not refused lately", remedy);
    let remedy = "give the pool more instance types or subnets, if that lasts";
    group.judge("capacity", Level::Warn, &capacity, "EC2 has not refused lately", remedy);
    let remedy = "drover explain of a job that waits says what EC2 answered";
    group.judge("launches", Level::Fail, &launches, "none is stuck", remedy);
    group.judge("waiting jobs", Level::Warn, &waiting, "none for long", "drover explain JOB says why");
    limits(group, subject, table, config).await;
}

async fn view(table: &Table, pool: &Pool) -> Result<PoolView, String> {
    // META first: see PoolView.
    let meta = match table.get(&Key::Meta(pool.name.clone())).await.map_err(|error| error.to_string())? {
        Some(Item::Meta(meta)) => meta,
        _ => return Err("it has no state".to_owned()),
    };
    let partition = table.partition(&pool.name).await.map_err(|error| error.to_string())?;
    Ok(PoolView::new(meta, partition))
}

async fn limits(group: &mut Group, subject: &Subject<'_>, table: &Table, config: &Config) {
    let owners: BTreeSet<_> = config.pools.iter().map(|pool| pool.owner.owner()).collect();
    let mut wrong = Vec::new();
    for owner in owners {
        match table.get(&Key::Limit(owner.clone())).await {
            Ok(Some(Item::Limit(limit))) if limit.backoff_until > subject.now => {
                wrong.push(format!("{owner} is left alone until {:.0}: {}", limit.backoff_until, limit.why));
            }
            Ok(_) => {}
            Err(error) => wrong.push(format!("{owner}: {error}")),
        }
    }
    let remedy =
        "wait; if it comes again, does something else use this app, or has one account too many jobs for one app?";
    group.judge("GitHub's limits", Level::Warn, &wrong, "not met", remedy);
}
