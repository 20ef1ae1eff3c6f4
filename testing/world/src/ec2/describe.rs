//! DescribeInstances and DescribeSubnets.

use jiff::Timestamp;

use super::*;

/// The maximum number of instances per page.
const MAX_INSTANCES_PER_PAGE: usize = 1000;

impl Ec2 {
    /// DescribeInstances. As in EC2, ids exclude paging, and the call fails if one id does not exist.
    pub fn describe_instances(
        &mut self,
        ids: &[InstanceId],
        filters: &[Filter],
        max_results: Option<usize>,
        next_token: Option<&str>,
        now: Timestamp,
    ) -> Result<Page<Reservation>, Failure> {
        let Page { items, next_token } = self.described(ids, filters, max_results, next_token, now)?;
        let mut reservations: Vec<Reservation> = Vec::new();
        for instance in items {
            match reservations.last_mut() {
                Some(last) if last.id == instance.reservation => last.instances.push(instance.clone()),
                _ => reservations
                    .push(Reservation { id: instance.reservation.clone(), instances: vec![instance.clone()] }),
            }
        }
        Ok(Page { items: reservations, next_token })
    }

    /// DescribeInstances for a caller that needs neither reservations nor copies.
    pub fn described(
        &mut self,
        ids: &[InstanceId],
        filters: &[Filter],
        max_results: Option<usize>,
        next_token: Option<&str>,
        now: Timestamp,
    ) -> Result<Page<&Instance>, Failure> {
        self.admit(Operation::DescribeInstances, now)?;
        if self.faults.lost_reply(Operation::DescribeInstances).is_some() {
            return Err(Failure::NoReply);
        }
        if !ids.is_empty() && max_results.is_some() {
            return Err(Failure::new(
                Code::InvalidParameterCombination,
                "The parameter instancesSet cannot be used with the parameter maxResults",
            ));
        }
        if max_results.is_some_and(|size| !(5..=MAX_INSTANCES_PER_PAGE).contains(&size)) {
            return Err(Failure::new(Code::InvalidParameterValue, "MaxResults must be between 5 and 1000"));
        }
        for id in ids {
            self.visible(id, now)?;
        }
        let first = next_token.map_or(Some(0), |token| token.strip_prefix("from-")?.parse().ok());
        let first: usize = first.ok_or_else(|| Failure::new(Code::InvalidNextToken, "The token is not valid"))?;

        let mut shown = Vec::new();
        let mut more = None;
        for (number, instance) in self.instances.iter().enumerate().skip(first) {
            let named = ids.is_empty() || ids.contains(&instance.id);
            if !named || !self.is_visible(instance, now) || !matches(instance, filters)? {
                continue;
            }
            if shown.len() == max_results.unwrap_or(MAX_INSTANCES_PER_PAGE) {
                more = Some(format!("from-{number}"));
                break;
            }
            shown.push(instance);
        }
        Ok(Page { items: shown, next_token: more })
    }

    /// Adds a subnet to the region.
    pub fn add_subnet(&mut self, id: &str, zone: &str, tags: Tags) -> SubnetId {
        let subnet = Subnet { id: id.into(), zone: zone.to_owned(), tags, addresses: None };
        self.subnets.insert(subnet.id.clone(), subnet);
        id.into()
    }

    /// Limits the addresses of a subnet.
    pub fn set_addresses(&mut self, subnet: &SubnetId, addresses: Option<u32>) {
        if let Some(subnet) = self.subnets.get_mut(subnet) {
            subnet.addresses = addresses;
        }
    }

    /// The free addresses of a subnet, or `None` if they are unlimited.
    pub fn free_addresses(&self, subnet: &SubnetId) -> Option<u32> {
        let addresses = self.subnets.get(subnet)?.addresses?;
        let taken = self.alive().filter(|instance| instance.subnet == *subnet).count();
        Some(addresses.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX)))
    }

    /// Every subnet, without a call.
    pub fn subnets(&self) -> impl Iterator<Item = &SubnetId> {
        self.subnets.keys()
    }

    /// Every subnet with its zone.
    pub fn subnets_with_zones(&self) -> impl Iterator<Item = (&SubnetId, &str)> {
        self.subnets.iter().map(|(id, subnet)| (id, subnet.zone.as_str()))
    }

    /// DescribeSubnets, in one page.
    pub fn describe_subnets(
        &mut self,
        ids: &[SubnetId],
        filters: &[Filter],
        now: Timestamp,
    ) -> Result<Vec<Subnet>, Failure> {
        self.admit(Operation::DescribeSubnets, now)?;
        for id in ids {
            if !self.subnets.contains_key(id) {
                return Err(Failure::new(
                    Code::InvalidSubnetIdNotFound,
                    format!("The subnet ID '{id}' does not exist"),
                ));
            }
        }
        let mut found = Vec::new();
        for subnet in self.subnets.values() {
            let mut wanted = ids.is_empty() || ids.contains(&subnet.id);
            for filter in filters {
                wanted &= match filter.name.as_str() {
                    "subnet-id" => filter.accepts(subnet.id.as_str()),
                    "availability-zone" | "availabilityZone" => filter.accepts(&subnet.zone),
                    "state" => filter.accepts("available"),
                    name => filter.accepts_tags(name, &subnet.tags)?,
                };
            }
            if wanted {
                found.push(subnet.clone());
            }
        }
        Ok(found)
    }
}

/// Whether an instance matches all filters. A filter matches if one of its values does.
fn matches(instance: &Instance, filters: &[Filter]) -> Result<bool, Failure> {
    let mut all = true;
    for filter in filters {
        all &= match filter.name.as_str() {
            "instance-id" => filter.accepts(instance.id.as_str()),
            "instance-state-name" => filter.accepts(instance.state.as_str()),
            "client-token" => instance.client_token.as_ref().is_some_and(|token| filter.accepts(token)),
            "subnet-id" => filter.accepts(instance.subnet.as_str()),
            "availability-zone" => filter.accepts(&instance.zone),
            "instance-type" => filter.accepts(&instance.instance_type),
            name => filter.accepts_tags(name, &instance.tags)?,
        };
    }
    Ok(all)
}

impl Filter {
    /// A filter by a tag's value.
    pub fn tag(key: &str, value: &str) -> Self {
        Self { name: format!("tag:{key}"), values: vec![value.to_owned()] }
    }

    fn accepts(&self, text: &str) -> bool {
        self.values.iter().any(|pattern| pattern == text || glob(pattern.as_bytes(), text.as_bytes()))
    }

    fn accepts_tags(&self, name: &str, tags: &Tags) -> Result<bool, Failure> {
        if name == "tag-key" {
            return Ok(tags.keys().any(|key| self.accepts(key)));
        }
        let key = name
            .strip_prefix("tag:")
            .ok_or_else(|| Failure::new(Code::InvalidParameterValue, format!("The filter '{name}' is invalid")))?;
        Ok(tags.get(key).is_some_and(|value| self.accepts(value)))
    }
}

/// EC2's wildcards: `*` matches any text, `?` any single character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => glob(&pattern[1..], text) || !text.is_empty() && glob(pattern, &text[1..]),
        (Some(b'?'), Some(_)) => glob(&pattern[1..], &text[1..]),
        (Some(expected), Some(found)) if expected == found => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}
