//! Which smaller machine would have been enough for a job: a pure function of its measured runs, its pool and what is known of
//! instance types. A job can forge its reports. The largest of all reports counts, so a forged one cannot lower what the others
//! show to be needed.

use std::collections::{BTreeMap, BTreeSet};

use domain::config::{Architecture, Catalogue, Machines, MicroUsd, Pool, Shape, ShapePolicy, TypeFacts};
use domain::ids::{InstanceType, SubnetId, Zone};
use domain::policy::offer::{Offer, offers};
use domain::state::{Usage, smaller_vcpus};
use jiff::{SignedDuration, Timestamp};

/// Measured runs that succeeded, without which nothing is advised: the others may have ended before they used much.
pub(super) const FEWEST_RUNS: usize = 5;

/// How many times as long as before each run may take.
const LONGEST: f64 = 1.10;

/// A run that was measured.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) usage: Usage,
    pub(super) succeeded: bool,
    /// From its start to its end, by GitHub's clock.
    pub(super) lasted: SignedDuration,
    pub(super) instance_type: InstanceType,
    /// As its launch was decided, with the root volume. Only in a pool that needs prices.
    pub(super) price_per_hour: Option<MicroUsd>,
}

/// The measured runs of one job of a workflow, on one pool and architecture.
#[derive(Debug, Clone)]
pub(super) struct Measured<'a> {
    pub(super) pool: &'a Pool,
    /// Those of the latest run.
    pub(super) labels: Vec<String>,
    /// The latest one comes last; at least one.
    pub(super) runs: Vec<Run>,
}

/// What a machine must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) vcpus: u32,
    /// What the kernel has to have, not what EC2 advertises.
    pub(super) memory_mib: u32,
}

/// Where both prices are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PricesFrom {
    /// Those recorded at the launches, and that of the market now.
    Market,
    /// The list, on demand.
    List,
}

/// A machine that is enough, and what the same runs would have cost on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) need: Need,
    /// What to write into `runs-on`. None in a pool without shapes.
    pub(super) label: Option<String>,
    pub(super) instance_type: InstanceType,
    pub(super) before: MicroUsd,
    pub(super) after: MicroUsd,
    pub(super) prices: PricesFrom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Advised(Advice),
    TooFewRuns,
    /// No smaller machine is enough and cheaper.
    NoneCheaper,
    /// The size or the price of its machine is not known.
    Unpriced,
}

/// What is known of instance types.
pub(super) struct Types<'a> {
    /// By their names.
    pub(super) named: BTreeMap<InstanceType, TypeFacts>,
    /// The list price on demand, per hour.
    pub(super) list_price: &'a dyn Fn(&InstanceType) -> Option<MicroUsd>,
}

/// Decides about one job.
pub(super) fn advise(job: &Measured<'_>, types: &Types<'_>) -> Verdict {
    if job.runs.iter().filter(|run| run.succeeded).count() < FEWEST_RUNS {
        return Verdict::TooFewRuns;
    }
    let (Some(need), Some(last)) = (Need::of(&job.runs), job.runs.last()) else { return Verdict::TooFewRuns };
    let known = |name: &InstanceType| {
        let catalogue = job.pool.machines.as_ref().and_then(|machines| machines.catalogue.types.get(name));
        catalogue.or_else(|| types.named.get(name)).cloned()
    };
    let Some(used) = known(&last.instance_type) else { return Verdict::Unpriced };
    if job.pool.shapes.is_none() && (types.list_price)(&last.instance_type).is_none() {
        return Verdict::Unpriced;
    }
    let found = match &job.pool.shapes {
        Some(shapes) => labelled(job, &shapes.policy, need, used.architecture, types),
        None => of_the_same_processors(&last.instance_type, need, used.architecture, types),
    };
    let Some(found) = found else { return Verdict::NoneCheaper };
    let Some(facts) = known(&found.instance_type) else { return Verdict::NoneCheaper };
    let is_smaller = facts.vcpus < used.vcpus || facts.memory_mib < used.memory_mib;
    if !need.is_met_by(&facts) || facts.architecture != used.architecture || !is_smaller {
        return Verdict::NoneCheaper;
    }
    let Some((prices, before, after)) = costs(&job.runs, &found, types) else { return Verdict::Unpriced };
    if after >= before {
        return Verdict::NoneCheaper;
    }
    let Found { label, instance_type, .. } = found;
    Verdict::Advised(Advice { need, label, instance_type, before, after, prices })
}

impl Need {
    /// None without a run.
    pub(super) fn of(runs: &[Run]) -> Option<Self> {
        let usages = || runs.iter().map(|run| &run.usage);
        let most = usages().map(|usage| usage.vcpus).max()?;
        let is_enough = |vcpus: u32| usages().all(|usage| usage.slowdown(vcpus) <= LONGEST);
        // Between these numbers, no run's duration changes.
        let mut numbers: Vec<u32> = smaller_vcpus(most).collect();
        numbers.extend(usages().map(|usage| usage.vcpus));
        let vcpus = numbers.into_iter().filter(|vcpus| is_enough(*vcpus)).min().unwrap_or(most);
        let peak = usages().map(|usage| usage.memory_peak_mib).max()?;
        Some(Self { vcpus, memory_mib: peak.saturating_add(peak.div_ceil(5)) })
    }

    pub(super) fn is_met_by(&self, facts: &TypeFacts) -> bool {
        facts.vcpus >= self.vcpus && usable_mib(facts.memory_mib) >= self.memory_mib
    }

    /// The fewest GiB that a machine has to advertise.
    fn gib(&self) -> u32 {
        let least = self.memory_mib.div_ceil(1024);
        (least..).find(|gib| usable_mib(gib.saturating_mul(1024)) >= self.memory_mib).unwrap_or(u32::MAX)
    }
}

/// A lower bound of the memory that programs can use, from what EC2 advertises. Firmware and kernel keep less: 5 % of 8 GiB, 2 % of a
/// large machine.
fn usable_mib(advertised: u32) -> u32 {
    advertised.saturating_sub(advertised.div_ceil(20)).saturating_sub(128)
}

/// A machine that is enough.
struct Found {
    label: Option<String>,
    instance_type: InstanceType,
    /// With the root volume. None if the market is not known.
    market_price: Option<MicroUsd>,
}

/// The machine that is tried first for the job's label, with the vCPUs and the memory that it needs.
fn labelled(
    job: &Measured<'_>,
    policy: &ShapePolicy,
    need: Need,
    architecture: Architecture,
    types: &Types<'_>,
) -> Option<Found> {
    let now = match job.labels.as_slice() {
        [label] => Shape::of_label(&job.pool.name, label).and_then(Result::ok).unwrap_or_default(),
        _ => Shape::default(),
    };
    let is_same_architecture = now.architecture.or_else(|| policy.architectures.first().copied()) == Some(architecture);
    if !is_same_architecture {
        return None;
    }
    let (machines, is_market) = match &job.pool.machines {
        Some(machines) => (machines.as_ref().clone(), true),
        None => (offline(job.pool, types), false),
    };
    let (cpu, ram) = (need.vcpus.max(*policy.cpu.range().start()), need.gib().max(*policy.ram.range().start()));
    let least = Shape { cpu: Some(cpu), ram: Some(ram), ..now };
    let offers = offers(job.pool, policy, &least, &machines, 0);
    // Each of them has at least that much: people write 8gb, and not 7gb.
    let memory = |offer: &Offer| machines.catalogue.types.get(&offer.instance_type).map(|facts| facts.memory_mib);
    let ram = offers.iter().filter_map(memory).min()? / 1024;
    let first = offers.into_iter().next()?;
    let shape = Shape { ram: Some(ram), ..least };
    let label = format!("{}/{shape}", job.pool.name);
    let is_read_back = Shape::of_label(&job.pool.name, &label) == Some(Ok(shape));
    if shape == now || !is_read_back || policy.check(&shape).is_err() {
        return None;
    }
    let market_price = first.price_per_hour.filter(|_| is_market);
    Some(Found { label: Some(label), instance_type: first.instance_type, market_price })
}

/// The machines that a pool may use by their names, as if each of its subnets offered all.
fn offline(pool: &Pool, types: &Types<'_>) -> Machines {
    let zone = Zone::from("any");
    let zones: BTreeMap<SubnetId, Zone> = pool.subnets.iter().map(|subnet| (subnet.clone(), zone.clone())).collect();
    let named = types.named.iter().map(|(name, facts)| {
        let facts =
            TypeFacts { zones: [zone.clone()].into(), price_per_hour: (types.list_price)(name), ..facts.clone() };
        (name.clone(), facts)
    });
    let catalogue = Catalogue {
        types: named.collect(),
        gib_hour: MicroUsd(0),
        zones,
        unknown_subnets: BTreeSet::new(),
        read_at: Timestamp::MIN,
        revision: 0,
    };
    Machines { catalogue, spot: None }
}

/// The cheapest type with the processors of this one: others may be slower than those that were measured.
fn of_the_same_processors(
    used: &InstanceType,
    need: Need,
    architecture: Architecture,
    types: &Types<'_>,
) -> Option<Found> {
    let enough = types.named.iter().filter(|(name, facts)| {
        let is_same = processors(name) == processors(used) && facts.architecture == architecture;
        is_same && !facts.only_if_listed && need.is_met_by(facts)
    });
    let priced = enough
        .filter_map(|(name, facts)| Some(((types.list_price)(name)?, facts.vcpus, facts.memory_mib, name.clone())));
    let (.., instance_type) = priced.min()?;
    Some(Found { label: None, instance_type, market_price: None })
}

/// What the name of a family says about its processors: generation and options, `7i` of `m7i.large`.
fn processors(name: &InstanceType) -> &str {
    let family = name.as_str().split('.').next().unwrap_or_default();
    family.trim_start_matches(|c: char| c.is_ascii_lowercase())
}

/// What the runs cost, and what they would have cost, at prices of one kind. None if one is not known.
fn costs(runs: &[Run], found: &Found, types: &Types<'_>) -> Option<(PricesFrom, MicroUsd, MicroUsd)> {
    let sum = |price: &dyn Fn(&Run) -> Option<MicroUsd>| {
        runs.iter().map(|run| Some(price(run)?.during(run.lasted))).try_fold(MicroUsd(0), |sum, cost| Some(sum + cost?))
    };
    let of_market =
        found.market_price.and_then(|after| Some((sum(&|run| run.price_per_hour)?, sum(&|_| Some(after))?)));
    if let Some((before, after)) = of_market {
        return Some((PricesFrom::Market, before, after));
    }
    let after = (types.list_price)(&found.instance_type)?;
    let before = sum(&|run| (types.list_price)(&run.instance_type))?;
    Some((PricesFrom::List, before, sum(&|_| Some(after))?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::config::Rates;
    use proptest::prelude::*;

    use super::*;
    use crate::pool_file::PoolFile;

    const REGION: &str = "us-east-1";

    const LISTED: &str = "[[pool]]\nname = \"linux\"\nowner = \"acme\"\nlabels = [\"linux\"]\nlaunch_template = \"runner\"\n\
                          subnets = [\"subnet-a\"]\ninstance_types = [\"m7i.2xlarge\"]\nmax = 9\n";

    const SHAPES: &str = "[[pool]]\nname = \"any\"\nowner = \"acme\"\nlaunch_templates = { x64 = \"runner\", arm64 = \"runner\" }\n\
                          subnets = [\"subnet-a\"]\nmax = 9\nmarket = \"spot-then-on-demand\"\n[pool.shapes]\ncpu = \"2..32\"\n\
                          ram = \"4..128\"\narch = [\"x64\", \"arm64\"]\ndisk = \"20..400\"\n";

    fn pool(text: &str) -> Pool {
        let file = PoolFile::parse("pools.toml", text);
        assert!(file.errors.is_empty(), "{:?}", file.errors);
        file.pools[0].unresolved()
    }

    fn list_price(name: &InstanceType) -> Option<MicroUsd> {
        Rates::of(REGION.to_owned()).hour(name)
    }

    /// Types of the families c, m and r of two processors, and a burstable one.
    fn types() -> Types<'static> {
        let mut named = BTreeMap::new();
        let sizes = [("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32)];
        let families = [("c7i", 2), ("m7i", 4), ("r7i", 8), ("c7g", 2), ("m7g", 4), ("m7a", 4), ("t3", 4)];
        for (family, gib_each) in families {
            for (size, vcpus) in sizes {
                let name = InstanceType::from(format!("{family}.{size}"));
                let facts = TypeFacts {
                    vcpus,
                    memory_mib: vcpus * gib_each * 1024,
                    architecture: Architecture::of(&name),
                    only_if_listed: family == "t3",
                    zones: BTreeSet::new(),
                    price_per_hour: None,
                };
                named.insert(name, facts);
            }
        }
        Types { named, list_price: &list_price }
    }

    /// A run of 1000 seconds on a machine with 8 vCPUs that uses 1.5 of them, never more than 2, and 5 GiB of 32.
    fn run() -> Run {
        let usage = Usage {
            seconds: 1000,
            vcpus: 8,
            memory_mib: 31_500,
            disk_mib: 40_000,
            cpu_mean: 1500,
            cpu_peak: 2000,
            cpu_beyond: vec![500_000, 0, 0],
            memory_mean_mib: 3000,
            memory_peak_mib: 5120,
            disk_peak_mib: 9000,
            received_mib: 0,
            sent_mib: 0,
            cpu_chart: Vec::new(),
            memory_chart: Vec::new(),
        };
        let lasted = SignedDuration::from_secs(1000);
        Run { usage, succeeded: true, lasted, instance_type: "m7i.2xlarge".into(), price_per_hour: None }
    }

    fn changed(change: impl FnOnce(&mut Usage)) -> Run {
        let mut run = run();
        change(&mut run.usage);
        run
    }

    fn of_runs(pool: &Pool, labels: &[&str], runs: Vec<Run>) -> Verdict {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        advise(&Measured { pool, labels, runs }, &types())
    }

    fn listed(runs: Vec<Run>) -> Verdict {
        of_runs(&pool(LISTED), &["linux"], runs)
    }

    /// What is to be written instead: a label or a type.
    fn instead(verdict: Verdict) -> String {
        match verdict {
            Verdict::Advised(Advice { label: Some(label), .. }) => label,
            Verdict::Advised(advice) => advice.instance_type.to_string(),
            Verdict::TooFewRuns => "too few".to_owned(),
            Verdict::NoneCheaper => "none".to_owned(),
            Verdict::Unpriced => "unpriced".to_owned(),
        }
    }

    #[test]
    fn the_smallest_sufficient_machine_is_advised_after_five_successful_runs() {
        let Verdict::Advised(advice) = listed(vec![run(); 5]) else { panic!("it is advised") };
        assert_eq!(advice.need, Need { vcpus: 2, memory_mib: 6144 });
        // 2 vCPUs with 8 GiB. c7i.large has 4 GiB, and types of other processors are not compared.
        assert_eq!((advice.label, advice.instance_type), (None, "m7i.large".into()));
        assert_eq!(advice.before.to_string(), "0.5600 USD");
        assert_eq!((advice.after.to_string(), advice.prices), ("0.1400 USD".to_owned(), PricesFrom::List));
        assert_eq!(listed(vec![run(); 4]), Verdict::TooFewRuns);
        let failed = Run { succeeded: false, ..run() };
        assert_eq!(listed(vec![run(), run(), run(), run(), failed]), Verdict::TooFewRuns);
    }

    #[test]
    fn one_peak_of_memory_forbids_the_smaller_machine() {
        let with_peak = |mib| {
            let peak = Run { succeeded: false, ..changed(|usage| usage.memory_peak_mib = mib) };
            instead(listed([vec![run(); 5], vec![peak]].concat()))
        };
        // EC2 advertises 8192 MiB, of which at least 7654 are certainly left.
        assert_eq!(with_peak(6378), "m7i.large");
        assert_eq!(with_peak(6379), "r7i.large");
        assert_eq!(with_peak(12_800), "r7i.large");
        assert_eq!(with_peak(12_900), "r7i.xlarge");
    }

    #[test]
    fn bursts_that_would_take_more_than_a_tenth_longer_forbid_fewer_vcpus() {
        // 1000 seconds and 2 vCPUs: 200 seconds of work of one vCPU that do not fit take 100 seconds.
        let with_beyond = |thousandths| {
            let burst = changed(|usage| usage.cpu_beyond = vec![thousandths, thousandths, 0]);
            instead(listed([vec![run(); 5], vec![burst]].concat()))
        };
        assert_eq!(with_beyond(199_000), "m7i.large");
        assert_eq!(with_beyond(201_000), "c7i.xlarge");
    }

    #[test]
    fn a_forged_report_does_not_lower_the_need_and_one_that_is_huge_only_prevents_a_saving() {
        let nothing = changed(|usage| {
            (usage.vcpus, usage.memory_mib, usage.cpu_mean, usage.cpu_peak) = (1, 1, 0, 0);
            (usage.memory_mean_mib, usage.memory_peak_mib, usage.seconds) = (0, 0, 0);
            usage.cpu_beyond = Vec::new();
        });
        let Verdict::Advised(advice) = listed([vec![run(); 5], vec![nothing; 9]].concat()) else {
            panic!("it is advised")
        };
        assert_eq!(advice.need, Need { vcpus: 2, memory_mib: 6144 });
        let huge = changed(|usage| {
            (usage.vcpus, usage.memory_mib, usage.memory_peak_mib) = (1024, 64 << 20, 64 << 20);
            usage.cpu_beyond = vec![u64::MAX; 10];
        });
        assert_eq!(listed([vec![run(); 5], vec![huge]].concat()), Verdict::NoneCheaper);
    }

    #[test]
    fn without_a_price_or_a_size_nothing_is_advised() {
        let on = |name: &str| instead(listed(vec![Run { instance_type: name.into(), ..run() }; 5]));
        assert_eq!(on("x9.2xlarge"), "unpriced");
        assert_eq!(on("m7i.2xlarge"), "m7i.large");
        assert_eq!(on("m7g.2xlarge"), "m7g.large", "of the same architecture");
        assert_eq!(on("m7i.large"), "none", "it is the smallest already");
        assert_eq!(on("t3.2xlarge"), "none", "a burstable machine has its vCPUs only at times");
        let unknown = Types { list_price: &|_| None, ..types() };
        let pool = pool(LISTED);
        let job = Measured { pool: &pool, labels: Vec::new(), runs: vec![run(); 5] };
        assert_eq!(advise(&job, &unknown), Verdict::Unpriced);
        let one = Types { list_price: &|name| (name.as_str() == "m7i.large").then_some(MicroUsd(1)), ..types() };
        assert_eq!(advise(&job, &one), Verdict::Unpriced);
    }

    /// The pool with a catalogue of all types, and these spot prices.
    fn with_machines(pool: Pool) -> Pool {
        let machines = Machines { spot: None, ..offline(&pool, &types()) };
        Pool { machines: Some(Arc::new(machines)), ..pool }
    }

    #[test]
    fn in_a_pool_with_shapes_the_label_is_advised_and_keeps_its_other_terms() {
        let priced = |price| vec![Run { price_per_hour: Some(MicroUsd(price)), ..run() }; 5];
        for pool in [with_machines(pool(SHAPES)), pool(SHAPES)] {
            let label = |label: &str| instead(of_runs(&pool, &[label], priced(400_000)));
            assert_eq!(label("any/8cpu/32gb"), "any/2cpu/8gb");
            assert_eq!(label("any/8cpu/x64/on-demand/100disk"), "any/2cpu/8gb/x64/on-demand/100disk");
            assert_eq!(label("any/32GB/8CPU/SPOT"), "any/2cpu/8gb/spot");
            assert_eq!(label("linux"), "any/2cpu/8gb", "a label of before the pool had shapes");
            assert_eq!(label("any/2cpu/8gb"), "none", "it has the label");
            assert_eq!(label("any/8cpu/arm64"), "none", "the machines had another architecture");
        }
        // The pool's bounds count.
        let pool = with_machines(pool(&SHAPES.replace("2..32", "4..32").replace("4..128", "16..128")));
        let Verdict::Advised(advice) = of_runs(&pool, &["any/8cpu/32gb"], priced(400_000)) else {
            panic!("it is advised")
        };
        assert_eq!((advice.label.as_deref(), advice.prices), (Some("any/4cpu/16gb"), PricesFrom::Market));
        assert_eq!((advice.before.to_string(), advice.after.to_string()), ("0.5556 USD".into(), "0.2800 USD".into()));
        assert_eq!(of_runs(&pool, &["any/8cpu/32gb"], priced(100_000)), Verdict::NoneCheaper, "it was cheaper on spot");
        // A run without a recorded price: both are compared at list prices.
        let runs = [priced(400_000), vec![run()]].concat();
        let Verdict::Advised(advice) = of_runs(&pool, &["any/8cpu/32gb"], runs) else { panic!("it is advised") };
        assert_eq!(advice.prices, PricesFrom::List);
    }

    prop_compose! {
        fn any_run()(
            vcpus in 1..40u32, memory in 1..200_000u32, seconds in 0..20_000u32, share in 0.0..1.0f64, beyond in 0..2_000_000u64,
            on in proptest::sample::select(vec!["m7i.2xlarge", "m7i.8xlarge", "c7i.4xlarge", "r7i.xlarge"]),
            price in proptest::option::of(1..3_000_000u64),
        ) -> Run {
            let numbers = domain::state::smaller_vcpus(vcpus).count();
            let beyond: Vec<u64> = (0..numbers as u32).map(|power| beyond >> power).collect();
            let run = changed(|usage| {
                (usage.vcpus, usage.memory_mib, usage.seconds, usage.cpu_beyond) = (vcpus, memory, seconds, beyond);
                usage.memory_peak_mib = (f64::from(memory) * share) as u32;
            });
            Run { instance_type: on.into(), price_per_hour: price.map(MicroUsd), ..run }
        }
    }

    proptest! {
        #[test]
        fn no_advised_machine_makes_a_run_slower_or_too_tight(
            runs in proptest::collection::vec(any_run(), 5..9), has_shapes in any::<bool>(), has_catalogue in any::<bool>(),
        ) {
            let pool = pool(if has_shapes { SHAPES } else { LISTED });
            let pool = if has_catalogue { with_machines(pool) } else { pool };
            if let Verdict::Advised(advice) = of_runs(&pool, &["any/32cpu"], runs.clone()) {
                let facts = types().named[&advice.instance_type].clone();
                for Run { usage, .. } in &runs {
                    prop_assert!(usage.slowdown(facts.vcpus) <= 1.10);
                    // 5 % of a machine with 4 GiB, and 100 MiB.
                    let left = f64::from(facts.memory_mib) * 0.95 - 100.0;
                    prop_assert!(left >= 1.2 * f64::from(usage.memory_peak_mib), "{advice:?} {usage:?}");
                }
                prop_assert!(advice.after < advice.before);
                if let Some(label) = &advice.label {
                    let shape = Shape::of_label(&pool.name, label).unwrap().unwrap();
                    prop_assert!(pool.shapes.as_ref().unwrap().policy.check(&shape).is_ok());
                    for offer in offers(&pool, &pool.shapes.as_ref().unwrap().policy, &shape, &offline(&pool, &types()), 0) {
                        prop_assert!(advice.need.is_met_by(&types().named[&offer.instance_type]));
                    }
                }
            }
        }
    }
}
