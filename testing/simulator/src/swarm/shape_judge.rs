//! What EC2 refuses and takes back in a world with shapes, which machine each job gets, and what it costs.

use domain::policy::launch::COOLDOWN_MIN;
use jiff::Timestamp;
use world::ec2::{self, InstanceId, TYPES, TypeInfo, is_offered, spot_price};
use world::github;

use crate::swarm::outcome::Costs;
use crate::swarm::seed::Swarm;
use crate::universe::ec2_market;

impl Swarm<'_> {
    /// What EC2 refuses now.
    pub(super) fn shortages(&self) -> Vec<ec2::Refusal> {
        self.shortages_at(self.now).collect()
    }

    fn shortages_at(&self, at: Timestamp) -> impl Iterator<Item = ec2::Refusal> {
        let is_calm = self.calm_since.is_some_and(|calm| calm <= at);
        let since = at.duration_since(self.began);
        let all = self.shape.market.iter().flat_map(|market| &market.shortages);
        let present = all.filter(move |it| !is_calm && it.from <= since && since < it.until);
        present.flat_map(|it| {
            let refusal = |matches: &ec2::LaunchMatch| ec2::Refusal {
                matches: matches.clone(),
                code: it.code,
                when: ec2::When::Chance(1.0),
            };
            it.matches.iter().map(refusal)
        })
    }

    /// EC2 reclaims every spot machine of a type.
    pub(super) fn reclaim(&mut self, index: usize) {
        let Some(storm) = self.shape.market.as_ref().and_then(|market| market.storms.get(index)) else { return };
        let spot: Vec<InstanceId> = self.universe.ec2(|ec2, _| {
            let alive =
                ec2.alive().filter(|it| it.market == ec2::Market::Spot && it.instance_type == storm.instance_type);
            alive.map(|machine| machine.id.clone()).collect()
        });
        self.log_world(|| format!("EC2 reclaims every spot machine of type {}: {}", storm.instance_type, spot.len()));
        for machine in spot {
            self.truth.spoilt.insert(machine.clone());
            self.universe.ec2(|ec2, now| ec2.interrupt_spot(&machine, now));
        }
    }

    /// Whether one more machine might cost more than the pool's cap allows.
    pub(super) fn is_at_cap(&self, pool: &str) -> bool {
        let Some(pool) = self.shape.pools.iter().find(|known| known.name.as_str() == pool) else { return false };
        let Some(cap) = pool.price_per_hour.filter(|_| self.universe.configuration().is_some()) else { return false };
        let is_used = |it: &&TypeInfo| match pool.shapes {
            Some(_) => is_usual(it),
            None => pool.instance_types.iter().any(|listed| listed.as_str() == it.name),
        };
        let dearest = TYPES.iter().filter(is_used).map(|it| it.price).fold(0.0, f64::max);
        self.universe.store.view(&pool.name).price_per_hour().usd() + dearest > cap.usd()
    }

    /// S11: a job that asks for a shape runs on a machine that satisfies it.
    pub(super) fn check_class(&mut self, machine: &InstanceId, job: github::JobId) {
        let Some((label, machine)) = self.asked(machine, job) else { return };
        let Some(facts) = TYPES.iter().find(|it| it.name == machine.instance_type) else { return };
        let is_market = Asked::of(&label).market.is_none_or(|market| market == machine.market);
        if !Asked::of(&label).is_satisfied_by(facts) || !is_market {
            let (name, market) = (facts.name, machine.market);
            self.violate(format!("S11: job {job} asked for {label} and runs on {name}, {market:?}"));
        }
    }

    fn asked(&self, machine: &InstanceId, job: github::JobId) -> Option<(String, ec2::Instance)> {
        let label = self.universe.github(|github, _| github.job(job).map(|job| job.labels.join(" ")))?;
        let machine = self.universe.ec2(|ec2, _| ec2.instance(machine).cloned())?;
        label.starts_with("any/").then_some((label, machine))
    }

    /// Compares what a machine costs with other choices at the same time: with those that EC2 did not refuse then, or in the
    /// minute before.
    pub(super) fn note_cost(&mut self, machine: &InstanceId, job: github::JobId) {
        let Some((label, machine)) = self.asked(machine, job) else { return };
        let (asked, at) = (Asked::of(&label), machine.launched_at);
        let Some(pool) = self.shape.market.as_ref().map(|market| &market.pool) else { return };
        let wanted = asked.market.unwrap_or(ec2_market(pool.market.markets()[0]));
        let price = |it: &TypeInfo, zone: &str, market| match market {
            ec2::Market::Spot => spot_price(it, zone, at),
            ec2::Market::OnDemand => it.price,
        };
        let shortages: Vec<ec2::Refusal> = self.shortages_at(at).collect();
        let state = self.universe.state();
        let recent = state.refused.iter().filter(|(when, _)| *when <= at && at.duration_since(*when) < COOLDOWN_MIN);
        let in_market = recent.map(|(_, tuple)| tuple).filter(|tuple| ec2_market(tuple.market) == wanted);
        let refused: Vec<(&str, &str)> =
            in_market.map(|tuple| (tuple.instance_type.as_str(), tuple.subnet.as_str())).collect();
        let places = [("subnet-a", "eu-central-1a"), ("subnet-b", "eu-central-1b")];
        let suits = |it: &&TypeInfo| asked.is_satisfied_by(it) && is_usual(it);
        let all = TYPES.iter().filter(suits).flat_map(|it| places.map(|(subnet, zone)| (it, subnet, zone)));
        let possible = all.filter(|(it, subnet, zone)| {
            let is_refused = |refusal: &ec2::Refusal| refusal.matches.covers(&(*subnet).into(), wanted, it.name);
            let is_own = it.name == machine.instance_type && *zone == machine.zone;
            is_own
                || (is_offered(it.name, zone)
                    && !shortages.iter().any(is_refused)
                    && !refused.contains(&(it.name, *subnet)))
        });
        let prices: Vec<f64> = possible.map(|(it, _, zone)| price(it, zone, wanted)).collect();
        drop(state);
        let facts = TYPES.iter().find(|it| it.name == machine.instance_type);
        // What was launched in the other market, for want of the first one, is not compared.
        let (Some(facts), Some(listed)) = (facts.filter(|_| machine.market == wanted), prices.first()) else { return };
        self.truth.costs.add(Costs {
            machines: 1,
            paid: price(facts, &machine.zone, machine.market),
            hindsight: prices.iter().copied().fold(f64::MAX, f64::min),
            listed: *listed,
            random: prices.iter().sum::<f64>() / prices.len() as f64,
        });
    }
}

/// What a label asks for, read without Drover's own grammar.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    vcpus: u32,
    gib: u32,
    arm: bool,
    market: Option<ec2::Market>,
}

impl Asked {
    pub(crate) fn of(label: &str) -> Self {
        let mut asked = Self::default();
        for term in label.split('/').skip(1) {
            let number = || term.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(u32::MAX);
            match term {
                "arm64" => asked.arm = true,
                "spot" => asked.market = Some(ec2::Market::Spot),
                "on-demand" => asked.market = Some(ec2::Market::OnDemand),
                _ if term.ends_with("cpu") => asked.vcpus = number(),
                _ if term.ends_with("gb") => asked.gib = number(),
                _ => {}
            }
        }
        asked
    }

    pub(crate) fn is_satisfied_by(&self, it: &TypeInfo) -> bool {
        it.vcpus >= self.vcpus && it.memory_mib >= self.gib * 1024 && (it.architecture == "arm64") == self.arm
    }
}

/// Whether a pool without a list of families may use the type.
fn is_usual(it: &TypeInfo) -> bool {
    it.current_generation && !it.burstable && !it.bare_metal && it.vcpus <= 32
}
