//! What EC2 says of instance types, zones and spot prices.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{ArchitectureType, Filter, InstanceType, InstanceTypeInfo, LocationType};
use domain::config::{Architecture, MicroUsd, ObservedMachines, ObservedPrice, ObservedType};
use domain::ids::{self, SubnetId, Zone};
use engine::ports::ComputeError;
use jiff::Timestamp;

use crate::aws::failed_ec2;

/// Names that fit into one filter.
const VALUES_PER_FILTER: usize = 200;

/// The region's instance types with the zones that offer them, and the zones of these subnets.
pub(crate) async fn machines(client: &Client, subnets: &BTreeSet<SubnetId>) -> Result<ObservedMachines, ComputeError> {
    let mut zones_of: BTreeMap<String, BTreeSet<Zone>> = BTreeMap::new();
    let ask = client.describe_instance_type_offerings().location_type(LocationType::AvailabilityZone);
    let mut pages = ask.into_paginator().send();
    while let Some(page) = pages.next().await {
        for offering in page.map_err(failed_ec2)?.instance_type_offerings.unwrap_or_default() {
            let (Some(name), Some(zone)) = (offering.instance_type, offering.location) else { continue };
            zones_of.entry(name.as_str().to_owned()).or_default().insert(Zone::from(zone));
        }
    }
    let mut types = Vec::new();
    let mut pages = client.describe_instance_types().into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(failed_ec2)?.instance_types.unwrap_or_default();
        types.extend(page.iter().filter_map(|it| observed_type(it, &zones_of)));
    }
    let names = subnets.iter().map(|id| id.as_str().to_owned()).collect();
    let filter = Filter::builder().name("subnet-id").set_values(Some(names)).build();
    let mut pages = client.describe_subnets().filters(filter).into_paginator().send();
    let mut zones = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(failed_ec2)?.subnets.unwrap_or_default().into_iter();
        zones.extend(page.filter_map(|it| Some((SubnetId::from(it.subnet_id?), Zone::from(it.availability_zone?)))));
    }
    Ok(ObservedMachines { types, zones })
}

/// None for a type that runs neither of the two architectures.
fn observed_type(it: &InstanceTypeInfo, zones_of: &BTreeMap<String, BTreeSet<Zone>>) -> Option<ObservedType> {
    let name = it.instance_type.as_ref()?.as_str().to_owned();
    let architecture =
        it.processor_info()?.supported_architectures().iter().find_map(|architecture| match architecture {
            ArchitectureType::X8664 => Some(Architecture::X64),
            ArchitectureType::Arm64 => Some(Architecture::Arm64),
            _ => None,
        })?;
    Some(ObservedType {
        vcpus: u32::try_from(it.v_cpu_info()?.default_v_cpus()?).ok()?,
        memory_mib: u32::try_from(it.memory_info()?.size_in_mib()?).ok()?,
        architecture,
        current_generation: it.current_generation()?,
        burstable: it.burstable_performance_supported()?,
        bare_metal: it.bare_metal()?,
        zones: zones_of.get(&name).cloned().unwrap_or_default(),
        name: ids::InstanceType::from(name),
    })
}

/// The spot prices of these types for Linux at `now`, which is the present time.
pub(crate) async fn spot_prices(
    client: &Client,
    types: &BTreeSet<ids::InstanceType>,
    now: Timestamp,
) -> Result<Vec<ObservedPrice>, ComputeError> {
    let types: Vec<InstanceType> = types.iter().map(|it| InstanceType::from(it.as_str())).collect();
    let now = DateTime::from_secs(now.as_second());
    let mut found = Vec::new();
    for some in types.chunks(VALUES_PER_FILTER) {
        let ask = client.describe_spot_price_history().set_instance_types(Some(some.to_vec()));
        // With the present time as the start, EC2 answers with the price in force. Pages may be empty and have a successor.
        let ask = ask.product_descriptions("Linux/UNIX").start_time(now);
        let mut pages = ask.into_paginator().send();
        while let Some(page) = pages.next().await {
            found.extend(page.map_err(failed_ec2)?.spot_price_history.unwrap_or_default().into_iter().filter_map(
                |it| {
                    Some(ObservedPrice {
                        instance_type: ids::InstanceType::from(it.instance_type?.as_str()),
                        zone: Zone::from(it.availability_zone?),
                        per_hour: MicroUsd::parse(&it.spot_price?)?,
                    })
                },
            ));
        }
    }
    Ok(found)
}
