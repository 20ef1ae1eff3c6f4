//! Quotas of the account, as Service Quotas knows them.

use std::fmt;

use domain::config::Market;
pub use domain::config::QuotaFamily;

/// A quota of an account in one region. Its text is its name in Service Quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quota {
    /// vCPUs of all running instances.
    Vcpus(QuotaFamily, Market),
    /// Invocations of all Lambda functions at a time.
    LambdaConcurrency,
}

impl Quota {
    /// The service and the code by which Service Quotas knows it.
    pub(crate) fn codes(self) -> (&'static str, &'static str) {
        match self {
            Quota::Vcpus(QuotaFamily::Standard, Market::OnDemand) => ("ec2", "L-1216C47A"),
            Quota::Vcpus(QuotaFamily::Standard, Market::Spot) => ("ec2", "L-34B43A08"),
            Quota::Vcpus(QuotaFamily::Graphics, Market::OnDemand) => ("ec2", "L-DB2E81BA"),
            Quota::Vcpus(QuotaFamily::Graphics, Market::Spot) => ("ec2", "L-3819A6DF"),
            Quota::LambdaConcurrency => ("lambda", "L-B99A9384"),
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quota::Vcpus(QuotaFamily::Standard, Market::OnDemand) => "Running On-Demand Standard instances",
            Quota::Vcpus(QuotaFamily::Standard, Market::Spot) => "All Standard Spot Instance Requests",
            Quota::Vcpus(QuotaFamily::Graphics, Market::OnDemand) => "Running On-Demand G and VT instances",
            Quota::Vcpus(QuotaFamily::Graphics, Market::Spot) => "All G and VT Spot Instance Requests",
            Quota::LambdaConcurrency => "Concurrent executions",
        })
    }
}
