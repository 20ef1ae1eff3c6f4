//! Judges whether each job ran on a machine that satisfies the job's label, by what the models of GitHub and EC2 know.
//!
//! It reads labels itself: with the product's own parser, a mistake in the parser would not be noticed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use drover::output::table;
use world::ec2::{Instance, Market, TYPES, TypeInfo, spot_price};
use world::github::{JobId, RunnerId};

use super::shapes::{ARM_TEMPLATE, POOL};
use crate::sandbox::Sandbox;
use crate::state::State;

/// The bounds of the pool for machines: vCPUs and GiB.
const MOST_VCPUS: u32 = 32;
const MOST_GIB: u32 = 128;

/// The machine on which a job started.
#[derive(Debug, Clone, PartialEq)]
struct Machine {
    pool: String,
    instance_type: String,
    market: Market,
    /// Name of the launch template.
    template: String,
    /// Size of the root volume in the RunInstances call, in GiB. None: that of the launch template.
    root_gib: Option<u32>,
    /// USD per hour when it was launched.
    price: f64,
}

/// What the label of a job demands.
#[derive(Debug, Clone, Default, PartialEq)]
struct Demanded {
    vcpus: u32,
    gib: u32,
    arm: bool,
    market: Option<Market>,
    root_gib: Option<u32>,
}

/// Reads a label such as `any/8cpu/32gb/arm64/spot`. None: it is not one of the pool's.
fn demanded(label: &str) -> Option<Result<Demanded, String>> {
    let label = label.to_ascii_lowercase();
    let mut terms = label.split('/');
    if terms.next() != Some(POOL) || !label.contains('/') {
        return None;
    }
    let mut demanded = Demanded::default();
    for term in terms {
        let (digits, unit) = term.split_at(term.find(|c: char| !c.is_ascii_digit()).unwrap_or(term.len()));
        match (digits.parse::<u32>(), unit) {
            (Ok(number), "cpu") => demanded.vcpus = number,
            (Ok(number), "gb") => demanded.gib = number,
            (Ok(number), "disk") => demanded.root_gib = Some(number),
            (Err(_), "x64") => demanded.arm = false,
            (Err(_), "arm64") => demanded.arm = true,
            (Err(_), "spot") => demanded.market = Some(Market::Spot),
            (Err(_), "on-demand") => demanded.market = Some(Market::OnDemand),
            _ => return Some(Err(format!("{term:?} is no term, so no machine can satisfy it"))),
        }
    }
    Some(Ok(demanded))
}

fn type_info(name: &str) -> Option<&'static TypeInfo> {
    TYPES.iter().find(|it| it.name == name)
}

/// Why a job with these labels must not run on the machine. None if it may.
fn mismatch(labels: &[String], machine: &Machine) -> Option<String> {
    // Such a job may run on any runner of its group.
    let first = labels.first()?;
    let Some(label) = labels.iter().find(|label| demanded(label).is_some()) else {
        return (machine.pool == POOL)
            .then(|| format!("{first:?} asks for no shape, and its machine is one of {POOL}"));
    };
    if labels.len() > 1 {
        return Some("its shape is not its only label".to_owned());
    }
    let demanded = match demanded(label)? {
        Ok(demanded) => demanded,
        Err(wrong) => return Some(wrong),
    };
    let Some(facts) = type_info(&machine.instance_type) else {
        return Some(format!("{} is no instance type", machine.instance_type));
    };
    let is_arm = facts.architecture == "arm64";
    let gib = facts.memory_mib / 1024;
    let fits = [
        (machine.pool == POOL, "the machine is one of another pool"),
        (facts.vcpus >= demanded.vcpus, "the machine has fewer vCPUs"),
        (gib >= demanded.gib, "the machine has less memory"),
        (is_arm == demanded.arm, "the machine has another architecture"),
        ((machine.template == ARM_TEMPLATE) == is_arm, "the machine's image has another architecture"),
        (demanded.market.is_none_or(|market| market == machine.market), "the machine is of another market"),
        (demanded.root_gib.is_none_or(|gib| Some(gib) == machine.root_gib), "the root volume has another size"),
        (
            facts.current_generation && !facts.burstable && !facts.bare_metal,
            "the machine is of a family that the pool does not allow",
        ),
        (facts.vcpus <= MOST_VCPUS && gib <= MOST_GIB, "the machine is larger than the pool allows"),
    ];
    fits.into_iter().find(|(fits, _)| !fits).map(|(_, why)| why.to_owned())
}

/// The machines of one class.
#[derive(Debug, Default)]
struct Class {
    jobs: BTreeSet<JobId>,
    types: BTreeSet<String>,
    prices: Vec<f64>,
}

/// What ran where.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    classes: BTreeMap<String, Class>,
    /// One sentence for each job that ran on a machine that does not satisfy its label.
    pub(super) mismatches: Vec<String>,
}

impl Shapes {
    /// Looks at each start of each job on a machine. Jobs on the runners of others, which have no machine, are not judged.
    pub(super) fn of(sandbox: &Sandbox, state: &State) -> Self {
        let mut shapes = Self::default();
        for job in state.github.jobs() {
            for start in &job.history.started {
                if let Some(machine) = machine(sandbox, state, start.runner) {
                    shapes.add(job.id, &job.labels, &machine);
                }
            }
        }
        shapes
    }

    fn add(&mut self, job: JobId, labels: &[String], machine: &Machine) {
        if let Some(why) = mismatch(labels, machine) {
            let Machine { instance_type, market, root_gib, .. } = machine;
            let disk = root_gib.map(|gib| format!(" with a root volume of {gib} GiB")).unwrap_or_default();
            let labels = labels.join(", ");
            self.mismatches.push(format!(
                "job {job} asked for {labels} and ran on {instance_type} {}{disk}: {why}",
                named(*market)
            ));
        }
        if let [label] = labels
            && demanded(label).is_some()
        {
            let class = self.classes.entry(label.to_ascii_lowercase()).or_default();
            class.jobs.insert(job);
            class.types.insert(format!("{} {}", machine.instance_type, named(machine.market)));
            class.prices.push(machine.price);
        }
    }

    /// # Errors
    /// A job ran on a machine that does not satisfy its label, or no job asked for a shape.
    pub(super) fn judge(&self) -> anyhow::Result<()> {
        ensure!(self.mismatches.is_empty(), "{}", self.mismatches.join("; "));
        ensure!(!self.classes.is_empty(), "--shapes was requested, but no job with a shape ran");
        Ok(())
    }

    /// Classes with their jobs, machines and prices.
    pub(super) fn table(&self) -> String {
        let row = |(label, class): (&String, &Class)| {
            let least = class.prices.iter().copied().fold(f64::INFINITY, f64::min);
            let most = class.prices.iter().copied().fold(0.0, f64::max);
            let types: Vec<&str> = class.types.iter().map(String::as_str).collect();
            vec![label.clone(), class.jobs.len().to_string(), types.join(", "), format!("{least:.4}..{most:.4}")]
        };
        table(&["CLASS", "JOBS", "MACHINES", "USD/HOUR"], self.classes.iter().map(row))
    }
}

fn named(market: Market) -> &'static str {
    match market {
        Market::Spot => "spot",
        Market::OnDemand => "on-demand",
    }
}

/// The machine of a runner. None if the runner is someone else's.
fn machine(sandbox: &Sandbox, state: &State, runner: RunnerId) -> Option<Machine> {
    let instance = state.ec2.instance(&sandbox.host_of(runner)?)?;
    let template = state.ec2.launch_templates().find(|template| template.id == instance.template)?;
    Some(Machine {
        pool: instance.tags.get("drover:pool").cloned().unwrap_or_default(),
        instance_type: instance.instance_type.clone(),
        market: instance.market,
        template: template.name.clone(),
        root_gib: state.root_volumes.of(instance).map(|volume| volume.gib),
        price: price(instance),
    })
}

/// USD per hour of a machine, by the model's prices when it was launched. Zero if the model has no price.
fn price(instance: &Instance) -> f64 {
    let Some(facts) = type_info(&instance.instance_type) else { return 0.0 };
    match instance.market {
        Market::Spot => spot_price(facts, &instance.zone, instance.launched_at),
        Market::OnDemand => facts.price,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(instance_type: &str) -> Machine {
        let is_arm = type_info(instance_type).is_some_and(|it| it.architecture == "arm64");
        Machine {
            pool: POOL.to_owned(),
            instance_type: instance_type.to_owned(),
            market: Market::Spot,
            template: if is_arm { ARM_TEMPLATE } else { "drover-runner" }.to_owned(),
            root_gib: None,
            price: 0.1,
        }
    }

    fn why(labels: &[&str], machine: &Machine) -> Option<String> {
        mismatch(&labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>(), machine)
    }

    #[test]
    fn a_machine_that_satisfies_every_term_is_accepted() {
        let with_disk = Machine { root_gib: Some(200), ..machine("m8g.2xlarge") };
        let on_demand = Machine { market: Market::OnDemand, ..machine("m7i.2xlarge") };
        for (label, machine) in [
            ("any/8cpu/32gb/arm64/spot/200disk", &with_disk),
            ("ANY/ARM64/8CPU", &machine("c8g.2xlarge")),
            ("any/2cpu", &machine("m7i.2xlarge")),
            ("any/spot/x64", &machine("m7i.large")),
            ("any/on-demand", &on_demand),
            ("any/2cpu/arm64", &with_disk),
        ] {
            assert_eq!(why(&[label], machine), None, "{label}");
        }
        assert_eq!(why(&[], &machine("m7i.large")), None, "a job without labels may take any runner of its group");
        let linux = Machine { pool: "linux".to_owned(), ..machine("m7i.large") };
        assert_eq!(why(&["drover", "linux"], &linux), None);
    }

    #[test]
    fn each_term_that_a_machine_does_not_satisfy_is_a_failure() {
        let with_disk = Machine { root_gib: Some(100), ..machine("m7i.large") };
        let of_linux = Machine { pool: "linux".to_owned(), ..machine("m7i.large") };
        let other_image = Machine { template: ARM_TEMPLATE.to_owned(), ..machine("m7i.large") };
        for (label, machine, expected) in [
            ("any/4cpu", &machine("m7i.large"), "the machine has fewer vCPUs"),
            ("any/16gb", &machine("m7i.large"), "the machine has less memory"),
            ("any/2cpu/arm64", &machine("m7i.large"), "the machine has another architecture"),
            ("any/2cpu", &machine("m8g.large"), "the machine has another architecture"),
            ("any/x64", &other_image, "the machine's image has another architecture"),
            ("ANY/ON-DEMAND", &machine("m7i.large"), "the machine is of another market"),
            ("any/200disk", &machine("m7i.large"), "the root volume has another size"),
            ("any/200disk", &with_disk, "the root volume has another size"),
            ("any/2cpu", &machine("t3.large"), "the machine is of a family that the pool does not allow"),
            ("any/2cpu", &machine("m4.large"), "the machine is of a family that the pool does not allow"),
            ("any/96cpu", &machine("m7i.metal-24xl"), "the machine is of a family that the pool does not allow"),
            ("any/2cpu", &machine("m99.large"), "m99.large is no instance type"),
            ("any/2cpu", &of_linux, "the machine is one of another pool"),
            ("any/2cpus", &machine("m7i.large"), "\"2cpus\" is no term, so no machine can satisfy it"),
            ("drover", &machine("m7i.large"), "\"drover\" asks for no shape, and its machine is one of any"),
        ] {
            assert_eq!(why(&[label], machine).as_deref(), Some(expected), "{label} on {}", machine.instance_type);
        }
        assert!(why(&["any/2cpu", "self-hosted"], &machine("m7i.large")).is_some());
    }

    #[test]
    fn a_job_on_a_machine_that_its_label_does_not_ask_for_fails_the_demo() {
        let mut shapes = Shapes::default();
        assert!(shapes.judge().is_err(), "no job ran");
        shapes.add(JobId(1), &["any/2cpu".to_owned()], &machine("m7i.large"));
        shapes.add(JobId(2), &["ANY/2cpu".to_owned()], &Machine { price: 0.25, ..machine("m7a.large") });
        assert!(shapes.judge().is_ok());
        let table = shapes.table();
        assert!(
            table.contains("any/2cpu") && table.contains("0.1000..0.2500") && table.lines().count() == 2,
            "{table}"
        );
        shapes.add(JobId(3), &["any/8cpu/arm64".to_owned()], &machine("m7i.large"));
        let refused = shapes.judge().unwrap_err().to_string();
        assert_eq!(refused, "job 3 asked for any/8cpu/arm64 and ran on m7i.large spot: the machine has fewer vCPUs");
    }
}
