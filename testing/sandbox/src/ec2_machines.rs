//! What EC2's query API says of instance types and spot prices.

use jiff::{SignedDuration, Timestamp};
use world::ec2::{Ec2, Failure, TypeInfo};

use crate::ec2_form::{Form, filters, list, number};
use crate::quotas;

/// Items on a page without MaxResults. EC2 returns more; a few make callers follow the token.
const PER_PAGE: usize = 10;

/// From when on EC2 has spot prices.
const HISTORY: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A page of a set of items, and the token of the next page, which is the index of its first item.
fn page(set: &str, items: &[String], form: &Form) -> Result<String, Failure> {
    let from = number(form, "NextToken")?.unwrap_or(0).min(items.len());
    let to = items.len().min(from + number(form, "MaxResults")?.unwrap_or(PER_PAGE));
    let next = if to < items.len() { format!("<nextToken>{to}</nextToken>") } else { String::new() };
    Ok(format!("<{set}>{}</{set}>{next}", items[from..to].concat()))
}

/// Types that the model does not describe in full, and that doctor asks about by name, have the vCPUs of their size.
pub(crate) fn describe_instance_types(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let found = ec2.describe_instance_types(now)?;
    let named = filters(form).into_iter().find(|filter| filter.name == "instance-type").map(|filter| filter.values);
    let item = |name: &String| match found.iter().find(|it| it.name == name) {
        Some(known) => Some(type_xml(known)),
        None => quotas::of_size(name),
    };
    let items: Vec<String> = match named {
        Some(names) => names.iter().filter_map(item).collect(),
        None => found.iter().map(type_xml).collect(),
    };
    page("instanceTypeSet", &items, form)
}

fn type_xml(it: &TypeInfo) -> String {
    format!(
        "<item><instanceType>{}</instanceType><currentGeneration>{}</currentGeneration><bareMetal>{}</bareMetal>\
         <burstablePerformanceSupported>{}</burstablePerformanceSupported>\
         <processorInfo><supportedArchitectures><item>{}</item></supportedArchitectures></processorInfo>\
         <vCpuInfo><defaultVCpus>{}</defaultVCpus></vCpuInfo><memoryInfo><sizeInMiB>{}</sizeInMiB></memoryInfo></item>",
        it.name, it.current_generation, it.bare_metal, it.burstable, it.architecture, it.vcpus, it.memory_mib
    )
}

pub(crate) fn describe_instance_type_offerings(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let found = ec2.describe_instance_type_offerings(now)?;
    // Without a location type, EC2 answers about the region.
    let is_by_zone = form.get("LocationType").is_some_and(|location| location == "availability-zone");
    let region = ec2.config().region.clone();
    let item = |(name, zone): &(&str, String)| {
        let (location, kind) = if is_by_zone { (zone, "availability-zone") } else { (&region, "region") };
        format!(
            "<item><instanceType>{name}</instanceType><location>{location}</location><locationType>{kind}</locationType>\
             </item>"
        )
    };
    let mut items: Vec<String> = found.iter().map(item).collect();
    items.dedup();
    page("instanceTypeOfferingSet", &items, form)
}

/// The first page is empty and has a successor, as EC2's may be. Without a start, the prices of the last ninety days are part of
/// the answer; without a product, those of Windows.
pub(crate) fn describe_spot_price_history(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let found = ec2.describe_spot_price_history(&list(form, "InstanceType"), now)?;
    if !form.contains_key("NextToken") {
        return Ok("<spotPriceHistorySet/><nextToken>0</nextToken>".to_owned());
    }
    let asked = list(form, "ProductDescription");
    let products = [("Linux/UNIX", 1.0), ("Windows", 2.0)];
    let products = products.into_iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|it| it == name));
    let item = |(name, zone, price): &(String, String, f64), product: &str, at: Timestamp| {
        format!(
            "<item><instanceType>{name}</instanceType><productDescription>{product}</productDescription>\
             <spotPrice>{price:.6}</spotPrice><timestamp>{at:.3}</timestamp><availabilityZone>{zone}</availabilityZone></item>"
        )
    };
    let mut items = Vec::new();
    for (product, factor) in products {
        for (name, zone, price) in &found {
            let price = (name.clone(), zone.clone(), price * factor);
            items.push(item(&price, product, now));
            if !form.contains_key("StartTime") {
                let before = (price.0.clone(), price.1.clone(), price.2 * 3.0);
                items.push(item(&before, product, now - HISTORY));
            }
        }
    }
    page("spotPriceHistorySet", &items, form)
}
