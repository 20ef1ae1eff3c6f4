//! RunInstances.

use jiff::Timestamp;
use rand::Rng;

use super::*;

impl Ec2 {
    /// RunInstances.
    ///
    /// A repeated token with the same parameters returns the instances of the first call, even if they have ended, and
    /// launches nothing. Faults of launches do not apply to it. A call that failed has not used its token.
    pub fn run_instances(&mut self, request: RunInstances, now: Timestamp) -> Result<Reservation, Failure> {
        self.call(Operation::RunInstances, now, |ec2| ec2.launch(request, now))
    }

    /// RunInstances with `DryRun`, which always fails: with `DryRunOperation` if the call would have been allowed. It does
    /// not check capacity and uses no token.
    pub fn try_run_instances(&mut self, request: &RunInstances, now: Timestamp) -> Failure {
        let tried = self.admit(Operation::RunInstances, now).and_then(|()| {
            self.validate(request)?;
            self.template_of(request)
        });
        match tried {
            Ok(_) => Failure::new(Code::DryRunOperation, "Request would have succeeded, but DryRun flag is set."),
            Err(failure) => failure,
        }
    }

    /// Validates a request. Returns the zone of its subnet.
    fn validate(&self, request: &RunInstances) -> Result<String, Failure> {
        if request.min_count == 0 || request.min_count > request.max_count {
            return Err(Failure::new(Code::InvalidParameterValue, "MinCount must be between 1 and MaxCount"));
        }
        if request.client_token.as_ref().is_some_and(|token| token.len() > 64 || !token.is_ascii()) {
            return Err(Failure::new(Code::InvalidParameterValue, "ClientToken is at most 64 ASCII characters"));
        }
        self.subnets.get(&request.subnet).map(|subnet| subnet.zone.clone()).ok_or_else(|| {
            Failure::new(Code::InvalidSubnetIdNotFound, format!("The subnet ID '{}' does not exist", request.subnet))
        })
    }

    /// The template version of a request, if its image exists.
    fn template_of(&self, request: &RunInstances) -> Result<(TemplateId, u64, TemplateData), Failure> {
        let found = self.resolve_template(&request.template, request.template_version.as_deref())?;
        self.image(&found.2.image)?;
        Ok(found)
    }

    fn launch(&mut self, request: RunInstances, now: Timestamp) -> Result<Reservation, Failure> {
        let zone = self.validate(&request)?;
        let token = request.client_token.clone().map(|token| (zone.clone(), token));
        if let Some(used) = token.as_ref().and_then(|token| self.tokens.get(token)) {
            if used.request != request {
                return Err(Failure::new(
                    Code::IdempotentParameterMismatch,
                    "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
                ));
            }
            return Ok(self.reservation(&used.reservation));
        }

        let (template, version, data) = self.template_of(&request)?;
        let instance_type = request.instance_type.clone().unwrap_or_else(|| data.instance_type.clone());
        let rng = &mut self.rng;
        if let Some(refusal) = self.faults.refusal(&request, &instance_type, || rng.random()) {
            if let Some(code) = refusal.code() {
                *self.struck.entry(code).or_default() += 1;
            }
            return Err(refusal);
        }
        if self.config.throttle && !self.throttle.run_instances.take(f64::from(request.max_count), now) {
            return Err(Failure::new(Code::RequestLimitExceeded, "Request limit exceeded: instances."));
        }
        let free = self.free_addresses(&request.subnet).unwrap_or(u32::MAX);
        if free < request.min_count {
            return Err(Failure::new(
                Code::InsufficientFreeAddressesInSubnet,
                format!("There are not enough free addresses in subnet '{}'", request.subnet),
            ));
        }
        let granted = self.faults.draw(&request, &instance_type)?.min(free);

        let reservation = ReservationId::from(self.fresh_id("r"));
        for launch_index in 0..granted as usize {
            let stops = self.faults.stops > 0.0 && self.rng.random::<f64>() < self.faults.stops;
            let id = InstanceId::from(self.fresh_id("i"));
            let volume = VolumeId::from(self.fresh_id("vol"));
            self.by_id.insert(id.clone(), self.instances.len());
            let number = self.launches as usize + launch_index;
            self.instances.push(Instance {
                id: id.clone(),
                reservation: reservation.clone(),
                subnet: request.subnet.clone(),
                zone: zone.clone(),
                instance_type: instance_type.clone(),
                image: data.image.clone(),
                template: template.clone(),
                template_version: version,
                market: request.market,
                tags: request.tags.clone(),
                volume,
                volume_tags: request.volume_tags.clone(),
                client_token: request.client_token.clone(),
                launch_index,
                private_ip: format!("10.{}.{}.{}", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff),
                launched_at: whole_seconds(now),
                created_at: now,
                starts: 0,
                state: State::Pending,
                state_since: now,
                on_power_off: if stops { OnPowerOff::Stop } else { data.on_power_off },
                reclaimed_at: None,
                end: None,
                state_reason: None,
                visible_at: now + self.faults.invisible_for * (launch_index as u32 + 1) / granted,
                console: String::new(),
                can_boot: self.rng.random::<f64>() >= self.faults.boot_failures,
            });
            self.entered.push(Entered { instance: id.clone(), state: State::Pending, at: now });
            if self.faults.ends_at_once > 0.0 && self.rng.random::<f64>() < self.faults.ends_at_once {
                self.agenda.plan(now + self.config.pending / 2, Due::NotStarted(id.clone()));
            } else if self.faults.is_in_vain(&request, &instance_type, || self.rng.random()) {
                self.agenda.plan(now + self.config.pending / 2, Due::LacksCapacity(id.clone()));
            }
            self.agenda.plan(now + self.config.pending, Due::Running(Run { instance: id, starts: 0 }));
        }
        self.launches += u64::from(granted);
        if let Some(token) = token {
            self.tokens.insert(token, TokenUse { request, reservation: reservation.clone() });
        }
        Ok(self.reservation(&reservation))
    }

    fn reservation(&self, id: &ReservationId) -> Reservation {
        let instances = self.instances.iter().filter(|instance| instance.reservation == *id).cloned().collect();
        Reservation { id: id.clone(), instances }
    }
}

/// EC2's LaunchTime has whole seconds.
pub(super) fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
