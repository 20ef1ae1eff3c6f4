//! Rules for pools with shapes, and for caps in USD per hour.

use std::collections::BTreeSet;

use domain::config::{Architecture, FamilyPattern, Market, MarketChoice, MicroUsd};
use domain::ids::InstanceType;
use platform::ec2::{known_types, known_types_from};

use super::check::Check;
use super::entry::{PoolEntry, ShapesEntry};
use super::fields::{did_you_mean, nearest};
use super::finding::Severity;
use super::instance_types::families;
use super::prices::{Cap, cheapest, judge, vcpus};
use crate::output::usd;

/// The largest volume of EBS, in GiB.
const LARGEST_VOLUME: u32 = 65_536;

/// What is wrong with a pool with shapes.
pub(super) fn shapes(check: &mut Check<'_>, pool: &PoolEntry, policy: &ShapesEntry) {
    let none = "shapes.arch: at least one is required, such as arch = [\"x64\"]";
    check.require(&["shapes.arch"], !policy.arch.is_empty(), none);
    check.unique("shapes.arch", &policy.arch);
    check.unique("shapes.families", &policy.families);
    markets(check, pool, policy);
    launch_templates(check, pool, policy);
    let none =
        "instance_types: the labels of jobs choose the types of a pool with [pool.shapes]; limit them with families";
    check.require(&["instance_types"], pool.instance_types.is_empty(), none);
    if let Some(disk) = policy.disk {
        let message = format!("shapes.disk: a volume has at most {LARGEST_VOLUME} GiB; end the range there");
        check.require(&["shapes.disk"], *disk.range().end() <= LARGEST_VOLUME, message);
    }
    allowed_families(check, policy);
}

fn markets(check: &mut Check<'_>, pool: &PoolEntry, policy: &ShapesEntry) {
    const FIELD: &str = "shapes.market";
    let Some(markets) = &policy.market else { return };
    let none = "shapes.market: at least one is required, spot or on-demand; without the field, labels may ask for those of the pool";
    check.require(&[FIELD], !markets.is_empty(), none);
    check.unique(FIELD, markets);
    for market in pool.market.markets().iter().filter(|market| !markets.contains(market) && !markets.is_empty()) {
        let message = format!(
            "shapes.market: lacks {market}, which market = \"{}\" gives to jobs that ask for none; add it here, or change market",
            name(pool.market)
        );
        check.require(&[FIELD, "market"], false, message);
    }
}

fn name(choice: MarketChoice) -> &'static str {
    match choice {
        MarketChoice::OnDemand => "on-demand",
        MarketChoice::Spot => "spot",
        MarketChoice::SpotThenOnDemand => "spot-then-on-demand",
    }
}

fn launch_templates(check: &mut Check<'_>, pool: &PoolEntry, policy: &ShapesEntry) {
    const FIELD: &str = "launch_templates";
    for architecture in &policy.arch {
        let message = format!(
            "{FIELD}: none for {architecture}, which shapes.arch allows; write {FIELD} = {{ {architecture} = \"NAME\" }}"
        );
        check.require(&[FIELD, "shapes.arch"], pool.launch_templates.contains_key(architecture), message);
    }
    for (architecture, template) in &pool.launch_templates {
        let message = format!("{FIELD}: that of {architecture} must be a name or an id");
        check.require(&[FIELD], !template.is_empty(), message);
        let message = format!("{FIELD}: {architecture} is never used, because shapes.arch lacks it");
        check.advise(&[FIELD, "shapes.arch"], policy.arch.contains(architecture), message);
    }
    let not_both = format!("launch_template: a pool with [pool.shapes] has {FIELD} = {{ x64 = \"NAME\" }} instead");
    check.require(&["launch_template"], pool.launch_template.is_empty(), not_both);
    let pinned = "launch_template_version: the default version of each template of a pool with [pool.shapes] is pinned when \
                  the file is applied; remove the line";
    check.require(&["launch_template_version"], pool.launch_template_version.is_none(), pinned);
}

/// Families that EC2 does not have, and architectures that none of the families has.
fn allowed_families(check: &mut Check<'_>, policy: &ShapesEntry) {
    const FIELD: &str = "shapes.families";
    for (index, pattern) in policy.families.iter().enumerate() {
        let of_pattern: BTreeSet<Architecture> = architectures(|family| pattern.matches(family));
        let span = check.written.element(FIELD, index).clone();
        if of_pattern.is_empty() {
            let text = pattern.to_string();
            let near = did_you_mean(nearest(text.trim_end_matches('*'), families()));
            let version = known_types_from();
            let message = format!("{FIELD}: EC2 has no family {pattern} (aws-sdk-ec2 {version}){near}");
            check.at(Severity::Error, &span, message);
        } else if !check.is_invalid("shapes.arch") && of_pattern.is_disjoint(&policy.arch.iter().copied().collect()) {
            let message = format!("{FIELD}: {pattern} has only machines of an architecture that shapes.arch lacks");
            check.at(Severity::Warning, &span, message);
        }
    }
    let of_any = architectures(|family| admits_family(&policy.families, family));
    for architecture in policy.arch.iter().filter(|architecture| !of_any.contains(architecture)) {
        let message = format!(
            "shapes.arch: {FIELD} has no family with {architecture} machines: add one, or remove {architecture} from arch"
        );
        // A family that does not exist is reported as such.
        check.require(&["shapes.arch", FIELD], of_any.is_empty(), message);
    }
}

/// The architectures of the machines of some families.
fn architectures(is_one: impl Fn(&str) -> bool) -> BTreeSet<Architecture> {
    let types = known_types().iter().filter(|name| name.split_once('.').is_some_and(|(family, _)| is_one(family)));
    types.map(|name| Architecture::of(&InstanceType::from(*name))).collect()
}

/// Whether the family is allowed, as far as its name says. Without a list, a family of an old generation is not, and its name
/// does not say that.
fn admits_family(patterns: &[FamilyPattern], family: &str) -> bool {
    match patterns {
        [] => !is_burstable(family),
        patterns => patterns.iter().any(|pattern| pattern.matches(family)),
    }
}

/// EC2's families `t3`, `t4g` and so on.
fn is_burstable(family: &str) -> bool {
    family.strip_prefix('t').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether labels may ask for the type, as far as its name says.
fn admits(policy: &ShapesEntry, instance_type: &InstanceType) -> bool {
    let Some((family, _)) = instance_type.as_str().split_once('.') else { return false };
    let (fewest, most) = vcpus(instance_type);
    let cpu = policy.cpu.range();
    admits_family(&policy.families, family)
        && policy.arch.contains(&Architecture::of(instance_type))
        && *cpu.start() <= most
        && *cpu.end() >= fewest
}

/// Caps that pay for no machine.
pub(super) fn caps(check: &mut Check<'_>, pool: &PoolEntry) {
    const POOL: &str = "usd_per_hour";
    const MACHINE: &str = "shapes.usd_per_hour";
    const DEPENDS_ON: [&str; 6] =
        ["shapes", "shapes.cpu", "shapes.arch", "shapes.families", "shapes.market", "instance_types"];
    let of_pool = pool.usd_per_hour.map(|usd| (POOL, usd.0));
    let of_machine = pool.shapes.as_ref().and_then(|policy| policy.usd_per_hour).map(|usd| (MACHINE, usd.0));
    let caps: Vec<(&str, MicroUsd)> = of_machine.into_iter().chain(of_pool).collect();
    if caps.is_empty() || DEPENDS_ON.iter().chain(&["market"]).any(|field| check.is_invalid(field)) {
        return;
    }
    if let (Some((_, machine)), Some((_, all))) = (of_machine, of_pool) {
        let message = format!(
            "{MACHINE}: {} USD is more than all machines of the pool may cost together, {} USD; lower it",
            usd(machine.usd()),
            usd(all.usd())
        );
        check.advise(&[MACHINE, POOL], machine <= all, message);
    }
    let lowest = cheapest(|name| match &pool.shapes {
        Some(policy) => admits(policy, name),
        None => pool.instance_types.contains(name),
    });
    for (field, cap) in caps {
        match &lowest {
            Some(lowest) => {
                let (verdict, message) = judge(field, "machine", cap, lowest, &markets_of(pool));
                let severity = if verdict == Cap::PaysForNone { Severity::Error } else { Severity::Warning };
                check.add(severity, &[field], message.is_none(), message.unwrap_or_default());
            }
            // Without machines at all, another rule has said so.
            None if is_any_known(pool) => {
                let message = format!(
                    "{field}: no price is known for the machines that the pool allows, and under a cap a machine without a \
                     known price is not launched; allow others, or remove the cap"
                );
                check.require(&[field], false, message);
            }
            None => {}
        }
    }
}

fn is_any_known(pool: &PoolEntry) -> bool {
    let mut types = known_types().iter().map(|name| InstanceType::from(*name));
    types.any(|name| match &pool.shapes {
        Some(policy) => admits(policy, &name),
        None => pool.instance_types.contains(&name),
    })
}

/// The markets that jobs of the pool can get.
fn markets_of(pool: &PoolEntry) -> BTreeSet<Market> {
    let asked = pool.shapes.as_ref().and_then(|policy| policy.market.clone()).unwrap_or_default();
    pool.market.markets().iter().copied().chain(asked).collect()
}

/// The labels of one pool that jobs could not use, because they read as shapes of another pool or of the same one. Each with its
/// place in the list.
pub(super) fn labels_of_shapes(shaped: &PoolEntry, other: &PoolEntry) -> Vec<(usize, String)> {
    if shaped.shapes.is_none() {
        return Vec::new();
    }
    let prefix = format!("{}/", shaped.name);
    let labels = other.labels.iter().enumerate().filter(|(_, label)| label.as_str().starts_with(&prefix));
    let message = |label| {
        format!(
            "labels: {label} would be read as a shape of pool {}; use one that does not begin with {prefix}",
            shaped.name
        )
    };
    labels.map(|(index, label)| (index, message(label))).collect()
}
