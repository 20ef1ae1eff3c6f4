//! Mistakes at EC2's port.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use async_trait::async_trait;
use domain::config::{ObservedMachines, ObservedPrice, Tuple};
use domain::ids::{BatchTag, InstanceId, InstanceType, SubnetId};
use engine::ports::{
    Compute, ComputeError, ErrorClass, Launch, LaunchError, Launched, ObservedInstance, Terminated, TerminationPermit,
};
use jiff::{SignedDuration, Timestamp};

use crate::mistakes::kinds::Mistake;
use crate::mistakes::ports::MistakenPorts;

#[async_trait]
impl Compute for MistakenPorts<'_> {
    async fn launch(&self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        if self.mistake == Mistake::RefusalUnclear {
            return self.world.compute.launch(launch).await.map_err(unclear);
        }
        if self.mistake == Mistake::SmallFallback && launch.tag.attempt > 1 {
            return self.world.compute.launch(&of_a_small_type(launch)).await;
        }
        if self.mistake != Mistake::ZoneChanged {
            return self.world.compute.launch(launch).await;
        }
        let repeated = self.unanswered().contains(&launch.tag);
        let launch = if repeated { in_another_zone(launch) } else { launch.clone() };
        let answer = self.world.compute.launch(&launch).await;
        if matches!(&answer, Err(error) if error.class == ErrorClass::Ambiguous) {
            self.unanswered().insert(launch.tag);
        }
        answer
    }

    async fn by_batch(&self, tag: &BatchTag) -> Result<Vec<ObservedInstance>, ComputeError> {
        self.world.compute.by_batch(tag).await
    }

    async fn census(&self) -> Result<Vec<ObservedInstance>, ComputeError> {
        if self.mistake == Mistake::NoListing {
            return Err(ComputeError::new("not asked"));
        }
        let mut machines = self.world.compute.census().await?;
        if self.mistake == Mistake::AllReclaimed {
            for reason in machines.iter_mut().filter_map(|machine| machine.state_reason.as_mut()) {
                reason.code = "Server.SpotInstanceTermination".to_owned();
            }
        }
        Ok(self.without_holds(machines))
    }

    async fn instances(&self, ids: &[InstanceId]) -> Result<Vec<ObservedInstance>, ComputeError> {
        self.world.compute.instances(ids).await.map(|found| self.without_holds(found))
    }

    async fn stop(&self, instance: &InstanceId, within: SignedDuration) -> Result<(), ComputeError> {
        self.world.compute.stop(instance, within).await
    }

    async fn start(&self, instances: &[InstanceId]) -> Result<(), ComputeError> {
        self.world.compute.start(instances).await
    }

    async fn terminate(&self, permit: &TerminationPermit) -> Result<Terminated, ComputeError> {
        self.world.compute.terminate(permit).await
    }

    async fn machines(&self, subnets: &BTreeSet<SubnetId>) -> Result<ObservedMachines, ComputeError> {
        self.world.compute.machines(subnets).await
    }

    async fn spot_prices(
        &self,
        types: &BTreeSet<InstanceType>,
        now: Timestamp,
    ) -> Result<Vec<ObservedPrice>, ComputeError> {
        self.world.compute.spot_prices(types, now).await
    }

    async fn console(&self, instance: &InstanceId) -> Result<Option<String>, ComputeError> {
        self.world.compute.console(instance).await
    }
}

impl MistakenPorts<'_> {
    /// `IgnoresHold` sees no protecting tag.
    fn without_holds(&self, mut found: Vec<ObservedInstance>) -> Vec<ObservedInstance> {
        if self.mistake == Mistake::IgnoresHold {
            found.iter_mut().for_each(|seen| seen.hold = false);
        }
        found
    }

    fn unanswered(&self) -> MutexGuard<'_, BTreeSet<BatchTag>> {
        self.memory.unanswered.lock().expect("no thread panics while it holds the lock")
    }
}

fn unclear(error: LaunchError) -> LaunchError {
    match error.class {
        ErrorClass::Refusal => LaunchError { class: ErrorClass::Ambiguous, ..error },
        _ => error,
    }
}

fn of_a_small_type(launch: &Launch) -> Launch {
    let tuple = Tuple { instance_type: "m7i.large".into(), ..launch.tuple.clone() };
    Launch { tuple, ..launch.clone() }
}

/// Every simulated region has two zones.
fn in_another_zone(launch: &Launch) -> Launch {
    let other = if launch.tuple.subnet.as_str() == "subnet-a" { "subnet-b" } else { "subnet-a" };
    let tuple = Tuple { subnet: other.into(), ..launch.tuple.clone() };
    Launch { tuple, ..launch.clone() }
}
