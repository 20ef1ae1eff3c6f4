//! DescribeInstanceTypes, DescribeInstanceTypeOfferings and DescribeSpotPriceHistory.

use jiff::Timestamp;

use super::*;

impl Ec2 {
    /// DescribeInstanceTypes.
    pub fn describe_instance_types(&mut self, now: Timestamp) -> Result<&[TypeInfo], Failure> {
        self.admit(Operation::DescribeInstanceTypes, now)?;
        Ok(self.config.offering.types())
    }

    /// DescribeInstanceTypeOfferings with the location type `availability-zone`: types and zones.
    pub fn describe_instance_type_offerings(&mut self, now: Timestamp) -> Result<Vec<(&'static str, String)>, Failure> {
        self.admit(Operation::DescribeInstanceTypeOfferings, now)?;
        let zones = self.zones();
        let offering = &self.config.offering;
        let all = offering.types().iter().flat_map(|it| zones.iter().map(move |zone| (it.name, zone.clone())));
        Ok(all.filter(|(name, zone)| offering.is_offered(name, zone)).collect())
    }

    /// DescribeSpotPriceHistory with the present time as the start: type, zone and USD per hour.
    pub fn describe_spot_price_history(
        &mut self,
        types: &[String],
        now: Timestamp,
    ) -> Result<Vec<(String, String, f64)>, Failure> {
        self.admit(Operation::DescribeSpotPriceHistory, now)?;
        let zones = self.zones();
        let offering = &self.config.offering;
        let wanted: std::collections::BTreeSet<&str> = types.iter().map(String::as_str).collect();
        let known = offering.types().iter().filter(|it| wanted.contains(it.name));
        let all = known.flat_map(|it| zones.iter().map(move |zone| (it, zone)));
        Ok(all.map(|(it, zone)| (it.name.to_owned(), zone.clone(), offering.spot_price(it, zone, now))).collect())
    }

    fn zones(&self) -> Vec<String> {
        let zones: std::collections::BTreeSet<&String> = self.subnets.values().map(|subnet| &subnet.zone).collect();
        zones.into_iter().cloned().collect()
    }
}
