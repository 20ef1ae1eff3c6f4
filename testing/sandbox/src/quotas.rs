//! The account's quotas, and the sizes of instance types that they are compared with.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::ec2_form::escaped;

/// Quotas of an account that has been in use for some time.
pub(crate) fn usual() -> BTreeMap<&'static str, f64> {
    [("L-1216C47A", 640.0), ("L-34B43A08", 640.0), ("L-B99A9384", 1000.0)].into()
}

/// The answer of GetServiceQuota. None if there is no such quota.
pub(crate) fn quota(quotas: &BTreeMap<&'static str, f64>, operation: &str, request: &Value) -> Option<Value> {
    let (code, service) = (request["QuotaCode"].as_str()?, request["ServiceCode"].as_str()?);
    let value = quotas.get(code).filter(|_| operation == "GetServiceQuota")?;
    Some(json!({ "Quota": { "ServiceCode": service, "QuotaCode": code, "Value": value, "Adjustable": true } }))
}

/// The description of a type of which only the number of vCPUs is known, which follows from its size.
pub(crate) fn of_size(name: &str) -> Option<String> {
    let vcpus = vcpus(name)?;
    let name = escaped(name);
    Some(format!(
        "<item><instanceType>{name}</instanceType><vCpuInfo><defaultVCpus>{vcpus}</defaultVCpus></vCpuInfo></item>"
    ))
}

fn vcpus(instance_type: &str) -> Option<u32> {
    match instance_type.split_once('.')?.1 {
        "medium" => Some(1),
        "large" => Some(2),
        "xlarge" => Some(4),
        size => Some(4 * size.strip_suffix("xlarge")?.parse::<u32>().ok()?),
    }
}
