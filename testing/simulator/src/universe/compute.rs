//! EC2's port.

use std::collections::BTreeSet;

use async_trait::async_trait;
use domain::config::{Architecture, Market, MicroUsd, ObservedMachines, ObservedPrice, ObservedType};
use domain::ids::{BatchTag, InstanceId, InstanceType, StackName, SubnetId, Zone};
use domain::policy::launch_error::ErrorClass;
use domain::wire::{MachineState, StateReason};
use engine::ports::{
    Compute, ComputeError, Launch, LaunchError, Launched, ObservedInstance, Terminated, TerminationPermit,
};
use jiff::{SignedDuration, Timestamp};
use world::ec2::{self, Code, Filter, RunInstances, Tags, TemplateRef, TypeInfo};

use crate::call::Call;
use crate::universe::state::State;
use crate::universe::{INVOCATION, Universe};

#[async_trait]
impl Compute for Universe {
    async fn launch(&self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        self.state().sending = Some(launch.clone());
        let answer = self.steps.around(|| Call::RunInstances(launch.tag.clone()), || self.launch_now(launch)).await;
        // An invocation that ends during the call does not learn the answer.
        self.store.attempts.answered(&launch.tag, answer.as_ref().err().map(|error| error.code.as_str()));
        answer
    }

    async fn by_batch(&self, tag: &BatchTag) -> Result<Vec<ObservedInstance>, ComputeError> {
        let look = || self.state().describe(&[Filter::tag("drover:batch", &tag.to_string())]);
        let found = self.steps.around(|| Call::DescribeBatch(tag.clone()), look).await;
        if found.as_ref().is_ok_and(Vec::is_empty) {
            self.store.attempts.found_nothing(tag, self.now());
        }
        found
    }

    async fn census(&self) -> Result<Vec<ObservedInstance>, ComputeError> {
        self.steps.around(|| Call::DescribeInstances, || self.state().own_machines()).await
    }

    async fn instances(&self, ids: &[InstanceId]) -> Result<Vec<ObservedInstance>, ComputeError> {
        let look = || {
            let own = Filter::tag("drover:stack", "sim");
            let values = ids.iter().map(|id| id.to_string()).collect();
            self.state().describe(&[own, Filter { name: "instance-id".to_owned(), values }])
        };
        self.steps.around(|| Call::ReadTags(ids.to_vec()), look).await
    }

    async fn terminate(&self, permit: &TerminationPermit) -> Result<Terminated, ComputeError> {
        let instance = permit.instance();
        let end = || {
            let (answer, wrong) = self.state().terminate(instance);
            if let Some(wrong) = wrong {
                self.store.violate(wrong);
            }
            answer
        };
        self.steps.around(|| Call::TerminateInstances(instance.clone()), end).await
    }

    async fn stop(&self, instance: &InstanceId, _within: SignedDuration) -> Result<(), ComputeError> {
        let stop = || {
            let (answer, wrong) = self.state().stop(instance);
            if let Some(wrong) = wrong {
                self.store.violate(wrong);
            }
            answer
        };
        self.steps.around(|| Call::StopInstances(instance.clone()), stop).await
    }

    async fn start(&self, instances: &[InstanceId]) -> Result<(), ComputeError> {
        let start = || {
            let mut state = self.state();
            let ids: Vec<ec2::InstanceId> = instances.iter().map(|id| id.as_str().into()).collect();
            let now = state.now;
            state.ec2.start_instances(&ids, now).map(drop).map_err(|error| port_error(&error))
        };
        self.steps.around(|| Call::StartInstances(instances.to_vec()), start).await
    }

    async fn machines(&self, subnets: &BTreeSet<SubnetId>) -> Result<ObservedMachines, ComputeError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            let offerings = state.ec2.describe_instance_type_offerings(now).map_err(|error| port_error(&error))?;
            let types = state.ec2.describe_instance_types(now).map_err(|error| port_error(&error))?;
            let types = types.iter().map(|it| observed_type(it, &offerings)).collect();
            let of_pools =
                state.ec2.subnets_with_zones().filter(|(id, _)| subnets.contains(&SubnetId::from(id.as_str())));
            let zones = of_pools.map(|(id, zone)| (SubnetId::from(id.as_str()), Zone::from(zone))).collect();
            Ok(ObservedMachines { types, zones })
        };
        self.steps.around(|| Call::DescribeInstanceTypes, look).await
    }

    async fn spot_prices(
        &self,
        types: &BTreeSet<InstanceType>,
        _now: Timestamp,
    ) -> Result<Vec<ObservedPrice>, ComputeError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            let names: Vec<String> = types.iter().map(ToString::to_string).collect();
            let found = state.ec2.describe_spot_price_history(&names, now).map_err(|error| port_error(&error))?;
            let price = |(name, zone, usd): (String, String, f64)| ObservedPrice {
                instance_type: InstanceType::from(name),
                zone: Zone::from(zone),
                per_hour: MicroUsd((usd * 1e6) as u64),
            };
            Ok(found.into_iter().map(price).collect())
        };
        self.steps.around(|| Call::DescribeSpotPriceHistory, look).await
    }

    async fn console(&self, instance: &InstanceId) -> Result<Option<String>, ComputeError> {
        let look = || {
            let mut state = self.state();
            let now = state.now;
            match state.ec2.console_output(&instance.as_str().into(), true, now) {
                Ok(written) => Ok(Some(written.to_owned())),
                Err(error) if error.code() == Some(Code::InvalidInstanceIdNotFound) => Ok(None),
                Err(error) => Err(port_error(&error)),
            }
        };
        self.steps.around(|| Call::GetConsoleOutput(instance.clone()), look).await
    }
}

impl Universe {
    /// Calls RunInstances and checks S2. A call may arrive after its invocation has ended.
    pub(crate) fn launch_now(&self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        let mut state = self.state();
        let before = state.ec2.launches();
        let answer = state.run_instances(launch);
        if answer.as_ref().is_err_and(|error| error.class != ErrorClass::Ambiguous) {
            let now = state.now;
            state.refused.push((now, launch.tuple.clone()));
        }
        if state.ec2.launches() > before {
            let again = !state.launched_attempts.insert(launch.tag.clone());
            drop(state);
            if again {
                self.store.violate(format!("S2: {} was launched twice", launch.tag));
            }
        }
        answer
    }
}

impl State {
    /// Calls TerminateInstances. Returns what violates S1 or S7, too: a machine must not end while its runner can be given a
    /// job, nor while an operator holds it.
    fn terminate(&mut self, instance: &InstanceId) -> (Result<Terminated, ComputeError>, Option<String>) {
        let (id, now): (ec2::InstanceId, _) = (instance.as_str().into(), self.now);
        let was_live = self.ec2.instance(&id).is_some_and(|machine| machine.state.is_live());
        let is_own =
            self.ec2.instance(&id).is_none_or(|machine| machine.tags.get("drover:stack").is_some_and(|s| s == "sim"));
        let answer = match self.ec2.terminate_instances(std::slice::from_ref(&id), now) {
            Ok(_) => Ok(Terminated::Ending),
            Err(error) if error.code() == Some(Code::InvalidInstanceIdNotFound) => Ok(Terminated::NotFound),
            Err(error) => Err(port_error(&error)),
        };
        let Some(machine) = self.ec2.instance(&id) else { return (answer, None) };
        if !was_live || machine.state.is_live() {
            return (answer, None);
        }
        if !is_own {
            return (answer, Some(format!("S1: {id} was terminated, which is not of this stack")));
        }
        // An invocation that began before the tag was there may have read the machine's tags already.
        if self.held.get(&id).is_some_and(|since| now.duration_since(*since) > INVOCATION) {
            return (answer, Some(format!("S7: {id} was terminated, which an operator holds")));
        }
        let age = now.duration_since(machine.launched_at);
        let pool = machine.tags.get("drover:pool").cloned().unwrap_or_default();
        let past_life = self.max_life.get(&pool).is_some_and(|most| age + self.clocks_differ_by >= *most);
        let registered = self.configured.get(&id).and_then(|runner| self.github.runner(*runner));
        let wrong = registered.filter(|_| !past_life).map(|runner| {
            let may_run = if runner.job.is_some() { "has a job" } else { "can be given a job" };
            format!("S1: {id} was terminated while its runner {} {may_run}", runner.id)
        });
        (answer, wrong)
    }

    /// Calls StopInstances. Returns what violates S1, too: a machine must not stop while its runner can be given a job.
    fn stop(&mut self, instance: &InstanceId) -> (Result<(), ComputeError>, Option<String>) {
        let (id, now): (ec2::InstanceId, _) = (instance.as_str().into(), self.now);
        let was_up = self.ec2.instance(&id).is_some_and(|machine| machine.state == ec2::State::Running);
        let answer = self.ec2.stop_instances(std::slice::from_ref(&id), now).map(drop);
        let answer = answer.map_err(|error| port_error(&error));
        let is_up = self.ec2.instance(&id).is_some_and(|machine| machine.state == ec2::State::Running);
        let registered = self.configured.get(&id).and_then(|runner| self.github.runner(*runner));
        let wrong = registered.filter(|_| was_up && !is_up);
        (answer, wrong.map(|runner| format!("S1: {id} was stopped although it has runner {}", runner.id)))
    }

    fn run_instances(&mut self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        let stack: StackName = "sim".parse().expect("a stack's name");
        let tags: Tags = [
            ("drover:stack".to_owned(), stack.to_string()),
            ("drover:pool".to_owned(), launch.tag.pool.to_string()),
            ("drover:batch".to_owned(), launch.tag.to_string()),
        ]
        .into();
        let market = ec2_market(launch.tuple.market);
        let request = RunInstances {
            template: TemplateRef::Id(launch.tuple.template.as_str().into()),
            template_version: Some(launch.tuple.template_version.to_string()),
            min_count: 1,
            max_count: launch.count,
            subnet: launch.tuple.subnet.as_str().into(),
            instance_type: Some(launch.tuple.instance_type.as_str().to_owned()),
            market,
            client_token: Some(self.token(launch, &stack)),
            tags: tags.clone(),
            volume_tags: tags,
        };
        let now = self.now;
        let reservation = self.ec2.run_instances(request, now).map_err(|error| match &error {
            ec2::Failure::Refused { code, message } => {
                LaunchError::answered(code.status(), Some(code.as_str()), message)
            }
            ec2::Failure::NoReply => LaunchError::unanswered("TimedOut", &error.to_string()),
        })?;
        Ok(reservation
            .instances
            .into_iter()
            .map(|instance| Launched { id: instance.id.as_str().into(), launched_at: instance.launched_at })
            .collect())
    }

    fn token(&mut self, launch: &Launch, stack: &StackName) -> String {
        match &mut self.random_tokens {
            None => launch.tag.token(stack),
            Some(used) => {
                *used += 1;
                format!("random-{used}")
            }
        }
    }

    /// The machines with the stack's tag.
    pub(super) fn own_machines(&mut self) -> Result<Vec<ObservedInstance>, ComputeError> {
        self.describe(&[Filter::tag("drover:stack", "sim")])
    }

    fn describe(&mut self, filters: &[Filter]) -> Result<Vec<ObservedInstance>, ComputeError> {
        let now = self.now;
        let mut found = Vec::new();
        let mut next_token = None;
        loop {
            let page = self
                .ec2
                .described(&[], filters, Some(1000), next_token.as_deref(), now)
                .map_err(|error| port_error(&error))?;
            found.extend(page.items.into_iter().map(observed_instance));
            next_token = page.next_token;
            if next_token.is_none() {
                return Ok(found);
            }
        }
    }
}

pub(crate) fn ec2_market(market: Market) -> ec2::Market {
    match market {
        Market::OnDemand => ec2::Market::OnDemand,
        Market::Spot => ec2::Market::Spot,
    }
}

fn port_error(failure: &ec2::Failure) -> ComputeError {
    match failure {
        ec2::Failure::Refused { code, message } => {
            ComputeError { code: Some(code.to_string()), ..ComputeError::new(message) }
        }
        ec2::Failure::NoReply => ComputeError::new(failure.to_string()),
    }
}

fn observed_instance(instance: &ec2::Instance) -> ObservedInstance {
    let reason = |it: &ec2::StateReason| StateReason { code: it.code.clone(), message: it.message.clone() };
    ObservedInstance {
        id: instance.id.as_str().into(),
        state: match instance.state {
            ec2::State::Pending => MachineState::Pending,
            ec2::State::Running => MachineState::Running,
            ec2::State::Stopping => MachineState::Stopping,
            ec2::State::Stopped => MachineState::Stopped,
            ec2::State::ShuttingDown => MachineState::ShuttingDown,
            ec2::State::Terminated => MachineState::Terminated,
        },
        launched_at: instance.launched_at,
        image: Some(instance.image.as_str().into()),
        pool: instance.tags.get("drover:pool").and_then(|pool| pool.parse().ok()),
        batch: instance.tags.get("drover:batch").and_then(|batch| batch.parse().ok()),
        hold: instance.tags.contains_key("drover:hold"),
        state_reason: instance.state_reason.as_ref().map(reason),
    }
}

fn observed_type(it: &TypeInfo, offerings: &[(&str, String)]) -> ObservedType {
    ObservedType {
        name: InstanceType::from(it.name),
        vcpus: it.vcpus,
        memory_mib: it.memory_mib,
        architecture: if it.architecture == "arm64" { Architecture::Arm64 } else { Architecture::X64 },
        current_generation: it.current_generation,
        burstable: it.burstable,
        bare_metal: it.bare_metal,
        zones: offerings
            .iter()
            .filter(|(name, _)| *name == it.name)
            .map(|(_, zone)| Zone::from(zone.as_str()))
            .collect(),
    }
}
