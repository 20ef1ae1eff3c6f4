//! Which machines satisfy a shape, and in which order they are tried: a pure function of the shape, the pool's policy, the
//! catalogue and the spot prices.

use std::collections::BTreeSet;
use std::fmt;

use crate::config::{
    Bounds, MIB, Machines, Market, MarketChoice, MicroUsd, Order, Pool, Shape, ShapePolicy, TypeFacts,
};
use crate::ids::{InstanceType, SubnetId, Zone};

/// One way to launch a machine for a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub instance_type: InstanceType,
    pub subnet: SubnetId,
    pub zone: Zone,
    pub market: Market,
    /// Of the machine and its root volume, per hour. None if it is not known.
    pub price_per_hour: Option<MicroUsd>,
}

/// Why an instance type is no candidate for a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Excluded {
    Architecture,
    Family,
    FewerVcpus,
    LessMemory,
    /// It has more vCPUs or memory than the pool allows.
    BeyondBounds,
    /// No subnet of the pool is in a zone that offers it.
    NoSubnet,
    /// Its price is not known, and the pool has a cap.
    NoPrice,
    /// It costs more per hour than the pool allows for one machine.
    TooExpensive,
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Excluded::Architecture => "has another architecture",
            Excluded::Family => "is of a family that the pool does not allow",
            Excluded::FewerVcpus => "has fewer vCPUs",
            Excluded::LessMemory => "has less memory",
            Excluded::BeyondBounds => "has more vCPUs or memory than the pool allows",
            Excluded::NoSubnet => "is not offered in a zone of the pool's subnets",
            Excluded::NoPrice => "has no known price, and the pool has a cap",
            Excluded::TooExpensive => "costs more per hour than the pool allows for one machine",
        })
    }
}

/// A shape with what the pool decides for the terms that it omits.
#[derive(Debug, Clone, Copy)]
struct Request<'a> {
    pool: &'a Pool,
    policy: &'a ShapePolicy,
    shape: &'a Shape,
}

/// The machines for a shape that the policy allows, in the order in which they are tried: the preferred market first, then by
/// price, unknown prices last. With [`Order::Listed`], the families that the policy lists come before the price. Of a market,
/// what EC2 reclaimed recently comes last. Equal prices are ordered by `spread`, a number that differs between launches, so
/// that they are spread over zones.
pub fn offers(pool: &Pool, policy: &ShapePolicy, shape: &Shape, machines: &Machines, spread: u64) -> Vec<Offer> {
    let request = Request { pool, policy, shape };
    let types = machines.catalogue.types.iter();
    let mut offers: Vec<Offer> =
        types.flat_map(|(name, facts)| request.offers_of(name, facts, machines)).flatten().collect();
    let markets = request.markets();
    let rank = |market: Market| markets.iter().position(|it| *it == market);
    let zones: BTreeSet<&Zone> = machines.catalogue.zones.values().collect();
    let turn = |zone: &Zone| {
        let index = zones.iter().position(|it| *it == zone).unwrap_or_default() as u64;
        (index + spread) % zones.len().max(1) as u64
    };
    offers.sort_by_cached_key(|offer| {
        let price = (offer.price_per_hour.is_none(), offer.price_per_hour);
        let listed = match pool.order {
            Order::Listed => policy.rank(&offer.instance_type),
            Order::Price => 0,
        };
        let is_reclaimed = machines.is_reclaimed(&offer.instance_type, offer.market, &offer.zone);
        let place = (turn(&offer.zone), offer.instance_type.clone(), offer.subnet.clone());
        (rank(offer.market), is_reclaimed, listed, price, place)
    });
    offers
}

/// Why each other type of the catalogue is no candidate.
pub fn excluded(
    pool: &Pool,
    policy: &ShapePolicy,
    shape: &Shape,
    machines: &Machines,
) -> Vec<(InstanceType, Excluded)> {
    let request = Request { pool, policy, shape };
    let types = machines.catalogue.types.iter();
    types.filter_map(|(name, facts)| Some((name.clone(), request.offers_of(name, facts, machines).err()?))).collect()
}

impl Request<'_> {
    /// The markets to try, first choice first.
    fn markets(&self) -> &'static [Market] {
        let choice = match self.shape.market {
            Some(Market::OnDemand) => MarketChoice::OnDemand,
            Some(Market::Spot) => MarketChoice::Spot,
            None => self.pool.market,
        };
        choice.markets()
    }

    /// Each way to launch the type; at least one.
    fn offers_of(&self, name: &InstanceType, facts: &TypeFacts, machines: &Machines) -> Result<Vec<Offer>, Excluded> {
        self.check(name, facts)?;
        let volume = MicroUsd(u64::from(self.volume_gib(facts)) * machines.catalogue.gib_hour.0);
        let in_zone = |subnet: &SubnetId| {
            let zone = machines.catalogue.zones.get(subnet)?;
            facts.zones.contains(zone).then(|| (subnet.clone(), zone.clone()))
        };
        let places: Vec<(SubnetId, Zone)> = self.pool.subnets.iter().filter_map(in_zone).collect();
        let mut nearest = Excluded::NoSubnet;
        let mut offers = Vec::new();
        for market in self.markets() {
            for (subnet, zone) in &places {
                let price_per_hour = machines.price(name, *market, zone).map(|price| price + volume);
                match self.within_cap(price_per_hour) {
                    Err(why) => nearest = nearest.max(why),
                    Ok(()) => offers.push(Offer {
                        instance_type: name.clone(),
                        subnet: subnet.clone(),
                        zone: zone.clone(),
                        market: *market,
                        price_per_hour,
                    }),
                }
            }
        }
        if offers.is_empty() { Err(nearest) } else { Ok(offers) }
    }

    /// The size of the root volume.
    fn volume_gib(&self, facts: &TypeFacts) -> u32 {
        let of_template = || {
            let template = self.pool.shapes.as_ref()?.launch_templates.get(&facts.architecture)?;
            Some(template.root.as_ref()?.gib)
        };
        self.shape.disk.or_else(of_template).unwrap_or_default()
    }

    fn check(&self, name: &InstanceType, facts: &TypeFacts) -> Result<(), Excluded> {
        let (policy, shape) = (self.policy, self.shape);
        let wanted = shape.architecture.or_else(|| policy.architectures.first().copied());
        // A machine with 15.5 GiB has less than 16.
        let least = |asked: Option<u32>, bounds: Bounds| asked.unwrap_or(*bounds.range().start());
        if wanted != Some(facts.architecture) {
            Err(Excluded::Architecture)
        } else if !policy.admits_family(name, facts) {
            Err(Excluded::Family)
        } else if facts.vcpus < least(shape.cpu, policy.cpu) {
            Err(Excluded::FewerVcpus)
        } else if facts.memory_mib < least(shape.ram, policy.ram) * MIB {
            Err(Excluded::LessMemory)
        } else if facts.vcpus > *policy.cpu.range().end() || facts.memory_mib > *policy.ram.range().end() * MIB {
            Err(Excluded::BeyondBounds)
        } else {
            Ok(())
        }
    }

    fn within_cap(&self, price: Option<MicroUsd>) -> Result<(), Excluded> {
        match (price, self.policy.price_per_hour) {
            (_, None) => Ok(()),
            (None, Some(_)) => Err(Excluded::NoPrice),
            (Some(price), Some(cap)) if price > cap => Err(Excluded::TooExpensive),
            (Some(_), Some(_)) => Ok(()),
        }
    }
}
