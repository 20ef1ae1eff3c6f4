//! Labels that ask for a shape: what is wrong with them, and which machines they get.

use domain::config::{Bounds, MicroUsd, Pool, Shape, ShapePolicy};
use domain::policy::offer::{Offer, offers};
use domain::policy::route::{WrongShape, shape};

use super::finding::{Asked, Candidate, Verdict};
use super::pattern::Pattern;
use crate::output::usd;

/// The verdict for a job whose label is a shape of the pool; None if it is none.
pub(super) fn verdict(pool: &Pool, labels: &[String]) -> Option<(Verdict, Option<Asked>)> {
    let Some(Ok(shape)) = shape(pool, labels) else { return None };
    let policy = &pool.shapes.as_ref()?.policy;
    let name = pool.name.to_string();
    let Some(machines) = &pool.machines else {
        let text = format!("{}; types and prices are known only in a stack", described(&shape, pool, policy));
        return Some((Verdict::Pool { pool: name }, Some(Asked { candidates: None, text })));
    };
    let found = candidates(offers(pool, policy, &shape, machines, 0));
    if found.is_empty() {
        let why = format!("no instance type that pool {name} allows satisfies it");
        return Some((Verdict::NoPool { why }, None));
    }
    let text = listed(&found);
    Some((Verdict::Pool { pool: name }, Some(Asked { candidates: Some(found), text })))
}

/// Each type and market once, with its lowest price.
fn candidates(offers: Vec<Offer>) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = Vec::new();
    for Offer { instance_type, market, price_per_hour, .. } in offers {
        let name = instance_type.to_string();
        if !all.iter().any(|it| it.instance_type == name && it.market == market) {
            all.push(Candidate { instance_type: name, market, usd_per_hour: price_per_hour.map(MicroUsd::usd) });
        }
    }
    all
}

/// Candidates in a line. `--format json` has all.
const SHOWN: usize = 3;

fn listed(all: &[Candidate]) -> String {
    let one = |it: &Candidate| {
        let price =
            it.usd_per_hour.map_or("at an unknown price".to_owned(), |price| format!("{} USD/hour", usd(price)));
        format!("{} {} {price}", it.instance_type, it.market)
    };
    let shown: Vec<String> = all.iter().take(SHOWN).map(one).collect();
    let more = all.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// What the label and the pool say about the machine.
fn described(shape: &Shape, pool: &Pool, policy: &ShapePolicy) -> String {
    let least = |asked: Option<u32>, bounds: Bounds| asked.unwrap_or(*bounds.range().start());
    let architecture = shape.architecture.or(policy.architectures.first().copied());
    let markets: Vec<String> = match shape.market {
        Some(market) => vec![market.to_string()],
        None => pool.market.markets().iter().map(ToString::to_string).collect(),
    };
    let cap = policy.price_per_hour.map(|cap| format!(", at most {} USD per hour", usd(cap.usd()))).unwrap_or_default();
    format!(
        "at least {} vCPUs and {} GiB, {}, {}{cap}",
        least(shape.cpu, policy.cpu),
        least(shape.ram, policy.ram),
        architecture.map(|it| it.to_string()).unwrap_or_default(),
        markets.join(" then "),
    )
}

/// What labels of the pool may ask for.
pub(super) fn allowed(pool: &Pool) -> Option<String> {
    let ShapePolicy { cpu, ram, architectures, disk, markets, .. } = &pool.shapes.as_ref()?.policy;
    let mut terms = vec![format!("{cpu} cpu"), format!("{ram} gb")];
    terms.extend(disk.map(|disk| format!("{disk} disk")));
    terms.extend(architectures.iter().map(ToString::to_string));
    terms.extend(markets.iter().map(ToString::to_string));
    Some(format!("{}/TERMS may ask for {}", pool.name, terms.join(", ")))
}

/// Whether labels of which some parts are unknown may be, or contain, a shape of the pool.
pub(super) fn may_be(pool: &Pool, labels: &[Pattern]) -> Option<Result<(), WrongShape>> {
    pool.shapes.as_ref()?;
    let prefix = format!("{}/", pool.name);
    let begins = |label: &&Pattern| label.beginning().trim_start().to_lowercase().starts_with(&prefix);
    let label = labels.iter().find(begins)?;
    Some(if labels.len() > 1 { Err(WrongShape::NotAlone(label.written())) } else { Ok(()) })
}
