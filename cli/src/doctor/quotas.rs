//! Checks of the account's quotas: what EC2 and Lambda allow, compared with what the pools can need.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::{Market, Pool};
use domain::ids::{InstanceType, PoolName};
use platform::aws::ErrorKind;
use platform::inspect::Unanswered;
use platform::quotas::{Quota, QuotaFamily};

use super::report::{Group, Level};
use super::subject::{MaybeConfig, Subject};

/// New accounts have a quota of ten. The scaler uses five by default and the janitor one, and a burst of webhooks needs many
/// at the same time. All other functions of the account share the quota.
const LAMBDA_ENOUGH: f64 = 100.0;

pub(super) fn none() -> Group {
    Group::new("quotas", &["vCPUs", "Lambda"])
}

pub(super) async fn quotas(subject: &Subject<'_>, config: MaybeConfig<'_>) -> Group {
    let mut group = none();
    if let Some(config) = config {
        let pools: Vec<&Pool> = config.pools.iter().filter(|pool| !pool.draining).collect();
        match vcpus(subject, &pools).await {
            Ok((level, problems, fine)) => group.conclude("vCPUs", level, &problems, fine, RAISE_VCPUS),
            Err(error) => unknown(&mut group, "vCPUs", &error),
        }
    }
    match subject.inspect.quota(Quota::LambdaConcurrency).await {
        Ok(None) => group.skip("Lambda", "Service Quotas has no value for this account"),
        Ok(Some(quota)) if quota < LAMBDA_ENOUGH => group.warn(
            "Lambda",
            format!("{quota} invocations at a time in the whole account: a burst of webhooks is delayed"),
            "request a higher quota (Service Quotas, AWS Lambda, Concurrent executions)",
        ),
        Ok(Some(quota)) => group.pass("Lambda", format!("{quota} invocations at a time")),
        Err(error) => unknown(&mut group, "Lambda", &error),
    }
    group
}

const RAISE_VCPUS: &str = "request a higher quota (Service Quotas, Amazon EC2), or lower the pool's max";

/// A quota that cannot be read is no fault of the installation.
fn unknown(group: &mut Group, name: &'static str, error: &Unanswered) {
    match error.kind {
        ErrorKind::NotAllowed => group.skip(name, &format!("this role may not read quotas: {error}")),
        ErrorKind::Credentials | ErrorKind::NotFound | ErrorKind::Unreadable | ErrorKind::Unavailable => {
            group.skip(name, &error.to_string());
        }
    }
}

/// Level, problems, and the text if there are none.
async fn vcpus(subject: &Subject<'_>, pools: &[&Pool]) -> Result<(Level, Vec<String>, String), Unanswered> {
    let types: BTreeSet<&InstanceType> = pools.iter().flat_map(|pool| &pool.instance_types).collect();
    let sizes = subject.inspect.vcpus(&types).await?;
    let needs = Needs::of(pools, &sizes);
    let mut quotas = BTreeMap::new();
    for key in needs.most.keys() {
        if let Some(quota) = subject.inspect.quota(Quota::Vcpus(key.0, key.1)).await? {
            quotas.insert(*key, quota);
        }
    }
    Ok(needs.compare(&quotas))
}

type Key = (QuotaFamily, Market);

/// What the pools can run at a time, if each runs `max` machines.
#[derive(Debug, Default)]
struct Needs<'a> {
    /// vCPUs if each pool runs only its largest instance type, with the pools.
    most: BTreeMap<Key, (u64, Vec<&'a PoolName>)>,
    /// For each pool, the vCPUs of one machine by launch option. None for an option of another or an unknown quota.
    options: BTreeMap<&'a PoolName, Vec<(Option<Key>, u32)>>,
}

impl<'a> Needs<'a> {
    fn of(pools: &[&'a Pool], sizes: &BTreeMap<InstanceType, u32>) -> Self {
        let mut needs = Self::default();
        for pool in pools {
            let mut largest: BTreeMap<Key, u32> = BTreeMap::new();
            let options = needs.options.entry(&pool.name).or_default();
            for market in pool.market.markets() {
                for instance_type in &pool.instance_types {
                    let size = sizes.get(instance_type).copied();
                    let key = QuotaFamily::of(instance_type).filter(|_| size.is_some()).map(|family| (family, *market));
                    let size = size.unwrap_or_default();
                    options.push((key, size));
                    if let Some(key) = key {
                        let known = largest.entry(key).or_default();
                        *known = size.max(*known);
                    }
                }
            }
            for (key, size) in largest {
                let (sum, pools) = needs.most.entry(key).or_default();
                *sum += u64::from(pool.max) * u64::from(size);
                pools.push(&pool.name);
            }
        }
        needs
    }

    /// A pool that cannot launch a single machine is a failure. A pool that cannot reach its `max` is a warning.
    fn compare(&self, quotas: &BTreeMap<Key, f64>) -> (Level, Vec<String>, String) {
        let (mut problems, mut fine, mut level) = (Vec::new(), Vec::new(), Level::Warn);
        let is_too_large = |option: &(Option<Key>, u32)| {
            let quota = option.0.and_then(|key| quotas.get(&key));
            quota.is_some_and(|quota| f64::from(option.1) > *quota)
        };
        for (pool, options) in &self.options {
            if !options.is_empty() && options.iter().all(is_too_large) {
                let least = options.iter().map(|option| option.1).min().unwrap_or_default();
                problems.push(format!("pool {pool} cannot launch a machine, because its smallest has {least} vCPUs"));
                level = Level::Fail;
            }
        }
        for ((family, market), quota) in quotas {
            let Some((most, pools)) = self.most.get(&(*family, *market)) else { continue };
            let pools = pools.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            match *most as f64 > *quota {
                true => problems.push(format!(
                    "{market}: {pools} can need {most} vCPUs, the quota is {quota} ({})",
                    Quota::Vcpus(*family, *market)
                )),
                false => fine.push(format!("{market}: {most} of {quota} can be needed")),
            }
        }
        if fine.is_empty() {
            fine.push("not known for these instance types".to_owned());
        }
        (level, problems, fine.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> BTreeMap<InstanceType, u32> {
        let sizes = [("m7i.large", 2), ("m7i.4xlarge", 16), ("g6.xlarge", 4), ("p5.48xlarge", 192)];
        sizes.map(|(name, vcpus)| (InstanceType::from(name), vcpus)).into()
    }

    fn pool(name: &str, types: &[&str], market: &str, max: u32) -> Pool {
        serde_json::from_value(serde_json::json!({
            "name": name,
            "owner": "octo-org",
            "labels": ["drover"],
            "launch_template": { "id": "lt-1", "name": "drover-runner", "version": 1 },
            "subnets": ["subnet-a", "subnet-b"],
            "instance_types": types,
            "market": market,
            "max": max,
            "priority": 100,
            "runner_group": 1,
            "timings": domain::config::Timings::default(),
        }))
        .expect("a pool as it is stored")
    }

    const STANDARD: QuotaFamily = QuotaFamily::Standard;

    #[test]
    fn each_pool_counts_with_max_machines_of_its_largest_type_in_each_market() {
        let one = pool("one", &["m7i.large", "m7i.4xlarge"], "spot-then-on-demand", 10);
        let two = pool("two", &["m7i.large", "p5.48xlarge"], "on-demand", 5);
        let needs = Needs::of(&[&one, &two], &sizes());
        let most = |market| needs.most[&(STANDARD, market)].0;
        assert_eq!((most(Market::Spot), most(Market::OnDemand)), (160, 170), "p5 has a quota of its own");
        let quotas = |spot, on_demand| {
            BTreeMap::from([((STANDARD, Market::Spot), spot), ((STANDARD, Market::OnDemand), on_demand)])
        };
        let (_, problems, fine) = needs.compare(&quotas(160.0, 170.0));
        assert!(problems.is_empty(), "{problems:?}");
        assert!(fine.contains("spot: 160 of 160"), "{fine}");
        let (level, problems, _) = needs.compare(&quotas(159.0, 5.0));
        assert_eq!((level, problems.len()), (Level::Warn, 2), "{problems:?}");
        assert!(problems[0].starts_with("on-demand: one, two can need 170 vCPUs, the quota is 5 ("), "{problems:?}");
    }

    #[test]
    fn a_quota_below_every_option_of_a_pool_is_a_failure() {
        let graphics = pool("gpu", &["g6.xlarge"], "on-demand", 1);
        let needs = Needs::of(&[&graphics], &sizes());
        let (level, problems, _) = needs.compare(&[((QuotaFamily::Graphics, Market::OnDemand), 0.0)].into());
        assert_eq!((level, problems.len()), (Level::Fail, 2), "{problems:?}");
        assert_eq!(problems[0], "pool gpu cannot launch a machine, because its smallest has 4 vCPUs");

        // The pool falls back to another option.
        let two = pool("two", &["m7i.4xlarge", "p5.48xlarge"], "on-demand", 1);
        let needs = Needs::of(&[&two], &sizes());
        assert_eq!(needs.compare(&[((STANDARD, Market::OnDemand), 5.0)].into()).0, Level::Warn);
    }

    #[test]
    fn what_is_not_known_is_no_problem() {
        let other = pool("other", &["p5.48xlarge", "z99.large"], "on-demand", 1);
        let needs = Needs::of(&[&other], &sizes());
        let (_, problems, fine) = needs.compare(&BTreeMap::new());
        assert_eq!((problems.len(), fine.as_str()), (0, "not known for these instance types"));
    }
}
