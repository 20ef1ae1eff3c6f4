//! The price list of this `drover`, as far as a pool file can be compared with it without a region.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use domain::config::{Market, MicroUsd, PRICES, Rates};
use domain::ids::InstanceType;
use platform::ec2::known_types;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::output::usd;

/// AWS lowers the price of a spot machine by at most nine tenths.
const SPOT_COSTS_AT_LEAST_ONE_IN: u64 = 10;

#[derive(Deserialize)]
struct List {
    read: String,
    families: BTreeMap<String, BTreeMap<String, IgnoredAny>>,
}

static LIST: LazyLock<List> = LazyLock::new(|| serde_json::from_str(PRICES).expect("a test parses this file"));

static REGIONS: LazyLock<BTreeSet<&'static str>> =
    LazyLock::new(|| LIST.families.values().flat_map(|prices| prices.keys().map(String::as_str)).collect());

/// A machine with its list price on demand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Priced {
    pub(crate) per_hour: MicroUsd,
    pub(crate) instance_type: InstanceType,
    /// What the price is for, such as `in us-east-1`.
    pub(crate) basis: String,
}

/// The cheapest of some machines in any region. None if no price is known for any of them.
pub(super) fn cheapest(is_one: impl Fn(&InstanceType) -> bool) -> Option<Priced> {
    let types = known_types().iter().map(|name| InstanceType::from(*name)).filter(|name| is_one(name));
    let in_regions = types.flat_map(|instance_type| {
        REGIONS.iter().filter_map(move |region| {
            let per_hour = Rates::of((*region).to_owned()).hour(&instance_type)?;
            Some(Priced { per_hour, instance_type: instance_type.clone(), basis: format!("in {region}") })
        })
    });
    in_regions.min()
}

/// The fewest and the most vCPUs that a type can have, by EC2's names for sizes: 2 for `large`, 4 for `xlarge`, eight times that
/// for `8xlarge`. Any number for a name that does not say it.
pub(super) fn vcpus(instance_type: &InstanceType) -> (u32, u32) {
    let size = instance_type.as_str().split_once('.').map_or("", |(_, size)| size);
    match size {
        "nano" | "micro" | "small" | "medium" => (1, 2),
        "large" => (2, 2),
        "xlarge" => (4, 4),
        _ => match size.strip_suffix("xlarge").and_then(|times| times.parse::<u32>().ok()) {
            Some(times) => (times.saturating_mul(4), times.saturating_mul(4)),
            None => (1, u32::MAX),
        },
    }
}

/// What a cap says about the machines below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cap {
    PaysForOne,
    /// Only for a spot machine, if its price is far below the list price.
    MayPayForSpot,
    PaysForNone,
}

impl Cap {
    pub(crate) fn of(cap: MicroUsd, cheapest: &Priced, markets: &BTreeSet<Market>) -> Self {
        let price = cheapest.per_hour;
        if cap >= price {
            Cap::PaysForOne
        } else if markets.contains(&Market::Spot) && cap.0 >= price.0 / SPOT_COSTS_AT_LEAST_ONE_IN {
            Cap::MayPayForSpot
        } else {
            Cap::PaysForNone
        }
    }
}

/// Compares a cap with the cheapest machine of a kind. The sentence is None if the cap pays for one.
pub(crate) fn judge(
    field: &str,
    kind: &str,
    cap: MicroUsd,
    cheapest: &Priced,
    markets: &BTreeSet<Market>,
) -> (Cap, Option<String>) {
    let Priced { per_hour, instance_type, basis } = cheapest;
    let (cap_usd, price) = (usd(cap.usd()), usd(per_hour.usd()));
    let machine =
        format!("{instance_type}, the cheapest {kind} that the pool allows, costs {price} USD per hour on demand");
    let source = format!("{basis}, list price of {}", LIST.read);
    let cap_of = Cap::of(cap, cheapest, markets);
    let message = match cap_of {
        Cap::PaysForOne => None,
        Cap::MayPayForSpot => Some(format!(
            "{field}: {cap_usd} USD pays for spot machines at most: {machine} ({source}); jobs wait while spot prices are above the cap"
        )),
        Cap::PaysForNone => Some(format!(
            "{field}: {cap_usd} USD pays for no machine: {machine} ({source}); raise the cap or allow smaller machines"
        )),
    };
    (cap_of, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_machine_is_that_of_any_region() {
        let priced = cheapest(|name| name.as_str().starts_with("c6g.")).unwrap();
        assert_eq!((priced.instance_type.as_str(), priced.basis.as_str()), ("c6g.medium", "in ap-south-1"));
        assert_eq!(priced.per_hour, MicroUsd(21_300));
        assert_eq!(cheapest(|name| name.as_str().starts_with("p5.")), None, "the list has no price of it");
    }

    #[test]
    fn the_size_of_a_type_says_its_vcpus() {
        let of = |name: &str| vcpus(&name.into());
        assert_eq!((of("m7i.large"), of("m7i.xlarge"), of("c7a.8xlarge")), ((2, 2), (4, 4), (32, 32)));
        assert_eq!((of("c6g.medium"), of("m7i.metal-24xl")), ((1, 2), (1, u32::MAX)));
    }

    #[test]
    fn a_cap_below_the_list_price_may_pay_for_spot_machines() {
        let cheapest =
            Priced { per_hour: MicroUsd(100_000), instance_type: "m7i.large".into(), basis: "in us-east-1".to_owned() };
        let (spot, on_demand) = (BTreeSet::from([Market::Spot, Market::OnDemand]), BTreeSet::from([Market::OnDemand]));
        let judged = |cap: u64, markets| Cap::of(MicroUsd(cap), &cheapest, markets);
        assert_eq!(judged(100_000, &on_demand), Cap::PaysForOne);
        assert_eq!(judged(99_999, &on_demand), Cap::PaysForNone);
        assert_eq!((judged(99_999, &spot), judged(10_000, &spot)), (Cap::MayPayForSpot, Cap::MayPayForSpot));
        assert_eq!(judged(9_999, &spot), Cap::PaysForNone);
    }
}
